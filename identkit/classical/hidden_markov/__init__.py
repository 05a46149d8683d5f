"""Hidden Markov models: exact posteriors of whole state paths."""

from __future__ import annotations

from identkit.classical.hidden_markov.emissions import CategoricalEmission, PoissonEmission
from identkit.classical.hidden_markov.gaussian import GaussianEmission
from identkit.classical.hidden_markov.model import HiddenMarkov
from identkit.classical.hidden_markov.path import StatePath

__all__ = ["CategoricalEmission", "GaussianEmission", "HiddenMarkov", "PoissonEmission", "StatePath"]

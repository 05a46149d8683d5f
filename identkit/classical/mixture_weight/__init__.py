"""The paper's demonstration: the latent is the weight of a mixture of known components."""

from __future__ import annotations

from identkit.classical.mixture_weight.model import MixtureWeight
from identkit.classical.mixture_weight.posterior import MixtureWeightPosterior

__all__ = ["MixtureWeight", "MixtureWeightPosterior"]

"""Fitted hidden Markov models of hmmlearn, by their attributes: hmmlearn itself is never imported."""

from __future__ import annotations

from typing import Any

from identkit.classical.hidden_markov import CategoricalEmission, HiddenMarkov

_STEPS = 2


def from_hmmlearn(fitted: Any, length: int | None = None, first: int = 0) -> HiddenMarkov:
    """Take over a fitted `CategoricalHMM`, `GaussianHMM` or `PoissonHMM`.

    Args:
        fitted: the model after its `fit`.
        length: the number of steps that a row of data has and that `check` asks about; None for sequences of any length.
        first: the number of a `CategoricalHMM`'s first symbol: 0 for data as hmmlearn takes them; 1 for `check`, whose
            symbols are counted from 1 as in the text notation where there are more than two.

    Raises:
        TypeError: another class, such as `GMMHMM`.
        ValueError: it is not fitted.

    >>> import numpy as np
    >>> from hmmlearn.hmm import PoissonHMM
    >>> fitted = PoissonHMM(2, random_state=0).fit(np.array([[1], [0], [9], [8], [1], [9]]))
    >>> from_hmmlearn(fitted, length=3).latent_names
    ('z[1]', 'z[2]', 'z[3]')
    """
    model = HiddenMarkov.from_hmmlearn(fitted, length)
    if not isinstance(model.emission, CategoricalEmission) or first == 0:
        return model
    return HiddenMarkov(
        model.initial, model.transition, CategoricalEmission(model.emission.table, first), length
    )


def asked_about(fitted: Any) -> HiddenMarkov:
    """Give the model in the form that `check` asks about: its first two steps, symbols counted from 1.

    Two steps show the start and the chain; longer paths ask more (``from_hmmlearn(fitted, length=…)``) and take longer.
    """
    return from_hmmlearn(fitted, _STEPS, first=1)

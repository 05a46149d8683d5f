"""Hidden Markov models for the laws of exact models: each emission, its silent twin and its abuses."""

from __future__ import annotations

from typing import Any

from identkit.classical.hidden_markov import (
    CategoricalEmission,
    GaussianEmission,
    HiddenMarkov,
    PoissonEmission,
)
from tests.exact_example import Example

_PI, _A = [0.4, 0.6], [[0.9, 0.1], [0.2, 0.8]]
_COVARIANCE = [[1.0, 0.3], [0.3, 2.0]]


def _hmm(emission: Any, length: int = 3) -> HiddenMarkov:
    return HiddenMarkov(_PI, _A, emission, length)


EXAMPLES: dict[str, Example] = {
    "hidden Markov, categorical": Example(
        model=_hmm(CategoricalEmission([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], first=1)),
        x=[[1, 3, 2], [3, 3, 1], [1, 1, 1]],
        silent=_hmm(CategoricalEmission([[0.7, 0.2, 0.1]] * 2, first=1)),
        abuses=(
            (lambda: CategoricalEmission([[0.7, 0.2], [0.5, 0.5]]), "sum to one"),
            (lambda: CategoricalEmission([[1.2, -0.2], [0.5, 0.5]]), "at least 0"),
            (lambda: CategoricalEmission([[1.0], [1.0]]), "two symbols"),
            (lambda: CategoricalEmission([[0.5, 0.5]] * 2, first=2), "first should be"),
            (lambda: _hmm(CategoricalEmission([[0.5, 0.5]] * 3)), "emission should have 2 states"),
            (lambda: HiddenMarkov([0.4, 0.5], _A, CategoricalEmission([[0.5, 0.5]] * 2)), "sum to one"),
            (
                lambda: HiddenMarkov(_PI, [[0.9, 0.2]] * 2, CategoricalEmission([[0.5, 0.5]] * 2)),
                "row 1 of transition",
            ),
            (lambda: _hmm([[0.5, 0.5]] * 2), "emission should be a"),
            (lambda: _hmm(CategoricalEmission([[0.5, 0.5]] * 2), 0), "length should be"),
            (lambda: _hmm(CategoricalEmission([[0.5, 0.5]] * 2)).posterior([[0, 1, 2]]), "symbols in 0..1"),
            (lambda: _hmm(CategoricalEmission([[0.5, 0.5]] * 2)).posterior([[0, 1]]), "shape (any, 3)"),
        ),
        single=1e-4,
    ),
    "hidden Markov, Gaussian": Example(
        model=_hmm(GaussianEmission([0.0, 2.0], [1.0, 0.5])),
        x=[[0.3, 1.0, 2.5], [-4.0, 0.2, 0.1], [1.0, 1.0, 1.5]],
        silent=_hmm(GaussianEmission([0.7, 0.7], [1.5, 1.5])),
        abuses=(
            (lambda: GaussianEmission([0.0, 2.0], [1.0, 0.0]), "positive"),
            (lambda: GaussianEmission([0.0, float("nan")], [1.0, 1.0]), "finite"),
            (lambda: GaussianEmission([[0.0, 1.0]] * 2, [[[1.0, 1.0], [1.0, 1.0]]] * 2), "positive definite"),
            (lambda: GaussianEmission([[0.0, 1.0]] * 2, [[[1.0, 0.2], [0.1, 1.0]]] * 2), "symmetric"),
            (lambda: GaussianEmission([0.0, 2.0], 1.0), "covariances should have shape"),
            (
                lambda: _hmm(GaussianEmission([0.0, 2.0], [1.0, 1.0])).posterior([[0.0, float("inf"), 1.0]]),
                "finite",
            ),
        ),
        single=1e-4,
    ),
    "hidden Markov, Gaussian in two dimensions": Example(
        model=_hmm(GaussianEmission([[0.0, 1.0], [1.0, -1.0]], [_COVARIANCE, [[0.5, 0.0], [0.0, 0.5]]]), 2),
        x=[[0.3, 1.0, 2.5, 0.0], [-4.0, 0.2, 0.1, 1.0]],
        silent=_hmm(GaussianEmission([[0.0, 1.0]] * 2, [_COVARIANCE] * 2), 2),
        single=1e-4,
    ),
    "hidden Markov, Poisson": Example(
        model=_hmm(PoissonEmission([1.0, 4.0])),
        x=[[0, 3, 5], [9, 1, 1], [2, 2, 2]],
        silent=_hmm(PoissonEmission([2.5, 2.5])),
        abuses=(
            (lambda: PoissonEmission([1.0, 0.0]), "positive"),
            (lambda: _hmm(PoissonEmission([1.0, 2.0])).posterior([[0, 1, -1]]), "counts"),
            (lambda: _hmm(PoissonEmission([1.0, 2.0])).posterior([[0, 0.5, 1]]), "counts"),
        ),
        single=1e-4,
    ),
}

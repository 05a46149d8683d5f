"""Finite mixtures for the laws of exact models: each family, its silent twin and its abuses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import distributions as laws

from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.classical.mixtures import FamilyMixture, LatentClass
from tests.exact_example import Example

_WEIGHTS = [0.5, 0.3, 0.2]
_MEANS = [[0.0, 1.0], [2.0, -1.0], [-1.5, 3.0]]
_COVARIANCE = [[1.0, 0.3], [0.3, 2.0]]
_ITEMS = [
    [[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]],
    [[0.5, 0.25, 0.25], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]],
    [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]],
]
_KINDS: dict[str, Any] = {
    "full": [_COVARIANCE, [[0.5, 0.0], [0.0, 0.5]], [[2.0, -0.5], [-0.5, 1.0]]],
    "tied": _COVARIANCE,
    "diag": [[1.0, 0.5], [2.0, 0.3], [0.4, 0.4]],
    "spherical": [1.0, 0.5, 2.0],
}
_SAME: dict[str, Any] = {
    "full": [_COVARIANCE] * 3,
    "tied": _COVARIANCE,
    "diag": [[1.0, 0.5]] * 3,
    "spherical": [1.0] * 3,
}


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _gaussian(kind: str) -> Example:
    return Example(
        model=GaussianMixture(_WEIGHTS, _MEANS, _KINDS[kind], kind),
        x=[[0.3, 0.7], [2.5, -2.0], [-1.0, 4.0], [0.0, 0.0]],
        silent=GaussianMixture(_WEIGHTS, [[0.1, -3.7]] * 3, _SAME[kind], kind),
        abuses=(
            (lambda: GaussianMixture([0.5, 0.3, 0.3], _MEANS, _KINDS[kind], kind), "sum to one"),
            (lambda: GaussianMixture([1.2, 0.0, -0.2], _MEANS, _KINDS[kind], kind), "at least 0"),
            (lambda: GaussianMixture(_WEIGHTS, [[math.nan, 0.0]] * 3, _KINDS[kind], kind), "finite"),
            (lambda: GaussianMixture(_WEIGHTS, _MEANS, _KINDS[kind], "round"), "covariance_type should be"),
            (lambda: GaussianMixture(_WEIGHTS, _MEANS, [[[1.0]]], kind), "covariances should have shape"),
            (lambda: GaussianMixture(_WEIGHTS, _MEANS, _KINDS[kind], kind).posterior([[0.0]]), "shape"),
            (
                lambda: GaussianMixture(_WEIGHTS, _MEANS, _KINDS[kind], kind).posterior([[0.0, math.inf]]),
                "finite",
            ),
        ),
        single=1e-4,
    )


def _family(model: FamilyMixture, x: Any, silent: FamilyMixture, outside: Any) -> Example:
    return Example(
        model=model,
        x=x,
        silent=silent,
        abuses=(
            (lambda: FamilyMixture([0.5, 0.4], model.components), "sum to one"),
            (lambda: FamilyMixture([1.5, -0.5], model.components), "at least 0"),
            (lambda: model.posterior([outside]), "x should hold"),
            (lambda: model.posterior([math.nan]), "finite"),
            (lambda: model.log_likelihood(x, [[7.0]] * len(x)), "z should be a state"),
        ),
        single=1e-4,
    )


EXAMPLES: dict[str, Example] = {
    **{f"Gaussian mixture, {kind}": _gaussian(kind) for kind in _KINDS},
    "latent class": Example(
        model=LatentClass(_WEIGHTS, _ITEMS, first=1),
        x=[[1, 1, 1], [2, 3, 2], [1, 2, 2], [2, 1, 1]],
        silent=LatentClass(_WEIGHTS, [[table[0]] * 3 for table in _ITEMS], first=1),
        abuses=(
            (lambda: LatentClass([0.5, 0.5, 0.5], _ITEMS), "sum to one"),
            (lambda: LatentClass(_WEIGHTS, [[[0.5, 0.4]] * 3]), "rows that sum to one"),
            (lambda: LatentClass(_WEIGHTS, [[[1.5, -0.5]] * 3]), "at least 0"),
            (lambda: LatentClass(_WEIGHTS, [[[0.5, 0.5]] * 2]), "weights should have shape"),
            (
                lambda: LatentClass(_WEIGHTS, _ITEMS).posterior([[0, 3, 0]]),
                "answers numbered 0..2 in column 1",
            ),
            (lambda: LatentClass(_WEIGHTS, _ITEMS).posterior([[0, 1]]), "shape"),
        ),
        single=1e-4,
    ),
    "latent class, yes or no": Example(
        model=LatentClass.bernoulli([0.4, 0.6], [[0.9, 0.8, 0.3], [0.2, 0.3, 0.6]]),
        x=[[0, 0, 0], [1, 1, 0], [0, 1, 1]],
        silent=LatentClass.bernoulli([0.4, 0.6], [[0.9, 0.8, 0.3]] * 2),
        abuses=(
            (lambda: LatentClass.bernoulli([0.4, 0.6], [[0.9], [1.2]]), "success should be in"),
            (lambda: LatentClass.bernoulli([0.4, 0.6], [[0.9], [math.nan]]), "finite"),
            (lambda: LatentClass.bernoulli([0.4, 0.6], [0.9, 0.2]), "success should have shape"),
        ),
        single=1e-4,
    ),
    "Poisson mixture": _family(
        FamilyMixture([0.25, 0.75], laws.Poisson(_tensor([1.0, 4.0]))),
        [[0.0], [3.0], [9.0]],
        FamilyMixture([0.25, 0.75], laws.Poisson(_tensor([2.5, 2.5]))),
        -1,
    ),
    "exponential mixture": _family(
        FamilyMixture([0.25, 0.75], laws.Exponential(_tensor([1.0, 3.0]))),
        [[0.1], [1.0], [4.0]],
        FamilyMixture([0.25, 0.75], laws.Exponential(_tensor([2.5, 2.5]))),
        -1.0,
    ),
    "Bernoulli mixture in three columns": _family(
        FamilyMixture(
            [0.25, 0.75], laws.Independent(laws.Bernoulli(_tensor([[0.2, 0.5, 0.9], [0.4, 0.5, 0.1]])), 1)
        ),
        [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
        FamilyMixture([0.25, 0.75], laws.Independent(laws.Bernoulli(_tensor([[0.2, 0.5, 0.9]] * 2)), 1)),
        [2, 0, 0],
    ),
    "binomial mixture": _family(
        FamilyMixture([0.25, 0.75], laws.Binomial(6, _tensor([0.2, 0.7]))),
        [[0.0], [3.0], [6.0]],
        FamilyMixture([0.25, 0.75], laws.Binomial(6, _tensor([0.4, 0.4]))),
        7,
    ),
    "geometric mixture": _family(
        FamilyMixture([0.25, 0.75], laws.Geometric(_tensor([0.2, 0.7]))),
        [[0.0], [1.0], [6.0]],
        FamilyMixture([0.25, 0.75], laws.Geometric(_tensor([0.4, 0.4]))),
        0.5,
    ),
    "gamma mixture": _family(
        FamilyMixture([0.25, 0.75], laws.Gamma(_tensor([1.0, 4.0]), _tensor([0.5, 2.0]))),
        [[0.25], [2.0], [7.0]],
        FamilyMixture([0.25, 0.75], laws.Gamma(_tensor([2.0, 2.0]), _tensor([0.5, 0.5]))),
        0.0,
    ),
}

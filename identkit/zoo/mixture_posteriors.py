"""Finite mixtures with exact posteriors: latent classes and exponential families, on both sides of the line.

Builders import when called, so that reading the table needs no torch.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case

_PAPER = "Wang, Blei & Cunningham 2021"


def _latent_class(weights: Any, success: Any) -> Any:
    from identkit.classical.mixtures import LatentClass

    return LatentClass.bernoulli(weights, success)


def _questionnaire(weights: Any, items: Any) -> Any:
    from identkit.classical.mixtures import LatentClass

    return LatentClass(weights, items, first=1)


def _family(name: str, weights: Any, *parameters: Any, trials: int | None = None) -> Any:
    import torch

    from identkit.classical.mixtures import FamilyMixture

    tensors = [torch.tensor(parameter, dtype=torch.float64) for parameter in parameters]
    family = getattr(torch.distributions, name)
    return FamilyMixture(weights, family(trials, *tensors) if trials else family(*tensors))


def _gaussian(covariances: Any, covariance_type: str) -> Any:
    from identkit.classical.gaussian_mixture import GaussianMixture

    return GaussianMixture([0.4, 0.6], [[0.0, 1.0]] * 2, covariances, covariance_type)


CASES = (
    Case(
        name="gmm-tied-equal-means",
        model=lambda: _gaussian([[1.0, 0.3], [0.3, 2.0]], "tied"),
        source="by hand: one covariance for all and equal means leave one law",
        levels={"k": "CONSTANT"},
        level="CONSTANT",
        note="With tied covariances, components differ by their means or not at all.",
    ),
    Case(
        name="gmm-spherical-equal-means",
        model=lambda: _gaussian([1.0, 4.0], "spherical"),
        source="by hand: two normal laws of different variance",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="Equal means, but free variances: a wide and a narrow component are told apart.",
    ),
    Case(
        name="latent-class-two-items",
        model=lambda: _latent_class([0.4, 0.6], [[0.9, 0.8], [0.2, 0.3]]),
        source="by hand: the two classes answer yes with different probabilities; Goodman 1974",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="At known tables two items tell the classes apart, though they are too few to learn the tables from.",
    ),
    Case(
        name="latent-class-equal",
        model=lambda: _latent_class([0.4, 0.6], [[0.9, 0.8], [0.9, 0.8]]),
        source=f"{_PAPER}, section 2; by hand: equal tables",
        levels={"k": "CONSTANT"},
        level="CONSTANT",
        note="Classes that answer alike: the prior comes back whatever is answered.",
    ),
    Case(
        name="latent-class-merged",
        model=lambda: _questionnaire(
            [0.25, 0.25, 0.5], [[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]] * 2
        ),
        source="H17; by hand: classes 1 and 2 have one table, class 3 another",
        levels={"k": "PARTIAL"},
        level="PARTIAL",
        note="Two classes with one table: the answers tell {1, 2} from 3, and leave the prior's odds within.",
    ),
    Case(
        name="poisson-mixture",
        model=lambda: _family("Poisson", [0.25, 0.75], [1.0, 4.0]),
        source="Teicher 1960; by hand: two different rates",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="Two rates: every count but one speaks for one of them.",
    ),
    Case(
        name="poisson-mixture-equal",
        model=lambda: _family("Poisson", [0.25, 0.75], [2.5, 2.5]),
        source=f"{_PAPER}, section 2; by hand: one rate",
        levels={"k": "CONSTANT"},
        level="CONSTANT",
        note="One rate twice: counts say nothing about the component.",
    ),
    Case(
        name="exponential-mixture",
        model=lambda: _family("Exponential", [0.5, 0.5], [1.0, 3.0]),
        source="Teicher 1961; by hand: two different rates",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="A slow and a fast waiting time.",
    ),
    Case(
        name="exponential-mixture-equal",
        model=lambda: _family("Exponential", [0.5, 0.5], [3.0, 3.0]),
        source=f"{_PAPER}, section 2; by hand: one rate",
        levels={"k": "CONSTANT"},
        level="CONSTANT",
        note="Equal rates: the posterior is the prior at every waiting time.",
    ),
    Case(
        name="gamma-mixture-same-mean",
        model=lambda: _family("Gamma", [0.5, 0.5], [1.0, 4.0], [0.5, 2.0]),
        source="by hand: Gamma(1, 1/2) and Gamma(4, 2) have the mean 2 and different variances",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="Equal means are not equal laws: the spread tells the components apart.",
    ),
    Case(
        name="binomial-mixture",
        model=lambda: _family("Binomial", [0.5, 0.5], [0.25, 0.5], trials=5),
        source="by hand: two different probabilities of success",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="Two coins, five tosses.",
    ),
    Case(
        name="geometric-mixture-merged",
        model=lambda: _family("Geometric", [0.25, 0.25, 0.5], [0.5, 0.5, 0.125]),
        source="H17; by hand: components 1 and 2 have one law, component 3 another",
        levels={"k": "PARTIAL"},
        level="PARTIAL",
        note="Merged components among three.",
    ),
)

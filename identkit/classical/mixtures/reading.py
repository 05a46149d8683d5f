"""Torch's distributions as members of exponential families: which one it is, and its parameters."""

from __future__ import annotations

from torch import Tensor, distributions, stack

from identkit.classical.arrays import positive
from identkit.classical.mixtures.members import (
    Bernoulli,
    Binomial,
    Exponential,
    Gamma,
    Geometric,
    Member,
    Poisson,
)

_CLASSES = {
    name.lower(): getattr(distributions, name)
    for name in ("Poisson", "Exponential", "Bernoulli", "Binomial", "Geometric", "Gamma")
}


def member_of(components: distributions.Distribution) -> tuple[Member, Tensor]:
    """Read the family and its parameters (P, K, d) off a torch distribution of batch shape (K,) or (K, d).

    Raises:
        TypeError: another family.
        ValueError: parameters at the edge of their domain, a Binomial of unequal counts.
    """
    if isinstance(components, distributions.Poisson):
        return Poisson(), _positive(components.rate, "rate")[None]
    if isinstance(components, distributions.Gamma):
        shape, rate = _positive(components.concentration, "concentration"), _positive(components.rate, "rate")
        return Gamma(), stack([shape, rate])
    if isinstance(components, distributions.Exponential):
        return Exponential(), _positive(components.rate, "rate")[None]
    if isinstance(components, distributions.Bernoulli):
        return Bernoulli(1), _inside(components.probs)[None]
    if isinstance(components, distributions.Geometric):
        return Geometric(), _inside(components.probs)[None]
    if isinstance(components, distributions.Binomial):
        counts = components.total_count.unique()
        if len(counts) > 1:
            raise ValueError(f"components should share one total_count, got {counts.tolist()}")
        return Binomial(int(counts)), _inside(components.probs)[None]
    raise TypeError(
        "components should be a torch Poisson, Exponential, Bernoulli, Binomial, Geometric or Gamma, "
        f"got {type(components).__name__}"
    )


def member_named(family: type | str, total_count: int | None, shape: float | int | None) -> Member:
    """Give the member for a class of torch distributions, or its name.

    Raises:
        TypeError, ValueError: another class; a missing or needless total_count or shape.
    """
    if isinstance(family, str):
        family = _CLASSES.get(family.lower(), family)
    if (total_count is not None) != (family is distributions.Binomial):
        raise ValueError(f"total_count should be given for a Binomial, and only there, got {total_count}")
    if shape is not None and family is not distributions.Gamma:
        raise ValueError(f"shape should be given for a Gamma only, got {shape}")
    simple = {
        distributions.Poisson: Poisson(),
        distributions.Exponential: Exponential(),
        distributions.Bernoulli: Bernoulli(1),
        distributions.Geometric: Geometric(),
    }
    if family in simple:
        return simple[family]
    if family is distributions.Binomial and total_count is not None:
        if total_count < 1:
            raise ValueError(f"total_count should be at least 1, got {total_count}")
        return Binomial(total_count)
    if family is distributions.Gamma:
        return Gamma(None if shape is None else positive(shape, "shape"))
    raise TypeError(
        "family should be torch's Poisson, Exponential, Bernoulli, Binomial, Geometric or Gamma, "
        f"got {getattr(family, '__name__', family)}"
    )


def _positive(values: Tensor, name: str) -> Tensor:
    values = values.detach().double()
    refused = values[~((values > 0) & values.isfinite())]
    if len(refused):
        raise ValueError(f"components should have a positive {name}, got {refused[0].item()}")
    return values


def _inside(values: Tensor) -> Tensor:
    values = values.detach().double()
    refused = values[~((values > 0) & (values < 1))]
    if len(refused):
        raise ValueError(
            f"components should have probs inside (0, 1), got {refused[0].item()}; LatentClass takes 0 and 1"
        )
    return values

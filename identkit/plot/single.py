"""The law of one latent by itself, out of whatever an exact model calls its prior or its posterior."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Categorical,
    Dirichlet,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
)


def alone(law: Any, j: int) -> Any:
    """The law of latent j for each datum, the others integrated out.

    A Dirichlet's coordinate is a Beta, a normal vector's a Normal; a posterior class gives its `marginal`.

    Raises:
        ValueError: this latent's law is not known by itself.

    >>> own = alone(Dirichlet(torch.tensor([1.0, 2.0, 3.0])), 0)
    >>> own.concentration1.item(), own.concentration0.item()
    (1.0, 5.0)
    """
    if isinstance(law, Dirichlet):
        own = law.concentration[..., j]
        return Beta(own, law.concentration.sum(-1) - own)
    if isinstance(law, MultivariateNormal):
        return Normal(law.mean[..., j], law.stddev[..., j])
    if isinstance(law, Independent):
        return _Coordinate(law, j)
    probs = getattr(law, "probs", None)
    if isinstance(probs, Tensor) and not isinstance(law, Categorical):  # of a path, (…, T, K)
        return Categorical(probs=probs[..., j, :], validate_args=False)
    marginal = getattr(law, "marginal", None)
    own = law if marginal is None else marginal(j)
    if not isinstance(own, Distribution) and law.mean.ndim > 1 and law.mean.shape[1] > 1:
        raise ValueError("each point of one of several abilities would be an integral over the others")
    return own


def density(law: Any, i: int) -> Callable[[np.ndarray], np.ndarray]:
    """The density of datum i's law as a function of points; a law that is common to all data serves each."""

    def at(points: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(points)
        batched = isinstance(law, Distribution | _Coordinate)  # a class of our own takes values alone
        table = law.log_prob(values[:, None] if batched else values).exp()
        table = table.reshape(len(points), -1)
        return table[:, min(i, table.shape[1] - 1)].cpu().numpy()

    return at


def masses(law: Categorical, i: int) -> Callable[[np.ndarray], np.ndarray]:
    """The probabilities of datum i's law as a function of states."""
    rows = law.probs.reshape(-1, law.probs.shape[-1]).cpu().numpy()
    return lambda states: rows[min(i, len(rows) - 1)][states.astype(int)]


def support(law: Any) -> tuple[float, float]:
    """Between which numbers the law lives."""
    limits = getattr(law, "support", None)
    limits = getattr(limits, "base_constraint", limits)
    return tuple(
        float(getattr(limits, f"{end}_bound", sign * math.inf)) for end, sign in (("lower", -1), ("upper", 1))
    )  # type: ignore[return-value]


class _Coordinate:
    """One coordinate of independent ones."""

    def __init__(self, law: Independent, j: int) -> None:
        self._law, self._j = law, j
        self.support = law.base_dist.support

    @property
    def mean(self) -> Tensor:
        return self._law.mean[..., self._j]

    @property
    def variance(self) -> Tensor:
        return self._law.variance[..., self._j]

    def log_prob(self, value: Tensor) -> Tensor:
        width = self._law.event_shape[0]
        return self._law.base_dist.log_prob(value[..., None].expand(*value.shape, width))[..., self._j]

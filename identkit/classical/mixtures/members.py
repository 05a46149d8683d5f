"""Exponential families as components of a mixture: each once, with differences of log densities that do not cancel.

A member writes ``log p(x; θ) = Φ(x)·η(θ) + base(x)`` with few statistics Φ. What a mixture needs is
``η(θ_k) − η(θ_0)``, built from differences of the parameters so that equal components give exactly 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributions

from identkit.classical.arrays import COUNTS, no_counts
from identkit.model import families
from identkit.model.compiled.saddle_point import log_binomial, log_gamma, log_poisson

_GAUSS = np.polynomial.legendre.leggauss(12)
_LEAST = 1e-12
"""Parameters of a fit stay this far from the edge of their domain, where a component would rule data out."""
_NEWTON = 60


@dataclass(frozen=True)
class Member(ABC):
    """One exponential family; parameters θ have shape (P, K, d), data (n, d), statistics (n, m, d)."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What its data are, for messages."""

    @property
    def whole(self) -> bool:
        """Whether data are whole numbers."""
        return True

    @abstractmethod
    def refused(self, x: Tensor) -> Tensor:
        """Which data it cannot produce."""

    @abstractmethod
    def law(self, parameters: Tensor) -> distributions.Distribution:
        """Torch's distribution of these parameters, of batch shape (K, d)."""

    def log_density(self, x: Tensor, parameters: Tensor) -> Tensor:
        """``log p(x; θ)`` in nats, (n, K, d), without cancellation."""
        return self.law(parameters).log_prob(x[:, None, :])

    @abstractmethod
    def statistics(self, x: Tensor) -> Tensor:
        """Φ(x), (n, m, d)."""

    @abstractmethod
    def gains(self, own: Tensor, first: Tensor) -> Tensor:
        """η(θ_k) − η(θ_0), (m, K, d), free of cancellation."""

    @abstractmethod
    def sway(self, parameters: Tensor) -> Tensor:
        """Bounds on how fast the coefficients of Φ in ℓ move with the logarithm of the parameters, (m, K, d)."""

    @abstractmethod
    def maximised(self, x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        """The parameters that maximise ``Σ r log p(x; θ)``: from data, masses (n, K) and their sums (K, 1)."""

    @abstractmethod
    def declared(self, *parameters: Any) -> families.Family:
        """The same law in the notation, from SymPy expressions."""

    def close(self, own: Tensor, first: Tensor) -> Tensor:
        """Where a segment between parameters stays away from the edge of their domain, (K, d)."""
        return ((own - first).abs() <= first / 2).all(0)

    def bulk(self, x: Tensor) -> Tensor:
        """Size of the terms of a log density that all components share, (n, d)."""
        return torch.zeros_like(x)


class _Counts(Member):
    """Counts without a bound, whose sum and number are sufficient."""

    @property
    def words(self) -> str:
        return COUNTS

    def refused(self, x: Tensor) -> Tensor:
        return no_counts(x)

    def statistics(self, x: Tensor) -> Tensor:
        return torch.stack([x, torch.ones_like(x)], 1)


class Poisson(_Counts):
    """Counts: ``x log λ − λ``."""

    def law(self, parameters: Tensor) -> distributions.Distribution:
        return distributions.Poisson(parameters[0], validate_args=False)

    def log_density(self, x: Tensor, parameters: Tensor) -> Tensor:
        return log_poisson(x[:, None, :], parameters[0])

    def gains(self, own: Tensor, first: Tensor) -> Tensor:
        return torch.stack([_log_quotient(own[0], first[0]), first[0] - own[0]])

    def sway(self, parameters: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(parameters[0]), parameters[0]])

    def maximised(self, x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        return _means(x, mass, total)[None]

    def declared(self, *parameters: Any) -> families.Family:
        return families.Poisson(*parameters)

    def bulk(self, x: Tensor) -> Tensor:
        return torch.lgamma(x + 1)


class Exponential(Member):
    """Waiting times: ``log r − r x``."""

    @property
    def words(self) -> str:
        return "non-negative numbers"

    @property
    def whole(self) -> bool:
        return False

    def refused(self, x: Tensor) -> Tensor:
        return x < 0

    def law(self, parameters: Tensor) -> distributions.Distribution:
        return distributions.Exponential(parameters[0], validate_args=False)

    def statistics(self, x: Tensor) -> Tensor:
        return torch.stack([x, torch.ones_like(x)], 1)

    def gains(self, own: Tensor, first: Tensor) -> Tensor:
        return torch.stack([first[0] - own[0], _log_quotient(own[0], first[0])])

    def sway(self, parameters: Tensor) -> Tensor:
        return torch.stack([parameters[0], torch.ones_like(parameters[0])])

    def maximised(self, x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        return (1 / _means(x, mass, total))[None]

    def declared(self, *parameters: Any) -> families.Family:
        return families.Exponential(*parameters)


@dataclass(frozen=True)
class Binomial(Member):
    """Successes out of N: ``x log p + (N − x) log(1 − p)``."""

    count: int

    @property
    def words(self) -> str:
        return f"whole numbers 0..{self.count}"

    def refused(self, x: Tensor) -> Tensor:
        return (x < 0) | (x > self.count) | (x != x.round())

    def law(self, parameters: Tensor) -> distributions.Distribution:
        return distributions.Binomial(self.count, parameters[0], validate_args=False)

    def log_density(self, x: Tensor, parameters: Tensor) -> Tensor:
        return log_binomial(x[:, None, :], self.count, parameters[0])

    def statistics(self, x: Tensor) -> Tensor:
        return torch.stack([x, self.count - x], 1)

    def gains(self, own: Tensor, first: Tensor) -> Tensor:
        p, p0 = own[0], first[0]
        down = p0 - p  # (1 − p) − (1 − p0)
        lost = torch.where(
            down.abs() < (1 - p0) / 2, torch.log1p(down / (1 - p0)), torch.log1p(-p) - torch.log1p(-p0)
        )
        return torch.stack([_log_quotient(p, p0), lost])

    def sway(self, parameters: Tensor) -> Tensor:
        p = parameters[0]
        return torch.stack([torch.ones_like(p), p / (1 - p)])

    def maximised(self, x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        return (mass.T @ x / total / self.count).clamp(_LEAST, 1 - _LEAST)[None]

    def close(self, own: Tensor, first: Tensor) -> Tensor:
        return ((own - first).abs() <= torch.minimum(first, 1 - first) / 2).all(0)

    def declared(self, *parameters: Any) -> families.Family:
        return families.Binomial(self.count, *parameters)

    def bulk(self, x: Tensor) -> Tensor:
        return torch.full_like(x, 3 * math.lgamma(self.count + 1))


class Bernoulli(Binomial):
    """Yes or no, 1 or 0: one trial of a `Binomial`."""

    def declared(self, *parameters: Any) -> families.Family:
        return families.Bernoulli(*parameters)


class Geometric(_Counts):
    """Failures before the first success: ``x log(1 − p) + log p``."""

    def law(self, parameters: Tensor) -> distributions.Distribution:
        return distributions.Geometric(parameters[0], validate_args=False)

    def gains(self, own: Tensor, first: Tensor) -> Tensor:
        won, lost = Binomial(1).gains(own, first)
        return torch.stack([lost, won])

    def sway(self, parameters: Tensor) -> Tensor:
        won, lost = Binomial(1).sway(parameters)
        return torch.stack([lost, won])

    def maximised(self, x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        return (1 / (1 + mass.T @ x / total)).clamp(_LEAST, 1 - _LEAST)[None]

    def close(self, own: Tensor, first: Tensor) -> Tensor:
        return ((own - first).abs() <= torch.minimum(first, 1 - first) / 2).all(0)

    def declared(self, *parameters: Any) -> families.Family:
        return families.Geometric(*parameters)


@dataclass(frozen=True)
class Gamma(Member):
    """Positive numbers: ``a log(b x) − b x − log Γ(a)``; a fit leaves a as it is where `shape` is given."""

    shape: float | None = None

    @property
    def words(self) -> str:
        return "positive numbers"

    @property
    def whole(self) -> bool:
        return False

    def refused(self, x: Tensor) -> Tensor:
        return x <= 0

    def law(self, parameters: Tensor) -> distributions.Distribution:
        return distributions.Gamma(parameters[0], parameters[1], validate_args=False)

    def log_density(self, x: Tensor, parameters: Tensor) -> Tensor:
        return log_gamma(x[:, None, :], *parameters)

    def statistics(self, x: Tensor) -> Tensor:
        return torch.stack([x.log(), x, torch.ones_like(x)], 1)

    def gains(self, own: Tensor, first: Tensor) -> Tensor:
        (a, b), (a0, b0) = own, first
        up = a - a0
        # log Γ(a) − log Γ(a0) = ∫ ψ along the way, where that is short
        mean = sum(
            weight / 2 * torch.digamma(a0 + (node + 1) / 2 * up) for node, weight in zip(*_GAUSS, strict=True)
        )
        gamma = torch.where(up.abs() < a0 / 2, up * mean, torch.lgamma(a) - torch.lgamma(a0))
        return torch.stack([up, b0 - b, a * _log_quotient(b, b0) + up * b0.log() - gamma])

    def sway(self, parameters: Tensor) -> Tensor:
        a, b = parameters
        return torch.stack([a, b, (a * (b.log() - torch.digamma(a))).abs() + torch.lgamma(a).abs() + a])

    def maximised(self, x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
        mean = _means(x, mass, total)
        if self.shape is not None:
            a = torch.full_like(mean, self.shape)
        else:
            # log mean − mean log, from log(x/mean) so that its size is that of the spread
            level = (mass.T @ x.log()) / total
            a = _gamma_shape((mean.log() - level).clamp(min=1e-9))
        return torch.stack([a, a / mean])

    def declared(self, *parameters: Any) -> families.Family:
        return families.Gamma(*parameters)


def _means(x: Tensor, mass: Tensor, total: Tensor) -> Tensor:
    return torch.maximum(mass.T @ x / total, _LEAST * x.mean(0)).clamp(min=1e-300)


def _log_quotient(a: Tensor, b: Tensor) -> Tensor:
    near = (a - b).abs() < b / 2
    return torch.where(near, torch.log1p((a - b) / b), a.log() - b.log())


def _gamma_shape(spread: Tensor) -> Tensor:
    """Solve ``log a − ψ(a) = s`` by Newton's method in 1/a (Minka 2002, eq. 10)."""
    a = (3 - spread + ((spread - 3).square() + 24 * spread).sqrt()) / (12 * spread)
    for _ in range(_NEWTON):
        step = a.log() - torch.digamma(a) - spread
        slope = a.square() * (1 / a - torch.polygamma(1, a))
        following = 1 / (1 / a + step / slope)
        if bool(((following - a).abs() <= 1e-15 * a).all()):
            return following
        a = following
    return a

"""The moments of the log-likelihood of a mixing weight under its prior: Gauss–Jacobi sums and adaptive integrals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import quad_vec
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
from torch import Tensor

from identkit.model.protocol import Flatness
from identkit.posterior.bounds import beta_log_sobolev

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300
_ORDERS = (96, 144)
_CHUNK = 2_000_000


def weight_flatness(ratios: Float[Tensor, " n"], errors: Float[Tensor, " n"], a: float, b: float) -> Flatness:
    """Give the moments of ``ℓ(α) = Σ_i log(α e^{t_i} + 1 − α)`` under Beta(a, b); see `MixtureWeight.flatness`.

    Args:
        ratios: t_i.
        errors: bounds on their absolute errors.
        a: the prior's first shape.
        b: the prior's second shape.
    """
    likelihood, total_error = _Concave(ratios), errors.sum().item()
    variances, spread = [], 0.0
    for order in _ORDERS:
        nodes, weights = _gauss_jacobi(order, a, b)
        value, slope = likelihood(nodes)
        variances.append((weights * (value - (weights * value).sum()).square()).sum().item())
        wobble = (
            4 * _EPS * (value.abs() + slope.abs())
            + (torch.logit(nodes).abs() / 4).clamp(max=1.0) * total_error
        )
        spread = (weights * wobble.square()).sum().sqrt().item()
    variance = variances[-1]
    change = abs(variance - variances[0])

    peak = _decreasing_root(lambda alpha: likelihood.scalar(alpha)[1])
    top, low = max(likelihood.scalar(peak)[0], *likelihood.ends), min(likelihood.ends)
    log_sobolev = beta_log_sobolev(a, b)
    gradient, shift = (None, None) if log_sobolev is None else _posterior_moments(likelihood, a, b, spread)

    def one(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    return Flatness(
        variance=one(variance),
        variance_error=one(change + 2 * spread * (math.sqrt(variance) + spread) + 1e-13 * variance + _TINY),
        oscillation=one(top - low + 8 * _EPS * (abs(top) + abs(low)) + total_error),
        log_sobolev=log_sobolev,
        gradient_second_moment=None if gradient is None else one(gradient),
        mean_shift=None if shift is None else one(shift),
    )


class _Concave:
    """ℓ(α) and ℓ'(α), each datum relative to its likelier component: a constant that moments do not see.

    ``Σ_{t ≤ 0} log1p(α expm1(t)) + Σ_{t > 0} log1p((1 − α) expm1(−t))``: all terms of one sign.
    """

    def __init__(self, ratios: Tensor) -> None:
        self._down, self._up = torch.expm1(ratios[ratios <= 0]), torch.expm1(-ratios[ratios > 0])
        self._block = max(1, _CHUNK // len(ratios))
        # At the ends themselves log1p(expm1(t)) = t, which −1 + e^t would lose below t = −37.
        self.ends = (-ratios[ratios > 0].sum().item(), ratios[ratios <= 0].sum().item())

    def __call__(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = [], []
        for weights in alpha[:, None].split(self._block):
            down, up = weights * self._down, (1 - weights) * self._up
            values.append(torch.log1p(down).sum(1) + torch.log1p(up).sum(1))
            slopes.append((self._down / (1 + down)).sum(1) - (self._up / (1 + up)).sum(1))
        return torch.cat(values), torch.cat(slopes)

    def scalar(self, alpha: float) -> tuple[float, float]:
        value, slope = self(torch.tensor([alpha], dtype=torch.float64))
        return value.item(), slope.item()


def _posterior_moments(likelihood: _Concave, a: float, b: float, spread: float) -> tuple[float, float]:
    """``E_Q ℓ'²`` rounded up and ``(E_Q α − E_P α)²`` rounded down, by adaptive Gauss–Kronrod; a, b ≥ 1."""

    def log_density(alpha: float) -> tuple[float, float, float]:
        value, slope = likelihood.scalar(alpha)
        prior = (a - 1) * math.log(alpha) + (b - 1) * math.log1p(-alpha)
        return prior + value, (a - 1) / alpha - (b - 1) / (1 - alpha) + slope, slope

    centre = _decreasing_root(lambda alpha: log_density(alpha)[1])
    top = log_density(centre)[0]
    nearby = min(max(1e-4 * centre * (1 - centre), 2 * _EPS), 0.1)
    sides = [min(max(centre + sign * nearby, _EPS), 1 - _EPS) for sign in (-1, 1)]
    fall = log_density(sides[0])[1] - log_density(sides[1])[1]
    width = math.sqrt((sides[1] - sides[0]) / max(fall, _TINY))
    scale = 1 / width**2

    def integrand(alpha: float) -> np.ndarray:
        log, _, slope = log_density(min(max(alpha, _EPS), 1 - _EPS))
        weight = math.exp(min(log - top, 0.0))
        return np.array([weight, weight * (alpha - centre), weight * slope**2 / scale])

    points = [p for k in (-9, -3, 0, 3, 9) if 0 < (p := centre + k * width) < 1]
    found, error = quad_vec(integrand, 0.0, 1.0, epsabs=0.0, epsrel=1e-12, norm="max", points=points)[:2]
    error = 2 * error / found[0]
    shift = abs(centre + found[1] / found[0] - a / (a + b)) - (error + spread + 1e-12)
    return found[2] / found[0] * scale * (1 + 1e-9) + error * scale, max(shift, 0.0) ** 2


def _decreasing_root(slope: Any) -> float:
    """Where a decreasing function of α changes sign, or the end of (0, 1) that it points to."""
    if slope(_EPS) <= 0:
        return _EPS
    return 1 - _EPS if slope(1 - _EPS) >= 0 else brentq(slope, _EPS, 1 - _EPS, xtol=1e-15)


def _gauss_jacobi(order: int, a: float, b: float) -> tuple[Tensor, Tensor]:
    """Nodes and masses of the Gauss rule for Beta(a, b), from its Jacobi matrix; sound for any shapes.

    (scipy.special.roots_jacobi overflows for shapes beyond a few hundred.)
    """
    k, s = np.arange(1.0, order), a + b - 2
    diagonal = np.full(order, a / (a + b))
    diagonal[1:] = 0.5 + ((a - 1) ** 2 - (b - 1) ** 2) / (2 * (2 * k + s) * (2 * k + s + 2))
    squares = np.full(order - 1, a * b / ((a + b) ** 2 * (a + b + 1)))
    k = k[1:]
    squares[1:] = k * (k + a - 1) * (k + b - 1) * (k + s) / ((2 * k + s) ** 2 * ((2 * k + s) ** 2 - 1))
    nodes, vectors = eigh_tridiagonal(diagonal, np.sqrt(squares))
    masses = vectors[0] ** 2
    nodes = nodes.clip(_EPS, 1 - _EPS)
    return torch.from_numpy(nodes), torch.from_numpy(masses / masses.sum())

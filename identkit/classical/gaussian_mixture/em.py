"""Expectation–maximisation of a Gaussian mixture: both steps in one journey through the data, a block at a time.

No responsibility outlives its block: a block leaves behind what the M-step needs of it, the moments of each component
about its present mean. So an iteration reads the data once, holds no table of n × K numbers, and on few data is a few
dozen operations on small tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.gaussian_mixture.covariances import Moments, Parameters, as_full, maximised

_BLOCK = 2**18  # numbers in flight at once: they stay in the processor's cache
_REACH = 2.0**17
"""Up to this many squared standard deviations from the centre squares are multiplied out: ℓ is right to 3e-11 nats."""
_LEAP = 1 - 2.0**-20
"""A component that moves by a thousand of its new standard deviations keeps too few digits of its old moments."""


class Climb:
    """One data set and one kind of covariances, with what every iteration on them needs.

    Args:
        x: data (n, d), float64.
        covariance_type: one of the four.
        least: least variances (d,); 0 for none.
    """

    def __init__(self, x: Float[Tensor, "n d"], covariance_type: str, least: Float[Tensor, " d"]) -> None:
        self.x, self.covariance_type = x, covariance_type
        self.matrices = covariance_type in ("full", "tied")
        self.least = least.mean() if covariance_type == "spherical" else least
        self.centre = x.mean(0)
        self._kept: Tensor | None = None

    def begun(self, mass: Float[Tensor, "n k"]) -> Parameters:
        """Give the parameters that first responsibilities ask for; their means are those of centred data."""
        total = mass.sum(0)
        first = torch.zeros_like(total[:, None] * self.centre)
        for block, rows in self._blocks(len(total)):
            first += mass[rows].mT @ block
        means = first / total[:, None].clamp(min=1e-300)
        moments = Moments.none(means, self.matrices)
        for block, rows in self._blocks(len(total)):
            moments.add(block - means[:, None, :], mass[rows].mT)
        return maximised(moments, means, None, self.covariance_type, self.least)

    def step(self, now: Parameters) -> tuple[Parameters, float]:
        """Give the next parameters, and the log-likelihood of the present ones in nats.

        ``r_k ∝ π_k N(x; μ_k, C_k)``, then ``π_k = Σ r/n``, ``μ_k`` and ``C_k`` the mean and covariance under r.

        Source: Dempster, Laird & Rubin 1977.
        """
        multiplied_out = not self.matrices and self._near(now)
        moments, evidence = self._by_squares(now) if multiplied_out else self._by_differences(now, now.means)
        about = now.means
        moved = moments.first.square()
        if bool((moved > _LEAP * moments.mass[:, None] * moments.diagonal).any()):
            about = about + moments.first / moments.mass[:, None].clamp(min=1e-300)
            moments, _ = self._by_differences(now, about)
        return maximised(moments, about, now, self.covariance_type, self.least), evidence

    def _blocks(self, width: int) -> Iterator[tuple[Tensor, slice]]:
        """Centred rows, so few that `width` numbers for each of theirs fit the cache, and which ones they are."""
        size = max(256, _BLOCK // (width * self.x.shape[1]))
        for first in range(0, len(self.x), size):
            rows = slice(first, first + size)
            yield self.x[rows] - self.centre, rows

    def _powers(self) -> Iterator[Tensor]:
        """``[1, x, x²]`` of each block of centred rows; of few data there is one block, which is kept."""
        if self.x.numel() <= _BLOCK // 2:
            self._kept = _powers(self.x - self.centre) if self._kept is None else self._kept
            yield self._kept
        else:
            for block, _ in self._blocks(2):
                yield _powers(block)

    @cached_property
    def _reach(self) -> Tensor:
        """The largest distance from the centre in each column."""
        return torch.maximum(self.x.amax(0) - self.centre, self.centre - self.x.amin(0))

    def _near(self, now: Parameters) -> bool:
        """Whether the centre is so near, in standard deviations, that squares about it lose no digits that matter."""
        apart = (self._reach + now.means.abs()).square_() / _columns(now.covariances)
        return apart.sum(1).max().item() <= _REACH

    def _by_squares(self, now: Parameters) -> tuple[Moments, float]:
        """Both steps for variances v by ``(x − μ)²/v = x²/v − 2xμ/v + μ²/v``: two matrix products a block."""
        means, d = now.means, now.means.shape[1]
        variances = _columns(now.covariances).expand_as(means)
        slope = means / variances
        constant = now.weights.log() - ((slope * means).sum(1) + _log_volume(variances)) / 2
        weights = torch.cat([constant[:, None], slope, -0.5 / variances], 1)
        total, evidence = torch.zeros_like(weights), 0.0
        for powers in self._powers():
            mass, gained = _responsible(weights @ powers.mT)
            total.addmm_(mass, powers)
            evidence += gained
        mass, first, second = total[:, :1], total[:, 1 : d + 1], total[:, d + 1 :]
        apart = first - mass * means
        return Moments(mass[:, 0], apart, second - means * (first + apart)), evidence

    def _by_differences(self, now: Parameters, about: Tensor) -> tuple[Moments, float]:
        """Both steps from ``x − μ_k`` itself, which costs no digits wherever data and components lie."""
        moments, evidence = Moments.none(now.means, self.matrices), 0.0
        covariances = now.covariances
        if self.matrices:
            covariances = as_full(covariances, self.covariance_type, *now.means.shape)
            factors = torch.linalg.cholesky(covariances)
            eye = torch.eye(len(self.centre), dtype=factors.dtype, device=factors.device)
            whiten = torch.linalg.solve_triangular(factors, eye.expand_as(factors), upper=False)
            volume = _log_volume(factors.diagonal(dim1=1, dim2=2).square())
        else:
            whiten = _columns(covariances).expand_as(now.means).rsqrt()[:, :, None]
            volume = _log_volume(_columns(covariances).expand_as(now.means))
        constant = (now.weights.log() - volume / 2)[:, None]
        for block, _ in self._blocks(len(now.weights)):
            apart = block - now.means[:, None, :]
            white = whiten @ apart.mT if self.matrices else whiten * apart.mT
            mass, gained = _responsible(constant - white.square_().sum(1) / 2)
            moments.add(apart if about is now.means else block - about[:, None, :], mass)
            evidence += gained
        return moments, evidence


def _columns(variances: Tensor) -> Tensor:
    """Diagonal or spherical covariances as (K, d) or (K, 1)."""
    return variances if variances.ndim == 2 else variances[:, None]


def _log_volume(variances: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    """``log det(2πC)`` of independent columns."""
    return variances.log().sum(1) + variances.shape[1] * math.log(2 * math.pi)


def _powers(block: Float[Tensor, "n d"]) -> Float[Tensor, "n powers"]:
    return torch.cat([torch.ones_like(block[:, :1]), block, block.square()], 1)


def _responsible(heights: Float[Tensor, "k n"]) -> tuple[Float[Tensor, "k n"], float]:
    """Responsibilities from ``log π_k p_k(x)``, in place, and the sum of ``log p(x)``."""
    best = heights.amax(0)
    mass = heights.sub_(best).exp_()
    total = mass.sum(0)
    mass /= total
    return mass, best.add_(total.log_()).sum().item()

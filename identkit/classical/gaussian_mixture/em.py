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
_REACH = 2.0**20
"""Up to this many squared standard deviations from the centre squares are multiplied out: ℓ is right to 1e-9 nats."""


class Climb:
    """One data set and one type of covariances, with what every iteration on them needs.

    Args:
        x: data (n, d), float64.
        covariance_type: one of the four.
        least: least variances (d,); 0 for none.
    """

    def __init__(self, x: Float[Tensor, "n d"], covariance_type: str, least: Float[Tensor, " d"]) -> None:
        self.x, self.covariance_type = x, covariance_type
        self.least = least.mean() if covariance_type == "spherical" else least
        self.centre = x.mean(0)
        self._kept: Tensor | None = None

    def begun(self, mass: Float[Tensor, "n k"]) -> Parameters:
        """Give the parameters that first responsibilities ask for; means are always those of the centred data."""
        total = mass.sum(0)
        first = total.new_zeros(len(total), len(self.centre))
        for block, rows in self._blocks(len(total)):
            first += mass[rows].mT @ block
        means = first / total[:, None].clamp(min=1e-300)
        moments = Moments.none(self.covariance_type, means)
        for block, rows in self._blocks(len(total)):
            moments.add(block - means[:, None, :], mass[rows].mT)
        return maximised(moments, means, None, self.least)

    def step(self, now: Parameters) -> tuple[Parameters, float]:
        """Give the next parameters, and the log-likelihood of the present ones in nats.

        ``r_k ∝ π_k N(x; μ_k, C_k)``, then π, μ and C are the shares, the means and the covariances under r.

        Source: Dempster, Laird & Rubin 1977.
        """
        about = now.means
        if self._near(now):
            moments, evidence = self._by_squares(now)
        else:
            moments, evidence = self._by_differences(now, about)
        if moments.far:
            about = about + moments.shift
            moments, _ = self._by_differences(now, about)
        return maximised(moments, about, now, self.least), evidence

    def _blocks(self, width: int) -> Iterator[tuple[Tensor, slice]]:
        """Centred rows, so few that `width` numbers for each of theirs fit the cache, and which ones they are."""
        size = max(256, _BLOCK // (width * self.x.shape[1]))
        for first in range(0, len(self.x), size):
            rows = slice(first, first + size)
            yield self.x[rows] - self.centre, rows

    def _powers(self) -> Iterator[Tensor]:
        """Of each block what ℓ is linear in (`_by_squares`); of few data there is one block, which is kept."""
        if self.x.numel() > _BLOCK // 2:
            for block, _ in self._blocks(2):
                yield self._powers_of(block)
            return
        if self._kept is None:
            self._kept = self._powers_of(self.x - self.centre)
        yield self._kept

    def _powers_of(self, block: Tensor) -> Tensor:
        parts = [torch.ones_like(block[:, :1]), block]
        if self.covariance_type == "diag":
            parts.append(block.square())
        elif self.covariance_type == "spherical":
            parts.append(block.square().sum(1, keepdim=True))
        return torch.cat(parts, 1)

    @cached_property
    def _reach(self) -> Tensor:
        """The largest distance from the centre in each column."""
        return torch.maximum(self.x.amax(0) - self.centre, self.centre - self.x.amin(0))

    @cached_property
    def _scatter(self) -> Tensor:
        """``Σ x xᵀ`` of the centred data."""
        total = torch.zeros_like(self.centre.diag())
        for block, _ in self._blocks(1):
            total.addmm_(block.mT, block)
        return total

    def _near(self, now: Parameters) -> bool:
        """Whether the centre is so near, in standard deviations, that squares about it lose no digits that matter."""
        if self.covariance_type == "full":
            return False
        reach = self._reach + now.means.abs()
        if self.covariance_type == "tied":
            apart = reach.amax(0) @ _whitening(now.covariances).abs().mT
            return apart.square_().sum().item() <= _REACH
        return (reach.square_() / _columns(now.covariances)).sum(1).max().item() <= _REACH

    def _by_squares(self, now: Parameters) -> tuple[Moments, float]:
        """Both steps by ``½(x − μ)ᵀP(x − μ) = ½xᵀPx − xᵀPμ + ½μᵀPμ``: two matrix products a block.

        What components share of ``½xᵀPx``, all of it where P is tied, is summed over the data beforehand.
        """
        means, d = now.means, now.means.shape[1]
        if self.covariance_type == "tied":
            whitening = _whitening(now.covariances)
            precision = whitening.mT @ whitening
            slope, squares = means @ precision, means[:, :0]
            evidence = -(precision * self._scatter).sum().item() / 2
            volume = d * math.log(2 * math.pi) - 2 * whitening.diagonal().log().sum()
        else:
            variances = _columns(now.covariances)
            slope, squares, evidence = means / variances, -0.5 / variances, 0.0
            volume = _log_volume(variances.expand_as(means))
        constant = now.weights.log() - ((slope * means).sum(1) + volume) / 2
        weights = torch.cat([constant[:, None], slope, squares], 1)
        total = torch.zeros_like(weights)
        for powers in self._powers():
            mass, gained = _responsible(weights @ powers.mT)
            total.addmm_(mass, powers)
            evidence += gained
        mass, first, second = total[:, :1], total[:, 1 : d + 1], total[:, d + 1 :]
        apart = first - mass * means
        if self.covariance_type == "tied":
            second = self._scatter - first.mT @ means - means.mT @ apart
        elif self.covariance_type == "diag":
            second = second - means * (first + apart)
        else:
            second = second[:, 0] - (means * (first + apart)).sum(1)
        return Moments(self.covariance_type, mass[:, 0], apart, second), evidence

    def _by_differences(self, now: Parameters, about: Tensor) -> tuple[Moments, float]:
        """Both steps from ``x − μ_k`` itself, which costs no digits wherever data and components lie."""
        moments, evidence = Moments.none(self.covariance_type, now.means), 0.0
        matrices = self.covariance_type in ("full", "tied")
        if matrices:
            whiten = _whitening(as_full(now.covariances, self.covariance_type, *now.means.shape))
            volume = _log_volume(whiten.diagonal(dim1=1, dim2=2).pow(-2))
        else:
            variances = _columns(now.covariances).expand_as(now.means)
            whiten, volume = variances.rsqrt()[:, :, None], _log_volume(variances)
        constant = (now.weights.log() - volume / 2)[:, None]
        for block, _ in self._blocks(len(now.weights)):
            apart = block - now.means[:, None, :]
            white = whiten @ apart.mT if matrices else whiten * apart.mT
            mass, gained = _responsible(torch.sub(constant, white.square_().sum(1), alpha=0.5))
            moments.add(apart if about is now.means else block - about[:, None, :], mass)
            evidence += gained
        return moments, evidence


def _columns(variances: Tensor) -> Tensor:
    """Diagonal or spherical covariances as (K, d) or (K, 1)."""
    return variances if variances.ndim == 2 else variances[:, None]


def _whitening(covariances: Float[Tensor, "*k d d"]) -> Float[Tensor, "*k d d"]:
    """``L⁻¹`` where ``L Lᵀ = C``."""
    factors = torch.linalg.cholesky(covariances)
    eye = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    return torch.linalg.solve_triangular(factors, eye.expand_as(factors), upper=False)


def _log_volume(variances: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    """``log det(2πC)`` of independent columns."""
    return variances.log().sum(1) + variances.shape[1] * math.log(2 * math.pi)


def _responsible(heights: Float[Tensor, "k n"]) -> tuple[Float[Tensor, "k n"], float]:
    """Responsibilities from ``log π_k p_k(x)``, in place, and the sum of ``log p(x)``."""
    best = heights.amax(0)
    mass = heights.sub_(best).exp_()
    total = mass.sum(0)
    mass /= total
    return mass, best.add_(total.log_()).sum().item()

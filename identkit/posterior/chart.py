"""Coordinates in which every continuous latent lives on the whole real line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from identkit.posterior.bayes import EPSILON


@dataclass(frozen=True)
class Chart:
    """An increasing map from the real line onto the support of a latent.

    The whole line is itself; a finite end is approached exponentially, so that an integrable singularity
    such as that of Beta(½, ½) becomes a plain exponential tail.
    """

    low: float
    high: float

    @property
    def straight(self) -> bool:
        return self.low == -math.inf and self.high == math.inf

    def closest(self) -> tuple[float, float]:
        """The least distance y from either end that the latent's own float still tells to seven digits."""
        low, high = (max(1e-290, 2.0**23 * math.ulp(end)) for end in (self.low, self.high))
        return low if self.low > -math.inf else 1e-290, high if self.high < math.inf else 1e-290

    def clip(self) -> tuple[float, float]:
        """The t at those distances; an infinite end beside a finite one counts in 1/y."""
        if self.straight:
            return -math.inf, math.inf
        width = math.log(self.high - self.low) if math.isfinite(self.high - self.low) else 0.0
        low, high = (math.log(y) for y in self.closest())
        return low - width, width - high

    def at_end(self, upper: bool) -> Tensor:
        """Latents at 1, 2, 4 and 8 times the least distance from an end, exact in floating point."""
        steps = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
        low, high = self.closest()
        if upper:
            return self.high - high * steps if self.high < math.inf else self.low + 1 / (high * steps)
        return self.low + low * steps if self.low > -math.inf else self.high - 1 / (low * steps)

    def point(self, t: Tensor) -> Tensor:
        if self.straight:
            return t
        if self.high == math.inf:
            return self.low + torch.exp(t)
        if self.low == -math.inf:
            return self.high - torch.exp(-t)
        near_low = self.low + (self.high - self.low) * torch.sigmoid(t)
        return torch.where(t < 0, near_low, self.high - (self.high - self.low) * torch.sigmoid(-t))

    def inverse(self, z: Tensor) -> Tensor:
        """t at z; ±∞ at the ends."""
        if self.straight:
            return z
        below, above = self._log_distances(z)
        return below - above

    def log_stretch(self, z: Tensor) -> Tensor:
        """log dz/dt, from z itself: density and map then speak of one point, however z was rounded."""
        if self.straight:
            return torch.zeros_like(z)
        below, above = self._log_distances(z)
        width = math.log(self.high - self.low) if math.isfinite(self.high - self.low) else 0.0
        return below + above - width

    def _log_distances(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log of the distances from the finite ends; 0 for an infinite one."""
        zero = torch.zeros_like(z)
        below = torch.log(z - self.low) if self.low > -math.inf else zero
        return below, torch.log(self.high - z) if self.high < math.inf else zero

    def place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The latent at t, and how far t may be off for a float that holds the latent."""
        z = self.point(t.clamp(*self.clip()))
        return z, EPSILON * (z.abs() * torch.exp(-self.log_stretch(z)) + t.abs())


def continued(near: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """h + s·τ + b·(e^τ − 1) at τ = depth ≤ 0 from heights at τ = 0, log 2, log 4, log 8; and its error."""
    at, *steps = near.reshape(4, -1)
    first, second, third = steps[0] - at, steps[1] - steps[0], steps[2] - steps[1]
    bend, slope = second - first, (2 * first - second) / math.log(2.0)
    # A next term c·e^2τ would leave 18 c of the third step unexplained.
    wrong = (third - (2 * first - second) - 4 * bend).abs() * (1 - depth)
    height = at + slope * depth + bend * torch.expm1(depth)
    return torch.where(height.isfinite(), height, at), wrong.nan_to_num(0.0, 0.0, 0.0)

"""Finite laws tilted by e^{tℓ}, at 50 digits: what the inequalities of T4 are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import mpmath


@dataclass(frozen=True)
class Tilted:
    """A prior with positive masses p on finitely many states, and ℓ there; all in mpmath numbers."""

    p: tuple[mpmath.mpf, ...]
    height: tuple[mpmath.mpf, ...]

    def psi(self, t: mpmath.mpf = 1) -> mpmath.mpf:
        """``ψ(t) = log E_P e^{tℓ}``."""
        return mpmath.log(
            mpmath.fsum(p * mpmath.exp(t * l) for p, l in zip(self.p, self.height, strict=True))
        )

    def masses(self, t: mpmath.mpf = 1) -> tuple[mpmath.mpf, ...]:
        """P_t."""
        level = self.psi(t)
        return tuple(p * mpmath.exp(t * l - level) for p, l in zip(self.p, self.height, strict=True))

    def mean(self, t: mpmath.mpf = 1) -> mpmath.mpf:
        """``E_{P_t} ℓ = ψ′(t)``."""
        return mpmath.fdot(self.masses(t), self.height)

    def variance(self, t: mpmath.mpf = 0) -> mpmath.mpf:
        """``Var_{P_t} ℓ = ψ″(t)``."""
        centre = self.mean(t)
        return mpmath.fsum(m * (l - centre) ** 2 for m, l in zip(self.masses(t), self.height, strict=True))

    @property
    def oscillation(self) -> mpmath.mpf:
        """ω."""
        return max(self.height) - min(self.height)

    @property
    def forward(self) -> mpmath.mpf:
        """``KL(Q‖P)``, by its definition."""
        return divergence(self.masses(), self.p)

    @property
    def backward(self) -> mpmath.mpf:
        """``KL(P‖Q)``, by its definition."""
        return divergence(self.p, self.masses())

    @property
    def variation(self) -> mpmath.mpf:
        """``TV(Q, P)``."""
        return mpmath.fsum(abs(q - p) for q, p in zip(self.masses(), self.p, strict=True)) / 2


def divergence(one: Sequence[mpmath.mpf], other: Sequence[mpmath.mpf]) -> mpmath.mpf:
    """``Σ q log(q/p)``."""
    return mpmath.fsum(q * mpmath.log(q / p) for q, p in zip(one, other, strict=True) if q)


def two_point(high: mpmath.mpf, omega: mpmath.mpf) -> Tilted:
    """ℓ = ω with mass `high`, else 0."""
    return Tilted((1 - mpmath.mpf(high), mpmath.mpf(high)), (mpmath.mpf(0), mpmath.mpf(omega)))


def random_tilt(rng: Random) -> Tilted:
    """Two to six states, masses down to 1e-12, ω from 1e-4 to 100."""
    states = rng.randint(2, 6)
    lopsided = rng.choice((0, 1, 4))
    raw = [mpmath.mpf(10) ** (-lopsided * 3 * rng.random()) for _ in range(states)]
    total = mpmath.fsum(raw)
    omega = mpmath.mpf(10) ** rng.uniform(-4, 2)
    heights = [mpmath.mpf(rng.random()) ** rng.choice((0.3, 1, 3)) for _ in range(states)]
    low, high = min(heights), max(heights)
    return Tilted(
        tuple(mass / total for mass in raw), tuple(omega * (l - low) / (high - low) for l in heights)
    )

"""T4.5: what a truncation of the latent space can hide.

Setting. T1; A ⊂ Z measurable with ``0 < P(A) < 1``; for a law M with M(A) > 0, M_A is M given A. ``kl(q‖p)`` is the
divergence of two coins.

Theorem. ``KL(Q‖P) = kl(Q(A)‖P(A)) + Q(A) KL(Q_A‖P_A) + Q(Aᶜ) KL(Q_{Aᶜ}‖P_{Aᶜ})``. Without its last term the right side
is a lower bound. If ℓ ≤ M on Aᶜ and Q(Aᶜ) > 0, the last term is at most
``Q(Aᶜ)(M − log p(x)) − Q(Aᶜ) log(Q(Aᶜ)/P(Aᶜ))``, with equality iff ℓ = M a.e. on Aᶜ.

Proof. The chain rule of T2 for π = 1_A. On Aᶜ, ``dQ_{Aᶜ}/dP_{Aᶜ} = (e^ℓ/p(x)) P(Aᶜ)/Q(Aᶜ) ≤ (e^M/p(x)) P(Aᶜ)/Q(Aᶜ)``;
take the logarithm and the mean under Q_{Aᶜ}, and multiply by Q(Aᶜ).  ∎

The last term may be anything up to that: a bound on ℓ is needed, small Q(Aᶜ) alone is not enough (P(Aᶜ) may be far
smaller).

Source: Cover & Thomas 2006, Theorem 2.5.3.
"""

from __future__ import annotations

from collections.abc import Iterator

import mpmath

from theory.finite import DIGITS
from theory.frame import Checked, draws, tried
from theory.tilted import Tilted, divergence, random_tilt


def _parts(law: Tilted, inside: list[bool]) -> tuple[mpmath.mpf, mpmath.mpf, mpmath.mpf, mpmath.mpf]:
    """The coin's divergence, the two weighted ones, and Q(Aᶜ)."""
    q, p = law.masses(), law.p
    sides = []
    for side in (True, False):
        mine = [i for i, member in enumerate(inside) if member is side]
        q_mass, p_mass = (mpmath.fsum(m[i] for i in mine) for m in (q, p))
        within = divergence([q[i] / q_mass for i in mine], [p[i] / p_mass for i in mine])
        sides.append((q_mass, p_mass, within))
    coin = divergence([q_mass for q_mass, _, _ in sides], [p_mass for _, p_mass, _ in sides])
    return coin, sides[0][0] * sides[0][2], sides[1][0] * sides[1][2], sides[1][0]


def _split(law: Tilted, number: int) -> list[bool]:
    """A set A that holds some of the states, not all."""
    size = len(law.p)
    return [i <= number % (size - 1) for i in range(size)]


def divergence_splits(share: float = 1.0, claim: int = 1) -> Checked:
    """The identity and the lower bound on random laws at 50 digits; `claim` multiplies the last term."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            rounding = mpmath.mpf(10) ** -40
            for rng in draws(400, share, "T4.5"):
                law = random_tilt(rng)
                coin, first, last, _ = _parts(law, _split(law, rng.randrange(6)))
                met = abs(law.forward - coin - first - claim * last) < rounding
                yield met and coin + first <= law.forward + rounding, str(law)

    return tried("T4.5", "KL splits over A and Aᶜ; without Aᶜ it is a lower bound", "numeric", outcomes())


def remainder_is_bounded(share: float = 1.0, claim: float = 0.0) -> Checked:
    """The bound by M, attained where ℓ is constant on Aᶜ; `claim` is taken off M."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            rounding = mpmath.mpf(10) ** -40
            for rng in draws(400, share, "T4.5 bound"):
                law = random_tilt(rng)
                inside = _split(law, rng.randrange(6))
                flat = rng.random() < 0.3
                if flat:
                    top = max(law.height)
                    heights = [l if i else top for l, i in zip(law.height, inside, strict=True)]
                    law = Tilted(law.p, tuple(heights))
                _, _, last, mass = _parts(law, inside)
                top = max(l for l, i in zip(law.height, inside, strict=True) if not i) - claim
                before = mpmath.fsum(p for p, i in zip(law.p, inside, strict=True) if not i)
                bound = mass * (top - law.psi()) - mass * mpmath.log(mass / before)
                met = last <= bound + rounding and (not flat or abs(last - bound) < rounding)
                yield met, f"{law}, A = {inside}"

    return tried("T4.5", "what Aᶜ can add if ℓ ≤ M there, with equality at ℓ = M", "numeric", outcomes())


def small_mass_is_not_enough(share: float = 1.0, claim: float = 1.0) -> Checked:
    """Q(Aᶜ) → 0 while the last term stays near `claim` nat: P(Aᶜ's heavy state) falls like exp(−1/Q(Aᶜ))."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(2 * DIGITS):
            for n in (10, 100, 1000):
                q = mpmath.mpf(1) / n
                light = mpmath.exp(-n)
                # Three states: A; a light one in Aᶜ that takes all of Q(Aᶜ); and one that keeps P(Aᶜ) at q.
                p = (1 - q - light, light, q)
                after = (1 - q - light / n, q, light / n)
                law = Tilted(p, tuple(mpmath.log(b / a) for a, b in zip(p, after, strict=True)))
                _, _, last, mass = _parts(law, [True, False, False])
                yield mass < 2 * q and abs(last - claim) < 0.5, f"Q(Aᶜ) = {float(mass)}: {float(last)}"

    return tried("T4.5", "without a bound on ℓ, small Q(Aᶜ) proves nothing", "numeric", outcomes())


CHECKS = (divergence_splits, remainder_is_bounded, small_mass_is_not_enough)

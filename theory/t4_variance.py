"""T4.3: the divergence between two multiples of the prior variance of ℓ, and neither multiple can be improved.

Setting. T1 with ``ω = ess sup ℓ − ess inf ℓ < ∞``, ``V = Var_P ℓ``, P_t as in T4.1.

Theorem. ``V·(1 − (1 + ω)e^{−ω})/ω² ≤ KL(Q‖P) ≤ V·(1 + (ω − 1)e^ω)/ω²``; both factors tend to ½ as ω → 0, are monotone
in ω (so that an upper bound of ω serves), and are the best possible for every ω.

Proof. ``dP_t/dP = e^{tℓ}/E_P e^{tℓ}`` lies between e^{−tω} and e^{tω}. A variance is the least mean square about a
point, so
    ``Var_{P_t} ℓ ≤ E_{P_t}(ℓ − E_P ℓ)² ≤ e^{tω} V``   and   ``V ≤ E_P(ℓ − E_{P_t} ℓ)² ≤ e^{tω} Var_{P_t} ℓ``.
Put this into T4.1: ``∫₀¹ t e^{tω} dt = (1 + (ω − 1)e^ω)/ω²`` and ``∫₀¹ t e^{−tω} dt = (1 − (1 + ω)e^{−ω})/ω²``. Their
integrands are monotone in ω, and are t at ω = 0.
*Best possible.* Let ℓ = ω on mass ε, else 0. As ε → 0, V = ε(1 − ε)ω² and ``KL = ε(1 + (ω − 1)e^ω) + O(ε²)``: the ratio
tends to the upper factor. Let ℓ = 0 on mass ε, else ω: ``KL = ε(1 − (1 + ω)e^{−ω}) + O(ε²)``: the lower factor.
(Neither is attained for ω > 0: equality would need dP_t/dP = e^{tω} wherever ℓ differs from its mean.)  ∎

So ½V is the divergence to leading order as ω → 0 and 0 iff the posterior collapses; for large ω the band is wide and
part of the statement.

Source: identkit's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import mpmath
import sympy

from identkit.posterior.bounds import variance_factors
from theory.finite import DIGITS
from theory.frame import Checked, draws, tried
from theory.tilted import random_tilt, two_point

Factors = Callable[[mpmath.mpf], tuple[mpmath.mpf, mpmath.mpf]]


def factors(omega: mpmath.mpf) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Give ``∫ t e^{∓tω} dt``.

    >>> [round(float(each), 6) for each in factors(mpmath.mpf(1))]
    [0.264241, 1.0]
    """
    low = (1 - (1 + omega) * mpmath.exp(-omega)) / omega**2
    return low, (1 + (omega - 1) * mpmath.exp(omega)) / omega**2


def integrals(share: float = 1.0, claim: int = 1) -> Checked:
    """The two integrals, their common limit, and the leading terms of the extremal laws; `claim`: the 1 in (ω − 1)."""
    t, w, e = sympy.symbols("t omega epsilon", positive=True)
    high = (1 + (w - claim) * sympy.exp(w)) / w**2
    low = (1 - (1 + w) * sympy.exp(-w)) / w**2

    def two_point_kl(mass: sympy.Expr) -> sympy.Expr:
        total = mass * sympy.exp(w) + 1 - mass
        return mass * sympy.exp(w) * w / total - sympy.log(total)

    outcomes = [
        (sympy.simplify(sympy.integrate(t * sympy.exp(t * w), (t, 0, 1)) - high) == 0, "upper"),
        (sympy.simplify(sympy.integrate(t * sympy.exp(-t * w), (t, 0, 1)) - low) == 0, "lower"),
        (sympy.limit(high, w, 0) == sympy.Rational(1, 2) == sympy.limit(low, w, 0), "both are ½ at 0"),
        (sympy.simplify(two_point_kl(e).diff(e).subs(e, 0) - high * w**2) == 0, "ε(1 + (ω − 1)e^ω)"),
        (sympy.simplify(-two_point_kl(1 - e).diff(e).subs(e, 0) + low * w**2) == 0, "ε(1 − (1 + ω)e^−ω)"),
    ]
    return tried("T4.3", "the two integrals, and what the extremal laws come to", "symbolic", outcomes)


def variances_along_the_path(share: float = 1.0, claim: float = 1.0) -> Checked:
    """``e^{−tω} V ≤ Var_{P_t} ℓ ≤ e^{tω} V``; `claim`: what multiplies tω."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(600, share, "T4.3 path"):
                law = random_tilt(rng)
                t = mpmath.mpf(rng.random())
                reach = claim * t * law.oscillation
                quotient = mpmath.log(law.variance(t) / law.variance())
                yield -reach <= quotient <= reach, f"t = {t}, {law}"

    return tried("T4.3", "e^{−tω}V ≤ Var_t ℓ ≤ e^{tω}V", "numeric", outcomes())


def variance_bounds_hold(share: float = 1.0, claim: Factors = factors) -> Checked:
    """Both sides on random laws at 50 digits, extremal masses among them; `claim`: the factors."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(1500, share, "T4.3"):
                law = random_tilt(rng)
                if rng.random() < 0.4:
                    small = mpmath.mpf(10) ** -rng.uniform(0.01, 20)
                    law = two_point(small if rng.random() < 0.5 else 1 - small, law.oscillation)
                low, high = claim(law.oscillation)
                quotient = law.forward / law.variance()
                # 50 digits less what cancels at ω = 1e-4 and masses of 1e-20.
                yield low * (1 - 1e-15) <= quotient <= high * (1 + 1e-15), str(law)

    return tried("T4.3", "V·low(ω) ≤ KL(Q‖P) ≤ V·high(ω)", "numeric", outcomes())


def variance_bounds_are_sharp(share: float = 1.0, claim: Factors = factors) -> Checked:
    """Two-point laws come within 1e-9 of each factor; `claim`: the factors said to be best possible."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(80):
            for omega in (mpmath.mpf(n) / 10 for n in (1, 5, 10, 30, 100, 300)):
                tiny = mpmath.exp(-2 * omega) / 10**12
                low, high = claim(omega)
                for law, factor in ((two_point(tiny, omega), high), (two_point(1 - tiny, omega), low)):
                    gap = abs(law.forward / law.variance() / factor - 1)
                    yield gap < 1e-9, f"ω = {float(omega)}: off by {float(gap)}"

    return tried("T4.3", "neither factor can be improved, at any ω", "numeric", outcomes())


def library_computes_these(share: float = 1.0, claim: Factors = factors) -> Checked:
    """identkit.posterior.bounds against 50 digits, relative error below 1e-13, ω from 1e-10 to 600."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(300, share, "T4.3 floats"):
                omega = 10 ** rng.uniform(-10, 2.78)
                for found, wanted in zip(variance_factors(omega), claim(mpmath.mpf(omega)), strict=True):
                    yield abs(found.item() / wanted - 1) < 1e-13, f"ω = {omega}: {found.item()}"

    return tried("T4.3", "identkit's variance factors are these", "numeric", outcomes())


def naive_factors_are_rounding(share: float = 1.0, claim: float = 1e-8) -> Checked:
    """In floats ``(1 + (ω − 1)e^ω)/ω²`` at ω = 1e-8 is off by more than a tenth of ½; `claim`: the ω."""
    naive = (1 + (claim - 1) * math.exp(claim)) / claim**2
    with mpmath.workdps(DIGITS):
        met = bool(abs(naive / factors(mpmath.mpf(claim))[1] - 1) > 0.1)
    return tried(
        "T4.3", "naive evaluation near 0 is pure rounding", "numeric", [(met, f"{naive} at {claim}")]
    )


CHECKS = (
    integrals,
    variances_along_the_path,
    variance_bounds_hold,
    variance_bounds_are_sharp,
    library_computes_these,
    naive_factors_are_rounding,
)

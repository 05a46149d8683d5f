"""T4.2: what the oscillation of ℓ alone says about the divergence, with the laws that attain it.

Setting. T1 with ``ω = ess sup ℓ − ess inf ℓ < ∞`` under P; ``r = ω/(e^ω − 1)``, ``k = e^ω``.

Theorem. (i) ``KL(Q‖P) ≤ r − 1 − ln r`` and ``KL(P‖Q) ≤ r − 1 − ln r``, each attained by a two-point law.
(ii) ``|log dQ/dP| ≤ ω``.   (iii) ``TV(Q, P) ≤ tanh(ω/4)``, attained.
(iv) ``r − 1 − ln r < ω²/8`` (Hoeffding) for ω > 0, with ratio → 1 as ω → 0.   (v) ω alone bounds nothing from below.

Proof. ``u = dQ/dP = e^ℓ/p(x)`` has E_P u = 1 and lies in some [a, ka], so ``a ≤ 1 ≤ ka``; this is (ii). A convex h lies on
[a, ka] below its chord, so that E_P h(u) is at most its value for the law on {a, ka} with mean 1, whose upper mass is
``(1 − a)/(a(k − 1))``. It remains to choose a in [1/k, 1].
 * h = u ln u, KL(Q‖P): chord value ``ln a + (1 − a)ωk/(k − 1)``. Concave in a; stationary at ``a = (k − 1)/(ωk)``. With
   ``1/a = ω + r`` its value is ``1/a − 1 − ln(1/a) = (ω + r) − 1 − (ω + ln r) = r − 1 − ln r``, as ω + r = r e^ω.
 * h = −ln u, KL(P‖Q): chord value ``−ln a − (1 − a)ω/(a(k − 1))``, stationary at ``a = r``, value ``r − 1 − ln r``.
 * h = (u − 1)⁺, TV: chord value ``(1 − a)(ka − 1)/(a(k − 1))``, stationary at ``a = k^(−½)``, value ``(√k − 1)/(√k + 1)
   = tanh(ω/4)``.
All three a lie in [1/k, 1] and the two-point law is admissible: attained. (For h = −ln u and the TV the chord value
tends to its least at the ends a = 1/k and a = 1, where it is 0; one stationary point is then the maximum.)
(iv) Var_{P_t} ℓ ≤ ω²/4 (Popoviciu), so by T4.1 KL ≤ ∫ t ω²/4 = ω²/8; the two-point law that attains (i) has Var_{P_t} ℓ
= ω²/4 for at most one t, so the inequality is strict. Series: r − 1 − ln r = ω²/8 − ω⁴/576 + ….
(v) ℓ = ω on mass ε, 0 elsewhere: the oscillation is ω, KL → 0 with ε.  ∎

Source: the chord argument is Hoeffding's (1963); Popoviciu 1935.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import mpmath
import sympy

from identkit.posterior.bounds import kl_upper_oscillation, total_variation_upper
from theory.finite import DIGITS
from theory.frame import Checked, draws, tried
from theory.tilted import random_tilt, two_point

Bound = Callable[[mpmath.mpf], mpmath.mpf]


def ratio(omega: mpmath.mpf) -> mpmath.mpf:
    """``r = ω/(e^ω − 1)``."""
    return omega / mpmath.expm1(omega)


def by_oscillation(omega: mpmath.mpf) -> mpmath.mpf:
    """``r − 1 − ln r``.

    >>> float(by_oscillation(mpmath.mpf(2)))
    0.47447...
    """
    r = ratio(omega)
    return r - 1 - mpmath.log(r)


def chords(share: float = 1.0, claim: int = 4) -> Checked:
    """The three chord values, their stationary points and their values there; `claim`: the 4 in tanh(ω/4)."""
    a, w = sympy.symbols("a omega", positive=True)
    k = sympy.exp(w)
    upper = (1 - a) / (a * (k - 1))
    r = w / (k - 1)
    bound = r - 1 - sympy.log(r)
    cases = {
        "KL(Q‖P)": (
            (1 - upper) * a * sympy.log(a) + upper * k * a * (sympy.log(a) + w),
            (k - 1) / (w * k),
            bound,
        ),
        "KL(P‖Q)": (-(1 - upper) * sympy.log(a) - upper * (sympy.log(a) + w), r, bound),
        "TV": (upper * (k * a - 1), sympy.exp(-w / 2), sympy.tanh(w / claim)),
    }

    def outcomes() -> Iterator[tuple[bool, str]]:
        for name, (chord, at, value) in cases.items():
            slope = sympy.simplify(sympy.diff(chord, a).subs(a, at))
            yield slope == 0, f"{name}: stationary"
            yield _zero(chord.subs(a, at) - value), f"{name}: value"
            # d/da (a² chord′) or a chord′: one sign change at most, so the stationary point is the only one.
            scaled = sympy.simplify(sympy.diff(chord, a) * a**2)
            yield sympy.Poly(sympy.expand(scaled), a).degree() <= 2, f"{name}: one stationary point in a > 0"
        yield sympy.simplify(upper * k * a + (1 - upper) * a - 1) == 0, "the two-point law has mean 1"
        taylor = sum(w**n / sympy.factorial(n + 1) for n in range(8))  # of 1/r = (e^ω − 1)/ω
        series = sympy.series(1 / taylor - 1 + sympy.log(taylor), w, 0, 5).removeO()
        yield sympy.expand(series - w**2 / 8 + w**4 / 576) == 0, "series"

    return tried("T4.2", "chord values, stationary points, series", "symbolic", outcomes())


def _zero(expression: sympy.Expr) -> bool:
    """Whether an expression in ω vanishes: simplified, or to 60 digits at 20 random points of (0, 30)."""
    w = next(iter(expression.free_symbols))
    rng = random.Random("zero")
    points = [sympy.Rational(rng.randint(1, 3000), 100) for _ in range(20)]
    return all(abs(sympy.N(expression.subs(w, point), 60)) < sympy.Float("1e-50") for point in points)


def oscillation_bounds_hold(share: float = 1.0, claim: Bound = by_oscillation) -> Checked:
    """(i) to (iv) on random laws at 50 digits, two-point ones at random masses among them; `claim`: the bound."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            rounding = mpmath.mpf(10) ** -40
            for rng in draws(1500, share, "T4.2"):
                law = random_tilt(rng)
                if rng.random() < 0.3:
                    law = two_point(mpmath.mpf(10) ** -rng.uniform(0.01, 6), law.oscillation)
                omega = law.oscillation
                bound = claim(omega)
                met = max(law.forward, law.backward) <= bound + rounding and bound < omega**2 / 8
                met = met and law.variation <= mpmath.tanh(omega / 4) + rounding
                ratios = [mpmath.log(q / p) for q, p in zip(law.masses(), law.p, strict=True)]
                yield met and max(abs(u) for u in ratios) <= omega, str(law)

    return tried("T4.2", "KL ≤ r − 1 − ln r < ω²/8, TV ≤ tanh(ω/4), |log dQ/dP| ≤ ω", "numeric", outcomes())


def oscillation_bounds_are_attained(share: float = 1.0, claim: Bound = by_oscillation) -> Checked:
    """The two-point law with lower density a attains each bound; `claim`: the bound said to be attained."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for step in range(-12, 9):
                omega = mpmath.mpf(10) ** (mpmath.mpf(step) / 4)
                k = mpmath.exp(omega)
                for name, a in {
                    "forward": (k - 1) / (omega * k),
                    "backward": ratio(omega),
                    "variation": 1 / mpmath.sqrt(k),
                }.items():
                    law = two_point((1 - a) / (a * (k - 1)), omega)
                    wanted = mpmath.tanh(omega / 4) if name == "variation" else claim(omega)
                    gap = abs(getattr(law, name) / wanted - 1)
                    yield gap < mpmath.mpf(10) ** -30, f"{name} at ω = {float(omega)}: off by {float(gap)}"

    return tried("T4.2", "each bound is attained by a two-point law", "numeric", outcomes())


def no_lower_bound(share: float = 1.0, claim: float = 0.0) -> Checked:
    """ω = 5 with KL under every positive number; `claim`: a lower bound that would hold."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            values = [two_point(mpmath.mpf(10) ** -n, 5).forward for n in range(5, 20)]
            yield all(b < a / 5 for a, b in itertools.pairwise(values)), "KL falls with the mass"
            yield values[-1] < 1e-15 and values[-1] > claim, f"KL = {float(values[-1])}"

    return tried("T4.2", "no lower bound in ω alone", "numeric", outcomes())


def library_computes_these(share: float = 1.0, claim: Bound = by_oscillation) -> Checked:
    """identkit.posterior.bounds against 50 digits, relative error below 1e-13, ω from 1e-10 to 600."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(300, share, "T4.2 floats"):
                omega = 10 ** rng.uniform(-10, 2.78)
                for found, wanted in (
                    (kl_upper_oscillation(omega), claim(mpmath.mpf(omega))),
                    (total_variation_upper(omega), mpmath.tanh(mpmath.mpf(omega) / 4)),
                ):
                    yield abs(found.item() / wanted - 1) < 1e-13, f"ω = {omega}: {found.item()}"

    return tried("T4.2", "identkit's oscillation bounds are these", "numeric", outcomes())


CHECKS = (
    chords,
    oscillation_bounds_hold,
    oscillation_bounds_are_attained,
    no_lower_bound,
    library_computes_these,
)

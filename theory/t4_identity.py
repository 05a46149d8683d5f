"""T4.1: the divergence is an integral of variances along the exponential path from prior to posterior.

Setting. As in T1, ``ℓ = log L``, ``c = P(ℓ > −∞) > 0``. ``dP_t ∝ e^{tℓ} dP`` for 0 < t ≤ 1, so P_1 = Q;
``ψ(t) = log E_P e^{tℓ}``.

Theorem. (i) ``KL(Q‖P) = log(1/c) + ∫₀¹ t Var_{P_t}(ℓ) dt`` in [0, ∞].
(ii) If c = 1: ``KL(Q‖P) + KL(P‖Q) = E_Q ℓ − E_P ℓ`` in [0, ∞].

Proof of (i). ``E_P e^ℓ < ∞`` makes ψ finite and convex on (0, 1], analytic on (0, 1), with ``ψ′ = E_{P_t} ℓ``,
``ψ″ = Var_{P_t} ℓ`` there. Since ``(tψ′ − ψ)′ = tψ″ ≥ 0``, for 0 < s < r < 1 ``∫_s^r tψ″ = [tψ′ − ψ]_s^r``; both ends
have limits:
 * r → 1. e^{rℓ} ≤ max(1, e^ℓ), so ψ(r) → ψ(1) = log p(x). ψ′ increases; E_P ℓ⁻e^{rℓ} and its limit are bounded
   (u e^{−ru} ≤ 1/(er)) and E_P ℓ⁺ e^{rℓ} increases to E_P ℓ⁺e^ℓ: so ψ′(r) → E_Q ℓ ∈ (−∞, ∞].
 * s → 0. e^{sℓ} → 1{ℓ > −∞} under the bound max(1, e^ℓ), so ψ(s) → log c. By convexity
   ``ψ(s) − ψ(0+) ≤ sψ′(s) ≤ ψ(2s) − ψ(s)``, so sψ′(s) → 0, even if E_P ℓ = −∞.
Hence ``∫₀¹ tψ″ = E_Q ℓ − log p(x) + log c = KL(Q‖P) − log(1/c)``, by monotone convergence.
(ii) ``KL(Q‖P) = E_Q ℓ − ψ(1)`` with ``E_Q ℓ > −∞`` as ``ℓ⁻e^ℓ`` is bounded; ``KL(P‖Q) = ψ(1) − E_P ℓ`` with
``E_P ℓ < ∞`` as ℓ⁺ < e^ℓ. ∎

Without the term log(1/c) (i) fails: a likelihood 1_A has Var_{P_t} ℓ = 0 for all t > 0, and KL = log(1/P(A)).

In floats. ``KL = E_P[u eᵘ − expm1(u)]`` with ``u = log dQ/dP``, because E_P eᵘ = 1. The terms are ≥ 0 (u eᵘ − eᵘ + 1
has its minimum 0 at u = 0), so nothing cancels in the sum; within a term the series u²/2 + u³/3 + … serves for small u.

Source: standard exponential-family calculus (Barndorff-Nielsen 1978; thermodynamic integration).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import mpmath
import sympy

from theory.finite import DIGITS
from theory.frame import Checked, draws, tried
from theory.tilted import Tilted, divergence, random_tilt, two_point


def derivatives_are_moments(share: float = 1.0, claim: int = 2) -> Checked:
    """ψ′ is the mean and ψ″ the variance, for three states with symbols; and (tψ′ − ψ)′ = tψ″ for any ψ."""
    t = sympy.symbols("t", positive=True)
    p = sympy.symbols("p1:4", positive=True)
    heights = sympy.symbols("l1:4", real=True)
    weights = [mass * sympy.exp(t * l) for mass, l in zip(p, heights, strict=True)]
    psi = sympy.log(sum(weights))
    moments = [sum(w * l**k for w, l in zip(weights, heights, strict=True)) / sum(weights) for k in (1, 2)]
    any_psi = sympy.Function("psi")(t)
    by_parts = sympy.diff(t * any_psi.diff(t) - any_psi, t) - t * any_psi.diff(t, 2)
    outcomes = [
        (sympy.simplify(psi.diff(t) - moments[0]) == 0, "ψ′"),
        (sympy.simplify(psi.diff(t, 2) - (moments[1] - moments[0] ** claim)) == 0, "ψ″"),
        (sympy.simplify(by_parts) == 0, "the antiderivative"),
    ]
    return tried("T4.1", "ψ′ = mean, ψ″ = variance, (tψ′ − ψ)′ = tψ″", "symbolic", outcomes)


def integral_is_the_divergence(share: float = 1.0, claim: int = 1) -> Checked:
    """Random laws by quadrature at 50 digits; `claim`: the power of t under the integral."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(20):
            for rng in draws(40, share, "T4.1"):
                law = random_tilt(rng)
                integral = _integral(law, claim)
                yield abs(integral / law.forward - 1) < 1e-8, f"{law}: {integral} against {law.forward}"

    return tried("T4.1", "KL(Q‖P) = ∫₀¹ t Var_t(ℓ) dt", "numeric", outcomes())


def _integral(law: Tilted, power: int) -> mpmath.mpf:
    """``∫₀¹ t^power Var_{P_t} ℓ dt`` by quadrature, with cuts where the path turns."""
    cuts = sorted({mpmath.mpf(0), mpmath.mpf(1), *(min(1, c / law.oscillation) for c in (1, 4, 20, 60))})
    return mpmath.quad(lambda t: t**power * law.variance(t), cuts)


def both_orders_add_up(share: float = 1.0, claim: int = 0) -> Checked:
    """``KL(Q‖P) + KL(P‖Q) = E_Q ℓ − E_P ℓ``; `claim`: at which t the second mean is taken."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(300, share, "T4.1 sum"):
                law = random_tilt(rng)
                gap = law.forward + law.backward - (law.mean(1) - law.mean(claim))
                yield abs(gap) < mpmath.mpf(10) ** -40, str(law)

    return tried("T4.1", "KL(Q‖P) + KL(P‖Q) = E_Q ℓ − E_P ℓ", "numeric", outcomes())


def mean_may_be_minus_infinity(share: float = 1.0, claim: int = 2) -> Checked:
    """P(k) ∝ k⁻², ℓ = −k has E_P ℓ = −∞; yet (i) holds: ψ(t) = log(6 Li₂(e⁻ᵗ)/π²). `claim`: the exponent."""
    with mpmath.workdps(20):

        def li(order: int, t: mpmath.mpf) -> mpmath.mpf:
            return mpmath.polylog(order, mpmath.exp(-t))

        def variance(t: mpmath.mpf) -> mpmath.mpf:
            return li(0, t) / li(2, t) - (li(1, t) / li(2, t)) ** 2

        integral = mpmath.quad(lambda t: t * variance(t), [mpmath.mpf(10) ** -12, 1e-8, 1e-4, 1e-2, 0.1, 1])
        level = mpmath.log(mpmath.zeta(claim) ** -1 * li(2, mpmath.mpf(1)))
        kl = -li(1, mpmath.mpf(1)) / li(2, mpmath.mpf(1)) - level
        # Below 1e-12 the integrand is under 1: t Var_t = t Li₀/Li₂ → 6/π².
        met = bool(abs(integral - kl) < 1e-10)
    return tried("T4.1", "also where E_P ℓ = −∞", "numeric", [(met, f"{integral} against {kl}")])


def impossible_states_cost_their_mass(share: float = 1.0, claim: int = 1) -> Checked:
    """With ℓ = −∞ on mass 1 − c the identity needs log(1/c); `claim`: how often it is added."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(20):
            for rng in draws(20, share, "T4.1 atoms"):
                rest = random_tilt(rng)
                c = mpmath.mpf(rng.uniform(0.05, 0.95))
                kl = divergence(rest.masses(), [c * p for p in rest.p])
                # For t > 0, P_t has no mass where ℓ = −∞: it is the tilt of the rest.
                integral = _integral(rest, 1)
                gap = abs(integral + claim * mpmath.log(1 / c) - kl)
                yield gap < 1e-8 * kl, f"c = {c}, {rest}: off by {gap}"

    return tried("T4.1", "states of likelihood 0 add log 1/P(ℓ > −∞)", "numeric", outcomes())


def stable_divergence(p: list[float], height: list[float], switch: float = 1e-3) -> float:
    """KL(Q‖P) in floats by ``E_P[u eᵘ − expm1(u)]``, a series below `switch`; all |u| must stay in range."""
    centre = math.fsum(a * l for a, l in zip(p, height, strict=True))
    level = math.log1p(math.fsum(a * math.expm1(l - centre) for a, l in zip(p, height, strict=True)))
    terms = []
    for mass, l in zip(p, height, strict=True):
        u = l - centre - level
        series = math.fsum((k - 1) * u**k / math.factorial(k) for k in range(2, 8))
        terms.append(mass * (series if abs(u) < switch else u * math.exp(u) - math.expm1(u)))
    return math.fsum(terms)


def _naive_divergence(p: list[float], height: list[float]) -> float:
    """``Σ q log(q/p)`` as it stands, in floats."""
    evidence = sum(a * math.exp(l) for a, l in zip(p, height, strict=True))
    return sum(a * math.exp(l) / evidence * (l - math.log(evidence)) for a, l in zip(p, height, strict=True))


def floats_keep_tiny_divergences(share: float = 1.0, claim: float = 1e-3) -> Checked:
    """Relative error below 1e-11 for ω from 1e-9 to 1, against 50 digits; `claim`: below which |u| the series serves."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(300, share, "T4.1 floats"):
                omega = 10 ** rng.uniform(-9, 0)
                raw = [rng.uniform(0.1, 1) for _ in range(4)]
                p = [mass / sum(raw) for mass in raw]
                height = [omega * rng.random() for _ in p]
                law = Tilted(tuple(mpmath.mpf(a) for a in p), tuple(mpmath.mpf(l) for l in height))
                total = mpmath.fsum(law.p)
                truth = Tilted(tuple(a / total for a in law.p), law.height).forward
                error = abs(stable_divergence(p, height, claim) / truth - 1)
                yield error < 1e-11, f"ω = {omega}: relative error {float(error)}"
        naive = [_naive_divergence([1 / 3, 2 / 3], [0.0, n * 1e-9]) for n in range(1, 50)]
        yield min(naive) < 0, "the naive sum is negative somewhere near ω = 1e-8"

    return tried(
        "T4.1", "E_P[u eᵘ − expm1(u)] keeps its digits, the naive sum does not", "numeric", outcomes()
    )


def flatness_is_no_divergence(share: float = 1.0, claim: float = 1.0) -> Checked:
    """A two-point law with ½V = 1e-18 and KL = 50 nats; `claim`: by what to multiply ω."""
    with mpmath.workdps(DIGITS):
        high = mpmath.exp(-50)
        omega = claim * mpmath.sqrt(mpmath.mpf("2e-18") / (high * (1 - high)))
        law = two_point(high, omega)
        met = bool(abs(law.variance() / 2 - mpmath.mpf("1e-18")) < 1e-30 and abs(law.forward - 50) < 1e-6)
    return tried(
        "T4.1", "½V = 1e-18 with KL = 50: ½V alone says nothing", "numeric", [(met, str(law.forward))]
    )


CHECKS = (
    derivatives_are_moments,
    integral_is_the_divergence,
    both_orders_add_up,
    mean_may_be_minus_infinity,
    impossible_states_cost_their_mass,
    floats_keep_tiny_divergences,
    flatness_is_no_divergence,
)

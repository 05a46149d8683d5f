"""T4.4: what the slope of ℓ says when the prior has a log-Sobolev constant, however wide ℓ ranges.

Setting. P on R^K has log-Sobolev constant ρ > 0: ``Ent_P(h²) ≤ (2/ρ) E_P‖∇h‖²`` for all locally Lipschitz h in L²(P). ℓ
is finite and locally Lipschitz on the (convex, open) domain of P, ``p(x) = E_P e^ℓ ∈ (0, ∞)``; ω may be ∞.

Theorem. (i) ``KL(Q‖P) ≤ E_Q‖∇ℓ‖²/(2ρ)``.  (ii) ``KL(Q‖P) ≥ (ρ/2)‖E_Q z − E_P z‖²``.  (iii) ``V ≤ E_P‖∇ℓ‖²/ρ``.
(iv) Let P have a density p ∈ W^{1,1}_loc with ``J = E_P[∇log p ∇log pᵀ]`` finite and invertible, V < ∞, E_P‖∇ℓ‖ < ∞,
and no flux of pℓ through the boundary: ``E_P ∇ℓ = −E_P[(ℓ − E_P ℓ) ∇log p]``. Then ``V ≥ gᵀJ⁻¹g``, g = E_P∇ℓ.
(v) If P = P₁ ⊗ … ⊗ P_K, each factor with constant ρ: ``KL(Q_j‖P_j) ≤ E_Q KL(Q(z_j | z_{−j})‖P_j) ≤ E_Q(∂_jℓ)²/(2ρ)``.
All are equalities for P = N(0, 1), linear ℓ.
(vi) N(m, I/ρ) has constant ρ; so has every P with density e^{−U} on a convex open domain where U is C² with ∇²U ⪰ ρI.
Beta(a, b), a, b ≥ 1 and not both 1: ``ρ = min_t (a−1)/t² + (b−1)/(1−t)² = ((a−1)^⅓ + (b−1)^⅓)³``; Beta(5, 5) has 32.

Proof. (i) ``h² = e^ℓ/p(x) = dQ/dP``: then Ent_P(h²) = KL(Q‖P) and ``‖∇h‖² = h²‖∇ℓ‖²/4``, so E_P‖∇h‖² = E_Q‖∇ℓ‖²/4.
(ii) Herbst's argument. H(s) = log E_P e^{s⟨v, z⟩}. By (i) for ℓ = s⟨v, z⟩, ``sH′ − H ≤ s²‖v‖²/(2ρ)``, that is
(H/s)′ ≤ ‖v‖²/(2ρ); H/s → ⟨v, E_P z⟩ at 0, so H(1) ≤ ⟨v, E_P z⟩ + ‖v‖²/(2ρ). (That P has
mean and H is finite: the same for s⟨v, z⟩ cut off at ±n, and n → ∞; Ledoux 1999.) By the Gibbs variational inequality
``KL(Q‖P) ≥ E_Q⟨v, z⟩ − H(1) ≥ ⟨v, E_Q z − E_P z⟩ − ‖v‖²/(2ρ)``; choose ``v = ρ(E_Q z − E_P z)``.
(iii) For bounded Lipschitz ℓ apply (i) to εℓ: by T4.3 KL(P_ε‖P) = ε²V/2 + O(ε³), and the right side is ε²E_P‖∇ℓ‖²/(2ρ) +
O(ε³). Truncate and cut off for the rest.
(iv) For any v, ``(vᵀg)² = (E_P[(ℓ − E_P ℓ) vᵀ∇log p])² ≤ V vᵀJv`` by Cauchy–Schwarz; v = J⁻¹g. The flux vanishes under
N(0, I) whenever V and E_P‖∇ℓ‖ are finite: multiply ℓ by a cutoff χ(z/R), whose gradient is O(1/R), and let R → ∞.
Under Beta(a, b) J is finite iff a, b > 2, ``J = (a+b−1)(a+b−2)(a+b−4)/((a−2)(b−2))``, and then too: a cutoff at distance ε
from 0 has slope 1/ε, and √P(z < ε)/ε is of order ε^{a/2−1}, likewise at 1. (Where J = ∞, (iv) says nothing.)
(v) Given z_{−j}, Q(z_j | z_{−j}) ∝ e^ℓ P_j: apply (i) to each and average. On the left, Q_j is the mixture of Q(· |
z_{−j}) and P_j is fixed: KL is convex.
(vi) Let S_s = e^{sG}, G = Δ − ∇U·∇ (reflected at the boundary), be the semigroup that leaves P invariant. Bochner's
identity and ∇²U ⪰ ρI (and convexity of the boundary) give ‖∇S_s h‖ ≤ e^{−ρs} S_s‖∇h‖, hence I_s ≤ e^{−2ρs} I_0 for the
Fisher information I_s = E_P‖∇f_s‖²/f_s of f_s = S_s(dQ/dP). As d/ds KL(Q_s‖P) = −I_s and KL(Q_s‖P) → 0, KL(Q‖P) = ∫ I_s
ds ≤ I_0/(2ρ) = E_Q‖∇ℓ‖²/(2ρ). Here this is a sketch; the theorem is Bakry & Émery's. For Beta, U″ = (a−1)/t² +
(b−1)/(1−t)², least where ((1−t)/t)³ = (b−1)/(a−1).  ∎

What the assumptions are for. *Lipschitz*: ℓ = log of a step function has ∇ℓ = 0 a.e. *ρ*: two far modes have a tiny ρ,
and a slow step between them moves all mass at no slope. *Flux*: for the uniform prior on (0, 1), J = 0 and (iv) would
be V ≥ ∞.
*Independence*: with a correlated prior P(z_j | z_{−j}) ≠ P_j even where ℓ = 0.

Source: Gross 1975; Bakry & Émery 1985; Herbst (in Ledoux 1999); Otto & Villani 2000 for (ii) with W₂; (iv) is
Cacoullos' lower bound (1982), a Cramér–Rao inequality for the location of P.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import sympy

from identkit import collapse
from identkit.posterior.bounds import beta_log_sobolev
from theory.frame import Checked, draws, tried

Curve = Callable[[np.ndarray], np.ndarray]
ROUNDING = 1e-9
"""Relative to the size of what is compared: the trapezoid rule on a fine grid, in float64."""


def random_height(rng: random.Random) -> tuple[str, Curve, Curve]:
    """Draw ℓ with its derivative: log-likelihoods of decoders, and periodic, linear, quadratic ones."""
    a, b, c = rng.uniform(-2, 2), rng.uniform(-3, 3), rng.uniform(0.3, 2)
    x = rng.uniform(-3, 3)
    name = rng.choice(("linear", "quadratic", "sine", "tanh", "softplus", "square"))
    match name:
        case "linear":
            return f"{a}z", lambda z: a * z, lambda z: a + 0 * z
        case "quadratic":
            return f"−{c}z² + {a}z", lambda z: -c * z**2 + a * z, lambda z: -2 * c * z + a
        case "sine":
            return f"{a} sin {b}z", lambda z: a * np.sin(b * z), lambda z: a * b * np.cos(b * z)
        case "tanh":
            f, slope = (lambda z: np.tanh(b * z)), (lambda z: b / np.cosh(b * z) ** 2)
        case "softplus":
            f, slope = (lambda z: np.logaddexp(0, b * z)), (lambda z: b / (1 + np.exp(-b * z)))
        case _:
            f, slope = (lambda z: z**2), (lambda z: 2 * z)
    return (
        f"N({x}; {name} {b}, {c}²)",
        lambda z: -((x - f(z)) ** 2) / (2 * c**2),
        lambda z: (x - f(z)) * slope(z) / c**2,
    )


def gaussian_grid(points: int = 6001, reach: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of N(0, 1) for the trapezoid rule, exact to rounding for smooth integrands."""
    z = np.linspace(-reach, reach, points)
    weights = np.exp(-(z**2) / 2)
    return z, weights / weights.sum()


def beta_grid(a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Beta(a, b): the trapezoid rule in the logit, whose tails decay exponentially."""
    logit = np.linspace(-36, 36, 6001)
    z = 1 / (1 + np.exp(-logit))
    log_weights = -a * np.logaddexp(0, -logit) - b * np.logaddexp(0, logit)
    weights = np.exp(log_weights - log_weights.max())
    return z, weights / weights.sum()


def beta_fisher(a: float, b: float) -> float:
    """``J = E (d/dz log p)²`` of Beta(a, b), ∞ unless a, b > 2.

    >>> z, weights = beta_grid(4, 3)
    >>> bool(abs(weights @ (3 / z - 2 / (1 - z)) ** 2 / beta_fisher(4, 3) - 1) < 1e-9)
    True
    """
    if min(a, b) <= 2:
        return math.inf
    return (a + b - 1) * (a + b - 2) * (a + b - 4) / ((a - 2) * (b - 2))


def tilted(weights: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, float]:
    """Posterior weights and KL(Q‖P) on a grid."""
    top = height.max()
    likelihood = np.exp(height - top)
    level = float(np.log((weights * likelihood).sum()))
    after = weights * likelihood / np.exp(level)
    u = height - top - level
    return after, float((weights * (u * np.exp(u) - np.expm1(u))).sum())


def gradient_bounds_hold(share: float = 1.0, claim: float = 1.0) -> Checked:
    """(i) to (iv) under N(0, 1), and (i) to (iii) under Beta, by quadrature; `claim` multiplies each ρ."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(300, share, "T4.4"):
            name, height, slope = random_height(rng)
            if rng.random() < 0.5:
                (z, p), rho, fisher, prior = gaussian_grid(), claim, 1.0, "N(0, 1)"
            else:
                a, b = rng.uniform(1.2, 8), rng.uniform(1.2, 8)
                constant = beta_log_sobolev(a, b)
                assert constant is not None
                (z, p), rho, prior = beta_grid(a, b), claim * constant, f"Beta({a}, {b})"
                fisher = beta_fisher(a, b)
            h, s = height(z), slope(z)
            q, kl = tilted(p, h)
            variance = p @ (h - p @ h) ** 2
            slack = ROUNDING * (1 + kl)
            met = kl <= q @ s**2 / (2 * rho) + slack
            met = met and kl >= rho / 2 * (q @ z - p @ z) ** 2 - slack
            met = met and variance <= p @ s**2 / rho + ROUNDING * variance
            met = met and variance >= (p @ s) ** 2 / fisher - ROUNDING * variance
            yield bool(met), f"ℓ = {name} under {prior}"

    return tried("T4.4", "KL, V between slopes and shifts for N(0, 1) and Beta priors", "numeric", outcomes())


def linear_attains_all(share: float = 1.0, claim: int = 1) -> Checked:
    """P = N(0, 1), ℓ = az: Q = N(a, 1), and all four are equalities; `claim` multiplies ρ."""
    a, z = sympy.symbols("a z", real=True)
    density = sympy.exp(-(z**2) / 2) / sympy.sqrt(2 * sympy.pi)

    def mean(expression: sympy.Expr, law: sympy.Expr) -> sympy.Expr:
        return sympy.simplify(sympy.integrate(sympy.expand(expression) * law, (z, -sympy.oo, sympy.oo)))

    after = sympy.exp(-((z - a) ** 2) / 2) / sympy.sqrt(2 * sympy.pi)
    kl = mean(a * z - a**2 / 2, after)
    outcomes = [
        (sympy.simplify(density * sympy.exp(a * z - a**2 / 2) - after) == 0, "Q = N(a, 1)"),
        (sympy.simplify(kl - mean(a**2 + 0 * z, after) / (2 * claim)) == 0, "(i)"),
        (
            sympy.simplify(kl - sympy.Rational(claim, 2) * (mean(z, after) - mean(z, density)) ** 2) == 0,
            "(ii)",
        ),
        (sympy.simplify(mean((a * z) ** 2, density) - a**2 / claim) == 0, "(iii) and (iv), J = 1"),
        (mean(z**2, density) == claim, "J"),
    ]
    return tried("T4.4", "linear ℓ attains all of them under N(0, 1)", "symbolic", outcomes)


def beta_constant(share: float = 1.0, claim: int = 3) -> Checked:
    """The least curvature of Beta(a, b) in closed form, and identkit's; `claim`: the outer exponent."""
    s, t, u = sympy.symbols("s t u", positive=True)  # s³ = a − 1, u³ = b − 1
    curvature = s**3 / t**2 + u**3 / (1 - t) ** 2
    at = s / (s + u)
    second = sympy.diff(curvature, t, 2)

    def outcomes() -> Iterator[tuple[bool, str]]:
        yield sympy.simplify(sympy.diff(curvature, t).subs(t, at)) == 0, "stationary"
        yield sympy.simplify(curvature.subs(t, at) - (s + u) ** claim) == 0, "value"
        yield sympy.simplify(second - 6 * s**3 / t**4 - 6 * u**3 / (1 - t) ** 4) == 0, "convex in t"
        grid = np.linspace(0.001, 0.999, 20001)
        for rng in draws(50, share, "T4.4 Beta"):
            a, b = rng.uniform(1, 20), rng.uniform(1, 20)
            least = ((a - 1) / grid**2 + (b - 1) / (1 - grid) ** 2).min()
            found = beta_log_sobolev(a, b)
            assert found is not None
            yield found <= least * (1 + 1e-12) and least < found * (1 + 1e-3), f"Beta({a}, {b})"
        yield abs((beta_log_sobolev(5, 5) or 0) - 32) < 1e-12, "Beta(5, 5)"

    return tried("T4.4", "Beta(a, b): ρ = ((a−1)^⅓ + (b−1)^⅓)³", "symbolic", outcomes())


def coordinates(share: float = 1.0, claim: float = 0.5) -> Checked:
    """(v) for random smooth ℓ of two coordinates under N(0, I); `claim` multiplies E_Q(∂_jℓ)²."""
    z, p = gaussian_grid(401, 9.0)
    one, two = np.meshgrid(z, z, indexing="ij")
    prior = np.outer(p, p)

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(60, share, "T4.4 coordinates"):
            a, b, c, x, scale = (rng.uniform(-2, 2) for _ in range(5))
            inner = a * one + b * two + c * one * np.tanh(two)
            noise = 0.5 + scale**2
            residual = x - np.sin(inner)
            height = -(residual**2) / (2 * noise)
            by_inner = residual * np.cos(inner) / noise
            slopes = (by_inner * (a + c * np.tanh(two)), by_inner * (b + c * one / np.cosh(two) ** 2))
            after = prior * np.exp(height)
            after = after / after.sum()
            for axis, slope in enumerate(slopes):
                joint = after if axis == 0 else after.T
                marginal = joint.sum(1)
                given = joint / joint.sum(0)
                outer = float((marginal * np.log(marginal / p)).sum())
                inner_kl = float((joint * np.log(given / p[:, None])).sum())
                bound = claim * float((after * slope**2).sum())
                met = outer <= inner_kl + ROUNDING and inner_kl <= bound + ROUNDING
                yield met, f"axis {axis}: {outer}, {inner_kl}, {bound} at {(a, b, c, x, noise)}"

    return tried("T4.4", "coordinate by coordinate under product priors", "numeric", outcomes())


def gradient_assumptions_are_needed(share: float = 1.0, claim: float = 5.0) -> Checked:
    """A step, two far modes at ±claim, a uniform prior, a correlated prior: each bound fails without its assumption."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        z, p = gaussian_grid()
        _, kl = tilted(p, np.where(z > 0, 0.0, -3.0))
        yield kl > 0.1, "a step: ∇ℓ = 0 almost everywhere, KL > 0"
        modes = np.exp(-((z - claim) ** 2) / 2) + np.exp(-((z + claim) ** 2) / 2)
        modes = modes / modes.sum()
        q, kl = tilted(modes, 4 * np.tanh(z))
        yield kl > 2 * float(q @ (4 / np.cosh(z) ** 2) ** 2) / 2, "two modes: not with ρ = 1"
        grid = np.linspace(0, 1, 1001)
        uniform = np.full(1001, 1 / 1001)
        variance = float(uniform @ (grid - grid.mean()) ** 2)
        yield variance < 1.0, "uniform prior: g = 1, J = 0, V = 1/12 finite"
        for r in (0.1, 0.5, 0.9):
            # P = N(0, [[1, r], [r, 1]]), ℓ = 0: E KL(P(z₁ | z₂)‖P₁) = I(z₁; z₂) > 0 = slope.
            yield -0.5 * math.log1p(-(r**2)) > 0, f"correlation {r}"

    return tried("T4.4", "counterexample for each dropped assumption", "numeric", outcomes())


def library_bands_hold(share: float = 1.0, claim: float = 1.0) -> Checked:
    """identkit's `collapse`: KL by quadrature inside the certified band; `claim` multiplies the KL."""
    texts = (
        "z ~ Normal(0, 1); observe x ~ Normal(z**3 - z, 1)",
        "z ~ Normal(0, 1); observe x ~ Normal(tanh(3*z), 1/2)",
        "z ~ Beta(5, 5); observe x ~ Bernoulli(z)",
        "z ~ Beta(2, 3); observe x ~ Normal(sin(4*z), 1/2)",
        "k ~ Bernoulli(1/3); observe x ~ Normal(k, 1)",
    )

    def outcomes() -> Iterator[tuple[bool, str]]:
        for text in texts[: None if share >= 1 else 3]:
            table = [[0.0], [1.0]] if "Bernoulli(z)" in text else [[-1.0], [0.3], [2.0]]
            measured = collapse(text, table)
            for row in range(len(table)):
                kl, error = claim * measured.kl[row].item(), measured.kl_error[row].item()
                low, high = measured.band[row].tolist()
                yield low - error <= kl <= high + error, f"{text} at {table[row]}: {kl} in [{low}, {high}]"

    return tried("T4", "identkit's KL lies in identkit's band", "numeric", outcomes())


CHECKS = (
    gradient_bounds_hold,
    linear_attains_all,
    beta_constant,
    coordinates,
    gradient_assumptions_are_needed,
    library_bands_hold,
)

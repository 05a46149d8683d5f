"""T5, information: expanding maps inform more, so Lipschitz constants give a floor and a ceiling of I(z; x).

Setting. z ~ P, any law on any measurable space. F: Z → R^a and G: Z → R^b are measurable, N is standard normal and
independent of z, σ > 0.

Theorem (entropic Kneser–Poulsen). If ``‖F(z) − F(z′)‖ ≥ ‖G(z) − G(z′)‖`` for P⊗P-almost all pairs, then
    ``I(z; F(z) + σN) ≥ I(z; G(z) + σN)``   in [0, ∞].
Corollary. If ``m‖z − z′‖ ≤ ‖f(z) − f(z′)‖ ≤ L‖z − z′‖`` on R^K and x ~ N(f(z), σ²I), then for every prior
    ``I(z; mz + σN) ≤ I(z; x) ≤ I(z; Lz + σN)``, and for z ~ N(0, I_K)
    ``(K/2) log(1 + m²/σ²) ≤ I(z; x) ≤ (K/2) log(1 + L²/σ²)``,
equalities where f is m (or L) times an isometry. As I(z; x) = E_x KL(p(z | x)‖P) under the model's own marginal, the
left side is a certified floor of the *average* divergence from the prior.

Proof of the theorem. *Step 1: ‖F‖, ‖G‖ ≤ R.* For 0 ≤ t ≤ π/2, with φ_σ the density of N(0, σ²I), put
    ``F_t = (cos t·F, sin t·G) ∈ R^{a+b}``,  ``Y_t = F_t(z) + σN``,  ``p_t(y) = E φ_σ(y − F_t(z))``.
(1a) Ends. Y_0 = (F + σN₁, σN₂) with N₂ independent of the rest: ``I(z; Y_0) = I(z; F + σN)``.
    Likewise ``I(z; Y_{π/2}) = I(z; G + σN)``.
(1b) I(z; Y_t) = h(Y_t) − h(σN). So it is enough that ``h(Y_t) = −∫ p_t log p_t`` does not increase.
(1c) Distances. ``d/dt ‖F_t(z) − F_t(z′)‖² = −sin 2t (‖F(z) − F(z′)‖² − ‖G(z) − G(z′)‖²) ≤ 0``.
(1d) Regularity. ‖F_t‖ ≤ R and ‖Ḟ_t‖ ≤ R, so p_t(y) is smooth in (t, y), and with constants c, C that hold for all t
    ``c exp(−(‖y‖ + R)²/2σ²) ≤ p_t(y) ≤ c exp(−((‖y‖ − R)⁺)²/2σ²)``,
    ``|∂_t p_t|, ‖∇p_t‖ ≤ C(1 + ‖y‖) exp(−((‖y‖ − R)⁺)²/2σ²)``,  hence  ``|log p_t| ≤ C(1 + ‖y‖²)``.
    One integrable function dominates ∂_t(p_t log p_t) for all t; so h is differentiable under the integral, and so is
    1 = ∫ p_t:  ``dh/dt = −∫ ∂_t p_t log p_t dy``.
(1e) Continuity equation. ∂_t φ_σ(y − F_t) = −⟨∇φ_σ(y − F_t), Ḟ_t⟩, so ``∂_t p_t = −div j`` with
    ``j(y) = E[Ḟ_t φ_σ(y − F_t)] = p_t(y) E[Ḟ_t | Y_t = y]``.
    By (1d) the flux of j log p_t through large spheres tends to 0: ``dh/dt = −∫ ⟨j, ∇log p_t⟩ dy``.
(1f) Score (Tweedie). ``∇log p_t(y) = −(y − E[F_t | Y_t = y])/σ²``, so
    ``σ² dh/dt = E⟨E[Ḟ_t | Y_t], Y_t − E[F_t | Y_t]⟩``.
(1g) ``E⟨Ḟ_t, Y_t − F_t⟩ = σE⟨Ḟ_t, N⟩ = 0``, so E⟨E[Ḟ_t | Y_t], Y_t⟩ = E⟨Ḟ_t, Y_t⟩ = E⟨Ḟ_t, F_t⟩, and
    ``σ² dh/dt = E tr Cov(Ḟ_t, F_t | Y_t)``.
(1h) Let z, z′ be independent given Y_t, each with the posterior as its law. Then
    ``2 tr Cov(Ḟ_t, F_t | Y_t) = E[⟨Ḟ_t(z) − Ḟ_t(z′), F_t(z) − F_t(z′)⟩ | Y_t] = ½ E[d/dt ‖F_t(z) − F_t(z′)‖² | Y_t]``.
    Altogether ``dh/dt = (4σ²)⁻¹ E d/dt‖F_t(z) − F_t(z′)‖² ≤ 0`` by (1c): the law of (z, z′) has a density with respect
    to P⊗P, so the pairs that the assumption excludes have probability 0.
*Step 2: all F and G.* Let S_n = {‖F‖ ≤ n, ‖G‖ ≤ n}, so P(S_n) → 1, and P_n = P given S_n, whose informations are I_n.
By step 1 ``I_n(z; F + σN) ≥ I_n(z; G + σN)``.
(2a) 1_{S_n} is a function of z. Chain rule: ``I(z; F + σN) ≥ I(z; F + σN | 1_{S_n}) ≥ P(S_n) I_n(z; F + σN)``.
(2b) The joint law of (z, G + σN) under P_n and the product of its marginals converge in total variation to those under
    P, and divergence is lower semicontinuous: ``liminf I_n(z; G + σN) ≥ I(z; G + σN)``. Combine.  ∎

Proof of the corollary. F = f with G = m·identity, and F = L·identity with G = f. For z ~ N(0, I), mz + σN is Gaussian
with covariance (m² + σ²)I. If f is m times an isometry, the theorem applies both ways.  ∎

What the assumptions are for. *All pairs*, not slopes: r(cos(z/r), sin(z/r)) is a local isometry whose information tends
to 0 with r.
*Gaussian* noise: z ∈ {0, ½} is read off z + ε for ε a fair coin on {0, 1}, but not off 2z + ε. *The same σ in all
directions*: otherwise measure distances in the metric of the noise.

Source: Aishwarya & Li 2024, arXiv 2409.03664 (entropic Kneser–Poulsen); the path is Bezdek & Connelly's (2002).
(Kinoshita et al. 2023 bound a Fisher divergence by the inverse Lipschitz constant.) Step 2 and the corollary are
written here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import sympy

from theory.frame import Checked, draws, tried


def steps_of_the_proof(share: float = 1.0, claim: int = 1) -> Checked:
    """(1c), (1e), (1f) with symbols: two states, any paths F₁(t), F₂(t); `claim` multiplies the score."""
    t, y, w, f, g, h, k = sympy.symbols("t y w f g h k", real=True)
    sigma = sympy.symbols("sigma", positive=True)
    # (1c) for scalars; sums over components follow.
    gap = (sympy.cos(t) * (f - g)) ** 2 + (sympy.sin(t) * (h - k)) ** 2
    shrink = sympy.diff(gap, t) + sympy.sin(2 * t) * ((f - g) ** 2 - (h - k) ** 2)
    one, two = (sympy.Function(name)(t) for name in ("F1", "F2"))
    kernels = [sympy.exp(-((y - path) ** 2) / (2 * sigma**2)) for path in (one, two)]
    density = w * kernels[0] + (1 - w) * kernels[1]
    current = w * one.diff(t) * kernels[0] + (1 - w) * two.diff(t) * kernels[1]
    mean = (w * one * kernels[0] + (1 - w) * two * kernels[1]) / density
    score = density.diff(y) / density + claim * (y - mean) / sigma**2
    ends = [gap.subs(t, 0) - (f - g) ** 2, gap.subs(t, sympy.pi / 2) - (h - k) ** 2]
    outcomes = [
        (sympy.simplify(sympy.expand_trig(shrink)) == 0, "(1c)"),
        (sympy.simplify(density.diff(t) + current.diff(y)) == 0, "(1e)"),
        (sympy.simplify(score) == 0, "(1f)"),
        *[(sympy.simplify(end) == 0, "(1a)") for end in ends],
    ]
    return tried("T5", "distances along the path, continuity equation, score", "symbolic", outcomes)


def covariance_by_pairs(share: float = 1.0, claim: int = 2) -> Checked:
    """(1h): ``2 Cov(X, Y) = E (X − X′)(Y − Y′)`` for i.i.d. pairs, exactly; `claim`: the 2."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(200, share, "T5 pairs"):
            size = rng.randint(2, 5)
            counts = [rng.randint(1, 5) for _ in range(size)]
            p = [Fraction(count, sum(counts)) for count in counts]
            x, y = ([Fraction(rng.randint(-5, 5)) for _ in range(size)] for _ in range(2))

            def mean(values: list[Fraction], p: list[Fraction] = p) -> Fraction:
                return sum((a * b for a, b in zip(p, values, strict=True)), Fraction(0))

            covariance = mean([a * b for a, b in zip(x, y, strict=True)]) - mean(x) * mean(y)
            paired = sum(
                p[i] * p[j] * (x[i] - x[j]) * (y[i] - y[j]) for i in range(size) for j in range(size)
            )
            yield paired == claim * covariance, f"{p}, {x}, {y}"

    return tried("T5", "2 Cov(X, Y) = E(X − X′)(Y − Y′)", "exact", outcomes())


def grid_around(points: np.ndarray, sigma: float) -> tuple[np.ndarray, float]:
    """Nodes of the trapezoid rule in the plane, σ/5 apart and 9σ beyond the points, and the area of a cell."""
    step = sigma / 5
    axes = [np.arange(p.min() - 9 * sigma, p.max() + 9 * sigma, step) for p in points.T]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1), step ** len(axes)


def entropy(
    points: np.ndarray, weights: np.ndarray, sigma: float
) -> tuple[float, np.ndarray, np.ndarray, float]:
    """h(Y) of a mixture of N(point, σ²I) in the plane, the grid's density and posterior weights, and the cell."""
    nodes, cell = grid_around(points, sigma)
    squares = ((nodes[:, None, :] - points[None]) ** 2).sum(2)
    kernels = weights * np.exp(-squares / (2 * sigma**2)) / (2 * math.pi * sigma**2) ** (points.shape[1] / 2)
    density = kernels.sum(1)
    used = density > 0
    h = -float((density[used] * np.log(density[used])).sum() * cell)
    return h, density, kernels / np.where(used, density, 1.0)[:, None], cell


def information(points: np.ndarray, weights: np.ndarray, sigma: float) -> float:
    """I(z; F(z) + σN) of a finite prior, F(z) in the plane, by quadrature."""
    h = entropy(points, weights, sigma)[0]
    return h - points.shape[1] / 2 * math.log(2 * math.pi * math.e * sigma**2)


def _finite_prior(rng: random.Random, states: int) -> np.ndarray:
    raw = np.array([rng.uniform(0.1, 1) for _ in range(states)])
    return raw / raw.sum()


def entropy_falls_along_the_path(share: float = 1.0, claim: float = 4.0) -> Checked:
    """(1h) against a difference quotient of h(Y_t), by quadrature in the plane; `claim`: the 4 in (4σ²)⁻¹."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(12, share, "T5 path"):
            states, sigma, t = rng.randint(2, 4), rng.uniform(0.4, 1.2), rng.uniform(0.1, 1.4)
            weights = _finite_prior(rng, states)
            g = np.array([rng.uniform(-1.5, 1.5) for _ in range(states)])
            f = np.cumsum(np.diff(np.sort(g), prepend=0) * np.array([rng.uniform(1, 2) for _ in g]))
            g = np.sort(g)  # f expands g: its gaps are one to two times as wide

            def path(t: float, f: np.ndarray = f, g: np.ndarray = g) -> np.ndarray:
                return np.stack([math.cos(t) * f, math.sin(t) * g], axis=1)

            step = 0.01
            at = {n: entropy(path(t + n * step), weights, sigma)[0] for n in (-2, -1, 1, 2)}
            quotient = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
            _, density, after, cell = entropy(path(t), weights, sigma)
            shrink = -math.sin(2 * t) * ((f[:, None] - f) ** 2 - (g[:, None] - g) ** 2)
            both = np.einsum("n,ni,nj->ij", density * cell, after, after)
            formula = float((both * shrink).sum()) / (claim * sigma**2)
            met = formula <= 0 and abs(formula - quotient) < 1e-6 * (1 + abs(formula))
            yield met, f"t = {t}, σ = {sigma}, f = {f}, g = {g}: {formula} against {quotient}"

    return tried("T5", "dh/dt = (4σ²)⁻¹ E d/dt‖F_t − F_t′‖² ≤ 0", "numeric", outcomes())


def expanding_informs_more(share: float = 1.0, claim: float = 1.0) -> Checked:
    """Random points F in the plane and z on a line or plane, with the tight m and L of their pairs; `claim` multiplies m."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(40, share, "T5 finite"):
            states, sigma = rng.randint(2, 5), rng.uniform(0.4, 1.5)
            weights = _finite_prior(rng, states)
            z = np.array([[rng.uniform(-2, 2), rng.uniform(-2, 2) * (rng.random() < 0.5)] for _ in weights])
            f = np.array([[rng.uniform(-2, 2), rng.uniform(-2, 2)] for _ in weights])
            one, other = np.triu_indices(states, 1)
            slopes = np.linalg.norm(f[one] - f[other], axis=1) / np.linalg.norm(z[one] - z[other], axis=1)
            low, high = claim * slopes.min(), min(slopes.max(), 20.0)
            if slopes.max() > high:  # the ceiling's points would fill too large a plane
                continue
            found = information(f, weights, sigma)
            floor, ceiling = information(low * z, weights, sigma), information(high * z, weights, sigma)
            met = floor - 1e-7 <= found <= ceiling + 1e-7
            yield met, f"{floor} ≤ {found} ≤ {ceiling}: σ = {sigma}, z = {z.tolist()}, f = {f.tolist()}"

    return tried("T5", "any finite prior: I(z; mz + σN) ≤ I(z; x) ≤ I(z; Lz + σN)", "numeric", outcomes())


def local_isometries_may_be_silent(share: float = 1.0, claim: float = 0.5) -> Checked:
    """z ~ N(0, 1) on a circle of radius `claim`, slope 1 everywhere: I ≤ log(1 + r²/2σ²), under the floor for m = 1."""
    # h(x) is at most that of a Gaussian with the same second moment, r² + 2σ² in the plane; σ = 1.
    most = math.log1p(claim**2 / 2)
    met = most < 0.5 * math.log(2)
    return tried("T5", "slopes alone give no floor", "numeric", [(met, f"{most} nats for r = {claim}")])


def coins_break_the_floor(share: float = 1.0, claim: Fraction = Fraction(1, 2)) -> Checked:
    """z ∈ {0, claim} fair, ε a fair coin on {0, 1}: how many of the four sums z + ε coincide, against 2z + ε."""

    def seen(factor: int) -> bool:
        """Whether z can be read off factor·z + ε: the two sets of values are disjoint."""
        values = [{factor * z + e for e in (0, 1)} for z in (Fraction(0), claim)]
        return not values[0] & values[1]

    outcomes = [(seen(1), "z + ε tells z"), (not seen(2), "2z + ε, twice as expanding, does not")]
    return tried("T5", "noise that is not Gaussian: expanding may inform less", "exact", outcomes)


CHECKS = (
    steps_of_the_proof,
    covariance_by_pairs,
    entropy_falls_along_the_path,
    expanding_informs_more,
    local_isometries_may_be_silent,
    coins_break_the_floor,
)

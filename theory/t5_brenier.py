"""T5, maps: gradients of strongly convex functions expand, and so does what is composed of them.

Theorem. (i) Let φ : R^d → R be differentiable and μ-strongly convex, μ > 0: ``φ − (μ/2)‖·‖²`` is convex. Then g = ∇φ
satisfies ``‖g(z) − g(z′)‖ ≥ μ‖z − z′‖``, and is onto R^d. (ii) If moreover g is L-Lipschitz, and f = g₂ ∘ B ∘ g₁ with B
(D × K) of full column rank, g₁ on R^K and g₂ on R^D of this kind, then
    ``m‖z − z′‖ ≤ ‖f(z) − f(z′)‖ ≤ L‖z − z′‖``,  ``m = μ₂ σ_min(B) μ₁ > 0``,  ``L = L₂ σ_max(B) L₁``.
Both constants are attained by scaled isometries.

Proof. (i) The gradient of a convex function is monotone: add ``φ(z′) ≥ φ(z) + ⟨g(z), z′ − z⟩ + (μ/2)‖z′ − z‖²`` and the
same with z, z′ exchanged to get ``⟨g(z) − g(z′), z − z′⟩ ≥ μ‖z − z′‖²``; by Cauchy–Schwarz the left side is at most
‖g(z) − g(z′)‖ ‖z − z′‖. Onto: for y given, φ(z) − ⟨y, z⟩ is continuous and at least a quadratic that tends to ∞, so it
has a minimiser, where g(z) = y.
(ii) Chain the three inequalities. With g_i = μ_i·identity and BᵀB = s²I, f is an isometry times μ₂sμ₁ = m = L.  ∎

What the assumptions are for. *Strong* convexity: a squared leaky ReLU of one unit, φ = ½s(aᵀz)², is convex in d ≥ 2,
and g is constant across a. ReLU networks with non-negative weights have piecewise constant gradients. *A gradient*: (x,
y) ↦ e^x (cos y, sin y) has a Jacobian of full rank everywhere and is 2π-periodic. *All of R^d*: on a bounded domain g =
identity is not onto. *Full rank of B*.

Source: Wang, Blei & Cunningham 2021, section 3; Brenier 1991; strong monotonicity is textbook convex analysis (Nesterov
2004).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import sympy
import torch

from identkit.lidvae.brenier import BrenierMap
from identkit.lidvae.decoders import BrenierDecoder
from identkit.lidvae.icnn import ICNN
from identkit.lidvae.monotone import MonotoneGradient
from theory.frame import Checked, draws, tried


def random_map(rng: random.Random, dimension: int, alpha: float) -> BrenierMap:
    """One of identkit's maps with random weights, its bends spread over N(0, I), of unit mean slope."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    build = rng.choice((ICNN, MonotoneGradient))
    widths = (8, 8) if build is ICNN else 8
    g: BrenierMap = build(1, dimension, widths, alpha=alpha, generator=generator).double()  # type: ignore[arg-type]
    x = torch.randn(1, 128, dimension, generator=generator, dtype=torch.float64)
    g.spread_(x, generator=generator)
    g.unit_slope_(x, generator=generator)
    return g


def random_decoder(rng: random.Random, latents: int, outputs: int) -> BrenierDecoder:
    """An identkit decoder with random weights, started as for training, in float64."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    f = BrenierDecoder(
        *(1, latents, outputs),
        map=rng.choice(("icnn", "monotone")),
        hidden=(8, 8),
        alphas=(rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8)),
        scale=rng.uniform(0.5, 2),
        generator=generator,
    ).double()
    f.start_(slope=1.0, generator=generator)
    return f


def pairs(rng: random.Random, dimension: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and partners near and far, from 1e-3 to 10 apart."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    one = 2 * torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    step = torch.randn(count, dimension, generator=generator, dtype=torch.float64)
    reach = 10 ** (4 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 3)
    return one, one + reach * step / step.norm(dim=1, keepdim=True)


def monotone_means_expanding(share: float = 1.0, claim: int = 1) -> Checked:
    """Proof of (i) in exact arithmetic for quadratics ``φ = ½zᵀ(μI + CᵀC)z``; `claim` multiplies μ."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(200, share, "T5 quadratic"):
            d = rng.randint(1, 3)
            mu = Fraction(rng.randint(1, 5), rng.randint(1, 5))
            root = sympy.Matrix(rng.randint(1, d), d, lambda *_, rng=rng: rng.randint(-2, 2))
            hessian = sympy.Rational(mu) * sympy.eye(d) + root.T * root
            v = sympy.Matrix(d, 1, lambda *_, rng=rng: rng.randint(-3, 3))
            least = claim * sympy.Rational(mu)
            inner, length, image = (v.T * hessian * v)[0], (v.T * v)[0], ((hessian * v).T * hessian * v)[0]
            met = inner >= least * length and inner**2 <= image * length and image >= least**2 * length
            yield bool(met), f"Hessian {hessian}, v = {v}"

    return tried("T5", "⟨Δg, Δz⟩ ≥ μ‖Δz‖², Cauchy–Schwarz, ‖Δg‖ ≥ μ‖Δz‖", "exact", outcomes())


def maps_expand(share: float = 1.0, claim: float = 1.0) -> Checked:
    """identkit's maps on pairs near and far: both constants, and y = g(g⁻¹(y)); `claim` multiplies α."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(20, share, "T5 maps"):
            d, alpha = rng.randint(1, 4), rng.uniform(0.1, 0.8)
            g = random_map(rng, d, alpha)
            one, other = pairs(rng, d, 500)
            with torch.no_grad():
                slope = (g(one) - g(other)).norm(dim=1) / (one - other).norm(dim=1)
                _, residual = g.inverse(10 * one[:20])
            low, high = float(slope.min()), float(slope.max())
            met = low >= claim * g.lower_lipschitz() * (1 - 1e-9) and high <= g.upper_lipschitz() * (1 + 1e-9)
            yield met and float(residual.max()) < 1e-8, f"{type(g).__name__} in {d}: slopes {low} to {high}"

    return tried("T5", "identkit's Brenier maps: α ≤ slopes ≤ U, and onto", "numeric", outcomes())


def decoders_expand(share: float = 1.0, claim: float = 1.0) -> Checked:
    """identkit's decoders on pairs near and far, m and L; `claim` multiplies m."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(20, share, "T5 decoders"):
            k = rng.randint(1, 3)
            f = random_decoder(rng, k, k + rng.randint(0, 3))
            one, other = pairs(rng, k, 500)
            with torch.no_grad():
                slope = (f(one) - f(other)).norm(dim=1) / (one - other).norm(dim=1)
            lower = f.lower_lipschitz()
            assert lower is not None
            low, high = float(slope.min()), float(slope.max())
            met = lower > 0 and low >= claim * lower * (1 - 1e-9) and high <= f.upper_lipschitz() * (1 + 1e-9)
            yield met, f"slopes {low} to {high}, constants {lower}, {f.upper_lipschitz()}"

    return tried("T5", "identkit's decoders: m ≤ slopes ≤ L", "numeric", outcomes())


def isometries_attain_the_constants(share: float = 1.0, claim: int = 1) -> Checked:
    """g_i = μ_i·identity, B = s·Q with rational Q: ‖f(z)‖² = (μ₂sμ₁)²‖z‖² exactly; `claim`: the power of s."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(100, share, "T5 isometries"):
            a, b, s = (sympy.Rational(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(3))
            # Cayley's transform of an antisymmetric matrix is orthogonal; two of its columns.
            x, y, w = (rng.randint(-3, 3) for _ in range(3))
            skew = sympy.Matrix([[0, x, y], [-x, 0, w], [-y, -w, 0]])
            q = ((sympy.eye(3) - skew) * (sympy.eye(3) + skew).inv())[:, :2]
            z = sympy.Matrix([rng.randint(-5, 5), rng.randint(1, 5)])
            f = b * (s * q * (a * z))
            met = sympy.simplify((f.T * f)[0] - (a * s**claim * b) ** 2 * (z.T * z)[0]) == 0
            yield met, f"{(a, b, s)}, {skew}"

    return tried("T5", "scaled isometries attain m and L", "exact", outcomes())


def brenier_assumptions_are_needed(share: float = 1.0, claim: int = 0) -> Checked:
    """Collisions of gradients that are only convex, and of a map that is no gradient; `claim`: a strong convexity."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(50, share, "T5 counterexamples"):
            a = sympy.Matrix([rng.randint(1, 4), rng.randint(1, 4)])
            z = sympy.Matrix([rng.randint(-5, 5), rng.randint(-5, 5)])
            across = sympy.Matrix([-a[1], a[0]])

            def leaky(point: sympy.Matrix, a: sympy.Matrix = a) -> sympy.Matrix:
                u = (a.T * point)[0]
                return a * u * (1 if u > 0 else sympy.Rational(1, 25)) + claim * point

            yield leaky(z) == leaky(z + across), f"squared leaky ReLU, a = {a.T}, z = {z.T}"

            def relu(point: sympy.Matrix, a: sympy.Matrix = a) -> sympy.Matrix:
                units = (((a.T * point)[0], a), (point[0] - 1, sympy.Matrix([1, 0])))
                return sum((w for u, w in units if u > 0), sympy.zeros(2, 1)) + claim * point

            far = sympy.Matrix([2, 2])
            yield relu(far) == relu(2 * far), f"ReLU, a = {a.T}"
        x, y = sympy.symbols("x y", real=True)
        spiral = sympy.Matrix([sympy.exp(x) * sympy.cos(y), sympy.exp(x) * sympy.sin(y)])
        determinant = sympy.simplify(spiral.jacobian([x, y]).det())
        yield determinant == sympy.exp(2 * x), "full rank everywhere"
        yield sympy.simplify(spiral.subs(y, y + 2 * sympy.pi) - spiral) == sympy.zeros(2, 1), "and periodic"

    return tried("T5", "merely convex, or no gradient: collisions", "exact", outcomes())


CHECKS = (
    monotone_means_expanding,
    maps_expand,
    decoders_expand,
    isometries_attain_the_constants,
    brenier_assumptions_are_needed,
)

"""T6, singular points: deficient rank at a point is not non-identifiability there.

Setting. κ : Θ ⊂ R^p → R^q analytic, exhaustive; the *deficiency* at θ̂ is p − rank κ′(θ̂); the fibre at θ̂ is {θ : κ(θ)
= κ(θ̂)}.

Theorem. (i) Full rank at θ̂ makes its fibre discrete near θ̂. (ii) If the rank is p − d on a neighbourhood of θ̂, the
fibre is a d-dimensional manifold near θ̂. (iii) A field ξ with κ′ξ = 0 near θ̂ and ξ(θ̂) ≠ 0 puts a curve of the fibre
through θ̂. (iv) Deficient rank at the point θ̂ alone proves nothing: the fibre may be {θ̂}, or of any dimension up to
the deficiency.

Proof. (i), (ii): the constant rank theorem. (iii) κ is constant along the flow of ξ, which moves θ̂. (iv) By the
examples. If a discrete symmetry σ of κ fixes θ̂, then κ′(θ̂)(dσ − 1) = 0: wherever dσ ≠ 1 the rank is deficient, though
σ merges θ̂ with nothing. The deficiency bounds the fibre's dimension near θ̂: the rank near θ̂ is at least that at θ̂,
and at its regular points the fibre's tangent space lies in the null space of κ′.  ∎

Examples. ``z³`` at 0: derivative 0, injective. ``½N(m, 1) + ½N(−m, 1)`` at m = 0: the law is even in m, its derivative
there 0, its fibre {0}. MA(1), ``γ₀ = σ²(1 + θ²)``, ``γ₁ = σ²θ``: determinant σ²(θ² − 1) in (θ, σ²), 0 at θ = ±1; the
other root (1/θ, σ²θ²) is then the same point. ``wN(m₁, v₁) + (1 − w)N(m₂, v₂)`` where both components are equal, 0 < w
< 1: the five derivatives span 2 dimensions (∂_m, ∂_v of one normal), deficiency 3; the fibre near there is the line of
w alone, dimension 1. (With known variances: deficiency 2 against 1.)

So a PARTIAL claim at a special θ̂ needs a null *field* that is not 0 there and whose flow stays in the domain, or a
curve in the fibre.

Source: Rothenberg 1971 (regular points); Watanabe 2009 (singular models); Teicher 1963 (finite normal mixtures are
identified).
"""

from __future__ import annotations

import sympy

from theory.frame import Checked, tried
from theory.reals import every, proved, reals


def fixed_points_of_symmetries(share: float = 1.0, claim: int = 0) -> Checked:
    """½N(m, 1) + ½N(−m, 1): derivative 0 at m = `claim`, injective for m ≥ 0 by its second moment."""
    m = sympy.symbols("m", real=True)
    x = sympy.symbols("x", real=True)
    density = (sympy.exp(-((x - m) ** 2) / 2) + sympy.exp(-((x + m) ** 2) / 2)) / 2
    a, b = reals("m", 2)
    outcomes = [
        (sympy.simplify(density.diff(m).subs(m, claim)) == 0, "the derivative vanishes"),
        (sympy.simplify(density.subs(m, -m) - density) == 0, "m → −m"),
        (proved([a * a + 1 == b * b + 1, a == 0], b == 0), "the fibre of 0 is {0}"),
        (proved([a**3 == b**3], a == b), "z³ is injective"),
    ]
    return tried("T6", "a fixed point of a symmetry: rank 0, single fibre", "z3", outcomes)


def moving_average(share: float = 1.0, claim: int = 1) -> Checked:
    """MA(1): the determinant vanishes at θ = 1, the other root is (1/θ, σ²θ²), and at θ = `claim` it is the same point."""
    theta = sympy.symbols("theta", real=True)
    s = sympy.symbols("s", positive=True)  # σ²
    kappa = sympy.Matrix([s * (1 + theta**2), s * theta])
    determinant = sympy.factor(kappa.jacobian([theta, s]).det())
    other = kappa.subs({theta: 1 / theta, s: s * theta**2}, simultaneous=True)
    a, b, p, q = reals("e", 4)
    same = [p > 0, q > 0, p * (1 + a * a) == q * (1 + b * b), p * a == q * b]
    outcomes = [
        (sympy.expand(determinant - s * (theta**2 - 1)) == 0, "determinant"),
        (sympy.simplify(other - kappa) == sympy.zeros(2, 1), "the other root"),
        (proved([*same, a == claim], every([b == a, p == q])), "θ = 1: one point"),
        (proved([*same, a != 0], (b == a) | (a * b == 1)), "no third root"),
    ]
    return tried("T6", "MA(1): singular and single at θ = 1, two points elsewhere", "z3", outcomes)


def equal_components(share: float = 1.0, claim: int = 3) -> Checked:
    """Five parameters, rank 2 where the components are equal, a line in the fibre; `claim`: the deficiency."""
    x, w = sympy.symbols("x w", real=True)
    m = sympy.symbols("m1:3", real=True)
    v = sympy.symbols("v1:3", positive=True)
    kernels = [sympy.exp(-((x - a) ** 2) / (2 * b)) / sympy.sqrt(b) for a, b in zip(m, v, strict=True)]
    density = w * kernels[0] + (1 - w) * kernels[1]
    unknowns = (w, *m, *v)
    at = {m[0]: 0, m[1]: 0, v[0]: 1, v[1]: 1, w: sympy.Rational(1, 3)}
    scores = [sympy.simplify(density.diff(u).subs(at) / kernels[0].subs(at)) for u in unknowns]
    # Each score is a polynomial in x: its coefficients span what the data can see.
    span = sympy.Matrix([[sympy.Poly(score, x).coeff_monomial(x**k) for k in range(3)] for score in scores])
    known = sympy.Matrix([list(span.row(i)) for i in range(3)])
    equal = density.subs({m[1]: m[0], v[1]: v[0]})
    # Near by, in moments: mean, variance, third and fourth cumulant of the mixture are those of N(0, 1) only if equal.
    weight, d, e = reals("k", 3)  # m₁ = (1 − w)d, m₂ = −wd; v₁ = c + (1 − w)e, v₂ = c − we
    third = 3 * d * e + (1 - 2 * weight) * d**3
    fourth = 3 * e**2 + 6 * (1 - 2 * weight) * d**2 * e + (1 - 6 * weight * (1 - weight)) * d**4
    inside = [weight > 0, weight < 1]
    outcomes = [
        (len(unknowns) - span.rank() == claim, "deficiency"),
        (3 - known.rank() == claim - 1, "known variances: one less"),
        (sympy.simplify(equal.diff(w)) == 0, "w moves along the fibre"),
        (
            proved([*inside, third == 0, fourth == 0], every([d == 0, e == 0])),
            "equal cumulants, equal components",
        ),
    ]
    return tried("T6", "equal components: deficiency 3, fibre of dimension 1", "symbolic", outcomes)


def cumulants_of_a_mixture(share: float = 1.0, claim: int = 6) -> Checked:
    """The third and fourth cumulant used above, from the generating function; `claim`: the 6 of the middle term."""
    t, w, d, e, c = sympy.symbols("t w d e c", real=True)
    parts = ((w, (1 - w) * d, c + (1 - w) * e), (1 - w, -w * d, c - w * e))
    generating = sympy.log(sum(p * sympy.exp(a * t + b * t**2 / 2) for p, a, b in parts))
    found = {k: sympy.factor(sympy.simplify(generating.diff(t, k).subs(t, 0))) for k in (1, 3, 4)}
    third = w * (1 - w) * (3 * d * e + (1 - 2 * w) * d**3)
    fourth = w * (1 - w) * (3 * e**2 + claim * (1 - 2 * w) * d**2 * e + (1 - 6 * w * (1 - w)) * d**4)
    outcomes = [
        (found[1] == 0, "mean"),
        (sympy.expand(found[3] - third) == 0, "third"),
        (sympy.expand(found[4] - fourth) == 0, "fourth"),
    ]
    return tried("T6", "cumulants of a two-component normal mixture", "symbolic", outcomes)


def fields_put_curves_in_fibres(share: float = 1.0, claim: int = 0) -> Checked:
    """κ = ab: the field a∂_a − b∂_b is null; at (0, 0) it vanishes, and the fibre is a cross; `claim`: a of (a, 1)."""
    a, b, s = sympy.symbols("a b s", real=True)
    kappa = a * b
    field = (a, -b)
    flow = (a * sympy.exp(s), b * sympy.exp(-s))
    outcomes = [
        (sympy.simplify(sum(f * kappa.diff(u) for f, u in zip(field, (a, b), strict=True))) == 0, "null"),
        (sympy.simplify(flow[0] * flow[1] - kappa) == 0, "κ is constant along its flow"),
        (all(f.subs({a: 0, b: 0}) == 0 for f in field), "the field vanishes at (0, 0)"),
        (kappa.subs({a: claim, b: 1}) == 0, "where the fibre holds (0, b) for every b all the same"),
    ]
    return tried("T6", "null fields prove curves; a field that vanishes proves none", "symbolic", outcomes)


CHECKS = (
    fixed_points_of_symmetries,
    moving_average,
    equal_components,
    cumulants_of_a_mixture,
    fields_put_curves_in_fibres,
)

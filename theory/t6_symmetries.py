"""T6, symmetries: flows on (z, θ) that keep the marginal of the data.

Setting. ``p(x, z; θ) > 0`` is C¹ on an open domain of z. A field ``X = ξ_z·∂_z + ξ_θ·∂_θ`` is C¹ in (z, θ); ξ_z may
depend on x.

Theorem. Suppose (a) ``X log p(x, z; θ) + div_z ξ_z = 0``; (b) ξ_θ = ξ_θ(θ) alone; (c) the flux of p ξ_z through the
boundary of the domain of z vanishes; and p and ξ_θ·∂_θ p are dominated locally uniformly in θ. Then the marginal
``p(x; θ)`` is constant along the flow of ξ_θ, for as long as it stays in Θ. Where ξ_θ ≠ 0, θ is not identifiable.

Proof. ``p · X log p = ξ_θ·∂_θ p + ξ_z·∂_z p``; with (a), ``ξ_θ·∂_θ p = −p div_z ξ_z − ξ_z·∂_z p = −div_z(p ξ_z)``.
Integrate over z: by (b) the left side is ``ξ_θ·∂_θ p(x; θ)``, by (c) the right side is 0. So ``d/ds p(x; θ_s) = 0``
along ``dθ_s/ds = ξ_θ(θ_s)``.  ∎

Both (b) and (c) are needed. *(b)* z ~ N(0, 1), x ~ N(θ + z, 1): ``ξ_z = e^{z²/2}``, ``ξ_θ = −e^{z²/2}`` satisfies (a)
with flux → 0, and θ is identified, as x ~ N(θ, 2). *(c)* z ~ N(0, 1), x ~ N(θ, 1) independent, ξ_θ = 1:
``ξ_z = (θ − x) e^{z²/2} ∫_{−∞}^z e^{−s²/2} ds`` satisfies (a), its flux at z = ∞ is not 0, and θ is identified.

Factor analysis. ``z ~ N(0, I), x ~ N(Wz, Ψ)`` is invariant under ``(z, W) → (Rz, WRᵀ)``, R orthogonal; under
``(Az, WA⁻¹)`` the likelihood is, the prior not. For ``ξ_z = Ez``, ``ξ_W = −WE``: the likelihood's part of (a) is 0 for
every E, the prior's is ``−zᵀEz + tr E``, 0 for all z iff E + Eᵀ = 0. So none of the generators E_ij of gl(2) serves,
and their combination E₁₂ − E₂₁ does: solve for combinations.

*Prior-identified.* A likelihood symmetry that only the prior breaks is no symmetry of the marginal (joint or
parameters): W is then identified by the prior's scale. For latents at fixed θ, a flow on z alone that keeps the
likelihood moves along fibres of the law, so by T2 the posterior repeats the prior along its orbits: collapse, whatever
the prior. (A discrete one gives mirror modes: LOCAL.)

Source: Lie's infinitesimal criterion (Olver 1993); the divergence term is Liouville's. The counterexamples are
identkit's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy

from theory.frame import Checked, tried

Z, X, THETA = sympy.symbols("z x theta", real=True)


def condition(log_p: sympy.Expr, xi_z: sympy.Expr, xi_theta: sympy.Expr) -> sympy.Expr:
    """``X log p + div_z ξ_z`` for one latent and one parameter.

    >>> condition(-(X - THETA - Z) ** 2, sympy.Integer(-1), sympy.Integer(1))
    0
    """
    total = xi_z * sympy.diff(log_p, Z) + xi_theta * sympy.diff(log_p, THETA) + sympy.diff(xi_z, Z)
    return sympy.simplify(total)


def marginal_moves_by_a_divergence(share: float = 1.0, claim: int = 1) -> Checked:
    """The step of the proof for any p and ξ: ``ξ_θ ∂_θp + div_z(pξ_z) = p (X log p + div_z ξ_z)``; `claim`: div's weight."""
    p = sympy.Function("p")(Z, THETA)
    xi_z, xi_theta = sympy.Function("xi")(Z, THETA), sympy.Function("eta")(THETA)
    left = xi_theta * p.diff(THETA) + (p * xi_z).diff(Z)
    field = xi_z * sympy.log(p).diff(Z) + xi_theta * sympy.log(p).diff(THETA)
    right = p * (field + claim * xi_z.diff(Z))
    return tried(
        "T6",
        "ξ_θ·∂_θ p + div(p ξ_z) = p (X log p + div ξ_z)",
        "symbolic",
        [(sympy.simplify(left - right) == 0, "any p, any field")],
    )


def rotations_of_factors(share: float = 1.0, claim: int = -1) -> Checked:
    """gl(2) on two factors: which combinations keep the prior; `claim`: the sign in E₁₂ ± E₂₁."""
    z = sympy.Matrix(sympy.symbols("z1:3", real=True))
    w = sympy.Matrix(3, 2, sympy.symbols("w1:7", real=True))
    x = sympy.Matrix(sympy.symbols("x1:4", real=True))
    e = sympy.Matrix(2, 2, sympy.symbols("e1:5", real=True))

    def outcomes() -> Iterator[tuple[bool, str]]:
        residual = x - w * z
        log_likelihood, log_prior = -(residual.T * residual)[0] / 2, -(z.T * z)[0] / 2
        xi_z, xi_w = e * z, -w * e
        along = sum(xi_z[i] * log_likelihood.diff(z[i]) for i in range(2))
        along += sum(xi_w[i] * log_likelihood.diff(w[i]) for i in range(6))
        yield sympy.expand(along) == 0, "the likelihood is kept by all of gl(2)"
        terms = (xi_z[i] * log_prior.diff(z[i]) + xi_z[i].diff(z[i]) for i in range(2))
        change: Any = sum(terms)
        equations = sympy.Poly(sympy.expand(change), *z).coeffs()
        solution = sympy.linsolve(equations, *e)
        yield solution == sympy.FiniteSet((0, -e[2], e[2], 0)), "the prior by antisymmetric E only"
        for i in range(2):
            for j in range(2):
                single = sympy.zeros(2, 2)
                single[i, j] = 1
                yield change.subs(dict(zip(e, single, strict=True))) != 0, f"not by E{i + 1}{j + 1}"
        pair = sympy.Matrix([[0, 1], [claim, 0]])
        yield sympy.expand(change.subs(dict(zip(e, pair, strict=True)))) == 0, "but by E₁₂ − E₂₁"
        t = sympy.symbols("t", real=True)
        turn = sympy.Matrix([[sympy.cos(t), sympy.sin(t)], [-sympy.sin(t), sympy.cos(t)]])
        moved = (w * turn.T) * (w * turn.T).T - w * w.T
        yield sympy.simplify(moved) == sympy.zeros(3, 3), "WWᵀ is constant along its flow"

    return tried("T6", "factor analysis: the prior keeps only rotations", "symbolic", outcomes())


def parameters_may_not_move_with_the_latent(share: float = 1.0, claim: int = -1) -> Checked:
    """Without (b): ξ_θ = −e^{z²/2} satisfies (a) and (c), and θ is identified; `claim`: the sign of ξ_θ."""
    log_p = -(Z**2) / 2 - (X - THETA - Z) ** 2 / 2
    xi_z = sympy.exp(Z**2 / 2)
    flux = sympy.exp(log_p) * xi_z
    # p(x, z) = e^{−(x − θ)²/4} times a Gaussian in z whose integral does not depend on θ.
    marginal, rest = -((X - THETA) ** 2) / 4, -((Z - (X - THETA) / 2) ** 2)
    outcomes = [
        (condition(log_p, xi_z, claim * xi_z) == 0, "(a)"),
        *[(sympy.limit(flux.subs({X: 0, THETA: 0}), Z, side) == 0, "(c)") for side in (sympy.oo, -sympy.oo)],
        (sympy.expand(log_p - marginal - rest) == 0, "x ~ N(θ, 2)"),
    ]
    return tried("T6", "ξ_θ must be a function of θ alone", "symbolic", outcomes)


def flux_must_vanish(share: float = 1.0, claim: int = 1) -> Checked:
    """Without (c): ξ_θ = 1 satisfies (a) and (b), with flux at z = ∞, and θ is identified; `claim` multiplies ξ_z."""
    log_p = -(Z**2) / 2 - (X - THETA) ** 2 / 2
    below = sympy.sqrt(sympy.pi / 2) * (1 + sympy.erf(Z / sympy.sqrt(2)))  # ∫_{−∞}^z e^{−s²/2} ds
    xi_z = claim * (THETA - X) * sympy.exp(Z**2 / 2) * below
    flux = sympy.simplify(sympy.exp(log_p) * xi_z)
    outcomes = [
        (condition(log_p, xi_z, sympy.Integer(1)) == 0, "(a)"),
        (sympy.limit(flux.subs({X: 0, THETA: 1}), Z, -sympy.oo) == 0, "no flux at −∞"),
        (sympy.limit(flux.subs({X: 0, THETA: 1}), Z, sympy.oo) > 0, "flux at ∞"),
        (sympy.simplify(log_p.diff(THETA) - (X - THETA)) == 0, "x ~ N(θ, 1)"),
    ]
    return tried("T6", "the flux p ξ_z must vanish at the boundary", "symbolic", outcomes)


def priors_break_scales(share: float = 1.0, claim: int = 1) -> Checked:
    """z ~ N(0, s²), x ~ N(wz, 1): (z, w) → (cz, w/c) keeps the likelihood; w is identified up to sign when s is fixed."""
    w, c, s = sympy.symbols("w c s", positive=True)
    residual = X - w * Z
    likelihood_moves = sympy.simplify(residual - (X - (w / c) * (c * Z)))
    variance = claim * w**2 * s**2 + 1
    outcomes = [
        (likelihood_moves == 0, "the likelihood is kept"),
        (
            sympy.simplify(variance.subs({w: w / c, s: c * s}, simultaneous=True) - variance) == 0,
            "free s: so is x",
        ),
        (variance.diff(w).is_positive is True, "fixed s: the variance of x determines w > 0"),
    ]
    return tried("T6", "prior-identified: only the prior breaks the scale", "symbolic", outcomes)


CHECKS = (
    marginal_moves_by_a_divergence,
    rotations_of_factors,
    parameters_may_not_move_with_the_latent,
    flux_must_vanish,
    priors_break_scales,
)

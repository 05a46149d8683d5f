"""Structural equations, instruments and errors in variables: parameters behind a covariance matrix."""

from __future__ import annotations

from itertools import combinations_with_replacement

from identkit.zoo.case import Case, levels


def _linear_equations(coefficients: dict[tuple[int, int], str], errors: dict[tuple[int, int], str]) -> str:
    """The covariances of ``x = Λᵀx + e``, ``Σ = (I − Λ)⁻ᵀ Ω (I − Λ)⁻¹``, as summary statements."""
    import sympy

    size = 1 + max(max(pair) for pair in errors)
    path = sympy.Matrix(size, size, lambda i, j: sympy.Symbol(coefficients.get((i, j), "zero")))
    noise = sympy.Matrix(size, size, lambda i, j: sympy.Symbol(errors.get((min(i, j), max(i, j)), "zero")))
    path, noise = path.subs("zero", 0), noise.subs("zero", 0)
    spread = (sympy.eye(size) - path).inv()
    covariance = (spread.T * noise * spread).applyfunc(sympy.factor)
    return "; ".join(f"summary {covariance[i, j]}" for i, j in combinations_with_replacement(range(size), 2))


_BOW = "parameter l; parameter w11 > 0; parameter w22 > 0; parameter w12; "
_INSTRUMENT = """
    parameter g; parameter beta; parameter wz > 0; parameter wx > 0; parameter wy > 0; parameter wxy
    summary wz; summary g*wz; summary beta*g*wz
    summary g^2*wz + wx; summary beta*(g^2*wz + wx) + wxy; summary beta^2*(g^2*wz + wx) + 2*beta*wxy + wy
"""
_CYCLE = "parameter a; parameter b; parameter c; parameter w[3] > 0; "
_ERRORS = """
    parameter mu; parameter alpha; parameter beta; parameter tau > 0; {noise}
    xi ~ Normal(mu, tau)
    observe x ~ Normal(xi, {first})
    observe y ~ Normal(alpha + beta*xi, {second})
"""
_IN_VARIABLES = _ERRORS.format(noise="parameter d > 0; parameter e > 0", first="d", second="e")

CASES = (
    Case(
        name="bow",
        model=_BOW + "summary w11; summary l*w11 + w12; summary l^2*w11 + 2*l*w12 + w22",
        about="parameters",
        source="D1 (4/3/1); Brito & Pearl 2002",
        levels=levels(PARTIAL="l w12 w22", GLOBAL="w11"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="A cause that shares a hidden cause with its effect.",
    ),
    Case(
        name="instrument",
        model=_INSTRUMENT,
        about="parameters",
        source="D2 (6/6/0); Wright 1928; Bowden & Turkington 1984: β = σ_ZY/σ_ZX",
        levels=levels(GLOBAL="g beta wz wx wy wxy"),
        level="GLOBAL",
        deficiency=0,
        note="An instrument untangles the bow.",
    ),
    Case(
        name="instrument-irrelevant",
        model=_INSTRUMENT,
        about="parameters",
        at={"g": 0},
        source="D2 (6/5/1); Bowden & Turkington 1984",
        levels=levels(PARTIAL="beta wy wxy", GLOBAL="g wz wx"),
        level="PARTIAL",
        note="An instrument that moves nothing is none.",
    ),
    Case(
        name="three-cycle",
        model=lambda: (
            _CYCLE
            + _linear_equations(
                {(0, 1): "a", (1, 2): "b", (2, 0): "c"}, {(0, 0): "w[1]", (1, 1): "w[2]", (2, 2): "w[3]"}
            )
        ),
        about="parameters",
        source="D6 (6/6/0, #=2) and I.3; Foygel, Draisma & Drton 2012; by hand: Ω′ = (I − Λ′)ᵀΣ(I − Λ′) is positive again",
        levels=levels(LOCAL="a b c w[1..3]"),
        level="LOCAL",
        deficiency=0,
        note="Two cycles with one covariance matrix.",
    ),
    Case(
        name="errors-in-variables",
        model=_IN_VARIABLES,
        about="parameters",
        source="D11 (6/5/1); Reiersøl 1950",
        levels=levels(PARTIAL="alpha beta tau d e", GLOBAL="mu"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="With normal errors on both axes the slope is lost.",
    ),
    Case(
        name="errors-in-variables-no-slope",
        model=_IN_VARIABLES,
        about="parameters",
        at={"beta": 0},
        source="D11; Reiersøl 1950; by hand: β τ² = 0 gives β = 0",
        levels=levels(PARTIAL="tau d", GLOBAL="mu alpha beta e"),
        level="PARTIAL",
        note="At slope 0 the slope is known; the two variances of x are not.",
    ),
    Case(
        name="deming",
        model=_ERRORS.format(noise="parameter e > 0", first="e", second="e"),
        about="parameters",
        source="D13 (5/5/0, two roots, one admissible) and I.4; Fuller 1987",
        levels=levels(GLOBAL="mu alpha beta tau e"),
        level="GLOBAL",
        deficiency=0,
        note="Of the two algebraic slopes, β and −1/β, the second needs a negative variance.",
    ),
)

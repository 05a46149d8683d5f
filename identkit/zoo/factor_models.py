"""Factor models, independent components, twins: the law of the data is a covariance matrix, or cumulants beyond it."""

from __future__ import annotations

from itertools import combinations_with_replacement

from identkit.zoo.case import Case, levels, names

_FACTORS = (
    Case(
        name="factor-analysis",
        model="parameter W[5, 2]; parameter psi[5] > 0; z[2] ~ Normal(0, 1); observe x[5] ~ Normal(W @ z, psi)",
        about="parameters",
        source="A1 (15/14/1); Anderson & Rubin 1956; Bekker & ten Berge 1997",
        levels=levels(PARTIAL="W[1..5,1..2]", GLOBAL="psi[1..5]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="rotation",
        note="Two factors, five items: loadings up to a rotation, noise for good.",
    ),
    Case(
        name="factor-analysis-ledermann",
        model="parameter W[6, 3]; parameter psi[6] > 0; z[3] ~ Normal(0, 1); observe x[6] ~ Normal(W @ z, psi)",
        about="parameters",
        source="I.3; Wilson & Worcester 1939: at the Ledermann bound the noise has two solutions",
        levels=levels(PARTIAL="W[1..6,1..3]", LOCAL="psi[1..6]"),
        level="PARTIAL",
        deficiency=3,
        symmetry="rotation",
        undecided=names("psi[1..6]"),
        reason="the second solution is a root of a polynomial of high degree in the covariances, so none is shown",
        note="Full rank is not uniqueness.",
    ),
    Case(
        name="one-factor-two-indicators",
        model="parameter lambda[2]; parameter psi[2] > 0; z ~ Normal(0, 1); observe x[2] ~ Normal(lambda*z, psi)",
        about="parameters",
        source="A5 (4/3/1); Bollen 1989",
        levels=levels(PARTIAL="lambda[1..2] psi[1..2]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="Only the product of the loadings is seen; no affine vector field says so.",
    ),
    Case(
        name="one-factor",
        model="parameter lambda[3]; parameter psi[3] > 0; z ~ Normal(0, 1); observe x[3] ~ Normal(lambda*z, psi)",
        about="parameters",
        source="A6 (6/6/0, #=2); Anderson & Rubin 1956",
        levels=levels(LOCAL="lambda[1..3]", GLOBAL="psi[1..3]"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="Three indicators give the loadings up to one sign.",
    ),
    Case(
        name="one-factor-positive",
        model="parameter lambda[3] > 0; parameter psi[3] > 0; z ~ Normal(0, 1); observe x[3] ~ Normal(lambda*z, psi)",
        about="parameters",
        source="A6 and I.4: the domain settles the sign",
        levels=levels(GLOBAL="lambda[1..3] psi[1..3]"),
        level="GLOBAL",
        deficiency=0,
        note="Two algebraic solutions, one inside the domain.",
    ),
    Case(
        name="ppca-parameters",
        model="parameter W[4, 2]; parameter sigma > 0; z[2] ~ Normal(0, 1); observe x[4] ~ Normal(W @ z, sigma)",
        about="parameters",
        source="A10 (9/8/1); Tipping & Bishop 1999",
        levels=levels(PARTIAL="W[1..4,1..2]", GLOBAL="sigma"),
        level="PARTIAL",
        deficiency=1,
        symmetry="rotation",
        note="The noise is the repeated eigenvalue, the loadings turn.",
    ),
    Case(
        name="ppca-three-factors-parameters",
        model="parameter W[4, 3]; parameter sigma > 0; z[3] ~ Normal(0, 1); observe x[4] ~ Normal(W @ z, sigma)",
        about="parameters",
        source="A10 (13/10/3); Tipping & Bishop 1999; by hand: the noise is the least eigenvalue",
        levels=levels(PARTIAL="W[1..4,1..3]", GLOBAL="sigma"),
        level="PARTIAL",
        deficiency=3,
        symmetry="rotation",
        undecided=("sigma",),
        reason="of four real eigenvalues of the covariance one is admissible, the least; that takes an argument about order",
        note="Four algebraic solutions for the noise, of which one leaves a covariance to the factors.",
    ),
)


def _independent_components(kurtoses: int) -> str:
    """Covariances and fourth cumulants of x = B s with unit variances, of which some sources are not Gaussian."""
    places = range(1, 4)
    second = [
        " + ".join(f"B[{i},{k}]*B[{j},{k}]" for k in places)
        for i, j in combinations_with_replacement(places, 2)
    ]
    fourth = [
        " + ".join("*".join([f"c[{k}]", *[f"B[{i},{k}]" for i in chosen]]) for k in range(1, kurtoses + 1))
        for chosen in combinations_with_replacement(places, 4)
    ]
    stated = "; ".join(f"summary {expression}" for expression in [*second, *fourth])
    return f"parameter B[3, 3]; parameter c[{kurtoses}]; {stated}"


_CUMULANTS = (
    Case(
        name="independent-components",
        model=_independent_components(3),
        about="parameters",
        source="A15 (12/12/0); Comon 1994; Eriksson & Koivunen 2004",
        levels=levels(LOCAL="B[1..3,1..3] c[1..3]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Known up to signed permutations of the sources.",
    ),
    Case(
        name="independent-components-one-gaussian",
        model=_independent_components(2),
        about="parameters",
        source="A15 (11/11/0); Comon 1994: one source may be Gaussian",
        levels=levels(LOCAL="B[1..3,1..3] c[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="The Gaussian source is told apart by being the one; its sign is not.",
    ),
    Case(
        name="twins-ace",
        model="""
            parameter A > 0; parameter C > 0; parameter E > 0
            observe mz[2] ~ MvNormal([0, 0], [[A + C + E, A + C], [A + C, A + C + E]])
            observe dz[2] ~ MvNormal([0, 0], [[A + C + E, A/2 + C], [A/2 + C, A + C + E]])
        """,
        about="parameters",
        source="A18 (3/3/0); Neale & Cardon 1992",
        levels=levels(GLOBAL="A C E"),
        level="GLOBAL",
        deficiency=0,
        note="Identical and fraternal twins tell genes from home.",
    ),
    Case(
        name="twins-acde",
        model="""
            parameter A > 0; parameter C > 0; parameter D > 0; parameter E > 0
            observe mz[2] ~ MvNormal([0, 0], [[A + C + D + E, A + C + D], [A + C + D, A + C + D + E]])
            observe dz[2] ~ MvNormal([0, 0], [[A + C + D + E, A/2 + C + D/4], [A/2 + C + D/4, A + C + D + E]])
        """,
        about="parameters",
        source="A18 (4/3/1); Neale & Cardon 1992",
        levels=levels(PARTIAL="A C D", GLOBAL="E"),
        level="PARTIAL",
        deficiency=1,
        symmetry="translation",
        note="Dominance is one variance too many.",
    ),
)

CASES = (*_FACTORS, *_CUMULANTS)

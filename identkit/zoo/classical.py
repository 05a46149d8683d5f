"""The classical models of the paper and their collapsed relatives, as objects with exact posteriors.

Builders import when called, so that reading the table needs no torch.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case

LOADINGS = ((-2.0, 3.5), (1.0, -0.75), (-2.0, -0.75), (-2.0, -0.5), (-1.25, -0.25))
"""Loadings close to those of the paper's two-factor data; the first column alone is its one-factor design."""
_AXES = ((3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0))
_COVARIANCE = ((1.0, 0.3), (0.3, 2.0))

_PAPER = "Wang, Blei & Cunningham 2021"


def _mixture_weight(first: float, second: float) -> Any:
    from identkit.classical.mixture_weight import MixtureWeight

    return MixtureWeight([(first, 1), (second, 1)])


def _gaussian_mixture(weights: Any, means: Any, covariances: Any) -> Any:
    from identkit.classical.gaussian_mixture import GaussianMixture

    return GaussianMixture(weights, means, covariances)


def _ppca(loadings: Any, sigma: float) -> Any:
    from identkit.classical.linear_gaussian import PPCA

    return PPCA(loadings, sigma)


def _ppca_between_eigenvalues() -> Any:
    from identkit.classical.linear_gaussian import PPCA

    return PPCA.fit(_AXES, 2, sigma=1.0)


CASES = (
    Case(
        name="mixture-weight-single",
        model=lambda: _mixture_weight(-1, -1),
        source=f"{_PAPER}, section 2 and figure 1; B2 with the weight as latent",
        levels={"alpha": "CONSTANT"},
        level="CONSTANT",
        note="Two components with one law: α drops out of α f + (1 − α) f, so Beta(5, 5) comes back.",
    ),
    Case(
        name="mixture-weight-overlap",
        model=lambda: _mixture_weight(-0.5, 0.5),
        source=f"{_PAPER}, figure 1; Teicher 1963: two distinct normal laws are linearly independent",
        levels={"alpha": "GLOBAL"},
        level="GLOBAL",
        note="Overlap weakens what the data say of α, but it hides nothing.",
    ),
    Case(
        name="mixture-weight-separated",
        model=lambda: _mixture_weight(-10, 10),
        source=f"{_PAPER}, figure 1; Teicher 1963",
        levels={"alpha": "GLOBAL"},
        level="GLOBAL",
        note="Components that never overlap: the posterior is all but Beta(5 + n₁, 5 + n₂).",
    ),
    Case(
        name="gmm-equal",
        model=lambda: _gaussian_mixture([0.5, 0.3, 0.2], [[0.0, 1.0]] * 3, [_COVARIANCE] * 3),
        source=f"B2; {_PAPER}; Rotnitzky et al. 2000",
        levels={"k": "CONSTANT"},
        level="CONSTANT",
        note="Equal components: responsibilities are the weights, for every datum.",
    ),
    Case(
        name="gmm-nearly-equal",
        model=lambda: _gaussian_mixture(
            [0.5, 0.3, 0.2], [[0.0, 1.0], [0.001, 1.0], [0.0, 1.001]], [_COVARIANCE] * 3
        ),
        source="by hand: three normal laws with three different means",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="Weak is not structural: the components differ, and the KL is small but never 0.",
    ),
    Case(
        name="gmm-distinct",
        model=lambda: _gaussian_mixture(
            [0.5, 0.3, 0.2],
            [[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]],
            [_COVARIANCE, [[1, 0], [0, 1]], [[2, 0], [0, 1]]],
        ),
        source="by hand: three normal laws with three different means",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="The healthy mixture.",
    ),
    Case(
        name="gmm-two-of-three-equal",
        model=lambda: _gaussian_mixture(
            [0.5, 0.3, 0.2], [[0.0, 1.0], [0.0, 1.0], [4.0, 1.0]], [_COVARIANCE] * 3
        ),
        source="H17; by hand: states 1 and 2 have one law, state 3 another",
        levels={"k": "PARTIAL"},
        level="PARTIAL",
        note="Merged states: the data tell {1, 2} from 3; within {1, 2} the prior's odds remain.",
    ),
    Case(
        name="gmm-crossed",
        model=lambda: _gaussian_mixture([0.5, 0.5], [[0.0, 0.0]] * 2, [[[1, 0], [0, 4]], [[4, 0], [0, 1]]]),
        source="by hand: two covariances differ, so the two laws do",
        levels={"k": "GLOBAL"},
        level="GLOBAL",
        note="The model of gmm-crossed-datum: GLOBAL as a model.",
    ),
    Case(
        name="gmm-crossed-datum",
        model=lambda: _gaussian_mixture([0.5, 0.5], [[0.0, 0.0]] * 2, [[[1, 0], [0, 4]], [[4, 0], [0, 1]]]),
        source="B3' in two dimensions; by hand: equal determinants, and 1 + 1/4 = 1/4 + 1",
        levels={"k": "CONSTANT"},
        level="CONSTANT",
        data={"x[1]": 1, "x[2]": 1},
        note="Data level is not model level: at (1, 1) the densities agree, and the posterior is the prior.",
    ),
    Case(
        name="ppca",
        model=lambda: _ppca(LOADINGS, 1.0),
        source="H1; Tipping & Bishop 1999; by hand: the two columns are not proportional",
        levels={"z[1]": "GLOBAL", "z[2]": "GLOBAL"},
        level="GLOBAL",
        note="Two factors seen in five observations.",
    ),
    Case(
        name="ppca-zero-column",
        model=lambda: _ppca([(row[0], 0.0) for row in LOADINGS], 1.0),
        source=f"A12; {_PAPER}; Lucas et al. 2019",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        note="A latent without loadings: its posterior is N(0, 1), the other's is not.",
    ),
    Case(
        name="ppca-duplicate-columns",
        model=lambda: _ppca([(row[0], row[0]) for row in LOADINGS], 1.0),
        source="A14 and theory/T3; by hand: the kernel of the loadings is spanned by (1, −1)",
        levels={"z[1]": "PARTIAL", "z[2]": "PARTIAL"},
        level="PARTIAL",
        note="A direction collapses, z[1] − z[2], while no coordinate does.",
    ),
    Case(
        name="ppca-between-eigenvalues",
        model=_ppca_between_eigenvalues,
        source="A13; Tipping & Bishop 1999; Lucas et al. 2019; by hand: eigenvalues 9/2, 1/2, 0 and σ² = 1",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        note="Maximum likelihood itself collapses a latent: an eigenvalue ≤ σ² gets loadings of exactly 0.",
    ),
)

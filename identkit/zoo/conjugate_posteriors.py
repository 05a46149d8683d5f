"""Conjugate pairs, factor models and the eight schools as objects with exact posteriors, on both sides of the line.

Builders import when called, so that reading the table needs no torch.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case


def _beta_binomial(trials: int) -> Any:
    from identkit.classical.conjugate import BetaBinomial

    return BetaBinomial(trials, 2.0, 3.0)


def _dirichlet_multinomial(trials: int) -> Any:
    from identkit.classical.conjugate import DirichletMultinomial

    return DirichletMultinomial(trials, [0.5, 1.0, 2.0])


def _gamma_poisson(exposure: float) -> Any:
    from identkit.classical.conjugate import GammaPoisson

    return GammaPoisson(2.0, 1.5, exposure)


def _gamma_exponential() -> Any:
    from identkit.classical.conjugate import GammaExponential

    return GammaExponential(3.0, 2.0)


def _normal_normal(gain: float) -> Any:
    from identkit.classical.conjugate import NormalNormal

    return NormalNormal(1.0, 2.0, 0.5, gain)


def _normal_inverse_gamma(gain: float) -> Any:
    from identkit.classical.conjugate import NormalInverseGamma

    return NormalInverseGamma(1.0, 2.0, 3.0, 2.0, gain)


def _factor_analysis(second: tuple[float, float, float]) -> Any:
    from identkit.classical.linear_gaussian import FactorAnalysis

    first = (1.0, 0.5, -0.7)
    return FactorAnalysis(list(zip(first, second, strict=True)), [1.0, 0.5, 2.0], [0.0, 1.0, 2.0])


def _regression(second: tuple[float, float, float], tied: float) -> Any:
    from identkit.classical.linear_gaussian import BayesianLinearRegression

    return BayesianLinearRegression(
        list(zip((1.0, 1.0, 1.0), second, strict=True)), 0.0, [[1.0, tied], [tied, 1.0]], 0.5
    )


def _hierarchical_normal() -> Any:
    from identkit.classical.hierarchical_normal import HierarchicalNormal

    return HierarchicalNormal([10.0], 0.0, 5.0, 7.0)


CASES = (
    Case(
        name="dirichlet-multinomial-nine-trials",
        model=lambda: _dirichlet_multinomial(9),
        source="by hand: the means n p of a multinomial law are injective in p for n > 0",
        levels={"p[1]": "GLOBAL", "p[2]": "GLOBAL", "p[3]": "GLOBAL"},
        level="GLOBAL",
        note="Nine trials over three categories: the posterior is Dirichlet(a + x).",
    ),
    Case(
        name="dirichlet-multinomial-no-trials",
        model=lambda: _dirichlet_multinomial(0),
        source="by hand: with no trials the law is a point mass at zero, whatever p",
        levels={"p[1]": "CONSTANT", "p[2]": "CONSTANT", "p[3]": "CONSTANT"},
        level="CONSTANT",
        note="No trials: the posterior is the prior.",
    ),
    Case(
        name="beta-binomial-five-trials",
        model=lambda: _beta_binomial(5),
        source="by hand: the mean n p of a binomial law is injective in p for n > 0",
        levels={"p": "GLOBAL"},
        level="GLOBAL",
        note="Five trials, one probability: the posterior is Beta(2 + x, 8 − x).",
    ),
    Case(
        name="beta-binomial-no-trials",
        model=lambda: _beta_binomial(0),
        source="by hand: Binomial(0, p) is the point mass at 0, whatever p",
        levels={"p": "CONSTANT"},
        level="CONSTANT",
        note="No trial, no information: Beta(2, 3) comes back exactly.",
    ),
    Case(
        name="gamma-poisson",
        model=lambda: _gamma_poisson(3.0),
        source="by hand: the mean E λ of a Poisson law is injective in λ for E > 0",
        levels={"lambda": "GLOBAL"},
        level="GLOBAL",
        note="Counts and their rate: marginally negative binomial.",
    ),
    Case(
        name="gamma-poisson-no-exposure",
        model=lambda: _gamma_poisson(0.0),
        source="by hand: Poisson(0 · λ) is the point mass at 0, whatever λ",
        levels={"lambda": "CONSTANT"},
        level="CONSTANT",
        note="Nobody watched: no event says nothing of the rate.",
    ),
    Case(
        name="gamma-exponential",
        model=_gamma_exponential,
        source="by hand: the mean 1/λ of an exponential law is injective in λ",
        levels={"lambda": "GLOBAL"},
        level="GLOBAL",
        note="One waiting time always informs: I = ψ(a + 1) − log a > 0 whatever the prior's rate.",
    ),
    Case(
        name="normal-normal",
        model=lambda: _normal_normal(1.0),
        source="by hand: the mean of a normal law is injective in θ",
        levels={"theta": "GLOBAL"},
        level="GLOBAL",
        note="The textbook measurement.",
    ),
    Case(
        name="normal-normal-no-gain",
        model=lambda: _normal_normal(0.0),
        source="by hand: N(0 · θ, σ²) is one law, whatever θ",
        levels={"theta": "CONSTANT"},
        level="CONSTANT",
        note="An instrument that is not connected shows noise.",
    ),
    Case(
        name="normal-inverse-gamma",
        model=lambda: _normal_inverse_gamma(1.0),
        source="by hand: mean and variance of a normal law are injective in (m, v)",
        levels={"variance": "GLOBAL", "mean": "GLOBAL"},
        level="GLOBAL",
        note="Mean and variance both latent.",
    ),
    Case(
        name="normal-inverse-gamma-no-gain",
        model=lambda: _normal_inverse_gamma(0.0),
        source="theory/T3; by hand: N(0 · m, v) is injective in v and constant in m",
        levels={"variance": "GLOBAL", "mean": "CONSTANT"},
        level="PARTIAL",
        note="The likelihood ignores m given v; m's marginal moves all the same, since its prior depends on v.",
    ),
    Case(
        name="factor-analysis-two-latents",
        model=lambda: _factor_analysis((0.3, -1.0, 0.4)),
        source="A14; by hand: the two columns of loadings are not proportional",
        levels={"z[1]": "GLOBAL", "z[2]": "GLOBAL"},
        level="GLOBAL",
        note="Two factors, each coordinate with noise of its own.",
    ),
    Case(
        name="factor-analysis-zero-column",
        model=lambda: _factor_analysis((0.0, 0.0, 0.0)),
        source="A12; A14; by hand: a column of zeros drops out of W z",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        note="A factor without loadings keeps its prior.",
    ),
    Case(
        name="factor-analysis-proportional-columns",
        model=lambda: _factor_analysis((2.0, 1.0, -1.4)),
        source="A14; by hand: the kernel of the loadings is spanned by (2, −1)",
        levels={"z[1]": "PARTIAL", "z[2]": "PARTIAL"},
        level="PARTIAL",
        note="One direction collapses, 2 z[1] − z[2], and no coordinate does.",
    ),
    Case(
        name="bayesian-regression",
        model=lambda: _regression((0.0, 1.0, 2.0), 0.4),
        source="by hand: the design has full column rank",
        levels={"z[1]": "GLOBAL", "z[2]": "GLOBAL"},
        level="GLOBAL",
        note="Intercept and slope, correlated a priori.",
    ),
    Case(
        name="bayesian-regression-no-contrast",
        model=lambda: _regression((0.0, 0.0, 0.0), 0.4),
        source="theory/T3; by hand: a covariate that is always 0 drops out of X z",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        note="The slope's marginal moves with the intercept, to which its prior ties it; given that it stays.",
    ),
    Case(
        name="hierarchical-normal",
        model=_hierarchical_normal,
        source="theory/T3; Rubin 1981; by hand: y depends on μ through θ alone",
        levels={"mu": "CONSTANT", "theta[1]": "GLOBAL"},
        level="PARTIAL",
        note="A hyperparameter is never seen given its θ, and learns only what θ passes on.",
    ),
)

"""The conjugate pairs and the hierarchical normal model for the laws that every exact model obeys."""

from __future__ import annotations

import torch
from torch.distributions import Gamma, Uniform

from identkit.classical.conjugate import (
    BetaBinomial,
    DirichletMultinomial,
    GammaExponential,
    GammaPoisson,
    NormalInverseGamma,
    NormalNormal,
)
from identkit.classical.hierarchical_normal import HierarchicalNormal
from tests.exact_example import Example

COUNTS = torch.tensor([[0.0], [3.0], [5.0]], dtype=torch.float64)
REALS = torch.tensor([[0.3], [-1.7], [4.0]], dtype=torch.float64)
TIMES = torch.tensor([[0.2], [1.5], [0.0]], dtype=torch.float64)
TABLE = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 2.0]], dtype=torch.float64)
GROUPS = torch.tensor([[28.0, 8.0, -3.0], [1.0, 0.0, 2.0]], dtype=torch.float64)

_counts = (
    (lambda: BetaBinomial(2.5), "trials should be a whole number"),
    (lambda: BetaBinomial(3, -1.0), "a should be positive"),
    (lambda: BetaBinomial(3, 1.0, 0.0), "b should be positive"),
)
_table = (
    (lambda: DirichletMultinomial(4, [1.0]), "concentrations should be at least two"),
    (lambda: DirichletMultinomial(4, [1.0, 0.0]), "concentrations should be positive"),
    (lambda: DirichletMultinomial(-1, [1.0, 1.0]), "trials should be a whole number"),
)
_rates = (
    (lambda: GammaPoisson(0.0, 1.0), "shape should be positive"),
    (lambda: GammaPoisson(1.0, float("nan")), "rate should be finite"),
    (lambda: GammaPoisson(1.0, 1.0, -1.0), "exposure should be at least 0"),
)
_times = (
    (lambda: GammaExponential(0.0, 1.0), "shape should be positive"),
    (lambda: GammaExponential(1.0, -1.0), "rate should be positive"),
    (lambda: GammaExponential([1.0, 2.0], 1.0), "shape should have shape"),
)
_normal = (
    (lambda: NormalNormal(0.0, 0.0, 1.0), "sd should be positive"),
    (lambda: NormalNormal(0.0, 1.0, -1.0), "sigma should be positive"),
    (lambda: NormalNormal(float("inf"), 1.0, 1.0), "mean should be finite"),
)
_pair = (
    (lambda: NormalInverseGamma(0.0, 0.0, 1.0, 1.0), "kappa should be positive"),
    (lambda: NormalInverseGamma(0.0, 1.0, -1.0, 1.0), "shape should be positive"),
    (lambda: NormalInverseGamma(0.0, 1.0, 1.0, 0.0), "rate should be positive"),
)
_groups = (
    (lambda: HierarchicalNormal([1.0, -1.0]), "scales should be positive"),
    (lambda: HierarchicalNormal([1.0], 0.0, -1.0), "mean_sd should be at least 0"),
    (lambda: HierarchicalNormal([1.0], 0.0, 1.0, 0.0), "tau should be positive"),
)

EXAMPLES: dict[str, Example] = {
    "beta-binomial": Example(
        model=BetaBinomial(5, 2.0, 1.5),
        x=COUNTS,
        silent=BetaBinomial(0, 2.0, 1.5),
        silent_x=0 * COUNTS,
        abuses=_counts,
    ),
    "beta-binomial pooled": Example(model=BetaBinomial(5, 2.0, 1.5, pooled=True), x=COUNTS),
    "dirichlet-multinomial": Example(
        model=DirichletMultinomial(4, [0.5, 1.0, 2.0]),
        x=TABLE,
        silent=DirichletMultinomial(0, [0.5, 1.0, 2.0]),
        silent_x=0 * TABLE,
        abuses=_table,
    ),
    "gamma-poisson": Example(
        model=GammaPoisson(2.0, 1.5, 2.0),
        x=COUNTS,
        silent=GammaPoisson(2.0, 1.5, 0.0),
        silent_x=0 * COUNTS,
        abuses=_rates,
    ),
    "gamma-poisson pooled": Example(model=GammaPoisson(2.0, 1.5, 2.0, pooled=True), x=COUNTS),
    "gamma-exponential": Example(model=GammaExponential(3.0, 2.0), x=TIMES, abuses=_times),
    "gamma-exponential pooled": Example(model=GammaExponential(3.0, 2.0, pooled=True), x=TIMES),
    "normal-normal": Example(
        model=NormalNormal(1.0, 2.0, 0.5, 0.7),
        x=REALS,
        silent=NormalNormal(1.0, 2.0, 0.5, 0.0),
        abuses=_normal,
    ),
    "normal-normal pooled": Example(model=NormalNormal(1.0, 2.0, 0.5, pooled=True), x=REALS),
    "normal-inverse-gamma": Example(model=NormalInverseGamma(1.0, 2.0, 3.0, 2.0, 1.3), x=REALS, abuses=_pair),
    "normal-inverse-gamma pooled": Example(
        model=NormalInverseGamma(1.0, 2.0, 3.0, 2.0, pooled=True), x=REALS
    ),
    "hierarchical normal": Example(
        model=HierarchicalNormal([15.0, 10.0, 16.0], 1.0, 5.0, 7.0), x=GROUPS, abuses=_groups
    ),
    "hierarchical normal, latent spread": Example(
        model=HierarchicalNormal([15.0, 10.0, 16.0], 1.0, 5.0, Uniform(0.0, 30.0)), x=GROUPS
    ),
    "hierarchical normal, gamma spread": Example(
        model=HierarchicalNormal([15.0, 10.0, 16.0], 1.0, 0.0, Gamma(2.0, 0.25)), x=GROUPS
    ),
}

"""The linear-Gaussian models for the laws that every exact model obeys."""

from __future__ import annotations

import torch

from identkit.classical.linear_gaussian import PPCA, BayesianLinearRegression, FactorAnalysis
from tests.exact_example import Example

LOADINGS = ((1.0, 0.3), (-0.5, 1.0), (0.25, 0.75))
X = torch.tensor([[0.4, -1.2, 0.3], [5.0, 2.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
ZEROS = ((0.0, 0.0),) * 3

EXAMPLES: dict[str, Example] = {
    "ppca": Example(
        model=PPCA(LOADINGS, 0.7, [0.1, 0.2, 0.3]),
        x=X,
        silent=PPCA(ZEROS, 0.7, [0.1, 0.2, 0.3]),
        abuses=(
            (lambda: PPCA(LOADINGS, 0.0), "sigma should be positive"),
            (lambda: PPCA([1.0, 2.0], 1.0), "loadings should have shape"),
            (lambda: PPCA([[float("nan")]], 1.0), "loadings should be finite"),
        ),
    ),
    "factor analysis": Example(
        model=FactorAnalysis(LOADINGS, [0.7, 1.0, 0.2], [0.1, 0.2, 0.3]),
        x=X,
        silent=FactorAnalysis(ZEROS, [0.7, 1.0, 0.2], [0.1, 0.2, 0.3]),
        abuses=(
            (lambda: FactorAnalysis(LOADINGS, [1.0, 1.0, -1.0]), "scales should be positive"),
            (lambda: FactorAnalysis(LOADINGS, [1.0, 1.0]), "scales should have shape"),
            (lambda: FactorAnalysis(LOADINGS, 1.0, [0.0]), "mean should have shape"),
        ),
    ),
    "bayesian regression": Example(
        model=BayesianLinearRegression(LOADINGS, [0.5, -0.5], [[1.0, 0.3], [0.3, 2.0]], 0.7),
        x=X,
        silent=BayesianLinearRegression(ZEROS, [0.5, -0.5], [[1.0, 0.3], [0.3, 2.0]], 0.7),
        abuses=(
            (lambda: BayesianLinearRegression(LOADINGS, 0.0, [[1.0, 1.0], [1.0, 1.0]]), "positive definite"),
            (lambda: BayesianLinearRegression(LOADINGS, 0.0, [[1.0, 0.5], [0.2, 1.0]]), "symmetric"),
            (lambda: BayesianLinearRegression(LOADINGS, 0.0, 1.0, -1.0), "sigma should be positive"),
        ),
    ),
}

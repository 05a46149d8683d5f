"""Linear-Gaussian latents: principal components, factors, regression."""

from __future__ import annotations

from identkit.classical.linear_gaussian.factor_analysis import FactorAnalysis
from identkit.classical.linear_gaussian.model import LinearGaussian
from identkit.classical.linear_gaussian.ppca import PPCA, sample_eigenvalues
from identkit.classical.linear_gaussian.regression import BayesianLinearRegression

__all__ = ["PPCA", "BayesianLinearRegression", "FactorAnalysis", "LinearGaussian", "sample_eigenvalues"]

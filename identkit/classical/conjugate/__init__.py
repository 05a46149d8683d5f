"""Conjugate pairs, whose posteriors are of their priors' family."""

from __future__ import annotations

from identkit.classical.conjugate.counts import BetaBinomial, DirichletMultinomial
from identkit.classical.conjugate.normal import NormalNormal
from identkit.classical.conjugate.normal_inverse_gamma import NormalInverseGamma
from identkit.classical.conjugate.rates import GammaExponential, GammaPoisson

__all__ = [
    "BetaBinomial",
    "DirichletMultinomial",
    "GammaExponential",
    "GammaPoisson",
    "NormalInverseGamma",
    "NormalNormal",
]

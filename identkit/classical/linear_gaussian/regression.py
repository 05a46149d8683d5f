"""Bayesian linear regression: the coefficients are the latents, the whole response is one datum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import positive, real, rows, shaped
from identkit.classical.conjugate.empirical_bayes import climb
from identkit.classical.em import Convergence
from identkit.classical.linear_gaussian.model import LinearGaussian, symbolic_rows
from identkit.model import families
from identkit.model.model import Model

_EPS = torch.finfo(torch.float64).eps
_SYMMETRY_TOLERANCE = 1e-12


@dataclass(frozen=True, eq=False, init=False, repr=False)
class BayesianLinearRegression(LinearGaussian):
    """Linear regression with known noise and a normal prior on its K coefficients, which all responses share.

    ``y = X z + σ ε``, ``z ~ N(z_0, C_0)``, ``ε ~ N(0, I_N)``: the posterior is ``N(m, S)`` with
    ``S = (C_0⁻¹ + XᵀX/σ²)⁻¹`` and ``m = S (C_0⁻¹z_0 + Xᵀy/σ²)``. What the design cannot see — a column of
    zeros, a difference of equal columns — keeps its prior.

    One row of x is one *whole* response of N numbers, so that several responses to one design are rows; a
    single response may also come as a vector or a column of N numbers.

    Source: Bishop 2006, section 3.3; `theory/T3`.

    Args:
        design: X, shape (N, K).
        prior_mean: z_0, shape (K,), or one number for all.
        prior_covariance: C_0, shape (K, K), positive definite, or one positive number for a multiple of I.
        sigma: σ > 0, the noise's standard deviation.

    Raises:
        ValueError, TypeError: a wrong shape, NaN, a covariance that is asymmetric or singular, a scale that is
            not positive.

    >>> model = BayesianLinearRegression([[1.0, 0.0], [1.0, 0.0]], 0.0, 2.0, 1.0)
    >>> posterior = model.posterior([1.0, 2.0])
    >>> posterior.mean, posterior.variance
    (tensor([[1.2000, 0.0000]], dtype=torch.float64), tensor([[0.4000, 2.0000]], dtype=torch.float64))
    >>> model.kl_conditional([1.0, 2.0])[0, 1].item()
    0.0
    """

    design: Float[Tensor, "n k"]
    prior_mean: Float[Tensor, " k"]
    prior_covariance: Float[Tensor, "k k"]
    sigma: float
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(
        self, design: Any, prior_mean: Any = 0.0, prior_covariance: Any = 1.0, sigma: Any = 1.0
    ) -> None:
        design = shaped(design, "design", None, None)
        k = design.shape[1]
        prior_mean = real(prior_mean, "prior_mean").to(design.device)
        if prior_mean.ndim == 0:
            prior_mean = prior_mean.expand(k).clone()
        covariance = real(prior_covariance, "prior_covariance").to(design.device)
        if covariance.ndim == 0:
            covariance = positive(covariance, "prior_covariance") * torch.eye(k).to(design)
        covariance = shaped(covariance, "prior_covariance", k, k)
        _refuse_covariance(covariance)
        object.__setattr__(self, "design", design)
        object.__setattr__(self, "prior_mean", shaped(prior_mean, "prior_mean", k))
        object.__setattr__(self, "prior_covariance", (covariance + covariance.T) / 2)
        object.__setattr__(self, "sigma", positive(sigma, "sigma"))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any, design: Any) -> BayesianLinearRegression:
        """Fit the prior's one variance and the noise by maximum evidence (empirical Bayes), prior mean 0.

        ``log p(y | α, σ) = log N(y; 0, α XXᵀ + σ²I)`` in the singular values of X, climbed in log α and log σ².
        Where the evidence rises for ever towards α = 0 (or σ = 0) it warns: then the data speak for no coefficient at all.

        Source: MacKay 1992, Neural Computation 4:415; Bishop 2006, section 3.5.

        Args:
            x: the responses (n, N), or one response of N numbers.
            design: X, shape (N, K).

        Raises:
            ValueError: a wrong shape, or a design of zeros.

        >>> model = BayesianLinearRegression.fit([1.1, 1.9, 3.2, 3.9], [[1.0], [2.0], [3.0], [4.0]])
        >>> model.convergence.converged, round(model.sigma, 2)
        (True, 0.15)
        """
        design = shaped(design, "design", None, None)
        y = _responses(x, len(design), design.device).to(torch.float64)
        left, values, _ = torch.linalg.svd(design, full_matrices=False)
        kept = values > _EPS * max(design.shape) * values[0]
        if not bool(kept.any()):
            raise ValueError("design should have an entry that is not 0, got zeros alone")
        left, values = left[:, kept], values[kept]
        along = (y @ left).square().sum(0)
        outside = (y - y @ left @ left.T).square().sum()
        n, spare = len(y), len(y) * (len(design) - len(values))

        def height(parameters: Tensor) -> Tensor:
            alpha, noise = parameters.exp()
            spread = alpha * values.square() + noise
            quadratic = (along / spread).sum() + outside / noise
            log_det = n * spread.log().sum() + spare * parameters[1]
            return -(quadratic + log_det + y.numel() * math.log(2 * math.pi)) / 2

        total = y.square().mean().clamp(min=1e-300)
        noise = outside / spare if spare and outside > 0 else total
        # Never from 0, where the slope in log α is 0 as well.
        alpha = (along.sum() / n + noise) / values.square().sum()
        start = torch.stack([alpha, noise]).log()
        best, convergence = climb(height, start, ("the prior's variance", "the noise's variance"))
        variance, noise = best.exp().tolist()
        fitted = cls(design, 0.0, variance, math.sqrt(noise))
        object.__setattr__(fitted, "convergence", convergence)
        return fitted

    @property
    def _loadings(self) -> Tensor:
        return self.design

    @property
    def _noise(self) -> Tensor:
        return self.design.new_full((len(self.design),), self.sigma)

    @cached_property
    def _centre(self) -> Tensor:  # type: ignore[override]
        return self.design @ self.prior_mean

    @property
    def _prior_mean(self) -> Tensor:
        return self.prior_mean

    @cached_property
    def _prior_root(self) -> Tensor:  # type: ignore[override]
        return torch.linalg.cholesky(self.prior_covariance)

    def _rows(self, x: Any) -> Tensor:
        return _responses(x, len(self.design), self.design.device)

    def symbolic(self) -> Model:
        """Give the model in SymPy, one observation a row of the design, all numbers as exact rationals.

        Correlated coefficients are declared one after the other, each given those before it:
        ``C_0 = (I − T)⁻¹ D (I − T)⁻ᵀ``.
        """
        model = Model("Bayesian linear regression")
        k = self.design.shape[1]
        covariance = sympy.Matrix(k, k, [families.exact(v) for v in self.prior_covariance.flatten().tolist()])
        start = [families.exact(v) for v in self.prior_mean.tolist()]
        z: list[Any] = []
        for j in range(k):
            slopes = covariance[:j, :j].LUsolve(covariance[:j, j]) if j else sympy.zeros(0, 1)
            mean = start[j] + sum(slopes[i] * (z[i] - start[i]) for i in range(j))
            left = covariance[j, j] - sum(slopes[i] * covariance[i, j] for i in range(j))
            z.append(model.latent(f"z[{j + 1}]", families.Normal(mean, sympy.sqrt(left))))
        return symbolic_rows(model, z, self.design, torch.zeros_like(self._noise), self._noise)


def _responses(x: Any, n: int, device: torch.device) -> Tensor:
    tensor = real(x, "x", single=True)
    if not isinstance(x, Tensor):
        tensor = tensor.to(device)
    if n > 1 and tuple(tensor.shape) in ((n,), (n, 1)):
        tensor = tensor.reshape(1, n)
    return rows(tensor, n)


def _refuse_covariance(covariance: Tensor) -> None:
    variance = covariance.diagonal()
    if not bool((variance > 0).all()):
        raise ValueError(
            f"prior_covariance should have a positive diagonal, got {variance.min().item()} on it"
        )
    scale = variance.sqrt()
    correlation = covariance / (scale[:, None] * scale)
    if bool(((correlation - correlation.T).abs() > _SYMMETRY_TOLERANCE).any()):
        raise ValueError(f"prior_covariance should be symmetric, got {covariance.tolist()!s:.200}")
    least = torch.linalg.eigvalsh(correlation)[0].item()
    if least <= len(covariance) * _EPS:
        raise ValueError(
            f"prior_covariance should be positive definite, got {covariance.tolist()!s:.200}, "
            f"whose correlation matrix has the eigenvalue {least:.3g}"
        )

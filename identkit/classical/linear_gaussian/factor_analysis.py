"""Factor analysis: linear-Gaussian latents under noise of its own size in each coordinate."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from identkit.classical.arrays import real, refuse_overflow, refuse_still, shaped
from identkit.classical.em import Convergence, ConvergenceWarning
from identkit.classical.linear_gaussian.model import LinearGaussian, symbolic_rows
from identkit.classical.linear_gaussian.ppca import attributes, mean_of, signed
from identkit.model import families
from identkit.model.compiled.data import whole
from identkit.model.model import Model

_FLOOR = 1e-6
"""The least share of a coordinate's variance that a fit leaves to noise (Heywood cases run to zero)."""
_BLOCK = 8192


@dataclass(frozen=True, eq=False, init=False, repr=False)
class FactorAnalysis(LinearGaussian):
    """Factor analysis, whose K factors explain how D coordinates vary together.

    ``x = W z + μ + diag(ψ) ε``, ``z ~ N(0, I_K)``, ``ε ~ N(0, I_D)``. With ``B = diag(1/ψ) W`` and
    ``r = (x − μ)/ψ`` the posterior is ``N(S Bᵀ r, S)``, ``S = (I + BᵀB)⁻¹``. A direction in the kernel of W
    collapses; a factor is never brought back to life by quieter noise elsewhere.

    Source: Anderson & Rubin 1956; Bishop 2006, section 12.2.4; `theory/T4`.

    Args:
        loadings: W, shape (D, K).
        scales: ψ > 0, the noise's standard deviations, shape (D,), or one number for all.
        mean: μ, shape (D,), or one number for all.

    Raises:
        ValueError, TypeError: a wrong shape, NaN, a scale that is not positive.

    >>> model = FactorAnalysis([[1.0, 0.0], [2.0, 0.0]], [1.0, 0.5])
    >>> model.posterior([[1.0, 1.0]]).mean
    tensor([[0.5000, 0.0000]], dtype=torch.float64)
    >>> model.directions().collapsed, round(model.mutual_information().value, 4)
    (1, 1.4452)
    """

    loadings: Float[Tensor, "d k"]
    scales: Float[Tensor, " d"]
    mean: Float[Tensor, " d"]
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, loadings: Any, scales: Any, mean: Any = 0.0) -> None:
        loadings = shaped(loadings, "loadings", None, None)
        scales = real(scales, "scales").to(loadings.device)
        if scales.ndim == 0:
            scales = scales.expand(len(loadings)).clone()
        scales = shaped(scales, "scales", len(loadings))
        if not bool((scales > 0).all()):
            raise ValueError(f"scales should be positive, got {scales.min().item()}")
        object.__setattr__(self, "loadings", loadings)
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "mean", mean_of(mean, loadings))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(
        cls,
        x: Any,
        latent_dim: int,
        *,
        starts: int = 1,
        seed: int = 0,
        tolerance: float = 1e-9,
        iterations: int = 1000,
    ) -> FactorAnalysis:
        """Fit by maximum likelihood: the best loadings are known given the noise, so only the noise is climbed.

        With eigenpairs (λ_j, u_j) of ``Ψ^−½ C Ψ^−½``, C the sample covariance, the best W is
        ``Ψ^½ U_K (Λ_K − I)₊^½``; what is left is a smooth function of log Ψ with the slope
        ``½ Σ_{j>K} (λ_j − 1) u_ij²``, climbed by L-BFGS. A factor whose λ_j ≤ 1 gets loadings of exactly zero.
        The rotation is the one in which ``WᵀΨ⁻¹W`` is diagonal and falls; of standardised data each column's
        largest loading is positive.

        Source: Jöreskog 1967, Psychometrika 32:443; Lawley & Maxwell 1971.

        Args:
            x: data (n, D), n ≥ 2.
            latent_dim: K in 1..D − 1.
            starts: from how many noises to climb; all but the first are drawn at random.
            seed: of those draws.
            tolerance: stop when an iteration gains less than this share of the log-likelihood.
            iterations: how many at most, from each start.

        Raises:
            ValueError: K out of range, fewer than two rows, a column that does not vary.

        >>> x = FactorAnalysis([[2.0], [1.0], [1.0]], [1.0, 1.0, 1.0]).sample(500, torch.Generator().manual_seed(0))[0]
        >>> FactorAnalysis.fit(x, 1).convergence.converged
        True
        """
        x = shaped(x, "x", None, None)
        refuse_overflow(x)
        n, d = x.shape
        if n < 2:
            raise ValueError(f"x should have at least two rows, got {n}")
        if d < 2:
            raise ValueError(f"x should have at least two columns, got {d}")
        starts, iterations = whole(starts, "starts", 1), whole(iterations, "iterations", 1)
        latent_dim = whole(latent_dim, "latent_dim", 1, d - 1)
        refuse_still(x)
        mean, covariance = _covariance(x)
        spread = covariance.diagonal().sqrt()
        still = torch.nonzero(~(spread > 1e-14 * (mean.abs() + x[0].abs())))
        if len(still):
            raise ValueError(f"x should vary in every column, got column {int(still[0])} constant")
        # Standardised, so that one floor and one tolerance serve coordinates of any unit.
        correlation = (covariance / spread / spread[:, None]).cpu().numpy()
        constant = n * (d * math.log(2 * math.pi) + 2 * spread.log().sum().item())
        ends = [
            _climb(correlation, latent_dim, start, n, constant, tolerance, iterations)
            for start in _starts(correlation, latent_dim, starts, seed)
        ]
        share, history, converged = max(ends, key=lambda end: end[1][-1])
        convergence = Convergence(
            history=tuple(history), converged=converged, restarts=tuple(end[1][-1] for end in ends)
        )
        floored = np.flatnonzero(share <= 2 * _FLOOR).tolist()
        if not converged:
            warnings.warn(f"{convergence}; more iterations may help", ConvergenceWarning, stacklevel=2)
        elif floored:
            warnings.warn(
                f"{convergence}; the likelihood asks for no noise at all in columns {floored} (a Heywood case): "
                f"held at {_FLOOR:g} of their variance; fewer factors may help",
                ConvergenceWarning,
                stacklevel=2,
            )
        loadings = signed(torch.from_numpy(_loadings(correlation, share, latent_dim))).to(x.device)
        fitted = cls(loadings * spread[:, None], torch.from_numpy(np.sqrt(share)).to(x.device) * spread, mean)
        object.__setattr__(fitted, "convergence", convergence)
        return fitted

    @classmethod
    def from_sklearn(cls, fitted: Any) -> FactorAnalysis:
        """Take over a fitted `sklearn.decomposition.FactorAnalysis`.

        Args:
            fitted: the estimator, after its `fit`.

        Raises:
            TypeError: it is not a fitted FactorAnalysis.

        >>> from sklearn.decomposition import FactorAnalysis as Theirs
        >>> FactorAnalysis.from_sklearn(Theirs(1).fit([[2.0, 1.5], [-2.0, -1], [0.0, 1.0], [0.0, -1.0]])).loadings.shape
        torch.Size([2, 1])
        """
        components, noise, mean = attributes(
            fitted, "FactorAnalysis", "components_", "noise_variance_", "mean_"
        )
        return cls(components.T, np.sqrt(noise), mean)

    @property
    def _loadings(self) -> Tensor:
        return self.loadings

    @property
    def _noise(self) -> Tensor:
        return self.scales

    @property
    def _centre(self) -> Tensor:
        return self.mean

    def symbolic(self) -> Model:
        """Give the model in SymPy: ``z ~ Normal(0, 1); x ~ Normal(W z + μ, ψ)``, in exact rationals."""
        model = Model("factor analysis")
        z = model.latent("z", families.Normal(0, 1), shape=self.loadings.shape[1])
        return symbolic_rows(model, z, self.loadings, self.mean, self.scales)


def _covariance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance (over n), block by block about the mean, so that offsets of 1e6 leave no trace."""
    mean = x.mean(0)
    mean = (
        mean + (x - mean).mean(0)
        if len(x) <= _BLOCK
        else mean + torch.stack([(block - mean).sum(0) for block in x.split(_BLOCK)]).sum(0) / len(x)
    )
    total = x.new_zeros(x.shape[1], x.shape[1])
    for block in x.split(_BLOCK):
        apart = block - mean
        total.addmm_(apart.T, apart)
    return mean, total / len(x)


def _starts(correlation: np.ndarray, k: int, starts: int, seed: int) -> list[np.ndarray]:
    d = len(correlation)
    try:
        unique = 1 / np.diag(np.linalg.inv(correlation))
    except np.linalg.LinAlgError:
        unique = np.full(d, 0.5)
    first = np.clip((1 - k / (2 * d)) * unique, 0.01, 1.0)
    generator = np.random.default_rng(seed)
    return [first, *(generator.uniform(0.05, 1.0, d) for _ in range(starts - 1))]


def _climb(
    correlation: np.ndarray,
    k: int,
    start: np.ndarray,
    n: int,
    constant: float,
    tolerance: float,
    iterations: int,
) -> tuple[np.ndarray, list[float], bool]:
    """Noise shares, the log-likelihood after each iteration, and whether it converged."""
    history: list[float] = []

    def badness(log_share: np.ndarray) -> tuple[float, np.ndarray]:
        values, vectors = _eigen(correlation, np.exp(log_share))
        kept = np.maximum(values[:k], 1.0)
        lost = np.concatenate([np.minimum(values[:k], 1.0), values[k:]])
        value = log_share.sum() + np.log(kept).sum() + lost.sum()
        slope = (vectors**2) @ (1 - lost)
        return float(value), slope

    found = minimize(
        badness,
        np.log(start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(math.log(_FLOOR), math.log(2.0))] * len(start),
        callback=lambda intermediate_result: history.append(
            -(n * float(intermediate_result.fun) + constant) / 2
        ),
        options={"maxiter": iterations, "ftol": tolerance * 1e-3, "gtol": 1e-9, "maxcor": 20},
    )
    history.append(max([-(n * float(found.fun) + constant) / 2, *history[-1:]]))
    # A line search that finds nothing higher ends at the precision of the function itself.
    settled = bool(found.success) or float(np.abs(found.jac).max()) < 1e-5
    return np.exp(found.x), history, settled


def _eigen(correlation: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(share)
    values, vectors = np.linalg.eigh(correlation / root / root[:, None])
    return values[::-1], vectors[:, ::-1]


def _loadings(correlation: np.ndarray, share: np.ndarray, k: int) -> np.ndarray:
    values, vectors = _eigen(correlation, share)
    return np.sqrt(share)[:, None] * vectors[:, :k] * np.sqrt(np.maximum(values[:k] - 1, 0.0))

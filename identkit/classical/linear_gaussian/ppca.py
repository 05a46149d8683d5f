"""Probabilistic principal component analysis: linear-Gaussian latents under noise of one size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import positive, real, refuse_overflow, shaped
from identkit.classical.em import Convergence
from identkit.classical.linear_gaussian.model import LinearGaussian, symbolic_rows
from identkit.model import families
from identkit.model.compiled.data import whole
from identkit.model.model import Model

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False, init=False, repr=False)
class PPCA(LinearGaussian):
    """Probabilistic principal component analysis, whose K latents are the coordinates of each datum.

    ``x = W z + μ + σ ε``, ``z ~ N(0, I_K)``, ``ε ~ N(0, I_D)``. With B = W/σ, A = BᵀB and r = (x − μ)/σ the
    posterior is ``N(m, S)``, ``S = (I + A)⁻¹``, ``m = S Bᵀ r``. A direction in the kernel of W collapses.

    Source: Tipping & Bishop 1999, JRSS-B 61:611; Wang, Blei & Cunningham 2021, section 2; `theory/T4`.

    Args:
        loadings: W, shape (D, K).
        sigma: σ > 0, the noise's standard deviation.
        mean: μ, shape (D,), or one number for all coordinates.

    Raises:
        ValueError, TypeError: a wrong shape, NaN, a scale that is not positive.

    >>> model = PPCA([[1.0, 0.0], [2.0, 0.0]], 1.0)
    >>> posterior = model.posterior([[1.0, 1.0]])
    >>> posterior.mean, posterior.stddev
    (tensor([[0.5000, 0.0000]], dtype=torch.float64), tensor([[0.4082, 1.0000]], dtype=torch.float64))
    >>> model.kl_per_latent([[1.0, 1.0]])
    tensor([[0.6042, 0.0000]], dtype=torch.float64)
    """

    loadings: Float[Tensor, "d k"]
    sigma: float
    mean: Float[Tensor, " d"]
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, loadings: Any, sigma: Any, mean: Any = 0.0) -> None:
        loadings = shaped(loadings, "loadings", None, None)
        object.__setattr__(self, "loadings", loadings)
        object.__setattr__(self, "sigma", positive(sigma, "sigma"))
        object.__setattr__(self, "mean", mean_of(mean, loadings))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any, latent_dim: int, sigma: Any = None) -> PPCA:
        """Fit by maximum likelihood in closed form, with σ free or fixed.

        ``W = U_K (Λ_K − σ²I)₊^½`` with the leading eigenvectors U and eigenvalues λ of the sample covariance.
        With σ fixed, a direction with λ_j ≤ σ² gets loadings of exactly zero: its latent collapses. With σ
        free, σ² is the mean of the discarded eigenvalues.

        Source: Tipping & Bishop 1999, eq. 7–8 and appendix A; Lucas et al. 2019 (σ fixed). The rotation,
        which the likelihood leaves open, is the identity; each column's largest entry is positive.

        Args:
            x: data (n, D), n ≥ 2.
            latent_dim: K, at most D; less than D where σ is free.
            sigma: the noise's standard deviation, or None to estimate it.

        Raises:
            ValueError: K is out of range, or the discarded eigenvalues are all zero so that σ would be.

        >>> x = [[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
        >>> PPCA.fit(x, 2, sigma=1.0).loadings
        tensor([[1., 0.],
                [0., 0.]], dtype=torch.float64)
        """
        x = shaped(x, "x", None, None)
        refuse_overflow(x)
        d = x.shape[1]
        most = d if sigma is not None else d - 1
        if most < 1:
            raise ValueError(f"x should have at least two columns where sigma is free, got {d}")
        latent_dim = whole(latent_dim, "latent_dim", 1, most)
        scales, directions = principal(x)
        if sigma is None:
            variance = scales[latent_dim:].square().mean().item()
            if variance <= d * (_EPS * scales[0].item()) ** 2:
                raise ValueError(
                    f"sigma should be given: the {d - latent_dim} discarded eigenvalues of x are zero, "
                    f"got latent_dim={latent_dim}"
                )
            sigma = math.sqrt(variance)
        sigma = positive(sigma, "sigma")
        kept = scales[:latent_dim]
        lengths = ((kept - sigma).clamp(min=0.0) * (kept + sigma)).sqrt()
        columns = directions[:latent_dim].T * lengths
        fitted = cls(signed(columns), sigma, x.mean(0))
        height = fitted.log_evidence(x).sum().item()
        object.__setattr__(
            fitted, "convergence", Convergence(history=(height,), converged=True, restarts=(height,))
        )
        return fitted

    @classmethod
    def from_sklearn(cls, fitted: Any) -> PPCA:
        """Take over a fitted `sklearn.decomposition.PCA`, whose covariance is that of a PPCA.

        scikit-learn divides by n − 1 where `fit` divides by n, so the loadings are √(n/(n − 1)) as long.

        Args:
            fitted: a PCA with fewer components than features, so that there is noise.

        Raises:
            TypeError: it is not a fitted PCA.
            ValueError: it keeps all of the variance: σ would be 0.

        >>> from sklearn.decomposition import PCA
        >>> PPCA.from_sklearn(PCA(1).fit([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).sigma ** 2
        0.666...
        """
        components, variance, noise, mean = attributes(
            fitted, "PCA", "components_", "explained_variance_", "noise_variance_", "mean_"
        )
        if not noise > 0:
            raise ValueError(f"fitted should leave some variance to the noise, got noise_variance_ = {noise}")
        loadings = components.T * np.sqrt(np.maximum(variance - noise, 0.0))
        return cls(loadings, float(np.sqrt(noise)), mean)

    @property
    def _loadings(self) -> Tensor:
        return self.loadings

    @property
    def _noise(self) -> Tensor:
        return torch.full_like(self.mean, self.sigma)

    @property
    def _centre(self) -> Tensor:
        return self.mean

    def symbolic(self) -> Model:
        """Give the model in SymPy: ``z ~ Normal(0, 1); x ~ Normal(W z + μ, σ)``, in exact rationals."""
        model = Model("PPCA")
        z = model.latent("z", families.Normal(0, 1), shape=self.loadings.shape[1])
        return symbolic_rows(model, z, self.loadings, self.mean, self._noise)


def sample_eigenvalues(x: Any) -> Float[Tensor, " d"]:
    """Give the eigenvalues of the sample covariance ``(1/n) Σ (x_i − x̄)(x_i − x̄)ᵀ``, largest first.

    A latent direction of `PPCA.fit` dies when σ² passes its eigenvalue.

    Source: Tipping & Bishop 1999, eq. 7.

    Args:
        x: data (n, D), n ≥ 2.

    Raises:
        TypeError, ValueError: a wrong shape, NaN.

    >>> sample_eigenvalues([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    tensor([2.0000, 0.5000], dtype=torch.float64)
    """
    return principal(shaped(x, "x", None, None))[0].square()


def principal(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Give roots of the eigenvalues and the directions, as rows, of the sample covariance, D of each."""
    n, d = x.shape
    if n < 2:
        raise ValueError(f"x should have at least two rows, got {n}")
    centred = x - x.mean(0)
    if n > d:
        # R of QR has the singular values of x without its length, and none of the squaring of xᵀx.
        centred = torch.linalg.qr(centred, mode="r").R
    centred = torch.nn.functional.pad(centred, (0, 0, 0, max(0, d - len(centred))))
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    return values / math.sqrt(n), directions


def signed(columns: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """Turn each column so that its largest entry is positive: the sign that a likelihood leaves open."""
    largest = columns.abs().argmax(0, keepdim=True)
    return columns * torch.where(columns.gather(0, largest) < 0, -1.0, 1.0) + 0.0  # zeros without a sign


def mean_of(mean: Any, loadings: Float[Tensor, "d k"]) -> Float[Tensor, " d"]:
    """Convert a mean to shape (D,), where one number stands for all."""
    mean = real(mean, "mean").to(loadings.device)
    if mean.ndim == 0:
        mean = mean.expand(len(loadings)).clone()
    return shaped(mean, "mean", len(loadings))


def attributes(fitted: Any, kind: str, *names: str) -> list[Any]:
    """Read what a fitted estimator of another library learnt, or say that it is none.

    Raises:
        TypeError: an attribute is missing.
    """
    missing = [name for name in names if not hasattr(fitted, name)]
    if missing:
        raise TypeError(f"fitted should be a fitted {kind}, got {fitted!r:.80} without {', '.join(missing)}")
    return [getattr(fitted, name) for name in names]

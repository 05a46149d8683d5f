"""Linear-Gaussian latent variables: probabilistic principal component analysis, in closed form throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal

from identkit.classical.arrays import latents, positive, real, rows, shaped
from identkit.model import families
from identkit.model.model import Model
from identkit.model.protocol import Flatness
from identkit.posterior.stable import gaussian_gain

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300  # errors are stated as positive numbers, also where nothing was rounded


@dataclass(frozen=True, eq=False, init=False)
class PPCA:
    """Probabilistic principal component analysis, whose K latents are the coordinates of each datum.

    ``x = W z + μ + σ ε``, ``z ~ N(0, I_K)``, ``ε ~ N(0, I_D)``. With B = W/σ, A = BᵀB and r = (x − μ)/σ the
    posterior is ``N(m, S)``, ``S = (I + A)⁻¹``, ``m = S Bᵀ r``. A direction in the kernel of W collapses.

    Everything is computed from the singular values of B, never from A: the precision I + A would swallow its
    own identity where σ is small.

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

    def __init__(self, loadings: Any, sigma: Any, mean: Any = 0.0) -> None:
        loadings = shaped(loadings, "loadings", None, None)
        mean = real(mean, "mean").to(loadings.device)
        if mean.ndim == 0:
            mean = mean.expand(len(loadings)).clone()
        object.__setattr__(self, "loadings", loadings)
        object.__setattr__(self, "sigma", positive(sigma, "sigma"))
        object.__setattr__(self, "mean", shaped(mean, "mean", len(loadings)))

    @classmethod
    def maximum_likelihood(cls, x: Any, latent_dim: int, sigma: Any = None) -> PPCA:
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
        >>> PPCA.maximum_likelihood(x, 2, sigma=1.0).loadings
        tensor([[1., 0.],
                [0., 0.]], dtype=torch.float64)
        """
        x = shaped(x, "x", None, None)
        d = x.shape[1]
        most = d if sigma is not None else d - 1
        if not 1 <= latent_dim <= most:
            raise ValueError(f"latent_dim should be in 1..{most}, got {latent_dim}")
        scales, directions = _principal(x)
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
        largest = columns.abs().argmax(0, keepdim=True)
        signs = torch.where(columns.gather(0, largest) < 0, -1.0, 1.0)
        return cls(columns * signs + 0.0, sigma, x.mean(0))  # + 0.0: zeros without a sign

    @property
    def prior(self) -> MultivariateNormal:
        """``N(0, I_K)``."""
        k = self.loadings.shape[1]
        eye = torch.eye(k, dtype=torch.float64, device=self.loadings.device)
        return MultivariateNormal(eye.new_zeros(k), scale_tril=eye)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``z[1] … z[K]``."""
        return tuple(f"z[{k + 1}]" for k in range(self.loadings.shape[1]))

    @property
    def pooled(self) -> bool:
        """Each row has latents of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log N(x; W z + μ, σ²I)`` in nats.

        Args:
            x: data (n, D).
            z: latents (n, K) or (samples, n, K).
        """
        x = self._rows(x)
        z = latents(z, len(x), self.loadings.shape[1], x.device)
        residual = (x - self.mean - z @ self.loadings.T) / self.sigma
        return -residual.square().sum(-1) / 2 - self._log_constant

    def posterior(self, x: Any) -> MultivariateNormal:
        """Give ``N(m, S)`` of batch n, the Cholesky factor of S = (I + A)⁻¹ from the singular values of B.

        Args:
            x: data (n, D).
        """
        _, values, right = self._svd
        root = right / (1 + values.square()).sqrt()[:, None]  # rootᵀ root = S
        upper = torch.linalg.qr(root).R
        factor = (upper * torch.where(upper.diagonal() < 0, -1.0, 1.0)[:, None]).T
        mean = self._mean(x)
        return MultivariateNormal(mean, scale_tril=factor.expand(len(mean), -1, -1))

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log N(x; μ, WWᵀ + σ²I)`` in nats, in K dimensions.

        ``−½[Σ log1p(ρ_i) + |r − UUᵀr|² + Σ (u_iᵀr)²/(1 + ρ_i)] − D log σ − (D/2) log 2π``.
        """
        left, values, _ = self._svd
        r = self._residual(x)
        along = r @ left
        outside = (r - along @ left.T).square().sum(1)
        inside = (along.square() / (1 + values.square())).sum(1)
        return -(torch.log1p(values.square()).sum() + outside + inside) / 2 - self._log_constant

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL = ½[Σ (log1p(ρ_i) − ρ_i/(1 + ρ_i)) + |m|²]`` in nats: 0 exactly iff W = 0."""
        gain = gaussian_gain(self._svd[1].square()).sum()
        return (gain + self._mean(x).square().sum(1)) / 2

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the marginal KLs ``KL(N(m_j, S_jj) ‖ N(0, 1)) = ½[h(c_j) + m_j²]`` in nats.

        ``c_j = 1/S_jj − 1 = B_jᵀ(I + B_−j B_−jᵀ)⁻¹B_j ≥ 0`` is what datum and other latents leave to z_j, and
        ``h(c) = log1p(c) − c/(1 + c)``. Exactly 0 for a column of zeros.
        """
        _, _, left_over = self._leave_one_out
        return (gaussian_gain(left_over) + self._marginal_means(x).square()) / 2

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate ``E_Q KL(q(z_j | z_−j, x) ‖ p(z_j)) = ½[h(a) + b/((1 + a)(1 + a − b)) + m_j²]`` in nats.

        ``q(z_j | z_−j, x) = N(μ_j(z_−j), 1/(1 + a))`` with a = A_jj, and under Q the mean μ_j has the
        variance ``S_jj − 1/(1 + a)``, where 1/S_jj = 1 + a − b and b = A_j,−j (I + A_−j,−j)⁻¹ A_−j,j. It is
        0 iff column j is.
        """
        _, explained, left_over = self._leave_one_out
        own = self._whitened.square().sum(0)
        spread = explained / ((1 + own) * (1 + left_over))
        return (gaussian_gain(own) + spread + self._marginal_means(x).square()) / 2

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of all KLs of a datum, in nats; positive.

        The arithmetic is backward stable: exact for some B + ∆B and r + ∆r of relative size ε, a few
        roundings times the dimension, which covers the reading of floats as shortest decimals too. The bound
        is the change of the KLs under such ∆.
        """
        values, own = self._svd[1], self._whitened.square().sum(0)
        _, _, left_over = self._leave_one_out
        delta = self._backward * values.max()
        mean = self._mean(x)
        by_mean, size = self._mean_error(x, mean), mean.square().sum(1).sqrt()
        grown, shrunk = (values + delta).square(), (values - delta).clamp(min=0.0).square()
        joint = (gaussian_gain(grown) - gaussian_gain(shrunk)).sum()
        pull = self._pulls.square().sum(0).sqrt() * (
            1 + (self._whitened.T @ self._pulls).square().sum(0).sqrt()
        )
        marginal = 2 * delta * pull * (left_over + 1) / (1 + left_over).square()
        conditional = 2 * delta * own.sqrt() * (own + 1) / (1 + own).square()
        by_spread = joint + (marginal + conditional).max()
        rounding = self._backward * (self.kl_to_prior(x) + self.kl_conditional(x).amax(1))
        return size * by_mean + by_mean.square() + by_spread + rounding + _TINY

    def mutual_information(self) -> Float[Tensor, ""]:
        """Evaluate ``I(z; x) = ½ Σ log1p(ρ_i)`` in nats: the average KL under the model's own data."""
        return torch.log1p(self._svd[1].square()).sum() / 2

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(z) = −½ zᵀAz + bᵀz + const``, b = Bᵀr, under N(0, I) from W and x.

        ``V = ½ tr A² + |b|²``; ω = ∞ unless W = 0. ``E_Q|∇ℓ|² = |m|² + tr(A S A)``, since b − Am = m; here m
        and S come from the QR factors of [B; I]. The two moments under Q are on their safe side (T4.4).

        Source: theory/T4; moments of a Gaussian quadratic form.
        """
        b_matrix, r = self._whitened, self._residual(x)
        d, k = b_matrix.shape
        precision = b_matrix.T @ b_matrix
        slope = r @ b_matrix
        variance = precision.square().sum() / 2 + slope.square().sum(1)
        scale = torch.linalg.matrix_norm(b_matrix)
        slope_error = self._backward * scale * (self._size(x) + r.square().sum(1).sqrt())
        size = slope.square().sum(1).sqrt()

        orthogonal, upper = torch.linalg.qr(
            torch.cat([b_matrix, torch.eye(k, dtype=r.dtype, device=r.device)])
        )
        # [B; I] = QR, hence R⁻¹R⁻ᵀ = S. Small loadings drown in the rounding of Q, but not in that of R.
        small = torch.linalg.solve_triangular(upper, b_matrix, upper=True, left=False)
        top = torch.where(scale > 1, orthogonal[:d], small)
        mean = torch.linalg.solve_triangular(upper, top.T @ r.T, upper=True).T
        trace = (b_matrix.T @ top).square().sum()  # tr(A S A)
        shift, error = mean.square().sum(1).sqrt(), self._mean_error(x, mean)
        flat = not bool(self.loadings.any())
        return Flatness(
            variance=variance,
            variance_error=2 * size * slope_error + slope_error.square() + self._backward * variance + _TINY,
            oscillation=torch.full_like(variance, 0.0 if flat else math.inf),
            log_sobolev=1.0,
            gradient_second_moment=(shift + error).square() + trace * (1 + self._backward),
            mean_shift=(shift - error).clamp(min=0.0).square(),
        )

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Give the posterior mean and standard deviation of each latent."""
        mean = self._marginal_means(x)
        _, _, left_over = self._leave_one_out
        return mean, (1 / (1 + left_over).sqrt()).expand_as(mean)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Draw n rows ``(x, z)``."""
        d, k = self.loadings.shape
        like = {"dtype": torch.float64, "device": self.loadings.device, "generator": generator}
        z = torch.randn(n, k, **like)
        return z @ self.loadings.T + self.mean + self.sigma * torch.randn(n, d, **like), z

    def symbolic(self) -> Model:
        """Give the model in SymPy: ``z ~ Normal(0, 1); x ~ Normal(W z + μ, σ)``, in exact rationals."""
        d, k = self.loadings.shape
        model = Model("PPCA")
        z = model.latent("z", families.Normal(0, 1), shape=k)
        means = [
            sum((families.exact(w) * z[j] for j, w in enumerate(row)), families.exact(mean))
            for row, mean in zip(self.loadings.tolist(), self.mean.tolist(), strict=True)
        ]
        model.observe("x", families.Normal(means, families.exact(self.sigma)), shape=d)
        return model

    def _rows(self, x: Any) -> Tensor:
        return rows(x, len(self.loadings), self.loadings.device)

    def _residual(self, x: Any) -> Tensor:
        return (self._rows(x) - self.mean) / self.sigma

    @property
    def _log_constant(self) -> float:
        return len(self.loadings) * (math.log(self.sigma) + math.log(2 * math.pi) / 2)

    @cached_property
    def _whitened(self) -> Tensor:
        return self.loadings / self.sigma

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Singular vectors and values of B, with K of each also where D < K: rows of zeros change nothing."""
        d, k = self.loadings.shape
        padded = torch.nn.functional.pad(self._whitened, (0, 0, 0, max(0, k - d)))
        left, values, right = torch.linalg.svd(padded, full_matrices=False)
        return left[:d], values, right

    def _mean(self, x: Any) -> Tensor:
        left, values, right = self._svd
        return (self._residual(x) @ left * (values / (1 + values.square()))) @ right

    @cached_property
    def _leave_one_out(self) -> tuple[Tensor, Tensor, Tensor]:
        """Per latent: g_j = (I + B_−j B_−jᵀ)⁻¹B_j as columns, the explained b_j, the left-over c_j."""
        pulls, explained, left_over = [], [], []
        for j in range(self.loadings.shape[1]):
            column = self._whitened[:, j]
            others = torch.cat([self._whitened[:, :j], self._whitened[:, j + 1 :]], 1)
            left, values, _ = torch.linalg.svd(others, full_matrices=False)
            along = left.T @ column
            outside = column - left @ along
            shrink = 1 + values.square()
            pulls.append(outside + left @ (along / shrink))
            explained.append((along.square() * (values.square() / shrink)).sum())
            left_over.append(outside.square().sum() + (along.square() / shrink).sum())
        return torch.stack(pulls, 1), torch.stack(explained), torch.stack(left_over)

    @property
    def _pulls(self) -> Tensor:
        return self._leave_one_out[0]

    def _marginal_means(self, x: Any) -> Tensor:
        # m_j by regression of r on what the other columns leave of B_j: a column of zeros has exactly 0.
        pulls, _, left_over = self._leave_one_out
        return self._residual(x) @ pulls / (1 + left_over)

    @property
    def _backward(self) -> float:
        return 16 * (sum(self.loadings.shape) + 2) * _EPS

    def _size(self, x: Any) -> Tensor:
        # What the rounding of x − μ is relative to.
        return ((self._rows(x).abs() + self.mean.abs()) / self.sigma).square().sum(1).sqrt()

    def _mean_error(self, x: Any, mean: Tensor) -> Tensor:
        """Bound |∆m| ≤ |S||∆B||r − Bm| + |SBᵀ|(|∆B||m| + |∆r|)."""
        values = torch.linalg.svdvals(self._whitened)
        complete = self.loadings.shape[0] >= self.loadings.shape[1]
        least = values.min() if complete else values.new_zeros(())
        pull = (values / (1 + values.square())).max()
        residual = (self._residual(x) - mean @ self._whitened.T).square().sum(1).sqrt()
        delta = self._backward * values.max()
        by_data = mean.square().sum(1).sqrt() * delta + self._backward * self._size(x)
        return delta * residual / (1 + least.square()) + pull * by_data


def sample_eigenvalues(x: Any) -> Float[Tensor, " d"]:
    """Give the eigenvalues of the sample covariance ``(1/n) Σ (x_i − x̄)(x_i − x̄)ᵀ``, largest first.

    A latent direction of `PPCA.maximum_likelihood` dies when σ² passes its eigenvalue.

    Source: Tipping & Bishop 1999, eq. 7.

    Args:
        x: data (n, D), n ≥ 2.

    Raises:
        TypeError, ValueError: a wrong shape, NaN.

    >>> sample_eigenvalues([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    tensor([2.0000, 0.5000], dtype=torch.float64)
    """
    return _principal(shaped(x, "x", None, None))[0].square()


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of the eigenvalues and the directions, as rows, of the sample covariance, D of each."""
    n, d = x.shape
    if n < 2:
        raise ValueError(f"x should have at least two rows, got {n}")
    centred = torch.nn.functional.pad(x - x.mean(0), (0, 0, 0, max(0, d - n)))
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    return values / math.sqrt(n), directions

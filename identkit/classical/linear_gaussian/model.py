"""Linear-Gaussian latent variables: everything that follows from the whitened loadings and the residual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal

from identkit.classical.arrays import latents, thin_product, unfilled
from identkit.classical.linear_gaussian.whitened import BLOCK, Whitened
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.stable import gaussian_gain

_TINY = 1e-300  # errors are stated as positive numbers, also where nothing was rounded
_NEAR = 8.0  # noises from 0 within which a mean costs no digits


@dataclass(frozen=True, kw_only=True)
class Directions:
    """What a linear-Gaussian model tells about each of K directions of its latents, most informative first.

    The directions are the right singular vectors of the whitened loadings B. A singular value ρ_j^½ of 0 is
    a direction that the likelihood cannot see: its posterior is its prior, for every datum (theory/T2).
    """

    directions: Float[Tensor, "k k"]
    """Unit vectors in the latents of prior N(0, I), as rows."""
    gain: Float[Tensor, " k"]
    """ρ_j, signal to noise: the precision that a datum adds to the prior's 1."""
    posterior_variance: Float[Tensor, " k"]
    """``1/(1 + ρ_j)``, the same for every datum; for PPCA at its maximum ``σ²/λ_j``."""
    mutual_information: Float[Tensor, " k"]
    """``½ log(1 + ρ_j)``: the KL of the direction, averaged over the model's own data, in nats."""
    active: Float[Tensor, " k"]
    """``ρ_j/(1 + ρ_j)``, the variance of the posterior mean over the model's own data (active units)."""
    mean_kl: Float[Tensor, " k"] | None
    """The KL of the direction averaged over the data given, in nats; None without data."""
    mean_square: Float[Tensor, " k"] | None
    """The average over the data given of the squared posterior mean; None without data."""

    @property
    def collapsed(self) -> int:
        """The number of directions that the likelihood cannot see: K − rank W."""
        return int((self.gain == 0).sum())


class LinearGaussian(Whitened):
    """A model ``x = W z + μ + noise`` with normal latents and independent normal noise; a base class.

    With ``z = z_0 + L u``, ``u ~ N(0, I_K)``, noise of standard deviations ψ, ``B = diag(1/ψ) W L`` and
    ``r = (x − μ − W z_0)/ψ``, the posterior is ``u ~ N(m, S)``, ``S = (I + BᵀB)⁻¹``, ``m = S Bᵀ r``.

    Everything is computed from the singular values of B, never from BᵀB: the precision I + BᵀB would swallow
    its own identity where the noise is small. Small matrices are float64 whatever the data are.

    Source: Tipping & Bishop 1999, JRSS-B 61:611; Bishop 2006, section 2.3.3; `theory/T4`.
    """

    @property
    def prior(self) -> MultivariateNormal:
        """``N(z_0, L Lᵀ)``."""
        k = self._loadings.shape[1]
        eye = torch.eye(k, dtype=torch.float64, device=self._loadings.device)
        mean, root = self._prior_mean, self._prior_root
        return MultivariateNormal(
            eye.new_zeros(k) if mean is None else mean, scale_tril=eye if root is None else root
        )

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``z[1] … z[K]``."""
        return tuple(f"z[{k + 1}]" for k in range(self._loadings.shape[1]))

    @property
    def pooled(self) -> bool:
        """Each row has latents of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log N(x; W z + μ, diag(ψ²))`` in nats.

        Args:
            x: data (n, D).
            z: latents (n, K) or (samples, n, K).
        """
        x = self._rows(x)
        here = self._at(x)
        z = latents(z, len(x), here._loadings.shape[1], x.device).to(x.dtype)
        start = here._prior_mean
        apart = z if start is None else z - start.to(x.dtype)
        weights = (here._loadings / here._noise[:, None]).T.to(x.dtype)
        residual = here._residual(x) - apart @ weights
        return -residual.square().sum(-1) / 2 - here._log_constant

    def posterior(self, x: Any) -> MultivariateNormal:
        """Give ``p(z | x)``, normal, of batch n; the Cholesky factor of S is from the singular values of B.

        Args:
            x: data (n, D).
        """
        x = self._rows(x)
        here = self._at(x)
        # Without torch's own checks, which would write out n copies of the one covariance.
        return MultivariateNormal(
            here.posterior_mean(x), scale_tril=here._factor.to(x.dtype), validate_args=False
        )

    def posterior_mean(self, x: Any, out: Tensor | None = None) -> Float[Tensor, "n k"]:
        """Give ``E[z | x]`` in blocks of rows: one product a block.

        Args:
            x: data (n, D).
            out: where to write, (n, K) of the result's dtype and device. Fresh memory costs as much as the
                arithmetic: whoever asks again and again should reuse it.

        Raises:
            ValueError: `out` is of another shape, dtype or device, or as at every door.
        """
        given, x = x, self._unchecked_rows(x)
        here = self._at(x)
        k = here._loadings.shape[1]
        if out is not None and (out.shape, out.dtype, out.device) != ((len(x), k), x.dtype, x.device):
            wanted = f"shape {(len(x), k)}, {x.dtype} on {x.device}"
            raise ValueError(f"out should have {wanted}, got {tuple(out.shape)}, {out.dtype} on {out.device}")
        mean = unfilled(x, len(x), k) if out is None else out
        pull = here._pull / here._noise[:, None]
        centre = here._centre.to(x.dtype)
        # Far from 0 the data are centred first, in a buffer; near it nothing is lost by one product.
        near = bool(((here._centre / here._noise).abs() <= _NEAR).all())
        offset = -here._centre if near else centre.to(torch.float64) - here._centre
        bias = offset @ pull if here._prior_mean is None else offset @ pull + here._prior_mean
        pull, bias = pull.to(x.dtype), bias.to(x.dtype)
        size = max(1, BLOCK // 2 // max(1, x.shape[1]))
        buffer = x.new_empty(0 if near else min(size, len(x)), x.shape[1])
        for first in range(0, len(x), size):
            block, to = x[first : first + size], mean[first : first + size]
            if not near:
                block = torch.sub(block, centre, out=buffer[: len(block)])
            thin_product(block, pull, to).add_(bias)
            # NaN and infinities go through a product: where the result is finite, so were the data.
            if not math.isfinite(to.sum().item()):
                self._rows(given)
        return mean

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log N(x; μ + W z_0, W L Lᵀ Wᵀ + diag(ψ²))`` in nats, in K dimensions.

        ``−½[Σ log1p(ρ_i) + |r − UUᵀr|² + Σ (u_iᵀr)²/(1 + ρ_i)] − Σ log ψ − (D/2) log 2π``.
        """
        x = self._rows(x)
        here = self._at(x)
        left, values, _ = here._svd
        constant = torch.log1p(values.square()).sum().item() / 2 + here._log_constant
        left, shrink = left.to(x.dtype), (1 / (1 + values.square())).to(x.dtype)

        def evidence(r: Tensor) -> Tensor:
            along = r @ left
            outside = (r - along @ left.T).square().sum(1)
            return -(outside + (along.square() * shrink).sum(1)) / 2 - constant

        return here._by_block(x, evidence)

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL = ½[Σ (log1p(ρ_i) − ρ_i/(1 + ρ_i)) + |m|²]`` in nats: 0 exactly iff W = 0."""
        x = self._rows(x)
        here = self._at(x)
        left, values, _ = here._svd
        gain = gaussian_gain(values.square()).sum().item()
        pull = (left * (values / (1 + values.square()))).to(x.dtype)
        return here._by_block(x, lambda r: (gain + (r @ pull).square().sum(1)) / 2)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the marginal KLs ``½[h(c_j) + m_j²]`` in nats, each against the marginal prior.

        ``c_j = 1/S_jj − 1 = B_jᵀ(I + B_−j B_−jᵀ)⁻¹B_j ≥ 0`` is what datum and other latents leave to z_j, and
        ``h(c) = log1p(c) − c/(1 + c)``. Exactly 0 for a column of zeros of a model with independent latents.
        """
        x = self._rows(x)
        here = self._at(x)
        gain = gaussian_gain(here._leave_one_out[2])
        return here._by_block(x, lambda r: (gain + here._means(r, here._leave_one_out).square()) / 2)

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate ``E_Q KL(q(z_j | z_−j, x) ‖ p(z_j | z_−j)) = ½[h(a) + b/((1 + a)(1 + a − b)) + m_j²]``.

        Seen from its prior given the others, z_j is a unit normal; there ``q(z_j | z_−j, x) = N(μ_j, 1/(1 + a))``
        with a = A_jj, and under Q the mean μ_j has the variance ``S_jj − 1/(1 + a)``, where
        ``1/S_jj = 1 + a − b`` and ``b = A_j,−j (I + A_−j,−j)⁻¹ A_−j,j``. It is 0 iff column j of W is. In nats.
        """
        x = self._rows(x)
        here = self._at(x)
        _, explained, left_over, _ = here._given_others
        own = here._own_columns.square().sum(0)
        gain = gaussian_gain(own) + explained / ((1 + own) * (1 + left_over))
        return here._by_block(x, lambda r: (gain + here._means(r, here._given_others).square()) / 2)

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of all KLs of a datum, in nats; positive. In float64.

        The arithmetic is backward stable: exact for some B + ∆B and r + ∆r of relative size ε, a few
        roundings times the dimension, which covers the reading of floats as shortest decimals too. The bound
        is the change of the KLs under such ∆.
        """
        x = self._rows(x)
        here = self._at(x)
        return torch.cat([here._some_kl_error(block.to(torch.float64)) for block in here._split(x)])

    def _some_kl_error(self, x: Tensor) -> Tensor:
        values, own = self._svd[1], self._own_columns.square().sum(0)
        delta = self._backward * values.max()
        mean = self._whitened_mean(x)
        by_mean, size = self._mean_error(x, mean), mean.square().sum(1).sqrt()
        grown, shrunk = (values + delta).square(), (values - delta).clamp(min=0.0).square()
        joint = (gaussian_gain(grown) - gaussian_gain(shrunk)).sum()
        marginal = values.new_zeros(())
        for pulls, _, left_over, leak in (self._leave_one_out, self._given_others):
            pull = pulls.square().sum(0).sqrt() * (1 + leak)
            marginal = torch.maximum(marginal, (2 * delta * pull / (1 + left_over)).max())
        conditional = 2 * delta * own.sqrt() / (1 + own)
        by_spread = joint + marginal + conditional.max()
        rounding = self._backward * (self.kl_to_prior(x) + self.kl_conditional(x).amax(1))
        return size * by_mean + by_mean.square() + by_spread + rounding + _TINY

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(z; x) = ½ Σ log1p(ρ_i)`` in nats: the average KL under the model's own data."""
        values = self._svd[1]
        total = torch.log1p(values.square()).sum().item() / 2
        delta = self._backward * values.max()
        error = (2 * values * delta / (1 + values.square())).sum().item() + self._backward * total
        return Estimate(value=total, error=error, method="closed form")

    def directions(self, x: Any = None) -> Directions:
        """Make collapse visible: what the data tell about each principal direction of the latents.

        Along a right singular vector of B the posterior variance is ``1/(1 + ρ_j)`` for every datum, and
        ``KL_j = ½[h(ρ_j) + m_j²]``, ``Σ_j KL_j = KL``. Under the model, ``E KL_j = ½ log(1 + ρ_j)`` and
        ``Var m_j = ρ_j/(1 + ρ_j) = AU_j``, so that ``E KL_j = −½ log(1 − AU_j)``. PPCA fitted by maximum
        likelihood has these averages on its own data too: ``KL_j = ½ log(λ_j/σ²)₊``, and a direction dies
        when its eigenvalue falls to σ² (Tipping & Bishop 1999, eq. 7; Lucas et al. 2019).

        Source: Tipping & Bishop 1999, JRSS-B 61:611; Burda et al. 2016 (active units); Lucas et al. 2019.

        Args:
            x: data (n, D), n ≥ 1, to average over; None for the averages under the model alone.

        Raises:
            ValueError: no row of data, or as at every door.
        """
        _, values, right = self._svd
        gain = values.square()
        mean_kl = mean_square = None
        if x is not None:
            x = self._rows(x).to(torch.float64)
            if len(x) == 0:
                raise ValueError("x should have at least one row, got none")
            here = self._at(x)
            pull = here._svd[0] * (here._svd[1] / (1 + here._svd[1].square()))
            mean_square = here._by_block(x, lambda r: (r @ pull).square()).mean(0)
            mean_kl = (gaussian_gain(here._svd[1].square()) + mean_square) / 2
        return Directions(
            directions=right,
            gain=gain,
            posterior_variance=1 / (1 + gain),
            mutual_information=torch.log1p(gain) / 2,
            active=gain / (1 + gain),
            mean_kl=mean_kl,
            mean_square=mean_square,
        )

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(u) = −½ uᵀAu + bᵀu + const``, b = Bᵀr, under N(0, I) from W and x.

        ``V = ½ tr A² + |b|²``; ω = ∞ unless W = 0. ``E_Q|∇ℓ|² = |m|² + tr(A S A)``, since b − Am = m; here m
        and S come from the QR factors of [B; I]. The two moments under Q are on their safe side (T4.4).

        Source: theory/T4; moments of a Gaussian quadratic form.
        """
        x = self._rows(x)
        here = self._at(x)
        parts = [here._some_flatness(block.to(torch.float64)) for block in here._split(x)]
        moments = [torch.cat(column) for column in zip(*parts, strict=True)]
        return Flatness(
            variance=moments[0],
            variance_error=moments[1],
            oscillation=torch.full_like(moments[0], math.inf if bool(here._loadings.any()) else 0.0),
            log_sobolev=1.0,
            gradient_second_moment=moments[2],
            mean_shift=moments[3],
        )

    def _some_flatness(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
        error_of_variance = 2 * size * slope_error + slope_error.square() + self._backward * variance
        steep = (shift + error).square() + trace * (1 + self._backward)
        return variance, error_of_variance + _TINY, steep, (shift - error).clamp(min=0.0).square()

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Give the posterior mean and standard deviation of each latent."""
        x = self._rows(x)
        here = self._at(x)
        start, root = here._prior_mean, here._prior_root
        scale = 1.0 if root is None else root.square().sum(1).sqrt()
        mean = here._by_block(x, lambda r: here._means(r, here._leave_one_out)) * scale
        sd = scale / (1 + here._leave_one_out[2]).sqrt()
        mean = mean if start is None else mean + start
        return mean.to(x.dtype), sd.to(x.dtype).expand_as(mean)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n k"]]:
        """Draw n rows ``(x, z)``."""
        n = number_of_draws(n, generator)
        d, k = self._loadings.shape
        like = {"dtype": torch.float64, "device": self._loadings.device, "generator": generator}
        u = torch.randn(n, k, **like)
        apart = u if self._prior_root is None else u @ self._prior_root.T
        x = apart @ self._loadings.T + self._centre + self._noise * torch.randn(n, d, **like)
        return x, apart if self._prior_mean is None else apart + self._prior_mean

    def symbolic(self) -> Model:
        """Give the model in SymPy, in exact rationals: ``x ~ Normal(W z + μ, ψ)``."""
        raise NotImplementedError


def symbolic_rows(model: Model, z: Any, loadings: Tensor, offset: Tensor, noise: Tensor) -> Model:
    """Add ``x ~ Normal(W z + offset, noise)`` to a declared model, all numbers as exact rationals."""
    means = [
        sum((families.exact(w) * z[j] for j, w in enumerate(row)), families.exact(start))
        for row, start in zip(loadings.tolist(), offset.tolist(), strict=True)
    ]
    model.observe("x", families.Normal(means, [families.exact(s) for s in noise.tolist()]), shape=len(means))
    return model

"""Differences of Gaussian log densities without cancellation, by two formulas that share no arithmetic.

``log N(x; μ_k, C_k) − log N(x; μ_0, C_0)`` is what a mixture's posterior is made of. Subtracting two log
densities loses it where components are nearly equal or the datum lies far out; these formulas are built from
the differences δ = μ_k − μ_0 and ∆ = C_k − C_0, so that equal components give exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps
# Up to this size of C_0^-½ ∆ C_0^-½ a component is "near": log1p of its eigenvalues is accurate, and the
# integrand along the segment has its poles at distance ≥ 2 from [0, 1], where 12 Gauss points give 1e-18.
_NEAR = 0.5
_GAUSS_POINTS = 12


@dataclass(frozen=True, eq=False)
class Gaussians:
    """K normal laws, the first of which is the reference that the others are compared with."""

    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]
    factors: Float[Tensor, "k d d"]
    """Lower triangular L with L Lᵀ = C."""
    excess: Float[Tensor, "k d d"]
    """∆ = C − C_0, given apart because callers may know it better than by subtraction."""

    @property
    def slack(self) -> float:
        """A few roundings, times the condition of the correlation matrices: scaling an axis costs nothing."""
        scale = self.covariances.diagonal(dim1=1, dim2=2).sqrt()
        correlation = self.covariances / (scale[:, :, None] * scale[:, None, :])
        if not bool(correlation.tril(-1).any()):
            return 8 * (self.means.shape[1] + 1) * _EPS
        eigenvalues = torch.linalg.eigvalsh(correlation)
        condition = (eigenvalues[:, -1] / eigenvalues[:, 0].clamp(min=_EPS)).max().item()
        return 8 * (self.means.shape[1] + 1) * condition * _EPS

    def log_density(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """``log N(x; μ_k, C_k)`` in nats, each component centred before its product."""
        apart = _whiten(self.factors, x - self.means[:, None, :])
        half_log_det = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = half_log_det + self.means.shape[1] * np.log(2 * np.pi) / 2
        return -(apart.square().sum(1) / 2 + constant[:, None]).T


def ratio_by_difference(gaussians: Gaussians, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Give ``log N(x; k) − log N(x; 0)`` by the algebra of differences.

    With y = x − μ_0, P = C⁻¹ and P_k − P_0 = −P_0 ∆ P_k:
    ``½[δᵀP_k(2y − δ) + yᵀP_0 ∆ P_k y] − ½ log det(I + C_0⁻¹∆)``, where 2y − δ = (x − μ_0) + (x − μ_k).
    Far from each other components are better served by ``½|L_0⁻¹y|² − ½|L_k⁻¹(x − μ_k)|²``: per entry, the
    form with the smaller error bound is taken.

    Source: elementary; the error bounds are those of triangular solves (Higham 2002, Thm 8.5).

    Args:
        gaussians: the components, the reference first.
        x: data, float64.

    Returns:
        The differences in nats and a bound on their absolute errors, both (n, k).
    """
    d = gaussians.means.shape[1]
    factors, reference = gaussians.factors, gaussians.factors[:1]
    shift = _whiten(factors, (gaussians.means - gaussians.means[0])[:, None, :])[:, :, 0]
    y = x - gaussians.means[0]
    by_reference = _whiten(reference, y[None])[0]
    by_component = _whiten(factors, y.expand(len(factors), -1, -1))
    apart = _whiten(factors, x - gaussians.means[:, None, :])

    # L_0⁻¹ ∆ L_k⁻ᵀ
    left = torch.linalg.solve_triangular(reference, gaussians.excess, upper=False)
    mixed = torch.linalg.solve_triangular(factors, left.mT, upper=False).mT
    twice = torch.einsum("kd,kdn->kn", shift, by_component + apart)
    twice = twice + torch.einsum("dn,kde,ken->kn", by_reference, mixed, by_component)
    far_twice = by_reference.square().sum(0) - apart.square().sum(1)

    def norm(vectors: Tensor) -> Tensor:
        return torch.linalg.vector_norm(vectors, dim=-2)

    near_size = norm(shift[:, :, None]) * (norm(by_component) + norm(apart))
    size = torch.linalg.matrix_norm(mixed)[:, None]
    near_size = near_size + size * norm(by_reference) * norm(by_component)
    far_size = by_reference.square().sum(0) + apart.square().sum(1)
    half = torch.where(near_size <= far_size, twice, far_twice) / 2

    eigenvalues, spread = _relative_excess(gaussians)
    logs = (factors.diagonal(dim1=1, dim2=2) / reference.diagonal(dim1=1, dim2=2)).log()
    near = spread <= _NEAR
    half_log_det = torch.where(near, torch.log1p(eigenvalues.clamp(min=-_NEAR)).sum(1) / 2, logs.sum(1))
    log_det_size = torch.where(near, spread, d + logs.abs().sum(1))
    error = gaussians.slack * (torch.minimum(near_size, far_size) / 2 + log_det_size[:, None])
    return (half - half_log_det[:, None]).T, error.T + reading_error(gaussians, x)


def ratio_by_segment(gaussians: Gaussians, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Give ``log N(x; k) − log N(x; 0)`` as the integral of its derivative along the segment between them.

    With μ_s = μ_0 + sδ, C_s = C_0 + s∆, g_s = C_s⁻¹(x − μ_s):
    ``∫₀¹ [g_sᵀδ + ½ g_sᵀ∆g_s − ½ tr(C_s⁻¹∆)] ds``, by Gauss–Legendre; every term is linear in δ or ∆.
    Components whose covariances are far apart are left to torch's own MultivariateNormal.

    Source: the fundamental theorem of calculus.

    Args:
        gaussians: the components, the reference first.
        x: data, float64.

    Returns:
        The differences in nats and a bound on their absolute errors, both (n, k).
    """
    shift = gaussians.means - gaussians.means[0]
    y = x - gaussians.means[0]
    total = x.new_zeros(len(shift), len(x))
    size = torch.zeros_like(total)
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS_POINTS)
    for s, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        covariance = gaussians.covariances[0] + s * gaussians.excess
        factor = torch.linalg.cholesky(covariance)
        step = _whiten(factor, shift[:, None, :])[:, :, 0]
        start = _whiten(factor, y.expand(len(shift), -1, -1))
        apart = start - s * step[:, :, None]
        left = torch.linalg.solve_triangular(factor, gaussians.excess, upper=False)
        change = torch.linalg.solve_triangular(factor, left.mT, upper=False).mT
        trace = change.diagonal(dim1=1, dim2=2).sum(1)
        curve = torch.einsum("kdn,kde,ken->kn", apart, change, apart)
        total += weight * (torch.einsum("kd,kdn->kn", step, apart) + curve / 2 - trace[:, None] / 2)
        reach = torch.linalg.vector_norm(start, dim=1) + s * torch.linalg.vector_norm(step, dim=1)[:, None]
        spread = torch.linalg.matrix_norm(change)[:, None]
        size += weight * (torch.linalg.vector_norm(step, dim=1)[:, None] * reach + spread * (reach**2 + 1))

    laws = torch.distributions.MultivariateNormal(
        gaussians.means, scale_tril=gaussians.factors, validate_args=False
    )
    logs = laws.log_prob(x[:, None, :]).T
    constants = gaussians.factors.diagonal(dim1=1, dim2=2).log().abs().sum(1)[:, None] + shift.shape[1]
    distances = logs.abs() + 2 * constants
    near = (_relative_excess(gaussians)[1] <= _NEAR)[:, None]
    ratio = torch.where(near, total, logs - logs[0])
    error = gaussians.slack * torch.where(near, size, distances + distances[0])
    return ratio.T, error.T + reading_error(gaussians, x)


def reading_error(gaussians: Gaussians, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Bound what half a unit in the last place of every input can change in a log ratio.

    A verdict reads each float as its shortest decimal, a posterior as the binary number that it is; this is
    the distance between the two readings. Inputs that two components share move both: equal ones give 0.

    Args:
        gaussians: the components, the reference first.
        x: data.

    Returns:
        First-order bounds in nats, (n, k).
    """
    apart = _whiten(gaussians.factors, x - gaussians.means[:, None, :])
    pull = torch.linalg.solve_triangular(gaussians.factors.mT, apart, upper=True)
    means, covariances = gaussians.means.abs()[:, :, None], gaussians.covariances.abs()
    own, first, between = pull.abs(), pull[:1].abs(), (pull - pull[0]).abs()
    same_mean = (gaussians.means == gaussians.means[0])[:, :, None]
    by_mean = torch.where(same_mean, between * means, own * means + first * means[:1]).sum(1)
    same_covariance = (gaussians.covariances == gaussians.covariances[0]).flatten(1).all(1)[:, None]
    # |P|·|C| summed: what relative changes of C do to its log determinant.
    sway = (torch.cholesky_inverse(gaussians.factors).abs() * covariances).sum((1, 2))[:, None]

    def form(left: Tensor, right: Tensor) -> Tensor:
        return torch.einsum("kdn,kde,ken->kn", left, covariances, right)

    own_form = form(own, own) + sway
    by_covariance = torch.where(same_covariance, form(between, own + first), own_form + own_form[:1])
    by_datum = (between * x.abs().T).sum(1)
    return _EPS / 2 * (by_datum + by_mean + by_covariance / 2).T


def _whiten(factors: Tensor, rows: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factors, rows.mT, upper=False)


def _relative_excess(gaussians: Gaussians) -> tuple[Tensor, Tensor]:
    reference = gaussians.factors[:1]
    left = torch.linalg.solve_triangular(reference, gaussians.excess, upper=False)
    relative = torch.linalg.solve_triangular(reference, left.mT, upper=False)
    return torch.linalg.eigvalsh((relative + relative.mT) / 2), torch.linalg.matrix_norm(relative)

"""The four kinds of covariances of a Gaussian mixture: their shapes, what is refused, and their M-step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.mixtures.fit import shares

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
_EPS = torch.finfo(torch.float64).eps
_SYMMETRY_TOLERANCE = 1e-12  # of a correlation: what the rounding of a product A C Aᵀ leaves
_BLOCK = 2**19


def check_covariance_type(covariance_type: str) -> None:
    """Refuse what is none of the four.

    Raises:
        ValueError: it is none.
    """
    if covariance_type not in COVARIANCE_TYPES:
        raise ValueError(
            f"covariance_type should be one of {', '.join(COVARIANCE_TYPES)}, got {covariance_type!r}"
        )


def shape_of(covariance_type: str, count: int, d: int) -> tuple[int, ...]:
    """Give the shape of K covariances in d dimensions, by scikit-learn's conventions.

    >>> shape_of("tied", 3, 2)
    (2, 2)
    """
    return {"full": (count, d, d), "tied": (d, d), "diag": (count, d), "spherical": (count,)}[covariance_type]


def as_full(
    covariances: Float[Tensor, "*shape"], covariance_type: str, count: int, d: int
) -> Float[Tensor, "count d d"]:
    """Write covariances of any type as K matrices."""
    if covariance_type == "full":
        return covariances
    if covariance_type == "tied":
        return covariances.expand(count, d, d)
    if covariance_type == "diag":
        return torch.diag_embed(covariances)
    return torch.diag_embed(covariances[:, None].expand(count, d))


def refuse_covariances(covariances: Float[Tensor, "*shape"], covariance_type: str) -> None:
    """Refuse variances that are not positive, and matrices that are asymmetric or singular.

    Raises:
        ValueError: with the component, the matrix and its least eigenvalue.
    """
    if covariance_type in ("diag", "spherical"):
        refused = torch.nonzero(covariances <= 0)
        if len(refused):
            place = tuple(refused[0].tolist())
            where = ", ".join(map(str, place))
            raise ValueError(f"covariances[{where}] should be positive, got {covariances[place].item()}")
        return
    named = (
        {"covariances": covariances}
        if covariance_type == "tied"
        else {f"covariances[{k}]": matrix for k, matrix in enumerate(covariances)}
    )
    for name, covariance in named.items():
        variance = covariance.diagonal()
        if not bool((variance > 0).all()):
            raise ValueError(f"{name} should have a positive diagonal, got {variance.min().item()} on it")
        scale = variance.sqrt()
        correlation = covariance / (scale[:, None] * scale)
        if bool(((correlation - correlation.T).abs() > _SYMMETRY_TOLERANCE).any()):
            raise ValueError(f"{name} should be symmetric, got {covariance.tolist()}")
        least = torch.linalg.eigvalsh(correlation)[0].item()
        if least <= len(covariance) * _EPS:
            raise ValueError(
                f"{name} should be positive definite, got {covariance.tolist()}, "
                f"whose correlation matrix has the eigenvalue {least:.3g}"
            )


def maximised(
    x: Float[Tensor, "n d"],
    mass: Float[Tensor, "n k"],
    covariance_type: str,
    least: Float[Tensor, " d"],
    old: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the weights, means and covariances that maximise the expected log-likelihood (the M-step).

    ``π_k = N_k/n``, ``μ_k = Σ r x/N_k``, ``C_k = Σ r (x − μ_k)(x − μ_k)ᵀ/N_k``, subject to ``C_k ⪰ diag(least)``: where
    the bound bites, eigenvalues below 1 of the whitened covariance become 1, which is the constrained maximum.

    Source: Dempster, Laird & Rubin 1977; Ingrassia & Rocci 2007 (constrained eigenvalues).

    Args:
        x: data, float64.
        mass: responsibilities, rows summing to one.
        covariance_type: one of the four.
        least: least variances; 0 for none.
        old: the current means and covariances, kept by components without data.

    Raises:
        ValueError: a covariance is singular, which only `least` of 0 lets happen.
    """
    weights, held = shares(mass)
    total = mass.sum(0)[:, None].clamp(min=1e-300)
    centre = x.mean(0)
    means = centre + mass.T @ (x - centre) / total
    if old is not None:
        means = torch.where(held[:, None], means, old[0])
    matrices = covariance_type in ("full", "tied")
    shift, moment = _moments(x, mass, means, matrices)
    # The means above are rounded at the size of the data; the shift corrects them to the size of the component.
    shift = torch.where(held[:, None], shift / total, 0.0)
    means = means + shift
    if matrices:
        covariances = moment / total[:, :, None] - shift[:, :, None] * shift[:, None, :]
    else:
        covariances = moment / total - shift.square()
    if covariance_type == "tied":
        covariances = (weights[:, None, None] * covariances).sum(0)
    elif covariance_type == "spherical":
        covariances = covariances.mean(1)
    floor = least.mean() if covariance_type == "spherical" else least
    covariances = _at_least(covariances, floor) if matrices else covariances.clamp(min=floor)
    if old is not None and covariance_type != "tied":
        kept = held.reshape(-1, *[1] * (covariances.ndim - 1))
        covariances = torch.where(kept, covariances, old[1])
    _refuse_shrunk(covariances, covariance_type)
    return weights, means, covariances


def _moments(x: Tensor, mass: Tensor, means: Tensor, matrices: bool) -> tuple[Tensor, Tensor]:
    """``Σ r (x − μ_k)`` and ``Σ r (x − μ_k)(x − μ_k)ᵀ``, or its diagonal, each component centred on its own mean."""
    count, d = means.shape
    shift = x.new_zeros(count, d)
    moment = x.new_zeros(count, d, d) if matrices else x.new_zeros(count, d)
    size = max(256, _BLOCK // (count * d))
    for first in range(0, len(x), size):
        apart = x[None, first : first + size] - means[:, None, :]
        weighed = apart * mass[first : first + size].T[:, :, None]
        shift += weighed.sum(1)
        if matrices:
            moment.baddbmm_(weighed.mT, apart)
        else:
            moment += (weighed * apart).sum(1)
    return shift, moment


def _at_least(covariances: Tensor, least: Tensor) -> Tensor:
    covariances = (covariances + covariances.mT) / 2
    if not bool((least > 0).all()):
        return covariances
    scale = least.sqrt()
    relative = covariances / (scale[:, None] * scale)
    values, vectors = torch.linalg.eigh(relative)
    low = values[..., 0] < 1
    if not bool(low.any()):
        return covariances
    lifted = (vectors * values.clamp(min=1.0)[..., None, :]) @ vectors.mT * (scale[:, None] * scale)
    return torch.where(low[..., None, None], (lifted + lifted.mT) / 2, covariances)


def _refuse_shrunk(covariances: Tensor, covariance_type: str) -> None:
    if covariance_type in ("diag", "spherical"):
        broken = covariances <= 0
    else:
        broken = torch.linalg.cholesky_ex(covariances).info > 0
    if bool(broken.any()):
        raise ValueError(
            "floor should be positive for these data: a component shrank onto too few of them and its covariance "
            "became singular, where the likelihood has no maximum"
        )

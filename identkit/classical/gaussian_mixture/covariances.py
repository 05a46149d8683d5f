"""The four kinds of covariances of a Gaussian mixture: their shapes, what is refused, and their M-step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.mixtures.fit import shares_of

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
_EPS = torch.finfo(torch.float64).eps
_FAR = 1 - 2.0**-20
"""A mean that moves by a thousand of its component's new standard deviations leaves ten digits of its covariance."""
_SYMMETRY_TOLERANCE = 1e-12  # of a correlation: what the rounding of a product A C Aᵀ leaves


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


class Parameters(NamedTuple):
    """What a fit climbs in."""

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "*shape"]
    """In the shape of their type."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the data, weighed by the responsibilities r of each component, about a point m of each.

    First everything is added, then the rest is read off.
    """

    covariance_type: str
    mass: Float[Tensor, " k"]
    """``Σ r``."""
    first: Float[Tensor, "k d"]
    """``Σ r (x − m)``."""
    second: Float[Tensor, "*shape"]
    """``Σ r (x − m)(x − m)ᵀ``, or of it what the type asks for: the sum over components, the diagonal, the trace."""

    @classmethod
    def none(cls, covariance_type: str, points: Float[Tensor, "k d"]) -> Moments:
        """Give the sums over no data."""
        second = points.new_zeros(shape_of(covariance_type, *points.shape))
        return cls(covariance_type, torch.zeros_like(points[:, 0]), torch.zeros_like(points), second)

    def add(self, apart: Float[Tensor, "k n d"], mass: Float[Tensor, "k n"]) -> None:
        """Add data ``x − m`` with their responsibilities, in place."""
        self.mass.add_(mass.sum(1))
        self.first.add_((mass[:, None, :] @ apart)[:, 0])
        if self.covariance_type == "full":
            self.second.baddbmm_((apart * mass[:, :, None]).mT, apart)
        elif self.covariance_type == "tied":
            self.second.addmm_((apart * mass[:, :, None]).flatten(0, 1).mT, apart.flatten(0, 1))
        elif self.covariance_type == "diag":
            self.second.add_((mass[:, None, :] @ apart.square())[:, 0])
        else:
            self.second.add_((mass * apart.square().sum(2)).sum(1))

    @cached_property
    def shift(self) -> Float[Tensor, "k d"]:
        """From the points m to the means of the components; 0 where one holds nothing."""
        return self.first / self.mass[:, None].clamp(min=1e-300)

    @cached_property
    def by_shift(self) -> Float[Tensor, "*shape"]:
        """What the second moments about m have more than those about the means."""
        shift, first = self.shift, self.first
        if self.covariance_type == "full":
            return shift[:, :, None] * first[:, None, :]
        if self.covariance_type == "tied":
            return shift.mT @ first
        return shift * first if self.covariance_type == "diag" else (shift * first).sum(1)

    @property
    def far(self) -> bool:
        """Whether some m is so far from its mean that the covariances would keep too few digits."""
        most, own = self.second, self.by_shift
        if self.covariance_type in ("full", "tied"):
            most, own = most.diagonal(dim1=-2, dim2=-1), own.diagonal(dim1=-2, dim2=-1)
        return bool((own > _FAR * most).any())

    @property
    def covariances(self) -> Float[Tensor, "*shape"]:
        """The second moments about the means, divided by what each holds: ``Σ r``, n for tied, d·Σ r for spherical."""
        apart = self.second - self.by_shift
        if self.covariance_type == "tied":
            return apart / self.mass.sum()
        columns = self.first.shape[1] if self.covariance_type == "spherical" else 1
        held = columns * self.mass.clamp(min=1e-300)
        return apart / held.reshape(-1, *[1] * (apart.ndim - 1))


def maximised(
    moments: Moments, about: Float[Tensor, "k d"], old: Parameters | None, least: Float[Tensor, "*d"]
) -> Parameters:
    """Give the weights, means and covariances that maximise the expected log-likelihood (the M-step).

    ``π_k = N_k/n``, ``μ_k = Σ r x/N_k``, ``C_k = Σ r (x − μ_k)(x − μ_k)ᵀ/N_k``, subject to ``C_k ⪰ diag(least)``: where
    the bound bites, eigenvalues below 1 of the whitened covariance become 1, which is the constrained maximum.

    Source: Dempster, Laird & Rubin 1977; Ingrassia & Rocci 2007 (constrained eigenvalues).

    Args:
        moments: of the data about the points below.
        about: m, near the new mean of each component.
        old: the current parameters, kept by components without data.
        least: least variances, (d,) or one for spherical covariances; 0 for none.

    Raises:
        ValueError: a covariance is singular, which only `least` of 0 lets happen.
    """
    covariance_type = moments.covariance_type
    weights, held = shares_of(moments.mass)
    means, covariances = about + moments.shift, moments.covariances
    if covariance_type in ("full", "tied"):
        covariances = _at_least(covariances, least)
    else:
        covariances = covariances.clamp(min=least)
    if old is not None and not bool(held.all()):
        means = torch.where(held[:, None], means, old.means)
        if covariance_type != "tied":
            kept = held.reshape(-1, *[1] * (covariances.ndim - 1))
            covariances = torch.where(kept, covariances, old.covariances)
    _refuse_shrunk(covariances, covariance_type)
    return Parameters(weights, means, covariances)


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

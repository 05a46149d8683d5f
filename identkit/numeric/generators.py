"""Affine vector fields that the law does not notice, read off the Jacobians at prior draws.

``X = Σ_i (A z + b)_i ∂_i`` leaves the law alone when ``J(z)(A z + b) = 0`` for every z: at each draw that is linear in
(A, b), and the fields are the null space of all these equations together (theory, "Continuous invariances"). They say
*how* the null directions turn from draw to draw: shifts, rotations, scalings.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.numeric.prior import Prior
from identkit.numeric.spectrum import Spectrum
from identkit.numeric.wording import signed_sum

LATENTS = 12  # beyond, k² + k unknowns are too many to name
_ROUNDING = 256
_SNAP = 1e-7  # a coefficient this close to a small fraction is meant to be that
_DENOMINATOR = 12
_SAME_PRIOR = 1e-8


@dataclass(frozen=True, kw_only=True)
class Generator:
    """The field ``(A z + b)·∂``, scaled so that its largest coefficient is 1."""

    matrix: Float[Tensor, "k k"]
    offset: Float[Tensor, " k"]
    kind: str
    """translation, scaling, rotation, shear or other"""
    text: str
    """Such as ``z[1]*d/dz[2] - z[2]*d/dz[1]``."""
    about: tuple[str, ...]
    """The latents that it moves."""
    preserves_prior: bool
    """Whether ``X log p + div X = 0`` at the draws."""


def generators(found: Spectrum, prior: Prior, eps: float) -> tuple[Generator, ...]:
    """Find all affine fields along which no draw's law moves.

    Args:
        found: the Jacobians at the draws.
        prior: whose density the fields are compared with.
        eps: the rounding of the Jacobians.
    """
    z = found.z
    k = z.shape[1]
    if k > LATENTS or found.full_rank.any():
        return ()
    points = torch.cat([z, torch.ones_like(z[:, :1])], 1)
    # At each draw J·(A z + b) is linear in the entries of (A | b), with coefficients J ⊗ (z, 1).
    equations = torch.einsum("nqk,nl->nqkl", found.seen, points).reshape(-1, k * (k + 1))
    _, values, right = torch.linalg.svd(equations, full_matrices=True)
    values = torch.nn.functional.pad(values, (0, len(right) - len(values)))
    basis = right[values <= _ROUNDING * eps * k * values.max()]
    fields = [_field(row.reshape(k, k + 1), z, prior) for row in _simple(basis)]
    fields.sort(key=lambda field: (field.kind != "translation", len(field.about)))
    return _independent(fields, z)


def _independent(fields: list[Generator], z: Float[Tensor, "n k"]) -> tuple[Generator, ...]:
    """Those that point where the ones before do not: with X every f·X is a field too, and tells nothing new."""
    kept: list[Generator] = []
    for field in fields:
        vectors = torch.stack([z @ f.matrix.mT + f.offset for f in (*kept, field)], 2)
        unit = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        if int((torch.linalg.svdvals(unit) > _SNAP).sum(1).max()) > len(kept):
            kept.append(field)
    return tuple(kept)


def _simple(basis: Float[Tensor, "s m"]) -> Float[Tensor, "s m"]:
    """A basis of the same span with many zeros: reduced echelon form, small entries first made exact."""
    rows = basis.clone()
    pivots = 0
    for column in range(rows.shape[1]):
        if pivots == len(rows):
            break
        best = pivots + int(rows[pivots:, column].abs().argmax())
        if rows[best, column].abs() < 1e-6:
            continue
        rows[[pivots, best]] = rows[[best, pivots]]
        rows[pivots] /= rows[pivots, column].clone()
        others = torch.arange(len(rows), device=rows.device) != pivots
        rows[others] -= rows[others, column : column + 1] * rows[pivots]
        pivots += 1
    rows /= rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    return torch.where(rows.abs() < _SNAP, 0.0, rows)


def _field(coefficients: Float[Tensor, "k l"], z: Float[Tensor, "n k"], prior: Prior) -> Generator:
    matrix, offset = coefficients[:, :-1], coefficients[:, -1]
    moved = coefficients.ne(0).any(1)
    names = prior.names
    return Generator(
        matrix=matrix,
        offset=offset,
        kind=_kind(matrix, offset),
        text=_written(coefficients, names),
        about=tuple(name for name, moves in zip(names, moved.tolist(), strict=True) if moves),
        preserves_prior=_keeps(matrix, offset, z, prior),
    )


def _kind(matrix: Tensor, offset: Tensor) -> str:
    if not matrix.any():
        return "translation"
    if torch.allclose(matrix, -matrix.mT, atol=_SNAP):
        return "rotation"
    diagonal = torch.diag(torch.diagonal(matrix))
    if torch.equal(matrix, diagonal) and not offset.any():
        return "scaling"
    return "shear" if not (matrix @ matrix).abs().max() > _SNAP else "other"


def _keeps(matrix: Tensor, offset: Tensor, z: Tensor, prior: Prior) -> bool:
    """Whether the flow keeps the prior: ``X log p + div X = 0``, compared at the draws."""
    points = z.detach().clone().requires_grad_()
    density = prior.log_prob(points).sum()
    # A uniform density has no graph, and its slope is 0.
    slope = torch.autograd.grad(density, points)[0] if density.requires_grad else torch.zeros_like(z)
    moved = z @ matrix.mT + offset
    change = (slope * moved).sum(1) + torch.diagonal(matrix).sum()
    size = (slope * moved).abs().sum(1) + 1
    return bool((change.abs() <= _SAME_PRIOR * size).all()) and not bool(
        (torch.isfinite(prior.low) | torch.isfinite(prior.high))[moved.ne(0).any(0)].any()
    )


def _written(coefficients: Tensor, names: tuple[str, ...]) -> str:
    """The field in words, ``z[1]*d/dz[2] - z[2]*d/dz[1]``."""
    terms: list[tuple[float, str]] = []
    for i, name in enumerate(names):
        for source, value in zip((*names, None), coefficients[i].tolist(), strict=True):
            if value:
                factors = [_number(abs(value)), source, f"d/d{name}"]
                shown = "*".join(f for f in factors if f not in (None, "1"))
                terms.append((value, shown))
    return signed_sum(terms) or "0"


def _number(value: float) -> str:
    near = Fraction(value).limit_denominator(_DENOMINATOR)
    return str(near) if abs(value - near) < _SNAP else f"{value:.6g}"

"""Flat directions of a law, and walks along the curves of equal law that they span.

A rank below k at one point proves no continuum (theory/T6: z³ at 0). Evidence is a *walk*: a curve from z on which
the law stays the same but for rounding, of a length that rounding cannot explain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from identkit.numeric.rounding import change_of_law, flat_below, slopes, unit
from identkit.numeric.search import Yardstick, polish

_CANCELS = 1e3  # in eps: derivatives of a deep network that should cancel do so to this part of their terms
_OF_LARGEST = 8  # in eps: the singular value decomposition's own error, beside the largest of them
_HALVINGS = 40  # of the way from a flat region out of it
_OUTSIDE = 1e-3  # spreads of the prior: this far outside, a region that ends at a kink is left for good
_ABRUPT = 1e4  # units of rounding by which the law then changes over the same distance
_STRIDES = 8  # of a quarter of the length each: a walk that turns gets there all the same


@dataclass(frozen=True)
class Ranks:
    """The law's Jacobian at n latents."""

    columns: Float[Tensor, "n q k"]
    """Its entries, in units of `rounding` per spread of the prior."""
    rounding: Float[Tensor, "n q"]
    """The change that rounding can make in each parameter."""
    rank: Int[Tensor, " n"]
    weakest: Float[Tensor, " n"]
    """The smallest singular value (0 where there are fewer parameters than latents)."""
    flat: Float[Tensor, "n k k"]
    """The projector on the flat directions."""


def ranks(yard: Yardstick, z: Float[Tensor, "n k"]) -> Ranks:
    """Decompose the law's Jacobian at each latent into what is seen and what is flat."""
    _, rounding = unit(yard.p, z, yard.scale)
    columns = slopes(yard.p, z, yard.scale, rounding)
    square = torch.linalg.qr(columns, mode="r")[1]  # the same singular values, and q no longer matters
    values, right = torch.linalg.svd(square, full_matrices=False)[1:]
    # Flat is what changes no parameter by its rounding and is itself but the rounding of a sum that cancels: a slope of
    # 1e-6 in float32 may change nothing, and yet is no 0.
    summed = (columns.abs() @ right.mT.abs()).norm(dim=1)
    rounded = torch.finfo(values.dtype).eps * torch.maximum(_CANCELS * summed, _OF_LARGEST * values[:, :1])
    seen = (values >= flat_below(columns.shape[1])) | (values > rounded)
    visible = right * seen.unsqueeze(2)
    eye = torch.eye(yard.size, dtype=z.dtype, device=z.device)
    weakest = values[:, -1] if values.shape[1] == yard.size else torch.zeros_like(values[:, 0])
    return Ranks(columns, rounding, seen.sum(1), weakest, eye - visible.mT @ visible)


def walk(
    yard: Yardstick, z: Float[Tensor, "n k"], flat: Float[Tensor, "n k k"], length: float, seed: int = 0
) -> tuple[Float[Tensor, "n k"], Bool[Tensor, " n"]]:
    """Walk from each z along its flat directions until `length` spreads of the prior away.

    First straight ahead, either way (ignored latents, dead cells); where that leaves the fibre, in strides with a
    Newton correction after each.

    Args:
        flat: the projectors on the flat directions at z.

    Returns:
        where the walks end, and whether they got there with the law unchanged and inside the prior's support.
    """
    generator = torch.Generator(z.device).manual_seed(seed)
    heading = _unit(flat @ torch.randn(*z.shape, 1, dtype=z.dtype, device=z.device, generator=generator))
    end, arrived = z.clone(), torch.zeros(len(z), dtype=torch.bool, device=z.device)
    for sign in (1, -1):
        ahead = z + sign * 1.01 * length * heading * yard.scale
        good = yard.inside(ahead) & ~arrived
        at = torch.nonzero(good).squeeze(1)
        if len(at):
            at = at[change_of_law(yard.p, z[at], ahead[at], yard.scale) <= 1]
            end[at], arrived[at] = ahead[at], True
    for sign in (1, -1):
        at = torch.nonzero(~arrived).squeeze(1)
        if len(at):
            ends, good = _strides(yard, z[at], sign * heading[at], length)
            end[at[good]], arrived[at[good]] = ends[good], True
    return end, arrived


def abrupt(
    yard: Yardstick, z: Float[Tensor, "n k"], end: Float[Tensor, "n k"], out: Float[Tensor, "n k"]
) -> Bool[Tensor, " n"]:
    """Whether the flat region about z ends abruptly on the way to `out`: at a kink, and not by saturation.

    ``tanh(20 z)`` is 1 to the last bit for z > 1 and yet injective. Its slope fades through all magnitudes; that of a
    dead ReLU (or of its square) stands at once where the cell ends. So go to the end of the region and a little out.

    Args:
        end: where a walk from z on the fibre led: the direction that is flat at z.
        out: latents with fewer flat directions.
    """
    heading = _unit((end - z) / yard.scale) * yard.scale * _OUTSIDE
    inner, outer = torch.zeros_like(z[:, :1]), torch.ones_like(z[:, :1])
    for _ in range(_HALVINGS):
        middle = (inner + outer) / 2
        here = z + middle * (out - z)
        flat = (change_of_law(yard.p, here, here + heading, yard.scale) <= 1).unsqueeze(1)
        inner, outer = torch.where(flat, middle, inner), torch.where(flat, outer, middle)
    way = yard.distance(z, out).unsqueeze(1)
    here = z + (outer + _OUTSIDE / way) * (out - z)
    return change_of_law(yard.p, here, here + heading, yard.scale) >= _ABRUPT


def _strides(yard: Yardstick, z: Tensor, heading: Tensor, length: float) -> tuple[Tensor, Tensor]:
    here, on_fibre = z.clone(), torch.ones(len(z), dtype=torch.bool, device=z.device)
    far = torch.zeros_like(on_fibre)
    for _ in range(_STRIDES):
        at = torch.nonzero(on_fibre & ~far).squeeze(1)
        if not len(at):
            break
        root = polish(yard, z[at], here[at] + length / 4 * heading[at] * yard.scale)
        moved = _unit((root.two - here[at]) / yard.scale)
        here[at], on_fibre[at] = root.two, (root.residual <= 1) & yard.inside(root.two)
        far[at] = yard.distance(z[at], root.two) >= length
        heading[at] = moved
        still = at[on_fibre[at] & ~far[at]]
        if len(still):
            flat = ranks(yard, here[still]).flat
            heading[still] = _unit(flat @ heading[still].unsqueeze(2))
    return here, on_fibre & far


def _unit(vectors: Tensor) -> Tensor:
    """Rows (or columns of a batch) of length one; a zero vector stays one."""
    flat = vectors.reshape(len(vectors), -1)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)

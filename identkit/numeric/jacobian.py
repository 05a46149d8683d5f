"""Jacobians of what a model computes from its latents: many rows at once, in pieces that fit memory."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

PIECE = 1 << 22
"""Numbers that one piece of work may hold (32 MB in float64; a decoder's inner layers hold about as many again)."""


def jacobians(
    function: Callable[[Tensor], Tensor], z: Float[Tensor, "n k"], directions: Tensor | None = None
) -> Float[Tensor, "n p r"]:
    """Differentiate a function that treats rows apart: ``∂ function(z)_ip / ∂ z_ij`` for every row i.

    Forward mode (a column for each direction) or reverse mode (a row for each output), whichever is shorter; the other
    one where the decoder's code does not take the first, and plain autograd where it takes neither.

    Args:
        function: (n, k) → (n, p), row by row.
        z: where.
        directions: (k, r), derivatives along its columns instead of along the k latents.
    """
    _load_forward_mode()
    with torch.no_grad():
        outputs = function(z[:1]).shape[1]
    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device) if directions is None else directions.to(z)
    width = basis.shape[1]
    ways = [_forward, _reverse] if width <= 2 * outputs else [_reverse, _forward]
    rows = max(1, PIECE // max(1, min(width, 2 * outputs) * max(outputs, z.shape[1], 512)))
    return torch.cat([_first(ways, function, part, basis) for part in z.detach().split(rows)])


_Way = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]


def _first(ways: list[_Way], function: Callable[[Tensor], Tensor], z: Tensor, basis: Tensor) -> Tensor:
    for way in ways:
        try:
            return way(function, z, basis)
        except RuntimeError:  # an operation without this derivative, or one that cannot be batched
            continue
    return _looped(function, z, basis)


@functools.cache
def _load_forward_mode() -> None:
    """Import torch's rules for forward derivatives, whose own use of torch.jit.script warns of its deprecation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def _forward(function: Callable[[Tensor], Tensor], z: Tensor, basis: Tensor) -> Tensor:
    # The rows are independent, so one tangent serves all of them; and only the tangents are batched by vmap, so that
    # the decoder runs once, and what looks at values (``if not valid.all()``) meets ordinary ones.
    def push(direction: Tensor) -> Tensor:
        return torch.func.jvp(function, (z,), (direction.expand_as(z),))[1]

    return torch.func.vmap(push)(basis.mT).permute(1, 2, 0).detach()


def _reverse(function: Callable[[Tensor], Tensor], z: Tensor, basis: Tensor) -> Tensor:
    pulled = torch.func.vjp(function, z)
    values, pull = pulled[0], pulled[1]
    outputs = torch.eye(values.shape[1], dtype=z.dtype, device=z.device)
    rows = torch.func.vmap(lambda weight: pull(weight.expand_as(values))[0])(outputs)
    return rows.permute(1, 0, 2).detach() @ basis


def _looped(function: Callable[[Tensor], Tensor], z: Tensor, basis: Tensor) -> Tensor:
    """Plain autograd, an output at a time: for decoders that are themselves gradients, taken by autograd."""
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        totals = function(leaf).sum(0)
    if not totals.requires_grad:
        return z.new_zeros(len(z), len(totals), basis.shape[1])
    rows = [torch.autograd.grad(each, leaf, retain_graph=True, allow_unused=True)[0] for each in totals]
    return torch.stack([torch.zeros_like(z) if row is None else row for row in rows], 1).detach() @ basis

"""Invert a Brenier map: damped Newton with the exact Hessian in few dimensions, Newton-CG in many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from identkit.lidvae.brenier import BrenierMap

EXACT = 32
"""The largest dimension in which Hessians are formed and factorised."""
_STEPS = 200
_HALVINGS = 24
_DECREASE = 1e-4
_CLOSE = 1e-14  # of 1 + ‖y‖: nothing below it can be told from rounding

# The merit is ‖g(x) − y‖ itself. Along the Newton direction p = −H⁻¹(g(x) − y) the derivative of its square is
# −2‖g(x) − y‖², so a short enough step always helps, and H ⪰ αI leaves no stationary point but the solution: damped
# Newton converges from everywhere. An inexact p with ‖H p + g − y‖ ≤ η‖g − y‖, η < 1, descends just as well
# (Eisenstat & Walker 1994). Strong convexity turns the residual into an error: ‖x − x*‖ ≤ ‖g(x) − y‖/α.


def solve(g: BrenierMap, y: Float[Tensor, "e n d"]) -> tuple[Float[Tensor, "e n d"], Float[Tensor, "e n"]]:
    """Solve ``g(x) = y`` for every row of every member, in the precision of g.

    Returns:
        x and the residuals ``‖g(x) − y‖`` that are left, where no step reduces them any more.

    Source: Nocedal & Wright 2006, algorithms 7.1 and 11.4.
    """
    x = torch.zeros_like(y)
    apart = g(x) - y
    size = apart.norm(dim=2)
    moving = size > _CLOSE * (1 + y.norm(dim=2))
    for _ in range(_STEPS):
        if not bool(moving.any()):
            break
        direction = _exact(g, x, apart) if y.shape[2] <= EXACT else _conjugate(g, x, apart, moving)
        before = size
        x, apart, size = _shortened(g, y, x, apart, size, direction, moving)
        moving = moving & (size < before) & (size > _CLOSE * (1 + y.norm(dim=2)))
    return x, size


def _exact(g: BrenierMap, x: Tensor, apart: Tensor) -> Tensor:
    return torch.linalg.solve(g.hessian(x), apart.unsqueeze(3)).squeeze(3)


def _conjugate(
    g: BrenierMap, x: Float[Tensor, "e n d"], apart: Float[Tensor, "e n d"], moving: Bool[Tensor, "e n"]
) -> Float[Tensor, "e n d"]:
    """Conjugate gradients for ``H p = g(x) − y``, each row on its own, to a share of the residual that shrinks with it."""
    curvature = g.curvature(x)
    size = apart.norm(dim=2)
    wanted = size * size.clamp(max=0.1)
    found, rest = torch.zeros_like(apart), apart
    search, square = rest, rest.square().sum(2)
    for _ in range(2 * apart.shape[2]):
        going = moving & (square.sqrt() > wanted)
        if not bool(going.any()):
            break
        image = curvature(search)
        length = torch.where(going, square / (search * image).sum(2), 0.0).unsqueeze(2)
        found, rest = found + length * search, rest - length * image
        fresh = rest.square().sum(2)
        search = rest + torch.where(going, fresh / square, 0.0).unsqueeze(2) * search
        square = fresh
    return found


def _shortened(
    g: BrenierMap,
    y: Tensor,
    x: Tensor,
    apart: Tensor,
    size: Tensor,
    direction: Tensor,
    moving: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve each row's step until its residual falls; a row that no step helps stays where it is."""
    step = torch.ones_like(size)
    waiting = moving
    for _ in range(_HALVINGS):
        trial = x - step.unsqueeze(2) * direction
        trial_apart = g(trial) - y
        trial_size = trial_apart.norm(dim=2)
        better = waiting & (trial_size <= (1 - _DECREASE * step) * size)
        x = torch.where(better.unsqueeze(2), trial, x)
        apart = torch.where(better.unsqueeze(2), trial_apart, apart)
        size = torch.where(better, trial_size, size)
        waiting = waiting & ~better
        if not bool(waiting.any()):
            break
        step = torch.where(waiting, step / 2, step)
    return x, apart, size

"""The peaks of smooth densities in a few dimensions: a grid of looks, and a climb from each that stands out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_POINTS_AT_ONCE = 1 << 18
_STARTS = 64
_CLIMBS = 80
_STEPS = (1.0, 0.5, 0.2, 0.04, 0.004)
_DEPTH = 40.0  # nats below the top that a second peak may have unheeded
_CLOSE = 0.05  # standard deviations between two ends of climbs up one peak
# Of the spread of all peaks together: where one is narrower, equal steps would be too coarse. In three dimensions
# `bell` has finer ones.
_NARROW, _NARROW_IN_SPACE = 0.35, 0.2
_LEVEL = 1e-9  # nats that a Newton step would still gain at the top

Height = Callable[[Tensor, Tensor], Tensor]
"""rows (m,) and t (m, k) → log density (m,), twice differentiable in t."""


@dataclass(frozen=True)
class Peaked:
    """Where each density lives: the mean and covariance of normal laws put on all its peaks that count.

    A lone peak's covariance is its inverse curvature. `together`: no peak is much narrower than all of them together.
    """

    top: Tensor
    covariance: Tensor
    together: Tensor


def peaks(height: Height, axes: Sequence[Tensor], n: int) -> Peaked:
    """Climb from every local maximum on a grid by Newton's method, and compare where the climbs end.

    A density without derivatives, or one with more local maxima on the grid than are worth climbing, is not
    `together`.

    Args:
        height: rows and t → log density.
        axes: the points of the grid along each latent, rising.
        n: number of densities.

    >>> two = lambda rows, t: torch.logaddexp(-(t[:, 0] - 3) ** 2, -(t[:, 0] + 3) ** 2)
    >>> peaks(two, [torch.linspace(-4, 4, 9, dtype=torch.float64)], 1).together
    tensor([False])
    """
    k = len(axes)
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    size = max(1, _POINTS_AT_ONCE // grid[..., 0].numel())
    top = torch.zeros(n, k, dtype=torch.float64)
    covariance = torch.eye(k, dtype=torch.float64).repeat(n, 1, 1)
    together = torch.zeros(n, dtype=torch.bool)
    for rows in torch.arange(n).split(size):
        many = rows.repeat_interleave(grid[..., 0].numel())
        heights = _finite(height(many, grid.reshape(-1, k).repeat(len(rows), 1)))
        heights = heights.reshape(len(rows), *grid.shape[:-1])
        summit = _summits(heights).flatten(1)
        few = summit.sum(1) <= _STARTS
        best, at = torch.where(summit, heights.flatten(1), -math.inf).topk(min(_STARTS, summit.shape[1]), 1)
        row, column = torch.nonzero(best > -math.inf, as_tuple=True)
        ends = _climb(height, rows[row], grid.reshape(-1, k)[at[row, column]])
        if ends is not None:
            found = [_compared(row == i, *ends) for i in range(len(rows))]
            for i, (place, shape, near) in enumerate(found):
                top[rows[i]], covariance[rows[i]], together[rows[i]] = place, shape, near and bool(few[i])
    return Peaked(top, covariance, together)


def _finite(height: Tensor) -> Tensor:
    return height.detach().nan_to_num(-math.inf, -math.inf, -math.inf)


def _summits(heights: Tensor) -> Tensor:
    """Which nodes are no lower than any neighbour, diagonal ones included: a ridge is full of the other kind."""
    highest = heights
    for axis in range(1, heights.ndim):
        length = heights.shape[axis]
        padded = highest.movedim(axis, -1)
        padded = torch.nn.functional.pad(padded, (1, 1), value=-math.inf).movedim(-1, axis)
        shifted = [padded.narrow(axis, start, length) for start in range(3)]
        highest = torch.stack(shifted).amax(0)
    return (heights >= highest) & (heights > -math.inf)


def _climb(height: Height, rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Ends of the climbs (m, k), their heights, negative Hessians, and what a Newton step would still gain."""
    t, k = t.clone(), t.shape[1]
    level = torch.full((len(t),), -math.inf, dtype=torch.float64)
    hessian = torch.zeros(len(t), k, k, dtype=torch.float64)
    gain = torch.full_like(level, math.inf)
    active = torch.arange(len(t))
    for _ in range(_CLIMBS):
        derivatives = _derivatives(height, rows[active], t[active])
        if derivatives is None:
            return None
        level[active], slope, hessian[active] = derivatives
        bend, basis = torch.linalg.eigh(hessian[active])
        along = (basis.mT @ slope[..., None])[..., 0]
        # Uphill where the density curves the wrong way as well.
        steep = bend.abs().clamp(min=1e-10 * bend.abs().amax(1, keepdim=True) + 1e-200)
        gain[active] = (along.square() / steep).sum(1)
        step = (basis @ (along / steep)[..., None])[..., 0]
        moving = (gain[active] > _LEVEL) & step.isfinite().all(1) & level[active].isfinite()
        active, step = active[moving], step[moving]
        if not len(active):
            break
        shares = torch.tensor(_STEPS, dtype=torch.float64)[:, None, None]
        tried = t[active] + shares * step
        many = rows[active].repeat(len(_STEPS))
        reached = _finite(height(many, tried.reshape(-1, k))).reshape(len(_STEPS), -1)
        highest, which = reached.max(0)
        better = highest > level[active]
        chosen = tried[which, torch.arange(len(active))]
        active, chosen = active[better], chosen[better]
        t[active] = chosen
        if not len(active):
            break
    return t, level, -hessian, gain


def _derivatives(height: Height, rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        level = height(rows, t)
        if not level.requires_grad:
            return None
        slope = torch.autograd.grad(level.sum(), t, create_graph=True)[0]
        bends = []
        for j in range(t.shape[1]):
            bend = (
                torch.autograd.grad(slope[:, j].sum(), t, retain_graph=True, allow_unused=True)[0]
                if slope.requires_grad
                else None
            )
            bends.append(torch.zeros_like(t) if bend is None else bend)
    hessian = torch.stack(bends, 1).detach().nan_to_num(0.0, 0.0, 0.0)
    slope = slope.detach().nan_to_num(0.0, 0.0, 0.0)
    return _finite(level), slope, (hessian + hessian.mT) / 2


def _compared(
    mine: Tensor, t: Tensor, level: Tensor, bend: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor, bool]:
    """The peaks of one density as `Peaked` has them, from the ends of its climbs."""
    k = t.shape[1]
    failed = torch.zeros(k, dtype=torch.float64), torch.eye(k, dtype=torch.float64), False
    t, level, bend, gain = t[mine], level[mine], bend[mine], gain[mine]
    if not len(t):
        return failed
    best = int(level.argmax())
    curvature = torch.linalg.eigvalsh(bend[best])
    if not (curvature[0] > 1e-13 * curvature[-1] and gain[best] < 1e-3 and level[best].isfinite()):
        return failed
    covariance = torch.linalg.inv(bend[best])
    away = t - t[best]
    distance = torch.einsum("mi,ij,mj->m", away, bend[best], away).clamp(min=0).sqrt()
    # A climb that stuck on the way counts by what it could still have gained.
    matters = level + torch.where(gain < _DEPTH, gain, math.inf) > level[best] - _DEPTH
    covariance = (covariance + covariance.T) / 2
    if bool(((distance < _CLOSE) | ~matters).all()):
        return t[best], covariance, True
    return _united(t[matters], level[matters], bend[matters])


def _united(t: Tensor, level: Tensor, bend: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Mean and covariance of a mixture of normal laws on the peaks, and whether none of these is much narrower."""
    k = t.shape[1]
    if bool((torch.linalg.eigvalsh(bend)[:, 0] <= 0).any()):
        return torch.zeros(k, dtype=torch.float64), torch.eye(k, dtype=torch.float64), False
    shapes = torch.linalg.inv(bend)
    weight = torch.softmax(level + torch.logdet(shapes) / 2, 0)
    mean = weight @ t
    away = t - mean
    covariance = torch.einsum("m,mij->ij", weight, shapes + away[:, :, None] * away[:, None, :])
    covariance = (covariance + covariance.T) / 2
    whitened = torch.linalg.solve(torch.linalg.cholesky(covariance), shapes)
    narrowest = torch.linalg.eigvalsh(torch.linalg.solve(torch.linalg.cholesky(covariance), whitened.mT))[
        :, 0
    ]
    least = _NARROW_IN_SPACE if k == 3 else _NARROW
    return mean, covariance, bool((narrowest > least**2).all())

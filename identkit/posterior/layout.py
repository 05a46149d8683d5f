"""Where to lay the first cells of an integral: over the mass of prior and joint density, split at peaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.posterior.locate import (
    DEPTH,
    JOINT,
    PRIOR,
    Look,
    Peaks,
    Samples,
    density,
    sharpen,
    spacing,
    tops,
    widen,
)

_WALL_ROUNDS = 60
# A cell is a sliver, not worth its nodes, when it is this much narrower than both its neighbours.
_SLIVER = 0.3
_SWEEPS = 6
# Where, in widths from a peak, the first graded mark stands: a Gaussian has ended by then.
_RING = 13.0

Cells = tuple[Tensor, Tensor, Tensor]
"""Flat: the problem of each cell, its left and its right end; in rising order within a problem at first."""


@dataclass(frozen=True)
class Marks:
    """Flat marks on the lines: a stretch begins (+1) or ends (−1), or a cell is to be split (0)."""

    problem: Int[Tensor, " b"]
    t: Float[Tensor, " b"]
    step: Int[Tensor, " b"]

    def of(self, chosen: Tensor) -> Marks:
        return Marks(self.problem[chosen], self.t[chosen], self.step[chosen])

    def extent(self, count: int) -> tuple[Tensor, Tensor]:
        """The outermost marks of each of `count` problems, (∞, −∞) where there are none."""
        low = torch.full((count,), math.inf, dtype=torch.float64)
        low = low.scatter_reduce(0, self.problem, self.t, "amin")
        return low, (-torch.full_like(low, math.inf)).scatter_reduce(0, self.problem, self.t, "amax")

    def sorted(self) -> Marks:
        order = torch.argsort(self.t, stable=True)
        return self.of(order[torch.argsort(self.problem[order], stable=True)])

    @staticmethod
    def cat(parts: list[Marks]) -> Marks:
        return Marks(*(torch.cat([getattr(p, name) for p in parts]) for name in ("problem", "t", "step")))


def stretches(samples: Samples, which: int, look: Look, known: Peaks) -> tuple[Samples, Marks, Peaks]:
    """Where one of the two densities lives: its stretches, split at and around its peaks.

    Returns:
        The samples with what was looked at added, the marks, and the known peaks with those found.
    """
    samples = widen(samples, which, look)
    samples, found = sharpen(samples, which, look)
    peaks = known.and_(found)
    ends = _walls(samples, which, look)
    low, high = ends.extent(len(samples.t))
    top, _, width = samples.top(which)
    apart = (peaks.t - top[peaks.problem]).abs() > torch.minimum(peaks.width, width[peaks.problem])
    marks = Marks.cat([ends, _graded(tops(samples, which).and_(peaks.of(apart)), high - low)]).sorted()
    return samples, marks.of((marks.step != 0) | (marks.step.cumsum(0) > 0)), peaks


def layout(samples: Samples, prior: Marks, joint: Marks) -> Cells:
    """Lay the first cells.

    Where prior and joint density have one peak each, of comparable widths, two or three cells hold both:
    split at the joint's peak, or around it. Elsewhere every mark counts.
    """
    count = len(samples.t)
    every = Marks.cat([prior, joint])
    low, high = every.extent(count)
    plain = torch.ones(count, dtype=torch.bool)
    for marks in (prior, joint):
        plain &= torch.bincount(marks.problem, minlength=count) == 3
    _, _, wide = samples.top(PRIOR)
    t, _, width = samples.top(JOINT)
    width = torch.minimum(width, wide)
    reach = torch.maximum(high - t, t - low)
    two = plain & (reach <= 10.5 * width)
    three = plain & ~two & (reach <= torch.minimum(24 * width, 4.5 * width + 10 * wide))
    three &= (t - low > 6 * width) & (high - t > 6 * width)
    few = two | three
    every = every.of(~few[every.problem])
    problem, left, right = cells(every, joint.t[joint.step == 0])
    halves = [low[two], t[two], high[two]]
    thirds = [low[three], (t - 4.5 * width)[three], (t + 4.5 * width)[three], high[three]]
    for chosen, edges in ((two, halves), (three, thirds)):
        number = torch.nonzero(chosen)[:, 0]
        problem = torch.cat([problem, number.repeat(len(edges) - 1)])
        left, right = torch.cat([left, *edges[:-1]]), torch.cat([right, *edges[1:]])
    order = torch.argsort(left)
    order = order[torch.argsort(problem[order], stable=True)]
    return problem[order], left[order], right[order]


def cells(marks: Marks, keep_slivers_at: Tensor) -> Cells:
    """Cut the marked stretches at all marks inside them.

    A mark that leaves a sliver is dropped, unless its position is among `keep_slivers_at`.
    """
    marks = marks.sorted()
    problem, t, step = marks.problem, marks.t, marks.step
    precious = torch.isin(t, keep_slivers_at)
    for sweep in range(_SWEEPS):
        cut = (problem[1:] == problem[:-1]) & (step.cumsum(0)[:-1] > 0) & (t[1:] > t[:-1])
        # Where marks coincide there is no cell between them, hence the width 0.
        width = torch.where(cut, t[1:] - t[:-1], 0.0)
        least = torch.zeros_like(width)
        least[1:-1] = torch.minimum(width[:-2], width[2:])
        sliver = torch.nonzero((width > 0) & (width < _SLIVER * least))[:, 0]
        drop = torch.where(precious[sliver] & ~precious[sliver + 1], sliver + 1, sliver)
        drop = drop[step[drop] == 0]
        if not len(drop) or sweep == _SWEEPS - 1:
            break
        stay = torch.ones(len(t), dtype=torch.bool)
        stay[drop] = False
        problem, t, step, precious = problem[stay], t[stay], step[stay], precious[stay]
    return problem[:-1][cut], t[:-1][cut], t[1:][cut]


def _walls(samples: Samples, which: int, look: Look) -> Marks:
    """Find the stretches on which the density is within `DEPTH` of its top; each end lies just outside."""
    t, heights = samples.t, samples.heights(which)
    credited, top = samples.reach(which)
    inside = (credited > top[:, None] - DEPTH) & (top.isfinite() & samples.legible(which))[:, None]
    outside = torch.zeros_like(inside[:, :1])
    starts = torch.nonzero(inside & ~torch.cat([outside, inside[:, :-1]], 1))
    ends = torch.nonzero(inside & ~torch.cat([inside[:, 1:], outside], 1))
    problem = torch.cat([starts[:, 0], ends[:, 0]])
    column = torch.cat([starts[:, 1], ends[:, 1]])
    step = torch.cat([torch.ones(len(starts), dtype=torch.int64), -torch.ones(len(ends), dtype=torch.int64)])
    beyond = (column - step).clamp(0, t.shape[1] - 1)
    near, far = t[problem, column], t[problem, beyond]
    # A line still high at its very end (widening gave up) ends there.
    far = torch.where(far.isfinite(), far, near)
    # What the distance counts at the far end is granted to the whole gap.
    top = top[problem] - (credited - heights)[problem, beyond].nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
    near_drop = (top - heights[problem, column]).clamp(0.0, DEPTH)
    far_drop = torch.where(far == near, DEPTH, top - heights[problem, beyond])
    active = torch.nonzero(far_drop > 1.5 * DEPTH)[:, 0]
    for round_ in range(_WALL_ROUNDS):
        if not len(active):
            break
        # √drop is linear in t for a Gaussian, so that the first step lands; every third step bisects.
        root = near_drop[active].sqrt()
        share = (math.sqrt(1.2 * DEPTH) - root) / (far_drop[active].sqrt() - root)
        share = torch.where((share > 0) & (round_ % 3 < 2), share, 0.5)
        middle = near[active] + share * (far[active] - near[active])
        logs = look(problem[active], middle)
        drop = top[active] - density(logs, which, samples.best()[problem[active]])
        outer = drop >= DEPTH
        far[active] = torch.where(outer, middle, far[active])
        far_drop[active] = torch.where(outer, drop, far_drop[active])
        near[active] = torch.where(outer, near[active], middle)
        near_drop[active] = torch.where(outer, near_drop[active], drop)
        gap = (far[active] - near[active]).abs()
        active = active[(far_drop[active] > 1.5 * DEPTH) & (gap > 8 * spacing(far[active]))]
    return Marks(problem, far, step)


def _graded(peaks: Peaks, reach: Tensor) -> Marks:
    """Mark each peak and points at geometrically growing distances: wide cells follow small ones."""
    reach = reach[peaks.problem]
    usable = peaks.width.isfinite() & (peaks.width > 0) & (reach > 0)
    steps = torch.log(reach / (_RING * peaks.width))[usable] / math.log(8.0)
    rings = _RING * 8.0 ** torch.arange(
        max(int(steps.amax().ceil()), 0) if len(steps) else 0, dtype=torch.float64
    )
    offsets = torch.cat([-rings, torch.zeros(1, dtype=torch.float64), rings])
    away = torch.where(usable, peaks.width, 0.0)[:, None] * offsets
    keep = (usable[:, None] | (offsets == 0)) & (away.abs() < reach[:, None])
    problem = peaks.problem[:, None].expand_as(away)[keep]
    return Marks(problem, (peaks.t[:, None] + away)[keep], torch.zeros(len(problem), dtype=torch.int64))

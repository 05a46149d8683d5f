"""One continuous latent integrated out: locate, lay cells, look again, refine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from identkit.posterior.adaptive import CELLS_AT_ONCE, Evaluate, at_nodes, nodes_of, refine
from identkit.posterior.bayes import Values, joint_heights
from identkit.posterior.chart import Chart, continued
from identkit.posterior.layout import Cells, Marks, cells, layout, stretches
from identkit.posterior.locate import (
    BLUR,
    DEPTH,
    JOINT,
    PRIOR,
    RESOLVED,
    Look,
    Peaks,
    Samples,
    sharpen,
    tops,
    widen,
)
from identkit.posterior.nested import Folded, Level

_LINES_AT_ONCE = 512
# Distances from the top of the prior, in its widths, at which a guide is looked at.
_RINGS = 0.05 * 1.15 ** torch.arange(90, dtype=torch.float64)
_REFITS = 8
_MARCHES = 12


class _TooManyCells(Exception):
    """A batch of lines needs more cells than are held at a time."""


@dataclass(frozen=True)
class Line:
    """One continuous latent, integrated over adaptively."""

    column: int
    chart: Chart
    grid: Tensor
    """(g,) points t at which to begin looking, from around the prior's middle to very far out."""
    inner: Level
    tolerance: float
    scout: int = 0
    """How many more points to look at across the prior's stretch, and twice as many wherever the posterior may lie."""
    guides: tuple[Level, ...] = ()
    """Levels like `inner` of which only the peaks are wanted."""

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        return self.fold_from(rows, z, None)

    def fold_from(self, rows: Tensor, z: Tensor, seeds: Peaks | None) -> Folded:
        """As `fold`, with peaks known beforehand."""
        parts = []
        for start in range(0, len(rows), _LINES_AT_ONCE):
            block = slice(start, start + _LINES_AT_ONCE)
            known = Peaks(
                *(torch.zeros(0, dtype=kind) for kind in (torch.int64, torch.float64, torch.float64))
            )
            if seeds is not None:
                known = seeds.of((seeds.problem >= start) & (seeds.problem < start + _LINES_AT_ONCE))
                known = Peaks(known.problem - start, known.t, known.width)
            parts.append(self._lines(rows[block], z[block], known))
        return Folded.cat(parts)

    def _lines(self, rows: Tensor, z: Tensor, known: Peaks) -> Folded:
        try:
            return self._together(rows, z, known)
        except _TooManyCells:
            # Lines with hundreds of peaks each: half of them at a time, so that memory stays bounded.
            middle = len(rows) // 2
            low, high = known.of(known.problem < middle), known.of(known.problem >= middle)
            high = Peaks(high.problem - middle, high.t, high.width)
            return Folded.cat(
                [self._lines(rows[:middle], z[:middle], low), self._lines(rows[middle:], z[middle:], high)]
            )

    def _together(self, rows: Tensor, z: Tensor, known: Peaks) -> Folded:
        count = len(rows)

        def evaluate(problem: Tensor, t: Tensor) -> Values:
            return self.values(rows[problem], z[problem], t)

        def look(problem: Tensor, t: Tensor) -> Tensor:
            values = evaluate(problem, t)
            return torch.stack([values.log_prior, values.log_likelihood])

        t = self.grid.expand(count, -1)
        logs = look(torch.arange(count).repeat_interleave(t.shape[1]), t.flatten())
        samples = Samples(t, logs.reshape(2, *t.shape))
        samples, prior, _ = stretches(samples, PRIOR, look, known.of(known.problem < 0))
        if self.scout:
            samples = _scouted(samples, prior, self.scout, look)
        for guide in self.guides:
            known = known.and_(replace(self, inner=guide, guides=())._pointed(rows, z))
        for side in (-1, 0, 1) if len(known.t) else ():
            t = known.t + side * known.width
            samples = samples.with_points(known.problem, t, look(known.problem, t))
        samples, joint, known = stretches(samples, JOINT, look, known)
        far = torch.zeros(count, dtype=torch.bool)
        if self.scout:
            far = _outside(prior, samples.top(JOINT)[0])
        for _ in range(_MARCHES):
            if not far.any():
                break
            hull, (top, _, width) = Marks.cat([prior, joint]), samples.top(JOINT)
            samples = _afar(samples, hull.of(far[hull.problem]), top, self.scout, look)
            samples, joint, known = stretches(samples, JOINT, look, known)
            far &= (samples.top(JOINT)[0] - top).abs() > width
        base = _few(layout(samples, prior, joint), count)
        first = at_nodes(evaluate, base)
        for _ in range(_REFITS):
            busy = _unresolved(base, first, count)
            if not busy.any():
                break
            samples, known, base, first = _refit(samples, known, prior, base, first, busy, evaluate, look)
        values, mean, sd = refine(evaluate, self.chart.place, base, first, count, self.tolerance)
        return Folded(values, mean[:, None], sd[:, None])

    def _pointed(self, rows: Tensor, z: Tensor) -> Peaks:
        """The peaks of the joint density on each line, without its mass."""
        count = len(rows)

        def look(problem: Tensor, t: Tensor) -> Tensor:
            values = self.values(rows[problem], z[problem], t)
            return torch.stack([values.log_prior, values.log_likelihood])

        t = self.grid.expand(count, -1)
        logs = look(torch.arange(count).repeat_interleave(t.shape[1]), t.flatten())
        samples = Samples(t, logs.reshape(2, *t.shape))
        # Islands on either side of 0, as of z², need points between them; rings reach into heavy tails, too.
        centre, _, width = samples.top(PRIOR)
        width = torch.where(width.isfinite() & (width > 0), width, 1.0)
        t = (centre[:, None] + width[:, None] * torch.cat([-_RINGS, _RINGS])).flatten()
        problem = torch.arange(count).repeat_interleave(2 * len(_RINGS))
        samples = samples.with_points(problem, t, look(problem, t))
        samples, others = sharpen(widen(samples, JOINT, look), JOINT, look)
        peaks = tops(samples, JOINT).and_(others)
        return peaks.of(peaks.width.isfinite() & (peaks.width > 0) & peaks.t.isfinite())

    def values(self, rows: Tensor, z: Tensor, t: Tensor) -> Values:
        """The inner values as densities over t, continued where floats cannot tell how far an end is.

        There log p and ℓ are ``h + s·τ + b·e^τ``, τ = log of the distance in units of the least one: a
        power of the distance times a factor smooth at the end. Three exact points next to it give h, s and
        b, a fourth their error.
        """
        if self.chart.straight:
            return self._at_point(rows, z, t)
        low, high = self.chart.clip()
        values = self._at_point(rows, z, self.chart.point(t.clamp(low, high))).map(torch.clone)
        for upper in (False, True):
            beyond = torch.nonzero(t > high if upper else t < low)[:, 0]
            if not len(beyond):
                continue
            depth = (high - t if upper else t - low)[beyond]
            ends = self.chart.at_end(upper)
            near = self._at_point(
                rows[beyond].repeat(4), z[beyond].repeat(4, 1), ends.repeat_interleave(len(beyond))
            )
            values.log_prior[beyond], wrong = continued(near.log_prior, depth)
            values.prior_error[beyond] = near.prior_error.reshape(4, -1).amax(0) * (1 - 8 * depth) + wrong
            values.log_likelihood[beyond], wrong = continued(near.log_likelihood, depth)
            values.error[beyond] = near.error.reshape(4, -1).amax(0) * (1 - 8 * depth) + wrong
        return values

    def _at_point(self, rows: Tensor, z: Tensor, point: Tensor) -> Values:
        z = z.clone()
        z[:, self.column] = point
        v = self.inner.fold(rows, z).values
        return v if self.chart.straight else replace(v, log_prior=v.log_prior + self.chart.log_stretch(point))


def _few(cells: Cells, count: int) -> Cells:
    """The cells, if they are few enough or those of a single line."""
    if count > 1 and len(cells[0]) > CELLS_AT_ONCE:
        raise _TooManyCells
    return cells


def _outside(prior: Marks, top: Tensor) -> Tensor:
    """On which lines the highest point is not in the inner part of the prior's stretch, 4 of 10 sds of a Gaussian; (m,)."""
    low, high = prior.extent(len(top))
    return (top - (low + high) / 2).abs() > 0.2 * (high - low)


def _scouted(samples: Samples, prior: Marks, number: int, look: Look) -> Samples:
    """Look at evenly spaced points across the prior as well: a needle on a flat likelihood shows no slope."""
    low, high = prior.extent(len(samples.t))
    share = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    return _with(samples, low[:, None] + (high - low)[:, None] * share, look)


def _afar(samples: Samples, hull: Marks, top: Tensor, number: int, look: Look) -> Samples:
    """Look across prior and posterior, as far again beyond them, and ever closer around the highest point so far.

    A far prior does not show which of several peaks is the highest, and the first one found may be any of them.
    """
    low, high = hull.extent(len(samples.t))
    side = torch.linspace(-1, 1, 2 * number, dtype=torch.float64)
    centres = [(low + high) / 2, top, top, top]
    t = [
        centre[:, None] + (high - low)[:, None] * (4.0**-scale * side) for scale, centre in enumerate(centres)
    ]
    return _with(samples, torch.cat(t, 1), look)


def _with(samples: Samples, t: Tensor, look: Look) -> Samples:
    problem, which = torch.nonzero(t.isfinite(), as_tuple=True)
    return samples.with_points(problem, t[problem, which], look(problem, t[problem, which]))


def _refit(
    samples: Samples,
    known: Peaks,
    prior: Marks,
    base: Cells,
    first: Values,
    busy: Tensor,
    evaluate: Evaluate,
    look: Look,
) -> tuple[Samples, Peaks, Cells, Values]:
    """Lay cells anew on the lines where the nodes show a peak that the samples had not shown."""
    chosen = torch.nonzero(busy)[:, 0]
    number = torch.full((len(busy),), -1, dtype=torch.int64)
    number[chosen] = torch.arange(len(chosen))
    mine = busy[base[0]]
    t = nodes_of(base[1][mine], base[2][mine])
    logs = torch.stack([first.log_prior[mine].flatten(), first.log_likelihood[mine].flatten()])
    local = samples.of(chosen).with_points(
        number[base[0][mine]].repeat_interleave(t.shape[1]), t.flatten(), logs
    )
    peaks = known.of(busy[known.problem]).renumbered(number)
    local, joint, peaks = stretches(local, JOINT, lambda problem, t: look(chosen[problem], t), peaks)
    own = prior.of(busy[prior.problem])
    marks = Marks.cat([Marks(number[own.problem], own.t, own.step), joint])
    problem, left, right = cells(marks, joint.t[joint.step == 0])
    new = _few((chosen[problem], left, right), len(busy))
    owner, left, right = (torch.cat([old[~mine], fresh]) for old, fresh in zip(base, new, strict=True))
    order = torch.argsort(owner, stable=True)
    values = Values.cat([first.map(lambda v: v[~mine]), at_nodes(evaluate, new)]).map(lambda v: v[order])
    peaks = known.of(~busy[known.problem]).and_(peaks.renumbered(chosen))
    return samples.replaced(chosen, local), peaks, (owner[order], left[order], right[order]), values


def _unresolved(base: Cells, first: Values, count: int) -> Tensor:
    """Which lines have nodes that rise between far lower ones, or are still high where a stretch ends."""
    owner, left, right = base
    joint = joint_heights(owner, count, first)
    top = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce(0, owner, joint.amax(1), "amax")
    floor = (top - DEPTH + 3)[owner]
    joined = torch.zeros(len(owner), 2, dtype=torch.bool)
    joined[1:, 0] = (owner[1:] == owner[:-1]) & (left[1:] == right[:-1])
    joined[:-1, 1] = joined[1:, 0]
    odd = ((joint[:, [0, -1]] > floor[:, None]) & ~joined).any(1)
    # A cell's ends are judged with the neighbouring cell's nodes.
    before = torch.where(joined[:, 0], joint[:, -2].roll(1), -math.inf)
    after = torch.where(joined[:, 1], joint[:, 1].roll(-1), -math.inf)
    around = torch.cat([before[:, None], joint, after[:, None]], 1)
    lower, middle, higher = around[:, :-2], joint, around[:, 2:]
    size = first.log_likelihood.abs().nan_to_num(0.0, 0.0, 0.0)
    clear = RESOLVED + BLUR * (size + middle.abs())
    peak = (middle >= lower) & (middle > higher) & (torch.minimum(lower, higher) < middle - clear)
    peak[:, 0] &= joined[:, 0]
    peak[:, -1] &= joined[:, 1]
    odd |= peak.any(1)
    least = torch.full((count,), math.inf, dtype=torch.float64).scatter_reduce(0, owner, size.amin(1), "amin")
    odd &= BLUR * least[owner] < 1  # otherwise all is rounding
    return torch.bincount(owner[odd], minlength=count) > 0

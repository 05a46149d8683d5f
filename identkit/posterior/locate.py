"""Where a density on the real line has its peaks, however sharp or far away.

Peaks are looked for in the *logarithm* of the density: a peak a millionth as wide as the grid is invisible
in the density itself, while its logarithm slopes towards it from everywhere around. Everything is done for
a whole batch of lines ("problems") at once, and for two densities on each of them: the prior and the joint
``p(z) p(x | z)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

PRIOR, JOINT = 0, 1

#: Nats below a density's top at which it is cut off: e⁻⁴³ = 2e-19, 9.3 standard deviations of a Gaussian.
DEPTH = 43.0
# Neighbours of a peak less than this far below it show its shape; otherwise it may rise between them.
RESOLVED = 4.0
_ZOOM_ROUNDS = 90
_PEAKS = 256
#: Relative to its size, what rounding may add to or take from a log density.
BLUR = 1.5e-14
_WIDEN_ROUNDS = 40

Look = Callable[[Tensor, Tensor], Tensor]
"""``look(problem, t)``, two (m,) tensors → log prior density and log-likelihood there, (2, m)."""


def density(logs: Tensor, which: int, level: Tensor) -> Tensor:
    """The log prior density or the log joint density above a level of ℓ, of which only differences matter.

    Where ℓ is -1e19, adding log p to it without the level would lose log p.
    """
    if which == PRIOR:
        return logs[0]
    return torch.where(logs[0] == -math.inf, -math.inf, logs[0] + (logs[1] - level))


@dataclass(frozen=True)
class Samples:
    """Points on each line in rising order, padded at the end with t = ∞, and log p and ℓ there."""

    t: Float[Tensor, "m w"]
    logs: Float[Tensor, "2 m w"]

    def best(self) -> Tensor:
        """The highest ℓ of each problem, (m,), or 0 where it is −∞ throughout."""
        best = self.logs[1].amax(1)
        return torch.where(best.isfinite(), best, 0.0)

    def legible(self, which: int) -> Tensor:
        """Whether rounding leaves differences of a nat visible at the highest points, (m,)."""
        return BLUR * self.best().abs() < 1 if which == JOINT else torch.ones(len(self.t), dtype=torch.bool)

    def heights(self, which: int) -> Tensor:
        return density(self.logs, which, self.best()[:, None])

    def peaks(self, which: int) -> Tensor:
        """Local maxima so far above a neighbour that they may rise further in between, (m, w − 2)."""
        heights = self.heights(which)
        left, middle, right = heights[:, :-2], heights[:, 1:-1], heights[:, 2:]
        clear = RESOLVED + BLUR * (self.logs[which].abs().nan_to_num(0.0, 0.0, 0.0)[:, 1:-1] + middle.abs())
        peak = (middle >= left) & (middle > right) & (torch.minimum(left, right) < middle - clear)
        if not (peak.sum(1) > _PEAKS).any():
            return peak
        threshold = torch.where(peak, middle, -math.inf).topk(_PEAKS, dim=1).values[:, -1:]
        return peak & (middle >= threshold)

    def with_points(self, problem: Tensor, t: Tensor, logs: Tensor) -> Samples:
        """Merge further points, given flat, each with the number of its problem."""
        if not len(t):
            return self
        order = torch.argsort(problem, stable=True)
        problem, t, logs = problem[order], t[order], logs[:, order]
        counts = torch.bincount(problem, minlength=len(self.t))
        rank = torch.arange(len(t)) - (counts.cumsum(0) - counts)[problem]
        new_t = torch.full((len(self.t), int(counts.max())), math.inf, dtype=torch.float64)
        new_logs = torch.full((2, *new_t.shape), -math.inf, dtype=torch.float64)
        new_t[problem, rank] = t
        new_logs[:, problem, rank] = logs
        return Samples(*_distinct(torch.cat([self.t, new_t], 1), torch.cat([self.logs, new_logs], 2)))

    def of(self, problems: Tensor) -> Samples:
        return Samples(self.t[problems], self.logs[:, problems])

    def replaced(self, problems: Tensor, by: Samples) -> Samples:
        """The same samples, but for some problems other ones."""
        more = by.t.shape[1] - self.t.shape[1]
        t = torch.nn.functional.pad(self.t, (0, max(more, 0)), value=math.inf)
        logs = torch.nn.functional.pad(self.logs, (0, max(more, 0)), value=-math.inf)
        t[problems] = torch.nn.functional.pad(by.t, (0, max(-more, 0)), value=math.inf)
        logs[:, problems] = torch.nn.functional.pad(by.logs, (0, max(-more, 0)), value=-math.inf)
        return Samples(t, logs)

    def reach(self, which: int) -> tuple[Tensor, Tensor]:
        """Heights by which to cut off, (m, w), and their maxima, (m,).

        Far from the top a height counts log(distance in widths) more: what a heavy tail such as Cauchy's
        holds out there is density times distance.
        """
        t, top, width = self.top(which)
        away = (self.t - t[:, None]).abs() / width[:, None]
        far = torch.where(away.isfinite() & (away > 1), away, 1.0)
        return self.heights(which) + torch.log(far), top

    def top(self, which: int) -> tuple[Tensor, Tensor, Tensor]:
        """Position, height and width (one sd, by a parabola) of the highest point, each (m,)."""
        heights = self.heights(which)
        best = heights.argmax(1, keepdim=True)
        middle = best.clamp(1, heights.shape[1] - 2)
        t = [self.t.gather(1, middle + step)[:, 0] for step in (-1, 0, 1)]
        h = [heights.gather(1, middle + step)[:, 0] for step in (-1, 0, 1)]
        _, width = parabola(t, h)
        return self.t.gather(1, best)[:, 0], heights.gather(1, best)[:, 0], width


@dataclass(frozen=True)
class Peaks:
    """Flat: the problem, position and width (one standard deviation) of peaks."""

    problem: Int[Tensor, " p"]
    t: Float[Tensor, " p"]
    width: Float[Tensor, " p"]

    def of(self, chosen: Tensor) -> Peaks:
        return Peaks(self.problem[chosen], self.t[chosen], self.width[chosen])

    def renumbered(self, number: Tensor) -> Peaks:
        return Peaks(number[self.problem], self.t, self.width)

    def and_(self, other: Peaks) -> Peaks:
        return Peaks(
            torch.cat([self.problem, other.problem]),
            torch.cat([self.t, other.t]),
            torch.cat([self.width, other.width]),
        )


def tops(samples: Samples, which: int) -> Peaks:
    """The highest point of each line on which there is one to be told."""
    t, top, width = samples.top(which)
    number = torch.nonzero(top.isfinite() & samples.legible(which))[:, 0]
    return Peaks(number, t[number], width[number])


def widen(samples: Samples, which: int, look: Look) -> Samples:
    """Add points further out wherever the outermost is not yet `DEPTH` below the density's top."""
    for _ in range(_WIDEN_ROUNDS):
        t, (heights, top) = samples.t, samples.reach(which)
        last = t.isfinite().sum(1, keepdim=True) - 1
        ends = torch.stack([t[:, 0], t.gather(1, last)[:, 0]])
        end_heights = torch.stack([heights[:, 0], heights.gather(1, last)[:, 0]])
        span = 4 * (ends[1] - ends[0])
        further = ends + torch.stack([-span, span])
        open_ = (end_heights > top - DEPTH) & top.isfinite() & (further.abs() < 1e300)
        if not open_.any():
            return samples
        problem = torch.arange(len(t)).expand(2, -1)[open_]
        samples = samples.with_points(problem, further[open_], look(problem, further[open_]))
    return samples


def sharpen(samples: Samples, which: int, look: Look) -> tuple[Samples, Peaks]:
    """Climb every local maximum whose neighbours lie far below it until its shape is resolved.

    A parabola through three heights in a bracket finds a Gaussian peak at once, whatever its width; the
    middle of the bracket's longer side, tried with it, halves the bracket in any case.

    Returns:
        The samples with each peak's last bracket added, and those peaks that count beside the density's top.
    """
    problem, column = torch.nonzero(samples.peaks(which), as_tuple=True)
    take = column[:, None] + torch.arange(3)
    t = samples.t[problem[:, None], take]
    logs = samples.logs[:, problem[:, None], take]
    active = torch.arange(len(problem))
    for _ in range(_ZOOM_ROUNDS):
        h = density(logs[:, active], which, logs[1, active, 1:2])
        place = t[active]
        narrow = place[:, 2] - place[:, 0] <= 16 * spacing(place[:, 1])
        clear = RESOLVED + BLUR * logs[which, active, 1].abs()
        resolved = (h.amin(1) >= h[:, 1] - clear) & place[:, 2].isfinite()
        open_ = ~(narrow | resolved)
        active, place, h = active[open_], place[open_], h[open_]
        if not len(active):
            break
        new_t = _proposals(place, h)
        new = look(problem[active].repeat_interleave(new_t.shape[1]), new_t.flatten()).reshape(
            2, *new_t.shape
        )
        all_t, all_logs = _distinct(torch.cat([place, new_t], 1), torch.cat([logs[:, active], new], 2))
        level = all_logs[1].amax(1, keepdim=True)
        best = density(all_logs, which, torch.where(level.isfinite(), level, 0.0)).argmax(1)
        take = best.clamp(1, all_t.shape[1] - 2)[:, None] + torch.arange(-1, 2)
        t[active] = all_t.gather(1, take)
        logs[:, active] = all_logs.gather(2, take.expand(2, *take.shape))
    _, width = parabola(list(t.T), list(density(logs, which, logs[1, :, 1:2]).T))
    samples = samples.with_points(problem.repeat_interleave(3), t.flatten(), logs.flatten(1))
    _, top, _ = samples.top(which)
    tall = density(logs[:, :, 1], which, samples.best()[problem]) > top[problem] - DEPTH
    return samples, Peaks(problem[tall], t[tall, 1], width[tall])


def spacing(t: Tensor) -> Tensor:
    """How far apart floats are at t."""
    return 2.3e-16 * t.abs() + 1e-300


def _distinct(t: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
    """Sort points along each row, those that coincide made one: a peak is not its own neighbour."""
    for _ in range(2):
        t, order = torch.sort(t, dim=1)
        logs = logs.gather(2, order.expand(2, *order.shape))
        twice = torch.zeros_like(t, dtype=torch.bool)
        twice[:, 1:] = (t[:, 1:] == t[:, :-1]) & t[:, 1:].isfinite()
        if not twice.any():
            break
        t, logs = t.masked_fill(twice, math.inf), logs.masked_fill(twice, -math.inf)
    return t, logs


def parabola(t: list[Tensor], h: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Vertex of a parabola through three points, and the sd of the Gaussian it is the log of."""
    left, right = t[1] - t[0], t[2] - t[1]
    rise, fall = (h[1] - h[0]) / left, (h[2] - h[1]) / right
    bend = (fall - rise) / (left + right)
    slope = (rise * right + fall * left) / (left + right)
    return t[1] - slope / (2 * bend), torch.rsqrt(-2 * bend)


def _proposals(t: Tensor, h: Tensor) -> Tensor:
    """Four points to try in each bracket: the parabola's top, a width either side, the long half; (m, 4)."""
    vertex, width = parabola(list(t.T), list(h.T))
    long_right = (t[:, 2] - t[:, 1]) > (t[:, 1] - t[:, 0])
    other = torch.where(long_right, t[:, 2], t[:, 0])
    other = torch.where(other.isfinite(), other, t[:, 1] + 2 * (t[:, 1] - t[:, 0]))
    middle = t[:, 1] + 0.5 * (other - t[:, 1])
    # The exact middle again would make an empty bracket.
    vertex = torch.where(vertex == t[:, 1], t[:, 1] + 0.01 * (middle - t[:, 1]), vertex)
    right = torch.where(t[:, 2].isfinite(), t[:, 2], 2 * t[:, 1] - t[:, 0])
    near_left, half_left = t[:, 1] - 0.1 * (t[:, 1] - t[:, 0]), t[:, 1] - 0.4 * (t[:, 1] - t[:, 0])
    fallback = torch.stack([near_left, half_left, t[:, 1] + 0.15 * (right - t[:, 1]), middle], 1)
    points = torch.stack([vertex, vertex - 1.5 * width, vertex + 1.5 * width, middle], 1)
    good = (points > t[:, :1]) & (points < t[:, 2:]) & (points != t[:, 1:2])
    return torch.where(good, points, fallback)

"""The orders in which latents are integrated out, and what each of them yields, held against the others.

By the chain rule of the relative entropy an order of the axes yields two informations exactly: the KL of
the *marginal* of the axis integrated last (the outermost), and the mean KL of the *conditional* of the axis
integrated first (theory/T2, T3). Every latent is therefore once the outermost and once the innermost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from identkit.model.protocol import Axis, Continuous, Finite
from identkit.posterior.chart import Chart
from identkit.posterior.line import Line
from identkit.posterior.locate import DEPTH, Peaks
from identkit.posterior.nested import Base, Folded, Level, States

Block = int | tuple[int, ...]
"""A continuous latent, or all finite ones together."""

# How many more points to look at across prior and posterior, where there is a single continuous latent and it costs
# little; of several, how many times as many as `outset` gives around the prior's peaks, on innermost lines and others.
_SCOUT = 1000
_DENSER, _DENSER_OUTSIDE = 6, 3
_SEED_STATES = 16
_STATES = 1 << 18


def orders(axes: Sequence[Axis]) -> list[list[Block]]:
    """Orders from the outermost axis in, in which each latent is once outermost and once innermost.

    Those with the finite latents outermost come first: they look at each state by itself, and what they
    find tells the others where to look.
    """
    continuous = [j for j, axis in enumerate(axes) if isinstance(axis, Continuous)]
    finite = tuple(j for j, axis in enumerate(axes) if isinstance(axis, Finite))
    if not continuous:
        return [[finite]]
    turns: list[list[Block]] = [[*continuous[i:], *continuous[:i]] for i in range(len(continuous))]
    if not finite:
        return turns
    return [[finite, *turn] for turn in turns] + [[*turn, finite] for turn in turns]


def chain(
    order: Sequence[Block],
    base: Base,
    axes: Sequence[Axis],
    grids: dict[int, Tensor],
    tolerance: float,
    guides: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
) -> Line | States:
    """The levels of one order, as the outermost of them; each line asks the guides where to look, too."""
    level: Level = base
    pointing: list[Level] = [replace(base, log_likelihood=guide, gradient=None) for guide in guides]
    scout = _SCOUT if len(grids) == 1 else 0
    denser = 1 if len(grids) == 1 else _DENSER
    for block in reversed(order):
        if isinstance(block, tuple):
            values = [axis.values for axis in (axes[j] for j in block) if isinstance(axis, Finite)]
            number = math.prod(len(states) for states in values)
            if number > _STATES:
                raise ValueError(
                    f"the finite latents should have at most {_STATES:,} joint states, which quadrature sums over "
                    f"one by one, got {number:,}"
                )
            states = torch.tensor(list(itertools.product(*values)), dtype=torch.float64)
            level = States(block, states, level)
            pointing = [States(block, states, guide) for guide in pointing]
        else:
            axis = axes[block]
            if isinstance(axis, Continuous):
                looks = _denser(grids[block], denser)
                line = Line(block, Chart(axis.low, axis.high), looks, level, tolerance, scout)
                denser = _DENSER_OUTSIDE
                level = replace(line, guides=tuple(pointing))
                pointing = [replace(line, inner=guide) for guide in pointing]
    if not isinstance(level, Line | States):
        raise TypeError("an order of integration should name at least one latent, got none")
    return level


def _denser(grid: Tensor, times: int) -> Tensor:
    """Every gap of a grid cut into so many."""
    share = torch.arange(times, dtype=torch.float64) / times
    return torch.cat([(grid[:-1, None] + grid.diff()[:, None] * share).flatten(), grid[-1:]]).unique()


def run(level: Line | States, n: int, k: int, seeds: dict[int, Peaks]) -> Folded:
    """Integrate all latents out for n data; orders that begin with finite latents leave seeds to others."""
    rows, z = torch.arange(n), torch.full((n, k), math.nan, dtype=torch.float64)
    if isinstance(level, Line):
        return level.fold_from(rows, z, seeds.get(level.column))
    if not isinstance(level.inner, Line):
        return level.fold(rows, z)
    inner = level.inner.fold(*level.expand(rows, z))
    seeds[level.inner.column] = _seeds(inner, level.inner.chart, n)
    return level.sum(inner.values, n)


def _seeds(inner: Folded, chart: Chart, n: int) -> Peaks:
    """Where the posterior of a latent lies in each state that counts."""
    weight = (inner.values.log_prior + inner.values.log_likelihood).reshape(n, -1).nan_to_num(-math.inf)
    best, state = weight.topk(min(_SEED_STATES, weight.shape[1]), dim=1)
    mean, sd = (v.reshape(n, -1).gather(1, state) for v in (inner.mean, inner.sd))
    t = chart.inverse(mean)
    width = sd * torch.exp(-chart.log_stretch(mean))
    row, column = torch.nonzero((best > best[:, :1] - DEPTH) & t.isfinite() & (width > 0), as_tuple=True)
    return Peaks(row, t[row, column], width[row, column])


class Tally:
    """What the orders yield: each latent's informations, and the shared ones held against each other."""

    def __init__(self, n: int, k: int) -> None:
        self.marginal, self.marginal_error, self.conditional, self.conditional_error, self.mean, self.sd = (
            torch.zeros(n, k, dtype=torch.float64) for _ in range(6)
        )
        self.gradient: Tensor | None = None
        self.evidence: list[tuple[Tensor, Tensor]] = []
        self.joint: list[tuple[Tensor, Tensor]] = []
        self.log_mass: list[tuple[Tensor, Tensor]] = []

    def add(self, order: Sequence[Block], folded: Folded, with_gradient: bool) -> None:
        """Read the terms of one order: squared slopes if there are any, then each block's own, inside out."""
        values = folded.values
        start = self.mean.shape[1] if with_gradient else 0
        if with_gradient:
            self.gradient = values.terms[:, :start]
        joint, joint_error = torch.zeros(2, len(values.error), dtype=torch.float64)
        for depth, block in enumerate(reversed(order)):
            at = list(block) if isinstance(block, tuple) else [block]
            # Several finite latents yield their joint KL, then each one's marginal, then each one's
            # conditional.
            alone = len(at) == 1
            width = 1 if alone else 1 + 2 * len(at)
            kl, error = (table[:, start : start + width] for table in (values.terms, values.term_errors))
            joint, joint_error = joint + kl[:, 0], joint_error + error[:, 0]
            if depth == len(order) - 1:
                own = slice(0, 1) if alone else slice(1, 1 + len(at))
                self.marginal[:, at], self.marginal_error[:, at] = kl[:, own], error[:, own]
                self.mean[:, at], self.sd[:, at] = folded.mean, folded.sd
            if depth == 0:
                own = slice(0, 1) if alone else slice(1 + len(at), width)
                self.conditional[:, at], self.conditional_error[:, at] = kl[:, own], error[:, own]
            start += width
        self.joint.append((joint, joint_error))
        self.evidence.append((values.log_likelihood, values.error))
        self.log_mass.append((values.log_prior, values.prior_error))


def agreed(answers: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """The answer of least stated error, its error, and how far the answers differ beyond their errors."""
    values, errors = (torch.stack(part) for part in zip(*answers, strict=True))
    best = errors.argmin(0, keepdim=True)
    value, error = values.gather(0, best)[0], errors.gather(0, best)[0]
    apart = ((values - value).abs() - errors - error).amax(0).clamp(min=0)
    return value, error + apart, apart

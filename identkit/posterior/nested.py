"""Integrating latents out one level at a time: the model itself, a sum over finite latents, a line for each other.

Every level folds a batch of partly fixed latents into `Values`: the prior density of what is fixed, the integrated
likelihood ``log p(x | what is fixed)``, and posterior expectations under what has been integrated out, each level
adding its own KL to those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from identkit.model.protocol import Continuous, Finite
from identkit.posterior.adaptive import EPSILON, Values, bayes, joint_heights, kl_density, nodes_of, refine
from identkit.posterior.locate import (
    DEPTH,
    JOINT,
    PRIOR,
    RESOLVED,
    Marks,
    Samples,
    cells,
    graded,
    layout,
    sharpen,
    walls,
    widen,
)

_POINTS_AT_ONCE = 16384
_LINES_AT_ONCE = 512
_STATES_FOR_HINTS = 64
# A NaN counts as zero likelihood where the prior density is e^-800 of its top: it is overflow far outside.
_FAR_OUTSIDE = 800.0
_REFITS = 8


@dataclass(frozen=True)
class Folded:
    """Values with this level's own latents integrated out, and the posterior mean and sd of those, (m, a)."""

    values: Values
    mean: Tensor
    sd: Tensor


@runtime_checkable
class Level(Protocol):
    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        """rows (m,) of data, z (m, k) latents of which those further out are fixed."""
        ...


@dataclass(frozen=True)
class Base:
    """The model with all latents fixed; it also checks what the model returns."""

    log_prior: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor] | None
    top: float = -math.inf

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        blocks = zip(rows.split(_POINTS_AT_ONCE), z.split(_POINTS_AT_ONCE), strict=True)
        return Folded(Values.cat([self._block(*block) for block in blocks]), z[:, :0], z[:, :0])

    def prior(self, z: Tensor) -> Tensor:
        density = self.log_prior(z)
        _refuse(density.isnan() | (density == math.inf), density, "log_prior", None, z)
        return density

    def _block(self, rows: Tensor, z: Tensor) -> Values:
        prior = self.prior(z)
        possible = prior > -math.inf
        likelihood = torch.full_like(prior, -math.inf)
        if possible.all():
            likelihood = self.log_likelihood(rows, z)
        elif possible.any():
            likelihood[possible] = self.log_likelihood(rows[possible], z[possible])
        wrong = likelihood.isnan() | (likelihood == math.inf)
        if wrong.any():
            outside = wrong & (prior < self.top - _FAR_OUTSIDE)
            _refuse(wrong & ~outside, likelihood, "log_likelihood", rows, z)
            likelihood = likelihood.masked_fill(outside, -math.inf)
        terms = z[:, :0]
        if self.gradient is not None:
            with torch.enable_grad():
                terms = self.gradient(rows, z).detach().square()
            terms = torch.where((likelihood > -math.inf)[:, None], terms, 0.0)
        rounding = [4 * EPSILON * (1 + torch.where(v.isfinite(), v, 0.0).abs()) for v in (prior, likelihood)]
        return Values(prior, rounding[0], likelihood, rounding[1], terms, 16 * EPSILON * terms)


@dataclass(frozen=True)
class States:
    """All finite latents together, summed over exactly.

    It adds the KL of their joint law; with several of them also, for each, that of its marginal and the mean KL of
    its conditional given the others, all within what is fixed further out.
    """

    columns: tuple[int, ...]
    states: Tensor
    """(s, a) every combination of their values."""
    inner: Level

    def expand(self, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        count = len(self.states)
        z = z.repeat_interleave(count, 0)
        z[:, list(self.columns)] = self.states.repeat(len(rows), 1)
        return rows.repeat_interleave(count), z

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        size = max(1, _POINTS_AT_ONCE // len(self.states))
        parts = []
        for some_rows, some_z in zip(rows.split(size), z.split(size), strict=True):
            inner = self.inner.fold(*self.expand(some_rows, some_z))
            parts.append(self.sum(inner.values, len(some_rows)))
        return Folded(Values.cat([p.values for p in parts]), *(torch.cat([getattr(p, a) for p in parts]) for a in ("mean", "sd")))

    def sum(self, flat: Values, count: int) -> Folded:
        """Apply Bayes' rule to the inner values of all states, flat (m·s,) with the states running fastest."""
        values = flat.map(lambda v: v.reshape(count, len(self.states), *v.shape[1:]))
        law = bayes(torch.arange(count), count, torch.zeros(()), values)
        mean = law.posterior @ self.states
        away = self.states - mean[:, None]
        sd = (law.posterior[..., None] * away.square()).sum(1).clamp(min=0).sqrt()
        informations = [(law.kl, law.kl_error)]
        if len(self.columns) > 1:
            error = torch.where(law.posterior > 0, values.error, 0.0)
            square = (law.posterior * error.square()).sum(1)
            for others in (False, True):
                for column in range(len(self.columns)):
                    informations.append(self._split(law, column, others, square))
        added = [torch.stack(pair, 1) for pair in zip(*informations, strict=True)]
        summed = Values(
            law.log_mass,
            law.mass_error,
            law.log_evidence,
            law.evidence_error,
            torch.cat([law.terms, added[0]], 1),
            torch.cat([law.term_errors, added[1]], 1),
        )
        return Folded(summed, mean, sd)

    def _split(self, law, column: int, given_others: bool, square: Tensor) -> tuple[Tensor, Tensor]:
        """KL of one latent's marginal, or mean KL of its conditional given the others, and its error."""
        kept = [c for c in range(len(self.columns)) if (c == column) != given_others]
        _, group = torch.unique(self.states[:, kept], dim=0, return_inverse=True)
        member = torch.nn.functional.one_hot(group).to(torch.float64)
        prior, gap = law.prior @ member, law.gap @ member
        share = gap / torch.where(prior > 0, prior, 1.0)
        group_ratio = torch.where(prior > 0, torch.log1p(share.clamp(min=-1.0)), 0.0)
        if given_others:
            ratio = law.ratio - group_ratio[:, group]
            ratio = torch.where(law.ratio > -math.inf, ratio, -math.inf)
            tilted = law.prior * torch.exp(group_ratio)[:, group]
            density, posterior = kl_density(tilted, law.posterior, ratio), law.posterior
        else:
            ratio, posterior = group_ratio, prior + gap
            density = kl_density(prior, posterior, ratio)
        kl = density.sum(1)
        spread = (posterior * torch.where(posterior > 0, ratio, 0.0).square()).sum(1)
        return kl, (spread * square).sqrt() + square + 8 * EPSILON * kl


@dataclass(frozen=True)
class Chart:
    """An increasing map from the real line onto the support of a latent, under which ends at infinity stay there.

    The whole line is itself; a finite end is approached exponentially, so that an integrable singularity such as
    that of Beta(½, ½) becomes a plain exponential tail.
    """

    low: float
    high: float

    @property
    def straight(self) -> bool:
        return self.low == -math.inf and self.high == math.inf

    def closest(self) -> tuple[float, float]:
        """The least distance y from either end that the latent's own float still tells to seven digits."""
        low, high = (max(1e-290, 2.0**23 * math.ulp(end)) for end in (self.low, self.high))
        return low if self.low > -math.inf else 1e-290, high if self.high < math.inf else 1e-290

    def clip(self) -> tuple[float, float]:
        """The t at those distances; an infinite end beside a finite one counts in 1/y."""
        if self.straight:
            return -math.inf, math.inf
        width = math.log(self.high - self.low) if math.isfinite(self.high - self.low) else 0.0
        low, high = (math.log(y) for y in self.closest())
        return low - width, width - high

    def at_end(self, upper: bool) -> Tensor:
        """Latents at 1, 2, 4 and 8 times the least distance from an end, exact in floating point."""
        steps = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
        low, high = self.closest()
        if upper:
            return self.high - high * steps if self.high < math.inf else self.low + 1 / (high * steps)
        return self.low + low * steps if self.low > -math.inf else self.high - 1 / (low * steps)

    def point(self, t: Tensor) -> Tensor:
        if self.straight:
            return t
        if self.high == math.inf:
            return self.low + torch.exp(t)
        if self.low == -math.inf:
            return self.high - torch.exp(-t)
        near_low = self.low + (self.high - self.low) * torch.sigmoid(t)
        return torch.where(t < 0, near_low, self.high - (self.high - self.low) * torch.sigmoid(-t))

    def inverse(self, z: Tensor) -> Tensor:
        if self.straight:
            return z
        below = torch.log(z - self.low) if self.low > -math.inf else 0.0
        above = torch.log(self.high - z) if self.high < math.inf else 0.0
        return below - above

    def log_stretch(self, z: Tensor) -> Tensor:
        """log dz/dt, from the latent itself: density and map then speak of one point, however z was rounded."""
        if self.straight:
            return torch.zeros_like(z)
        below = torch.log(z - self.low) if self.low > -math.inf else 0.0
        above = torch.log(self.high - z) if self.high < math.inf else 0.0
        width = math.log(self.high - self.low) if math.isfinite(self.high - self.low) else 0.0
        return below + above - width

    def place(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The latent at t, and how far t may be off for a float that holds the latent."""
        z = self.point(t.clamp(*self.clip()))
        return z, EPSILON * (z.abs() * torch.exp(-self.log_stretch(z)) + t.abs())


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
    """How many more points to look at across the prior's stretch."""

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        return self.fold_from(rows, z, None)

    def fold_from(self, rows: Tensor, z: Tensor, seeds: Tensor | None) -> Folded:
        """As `fold`, with further points to look at first: seeds (m, s) on the latent's scale, NaN where there are none."""
        parts = []
        for start in range(0, len(rows), _LINES_AT_ONCE):
            block = slice(start, start + _LINES_AT_ONCE)
            parts.append(self._lines(rows[block], z[block], None if seeds is None else seeds[block]))
        return Folded(Values.cat([p.values for p in parts]), *(torch.cat([getattr(p, a) for p in parts]) for a in ("mean", "sd")))

    def _lines(self, rows: Tensor, z: Tensor, seeds: Tensor | None) -> Folded:
        count = len(rows)

        def evaluate(problem: Tensor, t: Tensor) -> Values:
            return self.values(rows[problem], z[problem], t)

        def look(problem: Tensor, t: Tensor) -> Tensor:
            values = evaluate(problem, t)
            return torch.stack([values.log_prior, values.log_likelihood])

        t = self.grid.expand(count, -1)
        samples = Samples(t, look(torch.arange(count).repeat_interleave(t.shape[1]), t.flatten()).reshape(2, *t.shape))
        if seeds is not None:
            problem, which = torch.nonzero(seeds.isfinite(), as_tuple=True)
            t = seeds[problem, which]
            samples = samples.with_points(problem, t, look(problem, t))
        samples, prior = _stretches(samples, PRIOR, look)
        if self.scout:
            samples = _scouted(samples, prior, self.scout, look)
        samples, joint = _stretches(samples, JOINT, look)
        base = layout(samples, prior, joint)
        first = _at(evaluate, base)
        for _ in range(_REFITS):
            busy = _unresolved(base, first, count)
            if not busy.any():
                break
            samples, base, first = _refit(samples, prior, base, first, busy, evaluate, look)
        values, mean, sd = refine(evaluate, self.chart.place, base, count, self.tolerance, first)
        return Folded(values, mean[:, None], sd[:, None])

    def values(self, rows: Tensor, z: Tensor, t: Tensor) -> Values:
        """The inner values as densities over t, continued where floats no longer resolve the distance to an end.

        There log p and ℓ are ``h + s·τ + b·e^τ``, τ = log of the distance in units of the least one: a power of the
        distance times a factor smooth at the end. Three exact points next to it give h, s and b, a fourth their error.
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
            near = self._at_point(rows[beyond].repeat(4), z[beyond].repeat(4, 1), ends.repeat_interleave(len(beyond)))
            values.log_prior[beyond], wrong = _continued(near.log_prior, depth)
            values.prior_error[beyond] = near.prior_error.reshape(4, -1).amax(0) * (1 - 8 * depth) + wrong
            values.log_likelihood[beyond], wrong = _continued(near.log_likelihood, depth)
            values.error[beyond] = near.error.reshape(4, -1).amax(0) * (1 - 8 * depth) + wrong
        return values

    def _at_point(self, rows: Tensor, z: Tensor, point: Tensor) -> Values:
        z = z.clone()
        z[:, self.column] = point
        v = self.inner.fold(rows, z).values
        return v if self.chart.straight else replace(v, log_prior=v.log_prior + self.chart.log_stretch(point))


def _continued(near: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """h + s·τ + b·(e^τ − 1) at τ = depth ≤ 0 from the heights at τ = 0, log 2, log 4 and log 8; and its error."""
    at, *steps = near.reshape(4, -1)
    first, second, third = steps[0] - at, steps[1] - steps[0], steps[2] - steps[1]
    bend, slope = second - first, (2 * first - second) / math.log(2.0)
    # A next term c·e^2τ would leave 18 c of the third step unexplained.
    wrong = (third - (2 * first - second) - 4 * bend).abs() * (1 - depth)
    height = at + slope * depth + bend * torch.expm1(depth)
    return torch.where(height.isfinite(), height, at), wrong.nan_to_num(0.0, 0.0, 0.0)


def _at(evaluate: Callable[[Tensor, Tensor], Values], places: tuple[Tensor, Tensor, Tensor]) -> Values:
    t = nodes_of(places[1], places[2])
    flat = evaluate(places[0].repeat_interleave(t.shape[1]), t.flatten())
    return flat.map(lambda v: v.reshape(*t.shape, *v.shape[1:]))


def _stretches(samples: Samples, which: int, look) -> tuple[Samples, Marks]:
    """Where one of the two densities lives: its stretches, and splits at and around its peaks."""
    samples = widen(samples, which, look)
    samples, problem, t, height, width = sharpen(samples, which, look)
    ends = walls(samples, which, look)
    top_t, top, top_width = samples.top(which)
    tall = (height > top[problem] - DEPTH) & (t != top_t[problem])
    alive = torch.nonzero(top.isfinite())[:, 0]
    problem, t = torch.cat([alive, problem[tall]]), torch.cat([top_t[alive], t[tall]])
    width = torch.cat([top_width[alive], width[tall]])
    low, high = _extent(ends, len(top))
    splits = graded(problem, t, width, (high - low)[problem])
    return samples, _inside(Marks.cat([ends, splits]))


def _inside(marks: Marks) -> Marks:
    """Drop the splits that lie in no stretch."""
    order = torch.argsort(marks.t, stable=True)
    order = order[torch.argsort(marks.problem[order], stable=True)]
    problem, t, step = marks.problem[order], marks.t[order], marks.step[order]
    keep = (step != 0) | (step.cumsum(0) > 0)
    return Marks(problem[keep], t[keep], step[keep])


def _scouted(samples: Samples, prior: Marks, number: int, look) -> Samples:
    """Look at evenly spaced points across the prior as well: a needle on a flat likelihood shows no slope."""
    low, high = _extent(prior, len(samples.t))
    share = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    t = low[:, None] + (high - low)[:, None] * share
    problem, which = torch.nonzero(t.isfinite(), as_tuple=True)
    return samples.with_points(problem, t[problem, which], look(problem, t[problem, which]))


def _refit(samples: Samples, prior: Marks, base, first: Values, busy: Tensor, evaluate, look):
    """Lay cells anew on the lines where the nodes show a peak that the samples had not shown."""
    chosen = torch.nonzero(busy)[:, 0]
    number = torch.full((len(busy),), -1, dtype=torch.int64)
    number[chosen] = torch.arange(len(chosen))
    mine = busy[base[0]]
    t = nodes_of(base[1][mine], base[2][mine])
    logs = torch.stack([first.log_prior[mine].flatten(), first.log_likelihood[mine].flatten()])
    local = samples.of(chosen).with_points(number[base[0][mine]].repeat_interleave(t.shape[1]), t.flatten(), logs)
    local, joint = _stretches(local, JOINT, lambda problem, t: look(chosen[problem], t))
    own = busy[prior.problem]
    marks = Marks.cat([Marks(number[prior.problem[own]], prior.t[own], prior.step[own]), joint])
    problem, left, right = cells(marks, joint.t[joint.step == 0])
    new = (chosen[problem], left, right)
    merged = tuple(torch.cat([old[~mine], fresh]) for old, fresh in zip(base, new, strict=True))
    order = torch.argsort(merged[0], stable=True)
    values = Values.cat([first.map(lambda v: v[~mine]), _at(evaluate, new)])
    return samples.replaced(chosen, local), tuple(part[order] for part in merged), values.map(lambda v: v[order])


def _unresolved(base: tuple[Tensor, Tensor, Tensor], first: Values, count: int) -> Tensor:
    """Which lines have nodes that rise between far lower ones, or that are still high at the end of a stretch."""
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
    blur = first.log_likelihood.abs().nan_to_num(0.0, 0.0, 0.0) + middle.abs()
    clear = RESOLVED + 64 * EPSILON * blur
    peak = (middle >= lower) & (middle > higher) & (torch.minimum(lower, higher) < middle - clear)
    peak[:, 0] &= joined[:, 0]
    peak[:, -1] &= joined[:, 1]
    odd |= peak.any(1)
    return torch.bincount(owner[odd], minlength=count) > 0


def _extent(marks: Marks, count: int) -> tuple[Tensor, Tensor]:
    low = torch.full((count,), math.inf, dtype=torch.float64).scatter_reduce(0, marks.problem, marks.t, "amin")
    high = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce(0, marks.problem, marks.t, "amax")
    return low, high


def hints(base: Base, axes: Sequence[Continuous | Finite]) -> tuple[dict[int, Tensor], float]:
    """Find the middle of the prior on each continuous axis, in every finite state, by coordinate ascent.

    Returns:
        For each continuous axis the points t from which to look (its middle, and ever further out), and the
        highest log prior density found.
    """
    finite = [j for j, axis in enumerate(axes) if isinstance(axis, Finite)]
    continuous = {j: Chart(axis.low, axis.high) for j, axis in enumerate(axes) if isinstance(axis, Continuous)}
    states = list(itertools.islice(itertools.product(*(axes[j].values for j in finite)), _STATES_FOR_HINTS))
    z = torch.zeros(len(states), len(axes), dtype=torch.float64)
    z[:, finite] = torch.tensor(states, dtype=torch.float64).reshape(len(states), len(finite))
    middle = {j: torch.zeros(len(states), dtype=torch.float64) for j in continuous}
    rings = 1e-6 * 1.05 ** torch.arange(900, dtype=torch.float64)
    for j, chart in continuous.items():
        z[:, j] = chart.point(middle[j])
    peaks: dict[int, list[Tensor]] = {}
    for _ in range(6 if len(continuous) > 1 else 1):
        for j, chart in continuous.items():
            low, high = chart.clip()

            def look(problem: Tensor, t: Tensor, j=j, chart=chart) -> Tensor:
                at = z[problem]
                at[:, j] = chart.point(t)
                prior = base.prior(at) + chart.log_stretch(at[:, j])
                return torch.stack([prior, torch.zeros_like(prior)])

            reach = rings[rings < min(high, -low)]
            t = (middle[j][:, None] + torch.cat([-reach.flip(0), torch.zeros(1), reach])).clamp(low, high)
            problem = torch.arange(len(states)).repeat_interleave(t.shape[1])
            samples = Samples(t, look(problem, t.flatten()).reshape(2, *t.shape).clone())
            samples, problem, at, height, spread = sharpen(samples, PRIOR, look)
            best, top, width = samples.top(PRIOR)
            found = top.isfinite()
            middle[j] = torch.where(found, best, middle[j])
            tall = height > top[problem] - DEPTH
            width = torch.where(width.isfinite(), width, 1.0)
            peaks[j] = [torch.stack([best, width], 1)[found], torch.stack([at, spread], 1)[tall & spread.isfinite()]]
            z[:, j] = chart.point(middle[j])
    top = base.prior(z)
    if not (top > -math.inf).any():
        point = ", ".join(f"{v:.6g}" for v in z[0].tolist())
        raise ValueError(f"log_prior should be finite somewhere, got -inf at every point tried, such as ({point})")
    rings = 0.5 * 5.0 ** torch.arange(10, dtype=torch.float64)
    offsets = torch.cat([-rings.flip(0), torch.zeros(1, dtype=torch.float64), rings])
    return {j: (_different(found)[:, :1] + _different(found)[:, 1:] * offsets).flatten().unique() for j, found in peaks.items()}, float(top.max())


def _different(peaks: list[Tensor]) -> Tensor:
    """One of each group of peaks (t, width) that coincide up to a twentieth of their widths."""
    rows: list[list[float]] = []
    for t, width in torch.cat(peaks).tolist():
        if not any(abs(t - s) < 0.05 * max(width, w) and 0.5 < width / w < 2 for s, w in rows):
            rows.append([t, width])
    return torch.tensor(rows, dtype=torch.float64)


def _refuse(wrong: Tensor, density: Tensor, name: str, rows: Tensor | None, z: Tensor) -> None:
    if wrong.any():
        i = int(torch.nonzero(wrong)[0, 0])
        point = ", ".join(f"{v:.6g}" for v in z[i].tolist())
        row = "" if rows is None else f" for datum {int(rows[i])}"
        raise ValueError(f"{name} should be a number below infinity, got {float(density[i])}{row} at z = ({point})")

"""Expectation–maximisation: one loop with restarts for every family, and what it says about its convergence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from identkit.model.compiled.data import whole

State = TypeVar("State")
Numbers = TypeVar("Numbers", float, np.ndarray, Tensor)

_ROUNDING = 1e-9
"""By how much, relative to its size, a log-likelihood may fall by rounding alone."""
_STRIDE = 4.0
"""The longest leap at first; every leap of the greatest length that is kept doubles it."""
_WORTHWHILE = 1.5


class ConvergenceWarning(UserWarning):
    """A fit stopped before its log-likelihood did."""


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How a fit went; every fitted model carries one as `convergence`."""

    history: tuple[float, ...]
    """The log-likelihood of all data after each iteration of the best start, in nats; it never falls.

    Where a fit leaps, a leap that would have fallen is taken back and is not listed.
    """
    converged: bool
    """Whether the last gain was below the tolerance."""
    restarts: tuple[float, ...]
    """The log-likelihood that each start was left at, in nats: far apart means local optima.

    A family whose iterations are dear climbs from the best start alone after a few of them. A start that led to where
    there is no model, such as a component without variance, is given up, at −∞.
    """
    fell: float = 0.0
    """By how many nats the iteration after the last would have fallen: rounding is larger there than what is left."""

    @property
    def log_likelihood(self) -> float:
        """Of all data under the fitted model, in nats."""
        return self.history[-1]

    @property
    def iterations(self) -> int:
        """Number of iterations of the best start."""
        return len(self.history)

    def __str__(self) -> str:
        """Say it in a sentence."""
        how = "converged" if self.converged else "did NOT converge"
        if self.fell:
            how = (
                f"stopped where rounding outweighs what is gained (the next would lose {self.fell:.2g} nats),"
            )
        starts = len(self.restarts)
        return (
            f"log-likelihood {self.log_likelihood:.6g} nats; {how} in {self.iterations} iterations "
            f"(best of {starts} start{'s' * (starts != 1)})"
        )


def maximise(
    starts: Sequence[State],
    step: Callable[[State], tuple[State, float]],
    tolerance: float,
    iterations: int,
    leap: Callable[[State, State, State, float], State | None] | None = None,
    trial: int | None = None,
    near: float = math.inf,
    finish: Callable[[State, int], tuple[State, list[float], bool, float]] | None = None,
) -> tuple[State, Convergence]:
    """Climb from every start and keep the highest end.

    Source: Dempster, Laird & Rubin 1977; Varadhan & Roland 2008, Scand. J. Statist. 35:335 (the leaps).

    Args:
        starts: where to begin; at least one.
        step: one EM iteration: takes a state, returns the next one and the log-likelihood *of the state given* (nats).
        tolerance: stop when an iteration gains less than this many nats.
        iterations: how many at most, from each start.
        leap: extrapolates three states that followed each other, θ + 2sr + s²v with r = θ′ − θ and v = θ″ − θ′ − r,
            where s is given; None where that is no state. A leap is kept where the likelihood does not fall.
        trial: after so many iterations from each start, only the best goes on; None to climb from all to the end.
        near: leap only after an iteration that gains less than this many nats: far from the top of its hill, a leap
            may end on another.
        finish: climbs to the top where iterations after the trial would be slow; takes a state and how many
            iterations are left, returns the state, the log-likelihoods on the way, whether it converged, and by how
            much it fell.

    Returns:
        The best state and how it was reached. A start that does not converge warns with `ConvergenceWarning` if it is
        the best one, and so does one that is given up, where others are left. An iteration that falls by more than
        the usual rounding, as near a singular covariance, ends its climb: the state before it is kept.

    Raises:
        ValueError: no iteration is allowed, a tolerance that no iteration can meet, or whatever the first start was
            given up for, where all were.

    >>> towards_three = lambda m: ((m + 3) / 2, -((m - 3) ** 2))
    >>> best, convergence = maximise([0.0, 9.0], towards_three, 1e-12, 100)
    >>> round(best, 5), convergence.converged
    (3.0, True)
    """
    iterations = whole(iterations, "iterations", 1)
    if not tolerance >= 0:
        raise ValueError(f"tolerance should be at least 0, got {tolerance}")
    alone = trial is None or (len(starts) == 1 and finish is None)
    first = iterations if alone or trial is None else min(trial, iterations)
    ends: list[tuple[State, list[float], bool, float]] = []
    given_up: list[ValueError] = []
    for state in starts:
        try:
            ends.append(climbed(state, step, tolerance, first, leap, near))
        except ValueError as error:
            given_up.append(error)
            ends.append((state, [-math.inf], False, 0.0))
    if len(given_up) == len(ends):
        raise given_up[0]
    heights = [end[1][-1] for end in ends]
    ahead = heights.index(max(heights))
    best, history, converged, fell = ends[ahead]
    left = iterations - len(history)
    if finish is not None and left > 0:
        best, further, converged, fell = finish(best, left)
        history = [*history, *further]
    elif not converged and not fell and first < iterations:
        best, further, converged, fell = climbed(best, step, tolerance, iterations - first, leap, near)
        history = [*history, *further]
    heights[ahead] = history[-1]
    found = Convergence(history=tuple(history), converged=converged, restarts=tuple(heights), fell=fell)
    if given_up:
        _warn(f"{len(given_up)} of {len(ends)} starts were given up: {given_up[0]}")
    if not converged:
        _warn(f"{found}; {'a larger floor or fewer parameters' if fell else 'more iterations'} may help")
    return best, found


def _warn(words: str) -> None:
    warnings.warn(words, ConvergenceWarning, stacklevel=4)


def climbed(
    state: State,
    step: Callable[[State], tuple[State, float]],
    tolerance: float,
    iterations: int,
    leap: Callable[[State, State, State, float], State | None] | None = None,
    near: float = math.inf,
) -> tuple[State, list[float], bool, float]:
    """Climb from one start as `maximise` does: where it leads, the heights on the way, whether it converged, how it fell.

    Raises:
        ValueError: a step led to where there is no model.
    """
    history: list[float] = []
    trail: list[State] = []  # what followed each other without a leap
    refuge: State | None = None  # where a leap began
    before = state
    longest = _STRIDE
    for _ in range(iterations):
        try:
            following, height = step(state)
        except ValueError:
            if refuge is None:
                raise
            following, height = state, -math.inf
        if refuge is not None and not height >= history[-1]:
            state, refuge, trail, longest = refuge, None, [], max(longest / 2, _STRIDE)
            continue
        if not history and not math.isfinite(height):
            raise ValueError(f"x should have a log-likelihood where a fit starts, got {height}")
        if history and not height >= history[-1] - _ROUNDING * (1 + abs(history[-1])):
            return before, history, False, history[-1] - height if height < history[-1] else math.inf
        before = state
        converged = refuge is None and bool(history) and height - history[-1] < tolerance
        history.append(max([height, *history[-1:]]))
        if converged:
            return state, history, True, 0.0
        trail, refuge = [*trail, state][-3:], None
        state = following
        if leap is None or len(trail) < 3:
            continue
        first, second = history[-2] - history[-3], history[-1] - history[-2]
        if not second < near:
            continue
        # What is left shrinks by a factor an iteration, and the height that is left by its square.
        shrinks = math.sqrt(second / first) if second < first else 1.0
        stride = longest if (1 - shrinks) * longest < 1 else 1 / (1 - shrinks)
        leapt = leap(trail[1], trail[2], following, stride) if stride > _WORTHWHILE else None
        if leapt is not None:
            state, refuge, trail = leapt, following, []
            longest = 2 * longest if stride == longest else longest
    return state if refuge is None else refuge, history, False, 0.0  # a leap not yet judged is not kept


def extrapolated(first: Numbers, second: Numbers, third: Numbers, stride: float) -> Numbers:
    """``θ + 2sr + s²v`` with ``r = θ′ − θ`` and ``v = θ″ − θ′ − r``: where three iterations lead; s = 1 gives θ″.

    >>> extrapolated(0.0, 1.0, 1.5, 2.0)  # what is left halves: the end
    2.0
    """
    return first + 2 * stride * (second - first) + stride**2 * (third - 2 * second + first)

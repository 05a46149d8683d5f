"""Expectation–maximisation: one loop with restarts for every family, and what it says about its convergence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

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

    A family whose iterations are dear climbs from the best start alone after a few of them.
    """

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

    Returns:
        The best state and how it was reached. A start that does not converge warns with `ConvergenceWarning` if it is
        the best one.

    Raises:
        ValueError: no iteration is allowed, or a tolerance that no iteration can meet.
        ArithmeticError: the log-likelihood falls by more than rounding, or is NaN: the M-step is wrong.

    >>> towards_three = lambda m: ((m + 3) / 2, -((m - 3) ** 2))
    >>> best, convergence = maximise([0.0, 9.0], towards_three, 1e-12, 100)
    >>> round(best, 5), convergence.converged
    (3.0, True)
    """
    if iterations < 1:
        raise ValueError(f"iterations should be at least 1, got {iterations}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance should be at least 0, got {tolerance}")
    first = iterations if trial is None or len(starts) == 1 else min(trial, iterations)
    ends = [_climbed(state, step, tolerance, first, leap, near) for state in starts]
    ahead = max(range(len(ends)), key=lambda i: ends[i][1][-1])
    best, history, converged = ends[ahead]
    if not converged and first < iterations:
        best, further, converged = _climbed(best, step, tolerance, iterations - first, leap, near)
        history = [*history, *further]
    heights = [end[1][-1] for end in ends]
    heights[ahead] = history[-1]
    found = Convergence(history=tuple(history), converged=converged, restarts=tuple(heights))
    if not converged:
        warnings.warn(f"{found}; more iterations may help", ConvergenceWarning, stacklevel=3)
    return best, found


def extrapolated(first: Numbers, second: Numbers, third: Numbers, stride: float) -> Numbers:
    """``θ + 2sr + s²v`` with ``r = θ′ − θ`` and ``v = θ″ − θ′ − r``: where three iterations lead; s = 1 gives θ″.

    >>> extrapolated(0.0, 1.0, 1.5, 2.0)  # what is left halves: the end
    2.0
    """
    return first + 2 * stride * (second - first) + stride**2 * (third - 2 * second + first)


def _climbed(
    state: State,
    step: Callable[[State], tuple[State, float]],
    tolerance: float,
    iterations: int,
    leap: Callable[[State, State, State, float], State | None] | None,
    near: float,
) -> tuple[State, list[float], bool]:
    """Where one start leads, the log-likelihoods on the way, and whether it converged."""
    history: list[float] = []
    trail: list[State] = []  # what followed each other without a leap
    refuge: State | None = None  # where a leap began
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
        if math.isnan(height) or (history and height < history[-1] - _ROUNDING * (1 + abs(height))):
            before = history[-1] if history else math.nan
            raise ArithmeticError(f"the log-likelihood should rise, got {height} after {before}")
        converged = refuge is None and bool(history) and height - history[-1] < tolerance
        history.append(max([height, *history[-1:]]))
        if converged:
            return state, history, True
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
    return state, history, False

"""Expectation–maximisation: one loop with restarts for every family, and what it says about its convergence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

State = TypeVar("State")

_ROUNDING = 1e-9
"""By how much, relative to its size, a log-likelihood may fall by rounding alone."""


class ConvergenceWarning(UserWarning):
    """A fit stopped before its log-likelihood did."""


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How a fit went; every fitted model carries one as `convergence`."""

    history: tuple[float, ...]
    """The log-likelihood of all data after each iteration of the best start, in nats; it never falls."""
    converged: bool
    """Whether the last gain was below the tolerance."""
    restarts: tuple[float, ...]
    """The final log-likelihood from each start, in nats: far apart means local optima."""

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
) -> tuple[State, Convergence]:
    """Climb from every start and keep the highest end.

    Args:
        starts: where to begin; at least one.
        step: one EM iteration: takes a state, returns the next one and the log-likelihood *of the state given* (nats).
        tolerance: stop when an iteration gains less than this many nats.
        iterations: how many at most, from each start.

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
    ends: list[tuple[State, list[float], bool]] = []
    for state in starts:
        history: list[float] = []
        converged = False
        for _ in range(iterations):
            following, height = step(state)
            if math.isnan(height) or (history and height < history[-1] - _ROUNDING * (1 + abs(height))):
                before = history[-1] if history else math.nan
                raise ArithmeticError(f"the log-likelihood should rise, got {height} after {before}")
            converged = bool(history) and height - history[-1] < tolerance
            history.append(max([height, *history[-1:]]))
            if converged:
                break
            state = following
        ends.append((state, history, converged))
    best, history, converged = max(ends, key=lambda end: end[1][-1])
    found = Convergence(
        history=tuple(history), converged=converged, restarts=tuple(end[1][-1] for end in ends)
    )
    if not converged:
        warnings.warn(f"{found}; more iterations may help", ConvergenceWarning, stacklevel=3)
    return best, found

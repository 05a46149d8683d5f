"""Examples of state spaces for the laws that every exact model obeys."""

from __future__ import annotations

from math import nan

from identkit.classical.state_space import StateSpace
from tests.exact_example import Example

_EYE = [[1.0, 0.0], [0.0, 1.0]]
_ABUSES = (
    (lambda: StateSpace(_EYE, [[1.0, 0.0]], _EYE, [[0.0]], [0, 0], _EYE), "positive diagonal"),
    (
        lambda: StateSpace(_EYE, [[1.0, 0.0]], [[1, 2], [2, 1]], [[1.0]], [0, 0], _EYE),
        "positive semidefinite",
    ),
    (
        lambda: StateSpace(_EYE, [[1.0, 0.0]], _EYE, [[1.0, 2.0], [2.0, 1.0]], [0, 0], _EYE),
        "noise_covariance",
    ),
    (lambda: StateSpace([[1.0]], [[1.0, 0.0]], _EYE, [[1.0]], [0, 0], _EYE), "transition should have shape"),
    (lambda: StateSpace(_EYE, [[1.0, 0.0]], _EYE, [[1.0]], [nan, 0], _EYE), "initial_mean should be finite"),
    (lambda: StateSpace(_EYE, [[1.0, 0.0]], _EYE, [[1.0]], [0, 0], _EYE, length=0), "length should be"),
)


def _local_level(loading: float) -> StateSpace:
    return StateSpace([[0.9]], [[loading]], [[0.3]], [[0.5]], [0.2], [[0.8]], length=3)


def _trend(loading: float) -> StateSpace:
    return StateSpace(
        [[0.9, 0.5], [0.1, 0.6]],
        [[loading, 0.0], [0.5 * loading, loading]],
        [[0.3, 0.1], [0.1, 0.2]],
        [[0.5, 0.125], [0.125, 0.25]],
        [0.5, -0.25],
        [[1.0, 0.25], [0.25, 0.5]],
        [0.1, 0.0],
        [0.0, 0.3],
        length=2,
    )


EXAMPLES: dict[str, Example] = {
    "state-space": Example(
        model=_local_level(0.75),
        x=[[0.3, -1.2, 0.8], [2.0, 2.5, -0.5]],
        silent=_local_level(0.0),
        abuses=_ABUSES,
    ),
    "state-space-two-dimensional": Example(
        model=_trend(1.0),
        x=[[0.3, -1.2, 0.8, 0.1], [2.0, 2.5, -0.5, 1.0], [0.0, 0.5, 0.0, -1.0]],
        silent=_trend(0.0),
        abuses=_ABUSES,
    ),
}

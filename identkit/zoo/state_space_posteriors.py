"""Linear-Gaussian state spaces as objects with exact posteriors, on both sides of the line.

Builders import when called, so that reading the table needs no torch.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case, levels

_KALMAN = "Kalman 1963 (observability); theory/T2"


def _two_states(transition: Any, observation: Any, process: Any, length: int) -> Any:
    from identkit.classical.state_space import StateSpace

    eye = [[1, 0], [0, 1]]
    return StateSpace(transition, observation, process, [[0.5]], [0, 0], eye, length=length)


def _local_level(loading: float, length: int) -> Any:
    from identkit.classical.state_space import StateSpace

    return StateSpace([[1.0]], [[loading]], [[0.25]], [[1.0]], [0.0], [[1.0]], length=length)


CASES = (
    Case(
        name="local-level",
        model=lambda: _local_level(1.0, 3),
        source="by hand: x_t is z_t plus noise of a known law, so the mean of x_t is z_t",
        levels=levels(GLOBAL="z[1..3,1]"),
        level="GLOBAL",
        note="A random walk seen through noise: every level is seen, and smoothing borrows from its neighbours.",
    ),
    Case(
        name="local-level-unseen",
        model=lambda: _local_level(0.0, 3),
        source="theory/T1; by hand: with H = 0 the law of x does not contain the path",
        levels=levels(CONSTANT="z[1..3,1]"),
        level="CONSTANT",
        note="H = 0: whatever the data, the posterior of the path is its prior.",
    ),
    Case(
        name="state-space-unobservable-mode",
        model=lambda: _two_states([[0.5, 0.25], [0, 0.75]], [[0, 1]], [[1, 0.25], [0.25, 1]], 3),
        source=f"{_KALMAN}; by hand: [H; HF] = [0 1; 0 3/4], whose null space is the first axis",
        levels=levels(CONSTANT="z[1..3,1]", GLOBAL="z[1..3,2]"),
        level="PARTIAL",
        note="The unseen mode is tied to the seen one by the prior alone: its marginal moves, its conditional law never.",
    ),
    Case(
        name="state-space-one-sum",
        model=lambda: _two_states([[0.5, 0], [0, 0.75]], [[1, 1]], [[1, 0], [0, 1]], 2),
        source="theory/T3; by hand: each x_t sees z[t,1] + z[t,2] only, and given the path no other time helps",
        levels=levels(PARTIAL="z[1..2,1..2]"),
        level="PARTIAL",
        note="Observable as a system, for [H; HF] has rank 2, yet the likelihood of a path sees one sum at each time: "
        "the rest comes through the prior's dynamics.",
    ),
    Case(
        name="state-space-two-sensors",
        model=lambda: _two_sensors(),
        source="by hand: H is regular, so H⁻¹ times the mean of x_t is z_t",
        levels=levels(GLOBAL="z[1..2,1..2]"),
        level="GLOBAL",
        note="As many sensors as states, in general position.",
    ),
)


def _two_sensors() -> Any:
    from identkit.classical.state_space import StateSpace

    eye = [[1, 0], [0, 1]]
    return StateSpace(
        [[0.5, 0.25], [0, 0.75]], [[1, 1], [1, -1]], eye, [[0.5, 0.25], [0.25, 1]], [0, 0], eye, length=2
    )

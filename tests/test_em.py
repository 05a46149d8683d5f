"""The loop of expectation–maximisation: leaps that gain, leaps that would fall, starts that are left early."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest

from identkit.classical.em import maximise


def creeping(place: float) -> tuple[float, float]:
    """EM that keeps 99 % of the way to 5 at every iteration."""
    return 5 + 0.99 * (place - 5), -((place - 5) ** 2)


def leap(first: float, second: float, third: float, stride: float) -> float:
    return first + 2 * stride * (second - first) + stride**2 * (third - 2 * second + first)


def test_leaps_reach_the_top_in_a_tenth_of_the_iterations() -> None:
    crept, slow = maximise([0.0], creeping, 1e-12, 5000)
    leapt, fast = maximise([0.0], creeping, 1e-12, 5000, leap)
    assert slow.converged and fast.converged
    assert abs(leapt - 5) <= abs(crept - 5) < 1e-4
    assert 10 * fast.iterations < slow.iterations
    assert all(a <= b for a, b in itertools.pairwise(fast.history))


@pytest.mark.parametrize("elsewhere", [-1e9, math.nan, None])
def test_a_leap_that_falls_or_leads_nowhere_is_taken_back(elsewhere: float | None) -> None:
    def step(place: float) -> tuple[float, float]:
        if place < -1e8 or math.isnan(place):
            raise ValueError("no such place")
        return creeping(place)

    plain, without = maximise([0.0], creeping, 1e-9, 5000)
    back, withal = maximise([0.0], step, 1e-9, 5000, lambda *_: elsewhere)
    assert back == plain and withal.history == without.history
    lower, fallen = maximise([0.0], creeping, 1e-9, 9000, lambda *_: -40.0)
    assert lower == plain and fallen.history == without.history


def test_only_the_best_start_goes_on_after_its_trial() -> None:
    steps = []

    def step(place: float) -> tuple[float, float]:
        steps.append(place)
        return creeping(place)

    best, found = maximise([100.0, 0.0, -50.0], step, 1e-12, 5000, trial=10)
    alone, wanted = maximise([0.0], creeping, 1e-12, 5000)
    assert best == pytest.approx(alone) and found.converged
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood)
    assert len(steps) < wanted.iterations + 40
    assert found.restarts[1] == found.log_likelihood > found.restarts[2] > found.restarts[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert maximise([0.0, 1.0], creeping, 1e-12, 5, trial=10)[1].iterations == 5


def test_no_leap_is_tried_before_the_top_is_near() -> None:
    gains = []

    def noted(first: float, second: float, third: float, stride: float) -> float:
        gains.append((second - 5) ** 2 - (third - 5) ** 2)
        return leap(first, second, third, stride)

    _, found = maximise([0.0], creeping, 1e-12, 5000, noted, near=0.01)
    assert found.converged and gains and max(gains) < 0.01
    assert maximise([0.0], creeping, 1e-12, 5000, noted, near=0.0)[1].history == (
        maximise([0.0], creeping, 1e-12, 5000)[1].history
    )

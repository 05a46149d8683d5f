"""The loop of expectation–maximisation: leaps that gain, leaps that would fall, starts that are left early."""

from __future__ import annotations

import itertools
import math
import warnings

import pytest
import torch

import identkit as ik
from identkit.classical.em import ConvergenceWarning, maximise
from identkit.model.compiled.data import whole


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


def test_a_start_that_leads_nowhere_is_given_up_for_the_others() -> None:
    def step(place: float) -> tuple[float, float]:
        if place > 100:
            raise ValueError(f"no model at {place}")
        return creeping(place)

    with pytest.warns(ConvergenceWarning, match="1 of 2 starts were given up: no model at 200.0"):
        best, found = maximise([200.0, 0.0], step, 1e-12, 5000)
    assert best == pytest.approx(maximise([0.0], creeping, 1e-12, 5000)[0])
    assert found.converged and found.restarts == (-math.inf, found.log_likelihood)
    with pytest.raises(ValueError, match=r"no model at 200\.0"):
        maximise([200.0, 300.0], step, 1e-12, 5000)
    with pytest.raises(ValueError, match="should have a log-likelihood where a fit starts, got nan"):
        maximise([0.0], lambda place: (place, math.nan), 1e-12, 50)


@pytest.mark.parametrize("height", [-1.0, math.nan, -math.inf])
def test_what_was_climbed_before_a_fall_is_kept(height: float) -> None:
    def step(place: float) -> tuple[float, float]:
        return place + 1, place if place < 7 else height

    with pytest.warns(ConvergenceWarning, match="rounding outweighs what is gained"):
        best, found = maximise([0.0], step, 1e-12, 50)
    assert best == 6.0 and found.log_likelihood == 6.0
    assert not found.converged and found.fell == (7.0 if height == -1 else math.inf)


@pytest.mark.filterwarnings("ignore::identkit.classical.em.ConvergenceWarning")
def test_no_leap_is_kept_unjudged_when_the_iterations_end() -> None:
    for iterations in range(3, 12):
        best, found = maximise([0.0], creeping, 1e-12, iterations, lambda *_: 1e6)
        assert -((best - 5) ** 2) >= found.log_likelihood


def test_the_end_can_be_left_to_another_climb() -> None:
    def finish(place: float, left: int) -> tuple[float, list[float], bool, float]:
        assert left == 90 and creeping(place)[1] > creeping(-50)[1]
        return 5.0, [-1.0, 0.0], True, 0.0

    best, found = maximise([-50.0, 0.0], creeping, 1e-12, 100, trial=10, finish=finish)
    assert best == 5.0 and found.converged
    assert found.iterations == 12 and found.log_likelihood == found.restarts[1] == 0.0


@pytest.mark.parametrize(
    "fit",
    [
        lambda x: ik.GaussianMixture.fit(x, 2),
        lambda x: ik.PPCA.fit(x, 1),
        lambda x: ik.FactorAnalysis.fit(x, 1),
        lambda x: ik.LatentClass.fit(x.abs().round(), 2),
    ],
    ids=["gaussian mixture", "ppca", "factor analysis", "latent class"],
)
def test_a_fit_refuses_by_name_what_it_cannot_square_or_count(fit) -> None:
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[3, 1] = 1e300
    with pytest.raises(ValueError, match=r"x should .*, got 1e\+300"):
        fit(x)


@pytest.mark.parametrize("value", [2.0, 1.5, "2", None, True, 1, 9])
def test_what_is_no_whole_number_in_range_is_named(value) -> None:
    with pytest.raises(ValueError, match=r"components should be .*in 2\.\.8, .*got"):
        whole(value, "components", 2, 8, ", the rows of x")

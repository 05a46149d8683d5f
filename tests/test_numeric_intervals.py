"""Outward rounding and its consequences: no sampled value ever leaves its enclosure, no exact one either."""

from __future__ import annotations

import math
from fractions import Fraction

import flint
import pytest
import torch
from torch import Tensor

from identkit.numeric import intervals, singular
from identkit.numeric.functions import FUNCTIONS
from identkit.numeric.intervals import Interval, point

NUMBERS: dict[str, tuple[tuple[float, ...], ...]] = {
    "power": ((2,), (3,), (4,), (-1,), (-2,), (0.5,), (-0.5,), (1.7,), (0,), (7,)),
    "leaky": ((0,), (0.01,), (-1,), (1.5,)),
    "elu": ((1.0, 1.0, 1.0), (1.7, 1.05, 1.0), (0.5, 1.0, 2.0)),
    "step": ((0.0,), (1.0,)),
}
CASES = [(name, numbers) for name in FUNCTIONS for numbers in NUMBERS.get(name, ((),))]
POSITIVE = {"log", "lgamma"}


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(name: str, numbers: tuple[float, ...], n: int = 200) -> tuple[Interval, Tensor]:
    """Intervals of many sizes, and 50 points in each; positive where the function asks for it."""
    generator = draw(0)
    centre = torch.randn(n, dtype=torch.float64, generator=generator) * 3
    width = torch.exp(torch.randn(n, dtype=torch.float64, generator=generator) * 4 - 2).clamp(max=20)
    low, high = centre - width, centre + width
    if name in POSITIVE or (name == "power" and numbers[0] != int(numbers[0])):
        low = centre.abs() + 1e-3
        high = low + width
    inside = torch.rand(50, n, dtype=torch.float64, generator=generator)
    return Interval(low, high), low + inside * (high - low)


def contains(outer: Interval, values: Tensor) -> bool:
    return bool(((values >= outer.low) & (values <= outer.high)).all())


@pytest.mark.parametrize(("name", "numbers"), CASES, ids=lambda case: str(case))
def test_functions_stay_in_their_ranges_and_slopes(name: str, numbers: tuple[float, ...]) -> None:
    function = FUNCTIONS[name]
    over, points = boxes(name, numbers)
    values = function.value(points, *numbers)
    values = values[:, torch.isfinite(values).all(0)]
    keep = torch.isfinite(function.value(points, *numbers)).all(0)
    over, points = Interval(over.low[keep], over.high[keep]), points[:, keep]
    assert len(over.low) > 50
    assert contains(function.range(over, numbers), values)
    slope = function.slope(over, *numbers)
    run = points[:-1] - points[1:]
    quotient = (values[:-1] - values[1:]) / run
    room = 1e-12 * (values.abs().amax(0) + points.abs().amax(0)) / run.abs() + 1e-9 * quotient.abs()
    usable = run.abs() > 1e-6
    assert bool(((quotient >= slope.low - room) | ~usable).all())
    assert bool(((quotient <= slope.high + room) | ~usable).all())


@pytest.mark.parametrize(("name", "numbers"), CASES, ids=lambda case: str(case))
def test_functions_that_are_called_one_to_one_are_monotone(name: str, numbers: tuple[float, ...]) -> None:
    function = FUNCTIONS[name]
    over, points = boxes(name, numbers)
    ordered = points.sort(0).values.clamp(-5, 5)  # where floats still tell values apart
    steps = function.value(ordered, *numbers).diff(dim=0)
    gaps = ordered.diff(dim=0) > 1e-3
    up, down = ((steps > 0) | ~gaps).all(0), ((steps < 0) | ~gaps).all(0)
    assert bool((up | down)[function.injective(over, *numbers)].all())


@pytest.mark.parametrize("operation", ["add", "multiply"])
def test_sums_and_products_contain_the_exact_result(operation: str) -> None:
    generator = draw(1)
    a, b = (torch.randn(300, dtype=torch.float64, generator=generator) * 10.0 ** (3 * i) for i in (0, 1))
    found = getattr(intervals, operation)(point(a), point(b))
    for x, y, low, high in zip(*(t.tolist() for t in (a, b, found.low, found.high)), strict=True):
        exact = Fraction(x) + Fraction(y) if operation == "add" else Fraction(x) * Fraction(y)
        assert Fraction(low) <= exact <= Fraction(high)
        assert high - low <= 1e-15 * abs(float(exact)) + 1e-300


def test_exact_results_stay_points() -> None:
    a = torch.tensor([0.5, 0.25, 3.0, 0.1], dtype=torch.float64)
    assert bool(intervals.add(point(a), point(a)).is_point.all())
    assert bool(intervals.multiply(point(a), point(torch.zeros(4))).is_zero.all())
    assert bool(intervals.multiply(point(a), point(-torch.ones(4))).is_point.all())


def test_matrix_products_contain_the_exact_result() -> None:
    generator = draw(2)
    a = torch.randn(4, 30, dtype=torch.float64, generator=generator) * torch.logspace(
        -8, 8, 30, dtype=torch.float64
    )
    b = torch.randn(30, 3, dtype=torch.float64, generator=generator)
    found = intervals.matmul(point(a), point(b))
    rational = lambda m: flint.fmpq_mat(
        m.shape[0], m.shape[1], [flint.fmpq(*v.as_integer_ratio()) for v in m.flatten().tolist()]
    )
    exact = rational(a) * rational(b)
    for i in range(4):
        for j in range(3):
            low, high = (flint.fmpq(*float(end[i, j]).as_integer_ratio()) for end in (found.low, found.high))
            assert low <= exact[i, j] <= high


def test_matrix_products_contain_sampled_ones_infinite_ends_included() -> None:
    generator = draw(3)
    a, b = torch.randn(4, 5, generator=generator).double(), torch.randn(5, 3, generator=generator).double()
    wide = Interval(b - 1, b + torch.tensor([0.5, math.inf, 0.1], dtype=torch.float64))
    tall = Interval(a - 0.1, a + 0.2)
    for one, two in ((point(a), wide), (tall, wide), (tall, Interval(b, b + 0.3))):
        found = intervals.matmul(one, two)
        for _ in range(500):
            share = torch.rand(4, 5, generator=generator).double()
            x = one.low + share * (one.high - one.low)
            far = torch.rand(5, 3, generator=generator).double() * 50
            y = torch.minimum(two.low + far, two.high)
            assert contains(Interval(found.low - 1e-12, found.high + 1e-12), x @ y)


def test_singular_values_are_enclosed_tightly() -> None:
    for seed in range(20):
        matrix = torch.randn(7 + seed, 6, dtype=torch.float64, generator=draw(seed))
        values = torch.linalg.svdvals(matrix)
        low, high = singular.singular_bounds(point(matrix))
        assert values[-1] * (1 - 1e-9) <= low <= values[-1] * (1 + 1e-13)
        assert values[0] * (1 - 1e-13) <= high <= values[0] * (1 + 1e-9)


def test_rank_is_that_of_exact_arithmetic() -> None:
    matrix = torch.randn(6, 4, dtype=torch.float64, generator=draw(0))
    assert singular.has_full_column_rank(point(matrix))
    lost = matrix.clone()
    lost[:, 3] = lost[:, 0] * 0.5 - lost[:, 1] * 2  # halves and doubles are exact, their difference is not
    exact = lost.clone()
    exact[:, 3] = exact[:, 0] * 0.5
    assert not singular.has_full_column_rank(point(exact))
    near = exact.clone()
    near[0, 3] = torch.nextafter(near[0, 3], torch.tensor(math.inf, dtype=torch.float64))
    assert singular.has_full_column_rank(
        point(near)
    )  # one unit in the last place, and modular arithmetic sees it
    assert not singular.has_full_column_rank(Interval(exact - 1e-15, exact + 1e-15))
    assert not singular.has_full_column_rank(point(matrix.T))


def test_difference_quotients_that_may_be_singular_prove_nothing() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    assert singular.lower_bound(Interval(eye - 0.2, eye + 0.2)) is not None
    assert singular.lower_bound(Interval(eye - 0.4, eye + 0.4)) is None
    half = Interval(
        torch.diag(torch.ones(3)).double(),
        torch.diag(torch.full((3,), math.inf)).double().nan_to_num(nan=0.0),
    )
    assert singular.lower_bound(half) is not None
    assert singular.lower_bound(Interval(half.low * 0, half.high)) is None

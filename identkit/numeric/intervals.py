"""Interval arithmetic on tensors in float64: every result contains every real result, infinities included.

IEEE 754 rounds ``+`` and ``·`` correctly, so one step to the next float on either side contains the exact value; where
the float result is exact (a sum without error, a product with 0 or ±1) the end stays where it is, so that constants
stay points. Sums and products over an axis add a bound of the accumulated error, below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps
_LEAST = 1e-300  # covers what a product loses to underflow, 2^-1074 a term


@dataclass(frozen=True, eq=False)
class Interval:
    """The reals between two tensors of one shape, ends included; an infinite end is no bound."""

    low: Tensor
    high: Tensor

    @property
    def is_point(self) -> Tensor:
        """Where the interval is one real number."""
        return (self.low == self.high) & torch.isfinite(self.low)

    @property
    def is_zero(self) -> Tensor:
        """Where it is exactly 0."""
        return (self.low == 0) & (self.high == 0)

    @property
    def excludes_zero(self) -> Tensor:
        """Where 0 does not lie in it."""
        return (self.low > 0) | (self.high < 0)

    @property
    def magnitude(self) -> Tensor:
        """The largest absolute value in it."""
        return torch.maximum(self.low.abs(), self.high.abs())

    @property
    def middle(self) -> Tensor:
        """A float inside; 0 or the finite end where it is unbounded."""
        middle = 0.5 * self.low + 0.5 * self.high
        end = torch.where(torch.isfinite(self.low), self.low, self.high)
        end = torch.where(torch.isfinite(end), end, torch.zeros_like(end))
        return torch.where(torch.isfinite(middle), middle, end)

    def __getitem__(self, index: object) -> Interval:
        return Interval(self.low[index], self.high[index])  # type: ignore[index]

    def reshape(self, *shape: int) -> Interval:
        """The same numbers in another shape."""
        return Interval(self.low.reshape(*shape), self.high.reshape(*shape))


def point(value: Tensor) -> Interval:
    """Floats as intervals of no width."""
    value = value.to(torch.float64)
    return Interval(value, value)


def hull(one: Interval, two: Interval) -> Interval:
    """The least interval that contains both."""
    return Interval(torch.minimum(one.low, two.low), torch.maximum(one.high, two.high))


def outward(low: Tensor, high: Tensor, exact_low: Tensor, exact_high: Tensor) -> Interval:
    """One float further out wherever an end is not exact; NaN, which ∞ − ∞ leaves, is no bound."""
    below = torch.nextafter(low, torch.full_like(low, -math.inf))
    above = torch.nextafter(high, torch.full_like(high, math.inf))
    low = torch.where(exact_low, low, below).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    high = torch.where(exact_high, high, above).nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    # An overflow is a finite number that floats do not reach: as a lower end it is the largest float, not +∞.
    largest = torch.finfo(torch.float64).max
    return Interval(low.clamp(max=largest), high.clamp(min=-largest))


def widened(low: Tensor, high: Tensor, relative: float) -> Interval:
    """Room for functions whose float value is off by at most `relative` of itself.

    Vectorised exp, log, tanh, sin, … (SLEEF, the system's libm) are within 1 to 4 units in the last place; callers
    leave 16 or more.
    """
    room = Interval(low - relative * low.abs() - _LEAST, high + relative * high.abs() + _LEAST)
    no = torch.zeros_like(low, dtype=torch.bool)
    return outward(room.low, room.high, no, no)


def add(one: Interval, two: Interval) -> Interval:
    """``a + b``."""
    low, exact_low = _sum(one.low, two.low)
    high, exact_high = _sum(one.high, two.high)
    return outward(low, high, exact_low, exact_high)


def _sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rounded sum, and whether it is exact: Knuth's TwoSum gives the very error."""
    total = a + b
    seen = total - a
    error = (a - (total - seen)) + (b - seen)
    return total, error == 0


def negative(one: Interval) -> Interval:
    """``−a``."""
    return Interval(-one.high, -one.low)


def multiply(one: Interval, two: Interval) -> Interval:
    """``a · b``; 0·∞ is 0, since an infinite end stands for finite numbers without bound."""
    products = [
        (a * b).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
        for a in (one.low, one.high)
        for b in (two.low, two.high)
    ]
    lowest = torch.stack(products).amin(0)
    highest = torch.stack(products).amax(0)
    exact = one.is_zero | two.is_zero | _unit(one) | _unit(two)
    return outward(lowest, highest, exact, exact)


def _unit(one: Interval) -> Tensor:
    return one.is_point & (one.low.abs() == 1)


def square(one: Interval) -> Interval:
    """``a²``, which never is negative."""
    full = multiply(one, one)
    crosses = (one.low <= 0) & (one.high >= 0)
    ends = Interval(torch.minimum(one.low.abs(), one.high.abs()), one.magnitude)
    apart = multiply(ends, ends)
    return Interval(torch.where(crosses, 0.0, apart.low).clamp(min=0.0), torch.minimum(full.high, apart.high))


def total(one: Interval) -> Interval:
    """The sum over the last axis.

    A float sum of n terms in any order is off by at most ``(n − 1)·u·Σ|a|`` to first order, u = ε/2; (n + 2)·ε·Σ|a|
    covers that, higher orders and the rounding of the bound itself.
    """
    n = one.low.shape[-1]
    if n == 0:
        return point(one.low.sum(-1))
    low, high = one.low.sum(-1), one.high.sum(-1)
    # A sum with one term that is not 0 is exact.
    single = ((one.low != 0) | (one.high != 0)).sum(-1) <= 1
    slack_low = (n + 2) * _EPS * one.low.abs().sum(-1)
    slack_high = (n + 2) * _EPS * one.high.abs().sum(-1)
    return outward(
        torch.where(single, low, low - slack_low),
        torch.where(single, high, high + slack_high),
        single,
        single,
    )


def matmul(one: Interval, two: Interval) -> Interval:
    """``A B`` over the last two axes, by midpoints and radii.

    With ``A = A₀ ± R``, ``B = B₀ ± S``: ``|AB − A₀B₀| ≤ |A₀|S + R(|B₀| + S)``, and the float product is off by at most
    ``γ_m |A₀||B₀|``, ``γ_m ≈ m·ε/2``, in whatever order BLAS sums; (m + 4)·ε covers it, the rounding of the radii and
    of the bound. Rows and columns that meet an infinite end are bounded by signs alone where one side is a point, and
    have no bound otherwise.
    """
    m = one.low.shape[-1]
    (a, r), (b, s) = _ball(one), _ball(two)
    middle = a @ b
    both = a.abs() @ b.abs()
    radius = torch.zeros_like(middle)
    if bool((s != 0).any()):
        radius = radius + a.abs() @ s
    if bool((r != 0).any()):
        radius = radius + r @ (b.abs() + s)
    slack = (m + 4) * _EPS * (both + radius) + m * _LEAST * (both > 0)
    small = 1e-140  # below it a product can underflow to 0 and hide in `both`
    if bool(((a.abs() < small) & (a != 0)).any()) or bool(((b.abs() < small) & (b != 0)).any()):
        slack = slack + m * _LEAST
    radius = radius * (1 + 4 * _EPS) + slack
    exact = radius == 0
    found = outward(middle - radius, middle + radius, exact, exact)
    return _unbounded(one, two, found)


def _ball(one: Interval) -> tuple[Tensor, Tensor]:
    """Midpoint and radius, rounded up; entries with an infinite end count as 0 here and are mended by `_unbounded`."""
    finite = torch.isfinite(one.low) & torch.isfinite(one.high)
    middle = torch.where(finite, one.middle, torch.zeros_like(one.low))
    radius = torch.maximum(one.high - middle, middle - one.low) * (1 + 4 * _EPS)
    radius = torch.where(one.is_point | ~finite, torch.zeros_like(radius), radius)
    return middle, radius


def _unbounded(one: Interval, two: Interval, found: Interval) -> Interval:
    """Widen the entries of a product that meet an infinite end."""
    low, high = found.low, found.high
    for this, other, swapped in ((one, two, False), (two, one, True)):
        up, down = torch.isinf(this.high), torch.isinf(this.low)
        half = (
            up | down
        )  # such an entry was taken as 0: its finite end counts as unbounded too, where not of one sign
        if not bool(half.any()):
            continue
        up, down = up | (half & (this.high > 0)), down | (half & (this.low < 0))
        plus, minus = other.high > 0, other.low < 0
        lifts = _meets(up, plus, swapped) | _meets(down, minus, swapped)
        drops = _meets(up, minus, swapped) | _meets(down, plus, swapped)
        # What reaches neither beyond 0 is on the other side of 0 and only moves the bound that is infinite already.
        high = torch.where(lifts, math.inf, high)
        low = torch.where(drops, -math.inf, low)
    return Interval(low, high)


def _meets(this: Tensor, other: Tensor, swapped: bool) -> Tensor:
    one, two = (other, this) if swapped else (this, other)
    return (one.double() @ two.double()) > 0

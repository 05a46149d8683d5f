"""Elementwise functions: their values on intervals, their slopes, and where they are one-to-one or analytic.

A *slope* of φ over an interval I contains every difference quotient ``(φ(a) − φ(b))/(a − b)``, a ≠ b in I: by the
mean value theorem the range of φ′ where φ is differentiable, and for a jump upwards ``[0, ∞]``. Slopes multiply along
a composition, so bounds by them hold for functions that are not smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from identkit.numeric.intervals import Interval, hull, multiply, negative, outward, point, square, widened

_ROUNDING = 32 * torch.finfo(torch.float64).eps
_PERIODIC = 2.0**26  # beyond it nothing is said of the phase of a sine

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Elementwise:
    """One real function of a real variable, with numbers that select it from its family."""

    value: Callable[..., Tensor]
    """Its floats, within 16 ε of the real value, for monotone functions."""
    slope: Callable[..., Interval]
    """The difference quotients over an interval."""
    enclose: Callable[..., Interval] | None = None
    """The range over an interval; None for a non-decreasing function, whose ends are those of the interval."""
    injective: Callable[..., Tensor] = lambda over, *_: torch.ones_like(over.low, dtype=torch.bool)
    """Where it is one-to-one on the interval."""
    analytic: Callable[..., Tensor] = lambda over, *_: torch.ones_like(over.low, dtype=torch.bool)
    """Where it is real-analytic on the interval."""

    def range(self, over: Interval, numbers: Numbers) -> Interval:
        """All values on an interval."""
        if self.enclose is not None:
            return self.enclose(over, *numbers)
        return widened(self.value(over.low, *numbers), self.value(over.high, *numbers), _ROUNDING)


def _constant(over: Interval, value: float) -> Interval:
    return point(torch.full_like(over.low, value))


def _none(over: Interval) -> Tensor:
    return torch.zeros_like(over.low, dtype=torch.bool)


def _clamped(over: Interval, low: float = -math.inf, high: float = math.inf) -> Interval:
    return Interval(over.low.clamp(low, high), over.high.clamp(low, high))


def _distance(over: Interval) -> tuple[Tensor, Tensor]:
    """The least and the greatest ``|x|``."""
    crosses = (over.low <= 0) & (over.high >= 0)
    least = torch.where(crosses, 0.0, torch.minimum(over.low.abs(), over.high.abs()))
    return least, over.magnitude


def _bell(function: Callable[[Tensor], Tensor], top: float) -> Callable[..., Interval]:
    """The range of an even function ≥ 0 that falls with |x|."""

    def slope(over: Interval, *_: float) -> Interval:
        least, greatest = _distance(over)
        return _clamped(widened(function(greatest), function(least), _ROUNDING), 0.0, top)

    return slope


# --- exp, log and roots ------------------------------------------------------------------------------------


def _exp_range(over: Interval) -> Interval:
    return _clamped(widened(torch.exp(over.low), torch.exp(over.high), _ROUNDING), 0.0)


def _log_range(over: Interval) -> Interval:
    inside = _clamped(over, 0.0)
    found = widened(torch.log(inside.low), torch.log(inside.high), _ROUNDING)
    outside = over.low < 0
    return Interval(torch.where(outside, -math.inf, found.low), torch.where(outside, math.inf, found.high))


def _reciprocal_range(over: Interval) -> Interval:
    found = widened(1 / over.high, 1 / over.low, _ROUNDING)
    unit = over.is_point & (over.low.abs() == 1)
    found = _signed(over, found)
    low, high = torch.where(unit, over.low, found.low), torch.where(unit, over.low, found.high)
    inside = ~over.excludes_zero
    low, high = torch.where(inside, -math.inf, low), torch.where(inside, math.inf, high)
    high = torch.where((over.low == 0) & (over.high > 0), math.inf, high)
    low = torch.where((over.low == 0) & (over.high > 0), 0.0, low)
    return Interval(low, high)


def _power_range(over: Interval, exponent: float) -> Interval:
    """``x^p``: integers p anywhere (negative p off 0), other p for x ≥ 0 (else no bound)."""
    if exponent == 0:
        return _constant(over, 1.0)
    if exponent == 1:
        return over
    if exponent < 0:
        return _reciprocal_range(_power_range(over, -exponent))
    if exponent == 2:
        return square(over)
    if exponent == int(exponent):
        ends = widened(over.low**exponent, over.high**exponent, _ROUNDING * max(1.0, exponent))
        if exponent % 2:
            return _signed(over, ends)
        least, greatest = _distance(over)
        return _clamped(
            widened(least**exponent, greatest**exponent, _ROUNDING * max(1.0, exponent)), 0.0, math.inf
        )
    inside = _clamped(over, 0.0)
    found = widened(inside.low**exponent, inside.high**exponent, _ROUNDING * max(1.0, exponent))
    outside = over.low < 0
    return Interval(
        torch.where(outside, -math.inf, found.low.clamp(min=0.0)), torch.where(outside, math.inf, found.high)
    )


def _signed(over: Interval, found: Interval) -> Interval:
    """Keep the sign of the argument, which rounding outward may have lost at 0."""
    low = torch.where(over.low >= 0, found.low.clamp(min=0.0), found.low)
    return Interval(low, torch.where(over.high <= 0, found.high.clamp(max=0.0), found.high))


def _power_slope(over: Interval, exponent: float) -> Interval:
    if exponent == 0:
        return _constant(over, 0.0)
    found = multiply(_constant(over, exponent), _power_range(over, exponent - 1))
    if exponent > 0:
        return found
    # Across the pole at 0 the mean value theorem says nothing.
    pole = (over.low < 0) & (over.high > 0)
    return Interval(torch.where(pole, -math.inf, found.low), torch.where(pole, math.inf, found.high))


def _power_injective(over: Interval, exponent: float) -> Tensor:
    one_sign = (over.low >= 0) | (over.high <= 0)
    if exponent == 0:
        return _none(over)
    if exponent == int(exponent):
        positive = torch.ones_like(one_sign) if exponent % 2 else one_sign
        return positive if exponent > 0 else over.excludes_zero & one_sign
    return (over.low >= 0) if exponent > 0 else (over.low > 0)


def _power_analytic(over: Interval, exponent: float) -> Tensor:
    if exponent == int(exponent) and exponent >= 0:
        return torch.ones_like(over.low, dtype=torch.bool)
    return over.excludes_zero if exponent == int(exponent) else over.low > 0


# --- sines ---------------------------------------------------------------------------------------------------


def _sine_range(over: Interval, shift: float) -> Interval:
    """``sin(x + shift·π/2)``; maxima at ``π/2 (1 − shift) + 2πn``, looked for with room for the rounding of π."""
    function = (torch.sin, torch.cos)[int(shift)]
    ends = [function(over.low), function(over.high)]
    found = widened(torch.minimum(*ends), torch.maximum(*ends), _ROUNDING)
    room = 1e-6
    known = over.magnitude < _PERIODIC

    def reached(extremum: float) -> Tensor:
        first = torch.ceil((over.low - extremum - room) / (2 * math.pi))
        return ~known | (2 * math.pi * first + extremum <= over.high + room)

    peak = math.pi / 2 * (1 - shift)
    low = torch.where(reached(peak + math.pi), -1.0, found.low.clamp(min=-1.0))
    return Interval(low.nan_to_num(nan=-1.0), torch.where(reached(peak), 1.0, found.high.clamp(max=1.0)))


def _within_half_period(over: Interval, shift: float) -> Tensor:
    """Between two neighbouring extrema, with room."""
    extremum = math.pi / 2 * (1 - shift)
    below, above = (over.low - extremum) / math.pi, (over.high - extremum) / math.pi
    inside = (torch.floor(below - 1e-6) == torch.floor(above + 1e-6)) & (over.magnitude < _PERIODIC)
    return inside


# --- the activations of networks -----------------------------------------------------------------------------


def _softplus(x: Tensor) -> Tensor:
    """``log(1 + eˣ)`` itself; torch's own goes over to x beyond a threshold, 2e-9 away."""
    return torch.logaddexp(torch.zeros_like(x), x)


def _elu(x: Tensor, alpha: float, scale: float, inner: float) -> Tensor:
    return torch.where(x > 0, scale * x, scale * alpha * torch.expm1(inner * x.clamp(max=0.0)))


def _elu_slope(over: Interval, alpha: float, scale: float, inner: float) -> Interval:
    negative_side = multiply(
        _constant(over, scale * alpha * inner),
        widened(torch.ones_like(over.low), torch.ones_like(over.low), _ROUNDING),
    )
    inside = _clamped(over, high=0.0)
    left = multiply(negative_side, _exp_range(multiply(_constant(over, inner), inside)))
    right = _constant(over, scale)
    both = hull(left, right)
    pick = lambda a, b, c: torch.where(over.low >= 0, a, torch.where(over.high <= 0, b, c))
    return Interval(pick(right.low, left.low, both.low), pick(right.high, left.high, both.high))


def _leaky(x: Tensor, slope: float) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def _leaky_range(over: Interval, slope: float) -> Interval:
    """``x`` for x ≥ 0 and ``slope·x`` below: 0 is relu, −1 the absolute value."""
    above = _clamped(over, low=0.0)
    below = multiply(_constant(over, slope), _clamped(over, high=0.0))
    both = hull(above, below)
    pick = lambda a, b, c: torch.where(over.low >= 0, a, torch.where(over.high <= 0, b, c))
    return Interval(pick(above.low, below.low, both.low), pick(above.high, below.high, both.high))


def _leaky_slope(over: Interval, slope: float) -> Interval:
    right, left = _constant(over, 1.0), _constant(over, slope)
    both = hull(right, left)
    pick = lambda a, b, c: torch.where(over.low >= 0, a, torch.where(over.high <= 0, b, c))
    return Interval(pick(right.low, left.low, both.low), pick(right.high, left.high, both.high))


def _step_range(over: Interval, at_zero: float) -> Interval:
    """1 above 0, 0 below, `at_zero` at 0."""
    low = (over.low > 0) | ((over.low >= 0) & (at_zero == 1))
    high = (over.high > 0) | ((over.high >= 0) & (at_zero == 1))
    return Interval(low.double(), high.double())


def _step_slope(over: Interval, at_zero: float) -> Interval:
    decided = _step_range(over, at_zero).is_point
    return Interval(torch.zeros_like(over.low), torch.where(decided, 0.0, math.inf).double())


def _sigmoid_slope(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _tanh_slope(x: Tensor) -> Tensor:
    """``1/cosh² = 4 σ(2x) σ(−2x)``, without cancellation."""
    return 4 * _sigmoid_slope(2 * x)


def _gauss(over: Interval, rate: float, factor: float) -> Interval:
    """The range of ``factor · exp(−rate·x²)``; the exponent is rounded like any product, so it is an interval too."""
    return multiply(_constant(over, factor), _exp_range(multiply(_constant(over, -rate), square(over))))


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * torch.special.erfc(-x / math.sqrt(2))


def _normal_cdf_range(over: Interval) -> Interval:
    """Off by ``x²ε`` of itself where the argument's rounding is multiplied by the slope of log Φ, about −x."""
    low, high = (_normal_cdf(end) for end in (over.low, over.high))
    room = [
        _ROUNDING * (1 + end * end) * value + 1e-300 for end, value in ((over.low, low), (over.high, high))
    ]
    room = [
        torch.where(torch.isinf(end), 0.0, some)
        for end, some in zip((over.low, over.high), room, strict=True)
    ]
    no = torch.zeros_like(low, dtype=torch.bool)
    return _clamped(outward(low - room[0], high + room[1], no, no), 0.0, 1.0)


def _log_gamma_range(over: Interval) -> Interval:
    """Rising from 2 on; below, known at points alone, where it may cancel: its zeros are 1 and 2."""
    low, high = (torch.lgamma(end) for end in (over.low, over.high))
    room = 1e-12
    found = widened(low - room, high + room, 1e-12)
    known = (over.low >= 2) | (over.is_point & (over.low > 0))
    return Interval(torch.where(known, found.low, -math.inf), torch.where(known, found.high, math.inf))


FUNCTIONS: Mapping[str, Elementwise] = {
    "exp": Elementwise(torch.exp, _exp_range, _exp_range),
    "expm1": Elementwise(torch.expm1, _exp_range),
    "log": Elementwise(
        torch.log,
        lambda over: _clamped(_reciprocal_range(_clamped(over, 0.0)), 0.0),
        _log_range,
        injective=lambda over: over.low >= 0,
        analytic=lambda over: over.low > 0,
    ),
    "power": Elementwise(torch.pow, _power_slope, _power_range, _power_injective, _power_analytic),
    "tanh": Elementwise(
        torch.tanh,
        _bell(_tanh_slope, 1.0),
        lambda over: _signed(
            over, _clamped(widened(torch.tanh(over.low), torch.tanh(over.high), _ROUNDING), -1, 1)
        ),
    ),
    "sigmoid": Elementwise(
        torch.sigmoid,
        _bell(_sigmoid_slope, 0.25),
        lambda over: _clamped(widened(torch.sigmoid(over.low), torch.sigmoid(over.high), _ROUNDING), 0, 1),
    ),
    "softplus": Elementwise(
        _softplus,
        lambda over: FUNCTIONS["sigmoid"].range(over, ()),
        lambda over: _clamped(widened(_softplus(over.low), _softplus(over.high), _ROUNDING), 0.0),
    ),
    "elu": Elementwise(
        _elu,
        _elu_slope,
        injective=lambda over, alpha, scale, inner: (
            torch.full_like(over.low, alpha * inner > 0 and scale != 0, dtype=torch.bool) | (over.low >= 0)
        ),
        analytic=lambda over, *_: (over.low > 0) | (over.high < 0),
    ),
    "leaky": Elementwise(
        _leaky,
        _leaky_slope,
        _leaky_range,
        injective=lambda over, slope: (
            torch.full_like(over.low, slope > 0, dtype=torch.bool)
            | (over.low >= 0)
            | ((over.high <= 0) & (slope != 0))
        ),
        analytic=lambda over, slope: (over.low > 0) | (over.high < 0) | (slope == 1),
    ),
    "step": Elementwise(
        lambda x, at_zero: torch.where(x == 0, at_zero, (x > 0).double()),
        _step_slope,
        _step_range,
        injective=lambda over, _: _none(over),
        analytic=lambda over, _: (over.low > 0) | (over.high < 0),
    ),
    "normal_cdf": Elementwise(
        # 1/√(2π) = 0.3989422…, and 2/√π = 1.1283791… for erf
        _normal_cdf,
        lambda over: hull(_gauss(over, 0.5, 0.398942), _gauss(over, 0.5, 0.398943)),
        _normal_cdf_range,
    ),
    "erf": Elementwise(
        torch.erf, lambda over: hull(_gauss(over, 1.0, 1.128379), _gauss(over, 1.0, 1.128380))
    ),
    "atan": Elementwise(torch.atan, _bell(lambda x: 1 / (1 + x * x), 1.0)),
    "lgamma": Elementwise(
        torch.lgamma,
        lambda over: Interval(torch.full_like(over.low, -math.inf), torch.full_like(over.low, math.inf)),
        _log_gamma_range,
        injective=lambda over: over.low >= 2,
        analytic=lambda over: over.low > 0,
    ),
    "sinh": Elementwise(torch.sinh, lambda over: _cosh(over)),
    "sin": Elementwise(
        torch.sin,
        lambda over: _sine_range(over, 1),
        lambda over: _sine_range(over, 0),
        injective=lambda over: _within_half_period(over, 0),
    ),
    "cos": Elementwise(
        torch.cos,
        lambda over: negative(_sine_range(over, 0)),
        lambda over: _sine_range(over, 1),
        injective=lambda over: _within_half_period(over, 1),
    ),
}


def _cosh(over: Interval) -> Interval:
    least, greatest = _distance(over)
    return _clamped(widened(torch.cosh(least), torch.cosh(greatest), _ROUNDING), 1.0)

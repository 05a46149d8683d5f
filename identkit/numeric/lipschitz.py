"""How far a program can bring two latents together or pull them apart: Lipschitz constants from below and above.

``m‖s(z) − s(z′)‖ ≤ ‖v(z) − v(z′)‖ ≤ L‖s(z) − s(z′)‖`` for z, z′ in a box, composed step by step (theory/T5): a matrix
by its extreme singular values, an elementwise function by its slopes on the range of its argument, ``x + g(x)`` by
``1 − Lip(g)``. The norms are Euclidean; all roundings are outward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from identkit.numeric.enclosure import Ranges
from identkit.numeric.functions import FUNCTIONS
from identkit.numeric.intervals import Interval
from identkit.numeric.program import Kind, Program, Step, matrices
from identkit.numeric.singular import norm_bound, rounded_down, rounded_up, singular_bounds

Constants = tuple[float, float]
"""(m, L): 0 ≤ m ≤ L ≤ ∞."""


def lipschitz(program: Program, found: Ranges, seed: int = 0) -> list[Constants]:
    """Bound every step's differences by those of one step, on the box of `found`.

    Values that do not come from the seed are taken to be the same for z and z′; where they are not, the constants say
    nothing.
    """
    result: list[Constants] = []
    for number, step in enumerate(program.steps):
        if number == seed:
            result.append((1.0, 1.0))
        elif number < seed or all(result[i][1] == 0 for i in step.inputs):
            result.append((0.0, 0.0))
        else:
            inputs = [result[i] for i in step.inputs]
            result.append(_constants(step, inputs, [found[i] for i in step.inputs]))
    return result


def _constants(step: Step, inputs: list[Constants], over: list[Interval]) -> Constants:
    match step.kind:
        case Kind.GATHER:
            return _gathered(step, inputs, over)
        case Kind.ADD:
            (m, upper), (n, other) = inputs
            return max(rounded_down(m - other, 2), rounded_down(n - upper, 2), 0.0), rounded_up(
                upper + other, 2
            )
        case Kind.MULTIPLY:
            return _multiplied(inputs, over)
        case Kind.MATMUL:
            return _product(step, inputs, over)
        case Kind.SUM:
            return 0.0, rounded_up(inputs[0][1] * math.sqrt(step.dimensions[1]), 4)
        case Kind.FUNCTION:
            slope = FUNCTIONS[step.name].slope(over[0], *step.numbers)
            return _scaled(inputs[0], slope, ~over[0].is_point)
        case Kind.SELECT:
            if bool(over[0].is_point.all()):
                return 0.0, rounded_up(math.hypot(inputs[1][1], inputs[2][1]), 4)
            return 0.0, math.inf
    raise AssertionError(step.kind)


def _scaled(constants: Constants, factor: Interval, moving: Tensor) -> Constants:
    """Each element times its own factor; elements that are constant on the box do not count."""
    if not bool(moving.any()):
        return 0.0, 0.0
    m, upper = constants
    sizes = torch.minimum(factor.low.abs(), factor.high.abs())
    least = float(torch.where(factor.excludes_zero, sizes, 0.0)[moving].min())
    return rounded_down(_times(m, least), 2), rounded_up(
        _times(upper, float(factor.magnitude[moving].max())), 2
    )


def _times(one: float, two: float) -> float:
    return 0.0 if one == 0 or two == 0 else one * two


def _gathered(step: Step, inputs: list[Constants], over: list[Interval]) -> Constants:
    """``‖out‖² = Σ_i n_i δ_i²`` with n_i how often element i is taken; one that does not move need not be taken."""
    assert step.data is not None
    often = torch.bincount(step.data, minlength=sum(len(each.low) for each in over))
    least, most, start = 0.0, 0.0, 0
    for (m, upper), each in zip(inputs, over, strict=True):
        taken = often[start : start + len(each.low)][~each.is_point]
        start += len(each.low)
        if len(taken):
            least += float(taken.min()) * m * m
            most += _times(float(taken.max()), upper * upper)
    return rounded_down(math.sqrt(least), 8), rounded_up(math.sqrt(most), 8)


def _multiplied(inputs: list[Constants], over: list[Interval]) -> Constants:
    (_, one), (_, two) = inputs
    if two == 0:
        return _scaled(inputs[0], over[1], ~over[0].is_point)
    if one == 0:
        return _scaled(inputs[1], over[0], ~over[1].is_point)
    bound = _times(float(over[0].magnitude.max()), two) + _times(float(over[1].magnitude.max()), one)
    return 0.0, rounded_up(bound, 4)


def _product(step: Step, inputs: list[Constants], over: list[Interval]) -> Constants:
    """With a matrix that does not move: its singular values, the worst over the batch."""
    low = matrices(step, over[0].low, over[1].low)
    high = matrices(step, over[0].high, over[1].high)
    one, two = Interval(low[0], high[0]), Interval(low[1].mT, high[1].mT)
    if inputs[0][1] == 0:
        weights, moving, constants = one, two, inputs[1]
    elif inputs[1][1] == 0:
        weights, moving, constants = two, Interval(low[0], high[0]), inputs[0]
    else:
        norms = [max(norm_bound(each[b]) for b in range(len(each.low))) for each in (one, two)]
        return 0.0, rounded_up(_times(norms[0], inputs[1][1]) + _times(norms[1], inputs[0][1]), 4)
    least, most = math.inf, 0.0
    for batch in range(len(weights.low)):
        # Columns of the matrix that meet constants only do not count; `moving` has the inner axis last.
        columns = ~moving[batch].is_point.all(0)
        low_b, high_b = singular_bounds(_columns(weights[batch], columns))
        least, most = min(least, low_b), max(most, high_b)
    least = 0.0 if math.isinf(least) else least
    return rounded_down(_times(constants[0], least), 2), rounded_up(_times(constants[1], most), 2)


def _columns(matrix: Interval, columns: Tensor) -> Interval:
    return Interval(matrix.low[:, columns], matrix.high[:, columns])


def compose(constants: Sequence[Constants]) -> Constants:
    """The constants of a composition."""
    m, upper = 1.0, 1.0
    for lower, higher in constants:
        m, upper = rounded_down(_times(m, lower), 2), rounded_up(_times(upper, higher), 2)
    return m, upper

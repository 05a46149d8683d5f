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


def lipschitz(program: Program, found: Ranges, seed: int = 0, until: int | None = None) -> list[Constants]:
    """Bound every step's differences by those of one step, on the box of `found`.

    Values that do not come from the seed are taken to be the same for z and z′; where they are not, the constants say
    nothing. A sum of two terms that both move is bounded by the best of three arguments: the lower constant of one less
    the upper of the other; the same with one term for the seed, as in ``x + g(x)`` deep in a network; monotonicity,
    ``⟨δ, δv⟩ ≥ μ‖δ‖²`` (`_monotone`), which gives m ≥ μ.

    Args:
        program: the program.
        found: its ranges.
        seed: the step whose elements are the variables.
        until: the last step that is asked for; otherwise all.
    """
    result: list[Constants] = []
    monotone: list[float | None] = []
    for number, step in enumerate(program.steps[: None if until is None else until + 1]):
        if number == seed:
            result.append((1.0, 1.0))
            monotone.append(1.0)
            continue
        if number < seed or all(result[i][1] == 0 for i in step.inputs):
            result.append((0.0, 0.0))
            monotone.append(None)
            continue
        over = [found[i] for i in step.inputs]
        m, upper = _constants(step, [result[i] for i in step.inputs], over)
        monotone.append(_monotone(program, found, number, seed, monotone))
        m = max(m, monotone[-1] or 0.0)
        if step.kind is Kind.ADD and all(result[i][1] > 0 for i in step.inputs) and seed not in step.inputs:
            for term, other in (step.inputs, step.inputs[::-1]):
                if not _passes_by(program, seed, term, other):
                    inner = lipschitz(program, found, term, number)[number]
                    m = max(m, rounded_down(_times(result[term][0], inner[0]), 2))
                    upper = min(upper, rounded_up(_times(result[term][1], inner[1]), 2))
        result.append((m, upper))
    return result


def _passes_by(program: Program, source: int, gate: int, target: int) -> bool:
    """Whether the target reads the source by a way that does not lead through the gate."""
    pending, seen = [target], {gate}
    while pending:
        number = pending.pop()
        if number == source and number != gate:
            return True
        if number not in seen:
            seen.add(number)
            pending.extend(program.steps[number].inputs)
    return False


def _monotone(
    program: Program, found: Ranges, number: int, seed: int, known: Sequence[float | None]
) -> float | None:
    """``μ ≥ 0`` with ``⟨s − s′, v − v′⟩ ≥ μ‖s − s′‖²`` for the seed's s and a step's v of one size; None if none is known.

    Sums add, positive factors multiply, and ``Mᵀφ(Ms + c)`` with φ non-decreasing has μ = 0: the gradient of a convex
    function of one layer. (Gradients of deeper ones vouch for themselves by `Bounded`.)
    """
    step, inputs = program.steps[number], program.steps[number].inputs
    if step.kind is Kind.ADD:
        one, two = (
            0.0 if known[i] is None and not _passes_by(program, seed, -1, i) else known[i] for i in inputs
        )
        return None if one is None or two is None else rounded_down(one + two, 2)
    if step.kind is Kind.MULTIPLY:
        for source, factor in (inputs, inputs[::-1]):
            inner, by = known[source], found[factor]
            if inner is not None and not _passes_by(program, seed, -1, factor):
                same = bool((by.low == by.low[0]).all() and (by.high == by.high[0]).all())
                if bool((by.low >= 0).all()) and (same or source == seed):
                    return rounded_down(inner * float(by.low.min()), 2)
    if step.kind is Kind.MATMUL and step.size == program.steps[seed].size:
        return 0.0 if _is_gradient(program, found, number, seed) else None
    return None


def _is_gradient(program: Program, found: Ranges, number: int, seed: int) -> bool:
    """Whether a step is ``Mᵀφ(Ms + c)``, element by element φ non-decreasing."""
    outer = _linear_map(program, found, number)
    if outer is None:
        return False
    source, matrix = outer
    reads = lambda i: _passes_by(program, seed, -1, i)
    while (step := program.steps[source]).kind in (Kind.FUNCTION, Kind.ADD):
        if step.kind is Kind.ADD:
            moving = [i for i in step.inputs if reads(i)]
            if len(moving) != 1:
                return False
            source = moving[0]
            continue
        slope = FUNCTIONS[step.name].slope(found[step.inputs[0]], *step.numbers)
        if not bool((slope.low >= 0).all()):
            return False
        source = step.inputs[0]
    first = _linear_map(program, found, source)
    return first is not None and first[0] == seed and torch.equal(matrix, first[1].T)


def _linear_map(program: Program, found: Ranges, number: int) -> tuple[int, Tensor] | None:
    """A step as an exactly known matrix (out, in) times another step."""
    step = program.steps[number]
    if step.kind is not Kind.MATMUL:
        return None
    batches, rows, inner, columns = step.dimensions
    one, two = (found[i] for i in step.inputs)
    if batches == 1 and columns == 1 and bool(one.is_point.all()):
        return step.inputs[1], one.low.reshape(rows, inner)
    if batches == 1 and rows == 1 and bool(two.is_point.all()):
        return step.inputs[0], two.low.reshape(inner, columns).T
    return None


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

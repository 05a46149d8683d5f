"""What a program's values can be on a box of latents, what they depend on there, and how steeply."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from identkit.numeric import intervals
from identkit.numeric.functions import FUNCTIONS
from identkit.numeric.intervals import Interval, hull, point
from identkit.numeric.program import Kind, Program, Step, matrices

Ranges = Sequence[Interval]
"""For each step an interval (size,) for each of its elements."""


def ranges(program: Program, box: Interval) -> list[Interval]:
    """Enclose every value that each step takes for latents in a box (k,), ends possibly infinite."""
    found: list[Interval] = []
    for step in program.steps:
        found.append(_range(step, [found[i] for i in step.inputs], box))
    return found


def _range(step: Step, inputs: list[Interval], box: Interval) -> Interval:
    match step.kind:
        case Kind.LATENT:
            return box
        case Kind.CONSTANT:
            assert step.data is not None
            return point(step.data)
        case Kind.GATHER:
            return _gathered(step, inputs)
        case Kind.ADD:
            return intervals.add(*inputs)
        case Kind.MULTIPLY:
            return intervals.multiply(*inputs)
        case Kind.MATMUL:
            return _product(step, *inputs)
        case Kind.SUM:
            return intervals.total(inputs[0].reshape(*step.dimensions))
        case Kind.FUNCTION:
            return FUNCTIONS[step.name].range(inputs[0], step.numbers)
        case Kind.SELECT:
            condition, one, two = inputs
            return _picked(condition, one, two, hull(one, two))


def _gathered(step: Step, inputs: list[Interval]) -> Interval:
    assert step.data is not None
    low = torch.cat([each.low for each in inputs], -1)[..., step.data]
    return Interval(low, torch.cat([each.high for each in inputs], -1)[..., step.data])


def _product(step: Step, one: Interval, two: Interval) -> Interval:
    a_low, b_low = matrices(step, one.low, two.low)
    a_high, b_high = matrices(step, one.high, two.high)
    found = intervals.matmul(Interval(a_low, a_high), Interval(b_low, b_high))
    return Interval(found.low.flatten(-3), found.high.flatten(-3))


def _picked(condition: Interval, one: Interval, two: Interval, either: Interval) -> Interval:
    """Where the condition is decided its side, else both."""
    yes, no = condition.low == 1, condition.high == 0
    low = torch.where(yes, one.low, torch.where(no, two.low, either.low))
    return Interval(low, torch.where(yes, one.high, torch.where(no, two.high, either.high)))


def never_zero(program: Program, found: Ranges) -> list[Tensor]:
    """Which elements are nowhere 0 on the box: an exponential is not, though its range on the line has the end 0."""
    result: list[Tensor] = []
    for step, over in zip(program.steps, found, strict=True):
        inputs = [result[i] for i in step.inputs]
        nonzero = over.excludes_zero
        if step.kind is Kind.GATHER:
            nonzero = nonzero | torch.cat(inputs)[step.data]
        elif step.kind is Kind.MULTIPLY:
            nonzero = nonzero | (inputs[0] & inputs[1])
        elif step.kind is Kind.ADD:
            one, two = (found[i] for i in step.inputs)
            positive, negative = (one.low >= 0) & (two.low >= 0), (one.high <= 0) & (two.high <= 0)
            nonzero = nonzero | ((positive | negative) & (inputs[0] | inputs[1]))
        elif step.kind is Kind.FUNCTION and step.name in ("exp", "sigmoid", "softplus", "normal_cdf"):
            nonzero = torch.ones_like(nonzero)
        elif step.kind is Kind.FUNCTION and step.name == "power":
            nonzero = nonzero | inputs[0] | (torch.ones_like(nonzero) if step.numbers[0] < 0 else nonzero)
        elif step.kind is Kind.FUNCTION and step.name in ("tanh", "erf", "atan", "sinh", "expm1"):
            nonzero = nonzero | inputs[0]
        result.append(nonzero)
    return result


def dependence(
    program: Program, found: Ranges, sources: Mapping[int, Bool[Tensor, "c _"]] | None = None
) -> list[Bool[Tensor, "c _"]]:
    """Which sources can reach each element, for latents in the box.

    An element whose range is one number depends on nothing: exact zeros among the weights, dead units and decided
    comparisons cut what comes to them.

    Args:
        program: the program.
        found: its `ranges` on the box.
        sources: step → (c, size), the sources that each of its elements holds; otherwise the k latents.
    """
    sources = {0: torch.eye(program.steps[0].size, dtype=torch.bool)} if sources is None else sources
    count = next(iter(sources.values())).shape[0]
    result: list[Tensor] = []
    for number, (step, over) in enumerate(zip(program.steps, found, strict=True)):
        here = reached(step, [result[i] for i in step.inputs], [found[i] for i in step.inputs], count)
        here = (here | sources[number]) if number in sources else here
        result.append(here if _is_nothing(here) else here & ~over.is_point)
    return result


def _nothing(count: int, size: int) -> Tensor:
    """No source reaches any element. It takes no memory: weights are many, and so may be the sources."""
    return torch.zeros(1, 1, dtype=torch.bool).expand(count, size)


def _is_nothing(reaches: Tensor) -> bool:
    return reaches.stride() == (0, 0)


def computed(
    program: Program,
    found: Ranges,
    known: Sequence[Tensor] | None = None,
    given: int | None = None,
) -> list[Tensor]:
    """Which elements of each step are computed from latents that are not known, for latents in the box.

    Args:
        program: the program.
        found: its `ranges` on the box.
        known: for each step the elements (size,) that are known whatever they are computed from; none by default.
        given: a step that is known as a whole; what it holds counts as computed from nothing.
    """
    result: list[Tensor] = []
    unknown: list[Tensor] = []
    for number, (step, over) in enumerate(zip(program.steps, found, strict=True)):
        if number == given:
            here = torch.zeros(step.size, dtype=torch.bool)
        elif step.kind is Kind.LATENT:
            here = ~over.is_point
        else:
            inputs = [unknown[i][None] for i in step.inputs]
            here = reached(step, inputs, [found[i] for i in step.inputs], 1)[0] & ~over.is_point
        result.append(here)
        unknown.append(here if known is None else here & ~known[number])
    return result


def leads_all(program: Program, found: Ranges, gate: int) -> bool:
    """Whether the output depends on the latents through this step alone."""
    return not bool(computed(program, found, given=gate)[-1].any())


def reached(step: Step, inputs: list[Tensor], over: list[Interval], count: int) -> Tensor:
    """What reaches a step's elements (count, size) when this reaches its inputs', whose ranges are `over`."""
    match step.kind:
        case Kind.LATENT | Kind.CONSTANT:
            return _nothing(count, step.size)
        case _ if all(map(_is_nothing, inputs)):
            return _nothing(count, step.size)
        case Kind.GATHER:
            return torch.cat(inputs, -1)[..., step.data]
        case Kind.ADD:
            return inputs[0] | inputs[1]
        case Kind.MULTIPLY:
            return (inputs[0] & ~over[1].is_zero) | (inputs[1] & ~over[0].is_zero)
        case Kind.MATMUL:
            a, b = matrices(step, *inputs)
            p, q = matrices(step, *((~each.is_zero).float() for each in over))
            if _is_nothing(inputs[0]):
                paths = p @ b.float()
            elif _is_nothing(inputs[1]):
                paths = a.float() @ q
            else:
                paths = a.float() @ q + p @ b.float()
            return (paths > 0).flatten(-3)
        case Kind.SUM:
            return inputs[0].reshape(count, *step.dimensions).any(-1)
        case Kind.FUNCTION:
            return inputs[0]
        case Kind.SELECT:
            yes, no = over[0].low == 1, over[0].high == 0
            either = inputs[0] | inputs[1] | inputs[2]
            return torch.where(yes, inputs[1], torch.where(no, inputs[2], either))


def slopes(
    program: Program,
    found: Ranges,
    seed: int,
    columns: Tensor,
    same: Sequence[Tensor] | None = None,
) -> list[Interval | None]:
    """Enclose difference quotients: ``v(z) − v(z′) = S (s(z) − s(z′))`` for z, z′ in the box, s the seed's elements.

    By the product rule ``ab − a′b′ = a(b − b′) + b′(a − a′)`` and the slopes of `functions`.

    Args:
        program: the program.
        found: its `ranges` on the box.
        seed: the step whose elements are the variables.
        columns: which of its elements, (c,).
        same: for each step the elements (size,) that are given to be equal at z and z′, for instance because both have
            the same law and it determines them; their differences are 0.

    Returns:
        For each step an interval (c, size), or None for 0. Elements that are given to be equal keep theirs, which is a
        condition on ``s(z) − s(z′)``, but what is computed from them takes their difference to be 0.
    """
    result: list[Interval | None] = []
    passed: list[Interval | None] = []
    for number, step in enumerate(program.steps):
        inputs = [passed[i] for i in step.inputs]
        if number == seed:
            slope: Interval | None = point(torch.eye(step.size, dtype=torch.float64)[columns])
        elif all(each is None for each in inputs):
            slope = None
        else:
            slope = _slope(step, inputs, [found[i] for i in step.inputs], len(columns))
        result.append(slope)
        if slope is not None and number != seed and same is not None and bool(same[number].any()):
            zeroed = (torch.where(same[number], 0.0, end) for end in (slope.low, slope.high))
            slope = Interval(*zeroed)
        passed.append(slope)
    return result


def _slope(step: Step, given: list[Interval | None], over: list[Interval], count: int) -> Interval:
    zero = [point(torch.zeros(count, each.low.shape[-1], dtype=torch.float64)) for each in over]
    inputs = [z if each is None else each for each, z in zip(given, zero, strict=True)]
    match step.kind:
        case Kind.GATHER:
            return _gathered(step, inputs)
        case Kind.ADD:
            return intervals.add(*inputs)
        case Kind.MULTIPLY:
            return intervals.add(
                intervals.multiply(over[0], inputs[1]), intervals.multiply(inputs[0], over[1])
            )
        case Kind.MATMUL:
            terms = []
            if given[1] is not None:
                terms.append(_product(step, over[0], inputs[1]))
            if given[0] is not None:
                terms.append(_product(step, inputs[0], over[1]))
            return terms[0] if len(terms) == 1 else intervals.add(*terms)
        case Kind.SUM:
            return intervals.total(inputs[0].reshape(count, *step.dimensions))
        case Kind.FUNCTION:
            return intervals.multiply(FUNCTIONS[step.name].slope(over[0], *step.numbers), inputs[0])
        case Kind.SELECT:
            moved = ~(inputs[0].is_zero & inputs[1].is_zero & inputs[2].is_zero)
            unbounded = Interval(
                torch.where(moved, -math.inf, 0.0).double(), torch.where(moved, math.inf, 0.0).double()
            )
            return _picked(over[0], inputs[1], inputs[2], unbounded)
    raise AssertionError(step.kind)  # latents and constants have no inputs


def analytic(program: Program, found: Ranges) -> bool:
    """Whether every step is a real-analytic function of the latents on the box."""
    for step in program.steps:
        over = [found[i] for i in step.inputs]
        if step.kind is Kind.FUNCTION:
            inside = FUNCTIONS[step.name].analytic(over[0], *step.numbers)
            if not bool((inside | over[0].is_point).all()):
                return False
        if step.kind is Kind.SELECT and not bool((over[0].is_point).all()):
            return False
    return True

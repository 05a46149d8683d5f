"""Points of the domains of a model's unknowns, and what holds at almost all of them because it holds at one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy
from sympy import Expr, Interval, Rational, S, Set, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.model.tape import Tape
from identkit.symbolic.regularity import analytic, from_half_line
from identkit.symbolic.support import all_domains, is_discrete, is_finite, on_simplex


def point_of(domains: Mapping[Symbol, Set], attempt: int, scale: int) -> dict[Symbol, Expr]:
    """A point of the domains, the further out the larger the scale."""
    point: dict[Symbol, Expr] = {}
    for place, symbol in enumerate(sorted(domains, key=str), 1):
        low, high = domains[symbol].inf, domains[symbol].sup
        step = Rational(scale * (7 * abs(attempt) + 3 * place), 31 + 2 * place)
        if is_finite(domains[symbol]):
            values = list(domains[symbol])
            # Neighbours sometimes agree: data that always alternate, (0, 1) or (1, 0), could not tell p from 1 − p.
            point[symbol] = values[(attempt * place + place // 2) % len(values)]
        elif is_discrete(domains[symbol]):
            point[symbol] = low + (attempt + place) % 5
        elif low.is_finite or high.is_finite:
            point[symbol] = from_half_line(domains[symbol], step)
        else:
            point[symbol] = -step if (attempt + place) % 2 else step
    return point


def on_simplexes(model: Model, *points: Mapping[Symbol, Expr]) -> bool:
    """Whether the latents that a prior makes add up to something do so at these points."""
    bound = [st for st in model.latents if on_simplex(st.family)]
    return all(
        all(s in point for s in st.symbols) and sympy.Add(*[point[s] for s in st.symbols]) == st.family.total
        for st in bound
        for point in points
    )


def differ_in(latent: Symbol, one: Mapping[Symbol, Expr], other: Mapping[Symbol, Expr]) -> bool:
    """Whether two points differ in one unknown and in no other."""
    return set(one) == set(other) and [s for s in one if one[s] != other[s]] == [latent]


def within(domains: Mapping[Symbol, Set], *points: Mapping[Symbol, Expr]) -> bool:
    """Whether all values are proved to lie in their domains."""
    return all(
        s in domains and domains[s].contains(value) == sympy.true
        for point in points
        for s, value in point.items()
    )


def generic(model: Model, expressions: Sequence[Expr]) -> bool:
    """Whether a gap at one value of the parameters shows one at almost every value: kinks of the latents do not matter."""
    if any(is_discrete(domain) for domain in model.domains.values()):
        return False
    return not model.domains or all(analytic(e, all_domains(model), of=model.domains) for e in expressions)


def not_zero_almost_everywhere(expression: Expr, model: Model) -> bool:
    """Whether an expression is proved not to be 0 at almost every point: by factors, or analytic and not 0."""
    if isinstance(expression, sympy.Abs | sympy.Mul | sympy.Pow):
        parts = expression.args[:1] if not expression.is_Mul else expression.args
        return all(not_zero_almost_everywhere(part, model) for part in parts)
    if expression.is_nonzero is True:
        return True
    domains = all_domains(model)
    if any(is_discrete(domains[symbol]) for symbol in expression.free_symbols):
        return False
    return analytic(expression, domains) and somewhere_not_zero(expression, model)


def somewhere_not_zero(expression: Expr, model: Model) -> bool:
    """Whether balls keep the expression away from 0 at some point."""
    tape = Tape([expression])
    domains = all_domains(model)
    for attempt in range(1, 6):
        # A half-line's own variable is no symbol of the model.
        point = point_of(
            {s: domains.get(s, Interval.open(0, S.Infinity)) for s in expression.free_symbols}, attempt, 1
        )
        if balls.excludes_zero(balls.run_or_nan(tape, point, 192)[0]):
            return True
    return False

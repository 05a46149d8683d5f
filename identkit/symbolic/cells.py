"""Expressions with kinks, region by region: within one cell |u| is u or −u and max is one of its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sympy
from sympy import Expr, Rational, Set, Symbol

from identkit.model import balls
from identkit.symbolic.field import points

Point = Mapping[Symbol, Rational]
_TRIALS = 160


def has_kinks(expressions: Sequence[Expr]) -> bool:
    """Whether any of the expressions is only piecewise smooth."""
    return any(e.has(sympy.Abs, sympy.Max, sympy.Min) for e in expressions)


def smooth_near(expression: Expr, point: Point) -> Expr | None:
    """The smooth expression that this one is on a neighbourhood of the point; None if the point lies on a kink.

    >>> z = Symbol("z", real=True)
    >>> smooth_near(sympy.Max(z, 0) + abs(z), {z: Rational(-1)})
    -z
    """
    if not expression.args or not has_kinks([expression]):
        return expression
    inner = [smooth_near(argument, point) for argument in expression.args]
    if any(argument is None for argument in inner):
        return None
    if isinstance(expression, sympy.Abs):
        (argument,) = inner
        sign = _sign(argument, point)
        return None if sign == 0 else sign * argument
    if isinstance(expression, sympy.Max | sympy.Min):
        turn = 1 if isinstance(expression, sympy.Max) else -1
        for candidate in inner:
            others = [other for other in inner if other is not candidate]
            if all(turn * _sign(candidate - other, point) > 0 for other in others):
                return candidate
        return None
    return expression.func(*inner)


def _sign(expression: Expr, point: Point) -> int:
    if expression == 0:
        return 0
    inside = {s: v for s, v in point.items() if s in expression.free_symbols}
    try:
        value = balls.ball(expression, inside, 192)
    except (NotImplementedError, KeyError, ValueError):
        return 0
    return 1 if value > 0 else -1 if value < 0 else 0


def cells(expressions: Sequence[Expr], domains: Mapping[Symbol, Set]) -> Iterator[tuple[Point, list[Expr]]]:
    """Cells that were met: a point inside, and the expressions as they are there. There may be others."""
    inside = {s: domains[s] for e in expressions for s in e.free_symbols}  # type: ignore[index]
    met: set[tuple[Expr, ...]] = set()
    for point in points(inside, _TRIALS, seed=9):
        written = [smooth_near(expression, point) for expression in expressions]
        if any(e is None for e in written):
            continue
        found = tuple(e for e in written if e is not None)
        if found not in met:
            met.add(found)
            yield point, list(found)

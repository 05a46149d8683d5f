"""Kinks that the domains settle: ``relu(z - 3)`` is 0 for z in (−1, 1), and ``|z|`` is z for a positive z.

Ranges are exact rational bounds, by interval arithmetic over the boxes of the domains: true for every value inside, if
not always the narrowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from itertools import product

import sympy
from sympy import Expr, Rational, S, Set, Symbol

from identkit.model.functions import sigmoid
from identkit.model.model import Model
from identkit.model.statement import Statement
from identkit.symbolic.support import all_domains

Range = tuple[Expr, Expr]
"""Lower and upper bound: rationals or ±∞."""
_EVERYTHING: Range = (-S.Infinity, S.Infinity)
_ALWAYS: dict[type, tuple[int, int]] = {
    sigmoid: (0, 1),
    sympy.tanh: (-1, 1),
    sympy.sin: (-1, 1),
    sympy.cos: (-1, 1),
}
_KINKED = (sympy.Abs, sympy.Max, sympy.Min)


def without_settled_kinks(model: Model) -> Model:
    """The same model with every |u|, max and min replaced that is decided on the domains.

    >>> from identkit.model.language import parse
    >>> model = without_settled_kinks(parse("z ~ Uniform(-1, 1); observe x ~ Normal(relu(z - 1), 1)"))
    >>> model.observations[0].family.arguments[0]
    0
    """
    domains = all_domains(model)
    found = [
        Statement(s.symbols, s.family.map(lambda expression: settled(expression, domains)))
        for s in model.observations
    ]
    if found == model.observations:
        return model
    other = copy(model)
    other.observations = found
    return other


def settled(expression: Expr, domains: Mapping[Symbol, Set]) -> Expr:
    """The expression without those kinks whose side is the same all over the domains."""
    if not expression.args or not expression.has(*_KINKED):
        return expression
    inside = [settled(argument, domains) for argument in expression.args]
    if isinstance(expression, sympy.Abs):
        low, high = bounds(inside[0], domains)
        return inside[0] if low >= 0 else -inside[0] if high <= 0 else sympy.Abs(inside[0])
    if isinstance(expression, sympy.Max | sympy.Min):
        sign = 1 if isinstance(expression, sympy.Max) else -1
        for one, other in product(inside, inside):
            # What never exceeds another argument is left out; of two that are equal, one stays.
            if one is not other and other in inside and bounds(sign * (other - one), domains)[0] >= 0:
                inside = [argument for argument in inside if argument is not one]
    return expression.func(*inside)


def bounds(expression: Expr, domains: Mapping[Symbol, Set]) -> Range:
    """Between which numbers the expression lies for all values in the domains.

    >>> x, y = Symbol("x", real=True), Symbol("y", real=True)
    >>> bounds(2*x - y**2/3, {x: sympy.Interval(-1, 2), y: S.Reals})
    (-oo, 4)
    """
    if isinstance(expression, Rational):
        return expression, expression
    if expression.is_Symbol:
        domain = domains.get(expression)  # type: ignore[arg-type]
        ends = (domain.inf, domain.sup) if domain is not None else _EVERYTHING
        known = all(isinstance(end, Rational) or end.is_infinite for end in ends)
        return ends if known else _EVERYTHING
    inside = [bounds(argument, domains) for argument in expression.args]
    if isinstance(expression, sympy.Add):
        low, high = sum((a for a, _ in inside), S.Zero), sum((b for _, b in inside), S.Zero)
        return _if_known(low, high)
    if isinstance(expression, sympy.Mul):
        found = inside[0]
        for factor in inside[1:]:
            corners = [_times(a, b) for a, b in product(found, factor)]
            found = (min(corners), max(corners))
        return found
    if isinstance(expression, sympy.Pow) and expression.args[1].is_Integer and expression.args[1] > 0:
        return _power(inside[0], int(expression.args[1]))
    if isinstance(expression, sympy.Abs):
        low, high = inside[0]
        return (max(low, -high, S.Zero), max(-low, high))
    if isinstance(expression, sympy.Max | sympy.Min):
        pick = max if isinstance(expression, sympy.Max) else min
        return pick(a for a, _ in inside), pick(b for _, b in inside)
    if isinstance(expression, sympy.exp):
        return S.Zero, S.Infinity
    for function, (low, high) in _ALWAYS.items():
        if isinstance(expression, function):
            return sympy.Integer(low), sympy.Integer(high)
    return _EVERYTHING


def _if_known(low: Expr, high: Expr) -> Range:
    return _EVERYTHING if S.NaN in (low, high) else (low, high)


def _times(one: Expr, other: Expr) -> Expr:
    # An infinite end is never reached, so that 0 times it is 0.
    return S.Zero if one == 0 or other == 0 else one * other


def _power(base: Range, exponent: int) -> Range:
    low, high = base
    if exponent % 2:
        return low**exponent, high**exponent
    ends = (low**exponent, high**exponent)
    return (S.Zero if low < 0 < high else min(ends)), max(ends)

"""Whether an expression certainly stays within a domain, whatever values its symbols take."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import sympy
from sympy import Expr, Interval, S, Set, Symbol

from identkit.model.families import POSITIVE

_MOST = 6  # variables of a box whose corners are tried


def surely_in(domain: Set, expression: Expr, supports: Mapping[Symbol, Set]) -> bool:
    """Whether SymPy's assumptions, or the box of the supports, keep an expression within a domain.

    False means only that neither does.

    Args:
        domain: where the expression should lie.
        supports: where each symbol lies.

    >>> a, b = sympy.symbols("a b", real=True)
    >>> unit = Interval(0, 1)
    >>> surely_in(unit, a + b - 2 * a * b, {a: unit, b: unit}), surely_in(unit, a + b, {a: unit, b: unit})
    (True, False)
    """
    if domain == S.Reals:
        return expression.is_real is not False
    if domain == POSITIVE and expression.is_positive:
        return True
    if domain is S.Naturals0:
        return bool(expression.is_integer and expression.is_nonnegative)
    if isinstance(domain, Interval) and domain.sup is S.Infinity and expression.is_nonnegative:
        return domain.inf == 0 and not domain.left_open
    return _within_box(expression, domain, supports)


def _within_box(expression: Expr, domain: Set, supports: Mapping[Symbol, Set]) -> bool:
    # A polynomial of degree one in each variable attains its extremes over a box at the corners.
    box = {s: supports[s] for s in expression.free_symbols if s in supports}
    if len(box) != len(expression.free_symbols) or len(box) > _MOST:
        return False
    polynomial = expression.as_poly(*box) if box else None
    if polynomial is None or any(degree > 1 for degree in polynomial.degree_list()):
        return False
    ends = [[side.inf, side.sup] for side in box.values()]
    if any(not end.is_finite for pair in ends for end in pair):
        return False
    corners = [expression.subs(dict(zip(box, corner, strict=True))) for corner in itertools.product(*ends)]
    closed = Interval(domain.inf, domain.sup)
    return all(closed.contains(value) == sympy.true for value in corners)

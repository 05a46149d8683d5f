"""Whether an expression over κ is 0, is not, or keeps the domains: by rings, and at points inside the domains."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
from sympy import Expr, Interval, S, Symbol

from identkit.model import balls
from identkit.model.functions import sigmoid
from identkit.model.tape import Tape
from identkit.symbolic.certificates.zeros import zero
from identkit.symbolic.fractions import exponentials_opened, rational_zero
from identkit.symbolic.problem import Problem
from identkit.symbolic.regularity import analytic, from_half_line


def gone(gap: Expr) -> bool:
    """Whether the expression is proved to be identically 0."""
    null = rational_zero(exponentials_opened(gap))
    return null or ((null is None or gap.has(sympy.exp, sigmoid)) and zero(gap))


def points_inside(
    problem: Problem, count: int, inside: set[Symbol] | None = None
) -> list[dict[Symbol, Expr]]:
    """Points inside the domains, by a scheme of its own; only of the symbols in `inside` where it is given."""
    found = []
    for attempt in range(1, count + 1):
        point = {}
        for place, symbol in enumerate((*problem.unknowns, *problem.known), 1):
            if inside is not None and symbol not in inside:
                continue
            part = sympy.Rational(3 * attempt + 2 * place, 8 * attempt + 5 * place + 11)
            point[symbol] = _placed(part, problem.domains[symbol])
        found.append(point)
    return found


def _placed(part: Expr, domain: sympy.Set) -> Expr:
    low, high = domain.inf, domain.sup
    if not isinstance(domain, Interval):
        return next(iter(domain)) if domain.is_FiniteSet else sympy.Integer(2)
    if low.is_finite and high.is_finite:
        return low + (high - low) * part
    if low.is_finite or high.is_finite:
        return low + 2 * part if low.is_finite else high - 2 * part
    return 3 * part - 1


def not_zero_somewhere(expression: Expr, problem: Problem) -> bool:
    """Whether the expression is proved to differ from 0 at almost every point: an analytic one does if at one point."""
    if expression.has(S.NaN, S.ComplexInfinity):
        return False
    if not expression.free_symbols:
        return balls.nonzero(expression)
    # Every whole number has positive mass, so that one of them says nothing of the others.
    if problem.whole & expression.free_symbols or not analytic(expression, problem.domains):
        return False
    tape = Tape([expression])
    return any(
        balls.excludes_zero(balls.run_or_nan(tape, point, 256)[0])
        for point in points_inside(problem, 4, expression.free_symbols)
    )


def keeps_domains(change: Mapping[Symbol, Expr], problem: Problem) -> bool:
    """Whether the map keeps domains and inequalities at some points inside, so on an open set of unknowns."""
    met = 0
    for point in points_inside(problem, 60):
        if met < 3 and _allowed(point, problem):
            met += 1
            moved = {**point, **{symbol: entry.subs(point) for symbol, entry in change.items()}}
            inside = all(problem.domains[symbol].contains(moved[symbol]) == sympy.true for symbol in change)
            if not inside or not _allowed(moved, problem):
                return False
    return met == 3


def _allowed(point: Mapping[Symbol, Expr], problem: Problem) -> bool:
    return all(e.subs(list(point.items())).is_positive is True for e in problem.inequalities)


def in_domain(expression: Expr, problem: Problem) -> Expr:
    """The expression in variables whose assumptions say what the domains say."""
    for symbol in expression.free_symbols:
        domain = problem.domains.get(symbol)
        if isinstance(domain, Interval) and (domain.inf.is_finite or domain.sup.is_finite):  # pyright: ignore[reportOptionalMemberAccess]
            expression = expression.subs(symbol, from_half_line(domain, sympy.Dummy("t", positive=True)))
    return expression

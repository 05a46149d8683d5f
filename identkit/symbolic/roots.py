"""Unknowns as roots of quadratic equations over κ: which of the two roots is admissible, and where the other one leads.

Where no relation is linear in an unknown u, relations ``A(κ) u² + B(κ) u + C(κ) = 0`` may still settle it. Two of them
that are not proportional have one root in common. With one, the other root is ``−B/A − u``: if it, or what follows
from it for another unknown, lies outside the domains, u is determined; if everything stays inside, it is a second
solution, and an explicit map leads there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy
from sympy import Expr, Symbol

from identkit.symbolic.linear import nullspace, rationals
from identkit.symbolic.modular import PRIMES, Dual
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem
from identkit.symbolic.recovery import (
    Columns,
    Formula,
    Grading,
    Recovery,
    affordable,
    monomial,
    plus,
    value_at,
)
from identkit.symbolic.regularity import on_open_box, positive

_PRIME = PRIMES[0]
_MOST_COLUMNS = 640
_DEGREES = (1, 2, 3, 4)
_LONGEST = 20_000
_RECENT = 8


@dataclass(frozen=True)
class Quadratic:
    """``a t² + b t + c = 0`` for the target t, where `outer` symbols stand for entries of κ."""

    target: Expr
    a: Expr
    b: Expr
    c: Expr
    outer: Mapping[Symbol, Expr]


@dataclass(frozen=True)
class Settled:
    """An unknown that its quadratic relations determine: two with a common root, or one with a root that is rejected.

    Attributes:
        unknown: what is determined.
        relations: one or two.
        steps: formulas for other unknowns (or their squares) in terms of κ and this one: where the second root leads.
            The last of them leaves its domain there, or without any the second root itself does.
        inequality: unless this is given: then the second solution breaks it.
        known: unknowns that were determined before.
    """

    unknown: Symbol
    relations: tuple[Quadratic, ...]
    steps: tuple[tuple[Symbol, Formula], ...] = ()
    inequality: Expr | None = None
    known: tuple[Symbol, ...] = ()


def root_of(
    problem: Problem, recovery: Recovery, unknown: Symbol, others: Sequence[Symbol]
) -> Settled | dict[Symbol, Expr] | None:
    """What the quadratic relations of an unknown settle: the unknown itself, or a map to a second solution.

    Args:
        problem: the unknowns and κ.
        recovery: the search for formulas, which knows what is determined already.
        unknown: an unknown that is not.
        others: further unknowns with discrete fibres that are not determined.

    >>> from sympy import Interval, oo
    >>> u, v = Symbol("u", real=True), Symbol("v", positive=True)
    >>> problem = Problem((u, v), {u: sympy.Reals, v: Interval.open(0, oo)}, (u * v, v - u**2 * v))
    >>> root_of(problem, Recovery(problem), u, (v,)).steps[0][0]
    v
    """
    domain = problem.domains[unknown]
    target = unknown**2 if domain.inf >= 0 or domain.sup <= 0 else unknown
    known = tuple(u for u in recovery.known if u in problem.unknowns)
    for wanted in dict.fromkeys((target, unknown)):
        found = quadratics(recovery, wanted)
        pair = _common_root(found, recovery)
        if pair is not None:
            return Settled(unknown, pair, known=known)
        if found:
            return _second_root(problem, recovery.branch(), unknown, found[0], others)
    return None


def quadratics(recovery: Recovery, target: Expr) -> list[Quadratic]:
    """Verified relations of the lowest degree that has any."""
    if not target.free_symbols <= recovery.evaluator.bare or set(recovery.known) & set(recovery.exponentials):
        return []
    grading = recovery.grading(target)
    for degree in _DEGREES:
        found: list[Quadratic] = []
        for columns in _systems(recovery, degree, grading):
            if time.monotonic() > recovery.deadline:
                return found
            found += _solved(recovery, columns, target)
            if _common_root(found[-_RECENT:], recovery) is not None:
                return found[-_RECENT:]
        if found:
            return sorted(found, key=lambda q: sum(len(sympy.Add.make_args(e)) for e in (q.a, q.b, q.c)))
    return []


def _systems(recovery: Recovery, degree: int, grading: Grading) -> list[Columns]:
    graded = recovery.by_weight(degree, grading)
    systems: list[Columns] = []
    for heavy, squares in graded.items():
        once = plus(heavy, grading.target)
        columns = (graded.get(plus(once, grading.target), []), graded.get(once, []), squares)
        if columns[0] + columns[1] and sum(map(len, columns)) <= _MOST_COLUMNS:
            systems.append(columns)
    return affordable(systems)


def _solved(recovery: Recovery, columns: Columns, target: Expr) -> list[Quadratic]:
    width = sum(map(len, columns))
    rows = [recovery.row(index, columns, target) for index in range(width + 4)]
    leading = [recovery.product(0, chosen) for chosen in columns[2]]
    found: list[Quadratic] = []
    for vector in nullspace(rows, width, _PRIME):
        # A leading coefficient that is 0 at a random point is 0.
        last = vector[width - len(leading) :]
        if len(found) > 3 or sum(w * v for w, v in zip(last, leading, strict=True)) % _PRIME == 0:
            continue
        exact = rationals(vector, _PRIME)
        if exact is None:
            continue
        parts, start = [], 0
        for part in columns:
            weights = exact[start : start + len(part)]
            terms = [w * monomial(recovery.symbols, m) for w, m in zip(weights, part, strict=True) if w]
            parts.append(sympy.Add(*terms))
            start += len(part)
        inside = set().union(*[part.free_symbols for part in parts])
        outer = {s: e for s, e in recovery.outer.items() if s in inside}
        quadratic = Quadratic(target, parts[2], parts[1], parts[0], outer)
        if _holds(quadratic, recovery):
            found.append(quadratic)
    return found


def _holds(q: Quadratic, recovery: Recovery) -> bool:
    gap = recovery.written(q.a * q.target**2 + q.b * q.target + q.c)
    try:
        return Ring(gap.free_symbols).is_zero(gap)  # type: ignore[arg-type]
    except NotRational:
        return False


def _common_root(found: Sequence[Quadratic], recovery: Recovery) -> tuple[Quadratic, ...] | None:
    if len(found) < 2:
        return None
    point, kappa = recovery.point(0)
    here = {s: value for s, value in zip(recovery.outer, kappa, strict=True)} | {
        s: point[s].value for s in recovery.known
    }
    values = {s: Dual(value, {}) for s, value in here.items()}
    for i, one in enumerate(found):
        for other in found[:i]:
            if value_at(one.a * other.b - one.b * other.a, values) != 0:
                return (other, one)
    return None


def _second_root(
    problem: Problem, recovery: Recovery, unknown: Symbol, quadratic: Quadratic, others: Sequence[Symbol]
) -> Settled | dict[Symbol, Expr] | None:
    known = tuple(u for u in recovery.known if u in problem.unknowns)
    other = other_root(quadratic)
    if other is None or other == quadratic.target:
        return None
    if outside(other, quadratic.target, problem):
        return Settled(unknown, (quadratic,), known=known)
    change: dict[Symbol, Expr] = {
        unknown: other if quadratic.target == unknown else _root(other, unknown, problem)
    }
    steps: list[tuple[Symbol, Formula]] = []
    recovery.learn(unknown)
    waiting = [u for u in others if u != unknown]
    progress = True
    while progress and waiting:
        progress = False
        for follower in list(waiting):
            formula = _formula(problem, recovery, follower)
            image = None if formula is None else carried(formula, change)
            if formula is None or image is None:
                continue
            steps.append((follower, formula))
            if outside(image, formula.target, problem):
                return Settled(unknown, (quadratic,), tuple(steps), None, known)
            change[follower] = image if formula.target == follower else _root(image, follower, problem)
            recovery.learn(follower)
            waiting.remove(follower)
            progress = True
    broken = forbidden(change, problem)
    if broken is not None:
        return Settled(unknown, (quadratic,), tuple(steps), broken, known)
    complete = not waiting and {*change, *known} >= set(problem.unknowns)
    return {u: e for u, e in change.items() if e != u} if complete else None


def _root(square: Expr, unknown: Symbol, problem: Problem) -> Expr:
    size = sympy.sqrt(sympy.factor(square))
    return size if problem.domains[unknown].inf >= 0 else -size


def _formula(problem: Problem, recovery: Recovery, follower: Symbol) -> Formula | None:
    domain = problem.domains[follower]
    found = recovery.find(follower)
    if found is None and (domain.inf >= 0 or domain.sup <= 0):
        found = recovery.find(follower**2)
    return found


def other_root(quadratic: Quadratic) -> Expr | None:
    """``−b/a − t`` as a function of the unknowns, in lowest terms; None if it would be too long."""
    inside = dict(quadratic.outer)
    return _reduced(-quadratic.b.xreplace(inside) / quadratic.a.xreplace(inside) - quadratic.target)


def carried(formula: Formula, change: Mapping[Symbol, Expr]) -> Expr | None:
    """The formula's value where κ is as it was and unknowns that it uses have moved."""
    return _reduced(formula.formula.xreplace(dict(change)).xreplace(dict(formula.outer)))


def _reduced(expression: Expr) -> Expr | None:
    if sympy.count_ops(expression) > _LONGEST:
        return None
    try:
        return Ring(sorted(expression.free_symbols, key=str)).reduced(expression)  # type: ignore[arg-type]
    except NotRational:
        return None


def outside(value: Expr, target: Expr, problem: Problem) -> bool:
    """Whether the value is nowhere inside the domain of the target, an unknown or the square of one."""
    if not target.is_Symbol:
        return _never_negative(-value, problem)
    domain = problem.domains[target]  # type: ignore[index]
    low, high = domain.inf, domain.sup
    return bool(
        (low.is_finite and _never_negative(low - value, problem))
        or (high.is_finite and _never_negative(value - high, problem))
    )


def _never_negative(expression: Expr, problem: Problem) -> bool:
    return sympy.factor(on_open_box(expression, problem.domains)).is_nonnegative is True


def forbidden(change: Mapping[Symbol, Expr], problem: Problem) -> Expr | None:
    """An inequality ``g > 0`` of which the map makes ``−c g`` with a positive c."""
    for g in problem.inequalities:
        image = _reduced(g.xreplace(dict(change)) / g)
        if image is not None and positive(on_open_box(-image, problem.domains)):
            return g
    return None

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
from identkit.symbolic.modular import PRIMES
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem
from identkit.symbolic.recovery import Columns, Formula, Recovery, affordable, monomial, product_at, value_at
from identkit.symbolic.regularity import on_open_box, positive

_PRIME = PRIMES[0]
_MOST_COLUMNS = 640
_DEGREES = (1, 2, 3, 4)
_LONGEST = 20_000


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


def root_of(problem: Problem, known: Sequence[Symbol], unknown: Symbol, seconds: float) -> Settled | dict[Symbol, Expr] | None:
    """What the quadratic relations of an unknown settle: the unknown itself, or a map to a second solution.

    Args:
        problem: the unknowns and κ.
        known: unknowns that are determined already.
        unknown: one that is not.
        seconds: time allowed.

    >>> from sympy import Interval, oo
    >>> u, v = Symbol("u", real=True), Symbol("v", positive=True)
    >>> domains = {u: sympy.Reals, v: Interval.open(0, oo)}
    >>> root_of(Problem((u, v), domains, (u * v, v - u**2 * v)), (), u, 5.0).steps[0][0]
    v
    """
    search = _Search(problem, seconds)
    for symbol in known:
        search.learn(symbol)
    domain = problem.domains[unknown]
    target = unknown**2 if domain.inf >= 0 or domain.sup <= 0 else unknown
    for wanted in dict.fromkeys((target, unknown)):
        found = search.quadratics(wanted)
        pair = _common_root(found, search)
        if pair is not None:
            return Settled(unknown, pair, known=tuple(known))
        if found:
            return _second_root(problem, search, unknown, found[0], tuple(known))
    return None


class _Search(Recovery):
    """`Recovery` for relations of degree two in the target."""

    def quadratics(self, target: Expr) -> list[Quadratic]:
        """Verified relations of the lowest degree that has any."""
        weight = self._torus.weight(target)
        if weight is None:
            return []
        for degree in _DEGREES:
            found: list[Quadratic] = []
            for columns in self._squares(degree, weight):
                if time.monotonic() > self._deadline:
                    return found
                found += self._solved(columns, target)
            if found:
                return sorted(found, key=lambda q: sum(len(sympy.Add.make_args(e)) for e in (q.a, q.b, q.c)))
        return []

    def _squares(self, degree: int, weight: tuple[int, ...]) -> list[Columns]:
        graded = self._by_weight(degree)
        systems: list[Columns] = []
        for heavy, squares in graded.items():
            once = tuple(a + b for a, b in zip(heavy, weight, strict=True))
            twice = tuple(a + b for a, b in zip(once, weight, strict=True))
            columns = (squares, graded.get(once, []), graded.get(twice, []))
            if columns[1] + columns[2] and sum(map(len, columns)) <= _MOST_COLUMNS:
                systems.append(columns)
        return affordable(systems)

    def _solved(self, columns: Columns, target: Expr) -> list[Quadratic]:
        width = sum(map(len, columns))
        rows = []
        for index in range(width + 4):
            point, kappa = self._point(index)
            goal = value_at(target, point)
            values = [*kappa, *[point[s].value for s in self._known]]
            row: list[int] = []
            for power, part in zip((2, 1, 0), columns, strict=True):
                factor = pow(goal, power, _PRIME)
                row += [product_at(values, chosen) * factor % _PRIME for chosen in part]
            rows.append(row)
        found: list[Quadratic] = []
        symbols = self._symbols
        point, kappa = self._point(0)
        values = [*kappa, *[point[s].value for s in self._known]]
        leading = [product_at(values, chosen) for chosen in columns[0]]
        for vector in nullspace(rows, width, _PRIME):
            if len(found) > 3:
                break
            exact = rationals(vector, _PRIME)
            if exact is None or sum(w * v for w, v in zip(vector, leading, strict=False)) % _PRIME == 0:
                continue
            parts, start = [], 0
            for part in columns:
                weights = exact[start : start + len(part)]
                parts.append(sympy.Add(*[w * monomial(symbols, m) for w, m in zip(weights, part, strict=True) if w]))
                start += len(part)
            quadratic = Quadratic(target, *parts, self._used(parts))
            if self._holds(quadratic):
                found.append(quadratic)
        return found

    def _used(self, parts: Sequence[Expr]) -> dict[Symbol, Expr]:
        inside = set().union(*[part.free_symbols for part in parts])
        return {s: e for s, e in self._outer.items() if s in inside}

    def _holds(self, q: Quadratic) -> bool:
        gap = (q.a * q.target**2 + q.b * q.target + q.c).xreplace(dict(q.outer))
        try:
            return Ring(gap.free_symbols).is_zero(gap)  # type: ignore[arg-type]
        except NotRational:
            return False

    def value(self, expression: Expr) -> int:
        """A polynomial of κ's entries and of what is known, at the first point."""
        point, kappa = self._point(0)
        values = dict(zip(self._outer, kappa, strict=True)) | {s: point[s].value for s in self._known}
        total = 0
        for term in sympy.Add.make_args(sympy.expand(expression)):
            coefficient, rest = term.as_coeff_Mul()
            here = int(coefficient.p) * pow(int(coefficient.q), -1, _PRIME)
            for base, power in rest.as_powers_dict().items():
                if base.is_Symbol:
                    here = here * pow(values[base], int(power), _PRIME) % _PRIME
            total = (total + here) % _PRIME
        return total


def _common_root(found: Sequence[Quadratic], search: _Search) -> tuple[Quadratic, ...] | None:
    for i, one in enumerate(found):
        for other in found[:i]:
            cross = search.value(one.a) * search.value(other.b) - search.value(one.b) * search.value(other.a)
            if cross % _PRIME:
                return (other, one)
    return None


def _second_root(
    problem: Problem, search: _Search, unknown: Symbol, quadratic: Quadratic, known: tuple[Symbol, ...]
) -> Settled | dict[Symbol, Expr] | None:
    other = other_root(quadratic)
    if other is None or other == quadratic.target:
        return None
    if outside(other, quadratic.target, problem):
        return Settled(unknown, (quadratic,), known=known)
    change: dict[Symbol, Expr] = {unknown: other if quadratic.target == unknown else _root(other, unknown, problem)}
    steps: list[tuple[Symbol, Formula]] = []
    search.learn(unknown)
    waiting = [u for u in problem.unknowns if u != unknown and u not in known]
    progress = True
    while progress and waiting:
        progress = False
        for follower in list(waiting):
            formula = _formula(problem, search, follower)
            image = None if formula is None else carried(formula, change)
            if formula is None or image is None:
                continue
            steps.append((follower, formula))
            if outside(image, formula.target, problem):
                return Settled(unknown, (quadratic,), tuple(steps), None, known)
            change[follower] = image if formula.target == follower else _root(image, follower, problem)
            search.learn(follower)
            waiting.remove(follower)
            progress = True
    broken = forbidden(change, problem)
    if broken is not None:
        return Settled(unknown, (quadratic,), tuple(steps), broken, known)
    return None if waiting else {u: e for u, e in change.items() if e != u}


def _root(square: Expr, unknown: Symbol, problem: Problem) -> Expr:
    size = sympy.sqrt(sympy.factor(square))
    return size if problem.domains[unknown].inf >= 0 else -size


def _formula(problem: Problem, search: Recovery, follower: Symbol) -> Formula | None:
    domain = problem.domains[follower]
    found = search.find(follower)
    if found is None and (domain.inf >= 0 or domain.sup <= 0):
        found = search.find(follower**2)
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

"""The fibre through a special point: where rank and generic answers say nothing, what still does (theory/T6).

Formulas hold where their divisors do not vanish, fields where they do not and where their flow stays in the domains.
Beyond these: an expression of κ whose value here pins a coordinate, as ``θ³ = 0`` does θ; a combination of entries of κ
that is a sum of squares vanishing here; and fields on a subvariety through the point, where equal coordinates are tied.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sympy
from sympy import Dummy, Expr, Rational, S, Symbol

from identkit.symbolic.field import nonzero_point, vanishes
from identkit.symbolic.fields import Field, null_fields
from identkit.symbolic.fractions import rational_zero
from identkit.symbolic.linear import nullspace, rationals
from identkit.symbolic.modular import Evaluator, Unsupported
from identkit.symbolic.outcome import Outcome, Pin, Squares, Tied
from identkit.symbolic.polynomials import NotRational, Ring, factored
from identkit.symbolic.problem import Problem
from identkit.symbolic.rank import generic_rank
from identkit.symbolic.regularity import on_open_box, positive, regular
from identkit.symbolic.solver import solve
from identkit.verdict import Level

_LONGEST = 250
_MOST_SUMS = 12
_MOST_ENTRIES = 60


def solve_at(
    problem: Problem,
    point: Mapping[Symbol, Expr],
    generic: Outcome,
    sliced: Problem | None = None,
    seconds: float = 20.0,
) -> Outcome:
    """Levels of the fibre through a point of which some coordinates are given and the rest are generic.

    Args:
        problem: unknowns and κ.
        point: values of some unknowns.
        generic: what `solve` found for almost every point.
        sliced: κ of the model with those values written in, if any unknown is left.
        seconds: time allowed.

    If all given coordinates are determined, the fibre lies in the slice where they have their values, and the slice
    decides.
    """
    found = Outcome(dict.fromkeys(problem.unknowns, Level.UNKNOWN))
    values = dict(point)
    rest = tuple(u for u in problem.unknowns if u not in values)
    inside = Outcome({}) if sliced is None else solve(sliced, seconds)
    found.inside = inside
    _pinned(problem, found, values)
    _still_determined(found, generic, values)
    _still_moving(problem, found, generic, values)
    for unknown in rest:
        if inside.levels.get(unknown) in (Level.CONSTANT, Level.PARTIAL):
            # A curve in the slice is a curve in the fibre.
            found.levels[unknown] = Level.PARTIAL
    found.by_rank += inside.by_rank
    if any(found.levels[u] is Level.UNKNOWN for u in values):
        _squared(problem, found, values)
    if any(found.levels[u] is Level.UNKNOWN for u in values):
        _tied(problem, found, values)
    if all(found.levels[u] is Level.GLOBAL for u in values):
        found.maps = inside.maps
        found.at_least = list(inside.at_least)
        found.levels.update({u: _within(level) for u, level in inside.levels.items()})
    if Level.UNKNOWN in found.levels.values():
        names = ", ".join(u.name for u, level in found.levels.items() if level is Level.UNKNOWN)
        found.tried.append(f"singular or special point: the fibre through it was not settled for {names}")
    return found


def _within(level: Level) -> Level:
    # What a slice does not contain at all is still seen elsewhere: the fibre leaves it free here.
    return Level.PARTIAL if level is Level.CONSTANT else level


# What is determined


def _still_determined(found: Outcome, generic: Outcome, values: Mapping[Symbol, Expr]) -> None:
    for unknown, formula, known in generic.formulas:
        divisor = formula.divisor.subs(list(values.items()))
        earlier = all(found.levels[k] is Level.GLOBAL for k in known if k in found.levels)
        usable = not divisor.has(S.NaN, S.ComplexInfinity) and not vanishes(divisor)
        if found.levels[unknown] is not Level.GLOBAL and earlier and usable:
            found.levels[unknown] = Level.GLOBAL
            found.formulas.append((unknown, formula, known))


def _pinned(problem: Problem, found: Outcome, values: Mapping[Symbol, Expr]) -> None:
    """Coordinates that one entry of κ, or a ratio of two, pins down at this point."""
    entries = [e for e in dict.fromkeys(problem.summary) if e.free_symbols and sympy.count_ops(e) <= _LONGEST]
    short = [e for e in entries if sympy.count_ops(e) <= 30]
    # By an entry that is 0 at the point nothing is divided, even where the ratio has a limit.
    alive = [b for b in short if nonzero_point(b.subs(list(values.items())), problem.domains) is not None]
    ratios = [a / b for a in short for b in alive if a != b][:40]
    for expression in [*entries, *ratios]:
        value = expression.subs(list(values.items()))
        if (
            value.free_symbols
            or value.has(S.NaN, S.ComplexInfinity)
            or not regular(_moved(expression, problem))
        ):
            continue
        top = sympy.expand(sympy.fraction(sympy.together(expression - value))[0])
        if top == 0:
            continue
        roots = [
            (u, n)
            for f, n in factored(top)
            for u in f.free_symbols & set(values)
            if n.is_Integer and _is_root(f, u, values[u])
        ]
        if len(roots) != 1 or found.levels[roots[0][0]] is Level.GLOBAL:
            continue
        ((unknown, power),) = roots
        cofactor = sympy.cancel((expression - value) / (unknown - values[unknown]) ** power)
        if signed_on(cofactor, problem):
            found.levels[unknown] = Level.GLOBAL
            found.pins.append(Pin(unknown, values[unknown], expression, cofactor))


def _is_root(factor: Expr, unknown: Symbol, root: Expr) -> bool:
    return (
        factor.free_symbols == {unknown}
        and factor.is_polynomial(unknown)
        and sympy.degree(factor, unknown) == 1
        and factor.subs(unknown, root) == 0
    )


def signed_on(expression: Expr, problem: Problem) -> bool:
    """Whether the expression is seen to have one sign, and no zero, everywhere in the domains, their ends included."""
    moved = _moved(expression, problem)
    return positive(moved) or positive(-moved)


def _moved(expression: Expr, problem: Problem) -> Expr:
    return on_open_box(expression, {s: d for s, d in problem.domains.items() if s not in problem.closed})


def _squared(problem: Problem, found: Outcome, values: Mapping[Symbol, Expr]) -> None:
    """Combinations of κ's entries that are sums of even powers of deviations from this point, with positive weights."""
    entries = [e for e in dict.fromkeys(problem.summary) if e.free_symbols and e.is_polynomial(*values)]
    squared = tuple(u for u in values if even_in(u, problem))
    for weights in _flat(problem, entries[:_MOST_ENTRIES], values)[:_MOST_SUMS]:
        chosen = {e: w for e, w in zip(entries, weights, strict=False) if w}
        if sum(sympy.count_ops(e) for e in chosen) > _LONGEST:
            continue
        table = deviations(sympy.Add(*[w * e for e, w in chosen.items()]), values, squared)
        for sign in (1, -1):
            pinned = pinned_by({p: sign * e for p, e in (table or {}).items()}, list(values), problem)
            new = [u for u in pinned if found.levels[u] is Level.UNKNOWN]
            if new:
                found.squares.append(
                    Squares(tuple(pinned), {e: sign * w for e, w in chosen.items()}, squared)
                )
                found.levels.update(dict.fromkeys(new, Level.GLOBAL))


def even_in(unknown: Symbol, problem: Problem) -> bool:
    """Whether κ is even in an unknown of known sign, so that the square is what it is about."""
    domain = problem.domains[unknown]
    if not (domain.inf >= 0 or domain.sup <= 0):
        return False
    inside = [e for e in problem.summary if e.has(unknown)]
    return all(rational_zero(e.xreplace({unknown: -unknown}) - e) for e in inside)


def deviations(
    expression: Expr, values: Mapping[Symbol, Expr], squared: Sequence[Symbol]
) -> dict[tuple[int, ...], Expr] | None:
    """Coefficients by powers of the deviations d: u = value + d, or u² = value² + d for the squared ones."""
    moved = {}
    steps = []
    for u, value in values.items():
        steps.append(Dummy(f"d_{u.name}"))
        moved[u] = sympy.sqrt(value**2 + steps[-1]) if u in squared else value + steps[-1]
    shifted = expression.xreplace(moved)
    try:
        terms = sympy.Poly(shifted, *steps).terms()
    except sympy.PolynomialError:
        return None
    return dict(terms)


def _flat(problem: Problem, entries: Sequence[Expr], values: Mapping[Symbol, Expr]) -> list[list[Rational]]:
    """Weights that make a number of the entries' sum and 0 of its slopes by the given coordinates, simple ones first.

    Sought in a prime field at the given values and random generic coordinates.
    """
    if not entries or not all(value.is_Rational for value in values.values()):
        return []
    symbols = [*problem.unknowns, *problem.known]
    chance = random.Random(3)
    try:
        evaluator = Evaluator(entries, symbols)
        rows: list[list[int]] = []
        for _ in range(len(entries) + 3):
            here = {s: chance.randrange(1, evaluator.prime) for s in symbols}
            here |= {s: int(v.p) * pow(int(v.q), -1, evaluator.prime) for s, v in values.items()}
            heights, jacobian = evaluator.at(evaluator.point_at(here, chance))
            slopes = [[row[symbols.index(s)] for row in jacobian] for s in values]
            # The last column stands for minus the number that the sum is.
            rows += [[*column, 0] for column in slopes] + [[*heights, 1]]
    except (Unsupported, ArithmeticError):
        return []
    vectors = [rationals(v[:-1], evaluator.prime) for v in nullspace(rows, len(entries) + 1, evaluator.prime)]
    return sorted([v for v in vectors if v is not None], key=lambda v: sum(w != 0 for w in v))


def pinned_by(
    table: Mapping[tuple[int, ...], Expr], coordinates: Sequence[Symbol], problem: Problem
) -> list[Symbol]:
    """The coordinates that a vanishing sum of even powers with weights >= 0 pins; none if it is no such sum."""
    pinned = []
    for powers, coefficient in table.items():
        weight = sympy.factor(coefficient)
        if not any(powers) or weight == 0:
            continue
        moved = on_open_box(weight, {s: d for s, d in problem.domains.items() if s not in problem.closed})
        if any(power % 2 for power in powers) or sympy.factor(moved).is_nonnegative is not True:
            return []
        if sum(map(bool, powers)) == 1 and positive(moved):
            pinned.append(next(u for u, power in zip(coordinates, powers, strict=True) if power))
    return list(dict.fromkeys(pinned))


# What moves


def _still_moving(problem: Problem, found: Outcome, generic: Outcome, values: Mapping[Symbol, Expr]) -> None:
    for move in generic.fields:
        alive = alive_at(move, values, problem)
        if alive:
            found.fields.append(move)
            found.levels.update(dict.fromkeys(alive, Level.PARTIAL))


def alive_at(move: Field, values: Mapping[Symbol, Expr], problem: Problem) -> list[Symbol]:
    """The unknowns that a field moves at the point; none if it is singular there or its flow may leave the domains."""
    here = {u: e.subs(list(values.items())) for u, e in move.items()}
    if any(e.has(S.NaN, S.ComplexInfinity) for e in here.values()):
        return []
    for u, value in values.items():
        on_edge = problem.domains[u].contains(value) != sympy.true
        if on_edge and not vanishes(move.get(u, S.Zero).subs(u, value)):
            return []
    return [u for u, e in here.items() if not vanishes(e)]


def _lowest(expression: Expr) -> Expr:
    try:
        return Ring(sorted(expression.free_symbols, key=str)).reduced(expression)  # type: ignore[arg-type]
    except NotRational:
        return expression


def _tied(problem: Problem, found: Outcome, values: Mapping[Symbol, Expr]) -> None:
    """Fields on the subvariety where coordinates that are equal at the point are equal throughout."""
    first: dict[Expr, Symbol] = {}
    ties = {u: first[value] for u, value in values.items() if first.setdefault(value, u) != u}
    if not ties or not problem.exhaustive:
        return
    left = tuple(u for u in problem.unknowns if u not in ties)
    joined = replace(
        problem,
        unknowns=left,
        summary=tuple(_lowest(e.xreplace(ties)) for e in problem.summary),
        constraints=tuple(e for c in problem.constraints if (e := c.xreplace(ties)) != 0),
    )
    try:
        report = generic_rank(joined)
    except Unsupported:
        return
    unseen = [u for u in left if not any(e.has(u) for e in joined.summary)]
    free = [u for u in report.free if u not in unseen]
    for move in null_fields(joined, report.deficiency - len(unseen), free, 3.0) if free else []:
        alive = alive_at(move, {u: v for u, v in values.items() if u in left}, joined)
        moved = [*alive, *[u for u, leader in ties.items() if leader in alive]]
        if any(found.levels[u] is Level.UNKNOWN for u in moved):
            found.tied.append(Tied(move, tuple(moved), ties))
            found.levels.update(
                dict.fromkeys([u for u in moved if found.levels[u] is Level.UNKNOWN], Level.PARTIAL)
            )

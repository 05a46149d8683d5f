"""The general method: which unknowns does κ determine? Rank, exact fields, formulas, discrete maps, in that order.

The cheap local test comes first, the dear global one only for what survives it. Everything found is exact; where a
rank alone speaks, its probability of error goes with it; the rest is UNKNOWN or "at least LOCAL".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product

from sympy import Expr, Interval, Matrix, S, Symbol, cancel, div, expand, factor_list, fraction, together

from identkit.symbolic.discrete import Map, discrete_maps
from identkit.symbolic.field import vanishes
from identkit.symbolic.fields import Field, null_fields
from identkit.symbolic.injectivity import peel, slope_sign
from identkit.symbolic.modular import Unsupported
from identkit.symbolic.problem import Problem
from identkit.symbolic.rank import RankReport, generic_rank
from identkit.symbolic.regularity import analytic, on_open_box, positive, regular
from identkit.symbolic.recovery import Formula, Recovery
from identkit.verdict import Level


@dataclass(frozen=True)
class Increase:
    """κ determines `inner` by `formula`, and `inner` is strictly monotone in the unknown."""

    unknown: Symbol
    inner: Expr
    sign: int
    formula: Expr
    outer: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]


@dataclass(frozen=True)
class Pin:
    """κ determines `expression`, whose value at the point only ``unknown = value`` can give inside the domains.

    ``expression − its value = (unknown − value)^power · cofactor``, and the cofactor has no zero in the domains.
    """

    unknown: Symbol
    value: Expr
    expression: Expr
    cofactor: Expr


@dataclass(frozen=True)
class Convex:
    """On a convex domain ``J + Jᵀ`` of these rearranged entries of κ is positive definite: κ is one-to-one."""

    unknowns: tuple[Symbol, ...]
    entries: tuple[Expr, ...]


@dataclass
class Outcome:
    """Levels with their evidence."""

    levels: dict[Symbol, Level]
    report: RankReport | None = None
    fields: list[Field] = field(default_factory=list)
    formulas: list[tuple[Symbol, Formula, tuple[Symbol, ...]]] = field(default_factory=list)
    """unknown, formula for it (or for its square), and what was known by then"""
    increases: list[Increase] = field(default_factory=list)
    convex: Convex | None = None
    pins: list[Pin] = field(default_factory=list)
    maps: list[tuple[str, Map]] = field(default_factory=list)
    at_least: list[Symbol] = field(default_factory=list)
    by_rank: list[Symbol] = field(default_factory=list)
    """free by the rank alone, with its probability of error"""
    inside: Outcome | None = None
    """at a point: what was found where its coordinates are written in"""
    tried: list[str] = field(default_factory=list)


def solve(problem: Problem, seconds: float = 20.0, tell: Callable[[Outcome], None] | None = None) -> Outcome:
    """Levels of a generic fibre of κ.

    Args:
        problem: unknowns, domains and κ; an inexhaustive κ can determine unknowns but free none.
        seconds: time allowed for the searches together.
        tell: gets what has been found so far, after each step.
    """
    deadline = time.monotonic() + seconds
    found = Outcome(dict.fromkeys(problem.unknowns, Level.UNKNOWN))
    kinked = [e for e in problem.summary if not analytic(e) and e.free_symbols & set(problem.unknowns)]
    _ignored(problem, found)
    if kinked:
        found.tried.append(f"{kinked[0]} has kinks, so its rank differs from region to region")
        return found
    try:
        found.report = generic_rank(problem)
    except Unsupported as reason:
        found.tried.append(f"no rank over a prime field: {reason}")
        return found
    _free(problem, found, found.report, deadline)
    fixed = [u for u in problem.unknowns if u not in found.report.free]
    if found.report.upper_only and fixed:
        found.tried.append("the rank is only an upper bound here (special functions or numeric constants)")
    else:
        for unknown in fixed:
            found.levels[unknown] = Level.LOCAL
    if tell is not None:
        tell(_doubtful(found, fixed))
    _determined(problem, found, fixed, deadline)
    if tell is not None:
        tell(_doubtful(found, fixed))
    _by_convexity(problem, found)
    _mirrored(problem, found, [u for u in fixed if found.levels[u] is not Level.GLOBAL])
    return found


def _doubtful(found: Outcome, fixed: Sequence[Symbol]) -> Outcome:
    # Until the search is over, LOCAL is a lower bound.
    floor = [u for u in fixed if found.levels[u] is Level.LOCAL]
    return replace(found, levels=dict(found.levels), at_least=floor, tried=[*found.tried, "the search was cut short"])


def _ignored(problem: Problem, found: Outcome) -> None:
    seen = set().union(*[e.free_symbols for e in (*problem.summary, *problem.constraints)], set())
    for unknown in problem.unknowns:
        if unknown not in seen:
            found.levels[unknown] = Level.CONSTANT if problem.exhaustive else Level.UNKNOWN


def _free(problem: Problem, found: Outcome, report: RankReport, deadline: float) -> None:
    free = [u for u in report.free if found.levels[u] is not Level.CONSTANT]
    if not free:
        return
    if not problem.exhaustive:
        found.tried.append(f"what is known of the law leaves {', '.join(u.name for u in free)} free; more may fix them")
        return
    ignored = sum(level is Level.CONSTANT for level in found.levels.values())
    found.fields = null_fields(problem, report.deficiency - ignored, free, max(1.0, 0.5 * (deadline - time.monotonic())))
    moved = set().union(*[set(f) for f in found.fields], set())
    for unknown in free:
        if unknown in moved:
            found.levels[unknown] = Level.PARTIAL
        elif not report.upper_only:
            found.levels[unknown] = Level.PARTIAL
            found.by_rank.append(unknown)
        else:
            found.tried.append(f"no exact field was found that moves {unknown.name}")


def _determined(problem: Problem, found: Outcome, fixed: Sequence[Symbol], deadline: float) -> None:
    """Formulas first, then strict monotonicity, each making more unknowns known, until nothing new comes."""
    recovery = Recovery(problem, max(1.0, deadline - time.monotonic()))
    known: list[Symbol] = []
    left = list(fixed)
    progress = True
    while progress and left and time.monotonic() < deadline:
        progress = False
        for unknown in list(left):
            if _by_formula(problem, found, recovery, unknown, known) or _by_slope(problem, found, unknown, known):
                found.levels[unknown] = Level.GLOBAL
                known.append(unknown)
                left.remove(unknown)
                recovery.learn(unknown)
                progress = True


def _by_formula(problem: Problem, found: Outcome, recovery: Recovery, unknown: Symbol, known: list[Symbol]) -> bool:
    targets: list[Expr] = [unknown]
    if problem.domains[unknown].inf >= 0 or problem.domains[unknown].sup <= 0:
        targets.append(unknown**2)
    for target in targets:
        try:
            formula = recovery.find(target)
        except Unsupported:
            return False
        if formula is not None:
            found.formulas.append((unknown, formula, tuple(known)))
            return True
    return False


def _by_slope(problem: Problem, found: Outcome, unknown: Symbol, known: list[Symbol]) -> bool:
    support = problem.domains[unknown]
    if not isinstance(support, Interval):
        return False
    left = [u for u in problem.unknowns if u not in known]
    for index, expression in enumerate(dict.fromkeys(problem.summary), 1):
        if [u for u in left if expression.has(u)] != [unknown]:
            continue
        outer = Symbol(f"kappa[{index}]", real=True)
        peeled = peel(expression, outer, left, lambda factor: not vanishes(factor))
        sign = slope_sign(peeled.inner, unknown, support)
        if sign:
            claim = Increase(unknown, peeled.inner, sign, peeled.inverse, {outer: expression}, tuple(known))
            found.increases.append(claim)
            return True
    return False


def _by_convexity(problem: Problem, found: Outcome) -> None:
    """Gale & Nikaido (1965): a map whose Jacobian's symmetric part is definite on a convex domain is one-to-one."""
    left = [u for u in problem.unknowns if found.levels[u] is Level.LOCAL]
    entries = [e for e in dict.fromkeys(problem.summary) if e.free_symbols & set(left)]
    if not 2 <= len(left) <= 4 or len(left) != len(problem.unknowns) or len(entries) != len(left):
        return
    if not all(isinstance(problem.domains[u], Interval) for u in left) or not all(regular(e) for e in entries):
        return
    for order in permutations(entries):
        for signs in product((1, -1), repeat=len(left)):
            turned = tuple(sign * e for sign, e in zip(signs, order, strict=True))
            jacobian = Matrix(turned).jacobian(left)
            symmetric = jacobian + jacobian.T
            minors = [symmetric[:k, :k].det() for k in range(1, len(left) + 1)]
            if all(positive(expand(minor)) for minor in minors):
                found.convex = Convex(tuple(left), turned)
                found.levels.update(dict.fromkeys(left, Level.GLOBAL))
                return


def _mirrored(problem: Problem, found: Outcome, local: Sequence[Symbol]) -> None:
    if not local:
        return
    found.maps = discrete_maps(problem, local)
    moved = set().union(*[set(change) for _, change in found.maps], set())
    for unknown in local:
        if found.levels[unknown] is Level.LOCAL and unknown not in moved:
            found.at_least.append(unknown)
    if found.at_least:
        names = ", ".join(u.name for u in found.at_least)
        found.tried.append(f"neither a formula nor a second solution was found for {names}")


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

    Formulas hold at the point where their divisors do not vanish there, null fields where they do not. If all given
    coordinates are determined, the fibre lies in the slice where they have their values, and the slice decides.
    """
    found = Outcome(dict.fromkeys(problem.unknowns, Level.UNKNOWN))
    values = dict(point)
    rest = tuple(u for u in problem.unknowns if u not in values)
    inside = Outcome({}) if sliced is None else solve(sliced, seconds)
    found.inside = inside
    _pinned(problem, found, values)
    _still_determined(found, generic, values)
    _still_moving(found, generic, values)
    for unknown in rest:
        if inside.levels[unknown] in (Level.CONSTANT, Level.PARTIAL):
            # A curve in the slice is a curve in the fibre.
            found.levels[unknown] = Level.PARTIAL
    found.by_rank += inside.by_rank
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


def _pinned(problem: Problem, found: Outcome, values: Mapping[Symbol, Expr]) -> None:
    """Coordinates that one entry of κ, or a ratio of two, pins down at this point, as ``θ³ = 0`` does θ = 0."""
    entries = list(dict.fromkeys(e for e in problem.summary if e.free_symbols))
    ratios = [a / b for a in entries for b in entries if a != b][:40]
    for expression in [*entries, *ratios]:
        value = expression.subs(list(values.items()))
        if value.free_symbols or value.has(S.NaN, S.ComplexInfinity):
            continue
        top, bottom = fraction(together(expression - value))
        if expand(top) == 0:
            continue
        factors = [f for f, _ in factor_list(top)[1] if not _never_zero(f, problem)]
        if len(factors) != 1 or not regular(expression) or bottom.has(S.NaN):
            continue
        for unknown in factors[0].free_symbols & set(values):  # type: ignore[operator]
            root = values[unknown]
            cofactor, remainder = div(factors[0], unknown - root, unknown)
            if remainder == 0 and not cofactor.free_symbols:
                whole = cancel((expression - value) / (unknown - root) ** _multiplicity(top, unknown - root))
                found.levels[unknown] = Level.GLOBAL
                if not any(pin.unknown == unknown for pin in found.pins):
                    found.pins.append(Pin(unknown, root, expression, whole))


def _never_zero(factor: Expr, problem: Problem) -> bool:
    moved = on_open_box(factor, problem.domains)
    return positive(moved) or positive(-moved)


def _multiplicity(polynomial: Expr, factor: Expr) -> int:
    return max((int(m) for f, m in factor_list(polynomial)[1] if expand(f - factor) == 0 or expand(f + factor) == 0), default=1)


def _still_determined(found: Outcome, generic: Outcome, values: Mapping[Symbol, Expr]) -> None:
    for unknown, formula, known in generic.formulas:
        divisor = formula.divisor.subs(list(values.items()))
        earlier = all(found.levels[k] is Level.GLOBAL for k in known if k in found.levels)
        if found.levels[unknown] is not Level.GLOBAL and earlier and not divisor.has(S.NaN, S.ComplexInfinity) and not vanishes(divisor):
            found.levels[unknown] = Level.GLOBAL
            found.formulas.append((unknown, formula, known))


def _still_moving(found: Outcome, generic: Outcome, values: Mapping[Symbol, Expr]) -> None:
    for move in generic.fields:
        here = {u: e.subs(list(values.items())) for u, e in move.items()}
        alive = [u for u, e in here.items() if not e.has(S.NaN, S.ComplexInfinity) and not vanishes(e)]
        if alive and not any(e.has(S.NaN, S.ComplexInfinity) for e in here.values()):
            found.fields.append(move)
            for unknown in alive:
                found.levels[unknown] = Level.PARTIAL


def by_name(levels: Mapping[Symbol, Level]) -> dict[str, Level]:
    """Levels keyed by the unknowns' names."""
    return {unknown.name: level for unknown, level in levels.items()}



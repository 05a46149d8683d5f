"""The general method: which unknowns does κ determine? Rank, exact fields, formulas, discrete maps, in that order.

The cheap local test comes first, the dear global one only for what survives it. Everything found is exact; where a
rank alone speaks, its probability of error goes with it; the rest is UNKNOWN or "at least LOCAL".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations

from sympy import Dummy, Expr, Interval, Matrix, S, Symbol, exp, expand

from identkit.symbolic.discrete import discrete_maps, moves_inside
from identkit.symbolic.field import points, vanishes
from identkit.symbolic.fields import is_null, null_fields
from identkit.symbolic.injectivity import peel, slope_sign
from identkit.symbolic.modular import Unsupported
from identkit.symbolic.outcome import Convex, Increase, Outcome
from identkit.symbolic.problem import Problem
from identkit.symbolic.rank import RankReport, generic_rank
from identkit.symbolic.recovery import Recovery
from identkit.symbolic.regularity import analytic, positive, regular
from identkit.symbolic.roots import Settled, root_of
from identkit.verdict import Level

_OBVIOUS = 80
"""Maps that are tried before formulas are sought."""
_MOST_ROOTS = 8
"""Unknowns for which quadratic relations are sought at most."""


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
    _unseen(problem, found, found.report)
    _free(problem, found, found.report, deadline)
    fixed = [u for u in problem.unknowns if u not in found.report.free]
    if found.report.upper_only and fixed:
        found.tried.append("the rank is only an upper bound here (special functions or numeric constants)")
    else:
        for unknown in fixed:
            found.levels[unknown] = Level.LOCAL
    if tell is not None:
        tell(_doubtful(found, fixed))
    # What an obvious map moves is LOCAL for good, and needs no formula.
    found.maps = discrete_maps(problem, fixed, _OBVIOUS)
    recovery = _determined(problem, found, _unmoved(found, fixed), deadline)
    if tell is not None:
        tell(_doubtful(found, fixed))
    _by_convexity(problem, found)
    _mirrored(problem, found, fixed)
    _by_roots(problem, found, fixed, recovery)
    if found.at_least:
        names = ", ".join(u.name for u in found.at_least)
        found.tried.append(f"neither a formula nor a second solution was found for {names}")
    return found


def _doubtful(found: Outcome, fixed: Sequence[Symbol]) -> Outcome:
    # Until the search is over, LOCAL is a lower bound.
    floor = [u for u in fixed if found.levels[u] is Level.LOCAL]
    return replace(
        found, levels=dict(found.levels), at_least=floor, tried=[*found.tried, "the search was cut short"]
    )


def _ignored(problem: Problem, found: Outcome) -> None:
    seen = set().union(*[e.free_symbols for e in (*problem.summary, *problem.constraints)], set())
    for unknown in problem.unknowns:
        if unknown not in seen:
            found.levels[unknown] = Level.CONSTANT if problem.exhaustive else Level.UNKNOWN


def _unseen(problem: Problem, found: Outcome, report: RankReport) -> None:
    """Free unknowns that stand in κ and cancel there, as in ``sin(u)^2 + cos(u)^2``: ignored all the same."""
    for unknown in report.free if problem.exhaustive else ():
        if found.levels[unknown] is Level.CONSTANT:
            continue
        elsewhere = Dummy(unknown.name, **unknown.assumptions0)
        seen = [e for e in (*problem.summary, *problem.constraints) if e.has(unknown)]
        if all(
            is_null({unknown: S.One}, [e]) and vanishes(e - e.xreplace({unknown: elsewhere})) for e in seen
        ):
            found.levels[unknown] = Level.CONSTANT


def _free(problem: Problem, found: Outcome, report: RankReport, deadline: float) -> None:
    free = [u for u in report.free if found.levels[u] is not Level.CONSTANT]
    if not free:
        return
    if not problem.exhaustive:
        found.tried.append(
            f"what is known of the law leaves {', '.join(u.name for u in free)} free; more may fix them"
        )
        return
    ignored = sum(level is Level.CONSTANT for level in found.levels.values())
    found.fields = null_fields(
        problem, report.deficiency - ignored, free, max(1.0, 0.5 * (deadline - time.monotonic()))
    )
    moved = set().union(*[set(f) for f in found.fields], set())
    for unknown in free:
        if unknown in moved:
            found.levels[unknown] = Level.PARTIAL
        elif not report.upper_only:
            found.levels[unknown] = Level.PARTIAL
            found.by_rank.append(unknown)
        else:
            found.tried.append(f"no exact field was found that moves {unknown.name}")


def _determined(
    problem: Problem,
    found: Outcome,
    fixed: Sequence[Symbol],
    deadline: float,
    recovery: Recovery | None = None,
) -> Recovery:
    """Formulas first, then strict monotonicity, each making more unknowns known, until nothing new comes."""
    recovery = recovery or Recovery(problem, max(1.0, deadline - time.monotonic()))
    known = [u for u in recovery.known if u in fixed]
    left = [u for u in fixed if u not in known]
    progress = True
    while progress and left and time.monotonic() < deadline:
        progress = False
        for unknown in list(left):
            if _by_formula(problem, found, recovery, unknown, known) or _by_slope(
                problem, found, unknown, known
            ):
                found.levels[unknown] = Level.GLOBAL
                known.append(unknown)
                left.remove(unknown)
                recovery.learn(unknown)
                progress = True
    return recovery


def _by_formula(
    problem: Problem, found: Outcome, recovery: Recovery, unknown: Symbol, known: list[Symbol]
) -> bool:
    targets: list[Expr] = [unknown]
    if problem.domains[unknown].inf >= 0 or problem.domains[unknown].sup <= 0:
        targets.append(unknown**2)
    if unknown in recovery.exponentials:
        targets = [exp(unknown), exp(2 * unknown)]
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
        inside = expression.free_symbols
        if unknown not in inside or any(u in inside for u in left if u != unknown):
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
    if not all(isinstance(problem.domains[u], Interval) for u in left) or not all(
        regular(e) for e in entries
    ):
        return
    # An entry can stand in row i only if its slope by unknown i has one sign, which must then be made positive.
    signs = [[_slope(e, u) for u in left] for e in entries]
    for order in permutations(range(len(left))):
        if not all(signs[place][i] for i, place in enumerate(order)):
            continue
        turned = tuple(signs[place][i] * entries[place] for i, place in enumerate(order))
        jacobian = Matrix(turned).jacobian(left)
        symmetric = jacobian + jacobian.T
        if not all(
            symmetric.subs(list(p.items())).is_positive_definite for p in points(dict(problem.domains), 2)
        ):
            continue
        if all(positive(expand(symmetric[:k, :k].det())) for k in range(1, len(left) + 1)):
            found.convex = Convex(tuple(left), turned)
            found.levels.update(dict.fromkeys(left, Level.GLOBAL))
            return


def _slope(expression: Expr, unknown: Symbol) -> int:
    slope = expression.diff(unknown)
    return 1 if positive(slope) else -1 if positive(-slope) else 0


def _unmoved(found: Outcome, fixed: Sequence[Symbol]) -> list[Symbol]:
    moved = set().union(*[set(change) for _, change in found.maps], set())
    return [u for u in fixed if u not in moved]


def _mirrored(problem: Problem, found: Outcome, fixed: Sequence[Symbol]) -> None:
    """Maps that move what is not determined; without one, LOCAL is a lower bound."""
    open_ = [u for u in _unmoved(found, fixed) if found.levels[u] is not Level.GLOBAL]
    if open_:
        found.maps += discrete_maps(problem, open_)
    found.at_least = [u for u in _unmoved(found, open_) if found.levels[u] is Level.LOCAL]


def _by_roots(problem: Problem, found: Outcome, fixed: Sequence[Symbol], recovery: Recovery) -> None:
    """Quadratic relations for what is neither determined nor moved by a map: one admissible root, or a second solution."""
    for unknown in found.at_least[:_MOST_ROOTS]:
        if unknown not in found.at_least or time.monotonic() > recovery.deadline:
            continue
        try:
            answer = root_of(problem, recovery, unknown, found.at_least)
        except Unsupported:
            return
        if isinstance(answer, Settled):
            found.roots.append(answer)
            found.levels[unknown] = Level.GLOBAL
            recovery.learn(unknown)
            _determined(problem, found, _unmoved(found, fixed), recovery.deadline, recovery)
            found.at_least = [u for u in found.at_least if found.levels[u] is Level.LOCAL]
        elif answer is not None and moves_inside(answer, problem):
            found.maps.append(("other", answer))
            found.at_least = _unmoved(found, found.at_least)

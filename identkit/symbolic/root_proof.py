"""The claim that an unknown is the one admissible root of quadratic equations over κ, re-checked without the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
from sympy import Expr, S, Symbol

from identkit.symbolic.fibre_claims import Determines
from identkit.symbolic.fibre_points import gone, in_domain, not_zero_somewhere
from identkit.symbolic.problem import Problem
from identkit.symbolic.questions import Question
from identkit.symbolic.regularity import positive


@dataclass(frozen=True)
class Relation:
    """``a t² + b t + c = 0`` for the target t."""

    target: Expr
    a: Expr
    b: Expr
    c: Expr


@dataclass(frozen=True)
class OneRoot(Determines):
    """An unknown is a root of quadratic equations over κ of which one root counts.

    Two equations that are not proportional have one common root at most. With one, the other root is followed through
    `steps`, formulas for further unknowns (or their squares) in terms of κ and those before: the last leaves its domain,
    or without steps the root itself does, or the given inequality is broken.
    """

    unknown: Symbol
    relations: tuple[Relation, ...]
    summary: Mapping[Symbol, Expr]
    steps: tuple[tuple[Symbol, Expr, Expr], ...]
    inequality: Expr | None
    needs: tuple[Symbol, ...]

    @property
    def sentence(self) -> str:
        equations = [f"({r.a})*t^2 + ({r.b})*t + {r.c} = 0" for r in self.relations]
        used = ", ".join(f"{s} = {e}" for s, e in self.summary.items())
        target = f"t = {self.relations[0].target} solves {' and '.join(equations)}, where the law has {used}"
        if len(self.relations) > 1:
            return f"{target}, and these have one root in common"
        last = self.steps[-1][0].name if self.steps else self.unknown.name
        why = (
            f"breaks {self.inequality} > 0"
            if self.inequality is not None
            else f"takes {last} out of its domain"
        )
        return f"{target}, whose other root {why}"

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        inside = list(self.summary.items())
        given = {*self.summary, *self.needs, *problem.known}
        domain = problem.domains[self.unknown]
        target = self.relations[0].target
        signed = domain.inf >= 0 or domain.sup <= 0
        if not set(self.summary.values()) <= set(problem.summary) or self.unknown in self.needs:
            return False
        if target != self.unknown and not (target == self.unknown**2 and signed):
            return False
        for r in self.relations:
            symbols = r.a.free_symbols | r.b.free_symbols | r.c.free_symbols
            gap = (r.a * r.target**2 + r.b * r.target + r.c).subs(inside)
            if r.target != target or not symbols <= given or not gone(gap):
                return False
        if len(self.relations) == 2:
            one, other = self.relations
            return not_zero_somewhere((one.a * other.b - one.b * other.a).subs(inside), problem)
        return len(self.relations) == 1 and self._excluded(problem, inside, given)

    def _excluded(self, problem: Problem, inside: list[tuple[Symbol, Expr]], given: set[Symbol]) -> bool:
        (relation,) = self.relations
        if not not_zero_somewhere(relation.a.subs(inside), problem):
            return False
        moved, target = self.unknown, relation.target
        value = sympy.cancel((-relation.b / relation.a).subs(inside) - target)
        change: dict[Symbol, Expr] = {}
        for follower, goal, formula in self.steps:
            change[moved] = _placed_at(value, moved, target, problem)
            domain = problem.domains[follower]
            signed = domain.inf >= 0 or domain.sup <= 0
            fits = goal == follower or (goal == follower**2 and signed)
            if (
                not fits
                or not formula.free_symbols <= {*given, *change}
                or follower in {*change, *self.needs}
            ):
                return False
            if not gone(formula.subs(inside) - goal):
                return False
            value = sympy.cancel(formula.subs(change, simultaneous=True).subs(inside))
            moved, target = follower, goal
        if value.has(S.NaN, S.ComplexInfinity):
            return False
        if self.inequality is None:
            return _leaves(value, target, problem)
        change[moved] = _placed_at(value, moved, target, problem)
        stated = self.inequality.free_symbols <= {*change, *self.needs, *problem.known}
        ratio = sympy.cancel(self.inequality.subs(change, simultaneous=True) / self.inequality)
        return stated and self.inequality in problem.inequalities and positive(in_domain(-ratio, problem))


def _placed_at(value: Expr, moved: Symbol, target: Expr, problem: Problem) -> Expr:
    """The unknown's value where the target, itself or its square, has this one."""
    if target == moved:
        return value
    size = sympy.sqrt(sympy.factor(value))
    return size if problem.domains[moved].inf >= 0 else -size


def _leaves(value: Expr, target: Expr, problem: Problem) -> bool:
    """Whether the value is nowhere inside the domain of the target, an unknown or the square of one."""
    if not target.is_Symbol:
        return _not_negative(-value, problem)
    low, high = problem.domains[target].inf, problem.domains[target].sup  # type: ignore[index]
    below = low.is_finite and _not_negative(low - value, problem)
    return bool(below or (high.is_finite and _not_negative(value - high, problem)))


def _not_negative(expression: Expr, problem: Problem) -> bool:
    return sympy.factor(sympy.together(in_domain(expression, problem))).is_nonnegative is True

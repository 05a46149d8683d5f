"""Claims about special points: expressions of κ whose value there pins coordinates down, re-checked without the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
from sympy import Dummy, Expr, Symbol

from identkit.symbolic.fibre_claims import FibreClaim, Values
from identkit.symbolic.fibre_points import in_domain, not_zero_somewhere
from identkit.symbolic.fractions import rational_zero
from identkit.symbolic.problem import Problem
from identkit.symbolic.questions import Question
from identkit.symbolic.regularity import positive, regular
from identkit.verdict import Level


@dataclass(frozen=True)
class Pinned(FibreClaim):
    """At the point, κ has an expression whose value allows one value of an unknown only."""

    unknown: Symbol
    value: Expr
    expression: Expr
    cofactor: Expr
    point: Values

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return {self.unknown: (Level.GLOBAL,)}

    @property
    def sentence(self) -> str:
        return f"the law determines {self.expression}, and only {self.unknown.name} = {self.value} gives its value"

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        inside = set(problem.summary)
        if self.expression not in inside and not any(
            a / b == self.expression and not_zero_somewhere(b.subs(list(self.point.items())), problem)
            for a in inside
            for b in inside
            if b != 0
        ):
            return False
        value = self.expression.subs(list(self.point.items()))
        if value.free_symbols or self.point.get(self.unknown) != self.value:
            return False
        if not regular(_with_ends(self.expression, problem)):
            return False
        moved = _with_ends(self.cofactor, problem)
        if not (positive(moved) or positive(-moved)):
            return False
        gaps = [
            self.expression - value - (self.unknown - self.value) ** power * self.cofactor
            for power in range(1, 9)
        ]
        return any(rational_zero(gap) for gap in gaps)


@dataclass(frozen=True)
class SumOfSquares(FibreClaim):
    """At the point a combination of κ's entries is least, and only these values of the unknowns make it so.

    ``Σ weight · entry = constant + Σ coefficient · Π dᵢ^nᵢ`` with even nᵢ and coefficients that are nowhere negative,
    where d is the deviation of a coordinate from the point (of its square, for those in `squared`); among the terms are
    powers of single deviations with positive coefficients, which pin these down.
    """

    unknowns: tuple[Symbol, ...]
    weights: Mapping[Expr, Expr]
    squared: tuple[Symbol, ...]
    point: Values

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return dict.fromkeys(self.unknowns, (Level.GLOBAL,))

    @property
    def sentence(self) -> str:
        sums = " + ".join(f"({w})*({e})" for e, w in self.weights.items())
        return f"the law determines {sums}, which has its least value at {', '.join(u.name for u in self.unknowns)} alone"

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        if not set(self.weights) <= set(problem.summary) or any(
            w.free_symbols for w in self.weights.values()
        ):
            return False
        steps = {u: Dummy(u.name) for u in self.point}
        total = sympy.Add(*[w * e for e, w in self.weights.items()])
        for u, value in self.point.items():
            moved = sympy.sqrt(value**2 + steps[u]) if u in self.squared else value + steps[u]
            total = total.xreplace({u: moved})
        if not all(problem.domains[u].inf >= 0 or problem.domains[u].sup <= 0 for u in self.squared):
            return False
        try:
            polynomial = sympy.Poly(total, *steps.values())
        except sympy.PolynomialError:
            return False
        pinned = set()
        for powers, coefficient in polynomial.terms():
            weight = sympy.factor(_with_ends(sympy.factor(coefficient), problem))
            if not any(powers):
                if sympy.cancel(coefficient).free_symbols:
                    return False
                continue
            if any(n % 2 for n in powers) or weight.is_nonnegative is not True:
                return False
            if sum(map(bool, powers)) == 1 and weight.is_positive:
                pinned |= {u for u, n in zip(steps, powers, strict=True) if n}
        return set(self.unknowns) <= pinned


def _with_ends(expression: Expr, problem: Problem) -> Expr:
    """In variables that know the domains; a domain that contains its ends is known by the symbol's own assumptions."""
    hidden = {s: Dummy(s.name, **s.assumptions0) for s in problem.closed}
    return in_domain(expression.subs(hidden), problem).subs({d: s for s, d in hidden.items()})

"""Expressions with kinks, region by region: within one cell |u| is u or −u and max is one of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sympy
from sympy import Expr, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.symbolic.certificates import Point
from identkit.symbolic.certificates.claim import spelled
from identkit.symbolic.certificates.laws import law_moves
from identkit.symbolic.certificates.on_the_law import Translated
from identkit.symbolic.certificates.zeros import zero
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import all_domains, is_discrete, takes_every_value
from identkit.symbolic.wording import translation_in_words


def has_kinks(expressions: Sequence[Expr]) -> bool:
    """Whether any of the expressions is only piecewise smooth."""
    return any(e.has(sympy.Abs, sympy.Max, sympy.Min) for e in expressions)


def smooth_near(expression: Expr, point: Point) -> Expr | None:
    """The smooth expression that this one is on a neighbourhood of the point; None if the point lies on a kink.

    >>> z = Symbol("z", real=True)
    >>> smooth_near(sympy.Max(z, 0) + abs(z), {z: sympy.Rational(-1)})
    -z
    """
    if not expression.args or not has_kinks([expression]):
        return expression
    inner = [smooth_near(argument, point) for argument in expression.args]
    if any(argument is None for argument in inner):
        return None
    if isinstance(expression, sympy.Abs):
        (argument,) = inner
        sign = _sign(argument, point)
        return None if sign == 0 else sign * argument  # pyright: ignore[reportOperatorIssue]
    if isinstance(expression, sympy.Max | sympy.Min):
        turn = 1 if isinstance(expression, sympy.Max) else -1
        for candidate in inner:
            others = [other for other in inner if other is not candidate]
            if all(turn * _sign(candidate - other, point) > 0 for other in others):  # pyright: ignore[reportOptionalOperand]
                return candidate
        return None
    return expression.func(*inner)


def _sign(expression: Expr, point: Point) -> int:
    if expression == 0:
        return 0
    inside = {s: v for s, v in point.items() if s in expression.free_symbols}
    try:
        value = balls.ball(expression, inside, 192)
    except (NotImplementedError, KeyError, ValueError):
        return 0
    return 1 if value > 0 else -1 if value < 0 else 0


@dataclass(frozen=True)
class FlatCell(Translated):
    """Around a point inside the support, the law does not change along a direction: a dead region of positive mass."""

    direction: Mapping[Symbol, Expr]
    point: Point

    @property
    def sentence(self) -> str:
        steps = translation_in_words(self.direction)
        return f"in a region of positive prior mass around ({spelled(self.point)}) the law is the same at ({steps})"

    def holds(self, model: Model) -> bool:
        latents = model.latent_symbols
        if any(is_discrete(model.support(s)) or not takes_every_value(model, s) for s in latents):
            return False
        if any(
            domain.contains(self.point[s]) == sympy.false
            for s, domain in all_domains(model).items()
            if s in self.point
        ):
            return False
        stated = [c.expression for c in model.constraints if c.relation == "> 0"]
        if any(e.subs(list(self.point.items())).is_positive is not True for e in stated):
            return False
        moved = self.moved
        for expression in conditional_law(model).expressions:
            here = smooth_near(expression, self.point)
            if here is None or not zero(here.subs(moved, simultaneous=True) - here):
                return False
        return all(law_moves(model, latent) for latent in self.direction)

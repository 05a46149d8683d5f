"""From equal laws to equal latents: inverting what is one-to-one, layer by layer, and strict monotonicity."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import sympy
from sympy import Dummy, Expr, Interval, Rational, Set, Symbol

from identkit.model.functions import sigmoid
from identkit.symbolic.field import vanishes
from identkit.symbolic.regularity import analytic, from_half_line, nonnegative, positive, regular


@dataclass(frozen=True)
class Peeled:
    """``inner = inverse(κ)``: an inner expression, and how to get it back from the summary's value `outer`.

    `nonzero` lists the factors that were divided by.
    """

    inner: Expr
    outer: Symbol
    inverse: Expr
    nonzero: tuple[Expr, ...] = ()


def peel(
    summary: Expr, outer: Symbol, unknowns: Collection[Symbol], may_divide: Callable[[Expr], bool]
) -> Peeled:
    """Strip one-to-one layers (affine, exp, log, sigmoid, tanh, powers) off a summary.

    Args:
        summary: an expression of unknowns and of things taken as known.
        outer: a symbol for the summary's value.
        unknowns: the symbols that are not known yet.
        may_divide: whether a known factor may be taken to be different from 0.

    >>> z, w, y = sympy.symbols("z w y", real=True)
    >>> peel(sigmoid(w * z + 1), y, {z}, lambda factor: True).inner
    z
    """
    inner, inverse, divided = summary, outer, []
    while True:
        step = _layer(inner, unknowns, may_divide)
        if step is None:
            return Peeled(inner, outer, inverse, tuple(divided))
        inner, undo, factor = step
        inverse = undo(inverse)
        if factor is not None:
            divided.append(factor)


def _layer(
    expression: Expr, unknowns: Collection[Symbol], may_divide: Callable[[Expr], bool]
) -> tuple[Expr, Callable[[Expr], Expr], Expr | None] | None:
    if isinstance(expression, sympy.Add):
        known, rest = expression.as_independent(*unknowns, as_Add=True)
        if known != 0:
            return rest, lambda y: y - known, None
        content, primitive = expression.as_content_primitive()
        if content != 1:
            return primitive, lambda y: y / content, None
        factored = sympy.factor_terms(sympy.collect(sympy.expand(expression), list(unknowns)))
        if isinstance(factored, sympy.Mul):
            return _layer(factored, unknowns, may_divide)
    if isinstance(expression, sympy.Mul):
        known, rest = expression.as_independent(*unknowns, as_Add=False)
        if known != 1 and may_divide(known):
            return rest, lambda y: y / known, known if known.free_symbols else None
    if isinstance(expression, sympy.exp):
        return expression.args[0], sympy.log, None
    if isinstance(expression, sympy.log):
        return expression.args[0], sympy.exp, None
    if isinstance(expression, sigmoid):
        return expression.args[0], lambda y: -sympy.log(1 / y - 1), None
    if isinstance(expression, sympy.tanh):
        return expression.args[0], lambda y: sympy.log((1 + y) / (1 - y)) / 2, None
    if isinstance(expression, sympy.Pow):
        base, exponent = expression.args
        raised = (base.is_positive and exponent.is_nonzero) or (base.is_nonnegative and exponent.is_positive)
        if raised and not exponent.has(*unknowns):
            return base, lambda y: y ** (1 / exponent), None
        if exponent == -1:
            return base, lambda y: 1 / y, None
        if exponent.is_Integer and exponent % 2 == 1:
            return base, lambda y: y / sympy.Abs(y) * sympy.Abs(y) ** Rational(1, exponent), None
    return None


def slope_sign(expression: Expr, unknown: Symbol, support: Set) -> int:
    """+1 or −1 if the expression is proved strictly increasing or decreasing on the support, else 0.

    A function without poles or kinks that is not constant and whose derivative never changes sign is strictly monotone.

    >>> from sympy import Interval, S
    >>> z = Symbol("z", real=True)
    >>> slope_sign(z**3 + z, z, S.Reals), slope_sign(z**2, z, S.Reals), slope_sign(z**2, z, Interval.open(0, S.Infinity))
    (1, 0, 1)
    """
    if not isinstance(support, Interval) or not analytic(expression):
        return 0
    if not regular(*on_half_line(expression, unknown, support)):
        return 0
    slope = expression.diff(unknown)
    if vanishes(slope):
        return 0
    moved, variable = on_half_line(slope, unknown, support)
    candidate = sympy.factor(sympy.together(moved)) if moved.is_rational_function() else moved
    for sign in (1, -1):
        signed = sign * candidate
        if nonnegative(signed) or _polynomial_sign(signed, variable) or positive(signed):
            return sign
    return 0


def on_half_line(expression: Expr, unknown: Symbol, support: Interval) -> tuple[Expr, Symbol]:
    """The expression in a variable that carries the support in SymPy's assumptions: all reals, or (0, ∞).

    A half-line is shifted, a bounded interval is mapped by ``z = low + (high − low) t/(1 + t)``, t > 0.
    """
    if not support.inf.is_finite and not support.sup.is_finite:
        return expression, unknown
    t = Dummy("t", positive=True)
    return expression.subs(unknown, from_half_line(support, t)), t


def _polynomial_sign(expression: Expr, variable: Symbol) -> bool:
    # Sturm: a rational function with rational coefficients is >= 0 iff no factor of odd multiplicity has a root
    # inside, and one value is positive.
    top, bottom = sympy.fraction(expression)
    if (top * bottom).free_symbols != {variable}:
        return False
    try:
        polynomial = sympy.Poly(top * bottom, variable, domain="QQ")
    except (sympy.PolynomialError, sympy.CoercionFailed):
        return False
    low = 0 if variable.is_positive else None
    _, factors = polynomial.sqf_list()
    for factor, multiplicity in factors:
        roots = factor.count_roots(low, None) - (1 if low == 0 and factor.eval(0) == 0 else 0)
        if multiplicity % 2 and roots:
            return False
    return any(polynomial.eval(Rational(k, 7)) > 0 for k in range(1, polynomial.degree() + 9))

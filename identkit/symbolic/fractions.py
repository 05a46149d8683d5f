"""Rational functions in SymPy's own polynomial rings: the certificates' exact zero test, apart from the search's flint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
from sympy import Expr, Rational, Symbol

from identkit.model.functions import sigmoid
from identkit.model.tape import Tape

Fraction = tuple[Any, Any]


class NotRational(ValueError):
    """The expression is no rational function."""


class Fractions:
    """The algebra of fractions of polynomials over ℚ, for `Tape.run`."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self.symbols = tuple(symbols)
        names = [f"x{i}" for i in range(max(len(symbols), 1))]
        self._ring, *generators = sympy.ring(names, sympy.QQ)
        self.values = {s: (g, self._ring.one) for s, g in zip(self.symbols, generators, strict=False)}

    def of(self, expression: Expr) -> Fraction:
        """Numerator and denominator of a rational function."""
        try:
            tape = Tape([expression])
        except NotImplementedError as foreign:  # such as the I in sqrt(-a) = I sqrt(a)
            raise NotRational(str(foreign)) from foreign
        return tape.run(self.values, self)[0]

    def slope(self, fraction: Fraction, symbol: Symbol) -> Fraction:
        """The derivative of a fraction."""
        top, bottom = fraction
        generator = self.values[symbol][0]
        return top.diff(generator) * bottom - top * bottom.diff(generator), bottom**2

    def constant(self, value: Rational) -> Fraction:
        return self._ring.ground_new(sympy.QQ(int(value.p), int(value.q))), self._ring.one

    def pi(self) -> Fraction:
        raise NotRational("pi")

    def add(self, terms: Sequence[Fraction]) -> Fraction:
        top, bottom = terms[0]
        for a, b in terms[1:]:
            top, bottom = (top + a, bottom) if b == bottom else (top * b + a * bottom, bottom * b)
        return top, bottom

    def multiply(self, factors: Sequence[Fraction]) -> Fraction:
        top, bottom = factors[0]
        for a, b in factors[1:]:
            top, bottom = top * a, bottom * b
        return top, bottom

    def power(self, base: Fraction, exponent: Rational) -> Fraction:
        n = int(exponent.p)
        if exponent.q != 1 or abs(n) > 64:
            raise NotRational(f"the power {exponent}")
        top, bottom = base
        if n < 0 and top == 0:
            raise ZeroDivisionError("a denominator is identically 0")
        return (top**n, bottom**n) if n >= 0 else (bottom**-n, top**-n)

    def call(self, function: str, arguments: Sequence[Fraction]) -> Fraction:
        raise NotRational(function)


def rational_zero(expression: Expr) -> bool | None:
    """Whether a rational function is identically 0; None if the expression is none.

    >>> x = Symbol("x")
    >>> rational_zero((x + 1)**2 - x**2 - 2*x - 1), rational_zero(sympy.exp(x))
    (True, None)
    >>> rational_zero(sympy.I * x)
    """
    try:
        return Fractions(sorted(expression.free_symbols, key=str)).of(expression)[0] == 0
    except NotRational:
        return None


def exponentials_opened(expression: Expr) -> Expr:
    """Exponentials as powers of new symbols ``exp(m)``, m the monomials of their arguments.

    What vanishes with these in the place of the exponentials vanishes. The converse is not claimed.

    >>> x = Symbol("x")
    >>> exponentials_opened(sympy.exp(2*x + 1) - sympy.exp(x)).free_symbols == {Symbol("exp(x)"), Symbol("exp(1)")}
    True
    """
    written = expression.rewrite(sympy.exp) if expression.atoms(sigmoid, sympy.tanh) else expression
    powers = {e: _powers(e.args[0]) for e in written.atoms(sympy.exp)}
    return written.xreplace({e: power for e, power in powers.items() if power is not None})


def _powers(exponent: Expr) -> Expr | None:
    factors = []
    for term in sympy.Add.make_args(sympy.expand(exponent)):
        count, monomial = term.as_coeff_Mul()
        if not count.is_Integer:
            return None
        factors.append(Symbol(f"exp({monomial})") ** count)
    return sympy.Mul(*factors)


def log_slope(expression: Expr, symbol: Symbol) -> Expr | None:
    """``∂ log|e|`` for a product of powers and exponentials, rational if these are; None for what is no product.

    >>> x = Symbol("x")
    >>> log_slope(3 * x**2 * sympy.exp(-x), x)
    -1 + 2/x
    """
    total = sympy.S.Zero
    for factor in sympy.Mul.make_args(expression):
        base, power = factor.as_base_exp()
        if isinstance(factor, sympy.exp):
            total += factor.args[0].diff(symbol)
        elif power.is_Rational:
            total += power * base.diff(symbol) / base
        else:
            return None
    return total


def annihilated(expression: Expr, field: Mapping[Symbol, Expr]) -> bool | None:
    """Whether ``Σ ξᵢ ∂ᵢ`` takes an expression to 0; None if that is no question about rational functions."""
    inside = expression.free_symbols
    touched = {s: e for s, e in field.items() if s in inside}
    if isinstance(expression, sympy.exp) or (expression.is_Mul and expression.atoms(sympy.exp)):
        slopes = {s: log_slope(expression, s) for s in touched}
        if None not in slopes.values():
            return rational_zero(sympy.Add(*[e * slopes[s] for s, e in touched.items()]))
    try:
        algebra = Fractions(sorted(inside.union(*[e.free_symbols for e in touched.values()]), key=str))
        whole = algebra.of(expression)
        terms = [algebra.multiply([algebra.of(e), algebra.slope(whole, s)]) for s, e in touched.items()]
        return not terms or algebra.add(terms)[0] == 0
    except NotRational:
        return None

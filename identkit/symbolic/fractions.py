"""Rational functions in SymPy's own polynomial rings: the certificates' exact zero test, apart from the search's flint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
from sympy import Expr, Rational, Symbol

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
        return Tape([expression]).run(self.values, self)[0]

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
    """
    try:
        return Fractions(sorted(expression.free_symbols, key=str)).of(expression)[0] == 0
    except NotRational:
        return None


def annihilated(expression: Expr, field: Mapping[Symbol, Expr]) -> bool | None:
    """Whether ``Σ ξᵢ ∂ᵢ`` takes a rational function to 0; None if expression or field are not rational."""
    inside = expression.free_symbols
    touched = {s: e for s, e in field.items() if s in inside}
    try:
        algebra = Fractions(sorted(inside.union(*[e.free_symbols for e in touched.values()]), key=str))
        whole = algebra.of(expression)
        terms = [algebra.multiply([algebra.of(e), algebra.slope(whole, s)]) for s, e in touched.items()]
        return not terms or algebra.add(terms)[0] == 0
    except NotRational:
        return None

"""Rational functions over ℚ in flint's multivariate polynomials: for exact checks that SymPy would be slow at."""

from __future__ import annotations

from collections.abc import Iterable

import flint
from sympy import Add, Expr, Mul, Pow, Rational, Symbol, factor


class NotRational(ValueError):
    """The expression is no rational function of the ring's symbols."""


class Ring:
    """Expressions as fractions ``(numerator, denominator)`` of polynomials in fixed symbols.

    >>> x = Symbol("x")
    >>> Ring([x]).is_zero((x + 1)**2 - x**2 - 2*x - 1)
    True
    """

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self.symbols = tuple(symbols)
        names = tuple(f"x{i}" for i in range(max(len(self.symbols), 1)))
        self._context = flint.fmpq_mpoly_ctx.get(names, flint.Ordering.degrevlex)
        self._generators = dict(zip(self.symbols, self._context.gens(), strict=False))
        self._one = self._context.constant(1)

    def fraction(self, expression: Expr) -> tuple[flint.fmpq_mpoly, flint.fmpq_mpoly]:
        """Numerator and denominator, not necessarily without common factors.

        Raises:
            NotRational: for anything but sums, products and whole powers of the symbols.
        """
        if isinstance(expression, Rational):
            return self._context.constant(flint.fmpq(int(expression.p), int(expression.q))), self._one
        if isinstance(expression, Symbol):
            if expression not in self._generators:
                raise NotRational(f"{expression} is not one of {self.symbols}")
            return self._generators[expression], self._one
        if isinstance(expression, Add):
            top, bottom = self._context.constant(0), self._one
            for term in expression.args:
                a, b = self.fraction(term)
                top, bottom = (top + a, bottom) if b == bottom else (top * b + a * bottom, bottom * b)
            return top, bottom
        if isinstance(expression, Mul):
            top, bottom = self._one, self._one
            for factor in expression.args:
                a, b = self.fraction(factor)
                top, bottom = top * a, bottom * b
            return top, bottom
        if isinstance(expression, Pow) and expression.exp.is_Integer:
            n = int(expression.exp)
            if abs(n) > 64:
                raise NotRational(f"the power {n} is too large")
            a, b = self.fraction(expression.base)
            return (a**n, b**n) if n >= 0 else (b**-n, a**-n)
        raise NotRational(f"{expression} is not a rational function")

    def reduced(self, expression: Expr) -> Expr:
        """The rational function in lowest terms, numerator and denominator expanded.

        >>> x = Symbol("x")
        >>> Ring([x]).reduced((x**2 - 1) / (x - 1))
        x + 1

        Raises:
            ZeroDivisionError: if the denominator is identically 0.
        """
        top, bottom = self.fraction(expression)
        if bottom == 0:
            raise ZeroDivisionError("a denominator is identically 0")
        common = top.gcd(bottom)
        top, bottom = top / common, bottom / common
        if bottom.leading_coefficient() < 0:
            top, bottom = -top, -bottom
        return self._written(top) / self._written(bottom)

    def _written(self, polynomial: flint.fmpq_mpoly) -> Expr:
        terms = []
        for powers, weight in polynomial.to_dict().items():
            product = Mul(*[s ** int(n) for s, n in zip(self.symbols, powers, strict=False) if n])
            terms.append(Rational(int(weight.p), int(weight.q)) * product)
        return Add(*terms)

    def is_zero(self, expression: Expr) -> bool:
        """Whether a rational function is identically 0."""
        return self.fraction(expression)[0] == 0

    def annihilates(self, field: dict[Symbol, Expr], expression: Expr) -> bool:
        """Whether ``Σ ξᵢ ∂ᵢ`` applied to the rational function gives 0."""
        top, bottom = self.fraction(expression)
        total, under = self._context.constant(0), self._one
        for symbol, component in field.items():
            place = self.symbols.index(symbol)
            slope = top.derivative(place) * bottom - top * bottom.derivative(place)
            if slope != 0:
                a, b = self.fraction(component)
                total, under = (
                    (total + a * slope, under) if b == under else (total * b + a * slope * under, under * b)
                )
        return total == 0


def factored(expression: Expr) -> list[tuple[Expr, Expr]]:
    """The factors that contain symbols, with their powers; under roots too, where SymPy's `factor_list` gives up.

    >>> a = Symbol("a", positive=True)
    >>> factored(2 * a * (a + 1) ** 2 * (2 * a + 1) ** Rational(1, 2))
    [(a, 1), (a + 1, 2), (2*a + 1, 1/2)]
    """
    parts = [part.as_base_exp() for part in Mul.make_args(factor(expression))]
    return [(base, power) for base, power in parts if base.free_symbols]

"""Exact SymPy arithmetic that refuses what would take for ever: a text must not be able to ask for 10^10^10.

Every operation is judged *before* SymPy carries it out, by the measures of its operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import sympy
from sympy import Expr, Integer, Rational, S

from identkit.model.functions import select, sigmoid
from identkit.model.measure import Measure, exponential, measure

MAX_SIZE = 20_000
MAX_DEPTH = 100
MAX_BITS = 4096
MAX_DIGITS = 1000
MAX_STEPS = 200_000

UNARY: dict[str, Callable[[Expr], Expr]] = {
    "exp": sympy.exp,
    "log": sympy.log,
    "sqrt": sympy.sqrt,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tanh": sympy.tanh,
    "sigmoid": sigmoid,
    "abs": sympy.Abs,
    "relu": lambda u: sympy.Max(0, u),
}
SEVERAL: dict[str, Callable[..., Expr]] = {"min": sympy.Min, "max": sympy.Max}


class TooLargeError(ValueError):
    """An expression beyond the limits of this file."""

    def __init__(self) -> None:
        super().__init__(
            f"this is too large: a number may have at most {MAX_BITS:,} binary digits, "
            f"an expression with its powers multiplied out at most {MAX_SIZE:,} terms and digits"
        )


class Arithmetic:
    """The operations of one text, with a common allowance of steps.

    Raises (every method):
        ValueError: for division by zero, for what is not a real number, and beyond the limits.
    """

    def __init__(self) -> None:
        self._measures: dict[Expr, Measure] = {}
        self._steps = 0

    def spend(self, steps: float) -> None:
        """Count work that is about to be done."""
        self.foresee(steps)
        self._steps += steps

    def foresee(self, steps: float) -> None:
        """Refuse work of at least so many steps at once, if it cannot be afforded; the work counts itself."""
        if self._steps + steps > MAX_STEPS:
            raise ValueError(
                f"the model is too large: writing it out takes more than {MAX_STEPS:,} operations"
            )

    def add(self, terms: Sequence[Expr]) -> Expr:
        """The sum of the terms."""
        self._refuse_size(sum(self.measure(term).size for term in terms))
        numbers = all(isinstance(term, Rational) for term in terms)
        return self._kept(sum(terms, S.Zero) if numbers else sympy.Add(*terms))

    def multiply(self, factors: Sequence[Expr]) -> Expr:
        """The product of the factors."""
        self._refuse_size(sum(self.measure(factor).size for factor in factors))
        numbers = all(isinstance(factor, Rational) for factor in factors)
        return self._kept(math.prod(factors, start=S.One) if numbers else sympy.Mul(*factors))

    def negative(self, value: Expr) -> Expr:
        """Minus the value."""
        return self.multiply([S.NegativeOne, value])

    def reciprocal(self, value: Expr) -> Expr:
        """One over the value."""
        if value.is_zero:
            raise ValueError("this divides by zero")
        return self._kept(value**-1)

    def power(self, base: Expr, exponent: Expr) -> Expr:
        """The base to the exponent; the result should be real."""
        if base.is_zero and exponent.is_number and not exponent.is_nonnegative:
            raise ValueError("this divides by zero")
        self._refuse_size(self.measure(base).size * max(1.0, self.measure(exponent).reach))
        if exponent.free_symbols:
            # SymPy factors the exponents of such powers.
            self.spend(50 * (self.measure(base).size + self.measure(exponent).size))
        return self._real(base**exponent)

    def function(self, name: str, *arguments: Expr) -> Expr:
        """One of the functions of UNARY and SEVERAL."""
        if name == "sqrt":
            return self.power(arguments[0], Rational(1, 2))
        if name == "exp":
            self._refuse_size(exponential(arguments[0], self.measure(arguments[0])).size)
        if name in SEVERAL:
            # SymPy compares the arguments of Min and Max two by two.
            size = sum(self.measure(argument).size for argument in arguments)
            self.spend(100 * len(arguments) ** 2 + 20 * size)
            return self._real(SEVERAL[name](*arguments))
        if name == "relu":
            return self.function("max", S.Zero, *arguments)
        if name == "abs" and not arguments[0].is_real:
            # Whether sqrt(a) is real depends on a; SymPy would take real and imaginary parts of it.
            return self._kept(sympy.Abs(arguments[0], evaluate=False))
        return self._real(UNARY[name](*arguments))

    def select(self, state: Expr, choices: Sequence[Expr]) -> Expr:
        """The choice that a discrete state picks."""
        self._refuse_size(sum(self.measure(choice).size for choice in choices) + self.measure(state).size)
        return self._kept(select(state, *choices))

    def measure(self, expression: Expr) -> Measure:
        """The bounds of an expression, remembered."""
        return measure(expression, self._measures)

    def _kept(self, result: Expr) -> Expr:
        measure = self.measure(result)
        # A step is some ten microseconds of SymPy.
        self.spend(1 if isinstance(result, Rational) else 10 + len(result.args))
        if measure.size > MAX_SIZE or measure.bits > MAX_BITS:
            raise TooLargeError
        if measure.depth > MAX_DEPTH:
            raise ValueError(
                f"this is nested too deeply: more than {MAX_DEPTH} functions and powers one inside the other"
            )
        if result.is_number and not isinstance(result, Rational):
            return self._constant(result)
        return result

    def _real(self, result: Expr) -> Expr:
        result = self._kept(result)
        if not result.is_number and result.is_real is False:
            raise ValueError("this is not a real number")
        return result

    def _constant(self, value: Expr) -> Expr:
        # Later questions about signs look at digits; where 100 of them do not tell a constant from 0, SymPy
        # would go and search for its minimal polynomial.
        self.spend(5)
        if value.has(S.NaN, S.ComplexInfinity, S.Infinity, S.NegativeInfinity):
            raise ValueError("this is not a finite number")
        digits = value.evalf(15)
        if digits.is_real is False or digits.has(sympy.I):
            raise ValueError("this is not a real number")
        if digits == 0 or getattr(digits, "_prec", 2) == 1:
            if sympy.expand(value, log=True, force=True) == 0:
                return S.Zero
            raise ValueError(
                "this constant is too close to zero to tell whether it is zero; write 0 if it is"
            )
        return value

    def _refuse_size(self, size: float) -> None:
        if not size <= MAX_SIZE:
            raise TooLargeError


def number(text: str) -> Rational:
    """The exact number that a decimal such as 1.50 or 2e-3 stands for.

    >>> number("1.50"), number("2e-3")
    (3/2, 1/500)

    Raises:
        ValueError: beyond MAX_DIGITS digits, written out.
    """
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    shift = exponent.lstrip("+-").lstrip("0")
    if len(shift) > 6 or len(whole) + len(fraction) + int(shift or 0) > MAX_DIGITS:
        raise ValueError(f"a number may have at most {MAX_DIGITS:,} digits, written out")
    power = int(exponent or 0) - len(fraction)
    scale = Integer(10) ** abs(power)
    digits = Integer(int(whole + fraction or "0"))
    return Rational(digits, scale) if power < 0 else Rational(digits * scale)

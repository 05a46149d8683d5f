"""Rigorous evaluation in ball arithmetic (Arb, through python-flint): every answer carries its own error.

A ball that excludes 0 *proves* that the exact number is not 0; one that contains 0 proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import flint
from flint import arb, fmpq
from sympy import Expr, Rational, Symbol

from identkit.model.tape import Tape

PRECISIONS = (96, 384, 1536)
"""Working precisions in bits that `nonzero` tries in turn."""


class Balls:
    """The algebra of real balls, for `Tape.run`; works at the caller's ``flint.ctx.workprec``."""

    def constant(self, value: Rational) -> arb:
        """The rational as a ball."""
        return arb(fmpq(int(value.p), int(value.q)))

    def pi(self) -> arb:
        """π."""
        return arb.pi()

    def add(self, terms: Sequence[arb]) -> arb:
        """Their sum."""
        return reduce(lambda one, two: one + two, terms)

    def multiply(self, factors: Sequence[arb]) -> arb:
        """Their product."""
        return reduce(lambda one, two: one * two, factors)

    def power(self, base: arb, exponent: Rational) -> arb:
        """``base ** (p/q)``, by a q-th root of a non-negative base."""
        p, q = int(exponent.p), int(exponent.q)
        return _whole_power(base if q == 1 else base.root(q), p)

    def call(self, function: str, arguments: Sequence[arb]) -> arb:
        """An elementary function by its lower-case name."""
        if function in _BY_NAME:
            return getattr(arguments[0], _BY_NAME[function])()
        if function == "sigmoid":
            return 1 / (1 + (-arguments[0]).exp())
        if function == "heaviside":
            return (arguments[0].sgn() + 1) / 2
        if function == "step":
            # At the edge itself nothing is claimed: a jump there says nothing of the points around it.
            sign = arguments[0].sgn()
            return (sign + 1) / 2 if sign != 0 and sign.is_exact() else arb.nan()
        if function == "xlogy":
            factor, argument = arguments
            return arb(0) if factor == 0 else factor * argument.log()
        if function == "select":
            state = arguments[0].unique_fmpz()
            if state is None or not 1 <= int(state) < len(arguments):
                raise ValueError(
                    f"select's first argument should be in 1..{len(arguments) - 1}, got {arguments[0]}"
                )
            return arguments[int(state)]
        if function == "max":
            return reduce(lambda one, two: one.max(two), arguments)
        if function == "min":
            return reduce(lambda one, two: one.min(two), arguments)
        raise NotImplementedError(f"{function} has no ball arithmetic here")


_BY_NAME = {
    name: name for name in ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "gamma", "erf")
} | {"abs": "__abs__", "loggamma": "lgamma", "sign": "sgn"}


def _whole_power(base: arb, power: int) -> arb:
    # Arb's own power is NaN for an inexact ball around 0.
    if power < 0:
        return 1 / _whole_power(base, -power)
    result, square = arb(1), base
    while power:
        if power % 2:
            result *= square
        power //= 2
        if power:
            square = square * square
    return result


def to_ball(value: Any) -> arb:
    """An exact number as a ball: a SymPy rational, an int, a Fraction, or a float at its exact binary value."""
    if isinstance(value, arb):
        return value
    if isinstance(value, Rational | Fraction):
        p, q = (value.p, value.q) if isinstance(value, Rational) else (value.numerator, value.denominator)
        return arb(fmpq(int(p), int(q)))
    if isinstance(value, Expr):
        return Tape([value]).run({}, Balls())[0]
    return arb(value)


def run(tape: Tape, values: Mapping[Symbol, Any], precision: int = 128) -> list[arb]:
    """The tape's values as balls, computed with `precision` bits."""
    with flint.ctx.workprec(precision):
        return tape.run({symbol: to_ball(value) for symbol, value in values.items()}, Balls())


def ball(expression: Expr, values: Mapping[Symbol, Any], precision: int = 128) -> arb:
    """One expression's value as a ball."""
    return run(Tape([expression]), values, precision)[0]


def nonzero(expression: Expr, values: Mapping[Symbol, Any] | None = None) -> bool:
    """Whether the expression is *proved* not to be 0 at these exact values. False means "not proved".

    >>> import sympy
    >>> nonzero(sympy.exp(1) - sympy.Rational(27182818284590452353602874713526624977572, 10**40))
    True
    """
    try:
        tape = Tape([expression])
    except NotImplementedError:
        return False
    return any(excludes_zero(run_or_nan(tape, values or {}, precision)[0]) for precision in PRECISIONS)


def run_or_nan(tape: Tape, values: Mapping[Symbol, Any], precision: int) -> list[arb]:
    """As `run`, but an operation outside its domain, or a symbol without a value, gives NaN balls."""
    try:
        return run(tape, values, precision)
    except (ValueError, ZeroDivisionError, NotImplementedError, KeyError):
        return [arb.nan()] * len(tape)


def excludes_zero(value: arb) -> bool:
    """Whether a ball is finite and does not contain 0."""
    return bool(value.is_finite()) and 0 not in value

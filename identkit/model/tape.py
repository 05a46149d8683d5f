"""Expressions as straight-line programs, so that one walk over a SymPy graph serves every arithmetic.

A `Tape` is built once and run in torch (`compiled`), in balls (`balls`), or in any other `Algebra`; no code is
generated and nothing is evaluated as text. (`sympy.lambdify` prints ``Rational(1, 6)`` as the float 1/6.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import sympy
from sympy import Basic, Expr, Rational, Symbol


@runtime_checkable
class Algebra(Protocol):
    """The arithmetic that a tape runs in; `call` gets the lower-case name of a SymPy function."""

    def constant(self, value: Rational) -> Any: ...
    def pi(self) -> Any: ...
    def add(self, terms: Sequence[Any]) -> Any: ...
    def multiply(self, factors: Sequence[Any]) -> Any: ...
    def power(self, base: Any, exponent: Rational) -> Any: ...
    def call(self, function: str, arguments: Sequence[Any]) -> Any: ...


class Tape:
    """Common subexpressions are computed once; `run` returns one value per expression.

    >>> a = sympy.Symbol("a")
    >>> from identkit.model.balls import ball
    >>> float(ball(a**2 / 3, {a: Rational(3)}).mid())
    3.0
    """

    def __init__(self, expressions: Sequence[Expr]) -> None:
        self._instructions: list[tuple[str, Any, tuple[int, ...]]] = []
        self._places: dict[Basic, int] = {}
        self._outputs = [self._place(sympy.sympify(expression)) for expression in expressions]

    def __len__(self) -> int:
        return len(self._outputs)

    def run(self, values: Mapping[Symbol, Any], algebra: Algebra) -> list[Any]:
        """The expressions' values at `values`.

        Raises:
            KeyError: for a symbol without a value.
        """
        memory: list[Any] = []
        for kind, payload, operands in self._instructions:
            inputs = [memory[operand] for operand in operands]
            if kind == "symbol":
                memory.append(values[payload])
            elif kind == "constant":
                memory.append(algebra.constant(payload))
            elif kind == "add":
                memory.append(algebra.add(inputs))
            elif kind == "multiply":
                memory.append(algebra.multiply(inputs))
            elif kind == "power":
                memory.append(algebra.power(inputs[0], payload))
            elif kind == "pi":
                memory.append(algebra.pi())
            else:
                memory.append(algebra.call(payload, inputs))
        return [memory[output] for output in self._outputs]

    def _place(self, expression: Basic) -> int:
        if expression not in self._places:
            kind, payload, operands = _instruction(expression)
            places = tuple(self._place(operand) for operand in operands)
            self._instructions.append((kind, payload, places))
            self._places[expression] = len(self._instructions) - 1
        return self._places[expression]


def _instruction(expression: Basic) -> tuple[str, Any, Sequence[Basic]]:
    if isinstance(expression, Symbol):
        return "symbol", expression, ()
    if isinstance(expression, Rational):
        return "constant", expression, ()
    if isinstance(expression, sympy.Add):
        return "add", None, expression.args
    if isinstance(expression, sympy.Mul):
        return "multiply", None, expression.args
    if expression is sympy.pi:
        return "pi", None, ()
    if expression is sympy.E:
        return "call", "exp", (sympy.S.One,)
    if isinstance(expression, sympy.Pow):
        base, exponent = expression.args
        if isinstance(exponent, Rational):
            return "power", exponent, (base,)
        return "call", "exp", (sympy.Mul(exponent, sympy.log(base, evaluate=False), evaluate=False),)
    if isinstance(expression, sympy.Function | sympy.Max | sympy.Min):
        return "call", type(expression).__name__.lower(), expression.args
    raise NotImplementedError(f"{expression} ({type(expression).__name__}) is not part of the notation")

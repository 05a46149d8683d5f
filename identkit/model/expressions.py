"""The values of expressions: exact numbers, SymPy expressions, vectors and matrices of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from lark import Token
from sympy import Expr, Integer, S, Set, Symbol

from identkit.model.arithmetic import SEVERAL, UNARY, Arithmetic, number
from identkit.model.arrays import (
    Array,
    Value,
    broadcast,
    diagonal,
    dot,
    identity,
    matrix_product,
    stacked,
    transposed,
)
from identkit.model.families import FAMILIES
from identkit.model.syntax import LanguageError, suggestion

# A node is a lark tree whose children are trees and tokens; their types could only be told by casts.
Node = Any

_MATRICES = {"dot": dot, "transpose": transposed, "diag": diagonal, "eye": identity}
_MANY = {"dot": (2, 2), "select": (2, math.inf), **dict.fromkeys(("sum", *SEVERAL), (1, math.inf))}
FUNCTIONS = (*UNARY, *SEVERAL, "sum", "select", *_MATRICES)


class Evaluation(ABC):
    """Evaluates the expressions of one text; what a name means is left to those who know.

    The methods `_sum`, `_product`, … are named after the rules of language.lark.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.arithmetic = Arithmetic()

    def error(self, problem: str, place: Node) -> LanguageError:
        """The error with this problem at a place of the text."""
        at: Any = place if isinstance(place, Token) else place.meta
        return LanguageError(problem, self.text, at.line, at.column)

    def value(self, node: Node, expected: Set = S.Reals) -> Value:
        """The value of an expression; `expected` is the domain of its place, for undeclared names."""
        try:
            self.arithmetic.spend(3)
            return getattr(self, f"_{node.data}")(node, expected)
        except LanguageError:
            raise
        except ValueError as error:
            raise self.error(str(error), node) from None

    def scalar(self, node: Node) -> Expr:
        """The value of an expression that must be a single number."""
        value = self.value(node)
        if isinstance(value, Array):
            raise self.error(f"expected a single number here, but this has {value.words}", node)
        return value

    def spend(self, node: Node, steps: float) -> None:
        """Count work that is about to be done for a node."""
        try:
            self.arithmetic.spend(steps)
        except ValueError as error:
            raise self.error(str(error), node) from None

    @abstractmethod
    def _name(self, node: Node, expected: Set) -> Value:
        """The value of a name."""

    @abstractmethod
    def _states(self, index: Expr, node: Node) -> int:
        """The highest value of an index that is not a constant; all its values are in 1..highest."""

    def _number(self, node: Node, expected: Set) -> Expr:
        return number(text_of(node))

    def _list(self, node: Node, expected: Set) -> Value:
        return stacked([self.value(entry, expected) for entry in node.children])

    def _sign(self, node: Node, expected: Set) -> Value:
        sign, inside = node.children
        return self._signed(sign, self.value(inside))

    def _sum(self, node: Node, expected: Set) -> Value:
        first, *rest = node.children
        terms = [self.value(first)]
        terms += [
            self._signed(sign, self.value(term)) for sign, term in zip(rest[::2], rest[1::2], strict=True)
        ]
        return self._each(lambda *parts: self.arithmetic.add(parts), *terms)

    def _signed(self, sign: str, value: Value) -> Value:
        return value if sign == "+" else self._each(self.arithmetic.negative, value)

    def _product(self, node: Node, expected: Set) -> Value:
        # Factors are gathered, signs too, not multiplied two by two: SymPy turns 2*(a + b) into 2*a + 2*b but
        # leaves 2*x*(a + b) as it is, and the order of the factors should not matter.
        first, *rest = node.children
        factors = self._factors(first)
        for sign, factor in zip(rest[::2], rest[1::2], strict=True):
            if sign == "@":
                factors = [self._matrix_product(self._multiplied(factors), first, self.value(factor), factor)]
            elif sign == "*":
                factors += self._factors(factor)
            else:
                factors.append(self._reciprocal(self.value(factor), factor))
        return self._multiplied(factors)

    def _factors(self, node: Node) -> list[Value]:
        if node.data == "sign" and node.children[0] == "-":
            return [S.NegativeOne, self.value(node.children[1])]
        return [self.value(node)]

    def _multiplied(self, factors: list[Value]) -> Value:
        if len(factors) == 1:
            return factors[0]
        return self._each(lambda *parts: self.arithmetic.multiply(parts), *factors)

    def _reciprocal(self, value: Value, node: Node) -> Value:
        try:
            return self._each(self.arithmetic.reciprocal, value)
        except ValueError as error:
            raise self.error(str(error), node) from None

    def _matrix_product(self, left: Value, first: Node, right: Value, second: Node) -> Value:
        if isinstance(left, Array) and isinstance(right, Array):
            return matrix_product(self.arithmetic, left, right)
        value, place = (right, second) if isinstance(left, Array) else (left, first)
        hint = f"; declare it first, as in parameter {value}[3, 2]" if isinstance(value, Symbol) else ""
        raise self.error(f"@ takes vectors and matrices, but {shown(value)} is a single number{hint}", place)

    def _power(self, node: Node, expected: Set) -> Value:
        base, exponent = node.children
        return self._each(self.arithmetic.power, self.value(base), self.value(exponent))

    def _each(self, operation: Any, *values: Value) -> Value:
        return broadcast(self.arithmetic, operation, values)

    def _element(self, node: Node, expected: Set) -> Value:
        whole, *places = node.children
        value = self.value(whole)
        if not isinstance(value, Array):
            raise self.error(f"{shown(value)} is a single number and has no elements", node)
        return self._picked(value, [self.scalar(place) for place in places], places)

    def _picked(self, value: Array, indices: list[Expr], places: list[Node]) -> Value:
        if len(indices) > len(value.shape):
            raise self.error(f"too many indices: this has {value.words}", places[len(value.shape)])
        for axis, (index, length) in enumerate(zip(indices, value.shape, strict=False)):
            highest = int(index) if isinstance(index, Integer) else self._states(index, places[axis])
            if not 1 <= highest <= length:
                so_far = (
                    f"{shown(index)} goes up to {highest}"
                    if index.free_symbols
                    else f"index {shown(index)} is out of range"
                )
                raise self.error(f"{so_far}, but the indices here are 1..{length}", places[axis])
            if not isinstance(index, Integer):
                choices = [
                    self._picked(value, instead(indices, axis, i), places) for i in range(1, highest + 1)
                ]
                return self._chosen(index, choices)
        return value.at([int(index) for index in indices])

    def _chosen(self, state: Expr, choices: list[Value]) -> Value:
        return self._each(lambda *parts: self.arithmetic.select(state, parts), *choices)

    def _call(self, node: Node, expected: Set) -> Value:
        token, *arguments = node.children
        name = str(token)
        if name in FAMILIES:
            raise self.error(f"{name} is a family: it stands after ~, as in z ~ {name}(…)", token)
        if name not in FUNCTIONS:
            hint = suggestion(name, [*FUNCTIONS, *FAMILIES])
            known = f"did you mean {hint}?" if hint else f"the functions are {' '.join(FUNCTIONS)}"
            raise self.error(f"unknown function {name}; {known}", token)
        least, most = _MANY.get(name, (1, 1))
        if not least <= len(arguments) <= most:
            wanted = f"{least} argument{'s' * (least > 1)}{' or more' * (most > least)}"
            raise self.error(f"{name} takes {wanted}, got {len(arguments)}", node)
        values = [self.value(argument) for argument in arguments]
        if name in UNARY:
            return self._each(lambda u: self.arithmetic.function(name, u), *values)
        if name in _MATRICES:
            return _MATRICES[name](self.arithmetic, *values)
        if name == "select":
            state, *choices = values
            if isinstance(state, Array):
                raise self.error("select's first argument should be a single number", arguments[0])
            several = len(choices) > 1 or not isinstance(choices[0], Array)
            return self._picked(stacked(choices) if several else choices[0], [state], arguments)  # type: ignore[arg-type]
        flat = [
            entry for value in values for entry in (value.entries if isinstance(value, Array) else [value])
        ]
        return self.arithmetic.add(flat) if name == "sum" else self.arithmetic.function(name, *flat)


class Constants(Evaluation):
    """Evaluates what may mention no name: the values of ``--at`` and ``--data``."""

    def assignment(self, node: Node) -> tuple[str, Any]:
        """Key and value of ``w[2] = 1/3``; lists become nested Python lists."""
        target, expression = node.children
        name, *places = target.children
        indices = [self.scalar(place) for place in places]
        for index, place in zip(indices, places, strict=True):
            if not isinstance(index, Integer) or index < 1:
                raise self.error(f"an index should be a whole number from 1 on, got {shown(index)}", place)
        value = self.value(expression)
        return element_name(str(name), indices), value.nested() if isinstance(value, Array) else value

    def _name(self, node: Node, expected: Set) -> Value:
        raise self.error(f"a constant may not mention names, but this mentions {text_of(node)}", node)

    def _states(self, index: Expr, node: Node) -> int:
        raise self.error(f"an index should be a whole number, got {shown(index)}", node)


def element_name(name: str, index: Any) -> str:
    """The name of an element, or the name itself where there is no index.

    >>> element_name("W", (1, 2)), element_name("w", ())
    ('W[1,2]', 'w')
    """
    return f"{name}[{','.join(map(str, index))}]" if index else name


def instead(indices: list[Expr], axis: int, value: int) -> list[Expr]:
    """The indices with one of them replaced."""
    return [*indices[:axis], Integer(value), *indices[axis + 1 :]]


def text_of(node: Node) -> str:
    """The text of a number or a name."""
    return str(node.children[0])


def shown(value: Any) -> str:
    """A value for an error message, cut to a readable length."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

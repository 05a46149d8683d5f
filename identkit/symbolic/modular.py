"""Expressions and their derivatives at random points of a large prime field: exact, fast, never expanded.

Forward-mode differentiation of the graph; kernels (exponentials, logarithms, roots, |·|) are independent field
elements with the derivative that calculus gives them. By Ax's theorem the kernels that `field.Kernels` makes *are*
independent, numeric constants apart, so a rank found here is the generic rank but for bad luck with the point.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import sympy
from sympy import Expr, Rational, Symbol
from sympy.ntheory import sqrt_mod

from identkit.model.tape import Tape
from identkit.symbolic.field import UNIT, Kernels, powers_opened, root_orders

PRIMES = (2305843009213693613, 2305843009213693373, 2305843009213693277, 2305843009213693193)
"""Primes below 2⁶¹ with −1 a square and unique cube, fifth and seventh roots."""
_ATTEMPTS = 400


class Unsupported(ValueError):
    """The expressions hold something that has no image in a prime field."""


class _NoRoot(ArithmeticError):
    """This point has no root or inverse where one is needed; another point may have."""


@dataclass(frozen=True)
class Dual:
    """A field element and its derivatives by the unknowns, by position."""

    value: int
    slopes: Mapping[int, int]


def _tape(expressions: Sequence[Expr]) -> Tape:
    try:
        return Tape(expressions)
    except NotImplementedError as reason:
        raise Unsupported(str(reason)) from reason


class Evaluator:
    """κ and its Jacobian at points of a prime field.

    >>> u, v = sympy.symbols("u v", real=True)
    >>> e = Evaluator([u * v, sympy.exp(u)], [u, v])
    >>> values, jacobian = e.at(e.draw(random.Random(0)))
    >>> len(values), len(jacobian), len(jacobian[0])
    (2, 2, 2)
    """

    def __init__(
        self,
        expressions: Sequence[Expr],
        unknowns: Sequence[Symbol],
        constraints: Sequence[Expr] = (),
        prime: int = PRIMES[0],
    ) -> None:
        self.prime = prime
        self.unknowns = tuple(unknowns)
        self._places = {unknown: place for place, unknown in enumerate(self.unknowns)}
        self._solved = {s: _tape([e]) for s, e in _solve_constraints(constraints, unknowns).items()}
        kernels = Kernels()
        written = [kernels.rational(expression) for expression in [*expressions, *constraints]]
        self._contents = kernels.contents()
        inner = [part for _, _, content in self._contents for part in _parts(content)]
        self._roots = root_orders([*written, *inner])
        self._tape = _tape([powers_opened(expression, self._roots) for expression in written])
        self._inner = {
            dummy: [_tape([powers_opened(part, self._roots)]) for part in _parts(content)]
            for dummy, _, content in self._contents
        }
        dummies = {dummy for dummy, _, _ in self._contents} | {UNIT}
        symbols = {s for e in [*written, *inner] for s in e.free_symbols} - dummies
        self._symbols = sorted(symbols | set(unknowns), key=str)  # type: ignore[type-var]
        self._algebra = _Duals(prime)
        self._unit = int(sqrt_mod(-1, prime))
        self.bare = {s for e in written for s in e.free_symbols} - dummies
        """the symbols that occur outside kernels; the others are no algebraic functions of the expressions"""
        self.opaque = any(kind not in ("exp", "log", "abs", "positive") for _, kind, _ in self._contents)
        """whether some function is treated as unknown, so that ranks are upper bounds only"""
        self.constants = any(
            kind in ("exp", "log") and not kernels.depends_on(dummy) for dummy, kind, _ in self._contents
        )
        """whether numeric constants such as e or log 2 occur, whose independence is unproved"""

    def draw(self, chance: random.Random) -> dict[Symbol, Dual]:
        """A random point: a dual number for every symbol and kernel.

        Raises:
            Unsupported: if no point with the roots that are needed was found.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(chance)
            except _NoRoot:
                continue
        raise Unsupported("no point of the prime field was found that has all the roots needed")

    def values(self, point: Mapping[Symbol, Dual]) -> list[int]:
        """The expressions' values alone, which is cheaper."""
        flat = {symbol: Dual(dual.value, {}) for symbol, dual in point.items()}
        return [d.value for d in self._tape.run(flat, self._algebra)]

    def at(self, point: Mapping[Symbol, Dual]) -> tuple[list[int], list[list[int]]]:
        """Values, and the Jacobian with one row an expression (constraints last) and one column an unknown."""
        duals = self._tape.run(point, self._algebra)
        rows = []
        for dual in duals:
            row = [0] * len(self.unknowns)
            for column, slope in dual.slopes.items():
                row[column] = slope
            rows.append(row)
        return [d.value for d in duals], rows

    def point_at(self, values: Mapping[Symbol, int], chance: random.Random) -> dict[Symbol, Dual]:
        """The point with these field elements for the symbols, kernels being random as in `draw`."""
        return self._complete(dict(values), chance)

    def _attempt(self, chance: random.Random) -> dict[Symbol, Dual]:
        values: dict[Symbol, int] = {}
        for symbol in self._symbols:
            if symbol not in self._solved:
                values[symbol] = chance.randrange(1, self.prime)
                if symbol in self._roots:
                    values[symbol] = pow(values[symbol], self._roots[symbol][0], self.prime)
        for symbol, tape in self._solved.items():
            point = {s: Dual(value, {}) for s, value in values.items()}
            values[symbol] = tape.run(point, self._algebra)[0].value
        return self._complete(values, chance)

    def _complete(self, values: Mapping[Symbol, int], chance: random.Random) -> dict[Symbol, Dual]:
        point: dict[Symbol, Dual] = {UNIT: Dual(self._unit, {})}
        for symbol in self._symbols:
            place = self._places.get(symbol)
            self._put(point, symbol, Dual(values[symbol], {} if place is None else {place: 1}))
        for dummy, kind, _ in self._contents:
            self._put(point, dummy, self._kernel(dummy, kind, point, chance))
        return point

    def _kernel(self, dummy: Symbol, kind: str, point: Mapping[Symbol, Dual], chance: random.Random) -> Dual:
        inner = [tape.run(point, self._algebra)[0] for tape in self._inner[dummy]]
        p = self.prime
        free = chance.randrange(1, p)
        if kind == "exp":
            if dummy in self._roots:
                free = pow(free, self._roots[dummy][0], p)
            return Dual(free, {i: free * slope % p for i, slope in inner[0].slopes.items()})
        if kind == "log":
            inverse = self._algebra.inverse(inner[0].value)
            return Dual(free, {i: inverse * slope % p for i, slope in inner[0].slopes.items()})
        if kind in ("abs", "positive"):
            sign = chance.choice((1, -1)) if kind == "abs" else 1
            return Dual(
                sign * inner[0].value % p, {i: sign * slope % p for i, slope in inner[0].slopes.items()}
            )
        total: dict[int, int] = {}
        for argument in inner:
            weight = chance.randrange(1, p)
            for i, slope in argument.slopes.items():
                total[i] = (total.get(i, 0) + weight * slope) % p
        return Dual(free, total)

    def _put(self, point: dict[Symbol, Dual], symbol: Symbol, value: Dual) -> None:
        point[symbol] = value
        if symbol in self._roots:
            order, root = self._roots[symbol]
            foot = self._algebra.root(value.value, order)
            # d(s^(1/D)) = s^(1/D) ds / (D s)
            scale = foot * self._algebra.inverse(order * value.value) % self.prime
            point[root] = Dual(foot, {i: scale * slope % self.prime for i, slope in value.slopes.items()})


class _Duals:
    """The algebra of dual numbers over a prime field, for `Tape.run`."""

    def __init__(self, prime: int) -> None:
        self._p = prime

    def constant(self, value: Rational) -> Dual:
        return Dual(int(value.p) * self.inverse(int(value.q)) % self._p, {})

    def pi(self) -> Dual:
        raise Unsupported("pi is not an element of a prime field")

    def add(self, terms: Sequence[Dual]) -> Dual:
        total, slopes = 0, dict[int, int]()
        for term in terms:
            total += term.value
            for i, slope in term.slopes.items():
                slopes[i] = (slopes.get(i, 0) + slope) % self._p
        return Dual(total % self._p, slopes)

    def multiply(self, factors: Sequence[Dual]) -> Dual:
        result = factors[0]
        for factor in factors[1:]:
            slopes = {i: slope * factor.value % self._p for i, slope in result.slopes.items()}
            for i, slope in factor.slopes.items():
                slopes[i] = (slopes.get(i, 0) + slope * result.value) % self._p
            result = Dual(result.value * factor.value % self._p, slopes)
        return result

    def power(self, base: Dual, exponent: Rational) -> Dual:
        if exponent.q != 1:
            raise Unsupported(f"a power {exponent} was not opened")
        n = int(exponent)
        foot = base.value if n > 0 else self.inverse(base.value)
        value = pow(foot, abs(n), self._p)
        if not base.slopes:
            return Dual(value, {})
        scale = n * (pow(foot, n - 1, self._p) if n > 0 else value * foot) % self._p
        return Dual(value, {i: scale * slope % self._p for i, slope in base.slopes.items()})

    def call(self, function: str, arguments: Sequence[Any]) -> Dual:
        raise Unsupported(f"{function} has no image in a prime field")

    def inverse(self, value: int) -> int:
        if value % self._p == 0:
            raise _NoRoot("division by zero")
        return pow(value, -1, self._p)

    def root(self, value: int, order: int) -> int:
        """One root of the given order: square roots by Tonelli and Shanks, odd ones by the inverse exponent."""
        while order % 2 == 0:
            found = sqrt_mod(value, self._p)
            if found is None:
                raise _NoRoot("not a square")
            value, order = int(found), order // 2
        if order == 1:
            return value
        if gcd(order, self._p - 1) != 1:
            raise Unsupported(f"roots of order {order} are not unique in the prime field")
        return pow(value, pow(order, -1, self._p - 1), self._p)


def _parts(content: sympy.Basic) -> Sequence[Expr]:
    return content.args if isinstance(content, sympy.Tuple) else (content,)


def _solve_constraints(constraints: Sequence[Expr], unknowns: Sequence[Symbol]) -> dict[Symbol, Expr]:
    """For each constraint an unknown that enters it linearly, and its value; later ones may use earlier ones."""
    solved: dict[Symbol, Expr] = {}
    for constraint in constraints:
        left = constraint.subs(list(solved.items()))
        for unknown in sorted(unknowns, key=lambda s: (sympy.count_ops(left.diff(s)), str(s))):
            slope = left.diff(unknown)
            if unknown not in solved and slope != 0 and not slope.has(unknown):
                value = sympy.together(-left.subs(unknown, 0) / slope)
                solved = {s: e.subs(unknown, value) for s, e in solved.items()} | {unknown: value}
                break
        else:
            raise Unsupported(f"the constraint {constraint} = 0 is linear in none of its unknowns")
    return solved

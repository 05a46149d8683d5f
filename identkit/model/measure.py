"""Bounds on an expression that can be read off its parts: how large it is, and how large it could become."""

from __future__ import annotations

import math
from typing import NamedTuple

import sympy
from sympy import Expr, Rational

from identkit.model.functions import sigmoid

_BOUNDED = (sympy.sin, sympy.cos, sympy.tanh, sigmoid)


class Measure(NamedTuple):
    """What is known of one expression.

    `size` counts its leaves and the binary digits of its numbers, with all powers multiplied out: x^1000 and
    2^1000 have size 1000 or so. It bounds memory, printing and substitution alike.
    """

    size: float
    reach: float
    """A bound on its value where all symbols are ±1: what it can do to a number as an exponent."""
    inverse: float
    """The same for one over it, as far as its numbers are concerned."""
    depth: int
    bits: int
    """The binary digits of the longest numerator or denominator in it."""


def measure(expression: Expr, known: dict[Expr, Measure]) -> Measure:
    """The measure of an expression; `known` remembers those of its parts."""
    found = known.get(expression)
    if found is None:
        parts = [measure(part, known) for part in expression.args]  # type: ignore[arg-type]
        found = known[expression] = _combined(expression, parts) if parts else _leaf(expression)
    return found


def exponential(exponent: Expr, of: Measure) -> Measure:
    """The measure of ``exp(exponent)``, before it is evaluated.

    exp(c log a) is a^c, and a constant exponential is a number: both have as many digits as that takes.
    """
    grows = of.reach / math.log(2) if exponent.is_number or exponent.has(sympy.log) else 0
    reach = _raised(math.e, of.reach)
    return Measure(1 + of.size + grows, reach, reach, 1 + of.depth, of.bits)


def _leaf(e: Expr) -> Measure:
    if isinstance(e, Rational):
        p, q = abs(e.p), e.q
        bits = max(p.bit_length(), q.bit_length())
        return Measure(max(1, p.bit_length() + q.bit_length() - 1), _ratio(p, q), _ratio(q, p), 0, bits)
    return Measure(2, 4, 1, 0, 1) if e.is_number else Measure(1, 1, 1, 0, 1)


def _combined(e: Expr, parts: list[Measure]) -> Measure:
    depth, bits = 1 + max(part.depth for part in parts), max(part.bits for part in parts)
    size = sum(part.size for part in parts)
    inverse = 2.0 ** min(bits, 1000) if bits > 1 else 1.0
    if isinstance(e, sympy.exp):
        return exponential(e.args[0], parts[0])
    if isinstance(e, sympy.Pow):
        base, exponent = parts
        up, down = _raised(base.reach, exponent.reach), _raised(base.inverse, exponent.reach)
        reach, inverse = (
            (up, down) if e.exp.is_positive else (down, up) if e.exp.is_negative else (max(up, down),) * 2
        )
        return Measure(base.size * max(1.0, exponent.reach) + exponent.size - 1, reach, inverse, depth, bits)
    if isinstance(e, sympy.Mul):
        product = math.prod(part.reach for part in parts)
        return Measure(size, product, math.prod(part.inverse for part in parts), depth, bits)
    if isinstance(e, sympy.log):
        return Measure(1 + size, 1 + size, inverse, depth, bits)
    if isinstance(e, _BOUNDED):
        return Measure(1 + size, 1, inverse, depth, bits)
    return Measure(
        size + (not isinstance(e, sympy.Add)), sum(part.reach for part in parts), inverse, depth, bits
    )


def _raised(base: float, exponent: float) -> float:
    try:
        return float(max(1.0, base) ** exponent)
    except OverflowError:
        return math.inf


def _ratio(above: int, below: int) -> float:
    try:
        return above / below if below else math.inf
    except OverflowError:
        return math.inf

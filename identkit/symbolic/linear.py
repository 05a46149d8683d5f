"""Linear algebra over a prime field, and rational numbers recovered from it."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import flint
from sympy import Rational


def nullspace(rows: Sequence[Sequence[int]], width: int, prime: int) -> list[list[int]]:
    """A basis of the right null space, one vector a free column of the reduced echelon form."""
    if not rows:
        return [[int(i == j) for j in range(width)] for i in range(width)]
    flat = [entry % prime for row in rows for entry in row]
    reduced, rank = flint.nmod_mat(len(rows), width, flat, prime).rref()
    pivots, column = [], 0
    for i in range(rank):
        while int(reduced[i, column]) == 0:
            column += 1
        pivots.append(column)
    taken = set(pivots)
    basis = []
    for free in (j for j in range(width) if j not in taken):
        vector = [0] * width
        vector[free] = 1
        for i, pivot in enumerate(pivots):
            vector[pivot] = -int(reduced[i, free]) % prime
        basis.append(vector)
    return basis


def rational(value: int, prime: int) -> Rational | None:
    """The fraction a/b with small a and b that is `value` modulo the prime, or None (Wang's reconstruction).

    >>> rational(pow(3, -1, 101) * 2 % 101, 101)
    2/3
    """
    bound = isqrt(prime // 2)
    before, after = (prime, 0), (value % prime, 1)
    while after[0] > bound:
        quotient = before[0] // after[0]
        before, after = after, (before[0] - quotient * after[0], before[1] - quotient * after[1])
    if after[1] == 0 or abs(after[1]) > bound:
        return None
    return Rational(after[0], after[1])


def rationals(vector: Sequence[int], prime: int, largest: int = 10**6) -> list[Rational] | None:
    """The vector over the rationals; None if an entry has no fraction with numbers up to `largest`."""
    found = []
    for entry in vector:
        number = rational(entry, prime)
        if number is None or abs(number.p) > largest or number.q > largest:
            return None
        found.append(number)
    return found

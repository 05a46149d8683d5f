"""Vectors and matrices of the text notation: `@` as in linear algebra, all else element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import sympy
from sympy import Expr, S

from identkit.model.arithmetic import Arithmetic


@final
@dataclass(frozen=True)
class Array:
    """A vector (`shape` of one length) or a matrix (two), its entries row by row."""

    shape: tuple[int, ...]
    entries: tuple[Expr, ...]

    @property
    def words(self) -> str:
        """What it is, for an error message."""
        if len(self.shape) == 1:
            return (
                f"{self.shape[0]} elements" if self.shape[0] > 1 else "the shape of a vector with 1 element"
            )
        return f"{self.shape[0]} × {self.shape[1]} elements"

    def at(self, index: Sequence[int]) -> Value:
        """The entry at a one-based index, or the row."""
        if len(index) == len(self.shape):
            place = index[0] - 1 if len(index) == 1 else (index[0] - 1) * self.shape[1] + index[1] - 1
            return self.entries[place]
        return self.rows[index[0] - 1]

    @property
    def rows(self) -> list[Array]:
        """The rows of a matrix."""
        width = self.shape[1]
        return [
            Array((width,), self.entries[start : start + width])
            for start in range(0, len(self.entries), width)
        ]

    def matrix(self) -> sympy.ImmutableMatrix:
        """As SymPy has it, a vector as one column."""
        return sympy.ImmutableMatrix(self.shape[0], math.prod(self.shape[1:]), self.entries)

    def nested(self) -> list[Any]:
        """As nested Python lists."""
        if len(self.shape) == 1:
            return list(self.entries)
        return [list(row.entries) for row in self.rows]


Value = Expr | Array


def broadcast(arithmetic: Arithmetic, operation: Callable[..., Expr], values: Sequence[Value]) -> Value:
    """The operation element by element; single numbers are repeated.

    Raises:
        ValueError: for arrays of different shapes.
    """
    arrays = [value for value in values if isinstance(value, Array)]
    if not arrays:
        return operation(*values)
    shape = arrays[0].shape
    for other in arrays:
        if other.shape != shape:
            raise ValueError(
                f"these do not fit together element by element: {arrays[0].words} and {other.words}"
            )
    count = math.prod(shape)
    arithmetic.spend(count)
    columns = [value.entries if isinstance(value, Array) else (value,) * count for value in values]
    return Array(shape, tuple(operation(*parts) for parts in zip(*columns, strict=True)))


def stacked(values: Sequence[Value]) -> Array:
    """The vector of numbers, or the matrix of rows.

    Raises:
        ValueError: for an empty list, and for rows of different lengths.
    """
    if not values:
        raise ValueError("a list should have at least one element")
    rows = [value for value in values if isinstance(value, Array)]
    if not rows:
        return Array((len(values),), tuple(values))  # type: ignore[arg-type]
    if len(rows) < len(values) or any(row.shape != rows[0].shape for row in rows):
        raise ValueError("the rows of a matrix should all have the same number of elements")
    if len(rows[0].shape) > 1:
        raise ValueError("lists may be nested two deep at most: a matrix is a list of rows")
    return Array((len(rows), *rows[0].shape), tuple(entry for row in rows for entry in row.entries))


def dot(arithmetic: Arithmetic, left: Value, right: Value) -> Value:
    """The inner product of two vectors."""
    if not isinstance(left, Array) or not isinstance(right, Array) or len(left.shape) + len(right.shape) > 2:
        raise ValueError("dot takes two vectors")
    return matrix_product(arithmetic, left, right)


def matrix_product(arithmetic: Arithmetic, left: Array, right: Array) -> Value:
    """``left @ right`` of vectors and matrices.

    Raises:
        ValueError: where the inner lengths differ.
    """
    if left.shape[-1] != right.shape[0]:
        raise ValueError(f"@ needs equal inner lengths, got {left.words} and {right.words}")
    rows, inner = (math.prod(left.shape[:-1]), right.shape[0])
    columns = math.prod(right.shape[1:])
    arithmetic.foresee(20 * rows * inner * columns)
    entries = []
    for row in range(rows):
        for column in range(columns):
            pairs = zip(
                left.entries[row * inner : (row + 1) * inner], right.entries[column::columns], strict=True
            )
            entries.append(arithmetic.add([arithmetic.multiply(pair) for pair in pairs]))
    shape = (*left.shape[:-1], *right.shape[1:])
    return Array(shape, tuple(entries)) if shape else entries[0]


def transposed(arithmetic: Arithmetic, value: Value) -> Array:
    """The matrix with rows and columns exchanged."""
    if not isinstance(value, Array) or len(value.shape) != 2:
        raise ValueError("transpose takes a matrix")
    rows, columns = value.shape
    arithmetic.spend(rows * columns)
    return Array(
        (columns, rows), tuple(entry for column in range(columns) for entry in value.entries[column::columns])
    )


def diagonal(arithmetic: Arithmetic, value: Value) -> Array:
    """The matrix with this vector on its diagonal."""
    if not isinstance(value, Array) or len(value.shape) != 1:
        raise ValueError("diag takes a vector")
    size = value.shape[0]
    arithmetic.spend(size**2)
    entries = [S.Zero] * size**2
    entries[:: size + 1] = value.entries
    return Array((size, size), tuple(entries))


def identity(arithmetic: Arithmetic, value: Value) -> Array:
    """The identity matrix of this size."""
    size = 0 if isinstance(value, Array) or not value.is_Integer else int(value)
    if size < 1:
        raise ValueError("eye takes a whole number from 1 on")
    arithmetic.spend(size**2)
    return diagonal(arithmetic, Array((size,), (S.One,) * size))

"""Elements of vectors and matrices: their shape and names, the entries of a value, and what SymPy may assume of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sympy
from sympy import S, Set


def element_names(name: str, shape: Sequence[int]) -> list[str]:
    """The one-based names of a vector's or matrix's elements, last index fastest.

    >>> element_names("W", (2, 2))
    ['W[1,1]', 'W[1,2]', 'W[2,1]', 'W[2,2]']
    """
    names = [""]
    for length in shape:
        names = [
            f"{prefix},{index}" if prefix else str(index)
            for prefix in names
            for index in range(1, length + 1)
        ]
    return [f"{name}[{index}]" for index in names]


def shape_of(shape: Any) -> tuple[int, ...]:
    """The lengths of a vector or of a matrix.

    Raises:
        ValueError: for anything but one or two positive whole numbers.
    """
    dimensions = (shape,) if isinstance(shape, int) else tuple(shape)
    if not 1 <= len(dimensions) <= 2 or any(not isinstance(d, int) or d < 1 for d in dimensions):
        raise ValueError(f"shape should be one or two positive whole numbers, got {shape}")
    return dimensions


@cache
def assumed(domain: Set) -> dict[str, bool]:
    """What SymPy may take for granted about a symbol; only facts that hold for every point of the domain."""
    facts: dict[str, bool] = {"real": True}
    if domain.is_subset(S.Integers):
        facts = {"integer": True}
    low, high = domain.inf, domain.sup
    if low >= 0:
        facts["positive" if domain.contains(S.Zero) == sympy.false else "nonnegative"] = True
    elif high <= 0:
        facts["negative" if domain.contains(S.Zero) == sympy.false else "nonpositive"] = True
    elif domain.contains(S.Zero) == sympy.false:
        facts["zero"] = False
    return facts


def leaves(value: Any) -> list[Any]:
    """The entries of nested lists, arrays and matrices, in order; of a scalar itself."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple | sympy.MatrixBase):
        return [leaf for entry in value for leaf in leaves(entry)]
    return [value]

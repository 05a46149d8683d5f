"""Sums as a reader writes them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction


def signed_sum(terms: Iterable[tuple[float | Fraction, str]]) -> str:
    """Terms joined by the signs of their weights, each written without its own.

    >>> signed_sum([(-1, "a"), (2, "2*b"), (-3, "3*c")])
    '-a + 2*b - 3*c'
    """
    text = " ".join(f"{'-' if weight < 0 else '+'} {term}" for weight, term in terms)
    return text[2:] if text.startswith("+ ") else text.replace("- ", "-", 1)

"""What a certificate is made of: one provable sentence about a model's law, and the points it may be about."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from sympy import Expr, Rational, Symbol

from identkit.model.model import Model
from identkit.verdict import Level

Point = Mapping[Symbol, Rational]


class Claim(ABC):
    """One provable sentence about a model's law."""

    @abstractmethod
    def holds(self, model: Model) -> bool:
        """Whether the claim is true of the model, re-derived from scratch."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """The claim in words."""

    @property
    @abstractmethod
    def supports(self) -> dict[str, tuple[Level, ...]]:
        """The levels, by unknown, for which this claim is evidence."""


def spelled(point: Mapping[Symbol, Expr]) -> str:
    """``z = 1, w = 2``."""
    return ", ".join(f"{symbol.name} = {value}" for symbol, value in point.items())

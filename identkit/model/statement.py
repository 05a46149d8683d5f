"""What a model is made of: statements ``symbols ~ family``, conditions that must hold, constraints that are promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy
from sympy import Expr, Set, Symbol

from identkit.model.families import DOMAIN_WORDS, POSITIVE, Family, MvNormal


@dataclass(frozen=True)
class Statement:
    """``symbols ~ family``: one scalar draw, or the coordinates of one multivariate draw."""

    symbols: tuple[Symbol, ...]
    family: Family

    def log_density(self) -> Expr:
        """``log p(symbols)`` in nats."""
        return self.family.log_density(*self.symbols)


@dataclass(frozen=True)
class Condition:
    """Something that must hold for the model to make sense: `expression` lies in `domain`."""

    expression: Expr
    domain: Set
    role: str

    def __str__(self) -> str:
        bounds = {POSITIVE: f"{self.expression} > 0"}
        return (
            bounds.get(self.domain, f"{self.expression} is {DOMAIN_WORDS.get(self.domain, self.domain)}")
            + f" ({self.role})"
        )


@dataclass(frozen=True)
class Constraint:
    """``expression = 0`` or ``expression > 0``: what the parameters are promised to satisfy."""

    expression: Expr
    relation: str

    def __str__(self) -> str:
        return f"{self.expression} {self.relation}"


RELATIONS = ("= 0", "> 0")


def can_hold(constraint: Constraint) -> bool | None:
    """True if it always holds, False if it never does, None if that depends on the symbols or was not decided."""
    expression = constraint.expression
    if constraint.relation == "> 0":
        return expression.is_positive
    zero = expression.is_zero
    return expression.equals(0) if zero is None and not expression.free_symbols else zero


def marginal(statement: Statement, keep: Sequence[bool]) -> Statement | None:
    """What is left of a statement when the coordinates with ``keep`` False are not observed; None if nothing is.

    Raises:
        ValueError: for a multivariate family that cannot be marginalised coordinate by coordinate.
    """
    if all(keep):
        return statement
    kept = [index for index, present in enumerate(keep) if present]
    if not kept:
        return None
    if not isinstance(statement.family, MvNormal):
        raise ValueError(
            f"{statement.family.name} cannot leave out some of the coordinates "
            f"{', '.join(s.name for s in statement.symbols)}: give all or none of them"
        )
    mean, cov = statement.family.arguments
    family = MvNormal(sympy.Matrix([mean[i] for i in kept]), cov.extract(kept, kept))
    return Statement(tuple(statement.symbols[i] for i in kept), family)

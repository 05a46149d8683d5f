"""What a distribution family is: arguments with their domains, support, log density, exponential form, law.

The families themselves are in `families` and `more_families`; this file holds what they share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sympy
from sympy import Expr, Integer, Interval, Rational, S, Set, Symbol

POSITIVE = Interval.open(0, S.Infinity)
PROBABILITY = Interval(0, 1)
NONNEGATIVE = Interval(0, S.Infinity)
POSSIBLE = Interval.Lopen(0, 1)
"""The probability of an event that must happen sooner or later."""
ROUNDED = Rational(1, 10**6)
"""How far proportions that were rounded before they were written down may miss their sum."""


def exact(value: Any, argument: str = "value") -> Expr:
    """The SymPy expression of a value: integers and fractions as they are, a float by its shortest decimal.

    >>> exact(0.1)
    1/10

    Raises:
        ValueError: for NaN and infinities. TypeError: for what is not a number or an expression.
    """
    if isinstance(value, Expr):
        if value.has(sympy.Float):
            value = value.xreplace({number: exact(float(number)) for number in value.atoms(sympy.Float)})
        if value.has(S.NaN, S.Infinity, S.NegativeInfinity, S.ComplexInfinity):
            raise ValueError(f"{argument} should be finite, got {value}")
        return value
    if isinstance(value, bool):
        return Integer(int(value))
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, int):
        return Integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{argument} should be finite, got {value}")
        return Rational(repr(value))
    if hasattr(value, "numerator") and hasattr(value, "denominator"):
        return Rational(value.numerator, value.denominator)
    raise TypeError(f"{argument} should be a number or a SymPy expression, got {value!r}")


def exact_law(probabilities: Iterable[float]) -> list[Expr]:
    """Give probabilities as rationals that sum to one exactly: what their decimals miss is added to the largest.

    >>> exact_law([0.25, 0.75])
    [1/4, 3/4]
    """
    law = [exact(p) for p in probabilities]
    most = max(range(len(law)), key=law.__getitem__)
    law[most] += 1 - sum(law)
    return law


@dataclass(frozen=True)
class ExponentialForm:
    """``log p(x) = η · T(x) + log h(x) − A``: a minimal exponential family, so its law is determined by η."""

    natural: tuple[Expr, ...]
    statistics: tuple[Expr, ...]
    log_base: Expr
    log_partition: Expr

    @property
    def log_density(self) -> Expr:
        """The log density that the form stands for."""
        terms = [eta * statistic for eta, statistic in zip(self.natural, self.statistics, strict=True)]
        return sympy.Add(*terms) + self.log_base - self.log_partition


class Family(ABC):
    """A distribution whose arguments are SymPy expressions; immutable, compared by its arguments."""

    arguments: tuple[Any, ...]
    names: ClassVar[tuple[str, ...]]
    domains: ClassVar[tuple[Set, ...]]

    def __init__(self, *arguments: Any) -> None:
        if len(arguments) != len(self.names):
            wanted = ", ".join(self.names)
            raise ValueError(
                f"{self.name} should have the arguments ({wanted}), got {len(arguments)} argument(s)"
            )
        self.arguments = tuple(
            argument(value, f"{self.name}'s {name}")
            for value, name in zip(arguments, self.names, strict=True)
        )
        self._refuse_outside()

    @property
    def name(self) -> str:
        """The family's name in the text notation."""
        return type(self).__name__

    @property
    def dimension(self) -> int:
        """How many numbers one draw has."""
        return 1

    @property
    def bounds(self) -> tuple[Expr, ...]:
        """The arguments that say where the support ends; empty where it is the same for all arguments."""
        return ()

    @property
    def total(self) -> Expr | None:
        """What the coordinates of every draw add up to; None where they need not add up to anything."""
        return None

    def sums(self) -> Iterator[tuple[Expr, str]]:
        """Sums of arguments that should be 1, each with the role of its terms."""
        yield from ()

    @property
    @abstractmethod
    def support(self) -> Set:
        """Where one coordinate of a draw lies, as a SymPy set."""

    @abstractmethod
    def log_density(self, *x: Expr) -> Expr:
        """``log p(x)`` in nats (density or mass), x given coordinate by coordinate."""

    @property
    @abstractmethod
    def law(self) -> tuple[Expr, ...]:
        """Expressions that are equal for two members iff these are the same distribution."""

    def exponential_form(self, *x: Expr) -> ExponentialForm | None:
        """The minimal exponential form, or None where the family is not one."""
        return None

    def expressions(self) -> Iterator[tuple[str, Expr, Set]]:
        """Each scalar argument with its name and the domain that it must lie in."""
        for name, argument, domain in zip(self.names, self.arguments, self.domains, strict=True):
            for element in _elements(argument):
                yield name, element, domain

    def map(self, change: Callable[[Expr], Expr]) -> Family:
        """The same family with `change` applied to every argument; itself if that changes none."""
        changed = [_mapped(argument, change) for argument in self.arguments]
        return self if changed == list(self.arguments) else type(self)(*changed)

    def elementwise(self, count: int) -> list[Family]:
        """`count` independent members; vector arguments are taken apart, scalars repeated."""
        members = []
        for index in range(count):
            members.append(type(self)(*[_entry(argument, index, count, self) for argument in self.arguments]))
        return members

    @property
    def free_symbols(self) -> set[Symbol]:
        """The parameters and latents that the arguments mention."""
        return set().union(*[expression.free_symbols for _, expression, _ in self.expressions()])  # type: ignore[return-value]

    def _refuse_outside(self) -> None:
        for name, expression, domain in self.expressions():
            if not expression.free_symbols and _outside(expression, domain):
                raise ValueError(f"{self.name}'s {name} should be {DOMAIN_WORDS[domain]}, got {expression}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.arguments == other.arguments  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self.arguments))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(_written(argument) for argument in self.arguments)})"


DOMAIN_WORDS = {
    S.Reals: "a real number",
    POSITIVE: "positive",
    NONNEGATIVE: "at least 0",
    PROBABILITY: "a probability in [0, 1]",
    POSSIBLE: "a probability in (0, 1]",
    S.Naturals0: "a whole number, 0 or more",
}


def _outside(number: Expr, domain: Set) -> bool:
    if isinstance(number, Rational) and isinstance(domain, Interval):
        below = number < domain.start or (domain.left_open and number == domain.start)
        return bool(below or number > domain.end or (domain.right_open and number == domain.end))
    return domain.contains(number) == sympy.false


def argument(value: Any, argument: str) -> Any:
    """An argument as an exact expression, or as a matrix of such."""
    if isinstance(value, sympy.MatrixBase):
        return sympy.ImmutableMatrix(value).applyfunc(lambda entry: exact(entry, argument))
    if (isinstance(value, Sequence) and not isinstance(value, str)) or getattr(value, "ndim", 0) > 0:
        rows = value.tolist() if hasattr(value, "tolist") else list(value)  # pyright: ignore[reportAttributeAccessIssue]
        matrix = sympy.ImmutableMatrix(
            [
                [exact(e, argument) for e in row] if isinstance(row, Sequence) else exact(row, argument)
                for row in rows
            ]
        )
        return matrix
    return exact(value, argument)


def _elements(argument: Any) -> Sequence[Expr]:
    return list(argument) if isinstance(argument, sympy.MatrixBase) else [argument]


def _mapped(argument: Any, change: Callable[[Expr], Expr]) -> Any:
    return argument.applyfunc(change) if isinstance(argument, sympy.MatrixBase) else change(argument)


def _entry(argument: Any, index: int, count: int, family: Family) -> Any:
    if not isinstance(argument, sympy.MatrixBase):
        return argument
    if len(argument) != count:
        raise ValueError(f"{family.name}'s vector argument should have {count} elements, got {len(argument)}")
    return argument[index]


def refuse_sum(probabilities: Sequence[Expr], what: str) -> None:
    """Refuse constant probabilities whose sum is not one."""
    total = sympy.Add(*probabilities)
    if not total.free_symbols and not sympy.simplify(total - 1).is_zero:
        raise ValueError(
            f"{what} should sum to one, got {', '.join(map(str, probabilities))} with the sum {total}"
        )


def _written(argument: Any) -> str:
    return str(argument.tolist()) if isinstance(argument, sympy.MatrixBase) else str(argument)

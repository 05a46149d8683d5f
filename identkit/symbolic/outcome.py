"""What the search has found about a question: a level for each unknown, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sympy import Expr, Symbol

from identkit.symbolic.discrete import Map
from identkit.symbolic.fields import Field
from identkit.symbolic.rank import RankReport
from identkit.symbolic.recovery import Formula
from identkit.symbolic.roots import Settled
from identkit.verdict import Level


@dataclass(frozen=True)
class Increase:
    """κ determines `inner` by `formula`, and `inner` is strictly monotone in the unknown."""

    unknown: Symbol
    inner: Expr
    sign: int
    formula: Expr
    outer: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]


@dataclass(frozen=True)
class Pin:
    """κ determines `expression`, whose value at the point only ``unknown = value`` can give inside the domains.

    ``expression − its value = (unknown − value)^power · cofactor``, and the cofactor has no zero in the domains.
    """

    unknown: Symbol
    value: Expr
    expression: Expr
    cofactor: Expr


@dataclass(frozen=True)
class Convex:
    """On a convex domain ``J + Jᵀ`` of these rearranged entries of κ is positive definite: κ is one-to-one."""

    unknowns: tuple[Symbol, ...]
    entries: tuple[Expr, ...]


@dataclass(frozen=True)
class Squares:
    """At the point, ``Σ weight · entry`` of κ has its least value, which only these values of the unknowns give.

    It is a constant plus even powers of deviations from the point, with weights that are positive: of u, or of u² for
    the unknowns in `squared`.
    """

    unknowns: tuple[Symbol, ...]
    weights: Mapping[Expr, Expr]
    squared: tuple[Symbol, ...]


@dataclass(frozen=True)
class Tied:
    """A null field of κ where some coordinates equal others; at the point it moves the unknowns in `alive`."""

    components: Field
    alive: tuple[Symbol, ...]
    ties: Mapping[Symbol, Symbol]


@dataclass
class Outcome:
    """Levels with their evidence."""

    levels: dict[Symbol, Level]
    report: RankReport | None = None
    fields: list[Field] = field(default_factory=list)
    formulas: list[tuple[Symbol, Formula, tuple[Symbol, ...]]] = field(default_factory=list)
    """unknown, formula for it (or for its square), and what was known by then"""
    increases: list[Increase] = field(default_factory=list)
    convex: Convex | None = None
    pins: list[Pin] = field(default_factory=list)
    squares: list[Squares] = field(default_factory=list)
    tied: list[Tied] = field(default_factory=list)
    roots: list[Settled] = field(default_factory=list)
    maps: list[tuple[str, Map]] = field(default_factory=list)
    at_least: list[Symbol] = field(default_factory=list)
    by_rank: list[Symbol] = field(default_factory=list)
    """free by the rank alone, with its probability of error"""
    inside: Outcome | None = None
    """at a point: what was found where its coordinates are written in"""
    tried: list[str] = field(default_factory=list)

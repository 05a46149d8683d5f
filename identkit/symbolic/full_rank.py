"""Affine readings of many latents at once: a matrix of full column rank determines them, and one point shows the rank.

The inverse of a matrix of symbols is a formula nobody reads and takes minutes from five columns on; that its columns
are independent at almost every point follows from balls at one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sympy
from sympy import Expr, Rational, Set, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.model.tape import Tape
from identkit.symbolic.certificates import ReadsOff
from identkit.symbolic.certificates.laws import read_off
from identkit.symbolic.certificates.zeros import certified_rank
from identkit.symbolic.field import points
from identkit.symbolic.injectivity import Peeled
from identkit.symbolic.regularity import analytic
from identkit.symbolic.support import State, all_domains, is_discrete

_TRIES = 3


@dataclass(frozen=True)
class Reading:
    """An expression that the law determines, and how: a formula of κ and of what is known."""

    inner: Expr
    formula: Expr
    summary: Mapping[Symbol, Expr]


@dataclass(frozen=True)
class FullRank(ReadsOff):
    """The law determines affine expressions of these latents, whose coefficients have full column rank at a point."""

    latents: tuple[Symbol, ...]
    readings: tuple[Reading, ...]
    known: tuple[Symbol, ...]
    point: Mapping[Symbol, Rational]
    state: State = field(default_factory=dict)

    @property
    def gives(self) -> tuple[Symbol, ...]:
        return self.latents

    @property
    def sentence(self) -> str:
        names = ", ".join(latent.name for latent in self.latents)
        count = len(self.readings)
        return f"the law determines {count} affine expressions of {names}, whose coefficients have rank {len(self.latents)}"

    def holds(self, model: Model) -> bool:
        if set(self.latents) & set(self.known):
            return False
        for reading in self.readings:
            if not read_off(reading.formula, reading.summary, self.known, self.state, model, reading.inner):
                return False
        slopes = affine_slopes(self.latents, [reading.inner for reading in self.readings])
        domains = all_domains(model)
        if slopes is None or not _inside(slopes, domains, self.known, model):
            return False
        if any(domains[s].contains(value) != sympy.true for s, value in self.point.items() if s in domains):
            return False
        return rank_at(slopes, self.point) == len(self.latents)


def affine_slopes(latents: Sequence[Symbol], expressions: Sequence[Expr]) -> list[list[Expr]] | None:
    """The matrix of slopes, or None if some expression is not affine in the latents."""
    rows = [[expression.diff(latent) for latent in latents] for expression in expressions]
    return None if any(slope.has(*latents) for row in rows for slope in row) else rows


def rank_at(rows: Sequence[Sequence[Expr]], point: Mapping[Symbol, Rational]) -> int:
    """A lower bound of the matrix's rank at a point, by balls."""
    width = len(rows[0])
    values = balls.run_or_nan(Tape([entry for row in rows for entry in row]), point, 256)
    return certified_rank([values[i : i + width] for i in range(0, len(values), width)])


def full_rank(
    straight: Sequence[Peeled],
    rows: Sequence[Sequence[Expr]],
    outer: Mapping[Symbol, Expr],
    left: Sequence[Symbol],
    known: Sequence[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> FullRank | None:
    """The claim that all that is left is determined, if a random point shows it."""
    entries = [entry for row in rows for entry in row]
    symbols = {symbol for entry in entries for symbol in entry.free_symbols}
    if any(is_discrete(domains[s]) for s in symbols) or not all(analytic(e, domains) for e in entries):  # type: ignore[index]
        return None
    for point in points({s: domains[s] for s in symbols}, _TRIES):  # type: ignore[index]
        if rank_at(rows, point) == len(left):
            readings = tuple(Reading(p.inner, p.inverse, {p.outer: outer[p.outer]}) for p in straight)
            return FullRank(tuple(left), readings, tuple(known), point, state)
    return None


def _inside(
    rows: Sequence[Sequence[Expr]], domains: Mapping[Symbol, Set], known: Sequence[Symbol], model: Model
) -> bool:
    entries = [entry for row in rows for entry in row]
    symbols = {symbol for entry in entries for symbol in entry.free_symbols}
    if not symbols <= {*known, *model.domains} or any(is_discrete(domains[s]) for s in symbols):  # type: ignore[index]
        return False
    return all(analytic(entry, domains) for entry in entries)

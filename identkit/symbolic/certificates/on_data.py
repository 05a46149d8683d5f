"""Claims about the likelihood of given data: it differs, is impossible, is flat, or its gradients span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import flint
import sympy
from flint import arb
from sympy import Expr, S, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.model.statement import Statement, marginal
from identkit.model.tape import Tape
from identkit.symbolic.certificates.claim import Claim, Point, spelled
from identkit.symbolic.certificates.laws import values_of
from identkit.symbolic.certificates.on_the_law import Translated
from identkit.symbolic.certificates.points import (
    differ_in,
    generic,
    on_simplexes,
    somewhere_not_zero,
    within,
)
from identkit.symbolic.certificates.zeros import certified_rank, zero
from identkit.symbolic.support import State, all_domains, is_discrete, on_simplex, probability
from identkit.symbolic.wording import translation_in_words
from identkit.verdict import Level

Data = tuple[tuple[tuple[Symbol, Expr], ...], ...]
"""Rows of data that share their latents, each as (observation, value) pairs."""


@dataclass(frozen=True)
class GapOnData(Claim):
    """Two prior points that differ in one latent alone and give these data different likelihoods."""

    data: Data
    latent: Symbol
    one: Point
    other: Point

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.INFORMED, Level.PARTIAL)}

    @property
    def sentence(self) -> str:
        return f"the data's likelihoods at ({spelled(self.one)}) and ({spelled(self.other)}) differ"

    def holds(self, model: Model) -> bool:
        domains = all_domains(model)
        if not self._apart(model) or not within(domains, self.one, self.other):
            return False
        if model.domains and not generic(model, (model.log_likelihood(),)):
            return False
        return any(balls.excludes_zero(self.gap(model, precision)) for precision in balls.PRECISIONS)

    def _apart(self, model: Model) -> bool:
        """Whether the points differ as they should: in the latent alone, which on a simplex rescales its companions."""
        group = next(
            (st.symbols for st in model.latents if on_simplex(st.family) and self.latent in st.symbols), ()
        )
        if not on_simplexes(model, self.one, self.other):
            return False
        if not group:
            return differ_in(self.latent, self.one, self.other)
        rest = [s for s in group if s != self.latent]
        scaled = {self.one[s] * self.other[rest[0]] - self.other[s] * self.one[rest[0]] for s in rest}
        same = set(self.one) == set(self.other) and all(
            self.one[s] == self.other[s] for s in self.one if s not in group
        )
        return same and scaled == {sympy.S.Zero} and self.one[self.latent] != self.other[self.latent]

    def gap(self, model: Model, precision: int = 128) -> arb:
        """``ℓ(one) − ℓ(other)`` in nats, as a ball."""
        here, there = (
            _log_likelihood(model, self.data, point, precision)[0] for point in (self.one, self.other)
        )
        with flint.ctx.workprec(precision):
            return here - there


@dataclass(frozen=True)
class ExcludedByData(GapOnData):
    """Two prior points that differ in one latent alone: these data are possible at one, impossible at the other."""

    @property
    def sentence(self) -> str:
        return f"the data are possible at ({spelled(self.one)}) and have probability 0 at ({spelled(self.other)})"

    def holds(self, model: Model) -> bool:
        domains = all_domains(model)
        if not self._apart(model) or not within(domains, self.one, self.other):
            return False
        possible = _log_likelihood(model, self.data, self.one, 192)[0].is_finite()
        return possible and not model.domains and impossible(model, self.data, self.other)


def impossible(model: Model, data: Data, point: Point) -> bool:
    """Whether some observation of the data has probability exactly 0 where the latents are at the point."""
    for row in map(dict, data):
        for statement in model.observations:
            if not all(symbol in row for symbol in statement.symbols):
                continue
            here = statement.family.map(lambda e: e.xreplace(dict(point)))
            if is_discrete(here.support) and probability(here, *[row[s] for s in statement.symbols]) == 0:
                return True
    return False


@dataclass(frozen=True)
class FlatOnData(Claim):
    """These data's likelihood does not change with a latent, in any state of the others."""

    data: Data
    latent: Symbol
    states: tuple[State, ...]

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.CONSTANT, Level.PARTIAL)}

    @property
    def sentence(self) -> str:
        return f"the likelihood of these data is the same for every {self.latent.name}"

    def holds(self, model: Model) -> bool:
        if any(on_simplex(st.family) and self.latent in st.symbols for st in model.latents):
            return False  # it moves with the others that add up to a constant with it
        second = Symbol(f"{self.latent.name}'", **self.latent.assumptions0)
        values = values_of(model, self.latent)
        for state in self.states:
            rest = {s: v for s, v in state.items() if s != self.latent}
            density = sympy.Add(
                *[
                    st.log_density().subs(list(row)).subs(list(rest.items()))
                    for row in self.data
                    for st in model.observations
                ]
            )
            options = [second] if values is None else values
            base = self.latent if values is None else values[0]
            if not all(
                zero(density.subs(self.latent, base) - density.subs(self.latent, to)) for to in options
            ):
                return False
        return True


@dataclass(frozen=True)
class InvisibleOnData(Translated):
    """Translating the latents along a vector, by any amount, does not change these data's likelihood (theory/T2).

    Counts (n, 0, …, 0) of n draws with the shares p have the likelihood p₁ⁿ, whatever p₂ takes from p₃.
    """

    data: Data
    direction: Mapping[Symbol, Expr]
    state: State

    @property
    def sentence(self) -> str:
        return f"the likelihood of these data is the same at ({translation_in_words(self.direction)}) for every t"

    def holds(self, model: Model) -> bool:
        latents = set(model.latent_symbols)
        if not self.direction or not latents.issuperset(self.direction):
            return False
        if any(is_discrete(model.support(latent)) for latent in self.direction):
            return False
        for entry in self.direction.values():
            if entry.free_symbols & latents or not somewhere_not_zero(entry, model):
                return False
        groups = [st.symbols for st in model.latents if on_simplex(st.family)]
        if not all(zero(sympy.Add(*[self.direction.get(s, S.Zero) for s in group])) for group in groups):
            return False
        density = _density(model, self.data, self.state)
        return zero(density.xreplace(self.moved) - density)


@dataclass(frozen=True)
class SpanOnData(Claim):
    """The gradients of ℓ at these points span all directions but those that the law ignores."""

    data: Data
    latents: tuple[Symbol, ...]
    state: State
    points: tuple[Point, ...]
    rank: int

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {}

    @property
    def sentence(self) -> str:
        return f"the gradients of the data's log-likelihood span {self.rank} directions"

    def holds(self, model: Model) -> bool:
        if not within(all_domains(model), *self.points) or not on_simplexes(model, *self.points):
            return False
        slopes = [
            _log_likelihood(model, self.data, {**point, **self.state}, 256, self.latents)[1:]
            for point in self.points
        ]
        return certified_rank(along_simplexes(model, self.latents, slopes)) >= self.rank


def _density(model: Model, data: Data, state: State) -> Expr:
    """ℓ of these data as a function of the latents, in a state of those that have states."""
    held = [
        Statement(st.symbols, st.family.map(lambda e: e.subs(list(state.items()))))
        for st in model.observations
    ]
    terms = []
    for row in map(dict, data):
        kept = [marginal(st, [s in row for s in st.symbols]) for st in held]
        terms += [st.log_density().subs(list(row.items())) for st in kept if st is not None]
    return sympy.Add(*terms)


def along_simplexes(
    model: Model, latents: Sequence[Symbol], slopes: Sequence[Sequence[arb]]
) -> list[list[arb]]:
    """Slopes in directions that keep every sum of a prior that has one: the last coordinate gives way to the others."""
    groups = [st.symbols for st in model.latents if on_simplex(st.family)]
    last = {symbol: group[-1] for group in groups for symbol in group}
    place = {symbol: i for i, symbol in enumerate(latents)}
    moving = [symbol for symbol in latents if last.get(symbol) != symbol]
    return [
        [row[place[s]] - row[place[last[s]]] if s in last else row[place[s]] for s in moving]
        for row in slopes
    ]


def _log_likelihood(
    model: Model, data: Data, point: Point, precision: int, along: Sequence[Symbol] = ()
) -> list[arb]:
    # Straight from the statements, at the observed coordinates of each row.
    totals = [arb(0)] * (1 + len(along))
    # States first: a covariance that a label selects can only be inverted once the label is known.
    states = [(s, v) for s, v in point.items() if s not in along and s.is_integer]
    fixed = [Statement(st.symbols, st.family.map(lambda e: e.subs(states))) for st in model.observations]
    for row in data:
        kept = [marginal(st, [s in dict(row) for s in st.symbols]) for st in fixed]
        held = sympy.Add(*[st.log_density() for st in kept if st is not None])
        tape = Tape([held, *[held.diff(latent) for latent in along]])
        values = balls.run_or_nan(tape, {**dict(row), **point}, precision)
        with flint.ctx.workprec(precision):  # else the sum would be rounded to 53 bits
            totals = [a + b for a, b in zip(totals, values, strict=True)]
    return totals

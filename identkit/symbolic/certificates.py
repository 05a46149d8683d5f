"""Proofs that re-check themselves. Nothing here calls the search: not `field`, `symmetry` nor `injectivity`;
only the definition of the law (`summary`) is shared.

Each claim is re-derived from the model's statements: laws are compared through their natural parameters (the search
compares arguments), zeros are proved by SymPy's own simplifier after a try at refuting them in ball arithmetic, and
non-zeros by balls. What the claims amount to, `proof` derives from them alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import flint
import sympy
from flint import arb
from sympy import Dummy, Expr, Integer, Interval, Rational, S, Set, Symbol

from identkit.model import balls
from identkit.model.families import Family, Mixture
from identkit.model.functions import sigmoid
from identkit.model.model import Model, Statement, marginal
from identkit.model.tape import Tape
from identkit.symbolic.regularity import analytic, from_half_line, positive, regular
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import (
    State,
    all_domains,
    is_discrete,
    is_finite,
    on_simplex,
    probability,
    supported_states,
    takes_every_value,
)
from identkit.verdict import Level

Point = Mapping[Symbol, Rational]
MOST_PAIRS = 32
"""Pairs of states that are tried before a law is not called one that moves."""
MOST_OPERATIONS = 40
"""Size of an expression from which on SymPy's `simplify`, which may take minutes, is not asked."""


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


@dataclass(frozen=True)
class Ignored(Claim):
    """The law does not change when these latents do (theory/T1, T3)."""

    latents: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.CONSTANT, Level.PARTIAL) for latent in self.latents}

    @property
    def sentence(self) -> str:
        where = f" in the state {_named(self.state)}" if self.state else ""
        return f"the law of the data does not contain {', '.join(s.name for s in self.latents)}{where}"

    def holds(self, model: Model) -> bool:
        values = {latent: _values(model, latent) for latent in self.latents}
        moved: list[dict[Symbol, Expr]] = [{}]
        for latent, states in values.items():
            options = states if states is not None else [Symbol(f"{latent.name}'", **latent.assumptions0)]
            moved = [{**change, latent: option} for change in moved for option in options]
        return all(_same_law(model, {**self.state}, {**self.state, **change}) for change in moved)


@dataclass(frozen=True)
class OneValue(Claim):
    """The prior leaves a latent one value only, so that there is nothing to learn about it."""

    latent: Symbol

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.CONSTANT,)}

    @property
    def sentence(self) -> str:
        return f"the prior leaves {self.latent.name} one value only"

    def holds(self, model: Model) -> bool:
        finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
        states = supported_states(model, finite) if self.latent in finite else None
        return states is not None and len({state[self.latent] for state in states}) == 1


@dataclass(frozen=True)
class Invisible(Claim):
    """Translating the latents along a vector, by any amount, does not change the law."""

    direction: Mapping[Symbol, Expr]
    state: State = field(default_factory=dict)

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.PARTIAL,) for latent in self.direction}

    @property
    def sentence(self) -> str:
        steps = ", ".join(f"{latent.name} + ({entry})*t" for latent, entry in self.direction.items())
        return f"the law of the data is the same at ({steps}) for every t"

    def holds(self, model: Model) -> bool:
        t = Dummy("t", real=True)
        moved = {latent: latent + t * entry for latent, entry in self.direction.items()}
        return any(entry != 0 for entry in self.direction.values()) and _same_law(
            model, dict(self.state), {**self.state, **moved}
        )


@dataclass(frozen=True)
class Merged(Claim):
    """Two states have one law."""

    one: State
    other: State

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        moved = [latent for latent in self.one if self.one[latent] != self.other[latent]]
        return {latent.name: (Level.CONSTANT, Level.PARTIAL) for latent in moved}

    @property
    def sentence(self) -> str:
        return f"the states ({_named(self.one)}) and ({_named(self.other)}) have one law"

    def holds(self, model: Model) -> bool:
        return dict(self.one) != dict(self.other) and _same_law(model, dict(self.one), dict(self.other))


class ReadsOff(Claim):
    """The law determines some latents for good."""

    @property
    @abstractmethod
    def gives(self) -> tuple[Symbol, ...]:
        """The latents that are read off."""

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.GLOBAL,) for latent in self.gives}


@dataclass(frozen=True)
class Recovered(ReadsOff):
    """A formula that gives a latent back from the law, given what was recovered before."""

    latent: Symbol
    formula: Expr
    summary: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def gives(self) -> tuple[Symbol, ...]:
        return (self.latent,)

    @property
    def sentence(self) -> str:
        used = {
            symbol: value for symbol, value in self.summary.items() if symbol in self.formula.free_symbols
        }
        where = ", ".join(f"{symbol} = {value}" for symbol, value in used.items())
        return f"{self.latent.name} = {self.formula}" + (f", where the law has {where}" if where else "")

    def holds(self, model: Model) -> bool:
        return self.latent not in self.known and read_off(
            self.formula, self.summary, self.known, self.state, model, self.latent
        )


@dataclass(frozen=True)
class Monotone(ReadsOff):
    """A formula of the law is strictly monotone in a latent, everything else in it being known."""

    latent: Symbol
    inner: Expr
    sign: int
    formula: Expr
    summary: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def gives(self) -> tuple[Symbol, ...]:
        return (self.latent,)

    @property
    def sentence(self) -> str:
        way = "increases" if self.sign > 0 else "decreases"
        return f"the law determines {self.inner}, which strictly {way} in {self.latent.name}"

    def holds(self, model: Model) -> bool:
        if not self.inner.free_symbols <= {*self.known, *model.domains, self.latent}:
            return False
        if not read_off(self.formula, self.summary, self.known, self.state, model, self.inner):
            return False
        support = _line(model.support(self.latent))
        t = Dummy("t", positive=True)
        bounded = support.inf.is_finite or support.sup.is_finite
        variable, place = (t, from_half_line(support, t)) if bounded else (self.latent, self.latent)
        domains = all_domains(model)
        if not analytic(self.inner, domains) or not regular(self.inner.subs(self.latent, place), variable):
            return False
        slope = (self.sign * self.inner.diff(self.latent)).subs(self.latent, place)
        if any(is_discrete(domains[s]) for s in slope.free_symbols - {variable, self.latent}):
            return positive(slope)
        return never_negative(slope, variable) and _somewhere_not_zero(slope, model)


@dataclass(frozen=True)
class AllDiffer(Claim):
    """All states of positive prior mass have different laws, told apart in ball arithmetic at one parameter point."""

    states: tuple[State, ...]
    summary: tuple[Expr, ...]
    parameters: Point

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.GLOBAL,) for latent in self.states[0]}

    @property
    def sentence(self) -> str:
        return f"the laws of all {len(self.states)} states differ"

    def holds(self, model: Model) -> bool:
        law, domains = conditional_law(model), all_domains(model)
        moving = {s for e in self.summary for s in e.free_symbols} - set(self.states[0])
        if (
            law.incomplete
            or not set(self.summary) <= set(law.expressions)
            or not moving <= set(model.domains)
        ):
            return False
        if not all(analytic(e, domains, of=moving) for e in self.summary):
            return False
        if any(is_discrete(domains[symbol]) for symbol in moving):
            return False
        tape = Tape(self.summary)
        table = [balls.run_or_nan(tape, {**self.parameters, **state}, 192) for state in self.states]
        return all_apart(table)


@dataclass(frozen=True)
class Folded(Claim):
    """A map of the latents other than the identity that keeps the law and the support."""

    change: Mapping[Symbol, Expr]

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.LOCAL,) for latent in self.change}

    @property
    def sentence(self) -> str:
        return f"the law is the same at ({', '.join(f'{s.name} -> {e}' for s, e in self.change.items())})"

    def holds(self, model: Model) -> bool:
        moves = any(entry - latent != 0 for latent, entry in self.change.items())
        inside = all(
            model.support(latent) == S.Reals
            or (entry == -latent and model.support(latent).inf == -model.support(latent).sup)
            for latent, entry in self.change.items()
        )
        return moves and inside and _same_law(model, {}, dict(self.change))


@dataclass(frozen=True)
class DiscreteFibre(Claim):
    """A summary that is analytic and not constant in its one unknown, whose level sets are therefore discrete."""

    latent: Symbol
    summary: Expr
    one: Point
    other: Point

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.LOCAL,)}

    @property
    def sentence(self) -> str:
        return f"{self.summary} is analytic and not constant in {self.latent.name}: at most countably many values fit"

    def holds(self, model: Model) -> bool:
        law, domains = conditional_law(model), all_domains(model)
        others = self.summary.free_symbols - {self.latent}
        if law.incomplete or self.summary not in law.expressions or not others <= set(model.domains):
            return False
        if any(is_discrete(domains[symbol]) for symbol in self.summary.free_symbols):
            return False
        if not _differ_in(self.latent, self.one, self.other) or not _inside(domains, self.one, self.other):
            return False
        return analytic(self.summary, domains) and _apart((self.summary,), self.one, self.other)


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
        return f"the data's likelihoods at ({_named(self.one)}) and ({_named(self.other)}) differ"

    def holds(self, model: Model) -> bool:
        domains = all_domains(model)
        if not self._apart(model) or not _inside(domains, self.one, self.other):
            return False
        if model.domains and not _generic(model, (model.log_likelihood(),)):
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
            return _differ_in(self.latent, self.one, self.other)
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
        return (
            f"the data are possible at ({_named(self.one)}) and have probability 0 at ({_named(self.other)})"
        )

    def holds(self, model: Model) -> bool:
        domains = all_domains(model)
        if not self._apart(model) or not _inside(domains, self.one, self.other):
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
        values = _values(model, self.latent)
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
        if not _inside(all_domains(model), *self.points) or not on_simplexes(model, *self.points):
            return False
        slopes = [
            _log_likelihood(model, self.data, {**point, **self.state}, 256, self.latents)[1:]
            for point in self.points
        ]
        return certified_rank(along_simplexes(model, self.latents, slopes)) >= self.rank


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


def certified_rank(rows: Sequence[Sequence[arb]]) -> int:
    """A lower bound of the rank of a matrix of balls: elimination by pivots that are proved not to be 0."""
    matrix = [list(row) for row in rows if all(entry.is_finite() for entry in row)]
    rank = 0
    for column in range(len(matrix[0]) if matrix else 0):
        usable = [i for i in range(rank, len(matrix)) if balls.excludes_zero(matrix[i][column])]
        if not usable:
            continue
        best = max(usable, key=lambda i: float(abs(matrix[i][column]).mid()))
        matrix[rank], matrix[best] = matrix[best], matrix[rank]
        pivot = matrix[rank]
        for i in range(rank + 1, len(matrix)):
            ratio = matrix[i][column] / pivot[column]
            matrix[i] = [a - ratio * b for a, b in zip(matrix[i], pivot, strict=True)]
        rank += 1
    return rank


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


def read_off(
    formula: Expr,
    summary: Mapping[Symbol, Expr],
    known: Sequence[Symbol],
    state: State,
    model: Model,
    target: Expr,
) -> bool:
    """Whether a formula of the law, and of what is known, is identically the target, and divides by nothing that is 0."""
    law = conditional_law(model)
    allowed = {*known, *summary, *model.domains}
    here = [e.subs(list(state.items())) for e in law.expressions]
    if law.incomplete or not formula.free_symbols <= allowed or not set(summary.values()) <= set(here):
        return False
    written = list(summary.items())
    divisors = [power.base for power in formula.atoms(sympy.Pow) if not power.exp.is_positive]
    if not all(
        _almost_never_zero(divisor.subs(written).replace(sympy.log, _log_of_tidy), model)
        for divisor in divisors
    ):
        return False
    return zero(formula.subs(written) - target)


# Laws


def _same_law(model: Model, here: Mapping[Symbol, Expr], there: Mapping[Symbol, Expr]) -> bool:
    for statement in model.observations:
        try:
            one = statement.family.map(lambda e: e.xreplace(dict(here)))
            two = statement.family.map(lambda e: e.xreplace(dict(there)))
        except (ValueError, TypeError):
            return False
        if one != two and not _equal_families(one, two):
            return False
    return True


def _equal_families(one: Family, two: Family) -> bool:
    if isinstance(one, Mixture) and isinstance(two, Mixture):
        return _equal_mixtures(one, two)
    x = tuple(Symbol(f"x{i}", real=True) for i in range(one.dimension))
    first, second = one.exponential_form(*x), two.exponential_form(*x)
    if first is None or second is None:
        pairs = zip(one.law, two.law, strict=True)
    else:
        pairs = zip((*first.natural, first.log_base), (*second.natural, second.log_base), strict=True)
    return all(zero(a - b) for a, b in pairs)


def _equal_mixtures(one: Mixture, two: Mixture) -> bool:
    # Enough for equality: the same weights on equal components, once equal components have been added up.
    remaining: list[tuple[Expr, Family]] = [(-w, c) for w, c in zip(two.weights, two.components, strict=True)]
    signed = [*zip(one.weights, one.components, strict=True), *remaining]
    totals: list[tuple[Expr, Family]] = []
    for weight, component in signed:
        for place, (total, other) in enumerate(totals):
            if component == other or _equal_families(component, other):
                totals[place] = (total + weight, other)
                break
        else:
            totals.append((weight, component))
    return all(zero(total) for total, _ in totals)


def _values(model: Model, latent: Symbol) -> list[Expr] | None:
    support = model.support(latent)
    return list(support) if is_finite(support) else None


def _line(support: Set) -> Interval:
    # What is monotone on the line is so on the counts.
    return Interval.open(-1, S.Infinity) if is_discrete(support) else support


def law_moves(model: Model, latent: Symbol) -> bool:
    """Whether the law is proved to change with a latent alone; by the likelihood of some datum where κ says too little."""
    domains = all_domains(model)
    finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
    rest = [s for s in model.latent_symbols if s not in finite]
    states = supported_states(model, finite)
    law = conditional_law(model)
    shown = (model.log_likelihood(),) if law.incomplete else law.expressions
    if states is None or not all(takes_every_value(model, s) for s in rest) or not _generic(model, shown):
        return False
    tape = Tape(shown)
    for scale, attempt in product((1, 20, 1000), (1, 2, 3)):
        point = _point({s: domains[s] for s in (*model.domains, *rest)}, attempt, scale)
        data = _point({s: st.family.support for st in model.observations for s in st.symbols}, attempt, 1)
        moved = _point({latent: domains[latent]}, -attempt - 3, scale)
        if latent in rest:
            pairs = [({**point, **state}, {**point, **state, **moved}) for state in states[:MOST_PAIRS]]
        else:
            pairs = [({**point, **one}, {**point, **other}) for one, other in _neighbours(latent, states)]
        for one, other in pairs:
            here, there = (balls.run_or_nan(tape, {**place, **data}, 384) for place in (one, other))
            if any(balls.excludes_zero(a - b) for a, b in zip(here, there, strict=True)):
                return True
    return False


def _neighbours(latent: Symbol, states: Sequence[State]) -> list[tuple[State, State]]:
    """States that differ in one latent alone, some of them spread over all states."""
    first: dict[tuple[Expr, ...], State] = {}
    pairs = []
    for state in states:
        others = tuple(value for symbol, value in state.items() if symbol != latent)
        if others in first:
            pairs.append((first[others], state))
        first.setdefault(others, state)
    return pairs[:: max(1, len(pairs) // MOST_PAIRS)]


def _point(domains: Mapping[Symbol, Set], attempt: int, scale: int) -> dict[Symbol, Expr]:
    """A point of the domains, the further out the larger the scale."""
    point: dict[Symbol, Expr] = {}
    for place, symbol in enumerate(sorted(domains, key=str), 1):
        low, high = domains[symbol].inf, domains[symbol].sup
        step = Rational(scale * (7 * abs(attempt) + 3 * place), 31 + 2 * place)
        if is_finite(domains[symbol]):
            values = list(domains[symbol])
            # Neighbours sometimes agree: data that always alternate, (0, 1) or (1, 0), could not tell p from 1 − p.
            point[symbol] = values[(attempt * place + place // 2) % len(values)]
        elif is_discrete(domains[symbol]):
            point[symbol] = low + (attempt + place) % 5
        elif low.is_finite or high.is_finite:
            point[symbol] = from_half_line(domains[symbol], step)
        else:
            point[symbol] = -step if (attempt + place) % 2 else step
    return point


def on_simplexes(model: Model, *points: Mapping[Symbol, Expr]) -> bool:
    """Whether the latents that a prior makes add up to something do so at these points."""
    bound = [st for st in model.latents if on_simplex(st.family)]
    return all(
        all(s in point for s in st.symbols) and sympy.Add(*[point[s] for s in st.symbols]) == st.family.total
        for st in bound
        for point in points
    )


def _differ_in(latent: Symbol, one: Mapping[Symbol, Expr], other: Mapping[Symbol, Expr]) -> bool:
    return set(one) == set(other) and [s for s in one if one[s] != other[s]] == [latent]


def _inside(domains: Mapping[Symbol, Set], *points: Mapping[Symbol, Expr]) -> bool:
    return all(
        s in domains and domains[s].contains(value) == sympy.true
        for point in points
        for s, value in point.items()
    )


def _generic(model: Model, expressions: Sequence[Expr]) -> bool:
    """Whether a gap at one value of the parameters shows one at almost every value: kinks of the latents do not matter."""
    if any(is_discrete(domain) for domain in model.domains.values()):
        return False
    return not model.domains or all(analytic(e, all_domains(model), of=model.domains) for e in expressions)


def _almost_never_zero(expression: Expr, model: Model) -> bool:
    if isinstance(expression, sympy.Abs | sympy.Mul | sympy.Pow):
        parts = expression.args[:1] if not expression.is_Mul else expression.args
        return all(_almost_never_zero(part, model) for part in parts)
    if expression.is_nonzero is True:
        return True
    domains = all_domains(model)
    if any(is_discrete(domains[symbol]) for symbol in expression.free_symbols):
        return False
    return analytic(expression, domains) and _somewhere_not_zero(expression, model)


# Zero and not zero


def zero(expression: Expr) -> bool:
    """Whether the expression is proved to be identically 0, by SymPy's simplifier after a try at refuting it."""
    if expression == 0:
        return True
    if expression.has(S.NaN, S.ComplexInfinity, S.Infinity):
        return False
    try:
        tape = Tape([expression])
    except NotImplementedError:
        return False
    for attempt in (1, 2, 3, -2):
        value = balls.run_or_nan(tape, _trial(expression, attempt), 256)[0]
        if balls.excludes_zero(value):
            return False
    plain = sympy.expand(expression)
    tidy = expression.replace(sympy.log, _log_of_tidy)
    if plain == 0 or sympy.expand(tidy) == 0 or sympy.expand(sympy.cancel(sympy.together(tidy))) == 0:
        return True
    if sympy.cancel(sympy.together(plain)) == 0:
        return True
    if sympy.expand(sympy.cancel(sympy.together(_through_exp(expression)))) == 0:
        return True
    through_exp = sympy.powsimp(sympy.expand(sympy.expand_log(expression.rewrite(sympy.exp), force=False)))
    if through_exp == 0:
        return True
    small = expression.count_ops() <= MOST_OPERATIONS
    return small and (sympy.simplify(through_exp) == 0 or sympy.simplify(expression) == 0)


def _log_of_tidy(argument: Expr) -> Expr:
    tidy = sympy.cancel(sympy.together(_through_exp(argument)))
    # Arguments are real, whether or not SymPy sees it.
    return tidy.args[0] if isinstance(tidy, sympy.exp) else sympy.expand_log(sympy.log(tidy))


def _through_exp(expression: Expr) -> Expr:
    # Not rewrite(exp), which would turn a cos inside into complex exponentials as well.
    opened = expression.replace(sigmoid, lambda u: 1 / (1 + sympy.exp(-u)))
    return opened.replace(
        sympy.tanh, lambda u: (sympy.exp(u) - sympy.exp(-u)) / (sympy.exp(u) + sympy.exp(-u))
    )


def _trial(expression: Expr, attempt: int) -> dict[Symbol, Rational]:
    point = {}
    for place, symbol in enumerate(sorted(expression.free_symbols, key=str), 1):
        size = (
            Integer(abs(attempt) + place - 1)
            if symbol.is_integer
            else Rational(7 * abs(attempt) + 3 * place + 1, 31 + 2 * place)
        )
        point[symbol] = -size if attempt < 0 and not symbol.is_nonnegative else size
    return point


def _apart(summary: Iterable[Expr], one: Point, other: Point) -> bool:
    tape = Tape(list(summary))
    for precision in balls.PRECISIONS:
        here, there = (balls.run_or_nan(tape, point, precision) for point in (one, other))
        if any(balls.excludes_zero(a - b) for a, b in zip(here, there, strict=True)):
            return True
    return False


def all_apart(table: Sequence[Sequence[arb]]) -> bool:
    """Whether every two rows of balls are proved different; sorted first, so that n rows need few comparisons."""
    if any(not entry.is_finite() for row in table for entry in row):
        return False
    return _split([list(row) for row in table], 0)


def _split(rows: list[list[arb]], column: int) -> bool:
    # Rows are sorted by a column and cut wherever two neighbours' balls are disjoint; groups go to the next column.
    if len(rows) <= 1:
        return True
    if column == len(rows[0]):
        return False
    rows = sorted(rows, key=lambda row: float(row[column].mid()))
    groups, current = [], [rows[0]]
    top = rows[0][column]
    for _, row in pairwise(rows):
        if row[column] > top:
            groups.append(current)
            current, top = [row], row[column]
        else:
            current.append(row)
            top = top.union(row[column])
    return all(_split(group, column + 1) for group in [*groups, current])


def _somewhere_not_zero(expression: Expr, model: Model) -> bool:
    tape = Tape([expression])
    domains = all_domains(model)
    for attempt in range(1, 6):
        # A half-line's own variable is no symbol of the model.
        point = _point(
            {s: domains.get(s, Interval.open(0, S.Infinity)) for s in expression.free_symbols}, attempt, 1
        )
        if balls.excludes_zero(balls.run_or_nan(tape, point, 192)[0]):
            return True
    return False


def never_negative(slope: Expr, variable: Symbol) -> bool:
    """A derivative is ≥ 0 on the line: each monomial is, in positive variables and even powers; or by real roots."""
    top, bottom = sympy.fraction(sympy.cancel(sympy.together(slope.rewrite(sympy.exp))))
    if all(_plainly_positive(side) for side in (top, bottom)):
        return True
    if all(_plainly_positive(-side) for side in (top, bottom)):
        return True
    return _no_sign_change(sympy.expand(top * bottom), variable)


def _plainly_positive(polynomial: Expr) -> bool:
    def positive(factor: Expr) -> bool:
        base, exponent = factor.as_base_exp()
        if isinstance(factor, sympy.exp) or (base.is_Symbol and base.is_positive):
            return True
        return factor.is_positive is True or (
            exponent.is_Integer and exponent % 2 == 0 and base.is_real is True
        )

    return all(
        all(positive(f) for f in sympy.Mul.make_args(term))
        for term in sympy.Add.make_args(sympy.expand(polynomial))
    )


def _no_sign_change(polynomial: Expr, variable: Symbol) -> bool:
    # Isolated real roots, by Arb: between neighbours the sign is constant, so one value in each gap decides.
    if polynomial.free_symbols != {variable}:
        return False
    try:
        coefficients = sympy.Poly(polynomial, variable, domain="QQ").all_coeffs()
    except (sympy.PolynomialError, sympy.CoercionFailed):
        return False
    scale = sympy.ilcm(*[c.q for c in coefficients]) if coefficients else 1
    exact = flint.fmpz_poly([int(c * scale) for c in reversed(coefficients)])
    if exact == 0:
        return False
    roots = [root.real for root, _ in exact.complex_roots() if 0 in root.imag]  # pyright: ignore[reportGeneralTypeIssues]
    start = 0 if variable.is_positive else None
    cuts = sorted(float(root.mid()) for root in roots if start is None or not root < 0)
    low = (cuts[0] if cuts else 0.0) - 1.0 if start is None else 0.0
    marks = [low, *cuts, (cuts[-1] if cuts else 1.0) + 1.0]
    if any(b - a < 1e-6 * (1 + abs(a) + abs(b)) and (a, b) != (0.0, 0.0) for a, b in pairwise(marks)):
        return False
    gaps = [Rational((a + b) / 2) for a, b in pairwise(marks) if b > a]
    values = [sum(Rational(int(c)) * gap**i for i, c in enumerate(exact.coeffs())) for gap in gaps]
    return all(value > 0 for value in values)


def _named(point: Mapping[Symbol, Expr]) -> str:
    return ", ".join(f"{symbol.name} = {value}" for symbol, value in point.items())

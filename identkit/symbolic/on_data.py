"""`check` on given data: one number ℓ(z) = log p(x | z) per latent value, so a coarser ladder (theory/T2).

A latent is CONSTANT when ℓ ignores it, PARTIAL when an ignored direction (or a merging of states that the law
itself makes) moves it, else INFORMED. Two points with a gap in ℓ that ball arithmetic confirms prove "not CONSTANT";
gradients at a few points whose span has full rank, by a minor that balls keep away from 0, prove that no further
direction is ignored.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flint
import sympy
from sympy import Expr, Rational, Symbol

from identkit.model import balls
from identkit.model.family import ROUNDED
from identkit.model.model import Model, constant
from identkit.model.statement import Statement, marginal
from identkit.model.tape import Tape
from identkit.symbolic.certificates import (
    Claim,
    ExcludedByData,
    FlatOnData,
    GapOnData,
    InvisibleOnData,
    SpanOnData,
)
from identkit.symbolic.certificates.on_data import along_simplexes
from identkit.symbolic.certificates.zeros import certified_rank
from identkit.symbolic.checker import analyse
from identkit.symbolic.conditions import refuse_or_assume
from identkit.symbolic.equalities import tied, with_equalities_solved
from identkit.symbolic.field import points, vanishes
from identkit.symbolic.proof import Proof
from identkit.symbolic.ranges import without_settled_kinks
from identkit.symbolic.regularity import analytic
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import (
    State,
    all_domains,
    is_discrete,
    is_finite,
    simplexes,
    supported_states,
    takes_every_value,
)
from identkit.symbolic.symmetry import Vector, null_directions
from identkit.verdict import Level, Verdict, overall

Row = Mapping[Symbol, Expr]
_MOST_ROWS = 50  # whose likelihood is written out as one formula


def check_data(
    model: Model, data: Mapping[Any, Any], at: Mapping[Any, Any] | None = None, pooled: bool = False
) -> Verdict:
    """Which latents these data speak about (theory/T1: the definition is per data set).

    Args:
        model: the model.
        data: every observation's value, by symbol or name; columns of several numbers are several rows.
        at: values of parameters; those not named are generic.
        pooled: whether the rows share their latents, ℓ being summed.

    Raises:
        ValueError: for incomplete data, unknown names, or values that the observation cannot take.

    >>> import identkit as ik
    >>> m = ik.parse("k ~ Bernoulli(1/2); observe x ~ Normal(0, select(k + 1, 1, 2))")
    >>> check_data(m, {"x": "sqrt(4/3*log(4))"}).level, check_data(m, {"x": 1.2}).level
    (<Level.CONSTANT: 'CONSTANT'>, <Level.INFORMED: 'INFORMED'>)
    """
    started = time.perf_counter()
    fixed = without_settled_kinks(with_equalities_solved(model.at(at)))
    assumptions = refuse_or_assume(fixed)
    rows = exact_rows(fixed, data)
    likelihood = LikelihoodOnData(fixed)
    groups = [rows] if pooled else [[row] for row in rows]
    findings = [likelihood.on(group) for group in groups]
    levels = {name: overall(found.levels[name] for found in findings) for name in fixed.latent_names}
    claims = [*likelihood.law.claims, *[claim for found in findings for claim in found.claims]]
    proof = Proof(
        fixed, tuple(claims), levels, tuple(tuple(map(_frozen, group)) for group in groups)
    ).what_holds()
    tried = [found.tried for found in findings if found.tried]
    if dict(proof.levels) != levels:
        levels = dict(proof.levels)
        tried.append("a proof was found but its independent verification failed")
    proved = any(level is not Level.UNKNOWN for level in levels.values())
    unknown = Level.UNKNOWN in levels.values()
    return Verdict(
        model=model.name,
        about="latents",
        scope="data",
        level=overall(levels.values()),
        latents=levels,
        invariances=tuple(likelihood.law.invariances),
        assumptions=tuple(dict.fromkeys([*fixed.notes, *assumptions, *(tried if unknown else [])])),
        certificate=proof if proved else None,
        seconds=time.perf_counter() - started,
    )


def exact_rows(model: Model, data: Mapping[Any, Any]) -> list[dict[Symbol, Expr]]:
    """Rows of exact values from columns by name; a scalar is a column of one.

    Raises:
        ValueError: if an observation has no value or a name is unknown, or columns differ in length.
    """
    columns: dict[Symbol, list[Expr]] = {}
    symbols = {symbol.name: symbol for symbol in model.observation_symbols}
    for key, value in _elementwise(model, data).items():
        if key not in symbols:
            raise ValueError(f"data names {key!r}, which is none of: {', '.join(symbols)}")
        values = value.tolist() if hasattr(value, "tolist") else value
        column = values if isinstance(values, list | tuple) else [values]
        columns[symbols[key]] = [constant(entry, f"data for {key}") for entry in column]
    missing = [name for name, symbol in symbols.items() if symbol not in columns]
    if missing:
        raise ValueError(f"data should give every observation; missing: {', '.join(missing)}")
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"data should have columns of one length, one or more, got lengths {sorted(lengths)}"
        )
    rows = [dict(zip(columns, entries, strict=True)) for entries in zip(*columns.values(), strict=True)]
    for row in rows:
        refuse_impossible(model, row)
    return rows


def refuse_impossible(model: Model, row: Row) -> None:
    """Refuse a value that its observation's family cannot produce."""
    for statement in model.observations:
        total = statement.family.total
        present = [row[symbol] for symbol in statement.symbols if symbol in row]
        whole = total is not None and total.is_number and len(present) == statement.family.dimension
        if whole and abs(sympy.Add(*present) - total) > ROUNDED:
            names = ", ".join(symbol.name for symbol in statement.symbols)
            raise ValueError(f"data for {names} should add up to {total}, got {sympy.Add(*present)}")
        support = statement.family.support
        for symbol in statement.symbols:
            if symbol in row and support.contains(row[symbol]) == sympy.false:
                raise ValueError(
                    f"data for {symbol} should lie in the support of {statement.family.name}, {support}, got {row[symbol]}"
                )


def _elementwise(model: Model, data: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = key.name if isinstance(key, Symbol) else str(key).replace(" ", "")
        elements = [s.name for s in model.observation_symbols if s.name.startswith(f"{name}[")]
        if elements and name not in model.observation_names:
            values = value.tolist() if hasattr(value, "tolist") else value
            if not isinstance(values, list | tuple) or len(values) != len(elements):
                raise ValueError(
                    f"data for {name} should have {len(elements)} values, one an element, got {value!r}"
                )
            found.update(zip(elements, values, strict=True))
        else:
            found[name] = value
    return found


@dataclass
class OnRow:
    """What one data set says about each latent, with evidence."""

    levels: dict[str, Level]
    claims: list[Claim] = field(default_factory=list)
    gaps: dict[str, GapOnData] = field(default_factory=dict)
    """for each latent seen: two prior points that differ in it alone, and in ℓ"""
    tried: str = ""

    @property
    def gap(self) -> GapOnData | None:
        """Two prior points at which ℓ differs, or None."""
        return next(iter(self.gaps.values()), None)


class LikelihoodOnData:
    """ℓ as tapes, prepared once, so that thousands of rows can be judged one by one."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.law = analyse(model)
        self._finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
        self._rest = [s for s in model.latent_symbols if s not in self._finite]
        states = supported_states(model, self._finite) if self._finite else [{}]
        self._states: list[State] = states or []  # pyright: ignore[reportAttributeAccessIssue]
        self._tapes: dict[tuple[int, frozenset[Symbol]], Tape] = {}
        kappa = conditional_law(model).expressions
        self._ignored: list[list[Vector]] = [
            null_directions([e.subs(list(state.items())) for e in kappa], self._rest) if self._rest else []
            for state in self._states
        ]
        groups = simplexes(model)
        self._simplexes = [st for st in model.latents if st.symbols in groups]
        self._tied = {symbol for group in groups for symbol in group}
        self._doubt = self._why_no_gap_counts()
        others = {s: d for s, d in all_domains(model).items() if s not in self._finite}
        self._bases = [self._placed(point) for point in points(others, 4, seed=1)]
        self._moves = list(points({s: others[s] for s in self._rest}, 4, seed=2))

    def _why_no_gap_counts(self) -> str:
        held = [self.model.given(state) if state else self.model for state in self._states]
        if not held or not all(
            takes_every_value(model, s) for model in held for s in self._rest if s not in self._tied
        ):
            return "which values the prior allows was not decided, so a gap along {} may lie outside"
        if tied(self.model):
            return "a gap along {} at parameter values that may break an equation between them"
        whole = any(is_discrete(domain) for domain in self.model.domains.values())
        domains, density = all_domains(self.model), self.model.log_likelihood()
        if self.model.domains and (whole or not analytic(density, domains, of=self.model.domains)):
            return "a gap along {} at one parameter value; kinks or whole numbers may hide it at others"
        return ""

    def _placed(self, point: Mapping[Symbol, Rational], moved: Symbol | None = None) -> dict[Symbol, Any]:
        """The point with draws that add up to something scaled to do so; a latent just `moved` stays where it is."""
        found = dict(point)
        for statement in self._simplexes:
            others = [s for s in statement.symbols if s != moved]
            total = sympy.S.One if statement.family.total is None else statement.family.total
            room = total - (found[moved] if moved in statement.symbols else 0)
            share = room / sympy.Add(*[found[s] for s in others])
            found.update({s: found[s] * share for s in others})
        return found

    def on(self, rows: Sequence[Row]) -> OnRow:
        """Levels on one data set: one row, or several that share their latents."""
        found = OnRow({name: self.law.levels[name] for name in self.model.latent_names})
        for latent in self.model.latent_symbols:
            if self.law.levels[latent.name] is Level.CONSTANT:
                continue
            gap = self._gap(latent, rows)
            if gap is not None and self._doubt:
                found.levels[latent.name] = Level.UNKNOWN
                found.tried = self._doubt.format(latent.name)
            elif gap is not None:
                found.gaps[latent.name] = gap
                found.claims.append(gap)
                if self.law.levels[latent.name] is not Level.PARTIAL:
                    found.levels[latent.name] = Level.INFORMED
            elif latent in self._tied:
                found.levels[latent.name] = Level.UNKNOWN
                found.tried = f"{latent.name} moves with the others that add up to a constant with it"
            elif self._flat(latent, rows):
                found.levels[latent.name] = Level.CONSTANT
                found.claims.append(FlatOnData(tuple(map(_frozen, rows)), latent, tuple(self._states)))
            else:
                found.levels[latent.name] = Level.UNKNOWN
                found.tried = (
                    f"neither a gap in the likelihood nor its absence was proved along {latent.name}"
                )
        self._look_for_directions(rows, found)
        return found

    def _tape(self, place: int, present: Iterable[Symbol]) -> Tape:
        key = (place, frozenset(present))
        if key not in self._tapes:
            density = self._density(place, key[1])
            self._tapes[key] = Tape([density, *[density.diff(latent) for latent in self._continuous]])
        return self._tapes[key]

    @property
    def _continuous(self) -> list[Symbol]:
        return [s for s in self._rest if not is_discrete(self.model.support(s))]

    def _density(self, place: int, present: frozenset[Symbol]) -> Expr:
        held = self.model.given(self._states[place]) if self._states[place] else self.model
        return sympy.Add(*[_given_present(statement, present) for statement in held.observations])

    def _values(
        self, place: int, rows: Sequence[Row], point: Mapping[Symbol, Rational], precision: int
    ) -> list[Any]:
        """ℓ and its slopes at a point, summed over the rows."""
        totals: list[Any] = []
        for row in rows:
            values = balls.run_or_nan(self._tape(place, row), {**point, **row}, precision)
            with flint.ctx.workprec(precision):  # else the sum would be rounded to 53 bits
                totals = values if not totals else [a + b for a, b in zip(totals, values, strict=True)]
        return totals

    def _gap(self, latent: Symbol, rows: Sequence[Row]) -> GapOnData | None:
        frozen = tuple(map(_frozen, rows))
        for precision in balls.PRECISIONS[:2]:
            for one, other, place, second in self._pairs(latent):
                here = self._values(place, rows, one, precision)[0]
                there = self._values(second, rows, other, precision)[0]
                full = ({**one, **self._states[place]}, {**other, **self._states[second]})
                if balls.excludes_zero(here - there):
                    return GapOnData(frozen, latent, *full)
                if here.is_finite() != there.is_finite() and not self.model.domains:
                    claim = ExcludedByData(frozen, latent, *(full if here.is_finite() else full[::-1]))
                    if claim.holds(self.model):
                        return claim
        return None

    def _pairs(self, latent: Symbol) -> Iterable[tuple[dict[Symbol, Any], dict[Symbol, Any], int, int]]:
        """Points that differ in one latent alone, with the places of their states; on a simplex its companions make room."""
        for base, move in zip(self._bases, self._moves, strict=True):
            if latent in self._rest:
                for place in range(len(self._states)):
                    yield base, self._placed({**base, latent: move[latent]}, latent), place, place
            else:
                for place, state in enumerate(self._states):
                    for second in range(place + 1, len(self._states)):
                        other = self._states[second]
                        if all((state[s] == other[s]) is (s != latent) for s in state):
                            yield base, base, place, second
            if not self._rest and not self.model.domains:
                return

    def _flat(self, latent: Symbol, rows: Sequence[Row]) -> bool:
        if len(rows) > _MOST_ROWS:
            return False
        second = Symbol(f"{latent.name}'", **latent.assumptions0)
        densities = [
            sympy.Add(*[self._density(place, frozenset(row)).subs(list(row.items())) for row in rows])
            for place in range(len(self._states))
        ]
        if latent in self._rest:
            return all(vanishes(density - density.subs(latent, second)) for density in densities)
        pairs = [
            (i, j)
            for i, one in enumerate(self._states)
            for j, other in enumerate(self._states)
            if i < j and all((one[s] == other[s]) is (s != latent) for s in one)
        ]
        return bool(pairs) and all(vanishes(densities[i] - densities[j]) for i, j in pairs)

    def _look_for_directions(self, rows: Sequence[Row], found: OnRow) -> None:
        """Whether ℓ ignores more directions than the law does; only then is "INFORMED" in doubt."""
        latents = self._continuous
        if (
            self._doubt
            or len(latents) < 2
            or not any(level is Level.INFORMED for level in found.levels.values())
        ):
            return
        doubtful = False
        for place, state in enumerate(self._states):
            # On a simplex the law's directions lead out of it, and are no claims of the law's.
            ignored = [d for d in self._ignored[place] if set(d) <= set(latents) and not self._simplexes]
            places = self._spread(len(latents))
            slopes = [self._values(place, rows, point, 128)[1:] for point in places]
            rank = certified_rank(along_simplexes(self.model, latents, slopes))
            wanted = len(latents) - len(self._simplexes) - len(ignored)
            if rank < wanted:
                ignored = self._null_directions(place, rows)
                for direction in ignored:
                    found.claims.append(InvisibleOnData(tuple(map(_frozen, rows)), direction, state))
                    for latent in direction:
                        if found.levels[latent.name] is Level.INFORMED:
                            found.levels[latent.name] = Level.PARTIAL
                wanted = len(latents) - len(self._simplexes) - len(ignored)
            if rank >= wanted:
                span = SpanOnData(tuple(map(_frozen, rows)), tuple(latents), state, tuple(places), wanted)
                found.claims.append(span)
            else:
                doubtful = True
        if doubtful:
            for latent in latents:
                if found.levels[latent.name] is Level.INFORMED:
                    found.levels[latent.name] = Level.UNKNOWN
            found.tried = "whether these data ignore a further direction was not decided"

    def _null_directions(self, place: int, rows: Sequence[Row]) -> list[Vector]:
        """Constant directions that ℓ of these data ignores in a state; of a simplex, those that keep its sum."""
        if len(rows) > _MOST_ROWS:
            return []
        density = sympy.Add(*[self._density(place, frozenset(row)).subs(list(row.items())) for row in rows])
        last = {}
        for statement in self._simplexes:
            *others, end = statement.symbols
            last[end] = statement.family.total - sympy.Add(*others)
        moving = [s for s in self._continuous if s not in last]
        found = null_directions([density.xreplace(last)], moving)
        for direction in found:
            for statement in self._simplexes:
                given_way = -sympy.Add(*[direction.get(s, sympy.S.Zero) for s in statement.symbols[:-1]])
                if given_way != 0:
                    direction[statement.symbols[-1]] = given_way
        return found

    def _spread(self, size: int) -> list[dict[Symbol, Rational]]:
        base, move = self._bases[0], self._moves[0]
        steps = [self._placed({**base, latent: move[latent]}, latent) for latent in self._continuous]
        return [base, *steps, *self._bases[1:]]


def _given_present(statement: Statement, present: frozenset[Symbol]) -> Expr:
    kept = marginal(statement, [symbol in present for symbol in statement.symbols])
    return sympy.S.Zero if kept is None else kept.log_density()


def _frozen(row: Row) -> tuple[tuple[Symbol, Expr], ...]:
    return tuple(row.items())

"""Proofs that re-check themselves. Nothing here calls the search: not `field`, `symmetry` nor `injectivity`;
only the definition of the law (`summary`) is shared.

A `Proof` holds claims about a model; each claim is re-derived from the model's statements: laws are compared through
their natural parameters (the search compares arguments), zeros are proved by SymPy's own simplifier after a try at
refuting them in ball arithmetic, and non-zeros by balls. At the end the levels are derived from the claims alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import flint
import sympy
from flint import arb
from sympy import Expr, Integer, Rational, S, Symbol

from identkit.model import balls
from identkit.model.families import Family, Mixture
from identkit.model.model import Model, marginal
from identkit.model.tape import Tape
from identkit.symbolic.summary import conditional_law
from identkit.verdict import Certificate, Level

Point = Mapping[Symbol, Rational]
State = Mapping[Symbol, Integer]


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
class Proof(Certificate):
    """Claims about a model, and the levels that follow from them."""

    model: Model
    claims: tuple[Claim, ...]
    levels: Mapping[str, Level] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return " + ".join(dict.fromkeys(type(claim).__name__ for claim in self.claims))

    @property
    def statement(self) -> str:
        return "; ".join(dict.fromkeys(claim.sentence for claim in self.claims)) + "."

    def verify(self) -> bool:
        if not all(claim.holds(self.model) for claim in self.claims):
            return False
        return all(self._follows(name, level) for name, level in self.levels.items() if level is not Level.UNKNOWN)

    def _follows(self, name: str, level: Level) -> bool:
        evidence = [claim for claim in self.claims if level in claim.supports.get(name, ())]
        read_off = [claim for claim in evidence if isinstance(claim, Recovered | Monotone)]
        if level is Level.GLOBAL and len(read_off) == len(evidence):
            # One formula in every state of the finite latents, each built on what was known by then.
            states = [tuple(claim.state.items()) for claim in read_off]
            needed = {tuple(s.items()) for claim in self.claims if isinstance(claim, AllDiffer) for s in claim.states}
            earlier = {(k.name, *s) for c, s in zip(read_off, states, strict=True) for k in c.known}
            known = {(c.latent.name, *c.state.items()) for c in self.claims if isinstance(c, Recovered | Monotone)}
            return bool(evidence) and needed <= set(states) and earlier <= known
        return bool(evidence)


@dataclass(frozen=True)
class Ignored(Claim):
    """The law does not change when these latents do (theory/T1, T3)."""

    latents: tuple[Symbol, ...]
    state: State = field(default_factory=dict)
    level: Level = Level.CONSTANT

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (self.level,) for latent in self.latents}

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
        t = Symbol("t", real=True)
        moved = {latent: latent + t * entry for latent, entry in self.direction.items()}
        return any(entry != 0 for entry in self.direction.values()) and _same_law(
            model, dict(self.state), {**self.state, **moved}
        )


@dataclass(frozen=True)
class Merged(Claim):
    """Two states have one law."""

    one: State
    other: State
    level: Level = Level.PARTIAL

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (self.level,) for latent in self.one if self.one[latent] != self.other[latent]}

    @property
    def sentence(self) -> str:
        return f"the states ({_named(self.one)}) and ({_named(self.other)}) have one law"

    def holds(self, model: Model) -> bool:
        return dict(self.one) != dict(self.other) and _same_law(model, dict(self.one), dict(self.other))


@dataclass(frozen=True)
class Recovered(Claim):
    """A formula that gives a latent back from the law, given what was recovered before."""

    latent: Symbol
    formula: Expr
    summary: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.GLOBAL,)}

    @property
    def sentence(self) -> str:
        used = {symbol: value for symbol, value in self.summary.items() if symbol in self.formula.free_symbols}
        where = ", ".join(f"{symbol} = {value}" for symbol, value in used.items())
        return f"{self.latent.name} = {self.formula}" + (f", where the law has {where}" if where else "")

    def holds(self, model: Model) -> bool:
        return self.latent not in self.known and _read_off(self, model, self.latent)


@dataclass(frozen=True)
class Monotone(Claim):
    """A formula of the law is strictly monotone in a latent, everything else in it being known."""

    latent: Symbol
    inner: Expr
    sign: int
    formula: Expr
    summary: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.GLOBAL,)}

    @property
    def sentence(self) -> str:
        return f"the law determines {self.inner}, which strictly {'in' if self.sign > 0 else 'de'}creases in {self.latent.name}"

    def holds(self, model: Model) -> bool:
        if not self.inner.free_symbols <= {*self.known, *model.parameters, self.latent}:
            return False
        if not _read_off(self, model, self.inner):
            return False
        slope = self.sign * self.inner.diff(self.latent)
        return _never_negative(slope, self.latent, model.support(self.latent)) and _somewhere_not_zero(slope, model)


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
        if not set(self.summary) <= set(conditional_law(model).expressions):
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
        return moves and _same_law(model, {}, dict(self.change))


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
        kinks = self.summary.has(sympy.Abs, sympy.Max, sympy.Min, sympy.sign)
        inside = self.summary in conditional_law(model).expressions
        return inside and not kinks and _apart((self.summary,), self.one, self.other)


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
        if any(self.one[s] != self.other[s] for s in model.latent_symbols if s != self.latent):
            return False
        return any(balls.excludes_zero(self.gap(model, precision)) for precision in balls.PRECISIONS)

    def gap(self, model: Model, precision: int = 128) -> arb:
        """``ℓ(one) − ℓ(other)`` in nats, as a ball."""
        here, there = (_log_likelihood(model, self.data, point, precision)[0] for point in (self.one, self.other))
        return here - there


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
        second = Symbol(f"{self.latent.name}'", **self.latent.assumptions0)
        values = _values(model, self.latent)
        for state in self.states:
            rest = {s: v for s, v in state.items() if s != self.latent}
            density = sympy.Add(
                *[st.log_density().subs(list(row)).subs(list(rest.items())) for row in self.data for st in model.observations]
            )
            options = [second] if values is None else values
            base = self.latent if values is None else values[0]
            if not all(_zero(density.subs(self.latent, base) - density.subs(self.latent, to)) for to in options):
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
        slopes = [
            _log_likelihood(model, self.data, {**point, **self.state}, 256, self.latents)[1:] for point in self.points
        ]
        return certified_rank(slopes) >= self.rank


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
    for row in data:
        kept = [marginal(st, [s in dict(row) for s in st.symbols]) for st in model.observations]
        density = sympy.Add(*[st.log_density() for st in kept if st is not None])
        held = density.subs([(s, v) for s, v in point.items() if s not in along and s.is_integer])
        tape = Tape([held, *[held.diff(latent) for latent in along]])
        values = balls.run_or_nan(tape, {**dict(row), **point}, precision)
        totals = [a + b for a, b in zip(totals, values, strict=True)]
    return totals


def _read_off(claim: Recovered | Monotone, model: Model, target: Expr) -> bool:
    """Whether the claim's formula of the law, and of what is known, is identically the target."""
    allowed = {*claim.known, *claim.summary, *model.parameters}
    here = [e.subs(list(claim.state.items())) for e in conditional_law(model).expressions]
    if not claim.formula.free_symbols <= allowed or not set(claim.summary.values()) <= set(here):
        return False
    return _zero(claim.formula.subs(list(claim.summary.items())) - target)


# Laws


def _same_law(model: Model, here: Mapping[Symbol, Expr], there: Mapping[Symbol, Expr]) -> bool:
    for statement in model.observations:
        try:
            one = statement.family.map(lambda e: e.subs(list(here.items()), simultaneous=True))
            two = statement.family.map(lambda e: e.subs(list(there.items()), simultaneous=True))
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
        pairs = zip(first.natural, second.natural, strict=True)
    return all(_zero(a - b) for a, b in pairs)


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
    return all(_zero(total) for total, _ in totals)


def _values(model: Model, latent: Symbol) -> list[Expr] | None:
    support = model.support(latent)
    finite = support.is_FiniteSet or isinstance(support, sympy.Range) and support.size.is_finite
    return list(support) if finite else None


# Zero and not zero


def _zero(expression: Expr) -> bool:
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
    if plain == 0 or sympy.cancel(sympy.together(plain)) == 0:
        return True
    through_exp = sympy.powsimp(sympy.expand(sympy.expand_log(expression.rewrite(sympy.exp), force=False)))
    return through_exp == 0 or sympy.simplify(through_exp) == 0 or sympy.simplify(expression) == 0


def _trial(expression: Expr, attempt: int) -> dict[Symbol, Rational]:
    point = {}
    for place, symbol in enumerate(sorted(expression.free_symbols, key=str), 1):
        size = Integer(abs(attempt)) if symbol.is_integer else Rational(7 * abs(attempt) + 3 * place + 1, 31 + 2 * place)
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
    domains = {**model.parameters, **{s: st.family.support for st in model.latents for s in st.symbols}}
    for attempt in range(1, 6):
        point = _trial(expression, attempt)
        if any(domains[symbol].contains(value) == sympy.false for symbol, value in point.items()):
            point = {symbol: Rational(attempt, 7) for symbol in point}
        if balls.excludes_zero(balls.run_or_nan(tape, point, 192)[0]):
            return True
    return False


def _never_negative(slope: Expr, latent: Symbol, support: sympy.Set) -> bool:
    """A derivative is ≥ 0 on the support: each monomial is, in positive variables and even powers; or by real roots."""
    low, high = support.inf, support.sup
    t = Symbol("t", positive=True)
    if low.is_finite and high.is_finite:
        slope = slope.subs(latent, (low + high * t) / (1 + t))
    elif low.is_finite or high.is_finite:
        slope = slope.subs(latent, low + t if low.is_finite else high - t)
    top, bottom = sympy.fraction(sympy.cancel(sympy.together(slope.rewrite(sympy.exp))))
    if all(_plainly_positive(side) for side in (top, bottom)):
        return True
    if all(_plainly_positive(-side) for side in (top, bottom)):
        return True
    return _no_sign_change(sympy.expand(top * bottom), latent if slope.has(latent) else t)


def _plainly_positive(polynomial: Expr) -> bool:
    def positive(factor: Expr) -> bool:
        base, exponent = factor.as_base_exp()
        if isinstance(factor, sympy.exp) or (base.is_Symbol and base.is_positive):
            return True
        return factor.is_positive is True or (exponent.is_Integer and exponent % 2 == 0 and base.is_real is True)

    return all(all(positive(f) for f in sympy.Mul.make_args(term)) for term in sympy.Add.make_args(sympy.expand(polynomial)))


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
    roots = [root.real for root, _ in exact.complex_roots() if 0 in root.imag]
    start = 0 if variable.is_positive else None
    cuts = sorted(float(root.mid()) for root in roots if start is None or not root < 0)
    low = (cuts[0] if cuts else 0.0) - 1.0 if start is None else 0.0
    marks = [low, *cuts, (cuts[-1] if cuts else 1.0) + 1.0]
    if any(0 < b - a < 1e-6 for a, b in pairwise(marks)):
        return False
    gaps = [Rational((a + b) / 2) for a, b in pairwise(marks) if b > a]
    values = [sum(Rational(int(c)) * gap**i for i, c in enumerate(exact.coeffs())) for gap in gaps]
    return all(value > 0 for value in values)


def _named(point: Mapping[Symbol, Expr]) -> str:
    return ", ".join(f"{symbol.name} = {value}" for symbol, value in point.items())

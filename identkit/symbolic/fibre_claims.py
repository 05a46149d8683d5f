"""Claims on κ: what it contains, leaves free, gives back or is symmetric under, each checked without the search."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy
from sympy import Dummy, Expr, Interval, Matrix, S, Symbol

from identkit.model import balls
from identkit.model.tape import Tape
from identkit.symbolic.certificates.zeros import certified_rank, never_negative, zero
from identkit.symbolic.fibre_points import gone, keeps_domains, not_zero_somewhere, points_inside
from identkit.symbolic.fractions import annihilated
from identkit.symbolic.modular import PRIMES, Evaluator
from identkit.symbolic.problem import Problem
from identkit.symbolic.questions import Question
from identkit.symbolic.rank import row_space
from identkit.symbolic.regularity import analytic, from_half_line, positive, regular
from identkit.symbolic.variety import moves_what_is_allowed
from identkit.symbolic.wording import field_in_words, map_in_words
from identkit.verdict import Level

Values = Mapping[Symbol, Expr]


class FibreClaim(ABC):
    """One provable sentence about κ."""

    @abstractmethod
    def holds(self, asked: Question) -> bool:
        """Whether the claim is true of this κ."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """The claim in words."""

    @property
    @abstractmethod
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        """The levels for which the claim is evidence, by unknown."""

    @property
    def known(self) -> tuple[Symbol, ...]:
        """Unknowns that must be determined already for the claim to say something."""
        return ()


@dataclass(frozen=True)
class Unseen(FibreClaim):
    """No entry of κ changes with these unknowns."""

    unknowns: tuple[Symbol, ...]

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return dict.fromkeys(self.unknowns, (Level.CONSTANT,))

    @property
    def sentence(self) -> str:
        return f"the law of the data does not change with {', '.join(u.name for u in self.unknowns)}"

    def holds(self, asked: Question) -> bool:
        seen = (*asked.problem.summary, *asked.problem.constraints)
        elsewhere = {u: Dummy(u.name, **u.assumptions0) for u in self.unknowns}
        return all(zero(e - e.xreplace(elsewhere)) for e in seen if e.has(*self.unknowns))


@dataclass(frozen=True)
class NullField(FibreClaim):
    """A vector field along which κ does not change; `alive` are the unknowns that it moves at the point asked about."""

    components: Mapping[Symbol, Expr]
    alive: tuple[Symbol, ...]
    point: Values = field(default_factory=dict)
    ties: Mapping[Symbol, Symbol] = field(default_factory=dict)
    """coordinates that equal another one at the point, and along the field"""

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return dict.fromkeys(self.alive, (Level.PARTIAL,))

    @property
    def sentence(self) -> str:
        where = ", ".join(f"{one.name} = {other.name}" for one, other in self.ties.items())
        return f"{field_in_words(self.components)} leaves the law unchanged" + (
            f" where {where}" if where else ""
        )

    def holds(self, asked: Question) -> bool:
        if any(self.components.get(s, S.Zero) != 0 for s in asked.problem.whole):
            return False  # whole numbers do not flow
        if set(self.components) & set(self.ties) or any(self.ties.get(u) for u in self.ties.values()):
            return False
        if any(
            self.point.get(one) is None or self.point[one] != self.point.get(other)
            for one, other in self.ties.items()
        ):
            return False
        for full in (*asked.problem.summary, *asked.problem.constraints):
            expression = full.subs(self.ties) if self.ties else full
            null = annihilated(expression, self.components)
            if null is None:
                touched = {s: e for s, e in self.components.items() if expression.has(s)}
                null = zero(sympy.Add(*[e * expression.diff(s) for s, e in touched.items()]))
            if not null:
                return False
        if not self._stays(asked.problem):
            return False
        values = [self.components[self.ties.get(u, u)].subs(list(self.point.items())) for u in self.alive]
        everything = [e.subs(list(self.point.items())) for e in self.components.values()]
        if any(e.has(S.NaN, S.ComplexInfinity) for e in everything):
            return False
        return all(not_zero_somewhere(value, asked.problem) for value in values)

    def _stays(self, problem: Problem) -> bool:
        # From the edge of a domain the flow must not lead away: there it has to keep the coordinate.
        for symbol, value in self.point.items():
            moving = self.components.get(self.ties.get(symbol, symbol), S.Zero)
            if problem.domains[symbol].contains(value) != sympy.true and not zero(moving.subs(symbol, value)):
                return False
        return True


@dataclass(frozen=True)
class Rank(FibreClaim):
    """The generic rank of κ, and which unknowns a generic fibre moves: at fresh points of fresh prime fields.

    Full rank is proved by one point; a deficiency holds with the stated probability of error.
    """

    rank: int
    free: tuple[Symbol, ...]
    fixed: tuple[Symbol, ...]
    error: float

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return {u: (Level.PARTIAL,) for u in self.free} | {u: (Level.LOCAL,) for u in self.fixed}

    @property
    def sentence(self) -> str:
        doubt = f" (probability of error below {self.error:.0e})" if self.free else ""
        return f"the Jacobian of the law has generic rank {self.rank} of {len(self.free) + len(self.fixed)}{doubt}"

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        if not all(analytic(e, problem.domains) for e in problem.summary):
            return False
        if any(problem.whole & e.free_symbols for e in (*problem.summary, *problem.constraints)):
            return False
        chance = random.Random(2026)
        for prime in PRIMES[2:]:
            evaluator = Evaluator(problem.summary, problem.unknowns, problem.constraints, prime)
            if evaluator.opaque or evaluator.constants:
                return not self.free and self._by_balls(problem)
            rank, fixed = row_space(evaluator.at(evaluator.draw(chance))[1], prime)
            if rank != self.rank or {problem.unknowns[i] for i in fixed} != set(self.fixed):
                return False
        return set(self.free) | set(self.fixed) == set(problem.unknowns)

    def _by_balls(self, problem: Problem) -> bool:
        slopes = [[e.diff(u) for u in problem.unknowns] for e in problem.summary]
        tape = Tape([entry for row in slopes for entry in row])
        width = len(problem.unknowns)
        for point in points_inside(problem, 4):
            flat = balls.run_or_nan(tape, point, 256)
            if certified_rank([flat[i : i + width] for i in range(0, len(flat), width)]) == width:
                return not problem.constraints
        return False


class Determines(FibreClaim):
    """κ gives one unknown back, those in `needs` being known."""

    unknown: Symbol
    needs: tuple[Symbol, ...]

    @property
    def known(self) -> tuple[Symbol, ...]:
        return self.needs

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return {self.unknown: (Level.GLOBAL,)}


@dataclass(frozen=True)
class ReadOff(Determines):
    """A formula of κ, and of what is known, for an unknown or for the square of one of known sign."""

    unknown: Symbol
    target: Expr
    formula: Expr
    summary: Mapping[Symbol, Expr]
    needs: tuple[Symbol, ...]
    divisor: Expr
    point: Values = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        used = ", ".join(f"{s} = {e}" for s, e in self.summary.items())
        return f"{self.target} = {self.formula}" + (f", where the law has {used}" if used else "")

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        if not set(self.summary.values()) <= set(problem.summary):
            return False
        if (
            not self.formula.free_symbols <= {*self.summary, *self.needs, *problem.known}
            or self.unknown in self.needs
        ):
            return False
        domain = problem.domains[self.unknown]
        signed = domain.inf >= 0 or domain.sup <= 0
        one_to_one = (self.unknown, sympy.exp(self.unknown), sympy.exp(2 * self.unknown))
        if self.target not in one_to_one and not (self.target == self.unknown**2 and signed):
            return False
        if not gone(self.formula.subs(list(self.summary.items())) - self.target):
            return False
        bottom = sympy.fraction(sympy.together(self.formula))[1].subs(list(self.summary.items()))
        return not_zero_somewhere(bottom.subs(list(self.point.items())), problem)


@dataclass(frozen=True)
class Rising(Determines):
    """κ determines an expression that is strictly monotone in one unknown, everything else in it being known."""

    unknown: Symbol
    inner: Expr
    sign: int
    formula: Expr
    summary: Mapping[Symbol, Expr]
    needs: tuple[Symbol, ...]

    @property
    def sentence(self) -> str:
        return f"the law determines {self.inner}, which is strictly monotone in {self.unknown.name}"

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        if not set(self.summary.values()) <= set(problem.summary):
            return False
        if not self.formula.free_symbols <= {*self.summary, *self.needs, *problem.known}:
            return False
        if not self.inner.free_symbols <= {self.unknown, *self.needs, *problem.known}:
            return False
        domain = problem.domains[self.unknown]
        if not isinstance(domain, Interval) or not zero(
            self.formula.subs(list(self.summary.items())) - self.inner
        ):
            return False
        # A derivative with isolated zeros at most, on an interval without poles.
        slope = self.sign * self.inner.diff(self.unknown)
        t = Symbol("t", positive=True)
        half = domain.inf.is_finite or domain.sup.is_finite
        curve = self.inner.subs(self.unknown, from_half_line(domain, t)) if half else self.inner
        moved = slope.subs(self.unknown, from_half_line(domain, t)) if half else slope
        return (
            regular(curve)
            and never_negative(moved, t if half else self.unknown)
            and not_zero_somewhere(slope, problem)
        )


@dataclass(frozen=True)
class Definite(FibreClaim):
    """The symmetric part of the Jacobian of these entries of κ is positive definite on a convex domain."""

    unknowns: tuple[Symbol, ...]
    entries: tuple[Expr, ...]

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return dict.fromkeys(self.unknowns, (Level.GLOBAL,))

    @property
    def sentence(self) -> str:
        return f"the Jacobian of ({', '.join(map(str, self.entries))}) has a positive definite symmetric part"

    def holds(self, asked: Question) -> bool:
        problem = asked.problem
        inside = set(problem.summary) | {-e for e in problem.summary}
        intervals = all(isinstance(problem.domains[u], Interval) for u in self.unknowns)
        if not (set(self.entries) <= inside and intervals and all(regular(e) for e in self.entries)):
            return False
        if set(self.unknowns) != set(problem.unknowns):
            return False
        direction = [sympy.Dummy(f"d{i}", real=True) for i in range(len(self.unknowns))]
        jacobian = Matrix(self.entries).jacobian(list(self.unknowns))
        # Sylvester, by eliminating from the last unknown where the search eliminates from the first.
        symmetric = (jacobian + jacobian.T)[::-1, ::-1]
        minors = [symmetric[:k, :k].det() for k in range(1, len(direction) + 1)]
        return all(positive(sympy.expand(minor)) for minor in minors)


@dataclass(frozen=True)
class Mirrored(FibreClaim):
    """A map of the unknowns, other than the identity, that keeps κ and the domains."""

    change: Mapping[Symbol, Expr]

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return {}

    @property
    def sentence(self) -> str:
        return f"the law is the same under {map_in_words(self.change)}"

    def holds(self, asked: Question) -> bool:
        if all(e == s for s, e in self.change.items()) or not asked.problem.exhaustive:
            return False
        problem = asked.problem
        if any(problem.whole & {s, *e.free_symbols} for s, e in self.change.items()):
            return False
        images = [(e.xreplace(dict(self.change)), e) for e in problem.summary]
        if not all(gone(image - e) for image, e in images) or not keeps_domains(self.change, problem):
            return False
        if not moves_what_is_allowed(self.change, problem, points_inside(problem, 12)):
            return False
        moved = [(e.xreplace(dict(self.change)), e) for e in problem.constraints]
        return all(gone(image - e) or gone(image + e) for image, e in moved)


@dataclass(frozen=True)
class Relabelled(FibreClaim):
    """Two components of the mixture change places under a map of the unknowns, or cannot change places at all."""

    pair: tuple[int, int]
    change: Mapping[Symbol, Expr]

    @property
    def supports(self) -> dict[Symbol, tuple[Level, ...]]:
        return {}

    @property
    def sentence(self) -> str:
        one, other = (i + 1 for i in self.pair)
        if not self.change:
            return f"components {one} and {other} cannot change places"
        return f"components {one} and {other} change places under {map_in_words(self.change)}"

    def holds(self, asked: Question) -> bool:
        rows = list(asked.components)
        i, j = self.pair
        if not self.change:
            return _cannot_swap(rows[i], rows[j], asked.problem)
        swapped = list(rows)
        swapped[i], swapped[j] = rows[j], rows[i]
        inside = {entry for row in rows for entry in row}
        rest = [e for e in asked.problem.summary if e not in inside]
        pairs = [
            (a, b)
            for before, after in zip(rows, swapped, strict=True)
            for a, b in zip(before, after, strict=True)
        ]
        pairs += [(e, e) for e in rest]
        same = all(gone(a.xreplace(dict(self.change)) - b) for a, b in pairs)
        return same and keeps_domains(self.change, asked.problem)


def _cannot_swap(one: tuple[Expr, ...], other: tuple[Expr, ...], problem: Problem) -> bool:
    # A fixed number in one component would have to be met by an expression that generically misses it.
    for a, b in zip(one, other, strict=True):
        for fixed, moving in ((a, b), (b, a)):
            gap = moving - fixed
            if not fixed.free_symbols and moving.free_symbols and not_zero_somewhere(gap, problem):
                return True
            if not fixed.free_symbols and not moving.free_symbols and gap != 0 and not zero(gap):
                return True
    return False

"""Discrete invariances: maps T with κ∘T = κ. Sign flips are found by parity, permutations and involutions by trial.

A candidate is tested first at a random point in ball arithmetic and then verified exactly. Finding none proves
nothing: that is why LOCAL without such a map is only a lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product

import flint
import sympy
from sympy import Expr, Interval, Rational, S, Set, Symbol

from identkit.model import balls
from identkit.model.tape import Tape
from identkit.symbolic.field import points, vanishes
from identkit.symbolic.fractions import exponentials_opened
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem
from identkit.symbolic.variety import moves_what_is_allowed

Map = dict[Symbol, Expr]
"""Where each moved unknown goes."""
_MOST_TRIALS = 600
_MOST_UNKNOWNS = 40


def discrete_maps(
    problem: Problem, movable: Sequence[Symbol], most: int = _MOST_TRIALS
) -> list[tuple[str, Map]]:
    """Maps of the unknowns that keep κ and the domains, each with its kind.

    Args:
        problem: unknowns and κ; where more than κ may be known of the law, no map keeps the law for sure.
        movable: the unknowns that are not determined yet; every map moves some of them.
        most: candidates to try at most.

    >>> u, v = sympy.symbols("u v", real=True)
    >>> domains = {u: S.Reals, v: S.Reals}
    >>> discrete_maps(Problem((u, v), domains, (u * v, u + v)), (u, v))
    [('permutation', {u: v, v: u})]
    """
    trial = _Trial.of(problem)
    found: list[tuple[str, Map]] = []
    left = set(movable)
    if trial is None or not problem.exhaustive:
        return found
    for kind, change in islice(candidates(problem), most):
        if not left:
            break
        if set(change) & left and trial.plausible(change) and keeps(change, problem) and trial.moves(change):
            found.append((kind, change))
            left -= set(change)
    return found


def moves_inside(change: Map, problem: Problem) -> bool:
    """Whether a map is no identity, keeps κ exactly and leads from points inside to points inside."""
    trial = _Trial.of(problem, 3)
    moves = any(e != s for s, e in change.items())
    return (
        problem.exhaustive
        and trial is not None
        and moves
        and trial.plausible(change)
        and keeps(change, problem)
        and trial.moves(change)
    )


@dataclass(frozen=True)
class _Trial:
    """κ at some points in ball arithmetic: a few short entries first, which most wrong maps change already."""

    problem: Problem
    points: list[dict[Symbol, Rational]]
    tapes: tuple[Tape, ...]
    before: list[list[list]]

    @classmethod
    def of(cls, problem: Problem, count: int = 2) -> _Trial | None:
        inside = _inside(problem, count)
        if inside is None:
            return None
        short = sorted(problem.summary, key=sympy.count_ops)[:4]
        tapes = (Tape(short), Tape(list(problem.summary)))
        return cls(problem, inside, tapes, [[balls.run_or_nan(t, p, 128) for t in tapes] for p in inside])

    def plausible(self, change: Map) -> bool:
        """Whether the map stays inside and keeps κ at these points."""
        domains = self.problem.domains
        strangers = [s for s, e in change.items() if domains.get(e) != domains[s]]  # type: ignore[call-overload]
        for point, values in zip(self.points, self.before, strict=True):
            moved = {**point, **{s: point[e] if e in point else e.xreplace(point) for s, e in change.items()}}
            if not all(_holds(domains[s], moved[s]) for s in strangers):
                return False
            if not _positive(self.problem.inequalities, moved):
                return False
            for tape, earlier in zip(self.tapes, values, strict=True):
                after = balls.run_or_nan(tape, moved, 128)
                if not all(a.overlaps(b) for a, b in zip(earlier, after, strict=True)):
                    return False
        return True

    def moves(self, change: Map) -> bool:
        """Whether the map moves points that meet the constraints."""
        everything = {s: self.problem.domains[s] for s in (*self.problem.unknowns, *self.problem.known)}
        return moves_what_is_allowed(change, self.problem, list(points(everything, 12, seed=6)))


def _inside(problem: Problem, count: int) -> list[dict[Symbol, Rational]] | None:
    """Points of the domains at which the inequalities hold; None if too few are met by chance."""
    everything = {s: problem.domains[s] for s in (*problem.unknowns, *problem.known)}
    inside = (p for p in points(everything, 200, seed=5) if _positive(problem.inequalities, p))
    found = list(islice(inside, count))
    return found if len(found) == count else None


def _positive(expressions: Sequence[Expr], point: dict[Symbol, Expr]) -> bool:
    return all(e.xreplace(point).is_positive is True for e in expressions)


def _holds(domain: Set, value: Expr) -> bool:
    if isinstance(domain, Interval) and value.is_Rational and domain.left_open and domain.right_open:
        return bool(domain.inf < value) and bool(value < domain.sup)
    return domain.contains(value) == sympy.true


def keeps(change: Map, problem: Problem) -> bool:
    """Whether κ∘T = κ identically, exactly; and each constraint keeps its value, up to sign."""
    moved = [e for e in (*problem.summary, *problem.constraints) if e.free_symbols & set(change)]
    for expression in moved:
        image = expression.xreplace(change)
        held = _zero(image - expression) or (expression in problem.constraints and _zero(image + expression))
        if not held:
            return False
    return True


def _zero(gap: Expr) -> bool:
    opened = exponentials_opened(gap)
    try:
        zero = Ring(opened.free_symbols).is_zero(opened)  # type: ignore[arg-type]
    except NotRational:
        return vanishes(gap)
    return zero or (opened != gap and vanishes(gap))


def candidates(problem: Problem) -> Iterator[tuple[str, Map]]:
    """Maps worth trying, likely ones first."""
    real = [u for u in problem.unknowns if problem.domains[u].inf == -problem.domains[u].sup]
    for flip in _sign_flips(problem, real):
        yield "sign flip", {u: -u for u in flip}
    for turned in _turned_units(real):
        yield "other", turned
    if len(problem.unknowns) > _MOST_UNKNOWNS:
        return
    permutations = list(_permutations(problem.unknowns))
    for permutation in permutations:
        yield "permutation", permutation
    # Two classes change places with everything else: their probabilities, of which one is what the others leave.
    for near in (True, False):
        for permutation in permutations:
            exchanged = _indices(permutation)
            for u, rest in _left_over(problem):
                named = bool(exchanged & set(re.findall(r"\d+", u.name)))
                if u not in permutation and named is near:
                    yield "permutation", {**permutation, u: rest}
    for u in problem.unknowns:
        if problem.domains[u].inf == 0 and problem.domains[u].sup == 1:
            yield "other", {u: 1 - u}
    yield from _periods(problem)
    yield from _complements(problem)
    if len(problem.unknowns) <= 5:
        yield from _monomial_involutions(problem.unknowns)


def _left_over(problem: Problem) -> list[tuple[Symbol, Expr]]:
    """Each probability with the one that it and others leave over: ``1 − p₁ − p₂`` or, alone, ``1 − p``."""
    unknowns = set(problem.unknowns)
    found: list[tuple[Symbol, Expr]] = []
    for rest in problem.inequalities:
        terms = rest.as_coefficients_dict()
        parts = [term for term, weight in terms.items() if weight == -1 and term in unknowns]
        if terms.get(S.One) == 1 and len(parts) == len(terms) - 1:
            found += [(u, rest) for u in sorted(parts, key=str)]
    chances = [u for u in problem.unknowns if problem.domains[u].inf == 0 and problem.domains[u].sup == 1]
    return found + [(u, 1 - u) for u in chances]


def _indices(permutation: Map) -> set[str]:
    """The indices that a permutation of unknowns exchanges."""
    changed = [(u.name, str(v)) for u, v in permutation.items()]
    return set().union(
        *[set(re.findall(r"\d+", one)) ^ set(re.findall(r"\d+", other)) for one, other in changed]
    )


def _sign_flips(problem: Problem, real: Sequence[Symbol]) -> list[list[Symbol]]:
    """A basis of the sign changes that κ does not notice: parities of exponents, over the field of two elements."""
    if not real:
        return []
    rows: list[list[int]] = []
    for expression in map(exponentials_opened, problem.summary):
        try:
            ring = Ring(expression.free_symbols)  # type: ignore[arg-type]
            top, bottom = ring.fraction(expression)
        except NotRational:
            return [[u] for u in real]
        exponents = [
            dict(zip(ring.symbols, m, strict=False)) for side in (top, bottom) for m in side.monoms()
        ]
        parities = [[int(e.get(u, 0)) % 2 for u in real] for e in exponents]
        rows += [[(a - b) % 2 for a, b in zip(p, parities[0], strict=True)] for p in parities[1:]]
    if not rows:
        return [[u] for u in real]
    reduced, rank = flint.nmod_mat(len(rows), len(real), [e for row in rows for e in row], 2).rref()
    pivots = [next(j for j in range(len(real)) if int(reduced[i, j])) for i in range(rank)]
    flips = []
    for free in (j for j in range(len(real)) if j not in pivots):
        flips.append([real[free], *[real[p] for i, p in enumerate(pivots) if int(reduced[i, free])]])
    return flips


def _turned_units(real: Sequence[Symbol]) -> Iterator[Map]:
    """A hidden unit turned over: its own unknowns change sign, and another takes up what that adds.

    The unit h has the elements with last index h of some vectors and matrices; v[j] takes up w[j,h], and v takes up
    w[h]. So a sigmoid unit goes: ``c + w sigmoid(a x + b)`` is ``c + w - w sigmoid(-a x - b)``.
    """
    elements = {u: (u.name.split("[")[0], re.findall(r"\d+", u.name)) for u in real}
    stems = list(dict.fromkeys(stem for stem, places in elements.values() if places))
    units = sorted({places[-1] for _, places in elements.values() if places})
    for size in (1, 2, 3):
        for chosen, unit in product(combinations(stems, size), units):
            own = [u for u, (stem, places) in elements.items() if stem in chosen and places[-1] == unit]
            for giver, taker in product(chosen, {stem for stem, _ in elements.values()} - set(chosen)):
                given = {tuple(elements[u][1][:-1]): u for u in own if elements[u][0] == giver}
                taken = {
                    u: given.get(tuple(places)) for u, (stem, places) in elements.items() if stem == taker
                }
                for sign in (1, -1):
                    shifts = {u: u + sign * w for u, w in taken.items() if w is not None}
                    if shifts:
                        yield {**{u: -u for u in own}, **shifts}


def _permutations(unknowns: Sequence[Symbol]) -> Iterator[Map]:
    """Exchanging two indices, two vectors, or two names that differ in a digit or a letter, wherever they occur."""
    names = {u.name: u for u in unknowns}
    indices = {name: re.findall(r"\d+", name) for name in names}
    digits = sorted({i for found in indices.values() for i in found})
    for one, other in combinations(digits, 2):
        for place in (None, 0, 1, -1):
            swapped = {name: _swapped(name, one, other, place) for name in names}
            change = {names[n]: names[m] for n, m in swapped.items() if m != n and m in names}
            complete = all(m in names for n, m in swapped.items())
            if change and complete:
                yield change
            elif change:
                yield {u: v for u, v in change.items() if change.get(v) == u}
    stems = sorted({name.split("[")[0] for name in names})
    for one, other in combinations(stems, 2):
        change = {}
        for name, u in names.items():
            stem, _, rest = name.partition("[")
            partner = {one: other, other: one}.get(stem)
            target = partner + (f"[{rest}" if rest else "") if partner else None
            if target in names:
                change[u] = names[target]
        if change:
            yield change
    if len(unknowns) <= 24:
        for one, other in combinations(unknowns, 2):
            yield {one: other, other: one}
    if len(unknowns) <= 8:
        for pairs in combinations(list(combinations(unknowns, 2)), 2):
            if not set(pairs[0]) & set(pairs[1]):
                yield {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def _swapped(name: str, one: str, other: str, place: int | None) -> str:
    """The name with two indices exchanged: wherever they stand, or in one place only, −1 being the last."""
    table = {one: other, other: one}
    places = re.findall(r"\d+", name)
    here = len(places) - 1 if place == -1 else place
    count = iter(range(99))
    return re.sub(
        r"\d+", lambda m: table.get(m[0], m[0]) if place is None or next(count) == here else m[0], name
    )


def _periods(problem: Problem) -> Iterator[tuple[str, Map]]:
    """u → u + 2π/c for an unknown inside sin or cos with coefficient c, and the reflection π/c − u."""
    for wave in sorted(
        {a for e in problem.summary for a in e.atoms(sympy.sin, sympy.cos, sympy.tan)}, key=str
    ):
        for u in wave.free_symbols & set(problem.unknowns):  # type: ignore[operator]
            slope = wave.args[0].diff(u)
            if problem.domains[u] == S.Reals and slope.is_nonzero and not slope.has(u):
                yield "translation", {u: u + 2 * sympy.pi / slope}
                yield "other", {u: (sympy.pi - 2 * wave.args[0].subs(u, 0)) / slope - u}


def _complements(problem: Problem) -> Iterator[tuple[str, Map]]:
    """Exchanging p with 1 − q, as error rates do; alone, in pairs, and with a third probability complemented."""
    chances = [u for u in problem.unknowns if problem.domains[u].inf == 0 and problem.domains[u].sup == 1]
    if len(chances) > 10:
        return
    swaps = [{u: 1 - v, v: 1 - u} for u, v in combinations(chances, 2)]
    for swap in swaps:
        yield "other", swap
    for one, other in combinations(swaps, 2):
        if not set(one) & set(other):
            both = {**one, **other}
            rest = [u for u in chances if u not in both]
            yield "other", both
            yield "other", {**both, **{u: 1 - u for u in rest}}
    for swap in swaps:
        rest = [u for u in chances if u not in swap]
        yield "other", {**swap, **{u: 1 - u for u in rest}}


def _monomial_involutions(unknowns: Sequence[Symbol]) -> Iterator[tuple[str, Map]]:
    """u → 1/u, or u ↔ v, while the others are multiplied by a power of u, or of u/v."""
    small = range(-2, 3)
    for u in unknowns:
        others = [v for v in unknowns if v != u]
        for powers in product(small, repeat=len(others)):
            yield "other", {u: 1 / u, **{v: v * u**a for v, a in zip(others, powers, strict=True) if a}}
    for u, v in combinations(unknowns, 2):
        others = [w for w in unknowns if w not in (u, v)]
        for powers in product((-1, 0, 1), repeat=len(others)):
            scaled = {w: w * (u / v) ** a for w, a in zip(others, powers, strict=True) if a}
            if scaled:
                yield "other", {u: v, v: u, **scaled}

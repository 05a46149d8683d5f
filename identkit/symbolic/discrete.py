"""Discrete invariances: maps T with κ∘T = κ. Sign flips are found by parity, permutations and involutions by trial.

A candidate is tested first at a random point in ball arithmetic and then verified exactly. Finding none proves
nothing: that is why LOCAL without such a map is only a lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, product

import flint
import sympy
from sympy import Expr, S, Symbol

from identkit.model import balls
from identkit.model.tape import Tape
from identkit.symbolic.field import points, vanishes
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem

Map = dict[Symbol, Expr]
"""Where each moved unknown goes."""
_MOST_TRIALS = 600


def discrete_maps(problem: Problem, movable: Sequence[Symbol]) -> list[tuple[str, Map]]:
    """Maps of the unknowns that keep κ and the domains, each with its kind.

    Args:
        problem: unknowns and κ.
        movable: the unknowns that are not determined yet; every map moves some of them.

    >>> u, v = sympy.symbols("u v", real=True)
    >>> domains = {u: S.Reals, v: S.Reals}
    >>> discrete_maps(Problem((u, v), domains, (u * v, u + v)), (u, v))
    [('permutation', {u: v, v: u})]
    """
    tape = Tape(list(problem.summary))
    trial = list(points({s: problem.domains[s] for s in (*problem.unknowns, *problem.known)}, 2, seed=5))
    before = [balls.run_or_nan(tape, point, 128) for point in trial]
    found: list[tuple[str, Map]] = []
    left = set(movable)
    for count, (kind, change) in enumerate(candidates(problem)):
        if count > _MOST_TRIALS or not left:
            break
        if set(change) & left and _plausible(change, problem, tape, trial, before) and keeps(change, problem):
            found.append((kind, change))
            left -= set(change)
    return found


def _plausible(change: Map, problem: Problem, tape: Tape, trial: Sequence[dict], before: Sequence[list]) -> bool:
    for point, values in zip(trial, before, strict=True):
        moved = {**point, **{s: e.subs(point) for s, e in change.items()}}
        if any(problem.domains[s].contains(moved[s]) != sympy.true for s in change):
            return False
        after = balls.run_or_nan(tape, moved, 128)
        if not all(a.overlaps(b) for a, b in zip(values, after, strict=True)):
            return False
    return True


def keeps(change: Map, problem: Problem) -> bool:
    """Whether κ∘T = κ identically, exactly."""
    for expression in problem.summary:
        if not expression.free_symbols & set(change):
            continue
        gap = expression.subs(change, simultaneous=True) - expression
        try:
            zero = Ring(gap.free_symbols).is_zero(gap)  # type: ignore[arg-type]
        except NotRational:
            zero = vanishes(gap)
        if not zero:
            return False
    return True


def candidates(problem: Problem) -> Iterator[tuple[str, Map]]:
    """Maps worth trying, likely ones first."""
    real = [u for u in problem.unknowns if problem.domains[u].inf == -problem.domains[u].sup]
    for flip in _sign_flips(problem, real):
        yield "sign flip", {u: -u for u in flip}
    for permutation in _permutations(problem.unknowns):
        yield "permutation", permutation
        # Two classes: their probabilities p and 1 − p change places with everything else.
        for u in problem.unknowns:
            if u not in permutation and problem.domains[u].inf == 0 and problem.domains[u].sup == 1:
                yield "permutation", {**permutation, u: 1 - u}
    for u in problem.unknowns:
        if problem.domains[u].inf == 0 and problem.domains[u].sup == 1:
            yield "other", {u: 1 - u}
    yield from _periods(problem)
    yield from _complements(problem)
    if len(problem.unknowns) <= 5:
        yield from _monomial_involutions(problem.unknowns)


def _sign_flips(problem: Problem, real: Sequence[Symbol]) -> list[list[Symbol]]:
    """A basis of the sign changes that κ does not notice: parities of exponents, over the field of two elements."""
    if not real:
        return []
    rows: list[list[int]] = []
    for expression in problem.summary:
        try:
            ring = Ring(expression.free_symbols)  # type: ignore[arg-type]
            top, bottom = ring.fraction(expression)
        except NotRational:
            return [[u] for u in real]
        exponents = [dict(zip(ring.symbols, m, strict=False)) for side in (top, bottom) for m in side.monoms()]
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


def _permutations(unknowns: Sequence[Symbol]) -> Iterator[Map]:
    """Exchanging two indices, two vectors, or two names that differ in a digit or a letter, wherever they occur."""
    names = {u.name: u for u in unknowns}
    indices = {name: re.findall(r"\d+", name) for name in names}
    digits = sorted({i for found in indices.values() for i in found})
    for one, other in combinations(digits, 2):
        for place in (None, 0, 1):
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
    for one, other in combinations(unknowns, 2):
        yield {one: other, other: one}
    if len(unknowns) <= 8:
        for pairs in combinations(list(combinations(unknowns, 2)), 2):
            if not set(pairs[0]) & set(pairs[1]):
                yield {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def _swapped(name: str, one: str, other: str, place: int | None) -> str:
    table = {one: other, other: one}
    count = iter(range(99))
    return re.sub(r"\d+", lambda m: table.get(m[0], m[0]) if place in (None, next(count)) else m[0], name)


def _periods(problem: Problem) -> Iterator[tuple[str, Map]]:
    """u → u + 2π/c for an unknown inside sin or cos with coefficient c, and the reflection π/c − u."""
    for wave in sorted({a for e in problem.summary for a in e.atoms(sympy.sin, sympy.cos, sympy.tan)}, key=str):
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


def in_words(change: Map) -> str:
    """The map as text, e.g. ``w -> -w, z -> -z``."""
    return ", ".join(f"{s.name} -> {e}" for s, e in change.items()) or str(S.EmptySet)

"""Formulas that give an unknown back from κ: ``A(κ) u = B(κ)`` with polynomials A, B found by linear algebra.

A relation that is linear in u and whose A does not vanish proves that κ determines u: the search needs no Gröbner
basis. Its monomials are graded by the scalings under which κ is homogeneous, as the fields are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import comb, lcm

import sympy
from sympy import Expr, Symbol

from identkit.symbolic.coordinates import in_exponentials
from identkit.symbolic.field import nonzero_point, vanishes
from identkit.symbolic.linear import nullspace, rationals
from identkit.symbolic.modular import PRIMES, Dual, Evaluator
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem

_PRIME = PRIMES[0]
_MOST_COLUMNS = 700
_MOST_MONOMIALS = 9_000
_MOST_ENTRIES = 400_000
_SCOPES = (4, 8)
_DEGREES = (1, 2, 3)

Chosen = tuple[int, ...]
"""A monomial in the entries of κ: their positions, repeated."""


Columns = tuple[list[Chosen], ...]
"""The monomials of a linear system: those that stand alone, and those that multiply powers of the target."""


Weight = tuple[int, ...]
"""How much each of some scalings scales a monomial."""


@dataclass(frozen=True)
class Grading:
    """The weights of what monomials are made of, by its place among the symbols, and of the target."""

    symbols: tuple[tuple[int, Weight], ...]
    target: Weight


@dataclass(frozen=True)
class Formula:
    """``target = formula``, where the formula's `outer` symbols stand for entries of κ.

    `divisor` is the denominator: the formula holds wherever it is not 0.
    """

    target: Expr
    formula: Expr
    outer: Mapping[Symbol, Expr]
    divisor: Expr


class Recovery:
    """The search for formulas, with κ's values at random points shared between targets."""

    def __init__(self, problem: Problem, seconds: float = 10.0) -> None:
        self.deadline = time.monotonic() + seconds
        self._chance = random.Random(11)
        self.known: list[Symbol] = list(problem.known)
        entries = [e for e in dict.fromkeys(problem.summary) if e.free_symbols]
        self.outer = {Symbol(f"kappa[{i}]", real=True): e for i, e in enumerate(entries, 1)}
        self._moved, self.exponentials = in_exponentials(replace(problem, summary=tuple(entries)))
        self._variables = [*self._moved.unknowns, *problem.known]
        self.evaluator = Evaluator(self._moved.summary, self._variables, self._moved.constraints, _PRIME)
        self._points: list[tuple[dict[Symbol, Dual], list[int]]] = []
        self._products: dict[int, dict[Chosen, int]] = {}
        self._parts: dict[tuple[int, int], list[int]] = {}
        self._values: dict[tuple[int, Expr], int] = {}
        self._slopes: list[list[list[int]]] = []
        self._graded: dict[tuple[int, tuple[tuple[int, Weight], ...]], dict[Weight, list[Chosen]]] = {}

    def moved(self, symbol: Symbol) -> Symbol:
        """The coordinate that stands for an unknown: t = exp(u) where it occurs only so."""
        return self.exponentials.get(symbol, symbol)

    def written(self, expression: Expr) -> Expr:
        """An expression of κ's entries and unknowns as a function of the coordinates, in which it may be rational."""
        inside = dict(zip(self.outer, self._moved.summary, strict=True))
        return self._in_coordinates(expression).xreplace(inside)

    def _in_coordinates(self, expression: Expr) -> Expr:
        powers = {sympy.exp(k * u): t**k for u, t in self.exponentials.items() for k in (1, 2)}
        return expression.xreplace(powers)

    def branch(self) -> Recovery:
        """The same points and κ, for a search in which more is supposed to be known."""
        other = copy(self)
        other.known = list(self.known)
        # Positions beyond κ's entries mean other symbols there.
        other._products, other._parts, other._graded = {}, {}, {}
        return other

    def learn(self, unknown: Symbol) -> None:
        """Count an unknown as known from now on; it joins κ as one more determined quantity."""
        if unknown not in self.known:
            self.known.append(unknown)

    def find(self, target: Expr) -> Formula | None:
        """A formula for the target, verified exactly, or None if none of low degree was found.

        Args:
            target: a polynomial in the unknowns; a product of them for the grading to help. Unknowns that occur only
                inside exponentials, as in exp(u).
        """
        target = self._in_coordinates(target)
        if not target.free_symbols <= set(self._variables):
            return None
        if not target.free_symbols <= self.evaluator.bare:
            return None
        tried: set[tuple[tuple[Chosen, ...], tuple[Chosen, ...]]] = set()
        for places in self._scopes(target):
            grading = self.grading(target, places)
            for degree in _DEGREES:
                for columns in self._systems(degree, grading):
                    if time.monotonic() > self.deadline:
                        return None
                    key = (tuple(columns[0]), tuple(columns[1]))
                    if key not in tried:
                        tried.add(key)
                        found = self._relation(columns, target)
                        if found is not None:
                            return found
        return None

    def _scopes(self, target: Expr) -> list[tuple[int, ...]]:
        """Which of the symbols to use: short entries about the target and few other open unknowns; then all."""
        known = {self.moved(s): len(self.outer) + k for k, s in enumerate(self.known)}
        symbols = [e.free_symbols for e in self._moved.summary]
        unsettled = [inside - set(known) for inside in symbols]
        about = [u for u in unsettled if target.free_symbols <= u]
        nearest = sorted(dict.fromkeys(map(frozenset, about)), key=lambda u: (len(u), sorted(map(str, u))))
        scopes = []
        for unknowns in nearest[:2]:
            fitting = [k for k, u in enumerate(unsettled) if u <= unknowns]
            for size in _SCOPES:
                short = sorted(fitting, key=lambda k: (len(symbols[k]), k))[:size]
                used = set().union(*[symbols[k] for k in short])
                scopes.append((*sorted(short), *[place for s, place in known.items() if s in used]))
        return list(dict.fromkeys([*scopes, tuple(range(len(self.symbols)))]))

    @property
    def symbols(self) -> list[Symbol]:
        """What monomials are made of: entries of κ, then what is known."""
        return [*self.outer, *[self.moved(s) for s in self.known]]

    def _systems(self, degree: int, grading: Grading) -> list[Columns]:
        """Monomials that stand alone, and those that multiply the target, of one total weight each; small ones first."""
        plain, smaller = self.by_weight(degree, grading), self.by_weight(max(degree - 1, 1), grading)
        systems: list[Columns] = []
        for heavy, multiplied in smaller.items():
            alone = plain.get(plus(heavy, grading.target), [])
            if alone and len(alone) + len(multiplied) <= _MOST_COLUMNS:
                systems.append((alone, multiplied))
        return affordable(systems)

    def by_weight(self, degree: int, grading: Grading) -> dict[Weight, list[Chosen]]:
        """The monomials up to a degree, by weight; none if there are too many."""
        key = (degree, grading.symbols)
        if key not in self._graded:
            weights = dict(grading.symbols)
            groups: dict[Weight, list[Chosen]] = {}
            if comb(len(weights) + degree, degree) <= _MOST_MONOMIALS:
                for total in range(degree + 1):
                    for chosen in combinations_with_replacement(weights, total):
                        weight = (0,) * len(grading.target)
                        for place in chosen:
                            weight = plus(weight, weights[place])
                        groups.setdefault(weight, []).append(chosen)
            self._graded[key] = groups
        return self._graded[key]

    def grading(self, target: Expr, places: Sequence[int] | None = None) -> Grading:
        """The scalings of these symbols and of the target under which their relations are homogeneous.

        Scaling by c is tangent to the image of the unknowns iff ``Σ n_k c_k v_k = 0`` for the values v and every n that
        annihilates the Jacobian: so the grading does not depend on how the model is parametrised.
        """
        p = self.evaluator.prime
        places = range(len(self.symbols)) if places is None else places
        size = len(places) + 1
        rows: list[list[int]] = []
        index = 0
        while index < 3 or (index < size and len(rows) <= size):
            slopes = [*[self._slope(index, k) for k in places], self._gradient(index, target)]
            values = [*[self.entry(index, k) for k in places], self.value(index, target)]
            normals = nullspace([list(column) for column in zip(*slopes, strict=True)], size, p)
            if not normals:
                break
            rows += [[n * v % p for n, v in zip(normal, values, strict=True)] for normal in normals]
            index += 1
        found = []
        for vector in nullspace(rows, size, p) if rows else []:
            exact = rationals(vector, p, largest=64)
            if exact is not None:
                scale = lcm(*[int(e.q) for e in exact])
                found.append([int(e * scale) for e in exact])
        weights = [tuple(vector[k] for vector in found) for k in range(size)]
        return Grading(tuple(zip(places, weights, strict=False)), weights[-1])

    def _slope(self, index: int, place: int) -> list[int]:
        if place >= len(self.outer):
            symbol = self.symbols[place]
            return [int(symbol == u) for u in self.evaluator.unknowns]
        while len(self._slopes) <= index:
            point, _ = self.point(len(self._slopes))
            self._slopes.append(self.evaluator.at(point)[1][: len(self.outer)])
        return self._slopes[index][place]

    def _gradient(self, index: int, target: Expr) -> list[int]:
        return [self.value(index, target.diff(u)) if target.has(u) else 0 for u in self.evaluator.unknowns]

    def _relation(self, columns: Columns, target: Expr) -> Formula | None:
        plain, multiplied = columns
        width = len(plain) + len(multiplied)
        rows = [self.row(index, columns, target) for index in range(width + 4)]
        divisors = [self.product(0, m) for m in multiplied]
        for vector in nullspace(rows, width, _PRIME):
            # A divisor that is 0 at a random point is 0: then this is a relation of κ alone, of which there may be many.
            if (
                sum(weight * value for weight, value in zip(vector[len(plain) :], divisors, strict=True))
                % _PRIME
                == 0
            ):
                continue
            exact = rationals(vector, _PRIME)
            if exact is None:
                continue
            symbols = self.symbols
            top = -sympy.Add(*[c * monomial(symbols, m) for c, m in zip(exact, plain, strict=False)])
            rest = zip(exact[len(plain) :], multiplied, strict=True)
            formula = self._verified(target, top, sympy.Add(*[c * monomial(symbols, m) for c, m in rest]))
            if formula is not None:
                return formula
        return None

    def _verified(self, target: Expr, top: Expr, bottom: Expr) -> Formula | None:
        divisor = self.written(bottom)
        gap = self.written(top) - target * divisor
        try:
            ring = Ring(gap.free_symbols | divisor.free_symbols)  # type: ignore[arg-type]
            holds = ring.is_zero(gap) and not ring.is_zero(divisor)
        except NotRational:
            holds = vanishes(gap) and nonzero_point(divisor, self._moved.domains) is not None
        if not holds:
            return None
        used = {s: e for s, e in self.outer.items() if s in (top * bottom).free_symbols}
        back = {t: sympy.exp(u) for u, t in self.exponentials.items()}
        return Formula(
            target.xreplace(back),
            sympy.factor(top / bottom).xreplace(back),
            used,
            sympy.factor(divisor).xreplace(back),
        )

    def row(self, index: int, columns: Columns, target: Expr) -> list[int]:
        """The monomials at one point, those of `columns[k]` times the k-th power of the target."""
        goal = self.value(index, target)
        found: list[int] = []
        factor = 1
        for part in columns:
            found += [value * factor % _PRIME for value in self._monomials(index, part)]
            factor = factor * goal % _PRIME
        return found

    def _monomials(self, index: int, part: list[Chosen]) -> list[int]:
        # Parts live in _graded as long as this object does, so that their ids stay theirs; empty ones may not.
        if not part:
            return []
        key = (index, id(part))
        if key not in self._parts:
            self._parts[key] = [self.product(index, m) for m in part]
        return self._parts[key]

    def product(self, index: int, chosen: Chosen) -> int:
        """A monomial's value at one point."""
        known = self._products.setdefault(index, {(): 1})
        if chosen not in known:
            known[chosen] = self.product(index, chosen[:-1]) * self.entry(index, chosen[-1]) % _PRIME
        return known[chosen]

    def entry(self, index: int, place: int) -> int:
        """An entry of κ, or something known, at one point."""
        point, kappa = self.point(index)
        return kappa[place] if place < len(kappa) else point[self.moved(self.known[place - len(kappa)])].value

    def value(self, index: int, target: Expr) -> int:
        """A polynomial of the unknowns at one point."""
        if (index, target) not in self._values:
            self._values[index, target] = value_at(target, self.point(index)[0])
        return self._values[index, target]

    def point(self, index: int) -> tuple[dict[Symbol, Dual], list[int]]:
        while len(self._points) <= index:
            point = self.evaluator.draw(self._chance)
            self._points.append((point, self.evaluator.values(point)[: len(self.outer)]))
        return self._points[index]


def plus(one: Weight, other: Weight) -> Weight:
    """The weight of a product."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def affordable(systems: Sequence[Columns]) -> list[Columns]:
    """The smallest systems of columns, as many as have matrices with `_MOST_ENTRIES` entries together, and one more."""
    chosen, total = [], 0
    for columns in sorted(systems, key=lambda parts: sum(map(len, parts))):
        if total > _MOST_ENTRIES:
            break
        chosen.append(columns)
        total += sum(map(len, columns)) ** 2
    return chosen


def value_at(target: Expr, point: Mapping[Symbol, Dual]) -> int:
    """A polynomial's value in the prime field."""
    total = 0
    for term in sympy.Add.make_args(sympy.expand(target)):
        coefficient, rest = term.as_coeff_Mul()
        product = int(coefficient.p) * pow(int(coefficient.q), -1, _PRIME)
        for base, power in rest.as_powers_dict().items():
            if base.is_Symbol:
                product = product * pow(point[base].value, int(power), _PRIME) % _PRIME
        total = (total + product) % _PRIME
    return total


def monomial(symbols: Sequence[Symbol], chosen: Chosen) -> Expr:
    """The monomial as an expression."""
    return sympy.Mul(*[symbols[i] for i in chosen])

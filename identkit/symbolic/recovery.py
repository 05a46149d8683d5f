"""Formulas that give an unknown back from κ: ``A(κ) u = B(κ)`` with polynomials A, B found by linear algebra.

A relation that is linear in u and whose A does not vanish proves that κ determines u: the search needs no Gröbner
basis. Its monomials are graded by the scalings under which κ is homogeneous, as the fields are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import sympy
from sympy import Expr, Symbol

from identkit.symbolic.field import nonzero_point, vanishes
from identkit.symbolic.linear import nullspace, rationals
from identkit.symbolic.modular import PRIMES, Evaluator
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem

_PRIME = PRIMES[0]
_MOST_COLUMNS = 900
_DEGREES = (1, 2, 3)


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
        self._problem = problem
        self._deadline = time.monotonic() + seconds
        self._chance = random.Random(11)
        self._known: list[Symbol] = list(problem.known)
        self._refresh()

    def _refresh(self) -> None:
        # κ without repetitions; what is known by now joins κ as further determined quantities.
        entries = list(dict.fromkeys(self._problem.summary))
        outer = {Symbol(f"kappa[{i}]", real=True): e for i, e in enumerate(entries, 1) if e.free_symbols}
        self._outer: dict[Symbol, Expr] = {**outer, **{s: s for s in self._known}}
        self._variables = [*self._problem.unknowns, *self._problem.known]
        self._tables: dict[Expr, list[tuple[list[int], int]]] = {}

    def learn(self, unknown: Symbol) -> None:
        """Count an unknown as known from now on."""
        if unknown not in self._known:
            self._known.append(unknown)
            self._refresh()

    def find(self, target: Expr) -> Formula | None:
        """A formula for the target, verified exactly, or None if none of low degree was found."""
        if not target.free_symbols <= set(self._variables):
            return None
        symbols = list(self._outer)
        evaluator = Evaluator(
            [*self._outer.values(), target], self._variables, self._problem.constraints, _PRIME
        )
        weights, total = self._weights(evaluator)
        for degree in _DEGREES:
            if time.monotonic() > self._deadline:
                return None
            groups = _groups(len(symbols), degree, weights, total)
            for columns in sorted(groups.values(), key=len):
                if not columns[1] or len(columns[0]) + len(columns[1]) > _MOST_COLUMNS:
                    continue
                found = self._relation(evaluator, columns, symbols, target)
                if found is not None:
                    return found
        return None

    def _relation(
        self,
        evaluator: Evaluator,
        columns: tuple[list[tuple[int, ...]], list[tuple[int, ...]]],
        symbols: Sequence[Symbol],
        target: Expr,
    ) -> Formula | None:
        plain, multiplied = columns
        width = len(plain) + len(multiplied)
        rows = []
        for _ in range(width + 4):
            values, _ = evaluator.at(evaluator.draw(self._chance))
            kappa, goal = values[: len(symbols)], values[len(symbols)]
            row = [_product(kappa, m) for m in plain] + [_product(kappa, m) * goal % _PRIME for m in multiplied]
            rows.append(row)
        for vector in nullspace(rows, width, _PRIME):
            if not any(vector[len(plain) :]):
                continue
            exact = rationals(vector, _PRIME)
            if exact is None:
                continue
            top = -sympy.Add(*[c * _monomial(symbols, m) for c, m in zip(exact, plain, strict=False)])
            bottom = sympy.Add(*[c * _monomial(symbols, m) for c, m in zip(exact[len(plain) :], multiplied, strict=True)])
            formula = self._verified(target, top, bottom)
            if formula is not None:
                return formula
        return None

    def _verified(self, target: Expr, top: Expr, bottom: Expr) -> Formula | None:
        inside = list(self._outer.items())
        divisor = bottom.subs(inside)
        gap = top.subs(inside) - target * divisor
        try:
            ring = Ring(gap.free_symbols | divisor.free_symbols)  # type: ignore[arg-type]
            holds = ring.is_zero(gap) and not ring.is_zero(divisor)
        except NotRational:
            holds = vanishes(gap) and nonzero_point(divisor, self._problem.domains) is not None
        if not holds:
            return None
        used = {s: e for s, e in self._outer.items() if s in (top * bottom).free_symbols and s not in self._known}
        return Formula(target, sympy.factor(top / bottom), used, sympy.factor(divisor))

    def _weights(self, evaluator: Evaluator) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
        """The weights of κ's entries and of the target under the scalings that keep them all homogeneous."""
        width, height = len(self._variables), len(self._outer) + 1
        rows = []
        for _ in range(max(3, (width + height) // height + 3)):
            point = evaluator.draw(self._chance)
            values, jacobian = evaluator.at(point)
            for k in range(height):
                row = [point[u].value * jacobian[k][i] % _PRIME for i, u in enumerate(self._variables)]
                rows.append(row + [-values[k] % _PRIME if j == k else 0 for j in range(height)])
        vectors = []
        for vector in nullspace(rows, width + height, _PRIME):
            exact = rationals(vector, _PRIME, largest=64)
            if exact is not None:
                scale = sympy.ilcm(*[e.q for e in exact])
                vectors.append([int(e * scale) for e in exact[width:]])
        weights = [tuple(v[k] for v in vectors) for k in range(height)]
        return weights[:-1], weights[-1]


def _groups(
    size: int, degree: int, weights: Sequence[tuple[int, ...]], target: tuple[int, ...]
) -> dict[tuple[int, ...], tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """Monomials of κ up to a degree by weight: those that stand alone, and those that multiply the target."""
    groups: dict[tuple[int, ...], tuple[list[tuple[int, ...]], list[tuple[int, ...]]]] = {}
    count = 0
    for total in range(degree + 1):
        for chosen in combinations_with_replacement(range(size), total):
            count += 1
            if count > 40_000:
                return {}
            weight = tuple(sum(weights[i][k] for i in chosen) for k in range(len(target)))
            groups.setdefault(weight, ([], []))[0].append(chosen)
            if total < degree or degree == 1:
                shifted = tuple(a + b for a, b in zip(weight, target, strict=True))
                groups.setdefault(shifted, ([], []))[1].append(chosen)
    return groups


def _product(values: Sequence[int], chosen: tuple[int, ...]) -> int:
    product = 1
    for i in chosen:
        product = product * values[i] % _PRIME
    return product


def _monomial(symbols: Sequence[Symbol], chosen: tuple[int, ...]) -> Expr:
    return sympy.Mul(*[symbols[i] for i in chosen])

"""Continuous invariances: vector fields X with X κ = 0, found by a weight-graded ansatz, checked exactly.

The coefficients of ``X = Σ ξᵢ(u) ∂ᵢ`` are sought among monomials of rising degree. Scalings under which every κₖ is
homogeneous split the ansatz into small independent systems, one a weight (factor analysis 20 × 5: 520 unknowns in
place of 14,520). If X is a null field so is f·X, hence what counts is the *module* rank: the rank of the evaluated
fields at a generic point, to be compared with κ's deficiency.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import flint
import sympy
from sympy import Expr, Rational, S, Symbol

from identkit.symbolic.coordinates import Coordinates, Field, primitive
from identkit.symbolic.field import vanishes
from identkit.symbolic.fractions import exponentials_opened, log_slope
from identkit.symbolic.linear import nullspace, rationals
from identkit.symbolic.modular import PRIMES, Evaluator, Unsupported
from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem
from identkit.symbolic.torus import Torus

_STABLE = 3
_MOST_COLUMNS = 1500
_PRIME = PRIMES[0]


@dataclass(frozen=True)
class Monomial:
    """A Laurent monomial, as exponents by symbol."""

    powers: tuple[tuple[Symbol, int], ...]

    @property
    def expression(self) -> Expr:
        return sympy.Mul(*[symbol**power for symbol, power in self.powers])

    def value(self, values: dict[Symbol, int]) -> int:
        product = 1
        for symbol, power in self.powers:
            if power < 0 and values[symbol] % _PRIME == 0:
                raise Unsupported(f"{symbol} is 0 wherever the constraints hold")
            product = product * pow(values[symbol], power, _PRIME) % _PRIME
        return product

    def weight(self, weights: dict[Symbol, tuple[int, ...]], size: int) -> tuple[int, ...]:
        return tuple(sum(power * weights[symbol][k] for symbol, power in self.powers) for k in range(size))


def null_fields(
    problem: Problem, deficiency: int, free: Sequence[Symbol], seconds: float = 10.0
) -> list[Field]:
    """Independent null fields of κ, each verified exactly; as many as `deficiency` where the ansatz suffices.

    Args:
        problem: the unknowns and κ.
        deficiency: the dimension of the generic fibre, where the search stops.
        free: the unknowns that vary along the fibre; no other has a component.
        seconds: time allowed.

    >>> a, b = sympy.symbols("a b", real=True)
    >>> null_fields(Problem((a, b), {}, (a * b,)), 1, (a, b))
    [{a: -a, b: b}]
    """
    changed = Coordinates.of(problem)
    search = _Search(changed.problem, [changed.new(u) for u in free], deficiency, time.monotonic() + seconds)
    for degree in (1, 2, 3):
        try:
            search.extend(degree, deficiency)
        except Unsupported:
            break
        if len(search.found) >= deficiency or search.late:
            break
    found = [changed.back(field) for field in search.found]
    return [{u: field[u] for u in problem.unknowns if u in field} for field in found]


def affine_fields(problem: Problem, free: Sequence[Symbol]) -> list[Field]:
    """All null fields with affine components, not only a basis over functions: for what is linear, as priors are."""
    search = _Search(problem, free, 0, time.monotonic() + 5.0)
    return search.solutions(1)


class _Search:
    """The ansatz, degree by degree; `found` holds fields that are independent at a generic point."""

    def __init__(self, problem: Problem, free: Sequence[Symbol], deficiency: int, deadline: float) -> None:
        self._problem, self._free, self._deadline = problem, list(free), deadline
        self._chance = random.Random(7)
        self._variables = [s for s in (*problem.unknowns, *problem.known)]
        self._all = Evaluator(problem.summary, self._variables, problem.constraints, _PRIME)
        torus = Torus(self._all, len(problem.summary))
        self._weights, self._size = torus.of_variables, torus.size
        self._points: list[tuple[dict[Symbol, int], list[list[int]]]] = []
        self.found: list[Field] = []
        self._rows: list[list[int]] = []
        self._tried: set[tuple[Symbol, Monomial]] = set()

    @property
    def late(self) -> bool:
        return time.monotonic() > self._deadline

    def solutions(self, degree: int) -> list[Field]:
        found = []
        for columns in self._groups(degree).values():
            if len(columns) <= _MOST_COLUMNS and not self.late:
                found += [f for f in self._solved(columns) if is_null(f, self._problem.summary)]
        return found

    def _groups(self, degree: int) -> dict[tuple[int, ...], list[tuple[Symbol, Monomial]]]:
        groups: dict[tuple[int, ...], list[tuple[Symbol, Monomial]]] = {}
        monomials = list(_monomials(self._variables, degree))
        if len(monomials) * len(self._free) > 60_000 and self._size == 0:
            return {}
        for monomial in monomials:
            heavy = monomial.weight(self._weights, self._size)
            for unknown in self._free:
                weight = tuple(a - b for a, b in zip(heavy, self._weights[unknown], strict=True))
                groups.setdefault(weight, []).append((unknown, monomial))
        return groups

    def extend(self, degree: int, wanted: int) -> None:
        groups = self._groups(degree)
        # Weight 0 first: rotations, scalings and shears live there; then the small systems.
        for weight in sorted(groups, key=lambda w: (any(w), len(groups[w]))):
            columns = groups[weight]
            if len(self.found) >= wanted or self.late:
                return
            if len(columns) <= _MOST_COLUMNS and set(columns) - self._tried:
                self._solve(columns)
                self._tried |= set(columns)

    def _solve(self, columns: Sequence[tuple[Symbol, Monomial]]) -> None:
        for field in sorted(map(primitive, self._solved(columns)), key=_complexity):
            self._keep(field)

    def _solved(self, columns: Sequence[tuple[Symbol, Monomial]]) -> list[Field]:
        width = len(columns)
        rows, used = self._equations(columns, 0), 1
        gained = max(1, len(rows))
        while True:
            # Each point gives as many equations as the first: enough points at once, then fresh ones as a test.
            for _ in range(max(1, -(-(width + 1 - len(rows)) // gained))):
                rows += self._equations(columns, used)
                used += 1
            vectors = nullspace(rows, width, _PRIME)
            if not vectors or self.late:
                return []
            fresh = [row for k in range(_STABLE) for row in self._equations(columns, used + k)]
            used += _STABLE
            if not any(
                sum(a * b for a, b in zip(row, v, strict=True)) % _PRIME for row in fresh for v in vectors
            ):
                break
            rows = _row_basis([*rows, *fresh])
        exact = [rationals(vector, _PRIME) for vector in vectors]
        return [_field(columns, vector) for vector in exact if vector is not None]

    def _equations(self, columns: Sequence[tuple[Symbol, Monomial]], index: int) -> list[list[int]]:
        """What ``X κ = 0`` says at one point about the coefficients: as many rows as κ's Jacobian has rank there."""
        places = {u: i for i, u in enumerate(self._variables)}
        involved = sorted({places[unknown] for unknown, _ in columns})
        values, jacobian = self._point(index)
        weights = {monomial: monomial.value(values) for monomial in dict.fromkeys(m for _, m in columns)}
        entries = [(involved.index(places[unknown]), weights[monomial]) for unknown, monomial in columns]
        basis = _row_basis([part for row in jacobian if any(part := [row[i] for i in involved])])
        return [[row[i] * w % _PRIME for i, w in entries] for row in basis]

    def _keep(self, field: Field) -> None:
        values, _ = self._point(0)
        row = [int(_evaluate(field.get(u, S.Zero), values)) for u in self._variables]
        if len(_row_basis([*self._rows, row])) == len(self._rows):
            return
        if is_null(field, (*self._problem.summary, *self._problem.constraints)):
            self._rows.append(row)
            self.found.append(field)

    def _point(self, index: int) -> tuple[dict[Symbol, int], list[list[int]]]:
        while len(self._points) <= index:
            point = self._all.draw(self._chance)
            _, jacobian = self._all.at(point)
            self._points.append(({u: point[u].value for u in self._variables}, jacobian))
        return self._points[index]


def _monomials(variables: Sequence[Symbol], degree: int) -> Iterable[Monomial]:
    """Affine monomials; then inverses and products of two; then products of three."""
    yield Monomial(())
    for variable in variables:
        yield Monomial(((variable, 1),))
    if degree < 2:
        return
    for variable in variables:
        yield Monomial(((variable, -1),))
    for one, other in combinations_with_replacement(variables, 2):
        yield Monomial(((one, 2),)) if one == other else Monomial(((one, 1), (other, 1)))
    if degree < 3 or len(variables) > 12:
        return
    for triple in combinations_with_replacement(variables, 3):
        yield Monomial(tuple((s, triple.count(s)) for s in dict.fromkeys(triple)))


def _row_basis(rows: list[list[int]]) -> list[list[int]]:
    if not rows:
        return []
    width = len(rows[0])
    reduced, rank = flint.nmod_mat(len(rows), width, [e % _PRIME for row in rows for e in row], _PRIME).rref()
    return [[int(reduced[i, j]) for j in range(width)] for i in range(rank)]


def _field(columns: Sequence[tuple[Symbol, Monomial]], coefficients: Sequence[Rational]) -> Field:
    terms: dict[Symbol, list[Expr]] = {}
    for (unknown, monomial), coefficient in zip(columns, coefficients, strict=True):
        if coefficient != 0:
            terms.setdefault(unknown, []).append(coefficient * monomial.expression)
    return {unknown: sympy.Add(*parts) for unknown, parts in terms.items()}


def _complexity(field: Field) -> tuple[int, int]:
    return sum(len(sympy.Add.make_args(e)) for e in field.values()), sum(
        sympy.count_ops(e) for e in field.values()
    )


def _evaluate(expression: Expr, values: dict[Symbol, int]) -> int:
    total = 0
    for term in sympy.Add.make_args(sympy.sympify(expression)):
        coefficient, rest = term.as_coeff_Mul()
        product = int(coefficient.p) * pow(int(coefficient.q), -1, _PRIME)
        for factor in sympy.Mul.make_args(rest):
            base, exponent = factor.as_base_exp()
            if base.is_Symbol:
                product = product * pow(values[base], int(exponent), _PRIME) % _PRIME
        total = (total + product) % _PRIME
    return total


def is_null(field: Field, summary: Sequence[Expr]) -> bool:
    """Whether the field annihilates every expression, exactly: in flint where these are rational functions."""
    for expression in summary:
        inside = expression.free_symbols
        touched = {u: component for u, component in field.items() if u in inside}
        if not touched:
            continue
        try:
            ring = Ring(inside.union(*[c.free_symbols for c in touched.values()]))  # type: ignore[arg-type]
            null = ring.annihilates(touched, expression)
        except NotRational:
            null = _takes_to_zero(touched, expression)
        if not null:
            return False
    return True


def _takes_to_zero(field: Field, expression: Expr) -> bool:
    slopes = {u: log_slope(expression, u) for u in field} if expression.is_Mul or expression.is_Pow else {}
    if slopes and None not in slopes.values():
        change = sympy.Add(*[c * slopes[u] for u, c in field.items()])
    else:
        change = sympy.Add(*[c * expression.diff(u) for u, c in field.items()])
    opened = exponentials_opened(change)
    try:
        return Ring(opened.free_symbols).is_zero(opened)  # type: ignore[arg-type]
    except NotRational:
        return vanishes(change)

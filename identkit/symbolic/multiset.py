"""Finite mixtures: what their law determines is a mixing measure, so the components up to permutation.

Let f_c be densities that are linearly independent for distinct c. Then ``Σ w_k f_{c_k}`` determines the
measure ``G = Σ w_k δ_{c_k}``, and conversely (Yakowitz & Spragins 1968, Theorem 1; normals and gammas:
Teicher 1963; products of such families: Teicher 1967, since tensor products of linearly independent
functions are linearly independent). G has at most K atoms; the difference of two such measures lives on at
most 2K points, which polynomials of degree 2K − 1 separate; so the moments ``Σ w_k c_k^α``, 1 ≤ |α| ≤ 2K −
1, determine G. They do so *everywhere*: for equal components and for weights 0 as well. Elsewhere G is the
multiset of the (w_k, c_k).

Where each component also carries a table of finite data y, ``Σ_k w_k E[b(y) | k] δ_{c_k}`` is such a
(signed) measure for every basis function b, and the same count of moments serves each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import comb, prod

import sympy
from sympy import Expr, S, Set, Symbol

from identkit.symbolic.field import vanishes
from identkit.symbolic.support import almost_never_zero

MOST_MOMENTS = 400
"""Moments of a mixing measure beyond which the components alone are given."""

Condition = tuple[Expr, ...]
"""Expressions of which at least one is not 0."""


@dataclass(frozen=True)
class Atom:
    """One state of the labels: its weight, and part by part c and the ``E[b(y) | state]`` of finite data."""

    weight: Expr
    coordinates: tuple[tuple[Expr, ...], ...]
    tables: tuple[tuple[Expr, ...], ...] = ()

    def table(self) -> list[Expr]:
        """``E[b(y) | state]`` of the finite data as a whole: given the state, its parts are independent."""
        return [sympy.Mul(*choice) for choice in product(*[(S.One, *part) for part in self.tables])][1:]


@dataclass(frozen=True)
class MixingLaw:
    """What a mixture's law determines.

    Attributes:
        shared: coordinates that all components have in common.
        moments: with `shared` they determine the mixing measure everywhere; None if they would be too many.
        components: (weight, varying coordinates…, table…) up to permutation; empty where two of them were
            neither proved equal nor proved different.
        conditions: under which the law determines the components: distinct, with weights that are not 0.
    """

    shared: tuple[Expr, ...]
    moments: tuple[Expr, ...] | None
    components: tuple[tuple[Expr, ...], ...]
    conditions: tuple[Condition, ...]


def mixing_law(atoms: Sequence[Atom], domains: Mapping[Symbol, Set]) -> MixingLaw:
    """The summary of a mixture of linearly independent components.

    >>> a, m = sympy.symbols("a m")
    >>> law = mixing_law([Atom(a, ((m,),)), Atom(1 - a, ((-m,),))], {a: S.Reals, m: S.Reals})
    >>> law.components, law.conditions
    (((a, m), (1 - a, -m)), ((a,), (a - 1,), (m,)))
    >>> [moment.factor() for moment in law.moments or ()]
    [m*(2*a - 1), m**2, m**3*(2*a - 1)]
    """
    shared, varying = _apart(atoms)
    components, conditions = _components(varying, domains)
    return MixingLaw(shared, _moments(varying), components, conditions)


def _apart(atoms: Sequence[Atom]) -> tuple[tuple[Expr, ...], list[Atom]]:
    # A coordinate that all components share is determined by itself: it is constant on the support of G.
    first = atoms[0].coordinates
    same = [
        [all(atom.coordinates[part][i] == entry for atom in atoms) for i, entry in enumerate(coordinates)]
        for part, coordinates in enumerate(first)
    ]
    shared = [entry for part, row in enumerate(first) for i, entry in enumerate(row) if same[part][i]]
    rest = [
        tuple(
            tuple(entry for i, entry in enumerate(row) if not same[part][i])
            for part, row in enumerate(atom.coordinates)
            if not all(same[part])
        )
        for atom in atoms
    ]
    kept = [Atom(atom.weight, left, atom.tables) for atom, left in zip(atoms, rest, strict=True)]
    return tuple(dict.fromkeys(shared)), kept


# Moments


def _moments(atoms: Sequence[Atom]) -> tuple[Expr, ...] | None:
    """``Σ w b c^α`` over all basis functions b and enough powers α; None if there would be too many."""
    joint = [tuple(entry for row in atom.coordinates for entry in row) for atom in atoms]
    parts = [[atom.coordinates[i] for atom in atoms] for i in range(len(atoms[0].coordinates))]
    # Points of a product grid are separated by products of polynomials in each part, as well as jointly.
    columns = min([joint], parts, key=_count)
    functions = prod(len(part) + 1 for part in atoms[0].tables)
    if _count(columns) * functions > MOST_MOMENTS:
        return None
    weighted = [[atom.weight, *[atom.weight * b for b in atom.table()]] for atom in atoms]
    found = []
    for row in product(*[_powers(column) for column in columns]):
        monomials = [_monomial([column[k] for column in columns], row) for k in range(len(atoms))]
        for function in range(0 if any(map(any, row)) else 1, functions):
            pairs = zip(weighted, monomials, strict=True)
            found.append(sympy.Add(*[factors[function] * monomial for factors, monomial in pairs]))
    return tuple(dict.fromkeys(found))


def _count(columns: Sequence[Sequence[tuple[Expr, ...]]]) -> int:
    return prod(comb(len(column[0]) + 2 * len(set(column)) - 1, len(column[0])) for column in columns)


def _powers(column: Sequence[tuple[Expr, ...]]) -> Iterator[tuple[int, ...]]:
    """Exponents of total degree up to 2K − 1, for K distinct points."""
    places = range(len(column[0]))
    for degree in range(2 * len(set(column))):
        for chosen in combinations_with_replacement(places, degree):
            yield tuple(chosen.count(place) for place in places)


def _monomial(point: Sequence[tuple[Expr, ...]], row: Sequence[tuple[int, ...]]) -> Expr:
    raised = [
        entry**power
        for part, powers in zip(point, row, strict=True)
        for entry, power in zip(part, powers, strict=True)
        if power
    ]
    return sympy.Mul(*raised)


# Components


def _components(
    atoms: Sequence[Atom], domains: Mapping[Symbol, Set]
) -> tuple[tuple[tuple[Expr, ...], ...], tuple[Condition, ...]]:
    """The merged components as tuples, and the conditions under which the law determines them."""
    judged: dict[Expr, str] = {}

    def judge(gap: Expr) -> str:
        if gap not in judged:
            judged[gap] = _judged(gap, domains)
        return judged[gap]

    groups: list[list[Atom]] = []
    conditions: list[Condition] = []
    for atom in atoms:
        for group in groups:
            gaps = {gap: judge(gap) for gap in _gaps(atom, group[0])}
            if set(gaps.values()) <= {"zero"}:
                group.append(atom)
                break
            if not {"mostly", "everywhere"} & set(gaps.values()):
                return (), ()
            if "everywhere" not in gaps.values():
                conditions.append(tuple(gap for gap, verdict in gaps.items() if verdict != "zero"))
        else:
            groups.append([atom])
    if len(groups) == 1:
        return (), ()
    weights = [sympy.Add(*[atom.weight for atom in group]) for group in groups]
    conditions[:0] = [(weight,) for weight in weights if judge(weight) != "everywhere"]
    return tuple(map(_component, groups, weights)), _tidied(conditions)


def _judged(gap: Expr, domains: Mapping[Symbol, Set]) -> str:
    if gap.is_nonzero:
        return "everywhere"
    if vanishes(gap):
        return "zero"
    return "mostly" if almost_never_zero(gap, domains) else "unknown"


def _component(group: Sequence[Atom], weight: Expr) -> tuple[Expr, ...]:
    coordinates = [entry for row in group[0].coordinates for entry in row]
    if len(group) == 1:
        return weight, *coordinates, *[entry for part in group[0].tables for entry in part]
    columns = zip(*[[atom.weight * entry for entry in atom.table()] for atom in group], strict=True)
    return weight, *coordinates, *[sympy.Add(*column) for column in columns]


def _gaps(one: Atom, other: Atom) -> list[Expr]:
    pairs = zip(one.coordinates, other.coordinates, strict=True)
    return [a - b for rows in pairs for a, b in zip(*rows, strict=True) if a != b]


def _tidied(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Each condition once, factor by factor; those that follow from a stricter one are left out."""
    written: list[frozenset[Expr]] = []
    known: dict[Expr, list[Expr]] = {}
    for condition in dict.fromkeys(conditions):
        # A product is not 0 iff no factor is; of several expressions, one that is not 0 is enough.
        options = [known[gap] if gap in known else known.setdefault(gap, _factors(gap)) for gap in condition]
        split = (
            [frozenset([f]) for f in options[0]] if len(options) == 1 else [frozenset(map(_product, options))]
        )
        written += [one for one in split if one and one not in written]
    kept = [one for one in written if not any(other < one for other in written)]
    return tuple(tuple(sorted(one, key=sympy.default_sort_key)) for one in kept)


def _factors(expression: Expr) -> list[Expr]:
    """The factors that may vanish, each with one sign."""
    numerator, _ = sympy.fraction(sympy.together(expression))
    powers = [factor.as_base_exp() for factor in sympy.Mul.make_args(sympy.factor(numerator))]
    found = [base for base, _ in powers if base.free_symbols and base.is_nonzero is not True]
    return [-factor if factor.could_extract_minus_sign() else factor for factor in found]


def _product(factors: Sequence[Expr]) -> Expr:
    return sympy.Mul(*factors)


def power_sums(components: Sequence[Sequence[Expr]]) -> tuple[Expr, ...]:
    """``Σ_k Π_j c_kj^{a_j}``, 1 ≤ |a| ≤ K: they determine, and are determined by, the multiset of K tuples.

    Weyl's polarised power sums generate the invariants of the symmetric group in any number of variables,
    and invariants of a finite group separate its orbits.

    >>> x, y = sympy.symbols("x y")
    >>> power_sums([(x,), (y,)])
    (x + y, x**2 + y**2)
    """
    places = range(len(components[0])) if components else range(0)
    found = []
    for degree in range(1, len(components) + 1):
        for chosen in combinations_with_replacement(places, degree):
            found.append(sympy.Add(*[sympy.Mul(*[row[place] for place in chosen]) for row in components]))
    return tuple(dict.fromkeys(found))


def described(conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Conditions as the assumptions that a verdict shows.

    >>> described([(Symbol("a") - Symbol("b"), Symbol("s"))])
    ('a - b != 0 or s != 0',)
    """
    return tuple(" or ".join(f"{sympy.factor(gap)} != 0" for gap in condition) for condition in conditions)

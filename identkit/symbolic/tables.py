"""Data with finitely many values: the pmf table, written as moments of a basis of functions of the data.

A Bernoulli item x has the basis (1, x), a categorical one 1 and the indicators of all states but one, a
binomial count the binomial coefficients C(x, 0), …, C(x, n). The products of one basis function for each
observation are a basis of all functions on the cells, and the change of basis contains no parameter; so
their expectations and the cell probabilities determine each other linearly, *everywhere*: no parameter is
excluded. The moments are the simpler polynomials: given the latents, each is a product with one factor for
each observation it mentions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement, product
from typing import Any

import sympy
from sympy import Expr, Integer, Symbol

from identkit.model.families import Bernoulli, Binomial, Categorical, Multinomial
from identkit.model.statement import Statement
from identkit.symbolic.blocks import Block, count_states, finite_values, states
from identkit.symbolic.expectation import expectation, falling

MOST_CELLS = 4096
"""Cells of the data beyond which the table is not written out."""

MOST_TERMS = 50_000
"""Cells times joint states of the latents beyond which it is not written out either."""


def table(block: Block, order: int | None = None) -> tuple[Expr, ...] | None:
    """``E Π bᵢ(xᵢ)`` for every choice of basis functions; None if one is not finite, or too many are.

    Args:
        block: finite observations with any latents whose moments are known.
        order: only choices that involve at most this many observations (then the table is not exhaustive).

    >>> import identkit as ik
    >>> m = ik.parse("z ~ Bernoulli(p); observe y[2] ~ Bernoulli(a*z)")
    >>> from identkit.symbolic.blocks import blocks
    >>> table(blocks(m)[0])
    (a*p, a**2*p)
    """
    functions = bases(block)
    found = None if functions is None else moments(block, functions, order)
    return None if found is None else tuple(dict.fromkeys(found))


def bases(block: Block) -> dict[Symbol, list[Expr]] | None:
    """``E[b(x) | z]`` for a basis of the functions of each observation; None if one is not finite."""
    found: dict[Symbol, list[Expr]] = {}
    for observation in block.observations:
        functions = _basis(observation, block)
        if functions is None:
            return None
        found[observation.symbols[0]] = functions
    return found


def moments(
    block: Block, functions: Mapping[Symbol, Sequence[Expr]], order: int | None = None
) -> list[Expr] | None:
    """The expectations of all products of the functions, in an order that does not depend on their form."""
    if _choices([len(row) for row in functions.values()], order) > MOST_CELLS:
        return None
    # Given the latents up to the last continuous one, labels drawn later couple only what they are drawn
    # for.
    early = _early(block)
    late = [statement for statement in block.latents if statement not in early]
    parts = Block(tuple(late), block.observations).parts([s for st in late for s in st.symbols])
    columns = [_column(part, functions, order) for part in parts]
    if any(column is None for column in columns):
        return None
    known: dict[Expr, Expr | None] = {}
    found: list[Expr] = []
    for factors in _products([column for column in columns if column is not None], order):
        if not factors:
            continue
        whole = sympy.Mul(*factors)
        if whole not in known:
            known[whole] = expectation(whole, early)
        integrated = known[whole]
        if integrated is None:
            return None
        found.append(integrated)
    return found


def _choices(widths: Sequence[int], order: int | None) -> int:
    """How many choices of at most `order` basis functions, one for each observation, there are."""
    counts = [1]
    for width in widths:
        counts = [a + width * b for a, b in zip([*counts, 0], [0, *counts], strict=True)]
    return sum(counts if order is None else counts[: order + 1])


def _products(columns: Sequence[Sequence[tuple[int, Any]]], order: int | None) -> Iterator[tuple[Any, ...]]:
    """One entry, or none, of each column; at most `order` observations in all."""
    if not columns:
        yield ()
        return
    yield from _products(columns[1:], order)
    for involved, factor in columns[0]:
        left = None if order is None else order - involved
        if left is None or left >= 0:
            for others in _products(columns[1:], left):
                yield (factor, *others)


def _early(block: Block) -> list[Statement]:
    """The continuous latents and all that are drawn on the way to them."""
    needed = block.restricted(block.continuous).latents
    return [s for s in block.latents if s in needed or s in block.continuous]


def _column(
    part: Block, functions: Mapping[Symbol, Sequence[Expr]], order: int | None
) -> list[tuple[int, Expr]] | None:
    """Each product of functions of a part's observations, the labels summed out, and how many it involves.

    Labels that the product does not depend on have probabilities that sum to one.
    """
    rows = [functions[observation.symbols[0]] for observation in part.observations]
    places = [[(1, (i, j)) for j in range(len(row))] for i, row in enumerate(rows)]
    choices = [choice for choice in _products(places, order) if choice]
    entering = {
        (i, j): part.ancestors(f.free_symbols) for i, row in enumerate(rows) for j, f in enumerate(row)
    }
    groups: dict[tuple[Statement, ...], list[int]] = {}
    for position, choice in enumerate(choices):
        needed = {statement.symbols for place in choice for statement in entering[place]}
        labels = tuple(statement for statement in part.latents if statement.symbols in needed)
        groups.setdefault(labels, []).append(position)
    if sum(len(members) * count_states(labels) for labels, members in groups.items()) > MOST_TERMS:
        return None
    terms: list[list[Expr]] = [[] for _ in choices]
    for labels, members in groups.items():
        for state, weight in states(labels):
            here = [[f.xreplace(dict(state)) for f in row] for row in rows] if labels else rows
            for position in members:
                terms[position].append(sympy.Mul(weight, *[here[i][j] for i, j in choices[position]]))
    return [(len(choice), sympy.Add(*parts)) for choice, parts in zip(choices, terms, strict=True)]


def _basis(observation: Statement, block: Block) -> list[Expr] | None:
    family = observation.family
    if isinstance(family, Bernoulli):
        return [family.arguments[0]]
    if isinstance(family, Categorical):
        # Any one state may be left out; the one with the longest expression, such as 1 − p − q.
        kept = sorted(enumerate(family.arguments), key=lambda pair: (pair[1].count_ops(), pair[0]))[:-1]
        return [p for _, p in sorted(kept)]
    if isinstance(family, Binomial):
        return _binomial(family, block)
    if isinstance(family, Multinomial):
        return _multinomial(family)
    return None


def _binomial(family: Binomial, block: Block) -> list[Expr] | None:
    n, p = family.arguments
    if isinstance(n, Integer):
        # E C(x, j) = C(n, j) pʲ, without the known factor.
        return [p**j for j in range(1, int(n) + 1)]
    most = _largest(n, block)
    return None if most is None else [falling(n, j) * p**j for j in range(1, most + 1)]


def _largest(trials: Expr, block: Block) -> int | None:
    used = [s for s in block.latents if trials.has(*s.symbols)]
    if trials.free_symbols - {s for statement in used for s in statement.symbols}:
        return None
    if any(finite_values(statement) is None for statement in used):
        return None
    names = [statement.symbols[0] for statement in used]
    found = [
        trials.xreplace(dict(zip(names, values, strict=True)))
        for values in product(*[finite_values(statement) or () for statement in used])
    ]
    whole = all(isinstance(value, Integer) and value >= 0 for value in found)
    return max(map(int, found)) if whole else None


def _multinomial(family: Multinomial) -> list[Expr] | None:
    # E C(x₁, a₁) … C(x_{K−1}, a_{K−1}) = const · Π p_k^{a_k}, |a| ≤ n: as many as cells, and triangular.
    if not isinstance(family.total, Integer):
        return None
    return list(_monomials(family.each[:-1], int(family.total)))


def _monomials(variables: Sequence[Expr], degree: int) -> Iterator[Expr]:
    for size in range(1, degree + 1):
        for chosen in combinations_with_replacement(variables, size):
            yield sympy.Mul(*chosen)

"""A Dirichlet's shares as sticks broken one after the other: the coordinates in which quadrature runs on a simplex.

With ``v_1 = p_1``, ``v_2 = p_2/(1 − p_1)``, …, ``v_{K−1}`` the shares are ``p_j = v_j Π_{i<j} (1 − v_i)``, and
``p ~ Dirichlet(a)`` says that the v are independent, ``v_j ~ Beta(a_j, a_{j+1} + … + a_K)``: the same model with K − 1 free
latents. Whichever share is broken off first is a latent of its own, and the other sticks are the proportions of the
others among themselves, of which it is independent a priori; so one order of sticks for each share gives its marginal
posterior and, given the others' proportions, its conditional one.

Source: Connor & Mosimann 1969, JASA 64:194; Gelman et al. 2013, section 23.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy
import torch
from sympy import Expr, Symbol
from torch import Tensor

from identkit.model.families import Beta
from identkit.model.model import Model
from identkit.model.more_families import Dirichlet
from identkit.model.statement import Statement


def has_shares(model: Model) -> bool:
    """Whether some latents are shares of one."""
    return bool(_shares(model))


def _shares(model: Model) -> list[Statement]:
    return [statement for statement in model.latents if isinstance(statement.family, Dirichlet)]


def by_latent(model: Model, measure: Callable[[Model], Sequence[Tensor]]) -> list[Tensor]:
    """Measure every latent in free coordinates: a share where it is broken off first, all others in the default order.

    Args:
        model: with one Dirichlet at least.
        measure: takes a model without any, gives tables (…, k) with a column for each of its latents; it is called with
            the default order first.

    Returns:
        The tables, with a column for each latent of the model.

    >>> from identkit.model.language import parse
    >>> m = parse("z ~ Normal(0, 1); p[3] ~ Dirichlet(1, 2, 3); observe x ~ Bernoulli(p[1])")
    >>> means = lambda other: [torch.tensor([1 / (1 + float(s.family.arguments[1])) for s in other.latents])]
    >>> by_latent(m, means)[0]  # of N(0, 1) its variance counts, of Beta(a, b) only b
    tensor([0.5000, 0.1667, 0.2000, 0.2500])
    """
    default = measure(_broken(model, {}))
    columns: list[list[Tensor]] = [[] for _ in default]
    place = 0
    for statement in model.latents:
        for i, share in enumerate(statement.symbols):
            if not isinstance(statement.family, Dirichlet):
                tables, at = default, place + i
            else:
                tables, at = default if i == 0 else measure(_broken(model, {statement: share})), place
            for column, table in zip(columns, tables, strict=True):
                column.append(table[..., at])
        place += len(statement.symbols) - isinstance(statement.family, Dirichlet)
    return [torch.stack(column, -1) for column in columns]


def _broken(model: Model, first: dict[Statement, Symbol]) -> Model:
    """The model with every Dirichlet in sticks, a chosen share of some first."""
    values: dict[Symbol, Expr] = {}
    sticks: dict[tuple[Symbol, ...], list[Statement]] = {}
    for statement in _shares(model):
        pairs = list(zip(statement.symbols, statement.family.arguments, strict=True))
        chosen = first.get(statement)
        pairs.sort(key=lambda pair: pair[0] != chosen)  # stable: the others keep their order
        left: Expr = sympy.S.One
        sticks[statement.symbols] = []
        for i, (share, weight) in enumerate(pairs[:-1]):
            stick = Symbol(_free(model, share), positive=True)
            rest = sympy.Add(*[other for _, other in pairs[i + 1 :]])
            sticks[statement.symbols].append(Statement((stick,), Beta(weight, rest)))
            values[share], left = left * stick, left * (1 - stick)
        values[pairs[-1][0]] = left
    shares = model.latents
    found = model.replaced(values)
    found.latents = [
        new
        for before, after in zip(shares, found.latents, strict=True)
        for new in sticks.get(before.symbols, [after])
    ]
    found._symbols |= {symbol.name: symbol for statement in found.latents for symbol in statement.symbols}
    return found


def _free(model: Model, share: Symbol) -> str:
    """A name for a share's stick that the model does not use."""
    name = share.name.replace("[", "_").replace(",", "_").replace("]", "")
    while name in model._symbols:
        name += "_"
    return name

"""A model taken apart into blocks that are independent of one another, before anything is integrated.

Latents that no observation depends on integrate to one and go; what remains falls apart wherever no latent
is shared. The law of a row is the product of its blocks' laws, so a summary of each is a summary of the
whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import sympy
from sympy import Dummy, Expr, Integer, S, Symbol

from identkit.model.families import (
    Bernoulli,
    Binomial,
    Categorical,
    Family,
    LogNormal,
    Mixture,
    Normal,
)
from identkit.model.functions import select
from identkit.model.model import Model
from identkit.model.statement import Statement
from identkit.symbolic.support import State, probability


@dataclass(frozen=True)
class Block:
    """Latents in the order of drawing, and observations that depend on them."""

    latents: tuple[Statement, ...]
    observations: tuple[Statement, ...]

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The latents, element by element."""
        return tuple(symbol for statement in self.latents for symbol in statement.symbols)

    @property
    def finite(self) -> tuple[Statement, ...]:
        """The latents with finitely many states, whatever the parameters."""
        return tuple(statement for statement in self.latents if finite_values(statement) is not None)

    @property
    def continuous(self) -> tuple[Statement, ...]:
        """The other latents; counts without a bound are among them."""
        return tuple(statement for statement in self.latents if finite_values(statement) is None)

    def given(self, state: State) -> Block:
        """The block with some latents held: they leave the prior and stand as numbers elsewhere."""
        kept = [s for s in self.latents if not set(s.symbols) <= set(state)]
        return Block(tuple(_at(s, state) for s in kept), tuple(_at(s, state) for s in self.observations))

    def restricted(self, observations: Sequence[Statement]) -> Block:
        """The block that the law of some of its observations needs: these and their ancestors."""
        needed = set[Any]().union(*[statement.family.free_symbols for statement in observations])
        return Block(self.ancestors(needed), tuple(observations))

    def ancestors(self, symbols: Collection[Any]) -> tuple[Statement, ...]:
        """The latents among the symbols, and all that are drawn on the way to them."""
        needed = set(symbols)
        kept: list[Statement] = []
        for statement in reversed(self.latents):
            if needed & set(statement.symbols):
                kept.append(statement)
                needed |= statement.family.free_symbols
        return tuple(reversed(kept))

    def parts(self, through: Collection[Symbol]) -> list[Block]:
        """The connected parts where statements are joined by the symbols of `through` only."""
        groups: list[tuple[set[Any], list[int]]] = []
        statements = [*self.latents, *self.observations]
        for position, statement in enumerate(statements):
            touched = (statement.family.free_symbols | set(statement.symbols)) & set(through)
            joined = [group for group in groups if group[0] & touched]
            groups = [group for group in groups if not group[0] & touched]
            links = touched.union(*[group[0] for group in joined])
            groups.append((links, [*[i for group in joined for i in group[1]], position]))
        split = len(self.latents)
        return [
            Block(
                tuple(statements[i] for i in sorted(members) if i < split),
                tuple(statements[i] for i in sorted(members) if i >= split),
            )
            for _, members in sorted(groups, key=lambda group: max(group[1]))
        ]

    def shape(self) -> tuple[Any, ...]:
        """What blocks with one law in the same parameters share: everything but the latents' names."""
        names = {symbol: Symbol(f"latent {position}") for position, symbol in enumerate(self.symbols)}
        statements = [*self.latents, *self.observations]
        return len(self.latents), *[
            (len(s.symbols), type(s.family), tuple(e.xreplace(names) for _, e, _ in s.family.expressions()))
            for s in statements
        ]


def blocks(model: Model) -> list[Block]:
    """The independent blocks of a model, mixtures unfolded into a label and its components.

    >>> import identkit as ik
    >>> m = ik.parse("z[3] ~ Normal(0, 1); observe x ~ Normal(z[1], 1); observe y ~ Normal(z[2], 1)")
    >>> [block.symbols for block in blocks(m)]
    [(z[1],), (z[2],)]
    """
    latents, observations = _unfolded(model)
    whole = Block(tuple(latents), tuple(observations)).restricted(observations)
    return whole.parts(whole.symbols)


def finite_values(statement: Statement) -> list[Expr] | None:
    """The values of a latent with finitely many; None for all others."""
    family = statement.family
    if isinstance(family, Bernoulli):
        return [S.Zero, S.One]
    if isinstance(family, Categorical):
        return [Integer(state) for state in range(1, len(family.arguments) + 1)]
    if isinstance(family, Binomial) and isinstance(family.arguments[0], Integer):
        return [Integer(count) for count in range(int(family.arguments[0]) + 1)]
    return None


def states(statements: Sequence[Statement]) -> Iterator[tuple[State, Expr]]:
    """The joint states of finite latents, each with its probability; those of probability 0 are left out."""
    names = [statement.symbols[0] for statement in statements]
    for values in product(*[finite_values(statement) or () for statement in statements]):
        state = dict(zip(names, values, strict=True))
        masses = [probability(s.family, value) for s, value in zip(statements, values, strict=True)]
        weight = sympy.Mul(*[mass.xreplace(state) for mass in masses])
        if weight != 0:
            yield state, weight


def count_states(statements: Sequence[Statement]) -> int:
    """How many joint states finite latents have."""
    return sympy.prod([len(finite_values(statement) or ()) for statement in statements])


def _unfolded(model: Model) -> tuple[list[Statement], list[Statement]]:
    """The statements without mixtures and log-normals.

    A mixture's label becomes a latent. A log-normal latent is the exponential of a normal one; a log-normal
    observation determines, and is determined by, its logarithm.
    """
    latents: list[Statement] = []
    exponentials: dict[Symbol, Expr] = {}
    for statement in model.latents:
        label, plain = _without_label(_at(statement, exponentials))
        if isinstance(plain.family, LogNormal):
            (symbol,) = plain.symbols
            logarithm = Dummy(f"log {symbol.name}", real=True)
            exponentials[symbol] = sympy.exp(logarithm)
            plain = Statement((logarithm,), Normal(*plain.family.arguments))
        latents += [*label, plain]
    observations: list[Statement] = []
    for statement in model.observations:
        label, plain = _without_label(_at(statement, exponentials))
        if isinstance(plain.family, LogNormal):
            plain = Statement(plain.symbols, Normal(*plain.family.arguments))
        latents += label
        observations.append(plain)
    return latents, observations


def _without_label(statement: Statement) -> tuple[list[Statement], Statement]:
    family = statement.family
    if not isinstance(family, Mixture):
        return [], statement
    if len(family.components) == 1:
        return [], Statement(statement.symbols, family.components[0])
    names = ", ".join(symbol.name for symbol in statement.symbols)
    label = Dummy(f"the label of {names}", integer=True, positive=True)
    chosen = _chosen(label, family.components)
    return [Statement((label,), Categorical(*family.weights))], Statement(statement.symbols, chosen)


def _chosen(label: Symbol, components: Sequence[Family]) -> Family:
    """The component that the label picks, argument by argument."""
    longest = max(len(component.arguments) for component in components)
    # Only Categorical has a varying number of arguments; states that a component lacks have probability 0.
    padded = [[*c.arguments, *[S.Zero] * (longest - len(c.arguments))] for c in components]
    arguments = []
    for choices in zip(*padded, strict=True):
        if isinstance(choices[0], sympy.MatrixBase):
            entries = [select(label, *entry) for entry in zip(*choices, strict=True)]
            arguments.append(sympy.ImmutableMatrix(*choices[0].shape, entries))
        else:
            arguments.append(select(label, *choices))
    return type(components[0])(*arguments)


def _at(statement: Statement, state: Mapping[Symbol, Expr]) -> Statement:
    if not statement.family.free_symbols & set(state):
        return statement
    values = dict(state)
    return Statement(statement.symbols, statement.family.map(lambda e: _evaluated(e, values)))


def _evaluated(expression: Expr, values: dict[Symbol, Expr]) -> Expr:
    # xreplace rebuilds what contains the symbols through its class, so that select(2, a, b) becomes b.
    return expression.xreplace(values) if expression.has(*values) else expression

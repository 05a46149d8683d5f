"""The law of one block of a model in full: a table, a member of a family, or a finite mixture of members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sympy import Expr, Set, Symbol

from identkit.model.statement import Statement
from identkit.symbolic.blocks import Block, count_states, states
from identkit.symbolic.compound import Member, member
from identkit.symbolic.expectation import expectation
from identkit.symbolic.multiset import Atom, Condition, described, mixing_law
from identkit.symbolic.support import State
from identkit.symbolic.tables import bases, moments, table

MOST_STATES = 512
"""Joint states of the labels of one mixture beyond which it is not written out."""

_TABLE = "all cells of the finite data, through equivalent moments"


@dataclass(frozen=True, kw_only=True)
class MarginalLaw:
    """What is known of the law of one row of data, as expressions of the parameters (and of known numbers).

    Equal `expressions`, together with `components` equal as multisets, always mean equal laws if
    `incomplete` is empty; and equal laws mean equal `expressions`, always.

    Attributes:
        expressions: the law determines each of these, without exception.
        components: of a finite mixture, tuples (weight, arguments…) that the law determines up to
            permutation, at every θ where the `conditions` hold (the other parameter of the same law need
            not be checked).
        needs_components: whether `expressions` alone are not exhaustive, so that `components` have to
            be used.
        conditions: each a tuple of expressions of which one should not be 0, for `components`.
        assumptions: the same in words, if `components` are needed.
        incomplete: empty if exhaustive, else the integral that is missing.
        sufficient: where incomplete, expressions that fix the law (empty if none are known): parameters that
            leave them alone are not identifiable.
        method: the theorems used.
    """

    expressions: tuple[Expr, ...]
    components: tuple[tuple[Expr, ...], ...] = ()
    needs_components: bool = False
    conditions: tuple[Condition, ...] = ()
    assumptions: tuple[str, ...] = ()
    incomplete: str = ""
    sufficient: tuple[Expr, ...] = ()
    method: str = ""

    @property
    def exhaustive(self) -> bool:
        """Whether equal laws also mean equal κ and conversely."""
        return not self.incomplete

    @property
    def local(self) -> tuple[Expr, ...]:
        """Expressions with the generic rank of the law: a multiset of distinct tuples is locally a tuple."""
        if not self.needs_components:
            return self.expressions
        return named((*self.expressions, *[entry for row in self.components for entry in row]))


def block_law(block: Block, domains: Mapping[Symbol, Set]) -> MarginalLaw | None:
    """The law of one block, exhaustively; None where a theorem is missing."""
    if not block.latents:
        # One statement: blocks are joined by latents only.
        (statement,) = block.observations
        name = statement.family.name
        return MarginalLaw(
            expressions=named(statement.family.law), method=f"the arguments of {name} are its law"
        )
    cells = table(block)
    if cells is not None:
        return MarginalLaw(expressions=named(cells), method=_TABLE)
    return _mixture(block, domains)


# Finite mixtures of members of one family, of which one member is the case of a single state


def _mixture(block: Block, domains: Mapping[Symbol, Set]) -> MarginalLaw | None:
    if count_states(block.finite) > MOST_STATES:
        return None
    inner = _fed(block)
    weights = _weights(block, {symbol for statement in inner.latents for symbol in statement.symbols})
    if weights is None:
        return None
    parts = inner.parts(inner.symbols)
    tables = [bases(Block(block.latents, part.observations)) for part in parts]
    atoms: list[tuple[list[Member], list[tuple[Expr, ...]]]] = []
    for state, _ in states(block.finite):
        at_state = _at(parts, tables, state)
        if at_state is None:
            return None
        atoms.append(at_state)
    kinds = {tuple(member.kind for member in members) for members, _ in atoms}
    if len(atoms) == 1:
        return _single(*atoms[0])
    if len(kinds) != 1 or not all(member.independent for members, _ in atoms for member in members):
        return None
    return _mixed(weights, atoms, domains)


def _fed(block: Block) -> Block:
    """The observations with the continuous latents that they depend on, not by way of a label."""
    labels = {symbol for statement in block.finite for symbol in statement.symbols}
    bare = Block(block.continuous, block.observations)
    needed = {symbol for o in block.observations for symbol in o.family.free_symbols} - labels
    kept: list[Statement] = []
    for statement in reversed(bare.latents):
        if needed & set(statement.symbols):
            kept.append(statement)
            needed |= statement.family.free_symbols - labels
    return Block(tuple(reversed(kept)), block.observations)


def _weights(block: Block, feeding: set[Symbol]) -> list[Expr] | None:
    """The probability of each state of the labels.

    None where a latent that feeds the data enters it too: that mixes infinitely many mixtures.
    """
    found = []
    for state, weight in states(block.finite):
        rest = block.given(state).latents
        direct = [statement for statement in rest if weight.has(*statement.symbols)]
        entering = [*direct, *Block(rest, ()).restricted(direct).latents]
        integrated = expectation(weight, rest)
        if integrated is None or any(feeding & set(statement.symbols) for statement in entering):
            return None
        found.append(integrated)
    return found


def _at(
    parts: Sequence[Block], tables: Sequence[Mapping[Symbol, Sequence[Expr]] | None], state: State
) -> tuple[list[Member], list[tuple[Expr, ...]]] | None:
    """The laws of the independent parts at one state of the labels: members of families, and tables."""
    members: list[Member] = []
    cells: list[tuple[Expr, ...]] = []
    for part, functions in zip(parts, tables, strict=True):
        here = part.given(state)
        if functions is None:
            law = member(here)
            if law is None:
                return None
            members.append(law)
        else:
            # The functions are chosen before the state is put in: the entries of all states must correspond.
            at_state = {symbol: [f.xreplace(dict(state)) for f in row] for symbol, row in functions.items()}
            own = moments(here, at_state)
            if own is None:
                return None
            cells.append(tuple(own))
    return members, cells


def _single(members: Sequence[Member], cells: Sequence[tuple[Expr, ...]]) -> MarginalLaw:
    expressions = [
        *[e for law in members for e in law.simple or law.coordinates],
        *[e for row in cells for e in row],
    ]
    methods = [*[law.method for law in members], *([_TABLE] if cells else [])]
    return MarginalLaw(expressions=named(tuple(expressions)), method="; ".join(dict.fromkeys(methods)))


def _mixed(
    weights: Sequence[Expr],
    atoms: Sequence[tuple[list[Member], list[tuple[Expr, ...]]]],
    domains: Mapping[Symbol, Set],
) -> MarginalLaw | None:
    # The short coordinates serve a part only if they serve it in every state.
    short = [all(members[i].simple for members, _ in atoms) for i in range(len(atoms[0][0]))]
    law = mixing_law(
        [
            Atom(
                weight,
                tuple(m.simple if s else m.coordinates for m, s in zip(members, short, strict=True)),
                tuple(cells),
            )
            for weight, (members, cells) in zip(weights, atoms, strict=True)
        ],
        domains,
    )
    if law.moments is None and not law.components:
        return None
    families = "; ".join(dict.fromkeys(member.method for member in atoms[0][0]))
    return MarginalLaw(
        expressions=named((*law.shared, *(law.moments or ()))),
        components=law.components,
        needs_components=law.moments is None,
        conditions=law.conditions,
        assumptions=described(law.conditions) if law.moments is None else (),
        method=f"a finite mixture of linearly independent laws determines its mixing measure ({families})",
    )


def named(expressions: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Each expression once; those without a symbol say nothing."""
    return tuple(dict.fromkeys(expression for expression in expressions if expression.free_symbols))

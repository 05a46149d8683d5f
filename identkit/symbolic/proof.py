"""From claims to levels: a proof holds when each of its claims does and its levels follow from them (theory/T2, T3).

No claim says more than its own sentence, so "every state", "in some state of positive mass" and "read off one after
the other" are checked here, on the support of the prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import sympy
from sympy import Expr, Symbol

from identkit.model.model import Model
from identkit.symbolic.cells import FlatCell
from identkit.symbolic.certificates import (
    AllDiffer,
    Claim,
    Data,
    DiscreteFibre,
    FlatOnData,
    GapOnData,
    Ignored,
    Invisible,
    InvisibleOnData,
    Merged,
    Monotone,
    Recovered,
    SpanOnData,
)
from identkit.symbolic.certificates.laws import law_moves
from identkit.symbolic.equalities import tied
from identkit.symbolic.full_rank import FullRank
from identkit.symbolic.support import (
    State,
    dimension_inside,
    is_discrete,
    is_finite,
    simplexes,
    supported_states,
    takes_every_value,
    varies,
)
from identkit.verdict import Certificate, Level, overall

MOST_SENTENCES = 12
"""How many of a proof's claims are put into words."""
_Frozen = frozenset[tuple[Symbol, Expr]]


@dataclass(frozen=True)
class Proof(Certificate):
    """Claims about a model, and the levels that follow from them: of the law, or on the data sets `groups`."""

    model: Model
    claims: tuple[Claim, ...]
    levels: Mapping[str, Level] = field(default_factory=dict)
    groups: tuple[Data, ...] = ()

    @property
    def kind(self) -> str:
        return " + ".join(dict.fromkeys(type(claim).__name__ for claim in self.claims))

    @property
    def statement(self) -> str:
        sentences = list(dict.fromkeys(claim.sentence for claim in self.claims))
        more = len(sentences) - MOST_SENTENCES
        return "; ".join(sentences[:MOST_SENTENCES]) + (
            f"; and {more} claims like these." if more > 0 else "."
        )

    def verify(self) -> bool:
        try:
            if not all(claim.holds(self.model) for claim in self.claims):
                return False
        except (KeyError, ValueError):  # a claim about what this model does not have
            return False
        weighed = Weighed(self.model, self.claims)
        return all(
            self._follows(name, level, weighed)
            for name, level in self.levels.items()
            if level is not Level.UNKNOWN
        )

    def what_holds(self) -> Proof:
        """The proof with the claims that hold and the levels that follow from these; the rest becomes UNKNOWN."""
        claims = tuple(claim for claim in self.claims if claim.holds(self.model))
        weighed = Weighed(self.model, claims)
        levels = {
            name: level if level is Level.UNKNOWN or self._follows(name, level, weighed) else Level.UNKNOWN
            for name, level in self.levels.items()
        }
        return replace(self, claims=claims, levels=levels)

    def _follows(self, name: str, level: Level, weighed: Weighed) -> bool:
        latent = next((s for s in self.model.latent_symbols if s.name == name), None)
        if latent is None or (level is not Level.CONSTANT and tied(self.model)):
            return False
        if not self.groups:
            return weighed.of_law(latent, level)
        found = [weighed.on_data(latent, group) for group in self.groups]
        return None not in found and overall(l for l in found if l is not None) is level


class Weighed:
    """What a model's verified claims amount to, latent by latent."""

    def __init__(self, model: Model, claims: Sequence[Claim]) -> None:
        self._model, self._claims = model, claims
        self._finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
        self._rest = [s for s in model.latent_symbols if s not in self._finite]

    def of_law(self, latent: Symbol, level: Level) -> bool:
        """Whether the level of a latent in the law, for all data at once, follows."""
        if self._states is None:
            return level is Level.CONSTANT and self._ignored_always(latent)
        if level is Level.CONSTANT:
            return self._constant(latent)
        if level is Level.PARTIAL:
            return self._partial(latent) and not self._constant(latent) and law_moves(self._model, latent)
        if level is Level.LOCAL:
            return (
                not self._finite
                and varies(self._model, latent)
                and any(isinstance(claim, DiscreteFibre) and claim.latent == latent for claim in self._claims)
            )
        return level is Level.GLOBAL and self._global(latent)

    def on_data(self, latent: Symbol, group: Data) -> Level | None:
        """The level of a latent on one data set, or None if nothing follows."""
        if self._states is None:
            return Level.CONSTANT if self._ignored_always(latent) else None
        if self._constant(latent) or self._flat(latent, group):
            return Level.CONSTANT
        if not any(
            isinstance(c, GapOnData) and c.latent == latent and self._possible(c, group) for c in self._claims
        ):
            return None
        if self._partial(latent) or self._slides(latent, group):
            return Level.PARTIAL
        return Level.INFORMED if latent in self._finite or self._spans(group) else None

    # The support

    @cached_property
    def _states(self) -> list[_Frozen] | None:
        if not self._finite:
            return [frozenset()]
        states = supported_states(self._model, self._finite)
        return None if states is None else [_frozen(state) for state in states]

    @cached_property
    def _classes(self) -> dict[_Frozen, _Frozen]:
        """For each state of positive mass a representative of those that are proved to have its law."""
        leader = {state: state for state in self._states or ()}

        def find(state: _Frozen) -> _Frozen:
            while leader[state] != state:
                state = leader[state]
            return state

        for claim in self._claims:
            if isinstance(claim, Merged):
                one, other = _frozen(claim.one), _frozen(claim.other)
                if one in leader and other in leader:
                    leader[find(one)] = find(other)
        return {state: find(state) for state in leader}

    @cached_property
    def _told_apart(self) -> bool:
        """Whether the classes of states are proved to have different laws, whatever the other latents are."""
        classes = set(self._classes.values())
        if len(classes) <= 1:
            return True
        for claim in self._claims:
            if isinstance(claim, AllDiffer) and not any(e.has(*self._rest) for e in claim.summary):
                told = [self._classes.get(_frozen(state)) for state in claim.states]
                if set(told) == classes and len(told) == len(classes):
                    return True
        return False

    # Levels of the law

    def _ignored_always(self, latent: Symbol) -> bool:
        return self._ignored_in(latent, None)

    def _ignored_in(self, latent: Symbol, state: _Frozen | None) -> bool:
        """Whether the law ignores a latent, in one state or in all; on a simplex, with all that move when it does."""
        ignored = {
            s
            for c in self._claims
            if isinstance(c, Ignored) and (not c.state or _frozen(c.state) == state)
            for s in c.latents
        }
        group = next((group for group in simplexes(self._model) if latent in group), (latent,))
        return ignored >= set(group)

    def _varies_alone(self, latent: Symbol) -> bool:
        """Whether two states of positive mass differ in the latent alone; else "ignored" would be an empty word."""
        others = [frozenset(i for i in state if i[0] != latent) for state in self._classes]
        return latent not in self._finite or len(set(others)) < len(others)

    def _constant(self, latent: Symbol) -> bool:
        if self._ignored_always(latent) and self._varies_alone(latent):
            return True
        if latent in self._finite:
            if len({dict(state)[latent] for state in self._classes}) == 1:
                return True
            if len(set(self._classes.values())) == 1:
                return True
            groups: dict[_Frozen, set[_Frozen]] = {}
            sizes: dict[_Frozen, int] = {}
            for state, leader in self._classes.items():
                others = frozenset(item for item in state if item[0] != latent)
                groups.setdefault(others, set()).add(leader)
                sizes[others] = sizes.get(others, 0) + 1
            return max(sizes.values()) > 1 and all(len(leaders) == 1 for leaders in groups.values())
        return all(self._ignored_in(latent, state) for state in self._states or ())

    def _partial(self, latent: Symbol) -> bool:
        if latent in self._finite:
            values: dict[_Frozen, set[Expr]] = {}
            for state, leader in self._classes.items():
                values.setdefault(leader, set()).add(dict(state)[latent])
            return any(len(seen) > 1 for seen in values.values())
        for claim in self._claims:
            if isinstance(claim, FlatCell) and latent in claim.direction:
                return True
            if isinstance(claim, Invisible) and latent in claim.direction:
                moved, state = claim.direction, claim.state
            elif isinstance(claim, Ignored) and latent in claim.latents:
                moved, state = {latent: sympy.S.One}, claim.state
            else:
                continue
            if not state or _frozen(state) in (self._states or ()):
                held = self._model.given(state) if state else self._model
                if self._meets_the_support(held, moved):
                    return True
        return False

    @staticmethod
    def _meets_the_support(model: Model, direction: Mapping[Symbol, Expr]) -> bool:
        """Whether points of the support are moved to others of it, on a set of positive mass."""
        counts = [is_discrete(model.support(latent)) for latent in direction]
        if any(counts) and not (all(counts) and all(step.is_Rational for step in direction.values())):
            return False
        return all(takes_every_value(model, latent) for latent in direction)

    def _global(self, latent: Symbol) -> bool:
        if not self._told_apart or self._constant(latent):
            return False
        if latent in self._finite:
            return not self._partial(latent)
        if not any(varies(self._held(state), latent) for state in self._states or ()):
            return False
        return all(latent in self._read_off(state) for state in self._states or ())

    def _read_off(self, state: _Frozen) -> set[Symbol]:
        """The latents that the claims give back at one state, each built on those before it."""
        known: set[Symbol] = set()
        for claim in self._claims:
            if (
                isinstance(claim, Recovered | Monotone | FullRank)
                and _frozen(claim.state) == state
                and known.issuperset(claim.known)
            ):
                known.update(claim.gives)
        return known

    def _held(self, state: _Frozen) -> Model:
        return self._model.given(dict(state)) if state else self._model

    # Levels on data

    def _flat(self, latent: Symbol, group: Data) -> bool:
        for claim in self._claims:
            if isinstance(claim, FlatOnData) and claim.latent == latent and claim.data == group:
                return {_frozen(state) for state in claim.states} >= set(self._states or ())
        return False

    def _slides(self, latent: Symbol, group: Data) -> bool:
        """Whether these data ignore a direction that moves the latent, from points of the support to others of it."""
        for claim in self._claims:
            if isinstance(claim, InvisibleOnData) and claim.data == group and latent in claim.direction:
                state = _frozen(claim.state)
                # A direction that keeps the sums of a simplex, as the claim checks, stays within it for a while.
                bound = {s for group in simplexes(self._model) for s in group}
                free = {s: step for s, step in claim.direction.items() if s not in bound}
                if state in (self._states or ()) and self._meets_the_support(self._held(state), free):
                    return True
        return False

    def _possible(self, gap: GapOnData, group: Data) -> bool:
        """Whether a gap is one of this data set, between points of the prior's support."""
        ends = [frozenset((s, point[s]) for s in self._finite) for point in (gap.one, gap.other)]
        # Inside a simplex every point is possible; that the gap's are inside one is part of its own check.
        bound = {s for group in simplexes(self._model) for s in group}
        every = all(takes_every_value(self._model, s) for s in self._rest if s not in bound)
        return gap.data == group and every and set(ends) <= set(self._states or ())

    def _spans(self, group: Data) -> bool:
        """Whether ℓ ignores no direction of the continuous latents but those that the law ignores."""
        continuous = [s for s in self._rest if not is_discrete(self._model.support(s))]
        if len(continuous) < 2:
            return True
        for state in self._states or ():
            rank = max(
                (
                    claim.rank
                    for claim in self._claims
                    if isinstance(claim, SpanOnData) and claim.data == group and _frozen(claim.state) == state
                ),
                default=0,
            )
            if rank < len(continuous) - len(simplexes(self._model)) - self._unseen(state, continuous, group):
                return False
        return True

    def _unseen(self, state: _Frozen, latents: Sequence[Symbol], group: Data) -> int:
        bound = {s for inside in simplexes(self._model) for s in inside}
        directions: list[Mapping[Symbol, Expr]] = [
            {s: sympy.S.One} for s in latents if self._ignored_in(s, state)
        ]
        for claim in self._claims:
            if isinstance(claim, InvisibleOnData):
                counts = claim.data == group and _frozen(claim.state) == state
            elif isinstance(claim, Invisible):
                # A direction in which the law is constant leads out of a simplex.
                counts = not bound & set(claim.direction) and (
                    not claim.state or _frozen(claim.state) == state
                )
            else:
                continue
            if counts and set(claim.direction) <= set(latents):
                directions.append(claim.direction)
        return dimension_inside(self._model, directions, latents)


def _frozen(state: State) -> _Frozen:
    return frozenset(state.items())

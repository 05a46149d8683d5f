"""Proofs about parameters and about latents and parameters together: claims on κ, re-checked without the search.

`FibreProof.verify` builds κ again from the model, checks every claim on it with SymPy's rings and with balls (the
search works in flint and over a prime field), and derives the levels from the claims alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sympy import Symbol

from identkit.model.model import Model
from identkit.symbolic.certificates.claim import spelled
from identkit.symbolic.fibre_claims import FibreClaim, Relabelled, Values
from identkit.symbolic.questions import Question, question
from identkit.verdict import Certificate, Level


def _holds(claim: FibreClaim, asked: Question) -> bool:
    try:
        return claim.holds(asked)
    except (NotImplementedError, KeyError, ValueError):  # no arithmetic for it here, or no such unknown
        return False


@dataclass(frozen=True)
class FibreProof(Certificate):
    """Claims about a question on a model, in an order in which each builds on those before it.

    `slice_claims` are claims on the model with the coordinates of `point` written in: what they free is free at the
    point; what they determine is determined once all those coordinates are.
    """

    model: Model
    about: str
    claims: tuple[FibreClaim, ...]
    levels: Mapping[str, Level]
    point: Values = field(default_factory=dict)
    slice_claims: tuple[FibreClaim, ...] = ()

    @property
    def kind(self) -> str:
        return " + ".join(dict.fromkeys(type(claim).__name__ for claim in (*self.claims, *self.slice_claims)))

    @property
    def statement(self) -> str:
        here = [claim.sentence for claim in self.claims]
        sliced = [f"where {spelled(self.point)}: {claim.sentence}" for claim in self.slice_claims]
        return "; ".join(dict.fromkeys([*here, *sliced])) + "."

    def verify(self) -> bool:
        asked = question(self.model, self.about)
        if not all(_holds(claim, asked) for claim in self.claims):
            return False
        inner: dict[Symbol, set[Level]] = {}
        if self.slice_claims:
            sliced = question(self.model.at({s.name: v for s, v in self.point.items()}), self.about)
            if not all(_holds(claim, sliced) for claim in self.slice_claims):
                return False
            inner = _evidence(self.slice_claims, sliced)
        found = _evidence(self.claims, asked)
        pinned = all(Level.GLOBAL in found.get(s, ()) for s in self.point)
        for unknown in asked.problem.unknowns:
            level = self.levels[unknown.name]
            if level is not Level.UNKNOWN and not self._follows(unknown, level, found, inner, pinned):
                return False
        return True

    def _follows(
        self,
        unknown: Symbol,
        level: Level,
        found: Mapping[Symbol, set[Level]],
        inner: Mapping[Symbol, set[Level]],
        pinned: bool,
    ) -> bool:
        evidence = set(found.get(unknown, ()))
        if self.point:
            sliced = inner.get(unknown, set())
            if sliced & {Level.PARTIAL, Level.CONSTANT}:
                evidence.add(Level.PARTIAL)
            if pinned:
                evidence |= sliced - {Level.CONSTANT, Level.PARTIAL}
            evidence -= {Level.CONSTANT}
        # "Not seen at all" leaves no room for "some of it is seen", nor "one value" for "finitely many" by the rank.
        final = evidence & {Level.CONSTANT, Level.GLOBAL}
        return level in (final or evidence)


def _evidence(claims: tuple[FibreClaim, ...], asked: Question) -> dict[Symbol, set[Level]]:
    found: dict[Symbol, set[Level]] = {u: set() for u in asked.problem.unknowns}
    for claim in claims:
        if all(Level.GLOBAL in found.get(k, ()) for k in claim.known):
            for unknown, levels in claim.supports.items():
                if unknown in found:
                    found[unknown] |= set(levels)
    if not asked.problem.exhaustive:
        # What is known of the law can determine unknowns; that it leaves some free proves nothing.
        return {u: levels - {Level.CONSTANT, Level.PARTIAL} for u, levels in found.items()}
    if asked.components:
        return _up_to_labels(claims, found, asked)
    return found


def _up_to_labels(
    claims: tuple[FibreClaim, ...], found: dict[Symbol, set[Level]], asked: Question
) -> dict[Symbol, set[Level]]:
    """κ lists the components in one order, but the law does not: what a relabelling moves is LOCAL, not GLOBAL."""
    relabelled = [claim for claim in claims if isinstance(claim, Relabelled)]
    settled = _exchanges(len(asked.components)) <= {claim.pair for claim in relabelled}
    moved = {u for claim in relabelled for u in claim.change}
    for unknown, levels in found.items():
        if Level.GLOBAL in levels and (not settled or unknown in moved):
            levels.discard(Level.GLOBAL)
            levels.add(Level.LOCAL)
    return found


def _exchanges(size: int) -> set[tuple[int, int]]:
    return {(i, i + 1) for i in range(size - 1)}

"""Proofs about decoders that re-check themselves: each verify records the model anew, from its present weights.

What a search chose (directions, boxes, levels) is data of the certificate and is checked, not searched for again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from flint import fmpq
from torch import Tensor

from identkit.numeric import affine, bounded, enclosure
from identkit.numeric.intervals import Interval
from identkit.numeric.lipschitz import Constants, lipschitz
from identkit.numeric.lowering import decoder_program, law_program
from identkit.numeric.probed import Probed
from identkit.numeric.program import Program
from identkit.numeric.record import Record
from identkit.numeric.recovery import recovered
from identkit.verdict import Certificate

Direction = tuple[Fraction, ...]
_LISTED = 8  # names that a statement spells out


def held(box: Interval, ignored: Sequence[bool]) -> Interval:
    """The box with the latents that nothing depends on held at one value."""
    fixed = torch.tensor(list(ignored))
    value = torch.where(torch.isfinite(box.low), box.low, torch.zeros_like(box.low))
    return Interval(torch.where(fixed, value, box.low), torch.where(fixed, value, box.high))


def law_name(p: Probed) -> str:
    """What the program computes, in words."""
    return "the law of the data" if p.decode is not None else "log p(x | z) on the given data"


@dataclass(frozen=True, kw_only=True, eq=False)
class Ignored(Certificate):
    """Latents that never reach the law: their values could be exchanged for any others (theory/T1, T3)."""

    model: Probed
    names: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "no path from the latent"

    @property
    def statement(self) -> str:
        if len(self.names) == self.model.prior.size:
            return f"{law_name(self.model)} is the same for every latent in the prior's support"
        return f"no computation leads from {', '.join(self.names)} to {law_name(self.model)}"

    def verify(self) -> bool:
        record = Record(self.model)
        if record.program is None or not self.names:
            return False
        blind = record.unseen
        return all(blind[self.model.prior.names.index(name)] for name in self.names)


@dataclass(frozen=True, kw_only=True, eq=False)
class NullDirections(Certificate):
    """Translations of the latents that leave the law as it is: the fibre through every z holds ``z + span`` (T2)."""

    model: Probed
    directions: tuple[Direction, ...]
    """Independent directions, exact, (k,) each."""

    @property
    def kind(self) -> str:
        return "null space"

    @property
    def moves(self) -> tuple[str, ...]:
        """The latents that some direction moves."""
        names = self.model.prior.names
        return tuple(
            n for n, column in zip(names, zip(*self.directions, strict=True), strict=True) if any(column)
        )

    @property
    def statement(self) -> str:
        return (
            f"{law_name(self.model)} does not change along {len(self.directions)} direction"
            f"{'s' if len(self.directions) > 1 else ''} of the latents, the exact null space of what it reads of "
            f"{', '.join(self.moves)}"
        )

    def verify(self) -> bool:
        program = law_program(self.model)
        if program is None or not self.directions or self.model.prior.states is not None:
            return False
        found = enclosure.ranges(program, Record(self.model).support)
        return are_null(program, found, self.directions)


def are_null(program: Program, found: enclosure.Ranges, directions: Sequence[Direction]) -> bool:
    """Whether the law ignores each direction, exactly, on the box that `found` encloses."""
    rows = affine.seen_rows(program, found)
    vectors = [tuple(fmpq(value.numerator, value.denominator) for value in each) for each in directions]
    return all(any(vector) for vector in vectors) and all(
        sum((a * b for a, b in zip(row, vector, strict=True)), fmpq(0)) == 0
        for row in rows
        for vector in vectors
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Unread(Certificate):
    """z enters through fewer linear functions than there are latents; their null space moves the named ones."""

    model: Probed
    names: tuple[str, ...]
    rank: int
    """The number of linear functions of z that the law reads."""

    @property
    def kind(self) -> str:
        return "null space by its dimension"

    @property
    def statement(self) -> str:
        return (
            f"{law_name(self.model)} reads z through {self.rank} linear functions, fewer than {self.model.prior.size} "
            "latents; directions that they do not see move "
            + (f"{len(self.names)} of these" if len(self.names) > _LISTED else ", ".join(self.names))
        )

    def verify(self) -> bool:
        record = Record(self.model)
        if record.program is None:
            return False
        rows = record.rows
        moved = affine.freed(rows, self.model.prior.size)
        free = {name for name, moves in zip(self.model.prior.names, moved, strict=True) if moves}
        return bool(self.names) and len(rows) <= self.rank and set(self.names) <= free


@dataclass(frozen=True, kw_only=True, eq=False)
class Injective(Certificate):
    """The law determines these latents: two latents in the prior's support with one law agree in them (theory/T5)."""

    model: Probed
    names: tuple[str, ...]
    ignored: tuple[str, ...]
    """Latents that never reach the law; the constants are about the others."""
    lower: float | None
    """``m > 0``: the decoder keeps latents apart, ``‖f(z) − f(z′)‖ ≥ m‖z − z′‖``; None where no such m is known."""
    upper: float | None
    """``L``: ``‖f(z) − f(z′)‖ ≤ L‖z − z′‖``; None where none is known."""
    vouched: tuple[str, ...] = ()
    """Parts of the decoder whose own constants the proof relies on (the `Bounded` protocol)."""

    @property
    def kind(self) -> str:
        return "injective"

    @property
    def complete(self) -> bool:
        """Whether every latent is determined, so that the law is an injective function of z."""
        return len(self.names) == self.model.prior.size

    @property
    def statement(self) -> str:
        which = "z" if self.complete else ", ".join(self.names)
        said = f"{law_name(self.model)} determines {which}"
        if self.lower is not None and len(self.names) + len(self.ignored) == self.model.prior.size:
            said += f": the decoder keeps latents apart by at least {self.lower:.3g} times their distance"
        if self.vouched:
            said += f" (by the constants that {', '.join(self.vouched)} state of themselves)"
        return said

    def verify(self) -> bool:
        record = Record(self.model)
        if not self.names:
            return False
        if self.vouched:
            found = bounded.links(self.model, record.support)
            proved = found is not None and bounded.reads_off(self.model)
            return proved and found is not None and self._within(bounded.total(found))
        if record.program is None:
            return False
        names = self.model.prior.names
        if any(not record.unseen[names.index(name)] for name in self.ignored):
            return False
        free = [name in self.ignored for name in names]
        box = held(record.support, free)
        known = recovered(record.program, enclosure.ranges(record.program, box))
        if not all(bool(known[names.index(name)]) for name in self.names):
            return False
        return (self.lower is None and self.upper is None) or self._within(decoder_constants(self.model, box))

    def _within(self, constants: Constants) -> bool:
        """Whether constants computed anew are no weaker than those stated."""
        m, upper = constants
        return (self.lower is None or 0 < self.lower <= m) and (self.upper is None or self.upper >= upper)


def decoder_constants(p: Probed, box: Interval) -> Constants:
    """Lipschitz constants of the decoder on a box; (0, ∞) where it cannot be followed."""
    program = decoder_program(p)
    if program is None:
        return 0.0, math.inf
    return lipschitz(program, enclosure.ranges(program, box))[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Analytic(Certificate):
    """The law's parameters are real-analytic in z: what holds of their rank at one point holds almost everywhere."""

    model: Probed

    @property
    def kind(self) -> str:
        return "analytic"

    @property
    def statement(self) -> str:
        return f"{law_name(self.model)} is a real-analytic function of z"

    def verify(self) -> bool:
        record = Record(self.model)
        return record.program is not None and enclosure.analytic(record.program, record.ranges)


def fractions(vector: Sequence[fmpq]) -> Direction:
    """A direction in Python's own rationals."""
    return tuple(Fraction(int(value.p), int(value.q)) for value in vector)


def as_tensor(direction: Direction) -> Tensor:
    """A direction rounded to float64, (k,)."""
    return torch.tensor([float(value) for value in direction], dtype=torch.float64)

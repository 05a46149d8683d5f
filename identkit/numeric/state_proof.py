"""Latents with finitely many values: which have provably one law, and which provably different ones.

The recorded computation is run on every joint value. Two values have one law where it comes to the very same steps on
the same numbers, as for two equal rows of an embedding (known_answers H17) or the two ways to be unequal (H18); they
have different laws where interval arithmetic keeps some parameter apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from identkit.numeric.enclosure import ranges
from identkit.numeric.intervals import point
from identkit.numeric.lowering import agrees, on_states
from identkit.numeric.probed import Probed
from identkit.verdict import Certificate

_MOST = 512  # states whose laws are compared pair by pair


@dataclass(frozen=True, kw_only=True, eq=False)
class States(Certificate):
    """The states of a finite prior in classes of one law each; states by their rows in ``prior.states``."""

    model: Probed
    classes: tuple[tuple[int, ...], ...]
    """States of one class have the same law."""
    distinct: bool
    """Whether states of different classes are proved to have different laws; if not, some pairs are undecided."""

    @property
    def kind(self) -> str:
        return "laws of the states"

    @property
    def statement(self) -> str:
        count = sum(len(each) for each in self.classes)
        apart = "different laws" if self.distinct else "laws not all of which are proved different"
        return f"the {count} states fall into {len(self.classes)} classes of one law each, with {apart}"

    @property
    def merged(self) -> tuple[tuple[int, ...], ...]:
        """The classes of more than one state."""
        return tuple(each for each in self.classes if len(each) > 1)

    def verify(self) -> bool:
        found = states(self.model)
        if found is None:
            return False
        place = {state: i for i, each in enumerate(found.classes) for state in each}
        within = all(len({place[state] for state in each}) == 1 for each in self.classes)
        every = sorted(state for each in self.classes for state in each) == sorted(place)
        return (
            within
            and every
            and (not self.distinct or (found.distinct and len(self.classes) == len(found.classes)))
        )


def states(p: Probed) -> States | None:
    """Sort the states of a finite prior by their laws; None where the prior is continuous or no record is possible."""
    values = p.prior.states
    if values is None or len(values) > _MOST:
        return None
    programs = on_states(p)
    if programs is None:
        return None
    if not agrees(p, programs):
        return None
    classes: dict[int, list[int]] = {}
    for state, (output, _) in enumerate(programs):
        classes.setdefault(output, []).append(state)
    empty = point(torch.zeros(p.prior.size))
    laws = [ranges(programs[each[0]][1], empty)[-1] for each in classes.values()]
    distinct = all(
        bool(((one.high < two.low) | (two.high < one.low)).any())
        for i, one in enumerate(laws)
        for two in laws[:i]
    )
    return States(model=p, classes=tuple(tuple(each) for each in classes.values()), distinct=distinct)

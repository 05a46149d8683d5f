"""What the analyses of one model share, each worked out when it is first asked for.

A check makes one record and hands it from proof to proof. A certificate that verifies itself makes its own, from the
weights as they are then.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from identkit.numeric import affine, enclosure
from identkit.numeric.affine import Vector
from identkit.numeric.intervals import Interval
from identkit.numeric.lowering import law_program
from identkit.numeric.probed import Probed
from identkit.numeric.program import Program


class Record:
    """A model's computation as a program, and what it can do on the prior's support."""

    def __init__(self, model: Probed) -> None:
        self.model = model

    @cached_property
    def program(self) -> Program | None:
        """The law's parameters as a program; None where they cannot be recorded, or the prior is finite."""
        return None if self.model.prior.states is not None else law_program(self.model)

    @property
    def steps(self) -> Program:
        """The program, where there is one."""
        assert self.program is not None
        return self.program

    @cached_property
    def support(self) -> Interval:
        """The box that holds the prior's support."""
        prior = self.model.prior
        return Interval(prior.low.to("cpu", torch.float64), prior.high.to("cpu", torch.float64))

    @cached_property
    def ranges(self) -> list[Interval]:
        """The values of every step on the support."""
        return enclosure.ranges(self.steps, self.support)

    @cached_property
    def moving(self) -> list[Tensor]:
        """Which elements of every step depend on which latents."""
        return enclosure.dependence(self.steps, self.ranges)

    @cached_property
    def rows(self) -> set[Vector]:
        """The linear functions through which alone the law reads the latents."""
        return affine.seen_rows(self.steps, self.ranges)

    @cached_property
    def unseen(self) -> list[bool]:
        """Which latents never reach the law.

        By dependence through the program, and, where that says yes, by exact coefficients: ``z − z`` is 0.
        """
        reaches = self.moving[-1].any(1)
        if not bool(reaches.any()):
            return [True] * len(reaches)
        seen = [any(column) for column in zip(*self.rows, strict=True)] or [False] * len(reaches)
        return [not (bool(reach) and read) for reach, read in zip(reaches, seen, strict=True)]

    @cached_property
    def null_space(self) -> list[Vector]:
        """Directions that no row sees; empty too where they are too large to write."""
        return affine.null_space_of(self.rows, self.model.prior.size)


def record_of(model: Probed | Record) -> Record:
    """The record itself, or a new one."""
    return model if isinstance(model, Record) else Record(model)

"""Reads a law backwards: which values, and in the end which latents, it determines.

Let z and z′, both in the prior's support, have the same law. A value is *recovered* if it must be the same at both. The
law's parameters are; and from them one goes back step by step: through a move of data, a strictly monotone function, a
sum whose other term is recovered, a product whose other factor is recovered and never 0, a matrix of full column rank.
Forwards, what is computed from recovered values is recovered. This proves a chain of layers one-to-one as well as a
coupling flow, whose pieces are recovered in turn (Dinh et al. 2017). Where neither direction helps, as at ``x + g(x)``,
a whole block is inverted: by its Lipschitz constant from below, or by enclosures of its difference quotients
(`singular.lower_bound`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from identkit.numeric.enclosure import Ranges, computed, dependence, never_zero, slopes
from identkit.numeric.functions import FUNCTIONS
from identkit.numeric.intervals import Interval
from identkit.numeric.lipschitz import lipschitz
from identkit.numeric.program import Kind, Program, Step, matrices
from identkit.numeric.singular import has_full_column_rank, lower_bound

_MOST_ROWS = 4096  # conditions in one block
_MOST_COLUMNS = 256  # unknowns of a block whose difference quotients are enclosed


def recovered(program: Program, found: Ranges) -> Tensor:
    """Which latents (k,) are the same at any two points of the box with the same output.

    Args:
        program: the program of the law's parameters, or of any map.
        found: its `enclosure.ranges` on a box that holds the support.
    """
    search = _Recovery(program, found)
    search.run()
    return ~search.unknown[0]


@dataclass
class _Recovery:
    program: Program
    found: Ranges
    back: list[Tensor] = field(init=False)
    """For each step the elements recovered from later ones."""
    unknown: list[Tensor] = field(init=False)
    """For each step the elements not recovered, nor computed from recovered ones."""
    nonzero: list[Tensor] = field(init=False)
    tried: set[tuple[object, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.back = [torch.zeros(step.size, dtype=torch.bool) for step in self.program.steps]
        self.back[-1][:] = True
        self.nonzero = never_zero(self.program, self.found)
        self.unknown = self._forward()

    def run(self) -> None:
        while bool(self.unknown[0].any()):
            if not self._sweep() and not self._blocks():
                return

    def _forward(self, given: int | None = None) -> list[Tensor]:
        """What is unknown, if the elements of one more step were given."""
        return [unknown & ~back for unknown, back in zip(self._computed(given), self.back, strict=True)]

    def _computed(self, given: int | None = None) -> list[Tensor]:
        """What is computed from something unknown, whether recovered otherwise or not."""
        return computed(self.program, self.found, self.back, given)

    def _sweep(self) -> bool:
        """Once backwards through all steps, then forwards; whether anything was recovered."""
        before = sum(int(unknown.sum()) for unknown in self.unknown)
        for number in range(len(self.program.steps) - 1, 0, -1):
            if any(bool(self.unknown[i].any()) for i in self.program.steps[number].inputs):
                self._backward(number)
        self.unknown = self._forward()
        return sum(int(unknown.sum()) for unknown in self.unknown) < before

    def _mark(self, number: int, elements: Tensor) -> None:
        self.back[number] = self.back[number] | elements
        self.unknown[number] = self.unknown[number] & ~elements

    def _backward(self, number: int) -> None:
        step = self.program.steps[number]
        known = ~self.unknown[number]
        inputs = step.inputs
        match step.kind:
            case Kind.GATHER:
                assert step.data is not None
                sizes = [self.program.steps[i].size for i in inputs]
                taken = torch.zeros(sum(sizes), dtype=torch.bool)
                taken[step.data[known]] = True
                for source, part in zip(inputs, taken.split(sizes), strict=True):
                    self._mark(source, part)
            case Kind.ADD:
                one, two = inputs
                self._mark(one, known & ~self.unknown[two])
                self._mark(two, known & ~self.unknown[one])
            case Kind.MULTIPLY:
                one, two = inputs
                self._mark(one, known & ~self.unknown[two] & self.nonzero[two])
                self._mark(two, known & ~self.unknown[one] & self.nonzero[one])
            case Kind.FUNCTION:
                injective = FUNCTIONS[step.name].injective(self.found[inputs[0]], *step.numbers)
                self._mark(inputs[0], known & injective)
            case Kind.SUM:
                table = self.unknown[inputs[0]].reshape(step.dimensions)
                alone = (known & (table.sum(1) == 1)).unsqueeze(1).expand(step.dimensions)
                self._mark(inputs[0], alone.flatten())
            case Kind.MATMUL:
                self._solve(number, step, known)
            case Kind.SELECT:
                condition = self.found[inputs[0]]
                self._mark(inputs[1], known & (condition.low == 1))
                self._mark(inputs[2], known & (condition.high == 0))

    def _solve(self, number: int, step: Step, known: Tensor) -> None:
        """``W x = W x′`` with W of full column rank over the unknown x; W may vary, if it is the same at both points."""
        batches, rows, inner, columns = step.dimensions
        one, two = step.inputs
        low = matrices(step, self.found[one].low, self.found[two].low)
        high = matrices(step, self.found[one].high, self.found[two].high)
        outs = known.reshape(batches, rows, columns)
        left = self.unknown[one].reshape(batches, rows, inner)
        right = self.unknown[two].reshape(batches, inner, columns)
        for source, weights, fixed, wanted, seen in (
            (two, Interval(low[0], high[0]), ~left, right.mT, outs.mT),
            (one, Interval(low[1].mT, high[1].mT), ~right.mT, left, outs),
        ):
            # wanted (batches, systems, inner): unknowns of each system; seen (batches, systems, rows of weights)
            solved = torch.zeros_like(wanted)
            if not bool(fixed.all()):
                continue
            for b in range(batches):
                patterns = torch.cat([wanted[b], seen[b]], 1).unique(dim=0)
                for pattern in patterns:
                    unknowns, equations = pattern[:inner], pattern[inner:]
                    if not bool(unknowns.any()) or int(equations.sum()) < int(unknowns.sum()):
                        continue
                    key = (number, source, b, pattern.numpy().tobytes())
                    if key in self.tried:
                        continue
                    self.tried.add(key)
                    matrix = Interval(
                        weights.low[b][equations][:, unknowns], weights.high[b][equations][:, unknowns]
                    )
                    if has_full_column_rank(matrix):
                        same = (torch.cat([wanted[b], seen[b]], 1) == pattern).all(1)
                        solved[b] |= same[:, None] & unknowns
            self._mark(
                source, solved.reshape(batches, -1, inner).mT.flatten() if source == two else solved.flatten()
            )

    # --- whole blocks --------------------------------------------------------------------------------------

    def _blocks(self) -> bool:
        return any(self._block(seed) for seed in self._seeds())

    def _seeds(self) -> list[int]:
        """Where a block may begin: at the terms of a recovered sum of unknowns, and at the latents."""
        seeds: list[int] = []
        for number in range(len(self.program.steps) - 1, 0, -1):
            step = self.program.steps[number]
            if step.kind is Kind.ADD and bool((~self.unknown[number]).all()):
                for source in step.inputs:
                    if bool(self.unknown[source].any()):
                        seeds.append(source)
        return [*dict.fromkeys([*seeds, 0])]

    def _block(self, seed: int) -> bool:
        """Try to recover a step's unknown elements from everything known that depends on nothing else unknown."""
        columns = torch.nonzero(self.unknown[seed]).flatten()
        key = (seed, tuple(columns.tolist()), sum(int(unknown.sum()) for unknown in self.unknown))
        if key in self.tried or not len(columns):
            return False
        self.tried.add(key)
        alone = [~each for each in self._computed(given=seed)]
        computed = self._computed()
        # Conditions: elements recovered from later ones, not computed from recovered ones, and from this seed only.
        conditions = [back & here & only for back, here, only in zip(self.back, computed, alone, strict=True)]
        conditions[: seed + 1] = [torch.zeros_like(each) for each in conditions[: seed + 1]]
        if self._by_constants(seed, conditions) or self._by_slopes(seed, columns, conditions):
            self._mark(seed, self.unknown[seed].clone())
            self.unknown = self._forward()
            return True
        return False

    def _by_constants(self, seed: int, conditions: Sequence[Tensor]) -> bool:
        constants = lipschitz(self.program, self.found, seed)
        mixed = self._mixed(seed)
        return any(
            m > 0 and bool(((here & ~other) | over.is_point).all())
            for (m, _), here, other, over in zip(constants, conditions, mixed, self.found, strict=True)
        )

    def _mixed(self, seed: int) -> list[Tensor]:
        """Elements computed from unknown values beside the seed's.

        `lipschitz` takes a value to move with the seed alone. A recovered ``s + u`` with u unknown does not, though it
        is the same at both points: it stays mixed, and with it what is computed from it.
        """
        moves = dependence(
            self.program, self.found, {seed: torch.ones(1, self.program.steps[seed].size).bool()}
        )
        still = [back & ~moved[0] for back, moved in zip(self.back, moves, strict=True)]
        mixed = computed(self.program, self.found, still, seed)
        return [here & ~settled for here, settled in zip(mixed, still, strict=True)]

    def _by_slopes(self, seed: int, columns: Tensor, conditions: Sequence[Tensor]) -> bool:
        count = sum(int(here.sum()) for here in conditions)
        if not len(columns) <= min(count, _MOST_COLUMNS) or count > _MOST_ROWS:
            return False
        same = [~unknown for unknown in self.unknown]
        found = slopes(self.program, self.found, seed, columns, same)
        rows = [
            (slope.low[:, here], slope.high[:, here])
            for slope, here in zip(found, conditions, strict=True)
            if slope is not None and bool(here.any())
        ]
        if not rows:
            return False
        matrix = Interval(
            torch.cat([low for low, _ in rows], 1).T, torch.cat([high for _, high in rows], 1).T
        )
        bounded = torch.isfinite(matrix.low) & torch.isfinite(matrix.high)
        whole = Interval(matrix.low[bounded.all(1)], matrix.high[bounded.all(1)])
        return lower_bound(matrix) is not None or lower_bound(whole) is not None

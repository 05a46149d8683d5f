"""Where a program is affine in the latents, exactly: the directions along which the law cannot change.

Values that are affine functions of z on a box carry their coefficients as exact rationals (a float is one). Where such
a value meets anything else, a nonlinear function or a product, its row of coefficients is written down: the law is a
function of these rows times z alone, so it is constant along their null space, by whatever amount one moves inside
the box. On a box that decides the signs, relu and its kin are affine too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import flint
import numpy as np
import torch
from flint import fmpq, fmpq_mat
from torch import Tensor

from identkit.numeric.enclosure import Ranges, dependence
from identkit.numeric.program import Kind, Program, Step
from identkit.numeric.singular import PRIME

_LARGEST_PRODUCT = 1 << 25  # rational multiplications in one matrix product
_LARGEST_FORM = 1 << 21  # rational coefficients of one step
_LARGEST_REACH = 1 << 28  # rows times values, for asking which rows reach the law at all
# Rank² times columns. Entries of the basis are quotients of minors, with some 58 bits for each row of a minor.
_LARGEST_BASIS = 1 << 21

Vector = tuple[fmpq, ...]


def null_space(program: Program, found: Ranges) -> list[Vector]:
    """Directions v, exact and independent, along which the output does not change inside the box.

    Args:
        program: the program.
        found: its `enclosure.ranges` on a box of latents.

    Returns:
        A basis in reduced echelon form, empty where nothing is proved.
    """
    return null_space_of(seen_rows(program, found), program.steps[0].size)


def seen_rows(program: Program, found: Ranges) -> set[Vector]:
    """Coefficients of the affine functions of z through which alone the output depends on z, inside the box."""
    forms = _Forms(program, found)
    forms.run()
    return forms.rows()


def null_space_of(rows: set[Vector], columns: int) -> list[Vector]:
    """A basis of the vectors (columns,) that are orthogonal to all rows, exactly; empty too where it is too large."""
    if not rows:
        return [tuple(fmpq(int(i == j)) for j in range(columns)) for i in range(columns)]
    integers = [_integers(row) for row in rows]
    modular = flint.nmod_mat(len(integers), columns, [n % PRIME for row in integers for n in row], PRIME)
    least = int(modular.rank())
    if least == columns or least**2 * columns > _LARGEST_BASIS:
        return []
    reduced, rank = fmpq_mat(len(integers), columns, [fmpq(n) for row in integers for n in row]).rref()
    pivots = [next(j for j in range(columns) if reduced[i, j] != 0) for i in range(rank)]
    basis = []
    for free in (j for j in range(columns) if j not in pivots):
        vector = [fmpq(0)] * columns
        vector[free] = fmpq(1)
        for i, pivot in enumerate(pivots):
            vector[pivot] = -reduced[i, free]
        basis.append(tuple(vector))
    return basis


def freed(rows: set[Vector], columns: int) -> list[bool]:
    """Which coordinates some vector orthogonal to all rows moves: for matrices whose null space is too large to write.

    A coordinate is fixed when its unit vector is in the row space. Independent rows modulo a prime are independent; and
    a unit vector outside their span modulo the prime is outside their span, as their number is then the rank. Where
    the rows are dependent modulo the prime, nothing is said.
    """
    integers = [_integers(row) for row in rows]
    modular = flint.nmod_mat(len(integers), columns, [n % PRIME for row in integers for n in row], PRIME)
    reduced, rank = modular.rref()
    if rank < len(integers) or rank == columns:
        return [False] * columns
    fixed = set()
    for i in range(rank):
        entries = [j for j in range(columns) if int(reduced[i, j])]
        if len(entries) == 1:
            fixed.add(entries[0])
    return [j not in fixed for j in range(columns)]


def _integers(row: Vector) -> list[int]:
    common = 1
    for value in row:
        common = int(flint.fmpz(common).lcm(value.q))
    return [int(value.p) * (common // int(value.q)) for value in row]


def _rational(value: float) -> fmpq:
    return fmpq(*value.as_integer_ratio())


@dataclass
class _Form:
    """One step's elements as functions of z."""

    rows: np.ndarray | None
    """Exact coefficients (size, k) of the affine ones, other rows void; None if all affine ones are constant."""
    affine: Tensor
    """Which are affine (constants are)."""


@dataclass
class _Forms:
    program: Program
    found: Ranges
    forms: list[_Form] = field(default_factory=list)
    met: dict[int, Tensor] = field(default_factory=dict)
    """For each step the elements that something reads which is not affine."""

    def run(self) -> None:
        for step, over in zip(self.program.steps, self.found, strict=True):
            form = self._form(step, over.is_point)
            if form.rows is not None:
                form.rows[over.is_point.numpy()] = fmpq(0)
            form.affine = form.affine | over.is_point
            self.forms.append(form)
        self._meet(len(self.forms) - 1, torch.ones(self.program.output.size, dtype=torch.bool))

    def rows(self) -> set[Vector]:
        """The rows that were met, but for those that never reach the output (pruned weights)."""
        seen = []
        for step, mask in self.met.items():
            rows = self.forms[step].rows
            if rows is not None:
                seen += [(step, int(e), tuple(rows[int(e)])) for e in torch.nonzero(mask)]
        seen = [each for each in seen if any(each[2])]
        if len(seen) * sum(step.size for step in self.program.steps) > _LARGEST_REACH:
            return {row for *_, row in seen}
        sources: dict[int, Tensor] = {}
        for i, (step, element, _) in enumerate(seen):
            empty = torch.zeros(len(seen), self.program.steps[step].size, dtype=torch.bool)
            sources.setdefault(step, empty)[i, element] = True
        if not sources:
            return set()
        reached = dependence(self.program, self.found, sources)[-1].any(1).tolist()
        return {row for (*_, row), reaches in zip(seen, reached, strict=True) if reaches}

    def _meet(self, step: int, elements: Tensor) -> None:
        elements = elements & self.forms[step].affine & ~self.found[step].is_point
        if bool(elements.any()):
            self.met[step] = self.met.get(step, torch.zeros_like(elements)) | elements

    def _form(self, step: Step, constant: Tensor) -> _Form:
        """The step's form; where it is neither affine nor constant, its inputs are met."""
        k = self.program.steps[0].size
        if step.kind is Kind.LATENT:
            identity = np.array([[fmpq(int(i == j)) for j in range(k)] for i in range(k)], dtype=object)
            return _Form(identity.reshape(k, k), torch.ones(k, dtype=torch.bool))
        if step.kind is Kind.CONSTANT:
            return _Form(None, torch.ones(step.size, dtype=torch.bool))
        inputs = [self.forms[i] for i in step.inputs]
        if all(form.rows is None for form in inputs):
            # Nothing affine comes in but constants: there is nothing to meet, and constancy is known from the ranges.
            affine = (
                constant if step.kind is not Kind.GATHER else torch.cat([f.affine for f in inputs])[step.data]
            )
            return _Form(None, affine)
        if step.size * k > _LARGEST_FORM:
            return self._void(step, constant)
        match step.kind:
            case Kind.GATHER:
                return self._gathered(step, inputs)
            case Kind.ADD:
                return self._sum(step, inputs, constant)
            case Kind.MULTIPLY:
                return self._scaled(step, inputs, constant)
            case Kind.MATMUL:
                return self._product(step, inputs, constant)
            case Kind.SUM:
                return self._total(step, inputs[0], constant)
            case Kind.FUNCTION if step.name == "leaky":
                return self._piecewise(step, inputs[0], constant)
            case Kind.SELECT:
                return self._selected(step, inputs, constant)
        return self._void(step, constant)

    def _void(self, step: Step, constant: Tensor) -> _Form:
        """Not affine: whatever goes in is met, elementwise where the step is."""
        elementwise = step.kind in (Kind.FUNCTION, Kind.SELECT, Kind.ADD, Kind.MULTIPLY)
        for number in step.inputs:
            size = self.program.steps[number].size
            self._meet(number, ~constant if elementwise else torch.ones(size, dtype=torch.bool))
        return _Form(None, torch.zeros(step.size, dtype=torch.bool))

    def _rows(self, form: _Form) -> np.ndarray:
        k = self.program.steps[0].size
        return form.rows if form.rows is not None else np.full((len(form.affine), k), fmpq(0), dtype=object)

    def _gathered(self, step: Step, inputs: list[_Form]) -> _Form:
        assert step.data is not None
        rows = np.concatenate([self._rows(form) for form in inputs])[step.data.numpy()]
        return _Form(rows, torch.cat([form.affine for form in inputs])[step.data])

    def _sum(self, step: Step, inputs: list[_Form], constant: Tensor) -> _Form:
        affine = inputs[0].affine & inputs[1].affine
        for number in step.inputs:
            self._meet(number, ~affine & ~constant)
        return _Form(self._rows(inputs[0]) + self._rows(inputs[1]), affine)

    def _scaled(self, step: Step, inputs: list[_Form], constant: Tensor) -> _Form:
        """A product with an exactly known number."""
        one, two = (self.found[i] for i in step.inputs)
        rows, affine = self._rows(inputs[0]) * fmpq(0), torch.zeros_like(constant)
        for form, factor in ((inputs[0], two), (inputs[1], one)):
            if form.rows is None:
                continue
            known = form.affine & factor.is_point & ~affine
            places = known.numpy()
            rows[places] = form.rows[places] * _rationals(factor.low[known])[:, None]
            affine = affine | known
        for number in step.inputs:
            self._meet(number, ~affine & ~constant)
        return _Form(rows, affine)

    def _product(self, step: Step, inputs: list[_Form], constant: Tensor) -> _Form:
        """Matrix products with an exactly known matrix."""
        one, two = (self.found[i] for i in step.inputs)
        batches, n, m, p = step.dimensions
        k = self.program.steps[0].size
        if batches * n * m * p * k > _LARGEST_PRODUCT:
            return self._void(step, constant)
        if bool(one.is_point.all()):
            weights, form, size, swap = one, inputs[1], (batches, m, p), False
        elif bool(two.is_point.all()):
            weights, form, size, swap = two, inputs[0], (batches, n, m), True
        else:
            return self._void(step, constant)
        shape = (batches, m, p) if swap else (batches, n, m)
        values = weights.low.reshape(shape)
        rows, affine = self._rows(form).reshape(*size, k), form.affine.reshape(size)
        if not bool(affine.all()):
            return self._void(step, constant)
        out = np.empty((batches, n, p, k), dtype=object)
        for b in range(batches):
            if swap:  # out[i, j] = Σ rows[i, ·] W[·, j]
                right = _matrix(values[b].T)
                for i in range(n):
                    out[b, i] = _array(right * _of(rows[b, i]))
            else:
                left = _matrix(values[b])
                for j in range(p):
                    out[b, :, j] = _array(left * _of(rows[b, :, j]))
        return _Form(out.reshape(step.size, k), torch.ones(step.size, dtype=torch.bool))

    def _total(self, step: Step, form: _Form, constant: Tensor) -> _Form:
        rows = self._rows(form).reshape(*step.dimensions, -1).sum(1)
        affine = form.affine.reshape(step.dimensions).all(1)
        lost = (~affine & ~constant).unsqueeze(1).expand(step.dimensions).flatten()
        self._meet(step.inputs[0], lost)
        return _Form(rows, affine)

    def _piecewise(self, step: Step, form: _Form, constant: Tensor) -> _Form:
        """``x`` or ``slope·x``, where the box decides the sign."""
        over = self.found[step.inputs[0]]
        decided = (over.low >= 0) | (over.high <= 0)
        factor = torch.where(over.low >= 0, 1.0, step.numbers[0])
        affine = form.affine & decided
        self._meet(step.inputs[0], ~affine & ~constant)
        return _Form(self._rows(form) * _rationals(factor.double())[:, None], affine)

    def _selected(self, step: Step, inputs: list[_Form], constant: Tensor) -> _Form:
        condition = self.found[step.inputs[0]]
        yes, no = condition.low == 1, condition.high == 0
        affine = torch.where(yes, inputs[1].affine, inputs[2].affine & no)
        lost = ~affine & ~constant
        self._meet(step.inputs[0], lost)
        self._meet(step.inputs[1], lost & ~no)
        self._meet(step.inputs[2], lost & ~yes)
        rows = np.where(yes.numpy()[:, None], self._rows(inputs[1]), self._rows(inputs[2]))
        return _Form(rows, affine)


def _rationals(values: Tensor) -> np.ndarray:
    return np.array([*(_rational(value) for value in values.tolist()), None], dtype=object)[:-1]


def _matrix(values: Tensor) -> fmpq_mat:
    return fmpq_mat(
        values.shape[0], values.shape[1], [_rational(value) for value in values.flatten().tolist()]
    )


def _of(rows: np.ndarray) -> fmpq_mat:
    return fmpq_mat(rows.shape[0], rows.shape[1], rows.flatten().tolist())


def _array(matrix: fmpq_mat) -> np.ndarray:
    entries = np.empty(matrix.nrows() * matrix.ncols(), dtype=object)
    entries[:] = matrix.entries()
    return entries.reshape(matrix.nrows(), matrix.ncols())

"""A law's parameters as a program of six kinds of step, small enough that every analysis has one rule for each.

Values are flat float64 vectors. All moving of data (views, slices, concatenation, broadcasting, padding, the windows
of a convolution) is one kind, `GATHER`: an index into the inputs laid end to end.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from identkit.numeric.functions import FUNCTIONS, Numbers

_FOLDED = 64  # constants that are added or multiplied at once, if that is exact


class Kind(enum.Enum):
    """What a step does."""

    LATENT = "the latents z, (k,)"
    CONSTANT = "its data"
    GATHER = "inputs laid end to end, taken at the index in data"
    ADD = "a + b"
    MULTIPLY = "a · b, element by element"
    MATMUL = "batches of matrix products, numbers = (batches, rows, inner, columns)"
    SUM = "sums over the last axis, numbers = (rows, columns)"
    FUNCTION = "an elementwise function by name, with its numbers"
    SELECT = "a where the condition, 0 or 1, is 1; b elsewhere: inputs (condition, a, b)"


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a program: what it does, and to which earlier steps."""

    kind: Kind
    inputs: tuple[int, ...]
    size: int
    data: Tensor | None = None
    name: str = ""
    numbers: Numbers = ()

    @property
    def dimensions(self) -> tuple[int, ...]:
        """The numbers of a product or sum as sizes."""
        return tuple(int(number) for number in self.numbers)


@dataclass(frozen=True, eq=False)
class Program:
    """Steps in order, the first the latents; the last is the result."""

    steps: tuple[Step, ...]

    @property
    def output(self) -> Step:
        """The last step."""
        return self.steps[-1]

    def evaluate(self, z: Tensor) -> Tensor:
        """Run in floats: z (n, k) → (n, size of the output)."""
        values: list[Tensor] = []
        for step in self.steps:
            values.append(_evaluated(step, [values[i] for i in step.inputs], z))
        return values[-1].expand(len(z), -1)

    def distinct(self, number: int, elements: Tensor) -> Tensor:
        """The places (m,) of marked elements (size,) of a step; of those that are copies of one number, the first."""
        step, at = self.steps[number], torch.nonzero(elements).squeeze(1)
        if step.kind is not Kind.GATHER:
            return at
        assert step.data is not None
        places, copies = step.data[at].unique(return_inverse=True)
        order = torch.arange(len(at))
        first = torch.full((len(places),), len(at)).scatter_reduce(0, copies, order, "amin")
        return at[first.sort().values]


def _evaluated(step: Step, inputs: list[Tensor], z: Tensor) -> Tensor:
    match step.kind:
        case Kind.LATENT:
            return z
        case Kind.CONSTANT:
            assert step.data is not None
            return step.data[None]
        case Kind.GATHER:
            rows = max(len(each) for each in inputs)
            return torch.cat([each.expand(rows, -1) for each in inputs], -1)[..., step.data]
        case Kind.ADD:
            return inputs[0] + inputs[1]
        case Kind.MULTIPLY:
            return inputs[0] * inputs[1]
        case Kind.MATMUL:
            return _multiplied(*matrices(step, *inputs)).flatten(-3)
        case Kind.SUM:
            return inputs[0].reshape(len(inputs[0]), *step.dimensions).sum(-1)
        case Kind.FUNCTION:
            return FUNCTIONS[step.name].value(inputs[0], *step.numbers)
        case Kind.SELECT:
            return torch.where(inputs[0] == 1, inputs[1], inputs[2])


def _multiplied(one: Tensor, two: Tensor) -> Tensor:
    """Products (n, batches, rows, columns); a factor that is the same for all n is not copied n times."""
    if len(two) == 1 and two.shape[1] == 1:
        return one @ two[0, 0]
    if len(one) == 1 and one.shape[1] == 1:
        return (two.mT @ one[0, 0].T).mT
    return one @ two


def matrices(step: Step, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Flat inputs of a product as (…, batches, rows, inner) and (…, batches, inner, columns)."""
    batches, rows, inner, columns = step.dimensions
    return (
        one.reshape(*one.shape[:-1], batches, rows, inner),
        two.reshape(*two.shape[:-1], batches, inner, columns),
    )


@dataclass
class Builder:
    """Writes programs: each method adds a step and gives its number."""

    steps: list[Step] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    """Steps by what they do, so that the same one is not written twice and a product with itself is seen."""

    def latent(self, size: int) -> int:
        """The latents."""
        return self._add(Step(Kind.LATENT, (), size))

    def constant(self, value: Tensor) -> int:
        """Given numbers, exactly; the reals have one zero."""
        value = value.detach().to("cpu", torch.float64).flatten() + 0.0
        return self._add(Step(Kind.CONSTANT, (), value.numel(), value))

    def gather(self, inputs: tuple[int, ...], index: Tensor) -> int:
        """Elements of the inputs laid end to end."""
        index = index.flatten()
        if len(inputs) == 1:
            source = self.steps[inputs[0]]
            if source.size == len(index) and torch.equal(index, torch.arange(source.size)):
                return inputs[0]
            if source.kind is Kind.CONSTANT:
                assert source.data is not None
                return self.constant(source.data[index])
            if source.kind is Kind.GATHER:
                assert source.data is not None
                return self._add(Step(Kind.GATHER, source.inputs, len(index), source.data[index]))
        return self._add(Step(Kind.GATHER, inputs, len(index), index))

    def add(self, one: int, two: int) -> int:
        """``a + b``, and what cancels exactly cancels: ``(x − s) − (y − s)`` is ``x − y``.

        A categorical law stores its logits less their logsumexp; only so do their differences not depend on it.
        """
        if self._is_constant(one, 0.0):
            return two
        if self._is_constant(two, 0.0):
            return one
        exact = self._folded(one, two, torch.add, Fraction.__add__)
        if exact is not None:
            return exact
        one, two = sorted((one, two))
        terms = self._terms(one) + self._terms(two)
        left = _cancelled(terms)
        if len(left) == len(terms):
            return self._add(Step(Kind.ADD, (one, two), self.steps[one].size))
        if not left:
            return self.constant(torch.zeros(self.steps[one].size))
        result = None
        for sign, source, index in left:
            term = self.gather((source,), index)
            term = term if sign > 0 else self.negative(term)
            result = term if result is None else self._add(Step(Kind.ADD, (result, term), len(index)))
        assert result is not None
        return result

    def negative(self, one: int) -> int:
        """``−a``."""
        return self.multiply(one, self.constant(torch.full((self.steps[one].size,), -1.0)))

    def multiply(self, one: int, two: int) -> int:
        """``a · b``; powers of one base become one power, whose range and slope are narrower than a product's."""
        if self._is_constant(one, 1.0):
            return two
        if self._is_constant(two, 1.0):
            return one
        exact = self._folded(one, two, torch.mul, Fraction.__mul__)
        if exact is not None:
            return exact
        (base, n), (other, m) = self._root(one), self._root(two)
        if base == other:
            return self.function("power", base, float(n + m))
        return self._add(Step(Kind.MULTIPLY, (one, two), self.steps[one].size))

    def matmul(self, one: int, two: int, dimensions: tuple[int, int, int, int]) -> int:
        """Batches of products; dimensions = (batches, rows, inner, columns)."""
        batches, rows, _, columns = dimensions
        return self._add(Step(Kind.MATMUL, (one, two), batches * rows * columns, numbers=dimensions))

    def sum(self, one: int, columns: int) -> int:
        """Sums of `columns` neighbours."""
        rows = self.steps[one].size // columns
        if columns == 1:
            return one
        return self._add(Step(Kind.SUM, (one,), rows, numbers=(rows, columns)))

    def function(self, name: str, one: int, *numbers: float) -> int:
        """An elementwise function of `functions`."""
        if name == "power" and numbers == (1.0,):
            return one
        return self._add(Step(Kind.FUNCTION, (one,), self.steps[one].size, name=name, numbers=numbers))

    def select(self, condition: int, one: int, two: int) -> int:
        """Either, by a condition that is 0 or 1."""
        return self._add(Step(Kind.SELECT, (condition, one, two), self.steps[one].size))

    def program(self, output: int) -> Program:
        """What is needed for one step, which becomes the last."""
        needed = {output}
        for number in range(output, -1, -1):
            if number in needed:
                needed.update(self.steps[number].inputs)
        kept = sorted(needed | {0})
        place = {number: i for i, number in enumerate(kept)}
        steps = [self.steps[number] for number in kept]
        return Program(
            tuple(
                Step(s.kind, tuple(place[i] for i in s.inputs), s.size, s.data, s.name, s.numbers)
                for s in steps
            )
        )

    def _add(self, step: Step) -> int:
        data = None if step.data is None else step.data.numpy().tobytes()
        key = (step.kind, step.inputs, step.size, data, step.name, step.numbers)
        if key not in self.known:
            self.steps.append(step)
            self.known[key] = len(self.steps) - 1
        return self.known[key]

    def _folded(
        self,
        one: int,
        two: int,
        rounded: Callable[[Tensor, Tensor], Tensor],
        exact: Callable[[Fraction, Fraction], Fraction],
    ) -> int | None:
        """Arithmetic on few constants, if floats do it without error: 0 + 1 and 1 + 0 are then one number."""
        a, b = self.steps[one], self.steps[two]
        if a.kind is not Kind.CONSTANT or b.kind is not Kind.CONSTANT or a.size > _FOLDED:
            return None
        assert a.data is not None and b.data is not None
        result = rounded(a.data, b.data)
        if not bool(torch.isfinite(result).all()):
            return None
        for x, y, z in zip(a.data.tolist(), b.data.tolist(), result.tolist(), strict=True):
            if exact(Fraction(x), Fraction(y)) != Fraction(z):
                return None
        return self.constant(result)

    def _root(self, number: int) -> tuple[int, int]:
        """A whole power as its base and exponent."""
        step = self.steps[number]
        if step.name == "power" and step.numbers[0] >= 1 and step.numbers[0] == int(step.numbers[0]):
            return step.inputs[0], int(step.numbers[0])
        return number, 1

    def _is_constant(self, number: int, value: float) -> bool:
        data = self.steps[number].data
        return self.steps[number].kind is Kind.CONSTANT and data is not None and bool((data == value).all())

    def _terms(self, number: int, most: int = 4) -> list[_Term]:
        """A value as a sum of elements of others, each with a sign: through sums, signs and moves."""
        step = self.steps[number]
        here: list[_Term] = [(1, number, torch.arange(step.size))]
        if step.kind is Kind.ADD:
            found = self._terms(step.inputs[0], most) + self._terms(step.inputs[1], most)
            return found if len(found) <= most else here
        if step.kind is Kind.MULTIPLY and self._is_constant(step.inputs[1], -1.0):
            return [(-sign, source, index) for sign, source, index in self._terms(step.inputs[0], most)]
        if step.kind is Kind.GATHER and len(step.inputs) == 1:
            assert step.data is not None
            inner = self._terms(step.inputs[0], most)
            return [(sign, source, index[step.data]) for sign, source, index in inner]
        return here


_Term = tuple[int, int, Tensor]


def _cancelled(terms: list[_Term]) -> list[_Term]:
    left: list[_Term] = []
    for sign, source, index in terms:
        for i, (other_sign, other_source, other_index) in enumerate(left):
            if sign == -other_sign and source == other_source and torch.equal(index, other_index):
                del left[i]
                break
        else:
            left.append((sign, source, index))
    return left

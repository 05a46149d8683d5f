"""The latent class model: classes that answer questions independently, answers possibly missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag

from identkit.classical.arrays import rows, shaped
from identkit.classical.em import Convergence
from identkit.classical.mixtures.finite import FiniteMixture, probabilities
from identkit.classical.mixtures.fit import climb, seeded_masses, shares
from identkit.classical.mixtures.information import enumerated
from identkit.model import families
from identkit.model.compiled.data import unmasked, whole
from identkit.model.family import exact_law
from identkit.model.model import Model
from identkit.model.protocol import Estimate

_EPS = torch.finfo(torch.float64).eps
_CATEGORIES = 2**16  # of an item: its probabilities are a table
_SUM_TOLERANCE = 1e-8
_MOST_CELLS = 2**16
_ROWS = 2**16  # checked at a time, so that the check takes no memory to speak of


@dataclass(frozen=True, eq=False, init=False, repr=False)
class LatentClass(FiniteMixture):
    """A mixture of K classes, each with its own probabilities of the answers to J items.

    ``k ~ Categorical(π), x_j | k ~ Categorical(T_j[k])`` independently; ``r_k ∝ π_k Π_j T_j[k, x_j]`` over the items
    that were answered. Answers are numbered from `first`, 0 unless said otherwise; NaN is a missing answer (missing at
    random), and a row without any gives the prior back exactly.

    Source: Lazarsfeld & Henry 1968; Goodman 1974; `theory/T1`, `theory/T4`.

    Args:
        weights: π, shape (K,), K ≥ 2, non-negative and summing to one; nothing is normalised.
        items: for each item the probabilities of its C_j answers by class, shape (K, C_j), C_j ≥ 2, rows summing to
            one; zeros are allowed.
        first: the number of an item's first answer in the data: 0, or 1 as in the text notation (`symbolic()` and
            `identkit.verify` need 1 where an item has more than two answers).

    Raises:
        ValueError, TypeError: a wrong shape, NaN, numbers that are no probabilities.

    >>> model = LatentClass([0.5, 0.5], [[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.25, 0.25], [0.1, 0.3, 0.6]]])
    >>> model.posterior([[0, 0], [1, math.nan], [math.nan, math.nan]]).probs
    tensor([[0.9574, 0.0426],
            [0.1111, 0.8889],
            [0.5000, 0.5000]], dtype=torch.float64)
    """

    takes_missing: ClassVar[bool] = True

    weights: Float[Tensor, " components"]
    table: Float[Tensor, "answers components"]
    """``T_j[k, c]``, the answers of all items one below the other."""
    sizes: tuple[int, ...]
    """Number of answers to each item."""
    first: int
    """The number of the first answer in the data."""
    convergence: Convergence | None

    def __init__(self, weights: Any, items: Any, first: int = 0) -> None:
        if isinstance(items, Tensor | np.ndarray) or not isinstance(items, Sequence) or not len(items):
            raise TypeError(
                f"items should be a list of tables (K, C_j), at least one, got {type(items).__name__}"
            )
        if first not in (0, 1):
            raise ValueError(f"first should be 0 or 1, got {first}")
        leading = shaped(items[0], "items[0]", None, None)
        count, device = len(leading), leading.device
        tables = [shaped(table, f"items[{j}]", count, None).to(device) for j, table in enumerate(items)]
        for j, table in enumerate(tables):
            _refuse_table(table, f"items[{j}]")
        for name, value in (
            ("weights", probabilities(weights, count).to(device)),
            ("table", torch.cat([table.T for table in tables])),
            ("sizes", tuple(table.shape[1] for table in tables)),
            ("first", first),
            ("convergence", None),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def bernoulli(cls, weights: Any, success: Any) -> LatentClass:
        """Make a model of yes-no items, x_j ∈ {0, 1}.

        Args:
            weights: π, shape (K,).
            success: probability of a 1, shape (K, J).

        Raises:
            ValueError, TypeError: as the class.

        >>> LatentClass.bernoulli([0.5, 0.5], [[0.9], [0.3]]).responsibilities([[1.0]])
        tensor([[0.7500, 0.2500]], dtype=torch.float64)
        """
        success = shaped(success, "success", None, None)
        refused = success[(success < 0) | (success > 1)]
        if len(refused):
            raise ValueError(f"success should be in [0, 1], got {refused[0].item()}")
        return cls(weights, [torch.stack([1 - p, p], 1) for p in success.T])

    @classmethod
    def fit(
        cls,
        x: Any,
        components: int,
        *,
        categories: Sequence[int] | None = None,
        first: int = 0,
        start: LatentClass | None = None,
        restarts: int = 8,
        generator: torch.Generator | None = None,
        tolerance: float = 1e-6,
        iterations: int = 5000,
    ) -> LatentClass:
        """Fit by expectation–maximisation, the best of several starts; its `convergence` says how it went.

        ``T_j[k, c] = Σ_n r_nk 1[x_nj = c] / Σ_n r_nk 1[x_nj answered]``. An answer that nobody gave gets probability
        0. A class that loses all its data gets weight 0 and keeps its last table.

        Source: Goodman 1974; Dempster, Laird & Rubin 1977.

        Args:
            x: answers (n, J), numbered from `first`; NaN where missing.
            components: K ≥ 2, at most n.
            categories: number of answers to each item; None for as many as the largest seen needs, at least two.
            first: the number of an item's first answer in the data, 0 or 1.
            start: a model to begin from, the only start then.
            restarts: number of random starts.
            generator: for the starts; None for seed 0.
            tolerance: stop when an iteration gains less, in nats of all data.
            iterations: at most so many from each start.

        Raises:
            ValueError: too few rows, an item that nobody answered, an answer out of range.

        >>> x = [[0, 0, 0]] * 6 + [[1, 1, 1]] * 3 + [[1, 1, float("nan")]]
        >>> LatentClass.fit(x, 2).weights.sort().values
        tensor([0.4000, 0.6000], dtype=torch.float64)
        """
        filled, missing = _split(x)
        columns = filled.shape[1] if filled.ndim == 2 else 1
        filled = rows(filled, columns).double()
        missing = missing.reshape(filled.shape)
        components = whole(components, "components", 2, len(filled), ", the rows of x")
        if bool(missing.all(0).any()):
            raise ValueError(
                f"x should have an answer to every item, got none to item {int(missing.all(0).int().argmax())}"
            )
        if categories is None:
            categories = [max(2, int(most) + 1 - first) for most in filled.amax(0).tolist()]
            if max(categories) > _CATEGORIES:
                raise ValueError(
                    f"x should hold answers numbered {first}, {first + 1}, … up to at most {_CATEGORIES}, "
                    f"got {filled.amax():g}"
                )
        uniform = [torch.full((components, size), 1 / size, dtype=torch.float64) for size in categories]
        blank = cls(torch.full((components,), 1 / components, dtype=torch.float64), uniform, first)
        blank = (blank if start is None else start)._at(filled)
        if start is not None and (len(start.weights), len(start.sizes), start.first) != (
            components,
            columns,
            first,
        ):
            raise ValueError(
                f"start should have {components} classes, {columns} items and first={first}, "
                f"got {len(start.weights)}, {len(start.sizes)} and first={start.first}"
            )
        answers = blank._rows(torch.where(missing, math.nan, filled))
        indices, total = blank._indices(answers), len(blank.table)

        def maximised(model: LatentClass, mass: Tensor) -> LatentClass:
            weights, held = shares(mass)
            counts = mass.new_zeros(total + 1, components)
            for column in indices.T:
                counts.index_add_(0, column, mass)
            table = model.table.clone()
            for span in model._spans:
                answered = counts[span].sum(0)
                known = held & (answered > 0)
                table[span] = torch.where(known, counts[span] / answered.clamp(min=1e-300), table[span])
            return model._changed(weights, table)

        if start is None:
            seen = torch.nn.functional.one_hot(indices, total + 1)[..., :total].sum(1).double()
            starts = [maximised(blank, mass) for mass in seeded_masses(seen, components, restarts, generator)]
        else:
            starts = [blank]
        return climb(answers, starts, maximised, tolerance, iterations)

    @property
    def items(self) -> tuple[Float[Tensor, "components answers"], ...]:
        """``T_j``, one table (K, C_j) an item."""
        return tuple(self.table[span].T for span in self._spans)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(k; x) = E KL(r ‖ π)`` of complete rows in nats: summed over up to 65,536 cells, else simulated."""
        if math.prod(self.sizes) > _MOST_CELLS:
            return super().mutual_information()
        axes = [torch.arange(size, dtype=torch.float64, device=self.table.device) for size in self.sizes]
        cells = torch.cartesian_prod(*axes).reshape(-1, len(axes)) + self.first
        possible = (self.weights > 0) & self._log_densities(cells).isfinite()
        return enumerated(self, cells[possible.any(1)])

    def _changed(self, weights: Tensor, table: Tensor) -> LatentClass:
        model = object.__new__(type(self))
        for name, value in (
            ("weights", weights),
            ("table", table),
            ("sizes", self.sizes),
            ("first", self.first),
            ("convergence", None),
        ):
            object.__setattr__(model, name, value)
        return model

    @cached_property
    def _spans(self) -> tuple[slice, ...]:
        ends = np.cumsum(self.sizes).tolist()
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))

    @property
    def _title(self) -> str:
        return "latent class model"

    def _rows(self, x: Any) -> Tensor:
        table = rows(x, len(self.sizes), self.table.device, missing=True)
        sizes = torch.tensor(self.sizes, dtype=table.dtype, device=table.device)
        for start in range(0, len(table), _ROWS):
            part = table[start : start + _ROWS] - self.first
            wrong = (part != part.round()) | (part < 0) | (part >= sizes)
            refused = torch.nonzero(wrong & ~part.isnan())
            if len(refused):
                row, item = refused[0].tolist()
                low, high = self.first, self.first + self.sizes[item] - 1
                raise ValueError(
                    f"x should hold answers numbered {low}..{high} in column {item}, or NaN, "
                    f"got {part[row, item].item() + low:g} at index {(start + row, item)}"
                )
        return table

    def _indices(self, x: Tensor) -> Tensor:
        """Rows of the table of all answers; the row after the last stands for a missing one."""
        starts = [span.start - self.first for span in self._spans]
        firsts = torch.tensor(starts, dtype=x.dtype, device=x.device)
        return torch.where(x.isnan(), float(sum(self.sizes)), x + firsts).long()

    def _total(self, x: Tensor, table: Tensor) -> Tensor:
        padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
        if len(x) == 0:
            return table.new_zeros(0, table.shape[1])
        return embedding_bag(self._indices(x), padded, mode="sum")

    def _log_densities(self, x: Tensor) -> Tensor:
        return self._total(x, self.table.log())

    @cached_property
    def _compared(self) -> tuple[Tensor, Tensor, Tensor]:
        """Each answer's log probability by class relative to the class most prone to it, its error, and that most."""
        table = self.table[:, self._support]
        most = table.amax(1, keepdim=True)
        ratio = torch.where(table > most / 2, torch.log1p((table - most) / most), table.log() - most.log())
        ratio = torch.where(table == most, 0.0, ratio)
        # Half a unit in the last place of either probability, as the verdict reads decimals.
        reading = torch.where(table == most, 0.0, _EPS)
        known = torch.where(ratio.isinf(), 0.0, ratio.abs())
        return ratio, (len(self.sizes) + 4) * _EPS * known + reading, most.log()

    def _ratio(self, x: Tensor, lead: int = 0) -> tuple[Tensor, Tensor]:
        ratio, error, most = self._compared
        total = self._total(x, ratio)
        impossible = torch.nonzero(~(total + self._total(x, most)).isfinite().any(1))
        if len(impossible):
            row = (x[int(impossible[0, 0])] - self.first).tolist()
            raise ValueError(
                f"x should be possible in some class, got {row} (answers counted from 0), which has probability 0 in all"
            )
        return total, self._total(x, error)

    def _ratio_under_prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # log(a/b) = 2 artanh((a − b)/(a + b)), item by item
        ratio = x.new_zeros(len(x), len(self._support))
        size, reading = torch.zeros_like(ratio), torch.zeros_like(ratio)
        for j, table in enumerate(self.items):
            answered = ~x[:, j].isnan()
            chosen = table[self._support][:, torch.where(answered, x[:, j] - self.first, 0.0).long()].T
            own, first = chosen, chosen[:, :1]
            gap = (own - first) / (own + first)
            term = torch.where(gap.abs() < 0.5, 2 * torch.atanh(gap), own.log() - first.log())
            term = torch.where((own == first) | ~answered[:, None], 0.0, term)
            ratio += term
            size += torch.where(term.isinf(), 0.0, term.abs())
            reading += torch.where(term == 0, 0.0, _EPS)
        return ratio, (len(self.sizes) + 4) * _EPS * size + reading

    def _draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        place = states.device if generator is None else generator.device
        chances = [table[states].to(place) for table in self.items]
        if not len(states):
            return self.table.new_zeros(0, len(chances))
        drawn = [torch.multinomial(p, 1, replacement=True, generator=generator) for p in chances]
        return torch.cat(drawn, 1).to(states.device, torch.float64) + self.first

    def _observe(self, model: Model, k: Any) -> None:
        if self.first == 0 and max(self.sizes) > 2:
            raise ValueError(
                "symbolic() should be asked of a model with first=1: the notation counts answers from 1, and only "
                "items of two answers can be written from 0, as Bernoulli; build it with first=1 and add 1 to the data"
            )
        for j, table in enumerate(self.items, 1):
            laws = [exact_law(law) for law in table.tolist()]
            by_answer = [families.select(k, *chances) for chances in zip(*laws, strict=True)]
            family = families.Categorical(*by_answer) if self.first else families.Bernoulli(by_answer[1])
            model.observe(f"x[{j}]", family)


def _split(x: Any) -> tuple[Any, Tensor]:
    """Data with 0 in the place of missing answers, and where these were; what is no array passes through to be refused."""
    values = x.detach() if isinstance(x, Tensor) else _array(x)
    if isinstance(values, Tensor):
        missing = values.isnan()
        return (values.masked_fill(missing, 0) if bool(missing.any()) else values), missing
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    filled = np.where(missing, np.zeros((), values.dtype), values) if missing.any() else values
    return filled, torch.from_numpy(missing)


def _array(x: Any) -> Any:
    try:
        array = np.asarray(unmasked(x))
    except ValueError as error:
        raise ValueError("x should be a rectangular array of numbers, got rows that differ") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"x should be an array of real numbers, got {' '.join(repr(x).split()):.80}")
    return array


def _refuse_table(table: Tensor, name: str) -> None:
    if table.shape[1] < 2:
        raise ValueError(f"{name} should have at least two answers, got {table.shape[1]}")
    negative = table[table < 0]
    if len(negative):
        raise ValueError(f"{name} should be at least 0, got {negative[0].item()}")
    total = table.sum(1)
    worst = int((total - 1).abs().argmax())
    if abs(total[worst].item() - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"{name} should have rows that sum to one, got {table[worst].tolist()} with the sum {total[worst].item()}"
        )

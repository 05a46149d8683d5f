"""What a hidden state shows: categorical and Poisson emissions, each with the differences of its logs.

An emission knows its log densities fast (for smoothing), the differences between states without cancellation and
with an error bound (for informations that may be 1e-25), and those differences by a second formula (for the
flatness that the informations are compared with).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import COUNTS, no_counts, positive, real, shaped
from identkit.classical.hidden_markov.gaussian import GaussianEmission
from identkit.classical.hidden_markov.tables import (
    by_steps,
    from_nearest,
    refuse_probabilities,
    relative,
    select_exactly,
)
from identkit.classical.shown import shown
from identkit.model import families
from identkit.model.compiled.saddle_point import log_poisson
from identkit.model.family import exact_law
from identkit.model.model import Model

Array = np.ndarray

_EPS = torch.finfo(torch.float64).eps
_NEAR = 0.5
_OUTSHONE = 2.0**10
"""So many nats behind another state, the first one serves no more as what counts are compared with."""


def _log_ratio(top: Tensor, bottom: Tensor, second: bool = False) -> Tensor:
    """``log(top/bottom)`` of probabilities or rates, to the last digits also where they nearly agree.

    The two formulas are ``log1p((a − b)/b)`` and ``2 atanh((a − b)/(a + b))``.
    """
    gap = top - bottom
    if second:
        near = 2 * torch.atanh((gap / (top + bottom)).clamp(-_NEAR, _NEAR).nan_to_num())
    else:
        near = torch.log1p((gap / bottom).clamp(-_NEAR, _NEAR).nan_to_num())
    return torch.where(gap.abs() <= _NEAR / 2 * bottom, near, top.log() - bottom.log())


@dataclass(frozen=True, eq=False, init=False, repr=False)
class CategoricalEmission:
    """In state k, one of M symbols: ``p(x = first + m | k) = table[k, m]``.

    Args:
        table: probabilities of the symbols, shape (K, M), M ≥ 2; rows sum to one.
        first: the number of the first symbol: 0, as in hmmlearn, or 1, as in the text notation.

    Raises:
        ValueError, TypeError: a wrong shape, rows that are no probabilities.

    >>> CategoricalEmission([[0.9, 0.1], [0.2, 0.8]]).log_density([0, 1]).exp()
    tensor([[0.9000, 0.2000],
            [0.1000, 0.8000]], dtype=torch.float64)
    """

    table: Float[Tensor, "k m"]
    first: int

    __repr__ = shown

    def __init__(self, table: Any, first: int = 0) -> None:
        table = shaped(table, "table", None, None)
        if table.shape[1] < 2:
            raise ValueError(f"table should have at least two symbols, got shape {tuple(table.shape)}")
        refuse_probabilities(table, "table")
        if first not in (0, 1):
            raise ValueError(f"first should be 0 or 1, got {first!r}")
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "first", first)

    @property
    def states(self) -> int:
        """K."""
        return len(self.table)

    @property
    def columns(self) -> int:
        """Numbers seen in a step: one, the symbol."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.table.device

    def log_density(self, x: Any) -> Float[Tensor, "*batch k"]:
        """``log table[k, x]`` in nats, x (..., 1), or (T,)."""
        return by_steps(self, x)

    def refuse(self, x: Array) -> None:
        """Refuse what is no symbol.

        Raises:
            ValueError: naming the value.
        """
        last = self.first + self.table.shape[1] - 1
        wrong = x[(x != np.round(x)) | (x < self.first) | (x > last)]
        if len(wrong):
            raise ValueError(f"x should be symbols in {self.first}..{last}, got {wrong[0]:g}")

    def stepwise(self, x: Array) -> tuple[Array, Array]:
        """``log b_k`` of (s, N, 1) in the layout (s, K, N), less the largest, and that, (s, N)."""
        with np.errstate(divide="ignore"):
            logs, top = relative(np.log(self.table.cpu().numpy())[None])
        symbols = x[..., 0].astype(np.int64) - self.first
        return np.ascontiguousarray(logs[0][:, symbols].swapaxes(0, 1)), top[0][symbols]

    def ratio(self, x: Tensor, reference: int, second: bool = False) -> tuple[Tensor, Tensor]:
        """``log b_k(x) − log b_r(x)`` with its error bound, both (N, K); r is where b_r > 0 for sure."""
        p = self.table[:, x[:, 0].long() - self.first].T
        most = p.argmax(1, keepdim=True)
        chosen = torch.where(p[:, reference, None] > 0, p[:, reference, None], p.gather(1, most))
        ratio = _log_ratio(p, chosen, second)
        size = torch.where(torch.isfinite(ratio), 1 + ratio.abs(), 0.0)
        return ratio, torch.where(p == chosen, 0.0, 4 * _EPS * size)

    def draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """One step for each state, (N, 1)."""
        symbols = torch.multinomial(self.table[states], 1, replacement=True, generator=generator)
        return (symbols + self.first).to(torch.float64)

    def trusted(self, table: Array) -> CategoricalEmission:
        """The same kind with probabilities that need no look."""
        other = object.__new__(CategoricalEmission)
        object.__setattr__(other, "table", torch.from_numpy(table).to(self.device))
        object.__setattr__(other, "first", self.first)
        return other

    def started(self, x: Array, generator: torch.Generator) -> CategoricalEmission:
        """A random start for a fit: the frequencies of the symbols, disturbed state by state."""
        frequency = np.bincount(x[:, 0].astype(np.int64) - self.first, minlength=self.table.shape[1]) + 1.0
        noise = torch.rand(self.table.shape, generator=generator, dtype=torch.float64)
        table = torch.from_numpy(frequency) * (0.25 + noise)
        return CategoricalEmission((table / table.sum(1, keepdim=True)).to(self.device), self.first)

    def observe(self, model: Model, step: int, z: Any) -> None:
        """Add step t of a symbolic model; two symbols are a Bernoulli, more are counted from 1.

        Raises:
            ValueError: more than two symbols counted from 0.
        """
        rows = [exact_law(row) for row in self.table.tolist()]
        columns = [select_exactly(z, [row[m] for row in rows]) for m in range(self.table.shape[1])]
        if self.first == 0 and len(columns) > 2:
            raise ValueError(
                "a symbolic model should count its symbols from 1, as the text notation does: "
                "build CategoricalEmission(table, first=1) and add 1 to the data"
            )
        family = families.Bernoulli(columns[1]) if self.first == 0 else families.Categorical(*columns)
        model.observe(f"x[{step}]", family)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class PoissonEmission:
    """In state k, independent counts: ``x_j | k ~ Poisson(rates[k, j])``.

    Args:
        rates: positive, shape (K, d), or (K,) where d = 1.

    Raises:
        ValueError, TypeError: a wrong shape, a rate that is not positive.

    >>> PoissonEmission([1.0, 2.0]).log_density([0])
    tensor([[-1., -2.]], dtype=torch.float64)
    """

    rates: Float[Tensor, "k d"]

    __repr__ = shown

    def __init__(self, rates: Any) -> None:
        rates = real(rates, "rates")
        rates = shaped(rates[:, None] if rates.ndim == 1 else rates, "rates", None, None)
        positive(rates.min(), "rates")
        object.__setattr__(self, "rates", rates)

    @property
    def states(self) -> int:
        """K."""
        return len(self.rates)

    @property
    def columns(self) -> int:
        """Numbers seen in a step, d."""
        return self.rates.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.rates.device

    def log_density(self, x: Any) -> Float[Tensor, "*batch k"]:
        """``Σ_j x_j log λ_kj − λ_kj − log x_j!`` in nats, x (..., d), or (T,) where d = 1."""
        return by_steps(self, x)

    def refuse(self, x: Array) -> None:
        """Refuse what is no count.

        Raises:
            ValueError: naming the value.
        """
        wrong = x[no_counts(x)]
        if len(wrong):
            raise ValueError(f"x should be {COUNTS}, got {wrong[0]:g}")

    def stepwise(self, x: Array) -> tuple[Array, Array]:
        """``log b_k`` of (s, N, d) in the layout (s, K, N), less the largest, and that, (s, N)."""
        rates = self.rates.cpu().numpy()
        differ = rates - rates[0]
        first = log_poisson(torch.from_numpy(x), torch.from_numpy(rates[0])).sum(-1).numpy()
        beside_first = np.matmul(_log_ratio(self.rates, self.rates[0]).cpu().numpy(), x.swapaxes(1, 2))
        logs, top = relative(np.subtract(beside_first, differ.sum(1)[:, None], out=beside_first))
        common = first + top
        if bool((top > _OUTSHONE).any()):
            step, lane = np.nonzero(top > _OUTSHONE)
            # Two rates near the count differ by what 1e13 ± 1e-3 leaves of them, seen from one far from it.
            for k, here, best in from_nearest(self, x, logs, step, lane):
                own = log_poisson(torch.from_numpy(x[here]), torch.from_numpy(rates[k]))
                common[here] = own.sum(-1).numpy() + best
        return logs, common

    def ratio(self, x: Tensor, reference: int, second: bool = False) -> tuple[Tensor, Tensor]:
        """``log b_k(x) − log b_r(x)`` with its error bound, both (N, K)."""
        chosen = self.rates[reference]
        logs, differ = _log_ratio(self.rates, chosen, second), self.rates - chosen
        ratio = x @ logs.T - differ.sum(1)
        each = x[:, None, :] * (1 + logs.abs()) + self.rates + chosen
        return ratio, 4 * _EPS * torch.where(differ == 0, 0.0, each).sum(2)

    def draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """One step for each state, (N, d)."""
        return torch.poisson(self.rates[states], generator=generator)

    def trusted(self, rates: Array) -> PoissonEmission:
        """The same kind with rates that need no look."""
        other = object.__new__(PoissonEmission)
        object.__setattr__(other, "rates", torch.from_numpy(rates).to(self.device))
        return other

    def started(self, x: Array, generator: torch.Generator) -> PoissonEmission:
        """A random start for a fit: rates around the mean count."""
        noise = torch.rand(self.rates.shape, generator=generator, dtype=torch.float64)
        return PoissonEmission(((torch.from_numpy(x.mean(0)) + 0.1) * (0.25 + 1.5 * noise)).to(self.device))

    def observe(self, model: Model, step: int, z: Any) -> None:
        """Add step t of a symbolic model."""
        for j in range(self.columns):
            name = f"x[{step}]" if self.columns == 1 else f"x[{step},{j + 1}]"
            model.observe(name, families.Poisson(select_exactly(z, self.rates[:, j].tolist())))


Emission = CategoricalEmission | GaussianEmission | PoissonEmission

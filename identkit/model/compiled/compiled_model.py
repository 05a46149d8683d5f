"""A `Model` with numbers for its parameters, as torch: log-likelihood, log-prior, gradients and draws.

Log densities are written out by hand so that they stay finite far out in the tails; the SymPy log densities of
`families` are the other, independent route (`exact_gaps`, and the tests).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from jaxtyping import Bool, Float
from sympy import Expr, Symbol
from torch import Tensor

from identkit.model import balls
from identkit.model.compiled.data import (
    SUPPORT_WORDS,
    axis_of,
    kind_of,
    number_of_draws,
    possible,
    stand_in,
    table_of,
)
from identkit.model.compiled.density import Density
from identkit.model.families import (
    Categorical,
)
from identkit.model.family import ROUNDED
from identkit.model.model import Model
from identkit.model.noise_free import Exactly
from identkit.model.protocol import Axis, Continuous
from identkit.model.statement import marginal
from identkit.model.tape import Tape

_OUT_OF_THE_QUESTION = -2000.0  # nats of log prior density


def compiled(model: Model, at: Mapping[Any, Any] | None = None) -> CompiledModel:
    """The model in torch, every parameter fixed.

    Args:
        model: the model.
        at: values of its parameters and known numbers, by symbol or name; all of them.

    Raises:
        ValueError: if one has no value, a value lies outside its domain, a name is unknown, or an observation is
            noise-free and so has no density.

    >>> import identkit as ik
    >>> m = ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)")
    >>> c = compiled(m, at={"w": 2})
    >>> c.log_likelihood(torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    tensor([-0.9189], dtype=torch.float64)
    """
    fixed = model.at(at)
    if fixed.domains:
        raise ValueError(
            f"every parameter needs a value; missing: {', '.join(s.name for s in fixed.domains)}"
        )
    for statement in fixed.observations:
        if isinstance(statement.family, Exactly):
            statement.log_density()  # refuses by name
    return CompiledModel(fixed)


class CompiledModel:
    """The torch face of a model without free parameters; made by `compiled`.

    Latents come as ``z (n, k)`` or ``(samples, n, k)``, states 0-based as in torch; data as ``x (n, d)``, states
    1-based as in the text and in CSV files. Everything is float64 and in nats.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.latent_names = model.latent_names
        self.observation_names = model.observation_names
        self._observations = [Density(statement) for statement in model.observations]
        self._latents = [Density(statement) for statement in model.latents]
        self._offsets = [
            int(isinstance(kind_of(s.family), Categorical)) for s in model.latents for _ in s.symbols
        ]

    # Data at the door

    def rows(self, x: Any, mask: Any = None) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"] | None]:
        """Data as float64 ``(n, d)`` with its mask (True where observed), checked against the observations' supports.

        Args:
            x: (n, d) numpy or torch; for d = 1 also (n,) or a number; or a mapping from names to columns.
            mask: (n, d), True where x is observed; None if nothing is missing.

        Raises:
            ValueError: for a wrong shape, a NaN that is not masked, or a value that its family cannot produce.
        """
        table = table_of(x, self.observation_names)
        observed = None if mask is None else torch.as_tensor(mask, dtype=torch.bool, device=table.device)
        if observed is not None and observed.shape != table.shape:
            raise ValueError(
                f"mask should have the shape of x, {tuple(table.shape)}, got {tuple(observed.shape)}"
            )
        for column, (symbol, family) in enumerate(
            (s, st.family) for st in self.model.observations for s in st.symbols
        ):
            values = table[:, column] if observed is None else table[observed[:, column], column]
            if not torch.isfinite(values).all():
                seen = (
                    torch.ones_like(table[:, column], dtype=torch.bool)
                    if observed is None
                    else observed[:, column]
                )
                row = int((seen & ~torch.isfinite(table[:, column])).nonzero()[0])
                raise ValueError(
                    f"x should be finite, got {table[row, column].item()} in row {row + 1}, column {symbol.name}; "
                    "give mask= (or leave the CSV cell empty) where a value is missing"
                )
            impossible = ~possible(values, family)
            if impossible.any():
                raise ValueError(
                    f"x's column {symbol.name} should hold values of {family.name} "
                    f"({SUPPORT_WORDS[type(kind_of(family))]}), "
                    f"got {values[impossible][0].item():g}"
                )
        self._refuse_totals(table, observed)
        if observed is not None:
            table = torch.where(observed, table, self._stand_ins.to(table.device))
        return table, observed

    @property
    def _stand_ins(self) -> Tensor:
        # For what is missing: a value of the support, since 0 · ∞ would enter the gradient of what is masked out.
        families = [st.family for st in self.model.observations for _ in st.symbols]
        return torch.tensor([stand_in(family) for family in families], dtype=torch.float64)

    def _refuse_totals(self, table: Tensor, observed: Tensor | None) -> None:
        start = 0
        for statement in self.model.observations:
            stop = start + len(statement.symbols)
            total = statement.family.total
            if total is not None and total.is_number:
                sums = table[:, start:stop].sum(-1)
                whole = torch.ones_like(sums, dtype=torch.bool)
                if observed is not None:
                    whole = observed[:, start:stop].all(-1)
                wrong = whole & ((sums - float(total)).abs() > float(ROUNDED))
                if wrong.any():
                    names = ", ".join(symbol.name for symbol in statement.symbols)
                    raise ValueError(
                        f"x's columns {names} should add up to {total}, got {sums[wrong][0].item():g} "
                        f"in row {int(wrong.nonzero()[0]) + 1}"
                    )
            start = stop

    # Densities

    def log_likelihood(self, x: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """``log p(x | z)`` row by row: x (n, d), z (n, k) or (samples, n, k); result (n,) or (samples, n)."""
        z = z.to(torch.float64)
        values = self._values(z)
        x = x.to(torch.float64)
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        start = 0
        for density in self._observations:
            stop = start + len(density.statement.symbols)
            here = None if mask is None else mask[..., start:stop]
            total = total + density(values, x[..., start:stop], here)
            start = stop
        return total.expand(torch.broadcast_shapes(total.shape, x.shape[:-1], z.shape[:-1]))

    def log_prior(self, z: Tensor) -> Tensor:
        """``log p(z)``: z (..., k), result (...)."""
        z = z.to(torch.float64)
        values = self._values(z)
        total = torch.zeros(z.shape[:-1], dtype=torch.float64, device=z.device)
        for density in self._latents:
            drawn = torch.stack([values[symbol] for symbol in density.statement.symbols], dim=-1)
            term = density(values, drawn, None)
            # Given what is itself out of the question, a scale may underflow to 0, and 0/0 has no logarithm.
            total = torch.where(term.isnan() & (total < _OUT_OF_THE_QUESTION), -torch.inf, total + term)
        return total

    def gradient(self, x: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """``∂ log p(x | z) / ∂z`` (zero for discrete latents), of the shape of z."""
        leaf = z.detach().to(torch.float64).clone().requires_grad_(True)
        value = self.log_likelihood(x, leaf, mask).sum()
        if not value.requires_grad:
            return torch.zeros_like(leaf)
        (slope,) = torch.autograd.grad(value, leaf)
        continuous = torch.tensor([isinstance(axis, Continuous) for axis in self.axes], device=z.device)
        return torch.where(continuous, slope, torch.zeros_like(slope))

    def exact_gaps(
        self, x_row: Tensor, z0: Tensor, z: Tensor, mask_row: Tensor | None = None
    ) -> Float[Tensor, " m"]:
        """``ℓ(z) − ℓ(z0)`` for one datum, in balls and then rounded: relatively accurate however small it is.

        Args:
            x_row: (d,) one row of data. z0: (k,) the reference. z: (m, k) the other points. mask_row: (d,).
        """
        data = self._exact_data(x_row, mask_row)
        tape = self._likelihood_tape(mask_row)
        reference, *others = [
            balls.run(tape, data | self._exact_latents(point), precision=256)[0] for point in [z0, *z]
        ]
        return torch.tensor([float((other - reference).mid()) for other in others], dtype=torch.float64)

    def _exact_data(self, x_row: Tensor, mask_row: Tensor | None) -> dict[Symbol, float]:
        keep = [True] * len(x_row) if mask_row is None else mask_row.tolist()
        pairs = zip(self.model.observation_symbols, x_row.tolist(), keep, strict=True)
        return {symbol: value for symbol, value, kept in pairs if kept}

    def _exact_latents(self, point: Tensor) -> dict[Symbol, float]:
        pairs = zip(self.model.latent_symbols, point.tolist(), self._offsets, strict=True)
        return {symbol: value + offset for symbol, value, offset in pairs}

    def _likelihood_tape(self, mask_row: Tensor | None) -> Tape:
        return Tape([observed_log_likelihood(self.model, None if mask_row is None else mask_row.tolist())])

    # Latents

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axis of each latent for quadrature.

        Raises:
            ValueError: for a latent with infinitely many discrete values, such as a Poisson count.
        """
        return tuple(axis_of(symbol, s.family) for s in self.model.latents for symbol in s.symbols)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``(x, z)``: n independent draws of the whole model."""
        n = number_of_draws(n, generator)
        values: dict[Symbol, Tensor] = {}
        for density in [*self._latents, *self._observations]:
            drawn = density.sample(values, n, generator)
            values.update(zip(density.statement.symbols, drawn.unbind(-1), strict=True))
        columns = [
            values[s] - offset for s, offset in zip(self.model.latent_symbols, self._offsets, strict=True)
        ]
        empty = torch.zeros(n, 0, dtype=torch.float64)
        x = [values[symbol] for symbol in self.model.observation_symbols]
        return (torch.stack(x, -1) if x else empty), (torch.stack(columns, -1) if columns else empty)

    def _values(self, z: Tensor) -> dict[Symbol, Tensor]:
        if z.shape[-1] != len(self.latent_names):
            raise ValueError(
                f"z's last axis should have {len(self.latent_names)} latents, got shape {tuple(z.shape)}"
            )
        columns = zip(self.model.latent_symbols, z.unbind(-1), self._offsets, strict=True)
        return {symbol: column + offset for symbol, column, offset in columns}


def observed_log_likelihood(model: Model, keep: Sequence[bool] | None) -> Expr:
    """The SymPy log-likelihood of one row from which the coordinates with ``keep`` False are missing."""
    if keep is None or all(keep):
        return model.log_likelihood()
    terms, start = [], 0
    for statement in model.observations:
        here = list(keep[start : start + len(statement.symbols)])
        start += len(here)
        kept = marginal(statement, here)
        if kept is not None:
            terms.append(kept.log_density())
    return sympy.Add(*terms)

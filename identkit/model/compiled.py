"""A `Model` with numbers for its parameters, as torch: log-likelihood, log-prior, gradients and draws.

This is the only file of `identkit.model` that imports torch, and the torch face of every family lives here. Log
densities are written out by hand so that they stay finite far out in the tails; the SymPy log densities of
`families` are the other, independent route (`exact_gaps`, and the tests).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy
import torch
from jaxtyping import Bool, Float
from sympy import Expr, Rational, Symbol
from torch import Tensor

from identkit.model import balls
from identkit.model.families import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Dirichlet,
    Exponential,
    Family,
    Gamma,
    Geometric,
    InverseGamma,
    Laplace,
    LogNormal,
    Mixture,
    Multinomial,
    MvNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    Uniform,
    select,
)
from identkit.model.family import ROUNDED
from identkit.model.functions import sigmoid
from identkit.model.model import Model, Statement, marginal
from identkit.model.noise_free import Exactly
from identkit.model.protocol import Axis, Continuous, Finite
from identkit.model.tape import Tape

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_TINY = torch.finfo(torch.float64).tiny


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
        self._observations = [_Density(statement) for statement in model.observations]
        self._latents = [_Density(statement) for statement in model.latents]
        self._offsets = [
            int(isinstance(_kind(s.family), Categorical)) for s in model.latents for _ in s.symbols
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
        table = _table(x, self.observation_names)
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
            impossible = ~_possible(values, family)
            if impossible.any():
                raise ValueError(
                    f"x's column {symbol.name} should hold values of {family.name} ({_SUPPORT_WORDS[type(_kind(family))]}), "
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
        return torch.tensor([_stand_in(family) for family in families], dtype=torch.float64)

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
            total = total + density(values, drawn, None)
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
        return tuple(_axis(symbol, s.family) for s in self.model.latents for symbol in s.symbols)

    def independent_prior(self, latent: int) -> tuple[str, tuple[float, ...]] | None:
        """Family name and numbers of a scalar latent whose prior mentions no other latent; else None."""
        if not 0 <= latent < len(self.latent_names):
            raise IndexError(f"latent should be in 0..{len(self.latent_names) - 1}, got {latent}")
        for statement in self.model.latents:
            if self.model.latent_symbols[latent] in statement.symbols:
                family = statement.family
                if family.free_symbols or family.dimension > 1 or isinstance(family, Mixture):
                    return None
                return family.name, tuple(float(argument) for argument in family.arguments)
        return None

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``(x, z)``: n independent draws of the whole model."""
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


class _Density:
    """One statement in torch: ``log p`` of its coordinates, and draws."""

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self._faces: dict[tuple[bool, ...], _Face] = {}

    def __call__(self, values: Mapping[Symbol, Tensor], x: Tensor, mask: Tensor | None) -> Tensor:
        width = len(self.statement.symbols)
        if mask is None or bool(mask.all()):
            return self._face((True,) * width).log_density(values, x)
        if width == 1:
            return torch.where(mask[..., 0], self._face((True,)).log_density(values, x), 0.0)
        return self._by_pattern(values, x, mask)

    def _by_pattern(self, values: Mapping[Symbol, Tensor], x: Tensor, mask: Tensor) -> Tensor:
        total = torch.zeros(x.shape[:-1], dtype=torch.float64, device=x.device)
        for pattern in torch.unique(mask.reshape(-1, mask.shape[-1]), dim=0).tolist():
            if any(pattern):
                here = (mask == torch.tensor(pattern, device=x.device)).all(-1)
                present = [i for i, seen in enumerate(pattern) if seen]
                density = self._face(tuple(pattern)).log_density(values, x[..., present])
                total = total + torch.where(here, density, 0.0)
        return total

    def _face(self, keep: tuple[bool, ...]) -> _Face:
        if keep not in self._faces:
            kept = marginal(self.statement, keep)
            if kept is None:
                raise ValueError(f"{self.statement.symbols} are all missing")
            self._faces[keep] = _FACES[type(kept.family)](kept.family)
        return self._faces[keep]

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        return self._face((True,) * len(self.statement.symbols)).sample(values, n, generator)


class _Face:
    """The torch face of a family: its arguments' tape, its log density, its sampler."""

    def __init__(self, family: Family, expressions: Sequence[Expr]) -> None:
        self.family = family
        self._tape = Tape(list(expressions))

    def arguments(self, values: Mapping[Symbol, Tensor]) -> list[Tensor]:
        return self._tape.run(values, _TORCH)

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        raise NotImplementedError

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError


class _Normal(_Face):
    def __init__(self, family: Family) -> None:
        mean, sd = family.arguments
        super().__init__(family, [mean, sd, log_of(sd)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        mean, sd, log_sd = self.arguments(values)
        return -0.5 * ((x[..., 0] - mean) / sd) ** 2 - log_sd - _HALF_LOG_2PI

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        mean, sd, _ = self.arguments(values)
        return (mean + sd * torch.randn(n, dtype=torch.float64, generator=generator))[:, None]


class _MvNormal(_Face):
    def __init__(self, family: Family) -> None:
        mean, cov = family.arguments
        super().__init__(family, [*mean, *cov])

    def _moments(self, values: Mapping[Symbol, Tensor]) -> tuple[Tensor, Tensor]:
        d = self.family.dimension
        entries = torch.stack(torch.broadcast_tensors(*self.arguments(values)), dim=-1)
        return entries[..., :d], torch.linalg.cholesky(entries[..., d:].unflatten(-1, (d, d)))

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        mean, factor = self._moments(values)
        apart = (x - mean).unsqueeze(-1)
        white = torch.linalg.solve_triangular(factor, apart, upper=False).squeeze(-1)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * white.square().sum(-1) - log_det - self.family.dimension * _HALF_LOG_2PI

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        mean, factor = self._moments(values)
        white = torch.randn(n, self.family.dimension, 1, dtype=torch.float64, generator=generator)
        return mean + (factor @ white).squeeze(-1)


class _Bernoulli(_Face):
    def __init__(self, family: Family) -> None:
        (p,) = family.arguments
        super().__init__(family, [p, log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        _, log_p, log_not = self.arguments(values)
        return torch.where(x[..., 0] == 1, log_p, log_not)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        p = self.arguments(values)[0]
        return (torch.rand(n, dtype=torch.float64, generator=generator) < p).to(torch.float64)[:, None]


class _Categorical(_Face):
    def __init__(self, family: Family) -> None:
        super().__init__(family, [*family.arguments, *[log_of(p) for p in family.arguments]])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        logs = self.arguments(values)[len(self.family.arguments) :]
        total = torch.full((), -math.inf, dtype=torch.float64, device=x.device)
        for state, log_p in enumerate(logs, 1):
            total = torch.where(x[..., 0] == state, log_p, total)
        return total

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        p = self.arguments(values)[: len(self.family.arguments)]
        table = torch.stack([q.expand(n) for q in p], dim=-1)
        return torch.multinomial(table, 1, generator=generator).to(torch.float64) + 1


class _Beta(_Face):
    def __init__(self, family: Family) -> None:
        super().__init__(family, family.arguments)

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        a, b = self.arguments(values)
        u = x[..., 0]
        log_beta = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return torch.xlogy(a - 1, u) + torch.special.xlog1py(b - 1, -u) - log_beta

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        a, b = self.arguments(values)
        pair = torch.stack([a.expand(n), b.expand(n)], dim=-1)
        return torch._sample_dirichlet(pair, generator)[..., :1]  # pyright: ignore[reportPrivateImportUsage]


class _Binomial(_Face):
    def __init__(self, family: Family) -> None:
        n, p = family.arguments
        super().__init__(family, [n, p, log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        trials, _, log_p, log_not = self.arguments(values)
        k = x[..., 0]
        left = (trials - k).clamp(min=0)
        chosen = torch.lgamma(trials + 1) - torch.lgamma(k + 1) - torch.lgamma(left + 1)
        density = chosen + _times_log(k, log_p) + _times_log(left, log_not)
        return torch.where(k > trials, -math.inf, density)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        trials, p, _, _ = self.arguments(values)
        return torch.binomial(trials.expand(n).contiguous(), p.expand(n).contiguous(), generator)[:, None]


class _Poisson(_Face):
    def __init__(self, family: Family) -> None:
        (rate,) = family.arguments
        super().__init__(family, [rate, log_of(rate)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        rate, log_rate = self.arguments(values)
        return _times_log(x[..., 0], log_rate) - rate - torch.lgamma(x[..., 0] + 1)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        return torch.poisson(self.arguments(values)[0].expand(n).contiguous(), generator)[:, None]


class _Mixture(_Face):
    family: Mixture

    def __init__(self, family: Mixture) -> None:
        super().__init__(family, [*family.weights, *[log_of(weight) for weight in family.weights]])
        self._components = [_FACES[type(component)](component) for component in family.components]

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        logs = self.arguments(values)[len(self._components) :]
        terms = [
            log_w + part.log_density(values, x) for log_w, part in zip(logs, self._components, strict=True)
        ]
        return torch.logsumexp(torch.stack(torch.broadcast_tensors(*terms)), dim=0)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        weights = self.arguments(values)[: len(self._components)]
        label = torch.multinomial(torch.stack([w.expand(n) for w in weights], -1), 1, generator=generator)
        draws = torch.stack([part.sample(values, n, generator) for part in self._components], dim=1)
        return draws.gather(1, label[..., None].expand(-1, 1, draws.shape[-1])).squeeze(1)


class _LogNormal(_Normal):
    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        u = torch.log(x)
        return super().log_density(values, u) - u[..., 0]

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        return super().sample(values, n, generator).exp()


class _StudentT(_Face):
    def __init__(self, family: Family) -> None:
        df, loc, scale = family.arguments
        super().__init__(family, [df, loc, scale, log_of(scale)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        df, loc, scale, log_scale = self.arguments(values)
        constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * torch.log(math.pi * df)
        return constant - log_scale - (df + 1) / 2 * _log1p_square((x[..., 0] - loc) / scale / df.sqrt())

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        df, loc, scale, _ = self.arguments(values)
        chi = torch._standard_gamma((df / 2).expand(n).contiguous(), generator) / (df / 2)  # pyright: ignore[reportPrivateImportUsage]
        normal = torch.randn(n, dtype=torch.float64, generator=generator)
        return (loc + scale * normal / chi.clamp(min=_TINY).sqrt())[:, None]


class _Laplace(_Face):
    def __init__(self, family: Family) -> None:
        loc, scale = family.arguments
        super().__init__(family, [loc, scale, log_of(scale)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        loc, scale, log_scale = self.arguments(values)
        return -(x[..., 0] - loc).abs() / scale - log_scale - math.log(2)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        loc, scale, _ = self.arguments(values)
        size = -torch.log1p(-torch.rand(n, dtype=torch.float64, generator=generator))
        side = torch.rand(n, dtype=torch.float64, generator=generator) < 0.5
        return (loc + scale * torch.where(side, -size, size))[:, None]


class _Cauchy(_Face):
    def __init__(self, family: Family) -> None:
        loc, scale = family.arguments
        super().__init__(family, [loc, scale, log_of(scale)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        loc, scale, log_scale = self.arguments(values)
        return -math.log(math.pi) - log_scale - _log1p_square((x[..., 0] - loc) / scale)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        loc, scale, _ = self.arguments(values)
        turn = torch.rand(n, dtype=torch.float64, generator=generator) - 0.5
        return (loc + scale * torch.tan(math.pi * turn))[:, None]


class _Exponential(_Face):
    def __init__(self, family: Family) -> None:
        (rate,) = family.arguments
        super().__init__(family, [rate, log_of(rate)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        rate, log_rate = self.arguments(values)
        return torch.where(x[..., 0] < 0, -math.inf, log_rate - rate * x[..., 0])

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        rate, _ = self.arguments(values)
        return (-torch.log1p(-torch.rand(n, dtype=torch.float64, generator=generator)) / rate)[:, None]


class _Gamma(_Face):
    def __init__(self, family: Family) -> None:
        shape, rate = family.arguments
        super().__init__(family, [shape, rate, log_of(rate)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        shape, rate, log_rate = self.arguments(values)
        constant = shape * log_rate - torch.lgamma(shape)
        return constant + (shape - 1) * torch.log(x[..., 0]) - rate * x[..., 0]

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        shape, rate, _ = self.arguments(values)
        return (_standard_gamma(shape, n, generator) / rate)[:, None]


class _InverseGamma(_Gamma):
    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        shape, scale, log_scale = self.arguments(values)
        constant = shape * log_scale - torch.lgamma(shape)
        return constant - (shape + 1) * torch.log(x[..., 0]) - scale / x[..., 0]

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        shape, scale, _ = self.arguments(values)
        return (scale / _standard_gamma(shape, n, generator))[:, None]


class _Uniform(_Face):
    def __init__(self, family: Family) -> None:
        low, high = family.arguments
        super().__init__(family, [low, high, log_of(high - low)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        low, high, log_width = self.arguments(values)
        inside = (x[..., 0] >= low) & (x[..., 0] <= high)
        return torch.where(inside, -log_width, -math.inf)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        low, high, _ = self.arguments(values)
        share = torch.rand(n, dtype=torch.float64, generator=generator)
        return (low * (1 - share) + high * share)[:, None]


class _NegativeBinomial(_Face):
    def __init__(self, family: Family) -> None:
        r, p = family.arguments
        super().__init__(family, [r, p, log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        r, _, log_p, log_not = self.arguments(values)
        k = x[..., 0]
        chosen = torch.lgamma(k + r) - torch.lgamma(r) - torch.lgamma(k + 1)
        return chosen + r * log_p + _times_log(k, log_not)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        r, p, _, _ = self.arguments(values)
        rates = torch._standard_gamma(r.expand(n).contiguous(), generator) * (1 - p) / p  # pyright: ignore[reportPrivateImportUsage]
        return torch.poisson(rates, generator)[:, None]


class _Geometric(_Face):
    def __init__(self, family: Family) -> None:
        (p,) = family.arguments
        super().__init__(family, [log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        log_p, log_not = self.arguments(values)
        return log_p + _times_log(x[..., 0], log_not)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        _, log_not = self.arguments(values)
        wait = torch.log1p(-torch.rand(n, dtype=torch.float64, generator=generator)) / log_not
        return wait.floor().abs()[:, None]


class _Dirichlet(_Face):
    def __init__(self, family: Family) -> None:
        super().__init__(family, family.arguments)

    def _shapes(self, values: Mapping[Symbol, Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*self.arguments(values)), dim=-1)

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        a = self._shapes(values)
        constant = torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1)
        return constant + ((a - 1) * torch.log(x)).sum(-1)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        a = self._shapes(values)
        return torch._sample_dirichlet(a.expand(n, a.shape[-1]).contiguous(), generator)  # pyright: ignore[reportPrivateImportUsage]


class _Multinomial(_Face):
    def __init__(self, family: Family) -> None:
        trials, *p = family.arguments
        super().__init__(family, [trials, *p, *map(log_of, p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        trials, *rest = self.arguments(values)
        logs = torch.stack(torch.broadcast_tensors(*rest[len(rest) // 2 :]), dim=-1)
        ways = torch.lgamma(trials + 1) - torch.lgamma(x + 1).sum(-1)
        return torch.where(x.sum(-1) == trials, ways + _times_log(x, logs).sum(-1), -math.inf)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        trials, *rest = [argument.expand(n) for argument in self.arguments(values)]
        left, remaining, counts = trials.clone(), torch.ones(n, dtype=torch.float64), []
        for p in rest[: len(rest) // 2 - 1]:
            share = torch.where(remaining > 0, p / remaining, 0.0).clamp(0, 1)
            counts.append(torch.binomial(left, share, generator))
            left, remaining = left - counts[-1], (remaining - p).clamp(min=0)
        return torch.stack([*counts, left], dim=-1)


_FACES: dict[type[Family], Callable[[Any], _Face]] = {
    Normal: _Normal,
    MvNormal: _MvNormal,
    Bernoulli: _Bernoulli,
    Categorical: _Categorical,
    Beta: _Beta,
    Binomial: _Binomial,
    Poisson: _Poisson,
    LogNormal: _LogNormal,
    StudentT: _StudentT,
    Laplace: _Laplace,
    Cauchy: _Cauchy,
    Exponential: _Exponential,
    Gamma: _Gamma,
    InverseGamma: _InverseGamma,
    Uniform: _Uniform,
    NegativeBinomial: _NegativeBinomial,
    Geometric: _Geometric,
    Dirichlet: _Dirichlet,
    Multinomial: _Multinomial,
    Mixture: _Mixture,
}


class log1m(sympy.Function):
    """``log(1 − p)``, kept in one piece so that torch can use log1p."""


class logsigmoid(sympy.Function):
    """``log sigmoid(u)``, kept in one piece so that torch never takes log 0."""


def log_of(expression: Expr) -> Expr:
    """``log(expression)`` for a positive expression, with exponentials and logistic functions taken apart."""
    if isinstance(expression, sympy.exp):
        return expression.args[0]
    if isinstance(expression, sigmoid):
        return logsigmoid(expression.args[0])
    if isinstance(expression, select):
        state, *choices = expression.args
        return select(state, *[log_of(choice) for choice in choices])
    if isinstance(expression, sympy.Pow) and expression.base.is_positive and expression.exp.is_real:
        return expression.exp * log_of(expression.base)
    if isinstance(expression, sympy.Mul) and all(factor.is_positive for factor in expression.args):
        return sympy.Add(*[log_of(factor) for factor in expression.args])
    return sympy.log(expression, evaluate=not expression.is_zero)


def log_of_complement(p: Expr) -> Expr:
    """``log(1 − p)`` for a probability p."""
    if isinstance(p, sigmoid):
        return logsigmoid(-p.args[0])
    if isinstance(p, select):
        state, *choices = p.args
        return select(state, *[log_of_complement(choice) for choice in choices])
    return log1m(p)


class _Torch:
    """The algebra of float64 tensors, for `Tape.run`."""

    def constant(self, value: Rational) -> Tensor:
        return torch.tensor(int(value.p) / int(value.q), dtype=torch.float64)

    def pi(self) -> Tensor:
        return torch.tensor(math.pi, dtype=torch.float64)

    def add(self, terms: Sequence[Tensor]) -> Tensor:
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def multiply(self, factors: Sequence[Tensor]) -> Tensor:
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product

    def power(self, base: Tensor, exponent: Rational) -> Tensor:
        if exponent == Rational(1, 2):
            return base.sqrt()
        return base ** (int(exponent) if exponent.is_Integer else int(exponent.p) / int(exponent.q))

    def call(self, function: str, arguments: Sequence[Tensor]) -> Tensor:
        if function in ("max", "min"):
            extreme = torch.maximum if function == "max" else torch.minimum
            result = arguments[0]
            for argument in arguments[1:]:
                result = extreme(result, argument)
            return result
        if function == "select":
            state, *choices = torch.broadcast_tensors(*arguments)
            result = choices[0]
            for position, choice in enumerate(choices[1:], 2):
                result = torch.where(state == position, choice, result)
            return result
        if function not in _CALLS:
            raise NotImplementedError(f"{function} has no torch face here")
        return _CALLS[function](*arguments)


_CALLS: dict[str, Callable[..., Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "abs": torch.abs,
    "sign": torch.sign,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "logsigmoid": torch.nn.functional.logsigmoid,
    "log1m": lambda p: torch.log1p(-p),
    "loggamma": torch.lgamma,
    "xlogy": torch.xlogy,
}
_TORCH = _Torch()


def _times_log(count: Tensor, log: Tensor) -> Tensor:
    # 0 · log 0 = 0: an outcome that needs no success has probability one under p = 0.
    return torch.where(count == 0, 0.0, count * log)


def _log1p_square(v: Tensor) -> Tensor:
    """``log(1 + v²)``, where v² may overflow."""
    far = v.abs() > 1
    near = torch.log1p(torch.where(far, 0.0, v).square())
    return torch.where(far, 2 * torch.log(torch.hypot(torch.ones_like(v), torch.where(far, v, 1.0))), near)


def _standard_gamma(shape: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    # Of a tiny shape, a draw may be smaller than any float64.
    return torch._standard_gamma(shape.expand(n).contiguous(), generator).clamp(min=_TINY)  # pyright: ignore[reportPrivateImportUsage]


def _kind(family: Family) -> Family:
    return family.components[0] if isinstance(family, Mixture) else family


_SUPPORT_WORDS: dict[type[Family], str] = {
    Normal: "real numbers",
    MvNormal: "real numbers",
    Bernoulli: "0 or 1",
    Categorical: "a state, counted from 1",
    Beta: "strictly between 0 and 1",
    Binomial: "whole numbers from 0 to n",
    Poisson: "whole numbers, 0 or more",
    LogNormal: "positive numbers",
    StudentT: "real numbers",
    Laplace: "real numbers",
    Cauchy: "real numbers",
    Exponential: "numbers from 0 on",
    Gamma: "positive numbers",
    InverseGamma: "positive numbers",
    Uniform: "between its bounds",
    NegativeBinomial: "whole numbers, 0 or more",
    Geometric: "whole numbers, 0 or more",
    Dirichlet: "strictly between 0 and 1",
    Multinomial: "whole numbers from 0 to n",
}


def _possible(values: Tensor, family: Family) -> Tensor:
    if isinstance(family, Mixture):
        return torch.stack([_possible(values, component) for component in family.components]).any(0)
    support = family.support
    if isinstance(support, sympy.Interval):
        above = values > float(support.start) if support.left_open else values >= float(support.start)
        below = values < float(support.end) if support.right_open else values <= float(support.end)
        return above & below
    low, high = 0.0, math.inf
    if isinstance(family, Bernoulli):
        high = 1.0
    elif isinstance(family, Categorical):
        low, high = 1.0, float(len(family.arguments))
    elif isinstance(family, Binomial | Multinomial) and family.arguments[0].is_number:
        high = float(family.arguments[0])
    return (values >= low) & (values <= high) & (values == values.round())


def _stand_in(family: Family) -> float:
    low, high = float(family.support.inf), float(family.support.sup)
    for trial in (0.0, 0.5, 1.0, (low + high) / 2, low + 1, high - 1):
        if _possible(torch.tensor([trial], dtype=torch.float64), family):
            return trial
    return 0.0


def _axis(symbol: Symbol, family: Family) -> Axis:
    support = family.support
    if family.total is not None:
        raise ValueError(
            f"{symbol.name} ~ {family.name} has coordinates with a fixed sum, over which quadrature does not run; "
            "draw all but one from families of their own"
        )
    if isinstance(_kind(family), Categorical):
        return Finite(tuple(float(state - 1) for state in support))
    if support.is_FiniteSet or (isinstance(support, sympy.Range) and support.size.is_finite):
        return Finite(tuple(float(value) for value in support))
    if support.is_subset(sympy.S.Integers):
        raise ValueError(
            f"{symbol.name} ~ {family.name} has infinitely many values, which quadrature does not sum"
        )
    return Continuous(float(support.inf), float(support.sup))


def _table(x: Any, names: Sequence[str]) -> Tensor:
    if isinstance(x, Mapping):
        missing = [name for name in names if name not in x]
        strange = [name for name in x if name not in names]
        if missing or strange:
            raise ValueError(
                f"x should have the columns {', '.join(names)}, got {', '.join(map(str, x)) or 'none'}"
            )
        return torch.stack([_table(x[name], [name])[:, 0] for name in names], dim=-1)
    try:
        table = torch.as_tensor(x if isinstance(x, Tensor) else np.asarray(x, dtype=np.float64)).to(
            torch.float64
        )
    except (TypeError, ValueError):
        raise ValueError(f"x should be an array of numbers, got {type(x).__name__}") from None
    if len(names) == 1 and table.ndim < 2:
        table = table.reshape(-1, 1)
    if table.ndim != 2 or table.shape[1] != len(names):
        raise ValueError(
            f"x should have shape (n, {len(names)}) for {', '.join(names)}, got {tuple(table.shape)}"
        )
    return table

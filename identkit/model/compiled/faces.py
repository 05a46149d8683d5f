"""The torch face of the first families: log densities and draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from sympy import Expr, Symbol
from torch import Tensor

from identkit.model.compiled.arithmetic import (
    TORCH,
    log_of,
    log_of_complement,
)
from identkit.model.compiled.saddle_point import log_binomial, log_dirichlet, log_poisson
from identkit.model.families import (
    Family,
)
from identkit.model.tape import Tape

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Face:
    """The torch face of a family: its arguments' tape, its log density, its sampler."""

    def __init__(self, family: Family, expressions: Sequence[Expr]) -> None:
        self.family = family
        self._tape = Tape(list(expressions))

    def arguments(self, values: Mapping[Symbol, Tensor]) -> list[Tensor]:
        return self._tape.run(values, TORCH)

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        raise NotImplementedError

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        raise NotImplementedError


class NormalFace(Face):
    """`Normal` in torch."""

    def __init__(self, family: Family) -> None:
        mean, sd = family.arguments
        super().__init__(family, [mean, sd, log_of(sd)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        mean, sd, log_sd = self.arguments(values)
        return -0.5 * ((x[..., 0] - mean) / sd) ** 2 - log_sd - _HALF_LOG_2PI

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        mean, sd, _ = self.arguments(values)
        return (mean + sd * torch.randn(n, dtype=torch.float64, generator=generator))[:, None]


class MvNormalFace(Face):
    """`MvNormal` in torch."""

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


class BernoulliFace(Face):
    """`Bernoulli` in torch."""

    def __init__(self, family: Family) -> None:
        (p,) = family.arguments
        super().__init__(family, [p, log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        _, log_p, log_not = self.arguments(values)
        return torch.where(x[..., 0] == 1, log_p, log_not)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        p = self.arguments(values)[0]
        return (torch.rand(n, dtype=torch.float64, generator=generator) < p).to(torch.float64)[:, None]


class CategoricalFace(Face):
    """`Categorical` in torch."""

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


class BetaFace(Face):
    """`Beta` in torch."""

    def __init__(self, family: Family) -> None:
        super().__init__(family, family.arguments)

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        shapes = torch.stack(torch.broadcast_tensors(*self.arguments(values)), dim=-1)
        return log_dirichlet(torch.cat([x, 1 - x], dim=-1), shapes)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        a, b = self.arguments(values)
        pair = torch.stack([a.expand(n), b.expand(n)], dim=-1)
        return torch._sample_dirichlet(pair, generator)[..., :1]  # pyright: ignore[reportPrivateImportUsage]


class BinomialFace(Face):
    """`Binomial` in torch."""

    def __init__(self, family: Family) -> None:
        n, p = family.arguments
        super().__init__(family, [n, p, log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        trials, p, *logs = self.arguments(values)
        k = x[..., 0]
        return torch.where(k > trials, -math.inf, log_binomial(torch.minimum(k, trials), trials, p, logs))

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        trials, p, _, _ = self.arguments(values)
        return torch.binomial(trials.expand(n).contiguous(), p.expand(n).contiguous(), generator)[:, None]


class PoissonFace(Face):
    """`Poisson` in torch."""

    def __init__(self, family: Family) -> None:
        (rate,) = family.arguments
        super().__init__(family, [rate, log_of(rate)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        rate, log_rate = self.arguments(values)
        return log_poisson(x[..., 0], rate, log_rate)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        return torch.poisson(self.arguments(values)[0].expand(n).contiguous(), generator)[:, None]

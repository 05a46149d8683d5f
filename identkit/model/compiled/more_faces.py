"""The torch face of the other families."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from sympy import Symbol
from torch import Tensor

from identkit.model.compiled.arithmetic import (
    log1p_square,
    log_of,
    log_of_complement,
    standard_gamma,
    times_log,
)
from identkit.model.compiled.faces import Face, NormalFace
from identkit.model.compiled.saddle_point import (
    log_dirichlet,
    log_gamma,
    log_multinomial,
    log_negative_binomial,
    log_student,
)
from identkit.model.families import (
    Family,
)

_TINY = torch.finfo(torch.float64).tiny


class LogNormalFace(NormalFace):
    """`LogNormal` in torch."""

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        u = torch.log(x)
        return super().log_density(values, u) - u[..., 0]

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        return super().sample(values, n, generator).exp()


class StudentTFace(Face):
    """`StudentT` in torch."""

    def __init__(self, family: Family) -> None:
        df, loc, scale = family.arguments
        super().__init__(family, [df, loc, scale, log_of(scale)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        df, loc, scale, log_scale = self.arguments(values)
        return log_student((x[..., 0] - loc) / scale, df) - log_scale

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        df, loc, scale, _ = self.arguments(values)
        chi = torch._standard_gamma((df / 2).expand(n).contiguous(), generator) / (df / 2)  # pyright: ignore[reportPrivateImportUsage]
        normal = torch.randn(n, dtype=torch.float64, generator=generator)
        return (loc + scale * normal / chi.clamp(min=_TINY).sqrt())[:, None]


class LaplaceFace(Face):
    """`Laplace` in torch."""

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


class CauchyFace(Face):
    """`Cauchy` in torch."""

    def __init__(self, family: Family) -> None:
        loc, scale = family.arguments
        super().__init__(family, [loc, scale, log_of(scale)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        loc, scale, log_scale = self.arguments(values)
        return -math.log(math.pi) - log_scale - log1p_square((x[..., 0] - loc) / scale)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        loc, scale, _ = self.arguments(values)
        turn = torch.rand(n, dtype=torch.float64, generator=generator) - 0.5
        return (loc + scale * torch.tan(math.pi * turn))[:, None]


class ExponentialFace(Face):
    """`Exponential` in torch."""

    def __init__(self, family: Family) -> None:
        (rate,) = family.arguments
        super().__init__(family, [rate, log_of(rate)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        rate, log_rate = self.arguments(values)
        return torch.where(x[..., 0] < 0, -math.inf, log_rate - rate * x[..., 0])

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        rate, _ = self.arguments(values)
        return (-torch.log1p(-torch.rand(n, dtype=torch.float64, generator=generator)) / rate)[:, None]


class GammaFace(Face):
    """`Gamma` in torch."""

    def __init__(self, family: Family) -> None:
        shape, rate = family.arguments
        super().__init__(family, [shape, rate, log_of(rate)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        shape, rate, log_rate = self.arguments(values)
        return log_gamma(x[..., 0], shape, rate, log_rate)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        shape, rate, _ = self.arguments(values)
        return (standard_gamma(shape, n, generator) / rate)[:, None]


class InverseGammaFace(GammaFace):
    """`InverseGamma` in torch."""

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        shape, scale, log_scale = self.arguments(values)
        return log_gamma(1 / x[..., 0], shape, scale, log_scale) - 2 * torch.log(x[..., 0])

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        shape, scale, _ = self.arguments(values)
        return (scale / standard_gamma(shape, n, generator))[:, None]


class UniformFace(Face):
    """`Uniform` in torch."""

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


class NegativeBinomialFace(Face):
    """`NegativeBinomial` in torch."""

    def __init__(self, family: Family) -> None:
        r, p = family.arguments
        super().__init__(family, [r, p, log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        r, p, *logs = self.arguments(values)
        return log_negative_binomial(x[..., 0], r, p, logs)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        r, p, _, _ = self.arguments(values)
        rates = torch._standard_gamma(r.expand(n).contiguous(), generator) * (1 - p) / p  # pyright: ignore[reportPrivateImportUsage]
        return torch.poisson(rates, generator)[:, None]


class GeometricFace(Face):
    """`Geometric` in torch."""

    def __init__(self, family: Family) -> None:
        (p,) = family.arguments
        super().__init__(family, [log_of(p), log_of_complement(p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        log_p, log_not = self.arguments(values)
        return log_p + times_log(x[..., 0], log_not)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        _, log_not = self.arguments(values)
        wait = torch.log1p(-torch.rand(n, dtype=torch.float64, generator=generator)) / log_not
        return wait.floor().abs()[:, None]


class DirichletFace(Face):
    """`Dirichlet` in torch."""

    def __init__(self, family: Family) -> None:
        super().__init__(family, family.arguments)

    def _shapes(self, values: Mapping[Symbol, Tensor]) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*self.arguments(values)), dim=-1)

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        return log_dirichlet(x, self._shapes(values))

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        a = self._shapes(values)
        return torch._sample_dirichlet(a.expand(n, a.shape[-1]).contiguous(), generator)  # pyright: ignore[reportPrivateImportUsage]


class MultinomialFace(Face):
    """`Multinomial` in torch."""

    def __init__(self, family: Family) -> None:
        trials, *p = family.arguments
        super().__init__(family, [trials, *p, *map(log_of, p)])

    def log_density(self, values: Mapping[Symbol, Tensor], x: Tensor) -> Tensor:
        trials, *rest = self.arguments(values)
        p, logs = torch.stack(torch.broadcast_tensors(*rest), dim=-1).chunk(2, dim=-1)
        return torch.where(x.sum(-1) == trials, log_multinomial(x, p, logs), -math.inf)

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        trials, *rest = [argument.expand(n) for argument in self.arguments(values)]
        left, remaining, counts = trials.clone(), torch.ones(n, dtype=torch.float64), []
        for p in rest[: len(rest) // 2 - 1]:
            share = torch.where(remaining > 0, p / remaining, 0.0).clamp(0, 1)
            counts.append(torch.binomial(left, share, generator))
            left, remaining = left - counts[-1], (remaining - p).clamp(min=0)
        return torch.stack([*counts, left], dim=-1)

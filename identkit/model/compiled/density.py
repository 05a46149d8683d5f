"""One statement in torch, with whatever of it is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from sympy import Symbol
from torch import Tensor

from identkit.model import families
from identkit.model.compiled.arithmetic import (
    log_of,
)
from identkit.model.compiled.faces import (
    BernoulliFace,
    BetaFace,
    BinomialFace,
    CategoricalFace,
    Face,
    MvNormalFace,
    NormalFace,
    PoissonFace,
)
from identkit.model.compiled.more_faces import (
    CauchyFace,
    DirichletFace,
    ExponentialFace,
    GammaFace,
    GeometricFace,
    InverseGammaFace,
    LaplaceFace,
    LogNormalFace,
    MultinomialFace,
    NegativeBinomialFace,
    StudentTFace,
    UniformFace,
)
from identkit.model.statement import Statement, marginal


class MixtureFace(Face):
    """`Mixture` in torch."""

    family: families.Mixture

    def __init__(self, family: families.Mixture) -> None:
        super().__init__(family, [*family.weights, *[log_of(weight) for weight in family.weights]])
        self._components = [FACES[type(component)](component) for component in family.components]

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


FACES: dict[type[families.Family], Callable[[Any], Face]] = {
    families.Normal: NormalFace,
    families.MvNormal: MvNormalFace,
    families.Bernoulli: BernoulliFace,
    families.Categorical: CategoricalFace,
    families.Beta: BetaFace,
    families.Binomial: BinomialFace,
    families.Poisson: PoissonFace,
    families.LogNormal: LogNormalFace,
    families.StudentT: StudentTFace,
    families.Laplace: LaplaceFace,
    families.Cauchy: CauchyFace,
    families.Exponential: ExponentialFace,
    families.Gamma: GammaFace,
    families.InverseGamma: InverseGammaFace,
    families.Uniform: UniformFace,
    families.NegativeBinomial: NegativeBinomialFace,
    families.Geometric: GeometricFace,
    families.Dirichlet: DirichletFace,
    families.Multinomial: MultinomialFace,
    families.Mixture: MixtureFace,
}


class Density:
    """One statement in torch: ``log p`` of its coordinates, and draws."""

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self._faces: dict[tuple[bool, ...], Face] = {}

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

    def _face(self, keep: tuple[bool, ...]) -> Face:
        if keep not in self._faces:
            kept = marginal(self.statement, keep)
            if kept is None:
                raise ValueError(f"{self.statement.symbols} are all missing")
            self._faces[keep] = FACES[type(kept.family)](kept.family)
        return self._faces[keep]

    def sample(self, values: Mapping[Symbol, Tensor], n: int, generator: torch.Generator | None) -> Tensor:
        return self._face((True,) * len(self.statement.symbols)).sample(values, n, generator)

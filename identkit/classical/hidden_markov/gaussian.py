"""Gaussian emissions of a hidden chain: full, diagonal or spherical covariances in any dimension."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import real, refuse_overflow, shaped
from identkit.classical.gaussian_mixture.ratio import Gaussians, ratio_by_difference, ratio_by_segment
from identkit.classical.hidden_markov.quadratics import Quadratics
from identkit.classical.hidden_markov.tables import by_steps, from_nearest, relative, select_exactly
from identkit.classical.shown import shown
from identkit.model import families
from identkit.model.model import Model

Array = np.ndarray

_EPS = torch.finfo(torch.float64).eps
_OUTLIER = 64.0
"""Squared distance in sds to the nearest state from which differences are taken by their own formula."""


@dataclass(frozen=True, eq=False, init=False, repr=False)
class GaussianEmission:
    """In state k, a normal law: ``x | k ~ N(μ_k, C_k)``.

    Args:
        means: μ, shape (K, d), or (K,) where d = 1.
        covariances: C: (K, d, d) full, (K, d) diagonal or (K,) spherical; variances, not standard deviations.

    Raises:
        ValueError, TypeError: a wrong shape, a covariance that is asymmetric or singular.

    >>> GaussianEmission([[0.0], [2.0]], [1.0, 1.0]).log_density([0.0, 2.0])
    tensor([[-0.9189, -2.9189],
            [-2.9189, -0.9189]], dtype=torch.float64)
    """

    means: Float[Tensor, "k d"]
    covariances: Float[Tensor, "k d d"]
    kind: str
    """"full", "diagonal" or "spherical": what a fit may change."""

    __repr__ = shown

    def __init__(self, means: Any, covariances: Any) -> None:
        means = real(means, "means")
        means = shaped(means[:, None] if means.ndim == 1 else means, "means", None, None)
        k, d = means.shape
        ndim = covariances.ndim if isinstance(covariances, Tensor) else np.ndim(covariances)
        kinds = {1: ("spherical", (k,)), 2: ("diagonal", (k, d)), 3: ("full", (k, d, d))}
        if ndim not in kinds:
            raise ValueError(
                f"covariances should have shape ({k},), ({k}, {d}) or ({k}, {d}, {d}), got {ndim} axes"
            )
        kind, shape = kinds[ndim]
        covariances = shaped(covariances, "covariances", *shape).to(means.device)
        if kind != "full":
            if not bool((covariances > 0).all()):
                raise ValueError(f"covariances should be positive, got {covariances.min().item()}")
            each = covariances if kind == "diagonal" else covariances[:, None].expand(k, d)
            covariances = torch.diag_embed(each)
        else:
            _refuse_covariances(covariances)
            covariances = (covariances + covariances.mT) / 2
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", covariances)
        object.__setattr__(self, "kind", kind)

    @property
    def states(self) -> int:
        """K."""
        return len(self.means)

    @property
    def columns(self) -> int:
        """Numbers seen in a step, d."""
        return self.means.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.means.device

    def log_density(self, x: Any) -> Float[Tensor, "*batch k"]:
        """``log N(x; μ_k, C_k)`` in nats, x (..., d), or (T,) where d = 1."""
        return by_steps(self, x)

    def refuse(self, x: Array) -> None:
        """Refuse numbers whose squares a double cannot hold.

        Raises:
            ValueError: naming the value.
        """
        refuse_overflow(torch.from_numpy(x))

    def stepwise(self, x: Array) -> tuple[Array, Array]:
        """``log b_k`` of (s, N, d) in the layout (s, K, N), less the largest, and that, (s, N)."""
        quadratics = self._quadratics
        logs, common = relative(quadratics(x))
        rough = common < -_OUTLIER / 2 - quadratics.half_log_det.min()
        if rough.any():
            step, lane = np.nonzero(rough)
            square = -2 * (logs[step, :, lane] + common[step, lane, None] + quadratics.half_log_det)
            far = square.min(1) > _OUTLIER
            # ½·1e8 and ½·1e8 + 1 differ by 1, but not to the last digit of a posterior.
            for _, here, top in from_nearest(self, x, logs, step[far], lane[far]):
                common[here] += top
        return logs, common

    @cached_property
    def _quadratics(self) -> Quadratics:
        return Quadratics.of(self.means.cpu().numpy(), self.covariances.cpu().numpy(), self.kind)

    def ratio(self, x: Tensor, reference: int, second: bool = False) -> tuple[Tensor, Tensor]:
        """``log b_k(x) − log b_r(x)`` with its error bound, both (N, K), by difference or by segment."""
        order = [reference, *[k for k in range(self.states) if k != reference]]
        ratio, error = (ratio_by_segment if second else ratio_by_difference)(self._all(reference), x)
        back = torch.tensor(order, device=x.device).argsort()
        return ratio[:, back], error[:, back]

    def _all(self, reference: int) -> Gaussians:
        order = [reference, *[k for k in range(self.states) if k != reference]]
        covariances = self.covariances[order]
        return Gaussians(
            means=self.means[order],
            covariances=covariances,
            factors=torch.linalg.cholesky(covariances),
            excess=covariances - covariances[0],
        )

    def draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """One step for each state, (N, d)."""
        noise = torch.randn(
            len(states), self.columns, dtype=torch.float64, device=self.device, generator=generator
        )
        return self.means[states] + torch.einsum(
            "nde,ne->nd", torch.linalg.cholesky(self.covariances)[states], noise
        )

    def trusted(self, means: Array, covariances: Array) -> GaussianEmission:
        """The same kind with covariances that need no look: variances (K, d), or (K, d, d) where they are full."""
        tensor = torch.from_numpy(covariances)
        other = object.__new__(GaussianEmission)
        object.__setattr__(other, "means", torch.from_numpy(means).to(self.device))
        full = tensor if self.kind == "full" else torch.diag_embed(tensor)
        object.__setattr__(other, "covariances", full.to(self.device))
        object.__setattr__(other, "kind", self.kind)
        return other

    def started(self, x: Array, generator: torch.Generator) -> GaussianEmission:
        """A random start for a fit: means at data drawn far apart, the covariance of all data for each."""
        scale = x.std(0).clip(min=np.finfo(np.float64).tiny)
        y = (x - x.mean(0)) / scale
        chosen = [int(torch.randint(len(y), (1,), generator=generator))]
        distance = np.full(len(y), np.inf)
        for _ in range(1, self.states):  # k-means++ (Arthur & Vassilvitskii 2007)
            distance = np.minimum(distance, np.square(y - y[chosen[-1]]).sum(1))
            total = np.cumsum(distance + 1e-12)
            drawn = float(torch.rand((), generator=generator, dtype=torch.float64)) * total[-1]
            chosen.append(min(int(np.searchsorted(total, drawn)), len(y) - 1))
        variance = torch.from_numpy(np.square(scale)).to(self.device).expand(self.states, -1)
        wanted = {"full": torch.diag_embed(variance), "diagonal": variance, "spherical": variance.mean(1)}
        return GaussianEmission(torch.from_numpy(x[chosen]).to(self.device), wanted[self.kind])

    def observe(self, model: Model, step: int, z: Any) -> None:
        """Add step t of a symbolic model."""
        d = self.columns
        mean = [select_exactly(z, self.means[:, i].tolist()) for i in range(d)]
        if d == 1:
            variances = [families.exact(v) for v in self.covariances[:, 0, 0].tolist()]
            sd = [sympy.sqrt(v) for v in variances]
            chosen = sd[0] if len(set(sd)) == 1 else families.select(z, *sd)
            model.observe(f"x[{step}]", families.Normal(mean[0], chosen))
        else:
            covariance = [
                [select_exactly(z, self.covariances[:, i, j].tolist()) for j in range(d)] for i in range(d)
            ]
            model.observe(f"x{step}", families.MvNormal(mean, covariance))


def _refuse_covariances(covariances: Tensor) -> None:
    for k, covariance in enumerate(covariances):
        name = f"covariances[{k}]"
        variance = covariance.diagonal()
        if not bool((variance > 0).all()):
            raise ValueError(f"{name} should have a positive diagonal, got {variance.min().item()} on it")
        scale = variance.sqrt()
        correlation = covariance / (scale[:, None] * scale)
        if bool(((correlation - correlation.T).abs() > 1e-12).any()):
            raise ValueError(f"{name} should be symmetric, got {covariance.tolist()}")
        least = torch.linalg.eigvalsh(correlation)[0].item()
        if least <= len(covariance) * _EPS:
            raise ValueError(f"{name} should be positive definite, got {covariance.tolist()}")

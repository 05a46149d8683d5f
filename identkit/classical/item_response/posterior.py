"""The posterior of a person's abilities given the answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.item_response.likelihood import gains

if TYPE_CHECKING:
    from identkit.classical.item_response.model import ItemResponse

_SWEEPS = 30


@dataclass(frozen=True, eq=False)
class ItemPosterior:
    """``p(θ | x) = p(x | θ) N(θ; 0, I) / p(x)`` of n persons: density, moments, draws and marginals.

    Args:
        model: whose items were answered.
        x: (n, J) the answers.
        log_evidence: (n,).
        mean: (n, K).
        covariance: (n, K, K).
    """

    model: ItemResponse
    x: Float[Tensor, "n j"]
    log_evidence: Float[Tensor, " n"]
    mean: Float[Tensor, "n k"]
    covariance: Float[Tensor, "n k k"]

    @property
    def variance(self) -> Float[Tensor, "n k"]:
        """Of each ability."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    @property
    def stddev(self) -> Float[Tensor, "n k"]:
        """Of each ability."""
        return self.variance.sqrt()

    def log_prob(self, theta: Tensor) -> Float[Tensor, "*values"]:
        """Evaluate the log density, in nats; θ of shape (n, K) or (samples, n, K)."""
        prior = -0.5 * theta.square().sum(-1) - 0.5 * theta.shape[-1] * math.log(2 * math.pi)
        return prior + self.model.log_likelihood(self.x, theta) - self.log_evidence

    def sample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*samples n k"]:
        """Draw by elliptical slice sampling, 30 steps from a normal law with the posterior's moments.

        Source: Murray, Adams & MacKay 2010, AISTATS (elliptical slice sampling).
        """
        size = math.prod(sample_shape)
        n, k = self.mean.shape

        def noise(*sizes: int) -> Tensor:
            drawn = torch.randn(*sizes, generator=generator, dtype=torch.float64)
            return drawn.to(self.mean)

        def uniform(count: int) -> Tensor:
            return torch.rand(count, generator=generator, dtype=torch.float64).to(self.mean)

        items, x = (self.model.slopes, self.model.intercepts, self.model.guesses), self.x.repeat(size, 1)
        factor = torch.linalg.cholesky(self.covariance)
        theta = (self.mean + (factor @ noise(size, n, k)[..., None])[..., 0]).reshape(-1, k)
        for _ in range(_SWEEPS):
            other, angle = noise(len(x), k), 2 * math.pi * uniform(len(x))
            floor = gains(*items, x, theta) + uniform(len(x)).log()
            low, high, left = angle - 2 * math.pi, angle.clone(), torch.arange(len(x), device=x.device)
            while len(left):
                turn = angle[left, None]
                tried = theta[left] * turn.cos() + other[left] * turn.sin()
                fine = gains(*items, x[left], tried) > floor[left]
                # The bracket shrinks to angle 0, the place itself, which is always high enough.
                wide = high[left] - low[left] >= 1e-12
                theta[left[fine]] = tried[fine]
                left = left[~fine & wide]
                before = angle[left] < 0
                low[left] = torch.where(before, angle[left], low[left])
                high[left] = torch.where(before, high[left], angle[left])
                angle[left] = low[left] + (high[left] - low[left]) * uniform(len(left))
        return theta.reshape(*sample_shape, n, k)

    def marginal(self, index: int) -> ItemMarginal:
        """The law of one ability by itself, 0-based.

        Raises:
            IndexError: no such ability.
        """
        if not 0 <= index < self.mean.shape[1]:
            raise IndexError(f"index should be in 0..{self.mean.shape[1] - 1}, got {index}")
        return ItemMarginal(self, index)


@dataclass(frozen=True, eq=False)
class ItemMarginal:
    """``p(θ_i | x)``: the others integrated out."""

    joint: ItemPosterior
    index: int

    @property
    def mean(self) -> Float[Tensor, " n"]:
        """Of each person."""
        return self.joint.mean[:, self.index]

    @property
    def variance(self) -> Float[Tensor, " n"]:
        """Of each person."""
        return self.joint.variance[:, self.index]

    @property
    def stddev(self) -> Float[Tensor, " n"]:
        """Of each person."""
        return self.variance.sqrt()

    def sample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*samples n"]:
        """Draw abilities, as `ItemPosterior.sample` does."""
        return self.joint.sample(sample_shape, generator)[..., self.index]

    def log_prob(self, values: Tensor) -> Float[Tensor, "m n"]:
        """Evaluate ``log N(v; 0, 1) + log p(x | θ_i = v) − log p(x)`` at values (m,), in nats."""
        if self.joint.mean.shape[1] == 1:
            return self.joint.log_prob(
                values.to(self.joint.mean)[:, None, None].expand(-1, len(self.joint.x), 1)
            )
        given = [self.joint.model.given(self.index, float(v)) for v in values]
        heights = torch.stack([one.log_evidence(self.joint.x) for one in given])
        prior = -0.5 * values.square() - 0.5 * math.log(2 * math.pi)
        return prior.to(heights)[:, None] + heights - self.joint.log_evidence

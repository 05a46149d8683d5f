"""Approximate posteriors as the tensors that say them, so that an encoder can give them and a gradient can move them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor


class GaussianPosterior(NamedTuple):
    """``q(z | x) = N(mean, diag(e^{2·log_scale}))``, one for each row of each member."""

    mean: Float[Tensor, "*e n k"]
    log_scale: Float[Tensor, "*e n k"]

    def law(self) -> td.Independent:
        """As a torch distribution, event shape (K,)."""
        return td.Independent(td.Normal(self.mean, self.log_scale.exp(), validate_args=False), 1)

    def draw(self, samples: int, generator: torch.Generator | None) -> Float[Tensor, "s *e n k"]:
        """``mean + scale·ε``, differentiable in both."""
        noise = torch.randn(
            (samples, *self.mean.shape),
            generator=generator,
            dtype=self.mean.dtype,
            device=self.mean.device,
        )
        return torch.addcmul(self.mean, self.log_scale.exp(), noise)

    def log_prob(self, z: Float[Tensor, "*s n k"]) -> Float[Tensor, "*s n"]:
        """``log q(z | x)`` in nats."""
        return normal_log_prob(z, self.mean, self.log_scale)

    def latent_mean(self) -> Float[Tensor, "*e n k"]:
        """``E_q z``."""
        return self.mean

    def pairwise(self, z: Float[Tensor, "e m k"]) -> Float[Tensor, "e m n"]:
        """``log q(z_i | x_j)`` of every latent under every row's posterior, by two matrix products."""
        weight = torch.exp(-2 * self.log_scale)
        # About the posteriors' centre, so that the squares do not cancel.
        centre = self.mean.mean(-2, keepdim=True)
        mean, z = self.mean - centre, z - centre
        own = (weight * mean.square() + 2 * self.log_scale + math.log(2 * math.pi)).sum(-1)
        return (z @ (weight * mean).mT) - 0.5 * (z.square() @ weight.mT + own.unsqueeze(-2))

    def kl(self) -> Float[Tensor, "*e n k"]:
        """``KL(q(z_k | x) ‖ N(0, 1))`` of each latent, in nats; they add up."""
        return 0.5 * (self.mean.square() + torch.expm1(2 * self.log_scale)) - self.log_scale


def normal_log_prob(
    z: Float[Tensor, "*s k"], mean: Float[Tensor, "*t k"], log_scale: Float[Tensor, "*t k"]
) -> Float[Tensor, "*u"]:
    """``log N(z; mean, diag(e^{2·log_scale}))``, summed over the last axis."""
    squares = ((z - mean) * torch.exp(-log_scale)).square()
    return -(0.5 * squares + log_scale + 0.5 * math.log(2 * math.pi)).sum(-1)

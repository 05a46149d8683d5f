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


class MixturePosterior(NamedTuple):
    """``q(y, z | x) = q(y | x) N(z; mean_y, diag(e^{2·log_scale_y}))``, one for each row of each member."""

    logits: Float[Tensor, "*e n c"]
    """``log q(y | x)`` up to a constant of the row."""
    mean: Float[Tensor, "*e n c k"]
    log_scale: Float[Tensor, "*e n c k"]

    @property
    def log_weight(self) -> Float[Tensor, "*e n c"]:
        """``log q(y | x)``."""
        return self.logits.log_softmax(-1)

    def law(self) -> td.MixtureSameFamily:
        """Of z, with y summed out; event shape (K,)."""
        states = td.Categorical(logits=self.logits, validate_args=False)
        normals = td.Independent(td.Normal(self.mean, self.log_scale.exp(), validate_args=False), 1)
        return td.MixtureSameFamily(states, normals, validate_args=False)

    def draw_each(self, samples: int, generator: torch.Generator | None) -> Float[Tensor, "s *e n c k"]:
        """One z for every component, differentiable."""
        return GaussianPosterior(self.mean, self.log_scale).draw(samples, generator)

    def draw(self, samples: int, generator: torch.Generator | None) -> Float[Tensor, "s *e n k"]:
        """z from ``q(z | x)``: a component first. The choice has no gradient; `Terms` come from sums over components."""
        chances = self.logits.detach().softmax(-1).flatten(end_dim=-2)
        chosen = torch.multinomial(chances, samples, replacement=True, generator=generator)
        index = chosen.mT.reshape(samples, *self.logits.shape[:-1], 1, 1)
        by_component = self.draw_each(samples, generator)
        return by_component.gather(-2, index.expand(*index.shape[:-1], by_component.shape[-1])).squeeze(-2)

    def log_prob(self, z: Float[Tensor, "*s n k"]) -> Float[Tensor, "*s n"]:
        """``log q(z | x)`` in nats, y summed out."""
        by_component = normal_log_prob(z.unsqueeze(-2), self.mean, self.log_scale)
        return (self.log_weight + by_component).logsumexp(-1)

    def latent_mean(self) -> Float[Tensor, "*e n k"]:
        """``E_q z``."""
        return (self.log_weight.exp().unsqueeze(-1) * self.mean).sum(-2)

    def pairwise(self, z: Float[Tensor, "e m k"]) -> Float[Tensor, "e m n"]:
        """``log q(z_i | x_j)`` of every latent under every row's posterior."""
        n, count = self.logits.shape[-2:]
        flat = GaussianPosterior(self.mean.flatten(-3, -2), self.log_scale.flatten(-3, -2))
        by_component = flat.pairwise(z).unflatten(-1, (n, count))
        return (by_component + self.log_weight.unsqueeze(-3)).logsumexp(-1)

    def state_kl(self) -> Float[Tensor, "*e n"]:
        """``KL(q(y | x) ‖ uniform)``, in nats."""
        log_weight = self.log_weight
        return (log_weight.exp() * (log_weight + math.log(log_weight.shape[-1]))).sum(-1)

    def latent_kl(
        self, mean: Float[Tensor, "*e c k"], log_scale: Float[Tensor, "*e c k"]
    ) -> Float[Tensor, "*e n k"]:
        """``E_q(y|x) KL(q(z_k | x, y) ‖ N(mean_yk, e^{2·log_scale_yk}))`` of each latent, in nats; they add up."""
        location, spread = mean.unsqueeze(-3), log_scale.unsqueeze(-3)
        relative = GaussianPosterior((self.mean - location) * torch.exp(-spread), self.log_scale - spread)
        return (self.log_weight.exp().unsqueeze(-1) * relative.kl()).sum(-2)

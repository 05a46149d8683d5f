"""Autoencoders whose latents are standard normal and whose approximate posterior is Gaussian, whatever they decode."""

from __future__ import annotations

import torch
import torch.distributions as td
from jaxtyping import Float, Shaped
from torch import Tensor

from identkit.lidvae.encoders import normal_of
from identkit.lidvae.models.autoencoder import Autoencoder, Terms
from identkit.lidvae.models.decoded import noise
from identkit.lidvae.posteriors import GaussianPosterior, normal_log_prob
from identkit.lidvae.reading import AsItIs, Reading


class NormalLatent(Autoencoder):
    """``z ~ N(0, I_K)``, ``q(z | x)`` Gaussian with independent coordinates; `decoded` says what x is."""

    reading: Reading | AsItIs

    @property
    def prior(self) -> td.Independent:
        """N(0, I_K)."""
        zeros = torch.zeros(self.latents, dtype=self.dtype, device=self.device)
        return td.Independent(td.Normal(zeros, torch.ones_like(zeros)), 1)

    def infer(self, x: Shaped[Tensor, "e n d"]) -> GaussianPosterior:
        """The encoder's mean and log scale."""
        found = self.encoder(self.reading(x))
        law = found if isinstance(found, td.Normal) else normal_of(found)
        if law.batch_shape[-1] != self.latents:
            raise ValueError(
                f"encoder should give {self.latents} means and scales a row, got {law.batch_shape[-1]}"
            )
        return GaussianPosterior(law.loc, law.scale.log())

    def terms(
        self,
        x: Shaped[Tensor, "e n d"],
        q: GaussianPosterior,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """KL in closed form, the likelihood by S draws."""
        return Terms(self.decoded(x, q.draw(samples, generator)).mean(0), q.kl())

    def log_weights(
        self,
        x: Shaped[Tensor, "e n d"],
        q: GaussianPosterior,
        samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "s e n"]:
        """``log p(x | z) + log p(z) − log q(z | x)``."""
        z = q.draw(samples, generator)
        zero = torch.zeros_like(q.mean)
        return self.decoded(x, z) + normal_log_prob(z, zero, zero) - q.log_prob(z)

    def _prior_draws(self, n: int, generator: torch.Generator | None) -> Float[Tensor, "e n k"]:
        return noise((self.members, n, self.latents), generator, self.dtype, self.device)

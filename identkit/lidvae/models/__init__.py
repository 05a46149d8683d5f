"""Latent-variable models that are trained: those whose decoder cannot lose a latent, and those that are free to."""

from __future__ import annotations

from collections.abc import Mapping

from identkit.lidvae.models.autoencoder import Autoencoder, Terms
from identkit.lidvae.models.mixture import GMVAE, LIDMVAE
from identkit.lidvae.models.plain import LIDVAE, VAE
from identkit.lidvae.models.sequence import LIDSVAE, SequenceVAE

_KINDS = (LIDVAE, VAE, LIDMVAE, GMVAE, LIDSVAE, SequenceVAE)

MODELS: Mapping[str, type[Autoencoder]] = {model.name: model for model in _KINDS}
"""By the name that the command line and a run's folder give them."""

__all__ = ["GMVAE", "LIDMVAE", "LIDSVAE", "LIDVAE", "MODELS", "VAE", "Autoencoder", "SequenceVAE", "Terms"]

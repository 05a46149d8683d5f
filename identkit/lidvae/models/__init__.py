"""Latent-variable models that are trained: those whose decoder cannot lose a latent, and those that are free to."""

from __future__ import annotations

from collections.abc import Mapping

from identkit.lidvae.models.autoencoder import Autoencoder, Terms
from identkit.lidvae.models.mixture import GMVAE, LIDMVAE
from identkit.lidvae.models.plain import LIDVAE, VAE

MODELS: Mapping[str, type[Autoencoder]] = {model.name: model for model in (LIDVAE, VAE, LIDMVAE, GMVAE)}
"""By the name that the command line and a run's folder give them."""

__all__ = ["GMVAE", "LIDMVAE", "LIDVAE", "MODELS", "VAE", "Autoencoder", "Terms"]

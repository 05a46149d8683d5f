"""Latent-variable models that are trained: those whose decoder cannot lose a latent, and those that are free to."""

from __future__ import annotations

from identkit.lidvae.models.autoencoder import Autoencoder, Terms
from identkit.lidvae.models.plain import LIDVAE, VAE

__all__ = ["LIDVAE", "VAE", "Autoencoder", "Terms"]

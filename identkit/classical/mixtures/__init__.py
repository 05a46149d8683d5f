"""Finite mixtures: what all have in common, latent classes, and exponential families."""

from __future__ import annotations

from identkit.classical.mixtures.family_mixture import FamilyMixture
from identkit.classical.mixtures.finite import FiniteMixture
from identkit.classical.mixtures.latent_class import LatentClass

__all__ = ["FamilyMixture", "FiniteMixture", "LatentClass"]

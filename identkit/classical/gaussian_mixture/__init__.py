"""The Gaussian mixture, with responsibilities right where components all but agree."""

from __future__ import annotations

from identkit.classical.gaussian_mixture.model import GaussianMixture

__all__ = ["GaussianMixture"]

"""What a family of exact models hands to the laws in test_exact_laws.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.distributions import Distribution


@dataclass(frozen=True, kw_only=True)
class Example:
    """A small model, data for it, and the same family where the likelihood ignores the latents.

    Attributes:
        model: parameters in general position.
        x: data for it, few rows.
        silent: a model of the family with p(x | z) constant in z, or None where there is none.
        silent_x: data for the silent model, where it cannot have made x; None for x.
        abuses: constructor calls that must be refused: a callable and a phrase of its message.
        single: the tolerance of float32 results relative to float64, or None if the family takes no floats.
    """

    model: Any
    x: Any
    silent: Any = None
    silent_x: Any = None
    abuses: tuple[tuple[Any, str], ...] = field(default=())
    single: float | None = 1e-4


def log_prob(law: Any, z: Tensor) -> Tensor:
    """A law's log density at latents (..., k): of the whole vector, or of a single latent without its axis."""
    scalar = isinstance(law, Distribution) and not law.event_shape
    return law.log_prob(z[..., 0] if scalar else z)

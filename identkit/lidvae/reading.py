"""What an encoder reads: rows brought to order 1, and the encoder of a given name."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from identkit.lidvae.encoders import ResidualNetwork
from identkit.lidvae.likelihoods import Categorical, Likelihood
from identkit.lidvae.mlp import MLP
from identkit.lidvae.stacked import stacked

_LEAST = 1e-6  # spread of a column, below which it is not divided by


class Reading(nn.Module):
    """Rows as a network takes them: centred, of unit spread where they are measurements, one-hot where they are states.

    Gaussian columns are standardised by the training rows, Poisson counts after ``log(1 + x)``, grey values centred.

    Args:
        members: E.
        likelihood: of the rows.
    """

    location: Float[Tensor, "e d"]
    spread: Float[Tensor, "e d"]

    def __init__(self, members: int, likelihood: Likelihood) -> None:
        super().__init__()
        self.kind = likelihood.name
        self.categories = likelihood.categories if isinstance(likelihood, Categorical) else None
        self.columns = likelihood.columns * (self.categories or 1)
        self.register_buffer("location", torch.zeros(members, self.columns))
        self.register_buffer("spread", torch.ones(members, self.columns))

    def forward(self, x: Shaped[Tensor, "e n d"]) -> Float[Tensor, "e n c"]:
        """Rows to be read."""
        return (self._raw(x) - self.location.unsqueeze(1)) / self.spread.unsqueeze(1)

    @torch.no_grad()
    def start_(self, x: Shaped[Tensor, "n d"]) -> None:
        """Take location and spread from the training rows."""
        raw = self._raw(x)
        self.location.copy_(raw.mean(0).expand_as(self.location))
        if self.kind in ("gaussian", "poisson"):
            spread = raw.std(0)
            spread = torch.where(spread > _LEAST * raw.abs().amax(0), spread, 1.0)
            self.spread.copy_(spread.expand_as(self.spread))

    def _raw(self, x: Shaped[Tensor, "*e n d"]) -> Float[Tensor, "*e n c"]:
        if self.categories is not None:
            return functional.one_hot(x, self.categories).flatten(-2).to(self.location.dtype)
        return torch.log1p(x) if self.kind == "poisson" else x


class AsItIs(nn.Module):
    """Rows unchanged, for an encoder of the user's own."""

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

    def start_(self, x: Tensor) -> None:
        """Nothing to take from the data."""


def encoder_of(
    encoder: str | nn.Module,
    members: int,
    likelihood: Likelihood,
    outputs: int,
    hidden: Sequence[int],
    shape: tuple[int, int, int] | None,
    *,
    generator: torch.Generator,
) -> tuple[Reading | AsItIs, nn.Module]:
    """Make the encoder of that name, or take in a user's own, and what brings rows into its form.

    Args:
        outputs: numbers for each row, which the model reads as its approximate posterior.

    Raises:
        ValueError: another name, or a shape that does not fit the columns.
    """
    if isinstance(encoder, nn.Module):
        return AsItIs(), stacked(encoder, members, generator=generator)
    reading = Reading(members, likelihood)
    if encoder == "mlp":
        return reading, MLP(members, reading.columns, outputs, hidden, generator=generator)
    if encoder != "residual":
        raise ValueError(f"encoder should be 'mlp', 'residual' or a module, got {encoder!r}")
    if shape is None or len(shape) != 3 or math.prod(shape) != reading.columns:
        raise ValueError(
            f"shape should be the channels, height and width of {reading.columns} columns for encoder='residual', got "
            f"{shape}"
        )
    return reading, ResidualNetwork(members, shape, outputs, hidden, generator=generator)

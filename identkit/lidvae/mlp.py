"""The ordinary network that everything is compared with: affine layers and one activation, for E members."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from identkit.lidvae.datasets.support import widths
from identkit.lidvae.members import Linear


class MLP(nn.Module):
    """A multilayer perceptron; as a decoder it promises nothing about its latents.

    Args:
        members: E.
        inputs, outputs: columns.
        hidden: units of each hidden layer.
        activation: applied after every layer but the last.
        generator: of the initial weights.
    """

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        *,
        activation: Callable[[Tensor], Tensor] = functional.silu,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = (inputs, *widths(hidden, "hidden"), outputs)
        self.layers = nn.ModuleList(
            Linear(members, before, after, generator=generator) for before, after in itertools.pairwise(sizes)
        )
        self.activation = activation

    def forward(self, x: Float[Tensor, "*e n i"]) -> Float[Tensor, "*e n o"]:
        """x (E, n, inputs), or (n, inputs) where E = 1."""
        *inner, last = self.layers
        rows = x
        for layer in inner:
            rows = self.activation(layer(rows))
        return last(rows)

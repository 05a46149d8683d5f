"""What encoders are made of besides perceptrons: convolutions for images, and numbers read as a normal law."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from identkit.lidvae.members import Linear, in_members, like_rows, uniform

_LARGEST = 10.0  # of |log scale|: beyond it exp and the densities leave float32


class ResidualNetwork(nn.Module):
    """A residual network of convolutions for images, without normalisation, so that each row stands for itself.

    Each stage halves height and width by a strided convolution and adds one residual block
    ``h + C₂ silu(C₁ silu(h))``, whose C₂ starts at 0 (Zhang, Dauphin & Ma 2019, Fixup). Members are the groups of a
    grouped convolution.

    Args:
        members: E.
        shape: of an image: channels, height, width; a row of x is an image flattened in this order.
        outputs: columns.
        channels: of each stage.
        generator: of the initial weights.
    """

    def __init__(
        self,
        members: int,
        shape: tuple[int, int, int],
        outputs: int,
        channels: Sequence[int] = (32, 64),
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape = shape
        before, height, width = shape
        self.halves, self.inner, self.outer = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for after in channels:
            self.halves.append(Convolution(members, before, after, stride=2, generator=generator))
            self.inner.append(Convolution(members, after, after, generator=generator))
            closed = Convolution(members, after, after, generator=generator)
            nn.init.zeros_(closed.weight)
            self.outer.append(closed)
            before, height, width = after, (height + 1) // 2, (width + 1) // 2
        self.head = Linear(members, before * height * width, outputs, generator=generator)

    def forward(self, x: Float[Tensor, "*e n d"]) -> Float[Tensor, "*e n o"]:
        """x (E, n, channels · height · width), or without the first axis where E = 1."""
        members = len(self.head.weight)
        rows = in_members(x, members, math.prod(self.shape))
        count = rows.shape[1]
        h = rows.unflatten(2, self.shape).transpose(0, 1).flatten(1, 2)  # (n, E·channels, height, width)
        for half, inner, outer in zip(self.halves, self.inner, self.outer, strict=True):
            h = half(h)
            h = h + outer(functional.silu(inner(functional.silu(h))))
        h = functional.silu(h).reshape(count, members, -1).transpose(0, 1)
        return like_rows(self.head(h), x)


class Convolution(nn.Module):
    """A 3 × 3 convolution of each member on its own channels of x (n, E·inputs, height, width)."""

    def __init__(
        self, members: int, inputs: int, outputs: int, *, stride: int = 1, generator: torch.Generator
    ) -> None:
        super().__init__()
        width = 1 / math.sqrt(9 * inputs)
        self.weight = nn.Parameter(uniform((members, outputs, inputs, 3, 3), width, generator))
        self.bias = nn.Parameter(torch.zeros(members, outputs))
        self.stride = stride

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o g v"]:
        """Members are groups: none sees another's channels."""
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        return functional.conv2d(x, weight, bias, stride=self.stride, padding=1, groups=len(self.weight))


def normal_of(values: Float[Tensor, "*n k2"]) -> Normal:
    """The normal law whose means are the first half of the columns and whose log scales are the second."""
    mean, log_scale = values.chunk(2, dim=-1)
    return Normal(mean, log_scale.clamp(-_LARGEST, _LARGEST).exp(), validate_args=False)

"""Where the components of a mixture lie: apart by construction, or wherever a linear layer puts them."""

from __future__ import annotations

import abc
import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae.decoders import Value
from identkit.lidvae.members import Linear, per_member
from identkit.lidvae.monotone import MonotoneGradient

_ROOM = 1 + 1e-5  # float32 moves a distance by less, so that the separation asked for is kept
_LEAST_ROWS = 16  # of the map that places the components
_SLOPE = 1.25  # times the separation: how the map starts, so that gaps can shrink as well as grow


class Components(NamedTuple):
    """``z | y ~ N(mean_y, diag(e^{2·log_scale_y}))`` of each member."""

    mean: Float[Tensor, "e c k"]
    log_scale: Float[Tensor, "e c k"]


class Placement(nn.Module, abc.ABC):
    """What gives the components' locations and scales."""

    @abc.abstractmethod
    def forward(self) -> Components:
        """Of each member."""

    @abc.abstractmethod
    def start_(self, *, generator: torch.Generator) -> None:
        """Begin anew."""


class Separated(Placement):
    """Locations at least δ apart whatever the weights, scales 1: ``μ_y = T(a_y)`` with T a Brenier map.

    The anchors a are fixed, at least 1 apart, and T is the gradient of a δ-strongly convex potential: hence
    ``‖μ_y − μ_y′‖ ≥ δ‖a_y − a_y′‖ ≥ δ``. In one dimension that is an ordered sequence with gaps δ or more; in several
    it needs no order, and keeps the anchors' round shape to begin with. The scales are fixed, so that δ is in standard
    deviations of a component: learned ones could grow until components that lie apart overlap all the same.

    Args:
        members: E.
        components: C.
        latents: K.
        separation: δ > 0, one for all members or one for each.
        generator: of the initial weights.
    """

    anchors: Float[Tensor, "e c k"]

    def __init__(
        self, members: int, components: int, latents: int, separation: Value, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors(components, latents).expand(members, -1, -1).clone())
        self.map = MonotoneGradient(
            members,
            latents,
            max(_LEAST_ROWS, 2 * components),
            alpha=_ROOM * per_member(separation, members, "separation"),
            generator=generator,
        )
        self.start_(generator=generator)

    def forward(self) -> Components:
        """``T(a)``, and scales 1."""
        mean = self.map(self.anchors)
        return Components(mean, torch.zeros_like(mean))

    @torch.no_grad()
    def start_(self, *, generator: torch.Generator) -> None:
        """Begin with the anchors' own shape, a quarter larger than it has to be, about 0."""
        self.map.spread_(self.anchors, generator=generator)
        self.map.unit_slope_(self.anchors, _SLOPE * self.map.alpha, generator=generator)
        self.map.offset.sub_(self.map(self.anchors).mean(1))


class PriorLayer(Placement):
    """A linear layer from the one-hot component to mean and log scale, as public implementations have it.

    Torch's initial weights are within ``±1/√C``, so components start close together, and nothing keeps them apart.

    Args:
        members: E.
        components: C.
        latents: K.
        generator: of the initial weights.
    """

    def __init__(self, members: int, components: int, latents: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = Linear(members, components, 2 * latents, generator=generator)

    def forward(self) -> Components:
        """The layer's columns plus its bias."""
        values = self.layer.weight.mT + self.layer.bias.unsqueeze(1)
        return Components(*values.chunk(2, dim=-1))

    def start_(self, *, generator: torch.Generator) -> None:
        """Nothing but what torch begins with."""


def anchors(components: int, latents: int) -> Float[Tensor, "c k"]:
    """C points in R^K, at least 1 apart and about as round as K allows.

    A line for K = 1; for K > 2 the axes both ways while there are enough, ``±e_k/√2``; else a regular polygon of side 1
    in the first two coordinates.

    >>> anchors(4, 2)
    tensor([[ 0.7071,  0.0000],
            [ 0.0000,  0.7071],
            [-0.7071,  0.0000],
            [ 0.0000, -0.7071]])
    """
    points = torch.zeros(components, latents, dtype=torch.float64)
    if latents == 1:
        points[:, 0] = torch.arange(components) - (components - 1) / 2
    elif latents > 2 and components <= 2 * latents:
        for number in range(components):
            points[number, number % latents] = math.sqrt(0.5) * (1 if number < latents else -1)
    else:
        radius = 1 / (2 * math.sin(math.pi / components))
        turn = 2 * math.pi * torch.arange(components, dtype=torch.float64) / components
        points[:, 0], points[:, 1] = radius * turn.cos(), radius * turn.sin()
    return (points.round(decimals=15) + 0.0).to(torch.get_default_dtype())

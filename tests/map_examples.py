"""Brenier maps for tests, fresh and trained on what they cannot fit, in float64."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from identkit.lidvae.brenier import BrenierMap
from identkit.lidvae.icnn import ICNN
from identkit.lidvae.logsumexp import LogSumExp
from identkit.lidvae.monotone import MonotoneGradient

Module = TypeVar("Module", bound=nn.Module)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def built(name: str, dimension: int = 2, members: int = 1, alpha: float = 0.2) -> BrenierMap:
    """A map of each kind, started as a decoder starts it."""
    drawn = generator(1)
    g: BrenierMap
    if name.startswith("monotone"):
        steps = int(name.removeprefix("monotone"))
        g = MonotoneGradient(members, dimension, 24, alpha=alpha, steps=steps, generator=drawn)
    elif name.startswith("logsumexp"):
        heads = int(name.removeprefix("logsumexp"))
        g = LogSumExp(members, dimension, 24, alpha=alpha, heads=heads, generator=drawn)
    else:
        layers = int(name.removeprefix("icnn"))
        g = ICNN(members, dimension, (16, 12, 10)[:layers], alpha=alpha, generator=drawn)
    g = g.double()
    x = normal(members, 256, dimension, seed=2)
    g.spread_(x, generator=drawn)
    g.unit_slope_(x, 1.0, generator=drawn)
    return g


NAMES = ("monotone2", "monotone3", "monotone4", "icnn1", "icnn2", "icnn3", "logsumexp1", "logsumexp4")


def trained(g: Module, inputs: int, outputs: int, members: int = 1, steps: int = 300) -> Module:
    """The map after fitting steps, turns and folds, so that its weights end up far from where they started."""
    x = normal(members, 256, inputs, seed=3)
    turned = normal(inputs, outputs, seed=4)
    y = 3 * torch.tanh(4 * x @ turned) + torch.sin(3 * x @ turned).roll(1, dims=2) + 1
    optimiser = torch.optim.Adam(g.parameters(), lr=2e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (g(x) - y).square().mean((1, 2)).sum().backward()
        optimiser.step()
    return g

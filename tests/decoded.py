"""Declared models as a numeric check sees them: a prior, a decoder and a likelihood, or a log density, without symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor

from identkit.model.compiled import compiled
from identkit.model.compiled.arithmetic import TORCH
from identkit.model.model import Model
from identkit.model.tape import Tape

_BY_NAME: dict[str, Callable[..., td.Distribution]] = {
    "Normal": td.Normal,
    "Uniform": td.Uniform,
    "Beta": td.Beta,
    "Gamma": td.Gamma,
    "Exponential": td.Exponential,
    "Poisson": td.Poisson,
    "Bernoulli": td.Bernoulli,
    "Geometric": td.Geometric,
    "Binomial": td.Binomial,
    "Categorical": lambda *p: td.Categorical(torch.stack(p, -1)),
}


@dataclass(frozen=True)
class Decoded:
    """What `identkit.check` takes of a model without symbols."""

    prior: td.Distribution
    decoder: Callable[[Tensor], list[Tensor]]
    likelihood: Callable[[list[Tensor]], td.Distribution]
    density: Callable[[Tensor, Tensor], Tensor]
    draw: Callable[[int, int], Tensor]
    """(n, seed) → data (n, d)."""


def decoded(model: Model, numbers: dict[str, Any]) -> Decoded | None:
    """The model's decoder, or None where its latents or its observations are not all of one simple family."""
    machine = compiled(model, numbers)
    fixed = machine.model
    inside, outside = (
        {type(s.family).__name__ for s in part} for part in (fixed.latents, fixed.observations)
    )
    if len(inside) != 1 or len(outside) != 1 or not inside | outside <= _BY_NAME.keys():
        return None
    arguments = [[e for e in s.family.arguments] for s in fixed.latents]
    if any(e.free_symbols for each in arguments for e in each) or len({len(a) for a in arguments}) != 1:
        return None
    columns = [
        torch.tensor([float(e) for e in column], dtype=torch.float64)
        for column in zip(*arguments, strict=True)
    ]
    (of_latents,), (of_data,) = inside, outside
    tapes = [Tape(list(s.family.arguments)) for s in fixed.observations]
    first = 1 if of_latents == "Categorical" else 0

    def decoder(z: Tensor) -> list[Tensor]:
        z = z.double()
        values = {symbol: z[:, j] + first for j, symbol in enumerate(fixed.latent_symbols)}
        found = [tape.run(values, TORCH) for tape in tapes]
        return [
            torch.stack([torch.as_tensor(entry).double().expand(len(z)) for entry in column], 1)
            for column in zip(*found, strict=True)
        ]

    def draw(n: int, seed: int) -> Tensor:
        return machine.sample(n, torch.Generator().manual_seed(seed))[0]

    return Decoded(
        _BY_NAME[of_latents](*columns),
        decoder,
        lambda f: _BY_NAME[of_data](*f),
        lambda x, z: machine.log_likelihood(x, z.double()),
        draw,
    )

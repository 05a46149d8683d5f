"""What does a decoder that cannot collapse cost? Training steps beside an ordinary decoder, double backward and a loop.

    OMP_NUM_THREADS=1 python -m experiments.benchmarks.maps

A step is encoder, sampled latent, decoder, ELBO of a normal likelihood, backward and fused Adam; in float32 on one thread,
timed in turns by the processor's own time, since other jobs load the machine. The ordinary decoder has as many
parameters, up to one hidden unit (or twice as many, where that is said), and the encoder is its mirror image.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.timing import Race, run
from experiments.provenance import provenance
from identkit.lidvae.decoders import BrenierDecoder
from identkit.lidvae.encoders import normal_of
from identkit.lidvae.members import member
from identkit.lidvae.mlp import MLP

RESULT = Path(__file__).parents[1] / "results" / "maps_benchmark.json"
SIGMA = 0.5
MEMBERS = 32


class DoubleBackward(nn.Module):
    """The same decoder with each gradient taken by autograd, as public code has it."""

    def __init__(self, decoder: BrenierDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        inner = _by_autograd(self.decoder.g1, z)
        return _by_autograd(self.decoder.g2, self.decoder.beta(inner))


def _by_autograd(g: Any, x: Tensor) -> Tensor:
    x = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad(g.potential(x).sum(), x, create_graph=True)[0]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def brenier(members: int, latents: int, data: int, kind: str, hidden: tuple[int, int]) -> BrenierDecoder:
    decoder = BrenierDecoder(members, latents, data, map=kind, hidden=hidden, generator=generator())
    decoder.start_(generator=generator())
    return decoder


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def width_for(wanted: int, latents: int, data: int) -> int:
    """Of two hidden layers of an MLP, such that its parameters come nearest."""
    return min(range(8, 2048), key=lambda h: abs(h * h + h * (latents + data + 2) + data - wanted))


def step(
    members: int, latents: int, data: int, batch: int, decoder: nn.Module, encoder: nn.Module
) -> Callable[[], None]:
    """One training step as a function."""
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3, fused=True)
    x = torch.randn(members, batch, data, generator=generator())

    def once() -> None:
        law = normal_of(encoder(x))
        z = law.mean + law.stddev * torch.randn(members, batch, latents)
        misfit = (x - decoder(z)).square().sum(2) / (2 * SIGMA**2)
        kl = (law.mean.square() + law.variance - 1).sum(2) / 2 - law.stddev.log().sum(2)
        loss = (misfit + kl).mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return once


def size(latents: int, data: int, kind: str, hidden: tuple[int, int], times: float = 1.0) -> Race:
    """One map against the MLP with so many times its parameters and, for an ICNN, against double backward."""
    decoder = brenier(1, latents, data, kind, hidden)
    width = width_for(round(times * parameters(decoder)), latents, data)
    ordinary = MLP(1, latents, data, (width, width), generator=generator())

    def of(any_decoder: nn.Module) -> Callable[[], None]:
        encoder = MLP(1, data, 2 * latents, (width, width), generator=generator())
        return step(1, latents, data, 256, any_decoder, encoder)

    peers = {"MLP": of(ordinary)}
    if kind == "icnn":  # the other map's potential is an integral, which nobody would train through
        peers["double backward"] = of(DoubleBackward(brenier(1, latents, data, kind, hidden)))
    return Race(
        name=f"{kind} {data}/{latents}, {parameters(decoder):,} parameters (MLP {parameters(ordinary):,}), batch 256",
        ours=of(decoder),
        peers=peers,
        least={
            "MLP": {"icnn": 1 / 1.9, "monotone": 1 / 1.2}[kind] if data > 2 else 0.0,
            "double backward": 1.2 if data == 2 else 0.0,
        },
        repeats=31 if data > 2 else 101,
        clock=time.process_time,
    )


def together(kind: str) -> Race:
    """32 members at once against a loop over them, batch 64, h 32."""
    decoder = brenier(MEMBERS, 2, 2, kind, (32, 32))
    encoder = MLP(MEMBERS, 2, 4, (32, 32), generator=generator())
    alone = [step(1, 2, 2, 64, member(decoder, i), member(encoder, i)) for i in range(MEMBERS)]
    return Race(
        name=f"{kind}, {MEMBERS} members, batch 64, h 32",
        ours=step(MEMBERS, 2, 2, 64, decoder, encoder),
        peers={"loop": lambda: [once() for once in alone]},
        least={"loop": 6.0},
        repeats=15,
        clock=time.process_time,
    )


def main() -> int:
    """Run all, print a line each, write the result."""
    load = os.getloadavg()[0]
    races = [
        size(2, 2, "icnn", (64, 64)),
        size(2, 2, "monotone", (64, 64)),
        size(64, 784, "icnn", (256, 560)),
        size(64, 784, "monotone", (512, 1500)),
        size(64, 784, "monotone", (256, 760), times=2.0),  # each of its weights works twice
        together("icnn"),
        together("monotone"),
    ]
    entries = []
    for race in races:
        entry = run(race)
        entries.append(entry)
        own = entry["seconds"]["identkit"]
        ratios = ", ".join(f"{ratio:.2f} x {peer}" for peer, ratio in entry["faster_than"].items())
        print(f"{entry['name']}: {own * 1e3:.2f} ms a step; speed {ratios}", flush=True)
    result = {
        **provenance("OMP_NUM_THREADS=1 python -m experiments.benchmarks.maps"),
        "load_before": load,
        "races": entries,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

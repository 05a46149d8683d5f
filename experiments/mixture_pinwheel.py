"""Five arms, five components: which models' discrete latent finds the arms, and what does the work.

    python -m experiments.mixture_pinwheel

LIDMVAE keeps its components apart by construction and decodes them by Brenier maps; GMVAE places them by a linear layer, as
public code does, and decodes by a perceptron. Encoder, optimiser and schedule are the same. Two further models cross these
choices: components apart under a perceptron, and a linear layer under Brenier maps. Once the noise σ is learned, from a
quarter of the data's spread at the start; once it is fixed at .2 (the arms are .05 across and .3 along). Four seeds each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import identkit as ik
from experiments.record import Record, shown
from identkit.lidvae.components import PriorLayer, Separated
from identkit.lidvae.datasets import Dataset, pinwheel
from identkit.lidvae.metrics import Metrics, measure
from identkit.plot.style import SERIES, WIDTH, styled

NOISES: tuple[float | str, ...] = ("learned", 0.2)
SEEDS = 4
STEPS = 1500
ROWS = 10_000
ARMS = 5
SAMPLES = 100
"""Of the bound on log p(x)."""


class ApartGMVAE(ik.GMVAE):
    """Components apart by construction as in LIDMVAE, a perceptron as decoder."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        generator = torch.Generator().manual_seed(named.get("seed", 0))
        self.placement = Separated(self.members, self.components, self.latents, 4.0, generator=generator)


class LayerLIDMVAE(ik.LIDMVAE):
    """A linear layer places the components, Brenier maps decode."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        generator = torch.Generator().manual_seed(named.get("seed", 0))
        self.placement = PriorLayer(self.members, self.components, self.latents, generator=generator)


def main() -> None:
    record = Record("mixture_pinwheel", __doc__)
    data = pinwheel(1000 if record.smoke else ROWS)
    assert data.labels is not None
    steps = 20 if record.smoke else STEPS
    kinds: dict[str, Any] = {
        "LIDMVAE": ik.LIDMVAE,
        "GMVAE": ik.GMVAE,
        "apart, perceptron": ApartGMVAE,
        "layer, Brenier": LayerLIDMVAE,
    }
    found: dict[str, Any] = {name: {} for name in kinds}
    drawn: dict[str, Tensor] = {}
    print(
        f"I(y; x) of at most log {ARMS} = {math.log(ARMS):.3f} nats; mean ± standard error over {SEEDS} seeds"
    )
    for sigma in NOISES:
        print(f"σ {sigma}")
        for name, kind in kinds.items():
            hidden = (32, 32) if issubclass(kind, ik.LIDMVAE) else (64, 64)
            model = kind(2, 2, ARMS, sigma=sigma, hidden=hidden)
            run = ik.fit(model, data, steps=steps, seeds=SEEDS, learning_rate=3e-3, decoder_rate=2.0)
            metrics = measure(run.model, data.test, labels=data.labels.test, samples=SAMPLES)
            one = found[name][str(sigma)] = _facts(run.model, metrics)
            _say(name, one)
            first: Any = run.members[0]
            one["levels_of_seed_1"] = {
                latent: str(level) for latent, level in ik.check(first).latents.items()
            }
            if kind is ik.LIDMVAE:
                one["certificate_of_seed_1"] = str(first.certificate())
                print(f"{'':17s} {one['certificate_of_seed_1']}")
            if sigma == NOISES[0]:
                drawn[name] = first.states(data.test).argmax(1)
    record.write(
        {"seeds": SEEDS, "steps": steps, "cap": math.log(ARMS), "models": found},
        main=_figure(data, drawn, found),
    )


def _facts(model: Any, metrics: Sequence[Metrics]) -> dict[str, Any]:
    states: Any = [each.states for each in metrics]
    return {
        "state_information": [each.information for each in states],
        "ari": [each.ari for each in states],
        "accuracy": [each.accuracy for each in states],
        "kl_of_y": [each.kl["y"] for each in metrics],
        "kl_of_z": [each.total_kl - each.kl["y"] for each in metrics],
        "elbo": [each.elbo for each in metrics],
        "log_likelihood": [each.log_likelihood for each in metrics],
        "sigma": model.likelihood.sigma.tolist(),
    }


def _say(name: str, one: dict[str, Any]) -> None:
    nats = one["state_information"]
    print(
        f"{name:17s} I(y; x) {shown(nats)} ({min(nats):.3f} to {max(nats):.3f}), ARI {shown(one['ari'])} (least "
        f"{min(one['ari']):.3f}), KL of y {shown(one['kl_of_y'])}, of z {shown(one['kl_of_z'])}, log p(x) "
        f"{shown(one['log_likelihood'])}, σ {shown(one['sigma'])}"
    )


@styled
def _figure(data: Dataset, drawn: dict[str, Tensor], found: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6), layout="constrained")
    for panel, name in zip(axes, ("LIDMVAE", "GMVAE"), strict=False):
        panel.scatter(*data.test.T, s=2, c=[SERIES[state] for state in drawn[name]], linewidths=0)
        panel.set(title=f"{name}: likeliest y, σ learned", aspect="equal", xticks=[], yticks=[])
    last = axes[2]
    for number, sigma in enumerate(NOISES):
        for place, one in enumerate(found.values()):
            nats = one[str(sigma)]["state_information"]
            label = ("σ learned", f"σ = {sigma}")[number] if place == 0 else None
            last.plot(
                [place + 0.3 * number - 0.15] * len(nats),
                nats,
                "os"[number],
                ms=3,
                color=SERIES[number],
                label=label,
            )
    last.axhline(math.log(ARMS), color="#444444", lw=0.8, ls="--")
    last.set(title="I(y; x) of every seed", ylabel="nats", ylim=(-0.05, 1.75))
    last.set_xticks(range(len(found)), [name.replace(", ", ",\n") for name in found])
    last.legend(loc="center right")
    return figure


if __name__ == "__main__":
    main()

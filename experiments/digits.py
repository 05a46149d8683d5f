"""Digits, sixteen latents: how many of them does a decoder keep that is free to forget, and one that is not?

    python -m experiments.digits

The 8 × 8 digits of scikit-learn, grey values as probabilities of a Bernoulli likelihood; the same encoder, the same number of
steps, decoders of about equal size. What is certified under this likelihood is injectivity (m > 0), not nats.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import identkit as ik
from experiments.record import Record, shown
from identkit.lidvae.datasets import digits
from identkit.plot.style import SERIES, WIDTH, styled

LATENTS = 16
SEEDS = 4
EPOCHS = 100
SCALE = 1.0
WIDTHS: dict[str, Any] = {"hidden": (128, 128), "encoder_hidden": (128, 128)}


def main() -> None:
    record = Record("digits", __doc__)
    data = digits()
    models: dict[str, Any] = {
        "VAE": ik.VAE(64, LATENTS, "bernoulli", **WIDTHS),
        "LIDVAE": ik.LIDVAE(64, LATENTS, "bernoulli", scale=SCALE, **WIDTHS),
    }
    found, samples = {}, {}
    for name, model in models.items():
        run = ik.fit(
            model, data, epochs=1 if record.smoke else EPOCHS, seeds=SEEDS, learning_rate=3e-3, batch_size=100
        )
        f = run.best
        z = torch.randn(24, LATENTS, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            samples[name] = f.likelihood.mean(f.decoder(z))  # type: ignore[operator]
        found[name] = {
            "parameters": sum(p.numel() for p in model.decoder.parameters()),
            "active_units": [len(m.active_units) for m in run.metrics],
            "kl_per_latent": [sorted(m.kl.values(), reverse=True) for m in run.metrics],
            "kl": [m.total_kl for m in run.metrics],
            "information": [m.information for m in run.metrics],
            "cap": run.metrics[0].cap,
            "elbo": [m.elbo for m in run.metrics],
            "log_likelihood": [m.log_likelihood for m in run.metrics],
            "reconstruction": [m.reconstruction for m in run.metrics],
            "lower": run.metrics[0].lower,
            "seconds": run.seconds,
        }
        one = found[name]
        print(
            f"{name:7s} active {one['active_units']} of {LATENTS}, KL {shown(one['kl'], 2)}, least latent "
            f"{min(each[-1] for each in one['kl_per_latent']):.3f}, I(z; x) {shown(one['information'], 2)} (cap "
            f"{one['cap']:.2f}), ELBO {shown(one['elbo'], 2)}, log p(x) {shown(one['log_likelihood'], 2)}, m {one['lower']}, "
            f"{one['parameters']:,} decoder weights, {one['seconds']:.0f} s"
        )
    record.write({"latents": LATENTS, "seeds": SEEDS, "models": found}, main=_figure(found, samples))


@styled
def _figure(found: dict[str, Any], samples: dict[str, Tensor]) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 2.6), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(1.5, 1, 1))
    bars = figure.add_subplot(grid[0])
    for number, (name, one) in enumerate(found.items()):
        mean = torch.tensor(one["kl_per_latent"]).mean(0)
        bars.bar(
            torch.arange(LATENTS) + 0.4 * number - 0.2, mean, width=0.4, color=SERIES[number], label=name
        )
    bars.set(xlabel="latent, by KL", ylabel="KL, nats a row", title="Sorted within each seed, mean of seeds")
    bars.legend()
    for number, (name, x) in enumerate(samples.items()):
        panel = figure.add_subplot(grid[number + 1])
        tiles = x.reshape(4, 6, 8, 8).permute(0, 2, 1, 3).reshape(32, 48)
        panel.imshow(tiles, cmap="gray_r", interpolation="nearest")
        panel.set(title=f"{name}: samples", xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    main()

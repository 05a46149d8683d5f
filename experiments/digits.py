"""Digits, sixteen latents: how many of them does a decoder keep that is free to forget, and one that is not?

    python -m experiments.digits

The 8 × 8 digits of scikit-learn; the same encoder and as many steps for both, decoders of about equal size. Under Gaussian
noise (σ = .35, above some of the data's directions and below others) the identifiable decoder is asked for 4 nats.
Under a Bernoulli likelihood of the grey values no nats can be asked for: m > 0 proves that every latent shows in the law,
but logits of any slope saturate, and a latent may come to show very little.
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
from identkit.lidvae.run import Run
from identkit.plot.style import SERIES, WIDTH, styled

LATENTS = 16
SEEDS = 4
EPOCHS = 100
SIGMA = 0.35
NATS = 4.0
ENCODER: dict[str, Any] = {"encoder_hidden": (128, 128)}
DECODERS: dict[str, dict[str, Any]] = {"VAE": {"hidden": (128, 128)}, "LIDVAE": {"hidden": (128, 384)}}
LIKELIHOODS: dict[str, dict[str, dict[str, Any]]] = {
    "gaussian": {"VAE": {"sigma": SIGMA}, "LIDVAE": {"sigma": SIGMA, "min_information": NATS}},
    "bernoulli": {"VAE": {}, "LIDVAE": {"alphas": (0.5, 0.5), "scale": 4.0}},
}
RATES = {"VAE": 1.0, "LIDVAE": 3.0}  # of the decoder, in multiples of the encoder's


def main() -> None:
    record = Record("digits", __doc__)
    found, samples = {}, {}
    for likelihood, settings in LIKELIHOODS.items():
        for name, kind in {"VAE": ik.VAE, "LIDVAE": ik.LIDVAE}.items():
            model = kind(64, LATENTS, likelihood, **ENCODER, **DECODERS[name], **settings[name])
            run = ik.fit(
                model,
                digits(),
                epochs=1 if record.smoke else EPOCHS,
                seeds=SEEDS,
                learning_rate=3e-3,
                decoder_rate=RATES[name],
                batch_size=100,
            )
            if likelihood == "gaussian":
                samples[name] = run.best.sample(24, torch.Generator().manual_seed(0))[1]
                with torch.no_grad():
                    samples[name] = run.best.decoder(samples[name])  # type: ignore[operator]
            found[f"{name}, {likelihood}"] = one = measured(run)
            print(
                f"{name:6s} {likelihood:9s} active {one['active_units']} of {LATENTS}, KL {shown(one['kl'], 2)}, least "
                f"latent {min(each[-1] for each in one['kl_per_latent']):.3f}, I(z; x) {shown(one['information'], 2)} "
                f"(cap {one['cap']:.2f}), log p(x) {shown(one['log_likelihood'], 2)}, m {one['lower']}, floor "
                f"{one['floor']}, {one['seconds']:.0f} s"
            )
    record.write(
        {"sigma": SIGMA, "latents": LATENTS, "seeds": SEEDS, "models": found}, main=_figure(found, samples)
    )


def measured(run: Run) -> dict[str, Any]:
    """What a table says of all members."""
    return {
        "decoder_weights": sum(p.numel() for p in run.best.decoder.parameters()),  # type: ignore[union-attr]
        "active_units": [len(m.active_units) for m in run.metrics],
        "kl_per_latent": [sorted(m.kl.values(), reverse=True) for m in run.metrics],
        "kl": [m.total_kl for m in run.metrics],
        "information": [m.information for m in run.metrics],
        "cap": run.metrics[0].cap,
        "elbo": [m.elbo for m in run.metrics],
        "log_likelihood": [m.log_likelihood for m in run.metrics],
        "lower": run.metrics[0].lower,
        "floor": run.metrics[0].floor,
        "seconds": run.seconds,
    }


@styled
def _figure(found: dict[str, Any], samples: dict[str, Tensor]) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 2.6), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(1.5, 1, 1))
    bars = figure.add_subplot(grid[0])
    gaussian = {name: one for name, one in found.items() if "gaussian" in name}
    for number, (name, one) in enumerate(gaussian.items()):
        mean = torch.tensor(one["kl_per_latent"]).mean(0)
        bars.bar(
            (torch.arange(LATENTS) + 0.4 * number - 0.2).tolist(),
            mean.tolist(),
            width=0.4,
            color=SERIES[number],
            label=name,
        )
    bars.set(
        xlabel="latent, by KL",
        ylabel="KL, nats a row",
        title=f"Gaussian, σ = {SIGMA:g}: sorted, mean of seeds",
    )
    bars.legend()
    for number, (name, x) in enumerate(samples.items()):
        panel = figure.add_subplot(grid[number + 1])
        tiles = x.reshape(4, 6, 8, 8).permute(0, 2, 1, 3).reshape(32, 48)
        panel.imshow(tiles.numpy(), cmap="gray_r", interpolation="nearest")
        panel.set(title=f"{name}: means of samples", xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    main()

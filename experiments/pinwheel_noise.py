"""Noise as large as the data: the plain VAE forgets both latents, the identifiable one cannot, and pays for it.

    python -m experiments.pinwheel_noise

Pinwheel (scale 1, deviation .74 a column) with σ = 1: above every eigenvalue of the data's covariance, where forgetting is
optimal (Lucas et al. 2019). The identifiable decoder's constant m is set so that I(z; x) ≥ .5 nats under its own marginal,
whatever the weights; what that costs in likelihood is printed beside it.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

import identkit as ik
from experiments.record import Record, shown, spread
from identkit.lidvae.datasets import Dataset, pinwheel
from identkit.lidvae.truth import true_posteriors
from identkit.plot.style import SERIES, WIDTH, styled

SIGMA = 1.0
NATS = 0.5
SEEDS = 4
STEPS = 3000
ROWS = 10_000


def main() -> None:
    record = Record("pinwheel_noise", __doc__)
    data = pinwheel(1000 if record.smoke else ROWS)
    steps = 50 if record.smoke else STEPS
    models = {"VAE": ik.VAE(2, 2, sigma=SIGMA), "LIDVAE": ik.LIDVAE(2, 2, sigma=SIGMA, min_information=NATS)}
    found: dict[str, Any] = {}
    latents: dict[str, Tensor] = {}
    for name, model in models.items():
        run = ik.fit(model, data, steps=steps, seeds=SEEDS, learning_rate=3e-3)
        truth = true_posteriors(run.model, data.test[:100])
        rows = run.model.rows(data.test)
        with torch.no_grad():
            latents[name] = run.model.infer(rows).mean[0]
        level = ik.check(run.best).level
        found[name] = {
            "level": str(level),
            "active_units": [len(m.active_units) for m in run.metrics],
            "kl": [m.total_kl for m in run.metrics],
            "information": [m.information for m in run.metrics],
            "log_likelihood": [m.log_likelihood for m in run.metrics],
            "true_kl": truth.kl.mean(1).tolist(),
            "true_kl_error": float(truth.kl_error.max()),
            "floor": run.metrics[0].floor,
            "lower": run.metrics[0].lower,
        }
        one = found[name]
        print(
            f"{name:7s} {one['level']:8s} active {one['active_units']} of 2; KL {shown(one['kl'], 4)} (true "
            f"{shown(one['true_kl'], 4)}), I(z; x) {shown(one['information'])}, log p(x) {shown(one['log_likelihood'])}, "
            f"floor {one['floor']}"
        )
    cost = spread(found["VAE"]["log_likelihood"])["mean"] - spread(found["LIDVAE"]["log_likelihood"])["mean"]
    print(f"the price of not collapsing: {cost:.3f} nats a row")
    record.write(
        {"sigma": SIGMA, "seeds": SEEDS, "models": found, "price": cost}, main=_figure(data, latents, found)
    )


@styled
def _figure(data: Dataset, latents: dict[str, Tensor], found: dict[str, Any]) -> Figure:
    assert data.labels is not None
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.2), sharex=True, sharey=True, layout="constrained")
    for panel, (name, mean) in zip(axes, latents.items(), strict=True):
        for arm in range(5):
            some = data.labels.test == arm
            panel.scatter(mean[some, 0], mean[some, 1], s=4, color=SERIES[arm], linewidths=0)
        kl, nats = spread(found[name]["kl"])["mean"], spread(found[name]["information"])["mean"]
        panel.set(
            title=f"{name}: KL {kl:.3f}, I(z; x) {nats:.3f} nats",
            xlabel="E q(z₁ | x)",
            ylabel="E q(z₂ | x)",
            aspect="equal",
        )
    figure.suptitle(f"Pinwheel, σ = {SIGMA:g}: posterior means of the test rows, by arm")
    return figure


if __name__ == "__main__":
    main()

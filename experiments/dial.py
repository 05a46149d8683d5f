"""The dial: how much a trained identifiable decoder tells, against the constant m that was asked for.

    python -m experiments.dial

Noise at σ = 1 on pinwheel, where forgetting would be optimal: a decoder of constant m sinks to its floor. Three curves over
m, four seeds each, all 36 members trained at once: I(z; x) under the model's own marginal, by lattice sums of the true
posterior on rows drawn from the model, which must lie above the certified floor ``(K/2) log(1 + m²/σ²)`` and below the
certified ceiling; the true posterior's KL on the data, and what the calculator predicts for a linear decoder of slope m
(lidvae.md). Above m ≈ 1 the data do not vary enough to fill the latents, and the two part.
"""

from __future__ import annotations

import statistics
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

import identkit as ik
from experiments.record import Record
from identkit.lidvae.datasets import pinwheel
from identkit.lidvae.information import information_floor
from identkit.lidvae.truth import true_posteriors
from identkit.plot.style import PRIOR, SERIES, WIDTH, styled

SIGMA = 1.0
LOWER = (0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.2, 1.6, 2.0)
SEEDS = 4
STEPS = 2500
ROWS = 10_000
SETS = 4  # of rows from each model, independent of each other
PER_SET = 256
ON_DATA = 200


def main() -> None:
    record = Record("dial", __doc__)
    data = pinwheel(1000 if record.smoke else ROWS)
    latents = 2
    floors = [information_floor(m, SIGMA, latents) for m in LOWER]
    model = ik.LIDVAE(2, latents, sigma=SIGMA, min_information=floors, members=len(LOWER))
    run = ik.fit(
        model,
        data,
        steps=30 if record.smoke else STEPS,
        seeds=1 if record.smoke else SEEDS,
        learning_rate=3e-3,
    )
    points = []
    for number, (one, metrics) in enumerate(zip(run.members, run.metrics, strict=True)):
        information, error = informed(one, number, 16 if record.smoke else PER_SET)
        on_data = true_posteriors(one, data.test[: 10 if record.smoke else ON_DATA])
        guarantee = one.certificate(data.train)
        assert guarantee is not None
        points.append(
            {
                "m": LOWER[number % len(LOWER)],
                "certified_m": guarantee.lower,
                "floor": guarantee.floor,
                "ceiling": guarantee.ceiling,
                "information": information,
                "information_error": error,
                "kl": float(on_data.kl.mean()),
                "predicted_kl": sum(guarantee.predicted),
                "encoder_kl": metrics.total_kl,
                "encoder_information": metrics.information,
                "log_likelihood": metrics.log_likelihood,
            }
        )
    below = [p for p in points if p["information"] < p["floor"] - 4 * p["information_error"]]
    near = [p for p in points if p["m"] >= 0.35]
    off = max(abs(p["kl"] / p["predicted_kl"] - 1) for p in near)
    print(f"{'m':>5} {'floor':>8} {'I(z; x)':>8} {'ceiling':>8} {'KL':>8} {'predicted':>9} {'log p(x)':>9}")
    for p in points[: len(LOWER)]:
        print(
            f"{p['m']:5.2f} {p['floor']:8.4f} {p['information']:8.4f} {p['ceiling']:8.3f} {p['kl']:8.4f} "
            f"{p['predicted_kl']:9.4f} {p['log_likelihood']:9.3f}"
        )
    print(
        f"{len(points)} members; below their floor: {len(below)}; KL off the calculator by at most {off:.1%} (m ≥ .35)"
    )
    record.write(
        {"sigma": SIGMA, "points": points, "below_floor": len(below), "largest_gap_from_m_0.35": off},
        main=_figure(points),
    )


def informed(model: Any, seed: int, n: int) -> tuple[float, float]:
    """I(z; x) under the model, ``E KL(p(z | x) ‖ p(z))``, and its standard error.

    By randomised quasi-Monte Carlo: z and the noise are a scrambled Sobol sequence, so that the average over rows is off by
    a hundredth of what independent draws would leave.
    """
    averages = []
    for number in range(SETS):
        engine = torch.quasirandom.SobolEngine(2 * model.latents, scramble=True, seed=SETS * seed + number)
        uniform = engine.draw(n, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        drawn = torch.special.ndtri(uniform).float()
        with torch.no_grad():
            x = model.decoder(drawn[:, : model.latents]) + SIGMA * drawn[:, model.latents :]
        averages.append(float(true_posteriors(model, x).kl.mean()))
    return statistics.mean(averages), statistics.stdev(averages) / SETS**0.5


@styled
def _figure(points: list[dict[str, float]]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.0), layout="constrained")
    m = [p["m"] for p in points]
    left.plot(LOWER, [information_floor(v, SIGMA, 2) for v in LOWER], color=PRIOR, label="certified floor")
    left.plot(
        m, [p["information"] for p in points], "o", ms=3, color=SERIES[0], label="I(z; x) under the model"
    )
    left.plot(m, [p["ceiling"] for p in points], "_", ms=5, color=SERIES[1], label="certified ceiling")
    left.set(xscale="log", yscale="log", xlabel="m", ylabel="nats", title="Under the model's own marginal")
    left.legend()
    order = sorted(points[: len(LOWER)], key=lambda p: p["m"])
    right.plot(
        [p["m"] for p in order],
        [p["predicted_kl"] for p in order],
        color=PRIOR,
        label="calculator, linear at slope m",
    )
    right.plot(m, [p["kl"] for p in points], "o", ms=3, color=SERIES[0], label="true posterior's KL")
    right.plot(m, [p["encoder_kl"] for p in points], "x", ms=3, color=SERIES[2], label="encoder's KL")
    right.set(xscale="log", yscale="log", xlabel="m", ylabel="nats a row", title="On the data")
    right.legend()
    return figure


if __name__ == "__main__":
    main()

"""What does injectivity cost in likelihood? Latent-identifiable decoders beside an ordinary one on the pinwheel.

    OMP_NUM_THREADS=1 python -m experiments.likelihood_gap
    OMP_NUM_THREADS=1 python -m experiments.likelihood_gap --preset fresh

Pinwheel with standardised columns, noise σ = 0.1, two latents, so that ``log p(x) = log ∫ N(z; 0, I) N(x; f(z), σ²I) dz``
is a sum over a grid: the figures are exact log-likelihoods of held-out rows, neither an ELBO nor an importance-weighted
bound. Every setting has the same rows, encoder, steps and batches, and four seeds; its error is the standard error over
these. The attempts were made, and so chosen, on one draw of the pinwheel; the preset "fresh" repeats what is compared on
another one, which nobody chose by. All decoders but the ordinary ones certify m > 0, and the same m = 0.04 unless the name
says otherwise.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from experiments.provenance import provenance
from identkit.lidvae.datasets import from_rows
from identkit.lidvae.datasets.dataset import Dataset
from identkit.lidvae.datasets.toys import pinwheel
from identkit.lidvae.mlp import MLP
from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import IWAE, Objective
from identkit.lidvae.run import Run
from identkit.lidvae.training import fit

RESULTS = Path(__file__).parent / "results"
SIGMA = 0.1
REACH = 5.0  # of the grid, in prior standard deviations: what lies beyond weighs e^(−12.5)
SIDE = 260  # points a side
TARGET = 0.05  # nats
TUNED = {"learning_rate": 2e-2, "decoder_rate": 1.0}
STEEP = {"learning_rate": 2e-2, "decoder_rate": 3.0}
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One attempt: a model, how it is trained, and why that might help."""

    name: str
    why: str
    model: Callable[[int], Autoencoder]
    training: dict[str, Any] = field(default_factory=dict)
    objective: Objective | None = None
    longer: float = 1.0


def ordinary(
    hidden: tuple[int, ...], activation: Activation = functional.relu
) -> Callable[[int], Autoencoder]:
    """A VAE whose decoder and encoder have this activation."""

    def make(members: int) -> Autoencoder:
        model = VAE(2, 2, sigma=SIGMA, hidden=hidden, members=members)
        assert isinstance(model.decoder, MLP)
        model.decoder.activation = activation
        return encoding_by(model, activation)

    return make


def identifiable(
    map: str, hidden: tuple[int, ...], activation: Activation = functional.relu, **options: Any
) -> Callable[[int], Autoencoder]:
    """A latent-identifiable VAE whose encoder has this activation."""

    def make(members: int) -> Autoencoder:
        model = LIDVAE(2, 2, sigma=SIGMA, map=map, hidden=hidden, members=members, **options)
        return encoding_by(model, activation)

    return make


def encoding_by(model: VAE | LIDVAE, activation: Activation) -> Autoencoder:
    assert isinstance(model.encoder, MLP)
    model.encoder.activation = activation
    return model


BASELINE = "MLP, tuned"
AS_DEAR = "MLP, tuned, twice the steps"
AS_SMALL = "MLP, tuned, 16 units"
LONGER = "log-sum-exp, three maps, twice the steps"
CHOSEN = "log-sum-exp, three maps"
BY_IWAE = ("MLP, tuned, IWAE", "log-sum-exp, three maps, IWAE")
COMPARISONS = {
    "equal steps": (BASELINE, CHOSEN),
    "equal cost": (AS_DEAR, CHOSEN),
    "equal steps, twice as many": (AS_DEAR, LONGER),
    "equal parameters": (AS_SMALL, CHOSEN),
    "equal steps, IWAE": BY_IWAE,
}
SETTINGS = (
    Setting(
        name="MLP, silu, low rate",
        why="the comparison that raised the question",
        model=ordinary((64, 64), functional.silu),
        training={"learning_rate": 2e-3},
    ),
    Setting(
        name=BASELINE,
        why="three layers, relu and a high rate: what has to be matched",
        model=ordinary((32, 32, 32)),
        training=TUNED,
    ),
    Setting(
        name=AS_DEAR,
        why="about the training cost of three log-sum-exp maps",
        model=ordinary((32, 32, 32)),
        training=TUNED,
        longer=2.0,
    ),
    Setting(
        name=AS_SMALL,
        why="about the parameters of three log-sum-exp maps",
        model=ordinary((16, 16, 16)),
        training=TUNED,
    ),
    Setting(
        name="ridges, low rate",
        why="the comparison that raised the question",
        model=identifiable("monotone", (64, 64), functional.silu),
        training={"learning_rate": 2e-3, "decoder_rate": 3.0},
    ),
    Setting(
        name="ridges, high rate",
        why="steep slopes have far to travel from a start of slope one",
        model=identifiable("monotone", (64, 64)),
        training=STEEP,
    ),
    Setting(
        name="ridges, wide",
        why="capacity: twice the rows",
        model=identifiable("monotone", (128, 128)),
        training=STEEP,
    ),
    Setting(
        name="ridges, four maps",
        why="capacity: more bends by composition",
        model=identifiable("monotone", (64, 64, 64, 64)),
        training=STEEP,
    ),
    Setting(
        name="ICNN",
        why="universality: a tear along a half-line is no sum of ridges",
        model=identifiable("icnn", (32, 32)),
        training=STEEP,
    ),
    Setting(
        name="log-sum-exp, two maps",
        why="pieces that meet along half-lines, and sharp from the start",
        model=identifiable("logsumexp", (64, 64)),
        training=STEEP,
    ),
    Setting(
        name=CHOSEN,
        why="the same, and composition",
        model=identifiable("logsumexp", (64, 64, 64)),
        training=STEEP,
    ),
    Setting(
        name=LONGER,
        why="is it trained to the end?",
        model=identifiable("logsumexp", (64, 64, 64)),
        training=STEEP,
        longer=2.0,
    ),
    Setting(
        name="log-sum-exp, three maps, m = 0.008",
        why="a weaker guarantee: does m itself cost anything?",
        model=identifiable("logsumexp", (64, 64, 64), alphas=(0.2, 0.2, 0.2)),
        training=STEEP,
    ),
    Setting(
        name="log-sum-exp, three maps, larger encoder",
        why="does q hold the decoder back?",
        model=identifiable("logsumexp", (64, 64, 64), encoder_hidden=(128, 128)),
        training=STEEP,
    ),
    Setting(
        name=BY_IWAE[0],
        why="a Gaussian q pulls the decoder to where it fits: a bound of five draws pulls less",
        model=ordinary((32, 32, 32)),
        training=TUNED,
        objective=IWAE(samples=5),
    ),
    Setting(
        name=BY_IWAE[1],
        why="the same for the identifiable decoder",
        model=identifiable("logsumexp", (64, 64, 64)),
        training=STEEP,
        objective=IWAE(samples=5),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much of it."""

    rows: int
    steps: int
    seeds: int
    side: int
    settings: tuple[Setting, ...]
    draw: int = 0
    """Seed of the rows."""
    stem: str = "likelihood_gap"


_FULL = Preset(rows=10_000, steps=3000, seeds=4, side=SIDE, settings=SETTINGS)
PRESETS = {
    "full": _FULL,
    "fresh": replace(
        _FULL,
        draw=1,
        settings=tuple(one for one in SETTINGS if any(one.name in pair for pair in COMPARISONS.values())),
        stem="likelihood_gap_fresh",
    ),
    "smoke": Preset(
        rows=1000,
        steps=60,
        seeds=2,
        side=120,
        settings=tuple(one for one in SETTINGS if one.name in (BASELINE, CHOSEN)),
    ),
}


def standardised_pinwheel(rows: int, seed: int = 0) -> Dataset:
    found = pinwheel(rows, seed)
    x = torch.cat((found.train, found.validation, found.test))
    return from_rows(x, "gaussian", name="standardised pinwheel", standardise=True)


@torch.no_grad()
def log_density(decoder: nn.Module, x: Tensor, sigma: float, members: int, side: int) -> Tensor:
    """``log p(x)`` of every member, (E, n), by the trapezoidal rule over a grid of latents."""
    ticks = torch.linspace(-REACH, REACH, side)
    z = torch.cartesian_prod(ticks, ticks)
    z = z[z.norm(dim=1) < REACH]
    spacing = float(ticks[1] - ticks[0])
    log_mass = -z.square().sum(1) / 2 - math.log(2 * math.pi) + 2 * math.log(spacing)
    images = torch.cat([decoder(part.expand(members, -1, -1)) for part in z.split(20_000)], dim=1) / sigma
    found = []
    for image in images:
        level = log_mass - image.square().sum(1) / 2
        rows = [
            torch.logsumexp(torch.addmm(level, part, image.T), 1) - part.square().sum(1) / 2
            for part in (x / sigma).split(100)
        ]
        found.append(torch.cat(rows))
    return torch.stack(found) - math.log(2 * math.pi * sigma**2)


def mean_and_error(values: Tensor) -> dict[str, Any]:
    """Over seeds."""
    return {
        "mean": round(float(values.mean()), 4),
        "error": round(float(values.std()) / math.sqrt(len(values)), 4),
        "seeds": [round(float(value), 4) for value in values],
    }


def attempt(setting: Setting, data: Dataset, preset: Preset) -> tuple[dict[str, Any], Run]:
    """Train the seeds of one setting and measure them on the test rows."""
    model = setting.model(preset.seeds)
    began = time.process_time()
    steps = round(setting.longer * preset.steps)
    run = fit(
        model,
        data,
        steps=steps,
        batch_size=256,
        schedule="cosine",
        objective=setting.objective,
        **setting.training,
    )
    seconds = time.process_time() - began
    decoder: Any = run.model.decoder
    exact, coarse = (
        log_density(decoder, data.test, SIGMA, preset.seeds, side).mean(1)
        for side in (preset.side, round(0.7 * preset.side))
    )
    guarantee = run.model.certificate()
    entry = {
        "name": setting.name,
        "why": setting.why,
        "training": {"steps": steps, "batch_size": 256, "schedule": "cosine", **setting.training},
        "objective": "ELBO" if setting.objective is None else "IWAE, 5 draws",
        "decoder_parameters": sum(p.numel() for p in decoder.parameters()) // preset.seeds,
        "cpu_seconds": round(seconds, 1),
        "certified_m": None if guarantee is None else round(guarantee.lower, 6),
        "log_likelihood": mean_and_error(exact),
        "grid_error": float((exact - coarse).abs().max()),  # against a grid of half as many points
        "importance_weighted": mean_and_error(torch.tensor([each.log_likelihood for each in run.metrics])),
        "elbo": mean_and_error(torch.tensor([each.elbo for each in run.metrics])),
        "information": mean_and_error(torch.tensor([each.information for each in run.metrics])),
        "stopped": [why for why in run.stopped if why is not None],
    }
    return entry, run


def judged(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The gaps of the identifiable settings, with the errors of differences, and what they say of the target.

    The training cost is the processor's own time: three log-sum-exp maps cost about two MLPs of this size a step.
    """
    found = {entry["name"]: entry["log_likelihood"] for entry in entries}

    def gap(ordinary: str, identifiable: str) -> dict[str, Any]:
        one, other = found[ordinary], found[identifiable]
        size, error = one["mean"] - other["mean"], math.hypot(one["error"], other["error"])
        closed = size + 2 * error <= TARGET
        answer = "closed" if closed else "open" if size - 2 * error > TARGET else "undecided"
        return {
            "ordinary": ordinary,
            "identifiable": identifiable,
            "gap": round(size, 4),
            "error": round(error, 4),
            "within_target": answer,
        }

    compared = {how: gap(*pair) for how, pair in COMPARISONS.items() if all(name in found for name in pair)}
    all_gaps = [
        gap(BASELINE, entry["name"])
        for entry in entries
        if entry["certified_m"] is not None and entry["objective"] == "ELBO"
    ]
    return {"target": TARGET, "comparisons": compared, "gaps_to_the_tuned_mlp": all_gaps}


def draw(runs: dict[str, Run], data: Dataset, side: int, path: Path) -> None:
    """Test rows and the densities of both decoders, each of its best seed, with the image of a grid of latents."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    ticks = torch.linspace(-2.6, 2.6, side)
    square = torch.cartesian_prod(ticks, ticks).flip(1)
    axes[0].scatter(*data.test.T.numpy(), s=3, color="black", linewidths=0)
    axes[0].set_title("held-out rows")
    lines = torch.linspace(-2.5, 2.5, 21)
    along = torch.linspace(-2.5, 2.5, 400)
    for ax, (name, run) in zip(axes[1:], runs.items(), strict=True):
        decoder: Any = run.best.decoder
        density = log_density(decoder, square, SIGMA, 1, 2 * side)[0].exp().reshape(side, side)
        ax.pcolormesh(
            ticks.numpy(),
            ticks.numpy(),
            density.numpy(),
            cmap="Blues",
            vmax=0.9 * float(density.max()),
            rasterized=True,
        )
        with torch.no_grad():
            for tick in lines:
                for z in (
                    torch.stack([tick.expand(400), along], 1),
                    torch.stack([along, tick.expand(400)], 1),
                ):
                    ax.plot(*decoder(z).T.numpy(), color="black", linewidth=0.3, alpha=0.6)
        ax.set_title(name)
    for ax in axes:
        ax.set_aspect("equal")
        ax.set_xlim(-2.6, 2.6)
        ax.set_ylim(-2.6, 2.6)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Run all settings of a preset, print a line each, write the result and the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="full")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    preset = PRESETS[arguments.preset]
    data = standardised_pinwheel(preset.rows, preset.draw)
    entries: list[dict[str, Any]] = []
    runs: dict[str, Run] = {}
    for setting in preset.settings:
        entry, run = attempt(setting, data, preset)
        entries.append(entry)
        if setting.name in (BASELINE, CHOSEN):
            runs[setting.name] = run
        exact, bound = entry["log_likelihood"], entry["elbo"]
        print(
            f"{entry['name']:42s} log p {exact['mean']:.3f} ± {exact['error']:.3f}   ELBO {bound['mean']:.3f}   "
            f"m {entry['certified_m']}   {entry['decoder_parameters']:,} parameters   {entry['cpu_seconds']:.0f} s",
            flush=True,
        )
    verdict = judged(entries)
    for how, one in verdict["comparisons"].items():
        print(f"gap at {how}: {one['gap']:.3f} ± {one['error']:.3f} nats, {one['within_target']}")
    result = {
        **provenance(f"OMP_NUM_THREADS=1 python -m experiments.likelihood_gap --preset {arguments.preset}"),
        "data": {
            "name": data.name,
            "seed": preset.draw,
            "rows": preset.rows,
            "test_rows": len(data.test),
            "sigma": SIGMA,
        },
        "grid": {"reach": REACH, "side": preset.side},
        "verdict": verdict,
        "settings": entries,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"{preset.stem}.json").write_text(
        json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    draw(runs, data, preset.side // 2, arguments.out / f"{preset.stem}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

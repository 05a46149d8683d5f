"""Model collapse against inference collapse: flat decoders beside starved encoders, and what the diagnosis says of each.

    OMP_NUM_THREADS=1 python -m experiments.whose_fault

A latent that q leaves at the prior looks the same whoever lost it. With the true posterior at hand there are four outcomes:
it is informed and q too (healthy), it is informed and q is not (inference collapse), neither is (model collapse), and q
speaks where there is nothing to know (model collapse, hidden by the encoder). Four ways of starving:

* *lagging*: a plain VAE is trained on pinwheel; then its encoder is put back to q = prior, or to the encoder of another
  model (the one at the least σ), and follows for t steps while the decoder stands still;
* *blinkered*: model and encoder train together from the start, but the encoder reads only the c weakest of six columns that
  one latent speaks through; a plain VAE over σ, and a LIDVAE at σ = 1 over m.

A blinkered encoder makes a plain VAE's *model* collapse: what q cannot see the decoder ceases to say, and in every
cell on the side of σ that `starved` gives. `diagnose` names what it finds, not who began it. A LIDVAE's decoder
cannot go that way: the same encoder shows as inference collapse, until m is so large that a q which sees nothing is
narrower than the prior (`blind_m`) and a rule on KLs alone calls it healthy. Those cells have a cross: q's means
hardly move with the datum (variance below 0.01, the truth's above), which `diagnose` prints beside its verdict. At m
≤ 0.12 with one or two columns cells alternate: the true KL is within 0.002 to 0.035 nats of 0 there, on both sides of
the threshold, and each cell is one training.

The judge is `identkit.deep.trained.Said`, whose rule is that of `identkit.diagnose`; a sample of cells is given to the
latter too.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.optimize import brentq
from torch import Tensor

import identkit as ik
from experiments.record import Record
from identkit.deep.trained import THRESHOLD, Said
from identkit.diagnosis import Fault
from identkit.lidvae.datasets import Dataset, from_rows, pinwheel
from identkit.lidvae.information import information_floor
from identkit.lidvae.members import member
from identkit.lidvae.models import LIDVAE, VAE, Autoencoder
from identkit.lidvae.objectives import ELBO
from identkit.lidvae.optimiser import MemberAdam
from identkit.lidvae.reading import Reading
from identkit.lidvae.truth import true_posteriors
from identkit.plot.style import PRIOR, SERIES, WIDTH, styled

SIGMAS = (0.3, 0.4, 0.5, 0.6, 0.66, 0.72, 0.78, 0.85, 0.95, 1.1)
STAGES = (0, 3, 10, 30, 100, 300, 1000)
NOISES = (0.6, 0.8, 1.0, 1.15, 1.3, 1.5, 1.8, 2.2)
LOWER = (0.03, 0.06, 0.12, 0.25, 0.4, 0.6, 0.9, 1.3)
STRENGTHS = (0.1, 0.17, 0.28, 0.45, 0.7, 1.0)  # of the columns in the latent
NOISE = 0.5
STEPS = 1500
ROWS = 5000
JUDGED = 64
OUTCOMES = ("healthy", "inference collapse", "model collapse", "model collapse, q speaks", "undecided")
COLOURS = (SERIES[2], SERIES[1], SERIES[0], SERIES[3], "#999999")
LETTERS = ("H", "I", "M", "q", "?")
MOVES = 0.01  # variance of q's means over the data, below which they hardly move


class Blinkered(Reading):
    """Each member reads its own columns and takes the others for their mean."""

    mask: Tensor

    def __init__(self, seen: Tensor, like: Reading, model: VAE | LIDVAE) -> None:
        super().__init__(model.members, model.likelihood)
        self.load_state_dict(like.state_dict())
        self.register_buffer("mask", seen)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.mask.unsqueeze(1)


def main() -> None:
    record = Record("whose_fault", __doc__)
    steps = 30 if record.smoke else STEPS
    stages = STAGES[:3] if record.smoke else STAGES
    rows, few = (500, 4) if record.smoke else (ROWS, JUDGED)
    wheel = pinwheel(rows)
    model = VAE(2, 2, sigma=SIGMAS, members=len(SIGMAS), hidden=(32, 32), encoder_hidden=(32, 32))
    decoders = fitted(model, wheel, steps)
    panels: dict[str, list[dict[str, Any]]] = {}
    samples: list[dict[str, Any]] = []
    for name, stale in (("lagging from the prior", False), ("lagging from another model", True)):
        panels[name] = lagging(decoders, wheel.test[:few], wheel, stages, stale, samples)
    scale = factor(rows)
    for name, lower in (("blinkered VAE", None), ("blinkered LIDVAE", LOWER)):
        panels[name] = blinkered(scale, scale.test[:few], lower, steps, samples)
    agree = sum(one["diagnose"] == one["said"] for one in samples)
    counts = {name: dict(Counter(p["outcome"] for p in panel)) for name, panel in panels.items()}
    unmoved = {name: sum(p["unmoved"] for p in panel) for name, panel in panels.items()}
    edges: dict[str, Any] = {
        "pinwheel_sigma": math.sqrt(float(torch.cov(wheel.train.double().T, correction=0).trace() / 2)),
        "factor_sigma": math.sqrt(
            float(torch.linalg.eigvalsh(torch.cov(scale.train.double().T, correction=0))[-1])
        ),
        "starved_sigma": starved(scale.train.double()),
        "blind_m": blind_m(),
    }
    for name in panels:
        print(f"{name}: {counts[name]}; q away from the prior, but its means do not move: {unmoved[name]}")
    print(f"identkit.diagnose says the same in {agree} of {len(samples)} sampled cells; boundaries {edges}")
    print(
        f"blinkered VAE: on the predicted side of σ: {predicts(panels['blinkered VAE'], edges['starved_sigma'])}"
    )
    for one in samples:
        print(one)
    figures: dict[str, Any] = {} if record.smoke else {"main": _figure(panels, edges)}
    record.write(
        {
            "threshold": THRESHOLD,
            "judged_rows": JUDGED,
            "steps": STEPS,
            "edges": edges,
            "counts": counts,
            "unmoved": unmoved,
            "starved_predicts": predicts(panels["blinkered VAE"], edges["starved_sigma"]),
            "diagnose_agrees": [agree, len(samples)],
            "samples": samples,
            "panels": panels,
        },
        **figures,
    )


def fitted(model: Autoencoder, data: Dataset, steps: int) -> Any:
    run = ik.fit(model, data, steps=steps, learning_rate=5e-3, batch_size=128, device="cpu")
    assert not any(run.stopped), run.stopped
    return run.model


def factor(rows: int) -> Dataset:
    """One latent behind six columns, of more and more strength."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(rows, 1, generator=generator)
    noise = NOISE * torch.randn(rows, len(STRENGTHS), generator=generator)
    return from_rows(z * torch.tensor(STRENGTHS) + noise, "gaussian", name="one factor")


def lagging(
    decoders: VAE,
    x: Tensor,
    data: Dataset,
    stages: tuple[int, ...],
    stale: bool,
    samples: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Encoders that follow decoders that stand still; looked at after so many steps."""
    model = copy.deepcopy(decoders).train()
    with torch.no_grad():
        if stale:  # the first member's, for all
            for parameter in model.inference_parameters():
                parameter.copy_(parameter[:1].clone().expand_as(parameter))
        else:
            last: Any = model.encoder.layers[-1]  # type: ignore[union-attr,index]
            last.weight.zero_()
            last.bias.zero_()
    optimiser = MemberAdam([(list(model.inference_parameters()), 1.0)], model.members, 5.0)
    generator = torch.Generator().manual_seed(0)
    truth = true_posteriors(model, x, tolerance=1e-3)
    found, step = [], 0
    for stage in stages:
        while step < stage:
            index = torch.randint(len(data.train), (model.members, 128), generator=generator)
            optimiser.step(ELBO().loss(model, model.rows(data.train[index]), 0.0, generator), 1e-3)
            step += 1
        settings = [{"sigma": sigma, "steps": stage} for sigma in SIGMAS]
        some = (0, len(SIGMAS) - 1) if stage in (stages[0], stages[-1]) else ()
        found += judged(model, x, truth, settings, samples, some)
    return found


def blinkered(
    data: Dataset, x: Tensor, lower: tuple[float, ...] | None, steps: int, samples: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every setting of the decoder with every number of columns that the encoder reads."""
    columns = len(STRENGTHS)
    counts = range(columns + 1)
    pairs = [(value, count) for value in lower or NOISES for count in counts]
    common: dict[str, Any] = {"hidden": (32, 32), "encoder_hidden": (32, 32), "members": len(pairs)}
    if lower is None:
        model: VAE | LIDVAE = VAE(columns, 1, sigma=[value for value, _ in pairs], **common)
    else:
        floors = [information_floor(m, 1.0, 1) for m, _ in pairs]
        model = LIDVAE(columns, 1, sigma=1.0, min_information=floors, **common)
    seen = torch.tensor([[float(column < count) for column in range(columns)] for _, count in pairs])
    assert isinstance(model.reading, Reading)
    model.reading = Blinkered(seen, model.reading, model)
    trained = fitted(model, data, steps)
    name = "sigma" if lower is None else "m"
    settings = [{name: value, "columns": count} for value, count in pairs]
    truth = true_posteriors(trained, x, tolerance=1e-3)
    return judged(trained, x, truth, settings, samples, (0, columns, len(pairs) // 2, len(pairs) - 1))


@torch.no_grad()
def judged(
    model: Any,
    x: Tensor,
    truth: Any,
    settings: list[dict[str, Any]],
    samples: list[dict[str, Any]],
    sampled: tuple[int, ...],
) -> list[dict[str, Any]]:
    """What is said of all latents together, member by member."""
    q = model.infer(model.rows(x))
    found = []
    for number, setting in enumerate(settings):
        said = Said(
            name="all",
            flatness=float(truth.half_variance[number].mean()),
            truth=float(truth.kl[number].mean()),
            truth_error=float(truth.kl_error[number].mean()),
            encoder=float(q.kl()[number].sum(-1).mean()),
        )
        moves = float(q.mean[number].var(0).max())
        true_moves = float(truth.mean[number].var(0).max())
        found.append(
            {
                **setting,
                "flatness": said.flatness,
                "truth": said.truth,
                "truth_error": said.truth_error,
                "encoder": said.encoder,
                "missed": float(truth.log_evidence[number].mean() - _elbo(model, x, q)[number]),
                "outcome": outcome(said),
                "spread": moves,
                "true_spread": true_moves,
                "unmoved": not said.collapsed and moves < MOVES <= true_moves,
            }
        )
        if number in sampled:
            one = ik.diagnose(member(model, number).eval(), x, most=len(x))
            samples.append(
                {
                    **setting,
                    "said": str(said.fault),
                    "diagnose": str(one.overall.fault),
                    "truth": [said.truth, one.overall.truth.value],
                    "encoder": [said.encoder, one.overall.inference.value],
                }
            )
    return found


def _elbo(model: Any, x: Tensor, q: Any) -> Tensor:
    """Of each member, by many draws."""
    return model.terms(model.rows(x), q, 64, torch.Generator().manual_seed(0)).elbo().mean(1)


def outcome(said: Said) -> str:
    """One of four, as `Said` has it; a hidden model collapse is named apart."""
    if said.fault is Fault.UNDECIDED:
        return OUTCOMES[4]
    if said.fault is Fault.MODEL:
        return OUTCOMES[2 if said.collapsed else 3]
    return OUTCOMES[1 if said.fault is Fault.INFERENCE else 0]


def starved(x: Tensor) -> list[float]:
    """σ above which forgetting is the best that an encoder of the first c columns and any decoder near constant can do.

    With a decoder ``ε w z`` and ``q = N(ε vᵀx_c, 1)`` the ELBO gains ``ε² (wᵀC_{·c} v/σ² − ½ vᵀC_cc v − ½ wᵀw/σ²)``, so
    the threshold is ``σ² = λ₁(C_{·c} C_cc⁻¹ C_{c·})``: the variance that x_c predicts, λ₁ of C itself where all are read.
    """
    c = torch.cov(x.T, correction=0)
    found = [0.0]
    for count in range(1, len(c) + 1):
        told = c[:, :count] @ torch.linalg.solve(c[:count, :count], c[:count])
        found.append(math.sqrt(float(torch.linalg.eigvalsh((told + told.T) / 2)[-1])))
    return found


def predicts(points: list[dict[str, Any]], edge: list[float]) -> list[int]:
    """In how many cells, of how many, the model has collapsed exactly where σ is above the threshold."""
    return [sum((p["truth"] <= THRESHOLD) == (p["sigma"] > edge[p["columns"]]) for p in points), len(points)]


def blind_m() -> float:
    """The m at which the best q that sees nothing, ``N(0, σ²/(m² + σ²))``, is 0.01 nats from the prior; σ = 1, K = 1."""

    def kl(m: float) -> float:
        variance = 1 / (1 + m**2)
        return 0.5 * (variance - 1 - math.log(variance)) - THRESHOLD

    return float(brentq(kl, 0.01, 3.0))


_ALPHA = 0.75
_WORDS = {
    "lagging from the prior": ("sigma", "steps", "a  encoder starts at the prior"),
    "lagging from another model": ("sigma", "steps", "b  encoder of another model (σ = 0.3)"),
    "blinkered VAE": ("sigma", "columns", "c  VAE, trained together"),
    "blinkered LIDVAE": ("m", "columns", "d  LIDVAE, trained together, σ = 1"),
}


@styled
def _figure(panels: dict[str, list[dict[str, Any]]], edges: dict[str, Any]) -> Figure:
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained")
    for ax, (name, (across, up, title)) in zip(axes.flat, _WORDS.items(), strict=True):
        edge = edges["blind_m" if across == "m" else "starved_sigma" if up == "columns" else "pinwheel_sigma"]
        _panel(ax, panels[name], across, up, edge if isinstance(edge, list) else [edge])
        ax.set_title(title)
    handles: list[Any] = [Patch(color=colour, alpha=_ALPHA, label=f"{letter}  {word}") for letter, word, colour in
                          zip(LETTERS[:4], OUTCOMES, COLOURS, strict=False)]  # fmt: skip
    (cross,) = axes[0, 0].plot([], [], "x", ms=4, color="black", label="q is not the prior, but ignores x")
    (line,) = axes[0, 0].plot(
        [], [], color=PRIOR, ls="--", label="theory (a, b: √λ₁; c: starved; d: blind q at 0.01 nats)"
    )
    figure.legend(handles=[*handles, cross, line], loc="outside lower center", ncols=3)
    return figure


def _panel(ax: Axes, points: list[dict[str, Any]], across: str, up: str, edges: list[float]) -> None:
    xs, ys = (sorted({p[name] for p in points}) for name in (across, up))
    grid = [
        [OUTCOMES.index(next(p["outcome"] for p in points if p[across] == x and p[up] == y)) for x in xs]
        for y in ys
    ]
    ax.pcolormesh(
        torch.arange(len(xs) + 1) - 0.5, torch.arange(len(ys) + 1) - 0.5, grid, cmap=ListedColormap(COLOURS),
        vmin=-0.5, vmax=4.5, edgecolors="white", linewidth=0.6, alpha=_ALPHA,
    )  # fmt: skip
    for p in points:
        letter = LETTERS[OUTCOMES.index(p["outcome"])] + (" ×" if p["unmoved"] else "")
        ax.text(xs.index(p[across]), ys.index(p[up]), letter, ha="center", va="center", fontsize=7)
    places = [_between(xs, edge) for edge in edges]
    if len(places) == 1:
        ax.axvline(places[0], color=PRIOR, ls="--", lw=1.2)
    else:
        ax.stairs(places, torch.arange(len(ys) + 1) - 0.5, orientation="horizontal", baseline=None, color=PRIOR, ls="--",
                  lw=1.2)  # fmt: skip
    ax.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    ax.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    ax.set_xlabel(
        "σ of the decoder (units of the data)" if across == "sigma" else "m (units of the data per unit of z)"
    )
    ax.set_ylabel("steps of the encoder alone" if up == "steps" else "columns that the encoder reads")


def _between(xs: list[float], value: float) -> float:
    """Where a value lies among settings that are drawn side by side."""
    after = sum(x < value for x in xs)
    if after in (0, len(xs)):
        return after - 0.5
    return after - 1 + (value - xs[after - 1]) / (xs[after] - xs[after - 1])


if __name__ == "__main__":
    main()

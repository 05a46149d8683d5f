"""At what strength of the autoregressive part does a sequence's likelihood become flat in z?

    OMP_NUM_THREADS=1 python -m experiments.autoregressive

Sequences of a Markov language ``p(x_t | x_{t−1}, z) = softmax(c B[x_{t−1}] + A z)`` with one latent, whose own posterior is
known. Three dials of the part that needs no z: the coefficient c of the history in the language itself, the width of the
decoder's LSTM, and the share of words that the decoder does not get to read while it trains. A `SequenceVAE` may forget z,
a `LIDSVAE` sees it at every step (theory/T5). Of each: the flatness ``½ Var ℓ`` under the prior and the KL of the true
posterior by lattice sums, q's KL, and ``I_q(z; x)`` on all test rows; beside them the language's own.

Dropping words decides most: at half of them the plain model has 1.2 nats² of flatness after 400 steps and 3.4 after
1600, the language itself 6.2. Without dropping, an LSTM of 16 units goes flat whether the language has a history or
not: with c = 4 within 400 steps (0.007 in the mean over seeds), with c = 1 and c = 0 within 1600 (0.002 and 0.004;
with c = 0 it overfits by then, at 0.15 nats of log p(x) on held-out rows). Symbols already read tell z, even where
they tell nothing else. Width does not act in one direction: with 4 units the latent lives, with 16 it does not, and
with one it is lost to a decoder too narrow to use it, at a lower likelihood. A LIDSVAE is never flat (0.22 at the
least); at 16 units and as many steps that costs 0.05 to 0.09 nats of log p(x). Three seeds differ by up to a factor
of 54.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import identkit as ik
from experiments.record import Record
from identkit.lidvae.datasets import Dataset, from_rows
from identkit.lidvae.datasets.sequences import MarkovLanguage
from identkit.lidvae.metrics import aggregate_information
from identkit.lidvae.models import LIDSVAE, SequenceVAE
from identkit.lidvae.truth import true_posteriors
from identkit.plot.style import PRIOR, SERIES, WIDTH, styled
from identkit.posterior.lattice import Lattice, posteriors

LENGTH, SYMBOLS, STRENGTH = 8, 8, 0.7
COEFFICIENTS = (0.0, 1.0, 4.0)
WIDTHS = (1, 4, 16)
DROPOUTS = (0.0, 0.5, 0.9)
USUAL = {"coefficient": 1.0, "width": 16, "dropout": 0.0}
SEEDS = 3
STEPS = 400
ROWS = 5000
JUDGED = 32
PATIENCE = 4
PATIENT = ({}, {"width": 1}, {"width": 4}, {"coefficient": 0.0}, {"dropout": 0.5})  # trained again for longer
THRESHOLD = 0.01  # nats
KINDS = {"SequenceVAE": SequenceVAE, "LIDSVAE": LIDSVAE}
DIALS: dict[str, Sequence[float]] = {"coefficient": COEFFICIENTS, "width": WIDTHS, "dropout": DROPOUTS}


def main() -> None:
    record = Record("autoregressive", __doc__)
    n, steps, few = (200, 5, 4) if record.smoke else (ROWS, STEPS, JUDGED)
    points: list[dict[str, Any]] = []
    known: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    own: list[dict[str, Any]] = []
    for dial, values in DIALS.items():
        for value in values[-1:] if record.smoke else values:
            setting = {**USUAL, dial: value}
            key = tuple(setting.values())
            if key not in known:  # the usual setting is in all three dials
                language, data = spoken(setting["coefficient"], n)
                known[key] = [
                    {"kind": kind, **setting, **one}
                    for kind in KINDS
                    for one in trained(kind, setting, data, steps, few)
                ]
                own.append({**setting, **of_language(language, data.test[:few])})
                for kind in KINDS:
                    some = [p for p in known[key] if p["kind"] == kind]
                    said = ", ".join(
                        f"{name} {statistics.mean(p[name] for p in some):.4f}"
                        for name in ("flatness", "truth", "encoder", "information", "log_likelihood")
                    )
                    print(f"{dial} {value:g} {kind:11s} {said}", flush=True)
                print(
                    f"    its language: flatness {own[-1]['flatness']:.4f}, truth {own[-1]['truth']:.4f}",
                    flush=True,
                )
            points += [{"dial": dial, **point} for point in known[key]]
    longer = patient(5 if record.smoke else PATIENCE * STEPS, n, few)
    found = summary(points) | compared(points, longer)
    for name, value in found.items():
        print(f"{name}: {value}")
    figures: dict[str, Any] = {} if record.smoke else {"main": _figure(points, own)}
    record.write(
        {
            "length": LENGTH,
            "symbols": SYMBOLS,
            "strength": STRENGTH,
            "usual": USUAL,
            "seeds": SEEDS,
            "steps": STEPS,
            "judged_rows": JUDGED,
            "threshold": THRESHOLD,
            "summary": found,
            "language": own,
            "points": points,
            "longer": longer,
        },
        **figures,
    )


def spoken(coefficient: float, n: int) -> tuple[MarkovLanguage, Dataset]:
    """The same language and steering throughout, its history multiplied."""
    base = MarkovLanguage.random(SYMBOLS, 1, strength=STRENGTH, seed=0)
    language = replace(base, transition=coefficient * base.transition)
    x, z = language.sample(n, LENGTH, torch.Generator().manual_seed(0))
    words = [str(symbol) for symbol in range(SYMBOLS)]
    name = f"Markov sequences, history times {coefficient:g}"
    return language, from_rows(x, "categorical", name=name, latents=z.float(), vocabulary=words)


def of_language(language: MarkovLanguage, x: Tensor) -> dict[str, float]:
    """What the law that the sequences were drawn from says of its latent."""
    lattice = Lattice(1, 0.1)
    z = lattice.points.expand(len(x), -1, -1)
    found = posteriors(lattice, language.log_likelihood(x, z))
    return {
        "flatness": float(found.half_variance.mean()),
        "truth": float(found.kl.mean()),
        "log_likelihood": float(found.log_evidence.mean()),
    }


def trained(kind: str, setting: dict[str, Any], data: Dataset, steps: int, few: int) -> list[dict[str, Any]]:
    """All seeds of one setting, and what is left of z in each."""
    build: Any = KINDS[kind]
    model = build(
        LENGTH,
        1,
        categories=SYMBOLS,
        embedding=8,
        hidden=int(setting["width"]),
        word_dropout=setting["dropout"],
        encoder_hidden=16,
    )
    run = ik.fit(model, data, steps=steps, seeds=SEEDS, learning_rate=1e-2, batch_size=128, device="cpu")
    truth = true_posteriors(run.model, data.test[:few], tolerance=1e-3)
    with torch.no_grad():
        q = run.model.infer(run.model.rows(data.test))
        information = aggregate_information(q, torch.Generator().manual_seed(0))
    return [
        {
            "seed": number + 1,
            "flatness": float(truth.half_variance[number].mean()),
            "truth": float(truth.kl[number].mean()),
            "truth_error": float(truth.kl_error[number].max()),
            "encoder": float(q.kl()[number].sum(-1).mean()),
            "information": float(information.value[number]),
            "information_error": float(information.error[number]),
            "log_likelihood": float(truth.log_evidence[number].mean()),
            "stopped": run.stopped[number],
        }
        for number in range(SEEDS)
    ]


def patient(steps: int, n: int, few: int) -> list[dict[str, Any]]:
    """The plain model at some settings, trained for longer: is it flat, or only late?"""
    found = []
    for changed in PATIENT:
        setting = {**USUAL, **changed}
        _, data = spoken(setting["coefficient"], n)
        found += [{**setting, **one} for one in trained("SequenceVAE", setting, data, steps, few)]
    return found


def compared(points: list[dict[str, Any]], longer: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds before and after."""
    found = {}
    plain = [p for p in points if p["kind"] == "SequenceVAE"]
    for changed in PATIENT:
        setting = {**USUAL, **changed}
        before, after = (
            [p for p in some if all(p[name] == value for name, value in setting.items())]
            for some in (plain, longer)
        )
        words = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        for name in ("flatness", "truth", "log_likelihood"):
            ends = [statistics.mean(p[name] for p in some) if some else None for some in (before, after)]
            found[f"SequenceVAE, {words}, {PATIENCE} times the steps: {name} before and after"] = ends
    return found


def summary(points: list[dict[str, Any]]) -> dict[str, Any]:
    """At which settings of each dial the likelihood is flat, by the mean over seeds and by how many of them."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        for dial in DIALS:
            of = [p for p in points if p["kind"] == kind and p["dial"] == dial]
            found[f"{kind}, {dial}: seeds flat"] = {
                f"{value:g}": sum(p["flatness"] <= THRESHOLD for p in of if p[dial] == value)
                for value in sorted({p[dial] for p in of})
            }
    for kind in KINDS:
        of = [p for p in points if p["kind"] == kind]
        found[f"{kind}: least and largest flatness"] = [end(p["flatness"] for p in of) for end in (min, max)]
    once = {
        (p["kind"], *(p[k] for k in USUAL), p["seed"]): p for p in points
    }.values()  # the usual is in all dials
    found["flat exactly where the true KL is at most the threshold"] = [
        sum((p["flatness"] <= THRESHOLD) == (p["truth"] <= THRESHOLD) for p in once),
        len(once),
    ]
    usual = {kind: [p for p in points if p["kind"] == kind and p["dial"] == "coefficient"] for kind in KINDS}
    found["log p(x) of LIDSVAE less SequenceVAE, by coefficient"] = {
        f"{c:g}": statistics.mean(p["log_likelihood"] for p in usual["LIDSVAE"] if p["coefficient"] == c)
        - statistics.mean(p["log_likelihood"] for p in usual["SequenceVAE"] if p["coefficient"] == c)
        for c in sorted({p["coefficient"] for p in usual["LIDSVAE"]})
    }
    found["largest lattice error"] = max(p["truth_error"] for p in points)
    return found


_AXES = {
    "coefficient": "coefficient c of the history",
    "width": "units of the decoder's LSTM",
    "dropout": "share of words dropped",
}


@styled
def _figure(points: list[dict[str, Any]], own: list[dict[str, Any]]) -> Figure:
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.6), sharey="row", sharex="col", layout="constrained")
    for column, (dial, words) in enumerate(_AXES.items()):
        for row, measures in enumerate((("flatness",), ("truth", "information"))):
            ax = axes[row, column]
            _drawn(ax, [p for p in points if p["dial"] == dial], dial, measures)
            base = sorted(
                (o for o in own if all(o[k] == USUAL[k] for k in USUAL if k != dial)), key=lambda o: o[dial]
            )
            ax.plot(
                [_place(dial, o[dial]) for o in base], [max(o[measures[0]], _FLOOR) for o in base], color=PRIOR, lw=1.0
            )  # fmt: skip
            ax.axhline(THRESHOLD, color=PRIOR, lw=0.6, ls=":")
            ax.set(yscale="log", ylim=(_FLOOR / 1.5, None))
        values = DIALS[dial]
        axes[1, column].set_xticks(
            [_place(dial, value) for value in values], [f"{value:g}" for value in values]
        )
        axes[1, column].set_xlabel(words)
    axes[0, 0].set_ylabel("flatness, ½ Var ℓ (nats²)")
    axes[1, 0].set_ylabel("nats a row")
    shown = axes[0, 0]
    handles: list[Any] = [
        shown.plot([], [], color=colour, lw=2, label=kind)[0] for colour, kind in _COLOURS.items()
    ]
    handles += shown.plot([], [], color=PRIOR, lw=1.0, label="the language itself")
    handles += shown.plot(
        [], [], "o", ms=3.5, mfc="none", color=PRIOR, label="½ Var ℓ (above), true posterior's KL (below)"
    )
    handles += shown.plot([], [], "x", ms=3.5, color=PRIOR, label="I(z; x) of q")
    handles += shown.plot([], [], color=PRIOR, lw=0.6, ls=":", label="threshold")
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


_FLOOR = 1e-4  # of the picture: what is less, and estimates below 0, lie on its edge
_COLOURS = {SERIES[1]: "SequenceVAE", SERIES[0]: "LIDSVAE"}


def _drawn(ax: Axes, points: list[dict[str, Any]], dial: str, measures: tuple[str, ...]) -> None:
    for colour, kind in _COLOURS.items():
        of = [p for p in points if p["kind"] == kind]
        values = sorted({p[dial] for p in of})
        for measure in measures:
            marker = "x" if measure == "information" else "o"
            means = [statistics.mean(max(p[measure], _FLOOR) for p in of if p[dial] == v) for v in values]
            ax.plot([_place(dial, p[dial]) for p in of], [max(p[measure], _FLOOR) for p in of], marker, ms=3.5,
                    mfc="none", color=colour)  # fmt: skip
            if measure != "information":
                ax.plot([_place(dial, v) for v in values], means, color=colour, lw=0.8)


def _place(dial: str, value: float) -> float:
    """Settings side by side, as evenly as they stand in their list."""
    return float(list(DIALS[dial]).index(value))


if __name__ == "__main__":
    main()

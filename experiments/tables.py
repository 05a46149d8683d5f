"""A table of methods: all with the same data, encoder, steps and search, judged on the same test rows.

Every method is trained once at each of `RATES`, all seeds at once, and is shown at the rate whose importance-weighted
bound on the validation rows is the highest on average; the test rows have no part in that choice.

Rows are kept as they come, and an interrupted table goes on with the next one.

    python -m experiments.tables      # writes all tables into experiments/README.md again, from the results
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import identkit as ik
from experiments.record import RESULTS, Record, shown, spread
from identkit.lidvae.checkpoints import read_json, write_json
from identkit.lidvae.datasets import Dataset
from identkit.lidvae.members import member
from identkit.lidvae.metrics import Metrics, measure
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import ELBO, Objective
from identkit.lidvae.run import Run
from identkit.plot.style import SERIES, WIDTH, styled

RATES = (1.0, 3.0)
"""Of the decoder, in multiples of the encoder's: the settings that every method is searched over."""
COLOURS = (*SERIES, "#444444", "#999999")
MARKERS = "os^Dv<*P"
IDENTIFIABLE = ("LIDVAE", "LIDVAE, lagging", "LIDMVAE", "LIDSVAE")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: a model, and what is minimised."""

    name: str
    model: Callable[[], Autoencoder]
    objective: Objective = field(default_factory=ELBO)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much of it; the same for every method of a table."""

    rows: int
    """At most, all three parts together."""
    epochs: int
    """Of the decoder; steps within a step (SA-VAE's climb, the lagging encoder's lead) are the method's own."""
    seeds: int
    batch_size: int
    learning_rate: float
    latents: int
    hidden: int
    """Units of each hidden layer."""
    climb: int
    """Steps of SA-VAE within one."""
    lead: int
    """Steps of the encoder before one of the decoder, at most."""
    samples: int
    """Of the importance-weighted bound."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a method came to."""

    facts: dict[str, Any]
    run: Run


def first(data: Dataset, rows: int) -> Dataset:
    """At most this many rows, 80/10/10, without labels."""
    tenth = rows // 10
    return replace(
        data,
        train=data.train[: rows - 2 * tenth],
        validation=data.validation[:tenth],
        test=data.test[:tenth],
        labels=None,
        latents=None,
        recipe=None,
    )


def row(method: Method, data: Dataset, budget: Budget) -> Row:
    """Search, choose, and judge the chosen setting on the test rows."""
    began = time.monotonic()
    tried: list[tuple[float, Run, dict[str, Any]]] = []
    for rate in RATES:
        run = ik.fit(
            method.model(),
            data,
            epochs=budget.epochs,
            seeds=budget.seeds,
            objective=method.objective,
            learning_rate=budget.learning_rate,
            decoder_rate=rate,
            batch_size=budget.batch_size,
        )
        bounds = [each.log_likelihood for each in judged(run, data.validation, budget)]
        mean = spread(bounds)["mean"]
        tried.append(
            (
                mean if math.isfinite(mean) else -math.inf,
                run,
                {
                    "decoder_rate": rate,
                    "validation_log_likelihood": spread(bounds),
                    "stopped": [why for why in run.stopped if why is not None],
                    "seconds_of_training": round(run.seconds, 1),
                },
            )
        )
    best = max(range(len(tried)), key=lambda number: tried[number][0])
    _, run, setting = tried[best]
    metrics = judged(run, data.test, budget)
    guarantee = run.model.certificate()
    facts: dict[str, Any] = {
        "model": type(run.model).__name__,
        "objective": {"name": type(method.objective).__name__, **asdict(method.objective)},
        "parameters": sum(each.numel() for each in member(run.model, 0).parameters()),
        "certified_m": None if guarantee is None else guarantee.lower,
        "search": [facts for _, _, facts in tried],
        "decoder_rate": setting["decoder_rate"],
        **measures(metrics),
        "seconds": round(time.monotonic() - began, 1),
    }
    return Row(facts=facts, run=run)


def judged(run: Run, x: Any, budget: Budget) -> tuple[Metrics, ...]:
    """All seeds on some rows, with the posterior that the method is used with."""
    return measure(run.model, x, objective=run.objective, samples=budget.samples)


def measures(metrics: Sequence[Metrics]) -> dict[str, Any]:
    """Each seed's, then mean and standard error over seeds."""
    seeds: dict[str, list[float]] = {
        "active_units": [len(each.active_units) for each in metrics],
        "kl": [each.total_kl for each in metrics],
        "information": [each.information for each in metrics],
        "log_likelihood": [each.log_likelihood for each in metrics],
        "elbo": [each.elbo for each in metrics],
    }
    return {
        "by_seed": seeds,
        **{name: spread(values) for name, values in seeds.items()},
        "cap": metrics[0].cap,
        "error_over_rows": {
            "information": max(each.information_error for each in metrics),
            "log_likelihood": max(each.log_likelihood_error for each in metrics),
        },
    }


def table(
    methods: Sequence[Method],
    data: Dataset,
    budget: Budget,
    *,
    part: Path | None = None,
    weights: Mapping[str, Path] | None = None,
) -> dict[str, dict[str, Any]]:
    """Every method's facts, printed as they come.

    Args:
        methods: the rows.
        data: of all of them.
        budget: of all of them.
        part: where the facts are kept until the table is whole, and taken up again if it was interrupted.
        weights: folders for the runs of some methods, by name.
    """
    print(f"{data}")
    kept = {"data": data.fingerprint(), "budget": asdict(budget), "methods": {}}
    if part is not None and part.is_file():
        before = read_json(part)
        if any(before[name] != json.loads(json.dumps(kept[name])) for name in ("data", "budget")):
            raise ValueError(
                f"{part} is of other data or another budget: finish it as it was begun, or delete it"
            )
        kept = before
    for method in methods:
        known = method.name in kept["methods"]
        if not known:
            found = row(method, data, budget)
            kept["methods"][method.name] = found.facts
            if weights is not None and method.name in weights:
                shutil.rmtree(weights[method.name], ignore_errors=True)  # `save` overwrites nothing
                found.run.save(weights[method.name])
            if part is not None:
                write_json(part, kept)
        print(f"{_line(method.name, kept['methods'][method.name], budget)}{' (kept)' * known}", flush=True)
    if part is not None:
        part.unlink()
    return {method.name: kept["methods"][method.name] for method in methods}


def _line(name: str, facts: Mapping[str, Any], budget: Budget) -> str:
    seeds = facts["by_seed"]
    return (
        f"{name:15s} AU {shown(seeds['active_units'], 1)} of {budget.latents}, KL {shown(seeds['kl'])}, I(z; x) "
        f"{shown(seeds['information'])} (cap {facts['cap']:.2f}), log p(x) {shown(seeds['log_likelihood'])}, "
        f"decoder rate {facts['decoder_rate']:g}, {facts['seconds']:.0f} s"
    )


def summary(rows: Mapping[str, Mapping[str, Any]], data: Dataset, budget: Budget) -> dict[str, Any]:
    """What a script writes: the budget, the search, each row, and who has the highest likelihood."""
    by_likelihood = sorted(rows, key=lambda name: -rows[name]["log_likelihood"]["mean"])
    return {
        "seconds": round(sum(one["seconds"] for one in rows.values()), 1),  # of this run and those before it
        "data": data.fingerprint() | {"likelihood": data.likelihood},
        "budget": asdict(budget),
        "search": {
            "settings_per_method": len(RATES),
            "decoder_rates": RATES,
            "chosen_by": "validation bound",
        },
        "by_log_likelihood": by_likelihood,
        "methods": dict(rows),
    }


def report(
    record: Record,
    stem: str,
    methods: Sequence[Method],
    data: Dataset,
    budget: Budget,
    *,
    keep: str | None = None,
    **further: Any,
) -> None:
    """Make a table, or go on with it, and write it as ``stem.json`` and ``stem.png``.

    Args:
        record: the script's.
        stem: of the files.
        methods, data, budget: as `table` takes them.
        keep: the method whose weights are kept, in the folder ``stem_method``: a test recomputes its row from them.
        further: facts of the script's own.
    """
    folder = record.folder
    part = None if folder is None else folder / f"{stem}.part.json"
    weights = {} if folder is None or keep is None else {keep: folder / f"{stem}_{keep.lower()}"}
    rows = table(methods, data, budget, part=part, weights=weights)
    facts = {**summary(rows, data, budget), **further}
    print("by log p(x): " + " > ".join(facts["by_log_likelihood"]))
    record.write(facts, stem=stem, main=figure(facts, data.name))


def markdown(facts: Mapping[str, Any]) -> str:
    """The table of what `summary` gives, mean ± standard error over seeds: what README.md says, and a test compares."""
    cap = next(iter(facts["methods"].values()))["cap"]
    lines = [
        f"| | active units of {facts['budget']['latents']} | KL | I(z; x), cap {cap:.2f} | log p(x) | m |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in facts["methods"].items():
        found = [shown(one["by_seed"][each], 2) for each in ("kl", "information", "log_likelihood")]
        units, lower = shown(one["by_seed"]["active_units"], 1), one["certified_m"]
        lines.append(
            f"| {name} | {units} | {' | '.join(found)} | {'' if lower is None else f'{lower:.3g}'} |"
        )
    return "\n".join(lines)


def written(text: str) -> str:
    """README's text, with each table as its file has it: the lines below ``<!-- stem -->``."""

    def again(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{markdown(read_json(RESULTS / f'{found[2]}.json'))}\n\n"

    return re.sub(r"(<!-- ([\w-]+) -->)\n+(?:\|.*\n)*\n*", again, text)


@styled
def figure(facts: Mapping[str, Any], title: str) -> Figure:
    """Active units, KL and information of every seed against its log-likelihood, from what `summary` gives."""
    drawn, axes = plt.subplots(1, 3, figsize=(WIDTH, 3.0), sharex=True, layout="constrained")
    latents, methods = facts["budget"]["latents"], facts["methods"]
    panels = {
        "active_units": f"active units of {latents}",
        "kl": "KL(q ‖ p), nats a row",
        "information": "I(z; x), nats",
    }
    for panel, (name, label) in zip(axes, panels.items(), strict=True):
        for number, (method, one) in enumerate(methods.items()):
            panel.plot(
                one["by_seed"]["log_likelihood"],
                one["by_seed"][name],
                MARKERS[number],
                ms=5,
                color=COLOURS[number],
                markerfacecolor=COLOURS[number] if method in IDENTIFIABLE else "none",
                ls="none",
                label=method,
            )
        panel.set(xlabel="log p(x) of test rows, nats", ylabel=label)
        panel.margins(0.1)
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    axes[0].set_ylim(-0.05 * latents, 1.08 * latents)
    cap = next(iter(methods.values()))["cap"]
    axes[2].axhline(cap, color="#444444", lw=0.8, ls="--")
    axes[2].set_title(f"dashed: cap, log n = {cap:.2f}", fontsize=7, loc="right")
    axes[2].set_ylim(top=1.05 * cap)
    drawn.suptitle(f"{title}: each seed; filled where the decoder is injective by construction")
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(methods), handletextpad=0.1)
    return drawn


def main() -> None:
    """Write the tables of README.md again."""
    readme = RESULTS.parent / "README.md"
    readme.write_text(written(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

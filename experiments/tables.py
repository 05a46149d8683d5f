"""A table of methods: all with the same data, encoder, steps and search, judged on the same test rows.

Every method is trained once at each of `RATES`, all seeds at once, and is shown at the rate whose importance-weighted
bound on the validation rows is the highest on average; the test rows have no part in that choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import identkit as ik
from experiments.record import shown, spread
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
MARKERS = "os^Dv*P"
IDENTIFIABLE = ("LIDVAE", "LIDMVAE", "LIDSVAE")


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


def table(methods: Sequence[Method], data: Dataset, budget: Budget) -> dict[str, Row]:
    """Every method's row, printed as it comes."""
    found = {}
    print(f"{data}")
    for method in methods:
        found[method.name] = one = row(method, data, budget)
        seeds = one.facts["by_seed"]
        print(
            f"{method.name:11s} AU {shown(seeds['active_units'], 1)} of {budget.latents}, KL {shown(seeds['kl'])}, I(z; x) "
            f"{shown(seeds['information'])} (cap {one.facts['cap']:.2f}), log p(x) {shown(seeds['log_likelihood'])}, "
            f"decoder rate {one.facts['decoder_rate']:g}, "
            f"{sum(each['seconds_of_training'] for each in one.facts['search']):.0f} s",
            flush=True,
        )
    return found


def summary(found: Mapping[str, Row], data: Dataset, budget: Budget) -> dict[str, Any]:
    """What a script writes: the budget, the search, each row, and who has the highest likelihood."""
    rows = {name: one.facts for name, one in found.items()}
    by_likelihood = sorted(rows, key=lambda name: -rows[name]["log_likelihood"]["mean"])
    return {
        "data": data.fingerprint() | {"likelihood": data.likelihood},
        "budget": asdict(budget),
        "search": {
            "settings_per_method": len(RATES),
            "decoder_rates": RATES,
            "chosen_by": "validation bound",
        },
        "by_log_likelihood": by_likelihood,
        "methods": rows,
    }


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

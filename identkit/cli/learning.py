"""The commands `identkit train` and `identkit diagnose`: their options; what they do lives in `training`, `diagnosing`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer

from identkit.cli import shown, written

_OPTIONS = "such as {example}; separated by commas outside brackets"


def train(
    data: str | None = typer.Option(
        None,
        "--data",
        metavar="DATA",
        help="pinwheel, two-moons, circles, checkerboard, spirals, eight-gaussians, digits, mnist, fashion-mnist, "
        "omniglot, markov, lstm; or a CSV, NPZ, IDX or text file.",
    ),
    model: str | None = typer.Option(
        None, "--model", metavar="NAME", help="lidvae (the default), vae, and the mixture and sequence forms."
    ),
    out: Path | None = typer.Option(
        None, "--out", metavar="DIR", help="The run's new folder; runs/MODEL-DATA by default."
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Go on with the interrupted run in --out, as it was asked for."
    ),
    latents: int | None = typer.Option(
        None, "--latents", metavar="K", min=1, help="2 by default, 16 for images, never more than columns."
    ),
    likelihood: str | None = typer.Option(
        None,
        "--likelihood",
        metavar="NAME",
        help="gaussian, bernoulli, poisson, categorical: as suits the data.",
    ),
    sigma: str | None = typer.Option(
        None, "--sigma", metavar="S", help="Of a Gaussian likelihood: a number, or learned (the default)."
    ),
    min_information: float | None = typer.Option(
        None,
        "--min-information",
        metavar="NATS",
        help="Nats that the latents shall certainly have under the model; needs --sigma.",
    ),
    seeds: int | None = typer.Option(
        None, "--seeds", metavar="S", min=1, help="Members that train side by side; 2 by default."
    ),
    epochs: int | None = typer.Option(
        None, "--epochs", metavar="N", min=1, help="By default as many as make 3,000 steps."
    ),
    steps: int | None = typer.Option(None, "--steps", metavar="N", min=1, help="In place of --epochs."),
    batch_size: int | None = typer.Option(
        None, "--batch-size", metavar="N", min=1, help="128 by default, fewer for few rows."
    ),
    learning_rate: float | None = typer.Option(
        None, "--learning-rate", metavar="RATE", help="Of Adam, at its peak; 0.002 by default."
    ),
    patience: int | None = typer.Option(
        None, "--patience", metavar="N", min=1, help="Evaluations without a better ELBO after which to stop."
    ),
    objective: str | None = typer.Option(
        None,
        "--objective",
        metavar="NAME",
        help="elbo (the default), beta, annealing, free-bits, iwae, semi-amortised, lagging.",
    ),
    beta: float | None = typer.Option(
        None, "--beta", metavar="B", help="Weight of the KL, for --objective beta."
    ),
    model_options: str | None = typer.Option(
        None,
        "--model-options",
        metavar="OPTIONS",
        help=f"Of the model, {_OPTIONS.format(example='hidden=[128,128],map=icnn')}.",
    ),
    data_options: str | None = typer.Option(
        None,
        "--data-options",
        metavar="OPTIONS",
        help=f"Of the data's loader, {_OPTIONS.format(example='label=species,standardise=true')}.",
    ),
    objective_options: str | None = typer.Option(
        None,
        "--objective-options",
        metavar="OPTIONS",
        help=f"Of the objective, {_OPTIONS.format(example='nats=0.2')}.",
    ),
    seed: int | None = typer.Option(
        None, "--seed", metavar="N", min=0, help="Of all randomness; 0 by default."
    ),
    device: str = typer.Option("auto", "--device", metavar="NAME", help="cpu, cuda, or auto."),
    figures: bool = typer.Option(True, "--figures/--no-figures", help="Whether to draw them."),
    as_json: bool = typer.Option(
        False, "--json", help="Print one JSON object, and nothing else, on standard output."
    ),
) -> int:
    """Train a latent-variable model on data, and say how much its latents tell, with what is certified.

    The run's folder holds weights, config, curves, metrics and figures; nothing is ever overwritten.
    Exit status: 0 done, 1 every member diverged, 2 bad input.
    """
    from identkit.cli import training

    _quiet()
    given = {
        name: value
        for name, value in {
            "data": data,
            "model": model,
            "latents": latents,
            "likelihood": likelihood,
            "sigma": sigma,
            "min_information": min_information,
            "seeds": seeds,
            "epochs": epochs,
            "steps": steps,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "patience": patience,
            "objective": objective,
            "beta": beta,
            "model_options": model_options,
            "data_options": data_options,
            "objective_options": objective_options,
            "seed": seed,
        }.items()
        if value is not None
    }
    asked, folder = training.resumed(out, given) if resume else training.begun(out, given)
    found = training.trained(asked, folder, device=device, resume=resume)
    drawn: list[str] = []
    if figures:
        with shown.waiting("drawing"):
            drawn = training.draw(found, folder)
    if as_json:
        print(json.dumps(training.told(found, folder, drawn), allow_nan=False))
    else:
        training.show(found, folder, drawn)
    return 0 if bool(found.fine.any()) else 1


def diagnose(
    run: Path = typer.Argument(..., metavar="RUN", help="The folder of a run of `identkit train`."),
    data: str | None = typer.Option(
        None,
        "--data",
        metavar="DATA",
        help="A file or a name, as train takes it; the run's test rows by default.",
    ),
    member: int | None = typer.Option(
        None, "--member", metavar="N", min=1, help="Which member, from 1; the best by default."
    ),
    rows: int = typer.Option(
        32, "--rows", metavar="N", min=1, help="Rows, drawn at random, whose posteriors are compared."
    ),
    threshold: float = typer.Option(
        0.01, "--threshold", metavar="NATS", help="At most so many count as collapsed."
    ),
    seed: int = typer.Option(0, "--seed", metavar="N", min=0, help="Of all randomness."),
    out: Path | None = typer.Option(
        None,
        "--out",
        metavar="DIR",
        help="Where diagnosis.json and diagnosis.png go; RUN/diagnosis by default.",
    ),
    as_json: bool = typer.Option(
        False, "--json", help="Print one JSON object, and nothing else, on standard output."
    ),
) -> int:
    """Tell whose fault a collapse is: latent by latent, the true posterior beside the encoder's, in nats.

    True posteriors take seconds to minutes: more for more latents and rows.
    """
    from identkit.cli import diagnosing

    _quiet()
    with shown.stages() as tell:
        tell("reading the run")
        question = diagnosing.question(run, data, member)
        folder = written.folder(out or run / "diagnosis")
        found = diagnosing.diagnosed(question, rows=rows, threshold=threshold, seed=seed, tell=tell)
        answer = diagnosing.wrote(found, folder)
    if as_json:
        print(json.dumps(answer, allow_nan=False))
    else:
        print(found)
        print(f"\nThe figure is {folder}/diagnosis.png")
    return 0


def _quiet() -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; a window would need a display

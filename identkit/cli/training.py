"""`identkit train`: data, model and objective as they were asked for, the run in its folder, and what is told of it."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from identkit.cli import shown, written
from identkit.cli.options import settings
from identkit.lidvae import checkpoints, datasets
from identkit.lidvae.datasets import Dataset
from identkit.lidvae.loop import Progress
from identkit.lidvae.models import MODELS
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import OBJECTIVES, Objective
from identkit.lidvae.run import CHECKPOINT, CONFIG, Run
from identkit.lidvae.training import fit

_ASKED = "asked.json"  # beside the checkpoint: what was asked for, so that it can be gone on with
_STEPS, _BATCH, _SEEDS = 3000, 128, 2
_FEWEST = 8  # batches an epoch, for which small tables have smaller batches
_LATENTS, _OF_IMAGES = 2, 16
_ELSEWHERE = (
    "members",
    "sigma",
    "categories",
    "decoder",
    "min_information",
)  # of a model, or nothing that can be typed
_COMPONENTS = 10  # where no labels say how many


def begun(out: Path | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """What is asked for, and the new folder for it, made before the work begins.

    Raises:
        ValueError: no data named, or a folder that holds something.
    """
    if "data" not in given:
        raise ValueError(f"--data should name data ({', '.join(datasets.NAMES)}) or a file")
    asked = {"model": "lidvae", **given}
    name = Path(asked["data"]).name.split(".")[0]
    folder = out or Path("runs") / f"{asked['model']}-{name}"
    if (folder / CHECKPOINT / _ASKED).exists() and not (folder / CONFIG).exists():
        raise ValueError(
            f"{folder} holds a run that was interrupted: --resume goes on with it; or name another --out"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already, and nothing is overwritten: name another --out")
    return asked, folder


def resumed(out: Path | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    """What the interrupted run in a folder was asked for.

    Raises:
        ValueError: no such run, or another question than its own.
    """
    if out is None:
        raise ValueError("--resume should stand beside the --out of an interrupted run")
    if (out / CONFIG).exists():
        raise ValueError(f"{out} holds a run that was finished: there is nothing to resume")
    if not (out / CHECKPOINT / _ASKED).exists():
        raise ValueError(f"{out} holds no interrupted run to resume")
    others = [path.name for path in out.iterdir() if path.name != CHECKPOINT]
    if others:
        raise ValueError(
            f"{out} holds {others[0]} beside the interrupted run; nothing is overwritten: move it away"
        )
    asked = checkpoints.read_json(out / CHECKPOINT / _ASKED)
    for name, value in given.items():
        if asked.get(name) != value:
            was = f"was {asked[name]}" if name in asked else "was not given"
            raise ValueError(
                f"--{name.replace('_', '-')} {was} when the run in {out} began, got {value}: leave it out to go on"
            )
    return asked, out


def trained(asked: Mapping[str, Any], folder: Path, *, device: str, resume: bool) -> Run:
    """Train, and write the run to its folder; interrupted, it can be resumed from there.

    Raises:
        ValueError: whatever does not go together, before the folder is made.
    """
    import torch

    data = _data(asked)
    model = _model(asked, data)
    objective = _objective(asked)
    rows = len(data.train)
    batch = asked.get("batch_size", max(1, min(_BATCH, rows // _FEWEST)))
    given = {name: asked[name] for name in ("epochs", "steps", "learning_rate", "patience") if name in asked}
    if "epochs" in given and "steps" in given:
        raise ValueError(f"give --epochs or --steps, not both: got {given['epochs']} and {given['steps']}")
    if "epochs" not in given and "steps" not in given:
        given["epochs"] = -(-_STEPS // max(1, rows // batch))
    place = folder / CHECKPOINT
    print(_announced(model, data, folder), file=sys.stderr)
    try:
        with shown.progress() as show:

            def step(progress: Progress) -> None:
                if not (place / _ASKED).exists():
                    checkpoints.write_json(place / _ASKED, asked)
                show(progress.step, progress.steps, f"steps; validation ELBO {progress.elbo:.4g} nats")

            run = fit(
                model,
                data,
                **given,
                batch_size=batch,
                seeds=asked.get("seeds", _SEEDS),
                objective=objective,
                device=device,
                generator=torch.Generator().manual_seed(asked.get("seed", 0)),
                checkpoint=place,
                resume=resume,
                progress=step,
            )
    except KeyboardInterrupt:
        if checkpoints.exists(place, "training"):
            checkpoints.write_json(place / _ASKED, asked)
            print(f"identkit train --resume --out {folder} goes on from here", file=sys.stderr)
        raise
    for name, why in zip(run.names, run.stopped, strict=True):
        if why is not None:
            print(f"warning: {name} stopped: {why}", file=sys.stderr)
    with shown.waiting("measuring on the test rows"):
        run.save(folder)
    shutil.rmtree(place)
    return run


def _data(asked: Mapping[str, Any]) -> Dataset:
    source = asked["data"]
    options = settings(asked.get("data_options", ""), "--data-options")
    likelihood = asked.get("likelihood")
    if likelihood is not None:
        if (
            source not in datasets.NAMES
            and "likelihood" in inspect.signature(datasets.loader(source)).parameters
        ):
            options.setdefault("likelihood", likelihood)
        if source in datasets.IMAGES and likelihood != "bernoulli":
            options.setdefault("binarise", False)
    return datasets.load(source, **options)


def _model(asked: Mapping[str, Any], data: Dataset) -> Autoencoder:
    name = asked["model"]
    if name not in MODELS:
        raise ValueError(f"--model should be one of {', '.join(MODELS)}, got {name!r}")
    kind: Any = MODELS[name]
    takes = inspect.signature(kind).parameters
    likelihood = asked.get("likelihood", data.likelihood)
    columns = data.train.shape[1]
    usual = _OF_IMAGES if data.shape is not None else _LATENTS
    options: dict[str, Any] = {
        "data_dim": columns,
        "latent_dim": asked.get("latents", min(usual, columns)),
        "likelihood": likelihood,
        "seed": asked.get("seed", 0),
    }
    if likelihood != "categorical" and "sigma" not in takes:
        raise ValueError(
            f"--model {name} goes with sequences of states (markov, lstm, a text), got {data.name}, which is "
            f"{data.likelihood}"
        )
    own = _known(asked.get("model_options"), "--model-options", name, takes, (*options, *_ELSEWHERE))
    if likelihood == "gaussian":
        options["sigma"] = _sigma(asked)
    elif "sigma" in asked:
        raise ValueError(f"--sigma goes with a gaussian likelihood, got {likelihood}")
    if "min_information" in asked:
        if "min_information" not in takes:
            able = ", ".join(
                n for n, m in MODELS.items() if "min_information" in inspect.signature(m).parameters
            )
            raise ValueError(f"--min-information goes with {able}, got --model {name}")
        options["min_information"] = asked["min_information"]
    if likelihood == "categorical":
        options["categories"] = data.categories
    if "components" in takes:
        counted = None if data.labels is None else len(data.labels.train.unique())
        options["components"] = counted if counted is not None and counted > 1 else _COMPONENTS
    if own.get("encoder") == "residual" and "shape" not in own and data.shape is not None:
        options["shape"] = (1, *data.shape) if len(data.shape) == 2 else data.shape
    return kind(**{**options, **own})


def _sigma(asked: Mapping[str, Any]) -> float | str:
    written_down = asked.get("sigma")
    if written_down is None:
        if "min_information" in asked:
            raise ValueError("--min-information is relative to the noise: give a number for --sigma too")
        return "learned"
    if written_down == "learned":
        return "learned"
    try:
        return float(written_down)
    except ValueError:
        raise ValueError(f"--sigma should be a number or learned, got {written_down!r}") from None


def _objective(asked: Mapping[str, Any]) -> Objective:
    name = asked.get("objective", "beta" if "beta" in asked else "elbo")
    if name not in OBJECTIVES:
        raise ValueError(f"--objective should be one of {', '.join(OBJECTIVES)}, got {name!r}")
    kind: Any = OBJECTIVES[name]
    takes = inspect.signature(kind).parameters
    options = _known(asked.get("objective_options"), "--objective-options", name, takes, ())
    if "beta" in asked:
        if name != "beta":
            raise ValueError(f"--beta goes with --objective beta, got {name}")
        options["beta"] = asked["beta"]
    return kind(**options)


def _known(
    text: str | None, option: str, name: str, takes: Mapping[str, Any], elsewhere: tuple[str, ...]
) -> dict[str, Any]:
    """Options that a constructor takes."""
    found = settings(text or "", option)
    able = [key for key in takes if key not in elsewhere]
    for key, value in found.items():
        if key not in able:
            raise ValueError(f"{option} of {name} are {', '.join(able)}; got {key!r}")
        if isinstance(value, list):
            found[key] = tuple(value)
    return found


def _announced(model: Autoencoder, data: Dataset, folder: Path) -> str:
    facts = [f"{model.latents} latents", f"{model.likelihood.name} likelihood"]
    components = getattr(model, "components", None)
    if components is not None:
        facts.insert(0, f"{components} components")
    return f"{model.name} on {data!r}: {', '.join(facts)}; into {folder}"


# --- what is told ----------------------------------------------------------------------------------------


def told(run: Run, folder: Path, drawn: list[str]) -> dict[str, Any]:
    """The object that `--json` prints."""
    facts = checkpoints.read_json(folder / CONFIG)
    metrics = [member.to_dict() for member in run.metrics]
    return checkpoints.plain(
        {"folder": folder, **facts, "metrics": metrics, "figures": [str(folder / name) for name in drawn]}
    )


def show(run: Run, folder: Path, drawn: list[str]) -> None:
    """Print the members' table and the sentences below it."""
    best = run.best_number if bool(run.fine.any()) else None
    about = run.about
    rows = [
        _row(name, measured, number == best, run.stopped[number] is not None)
        for number, (name, measured) in enumerate(zip(run.names, run.metrics, strict=True))
    ]
    columns = list(rows[0])
    first = run.metrics[0]
    title = (
        f"{about['model']} on {about['data']['name']}: {run.steps:,} steps in {run.seconds:.0f} s; "
        f"{first.n:,} test rows, nats a row"
    )
    lines = [f"I(z; x) is at most log n = {first.cap:.2f} on these rows, whatever the model."]
    if first.states is not None:
        lines[0] += f" I(y; x) is at most log {first.states.states} = {first.states.cap:.2f}."
    if best is not None:
        guarantee = run.best.certificate()
        lines.append(
            f"* best on the validation rows, {run.names[best]}: {_promise(guarantee, run.metrics[best].verdict)}"
        )
    figures = f", figures {', '.join(drawn)}" if drawn else ""
    lines.append(f"{folder} holds the run{figures}.")
    shown.table(title, columns, [list(row.values()) for row in rows], lines)


def _row(name: str, metrics: Any, best: bool, stopped: bool) -> dict[str, str]:
    row = {
        "member": f"{name}{' *' if best else ', diverged' if stopped else ''}",
        "ELBO": f"{metrics.elbo:.2f}",
        "log p(x)": f"{metrics.log_likelihood:.2f} ±{metrics.log_likelihood_error:.2f}",
        "KL": f"{metrics.total_kl:.2f}",
        "I(z; x)": f"{metrics.information:.2f} ±{metrics.information_error:.2f}",
        "active": f"{len(metrics.active_units)}/{_latents(metrics)}",
    }
    if metrics.states is not None:
        row["I(y; x)"] = f"{metrics.states.information:.2f}"
        if metrics.states.accuracy is not None:
            row |= {"accuracy": f"{metrics.states.accuracy:.2f}", "ARI": f"{metrics.states.ari:.2f}"}
    row["m"] = "-" if metrics.lower is None else f"{metrics.lower:.3g}"
    row["floor"] = "-" if metrics.floor is None else f"{metrics.floor:.3g}"
    row["check"] = metrics.verdict or ""
    return row


def _latents(metrics: Any) -> int:
    return sum(name.startswith("z[") for name in metrics.kl)


def _promise(guarantee: Any, verdict: str | None) -> str:
    if guarantee is not None:
        return f"{guarantee}."
    if verdict == "GLOBAL":
        return "its decoder sees every latent, by the proof of `identkit.check`; no nats are certified."
    return "nothing keeps its decoder from losing a latent."


def draw(run: Run, folder: Path) -> list[str]:
    """Draw the run's figures into its folder; their names."""
    from identkit import plot

    figures: dict[str, Callable[[], Any]] = {
        "curves": lambda: plot.curves(run),
        "active_units": lambda: plot.active_units(run),
    }
    if bool(run.fine.any()):
        figures |= {
            "latent_grid": lambda: plot.latent_grid(run.best, run.data),
            "samples": lambda: plot.samples(run.best, run.data),
            "reconstructions": lambda: plot.reconstructions(run.best, run.data),
        }
    for name, make in figures.items():
        written.figure(folder / f"{name}.png", make())
    return [f"{name}.png" for name in figures]

"""`fit`: all members, seeds and settings, trained at once; what was learned comes back as a `Run`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from identkit.lidvae import checkpoints
from identkit.lidvae.datasets import Dataset, from_rows, refuse_outside
from identkit.lidvae.datasets.support import refuse_few
from identkit.lidvae.loop import Plan, Progress, Training
from identkit.lidvae.members import stack
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import ELBO, Objective
from identkit.lidvae.optimiser import SCHEDULES
from identkit.lidvae.run import Run
from identkit.model.compiled.data import whole

_EVALUATIONS = 50  # along a run, where it has more epochs than that


def fit(
    model: Autoencoder,
    data: Dataset | Any,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    seeds: int = 1,
    objective: Objective | None = None,
    learning_rate: float = 2e-3,
    decoder_rate: float = 1.0,
    batch_size: int = 128,
    schedule: str = "one-cycle",
    clip: float | None = 5.0,
    patience: int | None = None,
    device: str | torch.device = "auto",
    compile: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    generator: torch.Generator | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Train copies of a model, all at once; the model itself is left as it was.

    Every member (a seed, a setting, or a pair of them) sees the rows in an order of its own and draws its own latents;
    the sum of their losses gives each its own gradient, so that they train side by side at little more than the price of
    one. A model that has not begun yet begins from the training rows (`Autoencoder.start_`).

    Args:
        model: of E members, its settings.
        data: a `Dataset`, or rows (n, d), which are split 80/10/10.
        epochs, steps: how long; one of the two.
        seeds: S; E·S members train, the first E from the model's own weights, the others from new ones.
        objective: what is minimised; the `ELBO` by default.
        learning_rate: of Adam, at the schedule's peak.
        decoder_rate: what it is multiplied by for the generative side.
        batch_size: rows of each member's batch; what is left over of an epoch waits for the next.
        schedule: one-cycle, cosine or constant.
        clip: of each member's gradient, in multiples of its usual norm; None: never.
        patience: evaluations without a better validation ELBO, after which training stops; every member then has the
            weights of its best evaluation. None: all steps, and the last weights.
        device: "auto" takes a GPU where there is one.
        compile: whether torch compiles the loss (it takes up to a minute, and pays in long runs).
        checkpoint: a folder to write the state of training to after every evaluation, and where it is interrupted.
        resume: whether to go on from there; on a CPU to the same weights, bit for bit, as without a break.
        generator: of all randomness, on the CPU; by default one seeded 0.
        progress: called after each evaluation.

    Raises:
        ValueError: data outside the likelihood's support, constant or with NaN, fewer rows than a batch, an option out of
            range, a folder that holds another run. A member that diverges raises nothing: it stops, `Run.stopped` says
            why, and the others go on.
    """
    objective = objective or ELBO()
    dataset = _dataset(model, data)
    plan = _plan(dataset, epochs, steps, batch_size, schedule, learning_rate, decoder_rate, clip, patience)
    folder = None if checkpoint is None else Path(checkpoint)
    if resume and (folder is None or not checkpoints.exists(folder, "training")):
        raise ValueError(
            f"resume=True needs a checkpoint folder that holds a run, got checkpoint={checkpoint!r}"
        )
    if folder is not None and not resume and checkpoints.exists(folder, "training"):
        raise ValueError(
            f"{folder} holds a run already: pass resume=True to go on with it, or another folder"
        )
    source = generator or torch.Generator().manual_seed(0)
    place = _device(device)
    started = _members(model, whole(seeds, "seeds"), dataset, source)
    training = Training(
        started.to(place),
        dataset.to(place),
        plan,
        objective,
        int(torch.randint(2**62, (), generator=source)),
        compile,
    )
    about = {
        "model": model.name,
        "settings": model.settings,
        "modules": dict(model.own_modules),
        "members": started.members,
        "seeds": seeds,
        "data": dataset.fingerprint(),
        "recipe": dataset.recipe,
        "objective": {"name": type(objective).__name__, **asdict(objective)},
        "plan": asdict(plan),
    }
    if resume and folder is not None:
        training.load(folder, checkpoints.plain(about))
    training.run(folder, about, progress or (lambda done: None))
    return Run(
        model=training.chosen(),
        dataset=dataset,
        objective=objective,
        seeds=seeds,
        curves=training.curves(),
        stopped=tuple(training.stopped),
        steps=training.step,
        seconds=training.seconds,
        about=checkpoints.plain(about),
    )


def _members(model: Autoencoder, seeds: int, data: Dataset, generator: torch.Generator) -> Autoencoder:
    """Copies of the model: its own weights first, then new ones, each begun from the training rows."""
    first = int(torch.randint(2**31, (), generator=generator))
    copies = [copy.deepcopy(model), *(model.fresh(first + number) for number in range(1, seeds))]
    for one in copies:
        if not bool(one.started.all()):
            one.start_(data.train, generator=generator)
    # Members are trained: none has a gradient of its own yet.
    return stack(copies).train()


def _dataset(model: Autoencoder, data: Dataset | Any) -> Dataset:
    """Data that this model can explain."""
    categories = getattr(model.likelihood, "categories", None)
    if not isinstance(data, Dataset):
        words = None if categories is None else [str(state) for state in range(categories)]
        data = from_rows(torch.as_tensor(data), model.likelihood.name, name="data", vocabulary=words)
    names = data.column_names
    if model.columns not in (None, len(names)):
        raise ValueError(
            f"data should have the {model.columns} columns that the model explains, got {len(names)} in {data.name}"
        )
    for part in (data.train, data.validation, data.test):
        refuse_outside(part, model.likelihood.name, source=data.name, columns=names, categories=categories)
    return data


def _plan(
    data: Dataset,
    epochs: int | None,
    steps: int | None,
    batch_size: int,
    schedule: str,
    learning_rate: float,
    decoder_rate: float,
    clip: float | None,
    patience: int | None,
) -> Plan:
    """The options, held to their ranges."""
    if (epochs is None) == (steps is None):
        raise ValueError(f"one of epochs and steps should be given, got epochs={epochs} and steps={steps}")
    refuse_few(
        len(data.train),
        whole(batch_size, "batch_size"),
        source=f"train of {data.name}",
        purpose="for one batch",
    )
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule should be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    for name, value in (("learning_rate", learning_rate), ("decoder_rate", decoder_rate), ("clip", clip)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} should be a positive number, got {value}")
    if patience is not None:
        whole(patience, "patience")
    per_epoch = len(data.train) // batch_size
    total = whole(steps, "steps") if steps is not None else whole(epochs or 0, "epochs") * per_epoch
    return Plan(
        steps=total,
        per_epoch=per_epoch,
        every=max(1, min(total, max(per_epoch, math.ceil(total / _EVALUATIONS)))),
        batch_size=batch_size,
        schedule=schedule,
        learning_rate=learning_rate,
        decoder_rate=decoder_rate,
        clip=clip,
        patience=patience,
    )


def _device(device: str | torch.device) -> torch.device:
    """The device, if this machine has it.

    Raises:
        ValueError: it has not.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(
            f"device should be one that torch finds on this machine, got {device}: {why}"
        ) from None
    return place

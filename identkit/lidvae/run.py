"""`Run`: what `fit` gives back, and how it is written to a folder and read again (`load`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save as to_bytes
from torch import Tensor, nn

from identkit.lidvae import checkpoints, datasets
from identkit.lidvae.datasets import Dataset
from identkit.lidvae.members import member, stack
from identkit.lidvae.metrics import Metrics, measure
from identkit.lidvae.models import MODELS
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import OBJECTIVES, Objective

WEIGHTS, CONFIG, CURVES, METRICS = "weights.safetensors", "config.json", "curves.json", "metrics.json"
"""The files of a run's folder."""
CHECKPOINT = "checkpoint"
"""The folder within, where training keeps its state; `Run.save` leaves it alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Trained members with the curves of their training.

    `members` are models of their own, `best` is the one with the highest ELBO on the validation rows, `metrics` judges
    all of them on the test rows.
    """

    model: Autoencoder
    """All members in one module, settings side by side within a seed."""
    dataset: Dataset | None
    """What it was trained on; None for a run that was read from a folder without passing them: see `data`."""
    objective: Objective
    seeds: int
    curves: Mapping[str, Tensor]
    """``step`` (t,), ``train`` and ``validation`` ELBO (t, E), ``kl`` by group (t, E, J); nats a row."""
    stopped: tuple[str | None, ...]
    """Why a member stopped early; None for those that did not."""
    steps: int
    """That were taken."""
    seconds: float
    about: Mapping[str, Any]
    """Everything that the run was asked for, as JSON has it."""
    measured: tuple[Metrics, ...] | None = None
    """What the folder says that the metrics were."""

    @cached_property
    def members(self) -> tuple[Autoencoder, ...]:
        """Each member as a model of its own."""
        return tuple(member(self.model, number) for number in range(self.model.members))

    @property
    def names(self) -> tuple[str, ...]:
        """``seed 1``, or ``setting 2, seed 1`` where there are several settings."""
        settings = self.model.members // self.seeds
        return tuple(
            f"seed {number // settings + 1}"
            if settings == 1
            else f"setting {number % settings + 1}, seed {number // settings + 1}"
            for number in range(self.model.members)
        )

    @property
    def reached(self) -> Float[Tensor, " e"]:
        """The validation ELBO of each member's weights: the best of its curve under early stopping, else the last."""
        validation = self.curves["validation"]
        return validation.amax(0) if self.about["plan"]["patience"] else validation[-1]

    @property
    def fine(self) -> Bool[Tensor, " e"]:
        """The members that have not diverged."""
        return torch.tensor([why is None for why in self.stopped]) & torch.isfinite(self.reached)

    @property
    def best_number(self) -> int:
        """Which member is `best`, from 0.

        Raises:
            ValueError: all have diverged.
        """
        fine = self.fine
        if not bool(fine.any()):
            raise ValueError(f"no member was trained to the end: {self.names[0]}: {self.stopped[0]}")
        return int(torch.where(fine, self.reached, -torch.inf).argmax())

    @property
    def best(self) -> Autoencoder:
        """The member with the highest validation ELBO that has not diverged.

        Raises:
            ValueError: all have.
        """
        return self.members[self.best_number]

    @cached_property
    def data(self) -> Dataset:
        """What it was trained on, loaded again by their `Dataset.recipe` where they are not at hand.

        Raises:
            ValueError: they had none, or what it gives now are other data.
        """
        if self.dataset is not None:
            return self.dataset
        recipe = self.about.get("recipe")
        if recipe is None:
            raise ValueError(
                f"the run does not say how to load its data, {self.about['data']['name']}: pass them as data=…"
            )
        found = datasets.load(**recipe)
        _refuse_others(found, self.about)
        return found

    @cached_property
    def metrics(self) -> tuple[Metrics, ...]:
        """Each member's measures on the test rows, with a check of the best one's decoder."""
        if self.measured is not None:
            return self.measured
        labels = None if self.data.labels is None else self.data.labels.test
        certify = (self.best_number,) if bool(self.fine.any()) else ()
        return measure(self.model, self.data.test, objective=self.objective, labels=labels, certify=certify)

    def save(self, folder: str | Path) -> None:
        """Write weights, settings, curves and metrics to a new folder, which `load` reads.

        Raises:
            ValueError: the folder holds something already: nothing is overwritten.
        """
        place = Path(folder)
        held = [path.name for path in place.iterdir() if path.name != CHECKPOINT] if place.is_dir() else []
        if held or (place.exists() and not place.is_dir()):
            what = f"holds {held[0]}" if held else "is a file"
            raise ValueError(f"{place} {what} already, and nothing is overwritten: name another folder")
        metrics = self.metrics  # they may fail: before there is a folder
        place.mkdir(parents=True, exist_ok=True)
        tensors = {name: each.cpu().contiguous() for name, each in self.model.state_dict().items()}
        (place / WEIGHTS).write_bytes(to_bytes(tensors))
        checkpoints.write_json(place / CURVES, self.curves)
        checkpoints.write_json(place / METRICS, {"members": [each.to_dict() for each in metrics]})
        # Last: it makes the folder a run.
        facts = {
            "about": self.about,
            "members": self.names,
            "best": self.names[self.best_number] if bool(self.fine.any()) else None,
            "stopped": self.stopped,
            "steps": self.steps,
            "seconds": self.seconds,
        }
        checkpoints.write_json(place / CONFIG, facts)


def load(
    folder: str | Path,
    *,
    data: Dataset | None = None,
    objective: Objective | None = None,
    device: str | torch.device = "cpu",
    **modules: nn.Module,
) -> Run:
    """Read what `Run.save` wrote. Nothing in the folder is executed: modules of your own have to be passed again.

    Args:
        folder: of the run.
        data: what it was trained on; else they are loaded by their recipe when they are first asked for.
        objective: what it was trained by, if that is of your own kind.
        device: where the weights go.
        modules: ``encoder=…``, ``decoder=…``, where these were yours.

    Raises:
        ValueError: no run there, a broken file, another model's weights, other data, or a module that is missing.
    """
    place = Path(folder)
    if not (place / CONFIG).is_file():
        cut = (place / CHECKPOINT).is_dir()
        why = "training there was interrupted" if cut else "there is no config.json"
        raise ValueError(f"{place} should be the folder of a finished run, but {why}")
    facts = checkpoints.read_json(place / CONFIG)
    curves = checkpoints.read_json(place / CURVES)
    metrics = checkpoints.read_json(place / METRICS)
    try:
        about = facts["about"]
        seeds = int(about["seeds"])
        model = _rebuilt(place, about, seeds, modules)
        run = Run(
            model=model.to(device).eval(),
            dataset=data,
            objective=objective or _objective(place, about["objective"]),
            seeds=seeds,
            curves={name: torch.tensor(_numbers(values)) for name, values in curves.items()},
            stopped=tuple(facts["stopped"]),
            steps=int(facts["steps"]),
            seconds=float(facts["seconds"]),
            about=about,
            measured=tuple(Metrics.from_dict(each) for each in metrics["members"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{place} should hold a run as identkit writes it, but {error} is missing or wrong"
        ) from error
    if data is not None:
        _refuse_others(data, about)
    return run


def _rebuilt(
    place: Path, about: Mapping[str, Any], seeds: int, modules: Mapping[str, nn.Module]
) -> Autoencoder:
    """The model with its weights."""
    kind = MODELS.get(about["model"])
    if kind is None:
        raise ValueError(f"{place} holds a model {about['model']!r}; known are {', '.join(MODELS)}")
    needed: Mapping[str, str] = about["modules"]
    for name, written in needed.items():
        if name not in modules:
            raise ValueError(
                f"{place} has {'an' if name[0] in 'aeiou' else 'a'} {name} of its own, {written}: pass {name}=…, with any "
                "weights"
            )
    extra = [name for name in modules if name not in needed]
    if extra:
        raise ValueError(f"{place} has no {extra[0]} of its own, but {extra[0]}=… was passed")
    make: Any = kind
    settings = {name: _tuple(value) for name, value in about["settings"].items()}
    one = make(**settings, **modules, members=about["members"] // seeds, seed=0)
    model = stack([one] * seeds)
    try:
        model.load_state_dict(load_file(place / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{place / WEIGHTS} should hold the weights of the run: {error}") from None
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise ValueError(
            f"{place / WEIGHTS} should hold the weights of config.json's model: {first}"
        ) from None
    return model


def _tuple(value: Any) -> Any:
    """Lists of JSON as the constructors take them."""
    return tuple(value) if isinstance(value, list) else value


def _objective(place: Path, written: Mapping[str, Any]) -> Objective:
    kinds = {kind.__name__: kind for kind in OBJECTIVES.values()}
    options = {name: value for name, value in written.items() if name != "name"}
    kind: Any = kinds.get(written["name"])
    if kind is None:
        raise ValueError(
            f"{place} was trained by {written['name']}, which is not of identkit: pass objective=…"
        )
    return kind(**options)


def _refuse_others(data: Dataset, about: Mapping[str, Any]) -> None:
    """Refuse data that the run was not trained on: its metrics would not be about them."""
    wanted, found = about["data"], data.fingerprint()
    differs = [name for name in wanted if found.get(name) != wanted[name] and name != "name"]
    if differs:
        what = differs[0]
        raise ValueError(
            f"data should be those that the run was trained on, {wanted['name']} with {what} {wanted[what]}, got "
            f"{data.name} with {what} {found[what]}"
        )


def _numbers(values: Any) -> Any:
    """Null was what is not finite."""
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return math.nan if values is None else values

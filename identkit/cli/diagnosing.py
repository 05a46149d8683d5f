"""`identkit diagnose`: a trained member's latents held against the true posteriors of rows that it is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identkit.cli import written
from identkit.diagnosis import Diagnosis, diagnose
from identkit.lidvae import datasets
from identkit.lidvae.datasets import binarised
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.run import Run, load

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Question:
    """A member of a run, and the rows that it is asked about."""

    name: str
    model: Autoencoder
    x: Tensor


def question(folder: Path, data: str | None, member: int | None) -> Question:
    """Read a member of a run and the rows.

    Args:
        folder: of the run.
        data: a file or a name; None for the run's own test rows.
        member: which, from 1; None for the best.

    Raises:
        ValueError: no run, no such member, data that it cannot explain or that are gone.
    """
    run = load(folder)
    count = len(run.members)
    if member is not None and member > count:
        raise ValueError(f"--member should be one of 1, …, {count} in {folder}, got {member}")
    chosen = run.best_number if member is None else member - 1
    model = run.members[chosen]
    x = run.data.test if data is None else _rows(run, data)
    return Question(run.names[chosen], model, x)


def diagnosed(
    question: Question, *, rows: int, threshold: float, seed: int, tell: Callable[[str], None]
) -> Diagnosis:
    """Diagnose it.

    Args:
        rows, threshold, seed: as `most`, `threshold` and `seed` of `identkit.diagnose`.
        tell: called with what is going on.
    """
    count = min(rows, len(question.x))
    about = f"{question.name}: {count} rows, {question.model.latents} latents"
    return diagnose(
        question.model,
        question.x,
        most=rows,
        threshold=threshold,
        seed=seed,
        progress=lambda part: tell(f"{about}; {part}"),
    )


def wrote(found: Diagnosis, folder: Path) -> dict[str, Any]:
    """Write diagnosis.json and diagnosis.png; what the first one holds."""
    from identkit import plot

    answer = found.to_dict()
    written.json_file(folder / "diagnosis.json", answer)
    written.figure(folder / "diagnosis.png", plot.diagnosis(found))
    return answer


def _rows(run: Run, data: str) -> Tensor:
    """All rows of other data, read and scaled as those were that the run was trained on."""
    import torch

    recipe: dict[str, Any] = dict(run.about.get("recipe") or {"source": None})
    black_and_white = recipe.pop("binarise", recipe.pop("source") in datasets.IMAGES)
    standardised = recipe.pop("standardise", False)
    takes = inspect.signature(datasets.loader(data)).parameters
    options = {name: value for name, value in recipe.items() if name in takes}
    likelihood = run.model.likelihood.name
    if "likelihood" in takes:
        options["likelihood"] = likelihood
    if data in datasets.IMAGES:
        options["binarise"] = False
    found = datasets.load(data, **options)
    if black_and_white and found.likelihood == "bernoulli":
        found = binarised(found, 0, fresh=False)
    if found.likelihood != likelihood and likelihood == "categorical":
        raise ValueError(f"--data should be categorical as the run's are, got {found.likelihood} in {data}")
    x = torch.cat((found.train, found.validation, found.test))
    if run.model.columns not in (None, x.shape[1]):
        raise ValueError(
            f"--data should have the {run.model.columns} columns of the run, got {x.shape[1]} in {data}"
        )
    if likelihood == "categorical":
        return _translated(x, found.vocabulary or (), run.data.vocabulary or ())
    if standardised:
        scale = run.data.scale
        assert scale is not None
        raw = x if found.scale is None else found.scale.back(x)
        x = (raw - scale.location) / scale.scale
    return x


def _translated(x: Tensor, words: tuple[str, ...], known: tuple[str, ...]) -> Tensor:
    """States by the run's own vocabulary; a word that it lacks is its state 0, which is ``<unk>`` in texts.

    Raises:
        ValueError: the run has no word for what is unknown.
    """
    import torch

    places = {word: number for number, word in enumerate(known)}
    lacking = [word for word in words if word not in places]
    if lacking and known[:1] != ("<unk>",):
        raise ValueError(f"--data should hold the run's states {', '.join(known[:5])}, …, got {lacking[0]!r}")
    return torch.tensor([places.get(word, 0) for word in words])[x]

"""`Run`: what `fit` gives back, and how it is written to a folder and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identkit.lidvae import checkpoints
from identkit.lidvae.datasets import Dataset
from identkit.lidvae.members import member
from identkit.lidvae.metrics import Metrics, measure
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import Objective


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """Trained members with the curves of their training.

    `members` are models of their own, `best` is the one with the highest ELBO on the validation rows, `metrics` judges
    all of them on the test rows.
    """

    model: Autoencoder
    """All members in one module, settings side by side within a seed."""
    data: Dataset
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
    def best(self) -> Autoencoder:
        """The member with the highest validation ELBO that has not diverged.

        Raises:
            ValueError: all have.
        """
        last = (
            self.curves["validation"].amax(0)
            if self.about["plan"]["patience"]
            else self.curves["validation"][-1]
        )
        fine = torch.tensor([why is None for why in self.stopped]) & torch.isfinite(last)
        if not bool(fine.any()):
            raise ValueError(f"no member was trained to the end: {self.names[0]}: {self.stopped[0]}")
        return self.members[int(torch.where(fine, last, -torch.inf).argmax())]

    @cached_property
    def metrics(self) -> tuple[Metrics, ...]:
        """Each member's measures on the test rows."""
        labels = None if self.data.labels is None else self.data.labels.test
        return measure(self.model, self.data.test, objective=self.objective, labels=labels)

    def save(self, folder: str | Path) -> None:
        """Write weights and facts to a folder, which `identkit.lidvae.run.load` reads."""
        facts = {
            "about": self.about,
            "stopped": self.stopped,
            "steps": self.steps,
            "seconds": self.seconds,
            "curves": self.curves,
        }
        checkpoints.write(Path(folder), "run", self.model.state_dict(), facts)

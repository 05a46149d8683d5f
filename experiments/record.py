"""How an experiment writes what it found: one JSON with the command, the date and the machine, and a picture beside it."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiments.provenance import provenance
from identkit.lidvae.checkpoints import write_json

RESULTS = Path(__file__).parent / "results"


class Record:
    """One run of a script, from its command line to its files.

    Args:
        name: of the module and of its files.
        about: the module's docstring.
        presets: the sizes it can be run at, the first by default; a preset called smoke writes nothing into the
            repository.
        options: further ones of the script, by name, with what argparse is to know of each.
    """

    def __init__(
        self,
        name: str,
        about: str | None,
        presets: Sequence[str] = ("cpu", "smoke"),
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        parser = ArgumentParser(
            prog=f"python -m experiments.{name}", description=(about or "").partition("\n")[0]
        )
        parser.add_argument("--preset", choices=presets, default=presets[0])
        parser.add_argument("--out", type=Path, default=None, help="folder; experiments/results by default")
        for option, about_it in (options or {}).items():
            parser.add_argument(f"--{option}", **about_it)
        self.arguments: Namespace = parser.parse_args()
        self.name, self.preset = name, str(self.arguments.preset)
        given = {option: getattr(self.arguments, option) for option in options or {}}
        words = [f"--{option} {value}" for option, value in given.items() if value is not None]
        self.command = " ".join([f"python -m experiments.{name}", f"--preset {self.preset}", *words])
        self.began = time.monotonic()

    @property
    def smoke(self) -> bool:
        """Whether this only shows that the script runs."""
        return self.preset == "smoke"

    @property
    def folder(self) -> Path | None:
        """Where the files go; None: nowhere."""
        return self.arguments.out or (None if self.smoke else RESULTS)

    def write(self, found: Mapping[str, Any], *, stem: str | None = None, **figures: Figure) -> None:
        """Write ``name.json`` and ``name.png`` (``name_figure.png`` for other figures than `main`).

        Args:
            found: the facts.
            stem: of the files, where it is not the script's name.
            figures: by title.
        """
        result = {
            **provenance(self.command),
            "seconds": round(time.monotonic() - self.began, 1),
            **found,
        }
        print(f"{result['seconds']:.0f} s")
        if self.folder is None:
            for figure in figures.values():
                pyplot.close(figure)
            return
        stem = stem or self.name
        write_json(self.folder / f"{stem}.json", result)
        for title, figure in figures.items():
            suffix = "" if title == "main" else f"_{title}"
            figure.savefig(self.folder / f"{stem}{suffix}.png", dpi=200)
            pyplot.close(figure)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard error over seeds."""
    numbers = torch.tensor(list(values), dtype=torch.float64)
    error = float(numbers.std()) / len(numbers) ** 0.5 if len(numbers) > 1 else float("nan")
    return {"mean": float(numbers.mean()), "error": error}


def shown(values: Sequence[float], digits: int = 3) -> str:
    """``mean ± standard error`` for a table."""
    found = spread(values)
    return f"{found['mean']:.{digits}f} ± {found['error']:.{digits}f}"

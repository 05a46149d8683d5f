"""What a suite gives back and says on its way, and the two figures that any list of checks has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from identkit import plot
from identkit.theorem import TheoremCheck


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """What a suite found: the checks, and what there is to see and to say about them."""

    checks: tuple[TheoremCheck, ...]
    figures: Mapping[str, tuple[Figure, str]]
    """Name → the figure and its caption."""
    summary: tuple[str, ...]
    """Sentences: where the data come from, and the numbers that stand out."""
    tables: Mapping[str, Any] = field(default_factory=dict)
    """What else goes into results.json."""


@dataclass(frozen=True)
class Progress:
    """One step done: `check` is None where a figure was drawn."""

    done: int
    total: int
    name: str
    check: TheoremCheck | None


def theorem_figures(checks: Sequence[TheoremCheck]) -> dict[str, tuple[Figure, str]]:
    """The two figures that any list of checks has."""
    return {"theorem": theorem_figure(checks), "agreement": agreement_figure(checks)}


def theorem_figure(checks: Sequence[TheoremCheck]) -> tuple[Figure, str]:
    """KL against flatness, a point a datum, and its caption."""
    caption = (
        "The theorem, a point a datum. Left: KL(posterior ‖ prior) against flatness ½ Var(ℓ) under the "
        "prior, with the band in which theory/T4 certifies each KL to lie; collapsed data sit at the "
        "origin. Right: their ratio against the oscillation ω of ℓ, between its two curves."
    )
    return _figure(plot.theorem(checks)[0]), caption


def agreement_figure(checks: Sequence[TheoremCheck]) -> tuple[Figure, str]:
    """Counts of data by level and posterior, and their caption."""
    caption = (
        "Verdict against posterior: how many data of each level have the prior back, and how many do not."
    )
    return _figure(plot.agreement(checks)), caption


def _figure(axes: Any) -> Figure:
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("axes should belong to a figure")
    return figure

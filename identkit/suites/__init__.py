"""What `identkit verify --suite …` runs: the table of the suites. Each is a file: its models, its figures and its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from identkit.suites.as_json import results, versions
from identkit.suites.classical import run_classical
from identkit.suites.found import Progress, SuiteResult, theorem_figures
from identkit.suites.paper import classical_data

__all__ = [
    "SUITES",
    "Progress",
    "SuiteResult",
    "classical_data",
    "refuse_unknown",
    "results",
    "run",
    "theorem_figures",
    "versions",
]


def run(
    suite: str,
    *,
    progress: Callable[[Progress], None] | None = None,
    seed: int = 0,
    preset: str | None = None,
) -> SuiteResult:
    """Confirm the theorem on every model of a suite.

    Args:
        suite: "classical" (the models of Wang, Blei & Cunningham 2021 and their traps), "deep" (trained networks) or
            "all".
        progress: called after every step.
        seed: of all data that are drawn here.
        preset: how large the grid of networks is, "cpu", "many" or "gpu"; None for what the machine has.

    Raises:
        ValueError: an unknown suite or preset.
    """
    refuse_unknown(suite)
    return SUITES[suite](progress or (lambda step: None), seed, preset)


def refuse_unknown(suite: str) -> None:
    """Raise ValueError for a suite that there is not, naming those that there are."""
    if suite not in SUITES:
        raise ValueError(f"suite should be one of {', '.join(SUITES)}, got {suite!r}")


def _deep(progress: Callable[[Progress], None], seed: int, preset: str | None = None) -> SuiteResult:
    from identkit.suites.deep import run_deep

    return run_deep(progress, seed, preset)


def _all(progress: Callable[[Progress], None], seed: int, preset: str | None = None) -> SuiteResult:
    """Classical models and trained networks in one picture."""
    first = run_classical(lambda step: progress(replace(step, name=f"classical: {step.name}")), seed)
    second = _deep(lambda step: progress(replace(step, name=f"trained: {step.name}")), seed, preset)
    checks = (*first.checks, *second.checks)
    return SuiteResult(
        checks=checks,
        figures={**first.figures, **second.figures, **theorem_figures(checks)},
        summary=(*first.summary, *second.summary),
        tables=second.tables,
    )


SUITES: dict[str, Callable[[Callable[[Progress], None], int, str | None], SuiteResult]] = {
    "classical": run_classical,
    "deep": _deep,
    "all": _all,
}

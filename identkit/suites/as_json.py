"""The results object: what a list of checks is in JSON, and the versions that it depends on."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from identkit import __version__
from identkit.theorem import Row, TheoremCheck
from identkit.verdict import Level


def results(
    checks: Sequence[TheoremCheck],
    *,
    seconds: float,
    seed: int,
    command: str,
    tables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object of ``results.json``, strict JSON: what is not finite is null.

    Args:
        checks: what was found.
        seconds: the time it took.
        seed: of the data drawn.
        command: what was typed.
        tables: what else a suite has to say.
    """
    rows = [row for found in checks for row in found.rows]
    undecided = sum(_undecided(row, found) for found in checks for row in found.rows)
    return {
        "rows": [_strict(row.to_dict()) for row in rows],
        "agree": sum(row.agrees is True for row in rows),
        "disagree": sum(row.agrees is False for row in rows),
        "below_precision": sum(row.agrees is None for row in rows) - undecided,
        "undecided": undecided,
        "seconds": round(seconds, 3),
        "versions": versions(),
        "seed": seed,
        "command": command,
        **_strict(dict(tables or {})),
    }


def _undecided(row: Row, found: TheoremCheck) -> bool:
    """Whether the checker left it open: this row, or a datum of which it is the mean."""
    if row.agrees is not None:
        return False
    unknown = Level.UNKNOWN.value
    mine = (other for other in found.rows if other.latent == row.latent and other.datum is not None)
    return row.level == unknown or (row.datum is None and any(other.level == unknown for other in mine))


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("torch", "numpy", "scipy", "sympy", "python-flint", "matplotlib")
    return {
        "identkit": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }

"""What `verify` leaves behind: results.json, the figures and the report, each written whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from identkit.theorem import TheoremCheck

_DPI = 200


def folder(path: Path) -> Path:
    """Make the folder before the work begins, so that nothing computed is lost for want of one.

    Raises:
        OSError: it cannot be made.
    """
    path.mkdir(parents=True, exist_ok=True)
    return path


def file(path: Path) -> Path:
    """Refuse a file that cannot be written before the work begins.

    Raises:
        ValueError: it is a folder, or there is no folder to hold it.
    """
    if path.is_dir():
        raise ValueError(f"{path} should be a file to write, and is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{path} should lie in a folder that exists, and {path.parent} is none")
    return path


def everything(
    into: Path,
    title: str,
    checks: Sequence[TheoremCheck],
    figures: Mapping[str, tuple[Any, str]],
    summary: Sequence[str],
    results: Mapping[str, Any],
) -> None:
    """Write results.json, a PNG for each figure, and report.html; the results first, as the dearest."""
    from identkit import report

    json_file(into / "results.json", results)
    for name, (figure, _) in figures.items():
        _atomically(into / f"{name}.png", lambda path, figure=figure: figure.savefig(path, dpi=_DPI))
    words = {"command": results["command"], "versions": results["versions"], "summary": summary}
    _atomically(
        into / "report.html",
        lambda draft: report.write(draft, title=title, checks=checks, figures=figures, **words),
    )


def json_file(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n"
    _atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def text_file(path: Path, content: str) -> None:
    """Write a text in UTF-8."""
    _atomically(path, lambda draft: draft.write_text(content, encoding="utf-8"))


def figure(path: Path, drawn: Any) -> None:
    """Write a PNG."""
    _atomically(path, lambda draft: drawn.savefig(draft, dpi=_DPI))


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    # Whoever reads the file finds the old one or the new one, never half of it.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".identkit-") as drafts:
        draft = Path(drafts) / path.name
        write(draft)
        draft.replace(path)

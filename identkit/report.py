"""One self-contained HTML page that a student can read: verdicts, posteriors, figures, how to repeat."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from identkit.theorem import Row, TheoremCheck

_SHOWN_DATA = 10  # data of each check that the page lists; results.json has them all
_SHOWN_COUNTEREXAMPLES = 50
_DPI = 200


def write(
    path: str | Path,
    *,
    title: str,
    checks: Sequence[TheoremCheck],
    figures: Mapping[str, tuple[Figure, str]],
    summary: Mapping[str, Any] | Sequence[str],
    command: str,
    versions: Mapping[str, str],
) -> Path:
    """Write the report of `checks` to one HTML file, figures and style inside, nothing to fetch or to run.

    Counterexamples to the theorem come first, if there are any; then the theorem in three sentences, a line
    a check with its verdict, mean KL, band and explanation, the figures, and how to reproduce it all. Each
    verdict's certificate is verified while the report is written.

    Args:
        path: the file; its folder is made where there is none.
        title: the headline.
        checks: results of `identkit.theorem.verify`.
        figures: name → figure and caption, in the order of the page.
        summary: facts by name, or sentences.
        command: what was typed.
        versions: package → version.

    Returns:
        The path written.

    Raises:
        ValueError: `checks` is empty.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> from identkit.theorem import verify
    >>> check = verify("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", [[2.0]], at={"w": 0})
    >>> rest = {"figures": {}, "summary": [], "command": "identkit verify", "versions": {}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write(f"{folder}/report.html", title="Mine", checks=[check], **rest)
    ...     "CONSTANT" in page.read_text(encoding="utf-8")
    True
    """
    if not checks:
        raise ValueError("checks should hold at least one result of verify, got none")
    path = Path(path)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    wrong = [_Line.of(row, check) for check in checks for row in check.counterexamples]
    page = environment.get_template("report.html").render(
        title=title,
        holds=False if wrong else True if any(check.agrees for check in checks) else None,
        counts=_counts(checks),
        pooled=any(row.n > 1 for check in checks for row in check.rows if row.datum is not None),
        counterexamples=wrong[:_SHOWN_COUNTEREXAMPLES],
        more_counterexamples=max(0, len(wrong) - _SHOWN_COUNTEREXAMPLES),
        entries=[_Entry.of(check) for check in checks],
        figures=[(name, _embedded(figure), caption) for name, (figure, caption) in figures.items()],
        facts=summary if isinstance(summary, Mapping) else {},
        sentences=() if isinstance(summary, Mapping) else summary,
        command=command,
        versions=versions,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


@dataclass(frozen=True)
class _Line:
    """A row of results as the page prints it."""

    model: str
    setting: str
    datum: str
    latent: str
    level: str
    kl: str
    kl_error: str
    kl_conditional: str
    band: str
    flatness: str
    omega: str
    agrees: str

    @classmethod
    def of(cls, row: Row, check: TheoremCheck) -> _Line:
        return cls(
            model=check.model,
            setting=check.setting,
            datum="mean" if row.datum is None else str(row.datum),
            latent="all" if row.latent is None else row.latent,
            level=row.level,
            kl=_number(row.kl),
            kl_error=_number(row.kl_error, 1),
            kl_conditional=_number(row.kl_conditional),
            band=_band(row),
            flatness=_number(row.flatness),
            omega=_number(row.omega),
            agrees=_answer(row.agrees, "below precision" if row.below_precision else "undecided"),
        )


@dataclass(frozen=True)
class _Entry:
    """A check as the page prints it: one line of the table, and what unfolds below it."""

    model: str
    setting: str
    levels: Sequence[tuple[str, str]]
    n: int
    kl: str
    band: str
    agrees: str
    explanation: str
    certificate: str
    lines: Sequence[_Line]
    data: int
    shown: int

    @classmethod
    def of(cls, check: TheoremCheck) -> _Entry:
        mean = next(row for row in check.rows if row.latent is None and row.datum is None)
        data = max((row.datum or 0 for row in check.rows), default=0)
        kept = [
            row for row in check.rows if row.datum is None or row.datum <= _SHOWN_DATA or row.agrees is False
        ]
        unknown = any(row.level == "UNKNOWN" for row in check.rows)
        verdict = check.verdict
        return cls(
            model=check.model,
            setting=check.setting,
            levels=[(name, level.value) for name, level in verdict.latents.items()],
            n=mean.n,
            kl=_number(mean.kl),
            band=_band(mean),
            agrees=_answer(check.agrees, "undecided" if unknown else "below precision"),
            explanation=str(verdict),
            certificate=_certificate(check),
            lines=[_Line.of(row, check) for row in kept],
            data=data,
            shown=len({row.datum for row in kept if row.datum is not None}),
        )


def _counts(checks: Iterable[TheoremCheck]) -> dict[str, int]:
    """Over the joint rows of single data, as in the figure of the theorem."""
    rows = [row for check in checks for row in check.rows if row.latent is None and row.datum is not None]
    agree, wrong = (sum(row.agrees is answer for row in rows) for answer in (True, False))
    lost = sum(row.below_precision for row in rows)
    return {
        "data": len(rows),
        "agree": agree,
        "contradict": wrong,
        "below precision": lost,
        "undecided": len(rows) - agree - wrong - lost,
    }


def _certificate(check: TheoremCheck) -> str:
    certificate = check.verdict.certificate
    if certificate is None:
        return "None: nothing was proved."
    again = (
        "verified again for this report"
        if certificate.verify()
        else "FAILED its verification for this report"
    )
    return f"{certificate.kind}, {again}."


def _answer(agrees: bool | None, otherwise: str) -> str:
    return {True: "agrees", False: "CONTRADICTS", None: otherwise}[agrees]


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.{digits}g}".replace("-", "−")


def _band(row: Row) -> str:
    return "–" if row.band is None else f"{_number(row.band[0])} … {_number(row.band[1])}"


def _embedded(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return base64.b64encode(buffer.getvalue()).decode("ascii")

"""What the terminal shows: verdicts, tables of checks, the zoo on standard output, progress on error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from identkit.cli.inferring import Inferred
    from identkit.theorem import TheoremCheck
    from identkit.verdict import Verdict
    from identkit.zoo.case import Case

_MOST_ROWS = 20
_LATENT_WIDTH, _OTHER_WIDTH = (
    31,
    22,
)  # columns of text that a latent takes, and those before and after them all
_QUIET = 1e-3  # nats
_ROUNDING = 1e-12  # of a standard deviation
_WIDTH = 120  # where there is no terminal to ask
_LEVELS = {
    "CONSTANT": "bold red",
    "PARTIAL": "bold yellow",
    "LOCAL": "bold cyan",
    "GLOBAL": "bold green",
    "INFORMED": "bold green",
    "UNKNOWN": "bold magenta",
}


def verdict(found: Verdict, verified: bool) -> None:
    """Print the verdict's explanation, and whether its proof was checked again."""
    lines = [str(found)]
    if verified:
        lines.append("Certificate: verified, each step of the proof was checked again.")
    text = Text("\n".join(lines))
    for level, style in _LEVELS.items():
        text.highlight_regex(rf"\b{level}\b", style)
    _console().print(text, soft_wrap=True)


def checks(
    title: str, found: Sequence[TheoremCheck], summary: Sequence[str], results: Mapping[str, Any]
) -> None:
    """Print a line for each model and setting, the summary's sentences and the tally."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in ("model", "setting", "level", "n", "mean KL", "band", "theorem"):
        table.add_column(column, justify="right" if column in ("n", "mean KL") else "left", overflow="fold")
    for check in found:
        row = next(row for row in check.rows if row.latent is None and row.datum is None)
        band = "" if row.band is None else f"{row.band[0]:.3g} … {row.band[1]:.3g}"
        level = check.verdict.level.value
        cells = (Text(level, _LEVELS[level]), str(row.n), f"{row.kl:.4g}", band, _answer(check))
        table.add_row(Text(check.model), Text(check.setting), *cells)
    tally = (
        f"{results['agree']} rows agree with the theorem, {results['disagree']} contradict it, "
        f"{results['below_precision']} lie below precision, {results['undecided']} are undecided "
        f"({results['seconds']:.1f} s)."
    )
    console = _console()
    console.print(table)
    for sentence in (*summary, tally):
        console.print(Text(sentence), soft_wrap=True)


def _answer(found: TheoremCheck) -> Text:
    if found.agrees is not None:
        return Text("agrees", "green") if found.agrees else Text("FAILS", "bold red")
    tiny = all(row.below_precision for row in found.rows)
    return Text("below precision", "cyan") if tiny else Text("undecided", "magenta")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[str]) -> None:
    """Print rows of numbers under names, the first column being words, and sentences below."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left")
    for row in rows:
        drawn.add_row(*(Text(cell, _LEVELS.get(cell, "")) for cell in row))
    console = _console()
    console.print(drawn)
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def posterior(answer: Inferred) -> None:
    """Print what each datum told about each latent, the first data one by one, and the averages."""
    console = _console()
    found = answer.found
    single = len(found.kl) == 1 and len(found.names) > 1
    latents = max(1, (console.width - _OTHER_WIDTH) // _LATENT_WIDTH)
    table = _each_latent(answer) if single else _each_datum(answer, latents)
    console.print(table)
    left = 0 if single else len(found.kl) - _MOST_ROWS
    hidden = len(found.names) - (_MOST_ROWS if single else latents)
    lines = [
        *([f"… and {left} more data; --csv and --json hold them all"] if left > 0 else []),
        *([f"… and {hidden} more latents; --csv and --json hold them all"] if hidden > 0 else []),
        *(
            [f"Fit: {answer.fit}.", f"Found: {answer.fitted}; --json holds every number."]
            if answer.fit
            else []
        ),
        f"Mean KL to the prior {found.mean_kl:.6g} nats; log evidence {float(found.log_evidence.sum()):.6g} nats.",
    ]
    if answer.information is not None:
        about = answer.information
        lines.append(f"Mutual information {about.value:.6g} nats ({about.method}, error {about.error:.1g}).")
    quiet = [latent["name"] for latent in answer.latents if latent["mean_kl_conditional"] <= _QUIET]
    if quiet:
        lines.append(
            f"Told next to nothing about: {', '.join(quiet)}. `identkit check` says whether the model can."
        )
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _each_datum(answer: Inferred, latents: int) -> Table:
    found = answer.found
    table = Table(title=f"identkit: {answer.model}", title_justify="left", header_style="bold")
    table.add_column("datum", justify="right")
    for name in found.names[:latents]:
        table.add_column(f"{name}: {_heading(answer)}", justify="right")
        table.add_column("KL", justify="right")
    table.add_column("joint KL", justify="right")
    for i in range(min(len(found.kl), _MOST_ROWS)):
        cells = []
        for j in range(min(len(found.names), latents)):
            told = _beyond(found.kl_per_latent[i, j], found.kl_per_latent_error[i, j])
            cells += [_told(answer, i, j), told]
        table.add_row(str(i + 1), *cells, _beyond(found.kl[i], found.kl_error[i]))
    return table


def _each_latent(answer: Inferred) -> Table:
    """The latents of a single datum, a line each: a path has many."""
    found = answer.found
    table = Table(title=f"identkit: {answer.model}", title_justify="left", header_style="bold")
    for column in ("latent", _heading(answer), "KL", "KL given the others"):
        table.add_column(column, justify="left" if column == "latent" else "right")
    for j in range(min(len(found.names), _MOST_ROWS)):
        table.add_row(
            Text(found.names[j]),
            _told(answer, 0, j),
            _beyond(found.kl_per_latent[0, j], found.kl_per_latent_error[0, j]),
            _beyond(found.kl_conditional[0, j], found.kl_conditional_error[0, j]),
        )
    return table


def _heading(answer: Inferred) -> str:
    return "mean ± sd" if answer.states is None else "state (chance)"


def _told(answer: Inferred, i: int, j: int) -> str:
    """Mean and standard deviation; of a state, whose number says nothing, the likeliest and how likely it is."""
    if answer.states is None:
        return _mean_sd(answer.found.posterior_mean[i, j], answer.found.posterior_sd[i, j])
    chance, state = answer.states[i, j].max(0)
    return f"{int(state)} ({float(chance):.4f})"


def _mean_sd(mean: Any, sd: Any) -> str:
    mean, sd = float(mean), float(sd)
    if math.isnan(mean):
        return "no mean"
    rounding = _ROUNDING * (sd if math.isfinite(sd) else 1.0)
    return f"{mean if abs(mean) > rounding else 0.0:.4g} ± {sd:.3g}"


def _beyond(kl: Any, error: Any) -> str:
    return f"{float(kl):.4g}" if kl > error else "0"


def zoo(cases: Sequence[Case]) -> None:
    """Print the names, the known levels and what each case teaches."""
    table = Table(header_style="bold")
    for column in ("name", "level", "what it teaches"):
        table.add_column(column)
    for case in cases:
        table.add_row(Text(case.name), Text(case.level, _LEVELS[case.level]), Text(case.note))
    _console().print(table)


def case(entry: Case) -> None:
    """Print one entry: its text, its question, the known answer and its source."""
    from identkit.cli.asked import assignments
    from identkit.dispatch import as_symbolic

    model = entry.model if isinstance(entry.model, str) else str(as_symbolic(entry.build()))
    settings = {"at": entry.at, "data": entry.data or {}, "values for verify": entry.values}
    facts = [
        *([f"about: {entry.about}"] if entry.about != "latents" else []),
        *(f"{name}: {assignments(values)}" for name, values in settings.items() if values),
        *(["pooled: the rows share their latents"] if entry.pooled else []),
        f"level: {entry.level}",
        *(f"  {name}  {level}" for name, level in entry.levels.items()),
        f"source: {entry.source}",
        *([entry.note] if entry.note else []),
    ]
    text = Text("\n".join([dedent(model).strip(), "", *facts]))
    for level, style in _LEVELS.items():
        text.highlight_regex(rf"\b{level}\b", style)
    _console().print(text, soft_wrap=True)


@contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar with an estimate of the time left; calls with (done, total, name of the step) move it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    console = _console(stderr=True)
    # A file or a pipe would get an empty line in place of the bar.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show which part of a work of unknown length is going on, and for how long already."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = _console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda name: bar.update(task, description=name)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show that something of unknown length is going on."""
    with _console(stderr=True).status(what):
        yield


def _console(stderr: bool = False) -> Console:
    console = _Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else _Console(stderr=stderr, highlight=False, width=_WIDTH)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would leave with status 1, which here says that the theorem failed.
        raise BrokenPipeError

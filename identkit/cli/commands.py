"""The command `identkit`: check | posterior | verify | train | diagnose | zoo, and what becomes of errors and warnings."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from identkit import __version__
from identkit.cli import asked, learning, shown, written
from identkit.cli.options import settings

if TYPE_CHECKING:
    from identkit.cli.proving import Answer
    from identkit.theorem import TheoremCheck

DONE, FAILED, BAD_INPUT, UNDECIDED, INTERRUPTED, UNREAD = 0, 1, 2, 3, 130, 141
"""Exit statuses."""

# Which library's class this is depends on typer's version: click's, or typer's own copy of it.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

_typed: ContextVar[str] = ContextVar("typed", default="identkit")
"""The command as it was typed, for the results to say how they came about."""

app = typer.Typer(
    name="identkit",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which latents can the data see, and which does the posterior hand back as the prior?",
)

_SOURCE = "A .model file, - for standard input, a name of `identkit zoo`, or file.py:name"
_AT = typer.Option(None, "--at", metavar="VALUES", help="Values of parameters, such as w=[1,0],s=1/2.")
_DATA = typer.Option(
    None,
    "--data",
    metavar="DATA",
    help="Values such as x=1.2, or a CSV file with the observations' names on top.",
)
_POOLED = typer.Option(False, "--pooled", help="The rows are one data set that shares its latents.")
_JSON = typer.Option(False, "--json", help="Print one JSON object, and nothing else, on standard output.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 done, 1 the theorem failed, 2 bad input, 3 undecided, 130 interrupted, 141 the output's reader left.

    Args:
        arguments: what follows ``identkit``; default: that of this process.

    >>> main(["--version"])
    identkit ...
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if arguments is None:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        _typed.set(shlex.join(["identkit", *given]))
        with warnings.catch_warnings():
            warnings.showwarning = _warned
            status = app(args=given, prog_name="identkit", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        return _refused(error.format_message())  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        return _refused(_in_words(error))
    if status == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return status or DONE


_asked_to_stop: list[int] = []


def _interrupt(number: int, frame: object) -> None:
    # An exception raised inside a callback of the interpreter is swallowed: long work looks at the list as well.
    _asked_to_stop.append(number)
    raise KeyboardInterrupt


def _warned(message: Warning | str, *where: object, **more: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _refused(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    line, column, problem = (getattr(error, name, None) for name in ("line", "column", "problem"))
    # A LanguageError also draws an arrow under the place, which takes lines of its own.
    return str(error) if problem is None else f"line {line}, column {column}: {problem}"


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        print(f"identkit {__version__}")
        raise typer.Exit(DONE)


@app.command()
def check(
    model: str = typer.Argument(..., metavar="MODEL", help=f"{_SOURCE}; or the folder of a run."),
    at: str | None = _AT,
    data: str | None = _DATA,
    pooled: bool = _POOLED,
    about: str | None = typer.Option(
        None,
        "--about",
        metavar="WHAT",
        help="latents at fixed parameters (the default where there are any), parameters, or joint.",
    ),
    as_json: bool = _JSON,
    time_limit: float = typer.Option(
        60.0, "--time-limit", metavar="S", min=0.1, help="Seconds; what was proved by then is reported."
    ),
) -> int:
    """Prove which latents the likelihood sees, or which parameters the data determine.

    Exit status: 0 decided, 3 undecided, 2 bad input.
    """
    from identkit.cli.proving import probe, prove
    from identkit.dispatch import as_symbolic, has_symbols

    question = asked.question(model, at)
    if not has_symbols(question.model):
        for option, typed in (("--at", at), ("--pooled", pooled or None), ("--about", about)):
            if typed is not None and typed != "latents":
                raise ValueError(f"{option} goes with a model that has symbols, and {model} has none")
        with shown.waiting("probing"):
            probed = probe(question.model, None if data is None else asked.data_to_probe(data), time_limit)
        return _told(probed, as_json)
    values, given = question.at, None if data is None else asked.data_to_prove(question.model, data)
    if question.case is not None:
        case = question.case
        about = about or case.about
        values = case.at if at is None else values
        if data is None:
            given, pooled = case.data, pooled or case.pooled
        used = [("--at", values, at), ("--data", given, data)]
        words = [f"{option} {asked.assignments(own)}" for option, own, typed in used if own and typed is None]
        if words:
            print(f"{case.name} comes with {' and '.join(words)}", file=sys.stderr)
    with shown.waiting("searching for proofs"):
        answer = prove(
            as_symbolic(question.model),
            at=values or None,
            data=given,
            about=about,
            pooled=pooled,
            seconds=time_limit,
        )
    return _told(answer, as_json)


def _told(answer: Answer, as_json: bool) -> int:
    verdict = answer.verdict
    if as_json:
        print(json.dumps(answer.json, allow_nan=False))
    else:
        shown.verdict(verdict, answer.verified)
    levels = {
        level.value for level in (verdict.level, *verdict.latents.values(), *verdict.parameters.values())
    }
    return UNDECIDED if "UNKNOWN" in levels else DONE


@app.command()
def verify(
    model: str | None = typer.Argument(None, metavar="[MODEL]", help=f"{_SOURCE}; without it, a suite."),
    suite: str | None = typer.Option(None, "--suite", help="classical (the default), deep or all."),
    out: Path | None = typer.Option(
        None,
        "--out",
        metavar="DIR",
        help="Where results.json, figures and report.html go; for a suite results/SUITE.",
    ),
    at: str | None = _AT,
    data: str | None = _DATA,
    pooled: bool = _POOLED,
    seed: int = typer.Option(0, "--seed", help="Of the data that are drawn."),
    preset: str | None = typer.Option(
        None,
        "--preset",
        help="Size of the deep suite: cpu, many (600 networks) or gpu; by default what the machine has.",
    ),
    as_json: bool = _JSON,
) -> int:
    """Confirm that the exact posterior equals the prior iff the likelihood ignores the latents.

    Without MODEL, on every model of a suite. Exit status: 0 nothing contradicts it, 1 something does.
    """
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; a window would need a display
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # tensors here are small: threads would only wait for each other
    if model is not None and suite is not None:
        raise ValueError(f"give a MODEL or --suite, not both: got {model!r} and --suite {suite}")
    if model is not None:
        return _verify_own(asked.question(model, at), data, pooled, out, seed, as_json)
    unused = [name for name, value in (("--at", at), ("--data", data), ("--pooled", pooled)) if value]
    if unused:
        raise ValueError(
            f"{', '.join(unused)} should stand beside a MODEL, as in identkit verify FILE.model --data …"
        )
    return _verify_suite(suite or "classical", out, seed, preset, as_json)


def _verify_suite(suite: str, out: Path | None, seed: int, preset: str | None, as_json: bool) -> int:
    from identkit import suites

    suites.refuse_unknown(suite)
    folder = written.folder(out or Path("results") / suite)
    started = time.perf_counter()
    found: list[TheoremCheck] = []

    def results(checks: Sequence[TheoremCheck], tables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        spent = time.perf_counter() - started
        return suites.results(checks, seconds=spent, seed=seed, command=_typed.get(), tables=tables)

    try:
        with shown.progress() as show:

            def step(progress: suites.Progress) -> None:
                if _asked_to_stop:
                    raise KeyboardInterrupt
                if progress.check is not None:
                    found.append(progress.check)
                show(progress.done, progress.total, progress.name)

            done = suites.run(suite, progress=step, seed=seed, preset=preset)
    except KeyboardInterrupt:
        if found:
            written.json_file(folder / "results.json", {**results(found), "complete": False})
            print(f"{len(found)} checks were done; they are in {folder / 'results.json'}", file=sys.stderr)
        raise
    title = f"identkit: the {suite} suite"
    found_all = results(done.checks, done.tables)
    return _conclude(title, done.checks, done.figures, done.summary, found_all, folder, as_json)


def _verify_own(
    question: asked.Question,
    data: str | None,
    pooled: bool,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    from identkit import suites
    from identkit.theorem import verify as confirm

    folder = None if out is None else written.folder(out)
    started = time.perf_counter()
    with shown.waiting("computing the exact posterior"):
        if data is None:
            (x, origin), mask = asked.own_data(question, seed), None
            pooled = pooled or (question.case is not None and question.case.pooled)
            print(origin, file=sys.stderr)
        else:
            (x, mask), origin = asked.data_to_verify(question.model, data), f"The data are {data}"
        values = question.numbers
        setting = asked.assignments(values)
        found = confirm(question.model, x, at=values or None, pooled=pooled, mask=mask, setting=setting)
        figures = {} if folder is None else suites.theorem_figures([found])
    results = suites.results([found], seconds=time.perf_counter() - started, seed=seed, command=_typed.get())
    summary = [f"{origin}.", str(found)]
    return _conclude(f"identkit: {found.model}", [found], figures, summary, results, folder, as_json)


def _conclude(
    title: str,
    checks: Sequence[TheoremCheck],
    figures: Mapping[str, Any],
    summary: Sequence[str],
    results: Mapping[str, Any],
    folder: Path | None,
    as_json: bool,
) -> int:
    if folder is not None:
        written.everything(folder, title, checks, figures, summary, results)
    if as_json:
        print(json.dumps(results, allow_nan=False))
    else:
        shown.checks(title, checks, summary, results)
        if folder is not None:
            print(f"The report is {folder / 'report.html'}")
    return FAILED if results["disagree"] else DONE


@app.command()
def posterior(
    model: str = typer.Argument(
        ..., metavar="MODEL", help=f"{_SOURCE}; with --fit a classical family's name."
    ),
    data: str | None = _DATA,
    at: str | None = _AT,
    pooled: bool = _POOLED,
    fit: str | None = typer.Option(
        None,
        "--fit",
        metavar="SETTINGS",
        help="Fit a classical family to the data: components=3, latent_dim=2, …; '' for its defaults.",
    ),
    out: Path | None = typer.Option(None, "--out", metavar="DIR", help="Where the figure and the tables go."),
    as_csv: Path | None = typer.Option(
        None, "--csv", metavar="FILE", help="Write a row a datum to this file."
    ),
    as_json: bool = _JSON,
) -> int:
    """Show the exact posterior of each datum beside the prior, with KL and mutual information in nats.

    MODEL is a model as `check` takes it, or with --fit the name of a classical family such as gaussian-mixture.
    """
    from identkit.cli import inferring

    os.environ.setdefault("MPLBACKEND", "Agg")
    folder = None if out is None else written.folder(out)
    if as_csv is not None:
        written.file(as_csv)
    if fit is None and model in inferring.FAMILIES and model not in asked.CASES:
        raise ValueError(
            f"{model} should come with --fit, as in identkit posterior {model} --data x.csv --fit …"
        )
    if fit is not None and model not in inferring.FAMILIES:
        names = ", ".join(inferring.FAMILIES)
        raise ValueError(f"--fit should stand beside a classical family ({names}), got {model!r}")
    unused = [name for name, value in (("--at", at), ("--pooled", pooled)) if value]
    if fit is not None and unused:
        raise ValueError(f"{', '.join(unused)} should not stand beside --fit, which finds the values itself")
    # Of what is refused after all, only the reason is told.
    with warnings.catch_warnings(record=True) as told, shown.waiting("computing the exact posterior"):
        if fit is not None:
            chosen, values, mask = settings(fit, "--fit"), None, None
            table = asked.table_to_fit(data, model, inferring.takes_missing(model))
            own, x = inferring.fitted(model, *table, chosen)
        else:
            question = asked.question(model, at)
            own, values = question.model, question.numbers
            if data is None:
                (x, origin), mask = asked.own_data(question, 0), None
                pooled = pooled or (question.case is not None and question.case.pooled)
                print(origin, file=sys.stderr)
            else:
                x, mask = asked.data_to_verify(question.model, data)
        answer = inferring.inferred(own, x, values, pooled, mask)
        if folder is not None:
            from identkit import plot

            written.figure(folder / "posterior.png", plot.intervals(answer.found, answer.prior, answer.model))
            written.json_file(folder / "posterior.json", answer.to_dict())
    for warning in told:
        _warned(warning.message)
    if as_csv is not None:
        written.text_file(as_csv, answer.to_csv())
    if as_json:
        print(json.dumps(answer.to_dict(), allow_nan=False))
    else:
        shown.posterior(answer)
    return DONE


app.command()(learning.train)
app.command()(learning.diagnose)


@app.command()
def zoo(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="One model; without it, all of them."),
) -> int:
    """List the named models with their known answers, or show one of them."""
    from identkit.zoo import CASES

    if name is None:
        shown.zoo(list(CASES.values()))
    else:
        shown.case(asked.case_named(name))
    return DONE

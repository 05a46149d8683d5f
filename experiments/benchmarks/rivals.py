"""One rival on one problem, in a process of its own: `python rivals.py TOOL REPEATS < job.json`, a JSON line per stage.

Needs nothing but the rival, so that it runs in an environment without identkit too. A job holds the text of κ in
unknowns u1, u2, …, which of them are positive, and for the tools of dynamic systems the equations of a system: a model
without dynamics becomes a clock ``t' = 1`` with κ as its outputs. Times are seconds of processor time and of wall-clock
time after imports, parsing and building the tool's model.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

_ENOUGH = 1.0
"""Seconds after which a stage is not repeated."""


def say(**stage: Any) -> None:
    print(json.dumps(stage), file=sys.__stdout__, flush=True)


def spent() -> tuple[float, float]:
    """Processor time, of finished child processes too, and wall-clock time."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime, time.perf_counter()


def measured(repeats: int, task: Callable[[], Any]) -> tuple[Any, dict[str, list[float]]]:
    """The task's result and times, SymPy's cache emptied before each run; a run of more than a second is the last."""
    from sympy.core.cache import clear_cache

    times: dict[str, list[float]] = {"processor": [], "wall": []}
    result = None
    while len(times["wall"]) < repeats and (not times["wall"] or times["wall"][-1] < _ENOUGH):
        clear_cache()
        before = spent()
        result = task()
        for kind, start, end in zip(times, before, spent(), strict=True):
            times[kind].append(round(end - start, 6))
    return result, times


def timed(stage: str, repeats: int, task: Callable[[], Any]) -> Any:
    """Measure a stage and report it."""
    result, times = measured(repeats, task)
    say(stage=stage, **times)
    return result


def symbols(job: dict[str, Any]) -> dict[str, Any]:
    import sympy

    return {
        name: sympy.Symbol(name, positive=True) if positive else sympy.Symbol(name, real=True)
        for name, positive in zip(job["unknowns"], job["positive"], strict=True)
    }


def jacobian(job: dict[str, Any]) -> Any:
    import sympy

    names = symbols(job)
    summary = [sympy.sympify(text, locals=names) for text in job["summary"]]
    return sympy.Matrix(summary).jacobian(list(names.values()))


def sympy_matrix(job: dict[str, Any], repeats: int) -> None:
    """`Matrix.rank` and `Matrix.nullspace` of the symbolic Jacobian."""
    width = len(job["unknowns"])
    rank = timed("rank", repeats, lambda: jacobian(job).rank())
    say(stage="answer", deficiency=width - rank)
    timed("fields", repeats, lambda: jacobian(job).nullspace())


def sympy_domain(job: dict[str, Any], repeats: int) -> None:
    """`DomainMatrix.rank` and `nullspace` over the field of rational functions, SymPy's own fast path."""
    from sympy.polys.matrices import DomainMatrix

    def matrix() -> Any:
        return DomainMatrix.from_Matrix(jacobian(job)).to_field()

    width = len(job["unknowns"])
    rank = timed("rank", repeats, lambda: matrix().rank())
    say(stage="answer", deficiency=width - rank)
    timed("fields", repeats, lambda: matrix().nullspace())


def symident(job: dict[str, Any], repeats: int) -> None:
    """`symident.detect` with closed forms: rank and generators from the Lie derivatives of the outputs."""
    import symident as si  # pyright: ignore[reportMissingImports]

    system = job["system"]
    model = si.Model(
        system["states"],
        {f"y{k}": output for k, output in enumerate(system["outputs"], 1)},
        trafo=system["initial"],
    )
    found = timed("rank and fields", repeats, lambda: si.detect(model, reconstruct=True))
    closed = sum(bool(move.explicit) for move in found.symmetries)
    say(stage="answer", deficiency=found.dim - found.rank, fields=closed)


def strikepy(job: dict[str, Any], repeats: int) -> None:
    """`strike_goldd`: the rank of the observability matrix, then one rank more for every parameter."""
    import sympy

    system, names = job["system"], symbols(job)
    states = {name: sympy.Symbol(name) for name in system["states"]}
    control = {name: sympy.Symbol(name) for name in system["inputs"]}
    plain = {**states, **control, **{name: sympy.Symbol(name) for name in names}}

    def column(entries: list[Any]) -> list[Any]:
        # One state is a list there, several are a column.
        return entries if len(entries) == 1 else [[entry] for entry in entries]

    def read(texts: Any) -> list[Any]:
        return [sympy.sympify(text, locals=plain) for text in texts]

    driven = dict(system["states"])
    for name, state in system["inputs"].items():
        driven[state] = f"{driven[state]} + {name}"

    def run() -> str:
        # It rewrites the model that it is given, so every run gets its own.
        model = types.ModuleType("StrikePy.models.benchmark")
        model.x, model.f = column(list(states.values())), column(read(driven.values()))  # type: ignore[attr-defined]
        model.h, model.p = column(read(system["outputs"])), [[plain[name]] for name in names]  # type: ignore[attr-defined]
        model.u, model.w = list(control.values()), []  # type: ignore[attr-defined]
        options = types.ModuleType("StrikePy.custom_options.benchmark")
        options.modelname, options.checkObser, options.maxLietime = "benchmark", 1, float("inf")  # type: ignore[attr-defined]
        options.nnzDerU, options.nnzDerW, options.prev_ident_pars = [0], [float("inf")], []  # type: ignore[attr-defined]
        sys.modules["StrikePy.models.benchmark"] = model
        sys.modules["StrikePy.custom_options.benchmark"] = options
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            strike_goldd("benchmark")
        return heard.getvalue()

    from StrikePy.strike_goldd import strike_goldd  # pyright: ignore[reportMissingImports]

    said = timed("rank", repeats, run)
    say(stage="answer", unidentifiable=said.count("is structurally unidentifiable\n"))


TOOLS: dict[str, tuple[str, Callable[[dict[str, Any], int], None]]] = {
    "SymPy Matrix": ("sympy", sympy_matrix),
    "SymPy DomainMatrix": ("sympy", sympy_domain),
    "symident": ("symident", symident),
    "StrikePy": ("StrikePy", strikepy),
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(sys.stderr):
        yield


def main() -> None:
    tool, repeats = sys.argv[1], int(sys.argv[2])
    package, task = TOOLS[tool]
    try:
        __import__(package)
        say(stage="version", version=version(package))
    except ImportError:
        say(stage="missing", package=package)
        return
    try:
        with _quiet():
            job = json.load(sys.stdin)
            say(stage="begin", processor=spent()[0])
            task(job, repeats)
    except Exception as reason:
        say(stage="failed", reason=f"{type(reason).__name__}: {reason}"[:200])


if __name__ == "__main__":
    main()

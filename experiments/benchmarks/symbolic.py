"""How fast is the symbolic checker? Beside SymPy, symident and StrikePy on the same problems, in one run.

    python -m experiments.benchmarks.symbolic [--repeats 3] [--limit 20] [--peers PYTHON]

identkit's generic rank, null fields and whole `check_fibre` are timed beside SymPy's symbolic Jacobian with
`Matrix.rank` and `nullspace` (and `DomainMatrix`, SymPy's own fast path), and beside two tools for dynamic systems,
symident (rank and generators by Lie derivatives) and StrikePy (a rank, and one more for every parameter). Both get a
model without dynamics as a system whose outputs are κ: a clock ``t' = 1`` beside it. The two-compartment model they get
once that way and once as the differential equations, which is more work: identkit cannot read those and is given the
coefficients of the transfer function both times.

symident and StrikePy are no dependencies of identkit. To have them timed, install them anywhere:

    python -m venv /tmp/peers && /tmp/peers/bin/pip install symident StrikePy
    python -m experiments.benchmarks.symbolic --peers /tmp/peers/bin/python

Without them their rows say so. Every rival runs in a child process and is stopped after `--limit` seconds. Figures are
medians of processor time, which a busy machine blurs less than wall-clock time; both are written, with versions, load
and command, to ``experiments/results/symbolic_benchmark.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import sympy

import identkit as ik
from experiments.benchmarks.rivals import TOOLS, measured
from identkit.model.model import Model
from identkit.symbolic.fields import null_fields
from identkit.symbolic.parameters import check_fibre
from identkit.symbolic.questions import question
from identkit.symbolic.rank import generic_rank

REPEATS = 3
LIMIT = 20.0
"""Seconds of wall-clock time that a rival gets for one problem."""
RESULT = Path(__file__).parents[1] / "results" / "symbolic_benchmark.json"


@dataclass(frozen=True)
class Task:
    """A model, the question, and its known deficiency.

    Attributes:
        system: the differential equations with inputs, outputs and initial values, where the rivals are to get those
            in place of κ.
        tools: which rivals are asked.
    """

    name: str
    text: str
    about: str
    deficiency: int
    system: dict[str, Any] | None = None
    tools: tuple[str, ...] = tuple(TOOLS)

    def build(self) -> Model:
        return ik.parse(self.text, name=self.name)


def _factors(items: int, factors: int) -> str:
    return f"""
        parameter L[{items}, {factors}]; parameter s[{items}] > 0
        z[{factors}] ~ Normal(0, 1)
        observe x[{items}] ~ Normal(L @ z, s)
    """


def _classes(items: int, classes: int) -> str:
    weights = [f"w[{k}]" for k in range(1, classes)]
    return f"""
        parameter w[{classes - 1}] in (0, 1); parameter p[{items}, {classes}] in (0, 1)
        k ~ Categorical({", ".join(weights)}, 1 - {" - ".join(weights)})
        for j in 1..{items}:
            observe y[j] ~ Bernoulli(p[j, k])
    """


_GUESSING = """
    parameter delta[5] > 0; parameter c[5] in (0, 1)
    xi[6] ~ Exponential(1)
    for i in 1..6:
        for j in 1..5:
            observe y[i, j] ~ Bernoulli((xi[i] + c[j]*delta[j])/(xi[i] + delta[j]))
"""
_RASCH = """
    parameter b[4]
    theta[5] ~ Normal(0, 1)
    for i in 1..5:
        for j in 1..4:
            observe y[i, j] ~ Bernoulli(sigmoid(theta[i] - b[j]))
"""
_COMPARTMENTS = """
    parameter k01 > 0; parameter k21 > 0; parameter k12 > 0; parameter k02 > 0
    summary k01 + k21 + k12 + k02; summary (k01 + k21)*(k12 + k02) - k12*k21; summary k12 + k02
"""
_EQUATIONS = {
    "states": {"x1": "-(k01 + k21)*x1 + k12*x2", "x2": "k21*x1 - (k12 + k02)*x2"},
    "outputs": ["x1"],
    "inputs": {"dose": "x1"},
    "initial": {"x1": "1", "x2": "0"},
}

TASKS = (
    Task("factor analysis 5 x 2", _factors(5, 2), "parameters", 1),
    Task("factor analysis 20 x 5", _factors(20, 5), "parameters", 10),
    Task("latent classes, 4 items 3 classes (Goodman)", _classes(4, 3), "parameters", 1),
    Task("latent classes, 5 items 4 classes", _classes(5, 4), "parameters", 0),
    Task("1PL-G, 6 persons 5 items", _GUESSING, "joint", 2),
    Task("Rasch, 5 persons 4 items", _RASCH, "joint", 1),
    Task("two compartments (C18), coefficients", _COMPARTMENTS, "parameters", 1),
    Task(
        "two compartments (C18), equations (identkit: coefficients)",
        _COMPARTMENTS,
        "parameters",
        1,
        _EQUATIONS,
        ("symident", "StrikePy"),
    ),
)


def of_identkit(task: Task, repeats: int) -> dict[str, Any]:
    """identkit's own times, stage by stage, and the deficiency and number of fields it finds."""
    model = task.build()
    asked, law = measured(repeats, lambda: question(model, task.about).problem)
    report, rank = measured(repeats, lambda: generic_rank(asked))
    stages = {"law": law, "rank": rank}
    moves: list[Any] = []
    if report.free:
        moves, stages["fields"] = measured(
            repeats, lambda: null_fields(asked, report.deficiency, report.free)
        )
    verdict, stages["check_fibre"] = measured(repeats, lambda: check_fibre(model, task.about))
    return {
        "unknowns": len(asked.unknowns),
        "entries": len(asked.summary),
        "deficiency": report.deficiency,
        "fields": len(moves),
        "level": verdict.level.value,
        "stages": stages,
    }


def job_of(task: Task) -> dict[str, Any]:
    """κ as text in unknowns u1, u2, …, with kernels written as exponentials, for tools that know nothing of identkit."""
    asked = question(task.build(), task.about).problem
    plain = {u: sympy.Symbol(f"u{i}", real=True) for i, u in enumerate(asked.unknowns, 1)}
    summary = [str(e.rewrite(sympy.exp).xreplace(plain)) for e in asked.summary]
    system = {"states": {"t": "1"}, "outputs": summary, "inputs": {}, "initial": {"t": "0"}}
    names = [s.name for s in plain.values()] if task.system is None else [u.name for u in asked.unknowns]
    return {
        "unknowns": names,
        "positive": [bool(u.is_positive) for u in asked.unknowns],
        "summary": summary,
        "system": task.system or system,
    }


def of_rival(tool: str, job: dict[str, Any], repeats: int, limit: float, python: str) -> dict[str, Any]:
    """What a rival reported until it ended or was stopped, and the processor time of what it did not end."""
    command = [python, str(Path(__file__).with_name("rivals.py")), tool, str(repeats)]
    before = _children()
    try:
        ended = subprocess.run(command, input=json.dumps(job), text=True, capture_output=True, timeout=limit)
        heard, stopped = ended.stdout, False
    except subprocess.TimeoutExpired as late:
        heard, stopped = (late.stdout or b"").decode(), True
    lines = [json.loads(line) for line in heard.splitlines()]
    found: dict[str, Any] = {"stages": {}, "stopped": stopped}
    begun = 0.0
    for line in lines:
        stage = line.pop("stage")
        if stage == "begin":
            begun = line["processor"]
        elif "wall" in line:
            found["stages"][stage] = line
        else:
            found |= {stage: line["package"]} if stage == "missing" else line
    if stopped:
        done = sum(sum(times["processor"]) for times in found["stages"].values())
        found["unfinished"] = round(max(0.0, _children() - before - begun - done), 2)
    return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_STAGES = {
    "SymPy Matrix": ("rank", "fields"),
    "SymPy DomainMatrix": ("rank", "fields"),
    "symident": ("rank and fields",),
    "StrikePy": ("rank",),
}
_NAMES = {
    ("SymPy Matrix", "rank"): "SymPy Matrix.rank",
    ("SymPy Matrix", "fields"): "SymPy Matrix.nullspace",
    ("SymPy DomainMatrix", "rank"): "SymPy DomainMatrix.rank",
    ("SymPy DomainMatrix", "fields"): "SymPy DomainMatrix.nullspace",
    ("symident", "rank and fields"): "symident detect",
    ("StrikePy", "rank"): "StrikePy strike_goldd",
}


def seconds(times: dict[str, list[float]], kind: str = "processor") -> float:
    return median(times[kind])


def rows(entry: dict[str, Any], limit: float) -> Iterator[tuple[str, ...]]:
    """The table of one problem: task, processor time, wall-clock time, ratio to identkit's same task, the answer."""
    own = entry["identkit"]["stages"]
    base = {stage: seconds(own[stage]) for stage in ("rank", "fields") if stage in own}
    base["rank and fields"] = sum(base.values())
    for stage, times in own.items():
        said = {
            "rank": f"deficiency {entry['identkit']['deficiency']}",
            "fields": f"{entry['identkit']['fields']} fields",
        }
        said["check_fibre"] = entry["identkit"]["level"]
        yield (
            f"identkit {stage}",
            _written(seconds(times)),
            _written(seconds(times, "wall")),
            "",
            said.get(stage, ""),
        )
    for tool, found in entry["rivals"].items():
        if "missing" in found:
            yield tool, "-", "-", "", "skipped: not installed (see --peers)"
            continue
        if "reason" in found:
            yield tool, "-", "-", "", found["reason"]
            continue
        for place, stage in enumerate(_STAGES[tool]):
            times, mine = found["stages"].get(stage), base.get(stage)
            name = _NAMES[tool, stage]
            if times is not None:
                ratio = f"{seconds(times) / mine:.3g}" if mine else ""
                yield (
                    name,
                    _written(seconds(times)),
                    _written(seconds(times, "wall")),
                    ratio,
                    _answer(found, stage),
                )
            elif place == 0 or _STAGES[tool][place - 1] in found["stages"]:
                ratio = f"> {found['unfinished'] / mine:.3g}" if mine else ""
                yield name, "-", f"> {limit:g}", ratio, "stopped"
            else:
                yield name, "-", f"> {limit:g}", "", "not reached"


def _answer(found: dict[str, Any], stage: str) -> str:
    if "unidentifiable" in found:
        return f"{found['unidentifiable']} parameters not identifiable"
    if stage == "fields":
        return ""
    closed = f", {found['fields']} fields in closed form" if "fields" in found else ""
    return f"deficiency {found['deficiency']}{closed}"


def _written(value: float) -> str:
    return f"{value:.4f}"


def show(entry: dict[str, Any], limit: float) -> None:
    own = entry["identkit"]
    size = f"{own['unknowns']} unknowns, {own['entries']} entries of kappa"
    print(f"\n{entry['problem']}: {size}, deficiency {entry['deficiency']}")
    print(f"  {'':28} {'processor s':>12} {'wall s':>9} {'x identkit':>11}  found")
    for name, processor, wall, ratio, answer in rows(entry, limit):
        print(f"  {name:28} {processor:>12} {wall:>9} {ratio:>11}  {answer}", flush=True)


def disagreement(entry: dict[str, Any]) -> list[str]:
    """Who finds another deficiency than the known one, identkit or a rival."""
    found = {"identkit": entry["identkit"]} | entry["rivals"]
    return [
        f"{entry['problem']}: {tool} finds deficiency {answer['deficiency']}, known is {entry['deficiency']}"
        for tool, answer in found.items()
        if answer.get("deficiency", entry["deficiency"]) != entry["deficiency"]
    ]


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--repeats", type=int, default=REPEATS, help="runs of each stage; the median counts")
    reader.add_argument("--limit", type=float, default=LIMIT, help="seconds a rival gets for one problem")
    reader.add_argument("--peers", default=sys.executable, help="a Python that has symident and StrikePy")
    reader.add_argument("--result", type=Path, default=RESULT, help="where the figures are written")
    given = reader.parse_args()
    started, cores, load = time.perf_counter(), os.cpu_count() or 1, os.getloadavg()[0]
    busy = (
        f"; the machine is busy (load {load:.1f} on {cores} cores), so wall-clock times are too long"
        if load > cores / 2
        else ""
    )
    print(f"Medians of up to {given.repeats} runs, rivals stopped after {given.limit:g} s{busy}")
    entries, versions = [], {name: version(name) for name in ("sympy", "python-flint")}
    for task in TASKS:
        entry: dict[str, Any] = {
            "problem": task.name,
            "deficiency": task.deficiency,
            "identkit": of_identkit(task, given.repeats),
        }
        job, entry["rivals"] = job_of(task), {}
        for tool in task.tools:
            python = sys.executable if tool.startswith("SymPy") else given.peers
            found = of_rival(tool, job, given.repeats, given.limit, python)
            versions.setdefault(TOOLS[tool][0], found.pop("version", "not installed"))
            entry["rivals"][tool] = found
        show(entry, given.limit)
        entries.append(entry)
    wrong = [line for entry in entries for line in disagreement(entry)]
    print("", *wrong, sep="\n")
    record = {
        "command": " ".join(["python -m experiments.benchmarks.symbolic", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {"identkit": ik.__version__, **versions},
        "cores": cores,
        "machine": platform.machine(),
        "load": {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)},
        "measured on a loaded machine": bool(busy),
        "unit": "seconds; ratios are of processor time",
        "limit": given.limit,
        "repeats": given.repeats,
        "seconds": round(time.perf_counter() - started, 1),
        "disagreements": wrong,
        "problems": entries,
    }
    given.result.parent.mkdir(parents=True, exist_ok=True)
    given.result.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{given.result} written after {record['seconds']} s")


if __name__ == "__main__":
    main()

"""How fast are the exact posteriors? Beside the libraries people use, on the same data, in one run.

    python -m experiments.benchmarks.posteriors [--only WORD] [--growth]

Every race interleaves us and the peers and compares medians; `gap` is the largest difference between the answers.
The machine's own limits, a large copy and a large matrix product, are measured in the same run, so that each figure says
how far it is from memory bandwidth and from arithmetic. ``--growth`` fits ``seconds = c · size^e`` for n, d, K and T.
Peers that are not installed (scikit-learn, hmmlearn, statsmodels; dynamax) are left out and named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.timing import run

ROOMS = ("kalman", "markov", "factors", "mixtures")
RESULT = Path(__file__).parents[1] / "results" / "posteriors_benchmark.json"


def limits() -> dict[str, float]:
    """Bandwidth of a copy (GB/s, read and written) and speed of a float64 product (GFLOP/s), both cores."""
    source, target = torch.rand(2**25), torch.empty(2**25)
    square = torch.rand(2000, 2000, dtype=torch.float64)
    copying = min(_seconds(lambda: target.copy_(source)) for _ in range(5))
    product = min(_seconds(lambda: square @ square) for _ in range(5))
    return {
        "gigabytes_per_second": 2 * source.nbytes / copying / 1e9,
        "gigaflops": 2 * 2000**3 / product / 1e9,
    }


def growth() -> dict[str, dict[str, float]]:
    """Exponents e of ``seconds = c · size^e``, least squares on log scales over four doublings."""
    from identkit.classical.gaussian_mixture import GaussianMixture
    from identkit.classical.hidden_markov import GaussianEmission, HiddenMarkov
    from identkit.classical.linear_gaussian import FactorAnalysis

    rng = np.random.default_rng(0)

    def mixture(n: int = 100_000, d: int = 8, k: int = 16) -> Callable[[], Any]:
        model = GaussianMixture(np.full(k, 1 / k), rng.normal(size=(k, d)), np.tile(np.eye(d), (k, 1, 1)))
        x = rng.normal(size=(n, d))
        return lambda: model.posterior(x)

    def factors(n: int = 100_000, d: int = 64, k: int = 8) -> Callable[[], Any]:
        model, x = FactorAnalysis(rng.normal(size=(d, k)), np.ones(d)), rng.normal(size=(n, d))
        return lambda: model.posterior(x)

    def markov(t: int = 20_000, k: int = 16) -> Callable[[], Any]:
        chain = rng.dirichlet(np.ones(k), size=k)
        model = HiddenMarkov(np.full(k, 1 / k), chain, GaussianEmission(np.arange(float(k)), np.ones(k)))
        x = rng.normal(size=t) * k
        return lambda: model.posterior(x)

    tasks = {
        "Gaussian mixture": (mixture, {"n": 25_000, "d": 4, "k": 8}),
        "factor analysis": (factors, {"n": 25_000, "d": 16, "k": 4}),
        "hidden Markov": (markov, {"t": 10_000, "k": 4}),
    }
    found: dict[str, dict[str, float]] = {}
    for name, (build, starts) in tasks.items():
        for size, start in starts.items():
            sizes = [start * 2**step for step in range(4)]
            seconds = []
            for value in sizes:
                task = build(**{size: value})
                task()
                seconds.append(min(_seconds(task) for _ in range(3)))
            found.setdefault(name, {})[size] = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    return found


def _seconds(task: Callable[[], Any]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """Run the races, print a line each, write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="a word that the race's name contains")
    parser.add_argument("--growth", action="store_true", help="fit how cost grows, too")
    options = parser.parse_args(argv)
    load, started = os.getloadavg()[0], time.perf_counter()
    machine = limits()
    print(f"copy {machine['gigabytes_per_second']:.1f} GB/s, product {machine['gigaflops']:.1f} GFLOP/s")
    entries = []
    for room in ROOMS:
        for race in importlib.import_module(f"experiments.benchmarks.posteriors_{room}").races():
            if options.only.lower() not in race.name.lower():
                continue
            entry = run(race)
            entry["of_bandwidth"] = entry["gigabytes_per_second"] / machine["gigabytes_per_second"]
            entry["of_arithmetic"] = entry["gigaflops"] / machine["gigaflops"]
            entries.append(entry)
            ratios = ", ".join(
                f"{ratio:.2f} x {peer}"
                + (f" (wanted {entry['wanted'][peer]:g})" if peer in entry["wanted"] else "")
                for peer, ratio in entry["faster_than"].items()
            )
            gaps = ", ".join(f"{gap:.1e}" for gap in entry["gap"].values())
            print(
                f"{entry['name']}: {entry['seconds']['identkit']:.3f} s; {ratios or 'no peer installed'}; "
                f"gap {gaps or '-'}; "
                f"{entry['of_bandwidth']:.0%} of bandwidth, {entry['of_arithmetic']:.0%} of arithmetic",
                flush=True,
            )
    record = {
        "command": " ".join(["python -m experiments.benchmarks.posteriors", *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load_before": round(load, 2),
        "machine": machine,
        "races": entries,
        "growth": growth() if options.growth else None,
        "seconds": round(time.perf_counter() - started, 1),
    }
    text = json.dumps(record, indent=1, default=float)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text.replace("NaN", "null").replace("Infinity", "null") + "\n")
    missed = [
        f"{e['name']}: {ratio:.2f} x {peer}, wanted {e['wanted'][peer]:g}"
        for e in entries
        for peer, ratio in e["faster_than"].items()
        if ratio < e["wanted"].get(peer, 0) and not math.isnan(ratio)
    ]
    print(
        "\n".join(["", "Missed:", *missed] if missed else ["", "Every factor that was wanted was reached."])
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

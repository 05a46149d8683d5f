"""Our time beside a peer's, in one run: medians of interleaved repetitions, as ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_PAUSE = 0.1


@dataclass(frozen=True, kw_only=True)
class Race:
    """One task done by us and by peers that do the same.

    Attributes:
        name: the task, with its sizes.
        ours: does it once and returns what is compared.
        peers: the same by others, by name.
        least: by name of a peer, the factor by which we mean to be faster.
        gap: takes our result and a peer's, returns the largest relative difference.
        bytes_moved: least memory traffic, in bytes, for the distance to the machine's bandwidth.
        operations: floating-point operations, for the distance to its arithmetic.
        repeats: how often each is timed.
        clock: seconds; `time.process_time` where all run in one thread and neighbours take turns on its core.
    """

    name: str
    ours: Callable[[], Any]
    peers: Mapping[str, Callable[[], Any]]
    least: Mapping[str, float] = field(default_factory=dict)
    gap: Callable[[Any, Any], float] | None = None
    bytes_moved: float = 0.0
    operations: float = 0.0
    repeats: int = 7
    clock: Callable[[], float] = time.perf_counter


def run(race: Race) -> dict[str, Any]:
    """Time everybody in turns, so that a neighbour's load hits all alike; the first round is not counted.

    There is a pause before each, for the threads of who ran last (OpenBLAS's) spin on for tens of milliseconds.
    """
    runners = {"identkit": race.ours, **race.peers}
    times: dict[str, list[float]] = {name: [] for name in runners}
    results = {name: runner() for name, runner in runners.items()}
    for _ in range(race.repeats):
        for name, runner in runners.items():
            time.sleep(_PAUSE)
            start = race.clock()
            runner()
            times[name].append(race.clock() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    own = medians["identkit"]
    return {
        "name": race.name,
        "seconds": medians,
        "faster_than": {name: medians[name] / own for name in race.peers},
        "wanted": dict(race.least),
        "gap": {name: race.gap(results["identkit"], results[name]) for name in race.peers}
        if race.gap
        else {},
        "gigabytes_per_second": race.bytes_moved / own / 1e9,
        "gigaflops": race.operations / own / 1e9,
    }

"""How fast are the numeric probes? The batched Jacobians beside a loop over `torch.autograd.functional.jacobian`.

    python -m experiments.benchmarks.probes

Both give the Jacobian of the law's Fisher coordinates at the same prior draws, in float64; the loop is timed plain and
with ``vectorize=True``, interleaved with ours. Then one full check of a 784-dimensional decoder with 64 latents, and
the peak memory of one with 1,000 latents, each in a fresh process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributions as td
from torch import nn

from experiments.benchmarks.timing import Race, run
from experiments.provenance import provenance
from identkit.numeric.jacobian import jacobians
from identkit.numeric.probed import Probed, probed

RESULT = Path(__file__).parents[1] / "results" / "probes_benchmark.json"
DRAWS = 32
# (pixels, latents, hidden units)
SIZES = ((784, 64, 256), (784, 16, 256), (100, 10, 100))


def decoder(pixels: int, latents: int, hidden: int) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
    return nn.Sequential(*layers, nn.Linear(hidden, pixels))


def model(pixels: int, latents: int, hidden: int) -> Probed:
    prior = td.Normal(torch.zeros(latents), torch.ones(latents))
    return probed(decoder(pixels, latents, hidden), prior, lambda f: td.Bernoulli(logits=f))


def loop(p: Probed, z: torch.Tensor, vectorize: bool) -> torch.Tensor:
    def one(row: torch.Tensor) -> torch.Tensor:
        return p.fisher_coordinates(row[None])[0]

    return torch.stack([torch.autograd.functional.jacobian(one, row, vectorize=vectorize) for row in z])


def race(size: tuple[int, int, int]) -> Race:
    p = model(*size)
    z = p.prior.sample(DRAWS)
    return Race(
        name="{} pixels, {} latents, {} hidden units, {} draws".format(*size, DRAWS),
        ours=lambda: jacobians(p.fisher_coordinates, z),
        peers={
            "autograd loop": lambda: loop(p, z, vectorize=False),
            "autograd loop, vectorized": lambda: loop(p, z, vectorize=True),
        },
        least={"autograd loop": 5.0, "autograd loop, vectorized": 2.0},
        gap=lambda ours, theirs: float((ours - theirs).abs().max() / theirs.abs().max()),
    )


def full_check(pixels: int, latents: int) -> None:
    """Check a decoder and print seconds and peak memory as JSON; run in a process of its own."""
    import resource

    from identkit.dispatch import check

    prior = td.Normal(torch.zeros(latents), torch.ones(latents))
    built = decoder(pixels, latents, 512)
    started = time.perf_counter()
    verdict = check(built, prior=prior, likelihood=lambda f: td.Normal(f, 0.1))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"level": str(verdict.level), "seconds": seconds, "gibibytes": peak / 2**30}))


def _apart(pixels: int, latents: int) -> dict[str, Any]:
    code = f"from experiments.benchmarks.probes import full_check; full_check({pixels}, {latents})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)
    print(f"check of {pixels}/{latents}: {found}")
    return found


def main() -> int:
    """Run the races and the two full checks, print a line each, write the result."""
    load = os.getloadavg()[0]
    entries = [run(race(size)) for size in SIZES]
    for entry in entries:
        ratios = ", ".join(f"{ratio:.1f} x {peer}" for peer, ratio in entry["faster_than"].items())
        print(
            f"{entry['name']}: {entry['seconds']['identkit']:.3f} s; {ratios}; gap {max(entry['gap'].values()):.1e}"
        )
    checks = {f"{pixels}/{latents}": _apart(pixels, latents) for pixels, latents in ((784, 64), (784, 1000))}
    result = {
        **provenance("python -m experiments.benchmarks.probes"),
        "load_before": load,
        "races": entries,
        "full_checks": checks,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What the exact posteriors cost: memory at its peak. Times are for `experiments.benchmarks.posteriors`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")} | {
    # glibc gives back at once what is freed, so that the peak is what lives: what it keeps varied by 20 MB a run.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
}

PEAK = """
import sys
from pathlib import Path
import numpy as np, torch
from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.classical.hidden_markov import GaussianEmission, HiddenMarkov
from identkit.classical.linear_gaussian import FactorAnalysis
from identkit.classical.mixtures import LatentClass
from identkit.classical.state_space import StateSpace

def memory(what):
    return int(Path("/proc/self/status").read_text().split(what)[1].split()[0]) * 1024

torch.set_num_threads(1)
rng = np.random.default_rng(0)
mixture = GaussianMixture([0.2, 0.3, 0.5], rng.normal(size=(3, 8)), np.ones((3, 8)), "diag")
factors = FactorAnalysis(rng.normal(size=(16, 3)), np.ones(16))
chain = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], GaussianEmission([0.0, 1.0], [1.0, 1.0]), 10)
answers = LatentClass([0.2, 0.3, 0.5], [rng.dirichlet(np.ones(3), 3) for _ in range(8)], first=1)
turn = 0.9 * np.array([[0.8, 0.6], [-0.6, 0.8]])
path = StateSpace(turn, np.eye(2), np.eye(2), np.eye(2), np.zeros(2), np.eye(2))
model, n = {
    "mixture": (mixture, 400_000), "factors": (factors, 200_000), "chain": (chain, 60_000),
    "answers": (answers, 3_000_000), "path": (path, 800_000), "path with gaps": (path, 200_000),
}[sys.argv[1]]
if model is path:  # one long sequence
    some = torch.from_numpy(rng.normal(size=(1000, 2)))
    if "gaps" in sys.argv[1]:
        some[::7, 1] = float("nan")
else:
    some = model.sample(1000, torch.Generator().manual_seed(0))[0]
if model is answers:
    some[::7, 1] = float("nan")  # answers may be missing
x = some.repeat(n // 1000, 1)

def ask(name, x):
    if name == "mutual_information":  # of as many steps, without the data
        return model.of_length(len(x)).mutual_information()
    return getattr(model, name)(x)

def size(answer):  # of each tensor, what lies behind it
    if isinstance(answer, torch.Tensor):
        return answer.untyped_storage().nbytes()
    parts = answer if isinstance(answer, tuple) else getattr(answer, "__dict__", {}).values()
    return sum(map(size, parts))

for name in sys.argv[2:]:
    ask(name, x[: n // 20])  # what is loaded and kept once
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS:")
    answer = ask(name, x)
    held = size(answer)
    print((memory("VmHWM:") - before - held) / 1e6, 0.3 * (x.nbytes + held) / 1e6)
    del answer
"""

MIXED = ("kl_to_prior", "kl_per_latent", "kl_conditional", "kl_error", "log_evidence")
ASKED = {
    **dict.fromkeys(["mixture", "factors", "chain", "answers"], MIXED),
    "path": ("kl_to_prior", "kl_per_latent", "posterior", "filtered", "flatness", "mutual_information"),
    "path with gaps": ("kl_conditional", "kl_error", "posterior_moments", "filtered", "flatness"),
}


def alone(program: str, *arguments: str) -> list[float]:
    """What a program prints, in a process of its own with one thread."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **ALONE},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells the peak")
@pytest.mark.parametrize("model", ASKED)
def test_memory_beyond_input_and_output_is_a_fixed_chunk(model: str) -> None:
    found = alone(PEAK, model, *ASKED[model])
    excess = {name: found[2 * i] - found[2 * i + 1] for i, name in enumerate(ASKED[model])}
    assert {name: size for name, size in excess.items() if not size < 60} == {}  # MB; the chunk

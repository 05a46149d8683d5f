"""Hidden Markov smoothing beside hmmlearn and, where it is installed, dynamax: long sequences and a batch.

Run by `python -m experiments.benchmarks.posteriors`, or alone: `python -m experiments.benchmarks.posteriors_markov`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.timing import Race, run

SEED = 0
LONG = 100_000
MIXING, STICKY = 0.3, 0.9999
BATCH, LENGTH = 512, 256
DIMENSION = 2
SPREAD = 1.5
SHORT, FITS, MIDDLING = 200, 20, 10_000


def chain(k: int, stay: float, steps: int) -> tuple[Any, Any, Any, Any]:
    """``(π, A, means, x)`` of a chain that stays with the given probability, unit variances."""
    rng = np.random.default_rng(SEED)
    transition = np.full((k, k), (1 - stay) / (k - 1))
    np.fill_diagonal(transition, stay)
    means = rng.normal(size=(k, DIMENSION)) * SPREAD
    moves, others = rng.random(steps) > stay, rng.integers(1, k, size=steps)
    states = np.cumsum(np.where(moves, others, 0)) % k
    return np.full(k, 1 / k), transition, means, means[states] + rng.normal(size=(steps, DIMENSION))


def ours(pi: Any, a: Any, means: Any, x: Any, length: int) -> Callable[[], Any]:
    from identkit.classical.hidden_markov import GaussianEmission, HiddenMarkov

    model = HiddenMarkov(pi, a, GaussianEmission(means, np.ones_like(means)))
    rows = x.reshape(-1, length, DIMENSION)
    return lambda: model.posterior(rows).probs.numpy().reshape(len(x), -1)


def hmmlearn(pi: Any, a: Any, means: Any, x: Any, length: int, implementation: str) -> Callable[[], Any]:
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(len(pi), covariance_type="diag", implementation=implementation)
    model.startprob_, model.transmat_, model.means_ = pi, a, means
    model.covars_ = np.ones_like(means)
    lengths = [length] * (len(x) // length)
    return lambda: model.score_samples(x, lengths=lengths)[1]


def dynamax(pi: Any, a: Any, means: Any, x: Any, length: int) -> Callable[[], Any]:
    jax: Any = importlib.import_module("jax")
    hmm_smoother: Any = importlib.import_module("dynamax.hidden_markov_model").hmm_smoother
    jax.config.update("jax_enable_x64", True)

    def one(rows: Any) -> Any:
        logs = -((rows[:, None, :] - means) ** 2).sum(-1) / 2 - DIMENSION * np.log(2 * np.pi) / 2
        return hmm_smoother(pi, a, logs).smoothed_probs

    smooth = jax.jit(jax.vmap(one))
    rows = x.reshape(-1, length, DIMENSION)
    return lambda: np.asarray(smooth(rows).block_until_ready()).reshape(len(x), -1)


def race(k: int, stay: float, count: int, length: int, name: str, least: float, least_dynamax: float) -> Race:
    problem = chain(k, stay, count * length)
    peers = {
        "hmmlearn": hmmlearn(*problem, length, "log"),
        "hmmlearn scaling": hmmlearn(*problem, length, "scaling"),
    }
    wanted = {"hmmlearn": least}
    if importlib.util.find_spec("dynamax"):
        peers["dynamax"] = dynamax(*problem, length)
        wanted["dynamax"] = least_dynamax
    steps = count * length
    return Race(
        name=f"HMM smoothing, {name}, {count} x {length} steps, K = {k}, Gaussian",
        ours=ours(*problem, length),
        peers=peers,
        least=wanted,
        gap=lambda mine, other: float(np.abs(mine - other).max()),
        bytes_moved=8.0 * steps * (DIMENSION + k),
        operations=steps * (4.0 * k * k + (4 * DIMENSION + 8) * k),
    )


def fit_race(iterations: int, tolerance: float, name: str, fits: int, length: int) -> Race:
    """Baum–Welch on short sequences, one fit each, from the same starts."""
    from hmmlearn.hmm import GaussianHMM

    from identkit.classical.hidden_markov import GaussianEmission, HiddenMarkov

    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
    k = 3
    pi, a, means, x = chain(k, 0.9, length * fits)
    parts = x.reshape(fits, length, DIMENSION)
    start = HiddenMarkov(pi, a, GaussianEmission(means, np.full_like(means, 2.0)))

    def own() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stopped after a fixed number of iterations, on purpose
            found = [
                HiddenMarkov.fit(part, start, starts=1, tolerance=tolerance, iterations=iterations)
                for part in parts
            ]
        return np.array([fit.convergence.log_likelihood for fit in found if fit.convergence])

    def peer(part: Any) -> float:
        model = GaussianHMM(
            k, implementation="scaling", init_params="", tol=tolerance or -np.inf, n_iter=iterations,
            min_covar=0, covars_prior=0,
        )  # fmt: skip
        model.startprob_, model.transmat_, model.means_ = pi, a, means
        model.covars_ = np.full_like(means, 2.0)
        return model.fit(part).monitor_.history[-1]

    return Race(
        name=f"HMM fits, {name}, {fits} of 1 x {length} steps, K = {k}, Gaussian",
        ours=own,
        peers={"hmmlearn scaling": lambda: np.array([peer(part) for part in parts])},
        least={"hmmlearn scaling": 1.0},
        gap=lambda mine, other: float((other - mine).max()),  # nats by which a peer's is higher
        clock=time.process_time if length == SHORT else time.perf_counter,  # longer ones use two cores
    )


def races() -> list[Race]:
    """A mixing and a sticky chain of 10⁵ steps, a batch of short sequences, and fits to one sequence each."""
    return [
        race(16, MIXING, 1, LONG, "mixing chain", 3.0, 3.0),
        race(16, STICKY, 1, LONG, "sticky chain", 1.0, 1.0),
        race(8, 0.5, BATCH, LENGTH, "batch", 3.0, 1.0),
        fit_race(1000, 1e-6, "to 1e-6 nats", FITS, SHORT),
        fit_race(20, 0.0, "20 iterations", FITS, SHORT),
        fit_race(20, 0.0, "20 iterations", 1, MIDDLING),
    ]


if __name__ == "__main__":
    for each in races():
        print(json.dumps(run(each), indent=1))

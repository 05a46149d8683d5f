"""The Kalman smoother beside statsmodels' compiled one: smoothed means and covariances of 10,000 steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from experiments.benchmarks.timing import Race, run

LENGTH, STATES, OBSERVED = 10_000, 8, 4
SEED = 0


def races() -> list[Race]:
    """Time-invariant, with a tenth of the values missing, and with matrices of each time."""
    return [_race(kind) for kind in ("time-invariant", "missing data", "time-varying")]


def _race(kind: str) -> Race:
    from identkit.classical.state_space import StateSpace

    rng = np.random.default_rng(SEED)
    transition = rng.normal(size=(STATES, STATES))
    transition *= 0.9 / abs(np.linalg.eigvals(transition)).max()
    observation = rng.normal(size=(OBSERVED, STATES))
    process, noise = 0.3 * np.eye(STATES), 0.5 * np.eye(OBSERVED)
    x = rng.normal(size=(LENGTH, OBSERVED))
    if kind == "missing data":
        x[rng.random(x.shape) < 0.1] = np.nan
    if kind == "time-varying":
        observation = observation * (1 + 0.1 * rng.normal(size=(LENGTH, 1, 1)))
        transition = np.repeat(transition[None], LENGTH, 0)
    model = StateSpace(transition, observation, process, noise, np.zeros(STATES), np.eye(STATES))
    peer = _peer(transition, observation, process, noise, x)
    length, k, p = float(LENGTH), float(STATES), float(OBSERVED)
    return Race(
        name=f"Kalman smoother, {kind}, T = {LENGTH:,}, state {STATES}, observed {OBSERVED}",
        ours=lambda: _both(model.posterior(x)),
        peers={"statsmodels": lambda: _moments(peer)},
        least={"statsmodels": 5.0 if kind == "time-invariant" else 0.8},
        gap=_gap,
        bytes_moved=8 * length * (p + k + k * k),
        # Toeplitz products in blocks of eight steps, or some thirty products of k × k matrices a step.
        operations=length * (2 * 2 * 8 * k * k if kind == "time-invariant" else 30 * 2 * k**3),
    )


def _both(posterior: Any) -> tuple[np.ndarray, np.ndarray]:
    return posterior.mean[0].numpy(), posterior.covariance[0].numpy()


def _peer(transition: Any, observation: Any, process: Any, noise: Any, x: Any) -> Any:
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    smoother = KalmanSmoother(k_endog=OBSERVED, k_states=STATES, k_posdef=STATES)
    smoother.bind(x.copy())
    smoother["design"] = np.moveaxis(observation, 0, -1) if observation.ndim == 3 else observation
    smoother["transition"] = np.moveaxis(transition, 0, -1) if transition.ndim == 3 else transition
    smoother["selection"], smoother["state_cov"], smoother["obs_cov"] = np.eye(STATES), process, noise
    smoother.initialize_known(np.zeros(STATES), np.eye(STATES))
    return smoother


def _moments(smoother: Any) -> tuple[np.ndarray, np.ndarray]:
    from statsmodels.tsa.statespace.kalman_smoother import SMOOTHER_STATE, SMOOTHER_STATE_COV

    # Only what we compute too: by default it smooths disturbances as well.
    found = smoother.smooth(smoother_output=SMOOTHER_STATE | SMOOTHER_STATE_COV)
    return found.smoothed_state.T, np.moveaxis(found.smoothed_state_cov, -1, 0)


def _gap(ours: Any, theirs: Any) -> float:
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(2)
    for race in races():
        print(run(race))

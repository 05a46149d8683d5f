"""Baum–Welch: expectation–maximisation for a hidden chain, over sequences of any lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.classical.em import Convergence, extrapolated, maximise
from identkit.classical.hidden_markov.data import Sequences
from identkit.classical.hidden_markov.emissions import CategoricalEmission, Emission, PoissonEmission
from identkit.classical.hidden_markov.gaussian import GaussianEmission
from identkit.classical.hidden_markov.lanes import Steps
from identkit.classical.hidden_markov.sweep import sweep
from identkit.classical.hidden_markov.tables import normalised

Array = np.ndarray
State = tuple[Array, Array, Emission]

_NEAR = 0.1
"""Leaps begin where an iteration gains less than this many nats: by then the likelihood's hill is chosen."""


def first_guess(
    x: Any, states: int, kind: str, generator: torch.Generator
) -> tuple[Tensor, Tensor, Emission]:
    """Equal chances, a chain that tends to stay, and random emissions of a kind around what was observed.

    Args:
        x: one sequence (T,) or (T, d), a list of them, or (n, T, d).
        states: K, at least two.
        kind: "gaussian" (diagonal covariances), "poisson" or "categorical" (symbols from 0).

    Raises:
        ValueError: another kind, fewer than two states, or nothing observed.
    """
    if isinstance(states, bool) or states < 2:
        raise ValueError(f"start should be a HiddenMarkov or a number of states from 2, got {states!r}")
    parts = [np.asarray(part, dtype=np.float64) for part in (x if isinstance(x, (list, tuple)) else [x])]
    if all(part.ndim == 0 for part in parts):  # a list of numbers is one sequence
        parts = [np.array([float(part) for part in parts])]
    columns = 1 if parts[0].ndim == 1 else parts[0].shape[-1]
    steps = np.concatenate([part.reshape(-1, columns) for part in parts])
    steps = steps[np.isfinite(steps).all(1)]
    if not len(steps):
        raise ValueError("x should have at least one observed step, got none")
    shape = (states, columns)
    if kind == "gaussian":
        emission: Emission = GaussianEmission(np.zeros(shape), np.ones(shape))
    elif kind == "poisson":
        emission = PoissonEmission(np.ones(shape))
    elif kind == "categorical":
        count = max(int(steps.max()) + 1, 2)
        emission = CategoricalEmission(np.full((states, count), 1 / count))
    else:
        raise ValueError(f"emission should be 'gaussian', 'poisson' or 'categorical', got {kind!r}")
    stay = torch.eye(states, dtype=torch.float64) + 1 / states
    even = torch.full((states,), 1 / states, dtype=torch.float64)
    return even, stay / stay.sum(1, keepdim=True), emission.started(steps, generator)


def fitted(
    data: Sequences,
    start: tuple[Tensor, Tensor, Emission],
    starts: int,
    tolerance: float,
    iterations: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Emission, Convergence]:
    """Climb from `start` and from starts − 1 random ones; the best ``(π, A, emission)`` and how it was reached.

    Raises:
        ValueError: nothing is observed, or no start is asked for.
    """
    if not data.observed.any():
        raise ValueError("x should have at least one observed step, got none")
    if starts < 1 or iterations < 1:
        raise ValueError(f"starts and iterations should be at least 1, got {starts} and {iterations}")
    whole = bool(data.observed.all())
    x = data.x.reshape(-1, data.x.shape[2]) if whole else data.x[data.observed]
    initial, transition, emission = start
    k = len(initial)
    first = (initial.cpu().numpy(), transition.cpu().numpy(), emission)
    steps = [first]
    for _ in range(1, starts):
        noise = torch.rand(k, k, generator=generator, dtype=torch.float64).cpu().numpy()
        sticky = np.eye(k) + noise
        even = np.full(k, 1 / k)
        steps.append((even, sticky / sticky.sum(1, keepdims=True), emission.started(x, generator)))

    def step(state: State) -> tuple[State, float]:
        initial, transition, emission = state
        seen = Steps(data.x, data.observed, data.lengths, emission.stepwise)
        swept = sweep(initial, transition, seen, counts=True)
        height = float(swept.log_evidence.sum())
        if not height > -np.inf:
            raise ValueError(
                "x should be possible from where the fit starts, got a sequence that no path can show"
            )
        began = swept.probs[:, 0].mean(0)
        counts = np.zeros_like(transition) if swept.counts is None else swept.counts
        left = counts.sum(1, keepdims=True)
        moved = np.where(left > 0, counts / np.where(left > 0, left, 1.0), transition)
        weights = swept.probs.reshape(-1, k) if whole else swept.probs[data.observed]
        return (began / began.sum(), moved, emission.maximised(x, weights)), height

    def leapt(first: State, second: State, third: State, stride: float) -> State | None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            trails = zip(_coordinates(first), _coordinates(second), _coordinates(third), strict=True)
            ahead = [(extrapolated(start, middle, end, stride), end) for start, middle, end in trails]
            # Where a chance is zero its log is −∞, and so it stays.
            initial, transition, shown = (np.where(np.isfinite(far), far, end) for far, end in ahead)
            try:
                return normalised(initial), normalised(transition), third[2].placed(shown, x)
            except ValueError:
                return None

    best, convergence = maximise(steps, step, tolerance, iterations, leapt, near=_NEAR)
    initial, transition, emission = best
    initial, transition = (torch.from_numpy(part).to(emission.device) for part in (initial, transition))
    return initial, transition, emission, convergence


def _coordinates(state: State) -> tuple[Array, Array, Array]:
    initial, transition, emission = state
    return np.log(initial), np.log(transition), emission.coordinates()

"""Baum–Welch: expectation–maximisation for a hidden chain, over sequences of any lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.classical.arrays import no_counts, refuse_overflow, refuse_still
from identkit.classical.em import Convergence, extrapolated, maximise
from identkit.classical.hidden_markov.band import expected
from identkit.classical.hidden_markov.data import Sequences
from identkit.classical.hidden_markov.emissions import CategoricalEmission, Emission, PoissonEmission
from identkit.classical.hidden_markov.gaussian import GaussianEmission
from identkit.classical.hidden_markov.lanes import SAFE, Steps
from identkit.classical.hidden_markov.learning import Learner, learner
from identkit.classical.hidden_markov.sweep import sweep
from identkit.classical.hidden_markov.tables import normalised
from identkit.model.compiled.data import unmasked, whole

Array = np.ndarray
State = tuple[Array, ...]
"""π, A and the parameters of the emission, as its learner knows them."""

_MOST_SYMBOLS = 2**16
_NEAR = 0.1
"""Leaps begin where an iteration gains less than this many nats: by then the likelihood's hill is chosen."""
_LITTLE = 2**20
"""Up to so many multiplications (n·T·K²) an iteration is faster as a band than in lanes."""


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
    states = whole(states, "start", 2, why=", a number of states, or a HiddenMarkov")
    parts = [
        np.asarray(unmasked(part), dtype=np.float64) for part in (x if isinstance(x, (list, tuple)) else [x])
    ]
    if all(part.ndim == 0 for part in parts):  # a list of numbers is one sequence
        parts = [np.array([float(part) for part in parts])]
    columns = 1 if parts[0].ndim == 1 else parts[0].shape[-1]
    steps = np.concatenate([part.reshape(-1, columns) for part in parts])
    steps = steps[np.isfinite(steps).all(1)]
    if not len(steps):
        raise ValueError("x should have at least one observed step, got none")
    shape = (states, columns)
    if kind == "gaussian":
        refuse_overflow(torch.from_numpy(steps))
        refuse_still(torch.from_numpy(steps))
        emission: Emission = GaussianEmission(np.zeros(shape), np.ones(shape))
    elif kind == "poisson":
        emission = PoissonEmission(np.ones(shape))
    elif kind == "categorical":
        wrong = steps[no_counts(steps) | (steps > _MOST_SYMBOLS)]
        if len(wrong):
            raise ValueError(f"x should be symbols 0, 1, … up to at most {_MOST_SYMBOLS}, got {wrong[0]:g}")
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
    starts, iterations = whole(starts, "starts", 1), whole(iterations, "iterations", 1)
    initial, transition, emission = start
    learning = learner(emission, data.x.reshape(-1, data.x.shape[2]), data.observed.reshape(-1))
    climb = _Climb(data, learning)
    k = len(initial)
    first = (initial.cpu().numpy(), transition.cpu().numpy(), *learning.parameters(emission))
    states: list[State] = [first]
    for _ in range(1, starts):
        noise = torch.rand(k, k, generator=generator, dtype=torch.float64).cpu().numpy()
        sticky = np.eye(k) + noise
        even = np.full(k, 1 / k)
        begun = learning.parameters(emission.started(learning.seen, generator))
        states.append((even, sticky / sticky.sum(1, keepdims=True), *begun))
    with np.errstate(all="ignore"):  # what cannot be is found by its NaN and done again, or left
        best, convergence = maximise(states, climb.step, tolerance, iterations, climb.leapt, near=_NEAR)
    emission = learning.emission(best[2:])
    initial, transition = (torch.from_numpy(part).to(emission.device) for part in best[:2])
    return initial, transition, emission, convergence


class _Climb:
    """The two steps of an iteration on one data set, and the leap over some."""

    def __init__(self, data: Sequences, learning: Learner) -> None:
        self.data, self.learning = data, learning
        n, self.length = data.observed.shape
        self.steps = n * self.length
        times = np.arange(1, self.length + 1)
        alone = n == 1 and data.lengths[0] == self.length
        self.within = None if alone else (times < data.lengths[:, None]).astype(np.float64).reshape(-1, 1)
        self.share = 0.0
        """By what to multiply the densities of a step, in logs, that their products stay near one."""

    def step(self, state: State) -> tuple[State, float]:
        initial, transition, *parameters = state
        parameters = tuple(parameters)
        found = None
        if self.steps * len(initial) ** 2 <= _LITTLE:
            b, taken = self.learning.densities(parameters, self.share)
            found = expected(initial, transition, b, self.length, self.within)
        if found is not None:
            height = found.log_evidence + taken
            self.share -= found.log_evidence / self.steps
            began, counts, weights = found.initial, found.counts, found.weights
        else:
            emission = self.learning.emission(parameters)
            seen = Steps(self.data.x, self.data.observed, self.data.lengths, emission.stepwise)
            swept = sweep(initial, transition, seen, counts=True)
            height = float(swept.log_evidence.sum())
            if not height > -np.inf:
                raise ValueError(
                    "x should be possible from where the fit starts, got a sequence that no path can show"
                )
            assert swept.counts is not None
            began, counts = swept.probs[:, 0].sum(0), swept.counts
            weights = swept.probs.reshape(-1, len(initial))
        left = np.add.reduce(counts, axis=1, keepdims=True)
        if np.minimum.reduce(left, axis=None) > 0:
            moved = counts / left
        else:
            moved = np.where(left > 0, counts / np.where(left > 0, left, 1.0), transition)
        # Below SAFE a first state has no part in anything, and as a zero it keeps to the short roads.
        began[began < SAFE] = 0.0
        began /= np.add.reduce(began)
        return (began, moved, *self.learning.maximised(parameters, weights)), height

    def leapt(self, first: State, second: State, third: State, stride: float) -> State | None:
        trails = (self._coordinates(state) for state in (first, second, third))
        start, middle, end = trails
        ahead = extrapolated(start, middle, end, stride)
        # Where a chance is zero its log is −∞, and so it stays.
        ahead = np.where(np.isfinite(ahead), ahead, end)
        k = len(first[0])
        try:
            placed = self.learning.placed(ahead[:, k + 1 :])
        except ValueError:
            return None
        return normalised(ahead[:, 0]), normalised(ahead[:, 1 : k + 1]), *placed

    def _coordinates(self, state: State) -> Array:
        """One row a state: the log of its initial chance, of those of its transitions, and its emission's."""
        initial, transition, *parameters = state
        shown = self.learning.coordinates(tuple(parameters))
        return np.concatenate([np.log(initial)[:, None], np.log(transition), shown], 1)

"""Baum–Welch: expectation–maximisation for a hidden chain, over sequences of any lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.classical.em import Convergence, maximise
from identkit.classical.hidden_markov.data import Sequences
from identkit.classical.hidden_markov.emissions import Emission
from identkit.classical.hidden_markov.lanes import Steps
from identkit.classical.hidden_markov.sweep import sweep

State = tuple[Tensor, Tensor, Any]


def fitted(
    data: Sequences,
    start: State,
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
    device = start[2].device
    whole = bool(data.observed.all())
    x = data.x.reshape(-1, data.x.shape[2]) if whole else data.x[data.observed]
    first, steps = start, [start]
    k = len(first[0])
    for _ in range(1, starts):
        sticky = torch.eye(k, dtype=torch.float64) + torch.rand(
            k, k, generator=generator, dtype=torch.float64
        )
        initial = torch.full((k,), 1 / k, dtype=torch.float64, device=device)
        transition = (sticky / sticky.sum(1, keepdim=True)).to(device)
        steps.append((initial, transition, first[2].started(x, generator)))

    def step(state: State) -> tuple[State, float]:
        initial, transition, emission = state
        seen = Steps(data.x, data.observed, data.lengths, emission.stepwise)
        swept = sweep(initial.cpu().numpy(), transition.cpu().numpy(), seen, counts=True)
        height = float(swept.log_evidence.sum())
        if not height > -np.inf:
            raise ValueError(
                "x should be possible from where the fit starts, got a sequence that no path can show"
            )
        began = torch.from_numpy(swept.probs[:, 0].mean(0)).to(device)
        counts = torch.from_numpy(swept.counts).to(device)
        left = counts.sum(1, keepdim=True)
        moved = torch.where(left > 0, counts / left, transition)
        weights = swept.probs.reshape(-1, k) if whole else swept.probs[data.observed]
        return (began / began.sum(), moved, emission.maximised(x, weights)), height

    best, convergence = maximise(steps, step, tolerance, iterations)
    return *best, convergence

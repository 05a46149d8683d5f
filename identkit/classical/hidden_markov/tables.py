"""What all emissions share: probabilities at the door and in exact numbers, densities step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.model import families
from identkit.model.compiled.data import unmasked

_SUM_TOLERANCE = 1e-8


def refuse_probabilities(table: Tensor, name: str) -> None:
    """Refuse rows that are not probabilities, with the row and its sum.

    Raises:
        ValueError: an entry is negative, or a row does not sum to one.
    """
    if bool((table < 0).any()):
        raise ValueError(f"{name} should be at least 0, got {table.min().item()}")
    sums = table.sum(-1).reshape(-1)
    wrong = torch.nonzero((sums - 1).abs() > _SUM_TOLERANCE)
    if len(wrong):
        i = int(wrong[0])
        row = table.reshape(-1, table.shape[-1])[i].tolist()
        where = f"row {i + 1} of {name}" if table.ndim > 1 else name
        raise ValueError(f"{where} should sum to one, got {row} with the sum {sums[i].item()}")


def normalised(logs: np.ndarray) -> np.ndarray:
    """Probabilities proportional to the exponentials of the logs, along the last axis."""
    mass = np.exp(logs - logs.max(-1, keepdims=True))
    return mass / mass.sum(-1, keepdims=True)


def select_exactly(z: Any, numbers: Any) -> Any:
    """One of K numbers by the state z, as exact rationals; a number where all agree."""
    chosen = [families.exact(number) for number in numbers]
    return chosen[0] if len(set(chosen)) == 1 else families.select(z, *chosen)


def relative(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``log b_k`` in the layout (s, K, N) less the largest of each step, in place, and that, (s, N).

    Where no state can show the step nothing is taken out.
    """
    top = np.maximum.reduce(logs, axis=1)
    top = np.where(top > -np.inf, top, 0.0)
    np.subtract(logs, top[:, None], out=logs)
    return logs, top


def from_nearest(
    emission: Any, x: np.ndarray, logs: np.ndarray, step: np.ndarray, lane: np.ndarray
) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Write ``log b_k`` of chosen steps anew, from their differences to the state that shows the step best.

    Args:
        emission: what knows these differences.
        x: (s, N, d).
        logs: (s, K, N), written to: less the largest of each step.
        step, lane: which.

    Yields:
        A state, the steps that it shows best, and their largest difference to it, 0 but for rounding.
    """
    nearest = logs[step, :, lane].argmax(1)
    for k in np.unique(nearest).tolist():
        here = step[nearest == k], lane[nearest == k]
        ratio = emission.ratio(torch.from_numpy(x[here]).to(emission.device), k)[0].cpu().numpy()
        top = ratio.max(1)
        logs[here[0], :, here[1]] = ratio - top[:, None]
        yield k, here, top


def by_steps(emission: Any, x: Any) -> Tensor:
    """``log b_k(x)`` for x (..., d), or (T,) where d = 1, through an emission's `stepwise`."""
    values = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else unmasked(x), dtype=np.float64)
    if emission.columns == 1 and (values.ndim < 2 or values.shape[-1] != 1):
        values = values[..., None]
    if values.shape[-1] != emission.columns:
        raise ValueError(f"x should have shape (any, {emission.columns}), got {values.shape}")
    emission.refuse(values)
    logs, common = emission.stepwise(values.reshape(-1, 1, emission.columns))
    logs = logs[:, :, 0] + common
    device = x.device if isinstance(x, Tensor) else emission.device
    return torch.from_numpy(logs).reshape(*values.shape[:-1], emission.states).to(device)

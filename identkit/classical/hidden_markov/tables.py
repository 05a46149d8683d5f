"""What all emissions share: probabilities at the door and in exact numbers, densities step by step."""

from __future__ import annotations

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

"""A linear-Gaussian state space of a declared length, written out in SymPy."""

from __future__ import annotations

from typing import Any

import sympy
from torch import Tensor

from identkit.model import families
from identkit.model.model import Model


def declare(
    transition: Tensor,
    observation: Tensor,
    process_covariance: Tensor,
    noise_covariance: Tensor,
    initial_mean: Tensor,
    initial_covariance: Tensor,
    transition_offset: Tensor,
    observation_offset: Tensor,
    length: int,
) -> Model:
    """Declare ``z[t] ~ MvNormal(F z[t−1] + b, Q)`` and ``x[t] ~ MvNormal(H z[t] + d, R)`` in exact rationals.

    Diagonal covariances, which must be regular, become independent `Normal`s.
    """
    model, state = Model("state space"), None
    for t in range(length):
        if state is None:
            means = [families.exact(mean) for mean in initial_mean.tolist()]
            spread = initial_covariance
        else:
            means = _affine(_at(transition, t, 2), state, _at(transition_offset, t, 1))
            spread = _at(process_covariance, t, 2)
        state = model.latent(f"z[{t + 1}]", *_normal(means, spread))
        means = _affine(_at(observation, t, 2), state, _at(observation_offset, t, 1))
        model.observe(f"x[{t + 1}]", *_normal(means, _at(noise_covariance, t, 2)))
    return model


def _at(table: Tensor, t: int, axes: int) -> Tensor:
    return table[t] if table.ndim > axes else table


def _affine(matrix: Tensor, state: Any, offset: Tensor) -> list[Any]:
    exact = families.exact
    return [
        sum((exact(entry) * z for entry, z in zip(row, state, strict=True)), exact(shift))
        for row, shift in zip(matrix.tolist(), offset.tolist(), strict=True)
    ]


def _normal(means: list[Any], covariance: Tensor) -> tuple[families.Family, int]:
    """A family and its shape: independent normals where the covariance is diagonal."""
    entries = [[families.exact(entry) for entry in row] for row in covariance.tolist()]
    size = len(means)
    if any(entries[i][j] != 0 for i in range(size) for j in range(i)):
        return families.MvNormal(means, entries), size
    return families.Normal(means, [sympy.sqrt(entries[i][i]) for i in range(size)]), size

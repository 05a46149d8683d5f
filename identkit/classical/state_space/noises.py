"""A state space whose latents are its noises: what to verify where a state is determined by others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from identkit.classical.linear_gaussian import FactorAnalysis
from identkit.classical.state_space.chain import timed

if TYPE_CHECKING:
    from identkit.classical.state_space.model import StateSpace


def of_noises(model: StateSpace) -> FactorAnalysis:
    """Write ``z_t = F z_{t−1} + b + G w_t`` out: x is a linear function of the standard normal w's, and noise.

    Raises:
        ValueError: no length is declared, or R is not diagonal.
    """
    length = model._declared
    noise = model.noise_covariance
    if bool((noise - torch.diag_embed(noise.diagonal(dim1=-2, dim2=-1))).any()):
        raise ValueError(f"noise_covariance should be diagonal for of_noises, got {noise.tolist()!s:.200}")
    here = model._moved(torch.device("cpu"), torch.float64)
    forward, root, means = (np.asarray(part) for part in here._steps(length))
    design = timed(here.observation.numpy(), length)[0]
    k = root.shape[-1]
    state, rows = np.zeros((k, length * k)), []
    for t in range(length):
        state = forward[t] @ state
        state[:, t * k : (t + 1) * k] = root[t]
        rows.append(design[t] @ state)
    # A noise that moves no state is no latent; one that moves a state is, though no datum may see it.
    moves = root.any(1).reshape(-1)
    moves[0] |= not moves.any()
    offsets = timed(here.observation_offset.numpy()[..., None], length)[0, :, :, 0]
    variances = timed(here.noise_covariance.numpy(), length)[0].diagonal(axis1=1, axis2=2)
    return FactorAnalysis(
        torch.from_numpy(np.concatenate(rows)[:, moves]).to(model.initial_mean.device),
        torch.from_numpy(np.sqrt(variances).reshape(-1)),
        torch.from_numpy(((design @ means[..., None])[..., 0] + offsets).reshape(-1)),
    )

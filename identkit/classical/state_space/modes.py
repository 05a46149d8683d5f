"""Unobservable modes: directions of a state that no observation sees, and when that means collapse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_RANK = 1e-12
"""A direction counts as unseen when its image is smaller, in units of the rows that should see it."""
_TIED = 1e-10  # a correlation above is none of rounding


@dataclass(frozen=True, eq=False)
class Unobservable:
    """The unobservable subspace of a state.

    Given the rest of the path, the posterior along it is the prior, for every x (theory/T2). The marginal law of the
    coordinates directionsᵀz is the prior's iff they are uncorrelated with everything observed (theory/T3); that is
    a statement on these coordinates, and others are ∥ to the same subspace.
    """

    directions: Float[Tensor, "k m"]
    """An orthonormal basis in columns, m = 0 where every state is observable."""
    collapsed: bool
    """Whether the posterior of directionsᵀz alone is the prior's as well: it is uncorrelated with all H_s z_s."""

    @property
    def dimension(self) -> int:
        """m."""
        return self.directions.shape[1]

    def __str__(self) -> str:
        """Say it in a sentence."""
        k = len(self.directions)
        if not self.dimension:
            return f"all {k} directions of the state are observable"
        end = (
            "the prior comes back, for they are independent of the rest a priori"
            if self.collapsed
            else "the posterior differs from the prior all the same, for they depend on the rest a priori"
        )
        return f"{self.dimension} of {k} directions of the state are unobservable; along them {end}"


def unobservable(
    transition: Float[Tensor, "t k k"],
    root: Float[Tensor, "t k k"],
    observation: Float[Tensor, "1 t p k"],
    constant: bool,
) -> Unobservable:
    """Find the directions of z_1 that x_1, …, x_T ignore.

    ``N_T = null H_T``, ``N_t = null [H_t; (I − Π_{t+1}) F_{t+1}]`` with the projection Π on N_{t+1}: each step is a
    null space of rows of length one, so that no power of F can swamp another.

    Args:
        transition: F, the first of which leads nowhere.
        root: G, the first of which is the initial state's.
        observation: H.
        constant: whether the directions are those of the state at every time, else those of z_1.
    """
    seen, length = observation[0], len(transition)
    k = transition.shape[-1]
    eye = torch.eye(k, dtype=transition.dtype, device=transition.device)
    basis = _null(seen[-1])
    for t in range(length - 2, -1, -1):
        hidden = (eye - basis @ basis.T) @ transition[t + 1]
        # A row of rounding would be scaled up to a constraint.
        hidden = torch.where(_norm(hidden) > _RANK * _norm(transition[t + 1]), hidden, 0.0)
        basis = _null(torch.cat([seen[t], hidden]))
    spreads = [root[0] @ root[0].T]
    for t in range(1, length):
        spreads.append(transition[t] @ spreads[-1] @ transition[t].T + root[t] @ root[t].T)
    own = [(basis.T @ spread * basis.T).sum(-1).clamp(min=0.0).sqrt() for spread in spreads]
    now = [
        (seen[t] @ spread * seen[t]).sum(-1, keepdim=True).clamp(min=0.0).sqrt()
        for t, spread in enumerate(spreads)
    ]
    collapsed = True
    for t in range(length if constant else 1):
        across = spreads[t]  # Cov(z_s, z_t) for s = t, t + 1, …
        for s in range(t, length):
            across = transition[s] @ across if s > t else across
            collapsed &= bool(((seen[s] @ across @ basis).abs() <= _TIED * now[s] * own[t]).all())
            if constant:
                collapsed &= bool(((seen[t] @ across.T @ basis).abs() <= _TIED * now[t] * own[s]).all())
    return Unobservable(directions=basis, collapsed=collapsed)


def _norm(rows: Tensor) -> Tensor:
    return rows.square().sum(-1, keepdim=True).sqrt()


def _null(rows: Tensor) -> Tensor:
    size = _norm(rows)
    kept = rows / torch.where(size > 0, size, 1.0)
    _, values, right = torch.linalg.svd(kept, full_matrices=True)
    rank = int((values > _RANK).sum())
    return right[rank:].T

"""Finite priors: which states have one law. All of them are compared, so there is nothing to search or to sample."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor

from identkit.numeric.jacobian import PIECE
from identkit.numeric.laws import bare
from identkit.numeric.prior import Prior
from identkit.numeric.probed import Probed
from identkit.numeric.rounding import in_units, unit

NEAR = 1e-6
"""Nats of symmetrised KL below which two laws are reported as hard to tell apart."""
_VIEWS = 8  # random projections by which states are sorted before they are compared in full


@dataclass(frozen=True)
class Merged:
    """The partition of the states of a finite prior by their law."""

    groups: tuple[tuple[int, ...], ...]
    """Indices into ``prior.states`` (0-based), every state in one group, largest groups first."""
    near: tuple[tuple[int, int, float], ...]
    """States of different groups whose laws are within `NEAR`, with their symmetrised KL in nats."""
    bitwise: bool
    """Whether the laws within each group are equal to the last bit; else but for rounding."""


def merged(p: Probed, seed: int = 0) -> Merged:
    """Compare the laws of all states of a finite prior.

    States are sorted by random projections of their laws, and only neighbours are compared in full: equal laws are
    neighbours in every projection. `near` lists such neighbours within `NEAR` nats, and is no complete list.
    """
    states = p.prior.states
    if states is None:
        raise ValueError("prior should be finite for its states to be compared, got a continuous one")
    seen = _views(p, states, seed)
    groups, bitwise = _partition(p, states, seen)
    representatives = torch.tensor([group[0] for group in groups], device=states.device)
    near = _near(p, states, representatives, seen[0])
    return Merged(tuple(sorted(groups, key=lambda g: (-len(g), g))), near, bitwise)


def state_name(prior: Prior, state: Float[Tensor, " k"]) -> str:
    """A state in words, ``(z[1]=0, z[2]=1)``; classes of a Categorical are counted from 1, as in the text."""
    base = bare(prior.distribution)
    first = 1 if isinstance(base, td.Categorical) else 0
    values = (f"{name}={value + first:.6g}" for name, value in zip(prior.names, state.tolist(), strict=True))
    return f"({', '.join(values)})"


def _views(p: Probed, states: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Random projections of each state's law, and how far rounding can move the first."""
    generator = torch.Generator(states.device).manual_seed(seed)
    views, slack, weights = [], [], None
    for part in states.split(_rows(p, states)):
        values, rounding = unit(p, part, torch.ones_like(states[0]))
        if weights is None:
            weights = torch.randn(
                values.shape[1], _VIEWS, dtype=values.dtype, device=values.device, generator=generator
            )
        views.append(values @ weights)
        slack.append(rounding @ weights.abs()[:, 0] + values.abs() @ weights.abs()[:, 0] * 8 * p.eps)
    return torch.cat(views), torch.cat(slack)


def _rows(p: Probed, states: Tensor) -> int:
    with torch.no_grad():
        return max(1, PIECE // max(512, p.parameters(states[:1]).shape[1]))


def _partition(p: Probed, states: Tensor, seen: tuple[Tensor, Tensor]) -> tuple[list[tuple[int, ...]], bool]:
    view, slack = seen[0][:, 0], seen[1]
    order = torch.argsort(view)
    gaps = view[order].diff()
    apart = gaps > 4 * (slack[order][1:] + slack[order][:-1])
    cuts = (torch.nonzero(apart).squeeze(1) + 1).tolist()
    groups: list[tuple[int, ...]] = []
    bitwise = True
    for cluster in torch.tensor_split(order, cuts):
        left = cluster.sort().values
        while len(left):
            same, exact = _same_as_first(p, states, left)
            bitwise &= exact
            groups.append(tuple(left[same].tolist()))
            left = left[~same]
    return groups, bitwise


def _same_as_first(p: Probed, states: Tensor, members: Tensor) -> tuple[Tensor, bool]:
    """Which of the states have the law of the first, and whether to the last bit."""
    same, exact = torch.ones(len(members), dtype=torch.bool, device=members.device), True
    if len(members) == 1:
        return same, exact
    scale = torch.ones_like(states[0])
    law, about = unit(p, states[members[:1]], scale)
    rows = _rows(p, states)
    for start in range(0, len(members), rows):
        values, rounding = unit(p, states[members[start : start + rows]], scale)
        here = in_units(values - law, rounding + about).abs().amax(1) <= 1
        here[: 1 if start == 0 else 0] = True
        same[start : start + rows] = here
        exact &= bool((values[here] == law).all())
    return same, exact


def _near(
    p: Probed, states: Tensor, representatives: Tensor, views: Tensor
) -> tuple[tuple[int, int, float], ...]:
    pairs: set[tuple[int, int]] = set()
    for view in views[representatives].T:
        order = representatives[torch.argsort(view)].tolist()
        pairs |= {(min(pair), max(pair)) for pair in pairwise(order)}
    listed = torch.tensor(sorted(pairs), device=states.device).reshape(-1, 2)
    near: list[tuple[int, int, float]] = []
    for part in listed.split(_rows(p, states)):
        try:
            with torch.no_grad():
                apart = p.divergence(states[part[:, 0]], states[part[:, 1]]) if len(part) else part[:, 0]
        except NotImplementedError:
            return ()
        for (i, j), nats in zip(part.tolist(), apart.tolist(), strict=True):
            if nats <= NEAR:
                near.append((i, j, nats))
    return tuple(near)

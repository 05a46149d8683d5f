"""Expectation–maximisation of a mixture: where it begins, what it repeats, and what becomes of empty components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.em import maximise
from identkit.model.compiled.data import whole

_EMPTY = 1e-14
"""The share of the data below which a component is empty."""
_SEED = 0
_SHARED = 0.1
"""What each datum gives to all components alike, so that no start is at the edge of the parameters."""
_CANDIDATES = 20_000
_LLOYD = 5


Maximised = Callable[[Any, Tensor], Any]
"""``maximised(model, mass)``: the M-step, from the current model and the responsibilities (n, K)."""


def climb(x: Tensor, starts: Sequence[Any], maximised: Maximised, tolerance: float, iterations: int) -> Any:
    """Fit by expectation–maximisation from each start, and keep the best.

    ``r = posterior(x)``, then the parameters that maximise ``Σ_nk r_nk log(π_k p_k(x_n))``.

    Source: Dempster, Laird & Rubin 1977.

    Args:
        x: data (n, d).
        starts: mixtures of one class.
        maximised: the M-step, from the current mixture and the responsibilities (n, K).
        tolerance: as `identkit.classical.em.maximise`, in nats of all data.
        iterations: as `identkit.classical.em.maximise`.

    Returns:
        The mixture, with its `convergence`.
    """

    def step(model: Any) -> tuple[Any, float]:
        mass, evidence = model._by_blocks(x, model._mass_and_evidence)
        return maximised(model, mass), float(evidence.sum())

    best, convergence = maximise(starts, step, tolerance, iterations)
    return best._with(convergence)


def shares(mass: Float[Tensor, "n components"]) -> tuple[Tensor, Tensor]:
    """Give each component's share of the data, and which components hold any: `shares_of` of their sums."""
    return shares_of(mass.sum(0))


def shares_of(totals: Float[Tensor, " components"]) -> tuple[Tensor, Tensor]:
    """Give the shares of components that hold so much of the data each, and which hold any.

    A component whose share falls below 1e-14 is empty: it gets weight 0 and keeps its other parameters.
    """
    share = totals / totals.sum()
    held = share > _EMPTY
    if bool(held.all()):
        return share, held
    share = torch.where(held, share, 0.0)
    return share / share.sum(), held


def seeded_masses(
    x: Float[Tensor, "n d"], count: int, starts: int, generator: torch.Generator | None
) -> list[Float[Tensor, "n count"]]:
    """Give first responsibilities: k-means++ seeds, a few steps of k-means, then mostly the nearest centre.

    Source: Arthur & Vassilvitskii 2007 (seeds are drawn with probability ∝ squared distance to those before).

    Args:
        x: data; columns are compared in units of their standard deviations.
        count: number of components.
        starts: number of starts.
        generator: for the seeds; None for seed 0.

    Raises:
        ValueError: no start is asked for.
    """
    starts = whole(starts, "restarts", 1)
    if generator is None:
        generator = torch.Generator().manual_seed(_SEED)
    sd = x.std(0, correction=0)
    x = (x - x.mean(0)) / torch.where(sd > 0, sd, 1.0)
    return [_from_seeds(x, _seeds(x, count, generator)) for _ in range(starts)]


def _seeds(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    place = generator.device
    drawn = torch.randperm(len(x), generator=generator, device=place)[:_CANDIDATES].to(x.device)
    x = x[drawn]
    seeds = x[:1]
    apart = (x - seeds).square().sum(1)
    for _ in range(count - 1):
        chances = apart + (apart.sum() + 1) * 1e-12 / len(x)  # where all data are at seeds, any will do
        chosen = torch.multinomial(chances.to(place), 1, generator=generator).to(x.device)
        seeds = torch.cat([seeds, x[chosen]])
        apart = torch.minimum(apart, (x - x[chosen]).square().sum(1))
    return seeds


def _from_seeds(x: Tensor, centres: Tensor) -> Tensor:
    for _ in range(_LLOYD):
        nearest = torch.nn.functional.one_hot(_nearest(x, centres), len(centres)).to(x.dtype)
        total = nearest.sum(0)[:, None]
        centres = torch.where(total > 0, nearest.T @ x / total.clamp(min=1.0), centres)
    nearest = torch.nn.functional.one_hot(_nearest(x, centres), len(centres)).to(x.dtype)
    return (1 - _SHARED) * nearest + _SHARED / len(centres)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    # |x|² is common to all centres.
    return (centres.square().sum(1) - 2 * x @ centres.T).argmin(1)

"""The mutual information of a label and a row, ``I(k; x) = E KL(p(k | x) ‖ p(k))``: three ways to the mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.model.protocol import Estimate

_DRAWS = 2**16
_SEED = 0
_EPS = torch.finfo(torch.float64).eps
_COARSE, _FINE = (np.polynomial.legendre.leggauss(count) for count in (12, 24))
_ROUNDS = 40
_PANEL_TOLERANCE = 1e-15
"""A panel is halved while its two rules differ by more than this many nats, or this share of the total."""


def draw_states(weights: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Draw n states of probabilities `weights`, on the generator's device, and bring them to the model's."""
    if n == 0:  # torch draws one state at least
        return torch.zeros(0, dtype=torch.int64, device=weights.device)
    place = weights.device if generator is None else generator.device
    return torch.multinomial(weights.to(place), n, replacement=True, generator=generator).to(weights.device)


def simulated(model: Any, draws: int = _DRAWS) -> Estimate:
    """Average the KL over data drawn from each component in turn, ``Σ_k π_k E_k KL``, with a fixed seed.

    Half of the draws follow the weights and half are shared alike: rows drawn from the mixture itself would never show
    a component of weight 1e-12, which has most of the information, nor the standard error that it was missed.

    Args:
        model: a mixture.
        draws: how many rows, about; at least two a component.

    Returns:
        The estimate; its error is a standard error, and what rounding may add, in nats.
    """
    support = model._support
    weights = model._log_prior.exp()
    counts = (draws / 2 * (weights + 1 / len(weights))).ceil().clamp(min=2).long()
    x = model._draw(support.repeat_interleave(counts), torch.Generator().manual_seed(_SEED))
    of_each = model.kl_to_prior(x).split(counts.tolist())
    mean, spread = (torch.stack([part(kl) for kl in of_each]) for part in (torch.mean, torch.var))
    rounding = torch.stack([error.mean() for error in model.kl_error(x).split(counts.tolist())])
    return Estimate(
        value=float(weights @ mean),
        error=float((weights.square() @ (spread / counts)).sqrt() + weights @ rounding),
        method="Monte Carlo",
    )


def enumerated(model: Any, cells: Tensor, left_out: float = 0.0) -> Estimate:
    """Sum ``p(x) KL(x)`` over the values that a row can take.

    Args:
        model: a mixture of discrete laws.
        cells: every value, one a row; all of them, or all but a set of small probability.
        left_out: the probability of the rest, where a KL is at most −log of the least weight.

    Returns:
        The sum, "closed form" if no value is left out, else "quadrature".
    """
    mass = torch.exp(model.log_evidence(cells))
    kl = model.kl_to_prior(cells)
    value = float((mass * kl).sum())
    known = float((mass * model.kl_error(cells)).sum()) + 64 * _EPS * value
    least = float(model.weights[model.weights > 0].min())
    return Estimate(
        value=value,
        error=known - left_out * math.log(least),
        method="quadrature" if left_out else "closed form",
    )


def integrated(model: Any, edges: Tensor, place: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Estimate:
    """Integrate ``p(x) KL(x)`` over a line, halving panels until two Gauss–Legendre rules agree on each.

    Args:
        model: a mixture of laws on the line, d = 1.
        edges: where panels begin and end, increasing; what lies outside should have no mass to speak of.
        place: takes t and gives x and log |dx/dt|.

    Returns:
        The integral, with the sum of the panels' differences, and what rounding of the nodes may add, as its error.
    """
    low, high = edges[:-1], edges[1:]
    value = error = 0.0
    for round_ in range(_ROUNDS):
        (coarse, _), (fine, blur) = (_panels(model, low, high, place, rule) for rule in (_COARSE, _FINE))
        gap = (fine - coarse).abs()
        total = value + float(fine.sum())
        open_ = gap > _PANEL_TOLERANCE * max(total, 1e-300) + 8 * _EPS * fine + blur
        if round_ == _ROUNDS - 1:
            open_ = torch.zeros_like(open_)
        value += float(fine[~open_].sum())
        error += float((gap + blur)[~open_].sum())
        if not bool(open_.any()):
            break
        middle = (low + high)[open_] / 2
        low, high = torch.cat([low[open_], middle]), torch.cat([middle, high[open_]])
    return Estimate(value=value, error=error + 64 * _EPS * value, method="quadrature")


def _panels(
    model: Any, low: Tensor, high: Tensor, place: Any, rule: tuple[Any, Any]
) -> tuple[Tensor, Tensor]:
    """The panels' integrals, and what they may miss since a node is only known to a rounding: shift times variation."""
    nodes, weights = (torch.as_tensor(part, device=low.device) for part in rule)
    half = (high - low) / 2
    t = ((low + high) / 2)[:, None] + half[:, None] * nodes
    x, log_slope = place(t.reshape(-1, 1))
    heights = torch.exp(model.log_evidence(x) + log_slope[:, 0]) * model.kl_to_prior(x)
    heights = heights.reshape(t.shape)
    shift = 2 * _EPS * (t.abs() + (x.abs() * torch.exp(-log_slope)).reshape(t.shape)).amax(1)
    return heights @ weights * half, shift * heights.diff(dim=1).abs().sum(1)

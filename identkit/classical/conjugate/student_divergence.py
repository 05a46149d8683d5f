"""The KL between two Student laws, for which there is no closed form: Gauss panels around both centres."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.compiled.saddle_point import log_student
from identkit.posterior.stable import kl_of_log_ratio

_ORDERS = (14, 20)
_ROWS = 32
_NEAREST = -3
_MOST_DOUBLINGS = 400


def student_kl(
    degrees: Float[Tensor, " n"],
    shift: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    prior_degrees: float | int,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Integrate ``KL(t_ν'(shift, scale) ‖ t_ν(0, 1))`` and bound its error, in nats.

    Panels double in width away from either centre, so that laws 1e-8 as wide or 1e8 apart, and tails that fall
    like a power, are all resolved; the sum over the nodes never cancels. The error is the difference between two
    orders, the mass beyond the last panel, and rounding.

    Args:
        degrees: ν' of the first law; shift and scale place it relative to the second, scale > 0.
        prior_degrees: ν of the second law.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> kl, error = student_kl(1e12 * one, 0.5 * one, one, 1e12)
    >>> abs(kl.item() - 0.125) < 1e-10, error.item() < 1e-9
    (True, True)
    """
    if len(shift) == 0:
        return torch.zeros_like(shift), torch.zeros_like(shift)
    found = [
        _some(*block, float(prior_degrees))
        for block in zip(degrees.split(_ROWS), shift.split(_ROWS), scale.split(_ROWS), strict=True)
    ]
    kl, error = (torch.cat(part) for part in zip(*found, strict=True))
    return kl, error


def _some(degrees: Tensor, shift: Tensor, scale: Tensor, prior_degrees: float) -> tuple[Tensor, Tensor]:
    least = min(prior_degrees, float(degrees.min()))
    last = min(_MOST_DOUBLINGS, 8 + math.ceil(60 / least))
    steps = torch.pow(2.0, torch.arange(_NEAREST, last + 1, dtype=torch.float64, device=shift.device))
    offsets = torch.cat([-steps, steps.new_zeros(1), steps])
    edges = (
        torch.cat([offsets.expand(len(shift), -1), shift[:, None] + scale[:, None] * offsets], 1)
        .sort(1)
        .values
    )
    before = torch.full_like(shift, prior_degrees)[:, None]
    answers = []
    for order in _ORDERS:
        nodes, weights = (torch.from_numpy(part).to(shift) for part in np.polynomial.legendre.leggauss(order))
        half = (edges[:, 1:] - edges[:, :-1]) / 2
        t = ((edges[:, 1:] + edges[:, :-1]) / 2)[..., None] + half[..., None] * nodes
        log_mass = (half.log()[..., None] + weights.log()).flatten(1)
        t = t.flatten(1)
        log_prior = log_student(t, before)
        place = (t - shift[:, None]) / scale[:, None]
        log_ratio = log_student(place, degrees[:, None]) - scale.log()[:, None] - log_prior
        answers.append(kl_of_log_ratio(log_prior + log_mass, log_ratio))
        missing = 1 - torch.exp(log_prior + log_mass).sum(1)
    kl = answers[1]
    rounding = 1e-14 * (1 + kl) * (1 + shift.abs().log1p() + scale.log().abs())
    return kl, (kl - answers[0]).abs() + missing.abs() + rounding

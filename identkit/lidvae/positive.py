"""Weights that are positive whatever their parameter: ``softplus(raw) = log(1 + eʳᵃʷ)``.

Not clamps, whose gradient vanishes where a weight has reached 0, and not ``exp``, which starts with Jacobians of 1e5.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from identkit.numeric import intervals
from identkit.numeric.intervals import Interval

_LINEAR = 40.0
"""Beyond it softplus is its argument to every digit of float64; torch's own threshold, 20, leaves an error of 2e-9."""
_ROOM = 32 * torch.finfo(torch.float64).eps  # exp and log1p are within 4 units in the last place


def softplus(raw: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """``log(1 + eʳᵃʷ)`` to full precision in float64."""
    return functional.softplus(raw, threshold=_LINEAR)


def raw_of(weight: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The parameter of a positive weight: ``log(eʷ − 1)``, the inverse of `softplus`.

    >>> softplus(raw_of(torch.tensor([1e-6, 1.0, 50.0])))
    tensor([1.0000e-06, 1.0000e+00, 5.0000e+01])
    """
    return weight + torch.log(-torch.expm1(-weight))


def enclosed(raw: Float[Tensor, "*s"]) -> Interval:
    """Contain softplus of these floats, in float64."""
    value = softplus(raw.detach().cpu().double())
    found = intervals.widened(value, value, _ROOM)
    return Interval(found.low.clamp(min=0.0), found.high)

"""The likelihood of answers to items, relative to an ability of zero: differences of log p keep their digits."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from identkit.classical.arrays import real, rows

_CELLS_AT_ONCE = 1 << 21


def answers(x: Any, items: int, device: torch.device) -> Float[Tensor, "n j"]:
    """Convert answers 0 and 1, NaN where one is missing, to shape (n, items); a copy that is safe to keep.

    Raises:
        TypeError, ValueError: another shape, or another number.

    >>> answers([[1, 0], [float("nan"), 1]], 2, torch.device("cpu"))
    tensor([[1., 0.],
            [nan, 1.]], dtype=torch.float64)
    """
    given = real(x, "x", single=True, missing=True)
    missing = given.isnan() if given.is_floating_point() else torch.zeros_like(given, dtype=torch.bool)
    known = rows(given.masked_fill(missing, 0), items).to(
        device if not isinstance(x, Tensor) else given.device
    )
    wrong = torch.nonzero((known != 0) & (known != 1))
    if len(wrong):
        row, item = wrong[0].tolist()
        raise ValueError(
            f"x should hold answers 0 and 1, or NaN for a missing one, got {known[row, item].item():g} at "
            f"index ({row}, {item})"
        )
    return known.masked_fill(missing.reshape(known.shape).to(known.device), torch.nan)


def level(intercepts: Tensor, guessing: Tensor, x: Tensor) -> Float[Tensor, " n"]:
    """``ℓ(0) = Σ_j log p(x_j | θ = 0)``, over the answers given."""
    right = _log_right(intercepts, guessing)
    wrong = torch.log1p(-guessing) + logsigmoid(-intercepts)
    return torch.where(x == 1, right, torch.where(x == 0, wrong, 0.0)).sum(-1)


def _log_right(logit: Tensor, guessing: Tensor) -> Tensor:
    return torch.log(guessing + (1 - guessing) * torch.sigmoid(logit)).where(guessing > 0, logsigmoid(logit))


def gains(
    slopes: Tensor, intercepts: Tensor, guessing: Tensor, x: Tensor, theta: Tensor
) -> Float[Tensor, "*batch"]:
    """``ℓ(θ) − ℓ(0)``, relatively accurate however small the slopes are; x (…, j) beside θ (…, k).

    With δ = a·θ, ``log σ(d + δ) − log σ(d) = −log1p(σ(−d) expm1(−δ))``, and with guessing c
    ``log1p(−(1 − c) σ(d + δ) σ(−d) expm1(−δ) / (c + (1 − c) σ(d)))``.
    """
    blocks = max(1, _CELLS_AT_ONCE // len(intercepts))
    if theta.ndim == 2 and x.ndim == 2 and len(theta) > blocks and not theta.requires_grad:
        parts = [
            gains(slopes, intercepts, guessing, block, part)
            for block, part in zip(x.split(blocks), theta.split(blocks), strict=True)
        ]
        return torch.cat(parts)
    shift = theta @ slopes.mT
    near = shift.clamp(-1.0, 1.0)
    chance = guessing + (1 - guessing) * torch.sigmoid(intercepts)
    drop = torch.sigmoid(-intercepts) * torch.expm1(-near)
    close = torch.where(
        guessing > 0,
        torch.log1p(-(1 - guessing) * torch.sigmoid(intercepts + near) * drop / chance),
        -torch.log1p(drop),
    )
    far = _log_right(intercepts + shift, guessing) - _log_right(intercepts, guessing)
    right = torch.where(shift.abs() < 1, close, far)
    close = -torch.log1p(torch.sigmoid(intercepts) * torch.expm1(near))
    wrong = torch.where(shift.abs() < 1, close, logsigmoid(-intercepts - shift) - logsigmoid(-intercepts))
    return torch.where(x == 1, right, torch.where(x == 0, wrong, torch.zeros_like(wrong))).sum(-1)


def steepness(
    slopes: Tensor, intercepts: Tensor, guessing: Tensor, x: Tensor, theta: Tensor
) -> Float[Tensor, "*batch k"]:
    """``∇ℓ(θ)``: ``a_j (1 − c) σ(1 − σ)/P`` for a right answer, ``−a_j σ`` for a wrong one."""
    rise = torch.sigmoid(intercepts + theta @ slopes.mT)
    chance = guessing + (1 - guessing) * rise
    right = torch.where(guessing > 0, (1 - guessing) * rise * (1 - rise) / chance, 1 - rise)
    slope = torch.where(x == 1, right, torch.where(x == 0, -rise, torch.zeros_like(rise)))
    return slope @ slopes

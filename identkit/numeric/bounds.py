"""What can be proved about a decoder from its weights: the only source of a numeric `GLOBAL` (theory/T5).

Each function records the computation from the latents to the law's parameters (`trace`), translates it into a small
`Program` (`lowering`), and reasons about that with exact rationals and outward rounding. It returns a certificate that
re-checks itself, or None: no proof was found, or the model does something that has no rule. The statements are about
the real function that these float weights define, not about its rounding.
"""

from __future__ import annotations

import math

import torch
from flint import fmpq
from jaxtyping import Float
from torch import Tensor

from identkit.numeric import affine, bounded, enclosure, intervals
from identkit.numeric.bottleneck import bottleneck
from identkit.numeric.certificates import (
    Analytic,
    Ignored,
    Injective,
    NullDirections,
    Unread,
    decoder_constants,
    fractions,
    held,
)
from identkit.numeric.intervals import Interval
from identkit.numeric.lowering import density_program
from identkit.numeric.probed import Probed
from identkit.numeric.record import Record, record_of
from identkit.numeric.recovery import recovered
from identkit.numeric.regions import dead_region
from identkit.numeric.state_proof import states

__all__ = [
    "analytic",
    "bottleneck",
    "constant",
    "dead_region",
    "ignored",
    "injective",
    "null_directions",
    "oscillation",
    "states",
]


def ignored(p: Probed | Record) -> Ignored | None:
    """Prove which latents never reach the law (known_answers H4, H16); `CONSTANT` for each of them.

    On the prior's support: a ReLU layer that is dead on the box of a uniform prior hides all latents (H3), and under
    a normal prior none (H3′).
    """
    record = record_of(p)
    if record.program is None:
        return None
    model = record.model
    names = tuple(name for name, hidden in zip(model.prior.names, record.unseen, strict=True) if hidden)
    return Ignored(model=model, names=names) if names else None


def constant(p: Probed | Record) -> Ignored | None:
    """Prove that the law is the same on the whole support of the prior: full collapse, for every datum (theory/T1).

    Where only a log density is known: that it is constant on the given data.
    """
    found = ignored(p)
    return found if found is not None and len(found.names) == found.model.prior.size else None


def null_directions(p: Probed | Record) -> NullDirections | None:
    """Prove that the law does not change along some directions of the latents, other than the ignored ones.

    The law often reads z through affine functions alone, such as a first layer ``Wz + b``: the exact null space of W,
    whose floats are rationals, cannot be seen (H1). Proves `PARTIAL` for the latents that a direction moves.
    """
    record = record_of(p)
    if record.program is None:
        return None
    size = record.model.prior.size
    free = [j for j, hidden in enumerate(record.unseen) if not hidden]
    basis = affine.null_space_of({tuple(row[j] for j in free) for row in record.rows}, len(free))
    directions = []
    for vector in basis:
        whole = [fmpq(0)] * size
        for j, value in zip(free, vector, strict=True):
            whole[j] = value
        directions.append(fractions(whole))
    return NullDirections(model=record.model, directions=tuple(directions)) if directions else None


def unread(p: Probed | Record) -> Unread | None:
    """Prove that z enters through fewer linear functions than there are latents, and which latents that frees.

    For layers too wide for `null_directions`, whose exact vectors would fill the memory. Proves `PARTIAL`.
    """
    record = record_of(p)
    if record.program is None or len(record.rows) >= record.model.prior.size:
        return None
    prior = record.model.prior
    moved = affine.freed(record.rows, prior.size)
    names = tuple(name for name, moves in zip(prior.names, moved, strict=True) if moves)
    return Unread(model=record.model, names=names, rank=len(record.rows)) if names else None


def injective(p: Probed | Record) -> Injective | None:
    """Prove that the law determines latents, all or some: `GLOBAL` for each that is named (theory/T5).

    By reading the law backwards (`recovery`) through layers, monotone links, couplings and residual blocks, or by
    difference quotients over the support (``sup ‖I − AJ‖ < 1``, ``J + Jᵀ ≻ 0``). Parts of the decoder that cannot be
    followed may vouch for themselves (`Bounded`).
    """
    record = record_of(p)
    if record.program is not None:
        model, blind = record.model, record.unseen
        box = held(record.support, blind)
        known = recovered(record.program, enclosure.ranges(record.program, box))
        names = tuple(
            n for n, is_known, no in zip(model.prior.names, known, blind, strict=True) if is_known and not no
        )
        if names:
            lower, upper = decoder_constants(model, box)
            return Injective(
                model=model,
                names=names,
                ignored=tuple(name for name, hidden in zip(model.prior.names, blind, strict=True) if hidden),
                lower=lower if lower > 0 else None,
                upper=upper if math.isfinite(upper) else None,
            )
    return _vouched(record.model)


def _vouched(p: Probed) -> Injective | None:
    found = bounded.links(p, Record(p).support)
    if found is None or not bounded.reads_off(p):
        return None
    lower, upper = bounded.total(found)
    return Injective(
        model=p,
        names=p.prior.names,
        ignored=(),
        lower=lower if lower > 0 else None,
        upper=upper if math.isfinite(upper) else None,
        vouched=tuple(link.name for link in found if link.vouched),
    )


def analytic(p: Probed | Record) -> Analytic | None:
    """Prove that the law is real-analytic in z on the support: full rank at one point is full rank almost everywhere."""
    record = record_of(p)
    if record.program is None:
        return None
    return Analytic(model=record.model) if enclosure.analytic(record.program, record.ranges) else None


def oscillation(p: Probed, low: Float[Tensor, " k"], high: Float[Tensor, " k"]) -> Float[Tensor, " m"] | None:
    """Bound how much ``log p(x_i | z)`` varies over a box of latents, for each datum: ω of theory/T4 from above, nats.

    Args:
        p: a model with data.
        low, high: the box, ends possibly infinite.

    Returns:
        For each datum an upper bound of ``sup ℓ − inf ℓ``, possibly infinite; None where ℓ cannot be followed.
    """
    program = density_program(p)
    if program is None:
        return None
    box = Interval(low.to("cpu", torch.float64), high.to("cpu", torch.float64))
    found = enclosure.ranges(program, box)[-1]
    width = intervals.add(Interval(found.high, found.high), Interval(-found.low, -found.low)).high
    return torch.where(found.is_point, torch.zeros_like(width), width.clamp(min=0.0))

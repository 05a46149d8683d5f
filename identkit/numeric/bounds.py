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
    support,
    unseen,
)
from identkit.numeric.intervals import Interval
from identkit.numeric.lowering import density_program, law_program
from identkit.numeric.probed import Probed
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


def ignored(p: Probed) -> Ignored | None:
    """Prove which latents never reach the law (known_answers H4, H16); `CONSTANT` for each of them.

    On the prior's support: a ReLU layer that is dead on the box of a uniform prior hides all latents (H3), and under
    a normal prior none (H3′).
    """
    program = law_program(p)
    if program is None:
        return None
    blind = unseen(program, support(p))
    names = tuple(name for name, hidden in zip(p.prior.names, blind, strict=True) if hidden)
    return Ignored(model=p, names=names) if names else None


def constant(p: Probed) -> Ignored | None:
    """Prove that the law is the same on the whole support of the prior: full collapse, for every datum (theory/T1).

    Where only a log density is known: that it is constant on the given data.
    """
    found = ignored(p)
    return found if found is not None and len(found.names) == p.prior.size else None


def null_directions(p: Probed) -> NullDirections | None:
    """Prove that the law does not change along some directions of the latents, other than the ignored ones.

    The law often reads z through affine functions alone, such as a first layer ``Wz + b``: the exact null space of W,
    whose floats are rationals, cannot be seen (H1). Proves `PARTIAL` for the latents that a direction moves.
    """
    program = law_program(p)
    if program is None or p.prior.states is not None:
        return None
    blind = unseen(program, support(p))
    free = [j for j, hidden in enumerate(blind) if not hidden]
    rows = affine.seen_rows(program, enclosure.ranges(program, support(p)))
    basis = affine.null_space_of({tuple(row[j] for j in free) for row in rows}, len(free))
    directions = []
    for vector in basis:
        whole = [fmpq(0)] * p.prior.size
        for j, value in zip(free, vector, strict=True):
            whole[j] = value
        directions.append(fractions(whole))
    return NullDirections(model=p, directions=tuple(directions)) if directions else None


def unread(p: Probed) -> Unread | None:
    """Prove that z enters through fewer linear functions than there are latents, and which latents that frees.

    For layers too wide for `null_directions`, whose exact vectors would fill the memory. Proves `PARTIAL`.
    """
    program = law_program(p)
    if program is None or p.prior.states is not None:
        return None
    rows = affine.seen_rows(program, enclosure.ranges(program, support(p)))
    moved = affine.freed(rows, p.prior.size)
    names = tuple(name for name, moves in zip(p.prior.names, moved, strict=True) if moves)
    return Unread(model=p, names=names, rank=len(rows)) if names else None


def injective(p: Probed) -> Injective | None:
    """Prove that the law determines latents, all or some: `GLOBAL` for each that is named (theory/T5).

    By reading the law backwards (`recovery`) through layers, monotone links, couplings and residual blocks, or by
    difference quotients over the support (``sup ‖I − AJ‖ < 1``, ``J + Jᵀ ≻ 0``). Parts of the decoder that cannot be
    followed may vouch for themselves (`Bounded`).
    """
    program = law_program(p)
    if program is not None:
        blind = unseen(program, support(p))
        box = held(support(p), blind)
        known = recovered(program, enclosure.ranges(program, box))
        names = tuple(
            n for n, is_known, no in zip(p.prior.names, known, blind, strict=True) if is_known and not no
        )
        if names:
            lower, upper = decoder_constants(p, box)
            return Injective(
                model=p,
                names=names,
                ignored=tuple(name for name, hidden in zip(p.prior.names, blind, strict=True) if hidden),
                lower=lower if lower > 0 else None,
                upper=upper if math.isfinite(upper) else None,
            )
    return _vouched(p)


def _vouched(p: Probed) -> Injective | None:
    found = bounded.links(p, support(p))
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


def analytic(p: Probed) -> Analytic | None:
    """Prove that the law is real-analytic in z on the support: full rank at one point is full rank almost everywhere."""
    program = law_program(p)
    if program is None or p.prior.states is not None:
        return None
    proved = enclosure.analytic(program, enclosure.ranges(program, support(p)))
    return Analytic(model=p) if proved else None


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

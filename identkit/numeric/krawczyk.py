"""Proof that a box of latents has partners: the same law at other latents, by Krawczyk's interval Newton method.

The law reads z through h(z), k numbers at one step of its program, and through nothing else (a *gate*; the law's own
parameters are one, where just k of them vary). For boxes Z and X with midpoint m of X, an enclosure S of h's difference
quotients over X and any matrix C, let

    K = m − C (h(m) − h(Z)) + (I − C S)(X − m).

If K lies in the interior of X, then for every z ∈ Z the equation h(z′) = h(z) has exactly one root z′ in X
(Krawczyk 1969; Neumaier, *Interval Methods for Systems of Equations*, theorem 5.1.8). With X and Z disjoint, both in the
prior's support, every z of Z has a partner: a set of positive prior probability, so no latent in which X and Z are apart
is GLOBAL (theory/T2).

More equations than unknowns have no such test: a root of k of them says nothing about the others. Then there is no proof
here, however small the residual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.numeric import enclosure, intervals
from identkit.numeric.collision import Collision
from identkit.numeric.intervals import Interval, point
from identkit.numeric.probed import Probed
from identkit.numeric.program import Program
from identkit.numeric.record import Record, record_of
from identkit.numeric.rounding import spread
from identkit.verdict import Certificate

_HALF_WIDTHS = (3e-2, 3e-3, 3e-4, 1e-5)  # of Z, in spreads of the prior
_TRIED = 4  # pairs, the widest apart first: boxes about them have most room


@dataclass(frozen=True, kw_only=True, eq=False)
class Partners(Certificate):
    """Each latent of one box has a partner of the same law in another box."""

    model: Probed
    low: Float[Tensor, " k"]
    high: Float[Tensor, " k"]
    """The box Z of latents."""
    partner_low: Float[Tensor, " k"]
    partner_high: Float[Tensor, " k"]
    """The box X in which their partners lie."""

    @property
    def kind(self) -> str:
        return "interval Newton"

    @property
    def moves(self) -> tuple[str, ...]:
        """The latents in which partners are sure to differ."""
        apart = (self.partner_low > self.high) | (self.partner_high < self.low)
        return tuple(
            name for name, differs in zip(self.model.prior.names, apart.tolist(), strict=True) if differs
        )

    @property
    def statement(self) -> str:
        names = self.model.prior.names
        boxes = [
            ", ".join(f"{name} in [{a:.6g}, {b:.6g}]" for name, a, b in zip(names, low, high, strict=True))
            for low, high in (
                (self.low.tolist(), self.high.tolist()),
                (self.partner_low.tolist(), self.partner_high.tolist()),
            )
        ]
        return f"every latent with {boxes[0]} has the law of another one with {boxes[1]}"

    def verify(self) -> bool:
        record = Record(self.model)
        if record.program is None or not self.model.prior.fills_box or not self.moves:
            return False
        z, x = Interval(self.low, self.high), Interval(self.partner_low, self.partner_high)
        within = record.support
        inside = all(bool((box.low >= within.low).all() & (box.high <= within.high).all()) for box in (z, x))
        wide = bool((self.high > self.low).all())
        return inside and wide and any(_contracts(each, z, x) for each in _gates(record))


def partners(p: Probed | Record, pairs: Iterable[Collision]) -> Partners | None:
    """Prove that latents near one of the found pairs have partners near the other; None if that fails.

    Args:
        p: a decoder on a prior that fills a box.
        pairs: collisions; those of kind "isolated" are tried, with boxes of four sizes about each.
    """
    record = record_of(p)
    p = record.model
    isolated = sorted((pair for pair in pairs if pair.kind == "isolated"), key=lambda pair: -pair.distance)
    if not isolated or not p.prior.fills_box or record.program is None:
        return None
    gates = _gates(record)
    scale = spread(p).to("cpu", torch.float64)
    for pair in isolated[:_TRIED]:
        one, two = (z.to("cpu", torch.float64) for z in (pair.one, pair.two))
        for gate in gates:
            for width in _HALF_WIDTHS:
                z = Interval(one - width * scale, one + width * scale)
                x = _partner_box(gate, one, two, width * scale)
                found = (
                    None
                    if x is None
                    else Partners(model=p, low=z.low, high=z.high, partner_low=x.low, partner_high=x.high)
                )
                if x is not None and found is not None and _contracts(gate, z, x) and found.verify():
                    return found
    return None


@dataclass(frozen=True)
class _Gate:
    """Numbers through which alone the law depends on z."""

    program: Program
    elements: Tensor
    """(k,), indices into the last step's elements."""

    def range(self, box: Interval) -> Interval:
        """Enclose the numbers over a box."""
        return enclosure.ranges(self.program, box)[-1][self.elements]

    def slope(self, box: Interval) -> Interval | None:
        """Enclose their difference quotients over a box: (numbers, latents)."""
        size = self.program.steps[0].size
        found = enclosure.slopes(self.program, enclosure.ranges(self.program, box), 0, torch.arange(size))[-1]
        if found is None:
            return None
        low, high = found.low[:, self.elements].mT, found.high[:, self.elements].mT
        return Interval(low, high) if bool(torch.isfinite(low).all() & torch.isfinite(high).all()) else None


def _gates(record: Record) -> list[_Gate]:
    """The steps through which all ways from the latents to the law lead, of just k varying numbers each."""
    program, gates = record.steps, []
    for number in range(1, len(program.steps)):
        elements = program.distinct(number, record.moving[number].any(0))
        if len(elements) == program.steps[0].size and enclosure.leads_all(program, record.ranges, number):
            gates.append(_Gate(Program(program.steps[: number + 1]), elements))
    return gates


def _partner_box(gate: _Gate, one: Tensor, two: Tensor, half_width: Tensor) -> Interval | None:
    """A box about `two` that should hold the partners of the box about `one`: twice what the slopes say."""
    here, there = gate.slope(point(one)), gate.slope(point(two))
    if here is None or there is None:
        return None
    inverse, singular = torch.linalg.inv_ex(there.middle)
    if int(singular):
        return None
    moved = (inverse @ here.middle).abs() @ half_width
    radius = 2 * moved + 1e-9 * half_width
    return Interval(two - radius, two + radius)


def _contracts(gate: _Gate, z: Interval, x: Interval) -> bool:
    """Whether Krawczyk's operator maps X into its interior, for every right-hand side in h(Z)."""
    slope = gate.slope(x)
    if slope is None:
        return False
    inverse, singular = torch.linalg.inv_ex(slope.middle)
    if int(singular):
        return False
    middle = x.middle
    # Newton's step for all of Z: −C (h(m) − h(Z)) ⊂ C h′ (Z − z₀) − C (h(m) − h(z₀)), which is narrower.
    over_z = gate.slope(z)
    if over_z is None:
        return False
    centre = z.middle
    offset = intervals.add(gate.range(point(middle)), intervals.negative(gate.range(point(centre))))
    c = point(inverse)
    newton = _times(c, offset)
    spread_of_z = _times(intervals.matmul(c, over_z), _minus(z, centre))
    rest = intervals.add(
        point(torch.eye(len(middle), dtype=torch.float64)), intervals.negative(intervals.matmul(c, slope))
    )
    image = intervals.add(
        intervals.add(point(middle), intervals.negative(newton)),
        intervals.add(spread_of_z, _times(rest, _minus(x, middle))),
    )
    return bool((image.low > x.low).all() & (image.high < x.high).all())


def _times(matrix: Interval, vector: Interval) -> Interval:
    return intervals.matmul(matrix, vector.reshape(-1, 1)).reshape(-1)


def _minus(box: Interval, centre: Tensor) -> Interval:
    return intervals.add(box, intervals.negative(point(centre)))

"""More latents than numbers that are computed from them: some direction must be lost.

If the law reads its k latents through d < k numbers, and these are continuously differentiable functions of z on an open
set, take a point of that set where their Jacobian has its largest rank r ≤ d < k. Near it the rank is r, and by the
constant rank theorem each fibre is a manifold of dimension k − r > 0: `PARTIAL` with positive prior probability
(theory/T2). Every step of a `Program` is smooth off the kinks of relu and its like. Off a nowhere dense closed set an
argument is either away from a kink or identically on it nearby, where the step is constant: so there is such an open
set in the interior of every support.
"""

from __future__ import annotations

from dataclasses import dataclass

from identkit.numeric import enclosure
from identkit.numeric.certificates import law_name
from identkit.numeric.probed import Probed
from identkit.numeric.record import Record, record_of
from identkit.verdict import Certificate


@dataclass(frozen=True, kw_only=True, eq=False)
class Bottleneck(Certificate):
    """The law is computed from fewer numbers than there are latents that reach it."""

    model: Probed
    names: tuple[str, ...]
    """The latents that may reach the law."""
    width: int
    """How many numbers computed from them the law reads."""

    @property
    def kind(self) -> str:
        return "fewer numbers than latents"

    @property
    def statement(self) -> str:
        return (
            f"{law_name(self.model)} reads {len(self.names)} latents through {self.width} "
            f"number{'' if self.width == 1 else 's'}: in some open region a continuum of latents has one law"
        )

    def verify(self) -> bool:
        found = bottleneck(self.model)
        return (
            found is not None
            and found.width <= self.width < len(found.names)
            and set(found.names) <= set(self.names)
        )


def bottleneck(p: Probed | Record) -> Bottleneck | None:
    """Prove `PARTIAL` by counting, as for decoders of ‖z‖ (H7), of z₁z₂ (H14) and into fewer dimensions.

    It does not tell which latents a fibre moves, only that every open set of latents is not determined as a whole.
    """
    record = record_of(p)
    if record.program is None or not record.model.prior.fills_box:
        return None
    model = record.model
    names = tuple(name for name, no in zip(model.prior.names, record.unseen, strict=True) if not no)
    width = _width(record)
    return Bottleneck(model=model, names=names, width=width) if width < len(names) else None


def _width(record: Record) -> int:
    """The least number of elements of one step that all ways from the latents to the output lead through."""
    program = record.steps
    read = min(len(record.rows), record.model.prior.size - len(record.null_space))
    least = min(read, _count(record, len(program.steps) - 1))
    for number in range(1, len(program.steps) - 1):
        count = _count(record, number)
        if 0 < count < least and enclosure.leads_all(program, record.ranges, number):
            least = count
    return least


def _count(record: Record, number: int) -> int:
    """The elements that depend on latents; those taken several times count once."""
    return len(record.steps.distinct(number, record.moving[number].any(0)))

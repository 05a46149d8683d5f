"""Regions of the latent space, of positive prior mass, in which the law ignores some directions.

A dead ReLU cell under a normal prior (known_answers H3′) and a cell of a piecewise constant decoder (H10) prove
`PARTIAL`, not `CONSTANT`: a continuum of values fits equally with positive probability (theory/T2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributions as td
from flint import fmpq
from jaxtyping import Float
from torch import Tensor

from identkit.numeric import affine, enclosure
from identkit.numeric.certificates import Direction, are_null, fractions, law_name
from identkit.numeric.intervals import Interval
from identkit.numeric.laws import bare
from identkit.numeric.prior import Prior
from identkit.numeric.probed import Probed
from identkit.numeric.program import Kind, Program
from identkit.numeric.record import Record, record_of
from identkit.verdict import Certificate

_FIRST = 1e-3  # half width of the first box about a centre, in standard deviations of the prior
_TRIES = 160  # enclosures spent on growing one box
_CENTRES = 16
_FAR = 4096  # draws whose outermost are looked at


@dataclass(frozen=True, kw_only=True, eq=False)
class DeadRegion(Certificate):
    """A box of latents in which the law does not change along some directions."""

    model: Probed
    low: tuple[float, ...]
    high: tuple[float, ...]
    directions: tuple[Direction, ...]
    """Independent directions, exact, (k,) each."""
    mass: float
    """A lower bound of the prior probability of the box."""

    @property
    def kind(self) -> str:
        return "dead region"

    @property
    def moves(self) -> tuple[str, ...]:
        """The latents that some direction moves."""
        columns = zip(self.model.prior.names, zip(*self.directions, strict=True), strict=True)
        return tuple(name for name, column in columns if any(column))

    @property
    def statement(self) -> str:
        if len(self.directions) == self.model.prior.size:
            what = "is the same for all latents"
        else:
            what = f"does not change along {len(self.directions)} directions of {', '.join(self.moves)}"
        return f"{law_name(self.model)} {what} in a box of prior mass at least {self.mass:.3g}"

    @property
    def box(self) -> Interval:
        """The region."""
        return Interval(
            torch.tensor(self.low, dtype=torch.float64), torch.tensor(self.high, dtype=torch.float64)
        )

    def verify(self) -> bool:
        record = Record(self.model)
        program, whole = record.program, record.support
        if (
            program is None
            or not self.directions
            or not 0 < self.mass <= prior_mass(self.model.prior, self.box)
        ):
            return False
        if not bool(((self.box.low >= whole.low) & (self.box.high <= whole.high)).all()):
            return False
        return are_null(program, enclosure.ranges(program, self.box), self.directions)


def dead_region(p: Probed | Record, centres: Float[Tensor, "n k"]) -> DeadRegion | None:
    """Prove `PARTIAL` by a box about one of the centres, the one of the largest mass that is found.

    Args:
        p: the model.
        centres: latents to look around, such as prior draws at which the law's rank is deficient; the first 16 count.

    Returns:
        A box with directions that the law ignores in it beyond those that it ignores everywhere, or None.
    """
    record = record_of(p)
    program, p = record.program, record.model
    if program is None or not p.prior.fills_box:
        return None
    whole, hidden, everywhere = record.support, record.unseen, len(record.null_space)
    scale = p.prior.sample(512, seed=3).to("cpu", torch.float64).std(0).clamp(min=1e-6)
    best: DeadRegion | None = None
    for centre in centres[:_CENTRES].to("cpu", torch.float64):
        if best is not None and bool(((centre >= best.box.low) & (centre <= best.box.high)).all()):
            continue
        if not _deficient(program, centre, scale):
            continue
        growth = _Growth(program, whole, centre, scale)
        first = growth.start()
        if len(affine.null_space(program, enclosure.ranges(program, first))) <= everywhere:
            continue
        box = growth.grow(first)
        directions = _directions(program, box, hidden)
        mass = prior_mass(p.prior, box)
        if directions and mass > 0 and (best is None or mass > best.mass):
            best = DeadRegion(
                model=p,
                low=tuple(box.low.tolist()),
                high=tuple(box.high.tolist()),
                directions=directions,
                mass=mass,
            )
    return best


def outskirts(prior: Prior) -> Float[Tensor, "n k"]:
    """The draws among many at which some latent is smallest or largest: where clamps and gates end that others miss."""
    drawn = prior.sample(_FAR, seed=4)
    return drawn[torch.cat([drawn.argmin(0), drawn.argmax(0)]).unique()]


def _deficient(program: Program, centre: Tensor, scale: Tensor) -> bool:
    """Whether differences of the law about a centre leave room for a direction without any: before exact algebra."""
    steps = 0.1 * _FIRST * torch.diag(scale)
    change = program.evaluate(centre + steps) - program.evaluate(centre - steps)
    if not bool(torch.isfinite(change).all()):
        return True
    return int(torch.linalg.matrix_rank(change / change.abs().amax().clamp(min=1e-300), rtol=1e-6)) < len(
        centre
    )


def _directions(program: Program, box: Interval, hidden: Sequence[bool]) -> tuple[Direction, ...]:
    """The null space in the latents that reach the law somewhere."""
    free = [j for j, no in enumerate(hidden) if not no]
    rows = affine.seen_rows(program, enclosure.ranges(program, box))
    found = []
    for vector in affine.null_space_of({tuple(row[j] for j in free) for row in rows}, len(free)):
        wide = [fmpq(0)] * len(hidden)
        for j, value in zip(free, vector, strict=True):
            wide[j] = value
        found.append(fractions(wide))
    return tuple(found)


@dataclass
class _Growth:
    """Boxes about a centre in which all that is decided near the centre stays decided: signs and comparisons.

    Then the program is affine wherever it is in the first box, with the same coefficients, and sees the same rows.
    """

    program: Program
    whole: Interval
    centre: Tensor
    scale: Tensor
    decided: list[Tensor] = field(default_factory=list)
    tries: int = 0

    def start(self) -> Interval:
        """The first box, and what it decides."""
        box = self._box(_FIRST)
        self.decided = self._decisions(box)
        return box

    def grow(self, box: Interval) -> Interval:
        """As wide as possible in all directions at once, then side by side."""
        size = _FIRST
        while size < 64 and self._holds(self._box(2 * size)):
            size *= 2
        best, step = size, size / 2
        for _ in range(4):
            if self._holds(self._box(best + step)):
                best += step
            step /= 2
        box = self._box(best)
        for j in range(len(self.centre)):
            for high in (False, True):
                box = self._side(box, j, high)
        return box

    def _side(self, box: Interval, j: int, high: bool) -> Interval:
        """Move one side out: to the end of the support, else as far as doublings of its distance go."""
        end = (self.whole.high if high else self.whole.low)[j]
        ends = [end]
        for factor in (16.0, 4.0, 2.0, 1.4):
            far = self.centre[j] + factor * ((box.high if high else box.low)[j] - self.centre[j])
            ends.append(torch.minimum(far, end) if high else torch.maximum(far, end))
        for place in ends:
            if self.tries > _TRIES:
                return box
            low, top = box.low.clone(), box.high.clone()
            (top if high else low)[j] = place
            wider = Interval(low, top)
            if self._holds(wider):
                return wider
        return box

    def _box(self, size: float) -> Interval:
        low = torch.maximum(self.centre - size * self.scale, self.whole.low)
        return Interval(low, torch.minimum(self.centre + size * self.scale, self.whole.high))

    def _holds(self, box: Interval) -> bool:
        self.tries += 1
        return all(
            bool((now | ~before).all())
            for now, before in zip(self._decisions(box), self.decided, strict=True)
        )

    def _decisions(self, box: Interval) -> list[Tensor]:
        found = enclosure.ranges(self.program, box)
        result = []
        for step in self.program.steps:
            if step.kind is Kind.FUNCTION and step.name in ("leaky", "step"):
                over = found[step.inputs[0]]
                result += [over.low >= 0, over.high <= 0]
            elif step.kind is Kind.SELECT:
                over = found[step.inputs[0]]
                result += [over.low == 1, over.high == 0]
        return result


def prior_mass(prior: Prior, box: Interval) -> float:
    """Bound the prior probability of a box from below; 0 where nothing is proved.

    Independent coordinates by their distribution functions, less 1e-12 for their rounding; other normal priors by the
    least density on the box times its volume.
    """
    base = bare(prior.distribution)
    if isinstance(base, td.MultivariateNormal):
        return _normal_mass(base, box)
    if base.event_shape or not prior.independent:
        return 0.0
    device = prior.device
    try:
        low, high = (_distribution_function(base, end.to(device), prior) for end in (box.low, box.high))
    except (NotImplementedError, ValueError):
        return 0.0
    sides = (high - low - 1e-12).clamp(min=0.0)
    return float(sides.prod()) * (1 - 1e-12)


def _distribution_function(base: td.Distribution, z: Tensor, prior: Prior) -> Tensor:
    """``P(Z_j ≤ z_j)``; for half lines and intervals, whose support torch would not let us leave, by the ends."""
    inside = torch.where(torch.isfinite(z), z, torch.zeros_like(z))
    low, high = prior.low.double(), prior.high.double()
    inside = torch.maximum(torch.minimum(inside, high), low)
    inside = torch.where(torch.isfinite(inside), inside, torch.zeros_like(inside))
    value = (
        base.cdf(inside.reshape(prior.shape if base.batch_shape else inside.shape)).reshape(-1).double().cpu()
    )
    value = torch.where((z >= high).cpu(), 1.0, torch.where((z <= low).cpu(), 0.0, value))
    return value


def _normal_mass(base: td.MultivariateNormal, box: Interval) -> float:
    mean, covariance = base.loc.double().cpu(), base.covariance_matrix.double().cpu()
    deviations = covariance.diagonal().sqrt()
    if bool((covariance == torch.diag(covariance.diagonal())).all()):
        cdf = td.Normal(mean, deviations).cdf
        low, high = (
            torch.where(
                torch.isfinite(end), cdf(torch.where(torch.isfinite(end), end, mean)), (end > 0).double()
            )
            for end in (box.low, box.high)
        )
        return float((high - low - 1e-12).clamp(min=0.0).prod()) * (1 - 1e-12)
    low = torch.maximum(box.low, mean - deviations)
    high = torch.minimum(box.high, mean + deviations)
    if not bool((high > low).all()):
        low = torch.where(torch.isfinite(box.low), box.low, mean - deviations)
        high = torch.where(torch.isfinite(box.high), box.high, low + deviations)
    farthest = torch.maximum((low - mean).abs(), (high - mean).abs()).square().sum()
    least = torch.linalg.eigvalsh(covariance)[0] * (1 - 1e-9)
    log_density = -0.5 * (farthest / least + torch.logdet(covariance) + len(mean) * math.log(2 * math.pi))
    return float(torch.exp(log_density + (high - low).log().sum())) * (1 - 1e-9)

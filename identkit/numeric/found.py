"""What a numeric check has gathered so far: levels, their reasons, and the proofs among these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from identkit.numeric.bottleneck import Bottleneck
from identkit.numeric.certificates import NullDirections
from identkit.numeric.probed import Probed
from identkit.numeric.wording import signed_sum
from identkit.verdict import Certificate, Invariance, Level, Verdict, overall

_READABLE = 1000


@dataclass(frozen=True, eq=False)
class Together(Certificate):
    """Several certificates, each for some of the latents."""

    parts: tuple[Certificate, ...]

    @property
    def kind(self) -> str:
        """The kinds of the parts."""
        return ", ".join(dict.fromkeys(part.kind for part in self.parts))

    @property
    def statement(self) -> str:
        """The statements of the parts, one after the other."""
        return "; ".join(part.statement for part in self.parts)

    def verify(self) -> bool:
        """Whether every part holds when it is checked again."""
        return all(part.verify() for part in self.parts)


@dataclass
class Found:
    """Levels by latent, all UNKNOWN at first, and what they rest on."""

    names: tuple[str, ...]
    levels: dict[str, Level] = field(default_factory=dict)
    at_least: list[str] = field(default_factory=list)
    invariances: list[Invariance] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    proofs: list[Certificate] = field(default_factory=list)
    narrow: Bottleneck | None = None
    """A proof that the whole is PARTIAL, without a word on which latents a fibre moves."""

    def __post_init__(self) -> None:
        self.levels = dict.fromkeys(self.names, Level.UNKNOWN)

    @property
    def open(self) -> list[str]:
        """The latents that are not settled yet."""
        return [name for name in self.names if self.levels[name] is Level.UNKNOWN]

    def settle(self, names: Iterable[str], level: Level, proof: Certificate | None = None) -> None:
        """Give a level to those of the names that are still open; a proof that settles none is not kept."""
        settled = [name for name in names if name in self.open]
        self.levels.update(dict.fromkeys(settled, level))
        if proof is not None and settled and not any(proof is kept for kept in self.proofs):
            self.proofs.append(proof)

    def verdict(self, p: Probed, seconds: float) -> Verdict:
        """The verdict on all latents together."""
        level, proofs, certificate = overall(self.levels.values()), list(self.proofs), None
        if self.narrow is not None and level in (Level.UNKNOWN, Level.PARTIAL):
            level = Level.PARTIAL
            proofs.append(self.narrow)
        if proofs:
            certificate = proofs[0] if len(proofs) == 1 else Together(tuple(proofs))
        return Verdict(
            model=p.name,
            about="latents",
            scope="data" if p.decode is None else "at",
            level=level,
            latents=self.levels,
            at_least=tuple(self.at_least),
            invariances=tuple(self.invariances),
            assumptions=tuple(self.assumptions),
            certificate=certificate,
            method="numeric",
            seconds=seconds,
        )


def translations(null: NullDirections, p: Probed) -> list[Invariance]:
    """The directions that the law ignores, as generators of translations."""
    return [
        Invariance(
            kind="translation",
            about=tuple(name for name, value in zip(p.prior.names, direction, strict=True) if value),
            generator=_field(p.prior.names, direction),
            preserves_prior=False,
        )
        for direction in null.directions
    ]


def _field(names: tuple[str, ...], direction: Sequence[Fraction]) -> str:
    """``d/dz[1] - 1/2*d/dz[2]``; a fraction too long to read is shown as a decimal."""
    terms = []
    for name, value in zip(names, direction, strict=True):
        if value:
            size = abs(value)
            shown = str(size) if size.denominator <= _READABLE else f"{float(size):.6g}"
            terms.append((value, f"{'' if size == 1 else shown + '*'}d/d{name}"))
    return signed_sum(terms)

"""What `verify` returns: a row for each datum and latent, and whether the theorem holds on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from identkit.posterior.information import Collapse
from identkit.verdict import Level, Verdict


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of ``results.json``: a latent (None: all of them jointly) on a datum (None: the mean over the data)."""

    model: str
    setting: str
    scope: str
    latent: str | None
    datum: int | None
    level: str
    n: int
    flatness: float | None
    omega: float | None
    kl: float
    kl_error: float
    kl_conditional: float | None
    band: tuple[float, float] | None
    bound: str | None
    posterior_mean: float | None
    posterior_sd: float | None
    agrees: bool | None

    @property
    def below_precision(self) -> bool:
        """Whether the datum is seen, but moves the posterior by less than the KL's stated error."""
        return self.agrees is None and self.level != Level.UNKNOWN.value

    def to_dict(self) -> dict[str, Any]:
        """The row as strict JSON: an infinite ω or end of a band is null."""
        entries = asdict(self)
        entries["omega"] = _finite(self.omega)
        entries["band"] = None if self.band is None else [_finite(end) for end in self.band]
        return entries


@dataclass(frozen=True, kw_only=True)
class TheoremCheck:
    """The verdict, the exact posterior, and the theorem on each datum and latent."""

    model: str
    setting: str
    verdict: Verdict
    collapse: Collapse
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool | None:
        """False if the theorem fails anywhere, True if it is confirmed somewhere and nowhere fails, else None."""
        answers = {row.agrees for row in self.rows}
        return False if False in answers else True if True in answers else None

    @property
    def counterexamples(self) -> tuple[Row, ...]:
        """The rows on which verdict and posterior contradict each other."""
        return tuple(row for row in self.rows if row.agrees is False)

    def __str__(self) -> str:
        counts = {answer: sum(row.agrees is answer for row in self.rows) for answer in (True, False)}
        what = {True: "agrees", False: "FAILS", None: "is undecided"}[self.agrees]
        lines = [
            f"{self.model}{f' ({self.setting})' if self.setting else ''}: {self.verdict.level}, "
            f"mean KL(posterior | prior) = {self.collapse.mean_kl:.4g} nats; the theorem {what} "
            f"({counts[True]} rows confirm it, {counts[False]} contradict it)."
        ]
        lines += [
            f"  counterexample: datum {row.datum}, latent {row.latent or 'all'}: {row.level}, KL {row.kl:.3g}"
            for row in self.counterexamples[:5]
        ]
        return "\n".join(lines)


def mean_row(
    each: Sequence[Row],
    latent: str | None,
    verdict: Verdict,
    title: tuple[str, str],
    whole: Sequence[bool],
) -> Row:
    """The mean over the data; it agrees iff all its data do. `whole` says which lack no value."""
    level = verdict.level if latent is None else verdict.latents[latent]
    answers = {row.agrees for row in each}
    seen = [row.level for row, lacks_nothing in zip(each, whole, strict=False) if lacks_nothing]
    unseen = len(each) > 1 and len(seen) > 1 and set(seen) == {Level.CONSTANT.value}
    if unseen and level in (Level.LOCAL, Level.GLOBAL):
        # Data on which all values are as likely do occur (a class whose probability none of them changes): they refute
        # nothing, and do not show either that the law determines the latent.
        answers.add(None)
    agrees = False if False in answers else True if answers == {True} else None
    first = each[0]
    joint = latent is None
    return Row(
        model=title[0],
        setting=title[1],
        scope=verdict.scope,
        latent=latent,
        datum=None,
        level=level.value,
        n=len(each) if len(each) > 1 else first.n,
        flatness=_mean([row.flatness for row in each]) if joint else None,
        omega=_mean([row.omega for row in each]) if joint else None,
        kl=_mean([row.kl for row in each]) or 0.0,
        kl_error=_mean([row.kl_error for row in each]) or 0.0,
        kl_conditional=_mean([row.kl_conditional for row in each]),
        band=tuple(_mean([row.band[end] for row in each if row.band]) for end in (0, 1)) if joint else None,  # type: ignore[arg-type]
        bound=" | ".join(dict.fromkeys(row.bound for row in each if row.bound)) if joint else None,
        posterior_mean=_mean([row.posterior_mean for row in each]),
        posterior_sd=_mean([row.posterior_sd for row in each]),
        agrees=agrees,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present) if len(present) == len(values) and present else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

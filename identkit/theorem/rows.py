"""What `verify` returns: a row for each datum and latent, and whether the theorem holds on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def datum_row(
    i: int,
    latent: str | None,
    level: Level,
    measured: Collapse,
    title: tuple[str, str],
    judge: Callable[[float, float, tuple[float, float] | None], bool | None],
    *,
    size: int = 1,
) -> Row:
    """Datum i, jointly or in one latent; a latent's row is judged by its conditional KL and has no band (theory/T3).

    Args:
        i: from 0.
        latent: None for all of them.
        level: what the checker says of it.
        measured: what the posteriors say.
        title: model and setting.
        judge: takes the KL that counts, its error and its band, says whether the theorem holds.
        size: how many rows of the data are one datum.
    """
    column = None if latent is None else measured.names.index(latent)
    judged = float(measured.kl[i] if column is None else measured.kl_conditional[i, column])
    error = float(measured.kl_error[i] if column is None else measured.kl_conditional_error[i, column])
    band = (float(measured.band[i, 0]), float(measured.band[i, 1])) if column is None else None
    shown = 0 if column is None and len(measured.names) == 1 else column
    return Row(
        model=title[0],
        setting=title[1],
        scope="data",
        latent=latent,
        datum=i + 1,
        level=level.value,
        n=size,
        flatness=float(measured.flatness[i]) if column is None else None,
        omega=float(measured.omega[i]) if column is None else None,
        kl=float(measured.kl[i] if column is None else measured.kl_per_latent[i, column]),
        kl_error=error,
        kl_conditional=None if column is None else judged,
        band=band,
        bound=measured.bound[i] if column is None else None,
        posterior_mean=None if shown is None else float(measured.posterior_mean[i, shown]),
        posterior_sd=None if shown is None else float(measured.posterior_sd[i, shown]),
        agrees=judge(judged, error, band),
    )


def mean_row(
    data_rows: Sequence[Row],
    latent: str | None,
    verdict: Verdict,
    title: tuple[str, str],
    whole: Sequence[bool],
) -> Row:
    """The mean over the data; it agrees iff all its data do and the law's level is known. `whole` lack no value."""
    level = verdict.level if latent is None else verdict.latents[latent]
    answers = {row.agrees for row in data_rows}
    if level is Level.UNKNOWN:
        answers.add(None)  # of the data there may be proofs, of the law there is none
    seen = [row.level for row, lacks_nothing in zip(data_rows, whole, strict=False) if lacks_nothing]
    unseen = len(data_rows) > 1 and len(seen) > 1 and set(seen) == {Level.CONSTANT.value}
    if unseen and level in (Level.LOCAL, Level.GLOBAL):
        # Data on which all values are as likely do occur (a class whose probability none of them changes): they refute
        # nothing, and do not show either that the law determines the latent.
        answers.add(None)
    agrees = False if False in answers else True if answers == {True} else None
    first = data_rows[0]
    joint = latent is None
    return Row(
        model=title[0],
        setting=title[1],
        scope=verdict.scope,
        latent=latent,
        datum=None,
        level=level.value,
        n=len(data_rows) if len(data_rows) > 1 else first.n,
        flatness=_mean([row.flatness for row in data_rows]) if joint else None,
        omega=_mean([row.omega for row in data_rows]) if joint else None,
        kl=_mean([row.kl for row in data_rows]) or 0.0,
        kl_error=_mean([row.kl_error for row in data_rows]) or 0.0,
        kl_conditional=_mean([row.kl_conditional for row in data_rows]),
        band=_mean_band([row.band for row in data_rows if row.band]) if joint else None,
        bound=" | ".join(dict.fromkeys(row.bound for row in data_rows if row.bound)) if joint else None,
        posterior_mean=_mean([row.posterior_mean for row in data_rows]),
        posterior_sd=_mean([row.posterior_sd for row in data_rows]),
        agrees=agrees,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return math.fsum(present) / len(present) if len(present) == len(values) and present else None


def _mean_band(bands: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    if not bands:
        return None
    low, high = (math.fsum(ends) / len(bands) for ends in zip(*bands, strict=True))
    return low, high


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

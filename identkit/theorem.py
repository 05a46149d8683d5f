"""`verify`: the checker's verdict beside the exact posterior, and whether the theorem holds on every datum.

Wang, Blei & Cunningham (2021), Theorem 1 (theory/T1): the posterior equals the prior *iff* the likelihood is
constant in the latent. The checker proves one side without ever computing a posterior, the posterior measures the
other without knowing a symbol; `agrees` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from identkit.dispatch import as_symbolic, check
from identkit.model.compiled import compiled
from identkit.model.families import exact
from identkit.model.model import Model
from identkit.model.protocol import ExactModel
from identkit.posterior.information import Collapse, collapse, observed
from identkit.posterior.moments import prior_kl
from identkit.symbolic.certificates import GapOnData
from identkit.symbolic.on_data import LikelihoodOnData, OnRow
from identkit.verdict import Level, Verdict, overall

_SAME = 1e-3
"""Relative difference up to which two independent evaluations of a tiny KL count as the same."""
_TINY = 1e-6
"""A KL in nats that a weak latent may have, given the others, and still be lost below their precision."""


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


def verify(
    model: Model | ExactModel | str,
    x: Any,
    at: Mapping[Any, Any] | None = None,
    pooled: bool = False,
    *,
    mask: Any = None,
    setting: str = "",
) -> TheoremCheck:
    """Confirm on these data that the posterior equals the prior iff the likelihood ignores the latents (theory/T1).

    A datum agrees when it is CONSTANT and its KL to the prior is zero up to its stated error, or when it is not
    CONSTANT and the KL exceeds that error; and the KL lies in its certified band (theory/T4). A datum that is seen
    but moves the posterior by less than the error is *below precision* (None), provided that an evaluation under
    the prior gives the same KL and ball arithmetic confirms the gap in ℓ; UNKNOWN is None too. All else is False.

    Args:
        model: a declared model, its text, or an exact classical model.
        x: data, (n, d) numpy or torch, or a mapping from names to columns; rows are independent draws.
        at: values for the parameters of a declared model, all of them.
        pooled: whether the rows are one data set that shares its latents.
        mask: (n, d), True where x is observed; an exact model whose family takes NaN for a missing value needs none.
        setting: a few words that tell this check from others of the same model.

    Raises:
        ValueError: as `check` and `collapse` do.

    >>> t = verify("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", [[0.3], [2.0]], at={"w": 0})
    >>> t.agrees, t.verdict.level, t.collapse.mean_kl
    (True, <Level.CONSTANT: 'CONSTANT'>, 0.0)
    """
    symbolic = as_symbolic(model)
    fixed = symbolic.at(at)
    shared = pooled or (isinstance(model, ExactModel) and model.pooled)
    if mask is None and isinstance(model, ExactModel):
        mask = observed(model, x)
    verdict = check(symbolic, at=at)
    measured = collapse(symbolic if isinstance(model, str) else model, x, at, pooled, mask)
    face = compiled(fixed)
    table, seen = face.rows(x, mask)
    data = _exact_data(fixed, table, seen)
    judged = LikelihoodOnData(fixed)
    groups = [data] if shared else [[row] for row in data]
    evidence = [judged.on(group) for group in groups]
    confirm = _SecondOpinion(face, table, seen, shared)
    whole = [True] * len(data) if seen is None else seen.all(1).tolist()
    size = len(data) if shared else 1
    rows = list(_rows(verdict, measured, evidence, confirm, (symbolic.name, setting), size, whole))
    return TheoremCheck(
        model=symbolic.name, setting=setting, verdict=verdict, collapse=measured, rows=tuple(rows)
    )


def _exact_data(model: Model, table: torch.Tensor, observed: torch.Tensor | None) -> list[dict[Any, Any]]:
    symbols = model.observation_symbols
    kept = torch.ones_like(table, dtype=torch.bool) if observed is None else observed
    return [
        {s: exact(value) for s, value, present in zip(symbols, row, seen, strict=True) if present}
        for row, seen in zip(table.tolist(), kept.tolist(), strict=True)
    ]


def _rows(
    verdict: Verdict,
    measured: Collapse,
    evidence: Sequence[OnRow],
    confirm: _SecondOpinion,
    title: tuple[str, str],
    size: int,
    whole: Sequence[bool],
) -> Iterator[Row]:
    """Joint row and one row a latent for each datum, then the means over the data; `whole` lack no value."""
    for latent in (None, *measured.names):
        column = None if latent is None else measured.names.index(latent)
        each = [
            _datum_row(i, latent, column, measured, found, confirm, title, size)
            for i, found in enumerate(evidence)
        ]
        yield from each
        yield _mean_row(each, latent, verdict, title, whole)


def _datum_row(
    i: int,
    latent: str | None,
    column: int | None,
    measured: Collapse,
    found: OnRow,
    confirm: _SecondOpinion,
    title: tuple[str, str],
    size: int,
) -> Row:
    joint = column is None
    level = overall(found.levels.values()) if latent is None else found.levels[latent]
    judged = measured.kl[i] if column is None else measured.kl_conditional[i, column]
    error = measured.kl_error[i] if column is None else measured.kl_conditional_error[i, column]
    band = (float(measured.band[i, 0]), float(measured.band[i, 1])) if joint else None
    gap = found.gap if latent is None else found.gaps.get(latent)
    only = len(measured.names) == 1 and joint
    shown = 0 if only else column
    return Row(
        model=title[0],
        setting=title[1],
        scope="data",
        latent=latent,
        datum=i + 1,
        level=level.value,
        n=size,
        flatness=float(measured.flatness[i]) if joint else None,
        omega=float(measured.omega[i]) if joint else None,
        kl=float(measured.kl[i] if column is None else measured.kl_per_latent[i, column]),
        kl_error=float(error),
        kl_conditional=None if column is None else float(judged),
        band=band,
        bound=measured.bound[i] if joint else None,
        posterior_mean=None if shown is None else float(measured.posterior_mean[i, shown]),
        posterior_sd=None if shown is None else float(measured.posterior_sd[i, shown]),
        agrees=_agrees(
            level,
            float(judged),
            float(error),
            band,
            gap,
            lambda seen: confirm(i, joint, float(judged), float(error), seen),
        ),
    )


def _agrees(
    level: Level,
    kl: float,
    error: float,
    band: Any,
    gap: GapOnData | None,
    confirmed: Callable[[GapOnData], bool],
) -> bool | None:
    if level is Level.UNKNOWN:
        return None
    if not math.isfinite(kl) or kl < 0:
        return False
    inside = band is None or band[0] - error <= kl <= band[1] + error
    if level is Level.CONSTANT:
        return kl <= error and inside
    if kl > error:
        return inside
    return None if inside and gap is not None and confirmed(gap) else False


class _SecondOpinion:
    """Whether a KL that is lost below its error is tiny by another road too, and ℓ does differ somewhere."""

    def __init__(self, face: Any, table: torch.Tensor, observed: torch.Tensor | None, shared: bool) -> None:
        self._face, self._table, self._observed, self._shared = face, table, observed, shared

    def __call__(self, i: int, joint: bool, kl: float, error: float, gap: GapOnData) -> bool:
        if not gap.holds(self._face.model):
            return False
        rows = slice(None) if self._shared else slice(i, i + 1)
        x = self._table[rows]
        mask = None if self._observed is None else self._observed[rows]
        if joint:
            other = float(prior_kl(self._face, x, self._shared, mask)[0])
            return abs(other - kl) <= max(error, _SAME * other)
        # The other latents are held at one of the two prior points: given them, this latent's KL is tiny as well.
        held = {s: v for s, v in gap.one.items() if s != gap.latent and s in self._face.model.latent_symbols}
        alone = compiled(self._face.model.given(held)) if held else self._face
        return float(prior_kl(alone, x, self._shared, mask)[0]) <= max(error, _TINY)


def _mean_row(
    each: Sequence[Row],
    latent: str | None,
    verdict: Verdict,
    title: tuple[str, str],
    whole: Sequence[bool],
) -> Row:
    level = verdict.level if latent is None else verdict.latents[latent]
    answers = {row.agrees for row in each}
    seen = [row.level for row, lacks_nothing in zip(each, whole, strict=False) if lacks_nothing]
    unseen = len(each) > 1 and len(seen) > 1 and set(seen) == {Level.CONSTANT.value}
    if unseen and level in (Level.LOCAL, Level.GLOBAL):
        # A latent that the law determines cannot be invisible to datum after datum (theory/T2), unless what would
        # show it is missing.
        answers.add(False)
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

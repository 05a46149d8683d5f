"""The theorem on declared and classical models: a proof on each datum beside its exact posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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
from identkit.theorem.rows import Row, TheoremCheck, datum_row, mean_row
from identkit.verdict import Level, Verdict, overall

_SAME = 1e-3
"""Relative difference up to which two independent evaluations of a tiny KL count as the same."""
_TINY = 1e-6
"""A KL in nats that a weak latent may have, given the others, and still be lost below their precision."""


def verify_declared(
    model: Model | ExactModel | str,
    x: Any,
    at: Mapping[Any, Any] | None,
    pooled: bool,
    mask: Any,
    setting: str,
) -> TheoremCheck:
    """The theorem on a model with symbols, as `identkit.theorem.verify` says."""
    symbolic = as_symbolic(model)
    fixed = symbolic.at(at)
    shared = pooled or (isinstance(model, ExactModel) and model.pooled)
    if mask is None and isinstance(model, ExactModel):
        mask = observed(model, x)
    verdict = check(symbolic, at=at)
    measured = collapse(symbolic if isinstance(model, str) else model, x, at, pooled, mask)
    face = compiled(fixed)
    table, seen = face.rows(x, mask)
    if not len(table):
        raise ValueError("x should have at least one row to hold the verdict against, got none")
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
        data_rows = []
        for i, found in enumerate(evidence):
            level = overall(found.levels.values()) if latent is None else found.levels[latent]
            gap = found.gap if latent is None else found.gaps.get(latent)
            judge = partial(_agrees, level, gap, partial(confirm, i, latent is None))
            data_rows.append(datum_row(i, latent, level, measured, title, judge, size=size))
        yield from data_rows
        yield mean_row(data_rows, latent, verdict, title, whole)


def _agrees(
    level: Level,
    gap: GapOnData | None,
    confirmed: Callable[[GapOnData, float, float], bool],
    kl: float,
    error: float,
    band: tuple[float, float] | None,
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
    return None if inside and gap is not None and confirmed(gap, kl, error) else False


class _SecondOpinion:
    """Whether a KL that is lost below its error is tiny by another road too, and ℓ does differ somewhere."""

    def __init__(self, face: Any, table: torch.Tensor, observed: torch.Tensor | None, shared: bool) -> None:
        self._face, self._table, self._observed, self._shared = face, table, observed, shared

    def __call__(self, i: int, joint: bool, gap: GapOnData, kl: float, error: float) -> bool:
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

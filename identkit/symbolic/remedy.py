"""Remedies: constraints that break an invariance, each re-checked on the constrained model before it is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from sympy import Expr, Integer, S, Symbol

from identkit.model.model import Model
from identkit.symbolic.checker import check_latents
from identkit.symbolic.parameters import check_fibre
from identkit.verdict import Level, Verdict

_MOST_TRIALS = 24
_ORDER = {
    Level.UNKNOWN: -1,
    Level.CONSTANT: 0,
    Level.PARTIAL: 1,
    Level.LOCAL: 2,
    Level.INFORMED: 2,
    Level.GLOBAL: 3,
}


def remedies(model: Model, verdict: Verdict, seconds: float = 20.0) -> list[dict[str, str]]:
    """Constraints under which more is identifiable, with the level that the constrained model then has.

    One parameter is fixed at a time (a location at 0, a scale at 1, a loading at 0 or 1), several in turn where one
    is not enough; each result was obtained by checking the model with the constraint written in.

    Args:
        model: the model that was checked.
        verdict: what `check` said about it.
        seconds: time allowed.

    >>> import identkit as ik
    >>> m = ik.parse("z ~ Normal(0, t); observe x[2] ~ Normal(w*z, s)")
    >>> remedies(m, ik.check(m, about="parameters"))[0]
    {'constraint': 'w = 1', 'level': 'GLOBAL'}
    """
    if verdict.level in (Level.GLOBAL, Level.INFORMED) or verdict.scope == "data":
        return []
    deadline = time.monotonic() + seconds
    found = _fixing_one(model, verdict, deadline)
    if not found and verdict.about != "latents":
        found = _fixing_several(model, verdict, deadline)
    return sorted(found, key=lambda remedy: -_ORDER[Level(remedy["level"])])[:6]


def _fixing_one(model: Model, verdict: Verdict, deadline: float) -> list[dict[str, str]]:
    found = []
    for count, (symbol, value) in enumerate(_values(model, verdict)):
        if count >= _MOST_TRIALS or time.monotonic() > deadline:
            break
        level = _level(model, symbol, value, verdict)
        if level is not None and _ORDER[level] > _ORDER[verdict.level]:
            found.append({"constraint": f"{symbol.name} = {value}", "level": level.value})
    return found


def _fixing_several(model: Model, verdict: Verdict, deadline: float) -> list[dict[str, str]]:
    """Fix one parameter after another, each time one that still moves, until nothing does."""
    fixed: dict[str, Expr] = {}
    current, here = verdict, model
    while current.level in (Level.PARTIAL, Level.CONSTANT) and time.monotonic() < deadline:
        choice = next(iter(_values(here, current)), None)
        if choice is None:
            return []
        fixed[choice[0].name] = choice[1]
        try:
            here = model.at(fixed)
        except ValueError:  # a pole, or a constraint that is broken
            return []
        if not here.parameters:
            return []
        current = check_fibre(here, verdict.about, seconds=max(1.0, deadline - time.monotonic()))
    if current.level in (Level.LOCAL, Level.GLOBAL) and fixed:
        words = ", ".join(f"{name} = {value}" for name, value in fixed.items())
        return [{"constraint": words, "level": current.level.value}]
    return []


def _values(model: Model, verdict: Verdict) -> Iterator[tuple[Symbol, Expr]]:
    """Parameters that an invariance moves, with a natural value to fix each at."""
    moved = {name for invariance in verdict.invariances for name in invariance.about}
    levels: Mapping[str, Level] = verdict.parameters
    for symbol, domain in model.parameters.items():
        free = levels.get(symbol.name) in (Level.PARTIAL, Level.CONSTANT, Level.LOCAL)
        if free and (symbol.name in moved or not verdict.invariances):
            # A scale at 1; a real parameter at 0 if shifting moves it, else at 1.
            shifted = any(i.kind == "translation" and symbol.name in i.about for i in verdict.invariances)
            value: Any = S.Zero if shifted and domain.contains(0) else Integer(1)
            if domain.contains(value):
                yield symbol, value


def _level(model: Model, symbol: Symbol, value: Expr, verdict: Verdict) -> Level | None:
    try:
        fixed = model.at({symbol.name: value})
    except ValueError:  # a pole, or a constraint that is broken
        return None
    if verdict.about == "latents":
        return check_latents(fixed).level
    if not fixed.parameters and verdict.about == "parameters":
        return None
    return check_fibre(fixed, verdict.about, seconds=5.0).level

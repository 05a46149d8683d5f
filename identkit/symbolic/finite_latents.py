"""Finite latents, alone or beside continuous ones: their states' laws are compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Any

import sympy
from sympy import Expr, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.model.tape import Tape
from identkit.symbolic.certificates import AllDiffer, Claim, Ignored, Merged, OneValue
from identkit.symbolic.certificates.zeros import all_apart
from identkit.symbolic.continuous_latents import analyse_continuous
from identkit.symbolic.field import points, vanishes
from identkit.symbolic.findings import Findings, refuse_one_value
from identkit.symbolic.regularity import analytic
from identkit.symbolic.summary import Summary
from identkit.symbolic.support import State, all_domains, is_discrete
from identkit.verdict import Invariance, Level

MOST_NAMED = 8
"""Merged states, and classes of them, that are named one by one."""


def _at(expressions: Sequence[Expr], state: State) -> list[Expr]:
    return [expression.xreplace(dict(state)) for expression in expressions]


def analyse_finite(model: Model, law: Summary, finite: Sequence[Symbol], states: Sequence[State]) -> Findings:
    """Levels and claims where all latents are finite: the laws of their joint states are compared."""
    found = Findings(
        assumptions=list(law.assumptions), levels=dict.fromkeys((s.name for s in finite), Level.UNKNOWN)
    )
    labels = _labels(model, law, states)
    found.claims += _merges(states, labels)
    distinct = _distinct(model, law, states, labels)
    if distinct is None:
        found.tried.append(
            f"whether two states have one law was not decided: {law.incomplete or 'neither equality nor difference proved'}"
        )
    else:
        found.claims += [distinct] if len(distinct.states) > 1 else []
        found.assumptions += _difference_assumptions(law, states, labels, model)
    for latent in finite:
        _ignored_or_merged(found, law, latent, states, labels)
        if found.levels[latent.name] is Level.UNKNOWN and distinct is not None:
            found.levels[latent.name] = Level.GLOBAL
    _name_merged(found, states, labels)
    return found


def _ignored_or_merged(
    found: Findings, law: Summary, latent: Symbol, states: Sequence[State], labels: Sequence[int]
) -> None:
    """CONSTANT or PARTIAL for a finite latent, where its states' laws say so."""
    groups: dict[tuple[Expr, ...], list[int]] = {}
    values: dict[int, set[Expr]] = {}
    for state, label in zip(states, labels, strict=True):
        groups.setdefault(tuple(v for s, v in state.items() if s != latent), []).append(label)
        values.setdefault(label, set()).add(state[latent])
    neighbours = [group for group in groups.values() if len(group) > 1]
    if len({state[latent] for state in states}) == 1:
        found.levels[latent.name] = Level.CONSTANT
        found.claims.append(OneValue(latent))
    elif (
        len(set(labels)) == 1
        or (neighbours and all(len(set(group)) == 1 for group in neighbours))
        or (neighbours and not _mentions(law, latent))
    ):
        found.levels[latent.name] = Level.CONSTANT
        if not _mentions(law, latent):
            found.claims.append(Ignored((latent,)))
        found.invariances.append(
            Invariance(kind="merged states", about=(latent.name,), map=f"{latent.name} -> any other state")
        )
    elif any(len(seen) > 1 for seen in values.values()):
        found.levels[latent.name] = Level.PARTIAL


def _mentions(law: Summary, latent: Symbol) -> bool:
    return any(expression.has(latent) for expression in law.expressions)


def _labels(model: Model, law: Summary, states: Sequence[State]) -> list[int]:
    """A number for each state, the same for states whose laws are proved equal."""
    table = [_at(law.expressions, state) for state in states]
    # Values at one point rule out most pairs before any algebra is done.
    point = next(iter(points({s: d for s, d in all_domains(model).items() if s not in states[0]}, 1, seed=3)))
    tape = Tape(list(law.expressions))
    values = [balls.run_or_nan(tape, {**point, **state}, 128) for state in states]
    leaders: list[int] = []
    labels: list[int] = []
    for row in range(len(states)):
        for leader in leaders:
            if _same(table[row], table[leader], values[row], values[leader]):
                labels.append(leader)
                break
        else:
            leaders.append(row)
            labels.append(row)
    return labels


def _same(one: Sequence[Expr], other: Sequence[Expr], here: Sequence[Any], there: Sequence[Any]) -> bool:
    if any(balls.excludes_zero(a - b) for a, b in zip(here, there, strict=True)):
        return False
    return all(a == b or vanishes(a - b) for a, b in zip(one, other, strict=True))


def _merges(states: Sequence[State], labels: Sequence[int]) -> list[Claim]:
    return [
        Merged(states[label], state)
        for state, label in zip(states, labels, strict=True)
        if states[label] != state
    ]


def _distinct(model: Model, law: Summary, states: Sequence[State], labels: Sequence[int]) -> AllDiffer | None:
    """A claim that states of different label have different laws, at one parameter point and so at almost all."""
    domains = all_domains(model)
    if law.incomplete or not all(analytic(e, domains, of=model.domains) for e in law.expressions):
        return None
    representatives = [states[labels.index(label)] for label in dict.fromkeys(labels)]
    tape = Tape(list(law.expressions))
    if any(is_discrete(domains[s]) for e in law.expressions for s in e.free_symbols if s in model.domains):  # type: ignore[operator]
        return None
    # A fine grid: 1024 sums of ten numbers of small denominator would meet by the pigeonhole principle.
    for point in points(model.domains, 6 if model.domains else 1, parts=10**9 + 7):
        table = [balls.run_or_nan(tape, {**point, **state}, 192) for state in representatives]
        if all_apart(table):
            return AllDiffer(tuple(representatives), law.expressions, point)
    return None


def _difference_assumptions(
    law: Summary, states: Sequence[State], labels: Sequence[int], model: Model
) -> list[str]:
    if not model.parameters:
        return []
    representatives = [states[labels.index(label)] for label in dict.fromkeys(labels)]
    wanted = []
    for one, other in list(combinations(representatives, 2))[:3]:
        gaps = [
            sympy.factor(a - b)
            for a, b in zip(_at(law.expressions, one), _at(law.expressions, other), strict=True)
        ]
        gaps = [gap for gap in gaps if gap != 0]
        if all(gap.free_symbols and gap.is_nonzero is not True for gap in gaps):
            wanted.append(" or ".join(f"{gap} != 0" for gap in gaps))
    return wanted


def _name_merged(found: Findings, states: Sequence[State], labels: Sequence[int]) -> None:
    if len(set(labels)) in (1, len(states)):
        return
    named: list[Invariance] = []
    for label in list(dict.fromkeys(labels))[:MOST_NAMED]:
        group = [states[i] for i in range(len(states)) if labels[i] == label][: MOST_NAMED + 1]
        for one, other in pairwise(group[:MOST_NAMED]):
            moved = tuple(s.name for s in one if one[s] != other[s])
            if any(found.levels[name] is Level.PARTIAL for name in moved):
                named.append(
                    Invariance(kind="merged states", about=moved, map=f"({_state(one)}) -> ({_state(other)})")
                )
        others = " or others" if len(group) > MOST_NAMED else ""
        found.identifiable.append(" or ".join(f"({_state(state)})" for state in group[:MOST_NAMED]) + others)
    found.invariances += named[:MOST_NAMED]


def _state(state: State) -> str:
    return ", ".join(f"{symbol.name}={value}" for symbol, value in state.items())


def analyse_mixed(
    model: Model, law: Summary, finite: Sequence[Symbol], rest: Sequence[Symbol], states: Sequence[State]
) -> Findings:
    """Finite latents beside continuous ones: those by what no continuous latent enters, these at each state."""
    found = Findings(
        levels=dict.fromkeys(model.latent_names, Level.UNKNOWN), assumptions=list(law.assumptions)
    )
    held = [model.given(state) for state in states]
    per_state = []
    for state, here in zip(states, held, strict=True):
        row = Summary(tuple(_at(law.expressions, state)), law.assumptions, law.incomplete)
        per_state.append(analyse_continuous(here, row, rest, state))
    _worst_over_states(found, rest, per_state)
    refuse_one_value(found, rest, held)
    labels = _labels(model, law, states)
    found.claims += _merges(states, labels)
    for latent in finite:
        _ignored_or_merged(found, law, latent, states, labels)
    _name_merged(found, states, labels)
    told = _told_apart(model, law, rest, states, labels)
    if told is None:
        found.tried.append("whether the states' laws overlap as the continuous latents vary was not decided")
        for latent in rest:
            if found.levels[latent.name] in (Level.GLOBAL, Level.LOCAL):
                found.levels[latent.name] = Level.UNKNOWN
        return found
    found.claims += [told] if len(told.states) > 1 else []
    for latent in finite:
        if found.levels[latent.name] is Level.UNKNOWN:
            found.levels[latent.name] = Level.GLOBAL
    return found


def _worst_over_states(found: Findings, rest: Sequence[Symbol], per_state: Sequence[Findings]) -> None:
    for part in per_state:
        found.claims += part.claims
        found.invariances += [i for i in part.invariances if i not in found.invariances]
        found.assumptions += part.assumptions
        found.tried += part.tried
    for latent in rest:
        levels = [part.levels[latent.name] for part in per_state]
        free = [level for level, part in zip(levels, per_state, strict=True) if latent not in part.pinned]
        if set(levels) == {Level.CONSTANT}:
            found.levels[latent.name] = Level.CONSTANT
        elif Level.CONSTANT in free or Level.PARTIAL in free:
            found.levels[latent.name] = Level.PARTIAL
        elif set(levels) == {Level.GLOBAL}:
            found.levels[latent.name] = Level.GLOBAL


def _told_apart(
    model: Model, law: Summary, rest: Sequence[Symbol], states: Sequence[State], labels: Sequence[int]
) -> AllDiffer | None:
    """States that differ already in the part of the law that no continuous latent enters."""
    fixed = tuple(e for e in law.expressions if not e.has(*rest))
    return _distinct(model, Summary(fixed, (), law.incomplete), states, labels) if fixed else None

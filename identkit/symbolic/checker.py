"""`check` for models with symbols: which latents does the likelihood see? Proved, or UNKNOWN with the reason.

The law κ(z, θ) is read off the statements (`summary`); what it ignores is found as exact null vectors (`symmetry`),
what determines its latents by peeling and monotonicity (`injectivity`), finite latents by comparing states. Every
step leaves a claim, and a verdict is given only if its certificate verifies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any

import sympy
from sympy import Expr, Set, Symbol

from identkit.model import balls
from identkit.model.model import Condition, Model
from identkit.model.tape import Tape
from identkit.symbolic.certificates import (
    AllDiffer,
    Claim,
    DiscreteFibre,
    Folded,
    Ignored,
    Invisible,
    Merged,
    Monotone,
    Proof,
    Recovered,
    State,
    all_apart,
)
from identkit.symbolic.field import analytic, nonzero_point, points, vanishes
from identkit.symbolic.injectivity import Peeled, peel, slope_sign
from identkit.symbolic.summary import Summary, all_domains, conditional_law
from identkit.symbolic.symmetry import Vector, in_words, left_inverse, null_directions
from identkit.verdict import Invariance, Level, Verdict, overall

MOST_STATES = 4096
"""Joint states of the finite latents beyond which the comparison is refused."""


@dataclass
class Findings:
    """What has been proved so far about a model's latents; filled step by step, then frozen into a `Verdict`."""

    levels: dict[str, Level] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    invariances: list[Invariance] = field(default_factory=list)
    identifiable: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    at_least: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)


def check_latents(model: Model, at: Mapping[Any, Any] | None = None) -> Verdict:
    """Which latents the law ``p(· | z; θ)`` determines (theory/T1–T3), for every data set at once.

    Args:
        model: the model.
        at: values of parameters; those not named are generic (almost every value).

    Raises:
        ValueError: for a model without latents or observations, an unknown name in `at`, a value outside its
            domain, or a scale that is not positive on the prior's support.

    >>> import identkit as ik
    >>> m = ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)")
    >>> check_latents(m, at={"w": 0}).level, check_latents(m).level
    (<Level.CONSTANT: 'CONSTANT'>, <Level.GLOBAL: 'GLOBAL'>)
    """
    started = time.perf_counter()
    fixed = model.at(at)
    assumptions = refuse_or_assume(fixed)
    found = analyse(fixed)
    found.assumptions[:0] = assumptions
    return verdict_of(fixed, found, "at" if at else "generic", started)


def verdict_of(model: Model, found: Findings, scope: str, started: float) -> Verdict:
    """The findings as a `Verdict`; levels whose certificate does not verify become UNKNOWN."""
    proof = Proof(model, tuple(found.claims), dict(found.levels))
    levels, invariances, tried = found.levels, tuple(found.invariances), list(found.tried)
    if not proof.verify():
        levels, invariances = dict.fromkeys(levels, Level.UNKNOWN), ()
        tried.append("a proof was found but its independent verification failed")
    proved = any(level is not Level.UNKNOWN for level in levels.values())
    needed = tried if Level.UNKNOWN in levels.values() or found.at_least else []
    return Verdict(
        model=model.name,
        about="latents",
        scope=scope,
        level=overall(levels.values()),
        latents={name: levels[name] for name in model.latent_names},
        at_least=tuple(found.at_least) if proved else (),
        invariances=invariances,
        identifiable=tuple(dict.fromkeys(found.identifiable)) if proved else (),
        assumptions=tuple(dict.fromkeys([*model.notes, *found.assumptions, *needed])),
        certificate=proof if proved else None,
        seconds=time.perf_counter() - started,
    )


def refuse_or_assume(model: Model) -> list[str]:
    """Conditions that the model's arguments must meet, as assumptions; refused where they certainly fail.

    Raises:
        ValueError: if there is no latent or observation, or some point of the support breaks a condition.
    """
    if not model.latents:
        raise ValueError(f"{model.name} has no latents to ask about; declare one, as in z ~ Normal(0, 1)")
    if not model.observations:
        raise ValueError(f"{model.name} has no observations; declare one, as in observe x ~ Normal(z, 1)")
    domains = all_domains(model)
    assumed = []
    for condition in model.conditions():
        broken = _broken(condition, domains, model)
        if broken is not None:
            where = ", ".join(f"{symbol} = {value}" for symbol, value in broken.items())
            raise ValueError(f"{condition} should hold for every latent value, but fails at {where}")
        assumed.append(str(condition))
    return assumed


def _broken(condition: Condition, domains: Mapping[Symbol, Set], model: Model) -> dict[Symbol, Any] | None:
    # Free parameters may be chosen so that the condition holds; a latent cannot be told to keep away.
    if not condition.expression.free_symbols <= set(model.latent_symbols):
        return None
    relevant = {symbol: domains[symbol] for symbol in condition.expression.free_symbols}  # type: ignore[index]
    tape = Tape([condition.expression])
    for point in points(relevant, 40):
        value = balls.run_or_nan(tape, point, 128)[0]
        low, high = condition.domain.inf, condition.domain.sup
        below = low.is_finite and value < balls.to_ball(low)
        above = high.is_finite and value > balls.to_ball(high)
        if below or above or (condition.domain.is_open and low.is_finite and value == balls.to_ball(low)):
            return point
    return None


def is_finite(support: Set) -> bool:
    """Whether a latent has finitely many values."""
    return support.is_FiniteSet or isinstance(support, sympy.Range) and bool(support.size.is_finite)


def analyse(model: Model) -> Findings:
    """Levels and claims for all latents of a model with generic remaining parameters."""
    finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
    rest = [s for s in model.latent_symbols if s not in finite]
    law = conditional_law(model)
    if not finite:
        return _continuous(model, law, rest, {})
    count = 1
    for symbol in finite:
        count *= len(list(model.support(symbol)))
    if count > MOST_STATES:
        return _undecided(model, f"{count} joint states of the finite latents are more than {MOST_STATES}")
    states = supported_states(model, finite)
    if not rest:
        return _finite(model, law, finite, states)
    return _mixed(model, law, finite, rest, states)


def supported_states(model: Model, finite: Sequence[Symbol]) -> list[State]:
    """The joint states of the finite latents that the prior does not exclude."""
    states = []
    for values in product(*[list(model.support(symbol)) for symbol in finite]):
        state = dict(zip(finite, values, strict=True))
        if not any(_excluded(statement.family, statement.symbols, state) for statement in model.latents):
            states.append(state)
    return states


def _excluded(family: Any, symbols: Sequence[Symbol], state: State) -> bool:
    if not set(symbols) <= set(state):
        return False
    mass = sympy.exp(family.log_density(*symbols).subs(list(state.items())))
    return bool(mass.is_zero) or mass is sympy.nan or mass.has(sympy.zoo)


def _undecided(model: Model, reason: str) -> Findings:
    return Findings(levels=dict.fromkeys(model.latent_names, Level.UNKNOWN), tried=[reason])


# Continuous latents


def _continuous(model: Model, law: Summary, latents: Sequence[Symbol], state: State) -> Findings:
    """Latents on intervals (or counts), at one state of the finite ones."""
    found = Findings(assumptions=list(law.assumptions), levels=dict.fromkeys((s.name for s in latents), Level.UNKNOWN))
    domains = {symbol: domain for symbol, domain in all_domains(model).items() if symbol not in state}
    counts = {s for s in latents if model.support(s).is_subset(sympy.S.Integers)}
    kappa = [expression for expression in law.expressions if expression.has(*latents)]
    directions = null_directions(kappa, latents)
    ignored = [s for s in latents if {s: sympy.S.One} in [_unit(direction) for direction in directions]]
    if ignored:
        found.claims.append(Ignored(tuple(ignored), state))
        for latent in ignored:
            found.levels[latent.name] = Level.CONSTANT
            found.invariances.append(_translation(model, {latent: sympy.S.One}))
    _translations(model, found, [d for d in directions if not set(d) & set(ignored)], counts, state)
    seen = [s for s in latents if s not in ignored]
    if law.incomplete:
        found.tried.append(f"no proof that a latent is determined: {law.incomplete}")
    elif seen:
        left = _recover(model, found, kappa, seen, counts, domains, state)
        _discrete_fibre(model, found, kappa, left, counts, domains)
    return found


def _unit(direction: Vector) -> Vector:
    return dict.fromkeys(direction, sympy.S.One) if len(direction) == 1 else direction


def _translations(
    model: Model, found: Findings, directions: Sequence[Vector], counts: set[Symbol], state: State
) -> None:
    for direction in directions:
        touched = set(direction) & counts
        if touched and touched != set(direction):
            found.tried.append(f"{in_words(direction)} mixes counts with continuous latents")
            continue
        if touched and not all(entry.is_Rational for entry in direction.values()):
            found.tried.append(f"{in_words(direction)} need not meet another point of the lattice of counts")
            continue
        found.claims.append(Invisible(direction, state))
        found.invariances.append(_translation(model, direction))
        for latent in direction:
            found.levels[latent.name] = Level.PARTIAL


def _translation(model: Model, direction: Vector) -> Invariance:
    prior = model.log_prior()
    drift = sympy.Add(*[entry * prior.diff(latent) for latent, entry in direction.items()])
    keeps = True if vanishes(drift) else False if nonzero_point(drift, all_domains(model)) else None
    about = tuple(latent.name for latent in direction)
    return Invariance(kind="translation", about=about, generator=in_words(direction), preserves_prior=keeps)


def _recover(
    model: Model,
    found: Findings,
    kappa: Sequence[Expr],
    latents: Sequence[Symbol],
    counts: set[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> list[Symbol]:
    """Find latents that the law determines, one after another; what is found counts as known in the next round."""
    outer = {Symbol(f"kappa[{i}]", real=True): expression for i, expression in enumerate(kappa, 1)}
    known: list[Symbol] = []
    left = list(latents)

    def may_divide(factor: Expr) -> bool:
        # A count can be 0 with positive probability, so a factor that contains one may vanish.
        return not factor.has(*counts) if counts else True

    def safe(factor: Expr) -> bool:
        return may_divide(factor) and analytic(factor) and nonzero_point(factor, domains) is not None

    progress = True
    while progress and left:
        peeled = [peel(expression, symbol, left, safe) for symbol, expression in outer.items()]
        peeled = [p for p in peeled if p.inner.has(*left)]
        claims, used = _affine(peeled, outer, left, known, safe, state)
        if not claims:
            claims, used = _monotone(model, peeled, outer, left, known, state)
        for claim in claims:
            found.claims.append(claim)
            found.levels[claim.latent.name] = Level.GLOBAL  # type: ignore[attr-defined]
        found.assumptions += [a for p in used for a in _assumed(p.nonzero, model)]
        gone = [claim.latent for claim in claims]  # type: ignore[attr-defined]
        known += gone
        left = [latent for latent in left if latent not in gone]
        progress = bool(gone)
    unseen = [latent for latent in left if found.levels[latent.name] is Level.UNKNOWN]
    found.identifiable += [str(p.inner) for p in _still_open(outer, left, safe)]
    if unseen:
        found.tried.append(
            f"the law is neither affine nor monotone in what is left of it: {', '.join(s.name for s in unseen)}"
        )
    return unseen


def _still_open(outer: Mapping[Symbol, Expr], left: Sequence[Symbol], safe: Any) -> list[Peeled]:
    peeled = [peel(expression, symbol, left, safe) for symbol, expression in outer.items()] if left else []
    return [p for p in peeled if p.inner.has(*left)]


def _assumed(factors: Sequence[Expr], model: Model) -> list[str]:
    # A factor that contains a latent is non-zero for almost every latent value: nothing to assume about θ.
    parameters = set(model.parameters)
    wanted = [sympy.factor(f) for f in factors if f.free_symbols <= parameters and f.is_nonzero is not True]
    named = [piece for factor in wanted for piece, _ in sympy.factor_list(factor)[1] if piece.is_nonzero is not True]
    return [f"{piece if not piece.could_extract_minus_sign() else -piece} != 0" for piece in named]


def _affine(
    peeled: Sequence[Peeled],
    outer: Mapping[Symbol, Expr],
    left: Sequence[Symbol],
    known: Sequence[Symbol],
    safe: Any,
    state: State,
) -> tuple[list[Recovered], list[Peeled]]:
    rows, straight = [], []
    for p in peeled:
        slopes = [p.inner.diff(latent) for latent in left]
        if not any(slope.has(*left) for slope in slopes):
            rows.append(slopes)
            straight.append(p)
    if not rows:
        return [], []
    claims, divided = [], []
    for column, coefficients in left_inverse(rows).items():
        constant = [p.inner.subs(dict.fromkeys(left, 0)) for p in straight]
        terms = [c * (p.inverse - b) for c, p, b in zip(coefficients, straight, constant, strict=True) if c != 0]
        denominators = [sympy.fraction(sympy.together(c))[1] for c in coefficients]
        if all(safe(d) for d in denominators if d.free_symbols):
            summary = {p.outer: outer[p.outer] for p, c in zip(straight, coefficients, strict=True) if c != 0}
            claims.append(Recovered(left[column], sympy.Add(*terms), summary, tuple(known), state))
            divided += [d for d in denominators if d.free_symbols]
    used = [*straight, Peeled(sympy.S.Zero, Symbol("kappa"), sympy.S.Zero, tuple(divided))] if claims else []
    return claims, used


def _monotone(
    model: Model,
    peeled: Sequence[Peeled],
    outer: Mapping[Symbol, Expr],
    left: Sequence[Symbol],
    known: Sequence[Symbol],
    state: State,
) -> tuple[list[Monotone], list[Peeled]]:
    for p in peeled:
        unknown = [latent for latent in left if p.inner.has(latent)]
        if len(unknown) == 1:
            support = model.support(unknown[0])
            line = sympy.Interval.open(-1, sympy.oo) if support.is_subset(sympy.S.Integers) else support
            sign = slope_sign(p.inner, unknown[0], line)
            if sign:
                claim = Monotone(
                    unknown[0], p.inner, sign, p.inverse, {p.outer: outer[p.outer]}, tuple(known), state
                )
                return [claim], [p]
    return [], []


def _discrete_fibre(
    model: Model,
    found: Findings,
    kappa: Sequence[Expr],
    left: Sequence[Symbol],
    counts: set[Symbol],
    domains: Mapping[Symbol, Set],
) -> None:
    """One latent left, seen by an analytic law: finitely or countably many values fit; a reflection makes it exact."""
    if len(left) != 1 or left[0] in counts:
        return
    latent = left[0]
    seen = [e for e in kappa if e.has(latent)]
    if any(other in e.free_symbols for e in seen for other in model.latent_symbols if other != latent):
        return
    if not seen or not all(analytic(expression) for expression in seen):
        return
    second = Symbol(f"{latent.name}'", **latent.assumptions0)
    for expression in seen:
        gap = expression - expression.subs(latent, second)
        point = nonzero_point(gap, {**domains, second: domains[latent]})
        if point is not None:
            here = {s: v for s, v in point.items() if s != second}
            there = {**here, latent: point[second]}
            found.claims.append(DiscreteFibre(latent, expression, here, there))
            found.levels[latent.name] = Level.LOCAL
            break
    else:
        return
    support = domains[latent]
    symmetric = support.inf == -support.sup
    if symmetric and all(vanishes(e.subs(latent, -latent) - e) for e in kappa):
        found.claims.append(Folded({latent: -latent}))
        prior = model.log_prior()
        keeps = True if vanishes(prior.subs(latent, -latent) - prior) else None
        found.invariances.append(
            Invariance(kind="sign flip", about=(latent.name,), map=f"{latent.name} -> -{latent.name}", preserves_prior=keeps)
        )
        found.tried.clear()
    else:
        found.at_least.append(latent.name)


# Finite latents


def _at(expressions: Sequence[Expr], state: State) -> list[Expr]:
    return [expression.subs(list(state.items())) for expression in expressions]


def _finite(model: Model, law: Summary, finite: Sequence[Symbol], states: Sequence[State]) -> Findings:
    found = Findings(assumptions=list(law.assumptions), levels=dict.fromkeys((s.name for s in finite), Level.UNKNOWN))
    table = [_at(law.expressions, state) for state in states]
    same = _classes(table)
    labels = _labels(same, len(states))
    distinct = _distinct(model, law, states, labels)
    if distinct is None:
        found.tried.append(
            f"whether two states have one law was not decided: {law.incomplete or 'neither equality nor difference proved'}"
        )
    for latent in finite:
        pairs = [
            (i, j) for i, j in combinations(range(len(states)), 2) if states[i][latent] != states[j][latent]
        ]
        neighbours = [(i, j) for i, j in pairs if _only(latent, states[i], states[j])]
        merged = [(i, j) for i, j in pairs if labels[i] == labels[j]]
        ignores = all(labels[i] == labels[j] for i, j in neighbours) if neighbours else not _mentions(law, latent)
        if len(set(labels)) == 1 or (ignores and not _mentions(law, latent)) or (ignores and neighbours):
            found.levels[latent.name] = Level.CONSTANT
            found.claims += [Merged(states[i], states[j], Level.CONSTANT) for i, j in neighbours]
            if not neighbours:
                found.claims.append(Ignored((latent,)))
            found.invariances.append(
                Invariance(kind="merged states", about=(latent.name,), map=f"{latent.name} -> any other state")
            )
        elif merged:
            found.levels[latent.name] = Level.PARTIAL
            found.claims += [Merged(states[i], states[j]) for i, j in merged]
        elif distinct is not None:
            found.levels[latent.name] = Level.GLOBAL
            found.claims.append(distinct)
    _name_merged(found, states, labels)
    if distinct is not None:
        found.assumptions += _difference_assumptions(law, states, labels, model)
    return found


def _only(latent: Symbol, one: State, other: State) -> bool:
    return all(one[s] == other[s] for s in one if s != latent)


def _mentions(law: Summary, latent: Symbol) -> bool:
    return any(expression.has(latent) for expression in law.expressions)


def _classes(table: Sequence[Sequence[Expr]]) -> list[list[int]]:
    """Rows that are proved equal, grouped; equality is tested exactly, after a quick look at the written form."""
    groups: list[list[int]] = []
    for row in range(len(table)):
        for group in groups:
            if all(a == b or vanishes(a - b) for a, b in zip(table[row], table[group[0]], strict=True)):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _labels(groups: Sequence[Sequence[int]], count: int) -> list[int]:
    labels = [0] * count
    for label, group in enumerate(groups):
        for row in group:
            labels[row] = label
    return labels


def _distinct(model: Model, law: Summary, states: Sequence[State], labels: Sequence[int]) -> AllDiffer | None:
    """A claim that states of different label have different laws, at one parameter point and so at almost all."""
    if law.incomplete or not all(analytic(expression) for expression in law.expressions):
        return None
    representatives = [states[labels.index(label)] for label in dict.fromkeys(labels)]
    tape = Tape(list(law.expressions))
    for point in points(model.parameters, 6 if model.parameters else 1):
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
        gaps = [sympy.factor(a - b) for a, b in zip(_at(law.expressions, one), _at(law.expressions, other), strict=True)]
        gaps = [gap for gap in gaps if gap != 0]
        if all(gap.free_symbols and gap.is_nonzero is not True for gap in gaps):
            wanted.append(" or ".join(f"{gap} != 0" for gap in gaps))
    return wanted


def _name_merged(found: Findings, states: Sequence[State], labels: Sequence[int]) -> None:
    if len(set(labels)) in (1, len(states)):
        return
    for label in dict.fromkeys(labels):
        group = [states[i] for i in range(len(states)) if labels[i] == label]
        for one, other in zip(group, group[1:], strict=False):
            moved = tuple(s.name for s in one if one[s] != other[s])
            if any(found.levels[name] is Level.PARTIAL for name in moved):
                found.invariances.append(
                    Invariance(kind="merged states", about=moved, map=f"({_state(one)}) -> ({_state(other)})")
                )
        found.identifiable.append(" or ".join(f"({_state(state)})" for state in group))


def _state(state: State) -> str:
    return ", ".join(f"{symbol.name}={value}" for symbol, value in state.items())


# Both kinds


def _mixed(
    model: Model, law: Summary, finite: Sequence[Symbol], rest: Sequence[Symbol], states: Sequence[State]
) -> Findings:
    found = Findings(levels=dict.fromkeys(model.latent_names, Level.UNKNOWN), assumptions=list(law.assumptions))
    for latent in finite:
        if not _mentions(law, latent):
            found.levels[latent.name] = Level.CONSTANT
            found.claims.append(Ignored((latent,)))
            found.invariances.append(
                Invariance(kind="merged states", about=(latent.name,), map=f"{latent.name} -> any other state")
            )
    table = [_at(law.expressions, state) for state in states]
    per_state = []
    for state, row in zip(states, table, strict=True):
        here = Summary(tuple(row), law.assumptions, law.incomplete)
        per_state.append(_continuous(model.given(state), here, rest, state))
    _worst_over_states(found, rest, states, per_state)
    labels = _labels(_classes(table), len(states))
    for latent in finite:
        merged = [
            (i, j)
            for i, j in combinations(range(len(states)), 2)
            if labels[i] == labels[j] and states[i][latent] != states[j][latent]
        ]
        if merged and found.levels[latent.name] is Level.UNKNOWN:
            neighbours = [(i, j) for i, j in combinations(range(len(states)), 2) if _only(latent, states[i], states[j])]
            every = bool(neighbours) and all(labels[i] == labels[j] for i, j in neighbours)
            level = Level.CONSTANT if every else Level.PARTIAL
            found.levels[latent.name] = level
            found.claims += [Merged(states[i], states[j], level) for i, j in merged]
    _name_merged(found, states, labels)
    told = _told_apart(model, law, rest, states, labels)
    if told is None:
        found.tried.append("whether the states' laws overlap as the continuous latents vary was not decided")
        for latent in rest:
            if found.levels[latent.name] in (Level.GLOBAL, Level.LOCAL):
                found.levels[latent.name] = Level.UNKNOWN
        return found
    for latent in finite:
        if found.levels[latent.name] is Level.UNKNOWN:
            found.levels[latent.name] = Level.GLOBAL
            found.claims.append(told)
    return found


def _worst_over_states(
    found: Findings, rest: Sequence[Symbol], states: Sequence[State], per_state: Sequence[Findings]
) -> None:
    for part in per_state:
        found.claims += [claim for claim in part.claims if isinstance(claim, Ignored | Invisible)]
        found.invariances += [i for i in part.invariances if i not in found.invariances]
        found.assumptions += part.assumptions
        found.tried += part.tried
    for latent in rest:
        levels = {part.levels[latent.name] for part in per_state}
        if levels == {Level.CONSTANT}:
            found.levels[latent.name] = Level.CONSTANT
        elif levels & {Level.CONSTANT, Level.PARTIAL}:
            found.levels[latent.name] = Level.PARTIAL
            found.claims += [
                Ignored((latent,), state, Level.PARTIAL)
                for state, part in zip(states, per_state, strict=True)
                if part.levels[latent.name] is Level.CONSTANT
            ]
        elif levels == {Level.GLOBAL}:
            found.levels[latent.name] = Level.GLOBAL
            found.claims += [
                claim for part in per_state for claim in part.claims if latent.name in claim.supports
            ]


def _told_apart(
    model: Model, law: Summary, rest: Sequence[Symbol], states: Sequence[State], labels: Sequence[int]
) -> AllDiffer | None:
    """States that differ already in the part of the law that no continuous latent enters."""
    fixed = tuple(e for e in law.expressions if not e.has(*rest))
    return _distinct(model, Summary(fixed, (), law.incomplete), states, labels) if fixed else None


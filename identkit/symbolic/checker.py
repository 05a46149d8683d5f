"""`check` for models with symbols: which latents does the likelihood see? Proved, or UNKNOWN with the reason.

The law κ(z, θ) is read off the statements (`summary`); what it ignores is found as exact null vectors (`symmetry`),
what determines its latents by peeling and monotonicity (`injectivity`), finite latents by comparing states. Every
step leaves a claim, and a verdict is given only if its certificate verifies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Any

import sympy
from sympy import Expr, Set, Symbol

from identkit.model import balls
from identkit.model.families import NONNEGATIVE, POSITIVE, MvNormal, select
from identkit.model.model import Condition, Model
from identkit.model.tape import Tape
from identkit.symbolic.cells import has_kinks
from identkit.symbolic.certificates import (
    AllDiffer,
    Claim,
    DiscreteFibre,
    Folded,
    Ignored,
    Invisible,
    Merged,
    Monotone,
    OneValue,
    Recovered,
)
from identkit.symbolic.certificates.zeros import all_apart
from identkit.symbolic.equalities import tied, with_equalities_solved
from identkit.symbolic.field import nonzero_point, points, vanishes
from identkit.symbolic.full_rank import FullRank, affine_slopes, full_rank
from identkit.symbolic.injectivity import Peeled, peel, slope_sign
from identkit.symbolic.proof import Proof
from identkit.symbolic.ranges import without_settled_kinks
from identkit.symbolic.regions import flat_cells
from identkit.symbolic.regularity import analytic, on_open_box, positive
from identkit.symbolic.summary import Summary, conditional_law
from identkit.symbolic.support import (
    State,
    all_domains,
    almost_never_zero,
    is_discrete,
    is_finite,
    on_simplex,
    supported_states,
    takes_every_value,
    varies,
)
from identkit.symbolic.symmetry import Vector, in_words, left_inverse, null_directions
from identkit.verdict import Invariance, Level, Verdict, overall

MOST_STATES = 4096
"""Joint states of the finite latents beyond which the comparison is refused."""
MOST_ENTRIES_OF_SYMBOLS, MOST_ENTRIES = 12, 120
"""Sizes of a matrix of coefficients beyond which its inverse is not written out."""
MOST_NAMED = 8
"""Merged states, and classes of them, that are named one by one."""
MOST_MINORS = 4
"""Leading minors of a covariance matrix of symbols that are written out as conditions."""


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
    pinned: set[Symbol] = field(default_factory=set)
    """counts that may not take every value, so that no translation of them is known to stay in the support"""


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
    fixed = without_settled_kinks(with_equalities_solved(model.at(at)))
    assumptions = refuse_or_assume(fixed)
    found = analyse(fixed)
    found.assumptions[:0] = assumptions
    _dead_regions(fixed, found)
    verdict = verdict_of(fixed, found, "at" if at else "generic", started)
    return _by_the_general_method(fixed, verdict, assumptions) if _open_questions(verdict) else verdict


def _dead_regions(model: Model, found: Findings) -> None:
    """A kinked law may be flat in a region of positive mass, as a rectifier is on half a line: PARTIAL (theory/T2)."""
    left = [s for s in model.latent_symbols if found.levels[s.name] is Level.UNKNOWN]
    law = conditional_law(model).expressions
    if not left or not has_kinks(law) or any(is_discrete(model.support(s)) for s in model.latent_symbols):
        return
    if not all(takes_every_value(model, s) for s in model.latent_symbols):
        return
    for claim in flat_cells(model, left):
        if claim.holds(model):
            found.claims.append(claim)
            found.levels.update({latent.name: Level.PARTIAL for latent in claim.direction})
            found.assumptions += [f"{claim.sentence}; elsewhere it may change"]
            found.invariances.append(_translation(model, dict(claim.direction)))


def _open_questions(verdict: Verdict) -> int:
    return len(verdict.at_least) + sum(level is Level.UNKNOWN for level in verdict.latents.values())


def _by_the_general_method(model: Model, verdict: Verdict, assumptions: Sequence[str]) -> Verdict:
    """Rank, fields, formulas and maps, where the latents fill an open set and the first steps left something open."""
    if any(is_discrete(model.support(s)) or not takes_every_value(model, s) for s in model.latent_symbols):
        return verdict
    if tied(model):
        return verdict
    from identkit.symbolic.parameters import check_fibre

    other = check_fibre(model, "latents")
    if _open_questions(other) >= _open_questions(verdict):
        return verdict
    return replace(
        other,
        scope=verdict.scope,
        assumptions=tuple(dict.fromkeys([*assumptions, *other.assumptions])),
        seconds=verdict.seconds + other.seconds,
    )


def verdict_of(model: Model, found: Findings, scope: str, started: float) -> Verdict:
    """The findings as a `Verdict`; levels whose certificate does not verify become UNKNOWN."""
    proof = Proof(model, tuple(found.claims), dict(found.levels)).what_holds()
    levels, invariances, tried = dict(proof.levels), tuple(found.invariances), list(found.tried)
    if len(proof.claims) < len(found.claims) or levels != found.levels:
        invariances = ()
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
    for condition in [*model.conditions(), *_real(model)]:
        if _holds(condition.expression, condition.domain, domains):
            continue
        broken = _broken(condition, domains, model)
        if broken is not None:
            where = ", ".join(f"{symbol} = {value}" for symbol, value in broken.items())
            raise ValueError(f"{condition} should hold for every latent value, but fails at {where}")
        assumed.append(str(condition))
    return assumed


def _real(model: Model) -> Iterator[Condition]:
    # The arguments' own domains say nothing of a mean such as log(z), nor of a covariance such as [[1, z], [z, 1]].
    for statement in [*model.latents, *model.observations]:
        subject = ", ".join(symbol.name for symbol in statement.symbols)
        for name, expression, _ in statement.family.expressions():
            for log in expression.atoms(sympy.log):
                yield Condition(log.args[0], POSITIVE, f"inside the {name} of {subject}")
            for power in expression.atoms(sympy.Pow):
                if not power.exp.is_integer:
                    yield Condition(power.base, NONNEGATIVE, f"inside the {name} of {subject}")
        if isinstance(statement.family, MvNormal) and statement.family.arguments[1].free_symbols:
            cov = statement.family.arguments[1]
            for size in range(1, min(len(statement.symbols), MOST_MINORS) + 1):
                yield Condition(cov[:size, :size].det(), POSITIVE, f"a leading minor of the cov of {subject}")


def _holds(expression: Expr, domain: Set, domains: Mapping[Symbol, Set]) -> bool:
    if isinstance(expression, select):
        return all(_holds(choice, domain, domains) for choice in expression.args[1:])
    moved = on_open_box(expression, domains)
    gaps = [moved - domain.inf] * domain.inf.is_finite + [domain.sup - moved] * domain.sup.is_finite
    closed = not domain.is_open
    return bool(gaps) and all(
        positive(gap) or (closed and sympy.factor(gap).is_nonnegative is True) for gap in gaps
    )


def _broken(condition: Condition, domains: Mapping[Symbol, Set], model: Model) -> dict[Symbol, Any] | None:
    # Free parameters may be chosen so that the condition holds; a latent cannot be told to keep away.
    if not condition.expression.free_symbols <= set(model.latent_symbols):
        return None
    finite = [s for s in model.latent_symbols if is_finite(domains[s])]
    rest = {s: domains[s] for s in model.latent_symbols if s not in finite}
    states = supported_states(model, finite)
    if states is None or not all(takes_every_value(model, s) for s in rest):
        return None
    tape = Tape([condition.expression])
    low, high = condition.domain.inf, condition.domain.sup
    for place, point in enumerate(points(rest, max(40, len(states)))):
        scale = (1, 1, 30, 10**6)[place % 4]
        far = {s: value * scale if domains[s] == sympy.S.Reals else value for s, value in point.items()}
        here = {
            s: v
            for s, v in {**far, **states[place % len(states)]}.items()
            if s in condition.expression.free_symbols
        }
        value = balls.run_or_nan(tape, here, 128)[0]
        below = low.is_finite and value < balls.to_ball(low)
        above = high.is_finite and value > balls.to_ball(high)
        if below or above or (condition.domain.is_open and low.is_finite and value == balls.to_ball(low)):
            return here
    return None


def analyse(model: Model) -> Findings:
    """Levels and claims for all latents of a model with generic remaining parameters."""
    equations = ", ".join(sorted(s.name for s in tied(model)))
    if equations:
        return _undecided(model, f"an equation ties {equations}, so that they are no generic numbers")
    bound = [symbol.name for st in model.latents if on_simplex(st.family) for symbol in st.symbols]
    finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
    rest = [s for s in model.latent_symbols if s not in finite]
    if bound and finite:
        return _undecided(
            model, f"{', '.join(bound)} add up to a constant, so that each is a function of the others"
        )
    law = conditional_law(model)
    if not finite:
        found = _continuous(model, law, rest, {})
        if bound:
            found = _on_simplex(model, found)
        _refuse_one_value(found, rest, [model])
        return found
    count = 1
    for symbol in finite:
        count *= len(list(model.support(symbol)))
    if count > MOST_STATES:
        return _undecided(model, f"{count} joint states of the finite latents are more than {MOST_STATES}")
    states = supported_states(model, finite)
    if states is None:
        return _undecided(model, "which joint states the prior allows was not decided")
    if not rest:
        return _finite(model, law, finite, states)
    return _mixed(model, law, finite, rest, states)


def _on_simplex(model: Model, found: Findings) -> Findings:
    """What holds of a law on the whole box of the latents and stays true where some of them add up to a constant.

    A formula that recovers a latent from the law does, if it divides by no latent; that the law ignores all coordinates
    of a draw does. A direction in which the law is constant leads out of the simplex.
    """
    latents = set(model.latent_symbols)
    groups = [set(st.symbols) for st in model.latents if on_simplex(st.family)]
    kept: list[Claim] = []
    levels = dict.fromkeys(found.levels, Level.UNKNOWN)
    known: set[Symbol] = set()
    for claim in found.claims:
        if isinstance(claim, Recovered) and set(claim.known) <= known:
            inside = claim.formula.xreplace(dict(claim.summary))
            if not sympy.fraction(sympy.together(inside))[1].free_symbols & latents:
                kept.append(claim)
                known.add(claim.latent)
                levels[claim.latent.name] = Level.GLOBAL
        elif isinstance(claim, Ignored):
            whole = {s for s in claim.latents if all(g <= set(claim.latents) for g in groups if s in g)}
            if whole:
                kept.append(Ignored(tuple(s for s in claim.latents if s in whole), claim.state))
                levels.update({s.name: Level.CONSTANT for s in whole})
    open_ = [name for name, level in levels.items() if level is Level.UNKNOWN]
    bound = ", ".join(s.name for st in model.latents if on_simplex(st.family) for s in st.symbols)
    reason = f"{bound} add up to a constant, so that each is a function of the others"
    return replace(
        found,
        levels=levels,
        claims=kept,
        invariances=[],
        identifiable=[],
        at_least=[],
        tried=[reason] if open_ else [],
    )


def _refuse_one_value(found: Findings, latents: Sequence[Symbol], held: Sequence[Model]) -> None:
    # "Determined" would be an empty word for a count that the prior may fix, such as Poisson(0).
    for latent in latents:
        claimed = found.levels[latent.name] in (Level.GLOBAL, Level.LOCAL)
        if claimed and not any(varies(model, latent) for model in held):
            found.levels[latent.name] = Level.UNKNOWN
            found.tried.append(f"whether the prior leaves {latent.name} more than one value was not decided")


def _undecided(model: Model, reason: str) -> Findings:
    return Findings(levels=dict.fromkeys(model.latent_names, Level.UNKNOWN), tried=[reason])


# Continuous latents


def _continuous(model: Model, law: Summary, latents: Sequence[Symbol], state: State) -> Findings:
    """Latents on intervals (or counts), at one state of the finite ones."""
    found = Findings(
        assumptions=list(law.assumptions), levels=dict.fromkeys((s.name for s in latents), Level.UNKNOWN)
    )
    domains = {symbol: domain for symbol, domain in all_domains(model).items() if symbol not in state}
    counts = {s for s in latents if is_discrete(model.support(s))}
    found.pinned = {s for s in counts if not takes_every_value(model, s)}
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
        left = _recover(model, found, kappa, seen, domains, state)
        _discrete_fibre(model, found, kappa, left, counts, domains)
    return found


def _unit(direction: Vector) -> Vector:
    return dict.fromkeys(direction, sympy.S.One) if len(direction) == 1 else direction


def _translations(
    model: Model, found: Findings, directions: Sequence[Vector], counts: set[Symbol], state: State
) -> None:
    for direction in directions:
        touched = set(direction) & counts
        if touched & found.pinned:
            found.tried.append(f"{in_words(direction)} may lead out of the prior's support")
            continue
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
    if keeps and any(model.support(latent) != sympy.S.Reals for latent in direction):
        keeps = False  # the density may be flat, as Uniform's is, but the ends of the support move
    about = tuple(latent.name for latent in direction)
    return Invariance(kind="translation", about=about, generator=in_words(direction), preserves_prior=keeps)


def _recover(
    model: Model,
    found: Findings,
    kappa: Sequence[Expr],
    latents: Sequence[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> list[Symbol]:
    """Find latents that the law determines, one after another; what is found counts as known in the next round."""
    # With round brackets, which no name of a model has.
    outer = {Symbol(f"kappa({i})", real=True): expression for i, expression in enumerate(kappa, 1)}
    known: list[Symbol] = []
    left = list(latents)

    def safe(factor: Expr) -> bool:
        return almost_never_zero(factor, domains)

    progress = True
    while progress and left:
        peeled = [peel(expression, symbol, left, safe) for symbol, expression in outer.items()]
        peeled = [p for p in peeled if p.inner.has(*left)]
        claims, used = _affine(peeled, outer, left, known, domains, state)
        if not claims:
            claims, used = _monotone(model, peeled, outer, left, known, domains, state)
        found.claims += claims
        gone = [latent for claim in claims for latent in claim.gives]
        found.levels.update({latent.name: Level.GLOBAL for latent in gone})
        found.assumptions += [a for p in used for a in _assumed(p.nonzero, model)]
        if any(isinstance(claim, FullRank) and set(claim.point) & set(model.domains) for claim in claims):
            found.assumptions.append(
                f"the coefficients of {', '.join(s.name for s in gone)} in the law have full rank"
            )
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
    parameters = set(model.domains)
    wanted = [sympy.together(f) for f in factors if f.free_symbols <= parameters and f.is_nonzero is not True]
    sides = [side for factor in wanted for side in sympy.fraction(factor) if side.free_symbols]
    named = [
        piece for side in sides for piece, _ in sympy.factor_list(side)[1] if piece.is_nonzero is not True
    ]
    return [f"{piece if not piece.could_extract_minus_sign() else -piece} != 0" for piece in named]


def _affine(
    peeled: Sequence[Peeled],
    outer: Mapping[Symbol, Expr],
    left: Sequence[Symbol],
    known: Sequence[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> tuple[Sequence[Recovered | FullRank], list[Peeled]]:
    straight = [p for p in peeled if affine_slopes(left, [p.inner]) is not None]
    rows = affine_slopes(left, [p.inner for p in straight])
    if not rows:
        return [], []
    symbols = any(entry.free_symbols for row in rows for entry in row)
    if len(rows) * len(left) > (MOST_ENTRIES_OF_SYMBOLS if symbols else MOST_ENTRIES):
        whole = full_rank(straight, rows, outer, left, known, domains, state)
        return ([whole], straight) if whole is not None else ([], [])
    claims, divided = [], []
    for column, coefficients in left_inverse(rows).items():
        constant = [p.inner.subs(dict.fromkeys(left, 0)) for p in straight]
        terms = [
            c * (p.inverse - b) for c, p, b in zip(coefficients, straight, constant, strict=True) if c != 0
        ]
        denominators = [sympy.fraction(sympy.together(c))[1] for c in coefficients]
        if all(almost_never_zero(d, domains) for d in denominators):
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
    domains: Mapping[Symbol, Set],
    state: State,
) -> tuple[list[Monotone], list[Peeled]]:
    for p in peeled:
        unknown = [latent for latent in left if p.inner.has(latent)]
        if len(unknown) == 1:
            support = model.support(unknown[0])
            line = sympy.Interval.open(-1, sympy.oo) if is_discrete(support) else support
            sign = slope_sign(p.inner, unknown[0], line)
            # A slope of 0 is harmless at isolated points, not at one value of a count, which has positive mass.
            strict = any(is_discrete(domains[s]) for s in p.inner.free_symbols - {unknown[0]})  # type: ignore[index]
            if sign and (not strict or positive(sign * p.inner.diff(unknown[0]))):
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
    if not seen or not all(analytic(expression, domains) for expression in seen):
        return
    if any(is_discrete(domains[s]) for expression in seen for s in expression.free_symbols):  # type: ignore[index]
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
            Invariance(
                kind="sign flip",
                about=(latent.name,),
                map=f"{latent.name} -> -{latent.name}",
                preserves_prior=keeps,
            )
        )
        found.tried.clear()
    else:
        found.at_least.append(latent.name)


# Finite latents


def _at(expressions: Sequence[Expr], state: State) -> list[Expr]:
    return [expression.xreplace(dict(state)) for expression in expressions]


def _finite(model: Model, law: Summary, finite: Sequence[Symbol], states: Sequence[State]) -> Findings:
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


# Both kinds


def _mixed(
    model: Model, law: Summary, finite: Sequence[Symbol], rest: Sequence[Symbol], states: Sequence[State]
) -> Findings:
    found = Findings(
        levels=dict.fromkeys(model.latent_names, Level.UNKNOWN), assumptions=list(law.assumptions)
    )
    held = [model.given(state) for state in states]
    per_state = []
    for state, here in zip(states, held, strict=True):
        row = Summary(tuple(_at(law.expressions, state)), law.assumptions, law.incomplete)
        per_state.append(_continuous(here, row, rest, state))
    _worst_over_states(found, rest, per_state)
    _refuse_one_value(found, rest, held)
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

"""`check` for models with symbols: which latents does the likelihood see? Proved, or UNKNOWN with the reason.

The law κ(z, θ) is read off the statements (`summary`); what it ignores is found as exact null vectors (`symmetry`),
what determines its latents by peeling and monotonicity (`injectivity`), finite latents by comparing states. Every
step leaves a claim, and a verdict is given only if its certificate verifies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
from sympy import Symbol

from identkit.model.model import Model
from identkit.symbolic.cells import has_kinks
from identkit.symbolic.certificates import Claim, Ignored, Recovered
from identkit.symbolic.conditions import refuse_or_assume
from identkit.symbolic.continuous_latents import analyse_continuous, translation
from identkit.symbolic.equalities import tied, with_equalities_solved
from identkit.symbolic.findings import Findings, refuse_one_value, undecided
from identkit.symbolic.finite_latents import analyse_finite, analyse_mixed
from identkit.symbolic.proof import Proof
from identkit.symbolic.ranges import without_settled_kinks
from identkit.symbolic.regions import flat_cells
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import is_discrete, is_finite, on_simplex, supported_states, takes_every_value
from identkit.verdict import Level, Verdict, overall

MOST_STATES = 4096
"""Joint states of the finite latents beyond which the comparison is refused."""


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
            found.invariances.append(translation(model, dict(claim.direction)))


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


def analyse(model: Model) -> Findings:
    """Levels and claims for all latents of a model with generic remaining parameters."""
    equations = ", ".join(sorted(s.name for s in tied(model)))
    if equations:
        return undecided(model, f"an equation ties {equations}, so that they are no generic numbers")
    bound = [symbol.name for st in model.latents if on_simplex(st.family) for symbol in st.symbols]
    finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
    rest = [s for s in model.latent_symbols if s not in finite]
    if bound and finite:
        return undecided(
            model, f"{', '.join(bound)} add up to a constant, so that each is a function of the others"
        )
    law = conditional_law(model)
    if not finite:
        found = analyse_continuous(model, law, rest, {})
        if bound:
            found = _on_simplex(model, found)
        refuse_one_value(found, rest, [model])
        return found
    count = 1
    for symbol in finite:
        count *= len(list(model.support(symbol)))
    if count > MOST_STATES:
        return undecided(model, f"{count} joint states of the finite latents are more than {MOST_STATES}")
    states = supported_states(model, finite)
    if states is None:
        return undecided(model, "which joint states the prior allows was not decided")
    if not rest:
        return analyse_finite(model, law, finite, states)
    return analyse_mixed(model, law, finite, rest, states)


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

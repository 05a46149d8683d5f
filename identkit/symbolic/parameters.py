"""`check` about the parameters, and about latents and parameters together: from κ to a verdict (theory/T6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import sympy
from sympy import Expr, S, Symbol

from identkit.model.model import Model, defined_at
from identkit.symbolic.discrete import Map, candidates
from identkit.symbolic.fibre_claims import (
    Definite,
    FibreClaim,
    Mirrored,
    NullField,
    Rank,
    ReadOff,
    Relabelled,
    Rising,
    Unseen,
)
from identkit.symbolic.fibre_count import fibre_count
from identkit.symbolic.fibre_proof import FibreProof
from identkit.symbolic.field import vanishes
from identkit.symbolic.fields import Field, is_null
from identkit.symbolic.modular import Unsupported
from identkit.symbolic.outcome import Outcome
from identkit.symbolic.point_proof import Pinned, SumOfSquares
from identkit.symbolic.polynomials import factored
from identkit.symbolic.prior import keeps_prior, prior_first, prior_identified
from identkit.symbolic.problem import Problem
from identkit.symbolic.questions import Question, question
from identkit.symbolic.ranges import without_settled_kinks
from identkit.symbolic.recovery import Recovery
from identkit.symbolic.root_proof import OneRoot, Relation
from identkit.symbolic.roots import Settled
from identkit.symbolic.solver import solve
from identkit.symbolic.special import solve_at
from identkit.symbolic.support import on_simplex
from identkit.symbolic.wording import field_in_words, map_in_words
from identkit.verdict import Invariance, Level, Verdict, overall

_MOST_PAIRS = 10


def check_fibre(
    model: Model,
    about: str,
    at: Mapping[Any, Any] | None = None,
    seconds: float = 30.0,
    tell: Callable[[Verdict], None] | None = None,
) -> Verdict:
    """Which parameters the law of the data determines, or which latents and parameters together.

    Args:
        model: the model.
        about: "parameters" (latents integrated out) or "joint" (latents as unknowns beside the parameters).
        at: the point whose fibre is asked for: unknowns stay unknown, those not named are generic; values of
            `known` numbers are simply written in.
        seconds: time for the searches.
        tell: gets a verdict on what has been proved so far, whenever there is more.

    Raises:
        ValueError: for a model without such unknowns, an unknown name in `at`, or a value outside its domain.

    >>> import identkit as ik
    >>> m = ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, s)")
    >>> check_fibre(m, "parameters").parameters
    {'w': <Level.PARTIAL: 'PARTIAL'>, 's': <Level.PARTIAL: 'PARTIAL'>}
    """
    started = time.perf_counter()
    model, point = _point(model, about, at)
    model = without_settled_kinks(model)
    asked = question(model, about)
    unknowns = asked.problem.unknowns
    if tell is not None:
        nothing = Outcome(dict.fromkeys(unknowns, Level.UNKNOWN), tried=["the search was cut short"])
        tell(_concluded(model, about, {}, asked, nothing, [], [], started))
    partly = None if tell is None or point else _teller(tell, model, about, asked, started)
    # At a special point of a mixture the generic answer says nothing: components may coincide there.
    unsolved = Outcome(dict.fromkeys(unknowns, Level.UNKNOWN))
    if about != "parameters" and any(on_simplex(statement.family) for statement in model.latents):
        unsolved.tried.append("latents that add up to a constant fill no open set")
        return _concluded(model, about, point, asked, unsolved, [], [], started)
    outcome = unsolved if point and asked.components else solve(asked.problem, seconds, partly)
    if about == "joint":
        outcome.fields = prior_first(asked.problem, outcome.fields)
    if outcome.at_least and not outcome.fields and not point:
        count = fibre_count(asked.problem, min(5.0, seconds / 4))
        if count is not None:
            outcome.tried.append(
                f"a Gröbner basis over a prime field (Singular) counts {count} complex "
                f"solution{'s' * (count != 1)} in the generic fibre"
            )
    claims = _claims(asked.problem, outcome, {})
    claims += _relabelled(asked, outcome)
    sliced: list[FibreClaim] = []
    if point:
        generic = outcome
        inner = (
            question(model.at({s.name: v for s, v in point.items()}), about)
            if _partly(point, unknowns) and _written_in(model, point)
            else None
        )
        outcome = solve_at(asked.problem, point, generic, None if inner is None else inner.problem, seconds)
        claims = _claims(asked.problem, outcome, point)
        if inner is not None and outcome.inside is not None:
            sliced = _claims(inner.problem, outcome.inside, {}) + _relabelled(inner, outcome.inside)
        if asked.components:
            _unsettle(outcome, asked)
    return _concluded(model, about, point, asked, outcome, claims, sliced, started)


def _teller(
    tell: Callable[[Verdict], None], model: Model, about: str, asked: Question, started: float
) -> Callable[[Outcome], None]:
    def partly(outcome: Outcome) -> None:
        if not asked.components:
            claims = _claims(asked.problem, outcome, {})
            tell(_concluded(model, about, {}, asked, outcome, claims, [], started))

    return partly


def _concluded(
    model: Model,
    about: str,
    point: dict[Symbol, Expr],
    asked: Question,
    outcome: Outcome,
    claims: list[FibreClaim],
    sliced: list[FibreClaim],
    started: float,
) -> Verdict:
    """The verdict on an outcome, after its proof has been verified; what does not follow from it is UNKNOWN."""
    levels = {u.name: outcome.levels[u] for u in asked.problem.unknowns}
    proof = FibreProof(model, about, tuple(claims), levels, point, tuple(sliced))
    tried = [
        *outcome.tried,
        *([f"the law is not known completely: {asked.incomplete}"] if asked.incomplete else []),
        *(["unknowns that take whole numbers only are no matter of calculus"] if asked.problem.whole else []),
    ]
    if not proof.verify():
        levels = _withdrawn(proof, levels)
        proof = replace(proof, levels=levels)
        tried.append("a proof was found but its independent verification failed")
    return _verdict(model, about, point, asked, outcome, levels, proof, tried, started)


def _point(model: Model, about: str, at: Mapping[Any, Any] | None) -> tuple[Model, dict[Symbol, Expr]]:
    """Values of known numbers are written in; those of unknowns make the point."""
    if not at:
        return model, {}
    free = tuple(model.parameters) + (model.latent_symbols if about == "joint" else ())
    values = model.resolve(at, "at", (*free, *model.knowns))
    for symbol, value in values.items():
        domain = model.parameters.get(symbol) or model.knowns.get(symbol) or model.support(symbol)
        if domain.contains(value) == sympy.false:
            raise ValueError(f"at for {symbol} should be in {domain}, got {value}")
    written = {s.name: v for s, v in values.items() if s in model.knowns}
    model, point = model.at(written), {s: v for s, v in values.items() if s not in model.knowns}
    for expression in model.summaries:
        defined_at(expression, point)
    for statement in model.observations:
        statement.family.map(lambda e: defined_at(e, point))
    return model, point


def _partly(point: Mapping[Symbol, Expr], unknowns: Sequence[Symbol]) -> bool:
    return any(u not in point for u in unknowns)


def _written_in(model: Model, point: Mapping[Symbol, Expr]) -> bool:
    # A latent is no parameter: its statement would be left without it.
    return all(s in model.domains for s in point)


def _claims(problem: Problem, outcome: Outcome, point: Mapping[Symbol, Expr]) -> list[FibreClaim]:
    claims: list[FibreClaim] = []
    constant = tuple(u for u in problem.unknowns if outcome.levels.get(u) is Level.CONSTANT)
    if constant:
        claims.append(Unseen(constant))
    claims += [Pinned(pin.unknown, pin.value, pin.expression, pin.cofactor, point) for pin in outcome.pins]
    claims += [SumOfSquares(least.unknowns, least.weights, least.squared, point) for least in outcome.squares]
    claims += [NullField(move.components, move.alive, dict(point), move.ties) for move in outcome.tied]
    for move in outcome.fields:
        alive = tuple(u for u in move if not vanishes(move[u].subs(list(point.items()))))
        claims.append(NullField(move, alive, dict(point)))
    report = outcome.report
    if report is not None and not point and not (report.upper_only and report.free):
        fixed = tuple(u for u in problem.unknowns if u not in report.free)
        claims.append(Rank(report.rank, report.free, fixed, report.error))
    if outcome.convex is not None:
        claims.append(Definite(outcome.convex.unknowns, outcome.convex.entries))
    steps: list[tuple[int, FibreClaim]] = []
    for unknown, formula, known in outcome.formulas:
        claim = ReadOff(
            unknown, formula.target, formula.formula, formula.outer, known, formula.divisor, dict(point)
        )
        steps.append((len(known), claim))
    for root in outcome.roots:
        steps.append((len(root.known), _one_root(root)))
    for rise in outcome.increases:
        steps.append(
            (
                len(rise.known),
                Rising(rise.unknown, rise.inner, rise.sign, rise.formula, rise.outer, rise.known),
            )
        )
    claims += [claim for _, claim in sorted(steps, key=lambda pair: pair[0])]
    claims += [Mirrored(change) for _, change in outcome.maps]
    return claims


def _one_root(settled: Settled) -> OneRoot:
    relations = tuple(Relation(q.target, q.a, q.b, q.c) for q in settled.relations)
    steps = tuple((follower, formula.target, formula.formula) for follower, formula in settled.steps)
    summary: dict[Symbol, Expr] = {}
    for part in (*settled.relations, *[formula for _, formula in settled.steps]):
        summary |= part.outer
    return OneRoot(settled.unknown, relations, summary, steps, settled.inequality, settled.known)


def _relabelled(asked: Question, outcome: Outcome) -> list[FibreClaim]:
    """For a mixture: how its components change places; what that moves is LOCAL."""
    rows = asked.components
    if not rows:
        return []
    found: list[FibreClaim] = []
    for i in range(len(rows) - 1):
        claim = next((c for c in _exchanges(i, asked) if c.holds(asked)), None)
        if claim is not None:
            found.append(claim)
    settled = len(found) == len(rows) - 1
    # Where the law is not known completely, a relabelling of what is known of it proves no second solution.
    swaps = [claim for claim in found if isinstance(claim, Relabelled) and claim.change]
    moved = {u for claim in swaps for u in claim.change}
    shown = moved if asked.problem.exhaustive else set()
    for unknown, level in outcome.levels.items():
        if level is Level.GLOBAL and (not settled or unknown in moved):
            outcome.levels[unknown] = Level.LOCAL
            if unknown not in shown and not any(unknown in change for _, change in outcome.maps):
                outcome.at_least.append(unknown)
        elif level is Level.LOCAL and unknown in shown and unknown in outcome.at_least:
            outcome.at_least.remove(unknown)
    if shown:
        outcome.tried = [reason for reason in outcome.tried if outcome.at_least]
        outcome.maps += [("permutation", dict(claim.change)) for claim in swaps]
    return found


def _exchanges(i: int, asked: Question) -> Any:
    yield Relabelled((i, i + 1), {})
    for count, (kind, change) in enumerate(candidates(asked.problem)):
        if count > 400:
            return
        if kind == "permutation":
            yield Relabelled((i, i + 1), change)


def _unsettle(outcome: Outcome, asked: Question) -> None:
    # At a special point components may coincide, and then κ lists more than the law determines.
    for unknown, level in outcome.levels.items():
        if level in (Level.GLOBAL, Level.LOCAL):
            outcome.levels[unknown] = Level.UNKNOWN
    outcome.tried.append("at a special point of a mixture its components may coincide")


def _withdrawn(proof: FibreProof, levels: dict[str, Level]) -> dict[str, Level]:
    """Keep the levels that still follow one by one; the others become UNKNOWN."""
    kept = unknown = dict.fromkeys(levels, Level.UNKNOWN)
    for name, level in levels.items():
        if level is not Level.UNKNOWN and replace(proof, levels={**unknown, name: level}).verify():
            kept = {**kept, name: level}
    return kept


def _verdict(
    model: Model,
    about: str,
    point: Mapping[Symbol, Expr],
    asked: Question,
    outcome: Outcome,
    levels: dict[str, Level],
    proof: FibreProof,
    tried: list[str],
    started: float,
) -> Verdict:
    latents = {s.name for s in asked.problem.latents}
    proved = any(level is not Level.UNKNOWN for level in levels.values())
    fields = [f for f in outcome.fields if any(levels.get(u.name) is Level.PARTIAL for u in f)]
    invariances = [_continuous(move, asked.problem) for move in fields]
    invariances += [_discrete(kind, change, asked.problem) for kind, change in outcome.maps]
    doubts = (
        [
            f"{', '.join(u.name for u in outcome.by_rank)}: by the rank alone, with the doubt that the proof states"
        ]
        if outcome.by_rank
        else []
    )
    unsettled = Level.UNKNOWN in levels.values() or bool(outcome.at_least)
    return Verdict(
        model=model.name,
        about=about,
        scope="at" if point else "generic",
        level=overall(levels.values()),
        latents={name: level for name, level in levels.items() if name in latents},
        parameters={name: level for name, level in levels.items() if name not in latents},
        at_least=tuple(u.name for u in outcome.at_least if levels[u.name] is Level.LOCAL),
        prior_identified=prior_identified(asked.problem, fields) if about == "joint" else (),
        invariances=tuple(invariances),
        identifiable=tuple(_identifiable(asked, outcome)) if proved and not point else (),
        assumptions=tuple(
            dict.fromkeys(
                [
                    *model.notes,
                    *asked.assumptions,
                    *_divisors(asked, outcome),
                    *doubts,
                    *(tried if unsettled else []),
                ]
            )
        ),
        certificate=proof if proved else None,
        seconds=time.perf_counter() - started,
    )


def _divisors(asked: Question, outcome: Outcome) -> list[str]:
    found = []
    for _, formula, _ in outcome.formulas:
        for factor, _ in factored(sympy.fraction(sympy.together(formula.divisor))[0]):
            if factor.is_nonzero is not True and len(sympy.Add.make_args(factor)) <= 4:
                found.append(f"{-factor if factor.could_extract_minus_sign() else factor} != 0")
    return list(dict.fromkeys(found))[:8]


def _continuous(move: Field, problem: Problem) -> Invariance:
    return Invariance(
        kind=kind_of(move, problem.known),
        about=tuple(u.name for u in move),
        generator=field_in_words(move),
        preserves_prior=keeps_prior(move, problem),
    )


def _discrete(kind: str, change: Map, problem: Problem) -> Invariance:
    return Invariance(kind=kind, about=tuple(u.name for u in change), map=map_in_words(change))


def kind_of(move: Field, known: Sequence[Symbol] = ()) -> str:
    """Translation, scaling, rotation, shear or other, by the form of the vector field."""
    symbols = set(move) | set().union(*[e.free_symbols for e in move.values()]) - set(known)
    if not any(e.free_symbols & symbols for e in move.values()):
        return "translation"
    if all((e / u).is_number for u, e in move.items()):
        return "scaling"
    slopes = {(u, v): move.get(u, S.Zero).diff(v) for u in symbols for v in symbols}
    linear = all(not s.free_symbols for s in slopes.values()) and all(
        sympy.expand(e - sympy.Add(*[slopes[u, v] * v for v in symbols])) == 0 for u, e in move.items()
    )
    if not linear:
        return "other"
    if all(slopes[u, v] == -slopes[v, u] for u in symbols for v in symbols):
        return "rotation"
    square = sympy.Matrix([[slopes[u, v] for v in symbols] for u in symbols]) ** 2
    return "shear" if square.is_zero_matrix else "other"


def _identifiable(asked: Question, outcome: Outcome) -> list[str]:
    """Short functions of free unknowns that every field leaves alone and that κ determines by a formula."""
    free = [u for u, level in outcome.levels.items() if level is Level.PARTIAL]
    if not free:
        return []
    entries = [e for e in asked.problem.summary if e.free_symbols & set(free) and sympy.count_ops(e) <= 6]
    found = [str(e) for e in dict.fromkeys(entries)][:8]
    if not outcome.fields or len(free) > _MOST_PAIRS:
        return found
    recovery = Recovery(asked.problem, 3.0)
    for u, v in combinations(free, 2):
        for candidate in (u * v, u / v, u + v, u - v):
            if str(candidate) not in found and all(is_null(move, [candidate]) for move in outcome.fields):
                try:
                    if recovery.find(candidate) is not None:
                        found.append(str(candidate))
                except Unsupported:
                    return found
    return found

"""The zoo's answers about parameters, and about latents and parameters together, against the checker.

Each case is checked once; its levels, lower bounds, invariances, proof and the deficiency of κ are all compared with
what was known beforehand. What the checker leaves open is listed in the case, with a reason, and no longer than it is
open. How a model is written down must not matter either.
"""

from __future__ import annotations

import re

import pytest
import sympy
from sympy import Interval, S, exp

import identkit as ik
from identkit.model.functions import sigmoid
from identkit.model.model import Model
from identkit.symbolic.questions import question
from identkit.symbolic.rank import generic_rank
from identkit.verdict import Level, overall
from identkit.zoo import classical, joint, latents, parameters

CASES = {case.name: case for case in (*parameters.CASES, *joint.CASES)}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@EVERY_CASE
def test_verdict_is_the_known_answer_with_a_proof(case):
    verdict = ik.check(case.build(), about=case.about, at=case.at)
    found = levels_of(verdict)
    assert set(found) == set(case.levels)
    left_open = {name for name, level in found.items() if level == "UNKNOWN"} | set(verdict.at_least)
    assert left_open == set(case.undecided)
    assert {name: level for name, level in found.items() if name not in left_open} == {
        name: level for name, level in case.levels.items() if name not in left_open
    }
    if not left_open:
        assert verdict.level.value == case.level
    # LOCAL as a lower bound leaves room for GLOBAL, and for nothing below.
    assert all(case.levels[name] in ("LOCAL", "GLOBAL") for name in verdict.at_least)
    if set(found.values()) != {"UNKNOWN"}:
        assert verdict.certificate is not None
        assert verdict.certificate.verify()
    kinds = [invariance.kind for invariance in verdict.invariances]
    assert not case.symmetry or case.symmetry in kinds
    assert set(case.prior_identified) == set(verdict.prior_identified)


@pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.deficiency is not None], ids=lambda c: c.name
)
def test_deficiency_of_the_law(case):
    report = generic_rank(question(case.build(), case.about).problem)
    assert report.deficiency == case.deficiency


@EVERY_CASE
def test_entry_is_complete(case):
    assert re.fullmatch(r"[a-z][a-z0-9-]*", case.name)
    assert case.source
    assert case.note
    assert case.about in ("parameters", "joint")
    assert overall(Level[level] for level in case.levels.values()).value == case.level
    assert set(case.undecided) <= set(case.levels)
    assert bool(case.undecided) == bool(case.reason)
    assert (case.deficiency is None) == bool(case.at)


def test_names_are_unique_and_the_zoo_is_large():
    names = [case.name for case in (*classical.CASES, *latents.CASES, *parameters.CASES, *joint.CASES)]
    assert len(names) == len(set(names))
    assert len(CASES) >= 100


def test_a_tenth_of_the_expectations_at_most_is_undecided():
    expected = sum(len(case.levels) for case in CASES.values())
    assert sum(len(case.undecided) for case in CASES.values()) <= expected / 10


def test_gaussian_process_latent_variable_model_with_eight_points():
    # G16: 19/15/4. The zoo's five points have the same four dimensions.
    model = joint.latent_positions(8)
    report = generic_rank(question(model, "joint").problem)
    assert (report.rank, report.deficiency) == (15, 4)
    assert {u.name for u in question(model, "joint").problem.unknowns} - {u.name for u in report.free} == {
        "s",
        "tau",
    }


# The same model, written otherwise

VARIED = (
    "one-factor-two-indicators",
    "one-factor",
    "one-factor-positive",
    "ppca-parameters",
    "twins-acde",
    "mirrored-mixture-centre",
    "binomial-mixture-three-trials",
    "diagnostic-tests-one-population",
    "hidden-markov-chain",
    "autoregression-with-noise",
    "autoregression-with-noise-white",
    "moving-average",
    "moving-average-unit-root",
    "flip-flop",
    "bow",
    "instrument",
    "instrument-irrelevant",
    "errors-in-variables",
    "errors-in-variables-no-slope",
    "deming",
    "bradley-terry",
    "random-effect-repeated",
    "cubic-mean-flat-point",
    "beta-binomial",
    "capture-recapture-four-occasions",
    "occupancy-two-visits",
    "matrix-factorisation",
    "topics-two-words",
)
EVERY_VARIED = pytest.mark.parametrize("case", [CASES[name] for name in VARIED], ids=VARIED)


@EVERY_VARIED
def test_renamed_and_reordered(case):
    model, at = case.build(), case.at
    names = {s: f"q{place}" for place, s in enumerate(reversed(list(model.parameters)))}
    other, moved = rewritten(
        model, {s: (name, lambda u: u, model.parameters[s]) for s, name in names.items()}
    )
    values = {moved[s].name: v for s, v in values_of(model, at).items()}
    verdict = ik.check(other, about=case.about, at=values)
    assert {s.name: verdict.parameters[names[s]].value for s in model.parameters} == case.levels


@EVERY_VARIED
def test_shifted_and_stretched(case):
    # u = 3 v - 2, or u = 3/2 v on a half-line, or u = 1 - v on the unit interval.
    model, at = case.build(), case.at
    changes = {}
    for s, domain in model.parameters.items():
        if domain == S.Reals:
            changes[s] = (s.name, lambda v: 3 * v - 2, domain)
        elif domain == Interval.open(0, S.Infinity):
            changes[s] = (s.name, lambda v: v * sympy.Rational(3, 2), domain)
        elif domain == Interval.open(0, 1):
            changes[s] = (s.name, lambda v: 1 - v, domain)
        else:
            changes[s] = (s.name, lambda v: v, domain)
    other, moved = rewritten(model, changes)
    values = {
        moved[s].name: sympy.solve(changes[s][1](moved[s]) - v, moved[s])[0]
        for s, v in values_of(model, at).items()
    }
    assert levels_of(ik.check(other, about=case.about, at=values)) == case.levels


@pytest.mark.parametrize(
    "name",
    [
        "one-factor-two-indicators",
        "one-factor",
        "one-factor-positive",
        "autoregression-with-noise",
        "errors-in-variables",
        "bradley-terry",
        "random-effect-repeated",
        "parameter-expansion",
        "capture-recapture-four-occasions",
        "occupancy-two-visits",
        "michaelis-menten",
    ],
)
def test_on_a_logarithmic_scale(name):
    # u = exp(v) on a half-line, u = sigmoid(v) on the unit interval: strictly increasing, so no level changes.
    case = CASES[name]
    model = case.build()
    changes = {}
    for s, domain in model.parameters.items():
        if domain == Interval.open(0, S.Infinity):
            changes[s] = (s.name, exp, S.Reals)
        elif domain == Interval.open(0, 1):
            changes[s] = (s.name, sigmoid, S.Reals)
        else:
            changes[s] = (s.name, lambda v: v, domain)
    other, _ = rewritten(model, changes)
    assert levels_of(ik.check(other, about=case.about)) == case.levels


@EVERY_VARIED
def test_told_twice_in_other_units(case):
    model = case.build()
    if model.summaries:
        model.summaries += [sympy.Rational(3, 7) * e for e in reversed(model.summaries)]
    else:
        # A second row of data, with latents of its own, says what the first one says.
        state = {}
        for place, statement in enumerate(list(model.latents)):
            family = inserted(statement.family, state)
            drawn = model.latent(f"again{place}", family)
            state |= dict(
                zip(statement.symbols, [drawn] if len(statement.symbols) == 1 else list(drawn), strict=True)
            )
        for place, statement in enumerate(list(model.observations)):
            model.observe(f"copy{place}", inserted(statement.family, state))
    assert levels_of(ik.check(model, about=case.about, at=case.at)) == case.levels


def levels_of(verdict):
    return {name: level.value for name, level in {**verdict.latents, **verdict.parameters}.items()}


def values_of(model, at):
    return model.resolve(at, "at", tuple(model.parameters)) if at else {}


def inserted(family, state):
    return family.map(lambda e: e.subs(state, simultaneous=True))


def rewritten(model, changes):
    """The model in other parameters: for each of the old ones a new name, the old one as a function, and a domain."""
    other = Model("rewritten")
    moved = {}
    for old, (name, _, domain) in sorted(changes.items(), key=lambda pair: pair[1][0]):
        moved[old] = other.parameter(name, domain=domain)
    state = {old: function(moved[old]) for old, (_, function, _) in changes.items()}
    state |= {old: other.known(old.name, domain=domain) for old, domain in model.knowns.items()}
    for constraint in model.constraints:
        other.constraint(constraint.expression.subs(state, simultaneous=True), constraint.relation)
    for place, statement in enumerate(model.latents):
        drawn = other.latent(f"u{place}", inserted(statement.family, state))
        state |= dict(
            zip(statement.symbols, [drawn] if len(statement.symbols) == 1 else list(drawn), strict=True)
        )
    for place, statement in enumerate(model.observations):
        other.observe(f"v{place}", inserted(statement.family, state))
    other.summary([e.subs(state, simultaneous=True) for e in model.summaries])
    return other, moved

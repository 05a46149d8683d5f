"""Fibre counts against the literature's (known_answers.md, check C); where Singular is missing, that nothing is counted."""

from __future__ import annotations

import pytest
from sympy import symbols

import identkit as ik
from identkit.symbolic import fibre_count as module
from identkit.symbolic.fibre_count import fibre_count, singular
from identkit.symbolic.problem import Problem
from identkit.symbolic.questions import question
from identkit.zoo import CASES

# Known counts are in variances; a standard deviation doubles them.
COUNTS = {
    "one-factor": 2 * 2**3,
    "normal-mixture-five-moments": 18,
    "normal-mixture-six-moments": 2,
    "binomial-mixture-three-trials": 2,
    "latent-class-three-items": 2,
    "latent-class-four-items": 2,
    "diagnostic-tests": 2,
    "hidden-markov-chain": 2,
    "moving-average": 2,
    "flip-flop": 2,
    "three-cycle": 2,
    "deming": 2 * 2**2,
    "occupancy-two-visits": 1,
    "block-model-four-nodes": 2,
}


@pytest.mark.skipif(singular() is None, reason="needs Singular: pip install identkit[algebra]")
@pytest.mark.parametrize("name", COUNTS)
def test_the_known_count(name):
    assert fibre_count(question(CASES[name].build(), "parameters").problem, 30.0) == COUNTS[name]


def test_no_count_without_singular(monkeypatch):
    monkeypatch.setattr(module, "singular", lambda: None)
    assert fibre_count(question(CASES["moving-average"].build(), "parameters").problem) is None


def test_no_count_of_what_is_not_rational_or_not_finite():
    u, v = symbols("u v", real=True)
    assert fibre_count(Problem((u, v), {}, (u * v,))) is None
    assert fibre_count(question(ik.parse("observe x ~ Normal(sin(u), 1)"), "parameters").problem) is None


def test_the_count_is_told_where_levels_are_open(monkeypatch):
    from identkit.symbolic import parameters

    monkeypatch.setattr(parameters, "fibre_count", lambda problem, seconds: 3)
    case = CASES["factor-analysis-ledermann"]
    quintic = "parameter u; summary u^5 - 3*u^2 + u"
    told = [a for a in ik.check(quintic).assumptions if "counts 3 complex solutions" in a]
    assert told and ik.check(quintic).at_least == ("u",)
    assert not [a for a in ik.check(case.build(), about="parameters").assumptions if "complex" in a]

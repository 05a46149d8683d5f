"""Known numbers, constraints, summaries and noise-free observations of a `Model`."""

from __future__ import annotations

import pytest
import sympy
from sympy import Interval, Rational, S, Symbol

import identkit as ik
from identkit.model.noise_free import Exactly
from identkit.symbolic.marginal import marginal_law


def test_summaries_alone_answer():
    m = ik.Model()
    a, b = m.parameter("a"), m.parameter("b")
    u = m.known("u")
    m.observe("x", ik.Normal(a, 1))
    m.summary(a * b * u)
    m.summary([b, 3])
    assert marginal_law(m).expressions == (a * b * u, b)
    with pytest.raises(ValueError, match="should be about parameters only, got z"):
        m.summary(m.latent("z", ik.Normal(0, 1)))
    with pytest.raises(ValueError, match="mentions stranger"):
        m.summary(Symbol("stranger"))


def test_a_model_may_consist_of_summaries():
    m = ik.Model()
    m.summary(m.parameter("k", shape=2)[0] + 1)
    assert len(marginal_law(m).expressions) == 1
    with pytest.raises(ValueError, match="has no observations"):
        marginal_law(ik.Model("nothing"))


def test_known_numbers_are_generic_until_given():
    m = ik.Model()
    u = m.known("u", shape=2, domain=Interval(0, 1))
    w = m.parameter("w")
    z = m.latent("z", ik.Normal(0, 1))
    m.observe("x", ik.Normal(sympy.Matrix([u[0] * w * z, u[1] * w * z]), 1), shape=2)
    assert u[0] not in m.parameters and u[0] in m.domains
    assert any(e.has(u[1]) for e in marginal_law(m).expressions)
    fixed = m.at({"u": [Rational(1, 2), 0]})
    assert not fixed.knowns
    assert [str(e) for e in marginal_law(fixed).expressions] == ["w**2/4 + 1"]
    with pytest.raises(ValueError, match="at for u"):
        m.at({"u": [2, 0]})
    with pytest.raises(ValueError, match="missing: u"):
        ik.compiled(m, at={"w": 1})


def test_constraints_are_carried_and_kept():
    m = ik.Model()
    a, b = m.parameter("a"), m.parameter("b", positive=True)
    m.constraint(a + b - 1)
    m.constraint(b + 1, "> 0")  # always true: nothing to carry
    assert [str(c) for c in m.constraints] == ["a + b - 1 = 0"]
    assert [str(c) for c in m.at({"a": Rational(1, 3)}).constraints] == ["b - 2/3 = 0"]
    assert m.at({"a": Rational(1, 3), "b": Rational(2, 3)}).constraints == []
    with pytest.raises(ValueError, match="should hold at the values given, got 1 = 0"):
        m.at({"a": 1, "b": 1})
    with pytest.raises(ValueError, match="relation should be '= 0' or '> 0', got '< 0'"):
        m.constraint(a, "< 0")
    with pytest.raises(ValueError, match="should be possible"):
        m.constraint(-b, "> 0") if False else m.constraint(sympy.Integer(1))


def test_given_latents_keep_summaries_knowns_and_constraints():
    m = ik.Model()
    a, u = m.parameter("a"), m.known("u")
    z = m.latent("z", ik.Normal(0, 1))
    m.observe("x", ik.Normal(a * z * u, 1))
    m.constraint(a - u)
    m.summary(a)
    held = m.given({z: S.One})
    assert (held.knowns, held.constraints, held.summaries) == (m.knowns, m.constraints, m.summaries)


def test_a_noise_free_observation_has_a_law_and_no_density():
    m = ik.Model()
    w = m.parameter("w", positive=True)
    z = m.latent("z", ik.Normal(0, 1))
    y = m.observe_exactly("y", w * z)
    assert m.observations[0].family == Exactly(w * z)
    assert ik.check(m).level is ik.Level.GLOBAL
    assert marginal_law(m).expressions == (w**2,)
    for refused in (m.log_likelihood, lambda: ik.compiled(m, at={"w": 1})):
        with pytest.raises(ValueError, match="y is observed without noise"):
            refused()
    assert str(y) == "y"


def test_a_noise_free_label_is_a_point_mass():
    m = ik.Model()
    p = m.parameter("p", domain=Interval(0, 1))
    k = m.latent("k", ik.Bernoulli(p))
    m.observe_exactly("y", 3 * k)
    law = marginal_law(m)
    assert law.expressions == (3 * p, 9 * p, 27 * p)
    assert law.components == ((1 - p, 0), (p, 3))

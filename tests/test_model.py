"""Declaring a model: names, shapes, supports, values of parameters, and a message for every mistake."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch
from sympy import FiniteSet, Interval, Range, Rational, S, Symbol

from identkit.model.elements import element_names
from identkit.model.families import Bernoulli, Beta, Binomial, Categorical, Mixture, MvNormal, Normal, Poisson
from identkit.model.model import Model, constant
from identkit.model.statement import marginal


def ppca():
    model = Model("ppca")
    weights = model.parameter("W", shape=(2, 2))
    s = model.parameter("s", positive=True)
    z = model.latent("z", Normal(0, 1), shape=2)
    model.observe("x", Normal(weights * sympy.Matrix(z), s), shape=2)
    return model


def test_names_are_one_based_and_python_indices_zero_based():
    model = ppca()
    assert model.latent_names == ("z[1]", "z[2]") and model.observation_names == ("x[1]", "x[2]")
    assert [s.name for s in model.parameters] == ["W[1,1]", "W[1,2]", "W[2,1]", "W[2,2]", "s"]
    assert element_names("W", (2, 3))[3] == "W[2,1]"


def test_elements_of_a_vector_draw_independently_with_their_own_arguments():
    model = ppca()
    means = [statement.family.arguments[0] for statement in model.observations]
    w, z = [s for s in model.parameters if s.name.startswith("W")], model.latent_symbols
    assert means == [w[0] * z[0] + w[1] * z[1], w[2] * z[0] + w[3] * z[1]]


def test_log_likelihood_and_prior_are_the_sums_of_the_statements():
    model = Model()
    z = model.latent("z", Normal(0, 1))
    x = model.observe("x", Normal(z, 2))
    point = {z: Rational(1, 2), x: 3}
    assert float(model.log_prior().subs(point)) == pytest.approx(-0.125 - 0.5 * math.log(2 * math.pi))
    assert float(model.log_likelihood().subs(point)) == pytest.approx(
        -0.5 * 1.25**2 - math.log(2) - 0.5 * math.log(2 * math.pi)
    )


def test_assumptions_of_symbols_are_those_of_their_domains():
    model = Model()
    assert model.parameter("a", positive=True).is_positive
    assert model.parameter("b").is_real and model.parameter("b2").is_positive is None
    assert model.parameter("n", domain=Range(1, 4)).is_integer
    assert model.parameter("m", domain=Interval(-2, -1)).is_negative
    assert model.parameter("c", domain=Interval(0, 1)).is_nonnegative
    assert model.latent("p", Beta(1, 1)).is_positive
    assert model.latent("k", Poisson(1)).is_integer


@pytest.mark.parametrize(
    ("family", "support"),
    [
        (Normal(0, 1), S.Reals),
        (Beta(1, 2), Interval.open(0, 1)),
        (Bernoulli(Rational(1, 2)), FiniteSet(0, 1)),
        (Categorical(Rational(1, 2), Rational(1, 2)), Range(1, 3)),
        (Binomial(3, Rational(1, 2)), Range(0, 4)),
        (Poisson(2), S.Naturals0),
        (Poisson(0), FiniteSet(0)),
        (Mixture([Rational(1, 2)] * 2, Binomial(2, 0), Binomial(5, Rational(1, 2))), Range(0, 6)),
    ],
    ids=str,
)
def test_supports(family, support):
    model = Model()
    assert model.support(model.latent("z", family)) == support


def test_a_count_bounded_by_a_finite_latent_is_finite():
    model = Model()
    m = model.latent("m", Binomial(3, Rational(1, 2)))
    assert model.support(model.latent("k", Binomial(m, Rational(1, 2)))) == Range(0, 4)
    n = model.latent("n", Poisson(1))
    assert model.support(model.latent("l", Binomial(n, Rational(1, 2)))) == S.Naturals0


def test_fixing_parameters():
    model = ppca()
    fixed = model.at({"W": [[1, 0], [0, "1/3"]], "s": 0.1})
    assert not fixed.parameters and fixed.latent_names == model.latent_names
    assert fixed.observations[1].family == Normal(Rational(1, 3) * fixed.latent_symbols[1], Rational(1, 10))
    assert model.at({"W[1,1]": 2}).observations[0].family.arguments[0].coeff(model.latent_symbols[0]) == 2
    assert len(model.parameters) == 5, "the model itself is left as it was"


def test_keys_may_be_symbols_and_values_arrays():
    model = ppca()
    w, s = next(iter(model.parameters)), Symbol("s", positive=True)
    fixed = model.at({w: np.float64(0.5), s: torch.tensor(2.0)})
    assert [p.name for p in fixed.parameters] == ["W[1,2]", "W[2,1]", "W[2,2]"]
    array = model.at({"W": np.eye(2), "s": 1})
    assert array.observations[0].family.arguments[0] == array.latent_symbols[0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"q": 1}, r"at names 'q', which is none of: W\[1,1\]"),
        ({"z[1]": 1}, r"at names 'z\[1\]', which is none of"),
        ({"W": [1, 2, 3]}, r"at for W should have 4 value\(s\), got 3"),
        ({"s": -1}, "at for s should be positive, got -1"),
        ({"s": 0}, "at for s should be positive, got 0"),
        ({"s": math.nan}, "at for s should be finite, got nan"),
        ({"s": math.inf}, "at for s should be finite, got inf"),
        ({"s": Symbol("y")}, "at for s should be a constant, got y"),
        ({"s": sympy.I}, "at for s should be a real number, got I"),
    ],
)
def test_bad_values_of_parameters_are_named(values, words):
    with pytest.raises(ValueError, match=words):
        ppca().at(values)


def test_a_value_that_makes_a_constant_argument_impossible_is_refused():
    model = Model()
    a = model.parameter("a")
    model.latent("z", Normal(0, 1))
    model.observe("x", Normal(0, a + 1))
    with pytest.raises(ValueError, match=r"x: Normal's sd should be positive, got -1"):
        model.at({"a": -2})


def test_holding_latents():
    model = Model()
    k = model.latent("k", Bernoulli(Rational(1, 2)))
    z = model.latent("z", Normal(k, 1))
    model.observe("x", Normal(k * z, 1))
    held = model.given({k: sympy.Integer(1)})
    assert held.latent_names == ("z",) and held.latents[0].family == Normal(1, 1)
    assert held.observations[0].family == Normal(z, 1)


def test_marginal_of_a_multivariate_normal_drops_coordinates():
    model = Model()
    model.latent("z", Normal(0, 1))
    model.observe("x", MvNormal([1, 2, 3], [[4, 1, 0], [1, 5, 2], [0, 2, 6]]))
    (statement,) = model.observations
    kept = marginal(statement, [True, False, True])
    assert kept.family == MvNormal([1, 3], [[4, 0], [0, 6]]) and [s.name for s in kept.symbols] == [  # pyright: ignore[reportOptionalMemberAccess]
        "x[1]",
        "x[3]",
    ]
    assert marginal(statement, [True] * 3) is statement and marginal(statement, [False] * 3) is None


def test_conditions_are_what_assumptions_do_not_settle():
    model = Model()
    w = model.parameter("w")
    s = model.parameter("s", positive=True)
    p = model.latent("p", Beta(1, 1))
    z = model.latent("z", Normal(0, s))
    model.observe("x", Normal(z, sympy.exp(z)))
    model.observe("y", Bernoulli(p / 2))
    model.observe("u", Normal(0, w))
    assert [str(c) for c in model.conditions()] == ["w > 0 (the sd of u)"]


@pytest.mark.parametrize(
    ("declare", "error", "words"),
    [
        (lambda m: m.parameter("2a"), ValueError, "a name should be a letter or underscore"),
        (lambda m: (m.parameter("a"), m.parameter("a")), ValueError, "a is declared already"),
        (
            lambda m: (m.latent("a", Normal(0, 1)), m.observe("a", Normal(0, 1))),
            ValueError,
            "a is declared already",
        ),
        (lambda m: m.parameter("a", domain=S.EmptySet), ValueError, "a's domain should not be empty"),
        (
            lambda m: m.parameter("a", shape=0),
            ValueError,
            "shape should be one or two positive whole numbers",
        ),
        (
            lambda m: m.parameter("a", shape=(1, 2, 3)),
            ValueError,
            "shape should be one or two positive whole numbers",
        ),
        (lambda m: m.latent("z", 3), TypeError, "family"),
        (
            lambda m: m.latent("z", Normal(Symbol("q"), 1)),
            ValueError,
            "mentions q, which this model does not declare",
        ),
        (
            lambda m: m.observe("y", Normal(m.observe("x", Normal(0, 1)), 1)),
            ValueError,
            "mentions the observation x",
        ),
        (
            lambda m: m.latent("z", Normal(sympy.Matrix([0, 1]), 1), shape=3),
            ValueError,
            "should have 3 elements, got 2",
        ),
        (
            lambda m: m.latent("z", MvNormal([0, 0], [[1, 0], [0, 1]]), shape=3),
            ValueError,
            "last axis should have the 2",
        ),
        (lambda m: (m.parameter("a[1]"), m.parameter("a[1]")), ValueError, r"a\[1\] is declared already"),
        (lambda m: m.parameter("a[0]"), ValueError, "one or two indices from 1 on"),
        (lambda m: (m.define("d", 3), m.parameter("d")), ValueError, "d is declared already"),
        (lambda m: m.support(Symbol("q")), ValueError, "q should be one of the latents"),
    ],
)
def test_mistakes_in_declarations_are_named(declare, error, words):
    with pytest.raises(error, match=words):
        declare(Model())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1/3", Rational(1, 3)),
        ("sqrt(4/3*log(4))", sympy.sqrt(Rational(4, 3) * sympy.log(4))),
        (0.1, Rational(1, 10)),
        (7, 7),
    ],
)
def test_constants_are_exact(value, expected):
    assert sympy.simplify(constant(value, "x") - expected) == 0


def test_printing_a_model_gives_its_text_back():
    from identkit.model.language import parse

    model = ppca()
    again = parse(str(model))
    assert str(again) == str(model) and again.latent_names == model.latent_names
    assert repr(model) == "<Model 'ppca': latents z[1], z[2]; data x[1], x[2]>"

"""`marginal_law`: the rows of known_answers.md, what mixtures determine, what is refused, and speed.

The laws themselves are held against brute force in test_marginal_laws.py.
"""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
import sympy
from brute_force import Kappa, exact_rank, float_rank, made, random_point
from marginal_models import KNOWN, SPECIAL, classes, markov, poisson_gamma
from sympy import Interval, Rational, S, Symbol

import identkit as ik
from identkit.model.families import Beta
from identkit.symbolic.blocks import blocks
from identkit.symbolic.expectation import expectation
from identkit.symbolic.marginal import marginal_law
from identkit.symbolic.multiset import Atom, mixing_law, power_sums
from identkit.symbolic.tables import table


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers(name):
    model, unknowns, rank = KNOWN[name]
    model = made(model)
    law = marginal_law(model)
    assert law.exhaustive
    assert len(model.parameters) == unknowns
    assert exact_rank(law.local, random_point(model, seed=5)) == rank


@pytest.mark.parametrize(("name", "values", "rank"), [s[1:] for s in SPECIAL], ids=[s[0] for s in SPECIAL])
def test_known_answers_at_special_points(name, values, rank):
    """There the rank of κ drops just as the rank of the law does, for κ is exhaustive without exception."""
    model = made(KNOWN[name][0])
    point = random_point(model, seed=5)
    point |= {s: sympy.sympify(values[s.name]) for s in point if s.name in values}
    assert exact_rank(marginal_law(model).expressions, point) == rank


def test_covariances_that_vanish_and_blocks_that_fall_apart():
    model = ik.parse(
        "z[2] ~ Normal(0, 1); u ~ Normal(0, t); observe x ~ Normal(w*z[1], s); observe y ~ Normal(w*z[2], s)"
    )
    assert [block.symbols for block in blocks(model)] == [model.latent_symbols[:1], model.latent_symbols[1:2]]
    (variance,) = marginal_law(model).expressions
    assert str(variance) == "s**2 + w**2"


def test_a_singular_normal_law_is_its_covariance_too():
    m = ik.Model()
    w, t = m.parameter("w"), m.parameter("t", positive=True)
    z = m.latent("z", ik.Normal(0, t))
    m.observe_exactly("x", sympy.Matrix([z, w * z]))
    assert set(map(str, marginal_law(m).expressions)) == {"t**2", "t**2*w", "t**2*w**2"}


def test_the_state_left_out_is_the_one_that_follows():
    law = marginal_law(ik.parse("k ~ Bernoulli(w); observe x ~ Categorical(1 - p*k - q, p*k, q)"))
    assert set(map(str, law.expressions)) == {"p*w", "q"}


def test_latents_that_the_data_do_not_depend_on_take_their_parameters_along():
    model = ik.parse("k ~ Bernoulli(w); z ~ Normal(k*c, 1); observe x ~ Bernoulli(p)")
    assert marginal_law(model).expressions == (Symbol("p", nonnegative=True),)


def test_a_label_without_effect_is_summed_out_exactly():
    law = marginal_law(ik.parse("k ~ Bernoulli(q); observe x ~ Normal(m*(k^2 - k), s)"))
    assert [str(e) for e in law.expressions] == ["s**2"]
    assert law.exhaustive


# Mixtures


def test_one_condition_for_each_way_to_lose_a_component():
    law = marginal_law(ik.parse("observe y ~ Mixture([p, 1 - p], Normal(m1, 2), Normal(m2, 2))"))
    assert set(map(str, itertools.chain(*law.conditions))) == {"p", "p - 1", "m1 - m2"}
    assert law.assumptions == ()  # the moments need none
    assert not law.needs_components


def test_a_hidden_markov_model_with_normal_emissions():
    law = marginal_law(
        ik.parse(markov(3, emission=("Normal(select(k[{t}], m1, m2), select(k[{t}], s1, s2))",)))
    )
    assert law.exhaustive and law.needs_components
    assert len(law.components) == 8
    assert sympy.simplify(sum(row[0] for row in law.components) - 1) == 0
    assert set(law.assumptions) == {
        "a != 0", "a - 1 != 0", "b != 0", "b - 1 != 0", "m1 - m2 != 0 or (s1 - s2)*(s1 + s2) != 0",
    } or any("m1 - m2" in a and " or " in a for a in law.assumptions)  # fmt: skip
    model = ik.parse(markov(3, emission=("Normal(select(k[{t}], m1, m2), select(k[{t}], s1, s2))",)))
    assert exact_rank(law.local, random_point(model, 4)) == 6


def test_states_of_a_label_with_one_law_are_merged():
    law = marginal_law(
        ik.parse("k ~ Categorical(u, v, 1 - u - v); observe x ~ Normal(select(k, a, b, a), 1)")
    )
    assert len(law.components) == 2
    assert {str(sympy.simplify(row[0])) for row in law.components} == {"1 - v", "v"}


def test_a_random_weight_counts_by_its_mean():
    model = ik.parse("a ~ Beta(b, 3); observe y ~ Mixture([a, 1 - a], Normal(m, 1), Normal(n, 1))")
    law = marginal_law(model)
    b = next(s for s in model.parameters if s.name == "b")
    assert sympy.simplify(law.components[0][0] - b / (b + 3)) == 0
    assert law.exhaustive


@pytest.mark.parametrize(
    "text",
    [
        "observe y ~ Mixture([p, 1 - p], Beta(a, b), Beta(c, d))",
        "observe y ~ Mixture([p, 1 - p], Uniform(0, b), Uniform(0, d))",
        "observe y ~ Mixture([p, 1 - p], StudentT(3, m, s), StudentT(4, m, s))",
        "z ~ Exponential(1); observe x ~ Normal(w*z, s)",
        "z ~ Cauchy(0, 1); observe x ~ Normal(w*z, s)",
        "a ~ Beta(u, v); observe x ~ Normal(a, s); observe y ~ Mixture([a, 1-a], Normal(m, 1), Normal(n, 1))",
        "z ~ Normal(0, t); observe x ~ Normal(z, exp(z))",
        "z ~ Normal(0, t); observe x ~ Normal(z^2, s)",
        "z ~ Poisson(r); observe x ~ Normal(z, s)",
        "z ~ Normal(0, t); observe x ~ Bernoulli(sigmoid(z))",
        "z ~ Beta(a, b); observe x ~ Poisson(z)",
        "z ~ Beta(a, b); k ~ Bernoulli(z); observe x ~ Normal(k*m, s); observe y ~ Bernoulli(z)",
        "k ~ Bernoulli(p); z ~ Normal(0, 1); observe x ~ Normal(select(k + 1, m, n), exp(z*t))",
    ],
)
def test_where_no_theorem_applies_the_missing_integral_is_named(text):
    law = marginal_law(ik.parse(text))
    assert not law.exhaustive
    assert "integral" in law.incomplete and " over " in law.incomplete


def test_beta_components_are_not_identifiable_indeed():
    """Beta(1, 2)/2 + Beta(2, 1)/2 = Beta(1, 1): the reason for the refusal above."""
    t = Symbol("t", positive=True)
    halves = [sympy.exp(Beta(a, b).log_density(t)) / 2 for a, b in ((1, 2), (2, 1))]
    assert sympy.simplify(sympy.gammasimp(sum(halves)) - 1) == 0


def test_power_sums_separate_multisets_and_nothing_else():
    chance = random.Random(0)
    names = sympy.symbols("a0:3 b0:3")
    rows = list(zip(names[:3], names[3:], strict=True))
    sums = sympy.lambdify(names, power_sums(rows))
    for _ in range(200):
        one = [(chance.randint(0, 2), chance.randint(0, 2)) for _ in range(3)]
        two = [(chance.randint(0, 2), chance.randint(0, 2)) for _ in range(3)]
        flat = lambda r: [a for a, _ in r] + [b for _, b in r]
        assert (list(sums(*flat(one))) == list(sums(*flat(two)))) == (sorted(one) == sorted(two))


def test_power_sums_go_up_to_the_number_of_rows():
    one, two = [(0,), (4,), (5,)], [(1,), (2,), (6,)]  # of equal sum and equal sum of squares
    as_numbers = [power_sums([tuple(map(sympy.Integer, row)) for row in rows]) for rows in (one, two)]
    assert as_numbers[0] != as_numbers[1]


def test_mixing_moments_separate_mixing_measures_and_nothing_else():
    w, c, d = sympy.symbols("w c d")
    law = mixing_law([Atom(w, ((c,),)), Atom(1 - w, ((d,),))], {w: S.Reals, c: S.Reals, d: S.Reals})
    points = list(itertools.product([Rational(i, 2) for i in range(3)], range(3), range(3)))
    for one, two in itertools.combinations(points, 2):
        same = measure(one) == measure(two)
        values = [[m.subs({w: p[0], c: p[1], d: p[2]}) for m in law.moments or ()] for p in (one, two)]
        assert same == (values[0] == values[1])


def measure(point):
    w, c, d = point
    total = {}
    for weight, place in ((w, c), (1 - w, d)):
        total[place] = total.get(place, 0) + weight
    return {place: weight for place, weight in total.items() if weight}


# Compound laws


def test_counts_that_share_a_gamma_rate():
    model = poisson_gamma(2)
    law = marginal_law(model)
    assert [str(e) for e in law.expressions] == ["a", "r0/b", "r1/b"]
    zero_inflated = ik.Model()
    q, r = zero_inflated.parameter("q", domain=Interval(0, 1)), zero_inflated.parameter("r", positive=True)
    a = zero_inflated.parameter("a", positive=True)
    k = zero_inflated.latent("k", ik.Bernoulli(q))
    z = zero_inflated.latent("z", ik.Gamma(a, 1))
    zero_inflated.observe("x", ik.Poisson(r * k * z))
    law = marginal_law(zero_inflated)
    assert law.exhaustive
    assert exact_rank(law.local, random_point(zero_inflated, 1)) == 3
    # The weighted moments of (a r, a r²) under q, with the atom (0, 0) for k = 0.
    assert sympy.simplify(law.expressions[0] - q * a * r) == 0


@pytest.mark.parametrize(
    ("text", "unknowns", "rank"),
    [
        ("z ~ Gamma(a, b); observe x ~ Exponential(r*z)", 3, 2),
        ("z ~ Gamma(a, b); observe x ~ Exponential(r*z); observe y ~ Poisson(z)", 3, 3),
        ("z ~ Exponential(a); observe x ~ Normal(m, s*sqrt(z))", 3, 2),
        ("z ~ InverseGamma(a, b); observe x ~ Normal(m, s*sqrt(z))", 4, 3),
        ("z ~ LogNormal(m, s); observe x ~ Poisson(2*z)", 2, 2),
        ("z ~ LogNormal(m, s); observe x ~ Poisson(2*z^c)", 3, 2),
        ("z ~ Normal(0, t); observe x ~ LogNormal(z, s)", 2, 1),
        ("observe x ~ Mixture([p, 1 - p], Exponential(a), Exponential(b))", 3, 3),
        ("observe x ~ Mixture([p, 1 - p], Gamma(a, b), Gamma(c, d))", 5, 5),
        ("observe x ~ Mixture([p, 1 - p], LogNormal(a, b), LogNormal(c, d))", 5, 5),
        ("observe x ~ Mixture([p, 1 - p], Laplace(a, b), Laplace(c, d))", 5, 5),
        ("observe x ~ Mixture([p, 1 - p], NegativeBinomial(a, b), NegativeBinomial(c, d))", 5, 5),
        ("observe x ~ Mixture([p, 1 - p], Geometric(a), Geometric(b))", 3, 3),
        ("theta[3] ~ Dirichlet(a, b, c); observe x ~ Multinomial(1, theta)", 3, 2),
        ("theta[3] ~ Dirichlet(a, b, c); observe x ~ Multinomial(2, theta)", 3, 3),
        ("z ~ Uniform(0, 1); observe x ~ Binomial(3, a*z)", 1, 1),
    ],
)
def test_compound_laws_of_further_families(text, unknowns, rank):
    model = ik.parse(text)
    law = marginal_law(model)
    assert law.exhaustive
    assert len(model.parameters) == unknowns
    theta = np.array([float(v) for v in random_point(model, seed=7).values()])
    assert float_rank(Kappa(law.expressions, model.parameters).jacobian(theta)) == rank


def test_different_powers_of_one_gamma_are_no_scale_family():
    m = ik.Model()
    a = m.parameter("a", positive=True)
    z = m.latent("z", ik.Gamma(a, 1))
    m.observe("x", ik.Poisson(z))
    m.observe("y", ik.Poisson(z**2))
    law = marginal_law(m)
    assert not law.exhaustive
    assert a in law.expressions  # from the law of x alone


def test_a_rate_that_may_be_zero_does_not_give_its_shape_away():
    m = ik.Model()
    r, a = m.parameter("r", domain=Interval(0, S.Infinity)), m.parameter("a", positive=True)
    z = m.latent("z", ik.Gamma(a, 1))
    m.observe("x", ik.Poisson(r * z))
    kappa = marginal_law(m).expressions
    assert [e.subs(r, 0) for e in kappa] == [0, 0]
    assert exact_rank(kappa, random_point(m, 1)) == 2


# What is known where the law is not


def test_what_the_law_determines_though_it_is_not_known():
    """Exact moments of z² + noise, and the law of the observation beside it that is covered."""
    model = ik.parse("z ~ Normal(m, t); observe x ~ Normal(z^2, s); observe y ~ Normal(z, 1)")
    law = marginal_law(model)
    assert "the law of y" in law.incomplete
    values = {"m": 0.3, "t": 0.7, "s": 0.5}
    numbers = {e.subs({s: values[s.name] for s in model.parameters}) for e in law.expressions}
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z, w = 0.3 + 0.7 * nodes, weights / weights.sum()
    for moment in (w @ z**2, w @ (z**4 + 0.25), w @ z**3, w @ (z**6 + 3 * 0.25 * z**2)):
        assert any(abs(float(n) - moment) < 1e-10 for n in numbers)
    assert exact_rank(law.expressions, random_point(model, 1)) == 3


def test_too_large_a_table_gives_its_low_order_margins():
    model = ik.parse(classes(14, 2))
    law = marginal_law(model)
    assert not law.exhaustive
    theta = np.array([float(v) for v in random_point(model, 3).values()])
    # Full rank: margins up to order 3 prove the 29 unknowns locally identifiable, though the law is not
    # written out.
    assert float_rank(Kappa(law.expressions, model.parameters).jacobian(theta)) == 29


def test_a_long_hidden_chain_is_refused_not_written_out():
    started = time.perf_counter()
    law = marginal_law(ik.parse(markov(30)))
    assert not law.exhaustive
    assert time.perf_counter() - started < 5


# Speed


def test_factor_analysis_is_fast():
    model = ik.Model()
    w = model.parameter("W", shape=(20, 5))
    s = model.parameter("s", shape=20, positive=True)
    z = model.latent("z", ik.Normal(0, 1), shape=5)
    model.observe("x", ik.Normal(w * z, s), shape=20)
    started = time.perf_counter()
    law = marginal_law(model)
    assert time.perf_counter() - started < 0.5
    assert len(law.expressions) == 210


def test_latent_classes_are_fast():
    model = ik.parse(classes(5, 4))
    started = time.perf_counter()
    law = marginal_law(model)
    assert time.perf_counter() - started < 0.5
    assert len(law.expressions) == 31


def test_tables_refuse_what_is_not_finite():
    (block,) = blocks(ik.parse("k ~ Bernoulli(p); observe x ~ Poisson(k)"))
    assert table(block) is None
    assert marginal_law(ik.parse("k ~ Bernoulli(p); observe x ~ Poisson(k)")).exhaustive


def test_an_expectation_that_is_no_polynomial_is_not_taken():
    model = ik.parse("z ~ Normal(0, 1); observe x ~ Normal(z, 1)")
    (z,) = model.latent_symbols
    assert expectation(sympy.exp(z), model.latents) is None
    assert expectation(z**4, model.latents) == 3

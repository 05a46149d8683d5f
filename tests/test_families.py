"""Every family against SciPy, against its own exponential form, and its torch face against ball arithmetic."""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest
import scipy.stats as stats
import sympy
import torch
from scipy.integrate import quad
from sympy import Integer, Rational, Symbol

from identkit.model.balls import ball, run
from identkit.model.compiled import compiled
from identkit.model.families import (
    FAMILIES,
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Mixture,
    MvNormal,
    Normal,
    Poisson,
    exact,
)
from identkit.model.model import Model
from identkit.model.tape import Tape

HALF, THIRD = Rational(1, 2), Rational(1, 3)
COV = [[2, HALF], [HALF, 1]]
WEIGHTS = [Rational(1, 4), Rational(3, 4)]

# name: family, its SciPy twin, points of the support
CASES = {
    "normal": (Normal(Rational(-3, 2), 2), stats.norm(-1.5, 2), [-4.0, -1.5, 0.25, 7.0]),
    "bernoulli": (Bernoulli(Rational(3, 10)), stats.bernoulli(0.3), [0, 1]),
    "categorical": (
        Categorical(HALF, THIRD, Rational(1, 6)),
        stats.rv_discrete(values=([1, 2, 3], [1 / 2, 1 / 3, 1 / 6])),
        [1, 2, 3],
    ),
    "beta": (Beta(HALF, 3), stats.beta(0.5, 3), [0.001, 0.25, 0.5, 0.999]),
    "binomial": (Binomial(7, Rational(2, 5)), stats.binom(7, 0.4), [0, 1, 3, 7]),
    "poisson": (Poisson(Rational(5, 2)), stats.poisson(2.5), [0, 1, 4, 30]),
    "mvnormal": (
        MvNormal([1, -1], COV),
        stats.multivariate_normal([1, -1], [[2, 0.5], [0.5, 1]]),
        [(0.0, 0.0), (1.0, -1.0), (-3.0, 2.5)],
    ),
    "mixture": (Mixture(WEIGHTS, Normal(0, 1), Normal(3, HALF)), None, [-2.0, 0.0, 3.0, 5.5]),
    "mixture of counts": (Mixture(WEIGHTS, Binomial(3, HALF), Binomial(5, THIRD)), None, [0, 3, 4, 5]),
}
EXTREME = {
    "normal": (Normal(0, Rational(1, 1000)), [1e4, -1e8, 1e-300]),
    "beta": (Beta(50, Rational(1, 50)), [1e-300, 1e-17, 0.5]),
    "binomial": (Binomial(10**6, Rational(1, 10**9)), [0, 10**6, 12345]),
    "poisson": (Poisson(Rational(1, 10**12)), [0, 1, 10**6]),
    "bernoulli": (Bernoulli(Rational(1, 10**30)), [0, 1]),
    "categorical": (Categorical(Rational(1, 10**40), 1 - Rational(1, 10**40)), [1, 2]),
    "mvnormal": (
        MvNormal([0, 0], [[1, Rational(999, 1000)], [Rational(999, 1000), 1]]),
        [(1e4, -1e4), (1e-8, 0.0)],
    ),
    "mixture": (Mixture(WEIGHTS, Normal(0, 1), Normal(3, HALF)), [1e4, -1e4, 38.6]),
}


def coordinates(point):
    return point if isinstance(point, tuple) else (point,)


def twin_log(twin, point):
    return twin.logpmf(point) if hasattr(twin, "logpmf") else twin.logpdf(point)


def in_balls(family, point):
    """The SymPy log density in 400 bits, at the exact value of the floats."""
    symbols = [Symbol(f"x{i}", real=True) for i in range(family.dimension)]
    values = {s: sympy.Rational(v) for s, v in zip(symbols, coordinates(point), strict=True)}
    # Counts of different size: an impossible outcome of one component is −∞ only once the number is written in.
    written = values.values() if family == CASES["mixture of counts"][0] else symbols
    return float(ball(family.log_density(*written), values, precision=400).mid())


def in_torch(family, point):
    model = Model("one draw")
    model.latent("z", Normal(0, 1))
    model.observe("x", family)
    row = torch.tensor([coordinates(point)], dtype=torch.float64)
    return compiled(model).log_likelihood(row, torch.zeros(1, 1)).item()


@pytest.mark.parametrize("name", CASES)
def test_log_density_is_scipys(name):
    family, twin, points = CASES[name]
    for point in points:
        mixture = isinstance(family, Mixture)
        parts = zip(family.weights, family.components, strict=True) if mixture else ()
        expected = (
            math.log(sum(float(w) * math.exp(in_scipy(part, point)) for w, part in parts))
            if mixture
            else twin_log(twin, point)
        )
        assert in_balls(family, point) == pytest.approx(expected, rel=1e-12, abs=1e-13)


def in_scipy(family, point):
    numbers = [float(a) for a in family.arguments]
    twin = {Normal: stats.norm, Binomial: stats.binom}[type(family)](*numbers)
    return twin_log(twin, point)


@pytest.mark.parametrize("name", CASES)
def test_torch_face_is_the_symbolic_density(name):
    family, _, points = CASES[name]
    for point in points:
        assert in_torch(family, point) == pytest.approx(in_balls(family, point), rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("name", EXTREME)
def test_torch_face_is_right_far_out(name):
    family, points = EXTREME[name]
    for point in points:
        here = in_torch(family, point)
        assert math.isfinite(here)
        # A covariance near the edge costs digits by its condition number, here 2e3.
        assert here == pytest.approx(in_balls(family, point), rel=1e-11, abs=1e-14)


def test_random_points_of_all_families_agree_in_torch_and_in_balls():
    chance = np.random.default_rng(0)
    for _ in range(25):
        mean, sd, p = chance.normal(scale=5), chance.lognormal(), chance.uniform(0.01, 0.99)
        draws = [
            (Normal(mean, sd), chance.normal(scale=100)),
            (Beta(sd, 1 / sd), p),
            (Poisson(sd), int(chance.integers(0, 50))),
            (Binomial(20, p), int(chance.integers(0, 21))),
            (Bernoulli(p), int(chance.integers(0, 2))),
            (
                Mixture([exact(p), 1 - exact(p)], Normal(mean, sd), Normal(-mean, 1 / sd)),
                chance.normal(scale=30),
            ),
        ]
        for family, point in draws:
            assert in_torch(family, point) == pytest.approx(in_balls(family, point), rel=1e-11, abs=1e-12), (
                family
            )


SYMBOLIC = {
    "normal": lambda s: Normal(s[0], sympy.exp(s[1])),
    "mvnormal": lambda s: MvNormal([s[0], s[1]], [[2 + s[0] ** 2, s[1]], [s[1], 2 + s[1] ** 2]]),
    "bernoulli": lambda s: Bernoulli(1 / (1 + sympy.exp(s[0]))),
    "categorical": lambda s: Categorical(
        *[sympy.exp(a) / (1 + sympy.exp(s[0]) + sympy.exp(s[1])) for a in (s[0], s[1], 0)]
    ),
    "beta": lambda s: Beta(sympy.exp(s[0]), sympy.exp(s[1])),
    "binomial": lambda s: Binomial(6, 1 / (1 + sympy.exp(s[0]))),
    "poisson": lambda s: Poisson(sympy.exp(s[0])),
}
VALUES = {
    "normal": -3,
    "mvnormal": 2,
    "bernoulli": 1,
    "categorical": 2,
    "beta": Rational(2, 7),
    "binomial": 4,
    "poisson": 5,
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_exponential_form_is_the_log_density(name):
    s = sympy.symbols("s1 s2", real=True)
    family = SYMBOLIC[name](s)
    x = [sympy.sympify(VALUES[name])] * family.dimension
    form = family.exponential_form(*x)
    gap = Tape([form.log_density - family.log_density(*x)])
    for one, two in [(0, 0), (1, -2), (Rational(-7, 3), HALF)]:
        (value,) = run(gap, {s[0]: Rational(one), s[1]: Rational(two)}, precision=300)
        assert 0 in value and float(abs(value).upper()) < 1e-60


@pytest.mark.parametrize("name", SYMBOLIC)
def test_law_tells_members_apart_exactly_when_their_densities_differ(name):
    """Two members have equal laws iff they have equal densities at many points."""
    s = sympy.symbols("s1 s2", real=True)
    points = [(0, 0), (1, 0), (0, 1), (1, 1), (-1, 2)]
    members = [SYMBOLIC[name](s).map(lambda e, p=p: e.subs(dict(zip(s, p, strict=True)))) for p in points]
    for one in members:
        for other in members:
            same_law = all(sympy.simplify(a - b) == 0 for a, b in zip(one.law, other.law, strict=True))
            grid = [VALUES[name], Rational(1, 3)] if name in ("normal", "mvnormal", "beta") else [0, 1, 2, 3]
            inside = [g for g in grid if one.support.contains(g) == sympy.true]
            gaps = [
                in_balls(one, (g,) * one.dimension) - in_balls(other, (g,) * one.dimension) for g in inside
            ]
            assert same_law == (max(map(abs, gaps)) < 1e-12)


def test_binomials_of_different_size_have_different_laws_and_zero_successes_one():
    assert Binomial(3, HALF).law != Binomial(5, HALF).law
    assert Binomial(3, 0).law == Binomial(5, 0).law


@pytest.mark.parametrize("name", ["normal", "beta", "mixture"])
def test_densities_integrate_to_one(name):
    family, _, _ = CASES[name]
    low, high = (0, 1) if name == "beta" else (-30, 30)
    total, _ = quad(
        lambda u: math.exp(in_torch(family, u)),
        low,
        high,
        points=[0.5] if name == "beta" else [0, 3],
        limit=200,
    )
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["bernoulli", "categorical", "binomial", "mixture of counts"])
def test_masses_sum_to_one_over_the_support(name):
    family, _, _ = CASES[name]
    masses = [sympy.exp(family.log_density(Integer(value))) for value in family.support]
    assert sympy.simplify(sympy.Add(*masses) - 1) == 0


def test_poisson_masses_sum_to_one():
    assert sum(math.exp(in_torch(Poisson(3), k)) for k in range(80)) == pytest.approx(1, abs=1e-12)


def test_outcomes_of_probability_zero_and_one():
    assert in_torch(Bernoulli(0), 1) == -math.inf
    assert in_torch(Bernoulli(1), 1) == 0
    assert in_torch(Poisson(0), 0) == 0
    assert in_torch(Poisson(0), 2) == -math.inf
    assert in_torch(Binomial(4, 0), 0) == 0
    assert in_torch(Binomial(4, 1), 4) == 0
    assert in_torch(Binomial(4, 1), 3) == -math.inf
    assert in_torch(Categorical(0, 1), 2) == 0
    assert in_torch(Mixture([0, 1], Normal(0, 1), Normal(5, 1)), 5.0) == pytest.approx(
        -0.5 * math.log(2 * math.pi)
    )


SAMPLED = ["normal", "bernoulli", "beta", "binomial", "poisson", "mvnormal", "mixture"]


@pytest.mark.parametrize("name", SAMPLED)
def test_draws_have_the_familys_moments(name):
    family, twin, _ = CASES[name]
    model = Model("draws")
    model.latent("z", Normal(0, 1))
    model.observe("x", family)
    n = 40_000
    x, _ = compiled(model).sample(n, torch.Generator().manual_seed(3))
    mean, second = x.mean(0), (x**2).mean(0)
    if name == "mixture":
        wanted = torch.tensor([0.75 * 3]), torch.tensor([0.25 + 0.75 * (9 + 0.25)])
    elif name == "mvnormal":
        wanted = torch.tensor([1.0, -1.0]), torch.tensor([3.0, 2.0])
        covariance = torch.cov(x.T)
        assert torch.allclose(covariance, torch.tensor([[2, 0.5], [0.5, 1]], dtype=torch.float64), atol=0.06)
    else:
        wanted = torch.tensor([twin.mean()]), torch.tensor([twin.var() + twin.mean() ** 2])
    for got, expected, draws in ((mean, wanted[0], x), (second, wanted[1], x**2)):
        assert torch.all((got - expected).abs() <= 5 * draws.std(0) / math.sqrt(n))


def test_categorical_draws_have_the_given_frequencies_and_states_from_one():
    model = Model("states")
    model.latent("z", Normal(0, 1))
    model.observe("x", Categorical(HALF, THIRD, Rational(1, 6)))
    x, _ = compiled(model).sample(30_000, torch.Generator().manual_seed(0))
    frequencies = torch.bincount(x[:, 0].long(), minlength=4)[1:] / 30_000
    assert torch.allclose(frequencies, torch.tensor([1 / 2, 1 / 3, 1 / 6]), atol=5 * 0.5 / math.sqrt(30_000))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Normal(0, -1), r"Normal's sd should be positive, got -1"),
        (lambda: Normal(0, 0), r"Normal's sd should be positive, got 0"),
        (lambda: Normal(0, math.nan), r"Normal's sd should be finite, got nan"),
        (lambda: Normal(math.inf, 1), r"Normal's mean should be finite, got inf"),
        (lambda: Normal(0), r"Normal should have the arguments \(mean, sd\), got 1"),
        (lambda: Bernoulli(Rational(3, 2)), r"Bernoulli's p should be a probability in \[0, 1\], got 3/2"),
        (lambda: Beta(0, 1), r"Beta's a should be positive, got 0"),
        (
            lambda: Binomial(Rational(5, 2), HALF),
            r"Binomial's n should be a whole number, 0 or more, got 5/2",
        ),
        (lambda: Binomial(-1, HALF), r"Binomial's n should be a whole number, 0 or more, got -1"),
        (lambda: Poisson(-2), r"Poisson's rate should be at least 0, got -2"),
        (lambda: Categorical(1), "at least two probabilities, got 1"),
        (
            lambda: Categorical(HALF, THIRD),
            r"Categorical's probabilities should sum to one, got 1/2, 1/3 with the sum 5/6",
        ),
        (lambda: MvNormal([0, 0], [[1, 2], [2, 1]]), "cov should be positive definite"),
        (lambda: MvNormal([0, 0], [[1, 2], [0, 1]]), "cov should be symmetric"),
        (lambda: MvNormal([0, 0], [[1]]), r"cov should have shape \(2, 2\), got \(1, 1\)"),
        (lambda: MvNormal(0, 1), "should have a mean vector and a covariance matrix, got 0 and 1"),
        (lambda: Mixture([HALF, THIRD], Normal(0, 1), Normal(1, 1)), "Mixture's weights should sum to one"),
        (lambda: Mixture([1], Normal(0, 1), Normal(1, 1)), "one weight a component, got 1 and 2"),
        (lambda: Mixture([HALF, HALF], Normal(0, 1), Poisson(1)), "of one family and dimension"),
        (lambda: Mixture(HALF, Normal(0, 1)), r"a list of weights first"),
        (lambda: Mixture([1], Mixture([1], Normal(0, 1))), "components should be families"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_text_is_no_number():
    with pytest.raises(TypeError, match="mean should be a number or a SymPy expression, got 'a'"):
        Normal("a", 1)


def test_floats_mean_their_shortest_decimal():
    assert exact(0.1) == Rational(1, 10)
    assert Normal(np.float64(0.1), torch.tensor(0.3, dtype=torch.float64).item()).arguments == (
        Rational(1, 10),
        Rational(3, 10),
    )


def test_families_are_values():
    assert Normal(0, 1) == Normal(0.0, 1) and hash(Normal(0, 1)) == hash(Normal(0.0, 1))
    assert Normal(0, 1) != Normal(0, 2) and Poisson(1) != Bernoulli(1)
    assert repr(Normal(0, 1)) == "Normal(0, 1)"
    assert set(FAMILIES) >= {
        "Normal",
        "MvNormal",
        "Bernoulli",
        "Categorical",
        "Beta",
        "Binomial",
        "Poisson",
        "Mixture",
    }


def test_evaluation_in_balls_leaves_the_global_precision_alone():
    before = flint.ctx.prec
    in_balls(Normal(0, 1), 1.0)
    assert flint.ctx.prec == before

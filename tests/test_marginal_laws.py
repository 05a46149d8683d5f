"""The marginal law against brute force: enumeration, quadrature and dense linear algebra know no theorems.

Both directions are tested. κ is recomputed from the numerical law; along the fibres of κ, followed
numerically, the law stays the same; and κ has the rank of the law.
"""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import scipy.stats
import sympy
from brute_force import (
    MASS,
    Brute,
    Kappa,
    along_fibre,
    exact_rank,
    float_rank,
    lines,
    made,
    poisson,
    random_point,
    steps,
    values,
)
from marginal_models import ERRORS, KNOWN, autoregression, factor, poisson_gamma, topics
from scipy.integrate import quad
from sympy import Rational, Symbol

import identkit as ik
from identkit.symbolic.expectation import raw_moment
from identkit.symbolic.marginal import marginal_law

# Linear-Gaussian: the dense joint precision


def dense(model, point):
    """Mean and covariance of the data, from the Hessian of the joint log density inverted as a whole."""
    symbols = [*model.latent_symbols, *model.observation_symbols]
    joint = (model.log_prior() + model.log_likelihood()).subs(list(point.items()))
    joint = sympy.expand(joint)
    precision = -np.array(sympy.hessian(joint, symbols).tolist(), dtype=float)
    slope = np.array([float(joint.diff(s).subs(dict.fromkeys(symbols, 0))) for s in symbols])
    covariance = np.linalg.inv(precision)
    start = len(model.latent_symbols)
    return (covariance @ slope)[start:], covariance[start:, start:]


def regression_tree():
    m = ik.Model("latent regressions")
    mu, b, c = m.parameter("mu"), m.parameter("b", shape=3), m.parameter("c", shape=2)
    s = m.parameter("s", shape=4, positive=True)
    r = m.parameter("r")
    u = m.latent("u", ik.MvNormal([mu, 0], [[1 + r**2, r], [r, 1]]))
    v = m.latent("v", ik.Normal(b[0] * u[0] + b[1] * u[1] + 1, s[0]))
    m.observe("x", ik.MvNormal([v, b[2] * (u[0] - v)], [[s[1] ** 2 + r**2, r], [r, 2]]))
    m.observe("y", ik.Normal(2 * v, s[2]), shape=2)
    m.observe("w", ik.Normal(sympy.Matrix([c[0] * u[1], c[1] + u[0]]), s[3]), shape=2)
    return m


@pytest.mark.parametrize(
    "model",
    [factor(5, 2), autoregression(), ERRORS.format(sx="sx", sy="sy"), KNOWN["E18"][0], regression_tree()],
    ids=[
        "factor analysis",
        "AR(1) + noise",
        "errors in variables",
        "parameter expansion",
        "latent regressions",
    ],
)
def test_mean_and_covariance_are_those_of_the_dense_joint_normal(model):
    model = made(model)
    point, other = random_point(model, 1), random_point(model, 2)
    mean, covariance = dense(model, point)
    upper = np.triu_indices(len(mean))
    entries = np.concatenate([mean, covariance[upper]])
    mean2, covariance2 = dense(model, other)
    moving = np.abs(entries - np.concatenate([mean2, covariance2[upper]])) > 1e-9
    kappa = np.array([float(e.subs(list(point.items()))) for e in marginal_law(model).expressions])
    near = np.abs(kappa[:, None] - entries[None, :]) < 1e-9
    assert near.any(axis=1).all()
    assert near[:, moving].any(axis=0).all()


# Finite data: enumeration


def jacobi(a, b):
    points, weights = scipy.special.roots_jacobi(12, float(np.real(b)) - 1, float(np.real(a)) - 1)
    density = (1 + points) / 2
    return density, weights / weights.sum()


TABLES = [
    "B8 J=3", "B10", "B13 two", "B18 complete", "C2", "F8 K=2", "G11 n=3", "B6 (5,3)",
]  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_the_cells_and_kappa_have_the_same_rank(name):
    model = made(KNOWN[name][0])
    brute = Brute(model)
    law = marginal_law(model)
    for seed in (1, 2):
        theta = np.array([float(v) for v in random_point(model, seed).values()])
        cells = brute.table(theta)
        assert cells.sum() == pytest.approx(1, abs=1e-12)
        assert (cells > 0).all()
        kappa = Kappa(law.expressions, brute.parameters)
        both = np.concatenate([steps(brute.table, theta), kappa.jacobian(theta)])
        assert float_rank(kappa.jacobian(theta)) == float_rank(steps(brute.table, theta)) == float_rank(both)


@pytest.mark.parametrize(
    "name", ["B10", "B13 one", "B18 complete", "B18 never alone", "F8 K=1", "G11 n=3", "B6 (4,3)"]
)
def test_cells_stay_along_the_fibres_of_kappa(name):
    model = made(KNOWN[name][0])
    brute = Brute(model)
    kappa = Kappa(marginal_law(model).expressions, brute.parameters)
    theta = np.array([float(v) for v in random_point(model, 3).values()])
    moved = along_fibre(kappa, theta)
    assert np.abs(moved - theta).max() > 0.01
    np.testing.assert_allclose(brute.table(moved), brute.table(theta), atol=1e-10)
    elsewhere = theta + 0.02
    assert np.abs(brute.table(elsewhere) - brute.table(theta)).max() > 1e-4


def test_moments_are_those_of_the_enumerated_table():
    model = ik.parse(
        lines(
            "k ~ Categorical(w, v, 1 - w - v)",
            "h ~ Bernoulli(select(k, a, b, c))",
            "observe x ~ Categorical(select(k, p, q, r), h/4 + 1/8, 7/8 - h/4 - select(k, p, q, r))",
            "observe y ~ Binomial(2, select(k, 1/5, b, c))",
            "observe n ~ Binomial(1 + h, a)",
        )
    )
    point = {s: Rational(i + 3, 29) for i, s in enumerate(model.parameters)}
    theta = [float(v) for v in point.values()]
    brute = Brute(model)
    cells = {c: brute.probability(theta, c) for c in itertools.product((1, 2, 3), (0, 1, 2), (0, 1, 2))}
    assert sum(cells.values()) == pytest.approx(1)
    choose = [lambda n: 1, lambda n: n, lambda n: n * (n - 1)]
    expected = [
        sum(p * b(x) * choose[j](y) * choose[k](n) / (2 if j else 1) for (x, y, n), p in cells.items())
        for b in (lambda x: 1, lambda x: x == 1, lambda x: x == 2)
        for j in range(3)
        for k in range(3)
    ][1:]
    law = marginal_law(model)
    found = [float(e.subs(list(point.items()))) for e in law.expressions]
    assert law.exhaustive
    np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-12)


@pytest.mark.parametrize(
    "model", ["z ~ Beta(a, b); observe x ~ Binomial(4, z)", topics(2)], ids=["beta-binomial", "topics"]
)
def test_conjugate_tables_against_quadrature(model):
    model = ik.parse(model)
    brute = Brute(model, {model.latent_symbols[0]: jacobi})
    point = random_point(model, 1) | {s: Rational(5, 2) for s in model.parameters if s.name in ("a", "a1")}
    theta = np.array([float(v) for v in point.values()])
    cells = brute.table(theta)
    assert cells.sum() == pytest.approx(1)
    kappa = Kappa(marginal_law(model).expressions, brute.parameters)
    if len(model.observations) == 1:
        ratio = [sum(math.comb(x, j) * p for x, p in enumerate(cells)) for j in range(1, 5)]
        np.testing.assert_allclose(kappa(theta), np.divide(ratio, [4, 6, 4, 1]), rtol=1e-12)
    else:
        joint = cells.reshape(3, 3)
        one, two = joint.sum(1)[:2], joint[:2, :2]
        np.testing.assert_allclose(
            sorted(set(kappa(theta).round(12))), sorted({*one.round(12), *two.ravel().round(12)}), rtol=1e-9
        )
        moved = along_fibre(kappa, theta, 0.02)
        assert np.abs(moved - theta).max() > 1e-3
        np.testing.assert_allclose(brute.table(moved), cells, atol=1e-10)


# Mixtures


def normal_mixture(components, x):
    return sum(w * MASS["Normal"]([m, math.sqrt(v)], x) for w, m, v in components)


def test_the_components_of_a_normal_mixture_give_its_density():
    model = ik.parse(
        "k ~ Categorical(u, v, 1-u-v); z ~ Normal(0, 1);"
        "observe x ~ Normal(select(k, a, b, c) + select(k, 1, d, 2*d)*z, s)"
    )
    point = {
        s: v
        for s, v in zip(
            model.parameters, map(Rational, ("1/5", "1/2", "-1", "2/3", "3", "3/5", "4/5")), strict=True
        )
    }
    law = marginal_law(model)
    components = [[float(e.subs(list(point.items()))) for e in row] for row in law.components]
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    brute = Brute(model, {model.latent_symbols[1]: lambda m, s: (m + s * nodes, weights / weights.sum())})
    theta = [float(v) for v in point.values()]
    for x in np.linspace(-4, 6, 7):
        assert normal_mixture(components, x) == pytest.approx(brute.probability(theta, (x,)), rel=1e-7)
    kappa = [float(e.subs(list(point.items()))) for e in law.expressions]
    own = {
        round(sum(w * m**i * v**j for w, m, v in components), 8)
        for i in range(6)
        for j in range(6)
        if 0 < i + j < 6
    }
    assert {round(value, 8) for value in kappa} == own


def test_mixing_moments_are_exhaustive_where_the_components_are_not():
    """At equal components, or weight 0, whole lines of (p, a, b) share one law, and just these share κ."""
    model = ik.parse("observe y ~ Mixture([p, 1 - p], Poisson(a), Poisson(b))")
    brute, kappa = Brute(model), Kappa(marginal_law(model).expressions, model.parameters)
    grid = [
        np.array(t) for t in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), (1.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    ]
    cells = {tuple(t): np.array([brute.probability(t, (x,)) for x in range(12)]) for t in grid}
    for one, two in itertools.combinations(grid, 2):
        same = np.abs(cells[tuple(one)] - cells[tuple(two)]).max() < 1e-12
        assert same == (np.abs(kappa(one) - kappa(two)).max() < 1e-12)


def test_mixed_tables_and_densities_share_the_label():
    model = ik.parse(
        "k ~ Bernoulli(q); observe x ~ Poisson(select(k+1, a, b)); observe y ~ Bernoulli(select(k+1, c, d))"
    )
    brute, law = Brute(model), marginal_law(model)
    kappa = Kappa(law.expressions, model.parameters)
    theta = np.array([0.3, 1.2, 2.5, 0.2, 0.7])
    swapped = np.array([0.7, 2.5, 1.2, 0.7, 0.2])
    joint = lambda t: np.array([brute.probability(t, (x, y)) for x in range(30) for y in (0, 1)])
    np.testing.assert_allclose(joint(theta), joint(swapped), rtol=1e-12)
    np.testing.assert_allclose(kappa(theta), kappa(swapped), rtol=1e-12)
    crossed = np.array([0.7, 2.5, 1.2, 0.2, 0.7])
    assert np.abs(kappa(theta) - kappa(crossed)).max() > 0.1
    both = np.concatenate([steps(joint, theta), kappa.jacobian(theta)])
    assert float_rank(both) == float_rank(steps(joint, theta)) == float_rank(kappa.jacobian(theta)) == 5
    # Equal rates: the label is seen only through y, and the law knows q·d + (1 − q)·c alone.
    equal = np.array([0.3, 2.0, 2.0, 0.2, 0.7])
    for other in ([0.6, 2.0, 2.0, 0.0, 0.35 / 0.6], [0.0, 2.0, 9.0, 0.35, 0.9]):
        np.testing.assert_allclose(joint(np.array(other)), joint(equal), atol=1e-12)
        np.testing.assert_allclose(kappa(np.array(other)), kappa(equal), atol=1e-9)


# Compound laws


def test_poisson_gamma_is_negative_binomial():
    model = poisson_gamma()
    law = marginal_law(model)
    for r, a, b in ((1.3, 0.7, 2.0), (2.6, 0.7, 4.0)):
        shape, ratio = [
            float(e.subs(dict(zip(model.parameters, (r, a, b), strict=True)))) for e in law.expressions
        ]
        for x in range(6):
            integrand = lambda z: poisson(r * z, x) * scipy.stats.gamma.pdf(z, a, scale=1 / b)  # noqa: B023
            numeric = quad(integrand, 0, np.inf, epsabs=1e-13)[0]
            assert scipy.stats.nbinom.pmf(x, shape, 1 / (1 + ratio)) == pytest.approx(numeric, rel=1e-7)


def test_poisson_log_normal_against_quadrature():
    """κ recomputed from the factorial moments of the law, which are those of the exponential of a normal."""
    model = ik.parse("z ~ Normal(m, s); observe x ~ Poisson(exp(a*z - b)); observe y ~ Poisson(2*exp(z))")
    law = marginal_law(model)
    names = {s.name: s for s in model.parameters}
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    brute = Brute(model, {model.latent_symbols[0]: lambda m, s: (m + s * nodes, weights / weights.sum())})
    point = {"m": 0.1, "s": 0.4, "a": 0.6, "b": 0.3}
    theta = [point[s.name] for s in model.parameters]
    cells = {(x, y): brute.probability(theta, (x, y)) for x in range(16) for y in range(26)}
    covariance = point["a"] * point["s"] ** 2
    ex, ey = (sum(p * c[i] for c, p in cells.items()) for i in (0, 1))
    exy = sum(p * x * y for (x, y), p in cells.items())
    assert exy / (ex * ey) == pytest.approx(math.exp(covariance), rel=1e-6)
    values = {names[k]: v for k, v in point.items()}
    kappa = [float(e.subs(values)) for e in law.expressions]
    expected = [math.exp(0.6 * 0.1 - 0.3), 2 * math.exp(0.1), 0.6**2 * 0.4**2, 0.6 * 0.4**2, 0.4**2]
    np.testing.assert_allclose(sorted(kappa), sorted(expected), rtol=1e-12)


def test_a_thinned_poisson_count_against_summation():
    model = ik.parse("N ~ Poisson(r); observe y ~ Binomial(N, p); observe w ~ Binomial(N, q)")
    law = marginal_law(model)
    names = [s.name for s in model.parameters]
    theta = [{"r": 1.7, "p": 0.3, "q": 0.6}[n] for n in names]
    brute = Brute(model)
    cells = {(y, w): brute.probability(theta, (y, w)) for y in range(14) for w in range(18)}
    ey, ew = (sum(p * c[i] for c, p in cells.items()) for i in (0, 1))
    covariance = sum(p * y * w for (y, w), p in cells.items()) - ey * ew
    kappa = [float(e.subs(dict(zip(model.parameters, theta, strict=True)))) for e in law.expressions]
    np.testing.assert_allclose(sorted(kappa), sorted([ey, ew, covariance]), rtol=1e-9)
    assert law.exhaustive


def test_a_normal_with_a_random_variance():
    """x = c + √V ε with log V normal knows c and the law of V: by quadrature equal κ give one density."""
    model = ik.parse("h ~ Normal(m, q); observe y ~ Normal(c, exp(a*h/2))")
    law = marginal_law(model)
    assert law.exhaustive
    names = [s.name for s in model.parameters]
    point = lambda **v: [v[n] for n in names]
    one, two = point(m=0.2, q=0.5, c=1, a=1.0), point(m=0.1, q=0.25, c=1, a=2.0)
    kappa = Kappa(law.expressions, model.parameters)
    np.testing.assert_allclose(kappa(one), kappa(two), rtol=1e-12)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    brute = Brute(model, {model.latent_symbols[0]: lambda m, s: (m + s * nodes, weights / weights.sum())})
    for y in (-1.0, 0.5, 1.0, 3.0):
        assert brute.probability(one, (y,)) == pytest.approx(brute.probability(two, (y,)), rel=1e-12)
    assert exact_rank([e for e in law.expressions if not e.has(sympy.exp)], random_point(model, 2)) == 3


def test_the_centre_of_a_random_variance_is_seen():
    model = ik.parse("h ~ Normal(0, q); observe y ~ Normal(c, s*exp(h))")
    centre = next(s for s in model.parameters if s.name == "c")
    law = marginal_law(model)
    assert law.exhaustive and centre in law.expressions
    assert exact_rank(law.expressions, random_point(model, 2)) == 3


def test_a_student_t_by_its_gamma_variance():
    m = ik.Model()
    a, b = m.parameter("a", positive=True), m.parameter("b", positive=True)
    c, s = m.parameter("c"), m.parameter("s", positive=True)
    z = m.latent("z", ik.Gamma(a, b))
    m.observe("x", ik.Normal(c, s / sympy.sqrt(z)))
    law = marginal_law(m)
    assert law.exhaustive
    values = {a: 1.5, b: 2.0, c: 0.3, s: 0.8}
    shape, scaled, centre = (float(e.subs(values)) for e in law.expressions)
    for x in (-1.0, 0.3, 2.0):
        integrand = lambda z, x: (
            MASS["Normal"]([0.3, 0.8 / math.sqrt(z)], x) * scipy.stats.gamma.pdf(z, 1.5, scale=0.5)
        )
        t = scipy.stats.t.pdf(x, 2 * shape, loc=centre, scale=math.sqrt(scaled / shape))
        assert t == pytest.approx(quad(integrand, 0, np.inf, args=(x,))[0], rel=1e-8)


# What fixes the law where it is not known


def test_what_fixes_the_law_of_an_item_response_model():
    model = ik.parse("z ~ Normal(m, s); observe y[2] ~ Bernoulli(c + (1 - c)*sigmoid(a*z - b))")
    law = marginal_law(model)
    assert set(map(str, law.sufficient)) == {"c", "1 - c", "a*m - b", "a**2*s**2"}
    names = [s.name for s in model.parameters]
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    brute = Brute(model, {model.latent_symbols[0]: lambda m, s: (m + s * nodes, weights / weights.sum())})
    point = lambda **v: [v[n] for n in names]
    one, two = point(m=0.5, s=1.0, c=0.1, a=1.2, b=0.4), point(m=0.0, s=2.0, c=0.1, a=0.6, b=-0.2)
    np.testing.assert_allclose(brute.table(one), brute.table(two), rtol=1e-12)
    enough = Kappa(law.sufficient, model.parameters)
    np.testing.assert_allclose(enough(one), enough(two), rtol=1e-12)


def test_raw_moments_against_quadrature():
    for family, density, low, high in [
        (ik.Normal(Rational(1, 3), 2), lambda x: MASS["Normal"]([1 / 3, 2], x), -40, 40),
        (ik.Beta(2, Rational(5, 2)), lambda x: scipy.stats.beta.pdf(x, 2, 2.5), 0, 1),
        (ik.Gamma(2, Rational(3, 2)), lambda x: scipy.stats.gamma.pdf(x, 2, scale=2 / 3), 0, 80),
    ]:
        for power in range(1, 5):
            numeric = quad(lambda x: x**power * density(x), low, high, limit=400)[0]  # noqa: B023
            assert float(raw_moment(family, (power,)) or 0) == pytest.approx(numeric, rel=1e-7)
    for family in (ik.Poisson(Rational(3, 2)), ik.Binomial(5, Rational(2, 7)), ik.Bernoulli(Rational(2, 7))):
        arguments = [float(a) for a in family.arguments]
        for power in range(1, 5):
            numeric = sum(x**power * MASS[family.name](arguments, x) for x in values(family))
            assert float(raw_moment(family, (power,)) or 0) == pytest.approx(numeric, rel=1e-10)


def test_raw_moments_of_further_families():
    for family, density, low, high in [
        (ik.Uniform(-1, 2), lambda x: 1 / 3, -1, 2),
        (ik.Laplace(Rational(1, 2), Rational(3, 2)), lambda x: scipy.stats.laplace.pdf(x, 0.5, 1.5), -70, 70),
        (ik.Exponential(Rational(3, 2)), lambda x: 1.5 * math.exp(-1.5 * x), 0, 60),
    ]:
        for power in range(1, 5):
            numeric = quad(lambda x, k, p: x**k * p(x), low, high, args=(power, density), limit=400)[0]
            assert float(raw_moment(family, (power,)) or 0) == pytest.approx(numeric, rel=1e-7)
    for family, law in [
        (ik.NegativeBinomial(Rational(5, 2), Rational(2, 5)), scipy.stats.nbinom(2.5, 0.4)),
        (ik.Geometric(Rational(1, 3)), scipy.stats.nbinom(1, 1 / 3)),
    ]:
        counts = np.arange(400)
        for power in range(1, 5):
            numeric = (law.pmf(counts) * counts.astype(float) ** power).sum()
            assert float(raw_moment(family, (power,)) or 0) == pytest.approx(numeric, rel=1e-9)
    # A Dirichlet vector is made of independent gammas over their sum: E Π γ_i^{k_i} = E S^k · E Π θ_i^{k_i}.
    gammas = [math.gamma(2 + 1) / math.gamma(2), math.gamma(3 + 2) / math.gamma(3)]
    total = math.gamma(6.5 + 3) / math.gamma(6.5)
    assert raw_moment(ik.Dirichlet(2, 3, Rational(3, 2)), (1, 2, 0)) == pytest.approx(
        math.prod(gammas) / total
    )


def test_topics_under_a_dirichlet_are_those_under_a_beta():
    beta = ik.parse(topics(2))
    dirichlet = ik.parse(
        topics(2)
        .replace("theta ~ Beta(a1, a2)", "theta[2] ~ Dirichlet(a1, a2)")
        .replace("Categorical(theta, 1 - theta)", "Categorical(theta[1], theta[2])")
    )
    theta = np.array([float(v) for v in random_point(beta, 4).values()])
    names = [s.name for s in beta.parameters]
    assert [s.name for s in dirichlet.parameters] == names
    values = [Kappa(marginal_law(m).expressions, m.parameters)(theta) for m in (beta, dirichlet)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)


def test_an_exponential_variance_makes_a_laplace_law():
    model = ik.parse("z ~ Exponential(a); observe x ~ Normal(m, s*sqrt(z))")
    law = marginal_law(model)
    values = {"a": 1.7, "m": 0.4, "s": 0.9}
    ratio, centre = (float(e.subs({s: values[s.name] for s in model.parameters})) for e in law.expressions)
    for x in (-1.0, 0.1, 2.0):
        integrand = lambda z, x: MASS["Normal"]([0.4, 0.9 * math.sqrt(z)], x) * 1.7 * math.exp(-1.7 * z)
        numeric = quad(integrand, 0, np.inf, args=(x,))[0]
        assert scipy.stats.laplace.pdf(x, centre, math.sqrt(ratio / 2)) == pytest.approx(numeric, rel=1e-7)


def test_the_moments_of_two_correlated_normals():
    r = Symbol("r")
    family = ik.MvNormal([0, 0], [[1, r], [r, 1]])
    assert raw_moment(family, (2, 2)) == 1 + 2 * r**2  # Isserlis
    assert raw_moment(family, (1, 2)) == 0


# Soundness over random models: κ and the enumerated law always have one rank


def random_table_model(seed):
    chance = random.Random(seed)
    names = [f"p{i}" for i in range(chance.randint(3, 6))]
    argument = lambda: chance.choice([*names, f"{chance.choice(names)}*{chance.choice(names)}", "1/3"])
    parents, statements = [], []
    for i in range(chance.randint(1, 3)):
        used = chance.choice(parents) if parents and chance.random() < 0.6 else None
        p = f"select({used} + 1, {argument()}, {argument()})" if used else argument()
        statements.append(f"k{i} ~ Bernoulli({p})")
        parents.append(f"k{i}")
    for i in range(chance.randint(2, 4)):
        used = chance.choice(parents)
        p = f"select({used} + 1, {argument()}, {argument()})"
        kind = chance.choice(
            [f"Bernoulli({p})", f"Binomial(2, {p})", f"Categorical({p}/2, 1/2, 1/2 - {p}/2)"]
        )
        statements.append(f"observe y{i} ~ {kind}")
    return lines(statements)


@pytest.mark.parametrize("seed", range(25))
def test_random_finite_models(seed):
    model = ik.parse(random_table_model(seed))
    law = marginal_law(model)
    assert law.exhaustive
    brute = Brute(model)
    theta = np.array(
        [0.15 + 0.6 * random.Random(seed * 100 + i).random() for i in range(len(model.parameters))]
    )
    cells = steps(brute.table, theta)
    kappa = (
        Kappa(law.expressions, brute.parameters).jacobian(theta)
        if law.expressions
        else np.zeros((1, len(theta)))
    )
    ranks = [np.linalg.matrix_rank(j, tol=1e-9) for j in (cells, kappa, np.concatenate([cells, kappa]))]
    assert ranks[0] == ranks[1] == ranks[2]

"""The further families: against scipy, against themselves (mass, draws), and what `check` makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import sympy
import torch
from scipy.integrate import quad
from sympy import Rational, S, Symbol

import identkit as ik
from identkit.model.balls import ball
from identkit.model.compiled import compiled
from identkit.model.families import FAMILIES, Family
from identkit.model.language import LanguageError, parse, written
from identkit.model.model import Model
from identkit.posterior.prior_rule import prior_rule
from identkit.verdict import Level

R = Rational
INF = math.inf

# family, the same in scipy, points of the support
UNIVARIATE = [
    (
        ik.LogNormal(R(1, 2), R(3, 4)),
        scipy.stats.lognorm(0.75, scale=math.exp(0.5)),
        [1e-30, 0.1, 1, 7, 1e30],
    ),
    (ik.StudentT(R(5, 2), 1, 2), scipy.stats.t(2.5, 1, 2), [-1e9, -3, 1, 1.5, 40, 1e9]),
    (ik.Laplace(1, 2), scipy.stats.laplace(1, 2), [-500, -3, 1, 1.5, 500]),
    (ik.Cauchy(1, 2), scipy.stats.cauchy(1, 2), [-1e9, -3, 1, 1.5, 1e9]),
    (ik.Exponential(R(3, 2)), scipy.stats.expon(scale=1 / 1.5), [0, 1e-9, 2, 1e4]),
    (ik.Gamma(R(5, 2), R(3, 2)), scipy.stats.gamma(2.5, scale=1 / 1.5), [1e-100, 0.3, 2, 1e4]),
    (ik.InverseGamma(R(5, 2), R(3, 2)), scipy.stats.invgamma(2.5, scale=1.5), [1e-2, 0.3, 2, 1e9]),
    (ik.Uniform(-1, 2), scipy.stats.uniform(-1, 3), [-1, 0.5, 2]),
    (ik.NegativeBinomial(R(5, 2), R(1, 3)), scipy.stats.nbinom(2.5, 1 / 3), [0, 1, 7, 500]),
    (ik.Geometric(R(1, 4)), scipy.stats.geom(0.25, loc=-1), [0, 1, 7, 500]),
]
JOINT = [
    (ik.Dirichlet(R(3, 2), 2, R(1, 2)), [[0.2, 0.5, 0.3], [1e-8, 0.25, 0.75 - 1e-8]]),
    (ik.Multinomial(5, R(1, 2), R(1, 3), R(1, 6)), [[5, 0, 0], [2, 2, 1], [0, 0, 5]]),
]
ALL = [family for family, *_ in [*UNIVARIATE, *JOINT]]


def named(value: object) -> str:
    return value.name if isinstance(value, Family) else ""


def drawn(family: Family, n: int = 0) -> tuple[Model, torch.Tensor]:
    m = Model(family.name)
    m.observe("x", family)
    return m, compiled(m).sample(n, torch.Generator().manual_seed(3))[0]


@pytest.mark.parametrize(("family", "known", "points"), UNIVARIATE, ids=named)
def test_densities_agree_with_scipy_far_into_the_tails(family, known, points):
    expected = [
        known.logpdf(p)
        if hasattr(known, "pdf") and known.dist.__class__.__module__.endswith("continuous_distns")
        else known.logpmf(p)
        for p in points
    ]
    c = compiled(drawn(family)[0])
    x = torch.tensor(points, dtype=torch.float64)[:, None]
    found = c.log_likelihood(x, torch.zeros(len(points), 0))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    symbol = Symbol("x", real=True)
    exact = [float(ball(family.log_density(R(repr(float(p)))), {}).mid()) for p in points if p not in (-1, 2)]
    np.testing.assert_allclose(
        exact, [e for e, p in zip(expected, points, strict=True) if p not in (-1, 2)], rtol=1e-9, atol=1e-9
    )
    assert family.log_density(symbol).free_symbols <= {symbol}


@pytest.mark.parametrize(("family", "points"), JOINT, ids=named)
def test_joint_densities_agree_with_scipy(family, points):
    numbers = [float(a) for a in family.arguments]
    if family.name == "Dirichlet":
        expected = [scipy.stats.dirichlet(numbers).logpdf(p) for p in points]
    else:
        expected = [scipy.stats.multinomial(int(numbers[0]), numbers[1:]).logpmf(p) for p in points]
    c = compiled(drawn(family)[0])
    found = c.log_likelihood(torch.tensor(points, dtype=torch.float64), torch.zeros(len(points), 0))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    exact = [float(ball(family.log_density(*[R(repr(float(e))) for e in p]), {}).mid()) for p in points]
    np.testing.assert_allclose(exact, expected, rtol=1e-9)


@pytest.mark.parametrize(("family", "known", "points"), UNIVARIATE, ids=named)
def test_the_mass_is_one(family, known, points):
    c = compiled(drawn(family)[0])

    def density(values: np.ndarray) -> np.ndarray:
        x = torch.as_tensor(np.atleast_1d(values), dtype=torch.float64)[:, None]
        return c.log_likelihood(x, torch.zeros(len(x), 0)).exp().numpy()

    if family.support.is_subset(S.Integers):
        total = density(np.arange(2000)).sum()
    else:
        low, high = float(family.support.inf), float(family.support.sup)
        total = quad(lambda u: density(u)[0], low, high, epsabs=1e-10)[0]
    assert total == pytest.approx(1, abs=1e-7)


def test_the_mass_of_a_multinomial_is_one():
    family = ik.Multinomial(4, R(1, 2), R(1, 3), R(1, 6))
    c = compiled(drawn(family)[0])
    cells = torch.tensor([[i, j, 4 - i - j] for i in range(5) for j in range(5 - i)], dtype=torch.float64)
    assert c.log_likelihood(cells, torch.zeros(len(cells), 0)).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("family", ALL, ids=named)
def test_the_exponential_form_is_the_density(family):
    n = family.dimension
    x = [R(3, 10), R(1, 2), R(1, 5)] if family.name == "Dirichlet" else [2, 2, 1] if n > 1 else [3]
    form = family.exponential_form(*map(sympy.sympify, x))
    if form is None:
        assert family.name in ("StudentT", "Laplace", "Cauchy", "Uniform")
        return
    gap = form.log_density - family.log_density(*map(sympy.sympify, x))
    assert abs(sympy.N(gap)) < 1e-12
    assert len(form.natural) == len(form.statistics)


@pytest.mark.parametrize(("family", "known", "points"), UNIVARIATE, ids=named)
def test_draws_follow_the_law(family, known, points):
    x = drawn(family, 4000)[1][:, 0].numpy()
    if family.support.is_subset(S.Integers):
        assert (x == x.round()).all()
        counts = [(x == k).mean() for k in range(5)]
        np.testing.assert_allclose(counts, known.pmf(range(5)), atol=0.03)
    else:
        assert scipy.stats.kstest(x, known.cdf).pvalue > 1e-3


@pytest.mark.parametrize("family", ALL[-2:], ids=named)
def test_joint_draws_have_the_right_moments(family):
    x = drawn(family, 20_000)[1]
    first, *rest = [float(a) for a in family.arguments]
    mean = (
        np.array([first, *rest]) / sum([first, *rest])
        if family.name == "Dirichlet"
        else first * np.array(rest)
    )
    np.testing.assert_allclose(x.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(x.sum(1), float(family.total))


def test_draws_with_tiny_shapes_stay_in_the_support():
    for family in (ik.Gamma(R(1, 1000), 1), ik.InverseGamma(R(1, 1000), 1)):
        x = drawn(family, 200)[1]
        assert (x > 0).all()
    assert (drawn(ik.Geometric(1), 50)[1] == 0).all()
    assert (drawn(ik.NegativeBinomial(3, 1), 50)[1] == 0).all()
    assert (drawn(ik.Multinomial(3, 1, 0), 50)[1] == torch.tensor([3.0, 0.0])).all()


@pytest.mark.parametrize("name", ["StudentT(3, z, 1)", "Cauchy(z, 1)"])
def test_heavy_tails_overflow_nowhere(name):
    c = compiled(parse(f"z ~ Normal(0, 1); observe x ~ {name}"))
    x, z = torch.tensor([[1e200], [0.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    assert torch.isfinite(c.log_likelihood(x, z)).all()
    assert torch.isfinite(c.gradient(x, z)).all()
    far = c.log_likelihood(x, z)[0].item()
    powers = {"S": 4, "C": 2}[name[0]]
    assert far == pytest.approx(-powers * 200 * math.log(10), rel=0.01)


REFUSED = [
    ("LogNormal(0, -1)", "LogNormal's sd should be positive"),
    ("StudentT(0, 0, 1)", "StudentT's df should be positive"),
    ("Laplace(0, 0)", "Laplace's scale should be positive"),
    ("Cauchy(0, -1)", "Cauchy's scale should be positive"),
    ("Exponential(-1)", "Exponential's rate should be positive"),
    ("Gamma(0, 1)", "Gamma's shape should be positive"),
    ("InverseGamma(1, 0)", "InverseGamma's scale should be positive"),
    ("Uniform(2, 1)", "Uniform's low should be below its high, got 2 and 1"),
    ("NegativeBinomial(0, 1/2)", "NegativeBinomial's r should be positive"),
    ("NegativeBinomial(1, 0)", r"NegativeBinomial's p should be a probability in \(0, 1\]"),
    ("Geometric(0)", r"Geometric's p should be a probability in \(0, 1\]"),
    ("Dirichlet(1, 0)", "Dirichlet's a2? ?should be positive|Dirichlet's a should be positive"),
    ("Dirichlet(1)", "Dirichlet should have the arguments"),
    ("Multinomial(3, 1/2, 1/3)", "these probabilities should sum to one"),
    ("Multinomial(-1, 1/2, 1/2)", "Multinomial's n should be a whole number"),
    ("Multinomial([1, 2], 1/2, 1/2)", "Multinomial's n should be a single number"),
    ("Gamma(1)", r"Gamma takes 2 arguments \(shape, rate\), got 1"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_arguments_outside_their_domain_are_refused(call, words):
    with pytest.raises(LanguageError, match=words):
        parse(f"observe x ~ {call}")


def test_a_latent_needs_bounds_that_are_numbers():
    with pytest.raises(LanguageError, match="u ~ Uniform"):
        parse("parameter theta > 0; z ~ Uniform(0, theta); observe x ~ Normal(sin(z), 1)")
    with pytest.raises(LanguageError, match="bounds that are numbers"):
        parse("parameter t > 1; z ~ Mixture([1/2, 1/2], Uniform(0, 1), Uniform(1, t))")
    m = parse("parameter theta > 0; observe x ~ Uniform(0, theta)")
    assert m.observations[0].family.support == sympy.Interval(0, S.Infinity)


DATA = [
    ("Exponential(1)", 0.0, -0.5),
    ("Gamma(2, 1)", 1e-9, 0.0),
    ("InverseGamma(2, 1)", 3.0, -1.0),
    ("LogNormal(0, 1)", 3.0, 0.0),
    ("Uniform(-1, 2)", 2.0, 2.5),
    ("Mixture([1/2, 1/2], Uniform(0, 1), Uniform(2, 3))", 2.5, 1.5),
    ("Geometric(1/2)", 0.0, 1.5),
    ("NegativeBinomial(2, 1/2)", 4.0, -1.0),
]


@pytest.mark.parametrize(("call", "good", "bad"), DATA)
def test_data_outside_the_support_are_refused_at_the_door(call, good, bad):
    m = parse(f"z ~ Normal(0, 1); observe x ~ {call}")
    c = compiled(m)
    assert c.rows([[good]])[0].item() == good
    with pytest.raises(ValueError, match="column x should hold values of"):
        c.rows([[bad]])
    assert ik.check(m, data={"x": good}).level is Level.CONSTANT
    with pytest.raises(ValueError, match="data for x"):
        ik.check(m, data={"x": bad})


@pytest.mark.parametrize(
    ("call", "good", "bad", "total"),
    [("Dirichlet(1, 1)", [0.25, 0.75], [0.25, 0.7], 1), ("Multinomial(3, 1/2, 1/2)", [1, 2], [1, 1], 3)],
)
def test_coordinates_must_add_up(call, good, bad, total):
    m = parse(f"z ~ Normal(0, 1); observe x ~ {call}")
    compiled(m).rows([good])
    with pytest.raises(ValueError, match=f"should add up to {total}"):
        compiled(m).rows([bad])
    with pytest.raises(ValueError, match=f"should add up to {total}"):
        ik.check(m, data={"x": bad})


def test_texts_survive():
    calls = [str(family) for family in ALL]
    text = "".join(f"observe x{i} ~ {call}\n" for i, call in enumerate(calls))
    m = parse(text)
    assert [s.family for s in m.observations] == ALL
    assert parse(written(m)).observations == m.observations
    assert (
        parse("observe x ~ Dirichlet([1, 2, 3])").observations
        == parse("observe x ~ Dirichlet(1, 2, 3)").observations
    )
    p = parse("parameter p[2]; observe x ~ Multinomial(3, p)")
    assert [str(s) for s in p.observation_symbols] == ["x[1]", "x[2]"]
    assert written(p).splitlines()[-1] == "observe x[2] ~ Multinomial(3, p[1], p[2])"
    assert {"p[1] + p[2]"} <= {str(c.expression) for c in p.conditions()}
    vector = parse("z[2] ~ Gamma([1, 2], 1); observe x[2] ~ Exponential(z)")
    assert parse(written(vector)).latents == vector.latents


def test_names_are_taken_for_what_their_place_says():
    m = parse("beta ~ Gamma(pi, E); observe x ~ Geometric(q); observe y ~ Exponential(lambda*beta)")
    assert {s.name: str(d) for s, d in m.parameters.items()} == {
        "pi": "Interval.open(0, oo)",
        "E": "Interval.open(0, oo)",
        "q": "Interval.Lopen(0, 1)",
        "lambda": "Reals",
    }
    assert "q is taken to be a parameter in (0, 1]" in m.notes


def test_equal_laws_are_equal_distributions_where_arguments_stop_mattering():
    assert ik.NegativeBinomial(2, 1).law == ik.NegativeBinomial(5, 1).law == (0, 0)
    assert ik.NegativeBinomial(2, R(1, 2)).law != ik.NegativeBinomial(1, R(1, 3)).law
    assert ik.Multinomial(0, R(1, 2), R(1, 2)).law == ik.Multinomial(0, R(1, 3), R(2, 3)).law
    assert ik.Multinomial(1, R(1, 2), R(1, 2)).law != ik.Multinomial(2, R(1, 2), R(1, 2)).law


# What check makes of them

LATENTS = [
    ("z ~ Exponential(1); observe x ~ Normal(z^2, 1)", "GLOBAL"),
    ("z ~ Gamma(2, 1); observe x ~ Normal(z^2, 1)", "GLOBAL"),
    ("z ~ LogNormal(0, 1); observe x ~ Poisson(z^2)", "GLOBAL"),
    ("z ~ Uniform(1, 2); observe x ~ Normal(z^2, 1)", "GLOBAL"),
    ("z ~ Uniform(-1, 1); observe x ~ Normal(z^2, 1)", "LOCAL"),
    ("z ~ Laplace(0, 1); observe x ~ Normal(z^2, 1)", "LOCAL"),
    ("z ~ StudentT(3, 0, 1); observe x ~ Cauchy(z^3, 1)", "GLOBAL"),
    ("z ~ Exponential(1); observe x ~ Normal(0, z)", "GLOBAL"),
    ("z ~ Normal(0, 1); observe x ~ StudentT(3, w*z, s)", "GLOBAL"),
    ("z ~ Normal(0, 1); observe x ~ Uniform(z, z + 1)", "GLOBAL"),
    ("z ~ Normal(0, 1); observe x ~ Uniform(0, 1)", "CONSTANT"),
    ("z[2] ~ Beta(1, 2); observe x[2] ~ Uniform(0, z)", "GLOBAL"),
    ("z[2] ~ Beta(1, 2); observe x[2] ~ Uniform(z, [1, 2])", "GLOBAL"),
    ("z[2] ~ Exponential(1); observe x ~ Normal(z[1] + z[2], 1)", "PARTIAL"),
    ("z[2] ~ Normal(0, 1); observe x ~ Geometric(sigmoid(z[1] + z[2]))", "PARTIAL"),
    ("z ~ Normal(0, 1); observe x ~ NegativeBinomial(exp(z), 1/2)", "GLOBAL"),
    ("z ~ Normal(0, 1); observe x ~ Multinomial(3, sigmoid(z), 1 - sigmoid(z))", "GLOBAL"),
    (
        "a ~ Beta(2, 2); observe x ~ Mixture([a/2, a/2, 1 - a], Gamma(1, 1), Gamma(2, 1), Gamma(3, 1))",
        "GLOBAL",
    ),
    ("n ~ Geometric(1/2); observe x ~ Normal(n, 1)", "GLOBAL"),
]


@pytest.mark.parametrize(("text", "level"), LATENTS)
def test_levels(text, level):
    verdict = ik.check(parse(text))
    assert verdict.level is Level[level], verdict
    assert verdict.certificate is not None and verdict.certificate.verify()


@pytest.mark.parametrize(
    "text",
    [
        "z ~ Uniform(-1, 2); observe x ~ Normal(z^2, 1)",
        "z ~ Dirichlet(1, 1, 1); observe x ~ Normal(z[1] + z[2] + z[3], 1)",
        "z ~ Dirichlet(1, 1, 1); observe x ~ Normal(max(z[1] - 2, 0), 1)",
        # U(0, 1)/2 + U(1, 2)/2 = U(0, 2), so the weights are not determined.
        "a ~ Beta(1, 1); observe x ~ Mixture([a/2, a/2, 1 - a], Uniform(0, 1), Uniform(1, 2), Uniform(0, 2))",
        "n ~ NegativeBinomial(2, 1); observe x ~ Normal(n, 1)",
    ],
)
def test_what_is_not_proved_is_not_claimed(text):
    m = parse(text)
    verdict = ik.check(m)
    assert Level.GLOBAL not in verdict.latents.values() and Level.PARTIAL not in verdict.latents.values(), (
        verdict
    )


def test_a_share_that_the_law_reads_off_is_identified_and_the_rest_left_open():
    verdict = ik.check(parse("z ~ Dirichlet(1, 1); observe x ~ Normal(z[1], 1)"))
    assert verdict.latents == {"z[1]": Level.GLOBAL, "z[2]": Level.UNKNOWN}
    assert verdict.certificate is not None and verdict.certificate.verify()


def test_latents_on_a_simplex_are_informed_on_data_and_measured_as_shares():
    m = parse("z ~ Dirichlet(2, 3); observe x ~ Normal(w*z[1], 1)")
    verdict = ik.check(m, data={"x": 1}, at={"w": 1})
    assert verdict.level is Level.INFORMED
    assert verdict.certificate is not None and verdict.certificate.verify()
    assert ik.check(m, about="joint").level is Level.UNKNOWN
    found = ik.collapse(m, [[1.0], [-2.0]], at={"w": 1})
    alone = ik.collapse(parse("z ~ Beta(2, 3); observe x ~ Normal(w*z, 1)"), [[1.0], [-2.0]], at={"w": 1})
    assert found.kl.tolist() == pytest.approx(alone.kl.tolist(), abs=1e-9)
    assert found.kl_per_latent[:, 0].tolist() == pytest.approx(alone.kl.tolist(), abs=1e-9)


def test_a_likelihood_that_ignores_one_count_of_two_is_no_proof_that_the_data_do():
    # k[2] = 2 - k[1], so the data determine both although the law mentions one.
    m = parse("k ~ Multinomial(2, p, 1 - p); observe x ~ Normal(k[1], 1)")
    assert set(ik.check(m).latents.values()) == {Level.UNKNOWN}
    with pytest.raises(ValueError, match="fixed sum"):
        ik.collapse(m, [[1.0]], at={"p": 0.5})


def test_dirichlet_probabilities_sum_to_one_by_themselves():
    m = parse("p ~ Dirichlet(a, b); observe x[2] ~ Categorical(p)")
    assert not [c for c in m.conditions() if "sum" in c.role]
    assert ik.check(m, about="parameters").level is Level.GLOBAL


def test_a_mixture_whose_components_change_with_the_latent_is_left_open():
    # z and -z have one law. That the list of components differs is no proof.
    m = parse("z ~ Normal(0, 1); observe x ~ Mixture([1/2, 1/2], Normal(z, 1), Normal(-z, 1))")
    for about in ("latents", "joint"):
        assert ik.check(m, about=about).latents["z"] is Level.UNKNOWN
    seen = parse(f"{written(m)}\nobserve y ~ Normal(z, 1)")
    assert ik.check(seen).level is Level.GLOBAL


PARAMETERS = [
    ("parameter t > 0; observe x ~ Uniform(0, t)", {"t": "GLOBAL"}),
    ("observe x ~ StudentT(d, a, s)", {"d": "GLOBAL", "a": "GLOBAL", "s": "GLOBAL"}),
    ("observe x ~ NegativeBinomial(r, p)", {"r": "GLOBAL", "p": "GLOBAL"}),
    ("z ~ Gamma(r, b); observe x ~ Poisson(z)", {"r": "GLOBAL", "b": "GLOBAL"}),
    ("observe x ~ Dirichlet(a, a*b, c)", {"a": "GLOBAL", "b": "GLOBAL", "c": "GLOBAL"}),
    ("parameter w > 0; z ~ Exponential(t); observe x ~ Poisson(w*z)", {"w": "PARTIAL", "t": "PARTIAL"}),
]


@pytest.mark.parametrize(("text", "levels"), PARAMETERS)
def test_levels_of_parameters(text, levels):
    found = ik.check(parse(text), about="parameters").parameters
    assert {name: level.value for name, level in found.items()} == levels


@pytest.mark.parametrize("family", ["Uniform(0, {})", "StudentT(3, {}, 1)"])
def test_mixtures_of_families_without_a_theorem_are_left_open(family):
    parts = ", ".join(family.format(name) for name in "abc")
    m = parse(
        f"parameter a > 0; parameter b > 0; parameter c > 0; observe x ~ Mixture([p, q, 1 - p - q], {parts})"
    )
    assert ik.check(m, about="parameters").level is Level.UNKNOWN


def test_translations_do_not_keep_a_prior_with_ends():
    for prior in ("Uniform(0, 1)", "Exponential(1)"):
        verdict = ik.check(parse(f"z[2] ~ {prior}; observe x ~ Normal(z[1] + z[2], 1)"))
        assert [found.preserves_prior for found in verdict.invariances] == [False]


# Quadrature


@pytest.mark.parametrize(
    ("prior", "statistic", "value"),
    [
        ("LogNormal(0, 1/2)", lambda z: z**2, math.exp(0.5)),
        ("Exponential(2)", lambda z: z**3, 6 / 8),
        ("Gamma(3, 2)", lambda z: z**2, 3.0),
        ("InverseGamma(9, 2)", lambda z: 1 / z, 4.5),
        ("Uniform(-1, 2)", lambda z: z**2, 1.0),
        ("Laplace(1, 2)", lambda z: (z - 1) ** 2, 8.0),
        ("StudentT(5, 1, 2)", lambda z: (z - 1) / (5 + (z - 1) ** 2 / 4) ** 0.5 + 1, 1.0),
        ("Cauchy(0, 1)", lambda z: 1 / (1 + z**2), 0.5),
    ],
)
def test_the_rule_of_each_prior_is_exact_for_its_polynomials(prior, statistic, value):
    nodes, weights = prior_rule(compiled(parse(f"z ~ {prior}; observe x ~ Normal(z, 1)")), 12)
    assert weights.sum().item() == pytest.approx(1)
    assert (weights @ statistic(nodes[:, 0])).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "prior", ["Exponential(1)", "Gamma(2, 1)", "Uniform(-1, 2)", "Laplace(0, 1)", "LogNormal(0, 1)"]
)
def test_a_flat_likelihood_collapses_and_another_does_not(prior):
    m = parse(f"z ~ {prior}; observe x ~ Normal(w*z, 1)")
    flat, informed = (ik.collapse(m, [[1.0]], at={"w": w}) for w in (0, 1))
    assert flat.kl.item() <= flat.kl_error.item()
    z = np.linspace(-40, 40, 400_001)
    known = {
        "E": scipy.stats.expon(),
        "G": scipy.stats.gamma(2),
        "U": scipy.stats.uniform(-1, 3),
        "La": scipy.stats.laplace(),
        "Lo": scipy.stats.lognorm(1),
    }
    p = next(law for start, law in known.items() if prior.startswith(start)).pdf(z)
    likelihood = np.exp(-((1 - z) ** 2) / 2)
    step = z[1] - z[0]
    q = p * likelihood / (p * likelihood).sum() / step
    kl = (q * np.log(np.where(q > 0, likelihood / (p * likelihood).sum() / step, 1))).sum() * step
    assert informed.kl.item() == pytest.approx(kl, abs=1e-3)


def test_every_family_is_in_the_table():
    assert set(FAMILIES) >= {family.name for family in ALL}
    assert all(getattr(ik, name) is FAMILIES[name] for name in FAMILIES)

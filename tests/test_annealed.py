"""Annealing against closed forms and quadrature; what it cannot do it has to say."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td

from identkit.classical.linear_gaussian import PPCA, FactorAnalysis
from identkit.model.compiled import compiled
from identkit.model.model import Model
from identkit.model.protocol import Continuous
from identkit.posterior.annealed import annealed
from identkit.posterior.conditional import conditional_information
from identkit.posterior.information import collapse
from identkit.posterior.quadrature import integrate
from identkit.posterior.unbounded import unbounded
from identkit.zoo import CASES

LINE = (-math.inf, math.inf)
X = torch.tensor([0.0, 1.0, 3.0, -1.0], dtype=torch.float64)


def normal(k, loc=0.0):
    return td.Normal(torch.full((k,), loc, dtype=torch.float64), 1.0)


def near(estimate, error, truth, errors=5.0, slack=1e-6):
    """Within so many standard errors; 5 of a Student t with 7 degrees of freedom leave 1 in 600 outside."""
    return bool(((estimate - truth).abs() <= errors * error + slack * (1 + truth.abs())).all())


# Closed forms


def random_ppca(k, d, noise, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loadings = torch.randn(d, k, generator=generator, dtype=torch.float64) / math.sqrt(k)
    model = PPCA(loadings, noise)
    return model, model.sample(n, generator)[0]


def of(model, x, **options):
    """Anneal an exact linear Gaussian model, its likelihood written out anew: the model's own carries no gradient."""
    scales = model.sigma if isinstance(model, PPCA) else model.scales
    law = lambda z: td.Normal(z @ model.loadings.T, scales)
    return annealed(model.prior, lambda rows, z: law(z).log_prob(x[rows]).sum(1), len(x), **options)


@pytest.mark.parametrize(("k", "d", "noise"), [(2, 3, 0.5), (2, 4, 1e-3), (8, 12, 0.3)])
def test_linear_gaussian(k, d, noise):
    model, x = random_ppca(k, d, noise, 6)
    found = of(model, x)
    assert bool(found.converged.all())
    assert near(found.kl, found.kl_error, model.kl_to_prior(x))
    assert near(found.log_evidence, found.log_evidence_error, model.log_evidence(x))
    assert near(found.kl_conditional, found.kl_conditional_error, model.kl_conditional(x), errors=9.0)
    assert bool((found.kl_error < 0.05 * (1 + model.kl_to_prior(x))).all())
    mean, sd = model.posterior_moments(x)
    assert bool(((found.mean - mean).abs() < 6 * sd / found.effective_draws[:, None].sqrt()).all())
    assert torch.allclose(found.weights.sum(0), torch.ones(6, dtype=torch.float64))


def test_factor_analysis():
    generator = torch.Generator().manual_seed(3)
    loadings = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    model = FactorAnalysis(loadings, torch.linspace(0.1, 2, 5, dtype=torch.float64))
    x, _ = model.sample(4, generator)
    found = of(model, x)
    assert bool(found.converged.all())
    assert near(found.kl, found.kl_error, model.kl_to_prior(x))


@pytest.mark.slow
def test_64_latents():
    model, x = random_ppca(64, 80, 0.5, 2)
    found = of(model, x, lines=8)
    truth = model.kl_to_prior(x)
    assert bool(found.converged.all())
    assert near(found.kl, found.kl_error, truth)
    assert bool((found.kl_error < 0.01 * truth).all())
    # From eight draws a single entry, as skewed as χ²₁, has no t-interval worth the name; their mean over latents has.
    error = found.kl_conditional_error.square().mean(1).sqrt()
    assert near(found.kl_conditional.mean(1), error, model.kl_conditional(x).mean(1), errors=3.0)


@pytest.mark.slow
def test_coverage_is_that_of_student_t():
    """With 7 degrees of freedom 8.6% fall outside two standard errors and 2.0% outside three."""
    model, x = random_ppca(2, 3, 0.1, 150)
    found = of(model, x, particles=64, lines=0)
    away = ((found.kl - model.kl_to_prior(x)) / found.kl_error).abs()
    assert bool(found.converged.all())
    assert 0.02 <= (away > 2).double().mean() <= 0.16
    assert (away > 3).double().mean() <= 0.06


# Quadrature


def against_quadrature(prior, ends, log_likelihood, n=4, **options):
    found = annealed(prior, log_likelihood, n, **options)
    exact = integrate(
        lambda z: prior.log_prob(z).sum(1), log_likelihood, [Continuous(*ends)] * found.samples.shape[2], n
    )
    settled = found.converged
    assert near(found.kl[settled], found.kl_error[settled], exact.kl[settled], errors=6.0)
    assert near(
        found.log_evidence[settled],
        found.log_evidence_error[settled],
        exact.log_evidence[settled],
        errors=6.0,
    )
    assert near(
        found.kl_conditional[settled],
        found.kl_conditional_error[settled],
        exact.kl_conditional[settled],
        errors=8.0,
    )
    return found


SMOOTH = {
    "H25": (
        normal(1),
        LINE,
        lambda rows, z: td.Bernoulli(logits=0.2 * z[:, 0] - 1).log_prob(X[rows].sign().abs()),
    ),
    "square": (normal(1), LINE, lambda rows, z: td.Normal(z[:, 0] ** 2, 0.5).log_prob(X[rows])),
    "sharp square": (normal(1), LINE, lambda rows, z: td.Normal(z[:, 0] ** 2, 0.02).log_prob(X[rows])),
    "fold": (normal(1), LINE, lambda rows, z: td.Normal(z[:, 0].abs(), 0.1).log_prob(X[rows])),
    "sine": (normal(1), LINE, lambda rows, z: td.Normal((5 * z[:, 0]).sin(), 0.3).log_prob(X[rows] / 3)),
    "needle": (normal(1), LINE, lambda rows, z: td.Normal(z[:, 0], 1e-3).log_prob(X[rows])),
    "product": (normal(2), LINE, lambda rows, z: td.Normal(z[:, 0] * z[:, 1], 0.5).log_prob(X[rows])),
    "uniform": (
        td.Uniform(torch.zeros(2, dtype=torch.float64), 1.0),
        (0.0, 1.0),
        lambda rows, z: td.Normal(z[:, 0] + z[:, 1] ** 2, 0.1).log_prob(X[rows] / 3 + 0.3),
    ),
    "beta": (
        td.Beta(torch.full((1,), 5.0, dtype=torch.float64), 5.0),
        (0.0, 1.0),
        lambda rows, z: td.Bernoulli(z[:, 0]).log_prob((X[rows] > 0).double()),
    ),
    "exponential": (
        td.Exponential(torch.ones(1, dtype=torch.float64)),
        (0.0, math.inf),
        lambda rows, z: X[rows].abs() * torch.log(z[:, 0]) - z[:, 0],
    ),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_quadrature(name):
    found = against_quadrature(*SMOOTH[name])
    assert int(found.converged.sum()) >= 3


@pytest.mark.slow
def test_banana():
    def log_likelihood(rows, z):
        bent = td.Normal(z[:, 0] ** 2 + z[:, 1], 0.2).log_prob(X[rows])
        return bent + td.Normal(z[:, 0], 0.5).log_prob(X[rows])

    assert bool(against_quadrature(normal(2), LINE, log_likelihood).converged.all())


def zoo():
    """Declared models of the zoo with one to three continuous, independent latents and no discrete one."""
    for name, case in CASES.items():
        if case.about != "latents" or case.data is not None or not isinstance(case.model, str):
            continue
        model = case.build()
        if not isinstance(model, Model) or name == "count":
            continue
        face = compiled(model, case.numbers or None)
        if all(isinstance(axis, Continuous) for axis in face.axes) and 1 <= len(face.axes) <= 3:
            yield name, face


def prior_in_torch(face):
    """The prior as a torch distribution, where all latents have one family and no parents; else None."""
    families = {"Normal": td.Normal, "Uniform": td.Uniform, "Beta": td.Beta, "Gamma": td.Gamma}
    laws = [statement.family for statement in face.model.latents for _ in statement.symbols]
    names = {law.name for law in laws}
    if len(names) != 1 or not names <= families.keys() or any(law.free_symbols for law in laws):
        return None
    numbers = torch.tensor([[float(a) for a in law.arguments] for law in laws], dtype=torch.float64)
    return families[names.pop()](numbers[:, 0], numbers[:, 1])


ZOO = {name: (face, prior) for name, face in zoo() if (prior := prior_in_torch(face)) is not None}


def test_the_zoo_has_models_to_run_on():
    assert len(ZOO) >= 20


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name):
    """Annealing agrees with quadrature within its stated error wherever it says that it converged."""
    face, prior = ZOO[name]
    x, _ = face.sample(2, torch.Generator().manual_seed(7))
    exact = collapse(face.model, x)
    found = annealed(prior, lambda rows, z: face.log_likelihood(x[rows], z), 2, particles=128)
    good = found.converged
    assert near(found.kl[good], found.kl_error[good], exact.kl[good], errors=8.0)
    assert near(
        found.kl_conditional[good], found.kl_conditional_error[good], exact.kl_conditional[good], errors=8.0
    )


# Collapse


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_flat_likelihoods_have_no_information(scale):
    found = annealed(normal(3), lambda rows, z: scale * td.Normal(0.3, 1.0).log_prob(X[rows]), len(X))
    assert bool(found.converged.all())
    assert float(found.kl.abs().max()) <= 1e-12
    assert float(found.kl_conditional.abs().max()) <= 1e-12


def test_an_ignored_latent_has_no_conditional_information():
    found = annealed(normal(2), lambda rows, z: td.Normal(z[:, 0], 0.1).log_prob(X[rows]), len(X))
    assert bool(found.converged.all())
    assert float(found.kl_conditional[:, 1].abs().max()) <= 1e-12
    assert float(found.kl_conditional[:, 0].min()) > 1


def test_nearly_flat_likelihoods_have_a_small_relative_error():
    """KL of N(x w/(1 + w²), 1/(1 + w²)) to N(0, 1): about x²w²/2 + w⁴/4."""
    w = 1e-4
    found = annealed(normal(1), lambda rows, z: td.Normal(w * z[:, 0], 1.0).log_prob(X[rows]), len(X))
    truth = 0.5 * (1 / (1 + w**2) + (X * w / (1 + w**2)).square() - 1 + math.log1p(w**2))
    assert bool(((found.kl - truth).abs() <= 0.2 * truth + 1e-12).all())


# What it cannot do, it says


def test_an_impossible_region_is_left():
    """ℓ = −∞ on half of the prior: KL = log 2 plus what is left."""
    found = annealed(normal(2), lambda rows, z: torch.where(z[:, 0] > 0, 0.0 * z[:, 1], -math.inf), 2)
    assert near(found.kl, found.kl_error, torch.full((2,), math.log(2), dtype=torch.float64))


def test_too_few_rungs_did_not_converge():
    model, x = random_ppca(2, 4, 1e-3, 2)
    found = of(model, x, rungs=3, particles=64)
    assert not bool(found.converged.any())
    assert "did not reach the posterior" in found.reasons[0][0]


def test_isolated_modes_that_populations_share_differently_did_not_converge():
    """A hundred narrow peaks in eight dimensions: no population meets them in the same proportions."""

    def log_likelihood(rows, z):
        return td.Normal((8 * z).sin(), 0.005).log_prob(torch.full_like(z, 0.5)).sum(1)

    found = annealed(normal(8), log_likelihood, 2, particles=64, lines=0)
    assert not bool(found.converged.any())


# Reproducible, and at the door


def test_a_seed_fixes_everything_and_touches_nothing():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    prior, _, log_likelihood = SMOOTH["square"]
    one, two, other = (annealed(prior, log_likelihood, 4, particles=32, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.kl, two.kl)
    assert not torch.equal(one.kl, other.kl)


def test_single_precision_priors_are_taken_for_what_they_say():
    prior = td.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    found = annealed(prior, lambda rows, z: td.Normal(z[:, 0], 0.5).log_prob(X[rows]), len(X))
    # What z_1 says about itself: z_2 is ignored given z_1 (theory/T3), although its marginal moves.
    assert float(found.kl_conditional[:, 1].abs().max()) <= 1e-12
    truth = 0.5 * (0.2 + (0.8 * X).square() - 1 - math.log(0.2))
    assert near(found.kl, found.kl_error, truth)


def test_conditional_information_finds_the_peak_that_no_draw_shows():
    """z² has a second mode; all draws stand on the first."""
    for noise in (0.5, 0.01, 1e-4):
        z = X[1:3].sqrt()[None, :, None]

        def log_likelihood(rows, z, noise=noise):
            return td.Normal(z[:, 0] ** 2, noise).log_prob(X[1:3][rows])

        value, error = conditional_information(unbounded(normal(1)), log_likelihood, z)
        exact = integrate(
            lambda z: normal(1).log_prob(z)[:, 0], log_likelihood, [Continuous(*LINE)], 2
        ).kl_conditional
        assert bool(((value[0] - exact).abs() <= error[0] + 1e-6).all())
        assert float(error.max()) < 0.05


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (td.Bernoulli(torch.full((2,), 0.5)), "continuous"),
        (td.Dirichlet(torch.ones(3)), "continuous"),
        (td.Poisson(torch.ones(1)), "continuous"),
    ],
)
def test_priors_without_a_gradient_are_refused(prior, message):
    with pytest.raises(ValueError, match=message):
        annealed(prior, lambda rows, z: z.sum(1), 1)


def test_bad_likelihoods_are_refused():
    with pytest.raises(ValueError, match="finite or -inf, got nan for datum 0"):
        annealed(normal(1), lambda rows, z: z[:, 0] * math.nan, 2)
    with pytest.raises(ValueError, match="one number for each"):
        annealed(normal(2), lambda rows, z: z, 2)
    with pytest.raises(ValueError, match="carries no gradient"):
        annealed(normal(1), lambda rows, z: z[:, 0].detach(), 2)
    with pytest.raises(ValueError, match="populations should be at least 4"):
        annealed(normal(1), lambda rows, z: z[:, 0], 2, populations=2)

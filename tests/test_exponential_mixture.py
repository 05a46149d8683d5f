"""Mixtures of exponential families against 50-digit arithmetic, SciPy, the declared model and simulation."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import scipy.stats
import torch
from numpy.testing import assert_allclose
from torch import distributions as laws

from identkit.classical.mixtures import FamilyMixture
from identkit.posterior.bounds import band
from identkit.posterior.information import collapse
from tests.many_digits import bayes

FAMILIES = ("Poisson", "Exponential", "Bernoulli", "Binomial", "Geometric", "Gamma")
TRIALS = 30


def law(family: str, *parameters: Any) -> laws.Distribution:
    tensors = [torch.as_tensor(parameter, dtype=torch.float64) for parameter in parameters]
    return laws.Binomial(TRIALS, tensors[0]) if family == "Binomial" else getattr(laws, family)(*tensors)


def log_density(family: str, x: float, *parameters: float) -> Any:
    """In mpmath, at its working precision."""
    x, a, *rest = mp.mpf(float(x)), *[mp.mpf(float(p)) for p in parameters]
    if family == "Poisson":
        return x * mp.log(a) - a - mp.loggamma(x + 1)
    if family == "Exponential":
        return mp.log(a) - a * x
    if family == "Geometric":
        return mp.log(a) + x * mp.log(1 - a)
    if family == "Gamma":
        return a * mp.log(rest[0]) + (a - 1) * mp.log(x) - rest[0] * x - mp.loggamma(a)
    trials = TRIALS if family == "Binomial" else 1
    return mp.log(mp.binomial(trials, x)) + x * mp.log(a) + (trials - x) * mp.log(1 - a)


def truth(family: str, weights: Any, parameters: Any, x: Any) -> dict[str, Any]:
    """Posterior, evidence, KL and V at one datum, in 50 digits; parameters (P, K, d)."""
    with mp.workdps(50):
        logs = [
            sum(log_density(family, value, *parameters[:, k, i]) for i, value in enumerate(x))
            for k in range(len(weights))
        ]
        return bayes(weights, logs)


def random_case(family: str, seed: int) -> tuple[Any, Any, Any]:
    """Components from 1e-12 (relative) apart to far, one to three columns; weights, parameters, one datum."""
    rng = np.random.default_rng((seed, FAMILIES.index(family)))
    count, d = rng.integers(2, 5), rng.integers(1, 4)
    apart = 10.0 ** rng.uniform(-12, 0)
    change = 1 + apart * rng.uniform(-0.9, 0.9, size=(2, count, d))
    if family in ("Bernoulli", "Binomial", "Geometric"):
        parameters = (rng.uniform(0.02, 0.5, size=d) * change)[:1]
    else:
        parameters = (10.0 ** rng.uniform(-2, 2, size=(2, 1, d)) * change)[: 2 if family == "Gamma" else 1]
    weights = rng.dirichlet(np.ones(count))
    x = law(family, *parameters[:, 0]).sample().numpy() + (1 if family == "Poisson" else 0)
    return weights, parameters, x


def mixture(family: str, weights: Any, parameters: Any) -> FamilyMixture:
    return FamilyMixture(weights, laws.Independent(law(family, *parameters), 1))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("family", FAMILIES)
def test_right_at_every_distance_in_50_digits(family: str, seed: int) -> None:
    weights, parameters, x = random_case(family, seed)
    model, exact = mixture(family, weights, parameters), truth(family, weights, parameters, x)
    kl, error = mp.mpf(model.kl_to_prior(x[None]).item()), model.kl_error(x[None]).item()
    assert abs(kl - exact["kl"]) <= error
    assert abs(kl - exact["kl"]) <= max(1e-9 * exact["kl"], mp.mpf(1e-27))
    assert_allclose(model.posterior(x[None]).probs[0], [float(r) for r in exact["mass"]], rtol=1e-10)
    assert_allclose(model.log_evidence(x[None]).item(), float(exact["evidence"]), rtol=1e-11, atol=1e-12)
    flatness = model.flatness(x[None])
    assert abs(mp.mpf(flatness.variance.item()) - exact["variance"]) <= flatness.variance_error.item()
    low, high, _ = band(flatness)
    assert low.item() - error <= kl <= high.item() + error


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_components_give_the_prior_back_exactly(family: str) -> None:
    weights, parameters, x = random_case(family, 3)
    silent = mixture(family, weights, np.repeat(parameters[:, :1], len(weights), axis=1))
    assert silent.kl_to_prior(x[None]).item() == 0.0 < silent.kl_error(x[None]).item() < 1e-200
    assert torch.equal(silent.posterior(x[None]).probs[0], silent.prior.probs)
    assert silent.flatness(x[None]).variance.item() == silent.flatness(x[None]).oscillation.item() == 0.0
    assert silent.mutual_information().value == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_declared_model_gives_the_same(family: str) -> None:
    parameters = [[0.2, 0.7]] if family in ("Bernoulli", "Binomial", "Geometric") else [[0.75, 4.0]]
    if family == "Gamma":
        parameters.append([1.5, 0.5])
    model = FamilyMixture([0.25, 0.75], law(family, *parameters))
    x = torch.tensor([[0.0], [1.0]]) if family != "Gamma" else torch.tensor([[0.5], [3.0]])
    declared = collapse(model.symbolic(), x.double())
    assert_allclose(model.kl_to_prior(x.double()), declared.kl, rtol=1e-9)
    assert_allclose(model.log_evidence(x.double()), declared.log_evidence, rtol=1e-10)
    assert_allclose(model.posterior_moments(x.double())[0], declared.posterior_mean, rtol=1e-9)


def test_mutual_information_by_three_roads() -> None:
    weights = np.array([0.3, 0.7])
    for family, parameters, method in (
        ("Geometric", [[0.2, 0.6]], "quadrature"),
        ("Binomial", [[0.2, 0.5]], "closed form"),
        ("Exponential", [[1.0, 8.0]], "quadrature"),
        ("Gamma", [[0.3, 4.0], [1.0, 2.0]], "quadrature"),
    ):
        model = FamilyMixture(weights, law(family, *parameters))
        found = model.mutual_information()
        assert found.method == method
        assert found.error < 1e-10
        kl = model.kl_to_prior(model.sample(20_000, torch.Generator().manual_seed(2))[0])
        assert abs(found.value - kl.mean().item()) < 5 * kl.std().item() / math.sqrt(len(kl))
    # The textbook formula H(x) − H(x | k), summed by SciPy.
    x = np.arange(200)
    each = scipy.stats.poisson(np.array([[1.0], [4.0]])).pmf(x)
    mixed = weights @ each
    expected = (weights[:, None] * each * np.log(np.where(each > 0, each, 1) / mixed)).sum()
    found = FamilyMixture(weights, law("Poisson", [1.0, 4.0])).mutual_information()
    assert abs(found.value - expected) <= found.error + 1e-13
    wide = FamilyMixture(weights, laws.Independent(law("Poisson", [[1.0, 2.0], [2.0, 3.0]]), 1))
    simulated = wide.mutual_information()
    assert simulated.method == "Monte Carlo"
    each = np.einsum(
        "ki,kj->kij",
        *[scipy.stats.poisson(np.array(r)[:, None]).pmf(x[:60]) for r in ([1.0, 2.0], [2.0, 3.0])],
    )
    mixed = np.einsum("k,kij->ij", weights, each)
    exact = (
        weights[:, None, None] * each * np.log(np.maximum(each, 1e-300) / np.maximum(mixed, 1e-300))
    ).sum()
    assert abs(simulated.value - exact) < 5 * simulated.error


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fit_is_a_stationary_point_that_no_start_beats(family: str) -> None:
    true = [[0.1, 0.7]] if family in ("Bernoulli", "Binomial", "Geometric") else [[1.0, 8.0]]
    if family == "Gamma":
        true = [[2.0, 30.0], [1.0, 3.0]]
    # Six columns: a mixture of Bernoulli laws in one would be no model at all.
    parameters = np.repeat(np.array(true)[:, :, None], 6, axis=2)
    x, _ = mixture(family, [0.4, 0.6], parameters).sample(300, torch.Generator().manual_seed(5))
    fitted = FamilyMixture.fit(
        x,
        getattr(laws, family),
        2,
        total_count=TRIALS if family == "Binomial" else None,
        tolerance=1e-9,
        restarts=2,
    )
    convergence = fitted.convergence
    assert convergence is not None and convergence.converged
    assert (np.diff(convergence.history) >= 0).all()
    assert_allclose(convergence.log_likelihood, fitted.log_evidence(x).sum().item(), rtol=1e-12)
    assert convergence.log_likelihood >= mixture(family, [0.4, 0.6], parameters).log_evidence(x).sum().item()
    # No small step improves it: the likelihood's slope in every parameter is zero.
    for p in range(len(fitted.parameters)):
        for k in range(2):
            for factor in (0.999, 1.001):
                moved = fitted.parameters.clone()
                moved[p, k, 0] *= factor
                other = mixture(family, fitted.weights, moved.numpy()).log_evidence(x).sum().item()
                assert other <= convergence.log_likelihood + 1e-7


def test_a_fit_with_a_fixed_shape_and_a_given_start() -> None:
    x, _ = FamilyMixture([0.5, 0.5], law("Gamma", [3.0, 3.0], [1.0, 9.0])).sample(
        200, torch.Generator().manual_seed(1)
    )
    fitted = FamilyMixture.fit(x, laws.Gamma, 2, shape=3, restarts=1)
    assert fitted.parameters[0].tolist() == [[3.0], [3.0]]
    again = FamilyMixture.fit(x, laws.Gamma, 2, shape=3, start=fitted)
    assert again.convergence is not None and len(again.convergence.restarts) == 1
    assert_allclose(again.parameters, fitted.parameters, rtol=1e-3)


def test_a_component_without_data_gets_weight_zero_and_keeps_its_parameters() -> None:
    x = np.array([[0.0], [1.0], [2.0], [1.0]])
    start = FamilyMixture([1 - 1e-13, 1e-13], law("Poisson", [1.0, 5000.0]))
    fitted = FamilyMixture.fit(x, laws.Poisson, 2, start=start)
    assert fitted.weights.tolist() == [1.0, 0.0]
    assert fitted.parameters[0].tolist() == [[1.0], [5000.0]]
    assert fitted.kl_to_prior(x).tolist() == [0.0] * 4


def test_chunks_single_precision_and_no_rows() -> None:
    weights, parameters, _ = random_case("Poisson", 1)
    model = mixture("Poisson", weights, np.repeat(parameters, 4, axis=2))
    x, z = model.sample(60_000, torch.Generator().manual_seed(0))
    whole, few = model.posterior(x).logits, model.posterior(x[51_456:51_466]).logits
    assert_allclose(whole[51_456:51_466], few, rtol=1e-13)
    single = model.posterior(x[:50].float())
    assert single.probs.dtype == model.log_evidence(x[:50].float()).dtype == torch.float32
    assert_allclose(single.probs, model.posterior(x[:50]).probs, rtol=1e-5)
    assert model.kl_to_prior(x[:0]).shape == (0,)
    assert model.responsibilities(x[:0]).shape == (0, len(weights))
    assert_allclose(
        model.log_likelihood(x[:4], z[:4]), model._log_densities(x[:4])[range(4), z[:4, 0].long()]
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FamilyMixture([0.5, 0.5], law("Poisson", [1.0, 0.0])), "positive rate, got 0.0"),
        (lambda: FamilyMixture([0.5, 0.5], law("Bernoulli", [1.0, 0.5])), r"probs inside \(0, 1\), got 1.0"),
        (lambda: FamilyMixture([0.5, 0.5], law("Poisson", 1.0)), r"batch shape \(K,\)"),
        (lambda: FamilyMixture([0.5, 0.4], law("Poisson", [1.0, 2.0])), "weights should sum to one"),
        (
            lambda: FamilyMixture([0.5, 0.5], law("Poisson", [1.0, 2.0])).posterior([-1]),
            "x should hold counts",
        ),
        (lambda: FamilyMixture([0.5, 0.5], law("Poisson", [1.0, 2.0])).posterior([0.5]), "got 0.5 at index"),
        (lambda: FamilyMixture([0.5, 0.5], law("Poisson", [1.0, 2.0])).posterior([math.nan]), "finite"),
        (lambda: FamilyMixture.fit([1.0, 2.0], laws.Binomial, 2), "total_count should be given"),
        (lambda: FamilyMixture.fit([1.0, 2.0], laws.Poisson, 3), r"components should be in 2..2"),
    ],
)
def test_bad_input_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_other_families_are_refused() -> None:
    with pytest.raises(TypeError, match="got Normal"):
        FamilyMixture([0.5, 0.5], laws.Normal(torch.zeros(2), torch.ones(2)))
    with pytest.raises(TypeError, match="got Normal"):
        FamilyMixture.fit([1.0, 2.0], laws.Normal, 2)


def test_information_of_gamma_laws_with_mass_below_the_least_number() -> None:
    # Of shape 1e-3 half of the mass lies below 1e-301; apart from that, x is 0 against x of the order of one.
    model = FamilyMixture([0.5, 0.5], law("Gamma", [1e-3, 1.0], [1.0, 1.0]))
    with mp.workdps(30):

        def term(t: Any) -> Any:
            one, two = (mp.exp(a * t - mp.exp(t) - mp.loggamma(a)) / 2 for a in (mp.mpf("0.001"), mp.mpf(1)))
            return sum(part * mp.log(2 * part / (one + two)) for part in (one, two) if part > 0)

        exact = mp.quad(term, [-60000, -20000, -5000, -1000, -100, -20, -8, -3, 0, 2, 5])
    found = model.mutual_information()
    assert abs(found.value - exact) <= found.error < 0.5

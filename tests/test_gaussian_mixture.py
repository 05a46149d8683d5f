"""Gaussian mixtures against 60-digit arithmetic, scikit-learn, Bayes' rule and their symmetries."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import sympy
import torch
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture as ScikitMixture

from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.posterior.bounds import band
from identkit.posterior.stable import gaussian_gain, kl_integrand, kl_of_log_ratio
from tests.many_digits import bayes

UNIT = [[[1.0]], [[1.0]]]


def truth(weights: Any, means: Any, covariances: Any, x: Any) -> dict[str, Any]:
    """Responsibilities, KL, V, log evidence and oscillation at one datum, in 60 digits."""
    with mp.workdps(60):
        logs = []
        for mean, covariance in zip(means, covariances, strict=True):
            matrix = mp.matrix([[mp.mpf(float(v)) for v in row] for row in covariance])
            apart = mp.matrix([mp.mpf(float(a)) - mp.mpf(float(b)) for a, b in zip(x, mean, strict=True)])
            square = (apart.T * mp.lu_solve(matrix, apart))[0]
            logs.append(-square / 2 - mp.log(mp.det(matrix)) / 2 - len(x) * mp.log(2 * mp.pi) / 2)
        return bayes(weights, logs)


def random_case(seed: int) -> tuple[Any, Any, Any, Any]:
    """Components from 1e-13 sds apart to far, badly scaled axes, data 1e4 sds out, means at 1e9 sds."""
    rng = np.random.default_rng(seed)
    d, count = rng.integers(1, 4), rng.integers(2, 5)
    factor = rng.normal(size=(d, d)) * 10.0 ** rng.uniform(-3, 3, size=(d, 1))
    base = factor @ factor.T
    base += np.diag(np.diag(base)) / 10
    base = (base + base.T) / 2
    sd = np.sqrt(np.diag(base))
    apart = 10.0 ** rng.uniform(-13, 1)
    offset = 10.0 ** rng.uniform(-3, 9) if seed % 3 == 0 else 0.0
    means = (rng.normal(size=d) + offset + apart * rng.normal(size=(count, d))) * sd
    covariances = []
    for _ in range(count):
        change = rng.normal(size=(d, d))
        covariances.append(base + min(apart, 0.2) * 0.02 * (change + change.T) * np.outer(sd, sd))
    x = means[:1] + rng.normal(size=(1, d)) * sd * 10 ** rng.uniform(-2, 4)
    return rng.dirichlet(np.ones(count)), means, np.array(covariances), x


@pytest.mark.parametrize("seed", range(40))
def test_right_at_every_scale_in_60_digits(seed: int) -> None:
    weights, means, covariances, x = random_case(seed)
    model, exact = GaussianMixture(weights, means, covariances), truth(weights, means, covariances, x[0])
    kl, error = mp.mpf(model.kl_to_prior(x).item()), model.kl_error(x).item()
    assert kl > 0
    assert abs(kl - exact["kl"]) <= min(error, 1e-10 * exact["kl"])
    assert_allclose(model.posterior(x).probs[0], [float(r) for r in exact["mass"]], rtol=1e-10, atol=1e-300)
    assert_allclose(model.log_evidence(x).item(), float(exact["evidence"]), rtol=1e-12)
    flatness = model.flatness(x)
    gap = abs(mp.mpf(flatness.variance.item()) - exact["variance"])
    assert gap <= min(flatness.variance_error.item(), 1e-10 * exact["variance"])
    omega = flatness.oscillation.item()
    assert exact["omega"] <= mp.mpf(omega) * (1 + mp.mpf(2) ** -52)
    assert omega - float(exact["omega"]) <= 1e-3 * float(exact["omega"]) + 1e-7
    low, high, _ = band(flatness)
    assert low.item() - error <= kl <= high.item() + error


@pytest.mark.parametrize("gap", [1e-5, 1e-9, 1e-12])
def test_nearly_equal_components_down_to_1e_25(gap: float) -> None:
    weights, means, covariances = [0.3, 0.7], [[0.0], [gap]], [[[1.0]], [[1.0]]]
    model = GaussianMixture(weights, means, covariances)
    exact = truth(weights, means, covariances, [1.3])["kl"]
    assert_allclose(model.kl_to_prior([1.3]).item(), float(exact), rtol=1e-14)
    assert model.kl_error([1.3]).item() < 1e-3 * float(exact)
    # KL / (½V) → 1 as the components merge: two code paths meet (theory/T4).
    assert_allclose(float(exact) / (model.flatness([1.3]).variance.item() / 2), 1, rtol=3 * gap)


def test_equal_components_collapse_exactly_and_only_they() -> None:
    weights, mean, covariance = [0.2, 0.3, 0.5], [0.1, -3.7], [[1.3, 0.4], [0.4, 0.9]]
    x = torch.tensor([[0.3, 0.7], [1e5, -1e5]], dtype=torch.float64)
    model = GaussianMixture(weights, [mean] * 3, [covariance] * 3)
    assert model.kl_to_prior(x).tolist() == [0.0, 0.0]
    assert torch.equal(model.posterior(x).probs[1], model.prior.probs)
    assert model.flatness(x).variance.tolist() == model.flatness(x).oscillation.tolist() == [0.0, 0.0]
    assert (model.kl_error(x) > 0).all()
    assert (model.kl_error(x) < 1e-200).all()
    moved = GaussianMixture(weights, [mean, mean, [0.1, math.nextafter(-3.7, 0)]], [covariance] * 3)
    assert (moved.kl_to_prior(x) > 0).all()


@pytest.mark.parametrize(
    ("means", "variances", "x"),
    [
        ([-1.0, 1.0], [1.0, 1.0], 0.0),
        ([0.1, 0.2], [1.0, 1.0], 0.15),  # the middle in decimals, not in binary
        ([0.0, 0.0], [1.0, 4.0], math.sqrt(4 / 3 * math.log(4))),
    ],
)
def test_two_components_that_agree_on_one_datum(means: list[float], variances: list[float], x: float) -> None:
    model = GaussianMixture([0.4, 0.6], np.array(means)[:, None], np.array(variances)[:, None, None])
    assert model.kl_to_prior([x]).item() <= model.kl_error([x]).item() < 1e-28
    assert model.flatness([x]).variance.item() <= model.flatness([x]).variance_error.item() < 1e-26
    assert model.kl_to_prior([x + 1e-3]).item() > 1e-9


def test_outliers_ten_thousand_sds_away() -> None:
    weights, means = [0.25, 0.25, 0.5], [[0.0], [1.0], [3.0]]
    for variances in ([1.0, 1.0, 1.0], [1.0, 1.1, 1.0 - 1e-9]):
        covariances = np.array(variances)[:, None, None]
        for x in (1e4, -1e4, 3e7):
            exact = truth(weights, means, covariances, [x])
            model = GaussianMixture(weights, means, covariances)
            assert_allclose(model.kl_to_prior([x]).item(), float(exact["kl"]), rtol=1e-10)
            assert_allclose(model.log_evidence([x]).item(), float(exact["evidence"]), rtol=1e-14)
            assert_allclose(
                model.posterior([x]).probs[0], [float(r) for r in exact["mass"]], rtol=1e-7, atol=1e-300
            )


def test_far_means_with_tiny_scales_do_not_cancel() -> None:
    weights, means, covariances = [0.5, 0.5], [[1e6], [1e6 + 1e-3]], [[[1e-6]], [[1e-6]]]
    model = GaussianMixture(weights, means, covariances)
    for x in (1e6 + 3e-4, 1e6 + 2e-3):
        exact = truth(weights, means, covariances, [x])
        assert_allclose(model.posterior([x]).probs[0], [float(r) for r in exact["mass"]], rtol=1e-14)


def test_scikit_learn_gives_the_same_responsibilities() -> None:
    rng = np.random.default_rng(5)
    weights, means = np.array([0.2, 0.5, 0.3]), rng.normal(size=(3, 4))
    factors = rng.normal(size=(3, 4, 4))
    covariances = factors @ factors.transpose(0, 2, 1) + np.eye(4) / 2
    x = rng.normal(size=(200, 4)) * 2
    theirs = ScikitMixture(3)
    theirs.weights_, theirs.means_, theirs.covariances_ = weights, means, covariances
    theirs.precisions_cholesky_ = np.array([np.linalg.cholesky(np.linalg.inv(c)) for c in covariances])
    ours = GaussianMixture(weights, means, covariances)
    assert_allclose(ours.posterior(x).probs, theirs.predict_proba(x), rtol=1e-10)
    assert_allclose(ours.log_evidence(x), theirs.score_samples(x), rtol=1e-10)


def test_integers_are_converted_at_the_door() -> None:
    model = GaussianMixture([0.5, 0.5], [[0], [1]], [[[1]], [[2]]])
    assert torch.equal(model.posterior(np.array([[1], [3]])).probs, model.posterior([[1.0], [3.0]]).probs)
    assert model.posterior(np.array([3], dtype=np.float16)).probs.dtype == torch.float64
    assert model.posterior(np.array([3], dtype=np.float32)).probs.dtype == torch.float32


def test_bayes_rule_at_random_points() -> None:
    model = GaussianMixture(*random_case(8)[:3])
    x, _ = model.sample(50, torch.Generator().manual_seed(1))
    states = torch.arange(len(model.weights), dtype=torch.float64)[:, None, None].expand(-1, 50, 1)
    joint = model.prior.log_prob(states[..., 0]) + model.log_likelihood(x, states)
    assert_allclose(model.posterior(x).log_prob(states[..., 0]), joint - model.log_evidence(x), atol=1e-9)
    assert_allclose(model.log_likelihood(x, states[1]), model.log_likelihood(x, states)[1])


def test_relabelling_components_relabels_the_posterior() -> None:
    weights, means, covariances, x = random_case(14)
    order = np.random.default_rng(0).permutation(len(weights))
    model = GaussianMixture(weights, means, covariances)
    relabelled = GaussianMixture(weights[order], means[order], covariances[order])
    assert_allclose(relabelled.posterior(x).probs, model.posterior(x).probs[:, order], rtol=1e-10)
    assert_allclose(relabelled.kl_to_prior(x), model.kl_to_prior(x), rtol=1e-10)


def test_a_component_of_weight_zero_is_not_there() -> None:
    x = [[0.3], [9.0]]
    three = GaussianMixture([0.0, 0.5, 0.5], [[9.0], [0.0], [0.0]], [[[1.0]]] * 3)
    assert three.kl_to_prior(x).tolist() == [0.0, 0.0]
    assert three.flatness(x).oscillation.tolist() == [0.0, 0.0]
    assert three.posterior(x).probs[:, 0].tolist() == [0.0, 0.0]
    assert three.prior.log_prob(torch.tensor(0)).item() == -math.inf
    alone = GaussianMixture([0.0, 1.0], [[9.0], [0.0]], UNIT)
    assert alone.kl_to_prior(x).tolist() == [0.0, 0.0]


def test_a_component_of_tiny_weight_counts_in_full_where_the_datum_demands_it() -> None:
    # p = 1e-320: exp(u) alone would overflow.
    kl = GaussianMixture([1.0, 1e-320], [[0.0], [100.0]], UNIT).kl_to_prior([100.0]).item()
    assert_allclose(kl, -math.log(1e-320), rtol=1e-4)


def test_moments_and_shapes() -> None:
    model = GaussianMixture([0.2, 0.3, 0.5], [[0.0], [1.0], [4.0]], [[[1.0]]] * 3)
    x = [0.2, 3.0]
    mean, sd = model.posterior_moments(x)
    mass = model.posterior(x).probs
    assert_allclose(mean[:, 0], mass[:, 1] + 2 * mass[:, 2])
    assert_allclose(sd[:, 0] ** 2, mass[:, 1] + 4 * mass[:, 2] - mean[:, 0] ** 2)
    assert torch.equal(model.kl_per_latent(x)[:, 0], model.kl_to_prior(x))
    assert torch.equal(model.kl_conditional(x)[:, 0], model.kl_to_prior(x))
    assert (model.latent_names, model.pooled) == (("k",), False)


def test_samples_follow_the_model() -> None:
    model = GaussianMixture(
        [0.2, 0.8], [[0.0, 1.0], [4.0, -1.0]], [[[1.0, 0.5], [0.5, 2.0]], [[0.3, 0.0], [0.0, 1.0]]]
    )
    x, z = model.sample(20_000, torch.Generator().manual_seed(3))
    again, _ = model.sample(20_000, torch.Generator().manual_seed(3))
    assert torch.equal(x, again)
    assert abs(z.mean().item() - 0.8) < 6 * 0.4 / math.sqrt(20_000)
    for k in (0, 1):
        own = x[z[:, 0] == k]
        assert_allclose(own.mean(0), model.means[k], atol=6 * math.sqrt(2 / len(own)))
        assert_allclose(own.T.cov(), model.covariances[k], atol=6 * 4 / math.sqrt(len(own)))
    # The responsibilities average to the weights under the model's own data.
    assert_allclose(model.posterior(x).probs.mean(0), model.weights, atol=6 * 0.4 / math.sqrt(20_000))


@pytest.mark.parametrize("d", [1, 2])
def test_the_symbolic_twin_has_the_same_densities(d: int) -> None:
    covariances = [[[0.3]], [[2.0]]] if d == 1 else [[[1.3, 0.4], [0.4, 0.9]], [[1.0, 0.0], [0.0, 2.0]]]
    means, x = [[0.1, -3.7][:d], [1.5, 0.2][:d]], [0.7, 0.3][:d]
    model = GaussianMixture([0.1, 0.9], means, covariances)
    twin = model.symbolic()
    assert twin.latent_names == ("k",)
    assert twin.latents[0].family.arguments == (sympy.Rational(1, 10), sympy.Rational(9, 10))
    (k,) = twin.latent_symbols
    for state in (0, 1):
        component = twin.observations[0].family.map(lambda entry, state=state: entry.subs(k, state + 1))
        expected = model.log_likelihood([x], [[state]]).item()
        assert_allclose(float(component.log_density(*map(sympy.Float, x)).evalf(30)), expected, rtol=1e-12)


def test_the_symbolic_twin_accepts_thirds() -> None:
    twin = GaussianMixture([1 / 3] * 3, [[0.0], [1.0], [2.0]], [[[1.0]]] * 3).symbolic()
    assert sum(twin.latents[0].family.arguments) == 1


GOOD = {
    "weights": [0.5, 0.5],
    "means": [[0.0, 0.0], [1.0, 1.0]],
    "covariances": [[[1.0, 0.0], [0.0, 1.0]]] * 2,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.4]}, r"weights should sum to one, got \[0.5, 0.4\]"),
        ({"weights": [1.5, -0.5]}, "weights should be at least 0, got -0.5"),
        ({"weights": [1.0]}, r"weights should have shape \(2,\), got \(1,\)"),
        ({"means": [0.0, 1.0]}, r"means should have shape \(any, any\), got \(2,\)"),
        ({"means": [[0.0, 0.0], [1.0]]}, "means should be a rectangular array"),
        ({"means": [[0.0, math.nan], [1.0, 1.0]]}, r"means should be finite, got nan at index \(0, 1\)"),
        ({"means": [[0.0, 0.0]]}, "means should have at least two components, got 1"),
        ({"covariances": [1.0, 1.0]}, r"covariances should have shape \(2, 2, 2\), got \(2,\)"),
        ({"covariances": [[[1.0, 0.5], [0.4, 1.0]]] * 2}, r"covariances\[0\] should be symmetric"),
        ({"covariances": [[[1.0, 1.0], [1.0, 1.0]]] * 2}, r"covariances\[0\] should be positive definite"),
        ({"covariances": [[[1.0, 2.0], [2.0, 1.0]]] * 2}, r"covariances\[0\] should be positive definite"),
        (
            {"covariances": [[[1.0, 0.0], [0.0, -1.0]]] * 2},
            r"covariances\[0\] should have a positive diagonal, got -1.0",
        ),
    ],
)
def test_bad_components_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**{**GOOD, **change})


def test_bad_data_are_refused() -> None:
    model = GaussianMixture(**GOOD)
    with pytest.raises(ValueError, match=r"x should have shape \(any, 2\), got \(2,\)"):
        model.posterior([0.0, 1.0])
    with pytest.raises(ValueError, match=r"x should be finite, got inf at index \(1, 0\)"):
        model.kl_to_prior([[0.0, 1.0], [math.inf, 0.0]])
    with pytest.raises(TypeError, match="x should be an array of real numbers, got 'data'"):
        model.log_evidence("data")
    with pytest.raises(TypeError, match="x should be an array of real numbers"):
        model.log_evidence(torch.tensor([[1j, 0]]))
    with pytest.raises(ValueError, match=r"z should be a state in 0..1, got 2"):
        model.log_likelihood([[0.0, 1.0]], [[2]])
    with pytest.raises(ValueError, match=r"z should have shape \(1, 1\) or \(samples, 1, 1\), got \(1,\)"):
        model.log_likelihood([[0.0, 1.0]], [0])


@pytest.mark.parametrize("scale", [1e-14, 1e-7, 1e-3, 0.3, 0.49, 0.51, 3.0, 50.0])
def test_the_stable_formulas_in_60_digits(scale: float) -> None:
    with mp.workdps(60):
        for u in (scale, -scale):
            exact = mp.mpf(u) * mp.exp(u) - mp.expm1(u)
            assert_allclose(
                kl_integrand(torch.tensor(u, dtype=torch.float64)).item(), float(exact), rtol=2e-15
            )
        gain = mp.log1p(scale) - scale / (1 + mp.mpf(scale))
        assert_allclose(
            gaussian_gain(torch.tensor(scale, dtype=torch.float64)).item(), float(gain), rtol=1e-14
        )


def test_atoms_of_mass_zero_count_nothing() -> None:
    prior = torch.tensor([0.0, 1.0], dtype=torch.float64).log()
    assert kl_of_log_ratio(prior, torch.tensor([5.0, 0.0], dtype=torch.float64)).item() == 0.0
    half = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    sure = torch.tensor([math.log(2), -math.inf], dtype=torch.float64)
    assert_allclose(kl_of_log_ratio(half, sure).item(), math.log(2), rtol=1e-15)


def test_the_stated_error_is_finite_and_no_larger_than_any_kl_could_be() -> None:
    # 1e15 standard deviations away the rounding of ℓ exceeds hundreds of nats; the KL stays within its range.
    model = GaussianMixture([0.25, 0.75], [[0.0], [1.0]], [[[1.0]], [[1.5]]])
    assert 0 <= model.kl_to_prior([1e15]).item() <= math.log(4) * (1 + 1e-12)
    assert 0 < model.kl_error([1e15]).item() <= math.log(4) * (1 + 1e-12)


def test_information_of_rare_components_is_not_missed_by_simulation() -> None:
    # Components that do not overlap: the information is the entropy of the label.
    weights = [1 - 1e-9, 1e-9]
    entropy = -sum(w * math.log(w) for w in weights)
    model = GaussianMixture(weights, [[0.0, 0.0], [1e3, 0.0]], [1.0, 1.0], "spherical")
    found = model.mutual_information()
    assert found.method == "Monte Carlo"
    assert found.value == pytest.approx(entropy, rel=1e-12)
    assert found.error < 1e-10 * entropy


def test_information_of_sharp_components_far_from_zero_is_within_its_error() -> None:
    weights, means = [0.3, 0.7], [[1e6], [1e6 + 3e-6]]
    far = GaussianMixture(weights, means, [1e-12, 1e-12], "spherical").mutual_information()
    step = (means[1][0] - means[0][0]) / 1e-6
    near = GaussianMixture(weights, [[0.0], [step]], [1.0, 1.0], "spherical").mutual_information()
    assert abs(far.value - near.value) <= far.error + near.error < 1e-12

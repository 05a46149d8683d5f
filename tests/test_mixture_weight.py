"""The mixing weight against 50-digit quadrature, conjugate closed forms, SciPy, and the paper's own data."""

from __future__ import annotations

import itertools
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import sympy
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import beta as beta_law, kstest, norm
from torch.distributions import Laplace, Normal, TransformedDistribution, Uniform

from identkit.classical.conjugate import BetaBinomial
from identkit.classical.mixture_weight import MixtureWeight
from identkit.posterior.bounds import band


def truth(components: Any, prior: Any, x: Any) -> dict[str, Any]:
    """Posterior moments, KL, evidence and the moments of ℓ, by mpmath's own quadrature."""
    with mp.workdps(50):
        a, b = (mp.mpf(s) for s in prior)

        def density(component: Any, at: float) -> Any:
            mean, sd = component
            z = (mp.mpf(at) - mp.mpf(mean)) / mp.mpf(sd)
            return mp.exp(-(z**2) / 2) / (mp.sqrt(2 * mp.pi) * mp.mpf(sd))

        pairs = [(density(components[0], v), density(components[1], v)) for v in x]

        @cache
        def log_likelihood(t: Any) -> Any:
            return sum(mp.log(t * f + (1 - t) * g) for f, g in pairs)

        @cache
        def slope(t: Any) -> Any:
            return sum((f - g) / (t * f + (1 - t) * g) for f, g in pairs)

        @cache
        def prior_density(t: Any) -> Any:
            return t ** (a - 1) * (1 - t) ** (b - 1) / mp.beta(a, b)

        cuts = [mp.mpf(c) for c in ("0", "0.3", "0.7", "1")]

        def under_prior(g: Any) -> Any:
            return mp.quad(lambda t: prior_density(t) * g(t), cuts)

        level = log_likelihood(a / (a + b))  # keeps the integrand near 1
        total = under_prior(lambda t: mp.exp(log_likelihood(t) - level))

        def under_posterior(g: Any) -> Any:
            return under_prior(lambda t: mp.exp(log_likelihood(t) - level) * g(t)) / total

        mean = under_posterior(lambda t: t)
        average = under_prior(log_likelihood)
        return {
            "mean": mean,
            "sd": mp.sqrt(under_posterior(lambda t: (t - mean) ** 2)),
            "evidence": mp.log(total) + level,
            "kl": under_posterior(lambda t: log_likelihood(t) - level - mp.log(total)),
            "variance": under_prior(lambda t: (log_likelihood(t) - average) ** 2),
            "gradient": under_posterior(lambda t: slope(t) ** 2),
            "shift": (mean - a / (a + b)) ** 2,
        }


CASES = {
    "overlapping": ([(-0.5, 1.0), (0.5, 1.0)], (5.0, 5.0), [-1.3, 0.2, 2.2, -0.4, 0.0]),
    "one datum": ([(-1.0, 1.0), (1.0, 2.0)], (2.0, 3.0), [0.7]),
    "uniform prior": ([(-1.0, 0.5), (1.0, 2.0)], (1.0, 1.0), [0.7, -1.1, -0.9]),
    "prior with infinite ends": ([(-1.0, 0.5), (1.0, 2.0)], (0.5, 0.75), [0.7, -1.1, -0.9]),
    "skewed prior": ([(0.0, 1.0), (0.3, 1.1)], (2.5, 30.0), [0.7, -1.1, -0.9]),
    "nearly equal": ([(0.0, 1.0), (0.001, 1.0)], (5.0, 5.0), [0.7, -1.1, -0.9]),
    "1e-12 apart": ([(0.0, 1.0), (1e-12, 1.0)], (5.0, 5.0), [0.7, -1.1, -0.9]),
    "scales 1e-12 apart": ([(0.0, 1.0), (0.0, 1.0 + 1e-12)], (5.0, 5.0), [0.7, -1.1, -0.8]),
    "far components": ([(-10.0, 1.0), (10.0, 1.0)], (5.0, 5.0), [-9.0, 11.0, -10.5]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_right_in_50_digits(case: Any) -> None:
    components, prior, x = case
    model, exact = MixtureWeight(components, prior), truth(*case)
    kl, error = mp.mpf(model.kl_to_prior(x).item()), model.kl_error(x).item()
    assert kl > 0
    assert abs(kl - exact["kl"]) <= error
    assert abs(kl - exact["kl"]) <= 1e-10 * exact["kl"]
    posterior = model.posterior(x)
    assert_allclose(posterior.mean.item(), float(exact["mean"]), rtol=1e-12)
    assert_allclose(posterior.stddev.item(), float(exact["sd"]), rtol=1e-12)
    assert_allclose(model.log_evidence(x).item(), float(exact["evidence"]), rtol=1e-13)
    flatness = model.flatness(x)
    gap = abs(mp.mpf(flatness.variance.item()) - exact["variance"])
    assert gap <= flatness.variance_error.item()
    assert gap <= 1e-6 * exact["variance"]
    if flatness.log_sobolev is not None:
        assert flatness.gradient_second_moment is not None
        assert flatness.mean_shift is not None
        assert (
            0
            <= flatness.gradient_second_moment.item() - float(exact["gradient"])
            <= 1e-8 * float(exact["gradient"]) + 1e-11
        )
        assert (
            -1e-8 * float(exact["shift"]) - 1e-11 <= flatness.mean_shift.item() - float(exact["shift"]) <= 0
        )
    low, high, _ = band(flatness)
    assert low.item() - error <= kl <= high.item() + error


def test_equal_components_give_the_prior_back_exactly() -> None:
    x = np.random.default_rng(0).normal(-1, 1, 500)
    for prior in ((5, 5), (0.7, 2.0), (3000, 20)):
        model = MixtureWeight([(-1, 1), Normal(-1.0, 1.0)], prior)
        law, posterior = beta_law(*prior), model.posterior(x)
        assert model.kl_to_prior(x).item() == 0.0
        assert 0 < model.kl_error(x).item() < 1e-200
        flatness = model.flatness(x)
        assert flatness.variance.item() == flatness.oscillation.item() == 0.0
        assert_allclose([posterior.mean.item(), posterior.stddev.item()], [law.mean(), law.std()], rtol=1e-11)
        points = law.ppf([0.01, 0.3, 0.99])
        assert_allclose(posterior.log_prob(points), law.logpdf(points), rtol=1e-10, atol=1e-9)
        assert_allclose(posterior.cdf(points), [0.01, 0.3, 0.99], rtol=1e-11)


@pytest.mark.parametrize(
    ("prior", "counts"), [((5.0, 5.0), (854, 146)), ((0.6, 0.8), (3, 0)), ((1.0, 1.0), (0, 2000))]
)
def test_separated_components_are_conjugate(prior: Any, counts: Any) -> None:
    x = [-100.0] * counts[0] + [100.0] * counts[1]
    model = MixtureWeight([(-100, 1), (100, 1)], prior)
    posterior = model.posterior(x)
    a, b = prior[0] + counts[0], prior[1] + counts[1]
    with mp.workdps(40):
        kl = mp.log(mp.beta(*prior) / mp.beta(a, b))
        kl += counts[0] * mp.digamma(a) + counts[1] * mp.digamma(b) - sum(counts) * mp.digamma(a + b)
        evidence = mp.log(mp.beta(a, b) / mp.beta(*prior)) - sum(counts) * mp.log(2 * mp.pi) / 2
    assert_allclose(model.kl_to_prior(x).item(), float(kl), rtol=1e-10)
    assert abs(model.kl_to_prior(x).item() - float(kl)) <= model.kl_error(x).item()
    assert_allclose(model.log_evidence(x).item(), float(evidence), rtol=1e-12)
    law = beta_law(a, b)
    assert_allclose([posterior.mean.item(), posterior.stddev.item()], [law.mean(), law.std()], rtol=1e-10)
    points = law.ppf([1e-4, 0.2, 0.5, 0.9])
    assert_allclose(posterior.cdf(points), [1e-4, 0.2, 0.5, 0.9], rtol=1e-9)
    assert_allclose(posterior.icdf([1e-4, 0.2, 0.5, 0.9]), points, rtol=1e-9)


def test_scipy_quadrature_of_bayes_rule() -> None:
    components, x = [(-1.0, 1.0), (2.0, 0.5)], [-0.4, 1.9, 2.6, 0.1, 1.0]
    posterior = MixtureWeight(components, (2, 2)).posterior(x)

    def unnormalised(t: float) -> float:
        return beta_law.pdf(t, 2, 2) * np.prod(t * norm.pdf(x, -1, 1) + (1 - t) * norm.pdf(x, 2, 0.5))

    total = quad(unnormalised, 0, 1, epsabs=0, epsrel=1e-12)[0]
    for t in (0.05, 0.3, 0.62, 0.97):
        assert_allclose(posterior.log_prob(t).item(), math.log(unnormalised(t) / total), rtol=1e-10)
        below = quad(unnormalised, 0, t, epsabs=0, epsrel=1e-12)[0]
        assert_allclose(posterior.cdf(t).item(), below / total, rtol=1e-10)
        assert_allclose(posterior.icdf(below / total).item(), t, rtol=1e-10)


def test_oscillation_is_that_of_a_fine_grid() -> None:
    x = [-0.4, 0.9, -2.6, 0.1, -1.0]
    for components in ([(-0.5, 1.0), (0.5, 1.0)], [(-3.0, 1.0), (0.5, 1.0)], [(0.0, 1.0), (50.0, 1.0)]):
        model = MixtureWeight(components)
        grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None, None]
        values = model.log_likelihood(x, grid)
        omega = model.flatness(x).oscillation.item()
        assert_allclose(omega, (values.max() - values.min()).item(), rtol=1e-6)
        assert omega >= (values.max() - values.min()).item() * (1 - 1e-14)


def test_outliers_ten_thousand_sds_away_stay_finite() -> None:
    x = [1e4, -1e4, 1e4, 0.0]
    model = MixtureWeight([(0, 1), (1, 1)])
    # Two rows can only come from f_2 and one from f_1, the last weighs both:
    # ∝ α^5 (1 − α)^6 (α + (1 − α) e^(−1/2)).
    first, second = math.exp(0.0), math.exp(-0.5)
    parts = np.array([first * 6, second * 7])  # B(7, 7) : B(6, 8) = 6 : 7
    expected = parts @ [7 / 14, 6 / 14] / parts.sum()
    assert_allclose(model.posterior(x).mean.item(), expected, rtol=1e-12)
    assert math.isfinite(model.log_evidence(x).item())
    assert math.isfinite(model.kl_to_prior(x).item())
    assert model.flatness(x).oscillation.item() > 1e4


def test_a_prior_of_very_large_shapes_is_hardly_moved() -> None:
    model, x = MixtureWeight([(-100, 1), (100, 1)], (1e5, 2e5)), [-100.0, 100.0, 100.0, 100.0]
    a, b = 1e5, 2e5
    with mp.workdps(40):
        kl = mp.log(mp.beta(a, b) / mp.beta(a + 1, b + 3)) + mp.digamma(a + 1) + 3 * mp.digamma(b + 3)
        kl -= 4 * mp.digamma(a + b + 4)
    assert abs(model.kl_to_prior(x).item() - float(kl)) <= model.kl_error(x).item()
    assert_allclose(model.kl_to_prior(x).item(), float(kl), rtol=1e-7)


def test_a_prior_of_very_small_shapes() -> None:
    model, x = MixtureWeight([(-100, 1), (100, 1)], (0.02, 0.05)), [-100.0, -100.0]
    posterior = model.posterior(x)
    assert_allclose(posterior.mean.item(), 2.02 / 2.07, rtol=1e-11)
    assert abs(model.flatness(x).variance.item()) > 0


def test_any_two_densities() -> None:
    disjoint = MixtureWeight([Uniform(0.0, 1.0), Uniform(2.0, 4.0)], (2, 3))
    x = [0.5, 2.5, 3.5]
    assert_allclose(disjoint.posterior(x).mean.item(), 3 / 8, rtol=1e-12)
    evidence = (
        math.lgamma(3) + math.lgamma(5) - math.lgamma(8) - math.lgamma(2) - math.lgamma(3) + math.lgamma(5)
    )
    assert_allclose(disjoint.log_evidence(x).item(), evidence + 2 * math.log(0.5), rtol=1e-12)
    assert disjoint.flatness(x).oscillation.item() == math.inf
    with pytest.raises(ValueError, match=r"x should be possible under a component, got 1.5 in row 1"):
        disjoint.posterior([0.5, 1.5])
    with pytest.raises(ValueError, match="components should be normal laws for a symbolic model"):
        disjoint.symbolic()
    heavy = MixtureWeight([Laplace(0.0, 1.0), Normal(0.0, 1.0)])
    total = quad(
        lambda t: math.exp(heavy.log_likelihood([5.0, 0.1], [[t]]).item()) * beta_law.pdf(t, 5, 5), 0, 1
    )[0]
    assert_allclose(heavy.log_evidence([5.0, 0.1]).item(), math.log(total), rtol=1e-9)


def test_swapping_components_mirrors_the_posterior() -> None:
    x = np.random.default_rng(1).normal(size=40)
    one, other = MixtureWeight([(0, 1), (1, 2)], (2, 7)), MixtureWeight([(1, 2), (0, 1)], (7, 2))
    assert_allclose(one.posterior(x).mean + other.posterior(x).mean, 1.0, rtol=1e-12)
    assert_allclose(one.kl_to_prior(x), other.kl_to_prior(x), rtol=1e-10)
    assert_allclose(one.flatness(x).variance, other.flatness(x).variance, rtol=1e-10)


def test_data_enter_one_by_one() -> None:
    # p(x_2 | x_1) p(x_1) = p(x): the posterior of a first part, integrated, predicts the second.
    model, x = MixtureWeight([(-1, 1), (1, 1)]), [0.3, -1.4]
    predictive = model.posterior(x[:1]).mean.item()
    second = predictive * norm.pdf(x[1], -1, 1) + (1 - predictive) * norm.pdf(x[1], 1, 1)
    assert_allclose(
        model.log_evidence(x).item(), model.log_evidence(x[:1]).item() + math.log(second), rtol=1e-12
    )


def test_samples_follow_the_posterior_and_the_model() -> None:
    model = MixtureWeight([(-1, 1), (1, 1)])
    x, z = model.sample(300, torch.Generator().manual_seed(2))
    state = torch.random.get_rng_state()
    again, _ = model.sample(300, torch.Generator().manual_seed(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(x, again)
    assert (x.shape, z.shape) == ((300, 1), (1, 1))
    posterior = model.posterior(x)
    draws = posterior.sample((500,), torch.Generator().manual_seed(4))
    assert draws.shape == (500, 1)
    assert kstest(draws[:, 0].numpy(), lambda t: posterior.cdf(t).numpy()).pvalue > 1e-4
    # Over the joint law the posterior's distribution function at the true α is uniform.
    generator = torch.Generator().manual_seed(5)
    ranks = []
    for _ in range(60):
        x, z = model.sample(20, generator)
        ranks.append(model.posterior(x).cdf(z[:, 0]).item())
    assert kstest(ranks, "uniform").pvalue > 1e-4


def test_shapes_and_names() -> None:
    model, x = MixtureWeight([(-1, 1), (1, 1)]), [[0.3], [1.2], [0.8]]
    mean, sd = model.posterior_moments(x)
    assert mean.shape == sd.shape == model.kl_per_latent(x).shape == model.kl_conditional(x).shape == (1, 1)
    assert model.kl_to_prior(x).shape == model.kl_error(x).shape == model.log_evidence(x).shape == (1,)
    assert (model.latent_names, model.pooled) == (("alpha",), True)
    alpha = torch.tensor([[[0.2]], [[0.9]]])
    expected = np.log(0.2 * norm.pdf(x, -1) + 0.8 * norm.pdf(x, 1)).sum()
    assert_allclose(model.log_likelihood(x, alpha)[0].item(), expected, rtol=1e-7)
    assert model.log_likelihood(x, alpha).shape == (2, 1)
    posterior = model.posterior(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((1,), ())
    assert posterior.log_prob([-0.1, 0.0, 1.0, 1.5]).tolist() == [-math.inf] * 4
    assert posterior.cdf([-0.1, 0.0, 1.0, 1.5]).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert_allclose(posterior.variance, posterior.stddev**2)


def test_the_symbolic_twin_has_the_same_density() -> None:
    model = MixtureWeight([(0.1, 0.3), (1, 2)], (5, 2.5))
    twin = model.symbolic()
    assert twin.latents[0].family.arguments == (5, sympy.Rational(5, 2))
    (alpha,), (x,) = twin.latent_symbols, twin.observation_symbols
    value = twin.log_likelihood().subs({alpha: sympy.Rational(3, 10), x: sympy.Rational(7, 10)})
    assert_allclose(float(value.evalf(30)), model.log_likelihood([0.7], [[0.3]]).item(), rtol=1e-12)


@pytest.mark.parametrize(
    ("components", "prior", "error", "message"),
    [
        ([(-1, 1)], (5, 5), ValueError, "components should be a pair"),
        ([(-1, 1), (1, 0)], (5, 5), ValueError, r"components\[1\]'s sd should be positive, got 0.0"),
        ([(-1, 1), (1, -2.0)], (5, 5), ValueError, r"components\[1\]'s sd should be positive, got -2.0"),
        ([(-1, 1), (math.nan, 1)], (5, 5), ValueError, r"components\[1\]'s mean should be finite, got nan"),
        (
            [(-1, 1), 3.0],
            (5, 5),
            TypeError,
            r"components\[1\] should be \(mean, sd\) or have a log_prob, got 3.0",
        ),
        (
            [(-1, 1), Normal(torch.zeros(2), 1)],
            (5, 5),
            ValueError,
            r"components\[1\] should be the law of one number",
        ),
        ([(-1, 1), (1, 1)], (0, 5), ValueError, "prior's a should be positive, got 0.0"),
        ([(-1, 1), (1, 1)], (5, -1), ValueError, "prior's b should be positive, got -1.0"),
        ([(-1, 1), (1, 1)], 5, ValueError, r"prior should have shape \(2,\), got \(\)"),
    ],
)
def test_bad_models_are_refused(components: Any, prior: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        MixtureWeight(components, prior)


def test_bad_data_are_refused() -> None:
    model = MixtureWeight([(-1, 1), (1, 1)])
    with pytest.raises(ValueError, match=r"x should have shape \(any, 1\), got \(1, 2\)"):
        model.posterior([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"x should be finite, got nan at index \(1,\)"):
        model.flatness([1.0, math.nan])
    with pytest.raises(ValueError, match=r"z should be weights in \[0, 1\], got \[1.5\]"):
        model.log_likelihood([1.0], [[1.5]])
    with pytest.raises(ValueError, match=r"z should have shape \(1, 1\) or \(samples, 1, 1\), got \(1,\)"):
        model.log_likelihood([1.0], [0.5])
    with pytest.raises(ValueError, match=r"value should be probabilities in \[0, 1\], got \[1.5\]"):
        model.posterior([1.0]).icdf([1.5])


def test_without_data_the_posterior_is_the_prior() -> None:
    model = MixtureWeight([(-1, 1), (1, 1)], (3, 5))
    assert model.kl_to_prior([]).tolist() == [0.0]
    assert model.log_evidence([]).item() == pytest.approx(0.0, abs=1e-12)
    mean, _ = model.posterior_moments([])
    assert mean.item() == pytest.approx(3 / 8, rel=1e-12)


def published(name: str) -> np.ndarray:
    """The vector y of one of the paper's R dumps."""
    text = (Path(os.environ["IDENTKIT_DATA"]) / "classical" / f"{name}_gaussian.data.R").read_text()
    start = text.index("c(", text.index("y <-")) + 2
    return np.array([float(number) for number in text[start : text.index(")", start)].split(",")])


@pytest.mark.skipif("IDENTKIT_DATA" not in os.environ, reason="the paper's data are not at hand")
def test_the_demonstration_of_the_paper() -> None:
    single = MixtureWeight([(-1, 1), (-1, 1)])
    x = published("single")
    assert (round(single.posterior(x).mean.item(), 3), round(single.posterior(x).stddev.item(), 4)) == (
        0.5,
        0.1508,
    )
    assert single.kl_to_prior(x).item() == 0.0
    separated, x = MixtureWeight([(-10, 1), (10, 1)]), published("nonoverlap")
    law, posterior = beta_law(8547, 1463), separated.posterior(x)
    assert_allclose([posterior.mean.item(), posterior.stddev.item()], [law.mean(), law.std()], rtol=1e-9)
    overlapping, x = MixtureWeight([(-0.5, 1), (0.5, 1)]), published("overlap")
    kl, error = overlapping.kl_to_prior(x).item(), overlapping.kl_error(x).item()
    low, high, _ = band(overlapping.flatness(x))
    assert low.item() <= kl <= high.item()
    assert error < 1e-10
    # The 4e4-fold sharper law on SciPy's own quadrature.
    centre, sd = overlapping.posterior(x).mean.item(), overlapping.posterior(x).stddev.item()
    top = overlapping.log_likelihood(x, [[centre]]).item()

    def scaled(t: float) -> float:
        return math.exp(overlapping.log_likelihood(x, [[t]]).item() - top) * beta_law.pdf(t, 5, 5)

    total = quad(scaled, centre - 10 * sd, centre + 10 * sd, points=[centre], epsabs=0, epsrel=1e-11)[0]
    assert_allclose(overlapping.log_evidence(x).item(), math.log(total) + top, rtol=1e-12)


# On average over data, and fitted


@pytest.mark.parametrize("shapes", [(5.0, 5.0), (0.5, 0.5), (0.05, 3.0), (1e4, 2e4)])
def test_one_row_of_components_far_apart_says_what_a_coin_does(shapes: tuple[float, float]) -> None:
    found = MixtureWeight([(-1e3, 1), (1e3, 2)], shapes).mutual_information()
    coin = BetaBinomial(1, *shapes).mutual_information()
    assert found.method == "quadrature"
    assert abs(found.value - coin.value) <= found.error + coin.error < 1e-9 * coin.value


def test_information_is_the_mean_kl_by_quadrature_and_by_simulation() -> None:
    model = MixtureWeight([(-1, 1), (1, 2)], (2, 3))
    exact = model.mutual_information()
    # The same laws by another name: no quadrature over x for them.
    one, two = (TransformedDistribution(law, []) for law in model.components)
    drawn = MixtureWeight([one, two], (2, 3)).mutual_information(samples=200)
    assert drawn.method == "Monte Carlo"
    assert abs(exact.value - drawn.value) < 5 * drawn.error < 0.4 * exact.value
    # Far apart, n rows are n trials.
    apart = MixtureWeight([(-1e3, 1), (1e3, 1)], (2, 3)).mutual_information(5, samples=100)
    assert abs(apart.value - BetaBinomial(5, 2, 3).mutual_information().value) < 5 * apart.error < 0.3


def test_information_is_nil_of_no_row_and_of_equal_components_and_small_of_near_ones() -> None:
    assert MixtureWeight([(0, 1), (1, 1)]).mutual_information(0).value == 0.0
    assert MixtureWeight([(0.3, 1), (0.3, 1)]).mutual_information().value == 0.0
    # ½ Var(α) E c², c ≈ 1e-6 times a standard normal.
    near = MixtureWeight([(0, 1), (1e-6, 1)], (2, 3)).mutual_information()
    assert_allclose(near.value, 0.5 * 0.04 * 1e-12, rtol=1e-9)


def test_information_of_a_component_of_small_weight_is_not_missed() -> None:
    # m log(1/m) and more: of 200 data sets none would show the first component, and their spread would say nothing.
    a, b = 1e-3, 10.0
    one, two = (TransformedDistribution(Normal(at, 1.0), []) for at in (-1e3, 1e3))
    found = MixtureWeight([one, two], (a, b)).mutual_information(samples=40)
    coin = BetaBinomial(1, a, b).mutual_information().value
    assert abs(found.value - coin) < 1e-6 * coin


def test_shapes_below_what_numbers_resolve_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1e-09"):
        MixtureWeight([(0, 1), (1, 1)], (1e-9, 3))


def test_the_posterior_has_a_covariance_and_one_marginal() -> None:
    posterior = MixtureWeight([(-1, 1), (1, 1)]).posterior([0.3, 1.2])
    assert posterior.covariance.shape == (1, 1, 1)
    assert posterior.covariance.item() == posterior.variance.item()
    assert posterior.marginal(0) is posterior
    with pytest.raises(IndexError, match="index should be 0"):
        posterior.marginal(1)


def test_a_fit_climbs_to_where_the_evidence_is_stationary() -> None:
    x, _ = MixtureWeight([(-2, 1), (2, 0.5)], (4, 7)).sample(60, generator=torch.Generator().manual_seed(3))
    model = MixtureWeight.fit(x, (4, 7), tolerance=1e-10)
    assert model.convergence is not None and model.convergence.converged
    assert (np.diff(model.convergence.history) >= -1e-9).all()
    best = model.log_evidence(x).item()
    assert best >= model.convergence.log_likelihood - 1e-9
    numbers = torch.tensor([[law.loc, law.scale] for law in model.components], dtype=torch.float64)
    for row, column in itertools.product(range(2), range(2)):
        heights = []
        for step in (-1e-3, 1e-3):
            moved = numbers.clone()
            moved[row, column] += step
            heights.append(MixtureWeight(moved.tolist(), (4, 7)).log_evidence(x).item())
        assert max(heights) < best
        assert abs(heights[1] - heights[0]) < 0.05 * (2 * best - sum(heights))


@pytest.mark.parametrize(
    ("call", "phrase"),
    [
        (lambda: MixtureWeight.fit([1.0]), "at least two rows"),
        (lambda: MixtureWeight.fit([1.0, 1.0]), "x should vary"),
        (lambda: MixtureWeight.fit([1.0, 2.0], floor=0), "floor should be positive"),
        (
            lambda: MixtureWeight.fit([1.0, 2.0], start=MixtureWeight([Laplace(0.0, 1.0), (0, 1)])),
            "normal components",
        ),
        (lambda: MixtureWeight([(0, 1), (1, 1)]).mutual_information(-1), "n should"),
    ],
)
def test_fits_and_averages_refuse(call: Any, phrase: str) -> None:
    with pytest.raises(ValueError, match=phrase):
        call()

"""The hierarchical normal model against dense joint algebra, SciPy quadrature over τ, draws, and Rubin's schools."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad
from torch.distributions import Beta, Exponential, Gamma, HalfCauchy, LogNormal, Uniform

from identkit.classical.em import ConvergenceWarning
from identkit.classical.hierarchical_normal import EIGHT_SCHOOLS, HierarchicalNormal
from identkit.theorem import verify

Y, S = (np.array(part) for part in EIGHT_SCHOOLS)


def dense(tau: float, s0: float, m: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Prior covariance of (μ, θ), posterior mean and covariance, log evidence, by conditioning the joint law."""
    j = len(S)
    prior = np.full((j + 1, j + 1), s0**2)
    prior[1:, 1:] += tau**2 * np.eye(j)
    pick = np.hstack([np.zeros((j, 1)), np.eye(j)])
    marginal = pick @ prior @ pick.T + np.diag(S**2)
    gain = prior @ pick.T @ np.linalg.inv(marginal)
    evidence = stats.multivariate_normal(np.full(j, m), marginal).logpdf(Y)
    return prior, m + gain @ (Y - m), prior - gain @ pick @ prior, float(evidence)


def test_a_known_spread_is_dense_joint_algebra() -> None:
    prior, mean, covariance, evidence = dense(7.0, 5.0, 2.0)
    model = HierarchicalNormal(S, 2.0, 5.0, 7.0)
    assert model.latent_names == ("mu", *(f"theta[{j + 1}]" for j in range(8)))
    assert model.log_evidence([Y]).item() == pytest.approx(evidence, rel=1e-12)
    found_mean, found_sd = model.posterior_moments([Y])
    assert_allclose(found_mean[0], mean, rtol=1e-11)
    assert_allclose(found_sd[0], np.sqrt(np.diag(covariance)), rtol=1e-11)
    assert_allclose(model.posterior([Y]).covariance[0], covariance, rtol=1e-10)
    assert_allclose(model.prior.covariance, prior, rtol=1e-12)
    shift = mean - 2.0
    inverse = np.linalg.inv(prior)
    kl = np.trace(inverse @ covariance) - 9 + shift @ inverse @ shift
    kl = (kl + np.linalg.slogdet(prior)[1] - np.linalg.slogdet(covariance)[1]) / 2
    assert model.kl_to_prior([Y]).item() == pytest.approx(kl, rel=1e-10)
    ratio = np.diag(covariance) / np.diag(prior)
    marginal = (ratio - 1 - np.log(ratio) + shift**2 / np.diag(prior)) / 2
    assert_allclose(model.kl_per_latent([Y])[0], marginal, rtol=1e-10)
    # Chain rule: what θ_j adds, given all others, is the joint KL less that of the others.
    for j in range(1, 9):
        rest = [i for i in range(9) if i != j]
        sub, other = prior[np.ix_(rest, rest)], covariance[np.ix_(rest, rest)]
        left = np.trace(np.linalg.solve(sub, other)) - 8 + shift[rest] @ np.linalg.solve(sub, shift[rest])
        left = (left + np.linalg.slogdet(sub)[1] - np.linalg.slogdet(other)[1]) / 2
        assert model.kl_conditional([Y])[0, j].item() == pytest.approx(kl - left, rel=1e-8)
    information = np.linalg.slogdet(np.diag(1 / S**2) @ (prior[1:, 1:] + np.diag(S**2)))[1] / 2
    assert model.mutual_information().value == pytest.approx(information, rel=1e-11)


@pytest.mark.parametrize(
    ("tau", "law"),
    [
        (Uniform(0.0, 30.0), stats.uniform(0, 30)),
        (HalfCauchy(5.0), stats.halfcauchy(scale=5)),
        (Gamma(0.5, 0.25), stats.gamma(0.5, scale=4)),
        (LogNormal(1.0, 0.5), stats.lognorm(0.5, scale=math.e)),
    ],
)
def test_a_latent_spread_is_an_integral_over_dense_answers(tau: Any, law: Any) -> None:
    model = HierarchicalNormal(S, 1.0, 5.0, tau)

    # τ = e^t tames both ends; panels in t, each dense answer once.
    nodes, weights = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(-40, math.log(30.0) if isinstance(tau, Uniform) else 30.0, 36)
    points = ((edges[1:] + edges[:-1])[:, None] / 2 + np.diff(edges)[:, None] / 2 * nodes).ravel()
    spreads, lengths = np.exp(points), np.tile(weights, 35) * (edges[1] - edges[0]) / 2
    answers = [dense(spread, 5.0, 1.0) for spread in spreads]
    density = law.pdf(spreads) * spreads * lengths * np.exp([answer[3] + 32 for answer in answers])

    def integral(value: Any) -> float:
        return float(sum(w * value(t, a) for w, t, a in zip(density, spreads, answers, strict=True)))

    scale = integral(lambda spread, answer: 1.0)
    assert model.log_evidence([Y]).item() == pytest.approx(math.log(scale) - 32, abs=1e-8)
    mean, sd = model.posterior_moments([Y])
    assert mean[0, 1].item() == pytest.approx(integral(lambda t, a: t) / scale, rel=1e-7)
    assert mean[0, 2].item() == pytest.approx(integral(lambda t, a: a[1][1]) / scale, rel=1e-7)
    second = integral(lambda t, a: a[1][1] ** 2 + a[2][1, 1]) / scale
    assert sd[0, 2].item() == pytest.approx(math.sqrt(second - mean[0, 2].item() ** 2), rel=1e-7)

    def expected_height(spread: float, answer: Any) -> float:
        _, centre, covariance, _ = answer
        square = (Y - centre[1:]) ** 2 + np.diag(covariance)[1:]
        return float(-(square / S**2 + np.log(2 * math.pi * S**2)).sum() / 2)

    # KL = E[log p(y | z)] − log p(y)
    kl = integral(expected_height) / scale - model.log_evidence([Y]).item()
    assert model.kl_to_prior([Y]).item() == pytest.approx(kl, rel=1e-6)
    assert model.kl_error([Y]).item() < 1e-8


def test_what_the_likelihood_sees() -> None:
    model = HierarchicalNormal(S, 0.0, 5.0, Uniform(0.0, 30.0))
    conditional, marginal = model.kl_conditional([Y])[0], model.kl_per_latent([Y])[0]
    assert conditional[:2].tolist() == [0.0, 0.0]  # μ and τ, given θ
    assert bool((marginal[:2] > 0.1).all())  # and yet they move with θ (theory/T3)
    assert bool((conditional[2:] > 1e-3).all())
    # As τ → 0 the information on each θ_j given the rest fades like ½(τ²/s²)²(½ + …), but is never 0.
    for tau in (1e-2, 1e-4, 1e-6):
        small = HierarchicalNormal(S, 0.0, 0.0, tau)
        a, square = (tau / S) ** 2, Y**2
        expected = (np.log1p(a) - a / (1 + a) + (a / (1 + a)) ** 2 * square / tau**2) / 2
        if tau > 1e-3:
            assert_allclose(small.kl_conditional([Y])[0], expected, rtol=1e-5)
        leading = (a**2 / 2 + a**2 * square / tau**2) / 2
        assert_allclose(small.kl_conditional([Y])[0], leading, rtol=1e-4)
        assert small.kl_to_prior([Y]).item() > small.kl_error([Y]).item() or tau < 1e-5


def test_marginal_mixtures_by_scipy() -> None:
    model = HierarchicalNormal(S[:3], 1.0, 4.0, Gamma(2.0, 0.5))
    y = Y[:3]
    law, before = model.posterior([y]), model.prior
    found = model.kl_per_latent([y])[0]
    for index in (0, 1, 2):
        after = law.marginal(index)
        prior = before.marginal(index)

        def integrand(z: float, after: Any = after, prior: Any = prior) -> float:
            point = torch.tensor([z], dtype=torch.float64)
            one, two = after.log_prob(point).item(), prior.log_prob(point).item()
            return math.exp(one) * (one - two)

        pieces = pairwise((0.0, 5, 20, 60, 200) if index == 1 else (-60, -5, 5, 20, 90))
        kl = sum(quad(integrand, a, b, epsabs=1e-10)[0] for a, b in pieces)
        assert found[index].item() == pytest.approx(kl, rel=1e-7)
    with pytest.raises(IndexError, match=r"index should be in 0\.\.4, got 9"):
        law.marginal(9)


def test_flatness_by_draws() -> None:
    model = HierarchicalNormal(S[:3], 1.0, 4.0, Uniform(0.0, 6.0))
    y = Y[:3]
    z = model.sample(200_000, torch.Generator().manual_seed(0))[1]
    heights = model.log_likelihood([y], z[:, None])[:, 0]
    assert model.flatness([y]).variance.item() == pytest.approx(heights.var().item(), rel=0.02)
    assert HierarchicalNormal(S, 0.0, 5.0, HalfCauchy(5.0)).flatness([Y]).variance.item() == math.inf
    # Evidence by averaging the likelihood over the prior, and Bayes' rule.
    total = torch.logsumexp(heights, 0).item() - math.log(len(heights))
    assert model.log_evidence([y]).item() == pytest.approx(total, abs=0.02)
    left = model.posterior([y]).log_prob(z[:5, None])[:, 0] + model.log_evidence([y])
    assert_allclose(left, model.prior.log_prob(z[:5]) + heights[:5], rtol=1e-10)


def test_covariances_and_the_law_of_a_latent_spread() -> None:
    """Against sums over 4,000 spreads of dense joint algebra."""
    tau, spread = Gamma(2.0, 0.25), np.linspace(1e-3, 120, 4000)
    model = HierarchicalNormal(S, 2.0, 5.0, tau)
    log_prior = stats.gamma(2.0, scale=4.0).logpdf(spread)
    parts = [dense(t, 5.0, 2.0) for t in spread]
    weight = np.exp(log_prior + [part[3] for part in parts])
    mass = weight / weight.sum()
    centres = np.array([[mean[0], t, *mean[1:]] for t, (_, mean, _, _) in zip(spread, parts, strict=True)])
    centre = mass @ centres
    covariance = np.einsum("m,mi,mj->ij", mass, centres - centre, centres - centre)
    seen = [0, *range(2, 10)]
    covariance[np.ix_(seen, seen)] += np.einsum("m,mij->ij", mass, [part[2] for part in parts])
    law = model.posterior([Y])
    assert_allclose(law.covariance[0], covariance, rtol=1e-4, atol=1e-4)
    marginal = law.marginal(1)
    assert_allclose(marginal.mean, centre[1], rtol=1e-5)
    density = np.exp(marginal.log_prob(torch.from_numpy(spread[::400])).numpy())
    assert_allclose(density, (mass / (spread[1] - spread[0]))[::400], rtol=1e-4)
    assert_allclose(marginal.stddev, np.sqrt(covariance[1, 1]), rtol=1e-4)


def test_draws_follow_the_posterior() -> None:
    model = HierarchicalNormal(S[:3], 1.0, 4.0, Gamma(2.0, 0.5))
    torch.manual_seed(0)
    law = model.posterior([Y[:3]])
    draws = law.sample((10_000,))[:, 0]
    assert_allclose(draws.mean(0), law.mean[0], atol=0.2)
    assert_allclose(draws.std(0), law.stddev[0], rtol=0.05)
    assert_allclose(law.variance.sqrt(), law.stddev)
    before = model.prior.sample((10_000,))
    assert_allclose(before.std(0), model.prior.stddev, rtol=0.06)
    x, z = model.sample(400, torch.Generator().manual_seed(1))
    inside = ((z - model.posterior_moments(x)[0]).abs() < model.posterior_moments(x)[1]).double().mean(0)
    assert bool(((inside > 0.58) & (inside < 0.8)).all())


def test_information_is_the_average_kl() -> None:
    model = HierarchicalNormal(S[:3], 1.0, 4.0, 6.0)
    x, _ = model.sample(20_000, torch.Generator().manual_seed(2))
    kl = model.kl_to_prior(x)
    assert abs(kl.mean().item() - model.mutual_information().value) < 5 * kl.std().item() / math.sqrt(20_000)
    drawn = HierarchicalNormal(S[:3], 1.0, 4.0, Gamma(2.0, 0.5)).mutual_information()
    assert drawn.method == "Monte Carlo" and 0 < drawn.error < 0.1


def test_the_schools_ask_for_no_spread() -> None:
    with pytest.warns(ConvergenceWarning, match="tau runs away"):
        model = HierarchicalNormal.fit([Y], S)
    assert model.mean == pytest.approx((Y / S**2).sum() / (1 / S**2).sum(), rel=1e-6)  # 7.69, all pooled
    assert model.tau < 0.1
    spread = HierarchicalNormal.fit([Y * 3], S)
    assert spread.convergence is not None and spread.convergence.converged
    best = spread.log_evidence([Y * 3]).item()
    assert spread.convergence.log_likelihood == pytest.approx(best, rel=1e-12)
    for mean, tau in ((1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99)):
        other = HierarchicalNormal(S, spread.mean * mean, 0.0, spread.tau * tau)
        assert other.log_evidence([Y * 3]).item() < best


def test_the_theorem() -> None:
    levels = verify(HierarchicalNormal(S[:2], 0.0, 5.0, Uniform(0.0, 30.0)), [Y[:2]])
    assert levels.agrees is True, str(levels)
    assert {name: level.value for name, level in levels.verdict.latents.items()} == {
        "mu": "CONSTANT",
        "tau": "CONSTANT",
        "theta[1]": "GLOBAL",
        "theta[2]": "GLOBAL",
    }
    assert verify(HierarchicalNormal(S[:2], 0.0, 0.0, 3.0), [Y[:2]]).agrees is True


def test_doors() -> None:
    for call, message in (
        (lambda: HierarchicalNormal([1.0, 0.0]), "scales should be positive, got 0.0"),
        (lambda: HierarchicalNormal([1.0], 0.0, -1.0), "mean_sd should be at least 0, got -1.0"),
        (lambda: HierarchicalNormal([1.0], 0.0, 1.0, 0.0), "tau should be positive, got 0.0"),
        (
            lambda: HierarchicalNormal([1.0], 0.0, 1.0, Uniform(-1.0, 1.0)),
            r"tau should have a prior on \(0, ∞\)",
        ),
        (
            lambda: HierarchicalNormal([1.0], 0.0, 1.0, Gamma(torch.ones(2), 1.0)),
            "tau should be the law of one number",
        ),
        (lambda: HierarchicalNormal([1.0, 1.0]).kl_to_prior([[1.0]]), r"x should have shape \(any, 2\)"),
        (
            lambda: HierarchicalNormal([1.0], tau=Beta(2.0, 2.0)).symbolic(),
            "tau should be one of Uniform, Gamma",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert HierarchicalNormal([1.0], tau=Exponential(2.0)).symbolic().latent_names == ("tau", "theta[1]")
    empty = HierarchicalNormal([1.0, 2.0], 0.0, 1.0, Gamma(2.0, 1.0))
    assert empty.kl_per_latent(np.zeros((0, 2))).shape == (0, 4)
    single = empty.kl_to_prior(torch.tensor([[1.0, 2.0]]))
    assert single.dtype == torch.float32
    # A datum 1e4 noises away: the answer is finite and its mean all but the datum.
    far = empty.posterior_moments([[2e4, 0.0]])[0][0, 2].item()
    assert 1.9e4 < far < 2e4


@pytest.mark.parametrize(
    ("high", "y"), [(0.5, (60.0, -40.0, 30.0)), (2.0, (3e4, 1e3, -2e4)), (64.0, (1e6, 0.0, 0.0))]
)
def test_outliers_press_the_spread_against_its_bound(high: float, y: Any) -> None:
    # The oracle is ∫ p(τ) p(y | τ) dτ by mpmath in 40 digits, over panels that quarter towards the bound.
    mp = pytest.importorskip("mpmath")
    scales = (1.0, 0.25, 8.0)
    model = HierarchicalNormal(scales, 0.5, 2.0, Uniform(0.0, high))
    with mp.workdps(40):

        def height(tau: Any) -> Any:
            variances = [tau**2 + mp.mpf(s) ** 2 for s in scales]
            apart = [mp.mpf(value) - mp.mpf(0.5) for value in y]
            pull = sum(a / v for a, v in zip(apart, variances, strict=True))
            shrink = 1 + 4 * sum(1 / v for v in variances)
            square = sum(a * a / v for a, v in zip(apart, variances, strict=True)) - 4 * pull**2 / shrink
            return -(square + mp.log(shrink) + sum(mp.log(2 * mp.pi * v) for v in variances)) / 2

        top = height(mp.mpf(high))
        cuts = [mp.mpf(high) * (1 - mp.mpf(2) ** -k) for k in range(0, 60, 2)] + [mp.mpf(high)]
        pieces = [mp.quad(lambda t: mp.exp(height(t) - top), pair) for pair in pairwise(cuts)]
        whole = float(top + mp.log(mp.fsum(pieces) / high))
        tau = [mp.quad(lambda t: t * mp.exp(height(t) - top), pair) for pair in pairwise(cuts)]
        mean = float(mp.fsum(tau) / mp.fsum(pieces))
    assert model.log_evidence([y]).item() == pytest.approx(whole, rel=1e-13)
    assert model.posterior_moments([y])[0][0, 1].item() == pytest.approx(mean, rel=1e-12)
    both = model.log_evidence([y, Y[:3]])
    assert both[0].item() == pytest.approx(whole, rel=1e-13)
    assert both[1].item() == pytest.approx(model.log_evidence([Y[:3]]).item(), rel=1e-12)

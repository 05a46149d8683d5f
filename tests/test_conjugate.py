"""Conjugate pairs against 50-digit arithmetic, SciPy's laws and quadrature, enumeration, and draws."""

from __future__ import annotations

import math
from copy import copy
from itertools import pairwise
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad

from identkit.classical.conjugate import (
    BetaBinomial,
    DirichletMultinomial,
    GammaExponential,
    GammaPoisson,
    NormalInverseGamma,
    NormalNormal,
    pair as conjugate,
)
from identkit.classical.conjugate.gamma_divergence import (
    log_gamma_divergence,
    remainder_divergence,
    trigamma_rest,
)
from identkit.classical.conjugate.pair import gammas
from identkit.classical.conjugate.student_divergence import student_kl
from identkit.classical.em import ConvergenceWarning
from identkit.model.compiled.saddle_point import stirling_remainder
from identkit.posterior.bounds import band
from identkit.posterior.information import collapse
from identkit.theorem import verify

DIGITS = 50


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def divergence(a: Any, delta: Any) -> Any:
    """``log Γ(a) − log Γ(a + δ) + δ ψ(a + δ)`` of mpmath numbers."""
    return mp.loggamma(a) - mp.loggamma(a + delta) + delta * mp.digamma(a + delta)


def relative(found: float, exact: Any) -> float:
    return float(abs(mp.mpf(found) - exact) / abs(exact))


# 50 digits

SHAPES = [
    (1e8, 1.0),
    (1e8, 1e8),
    (1e12, 1.0),
    (1.0, 1.0),
    (0.5, 0.5),
    (1e-6, 1.0),
    (1e-6, 1e9),
    (3.0, 1e12),
    (11.9, 0.5),
]


@pytest.mark.parametrize(("a", "delta"), SHAPES)
def test_log_gamma_and_its_remainder_in_50_digits(a: float, delta: float) -> None:
    with mp.workdps(2 * DIGITS):
        exact_a, exact_delta = mp.mpf(a), mp.mpf(delta)
        ratio = exact_delta / exact_a
        whole = divergence(exact_a, exact_delta)
        rest = (
            whole
            - exact_a * (ratio - mp.log1p(ratio))
            - (mp.log1p(ratio) - exact_delta / (exact_a + exact_delta)) / 2
        )
        one, two = torch.tensor(a, dtype=torch.float64), torch.tensor(delta, dtype=torch.float64)
        assert relative(log_gamma_divergence(one, two).item(), whole) < 2e-15
        assert relative(remainder_divergence(one, two).item(), rest) < 1e-10
        assert relative(trigamma_rest(one).item(), mp.polygamma(1, exact_a) - 1 / exact_a) < 1e-14
        stirling = (exact_a - 0.5) * mp.log(exact_a) - exact_a + mp.log(2 * mp.pi) / 2
        assert relative(stirling_remainder(one).item(), mp.loggamma(exact_a) - stirling) < 1e-13


COUNTS = [
    ((2.0, 3.0), (3, 1)),
    ((1e8, 1e8), (1, 0)),
    ((1e8, 1e8), (1, 1)),  # KL 2.5e-17: to leading order the data agree with the prior
    ((1e8, 1.0), (1, 0)),
    ((1e8, 1.0), (0, 1)),
    ((5.0, 5.0), (10**12, 10**12)),
    ((0.01, 0.02), (0, 7)),
    ((0.5, 1e5), (10**6, 3)),
]


@pytest.mark.parametrize(("shapes", "counts"), COUNTS)
def test_beta_binomial_in_50_digits(shapes: Any, counts: Any) -> None:
    with mp.workdps(DIGITS):
        a, x = [mp.mpf(v) for v in shapes], [mp.mpf(v) for v in counts]
        n, s = sum(x), sum(a)
        kl = sum(divergence(p, q) for p, q in zip(a, x, strict=True)) - divergence(s, n)
        evidence = (
            mp.log(mp.binomial(n, x[0]))
            if n < 1e6
            else (mp.loggamma(n + 1) - mp.loggamma(x[0] + 1) - mp.loggamma(x[1] + 1))
        )
        evidence += sum(mp.loggamma(p + q) - mp.loggamma(p) for p, q in zip(a, x, strict=True))
        evidence -= mp.loggamma(s + n) - mp.loggamma(s)
        model = BetaBinomial(sum(counts), *shapes)
        found = model.kl_to_prior([counts[0]]).item()
        assert relative(found, kl) < 1e-12
        assert abs(mp.mpf(found) - kl) <= model.kl_error([counts[0]]).item()
        assert relative(model.log_evidence([counts[0]]).item(), evidence) < 1e-13
        twin = DirichletMultinomial(sum(counts), shapes)
        assert relative(twin.kl_to_prior([counts]).item(), kl) < 1e-12
        assert relative(twin.log_evidence([counts]).item(), evidence) < 1e-13


@pytest.mark.parametrize(
    ("shape", "rate", "count", "exposure"),
    [
        (2.0, 1.0, 3, 2.0),
        (1e8, 1e8, 1, 1.0),
        (1e8, 1e8, 3, 1.0),
        (1.0, 1.0, 10**12, 1e12),
        (0.01, 2.0, 0, 5.0),
        (0.01, 2.0, 1, 1e-8),
        (3.0, 1e-9, 0, 1e9),
    ],
)
def test_gamma_poisson_in_50_digits(shape: float, rate: float, count: int, exposure: float) -> None:
    with mp.workdps(DIGITS):
        a, b, x, e = map(mp.mpf, (shape, rate, count, exposure))
        kl = divergence(a, x) + a * mp.log((b + e) / b) - (a + x) * e / (b + e)
        evidence = mp.loggamma(a + x) - mp.loggamma(a) - mp.loggamma(x + 1)
        evidence += x * mp.log(e / (b + e)) + a * mp.log(b / (b + e))
        model = GammaPoisson(shape, rate, exposure)
        found = model.kl_to_prior([count]).item()
        assert relative(found, kl) < 1e-12
        assert abs(mp.mpf(found) - kl) <= model.kl_error([count]).item()
        assert relative(model.log_evidence([count]).item(), evidence) < 1e-13


def test_pooled_evidence_in_50_digits() -> None:
    with mp.workdps(DIGITS):
        x = [3, 0, 7, 10, 2]
        a, b = mp.mpf(2), mp.mpf("1.5")
        evidence = sum(mp.log(mp.binomial(10, v)) for v in x)
        evidence += mp.log(mp.beta(a + sum(x), b + 50 - sum(x)) / mp.beta(a, b))
        assert relative(BetaBinomial(10, 2.0, 1.5, pooled=True).log_evidence(x).item(), evidence) < 1e-13
        evidence = (
            a * mp.log(b) - mp.loggamma(a) + mp.loggamma(a + sum(x)) - sum(mp.loggamma(v + 1) for v in x)
        )
        evidence -= (a + sum(x)) * mp.log(b + 15) - sum(x) * mp.log(3)
        found = GammaPoisson(2.0, 1.5, 3.0, pooled=True).log_evidence(x).item()
        assert relative(found, evidence) < 1e-13
        evidence = a * mp.log(b) - mp.loggamma(a) + mp.loggamma(a + 5) - (a + 5) * mp.log(b + sum(x))
        assert relative(GammaExponential(2.0, 1.5, pooled=True).log_evidence(x).item(), evidence) < 1e-13


# Independent libraries


def test_evidence_is_the_law_that_scipy_knows() -> None:
    x = np.arange(11)
    assert_allclose(
        BetaBinomial(10, 0.7, 2.5).log_evidence(x), stats.betabinom(10, 0.7, 2.5).logpmf(x), rtol=1e-11
    )
    ours = GammaPoisson(0.7, 2.5, exposure=4.0).log_evidence(x)
    assert_allclose(ours, stats.nbinom(0.7, 2.5 / 6.5).logpmf(x), rtol=1e-11)
    times = np.array([0.0, 0.1, 3.0, 1e6])
    assert_allclose(
        GammaExponential(0.7, 2.5).log_evidence(times), stats.lomax(0.7, scale=2.5).logpdf(times), rtol=1e-11
    )
    reals = np.array([-1e4, -2.0, 0.3, 7.0])
    assert_allclose(
        NormalNormal(1.0, 2.0, 0.5, 3.0).log_evidence(reals),
        stats.norm(3, math.hypot(6, 0.5)).logpdf(reals),
        rtol=1e-11,
    )
    student = stats.t(2.6, 2.0, math.sqrt(0.8 * (0.5 + 4) / (1.3 * 0.5)))
    assert_allclose(
        NormalInverseGamma(1.0, 0.5, 1.3, 0.8, 2.0).log_evidence(reals), student.logpdf(reals), rtol=1e-11
    )
    counts = np.array([[3, 1, 0], [0, 0, 4]])
    theirs = [stats.dirichlet_multinomial([0.4, 1.0, 2.0], 4).logpmf(row) for row in counts]
    assert_allclose(DirichletMultinomial(4, [0.4, 1.0, 2.0]).log_evidence(counts), theirs, rtol=1e-11)


@pytest.mark.parametrize(
    ("model", "x", "prior", "posterior"),
    [
        (BetaBinomial(10, 2.0, 1.5), 7, stats.beta(2.0, 1.5), stats.beta(9.0, 4.5)),
        (GammaPoisson(2.0, 1.5, 3.0), 4, stats.gamma(2.0, scale=1 / 1.5), stats.gamma(6.0, scale=1 / 4.5)),
        (GammaExponential(2.0, 1.5), 4.0, stats.gamma(2.0, scale=1 / 1.5), stats.gamma(3.0, scale=1 / 5.5)),
        (NormalNormal(1.0, 2.0, 1.0), 4.0, stats.norm(1, 2), stats.norm(3.4, math.sqrt(0.8))),
    ],
)
def test_posterior_and_kl_by_scipy_quadrature(model: Any, x: float, prior: Any, posterior: Any) -> None:
    found = model.posterior([x])
    low, high = posterior.ppf(1e-15), posterior.isf(1e-15)
    points = np.linspace(posterior.ppf(0.01), posterior.ppf(0.99), 5)[:, None, None]
    assert_allclose(
        found.log_prob(torch.from_numpy(points))[:, 0], posterior.logpdf(points[:, 0, 0]), rtol=1e-10
    )
    kl = quad(
        lambda z: posterior.pdf(z) * (posterior.logpdf(z) - prior.logpdf(z)),
        low,
        high,
        epsabs=1e-12,
        limit=200,
    )[0]
    assert model.kl_to_prior([x]).item() == pytest.approx(kl, rel=1e-9)
    mean, sd = model.posterior_moments([x])
    assert (mean.item(), sd.item()) == pytest.approx((posterior.mean(), posterior.std()), rel=1e-12)


ONE_LATENT = [
    (BetaBinomial(10, 2.0, 1.5), 7, (0.0, 1.0)),
    (GammaPoisson(2.0, 1.5, 3.0), 4, (0.0, 60.0)),
    (GammaExponential(2.0, 1.5), 4.0, (0.0, 60.0)),
    (NormalNormal(1.0, 2.0, 1.0), 4.0, (-30.0, 30.0)),
]


@pytest.mark.parametrize(("model", "x", "ends"), ONE_LATENT)
def test_flatness_by_quadrature(model: Any, x: float, ends: Any) -> None:
    # Panels that shrink towards both ends, where ℓ has logarithms.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    low, high = ends
    shares = np.concatenate([[0.0], 0.5 ** np.arange(40, 0, -1)])
    edges = np.unique(np.concatenate([low + (high - low) * shares, high - (high - low) * shares]))
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    z = torch.from_numpy((middle + half * nodes).reshape(-1, 1, 1))
    mass = (half * weights).ravel() * model.prior.log_prob(z)[:, 0].exp().numpy()
    heights = model.log_likelihood([x], z)[:, 0].numpy()
    average = mass @ heights
    assert mass.sum() == pytest.approx(1.0, rel=1e-12)

    flatness = model.flatness([x])
    variance = mass @ (heights - average) ** 2
    assert flatness.variance.item() == pytest.approx(variance, rel=1e-8)
    assert flatness.oscillation.item() == math.inf
    low, high, _ = band(flatness)
    assert low.item() <= model.kl_to_prior([x]).item() <= high.item()


def test_log_sobolev_band_of_the_beta_prior_holds_and_is_finite() -> None:
    model = BetaBinomial(20, 5.0, 5.0)
    x = np.arange(21)
    low, high, _ = band(model.flatness(x))
    kl = model.kl_to_prior(x)
    assert bool((low <= kl).all() and (kl <= high).all())
    assert bool(high.isfinite().all() and (low[:8] > 0).all())
    flatness = model.flatness([12])
    gradient = quad(lambda p: stats.beta(17, 13).pdf(p) * (12 / p - 8 / (1 - p)) ** 2, 0, 1, epsabs=1e-10)[0]
    assert flatness.gradient_second_moment is not None
    assert flatness.gradient_second_moment.item() == pytest.approx(gradient, rel=1e-8)


# Nothing said, nothing learnt

SILENT = [
    (BetaBinomial(0, 2.0, 3.0), [0, 0]),
    (BetaBinomial(0, 2.0, 3.0, pooled=True), [0, 0]),
    (DirichletMultinomial(0, [1.0, 2.0, 0.3]), [[0, 0, 0]]),
    (GammaPoisson(2.0, 3.0, exposure=0), [0, 0]),
    (NormalNormal(1.0, 2.0, 0.5, gain=0), [0.3, 1e4]),
    (BetaBinomial(4, 2.0, 3.0, pooled=True), np.zeros((0, 1))),
    (GammaPoisson(2.0, 3.0, pooled=True), np.zeros((0, 1))),
    (GammaExponential(2.0, 3.0, pooled=True), np.zeros((0, 1))),
    (NormalNormal(1.0, 2.0, 0.5, pooled=True), np.zeros((0, 1))),
    (NormalInverseGamma(1.0, 2.0, 0.5, 0.7, pooled=True), np.zeros((0, 1))),
    (DirichletMultinomial(4, [1.0, 2.0], pooled=True), np.zeros((0, 2))),
]


@pytest.mark.parametrize(("model", "x"), SILENT)
def test_where_the_likelihood_is_constant_the_posterior_is_the_prior_exactly(model: Any, x: Any) -> None:
    for kl in (model.kl_to_prior(x), model.kl_per_latent(x), model.kl_conditional(x)):
        assert bool((kl == 0).all())
    flatness = model.flatness(x)
    assert bool((flatness.variance == 0).all() and (flatness.oscillation == 0).all())
    assert bool((model.kl_error(x) > 0).all() and (model.kl_error(x) < 1e-200).all())
    z = model.prior.sample((3,)).to(torch.float64)[:, None]
    assert_allclose(model.posterior(x).log_prob(z)[:, 0], model.prior.log_prob(z)[:, 0], rtol=1e-13)
    if len(x) == 0:
        assert model.log_evidence(x).tolist() == [0.0]


def test_no_rows() -> None:
    for model in (BetaBinomial(4), GammaPoisson(1, 1), GammaExponential(1, 1), NormalNormal(0, 1, 1)):
        x = np.zeros((0, 1))
        assert model.kl_to_prior(x).shape == model.log_evidence(x).shape == model.kl_error(x).shape == (0,)
        assert model.posterior_moments(x)[0].shape == (0, 1)


# The average over the model's own data


@pytest.mark.parametrize(
    "model",
    [
        BetaBinomial(9, 0.4, 1.7),
        DirichletMultinomial(7, [0.5, 1.0, 2.0]),
        GammaPoisson(0.6, 0.3, 2.0),
        GammaExponential(1.4, 2.0),
        NormalNormal(1.0, 2.0, 1.5, 0.7),
        NormalInverseGamma(1.0, 2.0, 1.5, 0.7, 1.3),
    ],
)
def test_mutual_information_is_the_average_kl(model: Any) -> None:
    x, z = model.sample(5000, seed())
    kl = model.kl_to_prior(x)
    found = model.mutual_information()
    assert abs(kl.mean().item() - found.value) < 5 * kl.std().item() / math.sqrt(len(kl)) + found.error
    # The joint is right on average as well: E[log p(x | z)] − E[log p(x)] is the same number.
    gain = model.log_likelihood(x, z) - model.log_evidence(x)
    assert abs(gain.mean().item() - found.value) < 5 * gain.std().item() / math.sqrt(len(kl))
    assert found.error < 1e-9


def test_mutual_information_of_counts_by_enumeration() -> None:
    for model in (BetaBinomial(9, 0.4, 1.7), BetaBinomial(3, 1e8, 1e8)):
        x = np.arange(model.trials + 1)
        exact = (model.log_evidence(x).exp() * model.kl_to_prior(x)).sum().item()
        assert model.mutual_information().value == pytest.approx(exact, rel=1e-12)
    three = DirichletMultinomial(4, [0.5, 1.0, 2.0])
    counts = np.array([[i, j, 4 - i - j] for i in range(5) for j in range(5 - i)])
    mass = three.log_evidence(counts).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-13)
    exact = (mass * three.kl_to_prior(counts)).sum().item()
    assert three.mutual_information().value == pytest.approx(exact, rel=1e-12)


def test_mutual_information_of_a_sharp_prior_and_of_endless_counts() -> None:
    with mp.workdps(DIGITS):
        exact = mp.digamma(mp.mpf(10) ** 8 + 1) - mp.log(mp.mpf(10) ** 8)
        assert relative(GammaExponential(1e8, 1.0).mutual_information().value, exact) < 1e-13
        a = mp.mpf(10) ** 8
        exact = (a + 0.5) * mp.digamma(a + 0.5) - a * mp.digamma(a) + mp.loggamma(a) - mp.loggamma(a + 0.5)
        exact += mp.log(3) / 2 - mp.mpf(1) / 2
        assert (
            relative(NormalInverseGamma(0, 1, 1e8, 1.0, math.sqrt(2)).mutual_information().value, exact)
            < 1e-13
        )
    drawn = GammaPoisson(2.0, 1.0, 1e8).mutual_information()
    assert drawn.method == "Monte Carlo" and drawn.error > 0
    # Counts this large are as good as the rate itself with a relative error of x^−½: I is of the order of ½ log x.
    assert 7 < drawn.value < 10


@pytest.mark.parametrize(("n", "a", "b"), [(5, 1e-6, 1e6), (1, 1e-6, 1e-6), (20, 1e-12, 1.0), (7, 1e9, 1e-3)])
def test_information_of_uneven_shapes_is_within_its_error(n: int, a: float, b: float) -> None:
    with mp.workdps(40):
        one, two, exact = mp.mpf(a), mp.mpf(b), mp.mpf(0)
        for x in range(n + 1):
            ratio = mp.beta(one + x, two + n - x) / mp.beta(one, two)
            kl = x * mp.digamma(one + x) + (n - x) * mp.digamma(two + n - x) - n * mp.digamma(one + two + n)
            exact += mp.binomial(n, x) * ratio * (kl - mp.log(ratio))
        for model in (BetaBinomial(n, a, b), DirichletMultinomial(n, [a, b])):
            found = model.mutual_information()
            assert abs(found.value - exact) <= found.error


@pytest.mark.parametrize("pooled", [False, True])
def test_information_of_endless_trials_is_simulated_row_by_row(pooled: bool) -> None:
    # Of so many trials x/n is p, and its posterior normal: I = h(Beta) − ½ E log(2πe p(1 − p)/n).
    a, b, n = 2.0, 3.0, 10**9
    found = BetaBinomial(n, a, b, pooled=pooled).mutual_information()
    logs = mp.digamma(a) + mp.digamma(b) - 2 * mp.digamma(a + b)
    exact = stats.beta(a, b).entropy() - float(mp.log(2 * mp.pi * mp.e / n) + logs) / 2
    assert found.method == "Monte Carlo"
    assert abs(found.value - exact) < 5 * found.error < 0.02
    endless = GammaPoisson(2.0, 1.0, 1e8, pooled=pooled).mutual_information()
    assert 0 < endless.error < 0.02


# Normal–inverse-gamma


def nig_by_quadrature(model: NormalInverseGamma, x: float) -> tuple[float, float]:
    """Evidence and joint KL of one row, by the trapezoid rule over log v and the mean in units of sd."""
    t, u = np.linspace(-6, 8, 1401)[:, None], np.linspace(-12, 12, 1201)
    v = np.exp(t)
    m = model.mean + u * np.sqrt(v / model.kappa)
    prior = stats.invgamma(model.shape, scale=model.rate).logpdf(v) + t + stats.norm.logpdf(u)
    height = stats.norm(model.gain * m, np.sqrt(v)).logpdf(x)
    mass = np.exp(prior + height) * (t[1] - t[0]) * (u[1] - u[0])
    return mass.sum(), (mass * height).sum() / mass.sum() - math.log(mass.sum())


def test_normal_inverse_gamma_by_scipy() -> None:
    model = NormalInverseGamma(0.5, 2.0, 3.0, 2.0, 1.5)
    evidence, kl = nig_by_quadrature(model, 2.0)
    assert model.log_evidence([2.0]).item() == pytest.approx(math.log(evidence), rel=1e-10)
    assert model.kl_to_prior([2.0]).item() == pytest.approx(kl, rel=1e-10)


def _information(m: float, first: Any, second: Any) -> float:
    return second.pdf(m) * (second.logpdf(m) - first.logpdf(m))


@pytest.mark.parametrize("gain", [0.0, 1.0, -2.0])
def test_normal_inverse_gamma_per_latent(gain: float) -> None:
    model = NormalInverseGamma(0.5, 2.0, 1.2, 2.0, gain)
    x = np.array([[0.0], [2.0], [-30.0]])
    marginal, conditional, joint = model.kl_per_latent(x), model.kl_conditional(x), model.kl_to_prior(x)
    law = model.posterior(x)
    for i in range(len(x)):
        first = stats.t(2.4, 0.5, math.sqrt(2.0 / 1.2 / 2.0))
        degrees, place, width = (
            float(p[i]) for p in (2 * law.shape, law.location, (law.rate / law.shape / law.kappa).sqrt())
        )
        second = stats.t(degrees, place, width)
        cuts = [place + width * c for c in (-1e3, -30, -3, 0, 3, 30, 1e3)]
        ends = [-np.inf, *cuts, np.inf]
        kl = sum(
            quad(_information, low, high, args=(first, second), epsabs=1e-13)[0]
            for low, high in pairwise(ends)
        )
        assert marginal[i, 1].item() == pytest.approx(kl, rel=1e-8)
    assert_allclose(marginal[:, 0] + conditional[:, 1], joint, rtol=1e-12)
    assert_allclose(marginal[:, 1] + conditional[:, 0], joint, rtol=1e-12)
    if gain == 0:
        # The likelihood ignores m given v, yet its marginal moves: priors that depend on each other (theory/T3).
        assert conditional[:, 1].tolist() == [0.0] * 3
        assert bool((marginal[:, 1] > 1e-3).all())


def test_flatness_of_the_normal_inverse_gamma_pair_by_draws() -> None:
    model = NormalInverseGamma(0.5, 2.0, 6.0, 5.0, 1.5, pooled=True)
    x = [0.3, 1.0, 2.2]
    z = model.sample(0, seed(1))[1]
    assert z.shape == (1, 2)
    variance = 5.0 / gammas(torch.full((400_000,), 6.0, dtype=torch.float64), seed(2))
    mean = 0.5 + (variance / 2).sqrt() * torch.randn(400_000, dtype=torch.float64, generator=seed(3))
    heights = model.log_likelihood(x, torch.stack([variance, mean], -1)[:, None])[:, 0]
    assert model.flatness(x).variance.item() == pytest.approx(heights.var().item(), rel=0.03)
    direct = stats.norm(1.5 * mean[0].item(), variance[0].item() ** 0.5).logpdf(x).sum()
    assert heights[0].item() == pytest.approx(direct, rel=1e-12)
    # Bayes' rule
    log_joint = model.prior.log_prob(torch.stack([variance, mean], -1)[:5]) + heights[:5]
    after = model.posterior(x).log_prob(torch.stack([variance, mean], -1)[:5])
    assert_allclose(after, log_joint - model.log_evidence(x), rtol=1e-10)


def test_the_law_of_mean_and_variance() -> None:
    law = NormalInverseGamma(0.5, 2.0, 6.0, 5.0).posterior([1.0, -2.0])
    torch.manual_seed(0)
    draws = law.sample((200_000,))
    assert_allclose(draws.mean(0), law.mean, rtol=0.02)
    assert_allclose(draws.std(0), law.stddev, rtol=0.04)
    assert_allclose(law.covariance.diagonal(dim1=-2, dim2=-1), law.variance)
    assert_allclose(law.marginal(0).mean, law.mean[:, 0])
    assert_allclose(law.marginal(1).stddev, law.stddev[:, 1])
    with pytest.raises(IndexError, match="index should be 0 or 1, got 2"):
        law.marginal(2)


def test_student_divergence_of_nearly_normal_laws_and_of_far_ones() -> None:
    one = torch.ones(1, dtype=torch.float64)
    for shift, scale in ((0.5, 1.0), (0.0, 1e-8), (1e4, 0.1), (3.0, 20.0)):
        kl, error = student_kl(1e24 * one, shift * one, scale * one, 1e24)
        exact = (shift**2 + scale**2 - 1) / 2 - math.log(scale)
        assert kl.item() == pytest.approx(exact, rel=1e-9)
        assert abs(kl.item() - exact) <= error.item() + 1e-6 * exact
    # Cauchy against Cauchy: log[((1 + s)² + μ²)/(4 s)] (Chyzak & Nielsen 2019)
    for shift, scale in ((0.0, 0.01), (5.0, 1.0), (1e3, 2.0)):
        kl, error = student_kl(one, shift * one, scale * one, 1.0)
        exact = math.log(((1 + scale) ** 2 + shift**2) / (4 * scale))
        assert abs(kl.item() - exact) <= error.item()
        assert error.item() < 1e-8


# Fits


def test_fits_are_stationary_and_find_the_truth() -> None:
    truths = [
        (BetaBinomial(20, 2.0, 5.0), lambda x: BetaBinomial.fit(x, 20), ("a", "b")),
        (GammaPoisson(1.5, 0.5, 2.0), lambda x: GammaPoisson.fit(x, 2.0), ("shape", "rate")),
        (GammaExponential(3.0, 2.0), GammaExponential.fit, ("shape", "rate")),
        (NormalNormal(1.0, 2.0, 1.0), lambda x: NormalNormal.fit(x, 1.0), ("mean", "sd")),
        (
            NormalInverseGamma(1.0, 2.0, 3.0, 4.0),
            lambda x: NormalInverseGamma.fit(x, 2.0),
            ("mean", "shape", "rate"),
        ),
    ]
    for truth, fit, names in truths:
        x, _ = truth.sample(1500, seed(5))
        model = fit(x)
        best = model.log_evidence(x).sum().item()
        assert model.convergence is not None and model.convergence.converged
        assert model.convergence.log_likelihood == pytest.approx(best, rel=1e-11)
        assert best >= truth.log_evidence(x).sum().item()
        history = model.convergence.history
        assert all(later >= earlier for earlier, later in pairwise(history))
        for name in names:
            assert getattr(model, name) == pytest.approx(getattr(truth, name), rel=0.4)
            for factor in (0.99, 1.01):
                other = copy(model)
                object.__setattr__(other, name, getattr(model, name) * factor)
                assert other.log_evidence(x).sum().item() < best


def test_dirichlet_fit_is_stationary() -> None:
    truth = DirichletMultinomial(15, [0.5, 2.0, 4.0])
    x, _ = truth.sample(2000, seed(6))
    model = DirichletMultinomial.fit(x)
    assert_allclose(model.concentrations, truth.concentrations, rtol=0.2)
    best = model.log_evidence(x).sum().item()
    for i in range(3):
        for factor in (0.99, 1.01):
            a = model.concentrations.clone()
            a[i] *= factor
            assert DirichletMultinomial(15, a).log_evidence(x).sum().item() < best


def test_a_fit_that_runs_away_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="runs away"):
        model = BetaBinomial.fit([5, 5, 5, 5, 5, 5], 10)
    assert not model.convergence.converged  # type: ignore[union-attr]
    assert model.a / (model.a + model.b) == pytest.approx(0.5)
    with pytest.warns(ConvergenceWarning, match="runs away"):
        GammaPoisson.fit([4, 4, 4, 4])


def test_a_fit_to_times_of_very_different_sizes_starts_where_the_likelihood_is() -> None:
    # Σ log(1 + x/b) = n/a and Σ 1/(b + x) = n a/(b (a + 1)) at the top, in 50 digits.
    times = [10.0**power for power in range(-30, 31, 3)]
    model = GammaExponential.fit(times)
    assert model.convergence is not None and model.convergence.converged
    a, b = mp.mpf(model.shape), mp.mpf(model.rate)
    assert abs(mp.fsum(mp.log1p(mp.mpf(x) / b) for x in times) * a / len(times) - 1) < 1e-6
    assert abs(mp.fsum(b / (b + mp.mpf(x)) for x in times) * (a + 1) / a / len(times) - 1) < 1e-6


def test_a_warning_names_the_log_likelihood_of_the_data_themselves() -> None:
    x = 1e3 * torch.randn(50, dtype=torch.float64, generator=seed(2)).clamp(-1.5, 1.5)
    with pytest.warns(ConvergenceWarning, match="runs away") as caught:
        model = NormalInverseGamma.fit(x)
    height = model.log_evidence(x).sum().item()
    assert f"log-likelihood {height:.6g} nats" in str(caught[0].message)


# The door


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BetaBinomial(2.5), "trials should be a whole number of at least 0, got 2.5"),
        (lambda: BetaBinomial(-1), "trials should be a whole number of at least 0, got -1"),
        (lambda: BetaBinomial(3, 0.0), "a should be positive, got 0.0"),
        (lambda: DirichletMultinomial(3, [1.0]), "concentrations should be at least two, got 1"),
        (lambda: DirichletMultinomial(3, [1.0, -1.0]), "concentrations should be positive, got -1.0"),
        (lambda: GammaPoisson(1.0, 1.0, -1.0), "exposure should be at least 0, got -1.0"),
        (lambda: NormalNormal(0.0, 1.0, 0.0), "sigma should be positive, got 0.0"),
        (lambda: NormalInverseGamma(0.0, -1.0, 1.0, 1.0), "kappa should be positive, got -1.0"),
        (lambda: BetaBinomial(3).kl_to_prior([4]), "x should hold counts 0 … 3, got 4"),
        (lambda: BetaBinomial(3).kl_to_prior([1.5]), "x should hold counts 0 … 3, got 1.5"),
        (lambda: DirichletMultinomial(3, [1.0, 1.0]).kl_to_prior([[1, 1]]), "rows that sum to 3, got 2"),
        (
            lambda: GammaPoisson(1.0, 1.0).log_evidence([-1]),
            "x should hold counts 0, 1, 2, … up to 2⁵³, got -1",
        ),
        (
            lambda: GammaPoisson(1.0, 1.0, 0).log_evidence([1]),
            "x should be 0 where there is no exposure, got 1",
        ),
        (
            lambda: GammaExponential(1.0, 1.0).kl_to_prior([-0.5]),
            "x should hold times of at least 0, got -0.5",
        ),
        (lambda: NormalNormal(0.0, 1.0, 1.0).kl_to_prior([math.nan]), "x should be finite, got nan"),
        (
            lambda: BetaBinomial(3).log_likelihood([1], [[1.5]]),
            r"z should be probabilities in \[0, 1\], got 1.5",
        ),
        (
            lambda: GammaPoisson(1.0, 1.0).log_likelihood([1], [[-1.0]]),
            "z should be rates of at least 0, got -1",
        ),
        (
            lambda: NormalInverseGamma(0, 1, 1, 1).log_likelihood([1.0], [[0.0, 1.0]]),
            "positive variances, got 0",
        ),
        (
            lambda: DirichletMultinomial(1, [1, 1]).log_likelihood([[1, 0]], [[0.5, 0.6]]),
            "z should sum to one",
        ),
        (lambda: BetaBinomial.fit([0, 0], 5), "x should show every outcome, got outcome 0 never"),
        (lambda: BetaBinomial.fit([0, 1], 1), "trials should be at least 2"),
        (lambda: GammaPoisson.fit([0, 0]), "x should hold at least one event, got none"),
        (lambda: NormalNormal.fit([0.0, 0.1], 1.0), "x should vary more than the noise alone"),
        (lambda: NormalInverseGamma.fit([1.0, 1.0, 1.0]), "x should vary in every column, got 1 throughout"),
    ],
)
def test_bad_input_is_named_and_explained(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Sizes, precisions, twins


@pytest.mark.parametrize("pooled", [False, True])
def test_blocks_and_single_precision(pooled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conjugate, "BLOCK", 64)
    models = [
        BetaBinomial(9, 0.4, 1.7, pooled=pooled),
        DirichletMultinomial(7, [0.5, 1.0, 2.0], pooled=pooled),
        GammaPoisson(0.6, 0.3, 2.0, pooled=pooled),
        GammaExponential(1.4, 2.0, pooled=pooled),
        NormalNormal(1.0, 2.0, 1.5, pooled=pooled),
    ]
    for model in models:
        x, _ = model.sample(200, seed())
        whole = model.kl_to_prior(x)
        if not pooled:
            assert torch.equal(whole[60:70], model.kl_to_prior(x[60:70]))
        single = model.kl_to_prior(x.float())
        assert single.dtype == torch.float32 and whole.dtype == torch.float64
        assert_allclose(single, whole, rtol=1e-5, atol=1e-6)
        x = x[:100]
        assert model.posterior(x.float()).mean.dtype == torch.float32
        assert model.log_evidence(x.float()).dtype == torch.float32
        assert model.kl_error(x.float()).dtype == model.flatness(x.float()).variance.dtype == torch.float64


def test_offsets_leave_no_trace() -> None:
    x = np.array([0.001, -0.002, 0.0005])
    near = NormalInverseGamma(0.0, 1.0, 2.0, 1e-6, pooled=True).kl_to_prior(x).item()
    far = NormalInverseGamma(1e6, 1.0, 2.0, 1e-6, pooled=True)
    assert far.kl_to_prior(x + 1e6).item() == pytest.approx(near, rel=1e-6)
    assert abs(far.kl_to_prior(x + 1e6).item() - near) <= far.kl_error(x + 1e6).item()


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (BetaBinomial(5, 2.0, 3.0), [[0], [3]]),
        (BetaBinomial(0, 2.0, 3.0), [[0]]),
        (GammaPoisson(2.0, 3.0, 1.5), [[0], [3]]),
        (GammaPoisson(2.0, 3.0, 0), [[0]]),
        (GammaExponential(2.0, 3.0), [[0.5]]),
        (NormalNormal(0.5, 2.0, 1.0), [[0.5]]),
        (NormalNormal(0.5, 2.0, 1.0, 0.0), [[0.5]]),
        (NormalInverseGamma(0.5, 2.0, 3.0, 1.0), [[0.7]]),
        (NormalInverseGamma(0.5, 2.0, 3.0, 1.0, 0.0), [[0.7]]),
    ],
)
def test_the_theorem(model: Any, x: Any) -> None:
    found = verify(model, x)
    assert found.agrees is True, str(found)


def test_symbolic_twins_have_the_same_posterior() -> None:
    for model, x in (
        (BetaBinomial(5, 2.0, 3.0), [[3]]),
        (BetaBinomial(5, 2.0, 3.0, pooled=True), [[3], [4]]),
        (GammaPoisson(2.0, 3.0, 1.5, pooled=True), [[3], [0]]),
        (GammaExponential(2.5, 3.0), [[0.5]]),
        (NormalNormal(0.5, 2.0, 1.0, 1.5), [[0.5]]),
    ):
        ours, theirs = collapse(model, x), collapse(model.symbolic(), x, pooled=model.pooled)
        for name in ("kl", "log_evidence", "posterior_mean", "posterior_sd"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (GammaExponential(11.008307107051166, 1.2274438021351517e-06), 1.1150159513163795e-07),
        (GammaExponential(11.781744371275023, 0.0011054422696845877), 9.382670637293385e-05),
        (BetaBinomial(2, 10.239882012030607, 1.4083344880649865e-05), 2.0),
        (BetaBinomial(1, 3.6245520090079066e-05, 8.39385227943036), 0.0),
    ],
)
def test_the_stated_error_holds_where_means_stay_and_only_shapes_move(model, x):
    # What is left of the KL there are differences of Stirling's remainders.
    with mp.workdps(40):
        x = mp.mpf(x)
        if isinstance(model, GammaExponential):
            a, b = mp.mpf(model.shape), mp.mpf(model.rate)
            later = a + 1
            kl = mp.psi(0, later) - mp.loggamma(later) + mp.loggamma(a)
            kl += a * mp.log((b + x) / b) - later * x / (b + x)
        else:
            a, b, n = mp.mpf(model.a), mp.mpf(model.b), model.trials
            kl = mp.log(mp.beta(a, b) / mp.beta(a + x, b + n - x))
            kl += x * mp.psi(0, a + x) + (n - x) * mp.psi(0, b + n - x) - n * mp.psi(0, a + b + n)
        found, error = model.kl_to_prior([float(x)]).item(), model.kl_error([float(x)]).item()
        assert abs(found - kl) <= error / 2
        assert error <= 1e-9 * found + 1e-14

"""The inequalities of theory/T4 against random discrete laws, the laws that attain them, and closed forms."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.stats import beta as beta_law

from identkit.model.protocol import Flatness
from identkit.posterior.bounds import (
    band,
    beta_log_sobolev,
    kl_upper_oscillation,
    log_sobolev_upper,
    talagrand_lower,
    total_variation_upper,
    variance_factors,
)

OMEGAS = np.logspace(-10, 2, 49)


def random_law(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights and ℓ of 2 to 8 states, ω log-uniform on 1e-10 … 100; one law in three is very lopsided."""
    states = int(rng.integers(2, 9))
    weights = rng.dirichlet(np.full(states, 0.2 if rng.random() < 1 / 3 else 1.0)) + 1e-7
    heights = rng.random(states) ** rng.choice([0.3, 1.0, 3.0])
    heights = (heights - heights.min()) / (heights.max() - heights.min())
    return weights / weights.sum(), heights * 10 ** rng.uniform(-10, 2)


def tilt_kl(u: np.ndarray) -> np.ndarray:
    """u e^u − expm1(u) = Σ (k − 1) u^k/k!, which is all of the sum for small u and no cancellation."""
    series = sum((k - 1) * u**k / math.factorial(k) for k in range(2, 20))
    return np.where(np.abs(u) < 0.5, series, u * np.exp(u) - np.expm1(u))


def divergences(weights: np.ndarray, heights: np.ndarray) -> tuple[float, float, float]:
    """KL(Q‖P), KL(P‖Q) and TV(Q, P) of the tilted law, free of cancellation."""
    # Centred heights keep log E e^ℓ as small as the spread, so u loses nothing to it.
    centred = heights - weights @ heights
    if centred.max() < 1:
        log_mean = math.log1p(weights @ tilt_remainder(centred))
    else:
        top = centred.max()
        log_mean = top + math.log(weights @ np.exp(centred - top))
    u = centred - log_mean
    forward = float(weights @ tilt_kl(u))
    backward = float(weights @ np.where(np.abs(u) < 0.5, tilt_remainder(u), np.expm1(u) - u))
    return forward, backward, float(weights @ np.abs(np.expm1(u)) / 2)


def tilt_remainder(u: np.ndarray) -> np.ndarray:
    """expm1(u) − u = Σ_{k ≥ 2} u^k/k!."""
    return np.where(np.abs(u) < 1, sum(u**k / math.factorial(k) for k in range(2, 24)), np.expm1(u) - u)


def exact_divergences(weights: np.ndarray, heights: np.ndarray) -> tuple[mpmath.mpf, mpmath.mpf]:
    """The two KLs by their definition at 60 digits, nothing shared with `divergences`."""
    with mpmath.workdps(60):
        p = [mpmath.mpf(float(weight)) for weight in weights]
        total = mpmath.fsum(p)
        p = [weight / total for weight in p]
        q = [
            weight * mpmath.exp(mpmath.mpf(float(height))) for weight, height in zip(p, heights, strict=True)
        ]
        evidence = mpmath.fsum(q)
        q = [weight / evidence for weight in q]
        pairs = list(zip(p, q, strict=True))
        return (
            mpmath.fsum(b * mpmath.log(b / a) for a, b in pairs),
            mpmath.fsum(a * mpmath.log(a / b) for a, b in pairs),
        )


def flatness_of(weights: np.ndarray, heights: np.ndarray) -> Flatness:
    """V and ω of one discrete law, as a single datum."""
    variance = float(weights @ (heights - weights @ heights) ** 2)
    one = torch.ones(1, dtype=torch.float64)
    return Flatness(
        variance=one * variance,
        variance_error=one * 1e-14 * variance,
        oscillation=one * float(heights.max() - heights.min()),
    )


def two_point(weight: float, omega: float) -> tuple[np.ndarray, np.ndarray]:
    """The law with ℓ = ω at mass `weight` and ℓ = 0 elsewhere."""
    return np.array([1 - weight, weight]), np.array([0.0, omega])


def test_the_oracle_of_these_tests_agrees_with_fifty_digits():
    rng = np.random.default_rng(0)
    for _ in range(150):
        weights, heights = random_law(rng)
        forward, backward, _ = divergences(weights, heights)
        exact = exact_divergences(weights, heights)
        assert forward == pytest.approx(float(exact[0]), rel=1e-9)
        assert backward == pytest.approx(float(exact[1]), rel=1e-9)


def test_every_oscillation_bound_holds_on_thousands_of_random_laws():
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(4000):
        weights, heights = random_law(rng)
        moments = flatness_of(weights, heights)
        rows.append((*divergences(weights, heights), moments.variance.item(), moments.oscillation.item()))
    forward, backward, variation, variance, omega = torch.tensor(rows, dtype=torch.float64).T
    assert omega.min() < 1e-9
    assert omega.max() > 90
    rounding = 1e-9  # of the oracle above, relative; ω reaches 1e-10 where KL is 1e-21
    assert bool((torch.maximum(forward, backward) <= kl_upper_oscillation(omega) * (1 + rounding)).all())
    assert bool((variation <= total_variation_upper(omega) * (1 + rounding)).all())
    low, high = variance_factors(omega)
    assert bool((low * variance <= forward * (1 + rounding)).all())
    assert bool((forward <= high * variance * (1 + rounding)).all())
    low, high, names = band(Flatness(variance=variance, variance_error=1e-14 * variance, oscillation=omega))
    assert bool(((low <= forward * (1 + rounding)) & (forward <= high * (1 + rounding))).all())
    assert bool((low > 0).all())
    assert set(names) == {"T4.3", "T4.3/T4.2"}


def test_the_bands_meet_as_the_oscillation_vanishes():
    """KL → ½V, so a band that is narrow about another number would exclude it: both factors are pinned."""
    rng = np.random.default_rng(2)
    for _ in range(500):
        weights, heights = random_law(rng)
        heights = heights / heights.max() * 10 ** rng.uniform(-10, -4)
        forward, _, _ = divergences(weights, heights)
        moments = flatness_of(weights, heights)
        low, high, _ = band(moments)
        assert forward == pytest.approx(moments.variance.item() / 2, rel=moments.oscillation.item() + 1e-9)
        assert (high / low - 1).item() <= 1.4 * moments.oscillation.item() + 1e-12


@pytest.mark.parametrize("omega", OMEGAS)
def test_a_two_point_law_attains_the_oscillation_bound(omega: float):
    """M = E e^ℓ = ω/(1 − e^−ω) maximises KL = M − 1 − ln M among two-point laws, for either order of KL."""
    with mpmath.workdps(60):
        w = mpmath.mpf(float(omega))
        m = w / -mpmath.expm1(-w)
        p = (m - 1) / mpmath.expm1(w)
        q = p * mpmath.exp(w) / m
        forward = q * mpmath.log(q / p) + (1 - q) * mpmath.log((1 - q) / (1 - p))
    assert kl_upper_oscillation(float(omega)).item() == pytest.approx(float(forward), rel=2e-15)
    mirrored = two_point(float(q), -float(omega))  # prior and posterior change places
    assert divergences(*mirrored)[1] == pytest.approx(float(forward), rel=1e-7)


@pytest.mark.parametrize("omega", [0.1, 1.0, 7.0, 30.0])
def test_a_two_point_law_attains_the_total_variation_bound(omega: float):
    _, _, variation = divergences(*two_point(1 / (1 + math.exp(omega / 2)), omega))
    assert variation == pytest.approx(total_variation_upper(omega).item(), rel=1e-12)


@pytest.mark.parametrize("omega", [1e-3, 0.3, 0.999, 1.001, 5.0, 20.0])
def test_rare_spikes_and_pits_attain_the_variance_factors(omega: float):
    """With mass p → 0 at ℓ = ±ω, KL/V tends to the upper and the lower factor."""
    low, high = (factor.item() for factor in variance_factors(omega))
    for sign, factor in ((1, high), (-1, low)):
        with mpmath.workdps(60):
            w = sign * mpmath.mpf(omega)
            p = mpmath.exp(-abs(w)) / 10**13
            variance = p * (1 - p) * w**2
            evidence = 1 + p * mpmath.expm1(w)
            kl = p * mpmath.exp(w) / evidence * w - mpmath.log(evidence)
            assert factor == pytest.approx(float(kl / variance), rel=1e-10)


def test_the_factors_agree_with_fifty_digits_and_never_overflow():
    with mpmath.workdps(60):
        for omega in np.concatenate([np.logspace(-12, 2.85, 200), [0.9999, 1.0, 1.0001]]):
            w = mpmath.mpf(float(omega))
            low, high = variance_factors(float(omega))
            assert low.item() == pytest.approx(float((1 - (1 + w) * mpmath.exp(-w)) / w**2), rel=2e-15)
            assert high.item() == pytest.approx(float((1 + (w - 1) * mpmath.exp(w)) / w**2), rel=2e-15)
    extreme = torch.tensor([0.0, 5e-324, 1e-300, 1e308, math.inf], dtype=torch.float64)
    low, high = variance_factors(extreme)
    assert low[:3].tolist() == high[:3].tolist() == [0.5] * 3
    assert low[3:].tolist() == [0.0, 0.0]
    assert high[3:].tolist() == [math.inf, math.inf]
    assert kl_upper_oscillation(extreme).tolist() == [0.0, 0.0, 0.0, pytest.approx(1e308), math.inf]


def test_the_tilting_identity():
    """KL(Q‖P) = ∫₀¹ t Var_{P_t}(ℓ) dt, the source of T4.3, and the symmetrised KL is E_Q ℓ − E_P ℓ."""
    rng = np.random.default_rng(3)
    nodes, rule = np.polynomial.legendre.leggauss(80)
    for _ in range(200):
        weights, heights = random_law(rng)
        heights = np.minimum(heights, 12.0)
        tilted = weights * np.exp(np.outer((nodes + 1) / 2, heights - heights.max()))
        tilted /= tilted.sum(axis=1, keepdims=True)
        variance = (tilted * (heights - (tilted @ heights)[:, None]) ** 2).sum(axis=1)
        forward, backward, _ = divergences(weights, heights)
        assert (rule / 2) @ ((nodes + 1) / 2 * variance) == pytest.approx(forward, rel=1e-8)
        posterior = weights * np.exp(heights - heights.max())
        gap = posterior / posterior.sum() @ (heights - weights @ heights)
        assert gap == pytest.approx(forward + backward, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize(("rho", "slope"), [(1.0, 0.3), (4.0, -2.0), (0.01, 1e-9)])
def test_a_linear_likelihood_under_a_gaussian_prior_attains_both_transport_bounds(rho: float, slope: float):
    """P = N(0, 1/ρ), ℓ = c z: Q = N(c/ρ, 1/ρ) and KL = c²/(2ρ)."""
    exact = slope**2 / (2 * rho)
    assert talagrand_lower(rho, (slope / rho) ** 2).item() == pytest.approx(exact, rel=1e-14)
    assert log_sobolev_upper(rho, slope**2).item() == pytest.approx(exact, rel=1e-14)


def test_gaussian_posteriors_lie_between_the_transport_bounds():
    """Q = N(m, v) from P = N(0, s²) has ℓ′ = z/s² − (z − m)/v; both bounds close as v → s²."""
    rng = np.random.default_rng(4)
    for _ in range(1000):
        sd, mean, ratio = 10 ** rng.uniform(-1, 1), rng.normal() * 3, 10 ** rng.uniform(-6, 0)
        rho, v = 1 / sd**2, sd**2 * ratio
        exact = (ratio - 1 - math.log(ratio) + mean**2 / sd**2) / 2
        slope = 1 / sd**2 - 1 / v
        second_moment = slope**2 * v + (mean / sd**2) ** 2
        tolerance = 1e-12 * (1 + exact)
        assert talagrand_lower(rho, mean**2).item() <= exact + tolerance
        assert exact <= log_sobolev_upper(rho, second_moment).item() + tolerance


@pytest.mark.parametrize(("a", "b"), [(5, 5), (2, 9), (1, 3), (1.5, 1.01), (40, 1)])
def test_the_beta_constant_is_the_least_curvature(a: float, b: float):
    t = np.concatenate(
        [np.logspace(-9, -1, 40_000), np.linspace(0.1, 0.9, 400_000), 1 - np.logspace(-9, -1, 40_000)]
    )
    curvature = (a - 1) / t**2 + (b - 1) / (1 - t) ** 2
    assert beta_log_sobolev(a, b) == pytest.approx(curvature.min(), rel=1e-6)


def test_beta_constants_by_hand():
    assert beta_log_sobolev(5, 5) == pytest.approx(32.0, rel=1e-14)
    assert beta_log_sobolev(1, 1) is None  # uniform: −log density is flat
    assert beta_log_sobolev(0.5, 3) is None  # not log-concave


@pytest.mark.parametrize(
    ("a", "b", "successes", "failures"), [(5, 5, 1, 0), (5, 5, 30, 2), (2, 3, 0.01, 0.02)]
)
def test_beta_posteriors_lie_between_the_transport_bounds(
    a: float, b: float, successes: float, failures: float
):
    """ℓ = s log t + f log(1 − t), so Q is a Beta; every expectation by a fine rule in the probability."""
    nodes, rule = np.polynomial.legendre.leggauss(400)
    t, rule = (nodes + 1) / 2, rule / 2
    prior, posterior = beta_law(a, b), beta_law(a + successes, b + failures)
    density = rule * posterior.pdf(t)
    kl = density @ (posterior.logpdf(t) - prior.logpdf(t))
    second_moment = density @ (successes / t - failures / (1 - t)) ** 2
    rho = beta_log_sobolev(a, b)
    assert rho is not None
    assert talagrand_lower(rho, (posterior.mean() - prior.mean()) ** 2).item() <= kl
    assert kl <= log_sobolev_upper(rho, second_moment).item()


def test_the_band_uses_what_applies_and_names_it():
    infinite = torch.full((2,), math.inf, dtype=torch.float64)
    variance = torch.tensor([2.0, math.inf], dtype=torch.float64)
    bare = Flatness(variance=variance, variance_error=0 * infinite.isinf().double(), oscillation=infinite)
    low, high, names = band(bare)
    assert low.tolist() == [0.0, 0.0]
    assert high.tolist() == [math.inf] * 2
    assert names == ["none", "none"]
    transport = Flatness(
        variance=variance,
        variance_error=bare.variance_error,
        oscillation=infinite,
        log_sobolev=2.0,
        gradient_second_moment=torch.tensor([4.0, math.inf], dtype=torch.float64),
        mean_shift=torch.tensor([0.5, 0.25], dtype=torch.float64),
    )
    low, high, names = band(transport)
    assert low.tolist() == pytest.approx([0.5, 0.25])
    assert high.tolist() == pytest.approx([1.0, math.inf])
    assert names == ["T4.4", "T4.4/none"]


def test_a_constant_likelihood_has_the_band_zero():
    zero = torch.zeros(1, dtype=torch.float64)
    low, high, names = band(Flatness(variance=zero, variance_error=zero + 1e-30, oscillation=zero))
    assert low.item() == 0.0
    assert high.item() == 0.0
    assert names == ["T4.3/T4.2"]


def test_the_band_widens_by_the_stated_error_and_with_a_looser_oscillation():
    rng = np.random.default_rng(5)
    for _ in range(200):
        weights, heights = random_law(rng)
        moments = flatness_of(weights, heights)
        low, high, _ = band(moments)
        error = Flatness(
            variance=moments.variance, variance_error=moments.variance / 2, oscillation=moments.oscillation
        )
        assert band(error)[0].item() == pytest.approx(low.item() / 2, rel=1e-12)
        swamped = Flatness(
            variance=moments.variance, variance_error=moments.variance * 2, oscillation=moments.oscillation
        )
        assert band(swamped)[0].item() == 0.0
        loose = Flatness(
            variance=moments.variance,
            variance_error=moments.variance_error,
            oscillation=moments.oscillation * 1.5,
        )
        assert band(loose)[0].item() <= low.item()
        assert band(loose)[1].item() >= high.item()


@pytest.mark.parametrize("value", [-1e-30, math.nan])
def test_what_cannot_be_an_oscillation_is_refused(value: float):
    for bound in (kl_upper_oscillation, variance_factors, total_variation_upper):
        with pytest.raises(ValueError, match="omega should be at least 0, got"):
            bound(value)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.inf, math.nan])
def test_what_cannot_be_a_constant_is_refused(rho: float):
    with pytest.raises(ValueError, match="rho should be positive and finite, got"):
        talagrand_lower(rho, 1.0)
    with pytest.raises(ValueError, match="a should be positive and finite, got"):
        beta_log_sobolev(rho if rho != math.inf else -1.0, 2.0)

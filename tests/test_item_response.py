"""Item response models against SciPy, mpmath, the nested quadrature, enumeration and simulation."""

from __future__ import annotations

import itertools
import math
import re
import warnings

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm

import identkit as ik
from identkit.classical.em import ConvergenceWarning
from identkit.classical.item_response import ItemResponse
from identkit.model.protocol import Continuous
from identkit.posterior.quadrature import integrate
from tests.examples_items import EXAMPLES

D = torch.float64
NAN = math.nan
SLOPES = [[1.0, 0.3], [0.5, -1.2], [2.0, 0.8], [0.0, 1.5]]
WHERE = [0.4, -1.0, 0.2, 1.1]


def by_mpmath(a: list[float], b: list[float], c: float, answers: list[float]) -> tuple[float, float, float]:
    """Log evidence, KL and posterior mean of one ability, at 30 digits."""
    with mp.workdps(30):

        def likelihood(t: mp.mpf) -> mp.mpf:
            product = mp.mpf(1)
            for slope, where, answer in zip(a, b, answers, strict=True):
                right = c + (1 - c) / (1 + mp.exp(-slope * (t - where)))
                product *= right if answer == 1 else 1 - right if answer == 0 else 1
            return product

        points = [-14, -6, -3, -1.5, 0, 1.5, 3, 6, 14]
        joint = lambda t: mp.npdf(t) * likelihood(t)
        evidence = mp.quad(joint, points)
        kl = mp.quad(lambda t: joint(t) / evidence * mp.log(likelihood(t) / evidence), points)
        mean = mp.quad(lambda t: joint(t) / evidence * t, points)
        return float(mp.log(evidence)), float(kl), float(mean)


# Oracles


@pytest.mark.parametrize("guessing", [0.0, 0.25])
def test_one_ability_against_thirty_digits(guessing: float):
    a, b = [1.0, 2.5, 0.5, -1.3], [-1.0, 0.5, 2.0, 0.1]
    model = ItemResponse(a, b, guessing)
    x = [[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, NAN, 1.0], [1.0, 1.0, 1.0, 1.0]]
    truth = torch.tensor([by_mpmath(a, b, guessing, row) for row in x], dtype=D)
    torch.testing.assert_close(model.log_evidence(x), truth[:, 0], rtol=1e-10, atol=0)
    torch.testing.assert_close(model.kl_to_prior(x), truth[:, 1], rtol=1e-9, atol=0)
    torch.testing.assert_close(model.posterior(x).mean[:, 0], truth[:, 2], rtol=1e-9, atol=0)
    off = (model.kl_to_prior(x) - truth[:, 1]).abs()
    assert (off <= model.kl_error(x)).all() and (model.kl_error(x) < 1e-6).all()


def test_two_abilities_against_a_dense_grid():
    model, answers = ItemResponse(SLOPES, intercepts=WHERE), np.array([1, 0, 1, 0])
    line = np.linspace(-10, 10, 801)
    theta = np.stack(np.meshgrid(line, line, indexing="ij"), -1)
    right = expit(theta @ np.array(SLOPES).T + np.array(WHERE))
    height = np.log(np.where(answers == 1, right, 1 - right)).sum(-1)
    prior = norm.pdf(theta).prod(-1) * (line[1] - line[0]) ** 2
    evidence = (prior * np.exp(height)).sum()
    posterior = prior * np.exp(height) / evidence
    x = answers[None].astype(float)
    assert model.log_evidence(x).item() == pytest.approx(math.log(evidence), rel=1e-10)
    kl = (posterior * (height - math.log(evidence))).sum()
    assert model.kl_to_prior(x).item() == pytest.approx(kl, rel=1e-9)
    for j in (0, 1):
        one, own = posterior.sum(1 - j), prior.sum(1 - j)
        marginal = (one * np.log(one / own)).sum()
        assert model.kl_per_latent(x)[0, j].item() == pytest.approx(marginal, rel=1e-9)
        assert model.kl_conditional(x)[0, 1 - j].item() == pytest.approx(kl - marginal, rel=1e-9)
    centre = np.einsum("ij,ijk->k", posterior, theta)
    away = theta - centre
    covariance = np.einsum("ij,ijk,ijl->kl", posterior, away, away)
    assert model.posterior(x).covariance[0].flatten().tolist() == pytest.approx(
        covariance.flatten().tolist(), rel=1e-8
    )


@pytest.mark.parametrize("guessing", [0.0, 0.3])
def test_against_nested_adaptive_quadrature(guessing: float):
    model = ItemResponse(SLOPES, intercepts=WHERE, guessing=guessing)
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, NAN, 1.0, 1.0]], dtype=D)
    line = Continuous(-math.inf, math.inf)
    q = integrate(
        model.prior.log_prob, lambda rows, z: model.log_likelihood(x[rows], z), [line, line], len(x)
    )
    posterior = model.posterior(x)
    for name, found in {
        "log_evidence": model.log_evidence(x),
        "kl": model.kl_to_prior(x),
        "kl_per_latent": model.kl_per_latent(x),
        "kl_conditional": model.kl_conditional(x),
        "mean": posterior.mean,
        "sd": posterior.stddev,
    }.items():
        torch.testing.assert_close(found, getattr(q, name), rtol=1e-7, atol=1e-9)


def test_covariances_of_sharp_answers_with_guessing():
    """Cliffs that a grid over ±5 sd cuts through: the cross moment is integrated as the others are."""
    slopes, guess = [[8.0, 4.0], [-6.0, 9.0], [7.0, -5.0]], 0.25
    intercepts, given = [1.0, -2.0, 0.5], [1.0, 0.0, 1.0]
    found = ItemResponse(slopes, intercepts=intercepts, guessing=guess).posterior([given])
    line = np.linspace(-8, 8, 2001)
    one, two = np.meshgrid(line, line, indexing="ij")
    weight = np.exp(-(one**2 + two**2) / 2)
    for (a, b), d, x in zip(slopes, intercepts, given, strict=True):
        right = guess + (1 - guess) * expit(a * one + b * two + d)
        weight *= right if x else 1 - right
    weight /= weight.sum()
    mean = [(weight * one).sum(), (weight * two).sum()]
    cross = (weight * (one - mean[0]) * (two - mean[1])).sum()
    assert found.mean[0].tolist() == pytest.approx(mean, abs=1e-9)
    assert found.covariance[0, 0, 1].item() == pytest.approx(cross, abs=1e-9)
    assert torch.equal(found.covariance, found.covariance.mT)


def test_three_abilities_of_separate_items_add_up():
    """Items that ask for one ability each: the posterior is a product, and so is the evidence."""
    a, b = [1.0, 2.0, 0.7], [0.2, -0.5, 1.0]
    model = ItemResponse(np.diag(a), intercepts=b)
    x = torch.tensor([[1.0, 0.0, 1.0]], dtype=D)
    alone = [ItemResponse([s], intercepts=[w]) for s, w in zip(a, b, strict=True)]
    parts = torch.stack([one.kl_to_prior(x[:, [i]]) for i, one in enumerate(alone)], 1)
    for found in (model.kl_per_latent(x), model.kl_conditional(x)):
        torch.testing.assert_close(found, parts, rtol=1e-6, atol=0)
        assert ((found - parts).abs() <= model.kl_error(x)[:, None]).all()
    torch.testing.assert_close(model.kl_to_prior(x), parts.sum(1), rtol=1e-7, atol=0)
    evidence = torch.stack([one.log_evidence(x[:, [i]]) for i, one in enumerate(alone)]).sum(0)
    torch.testing.assert_close(model.log_evidence(x), evidence, rtol=1e-10, atol=0)


def test_evidence_of_all_patterns_sums_to_one_and_information_is_the_mean_kl():
    model = EXAMPLES["two abilities"].model
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=D)
    mass = model.log_evidence(x).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    found = model.mutual_information()
    assert found.method == "quadrature"
    assert found.value == pytest.approx(float(mass @ model.kl_to_prior(x)), rel=1e-12)
    many = ItemResponse([1.0] * 14, [0.0] * 14)
    drawn = many.mutual_information()
    # Counts are sufficient: I(θ; x) = H(count) − E H(count | θ), by SciPy-free sums over 15 counts.
    t = np.linspace(-9, 9, 2001)
    weight = norm.pdf(t) * (t[1] - t[0])
    rows = np.array([math.comb(14, k) * expit(t) ** k * expit(-t) ** (14 - k) for k in range(15)])
    exact = float((weight * np.where(rows > 0, rows * np.log(rows / (rows @ weight)[:, None]), 0)).sum())
    assert drawn.method == "Monte Carlo" and abs(drawn.value - exact) < 5 * drawn.error


# Edges


@pytest.mark.parametrize("name", EXAMPLES)
def test_items_without_discrimination_say_exactly_nothing(name: str):
    example = EXAMPLES[name]
    silent = example.silent
    assert (silent.kl_to_prior(example.x) == 0).all() and (silent.kl_conditional(example.x) == 0).all()
    posterior = silent.posterior(example.x)
    assert (posterior.mean == 0).all() and (posterior.stddev == 1).all()
    assert (silent.flatness(example.x).variance == 0).all()
    assert silent.mutual_information().value == 0


def test_faint_items_keep_their_digits():
    """KL = ½ (Σ_j a_j (x_j − σ(d_j)))² to first order in the slopes."""
    a, d = torch.tensor([1e-9, -2e-9], dtype=D), torch.tensor([1.0, 2.0], dtype=D)
    model = ItemResponse(a, intercepts=d)
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=D)
    first = (a * (x - torch.sigmoid(d))).sum(1).square() / 2
    torch.testing.assert_close(model.kl_to_prior(x), first, rtol=1e-6, atol=0)
    torch.testing.assert_close(model.flatness(x).variance / 2, first, rtol=1e-6, atol=0)


def test_nothing_answered_and_nobody_there():
    model = EXAMPLES["two abilities"].model
    x = torch.full((2, 4), NAN, dtype=D)
    assert (model.kl_to_prior(x) == 0).all() and (model.log_evidence(x) == 0).all()
    assert torch.equal(model.posterior(x).covariance, torch.eye(2, dtype=D).expand(2, 2, 2))
    assert model.kl_to_prior(torch.zeros(0, 4)).shape == (0,)
    assert model.posterior(torch.zeros(0, 4)).mean.shape == (0, 2)


@pytest.mark.parametrize("name", EXAMPLES)
def test_abuses_are_refused(name: str):
    for call, phrase in EXAMPLES[name].abuses:
        with pytest.raises((ValueError, TypeError), match=re.escape(phrase)):
            call()


def test_float32_integers_and_an_extreme_examinee():
    model = EXAMPLES["2PL"].model
    x = torch.tensor(EXAMPLES["2PL"].x)
    assert model.kl_to_prior(x.float()).dtype == torch.float32
    torch.testing.assert_close(model.kl_to_prior(x.float()).double(), model.kl_to_prior(x), rtol=1e-6, atol=0)
    steep = ItemResponse([1e3, 1e3], [0.0, 1e-3])
    found = steep.posterior([[1.0, 0.0]])
    assert found.mean.item() == pytest.approx(5e-4, rel=1e-3)
    assert steep.kl_to_prior([[1.0, 0.0]]).item() > 4


# The posterior object and fitting


def test_density_draws_and_marginals():
    model = EXAMPLES["two abilities"].model
    x = [[1.0, 0.0, 1.0, 0.0]]
    posterior = model.posterior(x)
    draws = posterior.sample((1500,), torch.Generator().manual_seed(1))[:, 0]
    standard_error = posterior.stddev[0] / math.sqrt(1500)
    assert ((draws.mean(0) - posterior.mean[0]).abs() < 5 * standard_error).all()
    torch.testing.assert_close(torch.cov(draws.T), posterior.covariance[0], rtol=0.2, atol=0.06)
    points = torch.linspace(-7, 7, 29, dtype=D)
    density = posterior.marginal(0).log_prob(points)[:, 0].exp()
    assert float(density.sum() * 0.5) == pytest.approx(1, abs=1e-8)
    assert float(density @ points * 0.5) == pytest.approx(posterior.mean[0, 0].item(), abs=1e-8)
    theta = torch.tensor([[0.3, -0.2]], dtype=D)
    bayes = model.prior.log_prob(theta) + model.log_likelihood(x, theta) - model.log_evidence(x)
    torch.testing.assert_close(posterior.log_prob(theta), bayes)


def test_fit_recovers_items_and_never_falls():
    truth = ItemResponse([1.0, 1.5, 0.7, 2.0, 1.2], [0.0, 0.5, -1.0, 1.0, -0.3])
    x, _ = truth.sample(4000, torch.Generator().manual_seed(3))
    x[:50, 0] = NAN
    model = ItemResponse.fit(x)
    assert model.convergence is not None and model.convergence.converged
    assert (np.diff(model.convergence.history) >= 0).all()
    assert ((model.slopes - truth.slopes).abs() < 0.35).all()
    assert ((model.intercepts - truth.intercepts).abs() < 0.2).all()
    height = float(model.log_evidence(x).sum())
    assert height == pytest.approx(model.convergence.log_likelihood, abs=1e-3)
    assert height > float(truth.log_evidence(x).sum())
    # At the maximum the gradient of the evidence vanishes: Fisher's identity, on the exact posterior.
    for j in range(5):
        for step in (-0.02, 0.02):
            moved = model.slopes.clone()
            moved[j] += step
            other = ItemResponse(moved, intercepts=model.intercepts)
            assert float(other.log_evidence(x).sum()) < height
    equal = ItemResponse.fit(x, equal=True)
    assert equal.convergence is not None and float(equal.slopes.std()) == 0
    assert equal.convergence.log_likelihood < model.convergence.log_likelihood


def test_fit_refuses_what_has_no_maximum_and_warns_when_it_stops():
    with pytest.raises(
        ValueError, match="right and wrong answers to every item, got only one kind in column 1"
    ):
        ItemResponse.fit([[0, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"abilities should be in 1\.\.3"):
        ItemResponse.fit([[0, 1], [1, 0]], abilities=4)
    x, _ = EXAMPLES["2PL"].model.sample(200, torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ItemResponse.fit(x, iterations=2)
    assert any("did NOT converge" in str(w.message) for w in caught)


# Both sides of the theorem


def test_verify_and_the_symbolic_twin_agree():
    model = EXAMPLES["2PL"].model
    x = torch.tensor(EXAMPLES["2PL"].x, dtype=D)
    assert ik.verify(model, x).agrees
    assert ik.verify(EXAMPLES["2PL"].silent, x).agrees
    twin = ik.verify(model.symbolic(), x).collapse
    torch.testing.assert_close(model.kl_to_prior(x), twin.kl, rtol=1e-8, atol=0)
    torch.testing.assert_close(model.flatness(x).variance / 2, twin.flatness, rtol=1e-9, atol=0)


def test_zoo_cases_have_their_levels():
    from identkit.zoo.item_posteriors import CASES

    for case in CASES:
        verdict = ik.check(case.build())
        assert verdict.level.name == case.level, case.name


def test_a_fit_of_steep_items_reaches_the_top_of_the_exact_likelihood() -> None:
    theta = torch.linspace(-2.5, 2.5, 300, dtype=torch.float64)[:, None]
    truth = ItemResponse([2.0, 3.0, 5.0, 6.0], difficulties=[-1.0, 0.0, 0.5, 1.0])
    chance = torch.sigmoid(theta @ truth.slopes.T + truth.intercepts)
    x = (
        torch.rand(chance.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) < chance
    ).double()
    model = ItemResponse.fit(x)
    best = model.log_evidence(x).sum().item()
    assert best == pytest.approx(model.convergence.log_likelihood, abs=1e-4)  # type: ignore[union-attr]
    for j in range(4):
        for factor in (0.8, 1.25):
            slopes = model.slopes[:, 0].clone()
            slopes[j] *= factor
            # Turned about where the item is answered by half.
            intercepts = model.intercepts * slopes / model.slopes[:, 0]
            assert ItemResponse(slopes, intercepts=intercepts).log_evidence(x).sum().item() < best


def test_persons_perfectly_ordered_ask_for_slopes_without_end() -> None:
    with pytest.warns(ConvergenceWarning, match="without end"):
        ItemResponse.fit(np.tril(np.ones((5, 4)), -1))

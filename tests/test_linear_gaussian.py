"""PPCA against dense joint-Gaussian algebra, 60-digit arithmetic, numerical optima and the paper's data."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import sympy
import torch
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

from identkit.classical.linear_gaussian import PPCA, sample_eigenvalues
from identkit.posterior.bounds import band


def random_model(d: int, k: int, seed: int = 0) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Loadings, sigma, mean and a few rows of data."""
    rng = np.random.default_rng([d, k, seed])
    loadings = rng.normal(size=(d, k)) * 10.0 ** rng.uniform(-1, 1, size=k)
    return loadings, 10.0 ** rng.uniform(-1, 1), rng.normal(size=d), rng.normal(size=(6, d)) * 3


def dense_posterior(
    loadings: np.ndarray, sigma: float, mean: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of z | x by conditioning the joint normal law of (z, x)."""
    marginal = loadings @ loadings.T + sigma**2 * np.eye(len(loadings))
    gain = np.linalg.solve(marginal, loadings).T
    return (x - mean) @ gain.T, np.eye(loadings.shape[1]) - gain @ loadings


def dense_kl(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """KL(N(mean, covariance) ‖ N(0, I)), rows of means."""
    trace, log_det = np.trace(covariance), np.linalg.slogdet(covariance)[1]
    return (trace - len(covariance) - log_det + (mean**2).sum(-1)) / 2


SHAPES = [(5, 2), (5, 1), (1, 1), (1, 3), (3, 5), (4, 4), (12, 3)]


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_dense_joint_gaussian_algebra(d: int, k: int) -> None:
    loadings, sigma, mean, x = random_model(d, k)
    model = PPCA(loadings, sigma, mean)
    posterior_mean, covariance = dense_posterior(loadings, sigma, mean, x)
    posterior = model.posterior(x)
    assert_allclose(posterior.mean, posterior_mean, rtol=1e-10, atol=1e-13)
    assert_allclose(posterior.covariance_matrix[0], covariance, rtol=1e-9, atol=1e-12)
    marginal = loadings @ loadings.T + sigma**2 * np.eye(d)
    evidence = np.atleast_1d(multivariate_normal(mean, marginal).logpdf(x))
    assert_allclose(model.log_evidence(x), evidence, rtol=1e-10)
    assert_allclose(model.kl_to_prior(x), dense_kl(posterior_mean, covariance), rtol=1e-9)
    means, sds = model.posterior_moments(x)
    assert_allclose(means, posterior_mean, rtol=1e-9, atol=1e-12)
    assert_allclose(sds[0], np.sqrt(np.diag(covariance)), rtol=1e-9)
    assert_allclose(
        model.mutual_information().value, np.linalg.slogdet(marginal / sigma**2)[1] / 2, rtol=1e-10
    )


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_marginal_and_conditional_information(d: int, k: int) -> None:
    loadings, sigma, mean, x = random_model(d, k, seed=1)
    model = PPCA(loadings, sigma, mean)
    posterior_mean, covariance = dense_posterior(loadings, sigma, mean, x)
    marginal, conditional = model.kl_per_latent(x).numpy(), model.kl_conditional(x).numpy()
    joint = model.kl_to_prior(x).numpy()
    for j in range(k):
        own = dense_kl(posterior_mean[:, [j]], covariance[[j]][:, [j]])
        assert_allclose(marginal[:, j], own, rtol=1e-8)
        # E_Q over z_-j of KL(N(c_0 + c·z_-j, v) ‖ N(0, 1)), with the regression of z_j on the others under Q.
        rest = [i for i in range(k) if i != j]
        slope = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, j])
        left = covariance[j, j] - covariance[j, rest] @ slope
        square = posterior_mean[:, j] ** 2 + slope @ covariance[np.ix_(rest, rest)] @ slope
        assert_allclose(conditional[:, j], (left - 1 - math.log(left) + square) / 2, rtol=1e-8)
        # Chain rule: KL(Q) = KL(Q_-j) + E_Q KL(q(z_j | z_-j) ‖ p).
        others = dense_kl(posterior_mean[:, rest], covariance[np.ix_(rest, rest)])
        assert_allclose(conditional[:, j] + others, joint, rtol=1e-8)
    assert (marginal.sum(1) <= joint * (1 + 1e-12)).all()


def exact_information(loadings: Any, sigma: float, x: Any) -> dict[str, Any]:
    """KLs and evidence of a centred model in 60 digits, by dense algebra."""
    with mp.workdps(60):
        b = mp.matrix([[mp.mpf(float(w)) / mp.mpf(sigma) for w in row] for row in loadings])
        r = mp.matrix([mp.mpf(float(v)) / mp.mpf(sigma) for v in x])
        k = b.cols
        precision = mp.eye(k) + b.T * b
        covariance = precision**-1
        mean = covariance * (b.T * r)
        trace = sum(covariance[i, i] for i in range(k))
        joint = (trace - k + mp.log(mp.det(precision)) + sum(m**2 for m in mean)) / 2
        marginal = [(covariance[j, j] - 1 - mp.log(covariance[j, j]) + mean[j] ** 2) / 2 for j in range(k)]
        conditional = [(covariance[j, j] - 1 + mp.log(precision[j, j]) + mean[j] ** 2) / 2 for j in range(k)]
        square = sum(v**2 for v in r) - (r.T * b * mean)[0]
        evidence = -(square + mp.log(mp.det(precision)) + len(x) * mp.log(2 * mp.pi * mp.mpf(sigma) ** 2)) / 2
        return {"joint": joint, "marginal": marginal, "conditional": conditional, "evidence": evidence}


@pytest.mark.parametrize(
    ("scales", "sigma", "x"),
    [
        ((1e-13, 3e-13), 1.0, [0.4, -1.2, 0.3]),  # KL about 1e-25
        ((1e-7, 2.0), 1.0, [0.4, -1.2, 0.3]),
        ((1.0, 2.0), 1e-8, [0.4, -1.2, 0.3]),
        ((1.0, 2.0), 1e9, [0.4, -1.2, 0.3]),
        ((1.0, 2.0), 1.0, [1e4, -2e4, 1e4]),  # 1e4 standard deviations away
        ((1e-9, 1e9), 1.0, [0.4, -1.2, 0.3]),
    ],
)
def test_right_in_60_digits_at_every_scale(scales: Any, sigma: float, x: list[float]) -> None:
    loadings = np.array([[1.0, 0.3], [-0.5, 1.0], [0.25, 0.75]]) * scales
    model, exact = PPCA(loadings, sigma), exact_information(loadings, sigma, x)
    error = model.kl_error([x]).item()
    joint, marginal, conditional = (
        model.kl_to_prior([x]),
        model.kl_per_latent([x])[0],
        model.kl_conditional([x])[0],
    )
    assert_allclose(joint.item(), float(exact["joint"]), rtol=1e-12)
    assert_allclose(model.log_evidence([x]).item(), float(exact["evidence"]), rtol=1e-12)
    for j in range(2):
        assert_allclose(marginal[j].item(), float(exact["marginal"][j]), rtol=1e-8)
        assert_allclose(conditional[j].item(), float(exact["conditional"][j]), rtol=1e-8)
        assert abs(mp.mpf(marginal[j].item()) - exact["marginal"][j]) <= error
        assert abs(mp.mpf(conditional[j].item()) - exact["conditional"][j]) <= error
    assert abs(mp.mpf(joint.item()) - exact["joint"]) <= error
    low, high, _ = band(model.flatness([x]))
    assert low.item() - error <= joint.item() <= high.item() + error


def test_a_column_of_zeros_collapses_exactly_and_only_it() -> None:
    x = [[0.4, -1.2, 0.3], [5.0, 5.0, 5.0]]
    model = PPCA([[1.0, 0.0, 0.2], [0.5, 0.0, -0.7], [0.1, 0.0, 1.1]], 0.3, 0.1)
    for kl in (model.kl_per_latent(x), model.kl_conditional(x)):
        assert kl[:, 1].tolist() == [0.0, 0.0]
        assert (kl[:, [0, 2]] > 1e-3).all()
    assert model.posterior_moments(x)[0][:, 1].tolist() == [0.0, 0.0]
    assert model.posterior_moments(x)[1][:, 1].tolist() == [1.0, 1.0]
    whole = PPCA(torch.zeros(3, 2), 0.3)
    assert whole.kl_to_prior(x).tolist() == whole.flatness(x).variance.tolist() == [0.0, 0.0]
    assert whole.flatness(x).oscillation.tolist() == [0.0, 0.0]
    assert whole.mutual_information().value == 0.0
    assert (whole.kl_error(x) > 0).all()
    assert (whole.kl_error(x) < 1e-200).all()
    assert whole.posterior(x).stddev.tolist() == [[1.0, 1.0]] * 2
    low, high, _ = band(whole.flatness(x))
    assert low.tolist() == [0.0, 0.0]
    assert (high < 1e-200).all()


def test_duplicate_columns_collapse_a_direction_but_no_coordinate() -> None:
    column = np.array([1.0, 0.5, -0.3])
    for sigma in (1.0, 1e-3):
        model = PPCA(np.stack([column, column], 1), sigma)
        x = [[0.4, -1.2, 0.3]]
        assert (model.kl_per_latent(x) > 0.04).all()
        difference = torch.tensor([1.0, -1.0], dtype=torch.float64) / math.sqrt(2)
        posterior = model.posterior(x)
        assert_allclose((posterior.mean[0] @ difference).item(), 0.0, atol=1e-9)
        assert_allclose((difference @ posterior.covariance_matrix[0] @ difference).item(), 1.0, rtol=1e-9)
        alone = PPCA(math.sqrt(2) * column[:, None], sigma)
        assert_allclose(model.kl_to_prior(x), alone.kl_to_prior(x), rtol=1e-9)


def test_bayes_rule_at_random_points() -> None:
    loadings, sigma, mean, x = random_model(5, 3)
    model = PPCA(loadings, sigma, mean)
    z = torch.randn(40, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint = model.prior.log_prob(z) + model.log_likelihood(x, z)
    assert_allclose(model.posterior(x).log_prob(z), joint - model.log_evidence(x), rtol=1e-9, atol=1e-9)
    assert_allclose(model.log_likelihood(x, z[3]), model.log_likelihood(x, z)[3])


def test_rotating_latents_rotates_the_posterior() -> None:
    loadings, sigma, mean, x = random_model(6, 3)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    model, rotated = PPCA(loadings, sigma, mean), PPCA(loadings @ rotation, sigma, mean)
    assert_allclose(rotated.log_evidence(x), model.log_evidence(x), rtol=1e-10)
    assert_allclose(rotated.kl_to_prior(x), model.kl_to_prior(x), rtol=1e-10)
    assert_allclose(rotated.flatness(x).variance, model.flatness(x).variance, rtol=1e-10)
    assert_allclose(
        rotated.posterior(x).mean, model.posterior(x).mean.numpy() @ rotation, rtol=1e-9, atol=1e-12
    )
    order = [2, 0, 1]
    permuted = PPCA(loadings[:, order], sigma, mean)
    assert_allclose(permuted.kl_per_latent(x), model.kl_per_latent(x)[:, order], rtol=1e-10)
    assert_allclose(permuted.kl_conditional(x), model.kl_conditional(x)[:, order], rtol=1e-10)


@pytest.mark.parametrize(("d", "k"), [(3, 1), (4, 2), (1, 2)])
def test_flatness_by_gauss_hermite(d: int, k: int) -> None:
    # ℓ is quadratic: ten Gauss–Hermite points an axis integrate ℓ² and |∇ℓ|² under any normal law exactly.
    loadings, sigma, mean, x = random_model(d, k, seed=2)
    model = PPCA(loadings, sigma, mean)
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    grid = np.stack(np.meshgrid(*[nodes] * k, indexing="ij"), -1).reshape(-1, k)
    mass = np.prod(np.meshgrid(*[weights] * k, indexing="ij"), 0).ravel() / math.sqrt(2 * math.pi) ** k
    values = model.log_likelihood(x, torch.tensor(grid)[:, None, :].expand(-1, len(x), -1)).numpy()
    average = mass @ values
    flatness = model.flatness(x)
    assert_allclose(flatness.variance, mass @ (values - average) ** 2, rtol=1e-9)
    posterior = model.posterior(x)
    points = posterior.mean + torch.tensor(grid)[:, None, :] @ posterior.scale_tril[0].T
    gradient = ((torch.tensor(x - mean) - points @ torch.tensor(loadings).T) / sigma**2) @ torch.tensor(
        loadings
    )
    assert flatness.gradient_second_moment is not None
    assert flatness.mean_shift is not None
    assert_allclose(flatness.gradient_second_moment, mass @ gradient.square().sum(-1).numpy(), rtol=1e-9)
    assert_allclose(flatness.mean_shift, posterior.mean.square().sum(-1), rtol=1e-9)
    assert torch.isinf(flatness.oscillation).all()


def test_kl_lies_in_the_band_of_talagrand_and_log_sobolev() -> None:
    for seed in range(30):
        loadings, sigma, mean, x = random_model(4, 2, seed)
        model = PPCA(loadings * 10.0 ** -(seed / 3), sigma, mean)
        low, high, names = band(model.flatness(x))
        kl, error = model.kl_to_prior(x), model.kl_error(x)
        assert (low - error <= kl).all()
        assert (kl <= high + error).all()
        assert names == ["T4.4"] * len(x)
        # Faint loadings: the posterior mean is nearly all there is, and Talagrand's bound nearly the KL.
        assert seed < 15 or (low > 0.99 * kl).all()


def test_mutual_information_is_the_average_kl() -> None:
    model = PPCA([[1.0, 0.2], [0.3, -0.7], [0.0, 0.4]], 0.6, [1.0, 2.0, 3.0])
    x, z = model.sample(20_000, torch.Generator().manual_seed(0))
    kl = model.kl_to_prior(x)
    assert abs(kl.mean().item() - model.mutual_information().value) < 6 * kl.std().item() / math.sqrt(20_000)
    marginal = model.loadings @ model.loadings.T + 0.36 * torch.eye(3, dtype=torch.float64)
    assert_allclose(x.T.cov(), marginal, atol=0.1)
    assert_allclose(x.mean(0), [1.0, 2.0, 3.0], atol=0.06)
    # Simulation-based: z lies about the posterior mean as the posterior says.
    scores = torch.linalg.solve_triangular(
        model.posterior(x).scale_tril[0], (z - model.posterior(x).mean).T, upper=False
    )
    assert_allclose(scores.cov(), np.eye(2), atol=0.06)


def dense_log_likelihood(loadings: torch.Tensor, log_sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    marginal = loadings @ loadings.T + torch.exp(2 * log_sigma) * torch.eye(x.shape[1], dtype=torch.float64)
    centred = x - x.mean(0)
    return -(torch.logdet(marginal) + (centred * torch.linalg.solve(marginal, centred.T).T).sum(1).mean()) / 2


@pytest.mark.parametrize("sigma", [None, 0.9, 1.6])
def test_maximum_likelihood_is_a_stationary_maximum(sigma: float | None) -> None:
    rng = np.random.default_rng(3)
    x = torch.tensor(
        rng.normal(size=(200, 4)) @ np.diag([2.0, 1.5, 1.0, 0.7]) @ rng.normal(size=(4, 4)) / 2 + 3.0
    )
    model = PPCA.fit(x, 2, sigma)
    loadings = model.loadings.clone().requires_grad_()
    log_sigma = torch.tensor(math.log(model.sigma), dtype=torch.float64, requires_grad=True)
    best = dense_log_likelihood(loadings, log_sigma, x)
    gradients = torch.autograd.grad(best, [loadings, log_sigma])
    assert_allclose(gradients[0], torch.zeros_like(loadings), atol=1e-12)
    if sigma is None:
        assert_allclose(gradients[1], 0.0, atol=1e-12)
    assert_allclose(model.log_evidence(x).mean() + 2 * math.log(2 * math.pi), best.detach(), rtol=1e-10)
    for _ in range(200):
        other = model.loadings + torch.tensor(rng.normal(size=(4, 2)) * 10.0 ** rng.uniform(-3, 1))
        assert dense_log_likelihood(other, log_sigma, x) <= best


def test_directions_die_one_by_one_as_sigma_passes_their_eigenvalues() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    eigenvalues = sample_eigenvalues(x)
    assert_allclose(eigenvalues, np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1], rtol=1e-10)
    for dead in range(5):
        for nudge in (1 + 1e-9, 1 - 1e-9):
            sigma = math.sqrt(eigenvalues[dead].item()) * nudge
            model = PPCA.fit(x, 5, sigma)
            alive = (model.loadings != 0).any(0).tolist()
            assert alive == [j < dead + (nudge < 1) for j in range(5)]
            kl = model.kl_per_latent(x)
            assert ((kl > 0).any(0)).tolist() == alive
            # Tipping & Bishop's solution: the data's average KL_j is ½ log(λ_j/σ²)₊.
            expected = (eigenvalues.log() - 2 * math.log(sigma)).clamp(min=0) / 2
            assert_allclose(kl.mean(0), expected, rtol=1e-7, atol=1e-15)


def test_free_sigma_is_the_mean_of_the_discarded_eigenvalues() -> None:
    x = np.random.default_rng(6).normal(size=(50, 4)) * [3, 2, 1, 0.5]
    model = PPCA.fit(x, 2)
    assert_allclose(model.sigma**2, sample_eigenvalues(x)[2:].mean(), rtol=1e-12)
    assert_allclose(model.mean, x.mean(0), rtol=1e-12)
    wide = PPCA.fit(np.random.default_rng(7).normal(size=(3, 6)), 4, sigma=0.1)
    assert (wide.loadings != 0).any(0).tolist() == [True, True, False, False]


def test_the_symbolic_twin_is_the_same_model_exactly() -> None:
    model = PPCA([[0.1, 1.0], [2.5, 0.0], [0.0, 1e-5]], 0.3, [1.0, 0.0, -0.2])
    twin = model.symbolic()
    assert twin.latent_names == model.latent_names == ("z[1]", "z[2]")
    assert twin.observation_names == ("x[1]", "x[2]", "x[3]")
    first, second = twin.latent_symbols
    mean, sd = twin.observations[0].family.arguments
    assert sympy.expand(mean - (sympy.Rational(1, 10) * first + second + 1)) == 0
    assert sd == sympy.Rational(3, 10)
    z, x = [0.7, -0.4], [0.3, 0.1, 1.5]
    values = dict(zip((*twin.latent_symbols, *twin.observation_symbols), [*z, *x], strict=True))
    expected = model.log_likelihood([x], [z]).item()
    assert_allclose(float(twin.log_likelihood().subs(values).evalf(30)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], 1.0), r"loadings should have shape \(any, any\), got \(2,\)"),
        (([[1.0], [math.nan]], 1.0), r"loadings should be finite, got nan at index \(1, 0\)"),
        (([[1.0]], 0.0), "sigma should be positive, got 0.0"),
        (([[1.0]], -2), "sigma should be positive, got -2.0"),
        (([[1.0]], [1.0, 2.0]), r"sigma should have shape \(\), got \(2,\)"),
        (([[1.0], [1.0]], 1.0, [0.0]), r"mean should have shape \(2,\), got \(1,\)"),
        ((np.zeros((0, 2)), 1.0), r"loadings should have shape \(any, any\), got \(0, 2\)"),
    ],
)
def test_bad_models_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPCA(*arguments)


def test_bad_data_are_refused() -> None:
    model = PPCA([[1.0, 0.0], [2.0, 1.0]], 1.0)
    for call in (model.posterior, model.log_evidence, model.kl_to_prior, model.kl_error, model.flatness):
        with pytest.raises(ValueError, match=r"x should have shape \(any, 2\), got \(1, 3\)"):
            call([[1.0, 2.0, 3.0]])
        with pytest.raises(ValueError, match=r"x should be finite, got nan at index \(0, 1\)"):
            call([[1.0, math.nan]])
    with pytest.raises(ValueError, match=r"z should have shape \(1, 2\) or \(samples, 1, 2\), got \(2,\)"):
        model.log_likelihood([[1.0, 2.0]], [0.0, 0.0])
    x = [[1.0, 2.0], [2.0, 1.0], [3.0, 3.5]]
    with pytest.raises(ValueError, match=r"latent_dim should be in 1..1, got 2"):
        PPCA.fit(x, 2)
    with pytest.raises(ValueError, match=r"latent_dim should be in 1..2, got 0"):
        PPCA.fit(x, 0, sigma=1.0)
    with pytest.raises(ValueError, match=r"sigma should be positive, got -1.0"):
        PPCA.fit(x, 1, sigma=-1.0)
    with pytest.raises(ValueError, match="sigma should be given: the 1 discarded eigenvalues of x are zero"):
        PPCA.fit([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], 1)
    with pytest.raises(ValueError, match="x should have at least two rows, got 1"):
        sample_eigenvalues([[1.0, 2.0]])


def published(name: str) -> dict[str, np.ndarray]:
    """The arrays of one of the paper's R dumps."""
    text = (Path(os.environ["IDENTKIT_DATA"]) / "classical" / f"{name}.data.R").read_text()
    arrays = re.findall(r"^(\w+) <-\s*structure\(c\(([^)]*)\),\s*\.Dim = c\(([^)]*)\)\)", text, re.MULTILINE)
    return {
        name: np.array(values.split(","), dtype=float).reshape([int(n) for n in shape.split(",")], order="F")
        for name, values, shape in arrays
    }


@pytest.mark.skipif("IDENTKIT_DATA" not in os.environ, reason="the paper's data are not at hand")
def test_the_demonstration_of_the_paper() -> None:
    data = published("twod_ppca")
    model, x = PPCA(data["w"], 1.0), data["x"]
    assert [round(sd, 3) for sd in model.posterior(x).stddev[0].tolist()] == [0.268, 0.275]
    assert round(model.mutual_information().value, 3) == 2.663
    assert round(model.log_evidence(x).sum().item(), 2) == -4070.29
    assert [round(sd, 1) for sd in sample_eigenvalues(x).sqrt().tolist()[:2]] == [4.3, 2.9]
    assert (model.kl_error(x) < 1e-11 * model.kl_to_prior(x)).all()

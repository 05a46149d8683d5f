"""Factor analysis and Bayesian regression against dense algebra and scikit-learn; collapse per direction."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA, FactorAnalysis as Theirs
from sklearn.linear_model import BayesianRidge

from identkit.classical.em import ConvergenceWarning
from identkit.classical.linear_gaussian import (
    PPCA,
    BayesianLinearRegression,
    FactorAnalysis,
    sample_eigenvalues,
)
from identkit.theorem import verify


def random_model(d: int = 6, k: int = 2, seed: int = 0) -> FactorAnalysis:
    rng = np.random.default_rng([d, k, seed])
    return FactorAnalysis(rng.normal(size=(d, k)), rng.uniform(0.3, 2, d), rng.normal(size=d))


def correlated_regression() -> tuple[BayesianLinearRegression, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    design, root = rng.normal(size=(7, 3)), rng.normal(size=(3, 3))
    covariance = root @ root.T + 0.1 * np.eye(3)
    model = BayesianLinearRegression(design, rng.normal(size=3), covariance, 0.7)
    return model, covariance, rng.normal(size=(4, 7)) * 2


# Factor analysis


def test_dense_joint_algebra() -> None:
    model = random_model()
    w, psi, mean = model.loadings.numpy(), model.scales.numpy(), model.mean.numpy()
    x = np.random.default_rng(1).normal(size=(5, 6)) * 3
    marginal = w @ w.T + np.diag(psi**2)
    gain = w.T @ np.linalg.inv(marginal)
    posterior_mean, covariance = (x - mean) @ gain.T, np.eye(2) - gain @ w
    posterior = model.posterior(x)
    assert_allclose(posterior.mean, posterior_mean, rtol=1e-11)
    assert_allclose(posterior.covariance_matrix[0], covariance, rtol=1e-11)
    assert_allclose(model.log_evidence(x), multivariate_normal(mean, marginal).logpdf(x), rtol=1e-12)
    kl = (np.trace(covariance) - 2 - np.linalg.slogdet(covariance)[1] + (posterior_mean**2).sum(1)) / 2
    assert_allclose(model.kl_to_prior(x), kl, rtol=1e-11)
    information = model.mutual_information()
    assert information.value == pytest.approx(
        np.linalg.slogdet(marginal / np.outer(psi, psi))[1] / 2, rel=1e-11
    )
    z = torch.randn(7, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint = model.prior.log_prob(z) + model.log_likelihood(x, z)
    assert_allclose(posterior.log_prob(z), joint - model.log_evidence(x), rtol=1e-10)


def test_scikit_learn_gives_the_same_posterior_means_and_likelihood() -> None:
    truth = random_model(8, 3)
    x, _ = truth.sample(400, torch.Generator().manual_seed(0))
    theirs = Theirs(3, tol=1e-10, max_iter=5000, svd_method="lapack").fit(x.numpy())
    taken = FactorAnalysis.from_sklearn(theirs)
    assert_allclose(taken.posterior_mean(x), theirs.transform(x.numpy()), rtol=1e-9, atol=1e-12)
    assert_allclose(taken.log_evidence(x), theirs.score_samples(x.numpy()), rtol=1e-9)
    ours = FactorAnalysis.fit(x, 3, starts=3)
    assert ours.convergence is not None and ours.convergence.converged
    total = theirs.score(x.numpy()) * len(x)
    assert ours.convergence.log_likelihood >= total - 1e-6
    assert ours.convergence.log_likelihood == pytest.approx(ours.log_evidence(x).sum().item(), rel=1e-11)
    assert len(ours.convergence.restarts) == 3
    history = ours.convergence.history
    assert all(later >= earlier - 1e-9 * abs(earlier) for earlier, later in pairwise(history))


def test_fit_does_not_depend_on_units_or_offsets() -> None:
    x, _ = random_model(6, 2, 3).sample(300, torch.Generator().manual_seed(0))
    units = torch.tensor([1e-3, 1.0, 1e3, 1.0, 10.0, 0.1], dtype=torch.float64)
    one, other = FactorAnalysis.fit(x, 2), FactorAnalysis.fit(x * units + 1e6 * units, 2)
    assert_allclose(other.loadings / units[:, None], one.loadings, rtol=1e-4, atol=1e-5)
    assert_allclose(other.scales / units, one.scales, rtol=1e-4)


def test_a_heywood_case_and_bad_data_are_said_out_loud() -> None:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(50, 1))
    x = np.hstack([shared, shared + 0.5 * rng.normal(size=(50, 1)), rng.normal(size=(50, 1))])
    with pytest.warns(ConvergenceWarning, match="Heywood"):
        FactorAnalysis.fit(x, 1)
    for call, message in (
        (
            lambda: FactorAnalysis.fit([[1.0, 2.0], [1.0, 3.0]], 1),
            "x should vary in every column, got 1 throughout column 0",
        ),
        (lambda: FactorAnalysis.fit([[1.0, 2.0]], 1), "x should have at least two rows, got 1"),
        (lambda: FactorAnalysis.fit([[1.0, 2.0], [2.0, 3.0]], 2), r"latent_dim should be in 1\.\.1, got 2"),
        (lambda: FactorAnalysis([[1.0], [2.0]], [1.0, 0.0]), "scales should be positive, got 0.0"),
        (lambda: FactorAnalysis([[1.0], [2.0]], [1.0]), r"scales should have shape \(2,\), got \(1,\)"),
        (lambda: PPCA.from_sklearn(PCA(2).fit(np.eye(3)[:, :2])), "fitted should leave some variance"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="fitted should be a fitted FactorAnalysis"):
        FactorAnalysis.from_sklearn(Theirs(1))


def test_ppca_from_scikit_learn() -> None:
    x, _ = random_model(5, 2).sample(100, torch.Generator().manual_seed(1))
    theirs = PCA(2).fit(x.numpy())
    assert_allclose(PPCA.from_sklearn(theirs).log_evidence(x), theirs.score_samples(x.numpy()), rtol=1e-10)


# Collapse per direction


def test_closed_forms_per_direction_are_averages_over_the_data() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    eigenvalues = sample_eigenvalues(x)
    sigma = math.sqrt(float(eigenvalues[2] + eigenvalues[3]) / 2)
    model = PPCA.fit(x, 4, sigma)
    found = model.directions(x)
    expected = (eigenvalues[:4] / sigma**2).clamp(min=1).log() / 2  # ½ log(λ_j/σ²)₊
    assert found.mean_kl is not None and found.mean_square is not None
    assert_allclose(found.mean_kl, expected, rtol=1e-10)
    assert_allclose(found.mutual_information, expected, rtol=1e-10)
    assert_allclose(found.mean_square, (1 - sigma**2 / eigenvalues[:4]).clamp(min=0), rtol=1e-10)
    assert_allclose(found.active, found.mean_square, rtol=1e-10)
    assert_allclose(found.mean_kl, -torch.log1p(-found.active) / 2, rtol=1e-10)
    assert_allclose(found.posterior_variance, 1 / (eigenvalues[:4] / sigma**2).clamp(min=1), rtol=1e-10)
    assert found.collapsed == 1
    assert found.mean_kl[3].item() == 0.0
    assert found.mean_kl.sum().item() == pytest.approx(model.kl_to_prior(x).mean().item(), rel=1e-12)


def test_directions_of_any_model_add_up() -> None:
    model = random_model(6, 3)
    x, _ = model.sample(50_000, torch.Generator().manual_seed(2))
    found = model.directions(x)
    assert found.mean_kl is not None
    assert found.mean_kl.sum().item() == pytest.approx(model.kl_to_prior(x).mean().item(), rel=1e-11)
    assert_allclose(found.mean_kl, found.mutual_information, rtol=0.03)
    assert found.mutual_information.sum().item() == pytest.approx(model.mutual_information().value, rel=1e-12)
    covariance = model.posterior(x[:1]).covariance_matrix[0]
    assert_allclose(
        found.directions @ covariance @ found.directions.T, torch.diag(found.posterior_variance), atol=1e-12
    )
    assert model.directions().mean_kl is None
    with pytest.raises(ValueError, match="x should have at least one row"):
        model.directions(np.zeros((0, 6)))


# Sizes and precisions


def test_blocks_out_and_single_precision() -> None:
    model = random_model(64, 8)
    x, _ = model.sample(20_000, torch.Generator().manual_seed(3))
    mean = model.posterior_mean(x)
    out = torch.empty_like(mean)
    assert model.posterior_mean(x, out=out) is out
    assert torch.equal(out, mean)
    across = torch.empty(8, 20_000, dtype=torch.float64).T
    assert_allclose(model.posterior_mean(x, out=across), mean, rtol=1e-12, atol=1e-13)
    assert_allclose(mean[8190:8200], model.posterior_mean(x[8190:8200]), rtol=1e-12, atol=1e-13)
    single = model.posterior_mean(x.float())
    assert single.dtype == torch.float32
    assert_allclose(single, mean, rtol=1e-3, atol=1e-4)
    assert_allclose(model.kl_to_prior(x.float()), model.kl_to_prior(x), rtol=1e-4)
    assert model.log_evidence(x.float()).dtype == torch.float32
    assert model.kl_error(x[:3].float()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"out should have shape \(20000, 8\), torch.float64"):
        model.posterior_mean(x, out=out[:5])
    x[17, 3] = math.nan
    with pytest.raises(ValueError, match=r"x should be finite, got nan at index \(17, 3\)"):
        model.posterior_mean(x)
    assert model.kl_to_prior(np.zeros((0, 64))).shape == (0,)
    assert model.posterior_mean(np.zeros((0, 64))).shape == (0, 8)


def test_offsets_and_integers() -> None:
    model = FactorAnalysis([[1e-3], [2e-3]], [1e-3, 1e-3], [1e6, 1e6])
    near = FactorAnalysis([[1e-3], [2e-3]], [1e-3, 1e-3])
    apart = np.array([[0.0009765625, -0.001953125]])  # exact in binary beside 1e6
    assert_allclose(model.posterior_mean(apart + 1e6), near.posterior_mean(apart), rtol=1e-12)
    counts = np.array([[3, 1], [0, 2]])
    plain = FactorAnalysis([[1.0], [2.0]], [1.0, 0.5])
    assert_allclose(plain.kl_to_prior(counts), plain.kl_to_prior(counts.astype(float)), rtol=0)


# Bayesian linear regression


def test_regression_with_a_correlated_prior_is_dense_algebra() -> None:
    model, covariance, y = correlated_regression()
    x, z0 = model.design.numpy(), model.prior_mean.numpy()
    marginal = x @ covariance @ x.T + 0.49 * np.eye(7)
    gain = covariance @ x.T @ np.linalg.inv(marginal)
    mean, after = z0 + (y - x @ z0) @ gain.T, covariance - gain @ x @ covariance
    posterior = model.posterior(y)
    assert_allclose(posterior.mean, mean, rtol=1e-10)
    assert_allclose(posterior.covariance_matrix[0], after, rtol=1e-9, atol=1e-12)
    means, sds = model.posterior_moments(y)
    assert_allclose(means, mean, rtol=1e-9)
    assert_allclose(sds[0], np.sqrt(np.diag(after)), rtol=1e-10)
    assert_allclose(model.log_evidence(y), multivariate_normal(x @ z0, marginal).logpdf(y), rtol=1e-11)

    def kl(keep: list[int]) -> np.ndarray:
        before, here, shift = covariance[np.ix_(keep, keep)], after[np.ix_(keep, keep)], (mean - z0)[:, keep]
        inverse = np.linalg.inv(before)
        logs = np.linalg.slogdet(before)[1] - np.linalg.slogdet(here)[1]
        return (
            np.trace(inverse @ here) - len(keep) + logs + np.einsum("ni,ij,nj->n", shift, inverse, shift)
        ) / 2

    assert_allclose(model.kl_to_prior(y), kl([0, 1, 2]), rtol=1e-9)
    for j in range(3):
        rest = [i for i in range(3) if i != j]
        assert_allclose(model.kl_per_latent(y)[:, j], kl([j]), rtol=1e-8)
        assert_allclose(model.kl_conditional(y)[:, j], kl([0, 1, 2]) - kl(rest), rtol=1e-7)
    z = torch.randn(4, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint = model.prior.log_prob(z) + model.log_likelihood(y, z)
    assert_allclose(posterior.log_prob(z), joint - model.log_evidence(y), rtol=1e-9)
    drawn, coefficients = model.sample(20_000, torch.Generator().manual_seed(1))
    assert_allclose(coefficients.T.cov(), covariance, rtol=0.1, atol=0.05)
    assert_allclose(drawn.T.cov(), marginal, rtol=0.15, atol=0.15)


def test_a_column_of_zeros_keeps_its_conditional_prior_exactly() -> None:
    design = np.array([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]])
    alone = BayesianLinearRegression(design, 0.0, 1.0, 0.5)
    assert alone.kl_per_latent([1.0, 2.0, 3.0])[0, 1].item() == 0.0
    tied = BayesianLinearRegression(design, 0.0, [[1.0, 0.8], [0.8, 1.0]], 0.5)
    assert tied.kl_conditional([1.0, 2.0, 3.0])[0, 1].item() == 0.0
    assert tied.kl_per_latent([1.0, 2.0, 3.0])[0, 1].item() > 0.1  # it moves with the other (theory/T3)
    for model in (alone, tied):
        found = verify(model, [[1.0, 2.0, 3.0]])
        assert found.agrees is True, str(found)
        assert found.verdict.latents["z[2]"].value == "CONSTANT"
    assert_allclose(alone.kl_to_prior([[1.0], [2.0], [3.0]]), alone.kl_to_prior([[1.0, 2.0, 3.0]]))


def test_evidence_maximum_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    design = rng.normal(size=(60, 4))
    y = design @ np.array([1.0, -2.0, 0.0, 0.5]) + 0.7 * rng.normal(size=60)
    model = BayesianLinearRegression.fit(y, design)
    tiny = {"alpha_1": 0, "alpha_2": 0, "lambda_1": 0, "lambda_2": 0, "fit_intercept": False}
    theirs = BayesianRidge(**tiny, tol=1e-12, max_iter=5000).fit(design, y)
    assert model.sigma**-2 == pytest.approx(theirs.alpha_, rel=1e-5)
    assert 1 / model.prior_covariance[0, 0].item() == pytest.approx(theirs.lambda_, rel=1e-4)
    assert_allclose(model.posterior_mean(y)[0], theirs.coef_, rtol=1e-5)
    assert model.convergence is not None
    assert model.convergence.log_likelihood == pytest.approx(model.log_evidence(y).item(), rel=1e-11)
    with pytest.warns(ConvergenceWarning, match="the prior's variance runs away"):
        BayesianLinearRegression.fit([1.0, -1.0, 1.0, -1.0], [[1.0], [1.0], [1.0], [1.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: BayesianLinearRegression([[1.0]], 0.0, -1.0),
            "prior_covariance should be positive, got -1.0",
        ),
        (
            lambda: BayesianLinearRegression(np.eye(2), 0.0, [[1.0, 2.0], [2.0, 1.0]]),
            "should be positive definite",
        ),
        (lambda: BayesianLinearRegression(np.eye(2), 0.0, [[1.0, 0.5], [0.0, 1.0]]), "should be symmetric"),
        (lambda: BayesianLinearRegression(np.eye(2), [0.0], 1.0), r"prior_mean should have shape \(2,\)"),
        (lambda: BayesianLinearRegression(np.eye(2), sigma=0.0), "sigma should be positive, got 0.0"),
        (
            lambda: BayesianLinearRegression(np.eye(2)).kl_to_prior([1.0, 2.0, 3.0]),
            r"x should have shape \(any, 2\)",
        ),
        (
            lambda: BayesianLinearRegression.fit([1.0, 2.0], [[0.0], [0.0]]),
            "design should have an entry that is not 0",
        ),
    ],
)
def test_bad_regressions_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_symbolic_twins_agree_with_the_posterior() -> None:
    for model in (
        FactorAnalysis([[1.0, 0.5], [0.3, -1.0]], [1.0, 0.5]),
        FactorAnalysis([[1.0, 0.0], [0.3, 0.0]], [1.0, 0.5]),
        FactorAnalysis([[1.0, 1.0], [0.3, 0.3]], [1.0, 0.5]),
    ):
        found = verify(model, [[0.3, -1.0], [2.0, 0.4]])
        assert found.agrees is True, str(found)

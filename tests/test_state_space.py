"""The linear-Gaussian state space against dense joint algebra, 50-digit arithmetic, quadrature and statsmodels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from identkit.classical.state_space import StateSpace, chain as state_chain, kalman_scan
from identkit.classical.state_space.moments import expected, slopes
from identkit.model.protocol import ExactModel
from identkit.posterior.bounds import band
from identkit.posterior.information import collapse
from identkit.theorem import verify

NAN = math.nan


@dataclass
class Dense:
    """Prior and posterior of a whole path by conditioning one joint normal law, in NumPy or in mpmath."""

    mean: Any
    prior: Any
    seen: Any
    noise: Any
    data: Any

    @classmethod
    def of(cls, model: StateSpace, x: np.ndarray, number: Any = np.float64) -> Dense:
        """From the parameters by the definition, no recursion but the prior's own; numbers may be mpmath's."""
        convert = np.vectorize(number, otypes=[object if number is mp.mpf else np.float64])
        length, p = x.shape
        k = len(model.initial_mean)

        def at(name: str, t: int, axes: int) -> np.ndarray:
            value = getattr(model, name).numpy()
            return convert(value[t] if value.ndim > axes else value)

        def zeros(*shape: int) -> np.ndarray:
            return convert(np.zeros(shape))

        mean, prior = zeros(length, k), zeros(length, k, length, k)
        for t in range(length):
            if t == 0:
                mean[0], prior[0, :, 0] = at("initial_mean", 0, 1), at("initial_covariance", 0, 2)
                continue
            forward = at("transition", t, 2)
            mean[t] = forward @ mean[t - 1] + at("transition_offset", t, 1)
            for s in range(t):
                prior[t, :, s] = forward @ prior[t - 1, :, s]
                prior[s, :, t] = prior[t, :, s].T
            prior[t, :, t] = forward @ prior[t - 1, :, t - 1] @ forward.T + at("process_covariance", t, 2)
        seen, noise, data = zeros(length, p, length, k), zeros(length, p, length, p), zeros(length, p)
        for t in range(length):
            seen[t, :, t], noise[t, :, t] = at("observation", t, 2), at("noise_covariance", t, 2)
            data[t] = convert(np.nan_to_num(x[t])) - at("observation_offset", t, 1)
        kept = ~np.isnan(x.reshape(-1))
        return cls(
            mean.reshape(-1),
            prior.reshape(length * k, -1),
            seen.reshape(length * p, -1)[kept],
            noise.reshape(length * p, -1)[np.ix_(kept, kept)],
            data.reshape(-1)[kept],
        )

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        marginal = self.seen @ self.prior @ self.seen.T + self.noise
        gain = np.linalg.solve(marginal, self.seen @ self.prior).T
        shift = gain @ (self.data - self.seen @ self.mean)
        return self.mean + shift, self.prior - gain @ self.seen @ self.prior

    def evidence(self) -> float:
        marginal = self.seen @ self.prior @ self.seen.T + self.noise
        law = multivariate_normal(self.seen @ self.mean, marginal) if len(marginal) else None
        return float(law.logpdf(self.data)) if law else 0.0

    def digits(self) -> dict[str, Any]:
        """Joint, marginal and conditional KLs, evidence and moments in 50 digits (of a regular prior)."""
        prior, seen, noise = (mp.matrix(table.tolist()) for table in (self.prior, self.seen, self.noise))
        apart = mp.matrix(self.data.tolist()) - seen * mp.matrix(self.mean.tolist())
        marginal = seen * prior * seen.T + noise
        inverse = marginal**-1
        shift = prior * seen.T * inverse * apart
        spread = prior - prior * seen.T * inverse * seen * prior
        precision = prior**-1
        fresh = precision + seen.T * (noise**-1) * seen
        k = prior.rows
        trace = sum((precision * spread)[i, i] for i in range(k))
        square = (shift.T * precision * shift)[0]
        volume = mp.log(mp.det(marginal)) - mp.log(mp.det(noise))
        conditional = []
        for j in range(k):
            # E_Q KL of N(·, 1/fresh) from N(·, 1/precision): the means differ by a linear function of the path.
            row = precision[j, :] / precision[j, j] - fresh[j, :] / fresh[j, j]
            offset = (fresh * shift)[j] / fresh[j, j] + (row * shift)[0]
            moved = offset**2 + (row * spread * row.T)[0]
            ratio = precision[j, j] / fresh[j, j]
            conditional.append((ratio - 1 - mp.log(ratio) + precision[j, j] * moved) / 2)
        return {
            "joint": (trace - k + volume + square) / 2,
            "marginal": [
                (
                    spread[j, j] / prior[j, j]
                    - 1
                    - mp.log(spread[j, j] / prior[j, j])
                    + shift[j] ** 2 / prior[j, j]
                )
                / 2
                for j in range(k)
            ],
            "conditional": conditional,
            "evidence": -(
                (apart.T * inverse * apart)[0] + mp.log(mp.det(marginal)) + marginal.rows * mp.log(2 * mp.pi)
            )
            / 2,
            "mean": shift,
            "variance": [spread[j, j] for j in range(k)],
            "information": volume / 2,
        }


def rebuilt(named: dict[str, Any]) -> StateSpace:
    """A model from its tensors by name."""
    return StateSpace(**named)


def model_of(k: int, p: int, length: int, seed: int = 0, varying: bool = False, **changed: Any) -> StateSpace:
    """A model in general position, stable, with offsets."""
    rng = np.random.default_rng([k, p, length, seed])
    axes = (length,) if varying else ()

    def spread(size: int) -> np.ndarray:
        root = rng.normal(size=(*axes, size, size)) * 0.5
        return root @ root.swapaxes(-1, -2) + 0.3 * np.eye(size)

    start = rng.normal(size=(k, k))
    given = {
        "transition": rng.normal(size=(*axes, k, k)) * 0.5 / math.sqrt(k),
        "observation": rng.normal(size=(*axes, p, k)),
        "process_covariance": spread(k),
        "noise_covariance": spread(p),
        "initial_mean": rng.normal(size=k),
        "initial_covariance": start @ start.T + 0.5 * np.eye(k),
        "transition_offset": rng.normal(size=(*axes, k)) * 0.3,
        "observation_offset": rng.normal(size=(*axes, p)),
        **changed,
    }
    return rebuilt(given)


def data_of(model: StateSpace, n: int, length: int, missing: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, length, model.observation.shape[-2])) * 2
    return np.where(rng.random(x.shape) < missing, NAN, x)


SHAPES = [(1, 1, 1, False), (2, 1, 5, False), (3, 2, 7, True), (1, 3, 4, True), (4, 2, 30, False)]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(("k", "p", "length", "varying"), SHAPES)
def test_dense_joint_gaussian_algebra(k: int, p: int, length: int, varying: bool, missing: float) -> None:
    model = model_of(k, p, length, varying=varying)
    x = data_of(model, 3, length, missing)
    posterior, evidence, kl = model.posterior(x), model.log_evidence(x), model.kl_to_prior(x)
    covariance, lag = posterior.covariance, posterior.lag_one
    for i in range(3):
        dense = Dense.of(model, x[i])
        mean, spread = dense.posterior()
        blocks = spread.reshape(length, k, length, k)
        assert_allclose(posterior.mean[i].reshape(-1), mean, rtol=1e-9, atol=1e-12)
        for t in range(length):
            assert_allclose(covariance[i, t], blocks[t, :, t], rtol=1e-9, atol=1e-12)
            if t:
                assert_allclose(lag[i, t - 1], blocks[t, :, t - 1], rtol=1e-9, atol=1e-12)
        assert_allclose(evidence[i], dense.evidence(), rtol=1e-10)
        wanted = torch.distributions.kl_divergence(
            torch.distributions.MultivariateNormal(torch.tensor(mean), torch.tensor(spread)),
            torch.distributions.MultivariateNormal(torch.tensor(dense.mean), torch.tensor(dense.prior)),
        )
        assert_allclose(kl[i], wanted, rtol=1e-9)
        path = mean + np.random.default_rng(i).normal(size=length * k) * 0.3
        assert_allclose(
            posterior.log_prob(np.broadcast_to(path, (3, length * k)))[i],
            multivariate_normal(mean, spread).logpdf(path),
            rtol=1e-9,
        )


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_filtered_moments_are_posteriors_of_the_past(missing: float) -> None:
    model = model_of(2, 2, 9, varying=True)
    x = data_of(model, 2, 9, missing)
    mean, covariance = model.filtered(x)
    for t in range(9):
        past = x.copy()
        past[:, t + 1 :] = NAN
        posterior = model.posterior(past)
        assert_allclose(mean[:, t], posterior.mean[:, t], rtol=1e-10, atol=1e-12)
        assert_allclose(covariance[:, t], posterior.covariance[:, t], rtol=1e-10, atol=1e-12)


def scaled(q: float = 1.0, r: float = 1.0, h: float = 1.0, start: float = 1.0) -> StateSpace:
    """A short model whose scales can be set apart."""
    forward, seen = np.array([[0.9, 0.2], [-0.1, 0.7]]), np.array([[1.0, -0.5]])
    noise = np.array([[0.4, 0.1], [0.1, 0.3]])
    return StateSpace(forward, h * seen, q * noise, [[0.5 * r]], [0, 0], start * np.eye(2), length=4)


HARD: dict[str, tuple[dict[str, Any], float]] = {
    "plain": ({}, 1.0),
    "faint": ({"h": 1e-8}, 1.0),
    "fainter": ({"h": 1e-13}, 1.0),
    "tiny noise": ({"r": 1e-12}, 1.0),
    "huge noise": ({"r": 1e12}, 1.0),
    "tiny everything": ({"q": 1e-12, "r": 1e-12, "start": 1e-12}, 1e-6),
    "huge everything": ({"q": 1e12, "r": 1e12, "start": 1e12}, 1e6),
    "stiff state": ({"q": 1e-12}, 1.0),
    "vague start": ({"start": 1e12}, 1.0),
    "outlier": ({}, 1e4),
    "faint outlier": ({"h": 1e-6}, 1e8),
}


@pytest.mark.parametrize(("change", "size"), HARD.values(), ids=HARD)
@pytest.mark.parametrize("gap", [False, True])
def test_right_in_50_digits_at_every_scale(change: dict[str, Any], size: float, gap: bool) -> None:
    model = scaled(**change)
    x = np.array([[0.3], [-1.2], [NAN if gap else 0.8], [0.5]]) * size
    row = x.reshape(1, -1)
    posterior, error = model.posterior(row), model.kl_error(row).item()
    with mp.workdps(90):
        exact = Dense.of(model, x, mp.mpf).digits()
        joint = model.kl_to_prior(row).item()
        assert abs(mp.mpf(joint) - exact["joint"]) <= error
        assert error <= 1e-8 * joint  # a tight bound
        assert_allclose(joint, float(exact["joint"]), rtol=1e-12)
        assert_allclose(model.log_evidence(row).item(), float(exact["evidence"]), rtol=1e-12)
        assert_allclose(posterior.mean.reshape(-1), [float(m) for m in exact["mean"]], rtol=1e-11)
        assert_allclose(posterior.variance.reshape(-1), [float(v) for v in exact["variance"]], rtol=1e-12)
        for name, found in (
            ("marginal", model.kl_per_latent(row)),
            ("conditional", model.kl_conditional(row)),
        ):
            for j, value in enumerate(found[0].tolist()):
                assert abs(mp.mpf(value) - exact[name][j]) <= error, (name, j)
                assert_allclose(value, float(exact[name][j]), rtol=1e-11, atol=1e-60)
        if not gap:
            information = model.mutual_information()
            assert abs(mp.mpf(information.value) - exact["information"]) <= information.error
    low, high, _ = band(model.flatness(row))
    assert low.item() - error <= joint <= high.item() + error


@pytest.mark.parametrize("seen", [[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]], ids=["one", "two"])
@pytest.mark.parametrize("apart", [1e-3, 1e-7, 1e-9, 1e-13])
def test_noise_that_is_nearly_one_noise_costs_digits_and_says_so(apart: float, seen: list[Any]) -> None:
    noise = [[1.0, 1 - apart], [1 - apart, 1.0]]
    model = StateSpace([[1.0, 1], [0, 1]], seen, 0.1 * np.eye(2), noise, [0, 0], np.eye(2), length=4)
    x = np.array([[0.3, -0.2], [-1.2, 0.4], [NAN, 0.8], [0.5, 0.6]])
    with mp.workdps(90):
        exact = Dense.of(model, x, mp.mpf).digits()
        row = x.reshape(1, -1)
        assert abs(model.kl_to_prior(row).item() - exact["joint"]) <= model.kl_error(row).item()
        whole = Dense.of(model, np.nan_to_num(x), mp.mpf).digits()
        information = model.mutual_information()
        assert abs(information.value - whole["information"]) <= information.error


def test_a_long_chain_is_the_short_recursion_at_every_length() -> None:
    # Steady state, sweeps and the plain loop agree, on both sides of every switch between them.
    model = model_of(3, 2, 0, seed=3)
    for length in (1, 2, 3, 60, 63, 64, 65, 127, 128, 200, 700):
        x = data_of(model, 2, length)
        repeated = model_of(3, 2, 0, seed=3)
        varying = rebuilt(
            {
                name: value.expand(length, *value.shape) if name in ("transition", "observation") else value
                for name, value in repeated._tensors().items()
            }
        )
        fast, slow = model.posterior(x), varying.posterior(x)
        assert_allclose(fast.mean, slow.mean, rtol=1e-11, atol=1e-13)
        assert_allclose(fast.covariance, slow.covariance, rtol=1e-11, atol=1e-13)
        assert_allclose(fast.lag_one, slow.lag_one, rtol=1e-11, atol=1e-13)
        assert_allclose(model.kl_to_prior(x), varying.kl_to_prior(x), rtol=1e-11)
        assert_allclose(model.log_evidence(x), varying.log_evidence(x), rtol=1e-11)


def test_chains_that_never_forget_are_run_in_order() -> None:
    # No process noise: the state is one regression coefficient, and each stretch needs all that came before.
    length = 600
    rng = np.random.default_rng(0)
    covariates = rng.normal(size=(length, 1, 2))
    model = StateSpace(np.eye(2), covariates, np.zeros((2, 2)), [[0.5]], [0, 0], np.eye(2))
    x = rng.normal(size=(1, length, 1))
    design = covariates[:, 0]
    precision = design.T @ design / 0.5 + np.eye(2)
    mean = np.linalg.solve(precision, design.T @ x[0, :, 0] / 0.5)
    posterior = model.posterior(x)
    assert_allclose(posterior.mean[0], np.broadcast_to(mean, (length, 2)), rtol=1e-10)
    assert_allclose(posterior.covariance[0, 17], np.linalg.inv(precision), rtol=1e-10)
    kl = (np.trace(np.linalg.inv(precision)) - 2 + np.linalg.slogdet(precision)[1] + mean @ mean) / 2
    assert_allclose(model.kl_to_prior(x), [kl], rtol=1e-10)
    with pytest.raises(ValueError, match="process_covariance should be positive definite"):
        model.kl_conditional(x)
    with pytest.raises(ValueError, match="should have a density"):
        posterior.log_prob(np.zeros((1, length, 2)))


def test_slow_mixing_and_explosive_chains() -> None:
    for forward, process in ((0.9999, 1e-6), (1.0, 1e-4), (1.05, 0.1)):
        model = StateSpace([[forward]], [[1.0]], [[process]], [[1.0]], [0.0], [[1.0]])
        x = np.random.default_rng(0).normal(size=(300, 1))
        # The joint precision is tridiagonal; the covariance of an explosive path has no digits.
        precision = np.diag(np.full(300, 1 + (1 + forward**2) / process))
        precision[0, 0], precision[-1, -1] = 2 + forward**2 / process, 1 + 1 / process
        precision -= (np.eye(300, k=1) + np.eye(300, k=-1)) * forward / process
        spread = np.linalg.inv(precision)
        posterior = model.posterior(x)
        assert_allclose(posterior.mean[0, :, 0], spread @ x[:, 0], rtol=1e-9, atol=1e-11)
        assert_allclose(posterior.variance[0, :, 0], np.diag(spread), rtol=1e-9)


def test_a_singular_process_covariance_is_a_constraint_that_holds() -> None:
    # An AR(2) in companion form: the second state is the first one, a step later.
    model = StateSpace([[0.5, 0.3], [1, 0]], [[1.0, 0.0]], [[1, 0], [0, 0]], [[0.2]], [0, 0], np.eye(2))
    x = data_of(model, 1, 12, 0.2)
    posterior = model.posterior(x)
    mean, spread = Dense.of(model, x[0]).posterior()
    assert_allclose(posterior.mean.reshape(-1), mean, rtol=1e-10, atol=1e-12)
    assert_allclose(posterior.mean[0, 1:, 1], posterior.mean[0, :-1, 0], rtol=1e-13)
    paths = posterior.sample((5,), torch.Generator().manual_seed(0))
    assert_allclose(paths[:, 0, 1:, 1], paths[:, 0, :-1, 0], rtol=1e-12)
    scale = np.sqrt(np.diag(Dense.of(model, x[0]).prior))
    kept = [*range(0, 24, 2), 1]  # a basis of the path
    dense, prior = spread[np.ix_(kept, kept)], Dense.of(model, x[0]).prior[np.ix_(kept, kept)]
    kl = (
        np.trace(np.linalg.solve(prior, dense))
        - 13
        + np.linalg.slogdet(prior)[1]
        - np.linalg.slogdet(dense)[1]
    )
    kl += mean[kept] @ np.linalg.solve(prior, mean[kept])
    assert_allclose(model.kl_to_prior(x), [kl / 2], rtol=1e-9)
    assert_allclose(model.kl_per_latent(x)[0, 2], _normal_kl(mean[2], spread[2, 2], scale[2] ** 2), rtol=1e-9)
    assert_allclose(model.kl_per_latent(x)[0, 5], model.kl_per_latent(x)[0, 2], rtol=1e-12)


def _normal_kl(mean: float, variance: float, prior: float) -> float:
    return (variance / prior - 1 - math.log(variance / prior) + mean**2 / prior) / 2


def test_a_known_start_has_nothing_to_learn() -> None:
    model = StateSpace([[0.5]], [[1.0]], [[1.0]], [[1.0]], [2.0], [[0.0]], length=2)
    posterior = model.posterior([[5.0, 1.0]])
    assert posterior.mean[0, 0, 0] == 2.0
    assert posterior.variance[0, 0, 0] == 0.0
    assert model.kl_per_latent([[5.0, 1.0]])[0, 0] == 0.0
    assert_allclose(
        model.kl_per_latent([[5.0, 1.0]])[0, 1], _normal_kl(0.0, 0.5, 1.0)
    )  # x_2 is what z_2 predicts


def test_what_is_not_observed_leaves_the_prior_exactly() -> None:
    model = model_of(2, 2, 6, varying=True)
    x = np.full((2, 6, 2), NAN)
    x[1, 3, 1] = 0.7
    posterior, prior = model.posterior(x), model.path_prior()
    assert torch.equal(posterior.mean[0], prior.mean[0])
    assert torch.equal(posterior.covariance[0], prior.covariance[0])
    for kl in (model.kl_to_prior(x)[:1], model.kl_per_latent(x)[:1], model.kl_conditional(x)[:1]):
        assert not bool(kl.any())
    assert model.kl_to_prior(x)[1] > 0.01
    assert model.log_evidence(x)[0] == 0.0
    assert model.flatness(x).oscillation.tolist() == [0.0, math.inf]
    dense = Dense.of(model, x[0])
    assert_allclose(prior.mean.reshape(-1), dense.mean, rtol=1e-12)
    assert_allclose(prior.variance.reshape(-1), np.diag(dense.prior), rtol=1e-12)


def test_no_loadings_no_information() -> None:
    silent = scaled(h=0.0)
    x = [[1.0, 2.0, 3.0, 1e8]]
    assert silent.kl_to_prior(x).item() == 0.0
    assert silent.mutual_information().value == 0.0
    assert not bool(silent.kl_per_latent(x).any() or silent.kl_conditional(x).any())
    assert torch.equal(silent.posterior(x).covariance, silent.path_prior().covariance)
    assert silent.flatness(x).variance.item() == silent.flatness(x).oscillation.item() == 0.0
    assert silent.kl_error(x).item() > 0


def test_no_rows_and_one_step() -> None:
    model = scaled()
    assert model.kl_to_prior(np.zeros((0, 4))).shape == (0,)
    assert model.posterior(np.zeros((0, 4))).mean.shape == (0, 4, 2)
    assert model.kl_conditional(np.zeros((0, 4))).shape == (0, 8)
    assert model.flatness(np.zeros((0, 4))).variance.shape == (0,)
    single = model.of_length(1)
    mean, spread = Dense.of(single, np.array([[1.5]])).posterior()
    assert_allclose(single.posterior([[1.5]]).mean.reshape(-1), mean, rtol=1e-13)
    assert_allclose(single.posterior([[1.5]]).covariance[0, 0], spread, rtol=1e-13)
    assert single.posterior([[1.5]]).lag_one.shape == (1, 0, 2, 2)


@pytest.mark.slow
def test_a_million_steps() -> None:
    length = 10**6
    model = StateSpace([[0.9]], [[1.0]], [[0.2]], [[0.5]], [0.0], [[1.0]])
    x = np.random.default_rng(0).normal(size=(length, 1))
    posterior, kl = model.posterior(x), model.kl_to_prior(x)
    # Far from both ends a sequence is a window of itself.
    window = StateSpace([[0.9]], [[1.0]], [[0.2]], [[0.5]], [0.0], [[1.0]]).posterior(
        x[5 * 10**5 - 200 :][:400]
    )
    assert_allclose(posterior.mean[0, 5 * 10**5, 0], window.mean[0, 200, 0], rtol=1e-12)
    assert_allclose(posterior.variance[0, 5 * 10**5, 0], window.variance[0, 200, 0], rtol=1e-12)
    x[7] = NAN
    gone = model.kl_to_prior(x)
    assert gone.isfinite().all()
    assert abs(kl - gone).item() < 10


def test_statsmodels_cuts_to_the_steady_state_too_early_and_we_do_not() -> None:
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    length, k = 200, 1
    # Its tolerance is absolute: in small units every covariance has settled at once.
    model = StateSpace([[0.99]], [[1.0]], [[1e-10]], [[1e-8]], [0.0], [[1e-8]])
    x = np.random.default_rng(0).normal(size=(length, 1)) * 1e-4
    peer = KalmanSmoother(k_endog=1, k_states=k, k_posdef=k)
    peer.bind(x.copy())
    peer["design"], peer["transition"] = model.observation.numpy(), model.transition.numpy()
    peer["selection"], peer["state_cov"] = np.eye(k), model.process_covariance.numpy()
    peer["obs_cov"] = model.noise_covariance.numpy()
    peer.initialize_known(np.zeros(k), model.initial_covariance.numpy())
    mean, spread = Dense.of(model, x).posterior()
    ours = model.posterior(x)

    def gap(means: Any, variances: Any) -> float:
        return max(abs(means / mean - 1).max(), abs(variances / np.diag(spread) - 1).max())

    assert gap(ours.mean[0, :, 0].numpy(), ours.variance[0, :, 0].numpy()) < 1e-10
    hasty = peer.smooth()
    assert gap(hasty.smoothed_state[0], hasty.smoothed_state_cov[0, 0]) > 0.1
    peer.tolerance = 0
    exact = peer.smooth()
    assert gap(exact.smoothed_state[0], exact.smoothed_state_cov[0, 0]) < 1e-9
    assert_allclose(model.log_evidence(x), [exact.llf], rtol=1e-10)


@pytest.mark.parametrize("varying", [False, True])
def test_statsmodels_agrees(varying: bool) -> None:
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    length, k, p = 40, 3, 2
    model = model_of(k, p, length, seed=5, varying=varying, transition_offset=np.zeros(k))
    x = data_of(model, 1, length, 0.25)[0]
    peer = KalmanSmoother(k_endog=p, k_states=k, k_posdef=k)
    peer.bind(x.copy())

    def timed(name: str, axes: int, shift: bool = False) -> np.ndarray:
        value = getattr(model, name).numpy()
        if value.ndim == axes:
            return value
        # Their matrix of time t leads out of z_t, ours into it.
        return np.moveaxis(np.roll(value, -1, 0) if shift else value, 0, -1)

    peer["design"], peer["transition"] = timed("observation", 2), timed("transition", 2, True)
    peer["selection"], peer["state_cov"] = np.eye(k), timed("process_covariance", 2, True)
    peer["obs_cov"], peer["obs_intercept"] = timed("noise_covariance", 2), timed("observation_offset", 1)
    if not varying:
        peer["obs_intercept"] = model.observation_offset.numpy()[:, None]
    peer.initialize_known(model.initial_mean.numpy(), model.initial_covariance.numpy())
    peer.tolerance = 0
    found = peer.smooth()
    posterior = model.posterior(x)
    assert_allclose(posterior.mean[0].T, found.smoothed_state, rtol=1e-8, atol=1e-10)
    assert_allclose(posterior.covariance[0].permute(1, 2, 0), found.smoothed_state_cov, rtol=1e-8, atol=1e-10)
    mean, covariance = model.filtered(x)
    assert_allclose(mean[0].T, found.filtered_state, rtol=1e-8, atol=1e-10)
    assert_allclose(covariance[0].permute(1, 2, 0), found.filtered_state_cov, rtol=1e-8, atol=1e-10)
    assert_allclose(model.log_evidence(x), [found.llf], rtol=1e-10)


def test_flatness_by_sampling_the_prior_and_long_or_short() -> None:
    model = scaled(h=0.3)
    x = np.array([[0.5, -1.0, NAN, 2.0]])
    found = model.flatness(x)
    z = model.prior.sample((200_000,))
    heights = model.log_likelihood(x, z[:, None])[:, 0]
    assert_allclose(found.variance, [heights.var().item()], rtol=0.05)
    posterior = model.posterior(x).sample((100_000,), torch.Generator().manual_seed(0)).reshape(-1, 1, 8)
    lower = torch.linalg.cholesky(model.prior.covariance_matrix)
    posterior.requires_grad_(True)
    precision = (x == x) / model.noise_covariance.item()
    seen = torch.kron(torch.eye(4, dtype=torch.float64), model.observation)
    residual = torch.nan_to_num(torch.tensor(x)) - posterior[:, 0] @ seen.T
    slope = (residual * torch.tensor(precision)) @ seen @ lower
    gradient, shift = found.gradient_second_moment, found.mean_shift
    assert gradient is not None
    assert shift is not None
    assert_allclose(gradient, [slope.square().sum(1).mean().item()], rtol=0.03)
    # The long form gives the same V, and safe sides of the rest.
    from identkit.classical.state_space import flatness as module

    dense = module._DENSE
    try:
        module._DENSE = 0
        long = model.flatness(x)
    finally:
        module._DENSE = dense
    assert_allclose(long.variance, found.variance, rtol=1e-12)
    assert long.gradient_second_moment is not None
    assert long.mean_shift is not None
    assert bool((long.gradient_second_moment >= gradient).all())
    assert bool((long.mean_shift <= shift).all())


def test_unobservable_modes() -> None:
    eye = np.eye(2)
    plain = StateSpace([[0.5, 0], [0, 0.8]], [[1.0, 0]], eye, [[1.0]], [0, 0], eye)
    assert plain.unobservable().dimension == 1
    assert plain.unobservable().collapsed
    assert_allclose(abs(plain.unobservable().directions[:, 0]), [0, 1], atol=1e-12)
    # The same dynamics, but the prior ties the unseen mode to the seen one: its marginal moves (theory/T3).
    tied = StateSpace([[0.5, 0], [0, 0.8]], [[1.0, 0]], [[1, 0.5], [0.5, 1]], [[1.0]], [0, 0], eye)
    assert tied.unobservable().dimension == 1
    assert not tied.unobservable().collapsed
    x = data_of(tied, 1, 6)
    assert plain.kl_per_latent(x)[0, 1::2].max() == 0.0
    assert tied.kl_per_latent(x)[0, 3::2].min() > 1e-3
    assert tied.kl_conditional(x)[0, 1::2].max() < 1e-25
    # Seen through its speed: a position is observable from its own future only if it is observed.
    assert StateSpace([[1, 1], [0, 1]], [[1.0, 0]], eye, [[1.0]], [0, 0], eye).unobservable().dimension == 0
    hidden = StateSpace([[1, 1], [0, 1]], [[0, 1.0]], eye, [[1.0]], [0, 0], eye).unobservable()
    assert hidden.dimension == 1
    assert not hidden.collapsed  # where it is, no one sees; but it is the sum of the speeds, which are seen
    # In any basis: the subspace turns with it.
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(2, 2))).Q
    back = turn.T
    turned = StateSpace(
        turn @ np.diag([0.5, 0.8]) @ back, [[1.0, 0]] @ back, eye, [[1.0]], [0, 0], eye
    ).unobservable()
    assert turned.collapsed
    assert_allclose(abs(turned.directions[:, 0]), abs(turn[:, 1]), rtol=1e-10)


def test_the_state_may_be_written_in_another_basis() -> None:
    model = model_of(3, 2, 0, seed=8)
    turn = np.random.default_rng(1).normal(size=(3, 3))
    back = np.linalg.inv(turn)
    named = {name: value.numpy() for name, value in model._tensors().items()}
    named["transition"] = turn @ named["transition"] @ back
    named["observation"] = named["observation"] @ back
    for name in ("process_covariance", "initial_covariance"):
        named[name] = turn @ named[name] @ turn.T
        named[name] = (named[name] + named[name].T) / 2
    for name in ("initial_mean", "transition_offset"):
        named[name] = turn @ named[name]
    other = rebuilt(named)
    x = data_of(model, 4, 15, 0.2)
    assert_allclose(other.posterior(x).mean, model.posterior(x).mean.numpy() @ turn.T, rtol=1e-9, atol=1e-11)
    assert_allclose(other.kl_to_prior(x), model.kl_to_prior(x), rtol=1e-9)
    assert_allclose(other.log_evidence(x), model.log_evidence(x), rtol=1e-10)


def test_mutual_information_is_the_mean_kl() -> None:
    model = scaled()
    generator = torch.Generator().manual_seed(0)
    x, z = model.sample(20_000, generator)
    kl = model.kl_to_prior(x)
    sem = kl.std() / math.sqrt(len(kl))
    assert abs(kl.mean() - model.mutual_information().value) < 4 * sem
    ratio = model.log_likelihood(x, z) - model.log_evidence(x)
    assert abs(ratio.mean() - model.mutual_information().value) < 4 * ratio.std() / math.sqrt(len(kl))


def test_rows_batches_and_blocks_are_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scaled()
    x = data_of(model, 7, 4, 0.2)
    rows = x.reshape(7, -1)
    assert torch.equal(model.kl_to_prior(x), model.kl_to_prior(rows))
    assert model.of_length(None).kl_to_prior(x[0]).shape == (1,)
    whole = [model.posterior(rows).mean, model.posterior(rows).covariance, model.log_evidence(rows)]
    full = model.posterior(np.ones((7, 4)) * np.arange(7)[:, None])
    monkeypatch.setattr("identkit.classical.state_space.chain._ROW_NUMBERS", 30)
    parts = [model.posterior(rows).mean, model.posterior(rows).covariance, model.log_evidence(rows)]
    for one, other in zip(whole, parts, strict=True):
        assert_allclose(one, other, rtol=1e-13, atol=1e-15)
    assert_allclose(model.posterior(np.ones((7, 4)) * np.arange(7)[:, None]).mean, full.mean, rtol=1e-13)


@pytest.mark.parametrize("kind", ["whole", "gaps", "gaps of their own", "varying", "sharp", "constant"])
def test_pieces_of_time_are_one_sequence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every information from pieces whose length is no multiple of anything, against all steps at once."""
    rng = np.random.default_rng(5)
    length = 491
    transition, observation = rng.normal(size=(2, 2)), rng.normal(size=(2, 2))
    transition *= 0.95 / abs(np.linalg.eigvals(transition)).max()
    x = 5 * rng.normal(size=(2, length, 2))
    if kind == "varying":
        transition = transition * (1 + 0.05 * rng.normal(size=(length, 1, 1)))
        observation = observation * (1 + 0.1 * rng.normal(size=(length, 1, 1)))
    elif kind == "sharp":  # in a basis of its own
        observation, x = 1e4 * observation[:1], x[..., :1]
    elif kind == "constant":
        transition = np.eye(2)
    elif kind == "gaps":
        x[:, rng.random((length, 2)) < 0.2] = math.nan
        x[:, 100:350] = 1.0  # a piece without any
    elif kind == "gaps of their own":
        x[rng.random(x.shape) < 0.2] = math.nan
        x[:, 100:350] = 1.0
    p = x.shape[2]
    model = StateSpace(
        transition, observation, np.eye(2) / 10, np.eye(p), rng.normal(size=2), np.eye(2),
        rng.normal(size=2) / 10, rng.normal(size=p),
    )  # fmt: skip
    asked = ("log_evidence", "kl_to_prior", "kl_error", "kl_per_latent", "kl_conditional")
    asked += ("filtered", "flatness", "posterior", "posterior_moments")

    def answer(name: str) -> Any:
        found = getattr(model, name)(x)
        if name == "posterior":
            path = found.sample((2,), torch.Generator().manual_seed(0))
            return found.mean, found.covariance, found.lag_one, found.stddev, path, found.log_prob(path)
        return [value for value in vars(found).values() if value is not None] if name == "flatness" else found

    whole = {name: answer(name) for name in asked}
    information = model.of_length(length).mutual_information()
    monkeypatch.setattr(state_chain, "_PIECE_NUMBERS", 1)
    for shortest in (150, 490):
        monkeypatch.setattr(state_chain, "_SHORTEST", shortest)
        for name in asked:
            torch.testing.assert_close(answer(name), whole[name], rtol=1e-10, atol=1e-13)
        again = model.of_length(length).mutual_information()
        assert_allclose([again.value, again.error], [information.value, information.error], rtol=1e-10)


def test_single_precision_in_single_precision_out() -> None:
    model = scaled()
    x = data_of(model, 3, 4, 0.2).astype(np.float32)
    posterior = model.posterior(x)
    assert posterior.mean.dtype == posterior.covariance.dtype == torch.float32
    assert model.log_evidence(x).dtype == model.kl_to_prior(x).dtype == torch.float32
    assert posterior.log_prob(posterior.mean).dtype == torch.float32
    assert_allclose(posterior.mean, model.posterior(x.astype(np.float64)).mean, rtol=1e-6)
    assert model.kl_error(x).dtype == model.flatness(x).variance.dtype == torch.float64
    integers = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(model.kl_to_prior(integers), model.kl_to_prior(integers.double()))


def test_torch_arrays_give_what_numpy_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    # On other devices the recursions run on tensors.
    calls = [
        lambda m, x: m.posterior(x).mean,
        lambda m, x: m.posterior(x).covariance,
        lambda m, x: m.log_evidence(x),
        lambda m, x: m.kl_to_prior(x),
        lambda m, x: m.kl_per_latent(x),
        lambda m, x: m.kl_conditional(x),
        lambda m, x: m.kl_error(x),
        lambda m, x: m.flatness(x).variance,
        lambda m, x: m.filtered(x)[0],
    ]
    cases = [
        (model_of(2, 2, 20, varying=varying), data_of(model_of(2, 2, 20), 2, 20, missing))
        for varying, missing in ((False, 0.0), (False, 0.3), (True, 0.3))
    ]
    monkeypatch.setattr(kalman_scan, "_STRETCH", 8)
    wanted = [[call(model, x) for call in calls] for model, x in cases]
    monkeypatch.setattr(StateSpace, "_raw", lambda self, tensor: tensor)
    for (model, x), values in zip(cases, wanted, strict=True):
        fresh = rebuilt(model._tensors())
        for call, value in zip(calls, values, strict=True):
            assert_allclose(call(fresh, x), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_em_climbs_to_a_stationary_point(missing: float) -> None:
    truth = StateSpace([[0.8]], [[1.0], [0.5]], [[0.3]], [[0.4, 0.1], [0.1, 0.3]], [0.0], [[1.0]])
    rows, _ = truth.of_length(20).sample(8, torch.Generator().manual_seed(0))
    x = rows.reshape(8, 20, 2).clone()
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < missing] = NAN
    fitted = StateSpace.fit(x, start=truth, tolerance=1e-3)
    assert fitted.convergence is not None
    assert fitted.convergence.converged
    history = np.array(fitted.convergence.history)
    assert (np.diff(history) >= 0).all()
    assert history[0] == pytest.approx(truth.log_evidence(x).sum().item())
    best = fitted.log_evidence(x).sum().item()
    for name in ("transition", "observation", "process_covariance", "noise_covariance", "observation_offset"):
        for sign in (1, -1):
            tensors = fitted._tensors()
            tensors[name] = tensors[name] * (1 + sign * 0.02)
            assert rebuilt(tensors).log_evidence(x).sum().item() < best + 3e-2
    again = StateSpace.fit(x, 1, restarts=2, tolerance=0.03).convergence
    assert again is not None
    assert len(again.restarts) == 2
    assert again.log_likelihood > best - 1


@pytest.mark.parametrize("seen", [1.0, 0.0])
def test_a_singular_process_is_verified_by_its_noises(seen: float) -> None:
    """A level with a slope of its own; with `seen` 0 no datum shows either."""
    model = StateSpace(
        [[1.0, 1.0], [0.0, 0.5]], [[seen, 0.0]], [[0.0, 0.0], [0.0, 2.0]], [[0.5]], [0.3, -0.2],
        [[0.0, 0.0], [0.0, 1.0]], [0.1, 0.0], [0.4], length=4,
    )  # fmt: skip
    x = torch.tensor([[0.1, 0.4, 2.0, 5.0], [0.3, 0.2, 0.1, -3.0]], dtype=torch.float64)
    for refused in (model.symbolic, lambda: model.prior, lambda: model.kl_conditional(x)):
        with pytest.raises(ValueError, match=r"of_noises\(\)"):
            refused()
    noises = model.of_noises()
    assert noises.latent_names == ("z[1]", "z[2]", "z[3]", "z[4]")
    assert_allclose(noises.log_evidence(x), model.log_evidence(x), rtol=1e-12)
    assert_allclose(noises.kl_to_prior(x), model.kl_to_prior(x), rtol=1e-12)
    assert_allclose(noises.mutual_information().value, model.mutual_information().value, rtol=1e-12)
    assert verify(noises, x).agrees is True
    correlated = rebuilt({**model_of(2, 2, 3)._tensors(), "length": 3})
    with pytest.raises(ValueError, match="noise_covariance should be diagonal"):
        correlated.of_noises()


@pytest.mark.parametrize(
    ("n", "noise", "missing"), [(1, 0.3, 0.1), (4, 0.3, 0.1), (1, 1e-5, 0.0), (4, 1e-5, 0.0)]
)
def test_the_slope_is_that_of_the_evidence(n: int, noise: float, missing: float) -> None:
    """By differences of the evidence, P = Q with no more sequences than states; with little noise in a turned basis."""
    truth = StateSpace(
        [[0.9, 0.2], [0.0, 0.7]], [[1.0, 0.0], [0.5, 1.0], [0.0, 1.0]], np.eye(2) * 0.3,
        np.diag([0.4, noise, 0.5]), [0.3, -0.2], np.eye(2) * 0.3, observation_offset=[0.1, 0.2, 0.3],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    x = truth.of_length(15).sample(n, generator)[0].reshape(n, 15, 3)
    x[torch.rand(x.shape, generator=generator) < missing] = NAN
    observed, tied = ~x.isnan(), n == 1
    moments, height = expected(truth, torch.where(observed, x, 0.0), observed)
    assert height == pytest.approx(truth.log_evidence(x).sum().item(), rel=1e-12)
    found = slopes(moments, truth, tied)
    assert ("initial_covariance" in found) is not tied
    for name, slope in found.items():
        for place in np.ndindex(*slope.shape):
            # Covariances move as symmetric matrices, and those that are tied together.
            size = 1e-4 * noise if name == "noise_covariance" else 1e-5
            heights = []
            for sign in (1, -1):
                tensors = {key: value.clone() for key, value in truth._tensors().items()}
                for key in {name} | (
                    {"initial_covariance"} if tied and name.startswith("process") else set()
                ):
                    tensors[key][place] += sign * size
                    if key.endswith("covariance"):
                        tensors[key] = (tensors[key] + tensors[key].mT) / 2
                heights.append(rebuilt(tensors).log_evidence(x).sum().item())
            by_difference = (heights[0] - heights[1]) / (2 * size)
            assert slope[place].item() == pytest.approx(
                by_difference, rel=1e-4, abs=1e-4 * slope.abs().max().item()
            )


def kalman(numbers: np.ndarray, x: np.ndarray) -> float:
    """The log evidence of two columns that one state of unit process noise moves, by Kalman's filter in plain numbers."""
    f, m, h, d = numbers[0], numbers[1], numbers[2:4], numbers[4:6]
    factor = np.array([[numbers[6], 0.0], [numbers[7], numbers[8]]])
    noise, mean, spread, height = factor @ factor.T, m, 1.0, 0.0
    for row in x:
        total = spread * np.outer(h, h) + noise
        apart = row - h * mean - d
        inverse = np.linalg.inv(total)
        height -= math.log(2 * math.pi) + math.log(np.linalg.det(total)) / 2 + apart @ inverse @ apart / 2
        gain = spread * inverse @ h
        mean, spread = f * (mean + gain @ apart), f * f * spread * (1 - gain @ h) + 1.0
    return height


def test_one_sequence_is_fitted_to_the_top_that_another_climber_finds() -> None:
    """P is tied to Q there, so that a unit process noise fixes the basis; BFGS by differences, from many starts."""
    truth = StateSpace([[0.9]], [[1.0], [0.5]], [[0.3]], [[0.4, 0.1], [0.1, 0.3]], [0.0], [[1.0]], length=60)
    x = truth.sample(1, torch.Generator().manual_seed(2))[0].reshape(60, 2)
    fitted = StateSpace.fit(x, 1)
    assert fitted.convergence is not None and fitted.convergence.converged
    assert torch.equal(fitted.initial_covariance, fitted.process_covariance)
    assert (np.diff(fitted.convergence.history) >= 0).all()
    best = fitted.convergence.log_likelihood
    assert fitted.log_evidence(x).item() == pytest.approx(best, abs=1e-8)
    rng, mean = np.random.default_rng(0), x.mean(0).numpy()
    tops = []
    for _ in range(2):
        start = np.concatenate([rng.uniform(0.3, 0.95, 1), rng.normal(size=3), mean, [0.6, 0.1, 0.6]])
        tops.append(-minimize(lambda point: -kalman(point, x.numpy()), start, options={"gtol": 1e-4}).fun)
    assert best == pytest.approx(max(tops), abs=1e-5)
    moved = StateSpace.fit(x * torch.tensor([1e6, 1e-4]) + 1e3, 1).convergence
    assert moved is not None and moved.converged
    assert moved.log_likelihood == pytest.approx(best - 60 * (math.log(1e6) + math.log(1e-4)), abs=1e-5)


@pytest.mark.filterwarnings("ignore::identkit.classical.em.ConvergenceWarning")
def test_too_many_states_never_cost_the_fit() -> None:
    """Q falls singular, and the noise to its bound: what is found is kept, and nothing is said that is not so."""
    rng = np.random.default_rng(3)
    x = np.cumsum(rng.normal(size=(25, 1)), 0)
    heights = []
    for k in (1, 3):
        found = StateSpace.fit(x, k, restarts=1, iterations=60)
        assert found.convergence is not None
        heights.append(found.convergence.log_likelihood)
        assert (np.diff(found.convergence.history) >= 0).all()
        assert found.log_evidence(x).item() == pytest.approx(heights[-1], abs=1e-4)
    assert heights[0] < heights[1]
    with pytest.raises(ValueError, match="x should vary in every column, got 3 throughout column 1"):
        StateSpace.fit(np.column_stack([x, 0 * x + 3]), 1)
    with pytest.raises(ValueError, match="state_dim should be a whole number"):
        StateSpace.fit(x, True)


def test_a_singular_process_stays_singular_in_a_fit() -> None:
    """A level with a fixed slope: EM alone goes on, in the range of Q."""
    start = StateSpace(
        [[1.0, 1.0], [0.0, 1.0]],
        [[1.0, 0.0]],
        [[0.5, 0.0], [0.0, 0.0]],
        [[0.5]],
        [0.0, 0.1],
        np.zeros((2, 2)),
    )
    x = np.cumsum(np.random.default_rng(0).normal(size=(40, 1)) + 0.2, 0)
    fitted = StateSpace.fit(x, start=start, tolerance=0.01)
    assert fitted.convergence is not None and fitted.convergence.converged
    levels = torch.linalg.eigvalsh(fitted.process_covariance)
    assert levels[0].abs() < 1e-9 * levels[1]


@pytest.mark.parametrize("h", [0.0, 1.0])
def test_the_theorem_holds(h: float) -> None:
    model = StateSpace(
        [[0.5, 0.0], [0.25, 0.75]], [[0.0, h]], np.eye(2), [[0.5]], [0, 0], np.eye(2), length=2
    )
    found = verify(model, [[0.5, -1.0], [2.0, 0.25]])
    assert found.agrees
    levels = {name: level.value for name, level in found.verdict.latents.items()}
    assert levels == {
        "z[1,1]": "CONSTANT",
        "z[1,2]": "GLOBAL" if h else "CONSTANT",
        "z[2,1]": "CONSTANT",
        "z[2,2]": "GLOBAL" if h else "CONSTANT",
    }


def test_two_states_on_one_sum_are_partial() -> None:
    model = StateSpace(
        np.eye(2) / 2, [[1.0, 1.0]], [[1, 0.25], [0.25, 1]], [[0.5]], [0, 1], np.eye(2), length=2
    )
    found = verify(model, [[0.5, -1.0]])
    assert found.agrees
    assert {level.value for level in found.verdict.latents.values()} == {"PARTIAL"}
    assert model.unobservable().dimension == 1


def test_what_cannot_be_is_refused() -> None:
    good: dict[str, Any] = {
        "transition": np.eye(2),
        "observation": [[1.0, 0.0]],
        "process_covariance": np.eye(2),
        "noise_covariance": [[1.0]],
        "initial_mean": [0, 0],
        "initial_covariance": np.eye(2),
    }
    bad: list[tuple[dict[str, Any], str]] = [
        ({"noise_covariance": [[0.0]]}, "noise_covariance should have a positive diagonal, got 0.0"),
        ({"process_covariance": [[1, 2], [2, 1]]}, "process_covariance should be positive semidefinite"),
        ({"process_covariance": [[1, 0.5], [0, 1]]}, "process_covariance should be symmetric"),
        ({"transition": [[1.0]]}, r"transition should have shape \(2, 2\)"),
        ({"initial_mean": [NAN, 0]}, "initial_mean should be finite"),
        ({"initial_mean": 0.0}, "initial_mean should have shape"),
        ({"transition": np.ones((3, 2, 2)), "observation": np.ones((4, 1, 2))}, "one for each time"),
        ({"length": 0}, "length should be a whole number"),
        ({"initial_covariance": np.ones((3, 2, 2))}, "initial_covariance should have shape"),
    ]
    for change, words in bad:
        with pytest.raises(ValueError, match=words):
            rebuilt({**good, **change})
    model = rebuilt(good)
    for call in (
        lambda: model.latent_names,
        lambda: model.sample(3),
        model.mutual_information,
        model.symbolic,
    ):
        with pytest.raises(ValueError, match="length should be declared"):
            call()
    with pytest.raises(ValueError, match=r"x should have shape \(T, 1\) or \(n, T, 1\)"):
        model.posterior(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"x should have shape \(n, 5\) or \(n, 5, 1\)"):
        model.of_length(5).posterior(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="x should be finite, got inf"):
        model.posterior([[math.inf], [1.0]])
    with pytest.raises(TypeError, match="x should be an array of real numbers"):
        model.posterior([["a"]])
    with pytest.raises(ValueError, match="state_dim or start"):
        StateSpace.fit(np.zeros((3, 1)))
    singular = rebuilt({**good, "process_covariance": np.zeros((2, 2)), "length": 3})
    for call in (
        singular.symbolic,
        lambda: singular.prior,
        lambda: singular.kl_conditional(np.zeros((1, 3))),
    ):
        with pytest.raises(ValueError, match="process_covariance should be positive definite"):
            call()


def test_the_sweep_gives_what_the_loop_gives() -> None:
    # Stretches of time are accepted only when they continue each other.
    rng = np.random.default_rng(0)
    forward = rng.normal(size=(1, 500, 2, 2)) * 0.4
    noise = np.broadcast_to(np.eye(2), (1, 500, 2, 2))
    drive = rng.normal(size=(1, 500, 2, 3))

    def step(state: Any, at: Any) -> Any:
        found = (at[0] @ state[0] @ at[0].swapaxes(-1, -2) + at[1], at[0] @ state[1] + at[2])
        return found, found

    for backward in (False, True):
        covariance, mean = kalman_scan.carried(step, (forward, noise, drive), backward, None)[0]
        spread, centre = np.zeros((2, 2)), np.zeros((2, 3))
        for t in reversed(range(500)) if backward else range(500):
            spread = forward[0, t] @ spread @ forward[0, t].T + np.eye(2)
            centre = forward[0, t] @ centre + drive[0, t]
            assert_allclose(covariance[0, t], spread, rtol=1e-13)
            assert_allclose(mean[0, t], centre, rtol=1e-11, atol=1e-14)


def test_a_long_path_is_measured_though_its_prior_is_too_large_to_write_out() -> None:
    """To ask whether a model is exact evaluates nothing of it."""
    model = StateSpace([[0.5]], [[1.0]], [[1.0]], [[1.0]], [0.0], [[1.0]], length=2001)
    x = np.sin(np.arange(2001.0))[None]
    with pytest.raises(ValueError, match="prior should be asked of at most 2000 states"):
        _ = model.prior
    assert isinstance(model, ExactModel)
    assert_allclose(collapse(model, x).kl, model.kl_to_prior(x), rtol=1e-14)
    assert not isinstance(object(), ExactModel)
    assert isinstance(model.of_length(None), ExactModel)

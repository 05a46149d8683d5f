"""Kinds of covariances, the quick road, mutual information and EM of Gaussian mixtures, beside scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import scipy.stats
import torch
from numpy.testing import assert_allclose
from sklearn.mixture import GaussianMixture as ScikitMixture

from identkit.classical.em import ConvergenceWarning
from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.classical.gaussian_mixture.covariances import Parameters
from identkit.classical.gaussian_mixture.em import Climb
from identkit.classical.mixtures import FiniteMixture

KINDS = ("full", "tied", "diag", "spherical")


def parameters(kind: str, count: int = 3, d: int = 3, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(count, d, d))
    full = factors @ factors.transpose(0, 2, 1) + np.eye(d) / 2
    covariances = {
        "full": full,
        "tied": full[0],
        "diag": np.diagonal(full, axis1=1, axis2=2).copy(),
        "spherical": np.trace(full, axis1=1, axis2=2),
    }[kind]
    return rng.dirichlet(np.ones(count)), rng.normal(size=(count, d)) * 3, covariances


def scikit(weights: Any, means: Any, covariances: Any, kind: str) -> ScikitMixture:
    peer = ScikitMixture(len(weights), covariance_type=kind)
    peer.weights_, peer.means_, peer.covariances_ = weights, means, covariances
    if kind == "full":
        peer.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    elif kind == "tied":
        peer.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariances)).T
    else:
        peer.precisions_cholesky_ = 1 / np.sqrt(covariances)
    return peer


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_scikit_learns(kind: str) -> None:
    weights, means, covariances = parameters(kind)
    peer = scikit(weights, means, covariances, kind)
    ours = GaussianMixture.from_sklearn(peer)
    x, _ = ours.sample(400, torch.Generator().manual_seed(1))
    assert_allclose(ours.responsibilities(x), peer.predict_proba(x), rtol=1e-9, atol=1e-300)
    assert_allclose(ours.log_evidence(x), peer.score_samples(x), rtol=1e-11)
    with pytest.raises(ValueError, match="without weights_"):
        GaussianMixture.from_sklearn(ScikitMixture(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_quick_road_is_the_accurate_one(kind: str) -> None:
    model = GaussianMixture(*parameters(kind), kind)
    x, _ = model.sample(3000, torch.Generator().manual_seed(1))
    x[::50] *= 1e4  # outliers, which the quick road leaves to the accurate one
    accurate = FiniteMixture._log_posterior(model, x)
    assert_allclose(model.posterior(x).logits, accurate, rtol=1e-10, atol=1e-10)
    kl = FiniteMixture._kl(model, x)
    assert_allclose(model.kl_to_prior(x), kl, rtol=1e-10)
    assert ((model.kl_to_prior(x) - kl).abs() <= model.kl_error(x)).all()
    whole = model.log_evidence(x)
    assert_allclose(whole, FiniteMixture._mass_and_evidence(model, x)[1], rtol=1e-12)
    single = model.responsibilities(x.float())
    assert single.dtype == torch.float32
    assert (single - model.responsibilities(x.float().double())).abs().max() < 1e-4


def test_chunked_is_unchunked_and_no_rows_are_none() -> None:
    model = GaussianMixture(*parameters("full"))
    x, _ = model.sample(80_000, torch.Generator().manual_seed(1))
    some = slice(70_000, 70_020)
    assert_allclose(model.posterior(x).logits[some], model.posterior(x[some]).logits, rtol=1e-12)
    assert_allclose(model.kl_to_prior(x)[some], model.kl_to_prior(x[some]), rtol=1e-10)
    assert model.posterior(x[:0]).probs.shape == (0, 3)
    assert model.kl_to_prior(x[:0]).shape == model.kl_error(x[:0]).shape == (0,)
    assert model.flatness(x[:0]).variance.shape == (0,)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_integers_and_offsets_where_peers_lose_digits(kind: str) -> None:
    weights, means, covariances = parameters(kind)
    model = GaussianMixture(weights, means, covariances, kind)
    x = np.random.default_rng(0).integers(-5, 6, size=(200, 3))
    assert torch.equal(model.responsibilities(x), model.responsibilities(x.astype(float)))
    # The same model 1e6 away and a thousand times smaller; all shifts are exact in binary.
    step = 2.0**-10
    moved = GaussianMixture(
        weights, means * 0 + 2.0**20 + np.round(means * 256) / 256 * step, covariances * step**2, kind
    )
    near = GaussianMixture(weights, np.round(means * 256) / 256, covariances, kind)
    points = np.round(np.random.default_rng(1).normal(size=(300, 3)) * 3 * 256) / 256
    assert_allclose(
        moved.responsibilities(2.0**20 + points * step),
        near.responsibilities(points),
        rtol=1e-10,
        atol=1e-300,
    )


def test_variances_from_1e_minus_12_to_1e12() -> None:
    model = GaussianMixture(
        [0.3, 0.7], [[0.0, 0.0], [1e-6, 1e6]], [[[1e-12, 0.0], [0.0, 1e12]], [[2e-12, 0.0], [0.0, 3e12]]]
    )
    for x in ([1e-6, 1e6], [3e-6, -2e6], [0.0, 0.0]):
        with mp.workdps(50):
            logs = [
                mp.log(mp.mpf(float(w)))
                + sum(
                    -((mp.mpf(v) - mp.mpf(float(m))) ** 2) / (2 * mp.mpf(float(c)))
                    - mp.log(mp.mpf(float(c))) / 2
                    for v, m, c in zip(x, mean, covariance.diagonal(), strict=True)
                )
                for w, mean, covariance in zip(model.weights, model.means, model.covariances, strict=True)
            ]
            first = 1 / (1 + mp.exp(logs[1] - logs[0]))
        assert_allclose(model.posterior([x]).probs[0, 0].item(), float(first), rtol=1e-13)


def test_mutual_information_on_the_line() -> None:
    weights, means, sds = np.array([0.2, 0.5, 0.3]), np.array([-1.0, 0.5, 0.6]), np.array([1.0, 0.01, 3.0])
    model = GaussianMixture(weights, means[:, None], (sds**2)[:, None, None])

    # The trapezoid rule is spectrally accurate: a hundred nodes to the narrowest standard deviation.
    t = np.linspace(-40, 40, 800_001)[:, None]
    each = scipy.stats.norm(means, sds).pdf(t)
    gain = weights * each * np.log(np.maximum(each, 1e-300) / np.maximum(each @ weights, 1e-300)[:, None])
    expected = gain.sum() * 80 / 800_000
    found = model.mutual_information()
    assert found.method == "quadrature"
    assert abs(found.value - expected) <= found.error + 1e-13
    # π₁π₂D²/2 for components D → 0 apart, H(π) for D → ∞ (collapse_formulas.md).
    for gap, limit, rtol in (
        (1e-4, 0.3 * 0.7 * 1e-8 / 2, 1e-6),
        (100.0, -(0.3 * math.log(0.3) + 0.7 * math.log(0.7)), 1e-12),
    ):
        pair = GaussianMixture([0.3, 0.7], [[0.0], [gap]], [1.0, 1.0], "spherical")
        assert_allclose(pair.mutual_information().value, limit, rtol=rtol)


def test_mutual_information_in_the_plane_is_that_of_its_informative_axis() -> None:
    plane = GaussianMixture(
        [0.3, 0.7], [[0.0, 0.0], [1.2, 1.6]], [1.0, 1.0], "spherical"
    ).mutual_information()
    line = GaussianMixture([0.3, 0.7], [[0.0], [2.0]], [1.0, 1.0], "spherical").mutual_information()
    assert plane.method == "Monte Carlo"
    assert 0 < abs(plane.value - line.value) < 5 * plane.error


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_reaches_scikit_learns_likelihood_from_the_same_start(kind: str) -> None:
    weights, means, covariances = parameters(kind, seed=4)
    truth = GaussianMixture(weights, means, covariances, kind)
    x, _ = truth.sample(500, torch.Generator().manual_seed(7))
    peer = ScikitMixture(
        3, covariance_type=kind, reg_covar=0, tol=1e-13, max_iter=5000, weights_init=weights, means_init=means,
        precisions_init=np.linalg.inv(covariances) if kind in ("full", "tied") else 1 / covariances,
    ).fit(x.numpy())  # fmt: skip
    ours = GaussianMixture.fit(x, 3, kind, start=truth, tolerance=1e-9, floor=0)
    convergence = ours.convergence
    assert convergence is not None and convergence.converged
    assert abs(convergence.log_likelihood - peer.score(x.numpy()) * len(x)) < 1e-6
    assert (np.diff(convergence.history) >= 0).all()
    assert ours.covariances.shape == truth.covariances.shape
    # And from its own starts it finds no worse an optimum.
    found = GaussianMixture.fit(x, 3, kind, restarts=2).convergence
    assert found is not None and found.log_likelihood > convergence.log_likelihood - 1e-2


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_squares_multiplied_out_are_the_differences(kind: str) -> None:
    model = GaussianMixture(*parameters(kind), kind)
    x, _ = model.sample(700, torch.Generator().manual_seed(1))
    climb = Climb(x, kind, x.new_zeros(3))
    now = Parameters(model.weights, model.means - climb.centre, model.covariances)
    squares, evidence = climb._by_squares(now)
    differences, other = climb._by_differences(now, now.means)
    assert_allclose(evidence, other, rtol=1e-13)
    assert_allclose(evidence, model.log_evidence(x).sum().item(), rtol=1e-13)
    assert_allclose(squares.mass, differences.mass, rtol=1e-11)
    assert_allclose(squares.shift, differences.shift, atol=1e-11)
    assert_allclose(squares.covariances, differences.covariances, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_a_billion_deviations_away_is_left_in_one_step(kind: str) -> None:
    weights, means, covariances = parameters(kind)
    x, _ = GaussianMixture(weights, means, covariances, kind).sample(400, torch.Generator().manual_seed(1))
    # All components alike, so that each of them is given all of the data.
    alike = covariances if kind == "tied" else np.repeat(covariances[:1], 3, 0)
    start = GaussianMixture(weights, 1e9 + np.zeros_like(means), alike, kind)
    fitted = GaussianMixture.fit(x, 3, kind, start=start)
    spread = torch.from_numpy(np.cov(x.numpy().T, bias=True))
    wanted = {"diag": spread.diagonal().expand(3, 3), "spherical": spread.trace().expand(3) / 3}.get(
        kind, spread
    )
    assert_allclose(fitted.means, x.mean(0).expand(3, 3), rtol=1e-6)
    assert_allclose(fitted.covariances, wanted.expand_as(fitted.covariances), rtol=1e-6)


@pytest.mark.parametrize("kind", ["diag", "spherical"])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_many_columns_take_the_road_of_products(kind: str, precision: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    covariances = rng.uniform(0.5, 2, size=(5, 300) if kind == "diag" else 5)
    model = GaussianMixture([0.2] * 5, rng.normal(size=(5, 300)) / 20, covariances, kind)
    x = model.sample(300, torch.Generator().manual_seed(1))[0].to(precision)
    assert not bool(model._heights(x)[1].any())
    accurate = FiniteMixture._log_posterior(model, x)
    single = precision == torch.float32
    assert_allclose(
        model.posterior(x).logits, accurate, rtol=1e-5 if single else 1e-9, atol=1e-3 if single else 1e-9
    )


def test_a_fit_far_from_the_origin() -> None:
    near = GaussianMixture([0.5, 0.5], [[0.0], [5.0]], [1.0, 2.0], "spherical")
    x, _ = near.sample(500, torch.Generator().manual_seed(0))
    moved = GaussianMixture.fit(1e6 + 1e-3 * x, 2, "spherical", restarts=1)
    here = GaussianMixture.fit(x, 2, "spherical", restarts=1)
    order, other = moved.means[:, 0].argsort(), here.means[:, 0].argsort()
    assert_allclose((moved.means[order] - 1e6) * 1e3, here.means[other], atol=1e-4)
    assert_allclose(moved.covariances[order] * 1e6, here.covariances[other], rtol=1e-4)


def test_a_component_that_loses_its_data_gets_weight_zero() -> None:
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = GaussianMixture([0.5, 0.4, 0.1], [[-1.0, 0.0], [1.0, 0.0], [1e3, 1e3]], [[1.0, 1.0]] * 3, "diag")
    fitted = GaussianMixture.fit(x, 3, "diag", start=start)
    assert fitted.weights[2].item() == 0.0
    assert fitted.means[2].tolist() == [1e3, 1e3] and fitted.covariances[2].tolist() == [1.0, 1.0]
    assert fitted.kl_to_prior(x).isfinite().all()
    assert fitted.posterior(x).probs[:, 2].tolist() == [0.0] * 100


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_holds_where_a_component_would_shrink_onto_a_datum(kind: str) -> None:
    x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0] = 40.0
    tight = {
        "full": [[[1.0, 0.0], [0.0, 1.0]]] * 2,
        "tied": [[1.0, 0.0], [0.0, 1.0]],
        "diag": [[1.0] * 2] * 2,
    }
    start = GaussianMixture([0.9, 0.1], [[0.0, 0.0], [40.0, 40.0]], tight.get(kind, [1.0, 1.0]), kind)
    fitted = GaussianMixture.fit(x, 2, kind, start=start, floor=1e-4)
    assert fitted.convergence is not None and fitted.convergence.converged
    assert (np.diff(fitted.convergence.history) >= 0).all()
    if kind != "tied":
        least = 1e-4 * x.var(0, correction=0)
        shrunk = fitted.covariances[1]
        shrunk = shrunk.diagonal() if kind == "full" else shrunk
        assert_allclose(shrunk, least.mean() if kind == "spherical" else least, rtol=1e-9)
        with pytest.raises(ValueError, match="floor should be positive"):
            GaussianMixture.fit(x, 2, kind, start=start, floor=0)


PAIR: dict[str, Any] = {"weights": [0.5, 0.5], "means": [[0.0], [1.0]]}


@pytest.mark.parametrize(
    ("covariances", "kind", "message"),
    [
        ([1.0, 1.0], "round", "covariance_type should be one of"),
        ([1.0, 0.0], "spherical", r"covariances\[1\] should be positive, got 0.0"),
        ([[1.0], [-2.0]], "diag", r"covariances\[1, 0\] should be positive, got -2.0"),
        ([[0.0]], "tied", "covariances should have a positive diagonal, got 0.0"),
    ],
)
def test_bad_covariances_are_refused(covariances: Any, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**PAIR, covariances=covariances, covariance_type=kind)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ([[0.0], [1.0]], {"components": 3}, r"components should be in 2..2"),
        ([[0.0, 1.0], [0.0, 2.0]], {}, "x should vary in every column, got 0 throughout column 0"),
        ([[0.0], [1.0]], {"restarts": 0}, "restarts should be a whole number of at least 1, got 0"),
        (
            [[0.0], [1.0]],
            {"start": GaussianMixture(**PAIR, covariances=[1.0, 1.0], covariance_type="spherical")},
            "start should have 2 components in 1 dimensions of type 'full'",
        ),
    ],
)
def test_fits_that_make_no_sense_are_refused(x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture.fit(x, **{"components": 2, **options})


@pytest.mark.filterwarnings("ignore::identkit.classical.em.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_a_floor_near_rounding_never_costs_the_fit(kind: str) -> None:
    """A covariance of condition 1e12 lets a log-likelihood fall by 1e-5 and more: the fit keeps what it had."""
    fell = []
    for seed in (2, 4, 5, 8, 14):
        x = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        x[:10] = x[0]
        model = GaussianMixture.fit(x, 4, kind, floor=1e-12, restarts=2)
        assert model.convergence is not None
        fell.append(model.convergence.fell)
        assert model.convergence.converged is not (fell[-1] > 0)
        assert_allclose(model.log_evidence(x).sum(), model.convergence.log_likelihood, atol=1e-2)
        assert ("rounding" in str(model.convergence)) is (fell[-1] > 0)
    assert kind == "tied" or max(fell) > 0


def test_a_start_that_shrinks_onto_one_datum_is_given_up_for_the_others() -> None:
    x = torch.randn(20, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    broken = [seed for seed in range(12) if _shrinks(x, seed, 1)]
    assert broken and len(broken) < 12
    with pytest.warns(ConvergenceWarning, match="starts were given up: floor should be positive"):
        assert not _shrinks(x, broken[0], 8)


def _shrinks(x: torch.Tensor, seed: int, restarts: int) -> bool:
    generator = torch.Generator().manual_seed(seed)
    try:
        GaussianMixture.fit(x, 3, floor=0.0, generator=generator, restarts=restarts)
    except ValueError:
        return True
    return False

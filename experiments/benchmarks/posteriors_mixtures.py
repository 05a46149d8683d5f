"""Gaussian mixtures beside scikit-learn: responsibilities of a million rows in both precisions, and EM from one start."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.timing import Race, run

ROWS, COLUMNS, COMPONENTS = 1_000_000, 8, 16
WIDE_ROWS, WIDE_COLUMNS, WIDE_COMPONENTS = 20_000, 300, 10
FIT_ROWS, FIT_ITERATIONS = 100_000, 20
SEED = 0


def races() -> list[Race]:
    """Responsibilities in float64 and float32, in many columns, and a fixed number of EM iterations from the same start."""
    return [
        _responsibilities(np.float64, 5.0),
        _responsibilities(np.float32, 4.0),
        _wide("spherical"),
        _wide("diag"),
        _fit(),
    ]


def _mixture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    factors = rng.normal(size=(COMPONENTS, COLUMNS, COLUMNS))
    covariances = factors @ factors.transpose(0, 2, 1) / COLUMNS + np.eye(COLUMNS) / 2
    return rng.dirichlet(np.full(COMPONENTS, 5.0)), 2 * rng.normal(size=(COMPONENTS, COLUMNS)), covariances


def _peer(weights: Any, means: Any, covariances: Any) -> Any:
    from sklearn.mixture import GaussianMixture

    peer = GaussianMixture(COMPONENTS)
    peer.weights_, peer.means_, peer.covariances_ = weights, means, covariances
    peer.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
    return peer


def _responsibilities(precision: Any, least: float) -> Race:
    from identkit.classical.gaussian_mixture import GaussianMixture

    peer = _peer(*_mixture())
    ours = GaussianMixture.from_sklearn(peer)
    x = ours.sample(ROWS, torch.Generator().manual_seed(SEED))[0].numpy().astype(precision)
    size = np.dtype(precision).itemsize
    return Race(
        name=f"responsibilities, n = {ROWS:,}, d = {COLUMNS}, K = {COMPONENTS}, full, {np.dtype(precision)}",
        ours=lambda: ours.responsibilities(x),
        peers={"scikit-learn": lambda: peer.predict_proba(x)},
        least={"scikit-learn": least},
        gap=lambda own, other: float(np.abs(own.numpy() - other).max()),
        bytes_moved=size * ROWS * float(COLUMNS + COMPONENTS),
        # The product, then square and sum, then a dozen for each exponential.
        operations=ROWS * COMPONENTS * float(2 * COLUMNS * COLUMNS + 2 * COLUMNS + 12),
    )


def _wide(covariance_type: str) -> Race:
    from sklearn.mixture import GaussianMixture as Peer

    from identkit.classical.gaussian_mixture import GaussianMixture

    rng = np.random.default_rng(SEED)
    count, d = WIDE_COMPONENTS, WIDE_COLUMNS
    shape = (count,) if covariance_type == "spherical" else (count, d)
    peer = Peer(count, covariance_type=covariance_type)
    peer.weights_, peer.means_ = np.full(count, 1 / count), rng.normal(size=(count, d)) / 4
    peer.covariances_ = rng.uniform(0.5, 2.0, shape)
    peer.precisions_cholesky_ = peer.covariances_**-0.5
    ours = GaussianMixture.from_sklearn(peer)
    x = ours.sample(WIDE_ROWS, torch.Generator().manual_seed(SEED))[0].numpy()
    return Race(
        name=f"responsibilities, n = {WIDE_ROWS:,}, d = {d}, K = {count}, {covariance_type}, float64",
        ours=lambda: ours.responsibilities(x),
        peers={"scikit-learn": lambda: peer.predict_proba(x)},
        least={"scikit-learn": 1.0},
        gap=lambda own, other: float(np.abs(own.numpy() - other).max()),
        bytes_moved=8 * WIDE_ROWS * float(d + count),
        operations=WIDE_ROWS * float(2 * d * count * (1 + (covariance_type == "diag")) + 12 * count),
    )


def _fit() -> Race:
    from identkit.classical.gaussian_mixture import GaussianMixture

    truth = _mixture()
    start = GaussianMixture(*truth)
    x = start.sample(FIT_ROWS, torch.Generator().manual_seed(SEED))[0].numpy()

    def theirs() -> float:
        from sklearn.mixture import GaussianMixture as Peer

        peer = Peer(
            COMPONENTS,
            reg_covar=0,
            tol=0,
            max_iter=FIT_ITERATIONS,
            weights_init=truth[0],
            means_init=truth[1],
            precisions_init=np.linalg.inv(truth[2]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stopped after a fixed number of iterations, on purpose
            return float(peer.fit(x).lower_bound_) * len(x)

    def ours() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = GaussianMixture.fit(
                x, COMPONENTS, start=start, tolerance=0.0, iterations=FIT_ITERATIONS, floor=0.0
            )
        assert fitted.convergence is not None
        return fitted.convergence.log_likelihood

    moved = 8 * FIT_ITERATIONS * FIT_ROWS
    return Race(
        name=f"EM, {FIT_ITERATIONS} iterations, n = {FIT_ROWS:,}, d = {COLUMNS}, K = {COMPONENTS}, full",
        ours=ours,
        peers={"scikit-learn": theirs},
        least={"scikit-learn": 1.0},
        gap=lambda own, other: abs(own - other) / abs(other),
        bytes_moved=moved * float(COLUMNS + 2 * COMPONENTS),
        operations=moved / 8 * COMPONENTS * float(4 * COLUMNS * COLUMNS + 4 * COLUMNS + 12),
    )


if __name__ == "__main__":
    for race in races():
        print(run(race))

"""Races of the factor models: posterior means and fits beside scikit-learn's, on the same data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from experiments.benchmarks.timing import Race
from identkit.classical.linear_gaussian import FactorAnalysis

ROWS, COLUMNS, FACTORS = 1_000_000, 64, 8
FIT_ROWS = 20_000


def races() -> list[Race]:
    """Factor analysis posterior means in double and single precision, and its fit."""
    from sklearn.decomposition import FactorAnalysis as Theirs

    generator = torch.Generator().manual_seed(0)
    model = FactorAnalysis(
        torch.randn(COLUMNS, FACTORS, generator=generator, dtype=torch.float64),
        0.5 + torch.rand(COLUMNS, generator=generator, dtype=torch.float64),
        torch.randn(COLUMNS, generator=generator, dtype=torch.float64),
    )
    double = model.sample(ROWS, generator)[0]
    theirs = Theirs(FACTORS)
    theirs.components_, theirs.mean_ = model.loadings.T.numpy().copy(), model.mean.numpy()
    theirs.noise_variance_, theirs.n_features_in_ = model.scales.square().numpy(), COLUMNS
    found = []
    for x, least in ((double, 2.0), (double.float(), 3.0)):
        out = torch.empty(ROWS, FACTORS, dtype=x.dtype)
        size = x.element_size()
        found.append(
            Race(
                name=f"factor analysis posterior means, n={ROWS}, D={COLUMNS}, K={FACTORS}, {x.dtype}",
                ours=lambda x=x, out=out: model.posterior_mean(x, out=out),
                peers={"scikit-learn": lambda x=x: theirs.transform(x.numpy())},
                least={"scikit-learn": least},
                gap=_gap,
                bytes_moved=size * ROWS * (COLUMNS + FACTORS),
                operations=2.0 * ROWS * COLUMNS * (FACTORS + 1),
            )
        )
    rows = double[:FIT_ROWS]
    found.append(
        Race(
            name=f"factor analysis fit, n={FIT_ROWS}, D={COLUMNS}, K={FACTORS}",
            ours=lambda: FactorAnalysis.fit(rows, FACTORS).log_evidence(rows).sum().item(),
            peers={
                "scikit-learn": lambda: (
                    Theirs(FACTORS, tol=1e-6).fit(rows.numpy()).score(rows.numpy()) * FIT_ROWS
                )
            },
            least={"scikit-learn": 1.0},
            gap=lambda ours, other: max(0.0, (other - ours) / abs(other)),
        )
    )
    return found


def _gap(ours: torch.Tensor, other: Any) -> float:
    """The largest difference from the peer's, relative to the largest entry."""
    return float(np.abs(ours.numpy() - other).max() / np.abs(other).max())

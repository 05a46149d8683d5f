"""The data of the paper's demonstrations, or draws of the same designs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from identkit.tables import read_csv, read_r_dump
from identkit.zoo.classical import LOADINGS

POOLED_ROWS = 10_000
"""Data of the mixture weight, as in the paper."""
WEIGHTS = {  # name in the paper's files: our name, components, the share of the first
    "single_gaussian": ("mixture-weight-single", (-1.0, -1.0)),
    "overlap_gaussian": ("mixture-weight-overlap", (-0.5, 0.5)),
    "nonoverlap_gaussian": ("mixture-weight-separated", (-10.0, 10.0)),
}
_SHARE = 0.85  # of the first component in the paper's two mixtures
_NOISE = 0.1  # sd of the noise in the paper's PPCA data


@dataclass(frozen=True, eq=False)
class ClassicalData:
    """The data of the paper's demonstrations, or draws of the same designs."""

    origin: str
    weights: Mapping[str, Tensor]
    """y (n,) by the paper's name"""
    draws: Mapping[str, Mapping[str, Tensor]]
    """published draws of α by the paper's name, then by method"""
    factors: Mapping[str, tuple[Tensor, Tensor]]
    """"oned", "twod" → x (n, 5), loadings (5, k)"""


def classical_data(seed: int = 0) -> ClassicalData:
    """The paper's data from ``$IDENTKIT_DATA/classical``, or where there are none the same designs drawn."""
    named = os.environ.get("IDENTKIT_DATA")
    folder = Path(named, "classical") if named else None
    if folder is not None and folder.is_dir():
        return _published(folder)
    where = "IDENTKIT_DATA is not set" if folder is None else f"there is no folder {folder}"
    return _drawn(
        seed, f"The data are drawn here with seed {seed}, after the designs of the paper ({where})."
    )


def _published(folder: Path) -> ClassicalData:
    def matrix(dump: Mapping[str, Any], name: str) -> Tensor:
        return torch.tensor(dump[name], dtype=torch.float64)

    def draws(name: str, method: str) -> Tensor:
        table = read_csv(folder / f"{name}_theta_sample_{method}.csv", ["", "x"])
        return torch.tensor([row[1] for row in table.rows], dtype=torch.float64)

    dumps = {name: read_r_dump(folder / f"{name}_ppca.data.R") for name in ("oned", "twod")}
    return ClassicalData(
        origin=f"The data are those of the paper, read from {folder}.",
        weights={name: matrix(read_r_dump(folder / f"{name}.data.R"), "y") for name in WEIGHTS},
        draws={name: {"hmc": draws(name, "hmc"), "advi": draws(name, "vbmf")} for name in WEIGHTS},
        factors={name: (matrix(dump, "x"), matrix(dump, "w")) for name, dump in dumps.items()},
    )


def _drawn(seed: int, origin: str) -> ClassicalData:
    generator = torch.Generator().manual_seed(seed)
    real = {"dtype": torch.float64, "generator": generator}
    weights = {}
    for name, (_, means) in WEIGHTS.items():
        first = torch.rand(POOLED_ROWS, **real) < _SHARE
        weights[name] = torch.where(first, *means) + torch.randn(POOLED_ROWS, **real)
    factors = {}
    for name, k in (("oned", 1), ("twod", 2)):
        loadings = torch.tensor(LOADINGS, dtype=torch.float64)[:, :k]
        z, noise = torch.randn(500, k, **real), torch.randn(500, len(LOADINGS), **real)
        factors[name] = (z @ loadings.T + _NOISE * noise, loadings)
    return ClassicalData(origin=origin, weights=weights, draws={}, factors=factors)

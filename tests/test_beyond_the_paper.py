"""What the scripts beyond the paper rest on: their closed forms as laws, and that their files say what the README says."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from experiments.linear_vae import THRESHOLD
from experiments.phase_diagram import predicted, sub_gaussian_proxy
from experiments.record import RESULTS
from experiments.whose_fault import blind_m, predicts, starved


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def test_proxy_of_signs_is_their_variance_and_of_lopsided_signs_is_known() -> None:
    even = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert sub_gaussian_proxy(even)["proxy"] == pytest.approx(1.0, rel=1e-3)  # log cosh t ≤ t²/2
    # Kearns & Saul 1998: (1 − 2p)/(2 log((1 − p)/p)) for a Bernoulli of chance p, above its variance p(1 − p)
    p = 0.1
    lopsided = torch.tensor([[1 - p, 0.0]] + [[-p, 0.0]] * 9, dtype=torch.float64)
    known = (1 - 2 * p) / (2 * math.log((1 - p) / p))
    assert known > p * (1 - p)
    assert sub_gaussian_proxy(lopsided)["proxy"] == pytest.approx(known, rel=1e-3)


def test_free_slope_has_half_log_and_bound_slope_more() -> None:
    values = torch.tensor([0.5, 0.8], dtype=torch.float64)
    free = predicted(0.1, 0.4, values, values)
    assert free == pytest.approx(sum(0.5 * math.log(v / 0.16) for v in (0.5, 0.8)))
    assert predicted(2.0, 0.4, values, values) > free
    assert predicted(0.0, 1.0, values, values) == pytest.approx(0.0, abs=1e-12)


def test_an_encoder_of_more_columns_flattens_later_and_one_of_all_at_the_eigenvalue() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=generator, dtype=torch.float64) @ torch.randn(
        4, 4, generator=generator, dtype=torch.float64
    )
    found = starved(x)
    assert found == sorted(found)
    largest = float(torch.linalg.eigvalsh(torch.cov(x.T, correction=0))[-1])
    assert found[-1] == pytest.approx(math.sqrt(largest))


def test_blind_q_is_at_the_threshold() -> None:
    variance = 1 / (1 + blind_m() ** 2)
    assert 0.5 * (variance - 1 - math.log(variance)) == pytest.approx(THRESHOLD)


def test_linear_result_follows_from_its_own_eigenvalues() -> None:
    found = read("linear_vae")
    for point in (*found["fixed"], *found["longer"]):
        for i, said in enumerate(point["predicted_kl"]):
            assert said == pytest.approx(
                max(0.0, 0.5 * math.log(found["eigenvalues"][i] / point["ml_sigma"] ** 2)), abs=1e-6
            )
        assert point["log_likelihood"] <= point["ml_log_likelihood"] + 1e-9
        assert point["elbo"] <= point["log_likelihood"] + 1e-9
    models = (*found["fixed"], *found["learned"])
    assert sum(p["alive"] != p["predicted_alive"] for p in models) == found["summary"]["wrong_counts"] == 0


def test_starved_cells_lie_where_the_file_says() -> None:
    found = read("whose_fault")
    assert predicts(found["panels"]["blinkered VAE"], found["edges"]["starved_sigma"]) == [56, 56]
    assert found["diagnose_agrees"] == [16, 16]
    assert sum(found["unmoved"].values()) == 4

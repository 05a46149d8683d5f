"""Quadrature against a long run of NumPyro's sampler, as `experiments.hmc` recorded it."""

from __future__ import annotations

import pytest
import torch

import identkit as ik
from experiments.hmc import MODELS
from experiments.record import RESULTS
from identkit.lidvae.checkpoints import read_json

DRAWN = read_json(RESULTS / "hmc.json")["models"]


@pytest.mark.parametrize("name", MODELS)
def test_quadrature_is_within_the_sampler_s_error(name: str) -> None:
    text, x = MODELS[name]
    found = ik.collapse(text, torch.tensor([x], dtype=torch.float64))
    mean, sd = found.posterior_mean[0], found.posterior_sd[0]
    ours = {"first": mean, "square": mean.square() + sd.square(), "height": found.kl + found.log_evidence}
    for what, values in ours.items():
        drawn = DRAWN[name][what]
        assert max(drawn["error"]) < 0.02, "a long run"
        for value, theirs, error in zip(values.tolist(), drawn["mean"], drawn["error"], strict=True):
            assert abs(value - theirs) <= 4 * error, what

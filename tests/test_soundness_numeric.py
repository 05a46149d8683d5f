"""A fixed subset of the random decoders of `make soundness`: defects are found, injective ones have no collisions."""

from __future__ import annotations

import json

import pytest
import torch

from experiments.planted_decoders import injective, planted
from experiments.soundness_numeric import FOUND, RESULT, checked, confirmed, contradictions, found, searched

SUBSET = 6


@pytest.mark.parametrize("index", range(SUBSET))
def test_a_planted_defect_is_found_and_nothing_said_against_it(index):
    case = planted(index)
    verdict = checked(case)
    assert found(case, verdict) in ("decided", "confirmed")
    assert contradictions(case, verdict) == []


@pytest.mark.parametrize("index", range(SUBSET))
def test_an_injective_decoder_has_no_confirmed_collision(index):
    case = injective(index)
    assert not confirmed(searched(case))
    assert contradictions(case, checked(case)) == []


def test_injective_decoders_are_injective_where_it_is_seen():
    """Random pairs of latents keep apart, as far as the least singular values and contractions allow."""
    for index in range(40):
        case = injective(index)
        with torch.random.fork_rng():
            torch.manual_seed(index)
            z = case.prior.sample((200,)).double()
        law = case.decoder.double()(z)
        between, apart = torch.pdist(law), torch.pdist(z)
        assert (between > 1e-12 * apart).all()


def test_the_committed_result_holds():
    result = json.loads(RESULT.read_text())
    assert result["planted"] >= 200 and result["injective"] >= 200
    assert result["found"] >= FOUND and result["false_collisions"] == 0
    assert result["contradictions"] == []
    assert f"--decoders {result['planted']} " in result["command"]

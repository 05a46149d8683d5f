"""A fixed subset of `make soundness`: no verdict contradicts a planted answer. And the plants themselves are right."""

from __future__ import annotations

import json
from itertools import islice

import pytest

from experiments.soundness import PLANTS, RESULT, contradictions, plants
from identkit.verdict import Level

CASES = list(islice(plants(10_000), 4 * len(PLANTS)))


@pytest.mark.parametrize("index", range(len(CASES)), ids=[f"{i}-{case.kind}" for i, case in enumerate(CASES)])
def test_no_verdict_contradicts_what_was_planted(index):
    wrong, _ = contradictions(CASES[index])
    assert wrong == []


def test_most_plants_are_decided():
    decided = total = 0
    for case in CASES[: 2 * len(PLANTS)]:
        _, levels = contradictions(case)
        decided += sum(levels[name] is not Level.UNKNOWN for name in case.forbidden)
        total += len(case.forbidden)
    assert decided / total > 0.85


def test_the_committed_result_holds_no_contradiction():
    result = json.loads(RESULT.read_text())
    assert result["contradictions"] == []
    assert f"--models {result['models']} " in result["command"]
    assert sum(kind["models"] for kind in result["by_kind"].values()) == result["models"]

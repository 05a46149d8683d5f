"""The ladder, the overall level, what a verdict says and how it refuses to be a boolean."""

from __future__ import annotations

import dataclasses
import itertools
import json
import operator

import pytest

from identkit.verdict import Certificate, Invariance, Level, Verdict, overall
from tests import json_keys

CONSTANT, PARTIAL, LOCAL, GLOBAL, INFORMED, UNKNOWN = (
    Level.CONSTANT,
    Level.PARTIAL,
    Level.LOCAL,
    Level.GLOBAL,
    Level.INFORMED,
    Level.UNKNOWN,
)
LAW = [CONSTANT, PARTIAL, LOCAL, GLOBAL]
DATA = [CONSTANT, PARTIAL, INFORMED]
ORDERS = [operator.lt, operator.le, operator.gt, operator.ge]


class Evidence(Certificate):
    """A stand-in whose verification counts its calls."""

    def __init__(self, answer):
        self.answer, self.calls = answer, 0

    @property
    def kind(self):
        return "stand-in"

    @property
    def statement(self):
        return "nothing is proved."

    def verify(self):
        self.calls += 1
        return self.answer


def verdict(**changes):
    entries = {
        "model": "m",
        "about": "latents",
        "scope": "generic",
        "level": PARTIAL,
        "latents": {"z[1]": GLOBAL, "z[2]": CONSTANT},
        "invariances": (
            Invariance(kind="translation", about=("z[2]",), generator="d/dz[2]", preserves_prior=False),
        ),
        "identifiable": ("z[1]",),
        "assumptions": ("w != 0",),
        "certificate": Evidence(True),
    }
    return Verdict(**{**entries, **changes})


@pytest.mark.parametrize("ladder", [LAW, DATA])
@pytest.mark.parametrize("order", ORDERS)
def test_levels_of_one_ladder_compare_as_their_places_do(ladder, order):
    for (i, one), (j, other) in itertools.product(enumerate(ladder), repeat=2):
        assert order(one, other) is order(i, j)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("one", "other"),
    [(UNKNOWN, level) for level in Level] + [(INFORMED, LOCAL), (INFORMED, GLOBAL)],
)
def test_levels_without_an_order_refuse_in_both_directions(order, one, other):
    for pair in ((one, other), (other, one)):
        with pytest.raises(TypeError, match=r"UNKNOWN is not on the ladder|cannot be compared"):
            order(*pair)


def test_a_level_compares_with_levels_only():
    with pytest.raises(TypeError, match="a Level compares with another Level, got 'GLOBAL'"):
        assert GLOBAL > "GLOBAL"
    assert GLOBAL != "GLOBAL" and str(GLOBAL) == "GLOBAL"


def rule(levels):
    """The overall level in the words of architecture.md."""
    if all(level is CONSTANT for level in levels):
        return CONSTANT
    beside = any(level in (LOCAL, GLOBAL, INFORMED) for level in levels)
    if PARTIAL in levels or (CONSTANT in levels and beside):
        return PARTIAL
    if UNKNOWN in levels:
        return UNKNOWN
    return min(levels, key=[LOCAL, INFORMED, GLOBAL].index)


@pytest.mark.parametrize("ladder", [LAW, DATA])
def test_overall_level_of_every_combination(ladder):
    for size in (1, 2, 3, 4):
        for levels in itertools.combinations_with_replacement([*ladder, UNKNOWN], size):
            assert overall(levels) is rule(levels), levels


def test_overall_level_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one unknown"):
        overall([])


def test_a_verdict_is_not_a_boolean():
    with pytest.raises(TypeError, match=r"a ladder, not a boolean: compare verdict\.level"):
        bool(verdict())


def test_a_verdict_is_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict().level = GLOBAL  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        Verdict("m", "latents", "generic", PARTIAL)  # pyright: ignore[reportCallIssue]


def test_the_json_object_has_the_keys_of_the_design_and_survives_json():
    found = verdict(
        prior_identified=("z[2]",), at_least=("z[1]",), remedies=({"constraint": "w = 1", "level": "GLOBAL"},)
    ).to_dict()
    assert tuple(found) == json_keys.VERDICT
    assert json.loads(json.dumps(found)) == found
    assert found["latents"] == {"z[1]": "GLOBAL", "z[2]": "CONSTANT"}
    assert found["invariances"] == [{"kind": "translation", "generator": "d/dz[2]", "preserves_prior": False}]


def test_the_json_object_verifies_the_certificate_and_does_not_quote_it():
    for answer in (True, False):
        evidence = Evidence(answer)
        assert verdict(certificate=evidence).to_dict()["certificate"] == {
            "kind": "stand-in",
            "verified": answer,
        }
        assert evidence.calls == 1
    assert verdict(certificate=None).to_dict()["certificate"] is None


def test_an_invariance_has_a_generator_or_a_map():
    for both in ({}, {"generator": "d/dz", "map": "z -> -z"}):
        with pytest.raises(ValueError, match="either a generator or a map"):
            Invariance(kind="other", about=("z",), **both)  # pyright: ignore[reportArgumentType]
    flip = Invariance(kind="sign flip", about=("z",), map="z -> -z")
    assert flip.to_dict() == {"kind": "sign flip", "map": "z -> -z", "preserves_prior": None}


def test_the_text_names_every_unknown_with_its_level_and_the_reasons():
    text = str(verdict(at_least=("z[1]",)))
    assert "PARTIAL" in text.splitlines()[0]
    for phrase in (
        "z[1]  GLOBAL at least",
        "z[2]  CONSTANT",
        "d/dz[2]",
        "w != 0",
        "nothing is proved.",
        "z[1].",
    ):
        assert phrase in text


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("scope", ["generic", "at", "data"])
def test_every_level_has_words_on_its_own_ladder(level, scope):
    if (scope == "data") == (level in (LOCAL, GLOBAL)) and level not in (CONSTANT, PARTIAL, UNKNOWN):
        return
    text = str(verdict(level=level, latents={"z": level}, scope=scope))
    assert text.startswith(level.value) and len(text.splitlines()[0]) > 60


def test_the_short_form_shows_levels():
    assert repr(verdict()) == "Verdict(PARTIAL; z[1]: GLOBAL, z[2]: CONSTANT)"

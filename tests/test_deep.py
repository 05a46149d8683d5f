"""The deep suite: what each decoder cannot see is known from how it is built, and every disagreement has its reason."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from identkit import deep, plot, suites
from identkit.deep.grid import PRESETS, Preset, groups
from identkit.deep.trained import Explanation, Said, Trained, trained
from identkit.diagnosis import Fault
from identkit.verdict import Level

TINY = Preset(seeds=1, steps=30, rows=300, sigmas=(0.5,), lower=(0.5,), width=8, judged=2)


@cache
def found(kind: str, data: str = "pinwheel") -> tuple[Trained, ...]:
    group = next(group for group in groups(TINY) if (group.kind, group.data.name) == (kind, data))
    return tuple(trained(group, TINY))


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        ("linear", {"z[1]": {Level.GLOBAL}, "z[2]": {Level.GLOBAL}}),
        ("one coordinate", {"z[1]": {Level.UNKNOWN, Level.LOCAL, Level.GLOBAL}, "z[2]": {Level.CONSTANT}}),
        ("radius", {"z[1]": {Level.PARTIAL}, "z[2]": {Level.PARTIAL}}),
        ("folded", {"z[1]": {Level.LOCAL, Level.UNKNOWN}, "z[2]": {Level.LOCAL, Level.UNKNOWN}}),
        ("LIDVAE", {"z[1]": {Level.GLOBAL}, "z[2]": {Level.GLOBAL}}),
    ],
)
def test_each_decoder_is_what_it_was_built_to_be(kind: str, levels: dict[str, set[Level]]) -> None:
    (model,) = found(kind)
    for name, possible in levels.items():
        assert model.check.verdict.latents[name] in possible
    assert not model.check.counterexamples


def test_a_dead_coordinate_has_no_divergence_and_the_other_has() -> None:
    (model,) = found("one coordinate")
    first, second = model.latents
    assert second.flatness < 1e-12 and abs(second.truth) <= second.truth_error and second.fault is Fault.MODEL
    assert first.truth > 0.01 and first.fault is Fault.HEALTHY


def test_a_blind_encoder_is_to_blame_where_the_decoder_cannot_forget() -> None:
    (model,) = found("LIDVAE, blind encoder")
    assert all(said.truth > 0.01 for said in model.latents)
    assert model.check.agrees is True
    (same,) = {round(said.encoder, 6) for said in model.latents[:1]}
    assert same < 0.5  # one law for all rows: only its drift from the prior is left
    group = next(group for group in groups(TINY) if group.kind == "LIDVAE, blind encoder")
    q = group.model.infer(group.model.rows(group.data.test))
    assert torch.equal(q.mean, q.mean[:, :1].expand_as(q.mean))


@pytest.mark.parametrize(
    ("flatness", "truth", "encoder", "fault", "explanation"),
    [
        (0.0, 0.0, 0.0, Fault.MODEL, Explanation.COINCIDE),
        (1.0, 1.0, 1.0, Fault.HEALTHY, Explanation.COINCIDE),
        (1.0, 1.0, 0.0, Fault.INFERENCE, Explanation.ENCODER),
        (0.02, 0.009, 0.009, Fault.MODEL, Explanation.NEAR),
        (0.0, 0.0, 1.0, Fault.MODEL, Explanation.CLAIM),
        (5.0, 0.001, 0.001, Fault.MODEL, Explanation.NONE),
        (0.001, 5.0, 5.0, Fault.HEALTHY, Explanation.NONE),
        (1.0, 0.01, 0.0, Fault.UNDECIDED, Explanation.NONE),
    ],
)
def test_every_disagreement_has_its_reason_or_none(
    flatness: float, truth: float, encoder: float, fault: Fault, explanation: Explanation
) -> None:
    said = Said(name="z[1]", flatness=flatness, truth=truth, truth_error=1e-6, encoder=encoder)
    assert said.fault is fault
    assert said.explanation is explanation


def test_the_film_shows_one_latent_dying_and_one_that_cannot() -> None:
    plain, identifiable = deep.strip(rows=400, stages=(0, 20, 150))
    assert plain.truth[0] > 0.1 and plain.truth[-1] < 0.05 * plain.truth[0]
    assert identifiable.truth[-1] > 0.1
    for strip in (plain, identifiable):
        assert torch.allclose(strip.density.sum((1, 2)), torch.ones(3))
    figure = plot.film((plain, identifiable))
    assert len(figure.axes) == 2 * 3 + 2


def test_the_suite_is_drawn_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [
        group for group in groups(TINY) if group.data.name == "counts" and group.kind in ("linear", "LIDVAE")
    ]
    monkeypatch.setattr("identkit.suites.deep.groups", lambda size, seed: few)
    monkeypatch.setattr("identkit.suites.deep.strip", lambda rows: deep.strip(rows=200, stages=(0, 5)))
    monkeypatch.setitem(PRESETS, "cpu", TINY)  # type: ignore[arg-type]
    seen: list[Any] = []
    result = suites.run("deep", preset="cpu", progress=seen.append)
    assert len(result.checks) == 2 and len(seen) == 4 and seen[-1].done == seen[-1].total
    assert set(result.figures) == {"theorem", "agreement", "collapse", "film"}
    assert len(result.tables["trained"]) == 4
    assert {row["explanation"] for row in result.tables["trained"]} <= {why.text for why in Explanation}
    assert any("linear: 1 GLOBAL" in sentence for sentence in result.summary)
    whole = suites.results(result.checks, seconds=1.0, seed=0, command="x", tables=result.tables)
    assert whole["disagree"] == 0 and len(whole["trained"]) == 4
    with pytest.raises(ValueError, match="preset should be one of cpu, many, gpu, got 'tpu'"):
        suites.run("deep", preset="tpu")


def test_a_figure_frames_what_nothing_explains() -> None:
    (model,) = found("linear")
    broken = Said(name="z[1]", flatness=5.0, truth=0.001, truth_error=0.0, encoder=0.001)
    odd = Trained(kind="x", data="y", setting="", check=model.check, latents=(broken,))
    figure = plot.collapse_table([model, odd])
    assert any("unexplained" in text.get_text() for ax in figure.axes for text in ax.texts)
    assert sum(len(ax.patches) for ax in figure.axes) == 2
    assert sum(len(ax.patches) for ax in plot.collapse_table([model]).axes) == 0

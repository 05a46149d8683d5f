"""The experiments run, their tables say what their files say, and saved weights give the saved figures again."""

from __future__ import annotations

import importlib
import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import tables
from experiments.record import RESULTS
from experiments.table_images import data_of
from experiments.table_sequences import LENGTH, data_of as sequences_of
from experiments.tables import judged, measures, written
from identkit.lidvae.checkpoints import read_json
from identkit.lidvae.run import load

FOLDER = RESULTS.parent
SCRIPTS = sorted(
    path.stem for path in FOLDER.glob("*.py") if "Record(" in path.read_text() and path.stem != "record"
)
FAST = {"table_sequences"}  # under five seconds
FINISHED = [path for path in RESULTS.iterdir() if not path.name.endswith(".part.json")]
TABLES = sorted(path for path in FINISHED if fnmatch(path.name, "table_*.json"))


def run(name: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--preset", "smoke", *options])
    importlib.import_module(f"experiments.{name}").main()


@pytest.mark.parametrize(
    "name", [each if each in FAST else pytest.param(each, marks=pytest.mark.slow) for each in SCRIPTS]
)
def test_every_script_shows_that_it_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(name, monkeypatch, "--out", str(tmp_path))
    (facts,) = (read_json(path) for path in tmp_path.glob("*.json"))
    assert facts["command"].startswith(f"python -m experiments.{name} --preset smoke")
    assert facts["seconds"] > 0
    assert list(tmp_path.glob("*.png")) or not name.startswith("table_")  # some draw nothing of a few steps


@pytest.mark.slow
def test_the_likelihood_gap_runs_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("likelihood_gap", monkeypatch, "--out", str(tmp_path))
    assert (tmp_path / "likelihood_gap.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif("IDENTKIT_DATA" not in os.environ, reason="the images are not at hand")
def test_the_table_of_images_runs_on_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run("table_images", monkeypatch, "--out", str(tmp_path), "--data", "omniglot")
    facts = read_json(tmp_path / "table_images_omniglot.json")
    assert facts["data"]["likelihood"] == "bernoulli" and facts["data"]["columns"] == 784


def test_a_text_of_ones_own_becomes_sequences(tmp_path: Path) -> None:
    file = tmp_path / "rhyme.txt"
    lines = (f"row row row your boat {number} times down the stream\n" for number in range(60))
    file.write_text("".join(lines), encoding="utf-8")
    data = sequences_of(file, 20)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 2, 2)
    assert data.train.shape[1] == LENGTH and "stream" in (data.vocabulary or ())


def test_images_are_drawn_black_and_white_once() -> None:
    if "IDENTKIT_DATA" not in os.environ:
        pytest.skip("the images are not at hand")
    one, two = (data_of("fashion-mnist", 200) for _ in range(2))
    assert torch.equal(one.train, two.train) and not one.fresh
    assert set(one.train.unique().tolist()) == {0.0, 1.0} and len(one.train) == 160


def test_the_readme_has_a_row_for_every_script() -> None:
    rows = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert SCRIPTS and all(f"| `{name}` |" in rows for name in SCRIPTS)


def test_the_readme_says_what_the_files_say() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert written(text) == text
    assert [path.stem for path in TABLES if f"<!-- {path.stem} -->" not in text] == []


def test_an_interrupted_table_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    whole = tables.row

    def row(method: tables.Method, *others: Any) -> tables.Row:
        asked.append(method.name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(method, *others)

    monkeypatch.setattr(tables, "row", row)
    with pytest.raises(KeyboardInterrupt):
        run("table_sequences", monkeypatch, "--out", str(tmp_path))
    run("table_sequences", monkeypatch, "--out", str(tmp_path))
    assert asked == ["SequenceVAE", "β", "lagging", "lagging", "SA", "LIDSVAE"]
    assert capsys.readouterr().out.count("(kept)") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "table_sequences.json",
        "table_sequences.png",
        "table_sequences_lidsvae",
    ]


@pytest.mark.parametrize("path", TABLES, ids=[path.stem for path in TABLES])
def test_every_method_had_the_same_search_and_the_same_budget(path: Path) -> None:
    facts = read_json(path)
    rates = facts["search"]["decoder_rates"]
    for one in facts["methods"].values():
        assert [each["decoder_rate"] for each in one["search"]] == rates
        chosen = max(one["search"], key=lambda each: each["validation_log_likelihood"]["mean"])
        assert one["decoder_rate"] == chosen["decoder_rate"]
        assert all(len(values) == facts["budget"]["seeds"] for values in one["by_seed"].values())
    ordered = [facts["methods"][name]["log_likelihood"]["mean"] for name in facts["by_log_likelihood"]]
    assert ordered == sorted(ordered, reverse=True)


def test_the_readme_names_every_result() -> None:
    """What nobody speaks of got there by accident."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:results/)?([\w*]+)(?:\.json|\.png)`", text))
    strangers = [path.name for path in FINISHED if not any(fnmatch(path.stem, each) for each in named)]
    assert strangers == []


@pytest.mark.parametrize(
    ("stem", "method"), [("table_images_pinwheel", "LIDVAE"), ("table_sequences", "LIDSVAE")]
)
def test_saved_weights_give_the_saved_row_again(stem: str, method: str) -> None:
    facts = read_json(RESULTS / f"{stem}.json")
    budget = tables.Budget(**facts["budget"])
    data = data_of("pinwheel", budget.rows) if method == "LIDVAE" else sequences_of(None, budget.rows)
    assert data.fingerprint()["hash"] == facts["data"]["hash"]
    saved = RESULTS / f"{stem}_{method.lower()}"
    again = measures(judged(load(saved, data=data), data.test, budget))
    for name, values in facts["methods"][method]["by_seed"].items():
        assert again["by_seed"][name] == pytest.approx(values, abs=2e-5), name
    assert sum(file.stat().st_size for file in saved.iterdir()) < 200_000

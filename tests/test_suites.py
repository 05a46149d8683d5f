"""The suites: data of the paper or of the same designs, every band of theory/T4, one σ, strict JSON."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import beta

from identkit import suites
from identkit.classical.linear_gaussian import PPCA, sample_eigenvalues
from identkit.tables import read_csv, read_r_dump
from identkit.theorem import verify
from identkit.verdict import Level
from identkit.zoo import CASES

PAPER = Path(os.environ.get("IDENTKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_paper = pytest.mark.skipif(not (PAPER / "classical").is_dir(), reason="the paper's data are not here")


SMALL = {
    "classical.ROWS": 6,
    "classical.SWEEP_ROWS": 4,
    "classical.PLANE_ROWS": 1,
    "classical._CURVE": 6,
    "classical._SIGMAS": (0.05, 1.0, 5.0),
    "paper.POOLED_ROWS": 300,
}
"""A suite of a few seconds, on data drawn here."""


def made_small(patch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        patch.setattr(f"identkit.suites.{name}", value)
    patch.delenv("IDENTKIT_DATA", raising=False)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    made_small(monkeypatch)


# Data


@needs_paper
def test_paper_data_are_read(monkeypatch):
    monkeypatch.setenv("IDENTKIT_DATA", str(PAPER))
    data = suites.classical_data()
    assert str(PAPER) in data.origin
    assert {len(y) for y in data.weights.values()} == {10_000}
    separated = data.weights["nonoverlap_gaussian"]
    # Its exact posterior is all but Beta(8547, 1463): the components never overlap.
    assert int((separated < 0).sum()) == 8542
    assert {len(draws) for methods in data.draws.values() for draws in methods.values()} == {1000}
    x, loadings = data.factors["twod"]
    assert x.shape == (500, 5)
    assert loadings.shape == (5, 2)


@needs_paper
def test_paper_numbers(monkeypatch):
    monkeypatch.setenv("IDENTKIT_DATA", str(PAPER))
    data = suites.classical_data()
    x, loadings = data.factors["twod"]
    model = PPCA(loadings, 1.0)
    assert model.posterior_moments(x)[1][0].tolist() == pytest.approx([0.268, 0.275], abs=5e-4)
    assert model.mutual_information().value == pytest.approx(2.663, abs=5e-4)
    assert model.log_evidence(x).sum().item() == pytest.approx(-4070.29, abs=5e-3)
    assert sample_eigenvalues(x)[:2].sqrt().tolist() == pytest.approx([4.3, 2.9], abs=0.05)
    single = CASES["mixture-weight-single"].build().posterior(data.weights["single_gaussian"])
    assert single.mean.item() == pytest.approx(0.5, abs=1e-12)
    assert single.stddev.item() == pytest.approx(0.1508, abs=5e-5)
    separated = CASES["mixture-weight-separated"].build().posterior(data.weights["nonoverlap_gaussian"])
    assert separated.mean.item() == pytest.approx(beta(8547, 1463).mean(), rel=1e-9)
    assert separated.stddev.item() == pytest.approx(beta(8547, 1463).std(), rel=1e-9)


def test_designs_are_drawn_where_there_are_no_data(monkeypatch, tmp_path):
    first, again, other = (suites.classical_data(seed) for seed in (0, 0, 1))
    assert "seed 0" in first.origin
    assert "not set" in first.origin
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert not any(torch.equal(first.weights[name], other.weights[name]) for name in first.weights)
    separated = first.weights["nonoverlap_gaussian"]
    assert 0.75 < float((separated < 0).double().mean()) < 0.95
    x, loadings = first.factors["twod"]
    spread = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    torch.testing.assert_close(
        spread, loadings @ loadings.T + 0.01 * torch.eye(5).double(), rtol=0.3, atol=0.5
    )
    monkeypatch.setenv("IDENTKIT_DATA", str(tmp_path))
    assert f"no folder {tmp_path}" in suites.classical_data().origin


@needs_paper
def test_r_dump_keeps_r_order():
    dump = read_r_dump(PAPER / "classical" / "twod_ppca.data.R")
    assert dump["N"] == [500.0]
    assert [len(row) for row in dump["w"]] == [2] * 5
    # x = W z + noise of sd .1 holds only if every matrix is read column by column.
    x, w, z = (torch.tensor(dump[name], dtype=torch.float64) for name in ("x", "w", "z"))
    assert (x - z.T @ w.T).std().item() == pytest.approx(0.1, abs=0.01)


def test_r_dump_refuses_nonsense(tmp_path):
    file = tmp_path / "dump.R"
    file.write_text("y <- c(1, two, 3)\n")
    with pytest.raises(ValueError, match="y should hold numbers only"):
        read_r_dump(file)
    file.write_text("y <- structure(c(1, 2, 3), .Dim = c(2, 2))\n")
    with pytest.raises(ValueError, match="matrix of 3 entries"):
        read_r_dump(file)


def test_csv_columns_come_in_any_order(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text('\ufeff"y[2]", y[1]\r\n1e-3,2\r\n\r\n,-inf\r\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"row 2, column y\[1\] should hold a finite number, got '-inf'"):
        read_csv(file, ["y[1]", "y[2]"])
    file.write_text("y\n1_000\n")
    with pytest.raises(ValueError, match=r"row 1, column y should hold a finite number, got '1_000'"):
        read_csv(file, ["y"])
    file.write_text('\ufeff"y[2]", y[1]\r\n1e-3,2\r\n\r\n,3\r\n', encoding="utf-8")
    table = read_csv(file, ["y[1]", "y[2]"])
    assert table.rows == ((2.0, 1e-3), (3.0, None))
    assert table.missing == (2, "y[2]")


# The suite


@pytest.fixture(scope="module")
def classical():
    """The whole suite, small, run once."""
    patch = pytest.MonkeyPatch()
    made_small(patch)
    steps: list[suites.Progress] = []
    result = suites.run("classical", progress=steps.append)
    patch.undo()
    return result, steps


def test_theorem_holds_on_the_suite(classical):
    result, _ = classical
    assert not [row for found in result.checks for row in found.counterexamples]
    assert sum(found.agrees is True for found in result.checks) >= len(result.checks) - 1
    levels = {found.verdict.level for found in result.checks}
    assert levels == {Level.CONSTANT, Level.PARTIAL, Level.LOCAL, Level.GLOBAL}


def test_every_bound_of_the_band_appears(classical):
    result, _ = classical
    bounds = {row.bound for found in result.checks for row in found.rows if row.bound}
    for theorem in ("T4.2", "T4.3", "T4.4"):
        assert any(theorem in bound for bound in bounds)


def test_verdict_and_kl_switch_at_one_sigma(classical):
    result, _ = classical
    seen = set()
    for found in result.checks:
        if found.model != "PPCA" or not found.setting.startswith(("oned, σ", "twod, σ")):
            continue
        x, _ = suites.classical_data().factors[found.setting[:4]]
        sigma = float(found.setting.rpartition(" ")[2])
        for j, root in enumerate(sample_eigenvalues(x)[:2].sqrt().tolist()):
            dead = sigma >= root
            level = found.verdict.latents[f"z[{j + 1}]"]
            assert (level is Level.CONSTANT) == dead
            kl, error = found.collapse.kl_conditional[:, j], found.collapse.kl_conditional_error[:, j]
            assert bool((kl <= error).all()) == dead
            seen.add((found.setting[:4], j, dead))
    assert len(seen) == 8  # two data sets, two latents, alive and dead


def test_data_level_is_not_model_level(classical):
    result, _ = classical
    crossed = next(found for found in result.checks if "datum (1, 1)" in found.setting)
    assert crossed.verdict.level is Level.GLOBAL
    assert crossed.rows[0].level == "CONSTANT"
    assert crossed.collapse.kl.item() <= crossed.collapse.kl_error.item()


def test_near_the_crossing_is_below_precision_not_agreement(classical):
    result, _ = classical
    near = next(found for found in result.checks if found.model == "mixture-unequal-variances")
    first = near.rows[0]
    assert first.level == "INFORMED"
    assert first.agrees is None
    assert first.below_precision
    assert 0 < first.kl < 1e-30


def test_xor_trap(classical):
    result, _ = classical
    found = next(found for found in result.checks if found.model == "xor")
    assert found.collapse.kl_per_latent.max() < 1e-12
    assert found.collapse.kl.tolist() == pytest.approx([0.3681] * 2, abs=5e-5)
    assert found.verdict.latents == {"z[1]": Level.PARTIAL, "z[2]": Level.PARTIAL}


def test_known_informations(classical):
    """Known answers: N(z², 1/4) at x = 0, 1, 3, and the nearly collapsed logistic decoder."""
    result, _ = classical
    square = next(found for found in result.checks if found.model == "square")
    assert square.collapse.kl[:3].tolist() == pytest.approx([0.41, 0.37, 2.11], abs=5e-3)
    assert square.collapse.posterior_mean.abs().max() < 1e-9
    logistic = next(found for found in result.checks if found.model == "logistic")
    assert logistic.collapse.kl[1].item() == pytest.approx(0.01049, abs=5e-6)
    assert logistic.collapse.band[1].tolist() == pytest.approx([0.01047, 0.01050], abs=5e-6)


def test_progress_counts_every_step(classical):
    result, steps = classical
    assert [step.done for step in steps] == list(range(1, steps[0].total + 1))
    assert [step.check for step in steps if step.check is not None] == list(result.checks)
    assert set(result.figures) == {"theorem", "agreement", "mixture_weight", "ppca_oned", "ppca_twod"}
    assert all(caption for _, caption in result.figures.values())
    assert any("drawn here" in sentence for sentence in result.summary)


def test_unknown_suite_names_those_there_are():
    with pytest.raises(ValueError, match="one of classical, deep, all, got 'clasical'"):
        suites.run("clasical")


# Results


def test_results_are_strict_json_and_count_every_row(classical):
    result, _ = classical
    found = suites.results(result.checks, seconds=1.25, seed=3, command="identkit verify")
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert set(found) == {
        *(
            "rows",
            "agree",
            "disagree",
            "below_precision",
            "undecided",
            "seconds",
            "versions",
            "seed",
            "command",
        )
    }
    assert len(found["rows"]) == sum(
        found[count] for count in ("agree", "disagree", "below_precision", "undecided")
    )
    assert found["disagree"] == 0
    assert found["below_precision"] > 0
    assert set(found["rows"][0]) == {
        *(
            "model",
            "setting",
            "scope",
            "latent",
            "datum",
            "level",
            "n",
            "flatness",
            "omega",
            "kl",
            "kl_error",
        ),
        *("kl_conditional", "band", "bound", "posterior_mean", "posterior_sd", "agrees"),
    }
    assert {"identkit", "python", "torch", "sympy"} <= set(found["versions"])


def test_results_tell_undecided_from_below_precision():
    check = verify("z ~ Normal(0, 1); observe x ~ Normal(z, 1)", [[0.3], [1.0]])

    def counts(level):
        rows = [replace(row, agrees=None, level=level if row.datum == 1 else row.level) for row in check.rows]
        found = suites.results([replace(check, rows=tuple(rows))], seconds=0.0, seed=0, command="")
        return found["undecided"], found["below_precision"]

    assert counts("INFORMED") == (0, 6)
    # The first datum's two rows, and the two means over the data that depend on them.
    assert counts("UNKNOWN") == (4, 2)


def test_results_write_no_infinity():
    check = verify("z ~ Normal(0, 1); observe x ~ Normal(z, 1)", [[0.3]])
    odd = replace(check, rows=tuple(replace(row, kl_error=math.inf, kl=math.nan) for row in check.rows))
    rows = json.loads(json.dumps(suites.results([odd], seconds=0.0, seed=0, command=""), allow_nan=False))[
        "rows"
    ]
    assert {row["kl"] for row in rows} == {row["kl_error"] for row in rows} == {None}

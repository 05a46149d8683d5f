"""`identkit posterior`: missing values, settings of a fit, where results go, and what is refused before the work."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from matplotlib.axes import Axes

import identkit as ik
from identkit.classical.hierarchical_normal import EIGHT_SCHOOLS
from identkit.cli import main
from identkit.cli.inferring import inferred

NAN = math.nan


@pytest.fixture
def say(monkeypatch, capsys, tmp_path):
    """Run `identkit posterior` in a folder with two tables; give status, output and error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.csv").write_text("v\n0.5\n3\n\n-2\n6\n")
    (tmp_path / "w.csv").write_text("v\n0.5\n3\n-2\n6\n")

    def run(*arguments: str):
        status = main(["posterior", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_json_and_csv_hold_the_same_rows(say, tmp_path):
    fit = ("normal-normal", "--data", "w.csv", "--fit", "sigma=1")
    status, out, err = say(*fit, "--json", "--csv", "rows.csv")
    found = json.loads(out)
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert (status, err, len(rows)) == (0, "", 4)
    model = ik.NormalNormal.fit([0.5, 3.0, -2.0, 6.0], 1.0)
    assert [row["kl"] for row in found["rows"]] == pytest.approx(model.kl_to_prior([0.5, 3, -2, 6]).tolist())
    assert [float(row["kl"]) for row in rows] == [row["kl"] for row in found["rows"]]


@pytest.mark.parametrize(
    ("family", "table", "fit", "latents"),
    [
        ("family-mixture", "n\n0\n1\n9\n0\n11\n1\n", "family=Poisson,components=2", 1),
        ("dirichlet-multinomial", "a,b\n5,5\n1,9\n8,2\n", "", 2),
        ("normal-inverse-gamma", "v\n0\n1\n-1\n0.5\n-0.5\n0.2\n-0.1\n30\n", "kappa=2", 2),
    ],
)
def test_families_of_counts_and_scales_by_name(say, tmp_path, family, table, fit, latents):
    (tmp_path / "t.csv").write_text(table)
    status, out, err = say(family, "--data", "t.csv", "--fit", fit, "--json")
    found = json.loads(out)
    assert (status, err, len(found["rows"])) == (0, "", table.count("\n") - 1)
    assert len(found["latents"]) == latents
    assert math.isfinite(found["mutual_information"]["value"]) and "converged" in found["fit"]


Y, S = EIGHT_SCHOOLS
DESIGN = [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [4.0, 1.0]]


@pytest.mark.parametrize(
    ("family", "table", "fit", "model", "x"),
    [
        (
            "hierarchical-normal",
            "se,y\n" + "\n".join(f"{s},{3 * y}" for y, s in zip(Y, S, strict=True)),
            "scales=se",
            lambda x: ik.HierarchicalNormal.fit(x, S),
            [[3 * y for y in Y]],
        ),
        (
            "bayesian-linear-regression",
            "y,dose,one,second\n1.1,1,1,0\n1.9,2,1,1\n3.2,3,1,-1\n3.9,4,1,2\n",
            "design=[dose, one]",
            lambda x: ik.BayesianLinearRegression.fit(x, DESIGN),
            [[1.1, 1.9, 3.2, 3.9], [0.0, 1.0, -1.0, 2.0]],
        ),
    ],
)
def test_a_datum_may_be_a_column_beside_others(say, tmp_path, family, table, fit, model, x):
    (tmp_path / "t.csv").write_text(table)
    status, out, err = say(family, "--data", "t.csv", "--fit", fit, "--json")
    found = json.loads(out)
    assert (status, err, len(found["rows"])) == (0, "", len(x))
    assert [row["kl"] for row in found["rows"]] == pytest.approx(model(x).kl_to_prior(x).tolist())


@pytest.mark.parametrize(
    ("fit", "phrase"),
    [
        ("", "should say scales, as in --fit scales=COLUMN"),
        ("scales=z", "should name some of the table's columns (y, se, b) and leave one"),
        ("scales=[y, se, b]", "and leave one for the measurements, got y, se, b"),
        ("scales=[se, b]", "scales in --fit should be one column"),
        ("scales=b", "scales should be positive"),
    ],
)
def test_columns_beside_the_data_are_named(say, tmp_path, fit, phrase):
    (tmp_path / "t.csv").write_text("y,se,b\n1,2,0\n3,1,0\n")
    status, out, err = say("hierarchical-normal", "--data", "t.csv", "--fit", fit)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert phrase in err


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (("v.csv", "--fit", "sigma=1"), "row 3, column v is empty, and normal-normal takes no missing"),
        (("w.csv", "--fit", "sigma=1", "--at", "w=1"), "--at should not stand beside --fit"),
        (("w.csv", "--fit", "sigma=1,sigma=2"), "once, got it twice"),
        (("w.csv", "--fit", "sigma=wide"), "sigma in --fit should be a number"),
        (("w.csv", "--fit", "sigma=1", "--csv", "."), "should be a file to write"),
        (("w.csv", "--fit", "sigma=1", "--csv", "no/x.csv"), "should lie in a folder that exists"),
    ],
)
def test_refused_in_one_line(say, arguments, phrase):
    status, out, err = say("normal-normal", "--data", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert phrase in err


def test_verify_takes_missing_values_and_does_not_blame_them():
    chain = [[0.9, 0.1], [0.2, 0.8]]
    model = ik.HiddenMarkov([0.5, 0.5], chain, ik.CategoricalEmission([[0.3, 0.7], [0.6, 0.4]]), length=3)
    found = ik.verify(model, [[0.0, NAN, 1.0], [NAN, NAN, NAN]])
    assert found.agrees
    masked = ik.collapse(model, [[0.0, 5.0, 1.0]], mask=[[True, False, True]])
    assert masked.kl[0] == found.collapse.kl[0]


def test_verify_agrees_where_many_finite_latents_are_ignored():
    text = "z[4] ~ Bernoulli(1/2); observe x ~ Normal(z[1] + 2*z[2], 1)"
    assert ik.verify(text, [[-2.0], [-6.0]]).agrees


def test_one_ability_is_drawn_and_several_are_referred():
    drawn = ik.plot.posterior(ik.ItemResponse([1.0, 2.0], [0.0, 0.0]), [[1, 0]])
    assert isinstance(drawn, Axes)
    assert drawn.get_xlabel() == "theta"
    several = ik.ItemResponse([[1.0, 0.0], [0.0, 2.0]], intercepts=[0.0, 0.0])
    with pytest.raises(ValueError, match="intervals"):
        ik.plot.posterior(several, [[1, 0]])


def test_states_are_told_by_their_chances_not_by_the_mean_of_their_numbers(say, tmp_path):
    rows = [-9.0, -8.0, -9.5, 0.0, 0.5, -0.5, 9.0, 9.5, 8.0]
    (tmp_path / "three.csv").write_text("x\n" + "\n".join(map(str, rows)) + "\n")
    fit = ("gaussian-mixture", "--data", "three.csv", "--fit", "components=3")
    status, out, _ = say(*fit)
    assert status == 0 and "k: state (chance)" in out and "(1.0000)" in out and "±" not in out
    found = json.loads(say(*fit, "--json")[1])
    model = ik.GaussianMixture.fit([[row] for row in rows], 3)
    chances = model.posterior([[row] for row in rows]).probs
    for i, row in enumerate(found["rows"]):
        assert [row[f"p(k={state})"] for state in range(3)] == pytest.approx(chances[i].tolist())
    status, out, _ = say("hidden-markov", "--data", "three.csv", "--fit", "start=2")
    assert status == 0 and "state (chance)" in out


def test_a_fit_tells_what_it_found(say):
    fit = ("normal-normal", "--data", "w.csv", "--fit", "sigma=1")
    model = ik.NormalNormal.fit([0.5, 3.0, -2.0, 6.0], 1.0)
    found = json.loads(say(*fit, "--json")[1])["estimates"]
    assert found["mean"] == pytest.approx(float(model.mean))
    assert found["sd"] == pytest.approx(float(model.sd)) and "convergence" not in found
    assert f"Found: {model!r}"[:40] in say(*fit)[1]
    fit = ("hidden-markov", "--data", "w.csv", "--fit", "start=2,starts=1")
    assert set(json.loads(say(*fit, "--json")[1])["estimates"]["emission"]) >= {"means", "covariances"}


@pytest.mark.parametrize("first", ["1", "0.5", "nan", "1e3"])
def test_a_table_without_names_loses_no_datum_in_silence(say, tmp_path, first):
    (tmp_path / "bare.csv").write_text(f"{first}\n2\n3\n")
    status, out, err = say("normal-normal", "--data", "bare.csv", "--fit", "sigma=1")
    assert (status, out) == (2, "")
    assert f"bare.csv should start with a line of names, got the numbers {first}" in err


def test_moments_that_do_not_exist_are_told_and_drawn_as_such(say, tmp_path):
    text = "z ~ StudentT(2, 1, 1); y ~ Cauchy(0, 1); v ~ InverseGamma(1/4, 1); observe x ~ Normal(0, sqrt(v))"
    (tmp_path / "heavy.model").write_text(text)
    (tmp_path / "x.csv").write_text("x\n1.2\n-0.3\n")
    asked = ("heavy.model", "--data", "x.csv")
    status, out, err = say(*asked, "--out", "drawn")
    assert (status, err) == (0, "")
    assert "1 ± inf" in out and "no mean" in out and "inf ± inf" in out and " 0 ± " not in out
    row = json.loads(say(*asked, "--json")[1])["rows"][0]
    assert (row["mean(y)"], row["sd(z)"], row["mean(v)"]) == (None, None, None)


def test_the_priors_band_is_the_prior_of_heavy_tails_too():
    heavy = ik.parse("t ~ LogNormal(0, 1); z ~ Normal(0, t); observe x ~ Normal(z, 1)")
    prior = inferred(heavy, [[0.5]], None, False, None).prior
    assert prior is not None
    mean, sd = prior
    exact = [math.exp(0.5), 0.0], [math.sqrt((math.e - 1) * math.e), math.e]
    torch.testing.assert_close(mean, torch.tensor(exact[0], dtype=torch.float64), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(sd, torch.tensor(exact[1], dtype=torch.float64), atol=1e-9, rtol=1e-9)


_ODD = {
    "still": [1.0, 1.0, 1.0, 1.0],
    "single": [1.5],
    "large": [1e300, -1e300, 3e299, 1e299],
    "small": [1e-200, 2e-200, 5e-200, 3e-200],
    "uncounted": [1.23456789e29, 5.0, 7.0, 3.0],
    "negative": [-1.0, 2.0, 3.0, 1.0],
}


@pytest.mark.parametrize(
    ("family", "fit", "table", "phrase"),
    [
        ("hidden-markov", "start=2", "still", "x should vary in every column, got 1 throughout"),
        ("hidden-markov", "start=2", "single", "x should vary in every column, got 1.5 throughout"),
        ("hidden-markov", "start=2", "large", "x should be at most 1e+150 in size"),
        ("hidden-markov", "start=2", "small", "x should vary by more than 1e-150"),
        ("hidden-markov", "start=2,emission=categorical", "negative", "symbols 0, 1, … up to"),
        ("hidden-markov", "start=2,emission=categorical", "uncounted", "got 1.23457e+29"),
        ("hidden-markov", "start=2,emission=poisson", "uncounted", "got 1.23457e+29"),
        ("gaussian-mixture", "components=2", "small", "x should vary by more than 1e-150"),
        ("normal-inverse-gamma", "", "small", "x should vary by more than 1e-150"),
        ("gamma-poisson", "", "uncounted", "got 1.23457e+29"),
        ("family-mixture", "components=2,family=poisson", "uncounted", "got 1.23457e+29"),
        ("dirichlet-multinomial", "", "still", "x should have at least two columns"),
        ("dirichlet-multinomial", "trials=3", "still", "takes no settings"),
    ],
)
def test_data_that_no_fit_can_take_are_named(say, tmp_path, family, fit, table, phrase):
    (tmp_path / "odd.csv").write_text("x\n" + "\n".join(map(str, _ODD[table])) + "\n")
    status, out, err = say(family, "--data", "odd.csv", "--fit", fit)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert phrase in err


@pytest.mark.parametrize(("size", "family", "fit"), [
    (1e300, "bayesian-linear-regression", "design=b"),
    (1e-200, "bayesian-linear-regression", "design=b"),
    (1e-200, "hierarchical-normal", "scales=b"),
    (1e29, "dirichlet-multinomial", ""),
])  # fmt: skip
def test_sizes_whose_squares_are_no_doubles_are_refused_in_one_line(say, tmp_path, size, family, fit):
    (tmp_path / "odd.csv").write_text(f"a,b\n{size},{3 * size}\n{2 * size},{size}\n{size},{size}\n")
    status, out, err = say(family, "--data", "odd.csv", "--fit", fit)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "x should" in err

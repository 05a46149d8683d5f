"""The command line: what it answers, what it refuses and how, and that `verify` can fail."""

from __future__ import annotations

import html
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import identkit
from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.cli import main
from identkit.posterior import information
from identkit.suites import classical, paper
from identkit.symbolic.on_data import LikelihoodOnData, OnRow
from identkit.theorem import declared, verify
from identkit.verdict import Level
from identkit.zoo import CASES
from tests import json_keys

LINEAR = "z ~ Normal(0,1); observe x ~ Normal(w*z,1)"
XOR = CASES["xor"].model


@pytest.fixture
def say(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder, with a text on standard input; give status, output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str, text: str = ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def small(monkeypatch):
    """A suite of a second or two without its figures; a test that wants them draws them."""
    monkeypatch.delenv("IDENTKIT_DATA", raising=False)
    monkeypatch.setattr(classical, "ROWS", 3)
    monkeypatch.setattr(paper, "POOLED_ROWS", 50)

    def few(data, generator):
        yield from classical._weight_questions(data)
        yield from classical._mixture_questions(generator)
        for w in (0, "1/1000", 1):
            yield classical._text("linear", generator, 3, at={"w": w})

    monkeypatch.setattr(classical, "_classical_questions", few)
    monkeypatch.setattr(classical, "_drawings", lambda data: {})


# check


def test_check_of_a_text(say):
    status, out, _ = say("check", "-", "--at", "w=0", text=LINEAR)
    assert status == 0
    assert out.startswith("CONSTANT")
    assert "Certificate: verified" in out
    status, out, _ = say("check", "-", text=LINEAR)
    assert status == 0
    assert out.startswith("GLOBAL")


def test_check_of_a_file(say, tmp_path):
    (tmp_path / "mine.model").write_text("# comment\nz ~ Normal(0, 1)\nobserve x ~ Normal(w*z, 1)\n")
    status, out, _ = say("check", "mine.model", "--json")
    assert status == 0
    assert json.loads(out)["model"] == "mine"


def test_json_is_one_object_with_the_keys_of_the_design(say):
    status, out, err = say("check", "-", "--at", "w=0", "--json", text=LINEAR)
    found = json.loads(out)
    assert status == 0
    assert err == ""
    assert tuple(found) == json_keys.VERDICT
    assert found["level"] == "CONSTANT"
    assert found["latents"] == {"z": "CONSTANT"}
    assert found["certificate"]["verified"] is True
    assert set(found["invariances"][0]) == {"kind", "generator", "preserves_prior"}


def test_undecided_is_status_3(say):
    status, out, _ = say("check", "-", text="z[2] ~ Normal(0,1); observe x ~ Normal(abs(z[1])+z[2]^2,1)")
    assert status == 3
    assert out.startswith("UNKNOWN")


@pytest.mark.parametrize(
    "name", ["linear-collapsed", "mixture-unequal-variances-crossing", "xor", "gmm-crossed-datum"]
)
def test_check_of_a_zoo_name_uses_its_own_values_and_says_so(say, name):
    case = CASES[name]
    status, out, err = say("check", name, "--json")
    assert status == 0
    assert json.loads(out)["level"] == case.level
    assert ("--at" in err) == bool(case.at)
    assert ("--data" in err) == bool(case.data)


def test_options_override_a_zoo_entry(say):
    assert json.loads(say("check", "linear-collapsed", "--at", "w=2", "--json")[1])["level"] == "GLOBAL"
    out = say("check", "mixture-unequal-variances-crossing", "--data", "x=1", "--json")[1]
    assert json.loads(out)["level"] == "INFORMED"


def test_data_from_option_and_from_table(say, tmp_path):
    text = "z[2] ~ Normal(0,1); observe y[1] ~ Normal(z[1],1); observe y[2] ~ Normal(z[2],1)"
    (tmp_path / "table.csv").write_text('"y[2]","y[1]"\n1,2\n3,4\n')
    for data in ("y=[2,1]", "y[1]=2,y[2]=1", "table.csv"):
        found = json.loads(say("check", "-", "--data", data, "--json", text=text)[1])
        assert found["scope"] == "data"
        assert found["latents"] == {"z[1]": "INFORMED", "z[2]": "INFORMED"}


def test_pooled_rows_share_their_latents(say, tmp_path):
    (tmp_path / "table.csv").write_text("x\n0\n0\n")
    text = "k ~ Bernoulli(1/2); observe x ~ Normal(select(k + 1, -1, 1), 1)"
    status, out, _ = say("check", "-", "--data", "table.csv", "--pooled", "--json", text=text)
    assert status == 0
    assert json.loads(out)["level"] == "CONSTANT"


# verify


@pytest.mark.parametrize(("w", "level"), [("0", "CONSTANT"), ("1", "GLOBAL")])
def test_verify_of_a_text_on_a_table(say, tmp_path, w, level):
    (tmp_path / "table.csv").write_text("x\n0.3\n-1.2\n2.5\n")
    status, out, _ = say("verify", "-", "--data", "table.csv", "--at", f"w={w}", "--json", text=LINEAR)
    found = json.loads(out)
    assert status == 0
    assert found["disagree"] == found["below_precision"] == found["undecided"] == 0
    assert found["agree"] == 8
    assert [row["level"] for row in found["rows"] if row["datum"] is None] == [level] * 2
    assert found["command"] == f"identkit verify - --data table.csv --at w={w} --json"
    kl = [row["kl"] for row in found["rows"] if row["datum"] and row["latent"] is None]
    exact = [0.0] * 3 if w == "0" else [(0.6931471805599453 - 0.5 + x**2 / 4) / 2 for x in (0.3, -1.2, 2.5)]
    assert kl == pytest.approx(exact, abs=1e-9)


def test_verify_leaves_missing_values_out(say, tmp_path):
    text = "z ~ Normal(0,1); observe x ~ Normal(z,1); observe y ~ Normal(z,1)"
    (tmp_path / "table.csv").write_text("x,y\n1,\n1,1\n")
    found = json.loads(say("verify", "-", "--data", "table.csv", "--json", text=text)[1])
    first, second = (row["kl"] for row in found["rows"] if row["datum"] and row["latent"] is None)
    # One observation leaves variance 1/2 and mean x/2, two leave 1/3 and (x + y)/3.
    assert first == pytest.approx((0.6931471805599453 - 0.5 + 1 / 4) / 2, abs=1e-9)
    assert second == pytest.approx((1.0986122886681098 - 2 / 3 + 4 / 9) / 2, abs=1e-9)


def test_verify_writes_a_folder(say, tmp_path):
    status, out, _ = say("verify", "-", "--data", "x=[0.5,1]", "--at", "w=1", "--out", "mine", text=LINEAR)
    assert status == 0
    assert "agrees" in out
    assert {file.name for file in (tmp_path / "mine").iterdir()} == {
        *("results.json", "report.html", "theorem.png", "agreement.png")
    }
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert results["disagree"] == 0
    page = (tmp_path / "mine" / "report.html").read_text()
    assert results["command"] in html.unescape(page)


def test_verify_of_a_zoo_name_draws_its_data_and_says_so(say):
    status, out, err = say("verify", "linear", "--json", "--seed", "3")
    found = json.loads(out)
    assert status == 0
    assert found["agree"] == len(found["rows"])
    assert "drawn from linear itself with seed 3" in err
    again = json.loads(say("verify", "linear", "--json", "--seed", "3")[1])
    assert again["rows"] == found["rows"]


def test_verify_of_the_suite(say, tmp_path, small, monkeypatch):
    monkeypatch.setattr(
        classical, "_drawings", lambda data: {"mixture_weight": lambda checks: classical._weight_figure(data)}
    )
    status, out, err = say("verify")
    folder = tmp_path / "results" / "classical"
    assert status == 0, out + err
    assert {file.name for file in folder.iterdir()} == {"results.json", "report.html", "mixture_weight.png"}
    results = json.loads((folder / "results.json").read_text())
    assert results["disagree"] == 0
    assert results["command"] == "identkit verify"
    assert "0 contradict it" in out
    assert "Mixture weight, single" in out


def test_interrupted_suite_keeps_what_was_computed(say, tmp_path, small, monkeypatch):
    confirmed = []

    def stop_at_the_third(*arguments, **options):
        if len(confirmed) == 2:
            raise KeyboardInterrupt
        confirmed.append(verify(*arguments, **options))
        return confirmed[-1]

    monkeypatch.setattr(classical, "verify", stop_at_the_third)
    status, _, err = say("verify", "--out", "here")
    assert status == 130
    assert "2 checks were done" in err
    kept = json.loads((tmp_path / "here" / "results.json").read_text())
    assert kept["complete"] is False
    assert len(kept["rows"]) == sum(len(check.rows) for check in confirmed)
    assert {file.name for file in (tmp_path / "here").iterdir()} == {"results.json"}


# verify can fail


def checker_calls_the_law_seen(monkeypatch):
    # The rows' own levels stay right: only the law's verdict is wrong.
    prove = declared.check

    def all_global(*arguments, **options):
        verdict = prove(*arguments, **options)
        return replace(verdict, level=Level.GLOBAL, latents=dict.fromkeys(verdict.latents, Level.GLOBAL))

    monkeypatch.setattr("identkit.theorem.declared.check", all_global)


def checker_calls_everything_seen(monkeypatch):
    def all_informed(self, rows):
        return OnRow(dict.fromkeys(self.model.latent_names, Level.INFORMED))

    checker_calls_the_law_seen(monkeypatch)
    monkeypatch.setattr(LikelihoodOnData, "on", all_informed)


def checker_calls_everything_constant(monkeypatch):
    def all_constant(self, rows):
        return OnRow(dict.fromkeys(self.model.latent_names, Level.CONSTANT))

    monkeypatch.setattr(LikelihoodOnData, "on", all_constant)


def mixture_returns_its_prior(monkeypatch):
    monkeypatch.setattr(
        GaussianMixture, "kl_to_prior", lambda self, x: torch.zeros(len(self._rows(x))).double()
    )


def posterior_returns_the_prior(monkeypatch):
    measure = declared.collapse

    def nothing_learnt(*arguments, **options):
        found = measure(*arguments, **options)
        return replace(
            found,
            kl=torch.zeros_like(found.kl),
            kl_per_latent=torch.zeros_like(found.kl_per_latent),
            kl_conditional=torch.zeros_like(found.kl_conditional),
        )

    monkeypatch.setattr("identkit.theorem.declared.collapse", nothing_learnt)


def band_is_halved(monkeypatch):
    bound = information.band

    def half(flatness):
        low, high, names = bound(flatness)
        return low / 2, high / 2, names

    monkeypatch.setattr("identkit.posterior.information.band", half)


def test_a_law_said_to_be_seen_is_not_confirmed_by_data_that_ignore_it(say, tmp_path, small, monkeypatch):
    say("verify", "--out", "sound")
    checker_calls_the_law_seen(monkeypatch)
    say("verify", "--out", "broken")
    sound, broken = (
        json.loads((tmp_path / name / "results.json").read_text())["below_precision"]
        for name in ("sound", "broken")
    )
    assert broken > sound


@pytest.mark.parametrize(
    "defect",
    [
        checker_calls_everything_seen,
        checker_calls_everything_constant,
        mixture_returns_its_prior,
        posterior_returns_the_prior,
        band_is_halved,
    ],
)
def test_suite_fails_on_a_planted_defect(say, tmp_path, small, monkeypatch, defect):
    defect(monkeypatch)
    status, out, _ = say("verify", "--out", "broken")
    assert status == 1
    assert "FAILS" in out
    results = json.loads((tmp_path / "broken" / "results.json").read_text())
    assert results["disagree"] > 0
    assert any(row["agrees"] is False for row in results["rows"])


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("linear-collapsed", checker_calls_everything_seen),
        ("linear", checker_calls_everything_constant),
        ("gmm-distinct", mixture_returns_its_prior),
        ("linear", posterior_returns_the_prior),
        ("linear-weak", band_is_halved),
    ],
)
def test_verify_of_a_model_fails_on_a_planted_defect(say, monkeypatch, name, defect):
    monkeypatch.setattr("identkit.cli.asked.DRAWN", 4)
    assert say("verify", name)[0] == 0
    defect(monkeypatch)
    status, out, _ = say("verify", name)
    assert status == 1
    assert "counterexample" in out


# Bad input: status 2, one line on standard error, nothing on standard output


TABLES = {
    "good.csv": "x\n1\n",
    "empty.csv": "",
    "header.csv": "x\n",
    "missing.csv": "y\n1\n",
    "unknown.csv": "x,id\n1,2\n",
    "twice.csv": "x,x\n1,2\n",
    "nan.csv": "x\n1\nNaN\n",
    "words.csv": "x\n1\nhigh\n",
    "ragged.csv": "x\n1\n2,3\n",
    "gap.csv": 'x\n" "\n',
    "counts.csv": "x\n0.5\n",
    "quote.csv": 'x\n"1\n',
}
COIN = "z ~ Normal(0,1); observe x ~ Bernoulli(sigmoid(z))"
BAD_INPUT = {
    "unknown name in --at": (["check", "-", "--at", "v=0"], LINEAR, "at names 'v', which is none of: w"),
    "--at without a value": (["check", "-", "--at", "w"], LINEAR, "--at should be of the form w=[1,0],s=1/2"),
    "--at with NaN": (["check", "-", "--at", "w=nan"], LINEAR, "--at"),
    "--at twice": (["check", "-", "--at", "w=1,w=2"], LINEAR, "w has a value already"),
    "--at of another length": (["check", "-", "--at", "w=[1,2]"], LINEAR, "w"),
    "--at outside its domain": (
        ["check", "-", "--at", "s=-1"],
        "z ~ Normal(0,1); observe x ~ Normal(z,s)",
        "at for s should be positive, got -1",
    ),
    "parameter without a value": (
        ["verify", "-", "--data", "x=1"],
        LINEAR,
        "every parameter needs a value; missing: w",
    ),
    "verify without data": (["verify", "-", "--at", "w=1"], LINEAR, "--data should be given"),
    "scale that is not positive": (["check", "-"], "z ~ Normal(0,1); observe x ~ Normal(z,0)", "positive"),
    "scale that is negative": (["check", "-"], "z ~ Normal(0,1); observe x ~ Normal(z,-2)", "positive"),
    "weights that don't sum to one": (
        ["check", "-"],
        "k ~ Categorical(1/2,1/3); observe x ~ Normal(k,1)",
        "sum to",
    ),
    "mixture weights": (
        ["check", "-"],
        "z ~ Normal(0,1); observe x ~ Mixture([1/2,1/3], Normal(z,1), Normal(0,1))",
        "sum to",
    ),
    "syntax error": (
        ["check", "-"],
        "z ~ Normal(0,1)\nobserve x ~ Normal(z 1)",
        "line 2, column 22: expected",
    ),
    "unknown family": (["check", "-"], "z ~ Norml(0,1)", "line 1, column 5"),
    "empty text": (["check", "-"], " \n", "the model is empty"),
    "no latents": (["check", "-"], "observe x ~ Normal(0,1)", "to ask about"),
    "no observations": (["check", "-"], "z ~ Normal(0,1)", "no observations"),
    "misspelt zoo name": (["check", "mixture-equa"], "", "did you mean mixture-equal"),
    "a text as MODEL": (["check", LINEAR], "", "to check a text, pipe it"),
    "a very long text as MODEL": (["check", f"{LINEAR}; " * 99], "", "to check a text, pipe it"),
    "model file that is not there": (
        ["check", "nowhere.model"],
        "",
        "nowhere.model: No such file or directory",
    ),
    "model file that is no text": (
        ["check", "binary.model"],
        "",
        "binary.model should be a text file in UTF-8",
    ),
    "a folder as MODEL": (["check", "."], "", "neither a file nor a name"),
    "unknown question": (["check", "-", "--about", "weather"], LINEAR, "got 'weather'"),
    "--pooled without data": (["check", "-", "--pooled"], LINEAR, "pooled"),
    "table that is not there": (
        ["check", "-", "--data", "nowhere.csv"],
        LINEAR,
        "nowhere.csv: No such file or directory",
    ),
    "neither a table nor values": (
        ["check", "-", "--data", "nowhere"],
        LINEAR,
        "a CSV file or values such as x=1.2",
    ),
    "incomplete values": (["check", "-", "--data", "y=1"], LINEAR, "data names 'y', which is none of: x"),
    "value outside the support": (["check", "-", "--data", "x=2"], COIN, "support of Bernoulli"),
    "value outside the support, verify": (["verify", "-", "--data", "counts.csv"], COIN, "0 or 1"),
    "table without a line": (
        ["check", "-", "--data", "empty.csv"],
        LINEAR,
        "empty.csv should start with a line of names",
    ),
    "table without a row": (["check", "-", "--data", "header.csv"], LINEAR, "at least one row"),
    "missing column": (
        ["check", "-", "--data", "missing.csv"],
        LINEAR,
        "should have the columns x; missing: x",
    ),
    "unknown column": (["verify", "-", "--at", "w=1", "--data", "unknown.csv"], LINEAR, "unknown: id"),
    "repeated column": (["check", "-", "--data", "twice.csv"], LINEAR, "repeated: x"),
    "NaN in a table": (
        ["check", "-", "--data", "nan.csv"],
        LINEAR,
        "row 2, column x should hold a finite number, got 'NaN'",
    ),
    "words in a table": (["verify", "-", "--at", "w=1", "--data", "words.csv"], LINEAR, "row 2, column x"),
    "row of another length": (
        ["check", "-", "--data", "ragged.csv"],
        LINEAR,
        "row 2 should have 1 cells, got 2",
    ),
    "empty cell in a proof": (["check", "-", "--data", "gap.csv"], LINEAR, "row 1, column x is empty"),
    "open quotation": (["check", "-", "--data", "quote.csv"], LINEAR, "quote.csv should be a CSV file"),
    "table that is no text": (
        ["check", "-", "--data", "binary.csv"],
        LINEAR,
        "binary.csv should be a text file in UTF-8",
    ),
    "unknown suite": (
        ["verify", "--suite", "deepest"],
        "",
        "suite should be one of classical, deep, all, got 'deepest'",
    ),
    "suite and model": (["verify", "-", "--suite", "classical"], LINEAR, "not both"),
    "data without model": (["verify", "--data", "good.csv"], "", "--data should stand beside a MODEL"),
    "folder that cannot be made": (["verify", "--out", "good.csv/results"], "", "good.csv"),
    "unknown command": (["chekc"], "", "No such command"),
    "unknown option": (["check", "-", "--att", "w=0"], LINEAR, "--att"),
    "no MODEL": (["check"], "", "MODEL"),
    "seed that is no number": (["verify", "--seed", "one"], "", "seed"),
    "unknown zoo entry": (["zoo", "xorr"], "", "did you mean xor"),
}


@pytest.mark.parametrize(("arguments", "text", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_one_line_and_status_2(say, tmp_path, arguments, text, message):
    for name, content in TABLES.items():
        (tmp_path / name).write_text(content)
    for name in ("binary.csv", "binary.model"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00x")
    status, out, err = say(*arguments, text=text)
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


# zoo, version, the process


def test_zoo_lists_every_name(say):
    status, out, _ = say("zoo")
    assert status == 0
    for name, case in CASES.items():
        assert any(name in line and case.level in line for line in out.splitlines())


@pytest.mark.parametrize("name", ["xor", "hidden-markov", "gmm-crossed-datum", "ppca"])
def test_zoo_shows_an_entry(say, name):
    case = CASES[name]
    status, out, _ = say("zoo", name)
    assert status == 0
    assert case.source in out
    assert case.note in out
    assert "observe" in out
    for latent, level in case.levels.items():
        assert f"{latent}  {level}" in out


def test_version(say):
    assert say("--version")[:2] == (0, f"identkit {identkit.__version__}\n")


def test_without_arguments_it_helps(say):
    status, out, _ = say()
    assert status == 0
    assert all(command in out for command in ("check", "verify", "zoo"))


def command(*arguments, **options):
    root = str(Path(identkit.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.Popen(  # a context manager: it closes the pipes
        [sys.executable, "-m", "identkit", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def output(process):
    assert process.stdout is not None
    return process.stdout


def errors(process):
    assert process.stderr is not None
    return process.stderr


DECLARED = """
import identkit as ik

line = ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)")
mixture = ik.GaussianMixture([0.5, 0.5], [[0.0], [0.0]], [[[1.0]], [[1.0]]])

def built():
    model = ik.Model("built")
    z = model.latent("z", ik.Normal(0, 1))
    model.observe("x", ik.Normal(z**2, 1))
    return model

def broken():
    return 1 / 0
"""


@pytest.mark.parametrize(("name", "level"), [("line", "GLOBAL"), ("mixture", "CONSTANT"), ("built", "LOCAL")])
def test_a_model_declared_in_a_python_file(say, name, level):
    Path("own.py").write_text(DECLARED)
    status, out, _ = say("check", f"own.py:{name}", "--json")
    assert (status, json.loads(out)["level"]) == (0, level)


@pytest.mark.parametrize(
    ("source", "phrase"),
    [
        ("own.py:nothing", "should define 'nothing'; it defines"),
        ("own.py:ik", "should be a Model"),
        ("own.py:broken", "own.py, line 14: ZeroDivisionError: division by zero"),
        ("own.py", "own.py:model"),
        ("other.py:line", "there is none"),
    ],
)
def test_a_python_file_that_does_not_help_is_refused(say, source, phrase):
    Path("own.py").write_text(DECLARED)
    status, out, err = say("check", source)
    assert (status, out) == (2, "")
    assert phrase in err and "Traceback" not in err


def test_reader_who_leaves_early_is_no_error():
    with command("zoo") as process:
        output(process).close()
        complaint = errors(process).read()
    assert complaint == ""
    assert process.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_status_130(tmp_path):
    with command("verify", "--out", "here", cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "here").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        complaint = errors(process).read()
    # Where an import of a C extension was cut short, CPython ends by the signal itself: a shell calls both 130.
    assert process.returncode in (130, -signal.SIGINT), complaint
    assert "interrupted" in complaint
    assert "Traceback" not in complaint


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts address space as Linux does")
def test_check_answers_within_a_limit_of_memory_set_by_others():
    """As under `ulimit -v`: a limit that cannot be raised is kept, not asked for again and refused."""
    program = (
        "import resource, sys; from identkit.cli import main; "
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29)); sys.exit(main(['check', '-', '--at', 'w=0']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], input=LINEAR, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "CONSTANT" in ended.stdout


NETWORK = """
import torch, torch.distributions as td
from torch import nn

class Autoencoder(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        torch.manual_seed(0)
        self.prior = td.Normal(torch.zeros(2), torch.ones(2))
        self.decoder = nn.Linear(2, outputs)

    def likelihood(self, f):
        return td.Normal(f, 0.1)

wide, narrow = Autoencoder(3), Autoencoder(1)

class Density:
    prior = td.Normal(torch.zeros(2), torch.ones(2))

    def log_likelihood(self, x, z):
        return -((x[:, 0] - z[:, 0]) ** 2)

density = Density()
broken = Autoencoder(3)
broken.decoder.weight.data[0, 0] = float("nan")
"""


@pytest.mark.parametrize(("name", "level"), [("wide", "GLOBAL"), ("narrow", "PARTIAL")])
def test_check_a_network_from_a_file(say, tmp_path, name, level):
    (tmp_path / "net.py").write_text(NETWORK)
    status, out, _ = say("check", f"net.py:{name}", "--json")
    found = json.loads(out)
    assert status == 0 and found["level"] == level and found["method"] == "numeric"
    assert found["certificate"]["verified"] is True


def test_check_a_density_from_a_file_on_a_table(say, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "x.csv").write_text("x\n1.5\n-0.5\n")
    status, out, _ = say("check", "net.py:density", "--data", "x.csv", "--json")
    assert status == 0 and json.loads(out)["latents"] == {"z[1]": "INFORMED", "z[2]": "CONSTANT"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py:wide", "--at", "w=1"), "--at goes with a model that has symbols"),
        (("net.py:wide", "--about", "joint"), "--about goes with a model that has symbols"),
        (("net.py:density",), "x should be given"),
        (("net.py:broken",), "should be finite|satisfy the constraint"),
    ],
)
def test_networks_that_cannot_be_checked_say_why_in_one_line(say, tmp_path, arguments, message):
    (tmp_path / "net.py").write_text(NETWORK)
    status, out, err = say("check", *arguments)
    lines = [line for line in err.splitlines() if not line.startswith("warning")]
    assert status == 2 and out == "" and re.search(message, err) and len(lines) == 1

"""`identkit train` and `identkit diagnose`, as a user meets them: what they leave behind, and what they refuse and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from identkit.cli import main
from identkit.lidvae import loop
from identkit.lidvae.run import load

SMALL = ("--steps", "4", "--batch-size", "16", "--seeds", "1")
PINWHEEL = ("--data", "pinwheel", "--data-options", "n=100", *SMALL)
NARROW = ("--model-options", "hidden=[4,4],encoder_hidden=[4]")


@pytest.fixture
def say(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; give status, output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str):
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def tables(folder: Path) -> None:
    """A small file of every kind."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] += 2 * x[:, 0]
    rows = [f"{a:.4f},{b:.4f},{c:.4f},{'ab'[i % 2]}" for i, (a, b, c) in enumerate(x.tolist())]
    (folder / "mine.csv").write_text("u,v,w,kind\n" + "\n".join(rows) + "\n")
    (folder / "counts.csv").write_text("\n".join(f"{i % 4},{i % 3}" for i in range(60)) + "\n")
    (folder / "rhyme.txt").write_text("row row row your boat gently down the stream\n" * 20)
    (folder / "constant.csv").write_text("\n".join(f"{i},7" for i in range(40)))
    (folder / "gap.csv").write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(40)) + "\n1,nan\n")
    (folder / "few.csv").write_text("1,2\n3,5\n")


def test_train_writes_a_whole_run_and_says_what_it_found(say, tmp_path):
    status, out, err = say("train", *PINWHEEL, *NARROW, "--seeds", "2", "--out", "runs/a")
    assert status == 0
    folder = tmp_path / "runs" / "a"
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "curves.json", "metrics.json", "weights.safetensors"),
        *("curves.png", "active_units.png", "latent_grid.png", "samples.png", "reconstructions.png"),
    }
    assert err.startswith("lidvae on Dataset('pinwheel', n=100")
    for word in (
        "seed 1",
        "seed 2",
        "log p(x)",
        "I(z; x)",
        "active",
        "floor",
        "GLOBAL",
        "at most log n = 2.30",
    ):
        assert word in out, word
    run = load(folder)
    assert run.steps == 4
    assert run.data.n == 100
    assert sum(each.verdict == "GLOBAL" for each in run.metrics) == 1  # the best was checked
    assert run.metrics[run.best_number].verdict == "GLOBAL"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, out, err = say("train", *PINWHEEL, "--out", "runs/a")
    assert (status, out) == (2, "")
    assert "exists already, and nothing is overwritten" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_json_is_one_object(say):
    status, out, err = say("train", *PINWHEEL, *NARROW, "--json", "--no-figures", "--model", "vae")
    found = json.loads(out)
    assert status == 0
    assert len(err.splitlines()) == 1
    assert found["folder"] == "runs/vae-pinwheel"
    assert found["about"]["model"] == "vae"
    assert found["metrics"][0]["lower"] is None
    assert found["figures"] == []


def test_the_seed_decides_everything(say, tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        say("train", *PINWHEEL, *NARROW, "--seed", seed, "--no-figures", "--out", name)
    a, b, c = (list(load(tmp_path / name).model.state_dict().values()) for name in "abc")
    assert all(torch.equal(one, two) for one, two in zip(a, b, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(a, c, strict=True))


KINDS = {
    "vae": ("--data", "mine.csv", "--data-options", "label=kind,standardise=true", "--latents", "1"),
    "lidvae": ("--data", "counts.csv", "--likelihood", "poisson"),
    "gmvae": ("--data", "pinwheel", "--data-options", "n=100", "--model-options", "components=3"),
    "lidmvae": ("--data", "mine.csv", "--data-options", "label=kind", "--sigma", "0.5"),
    "sequence": ("--data", "rhyme.txt", "--data-options", "length=9"),
    "lidsvae": ("--data", "markov", "--data-options", "n=60,length=4,vocabulary=6"),
}


@pytest.mark.parametrize("model", KINDS)
def test_every_model_goes_all_the_way(say, tmp_path, model):
    """Trained, measured, drawn, read again, and diagnosed on its own test rows."""
    tables(tmp_path)
    status, out, err = say("train", "--model", model, *KINDS[model], *SMALL, "--out", "run")
    assert (status, "error" in err) == (0, False), err
    expected = {"lidvae": "GLOBAL", "lidmvae": "GLOBAL", "lidsvae": "GLOBAL"}.get(model)
    found = load(tmp_path / "run").metrics[0]
    if expected is None:
        assert found.verdict != "GLOBAL"
        assert found.lower is None
    else:
        assert found.verdict == expected
        assert found.lower is not None
        assert found.lower > 0
    assert (found.states is not None) == ("mvae" in model)
    assert len(list((tmp_path / "run").glob("*.png"))) == 5
    if model == "lidmvae":
        assert "ARI" in out


def test_interrupted_and_resumed_is_as_if_never_interrupted(say, tmp_path, monkeypatch):
    arguments = ("train", *PINWHEEL, *NARROW, "--no-figures", "--steps", "8")
    say(*arguments, "--out", "whole")
    real = loop.Training._one_step

    def stop(self):
        real(self)
        if self.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Training, "_one_step", stop)
    status, out, err = say(*arguments, "--out", "cut")
    assert (status, out) == (130, "")
    assert "identkit train --resume --out cut goes on from here" in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for words, more in (
        ("--resume goes on with it", (*PINWHEEL,)),
        ("--steps was 8 when", ("--resume", "--steps", "9")),
        ("--beta was not given when", ("--resume", "--beta", "2")),
    ):
        status, _, err = say("train", *more, "--out", "cut")
        assert status == 2
        assert words in err
    status, _, err = say("diagnose", "cut")
    assert status == 2
    assert "interrupted" in err
    assert say("train", "--resume", "--out", "cut", "--no-figures")[0] == 0
    whole, cut = (list(load(tmp_path / name).model.state_dict().values()) for name in ("whole", "cut"))
    assert all(torch.equal(one, two) for one, two in zip(whole, cut, strict=True))
    assert not (tmp_path / "cut" / "checkpoint").exists()
    status, _, err = say("train", "--resume", "--out", "cut")
    assert (status, "nothing to resume" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--data should name data (pinwheel,"),
        (("--data", "pinwheell"), "did you mean pinwheel"),
        (("--data", "nope.csv"), "nope.csv should be a file"),
        (("--data", "constant.csv"), "constant columns: x[2]"),
        (("--data", "gap.csv"), "row 41, column b should be a finite number"),
        (("--data", "few.csv"), "at least 10 rows"),
        (("--data", "mine.csv"), "column kind should hold a number"),
        (("--data", "counts.csv", "--likelihood", "bernoulli"), "within [0, 1]"),
        (("--data", "mine.csv", "--data-options", "label=sort"), "label should be one of the columns"),
        (("--data", "pinwheel", "--data-options", "rows=3"), "takes the options n, seed"),
        (("--data", "pinwheel", "--data-options", "n"), "--data-options should be settings"),
        (("--data", "pinwheel", "--likelihood", "poisson"), "for a Poisson likelihood"),
        (("--data", "pinwheel", "--likelihood", "cauchy"), "likelihood should be one of"),
        (("--data", "pinwheel", "--model", "gan"), "--model should be one of lidvae, vae"),
        (("--data", "pinwheel", "--model", "lidsvae"), "goes with sequences of states"),
        (("--data", "pinwheel", "--latents", "3"), "latents should be at most 2"),
        (("--data", "pinwheel", "--sigma", "small"), "--sigma should be a number or learned"),
        (("--data", "pinwheel", "--sigma", "0"), "sigma should be positive"),
        (("--data", "digits", "--sigma", "1"), "--sigma goes with a gaussian likelihood"),
        (("--data", "pinwheel", "--min-information", "1"), "give a number for --sigma too"),
        (
            ("--data", "pinwheel", "--min-information", "1", "--sigma", "1", "--model", "vae"),
            "--min-information goes with lidvae",
        ),
        (("--data", "pinwheel", "--model-options", "depth=3"), "--model-options of lidvae are map"),
        (
            ("--data", "pinwheel", "--model-options", "hidden=[0,1]"),
            "hidden should be whole numbers of at least 1",
        ),
        (("--data", "pinwheel", "--objective", "gan"), "--objective should be one of elbo, beta"),
        (("--data", "pinwheel", "--objective-options", "nats=1"), "--objective-options of elbo are samples"),
        (("--data", "pinwheel", "--beta", "1", "--objective", "elbo"), "--beta goes with --objective beta"),
        (("--data", "pinwheel", "--beta", "-1"), "beta should be finite and not negative"),
        (("--data", "pinwheel", "--epochs", "1", "--steps", "1"), "--epochs or --steps, not both"),
        (("--data", "pinwheel", "--batch-size", "8001"), "at least 8001 rows for one batch"),
        (("--data", "pinwheel", "--learning-rate", "0"), "learning_rate should be a positive number"),
        (("--data", "pinwheel", "--device", "abacus"), "device should be one that torch finds"),
        (("--resume",), "--resume should stand beside the --out"),
        (("--resume", "--out", "nothing"), "nothing holds no interrupted run"),
    ],
)
def test_refused_in_one_line_and_nothing_is_left(say, tmp_path, arguments, words):
    tables(tmp_path)
    status, out, err = say(
        "train",
        *arguments,
        *(() if "--out" in arguments or "--resume" in arguments else ("--out", "runs/bad")),
    )
    assert (status, out) == (2, "")
    assert words in err
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_members_all_diverge_is_kept_and_said(say, tmp_path):
    status, out, err = say(
        "train", *PINWHEEL, *NARROW, "--learning-rate", "1e30", "--steps", "20", "--out", "wild"
    )
    assert status == 1
    assert "warning: seed 1 stopped: its" in err
    assert "diverged" in out
    assert load(tmp_path / "wild").stopped[0] is not None
    status, _, err = say("diagnose", "wild")
    assert (status, "no member was trained to the end" in err) == (2, True)


# diagnose and check


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run on a standardised table, and the tables beside it."""
    folder = tmp_path_factory.mktemp("trained")
    tables(folder)
    data = ("--data", str(folder / "mine.csv"), "--data-options", "label=kind,standardise=true")
    arguments = (*data, *SMALL, "--latents", "1", "--sigma", "0.5", "--no-figures", *NARROW)
    assert main(["train", *arguments, "--seeds", "2", "--out", str(folder / "run")]) == 0
    return folder


def test_diagnose_says_writes_and_draws(say, trained):
    status, out, err = say("diagnose", str(trained / "run"), "--rows", "3")
    assert (status, err) == (0, "")
    assert "LIDVAE, on 3 of 6 data" in out
    assert "z[1] " in out
    folder = trained / "run" / "diagnosis"
    assert {path.name for path in folder.iterdir()} == {"diagnosis.json", "diagnosis.png"}
    status, out, _ = say("diagnose", str(trained / "run"), "--rows", "3", "--json", "--out", "else")
    assert json.loads(out) == json.loads(Path("else/diagnosis.json").read_text())
    assert json.loads(out)["used"] == 3
    assert load(trained / "run").steps == 4  # the run is still a run


def test_diagnose_on_other_data_brings_them_to_the_runs_scale(say, trained):
    """The same table, given as a file: all its rows, and of these the same numbers as in Python."""
    from identkit.cli.diagnosing import question

    run = load(trained / "run")
    asked = question(trained / "run", str(trained / "mine.csv"), None)
    own = torch.cat((run.data.train, run.data.validation, run.data.test))
    assert torch.allclose(asked.x, own, atol=1e-5)
    second = question(trained / "run", None, 2)
    assert (second.name, torch.equal(second.x, run.data.test)) == ("seed 2", True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nope",), "there is no config.json"),
        (("run", "--member", "3"), "--member should be one of 1, …, 2"),
        (("run", "--data", "counts.csv"), "label should be one of the columns"),
        (("run", "--data", "pinwheel"), "should have the 3 columns of the run, got 2"),
        (("run", "--data", "nope.csv"), "should be a file"),
    ],
)
def test_diagnose_refuses_in_one_line(say, trained, monkeypatch, arguments, words):
    monkeypatch.chdir(trained)
    before = sorted(trained.rglob("*"))
    status, out, err = say("diagnose", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert sorted(trained.rglob("*")) == before


def test_diagnose_without_the_data_says_so(say, trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "copy")
    config = tmp_path / "copy" / "config.json"
    facts = json.loads(config.read_text())
    facts["about"]["recipe"]["source"] = "/gone/mine.csv"
    config.write_text(json.dumps(facts))
    status, _, err = say("diagnose", str(tmp_path / "copy"))
    assert status == 2
    assert "/gone/mine.csv should be a file" in err


def test_check_takes_a_run(say, trained):
    status, out, _ = say("check", str(trained / "run"))
    assert status == 0
    assert out.startswith("GLOBAL")
    assert "Certificate: verified" in out

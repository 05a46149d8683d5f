"""A run's folder: what is written is what is read, nothing is overwritten, nothing is executed, others' data are refused."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from identkit.dispatch import check
from identkit.lidvae.datasets import Dataset, load as load_data, pinwheel
from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.objectives import ELBO, BetaVAE, Objective
from identkit.lidvae.run import Run, load
from identkit.lidvae.training import fit


def trained(model=None, data: Dataset | None = None, **options) -> Run:
    model = model or LIDVAE(2, 2, sigma=[1.0, 0.2], hidden=(4, 4), encoder_hidden=(4,), members=2)
    data = data or load_data("pinwheel", n=100)
    return fit(
        model, data, **{"steps": 4, "seeds": 2, "batch_size": 20, "objective": BetaVAE(beta=0.3), **options}
    )


@pytest.fixture(scope="module")
def run() -> Run:
    return trained()


@pytest.fixture
def folder(run, tmp_path) -> Path:
    run.save(tmp_path / "new" / "run")
    return tmp_path / "new" / "run"


def test_what_is_written_is_what_is_read(run, folder):
    found = load(folder)
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "curves.json", "metrics.json", "weights.safetensors"),
    }
    before, after = run.model.state_dict(), found.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (found.metrics, found.names, found.best_number) == (run.metrics, run.names, run.best_number)
    assert (found.objective, found.steps, found.stopped) == (run.objective, run.steps, run.stopped)
    assert all(torch.equal(found.curves[name], run.curves[name]) for name in run.curves)
    assert found.data.fingerprint() == run.data.fingerprint()
    x = run.data.test
    assert torch.equal(found.best.encode(x).mean, run.best.encode(x).mean)
    assert check(found.best).level.value == "GLOBAL"


def test_a_folder_that_holds_something_is_refused(run, folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for place in (folder, tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
        with pytest.raises(ValueError, match="nothing is overwritten"):
            run.save(place)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "training" / "checkpoint").mkdir(parents=True)
    run.save(tmp_path / "training")  # its own checkpoint is no obstacle
    assert load(tmp_path / "training").steps == run.steps


def test_members_that_diverged_are_kept_apart(run, tmp_path):
    lame = replace(run, stopped=(None, "its loss was not finite", None, None), measured=run.metrics)
    validation = run.curves["validation"].clone()
    validation[-1] = torch.tensor([-3.0, 9.0, -2.0, -4.0])
    lame = replace(lame, curves={**run.curves, "validation": validation})
    assert lame.best_number == 2
    lame.save(tmp_path / "lame")
    assert load(tmp_path / "lame").best_number == 2
    dead = replace(lame, stopped=("its loss was not finite",) * 4)
    with pytest.raises(ValueError, match="no member was trained to the end: setting 1, seed 1: its loss"):
        dead.best  # noqa: B018
    nan = replace(run, measured=run.metrics, curves={**run.curves, "validation": validation * torch.nan})
    nan.save(tmp_path / "nan")
    assert load(tmp_path / "nan").curves["validation"].isnan().all()


def test_a_custom_module_is_passed_again(tmp_path):
    own = trained(VAE(2, 1, encoder=nn.Linear(2, 2), hidden=(4,)), objective=None)
    own.save(tmp_path / "own")
    with pytest.raises(ValueError, match=r"an encoder of its own, Linear: pass encoder="):
        load(tmp_path / "own")
    found = load(tmp_path / "own", encoder=nn.Linear(2, 2))
    assert torch.equal(found.best.encode(own.data.test).mean, own.best.encode(own.data.test).mean)
    with pytest.raises(ValueError, match="no decoder of its own"):
        load(tmp_path / "own", encoder=nn.Linear(2, 2), decoder=nn.Linear(1, 2))
    with pytest.raises(ValueError, match="weights"):
        load(tmp_path / "own", encoder=nn.Linear(2, 2, bias=False))


class Mine(Objective):
    """An objective of one's own."""

    def loss(self, model, x, progress, generator=None):
        return -model.terms(x, model.infer(x), 1, generator).elbo().mean(-1)


def test_an_objective_of_ones_own_is_passed_again(tmp_path):
    trained(objective=Mine(samples=1)).save(tmp_path / "mine")
    with pytest.raises(ValueError, match="Mine, which is not of identkit: pass objective="):
        load(tmp_path / "mine")
    assert load(tmp_path / "mine", objective=Mine()).objective == Mine()


def test_data_come_back_by_their_recipe_or_are_asked_for(run, folder, tmp_path):
    with pytest.raises(ValueError, match="those that the run was trained on"):
        load(folder, data=pinwheel(110))
    with pytest.raises(ValueError, match="with hash"):
        load(folder, data=pinwheel(100, seed=5))
    assert load(folder, data=run.data).data is run.data
    loose = trained(data=pinwheel(100))
    loose.save(tmp_path / "loose")
    with pytest.raises(ValueError, match="does not say how to load its data, pinwheel: pass them as data="):
        load(tmp_path / "loose").data  # noqa: B018


def test_a_file_that_changed_is_refused(tmp_path, monkeypatch):
    table = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "mine.csv"

    def write(rows: torch.Tensor) -> None:
        path.write_text("\n".join(f"{a},{b}" for a, b in rows.tolist()))

    write(table)
    monkeypatch.chdir(tmp_path)
    run = trained(data=load_data("mine.csv", standardise=True), batch_size=8)
    run.save(tmp_path / "run")
    monkeypatch.chdir("/")  # the recipe holds the whole path
    again = load(tmp_path / "run").data
    assert torch.equal(again.test, run.data.test)
    table[3, 1] += 1e-3
    write(table)
    with pytest.raises(ValueError, match="those that the run was trained on"):
        load(tmp_path / "run").data  # noqa: B018
    path.unlink()
    with pytest.raises(ValueError, match=r"mine\.csv should be a file"):
        load(tmp_path / "run").data  # noqa: B018


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "should hold JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "JSON object"),
        (lambda folder: (folder / "config.json").write_text("{}"), "'about' is missing"),
        (lambda folder: (folder / "curves.json").unlink(), r"curves\.json"),
        (lambda folder: (folder / "weights.safetensors").unlink(), r"weights\.safetensors"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"\x80\x04pickle"), "weights"),
        (lambda folder: _change(folder, "model", "gan"), "'gan'; known are"),
        (lambda folder: _change(folder, "settings", {"data_dim": 3}), "config.json's model|size"),
    ],
)
def test_a_broken_folder_is_refused(folder, spoil, words):
    spoil(folder)
    with pytest.raises(ValueError, match=words):
        load(folder)


def _change(folder: Path, name: str, value) -> None:
    facts = json.loads((folder / "config.json").read_text())
    facts["about"][name] = {**facts["about"][name], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(facts))


def test_a_folder_of_an_interrupted_run_says_so(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(ValueError, match="was interrupted"):
        load(tmp_path)


# data by name


def test_data_by_name_are_those_of_their_loader(monkeypatch):
    assert torch.equal(load_data("pinwheel", n=50, seed=3).train, pinwheel(50, 3).train)
    assert load_data("two_moons", n=50).recipe == {"source": "two_moons", "n": 50}
    digits, grey = load_data("digits"), load_data("digits", binarise=False)
    assert digits.fresh and set(digits.test.unique().tolist()) == {0.0, 1.0}
    assert not grey.fresh and len(grey.test.unique()) > 2
    assert torch.equal(load_data("digits").test, digits.test)  # drawn once for ever
    assert load_data("markov", n=20, length=4).train.shape == (16, 4)


def test_data_that_are_refused(tmp_path):
    (tmp_path / "a.png").write_text("")
    for source, options, words in (
        ("pinwheell", {}, "did you mean pinwheel"),
        ("nonsense", {}, "names are pinwheel, two-moons"),
        ("missing.csv", {}, "there is none"),
        (str(tmp_path / "a.png"), {}, "unknown kind"),
        (str(tmp_path), {}, "neither a name nor a file"),
        ("pinwheel", {"length": 3}, "takes the options n, seed, arms.* got 'length'"),
        ("pinwheel", {"binarise": True}, "Bernoulli to be binarised"),
    ):
        with pytest.raises(ValueError, match=words):
            load_data(source, **options)


# interrupted


@dataclass(frozen=True, kw_only=True)
class Interrupting(ELBO):
    """Presses Ctrl-C within a step."""

    at: int = 3
    done: list[int] = field(default_factory=list)

    def loss(self, model, x, progress, generator=None):
        self.done.append(1)
        found = super().loss(model, x, progress, generator)
        if len(self.done) == self.at:
            signal.raise_signal(signal.SIGINT)
        return found


@pytest.fixture
def listening() -> Iterator[None]:
    """A shell's background jobs, as this one may be, begin with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_within_a_step_waits_for_its_end(tmp_path):
    """The resumed run has the weights of one that nobody interrupted, to the bit; and the handler is put back."""
    before = signal.getsignal(signal.SIGINT)
    options: dict[str, Any] = {"steps": 8, "seeds": 1}
    whole = trained(objective=ELBO(), **options)
    with pytest.raises(KeyboardInterrupt):
        trained(objective=Interrupting(), checkpoint=tmp_path, **options)
    assert signal.getsignal(signal.SIGINT) is before
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["step"] == 3
    facts["about"]["objective"] = {"name": "ELBO", "samples": 1}
    (tmp_path / "training.json").write_text(json.dumps(facts))
    again = trained(objective=ELBO(), checkpoint=tmp_path, resume=True, **options)
    assert all(torch.equal(a, b) for a, b in zip(*map(_weights, (whole, again)), strict=True))


def _weights(run: Run):
    return list(run.model.state_dict().values())

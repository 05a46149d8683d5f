"""`fit`: reaches what theory says can be reached, members stop alone, and a broken run goes on as if it had not been."""

from __future__ import annotations

import copy
import itertools
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import identkit as ik
from identkit.lidvae import checkpoints
from identkit.lidvae.datasets import Dataset, from_rows, pinwheel
from identkit.lidvae.loop import Progress
from identkit.lidvae.members import member, stack
from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.objectives import ELBO, BetaVAE, Lagging, Objective, SemiAmortised
from identkit.lidvae.optimiser import SCHEDULES, MemberAdam
from identkit.lidvae.training import fit
from tests.map_examples import generator, normal


@pytest.fixture(scope="module")
def plane() -> Dataset:
    return pinwheel(600)


def small(kind: Any = LIDVAE, **more: Any) -> Any:
    return kind(2, 2, hidden=(8, 8), encoder_hidden=(8,), sigma=0.5, **more)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


# --- it reaches what can be reached --------------------------------------------------------------------------


def test_a_linear_autoencoder_reaches_the_maximum_likelihood_of_ppca() -> None:
    """Lucas et al. 2019: a linear VAE with learned noise has PPCA's optimum, and its ELBO is tight there."""
    mixing = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 0.8], [0.5, -0.5]], dtype=torch.float64)
    rows = normal(4000, 2) @ mixing.mT + 0.5 * normal(4000, 4, seed=1)
    data = from_rows(rows, "gaussian", name="linear")
    with torch.random.fork_rng():
        torch.manual_seed(1)  # from one start in ten a plateau takes more steps than these
        own: dict[str, Any] = {"encoder": nn.Linear(4, 4), "decoder": nn.Linear(2, 4)}
    model = VAE(4, 2, sigma="learned", **own, seed=1)
    run = fit(model, data, steps=1500, learning_rate=0.03, batch_size=400)
    best = ik.PPCA.fit(data.train.double(), 2)
    for metrics in run.metrics:
        truth = float(best.log_evidence(data.test.double()).mean())
        assert metrics.log_likelihood == pytest.approx(truth, abs=0.03)
        assert metrics.elbo == pytest.approx(truth, abs=0.05)
        assert metrics.total_kl == pytest.approx(float(best.kl_to_prior(data.test.double()).mean()), abs=0.25)


def test_training_raises_the_elbo_of_every_member_and_leaves_the_model(plane: Dataset) -> None:
    model = small()
    before = copy.deepcopy(model)
    run = fit(model, plane, epochs=10, seeds=3, learning_rate=1e-2)
    assert same(model, before)
    first, last = run.curves["validation"][0], run.curves["validation"][-1]
    assert bool((last > first + 0.1).all())
    assert len(run.members) == 3 and run.names == ("seed 1", "seed 2", "seed 3")
    assert run.stopped == (None, None, None) and run.steps == 10 * (480 // 128)
    assert same(run.best, run.members[int(last.argmax())])
    assert run.curves["kl"].shape == (10, 3, 2)


def test_settings_train_beside_each_other(plane: Dataset) -> None:
    model = small(min_information=[0.5, 2.0], members=2)
    run = fit(model, plane, steps=60, seeds=2)
    assert run.names == ("setting 1, seed 1", "setting 2, seed 1", "setting 1, seed 2", "setting 2, seed 2")
    assert [m.floor for m in run.metrics] == [pytest.approx(nats, rel=1e-3) for nats in (0.5, 2.0, 0.5, 2.0)]
    weighted = fit(small(VAE, members=2), plane, steps=100, seeds=2, objective=BetaVAE(beta=[0.0, 50.0]))
    kl = [m.total_kl for m in weighted.metrics]
    assert max(kl[1], kl[3]) < 0.2 < min(kl[0], kl[2])


def test_seeds_begin_elsewhere_and_a_given_start_is_kept(plane: Dataset) -> None:
    model = small(VAE)
    model.start_(plane.train, generator=generator())
    run = fit(model, plane, steps=1, seeds=2, learning_rate=1e-12)
    first, second = run.members
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(first.parameters(), model.parameters(), strict=True)
    )
    assert not torch.allclose(first.encoder.layers[0].weight, second.encoder.layers[0].weight)  # type: ignore[attr-defined]


_COMPILED = """
import torch
from identkit.lidvae.datasets import pinwheel
from identkit.lidvae.models import VAE
from identkit.lidvae.training import fit
model = VAE(2, 2, hidden=(8,), encoder_hidden=(8,), sigma=0.5)
eager, compiled = (fit(model, pinwheel(600), steps=20, seeds=2, compile=how).model for how in (False, True))
print(max(float((a - b).abs().max()) for a, b in zip(eager.parameters(), compiled.parameters())))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU by a C++ compiler")
def test_a_compiled_loss_trains_to_the_same_weights() -> None:
    """In a process of its own: the compiler does not see through the tests' checks of types."""
    done = subprocess.run(
        [sys.executable, "-c", _COMPILED], capture_output=True, text=True, timeout=300, check=True
    )
    assert float(done.stdout) < 1e-4


# --- a member that diverges ------------------------------------------------------------------------------------


def test_a_member_that_diverges_stops_alone_and_says_why(plane: Dataset) -> None:
    models = [small(VAE, seed=seed) for seed in range(3)]
    for model in models:
        model.start_(plane.train, generator=generator())
    with torch.no_grad():
        models[1].decoder.layers[0].weight.fill_(1e38)
    broken = stack(models)
    run = fit(broken, plane, steps=20)
    assert run.stopped[0] is None and run.stopped[2] is None
    assert run.stopped[1] is not None and "not finite at step 1" in run.stopped[1]
    assert same(member(run.model, 1), models[1])
    assert all(bool(torch.isfinite(tensor).all()) for tensor in run.model.state_dict().values())
    assert run.best is not run.members[1]
    alone = fit(stack([models[1]]), plane, steps=20)
    assert alone.steps == 1
    with pytest.raises(ValueError, match="no member was trained to the end"):
        assert alone.best


# --- broken off and gone on with -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "objective", [ELBO(), Lagging(most=5), SemiAmortised(steps=1)], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("patience", [None, 3])
def test_a_broken_run_goes_on_to_the_same_bits(
    plane: Dataset, tmp_path: Path, objective: Objective, patience: int | None
) -> None:
    options: dict[str, Any] = {
        "steps": 40,
        "seeds": 2,
        "objective": objective,
        "patience": patience,
        "batch_size": 60,
    }

    def halt(done: Progress) -> None:
        if done.step >= 8:
            raise KeyboardInterrupt

    whole = fit(small(), plane, **options)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), plane, checkpoint=tmp_path, progress=halt, **options)
    again = fit(small(), plane, checkpoint=tmp_path, resume=True, **options)
    assert same(whole.model, again.model)
    assert all(torch.equal(whole.curves[name], again.curves[name]) for name in whole.curves)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        checkpoints.read_json(tmp_path / "training.json")["tensors"]
    ]


def test_a_checkpoint_of_something_else_is_refused(plane: Dataset, tmp_path: Path) -> None:
    fit(small(), plane, steps=4, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="holds a run already: pass resume=True"):
        fit(small(), plane, steps=4, checkpoint=tmp_path)
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    cases: list[tuple[Any, Dataset, dict[str, Any], str]] = [
        (small(VAE), plane, {"steps": 4}, "model = lidvae, not vae"),
        (small(map="icnn"), plane, {"steps": 4}, "settings"),
        (small(), pinwheel(600, seed=1), {"steps": 4}, "data"),
        (small(), plane, {"steps": 5}, "plan"),
        (small(), plane, {"steps": 4, "objective": BetaVAE()}, "objective"),
        (small(), plane, {"steps": 4, "seeds": 2}, "members = 1, not 2"),
    ]
    for model, data, options, named in cases:
        with pytest.raises(ValueError, match=f"checkpoint of the same run to be resumed, got .*{named}"):
            fit(model, data, checkpoint=tmp_path, resume=True, **options)
    with pytest.raises(ValueError, match="resume=True needs a checkpoint folder that holds a run"):
        fit(small(), plane, steps=4, checkpoint=tmp_path / "other", resume=True)
    assert held == {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(ValueError, match="should hold JSON"):
        fit(small(), plane, steps=4, checkpoint=tmp_path, resume=True)


def test_patience_keeps_the_best_weights(plane: Dataset) -> None:
    """On 64 rows each member soon learns by heart: the weights of its best evaluation come back, not the last."""
    few = replace(plane, train=plane.train[:64])
    options: dict[str, Any] = {"batch_size": 64, "learning_rate": 0.05, "schedule": "constant", "seeds": 2}
    run = fit(small(VAE), few, steps=4000, patience=3, **options)
    validation = run.curves["validation"]
    assert run.steps < 4000
    assert bool((validation[-1] < validation.amax(0)).all())
    rows = run.model.rows(plane.validation)
    with torch.no_grad():  # with the draws that training judges by
        elbo = run.model.terms(rows, run.model.infer(rows), 4, generator(1)).elbo().mean(1)
    assert torch.allclose(elbo, validation.amax(0), atol=1e-5)


def test_lagging_moves_the_encoder_alone_between_the_decoders_steps(plane: Dataset) -> None:
    """Its encoder ends up ahead: after few steps the bound is closer than an ordinary run's."""
    usual = fit(small(VAE), plane, steps=12, batch_size=60, seeds=2)
    ahead = fit(small(VAE), plane, steps=12, batch_size=60, seeds=2, objective=Lagging(most=40))
    gaps = [[m.log_likelihood - m.elbo for m in run.metrics] for run in (usual, ahead)]
    assert sum(gaps[1]) < sum(gaps[0])


# --- the optimiser ---------------------------------------------------------------------------------------------


def quadratic(weight: Tensor) -> Tensor:
    return (weight - torch.arange(3.0)).square().sum(1) * torch.tensor([1.0, 100.0])


def test_without_clipping_it_is_adam() -> None:
    ours, theirs = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimiser = MemberAdam([([ours], 1.0)], 2, None)
    adam = torch.optim.Adam([theirs], lr=0.1)
    for _ in range(30):
        optimiser.step(quadratic(ours), 0.1)
        adam.zero_grad()
        quadratic(theirs).sum().backward()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_weights_that_lie_across_are_moved_rightly() -> None:
    """The fused kernel reads gradients as they lie; `autograd.grad` would lay these out across the weights."""
    ours, theirs = (nn.Parameter(torch.ones(1, 4, 3)) for _ in range(2))
    x = normal(5, 3).float()
    target = normal(1, 5, 4, seed=1).float()
    loss = lambda weight: (
        (torch.baddbmm(torch.zeros(1, 5, 4), x[None], weight.mT) - target).square().sum((1, 2))
    )
    optimiser, adam = MemberAdam([([ours], 1.0)], 1, None), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(5):
        optimiser.step(loss(ours), 0.1)
        adam.zero_grad()
        loss(theirs).sum().backward()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_leap_is_clipped_for_its_member_alone() -> None:
    weight = nn.Parameter(torch.zeros(2, 1))
    optimiser = MemberAdam([([weight], 1.0)], 2, 3.0)
    seen = []
    for size in (1.0, 1.0, 100.0):
        optimiser.step((weight * torch.tensor([[1.0], [size]])).sum(1), 0.0)
        seen.append([float(each) for each in optimiser.adam.state[weight]["exp_avg"][:, 0]])
    moments = [0.1, 0.19, 0.9 * 0.19 + 0.1 * 3.0]
    assert [row[1] for row in seen] == pytest.approx(moments)
    assert [row[0] for row in seen] == pytest.approx([0.1, 0.19, 0.271])


def test_only_those_who_may_move_do() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    optimiser = MemberAdam([([weight], 1.0)], 2, None)
    optimiser.step(quadratic(weight), 0.1)
    before, moments = weight.detach().clone(), optimiser.adam.state[weight]["exp_avg"].clone()
    optimiser.step(quadratic(weight), 0.1, only=torch.tensor([True, False]))
    assert torch.equal(weight[1], before[1]) and not torch.equal(weight[0], before[0])
    assert torch.equal(optimiser.adam.state[weight]["exp_avg"][1], moments[1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_between_nothing_and_their_peak(name: str) -> None:
    values = [SCHEDULES[name](step / 1000) for step in range(1001)]
    assert max(values) == pytest.approx(1.0, abs=1e-6) and min(values) >= 0
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 0.01
    assert name == "constant" or values[-1] < 1e-6


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of epochs and steps should be given, got epochs=None and steps=None"),
        ({"epochs": 1, "steps": 1}, "one of epochs and steps should be given"),
        ({"steps": 0}, "steps should be a whole number of at least 1, got 0"),
        ({"steps": 1, "seeds": 0}, "seeds should be a whole number of at least 1, got 0"),
        (
            {"steps": 1, "batch_size": 1000},
            "train of pinwheel should have at least 1000 rows for one batch, got 480",
        ),
        (
            {"steps": 1, "schedule": "step"},
            "schedule should be one of one-cycle, cosine, constant, got 'step'",
        ),
        ({"steps": 1, "learning_rate": math.nan}, "learning_rate should be a positive number, got nan"),
        ({"steps": 1, "clip": -1.0}, "clip should be a positive number, got -1.0"),
        ({"steps": 1, "patience": 0}, "patience should be a whole number of at least 1, got 0"),
        ({"steps": 1, "resume": True}, "resume=True needs a checkpoint folder"),
    ],
)
def test_bad_options_are_named(plane: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(small(), plane, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([[0.0, math.nan]] * 40), "should be a finite number"),
        (torch.zeros(40, 2), "constant columns"),
        (torch.zeros(5, 2), "at least 10 rows to be split"),
        (normal(400, 3), "data should have the 2 columns that the model explains, got 3"),
    ],
)
def test_bad_data_are_named(rows: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(small(), rows, steps=1, batch_size=4)


def test_data_outside_the_support_are_named(plane: Dataset) -> None:
    with pytest.raises(ValueError, match=r"within \[0, 1\] for a Bernoulli likelihood"):
        fit(VAE(2, 2, "bernoulli"), plane, steps=1)

"""Laws that every Brenier map obeys, fresh and trained: it is the gradient of its potential, and its constants hold."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import Tensor

from identkit.lidvae.brenier import BrenierMap
from identkit.lidvae.logsumexp import LogSumExp
from identkit.lidvae.members import member, stack
from identkit.lidvae.monotone import MonotoneGradient
from identkit.lidvae.positive import enclosed, raw_of, softplus
from identkit.model.protocol import Bounded
from tests.map_examples import NAMES, built, generator, normal, trained


@cache
def _ready(name: str, state: str) -> BrenierMap:
    g = built(name)
    return g if state == "fresh" else trained(g, 2, 2)


@pytest.fixture(params=[(name, state) for name in NAMES for state in ("fresh", "trained")], ids="-".join)
def g(request: pytest.FixtureRequest) -> BrenierMap:
    return copy.deepcopy(_ready(*request.param))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_it_is_the_gradient_of_its_potential(g: BrenierMap) -> None:
    x = (2 * normal(1, 100, 2)).requires_grad_()
    (expected,) = torch.autograd.grad(g.potential(x).sum(), x)
    assert (g(x) - expected).abs().max() < 1e-12 * (1 + expected.abs().max())


def test_its_hessian_is_the_jacobian_symmetric_and_at_least_alpha(g: BrenierMap) -> None:
    x = 3 * normal(1, 1000, 2)
    hessian = g.hessian(x)
    expected = torch.autograd.functional.jacobian(lambda rows: g(rows).sum(1), x)[0].permute(1, 2, 0, 3)
    assert (hessian - expected).abs().max() < 1e-11 * (1 + hessian.abs().max())
    assert (hessian - hessian.mT).abs().max() < 1e-13 * (1 + hessian.abs().max())
    values = torch.linalg.eigvalsh(hessian)
    assert values.min() >= g.alpha.min() * (1 - 1e-12)
    assert values.max() <= g.upper_lipschitz()
    v = normal(1, 1000, 2, seed=9)
    product = (hessian @ v.unsqueeze(3)).squeeze(3)
    assert (g.curvature(x)(v) - product).abs().max() < 1e-12 * (1 + product.abs().max())


def test_no_search_finds_a_slope_outside_the_constants(g: BrenierMap) -> None:
    for sign in (1, -1):
        x = (3 * normal(1, 100, 2)).requires_grad_()
        optimiser = torch.optim.Adam([x], lr=0.1)
        for _ in range(100):
            values = torch.linalg.eigvalsh(g.hessian(x))
            extreme = values[..., 0] if sign > 0 else values[..., -1]
            optimiser.zero_grad()
            (sign * extreme.sum()).backward()
            optimiser.step()
        found = torch.linalg.eigvalsh(g.hessian(x.detach()))
        assert found.min() >= g.lower_lipschitz() * (1 - 1e-12)
        assert found.max() <= g.upper_lipschitz()


def test_a_million_difference_quotients_stay_within_the_constants(g: BrenierMap) -> None:
    lower, upper = g.lower_lipschitz(), g.upper_lipschitz()
    pairs, least, most = 0, float("inf"), 0.0
    # From neighbours to pairs so far apart that every unit is saturated; whether rows differ by 1e-3 or by 100.
    for seed, (spread, distance) in enumerate([(1, 1e-3), (3, 1e-2), (3, 1), (30, 10), (300, 100)]):
        x = spread * normal(1, 200_000, 2, seed=seed)
        other = x + distance * normal(1, 200_000, 2, seed=100 + seed)
        with torch.no_grad():
            quotient = (g(x) - g(other)).norm(dim=2) / (x - other).norm(dim=2)
        least, most = min(least, float(quotient.min())), max(most, float(quotient.max()))
        pairs += quotient.numel()
    assert pairs == 10**6
    assert lower <= least * (1 + 1e-9)
    assert most <= upper * (1 + 1e-9)
    assert isinstance(g, Bounded)


def test_its_inverse_is_exact(g: BrenierMap) -> None:
    x = 3 * normal(1, 300, 2)
    with torch.no_grad():
        found, residual = g.inverse(g(x))
    assert (found - x).abs().max() < 1e-9
    assert residual.max() < 1e-10
    assert found.shape == x.shape and residual.shape == (1, 300)


def test_its_inverse_in_many_dimensions_by_newton_cg(name: str) -> None:
    g = trained(built(name, 50), 50, 50, steps=200)
    x = 2 * normal(1, 64, 50)
    with torch.no_grad():
        found, residual = g.inverse(g(x))
    assert (found - x).abs().max() < 1e-9
    assert residual.max() < 1e-9


def test_a_map_in_float32_is_inverted_in_float64(name: str) -> None:
    g = built(name).float()
    y = normal(20, 2)
    x, residual = g.inverse(y.float())
    assert x.dtype == torch.float64 and x.shape == (20, 2)
    with torch.no_grad():
        assert (copy.deepcopy(g).double()(x) - y.float()).norm(dim=1).max() < 1e-12
    assert residual.max() < 1e-12


def test_a_basis_is_folded_into_the_weights(name: str) -> None:
    g = built(name, 40)
    x, basis = normal(1, 100, 3), normal(1, 40, 3, seed=5)
    with torch.no_grad():
        assert (g(x, basis) - g(x @ basis.mT)).abs().max() < 1e-12
        assert (g(x[:, :1], basis) - g(x[:, :1] @ basis.mT)).abs().max() < 1e-12  # where folding does not pay


def test_members_together_are_members_in_a_loop(name: str) -> None:
    g = built(name, members=3)
    x = normal(3, 50, 2)
    with torch.no_grad():
        together = g(x)
        for number in range(3):
            alone = member(g, number)
            assert (alone(x[number]) - together[number]).abs().max() < 1e-13
            assert (alone.potential(x[number]) - g.potential(x)[number]).abs().max() < 1e-12
        again = stack([member(g, number) for number in range(3)])
        assert torch.equal(again(x), together)
    assert g.upper_lipschitz() == max(member(g, number).upper_lipschitz() for number in range(3))


def test_the_loss_of_one_member_does_not_touch_the_others(name: str) -> None:
    g = built(name, members=3)
    g(normal(3, 50, 2))[1].square().sum().backward()
    for parameter in g.parameters():
        if parameter.numel() == 0:
            continue  # a profile of two steps has none between its first and last
        assert parameter.grad is not None
        assert [bool(own.any()) for own in parameter.grad] == [False, True, False]


@pytest.mark.parametrize("dimension", [3, 60])
def test_unit_slope(name: str, dimension: int) -> None:
    g = built(name, dimension, members=2)
    x = normal(2, 400, dimension, seed=6)
    g.unit_slope_(x, [0.7, 2.5], generator=generator())
    wanted = torch.tensor([0.7, 2.5])
    if isinstance(
        g, LogSumExp
    ):  # along chords to the mean; on as many normal inputs about the mean local slope
        apart = x - x.mean(1, keepdim=True)
        with torch.no_grad():
            slope = (apart * g(x)).sum((1, 2)) / apart.square().sum((1, 2))
        assert (slope / wanted - 1).abs().max() < 1e-6
    else:
        slope = g.hessian(x).diagonal(dim1=2, dim2=3).mean((1, 2))
        # Exact in few dimensions; by random signs in many.
        assert (slope / wanted - 1).abs().max() < (1e-6 if dimension == 3 else 0.1)
        if dimension == 3:
            assert (g.mean_slope(x, generator=generator()) - wanted).abs().max() < 1e-6
    with pytest.raises(ValueError, match="slope should be above alpha"):
        g.unit_slope_(x, 0.2, generator=generator())


def test_the_upper_constant_is_attained_where_one_row_bends_once() -> None:
    g = MonotoneGradient(1, 1, 1, alpha=0.2, steps=3, generator=generator()).double()
    with torch.no_grad():
        g.shifts.zero_()
    steepest = float(g.hessian(torch.zeros(1, 1, 1, dtype=torch.float64)).detach())
    assert steepest <= g.upper_lipschitz() <= steepest * (1 + 1e-12)


def test_positive_weights_and_their_enclosure() -> None:
    raw = torch.linspace(-700, 300, 2001, dtype=torch.float64)
    found = enclosed(raw)
    assert bool((found.low <= softplus(raw)).all()) and bool((softplus(raw) <= found.high).all())
    assert bool(((found.high - found.low) <= 1e-13 * softplus(raw) + 1e-299).all())
    weights = torch.logspace(-12, 2, 100, dtype=torch.float64)
    assert (softplus(raw_of(weights)) / weights - 1).abs().max() < 1e-9


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), [0.1, 0.2, 0.3]])
def test_alpha_is_positive(bad: float | list[float]) -> None:
    with pytest.raises(ValueError, match="alpha should be"):
        MonotoneGradient(2, 2, 4, alpha=bad, generator=generator())


def test_shapes_are_checked() -> None:
    g = built("monotone3", members=2)
    bad: list[Tensor] = [normal(5, 2), normal(2, 5, 3), normal(3, 5, 2)]
    for x in bad:
        with pytest.raises(ValueError, match="x should have shape"):
            g(x)
    with pytest.raises(ValueError, match="steps should be at least 2"):
        MonotoneGradient(1, 2, 4, alpha=0.1, steps=1, generator=generator())

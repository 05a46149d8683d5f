"""What is true of log-sum-exp maps alone; the laws of all Brenier maps are in test_brenier."""

from __future__ import annotations

import pytest
import torch

from identkit.lidvae.logsumexp import LogSumExp
from identkit.lidvae.monotone import MonotoneGradient
from identkit.lidvae.positive import softplus
from tests.map_examples import built, generator, normal, trained


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    powers = logits.exp()
    return powers / powers.sum(1, keepdim=True)


def test_the_map_is_that_of_the_formula() -> None:
    g = LogSumExp(1, 3, 12, alpha=0.3, heads=3, generator=generator()).double()
    x = normal(1, 7, 3)
    expected = g.alpha[0] * x[0] + g.offset[0]
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        a, b = g.matrix[0, own], g.shifts[0, 0, own]
        expected = expected + softplus(g.weights_raw[0, head]) * _softmax(x[0] @ a.T + b) @ a
    assert (g(x)[0] - expected).abs().max() < 1e-13


def test_a_head_of_two_pieces_is_a_ridge() -> None:
    """Its gradient moves along ``a_1 − a_2`` only, and only where ``⟨a_1 − a_2, x⟩`` changes."""
    g = LogSumExp(1, 3, 2, alpha=0.3, heads=1, generator=generator()).double()
    x, across = normal(1, 50, 3), g.matrix[0, 0] - g.matrix[0, 1]
    rest = (g(x) - g.alpha * x)[0]
    moved = rest - rest.mean(0)
    direction = across / across.norm()
    assert (moved - (moved @ direction)[:, None] * direction).abs().max() < 1e-12
    assert moved.norm() > 0.1
    along = normal(1, 50, 3, seed=1)
    along = along - (along @ direction).unsqueeze(2) * direction
    assert (g(x + along) - g(x) - g.alpha * along).abs().max() < 1e-12


def test_the_upper_constant_is_attained_between_two_pieces() -> None:
    g = LogSumExp(1, 1, 2, alpha=0.2, heads=1, generator=generator()).double()
    with torch.no_grad():
        g.shifts.zero_()
    steepest = float(g.hessian(torch.zeros(1, 1, 1, dtype=torch.float64)).detach())
    assert steepest <= g.upper_lipschitz() <= steepest * (1 + 1e-12)


@torch.no_grad()
def test_either_of_its_two_bounds_may_be_the_better() -> None:
    """Many heads that share no direction add up in the first bound alone; many equal pieces, in the second alone."""
    for heads, pieces, first_is_better in ((8, 2, False), (1, 64, True)):
        g = LogSumExp(1, 8, heads * pieces, alpha=0.2, heads=heads, generator=generator()).double()
        if heads > 1:  # each its own axis
            axes = torch.eye(8, dtype=torch.float64)
            g.matrix.copy_(torch.stack([axes, -axes], 1).reshape(1, 16, 8))
        rows = g.matrix[0].unflatten(0, (heads, pieces))
        centred = rows - (rows.amin(1, keepdim=True) + rows.amax(1, keepdim=True)) / 2
        w = softplus(g.weights_raw[0])
        by_radius = float((w * centred.norm(dim=2).amax(1).square()).sum())
        stacked = ((w / 2).sqrt()[:, None, None] * centred).flatten(0, 1)
        by_norm = float(torch.linalg.matrix_norm(stacked, 2) ** 2)
        assert (by_radius < by_norm) is first_is_better
        assert g.upper_lipschitz() == pytest.approx(0.2 + min(by_radius, by_norm), rel=1e-6)


def test_it_starts_as_a_blurred_nearest_neighbour() -> None:
    """The winner of a head is the piece whose point ``y_k ∝ a_k`` is the nearest, by the gap that `spread_` sets."""
    g = LogSumExp(1, 2, 12, alpha=0.2, heads=1, generator=generator()).double()
    x = normal(1, 2000, 2, seed=11)
    g.spread_(x, generator=generator())
    with torch.no_grad():
        logits = g._logits(x)[0, :, 0]
        two = logits.topk(2, dim=1).values
        assert float((two[:, 0] - two[:, 1]).mean()) == pytest.approx(3.0, rel=1e-9)
        # b_k = −c‖y_k‖²/2 − ⟨x̄, a_k⟩ with a_k = c y_k: the factor c is what makes the gap.
        square = g.matrix[0].square().sum(1)
        c = -square / 2 / (g.shifts[0, 0] + g.matrix[0] @ x[0].mean(0))
        assert (c / c[0] - 1).abs().max() < 1e-9
        points = g.matrix[0] / c[0] + x[0].mean(0)
    assert torch.equal(logits.argmax(1), torch.cdist(x[0], points).argmin(1))
    assert torch.cdist(points, x[0]).amin(1).max() < 1e-6  # each is one of the inputs


def test_inputs_that_are_clustered_do_not_make_it_steep() -> None:
    """On clusters its local slopes say 0; along chords it starts with the slope asked for, whatever lies between."""
    clusters = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    x = (clusters.repeat(100, 1) + 1e-3 * normal(300, 2)).unsqueeze(0)
    g = LogSumExp(1, 2, 16, alpha=0.2, generator=generator()).double()
    g.spread_(x, generator=generator())
    g.unit_slope_(x, 1.0, generator=generator())
    with torch.no_grad():
        assert 0.5 < float((g(x) - g(x).mean(1)).norm() / (x - x.mean(1)).norm()) < 2.0


def test_its_curvature_has_derivatives_where_shares_vanish() -> None:
    g = trained(built("logsumexp4"), 2, 2)
    x = (50 * normal(1, 100, 2)).requires_grad_()
    (found,) = torch.autograd.grad(g.hessian(x).sum(), x)
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(("rows", "heads"), [(10, 4), (4, 4), (8, 0)])
def test_heads_share_the_rows(rows: int, heads: int) -> None:
    with pytest.raises(ValueError, match="rows should be a multiple of heads"):
        LogSumExp(1, 2, rows, alpha=0.1, heads=heads, generator=generator())


@pytest.mark.slow
def test_it_learns_a_gradient_that_no_sum_of_ridges_is() -> None:
    """Five clusters torn from one cloud: the borders are half-lines that meet in a point."""
    x = normal(1, 1024, 2)
    angle = 2 * torch.pi * torch.arange(5, dtype=torch.float64) / 5
    corners = torch.stack([angle.cos(), angle.sin()], 1)
    y = torch.softmax(20 * x @ corners.T, 2) @ corners + 0.05 * x
    losses = {}
    for name, g in {
        "pieces": LogSumExp(1, 2, 64, alpha=0.05, generator=generator()),
        "ridges": MonotoneGradient(1, 2, 64, alpha=0.05, generator=generator()),
    }.items():
        g.double().spread_(x, generator=generator())
        g.unit_slope_(x, 1.0, generator=generator())
        optimiser = torch.optim.Adam(g.parameters(), lr=0.1)
        slower = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, 400)
        for _ in range(400):
            loss = (g(x) - y).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            slower.step()
        losses[name] = float((g(x) - y).square().mean().detach())
    assert losses["pieces"] < 2e-3
    assert losses["pieces"] < 0.2 * losses["ridges"]

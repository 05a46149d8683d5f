"""What is true of input-convex networks alone; the laws of all Brenier maps are in test_brenier."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from identkit.lidvae.icnn import ICNN
from identkit.lidvae.monotone import MonotoneGradient
from tests.map_examples import built, generator, normal, trained


def test_the_potential_is_that_of_the_formula() -> None:
    g = ICNN(1, 3, (5, 4), alpha=0.3, generator=generator()).double()
    x = normal(1, 7, 3)
    first = x[0] @ g.inputs[0][0].T + g.shifts[0][0]
    second = (
        functional.softplus(first) @ functional.softplus(g.inner_raw[0][0]).T
        + x[0] @ g.inputs[1][0].T
        + g.shifts[1][0]
    )
    expected = functional.softplus(second) @ functional.softplus(g.weights_raw[0])
    expected = expected + g.alpha[0] / 2 * x[0].square().sum(1) + x[0] @ g.offset[0]
    assert (g.potential(x)[0] - expected).abs().max() < 1e-12


def test_the_potential_is_strongly_convex_along_every_chord() -> None:
    g = trained(built("icnn2"), 2, 2)
    x, y = 5 * normal(1, 2000, 2), 5 * normal(1, 2000, 2, seed=1)
    between = (g.potential(x) + g.potential(y)) / 2 - g.potential((x + y) / 2)
    least = g.alpha[0] / 8 * (x - y).square().sum(2)
    assert bool((between >= least * (1 - 1e-9)).all())


def test_every_parameter_is_in_the_state() -> None:
    g = ICNN(2, 2, (6, 5, 4), alpha=0.2, generator=generator())
    other = ICNN(2, 2, (6, 5, 4), alpha=0.7, generator=generator(9))
    other.load_state_dict(g.state_dict())
    x = torch.randn(2, 10, 2, generator=generator())
    assert torch.equal(g(x), other(x))  # its alpha too
    assert len(list(g.parameters())) == 3 + 3 + 2 + 1 + 1


def test_the_upper_constant_is_attained_by_one_unit() -> None:
    g = ICNN(1, 1, (1,), alpha=0.2, generator=generator()).double()
    with torch.no_grad():
        g.shifts[0].zero_()
    steepest = float(g.hessian(torch.zeros(1, 1, 1, dtype=torch.float64)).detach())
    assert steepest <= g.upper_lipschitz() <= steepest * (1 + 1e-12)


@torch.no_grad()
def test_splitting_off_the_centre_improves_the_bound() -> None:
    """``‖J₂‖ ≤ ‖A₂‖ + ‖W‖‖A₁‖`` is the naive bound; ``W diag(ς) A = ½WA + W diag(ς − ½) A`` gives a better one."""
    g = built("icnn2")
    found = g.upper_lipschitz()
    assert isinstance(g, ICNN)
    w, inner = functional.softplus(g.weights_raw[0]), functional.softplus(g.inner_raw[0][0])
    norm = lambda matrix: torch.linalg.matrix_norm(matrix, 2)
    last = (w / 4).sqrt()[:, None]
    first = (w @ inner / 4).sqrt()[:, None]
    naive = norm(first * g.inputs[0][0]) ** 2
    naive = (
        naive + (norm(last * g.inputs[1][0]) + norm(last * inner) * norm(g.inputs[0][0])) ** 2 + g.alpha[0]
    )
    assert found < float(naive)


@pytest.mark.slow
def test_it_learns_a_gradient_that_no_sum_of_ridges_is() -> None:
    """``∇ softmax-weighted max(0, x, y)``: ICNNs are dense in convex gradients, ridge sums are not."""
    x = 1.5 * normal(1, 1024, 2)
    sharp = 4.0
    padded = torch.cat((torch.zeros(1, 1024, 1, dtype=torch.float64), x), dim=2)
    y = torch.softmax(sharp * padded, dim=2)[..., 1:] + 0.05 * x
    losses = {}
    for name, g in {
        "icnn": ICNN(1, 2, (24, 24), alpha=0.05, generator=generator()),
        "ridges": MonotoneGradient(1, 2, 64, alpha=0.05, generator=generator()),
    }.items():
        g.double().spread_(x, generator=generator())
        optimiser = torch.optim.Adam(g.parameters(), lr=2e-2)
        for _ in range(700):
            loss = (g(x) - y).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        losses[name] = float((g(x) - y).square().mean().detach())
    assert losses["icnn"] < 1e-3
    assert losses["icnn"] < 0.5 * losses["ridges"]

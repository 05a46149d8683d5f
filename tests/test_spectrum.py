"""Ranks and null directions of the pulled-back Fisher information, against the answers of known_answers.md, H."""

from __future__ import annotations

import pytest
import torch
import torch.distributions as td
from torch import nn

from identkit.numeric.jacobian import jacobians
from identkit.numeric.probed import probed
from identkit.numeric.spectrum import spectrum


def read(decoder, k, likelihood=lambda f: td.Normal(f, 0.5), **given):
    return spectrum(probed(decoder, td.Normal(torch.zeros(k), 1.0), likelihood), **given)


def random_matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_singular_values_are_those_of_the_decoder_in_units_of_the_noise():
    weights = random_matrix(5, 3)
    found = read(lambda z: z @ weights.mT, 3)
    assert found.fisher
    assert torch.allclose(
        found.singular_values, torch.linalg.svdvals(weights / 0.5).expand(256, 3), rtol=1e-12
    )


def test_the_full_likelihood_counts():
    # A variance that depends on z is information: I = 2 (d log σ/dz)² (known_answers, H15).
    found = read(lambda z: z, 1, lambda f: td.Normal(torch.zeros_like(f), f.exp()))
    assert found.full_rank.all()
    assert torch.allclose(found.singular_values, torch.full((256, 1), 2.0**0.5, dtype=torch.float64))


CASES = {
    # name: decoder, latents, ranks seen, latents moved at some draw, directions null at every draw
    "two columns alike": (lambda z: z.sum(1, keepdim=True), 2, {1}, {0, 1}, 1),
    "one ignored": (lambda z: z[:, :1], 2, {1}, {1}, 1),
    "norm": (lambda z: z.norm(dim=1, keepdim=True), 3, {1}, {0, 1, 2}, 0),
    "product": (lambda z: z[:, :1] * z[:, 1:], 2, {1}, {0, 1}, 0),
    "circle": (lambda z: torch.cat([z.cos(), z.sin()], 1), 1, {1}, set(), 0),
    "relu": (torch.relu, 2, {0, 1, 2}, {0, 1}, 0),
    "constant": (lambda z: 0 * z, 2, {0}, {0, 1}, 2),
    "even": (lambda z: torch.cat([z[:, :1] ** 2, z[:, 1:]], 1), 2, {2}, set(), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_ranks_and_null_directions(name):
    decoder, k, ranks, moved, shared = CASES[name]
    found = read(decoder, k)
    assert found.clear.all()
    assert set(found.histogram) == ranks and sum(found.histogram.values()) == pytest.approx(1)
    assert set(torch.nonzero(found.moves.any(0)).flatten().tolist()) == moved
    assert found.shared_null.shape == (k, shared)


def test_a_softmax_of_as_many_logits_has_a_fibre():
    found = read(lambda z: z, 3, lambda f: td.Categorical(logits=f))
    assert set(found.histogram) == {2}
    assert torch.allclose(found.shared_null.abs(), torch.full((3, 1), 3**-0.5, dtype=torch.float64))


@pytest.mark.parametrize("weight", [1e-3, 1e-6, 1e-9, 1e-11])
def test_weak_is_not_absent(weight):
    """A latent with a small weight is never called null; mixed into another it is at worst left open."""
    apart = read(lambda z: torch.cat([z[:, :1], weight * z[:, 1:]], 1), 2)
    assert (apart.rank == 2).all()
    mixed = read(lambda z: torch.cat([z.sum(1, keepdim=True), z[:, :1] + (1 + weight) * z[:, 1:]], 1), 2)
    assert bool(((mixed.rank == 2) | ~mixed.clear).all())


def test_null_directions_follow_a_rotation_of_the_latents():
    turn = torch.linalg.qr(random_matrix(4, 4)).Q
    found = read(lambda z: torch.tanh((z @ turn)[:, :3] @ random_matrix(3, 6, seed=1)), 4)
    assert found.shared_null.shape == (4, 1)
    assert torch.allclose((found.shared_null.mT @ turn[:, 3]).abs(), torch.ones(1, dtype=torch.float64))


def test_beyond_a_few_hundred_latents_a_sketch_gives_the_same():
    torch.manual_seed(1)
    linear = nn.Linear(400, 40)
    narrow = nn.Sequential(linear, nn.Tanh(), nn.Linear(40, 350))
    found = read(narrow, 400)
    assert set(found.histogram) == {40} and found.clear.all() and found.shared_null.shape == (400, 360)
    first = linear.weight.double().detach()
    assert (first @ found.shared_null).abs().max() < 1e-12
    p = probed(narrow, td.Normal(torch.zeros(400), 1.0), lambda f: td.Normal(f, 0.5))
    exact = torch.linalg.svdvals(jacobians(p.fisher_coordinates, found.z[:1])[0])
    assert torch.allclose(found.singular_values[0, :40], exact[:40], rtol=1e-9)


def test_a_wide_jacobian_of_high_rank_is_taken_whole():
    weights = random_matrix(320, 300)
    found = read(lambda z: z @ weights.mT, 300)
    assert found.full_rank.all()
    assert torch.allclose(found.singular_values[0], torch.linalg.svdvals(weights / 0.5), rtol=1e-9)


def test_densities_give_gradients_on_the_data():
    prior = td.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    p = probed(lambda x, z: -(x[:, 0] - z[:, 0] * z[:, 1]).square(), prior, x=torch.tensor([[1.0], [2.0]]))
    assert set(spectrum(p).histogram) == {1}


def test_jacobians_agree_with_autograd():
    net = nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 4)).double()
    z = random_matrix(5, 3)
    oracle = torch.stack(
        [torch.autograd.functional.jacobian(lambda row: net(row[None])[0], row) for row in z]
    )
    assert torch.allclose(jacobians(net, z), oracle, atol=1e-14)


class OnlyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


def test_an_operation_without_a_forward_derivative_is_differentiated_backward():
    z = random_matrix(4, 2)
    assert torch.allclose(jacobians(OnlyBackward.apply, z), torch.diag_embed(3 * z**2))


def test_a_finite_prior_has_no_spectrum():
    p = probed(lambda z: z[:, None], td.Categorical(torch.ones(3)), lambda f: td.Normal(f.double(), 1.0))
    with pytest.raises(ValueError, match="continuous"):
        spectrum(p)

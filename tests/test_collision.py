"""Collisions of decoders whose fibres are known: the H rows of known_answers, and the traps about weak and folded ones."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td
from torch import nn

from identkit.numeric.collision import Collisions, collisions
from identkit.numeric.merged import NEAR, Merged, merged
from identkit.numeric.probed import probed

ONE = td.Normal(torch.zeros(1), torch.ones(1))
TWO = td.Normal(torch.zeros(2), torch.ones(2))
THREE = td.Normal(torch.zeros(3), torch.ones(3))


def gaussian(f):
    return td.Normal(f, 0.1)


def found(decoder, prior: td.Distribution = TWO, likelihood=gaussian, **options) -> Collisions:
    return collisions(probed(decoder, prior, likelihood), **options)


def shares(c: Collisions) -> tuple[float, float]:
    return c.share(c.isolated), c.share(c.flat)


def maps(c: Collisions) -> set[str]:
    return {symmetry.map for symmetry in c.symmetries}


def columns(*parts):
    return torch.stack(parts, dim=1)


def test_a_square_is_a_sign_flip_of_its_latent_alone():
    c = found(lambda z: columns(z[:, 0] ** 2, z[:, 1]))  # H5
    assert maps(c) == {"z[1] -> -z[1]"}
    (flip,) = c.symmetries
    assert flip.kind == "sign flip" and flip.preserves_prior and flip.bitwise and flip.about == ("z[1]",)
    assert {pair.latents for pair in c.pairs} == {("z[1]",)}
    assert all(pair.confirmed == "symmetry" and pair.kind == "isolated" for pair in c.pairs)
    isolated, flat = shares(c)
    assert isolated > 0.9 and flat == 0


def test_a_circle_is_an_immersion_that_is_not_injective():
    c = found(lambda z: torch.cat([z.cos(), z.sin()], 1), ONE)  # H6, trap 3
    assert "z[1] -> z[1] + 2*pi" in maps(c)
    assert not any(symmetry.preserves_prior for symmetry in c.symmetries)
    assert shares(c) == (1, 0) and not c.flatness.any()


def test_a_sine_has_a_period_and_a_reflection():
    c = found(lambda z: torch.sin(3 * z), ONE)  # H6
    assert {symmetry.kind for symmetry in c.symmetries} >= {"translation", "other"}
    assert "z[1] -> -z[1] + pi/3" in maps(c)
    assert shares(c) == (1, 0)


@pytest.mark.parametrize("pitch", [1e-3, 1e-6, 1e-9])
def test_a_helix_of_small_pitch_is_indistinguishable_and_not_confirmed(pitch):
    c = found(lambda z: torch.cat([z.cos(), z.sin(), pitch * z], 1), ONE)  # trap 15
    assert shares(c) == (0, 0) and not c.symmetries
    assert all(pair.confirmed is None for pair in c.pairs)
    near = [pair for pair in c.pairs if pair.kind == "near"]
    assert bool(near) == (pitch < 1e-4)  # (2π·1e-3/0.1)² = 4e-3 nats are no longer near
    assert all(pair.divergence <= NEAR for pair in near)


@pytest.mark.parametrize("weight", [1e-4, 1e-9, 1e-13])
def test_a_latent_of_tiny_weight_is_no_collision(weight):
    turn = torch.linalg.qr(torch.tensor([[1.0, 2.0], [-1.0, 1.5]], dtype=torch.float64))[0]
    apart = found(lambda z: columns(z[:, 0], weight * z[:, 1]))
    mixed = found(lambda z: columns(z[:, 0], weight * z[:, 1]) @ turn)
    for c in (apart, mixed):
        assert not c.isolated.any() and not c.symmetries
        assert all(pair.confirmed is None for pair in c.pairs) or (weight == 1e-13 and c is mixed)
        assert bool(c.near.all()) or c is mixed


def test_folded_regions_have_partners_where_they_fold_only():
    """``z³ − z = c`` has three real roots for |z| < 2/√3: with probability 0.752 under N(0, 1)."""
    fold = lambda z: z**3 - z
    for decoder in (fold, lambda z: torch.cat([fold(z), torch.tanh(fold(z)), fold(z).exp()], 1)):
        c = found(decoder, ONE)
        isolated, flat = shares(c)
        assert 0.6 < isolated < 0.9 and flat == 0
        assert {pair.confirmed for pair in c.pairs} == {"root"}
        partners = torch.stack([pair.two for pair in c.pairs])
        assert (partners.abs() <= 2 / math.sqrt(3)).all()


def test_a_curve_that_crosses_itself_has_no_partners_at_random_latents():
    """``(t² − 1, t(t² − 1))`` passes the origin at t = ±1, and is injective elsewhere."""
    c = found(lambda z: torch.cat([z**2 - 1, z * (z**2 - 1)], 1), ONE)
    assert shares(c) == (0, 0) and not c.symmetries


@pytest.mark.parametrize("k", [2, 5])
def test_a_decoder_of_the_norm_is_a_continuum(k):
    c = found(lambda z: z.norm(dim=1, keepdim=True), td.Normal(torch.zeros(k), torch.ones(k)))  # H7
    assert shares(c) == (0, 1)
    assert (c.flatness == k - 1).all()
    assert {pair.confirmed for pair in c.pairs} == {"walk"}


def test_hyperbolas_are_a_continuum_with_a_swap_and_a_joint_sign():
    c = found(lambda z: z[:, :1] * z[:, 1:])  # H14
    assert shares(c) == (0, 1) and (c.flatness == 1).all()
    assert maps(c) == {"z[1] <-> z[2]", "z[1] -> -z[1], z[2] -> -z[2]"}
    for pair in c.pairs:
        assert pair.one.prod().item() == pytest.approx(pair.two.prod().item(), rel=1e-9)


def test_exchangeable_latents_are_swapped():
    c = found(lambda z: columns(z.sum(1), (z**2).sum(1), (z**3).sum(1)), THREE)
    assert {symmetry.kind for symmetry in c.symmetries} == {"permutation"}
    assert len(c.symmetries) == 2  # two exchanges generate all six orders
    assert shares(c) == (1, 0)


def test_a_gradient_of_a_relu_network_is_constant_on_cells():
    weight = torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shift = torch.linspace(-1, 1, 8, dtype=torch.float64)

    def decoder(z):  # H10
        with torch.enable_grad():
            leaf = z if z.requires_grad else z.detach().clone().requires_grad_()
            return torch.autograd.grad(torch.relu(leaf @ weight.T + shift).sum(), leaf, create_graph=True)[0]

    c = found(decoder)
    assert c.share(c.flat) > 0.9 and (c.flatness == 2).all()


def test_a_dead_cell_has_its_prior_mass():
    """One ReLU unit of each latent: the dead quarter is flat in both, two quarters in one (H3′, under N(0, I))."""
    c = found(torch.relu, draws=200)
    quarter = [(c.flatness == flat).double().mean().item() for flat in (0, 1, 2)]
    assert quarter == pytest.approx([0.25, 0.5, 0.25], abs=0.12)
    assert torch.equal(c.flat, c.flatness > 0)


def test_saturation_is_not_a_dead_cell():
    c = found(lambda z: torch.tanh(20 * z), ONE)
    assert shares(c) == (0, 0) and not c.flatness.any()
    assert all(pair.confirmed is None for pair in c.pairs)


@pytest.mark.parametrize(
    ("decoder", "likelihood"),
    [
        (
            lambda z: columns(z[:, 0] + z[:, 0] ** 3 + z[:, 1], z[:, 1] + z[:, 1] ** 3 - z[:, 0]),
            gaussian,
        ),  # H12
        (lambda z: z, lambda f: td.Normal(torch.zeros_like(f), f.exp())),  # H15, trap 7
        (lambda z: torch.cat([z, z[:, :1] * z[:, 1:]], 1), lambda f: td.Bernoulli(logits=f)),
        (lambda z: nn.functional.pad(z, (0, 1)), lambda f: td.Categorical(logits=f)),
    ],
)
def test_injective_decoders_have_no_collisions(decoder, likelihood):
    c = found(decoder, TWO, likelihood)
    assert shares(c) == (0, 0) and not c.symmetries and not c.flatness.any()
    assert not c.pairs


def test_a_variance_that_is_even_folds():
    c = found(lambda z: z, ONE, lambda f: td.Normal(torch.zeros_like(f), 1 + f**2))
    assert maps(c) == {"z[1] -> -z[1]"}


@pytest.mark.parametrize("family", [lambda f: td.StudentT(3.0, f, 1.0), lambda f: td.Gamma(1 + f, 1.0)])
def test_families_without_a_fisher_metric_or_a_divergence(family):
    c = found(lambda z: z**2, ONE, family)
    assert maps(c) == {"z[1] -> -z[1]"}
    assert all(
        math.isnan(pair.divergence) == (family(torch.ones(1)).__class__ is td.StudentT) for pair in c.pairs
    )


def test_only_partners_inside_the_support_count():
    """Trap 4: a square has one admissible root on (0, ∞), and a fold at 0.3 of the unit interval reaches to 0.6."""
    assert shares(found(lambda z: z**2, td.Gamma(torch.ones(1), 1.0))) == (0, 0)
    c = found(lambda z: (z - 0.3) ** 2, td.Uniform(torch.zeros(1), torch.ones(1)))
    assert maps(c) == {"z[1] -> -z[1] + 0.6"}
    (reflection,) = c.symmetries
    assert reflection.share == pytest.approx(0.6, abs=0.1) and not reflection.preserves_prior
    assert c.share(c.isolated) == pytest.approx(0.55, abs=0.2)
    assert all(0 <= pair.two.item() <= 1 for pair in c.pairs)
    whole = found(lambda z: (z - 0.5) ** 2, td.Uniform(torch.zeros(1), torch.ones(1)))
    assert [(s.map, s.preserves_prior) for s in whole.symmetries] == [("z[1] -> -z[1] + 1", True)]


def test_a_fold_of_a_turned_latent_inside_a_network():
    torch.manual_seed(3)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 8)).double().requires_grad_(False)

    def decoder(z):
        turned = z.to(turn) @ turn
        return net(torch.cat([turned[:, :1].abs(), turned[:, 1:]], 1))

    c = found(decoder, THREE)
    assert c.share(c.isolated) > 0.8
    one, two = c.pairs[0].one @ turn, c.pairs[0].two @ turn
    torch.testing.assert_close(two, one * torch.tensor([-1.0, 1, 1], dtype=torch.float64), atol=1e-9, rtol=0)


class Single(nn.Module):
    """A decoder whose code runs in float32 only."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        if z.dtype != torch.float32:
            raise RuntimeError("expected dtype Float")
        return self.function(z)


def test_in_float32_only_equality_to_the_last_bit_confirms():
    assert maps(found(Single(torch.square), ONE)) == {"z[1] -> -z[1]"}
    assert shares(found(Single(lambda z: z[:, :1]))) == (0, 1)
    turn = torch.linalg.qr(torch.tensor([[1.0, 2.0], [-1.0, 1.5]]))[0]
    weak = found(Single(lambda z: columns(z[:, 0], 1e-6 * z[:, 1]) @ turn))
    assert shares(weak) == (0, 0) and all(pair.confirmed is None for pair in weak.pairs)


def partition(decoder, prior: td.Distribution, likelihood=gaussian) -> Merged:
    return merged(probed(decoder, prior, likelihood))


def test_identical_embeddings_merge_two_states():
    embedding = torch.tensor([0.0, 1.0, 1.0, 3.0])
    states = partition(
        lambda z: embedding[z.flatten().long()].reshape(-1, 1), td.Categorical(torch.ones(1, 4) / 4)
    )  # H17
    assert states.groups == ((1, 2), (0,), (3,)) and states.bitwise


def test_xor_merges_opposite_corners():
    states = partition(  # H18
        lambda z: 0.1 + 0.8 * (z[:, :1] - z[:, 1:]).abs(),
        td.Bernoulli(probs=torch.full((2,), 0.5)),
        lambda f: td.Bernoulli(probs=f),
    )
    assert states.groups == ((0, 3), (1, 2))


def test_states_that_nearly_agree_stay_apart():
    means = torch.tensor([0.0, 1.0, 1.0 + 1e-9, 5.0], dtype=torch.float64)
    states = partition(
        lambda z: means[z.flatten().long()].reshape(-1, 1), td.Categorical(torch.ones(1, 4) / 4)
    )
    assert len(states.groups) == 4
    assert [pair[:2] for pair in states.near] == [(1, 2)]


def test_a_search_is_the_same_for_the_same_seed_and_leaves_chance_alone():
    before = torch.get_rng_state()
    one, two = (found(lambda z: torch.sin(3 * z), ONE, seed=4) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.draws, two.draws) and one.pairs[0].distance == two.pairs[0].distance
    assert not torch.equal(one.draws, found(lambda z: torch.sin(3 * z), ONE, seed=5).draws)


def test_a_density_alone_is_refused():
    density = probed(lambda x, z: -((x - z[:, 0]) ** 2), TWO, x=torch.zeros(3))
    with pytest.raises(ValueError, match="give a decoder and a likelihood"):
        collisions(density)


def test_a_finite_prior_is_refused():
    with pytest.raises(ValueError, match="prior should be continuous"):
        found(lambda z: z, td.Bernoulli(probs=torch.full((2,), 0.5)))

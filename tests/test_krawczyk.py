"""Interval Newton proofs that a box of latents has partners, and the cases in which there must be none."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.distributions as td
from torch import nn

from identkit.numeric.collision import Collision, collisions
from identkit.numeric.krawczyk import Partners, partners
from identkit.numeric.probed import Probed, probed

ONE = td.Normal(torch.zeros(1), torch.ones(1))
TWO = td.Normal(torch.zeros(2), torch.ones(2))


def gaussian(f):
    return td.Normal(f, 0.1)


def proof(decoder, prior: td.Distribution = ONE, likelihood=gaussian) -> Partners | None:
    p = probed(decoder, prior, likelihood)
    return partners(p, collisions(p).pairs)


def paired(one: list[float], two: list[float]) -> Collision:
    z, other = torch.tensor(one, dtype=torch.float64), torch.tensor(two, dtype=torch.float64)
    return Collision(z, other, float((z - other).norm()), 0.0, "isolated", None, ())


@pytest.mark.parametrize(
    "decoder",
    [
        lambda z: z**3 - z,
        lambda z: torch.sin(3 * z),
        lambda z: torch.exp(-(z**2)),
        # Three parameters and one latent, but all of them are functions of one number.
        lambda z: torch.cat([z**2 + z, (z**2 + z).tanh(), 3 * (z**2 + z)], 1),
    ],
    ids=["cubic", "sine", "bell", "gate"],
)
def test_folds_are_proved_on_a_box(decoder):
    found = proof(decoder)
    assert found is not None and found.verify()
    assert found.moves == ("z[1]",)
    # Every latent of the box has its root in the partner box: both ends have, and roots move continuously.
    ends = torch.stack([found.low, found.high])
    grid = torch.linspace(found.partner_low.item(), found.partner_high.item(), 4001, dtype=torch.float64)
    values, wanted = decoder(grid.unsqueeze(1))[:, 0], decoder(ends)[:, 0]
    assert ((values.min() <= wanted) & (wanted <= values.max())).all()


def test_a_fold_inside_a_network_is_proved_through_its_gate():
    class Fold(nn.Module):
        def forward(self, z):
            return torch.cat([z[:, :1].abs(), z[:, 1:]], 1)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 2), Fold(), nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 9))
    found = proof(net.requires_grad_(False), TWO, lambda f: td.Bernoulli(logits=f))
    assert found is not None and found.verify() and found.moves
    assert found.statement.startswith("every latent with z[1] in [")


def test_only_the_folded_latent_is_moved():
    found = proof(lambda z: torch.stack([z[:, 0] ** 2, z[:, 1]], 1), TWO)
    assert found is not None and found.moves == ("z[1]",)


def test_more_equations_than_unknowns_prove_nothing():
    """A circle and a helix of pitch 1e-9 look the same to floats; only one of them has partners."""
    turn = paired([0.3], [0.3 + 2 * math.pi])
    for pitch in (0.0, 1e-9):
        helix = lambda z, pitch=pitch: torch.cat([z.cos(), z.sin() + pitch * z], 1)
        assert partners(probed(helix, ONE, gaussian), [turn]) is None


def test_no_partner_is_proved_where_there_is_none():
    monotone = probed(lambda z: z + z**3, ONE, gaussian)
    assert partners(monotone, [paired([0.1], [0.4])]) is None
    fold = probed(lambda z: z**2, td.Uniform(torch.zeros(1), torch.ones(1)), gaussian)
    assert partners(fold, [paired([0.3], [-0.3])]) is None  # outside the support
    assert partners(probed(lambda z: z**2, ONE, gaussian), [paired([0.3], [0.3])]) is None  # itself


def test_a_proof_is_checked_against_its_own_boxes():
    p: Probed = probed(lambda z: z**2, ONE, gaussian)
    found = partners(p, [paired([0.5], [-0.5])])
    assert found is not None and found.verify()
    for wrong in (
        {"partner_low": found.partner_low - 1, "partner_high": found.partner_high - 1},
        {"partner_low": found.low, "partner_high": found.high},
        {"high": found.low},
        {"low": found.low - 2},
    ):
        assert not dataclasses.replace(found, **wrong).verify()

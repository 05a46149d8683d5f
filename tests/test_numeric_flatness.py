"""Flatness by sampling against closed forms and enumeration: overall, along a latent, along a subspace."""

from __future__ import annotations

import pytest
import torch
import torch.distributions as td

from identkit.numeric.flatness import along, flatness
from identkit.numeric.probed import probed

WEIGHTS = torch.tensor([[1.0, 2.0], [0.0, 1.0], [0.5, 0.3]], dtype=torch.float64)
TWO = td.Normal(torch.zeros(2, dtype=torch.float64), 1.0)
DATA = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def unit(f):
    return td.Normal(f, 1.0)


def linear(x: torch.Tensor | None = DATA):
    return probed(lambda z: z @ WEIGHTS.mT, TWO, unit, x)


def quadratic_variance(vector, matrix):
    """``Var(b·z − ½ zᵀGz)`` for z ~ N(0, I)."""
    return vector.square().sum(-1) + matrix.square().sum() / 2


def test_flatness_of_a_linear_gaussian_is_its_closed_form():
    found = flatness(linear(), draws=100_000, level=0.999)
    gram = WEIGHTS.mT @ WEIGHTS
    exact = quadratic_variance(DATA @ WEIGHTS, gram) / 2
    low, high = found.half_variance_interval.unbind(1)
    assert bool(((low <= exact) & (exact <= high)).all())
    assert torch.allclose(found.half_variance, exact, rtol=0.1)


def test_the_effect_of_a_latent_is_its_total_effect():
    """Given z₂, ``ℓ = (b₁ − G₁₂z₂) z₁ − ½G₁₁z₁²``, so ``E Var(ℓ | z₂) = b₁² + G₁₂² + ½G₁₁²``."""
    found = flatness(linear(), draws=100_000, level=0.999)
    vector, gram = DATA @ WEIGHTS, WEIGHTS.mT @ WEIGHTS
    for j in (0, 1):
        exact = (vector[:, j].square() + gram[0, 1] ** 2 + gram[j, j] ** 2 / 2) / 2
        low, high = found.per_latent_interval[:, j].unbind(1)
        assert bool(((low <= exact) & (exact <= high)).all())


def test_exclusive_or_is_seen_by_total_effects():
    """Both latents matter though neither does on average; by enumeration ``½ E Var = ½ (½ log 9)²`` for each."""
    coins = td.Bernoulli(torch.full((2,), 0.5, dtype=torch.float64))
    p = probed(
        lambda z: 0.1 + 0.8 * (z[:, :1] != z[:, 1:]).double(),
        coins,
        lambda f: td.Bernoulli(f),
        torch.ones(1, 1),
    )
    found = flatness(p, draws=20_000)
    exact = 0.5 * (0.5 * torch.tensor(9.0).log().item()) ** 2
    assert found.per_latent[0].tolist() == pytest.approx([exact, exact], rel=0.05)


def test_a_flat_likelihood_says_so_and_bounds_what_was_not_seen():
    p = probed(lambda z: 0 * z, TWO, unit, torch.zeros(2, 2))
    found = flatness(p, draws=1000, level=0.99)
    assert found.half_variance.tolist() == [0, 0] and found.witness.gap == 0
    assert found.unseen == pytest.approx(4.605 / 1000, rel=1e-3)
    assert "no variation seen" in str(found)


def test_a_witness_shows_its_gap():
    p = linear()
    found = flatness(p, draws=500)
    for witness in (found.witness, *found.per_latent_witness):
        ends = p.log_likelihood(torch.stack([witness.one, witness.two]))[:, witness.datum]
        assert (ends[0] - ends[1]).abs().item() == pytest.approx(witness.gap, rel=1e-9)
    for j, witness in enumerate(found.per_latent_witness):
        moved = witness.one != witness.two
        assert moved.tolist() == [i == j for i in range(2)]


def test_a_direction_can_be_flat_where_no_latent_is():
    p = probed(lambda z: z.sum(1, keepdim=True), TWO, unit, DATA[:, :1])
    flat, seen = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [1.0]])
    assert along(p, flat).effect.max() < 1e-24
    assert along(p, flat, of_law=True).effect.item() < 1e-24
    # z₁ + z₂ ~ N(0, 2): two draws differ by N(0, 4), and their laws by its square
    found = along(p, seen, of_law=True, draws=50_000)
    assert found.interval[0, 0] <= 2 <= found.interval[0, 1]


def test_dependent_latents_that_are_not_gaussian_are_refused():
    mixed = td.MixtureSameFamily(
        td.Categorical(torch.ones(2)),
        td.MultivariateNormal(torch.tensor([[0.0, 0], [3, 3]]), torch.eye(2)),
    )
    p = probed(lambda x, z: -z.square().sum(1), mixed, x=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="Gaussian, or have independent coordinates"):
        flatness(p)


@pytest.mark.parametrize(("given", "message"), [({"draws": 1}, "draws"), ({"level": 1.0}, "level")])
def test_bad_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        flatness(linear(), **given)


def test_flatness_of_a_law_needs_data():
    with pytest.raises(ValueError, match="x should be given"):
        flatness(linear(x=None))

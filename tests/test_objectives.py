"""What training minimises: each remedy is the ELBO where its number says so, and does what its paper says elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.objectives import (
    ELBO,
    IWAE,
    BetaVAE,
    FreeBits,
    KLAnnealing,
    Lagging,
    Objective,
    SemiAmortised,
)
from tests.map_examples import generator, normal


def model(members: int = 2) -> VAE:
    made = VAE(3, 2, sigma=0.7, hidden=(8,), encoder_hidden=(8,), members=members).double()
    made.start_(normal(40, 3, seed=1), generator=generator())
    return made


X = normal(2, 9, 3)


def loss(objective: Objective, progress: float = 1.0) -> Tensor:
    return objective.loss(model(), X, progress, generator(3))


@pytest.mark.parametrize(
    ("objective", "progress"),
    [
        (BetaVAE(beta=1.0), 0.3),
        (BetaVAE(beta=[1.0, 1.0]), 0.3),
        (FreeBits(nats=0.0), 0.3),
        (KLAnnealing(), 1.0),
        (KLAnnealing(first=1.0), 0.0),
        (Lagging(), 0.3),
    ],
    ids=lambda value: str(value),
)
def test_it_is_the_elbo_where_its_number_says_so(objective: Objective, progress: float) -> None:
    assert torch.allclose(loss(objective, progress), loss(ELBO()), atol=1e-12)


def test_beta_weighs_the_divergence_of_each_setting() -> None:
    zero, one = loss(BetaVAE(beta=0.0)), loss(BetaVAE(beta=1.0))
    both = loss(BetaVAE(beta=[0.0, 3.0]))
    assert torch.allclose(both, torch.stack([zero[0], zero[1] + 3 * (one - zero)[1]]))
    terms = model().terms(X, model().infer(X), 1, generator(3))
    assert torch.allclose(one - zero, terms.kl.sum(-1).mean(-1))


def test_annealing_rises_straight_in_every_cycle() -> None:
    once = KLAnnealing(share=0.5)
    assert [once.weight(p) for p in (0.0, 0.25, 0.5, 0.9, 1.0)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    thrice = KLAnnealing(first=0.2, share=1.0, cycles=2)
    assert [thrice.weight(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0.2, 0.6, 0.2, 0.6, 1.0])


def test_free_bits_cost_nothing() -> None:
    """Below λ the encoder gets no gradient from the KL: only from the reconstruction."""
    made = model()
    free = FreeBits(nats=1e3).loss(made, X, 0.5, generator(3))
    bare = BetaVAE(beta=0.0).loss(made, X, 0.5, generator(3))
    assert torch.allclose((free - bare).detach(), torch.full((2,), 2e3, dtype=torch.float64))
    slopes = [torch.autograd.grad(value.sum(), list(made.parameters())) for value in (free, bare)]
    assert all(torch.allclose(a, b) for a, b in zip(*slopes, strict=True))
    terms = made.terms(X, made.infer(X), 1, generator(3))
    half = FreeBits(nats=float(terms.kl.mean(1).median().detach())).loss(made, X, 0.5, generator(3))
    assert bool((half >= ELBO().loss(made, X, 0.5, generator(3)) - 1e-12).all())


@torch.no_grad()
def test_more_importance_samples_are_a_tighter_bound() -> None:
    made, many = model(), X.repeat(1, 400, 1)
    bounds = [IWAE(samples=s).loss(made, many, 0.5, generator(s)) for s in (1, 4, 16)]
    assert (bounds[0] - ELBO().loss(made, many, 0.5, generator(9))).abs().max() < 0.05
    assert bool((bounds[0] > bounds[1]).all() & (bounds[1] > bounds[2]).all())


def test_the_climb_raises_every_rows_elbo_and_teaches_the_encoder() -> None:
    made = model()
    objective = SemiAmortised(steps=60, rate=0.02, samples=64)
    before, after = made.infer(X), objective.posterior(made, X, generator(1))
    with torch.no_grad():
        gain = [made.terms(X, q, 4000, generator(2)).elbo() for q in (before, after)]
    assert float((gain[1] - gain[0]).mean()) > 0.1 and bool((gain[1] - gain[0] > -0.05).all())
    assert not any(tensor.requires_grad for tensor in after)
    slopes = torch.autograd.grad(
        SemiAmortised(steps=2).loss(made, X, 0.5, generator(1)).sum(), list(made.parameters())
    )
    assert all(bool(slope.any()) for slope in slopes)


def test_one_step_of_the_climb_is_a_clipped_gradient() -> None:
    made = model()
    q = made.infer(X)
    mean, log_scale = (tensor.detach().requires_grad_() for tensor in q)
    value = made.terms(X, type(q)(mean, log_scale), 1, generator(1)).elbo().sum()
    slopes = torch.autograd.grad(value, (mean, log_scale))
    length = torch.cat(slopes, dim=-1).norm(dim=-1, keepdim=True)
    for clip in (0.1, 1e6):
        found = SemiAmortised(steps=1, rate=0.3, clip=clip).posterior(made, X, generator(1))
        scale = 0.3 * torch.clamp(clip / length, max=1.0)
        assert torch.allclose(found.mean, mean + scale * slopes[0])
        assert torch.allclose(found.log_scale, log_scale + scale * slopes[1])


def test_the_climb_passes_through_a_brenier_decoder() -> None:
    made = LIDVAE(3, 2, hidden=(8, 8)).double()
    value = SemiAmortised(steps=2).loss(made, X[:1], 0.5, generator())
    value.sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in made.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ELBO(samples=0), "samples should be a whole number of at least 1, got 0"),
        (lambda: BetaVAE(beta=-1.0), "beta should be finite and not negative, got -1.0"),
        (lambda: FreeBits(nats=math.nan), "nats should be finite and not negative"),
        (lambda: KLAnnealing(share=0.0), r"share should lie in \(0, 1\], got 0.0"),
        (lambda: KLAnnealing(cycles=0), "cycles should be at least 1, got 0"),
        (lambda: SemiAmortised(steps=0), "steps should be a whole number of at least 1, got 0"),
        (lambda: SemiAmortised(rate=0.0), "rate should be a positive number, got 0.0"),
        (lambda: Lagging(most=0), "most should be a whole number of at least 1, got 0"),
        (lambda: loss(BetaVAE(beta=[1.0, 2.0, 3.0])), "should be given to 2 members, got 3"),
    ],
)
def test_bad_numbers_are_named(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

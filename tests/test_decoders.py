"""The decoder that cannot collapse: its certificate holds, the checker believes it, and its dial says what it means."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor
from torch.nn import functional

import identkit as ik
from identkit.lidvae.decoders import BrenierDecoder
from identkit.lidvae.information import information_ceiling, information_floor, predicted_kl
from identkit.lidvae.members import member, stack
from identkit.lidvae.mlp import MLP
from identkit.lidvae.orthogonal import Orthogonal, orthonormal
from identkit.verdict import Level
from tests.map_examples import generator, normal, trained

MAPS = ("monotone", "icnn", "logsumexp")
CHAINS = (*MAPS, "logsumexp, logsumexp, logsumexp")
SIZES = ((2, 2), (2, 5))


def _decoder(kind: Any, latents: int, outputs: int, members: int = 1, **dial: Any) -> BrenierDecoder:
    maps = kind.split(", ")
    hidden = (16,) * max(2, len(maps))
    f = BrenierDecoder(members, latents, outputs, map=maps[0], hidden=hidden, generator=generator(), **dial)
    f = f.double()
    f.start_(generator=generator())
    return f


@cache
def _ready(kind: str, size: tuple[int, int], state: str) -> BrenierDecoder:
    f = _decoder(kind, *size)
    if state == "trained":
        trained(f, *size)
    return f


@pytest.fixture(
    params=[(kind, size, state) for kind in CHAINS for size in SIZES for state in ("fresh", "trained")],
    ids=lambda p: f"{p[0].replace(', ', '-')}-{p[1][0]}to{p[1][1]}-{p[2]}",
)
def f(request: pytest.FixtureRequest) -> BrenierDecoder:
    return copy.deepcopy(_ready(*request.param))


def _prior(latents: int) -> td.Distribution:
    return td.Normal(torch.zeros(latents), torch.ones(latents))


def _minimal(logits: Tensor) -> td.Distribution:
    return td.Categorical(logits=functional.pad(logits, (0, 1)))


LIKELIHOODS = {
    "normal": lambda x: td.Normal(x, 0.3),
    "bernoulli": lambda x: td.Bernoulli(logits=x),
    "poisson": lambda x: td.Poisson(x.exp()),
    "categorical": _minimal,
}


def test_the_checker_calls_it_global_with_its_bound(f: BrenierDecoder) -> None:
    verdict = ik.check(f, prior=_prior(f.g1.dimension), likelihood=LIKELIHOODS["normal"])
    assert verdict.level is Level.GLOBAL
    certificate: Any = verdict.certificate
    assert certificate.verify()
    assert certificate.vouched == ("BrenierDecoder",)
    lower = f.lower_lipschitz()
    assert lower is not None and certificate.lower <= lower < certificate.lower * (1 + 1e-14)
    assert lower == pytest.approx(0.04, rel=1e-6)
    assert f.upper_lipschitz() <= certificate.upper < f.upper_lipschitz() * (1 + 1e-14)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("kind", MAPS)
def test_it_is_global_under_every_minimal_likelihood(kind: str, likelihood: str) -> None:
    f = _ready(kind, (2, 5), "fresh")
    assert ik.check(f, prior=_prior(2), likelihood=LIKELIHOODS[likelihood]).level is Level.GLOBAL


def test_softmax_over_all_outputs_is_not_global() -> None:
    f = _ready("monotone", (2, 5), "fresh")
    verdict = ik.check(f, prior=_prior(2), likelihood=lambda x: td.Categorical(logits=x))
    assert verdict.level is not Level.GLOBAL


@pytest.mark.parametrize("outputs", [2, 5])
def test_an_ordinary_decoder_is_not_global(outputs: int) -> None:
    f = MLP(1, 2, outputs, generator=generator())
    verdict = ik.check(f, prior=_prior(2), likelihood=lambda x: td.Normal(x, 0.3))
    assert verdict.level is not Level.GLOBAL


def test_no_pair_of_latents_is_closer_or_farther_than_certified(f: BrenierDecoder) -> None:
    lower, upper = f.lower_lipschitz(), f.upper_lipschitz()
    assert lower is not None
    for seed, (spread, distance) in enumerate([(1, 1e-3), (1, 0.1), (3, 1), (10, 10), (100, 100)]):
        z = spread * normal(1, 200_000, 2, seed=seed)
        other = z + distance * normal(1, 200_000, 2, seed=100 + seed)
        with torch.no_grad():
            quotient = (f(z) - f(other)).norm(dim=2) / (z - other).norm(dim=2)
        assert lower <= float(quotient.min()) * (1 + 1e-9)
        assert float(quotient.max()) <= upper * (1 + 1e-9)


def test_latents_are_recovered(f: BrenierDecoder) -> None:
    z = 2 * normal(1, 100, 2)
    with torch.no_grad():
        x = f(z)
    found, residual = f.inverse(x)
    assert (found - z).abs().max() < 1e-9
    assert residual.max() < 1e-9
    if x.shape[2] > 2:  # what is not on the image is told by the residual
        assert f.inverse(x + normal(1, 100, x.shape[2]))[1].min() > 1e-3


@pytest.mark.parametrize("kind", MAPS)
def test_members_are_independent(kind: str) -> None:
    f = _decoder(kind, 2, 5, members=3, alphas=([0.1, 0.2, 0.3], 0.5), scale=[1.0, 2.0, 3.0])
    z = normal(3, 40, 2)
    with torch.no_grad():
        together = f(z)
        alone = [member(f, number) for number in range(3)]
        for number, one in enumerate(alone):
            assert (one(z[number]) - together[number]).abs().max() < 1e-12
        assert torch.equal(stack(alone)(z), together)
    bounds = [one.lower_lipschitz() for one in alone]
    assert bounds == [pytest.approx(m, rel=1e-6) for m in (0.05, 0.2, 0.45)]
    assert f.lower_lipschitz() == min(bound for bound in bounds if bound is not None)
    f(z)[2].square().sum().backward()
    for name, parameter in f.named_parameters():
        assert parameter.grad is not None
        assert [bool(own.any()) for own in parameter.grad] == [False, False, True], name


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("nats", [0.01, 0.5, 3.0])
@pytest.mark.parametrize(
    "given", [{}, {"alphas": (0.3, 0.4)}, {"scale": 4.0}], ids=["none", "alphas", "scale"]
)
def test_the_dial(kind: str, nats: float, given: dict[str, Any]) -> None:
    f = _decoder(kind, 2, 5, min_information=nats, sigma=0.6, **given).float()
    lower = f.lower_lipschitz()
    assert lower is not None
    assert nats <= information_floor(lower, 0.6, 2) <= nats * (1 + 1e-3)
    assert information_ceiling(f.upper_lipschitz(), 0.6, 2) > nats


def test_the_dial_of_a_longer_chain() -> None:
    cases: tuple[dict[str, Any], ...] = ({}, {"alphas": (0.3, 0.4, 0.5)}, {"scale": 4.0})
    for given in cases:
        f = _decoder("icnn, icnn, icnn", 2, 5, min_information=0.5, sigma=0.6, **given)
        assert len(f.chain) == 3 and len(f.turns) == 2
        assert [g.dimension for g in f.chain] == [2, 2, 5]
        lower = f.lower_lipschitz()
        assert lower is not None and 0.5 <= information_floor(lower, 0.6, 2) <= 0.5 * (1 + 1e-3)


def test_a_rotation_between_maps_of_the_latents_is_one() -> None:
    f = _decoder("monotone, monotone, monotone", 2, 5, scale=3.0)
    inner, outer = f.turns
    assert (inner.basis().mT @ inner.basis() - torch.eye(2)).abs().max() < 1e-12
    assert (outer.basis().mT @ outer.basis() - 9 * torch.eye(2)).abs().max() < 1e-12
    z = normal(1, 20, 2)
    with torch.no_grad():
        by_hand = f.g2(f.beta(f.chain[1](inner(f.g1(z)))))
        assert (f(z) - by_hand).abs().max() < 1e-12
        found, residual = f.inverse(f(z))
    assert (found - z).abs().max() < 1e-9
    assert residual.max() < 1e-9


def test_the_dial_of_each_member() -> None:
    f = _decoder("monotone", 2, 5, members=2, min_information=[0.1, 1.0], sigma=[0.5, 1.0])
    for number, (nats, sigma) in enumerate([(0.1, 0.5), (1.0, 1.0)]):
        lower = member(f, number).lower_lipschitz()
        assert lower is not None and information_floor(lower, sigma, 2) == pytest.approx(nats, rel=1e-3)


@pytest.mark.parametrize("kind", CHAINS)
def test_it_starts_at_the_data_with_the_slope_asked_for(kind: str) -> None:
    f = _decoder(kind, 3, 8, scale=2.0)
    centre = normal(8, seed=5)
    f.start_(centre, generator=generator(7))
    z = normal(1, 4000, 3, seed=8)
    with torch.no_grad():
        x = f(z)[0]
    assert (x.mean(0) - centre).abs().max() < 0.3
    # Slopes of one in both maps and a scale of 2: the image has about the spread of 2z.
    assert 1.0 < float((x - x.mean(0)).square().sum().div(3 * 4000).sqrt()) < 4.0


@pytest.mark.parametrize("kind", ["monotone", "icnn", "monotone, monotone, monotone"])
def test_it_starts_shallow_within_the_span_and_as_steep_as_asked_on_the_whole(kind: str) -> None:
    f = _decoder(kind, 4, 100, members=2, scale=[1.0, 3.0])
    before = f.lower_lipschitz()
    centre = normal(100, seed=5)
    f.start_(centre, total=[3.0, 6.0], generator=generator(7))
    z = normal(2, 2000, 4, seed=8)
    with torch.no_grad():
        x = f(z)
        assert (x.mean(1) - centre).abs().max() < 0.3
        # g₂ bends towards the span of β only, where its mean slope is 2α.
        y = z[:, :300]
        for g, turn in zip(f.chain[:-1], f.turns, strict=True):
            y = turn(g(y))
        q = orthonormal(f.beta.weight).unsqueeze(1)
        hessian = f.g2.hessian(y)
        inside = (q.mT @ hessian @ q).diagonal(dim1=2, dim2=3).mean((1, 2)) / f.g2.alpha
        outside = hessian.diagonal(dim1=2, dim2=3).sum((1, 2)).div(300) / f.g2.alpha - 4 * inside
        assert (inside - 2).abs().max() < 0.15
        assert (outside - 96).abs().max() < 1e-6
        # Far out along a ridge its bends are over: what is left of ψ there are its linear parts.
        if kind.startswith("monotone"):
            far = f.g2.hessian(1e4 * y[:, :50])
            left = (q.mT @ far @ q).diagonal(dim1=2, dim2=3).mean((1, 2)) / f.g2.alpha - 1
            assert left.max() < 0.1
    spread = x.var(1).sum(1).div(4).sqrt() / torch.tensor([3.0, 6.0])
    assert float(spread.min()) > 0.6 and float(spread.max()) < 1.7
    # Where it starts has no part in what is certified.
    assert f.lower_lipschitz() == before == pytest.approx(0.04, rel=1e-6)
    other = z + 0.01 * normal(2, 2000, 4, seed=9)
    with torch.no_grad():
        quotient = (x - f(other)).norm(dim=2) / (z - other).norm(dim=2)
    assert before is not None and before <= float(quotient.min())
    assert float(quotient.max()) <= f.upper_lipschitz()
    verdict = ik.check(member(f, 1), prior=_prior(4), likelihood=LIKELIHOODS["bernoulli"])
    assert verdict.level is Level.GLOBAL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": 1}, "latents should be at most"),
        ({"map": "relu"}, "map should be"),
        ({"min_information": 1.0}, "sigma should be given"),
        (
            {"min_information": 1.0, "sigma": 1.0, "alphas": (0.1, 0.1), "scale": 1.0},
            "leave out one of them",
        ),
        ({"min_information": 3.0, "sigma": 1.0, "scale": 1.0}, "scale should be above"),
        ({"scale": -1.0}, "scale should be positive"),
        ({"hidden": (8,)}, "two maps or more"),
        ({"alphas": (0.1, 0.1, 0.1)}, "one α for each of 2 maps"),
        ({"alphas": (0.0, 0.1)}, "alphas should be positive"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BrenierDecoder(1, 2, **{"outputs": 5, "generator": generator(), **arguments})


@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (8, 2), (60, 7)])
def test_orthonormal_columns_by_either_route(shape: tuple[int, int]) -> None:
    w = normal(2, *shape).requires_grad_()
    q = orthonormal(w)
    assert (q.mT @ q - torch.eye(shape[1])).abs().max() < 1e-13
    r = q.mT @ w
    assert bool((r.diagonal(dim1=1, dim2=2) > 0).all()) and (r - r.triu()).abs().max() < 1e-12
    assert (q @ r - w).abs().max() < 1e-12
    assert torch.autograd.gradcheck(orthonormal, w)


def test_beta_is_an_isometry_times_its_scale_in_either_precision() -> None:
    for kind, room in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        beta = Orthogonal(1, 3, 10, scale=2.5, generator=generator()).to(kind)
        lower, upper = beta.lower_lipschitz(), beta.upper_lipschitz()
        assert lower is not None and 2.5 * (1 - room) < lower <= upper < 2.5 * (1 + room)
        exact = torch.linalg.svdvals(beta.basis()[0].detach().double())
        assert lower <= exact.min() * (1 + 1e-14) and exact.max() * (1 - 1e-14) <= upper
        lost = copy.deepcopy(beta)
        lost.weight.data[:, :, 1] = lost.weight.data[:, :, 0]
        assert lost.lower_lipschitz() is None or float(lost.basis().isfinite().all())


def test_floor_and_ceiling_are_those_of_a_linear_model() -> None:
    """``x = Wz + ε``: ``I = ½ log det(I + WᵀW/σ²)``, between the extreme singular values of W."""
    w = normal(6, 3)
    sigma = 0.7
    information = float(torch.logdet(torch.eye(3) + w.T @ w / sigma**2)) / 2
    values = torch.linalg.svdvals(w).tolist()
    assert information_floor(values[-1], sigma, 3) < information < information_ceiling(values[0], sigma, 3)
    by_direction = [(information_floor(s, sigma, 1), information_ceiling(s, sigma, 1)) for s in values]
    assert sum(low for low, _ in by_direction) <= information <= sum(high for _, high in by_direction) + 1e-12


def test_the_predicted_kl_is_the_average_of_posteriors() -> None:
    m, sigma, variance = 0.8, 0.5, 2.0
    x = math.sqrt(variance) * normal(400_000)
    posterior = td.Normal(m * x / (m**2 + sigma**2), sigma / math.sqrt(m**2 + sigma**2))
    kl = td.kl_divergence(posterior, td.Normal(torch.zeros_like(x), 1.0))
    error = 5 * float(kl.std()) / math.sqrt(len(kl))
    assert abs(float(kl.mean()) - predicted_kl(m, sigma, variance)) < error
    for bad in ({"lower": -1.0}, {"sigma": 0.0}, {"variance": -1.0}):
        with pytest.raises(ValueError, match=r"should (be|not be)"):
            predicted_kl(**{"lower": 1.0, "sigma": 1.0, "variance": 1.0, **bad})

"""Laws of the mixture models: bounds against quadrature, KL groups, separation after training, and what is proved."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import identkit as ik
from identkit.lidvae.component_laws import ComponentLaws, classes_of, least_distance
from identkit.lidvae.components import anchors
from identkit.lidvae.guarantee import MixtureGuarantee
from identkit.lidvae.members import member, members_of, stack
from identkit.lidvae.models.mixture import GMVAE, LIDMVAE, MixtureAutoencoder
from identkit.lidvae.posteriors import MixturePosterior, normal_log_prob
from identkit.verdict import Level
from tests.map_examples import generator

SIGMA = 0.6
COUNT = 3
BOTH = (LIDMVAE, GMVAE)


def _rows(n: int, columns: int = 3, likelihood: str = "gaussian", seed: int = 1) -> Tensor:
    x = torch.randn(n, columns, generator=generator(seed), dtype=torch.float64)
    if likelihood == "gaussian":
        return x
    if likelihood == "poisson":
        return torch.poisson(x.exp(), generator=generator(seed))
    return (x > 0).double() if likelihood == "bernoulli" else ((x > -0.4).long() + (x > 0.4).long())


def _made(kind: Any, latents: int = 2, likelihood: str = "gaussian", members: int = 1, **more: Any) -> Any:
    """A model in float64, started and then shaken, so that q is nowhere near prior or posterior."""
    if likelihood == "gaussian":
        more.setdefault("sigma", SIGMA)
    if likelihood == "categorical":
        more["categories"] = 3
    hidden = {"hidden": (4, 4), "encoder_hidden": (8,)}
    model = kind(3, latents, COUNT, likelihood, members=members, seed=3, **hidden, **more).double()
    model.start_(_rows(50, likelihood=likelihood), generator=generator(2))
    drawn = generator(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=drawn, dtype=torch.float64))
    return model


def _trained(model: Any, x: Tensor, steps: int = 15) -> Any:
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    drawn = generator(5)
    for _ in range(steps):
        rows = model.rows(x)
        loss = -model.terms(rows, model.infer(rows), 1, drawn).elbo().mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def _log_joint(model: MixtureAutoencoder, x: Tensor, points: int = 101) -> tuple[Tensor, Tensor, Tensor]:
    """``log p(x, y)`` (n, C) by the trapezoid rule on a grid about each component; and grid (C, g, K), log mass (C, g)."""
    mean, log_scale = (tensor.detach().squeeze(0) for tensor in model.placement())
    size = model.latents
    line = torch.linspace(-8, 8, points if size == 2 else 4001, dtype=torch.float64)
    mesh = torch.stack(torch.meshgrid(*[line] * size, indexing="ij"), -1).reshape(-1, size)
    grid = mean.unsqueeze(1) + log_scale.exp().unsqueeze(1) * mesh
    mass = size * (line[1] - line[0]).log() + log_scale.sum(1, keepdim=True).expand(-1, len(mesh))
    prior = normal_log_prob(grid, mean.unsqueeze(1), log_scale.unsqueeze(1)) - math.log(COUNT)
    rows = []
    with torch.no_grad():
        for number in range(COUNT):
            z = grid[number].unsqueeze(1).expand(-1, len(x), -1)
            found = model.log_likelihood(x, z)
            rows.append((found + (prior[number] + mass[number]).unsqueeze(1)).logsumexp(0))
    return torch.stack(rows, 1), grid, mass


CASES = [(kind, latents, likelihood) for kind in BOTH for latents in (1, 2) for likelihood in ("gaussian",)]
CASES += [(LIDMVAE, 1, "poisson"), (GMVAE, 1, "bernoulli"), (LIDMVAE, 2, "categorical")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}-{case[2]}")
def case(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    kind, latents, likelihood = request.param
    return _made(kind, latents, likelihood), _rows(3, likelihood=likelihood, seed=6)


def test_the_weights_are_unbiased_and_the_bound_is_one(case: tuple[Any, Tensor]) -> None:
    model, x = case
    joint, _, _ = _log_joint(model, x)
    evidence = joint.logsumexp(1)
    rows = model.rows(x)
    with torch.no_grad():
        q = model.infer(rows)
        weights = model.log_weights(rows, q, 5_000, generator(7)).squeeze(1)
        ratio = (weights - evidence).exp()
        error = ratio.std(0) / math.sqrt(len(ratio))
        assert ((ratio.mean(0) - 1).abs() < 6 * error).all() and (error < 0.2).all()
        bound = model.terms(rows, q, 2_000, generator(8)).elbo().squeeze(0)
        assert (bound < evidence).all()
        found = model.state_posterior(x, 40_000, generator(9))
        assert (found - joint.softmax(1)).abs().max() < 0.05
        # IWAE bounds grow with the draws, from the ELBO's side to the evidence.
        means = [
            (part.logsumexp(0) - math.log(len(part))).mean()
            for part in (weights.unflatten(0, (-1, s)).movedim(1, 0) for s in (1, 10, 100))
        ]
        assert means[0] < means[1] < means[2] < evidence.mean() + 0.05


@pytest.mark.parametrize("kind", BOTH)
def test_the_elbo_falls_short_by_the_kl_to_the_posterior(kind: Any) -> None:
    """``log p(x) − ELBO = KL(q(y, z | x) ‖ p(y, z | x))``, both by quadrature."""
    model, x = _made(kind, 1), _rows(3, seed=6)
    joint, _, _ = _log_joint(model, x)
    rows = model.rows(x)
    with torch.no_grad():
        q = model.infer(rows)
        terms = model.terms(rows, q, 20_000, generator(8))
        log_weight, mean, log_scale = q.log_weight[0], q.mean[0], q.log_scale[0]
        line = torch.linspace(-9, 9, 4001, dtype=torch.float64)
        z = mean.unsqueeze(0) + log_scale.exp().unsqueeze(0) * line.reshape(-1, 1, 1, 1)  # (g, n, C, 1)
        log_q = normal_log_prob(z, mean, log_scale)
        mass = (log_q + log_scale.squeeze(-1)).exp() * (line[1] - line[0])
        components = model.placement()
        prior = normal_log_prob(z, components.mean[0], components.log_scale[0]) - math.log(COUNT)
        decoded = torch.stack([model.log_likelihood(x, z[:, :, number]) for number in range(COUNT)], 2)
        inside = log_weight + log_q - decoded - prior
        gap = (log_weight.exp() * (mass * inside).sum(0)).sum(1) + joint.logsumexp(1)
    assert (gap > 0).all()
    difference = joint.logsumexp(1) - terms.elbo().squeeze(0)
    assert (difference - gap).abs().max() < 0.03 * gap.max()


@pytest.mark.parametrize("kind", BOTH)
def test_the_groups_add_up_to_the_kl_of_the_joint(kind: Any) -> None:
    model, x = _made(kind), _rows(4)
    with torch.no_grad():
        rows = model.rows(x)
        q = model.infer(rows)
        kl = model.terms(rows, q, 1, generator()).kl.squeeze(0)
        assert model.groups == ("y", "z[1]", "z[2]") and kl.shape == (4, 3) and (kl >= 0).all()
        states = torch.distributions.Categorical(logits=q.logits[0])
        uniform = torch.distributions.Categorical(logits=torch.zeros(COUNT, dtype=torch.float64))
        assert (kl[:, 0] - torch.distributions.kl_divergence(states, uniform)).abs().max() < 1e-12
        normals = torch.distributions.Normal(q.mean[0], q.log_scale[0].exp())
        mean, log_scale = (tensor[0] for tensor in model.placement())
        priors = torch.distributions.Normal(mean, log_scale.exp())
        each = torch.distributions.kl_divergence(normals, priors)
        assert (kl[:, 1:] - (states.probs.unsqueeze(2) * each).sum(1)).abs().max() < 1e-12
        # And by draws of the pair: E log q(y) q(z | y) / p(y) p(z | y).
        torch.manual_seed(0)
        y = states.sample((100_000,))
        index = y.reshape(-1, 4, 1, 1).expand(-1, -1, 1, 2)
        z = normals.sample((100_000,)).gather(2, index).squeeze(2)
        own = lambda law: law.log_prob(z.unsqueeze(2)).sum(3).gather(2, y.unsqueeze(2)).squeeze(2)
        ratio = states.log_prob(y) + own(normals) + math.log(COUNT) - own(priors)
        error = ratio.std(0) / math.sqrt(len(ratio))
        assert ((ratio.mean(0) - kl.sum(1)).abs() < 6 * error).all()


@pytest.mark.parametrize("kind", BOTH)
def test_an_encoder_that_says_nothing_gives_the_prior(kind: Any) -> None:
    model, x = _made(kind), _rows(4)
    with torch.no_grad():
        last = model.encoder.layers[-1]
        last.weight.zero_()
        last.bias.zero_()
        rows = model.rows(x)
        assert model.terms(rows, model.infer(rows), 1, generator()).kl.abs().max() < 1e-14
        z = _rows(4, 2)
        assert (model.encode(x).log_prob(z) - model.prior.log_prob(z)).abs().max() < 1e-12


@pytest.mark.parametrize("kind", BOTH)
def test_members_do_not_mix(kind: Any) -> None:
    model, x = _made(kind, members=3), _rows(5)
    alone = [member(model, number) for number in range(3)]
    assert members_of(model) == 3
    together = model.infer(model.rows(x))
    for number, one in enumerate(alone):
        for all_members, own in zip(together, one.infer(one.rows(x)), strict=True):
            assert (all_members[number] - own[0]).abs().max() < 1e-12
    assert torch.equal(stack(alone).infer(model.rows(x)).mean, together.mean)
    loss = -model.terms(model.rows(x), together, 1, generator()).elbo().mean(1)
    loss[1].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad[0].any() and not parameter.grad[2].any(), name
    inference = {id(parameter) for parameter in model.inference_parameters()}
    assert {id(p) for p in model.generative_parameters()} == {id(p) for p in model.parameters()} - inference


@pytest.mark.parametrize("kind", BOTH)
def test_laws_of_z_agree_with_their_draws(kind: Any) -> None:
    model, x = _made(kind), _rows(2)
    with torch.no_grad():
        q, law = model.infer(model.rows(x)), model.encode(x)
        z = q.draw(200_000, generator(1)).squeeze(1)
        assert (z.mean(0) - law.mean).abs().max() < 6 * law.stddev.max() / math.sqrt(len(z))
        assert (z.std(0) / law.stddev - 1).abs().max() < 0.02
        assert (q.latent_mean()[0] - law.mean).abs().max() < 1e-12
        assert (q.log_prob(z[:9].unsqueeze(1)).squeeze(1) - law.log_prob(z[:9])).abs().max() < 1e-12
        table = q.pairwise(z[:9, 0].unsqueeze(0))[0]
        assert (table - law.log_prob(z[:9, 0].unsqueeze(1))).abs().max() < 1e-11
        assert (model.states(x).sum(1) - 1).abs().max() < 1e-12
        rows, latents = model.sample(200_000, generator(2))
        prior = model.prior
        assert (latents.mean(0) - prior.mean).abs().max() < 6 * prior.stddev.max() / math.sqrt(len(latents))
        assert (latents.std(0) / prior.stddev - 1).abs().max() < 0.02
        residual = rows - model.decoder(latents)
        assert (residual.std() / SIGMA - 1).abs() < 0.02


def test_each_row_draws_from_its_own_components() -> None:
    """Rows that are certain of different components, so far apart that a draw tells where it comes from."""
    y = torch.tensor([[0, 2, 1, 2], [1, 0, 0, 2]])
    logits = 80.0 * torch.nn.functional.one_hot(y, COUNT)
    mean = (10.0 * torch.arange(COUNT)).reshape(COUNT, 1).expand(2, 4, COUNT, 1)
    z = MixturePosterior(logits, mean, torch.zeros_like(mean)).draw(50, generator())
    assert z.shape == (50, 2, 4, 1)
    assert ((z.squeeze(3) / 10).round() == y).all()


@pytest.mark.parametrize(
    ("count", "latents"), [(2, 1), (7, 1), (2, 2), (5, 2), (9, 2), (3, 3), (6, 3), (7, 3), (4, 9)]
)
def test_anchors_are_one_apart(count: int, latents: int) -> None:
    points = anchors(count, latents)
    assert points.shape == (count, latents)
    assert abs(least_distance(points) - 1) < 1e-6
    assert points.mean(0).norm() < 1  # about the origin


@pytest.mark.parametrize("latents", [1, 2])
def test_components_stay_apart_whatever_is_learned(latents: int) -> None:
    """Trained to put all components into one point, they come as near as the separation and no nearer."""
    separation = 2.5
    model = LIDMVAE(3, latents, 5, sigma=SIGMA, separation=separation, seed=1)
    optimiser = torch.optim.Adam(model.placement.parameters(), lr=0.2)
    for _ in range(150):
        optimiser.zero_grad()
        mean = model.placement().mean
        (mean - mean.mean(1, keepdim=True)).square().sum().backward()
        optimiser.step()
    mean = model.placement().mean.detach()
    found = model.certificate()
    assert found is not None
    stated = found.separation
    measured = min(
        sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(one, two, strict=True))
        for one, two in combinations(mean[0].tolist(), 2)
    )
    assert separation <= stated < 1.05 * separation
    assert Fraction(stated) ** 2 <= measured < (Fraction(stated) * (1 + Fraction(1, 10**12))) ** 2


def test_each_member_has_its_own_separation() -> None:
    model = LIDMVAE(3, 2, COUNT, sigma="learned", separation=(2.0, 5.0), members=2)
    stated = []
    for one in (member(model, 0), member(model, 1), model):
        found = one.certificate()
        assert isinstance(found, MixtureGuarantee)
        stated.append(found.separation)
    assert 2.0 <= stated[0] == stated[2] < 5.0 <= stated[1]


def test_the_certificate_holds_after_training() -> None:
    x = _rows(200)
    model = _trained(_made(LIDMVAE), x)
    found = model.certificate()
    assert isinstance(found, MixtureGuarantee) and found.upper is not None
    assert found.distinct is True and found.components == COUNT
    assert found.floor is not None and found.ceiling is not None and found.ceiling > math.log(COUNT)
    with torch.no_grad():
        z = model.prior.sample((500,)).to(torch.float64)
        quotient = torch.pdist(model.decoder(z)) / torch.pdist(z)
    assert found.lower <= quotient.min() and quotient.max() <= found.upper
    assert found.separation <= torch.pdist(model.placement().mean[0]).min()
    wanted = _made(LIDMVAE, min_information=0.7, alphas=None).certificate()
    assert wanted.floor is not None and 0.7 <= wanted.floor < 0.71
    assert "pairwise different" in str(found)


@pytest.mark.parametrize(
    ("likelihood", "level"),
    [("gaussian", "GLOBAL"), ("poisson", "GLOBAL"), ("bernoulli", "UNKNOWN"), ("categorical", "UNKNOWN")],
)
def test_what_is_proved_of_an_identifiable_mixture(likelihood: str, level: str) -> None:
    model = _made(LIDMVAE, likelihood=likelihood)
    verdict = ik.check(model)
    assert dict(verdict.latents) == {"y": Level(level), "z[1]": Level.GLOBAL, "z[2]": Level.GLOBAL}
    assert verdict.level is Level(level)
    assert verdict.certificate is not None and verdict.certificate.verify()
    assert any("integrated out" in assumption for assumption in verdict.assumptions)
    assert (model.certificate().distinct is True) == (level == "GLOBAL")


@pytest.mark.parametrize(("merged", "level"), [((2,), Level.PARTIAL), ((1, 2), Level.CONSTANT)])
def test_components_that_coincide_are_found(merged: tuple[int, ...], level: Level) -> None:
    model = _made(GMVAE, 1)
    layer = model.placement.layer
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight[:, :, merged] = layer.weight[:, :, :1]
    verdict = ik.check(model)
    assert verdict.latents["y"] is level
    same = " ~ ".join(f"y = {number + 1}" for number in (0, *merged))
    assert [law.map for law in verdict.invariances if law.kind == "merged states"] == [same]
    assert verdict.certificate is not None and verdict.certificate.verify()
    with torch.no_grad():  # one number, in its last digit
        layer.weight[:, 0, 2] = torch.nextafter(layer.weight[:, 0, 2], torch.tensor(9.0, dtype=torch.float64))
    mean, log_scale = (tensor[0] for tensor in model.placement())
    others = tuple(number for number in range(2) if number in (0, *merged))
    assert classes_of(mean, log_scale, ("z[1]",), set()) == (
        (others, (2,)) if len(others) > 1 else ((0,), (1,), (2,))
    )


def test_components_that_differ_where_the_decoder_does_not_look() -> None:
    model = _made(GMVAE)
    layer = model.placement.layer
    with torch.no_grad():
        model.decoder.layers[0].weight[:, :, 1] = 0.0
        layer.weight[:, 0] = 0.0
        layer.weight[:, 2] = 0.0
    verdict = ik.check(model)
    assert verdict.latents["z[2]"] is Level.CONSTANT and verdict.latents["y"] is Level.CONSTANT
    assert verdict.certificate is not None and verdict.certificate.verify()


def test_an_ordinary_mixture_with_a_linear_decoder_is_identifiable_and_proved_so() -> None:
    model = GMVAE(3, 2, COUNT, sigma=SIGMA, hidden=(), seed=2).double()
    verdict = ik.check(model)
    assert set(verdict.latents.values()) == {Level.GLOBAL}
    assert verdict.certificate is not None and verdict.certificate.verify()


def test_a_false_proof_does_not_verify() -> None:
    model = _made(LIDMVAE)
    certificate: Any = ik.check(model).certificate
    (proof,) = (part for part in certificate.parts if isinstance(part, ComponentLaws))
    assert proof.verify()
    assert not dataclasses.replace(proof, of_z=None).verify()
    of_z: Any = proof.of_z
    assert not dataclasses.replace(proof, of_z=dataclasses.replace(of_z, lower=1e3)).verify()
    assert not dataclasses.replace(proof, likelihood="bernoulli").verify()
    assert not dataclasses.replace(proof, classes=((0, 1), (2,))).verify()
    one = proof.mean.clone()
    one[1] = one[0]
    assert not dataclasses.replace(proof, mean=one).verify()


def test_a_module_of_the_users_own_encodes() -> None:
    own = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, COUNT * 5))
    model = LIDMVAE(3, 2, COUNT, encoder=own, members=2)
    x = _rows(4).float()
    assert model.infer(model.rows(x)).mean.shape == (2, 4, COUNT, 2)
    assert model.fresh(1, members=1).states(x).shape == (4, COUNT)
    wrong = LIDMVAE(3, 2, COUNT, encoder=nn.Linear(3, 4))
    with pytest.raises(ValueError, match="encoder should give 15 numbers"):
        wrong.states(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"components": 1}, "components should be"),
        ({"latent_dim": 4}, "latents should be at most"),
        ({"separation": 0.0}, "separation should be positive"),
        ({"separation": (1.0, 2.0)}, "separation should be one number"),
        ({"likelihood": "poisson", "min_information": 1.0}, "min_information goes with a Gaussian"),
        ({"sigma": -1.0}, "sigma should be positive"),
        ({"encoder": "forest"}, "encoder should be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    plain: dict[str, Any] = {"data_dim": 3, "latent_dim": 2, "components": 3}
    with pytest.raises((ValueError, TypeError), match=message):
        LIDMVAE(**(plain | arguments))


def test_questions_to_one_member_are_not_put_to_two() -> None:
    model = GMVAE(3, 2, COUNT, members=2)
    x = _rows(3).float()
    for ask in (
        lambda: model.prior,
        lambda: model.states(x),
        lambda: model.state_posterior(x),
        lambda: model.encode(x),
        lambda: model.verdict(),
    ):
        with pytest.raises(ValueError, match="goes with a model of one member"):
            ask()

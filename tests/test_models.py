"""Trained models: their bounds hold against quadrature, members never mix, and a certificate means what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor, nn

import identkit as ik
from identkit.lidvae.decoders import BrenierDecoder
from identkit.lidvae.likelihoods import Gaussian, likelihood_of
from identkit.lidvae.members import member, stack
from identkit.lidvae.models import GMVAE, LIDVAE, VAE, Autoencoder
from identkit.lidvae.models.plain import PlainAutoencoder
from identkit.lidvae.posteriors import GaussianPosterior
from identkit.verdict import Level
from tests.map_examples import generator, normal

LIKELIHOODS: dict[str, dict[str, Any]] = {
    "gaussian": {"sigma": 0.5},
    "bernoulli": {},
    "poisson": {},
    "categorical": {"categories": 3},
}


def data(likelihood: str, n: int = 6, columns: int = 3, seed: int = 0) -> Tensor:
    raw = normal(n, columns, seed=seed)
    if likelihood == "gaussian":
        return raw
    if likelihood == "categorical":
        return (raw.abs() * 1.3).long().clamp(max=2)
    return (raw > 0).double() if likelihood == "bernoulli" else (raw.abs() * 2).floor()


def built(kind: Any, likelihood: str, *, latents: int = 1, **more: Any) -> Autoencoder:
    """In float64, begun from data and shaken, so that no weight is where it started."""
    model = kind(
        3, latents, likelihood, hidden=(8, 8), encoder_hidden=(8,), **LIKELIHOODS[likelihood], **more
    )
    model = model.double()
    model.start_(data(likelihood, 50, seed=1), generator=generator())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(5), dtype=torch.float64))
    return model.eval()


def evidence(model: Autoencoder, x: Tensor) -> Tensor:
    """log p(x) by the trapezoid rule over z, K = 1: another way to the truth than any draws."""
    z = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    grid = z[:, None, None].expand(-1, len(x), 1)
    values = model.log_likelihood(x, grid) + td.Normal(0.0, 1.0).log_prob(z)[:, None]
    return values.logsumexp(0) + math.log(float(z[1] - z[0]))


@pytest.fixture(
    params=[(kind, name) for kind in (VAE, LIDVAE) for name in LIKELIHOODS],
    ids=lambda p: f"{p[0].name}-{p[1]}",
)
def pair(request: pytest.FixtureRequest) -> tuple[Autoencoder, Tensor]:
    kind, likelihood = request.param
    return built(kind, likelihood), data(likelihood)


# --- bounds against quadrature -----------------------------------------------------------------------------


@torch.no_grad()
def test_the_elbo_is_below_the_evidence_by_the_divergence_of_q_from_the_posterior(
    pair: tuple[Any, Tensor],
) -> None:
    model, x = pair
    rows = model.rows(x)
    q = model.infer(rows)
    draws = model.decoded(rows, q.draw(20_000, generator()))[:, 0]
    elbo = draws.mean(0) - q.kl().sum(-1)[0]
    error = 6 * draws.std(0) / math.sqrt(len(draws)) + 1e-6
    truth = evidence(model, x)
    z = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    grid = z[:, None, None].expand(-1, len(x), 1)
    posterior = model.log_likelihood(x, grid) + td.Normal(0.0, 1.0).log_prob(z)[:, None] - truth
    approximate = q.log_prob(grid[:, None])[:, 0]
    gap = (approximate.exp() * (approximate - posterior)).sum(0) * float(z[1] - z[0])
    assert bool(((truth - elbo - gap).abs() < error).all())
    assert bool((elbo <= truth + error).all())
    assert torch.allclose(
        model.terms(rows, q, 2000, generator()).elbo()[0], elbo, atol=8 * float(error.max())
    )


@torch.no_grad()
def test_importance_weights_average_to_the_evidence(pair: tuple[Any, Tensor]) -> None:
    model, x = pair
    weights = model.log_weights(model.rows(x), model.infer(model.rows(x)), 20_000, generator())[:, 0]
    found = weights.logsumexp(0) - math.log(len(weights))
    spread = (weights - found).exp().std(0) / math.sqrt(len(weights))
    assert bool(((found - evidence(model, x)).abs() < 6 * spread + 1e-6).all())


def test_the_likelihood_is_that_of_its_distribution(pair: tuple[Any, Tensor]) -> None:
    model, x = pair
    f = normal(len(x), model.likelihood.outputs)
    direct = model.likelihood(f).log_prob(x).sum(-1)
    assert torch.allclose(model.likelihood.log_prob(x, f), direct, atol=1e-12)
    drawn = model.likelihood.draw(f[:1].expand(200_000, -1), generator())
    if model.likelihood.name == "categorical":
        share = (drawn == 0).double().mean(0)
        assert torch.allclose(share, model.likelihood(f[:1]).probs[0, :, 0], atol=0.006)
    else:
        law = model.likelihood(f[:1])
        error = 6 * law.stddev[0] / math.sqrt(len(drawn))
        assert bool(((drawn.mean(0) - law.mean[0]).abs() < error).all())


def test_the_start_repeats_the_columns_own_law(pair: tuple[Any, Tensor]) -> None:
    model, _ = pair
    x = data(model.likelihood.name, 2000, seed=3)
    law = model.likelihood(model.likelihood.centre(x).expand(1, -1))
    if model.likelihood.name == "categorical":
        assert torch.allclose(law.probs[0, :, 1].double(), (x == 1).double().mean(0), atol=2e-3)
    else:
        assert torch.allclose(law.mean[0], x.mean(0), atol=2e-3)


# --- the approximate posterior -----------------------------------------------------------------------------


def test_the_posterior_is_the_normal_that_it_says() -> None:
    q = GaussianPosterior(normal(2, 5, 3), 0.5 * normal(2, 5, 3, seed=1))
    law = td.Normal(q.mean, q.log_scale.exp())
    wanted = td.kl_divergence(law, td.Normal(torch.zeros(3).double(), torch.ones(3).double()))
    assert torch.allclose(q.kl(), wanted, atol=1e-12)
    z = normal(2, 4, 3, seed=2)
    table = q.pairwise(z)
    for row in range(5):
        direct = td.Normal(q.mean[:, row : row + 1], q.log_scale[:, row : row + 1].exp()).log_prob(z).sum(-1)
        assert torch.allclose(table[:, :, row], direct, atol=1e-10)
    drawn = q.draw(100_000, generator())
    assert (drawn.mean(0) - q.mean).abs().max() < 0.03
    assert (drawn.std(0).log() - q.log_scale).abs().max() < 0.02


# --- members -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VAE, LIDVAE])
def test_members_are_what_they_would_be_alone(kind: Any) -> None:
    model = built(kind, "gaussian", latents=2, members=3)
    x = normal(3, 7, 3)
    z = normal(4, 3, 7, 2, seed=8)
    alone = [member(model, number) for number in range(3)]
    for number, one in enumerate(alone):
        assert torch.allclose(
            one.decoded(x[number : number + 1], z[:, number : number + 1])[:, 0],
            model.decoded(x, z)[:, number],
        )
        for own, all_of_it in zip(one.infer(x[number : number + 1]), model.infer(x), strict=True):
            assert torch.allclose(own[0], all_of_it[number])
    again = stack(alone)
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )
    model.terms(x, model.infer(x), 2, generator()).elbo()[1].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert not parameter.grad[[0, 2]].any(), name


def test_settings_of_members_are_their_own() -> None:
    model = LIDVAE(3, 2, sigma=[0.5, 1.0], min_information=[1.0, 2.0], members=2)
    floors = [
        found.floor for number in range(2) if (found := member(model, number).certificate()) is not None
    ]
    assert floors == [pytest.approx(1.0, rel=1e-3), pytest.approx(2.0, rel=1e-3)]
    assert all(floor is not None and floor >= asked for floor, asked in zip(floors, (1.0, 2.0), strict=True))


def test_fresh_weights_come_from_the_seed_alone() -> None:
    model = built(LIDVAE, "gaussian")
    one, two, other = model.fresh(3), model.fresh(3), model.fresh(4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.dtype == torch.float64 and not bool(one.started.any())


# --- what the check says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_identifiable_model_is_global_and_says_why(likelihood: str) -> None:
    model = built(LIDVAE, likelihood, latents=2)
    verdict = ik.check(model)
    assert verdict.level is Level.GLOBAL
    assert verdict.certificate is not None and verdict.certificate.verify()
    found = model.certificate()
    assert found is not None and found.lower == pytest.approx(0.04, rel=1e-6)
    assert (found.floor is None) == (likelihood != "gaussian")


def test_the_ordinary_model_is_not_global() -> None:
    model = built(VAE, "gaussian", latents=2)
    assert ik.check(model).level is not Level.GLOBAL
    assert model.certificate() is None


def test_the_certificate_predicts_what_a_linear_model_has() -> None:
    """A decoder m·Q is at its floor: on data of its own the posterior's KL is the calculator's, direction by direction."""
    lower, sigma = 0.8, 0.5
    x = normal(20_000, 3) * torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)
    found = ik.PPCA(lower * torch.eye(3, 2).double(), sigma, torch.zeros(3).double()).kl_per_latent(x).mean(0)
    model = LIDVAE(3, 2, sigma=sigma, alphas=(0.8, 1.0), scale=1.0)
    guarantee = model.certificate(x)
    assert guarantee is not None
    assert guarantee.predicted == pytest.approx(found.tolist(), rel=0.02)


# --- modules of the user's own -------------------------------------------------------------------------------


class Reader(nn.Module):
    """An LSTM along the columns, to means and log scales."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(1, 5, batch_first=True)
        self.out = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.memory(x.unsqueeze(-1))[0][:, -1])


def test_a_users_modules_are_members_too() -> None:
    encoder, decoder = Reader(), nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3))
    model = VAE(3, 2, encoder=encoder, decoder=decoder, members=2)
    x = normal(5, 3).float()
    q = model.infer(model.rows(x))
    assert torch.allclose(q.mean[0], encoder(x)[:, :2])  # the first member has the module's own weights
    assert not torch.allclose(q.mean[1], encoder(x)[:, :2])
    assert torch.equal(model.decoder(torch.zeros(2, 1, 2))[0], decoder(torch.zeros(1, 2)))
    model.terms(model.rows(x), q, 1, generator()).elbo().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    fresh = model.fresh(1)
    assert not torch.allclose(fresh.infer(fresh.rows(x)).mean[0], encoder(x)[:, :2])


def test_a_decoder_that_proves_itself_is_taken_and_another_is_not() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(2))

        def reset_parameters(self) -> None:
            nn.init.zeros_(self.shift)

        def forward(self, z: Tensor) -> Tensor:
            return 2 * z + self.shift

        def lower_lipschitz(self) -> float:
            return 2.0

        def upper_lipschitz(self) -> float:
            return 2.0

    model = LIDVAE(2, 2, decoder=Doubling())
    found = model.certificate()
    assert found is not None and (found.lower, found.upper) == (2.0, 2.0)
    assert found.floor == pytest.approx(math.log(5))
    with pytest.raises(ValueError, match="decoder should bound itself from below"):
        LIDVAE(2, 2, decoder=nn.Linear(2, 2))


def test_weights_that_cannot_start_anew_are_named() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3))

        def forward(self, z: Tensor) -> Tensor:
            return z @ self.weight

    model = VAE(3, 2, decoder=Bare())
    with pytest.raises(ValueError, match=r"has weights and no reset_parameters"):
        model.fresh(1)


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_dim": 3, "latent_dim": 0}, "latent_dim should be a whole number of at least 1, got 0"),
        ({"data_dim": 3, "latent_dim": 4}, "latents should be at most"),
        ({"likelihood": "normal"}, "likelihood should be one of gaussian, bernoulli"),
        ({"likelihood": "bernoulli", "sigma": 0.1}, "sigma goes with a gaussian likelihood"),
        ({"likelihood": "categorical"}, "categories should be the number of values"),
        ({"sigma": -1.0}, "sigma should be positive and finite"),
        ({"sigma": "free"}, "sigma should be positive, or 'learned', got 'free'"),
        (
            {"sigma": "learned", "min_information": 1.0},
            "min_information goes with a Gaussian likelihood of fixed sigma",
        ),
        (
            {"likelihood": "bernoulli", "min_information": 1.0},
            "min_information goes with a Gaussian likelihood",
        ),
        ({"min_information": -1.0}, "min_information should be positive"),
        ({"map": "spline"}, "map should be one of monotone, logsumexp, icnn"),
        ({"encoder": "lstm"}, "encoder should be 'mlp', 'residual' or a module, got 'lstm'"),
        ({"encoder": "residual"}, "shape should be the channels, height and width of 3 columns"),
        ({"members": 0}, "members should be a whole number of at least 1, got 0"),
        ({"seed": -1}, "seed should be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LIDVAE(**{"data_dim": 3, "latent_dim": 2, **arguments})


def test_rows_of_another_shape_are_refused() -> None:
    model = VAE(3, 2, members=2)
    with pytest.raises(ValueError, match=r"x should have shape \(n, 3\) or \(2, n, 3\), got \(5, 4\)"):
        model.rows(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="encode goes with a model of one member, got 2"):
        model.encode(torch.zeros(5, 3))


def test_a_sample_has_the_law_of_the_model() -> None:
    model = built(LIDVAE, "gaussian", latents=2)
    x, z = model.sample(50_000, generator())
    assert isinstance(model, PlainAutoencoder) and isinstance(model.likelihood, Gaussian)
    with torch.no_grad():
        f = model.decoder(z)
    assert (x - f).std() == pytest.approx(0.5, rel=0.01)
    assert z.mean(0).abs().max() < 0.03
    assert likelihood_of("gaussian", 1, 3).outputs == 3


@pytest.mark.parametrize("units", [0.01, 1.0, 300.0])
def test_a_learned_sigma_starts_beside_the_data_in_any_units(units: float) -> None:
    """A quarter of the columns' spread; a decoder of one's own has a scale of its own, and a fixed sigma stays."""
    rows = units * torch.randn(400, 3, generator=generator(1))
    spread = float(rows.std(0).square().mean().sqrt())
    for kind in (VAE, LIDVAE, GMVAE):
        make: Any = kind
        arguments = {"components": 2} if kind is GMVAE else {}
        model = make(3, 2, sigma="learned", **arguments)
        model.start_(rows, generator=generator())
        assert model.likelihood.sigma.item() == pytest.approx(spread / 4, rel=1e-4)
        fixed = make(3, 2, sigma=0.5, **arguments)
        fixed.start_(rows, generator=generator())
        assert fixed.likelihood.sigma.item() == pytest.approx(0.5)
    own = VAE(3, 2, sigma="learned", decoder=nn.Linear(2, 3))
    own.start_(rows, generator=generator())
    assert isinstance(own.likelihood, Gaussian)
    assert own.likelihood.sigma.item() == 1.0


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_information_is_the_curvature_of_the_likelihood(name: str) -> None:
    likelihood = likelihood_of(name, 1, 2, **LIKELIHOODS[name]).double()
    f = normal(likelihood.outputs, seed=3).requires_grad_()
    law = likelihood(f.unsqueeze(0))
    # Every x of one column that has weight, by enumeration or by quadrature; the columns are independent.
    grid = {"gaussian": torch.arange(-8, 8, 0.05), "bernoulli": torch.arange(2)}.get(name, torch.arange(60))
    values = (grid[:3] if name == "categorical" else grid).to(f)
    chance = law.log_prob(values[:, None].expand(-1, 2)).exp().detach()
    chance = chance / chance.sum(0)
    share = likelihood.outputs // 2
    found = likelihood.information(f.detach().unsqueeze(0))[0]
    for output in range(likelihood.outputs):
        scores = []
        for value in values:
            (score,) = torch.autograd.grad(likelihood.log_prob(value.expand(1, 2), f.unsqueeze(0)).sum(), f)
            scores.append(score[output])
        expected = (torch.stack(scores).square() * chance[:, output // share]).sum()
        assert float(found[output]) == pytest.approx(float(expected), rel=1e-3)


def test_the_swing_of_zeros_and_ones_is_what_one_row_just_shows() -> None:
    x = (normal(4000, 5) > torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])).double()
    p = x.mean(0)
    swing = likelihood_of("bernoulli", 1, 5).swing(x)
    assert swing == pytest.approx(float((p * (1 - p)).mean().rsqrt()), rel=1e-3)
    assert likelihood_of("categorical", 1, 5, categories=2).swing(x.long()) == pytest.approx(swing, rel=1e-3)
    # Counts that vary more than their law says swing farther; a Gaussian's outputs are in the data's units.
    counts = torch.poisson(4 * torch.ones(4000, 5), generator=generator()).double()
    poisson = likelihood_of("poisson", 1, 5)
    assert poisson.swing(counts) == pytest.approx(0.5, rel=0.02)
    assert poisson.swing(counts * torch.randint(3, (4000, 5), generator=generator())) > 0.8
    assert likelihood_of("gaussian", 1, 5).swing(7 * normal(4000, 5)) == pytest.approx(7, rel=0.02)


@pytest.mark.parametrize("name", ["bernoulli", "poisson", "categorical"])
def test_a_natural_parameter_starts_with_one_swing_per_latent(name: str) -> None:
    x = data(name, 400, 40)
    model = LIDVAE(40, 3, name, hidden=(32, 32), encoder_hidden=(8,), **LIKELIHOODS[name]).double()
    certified = model.certificate()
    model.start_(x, generator=generator())
    with torch.no_grad():
        f = model.decoder(normal(4000, 3))
    steep = float(f.var(0).sum().div(3).sqrt())
    assert 0.7 < steep / model.likelihood.swing(x) < 1.5
    assert (f.mean(0) - model.likelihood.centre(x)).abs().max() < 0.3
    after = model.certificate()
    assert certified is not None and after is not None and after.lower == certified.lower


def test_means_start_with_the_spread_of_the_columns_shared_among_the_maps() -> None:
    x = 3 * data("gaussian", 200, 5)
    model = LIDVAE(5, 2, sigma=0.5).double()
    by_hand = LIDVAE(5, 2, sigma=0.5).double()
    model.start_(x, generator=generator())
    drawn = generator()
    z = by_hand._prior_draws(1024, drawn)
    total = float(x.std(0).square().mean().sqrt()) * math.sqrt(5) / z.var(1).sum(1).sqrt()
    assert isinstance(by_hand.decoder, BrenierDecoder)
    by_hand.decoder.start_(x.mean(0), slope=total.sqrt(), z=z, generator=drawn)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.decoder.parameters(), by_hand.decoder.parameters(), strict=True)
    )

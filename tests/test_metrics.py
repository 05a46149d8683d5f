"""What is measured of a trained model: bounds against quadrature and closed forms, partitions against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import nn
from torch.distributions import Normal

from identkit.lidvae.members import stack
from identkit.lidvae.metrics import Metrics, aggregate_information, log_density, measure
from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.posteriors import GaussianPosterior
from identkit.lidvae.states import agreement, state_information

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Exact(nn.Module):
    """The posterior of ``x = W z + σ ε``; `wider` makes it too wide."""

    def __init__(self, weight: torch.Tensor, sigma: float, wider: float = 1.0) -> None:
        super().__init__()
        precision = torch.eye(weight.shape[1], dtype=DOUBLE) + weight.T @ weight / sigma**2
        self.gain = nn.Parameter(torch.linalg.solve(precision, weight.T / sigma**2))
        self.scale = nn.Parameter(wider / precision.diagonal().sqrt())

    def forward(self, x: torch.Tensor) -> Normal:
        return Normal(x @ self.gain.T, self.scale.expand(len(x), -1))


def linear(weight: torch.Tensor, sigma: float, wider: float = 1.0) -> VAE:
    """A linear-Gaussian model with orthogonal columns, whose posterior has independent coordinates."""
    decoder = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=DOUBLE)
    decoder.weight.data.copy_(weight)
    encoder = Exact(weight, sigma, wider)
    return VAE(
        len(weight), weight.shape[1], sigma=sigma, encoder=encoder, decoder=decoder, members=1
    ).double()


WEIGHT = torch.tensor([[1.0, 0.4], [1.0, -0.4], [0.5, 0.0]], dtype=DOUBLE)
SIGMA = 0.8


def closed_form(weight: torch.Tensor, sigma: float) -> float:
    k = weight.shape[1]
    return float(torch.logdet(torch.eye(k, dtype=DOUBLE) + weight.T @ weight / sigma**2)) / 2


def test_a_linear_model_is_measured_as_its_closed_form():
    model = linear(WEIGHT, SIGMA)
    x, _ = model.sample(3000, generator())
    found = measure(model, x, samples=5)[0]
    marginal = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=DOUBLE), WEIGHT @ WEIGHT.T + SIGMA**2 * torch.eye(3, dtype=DOUBLE)
    )
    truth = float(marginal.log_prob(x).mean())
    information = closed_form(WEIGHT, SIGMA)
    assert found.log_likelihood == pytest.approx(truth, abs=1e-9)  # the exact q: every weight is p(x)
    assert found.elbo == pytest.approx(truth, abs=0.02)
    # Of the rows: the average KL under the model is the information.
    assert found.total_kl == pytest.approx(information, abs=0.05)
    assert found.information == pytest.approx(information, abs=4 * found.information_error)
    assert found.reconstruction == pytest.approx(found.elbo + found.total_kl, abs=1e-9)
    assert found.active_units == ("z[1]", "z[2]")
    assert found.lower is not None or found.floor is None


def test_kl_of_each_latent_is_the_gaussian_one():
    model = linear(WEIGHT, SIGMA, wider=1.5)
    x, _ = model.sample(50, generator())
    law = model.encode(x).base_dist  # type: ignore[attr-defined]
    wanted = torch.distributions.kl_divergence(law, Normal(0.0, 1.0)).mean(0)
    found = measure(model, x, samples=2)[0]
    assert list(found.kl) == ["z[1]", "z[2]"]
    assert torch.tensor(list(found.kl.values()), dtype=DOUBLE).allclose(wanted, atol=1e-9)


def test_a_latent_that_the_encoder_ignores_is_not_active():
    model = linear(torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=DOUBLE), 1.0)
    x, _ = model.sample(200, generator())
    found = measure(model, x, samples=2)[0]
    assert found.active_units == ("z[1]",)
    assert found.kl["z[2]"] == pytest.approx(0.0, abs=1e-12)
    spread = float(model.encode(x).mean.detach().var(0)[0])
    assert measure(model, x, samples=2, threshold=spread + 1e-9)[0].active_units == ()
    assert measure(model, x, samples=2, threshold=spread - 1e-9)[0].active_units == ("z[1]",)


@pytest.mark.parametrize("latents", [1, 2])
def test_importance_weights_rise_to_quadrature(latents):
    """``log p(x)`` of a nonlinear decoder, by a dense grid."""
    model = VAE(2, latents, sigma=0.7, hidden=(8,), encoder_hidden=(8,), seed=3).double()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(2.0)
    x = torch.tensor([[0.0, 0.5], [1.0, -1.0], [-0.4, 0.3]], dtype=DOUBLE)
    axis = torch.linspace(-7, 7, 701, dtype=DOUBLE)
    z = torch.cartesian_prod(*[axis] * latents).reshape(-1, latents)
    joint = torch.cat(
        [
            model.log_likelihood(row.expand(len(z), -1), z).detach() + model.prior.log_prob(z)
            for row in x.unsqueeze(1)
        ]
    )
    truth = joint.reshape(len(x), -1).logsumexp(1) + latents * math.log(14 / 700)
    bounds = [log_density(model, x, samples=samples, seed=1).mean() for samples in (1, 5, 50_000)]
    many = torch.stack([log_density(model, x, samples=1, seed=seed).mean() for seed in range(200)])
    fewer = torch.stack([log_density(model, x, samples=5, seed=seed).mean() for seed in range(200)])
    assert many.mean() + 3 * many.std() / 200**0.5 < fewer.mean() < truth.mean() + 1e-3
    assert bounds[2] == pytest.approx(float(truth.mean()), abs=0.02)
    assert log_density(model, x, samples=50_000).squeeze(0).allclose(truth, atol=0.05)


def test_information_is_capped_by_the_number_of_rows():
    """Posteriors without overlap: log n exactly; without information: nothing."""
    mean = 100.0 * torch.arange(40, dtype=DOUBLE).reshape(1, 40, 1)
    sharp = aggregate_information(GaussianPosterior(mean, torch.zeros_like(mean)), generator())
    assert float(sharp.value) == pytest.approx(math.log(40), abs=1e-9)
    assert sharp.cap == math.log(40)
    blind = aggregate_information(GaussianPosterior(0 * mean, torch.zeros_like(mean)), generator())
    assert float(blind.value) == pytest.approx(0.0, abs=1e-12)


def test_members_are_measured_each_for_itself():
    models = [linear(WEIGHT, SIGMA, wider) for wider in (1.0, 2.0)]
    x, _ = models[0].sample(300, generator())
    both = measure(stack(models), x, samples=50)
    alone = [measure(model, x, samples=50)[0] for model in models]
    for one, two in zip(both, alone, strict=True):
        assert one.kl == pytest.approx(two.kl, rel=1e-9)
        assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=0.05)
        assert one.information == pytest.approx(two.information, abs=6 * two.information_error)
    assert both[0].elbo > both[1].elbo


def test_the_certified_column():
    model = LIDVAE(4, 2, sigma=0.5, min_information=1.0, hidden=(8, 8), members=2)
    x = torch.randn(20, 4, generator=generator())
    first, second = measure(model, x, samples=3, certify=[1])
    assert (first.verdict, second.verdict) == (None, "GLOBAL")
    for found in (first, second):
        assert found.floor is not None
        assert found.floor >= 1.0
        assert found.lower == pytest.approx(model.certificate().lower, rel=1e-3)  # type: ignore[union-attr]
    plain = measure(VAE(4, 2, sigma=0.5, hidden=(8,)), x, samples=3, certify=[0])[0]
    assert (plain.lower, plain.floor) == (None, None)
    assert plain.verdict != "GLOBAL"


def test_metrics_survive_json():
    model = LIDVAE(3, 1, sigma=0.5, hidden=(4, 4))
    found = measure(model, torch.randn(12, 3, generator=generator()), samples=3)[0]
    assert Metrics.from_dict(found.to_dict()) == found


def test_what_is_refused():
    model = linear(WEIGHT, SIGMA)
    x = torch.zeros(3, 3)
    for wrong, words in (
        (lambda: measure(model, x[:1]), "two rows"),
        (lambda: measure(model, x, samples=0), "samples"),
        (lambda: measure(model, x, certify=[1]), "certify"),
        (lambda: agreement(torch.zeros(0).long(), torch.zeros(0).long()), "at least one"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


@pytest.mark.parametrize("classes", [(2, 2), (5, 5), (3, 7), (6, 2), (1, 4), (1, 1), (40, 40)])
@pytest.mark.parametrize("faithful", [0.0, 0.7, 1.0])
def test_agreement_is_scikit_learns(classes, faithful):
    source = generator(classes[0] + 10 * classes[1])
    labels = torch.randint(classes[0], (200,), generator=source)
    noise = torch.randint(classes[1], (200,), generator=source)
    kept = torch.rand(200, generator=source) < faithful
    states = torch.where(kept, (labels * 3 + 1) % max(classes[1], 1), noise)
    found = agreement(labels, states)
    assert found.ari == pytest.approx(adjusted_rand_score(labels, states), abs=1e-12)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(labels, states), abs=1e-12)
    assert agreement(states, labels) == pytest.approx(found, abs=1e-12)  # neither is the truth
    renamed = agreement(labels, (states * 17 + 5) % 1009)
    assert renamed == pytest.approx(found, abs=1e-12)


def test_agreement_of_rows_that_are_all_apart():
    every = torch.arange(5)
    assert agreement(every, every) == (1.0, 1.0, 1.0)


def test_accuracy_is_that_of_the_best_names():
    """By all permutations of four states, and at least the share of the largest class."""
    from itertools import permutations

    source = generator(5)
    labels, states = (torch.randint(4, (60,), generator=source) for _ in range(2))
    best = max(
        float((torch.tensor(names)[states] == labels).double().mean()) for names in permutations(range(4))
    )
    assert agreement(labels, states).accuracy == pytest.approx(best, abs=1e-12)


def test_state_information_is_that_of_the_table():
    """Against ``Σ p(i, y) log p(i, y)/(p(i) p(y))``, and against its cap."""
    logits = 2 * torch.randn(2, 30, 5, generator=generator(), dtype=DOUBLE)
    weights = logits.log_softmax(-1)
    joint = weights.exp() / 30
    wanted = (joint * (joint.log() - math.log(1 / 30) - joint.sum(1, keepdim=True).log())).sum((1, 2))
    value, error = state_information(weights)
    assert value.allclose(wanted)
    assert bool(((value > 0) & (value < math.log(5)) & (error > 0)).all())
    certain = torch.full((1, 5, 5), -torch.inf, dtype=DOUBLE)
    certain[0].fill_diagonal_(0.0)
    assert float(state_information(certain)[0]) == pytest.approx(math.log(5), abs=1e-12)
    same = weights[:, :1].expand(-1, 30, -1)
    assert state_information(same)[0].abs().max() < 1e-12

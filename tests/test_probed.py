"""What a numeric check takes and refuses: decoders, densities, priors, and laws read as numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td
from torch import nn

from identkit.numeric.jacobian import jacobians
from identkit.numeric.laws import divergence, fisher_coordinates, parameters
from identkit.numeric.prior import prior_of
from identkit.numeric.probed import probed

TWO = td.Normal(torch.zeros(2), torch.ones(2))
POSITIVE = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64)


def gaussian(f):
    return td.Normal(f, 0.5)


def network(inputs=2, outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def overwriting(z):
    y = z.clone()
    y[:, 0] *= y[:, 1]
    y[:, 1].add_(1.0)
    return y


# A one-parameter curve of laws of each family with a Fisher rule; a is about 0.4.
CURVES = {
    "normal": lambda a: td.Normal(a.sin(), (1 + a).exp()),
    "lognormal": lambda a: td.LogNormal(a, 1 + a**2),
    "bernoulli": lambda a: td.Bernoulli(logits=3 * a - 1),
    "bernoulli by probability": lambda a: td.Bernoulli(probs=a / 2),
    "binomial": lambda a: td.Binomial(7, logits=3 * a - 1),
    "categorical": lambda a: td.Categorical(logits=torch.cat([a, a**2, -a], -1).unsqueeze(-2)),
    "one-hot": lambda a: td.OneHotCategorical(logits=torch.cat([a, a**2, -a], -1).unsqueeze(-2)),
    "poisson": lambda a: td.Poisson((2 * a).exp()),
    "exponential": lambda a: td.Exponential((2 * a).exp()),
    "half normal": lambda a: td.HalfNormal((2 * a).exp()),
    "laplace": lambda a: td.Laplace(torch.zeros_like(a), (2 * a).exp()),
    "gaussian": lambda a: td.MultivariateNormal(
        torch.cat([a, a**2], -1),
        torch.stack([torch.cat([1 + a**2, 0.3 * a], -1), torch.cat([0.3 * a, 2 + a], -1)], -2),
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_fisher_coordinates_have_the_curvature_of_the_divergence(name):
    """``KL(θ, θ + h) + KL(θ + h, θ) = h²·I + O(h³)``; at the midpoint the cubic term is gone."""
    curve, step = CURVES[name], 1e-3
    a = torch.full((1, 1), 0.4, dtype=torch.float64)
    tangent = jacobians(lambda t: fisher_coordinates(curve(t)), a)
    between = divergence(curve(a - step / 2), curve(a + step / 2)) / step**2
    assert tangent.square().sum().item() == pytest.approx(between.item(), rel=1e-5)


FAMILIES = [
    lambda a: td.Normal(a, 1 + a),
    lambda a: td.LogNormal(a, 1 + a),
    lambda a: td.Laplace(a, 1 + a),
    lambda a: td.Cauchy(a, 1 + a),
    lambda a: td.Gumbel(a, 1 + a),
    lambda a: td.StudentT(3 + a, a, 1 + a),
    lambda a: td.Gamma(a, 1 + a),
    lambda a: td.Beta(a, 1 + a),
    lambda a: td.Exponential(a),
    lambda a: td.Poisson(a),
    lambda a: td.Geometric(torch.sigmoid(a)),
    lambda a: td.Binomial(5, torch.sigmoid(a)),
    lambda a: td.NegativeBinomial(5, torch.sigmoid(a)),
    lambda a: td.HalfNormal(a),
    lambda a: td.Weibull(a, 1 + a),
    lambda a: td.Chi2(a),
    lambda a: td.Independent(td.Normal(a, 1.0), 1),
    lambda a: td.Dirichlet(torch.cat([a, 1 + a], -1)),
    lambda a: td.Categorical(probs=torch.cat([torch.sigmoid(a), 1 - torch.sigmoid(a)], -1)),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f(POSITIVE.unsqueeze(1))).__name__)
def test_parameters_differ_where_laws_do(family):
    """Two laws have the same parameters exactly when they are the same law, by their divergence where torch has one."""
    values = POSITIVE.unsqueeze(1)
    numbers = parameters(family(values))
    again = parameters(family(values.clone()))
    assert numbers.shape[0] == 3 and torch.equal(numbers, again)
    assert (numbers[:-1] - numbers[1:]).abs().amax(1).min() > 1e-3


def test_categorical_parameters_are_minimal():
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shifted = td.Categorical(logits=logits + 3)
    assert parameters(shifted).shape == (4, 4)
    assert torch.allclose(parameters(shifted), parameters(td.Categorical(logits=logits)), atol=1e-14)


def test_the_law_of_a_module_is_that_of_its_float64_copy():
    net = network()
    p = probed(net, TWO, gaussian)
    z = p.prior.sample(5)
    assert p.dtype == torch.float64 and next(net.parameters()).dtype == torch.float32
    assert torch.allclose(p.parameters(z)[:, :3].float(), net(z.float()), atol=1e-6)
    closed_over = probed(lambda z: net(z), TWO, gaussian)
    assert closed_over.dtype == torch.float64
    assert torch.equal(closed_over.parameters(z), p.parameters(z))
    rounding_on_the_way = probed(lambda z: net(z.float()).to(torch.float32), TWO, gaussian)
    assert torch.equal(rounding_on_the_way.parameters(z), p.parameters(z))


def test_what_computes_in_float32_alone_is_taken_as_it_is():
    def picky(z):
        if z.dtype != torch.float32:
            raise RuntimeError("expected dtype float32")
        return z

    assert probed(picky, TWO, gaussian).dtype == torch.float32


def test_log_likelihood_is_row_by_row():
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p = probed(network(), TWO, gaussian, x)
    q = probed(lambda x, z: gaussian(p.decoder(z)).log_prob(x).sum(1), TWO, x=x)
    z = p.prior.sample(6)
    assert p.log_likelihood(z).shape == (6, 4)
    assert torch.allclose(p.log_likelihood(z), q.log_likelihood(z))
    one = probed(lambda z: gaussian(p.decoder(z)).log_prob(x[0]).sum(1), TWO)
    assert torch.allclose(one.log_likelihood(z)[:, 0], p.log_likelihood(z)[:, 0])


def test_whole_numbers_are_data_of_any_family():
    x = torch.tensor([[0, 2], [1, 1]])
    law = nn.Sequential(network(2, 6), nn.Unflatten(1, (2, 3)))
    p = probed(law, TWO, lambda f: td.Categorical(logits=f), x)
    z = p.prior.sample(3)
    logits = law.double()(z)
    oracle = logits.log_softmax(-1).gather(2, x[:1].expand(3, 2).unsqueeze(2)).sum((1, 2))
    assert torch.allclose(p.log_likelihood(z)[:, 0], oracle)


def test_a_sequence_has_a_law_for_each_history():
    x = torch.randn(4, 6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def steps(z, x):
        past = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return 0.5 * past + z[:, None, :1]

    p = probed(steps, TWO, gaussian, x)
    z = p.prior.sample(3)
    assert p.histories == 4 and p.parameters(z).shape[0] == 3
    direct = gaussian(steps(z[:1].expand(4, 2), x)).log_prob(x).sum((1, 2))
    assert torch.allclose(p.log_likelihood(z)[0], direct)
    distance = (z[0, 0] - z[1, 0]).square() / 0.25 * 4 * 6
    assert p.divergence(z[:1], z[1:2]).item() == pytest.approx(distance.item())


def transformed(*steps: td.Transform) -> td.Distribution:
    return td.TransformedDistribution(td.Normal(torch.zeros(1), 1.0), list(steps))


@pytest.mark.parametrize(
    ("prior", "names", "low", "high"),
    [
        (td.Normal(0.0, 1.0), ("z",), -math.inf, math.inf),
        (td.Uniform(-torch.ones(2), torch.ones(2)), ("z[1]", "z[2]"), -1, 1),
        (td.Independent(td.Gamma(torch.ones(2), 1.0), 1), ("z[1]", "z[2]"), 0, math.inf),
        (td.MultivariateNormal(torch.zeros(2), torch.eye(2)), ("z[1]", "z[2]"), -math.inf, math.inf),
        (td.Beta(torch.ones(2), torch.ones(2)), ("z[1]", "z[2]"), 0, 1),
        (td.Normal(torch.zeros(1, 2), 1.0), ("z[1, 1]", "z[1, 2]"), -math.inf, math.inf),
        # torch calls the support of these two all of R; no mean is known of the transformed ones
        (td.VonMises(torch.zeros(1), torch.ones(1)), ("z[1]",), -math.pi, math.pi),
        (transformed(td.ExpTransform(), td.AffineTransform(3.0, 1.0)), ("z[1]",), 3, math.inf),
        (transformed(td.ExpTransform(), td.AffineTransform(3.0, -1.0)), ("z[1]",), -math.inf, 3),
        (transformed(td.SigmoidTransform()), ("z[1]",), 0, 1),
        (transformed(td.AffineTransform(1.0, 2.0)), ("z[1]",), -math.inf, math.inf),
    ],
)
def test_priors(prior, names, low, high):
    read = prior_of(prior)
    assert read.names == names and read.fills_box and read.states is None
    assert read.low.tolist() == [low] * len(names) and read.high.tolist() == [high] * len(names)
    assert read.placed(read.sample(3)).shape == (3, *read.shape)


def test_densities_of_priors_hold_to_their_support_and_to_any_precision():
    shifted = prior_of(transformed(td.ExpTransform(), td.AffineTransform(3.0, 1.0)))
    outside, inside = shifted.log_prob(torch.tensor([[2.0], [4.0]], dtype=torch.float64)).tolist()
    assert outside == -math.inf and math.isclose(inside, -0.5 * math.log(2 * math.pi), rel_tol=1e-6)
    low_rank = td.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), torch.ones(2))
    assert prior_of(low_rank).log_prob(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("prior", "possible"),
    [
        (td.Categorical(torch.tensor([[0.5, 0.5, 0.0]])), [True, True, False]),
        (td.Bernoulli(torch.ones(1)), [False, True]),
        (td.Binomial(2, torch.zeros(1)), [True, False, False]),
    ],
)
def test_states_of_probability_zero_are_impossible(prior, possible):
    read = prior_of(prior)
    assert read.states is not None
    assert torch.isfinite(read.log_prob(read.states)).tolist() == possible


def test_a_finite_prior_is_listed_and_keeps_its_type():
    for prior, listed in (
        (td.Categorical(torch.ones(3)), [[0], [1], [2]]),
        (td.Bernoulli(torch.full((2,), 0.5)), [[0, 0], [0, 1], [1, 0], [1, 1]]),
    ):
        states = prior_of(prior).states
        assert states is not None and states.tolist() == listed
    embedded = nn.Embedding(3, 2)
    p = probed(embedded, td.Categorical(torch.ones(3)), gaussian)
    assert p.prior.states is not None
    assert torch.allclose(p.parameters(p.prior.states)[:, :2].float(), embedded.weight, atol=1e-6)


def test_sampling_leaves_chance_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    prior = prior_of(TWO)
    assert torch.equal(prior.sample(5, seed=1), prior.sample(5, seed=1))
    assert not torch.equal(prior.sample(5, seed=1), prior.sample(5, seed=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_redrawing_keeps_the_prior_and_the_rest():
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    prior = prior_of(td.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance))
    z = prior.sample(100_000, seed=1)
    moved = prior.redrawn(z, torch.tensor([[0.0], [1.0]]), seed=2)
    assert torch.equal(moved[:, 0], z[:, 0])
    assert torch.allclose(moved.mT.cov(), covariance, atol=0.02)
    # given z[1], the new z[2] owes nothing to the old one
    residual, fresh = z[:, 1] - 0.8 * z[:, 0], moved[:, 1] - 0.8 * z[:, 0]
    assert abs(torch.corrcoef(torch.stack([residual, fresh]))[0, 1].item()) < 0.02


class Switched(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), layer)

    def forward(self, z):
        return self.layers(z)


ABUSES = {
    "dropout": (lambda: probed(Switched(nn.Dropout()), TWO, gaussian), "evaluation mode.*Dropout"),
    "batch norm": (
        lambda: probed(Switched(nn.BatchNorm1d(3)), TWO, gaussian),
        "evaluation mode.*BatchNorm1d",
    ),
    "noise": (lambda: probed(lambda z: z + torch.randn_like(z), TWO, gaussian), "function of z"),
    "rows mix": (lambda: probed(lambda z: z - z.mean(0), TWO, gaussian), "each row of z alone"),
    "one law": (lambda: probed(lambda z: torch.zeros(3), TWO, gaussian), "one law for each latent"),
    "no law": (lambda: probed(lambda z: z, TWO, lambda f: f), "torch distribution, got Tensor"),
    "NaN": (lambda: probed(lambda z: z / 0, TWO, lambda f: td.Normal(f, 1, validate_args=False)), "finite"),
    "mixture": (
        lambda: probed(
            lambda z: z,
            TWO,
            lambda f: td.MixtureSameFamily(td.Categorical(logits=f), td.Normal(f, 1.0)),
        ),
        "known to identify the law.*MixtureSameFamily",
    ),
    "wrong width": (lambda: probed(network(3), TWO, gaussian), "fails at draws"),
    "no law somewhere": (lambda: probed(lambda z: (z + 2.5).sqrt(), TWO, gaussian), r"but at z = \(.*Real"),
    "rarely negative scale": (lambda: probed(lambda z: z + 2.5, TWO, lambda f: td.Normal(0, f)), "at z = "),
    "a branch on all rows": (
        lambda: probed(lambda z: z if z.sum() > 0 else -z, td.Normal(torch.zeros(1), 1), gaussian),
        "each row of z alone",
    ),
    "numpy": (lambda: probed(lambda z: torch.from_numpy(z.numpy()), TWO, gaussian), "fails at draws.*numpy"),
    "writes over what its derivative needs": (
        lambda: probed(overwriting, TWO, gaussian),
        "fails at draws.*inplace",
    ),
    "data outside the support": (
        lambda: probed(network(), TWO, lambda f: td.Bernoulli(logits=f), torch.full((2, 3), 0.5)),
        "x should lie in the support",
    ),
    "triangular matrices": (
        lambda: probed(lambda z: z, td.LKJCholesky(2, 1.0), gaussian),
        "LKJCholesky on the surface",
    ),
    "simplex": (lambda: probed(network(), td.Dirichlet(torch.ones(2)), gaussian), "simplex"),
    "counts": (lambda: probed(network(), td.Poisson(torch.ones(2)), gaussian), "infinitely many"),
    "no prior": (lambda: probed(network(), None, gaussian), "prior should be a torch distribution"),
    "no data": (lambda: probed(lambda x, z: z[:, 0], TWO), "x should be given"),
    "NaN data": (
        lambda: probed(network(), TWO, gaussian, torch.full((2, 3), math.nan)),
        "x should be finite",
    ),
    "no rows": (lambda: probed(network(), TWO, gaussian, torch.zeros(0, 3)), "at least one row"),
    "data of another width": (lambda: probed(network(), TWO, gaussian, torch.zeros(2, 4)), r"shape \(3,\)"),
    "density of all": (lambda: probed(lambda x, z: z, TWO, x=torch.zeros(2, 3)), "one number for each"),
    "no model": (lambda: probed(3, TWO, gaussian), "model should be"),
    "no likelihood": (lambda: probed(network(), TWO, "gaussian"), "likelihood should"),
    "no trials": (
        lambda: probed(lambda z: z, TWO, lambda f: td.Binomial(torch.zeros_like(f), logits=f)),
        "total_count",
    ),
}


@pytest.mark.parametrize("name", ABUSES)
def test_bad_models_are_refused_with_the_reason(name):
    call, message = ABUSES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()

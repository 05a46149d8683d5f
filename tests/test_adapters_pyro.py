"""Pyro programs against the verdicts that their models are known to have, on both sides of the line."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import constraints

import identkit as ik
from identkit.verdict import Level

pyro = pytest.importorskip("pyro")
dist = pytest.importorskip("pyro.distributions")

CONSTANT, PARTIAL, LOCAL, GLOBAL = Level.CONSTANT, Level.PARTIAL, Level.LOCAL, Level.GLOBAL


@pytest.fixture(autouse=True)
def _fresh_parameters():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def checked(program, *args):
    verdict = ik.check(ik.from_pyro(program, *args))
    assert verdict.certificate is None or verdict.certificate.verify()
    return verdict


def factors(x, weights):
    weights = pyro.param("weights", weights)
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z @ weights.T, scale).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [GLOBAL, GLOBAL]),
        ([[1.0, 0.0], [0.5, 0.0], [2.0, 0.0]], [GLOBAL, CONSTANT]),
        ([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]], [PARTIAL, PARTIAL]),
    ],
)
def test_rows_in_a_plate_are_one_model(weights, expected):
    verdict = checked(factors, torch.zeros(50, 3), torch.tensor(weights))
    assert list(verdict.latents) == ["z[1]", "z[2]"]
    assert list(verdict.latents.values()) == expected
    assert verdict.scope == "at"


def test_parameters_are_taken_as_fitted_and_left_alone():
    pyro.param("weights", torch.zeros(3, 2))
    state = torch.get_rng_state()
    verdict = checked(factors, torch.zeros(5, 3), torch.ones(3, 2))
    assert verdict.level is CONSTANT
    assert set(pyro.get_param_store().keys()) == {"weights"}  # "scale" was never fitted
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("means", "level"),
    [([0.0, 1.0, 2.0], GLOBAL), ([0.0, 1.0, 1.0], PARTIAL), ([1.0, 1.0, 1.0], CONSTANT)],
)
def test_finite_latents(means, level):
    def mixture(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("x", dist.Normal(torch.tensor(means)[k], 1.0), obs=x)

    assert checked(mixture, torch.zeros(4)).latents == {"k": level}


def test_latents_that_all_rows_share():
    def regression(design, y):
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson((design @ w).exp()), obs=y)

    design = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    assert checked(regression, design, torch.ones(3)).level is GLOBAL
    assert checked(regression, design[:, [0, 0]], torch.ones(3)).level is PARTIAL


def test_a_hierarchy_is_seen_through_its_lowest_latents():
    def schools(y):
        mean, spread = pyro.sample("mean", dist.Normal(0.0, 5.0)), pyro.sample("spread", dist.HalfNormal(5.0))
        with pyro.plate("schools", len(y)):
            effect = pyro.sample("effect", dist.Normal(mean, spread))
            pyro.sample("y", dist.Normal(effect, 10.0), obs=y)

    found = checked(schools, torch.tensor([28.0, 8.0])).latents
    assert found == {"mean": CONSTANT, "spread": CONSTANT, "effect[1]": GLOBAL, "effect[2]": GLOBAL}


def test_the_prior_of_a_hierarchy_is_that_of_the_program():
    def chain(x):
        a = pyro.sample("a", dist.Gamma(2.0, 1.0))
        b = pyro.sample("b", dist.Normal(3 * a, 0.5))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    prior = ik.from_pyro(chain, torch.tensor(0.0)).prior
    torch.manual_seed(0)
    z = prior.sample((20000,))
    assert abs(z[:, 0].mean() - 2) < 6 * 2**0.5 / 20000**0.5
    assert abs(z[:, 1].mean() - 6) < 6 * 18.25**0.5 / 20000**0.5
    expected = torch.distributions.Gamma(2.0, 1.0).log_prob(z[:, 0].float())
    expected = expected + torch.distributions.Normal(3 * z[:, 0], 0.5).log_prob(z[:, 1])
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_sites_of_several_families_and_a_mirror():
    def pair(counts, y):
        with pyro.plate("data", len(y)):
            rate, z = pyro.sample("rate", dist.Gamma(2.0, 1.0)), pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("counts", dist.Poisson(rate), obs=counts)
            pyro.sample("y", dist.Normal(z**2, 0.5), obs=y)

    assert checked(pair, torch.ones(3), torch.ones(3)).latents == {"rate": GLOBAL, "z": LOCAL}


def test_a_finite_chain():
    def chain(x, means):
        state = torch.tensor(0)
        for t in pyro.markov(range(2)):
            state = pyro.sample(f"z{t}", dist.Categorical(torch.tensor([[0.9, 0.1], [0.3, 0.7]])[state]))
            pyro.sample(f"x{t}", dist.Normal(means[state], 1.0), obs=x[t])

    x = torch.zeros(2)
    assert checked(chain, x, torch.tensor([0.0, 1.0])).latents == {"z0": GLOBAL, "z1": GLOBAL}
    assert checked(chain, x, torch.tensor([1.0, 1.0])).latents == {"z0": CONSTANT, "z1": CONSTANT}


def test_a_sequence_is_judged_on_its_data():
    def autoregression(x):
        z, before = pyro.sample("z", dist.Normal(0.0, 1.0)), torch.tensor(0.0)
        for t in range(2):
            before = pyro.sample(f"x{t}", dist.Normal(z * before, 1.0), obs=x[t])

    verdict = checked(autoregression, torch.tensor([1.0, 0.4]))
    assert (verdict.scope, verdict.level) == ("data", Level.INFORMED)
    assert checked(autoregression, torch.tensor([0.0, 0.4])).level is CONSTANT


def test_a_law_without_parameters_of_torch_is_judged_on_its_data():
    def inflated(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.ZeroInflatedPoisson(z.exp(), gate=torch.tensor(0.3)), obs=x)

    verdict = checked(inflated, torch.tensor(2.0))
    assert (verdict.scope, verdict.level) == ("data", Level.INFORMED)


class Autoencoder(torch.nn.Module):
    """As Pyro's tutorial writes it: the prior's shape and the plate from the data, the network through pyro.module."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros((len(x), 2)), x.new_ones((len(x), 2))).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


@pytest.mark.parametrize("dead", [False, True])
def test_a_decoder_in_single_precision(dead):
    torch.manual_seed(0)
    first = torch.nn.Linear(2, 3)
    decoder = torch.nn.Sequential(first, torch.nn.LeakyReLU(), torch.nn.Linear(3, 4))
    with torch.no_grad():
        first.weight[:, 1] *= 0 if dead else 1
    found = checked(Autoencoder(decoder).model, torch.ones(256, 4)).latents
    assert found["z[2]"] is CONSTANT if dead else found["z[2]"] in (GLOBAL, Level.UNKNOWN)
    assert first.weight.dtype == torch.float32


def silent(x):
    pyro.sample("z", dist.Normal(0.0, 1.0))


def alone(x):
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def branching(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(1.0 if z > 0 else -1.0, 1.0), obs=x)


def stochastic(x):
    count = 0
    while pyro.sample(f"coin{count}", dist.Bernoulli(0.5)) > 0:
        count += 1
    pyro.sample("x", dist.Normal(float(count), 1.0), obs=x)


def mixed(x):
    k, z = pyro.sample("k", dist.Bernoulli(0.5)), pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z + k, 1.0), obs=x)


def covariates(x):
    with pyro.plate("data", 3):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z * torch.arange(3.0), 1.0), obs=x.expand(3))


def subsampled(x):
    with pyro.plate("data", 5, subsample_size=2):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.expand(2))


def masked(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.poutine.mask(mask=torch.tensor(False)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def crowded(x):
    shared = pyro.sample("shared", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 300):
        z = pyro.sample("z", dist.Normal(shared, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.expand(300))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (silent, "observe something"),
        (alone, "a latent that is not observed"),
        (branching, "without decisions"),
        (stochastic, "same sites in every run"),
        (mixed, "k beside z"),
        (covariates, "those of x differ"),
        (subsampled, "draws 2 of 5"),
        (masked, "masked"),
        (crowded, "shared .* z .*pass fewer rows"),
    ],
)
def test_programs_that_cannot_be_taken(program, message):
    with pytest.raises(ValueError, match=message):
        ik.from_pyro(program, torch.tensor(0.0))

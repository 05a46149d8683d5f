"""The sandwich of the average information against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td

from identkit.posterior.bidirectional import average_information


def linear(loadings, noise):
    """Prior, log-likelihood, simulation and ``I = ½ log det(I + WᵀW/s²)`` of a linear Gaussian model."""
    k = loadings.shape[1]
    law = lambda z: td.Independent(td.Normal(z @ loadings.T, noise), 1)
    gram = torch.eye(k, dtype=torch.float64) + loadings.T @ loadings / noise**2
    prior = td.Normal(torch.zeros(k, dtype=torch.float64), 1.0)
    return prior, lambda x, z: law(z).log_prob(x), lambda z: law(z).sample(), 0.5 * float(torch.logdet(gram))


def random_loadings(d, k):
    return torch.randn(d, k, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / math.sqrt(k)


@pytest.mark.parametrize(("k", "d", "noise"), [(1, 2, 1.0), (2, 3, 0.05), (8, 10, 0.3)])
def test_the_interval_holds_the_information(k, d, noise):
    prior, log_likelihood, simulate, truth = linear(random_loadings(d, k), noise)
    found = average_information(prior, log_likelihood, simulate, n=100, particles=48)
    assert found.low <= truth <= found.high
    assert found.slack >= -0.05
    assert found.slack < 0.3
    assert found.high - found.low < 0.6 + 0.3 * truth


def test_bad_kernels_drive_the_bounds_apart_and_keep_them_valid():
    """Too few temperatures and particles: the mean bounds separate, each on its own side of the truth."""
    prior, log_likelihood, simulate, truth = linear(random_loadings(10, 8), 0.1)
    good = average_information(prior, log_likelihood, simulate, n=60, particles=64)
    bad = average_information(prior, log_likelihood, simulate, n=60, particles=16, ladder=0.1)
    assert bad.slack > good.slack
    assert bad.low <= truth <= bad.high


def test_a_model_that_ignores_its_latents():
    law = td.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    found = average_information(
        td.Normal(torch.zeros(3, dtype=torch.float64), 1.0),
        lambda x, z: law.log_prob(x).sum(1),
        lambda z: law.sample((len(z),)),
        n=20,
        particles=16,
    )
    assert found.low == 0
    assert found.high <= 1e-12


def test_at_the_door():
    prior, log_likelihood, simulate, _ = linear(random_loadings(2, 1), 1.0)
    with pytest.raises(ValueError, match="one datum for each"):
        average_information(prior, log_likelihood, lambda z: simulate(z)[:3])
    with pytest.raises(ValueError, match="level should"):
        average_information(prior, log_likelihood, simulate, level=1.0)
    with pytest.raises(ValueError, match="did not reach"):
        average_information(prior, lambda x, z: 1e4 * log_likelihood(x, z), simulate, rungs=1)

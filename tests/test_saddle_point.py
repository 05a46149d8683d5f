"""Log densities of large counts against many digits: within what the parameters' own rounding would change."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch

from identkit.classical.hidden_markov import HiddenMarkov, PoissonEmission
from identkit.classical.mixtures import FamilyMixture
from identkit.classical.saddle_point import log_binomial, log_gamma, log_poisson

SIZES = [0.3, 1.0, 7.0, 1e3, 1e6, 1e9, 1e12]
APART = [-30.0, -3.0, 0.0, 0.5, 4.0]  # standard deviations


def real(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("rate", SIZES)
@pytest.mark.parametrize("apart", APART)
def test_poisson(rate: float, apart: float) -> None:
    x = max(0.0, round(rate + apart * rate**0.5))
    with mp.workdps(50):
        exact = float(x * mp.log(rate) - rate - mp.loggamma(x + 1))
    # A rate that is right to half a unit in its last place moves ℓ by |x − λ| times that.
    assert float(log_poisson(real(x), real(rate))) == pytest.approx(
        exact, rel=1e-14, abs=1e-15 * (1 + abs(x - rate))
    )


@pytest.mark.parametrize("count", [1, 2, 10, 10**6, 10**12])
@pytest.mark.parametrize("chance", [1e-9, 0.25, 0.5, 1 - 2**-20])
@pytest.mark.parametrize("apart", APART)
def test_binomial(count: int, chance: float, apart: float) -> None:
    mean = count * chance
    x = float(min(count, max(0, round(mean + apart * (mean * (1 - chance)) ** 0.5))))
    with mp.workdps(50):
        p = mp.mpf(chance)
        ways = mp.loggamma(count + 1) - mp.loggamma(x + 1) - mp.loggamma(count - x + 1)
        exact = float(ways + x * mp.log(p) + (count - x) * mp.log(1 - p))
    slack = 1e-15 * (1 + abs(x - mean) / (1 - chance))
    assert float(log_binomial(real(x), count, real(chance))) == pytest.approx(exact, rel=1e-13, abs=slack)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("rate", [1e-6, 3.0])
@pytest.mark.parametrize("apart", APART)
def test_gamma(shape: float, rate: float, apart: float) -> None:
    x = max(0.01 * shape, shape + apart * shape**0.5) / rate
    with mp.workdps(50):
        a, b, y = mp.mpf(shape), mp.mpf(rate), mp.mpf(x)
        exact = float(a * mp.log(b) + (a - 1) * mp.log(y) - b * y - mp.loggamma(a))
    slack = 1e-15 * (1 + abs(rate * x - shape))
    assert float(log_gamma(real(x), real(shape), real(rate))) == pytest.approx(exact, rel=1e-13, abs=slack)


def test_a_waiting_time_that_is_lost_beside_its_mean() -> None:
    assert float(log_gamma(real(1e-40), real(0.01), real(3.0))) == pytest.approx(
        0.01 * math.log(3.0) - 0.99 * math.log(1e-40) - math.lgamma(0.01), rel=1e-14
    )


def test_evidence_of_large_counts() -> None:
    """Where terms of 10¹² were subtracted, five digits were lost."""
    rates, x = (1e12, 1e12 + 2e6), 1e12 + 1e6
    mixture = FamilyMixture([0.3, 0.7], torch.distributions.Poisson(torch.tensor(rates, dtype=torch.float64)))
    chain = HiddenMarkov([0.3, 0.7], [[0.9, 0.1], [0.2, 0.8]], PoissonEmission(list(rates)), 1)
    with mp.workdps(50):
        each = [mp.exp(x * mp.log(rate) - rate - mp.loggamma(x + 1)) for rate in rates]
        exact = float(mp.log(0.3 * each[0] + 0.7 * each[1]))
    assert float(mixture.log_evidence([[x]])) == pytest.approx(exact, rel=1e-10)
    assert float(chain.log_evidence([[[x]]])) == pytest.approx(exact, rel=1e-10)

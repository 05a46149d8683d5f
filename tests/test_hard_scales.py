"""Classical models whose components, noises or data differ by twenty orders of magnitude, in many digits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from mpmath import mp
from torch import distributions as laws

from identkit.classical.conjugate import BetaBinomial, DirichletMultinomial, NormalInverseGamma
from identkit.classical.gaussian_mixture import GaussianMixture
from identkit.classical.hidden_markov import GaussianEmission, HiddenMarkov, PoissonEmission
from identkit.classical.linear_gaussian import FactorAnalysis
from identkit.classical.mixtures import FamilyMixture
from tests.many_digits import bayes

mp.dps = 60
_WEIGHTS = [0.2, 0.3, 0.5]


def _tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _normal(x: float, mean: float, variance: float) -> Any:
    square = (mp.mpf(x) - mp.mpf(mean)) ** 2 / mp.mpf(variance)
    return -(square + mp.log(2 * mp.pi * mp.mpf(variance))) / 2


def _poisson(x: float, rate: float) -> Any:
    return x * mp.log(mp.mpf(rate)) - mp.mpf(rate) - mp.loggamma(mp.mpf(x) + 1)


# The heaviest component is the last; seen from it, the others are all the same.
MIXTURES: dict[str, tuple[Any, Any, float]] = {
    "Gaussian": (
        GaussianMixture(_WEIGHTS, [[0.0], [1.0], [3e7]], [1e10, 2e10, 1e-12], "spherical"),
        lambda x: [_normal(x, 0.0, 1e10), _normal(x, 1.0, 2e10), _normal(x, 3e7, 1e-12)],
        1e5,
    ),
    "Poisson": (
        FamilyMixture(_WEIGHTS, laws.Poisson(_tensor([3.0, 4.0, 1e14]))),
        lambda x: [_poisson(x, rate) for rate in (3.0, 4.0, 1e14)],
        3.0,
    ),
    "exponential": (
        FamilyMixture(_WEIGHTS, laws.Exponential(_tensor([1.0, 2.0, 1e14]))),
        lambda x: [mp.log(rate) - mp.mpf(rate) * mp.mpf(x) for rate in (1.0, 2.0, 1e14)],
        0.5,
    ),
}


@pytest.mark.parametrize("kind", MIXTURES)
def test_components_are_told_apart_far_from_the_heaviest_one(kind: str) -> None:
    model, logs, x = MIXTURES[kind]
    found = bayes(_WEIGHTS, logs(x))
    mass = model.posterior([[x]]).probs[0].tolist()
    assert mass == pytest.approx([float(r) for r in found["mass"]], rel=1e-12)
    assert model.log_evidence([[x]]).item() == pytest.approx(float(found["evidence"]), rel=1e-12)
    kl, error = model.kl_to_prior([[x]]).item(), model.kl_error([[x]]).item()
    assert abs(kl - found["kl"]) <= error < 1e-9
    mean, sd = (moment.item() for moment in model.posterior_moments([[x]]))
    assert mean == pytest.approx(float(found["mass"][1]), rel=1e-12)
    assert sd == pytest.approx(math.sqrt(mean * (1 - mean)), rel=1e-12)


_CHAINS: dict[str, tuple[Any, Any, list[float]]] = {
    "Poisson": (PoissonEmission([1e12, 3.0, 4.0]), _poisson, [2.0, 1e12, 5.0]),
    "Poisson, tiny": (PoissonEmission([1e12, 1e-12, 2e-12]), _poisson, [0.0, 1.0, 0.0]),
    "Gaussian": (
        GaussianEmission([3e7, 0.0, 1.0], [1e-12, 1e10, 2e10]),
        lambda x, mean, variance: _normal(x, mean, variance),
        [1e5, 3e7, -2e5],
    ),
}


@pytest.mark.parametrize("kind", _CHAINS)
def test_states_are_told_apart_far_from_the_likeliest_one(kind: str) -> None:
    emission, density, x = _CHAINS[kind]
    initial, transition = [0.5, 0.3, 0.2], [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]]
    model = HiddenMarkov(initial, transition, emission, 3)
    if isinstance(emission, PoissonEmission):
        table = [[density(value, rate) for rate in emission.rates[:, 0].tolist()] for value in x]
    else:
        pairs = list(zip(emission.means[:, 0].tolist(), emission.covariances[:, 0, 0].tolist(), strict=True))
        table = [[density(value, *pair) for pair in pairs] for value in x]
    paths = list(itertools.product(range(3), repeat=3))
    prior = [initial[a] * mp.mpf(transition[a][b]) * mp.mpf(transition[b][c]) for a, b, c in paths]
    found = bayes(prior, [sum(table[t][path[t]] for t in range(3)) for path in paths])
    assert model.log_evidence([x]).item() == pytest.approx(float(found["evidence"]), rel=1e-12)
    error = model.kl_error([x]).item()
    assert abs(model.kl_to_prior([x]).item() - found["kl"]) <= error < 1e-6
    for t, state in itertools.product(range(3), range(3)):
        wanted = sum(mass for path, mass in zip(paths, found["mass"], strict=True) if path[t] == state)
        assert model.posterior([x]).probs[0, t, state].item() == pytest.approx(float(wanted), abs=1e-12)


def test_an_outlier_at_1e16_sds_leaves_the_stated_error_finite() -> None:
    emission = GaussianEmission([0.0, 2.0], [1.0, 0.5])
    for transition in ([[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.0, 1.0]]):
        model = HiddenMarkov([0.4, 0.6], transition, emission, 3)
        x = [[0.3, 1e16, 2.5]]
        assert 0 < model.kl_error(x).item() < 6.0  # no path is rarer than e^−6
        assert model.kl_error([[0.3, 1.0, 2.5]]).item() < 1e-12


def test_equal_loadings_far_above_the_noise_share_what_is_seen_of_them() -> None:
    """Seen from either of two equal columns the other explains it all; what rounding left met residuals of 1e9."""
    column = [
        -29376.883702098283,
        133125.0961759793,
        -52167.15607122469,
        -13759.415073628192,
        141668.54654407807,
    ]
    scales = [
        0.4017339400658867,
        76216.37493682037,
        307.9757459474726,
        0.020993509953507558,
        0.00017371780980361462,
    ]
    x = [2.3 * w + s for w, s in zip(column, scales, strict=True)]
    model = FactorAnalysis([[w, w] for w in column], scales)
    gain = sum((mp.mpf(w) / mp.mpf(s)) ** 2 for w, s in zip(column, scales, strict=True))
    pull = sum(mp.mpf(w) * mp.mpf(v) / mp.mpf(s) ** 2 for w, v, s in zip(column, x, scales, strict=True))
    mean, variance = pull / (1 + 2 * gain), (1 + gain) / (1 + 2 * gain)
    found, sd = model.posterior_moments([x])
    assert found[0].tolist() == pytest.approx([float(mean)] * 2, abs=1e-6)
    assert sd[0].tolist() == pytest.approx([math.sqrt(variance)] * 2, rel=1e-9)
    wanted = (mean**2 + variance - 1 - mp.log(variance)) / 2
    for kl in model.kl_per_latent([x])[0].tolist():
        assert abs(kl - wanted) <= model.kl_error([x]).item() < 1e-2


def test_the_stated_error_of_loadings_far_above_the_noise_is_no_wider_than_their_rounding() -> None:
    model = FactorAnalysis([[1e10, 0.0, 1.0], [2e10, 1.0, -3e8], [-1e10, 0.5, 1e8], [3e9, 0.1, 2e9]], 1.0)
    x, _ = model.sample(3, torch.Generator().manual_seed(0))
    assert bool((model.kl_error(x) < 1e-2 * model.kl_to_prior(x)).all())  # 1e7 times the KLs it was


def test_shares_beside_one_that_outweighs_them_all() -> None:
    """What the others add up to is no difference of the whole and the heavy one."""
    shapes, counts = [0.0373632870446, 6580.342969297467, 0.000302224773], [1.0, 0.0, 0.0]
    model = DirichletMultinomial(1, shapes)
    error = model.kl_error([counts]).item()
    for i, kl in enumerate(model.kl_per_latent([counts])[0].tolist()):
        a = [mp.mpf(shapes[i]), sum(mp.mpf(s) for j, s in enumerate(shapes) if j != i)]
        x = [mp.mpf(counts[i]), sum(mp.mpf(c) for j, c in enumerate(counts) if j != i)]
        later = [shape + count for shape, count in zip(a, x, strict=True)]
        wanted = mp.log(mp.beta(*a)) - mp.log(mp.beta(*later)) - sum(x) * mp.digamma(sum(later))
        wanted += sum(count * mp.digamma(shape) for shape, count in zip(later, x, strict=True))
        assert abs(kl - wanted) <= error < 1e-12
    a, b = mp.mpf(9.310141148121098e-06) + 25757104, mp.mpf(8.132901530379147e-09)
    sd = BetaBinomial(25757104, 9.310141148121098e-06, 8.132901530379147e-09).posterior_moments([25757104.0])[
        1
    ]
    assert sd.item() == pytest.approx(float(mp.sqrt(a * b / (a + b + 1)) / (a + b)), rel=1e-13)


def test_deviations_of_a_variance_from_data_of_1e149() -> None:
    mean, sd = NormalInverseGamma(0.0, 1.0, 3.0, 2.0).posterior_moments([[1e149]])
    assert mean[0].tolist() == pytest.approx([1e298 / 10, 5e148], rel=1e-13)
    assert sd[0].tolist() == pytest.approx([1e298 / 10 / math.sqrt(1.5), math.sqrt(1e298 / 20)], rel=1e-13)

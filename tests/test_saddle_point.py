"""Log densities of large counts against many digits: within what the parameters' own rounding would change."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch

import identkit as ik
from identkit.classical.conjugate import BetaBinomial, GammaPoisson
from identkit.classical.hidden_markov import HiddenMarkov, PoissonEmission
from identkit.classical.mixtures import FamilyMixture
from identkit.model.compiled.saddle_point import (
    log_binomial,
    log_dirichlet,
    log_gamma,
    log_multinomial,
    log_negative_binomial,
    log_poisson,
    log_student,
)

SIZES = [0.3, 1.0, 7.0, 1e3, 1e6, 1e9, 1e12]
COUNTS = [0.0, 1.0, 5.0, 99.0, 100.0, 1e4, 1e9 + 1, 1e12]
MEANS = [1e-3, 1.0, 40.0, 99.5, 1e4, 1e9, 1e12]
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


def test_shapes_that_overflow_leave_no_mass() -> None:
    """exp(exp(7)) is no double, and such shapes have next to no prior: there is nothing to refuse."""
    one, endless = torch.tensor(1.0).double(), torch.tensor(math.inf).double()
    half = torch.tensor([0.5, 0.5]).double()
    assert log_gamma(one, endless, one).item() == -math.inf
    assert log_negative_binomial(one, endless, one / 2, (half[0].log(), half[0].log())).item() == -math.inf
    assert log_dirichlet(half, torch.stack([endless, one])).item() == -math.inf
    assert log_dirichlet(half, torch.zeros(2).double()).item() == -math.inf
    assert log_student(one, endless).item() == pytest.approx(-0.5 - math.log(2 * math.pi) / 2, rel=1e-14)


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


def allowed(exact: float, apart: float, more: float = 0.0) -> float:
    """10⁻¹³ where nothing is large; else the last digits of log p and its parts, and what that of a mean is worth."""
    return 1.5e-13 + 2e-15 * (abs(exact) + more) + 4e-16 * abs(apart)


@pytest.mark.parametrize("x", COUNTS)
def test_counts_and_waiting_times_of_any_size(x: float) -> None:
    for mean in MEANS:
        with mp.workdps(50):
            power = x * mp.log(mean) - mean
            poisson = float(power - mp.loggamma(x + 1))
            # the same as a law of the mean: Gamma(m; x, 1)
            gamma = float(power - mp.log(mean) - mp.loggamma(x)) if x else None
        assert abs(float(log_poisson(real(x), real(mean))) - poisson) <= allowed(poisson, mean - x)
        if gamma is not None:
            found = float(log_gamma(real(mean), real(x), real(1.0)))
            assert abs(found - gamma) <= allowed(gamma, mean - x, abs(math.log(mean)))


@pytest.mark.parametrize("size", [1e-3, 0.5, 60.0, 1e5, 1e12])
@pytest.mark.parametrize("x", COUNTS)
def test_negative_binomial(size: float, x: float) -> None:
    for chance in (1e-9, 0.25, 1 - 2**-20):
        p = real(chance)
        with mp.workdps(50):
            exact = float(
                mp.loggamma(mp.mpf(x) + size)
                - mp.loggamma(size)
                - mp.loggamma(x + 1)
                + size * mp.log(chance)
                + x * mp.log1p(-chance)
            )
        found = float(log_negative_binomial(real(x), real(size), p, (p.log(), (-p).log1p())))
        slack = allowed(
            exact, ((x + size) * chance - size) / chance
        )  # Of p and 1 − p, the smaller is the better known
        assert abs(found - exact) <= slack


@pytest.mark.parametrize(
    "shapes", [(0.01, 3.0), (1.0, 1.0), (60.0, 50.0), (2.0, 1e9), (3e11, 7e11), (1.0, 5.0, 1e10)]
)
def test_shares_and_counts(shapes: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.tensor(shapes, dtype=torch.float64)
    shares = torch._sample_dirichlet(a.expand(20, -1).contiguous(), generator)  # pyright: ignore[reportPrivateImportUsage]
    shares = shares / shares.sum(1, keepdim=True)
    counts = a.round().clamp(min=1) * torch.tensor([[1.0]])
    for row in shares:
        found = float(log_dirichlet(row, a)), float(log_multinomial(counts[0], row))
        with mp.workdps(50):
            # Shares that add up to one but for a rounding: what that changes is not asked for.
            u = [mp.mpf(float(share)) for share in row]
            u = [share / mp.fsum(u) for share in u]
            beta = mp.fsum(map(mp.loggamma, shapes)) - mp.loggamma(mp.fsum(shapes))
            density = mp.fsum((ai - 1) * mp.log(ui) for ai, ui in zip(shapes, u, strict=True)) - beta
            x = counts[0].tolist()
            ways = mp.loggamma(sum(x) + 1) - mp.fsum(mp.loggamma(xi + 1) for xi in x)
            chance = ways + mp.fsum(xi * mp.log(ui) for xi, ui in zip(x, u, strict=True))
        apart = float((a.sum() * row - a).abs().sum()) + float((sum(x) * row - counts[0]).abs().sum())
        logs = float(row.log().abs().sum())
        assert abs(found[0] - float(density)) <= allowed(float(density), apart, logs)
        assert abs(found[1] - float(chance)) <= allowed(float(chance), apart)


@pytest.mark.parametrize("df", [1e-3, 1.0, 150.0, 250.0, 1e6, 1e12])
def test_student(df: float) -> None:
    for t in (0.0, 1e-6, 2.0, 1e3, 1e160):
        with mp.workdps(60):
            half = mp.mpf(df) / 2
            ways = mp.loggamma(half + 0.5) - mp.loggamma(half) - mp.log(mp.pi * df) / 2
            exact = float(ways - (half + 0.5) * mp.log1p(mp.mpf(t) ** 2 / df))
        found = float(log_student(real(t), real(df)))
        assert abs(found - exact) <= 2e-13 + 4e-15 * abs(exact)


def test_edges() -> None:
    zero, one, big = real(0.0), real(1.0), real(1e12)
    for x in (0.0, 3.0, 1e12):
        assert float(log_poisson(real(x), zero)) == (0.0 if x == 0 else -math.inf)
        assert float(log_poisson(real(x), real(math.inf), real(800.0))) == -math.inf
    assert float(log_poisson(zero, big)) == -1e12
    # a rate that underflows, known by its logarithm
    assert float(log_poisson(real(200.0), zero, real(-800.0))) == pytest.approx(
        -160000 - math.lgamma(201), rel=1e-14
    )
    for count in (0, 1, 7, 10**12):
        n = real(float(count))
        for chance, certain in ((zero, zero), (one, n)):
            other = n - certain
            assert float(log_binomial(certain, count, chance)) == 0
            assert count == 0 or float(log_binomial(other, count, chance)) == -math.inf
        for p in (0.25, 1e-13):
            assert float(log_binomial(zero, count, real(p))) == pytest.approx(
                count * math.log1p(-p), rel=1e-14
            )
            assert float(log_binomial(n, count, real(p))) == pytest.approx(count * math.log(p), rel=1e-14)
    # p = sigmoid(40) is rounded to one, but log(1 − p) is not
    logs = (torch.nn.functional.logsigmoid(real(40.0)), torch.nn.functional.logsigmoid(real(-40.0)))
    for count in (3, 10**12):
        found = log_binomial(real(count - 1.0), count, torch.sigmoid(real(40.0)), logs)
        exact = math.log(count) + float(logs[1]) + (count - 1) * float(logs[0])
        assert float(found) == pytest.approx(exact, rel=1e-14)
    certain = (zero, real(-math.inf))
    for size in (2.0, 1e12):
        assert float(log_negative_binomial(zero, real(size), one, certain)) == 0
        assert float(log_negative_binomial(real(5.0), real(size), one, certain)) == -math.inf
    for shape, wanted in ((0.5, math.inf), (1.0, math.log(3.0)), (2.0, -math.inf), (1e9, -math.inf)):
        assert float(log_gamma(zero, real(shape), real(3.0))) == pytest.approx(wanted, rel=1e-15)
    ends = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    found = log_dirichlet(ends, torch.tensor([1.0, 1e9], dtype=torch.float64))
    assert found.tolist() == [pytest.approx(math.log(1e9), rel=1e-13), -math.inf]


@pytest.mark.parametrize("x", [0.0, 7.0, 500.0, 1e10])
def test_slopes(x: float) -> None:
    for mean in (1e-3, 0.4 * x + 0.1, x + 1.0, 1.05 * x + 3.0, 1e11):
        rate, chance, scale = (real(value).requires_grad_() for value in (mean, mean / 2e11, 3.0))
        torch.autograd.backward(
            [
                log_poisson(real(x), rate),
                log_binomial(real(x), 2 * 10**11, chance),
                log_gamma(real(mean), real(x + 1), scale),
            ]
        )
        slack = 1e-13 * (x + mean)
        assert rate.grad is not None and chance.grad is not None and scale.grad is not None
        assert float(rate.grad) * mean == pytest.approx(x - mean, abs=slack)
        by_logit = float(chance.grad) * float(chance.detach()) * (1 - float(chance.detach()))
        assert by_logit == pytest.approx(x - mean, abs=slack + 1e-13)
        assert float(scale.grad) * 3 == pytest.approx(x + 1 - 3 * mean, abs=3 * slack + 1e-13)
    shape = real(x + 0.5).requires_grad_()
    log_gamma(real(x + 1), shape, real(1.0)).backward()
    assert shape.grad is not None
    exact = float(mp.log(x + 1) - mp.digamma(x + 0.5))
    assert float(shape.grad) == pytest.approx(exact, abs=1e-13, rel=1e-9)


def test_single_precision() -> None:
    x = torch.tensor([0.0, 3.0, 250.0, 1e6])
    rate = torch.tensor([1.5, 2.0, 240.0, 1.001e6])
    found, exact = log_poisson(x, rate), log_poisson(x.double(), rate.double())
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_text_model_of_large_counts() -> None:
    """`z ~ Gamma; x ~ Poisson(z)` at 10¹⁰: by differences of log Γ its KL was stated to 2e-5."""
    x = torch.tensor([[1e10]], dtype=torch.float64)
    prior = (4.0, 4e-10)
    found = ik.collapse(ik.parse("z ~ Gamma(4, b); observe x ~ Poisson(z)"), x, at={"b": prior[1]})
    model = GammaPoisson(*prior)
    assert float(found.kl_error) < 1e-8
    assert float(found.kl) == pytest.approx(float(model.kl_to_prior(x)), rel=1e-11)
    assert float(found.log_evidence) == pytest.approx(float(model.log_evidence(x)), rel=1e-11)
    trials = 10**10
    won = torch.tensor([[3.0e9]], dtype=torch.float64)
    found = ik.collapse(ik.parse(f"p ~ Beta(2, 3); observe x ~ Binomial({trials}, p)"), won)
    model = BetaBinomial(trials, 2.0, 3.0)
    assert float(found.kl_error) < 1e-8
    assert float(found.kl) == pytest.approx(float(model.kl_to_prior(won)), rel=1e-11)
    assert float(found.log_evidence) == pytest.approx(float(model.log_evidence(won)), rel=1e-11)

"""Three continuous latents: dense algebra, products, mixtures of bumps, an independent sampler; and the budgets."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, Normal

from identkit.model.protocol import Axis, Continuous, Finite
from identkit.posterior.information import collapse
from identkit.posterior.quadrature import Quadrature, integrate

D = torch.float64
LINE = Continuous(-math.inf, math.inf)
SPACE: list[Axis] = [LINE, LINE, LINE]


def standard(z: Tensor) -> Tensor:
    return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(1)


def gaussian_information(mean: Tensor, cov: Tensor, prior: Tensor) -> float:
    both = torch.linalg.solve(prior, cov)
    quadratic = mean @ torch.linalg.solve(prior, mean)
    return float((both.trace() - len(mean) + quadratic - torch.logdet(both)) / 2)


def assert_honest(q: Quadrature, name: str, truth: Tensor, slack: float = 1e-10) -> None:
    found, error = getattr(q, name), getattr(q, name + "_error")
    assert (error > 0).all() and (error <= 1e-6 * (1 + truth.abs())).all()
    assert ((found - truth).abs() <= error + slack * (1e-3 + truth.abs())).all(), (name, found, truth, error)


def linear(q: Quadrature, w: Tensor, noise: float, x: Tensor, prior: Tensor) -> None:
    """Hold a linear Gaussian answer against dense algebra."""
    cov = torch.linalg.inv(torch.linalg.inv(prior) + w.T @ w / noise**2)
    means = x @ w @ cov / noise**2
    law = w @ prior @ w.T + noise**2 * torch.eye(len(w), dtype=D)
    joint, single, given, evidence = [], [], [], []
    for mean, row in zip(means, x, strict=True):
        joint.append(gaussian_information(mean, cov, prior))
        one, rest = [], []
        for j in range(3):
            others = [i for i in range(3) if i != j]
            one.append(gaussian_information(mean[[j]], cov[[j]][:, [j]], prior[[j]][:, [j]]))
            block = gaussian_information(mean[others], cov[others][:, others], prior[others][:, others])
            rest.append(joint[-1] - block)
        single.append(one)
        given.append(rest)
        fit = row @ torch.linalg.solve(law, row)
        evidence.append(float(-(fit + torch.logdet(2 * math.pi * law)) / 2))
    for name, truth in {
        "log_evidence": evidence,
        "kl": joint,
        "kl_per_latent": single,
        "kl_conditional": given,
    }.items():
        assert_honest(q, name, torch.tensor(truth, dtype=D))
    torch.testing.assert_close(q.mean, means, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(q.sd, cov.diagonal().sqrt().expand(len(x), 3), rtol=1e-7, atol=0)


# Oracles


@pytest.mark.parametrize("noise", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("rows", [1, 4], ids=["a ridge", "full rank"])
def test_linear_gaussian_models_in_any_orientation(noise: float, rows: int):
    generator = torch.Generator().manual_seed(rows)
    w = torch.randn(rows, 3, generator=generator, dtype=D)
    z = torch.tensor([[0.3, -1.0, 2.0], [-2.0, 1.0, 0.0]], dtype=D)
    x = z @ w.T + noise * torch.randn(2, rows, generator=generator, dtype=D)
    normal = lambda rows, z: (
        -0.5 * ((x[rows] - z @ w.T) / noise).square() - math.log(noise) - 0.5 * math.log(2 * math.pi)
    ).sum(1)
    q = integrate(standard, normal, SPACE, len(x), independent=True)
    linear(q, w, noise, x, torch.eye(3, dtype=D))


def test_a_correlated_prior_beside_a_sharp_likelihood():
    prior = torch.tensor([[1.0, 0.8, 0.0], [0.8, 2.0, -0.5], [0.0, -0.5, 1.5]], dtype=D)
    law = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=D), prior)
    w, x = torch.tensor([[1.0, -1.0, 0.5]], dtype=D), torch.tensor([[0.7]], dtype=D)
    normal = lambda rows, z: (
        -0.5 * ((x[rows] - z @ w.T) / 0.05).square() - math.log(0.05) - 0.5 * math.log(2 * math.pi)
    ).sum(1)
    linear(integrate(law.log_prob, normal, SPACE, 1), w, 0.05, x, prior)


def test_a_product_of_lines_has_the_sum_of_their_informations():
    """Binomial, Poisson and Normal data, each of a latent of its own, on three kinds of support."""
    one = torch.ones((), dtype=D)
    parts: list[tuple[Distribution, Axis, Callable[[Tensor], Tensor]]] = [
        (Beta(2 * one, 3 * one), Continuous(0.0, 1.0), lambda z: 7 * z.log() + 3 * torch.log1p(-z)),
        (Gamma(2.5 * one, one), Continuous(0.0, math.inf), lambda z: 4 * z.log() - z),
        (Normal(0 * one, one), LINE, lambda z: -2 * (z - 1.5).square()),
    ]
    alone = [
        integrate(lambda z, p=p: p.log_prob(z[:, 0]), lambda rows, z, f=f: f(z[:, 0]), [axis], 1)
        for p, axis, f in parts
    ]
    q = integrate(
        lambda z: torch.stack([p.log_prob(z[:, j]) for j, (p, _, _) in enumerate(parts)]).sum(0),
        lambda rows, z: torch.stack([f(z[:, j]) for j, (_, _, f) in enumerate(parts)]).sum(0),
        [axis for _, axis, _ in parts],
        1,
        independent=True,
    )
    assert_honest(q, "kl", torch.stack([a.kl for a in alone]).sum(0))
    assert_honest(q, "log_evidence", torch.stack([a.log_evidence for a in alone]).sum(0))
    each = torch.cat([a.kl for a in alone])[None]
    assert_honest(q, "kl_per_latent", each)
    assert_honest(q, "kl_conditional", each)
    torch.testing.assert_close(q.mean, torch.cat([a.mean for a in alone], 1), rtol=1e-7, atol=0)


@pytest.mark.slow
def test_a_mixture_of_bumps_is_found_whole():
    """Two bumps four prior deviations apart: log Z in closed form, and half of the mass may not be missed."""
    centres = torch.tensor([[2.0, 0.0, 1.0], [-2.0, 1.0, 0.0]], dtype=D)
    sd = 0.5

    def bumps(rows: Tensor, z: Tensor) -> Tensor:
        apart = (z[:, None] - centres).square().sum(2)
        return torch.logsumexp(-0.5 * apart / sd**2, 1)

    q = integrate(standard, bumps, SPACE, 1, tolerance=1e-4, independent=True)
    v = 1 + sd**2
    masses = (sd**2 / v) ** 1.5 * torch.exp(-0.5 * centres.square().sum(1) / v)
    assert float(q.log_evidence) == pytest.approx(float(masses.sum().log()), abs=1e-6)
    share = masses / masses.sum()
    torch.testing.assert_close(q.mean[0], share @ centres / v, rtol=1e-5, atol=1e-6)
    assert float(q.kl_error) < 1e-3


def test_against_a_long_hmc_run_of_another_library():
    """x₁ = tanh z₁ + z₂, x₂ = z₂ z₃ + z₁: means and standard deviations by NUTS.

    `NUTS`: numpyro 0.22.0 (jax 0.10.2, float64), 40 chains of 10,000 draws after 1,000, ``PRNGKey(0)``; run once, on
    2026-11-22. The last two lines are the standard errors between chains, of the means and of the deviations.
    """
    c = collapse(SAMPLED, torch.tensor([[0.8, -0.5]], dtype=D))
    mean, sd, error, spread = (torch.tensor(row, dtype=D) for row in NUTS)
    assert ((c.posterior_mean[0] - mean).abs() < 4 * error).all()
    assert ((c.posterior_sd[0] - sd).abs() < 4 * spread).all()


SAMPLED = """z[3] ~ Normal(0, 1)
observe x[1] ~ Normal(tanh(z[1]) + z[2], 1)
observe x[2] ~ Normal(z[2]*z[3] + z[1], 1)"""
NUTS = (
    (-0.02848255, 0.34055668, -0.0057372),
    (0.73526561, 0.70642884, 0.91645124),
    (0.00164271, 0.00143053, 0.0016783),
    (0.0011329, 0.00097971, 0.00147453),
)


def test_crooked_posteriors_of_several_peaks_against_a_plain_grid():
    """The same model, data that bend the posterior or split it: the trapezoid rule on 129³ points of [−8, 8]³."""
    x = torch.randn(4, 2, dtype=D, generator=torch.Generator().manual_seed(0))[1:3]
    c = collapse(SAMPLED, x)
    line = torch.linspace(-8, 8, 129, dtype=D)
    a, b, d = torch.meshgrid(line, line, line, indexing="ij")
    prior = torch.exp(-(a**2 + b**2 + d**2) / 2) / (2 * math.pi) ** 1.5 * 0.125**3
    for i, (one, two) in enumerate(x.tolist()):
        height = -((one - a.tanh() - b) ** 2 + (two - b * d - a) ** 2) / 2 - math.log(2 * math.pi)
        weight = prior * height.exp()
        evidence = weight.sum()
        weight = weight / evidence
        assert c.log_evidence[i].item() == pytest.approx(evidence.log().item(), abs=1e-9)
        assert c.kl[i].item() == pytest.approx(((weight * height).sum() - evidence.log()).item(), abs=1e-7)
        for j, axis in enumerate((a, b, d)):
            own = weight.sum(tuple(k for k in range(3) if k != j))
            marginal = prior.sum(tuple(k for k in range(3) if k != j))
            kl = torch.where(own > 0, own * (own / marginal).log(), 0.0).sum()
            assert c.kl_per_latent[i, j].item() == pytest.approx(kl.item(), abs=1e-6)
            assert c.posterior_mean[i, j].item() == pytest.approx((weight * axis).sum().item(), abs=1e-6)


# Collapse


def test_three_latents_of_which_the_likelihood_sees_none_or_a_faint_trace():
    silent = "z[3] ~ Normal(0, 1); observe x ~ Normal(0*z[1] + 1, 1)"
    c = collapse(silent, [[0.3]])
    assert (c.kl <= c.kl_error).all() and c.kl_error.item() < 1e-20
    c = collapse("z[3] ~ Normal(0, 1); observe x ~ Normal(1e-9*(z[1] + 2*z[2]), 1)", [[1.0]])
    # KL = w²‖a‖²x²/2 to first order, and z₃ is not seen.
    assert c.kl.item() == pytest.approx(2.5e-18, rel=1e-6)
    assert c.kl_conditional[0].tolist() == pytest.approx([0.5e-18, 2e-18, 0.0], rel=1e-6, abs=1e-24)


def test_three_latents_lie_in_their_band_and_keep_rows_apart():
    text = "z[3] ~ Normal(0, 1); observe x[1] ~ Normal(z[1] - z[2], 1); observe x[2] ~ Normal(exp(z[3]/2), 1)"
    x = torch.tensor([[0.5, 1.0], [-2.0, 3.0], [0.0, 0.0]], dtype=D)
    c = collapse(text, x)
    low, high = c.band.T
    assert ((c.kl >= low - c.kl_error) & (c.kl <= high + c.kl_error)).all()
    again = collapse(text, x[1:2])
    torch.testing.assert_close(again.kl, c.kl[1:2], rtol=1e-9, atol=0)
    torch.testing.assert_close(
        c.kl, c.kl_per_latent[:, 2] + (c.kl - c.kl_conditional[:, 2]), rtol=1e-8, atol=0
    )


# Budgets

LIMITED = """
import resource, sys
import identkit as ik
ik.collapse("z ~ Normal(0, 1); observe x ~ Normal(z, 1)", [[1.0]])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
import identkit.posterior.information as information
information.EVALUATIONS = 1_000_000
try:
    print("kl", ik.collapse(sys.argv[1], [[0.5]]).kl.item())
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "text",
    [
        "z[2] ~ Normal(0, 10); observe x ~ Normal(cos(20*z[1])*cos(20*z[2]), 1/100)",
        "z[3] ~ Normal(0, 1); observe x ~ Normal(sin(60*z[1]) + sin(50*z[2]*z[3]), 1/1000)",
    ],
    ids=["a lattice of peaks", "waves in space"],
)
def test_what_is_too_crooked_is_refused_in_bounded_memory(text: str):
    command = [sys.executable, "-c", LIMITED, text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "should need at most 1,000,000 evaluations of log p(x | z), its budget" in done.stdout, done.stderr


def test_budgets_name_the_datum_and_the_latents():
    def waves(rows: Tensor, z: Tensor) -> Tensor:
        return torch.where(rows == 1, -1e4 * torch.sin(40 * z[:, 0] * z[:, 1]).square(), -z[:, 0].square())

    with pytest.raises(ValueError, match="the quadrature of datum 1 should need at most 200,000 evaluations"):
        integrate(standard, waves, [LINE, LINE], 2, evaluations=200_000)
    states = Finite(tuple(float(i) for i in range(1000)))
    with pytest.raises(ValueError, match=r"at most 262,144 joint states, .* got 1,000,000"):
        integrate(lambda z: -math.log(1e6) + 0 * z[:, 0], lambda rows, z: 0 * z[:, 0], [states, states], 1)
    many = "k[8] ~ Binomial(9, 1/2); observe x ~ Normal(k[1] + k[8], 1)"
    with pytest.raises(ValueError, match=r"at most 2,000,000 nodes under its prior, the budget, .* at k\["):
        collapse(many, [[1.0]])

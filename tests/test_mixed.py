"""Three continuous latents beside finite ones: dense algebra in each state, plain grids, and what is refused, quickly."""

from __future__ import annotations

import math
import time

import pytest
import torch
from scipy import integrate as scipy_integrate
from torch import Tensor

from identkit.posterior.information import Collapse, collapse

D = torch.float64


def assert_honest(c: Collapse, name: str, truth: Tensor, least: float = 1e-5) -> None:
    found, error = getattr(c, name), getattr(c, name + "_error")
    assert (error <= least * (1 + truth.abs())).all(), (name, error)
    assert ((found - truth).abs() <= error + 1e-9 * (1 + truth.abs())).all(), (name, found, truth, error)


def on_a_grid(prior: Tensor, height: Tensor) -> dict[str, Tensor]:
    """Every information of a discrete law on a table (axes of latents), by plain sums."""
    evidence = (prior * height.exp()).sum()
    posterior = prior * height.exp() / evidence
    dims = range(prior.ndim)

    def kl(kept: list[int]) -> Tensor:
        rest = [d for d in dims if d not in kept]
        q, p = (table.sum(rest) if rest else table for table in (posterior, prior))
        return torch.where(q > 0, q * (q / p).log(), 0.0).sum()

    joint = kl(list(dims))
    return {
        "kl": joint[None],
        "kl_per_latent": torch.stack([kl([d]) for d in dims])[None],
        "kl_conditional": torch.stack([joint - kl([e for e in dims if e != d]) for d in dims])[None],
        "log_evidence": evidence.log()[None],
    }


def test_every_information_against_a_plain_grid():
    """Two finite latents, one of them between the continuous ones, a prior that depends on a state, crooked ℓ."""
    text = """j ~ Bernoulli(0.3)
z[1] ~ Normal(0, 1)
k ~ Categorical(0.4, 0.6)
z[2] ~ Normal(j + z[1]/2, 1)
z[3] ~ Normal(0, 1)
observe x[1] ~ Normal(tanh(z[1]) + z[2] + k, 1)
observe x[2] ~ Normal(z[3]*k, 1)"""
    c = collapse(text, [[2.5, 0.8]])
    axes = {"j": torch.arange(2.0, dtype=D), "k": torch.arange(1.0, 3.0, dtype=D)}
    line = torch.linspace(-8.5, 8.5, 86, dtype=D)
    tables = dict(
        zip(c.names, torch.meshgrid(*[axes.get(n, line) for n in c.names], indexing="ij"), strict=True)
    )
    j, k, a, b, d = (tables[name] for name in ("j", "k", "z[1]", "z[2]", "z[3]"))
    step = float(line[1] - line[0])
    odds = torch.tensor([0.4, 0.6], dtype=D)[(k - 1).long()] * torch.where(j > 0, 0.3, 0.7)
    prior = odds * torch.exp(-(a**2 + (b - j - a / 2) ** 2 + d**2) / 2) * step**3 / (2 * math.pi) ** 1.5
    height = -((2.5 - a.tanh() - b - k) ** 2 + (0.8 - d * k) ** 2) / 2 - math.log(2 * math.pi)
    truth = on_a_grid(prior, height)
    assert c.log_evidence.item() == pytest.approx(truth["log_evidence"].item(), abs=1e-7)
    for name in ("kl", "kl_per_latent", "kl_conditional"):
        assert_honest(c, name, truth[name])
    posterior = prior * height.exp() / truth["log_evidence"].exp()
    means = [float((posterior * tables[name]).sum()) - (name == "k") for name in c.names]
    assert c.posterior_mean[0].tolist() == pytest.approx(means, abs=1e-7)
    seconds = [float((posterior * (tables[name] - int(name == "k")).square()).sum()) for name in c.names]
    sds = [math.sqrt(second - mean**2) for second, mean in zip(seconds, means, strict=True)]
    assert c.posterior_sd[0].tolist() == pytest.approx(sds, abs=1e-7)


def _mixed_change(z: float, state: Tensor, centre: Tensor, spread: Tensor) -> float:
    """``q log(q/p)`` at z, of a mixture of normal laws against the standard one."""
    parts = torch.exp(-((z - centre) ** 2) / (2 * spread)) / torch.sqrt(2 * math.pi * spread)
    density = float((state * parts).sum())
    return density * (math.log(density) + z**2 / 2 + math.log(2 * math.pi) / 2)


def test_sharp_posteriors_in_states_far_apart_against_dense_algebra():
    """x = z₁ + z₂ + z₃ + 3k + noise of a tenth: three thin sheets, of which no common grid could hold all."""
    odds, noise = torch.tensor([0.2, 0.5, 0.3], dtype=D), 0.1
    text = "k ~ Categorical(0.2, 0.5, 0.3); z[3] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2] + z[3] + 3*k, 1/10)"
    x = torch.tensor([[5.7], [3.0]], dtype=D)
    c = collapse(text, x)
    for i, value in enumerate(x[:, 0]):
        left = value - 3 * torch.arange(1.0, 4.0, dtype=D)
        law = odds * torch.exp(-(left**2) / (2 * (3 + noise**2))) / math.sqrt(2 * math.pi * (3 + noise**2))
        evidence = law.sum()
        state = law / evidence
        spread = torch.tensor(1 - 1 / (3 + noise**2), dtype=D)  # of each latent given the state
        centre = left / (3 + noise**2)
        inner = (3 * spread - 3 + 3 * centre**2 - math.log(noise**2 / (3 + noise**2))) / 2
        over = (state * (state / odds).log()).sum()

        parts = state, centre, spread
        one = scipy_integrate.quad(_mixed_change, -9, 9, parts, epsabs=1e-12, epsrel=1e-12, limit=400)[0]
        assert c.log_evidence[i].item() == pytest.approx(evidence.log().item(), abs=1e-9)
        assert c.kl[i].item() == pytest.approx((over + (state * inner).sum()).item(), abs=1e-8)
        assert c.kl_per_latent[i, 0].item() == pytest.approx(over.item(), abs=1e-9)
        assert c.kl_per_latent[i, 1:].tolist() == pytest.approx([one] * 3, abs=1e-8)


def test_a_finite_latent_that_nothing_sees_stays_collapsed():
    c = collapse(
        "j ~ Bernoulli(0.3); k ~ Bernoulli(0.6); z[3] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2]*z[3] + k, 1)",
        [[1.2]],
    )
    unseen = c.names.index("j")
    for name in ("kl_per_latent", "kl_conditional"):
        found, error = getattr(c, name)[0], getattr(c, name + "_error")[0]
        assert found[unseen] <= error[unseen] <= 1e-6
        assert (found > error)[[i for i in range(5) if i != unseen]].all()


def test_a_thin_crooked_ridge_is_answered():
    """x = z₁ + 2 z₂ z₃ + noise: z₁ and the noise are summed out by hand, the plane of the others by a fine grid."""
    for noise in (1.0, 0.5):
        c = collapse(f"z[3] ~ Normal(0, 1); observe x ~ Normal(z[1] + 2*z[2]*z[3], {noise})", [[0.7]])
        line = torch.linspace(-8.5, 8.5, 3001, dtype=D)
        a, b = torch.meshgrid(line, line, indexing="ij")
        v = 1 + noise**2
        weight = (
            torch.exp(-(a**2 + b**2) / 2 - (0.7 - 2 * a * b) ** 2 / (2 * v)) * float(line[1] - line[0]) ** 2
        )
        evidence = weight.sum() / (2 * math.pi) ** 1.5 / math.sqrt(v)
        weight = weight / weight.sum()
        left = 0.7 - 2 * a * b
        # E[(x − z₁ − 2z₂z₃)² | z₂, z₃] is a squared mean and a variance.
        square = (left * noise**2 / v) ** 2 + noise**2 / v
        height = (weight * (-square / (2 * noise**2))).sum() - math.log(2 * math.pi * noise**2) / 2
        assert c.log_evidence.item() == pytest.approx(evidence.log().item(), abs=1e-7)
        assert c.kl.item() == pytest.approx((height - evidence.log()).item(), abs=1e-7)
        given = (weight * (noise**2 / v - 1 + (left / v) ** 2 - math.log(noise**2 / v)) / 2).sum()
        assert abs(c.kl_conditional[0, 0].item() - given.item()) <= c.kl_conditional_error[0, 0].item() + 1e-8


@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        ("observe x ~ Normal(z[1] + 2*z[2]*z[3], 1/10)", [[0.7]]),
        ("observe x[3] ~ Normal([(z[1]+z[2])^2, (z[2]+z[3])^2, (z[3]-z[1])^2], 1/10)", [[0.5, 0.6, 0.9]]),
    ],
    ids=["a ridge thinner than any grid", "eight sharp peaks"],
)
def test_what_would_take_minutes_is_refused_in_seconds(likelihood: str, x: list[list[float]]):
    start = time.perf_counter()
    with pytest.raises(
        ValueError, match=r"datum 0 should need at most .* too sharp, too crooked or has too many"
    ):
        collapse(f"z[3] ~ Normal(0, 1); {likelihood}", x)
    assert time.perf_counter() - start < 120  # 2 s on an idle machine


def test_eight_sharp_peaks_of_latents_that_nothing_joins_are_integrated_one_by_one():
    x = [0.5, 0.6, 0.9]
    whole = collapse("z[3] ~ Normal(0, 1); observe x[3] ~ Normal([z[1]^2, z[2]^2, z[3]^2], 1/10)", [x])
    each = [collapse("z ~ Normal(0, 1); observe x ~ Normal(z^2, 1/10)", [[value]]) for value in x]
    assert whole.kl.item() == pytest.approx(sum(one.kl.item() for one in each), rel=1e-9)
    assert whole.kl_per_latent[0].tolist() == pytest.approx([one.kl.item() for one in each], rel=1e-9)
    assert whole.log_evidence.item() == pytest.approx(sum(one.log_evidence.item() for one in each), rel=1e-9)

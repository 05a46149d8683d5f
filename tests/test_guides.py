"""Needles that a mixture's other components hide: closed forms find them, and so should quadrature."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, t as student

import identkit as ik
from identkit.model.compiled import compiled
from identkit.posterior.guides import guides, hiding
from identkit.posterior.prior_rule import prior_rule

BROAD = 10.0


def outlier(loading: str, sd: float, share: float, latents: str = "z ~ Normal(0, 1)") -> str:
    return (
        f"{latents}; observe x ~ Mixture([{share}, {1 - share}], Normal({loading}, {sd:.12f}), Normal(0, 10))"
    )


def truth(x: float, sd: float, share: float, spread: float = 1.0) -> tuple[float, float, float]:
    """Evidence, KL and posterior mean of ``z ~ N(0, spread²)``, ``x ~ share·N(z, sd²) + (1 − share)·N(0, 10²)``."""
    near = share * norm.pdf(x, 0, math.hypot(spread, sd))
    far = (1 - share) * norm.pdf(x, 0, BROAD)
    evidence = near + far

    def gain(z: float) -> float:
        likelihood = share * norm.pdf(x, z, sd) + (1 - share) * norm.pdf(x, 0, BROAD)
        return norm.pdf(z, 0, spread) * likelihood / evidence * math.log(likelihood / evidence)

    cuts = [x + sd * k for k in (-40, -12, -6, -3, -1, 0, 1, 3, 6, 12, 40)]
    inside = sum(quad(gain, a, b, epsabs=1e-14)[0] for a, b in pairwise(cuts))
    beyond = far / evidence * math.log((1 - share) * norm.pdf(x, 0, BROAD) / evidence)
    beyond *= norm.cdf(cuts[0] / spread) + norm.sf(cuts[-1] / spread)
    shrunk = x * spread**2 / (spread**2 + sd**2)
    return math.log(evidence), inside + beyond, near / evidence * shrunk


@pytest.mark.parametrize("sd", [0.01, 1e-8])
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_an_exact_measurement_among_outliers(sd, share):
    found = ik.collapse(outlier("z", sd, share), [[2.0], [0.3]])
    for row, x in enumerate((2.0, 0.3)):
        evidence, kl, mean = truth(x, sd, share)
        assert found.log_evidence[row].item() == pytest.approx(evidence, abs=3e-9)
        assert found.kl[row].item() == pytest.approx(kl, rel=1e-6)
        assert found.posterior_mean[row, 0].item() == pytest.approx(mean, rel=1e-7)
        assert found.band[row, 0] <= found.kl[row] <= found.band[row, 1]


@pytest.mark.parametrize(
    "latents", ["a ~ Normal(0, 1); b ~ Normal(0, 1)", "b ~ Normal(0, 1); a ~ Normal(0, 1)"]
)
def test_one_latent_of_two_is_measured(latents):
    found = ik.collapse(outlier("a", 0.001, 0.5, latents), [[2.0]])
    evidence, kl, _ = truth(2.0, 0.001, 0.5)
    assert found.log_evidence.item() == pytest.approx(evidence, abs=1e-9)
    assert found.kl.item() == pytest.approx(kl, rel=1e-6)
    which = found.names.index("b")
    assert found.kl_conditional[0, which].item() <= found.kl_conditional_error[0, which].item()


def test_pooled_rows_point_together():
    # Labels summed out by hand: each row is near or far.
    x, sd = np.array([2.0, 2.0005, -1.0]), 0.001
    found = ik.collapse(outlier("z", sd, 0.5), x, pooled=True)
    total = 0.0
    for labels in np.ndindex(2, 2, 2):
        near = x[np.array(labels) == 1]
        covariance = np.eye(len(near)) * sd**2 + 1.0
        density = math.exp(-near @ np.linalg.solve(covariance, near) / 2) if len(near) else 1.0
        density /= math.sqrt((2 * math.pi) ** len(near) * np.linalg.det(covariance)) if len(near) else 1.0
        total += 0.125 * density * math.prod(norm.pdf(far, 0, BROAD) for far in x[np.array(labels) == 0])
    assert found.log_evidence.item() == pytest.approx(math.log(total), abs=1e-8)


def test_verify_sees_the_needle():
    check = ik.verify(outlier("z", 0.01, 0.5), [[2.0]])
    assert [row.agrees for row in check.rows if row.scope == "data"] == [True, True]
    assert check.collapse.flatness.item() == math.inf  # no rule under the prior has seen it: better than 0


def test_guides_are_asked_only_where_a_needle_may_hide():
    wide = compiled(ik.parse(outlier("z", 1.0, 0.5)))
    labels = compiled(
        ik.parse("a ~ Beta(5, 5); observe x ~ Mixture([a, 1 - a], Normal(-1, 1), Normal(1, 1))")
    )
    x = torch.tensor([[2.0]], dtype=torch.float64)
    assert guides(labels, x) == []
    assert not hiding(guides(wide, x), *prior_rule(wide, 64), 1).any()
    sharp = compiled(ik.parse(outlier("z", 0.01, 0.5)))
    assert hiding(guides(sharp, x), *prior_rule(sharp, 64), 1).all()
    seen = torch.tensor([[False]])
    assert not hiding(guides(sharp, x, mask=seen), *prior_rule(sharp, 64), 1).any()


def test_a_funnel_is_answered():
    # z | v is integrated out by hand; over v a trapezoid rule.
    found = ik.collapse("v ~ Normal(0, 3); z ~ Normal(0, exp(v/2)); observe x ~ Normal(z, 1)", [[100.0]])
    v = np.linspace(-40, 60, 200_001)
    for row, x in enumerate((100.0,)):
        heights = norm.logpdf(v, 0, 3) + norm.logpdf(x, 0, np.sqrt(1 + np.exp(v)))
        mass = np.exp(heights - heights.max())
        evidence = heights.max() + math.log(mass.sum() * (v[1] - v[0]))
        a = np.exp(v)
        square = (x / (1 + a)) ** 2 + a / (1 + a)
        gain = -(square + math.log(2 * math.pi)) / 2
        assert found.log_evidence[row].item() == pytest.approx(evidence, abs=1e-10)
        kl = (mass * gain).sum() / mass.sum() - evidence
        assert found.kl[row].item() == pytest.approx(kl, rel=1e-9)


def test_a_rounded_measurement_is_an_island_in_a_sea_of_minus_infinity():
    """``x ~ U(z − h, z + h)``: Z = P(|z − x| < h)/2h and KL = −log P, for h far below the spacing of any rule."""
    for half in (1e-3, 1e-6):
        text = f"z ~ Normal(0, 1); observe x ~ Uniform(z - {half:.9f}, z + {half:.9f})"
        found = ik.collapse(text, [[2.5], [0.3], [7.0]])
        for row, x in enumerate((2.5, 0.3, 7.0)):
            mass, _ = quad(norm.pdf, x - half, x + half, epsabs=0, epsrel=1e-13)
            assert abs(found.kl[row].item() + math.log(mass)) <= found.kl_error[row].item() < 1e-7
            assert found.log_evidence[row].item() == pytest.approx(math.log(mass / (2 * half)), abs=1e-8)
            assert found.posterior_mean[row, 0].item() == pytest.approx(x, abs=half)
            assert found.band[row, 0] <= found.kl[row] <= found.band[row, 1]


def test_rounded_measurements_overlap_in_a_strip():
    """Two rows of one z leave ``max x − h < z < min x + h``, with either of two roots."""
    text = "z ~ Normal(0, 1); observe x ~ Uniform(z^2 - 0.001, z^2 + 0.001)"
    found = ik.collapse(text, [[4.0], [4.0015]], pooled=True)
    mass = 2 * (norm.cdf(math.sqrt(4.001)) - norm.cdf(math.sqrt(4.0005)))
    assert abs(found.kl.item() + math.log(mass)) <= found.kl_error.item() < 1e-8
    heavy = "z ~ StudentT(3, 1, 2); observe x ~ Uniform(z^2 - 1/40, z^2 + 1/40)"
    ends = math.sqrt(0.93 - 0.025), math.sqrt(0.93 + 0.025)
    law = student(3, 1, 2)
    mass = law.cdf(ends[1]) - law.cdf(ends[0]) + law.cdf(-ends[0]) - law.cdf(-ends[1])
    found = ik.collapse(heavy, [[0.93]])
    assert abs(found.kl.item() + math.log(mass)) <= found.kl_error.item() < 1e-8
    with pytest.raises(ValueError, match="probability zero wherever it was looked"):
        ik.collapse(text, [[-1.0]])

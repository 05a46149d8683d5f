"""`collapse` against closed forms, mpmath and the textbook traps; its two roads can convict each other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import betaln, digamma
from torch import Tensor

from identkit.classical.linear_gaussian import PPCA
from identkit.posterior import information
from identkit.posterior.information import Collapse, collapse
from identkit.theorem import verify

XOR = "z[2] ~ Bernoulli(1/2); observe x ~ Bernoulli(0.1 + 0.8*(z[1] + z[2] - 2*z[1]*z[2]))"
LOADINGS = np.array([[1.0, 0.5], [-0.3, 0.2], [0.7, -1.1]])
LINEAR = "z ~ Normal(0, 1); observe x ~ Normal(w*z, s)"


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def in_band(c: Collapse) -> bool:
    low, high = c.band.T
    return bool(((c.kl >= low - c.kl_error) & (c.kl <= high + c.kl_error)).all())


def gaussian_kl(mean: np.ndarray, cov: np.ndarray, prior_mean: np.ndarray, prior_cov: np.ndarray) -> float:
    """KL(N(mean, cov) ‖ N(prior_mean, prior_cov)) by its formula."""
    apart = mean - prior_mean
    quadratic = apart @ np.linalg.solve(prior_cov, apart)
    log_det = np.linalg.slogdet(prior_cov)[1] - np.linalg.slogdet(cov)[1]
    return float((np.trace(np.linalg.solve(prior_cov, cov)) + quadratic - len(mean) + log_det) / 2)


# Oracles


def test_linear_gaussian_models_agree_with_dense_joint_algebra():
    """Three observations of two dependent latents: joint, marginal and conditional KL, moments, evidence."""
    text = "z[1] ~ Normal(0, 1); z[2] ~ Normal(0.8*z[1], 0.6)\n" + "\n".join(
        f"observe x[{i + 1}] ~ Normal({a}*z[1] + {b}*z[2], 0.7)" for i, (a, b) in enumerate(LOADINGS.tolist())
    )
    x = np.array([[0.3, -1.0, 2.0], [5.0, 4.0, -3.0]])
    c = collapse(text, x)
    prior_cov = np.array([[1.0, 0.8], [0.8, 1.0]])
    cov = np.linalg.inv(np.linalg.inv(prior_cov) + LOADINGS.T @ LOADINGS / 0.49)
    zero = np.zeros(2)
    for i, row in enumerate(x):
        mean = cov @ LOADINGS.T @ row / 0.49
        assert c.kl[i].item() == pytest.approx(gaussian_kl(mean, cov, zero, prior_cov), rel=1e-10)
        assert c.posterior_mean[i].tolist() == pytest.approx(mean.tolist(), abs=1e-10)
        assert c.posterior_sd[i].tolist() == pytest.approx(np.sqrt(cov.diagonal()).tolist(), rel=1e-10)
        marginal_x = LOADINGS @ prior_cov @ LOADINGS.T + 0.49 * np.eye(3)
        evidence = (
            -(row @ np.linalg.solve(marginal_x, row) + np.linalg.slogdet(2 * np.pi * marginal_x)[1]) / 2
        )
        assert c.log_evidence[i].item() == pytest.approx(evidence, rel=1e-10)
        for j in range(2):
            one = gaussian_kl(mean[[j]], cov[[j]][:, [j]], zero[:1], np.eye(1))
            assert c.kl_per_latent[i, j].item() == pytest.approx(one, rel=1e-10)
            # By the chain rule what is not in the other's marginal is in this one's conditional.
            other = gaussian_kl(mean[[1 - j]], cov[[1 - j]][:, [1 - j]], zero[:1], np.eye(1))
            assert c.kl_conditional[i, j].item() == pytest.approx(c.kl[i].item() - other, rel=1e-9)
    assert in_band(c)
    assert c.names == ("z[1]", "z[2]")


def test_exact_models_and_their_text_twins_agree():
    """The protocol's road (closed form) beside the declared model's (quadrature, Gauss rules)."""
    for scale, sigma in ((1.0, 0.05), (1e-8, 1.0)):
        ppca = PPCA(torch.from_numpy(LOADINGS) * scale, sigma)
        x = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
        exact, twin = collapse(ppca, x), collapse(ppca.symbolic(), x)
        for name in ("kl", "kl_per_latent", "kl_conditional", "flatness", "posterior_sd", "log_evidence"):
            one, other = getattr(twin, name).flatten().tolist(), getattr(exact, name).flatten().tolist()
            assert one == pytest.approx(other, rel=1e-9, abs=1e-40)
        assert bool(((twin.kl - exact.kl).abs() <= twin.kl_error + exact.kl_error).all())
        assert exact.names == twin.names
        assert in_band(twin)


@pytest.mark.parametrize(("trials", "successes"), [(1, 1), (4, 0), (30, 27)])
def test_beta_binomial_in_closed_form(trials: int, successes: int):
    """KL = log B(a, b)/B(a′, b′) + s ψ(a′) + f ψ(b′) − (s + f) ψ(a′ + b′)."""
    a, b, s, f = 2.0, 3.5, successes, trials - successes
    exact = betaln(a, b) - betaln(a + s, b + f) + s * digamma(a + s) + f * digamma(b + f)
    exact -= trials * digamma(a + b + trials)
    c = collapse("z ~ Beta(2, 3.5); observe x ~ Binomial(n, z)", column(successes), at={"n": trials})
    assert c.kl.item() == pytest.approx(exact, rel=1e-10)
    assert c.posterior_mean.item() == pytest.approx((a + s) / (a + b + trials), rel=1e-10)
    assert in_band(c)
    assert c.bound == ("T4.4",)


def test_a_gaussian_mixture_is_its_responsibilities():
    """KL = Σ r_k log(r_k/π_k), also a datum ten thousand standard deviations away."""
    weights, means = [0.2, 0.3, 0.5], [0.0, 1.0, 4.0]
    c = collapse(
        "k ~ Categorical(0.2, 0.3, 0.5); observe x ~ Normal(select(k, 0, 1, 4), 1)",
        column(0.4, 3.0, 1e4, -1e4),
    )
    with mpmath.workdps(50):
        for i, x in enumerate((0.4, 3.0, 1e4, -1e4)):
            joint = [
                mpmath.mpf(w) * mpmath.exp(-((mpmath.mpf(x) - m) ** 2) / 2)
                for w, m in zip(weights, means, strict=True)
            ]
            r = [part / mpmath.fsum(joint) for part in joint]
            exact = mpmath.fsum(q * mpmath.log(q / mpmath.mpf(w)) for q, w in zip(r, weights, strict=True))
            assert c.kl[i].item() == pytest.approx(float(exact), rel=1e-10)
    assert bool((c.omega[2:] > 700).all())
    assert c.bound == ("T4.3/T4.2",) * 4
    assert in_band(c)


@pytest.mark.parametrize("w", [1.0, 1e-3, 1e-6, 1e-9, 1e-12])
def test_a_faint_signal_is_measured_and_lies_in_its_band(w: float):
    x = np.array([-2.0, 0.7, 1.0, 3.0])
    c = collapse(LINEAR, x[:, None], at={"w": w, "s": 1})
    with mpmath.workdps(60):
        for i, value in enumerate(x):
            v, m = mpmath.mpf(repr(w)) ** 2, mpmath.mpf(float(value))
            exact = (1 / (1 + v) + v * (m / (1 + v)) ** 2 - 1 + mpmath.log(1 + v)) / 2
            assert c.kl[i].item() == pytest.approx(float(exact), rel=1e-8)
            assert abs(c.kl[i].item() - float(exact)) <= c.kl_error[i].item() + 1e-15 * float(exact)
    assert in_band(c)
    assert bool((c.kl > c.kl_error).all())


def test_a_faint_signal_between_states_lies_in_its_very_narrow_band():
    c = collapse(
        "k ~ Categorical(0.2, 0.8); observe x ~ Normal(select(k, 0, e), 1)", column(1.0, 2.5), at={"e": 1e-12}
    )
    assert c.kl.tolist() == pytest.approx([0.5 * 0.16e-24, 0.5 * 0.16e-24 * 6.25], rel=1e-9)
    assert bool((c.band[:, 1] / c.band[:, 0] - 1 < 1e-10).all())
    assert in_band(c)
    assert c.omega.tolist() == pytest.approx([1e-12, 2.5e-12], rel=1e-9)


def test_faint_signals_are_taken_apart_latent_by_latent():
    """ε(z_1 + 2z_2): KL → ½ε²x²(1, 4) for the latents, whose sum is the joint; k is ignored."""
    text = "z[2] ~ Normal(0, 1); k ~ Bernoulli(1/2); observe x ~ Normal(1e-11*(z[1] + 2*z[2]), 1)"
    c = collapse(text, column(3.0))
    assert c.kl.item() == pytest.approx(22.5e-22, rel=1e-8)
    assert c.kl_per_latent[0].tolist() == pytest.approx([4.5e-22, 18e-22, 0.0], rel=1e-8, abs=1e-40)
    assert c.kl_conditional[0].tolist() == pytest.approx([4.5e-22, 18e-22, 0.0], rel=1e-8, abs=1e-40)


def test_a_faint_kink_is_left_to_adaptive_quadrature_or_measured_honestly():
    """ℓ ≈ εx·relu(z): KL → ½ε²x²(½ − 1/(2π)), and equispaced nodes see a kink badly."""
    c = collapse("z ~ Normal(0, 1); observe x ~ Normal(1e-7*relu(z), 1)", column(2.0))
    exact = 0.5 * 4e-14 * (0.5 - 0.5 / math.pi)
    assert abs(c.kl.item() - exact) <= c.kl_error.item() + 1e-6 * exact
    assert c.kl_error.item() < 1e-2 * exact
    assert in_band(c)


# The traps of theory/T3


def test_xor_hides_from_its_marginals():
    """H18: joint .3681, both marginals 0, and each conditional carries everything."""
    c = collapse(XOR, column(1.0, 0.0))
    exact = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert c.kl.tolist() == pytest.approx([exact] * 2, rel=1e-13)
    assert round(exact, 4) == 0.3681
    assert bool((c.kl_per_latent <= c.kl_per_latent_error).all())
    assert c.kl_conditional.flatten().tolist() == pytest.approx([exact] * 4, rel=1e-13)
    assert in_band(c)


def test_a_correlated_prior_moves_what_the_likelihood_ignores():
    """H19: ℓ ignores z_2, so its conditional stays, while its marginal moves: E[z_2 | x = 1] = .5333."""
    c = collapse(
        "z1 ~ Normal(0, 1); z2 ~ Normal(0.8*z1, 0.6); observe x ~ Normal(z1, sqrt(1/2))", column(1.0)
    )
    assert c.posterior_mean[0].tolist() == pytest.approx([2 / 3, 0.8 * 2 / 3], rel=1e-10)
    assert c.kl_conditional[0, 1].item() <= c.kl_conditional_error[0, 1].item()
    assert c.kl_per_latent[0, 1].item() > 0.1 > c.kl_per_latent_error[0, 1].item()
    assert in_band(c)


def test_a_mirror_keeps_the_mean_and_loses_the_prior():
    """x ~ N(z², ¼): posterior mean 0 at every x, KL .41, .37, 2.11 at x = 0, 1, 3."""
    c = collapse("z ~ Normal(0, 1); observe x ~ Normal(z^2, 1/2)", column(0.0, 1.0, 3.0))
    assert [round(value, 2) for value in c.kl.tolist()] == [0.41, 0.37, 2.11]
    assert c.posterior_mean.abs().max().item() < 1e-12
    assert in_band(c)


def test_weak_is_not_nothing():
    """H25: ½E[z | x]² = .01047 ≤ KL = .01049 ≤ ½E_Q ℓ′² = .01050."""
    c = collapse("z ~ Normal(0, 1); observe x ~ Bernoulli(sigmoid(0.2*z - 1))", column(1.0))
    assert [round(value, 5) for value in (*c.band[0].tolist(), c.kl.item())] == [0.01047, 0.0105, 0.01049]
    assert c.bound == ("T4.4",)
    assert in_band(c)


@pytest.mark.parametrize(
    ("text", "pooled"),
    [
        ("z ~ Normal(0, 1); observe x ~ Normal(0*z, 1)", False),
        ("a ~ Beta(5, 5); observe x ~ Mixture([a, 1 - a], Normal(0.1, 1), Normal(0.1, 1))", True),
        ("k ~ Categorical(0.1, 0.9); observe x ~ Normal(select(k, 1/3, 1/3), 2)", False),
    ],
)
def test_a_collapsed_posterior_is_the_prior_and_says_how_sure_it_is(text: str, pooled: bool):
    c = collapse(text, column(0.3, -1.0, 7.1), pooled=pooled)
    assert bool((c.kl == 0).all())
    assert bool(((c.kl_error > 0) & (c.kl_error < 1e-20)).all())
    assert bool((c.band == 0).all())
    assert bool((c.flatness == 0).all())
    assert bool((c.omega == 0).all())
    assert bool((c.kl_per_latent <= c.kl_per_latent_error).all())


# Rows


def test_pooled_rows_are_one_datum_and_single_rows_are_their_own():
    """Normal rows with one shared mean: sufficient is their mean, of variance 1/n."""
    x = column(0.5, 1.5, 2.0, 0.4)
    pooled = collapse(LINEAR, x, at={"w": 1, "s": 1}, pooled=True)
    mean = collapse(LINEAR, column(1.1), at={"w": 1, "s": "1/2"})
    assert pooled.kl.shape == (1,)
    assert pooled.kl.item() == pytest.approx(mean.kl.item(), rel=1e-11)
    assert pooled.band[0].tolist() == pytest.approx(mean.band[0].tolist(), rel=1e-6)
    together = collapse(LINEAR, x, at={"w": 1, "s": 1})
    alone = [collapse(LINEAR, x[[i]], at={"w": 1, "s": 1}).kl.item() for i in range(4)]
    assert together.kl.tolist() == pytest.approx(alone, rel=1e-11)
    assert together.mean_kl == pytest.approx(np.mean(alone), rel=1e-11)


def test_missing_cells_say_nothing():
    text = "z ~ Normal(0, 1); observe x ~ Normal(z, 1); observe y ~ Normal(z, 1)"
    data = np.array([[1.0, np.nan], [np.nan, np.nan]])
    c = collapse(text, data, mask=~np.isnan(data))
    alone = collapse(LINEAR, column(1.0), at={"w": 1, "s": 1})
    assert c.kl.tolist() == pytest.approx([alone.kl.item(), 0.0], rel=1e-11)


def test_data_come_as_arrays_or_columns():
    text = "z ~ Normal(0, 1); observe x ~ Normal(z, 1); observe y ~ Normal(2*z, 1)"
    table = np.array([[1.0, 0.5], [2.0, -1.0]])
    by_name = collapse(text, {"y": table[:, 1], "x": table[:, 0]})
    assert (
        by_name.kl.tolist()
        == collapse(text, table).kl.tolist()
        == collapse(text, torch.from_numpy(table)).kl.tolist()
    )
    ppca = PPCA(torch.tensor([[1.0], [2.0]], dtype=torch.float64), 1.0)
    named = collapse(ppca, {"x[1]": table[:, 0], "x[2]": table[:, 1]})
    assert named.kl.tolist() == pytest.approx(by_name.kl.tolist(), rel=1e-10)


# Two roads


def test_a_posterior_that_returns_the_prior_falls_out_of_its_band(monkeypatch: pytest.MonkeyPatch):
    truth = information._posterior

    def broken(*arguments: Any) -> Any:
        return dataclasses.replace(truth(*arguments), kl=torch.zeros(1, dtype=torch.float64))

    for x in (1.0, 1e-4):
        assert in_band(collapse(LINEAR, column(x), at={"w": x, "s": 1}))
        with monkeypatch.context() as patch:
            patch.setattr(information, "_posterior", broken)
            c = collapse(LINEAR, column(1.0), at={"w": x, "s": 1})
        assert c.kl.item() == 0.0
        assert not in_band(c)


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("e", [1e-10, 0.03])
def test_a_wrong_flatness_excludes_the_right_kl(monkeypatch: pytest.MonkeyPatch, factor: float, e: float):
    text, x = "k ~ Categorical(0.4, 0.6); observe x ~ Normal(select(k, 0, e), 1)", column(1.0)
    assert in_band(collapse(text, x, at={"e": e}))
    truth = information.prior_moments

    def broken(*arguments: Any) -> Any:
        moments = truth(*arguments)
        return dataclasses.replace(moments, variance=moments.variance * factor)

    monkeypatch.setattr(information, "prior_moments", broken)
    assert not in_band(collapse(text, x, at={"e": e}))


def test_a_likelihood_off_by_a_factor_in_one_road_only_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """Nearly flat rows: both roads read exact gaps, but with nodes and weights of their own."""
    from identkit.posterior import nearly_flat

    text, x = "z ~ Normal(0, 1); observe x ~ Normal(1e-9*z, 1)", column(1.0)
    truth = nearly_flat.exact_gaps
    monkeypatch.setattr(nearly_flat, "exact_gaps", lambda *arguments: 1.01 * truth(*arguments))
    assert not in_band(collapse(text, x))


# The door


def test_bad_input_is_refused_with_advice():
    with pytest.raises(ValueError, match="every parameter needs a value; missing: w, s"):
        collapse(LINEAR, column(1.0))
    with pytest.raises(ValueError, match="x should be finite, got nan in row 2, column x"):
        collapse(LINEAR, column(1.0, math.nan), at={"w": 1, "s": 1})
    with pytest.raises(ValueError, match=r"x should have shape \(n, 1\)"):
        collapse(LINEAR, torch.zeros(3, 2), at={"w": 1, "s": 1})
    with pytest.raises(ValueError, match="x should have at least one row"):
        collapse(LINEAR, torch.zeros(0, 1), at={"w": 1, "s": 1})
    with pytest.raises(
        ValueError, match=r"at most three continuous latents, got 4: z\[1\], z\[2\], z\[3\], z\[4\]"
    ):
        collapse("z[4] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2] + z[3] + z[4], 1)", column(1.0))
    with pytest.raises(ValueError, match="model should have at least one latent"):
        collapse("observe x ~ Normal(0, 1)", column(1.0))
    with pytest.raises(TypeError, match="model should be a Model, its text, or an exact model, got int"):
        collapse(3, column(1.0))  # type: ignore[arg-type]
    ppca = PPCA(torch.ones(1, 1, dtype=torch.float64), 1.0)
    with pytest.raises(ValueError, match="at should be None for a PPCA"):
        collapse(ppca, column(1.0), at={"w": 1})
    with pytest.raises(ValueError, match="pooled should be False"):
        collapse(ppca, column(1.0), pooled=True)


WAVES = {
    "cos(3*z) + z/50": (lambda z: np.cos(3 * z) + z / 50, 0.001, 2.0),
    "cos(7*z) + z/50": (lambda z: np.cos(7 * z) + z / 50, 0.01, 2.2),
    "cos(40*z) + z/50": (lambda z: np.cos(40 * z) + z / 50, 0.01, 1.8),
    "sin(5*z)*3 + z": (lambda z: 3 * np.sin(5 * z) + z, 0.01, 40.0),
}


@pytest.mark.parametrize("mean", WAVES)
def test_the_highest_of_many_peaks_far_beyond_the_prior(mean: str):
    """What is found first is one of a hundred peaks, some of which are a thousand nats higher."""
    wave, sd, x = WAVES[mean]
    z = np.linspace(-60, 120, 2_000_001)
    log_prior = -(z**2) / 2 - math.log(2 * math.pi) / 2
    height = -(((x - wave(z)) / sd) ** 2) / 2 - math.log(sd * math.sqrt(2 * math.pi))
    joint = log_prior + height
    weight = np.exp(joint - joint.max())
    evidence = joint.max() + math.log(weight.sum() * (z[1] - z[0]))
    mass = weight / weight.sum()
    found = collapse(f"z ~ Normal(0, 1); observe x ~ Normal({mean}, {sd})", [[x]])
    assert found.log_evidence.item() == pytest.approx(evidence, rel=1e-10)
    assert found.kl.item() == pytest.approx(float(mass @ height) - evidence, rel=1e-9)
    assert found.posterior_mean.item() == pytest.approx(float(mass @ z), rel=1e-8)


@pytest.mark.parametrize(
    ("model", "mean", "sd"),
    [
        ("z ~ Cauchy(0, 1); observe x ~ Bernoulli(1/2)", math.nan, math.inf),
        ("z ~ StudentT(2, 1, 1); observe x ~ Bernoulli(1/2)", 1.0, math.inf),
        ("z ~ StudentT(2.1, 0, 1); observe x ~ Bernoulli(1/2)", 0.0, math.sqrt(21)),
        ("z ~ InverseGamma(3/2, 1); observe x ~ Bernoulli(1/2)", 2.0, math.inf),
        ("z ~ InverseGamma(1/2, 1); observe x ~ Bernoulli(1/2)", math.inf, math.inf),
        ("z ~ InverseGamma(3, 1); observe x ~ Bernoulli(1/2)", 0.5, 0.5),
        ("z ~ Normal(0, 1); observe x ~ Normal(z^2, 1/1000)", 0.0, 1.0),
        ("z ~ LogNormal(0, 1); observe x ~ Bernoulli(1/2)", math.exp(0.5), math.sqrt(math.e**2 - math.e)),
    ],
)
def test_moments_that_do_not_exist_are_none(model: str, mean: float, sd: float):
    found = collapse(model, [[1.0]])
    assert found.posterior_mean.item() == pytest.approx(mean, rel=1e-6, abs=1e-6, nan_ok=True)
    assert found.posterior_sd.item() == pytest.approx(sd, rel=1e-6)


def test_results_are_frozen():
    c = collapse(LINEAR, column(1.0), at={"w": 1, "s": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.kl = c.kl  # type: ignore[misc]


JUMPS = {
    "Uniform(z - 1, z + 1)": 1.0,
    "Uniform(0, exp(z))": 1.0,
    "Mixture([1/1000, 999/1000], Uniform(z - 1, z + 1), Uniform(-10, 10))": 1.0,
    "Normal(tanh(1/z), 1)": 1.0,
    "Bernoulli(sigmoid(1/z))": 1.0,
}


@pytest.mark.parametrize("law", JUMPS)
def test_no_slope_bounds_the_information_of_a_jump(law: str):
    """E_Q‖∇ℓ‖² is 0 of a box and too small beside a pole; the mean's shift bounds from below all the same."""
    text = f"z ~ Normal(0, 1); observe x ~ {law}"
    found = collapse(text, [[JUMPS[law]]])
    low, high = found.band[0]
    assert 0 < low <= found.kl[0] and high == math.inf
    assert found.kl_error.item() < 1e-10
    assert all(row.agrees is not False for row in verify(text, [[JUMPS[law]]]).rows)


def test_a_mean_that_rounding_moved_is_no_information():
    """What is flat at 3 to the last bit has KL 0, though the quadrature's mean is off by 1e-14."""
    text = "z ~ Normal(3, 0.01); observe x ~ Mixture([1/5, 4/5], Normal(z^3, 0.05), Normal(0, 5))"
    found = collapse(text, [[-2.0]])
    assert found.band[0, 0] <= found.kl[0] + found.kl_error[0]


def test_the_information_of_a_box():
    found = collapse("z ~ Normal(0, 1); observe x ~ Uniform(z - 1, z + 1)", [[1.0]])
    assert found.kl.item() == pytest.approx(-math.log(math.erf(math.sqrt(2)) / 2), abs=1e-12)

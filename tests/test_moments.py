"""Gauss rules under the prior, and the moments of ℓ made with them, against closed forms and mpmath."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy
import torch
from scipy.stats import beta as beta_law

from identkit.model.compiled import CompiledModel, compiled
from identkit.model.families import Normal
from identkit.model.language import parse
from identkit.model.model import Model
from identkit.posterior.heights import exact_gaps
from identkit.posterior.moments import log_sobolev, prior_kl, prior_moments
from identkit.posterior.prior_rule import prior_rule


def model(text: str, **at: object) -> CompiledModel:
    return compiled(parse(text), at)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def expectation(text: str, order: int, power: tuple[int, ...]) -> float:
    nodes, weights = prior_rule(model(text), order)
    return float(weights @ (nodes ** torch.tensor(power)).prod(dim=1))


# The rules


@pytest.mark.parametrize("order", [1, 2, 3, 8, 64, 96])
def test_normal_rules_are_exact_for_polynomials(order: int):
    mean, sd = 0.5, 2.0
    for power in range(min(2 * order, 9)):
        exact = sum(
            math.comb(power, j) * mean ** (power - j) * sd**j * math.prod(range(j - 1, 0, -2))
            for j in range(0, power + 1, 2)
        )
        found = expectation("z ~ Normal(1/2, 2); observe x ~ Normal(z, 1)", order, (power,))
        assert found == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [(5, 5), (2, 9), ("1/2", "1/2"), (1, 1), (1, "1/2"), (8547, 1463)])
@pytest.mark.parametrize("order", [1, 2, 3, 40])
def test_beta_rules_are_exact_for_polynomials(a: int | str, b: int | str, order: int):
    nodes, weights = prior_rule(model(f"z ~ Beta({a}, {b}); observe x ~ Normal(z, 1)"), order)
    first, second = float(Fraction(a)), float(Fraction(b))
    for power in range(min(2 * order, 6)):
        exact = math.prod((first + j) / (first + second + j) for j in range(power))
        assert float(weights @ nodes[:, 0] ** power) == pytest.approx(exact, rel=1e-12)


def test_nested_rules_follow_the_hierarchy():
    text = "u ~ Normal(1, 2); z ~ Normal(u/2, 3); observe x ~ Normal(z, 1)"
    assert expectation(text, 4, (0, 2)) == pytest.approx(0.25 + 1 + 9, rel=1e-13)
    assert expectation(text, 4, (1, 1)) == pytest.approx(0.5 + 2, rel=1e-13)
    text = "k ~ Categorical(1/4, 3/4); z ~ Normal(select(k, -1, 2), 1/2); observe x ~ Normal(z, 1)"
    assert expectation(text, 4, (1, 0)) == pytest.approx(3 / 4)  # states are 0-based in torch
    assert expectation(text, 4, (0, 1)) == pytest.approx(-1 / 4 + 6 / 4)
    assert expectation(text, 4, (1, 1)) == pytest.approx(6 / 4)


def test_joint_normal_mixture_and_finite_rules():
    text = "z[2] ~ MvNormal([1, 2], [[4, 1], [1, 9]]); observe x ~ Normal(z[1], 1)"
    assert expectation(text, 5, (1, 1)) == pytest.approx(3)
    assert expectation(text, 5, (0, 2)) == pytest.approx(13)
    text = "z ~ Mixture([1/3, 2/3], Normal(0, 1), Normal(3, 2)); observe x ~ Normal(z, 1)"
    assert expectation(text, 5, (2,)) == pytest.approx(1 / 3 + 2 / 3 * 13)
    text = "b ~ Bernoulli(1/4); n ~ Binomial(5, 1/5); observe x ~ Normal(b + n, 1)"
    assert expectation(text, 1, (1, 2)) == pytest.approx(1 / 4 * (5 * 4 / 25 + 1))


def test_more_than_three_continuous_latents_are_refused_by_name():
    wide = model("z[4] ~ Normal(0, 1); k ~ Bernoulli(1/2); observe x ~ Normal(z[1] + z[4] + k, 1)")
    with pytest.raises(
        ValueError, match=r"at most three continuous latents, got 4: z\[1\], z\[2\], z\[3\], z\[4\]"
    ):
        prior_moments(wide, column(0.0))


# The variance of ℓ


@pytest.mark.parametrize(
    ("w", "s"), [(1.0, 1.0), (0.3, 2.0), (5.0, 0.1), (1e-3, 1.0), (1e-9, 1.0), (1e-14, 3.0)]
)
def test_the_variance_of_a_gaussian_likelihood(w: float, s: float):
    """ℓ = −(x − wz)²/(2s²): V = w⁴/(2s⁴) + w²x²/s⁴."""
    x = column(0.0, 0.1, 1.0, -30.0)
    found = prior_moments(model("z ~ Normal(0, 1); observe x ~ Normal(w*z, s)", w=w, s=s), x)
    exact = w**4 / (2 * s**4) + (w * x[:, 0]) ** 2 / s**4
    assert bool(((found.variance - exact).abs() <= found.variance_error + 1e-14 * exact).all())
    assert found.variance[1:].tolist() == pytest.approx(exact[1:].tolist(), rel=1e-9)
    assert bool((found.variance_error <= 1e-6 * exact + 1e-30).all())
    assert bool(found.oscillation.isinf().all())


def test_the_variance_of_pooled_binomials_under_a_beta():
    """ℓ = s log a + f log(1 − a): V = (s² + f²)ψ′(5) − (s + f)²ψ′(10) under Beta(5, 5)."""
    found = prior_moments(model("a ~ Beta(5, 5); observe x ~ Binomial(4, a)"), column(3, 4, 0), pooled=True)
    s, f = 7, 5
    digamma = [float(mpmath.psi(1, shape)) for shape in (5, 10)]
    exact = (s**2 + f**2) * digamma[0] - (s + f) ** 2 * digamma[1]
    assert found.variance.shape == (1,)
    assert abs(found.variance.item() - exact) <= found.variance_error.item()
    assert found.variance.item() == pytest.approx(exact, rel=1e-6)


def test_finite_latents_are_summed_exactly():
    """XOR: ℓ is log .9 or log .1 with equal chance, and ω their difference."""
    xor = model("z[2] ~ Bernoulli(1/2); observe x ~ Bernoulli(0.1 + 0.8*(z[1] + z[2] - 2*z[1]*z[2]))")
    found = prior_moments(xor, column(0.0, 1.0))
    assert found.variance.tolist() == pytest.approx([math.log(9) ** 2 / 4] * 2, rel=1e-14)
    assert bool((found.oscillation >= math.log(9) * (1 - 1e-15)).all())
    assert found.oscillation.tolist() == pytest.approx([math.log(9)] * 2, rel=1e-13)
    assert found.log_sobolev is None
    assert found.gradient_second_moment is None and found.mean_shift is None


def test_a_state_that_forbids_the_datum_makes_everything_infinite():
    found = prior_moments(model("k ~ Bernoulli(1/2); observe x ~ Bernoulli(k/2)"), column(1.0, 0.0))
    assert found.oscillation.tolist() == pytest.approx([math.inf, math.log(2)])
    assert found.variance.tolist() == pytest.approx([math.inf, math.log(2) ** 2 / 4])


def test_a_state_of_no_mass_counts_for_nothing():
    found = prior_moments(
        model("k ~ Categorical(1/2, 1/2, 0); observe x ~ Normal(select(k, 0, 0, 9), 1)"), column(1.0)
    )
    assert found.oscillation.item() == 0.0 and found.variance.item() == 0.0


def test_a_constant_likelihood_is_flat_to_the_last_bit():
    for text in (
        "z ~ Normal(0, 1); observe x ~ Normal(0*z + 1/3, 1)",
        "a ~ Beta(5, 5); observe x ~ Mixture([a, 1 - a], Normal(1/3, 1), Normal(1/3, 1))",
        "k ~ Categorical(0.3, 0.7); z ~ Normal(0, 1); observe x ~ Normal(z - z + 2*k - k - k, 1)",
    ):
        found = prior_moments(model(text), column(0.3, -17.0))
        assert found.variance.tolist() == [0.0, 0.0]
        assert found.oscillation.tolist() == [0.0, 0.0]


def test_the_stated_error_covers_a_kink():
    """ℓ = −|z|/b up to a constant has V = (1 − 2/π)/b², and Gauss–Hermite converges slowly on it."""
    found = prior_moments(model("z ~ Normal(0, 1); observe x ~ Normal(0, exp(abs(z)/10))"), column(0.0))
    exact = (1 - 2 / math.pi) / 100
    assert 1e-7 * exact < abs(found.variance.item() - exact) <= found.variance_error.item()


def test_what_is_not_a_log_likelihood_is_refused():
    with pytest.raises(ValueError, match="got not a number for row 1"):
        prior_moments(model("z ~ Normal(0, 1); observe x ~ Normal(0, z)"), column(0.3))
    with pytest.raises(ValueError, match="got −∞ throughout for row 2"):
        prior_moments(model("k ~ Bernoulli(1/2); observe x ~ Bernoulli(0*k)"), column(0.0, 1.0))


# The moments of theory/T4.4


@pytest.mark.parametrize("w", [1e-10, 1e-4, 0.5, 2.0])
def test_the_two_posterior_moments_of_a_gaussian(w: float):
    """Q = N(wx/(1 + w²), 1/(1 + w²)); ∇ℓ = w(x − wz)."""
    x = torch.tensor([0.5, 2.0], dtype=torch.float64)
    found = prior_moments(model("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", w=w), x[:, None])
    shift = (w * x / (1 + w**2)) ** 2
    slope = w**2 * ((x - w * w * x / (1 + w**2)) ** 2 + w**2 / (1 + w**2))
    assert found.mean_shift is not None and found.gradient_second_moment is not None
    assert bool((found.mean_shift <= shift * (1 + 1e-13)).all())
    assert bool((found.gradient_second_moment >= slope * (1 - 1e-13)).all())
    assert found.mean_shift.tolist() == pytest.approx(shift.tolist(), rel=1e-5)
    assert found.gradient_second_moment.tolist() == pytest.approx(slope.tolist(), rel=1e-5)


def test_a_posterior_too_narrow_for_the_rule_is_not_guessed_at():
    found = prior_moments(model("z ~ Normal(0, 1); observe x ~ Normal(z, 1/1000)"), column(0.3))
    assert found.gradient_second_moment is not None and found.mean_shift is not None
    assert found.gradient_second_moment.item() == math.inf
    assert found.mean_shift.item() == 0.0


@pytest.mark.parametrize(
    ("latents", "rho"),
    [
        ("z ~ Normal(3, 1/2)", 4.0),
        ("z[2] ~ Normal([0, 1], [1/2, 2])", 0.25),
        ("a ~ Beta(5, 5)", 32.0),
        ("a ~ Beta(5, 5); z ~ Normal(0, 1/10)", 32.0),
        ("u ~ Normal(0, 1); z ~ Normal(u, 1)", (3 - math.sqrt(5)) / 2),
        ("z[2] ~ MvNormal([0, 0], [[2, 1], [1, 2]])", 1 / 3),
        ("a ~ Beta(1/2, 5)", None),
        ("a ~ Beta(5, 5); z ~ Normal(a, 1)", None),
        ("u ~ Normal(0, 1); z ~ Normal(0, exp(u))", None),
        ("z ~ Mixture([1/2, 1/2], Normal(-1, 1), Normal(1, 1))", None),
        ("k ~ Bernoulli(1/2); z ~ Normal(0, 1)", None),
    ],
)
def test_log_sobolev_constants(latents: str, rho: float | None):
    found = log_sobolev(model(f"{latents}; observe x ~ Normal(0, 1)"))
    assert found == (None if rho is None else pytest.approx(rho, rel=1e-12))


def test_a_jump_has_no_slope_to_bound_anything_by():
    """ℓ = ±x/2 up to a constant with equal chance: E_Q‖∇ℓ‖² = 0 almost everywhere, and yet KL > 0."""
    jumping = Model("a threshold")
    z = jumping.latent("z", Normal(0, 1))
    jumping.observe("x", Normal(sympy.sign(z) / 2, 1))
    found = prior_moments(compiled(jumping), column(1.0))
    assert found.gradient_second_moment is None
    assert found.variance.item() == pytest.approx(1 / 4)


# Exact gaps and the second opinion on a KL


def test_exact_gaps_keep_what_float64_loses():
    tiny = model("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", w=1e-25)
    nodes = column(0.0, 1.0, -2.0)
    assert exact_gaps(tiny, column(5.0, 2.0), nodes, 1).tolist() == pytest.approx(
        [0.0, 2e-25, -4e-25], rel=1e-14
    )
    pooled = exact_gaps(tiny, column(5.0, 2.0), nodes, 0, pooled=True)
    assert pooled.tolist() == pytest.approx([0.0, 7e-25, -14e-25], rel=1e-14)


@pytest.mark.parametrize("w", [1e-6, 1e-12, 1e-20])
def test_the_second_opinion_is_right_far_below_one_part_in_1e25(w: float):
    x = 1.3
    found = prior_kl(model("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", w=w), column(x)).item()
    with mpmath.workdps(80):
        w, x = mpmath.mpf(repr(w)), mpmath.mpf(x)
        precision = 1 + w**2
        exact = (1 / precision + (w * x / precision) ** 2 - 1 + mpmath.log(precision)) / 2
    assert found == pytest.approx(float(exact), rel=1e-11)


def test_the_second_opinion_on_finite_latents_at_any_height():
    prior, heights = np.array([0.2, 0.3, 0.5]), np.array([0.0, -2.0, -8.0])
    posterior = prior * np.exp(heights) / (prior @ np.exp(heights))
    exact = posterior @ np.log(posterior / prior)
    text = "k ~ Categorical(0.2, 0.3, 0.5); observe x ~ Normal(select(k, 0, 2, 4), 1)"
    assert prior_kl(model(text), column(0.0)).item() == pytest.approx(exact, rel=1e-12)


def test_the_second_opinion_under_a_beta():
    """Pooled, nearly equal components: KL → ½V with ℓ ≈ aε Σx."""
    text = "a ~ Beta(5, 5); observe x ~ Mixture([a, 1 - a], Normal(e, 1), Normal(0, 1))"
    found = prior_kl(model(text, e=1e-10), column(1.0, -0.5, 3.0), pooled=True)
    assert found.shape == (1,)
    assert found.item() == pytest.approx(1e-20 * 3.5**2 * beta_law(5, 5).var() / 2, rel=1e-8)

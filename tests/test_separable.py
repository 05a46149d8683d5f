"""Posteriors that fall apart into groups, against closed forms; and what has to stay together."""

from __future__ import annotations

import pytest
import sympy
import torch

import identkit as ik
from identkit.model.language import parse
from identkit.posterior.separable import _terms, groups

FOUR = """
p[4] ~ Dirichlet({})
observe x[4] ~ Multinomial({}, p[1], p[2], p[3], p[4])
"""


@pytest.mark.parametrize(
    ("shapes", "counts"),
    [("2, 3, 4, 1", [3, 5, 2, 0]), ("1, 1, 1, 1", [2, 0, 0, 0]), ("1/2, 20, 3, 1/10", [0, 400, 7, 1])],
)
def test_four_shares_are_three_lines(shapes, counts):
    n = sum(counts)
    found = ik.collapse(FOUR.format(shapes, n), [counts])
    numbers = [
        float(parse(f"observe x ~ Normal({s}, 1)").observations[0].family.arguments[0])
        for s in shapes.split(",")
    ]
    exact = ik.DirichletMultinomial(n, numbers)
    for told, true in (
        (found.kl, exact.kl_to_prior([counts])),
        (found.kl_per_latent, exact.kl_per_latent([counts])),
        (found.kl_conditional, exact.kl_conditional([counts])),
        (found.log_evidence, exact.log_evidence([counts])),
        (found.posterior_mean, exact.posterior_moments([counts])[0]),
        (found.posterior_sd, exact.posterior_moments([counts])[1]),
    ):
        torch.testing.assert_close(told, true, rtol=1e-9, atol=1e-11)
    assert (found.kl - exact.kl_to_prior([counts])).abs().item() <= found.kl_error.item()


def test_informations_of_separate_latents_add_up():
    text = "a ~ Normal(1, 2); observe x ~ Normal(a, 1/2); b ~ Beta(2, 3); observe y ~ Binomial(5, b)"
    found = ik.collapse(text, {"x": [4.0, -1.0], "y": [5, 0]})
    normal, beta = ik.NormalNormal(1.0, 2.0, 0.5), ik.BetaBinomial(5, 2.0, 3.0)
    of_a, of_b = normal.kl_to_prior([4.0, -1.0]), beta.kl_to_prior([5, 0])
    torch.testing.assert_close(found.kl, of_a + of_b, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(found.kl_per_latent, torch.stack([of_a, of_b], 1), rtol=1e-10, atol=0.0)
    evidence = normal.log_evidence([4.0, -1.0]) + beta.log_evidence([5, 0])
    torch.testing.assert_close(found.log_evidence, evidence, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z[2] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2], 1)", [[0, 1]]),
        ("z[2] ~ Normal(0, 1); observe x ~ Normal(z[2], 1)", [[0], [1]]),
        ("a ~ Gamma(2, 1); b ~ Gamma(2, 1); observe x ~ Poisson(a*b)", [[0, 1]]),
        ("a ~ Beta(2, 1); b ~ Beta(2, 1); observe x ~ Binomial(3, a*b)", [[0, 1]]),  # 1 − ab joins them
        ("a ~ Normal(0, 1); b ~ Normal(a, 1); observe x ~ Normal(b, 1)", [[0, 1]]),  # so does the prior
        (
            "k ~ Bernoulli(1/2); z ~ Normal(0, 1); observe x ~ Normal(z, 1); observe y ~ Normal(k, 1)",
            [[0], [1]],
        ),
    ],
)
def test_only_what_no_term_joins_comes_apart(text, expected):
    assert groups(parse(text)) == expected


def test_a_product_may_be_positive_where_its_factors_are_not():
    # log(ab) = log|a| + log|b|, but on two of four quadrants only: the domain joins what the terms do not.
    a, b = sympy.symbols("a b", real=True)
    product = sympy.log(a * b, evaluate=False)
    everywhere, inside = sympy.Interval(-1, 1), sympy.Interval(0, 1)
    assert _terms(product, {a: everywhere, b: everywhere}) == [product]
    assert set(_terms(product, {a: inside, b: inside})) == {sympy.log(a), sympy.log(b)}
    left = sympy.log((1 - a) * b, evaluate=False)
    assert set(_terms(left, {a: inside, b: inside})) == {sympy.log(1 - a), sympy.log(b)}

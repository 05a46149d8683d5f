"""Quadrature on a simplex, in sticks: against the conjugate pair, SciPy's quadrature, and the same model in free latents."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad

import identkit as ik
from identkit.classical.conjugate import DirichletMultinomial
from identkit.cli import inferring
from identkit.model.language import parse
from identkit.posterior.sticks import by_latent, has_shares


def counts_text(weights: list[float], trials: int) -> str:
    k = len(weights)
    shares = ", ".join(f"p[{i + 1}]" for i in range(k))
    return f"p[{k}] ~ Dirichlet({', '.join(map(str, weights))}); observe x[{k}] ~ Multinomial({trials}, {shares})"


def assert_conjugate(weights: list[float], trials: int, x: list[list[int]]) -> None:
    found, wanted = ik.collapse(counts_text(weights, trials), x), DirichletMultinomial(trials, weights)
    assert found.names == wanted.latent_names
    assert ((found.kl - wanted.kl_to_prior(x)).abs() <= found.kl_error + 1e-13).all()
    mean, sd = wanted.posterior_moments(x)
    for mine, theirs in (
        (found.kl, wanted.kl_to_prior(x)),
        (found.kl_per_latent, wanted.kl_per_latent(x)),
        (found.kl_conditional, wanted.kl_conditional(x)),
        (found.log_evidence, wanted.log_evidence(x)),
        (found.posterior_mean, mean),
        (found.posterior_sd, sd),
    ):
        assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_two_shares_are_the_conjugate_pair() -> None:
    assert_conjugate([0.7, 2.5], 30, [[30, 0], [11, 19], [0, 30]])
    assert_conjugate([1.0, 1.0], 0, [[0, 0]])


@pytest.mark.slow
def test_three_shares_are_the_conjugate_pair() -> None:
    assert_conjugate([1.0, 0.5, 2.0], 5, [[3, 2, 0]])


def test_a_share_without_a_conjugate_law_is_scipys() -> None:
    """The mean of a normal law is mixed by the shares, beside a latent of its own before them and a state after."""
    text = "k ~ Bernoulli(1/3); p[2] ~ Dirichlet(2, 3); observe x ~ Normal(4*p[1] - p[2] + k, 1/2)"
    found = ik.collapse(text, [[1.5]])
    assert found.names == ("k", "p[1]", "p[2]")

    def joint(p: float, k: int, power: int = 0) -> float:
        prior = scipy.stats.beta.pdf(p, 2, 3) * (2 / 3 if k == 0 else 1 / 3)
        return prior * scipy.stats.norm.pdf(1.5, 4 * p - (1 - p) + k, 0.5) * p**power

    mass = [quad(joint, 0, 1, args=(k,), epsabs=1e-13)[0] for k in (0, 1)]
    first, second = (
        sum(quad(joint, 0, 1, args=(k, power), epsabs=1e-13)[0] for k in (0, 1)) for power in (1, 2)
    )
    evidence = sum(mass)
    assert found.log_evidence.item() == pytest.approx(np.log(evidence), abs=1e-10)
    mean, sd = first / evidence, np.sqrt(second / evidence - (first / evidence) ** 2)
    assert found.posterior_mean[0].tolist() == pytest.approx([mass[1] / evidence, mean, 1 - mean], abs=1e-9)
    assert found.posterior_sd[0, 1:].tolist() == pytest.approx([sd, sd], abs=1e-9)
    # Two shares say the same, and each is known given the other's "proportions": none.
    assert_allclose(found.kl_per_latent[:, 1], found.kl_per_latent[:, 2], rtol=1e-9)
    assert_allclose(found.kl_conditional[:, 1], found.kl_conditional[:, 2], rtol=1e-9)


def test_two_simplexes_and_parameters_in_the_prior() -> None:
    text = "p[2] ~ Dirichlet(a, 1)\nq[2] ~ Dirichlet(1, a)\nobserve x ~ Bernoulli(p[1])"
    found = ik.collapse(text, [[1.0], [0.0]], at={"a": 3})
    beta = ik.collapse("p ~ Beta(3, 1); observe x ~ Bernoulli(p)", [[1.0], [0.0]])
    assert found.names == ("p[1]", "p[2]", "q[1]", "q[2]")
    assert_allclose(found.kl, beta.kl, rtol=1e-9)
    assert_allclose(found.kl_per_latent[:, :2], beta.kl_per_latent.expand(2, 2), rtol=1e-9)
    assert (found.kl_conditional[:, 2:] <= found.kl_conditional_error[:, 2:]).all()
    assert_allclose(found.posterior_mean[:, 2:], [[0.25, 0.75]] * 2, rtol=1e-9)


def test_a_slope_that_is_infinite_at_the_edge_bounds_nothing() -> None:
    """log(1 − p) has no slope where p rounds to 1."""
    beside = ik.collapse("p ~ Beta(1, 3); q ~ Normal(0, 1); observe x ~ Bernoulli(1 - p)", [[1.0], [0.0]])
    alone = ik.collapse("p ~ Beta(1, 3); observe x ~ Bernoulli(1 - p)", [[1.0], [0.0]])
    assert_allclose(beside.kl, alone.kl, rtol=1e-9)
    assert (beside.band[:, 0] <= beside.kl).all() and (beside.kl <= beside.band[:, 1]).all()


def test_every_share_is_measured_where_it_is_broken_off_first() -> None:
    model = parse("z ~ Normal(0, 1); p[3] ~ Dirichlet(1, 2, 5); observe x ~ Bernoulli(p[1])")
    orders = []

    def means(free: ik.Model) -> list[torch.Tensor]:
        assert not has_shares(free)
        orders.append(free.latent_names)
        laws = [statement.family.arguments for statement in free.latents[1:]]
        return [torch.tensor([0.0, *(float(a / (a + b)) for a, b in laws)])]

    assert by_latent(model, means)[0].tolist() == pytest.approx([0, 1 / 8, 2 / 8, 5 / 8])
    assert orders == [("z", "p_1", "p_2"), ("z", "p_2", "p_1"), ("z", "p_3", "p_1")]
    with pytest.raises(ValueError, match="at most three continuous"):
        ik.collapse(counts_text([1.0] * 5, 2), [[1, 1, 0, 0, 0]])


def test_the_command_shows_the_shares_beside_their_prior() -> None:
    found = inferring.inferred(
        parse(counts_text([1.0, 3.0], 4)), torch.tensor([[4.0, 0.0]]), None, False, None
    )
    assert found.prior is not None
    assert found.prior[0].tolist() == pytest.approx([1 / 4, 3 / 4])
    assert found.prior[1].tolist() == pytest.approx([np.sqrt(3 / 80)] * 2)

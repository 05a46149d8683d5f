"""Lattice sums: equal to closed forms and to the adaptive quadrature, and honest where the lattice is too coarse."""

from __future__ import annotations

import math

import pytest
import torch
import torch.distributions as td

import identkit as ik
from identkit.lidvae.members import member
from identkit.lidvae.models import LIDVAE, VAE
from identkit.lidvae.truth import true_posteriors
from identkit.posterior.lattice import REACH, Lattice, posteriors
from tests.map_examples import generator, normal


@pytest.mark.parametrize("latents", [1, 2, 3])
def test_it_is_the_closed_form_of_a_linear_model(latents: int) -> None:
    weight = normal(4, latents, seed=latents)
    sigma = 0.9
    x = normal(5, 4)
    lattice = Lattice(latents, 0.25)
    mean = lattice.points @ weight.mT
    table = td.Normal(mean, sigma).log_prob(x[:, None]).sum(-1)
    found = posteriors(lattice, table)
    exact = ik.PPCA(weight, sigma, torch.zeros(4).double())
    assert torch.allclose(found.log_evidence, exact.log_evidence(x), atol=1e-9)
    assert torch.allclose(found.kl, exact.kl_to_prior(x), atol=1e-9)
    assert torch.allclose(found.kl_conditional, exact.kl_conditional(x), atol=1e-9)
    assert torch.allclose(found.mean, exact.posterior_moments(x)[0], atol=1e-9)
    assert torch.allclose(found.half_variance, exact.flatness(x).variance / 2, rtol=1e-9)
    assert found.kl_error.max() < 1e-3 and bool((found.kl_error > 0).all())


def test_conditional_flatness_is_the_sobol_total_effect() -> None:
    """ℓ = a z₁ + b z₂ + c z₁ z₂: E Var(ℓ | z₂) = a² + c², E Var(ℓ | z₁) = b² + c²."""
    lattice = Lattice(2, 0.25)
    z = lattice.points
    found = posteriors(lattice, 0.3 * z[:, 0] - 0.2 * z[:, 1] + 0.1 * z[:, 0] * z[:, 1])
    assert found.half_variance_conditional.tolist() == pytest.approx([0.05, 0.025], abs=1e-10)
    assert float(found.half_variance) == pytest.approx((0.09 + 0.04 + 0.01) / 2, abs=1e-10)


def test_a_latent_that_is_ignored_has_no_divergence() -> None:
    lattice = Lattice(2, 0.25)
    found = posteriors(lattice, -lattice.points[:, 1].square())
    assert float(found.kl_conditional[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(found.half_variance_conditional[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(found.kl_conditional[1]) == pytest.approx(float(found.kl), abs=1e-12)


def test_it_says_where_it_is_too_coarse_or_too_short() -> None:
    narrow = posteriors(Lattice(1, 0.5), -0.5 * ((Lattice(1, 0.5).points[:, 0] - 0.13) / 0.03).square())
    truth = -math.log(0.03)  # about, of a posterior of deviation .03
    assert abs(float(narrow.kl) - truth) > 0.1 and float(narrow.kl_error) > 0.1
    beyond = posteriors(Lattice(1, 0.1), 200 * Lattice(1, 0.1).points[:, 0])
    assert float(beyond.kl_error) == math.inf
    assert float(Lattice(1, 0.3).axis[-1]) == REACH and Lattice(3, 0.3).side % 4 == 1


@pytest.mark.parametrize(("kind", "latents"), [(LIDVAE, 1), (VAE, 2)])
def test_trained_models_have_the_posteriors_of_the_adaptive_quadrature(kind: type, latents: int) -> None:
    model = kind(3, latents, sigma=0.4, hidden=(8, 8), members=2)
    model.start_(normal(50, 3), generator=generator())
    x = normal(3, 3, seed=4)
    found = true_posteriors(model, x)
    assert float(found.kl_error.max()) <= 1e-4
    for number in range(2):
        one = ik.diagnose(member(model, number), x, method="quadrature")
        assert float(found.kl[number].mean()) == pytest.approx(one.overall.truth.value, abs=2e-4)
        for j, finding in enumerate(one.latents):
            assert float(found.kl_conditional[number, :, j].mean()) == pytest.approx(
                finding.truth.value, abs=2e-4
            )


def test_four_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="one to three latents for a lattice, got 4"):
        true_posteriors(VAE(5, 4), torch.zeros(1, 5))

"""The theorem on trained networks, and on data that happen to weigh all values alike."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

import identkit as ik
from identkit.lidvae.members import member
from identkit.lidvae.models import LIDVAE, VAE
from identkit.verdict import Level
from tests.map_examples import generator, normal


def test_a_datum_on_which_all_values_are_as_likely_refutes_nothing() -> None:
    """The first class has probability 1/5 whatever z: the law determines z, and this datum says nothing about it."""
    text = "z ~ Bernoulli(1/2); observe x ~ Categorical(1/5, 3/10 + z/5, 1/2 - z/5)"
    silent = ik.verify(text, [[1], [1]])
    assert silent.verdict.level is Level.GLOBAL
    assert silent.agrees is True and not silent.counterexamples
    assert [row.agrees for row in silent.rows if row.datum is None] == [None, None]
    telling = ik.verify(text, [[1], [2]])
    assert telling.agrees is True


def linear(weight: torch.Tensor, sigma: float) -> VAE:
    """A VAE whose decoder is this matrix."""
    decoder = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.zero_()
    return VAE(weight.shape[0], weight.shape[1], sigma=sigma, decoder=decoder)


def test_a_linear_network_has_the_theorem_of_its_classical_twin() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.0], [-1.0, 0.0]])
    x = normal(4, 3)
    found = ik.verify(linear(weight, 0.7), x, setting="dead second latent")
    twin = ik.verify(ik.PPCA(weight.double(), 0.7, torch.zeros(3).double()), x)
    assert found.agrees is True and twin.agrees is True
    assert found.verdict.latents == {"z[1]": Level.GLOBAL, "z[2]": Level.CONSTANT}
    for name in (
        "kl",
        "kl_per_latent",
        "kl_conditional",
        "flatness",
        "posterior_mean",
        "posterior_sd",
        "log_evidence",
    ):
        assert torch.allclose(getattr(found.collapse, name), getattr(twin.collapse, name), atol=1e-6), name
    # T4.4 with ρ = 1, which lattice sums of the gradient have to meet.
    low, high = found.collapse.band.unbind(1)
    assert bool((low <= found.collapse.kl).all() & (found.collapse.kl <= high).all())
    assert bool((high < 100).all())


def test_a_wrong_verdict_on_a_network_is_found_out() -> None:
    from dataclasses import replace

    from identkit.theorem.trained import verify_trained

    model = linear(torch.tensor([[1.0, 0.0], [0.5, 0.3]]), 0.7)
    verdict = ik.check(model)
    wrong = replace(verdict, level=Level.PARTIAL, latents={"z[1]": Level.GLOBAL, "z[2]": Level.CONSTANT})
    assert verify_trained(model, normal(3, 2), verdict=wrong).agrees is False
    unknown = replace(verdict, level=Level.UNKNOWN, latents=dict.fromkeys(verdict.latents, Level.UNKNOWN))
    open_ = verify_trained(
        model, normal(3, 2), verdict=unknown
    )  # a witness on each datum, no word on the law
    assert {(row.level, row.agrees) for row in open_.rows if row.datum} == {("INFORMED", True)}
    assert {(row.level, row.agrees) for row in open_.rows if not row.datum} == {("UNKNOWN", None)}


@pytest.mark.parametrize("kind", [VAE, LIDVAE])
def test_a_network_that_is_not_linear_confirms_it(kind: Any) -> None:
    model = kind(3, 2, sigma=0.5, hidden=(8, 8), members=2)
    model.start_(normal(50, 3), generator=generator())
    found = ik.verify(member(model, 1), normal(3, 3))
    assert found.agrees is True
    assert (found.verdict.level is Level.GLOBAL) == (kind is LIDVAE)
    # Whether the law is injective may stay open; that each datum sees both latents is witnessed on that datum.
    assert {(row.level, row.agrees) for row in found.rows if row.datum} == {("INFORMED", True)}


def test_a_witness_on_the_data_settles_no_latent_that_the_decoder_ignores() -> None:
    """The law of ``tanh(z₁)`` in four hidden units is open in z₁ to the prover, and constant in z₂."""
    model = VAE(3, 2, sigma=0.5, hidden=(8, 8))
    with torch.no_grad():
        cast("Any", model.decoder).layers[0].weight[..., 1] = 0.0
    verdict = ik.check(model)
    assert verdict.latents == {"z[1]": Level.UNKNOWN, "z[2]": Level.CONSTANT}
    found = ik.verify(model, normal(3, 3))
    levels = {(row.latent, row.level) for row in found.rows if row.datum}
    assert levels == {(None, "PARTIAL"), ("z[1]", "INFORMED"), ("z[2]", "CONSTANT")}
    assert all(row.agrees for row in found.rows if row.datum)


def test_what_goes_with_symbols_is_refused() -> None:
    with pytest.raises(ValueError, match="at goes with a model that has symbols, got VAE"):
        ik.verify(VAE(3, 2), torch.zeros(1, 3), at={"w": 0})
    with pytest.raises(ValueError, match="model should have one member"):
        ik.verify(VAE(3, 2, members=2), torch.zeros(1, 3))

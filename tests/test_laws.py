"""Laws of every model, run over the zoo: Bayes' rule, the chain rule, and the theorem in both directions.

The oracles are SciPy's quadrature over sums of states, which share no code with `identkit.posterior`.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import fixed_quad

from identkit.dispatch import as_symbolic, check
from identkit.model.compiled import compiled
from identkit.model.model import Model
from identkit.model.protocol import Continuous, ExactModel
from identkit.posterior.information import collapse
from identkit.symbolic.support import on_simplex
from identkit.theorem import verify
from identkit.zoo import CASES
from tests.exact_example import log_prob

ROWS = 3


def axes(case):
    """The axes of quadrature, or None for a latent with infinitely many states or on a simplex."""
    model = as_symbolic(case.build())
    if case.name == "count" or any(on_simplex(statement.family) for statement in model.latents):
        return None
    return compiled(model, case.numbers).axes


MODEL_CASES = {name: case for name, case in CASES.items() if case.about == "latents" and case.data is None}
SMALL = {
    name: case
    for name, case in MODEL_CASES.items()
    if (found := axes(case)) is not None and sum(isinstance(axis, Continuous) for axis in found) <= 2
}
EXACT = {name: case for name, case in SMALL.items() if not isinstance(case.model, str)}
DECLARED = {name: case for name, case in SMALL.items() if isinstance(case.model, str)}
LINES = {
    name: case
    for name, case in DECLARED.items()
    if sum(isinstance(axis, Continuous) for axis in axes(case) or ()) <= 1
}
PAIRS = {name: case for name, case in SMALL.items() if len(case.levels) == 2}


def over(cases):
    return pytest.mark.parametrize("name", cases)


@cache
def confirmed(name):
    """A model of the zoo, its numbers (None for an exact one), rows drawn from it, and `verify` on them."""
    case = CASES[name]
    model = case.build()
    declared = isinstance(model, Model)
    at = (case.numbers or None) if declared else None
    drawer = compiled(model, at) if declared else model
    x, _ = drawer.sample(ROWS, torch.Generator().manual_seed(7))
    return model, at, x, verify(model, x, at)


def measured(name):
    """The same with the collapse alone."""
    model, at, x, found = confirmed(name)
    return model, at, x, found.collapse


def test_the_laws_have_models_to_run_on():
    assert len(EXACT) >= 12
    assert len(LINES) >= 35
    assert len(PAIRS) >= 15


# Bayes' rule


@over(EXACT)
def test_bayes_rule_at_random_points(name):
    model, _, x, found = measured(name)
    z = model.prior.sample((len(found.kl),)).to(torch.float64).reshape(len(found.kl), -1)
    after = model.posterior(x)
    left = (after.log_prob(z[:, 0]) if model.pooled else log_prob(after, z)) + model.log_evidence(x)
    torch.testing.assert_close(
        left, log_prob(model.prior, z) + model.log_likelihood(x, z), rtol=1e-11, atol=1e-9
    )


@over(LINES)
def test_evidence_and_information_against_scipy(name):
    """``log p(x) = log Σ_k ∫ p(x, k, z) dz`` and ``KL = E[log p(x | z) | x] − log p(x)``."""
    model, at, x, found = measured(name)
    face = compiled(model, at)
    for i, row in enumerate(x[:2]):
        evidence, mean = brute_force(face, row, found.posterior_mean[i], found.posterior_sd[i])
        assert found.log_evidence[i].item() == pytest.approx(math.log(evidence), rel=1e-8, abs=1e-8)
        assert found.kl[i].item() == pytest.approx(mean / evidence - math.log(evidence), rel=1e-6, abs=1e-8)


def brute_force(face, row, centre, width):
    """``∫ p(x, z)`` and ``∫ p(x, z) log p(x | z)``, states summed, the one continuous latent by SciPy."""
    place = next((i for i, axis in enumerate(face.axes) if isinstance(axis, Continuous)), None)
    states = [axis.values if not isinstance(axis, Continuous) else (0.0,) for axis in face.axes]
    totals = np.zeros(2)
    for state in itertools.product(*states):

        def both(t, state=state):
            z = torch.tensor([state] * len(t), dtype=torch.float64)[:, None]
            if place is not None:
                z[:, 0, place] = torch.from_numpy(t)
            likelihood = face.log_likelihood(row[None], z)[:, 0]
            joint = torch.exp(likelihood + face.log_prior(z)[:, 0])
            return torch.stack([joint, torch.where(joint > 0, joint * likelihood, 0.0)]).numpy()

        if place is None:
            totals += both(np.zeros(1))[:, 0]
            continue
        low, high = (max(face.axes[place].low, -12.0), min(face.axes[place].high, 12.0))
        near = [float(centre[place] + step * width[place]) for step in range(-6, 7)]
        cuts = sorted({low, *(cut for cut in (*near, 0.0) if low < cut < high), high})
        for left, right in itertools.pairwise(cuts):
            totals += fixed_quad(both, left, right, n=80)[0]
    return totals


# Information


@over(SMALL)
def test_information_is_never_negative(name):
    *_, found = measured(name)
    for values in (found.kl, found.kl_per_latent, found.kl_conditional, found.flatness):
        assert bool((values >= 0).all())
    for errors in (found.kl_error, found.kl_per_latent_error, found.kl_conditional_error):
        assert bool((errors > 0).all())
        assert bool(errors.isfinite().all())


@over(SMALL)
def test_kl_lies_in_its_band(name):
    *_, found = measured(name)
    low, high = found.band.unbind(1)
    assert bool((low - found.kl_error <= found.kl).all())
    assert bool((found.kl <= high + found.kl_error).all())


@over(PAIRS)
def test_chain_rule(name):
    """``KL(joint) = KL(z_1) + E KL(z_2 | z_1)``, and with the two exchanged (theory/T2)."""
    *_, found = measured(name)
    error = (found.kl_error + found.kl_per_latent_error.sum(1) + found.kl_conditional_error.sum(1)) + 1e-12
    for one, other in ((0, 1), (1, 0)):
        apart = (found.kl - found.kl_per_latent[:, one] - found.kl_conditional[:, other]).abs()
        assert bool((apart <= error + 1e-9 * found.kl).all())


# The theorem


@over(SMALL)
def test_constant_on_a_datum_iff_no_information(name):
    """Wang, Blei & Cunningham 2021, Theorem 1, both directions, the verdict taken datum by datum."""
    model, at, x, found = measured(name)
    symbolic = as_symbolic(model)
    pooled = len(found.kl) == 1
    for i, rows in enumerate([x] if pooled else x[:, None]):
        data = dict(zip(symbolic.observation_names, rows.T.tolist(), strict=True))
        level = check(symbolic, at=at, data=data, pooled=pooled).level.value
        assert level != "UNKNOWN"
        assert (level == "CONSTANT") == (found.kl[i].item() <= found.kl_error[i].item())


@over(SMALL)
def test_ignored_latents_have_no_conditional_information(name):
    *_, found = measured(name)
    for j, latent in enumerate(found.names):
        if CASES[name].levels[latent] == "CONSTANT":
            assert bool((found.kl_conditional[:, j] <= found.kl_conditional_error[:, j]).all())
        elif name not in ("gmm-nearly-equal", "linear-weak"):
            assert found.kl_conditional[:, j].max() > 1e-6


@over(SMALL)
def test_verify_agrees_on_draws_from_the_model(name):
    *_, found = confirmed(name)
    assert found.agrees is True
    assert not found.counterexamples
    assert all(row.agrees or row.level == "UNKNOWN" or row.datum is None for row in found.rows)


# Two faces of one model


@over(EXACT)
def test_symbolic_twin_has_the_same_likelihood(name):
    model, _, x, found = measured(name)
    assert isinstance(model, ExactModel)
    twin = compiled(model.symbolic())
    assert twin.latent_names == tuple(model.latent_names)
    z = model.prior.sample((len(found.kl),)).to(torch.float64).reshape(len(found.kl), -1)
    theirs = twin.log_likelihood(x, z.expand(len(x), -1))
    ours = model.log_likelihood(x, z)
    torch.testing.assert_close(
        theirs.sum(0, keepdim=True) if model.pooled else theirs, ours, rtol=1e-10, atol=1e-10
    )


@over(EXACT)
def test_symbolic_twin_has_the_same_posterior(name):
    """Closed form against quadrature or a sum over states."""
    model, _, x, ours = measured(name)
    some = x if model.pooled else x[:2]
    theirs = collapse(model.symbolic(), some, pooled=model.pooled)
    for quantity in (
        "kl",
        "kl_per_latent",
        "kl_conditional",
        "posterior_mean",
        "posterior_sd",
        "log_evidence",
    ):
        closed = getattr(ours, quantity)[: len(theirs.kl)]
        torch.testing.assert_close(getattr(theirs, quantity), closed, rtol=1e-8, atol=1e-10)

"""The fifteen traps of identifiability (known_answers.md, I), each a test of its own name.

Each says what a plausible method gets wrong, shows it where that can be computed, and asks for the right answer.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import identkit as ik
from identkit.symbolic.problem import Problem
from identkit.symbolic.questions import question
from identkit.symbolic.rank import generic_rank
from identkit.verdict import Level
from identkit.zoo import CASES

C, P, L, G = Level.CONSTANT, Level.PARTIAL, Level.LOCAL, Level.GLOBAL


def of_case(name):
    """The verdict on an entry of the zoo, and its proof checked."""
    case = CASES[name]
    verdict = ik.check(case.build(), about=case.about, at=case.at, data=case.data, pooled=case.pooled)
    assert verdict.certificate is not None and verdict.certificate.verify()
    return verdict


def counted(name):
    """Unknowns and rank of κ's Jacobian at a generic point."""
    report = generic_rank(problem_of(name))
    return report.rank + report.deficiency, report.rank


def problem_of(name) -> Problem:
    return question(CASES[name].build(), "parameters").problem


@pytest.mark.parametrize(
    "name", ["mirrored-mixture-centre", "moving-average-unit-root", "cubic-mean-flat-point"]
)
def test_1_no_information_at_a_point_and_yet_one_solution(name):
    # The Jacobian loses rank there, the fibre is one point.
    assert of_case(name).level is G


def test_1_two_blocks_at_the_fixed_point_of_their_swap():
    # The proof that the fibre is one point is still missing; what must not be said is that it is a continuum.
    case = CASES["block-model-symmetric"]
    assert not set(ik.check(case.build(), about=case.about, at=case.at).parameters.values()) & {C, P, L}


def test_1_a_decoder_that_is_flat_at_zero():
    assert of_case("cube").latents == {"z": G}


@pytest.mark.parametrize(
    ("name", "seen"),
    [("normal-mixture-equal", {"m[1]", "m[2]"}), ("two-exponentials-equal-rates", {"a", "b"})],
)
def test_2_deficiency_exceeds_the_dimension_of_the_fibre(name, seen):
    verdict = of_case(name)
    assert verdict.level is P
    assert {n for n, level in verdict.parameters.items() if level is P} != set(verdict.parameters)
    assert CASES[name].levels == {n: level.value for n, level in verdict.parameters.items()}
    assert seen <= set(verdict.parameters)


def test_2_equal_emissions_leave_two_dimensions_of_three():
    verdict = of_case("hidden-markov-chain-equal-emissions")
    assert verdict.level is P
    assert set(verdict.parameters.values()) <= {P, Level.UNKNOWN}


@pytest.mark.parametrize("name", ["flip-flop", "three-cycle", "moving-average"])
def test_3_full_rank_is_not_global(name):
    unknowns, rank = counted(name)
    assert unknowns == rank
    assert of_case(name).level is L


def test_3_an_immersion_that_is_no_injection():
    assert of_case("circle").latents == {"z": L}


def test_3_two_solutions_at_the_ledermann_bound():
    verdict = of_case("factor-analysis-ledermann")
    assert G not in {level for name, level in verdict.parameters.items() if name not in verdict.at_least}


@pytest.mark.parametrize("name", ["deming", "one-factor-positive"])
def test_4_two_algebraic_solutions_of_which_one_is_admissible(name):
    assert of_case(name).level is G


@pytest.mark.parametrize(
    ("name", "deficiency", "cells"), [("goodman", 1, 15), ("four-classes-three-ternary-items", 2, 26)]
)
def test_5_counting_parameters_is_not_enough(name, deficiency, cells):
    unknowns, rank = counted(name)
    assert unknowns - rank == deficiency
    if name == "goodman":
        assert unknowns < cells
    assert of_case(name).level is P


def test_6_the_averaged_fisher_matrix_misses_a_curved_symmetry():
    verdict = ik.check("z[2] ~ Normal(0, 1); observe x ~ Normal(sqrt(z[1]^2 + z[2]^2), 1)")
    assert set(verdict.latents.values()) == {P}
    assert "rotation" in {invariance.kind for invariance in verdict.invariances}
    # The slope of ‖z‖ is z/‖z‖: its outer product has rank one at each point, and an average of full rank.
    z = np.random.default_rng(0).standard_normal((1000, 2))
    slope = z / np.linalg.norm(z, axis=1, keepdims=True)
    assert np.linalg.eigvalsh(slope.T @ slope / len(z)).min() > 0.4


def test_7_a_variance_that_tells_what_the_mean_does_not():
    assert ik.check("z ~ Normal(0, 1); observe x ~ Normal(0, exp(z))").latents == {"z": G}


def test_8_one_datum_may_be_silent_where_the_model_speaks():
    assert of_case("mixture-unequal-variances").level is G
    assert of_case("mixture-unequal-variances-crossing").level is C
    assert of_case("mixture-unequal-variances-datum").level is Level.INFORMED


def test_9_each_coordinate_collapses_and_the_pair_does_not():
    assert of_case("xor").latents == {"z[1]": P, "z[2]": P}
    found = ik.collapse(CASES["xor"].build(), [[1.0]])
    assert found.kl.item() == pytest.approx(0.3681, abs=5e-5)
    assert found.kl_per_latent.abs().max().item() < 1e-15
    assert found.kl_conditional.min().item() > 0.3


def test_9_an_ignored_coordinate_moves_with_its_neighbour():
    text = "z[2] ~ MvNormal([0, 0], [[1, 4/5], [4/5, 1]]); observe x ~ Normal(z[1], sqrt(1/2))"
    assert ik.check(text).latents == {"z[1]": G, "z[2]": C}
    found = ik.collapse(text, [[1.0]])
    assert found.posterior_mean[0, 1].item() == pytest.approx(0.8 / 1.5, abs=1e-8)
    assert found.kl_conditional[0, 1].item() <= found.kl_conditional_error[0, 1].item()


@pytest.mark.parametrize("name", ["guessing", "one-factor-two-indicators", "goodman"])
def test_10_no_affine_generator_in_the_natural_coordinates(name):
    assert of_case(name).level is P


def test_11_generators_are_counted_as_a_module():
    # In the coordinates (ξ, δ, cδ) there are 15 affine solutions; evaluated at a point they span two directions.
    assert len([i for i in of_case("guessing").invariances if i.generator]) == 2


def test_12_enough_points_for_the_determining_equations():
    # With too few points, seven spurious generators were found where there is one.
    assert len([i for i in of_case("factor-analysis").invariances if i.generator]) == 1


def test_13_a_sixth_is_not_a_float():
    # Two topics over three words, documents of two words, total of the Dirichlet known to be 2: E θ₁² = a(a + 1)/6.
    words = [("p[1]", "q[1]"), ("p[2]", "q[2]"), ("1 - p[1] - p[2]", "1 - q[1] - q[2]")]
    cells = [
        f"summary a*(a + 1)/6*({u})*({v}) + a*(2 - a)/6*(({u})*({y}) + ({x})*({v})) + (2 - a)*(3 - a)/6*({x})*({y})"
        for i, (u, x) in enumerate(words)
        for v, y in words[i:]
    ]
    text = "parameter a in (0, 2); parameter p[2] in (0, 1); parameter q[2] in (0, 1); " + "; ".join(cells)
    report = generic_rank(question(ik.parse(text), "parameters").problem)
    assert (report.rank, report.deficiency) == (4, 1)
    assert ik.check(text).level is P


def test_14_of_four_symmetries_of_a_product_the_prior_keeps_one():
    kept = [
        i.preserves_prior for i in of_case("probabilistic-matrix-factorisation").invariances if i.generator
    ]
    assert (len(kept), kept.count(True)) == (4, 1)


@pytest.mark.parametrize("name", ["hierarchical-shift", "latent-positions"])
def test_14_what_the_prior_holds_the_likelihood_does_not(name):
    verdict = of_case(name)
    assert verdict.prior_identified
    levels = {**verdict.latents, **verdict.parameters}
    assert {levels[unknown] for unknown in verdict.prior_identified} == {P}


def test_15_weak_is_not_structural():
    text = "z ~ Normal(0, 1); observe x ~ Bernoulli(sigmoid(w*z + b))"
    at = {"w": "1/5", "b": -1}
    assert ik.check(text, at=at).latents == {"z": G}
    found = ik.collapse(text, [[1.0]], at=at)
    low, high = found.band[0].tolist()
    assert low == pytest.approx(0.01047, abs=5e-6) and high == pytest.approx(0.01050, abs=5e-6)
    assert found.kl.item() == pytest.approx(0.01049, abs=5e-6)


def test_15_a_helix_of_small_pitch():
    text = "z ~ Normal(0, 1); observe x ~ Normal(cos(z), 1); observe y ~ Normal(sin(z), 1); observe t ~ Normal(z/1000, 1)"
    assert ik.check(text).latents == {"z": G}


def test_15_a_dead_unit_is_constant_under_a_bounded_prior_and_partial_under_a_normal_one():
    unit = "observe x ~ Normal(relu(z - 3), 1)"
    assert ik.check(f"z ~ Uniform(-1, 1); {unit}").latents == {"z": C}
    assert ik.check(f"z ~ Normal(0, 1); {unit}").latents == {"z": P}
    found = ik.collapse(f"z ~ Normal(0, 1); {unit}", torch.zeros(1, 1, dtype=torch.float64))
    assert 0 < found.kl.item() < 1e-4
    assert math.isfinite(found.kl_error.item())

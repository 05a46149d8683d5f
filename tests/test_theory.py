"""Every check of theory/ at a reduced size, and the false claim that each of them catches."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import pytest

from theory import t2_levels, t3_statistics, t4_gradient, t4_oscillation, t4_variance, t5_simulation
from theory.__main__ import main
from theory.finite import a_function_of
from theory.frame import tried
from theory.table import MODULES

SHARE = 0.05
CHECKS = [check for module in MODULES for check in module.CHECKS]
NAMES = [f"{check.__module__.removeprefix('theory.')}.{check.__name__}" for check in CHECKS]


def wider(factors):
    """The factors of T4.3 with the upper one a hundredth too small."""
    low, high = factors
    return low, high * 0.99


FALSE = {
    # T1
    "t1_collapse.collapses_iff_constant": lambda prior, heights: len(set(heights)) == 1,
    "t1_collapse.collapse_proved": False,
    "t1_collapse.every_assumption_is_needed": Fraction(1),
    # T2
    "t2_fibres.repeats_iff_function_of_the_map": lambda heights, labels, prior: a_function_of(
        heights, labels, [Fraction(1)] * len(prior)
    ),
    "t2_fibres.fibres_proved": False,
    "t2_fibres.densities_factor": False,
    "t2_fibres.chain_rule": 2,
    "t2_fibres.law_is_the_coarsest_map": 2,
    "t2_fibres.every_x_is_too_much": Fraction(1),
    "t2_levels.ladder_is_what_the_checker_says": "LOCAL",
    "t2_levels.merged_states": "LOCAL",
    "t2_levels.null_sets_have_images": 1,
    "t2_levels.cubic_by_its_parameter": 3,
    # T3
    "t3_coordinates.ignored_iff_conditionally_unmoved": 0,
    "t3_coordinates.marginal_collapses": False,
    "t3_coordinates.signs_are_a_trap": Fraction(1, 3),
    "t3_coordinates.marginals_prove_nothing": True,
    "t3_coordinates.dependence_moves_the_ignored": Fraction(1, 4),
    "t3_coordinates.directions_are_not_coordinates": 1,
    "t3_statistics.unmoved_iff_integrated_likelihood_is_constant": False,
    "t3_statistics.statistics_proved": False,
    "t3_statistics.even_decoders_hide_the_sign": False,
    "t3_statistics.dead_units_inform": (0.41, 0.37, 2.12),
    # T4
    "t4_identity.derivatives_are_moments": 1,
    "t4_identity.integral_is_the_divergence": 2,
    "t4_identity.both_orders_add_up": 1,
    "t4_identity.mean_may_be_minus_infinity": 3,
    "t4_identity.impossible_states_cost_their_mass": 0,
    "t4_identity.floats_keep_tiny_divergences": 0.0,
    "t4_identity.flatness_is_no_divergence": 2.0,
    "t4_oscillation.chords": 3,
    "t4_oscillation.oscillation_bounds_hold": lambda omega: 0.99 * t4_oscillation.by_oscillation(omega),
    "t4_oscillation.oscillation_bounds_are_attained": lambda omega: omega**2 / 8,
    "t4_oscillation.no_lower_bound": 1e-3,
    "t4_oscillation.library_computes_these": lambda omega: omega**2 / 8,
    "t4_variance.integrals": 2,
    "t4_variance.variances_along_the_path": 0.5,
    "t4_variance.variance_bounds_hold": lambda omega: wider(t4_variance.factors(omega)),
    "t4_variance.variance_bounds_are_sharp": lambda omega: wider(t4_variance.factors(omega)),
    "t4_variance.library_computes_these": lambda omega: wider(t4_variance.factors(omega)),
    "t4_variance.naive_factors_are_rounding": 1.0,
    "t4_gradient.gradient_bounds_hold": 1.2,
    "t4_gradient.linear_attains_all": 2,
    "t4_gradient.beta_constant": 2,
    "t4_gradient.coordinates": 0.25,
    "t4_gradient.gradient_assumptions_are_needed": 0.0,
    "t4_gradient.library_bands_hold": 3.0,
    "t4_truncation.divergence_splits": 0,
    "t4_truncation.remainder_is_bounded": 0.1,
    "t4_truncation.small_mass_is_not_enough": 2.0,
    # T5
    "t5_brenier.monotone_means_expanding": 2,
    "t5_brenier.maps_expand": 5.0,
    "t5_brenier.decoders_expand": 10.0,
    "t5_brenier.isometries_attain_the_constants": 2,
    "t5_brenier.brenier_assumptions_are_needed": 1,
    "t5_likelihood.minimal_logits": 1,
    "t5_likelihood.strictly_convex_normalisers": 2,
    "t5_likelihood.gaussians_collapse_on_a_null_set": 1,
    "t5_likelihood.injective_means_informed_somewhere": False,
    "t5_likelihood.a_datum_may_say_nothing": Fraction(3, 10),
    "t5_likelihood.a_brenier_decoder_may_be_silent": 3,
    "t5_likelihood.components_differ": False,
    "t5_likelihood.each_step_sees": False,
    "t5_information.steps_of_the_proof": 2,
    "t5_information.covariance_by_pairs": 1,
    "t5_information.entropy_falls_along_the_path": 2.0,
    "t5_information.expanding_informs_more": 1.05,
    "t5_information.local_isometries_may_be_silent": 2.0,
    "t5_information.coins_break_the_floor": Fraction(1),
    "t5_simulation.decoders_stay_between": 1.5,
    "t5_simulation.library_computes_the_floor": 3,
    "t5_simulation.calculator": 2,
    "t5_simulation.calculator_on_data": 0.0,
    # T6
    "t6_parameters.tables_are_exhaustive": 1,
    "t6_parameters.gaussian_moments_are_exhaustive": 1,
    "t6_parameters.one_factor_three_indicators": False,
    "t6_parameters.deficient_moments_prove_nothing": 1,
    "t6_parameters.autocovariances_need_gaussians": 2,
    "t6_symmetries.marginal_moves_by_a_divergence": 2,
    "t6_symmetries.rotations_of_factors": 1,
    "t6_symmetries.parameters_may_not_move_with_the_latent": 1,
    "t6_symmetries.flux_must_vanish": 2,
    "t6_symmetries.priors_break_scales": 0,
    "t6_singular.fixed_points_of_symmetries": 1,
    "t6_singular.moving_average": 2,
    "t6_singular.equal_components": 2,
    "t6_singular.cumulants_of_a_mixture": 5,
    "t6_singular.fields_put_curves_in_fibres": 1,
}
"""A claim that is false, for each check: a bound a little too tight, a wrong constant, an assumption dropped."""


@pytest.mark.parametrize("check", CHECKS, ids=NAMES)
def test_holds(check):
    found = check(SHARE)
    assert found.result, f"{found.what}: {found.detail}"
    assert found.statement[:2].lower() == check.__module__.removeprefix("theory.")[:2]


@pytest.mark.parametrize(("name", "check"), list(zip(NAMES, CHECKS, strict=True)), ids=NAMES)
def test_a_false_claim_is_caught(name, check):
    found = check(max(SHARE, 0.2), FALSE[name])
    assert not found.result
    assert found.detail


@pytest.mark.parametrize(
    ("check", "name", "wrong"),
    [
        (
            t4_oscillation.library_computes_these,
            "kl_upper_oscillation",
            lambda right: lambda w: right(w) * 1.000001,
        ),
        (
            t4_oscillation.library_computes_these,
            "total_variation_upper",
            lambda right: lambda w: right(1.000001 * w),
        ),
        (t4_variance.library_computes_these, "variance_factors", lambda right: lambda w: right(w)[::-1]),
        (t4_gradient.beta_constant, "beta_log_sobolev", lambda right: lambda a, b: right(a, b) * 1.01),
        (t4_gradient.gradient_bounds_hold, "beta_fisher", lambda right: lambda a, b: right(a, b) / 4),
        (
            t5_simulation.library_computes_the_floor,
            "information_floor",
            lambda right: lambda *a: right(*a) + 1e-9,
        ),
        (
            t5_simulation.library_computes_the_floor,
            "lower_lipschitz_for",
            lambda right: lambda *a: right(*a) * 1.01,
        ),
        (t5_simulation.decoders_stay_between, "information_ceiling", lambda right: lambda *a: right(*a) / 2),
        (t5_simulation.calculator, "predicted_kl", lambda right: lambda m, s, v: right(m, s, v + 0.01)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_wrong_library_is_caught(monkeypatch, check, name, wrong):
    monkeypatch.setattr(f"{check.__module__}.{name}", wrong(getattr(sys.modules[check.__module__], name)))
    assert not check(0.2).result


def test_every_check_runs_and_has_a_false_claim():
    assert sorted(FALSE) == sorted(NAMES)


def test_every_module_says_what_it_proves():
    for module in MODULES:
        text = module.__doc__ or ""
        wanted = ("Source:",) if module is t5_simulation else ("Source:", "∎")
        if module is not t2_levels and module is not t3_statistics:
            assert all(each in text for each in wanted), module.__name__


def test_exit_status_and_json(monkeypatch, capsys):
    good = tried("T0", "holds", "exact", [(True, "")])
    bad = tried("T0", "fails", "exact", [(True, "first"), (False, "second")])
    for results, status in (([good], 0), ([good, bad], 1)):
        monkeypatch.setattr("theory.__main__.checked", lambda share, results=results: iter(results))
        assert main([]) == status
        assert ("FAILS" in capsys.readouterr().out) is bool(status)
        assert main(["--json"]) == status
        told = json.loads(capsys.readouterr().out)
        assert [each["result"] for each in told] == [each.result for each in results]
    assert told[1]["detail"] == "second"
    assert told[1]["instances"] == 2


@pytest.mark.slow
def test_everything_holds_in_full(capsys):
    assert main([]) == 0
    assert "all hold" in capsys.readouterr().out

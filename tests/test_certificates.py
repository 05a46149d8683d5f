"""Certificates that tell the truth verify; doctored ones do not: wrong vectors, formulas, signs, states, points, levels."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import sympy
from flint import arb
from sympy import Abs, Integer, Max, Rational, S, Symbol, cos, exp, log, sin, sqrt, tanh

import identkit as ik
from identkit.dispatch import check
from identkit.model import balls
from identkit.model.functions import sigmoid
from identkit.symbolic.certificates import (
    AllDiffer,
    DiscreteFibre,
    ExcludedByData,
    FlatOnData,
    Folded,
    GapOnData,
    Ignored,
    Invisible,
    Merged,
    Monotone,
    OneValue,
    Recovered,
    SpanOnData,
)
from identkit.symbolic.certificates.laws import law_moves
from identkit.symbolic.certificates.zeros import all_apart, certified_rank, never_negative, zero
from identkit.symbolic.proof import Proof
from identkit.verdict import Level

CONSTANT, PARTIAL, LOCAL, GLOBAL, INFORMED = (
    Level.CONSTANT,
    Level.PARTIAL,
    Level.LOCAL,
    Level.GLOBAL,
    Level.INFORMED,
)
ONE, TWO, THREE = Integer(1), Integer(2), Integer(3)
kappa = sympy.symbols("kappa(1) kappa(2)", real=True)


def model(*statements):
    parsed = ik.parse("; ".join(statements))
    return parsed, {**{s.name: s for s in parsed.latent_symbols}, **{s.name: s for s in parsed.domains}}


# One claim at a time: each true instance has false ones beside it


def test_ignored():
    m, s = model(
        "z[2] ~ Normal(0, 1)",
        "k ~ Categorical(1/2, 1/4, 1/4)",
        "observe x ~ Normal(select(k, 0, 0, z[1]), 1)",
    )
    z1, z2, k = s["z[1]"], s["z[2]"], s["k"]
    assert Ignored((z2,)).holds(m) and Ignored((z1, z2), {k: ONE}).holds(m)
    assert (
        not Ignored((z1,)).holds(m) and not Ignored((z1,), {k: THREE}).holds(m) and not Ignored((k,)).holds(m)
    )


def test_invisible():
    m, s = model(
        "z[2] ~ Normal(0, 1)", "observe x ~ Normal(w*z[1] + z[2]^3*0 + 2*z[2], exp(w*z[1] + 2*z[2]))"
    )
    z1, z2, w = s["z[1]"], s["z[2]"], s["w"]
    assert Invisible({z1: TWO, z2: -w}).holds(m)
    for wrong in ({z1: TWO, z2: w}, {z1: ONE}, {z2: ONE}, {z1: ONE, z2: ONE}, {z1: S.Zero, z2: S.Zero}):
        assert not Invisible(wrong).holds(m)


def test_invisible_does_not_stumble_over_a_latent_called_t():
    m, s = model("t ~ Normal(0, 1)", "u ~ Normal(0, 1)", "observe x ~ Normal(t*u + u, 1)")
    # At the point (t, u) moved by t·(1, −1) the product is another one; with t for the step it might look the same.
    for direction in itertools.product((ONE, -ONE, TWO), repeat=2):
        assert not Invisible(dict(zip((s["t"], s["u"]), direction, strict=True))).holds(m)


def test_merged():
    m, s = model(
        "k ~ Categorical(1/3, 1/3, 1/3)", "observe x ~ Normal(select(k, cos(w)^2, 1 - sin(w)^2, 1), 1)"
    )
    k = s["k"]
    assert Merged({k: ONE}, {k: TWO}).holds(m)
    assert not Merged({k: ONE}, {k: THREE}).holds(m) and not Merged({k: ONE}, {k: ONE}).holds(m)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Binomial(3, 1/2)", "Binomial(5, 1/2)", False),
        ("Binomial(4, 1/2)", "Binomial(4, 1/2)", True),
        (
            "Mixture([1/2, 1/2], Normal(0, 1), Normal(1, 1))",
            "Mixture([1/2, 1/2], Normal(1, 1), Normal(0, 1))",
            True,
        ),
        (
            "Mixture([1/2, 1/2], Normal(0, 1), Normal(1, 1))",
            "Mixture([1/3, 2/3], Normal(0, 1), Normal(1, 1))",
            False,
        ),
        (
            "Mixture([1/2, 1/2], Normal(0, 1), Normal(0, 1))",
            "Mixture([1/3, 2/3], Normal(0, 1), Normal(0, 1))",
            True,
        ),
        ("MvNormal([0, 0], [[2, 1], [1, 2]])", "MvNormal([0, 0], [[2, 0], [0, 2]])", False),
    ],
)
def test_laws_are_compared_as_distributions(one, other, same):
    """A state chooses between two families: written as one family where the notation can, else side by side."""
    from identkit.symbolic.certificates.laws import equal_families

    left, right = (
        ik.parse(f"z ~ Normal(0, 1); observe x{'[2]' * f.startswith('Mv')} ~ {f}").observations[0].family
        for f in (one, other)
    )
    assert equal_families(left, right) is same


def test_recovered():
    m, s = model(
        "z[2] ~ Normal(0, 1)", "observe x ~ Normal(w*z[1], 1)", "observe y ~ Normal(z[1] + exp(z[2]), 1)"
    )
    z1, z2, w = s["z[1]"], s["z[2]"], s["w"]
    first = Recovered(z1, kappa[0] / w, {kappa[0]: w * z1}, ())
    second = Recovered(z2, log(kappa[0] - z1), {kappa[0]: z1 + exp(z2)}, (z1,))
    assert first.holds(m) and second.holds(m)
    wrong = [
        Recovered(z1, 2 * kappa[0] / w, {kappa[0]: w * z1}, ()),
        Recovered(z1, z1, {}, ()),
        Recovered(z1, z1, {}, (z1,)),
        Recovered(z1, kappa[0], {kappa[0]: z1}, ()),  # z[1] is no part of the law
        Recovered(z2, log(kappa[0] - z1), {kappa[0]: z1 + exp(z2)}, ()),  # z[1] is not known yet
    ]
    assert not any(claim.holds(m) for claim in wrong)


def test_recovered_does_not_divide_by_what_may_be_zero():
    m, s = model(
        "z[2] ~ Normal(0, 1)",
        "k ~ Poisson(1)",
        "observe a ~ Normal(max(z[1], 0)*z[2], 1)",
        "observe b ~ Normal(k*z[2], 1)",
        "observe c ~ Normal((k + 1)*z[2], 1)",
    )
    z1, z2, k = s["z[1]"], s["z[2]"], s["k"]
    half_dead = Recovered(z2, kappa[0] / Max(z1, 0), {kappa[0]: Max(z1, 0) * z2}, (z1,))
    count = Recovered(z2, kappa[0] / k, {kappa[0]: k * z2}, (k,))
    positive_count = Recovered(z2, kappa[0] / (k + 1), {kappa[0]: (k + 1) * z2}, (k,))
    assert not half_dead.holds(m) and not count.holds(m) and positive_count.holds(m)


def test_recovered_does_not_divide_by_zero_in_disguise():
    m = ik.Model()
    z, w = m.latent("z", ik.Normal(0, 1)), m.parameter("w")
    m.observe("x", ik.Normal(w * z, 1))
    hidden = sqrt(3 + 2 * sqrt(2)) - 1 - sqrt(2)
    at = m.at({w: hidden})
    assert not Recovered(z, kappa[0] / hidden, {kappa[0]: hidden * z}, ()).holds(at)
    assert check(m, at={w: hidden}).level in (CONSTANT, Level.UNKNOWN)


def test_recovered_needs_a_law_that_is_known():
    m, s = model("b ~ Normal(0, 1)", "observe x ~ Mixture([1/2, 1/2], Normal(b, 1), Normal(-b, 1))")
    assert not Recovered(s["b"], kappa[0], {kappa[0]: s["b"]}, ()).holds(m)


def test_monotone():
    m, s = model("z ~ Normal(0, 1)", "observe x ~ Normal(z^3 + z, 1)", "observe y ~ Normal(-exp(z) - z, 1)")
    z = s["z"]
    up, down = z**3 + z, -exp(z) - z
    assert Monotone(z, up, 1, kappa[0], {kappa[0]: up}, ()).holds(m)
    assert Monotone(z, down, -1, kappa[0], {kappa[0]: down}, ()).holds(m)
    assert not Monotone(z, up, -1, kappa[0], {kappa[0]: up}, ()).holds(m)
    assert not Monotone(z, down, 1, kappa[0], {kappa[0]: down}, ()).holds(m)
    assert not Monotone(z, z, 1, kappa[0], {kappa[0]: up}, ()).holds(m)


@pytest.mark.parametrize(
    "text",
    ["z - 1/z", "z + abs(z)", "z + sqrt(z^2 - 2*z + 1)", "z^3 - z", "z^2", "tanh(z - 1/z)", "max(z, 0)"],
)
def test_monotone_is_refused_where_a_value_is_taken_twice(text):
    m, s = model("z ~ Normal(0, 1)", f"observe x ~ Normal({text}, 1)")
    (mean,) = [e for e in m.observations[0].family.arguments if e.free_symbols]
    for sign in (1, -1):
        assert not Monotone(s["z"], mean, sign, kappa[0], {kappa[0]: mean}, ()).holds(m)


def test_monotone_is_strict_at_every_value_of_a_count():
    m, s = model(
        "k ~ Poisson(1)",
        "z[2] ~ Normal(0, 1)",
        "observe x ~ Normal(k^2*z[1], 1)",
        "observe y ~ Normal((k + 1)*z[1], 1)",
        "observe u ~ Normal((z[2] + abs(z[2]))^2*z[1], 1)",
    )
    k, z1, z2 = s["k"], s["z[1]"], s["z[2]"]
    dead = k**2 * z1
    assert not Monotone(z1, dead, 1, kappa[0], {kappa[0]: dead}, (k,)).holds(m)
    alive = (k + 1) * z1
    assert Monotone(z1, alive, 1, kappa[0], {kappa[0]: alive}, (k,)).holds(m)
    half = (z2 + Abs(z2)) ** 2 * z1
    assert not Monotone(z1, half, 1, kappa[0], {kappa[0]: half}, (z2,)).holds(m)


def test_all_differ():
    m, s = model("k ~ Categorical(1/4, 1/4, 1/4, 1/4)", "observe x ~ Normal(select(k, 0, w, w, sqrt(2)), 1)")
    k, w = s["k"], s["w"]
    law = (m.observations[0].family.arguments[0],)
    states = [{k: Integer(i)} for i in range(1, 5)]
    assert AllDiffer((states[0], states[1], states[3]), law, {w: Rational(1, 3)}).holds(m)
    assert not AllDiffer(tuple(states), law, {w: Rational(1, 3)}).holds(m), "states 2 and 3 have one law"
    assert not AllDiffer((states[0], states[1]), law, {w: S.Zero}).holds(m), (
        "they do not differ at this point"
    )
    assert not AllDiffer((states[0], states[1]), (k * w,), {w: ONE}).holds(m), "k·w is no part of the law"
    assert not AllDiffer((states[0], states[1]), law, {}).holds(m), "a parameter has no value"


def test_all_differ_takes_no_whole_number_for_almost_every_number():
    m, s = model("parameter a in 1..2", "k ~ Bernoulli(1/2)", "observe x ~ Normal((a - 1)*k, 1)")
    k, a = s["k"], s["a"]
    states = ({k: S.Zero}, {k: ONE})
    assert not AllDiffer(
        states, tuple(e for e in m.observations[0].family.arguments if e.free_symbols), {a: TWO}
    ).holds(m)


def test_discrete_fibre():
    m, s = model(
        "z[2] ~ Normal(0, 1)",
        "observe x ~ Normal(cos(z[1]), 1)",
        "observe y ~ Normal(z[2]*z[1], 1)",
        "observe u ~ Normal(max(z[1], 0)^2, 1)",
    )
    z1, z2 = s["z[1]"], s["z[2]"]
    one, other = {z1: S.Zero}, {z1: ONE}
    assert DiscreteFibre(z1, cos(z1), one, other).holds(m)
    wrong = [
        DiscreteFibre(z1, cos(z1), one, one),
        DiscreteFibre(z1, cos(z1), {z1: ONE}, {z1: -ONE}),
        DiscreteFibre(z1, sin(z1), one, other),
        DiscreteFibre(z1, Max(z1, 0) ** 2, one, other),
        DiscreteFibre(z1, z1 * z2, {z1: ONE, z2: ONE}, {z1: TWO, z2: ONE}),
        DiscreteFibre(z1, z1 * z2, {z1: ONE, z2: ONE}, {z1: ONE, z2: TWO}),
    ]
    assert not any(claim.holds(m) for claim in wrong)


def test_folded():
    m, s = model("z ~ Normal(0, 1)", "observe x ~ Normal(cos(z), 1)")
    z = s["z"]
    assert Folded({z: -z}).holds(m) and Folded({z: z + 2 * sympy.pi}).holds(m)
    assert not Folded({z: z}).holds(m) and not Folded({z: z + 1}).holds(m)
    b, names = model("p ~ Beta(2, 2)", "observe x ~ Normal(p^2, 1)")
    assert not Folded({names["p"]: -names["p"]}).holds(b), "−p lies outside the prior's support"
    parts = "Uniform(-3, -2), Uniform(0, 1), Uniform(2, 3)"
    c, gaps = model(f"z ~ Mixture([1/2, 1/2, 0], {parts})", "observe x ~ Normal(z^2, 1)")
    assert not Folded({gaps["z"]: -gaps["z"]}).holds(c), "−z lies in a part of weight 0"


def test_one_value():
    m, s = model("k ~ Categorical(0, 1)", "j ~ Bernoulli(1/2)", "observe x ~ Normal(k + j, 1)")
    assert OneValue(s["k"]).holds(m) and not OneValue(s["j"]).holds(m)
    n, names = model("z ~ Normal(0, 1)", "observe x ~ Normal(z, 1)")
    assert not OneValue(names["z"]).holds(n)


def on_data(m, **values):
    symbols = {s.name: s for s in m.observation_symbols}
    return (tuple((symbols[name], sympy.sympify(value)) for name, value in values.items()),)


def test_gap_on_data():
    m, s = model("z[2] ~ Normal(0, 1)", "p ~ Beta(1, 1)", "observe x ~ Normal(z[1]*p, 1)")
    z1, z2, p = s["z[1]"], s["z[2]"], s["p"]
    data = on_data(m, x=1)
    half = Rational(1, 2)
    base = {z1: ONE, z2: ONE, p: half}
    assert GapOnData(data, z1, base, {**base, z1: S.Zero}).holds(m)
    wrong = [
        GapOnData(data, z2, base, {**base, z2: S.Zero}),  # the likelihood ignores it
        GapOnData(data, z1, base, {**base, z1: THREE}),  # the same likelihood on both sides of the datum
        GapOnData(data, z1, base, {**base, z1: S.Zero, z2: S.Zero}),  # two latents move
        GapOnData(data, z1, base, {z1: S.Zero, p: half}),
        GapOnData(data, p, base, {**base, p: -ONE}),  # outside the support
    ]
    assert not any(claim.holds(m) for claim in wrong)


def test_a_gap_at_one_parameter_value_proves_nothing_where_kinks_hide_it():
    m, s = model("z ~ Normal(0, 1)", "observe x ~ Normal(max(w*z, 0), 1)")
    z, w = s["z"], s["w"]
    assert not GapOnData(on_data(m, x=1), z, {z: ONE, w: ONE}, {z: TWO, w: ONE}).holds(m)
    fixed = m.at({"w": 1})
    assert GapOnData(on_data(fixed, x=1), z, {z: ONE}, {z: THREE}).holds(fixed)


def test_flat_on_data():
    m, s = model("k ~ Bernoulli(1/2)", "observe x ~ Normal(0, 1 + k)")
    k, tie = s["k"], sqrt(Rational(4, 3) * log(4))
    assert FlatOnData(on_data(m, x=tie), k, ({k: S.Zero}, {k: ONE})).holds(m)
    assert not FlatOnData(on_data(m, x=tie + Rational(1, 10**40)), k, ({k: S.Zero}, {k: ONE})).holds(m)


def test_span_on_data():
    m, s = model(
        "z[2] ~ Normal(0, 1)", "observe x ~ Normal(z[1]^2 + z[2], 1)", "observe y ~ Normal(z[1] + z[2], 1)"
    )
    z1, z2 = s["z[1]"], s["z[2]"]
    data, latents = on_data(m, x=1, y=0), (z1, z2)
    points = ({z1: ONE, z2: S.Zero}, {z1: S.Zero, z2: TWO}, {z1: -TWO, z2: ONE})
    assert SpanOnData(data, latents, {}, points, 2).holds(m)
    assert not SpanOnData(data, latents, {}, points, 3).holds(m)
    assert not SpanOnData(data, latents, {}, points[:1], 2).holds(m)
    flat, names = model("z[2] ~ Normal(0, 1)", "observe x ~ Normal(z[1] + z[2], 1)")
    z1, z2 = names["z[1]"], names["z[2]"]
    there = tuple({z1: Integer(i), z2: Integer(i * i)} for i in range(4))
    assert SpanOnData(on_data(flat, x=1), (z1, z2), {}, there, 1).holds(flat)
    assert not SpanOnData(on_data(flat, x=1), (z1, z2), {}, there, 2).holds(flat)


# Levels follow from claims, and from nothing less


def test_levels_follow_only_from_all_that_they_need():
    m, s = model(
        "k ~ Categorical(1/3, 1/3, 1/3)",
        "z ~ Normal(0, 1)",
        "observe x ~ Normal(select(k, 0, z, z), 1)",
        "observe y ~ Normal(select(k, 5, 7, 9), 1)",
    )
    k, z = s["k"], s["z"]
    law = tuple(st.family.arguments[0] for st in m.observations)
    states = [{k: Integer(i)} for i in (1, 2, 3)]
    told = AllDiffer(tuple(states), (law[1],), {})
    ignored = Ignored((z,), states[0])
    read = [Recovered(z, kappa[0], {kappa[0]: z}, (), state) for state in states[1:]]
    assert all(claim.holds(m) for claim in (told, ignored, *read))
    assert Proof(m, (told, ignored, *read), {"k": GLOBAL, "z": PARTIAL}).verify()
    doctored = [
        ((ignored,), {"z": CONSTANT}),  # in one state of three
        ((told, *read), {"z": GLOBAL}),  # not in the first state
        ((told,), {"z": GLOBAL}),
        ((AllDiffer(tuple(states[:2]), (law[1],), {}),), {"k": GLOBAL}),  # one state is missing
        ((), {"k": GLOBAL}),
        ((), {"z": PARTIAL}),
        ((told, ignored, *read), {"q": GLOBAL}),  # no such latent
    ]
    for claims, levels in doctored:
        assert not Proof(m, claims, levels).verify()


def test_merged_states_make_a_latent_constant_only_if_all_of_them_merge():
    m, s = model("k ~ Categorical(1/3, 1/3, 1/3)", "observe x ~ Normal(select(k, 0, 0, 1), 1)")
    k = s["k"]
    merged = Merged({k: ONE}, {k: TWO})
    assert Proof(m, (merged,), {"k": PARTIAL}).verify()
    assert not Proof(m, (merged,), {"k": CONSTANT}).verify()
    assert not Proof(
        m,
        (merged, AllDiffer(({k: ONE}, {k: THREE}), (m.observations[0].family.arguments[0],), {})),
        {"k": GLOBAL},
    ).verify()


def test_states_that_the_prior_excludes_are_no_evidence():
    m, s = model("k ~ Categorical(1/2, 0, 1/2)", "observe x ~ Normal(select(k, 0, 0, 1), 1)")
    k = s["k"]
    assert not Proof(m, (Merged({k: ONE}, {k: TWO}),), {"k": PARTIAL}).verify()
    assert check(m).latents == {"k": GLOBAL}


def test_latents_are_not_read_off_in_a_circle():
    m, s = model("z[2] ~ Normal(0, 1)", "observe x ~ Normal(z[1] + z[2], 1)")
    z1, z2 = s["z[1]"], s["z[2]"]
    circle = (
        Recovered(z1, kappa[0] - z2, {kappa[0]: z1 + z2}, (z2,)),
        Recovered(z2, kappa[0] - z1, {kappa[0]: z1 + z2}, (z1,)),
    )
    assert all(claim.holds(m) for claim in circle)
    assert not Proof(m, circle, {"z[1]": GLOBAL, "z[2]": GLOBAL}).verify()


def test_a_reflection_alone_is_no_local_level():
    m, s = model("z[2] ~ Normal(0, 1)", "observe x ~ Normal(z[1]*z[2], 1)")
    folded = Folded({s["z[1]"]: -s["z[1]"], s["z[2]"]: -s["z[2]"]})
    assert folded.holds(m) and not Proof(m, (folded,), {"z[1]": LOCAL, "z[2]": LOCAL}).verify()


def test_a_direction_is_not_partial_where_the_latent_is_ignored_altogether():
    m, s = model("z[2] ~ Normal(0, 1)", "u ~ Normal(0, 1)", "observe x ~ Normal(u, 1)")
    along = Invisible({s["z[1]"]: ONE, s["z[2]"]: ONE})
    assert along.holds(m) and not Proof(m, (along,), {"z[1]": PARTIAL}).verify()


def test_counts_keep_to_their_lattice_and_their_support():
    m, s = model("k[2] ~ Poisson(1)", "observe x ~ Normal(k[1] + sqrt(2)*k[2], 1)")
    assert not Proof(
        m, (Invisible({s["k[1]"]: sqrt(2), s["k[2]"]: -ONE}),), {"k[1]": PARTIAL, "k[2]": PARTIAL}
    ).verify()
    n, names = model("m ~ Poisson(3)", "k ~ Binomial(m, 0)", "observe x ~ Normal(m + k, 1)")
    assert not Proof(
        n, (Invisible({names["m"]: ONE, names["k"]: -ONE}),), {"m": PARTIAL, "k": PARTIAL}
    ).verify()


def proof_of(verdict):
    assert isinstance(verdict.certificate, Proof)
    return verdict.certificate


TEXTS = [
    "z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)",
    "z[2] ~ Normal(0, 1); observe x ~ Normal(z[1] + w*z[2], 1)",
    "z[2] ~ Normal(0, 1); observe x ~ Normal(z[1], 1)",
    "z ~ Normal(0, 1); observe x ~ Normal(z^2, 1)",
    "z ~ Normal(0, 1); observe x ~ Normal(z^3 + z, exp(z))",
    "z[2] ~ Bernoulli(1/2); observe x ~ Normal((1 - 2*z[1])*(1 - 2*z[2]), 1)",
    "k ~ Categorical(1/3, 1/3, 1/3); observe x ~ Normal(select(k, 0, 0, 1), 1)",
    "k ~ Bernoulli(1/2); z ~ Normal(0, 1); observe x ~ Normal(k, 1); observe y ~ Normal(z*(1 + k), 1)",
    "k ~ Bernoulli(1/2); z ~ Normal(0, 1); observe x ~ Normal(k, 1); observe y ~ Normal(z*k, 1)",
    "m ~ Binomial(2, 1/2); k ~ Binomial(m, 1/2); observe x ~ Normal(m*k, 1)",
    "a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Normal(0, 1), Normal(w, 1))",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_certificate_proves_its_own_levels_and_no_others(text):
    verdict = check(text)
    proof = proof_of(verdict)
    assert proof.verify()
    for name, level in verdict.latents.items():
        for other in Level:
            doctored = dataclasses.replace(proof, levels={name: other})
            assert doctored.verify() is (other in (level, Level.UNKNOWN)), (name, other)


@pytest.mark.parametrize("text", TEXTS)
def test_a_certificate_without_claims_proves_nothing(text):
    proof = proof_of(check(text))
    assert not dataclasses.replace(proof, claims=()).verify()


def test_a_certificate_speaks_of_its_model_only():
    proof = proof_of(check("z ~ Normal(0, 1); observe x ~ Normal(2*z, 1)"))
    for other in (
        "z ~ Normal(0, 1); observe x ~ Normal(3*z, 1)",
        "z ~ Normal(0, 1); observe x ~ Normal(0*z, 1)",
        "u ~ Normal(0, 1); observe x ~ Normal(2*u, 1)",
    ):
        assert not dataclasses.replace(proof, model=ik.parse(other)).verify()


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("k ~ Bernoulli(1/2); observe x ~ Normal(0, 1 + k)", {"x": "sqrt(4/3*log(4))"}),
        ("k ~ Bernoulli(1/2); observe x ~ Normal(0, 1 + k)", {"x": 1}),
        ("z[2] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2], 1)", {"x": 1}),
        ("z[2] ~ Normal(0, 1); observe x ~ Normal(z[1]*z[2], 1)", {"x": [1, 2]}),
    ],
)
def test_a_certificate_on_data_proves_its_own_levels_and_no_others(text, data):
    verdict = check(text, data=data)
    proof = proof_of(verdict)
    assert proof.verify()
    for name, level in verdict.latents.items():
        for other in Level:
            assert dataclasses.replace(proof, levels={name: other}).verify() is (
                other in (level, Level.UNKNOWN)
            )
    assert not dataclasses.replace(proof, claims=()).verify()


def test_two_continuous_latents_are_informed_only_with_a_span():
    verdict = check("z[2] ~ Normal(0, 1); observe x ~ Normal(z[1]*z[2], 1)", data={"x": 1})
    proof = proof_of(verdict)
    without = tuple(claim for claim in proof.claims if not isinstance(claim, SpanOnData))  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    assert len(without) < len(proof.claims) and not dataclasses.replace(proof, claims=without).verify()  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue, reportOptionalMemberAccess]


# The tools of re-checking

z, w = sympy.symbols("z w", real=True)
t = Symbol("t", positive=True)


@pytest.mark.parametrize(
    "expression",
    [
        sin(z) ** 2 + cos(z) ** 2 - 1,
        log(exp(z)) - z,
        -log(1 / sigmoid(z) - 1) - z,
        log((1 + tanh(z)) / (1 - tanh(z))) / 2 - z,
        (z + w) ** 2 - z**2 - 2 * z * w - w**2,
        sqrt(3 + 2 * sqrt(2)) - 1 - sqrt(2),
        S.Zero,
    ],
    ids=str,
)
def test_zero_is_proved(expression):
    assert zero(expression)


@pytest.mark.parametrize(
    "expression",
    [
        z - w,
        sqrt(z**2) - z,
        Rational(1, 10**50),
        Abs(1 - cos(z)) + 1 - cos(z),
        S.NaN,
        sympy.floor(z) - z,
        Symbol("k", integer=True) - Symbol("l", integer=True),
    ],
    ids=str,
)
def test_zero_is_not_guessed(expression):
    assert not zero(expression)


@pytest.mark.parametrize(
    ("slope", "variable", "expected"),
    [
        (3 * z**2 + 1, z, True),
        (3 * z**2 - 1, z, False),
        (exp(z) + 1, z, True),
        (z, z, False),
        (t + 1, t, True),
        (t**2 - t + 1, t, True),
        (t**2 - 3 * t + 1, t, False),
        ((t - 1) ** 2, t, True),
        (t - 10**20, t, False),
        (-((z - 10**20) ** 2), z, False),
        (z**2 - 2 * z + 1 - Rational(1, 10**12), z, False),
    ],
    ids=str,
)
def test_a_slope_that_never_falls_below_zero(slope, variable, expected):
    assert never_negative(slope, variable) is expected


def test_rows_of_balls_are_apart_only_if_proved():
    assert all_apart([[arb(0), arb(0)], [arb(0), arb(1)], [arb(1), arb(0)]])
    assert not all_apart([[arb(0), arb(0)], [arb(0), arb(0, 0.5)]])
    assert not all_apart([[arb(0)], [arb.nan()]])
    assert not all_apart([[arb(0, 2)], [arb(1)], [arb(3, 2.5)]])
    # A wide ball reaches beyond its neighbour in the sorted order.
    assert not all_apart([[arb(0, 10)], [arb(1)], [arb(2)]])


def test_the_rank_of_balls_is_a_lower_bound():
    assert certified_rank([[arb(1), arb(2)], [arb(2), arb(4)]]) == 1
    assert certified_rank([[arb(1), arb(2)], [arb(2), arb(4, 1e-9)]]) == 1
    assert certified_rank([[arb(1), arb(2)], [arb(2), arb(5)]]) == 2
    assert certified_rank([[arb(0, 1), arb(0, 1)]]) == 0
    assert certified_rank([]) == 0 and certified_rank([[arb.nan(), arb(1)], [arb(0), arb(1)]]) == 1


def test_a_law_that_moves_and_one_that_does_not():
    m, s = model(
        "z[2] ~ Normal(0, 1)",
        "k ~ Bernoulli(1/2)",
        "observe x ~ Mixture([1/2, 1/2], Normal(z[1]*k, 1), Normal(5, 1))",
    )
    assert law_moves(m, s["z[1]"]) and law_moves(m, s["k"]) and not law_moves(m, s["z[2]"])


def test_gaps_are_as_exact_as_asked():
    m, s = model("z ~ Normal(0, 1)", "observe x ~ Normal(w*z, 1)")
    fixed = m.at({"w": "1e-30"})
    gap = GapOnData(on_data(fixed, x=1), s["z"], {s["z"]: ONE}, {s["z"]: S.Zero})
    assert gap.holds(fixed) and balls.excludes_zero(gap.gap(fixed, 384))
    assert float(gap.gap(fixed, 384).mid()) == pytest.approx(1e-30, rel=1e-14)


def test_excluded_by_data():
    """The datum rules one state out. Where both points allow it, or neither does, nothing is excluded."""
    m, s = model("k ~ Bernoulli(1/2)", "j ~ Bernoulli(1/2)", "observe x ~ Bernoulli(k)")
    k, j = s["k"], s["j"]
    off, on = {k: S.Zero, j: S.Zero}, {k: ONE, j: S.Zero}
    seen = on_data(m, x=1)
    assert ExcludedByData(seen, k, on, off).holds(m)
    wrong = [
        ExcludedByData(seen, k, off, on),  # the wrong way round
        ExcludedByData(seen, j, on, {**on, j: ONE}),  # possible at both
        ExcludedByData(seen, j, off, {**off, j: ONE}),  # possible at neither
        ExcludedByData(seen, k, on, {**off, j: ONE}),  # two latents move
    ]
    assert not any(claim.holds(m) for claim in wrong)


def test_a_coordinate_of_a_simplex_is_not_flat_on_data():
    m, s = model("z ~ Dirichlet(1, 1, 1)", "observe x ~ Normal(z[1], 1)")
    claim = FlatOnData(on_data(m, x=1), s["z[2]"], ({},))
    assert not claim.holds(m)
    free, t = model("z[2] ~ Normal(0, 1)", "observe x ~ Normal(z[1], 1)")
    assert FlatOnData(on_data(free, x=1), t["z[2]"], ({},)).holds(free)

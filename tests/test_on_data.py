"""`check` on given data: ties that are exact, ties that are nearly so, rows, pooling, and impossible values."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import sympy
import torch

import identkit as ik
from identkit.classical.conjugate import BetaBinomial, DirichletMultinomial
from identkit.dispatch import check
from identkit.model.compiled import compiled
from identkit.symbolic.certificates import GapOnData, InvisibleOnData
from identkit.symbolic.on_data import LikelihoodOnData, exact_rows
from identkit.symbolic.proof import Proof
from identkit.verdict import Level

CONSTANT, PARTIAL, INFORMED, UNKNOWN = Level.CONSTANT, Level.PARTIAL, Level.INFORMED, Level.UNKNOWN
SCALES = "k ~ Bernoulli(1/2); observe x ~ Normal(0, select(k + 1, 1, 2))"
TIE = "sqrt(4/3*log(4))"
WEIGHT = "a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Normal(0, 1), Normal(2, 1))"
XOR = """z[2] ~ Bernoulli(1/2)
observe x ~ Bernoulli(select(1 + z[1], select(1 + z[2], 0.1, 0.9), select(1 + z[2], 0.9, 0.1)))"""


def levels(text, **arguments):
    verdict = check(text, **arguments)
    assert verdict.scope == "data"
    assert verdict.certificate is None or verdict.certificate.verify()
    return verdict.latents


SHARES = "p[3] ~ Dirichlet(1, 2, 3); observe x[3] ~ Multinomial(5, p[1], p[2], p[3])"
RATES = "a ~ Gamma(2, 1); b ~ Gamma(3, 1); observe x ~ Poisson(a); observe y ~ Poisson(b)"
ODDS = """a ~ Gamma(2, 1); b ~ Gamma(2, 1)
observe x[3] ~ Multinomial(4, a/(1 + a + b), b/(1 + a + b), 1/(1 + a + b))"""


def shares(*expected):
    return {f"p[{i}]": level for i, level in enumerate(expected, 1)}


TABLE = [
    # all draws of one kind: what the other shares take from each other is not seen
    (SHARES, {"x": [5, 0, 0]}, {}, shares(INFORMED, PARTIAL, PARTIAL)),
    (SHARES, {"x": [0, 0, 5]}, {}, shares(PARTIAL, PARTIAL, INFORMED)),
    (SHARES, {"x": [4, 1, 0]}, {}, shares(INFORMED, INFORMED, INFORMED)),
    (SHARES, {"x": [[5, 5], [0, 0], [0, 0]]}, {"pooled": True}, shares(INFORMED, PARTIAL, PARTIAL)),
    (SHARES, {"x": [[5, 0], [0, 5], [0, 0]]}, {"pooled": True}, shares(*[INFORMED] * 3)),
    ("p[2] ~ Dirichlet(1, 1); observe x ~ Categorical(p[1], p[2])", {"x": 1}, {}, shares(INFORMED, INFORMED)),
    (
        "p[4] ~ Dirichlet(1, 1, 1, 1); observe x[4] ~ Multinomial(5, p[1], p[2], p[3], p[4])",
        {"x": [4, 1, 0, 0]},
        {},
        shares(INFORMED, INFORMED, PARTIAL, PARTIAL),
    ),
    # nothing counted: ℓ = −a − b; one count more, and a is told from b
    (RATES, {"x": 0, "y": 0}, {}, {"a": PARTIAL, "b": PARTIAL}),
    (RATES, {"x": 0, "y": 1}, {}, {"a": INFORMED, "b": INFORMED}),
    (RATES, {"x": [0, 0], "y": [0, 1]}, {}, {"a": PARTIAL, "b": PARTIAL}),
    (RATES, {"x": [0, 0], "y": [0, 1]}, {"pooled": True}, {"a": INFORMED, "b": INFORMED}),
    (ODDS, {"x": [0, 0, 4]}, {}, {"a": PARTIAL, "b": PARTIAL}),
    (ODDS, {"x": [4, 0, 0]}, {}, {"a": INFORMED, "b": INFORMED}),
    # a latent that these data ignore altogether takes no direction from the others
    (
        f"z[2] ~ Normal(0, 1); {WEIGHT}; observe y ~ Normal(z[1]*z[2], 1)",
        {"x": 1, "y": 2},
        {},
        {"z[1]": INFORMED, "z[2]": INFORMED, "a": CONSTANT},
    ),
    # in a state that the prior allows, (a, b) slides; c is seen in both
    (
        """a ~ Gamma(2, 1); b ~ Gamma(2, 1); c ~ Normal(0, 1); k ~ Bernoulli(1/2)
observe x ~ Poisson(a); observe y ~ Poisson(select(1 + k, b, b^2)); observe w ~ Normal(c, 1)""",
        {"x": 0, "y": 0, "w": 1},
        {},
        {"a": PARTIAL, "b": PARTIAL, "c": INFORMED, "k": INFORMED},
    ),
    # two normals of equal mean agree at one |x| and nowhere else
    (SCALES, {"x": TIE}, {}, {"k": CONSTANT}),
    (SCALES, {"x": f"-{TIE}"}, {}, {"k": CONSTANT}),
    (SCALES, {"x": f"{TIE} + 1e-40"}, {}, {"k": INFORMED}),
    (SCALES, {"x": 1.35956}, {}, {"k": INFORMED}),
    (SCALES, {"x": [1, 2]}, {}, {"k": INFORMED}),
    (SCALES, {"x": [TIE, 2]}, {}, {"k": PARTIAL}),
    (SCALES, {"x": [TIE, 2]}, {"pooled": True}, {"k": INFORMED}),
    # x² + y² = 2·tie²: neither row ties, together they do
    (SCALES, {"x": ["sqrt(4/3*log(4) + 1)", "sqrt(4/3*log(4) - 1)"]}, {"pooled": True}, {"k": CONSTANT}),
    (SCALES, {"x": ["sqrt(4/3*log(4) + 1)", "sqrt(4/3*log(4) - 1)"]}, {}, {"k": INFORMED}),
    # a mixing weight at the point where the component densities agree
    (WEIGHT, {"x": 1}, {}, {"a": CONSTANT}),
    (WEIGHT, {"x": [1, 1]}, {"pooled": True}, {"a": CONSTANT}),
    (WEIGHT, {"x": "1 + 1e-30"}, {}, {"a": INFORMED}),
    (WEIGHT, {"x": [0.5, 1.5]}, {"pooled": True}, {"a": INFORMED}),
    # a law that ignores a latent ignores it on all data; free parameters are generic
    ("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", {"x": 1}, {}, {"z": INFORMED}),
    ("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", {"x": 1}, {"at": {"w": 0}}, {"z": CONSTANT}),
    (
        "z[2] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2], 1)",
        {"x": 1},
        {},
        {"z[1]": PARTIAL, "z[2]": PARTIAL},
    ),
    (
        "z[2] ~ Normal(0, 1); observe x ~ Normal(z[1]*z[2], 1)",
        {"x": 1},
        {},
        {"z[1]": INFORMED, "z[2]": INFORMED},
    ),
    (XOR, {"x": 1}, {}, {"z[1]": PARTIAL, "z[2]": PARTIAL}),
    # kinks: half of the line is dead, the datum still speaks; a step that these data do not see
    ("z ~ Normal(0, 1); observe x ~ Normal(relu(z), 1)", {"x": 1}, {}, {"z": INFORMED}),
    ("z ~ Normal(0, 1); observe x ~ Normal(abs(z)/z, 1)", {"x": 0}, {}, {"z": CONSTANT}),
    ("z ~ Normal(0, 1); observe x ~ Normal(abs(z)/z, 1)", {"x": 1}, {}, {"z": INFORMED}),
    # one coordinate ties, the other does not
    (
        "z[2] ~ Bernoulli(1/2); observe x ~ Normal(0, 1 + z[1]); observe y ~ Normal(z[2], 1)",
        {"x": TIE, "y": 1},
        {},
        {"z[1]": CONSTANT, "z[2]": INFORMED},
    ),
    (
        "z[2] ~ Bernoulli(1/2); observe x ~ Normal(0, 1 + z[1]); observe y ~ Normal(z[2], 1)",
        {"x": TIE, "y": 1 / 2},
        {},
        {"z[1]": CONSTANT, "z[2]": CONSTANT},
    ),
    # counts, and latents that the prior pins down
    ("k ~ Poisson(2); observe x ~ Normal(k, 1)", {"x": 1}, {}, {"k": INFORMED}),
    ("k ~ Poisson(0); observe x ~ Normal(k, 1)", {"x": 1}, {}, {"k": CONSTANT}),
    ("k ~ Bernoulli(0); observe x ~ Normal(k, 1)", {"x": 1}, {}, {"k": CONSTANT}),
    ("k ~ Poisson(2); observe x ~ Normal((-1)^k, 1)", {"x": 0}, {}, {"k": CONSTANT}),
    # parameters that an equation ties
    ("constraint a = b; z ~ Normal(0, 1); observe x ~ Normal((a - b)*z, 1)", {"x": 1}, {}, {"z": CONSTANT}),
    (
        "constraint a = b; k ~ Bernoulli(1/2); observe x ~ Normal(select(k + 1, a, b), 1)",
        {"x": 1},
        {},
        {"k": CONSTANT},
    ),
    # the mean is fixed and the variance speaks
    ("z ~ Normal(0, 1); observe x ~ Normal(0, exp(z))", {"x": 0}, {}, {"z": INFORMED}),
]


@pytest.mark.parametrize(("text", "data", "arguments", "expected"), TABLE, ids=range(len(TABLE)))
def test_levels_on_data(text, data, arguments, expected):
    assert levels(text, data=data, **arguments) == expected


DOUBTFUL = [
    # A whole half-line of parameter values has no gap, so one value says nothing of almost all.
    ("z ~ Normal(0, 1); observe x ~ Normal(relu(w*z), 1)", {"x": 1}, {}),
    # Counts that another latent may pin down: a gap may lie outside the support.
    ("m ~ Poisson(3); k ~ Binomial(m, 0); z ~ Normal(0, 1); observe x ~ Normal(k*z, 1)", {"x": 1}, {}),
    # A gap at parameter values that break an equation says nothing of those that meet it.
    ("constraint a^2 = 1; z ~ Normal(0, 1); observe x ~ Normal((a^2 - 1)*z, 1)", {"x": 1}, {}),
    # (−1)^k has the same value at all even k that were tried, or not; no claim either way without a proof.
    ("z ~ Normal(0, 1); observe x ~ Normal(abs(z - 100)/(z - 100), 1)", {"x": 1}, {}),
    # The density has no slope along a, and yet the datum may lie outside.
    ("a ~ Normal(0, 1); b ~ Normal(0, 1); observe x ~ Uniform(a, a + exp(b))", {"x": 0}, {}),
]


@pytest.mark.parametrize(("text", "data", "arguments"), DOUBTFUL, ids=range(len(DOUBTFUL)))
def test_what_is_not_proved_on_data_is_unknown(text, data, arguments):
    found = levels(text, data=data, **arguments)
    assert UNKNOWN in found.values() and INFORMED not in found.values()


def test_a_latent_that_never_varies_alone_is_not_ignored():
    # b is a: the one is seen as much as the other.
    found = levels("a ~ Bernoulli(1/2); b ~ Bernoulli(a); observe x ~ Normal(b, 1)", data={"x": 0})
    assert set(found.values()) <= {INFORMED, UNKNOWN}


@pytest.mark.parametrize("seed", range(12))
def test_levels_agree_with_the_likelihood_in_float64(seed):
    """A table of state means and scales with exact repetitions; ℓ in torch is the oracle."""
    rng = np.random.default_rng(seed)
    means, scales = rng.integers(0, 2, size=(2, 2)), rng.integers(1, 3, size=(2, 2))
    one = f"select(1 + a, select(1 + b, {means[0, 0]}, {means[0, 1]}), select(1 + b, {means[1, 0]}, {means[1, 1]}))"
    two = f"select(1 + a, select(1 + b, {scales[0, 0]}, {scales[0, 1]}), select(1 + b, {scales[1, 0]}, {scales[1, 1]}))"
    text = f"a ~ Bernoulli(1/2); b ~ Bernoulli(1/3); observe x ~ Normal({one}, {two})"
    x = [0, 1, 1 / 2, TIE][seed % 4]
    found = levels(text, data={"x": x})

    value = math.sqrt(4 / 3 * math.log(4)) if x == TIE else float(x)
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=torch.float64)
    table = (
        compiled(ik.parse(text))
        .log_likelihood(torch.full((4, 1), value, dtype=torch.float64), states)
        .view(2, 2)
    )
    moves = {
        "a": (table[0] - table[1]).abs().max() > 1e-9,
        "b": (table[:, 0] - table[:, 1]).abs().max() > 1e-9,
    }
    assert {name: level is not CONSTANT for name, level in found.items()} == {
        n: bool(v) for n, v in moves.items()
    }


def test_the_gaps_of_a_verdict_are_gaps_of_the_likelihood():
    model = ik.parse("z[2] ~ Normal(0, 1); observe x ~ Normal(z[1], 1); observe y ~ Poisson(exp(z[2]))")
    rows = exact_rows(model, {"x": "1/2", "y": 3})
    found = LikelihoodOnData(model).on(rows)
    c = compiled(model)
    for gap in found.gaps.values():
        ends = [
            torch.tensor([[float(point[s]) for s in model.latent_symbols]]) for point in (gap.one, gap.other)
        ]
        values = [c.log_likelihood(torch.tensor([[0.5, 3.0]]), end).item() for end in ends]
        assert float(gap.gap(model).mid()) == pytest.approx(values[0] - values[1], rel=1e-6) and gap.holds(
            model
        )
    assert isinstance(found.gap, GapOnData)


def test_columns_of_vectors_and_rows():
    text = "z ~ Normal(0, 1); observe y[2] ~ Normal(z, 1)"
    assert levels(text, data={"y": [1, 2]}) == {"z": INFORMED}
    assert levels(text, data={"y": [[1, 2, 5], [3, 4, 5]]}) == {"z": INFORMED}
    assert levels(text, data={"y[1]": [1, 2], "y[2]": np.array([3.0, 4.0])}) == {"z": INFORMED}
    rows = exact_rows(ik.parse(text), {"y": [[1, 2], ["sqrt(2)", 0.5]]})
    assert [[row[s] for s in sorted(row, key=str)] for row in rows] == [
        [1, sympy.sqrt(2)],
        [2, sympy.Rational(1, 2)],
    ]


@pytest.mark.parametrize(
    ("text", "data", "error", "words"),
    [
        (SCALES, {}, ValueError, "data should give every observation; missing: x"),
        (SCALES, {"x": 1, "q": 2}, ValueError, "data names 'q', which is none of: x"),
        (SCALES, {"x": []}, ValueError, "data should have columns of one length, one or more"),
        (SCALES, {"x": math.nan}, ValueError, "data for x should be finite, got nan"),
        (
            SCALES,
            {"x": "1/0"},
            ValueError,
            "data for x should be a constant .* got '1/0': this divides by zero",
        ),
        (SCALES, {"x": "log(-1)"}, ValueError, "this is not a real number"),
        (SCALES, {"x": "y"}, ValueError, "a constant may not mention names"),
        (SCALES, {"x": None}, TypeError, "data for x should be a number"),
        (SCALES, [1], TypeError, "(?i)mapping"),
        (
            "z ~ Normal(0, 1); observe y[2] ~ Normal(z, 1)",
            {"y": [1, 2, 3]},
            ValueError,
            "data for y should have 2 values",
        ),
        ("z ~ Normal(0, 1); observe y[2] ~ Normal(z, 1)", {"y[1]": 1}, ValueError, r"missing: y\[2\]"),
        (
            "z ~ Normal(0, 1); observe y[2] ~ Normal(z, 1)",
            {"y[1]": [1], "y[2]": [1, 2]},
            ValueError,
            "columns of one length",
        ),
        (
            "z ~ Normal(0, 1); observe x ~ Poisson(exp(z))",
            {"x": -1},
            ValueError,
            "data for x should lie in the support of Poisson",
        ),
        (
            "z ~ Normal(0, 1); observe x ~ Poisson(exp(z))",
            {"x": "1/2"},
            ValueError,
            "data for x should lie in the support of Poisson",
        ),
        (
            "z ~ Beta(1, 1); observe x ~ Bernoulli(z)",
            {"x": 2},
            ValueError,
            "data for x should lie in the support of Bernoulli",
        ),
    ],
)
def test_bad_data_are_named(text, data, error, words):
    with pytest.raises(error, match=words):
        check(text, data=data)


def test_pooling_needs_data():
    with pytest.raises(ValueError, match="pooled=True needs data"):
        check(SCALES, pooled=True)


def test_a_coordinate_of_a_simplex_is_not_ignored_because_its_count_is_zero():
    # ℓ = 3 log p1 + log p2 does not name p3, and yet p3 = 1 - p1 - p2 moves with what it names.
    text = "p[3] ~ Dirichlet(1, 1, 1); observe x[3] ~ Multinomial(4, p[1], p[2], p[3])"
    levels = check(text, data={"x[1]": 3, "x[2]": 1, "x[3]": 0}).latents
    assert levels["p[3]"] is not Level.CONSTANT


def test_a_coordinate_of_a_simplex_is_not_called_ignored():
    # z[2] and z[3] add up to 1 − z[1], which the datum speaks of.
    found = levels("z ~ Dirichlet(1, 1, 1); observe x ~ Normal(z[1], 1)", data={"x": 1})
    assert CONSTANT not in found.values()


def test_a_direction_that_data_ignore_is_one_of_the_posterior():
    """Theory/T2: with all draws of one kind, all that is learnt of the shares is learnt of one of them."""
    model, verdict = ik.parse(SHARES), check(SHARES, data={"x": [5, 0, 0]})
    proof, other = verdict.certificate, check(SHARES, data={"x": [4, 1, 0]}).certificate
    assert isinstance(proof, Proof) and isinstance(other, Proof)
    (claim,) = [c for c in proof.claims if isinstance(c, InvisibleOnData)]
    p1, p2, p3 = model.latent_symbols
    assert claim.holds(model) and claim.supports == {"p[2]": (PARTIAL,), "p[3]": (PARTIAL,)}
    everything = DirichletMultinomial(5, [1.0, 2.0, 3.0]).kl_to_prior([[5, 0, 0]])
    torch.testing.assert_close(everything, BetaBinomial(5, 1.0, 5.0).kl_to_prior([5]))
    # What is no direction of the simplex, no translation, not of these data or seen by them is no evidence.
    for forged in (
        {p2: sympy.S.One},
        {p1: sympy.S.One, p2: -sympy.S.One},
        {p2: p1, p3: -p1},
        {p2: sympy.S.Zero, p3: sympy.S.Zero},
        {},
    ):
        assert not replace(claim, direction=forged).holds(model)
    assert not replace(claim, data=other.groups[0]).holds(model)
    assert not replace(other, claims=(*other.claims, claim), levels=verdict.latents).verify()
    assert not replace(proof, claims=tuple(c for c in proof.claims if c != claim)).verify()
    raised = {**verdict.latents, "p[2]": INFORMED}
    assert not replace(proof, levels=raised).verify()


@pytest.mark.parametrize("seed", range(8))
def test_ignored_directions_agree_with_gradients_in_float64(seed):
    """Counts of random mixed rates, some of them 0: ranks of ∇ℓ at many points are the oracle."""
    rng = np.random.default_rng(seed)
    loads = rng.integers(0, 3, size=(3, 3))
    counts = rng.integers(0, 2, size=3) * (loads.sum(1) > 0)
    lines = [f"observe x{i + 1} ~ Poisson(" + " + ".join(f"{w}*z[{j + 1}]" for j, w in enumerate(row)) + ")"
             for i, row in enumerate(loads) if row.any()]  # fmt: skip
    data = {f"x{i + 1}": int(counts[i]) for i in range(3) if loads[i].any()}
    found = levels("z[3] ~ Gamma(2, 1); " + "; ".join(lines), data=data)
    points = rng.gamma(2.0, size=(40, 3))
    gradients = -loads.sum(0) + (counts / np.maximum(points @ loads.T, 1e-9)) @ loads
    values, right = np.linalg.svd(gradients)[1:]
    null = right[np.append(values, np.zeros(3 - len(values))) < 1e-9 * max(values[0], 1)]
    moved = np.abs(null).max(0, initial=0.0) > 1e-9
    still = np.abs(gradients).max(0) < 1e-9
    for j in range(3):
        expected = CONSTANT if still[j] else PARTIAL if moved[j] else INFORMED
        assert found[f"z[{j + 1}]"] is expected

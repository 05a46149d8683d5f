"""The torch face of a model: shapes, masks, gradients, exact gaps, states, draws, and every message at the door."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sympy
import torch
from sympy import Rational

import identkit as ik
from identkit.model import balls
from identkit.model.compiled import compiled, log_of, log_of_complement
from identkit.model.families import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Mixture,
    MvNormal,
    Normal,
    Poisson,
    select,
)
from identkit.model.functions import sigmoid
from identkit.model.model import Model
from identkit.model.protocol import Continuous, Finite


def wide():
    """A model in which every family and function appears."""
    model = Model("wide")
    k = model.latent("k", Categorical(Rational(1, 2), Rational(1, 3), Rational(1, 6)))
    z = model.latent("z", Normal(0, 1))
    p = model.latent("p", Beta(2, 3))
    model.observe("a", Normal(select(k, -1, 0, 2) * z, sympy.exp(z / 2)))
    model.observe("b", Bernoulli(sigmoid(z - 1)))
    model.observe("c", Poisson(sympy.exp(z) + p))
    model.observe("d", Binomial(6, p))
    model.observe("e", Categorical(p, (1 - p) / 2, (1 - p) / 2))
    model.observe("f", Beta(1 + z**2, 2))
    model.observe("g", MvNormal([z, sympy.sin(p)], [[2, sympy.tanh(z)], [sympy.tanh(z), 2]]))
    model.observe("h", Mixture([p, 1 - p], Normal(z, 1), Normal(0, 2)))
    return model


ROW = [[0.3, 1.0, 2.0, 4.0, 2.0, 0.25, -0.5, 1.5, 0.7]]
LATENT = [[1.0, 0.4, 0.3]]


def draws(n, seed=0):
    return compiled(wide()).sample(n, torch.Generator().manual_seed(seed))


def test_log_likelihood_is_the_symbolic_one():
    model = wide()
    c = compiled(model)
    x, z = draws(12)
    values = c.log_likelihood(x, z)
    for i in range(12):
        # States are 0-based in torch and 1-based in the text.
        exact_z = dict(zip(model.latent_symbols, (z[i] + torch.tensor([1.0, 0, 0])).tolist(), strict=True))
        exact_x = dict(zip(model.observation_symbols, x[i].tolist(), strict=True))
        truth = balls.ball(model.log_likelihood(), {**exact_z, **exact_x}, 200)
        assert values[i].item() == pytest.approx(float(truth.mid()), rel=1e-12, abs=1e-12)


def test_shapes_broadcast_over_data_and_samples():
    c = compiled(wide())
    x, z = draws(5)
    flat = c.log_likelihood(x, z)
    assert flat.shape == (5,) and flat.dtype == torch.float64
    many = torch.stack([z, z.roll(1, 0), z.roll(2, 0)])
    values = c.log_likelihood(x, many)
    assert values.shape == (3, 5)
    for s, i in itertools.product(range(3), range(5)):
        assert values[s, i].item() == pytest.approx(
            c.log_likelihood(x[i : i + 1], many[s, i : i + 1]).item(), abs=1e-12
        )
    assert c.log_prior(z).shape == (5,) and c.log_prior(many).shape == (3, 5)


def test_a_likelihood_without_latents_in_it_keeps_its_shape():
    c = compiled(ik.parse("z ~ Normal(0, 1); observe x ~ Normal(0, 1)"))
    assert c.log_likelihood(torch.zeros(4, 1), torch.zeros(7, 4, 1)).shape == (7, 4)
    assert torch.equal(
        c.gradient(torch.zeros(4, 1), torch.ones(4, 1)), torch.zeros(4, 1, dtype=torch.float64)
    )


def test_the_prior_is_bayes_denominator():
    model = wide()
    _, z = draws(6)
    shifted = z + torch.tensor([1.0, 0, 0])
    for i, value in enumerate(compiled(model).log_prior(z)):
        point = dict(zip(model.latent_symbols, shifted[i].tolist(), strict=True))
        assert value.item() == pytest.approx(
            float(balls.ball(model.log_prior(), point, 128).mid()), rel=1e-12
        )


@pytest.mark.parametrize("missing", [[0], [3, 4], [6], [7], [6, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8], []], ids=str)
def test_a_missing_value_is_integrated_out(missing):
    """Leaving an observation out of the model gives the same likelihood, gradient included."""
    c = compiled(wide())
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[0, missing] = False
    table, seen = c.rows(np.where(mask.numpy(), ROW, np.nan), mask)
    z = torch.tensor(LATENT, dtype=torch.float64)
    value = c.log_likelihood(table, z, seen)

    fewer = Model("fewer")
    fewer.latents, fewer._symbols, column = wide().latents, wide()._symbols, 0
    kept = []
    for statement in wide().observations:
        width = len(statement.symbols)
        here = [column + i for i in range(width) if column + i not in missing]
        column += width
        if len(here) == width:
            fewer.observations.append(statement)
        elif here:
            mean, cov = statement.family.arguments
            i = here[0] - (column - width)
            fewer.observations.append(
                type(statement)((statement.symbols[i],), Normal(mean[i], sympy.sqrt(cov[i, i])))
            )
        kept += here
    assert value.item() == pytest.approx(
        compiled(fewer).log_likelihood(torch.tensor(ROW, dtype=torch.float64)[:, kept], z).item(), abs=1e-12
    )
    assert torch.allclose(
        c.gradient(table, z, seen),
        compiled(fewer).gradient(torch.tensor(ROW, dtype=torch.float64)[:, kept], z),
        atol=1e-12,
    )


def test_masks_differ_from_row_to_row():
    c = compiled(ik.parse("z ~ Normal(0, 1); observe x[2] ~ MvNormal([z, z], [[2, 1], [1, 2]])"))
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    table, seen = c.rows(x, mask)
    got = c.log_likelihood(table, torch.zeros(3, 1), seen)
    normal = torch.distributions.Normal(0.0, math.sqrt(2))
    joint = torch.distributions.MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    expected = torch.stack([joint.log_prob(x[0]), normal.log_prob(x[1, 0]), normal.log_prob(x[2, 1])])
    assert torch.allclose(got, expected.double(), atol=1e-6)


def test_gradient_is_the_slope_and_zero_along_states():
    c = compiled(wide())
    x, z = draws(8, seed=4)
    slope = c.gradient(x, z)
    assert torch.equal(slope[:, 0], torch.zeros(8, dtype=torch.float64))
    for j in (1, 2):
        step = torch.zeros(3, dtype=torch.float64)
        step[j] = 1e-6
        numeric = (c.log_likelihood(x, z + step) - c.log_likelihood(x, z - step)) / 2e-6
        assert torch.allclose(slope[:, j], numeric, rtol=1e-6, atol=1e-6)


def test_gradient_of_missing_values_is_finite_whatever_the_family():
    families = [
        "Normal(z, 1)",
        "Beta(exp(z), 1)",
        "Poisson(exp(z))",
        "Binomial(3, sigmoid(z))",
        "Bernoulli(sigmoid(z))",
    ]
    text = "; ".join(["z ~ Normal(0, 1)", *[f"observe x[{i}] ~ {f}" for i, f in enumerate(families, 1)]])
    c = compiled(ik.parse(text))
    table, mask = c.rows(np.full((2, 5), np.nan), np.zeros((2, 5), dtype=bool))
    assert torch.equal(c.gradient(table, torch.ones(2, 1), mask), torch.zeros(2, 1, dtype=torch.float64))
    assert torch.equal(c.log_likelihood(table, torch.ones(2, 1), mask), torch.zeros(2, dtype=torch.float64))


def test_exact_gaps_keep_their_relative_accuracy():
    c = compiled(ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)"), at={"w": "1e-20"})
    gaps = c.exact_gaps(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([[1.0], [-1.0], [0.0]]))
    # ℓ(z) − ℓ(0) = w z x − (w z)²/2
    assert gaps.tolist() == pytest.approx([2e-20, -2e-20, 0.0], rel=1e-14)
    rounded = c.log_likelihood(torch.tensor([[2.0]]), torch.tensor([[1.0]])) - c.log_likelihood(
        torch.tensor([[2.0]]), torch.tensor([[0.0]])
    )
    assert rounded.item() == 0, "float64 alone cannot see it"


def test_exact_gaps_agree_with_the_likelihood_and_know_states_and_masks():
    c = compiled(wide())
    x, z = draws(6, seed=2)
    gaps = c.exact_gaps(x[0], z[0], z)
    plain = c.log_likelihood(x[:1].expand(6, -1), z) - c.log_likelihood(x[:1], z[:1])
    assert torch.allclose(gaps, plain, rtol=1e-9, atol=1e-9)
    mask = torch.tensor([True, False, True, True, True, True, True, False, True])
    table, seen = c.rows(x[:1], mask[None])
    here = c.exact_gaps(table[0], z[0], z[1:2], seen[0])  # pyright: ignore[reportOptionalSubscript]
    there = c.log_likelihood(table, z[1:2], seen) - c.log_likelihood(table, z[:1], seen)
    assert torch.allclose(here, there, rtol=1e-9, atol=1e-9)


def test_far_away_data_are_finite_and_right():
    c = compiled(
        ik.parse(
            "z ~ Normal(0, 1); observe x ~ Normal(z, 1/10); observe y ~ Mixture([1/2, 1/2], Normal(z, 1), Normal(9, 1))"
        )
    )
    z = torch.tensor([[0.0]])
    far = c.log_likelihood(torch.tensor([[1000.0, -10000.0]], dtype=torch.float64), z).item()
    expected = -0.5 * 1e8 - math.log(0.1) - 0.5e8 - math.log(2 * math.pi) - math.log(2)
    assert far == pytest.approx(expected, rel=1e-14)


def test_saturated_logits_are_finite():
    c = compiled(
        ik.parse("z ~ Normal(0, 1); observe x ~ Bernoulli(sigmoid(w*z)); observe y ~ Poisson(exp(-w*z))"),
        at={"w": 1000},
    )
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    values = c.log_likelihood(x, torch.tensor([[2.0], [2.0]]))
    assert values.tolist() == pytest.approx([-2000.0 - 2000.0, 0.0], abs=1e-9)
    assert torch.isfinite(c.gradient(x, torch.tensor([[2.0], [2.0]]))).all()


def test_axes():
    model = wide()
    model.latent("n", Binomial(3, Rational(1, 2)))
    model.latent("j", Bernoulli(Rational(1, 2)))
    assert compiled(model).axes == (
        Finite((0.0, 1.0, 2.0)),
        Continuous(-math.inf, math.inf),
        Continuous(0.0, 1.0),
        Finite((0.0, 1.0, 2.0, 3.0)),
        Finite((0.0, 1.0)),
    )
    with pytest.raises(ValueError, match=r"k ~ Poisson has infinitely many values"):
        _ = compiled(ik.parse("k ~ Poisson(1); observe x ~ Normal(k, 1)")).axes


def test_states_are_zero_based_in_torch_also_inside_a_mixture():
    text = "k ~ Mixture([1/2, 1/2], Categorical(1/2, 1/2), Categorical(1/4, 3/4)); observe x ~ Normal(k, 1)"
    c = compiled(ik.parse(text))
    assert c.axes == (Finite((0.0, 1.0)),)
    assert c.log_likelihood(torch.tensor([[1.0]]), torch.tensor([[0.0]])).item() == pytest.approx(
        -0.5 * math.log(2 * math.pi)
    )
    assert c.log_prior(torch.tensor([[0.0], [1.0]])).exp().tolist() == pytest.approx([0.375, 0.625])
    assert set(c.sample(200, torch.Generator().manual_seed(0))[1].flatten().tolist()) == {0.0, 1.0}


def test_samples_repeat_with_their_seed_and_pass_the_door():
    x, z = draws(300, seed=7)
    again, _ = draws(300, seed=7)
    other, _ = draws(300, seed=8)
    assert torch.equal(x, again) and not torch.equal(x, other)
    table, mask = compiled(wide()).rows(x)
    assert torch.equal(table, x) and mask is None and z.shape == (300, 3)


def test_ancestral_draws_have_the_right_covariance():
    c = compiled(ik.parse("z ~ Normal(1, 2); observe x ~ Normal(3*z, 1)"))
    n = 40_000
    x, z = c.sample(n, torch.Generator().manual_seed(1))
    covariance = torch.cov(torch.cat([z, x], 1).T)
    assert torch.allclose(
        covariance, torch.tensor([[4.0, 12.0], [12.0, 37.0]], dtype=torch.float64), rtol=0.05
    )
    assert abs(x.mean().item() - 3) < 5 * math.sqrt(37 / n)


def test_data_come_as_arrays_tensors_numbers_or_columns():
    c = compiled(ik.parse("z ~ Normal(0, 1); observe x ~ Normal(z, 1)"))
    for data in ([[1.0], [2.0]], np.array([1.0, 2.0]), torch.tensor([1, 2]), {"x": [1, 2]}):
        assert torch.equal(c.rows(data)[0], torch.tensor([[1.0], [2.0]], dtype=torch.float64))
    assert c.rows(3)[0].shape == (1, 1)
    two = compiled(ik.parse("z ~ Normal(0, 1); observe x[2] ~ Normal(z, 1)"))
    columns, _ = two.rows({"x[2]": [3, 4], "x[1]": [1, 2]})
    assert columns.tolist() == [[1, 3], [2, 4]]


TWO = "z ~ Normal(0, 1); observe x ~ Normal(z, 1); observe k ~ Poisson(exp(z))"


@pytest.mark.parametrize(
    ("data", "mask", "words"),
    [
        ([[1.0, 2.0, 3.0]], None, r"x should have shape \(n, 2\) for x, k, got \(1, 3\)"),
        ([1.0, 2.0], None, r"x should have shape \(n, 2\)"),
        ("text", None, "x should be an array of numbers, got str"),
        ([[math.nan, 1.0]], None, "x should be finite, got nan in row 1, column x; give mask="),
        ([[0.0, math.inf]], None, "x should be finite, got inf in row 1, column k"),
        ([[math.nan, 1.0], [math.nan, 1.0]], [[False, True], [True, True]], "got nan in row 2, column x"),
        ([[0.0, -1.0]], None, r"column k should hold values of Poisson \(whole numbers, 0 or more\), got -1"),
        ([[0.0, 0.5]], None, r"column k should hold values of Poisson .*, got 0.5"),
        ([[0.0, 1.0]], [True, True], r"mask should have the shape of x, \(1, 2\), got \(2,\)"),
        ({"x": [1.0]}, None, "x should have the columns x, k, got x"),
        ({"x": [1.0], "k": [1.0], "q": [0.0]}, None, "x should have the columns x, k, got x, k, q"),
    ],
)
def test_bad_data_are_named_at_the_door(data, mask, words):
    with pytest.raises(ValueError, match=words):
        compiled(ik.parse(TWO)).rows(data, mask)


@pytest.mark.parametrize(
    ("family", "value"),
    [
        ("Bernoulli(1/2)", 2),
        ("Categorical(1/2, 1/2)", 0),
        ("Categorical(1/2, 1/2)", 3),
        ("Beta(1, 1)", 1),
        ("Beta(1, 1)", 0),
        ("Binomial(3, 1/2)", 4),
    ],
)
def test_values_outside_a_support_are_refused(family, value):
    c = compiled(ik.parse(f"z ~ Normal(0, 1); observe x ~ {family}"))
    with pytest.raises(
        ValueError, match=f"column x should hold values of {family.split('(')[0]} .*, got {value}"
    ):
        c.rows([[float(value)]])


def test_every_parameter_needs_a_value_inside_its_domain():
    model = ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, s)")
    with pytest.raises(ValueError, match="every parameter needs a value; missing: s"):
        compiled(model, at={"w": 1})
    with pytest.raises(ValueError, match="at for s should be positive, got 0"):
        compiled(model, at={"w": 1, "s": 0})


def test_latents_of_the_wrong_width_are_refused():
    c = compiled(wide())
    with pytest.raises(ValueError, match=r"z's last axis should have 3 latents, got shape \(1, 2\)"):
        c.log_likelihood(torch.tensor(ROW), torch.zeros(1, 2))


def test_logarithms_are_taken_apart():
    z, s = sympy.Symbol("z", real=True), sympy.Symbol("s", positive=True)
    assert log_of(sympy.exp(z)) == z
    assert log_of(s**3) == 3 * sympy.log(s)
    assert log_of(s * sympy.exp(z)) == sympy.log(s) + z
    for value in (-900.0, 0.3, 900.0):
        u = torch.tensor([[value]], dtype=torch.float64)
        c = compiled(ik.parse("z ~ Normal(0, 1); observe x ~ Bernoulli(sigmoid(z))"))
        both = [c.log_likelihood(torch.tensor([[y]]), u).item() for y in (0.0, 1.0)]
        assert both == pytest.approx([-np.logaddexp(0, value), -np.logaddexp(0, -value)], rel=1e-14)
    assert log_of_complement(sigmoid(z)) == log_of(sigmoid(-z))

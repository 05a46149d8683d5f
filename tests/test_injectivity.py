"""Inverting layer by layer, monotonicity and smoothness: each against numbers, each with functions that must fail."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sympy
from sympy import Abs, Interval, Max, Rational, S, Symbol, cos, exp, log, sin, sqrt, tan, tanh

from identkit.model.balls import ball
from identkit.model.functions import select, sigmoid
from identkit.symbolic.injectivity import on_half_line, peel, slope_sign
from identkit.symbolic.regularity import analytic, from_half_line, on_open_box, positive, regular

z, w, y = sympy.symbols("z w y", real=True)
p, q = sympy.symbols("p q", positive=True)
UNIT = Interval.open(0, 1)
HALF_LINE = Interval.open(0, S.Infinity)


def always(factor):
    return True


@pytest.mark.parametrize(
    ("summary", "inner"),
    [
        (3 * z + 7, z),
        (exp(z**2), z**2),
        (sigmoid(w * z + 1), z),
        (log(1 + exp(2 * z)), z),
        (1 / (1 + exp(-z)), z),
        (tanh(z / 2) / 3, z),
        ((z + 1) ** 3, z),
        (p**2, p),
        (sqrt(p), p),
        (p**w, p**w),
        (w**2 * z**3 + w, z),
        (z**2 + 1, z**2),
        (Abs(z), Abs(z)),
        (sin(z), sin(z)),
    ],
    ids=str,
)
def test_layers_come_off_down_to_what_is_not_one_to_one(summary, inner):
    peeled = peel(summary, y, {z, p}, always)
    assert peeled.inner == inner
    for value in (Rational(1, 3), Rational(7, 4)):
        point = {z: value, p: value, w: Rational(5, 7)}
        outer = ball(summary, point, 256)
        back = ball(peeled.inverse, {y: Rational(outer.mid().str(60, radius=False)), **point}, 256)
        assert float(abs(back - ball(inner, point, 256)).mid()) < 1e-14


def test_an_unsafe_factor_is_not_divided_by():
    assert peel(w * z, y, {z}, lambda factor: False).inner == w * z
    peeled = peel(w * z, y, {z}, always)
    assert peeled.inner == z and peeled.nonzero == (w,)


RISING = [
    (z**3 + z, S.Reals, 1),
    (-(z**3), S.Reals, -1),
    (exp(z) + z, S.Reals, 1),
    (z**2, HALF_LINE, 1),
    (z**2, Interval.open(-S.Infinity, 0), -1),
    ((z - 1) ** 2, UNIT, -1),
    (z + 1 / z, UNIT, -1),
    (z / (1 - z), UNIT, 1),
    (z - 1 / z, HALF_LINE, 1),
    (z**5 - Rational(1, 100) * z**3 + z, S.Reals, 1),
    (tanh(z) + z, S.Reals, 1),
    (p * z + z**3, S.Reals, 1),
    (w**2 * z + z**3, S.Reals, 1),
]
NOT_MONOTONE = [
    # Poles: rising everywhere, and every value taken twice or again and again.
    (z - 1 / z, S.Reals),
    (tan(z), S.Reals),
    (z + 1 / (z - Rational(1, 2)), UNIT),
    (sigmoid(z - 1 / z), S.Reals),
    (z - 1 / (exp(z) - 1), S.Reals),
    # Kinks, open or hidden, with a dead half.
    (Max(z, 0), S.Reals),
    (z + Abs(z), S.Reals),
    (sqrt(sympy.expand((z - 1) ** 2)) + z, S.Reals),
    (tanh(log(sympy.expand((z - 1) ** 2)) / 4) - (z - 2) / z, HALF_LINE),
    (Max(z, 3), UNIT),
    (z * Max(w, 0), S.Reals),
    (z**3 - z, S.Reals),
    (z**2, S.Reals),
    ((z - Rational(1, 2)) ** 2, UNIT),
    (sin(z), S.Reals),
    (w * z, S.Reals),
    (z * 0 + 3, S.Reals),
    (sin(z) ** 2 + cos(z) ** 2, S.Reals),
]


@pytest.mark.parametrize(("expression", "support", "sign"), RISING, ids=str)
def test_monotone_functions_are_found_with_their_sign(expression, support, sign):
    assert slope_sign(expression, z, support) == sign


@pytest.mark.parametrize(("expression", "support"), NOT_MONOTONE, ids=str)
def test_what_is_not_monotone_is_not_called_so(expression, support):
    assert slope_sign(expression, z, support) == 0


@pytest.mark.parametrize("seed", range(60))
def test_a_sign_is_never_contradicted_by_values(seed):
    """Random polynomials, rational functions and a few elementary ones, on three supports, against a fine grid."""
    chance = random.Random(seed)
    polynomial = sum(
        Rational(chance.randint(-4, 4), chance.randint(1, 3)) * z**i for i in range(chance.randint(2, 6))
    )
    shape = chance.choice(
        [
            lambda f: f,
            lambda f: f / (1 + z**2),
            lambda f: f + exp(z),
            lambda f: f + 3 * tanh(z),
            lambda f: 1 / f if f != 0 else f,
        ]
    )
    expression = shape(polynomial)
    support, grid = chance.choice(
        [
            (S.Reals, np.linspace(-9, 9, 4001)),
            (HALF_LINE, np.linspace(1e-3, 20, 4001)),
            (UNIT, np.linspace(1e-4, 1 - 1e-4, 2001)),
        ]
    )
    sign = slope_sign(expression, z, support)
    with np.errstate(all="ignore"):
        values = np.broadcast_to(sympy.lambdify(z, expression, "numpy")(grid), grid.shape).astype(float)
    steps = np.diff(values)
    if sign:
        assert np.all(sign * steps >= -1e-9 * (1 + np.abs(values[1:])))
    elif isinstance(expression, sympy.Poly) or expression.is_polynomial(z):  # pyright: ignore[reportAttributeAccessIssue]
        # For polynomials with rational coefficients the test is complete.
        derivative = sympy.Poly(expression, z).diff(z)
        inside = (
            [r for r in sympy.real_roots(derivative) if support.contains(r) == sympy.true]
            if derivative.degree() > 0
            else []
        )
        odd = [r for r in set(inside) if inside.count(r) % 2]
        assert odd or derivative.is_zero


def test_a_support_is_carried_by_the_assumptions_of_a_variable():
    for support in (UNIT, HALF_LINE, Interval.open(-S.Infinity, 2), Interval.open(-3, 5)):
        moved, t = on_half_line(z, z, support)
        assert t.is_positive and moved == from_half_line(support, t)
        for value in (Rational(1, 1000), Rational(1), Rational(1000)):
            assert support.contains(moved.subs(t, value)) == sympy.true
    assert on_half_line(z, z, S.Reals) == (z, z)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (1 / z + tan(w), True),
        (exp(sin(z)) / (z**2 - w), True),
        (log(1 + z**2), True),
        (log(3 * z - w), True),
        (sqrt(2 + sin(z) ** 2), True),
        (select(Symbol("k", integer=True), z, w), True),
        (Abs(z), False),
        (Max(z, w), False),
        (sympy.sign(z), False),
        (sympy.floor(z), False),
        (sympy.Heaviside(z), False),
        (sympy.Function("f")(z), False),
        (log(z**2), False),
        (sqrt(z**2 - 2 * z + 1), False),
        (sqrt(1 + 1 / z**2), False),
        (tanh(log(z**2 - 2 * z + 1) / 4), False),
    ],
    ids=str,
)
def test_analytic_knows_hidden_kinks(expression, expected):
    assert analytic(expression) is expected


def test_a_kink_in_one_symbol_is_none_in_another():
    assert (
        analytic(w * Abs(z), of={w})
        and not analytic(w * Abs(z), of={z})
        and not analytic(Max(w * z, 0), of={w})
    )


def test_a_domain_can_make_an_argument_of_log_positive():
    odds = log(z / (1 - z**2))
    assert not analytic(odds) and analytic(odds, {z: UNIT})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (z**3, True),
        (1 / (1 + z**2), True),
        (1 / z, False),
        (1 / p, True),
        (tan(z), False),
        (log(p), True),
        (sqrt(z), False),
    ],
    ids=str,
)
def test_regular_means_no_poles(expression, expected):
    assert regular(expression) is expected


def test_regular_in_one_unknown_leaves_the_others_alone():
    assert regular(z / w, z) and not regular(z / w)


@pytest.mark.parametrize(
    "expression", [1 - tanh(z), 1 - sigmoid(z), sigmoid(z) / (1 + p), 1 + z**2, select(z, 1, p)], ids=str
)
def test_positive_expressions_are_seen(expression):
    assert positive(expression)


@pytest.mark.parametrize("expression", [z, z**2, 1 - z, p - 1, select(z, 1, w), z**2 - z], ids=str)
def test_positive_is_not_guessed(expression):
    assert not positive(expression)


def test_moving_onto_the_box_keeps_the_range():
    domains = {p: UNIT, q: HALF_LINE, z: S.Reals}
    moved = on_open_box(p * (1 - p) * q + z, domains)
    assert positive(on_open_box(p * (1 - p) * q, domains)) and moved.has(z)

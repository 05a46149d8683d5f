"""Balls contain the truth (mpmath at 60 digits), and say nothing where nothing can be said."""

from __future__ import annotations

from fractions import Fraction

import flint
import mpmath
import pytest
import sympy
from flint import arb
from sympy import Abs, Max, Min, Rational, Symbol, exp, log, sqrt

from identkit.model.balls import (
    Balls,
    ball,
    excludes_zero,
    nonzero,
    run,
    run_or_nan,
    to_ball,
)
from identkit.model.functions import select, sigmoid, xlogy
from identkit.model.tape import Algebra, Tape

z = Symbol("z", real=True)
p = Symbol("p", positive=True)
k = Symbol("k", integer=True)

# expression, and the same in mpmath
FUNCTIONS = {
    "rational function": (
        (3 * z**2 - Rational(1, 7)) / (2 + z**4),
        lambda v: (3 * v**2 - mpmath.mpf(1) / 7) / (2 + v**4),
    ),
    "negative power": ((1 + z**2) ** -3, lambda v: (1 + v**2) ** -3),
    "root": (sqrt(2 + z**2), lambda v: mpmath.sqrt(2 + v**2)),
    "cube root": ((z**2 + 1) ** Rational(2, 3), lambda v: mpmath.power(v**2 + 1, mpmath.mpf(2) / 3)),
    "exp log": (exp(z) * log(3 + z**2), lambda v: mpmath.exp(v) * mpmath.log(3 + v**2)),
    "general power": ((2 + z**2) ** z, lambda v: (2 + v**2) ** v),
    "trigonometry": (
        sympy.sin(z) + sympy.cos(2 * z) * sympy.tan(z),
        lambda v: mpmath.sin(v) + mpmath.cos(2 * v) * mpmath.tan(v),
    ),
    "hyperbolic": (sympy.tanh(z) - sympy.cosh(z), lambda v: mpmath.tanh(v) - mpmath.cosh(v)),
    "sigmoid": (sigmoid(z), lambda v: 1 / (1 + mpmath.exp(-v))),
    "loggamma": (sympy.loggamma(2 + z**2), lambda v: mpmath.loggamma(2 + v**2)),
    "erf": (sympy.erf(z), mpmath.erf),
    "kinks": (Abs(z) + Max(z, 1) - Min(z, 0, -1), lambda v: abs(v) + max(v, 1) - min(v, 0, -1)),
    "sign": (sympy.sign(z) * z, abs),
    "constants": (sympy.pi * z + sympy.E, lambda v: mpmath.pi * v + mpmath.e),
    "select": (select(2, 1, z, 3), lambda v: v),
    "xlogy": (xlogy(z**2, 3 + z**2), lambda v: v**2 * mpmath.log(3 + v**2)),
}
VALUES = [Rational(-7, 3), Rational(1, 97), Rational(5, 2), Rational(30)]


def truth(ball_):
    """The ends of a ball, in mpmath."""
    with flint.ctx.workprec(400):
        mid, radius = ball_.mid().str(80, radius=False), ball_.rad().str(80, radius=False)
    return mpmath.mpf(mid), mpmath.mpf(radius)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("precision", [64, 128, 256])
def test_balls_contain_the_value(name, precision):
    expression, oracle = FUNCTIONS[name]
    for value in VALUES:
        with mpmath.workdps(100):
            mid, radius = truth(ball(expression, {z: value}, precision))
            expected = mpmath.mpf(oracle(mpmath.mpf(value.p) / value.q))
            assert abs(mid - expected) <= radius + abs(expected) * mpmath.mpf(10) ** -75
            assert radius <= mpmath.ldexp(1 + abs(expected), -precision + 24)


def test_exact_numbers_come_in_exactly():
    with flint.ctx.workprec(200):
        third = Rational(1, 3)
        assert to_ball(third).overlaps(arb(1) / 3) and to_ball(Fraction(1, 3)).overlaps(arb(1) / 3)
        assert float(to_ball(third).rad()) < 1e-55
        assert to_ball(0.1) == arb(0.1) and to_ball(7) == arb(7)
        assert to_ball(sqrt(2)).contains(arb(2).sqrt().mid())


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        (log(z), {z: -1}),
        (sqrt(z), {z: -1}),
        (z ** Rational(1, 3), {z: -8}),
        (1 / z, {z: 0}),
        (sympy.loggamma(z), {z: 0}),
        (z, {}),
    ],
    ids=str,
)
def test_what_has_no_real_value_is_no_finite_ball(expression, values):
    (value,) = run_or_nan(Tape([expression]), {s: Rational(v) for s, v in values.items()}, 128)
    assert not value.is_finite() and not excludes_zero(value)


def test_run_asks_for_every_symbol():
    with pytest.raises(KeyError):
        run(Tape([z + p]), {z: Rational(1)})


def test_select_takes_whole_numbers_in_range_only():
    expression = select(k, 10, 20)
    assert float(ball(expression, {k: Rational(2)})) == 20
    for state in (0, 3):
        with pytest.raises(ValueError, match=r"should be in 1\.\.2"):
            ball(expression, {k: Rational(state)})


def test_xlogy_of_nothing_is_nothing():
    assert ball(xlogy(k, p), {k: Rational(0), p: Rational(1, 2)}) == 0
    n = Symbol("n", integer=True)
    (value,) = run(Tape([xlogy(n, z)]), {n: Rational(0), z: Rational(0)})
    assert value == 0


def test_nonzero_proves_and_never_guesses():
    assert nonzero(sqrt(2) + sqrt(3) - sqrt(5 + 2 * sqrt(6)) + Rational(1, 10**200))
    assert not nonzero(sqrt(2) + sqrt(3) - sqrt(5 + 2 * sqrt(6)))
    assert not nonzero(exp(z) - 1, {z: Rational(0)})
    assert nonzero(exp(z) - 1, {z: Rational(1, 10**90)})
    assert not nonzero(log(z), {z: Rational(-1)})
    assert not nonzero(sympy.Piecewise((1, z > 0), (2, True)), {z: Rational(1)})


def test_excludes_zero():
    assert excludes_zero(arb(1)) and excludes_zero(arb(-1, 0.5))
    assert not excludes_zero(arb(0)) and not excludes_zero(arb(1, 2)) and not excludes_zero(arb.nan())
    assert not excludes_zero(arb("inf"))


def test_the_working_precision_is_given_back():
    before = flint.ctx.prec
    ball(exp(z), {z: Rational(1)}, 512)
    run_or_nan(Tape([log(z)]), {z: Rational(-1)}, 512)
    assert flint.ctx.prec == before


def test_a_common_subexpression_is_computed_once():
    class Counting(Balls):
        calls = 0

        def call(self, function, arguments):
            type(self).calls += 1
            return super().call(function, arguments)

    tape = Tape([exp(z) + 1, exp(z) * 2, log(1 + exp(z))])
    tape.run({z: arb(0)}, Counting())
    assert Counting.calls == 2 and len(tape) == 3
    assert isinstance(Counting(), Algebra)


def test_what_is_not_of_the_notation_is_refused():
    for expression in (sympy.Integral(z, z), sympy.Piecewise((1, z > 0), (2, True)), sympy.I * z):
        with pytest.raises(NotImplementedError, match="is not part of the notation"):
            Tape([expression])
    with pytest.raises(NotImplementedError, match="no ball arithmetic"):
        ball(sympy.floor(z), {z: Rational(1, 2)})

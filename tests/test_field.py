"""`vanishes` never says that something is 0 which is not; and proves the identities that models need."""

from __future__ import annotations

import random

import pytest
import sympy
from sympy import Abs, Max, Min, Rational, S, Symbol, cos, exp, log, pi, sin, sqrt, tan, tanh

from identkit.model.balls import nonzero
from identkit.model.functions import select, sigmoid, xlogy
from identkit.symbolic.field import Kernels, nonzero_point, points, random_point, some_point, vanishes

z, w, u = sympy.symbols("z w u", real=True)
p, q = sympy.symbols("p q", positive=True)
k = Symbol("k", integer=True, nonnegative=True)

IDENTITIES = [
    sin(z) ** 2 + cos(z) ** 2 - 1,
    sin(2 * z) - 2 * sin(z) * cos(z),
    cos(z + w) - cos(z) * cos(w) + sin(z) * sin(w),
    tan(z) * cos(z) - sin(z),
    tanh(z) - 2 * sigmoid(2 * z) + 1,
    sigmoid(z) + sigmoid(-z) - 1,
    1 / (1 + exp(-z)) - sigmoid(z),
    sympy.cosh(z) ** 2 - sympy.sinh(z) ** 2 - 1,
    exp(z + w) - exp(z) * exp(w),
    exp(z / 2) ** 2 - exp(z),
    exp(z / (1 + w**2)) * exp(-z / (w**2 + 1)) - 1,
    exp(z / (1 + sqrt(2))) ** 2 - exp(2 * z / (1 + sqrt(2))),
    exp(z / pi) * exp(-z / pi + w) - exp(w),
    2**z - exp(z * log(2)),
    log(6) - log(2) - log(3),
    log(p * (1 + z**2)) - log(p) - log(1 + z**2),
    log(z**4 + 2 * z**2 + 1) - 2 * log(z**2 + 1),
    log(p**w) - w * log(p),
    xlogy(k, p) - k * log(p),
    Abs(z * w) - Abs(z) * Abs(w),
    Abs(z - w) - Abs(w - z),
    Abs(z) ** 2 - z**2,
    Abs(1 - cos(z)) ** 2 - (1 - cos(z)) ** 2,
    sqrt(sympy.expand((z - 1) ** 2)) - Abs(z - 1),
    sqrt(p * z**2) - sqrt(p) * Abs(z),
    (z**2) ** Rational(1, 4) - sqrt(Abs(z)),
    sqrt(3 + 2 * sqrt(2)) - 1 - sqrt(2),
    sqrt(pi * z**2) - sqrt(pi) * Abs(z),
    Max(z, w) + Min(z, w) - z - w,
    Max(z, 0) - (z + Abs(z)) / 2,
    Abs(exp(z) * exp(-z) - 1),
    (z + w) ** 3 - z**3 - 3 * z**2 * w - 3 * z * w**2 - w**3,
    1 / (z - w) + 1 / (w - z),
]

NOT_ZERO = [
    sqrt(z**2) - z,
    Abs(z) / z - 1,
    sqrt(sympy.expand((z - 1) ** 2)) - z + 1,
    sqrt(z**2 * w**2) - z * w,
    # The factors of 1 − cos z over exp(iz) are not real: their moduli may not be shared out.
    Abs(1 - cos(z)) + 1 - cos(z),
    Abs(1 - cos(z)) - 1 + cos(z) + Rational(1, 10**30),
    Abs(sin(2 * z)) - 2 * Abs(sin(z)) * cos(z),
    Abs(sin(z)) - sin(z),
    Abs(sin(z) * cos(z)) - sin(2 * z) / 2,
    Abs(tan(z)) - tan(z),
    sqrt(cos(z) ** 2) - cos(z),
    # Whole numbers in the exponent let the base be negative.
    (-1) ** k - 1,
    (-2) ** k - 2**k,
    z**k - Abs(z) ** k,
    cos(z) ** 2 - sin(z) ** 2,
    tanh(z) - sigmoid(2 * z),
    exp(z) - exp(w),
    exp(sqrt(2) * z) - exp(z) ** Rational(7, 5),
    Max(z, 0) - z,
    Max(z, w) - Max(z, u),
    select(k, z, w) - z,
    log(2) / log(3) - Rational(63092975357, 10**11),
    sympy.E - Rational(2718281828, 10**9),
    pi - Rational(355, 113),
    sqrt(2) + sqrt(3) - sqrt(5 + 2 * sqrt(6)) + Rational(1, 10**60),
    Rational(1, 10**300),
    S.NaN,
    S.ComplexInfinity,
]


@pytest.mark.parametrize("expression", IDENTITIES, ids=str)
def test_identities_are_proved(expression):
    assert vanishes(expression)


@pytest.mark.parametrize("expression", NOT_ZERO, ids=str)
def test_what_is_not_zero_never_vanishes(expression):
    assert not vanishes(expression)


@pytest.mark.parametrize("expression", NOT_ZERO[:-2], ids=str)
def test_the_kernels_alone_never_make_something_nonzero_vanish(expression):
    """Without the quick refutation at a point, which would hide a false identity of the algebra."""
    assert Kernels().numerator(expression) != 0


def tree(chance, depth):
    """A random expression of z and w with kinks, roots, exponentials and trigonometry."""
    if depth == 0:
        return chance.choice([z, w, p, Rational(chance.randint(-3, 3)), Rational(1, 2)])
    one, two = tree(chance, depth - 1), tree(chance, depth - 1)
    return chance.choice(
        [
            one + two,
            one - two,
            one * two,
            one**2,
            Abs(one),
            exp(one),
            cos(one),
            sin(one),
            sigmoid(one),
            Max(one, two),
            sqrt(sympy.expand(one**2)),
            log(1 + one**2),
            one / (1 + two**2),
        ]
    )


REWRITINGS = [
    lambda e, a: e.rewrite(sympy.exp),
    lambda e, a: sympy.expand(e + a) - a,
    lambda e, a: e * (1 + a**2) / (1 + a**2),
    lambda e, a: sqrt(sympy.expand(e**2)),
    lambda e, a: -sympy.expand(-e),
    lambda e, a: log(exp(e)),
    lambda e, a: e + sin(a) ** 2 + cos(a) ** 2 - 1,
    lambda e, a: e + 2 * Max(a, 0) - a - Abs(a),
    lambda e, a: Abs(e),
    lambda e, a: 1 - (1 - e),
]


@pytest.mark.parametrize("seed", range(40))
def test_the_algebra_never_contradicts_balls(seed):
    """e minus a rewriting of e, right or wrong: if the kernels say 0, no point may say otherwise."""
    chance = random.Random(seed)
    expression, other = tree(chance, 2), tree(chance, 1)
    gap = expression - chance.choice(REWRITINGS)(expression, other)
    if gap.has(S.NaN, S.ComplexInfinity, S.Infinity) or gap.count_ops() > 120:
        pytest.skip("the tree is no number, or too large to be quick")
    if Kernels().numerator(gap) == 0:
        for attempt in range(1, 13):
            assert not nonzero(gap, some_point(gap.free_symbols, attempt))
            assert not nonzero(gap, {s: v * 7 for s, v in some_point(gap.free_symbols, attempt).items()})


@pytest.mark.parametrize(
    "expression",
    [
        sigmoid(10**20 * z / 7) - sigmoid(z),
        exp(10**9 * z) + exp(z) - exp(Rational(1, 10**9) * z),
        (1 + z + w) ** 3000 - (1 + z) ** 3000,
        log(Rational((10**40 + 121) * (10**41 + 109), 7)) - log(5),
        cos(10**6 * z) - cos(z),
    ],
    ids=["sigmoid", "exp", "power", "log", "cos"],
)
def test_large_numbers_do_not_become_large_degrees(expression):
    assert Kernels().numerator(expression) != 0 and not vanishes(expression)
    assert vanishes(expression + exp(z) ** 2 - exp(2 * z) - expression)


def test_linear_relations_survive_a_common_denominator():
    slopes = [1 / (1 + z**2), 2 / (1 + z**2), exp(z) / (1 + z**2)]
    one, two, three = Kernels().numerators(slopes)
    assert sympy.expand(two - 2 * one) == 0 and sympy.expand(three - one) != 0


def test_a_nonzero_point_lies_in_the_domain_and_proves_its_claim():
    domains = {
        z: S.Reals,
        p: sympy.Interval.open(0, S.Infinity),
        k: S.Naturals0,
        q: sympy.Interval.open(0, 1),
    }
    expression = z * p * q * (k + 1)
    point = nonzero_point(expression, domains)
    assert set(point) == {z, p, q, k} and all(domains[s].contains(v) == sympy.true for s, v in point.items())  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess]
    assert nonzero(expression, point)
    assert nonzero_point(sin(z) ** 2 + cos(z) ** 2 - 1, domains) is None


@pytest.mark.parametrize(
    "domain",
    [
        S.Reals,
        sympy.Interval.open(0, S.Infinity),
        sympy.Interval.open(-S.Infinity, -2),
        sympy.Interval(0, 1),
        sympy.Interval.open(Rational(1, 3), Rational(1, 2)),
        sympy.FiniteSet(0, 1),
        sympy.Range(1, 4),
        S.Naturals0,
    ],
    ids=str,
)
def test_random_points_lie_in_the_domain_and_vary(domain):
    drawn = [random_point({z: domain}, random.Random(seed))[z] for seed in range(30)]
    assert all(domain.contains(value) == sympy.true for value in drawn) and len(set(drawn)) > 1


def test_points_are_the_same_for_the_same_seed():
    domains = {z: S.Reals, w: S.Reals}
    assert (
        list(points(domains, 5, seed=1))
        == list(points(domains, 5, seed=1))
        != list(points(domains, 5, seed=2))
    )

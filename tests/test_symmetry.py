"""Null directions and left inverses: each against linear algebra at random numbers, over ℚ and with nasty constants."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sympy
from sympy import Abs, Max, Rational, exp, log, sin, sqrt

from identkit.model.functions import sigmoid
from identkit.symbolic.field import vanishes
from identkit.symbolic.symmetry import left_inverse, null_directions
from identkit.symbolic.wording import field_in_words

z1, z2, z3, w, v = sympy.symbols("z1 z2 z3 w v", real=True)
s = sympy.Symbol("s", positive=True)
Z = (z1, z2, z3)


def moved_by(expression, direction, t):
    return expression.subs({z: z + t * entry for z, entry in direction.items()}, simultaneous=True)


FOUND = [
    ([z1 + z2], (z1, z2), 1),
    ([w * z1 + v * z2], (z1, z2), 1),
    ([w * z1 + v * z2, 2 * w * z1 + 2 * v * z2], (z1, z2), 1),
    ([w * z1 + v * z2, v * z1 + w * z2], (z1, z2), 0),
    ([exp(z1 + z2), sigmoid(z3)], Z, 1),
    ([sin(z1 - z2) ** 2], (z1, z2), 1),
    ([Max(z1 - z2, 0), Abs(z1 - z2)], (z1, z2), 1),
    ([z1 * z2], (z1, z2), 0),
    ([Max(z1, z2)], (z1, z2), 0),
    ([w], (z1, z2), 2),
    ([], (z1, z2), 2),
    ([sqrt(2) * z1 + sqrt(3) * z2, sqrt(6) * z1 + 3 * z2], (z1, z2), 1),
    ([sqrt(2) * z1 + sqrt(3) * z2, sqrt(5) * z1 + 3 * z2], (z1, z2), 0),
    ([sympy.E * z1 + exp(2) * z2, z1 + sympy.E * z2], (z1, z2), 1),
    ([log(2) * z1 + log(4) * z2, z1 + 2 * z2], (z1, z2), 1),
    ([z1 + z2, z1 + (1 + Rational(1, 10**30)) * z2], (z1, z2), 0),
    ([z1 + z2, Rational(1, 10**30) * (z1 + z2)], (z1, z2), 1),
    ([Rational(1, 10**30) * z1], (z1,), 0),
    ([sin(w) * z1 + sympy.cos(w) * z2, sympy.cos(w) * z1 - sin(w) * z2], (z1, z2), 0),
    ([(sin(w) ** 2 + sympy.cos(w) ** 2 - 1) * z1 + z2], (z1, z2), 1),
    ([(z1 + z2) / (1 + (z1 + z2) ** 2) * s], (z1, z2), 1),
]


@pytest.mark.parametrize(("summary", "latents", "count"), FOUND, ids=str)
def test_null_directions_are_found_all_and_are_null(summary, latents, count):
    directions = null_directions(summary, latents)
    assert len(directions) == count
    t = sympy.Symbol("t", real=True)
    for direction in directions:
        assert set(direction) <= set(latents) and any(entry != 0 for entry in direction.values())
        assert all(vanishes(moved_by(e, direction, t) - e) for e in summary)


@pytest.mark.parametrize("seed", range(25))
def test_integer_matrices_agree_with_exact_rank(seed):
    chance = random.Random(seed)
    height, width = chance.randint(1, 3), chance.randint(2, 3)
    matrix = sympy.Matrix(height, width, lambda i, j: chance.choice([0, 0, 1, -1, 2, Rational(1, 3)]))
    if chance.random() < 0.5:
        matrix = matrix.col_join(sympy.ones(1, height) * matrix * Rational(10**20, 7))
    latents = Z[:width]
    shape = chance.choice([lambda e: e, sigmoid, lambda e: e**3 + e, exp])
    directions = null_directions([shape(e) for e in matrix * sympy.Matrix(latents)], latents)
    assert len(directions) == width - matrix.rank()
    for direction in directions:
        assert matrix * sympy.Matrix([direction.get(z, 0) for z in latents]) == sympy.zeros(matrix.rows, 1)


def test_a_step_function_is_not_translation_invariant():
    """Its slope is 0 wherever it has one; |z − 1|/(z − 1) still tells the sides apart."""
    steps = [sqrt(z1**2 - 2 * z1 + 1) / (z1 - 1), Abs(z1) / z1, sympy.sign(z1)]
    for step in steps:
        assert null_directions([step], (z1,)) == []


def test_a_slope_that_is_zero_in_disguise_is_seen_through():
    zero = sin(w) ** 2 + sympy.cos(w) ** 2 - 1
    assert null_directions([zero * z1], (z1,)) == [{z1: 1}]


@pytest.mark.parametrize("seed", range(25))
def test_left_inverse_gives_back_exactly_what_is_determined(seed):
    chance = random.Random(100 + seed)
    matrix = sympy.Matrix(chance.randint(1, 4), 3, lambda i, j: chance.choice([0, 0, 1, -2, Rational(5, 7)]))
    found = left_inverse(matrix.tolist())
    null = matrix.nullspace()
    determined = [j for j in range(3) if all(vector[j] == 0 for vector in null)]
    assert sorted(found) == determined
    for column, coefficients in found.items():
        assert sympy.Matrix([coefficients]) * matrix == sympy.eye(3).row(column)


def test_left_inverse_with_symbols_is_the_inverse():
    rows = [[w, v], [v, w], [w + v, w + v]]
    found = left_inverse(rows)
    numbers = {w: Rational(3, 7), v: Rational(-2, 5)}
    for column, coefficients in found.items():
        row = sympy.Matrix([coefficients]).subs(numbers) * sympy.Matrix(rows).subs(numbers)
        assert row == sympy.eye(2).row(column)


def test_numerical_null_space_agrees_at_random_loadings():
    rng = np.random.default_rng(0)
    loadings = sympy.Matrix(3, 3, lambda i, j: Rational(int(rng.integers(-5, 6)), 3))
    loadings[:, 2] = loadings[:, 0] - 2 * loadings[:, 1]
    (direction,) = null_directions(list(loadings * sympy.Matrix(Z)), Z)
    vector = np.array([float(direction[z]) for z in Z])
    assert np.abs(np.array(loadings, dtype=float) @ vector).max() < 1e-12


def test_words():
    assert field_in_words({z1: sympy.S.One, z2: -w, z3: w + v}) == "d/dz1 - w*d/dz2 + (v + w)*d/dz3"

"""Brute force for the tests of the marginal law: sums over every state, quadrature, exact and float ranks."""

from __future__ import annotations

import itertools
import math
import random

import flint
import numpy as np
import sympy
from sympy import Rational

import identkit as ik
from identkit.model.tape import Tape


def lines(*statements):
    return "; ".join(itertools.chain(*[[s] if isinstance(s, str) else s for s in statements]))


def made(model):
    return ik.parse(model) if isinstance(model, str) else model


# A brute-force interpreter: the density of everything at once, from the families' definitions


def poisson(rate, x):
    return np.exp(-rate) * rate**x / math.factorial(x)


MASS = {
    "Bernoulli": lambda a, x: a[0] if x == 1 else 1 - a[0],
    "Categorical": lambda a, x: a[int(x) - 1],
    "Binomial": lambda a, x: (
        0 if x > round(a[0]) else math.comb(round(a[0]), x) * a[1] ** x * (1 - a[1]) ** (round(a[0]) - x)
    ),
    "Poisson": lambda a, x: poisson(a[0], x),
    "Normal": lambda a, x: np.exp(-(((x - a[0]) / a[1]) ** 2) / 2) / (a[1] * math.sqrt(2 * math.pi)),
}


class Brute:
    """``p(x; θ)`` by adding up over all states of the latents, and over quadrature nodes of the others."""

    def __init__(self, model, nodes=None):
        self.parameters = list(model.parameters)
        self.symbols = [*self.parameters, *model.latent_symbols, *model.observation_symbols]
        self.latents, self.observations = model.latents, model.observations
        self.nodes = nodes or {}
        select = lambda k, *choices: choices[round(float(np.real(k))) - 1]
        functions = [{"select": select, "sigmoid": lambda u: 1 / (1 + np.exp(-u))}, "numpy"]
        self.arguments = {
            s.symbols: sympy.lambdify(self.symbols, list(s.family.arguments), functions)
            for s in [*model.latents, *model.observations]
            if s.family.name != "Mixture"
        }
        self.mixtures = {
            s.symbols: sympy.lambdify(
                self.symbols, [s.family.weights, [c.arguments for c in s.family.components]]
            )
            for s in [*model.latents, *model.observations]
            if s.family.name == "Mixture"
        }

    def probability(self, theta, x):
        env = dict.fromkeys(self.symbols, 0) | dict(zip(self.parameters, theta, strict=True))
        env |= dict(zip([s for o in self.observations for s in o.symbols], x, strict=True))
        return self.over(env, list(self.latents))

    def over(self, env, latents):
        if not latents:
            return math.prod(self.mass(o, env, env[o.symbols[0]]) for o in self.observations)
        first, *rest = latents
        (symbol,) = first.symbols
        total = 0
        if symbol in self.nodes:
            points, weights = self.nodes[symbol](*self.arguments[first.symbols](*env.values()))
            return sum(w * self.over(env | {symbol: z}, rest) for z, w in zip(points, weights, strict=True))
        for value in values(first.family):
            mass = self.mass(first, env, value)
            total += mass * self.over(env | {symbol: value}, rest) if mass != 0 else 0
        return total

    def mass(self, statement, env, value):
        if statement.symbols in self.mixtures:
            weights, arguments = self.mixtures[statement.symbols](*env.values())
            kind = MASS[statement.family.components[0].name]
            return sum(w * kind(a, value) for w, a in zip(weights, arguments, strict=True))
        return MASS[statement.family.name](self.arguments[statement.symbols](*env.values()), value)

    def table(self, theta):
        cells = itertools.product(*[values(o.family) for o in self.observations])
        return np.array([self.probability(theta, cell) for cell in cells])


def values(family, most=60):
    family = family.components[0] if family.name == "Mixture" else family
    if family.name == "Bernoulli":
        return [0, 1]
    if family.name == "Categorical":
        return list(range(1, len(family.arguments) + 1))
    if family.name == "Binomial" and family.arguments[0].is_Integer:
        return list(range(int(family.arguments[0]) + 1))
    return list(range(most))


# Numbers for κ


def random_point(model, seed):
    chance = random.Random(seed)
    return {s: Rational(chance.randint(10, 45), 97) for s in model.parameters}


class Tangents:
    """Rational numbers with their gradients: (value, [∂₁, …, ∂ₙ])."""

    def __init__(self, size):
        self.zero = [flint.fmpq(0)] * size

    def constant(self, value):
        return flint.fmpq(int(value.p), int(value.q)), self.zero

    def add(self, terms):
        return sum((v for v, _ in terms), flint.fmpq(0)), [
            sum(c, flint.fmpq(0)) for c in zip(*[d for _, d in terms], strict=True)
        ]

    def multiply(self, factors):
        value, slope = factors[0]
        for other, step in factors[1:]:
            value, slope = value * other, [value * b + other * a for a, b in zip(slope, step, strict=True)]
        return value, slope

    def power(self, base, exponent):
        n, (value, slope) = int(exponent), base
        assert n == exponent
        return value**n, [n * value ** (n - 1) * d if d else d for d in slope]

    def pi(self):
        raise ArithmeticError("π is not rational")

    def call(self, function, arguments):
        raise ArithmeticError(f"{function} has no rational values")


def exact_rank(expressions, point):
    algebra = Tangents(len(point))
    ones = np.eye(len(point), dtype=int).tolist()
    values = {
        s: (algebra.constant(Rational(v))[0], list(map(flint.fmpq, e)))
        for (s, v), e in zip(point.items(), ones, strict=True)
    }
    rows = [slope for _, slope in Tape(list(expressions)).run(values, algebra)]
    return flint.fmpq_mat(rows).rank() if rows else 0


class Kappa:
    """κ and its Jacobian in floats (complex steps need no symbolic derivatives)."""

    def __init__(self, expressions, parameters):
        self.call = sympy.lambdify(list(parameters), list(expressions), "numpy", cse=True)

    def __call__(self, theta):
        return np.array(self.call(*theta), dtype=complex if np.iscomplexobj(theta) else float)

    def jacobian(self, theta):
        return steps(self, theta)


def steps(function, theta):
    h = 1e-30
    columns = [np.imag(function(theta + 1j * h * e)) / h for e in np.eye(len(theta))]
    return np.stack(columns, axis=1)


def float_rank(jacobian):
    singular = np.linalg.svd(jacobian / np.linalg.norm(jacobian, axis=0).clip(1e-300), compute_uv=False)
    return int((singular > 1e-9 * singular[0]).sum())


def along_fibre(kappa, theta, distance=0.05):
    """A point with the same κ, reached along a null direction and pulled back by Newton's method."""
    target = kappa(theta)
    null = np.linalg.svd(kappa.jacobian(theta))[2][-1]
    moved = theta + distance * null
    for _ in range(30):
        moved = moved - np.linalg.pinv(kappa.jacobian(moved), rcond=1e-9) @ (kappa(moved) - target)
    return moved

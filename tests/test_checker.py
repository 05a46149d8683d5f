"""Adversarial models for `check` of latents: the truth of each is known, and a wrong level is the one failure that counts.

UNKNOWN is never wrong; nor is LOCAL, said to be a lower bound, of a latent that is GLOBAL. `DECIDED` must be decided.
A last part draws random models with kinks, poles and periods, and looks for contradictions in float64.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import sympy
from scipy.optimize import least_squares
from sympy import Abs, Max, Min, Rational, cos, exp, log, sin, sqrt, tanh

import identkit as ik
from identkit.dispatch import check
from identkit.model.families import Bernoulli, Beta, Binomial, MvNormal, Normal, Poisson
from identkit.model.functions import sigmoid
from identkit.model.model import Model
from identkit.symbolic.checker import check_latents
from identkit.verdict import Level

C, P, L, G, U = Level.CONSTANT, Level.PARTIAL, Level.LOCAL, Level.GLOBAL, Level.UNKNOWN


def sound(verdict, truth):
    """The latents whose level contradicts the truth."""
    return [
        name
        for name, level in verdict.latents.items()
        if level not in (truth[name], U)
        and not (level is L and truth[name] is G and name in verdict.at_least)
    ]


def one(mean):
    """One standard normal latent seen through a mean."""
    return f"z ~ Normal(0, 1); observe x ~ Normal({mean}, 1)"


def two(*means):
    observed = "; ".join(f"observe x{i} ~ Normal({mean}, 1)" for i, mean in enumerate(means))
    return f"z[2] ~ Normal(0, 1); {observed}"


def coins(mean):
    return f"z[2] ~ Bernoulli(1/2); observe x ~ Normal({mean}, 1)"


def both(level):
    return {"z[1]": level, "z[2]": level}


DECIDED = {
    # linear maps, generic and not
    "scaled": (one("w*z"), {"z": G}),
    "tiny": (one("1e-30*z"), {"z": G}),
    "absent": (one("0*z"), {"z": C}),
    "power zero": (one("z^0"), {"z": C}),
    "sum": (two("z[1] + z[2]"), both(P)),
    "sum under exp": (two("exp(z[1] + z[2])"), both(P)),
    "difference under cos": (two("cos(z[1] - z[2])"), both(P)),
    "one cancels": (two("sin(z[1])^2 + cos(z[1])^2 + z[2]"), {"z[1]": C, "z[2]": G}),
    "one cancels in a sum": (two("sigmoid(z[1]) + sigmoid(-z[1]) + z[2]^2"), {"z[1]": C, "z[2]": L}),
    "one seen": (two("z[1]"), {"z[1]": G, "z[2]": C}),
    "proportional rows": (two("w*z[1] + v*z[2]", "2*w*z[1] + 2*v*z[2]"), both(P)),
    "generic square": (two("w*z[1] + v*z[2]", "v*z[1] + w*z[2]"), both(G)),
    "rotation": (two("cos(a)*z[1] + sin(a)*z[2]", "-sin(a)*z[1] + cos(a)*z[2]"), both(G)),
    "nearly singular": (two("z[1] + z[2]", "z[1] + 1.000000000000000000000000000001*z[2]"), both(G)),
    "singular over big numbers": (
        two("123456789012345678901234567890*z[1] + z[2]", "z[1] + z[2]/123456789012345678901234567890"),
        both(P),
    ),
    "singular over roots": (two("sqrt(2)*z[1] + sqrt(3)*z[2]", "sqrt(6)*z[1] + 3*z[2]"), both(P)),
    "regular over roots": (two("sqrt(2)*z[1] + sqrt(3)*z[2]", "sqrt(5)*z[1] + 3*z[2]"), both(G)),
    "singular over e": (two("exp(1)*z[1] + exp(2)*z[2]", "z[1] + exp(1)*z[2]"), both(P)),
    "duplicated data": ("z ~ Normal(0, 1); observe x[3] ~ Normal(z, 1)", {"z": G}),
    "names of the checker's own": (
        "parameter kappa[2]; z ~ Normal(0, 1); observe x ~ Normal(kappa[1]*z + kappa[2], 1)",
        {"z": G},
    ),
    "a latent called t": (
        "t ~ Normal(0, 1); u ~ Normal(0, 1); observe x ~ Normal(t + u, 1)",
        {"t": P, "u": P},
    ),
    # one dimension: monotone, folded, periodic
    "cube": (one("z^3"), {"z": G}),
    "cubic": (one("z^3 + z"), {"z": G}),
    "reciprocal": (one("1/z"), {"z": G}),
    "logistic": (one("sigmoid(w*z + b)"), {"z": G}),
    "two layers": (one("tanh(3*tanh(z))"), {"z": G}),
    "square": (one("z^2"), {"z": L}),
    "even": (one("exp(w*z) + exp(-w*z)"), {"z": L}),
    "cosine": (one("cos(z)"), {"z": L}),
    "folded beta": ("z ~ Beta(1, 1); observe x ~ Normal((z - 1)^2, 1)", {"z": G}),
    # no hang: exp(-(z^3 - 1/3)^2) must not be multiplied out, and lies between 0 and 1
    "a bell beside": (
        "z ~ Uniform(1/2, 5/2); observe x ~ Bernoulli(exp(-(z^3 - 1/3)^2)/2); observe y ~ Normal(z, 1)",
        {"z": G},
    ),
    "odds": ("z ~ Beta(1, 1); observe x ~ Normal(z/(1 - z), 1)", {"z": G}),
    "variance only": ("z ~ Normal(0, 1); observe x ~ Normal(0, exp(z))", {"z": G}),
    "variance, folded": ("z ~ Normal(0, 1); observe x ~ Normal(0, exp(z^2))", {"z": L}),
    "covariance": (
        "z ~ Normal(0, 1); observe x[2] ~ MvNormal([0, 0], [[2, tanh(z)], [tanh(z), 2]])",
        {"z": G},
    ),
    # one after the other
    "triangle": (two("z[1]^3 + z[1]", "z[2]*z[1]"), both(G)),
    "triangle with exp": (two("z[1]", "z[2]*exp(z[1]) + z[2]^3"), both(G)),
    "a dependent prior": ("z ~ Normal(0, 1); w ~ Normal(z, 1); observe x ~ Normal(w, 1)", {"z": C, "w": G}),
    "correlated prior": (
        "z[2] ~ MvNormal([0, 0], [[1, 0.8], [0.8, 1]]); observe x ~ Normal(z[1], 1)",
        {"z[1]": G, "z[2]": C},
    ),
    # finite latents
    "xor": (coins("(1 - 2*z[1])*(1 - 2*z[2])"), both(P)),
    "carry": (coins("z[1] + z[2]"), both(P)),
    "binary digits": (coins("z[1] + 2*z[2]"), both(G)),
    "irrational digits": (coins("sqrt(2)*z[1] + z[2]"), both(G)),
    "generic digits": (coins("z[1] + w*z[2]"), both(G)),
    "equal in disguise": (coins("abs(z[1] - 1/2)*(1 + z[2])"), {"z[1]": C, "z[2]": G}),
    "two of three": ("k ~ Categorical(1/3, 1/3, 1/3); observe x ~ Normal(select(k, 0, 0, 1), 1)", {"k": P}),
    "generic states": ("k ~ Categorical(1/3, 1/3, 1/3); observe x ~ Normal(select(k, a, b, c), 1)", {"k": G}),
    # the prior's support
    "no third state": ("k ~ Categorical(1/2, 0, 1/2); observe x ~ Normal(select(k, 0, 0, 1), 1)", {"k": G}),
    "no odd state": ("k ~ Categorical(1/2, 0, 1/2); observe x ~ Normal(select(k, 0, 1, 0), 1)", {"k": C}),
    "a certain coin": ("k ~ Bernoulli(0); observe x ~ Normal(k, 1)", {"k": C}),
    "no count": ("k ~ Poisson(0); observe x ~ Normal(k, 1)", {"k": C}),
    "a copied coin": ("a ~ Bernoulli(1/2); b ~ Bernoulli(a); observe x ~ Normal(a - b, 1)", {"a": C, "b": C}),
    "a coin turned over": (
        "a ~ Bernoulli(1/2); b ~ Bernoulli(1 - a); observe x ~ Normal(a - b, 1)",
        {"a": G, "b": G},
    ),
    "zero in one component of the prior": (
        "k ~ Mixture([1/2, 1/2], Bernoulli(0), Bernoulli(1/2)); observe x ~ Normal(k, 1)",
        {"k": G},
    ),
    "a short component of the prior": (
        "k ~ Mixture([1/2, 1/2], Binomial(2, 0), Binomial(5, 1/2)); observe x ~ Normal(max(k, 2), 1)",
        {"k": P},
    ),
    "counts within a count": (
        "m ~ Binomial(2, 1/2); k ~ Binomial(m, 1/2); observe x ~ Normal(m*k, 1)",
        {"m": P, "k": G},
    ),
    "two counts within a coin": (
        "m ~ Bernoulli(1/2); k ~ Binomial(m, 1/2); l ~ Binomial(m, 1/2); "
        "observe x ~ Normal(2*k + l, 1); observe y ~ Normal(10*m, 1)",
        {"m": G, "k": G, "l": G},
    ),
    # counts
    "count": ("k ~ Poisson(2); observe x ~ Normal(k, 1)", {"k": G}),
    "sum of counts": ("k[2] ~ Poisson(1); observe x ~ Normal(k[1] + k[2], 1)", {"k[1]": P, "k[2]": P}),
    "size of a binomial": ("k ~ Poisson(1); observe x ~ Binomial(k, p)", {"k": G}),
    "binomial of no success": ("k ~ Poisson(1); observe x ~ Binomial(k, 0)", {"k": C}),
    "count plus one": (
        "k ~ Poisson(1); z ~ Normal(0, 1); observe y ~ Normal(k, 1); observe x ~ Normal((k + 1)*z, 1)",
        {"k": G, "z": G},
    ),
    # mixtures
    "weight": ("a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Normal(0, 1), Normal(1, 1))", {"a": G}),
    "weight of equals": (
        "a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Bernoulli(1/3), Bernoulli(1/3))",
        {"a": C},
    ),
    "weight of different sizes": (
        "a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Binomial(3, 1/2), Binomial(5, 1/2))",
        {"a": G},
    ),
    "weight of equals among three": (
        "a ~ Beta(5, 5); observe x ~ Mixture([a/2, 1/2, 1/2 - a/2], Normal(0, 1), Normal(1, 1), Normal(0, 1))",
        {"a": C},
    ),
    "weight of beta components": (
        "a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Beta(2, 1), Beta(1, 2))",
        {"a": G},
    ),
    "components that are one": (
        "b ~ Normal(0, 1); observe x ~ Mixture([1/2, 1/2], Normal(b, 1), Normal(b, 1))",
        {"b": G},
    ),
    # a finite and a continuous latent
    "a switch that is seen": (
        "k ~ Bernoulli(1/2); z ~ Normal(0, 1); observe y ~ Normal(k, 1); observe x ~ Normal(k*z, 1)",
        {"k": G, "z": P},
    ),
    "a scale that is seen": (
        "k ~ Bernoulli(1/2); z ~ Normal(0, 1); observe y ~ Normal(k, 1); observe x ~ Normal((1 + k)*z, 1)",
        {"k": G, "z": G},
    ),
}

TRICKY = {
    # poles: rising everywhere, every value taken twice
    "two branches": (one("z - 1/z"), {"z": L}),
    "two branches, squashed": (one("tanh(z - 1/z)"), {"z": L}),
    "a pole inside": ("z ~ Beta(1, 1); observe x ~ Normal(z + 1/(2*z - 1), 1)", {"z": G}),
    # kinks, open and hidden: half of the prior is dead
    "rectifier": (one("relu(z)"), {"z": P}),
    "generic rectifier": (one("relu(w*z)"), {"z": P}),
    "ceiling": (one("max(z, 3)"), {"z": P}),
    "step": (one("abs(z)/z"), {"z": P}),
    "shifted step": (one("sqrt(z^2 - 2*z + 1)/(z - 1)"), {"z": P}),
    "ramp": (one("z + abs(z)"), {"z": P}),
    "hidden ramp": (one("sqrt(z^2 - 2*z + 1) + z - 1"), {"z": P}),
    "ramp in a logarithm": (
        "z ~ Normal(0, 1); observe x ~ Normal(tanh(log(z^2 - 2*z + 1)/4)*z - z + 2, 1)",
        {"z": P},
    ),
    "absolute value": (one("abs(z)"), {"z": L}),
    "undone": (one("min(z, 1) + max(z, 1) - z"), {"z": C}),
    "zero in disguise": (one("abs(1 - cos(z)) + cos(z)"), {"z": C}),
    "a factor that is half dead": (two("z[1]", "z[2]*relu(z[1])"), {"z[1]": G, "z[2]": P}),
    "a hidden factor that is half dead": (
        two("z[1]", "z[2]*(z[1] + sqrt(z[1]^2 + 2*z[1] + 1) + 1)"),
        {"z[1]": G, "z[2]": P},
    ),
    "largest": (two("max(z[1], z[2])"), both(P)),
    # folds and periods
    "sine": (one("sin(z)"), {"z": L}),
    "circle": (one("cos(z)") + "; observe y ~ Normal(sin(z), 1)", {"z": L}),
    "two periods": (one("cos(z)") + "; observe y ~ Normal(sin(sqrt(2)*z), 1)", {"z": G}),
    "double well": (one("z^3 - z"), {"z": L}),
    "generic cubic": (one("z^3 + w*z"), {"z": L}),
    "rational fold": (one("z/(1 + z^2)"), {"z": L}),
    "product": (two("z[1]*z[2]"), both(P)),
    "ratio": (two("z[1]/z[2]"), both(P)),
    "sum of exponentials": (two("exp(z[1]) + exp(z[2])"), both(P)),
    "radius": (two("z[1]^2 + z[2]^2"), both(P)),
    "symmetric functions": (two("z[1] + z[2]", "z[1]*z[2]"), both(L)),
    "complex square": (two("z[1]^2 - z[2]^2", "2*z[1]*z[2]"), both(L)),
    "complex exponential": (two("exp(z[1])*cos(z[2])", "exp(z[1])*sin(z[2])"), {"z[1]": G, "z[2]": L}),
    "Gale and Nikaido": (two("z[1] + z[1]^3 + z[2]", "z[2] + z[2]^3 - z[1]"), both(G)),
    # mixtures whose components move
    "mirrored components": (
        "b ~ Normal(0, 1); observe x ~ Mixture([1/2, 1/2], Normal(b, 1), Normal(-b, 1))",
        {"b": L},
    ),
    "exchangeable components": (
        "b[2] ~ Normal(0, 1); observe x ~ Mixture([1/2, 1/2], Normal(b[1], 1), Normal(b[2], 1))",
        {"b[1]": L, "b[2]": L},
    ),
    "relabelled components": (
        "a ~ Beta(5, 5); b ~ Normal(0, 1); observe x ~ Mixture([a, 1-a], Normal(b, 1), Normal(-b, 1))",
        {"a": L, "b": L},
    ),
    "states of equal mixtures": (
        "k ~ Bernoulli(1/2); observe x ~ Mixture([1/2, 1/2], Normal(k, 1), Normal(1-k, 1))",
        {"k": C},
    ),
    "dependent beta components": (
        "a ~ Beta(2, 2); b ~ Beta(2, 2); observe y ~ Normal(b, 1); "
        "observe x ~ Mixture([a/2, a/2, 1-a], Beta(2, 1), Beta(1, 2), Beta(1, 1))",
        {"a": C, "b": G},
    ),
    "mixture of coins": (
        "b[2] ~ Beta(2, 2); observe x ~ Mixture([1/2, 1/2], Bernoulli(b[1]), Bernoulli(b[2]))",
        {"b[1]": P, "b[2]": P},
    ),
    # counts that are 0 with positive probability, counts that the prior pins down
    "a count as a factor": (
        "k ~ Poisson(1); z ~ Normal(0, 1); observe y ~ Normal(k, 1); observe x ~ Normal(k*z, 1)",
        {"k": G, "z": P},
    ),
    "a squared count as a factor": (
        "k ~ Poisson(1); z ~ Normal(0, 1); observe y ~ Normal(k, 1); observe x ~ Normal(k^2*z, 1)",
        {"k": G, "z": P},
    ),
    "a product of counts": ("k[2] ~ Poisson(1); observe x ~ Normal(k[1]*k[2], 1)", {"k[1]": P, "k[2]": P}),
    "incommensurable counts": (
        "k[2] ~ Poisson(1); observe x ~ Normal(k[1] + sqrt(2)*k[2], 1)",
        {"k[1]": G, "k[2]": G},
    ),
    "a falling factorial": ("k ~ Poisson(1); observe x ~ Normal(k*(k - 1)*(k - 2), 1)", {"k": P}),
    "alternating": ("k ~ Poisson(1); observe x ~ Normal((-1)^k, 1)", {"k": P}),
    "cosine of a count": ("k ~ Poisson(1); observe x ~ Normal(cos(k), 1)", {"k": G}),
    "a rate that may be 0": (
        "m ~ Bernoulli(1/2); k ~ Poisson(5*m); observe x ~ Normal(m*k, 1)",
        {"m": P, "k": G},
    ),
    "no success": ("m ~ Poisson(3); k ~ Binomial(m, 0); observe x ~ Normal(m + k, 1)", {"m": G, "k": C}),
    "a count of a count": ("m ~ Poisson(3); k ~ Poisson(m); observe x ~ Normal(k, 1)", {"m": C, "k": G}),
    "overlapping switches": (
        "k ~ Bernoulli(1/2); z ~ Normal(0, 1); observe x ~ Normal(k + z, 1)",
        {"k": P, "z": L},
    ),
    "simplex": ("p[2] ~ Dirichlet(1, 1); observe x ~ Normal(p[1] - p[2], 1)", {"p[1]": G, "p[2]": G}),
    # parameters that an equation ties are not generic; one that inequalities confine is not anywhere
    "a difference that is 0": (
        "constraint a - b = 0; z ~ Normal(0, 1); observe x ~ Normal((a - b)*z, 1)",
        {"z": C},
    ),
    "a chain of equations": (
        "constraint a - 2*b = 0; constraint b - 2*c = 0; z ~ Normal(0, 1); "
        "observe x ~ Normal(z^2 + (a - 4*c)*z, 1)",
        {"z": L},
    ),
    "states tied by an equation": (
        "constraint a = b; k ~ Bernoulli(1/2); observe x ~ Normal(select(k + 1, a, b), 1)",
        {"k": C},
    ),
    "states tied by a circle": (
        "constraint a^2 + b^2 = 1; k ~ Bernoulli(1/2); observe x ~ Normal(select(k + 1, a^2 + b^2, 1), 1)",
        {"k": C},
    ),
    "probabilities that fill one": (
        "k ~ Bernoulli(1/2); observe x ~ Categorical(p, q, r); observe y ~ Normal((p + q + r - 1)*k, 1)",
        {"k": C},
    ),
    "a singular matrix by an equation": (
        "constraint a*b = 1; z[2] ~ Normal(0, 1); "
        "observe x ~ Normal(a*z[1] + z[2], 1); observe y ~ Normal(z[1] + b*z[2], 1)",
        {"z[1]": P, "z[2]": P},
    ),
    "a coin that never falls": ("constraint p = 0; k ~ Bernoulli(p); observe x ~ Normal(k, 1)", {"k": C}),
    "a kink out of reach by an inequality": (
        "constraint w < 0; z ~ Uniform(0, 1); observe x ~ Normal(relu(z - w), 1)",
        {"z": G},
    ),
    "a fold out of reach by an inequality": (
        "constraint w < 0; z ~ Exponential(1); observe x ~ Normal((z - w)^2, 1)",
        {"z": G},
    ),
    "a hill in a gap of the prior": (
        "z ~ Mixture([1/2, 1/2], Uniform(0, 1), Uniform(2, 3)); observe x ~ Normal(relu(z - 1)*relu(2 - z), 1)",
        {"z": C},
    ),
    "a fold into a part of the prior of weight 0": (
        "z ~ Mixture([1/2, 1/2, 0], Uniform(-3, -2), Uniform(0, 1), Uniform(2, 3)); observe x ~ Normal(z^2, 1)",
        {"z": G},
    ),
    # where no two states differ in a latent alone, that the law does not mention it says nothing
    "two names of one coin": (
        "a ~ Bernoulli(1/2); b ~ Bernoulli(a); observe x ~ Normal(b, 1)",
        {"a": G, "b": G},
    ),
    "a parameter of whole numbers in a fold": (
        "parameter n in 0..1; z ~ Normal(0, 1); observe x ~ Normal(n*z, 1)",
        {"z": C},
    ),
    "a parameter that is one of two numbers": (
        "parameter a in 1..2; z ~ Normal(0, 1); observe x ~ Normal((a - 1)*(a - 2)*z, 1)",
        {"z": C},
    ),
}


@pytest.mark.parametrize("name", DECIDED)
def test_these_are_decided_and_right(name):
    text, truth = DECIDED[name]
    verdict = check(text)
    assert verdict.latents == truth
    assert verdict.certificate is not None and verdict.certificate.verify()
    assert not set(verdict.at_least) & {n for n, level in truth.items() if level is not G}


@pytest.mark.parametrize("name", TRICKY)
def test_these_are_never_wrong(name):
    text, truth = TRICKY[name]
    verdict = check(text)
    assert sound(verdict, truth) == []
    assert verdict.certificate is None or verdict.certificate.verify()
    assert U not in verdict.latents.values() or verdict.assumptions, "UNKNOWN comes with what was tried"


AT = [
    (one("w*z"), {"w": 0}, {"z": C}),
    (one("w*z"), {"w": "sqrt(2) - sqrt(3)"}, {"z": G}),
    (one("w*z"), {"w": "exp(1)^2 - exp(2)"}, {"z": C}),
    (one("z^3 + w*z"), {"w": 1}, {"z": G}),
    (one("z^3 + w*z"), {"w": 0}, {"z": G}),
    (one("z^3 + w*z"), {"w": -1}, {"z": L}),
    (two("w*z[1] + v*z[2]", "v*z[1] + w*z[2]"), {"w": 1, "v": -1}, both(P)),
    (two("w*z[1] + v*z[2]", "v*z[1] + w*z[2]"), {"v": 0}, both(G)),
    ("k ~ Poisson(r); observe x ~ Normal(k, 1)", {"r": 0}, {"k": C}),
    ("k ~ Poisson(r); observe x ~ Normal(k, 1)", {}, {"k": G}),
    ("a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Normal(0, 1), Normal(0, s))", {"s": 1}, {"a": C}),
    ("a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Normal(0, 1), Normal(0, s))", {"s": 2}, {"a": G}),
    (one("relu(w*z)"), {"w": 0}, {"z": C}),
]


@pytest.mark.parametrize(("text", "at", "truth"), AT, ids=range(len(AT)))
def test_at_given_parameters(text, at, truth):
    verdict = check(text, at=at)
    assert sound(verdict, truth) == [] and verdict.scope == ("at" if at else "generic")


def test_a_zero_in_disguise_is_not_divided_by():
    model = Model()
    z, w = model.latent("z", Normal(0, 1)), model.parameter("w")
    model.observe("x", Normal(w * z, 1))
    for hidden in (
        sqrt(3 + 2 * sqrt(2)) - 1 - sqrt(2),
        sin(1) ** 2 + cos(1) ** 2 - 1,
        log(6) - log(2) - log(3),
    ):
        assert sound(check(model, at={w: hidden}), {"z": C}) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "z ~ Normal(0, 1); observe x ~ Normal(0, z)",
            r"z > 0 \(the sd of x\) should hold for every latent value, but fails at z = ",
        ),
        (
            "z ~ Normal(0, 1); observe x ~ Normal(0, z + 1000)",
            r"z \+ 1000 > 0 \(the sd of x\) .* fails at z = -",
        ),
        ("z ~ Normal(0, 1); observe x ~ Bernoulli(z)", r"z is a probability in \[0, 1\] \(the p of x\)"),
        ("z ~ Normal(0, 1); observe x ~ Normal(log(z), 1)", r"z > 0 \(inside the mean of x\)"),
        ("z ~ Normal(0, 1); observe x ~ Normal(z^(1/3), 1)", r"z is at least 0 \(inside the mean of x\)"),
        (
            "z ~ Normal(0, 1); observe x[2] ~ MvNormal([0, 0], [[1, z], [z, 1]])",
            r"1 - z\*\*2 > 0 \(a leading minor of the cov",
        ),
        ("k ~ Poisson(1); observe x ~ Normal(0, k)", r"k > 0 \(the sd of x\) .* fails at k = 0"),
        ("observe x ~ Normal(0, 1)", "has no latents to ask about"),
        ("z ~ Normal(0, 1)", "has no observations"),
    ],
)
def test_models_that_cannot_be_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        check_latents(ik.parse(text))


def test_what_a_bell_shows_is_a_probability_and_not_assumed_to_be_one():
    verdict = check("z ~ Normal(0, 1); observe x ~ Bernoulli(1 - exp(-(z - 1)^2))")
    assert verdict.latents == {"z": L} and verdict.assumptions == ()


def test_conditions_on_impossible_states_refuse_nothing():
    verdict = check("m ~ Binomial(3, 1/2); k ~ Binomial(m, 1/2); observe x ~ Bernoulli(k/(m + 1))")
    assert sound(verdict, {"m": P, "k": P}) == []


@pytest.mark.parametrize(
    ("text", "assumption"),
    [
        (one("w*z"), "w != 0"),
        ("z ~ Normal(0, 1); observe x ~ Normal(z, w + 1)", "w + 1 > 0 (the sd of x)"),
        ("k ~ Bernoulli(1/2); observe x ~ Normal(select(1 + k, a, b), 1)", "a - b != 0"),
        ("a ~ Beta(5, 5); observe x ~ Mixture([a, 1-a], Bernoulli(p), Bernoulli(q))", "p - q != 0"),
    ],
)
def test_assumptions_are_stated(text, assumption):
    assert assumption in check(text).assumptions


def test_invariances_name_the_direction_and_what_the_prior_thinks_of_it():
    verdict = check(two("w*z[1] + v*z[2]"))
    (found,) = verdict.invariances
    assert found.kind == "translation" and found.about == ("z[1]", "z[2]") and found.preserves_prior is False
    assert {found.generator} <= {"-v*d/dz[1] + w*d/dz[2]", "v*d/dz[1] - w*d/dz[2]"}
    flip = check(one("z^2")).invariances[0]
    assert flip.kind == "sign flip" and flip.preserves_prior is True


def test_many_states_do_not_take_long():
    text = "k ~ Binomial(60, 1/2); j ~ Bernoulli(1/2); observe x ~ Normal(k*(1 + j), 1)"
    assert check(text).latents == {"k": P, "j": P}


def test_too_many_states_are_refused_with_a_reason():
    verdict = check("k[13] ~ Bernoulli(1/2); observe x ~ Normal(k[1], 1)")
    assert verdict.level is U and any("8192 joint states" in line for line in verdict.assumptions)


# Random models against float64


def tree(chance, latents, parameters, depth):
    if depth == 0:
        pool = latents * 3 + parameters + [Rational(chance.choice([1, -2, 3]), chance.choice([1, 2]))]
        return chance.choice(pool)
    a, b = (tree(chance, latents, parameters, depth - 1) for _ in range(2))
    shapes = [
        a + b,
        a - b,
        a * b,
        2 * a + 1,
        a**2,
        a**3,
        exp(a / 2),
        sin(a),
        cos(a),
        tanh(a),
        sigmoid(a),
        Abs(a),
        Max(a, b),
        Min(a, b),
        Max(a, 0),
        sqrt(1 + a**2),
        sqrt(sympy.expand((a + 1) ** 2)),
        log(1 + a**2),
        a / (1 + b**2),
        1 / a if a != 0 else a,
    ]
    return chance.choice(shapes)


def random_model(seed):
    """One to three latents of several kinds, seen through one to three random expressions."""
    chance, model = random.Random(seed), Model("random")
    priors = [Normal(0, 1), Normal(0, 1), Beta(2, 2), Bernoulli(Rational(1, 2)), Binomial(2, Rational(1, 2))]
    latents = [model.latent(f"z{i}", chance.choice(priors)) for i in range(chance.choice([1, 2, 2, 3]))]
    parameters = [
        model.parameter(f"w{i}", positive=chance.random() < 0.3) for i in range(chance.choice([0, 0, 1]))
    ]
    law = []
    for i in range(chance.choice([1, 1, 2, 2, 3])):
        f = tree(chance, latents, parameters, chance.choice([1, 1, 2]))
        shape = chance.choice(
            [Normal(f, 1), Normal(f, 1), Normal(0, exp(f)), Bernoulli(sigmoid(f)), Poisson(exp(f))]
        )
        if chance.random() < 0.1:
            shape = MvNormal([f, 0], [[2, tanh(f)], [tanh(f), 2]])
        model.observe(f"x{i}", shape)
        law.append(f)
    return model, latents, parameters, law


class Numbers:
    """A random model in float64: its law at points, and random points of its prior."""

    functions = ({"sigmoid": lambda u: 1 / (1 + np.exp(-u)), "Max": np.maximum, "Min": np.minimum}, "numpy")

    def __init__(self, seed):
        self.model, self.latents, self.parameters, law = random_model(seed)
        self._law = sympy.lambdify([self.latents, self.parameters], law, modules=list(self.functions))
        self.rng = np.random.default_rng(seed)
        self.theta = [
            abs(self.rng.normal()) + 0.1 if p.is_positive else self.rng.normal() for p in self.parameters
        ]
        self.smooth = [s for s, st in enumerate(self.model.latents) if st.family.name in ("Normal", "Beta")]

    def law(self, z):
        with np.errstate(all="ignore"):
            return np.array([float(v) for v in self._law(list(z), self.theta)])

    def draw(self):
        named = {
            "Normal": lambda: self.rng.normal(),
            "Beta": lambda: self.rng.beta(2, 2),
            "Bernoulli": lambda: float(self.rng.integers(2)),
            "Binomial": lambda: float(self.rng.binomial(2, 0.5)),
        }
        return np.array([named[st.family.name]() for st in self.model.latents])

    def points(self, count):
        drawn = [self.draw() for _ in range(count)]
        return [z for z in drawn if np.isfinite(self.law(z)).all() and np.abs(self.law(z)).max() < 1e6]

    def sees(self, z, latent):
        """Whether the Jacobian at z has the latent's unit vector in its row space; None near a change of rank."""
        columns = []
        for j in self.smooth:
            step = np.zeros(len(z))
            step[j] = 1e-5
            columns.append((self.law(z + step) - self.law(z - step)) / 2e-5)
        rows = np.array(columns).T
        rows = rows[np.linalg.norm(rows, axis=1) > 1e-6] if np.isfinite(rows).all() else rows[:0]
        if not len(rows):
            return False
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        _, sizes, basis = np.linalg.svd(rows)
        if np.any((sizes < 1e-2 * sizes[0]) & (sizes > 1e-7 * sizes[0])):
            return None
        null = basis[int((sizes > 1e-2 * sizes[0]).sum()) :]
        return bool(np.all(np.abs(null[:, self.smooth.index(latent)]) < 1e-3))

    def collides(self, z, latent):
        """Whether another point, well apart in this latent, has the same law."""
        target = self.law(z)
        for _ in range(4):
            start = self.draw()
            if not self.smooth:
                same = np.allclose(self.law(start), target, rtol=1e-10, atol=1e-10)
                if same and abs(start[latent] - z[latent]) > 0.5:
                    return True
                continue
            box = [
                (-8.0, 8.0) if self.model.latents[j].family.name == "Normal" else (1e-6, 1 - 1e-6)
                for j in self.smooth
            ]

            def gap(y, start=start):
                point = start.copy()
                point[self.smooth] = y
                return np.nan_to_num(self.law(point) - target, nan=1e8, posinf=1e8, neginf=-1e8).clip(
                    -1e8, 1e8
                )

            low, high = np.array(box).T
            fit = least_squares(
                gap,
                start[self.smooth].clip(low + 1e-5, high - 1e-5),
                bounds=(low, high),
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
                max_nfev=120,
            )
            found = start.copy()
            found[self.smooth] = fit.x
            inside = np.all((fit.x - low > 1e-4) & (high - fit.x > 1e-4))
            if (
                inside
                and np.all(np.abs(fit.fun) < 1e-10 * (1 + np.abs(target)))
                and abs(found[latent] - z[latent]) > 0.1
            ):
                return True
        return False


@pytest.mark.parametrize("seed", range(60))
def test_no_level_is_contradicted_by_numbers(seed):
    try:
        numbers = Numbers(seed)
        verdict = check_latents(numbers.model)
    except ValueError as refusal:
        pytest.skip(f"the random model is no model: {refusal}")
    points = numbers.points(24)
    if len(points) < 12:
        pytest.skip("the law is hardly ever a number")
    for latent, symbol in enumerate(numbers.latents):
        level = verdict.latents[symbol.name]
        if level is C:
            for z in points:
                moved = z.copy()
                moved[latent] = numbers.draw()[latent]
                law = numbers.law(moved)
                assert not np.isfinite(law).all() or np.allclose(law, numbers.law(z), rtol=1e-8, atol=1e-8)
        if latent in numbers.smooth and level in (L, G):
            blind = sum(numbers.sees(z, latent) is False for z in points)
            assert blind < 3 or blind < 0.15 * len(points), f"{level}, but the Jacobian does not see {symbol}"
        if level is G:
            hits = sum(numbers.collides(z, latent) for z in points[:6])
            assert hits < 3, f"GLOBAL, but {symbol} collides"


def test_the_last_class_is_told_apart_too():
    """Five items, four classes, the last probability left over: exchanging any two classes is a map that is found."""
    prior = "parameter p[3] in (0, 1); parameter r[4, 5] in (0, 1)"
    latent = "c ~ Categorical(p[1], p[2], p[3], 1 - p[1] - p[2] - p[3])"
    items = [f"observe x[{j}] ~ Bernoulli(r[c, {j}])" for j in range(1, 6)]
    verdict = check("; ".join([prior, latent, *items]), about="parameters")
    assert set(verdict.parameters.values()) == {Level.LOCAL}
    assert verdict.at_least == ()


@pytest.mark.parametrize("at", [{"q": 1, "p": 1}, {"q": 2, "p": Rational(1, 2)}])
def test_a_point_where_the_law_is_undefined_is_refused(at):
    for text in ("summary q/(1 - p*q)", "observe x ~ Normal(q/(1 - p*q), 1)"):
        with pytest.raises(ValueError, match=r"should be defined at .*division by zero"):
            check(text, about="parameters", at=at)
    with pytest.raises(ValueError, match="division by zero"):
        check("z ~ Normal(0, 1); observe x ~ Normal(z/(1 - p*q), 1)", at=at)


def test_remedies_step_over_poles():
    text = "summary q*phi/(1 - phi*q)"
    assert all(r["level"] for r in ik.remedies(text, check(text)))

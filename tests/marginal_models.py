"""Models of known_answers.md for the tests of the marginal law, with their unknowns and ranks."""

from __future__ import annotations

import itertools

import sympy
from brute_force import lines
from sympy import Rational

import identkit as ik


def factor(p, k, noise="psi[{i}]"):
    terms = lambda i: " + ".join(f"W[{i},{j}]*z[{j}]" for j in range(1, k + 1))
    return lines(
        f"z[{k}] ~ Normal(0, 1)",
        [f"observe x[{i}] ~ Normal({terms(i)}, {noise.format(i=i)})" for i in range(1, p + 1)],
    )


def binomial_mixture(n, k):
    weights = [f"w{j}" for j in range(1, k)]
    weights.append("1" + "".join(f" - {w}" for w in weights))
    parts = ", ".join(f"Binomial({n}, p{j})" for j in range(1, k + 1))
    return f"observe y ~ Mixture([{', '.join(weights)}], {parts})"


def classes(items, k):
    weights = [f"w{j}" for j in range(1, k)]
    weights.append("1" + "".join(f" - {w}" for w in weights))
    return lines(
        f"k ~ Categorical({', '.join(weights)})",
        [
            f"observe y[{i}] ~ Bernoulli(select(k, {', '.join(f'p{j}[{i}]' for j in range(1, k + 1))}))"
            for i in range(1, items + 1)
        ],
    )


def hui_walter(populations):
    tests = [
        f"observe y{j}[{t}] ~ Bernoulli(se[{t}]*d[{j}] + (1 - sp[{t}])*(1 - d[{j}]))"
        for j in range(1, populations + 1)
        for t in (1, 2)
    ]
    return lines([f"d[{j}] ~ Bernoulli(pi{j})" for j in range(1, populations + 1)], tests)


def dina(skills):
    states = [(0, 0), (0, 1), (1, 0), (1, 1)]
    items = []
    for i, row in enumerate(skills, 1):
        able = [all(has >= needs for has, needs in zip(state, row, strict=True)) for state in states]
        chances = ", ".join(f"1 - s[{i}]" if answer else f"g[{i}]" for answer in able)
        items.append(f"observe y[{i}] ~ Bernoulli(select(a, {chances}))")
    return lines("a ~ Categorical(p00, p01, p10, 1 - p00 - p01 - p10)", items)


def markov(steps, initial="b/(a + b), a/(a + b)", emission=("Bernoulli(select(k[{t}], p, q))",)):
    hidden = [f"k[1] ~ Categorical({initial})"]
    for t in range(2, steps + 1):
        hidden.append(f"k[{t}] ~ Categorical(select(k[{t - 1}], 1 - a, b), select(k[{t - 1}], a, 1 - b))")
    return lines(
        hidden,
        [f"observe x{n}[{t}] ~ {e.format(t=t)}" for t in range(1, steps + 1) for n, e in enumerate(emission)],
    )


def autoregression():
    return lines(
        "z[1] ~ Normal(0, q/sqrt(1 - phi^2))",
        [f"z[{t}] ~ Normal(phi*z[{t - 1}], q)" for t in (2, 3)],
        [f"observe x[{t}] ~ Normal(z[{t}], r)" for t in (1, 2, 3)],
    )


def moving_average():
    m = ik.Model("MA(1)")
    theta, sd = m.parameter("theta"), m.parameter("sd", positive=True)
    e = m.latent("e", ik.Normal(0, sd), shape=4)
    m.observe_exactly("x", sympy.Matrix([e[t + 1] + theta * e[t] for t in range(3)]))
    return m


def structural(arrows, noise, names):
    """x = Λᵀx + ε as one multivariate normal: D1, D2, D6."""
    m = ik.Model("structural equations")
    symbol = {name: m.parameter(name) for name in names}
    size = len(noise)
    weights = sympy.Matrix(size, size, lambda i, j: symbol.get(arrows.get((i, j)), 0))
    omega = sympy.Matrix(size, size, lambda i, j: symbol.get(noise[i][j], 0))
    inverse = (sympy.eye(size) - weights).inv()
    m.observe("x", ik.MvNormal([0] * size, sympy.simplify(inverse.T * omega * inverse)))
    return m


BOW = structural({(0, 1): "l"}, [["w11", "w12"], ["w12", "w22"]], ["l", "w11", "w12", "w22"])
INSTRUMENT = structural(
    {(0, 1): "zx", (1, 2): "beta"},
    [["w11", "", ""], ["", "w22", "w23"], ["", "w23", "w33"]],
    ["zx", "beta", "w11", "w22", "w23", "w33"],
)
CYCLE = structural(
    {(0, 1): "a", (1, 2): "b", (2, 0): "c"},
    [["w1", "", ""], ["", "w2", ""], ["", "", "w3"]],
    ["a", "b", "c", "w1", "w2", "w3"],
)
ERRORS = "xi ~ Normal(mu, tau); observe x ~ Normal(xi, {sx}); observe y ~ Normal(alpha + beta*xi, {sy})"


def topics(words):
    token = (
        "Categorical("
        + ", ".join(
            f"select(k[{{i}}], {a}, {b})"
            for a, b in [("p1", "q1"), ("p2", "q2"), ("1 - p1 - p2", "1 - q1 - q2")]
        )
        + ")"
    )
    return lines(
        "theta ~ Beta(a1, a2)",
        [f"k[{i}] ~ Categorical(theta, 1 - theta)" for i in range(1, words + 1)],
        [f"observe w[{i}] ~ {token.format(i=i)}" for i in range(1, words + 1)],
    )


def stochastic_blocks(nodes):
    edge = "select(z[{i}], select(z[{j}], a11, a12), select(z[{j}], a12, a22))"
    return lines(
        f"z[{nodes}] ~ Categorical(q, 1 - q)",
        [
            f"observe e{i}{j} ~ Bernoulli({edge.format(i=i, j=j)})"
            for i, j in itertools.combinations(range(1, nodes + 1), 2)
        ],
    )


def visits(count):
    return lines("z ~ Bernoulli(psi)", [f"observe y[{i}] ~ Bernoulli(p*z)" for i in range(1, count + 1)])


def poisson_gamma(observations=1):
    m = ik.Model("Poisson-Gamma")
    rates = [m.parameter(f"r{i}", positive=True) for i in range(observations)]
    a, b = m.parameter("a", positive=True), m.parameter("b", positive=True)
    z = m.latent("z", ik.Gamma(a, b))
    for i, rate in enumerate(rates):
        m.observe(f"x{i}", ik.Poisson(rate * z))
    return m


GROUPS = "observe y{j}[2] ~ Normal({mean}, s)"
TWO_NORMALS = "observe y ~ Mixture([p, 1 - p], Normal(m1, v1), Normal(m2, v2))"
ZERO_INFLATED = "observe x ~ Mixture([p, 1 - p], Poisson(0), Poisson(r))"

KNOWN = {
    # identifier: (model, unknowns, generic rank)
    "A1": (factor(5, 2), 15, 14),
    "A5": (factor(2, 1), 4, 3),
    "A6": (factor(3, 1), 6, 6),
    "A10 k=2": (factor(4, 2, "s"), 9, 8),
    "A10 k=3": (factor(4, 3, "s"), 13, 10),
    "B1": (TWO_NORMALS, 5, 5),
    "B5": ("observe y ~ Mixture([1/2, 1/2], Normal(m, 1), Normal(-m, 1))", 1, 1),
    "B6 (2,2)": (binomial_mixture(2, 2), 3, 2),
    "B6 (3,2)": (binomial_mixture(3, 2), 3, 3),
    "B6 (4,3)": (binomial_mixture(4, 3), 5, 4),
    "B6 (5,3)": (binomial_mixture(5, 3), 5, 5),
    "B8 J=3": (classes(3, 2), 7, 7),
    "B8 J=4": (classes(4, 2), 9, 9),
    "B10": (classes(4, 3), 14, 13),
    "B13 one": (hui_walter(1), 5, 3),
    "B13 two": (hui_walter(2), 6, 6),
    "B18 complete": (dina([(1, 0), (0, 1), (1, 1)]), 9, 7),
    "B18 never alone": (dina([(1, 0)] * 3 + [(1, 1)] * 3), 15, 14),
    "C2": (markov(3), 4, 4),
    "C2 free start": (markov(3, "s, 1 - s"), 5, 5),
    "C4": (markov(4), 4, 4),
    "C6": (autoregression(), 3, 3),
    "C11": (moving_average(), 2, 2),
    "D1": (BOW, 4, 3),
    "D2": (INSTRUMENT, 6, 6),
    "D6": (CYCLE, 6, 6),
    "D11": (ERRORS.format(sx="sx", sy="sy"), 6, 5),
    "D13": (ERRORS.format(sx="s", sy="s"), 5, 5),
    "E16 n=1": ("a ~ Normal(0, t); observe y ~ Normal(a, s)", 2, 1),
    "E16 n=2": ("a ~ Normal(0, t); observe y[2] ~ Normal(a, s)", 2, 2),
    "E17": (lines("a[3] ~ Normal(0, t)", [GROUPS.format(j=j, mean=f"mu + a[{j}]") for j in (1, 2, 3)]), 3, 3),
    "E18": (lines("e[2] ~ Normal(0, t)", [GROUPS.format(j=j, mean=f"mu + xi*e[{j}]") for j in (1, 2)]), 4, 3),
    "F1 n=1": ("z ~ Beta(a, b); observe x ~ Binomial(1, z)", 2, 1),
    "F1 n=2": ("z ~ Beta(a, b); observe x ~ Binomial(2, z)", 2, 2),
    "F1 n=5": ("z ~ Beta(a, b); observe x ~ Binomial(5, z)", 2, 2),
    "F3": (poisson_gamma(), 3, 2),
    "F8 K=1": (visits(1), 2, 1),
    "F8 K=2": (visits(2), 2, 2),
    "F10": (ZERO_INFLATED, 2, 2),
    "G6 m=1": (topics(1), 6, 2),
    "G6 m=2": (topics(2), 6, 4),
    "G6 m=3": (topics(3), 6, 5),
    "G6 m=4": (topics(4), 6, 6),
    "G11 n=2": (stochastic_blocks(2), 4, 1),
    "G11 n=3": (stochastic_blocks(3), 4, 3),
    "G11 n=4": (stochastic_blocks(4), 4, 4),
}

THIRD, FIFTH = Rational(1, 3), Rational(1, 5)
SPECIAL = [
    # (row of known_answers.md, row of KNOWN, values at a special point, rank there)
    ("B2", "B1", {"m1": 1, "m2": 1, "v1": 2, "v2": 2}, 2),
    ("B5 at 0", "B5", {"m": 0}, 0),
    ("B13 equal prevalence", "B13 two", {"pi1": THIRD, "pi2": THIRD}, 4),
    ("C4 equal emissions", "C4", {"p": THIRD, "q": THIRD}, 1),
    ("C6 at phi = 0", "C6", {"phi": 0}, 2),
    ("C11 at theta = 1", "C11", {"theta": 1, "sd": 1}, 1),
    ("D2 at 0", "D2", {"zx": 0}, 5),
    ("F10 at p = 1", "F10", {"p": 1}, 1),
    ("F10 at rate 0", "F10", {"r": 0}, 1),
    ("G12", "G11 n=4", {"q": Rational(1, 2), "a11": FIFTH, "a22": FIFTH}, 2),
]

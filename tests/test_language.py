"""The text notation: what it means, what it refuses and where, its exactness, and that nothing hangs it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
import sympy
from sympy import Interval, Rational, S, Symbol

from identkit.model.families import (
    NONNEGATIVE,
    POSITIVE,
    PROBABILITY,
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
from identkit.model.language import LanguageError, parse, parse_assignments, parse_constant, written
from identkit.model.model import Model

HALF = Rational(1, 2)


def assert_same(left: Model, right: Model) -> None:
    assert left.parameters == right.parameters
    assert left.latents == right.latents
    assert left.observations == right.observations
    assert left.definitions == right.definitions
    assert left.knowns == right.knowns
    assert left.constraints == right.constraints
    assert left.summaries == right.summaries


# What texts mean: each beside the same model declared in SymPy


def one_factor(m: Model) -> None:
    w, s = m.parameter("w"), m.parameter("s", positive=True)
    z = m.latent("z", Normal(0, 1))
    m.observe("x", Normal(w * z, s))


def two_factors(m: Model) -> None:
    w, s = m.parameter("w", 2), m.parameter("s", positive=True)
    z = m.latent("z", Normal(0, 1), 2)
    m.observe("x", Normal(w[0] * z[0] + w[1] * z[1], s))


def item_response(m: Model) -> None:
    a, b = m.parameter("a", 2, positive=True), m.parameter("b", 2)
    theta = m.latent("theta", Normal(0, 1))
    for i in range(2):
        m.observe(f"y[{i + 1}]", Bernoulli(sigmoid(a[i] * theta - b[i])))


def mixture_weight(m: Model) -> None:
    a = m.latent("a", Beta(5, 5))
    m.observe("y", Mixture([a, 1 - a], Normal(-1, 1), Normal(1, 1)))


def gaussian_mixture(m: Model) -> None:
    p = m.parameter("p", domain=PROBABILITY)
    mu, s = m.parameter("mu", 2), m.parameter("s", 2, positive=True)
    k = m.latent("k", Categorical(p, 1 - p))
    m.observe("x", Normal(select(k, *mu), select(k, *s)))


def factor_analysis(m: Model) -> None:
    W, s = m.parameter("W", (3, 2)), m.parameter("s", 3, positive=True)
    z = m.latent("z", Normal(0, 1), 2)
    m.observe("x", Normal(W * z, s), 3)


def state_space(m: Model) -> None:
    phi, q = m.parameter("phi"), m.parameter("q", positive=True)
    z = [m.latent("z[1]", Normal(0, 1))]
    for t in (2, 3):
        z.append(m.latent(f"z[{t}]", Normal(phi * z[-1], q)))
    r = m.parameter("r", positive=True)
    for t in (1, 2, 3):
        m.observe(f"y[{t}]", Normal(z[t - 1], r))


def hidden_markov(m: Model) -> None:
    A = m.parameter("A", (2, 2), domain=PROBABILITY)
    k1 = m.latent("k[1]", Categorical(HALF, HALF))
    k2 = m.latent("k[2]", Categorical(select(k1, A[0, 0], A[1, 0]), select(k1, A[0, 1], A[1, 1])))
    for t, k in ((1, k1), (2, k2)):
        m.observe(f"y[{t}]", Normal(select(k, 1, 3), 1))


def correlated(m: Model) -> None:
    r = m.parameter("r")
    z = m.latent("z", MvNormal([0, 0], [[1, r], [r, 1]]))
    m.observe("x", Normal(z[0], 1))


def exclusive_or(m: Model) -> None:
    a, b = m.latent("a", Bernoulli(HALF)), m.latent("b", Bernoulli(HALF))
    m.observe("x", Bernoulli(select(1 + sympy.Abs(a - b), Rational(1, 10), Rational(9, 10))))


def counts(m: Model) -> None:
    n, p = m.parameter("n", domain=S.Naturals0), m.parameter("p", domain=PROBABILITY)
    rate = m.parameter("rate", domain=NONNEGATIVE)
    m.observe("x", Binomial(n, p))
    m.observe("y", Poisson(rate))


def domains(m: Model) -> None:
    m.parameter("a", domain=Interval.open(0, 1))
    m.parameter("b", domain=Interval.Lopen(-1, HALF))
    m.parameter("c", domain=Interval(-S.Infinity, 2))
    m.parameter("d", domain=Interval.open(-S.Infinity, -3))
    m.parameter("e", domain=Interval(sympy.sqrt(2), S.Infinity))
    m.parameter("f", (2, 2), domain=sympy.Range(1, 5))
    m.parameter("g", domain=S.Naturals0)
    m.parameter("h", domain=S.Reals)


def network(m: Model) -> None:
    W, z = m.parameter("W", (2, 2)), m.latent("z", Normal(0, 1), 2)
    h = [sympy.Max(0, W[i, 0] * z[0] + W[i, 1] * z[1]) for i in range(2)]
    m.define("h", sympy.ImmutableMatrix(h))
    m.observe("x", Normal(sympy.tanh(h[0]) - 2 * h[1], sympy.exp(-z[0] / 2)))


def promised(m: Model) -> None:
    u, d = m.known("u", 2), m.known("d", domain=Interval.open(0, 1))
    a, b = m.parameter("a", 2), m.parameter("b")
    z = m.latent("z", Normal(0, 1), 2)
    for i in range(2):
        m.observe(f"x[{i + 1}]", Normal(a[i] * u[i] * z[i], d))
    m.observe_exactly("y", b * z[0])
    m.observe_exactly("v", b * sympy.Matrix(z))
    m.constraint(a[0] + a[1] - 1)
    m.constraint(a[0] - u[0], "> 0")
    m.constraint(b - a[1], "> 0")
    m.summary([a[0] ** 2, a[1] ** 2, -b])


PROMISED = """
known u[2]; known d in (0, 1); parameter a[2]
z[2] ~ Normal(0, 1)
for i in 1..2: observe x[i] ~ Normal(a[i]*u[i]*z[i], d)
observe y = b*z[1]
observe v = b*z
constraint sum(a) = 1; constraint a[1] > u[1]
constraint a[2] < b  # the other way round
for i in 1..2:
  summary a[i]^2
summary -b
"""


MEANINGS: list[tuple[str, Callable[[Model], object]]] = [
    ("z ~ Normal(0, 1); observe x ~ Normal(w*z, s)", one_factor),
    ("# one\n\n  z ~ Normal(0,1) # two\n  observe x ~ Normal(\n w*z,  # three\n\ns)\n\n# four", one_factor),
    ("\tz ~ Normal(0, 1);;\r\n\tobserve x ~ Normal(+w*z, s);", one_factor),
    ("z[2] ~ Normal(0, 1); observe x ~ Normal(w[1]*z[1] + w[2]*z[2], s)", two_factors),
    ("parameter w[2]; z[2] ~ Normal(0, 1); observe x ~ Normal(dot(w, z), s)", two_factors),
    ("parameter w[2]; z[2] ~ Normal(0, 1); observe x ~ Normal(sum(w*z), s)", two_factors),
    (
        "parameter a[2] > 0\nparameter b[2]\ntheta ~ Normal(0, 1)\n"
        "for i in 1..2:\n  # a comment first\n\n  observe y[i] ~ Bernoulli(sigmoid(a[i]*theta - b[i]))\n",
        item_response,
    ),
    (
        "parameter a[2] > 0; parameter b[2]; theta ~ Normal(0, 1)\nN = 2/1\nu = a*theta - b\n"
        "for i in 1..N: observe y[i] ~ Bernoulli(1*sigmoid(u[i]))",
        lambda m: (item_response(m), m.define("N", sympy.Integer(2)), defined_logits(m)),
    ),
    ("a ~ Beta(5,5); observe y ~ Mixture([a, 1-a], Normal(-1,1), Normal(1,1))", mixture_weight),
    ("k ~ Categorical(p, 1 - p); observe x ~ Normal(mu[k], s[k])", gaussian_mixture),
    ("k ~ Categorical([p, 1 - p]); observe x ~ Normal(select(k, mu[1], mu[2]), s[k])", gaussian_mixture),
    (
        "parameter W[3, 2]; z[2] ~ Normal(0, 1); parameter s[3] > 0; observe x[3] ~ Normal(W @ z, s)",
        factor_analysis,
    ),
    (
        "parameter W[3, 2]; z[2] ~ Normal(0,1); V = [W[1], W[2], W[3]]\nparameter s[3] in (0, inf)\n"
        "for i in 1..3:\n    observe x[i] ~ Normal(V[i] @ z, diag(s)[i, i])",
        lambda m: (factor_analysis(m), m.define("V", sympy.ImmutableMatrix(3, 2, list(m.parameters)[:6]))),
    ),
    (
        "z[1] ~ Normal(0, 1)\nfor t in 2..3: z[t] ~ Normal(phi*z[t-1], q)\n"
        "for t in 1..3: observe y[t] ~ Normal(z[t], r)",
        state_space,
    ),
    (
        "parameter A[2, 2] in [0, 1]; k[1] ~ Categorical(1/2, 1/2); k[2] ~ Categorical(A[k[1]])\n"
        "for t in 1..2: observe y[t] ~ Normal([1, 3][k[t]], 1)",
        hidden_markov,
    ),
    ("z ~ MvNormal([0, 0], [[1, r], [r, 1]]); observe x ~ Normal(z[1], 1)", correlated),
    ("z ~ MvNormal([0, 0], eye(2) + r*[[0, 1], [1, 0]]); observe x ~ Normal(z[1], 1)", correlated),
    (
        "a ~ Bernoulli(1/2); b ~ Bernoulli(.5)\nobserve x ~ Bernoulli(select(1 + abs(a-b), 0.1, 9e-1))",
        exclusive_or,
    ),
    ("observe x ~ Binomial(n, p); observe y ~ Poisson(rate)", counts),
    (
        "parameter a in (0, 1); parameter b in (-1, 0.5]; parameter c <= 2; parameter d < -3\n"
        "parameter e >= sqrt(2); parameter f[2, 2] in 1..4; parameter g in 0..inf; parameter h",
        domains,
    ),
    (
        "parameter W[2,2]; z[2] ~ Normal(0,1); h = relu(transpose(transpose(W)) @ z)\n"
        "observe x ~ Normal(tanh(h[1]) - 2*h[2], exp(-z[1]/2))",
        network,
    ),
    (PROMISED, promised),
]  # fmt: skip


def defined_logits(m: Model) -> None:
    a, b = m.resolve({"a": [0, 0], "b": [0, 0]}, "at", tuple(m.parameters)), m.latent_symbols[0]
    names = {symbol.name: symbol for symbol in a}
    m.define("u", sympy.ImmutableMatrix([names[f"a[{i}]"] * b - names[f"b[{i}]"] for i in (1, 2)]))


@pytest.mark.parametrize(("text", "build"), MEANINGS)
def test_a_text_means_the_model_declared_in_sympy(text: str, build: Callable[[Model], object]) -> None:
    expected = Model("expected")
    build(expected)
    assert_same(parse(text), expected)
    assert_same(parse(written(expected)), expected)


def test_undeclared_names_are_parameters_and_are_noted() -> None:
    sigma = "sigma ~ Beta(1, 1); observe x ~ Normal(sigm*w[2], s[1]); observe y ~ Normal(s[1]*t, t)"
    m = parse(sigma)
    assert {str(symbol): domain for symbol, domain in m.parameters.items()} == {
        "sigm": S.Reals,
        "w[2]": S.Reals,
        "s[1]": POSITIVE,
        "t": POSITIVE,
    }
    assert m.notes == [
        "sigm is taken to be a real parameter (did you mean sigma?)",
        "w[2] is taken to be a real parameter",
        "s[1] is taken to be a positive parameter",
        "t is taken to be a positive parameter",
    ]


def test_every_place_of_a_bare_name_narrows_its_domain() -> None:
    m = parse("observe x ~ Normal(s, 1); observe y ~ Bernoulli(s); observe v ~ Normal(0, s)")
    assert list(m.parameters.values()) == [Interval.Lopen(0, 1)]
    assert parse("observe x ~ Normal(0, s + 1)").parameters == {Symbol("s", real=True): S.Reals}


def test_elements_and_whole_vectors_can_be_fixed() -> None:
    m = parse("z[2] ~ Normal(0, 1); observe x ~ Normal(w[1]*z[1] + w[2]*z[2], 1)")
    z1 = m.latent_symbols[0]
    assert m.at({"w": [1, 0]}).observations[0].family == Normal(z1, 1)
    assert m.at({"w[2]": 0, "w[1]": "1/2"}).observations[0].family == Normal(z1 / 2, 1)
    assert written(m.at({"w[1]": 3})).splitlines()[-1] == "observe x ~ Normal(w[2]*z[2] + 3*z[1], 1)"
    assert_same(parse(written(m.at({"w[1]": 3}))), m.at({"w[1]": 3}))


def test_lone_elements_of_several_domains_survive() -> None:
    m = parse("d = w[2]; observe x ~ Normal(w[4], w[3])")
    assert list(m.parameters.values()) == [S.Reals, S.Reals, POSITIVE]
    assert_same(parse(written(m)), m)


def test_no_name_is_reserved() -> None:
    m = parse(
        "pi ~ Normal(0, 1); E = 2*pi; I = E; lambda ~ Beta(S, beta); for = 3\n"
        "observe observe ~ Normal(I + lambda, for)"
    )
    pi, lam = m.latent_symbols
    assert m.observations[0].family == Normal(2 * pi + lam, 3)
    assert {symbol.name for symbol in m.parameters} == {"S", "beta"}
    assert_same(parse(written(m)), m)


def test_parsing_loads_no_torch() -> None:
    code = "import sys; from identkit import parse; parse('z ~ Beta(1, 1)'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# What is refused, and where

BAD = [
    ("", 1, 1, "expected a statement"),
    ("# nothing\n\n", 1, 1, "expected a statement"),
    ("z ~ Normal(0, 1", 1, 16, "comma or ) to close the ( of line 1, column 11"),
    (
        "z ~ Normal(0, 1\nobserve x ~ Normal(z, 1)",
        2,
        1,
        "to close the ( of line 1, column 11, but found observe",
    ),
    ("z ~ Normal(0, 1))", 1, 17, "never opened"),
    ("z ~ Normal(0, 1]", 1, 16, "expected a comma or ) but found ]"),
    ("z ~ Normal", 1, 11, "expected ( but found the end of the line"),
    ("z ~ ", 1, 5, "a family, such as Normal(0, 1)"),
    ("z ~ 3", 1, 5, "a family, such as Normal(0, 1), but found 3"),
    ("z ~ Normal(mean=0, sd=1)", 1, 16, "by position"),
    ("z ~ Normal(0, 1) observe x ~ Normal(z, 1)", 1, 18, "separated by ;"),
    ("x <- 3", 1, 3, "written with ="),
    ("x = 2 y", 1, 7, "with *, as in 2*x"),
    ("x = 2y", 1, 6, "with *, as in 2*x"),
    ("x = 1 +", 1, 8, "expected an expression but found the end of the line"),
    ("x = 3..4", 1, 6, "but found .."),
    ("x = $", 1, 5, "'$' has no meaning"),
    ("x² = 3", 1, 1, "x² is not a name"),
    ("z ~ Norml(0, 1)", 1, 5, "did you mean Normal?"),
    ("z ~ Gauss(0, 1)", 1, 5, "the families are Normal,"),
    ("z ~ exp(1)", 1, 5, "exp is a function, not a family"),
    ("x = Normal(0, 1)", 1, 5, "Normal is a family: it stands after ~"),
    ("x = sinn(1)", 1, 5, "did you mean sin?"),
    ("x = exp", 1, 5, "exp is a function and takes arguments"),
    ("x = sin(1, 2)", 1, 5, "sin takes 1 argument, got 2"),
    ("x = select(1)", 1, 5, "select takes 2 arguments or more, got 1"),
    ("z ~ Normal(0)", 1, 5, "2 arguments (mean, sd), got 1"),
    ("a = 1\nz ~ Normal(0, -a)", 2, 15, "Normal's sd should be positive, got -1"),
    ("observe x ~ Bernoulli(1.5)", 1, 23, "should be a probability in [0, 1], got 3/2"),
    ("observe x ~ Binomial(2.5, 1/2)", 1, 22, "whole number, 0 or more, got 5/2"),
    ("k ~ Categorical(1/3, 1/3)", 1, 5, "should sum to one, but their sum is 2/3"),
    ("k ~ Categorical(1)", 1, 5, "at least two probabilities"),
    ("observe x ~ Mixture(a, Normal(0, 1))", 1, 21, "first argument should be a list"),
    ("observe x ~ Mixture([a, 1-a], Normal(0, 1))", 1, 13, "one weight a component, got 2 and 1"),
    ("observe x ~ Mixture([a, 1-a], 3, 4)", 1, 31, "components should be families"),
    ("z ~ MvNormal(0, 1)", 1, 14, "mean should be a vector"),
    ("z ~ MvNormal([0, 0], eye(3))", 1, 22, "2 × 2 elements"),
    ("z ~ MvNormal([0, 0], [[1, 2], [2, 1]])", 1, 5, "positive definite"),
    ("observe x ~ Normal(z, 1)\nz ~ Normal(0, 1)", 1, 20, "z is used before line 2 declares it"),
    ("z ~ Normal(z, 1)", 1, 12, "z is used before line 1"),
    ("z ~ Normal(0, 1)\nz = 3", 2, 1, "z is declared already, as a latent on line 1"),
    ("observe x ~ Normal(0, 1); observe y ~ Normal(x, 1)", 1, 46, "x is an observation"),
    ("observe x[2] ~ Normal(0, 1); y = x[1]", 1, 34, "x is an observation"),
    ("z[2] ~ Normal(0, 1); observe x ~ Normal(z, 1)", 1, 41, "2 elements, but one draw is meant"),
    ("z[2] ~ Normal(0, 1); observe x[3] ~ Normal(z, 1)", 1, 44, "2 elements, but there are 3"),
    ("z[2] ~ Normal(0, 1); x = z[3]", 1, 28, "index 3 is out of range, but the indices here are 1..2"),
    ("z[2] ~ Normal(0, 1); x = z[0]", 1, 28, "index 0 is out of range"),
    ("z[2] ~ Normal(0, 1); x = z[1, 1]", 1, 31, "too many indices"),
    ("z[2] ~ Normal(0, 1); x = z[w]", 1, 28, "w is neither"),
    ("z[2] ~ Normal(0, 1); x = z[1/2]", 1, 28, "a whole number, got 1/2"),
    (
        "k ~ Categorical(.2, .3, .5); m = [1, 2]; x = m[k]",
        1,
        48,
        "k goes up to 3, but the indices here are 1..2",
    ),
    ("k ~ Bernoulli(1/2); x = m[k]", 1, 27, "k can be 0"),
    ("k ~ Poisson(1); x = m[k]", 1, 23, "k is neither"),
    ("observe x[3] ~ Normal(W @ z, s)", 1, 23, "declare it first, as in parameter W[3, 2]"),
    ("x = w[1] + w", 1, 12, "w is used as a whole, but not declared"),
    ("x = w + w[1]", 1, 9, "used as a vector here and as a single number above"),
    ("w = 3; x = w[1]", 1, 12, "w is a single number and has no elements"),
    ("x = [1, 2] + [1, 2, 3]", 1, 5, "2 elements and 3 elements"),
    ("x = [[1, 2], [3]]", 1, 5, "same number of elements"),
    ("x = []", 1, 5, "at least one element"),
    ("x = eye(0)", 1, 5, "from 1 on"),
    ("z[0] ~ Normal(0, 1)", 1, 3, "indices start at 1, got 0"),
    ("z[1, 1, 1] ~ Normal(0, 1)", 1, 1, "two indices at most"),
    ("z[1] ~ Normal(0, 1); z[3] ~ Normal(0, 1)", 1, 22, "z has no z[2] yet"),
    ("for i in 2..3: z[i] ~ Normal(0, 1)", 1, 16, "z has no z[1] yet"),
    ("for i in 1..2: z ~ Normal(0, 1)", 1, 16, "z is declared already"),
    ("z[1,1] ~ Normal(0,1); z[1,2] ~ Normal(0,1); z[2,1] ~ Normal(0,1)", 1, 1, "z is left without z[2,2]"),
    ("for i in 1..2:\nz[i] ~ Normal(0, 1)", 1, 1, "this loop has no body"),
    ("for i in 1..2:\n  z[i] ~ Normal(0, 1)\n y = 1", 3, 2, "matches no line above"),
    ("z ~ Normal(0, 1)\n  y = 1", 2, 3, "only the body of a for loop may be"),
    ("  z ~ Normal(0, 1)\ny = 1", 2, 1, "left of the first one"),
    ("i = 1; for i in 1..2: x[i] = i", 1, 12, "i stands for something else already"),
    ("for i in 1..n: x[i] = i", 1, 13, "a bound of a loop should be a whole number"),
    ("parameter a > b", 1, 15, "a bound should be a constant, got b"),
    ("parameter a in (2, 1)", 1, 13, "the lower bound should be below the upper one"),
    ("parameter a in 1/2..2", 1, 17, "expected .. but found /"),
    ("x = 1/(2 - 2)", 1, 8, "divides by zero"),
    ("x = 0^-1", 1, 5, "divides by zero"),
    ("x = log(0)", 1, 5, "not a finite number"),
    ("x = 1 + sqrt(-2)", 1, 9, "not a real number"),
    ("z ~ Normal(0, 1); constraint z = 0", 1, 30, "should be about parameters only, got z"),
    ("z[2] ~ Normal(0, 1); summary z[1] + a", 1, 30, "should be about parameters only, got z[1]"),
    ("observe x ~ Normal(0, 1); summary x", 1, 35, "x is an observation"),
    ("constraint 1 = 2", 1, 12, "should be possible, got -1 = 0"),
    ("parameter u > 0; constraint u < -1", 1, 29, "should be possible, got -u - 1 > 0"),
    ("constraint a >= 0", 1, 14, "written with =, > or <, got >="),
    ("constraint a", 1, 13, "expected > or < or = but found the end of the line"),
    ("constraint a + [1, 2] = [b]", 1, 12, "2 elements and the shape of a vector with 1 element"),
    ("summary", 1, 8, "expected = or ~"),
    ("known u > b", 1, 11, "a bound should be a constant, got b"),
    ("known u[2]; known u", 1, 19, "u is declared already, as a known number on line 1"),
    ("for i in 1..2: observe x[i] = [1, 2]", 1, 31, "an element should be a single number"),
    ("observe x[2] = [1, 2, 3]", 1, 16, "3 elements, but there are 2"),
    ("observe x = 3; z = x", 1, 20, "x is an observation"),
]


@pytest.mark.parametrize(("text", "line", "column", "words"), BAD)
def test_an_error_names_its_place_and_what_was_expected(
    text: str, line: int, column: int, words: str
) -> None:
    with pytest.raises(LanguageError) as caught:
        parse(text)
    assert words in caught.value.problem
    assert (caught.value.line, caught.value.column) == (line, column)
    shown, caret = str(caught.value).splitlines()[-2:]
    assert caret.index("^") == 2 + column - 1
    assert shown == "  " + (text.splitlines() or [""])[line - 1]


ENORMOUS = [
    "x = 10^10^10",
    "x = 9^9^9^9",
    "x = 1e999999999",
    "x = 2^-99999999",
    "x = (2*y)^1000000",
    "x = sqrt(2)^1000000",
    "x = exp(10^8*log(2))",
    "x = 2^(y + 10^9) * 2^(-y)",
    "x = (2^(10^10/y))^y",
    "x = exp(exp(exp(exp(10))))",
    "z ~ Normal(0, exp(exp(exp(9))))",
    "z ~ Normal(0, sqrt(2) + sqrt(3) - sqrt(5 + 2*sqrt(6)))",
    "z[1000000000] ~ Normal(0, 1)",
    "parameter W[10^5, 10^5]",
    "x = eye(10^6)",
    "for i in 1..10^9: z[i] ~ Normal(0, 1)",
    "for i in 1..9999: for j in 1..9999: x[i, j] = i*j",
    "x = w[10^12]",
    "a0 = u + v\n" + "\n".join(f"a{i + 1} = a{i}*a{i} + a{i}" for i in range(60)),
    "a0 = u\n" + "\n".join(f"a{i + 1} = sin(a{i})" for i in range(500)),
    "x = " + "(" * 30_000,
    "x = " + "-" * 30_000 + "1",
    "x = " + "^".join(["y"] * 3000),
    "x = y" + "[1]" * 5000,
    "x = max(" + ", ".join(f"y[{i}]" for i in range(1, 500)) + ")",
    "x = " + "9" * 5000,
    "parameter W[30, 30]; x = W @ W @ W @ W",
    "".join(f"for i{k} in 1..2: " for k in range(300)) + "x = 1",
    "x = 1\n" * 60_000,
]  # fmt: skip


@pytest.mark.parametrize("text", ENORMOUS, ids=lambda text: text[:30])
def test_enormous_texts_are_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(LanguageError):
        parse(text)
    assert time.perf_counter() - start < 8  # far more than it takes, far less than what the text asks for


# Numbers and precedence


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", Rational(3, 2)),
        ("0.1", Rational(1, 10)),
        ("1e-3", Rational(1, 1000)),
        (".5E+1", sympy.Integer(5)),
        ("2.", sympy.Integer(2)),
        ("123456789012345678901234567890.1", Rational(1234567890123456789012345678901, 10)),
        ("sqrt(4/3*log(4))", sympy.sqrt(Rational(4, 3) * sympy.log(4))),
        ("-2^2", sympy.Integer(-4)),
        ("2^3^2", sympy.Integer(512)),
        ("2**-1", HALF),
        ("8/4/2", sympy.Integer(1)),
        ("1-2-3", sympy.Integer(-4)),
        ("-1^0.5*3", sympy.Integer(-3)),
        ("log(4) - 2*log(2)", sympy.Integer(0)),
        ("max(1, 2, 0) + min([3, 4])", sympy.Integer(5)),
        ("abs(-3) + relu(-1) + sigmoid(0)", Rational(7, 2)),
    ],
)
def test_constants_are_exact(text: str, value: sympy.Expr) -> None:
    assert parse_constant(text, "x") == value


def random_arithmetic(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return str(rng.randint(0, 9))
    left, right = random_arithmetic(rng, depth - 1), random_arithmetic(rng, depth - 1)
    shape = rng.randrange(8)
    if shape == 0:
        return f"-{left}"
    if shape == 1:
        return f"({left})"
    if shape == 2:
        return f"{rng.randint(1, 5)}^{rng.choice(['', '-'])}{rng.randint(0, 3)}"
    return f"{left}{rng.choice(['+', ' - ', '*', ' / '])}{right}"


def test_precedence_is_pythons() -> None:
    rng = random.Random(7)
    checked = 0
    while checked < 200:
        text = random_arithmetic(rng, 5)
        python = "".join(f"F({c})" if c.isdigit() else "**" if c == "^" else c for c in text)
        try:
            value = eval(python, {"F": Fraction})
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="divides by zero"):
                parse_constant(text, "x")
            continue
        assert parse_constant(text, "x") == Rational(value.numerator, value.denominator), text
        checked += 1


@pytest.mark.parametrize(
    "text", ["", "w", "1/0", "sqrt(-1)", "[1, 2]", "1..2", "inf", "1;2", "10^10^10", "log(0)"]
)
def test_what_is_no_constant_is_refused_by_its_arguments_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"^at for w should be a constant"):
        parse_constant(text, "at for w")


def test_assignments() -> None:
    assert parse_assignments(" w = [1, 0],s=1/2 , y[1, 2]=[[1],\n[0.1]]", "at") == {
        "w": [1, 0],
        "s": HALF,
        "y[1,2]": [[1], [Rational(1, 10)]],
    }
    assert parse_assignments("", "at") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w", "expected ="),
        ("w=1,w=2", "w has a value already"),
        ("w=[1,[2]]", "same number of elements"),
        ("w[0]=1", "from 1 on, got 0"),
        ("a=1;b=2", "expected a comma"),
        ("a=b", "may not mention names"),
    ],
)
def test_bad_assignments_are_refused_by_their_arguments_name(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^data should be of the form") as caught:
        parse_assignments(text, "data")
    assert words in str(caught.value)


# Round trip

OPERATIONS: list[Callable[..., sympy.Expr]] = [
    lambda a, b: a + b,
    lambda a, b: a - 2 * b,
    lambda a, b: a * b,
    lambda a, b: a / (1 + b**2),
    lambda a, b: -a / 3,
    lambda a, b: (a + b) ** 3,
    lambda a, b: sympy.exp(a) ** 2 / sympy.sqrt(1 + b**2),
    lambda a, b: sympy.sin(a) * sympy.cos(b) + sympy.tanh(a),
    lambda a, b: sigmoid(a - b),
    lambda a, b: sympy.Abs(a) + sympy.Max(0, b),
    lambda a, b: sympy.Min(a, b, Rational(-7, 3)),
    lambda a, b: sympy.log(1 + a**2) * sympy.exp(1) - Rational(1, 7) * b,
    lambda a, b: (a**2 + 1) ** Rational(-2, 3) * 2**b,
]


def rebuilt(e: sympy.Expr) -> sympy.Expr:
    # SymPy sometimes leaves a form such as -(a + b), which it would not keep if it were typed in.
    return e.func(*[rebuilt(argument) for argument in e.args]) if e.args else e


def random_model(rng: random.Random) -> Model:
    m = Model("random")
    symbols = [m.parameter("a"), *m.parameter("w", 2), *m.parameter("V", (2, 2), domain=Interval(-1, 1))]
    scale = m.parameter("s", positive=True)
    k = m.latent("k", Categorical(*rng.choice([(HALF, HALF), (Rational(1, 3), Rational(2, 3))])))

    def expression(depth: int) -> sympy.Expr:
        if depth == 0:
            return rng.choice([*symbols, sympy.Integer(rng.randint(-3, 3)), Rational(rng.randint(-9, 9), 7)])
        if rng.random() < 0.1:
            return select(k, expression(depth - 1), expression(depth - 1))
        return rebuilt(rng.choice(OPERATIONS)(expression(depth - 1), expression(depth - 1)))

    symbols += m.latent("z", Normal(0, 1), 3)
    symbols += [m.latent("y[1]", Normal(0, 1)), m.latent("y[2]", Normal(expression(1), 1))]
    symbols += m.latent("v", MvNormal([0, expression(1)], [[2, symbols[0]], [symbols[0], 3]]))
    m.define("d", expression(2))
    m.observe("x", Normal(expression(3), scale * sympy.exp(expression(1))))
    m.observe(
        "u",
        Mixture([sigmoid(symbols[0]), 1 - sigmoid(symbols[0])], Normal(expression(2), 1), Normal(0, scale)),
    )
    m.observe("c", Poisson(sympy.exp(expression(1))), 2)
    m.observe("b", Bernoulli(sigmoid(expression(2))))
    m.observe("r", Normal(sympy.Matrix([[expression(1), 0], [1, expression(1)]]), scale), (2, 2))
    return m


@pytest.mark.parametrize("seed", range(12))
def test_a_model_survives_being_written_and_parsed(seed: int) -> None:
    m = random_model(random.Random(seed))
    assert_same(parse(written(m)), m)
    assert written(parse(written(m))) == written(m)


def test_rows_of_a_multivariate_draw_survive() -> None:
    m = parse("for i in 1..2: observe x[i] ~ MvNormal([a[i], 0], [[1, b], [b, 2]])")
    assert m.observation_names == ("x[1,1]", "x[1,2]", "x[2,1]", "x[2,2]")
    assert_same(parse(written(m)), m)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("parameter a; parameter b; summary a*b", ["a*b"]),
        ("summary [w[2], -b]", ["w[2]", "-b"]),
        ("parameter W[2, 2]; summary W @ [1, 0]", ["W[1,1]", "W[2,1]"]),
        ("for i in 1..2: summary i*a", ["a", "2*a"]),
        ("summary = 2; parameter known; summary [summary*known] @ [3]", ["6*known"]),
    ],
)
def test_a_model_may_consist_of_parameters_and_summaries(text: str, stated: list[str]) -> None:
    m = parse(text)
    assert [str(quantity) for quantity in m.summaries] == stated
    assert not m.observations and not m.latents
    assert_same(parse(written(m)), m)


def test_a_known_number_may_pick_a_group() -> None:
    m = parse("known g[2] in 1..2; for i in 1..2: observe y[i] ~ Normal(mu[g[i]], 1)")
    first, second = m.knowns
    assert [s.family.arguments[0].args[0] for s in m.observations] == [first, second]
    assert str(m.at({"g": [2, 1]}).observations[0].family) == "Normal(mu[2], 1)"


@pytest.mark.parametrize("domain", [sympy.FiniteSet(1, 4), Interval(0, 1) + Interval(2, 3)])
def test_what_the_notation_lacks_is_not_written(domain: sympy.Set) -> None:
    m = Model("m")
    m.parameter("a", domain=domain)
    with pytest.raises(ValueError, match="a has no text form"):
        written(m)
    m = Model("m")
    m.observe("x", Normal(sympy.atan(m.parameter("a")), 1))
    with pytest.raises(ValueError, match="no text form"):
        written(m)


# Fuzzing

PIECES = [
    *(
        "z",
        "x",
        "w",
        "mu",
        "k",
        " ",
        "\n",
        "\n  ",
        ";",
        "~",
        "=",
        "(",
        ")",
        "[",
        "]",
        ",",
        "+",
        "-",
        "*",
        "/",
        "^",
        "@",
    ),
    *(
        "..",
        ":",
        "for ",
        " in ",
        "observe ",
        "parameter ",
        "known ",
        "constraint ",
        "summary ",
        "Normal(",
        "Categorical(",
        "Mixture(",
        "MvNormal(",
        "exp(",
    ),
    *(
        "log(",
        "sqrt(",
        "max(",
        "select(",
        "sum(",
        "eye(",
        "transpose(",
        "0",
        "1",
        "2",
        "1.5",
        "1e400",
        "99999999",
    ),
    *("# c", "é", "²", "$", "\t", "\0", "inf", "constraint ", "z[1]", "1..3", "-x^2", "\r", "\u2028", "'"),
]


def random_text(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 40)))
    text = rng.choice(MEANINGS)[0]
    for _ in range(rng.randint(1, 5)):
        start = rng.randrange(len(text) + 1)
        stop = start + rng.choice([0, 0, 1, 4])
        text = text[:start] + rng.choice(["", rng.choice(PIECES)]) + text[stop:]
    return text


@pytest.mark.parametrize("seed", range(6))
def test_arbitrary_text_parses_or_is_refused_in_words(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(25):
        text = random_text(rng)
        for read in (
            parse,
            lambda text: parse_constant(text, "x"),
            lambda text: parse_assignments(text, "at"),
        ):
            try:
                found = read(text)
            except ValueError:
                continue
            if isinstance(found, Model):
                assert_same(parse(written(found)), found)

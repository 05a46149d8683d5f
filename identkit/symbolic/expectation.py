"""Exact expectations of polynomials in latents, one latent at a time, from the last drawn to the first.

Each family's raw moments are rational (for the normal: polynomial) in its arguments, so that the expectation
of a polynomial over a chain of latents is again an expression in the parameters: no integral is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from math import comb, factorial

import sympy
from sympy import Expr, Integer, S

from identkit.model import families
from identkit.model.noise_free import Exactly
from identkit.model.statement import Statement
from identkit.symbolic.blocks import finite_values
from identkit.symbolic.support import probability

MOST_STATES = 1024
"""Joint states of the labels beyond which no expectation is taken: the expression grows with each."""


def expectation(expression: Expr, latents: Sequence[Statement]) -> Expr | None:
    """``E f(z)`` over latents given in the order of drawing; None where some step is no polynomial.

    Factors that a latent does not enter stay outside its sum, so that sums over many labels stay small.

    >>> from identkit import Beta
    >>> a, b = sympy.symbols("a b", positive=True)
    >>> p = sympy.Symbol("p")
    >>> expectation(p * (1 - p), [Statement((p,), Beta(a, b))]).factor()
    a*b/((a + b)*(a + b + 1))
    """
    result: Expr | None = expression
    visited = 1
    for statement in reversed(latents):
        if result is None:
            return None
        if not result.has(*statement.symbols):
            continue
        outside, inside = [], []
        for factor in sympy.Mul.make_args(result):
            (inside if factor.has(*statement.symbols) else outside).append(factor)
        values = finite_values(statement)
        visited *= len(values or (1,))
        if visited > MOST_STATES:
            return None
        over = _over_moments if values is None else _over_states
        integrated = over(sympy.Mul(*inside), statement)
        result = None if integrated is None else sympy.Mul(*outside, integrated)
    return result


def _over_states(expression: Expr, statement: Statement) -> Expr:
    (symbol,) = statement.symbols
    terms = []
    for value in finite_values(statement) or ():
        weight = probability(statement.family, value)
        if weight != 0:
            terms.append(weight * expression.xreplace({symbol: value}))
    return sympy.Add(*terms)


def _over_moments(expression: Expr, statement: Statement) -> Expr | None:
    try:
        polynomial = sympy.Poly(expression, *statement.symbols)
    except sympy.PolynomialError:
        return None
    terms = []
    for powers, coefficient in polynomial.terms():
        moment = raw_moment(statement.family, powers)
        if moment is None:
            return None
        terms.append(coefficient * moment)
    return sympy.Add(*terms)


def raw_moment(family: families.Family, powers: Sequence[int]) -> Expr | None:
    """``E Π xᵢ^powers[i]`` of one draw, in closed form; None where it is infinite or not known here.

    >>> from identkit import Normal
    >>> m, s = sympy.symbols("m s")
    >>> raw_moment(Normal(m, s), (2,))
    m**2 + s**2
    """
    if not any(powers):
        return S.One
    rule = _RULES.get(type(family))
    return rule(family, powers) if rule else None


def _normal(family: families.Family, powers: Sequence[int]) -> Expr:
    if isinstance(family, families.Normal):
        mean, sd = family.arguments
        return _gaussian([mean], [[sd**2]], tuple(powers))
    mean, cov = family.arguments
    return _gaussian(list(mean), cov.tolist(), tuple(powers))


def _gaussian(mean: Sequence[Expr], cov: Sequence[Sequence[Expr]], powers: tuple[int, ...]) -> Expr:
    # Stein: E x_i f(x) = mean_i E f + Σ_j cov_ij E ∂_j f.
    if not any(powers):
        return S.One
    first = next(i for i, power in enumerate(powers) if power)
    rest = _less(powers, first)
    terms = [mean[first] * _gaussian(mean, cov, rest)]
    for other, power in enumerate(rest):
        if power and cov[first][other] != 0:
            terms.append(cov[first][other] * power * _gaussian(mean, cov, _less(rest, other)))
    return sympy.expand(sympy.Add(*terms))


def _less(powers: tuple[int, ...], index: int) -> tuple[int, ...]:
    return (*powers[:index], powers[index] - 1, *powers[index + 1 :])


def rising(base: Expr, count: int) -> Expr:
    """``base (base + 1) … (base + count − 1)``."""
    return sympy.Mul(*[base + i for i in range(count)])


def falling(base: Expr, count: int) -> Expr:
    """``base (base − 1) … (base − count + 1)``."""
    return sympy.Mul(*[base - i for i in range(count)])


def _dirichlet(family: families.Family, powers: Sequence[int]) -> Expr:
    weights = family.arguments
    if isinstance(family, families.Beta):
        # Beta(a, b) is the first coordinate of Dirichlet(a, b).
        powers = (*powers, 0)
    raised = [rising(weight, power) for weight, power in zip(weights, powers, strict=True)]
    return sympy.Mul(*raised) / rising(sympy.Add(*weights), sum(powers))


def _gamma(family: families.Family, powers: Sequence[int]) -> Expr:
    shape, rate = (S.One, *family.arguments) if isinstance(family, families.Exponential) else family.arguments
    return rising(shape, powers[0]) / rate ** powers[0]


def _uniform(family: families.Family, powers: Sequence[int]) -> Expr:
    low, high = family.arguments
    (power,) = powers
    return sympy.Add(*[low**i * high ** (power - i) for i in range(power + 1)]) / (power + 1)


def _laplace(family: families.Family, powers: Sequence[int]) -> Expr:
    location, scale = family.arguments
    (power,) = powers
    even = range(0, power + 1, 2)
    return sympy.Add(*[comb(power, i) * location ** (power - i) * factorial(i) * scale**i for i in even])


def _counted(
    factorial_moment: Callable[[families.Family, int], Expr],
) -> Callable[[families.Family, Sequence[int]], Expr]:
    # x^k = Σ_j S(k, j) x (x − 1) … (x − j + 1), with Stirling numbers of the second kind.
    def moment(family: families.Family, powers: Sequence[int]) -> Expr:
        (power,) = powers
        terms = [_stirling(power, j) * factorial_moment(family, j) for j in range(1, power + 1)]
        return sympy.Add(*terms)

    return moment


def _stirling(n: int, k: int) -> Integer:
    signed = [(-1) ** (k - i) * comb(k, i) * i**n for i in range(k + 1)]
    return Integer(sum(signed) // factorial(k))


def _categorical(family: families.Family, powers: Sequence[int]) -> Expr:
    return sympy.Add(*[state ** powers[0] * p for state, p in enumerate(family.arguments, 1)])


_RULES: dict[type[families.Family], Callable[[families.Family, Sequence[int]], Expr]] = {
    families.Normal: _normal,
    families.MvNormal: _normal,
    families.Beta: _dirichlet,
    families.Dirichlet: _dirichlet,
    families.Gamma: _gamma,
    families.Exponential: _gamma,
    families.Uniform: _uniform,
    families.Laplace: _laplace,
    families.Categorical: _categorical,
    families.Bernoulli: lambda family, powers: family.arguments[0],
    families.Binomial: _counted(lambda f, j: falling(f.arguments[0], j) * f.arguments[1] ** j),
    families.Poisson: _counted(lambda f, j: f.arguments[0] ** j),
    families.NegativeBinomial: _counted(lambda f, j: rising(f.arguments[0], j) * _odds(f.arguments[1]) ** j),
    families.Geometric: _counted(lambda f, j: factorial(j) * _odds(f.arguments[0]) ** j),
    Exactly: lambda family, powers: family.arguments[0] ** powers[0],
}


def _odds(p: Expr) -> Expr:
    return (1 - p) / p


def joint_moments(
    observations: Sequence[Statement], latents: Sequence[Statement], order: int
) -> tuple[Expr, ...] | None:
    """``E Π x^α`` of the observations for all |α| ≤ order: determined by the law, though not all of it.

    Given the latents the statements are independent: each moment is the expectation of a product of their
    own.
    """
    places = [(statement, i) for statement in observations for i in range(len(statement.symbols))]
    found = []
    for degree in range(1, order + 1):
        for chosen in combinations_with_replacement(range(len(places)), degree):
            own: dict[int, list[int]] = {}
            for place in chosen:
                statement, coordinate = places[place]
                first = place - coordinate
                own.setdefault(first, [0] * len(statement.symbols))[coordinate] += 1
            parts = [raw_moment(places[first][0].family, powers) for first, powers in own.items()]
            known = [part for part in parts if part is not None]
            whole = expectation(sympy.Mul(*known), latents) if len(known) == len(parts) else None
            if whole is None:
                return None
            found.append(whole)
    return tuple(found)

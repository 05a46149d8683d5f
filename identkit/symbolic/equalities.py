"""Parameters that an equation ties: with ``a - b = 0`` the law of ``Normal((a - b)*z, 1)`` is constant.

"Generic" means almost every value that the equations allow. Equations that give one parameter in terms of the others
are written into the model; parameters that other equations tie are no generic numbers, and nothing is concluded from
a trial value of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

import sympy
from sympy import Expr, FiniteSet, Symbol

from identkit.model.model import Model
from identkit.model.statement import Constraint
from identkit.symbolic.support import is_discrete


def with_equalities_solved(model: Model) -> Model:
    """The same model with every parameter replaced that an equation gives in terms of others.

    >>> from identkit.model.language import parse
    >>> model = with_equalities_solved(parse("constraint a - b = 0; z ~ Normal(0, 1); observe x ~ Normal((a - b)*z, 1)"))
    >>> model.observations[0].family.arguments[0]
    0
    """
    while True:
        step = next(_solutions(model), None)
        if step is None:
            return model
        symbol, value = step
        domain = model.parameters[symbol]
        ends = [value - domain.inf] * domain.inf.is_finite + [domain.sup - value] * domain.sup.is_finite
        model = model.replaced({symbol: value})
        model.constraints += [Constraint(end, "> 0") for end in ends if end.free_symbols]


def tied(model: Model) -> frozenset[Symbol]:
    """The parameters in equations that are not solved, so that a trial value of them may break one."""
    entering = set().union(*[s.family.free_symbols for s in (*model.latents, *model.observations)])
    bound = set().union(*[equation.free_symbols for equation in _equations(model)])
    return frozenset(bound & entering & set(model.domains))  # type: ignore[arg-type]


def _equations(model: Model) -> list[Expr]:
    """What is stated to be 0, and sums of probabilities that enter the law of the data."""
    stated = [c.expression for c in model.constraints if c.relation == "= 0"]
    seen = set().union(*[s.family.free_symbols for s in model.observations])
    sums = [c.expression - 1 for c in model.conditions() if c.domain == FiniteSet(1)]
    entering = [e for e in sums if e.free_symbols & seen & set(model.domains)]
    return [e for e in dict.fromkeys([*stated, *entering]) if sympy.expand(e) != 0]


def _solutions(model: Model) -> Iterator[tuple[Symbol, Expr]]:
    for equation in map(sympy.expand, _equations(model)):
        for symbol in sorted(equation.free_symbols & set(model.parameters), key=str, reverse=True):
            slope = equation.coeff(symbol)
            rest = equation - slope * symbol
            solvable = slope.is_Rational and slope != 0 and not rest.has(symbol)
            if not solvable or is_discrete(model.parameters[symbol]):
                continue
            if rest.free_symbols <= set(model.domains):
                yield symbol, -rest / slope

"""Laws compared: the same for two values of the latents, moved by one of them, or giving an expression back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import sympy
from sympy import Expr, Symbol

from identkit.model import balls
from identkit.model.families import Family, Mixture
from identkit.model.model import Model
from identkit.model.tape import Tape
from identkit.symbolic.certificates.points import generic, not_zero_almost_everywhere, point_of
from identkit.symbolic.certificates.zeros import log_of_tidy, zero
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import State, all_domains, is_finite, supported_states, takes_every_value

MOST_PAIRS = 32
"""Pairs of states that are tried before a law is not called one that moves."""


def read_off(
    formula: Expr,
    summary: Mapping[Symbol, Expr],
    known: Sequence[Symbol],
    state: State,
    model: Model,
    target: Expr,
) -> bool:
    """Whether a formula of the law, and of what is known, is identically the target, and divides by nothing that is 0."""
    law = conditional_law(model)
    allowed = {*known, *summary, *model.domains}
    here = [e.subs(list(state.items())) for e in law.expressions]
    if law.incomplete or not formula.free_symbols <= allowed or not set(summary.values()) <= set(here):
        return False
    written = list(summary.items())
    divisors = [power.base for power in formula.atoms(sympy.Pow) if not power.exp.is_positive]
    if not all(
        not_zero_almost_everywhere(divisor.subs(written).replace(sympy.log, log_of_tidy), model)
        for divisor in divisors
    ):
        return False
    return zero(formula.subs(written) - target)


def same_law(model: Model, here: Mapping[Symbol, Expr], there: Mapping[Symbol, Expr]) -> bool:
    """Whether the observations have one law at two values of the latents, statement by statement."""
    for statement in model.observations:
        try:
            one = statement.family.map(lambda e: e.xreplace(dict(here)))
            two = statement.family.map(lambda e: e.xreplace(dict(there)))
        except (ValueError, TypeError):
            return False
        if one != two and not equal_families(one, two):
            return False
    return True


def equal_families(one: Family, two: Family) -> bool:
    """Whether two distributions are one: by natural parameters and base measure, else by all that fixes the law."""
    if isinstance(one, Mixture) and isinstance(two, Mixture):
        return _equal_mixtures(one, two)
    x = tuple(Symbol(f"x{i}", real=True) for i in range(one.dimension))
    first, second = one.exponential_form(*x), two.exponential_form(*x)
    if first is None or second is None:
        pairs = zip(one.law, two.law, strict=True)
    else:
        pairs = zip((*first.natural, first.log_base), (*second.natural, second.log_base), strict=True)
    return all(zero(a - b) for a, b in pairs)


def _equal_mixtures(one: Mixture, two: Mixture) -> bool:
    # Enough for equality: the same weights on equal components, once equal components have been added up.
    remaining: list[tuple[Expr, Family]] = [(-w, c) for w, c in zip(two.weights, two.components, strict=True)]
    signed = [*zip(one.weights, one.components, strict=True), *remaining]
    totals: list[tuple[Expr, Family]] = []
    for weight, component in signed:
        for place, (total, other) in enumerate(totals):
            if component == other or equal_families(component, other):
                totals[place] = (total + weight, other)
                break
        else:
            totals.append((weight, component))
    return all(zero(total) for total, _ in totals)


def values_of(model: Model, latent: Symbol) -> list[Expr] | None:
    """The states of a finite latent; None for any other."""
    support = model.support(latent)
    return list(support) if is_finite(support) else None


def law_moves(model: Model, latent: Symbol) -> bool:
    """Whether the law is proved to change with a latent alone; by the likelihood of some datum where κ says too little."""
    domains = all_domains(model)
    finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
    rest = [s for s in model.latent_symbols if s not in finite]
    states = supported_states(model, finite)
    law = conditional_law(model)
    shown = (model.log_likelihood(),) if law.incomplete else law.expressions
    if states is None or not all(takes_every_value(model, s) for s in rest) or not generic(model, shown):
        return False
    tape = Tape(shown)
    for scale, attempt in product((1, 20, 1000), (1, 2, 3)):
        point = point_of({s: domains[s] for s in (*model.domains, *rest)}, attempt, scale)
        data = point_of({s: st.family.support for st in model.observations for s in st.symbols}, attempt, 1)
        moved = point_of({latent: domains[latent]}, -attempt - 3, scale)
        if latent in rest:
            pairs = [({**point, **state}, {**point, **state, **moved}) for state in states[:MOST_PAIRS]]
        else:
            pairs = [({**point, **one}, {**point, **other}) for one, other in _neighbours(latent, states)]
        for one, other in pairs:
            here, there = (balls.run_or_nan(tape, {**place, **data}, 384) for place in (one, other))
            if any(balls.excludes_zero(a - b) for a, b in zip(here, there, strict=True)):
                return True
    return False


def _neighbours(latent: Symbol, states: Sequence[State]) -> list[tuple[State, State]]:
    """States that differ in one latent alone, some of them spread over all states."""
    first: dict[tuple[Expr, ...], State] = {}
    pairs = []
    for state in states:
        others = tuple(value for symbol, value in state.items() if symbol != latent)
        if others in first:
            pairs.append((first[others], state))
        first.setdefault(others, state)
    return pairs[:: max(1, len(pairs) // MOST_PAIRS)]

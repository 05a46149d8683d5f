"""The two questions beyond the latents, as Problems: the parameters, and latents and parameters together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sympy import Dummy, Expr, FiniteSet, Interval, S, Set, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.symbolic.field import vanishes
from identkit.symbolic.injectivity import peel
from identkit.symbolic.marginal import marginal_law
from identkit.symbolic.problem import Problem
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import all_domains, is_discrete


@dataclass(frozen=True)
class Question:
    """A Problem with what its summary rests on.

    Attributes:
        problem: unknowns and κ; for a mixture κ lists the components in order.
        components: the rows of κ that the law determines only up to permutation.
        assumptions: conditions under which κ is the law.
        incomplete: what is missing for κ to be exhaustive, else empty.
        sufficient: where κ is not exhaustive: expressions that fix the law, so that parameters which leave them
            alone are not identifiable.
        method: how κ was found.
    """

    problem: Problem
    components: tuple[tuple[Expr, ...], ...] = ()
    assumptions: tuple[str, ...] = ()
    incomplete: str = ""
    sufficient: tuple[Expr, ...] = ()
    method: str = ""


def question(model: Model, about: str) -> Question:
    """The Problem behind ``about="parameters"`` (latents integrated out), ``"joint"`` or ``"latents"``.

    Raises:
        ValueError: if the model has no such unknowns.
    """
    if about == "latents":
        return _latents(model)
    return _parameters(model) if about == "parameters" else _joint(model)


def _open_domains(model: Model) -> dict[Symbol, Set]:
    """Where each symbol lies, intervals without their ends."""
    domains = {**all_domains(model), **model.knowns}
    return {symbol: domain.interior if domain.is_Interval else domain for symbol, domain in domains.items()}


def _with_ends(model: Model) -> frozenset[Symbol]:
    """Symbols whose domain contains an end of its interval."""
    domains = {**all_domains(model), **model.knowns}
    return frozenset(s for s, domain in domains.items() if domain.is_Interval and domain != domain.interior)


def _equalities(model: Model) -> tuple[Expr, ...]:
    """Stated constraints, and probabilities that sum to one only if their parameters see to it."""
    stated = [c.expression for c in model.constraints if c.relation == "= 0"]
    sums = [c.expression - 1 for c in model.conditions() if c.domain == FiniteSet(1)]
    return tuple(c for c in dict.fromkeys([*stated, *sums]) if not vanishes(c))


def _positive(model: Model, unknowns: tuple[Symbol, ...]) -> tuple[Expr, ...]:
    """Stated inequalities, and what scales and probabilities ask of the unknowns alone."""
    found = [c.expression for c in model.constraints if c.relation == "> 0"]
    for condition in model.conditions():
        if isinstance(condition.domain, Interval):
            low, high = condition.domain.inf, condition.domain.sup
            if low.is_finite:
                found.append(condition.expression - low)
            if high.is_finite:
                found.append(high - condition.expression)
    allowed = {*unknowns, *model.knowns}
    return tuple(e for e in dict.fromkeys(found) if e.free_symbols <= allowed and e.is_positive is not True)


def _parameters(model: Model) -> Question:
    if not model.parameters:
        raise ValueError(f"{model.name} has no free parameters to ask about")
    law = marginal_law(model)
    unknowns = tuple(model.parameters)
    equalities = _equalities(model)
    problem = Problem(
        unknowns,
        _open_domains(model),
        law.local,
        tuple(model.knowns),
        law.exhaustive,
        equalities,
        inequalities=_positive(model, unknowns),
        closed=_with_ends(model),
    )
    components = law.components if law.needs_components else ()
    return Question(problem, components, law.assumptions, law.incomplete, law.sufficient, law.method)


def _latents(model: Model) -> Question:
    """Continuous latents as unknowns; parameters and known numbers are generic but known."""
    law = conditional_law(model)
    problem = Problem(
        tuple(model.latent_symbols),
        _open_domains(model),
        _stripped([e for e in law.determined if e.free_symbols], model.latent_symbols),
        (*model.parameters, *model.knowns),
        not law.incomplete,
        (),
        model.log_prior(),
        tuple(model.latent_symbols),
        _positive(model, (*model.parameters, *model.latent_symbols)),
    )
    return Question(problem, (), law.assumptions, law.incomplete, (), "the law given the latents")


def _stripped(entries: Sequence[Expr], unknowns: Sequence[Symbol]) -> tuple[Expr, ...]:
    """The entries without their one-to-one outer layers: √u tells what u does. Only numbers other than 0 are divided by."""

    def may_divide(factor: Expr) -> bool:
        return not factor.free_symbols and balls.nonzero(factor)

    return tuple(peel(e, Dummy("y", real=True), unknowns, may_divide).inner for e in entries)


def _joint(model: Model) -> Question:
    if not model.latents:
        return _parameters(model)
    law = conditional_law(model)
    latents = model.latent_symbols
    unknowns = (*latents, *model.parameters)
    prior = model.log_prior() if not any(is_discrete(model.support(s)) for s in latents) else None
    problem = Problem(
        unknowns,
        _open_domains(model),
        _stripped([e for e in law.determined if e != S.Zero], unknowns),
        tuple(model.knowns),
        not law.incomplete,
        _equalities(model),
        prior,
        tuple(latents),
        _positive(model, unknowns),
        _with_ends(model),
    )
    return Question(problem, (), law.assumptions, law.incomplete, (), "the law given latents and parameters")

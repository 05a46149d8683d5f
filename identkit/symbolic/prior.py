"""Symmetries of the likelihood against the prior: which survive, and which unknowns only the prior holds (theory/T6)."""

from __future__ import annotations

from collections.abc import Sequence

import sympy
from sympy import Expr, S, Symbol
from sympy.polys.matrices import DomainMatrix

from identkit.model.balls import run_or_nan
from identkit.model.tape import Tape
from identkit.symbolic.certificates.zeros import certified_rank
from identkit.symbolic.field import Kernels, nonzero_point, points, vanishes
from identkit.symbolic.fields import Field, affine_fields
from identkit.symbolic.problem import Problem


def defect(move: Field, problem: Problem) -> Expr | None:
    """``X log p(z; θ) + div_z ξ_z``: 0 iff the field leaves the joint density's marginal alone; None without latents."""
    if problem.log_prior is None:
        return None
    drift = sympy.Add(*[e * problem.log_prior.diff(u) for u, e in move.items()])
    return drift + sympy.Add(*[e.diff(u) for u, e in move.items() if u in problem.latents])


def keeps_prior(move: Field, problem: Problem) -> bool | None:
    """Whether one field preserves the prior; None where that was not settled or there is none."""
    change = defect(move, problem)
    if change is None:
        return None
    if vanishes(change):
        return True if _stays_inside(move, problem) else None
    return False if nonzero_point(change, problem.domains) is not None else None


def _stays_inside(move: Field, problem: Problem) -> bool:
    """Whether nothing flows out at the ends of the latents' supports, as it would from under a flat prior."""
    for u in problem.latents:
        domain = problem.domains[u]
        if u not in move or domain == S.Reals:
            continue
        ends = [end for end in (domain.inf, domain.sup) if end.is_finite]
        if not ends or not all(vanishes(move[u].subs(u, end)) for end in ends):
            return False
    return True


def prior_first(problem: Problem, fields: Sequence[Field]) -> list[Field]:
    """Fields that span the same directions, those that keep the prior first.

    A family may keep the prior only in combinations (none of gl(2)'s elementary fields does, their differences do):
    the sub-basis that keeps it is solved for linearly.
    """
    kept = _keeping(problem, fields)
    if not kept or len(fields) < 2:
        return list(fields)
    unknowns = [u for u in problem.unknowns if any(u in move for move in fields)]
    basis: list[Field] = []
    for move in (*kept, *fields):
        if _independent([*basis, move], unknowns, problem):
            basis.append(move)
    return basis if len(basis) == len(fields) else list(fields)


def prior_identified(problem: Problem, fields: Sequence[Field]) -> tuple[str, ...]:
    """The unknowns that only fields which break the prior set free."""
    if problem.log_prior is None or not fields:
        return ()
    still = {u for move in _keeping(problem, fields) for u in move}
    return tuple(u.name for u in problem.unknowns if any(u in move for move in fields) and u not in still)


def _keeping(problem: Problem, fields: Sequence[Field]) -> list[Field]:
    """Combinations, with constant coefficients, of these and of all affine null fields that keep the prior."""
    if problem.log_prior is None or not fields:
        return []
    moved = {u for move in fields for u in move}
    # f·X is null with X, so a basis over functions is no basis for constant combinations: take all affine fields.
    linear = affine_fields(problem, [u for u in problem.unknowns if u in moved])
    return _combinations(problem, [*fields, *linear])


def _independent(fields: Sequence[Field], unknowns: Sequence[Symbol], problem: Problem) -> bool:
    """Whether the fields are independent at some point."""
    tape = Tape([move.get(u, S.Zero) for move in fields for u in unknowns])
    for point in points(problem.domains, 2):
        values = run_or_nan(tape, point, 192)
        width = len(unknowns)
        if certified_rank([values[i : i + width] for i in range(0, len(values), width)]) == len(fields):
            return True
    return False


def _combinations(problem: Problem, fields: Sequence[Field]) -> list[Field]:
    kernels = Kernels()
    numerators = kernels.numerators([defect(move, problem) or S.Zero for move in fields])
    symbols = sorted(set().union(*[n.free_symbols for n in numerators], set()), key=str)
    if not symbols:
        return [move for move, n in zip(fields, numerators, strict=True) if n == 0]
    table: dict[tuple[int, ...], list[Expr]] = {}
    for column, numerator in enumerate(numerators):
        for monomial, coefficient in sympy.Poly(numerator, *symbols).terms():
            table.setdefault(monomial, [S.Zero] * len(fields))[column] = coefficient
    matrix = DomainMatrix.from_Matrix(sympy.Matrix(list(table.values()))).to_field()
    kept = []
    for vector in matrix.nullspace().to_Matrix().tolist():
        total: dict[Symbol, Expr] = {}
        for weight, move in zip(vector, fields, strict=True):
            for u, e in move.items():
                total[u] = sympy.expand(total.get(u, S.Zero) + weight * e)
        kept.append({u: e for u, e in total.items() if e != 0})
    return kept

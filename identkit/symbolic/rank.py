"""The generic rank of κ's Jacobian, and which unknowns move along the fibres (theory, "Generic rank").

Full rank at one point of a prime field proves full generic rank. A deficient rank, and that a unit vector lies
outside the row space, hold with a stated probability of error (Schwartz–Zippel): exact null fields, found elsewhere,
turn that into proof.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import flint
from sympy import Symbol

from identkit.symbolic.modular import PRIMES, Evaluator
from identkit.symbolic.problem import Problem

_POINTS = 2


@dataclass(frozen=True)
class RankReport:
    """What the Jacobian says at a generic point.

    Attributes:
        rank: the generic rank of κ (and the constraints) together.
        deficiency: number of unknowns minus the rank, the dimension of the generic fibre.
        free: unknowns that vary along the generic fibre.
        upper_only: whether the rank is an upper bound only (opaque functions, numeric constants).
        error: a bound on the probability that rank or `free` is wrong.
    """

    rank: int
    deficiency: int
    free: tuple[Symbol, ...]
    upper_only: bool
    error: float


def generic_rank(problem: Problem) -> RankReport:
    """Rank, deficiency and the unknowns that a generic fibre leaves free.

    Raises:
        Unsupported: if κ has no image in a prime field.

    >>> import sympy
    >>> a, b = sympy.symbols("a b", real=True)
    >>> generic_rank(Problem((a, b), {}, (a * b,)))
    RankReport(rank=1, deficiency=1, free=(a, b), upper_only=False, error=...)
    """
    chance = random.Random(0)
    best: tuple[int, frozenset[int]] = (-1, frozenset())
    evaluator = None
    for prime in PRIMES[:_POINTS]:
        evaluator = Evaluator(problem.summary, problem.unknowns, problem.constraints, prime)
        _, jacobian = evaluator.at(evaluator.draw(chance))
        rank, fixed = row_space(jacobian, prime)
        # Bad luck only lowers a rank and only loses fixed unknowns among those of full rank.
        best = max(best, (rank, fixed), key=lambda pair: (pair[0], len(pair[1])))
    assert evaluator is not None
    rank, fixed = best
    free = tuple(u for i, u in enumerate(problem.unknowns) if i not in fixed)
    return RankReport(
        rank=rank,
        deficiency=len(problem.unknowns) - rank,
        free=free,
        upper_only=evaluator.opaque or evaluator.constants,
        error=_error(problem),
    )


def row_space(matrix: list[list[int]], prime: int) -> tuple[int, frozenset[int]]:
    """The rank of a matrix over a prime field, and the columns whose unit vector lies in its row space."""
    if not matrix or not matrix[0]:
        return 0, frozenset()
    flat = [entry % prime for row in matrix for entry in row]
    reduced, rank = flint.nmod_mat(len(matrix), len(matrix[0]), flat, prime).rref()
    fixed = set()
    for i in range(rank):
        entries = [j for j in range(len(matrix[0])) if int(reduced[i, j]) != 0]
        if len(entries) == 1:
            fixed.add(entries[0])
    return rank, frozenset(fixed)


def _error(problem: Problem) -> float:
    # A minor's degree is at most (unknowns × the degree of an entry's numerator and denominator); two points.
    degree = max((_degree(expression) for expression in problem.summary), default=1)
    per_point = min(1.0, 4 * len(problem.unknowns) * len(problem.unknowns) * max(degree, 1) / PRIMES[0])
    return per_point**_POINTS


def _degree(expression: object) -> int:
    import sympy

    def bound(e: sympy.Expr) -> int:
        if e.is_Symbol:
            return 1
        if not e.args:
            return 0
        if isinstance(e, sympy.Mul):
            return sum(bound(a) for a in e.args)
        if isinstance(e, sympy.Pow) and e.exp.is_Rational:
            return bound(e.base) * max(abs(int(e.exp.p)), 1)
        # A sum over a common denominator, and a kernel with what it is a kernel of.
        return sum(bound(a) for a in e.args) + 1

    return bound(expression)  # type: ignore[arg-type]

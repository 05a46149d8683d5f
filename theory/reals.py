"""Proofs over the real numbers by z3: a statement about all models of a given size at once.

z3's nonlinear real arithmetic is a decision procedure: ``unsat`` for the negation is a proof for every real value of
the masses and likelihoods, not for samples of them. Whatever is not ``unsat`` within the time counts as unproved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MILLISECONDS = 20_000


def reals(name: str, count: int) -> list[Any]:
    """Name so many real unknowns."""
    import z3  # a test-time dependency: only who proves pays for it

    return [z3.Real(f"{name}{number}") for number in range(count)]


def a_law(masses: Sequence[Any]) -> list[Any]:
    """The constraints of a law: no negative mass, sum one."""
    import z3

    return [*[mass >= 0 for mass in masses], z3.Sum(list(masses)) == 1]


def iff(one: Any, other: Any) -> Any:
    """Two statements that hold together or not at all."""
    return one == other


def every(statements: Sequence[Any]) -> Any:
    """All of them; true of none."""
    import z3

    return z3.And(*statements) if statements else z3.BoolVal(True)


def implied(premise: Any, conclusion: Any) -> Any:
    """The one follows from the other."""
    import z3

    return z3.Implies(premise, conclusion)


def proved(hypotheses: Sequence[Any], conclusion: Any) -> bool:
    """Whether the conclusion follows from the hypotheses for all reals.

    >>> a, b = reals("a", 2)
    >>> proved([a > b, b > 0], a * a > b * b), proved([a > b], a * a > b * b)
    (True, False)
    """
    import z3

    solver = z3.Solver()
    solver.set("timeout", _MILLISECONDS)
    solver.add(*hypotheses, z3.Not(conclusion))
    return solver.check() == z3.unsat

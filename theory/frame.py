"""What a check of a theorem returns, and how instances become one.

A check is a function ``name(share, claim)``. `share` scales the number of random instances. `claim` is the formula or
the assumption under test, the true one by default: tests pass a false one to see that the check can fail.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

How = Literal["z3", "symbolic", "exact", "numeric", "simulated"]
"""z3: unsatisfiable negation over the reals. symbolic: a SymPy identity. exact: rational arithmetic on instances.
numeric: floats or 50 digits against quadrature. simulated: Monte Carlo, within its error."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One line of the table: a statement, what of it was checked, on how many instances, and whether all held."""

    statement: str
    what: str
    how: How
    instances: int
    result: bool
    detail: str = ""
    """The first instance that failed."""


def tried(statement: str, what: str, how: How, outcomes: Iterable[tuple[bool, str]]) -> Checked:
    """Go through ``(holds, instance)`` until one fails; a check of nothing has failed.

    >>> tried("T0", "squares are not negative", "exact", ((n * n >= 0, f"n = {n}") for n in range(-3, 4)))
    Checked(statement='T0', what='squares are not negative', how='exact', instances=7, result=True, detail='')
    >>> tried("T0", "nothing", "exact", ()).result
    False
    """
    count = 0
    for holds, instance in outcomes:
        count += 1
        if not holds:
            return Checked(
                statement=statement, what=what, how=how, instances=count, result=False, detail=instance
            )
    return Checked(
        statement=statement,
        what=what,
        how=how,
        instances=count,
        result=count > 0,
        detail="" if count else "no instance was tried",
    )


def draws(count: int, share: float, name: str) -> Iterator[random.Random]:
    """Yield a source of randomness for each of about ``count·share`` instances, the same ones at every run.

    >>> [rng.randint(0, 9) for rng in draws(1000, 0.003, "example")]
    [3, 7, 2]
    """
    for number in range(max(2, round(count * share))):
        yield random.Random(f"{name} {number}")

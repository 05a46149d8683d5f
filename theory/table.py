"""All checks in order, run and shown as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from theory import (
    t1_collapse,
    t2_fibres,
    t2_levels,
    t3_coordinates,
    t3_statistics,
    t4_gradient,
    t4_identity,
    t4_oscillation,
    t4_truncation,
    t4_variance,
    t5_brenier,
    t5_information,
    t5_likelihood,
    t5_simulation,
    t6_parameters,
    t6_singular,
    t6_symmetries,
)
from theory.frame import Checked

MODULES = (
    *(t1_collapse, t2_fibres, t2_levels, t3_coordinates, t3_statistics),
    *(t4_identity, t4_oscillation, t4_variance, t4_gradient, t4_truncation),
    *(t5_brenier, t5_likelihood, t5_information, t5_simulation),
    *(t6_parameters, t6_symmetries, t6_singular),
)
"""One for each statement, in the order of the theory."""


def checked(share: float = 1.0) -> Iterator[Checked]:
    """Run every check of every module, in order, on `share` of its instances."""
    for module in MODULES:
        for check in module.CHECKS:
            yield check(share)


def lines(results: Iterable[Checked]) -> Iterator[str]:
    r"""Yield the table line by line as results come in: statement, what was checked, how, instances, result.

    >>> one = Checked(statement="T1", what="a", how="exact", instances=3, result=False, detail="P = 0")
    >>> print("\n".join(lines([one])))
    statement  checked  how        instances  result
    T1         a        exact              3  FAILS
               first failure: P = 0
    """
    yield f"{'statement':<11}{'checked':<84}{'how':<11}{'instances':>9}  result"
    for each in results:
        told = "holds" if each.result else "FAILS"
        yield f"{each.statement:<11}{each.what:<84}{each.how:<11}{each.instances:>9,}  {told}"
        if each.detail:
            yield f"{'':<11}first failure: {each.detail}"


def as_json(results: Sequence[Checked]) -> str:
    """Give the same as a JSON array of objects."""
    return json.dumps([asdict(each) for each in results], indent=2, ensure_ascii=False)

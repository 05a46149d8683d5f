"""Whether a map moves points that meet the constraints: exchanging a and b moves no point at which a = b."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import sympy
from numpy.typing import NDArray
from sympy import Expr, Symbol

from identkit.symbolic.problem import Problem

_STEPS, _RESIDUAL, _MOVED = 80, 1e-11, 1e-3


def moves_what_is_allowed(
    change: Mapping[Symbol, Expr], problem: Problem, starts: Sequence[Mapping[Symbol, Expr]]
) -> bool:
    """Whether every unknown of the map is moved, and stays inside, at a point of the constraints near one of the starts.

    >>> a, b = sympy.symbols("a b", real=True)
    >>> line = Problem((a, b), {a: sympy.S.Reals, b: sympy.S.Reals}, (a * b,), constraints=(a - b,))
    >>> start = [{a: 1, b: 2}]
    >>> moves_what_is_allowed({a: b, b: a}, line, start), moves_what_is_allowed({a: -a, b: -b}, line, start)
    (False, True)
    """
    if not problem.constraints:
        return True
    moved: set[Symbol] = set()
    for start in starts:
        point = _on_constraints(problem, start)
        if point is None or not _inside(problem, point):
            continue
        images = {s: complex(sympy.N(e.subs(list(point.items())))) for s, e in change.items()}
        if any(abs(image.imag) > _RESIDUAL for image in images.values()):
            return False
        if not _inside(problem, {**point, **{s: image.real for s, image in images.items()}}):
            return False
        moved |= {s for s, image in images.items() if abs(image.real - point[s]) > _MOVED}
    return moved == set(change)


def _inside(problem: Problem, point: Mapping[Symbol, float]) -> bool:
    # By ends, for the domains are intervals; a little room for rounding.
    within = all(
        float(problem.domains[s].inf) - 1e-9 <= v <= float(problem.domains[s].sup) + 1e-9  # type: ignore[arg-type]
        for s, v in point.items()
    )
    return within and all(sympy.N(e.subs(list(point.items()))) > -1e-9 for e in problem.inequalities)


def _on_constraints(problem: Problem, start: Mapping[Symbol, Expr]) -> dict[Symbol, float] | None:
    """Gauss-Newton steps of least length, from the start to a point where the constraints hold."""
    place: NDArray[np.float64] = np.array([float(start[u]) for u in problem.unknowns])
    fixed = {s: float(start[s]) for s in problem.known}
    written = [[e, *[e.diff(u) for u in problem.unknowns]] for e in problem.constraints]
    for _ in range(_STEPS):
        here = [*fixed.items(), *zip(problem.unknowns, place.tolist(), strict=True)]
        table = [[complex(sympy.N(e.subs(here))) for e in row] for row in written]
        rows = np.array(table)
        if not np.isfinite(rows).all() or np.abs(np.imag(rows)).max() > 0:
            return None
        values, slopes = np.real(rows)[:, 0], np.real(rows)[:, 1:]
        if np.abs(values).max() < _RESIDUAL:
            return dict(zip([*problem.unknowns, *fixed], [*place.tolist(), *fixed.values()], strict=True))
        place = place - np.linalg.lstsq(slopes, values, rcond=None)[0]
    return None

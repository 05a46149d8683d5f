"""The search for dead regions: cells of a kinked law in which it ignores a direction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sympy import Expr, Set, Symbol

from identkit.model.model import Model
from identkit.symbolic.cells import FlatCell, smooth_near
from identkit.symbolic.certificates import Point
from identkit.symbolic.field import points
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import all_domains
from identkit.symbolic.symmetry import null_directions

_TRIALS = 160


def cells(expressions: Sequence[Expr], domains: Mapping[Symbol, Set]) -> Iterator[tuple[Point, list[Expr]]]:
    """Cells that were met: a point inside, and the expressions as they are there. There may be others."""
    inside = {s: domains[s] for e in expressions for s in e.free_symbols}  # type: ignore[index]
    met: set[tuple[Expr, ...]] = set()
    for point in points(inside, _TRIALS, seed=9):
        written = [smooth_near(expression, point) for expression in expressions]
        if any(e is None for e in written):
            continue
        found = tuple(e for e in written if e is not None)
        if found not in met:
            met.add(found)
            yield point, list(found)


def flat_cells(model: Model, latents: Sequence[Symbol]) -> list[FlatCell]:
    """Dead regions of the law: for each of the latents that has one, a claim with a point in it."""
    law = conditional_law(model)
    seen = [e for e in law.expressions if e.has(*latents)]
    found: list[FlatCell] = []
    for point, written in cells(seen, all_domains(model)):
        for direction in null_directions(written, list(latents)):
            known = {name for claim in found for name in claim.direction}
            if set(direction) - known:
                found.append(FlatCell(direction, point))
    return found

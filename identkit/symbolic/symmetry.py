"""Directions that the law cannot see: exact null vectors of κ, and simple maps that leave κ as it is."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import sympy
from sympy import Dummy, Expr, Rational, S, Symbol
from sympy.polys.matrices import DomainMatrix

from identkit.model.balls import run_or_nan
from identkit.model.tape import Tape
from identkit.symbolic.field import Kernels, some_point, vanishes
from identkit.symbolic.regularity import analytic

Vector = dict[Symbol, Expr]
"""A direction: the non-zero components by latent."""


def null_directions(summary: Sequence[Expr], latents: Sequence[Symbol]) -> list[Vector]:
    """A basis of the constant vectors v with ``Σ vⱼ ∂κ/∂zⱼ = 0`` everywhere: translations that nobody notices.

    v may depend on parameters, not on latents. Each vector is checked exactly before it is returned.

    >>> z1, z2, w = sympy.symbols("z1 z2 w", real=True)
    >>> null_directions([z1 + w*z2], [z1, z2])
    [{z1: -w, z2: 1}]
    """
    if _spanned(summary, latents):
        return []
    rows: list[list[Expr]] = []
    for expression in summary:
        rows += _conditions([expression.diff(latent) for latent in latents], latents)
    found = []
    for vector in _nullspace(rows, len(latents)):
        direction = {latent: entry for latent, entry in zip(latents, vector, strict=True) if entry != 0}
        along = [sympy.Add(*[e.diff(latent) * entry for latent, entry in direction.items()]) for e in summary]
        if direction and all(vanishes(change) for change in along) and _keeps(direction, summary):
            found.append(direction)
    return found


def _keeps(direction: Vector, summary: Sequence[Expr]) -> bool:
    # |z|/z has slope 0 wherever it has one, and yet it jumps: only without kinks do slopes say all.
    t = Dummy("t", real=True)
    moved = {latent: latent + t * entry for latent, entry in direction.items()}
    return all(analytic(e) or vanishes(e.subs(moved, simultaneous=True) - e) for e in summary)


def _spanned(summary: Sequence[Expr], latents: Sequence[Symbol]) -> bool:
    # Gradients at a few points that span everything leave no direction to look for; nothing is claimed from it.
    slopes = [[expression.diff(latent) for latent in latents] for expression in summary]
    symbols = {symbol for expression in summary for symbol in expression.free_symbols}
    try:
        tape = Tape([entry for row in slopes for entry in row])
    except NotImplementedError:
        return False
    chance = random.Random(0)
    for start in (1, 2, 4):
        fixed = {
            symbol: value for symbol, value in some_point(symbols, start).items() if symbol not in latents
        }
        gradients = []
        for attempt in range(1, 8 + 2 * len(latents)):
            # Far apart, too, so that each argument of a max has its turn.
            point = {
                symbol: value * Rational(chance.randint(1, 40), 10)
                if symbol.is_nonnegative is None
                else value
                for symbol, value in some_point(symbols, attempt).items()
            }
            balls = run_or_nan(tape, {**point, **fixed}, 128)
            values = [float(v.mid()) * (0 not in v or not v.is_finite()) for v in balls]
            table = np.reshape(values, (len(slopes), len(latents)))
            shaped = [row / np.abs(row).max() for row in table if np.isfinite(row).all() and np.any(row)]
            gradients += [row / np.linalg.norm(row) for row in shaped]
        if len(gradients) >= len(latents):
            sizes = np.linalg.svd(np.array(gradients), compute_uv=False)
            if sizes[-1] > 1e-6 * sizes[0]:
                return True
    return False


def _conditions(slopes: Sequence[Expr], latents: Sequence[Symbol]) -> list[list[Expr]]:
    # One linear equation in v per monomial in whatever contains a latent.
    kernels = Kernels()
    numerators = kernels.numerators(slopes)
    moving = sorted(
        {
            symbol
            for numerator in numerators
            for symbol in numerator.free_symbols
            if kernels.depends_on(symbol) & set(latents)  # type: ignore[arg-type]
        },
        key=str,
    )
    if not moving:
        return [list(slopes)] if any(numerator != 0 for numerator in numerators) else []
    table: dict[tuple[int, ...], list[Expr]] = {}
    for column, numerator in enumerate(numerators):
        for monomial, coefficient in sympy.Poly(numerator, *moving).terms():
            table.setdefault(monomial, [S.Zero] * len(slopes))[column] = coefficient
    return list(table.values())


def _nullspace(rows: Sequence[Sequence[Expr]], width: int) -> list[list[Expr]]:
    if not rows:
        return [[S.One if i == j else S.Zero for j in range(width)] for i in range(width)]
    matrix = DomainMatrix.from_Matrix(sympy.Matrix(rows)).to_field()
    return [_cleared(list(row)) for row in matrix.nullspace().to_Matrix().tolist()]


def _cleared(vector: list[Expr]) -> list[Expr]:
    denominators = [sympy.fraction(sympy.together(entry))[1] for entry in vector]
    common = sympy.lcm_list(denominators)
    cleared = [sympy.cancel(entry * common) for entry in vector]
    content = sympy.gcd_list(cleared)
    return [sympy.cancel(entry / content) for entry in cleared] if content not in (0, 1) else cleared


def left_inverse(rows: Sequence[Sequence[Expr]]) -> dict[int, list[Expr]]:
    """For each column j that is determined by ``A z``: coefficients c with ``c A = e_j``; others are left out."""
    matrix = sympy.Matrix(rows)
    height, width = matrix.shape
    domain = DomainMatrix.from_Matrix(matrix.row_join(sympy.eye(height))).to_field()
    reduced, pivots = domain.rref()
    table = reduced.to_Matrix()
    found = {}
    for row, pivot in enumerate(pivots):
        if pivot < width and all(table[row, column] == 0 for column in range(width) if column != pivot):
            found[pivot] = list(table[row, width:])
    return found

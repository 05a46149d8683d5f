"""Singular values and ranks with proof: floats propose, interval and modular arithmetic decide."""

from __future__ import annotations

import math

import flint
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.numeric import intervals
from identkit.numeric.intervals import Interval, negative, point

PRIME = (1 << 61) - 1
"""2⁶¹ − 1, a prime: a rank modulo it is at most the rank over the rationals."""


def singular_bounds(matrix: Interval) -> tuple[float, float]:
    """Bound the extreme singular values of every matrix (p, k), p ≥ k, in the interval: (below σ_min, above σ_max).

    With an approximate V of right singular vectors, ``G = (WV)ᵀ(WV)`` is almost diagonal, and Gershgorin's discs,
    computed with directed rounding, bound ``‖WVx‖/‖x‖``. V is orthogonal only almost: ``‖x‖ ≤ ‖V‖ ‖V⁻¹x‖`` gives
    ``σ_min(W) ≥ σ_min(WV)/‖V‖``, and ``σ_max(W) ≤ σ_max(WV)·‖V⁻¹‖``, with ``‖V‖²`` and ``‖V⁻¹‖⁻²`` from the discs of
    ``VᵀV``. The lower bound is 0 where nothing better is proved.
    """
    rows, columns = matrix.low.shape
    if not bool((torch.isfinite(matrix.low) & torch.isfinite(matrix.high)).all()):
        return 0.0, math.inf
    if rows < columns:
        return 0.0, singular_bounds(Interval(matrix.low.T, matrix.high.T))[1]
    if columns == 0:
        return math.inf, 0.0
    vectors = point(_right_vectors(matrix.middle))
    low, high = _discs(intervals.matmul(matrix, vectors))
    v_low, v_high = _discs(vectors)
    if v_low <= 0:
        return 0.0, norm_of_magnitude(matrix)  # V says nothing: its columns are no basis
    least = math.sqrt(max(0.0, low)) / math.sqrt(v_high)
    return max(rounded_down(least, 8), 0.0), rounded_up(math.sqrt(max(0.0, high)) / math.sqrt(v_low), 8)


def _right_vectors(matrix: Tensor) -> Tensor:
    """Eigenvectors of WᵀW; of a scaled W, lest squares overflow."""
    scale = matrix.abs().amax().clamp(min=1e-300)
    scaled = matrix / scale
    return torch.linalg.eigh(scaled.T @ scaled).eigenvectors


def _discs(matrix: Interval) -> tuple[float, float]:
    """Bounds of the eigenvalues of MᵀM for every M in the interval."""
    gram = intervals.matmul(Interval(matrix.low.T, matrix.high.T), matrix)
    radius = gram.magnitude.fill_diagonal_(0.0)
    row = intervals.total(point(radius)).high
    low = intervals.add(Interval(gram.low.diagonal(), gram.high.diagonal()), Interval(-row, row))
    return float(low.low.min()), float(low.high.max())


def rounded_down(value: float, steps: int) -> float:
    """Some floats lower: what so many correctly rounded operations on positive numbers may have added."""
    return value if math.isinf(value) else value * (1 - steps * 2.0**-52)


def rounded_up(value: float, steps: int) -> float:
    """As many floats higher."""
    return value * (1 + steps * 2.0**-52) + 1e-300


def norm_bound(matrix: Interval) -> float:
    """A bound of the spectral norm."""
    wide = matrix.low.shape[0] < matrix.low.shape[1]
    tall = Interval(matrix.low.T, matrix.high.T) if wide else matrix
    return singular_bounds(tall)[1]


def has_full_column_rank(matrix: Interval) -> bool:
    """Whether every matrix (p, k) in the interval has rank k.

    By singular values; for one exact matrix also modulo a prime, which decides where rounding cannot.
    """
    rows, columns = matrix.low.shape
    if rows < columns:
        return False
    if singular_bounds(matrix)[0] > 0 or _by_left_inverse(matrix) is not None:
        return True
    return bool(matrix.is_point.all()) and rank_modulo(matrix.low) == columns


def rank_modulo(matrix: Float[Tensor, "p k"]) -> int:
    """The rank of a matrix of floats modulo a prime, which its exact rank is at least.

    >>> rank_modulo(torch.tensor([[0.1, 0.3], [1.0, 3.0]], dtype=torch.float64))  # the floats 0.1 and 0.3
    2
    """
    rows, columns = matrix.shape
    residues = [_residue(value) for value in matrix.flatten().tolist()]
    return int(flint.nmod_mat(rows, columns, residues, PRIME).rank())


def _residue(value: float) -> int:
    top, bottom = value.as_integer_ratio()
    return top * pow(bottom, -1, PRIME) % PRIME if bottom > 1 else top % PRIME


def lower_bound(slopes: Interval) -> float | None:
    """A constant m > 0 with ``‖Sx‖ ≥ m‖x‖`` for every matrix (p, k) in the interval; None where none is proved.

    So a map with these slopes on a convex set, ``f(z) − f(z′) = S(z − z′)``, is one-to-one. By one of:

    * ``sup ‖I − A S‖ ≤ c < 1`` with A a left inverse of the midpoint: ``‖Sx‖ ≥ (1 − c)‖x‖/‖A‖``;
    * p = k and ``xᵀSx ≥ m‖x‖²`` for all x ≠ 0, by the Gershgorin discs of ``(S + Sᵀ)/2`` from below, which bounds
      one-sidedly and so allows infinite upper ends on the diagonal (Gale & Nikaido 1965).
    """
    rows, columns = slopes.low.shape
    if rows < columns:
        return None
    found = _by_left_inverse(slopes)
    return found if found is not None or rows != columns else _by_positivity(slopes)


def _by_left_inverse(slopes: Interval) -> float | None:
    if not bool((torch.isfinite(slopes.low) & torch.isfinite(slopes.high)).all()):
        return None
    inverse = point(torch.linalg.pinv(slopes.middle))
    if not bool(torch.isfinite(inverse.low).all()):
        return None
    product = intervals.matmul(inverse, slopes)
    rest = intervals.add(point(torch.eye(slopes.low.shape[1], dtype=torch.float64)), negative(product))
    size = norm_of_magnitude(rest)
    if not size < 1:
        return None
    return rounded_down((1 - size) / norm_bound(inverse), 8)


def norm_of_magnitude(matrix: Interval) -> float:
    """``√(‖M‖₁‖M‖_∞)``, which the spectral norm does not exceed."""
    size = point(matrix.magnitude)
    one = float(intervals.total(Interval(size.low.T, size.high.T)).high.max())
    infinity = float(intervals.total(size).high.max())
    return rounded_up(math.sqrt(one * infinity), 4)


def _by_positivity(slopes: Interval) -> float | None:
    if not bool(torch.isfinite(slopes.low.diagonal()).all()):
        return None
    both = intervals.add(slopes, Interval(slopes.low.T, slopes.high.T))
    off = both.magnitude.fill_diagonal_(0.0)
    row = intervals.total(point(off)).high
    least = float(intervals.add(point(both.low.diagonal()), point(-row)).low.min()) / 2
    return rounded_down(least, 4) if least > 0 and math.isfinite(least) else None

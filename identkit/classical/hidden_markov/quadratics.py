"""Gaussian log densities of many steps at all states: one matrix product where that costs no digits.

Multiplied out, ``log N(x; μ_k, C_k)`` is a sum over the coordinates of ``r = x − m`` and their products, with m in the
midst of the means: one row of weights a state, so that all steps take one product. It is off by no more than F roundings
of the sum of its terms' sizes (Higham 2002, section 3.1). For data within 8 sds of a state those are known beforehand;
where they are large (states far apart, or coordinates nearly dependent) differences are squared instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

_EPS = 2.0**-52
_CLOSE = 2.0**-37
"""Up to this bound on its error, in nats, the product is taken."""
_WITHIN = 8.0
"""For data within so many sds of a state; what is farther from all of them is taken by ratios anyway."""
_WIDE = 4
"""So many times as many products as states may be held."""


@dataclass(frozen=True)
class Quadratics:
    """``log N(x; μ_k, C_k)`` of K states, called with steps (s, N, d) for a table (s, K, N), in nats."""

    means: Array
    """(K, d)."""
    roots: Array
    """A_k with ``A_kᵀ A_k = C_k⁻¹``: (K, d, d), or (K, d) where all are diagonal."""
    half_log_det: Array
    """``½ log det 2πC_k``, (K,)."""
    centre: Array
    """m, (d,)."""
    weights: Array | None
    """What the coordinates of r, their products and 1 are multiplied by, (K, F); None where differences are taken."""

    @classmethod
    def of(cls, means: Array, covariances: Array, kind: str) -> Quadratics:
        """Prepare the product of states with the given means (K, d) and covariances (K, d, d)."""
        k, d = means.shape
        if kind == "full" and d > 1:
            factors = np.linalg.cholesky(covariances)
            sds = factors.diagonal(axis1=1, axis2=2)
            roots = full = np.linalg.inv(factors)
        else:
            sds = np.sqrt(covariances.diagonal(axis1=1, axis2=2))
            roots = 1 / sds
            full = roots[:, :, None] * np.eye(d)
        half_log_det = np.log(sds).sum(1) + d / 2 * math.log(2 * math.pi)
        centre = (means.min(0) + means.max(0)) / 2
        offsets = np.matmul(full, (means - centre)[:, :, None])
        precisions = np.matmul(full.swapaxes(1, 2), full)
        rows, columns = _pairs(d, roots.ndim == 3)
        count = 1 + d + len(rows)
        reach = np.abs(means - centre) + _WITHIN * np.sqrt(covariances.diagonal(axis1=1, axis2=2))
        sizes = np.einsum("kd,kde,ke->k", reach, np.abs(precisions), reach)
        weights = None
        if count * _EPS * sizes.max() <= _CLOSE and count <= _WIDE * k:
            # −½|A r − b|² = −½ rᵀAᵀA r + bᵀA r − ½|b|²
            doubled = np.where(rows == columns, 0.5, 1.0)
            weights = np.concatenate(
                [
                    np.matmul(offsets.swapaxes(1, 2), full)[:, 0],
                    -doubled * precisions[:, rows, columns],
                    (-np.square(offsets).sum((1, 2)) / 2 - half_log_det)[:, None],
                ],
                axis=1,
            )
        return cls(means, roots, half_log_det, centre, weights)

    def __call__(self, x: Array) -> Array:
        return self._by_differences(x) if self.weights is None else self._multiplied_out(x)

    def _multiplied_out(self, x: Array) -> Array:
        assert self.weights is not None
        steps, lanes, d = x.shape
        rows, columns = _pairs(d, self.roots.ndim == 3)
        powers = np.empty((steps, self.weights.shape[1], lanes))
        r = np.subtract(x.swapaxes(1, 2), self.centre[:, None], out=powers[:, :d])
        for at, (i, j) in enumerate(zip(rows, columns, strict=True), d):
            np.multiply(r[:, i], r[:, j], out=powers[:, at])
        powers[:, -1] = 1.0
        return np.matmul(self.weights, powers)

    def _by_differences(self, x: Array) -> Array:
        x = np.ascontiguousarray(x)
        k, d = self.means.shape
        if self.roots.ndim == 3:
            centred = x.reshape(1, -1, d).swapaxes(1, 2) - self.means[:, :, None]
            white = np.matmul(self.roots, centred)
            square = np.einsum("kdn,kdn->kn", white, white).reshape(k, *x.shape[:2]).swapaxes(0, 1)
            square = np.ascontiguousarray(square)
        else:
            square = np.zeros((len(x), k, x.shape[1]))
            for j in range(d):
                more = x[:, None, :, j] - self.means[:, j, None]
                more *= self.roots[:, j, None]
                more *= more
                square += more
        square *= -0.5
        square -= self.half_log_det[:, None]
        return square


def _pairs(d: int, full: bool) -> tuple[Array, Array]:
    """Which products of two coordinates are taken."""
    return np.triu_indices(d) if full else (np.arange(d), np.arange(d))

"""Forward and backward through a hidden chain as one triangular band system, solved by one call of the BLAS.

The unscaled recursion ``α_t = b_t ∘ Aᵀα_{t−1}`` over all steps is ``Lα = e``, L a lower triangular band with a unit
diagonal and −A∘b_t below it; ``β_{t−1} = A(b_t ∘ β_t)`` is ``Lᵀβ = e``. Substitution does the very multiplications
and additions of the recursion, of positive numbers alone, so nothing cancels. Several sequences stand one after the
other, with nothing in L where one ends. A *stretch* of steps is solved at a time, as many as the mass Σα_t stays
within the range of a float; across its border the messages are rescaled.

**What underflow can spoil.** Rounding aside, an α that underflows is wrong by at most δ = 2⁻¹⁰²², which changes the
evidence by the factor 1 + δβ_t(k), where Σ_k α_t(k)β_t(k) = 1; so does a density that underflows. A β that underflows
is weighed by an α ≤ 1. Hence all is well where no β is large, and what is compared with the limit is an upper bound
of β, for β may have underflowed itself: ``Lᵀβ̄ = e + f`` with f above all that underflow can take away. No transition,
be it zero, endangers anything by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dtbsv

from identkit.classical.hidden_markov.lanes import SAFE, Steps, densities

Array = np.ndarray

_LEAST_MASS, _MOST_MASS = 1e-100, 1e100
"""How small and how large the mass of an unscaled α may become within a stretch."""
_LEAST_START = 1e-250
"""A mass at the start of a stretch below this may have underflowed in part."""
_MOST = 1e250
"""Up to here a bound of β leaves no underflow of 2⁻¹⁰²² any weight."""
_FLOOR = 1e-50
"""What the bound adds at every step: more than an underflow (2⁻¹⁰²²·_MOST) can have taken."""
_APART = 1e-6
"""By how much all the posteriors of a fit may miss one in the mean; rounding is far below."""
_FIRST_STRETCH = 256
_LONGEST = 2**21
"""How many numbers the band of one stretch may have."""


@dataclass(frozen=True)
class Smoothed:
    """What is known of n sequences of T steps; what stands in `doubtful` sequences means nothing."""

    probs: Array
    """p(z_t | x), (n, T, K)."""
    log_evidence: Array
    """(n,)."""
    future: Array
    """p(x_{t+1}, … | z_t) up to a factor of each step, (n, T, K)."""
    counts: Array | None
    """Expected transitions, (K, K), of all sequences together."""
    doubtful: Array
    """(n,): where underflow may have taken what matters."""


def smooth(initial: Array, transition: Array, steps: Steps, counts: bool) -> Smoothed:
    """Smooth all sequences, whose tables should be few enough numbers to be held at once.

    Args:
        initial: π, (K,).
        transition: A, (K, K).
        steps: the data.
        counts: whether the expected transitions are wanted.
    """
    n, length = steps.observed.shape
    k = len(initial)
    logs, common = densities(steps, steps.x.reshape(1, n * length, -1), steps.observed.reshape(1, -1))
    chain = _Chain(initial, transition, np.ascontiguousarray(np.exp(logs[0]).T), length)
    alpha, log_scale, mass = chain.forward(_FIRST_STRETCH)
    beta, weights, large = chain.backward(alpha, mass)
    probs = alpha * beta
    total = probs.sum(1)
    probs /= total[:, None]
    weights = weights / total
    wrong = ~np.isfinite(total) if large is None else ~np.isfinite(total) | large
    wrong[chain.lost] = True
    result = None
    if counts:
        shape = (n, length)
        ended = np.arange(1, length + 1) >= steps.lengths[:, None]
        weights = np.where(ended, 0.0, weights.reshape(shape)).reshape(-1, 1)
        message = chain.b * beta
        result = transition * ((alpha * weights)[:-1].T @ message[1:])
    return Smoothed(
        probs=probs.reshape(n, length, k),
        log_evidence=(log_scale + common[0]).reshape(n, length).sum(1),
        future=beta.reshape(n, length, k),
        counts=result,
        doubtful=wrong.reshape(n, length).any(1),
    )


class Expected(NamedTuple):
    """What an iteration of Baum–Welch needs of all sequences together."""

    log_evidence: float
    """Of the densities as they were given."""
    initial: Array
    """Expected number of sequences that begin in each state, (K,)."""
    counts: Array
    """Expected transitions, (K, K)."""
    weights: Array
    """p(z_t | x) of all steps, one sequence after the other, (N, K); what they miss of one is rounding."""


def expected(
    initial: Array, transition: Array, b: Array, length: int, within: Array | None
) -> Expected | None:
    """Take the expectations of a fit; None where underflow may have taken what matters.

    Args:
        initial: π, (K,).
        transition: A, (K, K).
        b: the densities, each step's of any scale, (N, K): sequences of one length, one after the other.
        length: theirs.
        within: 1 where the next step belongs to the same sequence, else 0, (N, 1); None for one sequence.
    """
    chain = _Chain(initial, transition, b, length)
    alpha, log_scale, mass = chain.forward(len(b))
    if chain.lost:
        return None
    beta, weights, large = chain.backward(alpha, mass)
    probs = alpha * beta
    if large is not None or not abs(np.add.reduce(probs, axis=None) - len(b)) <= _APART * len(b):
        return None
    if len(chain.stretches) > 1:
        alpha = alpha * weights[:, None]
    if within is not None:
        alpha = alpha * within
    beta *= b
    counts = alpha[:-1].T @ beta[1:]
    counts *= transition
    begun = probs[0].copy() if length == len(b) else np.add.reduce(probs[::length])
    return Expected(float(np.add.reduce(log_scale)), begun, counts, probs)


@lru_cache
def _places(k: int) -> Array:
    """Where −A_jk stands in the table (k, j, row) that b_{t+1} multiplies: in the column (t, j), K + k − j lower."""
    start, to = np.arange(k)[:, None], np.arange(k)
    return (to * k + start) * 2 * k + k + to - start


@lru_cache
def _ones(k: int) -> Array:
    """What rows are summed with: a product takes a third of the time of a sum."""
    return np.ones(k)


class _Chain:
    """Sequences of one length, one after the other: N steps in all."""

    def __init__(self, initial: Array, transition: Array, b: Array, length: int) -> None:
        self.initial, self.transition, self.b, self.length = initial, transition, b, length
        self.size, self.k = b.shape
        # `reduce` does what `min` and `sum` do, in half the time where the tables are small.
        least = np.minimum.reduce(transition, axis=None)
        self.safe = bool(least >= SAFE) and all(p == 0 or p >= SAFE for p in initial.tolist())
        self.ones = _ones(self.k)
        self.lost: list[int] = []
        """Where stretches begin with so little that some may have underflowed."""
        self.stretches: list[slice] = []
        self.below = np.zeros((self.k, 2 * self.k**2))
        self.below.reshape(-1)[_places(self.k)] = -transition
        self.band = (slice(0, 0), b)

    def _banded(self, some: slice) -> Array:
        """The band of a stretch in the layout of the BLAS, (2K, steps·K)."""
        if self.band[0] != some:
            columns = np.empty((some.stop - some.start, self.below.shape[1]))
            np.matmul(self.b[some.start + 1 : some.stop], self.below, out=columns[:-1])
            columns[-1] = 0.0
            columns[self._ends(some.start)] = 0.0
            self.band = (some, columns.reshape(-1, 2 * self.k).T)
        return self.band[1]

    def _solved(self, some: slice, right: Array, backward: bool) -> Array:
        """Solve with the band of a stretch, or with its transpose; right is (steps, K), and spent."""
        x, band = right.reshape(-1), self._banded(some)
        return dtbsv(2 * self.k - 1, band, x, lower=1, trans=backward, diag=1, overwrite_x=1).reshape(
            right.shape
        )

    def _ends(self, start: int) -> slice:
        """Which steps of a stretch are the last of a sequence, by where the stretch starts."""
        return slice((-start - 1) % self.length, None, self.length)

    def forward(self, steps: int) -> tuple[Array, Array, Array]:
        """α (N, K), scaled by stretches; the logs of what is taken out, in all log p(x) (N,); α's mass (N,).

        Args:
            steps: of the first stretch; the next ones are as long as their masses let hope.
        """
        log_scale = np.zeros(self.size)
        alphas, masses = [], []
        most = max(2, _LONGEST // (2 * self.k**2))
        t, steps = 0, min(steps, most)
        while t < self.size:
            some = slice(t, min(t + steps, self.size))
            right = np.zeros((some.stop - t, self.k))
            begins = slice(-t % self.length, None, self.length)
            right[begins] = self.initial * self.b[some][begins]
            if t % self.length:
                last = masses[-1][-1]
                log_scale[t - 1] += np.log(last)
                right[0] = (alphas[-1][-1] / last) @ self.transition * self.b[t]
            begun = float(right[0] @ self.ones)
            if not begun >= _LEAST_START:
                self.lost.append(t)
                right[0] = begun = 1.0
            right[0] /= begun
            log_scale[t] = math.log(begun)
            found = self._solved(some, right, backward=False)
            mass = found @ self.ones
            if not (np.minimum.reduce(mass) >= _LEAST_MASS and np.maximum.reduce(mass) <= _MOST_MASS):
                kept = (mass >= _LEAST_MASS) & (mass <= _MOST_MASS)
                kept[0] = True
                kept = int(kept.argmin()) or len(mass)
                found, mass, some = found[:kept], mass[:kept], slice(t, t + kept)
            alphas.append(found)
            masses.append(mass)
            self.stretches.append(some)
            kept = some.stop - t
            t, steps = some.stop, min(2 * max(kept, _FIRST_STRETCH // 2), most)
        alpha, mass = (parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in (alphas, masses))
        ends = self._ends(0)
        log_scale[ends] += np.log(mass[ends])
        return alpha, log_scale, mass

    def backward(self, alpha: Array, mass: Array) -> tuple[Array, Array, Array | None]:
        """β (N, K) with Σ_k α_t β_t = 1, but for rounding; what a pair of steps weighs (N,); where β is large (N,).

        The last is None where β is large nowhere.
        """
        weights, large = np.ones(self.size), None
        betas, above = [], []
        for some in reversed(self.stretches):
            right = np.zeros((some.stop - some.start, self.k))
            ends, border = self._ends(some.start), some.stop
            right[ends] = 1 / mass[some][ends, None]
            floor = None if self.safe else right + _FLOOR
            if border % self.length:
                ahead = self.transition @ (self.b[border] * betas[-1][0])
                weights[border - 1] = 1 / (alpha[border - 1] @ ahead)
                right[-1] = ahead * weights[border - 1]
                if floor is not None:
                    floor[-1] += self.transition @ (self.b[border] * above[-1][0]) * weights[border - 1]
            betas.append(self._solved(some, right, backward=True))
            if floor is not None:
                above.append(self._solved(some, floor, backward=True))
                if not np.maximum.reduce(above[-1], axis=None) <= _MOST:
                    large = np.zeros(self.size, dtype=bool) if large is None else large
                    large[some] = ~(above[-1].max(1) <= _MOST)
        beta = betas[0] if len(betas) == 1 else np.concatenate(betas[::-1])
        return beta, weights, large

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

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg.blas import dtbsv

from identkit.classical.hidden_markov.lanes import SAFE, Steps, densities

Array = np.ndarray

_LEAST_MASS = 1e-100
"""How small the mass of an unscaled α may become within a stretch."""
_LEAST_START = 1e-250
"""A mass at the start of a stretch below this may have underflowed in part."""
_MOST = 1e250
"""Up to here a bound of β leaves no underflow of 2⁻¹⁰²² any weight."""
_FLOOR = 1e-50
"""What the bound adds at every step: more than an underflow (2⁻¹⁰²²·_MOST) can have taken."""
_FIRST_STRETCH = 256
_LONGEST = 2**17
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
    top = logs[0].max(0)
    chain = _Chain(initial, transition, np.ascontiguousarray(np.exp(logs[0] - top).T), length)
    alpha, log_scale, mass = chain.forward()
    beta, weights, large = chain.backward(alpha, mass)
    probs = alpha * beta
    total = probs.sum(1)
    probs /= total[:, None]
    weights /= total
    wrong = ~np.isfinite(total) | large | chain.lost
    result = None
    if counts:
        shape = (n, length)
        ended = np.arange(1, length + 1) >= steps.lengths[:, None]
        weights = np.where(ended, 0.0, weights.reshape(shape)).reshape(-1, 1)
        message = chain.b * beta
        result = transition * ((alpha * weights)[:-1].T @ message[1:])
    return Smoothed(
        probs=probs.reshape(n, length, k),
        log_evidence=(log_scale + top + common[0]).reshape(n, length).sum(1),
        future=beta.reshape(n, length, k),
        counts=result,
        doubtful=wrong.reshape(n, length).any(1),
    )


@lru_cache
def _places(k: int) -> Array:
    """Where −A_jk stands in the table (k, j, row) that b_{t+1} multiplies: in the column (t, j), K + k − j lower."""
    start, to = np.arange(k)[:, None], np.arange(k)
    return (to * k + start) * 2 * k + k + to - start


class _Chain:
    """Sequences of one length, one after the other: N steps in all."""

    def __init__(self, initial: Array, transition: Array, b: Array, length: int) -> None:
        self.initial, self.transition, self.b, self.length = initial, transition, b, length
        self.size, self.k = b.shape
        self.safe = min(transition.min(), initial[initial > 0].min()) >= SAFE
        self.lost = np.zeros(self.size, dtype=bool)
        self.stretches: list[slice] = []
        self.below = np.zeros((self.k, 2 * self.k**2))
        self.below.reshape(-1)[_places(self.k)] = -transition
        self.band = (slice(0, 0), b)

    def _banded(self, some: slice) -> Array:
        """The band of a stretch in the layout of the BLAS, (2K, steps·K)."""
        if self.band[0] != some:
            columns = np.zeros((some.stop - some.start, self.below.shape[1]))
            np.matmul(self.b[some][1:], self.below, out=columns[:-1])
            columns[self._ends(some.start)] = 0.0
            self.band = (some, columns.reshape(-1, 2 * self.k).T)
        return self.band[1]

    def _solved(self, some: slice, right: Array, backward: bool) -> Array:
        """Solve with the band of a stretch, or with its transpose; right is (steps, K)."""
        x = right.reshape(-1)
        return dtbsv(2 * self.k - 1, self._banded(some), x, lower=1, trans=backward, diag=1).reshape(
            right.shape
        )

    def _ends(self, start: int) -> slice:
        """Which steps of a stretch are the last of a sequence, by where the stretch starts."""
        return slice((-start - 1) % self.length, None, self.length)

    def forward(self) -> tuple[Array, Array, Array]:
        """α (N, K), scaled by stretches; the logs of what is taken out, in all log p(x) (N,); α's mass (N,)."""
        alpha, log_scale, mass = np.empty_like(self.b), np.zeros(self.size), np.empty(self.size)
        most = max(2, _LONGEST // (2 * self.k**2))
        t, steps = 0, min(_FIRST_STRETCH, most)
        while t < self.size:
            some = slice(t, min(t + steps, self.size))
            right = np.zeros((some.stop - t, self.k))
            begins = slice(-t % self.length, None, self.length)
            right[begins] = self.initial * self.b[some][begins]
            if t % self.length:
                log_scale[t - 1] += np.log(mass[t - 1])
                right[0] = (alpha[t - 1] / mass[t - 1]) @ self.transition * self.b[t]
            begun = right[0].sum()
            if not begun >= _LEAST_START:
                self.lost[t] = True
                right[0] = begun = 1.0
            right[0] /= begun
            log_scale[t] = np.log(begun)
            found = self._solved(some, right, backward=False)
            masses = found @ np.ones(self.k)  # in a third of the time of `sum`
            small = masses < _LEAST_MASS
            small[0] = False
            kept = int(small.argmax()) or len(masses)
            some = slice(t, t + kept)
            alpha[some], mass[some] = found[:kept], masses[:kept]
            self.stretches.append(some)
            t, steps = some.stop, min(2 * max(kept, _FIRST_STRETCH // 2), most)
        ends = self._ends(0)
        log_scale[ends] += np.log(mass[ends])
        return alpha, log_scale, mass

    def backward(self, alpha: Array, mass: Array) -> tuple[Array, Array, Array]:
        """β (N, K) with Σ_k α_t β_t = 1, but for rounding; what a pair of steps weighs (N,); where β is large (N,)."""
        beta, weights, large = np.empty_like(self.b), np.ones(self.size), np.zeros(self.size, dtype=bool)
        bound = beta if self.safe else np.empty_like(self.b)
        for some in reversed(self.stretches):
            right = np.zeros((some.stop - some.start, self.k))
            ends, border = self._ends(some.start), some.stop
            right[ends] = 1 / mass[some][ends, None]
            floor = right + _FLOOR
            if border % self.length:
                ahead = self.transition @ (self.b[border] * beta[border])
                weights[border - 1] = 1 / (alpha[border - 1] @ ahead)
                right[-1] = ahead * weights[border - 1]
                floor[-1] += self.transition @ (self.b[border] * bound[border]) * weights[border - 1]
            beta[some] = self._solved(some, right, backward=True)
            if not self.safe:
                bound[some] = self._solved(some, floor, backward=True)
                large[some] = ~(bound[some].max(1) <= _MOST)
        return beta, weights, large

"""Forward and backward through a hidden chain, many stretches of it at once, and no less exact for that.

A long sequence is cut into *lanes* that are swept side by side, the lane as the last axis. Each lane starts from a
guess that a short warm-up before it supplies; the sweep is accepted only where every lane's end agrees with the
start that the next one assumed, else it is repeated from those ends, and at last the starts are computed by the
products of whole lanes. Everything is a probability rescaled as it goes, nothing a logarithm.

Agreement is measured in Hilbert's projective metric, ``d(p, q) = log max(p/q) − log min(p/q)``: no positive matrix
and no likelihood expands it, and relative errors of rounding add up in it, so a gap of 1e-13 per lane is less than
what the lane's own steps may commit (L·K·2⁻⁵³).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

_LANES = 512
_SHORTEST = 64
"""A lane is no shorter than this, or the warm-ups would cost more than they save."""
_WARM_UP = 32
_MATCH = 1e-13
_PASSES = 3
_HOPELESS = 0.1
"""So far from agreement after a warm-up, another pass will not mend it."""
SAFE = 1e-100
"""With all transitions above this, a filtered probability that underflows has no part in anything that follows."""
_SLAB = 2**17
_THREADS = os.cpu_count() or 1
_RENEWED = 16


@dataclass(frozen=True)
class Swept:
    """What one journey forward and back knows about n sequences of T steps."""

    probs: Array
    """p(z_t | x), (n, T, K)."""
    log_evidence: Array
    """log p(x), (n,); −∞ where no path explains the data."""
    future: Array | None
    """log p(x_{t+1}, … | z_t) up to a constant of each step, (n, T, K)."""
    counts: Array | None
    """Expected number of steps from j to k, all sequences together, (K, K)."""


@dataclass(frozen=True)
class Steps:
    """What is seen at every step: the densities come on demand, so that no more is held than is worked on."""

    x: Array
    """(n, T, d)."""
    observed: Array
    """(n, T); a step that is not there says nothing."""
    lengths: Array
    """(n,): steps after the end are not observed."""
    log_density: Callable[[Array], tuple[Array, Array]]
    """Takes (s, N, d), gives (s, K, N), less the largest of each step, and that, (s, N)."""


class Rows:
    """Some of the sequences, in pieces of time that fit a chunk."""

    def __init__(self, initial: Array, transition: Array, steps: Steps, rows: slice, result: Swept) -> None:
        self.initial, self.transition, self.steps, self.rows, self.result = (
            initial,
            transition,
            steps,
            rows,
            result,
        )
        self.k = len(initial)
        least = min(transition.min(), initial[initial > 0].min())
        self.safe = least >= SAFE
        # So seldom that nothing can underflow between two normalisations, for each step keeps at least `least`.
        self.every = int(np.clip(100 / max(1.0, -np.log10(least)), 1, 16)) if self.safe else 1
        self.count = len(steps.x[rows])
        self.counts = None if result.counts is None else np.zeros_like(result.counts)


def densities(steps: Steps, x: Array, observed: Array) -> tuple[Array, Array]:
    """``log b_k(x_t)`` of steps (s, N, d) as (s, K, N), less the largest of each, and that, (s, N).

    Both are 0 where nothing is observed.
    """
    logs, common = steps.log_density(x)
    if not observed.all():
        np.copyto(logs, 0.0, where=~observed[:, None, :])
        common = np.where(observed, common, 0.0)
    return logs, common


def by_sequence(steps: Steps, rows: Array | slice = slice(None)) -> tuple[Array, Array]:
    """The same for all steps of some sequences: (T, n, K), and the sums of what is common, (n,)."""
    x, observed = steps.x[rows].swapaxes(0, 1), steps.observed[rows].T
    logs, common = densities(steps, x, observed)
    return logs.swapaxes(1, 2), common.sum(0)


def _blocks(n: int, length: int, exactly: bool) -> int:
    """How many lanes each of n sequences is cut into: of one length where it can be, and where it must."""
    most = max(1, min(_LANES // n, length // _SHORTEST))
    least = 1 if exactly else 3 * most // 4 + 1
    return next((blocks for blocks in range(most, least - 1, -1) if length % blocks == 0), most)


class Forward:
    """Filtered probabilities of one piece of time, in lanes: all tables are (steps of a lane, K, lanes)."""

    def __init__(self, rows: Rows, cut: tuple[int, int], begin: Array) -> None:
        self.rows, self.cut = rows, cut
        start, stop = cut
        n, length = rows.count, stop - start
        self.blocks = _blocks(n, length, exactly=stop < rows.steps.observed.shape[1])
        self.steps = -(-length // self.blocks)
        self.lanes = n * self.blocks
        self.first = np.arange(self.lanes) % self.blocks == 0
        self.last = np.roll(self.first, -1)
        # In one piece, which the allocator keeps from call to call: two would be given back, and be cleared anew.
        self.b, self.alpha = np.empty((2, self.steps, rows.k, self.lanes))
        self.turned = np.ascontiguousarray(rows.transition.T)
        self.scale = np.ones((self.steps, self.lanes))
        self.top = self._densities(rows.steps, start, stop)
        self.product: tuple[Array, Array] | None = None
        self._filter(begin)

    def _densities(self, steps: Steps, start: int, stop: int) -> Array:
        """Fill b with the densities relative to the largest of each step; give the sums of those over each lane."""
        n = self.rows.count
        x, observed = steps.x[self.rows.rows, start:stop], steps.observed[self.rows.rows, start:stop]
        short = self.steps * self.blocks - (stop - start)
        if short:
            x = np.pad(x, ((0, 0), (0, short), (0, 0)))
            observed = np.pad(observed, ((0, 0), (0, short)))
        x = x.reshape(n * self.blocks, self.steps, -1)
        observed = observed.reshape(n * self.blocks, self.steps)
        tops = np.zeros((self.steps, self.lanes))
        there = self.rows.initial > 0

        def fill(t: int) -> None:
            here = slice(t, t + slab)
            logs, top = densities(steps, x[:, here].transpose(1, 0, 2), observed[:, here].T)
            if t == 0 and start == 0 and not there.all():
                # The first datum is measured against the states that can be there.
                most = np.where(self.first, logs[0, there].max(0), 0.0)
                most = np.where(most > -np.inf, most, 0.0)
                np.minimum(logs[0] - most, 0.0, out=logs[0])
                top[0] += most
            tops[here] = top
            with np.errstate(all="ignore"):
                np.exp(logs, out=self.b[here])

        # A slab of steps at a time stays in the cache from the first operation to the last.
        slab = max(1, _SLAB // (self.rows.k * self.lanes))
        starts = range(0, self.steps, slab)
        if len(starts) > 1:
            with ThreadPoolExecutor(min(len(starts), _THREADS)) as pool:
                list(pool.map(fill, starts))
        else:
            for t in starts:
                fill(t)
        return tops.sum(0)

    def _filter(self, begin: Array) -> None:
        starts = np.empty((self.rows.k, self.lanes))
        starts[:, self.first] = begin
        if self.blocks > 1:
            warm = min(_WARM_UP, self.steps)
            uniform = np.full_like(starts, 1 / self.rows.k)
            ends = self._pass(self.b[self.steps - warm :], uniform, None)
            starts[:, ~self.first] = ends[:, ~self.last]
        for attempt in range(_PASSES + 1):
            ends = self._pass(self.b, starts, self.alpha)
            apart = _apart(ends[:, ~self.last], starts[:, ~self.first])
            if apart <= _MATCH or attempt == _PASSES or self.product is not None:
                break
            if apart > _HOPELESS or attempt == _PASSES - 1:
                starts = self._chained(starts)
            else:
                starts[:, ~self.first] = ends[:, ~self.last]
        self.starts, self.end = starts, ends[:, self.last]
        logs = np.log(self.scale).sum(0) + self.top
        self.log_evidence = logs.reshape(-1, self.blocks).sum(1)

    def _pass(self, b: Array, starts: Array, alpha: Array | None) -> Array:
        """Filter every lane from its start; what the step after its end is predicted to be."""
        turned, every = self.turned, self.rows.every
        scale = self.scale if alpha is not None else np.empty_like(self.scale)
        pred, now = starts.copy(), np.empty_like(starts)
        for t in range(len(b)):
            now = now if alpha is None else alpha[t]
            np.multiply(pred, b[t], out=now)
            if t % every == 0 or t == len(b) - 1:
                np.add.reduce(now, axis=0, out=scale[t])
                np.divide(now, scale[t], out=now)
            np.matmul(turned, now, out=pred)
        return pred / pred.sum(0)

    def products(self) -> tuple[Array, Array]:
        """The matrix from each lane's start to its end, (n, lanes of one, from, to), and the logs of its rows' scale."""
        if self.product is None:
            k = self.rows.k
            matrices, logs = np.empty((k, k, self.lanes)), np.empty((k, self.lanes))

            def carry(some: Array) -> None:
                pred = np.repeat(np.eye(k)[some][:, :, None], self.lanes, axis=2)
                alpha, total = np.empty_like(pred), np.zeros((len(some), self.lanes))
                with np.errstate(all="ignore"):
                    for t in range(self.steps):
                        np.multiply(pred, self.b[t], out=alpha)
                        if t % self.rows.every == 0 or t == self.steps - 1:
                            scale = alpha.sum(1, keepdims=True)
                            total += np.log(scale[:, 0])
                            alpha /= np.where(scale > 0, scale, 1.0)
                        np.matmul(self.turned, alpha, out=pred)
                matrices[some], logs[some] = pred, total

            parts = np.array_split(np.arange(k), min(k, _THREADS))
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(carry, parts))
            shape = (self.rows.count, self.blocks)
            self.product = (
                np.ascontiguousarray(matrices.transpose(2, 0, 1)).reshape(*shape, k, k),
                np.ascontiguousarray(logs.T).reshape(*shape, k),
            )
        return self.product

    def _chained(self, starts: Array) -> Array:
        """The exact start of every lane, from the products of those before it."""
        matrices, logs = self.products()
        chained = np.empty((*logs.shape[:2], self.rows.k))
        chained[:, 0] = starts[:, self.first].T
        for block in range(1, self.blocks):
            weight = np.log(chained[:, block - 1]) + logs[:, block - 1]
            weight = np.exp(weight - weight.max(1, keepdims=True))
            at = np.matmul(weight[:, None, :], matrices[:, block - 1])[:, 0]
            chained[:, block] = at / at.sum(1, keepdims=True)
        return np.ascontiguousarray(chained.reshape(self.lanes, -1).T)

    def chained_back(self, ratio: Array) -> Array:
        """The exact backward message that each lane's end receives, from the products of those after it."""
        matrices, logs = self.products()
        chained = np.empty((*logs.shape[:2], self.rows.k))
        chained[:, -1] = ratio[:, self.last].T
        for block in range(self.blocks - 1, 0, -1):
            inner = np.matmul(matrices[:, block], chained[:, block, :, None])[..., 0]
            back = np.log(inner) + logs[:, block]
            chained[:, block - 1] = np.exp(back - back.max(1, keepdims=True))
        return np.ascontiguousarray(chained.reshape(self.lanes, -1).T)

    def doubtful(self) -> Array:
        """Which sequences may have lost a state that matters to underflow."""
        if self.rows.safe:
            bad = ~np.isfinite(self.scale).all(0) | (self.scale <= 0).any(0)
        else:
            lost = np.zeros(self.lanes, dtype=bool)
            pattern = (self.turned > 0).astype(np.float64)
            start = self.starts
            for t in range(self.steps):
                alpha, before = self.alpha[t], start if t == 0 else self.alpha[t - 1]
                possible = before > 0 if t == 0 else pattern @ (before > 0) > 0
                lost |= (((alpha > 0) & (alpha < SAFE)) | (possible & (alpha == 0))).any(0)
                lost |= ~np.isfinite(alpha).all(0)
            bad = lost
        return np.asarray(bad.reshape(-1, self.blocks).any(1))


def backward(rows: Rows, forward: Forward, ratio: Array | None) -> Array:
    """Smooth one piece of time; takes and gives the message ``r_t = b_t·β_t`` across its border, (K, n)."""
    received = np.ones((rows.k, forward.lanes))
    if ratio is not None:
        received[:, forward.last] = ratio
    if forward.product is not None:
        received = forward.chained_back(received)
    elif forward.blocks > 1:
        warm = min(_WARM_UP, forward.steps)
        beyond = _messages(rows, forward, np.ones_like(received), warm, None)
        received[:, ~forward.last] = beyond[:, ~forward.first]
    for attempt in range(_PASSES + 1):
        sink = _Sink(rows, forward)
        sent = _messages(rows, forward, received, forward.steps, sink)
        apart = _apart(sent[:, ~forward.first], received[:, ~forward.last])
        if apart <= _MATCH or attempt == _PASSES or forward.product is not None:
            break
        if apart > _HOPELESS or attempt == _PASSES - 1:
            received = forward.chained_back(received)
        else:
            received[:, ~forward.last] = sent[:, ~forward.first]
    sink.close()
    return sent[:, forward.first]


def _messages(rows: Rows, forward: Forward, received: Array, count: int, sink: _Sink | None) -> Array:
    """``γ_t = α_t·A r_{t+1}``, ``r_t = b_t·A r_{t+1}/c_t`` from step `count` of every lane down to its start."""
    alpha, b, scale, every, transition = forward.alpha, forward.b, forward.scale, rows.every, rows.transition
    ratio, ahead, now = received.copy(), np.empty_like(received), np.empty_like(received)
    for t in range(count - 1, -1, -1):
        np.matmul(transition, ratio, out=ahead)
        np.multiply(alpha[t], ahead, out=now)
        if t == count - 1 or t % _RENEWED == 0:
            # The message that comes in has any scale; later ones keep it, but for rounding.
            total = now.sum(0)
            now /= total
            ahead /= total
            ratio /= total
        if sink is not None:
            sink.take(t, ratio, ahead, now)
        np.multiply(b[t], ahead, out=ratio)
        if t % every == 0 or t == forward.steps - 1:
            # By what the forward pass divided here: so Σ α_t·A r_{t+1} stays one.
            np.divide(ratio, scale[t], out=ratio)
    return ratio


class _Sink:
    """Where one backward pass writes; only the accepted pass counts."""

    def __init__(self, rows: Rows, forward: Forward) -> None:
        self.rows, self.forward = rows, forward
        result, (start, stop) = rows.result, forward.cut
        self.places = [(result.probs, self._table(result.probs))]
        if result.future is not None:
            self.places.append((result.future, self._table(result.future)))
        self.counts = None if rows.counts is None else np.zeros_like(rows.counts)
        lengths = rows.steps.lengths[rows.rows]
        times = start + np.arange(forward.steps * forward.blocks).reshape(forward.blocks, forward.steps)
        going = times[None] < np.minimum(lengths - 1, stop)[:, None, None]
        self.going = going.reshape(forward.lanes, forward.steps).T.astype(np.float64)

    def _table(self, whole: Array) -> Array:
        forward = self.forward
        start, stop = forward.cut
        part = whole[self.rows.rows, start:stop]
        if part.shape[1] == forward.steps * forward.blocks and part.flags.c_contiguous:
            return part.reshape(forward.lanes, forward.steps, self.rows.k)
        return np.empty((forward.lanes, forward.steps, self.rows.k))

    def take(self, t: int, ratio: Array, ahead: Array, now: Array) -> None:
        for (_, table), value in zip(self.places, (now, ahead), strict=False):
            table[:, t] = value.T
        if self.counts is not None:
            self.counts += self.forward.alpha[t] @ (ratio * self.going[t]).T

    def close(self) -> None:
        start, stop = self.forward.cut
        for whole, table in self.places:
            part = whole[self.rows.rows, start:stop]
            if not np.shares_memory(part, table):
                part[:] = table.reshape(self.rows.count, -1, self.rows.k)[:, : stop - start]
            if whole is self.rows.result.future:
                np.log(part, out=part)
        if self.counts is not None:
            self.rows.counts += self.counts * self.rows.transition


def _apart(p: Array, q: Array) -> float:
    """The largest distance of two columns in Hilbert's metric; ∞ where their supports differ."""
    if p.size == 0:
        return 0.0
    ratio = np.where((p == 0) & (q == 0), 1.0, p / q)
    with np.errstate(all="ignore"):
        # A column of two supports keeps one entry in common at most in scale, so both ends are compared.
        gap = float(np.max(np.log(ratio.max(0)) - np.log(ratio.min(0))))
    return np.inf if np.isnan(gap) else gap

"""Smoothing of hidden chains of any number and length, a chunk at a time, exact on every road it takes.

Little work goes through a band system at once, where a step costs less than a call of NumPy; much goes in lanes. What
the lanes doubt is done again as a band, which doubts far less, and what that doubts in logarithms.
"""

from __future__ import annotations

import numpy as np

from identkit.classical.hidden_markov import band
from identkit.classical.hidden_markov.lanes import Forward, Rows, Steps, Swept, backward, by_sequence
from identkit.classical.hidden_markov.logs import logs_backward, logs_forward

Array = np.ndarray

_ELEMENTS = 2**22
"""How many numbers one table of a chunk may have."""
LITTLE = 2**16
"""Up to so many multiplications (n·T·K²) the band is faster than the lanes."""


def sweep(
    initial: Array, transition: Array, steps: Steps, future: bool = False, counts: bool = False
) -> Swept:
    """Smooth all sequences.

    Args:
        initial: π, (K,).
        transition: A, (K, K), rows summing to one.
        steps: the data.
        future: whether the backward messages are wanted.
        counts: whether the expected transitions are wanted.
    """
    n, length = steps.observed.shape
    k = len(initial)
    result = Swept(
        probs=np.empty((n, length, k)),
        log_evidence=np.empty(n),
        future=np.empty((n, length, k)) if future else None,
        counts=np.zeros((k, k)) if counts else None,
    )
    at_once = max(1, _ELEMENTS // (k * length)) if length else 1
    with np.errstate(all="ignore"):  # what divides by zero is found by its NaN and done again in logarithms
        if 0 < n * length * k * k <= LITTLE:
            _banded(initial, transition, steps, result)
            return result
        for first in range(0, n, at_once):
            _in_lanes(Rows(initial, transition, steps, slice(first, first + at_once), result))
    return result


def _in_lanes(task: Rows) -> None:
    length = task.steps.observed.shape[1]
    piece = max(1, _ELEMENTS // (task.k * task.count))
    cuts = [(start, min(start + piece, length)) for start in range(0, length, piece)]
    begin = np.repeat(task.initial[:, None], task.count, axis=1)
    begins, evidence, forward = [begin], np.zeros(task.count), None
    for cut in cuts:
        forward = Forward(task, cut, begins[-1])
        evidence = evidence + forward.log_evidence
        begins.append(forward.end)
    task.result.log_evidence[task.rows] = evidence
    ratio, doubtful = None, np.zeros(task.count, dtype=bool)
    for i, cut in reversed(list(enumerate(cuts))):
        if forward is None or forward.cut != cut:
            forward = Forward(task, cut, begins[i])
        ratio = backward(task, forward, ratio)
        doubtful |= forward.doubtful()
    if not task.safe:
        doubtful |= ~np.isfinite(task.result.probs[task.rows]).all((1, 2))
    if task.counts is not None and task.result.counts is not None:
        if doubtful.any():
            # What the doubtful sequences added is unknown: the others are counted without them.
            clean = np.arange(len(task.steps.x))[task.rows][~doubtful]
            others = _some(task.steps, clean)
            task.counts = sweep(task.initial, task.transition, others, counts=True).counts
        task.result.counts[:] += task.counts
    if doubtful.any():
        which = np.arange(len(task.steps.x))[task.rows][doubtful]
        at_once = max(1, _ELEMENTS // (task.k * length))
        for first in range(0, len(which), at_once):
            rows = which[first : first + at_once]
            _banded(task.initial, task.transition, task.steps, task.result, rows)


def _some(steps: Steps, which: Array) -> Steps:
    return Steps(steps.x[which], steps.observed[which], steps.lengths[which], steps.log_density)


def _banded(
    initial: Array, transition: Array, steps: Steps, result: Swept, rows: Array | None = None
) -> None:
    """Smooth all sequences, or some, as a band, and in logarithms what a float cannot hold there either."""
    where = slice(None) if rows is None else rows
    wanted = steps if rows is None else _some(steps, rows)
    n, length = wanted.observed.shape
    if n * length * len(initial) > _ELEMENTS:  # one sequence of millions of steps
        _in_logarithms(initial, transition, steps, result, np.arange(len(steps.x))[where])
        return
    found = band.smooth(initial, transition, wanted, counts=result.counts is not None)
    result.probs[where], result.log_evidence[where] = found.probs, found.log_evidence
    if result.future is not None:
        result.future[where] = np.log(found.future)
    doubtful = found.doubtful
    if doubtful.any():
        _in_logarithms(initial, transition, steps, result, np.arange(len(steps.x))[where][doubtful])
        if not doubtful.all() and result.counts is not None:
            # What the doubtful sequences added is unknown: the others are counted without them.
            found = band.smooth(initial, transition, _some(wanted, np.flatnonzero(~doubtful)), counts=True)
    if not doubtful.all() and result.counts is not None:
        result.counts[:] += found.counts


def _in_logarithms(initial: Array, transition: Array, steps: Steps, result: Swept, rows: Array) -> None:
    """Smooth in logarithms the sequences whose probabilities span more than a float can hold."""
    log_b, common = by_sequence(steps, rows)
    log_a = np.log(transition)
    alpha, evidence = logs_forward(np.log(initial), log_a, log_b)
    beta = logs_backward(log_a, log_b)
    joint = alpha + beta
    top = joint.max(2, keepdims=True)
    mass = np.exp(joint - top)
    total = mass.sum(2, keepdims=True)
    result.probs[rows] = (mass / total).transpose(1, 0, 2)
    result.log_evidence[rows] = evidence + common
    if result.future is not None:
        result.future[rows] = beta.transpose(1, 0, 2)
    if result.counts is not None:
        lengths, total = steps.lengths[rows], result.counts
        for t in range(len(log_b) - 1):
            going = lengths > t + 1
            if going.any():
                right = (log_b[t + 1] + beta[t + 1])[going]
                pair = alpha[t][going][:, :, None] + log_a + right[:, None, :]
                pair = np.exp(pair - pair.max((1, 2), keepdims=True))
                total += (pair / pair.sum((1, 2), keepdims=True)).sum(0)

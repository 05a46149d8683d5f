"""Recursions over time, many steps at once: scans in stretches, products with block Toeplitz matrices, and the arrays.

Arrays are numpy's where they lie on the processor, which is quicker on tiny matrices and never waits for threads,
and torch tensors on other devices; the functions here take either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Array = Any
"""A float64 numpy array or torch tensor."""

SETTLED = 2.0**-50
"""A step that changes a recursion by no more, in units of its own diagonal, repeats it to rounding."""
_CHUNKS = 40  # how many stretches of time are worked on at once,
_STRETCH = 64  # none of them shorter than this
_SWEEPS = 3
_BLOCK = 8
_SINGLE = 2**18  # multiplications


Step = Callable[[Sequence[Array], Sequence[Array]], tuple[Sequence[Array], Sequence[Array]]]


def carried(
    step: Step, inputs: Sequence[Array], backward: bool, start: Sequence[Array] | None
) -> tuple[list[Array], Sequence[Array]]:
    """Run a recursion over time, many stretches of it at once.

    Each stretch starts from nothing; then again from the end of its neighbour, until what it computes is what it had
    computed before, to rounding. A recursion that forgets needs one sweep and a little; one that does not is run in
    order after all, so that the result is always that of the plain loop.

    Args:
        step: takes the state (a matrix and vectors) and the inputs of one step, gives the next state and the outputs,
            of which the first two are a positive semidefinite matrix and vectors.
        inputs: arrays (g or 1, T, …), the last of shape (g, T, k, m).
        backward: run from T to 1.
        start: the state at the outset, (g, k, k) and (g, k, m); zero where there is none.

    Returns:
        The outputs, each (g, T, …), and the last state: that of a recursion backward alone, where what pads the
        stretches comes before all else.
    """
    g, length = np_of(inputs[-1]).broadcast_shapes(*[i.shape[:2] for i in inputs])
    k = inputs[0].shape[-1]
    most = max(1, min(length // _STRETCH, math.ceil(_CHUNKS / g)))
    chunks = next(
        (count for count in range(most, most // 2, -1) if length % count == 0), most
    )  # spares a copy
    left = length % chunks
    if start is not None and backward and left:
        # What pads the last stretch would come between the start and the first step.
        late, state = carried(
            step, [_part(value, length, slice(-left, None)) for value in inputs], True, start
        )
        early, state = carried(step, [_part(value, length, slice(0, -left)) for value in inputs], True, state)
        xp = np_of(inputs[-1])
        return [xp.concatenate(both, 1) for both in zip(early, late, strict=True)], state
    if chunks > 1:
        found = _swept(step, inputs, backward, chunks, (g, length, k), start)
        if found is not None:
            return found
    found = _swept(step, inputs, backward, 1, (g, length, k), start)
    if found is None:
        raise AssertionError("one stretch has no neighbour to differ from")
    return found


def _swept(
    step: Step,
    inputs: Sequence[Array],
    backward: bool,
    chunks: int,
    size: tuple[int, int, int],
    start: Sequence[Array] | None,
) -> tuple[list[Array], Sequence[Array]] | None:
    g, length, k = size
    stretch = math.ceil(length / chunks)
    cut = [_cut(value, chunks, stretch) for value in inputs]
    like = inputs[-1]
    state = [zeros(like, (g, chunks, k, k)), zeros(like, (g, chunks, k, like.shape[-1]))]
    first, last = (-1, 0) if backward else (0, -1)
    if start is not None:
        for value, given in zip(state, start, strict=True):
            value[:, first] = given
    ended = state
    order = range(stretch - 1, -1, -1) if backward else range(stretch)
    outputs: list[Array] = []
    for sweep in range(_SWEEPS if chunks > 1 else 1):
        met = False
        for done, j in enumerate(order):
            state, results = step(state, [value[:, :, j] for value in cut])
            if not outputs:
                outputs = [zeros(like, (g, chunks, stretch, *result.shape[2:])) for result in results]
            if sweep and done % 4 == 3:
                met = _met(results, [output[:, :, j] for output in outputs[:2]])
            for output, result in zip(outputs, results, strict=True):
                output[:, :, j] = result
            if met:
                break
        # Where the stretches met what was there before, so would their ends.
        ended = ended if met else state
        if chunks == 1 or met:
            whole = [output.reshape(g, chunks * stretch, *output.shape[3:])[:, :length] for output in outputs]
            return whole, [end[:, last] for end in ended]
        state = [_shifted(end, backward) for end in state]
        if start is not None:
            for value, given in zip(state, start, strict=True):
                value[:, first] = given
    return None


def _part(value: Array, length: int, steps: slice) -> Array:
    return value[:, steps] if value.shape[1] == length else value


def _shifted(ends: Array, backward: bool) -> Array:
    """Hand the end of each stretch to its neighbour; the outermost starts from nothing, as ever."""
    starts = np_of(ends).zeros_like(ends)
    if backward:
        starts[:, :-1] = ends[:, 1:]
    else:
        starts[:, 1:] = ends[:, :-1]
    return starts


def _met(new: Sequence[Array], old: Sequence[Array]) -> bool:
    scale = diagonal(new[0]) ** 0.5
    matrix = abs(new[0] - old[0]) <= SETTLED * scale[..., :, None] * scale[..., None, :]
    vector = abs(new[1] - old[1]) <= SETTLED * (scale[..., None] + abs(new[1]))
    return bool(matrix.all()) and bool(vector.all())


def follow(closed: Array, drive: Array) -> Array:
    """Solve y_t = Φ y_{t−1} + a_t, y_0 = 0, for a of shape (n, T, k), block within block."""
    xp = np_of(drive)
    n, length, k = drive.shape
    powers = [xp.linalg.matrix_power(closed, 0)]
    for _ in range(_BLOCK):
        powers.append(closed @ powers[-1])
    matrix = zeros(drive, (_BLOCK, k, _BLOCK, k))
    for row in range(_BLOCK):
        for column in range(row + 1):
            matrix[row, :, column] = powers[row - column]
    blocks = math.ceil(length / _BLOCK)
    padded = zeros(drive, (n, blocks * _BLOCK, k))
    padded[:, :length] = drive
    matrix = matrix.reshape(_BLOCK * k, _BLOCK * k)
    local = times(padded.reshape(n, blocks, _BLOCK * k), matrix.T)
    if blocks > 1:
        ends = follow(powers[_BLOCK], local[:, :-1, -k:])
        local[:, 1:] += times(ends, xp.concatenate(powers[1:], 0).T)
    return local.reshape(n, blocks * _BLOCK, k)[:, :length]


def times(rows: Array, matrix: Array) -> Array:
    """rows @ matrix in products too small for a BLAS to share among threads, which it does at a loss."""
    *outer, length, inner = rows.shape
    least = max(1, _SINGLE // (inner * matrix.shape[1]))
    if length <= least:
        return rows @ matrix
    whole = math.ceil(length / least)
    padded = zeros(rows, (*outer, whole * least, inner))
    padded[..., :length, :] = rows
    product = padded.reshape(*outer, whole, least, inner) @ matrix
    return product.reshape(*outer, whole * least, matrix.shape[1])[..., :length, :]


def np_of(value: Array) -> Any:
    """The library an array belongs to."""
    return np if isinstance(value, np.ndarray) else torch


def _cut(value: Array, chunks: int, stretch: int) -> Array:
    whole = chunks * stretch
    if value.shape[1] != whole:
        padded = zeros(value, (len(value), whole, *value.shape[2:]))
        padded[:, : value.shape[1]] = value
        value = padded
    return value.reshape(len(value), chunks, stretch, *value.shape[2:])


def diagonal(matrices: Array) -> Array:
    """The diagonals of (…, k, k)."""
    index = range(matrices.shape[-1])
    return matrices[..., index, index]


def transposed(matrices: Array) -> Array:
    """The last two axes exchanged."""
    return matrices.swapaxes(-1, -2)


def eye(like: Array) -> Array:
    """The unit matrix of the size and kind of others."""
    k = like.shape[-1]
    return np.eye(k) if isinstance(like, np.ndarray) else torch.eye(k, dtype=like.dtype, device=like.device)


def lower_inverse(covariances: Array) -> Array:
    """L⁻¹ with ``LLᵀ`` the covariances, (…, k, k), by back substitution: no scale of a coordinate matters.

    In many tiny matrices torch substitutes back in a third of the time of numpy's `inv`.
    """
    factor = torch.linalg.cholesky(torch.as_tensor(covariances))
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
    return inverse.numpy() if isinstance(covariances, np.ndarray) else inverse


def zeros(like: Array, shape: tuple[int, ...]) -> Array:
    """Zeros of the kind of another array."""
    return np.zeros(shape) if isinstance(like, np.ndarray) else like.new_zeros(shape)

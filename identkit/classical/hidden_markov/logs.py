"""The recursions of a hidden chain in logarithms: slow, and right where probabilities span more than a float holds.

A chain with absorbing or forbidden transitions can keep a state at e^−1000 for a hundred steps and need it again.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def logs_forward(log_initial: Array, log_transition: Array, log_b: Array) -> tuple[Array, Array]:
    """``log p(z_t = k | x_1 … x_t)`` and ``log p(x)``, from ``log b_k(x_t)``, (T, n, K): (T, n, K) and (n,)."""
    alpha = np.empty_like(log_b)
    evidence = np.zeros(log_b.shape[1])
    with np.errstate(all="ignore"):
        for t in range(len(log_b)):
            ahead = log_initial if t == 0 else _log_sum(alpha[t - 1][:, :, None] + log_transition, 1)
            now = ahead + log_b[t]
            total = _log_sum(now, 1)
            # From step to step only differences are carried, or an outlier's −5e7 would round them away.
            alpha[t] = now - np.where(np.isfinite(total), total, 0.0)[:, None]
            evidence += total
    return alpha, evidence


def logs_backward(log_transition: Array, log_b: Array) -> Array:
    """``log p(x_{t+1} … x_T | z_t = k)`` up to a constant of each step, (T, n, K)."""
    beta = np.zeros_like(log_b)
    with np.errstate(all="ignore"):
        for t in range(len(log_b) - 2, -1, -1):
            right = log_b[t + 1] + beta[t + 1]
            top = right.max(1, keepdims=True)
            right -= np.where(np.isfinite(top), top, 0.0)
            beta[t] = _log_sum(log_transition + right[:, None, :], 2)
    return beta


def best_paths(log_initial: Array, log_transition: Array, log_b: Array) -> Array:
    """The most probable path (Viterbi 1967), (n, T), from ``log b_k(x_t)``, (T, n, K)."""
    length, n, k = log_b.shape
    came_from = np.empty((length, n, k), dtype=np.int32)
    path = np.empty((n, length), dtype=np.int64)
    height = log_initial + log_b[0]
    for t in range(1, length):
        through = height[:, :, None] + log_transition
        came_from[t] = through.argmax(1)
        height = through.max(1) + log_b[t]
        height -= height.max(1, keepdims=True)
    at = height.argmax(1)
    for t in range(length - 1, -1, -1):
        path[:, t] = at
        at = came_from[t][np.arange(n), at] if t else at
    return path


def _log_sum(terms: Array, axis: int) -> Array:
    top = terms.max(axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    return np.log(np.exp(terms - top).sum(axis)) + top.squeeze(axis)

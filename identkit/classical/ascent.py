"""Climbing a smooth height towards its top by L-BFGS, and saying from its curvature there how much is left to climb."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

_MEMORY = 30
_STEPS = 2
_MOST = 120
"""Coordinates up to which the curvature is computed: it costs as many slopes as there are coordinates."""
_APART = 1e-6
"""The step between slopes whose difference is a curvature, relative to 1 + the size of the coordinate."""
_FLAT = 1e-7
"""Curvatures below this share of the greatest are counted as this share."""
_SADDLE = 1e-4

Height = Callable[[np.ndarray], tuple[float, np.ndarray]]


def ascend(
    height: Height, start: np.ndarray, tolerance: float, iterations: int
) -> tuple[np.ndarray, list[float], bool]:
    """Climb, and say whether the second order foretells less than `tolerance` to gain and no direction bends upward.

    L-BFGS climbs; where it ends, the curvature H is taken from differences of the slope g, and Newton's step goes on
    for as long as it gains. What is left is ``½ Σ (gᵀv)²/|λ|`` over the eigenpairs of H. A direction that bends upward
    is no top: then the point is a step along it, and not converged. Of more than 120 coordinates, what L-BFGS
    remembers of H has to do.

    Source: Liu & Nocedal 1989; Nocedal & Wright 2006, chapters 3 and 7.

    Args:
        height: gives the value and its slope; raises ValueError where there is none.
        start: where to begin; it should have a value.
        tolerance: how much may be left, in the units of the height (nats).
        iterations: how many steps at most.

    Returns:
        The highest point, the heights on the way from the start on (they never fall), and whether it converged.

    Raises:
        ValueError: as `height` at the start.

    >>> top, heights, converged = ascend(lambda z: (-((z - 3) ** 2).sum(), -2 * (z - 3)), np.zeros(2), 1e-9, 50)
    >>> top.round(6).tolist(), converged
    ([3.0, 3.0], True)
    """
    value, slope = height(start)
    if not np.isfinite(slope).all():
        return start, [value], False
    best, heights, rest = _quasi_newton(height, start, tolerance, iterations)
    if len(start) > _MOST:
        return best, [value, *heights], rest < tolerance
    best, further, rest, upward = _newton(height, best)
    history = [value, *heights, *further]
    if upward is None:
        return best, history, rest < tolerance
    return upward, history, False


def _tried(height: Height, point: np.ndarray) -> tuple[float, np.ndarray]:
    """−∞ where there is no height."""
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value, slope = height(point)
    except ValueError:
        return -np.inf, np.zeros_like(point)
    if np.isfinite(value) and np.isfinite(slope).all():
        return value, slope
    return -np.inf, np.zeros_like(point)


def _quasi_newton(
    height: Height, start: np.ndarray, tolerance: float, iterations: int
) -> tuple[np.ndarray, list[float], float]:
    """The highest point met, the heights on the way, and what the steps remembered say is left."""
    first = _tried(height, start)[0]
    best, heights = start, [first]
    wall = 1e3 * (1 + abs(first))  # high enough to be turned back from, low enough for a line search

    def badness(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        value, slope = _tried(height, point)
        if not np.isfinite(value):
            return wall - first, np.zeros_like(point)
        if value > heights[-1]:
            best = point.copy()
        heights[-1] = max(value, heights[-1])
        return -value, -slope

    found = minimize(
        badness,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: heights.append(heights[-1]),
        options={
            "maxiter": iterations,
            "maxfun": 5 * iterations + 20,
            "ftol": max(0.01 * tolerance / max(abs(first), 1.0), 1e-16),
            "gtol": 0.0,
            "maxcor": _MEMORY,
        },
    )
    rest = float(found.jac @ found.hess_inv(found.jac)) / 2
    return best, heights[1:] if len(heights) > 1 else heights, rest


def _newton(height: Height, point: np.ndarray) -> tuple[np.ndarray, list[float], float, np.ndarray | None]:
    """Newton's steps while they gain; then what is left, and a higher point where some direction bends upward."""
    heights: list[float] = []
    value, slope = _tried(height, point)
    while True:
        rows = []
        for i, size in enumerate(_APART * (1 + np.abs(point))):
            aside = point.copy()
            aside[i] += size
            ahead, turned = _tried(height, aside)
            if not ahead > -np.inf:
                return point, heights, np.inf, None
            rows.append((turned - slope) / size)
        bend = np.stack(rows)
        curvatures, axes = np.linalg.eigh((bend + bend.T) / 2)
        size = np.maximum(np.abs(curvatures), _FLAT * np.abs(curvatures).max() + 1e-300)
        along = axes.T @ slope
        rest = float((along**2 / size).sum()) / 2
        further, uphill = _tried(height, point + axes @ (along / size))
        if further > value + rest / 10 and len(heights) < _STEPS:
            point, slope = point + axes @ (along / size), uphill
            heights.append(further)
            value = further
            continue
        if curvatures[-1] > _SADDLE * size.max():
            for sign in (1, -1):
                aside = point + sign * 0.01 * axes[:, -1]
                above = _tried(height, aside)[0]
                if above > value:
                    return point, [*heights, above], rest, aside
        return point, heights, rest, None

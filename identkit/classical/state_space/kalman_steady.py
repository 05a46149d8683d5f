"""The recursions of `kalman` where nothing depends on time: a few steps at both ends, and one step for all between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from identkit.classical.state_space.kalman import Border, Smoothed, gain_of
from identkit.classical.state_space.kalman_scan import SETTLED, Array, diagonal, follow, np_of, times


def smooth_constant(
    transition: Array,
    root: Array,
    first_root: Array,
    information: Array,
    pulls: Array,
    strong: bool,
    before: Border | None = None,
    after: Border | None = None,
) -> Smoothed:
    """Smooth where F, G and A do not depend on time: a few steps at both ends, and one step for all between.

    The recursions of the matrices are followed to their floating-point fixed point; the means are then products
    with a block Toeplitz matrix.

    Args:
        transition: F, (k, k).
        root: G, (k, k).
        first_root: G_1, (k, k); F_1 is 0.
        information: A, (k, k).
        pulls: a, (n, T, k).
        strong, after: as in `smooth`.
        before: the posterior of the step before, of a chain that is cut there; then all steps have F and G.
    """
    xp = np_of(pulls)
    length = pulls.shape[1]
    late, seen, whitened = _late(transition, root, information, length, strong, after)
    steady = length - 1 - len(late)  # the steps t = 2, …, 1 + steady are all as the first of the late ones
    if before is None:
        first = (*gain_of(xp.zeros_like(transition), first_root, seen, None), seen)
    else:
        first_root, first = root, (*gain_of(transition, root, seen, whitened), seen)
    same = late[:1] if steady else []

    covariance = [first[2].T @ first[2] if before is None else _following(first, before.matrix[0])]
    left = steady
    while left:
        covariance.append(_following(same[0], covariance[-1]))
        left -= 1
        if _apart(covariance[-1], covariance[-2]) <= SETTLED:
            break
    rows = [first, *same * (len(covariance) - 1), *late]
    for step in late:
        covariance.append(_following(step, covariance[-1]))
    repeats = None
    if left:
        repeats = np.ones(len(rows), dtype=np.int64)
        repeats[len(rows) - len(late) - 1] += left

    pull = _pulled(pulls, late, steady, after)
    mean, shock = xp.zeros_like(pulls), xp.zeros_like(pulls)
    shock[:, 0] = pull[:, 0] @ (first[3] @ first[2]).T
    if before is None:
        mean[:, 0] = shock[:, 0] @ first_root.T
    else:
        shock[:, 0] -= before.vector @ first[1].T
        mean[:, 0] = before.vector @ first[0].T + pull[:, 0] @ (first[2].T @ first[2])
    for step in same:
        drive = times(pull[:, : steady + 1], step[2].T @ step[2])
        drive[:, 0] = mean[:, 0]
        mean[:, : steady + 1] = follow(step[0], drive)
        towards = times(pull[:, 1 : steady + 1], (step[3] @ step[2]).T)
        shock[:, 1 : steady + 1] = towards - times(mean[:, :steady], step[1].T)
    for t, step in enumerate(late, start=1 + steady):
        shock[:, t] = pull[:, t] @ (step[3] @ step[2]).T - mean[:, t - 1] @ step[1].T
        mean[:, t] = mean[:, t - 1] @ step[0].T + pull[:, t] @ (step[2].T @ step[2])
    closed, gain, half, _, excess, known = (xp.stack(column)[None] for column in zip(*rows, strict=True))
    roots = xp.stack([first_root, *[root] * (len(rows) - 1)])[None]
    return Smoothed(
        closed=closed,
        gain=gain,
        root=half,
        information=known,
        excess=excess,
        worked=roots,
        noise=roots,
        covariance=xp.stack(covariance)[None],
        repeats=repeats,
        mean=mean,
        shock=shock,
        start=None if before is None else before.matrix,
    )


def said_constant(
    transition: Array, root: Array, information: Array, pulls: Array, strong: bool, after: Border | None
) -> Border:
    """What the data of these steps and later ones say of the step before the first; arguments as `smooth_constant`'s."""
    late, seen, whitened = _late(transition, root, information, pulls.shape[1], strong, after)
    closed, gain = gain_of(transition, root, seen, whitened)[:2]
    pull = _pulled(pulls, late, pulls.shape[1] - 1 - len(late), after)
    return Border((closed.T @ seen @ closed + gain.T @ gain)[None], pull[:, 0] @ closed)


def _late(
    transition: Array, root: Array, information: Array, length: int, strong: bool, after: Border | None
) -> tuple[list[tuple[Array, ...]], Array, Array | None]:
    """Φ, K, X, U, E, B of the last steps until they repeat themselves, the B before them, and G⁻¹F where it serves."""
    whitened = np_of(root).linalg.solve(root, transition) if strong else None
    late: list[tuple[Array, ...]] = []
    seen, settled = information if after is None else information + after.matrix[0], False
    while len(late) < length - 1 and not settled:
        late.append((*gain_of(transition, root, seen, whitened), seen))
        closed, gain = late[-1][:2]
        following = information + closed.T @ seen @ closed + gain.T @ gain
        settled = _apart(following, seen) <= SETTLED
        seen = following
    late.reverse()
    return late, seen, whitened


def _pulled(pulls: Array, late: list[tuple[Array, ...]], steady: int, after: Border | None) -> Array:
    """β, (n, T, k)."""
    xp, length = np_of(pulls), pulls.shape[1]
    pull = xp.zeros_like(pulls)
    pull[:, -1] = pulls[:, -1] if after is None else pulls[:, -1] + after.vector
    for t, step in zip(range(length - 2, -1, -1), reversed(late), strict=False):
        pull[:, t] = pulls[:, t] + pull[:, t + 1] @ step[0]
    if steady:
        drive = xp.concatenate([pulls[:, :steady], pull[:, steady : steady + 1]], 1)
        pull[:, : steady + 1] = xp.flip(follow(late[0][0].T, xp.flip(drive, (1,))), (1,))
    return pull


def _following(step: Sequence[Array], covariance: Array) -> Array:
    return step[0] @ covariance @ step[0].T + step[2].T @ step[2]


def _apart(new: Array, old: Array) -> float:
    """The largest difference between two covariances, in units of their diagonals; ∞ where a coordinate is new."""
    scale = diagonal(new) ** 0.5
    unit = scale[:, None] * scale
    gap = abs(new - old)
    return float((gap[unit > 0] / unit[unit > 0]).max()) if bool((unit > 0).any()) else float(gap.max())

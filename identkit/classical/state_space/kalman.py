"""The recursions behind a linear-Gaussian chain: information backward, moments forward, never a difference of large terms.

The chain is ``z_t = F_t z_{t−1} + G_t w_t`` with ``w_t ~ N(0, I)`` and z_0 = 0. The data from t on say of z_t
``exp(−½ z B_t z + β_t z)``, and given z_{t−1} the posterior of w_t is normal again:

    B_t = A_t + Φ_{t+1}ᵀ B_{t+1} Φ_{t+1} + K_{t+1}ᵀ K_{t+1},    β_t = a_t + Φ_{t+1}ᵀ β_{t+1},
    K = (I + E)⁻¹ Gᵀ B F,   Φ = F − G K,   E = Gᵀ B G,   D = G (I + E)⁻¹ Gᵀ,
    z_t | z_{t−1}, x ~ N(Φ_t z_{t−1} + D_t β_t, D_t),   so   S_t = Φ_t S_{t−1} Φ_tᵀ + D_t,   μ_t = Φ_t μ_{t−1} + D_t β_t.

Every matrix is a sum of positive semidefinite terms that are products of the inputs. So the data's information
keeps its relative digits however small it is beside the prior's, and G may be singular. K minimises what Joseph's
form B_t sums, whence an error of K enters squared.

Source: the backward information filter (Fraser & Potter 1969) in Joseph's form; Rauch, Tung & Striebel 1965.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from identkit.classical.state_space.kalman_scan import (
    Array,
    carried,
    diagonal,
    eye,
    lower_inverse,
    np_of,
    times,
    transposed,
    zeros,
)


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The posterior of a chain, relative to the prior's mean path.

    Row r of the tables stands for ``repeats[r]`` steps in a row; g is 1 where all sequences share them.
    """

    closed: Array
    """Φ, shape (g, rows, k, k)."""
    gain: Array
    """K, shape (g, rows, k, k)."""
    root: Array
    """X with D = XᵀX, shape (g, rows, k, k)."""
    information: Array
    """B, shape (g, rows, k, k), in the basis worked in."""
    worked: Array
    """G in that basis, (1, rows, k, k)."""
    excess: Array
    """E = GᵀBG, what the data add to the unit precision of w_t, (g, rows, k, k)."""
    noise: Array
    """G, shape (1, rows, k, k)."""
    covariance: Array
    """S, shape (g, rows, k, k)."""
    repeats: Array | None
    """How many steps each row stands for, or None where each stands for one."""
    mean: Array
    """μ, shape (n, T, k)."""
    shock: Array
    """E[w_t | x] shape (n, T, k)."""
    start: Array | None = None
    """S before the first step, (g, k, k), of a chain that is cut there; None at the outset."""

    def full(self, table: Array) -> Array:
        """Write a table out, one entry a step: (g, T, …)."""
        return spread(table, self.repeats)

    @property
    def before(self) -> Array:
        """S_{t−1} for each row, 0 for the first."""
        earlier = np_of(self.covariance).zeros_like(self.covariance)
        if self.start is not None:
            earlier[:, 0] = self.start
        earlier[:, 1:] = self.covariance[:, :-1]
        if self.repeats is not None:
            lasting = int(self.repeats.argmax())
            earlier[:, lasting] = self.covariance[:, lasting]
        return earlier

    def row(self, step: int) -> int:
        """Which row stands for a step."""
        if self.repeats is None:
            return step
        return int(np.searchsorted(np.cumsum(self.repeats), step, side="right"))

    def total(self, rows: Array) -> Array:
        """Sum (g, rows) over time: (g,)."""
        if self.repeats is None:
            return rows.sum(1)
        counts = np.asarray(self.repeats, dtype=np.float64)
        return (rows * (counts if isinstance(rows, np.ndarray) else rows.new_tensor(counts))).sum(1)


class Border(NamedTuple):
    """What crosses a border of two pieces of time: backward what the data after it say, forward the posterior there."""

    matrix: Array
    """``Φᵀ B Φ + KᵀK``, or S, (g, k, k)."""
    vector: Array
    """``Φᵀ β``, or μ, (n, k)."""


def smooth(
    transition: Array,
    root: Array,
    information: Array,
    pulls: Array,
    strong: bool,
    before: Border | None = None,
    after: Border | None = None,
) -> Smoothed:
    """Smooth where anything depends on time; sequences that share A share all matrices.

    Args:
        transition: F, (T, k, k) with F_1 = 0.
        root: G, (T, k, k).
        information: A, (g, T, k, k), g = 1 or n.
        pulls: a, (n, T, k).
        strong: whether the data outweigh the prior by far; then G must be regular.
        before: the posterior of the step before, of a chain that is cut there; then F_1 is not 0.
        after: what the data after the last step say of it.
    """
    g, n = len(information), len(pulls)
    transition, root = transition[None], root[None]

    def forward(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        closed, gain, half, drive = at
        covariance = closed @ state[0] @ transposed(closed) + transposed(half) @ half
        mean = closed @ state[1] + transposed(half) @ (half @ drive)
        return (covariance, mean), (covariance, mean, gain @ state[1])

    known, pull, closed, gain, half, excess, towards = _backward(
        transition, root, information, pulls, strong, after
    )[0]
    covariance, mean, from_past = carried(forward, (closed, gain, half, pull), False, _state(before, g))[0]
    return Smoothed(
        closed=closed,
        gain=gain,
        root=half,
        information=known,
        excess=excess,
        worked=root,
        noise=root,
        covariance=covariance,
        repeats=None,
        mean=_rows(mean, n),
        shock=_rows(towards - from_past, n),
        start=None if before is None else before.matrix,
    )


def said(
    transition: Array, root: Array, information: Array, pulls: Array, strong: bool, after: Border | None
) -> Border:
    """What the data of these steps and later ones say of the step before the first; arguments as `smooth`'s."""
    matrix, vector = _backward(transition[None], root[None], information, pulls, strong, after)[1]
    return Border(matrix, _rows(vector[:, None], len(pulls))[:, 0])


def _state(border: Border | None, g: int) -> Sequence[Array] | None:
    return None if border is None else (border.matrix, _columns(border.vector[:, None], g)[:, 0])


def _backward(
    transition: Array, root: Array, information: Array, pulls: Array, strong: bool, after: Border | None
) -> tuple[list[Array], Sequence[Array]]:
    """B, β, Φ, K, X, E and ``U X β`` of all steps, and what goes to the step before the first."""
    columns = _columns(pulls, len(information))
    whitened = [np_of(root).linalg.solve(root, transition)] if strong else []

    def backward(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        known, pull = at[-2] + state[0], at[-1] + state[1]
        closed, gain, half, inverse, excess = gain_of(at[0], at[1], known, at[2] if strong else None)
        turned = transposed(closed)
        passed = turned @ (known @ closed) + transposed(gain) @ gain
        return (passed, turned @ pull), (known, pull, closed, gain, half, excess, inverse @ (half @ pull))

    inputs = (transition, root, *whitened, information, columns)
    return carried(backward, inputs, True, _state(after, len(information)))


def filter_forward(
    transition: Array, root: Array, design: Array, residuals: Array, before: Border | None
) -> tuple[Array, Array]:
    """Give mean and covariance of z_t given the data up to t, by the covariance form of Kalman's filter.

    Args:
        transition: F, (T, k, k), with F_1 = 0 where nothing comes before.
        root: G, (T, k, k).
        design: W, (g, T, p, k): the observations have unit noise, ``r = W z + ε``.
        residuals: r, (n, T, p).
        before: covariance and mean of the step before the first.

    Returns:
        Means (n, T, k), covariances (g, T, k, k).
    """
    n = len(residuals)
    columns = _columns(residuals, len(design))

    def step(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        forward, half, seen, data = at
        spread_, mean = forward @ state[0] @ transposed(forward) + half @ transposed(half), forward @ state[1]
        across = seen @ spread_
        factor = inverse_root(across @ transposed(seen))
        gain = transposed(transposed(factor) @ across) @ transposed(factor)
        left = eye(spread_) - gain @ seen
        covariance = left @ spread_ @ transposed(left) + gain @ transposed(gain)
        mean = mean + gain @ (data - seen @ mean)
        return (covariance, mean), (covariance, mean)

    inputs, start = (transition[None], root[None], design, columns), _state(before, len(design))
    covariance, mean = carried(step, inputs, False, start)[0]
    return _rows(mean, n), covariance


def turned_back(smoothed: Smoothed, turn: Array) -> Smoothed:
    """The same posterior in z, from the one in Tz, T orthogonal; the noises w stay what they are."""
    back = turn.T
    return replace(
        smoothed,
        closed=back @ smoothed.closed @ turn,
        gain=smoothed.gain @ turn,
        root=smoothed.root @ turn,
        noise=back @ smoothed.noise,
        covariance=back @ smoothed.covariance @ turn,
        mean=times(smoothed.mean, turn),
        start=None if smoothed.start is None else back @ smoothed.start @ turn,
    )


def lost(transition: Array, smoothed: Smoothed, gap: Array | None = None) -> Array:
    """Give P − S, by how much the data shrink each state's covariance, (g, T, k, k), without forming P.

    From the same of the step before, (g, k, k), where the chain is cut there.

    ``∆_t = F∆Fᵀ + ΓSΦᵀ + ΦSΓᵀ + ΓSΓᵀ + G E(I + E)⁻¹Gᵀ``, Γ = GK and S = S_{t−1}, for F = Φ + Γ.
    """
    excess, before, closed = smoothed.excess, smoothed.before, smoothed.closed
    inverse = inverse_root(excess)
    shift = smoothed.noise @ smoothed.gain
    fresh = smoothed.noise @ (inverse @ (transposed(inverse) @ (excess @ transposed(smoothed.noise))))
    across = shift @ before @ transposed(closed)
    terms = smoothed.full(fresh + across + transposed(across) + shift @ before @ transposed(shift))

    def step(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        gap = at[0] @ state[0] @ transposed(at[0]) + at[1]
        return (gap, state[1]), (gap, state[1])

    state = None if gap is None else (gap, zeros(gap, gap.shape))
    return carried(step, (transition[None], terms), False, state)[0][0]


def given_the_rest(
    transition: Array, design: Array, misfit: Array, smoothed: Smoothed
) -> tuple[Array, Array, Array, Array]:
    """What the conditional KL of each state given all others is made of; G regular.

    Args:
        transition: F, (T, k, k) with F_1 = 0.
        design: W, (g, T, p, k).
        misfit: r − Wμ, (n, T, p).
        smoothed: the posterior.

    Returns:
        ``A_jj`` (g, T, k), ``Λ_jj`` (T, k), the slope γ of ℓ at the mean (n, T, k), and
        ``(ASA)_jj − A_jj²/(Λ_jj + A_jj) = (ΛSΛ)_jj − Λ_jj²/(Λ_jj + A_jj)`` (g, T, k).
    """
    xp, root = np_of(transition), smoothed.full(smoothed.noise)[0]
    score = xp.linalg.inv(transposed(root))  # Λz = G⁻ᵀw_t − F_{t+1}ᵀ G_{t+1}⁻ᵀ w_{t+1}
    ahead = xp.zeros_like(score)
    ahead[:-1] = transposed(transition[1:]) @ score[1:]
    precision = (score**2).sum(-1) + (ahead**2).sum(-1)
    turned = transposed(design)
    information = turned @ design
    own = diagonal(information)
    spread_ = smoothed.full(smoothed.covariance)
    weak = diagonal(information @ spread_ @ information) - own**2 / (precision + own)

    gain, closed, before, inverse = (
        smoothed.full(table)
        for table in (smoothed.gain, smoothed.closed, smoothed.before, inverse_root(smoothed.excess))
    )
    next_gain, next_inverse = xp.zeros_like(gain), xp.zeros_like(inverse)
    next_gain[:, :-1], next_inverse[:, :-1] = gain[:, 1:], inverse[:, 1:]
    back = ahead @ next_gain
    past = back @ closed - score @ gain
    parts = (score + back @ root) @ inverse, ahead @ next_inverse
    total = diagonal(past @ before @ transposed(past)) + sum((part**2).sum(-1) for part in parts)
    strong = total - precision**2 / (precision + own)

    later = xp.zeros_like(smoothed.shock)
    later[:, :-1] = smoothed.shock[:, 1:]
    by_data = (turned @ misfit[..., None])[..., 0]
    by_noise = (score @ smoothed.shock[..., None] - ahead @ later[..., None])[..., 0]
    light = own <= precision
    left = xp.where(light, weak, strong)
    return own, precision, xp.where(light, by_data, by_noise), xp.where(left > 0, left, 0.0)


def spreads(transition: Array, root: Array, start: Array | None = None) -> Array:
    """The prior's covariances ``P_t = F P Fᵀ + GGᵀ``, (T, k, k); from that of the step before, (k, k)."""

    def step(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        covariance = at[0] @ state[0] @ transposed(at[0]) + at[1] @ transposed(at[1])
        return (covariance, state[1]), (covariance, state[1])

    state = None if start is None else (start[None], zeros(start, (1, *start.shape)))
    return carried(step, (transition[None], root[None]), False, state)[0][0][0]


def gain_of(
    transition: Array, root: Array, information: Array, whitened: Array | None
) -> tuple[Array, Array, Array, Array, Array]:
    """Φ, K, X, U and E of one step or many, where UUᵀ = (I + E)⁻¹ and X = UᵀGᵀ.

    Where F − GK is a small difference, and Φᵀβ a product of something tiny with something huge, G⁻¹F gives
    ``Φ = G(I + E)⁻¹G⁻¹F`` with all its digits.
    """
    known = information @ root
    turned = transposed(root)
    excess = turned @ known
    inverse = inverse_root(excess)
    weights = transposed(inverse)
    gain = inverse @ (weights @ (transposed(known) @ transition))
    closed = transition - root @ gain if whitened is None else root @ (inverse @ (weights @ whitened))
    return closed, gain, weights @ turned, inverse, excess


def inverse_root(excess: Array) -> Array:
    """U, upper triangular, with UUᵀ = (I + excess)⁻¹."""
    return transposed(lower_inverse(excess + eye(excess)))


def spread(table: Array, repeats: Array | None) -> Array:
    """Repeat the rows of (g, rows, …)."""
    if repeats is None:
        return table
    if isinstance(table, np.ndarray):
        return np.repeat(table, repeats, axis=1)
    if table.device.type == "cpu":
        return torch.from_numpy(np.repeat(table.numpy(), repeats, axis=1))
    return torch.repeat_interleave(table, torch.as_tensor(repeats, device=table.device), dim=1)


def _columns(values: Array, g: int) -> Array:
    """(n, T, k) → (g, T, k, m): sequences that share their matrices lie side by side."""
    return np_of(values).moveaxis(values, 0, -1)[None] if g == 1 else values[..., None]


def _rows(columns: Array, n: int) -> Array:
    return np_of(columns).moveaxis(columns[0], -1, 0) if columns.shape[-1] == n else columns[..., 0]

"""What a fit of a state space needs of the states' posterior: its moments, the M-step, and the slope of log p(x)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identkit.classical.state_space import information, kalman
from identkit.classical.state_space.data import factor
from identkit.classical.state_space.kalman import Smoothed
from identkit.classical.state_space.kalman_scan import Array

if TYPE_CHECKING:
    from identkit.classical.state_space.model import StateSpace

FLOOR = 1e-9
"""The least variance of the noise in any direction, in units of the variances of x."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over all sequences and times of products of states, and of states and data, under the posterior."""

    n: int
    """Number of sequences."""
    steps: int
    """Number of transitions, n(T − 1)."""
    start: Tensor
    """``Σ E[z_1]``, (k,)."""
    starts: Tensor
    """``Σ E[z_1 z_1ᵀ]``."""
    sooner: Tensor
    """``S₀₀ = Σ E[z_{t−1} z_{t−1}ᵀ]``."""
    later: Tensor
    """``S₁₁ = Σ E[z_t z_tᵀ]`` over t ≥ 2."""
    cross: Tensor
    """``S₁₀ = Σ E[z_t z_{t−1}ᵀ]``."""
    states: Tensor
    """``Σ E[s sᵀ]`` with s = (z, 1), (k + 1, k + 1)."""
    targets: Tensor
    """``Σ E[x sᵀ]``, (p, k + 1)."""
    squares: Tensor
    """``Σ E[x xᵀ]``."""

    pull: Tensor
    """``Σ E[u_1]``, where ``u_t = G_t⁻ᵀw_t`` is the slope of log p(z_t | z_{t−1}) in the mean of z_t."""
    pulls: Tensor
    """``Σ E[u_1 u_1ᵀ] − P⁻¹``."""
    driven: Tensor
    """``Σ E[u_t z_{t−1}ᵀ]`` over t ≥ 2."""
    excess: Tensor
    """``Σ E[u_t u_tᵀ] − Q⁻¹`` over t ≥ 2; as the three before it, it is NaN where Q or P is singular."""

    def plus(self, other: Moments) -> Moments:
        """Those of two sets of sequences together."""
        names = [field.name for field in fields(self)]
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Moments(**sums)

    @property
    def count(self) -> float:
        """Number of times in all sequences, nT."""
        return float(self.states[-1, -1])

    def initial(self, mean: Tensor) -> Tensor:
        """``Σ E[(z_1 − m)(z_1 − m)ᵀ]``."""
        across = self.start[:, None] * mean
        return self.starts - across - across.T + self.n * mean[:, None] * mean

    def moved(self, transition: Tensor) -> Tensor:
        """``Σ E[(z_t − F z_{t−1})(z_t − F z_{t−1})ᵀ]``."""
        across = transition @ self.cross.T
        return self.later - across - across.T + transition @ self.sooner @ transition.T

    def missed(self, loadings: Tensor) -> Tensor:
        """``Σ E[(x − [H d]s)(x − [H d]s)ᵀ]``."""
        across = loadings @ self.targets.T
        return self.squares - across - across.T + loadings @ self.states @ loadings.T


def expected(model: StateSpace, values: Tensor, observed: Tensor) -> tuple[Moments, float]:
    """Give the moments under a model (the E-step), and its log-likelihood in nats.

    Args:
        model: time-invariant, without a transition_offset.
        values: (n, T, p), 0 where missing.
        observed: (n, T, p).

    Raises:
        ValueError: float64 cannot hold what the model says.
    """
    total, height = None, 0.0
    for rows in model._rows(values, observed):
        seen = model._seen(values[rows], observed[rows])
        ((_, smoothed),) = model._journey([(range(values.shape[1]), lambda seen=seen: seen)], None, 0)
        found = _of_block(model, values[rows], observed[rows], smoothed)
        total = found if total is None else total.plus(found)
        height += float(model._tensor(information.log_evidence(seen, smoothed)).sum())
    if total is None or not math.isfinite(height):
        raise ValueError(f"x should have a log-likelihood under the model, got {height}")
    return total, height


def _of_block(model: StateSpace, values: Tensor, observed: Tensor, smoothed: Smoothed) -> Moments:
    n, length = values.shape[:2]

    def every(table: Array) -> Tensor:
        table = model._tensor(smoothed.full(table))
        return table.expand(n, *table.shape[1:])

    mean = model._tensor(smoothed.mean + model._prior_mean(range(length)))
    shock = model._tensor(smoothed.shock)
    spread, before, gain, closed = map(
        every, (smoothed.covariance, smoothed.before, smoothed.gain, smoothed.closed)
    )
    inverse = kalman.inverse_root(smoothed.excess)
    # 1 − Var(w_t | x), no difference where the data say little of w_t but much of z_{t−1}
    lost = every(inverse @ (kalman.transposed(inverse) @ smoothed.excess)) - gain @ before @ gain.mT
    lag = closed @ before
    noise = model._tensor(smoothed.noise)[0]  # in whose basis w is: not always that of Cholesky
    start, root = noise[0], noise[-1]
    outer = spread.sum((0, 1)) + torch.einsum("nti,ntj->ij", mean, mean)
    first = spread[:, 0].sum(0) + mean[:, 0].T @ mean[:, 0]
    last = spread[:, -1].sum(0) + mean[:, -1].T @ mean[:, -1]
    later, sooner = mean[:, 1:], mean[:, :-1]
    product, square, total = _completed(model, values, observed, mean, spread)
    sums = torch.cat([mean.sum((0, 1)), mean.new_tensor([float(n * length)])])
    return Moments(
        n=n,
        steps=n * (length - 1),
        start=mean[:, 0].sum(0),
        starts=first,
        sooner=outer - last,
        later=outer - first,
        cross=lag[:, 1:].sum((0, 1)) + torch.einsum("nti,ntj->ij", later, sooner),
        states=torch.cat([torch.cat([outer, sums[:-1, None]], 1), sums[None]]),
        targets=torch.cat([product, total[:, None]], 1),
        squares=square,
        pull=_back(start, shock[:, 0].sum(0)[:, None])[:, 0],
        pulls=_twice(start, shock[:, 0].T @ shock[:, 0] - lost[:, 0].sum(0)),
        driven=_back(
            root, torch.einsum("nti,ntj->ij", shock[:, 1:], sooner) - (gain @ before)[:, 1:].sum((0, 1))
        ),
        excess=_twice(
            root, torch.einsum("nti,ntj->ij", shock[:, 1:], shock[:, 1:]) - lost[:, 1:].sum((0, 1))
        ),
    )


def _back(root: Tensor, table: Tensor) -> Tensor:
    """``G⁻ᵀA``, NaN where G is singular."""
    found, failed = torch.linalg.solve_ex(root.T, table)
    return torch.where(failed == 0, found, math.nan)


def _twice(root: Tensor, table: Tensor) -> Tensor:
    return _back(root, _back(root, table).T)


def improved(moments: Moments, model: StateSpace, tied: bool) -> StateSpace:
    """Give the model that maximises the expected log-likelihood (the M-step).

    Where the bound on R bites, its eigenvalues below become the bound, which is the constrained maximum.

    Args:
        moments: of data in units of their own columns.
        model: what they are the moments under; nothing of it moves where they say nothing.
        tied: whether P = Q.
    """
    from identkit.classical.state_space.model import StateSpace

    transition = _regressed(model.transition, moments.cross, moments.sooner)
    start = moments.start / moments.n
    process, initial = moments.moved(transition), moments.initial(start)
    if tied:
        process = initial = (process + initial) / (moments.steps + moments.n)
    else:
        process, initial = process / moments.steps, initial / moments.n
    loadings = torch.cat([model.observation, model.observation_offset[:, None]], 1)
    loadings = _regressed(loadings, moments.targets, moments.states)
    noise = moments.missed(loadings) / moments.count
    levels, axes = torch.linalg.eigh((noise + noise.T) / 2)
    return StateSpace(
        transition,
        loadings[:, :-1],
        semidefinite(process),
        (axes * levels.clamp(min=FLOOR)) @ axes.T,
        start,
        semidefinite(initial),
        observation_offset=loadings[:, -1],
    )


def _regressed(old: Tensor, across: Tensor, squares: Tensor) -> Tensor:
    """``Σ E[y sᵀ] (Σ E[s sᵀ])⁻¹``; along what s never does, as where a state is constant beside the 1, the old stays."""
    scale = squares.diagonal().sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    inverse = torch.linalg.pinv(squares / scale[:, None] / scale, hermitian=True)
    return old + ((across - old @ squares) / scale) @ inverse / scale


def semidefinite(covariance: Tensor) -> Tensor:
    """The covariance that rounding may have bent."""
    half, _ = factor((covariance + covariance.T) / 2)
    return half @ half.T


def slopes(moments: Moments, model: StateSpace, tied: bool) -> dict[str, Tensor]:
    """Give ``∂ log p(x)/∂θ`` at the model the moments are of: by Fisher's identity, that of the expected log p(x, z).

    With ``u_t = Q⁻¹(z_t − F z_{t−1})`` it is ``Σ E[u_t z_{t−1}ᵀ]`` for F and ``½ Σ (E[u_t u_tᵀ] − Q⁻¹)`` for Q, and so for
    m and P, from terms that no small Q drowns in rounding; and ``½(R⁻¹AR⁻¹ − NR⁻¹)`` for R, A the sum of N outer products.
    Of a covariance C it is the symmetric S with ``d log p = tr(S dC)``; where P = Q, both are counted as Q's.

    Source: Koopman & Shephard 1992, Biometrika 79:823.
    """
    loadings = torch.cat([model.observation, model.observation_offset[:, None]], 1)
    misfit = torch.linalg.solve(model.noise_covariance, moments.targets - loadings @ moments.states)
    root = torch.linalg.cholesky(model.noise_covariance)
    white = torch.linalg.solve_triangular(root, moments.missed(loadings), upper=False)
    white = torch.linalg.solve_triangular(root, white.T, upper=False)
    eye = torch.eye(len(root), dtype=root.dtype, device=root.device)
    found = {
        "transition": moments.driven,
        "observation": misfit[:, :-1],
        "observation_offset": misfit[:, -1],
        "initial_mean": moments.pull,
        "noise_covariance": _twice(root, white - moments.count * eye) / 2,
        "process_covariance": (moments.excess + moments.pulls if tied else moments.excess) / 2,
    }
    if not tied:
        found["initial_covariance"] = moments.pulls / 2
    return found


def _completed(
    model: StateSpace, values: Tensor, observed: Tensor, mean: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``Σ E[x zᵀ], Σ E[x xᵀ], Σ E[x]`` over all sequences and times, a missing value being a latent too."""
    p = values.shape[-1]
    loadings, noise, offset = model.observation, model.noise_covariance, model.observation_offset
    patterns, which = torch.unique(observed.reshape(-1, p), dim=0, return_inverse=True)
    flat, centres = values.reshape(-1, p), mean.reshape(len(which), -1)
    spreads = spread.reshape(len(which), *spread.shape[2:])
    product, square, total = torch.zeros_like(loadings), torch.zeros_like(noise), torch.zeros_like(offset)
    for index, seen in enumerate(patterns):
        rows = torch.nonzero(which == index)[:, 0]
        missing = ~seen
        fixed, state = flat[rows], centres[rows]
        second = spreads[rows].sum(0) + state.T @ state
        slope, left = torch.zeros_like(loadings), torch.zeros_like(noise)
        if bool(missing.any()):
            # x_m | z, x_o ~ N(d_m + H_m z + R_mo R_oo⁻¹ (x_o − d_o − H_o z), R_mm − R_mo R_oo⁻¹ R_om)
            within = noise[seen][:, seen]
            weights = torch.linalg.solve(within, noise[seen][:, missing]).T
            fixed = fixed.clone()
            fixed[:, missing] = offset[missing] + (fixed[:, seen] - offset[seen]) @ weights.T
            slope[missing] = loadings[missing] - weights @ loadings[seen]
            block = noise[missing][:, missing] - weights @ noise[seen][:, missing]
            left[missing.nonzero(), missing.nonzero().T] = block
        across = fixed.T @ state
        product += across + slope @ second
        moved = across @ slope.T
        square += fixed.T @ fixed + moved + moved.T + slope @ second @ slope.T + len(rows) * left
        total += fixed.sum(0) + slope @ state.sum(0)
    return product, square, total

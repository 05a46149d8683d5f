"""Maximum likelihood for a linear-Gaussian state space by EM, with any values missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identkit.classical.em import extrapolated, maximise
from identkit.classical.state_space.data import sequences

if TYPE_CHECKING:
    from identkit.classical.state_space.model import StateSpace

_TRIAL = 40
"""Iterations after which only the best random start goes on: by then most of what EM gains is gained."""


def fit(
    x: Any,
    state_dim: int | None,
    start: StateSpace | None,
    restarts: int,
    tolerance: float,
    iterations: int,
    seed: int,
    length: int | None,
) -> StateSpace:
    """Climb to a local maximum of the likelihood in F, H, d, Q, R, m and P (with one sequence, P is held).

    ``F = S₁₀S₀₀⁻¹``, ``Q = (S₁₁ − F S₁₀ᵀ)/(n(T − 1))``, and [H d] is the regression of x on (z, 1), where a missing
    value is a latent like any other. The likelihood leaves the basis of the state open: any invertible change of it
    fits as well (theory/T6).

    Source: Shumway & Stoffer 1982, J. Time Series Analysis 3:253.

    Raises:
        ValueError: neither or both of state_dim and start, x without an observation, fewer than two times.
    """
    if (state_dim is None) == (start is None):
        raise ValueError(f"state_dim or start should be given, one of them, got {state_dim!r} and {start!r}")
    if state_dim is not None and (not isinstance(state_dim, int) or state_dim < 1):
        raise ValueError(f"state_dim should be a whole number from 1 on, got {state_dim!r}")
    if restarts < 1 or iterations < 1:
        raise ValueError(f"restarts and iterations should be at least 1, got {restarts} and {iterations}")
    device = start.initial_mean.device if start is not None else torch.device("cpu")
    values, observed = sequences(x, length, _columns(x, start, length), device)
    values = values.double()
    if not bool(observed.any()) or values.shape[1] < 2:
        raise ValueError(f"x should have observations at two times at least, got shape {tuple(values.shape)}")
    if start is not None and (start._time is not None or bool((start.transition_offset != 0).any())):
        raise ValueError("start should be time-invariant and without a transition_offset")
    starts = (
        [start.of_length(None)] if start is not None else _random(values, observed, state_dim, restarts, seed)
    )

    def step(model: StateSpace) -> tuple[StateSpace, float]:
        return _improved(model, values, observed)

    best, convergence = maximise(starts, step, tolerance, iterations, _leapt, _TRIAL)
    found = best.of_length(length)
    object.__setattr__(found, "convergence", convergence)
    return found


def _columns(x: Any, start: StateSpace | None, length: int | None) -> int:
    if start is not None:
        return start._p
    shape = torch.as_tensor(x).shape
    if length is not None and len(shape) == 2 and shape[1] % length == 0:
        return shape[1] // length
    return shape[-1] if len(shape) > 1 else 1


def _random(
    values: Tensor, observed: Tensor, state_dim: int | None, restarts: int, seed: int
) -> list[StateSpace]:
    from identkit.classical.state_space.model import StateSpace

    k, p = state_dim or 1, values.shape[-1]
    generator = torch.Generator(device=values.device).manual_seed(seed)
    like = {"dtype": torch.float64, "device": values.device}
    counts = observed.sum((0, 1)).clamp(min=1)
    mean = values.sum((0, 1)) / counts
    apart = torch.where(observed, values - mean, 0.0)
    variance = apart.square().sum((0, 1)) / counts
    variance = torch.where(variance > 0, variance, 1.0)
    eye = torch.eye(k, **like)
    found = []
    for _ in range(restarts):
        turn = torch.linalg.qr(torch.randn(k, k, generator=generator, **like)).Q
        speed = torch.rand(k, generator=generator, **like)
        loadings = torch.randn(p, k, generator=generator, **like) * (variance / (2 * k)).sqrt()[:, None]
        transition = turn @ torch.diag(speed) @ turn.T
        noise = torch.diag(variance / 2)
        found.append(
            StateSpace(transition, loadings, eye - transition @ transition.T + 1e-3 * eye, noise, eye[0] * 0, eye,
                       observation_offset=mean)
        )  # fmt: skip
    return found


def _improved(model: StateSpace, values: Tensor, observed: Tensor) -> tuple[StateSpace, float]:
    from identkit.classical.state_space.model import StateSpace

    n, length = values.shape[:2]
    x = torch.where(observed, values, math.nan)
    posterior, heights = model._posterior(x, evidence=True)
    mean, spread, lag = posterior.mean, posterior.covariance, posterior.lag_one
    later, sooner = mean[:, 1:], mean[:, :-1]
    outer = spread.sum((0, 1)) + torch.einsum("nti,ntj->ij", mean, mean)
    first = spread[:, 0].sum(0) + mean[:, 0].T @ mean[:, 0]
    last = spread[:, -1].sum(0) + mean[:, -1].T @ mean[:, -1]
    cross = lag.sum((0, 1)) + torch.einsum("nti,ntj->ij", later, sooner)
    transition = torch.linalg.solve(outer - last, cross.T).T
    moved = transition @ cross.T
    process = (outer - first - moved - moved.T + transition @ (outer - last) @ transition.T) / (
        n * (length - 1)
    )
    start = mean[:, 0].mean(0)
    around = mean[:, 0] - start
    initial = (spread[:, 0].sum(0) + around.T @ around) / n if n > 1 else model.initial_covariance

    product, square, total = _completed(model, values, observed, mean, spread)
    sums = mean.sum((0, 1))
    count = float(n * length)
    states = torch.cat(
        [torch.cat([outer, sums[:, None]], 1), torch.cat([sums, sums.new_tensor([count])])[None]]
    )
    targets = torch.cat([product, total[:, None]], 1)
    loadings = torch.linalg.solve(states, targets.T).T
    explained = loadings @ targets.T
    noise = (square - explained - explained.T + loadings @ states @ loadings.T) / count
    return (
        StateSpace(
            transition,
            loadings[:, :-1],
            (process + process.T) / 2,
            (noise + noise.T) / 2,
            start,
            (initial + initial.T) / 2,
            observation_offset=loadings[:, -1],
        ),
        float(heights.sum()),
    )


def _leapt(first: StateSpace, second: StateSpace, third: StateSpace, stride: float) -> StateSpace | None:
    """Extrapolate three fits, covariances by their Cholesky factors; None where that gives no covariance."""
    from identkit.classical.state_space.model import StateSpace

    found = {}
    for name, start in first._tensors().items():
        start, middle, end = (getattr(model, name) for model in (first, second, third))
        if name.endswith("covariance"):
            start, middle, end = (torch.linalg.cholesky_ex(table).L for table in (start, middle, end))
        value = extrapolated(start, middle, end, stride)
        found[name] = value @ value.mT if name.endswith("covariance") else value
    try:
        return StateSpace(**found)
    except ValueError:
        return None


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

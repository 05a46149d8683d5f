"""Maximum likelihood for a linear-Gaussian state space, with any values missing: EM to a hill, L-BFGS to its top."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from identkit.classical.ascent import ascend
from identkit.classical.em import ConvergenceWarning, climbed, maximise
from identkit.classical.state_space.data import factor, sequences
from identkit.classical.state_space.moments import FLOOR, expected, improved, slopes
from identkit.model.compiled.data import whole

if TYPE_CHECKING:
    from identkit.classical.state_space.model import StateSpace

_TRIAL = 40
"""Iterations of EM from each start: by then most of what EM gains is gained, and the best hill chosen."""
_IDLE = 3
"""So many journeys in a row of EM, L-BFGS and Newton's steps that gain nothing are the end."""
_HEYWOOD = 1e-6
_FACTORED = ("process_covariance", "noise_covariance", "initial_covariance")
"""What L-BFGS climbs in by its factor L, C = LLᵀ, or LLᵀ and the bound for R: so no step leaves the covariances."""


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
    """Climb to a local maximum of the likelihood in F, H, d, Q, R, m and P.

    EM comes first, ``F = S₁₀S₀₀⁻¹``, ``Q = (S₁₁ − F S₁₀ᵀ)/(n(T − 1))``, and [H d] the regression of x on (z, 1), where a
    missing value is a latent like any other. From the best start L-BFGS goes on in the same parameters, by Fisher's
    identity: the slope of log p(x) is the slope of EM's expected log-likelihood, at the same cost.

    With no more sequences than states, P = Q: no data can show a P of its own, whose likelihood is highest at 0, or
    where the basis of the state grows without end. The state before the first is then a fixed one, and m = F z₀ is
    estimated. R is held above 1e-9 of the variances of x in every direction, for a likelihood without such a bound
    may have no maximum. It leaves the basis of the state open: any invertible change of it fits as well (theory/T6).

    Source: Shumway & Stoffer 1982, J. Time Series Analysis 3:253 (EM); Fisher 1925; Liu & Nocedal 1989.

    Raises:
        ValueError: neither or both of state_dim and start, x without an observation, fewer than two times, a column
            that does not vary.
    """
    if (state_dim is None) == (start is None):
        raise ValueError(f"state_dim or start should be given, one of them, got {state_dim!r} and {start!r}")
    state_dim = None if state_dim is None else whole(state_dim, "state_dim", 1)
    restarts, iterations = whole(restarts, "restarts", 1), whole(iterations, "iterations", 1)
    device = start.initial_mean.device if start is not None else torch.device("cpu")
    values, observed = sequences(x, length, _columns(x, start, length), device)
    values = values.double()
    if not bool(observed.any()) or values.shape[1] < 2:
        raise ValueError(f"x should have observations at two times at least, got shape {tuple(values.shape)}")
    if start is not None and (start._time is not None or bool((start.transition_offset != 0).any())):
        raise ValueError("start should be time-invariant and without a transition_offset")
    centre, scale, counts = _units(values, observed)
    # In units of its own columns, so that one floor and one memory of slopes serve data of any size.
    values = torch.where(observed, (values - centre) / scale, 0.0)
    constant = -float((counts * scale.log()).sum())
    k = len(start.initial_mean) if start is not None else state_dim or 1
    tied = len(values) <= k
    if start is not None:
        starts = [_in_units(start.of_length(None), scale.reciprocal(), -centre / scale, tied)]
    else:
        starts = _random(values, observed, k, restarts, seed)

    def step(model: StateSpace) -> tuple[StateSpace, float]:
        moments, height = expected(model, values, observed)
        try:
            return improved(moments, model, tied), height + constant
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise ValueError(f"x should be such that a covariance can be computed, got {error}") from error

    def finish(model: StateSpace, left: int) -> tuple[StateSpace, list[float], bool, float]:
        best, history, idle, fell = model, [-math.inf], 0, 0.0
        while True:
            kept, model, heights, converged = _finished(
                model, values, observed, tied, tolerance, left + 1 - len(history)
            )
            top = max(heights) + constant
            gained = top - history[-1]
            best = kept if gained > 0 else best
            history += [max(height + constant, history[-1]) for height in heights]
            if converged and gained > -tolerance:
                return best, history[1:], True, 0.0
            # Up to the rounding of the likelihood, which a tiny R or Q may make large, nothing is left to gain.
            idle, fell = (0, 0.0) if gained >= tolerance else (idle + 1, max(fell, -gained))
            if idle == _IDLE:
                fell = fell if fell >= tolerance else 0.0
                return best, history[1:], fell == 0.0, fell
            if left < len(history):
                return best, history[1:], False, 0.0
            # Where Q is nearly singular, EM moves on where a line search is at a loss.
            try:
                model, higher, _, _ = climbed(model, step, 0.0, min(_TRIAL, left + 1 - len(history)))
            except ValueError:
                return best, history[1:], False, 0.0
            best = model if higher[-1] > history[-1] else best
            history += [max(height, history[-1]) for height in higher]
            if left < len(history):
                return best, history[1:], False, 0.0

    # Where Q or P is singular, it stays so in EM, which then goes on alone: no slope leads out of the range.
    regular = all(full for model in starts for _, full in model._roots)
    best, convergence = maximise(
        starts, step, tolerance, iterations, trial=_TRIAL, finish=finish if regular else None
    )
    least = float(torch.linalg.eigvalsh(best.noise_covariance)[0])
    if convergence.converged and least <= _HEYWOOD:
        warnings.warn(
            f"{convergence}; it leaves {least:.1g} of the variance of x to noise in some direction (a Heywood case, "
            f"held above {FLOOR:g}): fewer states may help",
            ConvergenceWarning,
            stacklevel=3,
        )
    found = _in_units(best, scale, centre, tied).of_length(length)
    object.__setattr__(found, "convergence", convergence)
    return found


def _columns(x: Any, start: StateSpace | None, length: int | None) -> int:
    if start is not None:
        return start._p
    shape = torch.as_tensor(x).shape
    if length is not None and len(shape) == 2 and shape[1] % length == 0:
        return shape[1] // length
    return shape[-1] if len(shape) > 1 else 1


def _units(values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and standard deviations of what is observed of each column, and how many numbers that are."""
    counts = observed.sum((0, 1))
    most = counts.clamp(min=1)
    centre = values.sum((0, 1)) / most
    centre = centre + torch.where(observed, values - centre, 0.0).sum((0, 1)) / most
    scale = (torch.where(observed, values - centre, 0.0).square().sum((0, 1)) / most).sqrt()
    still = torch.nonzero((counts > 0) & ~(scale > 1e-14 * centre.abs()))
    if len(still):
        column = int(still[0])
        raise ValueError(
            f"x should vary in every column, got {centre[column].item():g} throughout column {column}"
        )
    return centre, torch.where(counts > 0, scale, 1.0), counts


def _in_units(model: StateSpace, scale: Tensor, shift: Tensor, tied: bool) -> StateSpace:
    """The law of ``scale · x + shift``."""
    from identkit.classical.state_space.model import StateSpace

    tensors: dict[str, Any] = dict(model._tensors())
    tensors["observation"] = scale[:, None] * model.observation
    tensors["noise_covariance"] = scale[:, None] * model.noise_covariance * scale
    tensors["observation_offset"] = scale * model.observation_offset + shift
    if tied:
        tensors["initial_covariance"] = tensors["process_covariance"]
    return StateSpace(**tensors)


def _random(values: Tensor, observed: Tensor, k: int, restarts: int, seed: int) -> list[StateSpace]:
    """Models of data that are standardised: states that mix at random speeds explain half of each column."""
    from identkit.classical.state_space.model import StateSpace

    p = values.shape[-1]
    generator = torch.Generator(device=values.device).manual_seed(seed)
    like = {"dtype": torch.float64, "device": values.device}
    eye, tied = torch.eye(k, **like), len(values) <= k
    found = []
    for _ in range(restarts):
        turn = torch.linalg.qr(torch.randn(k, k, generator=generator, **like)).Q
        speed = torch.rand(k, generator=generator, **like)
        loadings = torch.randn(p, k, generator=generator, **like) / math.sqrt(2 * k)
        transition = turn @ torch.diag(speed) @ turn.T
        process = eye - transition @ transition.T + 1e-3 * eye
        process = (process + process.T) / 2
        noise = torch.eye(p, **like) / 2
        found.append(StateSpace(transition, loadings, process, noise, 0 * eye[0], process if tied else eye))
    return found


def _finished(
    model: StateSpace, values: Tensor, observed: Tensor, tied: bool, tolerance: float, iterations: int
) -> tuple[StateSpace, StateSpace, list[float], bool]:
    """Climb on by L-BFGS, in a basis of the state where its second moments are the unit matrix.

    Gives the top in the basis that keeps its likelihood, in the one that was given, the heights, and whether it converged.
    """
    moments, _ = expected(model, values, observed)
    basis = torch.linalg.cholesky(moments.states[:-1, :-1] / moments.count)
    model = _in_basis(model, basis)
    names = [
        name
        for name in model._tensors()
        if name != "transition_offset" and not (tied and name == "initial_covariance")
    ]

    def height(point: np.ndarray) -> tuple[float, np.ndarray]:
        here, factors = _unpacked(point, model, names, tied)
        try:
            moments, found = expected(here, values, observed)
            uphill = slopes(moments, here, tied)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise ValueError(str(error)) from error
        return found, _packed(
            {
                name: uphill[name] if name not in factors else 2 * uphill[name] @ factors[name]
                for name in names
            }
        )

    tables = {}
    for name in names:
        value = getattr(model, name)
        if name == "noise_covariance":
            value = value - FLOOR * torch.eye(len(value), dtype=value.dtype, device=value.device)
        tables[name] = _lower(value) if name in _FACTORED else value
    top, heights, converged = ascend(height, _packed(tables), tolerance, iterations)
    found = _unpacked(top, model, names, tied)[0]
    back = _in_basis(found, torch.linalg.inv(basis))
    # Where R or Q is all but singular, a likelihood is right to fewer digits in one basis than in another.
    kept = expected(back, values, observed)[1] >= max(heights) - tolerance
    return back if kept else found, back, heights, converged


def _in_basis(model: StateSpace, basis: Tensor) -> StateSpace:
    """The same law of x with the states ``z′ = T⁻¹z``."""
    from identkit.classical.state_space.model import StateSpace

    def within(table: Tensor) -> Tensor:
        return torch.linalg.solve(basis, table)

    def both(table: Tensor) -> Tensor:
        half = within(factor(table)[0])
        return half @ half.T

    return StateSpace(
        within(model.transition @ basis),
        model.observation @ basis,
        both(model.process_covariance),
        model.noise_covariance,
        within(model.initial_mean),
        both(model.initial_covariance),
        observation_offset=model.observation_offset,
    )


def _lower(covariance: Tensor) -> Tensor:
    """L, lower triangular with LLᵀ the covariance, which may be singular."""
    levels, axes = torch.linalg.eigh(covariance)
    half = axes * levels.clamp(min=0.0).sqrt()
    lower = torch.linalg.qr(half.T).R.T
    signs = torch.where(lower.diagonal() < 0, -1.0, 1.0)
    return lower * signs


def _packed(tables: dict[str, Tensor]) -> np.ndarray:
    """One vector of all parameters, of factors their lower triangles."""
    rows = [
        value[tuple(torch.tril_indices(*value.shape, device=value.device))]
        if name in _FACTORED
        else value.flatten()
        for name, value in tables.items()
    ]
    return torch.cat(rows).cpu().numpy()


def _unpacked(
    point: np.ndarray, like: StateSpace, names: list[str], tied: bool
) -> tuple[StateSpace, dict[str, Tensor]]:
    """The model that a vector stands for, and the factors of its covariances."""
    from identkit.classical.state_space.model import StateSpace

    tensors: dict[str, Any] = dict(like._tensors())
    factors: dict[str, Tensor] = {}
    used = 0
    for name in names:
        old = tensors[name]
        if name in _FACTORED:
            places = tuple(torch.tril_indices(*old.shape, device=old.device))
            size = len(places[0])
            lower = torch.zeros_like(old)
            lower[places] = torch.from_numpy(point[used : used + size]).to(old)
            factors[name], tensors[name] = lower, lower @ lower.T
            if name == "noise_covariance":
                tensors[name] = tensors[name] + FLOOR * torch.eye(
                    len(lower), dtype=old.dtype, device=old.device
                )
        else:
            size = old.numel()
            tensors[name] = torch.from_numpy(point[used : used + size]).to(old).reshape(old.shape)
        used += size
    if tied:
        tensors["initial_covariance"] = tensors["process_covariance"]
    return StateSpace(**tensors), factors

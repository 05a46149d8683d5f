"""What the data say of a state path, in nats: sums of non-negative terms over a smoothed chain, none of which cancels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from identkit.classical.state_space.data import Seen
from identkit.classical.state_space.kalman import Smoothed, given_the_rest, inverse_root, lost, spreads
from identkit.classical.state_space.kalman_scan import Array, diagonal, eye, np_of
from identkit.posterior.stable import gaussian_gain

_EPS = 2.0**-52
_TINY = 1e-300  # errors are stated as positive numbers, also where nothing was rounded
_MEMORY = 1000  # steps over which roundings may add up; a chain forgets, or its likelihood dwarfs them


def misfit(seen: Seen, smoothed: Smoothed) -> Array:
    """r − Wμ, (n, T, p)."""
    if seen.constant:
        return seen.residuals - smoothed.mean @ seen.design.T
    return seen.residuals - (seen.design @ smoothed.mean[..., None])[..., 0]


def log_constant(seen: Seen) -> Array:
    """``Σ log sd + (N/2) log 2π`` over the N numbers observed, (n,)."""
    return seen.log_scale + seen.counts * (math.log(2 * math.pi) / 2)


def log_volume(smoothed: Smoothed) -> Array:
    """``Σ_t log det(I + E_t) = log det Cov(x) − log det R``, (g,), to the last digits also of the smallest E."""
    xp = np_of(smoothed.mean)
    return smoothed.total(xp.log1p(_positive(xp.linalg.eigvalsh(smoothed.excess))).sum(-1))


def log_evidence(seen: Seen, smoothed: Smoothed) -> Array:
    """``−½[Σ_t log det(I + E_t) + |r − Wμ|² + Σ_t |E[w_t | x]|²]`` and constants, (n,): a least sum of squares."""
    squares = (misfit(seen, smoothed) ** 2).sum((1, 2)) + (smoothed.shock**2).sum((1, 2))
    return -(log_volume(smoothed) + squares) / 2 - log_constant(seen)


def joint_kl(smoothed: Smoothed) -> Array:
    """``½ Σ_t [tr h(E_t) + tr(K_t S_{t−1} K_tᵀ) + |E[w_t | x]|²]``, h(E) = log(I + E) − E(I + E)⁻¹, (n,).

    It is the chain rule over time: what the data say of w_t given z_{t−1}, in the mean over z_{t−1} under Q.
    """
    values = np_of(smoothed.mean).linalg.eigvalsh(smoothed.excess)
    gain = _gain(_positive(values)).sum(-1)
    gain = gain + _trace(smoothed.gain @ smoothed.before @ smoothed.gain.swapaxes(-1, -2))
    return (smoothed.total(gain) + (smoothed.shock**2).sum((1, 2))) / 2


def marginal_kl(transition: Array, smoothed: Smoothed) -> Array:
    """``½[h(c) + shift²/P_ii]``, ``c = (P − S)_ii/S_ii``, (n, T, k); 0 for a state that is certain a priori."""
    xp = np_of(smoothed.mean)
    gap = _positive(diagonal(lost(transition, smoothed)))
    spread = diagonal(smoothed.full(smoothed.covariance))
    if bool((gap > spread).any()):
        # There P − S loses no digit, while ∆ may, of a state that is scaled far below another.
        before = diagonal(spreads(transition, smoothed.full(smoothed.noise)[0]))
        gap = xp.where(gap > spread, _positive(before - spread), gap)
    before = spread + gap
    certain = before <= 0
    gain = _gain(gap / xp.where(spread <= 0, 1.0, spread))
    shift = smoothed.mean**2 / xp.where(certain, 1.0, before)
    return xp.where(certain, 0.0, (gain + shift) / 2)


def conditional_kl(transition: Array, design: Array, seen: Seen, smoothed: Smoothed) -> Array:
    """``½[h(a) + γ_j²/Λ_jj + v_j/Λ_jj]``, (n, T, k), of the parts that `kalman.given_the_rest` names."""
    own, precision, slope, left = given_the_rest(transition, design, misfit(seen, smoothed), smoothed)
    return (_gain(own / precision) + (slope**2 + left) / precision) / 2


def kl_error(seen: Seen, smoothed: Smoothed) -> Array:
    """Bound the absolute error of all three KLs, (n,); the argument stands in `StateSpace.kl_error`."""
    xp = np_of(smoothed.mean)
    _, length, k = smoothed.mean.shape
    p = seen.residuals.shape[-1]
    reach, inverse, least = _roundings(smoothed)
    size = _trace(smoothed.excess)
    growth = xp.where(size > 0, reach.sum(-1) / xp.where(size > 0, size, 1.0), 1.0).max()
    drowned = smoothed.total((reach * (diagonal(inverse) - (inverse**2).sum(-1))).sum(-1))
    worst = ((reach * diagonal(inverse)).sum(-1) / least).max()
    kl = joint_kl(smoothed)
    by_matrices = 3 * growth * rounding(length, k, p) * kl + rounding(0, k, p) * (
        abs(drowned) + 2 * worst * kl
    )
    by_matrices = by_matrices + rounding(0, k, p) * _mixed(smoothed) * (1 + kl)
    volume = log_volume(smoothed)
    steep = xp.where(volume < 0.2, xp.expm1(volume.clip(0.0, 1.0)) ** 0.5, 0.5)
    moved = 8 * (k + p + 2) * _EPS * seen.sizes * steep
    pushed = (smoothed.shock**2).sum((1, 2)) ** 0.5
    return by_matrices + pushed * moved + moved**2 + _TINY


def information_error(smoothed: Smoothed) -> Array:
    """Bound the absolute error of `log_volume`, (g,), as `kl_error` does: ``log det(I + E)`` moves by tr (I + E)⁻¹∆E."""
    _, length, k = smoothed.mean.shape
    reach, inverse, _ = _roundings(smoothed)
    drowned = smoothed.total((reach * diagonal(inverse)).sum(-1))
    return rounding(length, k, k) * log_volume(smoothed) + rounding(0, k, k) * drowned + _TINY


def _roundings(smoothed: Smoothed) -> tuple[Array, Array, Array]:
    """How far roundings of B reach into E: g² with ``|∆E_ij| ≤ ε g_i g_j``, (I + E)⁻¹, and its scaled condition.

    An entry of B is right to ``ε√(B_ii B_jj)``, whence ``g = |G|ᵀ√diag B``; the last is the least eigenvalue of
    I + E with its diagonal scaled to one, for no step depends on the scale of a coordinate.
    """
    xp = np_of(smoothed.mean)
    scale = _positive(diagonal(smoothed.information)) ** 0.5
    reach = (abs(smoothed.worked).swapaxes(-1, -2) @ scale[..., None])[..., 0] ** 2
    whole = smoothed.excess + eye(smoothed.excess)
    unit = diagonal(whole) ** 0.5
    scaled = whole / unit[..., :, None] / unit[..., None, :]
    inverse = xp.linalg.inv(scaled) / unit[..., :, None] / unit[..., None, :]
    least = xp.linalg.eigvalsh(scaled)[..., 0]
    return reach, inverse, xp.where(least > _EPS, least, _EPS)


def rounding(length: int, k: int, p: int) -> float:
    """The relative change of the data's information that roundings of a chain are worth."""
    return 8 * (k + p + 4) * (min(length, _MEMORY) + 2) * _EPS


def _mixed(smoothed: Smoothed) -> Array:
    """How much larger than a state's posterior deviation the terms are that cancel in it; 0 where they do not.

    ``z_i = Σ_j G_ij w_j`` may be known far better than any w_j; then its variance, and what is computed in another
    basis and turned back, is right in units of its terms.
    """
    xp = np_of(smoothed.mean)
    terms = abs(inverse_root(smoothed.excess)).swapaxes(-1, -2) @ abs(smoothed.noise).swapaxes(-1, -2)
    spread = diagonal(smoothed.covariance)
    ratio = (terms**2).sum(-2) / xp.where(spread > 0, spread, math.inf)
    ratio = ratio.max() ** 0.5
    ratio = xp.where(ratio > 1.5, ratio, 0.0)
    if smoothed.worked is not smoothed.noise:
        for matrices in (smoothed.covariance, smoothed.noise @ smoothed.noise.swapaxes(-1, -2)):
            variances = diagonal(matrices)
            ratio = (
                ratio + (variances.sum(-1)[..., None] / xp.where(variances > 0, variances, math.inf)).max()
            )
    return ratio


def _positive(values: Array) -> Array:
    """The values where they are positive, 0 where rounding made them negative."""
    return np_of(values).where(values > 0, values, 0.0)


def _gain(ratios: Array) -> Array:
    gain = gaussian_gain(torch.as_tensor(ratios))
    return gain if isinstance(ratios, Tensor) else gain.numpy()


def _trace(matrices: Array) -> Array:
    return diagonal(matrices).sum(-1)

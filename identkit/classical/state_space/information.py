"""What the data say of a state path, in nats: sums of non-negative terms over a smoothed chain, none of which cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass
class Marginals:
    """``½[h(c) + shift²/P_ii]``, ``c = (P − S)_ii/S_ii``, (n, T, k), piece by piece of time from the first on.

    0 for a state that is certain a priori.
    """

    whole: bool
    """Whether the first piece is all."""
    gap: Array | None = None
    """``∆ = P − S`` at the end of the piece before, (g, k, k)."""
    prior: Array | None = None
    """P there, (k, k)."""

    def __call__(self, transition: Array, smoothed: Smoothed) -> Array:
        """Give those of the next piece, with its F, (T, k, k)."""
        xp = np_of(smoothed.mean)
        gaps = lost(transition, smoothed, self.gap)
        self.gap = gaps[:, -1] + 0.0
        gap = _positive(diagonal(gaps))
        spread = diagonal(smoothed.full(smoothed.covariance))
        doubtful = bool((gap > spread).any())
        if doubtful or not self.whole:
            priors = spreads(transition, smoothed.full(smoothed.noise)[0], self.prior)
            self.prior = priors[-1] + 0.0
            if doubtful:
                # There P − S loses no digit, while ∆ may, of a state that is scaled far below another.
                gap = xp.where(gap > spread, _positive(diagonal(priors) - spread), gap)
        before = spread + gap
        certain = before <= 0
        gain = _gain(gap / xp.where(spread <= 0, 1.0, spread))
        shift = smoothed.mean**2 / xp.where(certain, 1.0, before)
        return xp.where(certain, 0.0, (gain + shift) / 2)


def conditional_kl(transition: Array, design: Array, seen: Seen, smoothed: Smoothed) -> Array:
    """``½[h(a) + γ_j²/Λ_jj + v_j/Λ_jj]``, (n, T, k), of the parts that `kalman.given_the_rest` names."""
    own, precision, slope, left = given_the_rest(transition, design, misfit(seen, smoothed), smoothed)
    return (_gain(own / precision) + (slope**2 + left) / precision) / 2


@dataclass(frozen=True)
class Roundings:
    """What the error of the KLs is bounded from: sums over the steps of a piece, and the largest of them."""

    kl: Array
    volume: Array
    drowned: Array
    pushed: Array
    sizes: Array
    growth: Array
    worst: Array
    mixed: tuple[Array, ...]

    @classmethod
    def of(cls, seen: Seen, smoothed: Smoothed) -> Roundings:
        """Those of one piece."""
        xp = np_of(smoothed.mean)
        reach, inverse, least = _roundings(smoothed)
        size = _trace(smoothed.excess)
        return cls(
            kl=joint_kl(smoothed),
            volume=log_volume(smoothed),
            drowned=smoothed.total((reach * (diagonal(inverse) - (inverse**2).sum(-1))).sum(-1)),
            pushed=(smoothed.shock**2).sum((1, 2)),
            sizes=seen.sizes**2,
            growth=xp.where(size > 0, reach.sum(-1) / xp.where(size > 0, size, 1.0), 1.0).max(),
            worst=((reach * diagonal(inverse)).sum(-1) / least).max(),
            mixed=_mixed(smoothed),
        )

    def plus(self, other: Roundings) -> Roundings:
        """Those of two pieces together."""
        xp = np_of(self.kl)
        return Roundings(
            kl=self.kl + other.kl,
            volume=self.volume + other.volume,
            drowned=self.drowned + other.drowned,
            pushed=self.pushed + other.pushed,
            sizes=self.sizes + other.sizes,
            growth=xp.maximum(self.growth, other.growth),
            worst=xp.maximum(self.worst, other.worst),
            mixed=tuple(xp.maximum(a, b) for a, b in zip(self.mixed, other.mixed, strict=True)),
        )

    def bound(self, length: int, k: int, p: int, noise: float) -> Array:
        """Bound the absolute error of all three KLs, (n,); the argument stands in `StateSpace.kl_error`.

        The last is the least eigenvalue of the noise's correlations.
        """
        xp, kl, volume = np_of(self.kl), self.kl, self.volume
        by_matrices = 3 * self.growth * rounding(length, k, p) * kl + rounding(0, k, p) * (
            abs(self.drowned) + 2 * self.worst * kl
        )
        ratio = self.mixed[0] ** 0.5
        ratio = xp.where(ratio > 1.5, ratio, 0.0) + sum(self.mixed[1:])
        by_matrices = by_matrices + rounding(0, k, p) * ratio * (1 + kl)
        by_matrices = by_matrices + 3 * _of_the_noise(p, noise) * kl
        steep = xp.where(volume < 0.2, xp.expm1(volume.clip(0.0, 1.0)) ** 0.5, 0.5)
        moved = 8 * (k + p + 2) * _EPS * self.sizes**0.5 * steep
        return by_matrices + self.pushed**0.5 * moved + moved**2 + _TINY


def _of_the_noise(p: int, noise: float) -> float:
    """The relative change of the data's information that factoring the noise's covariance is worth."""
    return p * (p + 1) * _EPS * (1 / noise - 1)


def information_error(smoothed: Smoothed, length: int, p: int, noise: float) -> Array:
    """Bound the absolute error of `log_volume`, (g,), as `kl_error` does: ``log det(I + E)`` moves by tr (I + E)⁻¹∆E.

    Of a piece of so many steps; p and noise as in `Roundings.bound`.
    """
    k = smoothed.mean.shape[-1]
    reach, inverse, _ = _roundings(smoothed)
    drowned = smoothed.total((reach * diagonal(inverse)).sum(-1))
    relative = rounding(length, k, k) + _of_the_noise(p, noise)
    return relative * log_volume(smoothed) + rounding(0, k, k) * drowned + _TINY


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


def _mixed(smoothed: Smoothed) -> tuple[Array, ...]:
    """How much larger than a state's posterior variance the terms are that cancel in it, and what turning a basis adds.

    ``z_i = Σ_j G_ij w_j`` may be known far better than any w_j; then its variance, and what is computed in another
    basis and turned back, is right in units of its terms.
    """
    xp = np_of(smoothed.mean)
    terms = abs(inverse_root(smoothed.excess)).swapaxes(-1, -2) @ abs(smoothed.noise).swapaxes(-1, -2)
    spread = diagonal(smoothed.covariance)
    ratios = [((terms**2).sum(-2) / xp.where(spread > 0, spread, math.inf)).max()]
    if smoothed.worked is not smoothed.noise:
        for matrices in (smoothed.covariance, smoothed.noise @ smoothed.noise.swapaxes(-1, -2)):
            variances = diagonal(matrices)
            ratios.append((variances.sum(-1)[..., None] / xp.where(variances > 0, variances, math.inf)).max())
    return tuple(ratios)


def _positive(values: Array) -> Array:
    """The values where they are positive, 0 where rounding made them negative."""
    return np_of(values).where(values > 0, values, 0.0)


def _gain(ratios: Array) -> Array:
    gain = gaussian_gain(torch.as_tensor(ratios))
    return gain if isinstance(ratios, Tensor) else gain.numpy()


def _trace(matrices: Array) -> Array:
    return diagonal(matrices).sum(-1)

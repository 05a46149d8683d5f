"""The exact posterior of a mixing weight: a trapezoid rule in logit(α), spectrally accurate.

``p(α | x) ∝ Beta(α; a, b) ∏_i (α e^{t_i} + 1 − α)`` depends on the data through the log ratios
``t_i = log f_1(x_i) − log f_2(x_i)`` alone. In θ = logit(α) the density is unimodal, analytic in the strip
|Im θ| < π and decays exponentially, which is where equidistant nodes converge faster than any power.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import betaln, sici
from torch import Tensor

from identkit.classical.arrays import real
from identkit.posterior.stable import kl_of_log_ratio

_EPS = torch.finfo(torch.float64).eps
_DROP = 45.0  # nats below the mode at which a density is cut: e^-45 is far below rounding
_FLAT = 5.0  # nats that ℓ may vary over the prior's support for both laws to share one grid
_WIDEST_STEP = 0.5  # in θ: the strip's half width π makes the trapezoid's error e^(−2π·π/0.5) = 1e-17
_CHUNK = 2_000_000  # entries of (nodes, data) held at once
_FARTHEST = 700.0  # |θ| beyond which e^θ leaves float64
_FINEST = 1 << 16


@dataclass(frozen=True, eq=False)
class MixtureWeightPosterior:
    """``p(α | x)`` of one pooled data set, of batch shape (1,) as results of other models have (n,).

    ``E[g] = Σ_j q_j g(α_j)`` with equidistant ``θ_j = logit α_j`` and masses q_j; between the nodes the
    density is their sinc interpolant, whose integral gives the distribution function.

    Source: Trefethen & Weideman 2014, SIAM Review 56:385 (the rule); Stenger 1993 (sinc interpolation).
    """

    theta: Float[Tensor, " m"]
    """Nodes in logit(α), equidistant."""
    mass: Float[Tensor, " m"]
    """Posterior masses q_j of the nodes."""
    kl: float
    """``KL(p(α | x) ‖ Beta(a, b))`` in nats."""
    kl_error: float
    """A bound on its absolute error."""
    log_scale: float
    """``log E_prior[e^{ℓ(α) − ℓ(α*)}]``: the evidence relative to the likelihood at α*."""
    likelihood: RelativeLikelihood
    a: float
    b: float

    @property
    def batch_shape(self) -> torch.Size:
        """One data set."""
        return torch.Size([1])

    @property
    def event_shape(self) -> torch.Size:
        """α is a number."""
        return torch.Size()

    @property
    def mean(self) -> Float[Tensor, " 1"]:
        """``E[α | x]``."""
        return (self.mass * torch.sigmoid(self.theta)).sum(0, keepdim=True)

    @property
    def variance(self) -> Float[Tensor, " 1"]:
        """``Var[α | x]``."""
        return (self.mass * (torch.sigmoid(self.theta) - self.mean).square()).sum(0, keepdim=True)

    @property
    def stddev(self) -> Float[Tensor, " 1"]:
        """The posterior standard deviation."""
        return self.variance.sqrt()

    @property
    def covariance(self) -> Float[Tensor, "1 1 1"]:
        """The covariance matrix of the one latent: its variance."""
        return self.variance[:, None, None]

    def marginal(self, index: int) -> MixtureWeightPosterior:
        """Give the law of one latent: of α, the only one, itself.

        Raises:
            IndexError: another one.
        """
        if index != 0:
            raise IndexError(f"index should be 0: the weight is the only latent, got {index}")
        return self

    def log_prob(self, value: Any) -> Float[Tensor, " ..."]:
        """Evaluate ``log p(α | x)``: Bayes' rule itself, with the quadrature's evidence.

        Args:
            value: α, any shape; −∞ is returned outside (0, 1).
        """
        alpha = real(value, "value")
        inside = (alpha > 0) & (alpha < 1)
        safe = torch.where(inside, alpha, 0.5)
        log_prior = (self.a - 1) * safe.log() + (self.b - 1) * torch.log1p(-safe) - betaln(self.a, self.b)
        return torch.where(inside, log_prior + self.likelihood.at(safe) - self.log_scale, -math.inf)

    def cdf(self, value: Any) -> Float[Tensor, " ..."]:
        """Evaluate ``P(α ≤ value | x)``, absolute error about 1e-14.

        ``Σ_j q_j [½ + Si(π(θ − θ_j)/h)/π]``: the integral of the sinc interpolant.
        """
        alpha = real(value, "value").clamp(0.0, 1.0)
        theta = torch.logit(alpha).clamp(self.theta[0], self.theta[-1])
        inside = self._distribution(theta.flatten().numpy())[0].reshape(alpha.shape)
        inside = torch.where(alpha <= torch.sigmoid(self.theta[0]), 0.0, torch.from_numpy(inside))
        return torch.where(alpha >= torch.sigmoid(self.theta[-1]), 1.0, inside)

    def icdf(self, value: Any) -> Float[Tensor, " ..."]:
        """Give the quantiles of probabilities in [0, 1], any shape, by Newton's rule inside a bracket.

        Raises:
            ValueError: a probability is outside [0, 1].
        """
        probability = real(value, "value")
        if not bool(((probability >= 0) & (probability <= 1)).all()):
            raise ValueError(f"value should be probabilities in [0, 1], got {probability.tolist()!s:.80}")
        target = probability.flatten().numpy()
        grid = self.theta.numpy()
        table = np.maximum.accumulate(self._distribution(grid)[0])
        index = np.searchsorted(table, target).clip(1, len(grid) - 1)
        low, high = grid[index - 1], grid[index]
        theta = (low + high) / 2
        for _ in range(60):
            value_there, density = self._distribution(theta)
            low, high = (
                np.where(value_there < target, theta, low),
                np.where(value_there < target, high, theta),
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = theta - (value_there - target) / density
            # A Newton step may leave the bracket where the density is rounding noise: halve there.
            following = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
            settled = np.abs(following - theta) <= 4 * _EPS * (1 + np.abs(theta))
            theta = following
            if settled.all():
                break
        return torch.sigmoid(torch.from_numpy(theta)).reshape(probability.shape)

    def sample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*samples 1"]:
        """Draw α by inverting the distribution function: shape (*sample_shape, 1)."""
        return self.icdf(torch.rand(*sample_shape, 1, dtype=torch.float64, generator=generator))

    def _distribution(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nodes, mass = self.theta.numpy(), self.mass.numpy()
        step = nodes[1] - nodes[0]
        value, density = np.empty_like(theta), np.empty_like(theta)
        block = max(1, _CHUNK // len(nodes))
        for start in range(0, len(theta), block):
            scaled = (theta[start : start + block, None] - nodes) / step
            value[start : start + block] = (0.5 + sici(np.pi * scaled)[0] / np.pi) @ mass
            density[start : start + block] = np.sinc(scaled) @ mass / step
        return value, density


@dataclass(frozen=True, eq=False)
class RelativeLikelihood:
    """``ℓ(α) − ℓ(α*) = Σ_i log1p(c_i(α − α*))``, ``c_i = dℓ_i/dα`` at α*: exact, and free of cancellation.

    α* is where the posterior peaks, so that every argument is small where there is mass.
    """

    ratios: Float[Tensor, " n"]
    """t_i; ±∞ where one component cannot have produced the datum."""
    centre: float
    """θ* = logit α*."""

    @property
    def slopes(self) -> Float[Tensor, " n"]:
        """c_i = (e^t − 1)/(α* e^t + 1 − α*), with the larger of the two densities divided out."""
        alpha, beta = _sigmoid(self.centre), _sigmoid(-self.centre)
        decay = torch.exp(-self.ratios.abs())
        up = self.ratios >= 0
        weight = torch.where(up, alpha + beta * decay, alpha * decay + beta)
        return -torch.expm1(-self.ratios.abs()) * torch.where(up, 1.0, -1.0) / weight

    def at(self, alpha: Float[Tensor, " ..."]) -> Float[Tensor, " ..."]:
        """``ℓ(α) − ℓ(α*)`` in nats, any shape."""
        return self._sum((alpha - _sigmoid(self.centre)).flatten()).reshape(alpha.shape)

    def at_logit(self, offset: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """``ℓ − ℓ(α*)`` at θ* + offset; the distance α − α* keeps all its digits, however small."""
        return self._sum(self.distance(offset))

    def distance(self, offset: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """α − α* = α(1 − α*)(1 − e^{−offset}), or the mirror image of it for negative offsets."""
        theta = self.centre + offset
        up = torch.sigmoid(theta) * _sigmoid(-self.centre) * -torch.expm1(-offset.clamp(min=0.0))
        down = torch.sigmoid(-theta) * _sigmoid(self.centre) * torch.expm1(offset.clamp(max=0.0))
        return torch.where(offset >= 0, up, down)

    def _sum(self, distance: Tensor) -> Tensor:
        slopes, total = self.slopes, torch.empty_like(distance)
        block = max(1, _CHUNK // max(1, len(slopes)))
        for start in range(0, len(distance), block):
            product = distance[start : start + block, None] * slopes
            # Rounding can carry an impossible weight's argument past −1; there the density is nil anyway.
            total[start : start + block] = torch.log1p_(product.clamp_(min=-1 + _EPS / 2)).sum(1)
        return total


def mixture_weight_posterior(
    ratios: Float[Tensor, " n"], ratio_errors: Float[Tensor, " n"], a: float, b: float
) -> MixtureWeightPosterior:
    """Integrate the posterior of α, its evidence and its KL to the prior.

    Where ℓ varies little, one grid carries both laws and the KL is the sum of theory/T4 that never cancels;
    else ``KL = E_Q ℓ − log E_P e^ℓ``, whose two terms then differ by a good part of themselves. The step is
    halved until evidence and KL stand still; the last change is part of the stated error.

    Args:
        ratios: t_i.
        ratio_errors: bounds on their absolute errors.
        a: the prior's first shape.
        b: the prior's second shape.
    """
    likelihood = RelativeLikelihood(ratios, _mode(ratios, a, b))
    low, high, width = _support(likelihood, a, b)
    prior_low, prior_high, prior_width = _support(RelativeLikelihood(ratios[:0], _logit_mean(a, b)), a, b)
    ends = torch.tensor([prior_low, prior_high], dtype=torch.float64) - likelihood.centre
    flat = bool((likelihood.at_logit(ends).abs() < _FLAT).all())
    if flat:
        low, high, width = min(low, prior_low), max(high, prior_high), min(width, prior_width)
    step = min(width / 3, _WIDEST_STEP)
    earlier = None
    while True:
        first = math.floor((low - likelihood.centre) / step)
        last = math.ceil((high - likelihood.centre) / step)
        found = _integrate(
            likelihood, step * torch.arange(first, last + 1, dtype=torch.float64), step, a, b, flat
        )
        if earlier is not None:
            change = abs(found.kl - earlier.kl)
            still = change <= 1e-13 * found.kl and abs(found.log_scale - earlier.log_scale) <= 1e-13
            if still or last - first > _FINEST:
                break
        earlier, step = found, step / 2

    total_error = ratio_errors[torch.isfinite(ratios)].sum()
    wobble = 4 * _EPS * found.distance.abs() * likelihood.slopes.abs().sum()
    wobble = wobble + (found.offset.abs() / 4).clamp(max=1.0) * total_error
    rms = (found.mass * wobble.square()).sum().sqrt().item()
    mean = (found.mass * found.log_likelihood).sum()
    sd = (found.mass * (found.log_likelihood - mean).square()).sum().sqrt().item()
    # The derivative of KL along a change η of ℓ is Cov_Q(η, ℓ).
    shapes = _EPS * (abs(betaln(a, b)) + a + b)
    rounding = (64 * _EPS + 4 * shapes) * found.kl + (0.0 if flat else 4 * shapes + 16 * _EPS)
    return MixtureWeightPosterior(
        theta=likelihood.centre + found.offset,
        mass=found.mass,
        kl=found.kl,
        kl_error=2 * rms * (sd + rms) + change + rounding + 1e-300,
        log_scale=found.log_scale,
        likelihood=likelihood,
        a=a,
        b=b,
    )


def prior_grid(a: float, b: float) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Give equidistant offsets from the logit of the prior's mean, twice as fine as needed, and their masses."""
    centre = _logit_mean(a, b)
    low, high, width = _support(RelativeLikelihood(torch.zeros(0, dtype=torch.float64), centre), a, b)
    step = max(min(width / 3, _WIDEST_STEP) / 2, (high - low) / _FINEST)
    first, last = math.floor((low - centre) / step), math.ceil((high - centre) / step)
    offset = step * torch.arange(first, last + 1, dtype=torch.float64)
    return offset, torch.softmax(_log_prior(centre + offset, a, b), 0)


@dataclass(frozen=True, eq=False)
class _Quadrature:
    offset: Tensor
    distance: Tensor
    log_likelihood: Tensor
    mass: Tensor
    log_scale: float
    kl: float


def _integrate(
    likelihood: RelativeLikelihood, offset: Tensor, step: float, a: float, b: float, flat: bool
) -> _Quadrature:
    log_prior = _log_prior(likelihood.centre + offset, a, b) - betaln(a, b) + math.log(step)
    log_likelihood = likelihood.at_logit(offset)
    if flat:
        # One discrete prior for evidence and KL: where ℓ is constant both are exactly those of no data.
        log_prior = log_prior - torch.logsumexp(log_prior, 0)
        scale = torch.log1p((torch.exp(log_prior) * torch.expm1(log_likelihood)).sum())
        kl = kl_of_log_ratio(log_prior, log_likelihood - scale).item()
    else:
        scale = torch.logsumexp(log_prior + log_likelihood, 0)
        kl = (
            (torch.exp(log_prior + log_likelihood - scale) * (log_likelihood - scale))
            .sum()
            .clamp(min=0.0)
            .item()
        )
    mass = torch.softmax(log_prior + log_likelihood, 0)
    return _Quadrature(offset, likelihood.distance(offset), log_likelihood, mass, scale.item(), kl)


def _log_prior(theta: Tensor, a: float, b: float) -> Tensor:
    """The prior's log density in θ, up to its constant: a log α + b log(1 − α)."""
    return a * torch.nn.functional.logsigmoid(theta) + b * torch.nn.functional.logsigmoid(-theta)


def _mode(ratios: Tensor, a: float, b: float) -> float:
    # d/dθ of the log density in θ: aβ − bα + Σ_i (w_i − α), w_i = αe^t/(αe^t + β). It changes sign once, for
    # in α the log density plus log α(1 − α) is concave.
    def slope(theta: float) -> float:
        pull = torch.sigmoid(theta + ratios).sum().item() - len(ratios) * _sigmoid(theta)
        return a * _sigmoid(-theta) - b * _sigmoid(theta) + pull

    if slope(-_FARTHEST) <= 0:
        return -_FARTHEST
    return brentq(slope, -_FARTHEST, _FARTHEST, xtol=1e-10) if slope(_FARTHEST) < 0 else _FARTHEST


def _support(likelihood: RelativeLikelihood, a: float, b: float) -> tuple[float, float, float]:
    """Where the log density in θ is within `_DROP` of its peak, and the width of the peak."""
    centre = likelihood.centre
    alpha, beta = _sigmoid(centre), _sigmoid(-centre)
    share = torch.sigmoid(centre + likelihood.ratios)
    curvature = (a + b + len(share)) * alpha * beta - (share * (1 - share)).sum().item()
    width = 1 / math.sqrt(max(curvature, _EPS))
    peak = _log_prior(torch.tensor([centre], dtype=torch.float64), a, b)

    def reach(direction: float) -> float:
        offset = direction * width * 8
        while True:
            there = torch.tensor([offset], dtype=torch.float64)
            density = _log_prior(centre + there, a, b) + likelihood.at_logit(there)
            if (peak - density).item() >= _DROP:
                return centre + offset
            offset *= 1.25

    return reach(-1.0), reach(1.0), width


def _logit_mean(a: float, b: float) -> float:
    return math.log(a / b)


def _sigmoid(theta: float) -> float:
    return 1 / (1 + math.exp(-theta)) if theta >= 0 else math.exp(theta) / (1 + math.exp(theta))

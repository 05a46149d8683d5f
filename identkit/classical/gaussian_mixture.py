"""The Gaussian mixture: which component a datum came from, with its responsibilities in log space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from identkit.classical.arrays import latents, rows, shaped
from identkit.classical.gaussian_ratio import Gaussians, ratio_by_difference, ratio_by_segment
from identkit.model import families
from identkit.model.model import Model
from identkit.model.protocol import Flatness
from identkit.posterior.stable import kl_of_log_ratio

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300  # errors are stated as positive numbers, also where nothing was rounded
_WEIGHT_TOLERANCE = 1e-8
_SYMMETRY_TOLERANCE = 1e-12  # of a correlation: what the rounding of a product A C Aᵀ leaves


@dataclass(frozen=True, eq=False, init=False)
class GaussianMixture:
    """A mixture of K full-covariance normal laws whose latent is the component of each datum.

    ``k ~ Categorical(π), x | k ~ N(μ_k, C_k)``; the responsibilities ``r_k ∝ π_k N(x; μ_k, C_k)`` are the
    posterior, and ``KL(x) = Σ_k r_k log(r_k/π_k)``.

    Source: Wang, Blei & Cunningham 2021, section 2 (mixtures); `theory/T1`, `theory/T4`.

    Args:
        weights: π, shape (K,), K ≥ 2, non-negative and summing to one; nothing is normalised. A component of
            weight 0 is outside the prior's support.
        means: μ, shape (K, d).
        covariances: C, shape (K, d, d), positive definite; symmetric but for rounding (the mean of the two
            triangles is taken).

    Raises:
        ValueError, TypeError: a wrong shape, NaN, weights that are no probabilities, a covariance that is
            asymmetric or singular.

    >>> gmm = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    >>> gmm.posterior([[0.0], [3.0]]).probs
    tensor([[0.5000, 0.5000],
            [0.0025, 0.9975]], dtype=torch.float64)
    >>> gmm.kl_to_prior([[0.0], [3.0]])
    tensor([0.0000, 0.6758], dtype=torch.float64)
    """

    weights: Float[Tensor, " components"]
    means: Float[Tensor, "components d"]
    covariances: Float[Tensor, "components d d"]

    def __init__(self, weights: Any, means: Any, covariances: Any) -> None:
        means = shaped(means, "means", None, None)
        count, d = means.shape
        if count < 2:
            raise ValueError(f"means should have at least two components, got {count}")
        weights = shaped(weights, "weights", count).to(means.device)
        covariances = shaped(covariances, "covariances", count, d, d).to(means.device)
        _refuse_weights(weights)
        _refuse_covariances(covariances)
        covariances = (covariances + covariances.mT) / 2
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", covariances)

    @property
    def prior(self) -> Categorical:
        """``Categorical(π)`` with states 0 … K − 1."""
        return Categorical(logits=self.weights.log())

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The one latent, the component k."""
        return ("k",)

    @property
    def pooled(self) -> bool:
        """Each row has a component of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log N(x; μ_z, C_z)`` in nats.

        Args:
            x: data (n, d).
            z: states 0 … K − 1, shape (n, 1) or (samples, n, 1).

        Raises:
            ValueError: z is no state, or a wrong shape.
        """
        x = self._rows(x)
        states = latents(z, len(x), 1, x.device)[..., 0]
        valid = (states == states.round()) & (states >= 0) & (states < len(self.weights))
        if not bool(valid.all()):
            refused = states[~valid][0].item()
            raise ValueError(f"z should be a state in 0..{len(self.weights) - 1}, got {refused:g}")
        logs = self._all.log_density(x).expand(*states.shape, -1)
        return logs.gather(-1, states.long()[..., None])[..., 0]

    def posterior(self, x: Any) -> Categorical:
        """Give the responsibilities ``r_k = π_k e^{ℓ_k} / Σ_j π_j e^{ℓ_j}`` as a `Categorical` of batch n.

        Args:
            x: data (n, d).
        """
        x = self._rows(x)
        logits = self.weights.log().repeat(len(x), 1)
        logits[:, self._support] += self._log_posterior_ratio(ratio_by_difference(self._supported, x)[0])
        return Categorical(logits=logits)

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x) = log Σ_k π_k N(x; μ_k, C_k)`` in nats."""
        return torch.logsumexp(self.weights.log() + self._all.log_density(self._rows(x)), 1)

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL(r ‖ π)`` in nats, free of cancellation: 0 where the components agree on the datum."""
        log_ratio = self._log_posterior_ratio(ratio_by_difference(self._supported, self._rows(x))[0])
        return kl_of_log_ratio(self._log_prior.expand_as(log_ratio), log_ratio)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n 1"]:
        """Evaluate the marginal KL: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_conditional(self, x: Any) -> Float[Tensor, "n 1"]:
        """Evaluate the conditional KL: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of the KLs, in nats; positive.

        If every ``ℓ_k − ℓ_0`` is right to e, the KL moves by at most ``e·(sd_r(ℓ)·exp(e) + e)``, for its
        derivative along η is ``Cov_r(η, ℓ)``. That e includes reading inputs as their shortest decimals.
        """
        ratio, error = ratio_by_difference(self._supported, self._rows(x))
        log_ratio = self._log_posterior_ratio(ratio)
        mass = torch.exp(self._log_prior + log_ratio)
        mean = (mass * ratio).sum(1, keepdim=True)
        sd = (mass * (ratio - mean).square()).sum(1).sqrt()
        worst = error.max(1).values
        kl = kl_of_log_ratio(self._log_prior.expand_as(log_ratio), log_ratio)
        rounding = 16 * (len(self.weights) + 1) * _EPS * kl
        moved = worst * (sd * torch.exp(worst.clamp(max=700.0)) + worst)
        return (
            torch.minimum(moved, -self._log_prior.min()) + rounding + _TINY
        )  # a KL to π is at most −log π_k

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ_k = log N(x; μ_k, C_k)`` under π, from the segments between components.

        ``V = Σ_k π_k (ℓ_k − ℓ̄)²`` and ``ω = max ℓ_k − min ℓ_k``, over the components of positive weight.

        Source: theory/T4; `identkit.classical.gaussian_ratio.ratio_by_segment`.
        """
        log_likelihood, error = ratio_by_segment(self._supported, self._rows(x))
        prior = torch.exp(self._log_prior)
        centred = log_likelihood - (prior * log_likelihood).sum(1, keepdim=True)
        variance = (prior * centred.square()).sum(1)
        worst = error.max(1).values
        rounding = 16 * (len(self.weights) + 1) * _EPS * variance
        return Flatness(
            variance=variance,
            # The standard deviation moves by at most the largest error of ℓ.
            variance_error=2 * variance.sqrt() * worst + worst.square() + rounding + _TINY,
            oscillation=log_likelihood.amax(1) - log_likelihood.amin(1) + 2 * worst,
        )

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Give the posterior mean and standard deviation of the state's number, 0 … K − 1."""
        mass = self.posterior(x).probs
        states = torch.arange(len(self.weights), dtype=torch.float64, device=mass.device)
        mean = (mass * states).sum(1, keepdim=True)
        return mean, (mass * (states - mean).square()).sum(1, keepdim=True).sqrt()

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 1"]]:
        """Draw n rows ``(x, z)``, z the states 0 … K − 1."""
        states = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(
            n, self.means.shape[1], dtype=torch.float64, device=self.means.device, generator=generator
        )
        x = self.means[states] + torch.einsum("nde,ne->nd", self._all.factors[states], noise)
        return x, states.to(torch.float64)[:, None]

    def symbolic(self) -> Model:
        """Give the model in SymPy: ``k ~ Categorical(π); x ~ MvNormal(μ_k, C_k)``, in exact rationals.

        Weights whose decimals miss one in their last digits (thirds) are made to sum to it in the largest.
        """
        weights = [families.exact(weight) for weight in self.weights.tolist()]
        largest = int(self.weights.argmax())
        weights[largest] += 1 - sum(weights)
        model = Model("Gaussian mixture")
        k = model.latent("k", families.Categorical(*weights))

        def choose(numbers: Tensor) -> Any:
            return families.select(k, *[families.exact(number) for number in numbers.tolist()])

        d = self.means.shape[1]
        mean = [choose(self.means[:, i]) for i in range(d)]
        if d == 1:
            sd = [sympy.sqrt(families.exact(variance)) for variance in self.covariances[:, 0, 0].tolist()]
            model.observe("x", families.Normal(mean[0], families.select(k, *sd)))
        else:
            covariance = [[choose(self.covariances[:, i, j]) for j in range(d)] for i in range(d)]
            model.observe("x", families.MvNormal(mean, covariance))
        return model

    def _rows(self, x: Any) -> Tensor:
        return rows(x, self.means.shape[1], self.means.device)

    @cached_property
    def _support(self) -> Tensor:
        # The heaviest component leads, as the reference: where the rest agrees with it, KL is smallest.
        heaviest = int(self.weights.argmax())
        others = [k for k, weight in enumerate(self.weights.tolist()) if weight > 0 and k != heaviest]
        return torch.tensor([heaviest, *others], device=self.means.device)

    @cached_property
    def _all(self) -> Gaussians:
        return self._gaussians(torch.arange(len(self.weights), device=self.means.device))

    @cached_property
    def _supported(self) -> Gaussians:
        return self._gaussians(self._support)

    def _gaussians(self, states: Tensor) -> Gaussians:
        covariances = self.covariances[states]
        return Gaussians(
            means=self.means[states],
            covariances=covariances,
            factors=torch.linalg.cholesky(covariances),
            excess=covariances - covariances[0],
        )

    @cached_property
    def _log_prior(self) -> Tensor:
        # The weights may miss one by a rounding; in a log ratio of 1e-13 that would be the leading term.
        weights = self.weights[self._support]
        return (weights / weights.sum()).log()

    def _log_posterior_ratio(self, ratio: Tensor) -> Tensor:
        """``log r_k/π_k`` of the supported components, from ``ℓ_k − ℓ_0``."""
        # Near agreement, the mean of the differences themselves; else from the largest one, so that the
        # distance of all components to the datum leaves no rounding behind.
        small = ratio.clamp(max=1.0)
        near = small - torch.log1p((torch.exp(self._log_prior) * torch.expm1(small)).sum(1, keepdim=True))
        apart = ratio - ratio.amax(1, keepdim=True)
        far = apart - torch.logsumexp(self._log_prior + apart, 1, keepdim=True)
        return torch.where(ratio.amax(1, keepdim=True) <= 1.0, near, far)


def _refuse_weights(weights: Tensor) -> None:
    negative = weights[weights < 0]
    if len(negative):
        raise ValueError(f"weights should be at least 0, got {negative[0].item()}")
    total = weights.sum().item()
    if abs(total - 1) > _WEIGHT_TOLERANCE:
        raise ValueError(f"weights should sum to one, got {weights.tolist()} with the sum {total}")


def _refuse_covariances(covariances: Tensor) -> None:
    for k, covariance in enumerate(covariances):
        name = f"covariances[{k}]"
        variance = covariance.diagonal()
        if not bool((variance > 0).all()):
            raise ValueError(f"{name} should have a positive diagonal, got {variance.min().item()} on it")
        scale = variance.sqrt()
        correlation = covariance / (scale[:, None] * scale)
        if bool(((correlation - correlation.T).abs() > _SYMMETRY_TOLERANCE).any()):
            raise ValueError(f"{name} should be symmetric, got {covariance.tolist()}")
        least = torch.linalg.eigvalsh(correlation)[0].item()
        if least <= len(covariance) * _EPS:
            raise ValueError(
                f"{name} should be positive definite, got {covariance.tolist()}, "
                f"whose correlation matrix has the eigenvalue {least:.3g}"
            )

"""Finite mixtures: everything that follows from log densities of K components, once for all families.

The latent of a row is the number of its component. A family supplies the log densities, their differences without
cancellation by two roads that share no arithmetic, a draw, and the M-step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Distribution

from identkit.classical.arrays import latents, shaped, unfilled
from identkit.classical.compared import FAR, near_ratio
from identkit.classical.em import Convergence
from identkit.classical.mixtures.information import draw_states, simulated
from identkit.classical.placed import Placed
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.family import exact_law
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.stable import kl_of_log_ratio

M = TypeVar("M", bound="FiniteMixture")

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300  # errors are stated as positive numbers, also where nothing was rounded
_WEIGHT_TOLERANCE = 1e-8
_BLOCK = 2**19  # numbers (rows × components × columns) in flight at once: they stay in the processor's cache


class FiniteMixture(Placed, ABC):
    """A mixture of K laws, ``k ~ Categorical(π), x | k ~ p_k``, whose latent is the component of each row.

    The responsibilities ``r_k ∝ π_k p_k(x)`` are the posterior, and ``KL(x) = Σ_k r_k log(r_k/π_k)``. A component of
    weight 0 is outside the prior's support.

    Source: Wang, Blei & Cunningham 2021, section 2; `theory/T1`, `theory/T4`.
    """

    weights: Float[Tensor, " components"]

    @abstractmethod
    def _rows(self, x: Any) -> Tensor:
        """The family's door: data as a tensor (n, columns), in float32 or float64."""

    @abstractmethod
    def _log_densities(self, x: Tensor) -> Tensor:
        """``log p_k(x)`` of all K components, (n, K), from float64 rows."""

    @abstractmethod
    def _ratio(self, x: Tensor, lead: int = 0) -> tuple[Tensor, Tensor]:
        """``log p_k(x)`` of the components in `_support` but for one number a row, and its error: (n, S) each.

        Where that number is the log density of one component, it is the one in place `lead` of `_support`.
        """

    @abstractmethod
    def _ratio_under_prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `_ratio`, by arithmetic that shares nothing with it."""

    @abstractmethod
    def _draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        """A row from the component of each state."""

    @abstractmethod
    def _observe(self, model: Model, k: Any) -> None:
        """Declare the observation given the label k, which counts from 1."""

    @property
    @abstractmethod
    def _title(self) -> str:
        """What the declared model is called."""

    @property
    def prior(self) -> Categorical:
        """``Categorical(π)`` with states 0 … K − 1."""
        return _categorical(self._spread_out(self._log_prior))

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The one latent, the component k."""
        return ("k",)

    @property
    def pooled(self) -> bool:
        """Each row has a component of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log p_z(x)`` in nats.

        Args:
            x: data (n, d).
            z: states 0 … K − 1, shape (n, 1) or (samples, n, 1).

        Raises:
            ValueError: z is no state, or a wrong shape.
        """
        x = self._rows(x)
        here = self._at(x)
        states = latents(z, len(x), 1, x.device)[..., 0]
        valid = (states == states.round()) & (states >= 0) & (states < len(self.weights))
        if not bool(valid.all()):
            refused = states[~valid][0].item()
            raise ValueError(f"z should be a state in 0..{len(self.weights) - 1}, got {refused:g}")
        by_row = torch.atleast_2d(states).T.long()
        (chosen,) = self._by_blocks(
            x, lambda block, own: (here._log_densities(block.double()).gather(1, own).to(x.dtype),), by_row
        )
        return chosen.T.reshape(states.shape)

    def posterior(self, x: Any) -> Categorical:
        """Give the responsibilities ``r_k = π_k e^{ℓ_k} / Σ_j π_j e^{ℓ_j}`` as a `Categorical` of batch n.

        Args:
            x: data (n, d).
        """
        x = self._rows(x)
        here = self._at(x)
        (log_mass,) = self._by_blocks(
            x, lambda block: (here._log_posterior(block).to(x.dtype),), width=self._width
        )
        return _categorical(log_mass)

    def responsibilities(self, x: Any) -> Float[Tensor, "n components"]:
        """Give the posterior's probabilities alone: the quickest way to them.

        Args:
            x: data (n, d).
        """
        x = self._rows(x)
        here = self._at(x)
        (mass,) = self._by_blocks(
            x, lambda block: (here._mass_and_evidence(block)[0].to(x.dtype),), width=self._width
        )
        return mass

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x) = log Σ_k π_k p_k(x)`` in nats."""
        x = self._rows(x)
        here = self._at(x)
        (evidence,) = self._by_blocks(
            x, lambda block: (here._mass_and_evidence(block)[1].to(x.dtype),), width=self._width
        )
        return evidence

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL(r ‖ π)`` in nats, free of cancellation: 0 where the components agree on the datum."""
        x = self._rows(x)
        here = self._at(x)
        (kl,) = self._by_blocks(x, lambda block: (here._kl(block.double()).to(x.dtype),))
        return kl

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n 1"]:
        """Evaluate the marginal KL: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_conditional(self, x: Any) -> Float[Tensor, "n 1"]:
        """Evaluate the conditional KL: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of the KLs, in nats; positive, in float64.

        If every ``ℓ_k − ℓ_0`` is right to e, the KL moves by at most ``e·(sd_r(ℓ)·exp(e) + e)``, for its
        derivative along η is ``Cov_r(η, ℓ)``. That e includes reading inputs as their shortest decimals.
        """
        x = self._rows(x)
        here = self._at(x)
        (error,) = self._by_blocks(x, lambda block: (here._kl_error(block.double()),))
        return error

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ_k = log p_k(x)`` under π, by arithmetic that the posterior does not use.

        ``V = Σ_k π_k (ℓ_k − ℓ̄)²`` and ``ω = max ℓ_k − min ℓ_k``, over the components of positive weight; both are ∞
        where some of them rule the datum out.

        Source: theory/T4.
        """
        x = self._rows(x)
        here = self._at(x)
        variance, error, oscillation = self._by_blocks(x, lambda block: here._spread(block.double()))
        return Flatness(variance=variance, variance_error=error, oscillation=oscillation)

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        """Give the posterior mean and standard deviation of the state's number, 0 … K − 1."""
        x = self._rows(x)
        here = self._at(x)
        mean, sd = self._by_blocks(x, lambda block: here._moments(block), width=self._width)
        return mean.to(x.dtype), sd.to(x.dtype)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(k; x) = E KL(r ‖ π)`` in nats, by simulation with a fixed seed; `error` is its standard error."""
        return simulated(self)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 1"]]:
        """Draw n rows ``(x, z)``, z the states 0 … K − 1."""
        states = draw_states(self.weights, number_of_draws(n, generator), generator)
        return self._draw(states, generator), states.to(torch.float64)[:, None]

    def symbolic(self) -> Model:
        """Give the model in SymPy, ``k ~ Categorical(π)`` and x given k, in exact rationals.

        Probabilities whose decimals miss one in their last digits (thirds) are made to sum to it in the largest.
        """
        model = Model(self._title)
        self._observe(model, model.latent("k", families.Categorical(*exact_law(self.weights.tolist()))))
        return model

    def _at(self: M, x: Tensor) -> M:
        """The model where x lies, in float64."""
        return self._like(x.new_empty(0, dtype=torch.float64))

    def _with(self: M, convergence: Convergence) -> M:
        fitted = copy(self)
        object.__setattr__(fitted, "convergence", convergence)
        return fitted

    @property
    def _width(self) -> int | None:
        """How many numbers a row takes on its quickest way to a posterior; None for K·d."""
        return None

    def _by_blocks(
        self,
        x: Tensor,
        evaluate: Callable[..., tuple[Tensor, ...]],
        *beside: Tensor,
        width: int | None = None,
    ) -> tuple[Tensor, ...]:
        """Evaluate block by block of rows, of x and what lies beside it, into outputs of the full length.

        A row takes `width` numbers, or K·d.
        """
        size = max(256, _BLOCK // (width or len(self.weights) * max(1, x.shape[1])))
        if len(x) <= size:
            return evaluate(x, *beside)
        outputs: tuple[Tensor, ...] = ()
        for first in range(0, len(x), size):
            parts = evaluate(*[rows[first : first + size] for rows in (x, *beside)])
            if not outputs:
                outputs = tuple(unfilled(part, len(x), *part.shape[1:]) for part in parts)
            for output, part in zip(outputs, parts, strict=True):
                output[first : first + size] = part
        return outputs

    @cached_property
    def _support(self) -> Tensor:
        # The heaviest component leads, as the reference: where the rest agrees with it, KL is smallest.
        heaviest = int(self.weights.argmax())
        others = [k for k, weight in enumerate(self.weights.tolist()) if weight > 0 and k != heaviest]
        return torch.tensor([heaviest, *others], device=self.weights.device)

    @cached_property
    def _log_prior(self) -> Tensor:
        # The weights may miss one by a rounding; in a log ratio of 1e-13 that would be the leading term.
        weights = self.weights[self._support]
        return (weights / weights.sum()).log()

    @cached_property
    def _rounding(self) -> float:
        """What a sum over the prior may lose, relative to itself; its masses are exponentials of their logarithms."""
        return (16 * (len(self.weights) + 1) - 2 * self._log_prior.min().item()) * _EPS

    def _spread_out(self, supported: Tensor) -> Tensor:
        """Log masses of all K components from those of the supported ones, (…, S) → (…, K)."""
        everywhere = supported.new_full((*supported.shape[:-1], len(self.weights)), -torch.inf)
        everywhere[..., self._support] = supported
        return everywhere

    def _log_posterior(self, block: Tensor) -> Tensor:
        ratio = self._near_ratio(block.double())[0]
        return self._spread_out(self._log_prior + self._log_posterior_ratio(ratio))

    def _mass_and_evidence(self, block: Tensor) -> tuple[Tensor, Tensor]:
        logs = self._log_densities(block.double())
        return self._log_posterior(block).exp(), torch.logsumexp(self.weights.log() + logs, 1)

    def _near_ratio(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return near_ratio(x, self._ratio, 0, self._log_prior)

    def _kl(self, block: Tensor) -> Tensor:
        log_ratio = self._log_posterior_ratio(self._near_ratio(block)[0])
        return kl_of_log_ratio(self._log_prior.expand_as(log_ratio), log_ratio)

    def _kl_error(self, block: Tensor, further: Tensor | float = 0.0) -> Tensor:
        ratio, error = self._near_ratio(block)
        log_ratio = self._log_posterior_ratio(ratio)
        mass = torch.exp(self._log_prior + log_ratio)
        centred = torch.where(mass > 0, log_ratio, 0.0)
        mean = (mass * centred).sum(1, keepdim=True)
        sd = (mass * (centred - mean).square()).sum(1).sqrt()
        error = torch.where(ratio.isinf(), 0.0, error)
        counts, lost = self._that_count(ratio, error)
        worst = torch.where(counts, error, 0.0).amax(1) + further
        kl = kl_of_log_ratio(self._log_prior.expand_as(log_ratio), log_ratio)
        rounding = self._rounding * kl
        moved = worst * (sd * torch.exp(worst.clamp(max=700.0)) + worst)
        # A KL to π is at most −log of the least weight.
        return torch.minimum(moved + lost, -self._log_prior.min()) + rounding + _TINY

    def _that_count(self, ratio: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Which components can matter to a KL, and what the others may change of it in all.

        With ``r_k ≤ δ`` by the bounds on the errors, to leave out k moves ``Σ r log(r/π)`` by at most
        ``δ(|log δ| + 2|log π_min| + 1)``; the true r_k and the computed one are both left out.
        """
        height = self._log_prior + ratio
        log_share = height + error - (height - error).amax(1, keepdim=True)
        counts = log_share > -FAR
        least = log_share.clamp(max=-FAR)
        each = least.exp() * (1 - least - 2 * self._log_prior.min())
        return counts, 2 * torch.where(counts | ratio.isinf(), 0.0, each).sum(1)

    def _spread(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_likelihood, error = self._ratio_under_prior(block)
        prior = torch.exp(self._log_prior)
        possible = log_likelihood.isfinite().all(1)
        known = torch.where(possible[:, None], log_likelihood, 0.0)
        centred = known - (prior * known).sum(1, keepdim=True)
        variance = (prior * centred.square()).sum(1)
        worst = torch.where(possible, error.amax(1), 0.0)
        rounding = self._rounding * variance
        return (
            torch.where(possible, variance, torch.inf),
            # The standard deviation moves by at most the largest error of ℓ.
            2 * variance.sqrt() * worst + worst.square() + rounding + _TINY,
            torch.where(possible, known.amax(1) - known.amin(1) + 2 * worst, torch.inf),
        )

    def _moments(self, block: Tensor) -> tuple[Tensor, Tensor]:
        mass = self._mass_and_evidence(block)[0].double()
        states = torch.arange(len(self.weights), dtype=mass.dtype, device=mass.device)
        mean = (mass @ states)[:, None]
        return mean, (mass * (states - mean).square()).sum(1, keepdim=True).sqrt()

    def _log_posterior_ratio(self, ratio: Tensor) -> Tensor:
        """``log r_k/π_k`` of the supported components, from ``ℓ_k`` but for one number a row."""
        # Near agreement, the mean of the differences themselves; else from the largest one, so that the
        # distance of all components to the datum leaves no rounding behind.
        top = ratio.amax(1, keepdim=True)
        small = ratio.clamp(max=1.0)
        excess = (torch.exp(self._log_prior) * torch.expm1(small)).sum(1, keepdim=True)
        near = small - torch.log1p(excess.clamp(min=-0.5))
        apart = ratio - top
        far = apart - torch.logsumexp(self._log_prior + apart, 1, keepdim=True)
        return torch.where((top <= 1.0) & (excess >= -0.5), near, far)


def probabilities(weights: Any, count: int) -> Float[Tensor, " components"]:
    """Convert K weights, which should be non-negative and sum to one; nothing is normalised.

    Raises:
        ValueError, TypeError: they are no probabilities.
    """
    if count < 2:
        raise ValueError(f"a mixture should have at least two components, got {count}")
    weights = shaped(weights, "weights", count)
    negative = weights[weights < 0]
    if len(negative):
        raise ValueError(f"weights should be at least 0, got {negative[0].item()}")
    total = weights.sum().item()
    if abs(total - 1) > _WEIGHT_TOLERANCE:
        raise ValueError(f"weights should sum to one, got {weights.tolist()} with the sum {total}")
    return weights


def _categorical(log_mass: Tensor) -> Categorical:
    """A `Categorical` of log masses that sum to one already: torch would normalise them in another full pass."""
    law = Categorical.__new__(Categorical)
    law.__dict__.update(logits=log_mass, _param=log_mass)
    law._num_events = log_mass.shape[-1]
    Distribution.__init__(law, log_mass.shape[:-1], validate_args=False)
    law._validate_args = Distribution._validate_args  # log_prob checks its argument, as everywhere
    return law

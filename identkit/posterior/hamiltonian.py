"""Hamiltonian moves of many particles on many lanes at once, each lane with a metric and a step of its own.

A *lane* is one population of particles for one datum; a tensor over particles is (s, lanes, …).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.posterior.unbounded import Unbounded

LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""rows (m,) and z (m, k) → ``log p(x[row] | z)``, (m,), nats, differentiable in z."""

_LONGEST = (
    math.pi / 2
)  # of a trajectory: a quarter of the period of a normal law, which forgets where it began
_JITTER = 0.3  # of the step, so that no trajectory resonates
_ASTRAY = 10.0  # ranges of the prior's draws
_FLOOR = 1e-13  # of a covariance's eigenvalues, relative to the largest


@dataclass(frozen=True)
class Particles:
    """Where particles stand, with the two densities and slopes there."""

    u: Float[Tensor, "s lanes k"]
    """Unbounded coordinates."""
    prior: Float[Tensor, "s lanes"]
    """``log p(u)``."""
    likelihood: Float[Tensor, "s lanes"]
    """``ℓ(u)``, −∞ allowed."""
    prior_slope: Float[Tensor, "s lanes k"]
    likelihood_slope: Float[Tensor, "s lanes k"]

    def slope(self, power: Float[Tensor, " lanes"]) -> Float[Tensor, "s lanes k"]:
        """``∇ log p + β ∇ℓ``."""
        return self.prior_slope + power[:, None] * self.likelihood_slope

    def height(self, power: Float[Tensor, " lanes"]) -> Float[Tensor, "s lanes"]:
        """``log p + β ℓ``; −∞ where ℓ is, for β = 0 as well."""
        return self.prior + torch.where(self.likelihood > -math.inf, power * self.likelihood, -math.inf)

    def map(self, change: Callable[[Tensor], Tensor]) -> Particles:
        """The same change to every field."""
        return Particles(**{name: change(value) for name, value in vars(self).items()})

    def lanes(self, chosen: Int[Tensor, " some"]) -> Particles:
        """Some of the lanes."""
        return self.map(lambda value: value[:, chosen])

    def merged(self, chosen: Int[Tensor, " some"], others: Particles) -> Particles:
        """With some of the lanes replaced."""
        return Particles(
            **{name: value.index_copy(1, chosen, getattr(others, name)) for name, value in vars(self).items()}
        )

    def resampled(self, ancestors: Int[Tensor, "s lanes"]) -> Particles:
        """Particle ``ancestors[i, lane]`` in the place of each."""

        def taken(value: Tensor) -> Tensor:
            index = ancestors if value.ndim == 2 else ancestors[:, :, None].expand_as(value)
            return value.gather(0, index)

        return self.map(taken)


def box(u: Float[Tensor, "s lanes k"]) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Bounds far beyond draws u from the prior: ten times their range on either side."""
    flat = u.reshape(-1, u.shape[-1])
    low, high = flat.amin(0), flat.amax(0)
    return low - _ASTRAY * (high - low), high + _ASTRAY * (high - low)


@dataclass(frozen=True)
class Target:
    """A prior in unbounded coordinates and the log-likelihood of n data."""

    prior: Unbounded
    log_likelihood: LogLikelihood
    low: Float[Tensor, " k"]
    high: Float[Tensor, " k"]
    """A trajectory that leaves ``[low, high]`` has gone astray: ℓ is not asked there, where it may not be a number."""
    rows_at_once: int

    def particles(self, u: Float[Tensor, "s lanes k"], rows: Int[Tensor, " lanes"]) -> Particles:
        """Densities and slopes at u, lane by lane for datum ``rows[lane]``.

        Raises:
            ValueError: NaN or +∞ as log-likelihood, or one without a gradient.
        """
        flat, row = u.reshape(-1, u.shape[-1]), rows.expand(u.shape[:2]).reshape(-1)
        size = self.rows_at_once
        parts = [
            self._evaluated(flat[start : start + size], row[start : start + size])
            for start in range(0, len(flat), size)
        ]
        prior, likelihood, *slopes = (torch.cat(column) for column in zip(*parts, strict=True))
        shape = u.shape[:2]
        return Particles(
            u, prior.reshape(shape), likelihood.reshape(shape), *(s.reshape(u.shape) for s in slopes)
        )

    def _evaluated(self, u: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            inside = ((u >= self.low) & (u <= self.high)).all(1)
            leaf = torch.where(inside[:, None], u, (self.low + self.high) / 2).requires_grad_(True)
            z = self.prior.latents(leaf)
            prior = self.prior.log_density(leaf, z)
            likelihood = self.log_likelihood(rows, z)
            (prior_slope,) = torch.autograd.grad(prior.sum(), leaf, retain_graph=True)
            slope = torch.zeros_like(u)
            if likelihood.requires_grad:
                (slope,) = torch.autograd.grad(likelihood.sum(), leaf)
            elif not _constant(likelihood, rows):
                raise ValueError(
                    "log_likelihood should be differentiable in z: its result carries no gradient"
                )
        likelihood = likelihood.detach().to(torch.float64)
        likelihood = torch.where(inside, likelihood, -math.inf)
        wrong = torch.isnan(likelihood) | (likelihood == math.inf)
        if bool(wrong.any()):
            i = int(torch.nonzero(wrong)[0, 0])
            raise ValueError(
                f"log_likelihood should be finite or -inf, got {likelihood[i].item()} for datum {int(rows[i])} at "
                f"z = {z[i].tolist()[:5]}"
            )
        return prior.detach(), likelihood, prior_slope, slope.to(torch.float64)


def _constant(values: Tensor, rows: Tensor) -> bool:
    """Whether the values of each row are all the same."""
    count = int(rows.max()) + 1
    ends = (
        values.new_zeros(count).scatter_reduce(0, rows, values, end, include_self=False)
        for end in ("amin", "amax")
    )
    low, high = ends
    return torch.equal(low, high)


@dataclass(frozen=True)
class Kernel:
    """A Hamiltonian move that leaves ``p(u) e^{βℓ(u)}`` of each lane as it is."""

    power: Float[Tensor, " lanes"]
    """β."""
    root: Float[Tensor, "lanes k k"]
    """A root of the metric's inverse: about the covariance of the target."""
    step: Float[Tensor, " lanes"]
    leaps: int
    """Steps to a trajectory."""

    def lanes(self, chosen: Int[Tensor, " some"]) -> Kernel:
        """Some of the lanes."""
        return replace(self, power=self.power[chosen], root=self.root[chosen], step=self.step[chosen])


def moved(
    target: Target,
    particles: Particles,
    rows: Int[Tensor, " lanes"],
    kernel: Kernel,
    generator: torch.Generator,
) -> tuple[Particles, Float[Tensor, "s lanes"]]:
    """Move every particle once, and give the probability with which each move was accepted.

    In ``u = L y`` with ``L Lᵀ`` the target's covariance all directions are alike; leapfrog steps ``y += ε p``,
    ``p += ε Lᵀ∇`` keep volume, so a Metropolis step makes up for their error (Neal 2011, MCMC using Hamiltonian
    dynamics). The step's jitter does not depend on the particle, so the move is reversible.
    """
    s, lanes, k = particles.u.shape
    options = {"generator": generator, "dtype": torch.float64, "device": particles.u.device}
    momentum = torch.randn(s, lanes, k, **options)
    jitter = 1 + _JITTER * (2 * torch.rand(s, lanes, 1, **options) - 1)
    step = (kernel.step[:, None] * jitter).clamp(max=_LONGEST / kernel.leaps)

    def pushed(at: Particles) -> Tensor:
        slope = at.slope(kernel.power)
        return torch.einsum("lij,sli->slj", kernel.root, torch.where(torch.isfinite(slope), slope, 0.0))

    begin = particles.height(kernel.power) - momentum.square().sum(-1) / 2
    now, p = particles, momentum + step / 2 * pushed(particles)
    for leap in range(kernel.leaps):
        now = target.particles(now.u + step * torch.einsum("lij,slj->sli", kernel.root, p), rows)
        p = p + (step if leap < kernel.leaps - 1 else step / 2) * pushed(now)
    end = now.height(kernel.power) - p.square().sum(-1) / 2
    chance = torch.exp((end - begin).clamp(max=0.0)).nan_to_num(0.0)
    accepted = torch.rand(s, lanes, **options) < chance

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(accepted if new.ndim == 2 else accepted[:, :, None], new, old)

    return Particles(
        **{name: chosen(value, getattr(particles, name)) for name, value in vars(now).items()}
    ), chance


def metric_root(
    u: Float[Tensor, "s lanes k"], slope: Float[Tensor, "s lanes k"], weights: Float[Tensor, "s lanes"]
) -> Float[Tensor, "lanes k k"]:
    """Give a root L of the affine map that makes the target look most like a standard normal one.

    For a normal target of covariance Σ the slopes are ``−Σ⁻¹(u − m)``, so with C the covariance of any points and S
    that of their slopes ``S = Σ⁻¹CΣ⁻¹``, and Σ is the geometric mean of C and S⁻¹, *exactly*, however few the points
    (more than k) and whatever law they have. For other targets it minimises the Fisher divergence from a normal one
    (Seyboldt, Carlson & Carpenter 2024, Preconditioning Hamiltonian Monte Carlo).

    Args:
        u, slope: points and slopes of the target's log density. weights: of the points, summing to one over s.
    """
    spread, force = _covariance(u, weights), _covariance(slope, weights)
    # C # S⁻¹ = S^{-1/2} (S^{1/2} C S^{1/2})^{1/2} S^{-1/2}
    values, vectors = _eigen(force)
    half, inverse = (_built(values**power, vectors) for power in (0.5, -0.5))
    values, vectors = _eigen(half @ spread @ half)
    return inverse @ _built(values**0.25, vectors)


def _covariance(u: Tensor, weights: Tensor) -> Tensor:
    away = u - (weights[:, :, None] * u).sum(0)
    return torch.einsum("sl,sli,slj->lij", weights, away, away)


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return values.clamp(min=values[:, -1:].clamp(min=1e-300) * _FLOOR), vectors


def _built(values: Tensor, vectors: Tensor) -> Tensor:
    return vectors @ (values[:, :, None] * vectors.mT)

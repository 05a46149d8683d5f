"""Bayes' rule on weighted nodes, for many problems at once and with stated errors.

Nodes and weights make a *discrete* prior, to which Bayes' rule applies exactly: its KL is a sum of
non-negative terms, zero to the last digit where ℓ is constant. Quadrature only has to drive that law to the
continuous one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from identkit.posterior.stable import kl_integrand

EPSILON = 2.220446049250313e-16
# Below this KL the sums over nodes take their cancellation-free form throughout.
_SMALL = 1e-3


@dataclass(frozen=True)
class Values:
    """What has been integrated out so far says, at each point, about the latents still fixed there.

    Tensors of one shape (...), `terms` (..., T): posterior expectations under the latents integrated out.
    """

    log_prior: Tensor
    prior_error: Tensor
    log_likelihood: Tensor
    error: Tensor
    terms: Tensor
    term_errors: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Values:
        return Values(*(change(getattr(self, field.name)) for field in fields(self)))

    @staticmethod
    def cat(parts: list[Values]) -> Values:
        if len(parts) == 1:
            return parts[0]
        return Values(*(torch.cat([getattr(p, field.name) for p in parts]) for field in fields(Values)))


@dataclass(frozen=True)
class Law:
    """Prior and posterior as discrete laws on nodes, and their sums per problem.

    Nodes are (c, N), c cells owned by problems; sums are (m,). `ratio` is log dQ/dP.
    """

    prior: Tensor
    posterior: Tensor
    gap: Tensor
    """posterior − prior, without cancellation."""
    ratio: Tensor
    kl_density: Tensor
    """Non-negative terms whose sum is the KL."""
    log_mass: Tensor
    log_evidence: Tensor
    kl: Tensor
    terms: Tensor
    mass_error: Tensor
    evidence_error: Tensor
    kl_error: Tensor
    term_errors: Tensor
    """The four errors are those of rounding and of what came from further inside."""


def kl_density(prior: Tensor, posterior: Tensor, ratio: Tensor) -> Tensor:
    """``p·(u·eᵘ − expm1(u))``, u = log q/p: relatively accurate, be u 1e-15, −∞ or 1e7 (theory/T4)."""
    # From u = 1 on nothing cancels any more, and q is formed by itself: eᵘ may overflow where p underflows.
    far = torch.where(posterior > 0, posterior * (ratio - 1), 0.0) + prior
    return torch.where(ratio < 1, prior * kl_integrand(ratio.clamp(max=1.0)), far)


def bayes(owner: Tensor, count: int, log_weight: Tensor, values: Values) -> Law:
    """Bayes' rule on nodes: ``q = p·e^ℓ / Σ p·e^ℓ``, cancellation-free also where ℓ is all but constant.

    Args:
        owner: (c,) the problem of each row of nodes. count: number of problems m.
        log_weight: (c, N). values: of shape (c, N).
    """

    def total(nodes: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64).index_add_(0, owner, nodes.sum(-1))

    def highest(nodes: Tensor) -> Tensor:
        top = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce_(
            0, owner, nodes.amax(-1), "amax"
        )
        return torch.where(top.isfinite(), top, 0.0)

    log_prior = log_weight + values.log_prior
    likelihood = torch.where(log_prior == -math.inf, -math.inf, values.log_likelihood)
    base = highest(log_prior)
    prior = torch.exp(log_prior - base[owner, None])
    mass = total(prior)
    log_mass = base + torch.log(mass)
    prior = prior / torch.where(mass > 0, mass, 1.0)[owner, None]
    # Where ℓ is -1e19 and constant, adding log p to it would lose log p: only differences of ℓ are added.
    best = highest(likelihood)
    log_joint = log_prior + (likelihood - best[owner, None])
    peak = highest(log_joint)
    posterior = torch.exp(log_joint - peak[owner, None])
    evidence = total(posterior)
    possible = (evidence > 0) & (mass > 0)
    posterior = posterior / torch.where(evidence > 0, evidence, 1.0)[owner, None]
    rough = torch.where(possible, (peak - torch.where(mass > 0, log_mass, 0.0)) + torch.log(evidence), 0.0)
    ratio = (likelihood - best[owner, None]) - rough[owner, None]
    density = torch.where(posterior > 0, posterior * (ratio - 1), 0.0) + prior
    gap = posterior - prior
    kl = total(density)
    careful = torch.nonzero((kl < _SMALL)[owner])[:, 0]
    if len(careful):
        own = owner[careful]
        few = ratio[careful]
        # One Newton step on log Z: Σ p·expm1(ℓ − log Z) = 0 holds to the last digit of the *differences* of
        # ℓ.
        rise = _rise(prior[careful], posterior[careful], few)
        shift = torch.log1p(torch.zeros(count, dtype=torch.float64).index_add_(0, own, rise.sum(-1)))
        few = few - shift[own, None]
        ratio[careful], rough = few, rough + shift
        gap[careful] = _rise(prior[careful], posterior[careful], few)
        density[careful] = kl_density(prior[careful], posterior[careful], few)
    density = density.clamp(min=0)
    kl = total(density)

    weight, error, prior_error = posterior, values.error, values.prior_error
    error = torch.where(weight > 0, error, 0.0)
    square = total(weight * error.square())
    spread = total(weight * torch.where(weight > 0, ratio - kl[owner, None], 0.0).square())
    moved = total(torch.where(gap != 0, gap.abs() * prior_error, 0.0))
    # dKL = Cov_Q(ℓ, δ) to first order in an error δ(z) of ℓ; what is common to all z changes nothing.
    kl_error = (spread * square).sqrt() + square + 4 * EPSILON * torch.where(kl < _SMALL, kl, kl + 1)
    # An error of log p acts on a small KL relatively, and on a large one (E_Q ℓ − log Z) absolutely.
    prior_square = total(torch.where(weight > 0, weight * prior_error.square(), 0.0))
    absolute = moved + (spread * prior_square).sqrt() + prior_square
    relative = 2 * kl * moved + total(torch.where(density > 0, density * prior_error, 0.0))
    kl_error = kl_error + torch.minimum(absolute, relative)

    size = values.terms.shape[-1]
    terms = torch.zeros(count, size, dtype=torch.float64)
    term_errors = torch.zeros_like(terms)
    for i in range(size):
        term = torch.where(weight > 0, values.terms[..., i], 0.0)
        terms[:, i] = total(weight * term)
        off = total(weight * (term - terms[owner, None, i]).square())
        inherited = total(torch.where(weight > 0, weight * values.term_errors[..., i], 0.0))
        term_errors[:, i] = inherited + (off * square).sqrt() + terms[:, i].abs() * (moved + 4 * EPSILON)
    return Law(
        prior=prior,
        posterior=posterior,
        gap=gap,
        ratio=ratio,
        kl_density=density,
        log_mass=log_mass,
        log_evidence=torch.where(possible, best + rough, -math.inf),
        kl=kl,
        terms=terms,
        mass_error=total(torch.where(prior > 0, prior * prior_error, 0.0)) + 4 * EPSILON,
        evidence_error=total(weight * error) + moved,
        kl_error=kl_error,
        term_errors=term_errors,
    )


def _rise(prior: Tensor, posterior: Tensor, ratio: Tensor) -> Tensor:
    """q − p = p·expm1(u), and as it stands where nothing cancels."""
    return torch.where(ratio.abs() < 1, prior * torch.expm1(ratio.clamp(-1.0, 1.0)), posterior - prior)


def joint_heights(owner: Tensor, count: int, values: Values) -> Tensor:
    """log p + ℓ on nodes (c, N), above the highest ℓ of each problem."""
    likelihood = torch.where(values.log_prior > -math.inf, values.log_likelihood, -math.inf)
    best = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce_(
        0, owner, likelihood.amax(1), "amax"
    )
    best = torch.where(best.isfinite(), best, 0.0)
    return torch.where(likelihood > -math.inf, values.log_prior + (likelihood - best[owner, None]), -math.inf)

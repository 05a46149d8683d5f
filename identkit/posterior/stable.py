"""Formulas whose naive form cancels: the few that every exact KL needs, each accurate to the last digits."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.compiled.arithmetic import polynomial

# u·eᵘ − expm1(u) = Σ_{k≥2} (k − 1)/k! · uᵏ, and log1p(a) − a/(1 + a) = Σ_{k≥2} yᵏ/k with y = a/(1 + a)
_KL_SERIES = tuple((k - 1) / math.factorial(k) for k in range(2, 19))
_KL_SWITCH = 0.5
_GAIN_SERIES = tuple(1 / k for k in range(2, 20))
_GAIN_SWITCH = 0.1
_UNDERFLOW = -750.0  # exp of anything below is 0, and (−∞)·0 would be NaN


def kl_integrand(u: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate the integrand of a KL divergence that never cancels and is never negative.

    ``KL(Q‖P) = E_P[u·eᵘ − expm1(u)]``, ``u = log dQ/dP``. It is about u²/2 near 0 and 1 at u = −∞.

    Source: theory/T4 (computation).

    Args:
        u: log density ratios in nats, any shape; −∞ is allowed.

    Returns:
        The integrand, relative error below 1e-15.

    >>> kl_integrand(torch.tensor([1e-12, 1.0, -torch.inf], dtype=torch.float64))
    tensor([5.0000e-25, 1.0000e+00, 1.0000e+00], dtype=torch.float64)
    """
    near = u.clamp(-_KL_SWITCH, _KL_SWITCH)
    series = near.square() * polynomial(_KL_SERIES, near)
    far = u.clamp(min=_UNDERFLOW)
    return torch.where(u.abs() <= _KL_SWITCH, series, torch.exp(far) * (far - 1) + 1)


def kl_of_log_ratio(
    log_prior: Float[Tensor, "*n m"], log_ratio: Float[Tensor, "*n m"]
) -> Float[Tensor, "*n"]:
    """Sum the KL divergence between two laws on the same atoms, however rare or alike these are.

    ``KL(Q‖P) = Σ_k p_k (u_k·exp(u_k) − expm1(u_k))``, ``u_k = log q_k/p_k``.

    Source: theory/T4 (computation).

    Args:
        log_prior: ``log p_k``, the atoms on the last axis; an atom of P-mass 0 (−∞) counts nothing.
        log_ratio: ``u_k`` in nats.

    Returns:
        The KL in nats, never negative.

    >>> prior = torch.tensor([0.5, 0.5], dtype=torch.float64)
    >>> kl_of_log_ratio(prior.log(), torch.tensor([1e-12, -1e-12], dtype=torch.float64))
    tensor(5.0000e-25, dtype=torch.float64)
    """
    prior = torch.exp(log_prior)
    # Past u = 1 the mass q = exp(log p + u) is formed first: exp(u) alone overflows where p is below 1e-308.
    heavy = torch.exp(log_prior + log_ratio) * (log_ratio - 1) + prior
    terms = torch.where(log_ratio > 1, heavy, prior * kl_integrand(log_ratio.clamp(max=1.0)))
    return torch.where(log_prior == -math.inf, 0.0, terms).sum(-1)


def gaussian_gain(a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate twice the KL that the shrinking of a unit normal's variance to ``1/(1 + a)`` contributes.

    ``h(a) = log1p(a) − a/(1 + a)``, so that ``2·KL(N(m, 1/(1+a)) ‖ N(0, 1)) = h(a) + m²``; about a²/2 near 0.

    Source: the closed form of the KL between normal laws.

    Args:
        a: the gain in precision, non-negative, any shape.

    Returns:
        h(a), relative error below 1e-14.

    >>> gaussian_gain(torch.tensor([0.0, 1e-13, 1.0], dtype=torch.float64))
    tensor([0.0000e+00, 5.0000e-27, 1.9315e-01], dtype=torch.float64)
    """
    y = a / (1 + a)
    near = y.clamp(max=_GAIN_SWITCH)
    series = near.square() * polynomial(_GAIN_SERIES, near)
    return torch.where(y <= _GAIN_SWITCH, series, torch.log1p(a) - y)

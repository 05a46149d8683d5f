"""Log densities of counts and waiting times whose large terms have been taken out of each other by hand.

``x log λ − λ − log Γ(x + 1)`` loses what its three terms share: at a rate of 10¹² all digits but five. With Stirling's
formula for Γ, φ its remainder, and ``f(e) = e − log1p(e)``, which measures how far the mean is from the datum, nothing
large is left to cancel.

Source: Loader 2000, Fast and accurate computation of binomial probabilities.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.conjugate.gamma_divergence import log_excess, stirling_remainder


def log_poisson(x: Float[Tensor, ...], rate: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """``log Poisson(x; λ) = −x f((λ − x)/x) − ½ log 2πx − φ(x)`` in nats, −λ at 0.

    Args:
        x: counts.
        rate: λ > 0, of a shape that broadcasts against x.

    >>> log_poisson(torch.tensor(0.0).double(), torch.tensor(2.0).double())
    tensor(-2., dtype=torch.float64)
    """
    some = x.clamp(min=1)
    found = -_deviance(some, rate) - 0.5 * (2 * math.pi * some).log() - stirling_remainder(some)
    return torch.where(x > 0, found, -rate)


def log_binomial(x: Float[Tensor, ...], count: int, chance: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """``log Binomial(x; N, p)`` in nats: what is won and what is lost, each as in `log_poisson`, to their total.

    Args:
        x: successes, 0 to N.
        count: N.
        chance: p in (0, 1), of a shape that broadcasts against x.

    >>> log_binomial(torch.tensor([0.0, 1.0]).double(), 1, torch.tensor(0.25).double()).exp()
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    if count == 0:
        return torch.zeros_like(x + chance)
    total = torch.tensor(float(count), dtype=x.dtype, device=x.device)
    won, lost = x.clamp(min=1), (total - x).clamp(min=1)
    ways = (0.5 * (total / won / lost / (2 * math.pi)).log() + stirling_remainder(total)) - (
        stirling_remainder(won) + stirling_remainder(lost)
    )
    inside = ways - _deviance(won, total * chance) - _deviance(lost, total * (1 - chance))
    none, all_ = total * torch.log1p(-chance), total * chance.log()
    return torch.where(x <= 0, none, torch.where(x >= total, all_, inside))


def log_gamma(
    x: Float[Tensor, ...], shape: Float[Tensor, ...], rate: Float[Tensor, ...]
) -> Float[Tensor, ...]:
    """``log Gamma(x; a, b) = −a f((bx − a)/a) + ½ log(a/2π) − φ(a) − log x`` in nats.

    Args:
        x: positive.
        shape, rate: a, b > 0, of shapes that broadcast against x.

    >>> log_gamma(torch.tensor(1.0).double(), torch.tensor(1.0).double(), torch.tensor(1.0).double())
    tensor(-1.0000, dtype=torch.float64)
    """
    return (
        0.5 * (shape / (2 * math.pi)).log() - stirling_remainder(shape) - _deviance(shape, rate * x) - x.log()
    )


def _deviance(x: Tensor, mean: Tensor) -> Tensor:
    """``x f((m − x)/x) = m − x − x log(m/x) ≥ 0``; a mean far below x is lost beside it, but not in its logarithm."""
    e = (mean - x) / x
    return torch.where(e < -0.5, x * (e - (mean.log() - x.log())), x * log_excess(e))

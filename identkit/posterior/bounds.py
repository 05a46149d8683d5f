"""How flat against how collapsed: the inequalities of theory/T4 as functions, and the best band of them all.

Throughout ``ℓ(z) = log p(x | z)``, P is the prior, ``dQ ∝ e^ℓ dP`` the posterior, ``V = Var_P(ℓ)`` and
``ω = ess sup ℓ − ess inf ℓ``. Everything is float64 and in nats; nothing here looks at a posterior.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.compiled.arithmetic import polynomial
from identkit.model.protocol import Flatness

# B_2, B_4, …, B_22: both ω/(e^ω − 1) and its logarithm are power series in them.
_BERNOULLI = (
    *(1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730),
    *(7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138),
)
# r − 1 − ln r = Σ_k B_2k (1 + 1/(2k)) ω^2k / (2k)!  (radius of convergence 2π)
_OSCILLATION_SERIES = tuple(
    b * (1 + 1 / (2 * k)) / math.factorial(2 * k) for k, b in enumerate(_BERNOULLI, start=1)
)
_OSCILLATION_SWITCH = 1.0
# (1 + (ω − 1)e^ω)/ω² = ∫₀¹ t e^{tω} dt = Σ_k ω^k / (k! (k + 2))
_VARIANCE_SERIES = tuple(1 / (math.factorial(k) * (k + 2)) for k in range(20))
_VARIANCE_SWITCH = 1.0

# A bound is a handful of float64 operations on its moments; the band gives way by more than their rounding.
_SLACK = 32 * torch.finfo(torch.float64).eps


def kl_upper_oscillation(omega: Float[Tensor, "*n"] | int | float) -> Float[Tensor, "*n"]:
    """Bound the KL between prior and posterior, in either order, by the oscillation of ℓ alone.

    ``max(KL(Q‖P), KL(P‖Q)) ≤ r − 1 − ln r``, ``r = ω/(e^ω − 1)``: sharp (a two-point law attains it), about
    ω²/8 for small ω and ω − ln ω − 1 for large.

    Source: theory/T4.2.

    Args:
        omega: the oscillation of ℓ in nats, any shape, 0 ≤ ω ≤ ∞.

    Returns:
        The bound in nats; ∞ where ω is.

    Raises:
        ValueError: an oscillation is negative or not a number.

    >>> kl_upper_oscillation(torch.tensor([1e-10, 2.0, torch.inf]))
    tensor([1.2500e-21, 4.7447e-01,        inf], dtype=torch.float64)
    """
    omega = _oscillation(omega)
    small = omega.clamp(max=_OSCILLATION_SWITCH)
    series = small.square() * polynomial(_OSCILLATION_SERIES, small.square())
    large = omega.clamp(min=_OSCILLATION_SWITCH)
    decay = torch.exp(-large)
    # ln r = ln ω − ω − log1p(−e^−ω), and r = ω e^−ω/(1 − e^−ω): neither e^ω nor its overflow appears.
    ratio = torch.where(large.isinf(), 0.0, large * decay / -torch.expm1(-large))
    log_ratio = torch.where(large.isinf(), -math.inf, large.log() - large - torch.log1p(-decay))
    return torch.where(omega < _OSCILLATION_SWITCH, series, ratio - 1 - log_ratio)


def total_variation_upper(omega: Float[Tensor, "*n"] | int | float) -> Float[Tensor, "*n"]:
    """Bound the total variation distance of prior and posterior by the oscillation of ℓ alone.

    ``TV(Q, P) ≤ tanh(ω/4)``, sharp.

    Source: theory/T4.2.

    Args:
        omega: the oscillation of ℓ in nats, any shape, 0 ≤ ω ≤ ∞.

    Returns:
        The bound, a probability.

    Raises:
        ValueError: an oscillation is negative or not a number.

    >>> total_variation_upper(float("inf")).item()
    1.0
    """
    return torch.tanh(_oscillation(omega) / 4)


def variance_factors(
    omega: Float[Tensor, "*n"] | int | float,
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Give the two factors between which KL(Q‖P)/V must lie.

    ``V·(1 − (1 + ω)e^−ω)/ω² ≤ KL(Q‖P) ≤ V·(1 + (ω − 1)e^ω)/ω²``; both factors are ½ at ω = 0, and they stay
    right when ω is replaced by an upper bound of itself.

    Source: theory/T4.3.

    Args:
        omega: the oscillation of ℓ in nats, any shape, 0 ≤ ω ≤ ∞.

    Returns:
        ``(low, high)``, each of the shape of ω, in KL nats per nat² of variance.

    Raises:
        ValueError: an oscillation is negative or not a number.

    >>> [round(factor.item(), 6) for factor in variance_factors(1.0)]
    [0.264241, 1.0]
    """
    omega = _oscillation(omega)
    small = omega.clamp(max=_VARIANCE_SWITCH)
    large = omega.clamp(min=_VARIANCE_SWITCH)
    decay = torch.where(large.isinf(), 0.0, (1 + large) * torch.exp(-large))
    low = (1 - decay) / large / large
    # e^ω/ω² is finite a little beyond the overflow of e^ω; 2,000 is safely past both.
    capped = large.clamp(max=2000.0)
    root = torch.exp(capped / 2)
    high = torch.where(large > capped, math.inf, root * ((capped - 1) / capped.square()) * root)
    high = high + 1 / large / large
    near = omega < _VARIANCE_SWITCH
    return (
        torch.where(near, polynomial(_VARIANCE_SERIES, -small), low),
        torch.where(near, polynomial(_VARIANCE_SERIES, small), high),
    )


def talagrand_lower(rho: int | float, mean_shift: Float[Tensor, "*n"] | int | float) -> Float[Tensor, "*n"]:
    """Bound the KL from below by how far the posterior mean has moved from the prior's.

    ``KL(Q‖P) ≥ (ρ/2)‖E_Q z − E_P z‖²``, an equality when P and Q are Gaussians of one covariance I/ρ.

    Source: theory/T4.4 (Talagrand 1996; Otto and Villani 2000).

    Args:
        rho: a log-Sobolev constant of the prior, > 0 (N(0, I): 1), in 1/units of z².
        mean_shift: ``‖E_Q z − E_P z‖²``, any shape, ≥ 0.

    Returns:
        The bound in nats.

    Raises:
        ValueError: the constant is not positive and finite, or a squared shift is negative.

    >>> talagrand_lower(1.0, 0.5).item()
    0.25
    """
    return _constant(rho) / 2 * _non_negative("mean_shift", mean_shift)


def log_sobolev_upper(
    rho: int | float, gradient_second_moment: Float[Tensor, "*n"] | int | float
) -> Float[Tensor, "*n"]:
    """Bound the KL from above by the mean squared slope of ℓ under the posterior, however wide ℓ ranges.

    ``KL(Q‖P) ≤ E_Q‖∇ℓ‖²/(2ρ)`` for locally Lipschitz ℓ, an equality when ℓ is linear and P Gaussian.

    Source: theory/T4.4 (Gross 1975).

    Args:
        rho: a log-Sobolev constant of the prior, > 0 (N(0, I): 1), in 1/units of z².
        gradient_second_moment: ``E_Q‖∇ℓ‖²``, any shape, ≥ 0.

    Returns:
        The bound in nats.

    Raises:
        ValueError: the constant is not positive and finite, or a second moment is negative.

    >>> log_sobolev_upper(32.0, 16.0).item()
    0.25
    """
    return _non_negative("gradient_second_moment", gradient_second_moment) / (2 * _constant(rho))


def beta_log_sobolev(a: int | float, b: int | float) -> float | None:
    """Give a log-Sobolev constant of Beta(a, b), or None where its density is not strongly log-concave.

    ``ρ = min over 0 < t < 1 of (a − 1)/t² + (b − 1)/(1 − t)² = ((a − 1)^⅓ + (b − 1)^⅓)³``: the least
    curvature of −log density (Bakry–Émery); the derivative vanishes at t = (a − 1)^⅓/((a − 1)^⅓ + (b − 1)^⅓).

    Source: theory/T4.4.

    Args:
        a: first shape, > 0.
        b: second shape, > 0.

    Returns:
        The constant, per unit² of z; None unless a, b ≥ 1 and one of them exceeds 1.

    Raises:
        ValueError: a shape is not positive and finite.

    >>> round(beta_log_sobolev(5, 5), 9)
    32.0
    """
    for name, shape in (("a", a), ("b", b)):
        if not (0 < shape < math.inf):
            raise ValueError(f"{name} should be positive and finite, got {shape}")
    if min(a, b) < 1 or max(a, b) == 1:
        return None
    return (math.cbrt(a - 1) + math.cbrt(b - 1)) ** 3


def band(flatness: Flatness) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], list[str]]:
    """Give the tightest certified interval for KL(Q‖P) that the moments of ℓ under the prior allow.

    ``max(V·low(ω), (ρ/2)‖E_Q z − E_P z‖²) ≤ KL ≤ min(V·high(ω), r − 1 − ln r, E_Q‖∇ℓ‖²/(2ρ))``, with V taken
    at the far ends of V ± its error and both sides moved outward by a few units in the last place.

    Source: theory/T4.2, T4.3 and T4.4.

    Args:
        flatness: the moments of ℓ, n data; an oscillation that is only an upper bound keeps the band valid.

    Returns:
        ``(low, high, names)``: both (n,) in nats, 0 and ∞ where nothing applies, and per datum the theorem
        behind the lower and the upper side, such as "T4.3/T4.2", or one name where it gives both, or "none".

    Raises:
        ValueError: a moment is negative or not a number.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> low, high, names = band(Flatness(variance=one / 4, variance_error=0 * one, oscillation=one))
    >>> round(low.item(), 6), round(high.item(), 6), names
    (0.06606, 0.123302, ['T4.3/T4.2'])
    """
    variance = _non_negative("variance", flatness.variance)
    error = _non_negative("variance_error", flatness.variance_error)
    low_factor, high_factor = variance_factors(flatness.oscillation)
    # Far out the factors are 0 and ∞ while V may be ∞ or 0: such products bound nothing.
    finite = torch.isfinite(flatness.oscillation)
    lower = {"T4.3": torch.where(finite, low_factor * (variance - error).clamp(min=0.0), 0.0)}
    upper = {
        "T4.3": torch.where(torch.isfinite(high_factor), high_factor * (variance + error), math.inf),
        "T4.2": kl_upper_oscillation(flatness.oscillation),
    }
    if flatness.log_sobolev is not None:
        if flatness.mean_shift is not None:
            lower["T4.4"] = talagrand_lower(flatness.log_sobolev, flatness.mean_shift)
        if flatness.gradient_second_moment is not None:
            upper["T4.4"] = log_sobolev_upper(flatness.log_sobolev, flatness.gradient_second_moment)
    low, low_index = torch.stack(tuple(lower.values())).max(dim=0)
    high, high_index = torch.stack(tuple(upper.values())).min(dim=0)
    names = []
    for row in range(low.shape[0]):
        below = list(lower)[int(low_index[row])] if low[row] > 0 or finite[row] else "none"
        above = list(upper)[int(high_index[row])] if high[row] < math.inf else "none"
        names.append(below if below == above else f"{below}/{above}")
    return low * (1 - _SLACK), high * (1 + _SLACK), names


def _oscillation(omega: Tensor | int | float) -> Tensor:
    return _non_negative("omega", omega)


def _non_negative(name: str, value: Tensor | int | float) -> Tensor:
    value = torch.as_tensor(value, dtype=torch.float64)
    if not bool((value >= 0).all()):
        raise ValueError(f"{name} should be at least 0, got {value[~(value >= 0)].flatten()[0].item()}")
    return value


def _constant(rho: int | float) -> float:
    if not (0 < rho < math.inf):
        raise ValueError(f"rho should be positive and finite, got {rho}")
    return rho

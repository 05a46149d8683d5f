"""Divergences and evidences of gamma and Dirichlet laws without cancellation, for any size of counts.

A conjugate posterior adds what the data say, δ, to the prior's shapes a. Its KL is made of the Bregman
divergence of log Γ,

    D(a, δ) = log Γ(a) − log Γ(a + δ) + δ ψ(a + δ) = Σ_{j ≥ 0} h(δ/(a + j)) = a f(δ/a) + ½ h(δ/a) + R(a, δ),

with ``f(e) = e − log1p(e)``, ``h(d) = log1p(d) − d/(1 + d)``, and R the divergence of Stirling's remainder φ,
``log Γ(a) = (a − ½) log a − a + ½ log 2π + φ(a)``. All three parts are non-negative. Only the first is large,
and where divergences are subtracted, the first parts combine to the divergence of the *means*.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.compiled.arithmetic import polynomial
from identkit.model.compiled.saddle_point import (
    SHIFT,
    STIRLING,
    deviance,
    log_excess,
    log_factorial_rest,
    stirling_remainder,
)
from identkit.posterior.stable import gaussian_gain

# Of −φ′ and φ″, by powers of 1/a²
_SLOPES = tuple((2 * k - 1) * c for k, c in enumerate(STIRLING, 1))
_CURVES = tuple(2 * k * c for k, c in enumerate(_SLOPES, 1))


def stirling_slope(a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate ``φ'(a) = ψ(a) − log a + 1/(2a)``, negative.

    Args:
        a: positive, any shape.

    >>> round(stirling_slope(torch.tensor(1.0, dtype=torch.float64)).item(), 12)
    -0.077215664902
    """
    large = torch.where(a < SHIFT, a + SHIFT, a)
    square = (1 / large).square()
    tail = -polynomial(_SLOPES, square) * square
    if not bool((a < SHIFT).any()):
        return tail
    low = a.clamp(max=SHIFT)
    steps = sum(
        torch.log1p(1 / (low + j)) - (low + j + 0.5) / ((low + j) * (low + j + 1)) for j in range(SHIFT)
    )
    return tail + torch.where(a < SHIFT, steps, 0.0)


def remainder_divergence(a: Float[Tensor, "*n"], delta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate ``R(a, δ) = φ(a) − φ(a + δ) + δ φ'(a + δ) ≥ 0``, all terms of the series of one form.

    A term a^−m has the divergence ``d²/(1 + d) · Σ_{i<m} (m − i) a^−i (a + δ)^−(m−i)``, d = δ/a.

    Args:
        a: positive, any shape.
        delta: non-negative, of the same shape.

    >>> remainder_divergence(torch.tensor(1e8).double(), torch.tensor(1.0).double())
    tensor(8.3333e-26, dtype=torch.float64)
    """
    large = torch.where(a < SHIFT, float(SHIFT), a)
    d = delta / large
    before, after = 1 / large, 1 / (large + delta)
    total = torch.zeros_like(a)
    weighted, plain = (
        after.clone(),
        after + before,
    )  # of m = 1: Σ (m − i) …, and Σ_{i ≤ m} a^−i (a + δ)^−(m−i)
    for m in range(1, 2 * len(STIRLING)):
        if m % 2:
            total = total + STIRLING[m // 2] * weighted
        weighted = after * (weighted + plain)
        plain = after * plain + before ** (m + 1)
    series = total * d.square() / (1 + d)
    if not bool((a < SHIFT).any()):
        return series
    low, up = a.clamp(max=SHIFT), a.clamp(max=SHIFT) + delta
    direct = stirling_remainder(low) - stirling_remainder(up) + delta * stirling_slope(up)
    # Of few counts φ(a) and φ(a + δ) all but agree. The sum in the module's docstring does not cancel: its first terms,
    # and from a + 12 on the three parts again.
    few = delta <= SHIFT
    if bool((few & (a < SHIFT)).any()):
        direct = torch.where(few, _by_steps(low, delta.clamp(max=SHIFT)), direct)
    return torch.where(a < SHIFT, torch.where(delta > 0, direct.clamp(min=0.0), 0.0), series)


def _by_steps(a: Tensor, delta: Tensor) -> Tensor:
    """R(a, δ) of a, δ ≤ 12 as ``Σ_{j < 12} h(δ/(a + j)) + D(a + 12, δ) − a f(δ/a) − ½ h(δ/a)``."""
    later = a + SHIFT
    own, far = delta / a, delta / later
    steps = sum(gaussian_gain(delta / (a + j)) for j in range(1, SHIFT))
    parts = later * log_excess(far) - a * log_excess(own) + (gaussian_gain(far) + gaussian_gain(own)) / 2
    return steps + parts + remainder_divergence(later, delta)


def rounded_parts(a: Float[Tensor, "*n"], delta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Give the size of the numbers that ``½ h(δ/a) + R(a, δ)`` is made of, to which its rounding is relative.

    They are of one sign, and so are their sum's own size; where R is a difference (a < 12), they are D's.

    Args:
        a: positive, any shape.
        delta: non-negative, of the same shape.

    >>> rounded_parts(torch.tensor(2.0).double(), torch.tensor(0.0).double())
    tensor(0., dtype=torch.float64)
    """
    own = gaussian_gain(delta / a) / 2 + remainder_divergence(a, delta)
    return own + torch.where(a < SHIFT, a * log_excess(delta / a), 0.0)


def log_gamma_divergence(a: Float[Tensor, "*n"], delta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate ``D(a, δ) = log Γ(a) − log Γ(a + δ) + δ ψ(a + δ) ≥ 0``.

    It is the KL between gamma laws of one rate, ``KL(Gamma(a + δ, b) ‖ Gamma(a, b))``.

    Args:
        a: positive, any shape.
        delta: non-negative, of the same shape.

    >>> round(log_gamma_divergence(torch.tensor(2.0).double(), torch.tensor(1.0).double()).item(), 9)
    0.229637155
    """
    d = delta / a
    return a * log_excess(d) + gaussian_gain(d) / 2 + remainder_divergence(a, delta)


def gamma_kl(
    a: Float[Tensor, "*n"], delta: Float[Tensor, "*n"], b: Float[Tensor, "*n"], exposure: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Evaluate ``KL(Gamma(a + δ, b + E) ‖ Gamma(a, b)) = a f(μ'/μ − 1) + ½ h(δ/a) + R(a, δ)`` in nats.

    ``μ'/μ − 1 = (δ b − E a)/(a (b + E))`` is how far the mean has moved: the only difference that is taken.

    Source: the closed form of the KL between gamma laws, with log Γ by Stirling's formula.

    Args:
        a, b: shape and rate of the prior, positive.
        delta, exposure: what the data add to them, non-negative; all of one shape.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(gamma_kl(2 * one, 3 * one, 1 * one, 2 * one).item(), 6)
    0.20419
    """
    later = a + delta
    moved = (delta * b - exposure * a) / (a * (b + exposure))
    ratio = later * b / (a * (b + exposure))
    shift = torch.where(moved < -0.5, moved - ratio.log(), log_excess(moved))
    return a * shift + gaussian_gain(delta / a) / 2 + remainder_divergence(a, delta)


def dirichlet_kl_terms(
    a: Float[Tensor, "*n"],
    delta: Float[Tensor, "*n"],
    total: Float[Tensor, "*n"],
    count: Float[Tensor, "*n"],
) -> Float[Tensor, "*n"]:
    """Evaluate what one category adds to the KL between Dirichlet laws, in nats.

    ``a f(p'/p − 1) + ½ h(δ/a) + R(a, δ)`` with prior mean p = a/s and posterior mean p' = (a + δ)/(s + n).

    Args:
        a: the category's shape; δ: its count; total: s = Σ a; count: n = Σ δ; all of one shape.
    """
    moved = (delta * total - count * a) / (a * (total + count))
    ratio = (a + delta) * total / (a * (total + count))
    shift = torch.where(moved < -0.5, moved - ratio.log(), log_excess(moved))
    return a * shift + gaussian_gain(delta / a) / 2 + remainder_divergence(a, delta)


def dirichlet_kl(a: Float[Tensor, "*n k"], delta: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Evaluate ``KL(Dirichlet(a + δ) ‖ Dirichlet(a)) = Σ_i D(a_i, δ_i) − D(s, n)`` in nats, s = Σ a, n = Σ δ.

    The large parts of the D combine: ``s·KL(p ‖ p') + ½[Σ h(δ_i/a_i) − h(n/s)] + [Σ R(a_i, δ_i) − R(s, n)]``.

    Source: the closed form of the KL between Dirichlet laws, with log Γ by Stirling's formula.

    Args:
        a: shapes of the prior, positive, the categories on the last axis.
        delta: what the data add, non-negative.

    >>> round(dirichlet_kl(torch.tensor([2.0, 3.0]).double(), torch.tensor([1.0, 0.0]).double()).item(), 6)
    0.132957
    """
    total, count = a.sum(-1, keepdim=True), delta.sum(-1, keepdim=True)
    terms = dirichlet_kl_terms(a, delta, total.expand_as(a), count.expand_as(a)).sum(-1)
    whole = gaussian_gain(count / total) / 2 + remainder_divergence(total, count)
    return (terms - whole[..., 0]).clamp(min=0.0)


def log_gamma_rise(a: Float[Tensor, "*n"], delta: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate the small part of ``log Γ(a + δ) − log Γ(a)``: ``−½ log1p(δ/a) + φ(a + δ) − φ(a)``.

    The whole is that plus ``δ log(a + δ) − a f(δ/a)``, which callers combine with its like.
    """
    return stirling_remainder(a + delta) - stirling_remainder(a) - torch.log1p(delta / a) / 2


def log_dirichlet_multinomial(a: Float[Tensor, "*#n k"], x: Float[Tensor, "*#n k"]) -> Float[Tensor, ...]:
    """Evaluate the log evidence of counts under a Dirichlet prior, in nats.

    ``log n!/Π x_i! + log B(a + x)/B(a)``, as ``log Multinomial(x; p') − s·KL(p ‖ p')`` and small terms, p and
    p' the means of prior and posterior.

    Args:
        a: shapes of the prior, the categories on the last axis.
        x: counts.

    >>> round(log_dirichlet_multinomial(torch.ones(2).double(), torch.tensor([2.0, 1.0]).double()).exp().item(), 9)
    0.25
    """
    a, x = torch.broadcast_tensors(a, x)
    total, count = a.sum(-1, keepdim=True), x.sum(-1, keepdim=True)
    # n p'_i − x_i = (n a_i − s x_i)/(s + n) = −(s p'_i − a_i)
    moved = (total * x - count * a) / (total + count)
    share = (a + x) / (total + count)
    apart = (deviance(x, count * share, -moved) + deviance(a, total * share, moved)).sum(-1)
    rest = log_factorial_rest(count)[..., 0] - log_factorial_rest(x).sum(-1)
    rise = log_gamma_rise(a, x).sum(-1) - log_gamma_rise(total, count)[..., 0]
    return rest + rise - apart


def log_gamma_poisson(
    a: Float[Tensor, "*n"], b: Float[Tensor, "*n"], x: Float[Tensor, "*n"], exposure: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Evaluate the log evidence of a count ``x ~ Poisson(E λ)`` under ``λ ~ Gamma(a, b)``, in nats.

    The negative binomial law, as ``−deviance(x, E μ') − deviance(a, b μ')`` and small terms, μ' = (a + x)/(b + E).

    Args:
        a, b: shape and rate of the prior.
        x: counts.
        exposure: E; 0 only where the count is.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(log_gamma_poisson(one, one, 2 * one, one).exp().item(), 9)
    0.125
    """
    moved = (exposure * a - b * x) / (b + exposure)  # E μ' − x = −(b μ' − a)
    mean = (a + x) / (b + exposure)
    apart = deviance(x, exposure * mean, moved) + deviance(a, b * mean, -moved)
    return log_gamma_rise(a, x) - log_factorial_rest(x) - apart


def log_gamma_evidence(
    a: Float[Tensor, "*n"], delta: Float[Tensor, "*n"], b: Float[Tensor, "*n"], exposure: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Evaluate ``log ∫ λ^δ e^(−E λ) Gamma(λ; a, b) dλ = δ (log μ' − 1) + a log(μ'/μ) + small terms`` in nats.

    Args:
        a, b: shape and rate of the prior, with the mean μ = a/b.
        delta, exposure: what the data add to them, which makes the mean μ' = (a + δ)/(b + E).

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(log_gamma_evidence(2 * one, one, one, one).exp().item(), 9)
    0.25
    """
    later = (a + delta) / (b + exposure)
    moved = (delta * b - exposure * a) / (a * (b + exposure))
    growth = torch.where(moved < -0.5, (later * b / a).log(), torch.log1p(moved.clamp(min=-0.5)))
    return delta * (later.log() - 1) + a * growth + log_gamma_rise(a, delta)


def trigamma_rest(a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate ``ψ'(a) − 1/a``, about 1/(2a²), without the cancellation of the two.

    Args:
        a: positive, any shape.

    >>> trigamma_rest(torch.tensor([1.0, 1e8], dtype=torch.float64))
    tensor([6.4493e-01, 5.0000e-17], dtype=torch.float64)
    """
    large = torch.where(a < SHIFT, a + SHIFT, a)
    inverse = 1 / large
    tail = inverse.square() / 2 + polynomial(_CURVES, inverse.square()) * inverse**3
    if not bool((a < SHIFT).any()):
        return tail
    # 1/a² = 1/a − 1/(a + 1) + 1/(a² (a + 1))
    low = a.clamp(max=SHIFT)
    steps = sum(1 / ((low + j).square() * (low + j + 1)) for j in range(SHIFT))
    return tail + torch.where(a < SHIFT, steps, 0.0)

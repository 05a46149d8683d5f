"""How far a hidden chain's posterior is from its prior, and how flat its likelihood is: two roads, no shared code.

The posterior of a chain is a chain, so ``KL(Q‖P) = KL(q(z_1)‖π) + Σ_t E_Q KL(q(z_t | z_{t−1})‖A)``: a sum of terms
that are never negative and each free of cancellation. It equals ``Σ_t E_Q ℓ_t − log p(x)``, which is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from identkit.classical.compared import FAR
from identkit.model.protocol import Flatness
from identkit.posterior.stable import kl_integrand, kl_of_log_ratio

Array = np.ndarray

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300
_UNDERFLOW = 1e-250
_FLAT = 1.0
"""Where the steps of a sequence tell its states apart by less than this in all, messages are kept as small numbers."""
_ELEMENTS = 2**19
_SMALL = 2**22
"""Up to so many terms a KL is summed term by term; beyond, by matrix products, and the error bound says so."""


@dataclass(frozen=True, eq=False)
class Messages:
    """What the informations of n sequences are made of; float64, zeros where nothing is observed."""

    initial: Tensor
    """π, (K,)."""
    transition: Tensor
    """A, (K, K)."""
    ratio: Tensor
    """``λ_t(k) = log b_k(x_t) − log b_r(x_t)``, (n, T, K)."""
    error: Tensor
    """A bound on the errors of λ_t, (n, T), of the states that count."""
    counts: Tensor
    """(n, T, K): whether a state can have more of the posterior than ``e^−FAR``."""
    probs: Tensor
    """``γ_t(k) = p(z_t = k | x)``, (n, T, K)."""
    onward: Tensor
    """``h_t(k) = λ_t(k) + log p(x_{t+1}, … | z_t = k)`` up to a constant of each step, (n, T, K)."""
    flat: Tensor
    """(n,): whether h is small throughout and known to its own relative precision."""
    lengths: Tensor
    """(n,)."""

    def transitions(self, rows: Tensor, steps: Tensor) -> Tensor:
        """``q(z_{t+1} = k | z_t = j)`` at chosen steps, (m, K, K)."""
        weight = self.transition.log() + self.onward[rows, steps + 1][:, None, :]
        mass = torch.exp(weight - weight.amax(-1, keepdim=True))
        return (mass / mass.sum(-1, keepdim=True)).nan_to_num(nan=0.0)

    @property
    def inner(self) -> tuple[Tensor, Tensor]:
        """Sequence and step of every z_t that has a successor."""
        later = torch.arange(1, self.ratio.shape[1] + 1, device=self.lengths.device) < self.lengths[:, None]
        rows, steps = torch.nonzero(later, as_tuple=True)
        return rows, steps


def flat_messages(transition: Array, ratio: Array) -> Array:
    """``h_t = λ_t + log(A e^{h_{t+1}})`` where all of it is small: sums of expm1, and log1p, keep its digits."""
    onward = ratio.copy()
    for t in range(ratio.shape[1] - 2, -1, -1):
        onward[:, t] += np.log1p(np.expm1(onward[:, t + 1]) @ transition.T)
    return onward


def is_flat(ratio: Array) -> Array:
    """Which sequences say so little in all that `flat_messages` serves them, (n,)."""
    spread = np.abs(ratio).max(2).sum(1) if ratio.size else np.zeros(len(ratio))
    return spread <= _FLAT


def log_posterior_ratio(log_prior: Tensor, ratio: Tensor) -> Tensor:
    """``log q_k/p_k`` of ``q ∝ p e^ratio``, the atoms last: of small ratios by their own mean, else from the largest."""
    small = ratio.clamp(-1.0, 1.0)
    near = small - torch.log1p((torch.exp(log_prior) * torch.expm1(small)).sum(-1, keepdim=True))
    apart = ratio - torch.where(log_prior == -torch.inf, -torch.inf, ratio).amax(-1, keepdim=True)
    apart = torch.where(log_prior == -torch.inf, -torch.inf, apart)
    far = apart - torch.logsumexp(log_prior + apart, -1, keepdim=True)
    return torch.where(ratio.abs().amax(-1, keepdim=True) <= 1.0, near, far)


def _in_chunks(size: int, size_of_one: int, work: Callable[[slice], None]) -> None:
    step = max(1, _ELEMENTS // size_of_one)
    for start in range(0, size, step):
        work(slice(start, start + step))


def _many_kl(log_prior: Tensor, ratio: Tensor) -> Tensor:
    """KL of ``q ∝ p e^ratio`` to each of R laws p, for m ratios: (R, K) and (m, K) give (m, R), by matrix products.

    Steps that tell their states apart by less than one nat: ``(Σ p φ(r) − φ(s))/(1 + ε)`` with
    ``ε = Σ p expm1(r)``, ``s = log1p(ε)`` and φ(u) = u·eᵘ − expm1(u). Others: ``Σ p r eʳ / Σ p eʳ − log Σ p eʳ`` with the
    largest r at 0. Where that underflows, term by term.
    """
    prior = torch.exp(log_prior)
    apart = ratio - ratio.amax(1, keepdim=True)
    height = torch.exp(apart)
    total = height @ prior.T
    product = torch.where(height > 0, height * apart, 0.0) @ prior.T
    kl = product / total - total.log()
    near = torch.nonzero(apart.amin(1) >= -1.0)[:, 0]
    if len(near):
        small = ratio[near] - ratio[near, :1]
        excess = torch.expm1(small) @ prior.T
        gain = kl_integrand(small) @ prior.T - kl_integrand(torch.log1p(excess))
        kl[near] = gain / (1 + excess)
    lost = torch.nonzero((total < _UNDERFLOW).any(1))[:, 0]
    if len(lost):
        own = log_posterior_ratio(log_prior, ratio[lost][:, None, :])
        kl[lost] = kl_of_log_ratio(log_prior.expand_as(own), own)
    return kl.clamp(min=0.0)


def _each_kl(log_prior: Tensor, ratio: Tensor, by_products: bool) -> Tensor:
    """KL of ``q ∝ p e^ratio`` to each of the laws p, (…, K), for m ratios (m, K): (m, …)."""
    if by_products:
        return _many_kl(log_prior.flatten(0, -2), ratio).reshape(len(ratio), *log_prior.shape[:-1])
    own = log_posterior_ratio(
        log_prior, ratio.reshape(len(ratio), *[1] * (log_prior.ndim - 1), ratio.shape[1])
    )
    return kl_of_log_ratio(log_prior.expand_as(own), own)


def path_kl(m: Messages) -> Tensor:
    """KL of the whole path, (n,)."""
    total = kl_of_log_ratio(m.initial.log().expand_as(m.onward[:, 0]), _first(m))
    rows, steps = m.inner
    log_a = m.transition.log()
    by_products = len(rows) * log_a.numel() > _SMALL

    def add(chunk: slice) -> None:
        i, t = rows[chunk], steps[chunk]
        total.index_add_(0, i, _weighted(m.probs[i, t], _each_kl(log_a, m.onward[i, t + 1], by_products)))

    _in_chunks(len(rows), log_a.numel(), add)
    return total


def _first(m: Messages) -> Tensor:
    return log_posterior_ratio(m.initial.log(), m.onward[:, 0])


def _weighted(weight: Tensor, kl: Tensor) -> Tensor:
    """``Σ weight·kl``; what has no weight may be no number."""
    return torch.where(weight > 0, weight * kl, 0.0).flatten(1).sum(1)


def prior_marginals(initial: Array, transition: Array, length: int) -> Array:
    """``p(z_t = k)``, (T, K)."""
    marginals = np.empty((length, len(initial)))
    now = initial
    for t in range(length):
        marginals[t] = now
        now = now @ transition
    return marginals


def marginal_kl(m: Messages) -> Tensor:
    """KL of the marginal of every step, (n, T)."""
    length = m.ratio.shape[1]
    prior = prior_marginals(m.initial.cpu().numpy(), m.transition.cpu().numpy(), length)
    log_prior = torch.from_numpy(prior).to(m.probs.device).log()
    there = log_prior > -torch.inf
    log_ratio = torch.where(there, m.probs.log() - log_prior, 0.0)
    if bool(m.flat.any()):
        before = _flat_past(m.transition.cpu().numpy(), prior, m.ratio[m.flat].cpu().numpy())
        both = m.onward[m.flat] + torch.from_numpy(before).to(m.probs.device)
        log_ratio[m.flat] = log_posterior_ratio(log_prior, both)
    kl = kl_of_log_ratio(log_prior.expand_as(log_ratio), log_ratio)
    return torch.where(_within(m), kl, 0.0)


def _flat_past(transition: Array, prior: Array, ratio: Array) -> Array:
    """``log p(x_1 … x_{t−1} | z_t)`` up to a constant, by the reversed chain, as `flat_messages` does."""
    past = np.zeros_like(ratio)
    for t in range(1, ratio.shape[1]):
        joint = prior[t - 1][:, None] * transition
        # By the sum of the joint itself: each column of the reversed kernel sums to one.
        reverse = joint / np.where(prior[t] > 0, joint.sum(0), 1.0)
        past[:, t] = np.log1p(np.expm1(ratio[:, t - 1] + past[:, t - 1]) @ reverse)
    return past


def _within(m: Messages) -> Tensor:
    return torch.arange(m.ratio.shape[1], device=m.lengths.device) < m.lengths[:, None]


def conditional_kl(m: Messages) -> Tensor:
    """``E_Q KL(q(z_t | rest)‖p(z_t | rest))`` of every step, (n, T): given its neighbours, z_t ignores all others."""
    n, length, k = m.ratio.shape
    table = m.ratio.new_zeros(n, length)
    log_a, log_initial = m.transition.log(), m.initial.log()
    through = _normalised(log_a[:, None, :] + log_a.T[None, :, :])  # (before, after, now)
    start = _normalised(log_initial + log_a.T)  # (after, now)
    only = m.lengths == 1
    if bool(only.any()):
        own = log_posterior_ratio(log_initial, m.ratio[only, 0])
        table[only, 0] = kl_of_log_ratio(log_initial.expand_as(own), own)
    rows, steps = m.inner
    by_products = len(rows) * k**3 > _SMALL

    def ends(chunk: slice) -> None:
        i, t = rows[chunk], steps[chunk]
        leaving = m.probs[i, t][:, :, None] * m.transitions(i, t)  # (now, next)
        first, last = t == 0, t == m.lengths[i] - 2
        for chosen, log_prior, weight, at in (
            (first, start, leaving.sum(1), 0),
            (last, log_a, m.probs[i, t], 1),
        ):
            j, s = i[chosen], t[chosen] + at
            table[j, s] = _weighted(weight[chosen], _each_kl(log_prior, m.ratio[j, s], by_products))
        j, s = i[~last], t[~last]
        around = leaving[~last] @ m.transitions(j, s + 1)  # (before, after)
        table[j, s + 1] = _weighted(around, _each_kl(through, m.ratio[j, s + 1], by_products))

    _in_chunks(len(rows), k**2 if by_products else k**3, ends)
    return table


def _normalised(logs: Tensor) -> Tensor:
    total = torch.logsumexp(logs, -1, keepdim=True)
    return torch.where(total == -torch.inf, -torch.inf, logs - total)


def error_bound(m: Messages, kl: Tensor) -> Tensor:
    """Bound the absolute error of the three informations, (n,).

    If ``Σ_t λ_t(z_t)`` is right to E along every path, then every log ratio of posterior to prior, of the path or a
    part of it, is right to 2E; its KL moves by at most ``2E·e^{2E}·(E_Q|log q/p| + KL) + 4E²``, and
    ``E_Q|log q/p| ≤ KL + √(2 KL)`` (Pinsker). Marginal and conditional KLs are at most the joint one. E holds the
    errors of λ, with the reading of inputs as decimals, and of K + 8 operations on the message of each step.

    States of no more than ``e^−FAR`` are left out of E: paths of mass δ in all, without which any of the KLs differs by
    at most ``δ C + h(δ)``, h the entropy of a coin, C = −log of the least probable path: no KL is larger than that.
    """
    k = m.ratio.shape[2]
    known = torch.isfinite(m.onward) & m.counts
    most = torch.where(known, m.onward, -torch.inf).amax(2)
    least = torch.where(known, m.onward, torch.inf).amin(2)
    spread = torch.where(known.any(2), most - least, 0.0)
    spread = torch.where(m.flat[:, None], spread, 1 + spread)
    seen = torch.where(_within(m), spread, 0.0).sum(1) * bool(m.ratio.numel())
    silent = (m.ratio == 0).all(2).all(1)
    along_a_path = m.error.sum(1) + torch.where(silent, 0.0, (k + 8) * _EPS * seen)
    twice = 2 * along_a_path
    moved = twice * torch.exp(twice.clamp(max=700.0)) * (2 * kl + (2 * kl).sqrt()) + twice.square()
    if (int(m.lengths.sum()) - len(m.lengths)) * k**3 > _SMALL:  # matrix products, whose sums may cancel
        moved = moved + torch.where(silent, 0.0, 8 * _EPS * (m.lengths + seen))
    rare = -torch.where(m.transition > 0, m.transition, 1.0).min().log()
    largest = rare * (m.lengths - 1).clamp(min=0) - torch.where(m.initial > 0, m.initial, 1.0).min().log()
    missing = (~m.counts).sum((1, 2)).to(kl.dtype) * math.exp(-FAR)
    # True and computed KL alike; a conditional one is a difference of two.
    moved = moved + 4 * (missing * largest + torch.where(missing > 0, missing * (1 - missing.log()), 0.0))
    rounding = 16 * (k + m.lengths) * _EPS * kl + 2 * _EPS * largest * kl
    return torch.minimum(moved, largest) + rounding + _TINY


def chain_flatness(initial: Array, transition: Array, ratio: Array, error: Array) -> Flatness:
    """The moments of ``ℓ = Σ_t λ_t(z_t)`` under the prior chain, by forward recursions.

    With λ centred under the marginal p_t and ``m_t(k) = E[S_t; z_t = k]``, S_t the sum so far:
    ``Var_t = Var_{t−1} + 2 Σ_k (m_{t−1}A)_k λ_t(k) + Σ_k p_t(k) λ_t(k)²``. The oscillation is the difference of the
    most and the least that a path of positive probability collects.

    Args:
        initial, transition: the chain.
        ratio: λ by the second formula of the emission, (n, T, K).
        error: its bound, (n, T).
    """
    n, length, k = ratio.shape
    marginals, support = prior_marginals(initial, transition, length), initial > 0
    everywhere = bool(support.all() and (transition > 0).all())
    moment, variance, spread = np.zeros((n, k)), np.zeros(n), np.zeros(n)
    high = np.where(support, 0.0, -np.inf) + np.zeros((n, k))
    low = -high
    allowed = np.where(transition > 0, 0.0, -np.inf)
    infinite = np.zeros(n, dtype=bool)
    reached = np.zeros(n)
    with np.errstate(invalid="ignore"):
        for t in range(length):
            p = marginals[t]
            if t:
                moment = moment @ transition
                support = support @ (transition > 0)
            value = np.where(support, ratio[:, t], 0.0)
            infinite |= ~np.isfinite(value).all(1)
            value = np.where(np.isfinite(value), value, 0.0)
            centred = value - (value @ p)[:, None]
            own = centred**2 @ p
            variance += 2 * (moment * centred).sum(1) + own
            spread += np.sqrt(own)
            moment = moment + p * centred
            if everywhere:
                reached += value.max(1) - value.min(1)
            else:
                if t:
                    high = (high[:, :, None] + allowed).max(1)
                    low = (low[:, :, None] - allowed).min(1)
                high, low = high + value, low + value
    if not everywhere:
        reached = high.max(1) - low.min(1)
    worst = error.sum(1)
    rounding = 16 * (length + k) * _EPS
    return Flatness(
        variance=torch.from_numpy(np.where(infinite, np.inf, variance.clip(min=0.0))),
        variance_error=torch.from_numpy(
            2 * np.sqrt(variance.clip(min=0.0)) * worst + worst**2 + rounding * spread**2 + _TINY
        ),
        oscillation=torch.from_numpy(np.where(infinite, np.inf, reached * (1 + rounding) + 2 * worst)),
    )

"""Adaptive Gauss–Lobatto integration of many one-dimensional posteriors at once, each with a stated error.

What is integrated is a pair (log prior density, log-likelihood) on each of a batch of lines. The nodes and weights
make a *discrete* law with an exact Bayes' rule of its own, whose KL is a sum of non-negative terms; refinement
drives that law to the continuous one. The error has two parts: quadrature (what the Legendre coefficients of each
integrand leave over on each cell) and rounding (what the given log densities cannot know about themselves).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from identkit.posterior.locate import DEPTH

EPSILON = 2.220446049250313e-16
#: Nodes per cell: two cells hold a Gaussian, and see that they do, to 1e-12.
NODES = 48
_ROUNDS = 70
# From this round on cells are not split for what rounding noise alone explains.
_PATIENCE = 4
_CELL_LIMIT = 1500
# Cells are not searched for hidden peaks below this share of the first ones.
_FINEST = 2.0**-12

# Lobatto's nodes include both ends of a cell: a jump cannot hide in the strip before the first node.
_inner = np.polynomial.legendre.Legendre.basis(NODES - 1).deriv().roots().real
_x = np.concatenate([[-1.0], np.sort((_inner - _inner[::-1]) / 2), [1.0]])
_w = 2 / (NODES * (NODES - 1) * np.polynomial.legendre.Legendre.basis(NODES - 1)(_x) ** 2)
_POINTS = torch.from_numpy((_x + 1) / 2)
_LOG_WEIGHTS = torch.from_numpy(np.log(_w))


def _legendre(degrees: range) -> Tensor:
    """Matrix (nodes, degrees) from weighted node values to Legendre coefficients times the cell's width."""
    table = np.polynomial.legendre.legvander(_x, NODES - 1)[:, degrees]
    return torch.from_numpy(table * (2 * np.array(degrees) + 1))


_LAST = _legendre(range(NODES - 5, NODES - 1))
_MIDDLE_AND_LAST = torch.cat([_legendre(range(NODES // 2 - 4, NODES // 2)), _LAST], 1) * torch.from_numpy(_w)[:, None] / 2
_NOISE_LIMIT = 1e-7
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
    """``p·(u·eᵘ − expm1(u))`` with u = log q/p: relatively accurate, whether u is 1e-15, −∞ or 1e7 (theory/T4)."""
    u = ratio.clamp(-1.0, 1.0)
    series = u * u * (1 / 2 + u * (1 / 3 + u * (1 / 8 + u * (1 / 30 + u * (1 / 144 + u / 840)))))
    rise = torch.expm1(u)
    middle = u * rise - (rise - u)
    # From |u| = 1 on nothing cancels any more, and q is formed by itself: eᵘ may overflow where p underflows.
    far = torch.where(posterior > 0, posterior * (ratio - 1), 0.0) + prior
    near = torch.where(u.abs() < 0.02, series, middle)
    return torch.where(ratio.abs() < 1, prior * near, far)


def bayes(owner: Tensor, count: int, log_weight: Tensor, values: Values) -> Law:
    """Bayes' rule on nodes: ``q = p·e^ℓ / Σ p·e^ℓ``, cancellation-free also where ℓ is all but constant.

    Args:
        owner: (c,) the problem of each row of nodes. count: number of problems m.
        log_weight: (c, N). values: of shape (c, N).
    """

    def total(nodes: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64).index_add_(0, owner, nodes.sum(-1))

    def highest(nodes: Tensor) -> Tensor:
        top = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce_(0, owner, nodes.amax(-1), "amax")
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
        # One Newton step on log Z: Σ p·expm1(ℓ − log Z) = 0 holds to the last digit of the *differences* of ℓ.
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
    kl_error = (spread * square).sqrt() + square + 4 * EPSILON * kl
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


def with_rounding(values: Values, t: Tensor, rounding: Tensor) -> tuple[Values, Tensor]:
    """Add to the errors of fresh cells what the nodes' own rounding and the noise of the log densities amount to.

    Returns:
        The values, and by how much ℓ may wander between the nodes of each cell, (c,).
    """
    step = (t[:, 1:] - t[:, :-1]).abs()
    nearer = torch.cat([step[:, :1], torch.minimum(step[:, 1:], step[:, :-1]), step[:, -1:]], 1)
    grain = rounding / torch.maximum(nearer, rounding).clamp(min=1e-300)
    added = []
    for heights in (values.log_prior, values.log_likelihood):
        change = (heights[:, 1:] - heights[:, :-1]).abs().nan_to_num(0.0, 0.0, 0.0)
        steepest = torch.cat([change[:, :1], torch.maximum(change[:, 1:], change[:, :-1]), change[:, -1:]], 1)
        wander, noise = _noise(heights)
        added.append(steepest * grain + noise)
    errors = {"prior_error": values.prior_error + added[0], "error": values.error + added[1]}
    # Rounding alone makes an ℓ of -1e18 wander by hundreds of nats.
    rounded = 256 * EPSILON * values.log_likelihood.abs().nan_to_num(0.0, 0.0, 0.0).amax(1)
    return replace(values, **errors), wander[:, 0] - rounded


def _noise(heights: Tensor) -> tuple[Tensor, Tensor]:
    """Measure what a log density's last Legendre coefficients on each cell hold, and how much of it is noise: (c, 1).

    A sum such as log C(n, x) + x·log p + (n − x)·log(1 − p) is far noisier than its own size tells. Noise has
    coefficients that do not decay, a smooth function or a kink has not; noise above 1e-7 is not believed.
    """
    centred = (heights - heights[:, NODES // 2, None]).nan_to_num(0.0, 0.0, 0.0)
    coefficients = (centred @ _MIDDLE_AND_LAST).abs()
    middle, last = coefficients[:, :4].amax(1, keepdim=True), coefficients[:, 4:].amax(1, keepdim=True)
    return last, torch.where((last > 0.7 * middle) & (last < _NOISE_LIMIT), last, 0.0)


def leftover(nodes: Tensor) -> Tensor:
    """Bound the error of Gauss–Lobatto on each cell by the last Legendre coefficients of the integrand there.

    They are much larger than the error of a smooth integrand, and nothing is made of that: of one that is smooth
    but for a small kink they are not.

    Args:
        nodes: (c, N) weighted values, whose sum is the integral.
    """
    return 1.5 * (nodes @ _LAST).abs().amax(1)


def refine(
    evaluate: Callable[[Tensor, Tensor], Values],
    place: Callable[[Tensor], tuple[Tensor, Tensor]],
    cells: tuple[Tensor, Tensor, Tensor],
    count: int,
    tolerance: float,
    first: Values | None = None,
) -> tuple[Values, Tensor, Tensor]:
    """Integrate over the line, cell by cell, halving cells until every integral meets the tolerance.

    ``log M = log ∫ p``, ``log Z = log ∫ p·e^ℓ − log M``, ``KL(Q‖P)`` and ``E_Q[terms]`` for each problem.

    Args:
        evaluate: (problem, t) → values at flat points.
        place: t → the latent's value there, and the rounding of t that its float has.
        cells: flat problem, left and right end, in rising order within a problem.
        count: number of problems m.
        tolerance: relative to each KL and expectation; absolute for log Z.
        first: the values at the cells' nodes, if they are known.

    Returns:
        The integrals, with the KL as the last of the `terms`; the mean and sd of the latent, each (m,). An error
        that misses the tolerance is stated, not raised.
    """
    owner, left, right = cells
    values = _at_nodes(evaluate, owner, left, right) if first is None else first
    values, wander = with_rounding(values, nodes_of(left, right), place(nodes_of(left, right))[1])
    result = _nothing(count, values.terms.shape[-1] + 1)
    mean, sd = torch.zeros(2, count, dtype=torch.float64)
    pending = torch.ones(count, dtype=torch.bool)
    span = torch.zeros(count, dtype=torch.float64).scatter_reduce_(0, owner, right - left, "amax")
    for round_ in range(_ROUNDS):
        law = bayes(owner, count, torch.log((right - left)[:, None] / 2) + _LOG_WEIGHTS, values)
        local = torch.stack([leftover(nodes) for nodes in _integrands(owner, law, values)], 1)
        missing = torch.zeros(count, local.shape[1], dtype=torch.float64).index_add_(0, owner, local)
        goals = torch.cat(
            [
                (tolerance + law.mass_error)[:, None],
                (tolerance + law.evidence_error)[:, None],
                (tolerance * law.kl + law.kl_error)[:, None],
                tolerance * law.terms.abs() + law.term_errors,
            ],
            1,
        )
        number = torch.bincount(owner, minlength=count)
        hiding = _hiding(owner, count, values, wander) & (right - left > span[owner] * _FINEST)
        hidden = torch.bincount(owner[hiding], minlength=count) > 0
        met = ((missing <= goals).all(1) & ~hidden) | (number > _CELL_LIMIT) | (number == 0) | (round_ == _ROUNDS - 1)
        fixed = right - left <= 128 * EPSILON * torch.maximum(left.abs(), right.abs())
        split = ~met[owner] & ~fixed & (((local / goals[owner]).amax(1) * number[owner] > 0.5) | hiding)
        if round_ >= _PATIENCE:
            split &= (local > 10 * _floors(owner, law, values)).any(1) | hiding
        done = pending & (met | (torch.bincount(owner[split], minlength=count) == 0))
        if done.any():
            _store(result, law, missing, done)
            last = torch.nonzero(done[owner])[:, 0]
            moments = _moments(owner[last], count, law.posterior[last], place(nodes_of(left[last], right[last]))[0])
            mean[done], sd[done] = moments[0][done], moments[1][done]
            pending &= ~done
        if not pending.any():
            break
        old, new = torch.nonzero(pending[owner] & ~split)[:, 0], torch.nonzero(pending[owner] & split)[:, 0]
        # Every third round halves in any case, so that a kink seen where there is none delays little.
        isolate = round_ % 3 < 2
        fresh = _smaller(owner[new], left[new], right[new], values.map(lambda v, new=new: v[new]), isolate)
        t = nodes_of(*fresh[1:])
        born, born_wander = with_rounding(_at_nodes(evaluate, *fresh), t, place(t)[1])
        values = Values.cat([values.map(lambda v, old=old: v[old]), born])
        wander = torch.cat([wander[old], born_wander])
        owner, left, right = (torch.cat([a[old], b]) for a, b in zip((owner, left, right), fresh, strict=True))
    return result, mean, sd


def nodes_of(left: Tensor, right: Tensor) -> Tensor:
    """The Gauss–Lobatto points of each cell, (c, N)."""
    return left[:, None] + (right - left)[:, None] * _POINTS


def _at_nodes(evaluate: Callable[[Tensor, Tensor], Values], owner: Tensor, left: Tensor, right: Tensor) -> Values:
    t = nodes_of(left, right)
    flat = evaluate(owner.repeat_interleave(NODES), t.flatten())
    return flat.map(lambda v: v.reshape(*t.shape, *v.shape[1:]))


def _smaller(owner: Tensor, left: Tensor, right: Tensor, values: Values, isolate: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Halve cells; those with a kink or a jump between smooth parts are cut on either side of it instead."""
    low = high = (left + right) / 2
    if isolate:
        at = _kink(left, right, values.log_prior)
        at = torch.where(at < 0, _kink(left, right, values.log_likelihood), at)
        t = nodes_of(left, right)
        low = torch.where(at < 0, low, t.gather(1, (at - 1).clamp(min=0)[:, None])[:, 0])
        high = torch.where(at < 0, high, t.gather(1, (at + 1).clamp(min=1)[:, None])[:, 0])
    edges = torch.stack([left, low, high, right])
    begin, end = edges[:-1].flatten(), edges[1:].flatten()
    real = end > begin
    return owner.repeat(3)[real], begin[real], end[real]


def _kink(left: Tensor, right: Tensor, heights: Tensor) -> Tensor:
    """The node at which the slope of a log density jumps while it bends evenly elsewhere, or −1, (c,)."""
    t = nodes_of(left, right)
    heights = heights.nan_to_num(0.0, 0.0, 0.0)
    step = t[:, 1:] - t[:, :-1]
    slope = (heights[:, 1:] - heights[:, :-1]) / step
    reach = step[:, 1:] + step[:, :-1]
    bend = (slope[:, 1:] - slope[:, :-1]) / reach
    # Nodes three away see nothing of the kink, which lies between this one and a neighbour.
    around = torch.arange(NODES - 2)
    usual = (bend[:, (around - 3).clamp(min=0)] + bend[:, (around + 3).clamp(max=NODES - 3)]) / 2
    jump = (bend - usual).abs() * reach
    floor = 1e4 * EPSILON * heights.abs().amax(1, keepdim=True) / torch.minimum(step[:, 1:], step[:, :-1])
    jump = torch.where(jump > floor, jump, 0.0)
    most, at = jump.max(1)
    return torch.where(most > 30 * jump.median(1).values, at + 1, -1)


def _moments(owner: Tensor, count: int, posterior: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.zeros(count, dtype=torch.float64).index_add_(0, owner, (posterior * point).sum(1))
    square = posterior * (point - mean[owner, None]).square()
    return mean, torch.zeros(count, dtype=torch.float64).index_add_(0, owner, square.sum(1)).clamp(min=0).sqrt()


def _integrands(owner: Tensor, law: Law, values: Values) -> list[Tensor]:
    """Everything whose integral must converge: mass, evidence relative to it, KL, and the expectations.

    Those under Q are centred: what an error of log Z does to them is then part of the integrand's own error.
    """
    terms = [
        torch.where(law.posterior > 0, law.posterior * (values.terms[..., i] - law.terms[owner, None, i]), 0.0)
        for i in range(values.terms.shape[-1])
    ]
    return [law.prior, law.gap, law.kl_density - law.kl[owner, None] * law.posterior, *terms]


def _hiding(owner: Tensor, count: int, values: Values, wander: Tensor) -> Tensor:
    """Whether a cell may hide a peak of the joint density: ℓ is not resolved there, and might rise high enough."""
    joint = joint_heights(owner, count, values).amax(1)
    top = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce_(0, owner, joint, "amax")
    return (wander > 1) & (joint + 10 * wander > top[owner] - DEPTH)


def joint_heights(owner: Tensor, count: int, values: Values) -> Tensor:
    """log p + ℓ on nodes (c, N), above the highest ℓ of each problem."""
    likelihood = torch.where(values.log_prior > -math.inf, values.log_likelihood, -math.inf)
    best = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce_(0, owner, likelihood.amax(1), "amax")
    best = torch.where(best.isfinite(), best, 0.0)
    return torch.where(likelihood > -math.inf, values.log_prior + (likelihood - best[owner, None]), -math.inf)


def _floors(owner: Tensor, law: Law, values: Values) -> Tensor:
    """What rounding leaves of each cell's integrals, in the order of `_integrands`, (c, 3 + T)."""
    blur = torch.where(law.posterior > 0, law.posterior * (values.error + values.prior_error), 0.0)
    ratio = torch.where(law.posterior > 0, (law.ratio - law.kl[owner, None]).abs(), 0.0)
    terms = [
        blur * torch.where(blur > 0, (values.terms[..., i] - law.terms[owner, None, i]).abs(), 0.0)
        + law.posterior * torch.where(blur > 0, values.term_errors[..., i], 0.0)
        for i in range(values.terms.shape[-1])
    ]
    square = torch.where(blur > 0, blur * values.error, 0.0)
    prior = torch.where(law.prior > 0, law.prior * values.prior_error, 0.0)
    parts = [prior, blur + prior, blur * ratio + square + EPSILON * law.kl_density, *terms]
    return torch.stack([part.sum(1) for part in parts], 1)


def _nothing(count: int, size: int) -> Values:
    zero, none = torch.zeros(count, dtype=torch.float64), torch.full((count,), -math.inf, dtype=torch.float64)
    table = torch.zeros(count, size, dtype=torch.float64)
    return Values(none, zero, none.clone(), zero.clone(), table, table.clone())


def _store(result: Values, law: Law, missing: Tensor, done: Tensor) -> None:
    result.log_prior[done] = law.log_mass[done]
    result.prior_error[done] = (law.mass_error + missing[:, 0])[done]
    result.log_likelihood[done] = law.log_evidence[done]
    result.error[done] = (law.evidence_error + missing[:, 1])[done]
    result.terms[done] = torch.cat([law.terms, law.kl[:, None]], 1)[done]
    errors = torch.cat([law.term_errors + missing[:, 3:], (law.kl_error + missing[:, 2])[:, None]], 1)
    result.term_errors[done] = errors[done]

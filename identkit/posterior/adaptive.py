"""Adaptive Gauss–Lobatto integration of many one-dimensional posteriors at once, each with a stated error.

What is integrated is a pair (log prior density, log-likelihood) on each of a batch of lines. The error has
two parts: quadrature (what the Legendre coefficients of each integrand leave over on each cell) and
rounding (what the given log densities cannot know about themselves).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from identkit.posterior.bayes import EPSILON, Law, Values, bayes, joint_heights
from identkit.posterior.layout import Cells
from identkit.posterior.locate import BLUR, DEPTH, parabola

#: Nodes per cell: two cells hold a Gaussian, and see that they do, to 1e-12.
NODES = 48
_ROUNDS = 70
# From this round on cells are not split for what rounding noise alone explains.
_PATIENCE = 4
_CELL_LIMIT = 1500
#: Cells held at a time, 100 MB of nodes and what is computed on them: more are worked off in groups of lines.
CELLS_AT_ONCE = 8192
# Cells are not searched for hidden peaks below this share of the first ones.
_FINEST = 2.0**-12
# A latent that runs to 1e200 runs to infinity. The power of its tail is read off this far apart in log distance, and one
# whose moment comes closer than this to having none has none. What is left of a moment at the last node, in logs and
# relative to it, tells tails that are powers from ends that are none.
_ENDLESS, _TAIL, _DIVERGING, _ENDED = 1e200, 4.0, 1e-3, -30.0

# Lobatto's nodes include both ends of a cell: a jump cannot hide in the strip before the first node.
_inner = np.polynomial.legendre.Legendre.basis(NODES - 1).deriv().roots().real
_x = np.concatenate([[-1.0], np.sort((_inner - _inner[::-1]) / 2), [1.0]])
_w = 2 / (NODES * (NODES - 1) * np.polynomial.legendre.Legendre.basis(NODES - 1)(_x) ** 2)
_POINTS = torch.from_numpy((_x + 1) / 2)
_LOG_WEIGHTS = torch.from_numpy(np.log(_w))


Evaluate = Callable[[Tensor, Tensor], Values]
"""``evaluate(problem, t)``, two (m,) tensors → the values there."""


def _legendre(degrees: range) -> Tensor:
    """Matrix (nodes, degrees) from weighted node values to Legendre coefficients times the cell's width."""
    table = np.polynomial.legendre.legvander(_x, NODES - 1)[:, degrees]
    return torch.from_numpy(table * (2 * np.array(degrees) + 1))


_LAST = _legendre(range(NODES - 5, NODES - 1))
_MIDDLE_AND_LAST = (
    torch.cat([_legendre(range(NODES // 2 - 4, NODES // 2)), _LAST], 1) * torch.from_numpy(_w)[:, None] / 2
)
_NOISE_LIMIT = 1e-7


def refine(
    evaluate: Evaluate,
    place: Callable[[Tensor], tuple[Tensor, Tensor]],
    cells: Cells,
    values: Values,
    count: int,
    tolerance: float,
) -> tuple[Values, Tensor, Tensor]:
    """Integrate over the line, cell by cell, halving cells until every integral meets the tolerance.

    ``log M = log ∫ p``, ``log Z = log ∫ p·e^ℓ − log M``, ``KL(Q‖P)`` and ``E_Q[terms]`` for each problem.

    Args:
        evaluate: (problem, t) → values at flat points.
        place: t → the latent's value there, and the rounding of t that its float has.
        cells: the first cells, and values: those at their nodes, (c, N).
        count: number of problems m.
        tolerance: relative to each KL and expectation; absolute for log Z.

    Returns:
        The integrals, with the KL as the last of the `terms`; the mean and sd of the latent, each (m,). An
        error that misses the tolerance is stated, not raised.
    """
    owner, left, right = cells
    values, wander = _with_rounding(values, nodes_of(left, right), place(nodes_of(left, right))[1])
    result = _nothing(count, values.terms.shape[-1] + 1)
    mean, sd = torch.zeros(2, count, dtype=torch.float64)
    span = torch.zeros(count, dtype=torch.float64).scatter_reduce_(0, owner, right - left, "amax")
    answer = _Answer(result, mean, sd, span)
    every = torch.ones(count, dtype=torch.bool)
    _climb(evaluate, place, cells, values, wander, answer, every, [], tolerance)
    return result, mean, sd


@dataclass(frozen=True)
class _Answer:
    """The tables that lines fill in when they are done, and the first span of each line."""

    integrals: Values
    mean: Tensor
    sd: Tensor
    span: Tensor


def _climb(
    evaluate: Evaluate,
    place: Callable[[Tensor], tuple[Tensor, Tensor]],
    cells: Cells,
    values: Values,
    wander: Tensor,
    answer: _Answer,
    pending: Tensor,
    progress: list[Tensor],
    tolerance: float,
) -> None:
    """Halve cells of the pending lines until they are done; where they become too many, half of the lines first.

    `progress` has an entry for each round so far.
    """
    owner, left, right = cells
    count, span = len(pending), answer.span
    for round_ in range(len(progress), _ROUNDS):
        if len(owner) > CELLS_AT_ONCE and int(pending.sum()) > 1:
            waiting = torch.nonzero(pending)[:, 0]
            for group in waiting.tensor_split(2):
                own = torch.zeros_like(pending)
                own[group] = True
                mine = own[owner]
                panels = (owner[mine], left[mine], right[mine])
                picked = values.map(lambda v, mine=mine: v[mine])
                _climb(evaluate, place, panels, picked, wander[mine], answer, own, list(progress), tolerance)
            return
        law = bayes(owner, count, torch.log((right - left)[:, None] / 2) + _LOG_WEIGHTS, values)
        local = torch.stack([_leftover(nodes) for nodes in _integrands(owner, law, values)], 1)
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
        progress.append(_parts(missing, goals))
        coarse = right - left > span[owner] * _FINEST
        hiding, crests = _hiding(owner, count, left, right, values, wander, coarse)
        hidden = torch.bincount(owner[hiding], minlength=count) > 0
        if round_ >= 2 * _PATIENCE:
            # Noise that the estimates of rounding do not foresee: smaller cells do not lessen it.
            stalled = ~hidden & (progress[-1] > 0.5 * progress[-1 - _PATIENCE])
            number = torch.where(stalled, _CELL_LIMIT + 1, number)
        met = (
            ((missing <= goals).all(1) & ~hidden)
            | (number > _CELL_LIMIT)
            | (number == 0)
            | (round_ == _ROUNDS - 1)
        )
        fixed = right - left <= 128 * EPSILON * torch.maximum(left.abs(), right.abs())
        split = ~met[owner] & ~fixed & ((_parts(local, goals[owner]) * number[owner] > 0.5) | hiding)
        if round_ >= _PATIENCE:
            split &= (local > 10 * _floors(owner, law, values)).any(1) | hiding
        done = pending & (met | (torch.bincount(owner[split], minlength=count) == 0))
        if done.any():
            _store(answer.integrals, law, missing, done)
            last = torch.nonzero(done[owner])[:, 0]
            t = nodes_of(left[last], right[last])
            unbounded = place(torch.tensor([-math.inf, math.inf], dtype=torch.float64))[0].abs() > _ENDLESS
            heights = _log_density(owner[last], law, values.map(lambda v, last=last: v[last]))
            moments = _moments(owner[last], count, law.posterior[last], place(t)[0], heights, unbounded)
            answer.mean[done], answer.sd[done] = moments[0][done], moments[1][done]
            pending = pending & ~done
        if not pending.any():
            return
        old, new = torch.nonzero(pending[owner] & ~split)[:, 0], torch.nonzero(pending[owner] & split)[:, 0]
        # Every third round halves in any case, so that a kink seen where there is none delays little.
        isolate = round_ % 3 < 2
        born_of = values.map(lambda v, new=new: v[new])
        fresh = _smaller((owner[new], left[new], right[new]), born_of, crests[new], isolate)
        t = nodes_of(*fresh[1:])
        born, born_wander = _with_rounding(at_nodes(evaluate, fresh), t, place(t)[1])
        values = Values.cat([values.map(lambda v, old=old: v[old]), born])
        wander = torch.cat([wander[old], born_wander])
        owner, left, right = (
            torch.cat([a[old], b]) for a, b in zip((owner, left, right), fresh, strict=True)
        )


def _parts(error: Tensor, goals: Tensor) -> Tensor:
    """The largest part of its goal that an error has; none is none even of the goal 0, as of a slope that is 0."""
    return torch.where(error > 0, error / goals, 0.0).amax(1)


def nodes_of(left: Tensor, right: Tensor) -> Tensor:
    """The Gauss–Lobatto points of each cell, (c, N)."""
    return left[:, None] + (right - left)[:, None] * _POINTS


def at_nodes(evaluate: Evaluate, cells: Cells) -> Values:
    """The values at the nodes of cells, (c, N)."""
    owner, left, right = cells
    t = nodes_of(left, right)
    flat = evaluate(owner.repeat_interleave(NODES), t.flatten())
    return flat.map(lambda v: v.reshape(*t.shape, *v.shape[1:]))


def _with_rounding(values: Values, t: Tensor, rounding: Tensor) -> tuple[Values, Tensor]:
    """Add to the errors of fresh cells what their nodes' rounding and the log densities' noise amount to.

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
    """Measure a log density's last Legendre coefficients on each cell, and how much of them is noise: (c, 1).

    A sum such as log C(n, x) + x·log p + (n − x)·log(1 − p) is far noisier than its own size tells. Noise has
    coefficients that do not decay, a smooth function or a kink has not; noise above 1e-7 is not believed.
    """
    centred = (heights - heights[:, NODES // 2, None]).nan_to_num(0.0, 0.0, 0.0)
    coefficients = (centred @ _MIDDLE_AND_LAST).abs()
    middle, last = coefficients[:, :4].amax(1, keepdim=True), coefficients[:, 4:].amax(1, keepdim=True)
    return last, torch.where((last > 0.4 * middle) & (last < _NOISE_LIMIT), last, 0.0)


def _leftover(nodes: Tensor) -> Tensor:
    """Bound the error of Gauss–Lobatto on each cell by the last Legendre coefficients of the integrand there.

    They are much larger than the error of a smooth integrand, and nothing is made of that: of one that is
    smooth but for a small kink they are not.

    Args:
        nodes: (c, N) weighted values, whose sum is the integral.
    """
    return 1.5 * (nodes @ _LAST).abs().amax(1)


def _smaller(cells: Cells, values: Values, crests: Tensor, isolate: bool) -> Cells:
    """Halve cells; cut those with a kink or a jump on either side of it, and those with a crest around that."""
    owner, left, right = cells
    middle = (left + right) / 2
    if isolate:
        kink = _kink(left, right, values.log_prior)
        kink = torch.where(kink < 0, _kink(left, right, values.log_likelihood), kink)
        t = nodes_of(left, right)
        low = torch.where(kink < 0, middle, t.gather(1, (kink - 1).clamp(min=0)[:, None])[:, 0])
        high = torch.where(kink < 0, middle, t.gather(1, (kink + 1).clamp(min=1)[:, None])[:, 0])
    else:
        low = high = middle
    cuts = torch.stack([low, high, high], 1)
    cuts = torch.where(crests.isfinite(), crests, cuts).clamp(left[:, None], right[:, None])
    edges = torch.cat([left[:, None], cuts, right[:, None]], 1)
    begin, end = edges[:, :-1].flatten(), edges[:, 1:].flatten()
    real = end > begin
    return owner.repeat_interleave(4)[real], begin[real], end[real]


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


def _log_density(owner: Tensor, law: Law, values: Values) -> Tensor:
    """log q(t) at the nodes of cells, (c, N)."""
    own = values.log_prior + (values.log_likelihood - (law.log_mass + law.log_evidence)[owner, None])
    return torch.where(law.log_evidence.isfinite()[owner, None], own, -math.inf).nan_to_num(
        -math.inf, -math.inf, -math.inf
    )


def _moments(
    owner: Tensor, count: int, posterior: Tensor, point: Tensor, heights: Tensor, unbounded: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean and sd of the latent on each line, ±∞ or NaN where it has none.

    Beyond the last node R of an unbounded side a tail is a power, ``q(u) = q(R)·e^−a(u − log R)`` in the logarithm u of
    the distance, and holds ``R^k q(R)/(a − k)`` of the k-th moment, which is infinite for a ≤ k.

    Args:
        owner: (c,) the problem of each cell; count of them.
        posterior: (c, N) masses of the nodes.
        point: (c, N) the latent there, and heights: log q(t).
        unbounded: (2,) whether the latent runs to −∞, and to ∞.
    """

    def total(nodes: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.float64).index_add_(0, owner, nodes.sum(1))

    mean = total(torch.where(posterior > 0, posterior * point, 0.0))
    away = point - mean[owner, None]
    square = total(torch.where(posterior > 0, posterior * away.square(), 0.0)).clamp(min=0)
    own = (total(torch.where(posterior > 0, posterior * away.abs(), 0.0)).log(), square.log())
    shift = torch.zeros_like(mean)
    for sign, endless in zip((-1.0, 1.0), unbounded.tolist(), strict=True):
        if endless:
            u = (sign * away).clamp(min=0).log()
            # q(u) = q(t) dt/du: the line itself is measured by the distance, a half line by its logarithm.
            first, second = _tails(owner, u, heights + u if bool(unbounded.all()) else heights, own)
            shift, square = shift + sign * first, square + second
    return mean + shift, (square - shift.square()).clamp(min=0).nan_to_num(math.inf, math.inf).sqrt()


def _tails(owner: Tensor, u: Tensor, heights: Tensor, known: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """First and second moment of what lies beyond the last node of each line, (m,) each.

    Args:
        u: (c, N) logarithms of the distances on this side, −∞ on the other; heights: log q(u).
        known: the logarithms of both moments up to there, (m,) each.
    """

    def highest(nodes: Tensor) -> Tensor:
        found = torch.full_like(known[0], -math.inf)
        return found.scatter_reduce_(0, owner, nodes.amax(1), "amax")

    last = highest(u)
    before = highest(torch.where(u <= last[owner, None] - _TAIL, u, -math.inf))
    end, other = (highest(torch.where(u == at[owner, None], heights, -math.inf)) for at in (last, before))
    falls = (other - end) / (last - before)
    here = end.isfinite() & other.isfinite() & before.isfinite()
    moments = []
    for k, moment in zip((1, 2), known, strict=True):
        left = end + k * last
        beyond = torch.where(falls > k + _DIVERGING, torch.exp(left) / (falls - k), math.inf)
        moments.append(torch.where(here & (left > moment + _ENDED), beyond, 0.0))
    return moments[0], moments[1]


def _integrands(owner: Tensor, law: Law, values: Values) -> list[Tensor]:
    """Everything whose integral must converge: mass, evidence relative to it, KL, and the expectations.

    Those under Q are centred: what an error of log Z does to them is then part of the integrand's own error.
    """
    terms = [
        torch.where(
            law.posterior > 0, law.posterior * (values.terms[..., i] - law.terms[owner, None, i]), 0.0
        )
        for i in range(values.terms.shape[-1])
    ]
    return [law.prior, law.gap, law.kl_density - law.kl[owner, None] * law.posterior, *terms]


def _hiding(
    owner: Tensor,
    count: int,
    left: Tensor,
    right: Tensor,
    values: Values,
    wander: Tensor,
    coarse: Tensor,
) -> tuple[Tensor, Tensor]:
    """Whether a cell may hide a peak of the joint density between its nodes, (c,).

    Either ℓ is not resolved there and might rise enough (looked into in coarse cells only), or the parabola
    through the highest node and its neighbours does rise enough, and well above the nodes.

    Returns:
        With it, for the latter, that peak and ten widths either side of it, (c, 3), NaN elsewhere.
    """
    joint = joint_heights(owner, count, values)
    best, at = joint.max(1)
    top = torch.full((count,), -math.inf, dtype=torch.float64).scatter_reduce_(0, owner, best, "amax")
    floor = top[owner] - DEPTH
    at = at.clamp(1, NODES - 2)[:, None] + torch.arange(-1, 2)
    t = nodes_of(left, right).gather(1, at)
    vertex, width = parabola(list(t.T), list(joint.gather(1, at).T))
    rise = 0.5 * ((vertex - t[:, 1]) / width).square()
    crest = joint.gather(1, at)[:, 1] + rise.nan_to_num(0.0, 0.0, 0.0)
    size = values.log_likelihood.gather(1, at)[:, 1].abs().nan_to_num(0.0, 0.0, 0.0)
    inside = (vertex > left) & (vertex < right)
    sharper = inside & (crest > best + 1 + BLUR * size) & (crest > floor)
    crests = vertex[:, None] + 10 * width[:, None] * torch.arange(-1, 2)
    unsure = coarse & (wander > 1) & (best + 10 * wander > floor)
    return sharper | unsure, torch.where(sharper[:, None], crests, math.nan)


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

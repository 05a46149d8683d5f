"""Bell-shaped posteriors by equispaced rules: a tensor grid over the posterior, sheared to its shape.

For a smooth density with one peak, equal steps of 0.6 standard deviations are spectrally accurate, and
with a *triangular* shear ``t = m + L u`` the marginal of the first latent and the conditional of the last
are sums along axes of the grid. A posterior that is not like that says so: two grids half a step apart
differ, its edges are high, one of its peaks is far narrower than the whole. Such rows are left to adaptive quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from identkit.posterior.bayes import EPSILON, kl_density
from identkit.posterior.peaks import Peaked, peaks

Densities = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""rows (m,) and t (m, k) → log prior density and log-likelihood, (m,) each; twice differentiable in t."""

PriorOf = Callable[[tuple[int, ...], Tensor], Tensor]
"""columns and t (m, k) → log prior density (m,) of the latents in those columns, the others integrated out."""

_Grid = tuple[Tensor, tuple[Tensor, Tensor], Tensor]

# Steps and reaches in standard deviations, and in so many dimensions the error not worth adaptive quadrature.
_GRIDS = ((0.6, 7.8), (0.45, 9.45), (0.4, 14.0))
_WIDE = (0.25, 18.0)
_FINE = ((0.25, 10.0), (0.15, 9.0))
"""In three dimensions, for what is crooked or has several peaks."""
# Correlations so weak that the grid may as well stand upright: then one serves every order of the axes.
_UPRIGHT = 0.2
_ACCEPTED = {1: 1e-11, 2: 1e-9}
_ACCEPTED_BEYOND = 1e-7
# Where the finest grid leaves more than that open, three dimensions have nothing better to offer in seconds.
_STATED_BEYOND = 1e-4
_PILOTS = 2
_NODES_AT_ONCE = 1 << 18
_COVERED = 1e-12
# Millions of nodes lighter than this still weigh nothing that a mean would show.
_WEIGHTY = 1e-17


@dataclass(frozen=True)
class Bells:
    """What the grids found for each datum, informations in nats."""

    good: Tensor
    """(n,) whether the grids vouch for the datum; elsewhere the numbers mean nothing."""
    value: Tensor
    """(n, 2 + 2k): log p(x), KL, the k marginal KLs, the k conditional ones."""
    error: Tensor
    """Bounds on the absolute errors of `value`."""
    mean: Tensor
    """(n, r) of what `report` makes of t."""
    mean_error: Tensor
    """How far the two grids half a step apart leave `mean` open, twice over."""
    sd: Tensor
    origin: Tensor
    """(n, k) where each latent's marginal density begins to be tabulated, at equal steps;"""
    spacing: Tensor
    """(n, k) the steps;"""
    marginal: Tensor
    """(n, k, m) and the densities of t_j there, with zeros appended."""


@dataclass(frozen=True)
class _Problem:
    densities: Densities
    prior: PriorOf
    report: Callable[[Tensor, Tensor], Tensor]
    curves: bool


def bells(
    densities: Densities,
    prior: PriorOf,
    axes: Sequence[Tensor],
    n: int,
    report: Callable[[Tensor, Tensor], Tensor] = lambda rows, t: t,
    curves: bool = False,
) -> Bells:
    """Integrate n posteriors of a few latents on the real line, as far as they are smooth and have one peak.

    ``log p(x) = log Σ w p e^ℓ``, ``KL = Σ q log(q/p)``: a sum over an honest discrete law wherever the grid
    holds the prior as well, so that a constant ℓ gives exactly 0.

    Source: Trefethen & Weideman 2014, SIAM Review 56:385 (equal steps); Naylor & Smith 1982, Appl. Stat. 31:214
    (placing a grid by the posterior's moments).

    Args:
        densities: rows and t → log prior density and ℓ.
        prior: marginals of the prior, asked for where the posterior is much the narrower.
        axes: for each latent the points of a grid on which to look for peaks.
        n: number of data.
        report: rows and t (m, k) → the functions whose posterior mean and sd are wanted, (m, r).
        curves: whether to tabulate the marginal densities; without them `Bells.marginal` is (n, k, 0).

    >>> normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    >>> found = bells(
    ...     lambda rows, t: (normal.log_prob(t[:, 0]), normal.log_prob(1 - t[:, 0])),
    ...     lambda columns, t: normal.log_prob(t[:, 0]),
    ...     [torch.linspace(-3, 3, 7, dtype=torch.float64)], 1)
    >>> found.good, round(found.value[0, 1].item(), 12), round((0.25 - 0.5 + math.log(2)) / 2, 12)
    (tensor([True]), 0.22157359028, 0.22157359028)
    """
    problem = _Problem(densities, prior, report, curves)
    peaked = peaks(lambda rows, t: torch.add(*densities(rows, t)), axes, n)
    step, reach = _grids(len(axes))[-1]
    size = max(1, _NODES_AT_ONCE // (2 * round(reach / step) + 1) ** len(axes))
    parts = [_settled(problem, rows, peaked) for rows in torch.arange(n).split(size)]
    return Bells(*(torch.cat([getattr(p, field.name) for p in parts]) for field in fields(Bells)))


def _settled(problem: _Problem, rows: Tensor, peaked: Peaked) -> Bells:
    mean, covariance, good = peaked.top[rows], peaked.covariance[rows], peaked.together[rows].clone()
    k = mean.shape[1]
    for _ in range(_PILOTS):
        t, (log_prior, height), _ = _grid(problem, rows, mean, covariance, range(k), *_GRIDS[0], 0.0)
        weight = torch.softmax((log_prior + height).flatten(1), 1)
        t = t.reshape(len(rows), -1, k)
        mean = (weight[..., None] * t).sum(1)
        away = t - mean[:, None]
        covariance = (weight[..., None] * away).mT @ away
        spread = torch.linalg.eigvalsh(covariance.nan_to_num(0.0, 0.0, 0.0))
        sound = (spread[:, 0] > 1e-13 * spread[:, -1]) & mean.isfinite().all(1)
        good &= sound
        mean = torch.where(sound[:, None], mean, 0.0)
        covariance = torch.where(sound[:, None, None], covariance, torch.eye(k, dtype=torch.float64))
    value = torch.zeros(len(rows), 2 + 2 * k, dtype=torch.float64)
    error = torch.full_like(value, math.inf)
    accepted = _ACCEPTED.get(k, _ACCEPTED_BEYOND)
    width = problem.report(rows[:1], mean[:1]).shape[1]
    moments = torch.zeros(3, len(rows), width, dtype=torch.float64)
    most = max(len(_line(step, reach, 0.0)) for step, reach in _grids(k))
    curves = torch.zeros(len(rows), k, 2 * most if problem.curves else 0, dtype=torch.float64)
    origin, spacing = mean.clone(), covariance.diagonal(dim1=1, dim2=2).sqrt()
    covariance = _upright(covariance)
    for step, reach in _grids(k):
        open_ = torch.nonzero(good & (error > accepted * (1 + value.abs())).any(1))[:, 0]
        if len(open_):
            place = (rows[open_], mean[open_], covariance[open_])
            value[open_], error[open_], moments[:, open_], found = _measured(problem, *place, step, reach)
            if problem.curves:
                curves[open_] = torch.nn.functional.pad(found, (0, 2 * most - found.shape[-1]))
            sd = covariance[open_].diagonal(dim1=1, dim2=2).sqrt()
            origin[open_] = mean[open_] + _line(step, reach, 0.0)[0] * sd
            spacing[open_] = step / 2 * sd
    stated = accepted if k in _ACCEPTED else _STATED_BEYOND
    good &= (error <= stated * (1 + value.abs())).all(1)
    centre, open_centre, sd = moments
    return Bells(good, value, error, centre, open_centre, sd, origin, spacing, curves)


def _upright(covariance: Tensor) -> Tensor:
    """The covariances (r, k, k), those of weak correlations without these."""
    spread = covariance.diagonal(dim1=1, dim2=2)
    scale = (spread[:, :, None] * spread[:, None, :]).sqrt()
    off = (covariance / scale).abs() - torch.eye(covariance.shape[1], dtype=torch.float64)
    return torch.where(
        (off < _UPRIGHT).flatten(1).all(1)[:, None, None], torch.diag_embed(spread), covariance
    )


def _grids(k: int) -> tuple[tuple[float, float], ...]:
    return (*_GRIDS, _WIDE) if k in _ACCEPTED else (*_GRIDS, *_FINE)


def _measured(
    problem: _Problem, rows: Tensor, mean: Tensor, covariance: Tensor, step: float, reach: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The means of two grids half a step apart, which err in opposite directions, and what is left open.

    Returns:
        The informations, their errors, mean, its error and sd of the report, and the marginal densities on the
        nodes of both grids together.
    """
    k = mean.shape[1]
    tables, moments, error = [], [], torch.zeros(len(rows), 2 + 2 * k, dtype=torch.float64)
    curves = torch.zeros(len(rows), k, len(_line(step, reach, 0.0)), 2, dtype=torch.float64)
    upright = bool((covariance == torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))).all())
    for half, offset in enumerate((0.0, 0.5)):
        if upright:
            grid = _grid(problem, rows, mean, covariance, range(k), step, reach, offset)
        table = torch.zeros(len(rows), 2 + 2 * k, dtype=torch.float64)
        for first in range(k):
            order = [*range(first, k), *range(first)]
            if upright:
                t, logs, log_weight = _turned(grid, order)
            else:
                t, logs, log_weight = _grid(problem, rows, mean, covariance, order, step, reach, offset)
            own, blur, weight = _informations(problem.prior, order, t, logs, log_weight)
            table[:, 2 + first], table[:, 2 + k + order[-1]] = own[:, 2], own[:, 3]
            error[:, 2 + first] += blur[:, 2]
            error[:, 2 + k + order[-1]] += blur[:, 3]
            curves[:, first, :, half] = weight.flatten(2).sum(2) if k > 1 else weight
            curves[:, first, :, half] /= log_weight[:, :1].exp()
            if first == 0:
                table[:, :2] = own[:, :2]
                error[:, :2] += blur[:, :2]
                z = _reported(problem, rows, t.reshape(len(rows), -1, k), weight.flatten(1))
                centre = (weight.flatten(1)[..., None] * z).sum(1)
                square = (weight.flatten(1)[..., None] * (z - centre[:, None]).square()).sum(1)
                moments.append(torch.stack([centre, square.sqrt()]))
        tables.append(table)
    one, two = tables
    middle, open_ = (moments[0] + moments[1]) / 2, 2 * (moments[0][0] - moments[1][0]).abs()
    reported = torch.stack([middle[0], open_, middle[1]])
    return (one + two) / 2, error + 2 * (one - two).abs(), reported, curves.flatten(2)


def _reported(problem: _Problem, rows: Tensor, t: Tensor, weight: Tensor) -> Tensor:
    """What `report` makes of the nodes t (r, N, k), and 0 where all of them together have next to no mass, (r, N, …)."""
    row, node = torch.nonzero(weight > _WEIGHTY, as_tuple=True)
    found = problem.report(rows[row], t[row, node])
    answer = torch.zeros(*weight.shape, found.shape[1], dtype=torch.float64)
    answer[row, node] = found
    return answer


def _line(step: float, reach: float, offset: float) -> Tensor:
    """Nodes at equal steps, in standard deviations from the mean."""
    return step * (torch.arange(-round(reach / step), round(reach / step) + 1, dtype=torch.float64) + offset)


def _grid(
    problem: _Problem,
    rows: Tensor,
    mean: Tensor,
    covariance: Tensor,
    order: Sequence[int],
    step: float,
    reach: float,
    offset: float,
) -> _Grid:
    """Nodes (r, N, …, N, k) with axes in the given order, log p and ℓ there, and the log weight of each, (r,)."""
    k, order = mean.shape[1], list(order)
    factor = torch.linalg.cholesky(covariance[:, order][:, :, order])
    u = torch.stack(torch.meshgrid(*[_line(step, reach, offset)] * k, indexing="ij"), -1)
    nodes = torch.empty(len(rows), *u.shape, dtype=torch.float64)
    nodes[..., order] = torch.einsum("rij,...j->r...i", factor, u) + mean[:, order].reshape(-1, *[1] * k, k)
    every = rows.repeat_interleave(u[..., 0].numel())
    logs = [v.reshape(nodes.shape[:-1]) for v in problem.densities(every, nodes.reshape(-1, k))]
    logs = [v.nan_to_num(-math.inf, math.inf, -math.inf) for v in logs]
    log_steps = torch.log(step * factor.diagonal(dim1=1, dim2=2))
    return nodes, (logs[0], logs[1]), log_steps


def _turned(grid: _Grid, order: Sequence[int]) -> _Grid:
    """An upright grid with its axes in another order."""
    nodes, (log_prior, height), log_steps = grid
    dims = (0, *(1 + j for j in order))
    turned = log_prior.permute(dims), height.permute(dims)
    return nodes.permute(*dims, nodes.ndim - 1), turned, log_steps[:, list(order)]


def _informations(
    prior_of: PriorOf,
    order: Sequence[int],
    nodes: Tensor,
    logs: tuple[Tensor, Tensor],
    log_steps: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x), KL, the first latent's marginal KL, the last one's conditional KL; errors; the posterior.

    (r, 4), (r, 4) and (r, N, …, N); the errors are those of rounding and of mass beyond the grid.
    """
    log_prior, height = logs
    size, k = len(nodes), nodes.shape[-1]
    wide = (-1, *[1] * k)
    log_mass = log_prior + log_steps.sum(1).reshape(wide)
    best = height.flatten(1).amax(1).reshape(wide)
    level = torch.logsumexp((log_mass + (height - best)).flatten(1), 1).reshape(wide)
    ratio = height - best - level
    prior = torch.exp(log_mass)
    posterior = torch.exp(log_mass + ratio)
    mass = prior.flatten(1).sum(1)
    covered = (mass - 1).abs() < _COVERED
    lost = _faces(posterior)
    rounding = EPSILON * (8 + 4 * best.reshape(size).abs())
    table = torch.zeros(size, 4, dtype=torch.float64)
    table[:, 0] = (best + level).reshape(size)
    if covered.any():
        table[covered, 1:] = _discrete(prior[covered], height[covered])
    if not covered.all():
        few = ~covered
        inner = _narrow(prior_of, order, nodes[few], ratio[few], posterior[few], log_steps[few])
        table[few, 1:] = inner
    spread = (
        (posterior * (ratio - table[:, 1].reshape(wide)).nan_to_num(0.0, 0.0, 0.0).square()).flatten(1).sum(1)
    )
    # What a relative error ε of the integrand does to a KL is ε·sd(log q/p); alone a large KL feels its size.
    blur = torch.where(covered, rounding * spread.sqrt() + rounding.square(), rounding * (2 + table[:, 1]))
    # Beyond the grid lies about as much as on its faces, of the mass and of what makes a KL.
    depth = 1 + (1 + table[:, 1]).log()
    beyond = torch.where(
        covered, _faces(kl_density(prior, posterior, ratio)) + lost * table[:, 1], lost * depth
    )
    edges = torch.stack([lost, 4 * beyond, 4 * beyond, 4 * beyond], 1)
    error = torch.stack([rounding, blur, 2 * blur, 2 * blur], 1) + 40 * edges
    return table, error + 1e-300, posterior


def _discrete(prior: Tensor, height: Tensor) -> Tensor:
    """KL, marginal KL and conditional KL of discrete laws on the nodes, free of cancellation."""
    k, dims = prior.ndim - 1, tuple(range(1, prior.ndim))
    prior = prior / prior.sum(dims, keepdim=True)
    seen = prior > 0
    best = torch.where(seen, height, -math.inf).amax(dims, keepdim=True)
    centred = torch.where(seen, height - best, 0.0)
    centred = centred - (prior * centred).sum(dims, keepdim=True)
    near = centred.abs().amax(dims, keepdim=True) < 1
    shift = torch.where(
        near,
        torch.log1p((prior * torch.expm1(centred.clamp(-1.0, 1.0))).sum(dims, keepdim=True)),
        torch.logsumexp((prior.log() + centred).flatten(1), 1).reshape(-1, *[1] * k),
    )
    ratio = centred - shift
    posterior = torch.where(seen, torch.exp(prior.log() + ratio), 0.0)
    gap = torch.where(ratio.abs() < 1, prior * torch.expm1(ratio.clamp(-1.0, 1.0)), posterior - prior)

    def grouped(axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        if not axes:
            return prior, ratio
        mass, change, after = (part.sum(axes, keepdim=True) for part in (prior, gap, posterior))
        share = change / torch.where(mass > 0, mass, 1.0)
        # q − p serves where q is close to p; where little of p is left, 1 + share has lost the digits of q.
        near = torch.log1p(share.clamp(min=-0.5))
        own = torch.where(share > -0.5, near, torch.log(after) - torch.log(mass))
        return mass, torch.where(mass > 0, own, 0.0)

    mass, own = grouped(dims[1:])
    marginal = kl_density(mass, torch.where(mass > 0, torch.exp(mass.log() + own), 0.0), own)
    _, rest = grouped(dims[-1:])
    # Where the posterior has no mass at all its conditional there counts nothing.
    inside = seen & (rest > -math.inf)
    tilted = torch.where(inside, prior * torch.exp(rest), 0.0)
    given = kl_density(tilted, posterior, torch.where(inside, ratio - rest, 0.0))
    sums = [kl_density(prior, posterior, ratio), marginal, given]
    return torch.stack([part.flatten(1).sum(1) for part in sums], 1)


def _narrow(
    prior_of: PriorOf,
    order: Sequence[int],
    nodes: Tensor,
    ratio: Tensor,
    posterior: Tensor,
    log_steps: Tensor,
) -> Tensor:
    """The same where the prior reaches beyond the grid: densities against the prior's own marginals."""
    k, size = nodes.shape[-1], len(nodes)
    dims = tuple(range(1, k + 1))

    def against(kept: int) -> Tensor:
        """KL of the marginal of the first `kept` latents, (r,)."""
        inside = posterior.sum(dims[kept:]) if kept < k else posterior
        where = nodes[(..., *[0] * (k - kept), slice(None))]
        log_density = torch.log(inside) - log_steps[:, :kept].sum(1).reshape(-1, *[1] * kept)
        weighty = torch.nonzero(inside.flatten() > 1e-25)[:, 0]
        found = torch.zeros(inside.numel(), dtype=torch.float64)
        point = where.reshape(-1, k)[weighty]
        found[weighty] = log_density.flatten()[weighty] - prior_of(tuple(order[:kept]), point)
        return (inside.reshape(size, -1) * found.reshape(size, -1)).sum(1)

    joint = torch.where(posterior > 0, posterior * ratio, 0.0).flatten(1).sum(1)
    marginal = joint if k == 1 else against(1)
    rest = torch.zeros_like(joint) if k == 1 else marginal if k == 2 else against(k - 1)
    return torch.stack([joint, marginal, joint - rest], 1).clamp(min=0)


def _faces(posterior: Tensor) -> Tensor:
    """The mass on the outermost nodes, (r,)."""
    total = torch.zeros(len(posterior), dtype=torch.float64)
    for axis in range(1, posterior.ndim):
        for end in (0, -1):
            total += posterior.select(axis, end).reshape(len(posterior), -1).sum(1)
    return total

"""The quick road in three dimensions: which data the grids of `bell` settle, in the engine's own terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from identkit.model.protocol import Axis, Continuous
from identkit.posterior.bell import Bells, Densities, PriorOf, bells
from identkit.posterior.chart import Chart
from identkit.posterior.nested import Base, Level
from identkit.posterior.orders import chain

_RINGS = 6  # of the engine's ten around each prior peak: those too far out for a coarse grid
_LOOKS = 33  # at most, along each latent
_PRIOR_TOLERANCE = 1e-10
_STEP, _REACH = 0.6, 9.0  # standard deviations
_DEPTH = 30.0
_POINTS_AT_ONCE = 1 << 18


def smooth(
    base: Base,
    charts: Sequence[Chart],
    prior: PriorOf,
    grids: dict[int, Tensor],
    n: int,
    report: Callable[[Tensor, Tensor], Tensor],
    curves: bool = False,
) -> Bells:
    """Settle by equispaced grids what can be.

    Args:
        base: the model; it counts and checks the evaluations.
        charts: of each latent, all of which are continuous.
        prior: the marginals of its prior, as `prior_marginals` gives them.
        grids: for each latent where to begin looking.
        n: number of data.
        report: rows and z (m, k) → the functions whose posterior mean and sd are wanted, (m, r).
        curves: as `bells` takes it; t is the chart's.
    """

    def densities(rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z = placed(charts, t)
        if t.requires_grad:
            log_prior, height = base.log_prior(z), base.log_likelihood(rows, z)
        else:
            values = base.fold(rows, z).values
            log_prior, height = values.log_prior, values.log_likelihood
        return log_prior + _stretch(charts, z), height

    looks = [_inner(grids[j]) for j in range(len(charts))]
    return bells(densities, prior, looks, n, lambda rows, t: report(rows, placed(charts, t)), curves)


def prior_marginals(
    base: Base, charts: Sequence[Chart], grids: dict[int, Tensor], independent: bool
) -> tuple[PriorOf, float] | None:
    """The marginals of a prior in the charts' t, normalised, and the log of its mass.

    Args:
        base: its prior counts, up to a factor. charts, grids: as `smooth` takes them.
        independent: the latents are known to be independent.

    Returns:
        None where the prior is neither independent nor a bell.
    """
    k = len(charts)
    axes = [Continuous(chart.low, chart.high) for chart in charts]
    if independent:
        factors, log_mass = _factors(base, charts, axes, grids)
        return lambda columns, t: factors(columns, placed(charts, t)), log_mass

    def alone(rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z = placed(charts, t)
        density = base.log_prior(z) if t.requires_grad else base.prior(z)
        return density + _stretch(charts, z), torch.zeros_like(density)

    shape = _shape(alone, [_inner(grids[j]) for j in range(k)])
    if shape is None:
        return None
    mean, covariance, log_mass = shape
    blank = Base(base.log_prior, lambda rows, z: torch.zeros(len(z), dtype=torch.float64), None, base.top)

    def prior_of(columns: tuple[int, ...], t: Tensor) -> Tensor:
        others = [j for j in range(k) if j not in columns]
        answer, wrong = _conditional(alone, (mean, covariance), columns, others, t)
        if wrong.any():
            z = placed(charts, t[wrong])
            level: Level = chain(others, blank, axes, grids, _PRIOR_TOLERANCE)
            folded = level.fold(torch.zeros(len(z), dtype=torch.int64), z)
            answer[wrong] = folded.values.log_prior + _stretch(charts, z, columns)
        return answer - log_mass

    return prior_of, log_mass


def placed(charts: Sequence[Chart], t: Tensor) -> Tensor:
    """The latents at t, (m, k)."""
    return torch.stack([chart.point(t[:, j]) for j, chart in enumerate(charts)], 1)


def _stretch(charts: Sequence[Chart], z: Tensor, columns: Sequence[int] | None = None) -> Tensor:
    chosen = range(len(charts)) if columns is None else columns
    return torch.stack([charts[j].log_stretch(z[:, j]) for j in chosen]).sum(0)


def _shape(alone: Densities, looks: Sequence[Tensor]) -> tuple[Tensor, Tensor, float] | None:
    """Mean and covariance of the prior of t and the log of its mass, or None where it is no bell."""
    k = len(looks)
    middle = torch.stack([look.median() for look in looks])

    def powers(rows: Tensor, t: Tensor) -> Tensor:
        away = t - middle
        return torch.cat([away, (away[:, :, None] * away[:, None, :]).flatten(1)], 1)

    # The prior is the posterior here, of a ℓ that is zero: the KLs mean nothing and need no prior. A mass
    # other than one goes into log p, which the grids take as it comes.
    found = bells(alone, lambda columns, t: torch.zeros(len(t), dtype=torch.float64), looks, 1, powers)
    if not bool(found.good):
        return None
    mean, square = found.mean[0, :k], found.mean[0, k:].reshape(k, k)
    return middle + mean, square - mean[:, None] * mean, float(found.value[0, 0])


def _conditional(
    alone: Densities, shape: tuple[Tensor, Tensor], columns: Sequence[int], others: list[int], t: Tensor
) -> tuple[Tensor, Tensor]:
    """The log prior density of some latents by equal steps over the others, and where two such grids differ."""
    mean, covariance = shape
    kept = list(columns)
    slope = torch.linalg.solve(covariance[kept][:, kept], covariance[kept][:, others]).T
    rest = covariance[others][:, others] - slope @ covariance[kept][:, others]
    factor = torch.linalg.cholesky((rest + rest.T) / 2)
    count = round(_REACH / _STEP)
    sums = []
    for offset in (0.0, 0.5):
        line = _STEP * (torch.arange(-count, count + 1, dtype=torch.float64) + offset)
        u = torch.stack(torch.meshgrid(*[line] * len(others), indexing="ij"), -1).reshape(-1, len(others))
        parts = []
        for block in t.split(max(1, _POINTS_AT_ONCE // len(u))):
            nodes = block[:, None].repeat(1, len(u), 1)
            centre = mean[others] + (block[:, kept] - mean[kept]) @ slope.T
            nodes[..., others] = centre[:, None] + u @ factor.T
            logs = alone(
                torch.zeros(nodes[..., 0].numel(), dtype=torch.int64), nodes.reshape(-1, t.shape[1])
            )[0]
            logs = logs.reshape(len(block), len(u))
            edge = logs[:, u.abs().amax(1) > _REACH - _STEP].amax(1) > logs.amax(1) - _DEPTH
            parts.append(torch.where(edge, math.nan, torch.logsumexp(logs, 1)))
        sums.append(torch.cat(parts) + torch.log(_STEP * factor.diagonal()).sum())
    return (sums[0] + sums[1]) / 2, ~((sums[0] - sums[1]).abs() < _PRIOR_TOLERANCE)


def _inner(grid: Tensor) -> Tensor:
    """Points around the prior's peaks, denser than the engine's rings and not so far out."""
    drop = _RINGS * max(1, len(grid) // 21)
    near = grid[drop:-drop] if len(grid) > 2 * drop else grid
    looks = torch.cat([near, (near[1:] + near[:-1]) / 2]).sort().values
    return looks[torch.linspace(0, len(looks) - 1, min(len(looks), _LOOKS)).round().long()]


def _factors(
    base: Base, charts: Sequence[Chart], axes: Sequence[Axis], grids: dict[int, Tensor]
) -> tuple[Callable[[Sequence[int], Tensor], Tensor], float]:
    """Log densities of independent t_j, at z: joint densities that differ in z_j alone, normalised; the log mass."""
    centre = torch.stack([chart.point(grids[j].median()) for j, chart in enumerate(charts)])
    top = base.prior(centre[None])

    def alone(j: int, z: Tensor) -> Tensor:
        point = centre.repeat(len(z), 1)
        point[:, j] = z[:, j]
        return base.prior(point) - top

    def mass(j: int) -> Tensor:
        one = Base(lambda z: alone(j, z), lambda rows, z: torch.zeros(len(z), dtype=torch.float64), None)
        level = chain([j], one, axes, grids, _PRIOR_TOLERANCE)
        return level.fold(torch.zeros(1, dtype=torch.int64), centre[None].clone()).values.log_prior

    masses = [mass(j) for j in range(len(charts))]

    def density(columns: Sequence[int], z: Tensor) -> Tensor:
        parts = [alone(j, z) - masses[j] + charts[j].log_stretch(z[:, j]) for j in columns]
        return torch.stack(parts).sum(0)

    return density, float(top + torch.stack(masses).sum(0))

"""The quick road in three dimensions: which data the grids of `bell` settle, in the engine's own terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from identkit.model.protocol import Axis, Continuous
from identkit.posterior.bell import Bells, Densities, bells
from identkit.posterior.chart import Chart
from identkit.posterior.nested import Base, Level
from identkit.posterior.orders import chain

_RINGS = 6  # of the engine's ten around each prior peak: those too far out for a coarse grid
_LOOKS = 33  # at most, along each latent
_MASS_SLACK = 1e-6
_PRIOR_TOLERANCE = 1e-10
_STEP, _REACH = 0.6, 9.0  # standard deviations
_DEPTH = 30.0
_POINTS_AT_ONCE = 1 << 18

Slopes = Callable[[Tensor, Tensor], Tensor]


def smooth(
    base: Base,
    axes: Sequence[Axis],
    grids: dict[int, Tensor],
    n: int,
    gradient: Slopes | None,
    independent: bool,
) -> Bells | None:
    """Settle by equispaced grids what can be.

    Args:
        base: the model; it counts and checks the evaluations. axes: all continuous.
        grids: for each latent where to begin looking.
        gradient: as `integrate` takes it; the means reported are then those of z and of its squares, (n, 2k).
        independent: the latents are known to be independent under a normalised prior.

    Returns:
        None where the prior itself is no bell: nothing is settled then.
    """
    charts = [Chart(axis.low, axis.high) for axis in axes if isinstance(axis, Continuous)]

    def place(t: Tensor) -> Tensor:
        return torch.stack([chart.point(t[:, j]) for j, chart in enumerate(charts)], 1)

    def stretch(z: Tensor, columns: Sequence[int]) -> Tensor:
        return torch.stack([charts[j].log_stretch(z[:, j]) for j in columns]).sum(0)

    def densities(rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z = place(t)
        if t.requires_grad:
            prior, height = base.log_prior(z), base.log_likelihood(rows, z)
        else:
            values = base.fold(rows, z).values
            prior, height = values.log_prior, values.log_likelihood
        return prior + stretch(z, range(len(charts))), height

    def alone(rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z = place(t)
        prior = base.log_prior(z) if t.requires_grad else base.prior(z)
        return prior + stretch(z, range(len(charts))), torch.zeros_like(prior)

    def report(rows: Tensor, t: Tensor) -> Tensor:
        z = place(t)
        return z if gradient is None else torch.cat([z, gradient(rows, z).square()], 1)

    looks = [_inner(grids[j]) for j in range(len(axes))]
    if independent:
        factors = _factors(base, charts, grids)
        return bells(densities, lambda columns, t: factors(columns, place(t)), looks, n, report)
    shape = _shape(alone, looks)
    if shape is None:
        return None
    blank = Base(base.log_prior, lambda rows, z: torch.zeros(len(z), dtype=torch.float64), None, base.top)

    def prior_of(columns: tuple[int, ...], t: Tensor) -> Tensor:
        others = [j for j in range(len(axes)) if j not in columns]
        answer, wrong = _conditional(alone, shape, columns, others, t)
        if wrong.any():
            z = place(t[wrong])
            level: Level = chain(others, blank, axes, grids, _PRIOR_TOLERANCE)
            folded = level.fold(torch.zeros(len(z), dtype=torch.int64), z)
            answer[wrong] = folded.values.log_prior + stretch(z, columns)
        return answer

    return bells(densities, prior_of, looks, n, report)


def _shape(alone: Densities, looks: Sequence[Tensor]) -> tuple[Tensor, Tensor] | None:
    """Mean and covariance of the prior of t, or None where it is no bell or not normalised."""
    k = len(looks)
    middle = torch.stack([look.median() for look in looks])

    def powers(rows: Tensor, t: Tensor) -> Tensor:
        away = t - middle
        return torch.cat([away, (away[:, :, None] * away[:, None, :]).flatten(1)], 1)

    found = bells(alone, lambda columns, t: torch.zeros(len(t), dtype=torch.float64), looks, 1, powers)
    if not (bool(found.good) and abs(float(found.value[0, 0])) < _MASS_SLACK):
        return None
    mean, square = found.mean[0, :k], found.mean[0, k:].reshape(k, k)
    return middle + mean, square - mean[:, None] * mean


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
        for some in t.split(max(1, _POINTS_AT_ONCE // len(u))):
            nodes = some[:, None].repeat(1, len(u), 1)
            centre = mean[others] + (some[:, kept] - mean[kept]) @ slope.T
            nodes[..., others] = centre[:, None] + u @ factor.T
            logs = alone(
                torch.zeros(nodes[..., 0].numel(), dtype=torch.int64), nodes.reshape(-1, t.shape[1])
            )[0]
            logs = logs.reshape(len(some), len(u))
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
    base: Base, charts: Sequence[Chart], grids: dict[int, Tensor]
) -> Callable[[Sequence[int], Tensor], Tensor]:
    """Log prior densities of independent t_j, at z: joint densities that differ in z_j alone, normalised."""
    centre = torch.stack([chart.point(grids[j].median()) for j, chart in enumerate(charts)])
    axes = [Continuous(chart.low, chart.high) for chart in charts]

    def alone(j: int, z: Tensor) -> Tensor:
        point = centre.repeat(len(z), 1)
        point[:, j] = z[:, j]
        return base.prior(point) - base.prior(centre[None])

    def mass(j: int) -> Tensor:
        one = Base(lambda z: alone(j, z), lambda rows, z: torch.zeros(len(z), dtype=torch.float64), None)
        level = chain([j], one, axes, grids, _PRIOR_TOLERANCE)
        return level.fold(torch.zeros(1, dtype=torch.int64), centre[None].clone()).values.log_prior

    masses = [mass(j) for j in range(len(axes))]

    def density(columns: Sequence[int], z: Tensor) -> Tensor:
        parts = [alone(j, z) - masses[j] + charts[j].log_stretch(z[:, j]) for j in columns]
        return torch.stack(parts).sum(0)

    return density

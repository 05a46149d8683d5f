"""The posterior that is all but the prior: its informations right down to 1e-25 and far below.

Where ℓ varies by less than 1e-5 nats its float64 values no longer carry the KL's digits. Here its gaps
come from ball arithmetic, and the sums run over equispaced nodes weighted by the prior's *density*: for
smooth densities on the line that rule is spectrally accurate, and it has nothing in common with the
Gauss rules of `prior_rule`, from which the flatness is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from identkit.model.compiled import CompiledModel
from identkit.model.protocol import Axis, Finite
from identkit.posterior.heights import NEARLY_FLAT, exact_gaps, heights
from identkit.posterior.stable import kl_integrand

_STEPS = (0.75, 0.375, 0.1875)  # in standard deviations; e^(−2π²/0.75²) = 6e-16 for a Gaussian
_EMPTY = 1e-15
_MASS_ERROR = 1e-11
_NODE_LIMIT = 8_000  # ball evaluations a row
_GRID_LIMIT = 1_000_000
_RELATIVE_ERROR = 1e-9
_LEAST_ERROR = 1e-30
# Two grids that differ by more than this have met a kink, which is work for adaptive quadrature.
_ROUGH = 1e-6


@dataclass(frozen=True)
class NearlyPrior:
    """The nearly flat rows of a table of data, r of them, and what `Collapse` says of each one's posterior.

    Each error is the difference of two grids, relative 1e-9, and what one unit in the last place of ℓ could
    feign.
    """

    rows: Int[Tensor, " r"]
    kl: Float[Tensor, " r"]
    kl_error: Float[Tensor, " r"]
    kl_per_latent: Float[Tensor, "r k"]
    kl_per_latent_error: Float[Tensor, "r k"]
    kl_conditional: Float[Tensor, "r k"]
    kl_conditional_error: Float[Tensor, "r k"]
    mean: Float[Tensor, "r k"]
    sd: Float[Tensor, "r k"]
    log_evidence: Float[Tensor, " r"]


def nearly_flat(
    compiled: CompiledModel,
    x: Float[Tensor, "n d"],
    mean: Float[Tensor, " k"],
    sd: Float[Tensor, " k"],
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> NearlyPrior | None:
    """Compute the posterior on those rows on which ℓ is nearly flat.

    ``u = ℓ − log E_P e^ℓ``, ``KL = E_P[u·eᵘ − expm1(u)]``; the marginal of z_j has
    ``u_j = log E_P[eᵘ | z_j]``, and the conditional ``u − u_{−j}`` under ``e^{u_{−j}} P``. Every sum is taken
    on two grids, one half a step beside the other.

    Source: theory/T3 and T4 (computation).

    Args:
        compiled: the model.
        x: (n, d) checked data, as `compiled.rows` gives them.
        mean: (k,) where the prior's mass lies: the mean of each latent.
        sd: (k,) and its standard deviation.
        pooled: whether the rows share their latents.
        mask: (n, d), True where x is observed.

    Returns:
        The posteriors, or None where no row is nearly flat, or the prior or ℓ too rough for equispaced nodes.
    """
    grids = _prior_grids(compiled, mean, sd)
    if grids is None:
        return None
    levels = [heights(compiled, x, nodes[weights > 0], pooled, mask) for nodes, weights in grids]
    found = []
    for row in range(levels[0].shape[1]):
        here = [level[:, row] for level in levels]
        if max(level.max() - level.min() for level in here) < NEARLY_FLAT:
            gaps = [
                exact_gaps(compiled, x, nodes[weights > 0], row, pooled, mask) for nodes, weights in grids
            ]
            if all(bool(gap.isfinite().all()) for gap in gaps):
                sums = [_sums(*entry) for entry in zip(grids, here, gaps, strict=True)]
                found += _agreed(row, sums)
    if not found:
        return None
    return NearlyPrior(*[torch.stack(column) for column in zip(*found, strict=True)])


def _agreed(row: int, sums: list[dict[str, Tensor]]) -> list[tuple[Tensor, ...]]:
    """One row's fields of `NearlyPrior`, or nothing where its grids contradict each other."""
    one, two = sums[0], sums[-1]
    value = {name: (one[name] + two[name]) / 2 for name in one}
    apart = {name: (one[name] - two[name]).abs() for name in one}
    feigned = (
        (torch.finfo(torch.float64).eps * (1 + value["log_evidence"].abs())).square().clamp(min=_LEAST_ERROR)
    )
    if apart["kl"] > _ROUGH * value["kl"] + feigned:
        return []
    error = {name: apart[name] + _RELATIVE_ERROR * value[name] + feigned for name in value}
    informations = [
        table[name] for name in ("kl", "kl_per_latent", "kl_conditional") for table in (value, error)
    ]
    return [(torch.tensor(row), *informations, *[value[name] for name in ("mean", "sd", "log_evidence")])]


def _sums(grid: tuple[Tensor, Tensor], level: Tensor, inside: Tensor) -> dict[str, Tensor]:
    """Joint, marginal (k,) and conditional (k,) KL on a tensor grid, and the moments.

    `level` and `inside` are ℓ and its exact gaps where the grid has mass.
    """
    nodes, weights = grid
    gaps = torch.zeros_like(weights)
    gaps[weights > 0] = inside
    centred = gaps - (weights * gaps).sum()
    log_mean = torch.log1p((weights * torch.expm1(centred)).sum())
    u = centred - log_mean
    rise = weights * torch.expm1(u)
    marginal, conditional = [], []
    for axis in range(gaps.ndim):
        others = [other for other in range(gaps.ndim) if other != axis]
        mass = weights.sum(dim=others) if others else weights
        own = torch.log1p(_ratio(rise.sum(dim=others) if others else rise, mass))
        marginal.append((mass * kl_integrand(own)).sum())
        mass = weights.sum(dim=axis, keepdim=True)
        rest = torch.log1p(_ratio(rise.sum(dim=axis, keepdim=True), mass))
        conditional.append((weights * torch.exp(rest) * kl_integrand(u - rest)).sum())
    posterior = (weights + rise)[..., None]
    points = nodes.flatten(end_dim=-2)
    mean = (posterior * nodes).flatten(end_dim=-2).sum(dim=0)
    return {
        "kl": (weights * kl_integrand(u)).sum(),
        "kl_per_latent": torch.stack(marginal),
        "kl_conditional": torch.stack(conditional),
        "mean": mean,
        "sd": (posterior.flatten(end_dim=-2) * (points - mean).square()).sum(dim=0).sqrt(),
        "log_evidence": (weights[weights > 0] * level).sum() + log_mean,
    }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)


def _prior_grids(compiled: CompiledModel, mean: Tensor, sd: Tensor) -> list[tuple[Tensor, Tensor]] | None:
    """Two tensor grids (n_1, …, n_k, k), half a step apart, and the prior's mass on each; or None.

    A grid is accepted by the mass that it finds, which is 1 only if its step and its reach suit the density.
    """
    offsets = (0.0,) if all(isinstance(axis, Finite) for axis in compiled.axes) else (0.0, 0.5)
    for step in _STEPS:
        grids = [_prior_grid(compiled, mean, sd, step, offset) for offset in offsets]
        kept = [grid for grid in grids if grid is not None]
        if len(kept) < len(grids):
            return None
        if all(abs(weights.sum().item() - 1) < _MASS_ERROR for _, weights in kept):
            return [(nodes, weights / weights.sum()) for nodes, weights in kept]
    return None


def _prior_grid(
    compiled: CompiledModel, mean: Tensor, sd: Tensor, step: float, offset: float
) -> tuple[Tensor, Tensor] | None:
    places = zip(compiled.axes, mean, sd, strict=True)
    axes = [_axis_nodes(axis, centre, width, step, offset) for axis, centre, width in places]
    lines = [axis for axis in axes if axis is not None]
    if len(lines) < len(axes) or math.prod(len(points) for points, _ in lines) > _GRID_LIMIT:
        return None
    points, log_widths = zip(*lines, strict=True)
    nodes = torch.stack(torch.meshgrid(*points, indexing="ij"), dim=-1)
    log_width = torch.stack(torch.meshgrid(*log_widths, indexing="ij")).sum(dim=0)
    weights = torch.exp(compiled.log_prior(nodes) + log_width)
    weights = torch.where(weights > _EMPTY, weights, 0.0)
    return None if int((weights > 0).sum()) > _NODE_LIMIT else (nodes, weights)


def _axis_nodes(
    axis: Axis, mean: Tensor, sd: Tensor, step: float, offset: float
) -> tuple[Tensor, Tensor] | None:
    """Nodes of one latent and the logarithms of the widths they stand for."""
    if isinstance(axis, Finite):
        points = torch.tensor(axis.values, dtype=torch.float64)
        return points, torch.zeros_like(points)
    width = axis.high - axis.low
    if math.isfinite(axis.low) != math.isfinite(axis.high):
        return None
    if width == math.inf:
        points = mean + sd * _steps(9.0, step, offset)
        return points, torch.log(sd * step).expand(len(points))
    # On an interval the logit is the line's coordinate; Beta tails are exponential there, and their
    # singularities at ±iπ ask for finer steps than a Gaussian.
    step = 0.6 * step
    share = (mean - axis.low) / width
    scale = sd / width / (share * (1 - share))
    y = torch.logit(share) + scale * step * torch.arange(
        -round(60 / step), round(60 / step) + 1, dtype=torch.float64
    )
    points = axis.low + width * torch.sigmoid(y)
    inside = (points > axis.low) & (points < axis.high)
    log_slope = torch.nn.functional.logsigmoid(y) + torch.nn.functional.logsigmoid(-y)
    return points[inside], (log_slope + torch.log(scale * step * width))[inside]


def _steps(reach: float, step: float, offset: float) -> Tensor:
    count = round(reach / step)
    return step * (torch.arange(-count, count + 1, dtype=torch.float64) + offset)

"""Where to begin looking for a posterior: around the peaks of the prior, and from there ever further out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from identkit.model.protocol import Axis, Continuous, Finite
from identkit.posterior.chart import Chart
from identkit.posterior.locate import PRIOR, Samples, sharpen, tops
from identkit.posterior.nested import Base

_STATES = 64
_SWEEPS = 6


def starting_points(base: Base, axes: Sequence[Axis]) -> tuple[dict[int, Tensor], float]:
    """Find the peaks of the prior on each continuous axis, in every finite state, by coordinate ascent.

    Returns:
        For each continuous axis the points t from which to look (its peaks, and ever further out), and the
        highest log prior density found.
    """
    finite = [(j, axis.values) for j, axis in enumerate(axes) if isinstance(axis, Finite)]
    charts = {j: Chart(axis.low, axis.high) for j, axis in enumerate(axes) if isinstance(axis, Continuous)}
    states = list(itertools.islice(itertools.product(*(values for _, values in finite)), _STATES))
    z = torch.zeros(len(states), len(axes), dtype=torch.float64)
    for column, (j, _) in enumerate(finite):
        z[:, j] = torch.tensor([state[column] for state in states], dtype=torch.float64)
    middle = {j: torch.zeros(len(states), dtype=torch.float64) for j in charts}
    for j, chart in charts.items():
        z[:, j] = chart.point(middle[j])
    peaks: dict[int, Tensor] = {}
    for _ in range(_SWEEPS if len(charts) > 1 else 1):
        for j, chart in charts.items():
            middle[j], peaks[j] = _ascend(base, z, j, chart, middle[j])
            z[:, j] = chart.point(middle[j])
    top = base.prior(z)
    if not (top > -torch.inf).any():
        point = ", ".join(f"{v:.6g}" for v in z[0].tolist())
        raise ValueError(
            f"log_prior should be finite somewhere, got -inf at every point tried, such as ({point})"
        )
    rings = 0.5 * 5.0 ** torch.arange(10, dtype=torch.float64)
    offsets = torch.cat([-rings, torch.zeros(1, dtype=torch.float64), rings])
    grids = {j: (found[:, :1] + found[:, 1:] * offsets).flatten().unique() for j, found in peaks.items()}
    return grids, float(top.max())


def _ascend(base: Base, z: Tensor, j: int, chart: Chart, middle: Tensor) -> tuple[Tensor, Tensor]:
    """The prior's top along one axis, the other latents as in z; and all its peaks there, (p, 2)."""

    def look(problem: Tensor, t: Tensor) -> Tensor:
        at = z[problem]
        at[:, j] = chart.point(t)
        prior = base.prior(at) + chart.log_stretch(at[:, j])
        return torch.stack([prior, torch.zeros_like(prior)])

    low, high = chart.clip()
    rings = 1e-6 * 1.05 ** torch.arange(900, dtype=torch.float64)
    rings = rings[rings < min(high, -low)]
    t = (middle[:, None] + torch.cat([-rings.flip(0), torch.zeros(1, dtype=torch.float64), rings])).clamp(
        low, high
    )
    problem = torch.arange(len(z)).repeat_interleave(t.shape[1])
    samples = Samples(t, look(problem, t.flatten()).reshape(2, *t.shape))
    samples, others = sharpen(samples, PRIOR, look)
    best, top, _ = samples.top(PRIOR)
    peaks = tops(samples, PRIOR).and_(others)
    pairs = torch.stack([peaks.t, torch.where(peaks.width.isfinite(), peaks.width, 1.0)], 1)
    return torch.where(top.isfinite(), best, middle), _different(pairs)


def _different(peaks: Tensor) -> Tensor:
    """One of each group of peaks (t, width) that coincide up to a twentieth of their widths."""
    rows: list[list[float]] = []
    for t, width in peaks.tolist():
        if not any(abs(t - s) < 0.05 * max(width, w) and 0.5 < width / w < 2 for s, w in rows):
            rows.append([t, width])
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)

"""The paper's first demonstration: the exact posterior of a mixing weight beside two approximations of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from identkit.classical.arrays import shaped
from identkit.classical.mixture_weight import MixtureWeight
from identkit.plot.style import APPROXIMATIONS, POSTERIOR, PRIOR, canvas, number, styled

_SPIKE = 0.04  # a posterior narrower than this is also shown enlarged
_BINS = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightPanel:
    """One data set of `mixture_weight`, with draws of α by others where there are any."""

    name: str
    model: MixtureWeight
    x: Any
    """The data, (n,) or (n, 1)."""
    hmc: Any = None
    """Draws of α by Hamiltonian Monte Carlo, (m,), or None."""
    advi: Any = None
    """Draws of α by mean-field variational inference, (m,), or None."""


@styled
def mixture_weight(panels: Sequence[WeightPanel]) -> Figure:
    """Draw the exact posterior of the mixing weight over its prior, and what HMC and ADVI made of it.

    A posterior too narrow to be seen beside the approximations is shown enlarged in an inset. Below each
    panel: mean and standard deviation of each law, and the exact ``KL(posterior ‖ prior)``.

    Source: Wang, Blei & Cunningham 2021, section 2 and figure 1.

    Args:
        panels: the data sets, from left to right.

    Raises:
        ValueError: no panel, or draws that are no vector of finite numbers (the message says HMC or ADVI).

    >>> model = MixtureWeight([(-10, 1), (10, 1)])
    >>> figure = mixture_weight([WeightPanel(name="separated", model=model, x=[-10.0, -9.5, 10.2])])
    >>> print(figure.axes[0].get_xlabel())
    mixing weight α
    exact: 0.5385 ± 0.1332
    exact KL(posterior ‖ prior): 0.04845 nats
    """
    if not panels:
        raise ValueError("panels should hold at least one WeightPanel, got none")
    figure, axes = canvas(1, len(panels), 3.1)
    for ax, panel in zip(axes[0], panels, strict=True):
        _panel(ax, panel)
    axes[0, 0].set_ylabel("density")
    named: dict[str, Any] = {}
    for ax in axes[0]:
        handles, labels = ax.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=len(named))
    return figure


def _panel(ax: Axes, panel: WeightPanel) -> None:
    law = panel.model.posterior(panel.x)
    mean, sd = law.mean.item(), law.stddev.item()
    given = {"HMC": panel.hmc, "ADVI": panel.advi}
    draws = {name: shaped(values, name, None).numpy() for name, values in given.items() if values is not None}
    centres = {"exact": (mean, sd), **{name: (d.mean(), d.std()) for name, d in draws.items()}}

    near = _around(mean, sd)
    top = _curves(ax, panel.model.prior, law, np.union1d(np.linspace(0.001, 0.999, 500), near), draws)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.08 * top)
    ax.set_title(panel.name)
    lines = [f"{name}: {centre:.4f} ± {width:.4f}" for name, (centre, width) in centres.items()]
    lines = ["mixing weight α", *lines, f"exact KL(posterior ‖ prior): {number(law.kl)} nats"]
    ax.set_xlabel("\n".join(lines))
    if sd < _SPIKE:
        inset = ax.inset_axes((_free(tuple(centres.values())), 0.42, 0.38, 0.45))
        _curves(inset, panel.model.prior, law, near, draws)
        inset.set_xlim(near[0], near[-1])
        inset.set_ylim(ax.get_ylim())
        inset.set_xticks([mean - 3 * sd, mean + 3 * sd], [f"{mean + k * sd:.3f}" for k in (-3, 3)])
        inset.set_yticks([])
        inset.spines[:].set(visible=True, color="#888888")
        ax.indicate_inset_zoom(inset, edgecolor="#888888")


def _curves(ax: Axes, prior: Any, law: Any, points: np.ndarray, draws: dict[str, np.ndarray]) -> float:
    """Draw all laws, and give the height of the highest."""
    grid = torch.from_numpy(points)
    before, exact = (one.log_prob(grid).exp().numpy() for one in (prior, law))
    ax.plot(points, before, color=PRIOR, ls=(0, (4, 2)), label="prior", zorder=3)
    ax.fill_between(points, exact, color=POSTERIOR, alpha=0.35, lw=0, label="exact posterior")
    ax.plot(points, exact, color=POSTERIOR, lw=0.8)
    top = max(before.max(), exact.max())
    for name, values in draws.items():
        density, edges = np.histogram(values, bins=_BINS, density=True)
        ax.stairs(density, edges, color=APPROXIMATIONS[name], lw=1.0, label=name)
        top = max(top, density.max())
    return float(top)


def _around(mean: float, sd: float) -> np.ndarray:
    return np.linspace(max(1e-6, mean - 5 * sd), min(1 - 1e-6, mean + 5 * sd), 200)


def _free(centres: Sequence[tuple[float, float]]) -> float:
    """The left edge of an inset that hides as few of the laws as possible."""

    def hidden(left: float) -> float:
        ends = [(max(left - 0.02, m - 3 * sd), min(left + 0.4, m + 3 * sd), sd) for m, sd in centres]
        return sum(max(0.0, high - low) / sd for low, high, sd in ends)

    return min((0.06, 0.16, 0.26, 0.36, 0.46, 0.56), key=hidden)

"""Posterior means and standard deviations of many data beside the prior's, latent by latent, with what each datum told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from torch import Tensor

from identkit.plot.style import POSTERIOR, PRIOR, BrokenAxis, canvas, number, styled
from identkit.posterior.information import Collapse

_MOST = 6
_BAND: dict[str, Any] = {"color": PRIOR, "alpha": 0.12, "lw": 0, "label": "prior ± sd"}
_MIDDLE: dict[str, Any] = {"color": PRIOR, "ls": (0, (4, 2)), "lw": 0.8}


@styled
def intervals(found: Collapse, prior: tuple[Tensor, Tensor] | None = None, title: str = "") -> Figure:
    """Draw mean ± standard deviation of each datum's posterior, data sorted by their mean, over the prior's band.

    Beside it the KL that the datum told about this latent given the others, which is 0 iff the likelihood ignores the
    latent (theory/T3); zeros lie in the shaded strip.

    Args:
        found: what `identkit.collapse` returned; the first six latents are drawn, of a single datum all.
        prior: mean and standard deviation of each latent, (k,) each; no band without them.
        title: above all.

    Returns:
        A figure with two panels a latent; of a single datum all latents share two panels.

    >>> from identkit import collapse
    >>> c = collapse("z ~ Normal(0, 1); observe x ~ Normal(z, 1)", [[-1.0], [0.5]])
    >>> [ax.get_ylabel() for ax in intervals(c).axes]
    ['z', 'KL (nats)']
    """
    if len(found.kl) == 1 and len(found.names) > 1:
        return _along(found, prior, title)
    count = min(len(found.names), _MOST)
    figure, axes = canvas(count, 2, 0.9 + 1.5 * count, width_ratios=(2.2, 1.0))
    for j in range(count):
        mean, sd = found.posterior_mean[:, j].cpu().numpy(), found.posterior_sd[:, j].cpu().numpy()
        order = np.argsort(mean, kind="stable")
        places = np.arange(1, len(order) + 1)
        left, right = axes[j]
        if prior is not None:
            middle, spread = (float(value[j]) for value in prior)
            if math.isfinite(spread):
                left.axhspan(middle - spread, middle + spread, **_BAND)
            if math.isfinite(middle):
                label = "" if math.isfinite(spread) else "prior mean, infinite sd"
                left.axhline(middle, **_MIDDLE, label=label)
        _bars(left, places, mean[order], sd[order])
        left.set_ylabel(found.names[j])
        _informations(
            right, places, found.kl_conditional[:, j][order], found.kl_conditional_error[:, j][order]
        )
        _numbered(left, right)
        if j == count - 1:
            left.set_xlabel("datum, sorted by its posterior mean")
            right.set_xlabel("datum, in the same order")
    return _finished(figure, axes[0, 0], title)


def _along(found: Collapse, prior: tuple[Tensor, Tensor] | None, title: str) -> Figure:
    """All latents of a single datum side by side, as those of a path."""
    figure, axes = canvas(1, 2, 2.6, width_ratios=(1.6, 1.0))
    left, right = axes[0]
    places = np.arange(1, len(found.names) + 1)
    if prior is not None:
        middle, spread = (value.cpu().numpy() for value in prior)
        half = 0.5
        edges = np.stack([places - half, places + half], 1).reshape(-1)
        middle, spread = (np.where(np.isfinite(value), value, np.nan) for value in (middle, spread))
        low, high, line = (np.repeat(value, 2) for value in (middle - spread, middle + spread, middle))
        left.fill_between(edges, low, high, **_BAND)
        left.plot(edges, line, **_MIDDLE)
    mean, sd = found.posterior_mean[0].cpu().numpy(), found.posterior_sd[0].cpu().numpy()
    _bars(left, places, mean, sd)
    left.set_ylabel("latent")
    _informations(right, places, found.kl_conditional[0], found.kl_conditional_error[0])
    if len(places) > _MOST:
        _numbered(left, right)
    for ax in (left, right):
        if len(places) <= _MOST:
            ax.set_xticks(places, found.names)
        else:
            ax.set_xlabel(f"latent, from {found.names[0]} to {found.names[-1]}")
    return _finished(figure, left, title)


def _numbered(left: Axes, right: Axes) -> None:
    """Numbers below two panels, few enough for a million data."""
    for ax, most in ((left, 6), (right, 3)):
        ax.xaxis.set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _bars(ax: Axes, places: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> None:
    """Draw mean ± sd, the mean alone where sd is infinite, and say how many have no finite mean."""
    size = max(1.0, min(3.0, 90 / len(places)))
    there, barred = np.isfinite(mean), np.isfinite(mean) & np.isfinite(sd)
    ax.errorbar(
        places[barred], mean[barred], sd[barred],
        fmt="o", ms=size, lw=0.7, color=POSTERIOR, label="posterior ± sd",
    )  # fmt: skip
    bare = there & ~barred
    if bare.any():
        ax.plot(places[bare], mean[bare], "o", ms=size, mfc="white", color=POSTERIOR, label="infinite sd")
    if not there.all():
        text = f"{(~there).sum():,} of {len(places):,} without a finite mean"
        ax.text(0.99, 1.02, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=7)
    if not there.any():
        ax.set_yticks([])
    ax.set_xlim(places[0] - 0.5, places[-1] + 0.5)


def _informations(ax: Axes, places: np.ndarray, kl: Tensor, error: Tensor) -> None:
    values = kl.cpu().numpy()
    zero = values <= error.cpu().numpy()
    scale = BrokenAxis(values, zero)
    ax.plot(places, scale.positions, ".", color=POSTERIOR, ms=3)
    scale.apply(ax, "y")
    ax.set_ylabel("KL (nats)")
    ax.set_title(f"mean {number(float(np.where(zero, 0.0, values).mean()))} nats")


def _finished(figure: Figure, first: Axes, title: str) -> Figure:
    # Above the panel, where no bar can run into it.
    first.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2)
    if title:
        figure.suptitle(title, fontsize=9)
    return figure

"""Rows that a trained model draws, beside those that it learned from."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from identkit.lidvae.datasets import Dataset
from identkit.lidvae.metrics import log_density
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.plot.rows import (
    IMAGES,
    PLANE,
    TEXT,
    colour,
    column_panels,
    decoded,
    kind_of,
    lines,
    points,
    said,
    wall,
)
from identkit.plot.style import canvas, styled

_POINTS, _WALL, _LINES = 1000, 10, 14
_CELLS, _WEIGHTS = 80, 200  # of the density: points each way, draws at each


@styled
def samples(model: Autoencoder, data: Dataset, seed: int = 0) -> Figure:
    """Draw test rows beside samples: points and the density, walls of images, histograms of columns, lines of text.

    Samples are of ``p(z) p(x | z)``, noise included; of images their means given z, as is the custom. The density is
    `identkit.lidvae.metrics.log_density`, a lower bound.

    Args:
        model: of one member.
        data: whose test rows are shown.
        seed: of the draws.

    Returns:
        a figure of two or three panels.
    """
    kind = kind_of(model, data)
    generator = torch.Generator(model.device).manual_seed(seed)
    if kind == PLANE:
        return _planes(model, data, generator)
    if kind == IMAGES and data.shape is not None:
        figure, axes = canvas(1, 2, 3.6)
        _, z = model.sample(_WALL**2, generator)
        wall(axes[0, 0], data.test[: _WALL**2], data.shape, _WALL)
        wall(axes[0, 1], decoded(model, z), data.shape, _WALL)
        axes[0, 0].set_title("test rows")
        axes[0, 1].set_title("means of x given z drawn from the prior")
        return figure
    x = model.sample(_LINES if kind == TEXT else _POINTS, generator)[0].cpu()
    if kind == TEXT:
        figure, axes = canvas(1, 2, 2.6)
        lines(axes[0, 0], said(data, data.test[:_LINES]), "test rows", 50)
        lines(axes[0, 1], said(data, x), "samples", 50)
        return figure
    return _histograms(data, x)


def _planes(model: Autoencoder, data: Dataset, generator: torch.Generator) -> Figure:
    figure, axes = canvas(1, 3, 2.6, sharex=True, sharey=True)
    x = model.sample(_POINTS, generator)[0].cpu()
    test = data.test[:_POINTS]
    points(axes[0, 0], test, None if data.labels is None else data.labels.test[:_POINTS])
    points(axes[0, 1], x)
    both = torch.cat((test, x))
    low, high = both.amin(0), both.amax(0)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    sides = [torch.linspace(float(a), float(b), _CELLS) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*sides)
    density = log_density(model, grid, samples=_WEIGHTS)[0].exp().cpu().reshape(_CELLS, _CELLS)
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    axes[0, 2].imshow(density.T.numpy(), origin="lower", extent=extent, cmap="Blues", aspect="auto")
    for ax, title in zip(axes[0], ("test rows", "samples", "density (a lower bound)"), strict=True):
        ax.set_title(title)
    return figure


def _histograms(data: Dataset, x: torch.Tensor) -> Figure:
    figure, panels = column_panels(data, 1.9)
    for number, ax in enumerate(panels):
        _two(ax, data.test[:, number].numpy(), x[:, number].numpy())
    panels[0].legend(loc="best")
    return figure


def _two(ax: Axes, test: np.ndarray, drawn: np.ndarray) -> None:
    low, high = np.quantile(np.concatenate((test, drawn)), (0.002, 0.998))
    bins = int(np.clip(np.sqrt(len(test)), 8, 30))
    edges = np.linspace(low, max(high, low + 1e-9), bins + 1)
    ax.hist(test, edges, density=True, color=colour(0), alpha=0.45, label="test rows")
    ax.hist(drawn, edges, density=True, histtype="step", color=colour(1), label="samples")

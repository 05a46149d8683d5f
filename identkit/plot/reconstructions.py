"""What comes back of a row: decoded from the mean of its posterior."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from identkit.lidvae.datasets import Dataset
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.plot.rows import (
    IMAGES,
    PLANE,
    TEXT,
    codes,
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

_POINTS, _ACROSS, _LINES = 300, 14, 14


@styled
def reconstructions(model: Autoencoder, data: Dataset) -> Figure:
    """Draw test rows x and ``E[x | z]`` at ``z = E_q[z | x]``: joined points, images in pairs of rows, column by column.

    Of text a sequence is drawn at that z.

    Args:
        model: of one member.
        data: whose test rows are shown.

    Returns:
        a figure.
    """
    kind = kind_of(model, data)
    if kind == TEXT:
        return _spoken(model, data)
    count = {IMAGES: 3 * _ACROSS}.get(kind, _POINTS)
    x = data.test[:count]
    back = decoded(model, codes(model, x))
    if kind == IMAGES and data.shape is not None:
        figure, axes = canvas(1, 1, 3.4)
        pairs = [
            part
            for pair in zip(x.split(_ACROSS), back.split(_ACROSS), strict=True)
            for part in pair
            if len(part) == _ACROSS
        ]
        wall(axes[0, 0], torch.cat(pairs), data.shape, _ACROSS)
        axes[0, 0].set_title("test rows, each line of them above what comes back")
        return figure
    if kind == PLANE:
        figure, axes = canvas(1, 1, 4.0)
        ax = axes[0, 0]
        segments = [segment.numpy() for segment in torch.stack((x, back), 1)]
        ax.add_collection(LineCollection(segments, colors=["#BBBBBB"], lw=0.5, zorder=0))
        points(ax, x, color=colour(0), alpha=0.8)
        points(ax, back, color=colour(1), alpha=0.8)
        ax.set_title("test rows (blue) and what comes back (vermilion)")
        ax.set_aspect("equal", "datalim")
        return figure
    return _columns(data, x, back)


def _columns(data: Dataset, x: torch.Tensor, back: torch.Tensor) -> Figure:
    figure, panels = column_panels(data, 2.1)
    for number, ax in enumerate(panels):
        points(ax, torch.stack((x[:, number], back[:, number]), 1))
        low, high = float(x[:, number].min()), float(x[:, number].max())
        ax.plot([low, high], [low, high], color="black", lw=0.6)
    figure.supxlabel("test rows", fontsize=8)
    figure.supylabel("what comes back", fontsize=8)
    return figure


def _spoken(model: Any, data: Dataset) -> Figure:
    x = data.test[:_LINES]
    z = codes(model, x)
    generator = torch.Generator(model.device).manual_seed(0)
    with torch.no_grad():
        back = model._data_draws(z.unsqueeze(0), generator)[0].cpu()
    figure, axes = canvas(1, 2, 2.6)
    lines(axes[0, 0], said(data, x), "test rows", 50)
    lines(axes[0, 1], said(data, back), "drawn at their posteriors' means", 50)
    return figure

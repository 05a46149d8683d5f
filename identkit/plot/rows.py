"""Rows of data as a picture shows them: points of the plane, walls of images, columns of a table, lines of text."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from identkit.lidvae.datasets import Dataset
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.plot.style import SERIES, canvas

PLANE, IMAGES, TABLE, TEXT = "plane", "images", "table", "text"
_MOST_COLUMNS, _ABREAST = 6, 3


def kind_of(model: Autoencoder, data: Dataset) -> str:
    """How rows of these data are drawn."""
    if model.whole_numbers:
        return TEXT
    if data.shape is not None and len(data.shape) == 2:
        return IMAGES
    return PLANE if data.train.shape[1] == 2 and model.likelihood.name == "gaussian" else TABLE


@torch.no_grad()
def codes(model: Autoencoder, x: Shaped[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """``E_q z`` of a model of one member."""
    return model.infer(model.rows(x)).latent_mean()[0]


@torch.no_grad()
def decoded(model: Any, z: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
    """``E[x | z]`` of a model of one member, on the CPU."""
    outputs = model.decoder(z.to(model.device, model.dtype).unsqueeze(0))
    return model.likelihood.mean(outputs)[0].cpu()


def wall(ax: Axes, x: Float[Tensor, "n d"], shape: tuple[int, ...], columns: int) -> None:
    """Images side by side, row by row; grey values between 0 and 1."""
    height, width = shape
    rows = math.ceil(len(x) / columns)
    picture = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1))
    for number, image in enumerate(x.reshape(-1, height, width).numpy()):
        top, left = divmod(number, columns)
        top, left = top * (height + 1), left * (width + 1)
        picture[top : top + height, left : left + width] = 1 - image
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()


def column_panels(data: Dataset, height: float) -> tuple[Figure, list[Axes]]:
    """A figure and a titled panel for each of the first columns of a table, three side by side, each so many inches high."""
    names = data.column_names[:_MOST_COLUMNS]
    rows = math.ceil(len(names) / _ABREAST)
    figure, axes = canvas(rows, min(_ABREAST, len(names)), height * rows)
    panels = list(axes.ravel())
    for ax, name in zip(panels, names, strict=False):
        ax.set_title(name)
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    return figure, panels[: len(names)]


def points(
    ax: Axes,
    x: Float[Tensor, "n 2"],
    labels: Shaped[Tensor, " n"] | None = None,
    size: float = 4.0,
    **style: Any,
) -> None:
    """Points of the plane, coloured by label where there are any."""
    if labels is None:
        ax.scatter(*x.T.numpy(), s=size, lw=0, **{"color": SERIES[0], "alpha": 0.6, **style})
        return
    for number, label in enumerate(labels.unique().tolist()):
        rows = x[labels == label]
        ax.scatter(*rows.T.numpy(), s=size, lw=0, color=colour(number), **{"alpha": 0.7, **style})


def colour(number: int) -> Any:
    """Of the number-th label: this page's colours first, others where they do not suffice."""
    more = matplotlib.colormaps["tab20"]
    return SERIES[number] if number < len(SERIES) else more((2 * number) % 20 / 20 + 0.025)


def lines(ax: Axes, texts: list[str], title: str, width: int) -> None:
    """Lines of text, cut to a width."""
    ax.set_axis_off()
    ax.set_title(title, loc="left")
    cut = [text if len(text) <= width else text[: width - 1] + "…" for text in texts]
    # A dollar sign would begin a formula.
    ax.text(
        0,
        1,
        "\n".join(cut).replace("$", r"\$"),
        va="top",
        fontsize=6.5,
        family="monospace",
        transform=ax.transAxes,
    )


def said(data: Dataset, x: Shaped[Tensor, "n d"]) -> list[str]:
    """Rows of states in the words of the data: characters run on, words have blanks between."""
    vocabulary = data.vocabulary or tuple(str(state) for state in range(int(x.max()) + 1))
    between = "" if all(len(word) == 1 for word in vocabulary[1:]) else " "
    return [between.join(_visible(vocabulary[state]) for state in row) for row in x.long().tolist()]


def _visible(word: str) -> str:
    return {"\n": "⏎", "<eol>": "⏎"}.get(word, word)

"""What a latent does: a grid of latents and its image, walls of decoded images, means along each latent."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from identkit.lidvae.datasets import Dataset
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.plot.rows import IMAGES, PLANE, TEXT, codes, colour, decoded, kind_of, points, wall
from identkit.plot.style import canvas, styled

_REACH = 2.5  # standard deviations of the prior
_RULES, _FINE = 21, 101  # lines each way, and points along each
_MOST_POINTS = 2000
_WALL = 12  # images each way
_ALONG, _MOST_LATENTS = 11, 8
_MOST_COLUMNS = 6


@styled
def latent_grid(model: Autoencoder, data: Dataset) -> Figure:
    """Draw where rows lie among the latents, and what the latents are decoded to.

    Data of the plane with two latents: a grid of z and its image under the decoder, lines of equal z[1] blue, of equal
    z[2] vermilion. Images: a wall of decoded means over a grid of two latents, or along each of several latents through
    0. Tables: the decoded means along two latents. Text: the latents alone.

    Args:
        model: of one member.
        data: whose test rows are shown.

    Returns:
        a figure of one or two panels.
    """
    kind = kind_of(model, data)
    x, labels = data.test[:_MOST_POINTS], None if data.labels is None else data.labels.test[:_MOST_POINTS]
    means = codes(model, x).cpu()
    figure, axes = canvas(1, 1 if kind == TEXT else 2, 3.6)
    left = axes[0, 0]
    shown = [0, 1] if model.latents == 2 else means.var(0).argsort(descending=True)[:2].tolist()
    if model.latents == 1:
        left.hist(means[:, 0].numpy(), bins=40, color=colour(0))
        left.set_xlabel("E[z | x] under q")
    else:
        points(left, means[:, shown], labels)
        left.set_xlabel(f"z[{shown[0] + 1}]")
        left.set_ylabel(f"z[{shown[1] + 1}]")
    left.set_title("posterior means of test rows under q")
    if kind == TEXT:
        return figure
    right = axes[0, 1]
    if kind == PLANE and model.latents == 2:
        _image_of_grid(left, right, model, means)
        points(right, x, None, size=3, color="#888888", alpha=0.5)
        right.set_title("the grid decoded, and test rows")
        right.set_aspect("equal", "datalim")
    elif kind == IMAGES and data.shape is not None:
        _walls(right, model, data.shape, means)
    else:
        _along(right, model, data, shown)
    return figure


def _image_of_grid(left: Axes, right: Axes, model: Autoencoder, means: Float[Tensor, "n 2"]) -> None:
    """Lines of equal z[1] and of equal z[2], and where the decoder sends them."""
    reach = max(_REACH, float(means.abs().amax())) if len(means) else _REACH
    rules = torch.linspace(-reach, reach, _RULES)
    fine = torch.linspace(-reach, reach, _FINE)
    for axis, hue in ((0, colour(0)), (1, colour(1))):
        lines = torch.empty(_RULES, _FINE, 2)
        lines[..., axis] = rules[:, None]
        lines[..., 1 - axis] = fine
        image = decoded(model, lines.reshape(-1, 2)).reshape(_RULES, _FINE, 2)
        for ax, curves in ((left, lines), (right, image)):
            segments = [curve.numpy() for curve in curves]
            ax.add_collection(LineCollection(segments, colors=[hue], lw=0.4, alpha=0.6, zorder=0))
    left.set_aspect("equal", "datalim")
    left.autoscale_view()
    right.autoscale_view()


def _walls(ax: Axes, model: Autoencoder, shape: tuple[int, ...], means: Float[Tensor, "n k"]) -> None:
    if model.latents == 2:
        quantiles = torch.linspace(0.03, 0.97, _WALL)
        axis = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
        z = torch.cartesian_prod(-axis, axis)[:, [1, 0]]  # z[1] to the right, z[2] upwards
        wall(ax, decoded(model, z), shape, _WALL)
        ax.set_title("decoded means at the prior's quantiles")
        return
    shown = means.var(0).argsort(descending=True)[:_MOST_LATENTS].tolist()
    values = torch.linspace(-_REACH, _REACH, _ALONG)
    z = torch.zeros(len(shown) * _ALONG, model.latents)
    for row, latent in enumerate(shown):
        z[row * _ALONG : (row + 1) * _ALONG, latent] = values
    wall(ax, decoded(model, z), shape, _ALONG)
    names = ", ".join(f"z[{latent + 1}]" for latent in shown)
    ax.set_title(f"decoded means along {names},\n−{_REACH} to {_REACH}, the other latents 0", fontsize=7)


def _along(ax: Axes, model: Autoencoder, data: Dataset, shown: list[int]) -> None:
    """Decoded means of some columns as one latent goes its way and the others stay at 0."""
    values = torch.linspace(-_REACH, _REACH, _FINE)
    latents = shown if model.latents > 1 else [0]
    image = []
    for latent in latents:
        z = torch.zeros(_FINE, model.latents)
        z[:, latent] = values
        image.append(decoded(model, z))
    moved = torch.stack([each.amax(0) - each.amin(0) for each in image]).amax(0)
    columns = moved.argsort(descending=True)[:_MOST_COLUMNS].tolist()
    names = data.column_names
    for number, column in enumerate(sorted(columns)):
        for style, each in zip(("-", "--"), image, strict=False):
            label = names[column] if style == "-" else None
            ax.plot(values.numpy(), np.asarray(each[:, column]), style, color=colour(number), label=label)
    ax.set_xlabel("z")
    words = f"z[{latents[0] + 1}] (solid)" + (f", z[{latents[1] + 1}] (dashed)" if len(latents) > 1 else "")
    ax.set_title(f"decoded means along {words}")
    ax.legend(loc="best")

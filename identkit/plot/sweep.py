"""PPCA against its noise: what happens to posterior, information and loadings as the directions die."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator
from torch import Tensor

from identkit.plot.style import LEVEL_COLOURS, SERIES, canvas, log_label, log_ticks, styled

_LETTER = 0.0115  # of the ribbon's length
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """One latent-variable model at m values of its noise, K latents; informations in nats."""

    sigmas: Float[Tensor, " m"]
    """σ, increasing."""
    posterior_sd: Float[Tensor, "m k"]
    kl_conditional: Float[Tensor, "m k"]
    """``E_Q KL(p(z_j | z_−j, x) ‖ p(z_j))``, the mean over the data."""
    mutual_information: Float[Tensor, " m"]
    """``I(z; x)``."""
    loading_norms: Float[Tensor, "m k"]
    """``‖W_j‖``."""
    levels: Sequence[Sequence[str]]
    """The verdict's level of each latent, m lists of K names."""
    eigenvalues: Float[Tensor, " k"]
    """λ_j: direction j dies where σ² passes it."""
    title: str = ""

    def __post_init__(self) -> None:
        shape = tuple(self.posterior_sd.shape)
        if (len(self.levels), {len(row) for row in self.levels}) != (shape[0], {shape[1]}):
            expected = f"{shape[0]} lists of {shape[1]} names"
            raise ValueError(f"levels should be {expected}, got {self.levels!r:.80}")
        if shape[0] < 2 or not bool((self.sigmas[1:] > self.sigmas[:-1]).all()) or self.sigmas[0] <= 0:
            found = f"{self.sigmas.tolist()!s:.80}"
            raise ValueError(f"sigmas should be positive and increasing, two at least, got {found}")


@styled
def ppca_sweep(sweep: Sweep) -> Figure:
    """Draw posterior, information, loadings and verdict of each latent against the noise σ.

    From the top: posterior standard deviation (the prior's is 1); conditional KL of each latent and the
    mutual information; ML loadings, ``‖W_j‖² = (λ_j − σ²)₊``; the checker's level. Dotted lines stand at
    ``σ = √λ_j``, where verdict and posterior must switch together.

    Source: Tipping & Bishop 1999, eq. 7; Lucas et al. 2019; theory/T1.

    Args:
        sweep: the results.

    >>> import torch
    >>> sigmas = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> loadings = (4 - sigmas**2).clamp(min=0).sqrt()[:, None]
    >>> sd = (1 + (loadings / sigmas[:, None]) ** 2) ** -0.5
    >>> figure = ppca_sweep(Sweep(
    ...     sigmas=sigmas, posterior_sd=sd, kl_conditional=loadings, mutual_information=-sd.log()[:, 0],
    ...     loading_norms=loadings, levels=[["GLOBAL"], ["CONSTANT"]],
    ...     eigenvalues=torch.tensor([4.0], dtype=torch.float64)))
    >>> [text.get_text() for text in figure.axes[3].texts]
    ['GLOBAL', 'CONSTANT']
    """
    k = len(sweep.eigenvalues)
    figure, axes = canvas(4, 1, 5.4 + 0.2 * k, sharex=True, height_ratios=(1, 1, 1, 0.16 + 0.16 * k))
    spread, information, loadings, ribbon = axes[:, 0]
    sigmas = sweep.sigmas.numpy()

    spread.axhline(1.0, color="#888888", lw=0.8, ls=(0, (4, 2)))
    words = {"xytext": (2, 3), "textcoords": "offset points", "color": "#555555", "fontsize": 7}
    spread.annotate("prior", (sigmas[0], 1.0), **words)
    panels = {spread: sweep.posterior_sd, information: sweep.kl_conditional, loadings: sweep.loading_norms}
    for ax, values in panels.items():
        for j, column in enumerate(values.numpy().T):
            style = {"color": SERIES[j % len(SERIES)], "ls": _DASHES[j % len(_DASHES)]}
            ax.plot(sigmas, column, **style, label=f"z[{j + 1}]")
    total = {"color": "#BBBBBB", "lw": 3.5, "zorder": 1, "label": "$I(z; x)$, all latents"}
    information.plot(sigmas, sweep.mutual_information.numpy(), **total)
    for ax in panels:
        ax.margins(y=0.1)
        ax.set_ylim(bottom=0)
    spread.set_ylabel("posterior sd\nof each latent")
    information.set_ylabel("conditional KL\nand $I(z; x)$  [nats]")
    loadings.set_ylabel("ML loadings ‖$W_j$‖")
    _deaths(list(axes[:, 0]), sweep)
    _ribbon(ribbon, sweep, sigmas)
    handles = information.get_legend_handles_labels()[0]
    present = {level for row in sweep.levels for level in row}
    handles += [Patch(color=_tint(level), lw=0, label=level) for level in sorted(present)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
    if sweep.title:
        spread.set_title(sweep.title, loc="left", pad=16)
    return figure


def _deaths(axes: Sequence[Axes], sweep: Sweep) -> None:
    low, high = float(sweep.sigmas[0]), float(sweep.sigmas[-1])
    for j, eigenvalue in enumerate(sweep.eigenvalues.tolist()):
        at = math.sqrt(max(eigenvalue, 0.0))
        if not low < at < high:
            continue
        for ax in axes:
            ax.axvline(at, color="#333333", lw=0.8, ls=(0, (1, 1.5)), zorder=1.5)
        words = f"√λ$_{{{j + 1}}}$ = {at:.2f}"
        # The larger eigenvalue's label leans right, the others' left: neighbours keep apart.
        side = "left" if j == 0 else "right"
        axes[0].annotate(
            words, (at, 1.0), xycoords=axes[0].get_xaxis_transform(), xytext=(2 if j == 0 else -2, 2),
            textcoords="offset points", ha=side, va="bottom", fontsize=7,
        )  # fmt: skip


def _ribbon(ax: Axes, sweep: Sweep, sigmas: np.ndarray) -> None:
    middles = np.sqrt(sigmas[1:] * sigmas[:-1])
    edges = np.concatenate([sigmas[:1], middles, sigmas[-1:]])
    k = len(sweep.eigenvalues)
    whole = math.log(edges[-1] / edges[0])
    for j in range(k):
        for level, start, stop in _runs([row[j] for row in sweep.levels]):
            left, right = edges[start], edges[stop]
            ax.barh(j, right - left, 0.8, left=left, color=_tint(level), ec="white", lw=0.6, gid=level)
            if math.log(right / left) > _LETTER * len(level) * whole:
                box = {"fc": _tint(level), "ec": "none", "pad": 0.5}
                ax.text(math.sqrt(left * right), j, level, ha="center", va="center", fontsize=7, bbox=box)
    ax.set_ylim(k - 0.4, -0.6)
    ax.set_yticks(range(k), [f"z[{j + 1}]" for j in range(k)])
    ax.set_ylabel("verdict", rotation=0, ha="right", va="center")
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xscale("log")
    ax.set_xlim(sigmas[0], sigmas[-1])
    ticks = log_ticks(sigmas[0], sigmas[-1])
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_ticklabels([log_label(tick) for tick in ticks])
    ax.set_xlabel("noise σ")


def _tint(level: str) -> tuple[float, float, float]:
    red, green, blue = (1 - 0.55 * (1 - part) for part in to_rgb(LEVEL_COLOURS[level]))
    return red, green, blue


def _runs(levels: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    start = 0
    for level, run in itertools.groupby(levels):
        length = len(list(run))
        yield level, start, start + length
        start += length

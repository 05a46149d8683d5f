"""Trained networks: where what a user sees of a collapse and what the likelihood does coincide, and a latent's death."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta

from identkit.deep.strip import Strip
from identkit.deep.trained import THRESHOLD, Explanation, Said, Trained
from identkit.plot.style import POSTERIOR, PRIOR, SERIES, WIDTH, WRONG, canvas, plural, styled

_LEVEL = 0.95


@styled
def collapse_table(found: Sequence[Trained]) -> Figure:
    """Draw, of every latent of every model, collapsed against flat: by the encoder on the left, by the truth on the right.

    Off the diagonal stands why, by `identkit.diagnose`'s three measures; what nothing explains is framed. The share on the
    diagonal has a Clopper–Pearson interval.

    Args:
        found: trained models of the deep suite.
    """
    latents = [latent for model in found for latent in model.latents]
    figure, axes = canvas(1, 2, 2.6)
    left, right = axes[0]
    _table(left, latents, by_encoder=True)
    _table(right, latents, by_encoder=False)
    left.set_title(
        f"What the encoder says\n{_rate(sum(s.collapsed == s.flat for s in latents), len(latents))}",
        loc="left",
    )
    agreeing = sum(s.dead == s.flat for s in latents)
    right.set_title(f"The true posterior\n{_rate(agreeing, len(latents))}", loc="left")
    return figure


def _table(ax: Axes, latents: Sequence[Said], *, by_encoder: bool) -> None:
    cells: dict[tuple[int, int], list[Said]] = {(i, j): [] for i in range(2) for j in range(2)}
    for said in latents:
        collapsed = said.collapsed if by_encoder else said.dead
        cells[int(not collapsed), int(not said.flat)].append(said)
    shade = np.ones((2, 2, 3))
    for (i, j), members in cells.items():
        if i == j and members:
            shade[i, j] = (0.78, 0.88, 0.95)
        words = [f"{len(members):,}"]
        if i != j and members:
            counts = Counter(said.explanation if by_encoder else said.true_explanation for said in members)
            words += [f"{count}: {why.short}" for why, count in counts.most_common()]
            if Explanation.NONE in counts:
                ax.add_patch(_frame(i, j))
        ax.text(j, i, "\n".join(words), ha="center", va="center", fontsize=7 if i != j else 9)
    ax.imshow(shade, aspect="auto")
    ax.set_xticks(range(2), ["flat", "not flat"])
    ax.set_yticks(range(2), ["collapsed", "not\ncollapsed"])
    ax.set_xlabel(f"likelihood: ½ E Var(ℓ | others) ≤ {THRESHOLD:g} or not")
    ax.set_ylabel("E KL(q ‖ p)" if by_encoder else "E KL(p(z | x) ‖ p)")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _frame(i: int, j: int):  # type: ignore[no-untyped-def]
    from matplotlib.patches import Rectangle

    return Rectangle((j - 0.48, i - 0.47), 0.96, 0.94, fill=False, ec=WRONG, lw=2)


def _rate(good: int, n: int) -> str:
    low = beta.ppf((1 - _LEVEL) / 2, good, n - good + 1) if good else 0.0
    high = beta.ppf((1 + _LEVEL) / 2, good + 1, n - good) if good < n else 1.0
    return f"{good:,} of {plural(n, 'latent')} agree [{low:.1%}, {high:.1%}]"


@styled
def film(strips: Sequence[Strip]) -> Figure:
    """Draw the true posterior of one datum along training, and below it flatness, true KL and the encoder's KL.

    Args:
        strips: one row of pictures each.
    """
    pictures = len(strips[0].steps)
    figure = Figure(figsize=(WIDTH, 1.05 * len(strips) + 2.1), layout="constrained")
    grid = figure.add_gridspec(len(strips) + 1, 1, height_ratios=[1.0] * len(strips) + [1.9])
    for number, strip in enumerate(strips):
        row = grid[number].subgridspec(1, pictures, wspace=0.02)
        for place, (step, density) in enumerate(zip(strip.steps, strip.density, strict=True)):
            ax = figure.add_subplot(row[place])
            span = (-strip.reach, strip.reach) * 2
            ax.imshow(density.T.numpy(), origin="lower", cmap="Blues", extent=span, vmin=0)  # type: ignore[arg-type]
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
            if number == 0:
                ax.set_title(f"{step:,} steps", fontsize=7)
            if place == 0:
                ax.set_ylabel(strip.name, fontsize=7)
    panels = grid[len(strips)].subgridspec(1, len(strips))
    first: Axes | None = None
    for number, strip in enumerate(strips):
        ax = figure.add_subplot(panels[number], sharey=first)
        steps = np.maximum(strip.steps, 1)
        ax.plot(steps, strip.flatness.numpy(), color=PRIOR, ls=(0, (4, 2)), label="½ Var$_P$(ℓ)")
        ax.plot(steps, strip.truth.numpy(), color=POSTERIOR, marker="o", ms=3, label="true posterior's KL")
        ax.plot(steps, strip.encoder.numpy(), color=SERIES[1], marker="x", ms=3, label="encoder's KL")
        ax.set(xscale="log", yscale="log", xlabel="steps (0 drawn at 1)", title=strip.name)
        if first is None:
            ax.set_ylabel("nats a row")
            ax.legend()
        first = first or ax
    return figure

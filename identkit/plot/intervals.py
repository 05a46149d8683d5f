"""Posterior means and standard deviations of many data beside the prior's, latent by latent, with what each datum told."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from identkit.plot.style import POSTERIOR, PRIOR, BrokenAxis, canvas, number, styled
from identkit.posterior.information import Collapse

_MOST = 6


@styled
def intervals(found: Collapse, prior: tuple[Tensor, Tensor] | None = None, title: str = "") -> Figure:
    """Draw mean ± standard deviation of each datum's posterior, data sorted by their mean, over the prior's band.

    Beside it the KL that the datum told about this latent given the others, which is 0 iff the likelihood ignores the
    latent (theory/T3); zeros lie in the shaded strip.

    Args:
        found: what `identkit.collapse` returned; the first six latents are drawn.
        prior: mean and standard deviation of each latent, (k,) each; no band without them.
        title: above all.

    Returns:
        A figure with two panels a latent.

    >>> from identkit import collapse
    >>> c = collapse("z ~ Normal(0, 1); observe x ~ Normal(z, 1)", [[-1.0], [0.5]])
    >>> [ax.get_ylabel() for ax in intervals(c).axes]
    ['z', 'KL (nats)']
    """
    count = min(len(found.names), _MOST)
    figure, axes = canvas(count, 2, 0.7 + 1.5 * count, width_ratios=(2.2, 1.0))
    for j in range(count):
        mean, sd = found.posterior_mean[:, j].cpu().numpy(), found.posterior_sd[:, j].cpu().numpy()
        order = np.argsort(mean, kind="stable")
        places = np.arange(1, len(order) + 1)
        left, right = axes[j]
        if prior is not None:
            middle, spread = (float(value[j]) for value in prior)
            left.axhspan(middle - spread, middle + spread, color=PRIOR, alpha=0.12, lw=0, label="prior ± sd")
            left.axhline(middle, color=PRIOR, ls=(0, (4, 2)), lw=0.8)
        bars: dict[str, Any] = {
            "fmt": "o",
            "ms": max(1.0, min(3.0, 90 / len(order))),
            "lw": 0.7,
            "color": POSTERIOR,
        }
        left.errorbar(places, mean[order], sd[order], label="posterior ± sd", **bars)
        left.set_ylabel(found.names[j])
        kl = found.kl_conditional[:, j].cpu().numpy()[order]
        zero = kl <= found.kl_conditional_error[:, j].cpu().numpy()[order]
        scale = BrokenAxis(kl, zero)
        right.plot(places, scale.positions, ".", color=POSTERIOR, ms=3)
        scale.apply(right, "y")
        right.set_ylabel("KL (nats)")
        right.set_title(f"mean {number(float(kl.mean()))} nats")
        if j == count - 1:
            left.set_xlabel("datum, sorted by its posterior mean")
            right.set_xlabel("datum, in the same order")
    axes[0, 0].legend(loc="best")
    if title:
        figure.suptitle(title, fontsize=9)
    return figure

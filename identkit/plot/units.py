"""Which latents are used: the KL of each, sorted, beside what the decoder's constants certify."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from identkit.lidvae.run import Run
from identkit.plot.style import SERIES, canvas, styled

_OFF = "#BBBBBB"


@styled
def active_units(run: Run) -> Figure:
    """Draw ``E_x KL(q(z_k | x) ‖ p(z_k))`` of each latent on the test rows, nats, largest first.

    Bars are the best member's, coloured where the unit is active; dots are the other members, sorted each for itself.
    The dashed line is the certified floor shared out among the latents: a bound on their mean under the model's own
    marginal, not on each.

    Args:
        run: what `identkit.fit` returned.

    Returns:
        a figure of one panel.
    """
    figure, axes = canvas(1, 1, 3.0)
    ax = axes[0, 0]
    best = run.best_number if bool(run.fine.any()) else 0
    metrics = run.metrics
    own = metrics[best]
    order = _sorted(own.kl)
    places = np.arange(len(order))
    counted = [name for name in order if not name.startswith("z[")]
    fills = [
        SERIES[2] if name in counted else SERIES[0] if name in own.active_units else _OFF for name in order
    ]
    ax.bar(places, [own.kl[name] for name in order], color=fills, width=0.6)
    ax.set_xlim(-0.6, max(3.0, len(order) - 1) + 0.6)  # a bar is a bar, not a wall
    others = [
        [each.kl[name] for name in _sorted(each.kl)] for number, each in enumerate(metrics) if number != best
    ]
    for number, heights in enumerate(others):
        ax.plot(places, heights, "o", color="black", ms=2.5, label=None if number else "other members")
    latents = sum(name not in counted for name in order)
    said = f"{run.names[best]}: {len(own.active_units)} of {latents} latents active"
    if own.lower is not None:
        said += f"; m = {own.lower:.3g} certified"
    if own.floor is not None:
        said += f", at least {own.floor:.3g} nats in all under the model"
        ax.axhline(
            own.floor / latents, color=SERIES[1], ls="--", lw=1.0, label="certified floor, its mean share"
        )
    ax.set_xticks(places, order, rotation=90 if len(order) > 12 else 0)
    ax.set_ylabel("KL to the prior, nats")
    ax.set_title(said)
    if others or own.floor is not None:
        figure.legend(loc="outside lower right", ncols=2)
    return figure


def _sorted(kl: Mapping[str, float]) -> list[str]:
    """Discrete latents first, then the others from the largest."""
    return sorted(kl, key=lambda name: (name.startswith("z["), -kl[name]))

"""How training went: the ELBO of every member along its steps."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from identkit.lidvae.run import Run
from identkit.plot.rows import colour
from identkit.plot.style import canvas, styled

_EARLY = 0.1  # of the evaluations, which may run out of the picture
_NAMED = 8


@styled
def curves(run: Run) -> Figure:
    """Draw validation ELBO (solid) and training objective (dotted) of every member, in nats a row.

    The first tenth may lie below the picture, so that the rest can be read. A cross ends a member that diverged.

    Args:
        run: what `identkit.fit` returned.

    Returns:
        a figure of one panel.
    """
    figure, axes = canvas(1, 1, 3.0)
    ax = axes[0, 0]
    steps, validation, train = (run.curves[name].numpy() for name in ("step", "validation", "train"))
    for number, name in enumerate(run.names):
        labelled = name if number < _NAMED else None
        ax.plot(steps, train[:, number], ":", color=colour(number), lw=0.8, alpha=0.7)
        ax.plot(steps, validation[:, number], color=colour(number), label=labelled)
        if run.stopped[number] is not None:
            ax.plot(steps[-1], validation[-1, number], "x", color=colour(number))
    late = np.concatenate([table[int(_EARLY * len(steps)) :].ravel() for table in (validation, train)])
    late = late[np.isfinite(late)]
    if len(late):
        margin = 0.06 * max(np.ptp(late), 1e-3)
        ax.set_ylim(late.min() - margin, late.max() + margin)
    ax.set_xlabel("steps")
    ax.set_ylabel("nats a row")
    ax.set_title("validation ELBO (solid) and minus the training loss (dotted)")
    ax.legend(loc="lower right", ncols=2)
    return figure

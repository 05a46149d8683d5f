"""Pictures of results: every function takes results and returns matplotlib Axes or a Figure.

What is drawn lives here; what a result could carry is not computed here. No window, no global state.
"""

from __future__ import annotations

from identkit.plot.curves import curves
from identkit.plot.density import posterior
from identkit.plot.faults import diagnosis
from identkit.plot.intervals import intervals
from identkit.plot.latents import latent_grid
from identkit.plot.plane import agreement, theorem
from identkit.plot.reconstructions import reconstructions
from identkit.plot.samples import samples
from identkit.plot.sweep import Sweep, ppca_sweep
from identkit.plot.trained import collapse_table, film
from identkit.plot.units import active_units
from identkit.plot.weight import WeightPanel, mixture_weight

__all__ = [
    "Sweep",
    "WeightPanel",
    "active_units",
    "agreement",
    "collapse_table",
    "curves",
    "diagnosis",
    "film",
    "intervals",
    "latent_grid",
    "mixture_weight",
    "posterior",
    "ppca_sweep",
    "reconstructions",
    "samples",
    "theorem",
]

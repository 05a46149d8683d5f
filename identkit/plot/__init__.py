"""Pictures of results: every function takes results and returns matplotlib Axes or a Figure.

What is drawn lives here; what a result could carry is not computed here. No window, no global state.
"""

from __future__ import annotations

from identkit.plot.density import posterior
from identkit.plot.faults import diagnosis
from identkit.plot.intervals import intervals
from identkit.plot.plane import agreement, theorem
from identkit.plot.sweep import Sweep, ppca_sweep
from identkit.plot.trained import collapse_table, film
from identkit.plot.weight import WeightPanel, mixture_weight

__all__ = [
    "Sweep",
    "WeightPanel",
    "agreement",
    "collapse_table",
    "diagnosis",
    "film",
    "intervals",
    "mixture_weight",
    "posterior",
    "ppca_sweep",
    "theorem",
]

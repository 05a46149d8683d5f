"""Which parameters does the law of the data determine, the latents integrated out? Models with settled answers.

The identifiers in `source` (A1, B10, …) are rows of the project's table of known answers, with the unknowns, the rank
and the deficiency (n/r/d) that it states, and the number of complex solutions (#). Where the table says nothing of an
unknown, the source says how its level was derived.
"""

from __future__ import annotations

from identkit.zoo import counts, dynamics, factor_models, mixture_models, networks, regressions, structural

CASES = (
    *factor_models.CASES,
    *mixture_models.CASES,
    *dynamics.CASES,
    *structural.CASES,
    *regressions.CASES,
    *counts.CASES,
    *networks.CASES,
)

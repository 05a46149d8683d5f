"""Proofs that re-check themselves. Nothing here calls the search: not `field`, `symmetry` nor `injectivity`;
only the definition of the law (`summary`) is shared.

Each claim is re-derived from the model's statements: laws are compared through their natural parameters (the search
compares arguments), zeros are proved by SymPy's own simplifier after a try at refuting them in ball arithmetic, and
non-zeros by balls. What the claims amount to, `proof` derives from them alone.
"""

from __future__ import annotations

from identkit.symbolic.certificates.claim import Claim, Point
from identkit.symbolic.certificates.on_data import (
    Data,
    ExcludedByData,
    FlatOnData,
    GapOnData,
    InvisibleOnData,
    SpanOnData,
)
from identkit.symbolic.certificates.on_the_law import (
    AllDiffer,
    DiscreteFibre,
    Folded,
    Ignored,
    Invisible,
    Merged,
    Monotone,
    OneValue,
    ReadsOff,
    Recovered,
)

__all__ = [
    "AllDiffer",
    "Claim",
    "Data",
    "DiscreteFibre",
    "ExcludedByData",
    "FlatOnData",
    "Folded",
    "GapOnData",
    "Ignored",
    "Invisible",
    "InvisibleOnData",
    "Merged",
    "Monotone",
    "OneValue",
    "Point",
    "ReadsOff",
    "Recovered",
    "SpanOnData",
]

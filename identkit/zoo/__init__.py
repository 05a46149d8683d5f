"""Named models with their known answers and citations: the one table for tests, `verify`, docs and demos.

No answer here is computed by identkit; each is known from a paper or from a derivation by hand.
"""

from __future__ import annotations

from identkit.zoo import (
    classical,
    conjugate_posteriors,
    item_posteriors,
    joint,
    latents,
    markov_posteriors,
    mixture_posteriors,
    parameters,
    state_space_posteriors,
)
from identkit.zoo.case import Case

_FAMILIES = (
    mixture_posteriors,
    conjugate_posteriors,
    item_posteriors,
    markov_posteriors,
    state_space_posteriors,
)
_ROOMS = (classical, *_FAMILIES, latents, parameters, joint)
CASES: dict[str, Case] = {case.name: case for room in _ROOMS for case in room.CASES}
"""Every case by its name, as `identkit check NAME` takes it."""
FAMILIES: tuple[str, ...] = tuple(case.name for room in _FAMILIES for case in room.CASES)
"""The cases of the classical families, each on both sides of the line between collapsed and seen."""

"""Named models with their known answers and citations: the one table for tests, `verify`, docs and demos.

No answer here is computed by identkit; each is known from a paper or from a derivation by hand.
"""

from __future__ import annotations

from identkit.zoo import classical, joint, latents, parameters
from identkit.zoo.case import Case

CASES: dict[str, Case] = {
    case.name: case for case in (*classical.CASES, *latents.CASES, *parameters.CASES, *joint.CASES)
}
"""Every case by its name, as `identkit check NAME` takes it."""

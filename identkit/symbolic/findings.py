"""What has been proved so far about a model's latents, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sympy import Symbol

from identkit.model.model import Model
from identkit.symbolic.certificates import Claim
from identkit.symbolic.support import varies
from identkit.verdict import Invariance, Level


@dataclass
class Findings:
    """What has been proved so far about a model's latents; filled step by step, then frozen into a `Verdict`."""

    levels: dict[str, Level] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    invariances: list[Invariance] = field(default_factory=list)
    identifiable: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    at_least: list[str] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    pinned: set[Symbol] = field(default_factory=set)
    """counts that may not take every value, so that no translation of them is known to stay in the support"""


def refuse_one_value(found: Findings, latents: Sequence[Symbol], held: Sequence[Model]) -> None:
    """UNKNOWN for what the prior may leave one value only."""
    # "Determined" would be an empty word for a count that the prior may fix, such as Poisson(0).
    for latent in latents:
        claimed = found.levels[latent.name] in (Level.GLOBAL, Level.LOCAL)
        if claimed and not any(varies(model, latent) for model in held):
            found.levels[latent.name] = Level.UNKNOWN
            found.tried.append(f"whether the prior leaves {latent.name} more than one value was not decided")


def undecided(model: Model, reason: str) -> Findings:
    """Every latent UNKNOWN, for one reason."""
    return Findings(levels=dict.fromkeys(model.latent_names, Level.UNKNOWN), tried=[reason])

"""The theorem on trained networks: the verdict on the decoder's law beside the true posterior of each datum."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch

from identkit.dispatch import check
from identkit.lidvae.models import Autoencoder
from identkit.lidvae.truth import true_posteriors
from identkit.model.protocol import Flatness
from identkit.posterior.bounds import band
from identkit.posterior.information import Collapse
from identkit.posterior.lattice import LatticePosterior
from identkit.theorem.rows import TheoremCheck, datum_row, mean_row
from identkit.verdict import Level, Verdict

# What a law that is not constant means for almost every datum, if the densities are analytic, as networks' are.
_ON_DATA = {Level.LOCAL: Level.INFORMED, Level.GLOBAL: Level.INFORMED}


def verify_trained(
    model: Autoencoder, x: Any, *, setting: str = "", verdict: Verdict | None = None
) -> TheoremCheck:
    """Confirm on these data that the true posterior is the prior iff the decoder's law ignores the latent (theory/T1).

    Args:
        model: of one member, with one to three standard normal latents.
        x: (n, d).
        setting: a few words that tell this check from others.
        verdict: of `check` on the model, where it is at hand.

    Raises:
        ValueError: several members, more than three latents, data of another shape.
    """
    if model.members != 1:
        raise ValueError(f"model should have one member, such as run.members[0], got {model.members}")
    found = true_posteriors(model, torch.as_tensor(x), gradients=True)
    return checked(model.name, setting, check(model) if verdict is None else verdict, found)


def checked(
    name: str, setting: str, verdict: Verdict, found: LatticePosterior, member: int = 0
) -> TheoremCheck:
    """Put a verdict and one member's posteriors side by side."""
    measured = _collapse(tuple(verdict.latents), found, member)
    rows = []
    for latent in (None, *measured.names):
        level = verdict.level if latent is None else verdict.latents[latent]
        on_data, judge = _ON_DATA.get(level, level), partial(_agrees, level)
        each = [
            datum_row(i, latent, on_data, measured, (name, setting), judge, scope=verdict.scope)
            for i in range(len(measured.kl))
        ]
        rows += [*each, mean_row(each, latent, verdict, (name, setting), [True] * len(each))]
    return TheoremCheck(model=name, setting=setting, verdict=verdict, collapse=measured, rows=tuple(rows))


def _collapse(names: tuple[str, ...], found: LatticePosterior, member: int) -> Collapse:
    """The member's informations, with the band that theory/T4.4 knows for a standard normal prior (ρ = 1)."""
    own = {field: value[member] for field, value in vars(found).items()}
    variance = 2 * own["half_variance"]
    flatness = Flatness(
        variance=variance,
        variance_error=torch.zeros_like(variance),
        oscillation=torch.full_like(variance, math.inf),
        log_sobolev=1.0,
        gradient_second_moment=own["gradient_second_moment"],
        mean_shift=own["mean"].square().sum(-1),
    )
    low, high, theorems = band(flatness)
    shared = (
        "kl",
        "kl_error",
        "kl_per_latent",
        "kl_per_latent_error",
        "kl_conditional",
        "kl_conditional_error",
    )
    return Collapse(
        names=names,
        **{field: own[field] for field in shared},
        flatness=own["half_variance"],
        omega=flatness.oscillation,
        band=torch.stack([low, high], dim=1),
        bound=tuple(theorems),
        posterior_mean=own["mean"],
        posterior_sd=own["sd"],
        log_evidence=own["log_evidence"],
    )


def _agrees(level: Level, kl: float, error: float, limits: tuple[float, float] | None) -> bool | None:
    """CONSTANT iff the KL is zero up to its error, and the KL in its band.

    The verdict is about the law. Where it is not constant, a single datum may all the same weigh all values alike, so
    that a KL below its error refutes nothing.
    """
    if level is Level.UNKNOWN or not math.isfinite(error):
        return None
    if limits is not None and not limits[0] - error <= kl <= limits[1] + error:
        return False
    if level is Level.CONSTANT:
        return kl <= error
    return True if kl > error else None

"""The theorem on trained networks: the verdict on the decoder's law beside the true posterior of each datum."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from identkit.dispatch import check
from identkit.lidvae.models import Autoencoder
from identkit.lidvae.truth import true_posteriors
from identkit.model.protocol import Flatness
from identkit.numeric.on_data import informed
from identkit.numeric.probed import probed
from identkit.posterior.bounds import band
from identkit.posterior.information import Collapse
from identkit.posterior.lattice import LatticePosterior
from identkit.theorem.rows import TheoremCheck, datum_row, mean_row
from identkit.verdict import Level, Verdict, overall

# What a law that is not constant means for almost every datum, if the densities are analytic, as networks' are.
_ALMOST_SURELY = {Level.LOCAL: Level.INFORMED, Level.GLOBAL: Level.INFORMED}


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
    x = torch.as_tensor(x)
    found = true_posteriors(model, x, gradients=True)
    return checked(model.name, setting, check(model) if verdict is None else verdict, model, x, found)


def checked(
    name: str,
    setting: str,
    verdict: Verdict,
    model: Autoencoder,
    x: Tensor,
    found: LatticePosterior,
    member: int = 0,
) -> TheoremCheck:
    """Put a verdict and a model's posteriors of x side by side; the model is the given member of those in `found`."""
    measured = _collapse(tuple(verdict.latents), found, member)
    levels = _on_data(verdict, model, x)
    rows = []
    for latent in (None, *measured.names):
        data_rows = []
        for i, of_datum in enumerate(levels):
            level = overall(of_datum.values()) if latent is None else of_datum[latent]
            data_rows.append(datum_row(i, latent, level, measured, (name, setting), partial(_agrees, level)))
        rows += [*data_rows, mean_row(data_rows, latent, verdict, (name, setting), [True] * len(data_rows))]
    return TheoremCheck(model=name, setting=setting, verdict=verdict, collapse=measured, rows=tuple(rows))


def _on_data(verdict: Verdict, model: Autoencoder, x: Tensor) -> list[dict[str, Level]]:
    """What the law's verdict means for each datum; where it is open, a witness on that datum settles it or nothing does."""
    known = {name: _ALMOST_SURELY.get(level, level) for name, level in verdict.latents.items()}
    if Level.UNKNOWN not in known.values():
        return [known] * len(x)
    exact = copy.deepcopy(model).double().eval()
    seen = informed(probed(exact.log_likelihood, exact.prior, None, x)).tolist()
    return [
        {
            name: Level.INFORMED if level is Level.UNKNOWN and sure else level
            for (name, level), sure in zip(known.items(), row, strict=True)
        }
        for row in seen
    ]


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

    A law that is not constant may all the same weigh all values alike on a single datum, so that a KL below its error
    refutes nothing.
    """
    if level is Level.UNKNOWN or not math.isfinite(error):
        return None
    if limits is not None and not limits[0] - error <= kl <= limits[1] + error:
        return False
    if level is Level.CONSTANT:
        return kl <= error
    return True if kl > error else None

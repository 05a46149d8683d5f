"""The verdict on given data, where only ``log p(x | z)`` is known: one number a datum, so the ladder is coarser (T2).

A witness settles INFORMED: two latents inside the support that differ in one coordinate and between which ℓ moves far
beyond its rounding, and gradients of ℓ that leave no direction out. That nothing moves is never seen by sampling.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.numeric import bounds
from identkit.numeric.flatness import flatness
from identkit.numeric.found import Found, translations
from identkit.numeric.jacobian import jacobians
from identkit.numeric.probed import Probed
from identkit.numeric.record import Record
from identkit.numeric.rounding import spread
from identkit.numeric.states import check_states_on_data
from identkit.verdict import Level, overall

_DRAWS = 512
_CLEAR = 1e6  # roundings by which ℓ has to move
_SEEN = 100  # how many of its errors a gradient has along a direction that ℓ sees
_SPANNED = 1e-7  # component of a direction of norm 1 from which on the direction moves the latent
_HEADINGS = 4  # in which gradients are held against difference quotients


def check_density(p: Probed, seed: int = 0) -> Found:
    """Levels of latents on the data of p, all rows together as `verdict.overall` has it."""
    found = Found(p.prior.names)
    if p.prior.states is not None:
        rows = check_states_on_data(p)
        for name in found.names:
            found.settle([name], overall([row.levels[name] for row in rows]))
        found.proofs += [proof for row in rows for proof in row.proofs]
        found.assumptions += dict.fromkeys(text for row in rows for text in row.assumptions)
        return found
    record = Record(p)
    ignored = bounds.ignored(record)
    if ignored is not None:
        found.settle(ignored.names, Level.CONSTANT, ignored)
        if not found.open:
            return found
    null = bounds.null_directions(record)
    if null is not None:
        found.settle(null.moves, Level.PARTIAL, null)
        found.invariances += translations(null, p)
    seen = informed(p, seed).all(0)
    found.settle(
        [name for name, each in zip(found.names, seen.tolist(), strict=True) if each], Level.INFORMED
    )
    if found.open:
        try:
            found.assumptions.append(str(flatness(p, seed=seed)).replace("\n", "; "))
        except ValueError as refused:
            found.assumptions.append(f"how flat it is was not measured: {refused}")
    else:
        found.assumptions.append(
            f"gaps in ℓ are taken from float arithmetic, {_CLEAR:g} times its rounding or more"
        )
    return found


def informed(p: Probed, seed: int = 0) -> Bool[Tensor, "n k"]:
    """On which data, and about which continuous latents, a witness shows that ℓ says something in every direction.

    Args:
        p: a log density on data.
        seed: of the latents that are tried.
    """
    return _moved(p, seed) & _spanned(p, seed)


def _moved(p: Probed, seed: int) -> Bool[Tensor, "n k"]:
    """Whether ℓ moves along each coordinate alone, between two points of the support."""
    z, other = p.prior.sample(_DRAWS, seed), p.prior.sample(_DRAWS, seed + 1)
    with torch.no_grad():
        base = p.log_likelihood(z)
        found = []
        for j in range(p.prior.size):
            there = z.clone()
            there[:, j] = other[:, j]
            inside = torch.isfinite(p.prior.log_prob(there))
            values = p.log_likelihood(torch.where(inside.unsqueeze(1), there, z))
            rounding = _CLEAR * p.eps * (1 + torch.maximum(base.abs(), values.abs()))
            found.append(((values - base).abs() > rounding).any(0))
    return torch.stack(found, dim=1)


def _spanned(p: Probed, seed: int) -> Bool[Tensor, "n k"]:
    """Which coordinates no direction that every gradient of ℓ is orthogonal to moves.

    Gradients count in units of how far difference quotients depart from them: by rounding, where the arithmetic cancels,
    or because torch differentiates something else than ℓ (detached parts, a straight-through estimator).
    """
    z = p.prior.sample(max(_DRAWS // 4, 4 * p.prior.size), seed)
    scale = spread(p)
    gradients: Float[Tensor, "n m k"] = jacobians(p.log_likelihood, z) * scale
    wrong = _departures(p, z, gradients, scale, seed)
    found = []
    for rows, error in zip(gradients.unbind(1), wrong.unbind(1), strict=True):
        usable = torch.isfinite(error) & torch.isfinite(rows).all(1)
        if not bool(usable.any()):
            found.append(torch.zeros(p.prior.size, dtype=torch.bool, device=z.device))
            continue
        units = rows[usable] / error[usable].unsqueeze(1)
        _, values, right = torch.linalg.svd(units, full_matrices=True)
        values = torch.nn.functional.pad(values, (0, len(right) - len(values)))
        null = right[values <= _SEEN * len(units) ** 0.5]
        found.append(~(null.abs() > _SPANNED).any(0))
    return torch.stack(found)


def _departures(
    p: Probed,
    z: Float[Tensor, "n k"],
    gradients: Float[Tensor, "n m k"],
    scale: Float[Tensor, " k"],
    seed: int,
) -> Float[Tensor, "n m"]:
    """How far ℓ's difference quotients are from its gradients, in random directions; NaN next to the support's end."""
    generator = torch.Generator(z.device).manual_seed(seed)
    step = p.eps ** (1 / 3)
    with torch.no_grad():
        largest = p.eps / step * (1 + p.log_likelihood(z).abs())
        for _ in range(_HEADINGS):
            heading = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
            ends = [z + way * step * scale * heading for way in (1, -1)]
            inside = torch.stack([torch.isfinite(p.prior.log_prob(end)) for end in ends]).all(0).unsqueeze(1)
            before, after = (p.log_likelihood(torch.where(inside, end, z)) for end in ends[::-1])
            slope = (gradients * heading.unsqueeze(1)).sum(2)
            apart = (slope - (after - before) / (2 * step)).abs()
            largest = torch.maximum(largest, torch.where(inside, apart, torch.nan))
    return largest

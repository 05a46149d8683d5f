"""The true posterior of a trained model's rows, for all its members at once; where no encoder's opinion is asked."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.models.plain import PlainAutoencoder
from identkit.posterior.lattice import Lattice, LatticePosterior, posteriors

_FIRST = {1: 0.1, 2: 0.25, 3: 0.4}  # step, by the number of latents
_MOST = 1 << 18  # points of a lattice
_NUMBERS = 1 << 25  # of one table of log-likelihoods


@torch.no_grad()
def true_posteriors(
    model: Autoencoder, x: Shaped[Tensor, "n d"], *, tolerance: float = 1e-4, gradients: bool = False
) -> LatticePosterior:
    """``p(z | x)`` of every member and row by lattice sums, refined until all errors are within the tolerance.

    Args:
        model: of E members with one to three standard normal latents; what it holds is taken to float64.
        x: rows.
        tolerance: nats, of every KL. Where the largest lattice does not reach it, the errors say so.
        gradients: whether ``E_Q ‖∇ℓ‖²`` is wanted, which decodes the lattice again for every row.

    Returns:
        batches (E, n).

    Raises:
        ValueError: more than three latents.
    """
    if model.latents not in _FIRST:
        raise ValueError(f"model should have one to three latents for a lattice, got {model.latents}")
    exact = copy.deepcopy(model).double().eval()
    step = _FIRST[model.latents]
    while True:
        lattice = Lattice(model.latents, step)
        found = _on(exact, x, lattice, gradients)
        finer = Lattice(model.latents, step / 2)
        good = (
            float(found.kl_error.max()) <= tolerance and float(found.kl_conditional_error.max()) <= tolerance
        )
        if good or finer.side**model.latents > _MOST:
            return found
        step = step / 2


def _on(model: Autoencoder, x: Tensor, lattice: Lattice, gradients: bool) -> LatticePosterior:
    """Row by row, as many as fit."""
    z = lattice.points.to(model.device).expand(model.members, -1, -1)
    rows = model.rows(x)
    at_once = max(1, _NUMBERS // (z.shape[1] * model.members))
    once = model.outputs(z.unsqueeze(0)).squeeze(0) if isinstance(model, PlainAutoencoder) else None
    parts = []
    for chunk in rows.split(at_once, dim=1):
        values, slopes = [], []
        for i in range(chunk.shape[1]):
            row = chunk[:, i : i + 1].expand(-1, z.shape[1], *chunk.shape[2:])
            if gradients:
                value, slope = _with_slope(model, row, z)
                slopes.append(slope)
            elif once is not None:
                value = model.likelihood.log_prob(row, once)
            else:
                value = model.decoded(row, z.unsqueeze(0)).squeeze(0)
            values.append(value)
        table = torch.stack(values, dim=1)
        parts.append(posteriors(lattice, table, torch.stack(slopes, dim=1) if gradients else None))
    return LatticePosterior(
        **{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in vars(parts[0])}
    )


def _with_slope(
    model: Autoencoder, row: Shaped[Tensor, "e m d"], z: Float[Tensor, "e m k"]
) -> tuple[Float[Tensor, "e m"], Float[Tensor, "e m"]]:
    """ℓ of one datum at all points, and ``‖∇ℓ‖²``."""
    with torch.enable_grad():
        at = z.contiguous().requires_grad_()
        values = model.decoded(row, at.unsqueeze(0)).squeeze(0)
        (slope,) = torch.autograd.grad(values.sum(), at)
    return values.detach(), slope.square().sum(2)

"""The true posterior of a trained model's rows, for all its members at once; where no encoder's opinion is asked."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Shaped
from torch import Tensor

from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.models.plain import PlainAutoencoder
from identkit.posterior.lattice import Lattice, LatticePosterior, posteriors

_FIRST = {1: 0.1, 2: 0.25, 3: 0.4}  # step, by the number of latents
_MOST = 1 << 18  # points of a lattice
_NUMBERS = 1 << 25  # of one table of log-likelihoods


@torch.no_grad()
def true_posteriors(
    model: Autoencoder, x: Shaped[Tensor, "n d"], *, tolerance: float = 1e-4
) -> LatticePosterior:
    """``p(z | x)`` of every member and row by lattice sums, refined until all errors are within the tolerance.

    Args:
        model: of E members with one to three standard normal latents; what it holds is taken to float64.
        x: rows.
        tolerance: nats, of every KL. Where the largest lattice does not reach it, the errors say so.

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
        found = _on(exact, x, lattice)
        finer = Lattice(model.latents, step / 2)
        good = (
            float(found.kl_error.max()) <= tolerance and float(found.kl_conditional_error.max()) <= tolerance
        )
        if good or finer.side**model.latents > _MOST:
            return found
        step = step / 2


def _on(model: Autoencoder, x: Tensor, lattice: Lattice) -> LatticePosterior:
    """Row by row, as many as fit."""
    z = lattice.points.to(model.device)
    rows = model.rows(x)
    each = max(1, _NUMBERS // (len(z) * model.members))
    parts = []
    outputs = None
    if isinstance(model, PlainAutoencoder):
        outputs = model.outputs(z.expand(1, model.members, -1, -1)).squeeze(0)
    for chunk in rows.split(each, dim=1):
        if outputs is not None:
            tables = [
                model.likelihood.log_prob(chunk[:, i : i + 1].expand(-1, len(z), -1), outputs)
                for i in range(chunk.shape[1])
            ]
            table = torch.stack(tables, dim=1)
        else:
            every = z[:, None, None].expand(-1, model.members, chunk.shape[1], -1)
            table = model.decoded(chunk, every).movedim(0, -1)
        parts.append(posteriors(lattice, table))
    return LatticePosterior(
        **{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in vars(parts[0])}
    )

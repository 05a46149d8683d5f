"""A latent's death as it happens: likelihood, true posterior and encoder along one training run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.lidvae.datasets import Dataset, pinwheel
from identkit.lidvae.models import LIDVAE, VAE, Autoencoder
from identkit.lidvae.training import fit
from identkit.lidvae.truth import true_posteriors

SIGMA = 1.0  # above the data's scale: forgetting is optimal
LOWER = 0.7
STAGES = (0, 10, 20, 40, 80, 160, 320, 640)
"""Steps after which the film has a picture."""
_JUDGED = 20
_WIDER = 1.5  # than the data, so that there is something to forget


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """One model along its training, means over the data in nats."""

    name: str
    steps: tuple[int, ...]
    flatness: Float[Tensor, " t"]
    """``½ Var_P(ℓ)``."""
    truth: Float[Tensor, " t"]
    """KL of the true posterior."""
    encoder: Float[Tensor, " t"]
    """KL of q."""
    density: Float[Tensor, "t s s"]
    """The true posterior of one datum on a square of latents, for the pictures; sums to 1."""
    reach: float
    """Half the side of that square."""


def strip(rows: int = 2000, stages: tuple[int, ...] = STAGES) -> tuple[Strip, Strip]:
    """The plain model and the identifiable one on pinwheel, at noise where forgetting pays.

    Both start from a decoder of unit slope, so that there is something to forget.
    """
    data = pinwheel(rows)
    floor = torch.log1p(torch.tensor(LOWER**2)).item()
    return (
        _filmed("VAE", VAE(2, 2, sigma=SIGMA, hidden=(32, 32), encoder_hidden=(32, 32)), data, stages),
        _filmed(
            f"LIDVAE, m = {LOWER:g}",
            LIDVAE(2, 2, sigma=SIGMA, min_information=floor, hidden=(32, 32), encoder_hidden=(32, 32)),
            data,
            stages,
        ),
    )


def _filmed(name: str, model: Autoencoder, data: Dataset, stages: tuple[int, ...]) -> Strip:
    model.start_(data.train, generator=torch.Generator().manual_seed(0))
    if isinstance(model, VAE):
        with torch.no_grad():  # torch's own start is nearly flat already: as wide as the data instead
            z = torch.randn(1, 1000, 2, generator=torch.Generator().manual_seed(1))
            wide = data.train.std() / model.decoder(z).std()
            model.decoder.layers[-1].weight.mul_(_WIDER * wide)  # type: ignore[union-attr,index]
    x = data.test[:_JUDGED]
    far = x[x.norm(dim=1).argmax()][None]
    flatness, truth, encoder, density = [], [], [], []
    before, reach = 0, 3.0
    for stage in stages:
        if stage > before:
            model = fit(
                model,
                data,
                steps=stage - before,
                schedule="constant",
                learning_rate=3e-3,
                device="cpu",
                generator=torch.Generator().manual_seed(stage),
            ).model
            before = stage
        found = true_posteriors(model, x, tolerance=1e-3)
        flatness.append(found.half_variance.mean())
        truth.append(found.kl.mean())
        with torch.no_grad():
            encoder.append(model.infer(model.rows(x)).kl().sum(-1).mean())
            side = torch.linspace(-reach, reach, 61)
            z = torch.cartesian_prod(side, side)
            table = model.log_likelihood(far.expand(len(z), -1), z) - 0.5 * z.square().sum(1)
            density.append(table.softmax(0).reshape(61, 61))
    return Strip(
        name=name,
        steps=stages,
        flatness=torch.stack(flatness),
        truth=torch.stack(truth),
        encoder=torch.stack(encoder),
        density=torch.stack(density),
        reach=reach,
    )

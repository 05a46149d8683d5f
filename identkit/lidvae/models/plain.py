"""One continuous latent, ``z ~ N(0, I)``: `LIDVAE`, whose decoder cannot lose it, and `VAE`, whose decoder may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from identkit.lidvae.decoders import BrenierDecoder, Value
from identkit.lidvae.guarantee import Guarantee
from identkit.lidvae.likelihoods import Gaussian
from identkit.lidvae.mlp import MLP
from identkit.lidvae.models.decoded import Decoded
from identkit.lidvae.models.normal import NormalLatent
from identkit.lidvae.stacked import stacked
from identkit.model.protocol import Bounded


class PlainAutoencoder(NormalLatent, Decoded):
    """``z ~ N(0, I_K)``, ``x | z ~ EF(f(z))``, ``q(z | x)`` Gaussian with independent coordinates."""

    def certificate(self, x: Shaped[Tensor, "n d"] | None = None) -> Guarantee | None:
        """What the decoder's Lipschitz constants prove of every member (theory/T5); None for an ordinary decoder.

        Args:
            x: rows to say what KL to expect on.
        """
        decoder: Any = self.decoder
        lower = decoder.lower_lipschitz() if isinstance(decoder, Bounded) else None
        if lower is None:
            return None
        sigma = float(self.likelihood.sigma.detach().max()) if isinstance(self.likelihood, Gaussian) else None
        return Guarantee.of(lower, decoder.upper_lipschitz(), self.latents, sigma, x)


class VAE(PlainAutoencoder):
    """The ordinary variational autoencoder, whose perceptron may forget its latents.

    Source: Kingma & Welling 2014; Rezende, Mohamed & Wierstra 2014.

    Args:
        data_dim, latent_dim: D and K.
        likelihood: gaussian, bernoulli, poisson or categorical.
        sigma: of a Gaussian, 1 by default, one for all members or one for each; or "learned", from a quarter of the
            columns' spread (beside a decoder of your own from 1).
        categories: of a categorical.
        hidden: units of the decoder's hidden layers.
        encoder: "mlp", "residual" (convolutions over images of the given `shape`), or a module of your own from rows
            (n, D) to a `Normal` or to (n, 2K) means and log scales.
        encoder_hidden: units of an MLP's hidden layers, channels of a residual network's stages.
        shape: channels, height and width of an image.
        decoder: a module of your own, from z (n, K) to the likelihood's parameters (n, P).
        members: E, seeds and settings that train together.
        seed: of the initial weights.

    >>> model = VAE(5, 2, sigma=0.5)
    >>> model.encode(torch.zeros(3, 5)).mean.shape
    torch.Size([3, 2])
    """

    name = "vae"

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        likelihood: str = "gaussian",
        *,
        sigma: Value | str | None = None,
        categories: int | None = None,
        hidden: Sequence[int] = (64, 64),
        encoder: str | nn.Module = "mlp",
        encoder_hidden: Sequence[int] = (64, 64),
        shape: tuple[int, int, int] | None = None,
        decoder: nn.Module | None = None,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), own=("encoder", "decoder"))
        generator = torch.Generator().manual_seed(seed)
        self._observe(2 * latent_dim, generator)
        self.decoder = (
            MLP(members, latent_dim, self.likelihood.outputs, hidden, generator=generator)
            if decoder is None
            else stacked(decoder, members, generator=generator)
        )


class LIDVAE(PlainAutoencoder):
    """The latent-identifiable VAE: ``x | z ~ EF(g₂(β g₁(z)))`` with Brenier maps g, so that no latent can be lost.

    ``‖f(z) − f(z′)‖ ≥ m‖z − z′‖`` with m fixed, stated and proved by `certificate`; m is a dial: where the data do not
    pay for the information it demands, the likelihood does.

    Source: Wang, Blei & Cunningham 2021, section 3; theory/T5.

    Args:
        data_dim, latent_dim, likelihood, sigma, categories, encoder, encoder_hidden, shape, members, seed: as for `VAE`;
            K may be at most the number of the likelihood's parameters.
        map, hidden, alphas, scale: of the `BrenierDecoder`.
        min_information: nats that ``I(z; x)`` shall certainly have under the model; sets α and s. Needs a fixed σ.
        decoder: a module of your own that bounds itself from below (`identkit.model.protocol.Bounded`).

    Raises:
        ValueError: a decoder that does not, or arguments that do not go together.

    >>> model = LIDVAE(5, 2, sigma=0.5, min_information=1.0)
    >>> print(model.certificate())
    m = ...
    """

    name = "lidvae"

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        likelihood: str = "gaussian",
        *,
        sigma: Value | str | None = None,
        categories: int | None = None,
        map: str = "monotone",
        hidden: Sequence[int] = (64, 64),
        alphas: Sequence[Value] | None = None,
        scale: Value | None = None,
        min_information: Value | None = None,
        encoder: str | nn.Module = "mlp",
        encoder_hidden: Sequence[int] = (64, 64),
        shape: tuple[int, int, int] | None = None,
        decoder: nn.Module | None = None,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), own=("encoder", "decoder"))
        generator = torch.Generator().manual_seed(seed)
        self._observe(2 * latent_dim, generator)
        if decoder is not None:
            self.decoder = stacked(decoder, members, generator=generator)
            if not isinstance(self.decoder, Bounded) or self.decoder.lower_lipschitz() is None:
                raise ValueError(
                    "decoder should bound itself from below by lower_lipschitz(), or nothing is proved, and "
                    f"{type(decoder).__name__} does not; VAE takes any"
                )
            return
        self.decoder = BrenierDecoder(
            members,
            latent_dim,
            self.likelihood.outputs,
            map=map,
            hidden=hidden,
            alphas=alphas,
            scale=scale,
            min_information=min_information,
            sigma=noise_of(min_information, likelihood, sigma),
            generator=generator,
        )


def noise_of(min_information: Value | None, likelihood: str, sigma: Value | str | None) -> Value | None:
    """The σ that a floor on the information is relative to; None where no floor is asked for.

    Raises:
        ValueError: there is no fixed Gaussian noise.
    """
    if min_information is None:
        return None
    if likelihood != "gaussian" or isinstance(sigma, str):
        got = f"likelihood={likelihood!r}" if likelihood != "gaussian" else f"sigma={sigma!r}"
        raise ValueError(f"min_information goes with a Gaussian likelihood of fixed sigma, got {got}")
    return 1.0 if sigma is None else sigma

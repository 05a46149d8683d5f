"""`Decoded`: models whose data are a likelihood of ``f(z)`` for one latent vector z, whatever the prior of z."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from identkit.lidvae.decoders import ABOVE, BrenierDecoder
from identkit.lidvae.likelihoods import Gaussian, likelihood_of
from identkit.lidvae.members import Linear
from identkit.lidvae.mlp import MLP
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.reading import AsItIs, Reading, encoder_of

_DRAWS = 1024  # from the prior, which the decoder starts from


class Decoded(Autoencoder):
    """``x | z ~ EF(f(z))``."""

    decoder: nn.Module
    reading: Reading | AsItIs

    def _observe(self, outputs: int, generator: torch.Generator) -> None:
        """Make the likelihood and the encoder that the constructor was asked for.

        Args:
            outputs: numbers that the encoder gives a row.
            generator: of the encoder's weights.
        """
        asked = self.settings
        self.likelihood = likelihood_of(
            asked["likelihood"],
            self.members,
            asked["data_dim"],
            sigma=asked["sigma"],
            categories=asked["categories"],
        )
        self.reading, self.encoder = encoder_of(
            self._own["encoder"] if "encoder" in self._own else asked["encoder"],
            self.members,
            self.likelihood,
            outputs,
            asked["encoder_hidden"],
            asked["shape"],
            generator=generator,
        )

    def decoded(self, x: Shaped[Tensor, "e n d"], z: Float[Tensor, "s e n k"]) -> Float[Tensor, "s e n"]:
        """``log p(x | z)`` of S latents for each row, in nats."""
        return self.likelihood.log_prob(x, self.outputs(z))

    def outputs(self, z: Float[Tensor, "s e n k"]) -> Float[Tensor, "s e n p"]:
        """f(z) of S latents for each row."""
        samples, members, n, _ = z.shape
        if samples == 1:
            return self.decoder(z.squeeze(0)).unsqueeze(0)
        flat = z.transpose(0, 1).reshape(members, samples * n, -1)
        return self.decoder(flat).unflatten(1, (samples, n)).transpose(0, 1)

    def _data_draws(
        self, z: Float[Tensor, "e n k"], generator: torch.Generator | None
    ) -> Shaped[Tensor, "e n d"]:
        return self.likelihood.draw(self.decoder(z), generator)

    def start_(self, x: Shaped[Tensor, "n d"], *, generator: torch.Generator) -> None:
        """Begin from the training rows: outputs at their marginal law, slopes of order 1, the encoder's inputs too."""
        rows = x.to(self.device) if self.whole_numbers else x.to(self.device, self.dtype)
        self.reading.start_(rows)
        if "decoder" not in self.own_modules:  # which starts at a scale of its own, beside which σ stays at 1
            self.likelihood.start_(rows)
        centre = self.likelihood.centre(rows).to(self.dtype)
        swing = self.likelihood.swing(rows)
        with torch.no_grad():
            self._start_prior_(generator)
            self._start_decoder_(centre, swing, generator)
        self.started.fill_(True)

    def _start_prior_(self, generator: torch.Generator) -> None:
        """Where there is one to begin with."""

    def _start_decoder_(self, centre: Float[Tensor, " p"], swing: float, generator: torch.Generator) -> None:
        """Outputs whose mean is the centre; a user's own decoder stays as it is."""
        f, gaussian = self.decoder, isinstance(self.likelihood, Gaussian)
        spread = swing if gaussian else 1.0
        if isinstance(f, BrenierDecoder):
            z = self._prior_draws(_DRAWS, generator)
            if f.g2.ridged and not gaussian:
                # As much per latent as a row just shows. Steeper, the noise of q in logits costs hundreds of nats, and
                # latents are shut before they have learned anything.
                f.start_(centre, total=swing / z.var(1).mean(1).sqrt(), z=z, generator=generator)
                return
            # The slopes t = s·slope^L of f have to make up the variance of D columns from that of K latents.
            total = spread * math.sqrt(self.likelihood.outputs) / z.var(1).sum(1).sqrt()
            steepest = torch.stack([g.alpha for g in f.chain]).amax(0)
            slope = ((total / f.beta.scale) ** (1 / len(f.chain))).maximum(ABOVE * steepest)
            f.start_(centre, slope=slope, z=z, generator=generator)
        elif isinstance(f, MLP):
            last = f.layers[-1]
            assert isinstance(last, Linear)
            last.weight.mul_(spread)
            last.bias.copy_(centre.expand_as(last.bias))


def noise(
    shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Standard normal numbers, drawn where the generator is and brought where the model is."""
    source = device if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=dtype, device=source).to(device)

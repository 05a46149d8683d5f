"""A cluster y and a position z within it: `LIDMVAE`, whose clusters cannot merge, and `GMVAE`, whose clusters may."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributions as td
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from identkit.lidvae.component_laws import least_distance, mixture_verdict, tells_mixtures
from identkit.lidvae.components import Placement, PriorLayer, Separated
from identkit.lidvae.decoders import BrenierDecoder, Value
from identkit.lidvae.guarantee import MixtureGuarantee
from identkit.lidvae.likelihoods import Gaussian
from identkit.lidvae.mlp import MLP
from identkit.lidvae.models.autoencoder import Terms
from identkit.lidvae.models.decoded import Decoded, noise
from identkit.lidvae.models.plain import noise_of
from identkit.lidvae.posteriors import MixturePosterior, normal_log_prob
from identkit.model.compiled.data import whole
from identkit.verdict import Verdict

_LARGEST = 10.0  # of |log scale| relative to the component: beyond it exp leaves float32


class MixtureAutoencoder(Decoded):
    """``y ~ Uniform{1, …, C}``, ``z | y ~ N(μ_y, diag s_y²)``, ``x | z ~ EF(f(z))``; ``q(y, z | x) = q(y | x) q(z | x, y)``.

    y is summed exactly wherever it occurs: no relaxation, no draws. The encoder says where z is relative to the
    component, so that an encoder that gives zeros gives the prior.

    The weights of the components are fixed and equal, as in the paper: none can be switched off, and a perfect y has
    log C nats.
    """

    components: int
    """C."""
    placement: Placement

    @property
    def groups(self) -> tuple[str, ...]:
        """``y``, and z by its coordinates."""
        return ("y", *super().groups)

    @property
    def prior(self) -> td.MixtureSameFamily:
        """The mixture that z comes from, of a model of one member."""
        self._alone("prior")
        mean, log_scale = (tensor.detach().squeeze(0) for tensor in self.placement())
        states = td.Categorical(logits=torch.zeros_like(mean[:, 0]))
        return td.MixtureSameFamily(states, td.Independent(td.Normal(mean, log_scale.exp()), 1))

    def infer(self, x: Shaped[Tensor, "e n d"]) -> MixturePosterior:
        """The encoder's ``q(y | x)`` and ``q(z | x, y)`` of every y."""
        found = self.encoder(self.reading(x))
        count, size = self.components, self.components * self.latents
        if not isinstance(found, Tensor) or found.shape[-1] != count + 2 * size:
            got = f"{found.shape[-1]} numbers" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"encoder should give {count + 2 * size} numbers a row, {count} logits of y, then {count} × "
                f"{self.latents} means and as many log scales of z relative to its component, got {got}"
            )
        logits, *rest = found.split((count, size, size), dim=-1)
        shift, log_scale = (each.unflatten(-1, (count, self.latents)) for each in rest)
        mean, spread = (tensor.unsqueeze(1) for tensor in self.placement())
        return MixturePosterior(
            logits, mean + spread.exp() * shift, spread + log_scale.clamp(-_LARGEST, _LARGEST)
        )

    def terms(
        self,
        x: Shaped[Tensor, "e n d"],
        q: MixturePosterior,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """KL in closed form; the likelihood summed over y, by S draws of z for each."""
        by_component = self._decoded_each(x, q.draw_each(samples, generator)).mean(0)
        log_likelihood = (q.log_weight.exp() * by_component).sum(-1)
        kl = torch.cat((q.state_kl().unsqueeze(-1), q.latent_kl(*self.placement())), dim=-1)
        return Terms(log_likelihood, kl)

    def log_weights(
        self,
        x: Shaped[Tensor, "e n d"],
        q: MixturePosterior,
        samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "s e n"]:
        """``log Σ_y p(y) p(z_y | y) p(x | z_y)/q(z_y | x, y)``, one z_y of every component a draw.

        Unbiased: ``E Σ_y p(y) p(z_y | y) p(x | z_y)/q(z_y | x, y) = Σ_y p(y) ∫ p(z | y) p(x | z) dz = p(x)``, each
        expectation under its own ``z_y ~ q(z | x, y)``. ``q(y | x)`` has no part in it, so a bound made of these
        weights does not train it.
        """
        return self._joint_weights(x, q, samples, generator).logsumexp(-1)

    def _joint_weights(
        self,
        x: Shaped[Tensor, "e n d"],
        q: MixturePosterior,
        samples: int,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "s e n c"]:
        """``log p(y) p(z_y | y) p(x | z_y)/q(z_y | x, y)``: ``E e^w = p(x, y)``."""
        z = q.draw_each(samples, generator)
        mean, log_scale = (tensor.unsqueeze(1) for tensor in self.placement())
        prior = normal_log_prob(z, mean, log_scale) - math.log(self.components)
        return self._decoded_each(x, z) + prior - normal_log_prob(z, q.mean, q.log_scale)

    def _decoded_each(
        self, x: Shaped[Tensor, "e n d"], z: Float[Tensor, "s e n c k"]
    ) -> Float[Tensor, "s e n c"]:
        """``log p(x | z_y)`` for each component's own z."""
        folded = z.movedim(3, 1).flatten(0, 1)
        return self.decoded(x, folded).unflatten(0, (len(z), self.components)).movedim(1, 3)

    def states(self, x: Shaped[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """``q(y | x)`` of each row, of a model of one member."""
        self._alone("states")
        return self.infer(self.rows(x)).log_weight.exp().squeeze(0)

    def state_posterior(
        self, x: Shaped[Tensor, "n d"], samples: int = 64, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n c"]:
        """``p(y | x)`` of each row by importance weights under ``q(z | x, y)``, whatever the encoder says of y.

        Consistent as S grows, biased by O(1/S). Of a model of one member.
        """
        self._alone("state_posterior")
        rows = self.rows(x)
        weights = self._joint_weights(rows, self.infer(rows), whole(samples, "samples"), generator)
        return weights.logsumexp(0).softmax(-1).squeeze(0)

    def verdict(self) -> Verdict:
        """Which of y and z the law of the data sees: z through ``p(x | z)``, y through ``p(x | y)``.

        Given z the data say nothing about y, so y is asked about with z integrated out. Of a model of one member.
        """
        self._alone("verdict")
        return mixture_verdict(self)

    def _prior_draws(self, n: int, generator: torch.Generator | None) -> Float[Tensor, "e n k"]:
        mean, log_scale = self.placement()
        source = self.device if generator is None else generator.device
        drawn = torch.randint(self.components, (self.members, n, 1), generator=generator, device=source)
        index = drawn.to(self.device).expand(-1, -1, self.latents)
        error = noise((self.members, n, self.latents), generator, self.dtype, self.device)
        return mean.gather(1, index) + log_scale.gather(1, index).exp() * error

    def _start_prior_(self, generator: torch.Generator) -> None:
        self.placement.start_(generator=generator)


class GMVAE(MixtureAutoencoder):
    """The ordinary Gaussian mixture variational autoencoder: a linear layer places the components, a perceptron decodes.

    Nothing keeps components apart: they start close together, and where they merge y has lost its meaning.

    Source: Kingma et al. 2014 (M2); Dilokthanakul et al. 2016; Wang, Blei & Cunningham 2021, section 4 (GMVAE).

    Args:
        data_dim, latent_dim, components: D, K and C.
        likelihood: gaussian, bernoulli, poisson or categorical.
        sigma: of a Gaussian, 1 by default, one for all members or one for each; or "learned".
        categories: of a categorical.
        hidden: units of the decoder's hidden layers.
        encoder: "mlp", "residual" (convolutions over images of the given `shape`), or a module of your own from rows
            (n, D) to (n, C + 2CK) numbers: logits of y, then means and log scales of z relative to each component.
        encoder_hidden: units of an MLP's hidden layers, channels of a residual network's stages.
        shape: channels, height and width of an image.
        members: E, seeds and settings that train together.
        seed: of the initial weights.

    >>> model = GMVAE(5, 2, 3, sigma=0.5)
    >>> model.states(torch.zeros(4, 5)).shape
    torch.Size([4, 3])
    """

    name = "gmvae"

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        components: int,
        likelihood: str = "gaussian",
        *,
        sigma: Value | str | None = None,
        categories: int | None = None,
        hidden: Sequence[int] = (64, 64),
        encoder: str | nn.Module = "mlp",
        encoder_hidden: Sequence[int] = (64, 64),
        shape: tuple[int, int, int] | None = None,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), own=("encoder",))
        generator = torch.Generator().manual_seed(seed)
        self.components = whole(components, "components", 2)
        self._observe(components * (1 + 2 * latent_dim), generator)
        self.placement = PriorLayer(members, components, latent_dim, generator=generator)
        self.decoder = MLP(members, latent_dim, self.likelihood.outputs, hidden, generator=generator)


class LIDMVAE(MixtureAutoencoder):
    """The latent-identifiable mixture VAE: components at least δ apart by construction, decoded by Brenier maps.

    ``z | y ~ N(μ_y, I)``, ``‖μ_y − μ_y′‖ ≥ δ`` (`identkit.lidvae.components.Separated`), ``x | z ~ EF(g₂(β g₁(z)))``. The
    decoder is injective with a constant m, so z is identifiable; and where the likelihood lets the law of x determine
    the law of ``f(z)`` (Gaussian noise, Poisson counts) the laws ``p(x | y)`` are pairwise distinct, so y is too.
    A flexible decoder alone does nothing for y: it needs the components apart.

    Source: Wang, Blei & Cunningham 2021, section 3 (LIDMVAE), plus separation by construction; theory/T5.

    Args:
        data_dim, latent_dim, components, likelihood, sigma, categories, encoder, encoder_hidden, shape, members, seed:
            as for `GMVAE`; K may be at most the number of the likelihood's parameters.
        separation: δ > 0, in standard deviations of a component.
        map, hidden, alphas, scale: of the `BrenierDecoder`.
        min_information: nats that ``I(z; x | y)``, hence ``I(z; x)``, shall certainly have under the model; sets α and
            s. Needs a fixed σ.

    Raises:
        ValueError: arguments that do not go together.

    >>> model = LIDMVAE(5, 2, 3, sigma=0.5, separation=4.0)
    >>> print(model.certificate())
    3 components at least ...
    """

    name = "lidmvae"

    decoder: BrenierDecoder

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        components: int,
        likelihood: str = "gaussian",
        *,
        sigma: Value | str | None = None,
        categories: int | None = None,
        separation: Value = 4.0,
        map: str = "monotone",
        hidden: Sequence[int] = (64, 64),
        alphas: Sequence[Value] | None = None,
        scale: Value | None = None,
        min_information: Value | None = None,
        encoder: str | nn.Module = "mlp",
        encoder_hidden: Sequence[int] = (64, 64),
        shape: tuple[int, int, int] | None = None,
        members: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(locals(), own=("encoder",))
        generator = torch.Generator().manual_seed(seed)
        self.components = whole(components, "components", 2)
        self._observe(components * (1 + 2 * latent_dim), generator)
        self.placement = Separated(members, components, latent_dim, separation, generator=generator)
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

    def certificate(self, x: Shaped[Tensor, "n d"] | None = None) -> MixtureGuarantee | None:
        """What the decoder's constants and the components' distances prove of every member (theory/T5).

        Args:
            x: nothing is predicted for a mixture.

        Returns:
            None if β has lost its rank in floats.
        """
        lower = self.decoder.lower_lipschitz()
        if lower is None:
            return None
        return MixtureGuarantee.of_mixture(
            lower,
            self.decoder.upper_lipschitz(),
            self.latents,
            float(self.likelihood.sigma.detach().max()) if isinstance(self.likelihood, Gaussian) else None,
            components=self.components,
            separation=least_distance(self.placement().mean),
            distinct=True if tells_mixtures(self.likelihood.name) else None,
        )

"""What training minimises: the ELBO and the remedies against collapse that it is compared with, for any `Autoencoder`.

Each objective is a value with one method, `loss`; numbers may be one for all members or one for each setting.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from identkit.lidvae.models.autoencoder import Autoencoder, Terms
from identkit.model.compiled.data import whole

PerMember = float | Sequence[float]
"""One number for all members, or one for each setting; with several seeds the settings repeat."""


@dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
    """A loss per member, and how its user's posterior is to be had.

    Args:
        samples: draws of z for each row.
    """

    samples: int = 1

    def __post_init__(self) -> None:
        whole(self.samples, "samples")

    @abc.abstractmethod
    def loss(
        self,
        model: Autoencoder,
        x: Shaped[Tensor, "e n d"],
        progress: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " e"]:
        """What is minimised, nats a row.

        Args:
            model: of E members.
            x: a batch for each.
            progress: the share of training that is done, 0 to 1.
            generator: of the draws of z.
        """

    def posterior(
        self, model: Autoencoder, x: Shaped[Tensor, "e n d"], generator: torch.Generator | None = None
    ) -> Any:
        """The q that a model trained this way is used with: the encoder's, unless the method goes on from there."""
        return model.infer(x)

    @property
    def aggressive(self) -> int:
        """Up to how many steps of the encoder alone go before each step of the decoder, while that helps."""
        return 0


@dataclass(frozen=True, kw_only=True)
class ELBO(Objective):
    """``E_q log p(x | z) − KL(q ‖ p)``, by draws of q (Kingma & Welling 2014)."""

    def loss(
        self,
        model: Autoencoder,
        x: Shaped[Tensor, "e n d"],
        progress: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " e"]:
        """The negative bound, or what a kind of it makes of the same terms."""
        terms = model.terms(x, self._led(model, x, generator), self.samples, generator)
        return self._weighed(terms, model, progress)

    def _led(self, model: Autoencoder, x: Tensor, generator: torch.Generator | None) -> Any:
        """The q that the loss is about, with the gradient that leads to the encoder."""
        return model.infer(x)

    def _weighed(self, terms: Terms, model: Autoencoder, progress: float) -> Float[Tensor, " e"]:
        return -terms.elbo().mean(-1)


@dataclass(frozen=True, kw_only=True)
class BetaVAE(ELBO):
    """``E_q log p(x | z) − β KL(q ‖ p)``; β < 1 pays less for information (Higgins et al. 2017)."""

    beta: PerMember = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self.beta, "beta")

    def _weighed(self, terms: Terms, model: Autoencoder, progress: float) -> Float[Tensor, " e"]:
        beta = each(self.beta, model)
        return beta * terms.kl.sum(-1).mean(-1) - terms.log_likelihood.mean(-1)


@dataclass(frozen=True, kw_only=True)
class KLAnnealing(ELBO):
    """The ELBO whose KL term grows from `first` to 1, straight, over the first part of training.

    With several `cycles` training is cut into as many parts, and it grows in each (Bowman et al. 2016; Fu et al. 2019).

    Args:
        first: the weight at the start.
        share: of each cycle, after which the weight is 1.
        cycles: how often it starts again.
    """

    first: float = 0.0
    share: float = 0.5
    cycles: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self.first, "first")
        if not 0 < self.share <= 1:
            raise ValueError(f"share should lie in (0, 1], got {self.share}")
        if self.cycles < 1:
            raise ValueError(f"cycles should be at least 1, got {self.cycles}")

    def weight(self, progress: float) -> float:
        """What the KL is multiplied by."""
        within = min(progress, 1.0) * self.cycles
        within -= min(math.floor(within), self.cycles - 1)
        return self.first + (1 - self.first) * min(1.0, within / self.share)

    def _weighed(self, terms: Terms, model: Autoencoder, progress: float) -> Float[Tensor, " e"]:
        return self.weight(progress) * terms.kl.sum(-1).mean(-1) - terms.log_likelihood.mean(-1)


@dataclass(frozen=True, kw_only=True)
class FreeBits(ELBO):
    """``E_q log p(x | z) − Σ_j max(λ, KL_j)``: below λ nats, on average over the batch, a latent's KL costs nothing.

    Source: Kingma et al. 2016 (section 4, a group for each latent).

    Args:
        nats: λ of each latent.
    """

    nats: PerMember = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _not_negative(self.nats, "nats")

    def _weighed(self, terms: Terms, model: Autoencoder, progress: float) -> Float[Tensor, " e"]:
        kl = torch.maximum(terms.kl.mean(-2), each(self.nats, model).unsqueeze(-1))
        return kl.sum(-1) - terms.log_likelihood.mean(-1)


@dataclass(frozen=True, kw_only=True)
class IWAE(Objective):
    """``log (1/S) Σ_s p(x, z_s)/q(z_s | x)``, a tighter bound; S = 1 is the ELBO (Burda, Grosse & Salakhutdinov 2016)."""

    samples: int = 8

    def loss(
        self,
        model: Autoencoder,
        x: Shaped[Tensor, "e n d"],
        progress: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " e"]:
        """The negative bound."""
        weights = model.log_weights(x, model.infer(x), self.samples, generator)
        return -(weights.logsumexp(0) - math.log(self.samples)).mean(-1)


@dataclass(frozen=True, kw_only=True)
class SemiAmortised(ELBO):
    """The ELBO of a q that starts at the encoder's and climbs it for some steps of gradient (SA-VAE).

    The encoder is trained through these steps. Each climbs along the gradient of the row's own ELBO, clipped to norm
    `clip`.

    Source: Kim, Wiseman, Miller, Sontag & Rush 2018.

    Args:
        steps: of the climb.
        rate: its length.
        clip: the longest gradient of a row.
    """

    steps: int = 10
    rate: float = 0.5
    clip: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.steps, "steps")
        for name in ("rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} should be a positive number, got {getattr(self, name)}")

    def _led(self, model: Autoencoder, x: Tensor, generator: torch.Generator | None) -> Any:
        return self._climbed(model, x, model.infer(x), generator, through=True)

    def posterior(
        self, model: Autoencoder, x: Shaped[Tensor, "e n d"], generator: torch.Generator | None = None
    ) -> Any:
        """The q at the end of the climb."""
        with torch.no_grad():
            q = model.infer(x)
        with torch.enable_grad():
            climbed = self._climbed(model, x, q, generator, through=False)
        return type(q)(*(tensor.detach() for tensor in climbed))

    def _climbed(
        self, model: Autoencoder, x: Tensor, q: Any, generator: torch.Generator | None, *, through: bool
    ) -> Any:
        kind = type(q)
        if not through:
            q = kind(*(tensor.detach().requires_grad_() for tensor in q))
        for _ in range(self.steps):
            elbo = model.terms(x, q, self.samples, generator).elbo().sum()
            slopes = torch.autograd.grad(elbo, tuple(q), create_graph=through)
            square = torch.stack([slope.square().flatten(2).sum(2) for slope in slopes]).sum(0)
            length = square.clamp(min=self.clip**2).sqrt()  # never 0, where the root has no derivative
            factor = self.rate * self.clip / length
            moved = (
                tensor + factor.reshape(*factor.shape, *[1] * (tensor.ndim - 2)) * slope
                for tensor, slope in zip(q, slopes, strict=True)
            )
            q = kind(*moved) if through else kind(*(each.detach().requires_grad_() for each in moved))
        return q


@dataclass(frozen=True, kw_only=True)
class Lagging(ELBO):
    """The ELBO, with an encoder that is brought up to date before each step of the decoder (aggressive training).

    Before a step of the decoder the encoder alone takes up to `most` steps, until the loss stops falling; once the
    mutual information on the validation rows stops rising, training goes on as usual.

    Source: He, Spokoyny, Neubig & Berg-Kirkpatrick 2019, Lagging inference networks.

    Args:
        most: steps of the encoder before one of the decoder.
    """

    most: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.most, "most")

    @property
    def aggressive(self) -> int:
        """`most`."""
        return self.most


OBJECTIVES: Mapping[str, type[Objective]] = {
    "elbo": ELBO,
    "beta": BetaVAE,
    "annealing": KLAnnealing,
    "free-bits": FreeBits,
    "iwae": IWAE,
    "semi-amortised": SemiAmortised,
    "lagging": Lagging,
}
"""As the command line names them."""


def each(value: PerMember, model: Autoencoder) -> Float[Tensor, " e"]:
    """One number for each member: settings repeat for every seed.

    Raises:
        ValueError: their number does not divide that of the members.
    """
    numbers = torch.as_tensor(value, dtype=model.dtype, device=model.device).reshape(-1)
    if model.members % len(numbers):
        raise ValueError(
            f"one number, or one for each setting, should be given to {model.members} members, got {len(numbers)}"
        )
    return numbers.repeat(model.members // len(numbers))


def _not_negative(value: PerMember, name: str) -> None:
    numbers = [value] if isinstance(value, int | float) else list(value)
    if not numbers or not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"{name} should be finite and not negative, got {value}")

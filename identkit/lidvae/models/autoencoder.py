"""`Autoencoder`: prior, decoder, likelihood and encoder, for many members at once; objectives and `fit` know only this."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.distributions as td
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from identkit.lidvae.guarantee import Guarantee
from identkit.lidvae.likelihoods import Likelihood
from identkit.lidvae.stacked import reset
from identkit.model.compiled.data import whole

Self = TypeVar("Self", bound="Autoencoder")


class Terms(NamedTuple):
    """What the ELBO of each row is made of, in nats: ``log_likelihood − kl.sum(-1)``."""

    log_likelihood: Float[Tensor, "e n"]
    """``E_q log p(x | z)``: the average over draws; discrete latents are summed."""
    kl: Float[Tensor, "e n j"]
    """KL(q ‖ p) in groups that add up, named by `Autoencoder.groups`."""

    def elbo(self) -> Float[Tensor, "e n"]:
        """The lower bound of ``log p(x)``."""
        return self.log_likelihood - self.kl.sum(-1)


class Autoencoder(nn.Module, abc.ABC):
    """``p(z) p(x | f(z))`` with an approximate posterior ``q(z | x)``, for E members: seeds and settings side by side.

    Every parameter and buffer has the members as its first axis, so `identkit.lidvae.members` takes members apart and
    puts them together. Rows x are (n, D), the same for all members, or (E, n, D).
    """

    name: ClassVar[str]
    """As the command line names it."""

    encoder: nn.Module
    likelihood: Likelihood
    started: Shaped[Tensor, " e"]
    """Whether a member has begun from the data (`start_`) or been trained."""

    def __init__(self, arguments: Mapping[str, Any], *, own: tuple[str, ...] = ()) -> None:
        """Keep what the constructor was called with, to make the model anew (`fresh`) and to write it to a file.

        Args:
            arguments: its ``locals()``.
            own: the names of those that may be a user's modules.
        """
        super().__init__()
        plain = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        members = whole(plain.pop("members"), "members")
        whole(plain.pop("seed"), "seed", 0)
        self.latents = whole(plain["latent_dim"], "latent_dim")
        self._own = {
            name: plain.pop(name) for name in own if isinstance(plain[name], nn.Module)
        }  # not registered
        self.settings = plain
        """The constructor's arguments but for `members`, `seed` and modules."""
        self.register_buffer("started", torch.zeros(members, dtype=torch.bool))

    @property
    def members(self) -> int:
        """E."""
        return len(self.started)

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of what the KL is the sum of."""
        return tuple(f"z[{number + 1}]" for number in range(self.latents))

    @property
    def own_modules(self) -> Mapping[str, str]:
        """Which of encoder and decoder are a user's own, and their classes."""
        return {name: type(module).__name__ for name, module in self._own.items()}

    def fresh(self: Self, seed: int, *, members: int | None = None) -> Self:
        """The same model with new weights, as many members unless told.

        Raises:
            ValueError: a user's own module without `reset_parameters` to start it anew.
        """
        generator = torch.Generator().manual_seed(seed)
        modules = {name: reset(module, generator) for name, module in self._own.items()}
        count = self.members if members is None else members
        make: Any = type(self)
        made = make(**self.settings, **modules, members=count, seed=seed)
        return made.to(self.device, self.dtype)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.started.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    # --- the generative side -------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def prior(self) -> td.Distribution:
        """The prior of one row's latents."""

    @abc.abstractmethod
    def decoded(self, x: Shaped[Tensor, "e n d"], z: Float[Tensor, "s e n k"]) -> Float[Tensor, "s e n"]:
        """``log p(x | z)`` of S latents for each row, in nats."""

    def log_likelihood(self, x: Any, z: Any) -> Tensor:
        """``log p(x | z)`` of a model of one member, in nats.

        Args:
            x: (n, D).
            z: (n, K) or (S, n, K).

        Returns:
            (n,) or (S, n).

        Raises:
            ValueError: there are several members; take one by `identkit.lidvae.members.member`.
        """
        self._alone("log_likelihood")
        rows, latents = self.rows(x), torch.as_tensor(z).to(self.device, self.dtype)
        several = latents if latents.ndim == 3 else latents.unsqueeze(0)
        found = self.decoded(rows, several.unsqueeze(1)).squeeze(1)
        return found if latents.ndim == 3 else found.squeeze(0)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n rows x (n, D) and their latents z (n, K) from a model of one member."""
        self._alone("sample")
        with torch.no_grad():
            z = self._prior_draws(n, generator)
            return self._data_draws(z, generator)[0], z[0]

    @abc.abstractmethod
    def _prior_draws(self, n: int, generator: torch.Generator | None) -> Float[Tensor, "e n k"]:
        """Latents from the prior."""

    @abc.abstractmethod
    def _data_draws(
        self, z: Float[Tensor, "e n k"], generator: torch.Generator | None
    ) -> Shaped[Tensor, "e n d"]:
        """Rows from ``p(x | z)``."""

    # --- the approximate posterior -------------------------------------------------------------------

    @abc.abstractmethod
    def infer(self, x: Shaped[Tensor, "e n d"]) -> Any:
        """The encoder's q as a named tuple of tensors, such as `GaussianPosterior`."""

    @abc.abstractmethod
    def terms(
        self, x: Shaped[Tensor, "e n d"], q: Any, samples: int, generator: torch.Generator | None
    ) -> Terms:
        """What the ELBO under q is made of, by S draws."""

    @abc.abstractmethod
    def log_weights(
        self, x: Shaped[Tensor, "e n d"], q: Any, samples: int, generator: torch.Generator | None
    ) -> Float[Tensor, "s e n"]:
        """``log p(x, z)/q(z | x)`` at S draws: ``E e^w = p(x)``, discrete latents summed."""

    def encode(self, x: Any) -> td.Distribution:
        """``q(z | x)`` of each row of a model of one member; batch shape (n,), event shape (K,)."""
        self._alone("encode")
        q = self.infer(self.rows(x))
        return type(q)(*(tensor.squeeze(0) for tensor in q)).law()

    def certificate(self, x: Shaped[Tensor, "n d"] | None = None) -> Guarantee | None:
        """What the weights prove of every member; None where they prove nothing.

        Args:
            x: rows to say what KL to expect on.
        """
        return None

    # --- training --------------------------------------------------------------------------------------

    @abc.abstractmethod
    def start_(self, x: Shaped[Tensor, "n d"], *, generator: torch.Generator) -> None:
        """Begin from the training rows: outputs at their marginal law, slopes of order 1."""

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of q."""
        yield from self.encoder.parameters()

    def generative_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of ``p(x, z)``."""
        of_q = {id(parameter) for parameter in self.inference_parameters()}
        yield from (parameter for parameter in self.parameters() if id(parameter) not in of_q)

    def rows(self, x: Any) -> Shaped[Tensor, "e n d"]:
        """Data as the model takes them: on its device, in its precision, with the axis of members.

        Raises:
            ValueError: the axes or columns do not fit.
        """
        data = torch.as_tensor(x)
        data = data.to(self.device) if self.whole_numbers else data.to(self.device, self.dtype)
        if data.ndim == 2:
            data = data.expand(self.members, *data.shape)
        columns = self.columns
        if data.ndim != 3 or data.shape[0] != self.members or columns not in (None, data.shape[2]):
            raise ValueError(
                f"x should have shape (n, {columns or 'T'}) or ({self.members}, n, {columns or 'T'}), "
                f"got {tuple(torch.as_tensor(x).shape)}"
            )
        return data

    @property
    def columns(self) -> int | None:
        """D, of a row; None where rows of any length go."""
        return self.likelihood.columns

    @property
    def whole_numbers(self) -> bool:
        """Whether rows are states."""
        return self.likelihood.name == "categorical"

    def _alone(self, what: str) -> None:
        if self.members != 1:
            raise ValueError(
                f"{what} goes with a model of one member, got {self.members}: take one, such as run.members[0]"
            )

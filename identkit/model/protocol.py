"""What a generative model must offer: small structural contracts that every room of the house relies on."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import getattr_static
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from identkit.model.model import Model


@dataclass(frozen=True)
class Continuous:
    """The axis of one continuous latent: its open support ``(low, high)``, either end possibly infinite."""

    low: float
    high: float


@dataclass(frozen=True)
class Finite:
    """The axis of one finite discrete latent: the values it can take, 0-based where they are states."""

    values: tuple[float, ...]


Axis = Continuous | Finite


@dataclass(frozen=True, kw_only=True)
class Flatness:
    """The moments of ``ℓ(z) = log p(x | z)`` under the *prior*, one entry per datum (theory/T4).

    They never come from the posterior's code: a KL is compared with them, and two figures that share
    their arithmetic would agree by construction.
    """

    variance: Tensor
    """``V = Var_P(ℓ)``, shape (n,), nats²."""
    variance_error: Tensor
    """A bound on the numerical error of `variance`, shape (n,)."""
    oscillation: Tensor
    """``ω = ess sup ℓ − ess inf ℓ`` under P, or a certified upper bound of it; may be infinite; (n,), nats."""
    log_sobolev: float | None = None
    """A log-Sobolev constant ρ of the prior (N(0, I): 1); None where none is known."""
    gradient_second_moment: Tensor | None = None
    """``E_Q ‖∇ℓ‖²``, shape (n,); the one moment that theory/T4.4 takes under the posterior."""
    mean_shift: Tensor | None = None
    """``‖E_Q z − E_P z‖²``, shape (n,), for the lower bound of theory/T4.4."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with what is known about its error, as `mutual_information` returns it."""

    value: float
    """In nats."""
    error: float
    """A bound on the absolute error where `method` is exact; for a Monte Carlo one its standard error."""
    method: str
    """"closed form", "quadrature" or "Monte Carlo"."""

    def __float__(self) -> float:
        """The value alone."""
        return self.value


@runtime_checkable
class Bounded(Protocol):
    """A map that vouches for its own Lipschitz constants, so that proofs go through it (theory/T5).

    ``m‖z − z′‖ ≤ ‖f(z) − f(z′)‖ ≤ L‖z − z′‖`` for all z, z′ of its domain, in Euclidean norms over all axes but the
    first, computed from the present weights with roundings outward.
    """

    def lower_lipschitz(self) -> float | None:
        """m > 0, or None where the map cannot bound itself from below (never a positive number for nothing)."""
        ...

    def upper_lipschitz(self) -> float | None:
        """L < ∞, or None."""
        ...


class _ByName(type(Protocol)):
    """Ask what an instance has without evaluating it, as Python does itself from 3.12 on.

    Before, ``isinstance`` computed every property: a dense prior of thousands of states, or its refusal of one.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        if not vars(cls).get("_is_protocol", False):
            return super().__instancecheck__(instance)
        wanted = {name for base in cls.__mro__ for name in vars(base)}
        return all(
            getattr_static(instance, name, None) is not None for name in wanted if not name.startswith("_")
        )


@runtime_checkable
class GenerativeModel(Protocol, metaclass=_ByName):
    """A prior over latents and a likelihood of data: ``p(x | z; θ) p(z)``."""

    @property
    def prior(self) -> torch.distributions.Distribution:
        """The prior of one datum's latents."""
        ...

    def log_likelihood(self, x: Any, z: Any) -> Tensor:
        """``log p(x | z)`` in nats: x (n, d), z (n, k) or (samples, n, k); result (n,) or (samples, n)."""
        ...

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw ``(x, z)`` from the joint law, n independent rows."""
        ...


@runtime_checkable
class ExactModel(GenerativeModel, Protocol):
    """A model whose posterior is known exactly; all informations in nats, one entry per datum.

    A *pooled* model takes all rows of x as one data set that shares its latents, so its results have n = 1.
    """

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The latents as the text notation and verdicts name them, e.g. ``("z[1]", "z[2]")``."""
        ...

    @property
    def pooled(self) -> bool:
        """Whether the rows of x share their latents."""
        ...

    def posterior(self, x: Any) -> Any:
        """``p(z | x)``: a torch distribution, or a small class with the same methods."""
        ...

    def log_evidence(self, x: Any) -> Tensor:
        """``log p(x)``, shape (n,)."""
        ...

    def kl_to_prior(self, x: Any) -> Tensor:
        """``KL(p(z | x) ‖ p(z))``, shape (n,), free of cancellation and never negative."""
        ...

    def kl_per_latent(self, x: Any) -> Tensor:
        """``KL(p(z_j | x) ‖ p(z_j))`` of each marginal, shape (n, k)."""
        ...

    def kl_conditional(self, x: Any) -> Tensor:
        """``E_Q KL(p(z_j | z_−j, x) ‖ p(z_j | z_−j))``, shape (n, k): 0 iff ℓ ignores z_j (theory/T3)."""
        ...

    def kl_error(self, x: Any) -> Tensor:
        """A bound on the absolute error of the three informations above, shape (n,), positive."""
        ...

    def flatness(self, x: Any) -> Flatness:
        """The moments of ℓ under the prior, from code that calls none of the methods above."""
        ...

    def posterior_moments(self, x: Any) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of each latent, each (n, k); a state counts by its number."""
        ...

    def symbolic(self) -> Model:
        """The same model in SymPy, every number written in as an exact rational."""
        ...


@runtime_checkable
class Amortised(Protocol):
    """A model with an encoder: an approximate posterior computed from the data, as a variational autoencoder has."""

    def encode(self, x: Any) -> torch.distributions.Distribution:
        """``q(z | x)`` of each row of x (n, …): a distribution whose first batch axis has n."""
        ...

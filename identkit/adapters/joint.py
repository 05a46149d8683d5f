"""A program's latents as one vector: named sites, drawn one after the other, each from a law that may depend on others.

Pyro's programs and PyMC's models are both lists of such sites. What is asked about is one vector of all latents, in
which every site has its place (`Site`), and the prior is the product of the sites' laws given what was drawn before.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from identkit.adapters.recipe import Recipe
from identkit.numeric.prior import Prior, prior_of

_LATENTS = 256  # numbers in one vector of latents that probes can work with
_STATES = 1 << 14
_TRIED = 16  # draws at which a law that depends on other latents has to show it

Numbers = Callable[[Float[Tensor, "n k"]], Mapping[str, Float[Tensor, "n p"]]]
"""All latents → for each site the numbers of its law, given the sites before it."""


@dataclass(frozen=True)
class Site:
    """A latent of a program: its place in the vector of all, and how its law is made of numbers."""

    name: str
    start: int
    shape: tuple[int, ...]
    recipe: Recipe

    @property
    def end(self) -> int:
        """The first number after it."""
        return self.start + math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The site's name, with one-based indices where it has several numbers."""
        places = itertools.product(*(range(1, size + 1) for size in self.shape))
        return tuple(f"{self.name}[{', '.join(map(str, p))}]" if p else self.name for p in places)

    def of(self, z: Float[Tensor, "*n k"]) -> Tensor:
        """This site's values out of those of all."""
        return z[..., self.start : self.end].reshape((*z.shape[:-1], *self.shape))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Decoded:
    """A program whose law of the data is known, with the names that `check` looks for."""

    name: str
    prior: td.Distribution
    latent_names: tuple[str, ...]
    decoder: Callable[[Tensor], Tensor]
    """Latents (n, k) → the numbers of n laws."""
    likelihood: Callable[[Tensor], td.Distribution]
    """These numbers → n laws of all that is observed."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Scored:
    """A program of which ``log p(x | z)`` is known on its own data only: a verdict is about these."""

    name: str
    prior: td.Distribution
    latent_names: tuple[str, ...]
    log_likelihood: Callable[[Tensor], Tensor]
    """Latents (n, k) → log p(x | z) of all the data, (n,)."""


def laid_out(sites: Sequence[tuple[str, tuple[int, ...], Recipe]], advice: str) -> tuple[Site, ...]:
    """Give each latent its place, one after the other in the order in which they are drawn.

    Args:
        sites: name, shape and recipe of each.
        advice: how to ask about fewer, for the message.

    Raises:
        ValueError: there is none, or more numbers than probes can work with.
    """
    if not sites:
        raise ValueError("model should have a latent that is not observed, got none: nothing is asked about")
    ends = list(itertools.accumulate((math.prod(shape) for _, shape, _ in sites), initial=0))
    if ends[-1] > _LATENTS:
        listed = ", ".join(f"{name} ({math.prod(shape)} numbers)" for name, shape, _ in sites)
        raise ValueError(f"model should have at most {_LATENTS} latent numbers, got {listed}; {advice}")
    return tuple(
        Site(name, start, shape, recipe)
        for (name, shape, recipe), start in zip(sites, ends[:-1], strict=True)
    )


def joint_prior(sites: Sequence[Site], numbers: Numbers, outset: Float[Tensor, " k"]) -> td.Distribution:
    """The prior of all latents: a `Normal` where all are independent Gaussians, a single site's law, else a product.

    That a site depends on others is seen at draws: its numbers differ from one to the next.

    Args:
        sites: in the order in which they are drawn.
        numbers: what their laws are made of.
        outset: one draw of all latents.

    Raises:
        ValueError: finite latents beside continuous ones, infinitely many states or too many, a simplex, a support
            that depends on other latents.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = _drawn(sites, numbers, outset, _TRIED)
    made = numbers(drawn)
    laws = [site.recipe.law(made[site.name][0]) for site in sites]
    read = [prior_of(law) for law in laws]
    finite = [site.name for site, prior in zip(sites, read, strict=True) if prior.states is not None]
    if finite and len(finite) < len(sites):
        rest = ", ".join(site.name for site in sites if site.name not in finite)
        raise ValueError(
            f"latents should be all finite or all continuous, got {', '.join(finite)} beside {rest}: sum the finite ones "
            "out, as a mixture, or condition on them"
        )
    apart = all(bool((made[site.name] == made[site.name][:1]).all()) for site in sites)
    if apart and all(isinstance(law, td.Normal) for law in laws):
        location, scale = (
            torch.cat([getattr(law, part).reshape(-1) for law in laws]) for part in ("loc", "scale")
        )
        return td.Normal(location, scale, validate_args=False)
    if len(sites) == 1:
        return laws[0]
    _refuse_moving_supports(sites, made)
    coordinates = not finite and not any(law.event_shape for law in laws)
    return JointPrior(sites, numbers, outset, read, apart and coordinates)


def _refuse_moving_supports(sites: Sequence[Site], made: Mapping[str, Tensor]) -> None:
    for site in sites:
        support = site.recipe.law(made[site.name]).support
        for end in ("lower_bound", "upper_bound"):
            bound = torch.as_tensor(getattr(support, end, 0.0))
            if bound.ndim and bool((bound != bound[:1]).any()):
                raise ValueError(
                    f"the support of {site.name} should not depend on other latents, but it does"
                )


class JointPrior(td.Distribution):
    """The product of the sites' laws, each given the values of those before it, over all latents as one vector."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as torch declares it

    def __init__(
        self,
        sites: Sequence[Site],
        numbers: Numbers,
        outset: Float[Tensor, " k"],
        read: Sequence[Prior],
        apart: bool,
    ) -> None:
        """Hold the sites, with what `prior_of` says of each; `apart` if all coordinates are independent."""
        self.sites, self.numbers, self.outset = tuple(sites), numbers, outset
        self.low = torch.cat([prior.low for prior in read])
        self.high = torch.cat([prior.high for prior in read])
        self.states = _joint_states(read)
        shape = outset.shape
        super().__init__(
            batch_shape=shape if apart else torch.Size(),
            event_shape=torch.Size() if apart else shape,
            validate_args=False,
        )

    @property
    def support(self) -> Any:
        """A box, or the joint states of finite latents."""
        box = constraints.interval(self.low, self.high) if self.states is None else _Listed(self.states)
        return constraints.independent(box, 1) if self.event_shape and self.states is None else box

    @property
    def mean(self) -> Tensor:
        """Unknown where sites depend on each other: NaN, on the device of the latents."""
        return torch.full_like(self.outset, math.nan)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw every site given those before it."""
        shape = torch.Size(sample_shape)
        return _drawn(self.sites, self.numbers, self.outset, shape.numel()).reshape(
            (*shape, len(self.outset))
        )

    def log_prob(self, value: Float[Tensor, "n k"]) -> Tensor:
        """``log p(z)`` in nats: (n,), or (n, k) where coordinates are independent."""
        made = self.numbers(value)
        logs = [
            site.recipe.law(made[site.name]).log_prob(site.of(value)).reshape(len(value), -1)
            for site in self.sites
        ]
        every = torch.cat(logs, 1)
        return every if self.batch_shape else every.sum(1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All joint values of finite latents, (s, k).

        Raises:
            NotImplementedError: the latents are continuous.
        """
        if self.states is None:
            raise NotImplementedError
        return self.states


class _Listed(constraints.Constraint):
    """One of the listed rows."""

    is_discrete = True
    event_dim = 1

    def __init__(self, states: Float[Tensor, "s k"]) -> None:
        self.states = states
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return (value.unsqueeze(-2) == self.states).all(-1).any(-1)


def _joint_states(read: Sequence[Prior]) -> Float[Tensor, "s k"] | None:
    listed = [prior.states for prior in read if prior.states is not None]
    if len(listed) < len(read):
        return None
    total = math.prod(len(states) for states in listed)
    if total > _STATES:
        raise ValueError(f"latents should have at most {_STATES} joint states, got {total}")
    return torch.stack([torch.cat(rows) for rows in itertools.product(*listed)])


def _drawn(sites: Sequence[Site], numbers: Numbers, outset: Float[Tensor, " k"], n: int) -> Tensor:
    """Draw the sites in their order, (n, k); those not drawn yet stand at the outset, which no earlier one reads."""
    z = outset.expand(n, -1)
    for site in sites:
        fresh = site.recipe.law(numbers(z)[site.name]).sample().to(z.dtype)
        z = torch.cat([z[:, : site.start], fresh.reshape(n, -1), z[:, site.end :]], 1)
    return z

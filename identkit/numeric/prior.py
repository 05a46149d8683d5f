"""The prior of one datum's latents: a torch distribution read as a box, its states or its Gaussian, of k flat numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from identkit.numeric.laws import bare

_STATES = 1 << 14  # values of a finite prior that are worth listing
_SURFACES = tuple(
    type(constraint)
    for constraint in (
        constraints.simplex,
        constraints.one_hot,
        constraints.corr_cholesky,
        constraints.lower_cholesky,
        constraints.lower_triangular,
        constraints.positive_definite,
        constraints.positive_semidefinite,
    )
)


@dataclass(frozen=True, repr=False)
class Prior:
    """The prior of one datum's latents, flattened to k numbers."""

    distribution: td.Distribution
    shape: tuple[int, ...]
    """The shape in which the decoder takes one latent."""
    names: tuple[str, ...]
    low: Float[Tensor, " k"]
    """The support lies in the box ``[low, high]``, ends possibly infinite."""
    high: Float[Tensor, " k"]
    fills_box: bool
    """Whether the support is that box; else (a simplex, an unknown one) it is only known to lie inside."""
    independent: bool
    """Whether the coordinates are known to be independent."""
    states: Float[Tensor, "s k"] | None
    """All values of a finite prior; None for a continuous one."""
    dtype: torch.dtype
    device: torch.device
    whole: torch.dtype | None
    """The dtype in which a decoder takes the states of a finite prior, such as int64; None for a continuous one."""

    @property
    def size(self) -> int:
        """The number of latents k."""
        return len(self.names)

    def sample(self, n: int, seed: int = 0) -> Float[Tensor, "n k"]:
        """Draw n latents; torch's own state of chance is left as it was."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            drawn = self.distribution.sample((n,))
        return drawn.reshape(n, self.size).to(self.dtype)

    def placed(self, z: Float[Tensor, "n k"]) -> Tensor:
        """Latents in the shape and type in which a decoder takes them."""
        return z.reshape(len(z), *self.shape).to(self.whole or z.dtype)

    @property
    def gaussian(self) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k"]] | None:
        """Mean and covariance of a Gaussian prior; None for any other."""
        base = bare(self.distribution)
        if isinstance(base, td.MultivariateNormal | td.LowRankMultivariateNormal):
            mean, covariance = base.mean, base.covariance_matrix
        elif isinstance(base, td.Normal):
            mean, covariance = base.loc.reshape(-1), torch.diag(base.scale.reshape(-1).square())
        else:
            return None
        if mean.ndim != 1:
            return None  # a batch of Gaussians: blocks, which nobody has needed yet
        return mean.to(self.device, self.dtype), covariance.to(self.device, self.dtype)

    def redrawn(
        self, z: Float[Tensor, "n k"], along: Float[Tensor, "k r"], seed: int = 0
    ) -> Float[Tensor, "n k"]:
        """Draw the part of z in the span of `along` again, given the rest of z.

        For a Gaussian prior ``N(m, LLᵀ)`` the rest is what is independent of it: with P the projection on ``L⁻¹ along``,
        ``z′ = z + L P L⁻¹(w − z)``, w a fresh draw. For other priors `along` has to consist of coordinates that are
        independent of all others.

        Raises:
            ValueError: dependent coordinates, or another direction than a coordinate, of a prior that is not Gaussian.
        """
        fresh = self.sample(len(z), seed)
        if self.gaussian is not None:
            root = torch.linalg.cholesky(self.gaussian[1])
            basis, _ = torch.linalg.qr(torch.linalg.solve_triangular(root, along.to(z), upper=False))
            white = torch.linalg.solve_triangular(root, (fresh - z).mT, upper=False)
            return z + (root @ (basis @ (basis.mT @ white))).mT
        moved = along.ne(0)
        if not self.independent or bool((moved.sum(0) != 1).any()):
            raise ValueError(
                "prior should be Gaussian, or have independent coordinates and be asked about coordinates: how to draw "
                f"along other directions of {type(self.distribution).__name__} given the rest is not known"
            )
        return torch.where(moved.any(1), fresh, z)

    def log_prob(self, z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """``log p(z)`` in nats, −∞ outside the support."""
        law = self.distribution
        placed = z.reshape(len(z), *law.batch_shape, *law.event_shape)
        support: Any = law.support
        inside = support.check(placed).reshape(len(z), -1).all(1)
        inside = inside & (z >= self.low).all(1) & (z <= self.high).all(1)
        possible = torch.where(
            inside.reshape(-1, *[1] * (placed.ndim - 1)), placed, self.sample(1).reshape(placed[:1].shape)
        )
        base = bare(law)
        if isinstance(base, td.LowRankMultivariateNormal):  # the one family that does not mix precisions
            possible = possible.to(base.loc.dtype)
        inside = inside & ~_impossible(base, possible).reshape(len(z), -1).any(1)
        return law.log_prob(possible).to(z).reshape(len(z), -1).sum(1).where(inside, -math.inf)


def prior_of(
    prior: td.Distribution,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
    names: tuple[str, ...] | None = None,
) -> Prior:
    """Read a torch distribution as the prior of one datum's latents, named z unless `names` says otherwise.

    Raises:
        ValueError: its support is a surface (a simplex), or a finite one has too many values to list.
    """
    shape = tuple(prior.batch_shape + prior.event_shape)
    names = names or (
        tuple(f"z[{', '.join(str(i + 1) for i in index)}]" for index in np.ndindex(shape))
        if shape
        else ("z",)
    )
    where = device or _home(prior)
    low, high, fills = _box(prior, shape)
    support: Any = prior.support
    states = _listed(prior, shape) if support.is_discrete else None
    return Prior(
        prior,
        shape or (1,),
        names,
        low.to(where, dtype),
        high.to(where, dtype),
        fills,
        _independent(prior),
        None if states is None else states.to(where, dtype),
        dtype,
        where,
        None if states is None else states.dtype,
    )


def _box(prior: td.Distribution, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, bool]:
    """The box ``[low, high]`` of the support, flattened, and whether the support is all of it."""
    base = bare(prior)
    if type(base) is td.TransformedDistribution and not base.event_shape:
        return _image(base, shape)
    if isinstance(base, td.VonMises):  # angles, although torch says real numbers
        half = torch.full((math.prod(shape),), math.pi, dtype=torch.float64)
        return -half, half, True
    support = _plain(prior.support)
    if isinstance(support, _SURFACES):
        simplex = support is constraints.simplex or support is constraints.one_hot
        where = "a simplex" if simplex else f"the surface {support}"
        raise ValueError(
            f"prior should fill a region of its own dimension, got {type(prior).__name__} on {where}; take "
            f"{'all coordinates but one, or logits,' if simplex else 'its free coordinates'} as the latents"
        )
    low, high = (end.expand(shape or (1,)).reshape(-1).clone() for end in _ends(support))
    free = support is constraints.real or support is constraints.real_vector
    known = free or hasattr(support, "lower_bound") or hasattr(support, "upper_bound")
    return low, high, known and not support.is_discrete


def _image(prior: td.TransformedDistribution, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, bool]:
    """The box that numbers fill which are transformed one by one: torch knows what the last step alone can reach."""
    low, high, fills = _box(prior.base_dist, shape)
    low, high = low.reshape(shape), high.reshape(shape)
    for step in prior.transforms:
        bottom, top = _ends(_plain(step.domain))
        if bool((low == bottom).all() & (high == top).all()):
            low, high = (end.expand(shape) for end in _ends(_plain(step.codomain)))
        else:
            ends = torch.stack([torch.as_tensor(step(end)) for end in (low, high)])
            low, high = ends.amin(0), ends.amax(0)
    return low.reshape(-1).clone(), high.reshape(-1).clone(), fills


def _plain(support: Any) -> Any:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _ends(support: Any) -> tuple[Tensor, Tensor]:
    low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
    return torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)


def _home(prior: td.Distribution) -> torch.device:
    """Where a prior draws; not all know their mean."""
    with torch.random.fork_rng():
        return prior.sample().device


def _impossible(base: td.Distribution, z: Tensor) -> Tensor:
    """Where a state has probability 0: torch takes the logarithm of at least eps instead."""
    if isinstance(base, td.Categorical):
        chances = base.probs.expand(*z.shape, base.probs.shape[-1])
        return chances.gather(-1, z.long().unsqueeze(-1)).squeeze(-1) == 0
    if isinstance(base, td.Bernoulli | td.Binomial):
        most = base.total_count if isinstance(base, td.Binomial) else 1
        return ((base.probs == 0) & (z > 0)) | ((base.probs == 1) & (z < most))
    return torch.zeros_like(z, dtype=torch.bool)


def _listed(prior: td.Distribution, shape: tuple[int, ...]) -> Tensor:
    """All joint values of a finite prior, one a row."""
    base = bare(prior)
    try:
        listed = base.enumerate_support(expand=False)
    except NotImplementedError:
        raise ValueError(
            f"prior should be continuous or finite, got {type(base).__name__} on infinitely many states"
        ) from None
    latents = max(1, math.prod(shape))
    if base.event_shape:  # whole vectors, listed by the prior itself
        return listed.reshape(-1, latents)
    values = listed.reshape(-1)
    if len(values) ** latents > _STATES:
        raise ValueError(
            f"prior should have at most {_STATES} joint states, got {len(values)} to the power of {latents}"
        )
    return torch.cartesian_prod(*[values] * latents).reshape(-1, latents)


def _independent(prior: td.Distribution) -> bool:
    base = bare(prior)
    if isinstance(base, td.MultivariateNormal):
        covariance = base.covariance_matrix
        return bool((covariance == torch.diag_embed(torch.diagonal(covariance, dim1=-2, dim2=-1))).all())
    return not base.event_shape

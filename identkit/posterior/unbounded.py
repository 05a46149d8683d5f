"""A continuous prior in coordinates that run over all of R^k, where a gradient can lead anywhere.

``z = T(u)`` with T the bijection of `torch.distributions.biject_to`; the density of u takes the log Jacobian along.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Unbounded:
    """One datum's latents, flattened to k numbers, in unbounded coordinates u."""

    prior: td.Distribution
    """In float64."""
    shape: tuple[int, ...]
    bijection: td.Transform
    gaussian: tuple[Tensor, Tensor] | None
    """Mean (k,) and precision (k, k) of a Gaussian prior."""
    independent: bool
    """Whether the k latents are known to be independent."""
    device: torch.device

    @property
    def size(self) -> int:
        """The number of latents k."""
        return max(1, math.prod(self.shape))

    def sample(self, n: int, seed: int) -> Float[Tensor, "n k"]:
        """Draw n latents z; torch's own state of chance is left as it was."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return self.prior.sample((n,)).to(torch.float64).reshape(n, self.size)

    def coordinates(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """``u = T⁻¹(z)``."""
        return self.bijection.inv(z.reshape(-1, *self.shape)).reshape(z.shape)  # type: ignore[operator]

    def latents(self, u: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """``z = T(u)``."""
        return self.bijection(u.reshape(-1, *self.shape)).reshape(u.shape)  # type: ignore[operator]

    def log_density(self, u: Float[Tensor, "n k"], z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """``log p(u) = log p(z) + log |dz/du|`` at ``z = T(u)``, nats."""
        stretch = self.bijection.log_abs_det_jacobian(u.reshape(-1, *self.shape), z.reshape(-1, *self.shape))
        return self._over_latents(self.prior.log_prob(z.reshape(-1, *self.shape))) + self._over_latents(
            stretch
        )

    def log_prob(self, z: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """``log p(z)``, nats, −∞ outside the support."""
        placed = z.reshape(-1, *self.shape)
        inside = self.prior.support.check(placed).reshape(len(z), -1).all(1)  # type: ignore[union-attr]
        middle = self.latents(torch.zeros(1, self.size, dtype=torch.float64, device=self.device))
        possible = torch.where(inside[:, None], z, middle).reshape(placed.shape)
        return torch.where(inside, self._over_latents(self.prior.log_prob(possible)), -math.inf)

    def log_conditional(self, u: Float[Tensor, "n k"], j: int) -> Float[Tensor, " n"]:
        """``log p(u_j | u_−j)``, nats, for independent or Gaussian priors."""
        if self.gaussian is not None:
            # A conditional of N(m, Λ⁻¹): precision Λ_jj, mean m_j − Σ_{i≠j} Λ_ji (z_i − m_i) / Λ_jj.
            mean, precision = self.gaussian
            away = (u - mean) @ precision[j] / precision[j, j]
            return -0.5 * precision[j, j] * away.square() + 0.5 * torch.log(precision[j, j] / (2 * math.pi))
        if not self.independent:
            raise ValueError(f"the conditionals of a {type(self.prior).__name__} are not known")
        z = self.latents(u)
        base, pieces = _base(self.prior), _base_bijection(self.bijection)
        shaped = u.reshape(-1, *self.shape), z.reshape(-1, *self.shape)
        log_density = base.log_prob(shaped[1]) + pieces.log_abs_det_jacobian(*shaped)
        return log_density.reshape(len(u), -1)[:, j]

    @staticmethod
    def _over_latents(values: Tensor) -> Tensor:
        return values.reshape(len(values), -1).sum(1)


def unbounded(prior: td.Distribution) -> Unbounded:
    """Read a continuous torch distribution of one datum's latents; batch axes are independent latents.

    Raises:
        TypeError: not a torch distribution.
        ValueError: a discrete prior, or one whose support is no smooth image of R^k (a simplex, an unknown support).

    >>> prior = unbounded(td.Uniform(torch.zeros(1), 2.0))
    >>> u = torch.zeros(1, 1, dtype=torch.float64)
    >>> prior.latents(u).item(), prior.log_density(u, prior.latents(u)).exp().item()
    (1.0, 0.25)
    """
    if not isinstance(prior, td.Distribution):
        raise TypeError(f"prior should be a torch distribution, got {type(prior).__name__}")
    prior = in_double(prior)
    shape = tuple(prior.batch_shape + prior.event_shape)
    support = prior.support
    try:
        if support is None or support.is_discrete:
            raise NotImplementedError
        bijection = td.biject_to(support)
        if bijection.inverse_shape(torch.Size(shape)) != torch.Size(shape):
            raise NotImplementedError
    except NotImplementedError:
        raise ValueError(
            f"prior should be continuous on all of R^k or on a box of it, got {type(prior).__name__}"
        ) from None
    with torch.random.fork_rng():
        device = prior.sample().device
    return Unbounded(prior, shape, bijection, _gaussian(prior), not _base(prior).event_shape, device)


def in_double(prior: td.Distribution) -> td.Distribution:
    """The same law with float64 parameters, so that densities are not rounded to seven digits."""
    twin = copy.copy(prior)
    for name, value in vars(prior).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            vars(twin)[name] = value.detach().to(torch.float64)
        elif isinstance(value, td.Distribution):
            vars(twin)[name] = in_double(value)
    return twin


def _base(prior: td.Distribution) -> td.Distribution:
    while isinstance(prior, td.Independent):
        prior = prior.base_dist
    return prior


def _base_bijection(bijection: td.Transform) -> td.Transform:
    while isinstance(bijection, td.transforms.IndependentTransform):
        bijection = bijection.base_transform
    return bijection


def _gaussian(prior: td.Distribution) -> tuple[Tensor, Tensor] | None:
    base = _base(prior)
    if isinstance(base, td.Normal):
        deviation = base.stddev.reshape(-1)
        return base.mean.reshape(-1), torch.diag(deviation**-2)
    if isinstance(base, td.MultivariateNormal | td.LowRankMultivariateNormal) and not base.batch_shape:
        return base.mean, base.precision_matrix
    return None

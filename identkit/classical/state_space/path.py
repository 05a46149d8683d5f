"""A normal law over paths that is a Markov chain: what a linear-Gaussian chain has as prior and as posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal

from identkit.classical.arrays import real
from identkit.classical.state_space.kalman import spread

_NUMBERS = 2**18  # of one array of a piece of time,
_SHORTEST = 64  # which has so many steps at least


@dataclass(frozen=True, eq=False)
class GaussianPath:
    """The law of n paths ``z_t − μ_t = Φ_t (z_{t−1} − μ_{t−1}) + D_t^½ ε_t`` of T steps in k coordinates.

    Row r of the tables stands for ``repeats[r]`` consecutive steps; g is 1 where all sequences share them.

    Source: Rauch, Tung & Striebel 1965, AIAA J. 3:1445; the chain given x is Markov again.
    """

    mean: Float[Tensor, "n t k"]
    """``E[z_t | x]``."""
    closed: Float[Tensor, "g rows k k"]
    """Φ."""
    root: Float[Tensor, "g rows k k"]
    """X with ``D = XᵀX = Cov(z_t | z_{t−1}, x)``, which does not depend on z_{t−1}."""
    covariances: Float[Tensor, "g rows k k"]
    """``Cov(z_t | x)``."""
    repeats: Any = None
    """Steps a row stands for; None: one each."""

    @property
    def batch_shape(self) -> torch.Size:
        """One path a sequence."""
        return self.mean.shape[:1]

    @property
    def event_shape(self) -> torch.Size:
        """(T, k)."""
        return self.mean.shape[1:]

    @property
    def covariance(self) -> Float[Tensor, "n t k k"]:
        """``Cov(z_t | x)`` of each step; a view where sequences share it."""
        return self._shared(spread(self.covariances, self.repeats))

    @property
    def lag_one(self) -> Float[Tensor, "n s k k"]:
        """``Cov(z_{t+1}, z_t | x) = Φ_{t+1} S_t`` for t = 1, …, T − 1."""
        before = spread(self.covariances, self.repeats)[:, :-1]
        return self._shared(spread(self.closed, self.repeats)[:, 1:] @ before)

    @property
    def variance(self) -> Float[Tensor, "n t k"]:
        """The variance of each latent."""
        return self._shared(spread(self.covariances.diagonal(dim1=-2, dim2=-1), self.repeats))

    @property
    def stddev(self) -> Float[Tensor, "n t k"]:
        """The standard deviation of each latent."""
        deviations = self.covariances.diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
        return self._shared(spread(deviations, self.repeats))

    def marginal(self, t: int) -> MultivariateNormal:
        """Give the law of the state at one time.

        Args:
            t: 0, …, T − 1; negative ones count from the end.

        Raises:
            IndexError: no such time.
            ValueError: the state has no density there, for its covariance is singular.
        """
        factor, failed = torch.linalg.cholesky_ex(self.covariance[:, t])
        if bool(failed.any()):
            raise ValueError(
                f"t should be a time at which the state has a density, got {t}, where it is singular"
            )
        return MultivariateNormal(self.mean[:, t], scale_tril=factor)

    def log_prob(self, path: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate the log density of whole paths in nats.

        ``Σ_t log N(z_t; μ_t + Φ_t(z_{t−1} − μ_{t−1}), D_t)``.

        Args:
            path: (n, T, k) or (n, T·k), with any axes of samples in front.

        Raises:
            ValueError: a wrong shape, or a path law without a density (a singular process or initial covariance).
        """
        single = self.mean.dtype
        value = as_paths(real(path, "path").to(self.mean.device), self.mean.shape, "path")
        total = torch.zeros(value.shape[:-2], dtype=torch.float64, device=value.device)
        before = torch.zeros_like(value[..., :1, :], dtype=torch.float64)
        for now, rows, repeated in self._pieces(total.numel()):
            root = self.root[:, rows].double()
            factor, failed = torch.linalg.cholesky_ex(root.mT @ root)
            if bool(failed.any()):
                raise ValueError(
                    "path should have a density, but the process (or initial) covariance is singular: "
                    "paths fill a subspace only"
                )
            unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
            inverse = torch.linalg.solve_triangular(factor, unit, upper=False)
            apart = (value[..., now, :] - self.mean[:, now]).double()
            earlier = torch.cat([before, apart[..., :-1, :]], -2)
            before = apart[..., -1:, :]
            fresh = apart - (repeated(self.closed[:, rows].double()) @ earlier[..., None])[..., 0]
            whitened = (repeated(inverse) @ fresh[..., None])[..., 0]
            scale = repeated(factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)).sum(-1)
            total = total - whitened.square().sum((-1, -2)) / 2 - scale
        return (total - math.prod(self.event_shape) * math.log(2 * math.pi) / 2).to(single)

    def sample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*samples n t k"]:
        """Draw whole paths, step after step: shape (*sample_shape, n, T, k)."""
        shape = (*sample_shape, *self.mean.shape)
        path = torch.randn(shape, dtype=torch.float64, device=self.mean.device, generator=generator)
        for now, rows, repeated in self._pieces(math.prod(shape[:-2])):
            closed, root = (repeated(table[:, rows].double()) for table in (self.closed, self.root))
            path[..., now, :] = (path[..., now, None, :] @ root)[..., 0, :]
            for t in range(max(now.start, 1), now.stop):
                path[..., t, :] += (path[..., t - 1, None, :] @ closed[:, t - now.start].mT)[..., 0, :]
        return path.add_(self.mean).to(self.mean.dtype)

    def _pieces(self, paths: int) -> Iterator[tuple[slice, slice, Callable[[Tensor], Tensor]]]:
        """Pieces of time of so many paths: steps, rows, and what repeats what was made of these, one entry a step."""
        length, k = self.event_shape
        size = max(_SHORTEST, _NUMBERS // (k * (paths + len(self.closed) * k)))
        ends = None if self.repeats is None else np.cumsum(self.repeats)
        for start in range(0, length, size):
            now = slice(start, min(start + size, length))
            if ends is None:
                yield now, now, lambda table: table
            else:
                row = np.searchsorted(ends, np.arange(now.start, now.stop), side="right")
                index = torch.from_numpy(row - row[0]).to(self.mean.device)
                yield now, slice(row[0], row[-1] + 1), lambda table, index=index: table[:, index]

    def _shared(self, table: Tensor) -> Tensor:
        return table.expand(len(self.mean), *table.shape[1:])


def joined(rows: Sequence[int], repeats: Sequence[Any]) -> Any:
    """`GaussianPath.repeats` of pieces that follow each other, from those of each and its number of rows."""
    if all(counts is None for counts in repeats):
        return None
    pairs = zip(rows, repeats, strict=True)
    return np.concatenate([np.ones(n, dtype=np.int64) if counts is None else counts for n, counts in pairs])


def as_paths(value: Tensor, shape: torch.Size, name: str) -> Float[Tensor, "*samples n t k"]:
    """Take (…, n, T, k), or (…, n, T·k) with a path a row, as (…, n, T, k).

    Raises:
        ValueError: neither.
    """
    n, length, k = shape
    if value.ndim >= 3 and value.shape[-3:] == (n, length, k):
        return value
    if value.ndim >= 2 and value.shape[-2:] == (n, length * k):
        return value.reshape(*value.shape[:-1], length, k)
    raise ValueError(
        f"{name} should have shape (…, {n}, {length}, {k}) or (…, {n}, {length * k}), got {tuple(value.shape)}"
    )

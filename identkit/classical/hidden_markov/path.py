"""The posterior of a hidden path: a Markov chain again, with other transitions at every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical, Distribution

from identkit.classical.arrays import real
from identkit.classical.hidden_markov.data import Sequences
from identkit.classical.hidden_markov.lanes import Steps, by_sequence
from identkit.classical.hidden_markov.logs import best_paths
from identkit.classical.hidden_markov.sweep import sweep


@dataclass(frozen=True, eq=False)
class StatePath:
    """The law of the states ``z_1 … z_T`` of n sequences, given what was seen of them (or nothing: the prior).

    States are numbered from 0, steps too. Tables of sequences of unequal length are padded with zeros.
    """

    initial: Float[Tensor, " k"]
    transition: Float[Tensor, "k k"]
    data: Sequences
    steps: Steps
    probs: Float[Tensor, "n t k"]
    """The smoothed marginals ``p(z_t = k | x)``."""
    log_evidence: Float[Tensor, " n"]
    """``log p(x)`` in nats."""

    @property
    def lengths(self) -> Tensor:
        """How many steps each sequence has, (n,)."""
        return torch.from_numpy(self.data.lengths).to(self.probs.device)

    @property
    def mean(self) -> Float[Tensor, "n t"]:
        """Mean of the state's number at each step."""
        return self.probs @ self._numbers

    @property
    def variance(self) -> Float[Tensor, "n t"]:
        """Variance of the state's number at each step."""
        return (self.probs * (self._numbers - self.mean[..., None]).square()).sum(-1)

    @property
    def stddev(self) -> Float[Tensor, "n t"]:
        """Standard deviation of the state's number at each step."""
        return self.variance.sqrt()

    @cached_property
    def covariance(self) -> Float[Tensor, "n t t"]:
        """Covariance of the states' numbers at any two steps; T² numbers a sequence, so for short ones."""
        n, length, _ = self.probs.shape
        numbers, probs = self._numbers.double(), self.probs.double()
        ahead = self._transitions.double()
        product = torch.zeros(n, length, length, dtype=torch.float64, device=probs.device)
        for t in range(length):
            weight = probs[:, t] * numbers
            product[:, t, t] = weight @ numbers
            for later in range(t + 1, length):
                weight = (weight[:, None, :] @ ahead[:, later - 1])[:, 0]
                product[:, t, later] = product[:, later, t] = weight @ numbers
        mean = probs @ numbers
        return (product - mean[:, :, None] * mean[:, None, :]).to(self.probs.dtype)

    @cached_property
    def pairwise(self) -> Float[Tensor, "n steps k k"]:
        """``p(z_t = j, z_{t+1} = k | x)``, T − 1 tables a sequence."""
        return self.probs[:, :-1, :, None] * self._transitions

    @cached_property
    def mode(self) -> Int[Tensor, "n t"]:
        """The most probable path (Viterbi 1967); of equals the one with the lowest last state."""
        logs = self._log_density[0]
        with np.errstate(divide="ignore"):
            path = best_paths(self.initial.log().cpu().numpy(), self.transition.log().cpu().numpy(), logs)
        path[self.data.beyond] = 0
        return torch.from_numpy(path).to(self.probs.device)

    def marginal(self, t: int) -> Categorical:
        """The law of z_t for each sequence, t from 0.

        Raises:
            ValueError: no such step in some sequence.
        """
        shortest = int(self.data.lengths.min(initial=self.probs.shape[1]))
        if not 0 <= t < shortest:
            raise ValueError(f"t should be a step in 0..{shortest - 1} of every sequence, got {t}")
        return Categorical(probs=self.probs[:, t], validate_args=False)

    def log_prob(self, z: Any) -> Float[Tensor, "*samples n"]:
        """``log p(z | x) = log p(z) + log p(x | z) − log p(x)`` of whole paths, in nats.

        Args:
            z: states from 0, (n, T) or (samples, n, T); what stands beyond an end is not read.

        Raises:
            ValueError: z is no state, or a wrong shape.
        """
        z = path_of(z, self.probs.shape, self.probs.device)
        return (log_prior(self, z) + self.log_likelihood(z) - self.log_evidence).to(self.probs.dtype)

    def log_likelihood(self, z: Tensor) -> Tensor:
        """``log p(x | z) = Σ_t log b_{z_t}(x_t)``, float64."""
        logs, common = self._log_density
        return log_likelihood(logs, common, z)

    def sample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Int[Tensor, "*samples n t"]:
        """Draw whole paths, z_1 first and then along the posterior's own transitions.

        Args:
            sample_shape: () for one path a sequence, (s,) for s.
            generator: torch's, on the device of the posterior.
        """
        n, length, k = self.probs.shape
        count = math.prod(sample_shape)
        z = torch.zeros(count, n, length, dtype=torch.int64, device=self.probs.device)
        for t in range(length if n and count else 0):
            if t == 0:
                weights = self.probs[:, 0].expand(count, n, k)
            else:
                table = self._transitions[:, t - 1].expand(count, n, k, k)
                weights = table.gather(2, z[..., t - 1, None, None].expand(-1, -1, 1, k))[:, :, 0]
            over = (t >= self.lengths)[:, None]
            weights = torch.where(over, torch.eye(1, k, device=z.device, dtype=weights.dtype), weights)
            z[..., t] = torch.multinomial(weights.reshape(-1, k), 1, generator=generator).reshape(count, n)
        return z.reshape(*sample_shape, n, length)

    @property
    def _numbers(self) -> Tensor:
        return torch.arange(len(self.initial), dtype=self.probs.dtype, device=self.probs.device)

    @cached_property
    def _log_density(self) -> tuple[Any, Any]:
        """``log b_k(x_t)``, (T, n, K), less what is common to the states, and the sums of that, (n,)."""
        return by_sequence(self.steps)

    @cached_property
    def _transitions(self) -> Tensor:
        """``p(z_{t+1} = k | z_t = j, x)``, (n, T − 1, K, K); 0 beyond an end."""
        chain = (self.initial.cpu().numpy(), self.transition.cpu().numpy())
        future = sweep(*chain, self.steps, future=True).future
        onward = torch.from_numpy(future + self._log_density[0].swapaxes(0, 1)).to(self.probs.device)
        weight = self.transition.to(onward.device).log() + onward[:, 1:, None, :]
        mass = torch.exp(weight - weight.amax(-1, keepdim=True))
        mass = (mass / mass.sum(-1, keepdim=True)).nan_to_num(nan=0.0)
        beyond = torch.from_numpy(self.data.beyond).to(mass.device)[:, 1:, None, None]
        return torch.where(beyond, 0.0, mass).to(self.probs.dtype)


class PathPrior(Distribution):
    """The law of ``z_1 … z_T`` before any data, as a torch distribution of events of length T."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: StatePath) -> None:
        self.path = path
        super().__init__(event_shape=path.probs.shape[1:2], validate_args=False)

    @property
    def probs(self) -> Float[Tensor, "t k"]:
        """The marginals ``p(z_t = k)``."""
        return self.path.probs[0]

    @property
    def mean(self) -> Float[Tensor, " t"]:
        """Mean of the state's number at each step."""
        return self.path.mean[0]

    @property
    def variance(self) -> Float[Tensor, " t"]:
        """Variance of the state's number at each step."""
        return self.path.variance[0]

    def sample(
        self, sample_shape: Any = (), generator: torch.Generator | None = None
    ) -> Int[Tensor, "*samples t"]:
        """Draw paths."""
        return self.path.sample(tuple(sample_shape), generator)[..., 0, :]

    def log_prob(self, value: Any) -> Float[Tensor, "*samples"]:
        """``log π(z_1) + Σ_t log A(z_{t−1}, z_t)`` of paths (…, T), in nats."""
        value = real(value, "value")
        _, length, k = self.path.probs.shape
        if value.shape[-1:] != (length,):
            raise ValueError(f"value should have shape (any, {length}), got {tuple(value.shape)}")
        z = path_of(value.reshape(-1, 1, length), (1, length, k), value.device)
        return log_prior(self.path, z).reshape(value.shape[:-1])


def path_of(z: Any, shape: Any, device: torch.device) -> Int[Tensor, "*samples n t"]:
    """Convert paths to integer states, (n, T) or (samples, n, T).

    Raises:
        TypeError, ValueError: another shape, or no states.
    """
    n, length, k = shape
    z = real(z, "z").to(device)
    if z.ndim not in (2, 3) or tuple(z.shape[-2:]) != (n, length):
        expected = f"({n}, {length}) or (samples, {n}, {length})"
        raise ValueError(f"z should have shape {expected}, got {tuple(z.shape)}")
    wrong = z[(z != z.round()) | (z < 0) | (z >= k)]
    if len(wrong):
        raise ValueError(f"z should be states in 0..{k - 1}, got {wrong[0].item():g}")
    return z.long()


def log_likelihood(logs: Any, common: Any, z: Tensor) -> Tensor:
    """``Σ_t log b_{z_t}(x_t)`` of paths (…, n, T), from what `by_sequence` gives, float64."""
    table = torch.from_numpy(np.ascontiguousarray(logs.swapaxes(0, 1))).to(z.device)
    chosen = table.expand(*z.shape, -1).gather(-1, z[..., None])[..., 0]
    return chosen.sum(-1) + torch.from_numpy(common).to(z.device)


def log_prior(path: StatePath, z: Tensor) -> Tensor:
    """``log p(z)`` of whole paths, float64."""
    initial, transition = path.initial.to(z.device).log(), path.transition.to(z.device).log()
    steps = transition[z[..., :-1], z[..., 1:]]
    there = torch.arange(1, z.shape[-1], device=z.device) < path.lengths.to(z.device)[:, None]
    return initial[z[..., 0]] + torch.where(there, steps, 0.0).sum(-1)

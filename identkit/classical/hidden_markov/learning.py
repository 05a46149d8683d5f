"""What a fit does to emissions, over and over on the same data: densities, the M-step, coordinates that may be leapt in.

Each kind of emission is an exponential family: ``log b_k(x) = θ_k·φ(x)`` but for what all states share. So the table
φ of all steps is made once, and an iteration on few data is one product with it for the densities and one for the sums
of the M-step. A step that is not observed has a row of zeros: no state is told from another there, and no sum moves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch

from identkit.classical.hidden_markov.emissions import CategoricalEmission, Emission, PoissonEmission
from identkit.classical.hidden_markov.gaussian import GaussianEmission
from identkit.classical.hidden_markov.tables import normalised

Array = np.ndarray
Parameters = tuple[Array, ...]

_EPS = np.finfo(np.float64).eps
_TINY = np.finfo(np.float64).tiny
_NEAR = 1e3
"""Up to this many variances from the data's mean, a variance about it less a square has digits enough: 1e-13."""
_REACH = 2.0**20
"""Up to terms of this size log densities are sums of them: right to 1e-9 nats."""


class Learner(ABC):
    """All steps of one data set, seen by one kind of emission.

    Args:
        like: an emission of the kind, whose device a result is on.
        x: (N, d).
        observed: (N,); what stands in x elsewhere is never looked at.
    """

    def __init__(self, like: Emission, x: Array, observed: Array) -> None:
        self.like, self.x, self.observed = like, x, observed
        self.whole = bool(observed.all())
        self.seen = x if self.whole else x[observed]

    @abstractmethod
    def parameters(self, emission: Any) -> Parameters:
        """What the learner knows an emission by."""

    @abstractmethod
    def emission(self, parameters: Parameters) -> Any:
        """The emission of parameters, which need no look."""

    @abstractmethod
    def densities(self, parameters: Parameters, share: float = 0.0) -> tuple[Array, float]:
        """Give ``b_k(x_t)`` over its largest, times e^share, (N, K), and the sum of the logs of what was divided by."""

    @abstractmethod
    def maximised(self, parameters: Parameters, weights: Array) -> Parameters:
        """The parameters of largest likelihood, given how much of each step is each state's, (N, K).

        A state without data keeps its own.
        """

    @abstractmethod
    def coordinates(self, parameters: Parameters) -> Array:
        """Numbers that a fit may extrapolate, (K, …)."""

    @abstractmethod
    def placed(self, coordinates: Array) -> Parameters:
        """The parameters of any such numbers, within the bounds that `maximised` keeps on the same data.

        Raises:
            ValueError: parameters that are no finite numbers.
        """

    def _powers(self, *columns: Array) -> Array:
        """φ: 1 and what stands in the columns, (N, q), zeros where nothing is observed."""
        ones = np.ones((len(self.x), 1))
        powers = np.concatenate([ones, *columns], 1)
        if not self.whole:
            powers[~self.observed] = 0.0
        return powers

    def _relative(self, logs: Array, share: float) -> tuple[Array, float]:
        """As `densities`, from ``log b`` in the layout (K, N), which is spent."""
        top = np.maximum.reduce(logs, axis=0)
        total = float(np.add.reduce(top)) - len(top) * share
        top -= share
        np.subtract(logs, top, out=logs)
        return np.ascontiguousarray(np.exp(logs, out=logs).T), total

    def _by_emission(self, parameters: Parameters, share: float) -> tuple[Array, float]:
        """The densities where sums of large terms would lose digits: as a posterior takes them."""
        logs, common = self.emission(parameters).stepwise(self.x[None])
        logs, common = logs[0], common[0]
        if not self.whole:
            logs[:, ~self.observed] = 0.0
            common = np.where(self.observed, common, 0.0)
        relative, total = self._relative(logs, share)
        return relative, total + float(np.add.reduce(common))


def learner(emission: Emission, x: Array, observed: Array) -> Learner:
    """Give the learner of an emission's kind, for data as `Learner` takes them."""
    if isinstance(emission, GaussianEmission):
        return GaussianLearner(emission, x, observed)
    if isinstance(emission, PoissonEmission):
        return PoissonLearner(emission, x, observed)
    return CategoricalLearner(emission, x, observed)


class GaussianLearner(Learner):
    """Means about the data's own, and covariances: variances (K, d), or (K, d, d) where they are full.

    No variance falls below 1e-9 of the data's, in any direction: there the likelihood has no maximum.
    """

    like: GaussianEmission

    def __init__(self, like: GaussianEmission, x: Array, observed: Array) -> None:
        super().__init__(like, x, observed)
        self.kind, self.d = like.kind, x.shape[1]
        self.centre = np.add.reduce(self.seen) / len(self.seen)
        y = x - self.centre
        squares = y * y
        if not self.whole:
            y[~observed] = squares[~observed] = 0.0
        self.powers = self._powers(y, squares)
        self.floor = 1e-9 / len(self.seen) * np.add.reduce(squares) + _TINY
        self.reach = squares.max(0)
        self.constant = self.d * np.log(2 * np.pi)

    def parameters(self, emission: GaussianEmission) -> Parameters:
        covariances = emission.covariances.cpu().numpy()
        if self.kind != "full":
            covariances = covariances.diagonal(axis1=1, axis2=2).copy()
        return emission.means.cpu().numpy() - self.centre, covariances

    def emission(self, parameters: Parameters) -> GaussianEmission:
        means, covariances = parameters
        return self.like.trusted(means + self.centre, covariances)

    def densities(self, parameters: Parameters, share: float = 0.0) -> tuple[Array, float]:
        means, variances = parameters
        if self.kind == "full":
            return self._by_emission(parameters, share)
        d, own = self.d, means * means
        precision = 1 / variances
        if not ((own + self.reach) * precision).max() * d <= _REACH:
            return self._by_emission(parameters, share)
        weights = np.empty((len(means), 2 * d + 1))
        np.multiply(means, precision, out=weights[:, 1 : d + 1])
        np.multiply(precision, -0.5, out=weights[:, d + 1 :])
        own *= precision
        own += np.log(variances)
        np.multiply(np.add.reduce(own, axis=1) + self.constant, -0.5, out=weights[:, 0])
        return self._relative(weights @ self.powers.T, share)

    def maximised(self, parameters: Parameters, weights: Array) -> Parameters:
        d = self.d
        if not self.whole:
            weights = np.where(self.observed[:, None], weights, 0.0)
        sums = weights.T @ self.powers
        mass = sums[:, :1]
        held = bool((mass > _EPS).all())
        moments = sums[:, 1:] / (mass if held else np.where(mass > _EPS, mass, 1.0))
        means, spreads = moments[:, :d], moments[:, d:]
        own = means * means
        spreads = spreads - own
        if self.kind == "full":
            covariances = np.stack([self._spread(weights[:, k], mean) for k, mean in enumerate(means)])
        else:
            # A state far from the mean of all is looked at from its own, which costs no digits.
            near = own <= _NEAR * spreads
            if not near.all():
                for k in np.flatnonzero(~near.all(1)):
                    apart = self.powers[:, 1 : d + 1] - means[k]
                    spreads[k] = weights[:, k] @ np.square(apart, out=apart) / max(mass[k, 0], _EPS)
            covariances = np.maximum(spreads, self.floor)
            if self.kind == "spherical":
                covariances = np.repeat(np.add.reduce(covariances, axis=1, keepdims=True) / d, d, axis=1)
        if not held:
            kept = mass[:, 0] > _EPS
            means = np.where(kept[:, None], means, parameters[0])
            kept = kept.reshape(-1, *[1] * (covariances.ndim - 1))
            covariances = np.where(kept, covariances, parameters[1])
        return means, covariances

    def _spread(self, weights: Array, mean: Array) -> Array:
        """The covariance of one state about its mean, held above the floor."""
        unit = np.sqrt(self.floor)
        apart = (self.powers[:, 1 : self.d + 1] - mean) / unit
        spread = (apart * (weights / max(weights.sum(), _EPS))[:, None]).T @ apart
        return _at_least_one((spread + spread.T) / 2) * unit[:, None] * unit

    def coordinates(self, parameters: Parameters) -> Array:
        """The means and log variances, or Cholesky factors with the logs of their diagonals."""
        means, covariances = parameters
        if self.kind != "full":
            return np.concatenate([means, np.log(covariances)], 1)
        factors = np.linalg.cholesky(covariances)
        diagonal = np.einsum("kdd->kd", factors)
        diagonal[:] = np.log(diagonal)
        return np.concatenate([means, factors.reshape(len(means), -1)], 1)

    def placed(self, coordinates: Array) -> Parameters:
        means, scales = coordinates[:, : self.d].copy(), coordinates[:, self.d :]
        if self.kind == "full":
            factors = scales.reshape(len(means), self.d, self.d).copy()
            diagonal = np.einsum("kdd->kd", factors)
            diagonal[:] = np.exp(diagonal)
            unit = np.sqrt(self.floor)
            factors /= unit[:, None]
            covariances = np.stack([_at_least_one(factor @ factor.T) for factor in factors])
            covariances *= unit[:, None] * unit
        else:
            floor = self.floor if self.kind == "diagonal" else self.floor.mean()
            covariances = np.maximum(np.exp(scales), floor)
        if not np.isfinite(covariances).all():
            raise ValueError("coordinates should give finite covariances")
        return means, covariances


class PoissonLearner(Learner):
    """The rates, (K, d).

    A rate that would be 0 stays at 1e-9 of the mean count, for a state of no counts would forbid all others.
    """

    like: PoissonEmission

    def __init__(self, like: PoissonEmission, x: Array, observed: Array) -> None:
        super().__init__(like, x, observed)
        self.powers = self._powers(x)
        self.least = (1e-9 * self.seen.mean(0)).clip(min=_TINY)
        self.most = float(self.seen.max())
        self.factorials = float(torch.lgamma(torch.from_numpy(self.seen) + 1).sum())

    def parameters(self, emission: PoissonEmission) -> Parameters:
        return (emission.rates.cpu().numpy(),)

    def emission(self, parameters: Parameters) -> PoissonEmission:
        return self.like.trusted(parameters[0])

    def densities(self, parameters: Parameters, share: float = 0.0) -> tuple[Array, float]:
        (rates,) = parameters
        weights = np.empty((len(rates), rates.shape[1] + 1))
        slopes = np.log(rates, out=weights[:, 1:])
        if not (abs(slopes) * self.most + rates).max() * rates.shape[1] <= _REACH:
            return self._by_emission(parameters, share)
        np.negative(np.add.reduce(rates, axis=1), out=weights[:, 0])
        relative, total = self._relative(weights @ self.powers.T, share)
        return relative, total - self.factorials

    def maximised(self, parameters: Parameters, weights: Array) -> Parameters:
        sums = weights.T @ self.powers
        mass = sums[:, :1]
        held = mass > 0
        if held.all():
            return (np.maximum(sums[:, 1:] / mass, self.least),)
        rates = np.maximum(sums[:, 1:] / np.where(held, mass, 1.0), self.least)
        return (np.where(held, rates, parameters[0]),)

    def coordinates(self, parameters: Parameters) -> Array:
        """The logs of the rates."""
        return np.log(parameters[0])

    def placed(self, coordinates: Array) -> Parameters:
        rates = np.maximum(np.exp(coordinates), self.least)
        if not np.isfinite(rates).all():
            raise ValueError("coordinates should give finite rates")
        return (rates,)


class CategoricalLearner(Learner):
    """The probabilities of the symbols, (K, M)."""

    like: CategoricalEmission

    def __init__(self, like: CategoricalEmission, x: Array, observed: Array) -> None:
        super().__init__(like, x, observed)
        symbols = x[:, 0].astype(np.int64) - like.first
        self.count = like.table.shape[1]
        self.symbols = symbols if self.whole else np.where(observed, symbols, self.count)
        # Steps in the order of what they show, and where each symbol that is shown begins.
        self.order = np.argsort(self.symbols, kind="stable")[: len(self.seen)]
        self.shown, self.begins, self.times = np.unique(
            self.symbols[self.order], return_index=True, return_counts=True
        )

    def parameters(self, emission: CategoricalEmission) -> Parameters:
        return (emission.table.cpu().numpy(),)

    def emission(self, parameters: Parameters) -> CategoricalEmission:
        return self.like.trusted(parameters[0])

    def densities(self, parameters: Parameters, share: float = 0.0) -> tuple[Array, float]:
        (table,) = parameters
        top = np.maximum.reduce(table, axis=0)
        columns = np.ones((self.count + 1, len(table)))  # the last for what is not observed
        np.divide(table, np.where(top > 0, top, 1.0), out=columns[:-1].T)
        total = float(self.times @ np.log(top[self.shown])) - len(self.symbols) * share
        columns *= np.exp(share)
        return columns[self.symbols], total

    def maximised(self, parameters: Parameters, weights: Array) -> Parameters:
        counts = np.zeros((self.count, weights.shape[1]))
        counts[self.shown] = np.add.reduceat(weights[self.order], self.begins)
        mass = np.add.reduce(counts)
        held = mass > 0
        if held.all():
            return (np.ascontiguousarray((counts / mass).T),)
        found = (counts / np.where(held, mass, 1.0)).T
        return (np.where(held[:, None], found, parameters[0]),)

    def coordinates(self, parameters: Parameters) -> Array:
        """The logs of the probabilities."""
        return np.log(parameters[0])

    def placed(self, coordinates: Array) -> Parameters:
        """From any numbers: each row is made to sum to one."""
        return (normalised(coordinates),)


def _at_least_one(spread: Array) -> Array:
    """A symmetric matrix with its eigenvalues below one raised to one."""
    values, vectors = np.linalg.eigh(spread)
    if not values[0] < 1.0:
        return spread
    raised = (vectors * values.clip(min=1.0)) @ vectors.T
    return (raised + raised.T) / 2

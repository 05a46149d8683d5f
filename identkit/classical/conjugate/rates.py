"""Rates with a gamma prior: counts (gamma-Poisson) and waiting times (gamma-exponential)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Gamma, Independent

from identkit.classical.arrays import positive, shaped
from identkit.classical.conjugate.empirical_bayes import climb
from identkit.classical.conjugate.gamma_divergence import (
    gamma_kl,
    log_gamma_divergence,
    log_gamma_evidence,
    log_gamma_poisson,
    rounded_parts,
    trigamma_rest,
)
from identkit.classical.conjugate.pair import (
    BLOCK,
    EPS,
    MOST_TERMS,
    TINY,
    Conjugate,
    gammas,
    refuse_counts,
    simulated,
    with_convergence,
)
from identkit.classical.em import Convergence
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.compiled.saddle_point import log_factorial_rest, log_multinomial
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness

_STARTS = 64


class _Rate(Conjugate):
    """Events at a rate λ with a gamma prior: the data add events δ to its shape and exposure E to its rate."""

    shape: float
    rate: float

    def _seen(self, s: Tensor, count: float) -> tuple[Tensor, Tensor]:
        """Events and exposure, each (m,), from summaries."""
        raise NotImplementedError

    @property
    def prior(self) -> Independent:
        """``Gamma(shape, rate)``, one number a draw."""
        one = torch.ones(1, dtype=torch.float64)
        return Independent(Gamma(self.shape * one, self.rate * one), 1)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The one latent, the rate of events."""
        return ("lambda",)

    def posterior(self, x: Any) -> Independent:
        """Give ``Gamma(shape + events, rate + exposure)``, of batch n (pooled: 1), one number a draw."""
        both = self._each(x, self._later)
        return Independent(Gamma(both[:, :1], both[:, 1:], validate_args=False), 1)

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(λ) = δ log λ − E λ + const`` under the gamma prior, by trigammas.

        ``V = δ² ψ'(a) − 2 δE/b + E² a/b² = a (δ/a − E/b)² + δ² (ψ'(a) − 1/a)``, for ``Cov(log λ, λ) = 1/b``;
        ω = ∞ unless δ = E = 0. A gamma law has no log-Sobolev constant: its tail is exponential.

        Source: theory/T4; moments of a gamma law and its logarithm.
        """
        return super().flatness(x)

    def _numbers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(like, self.shape), torch.full_like(like, self.rate)

    def _later(self, s: Tensor, count: float) -> Tensor:
        events, exposure = self._seen(s, count)
        return torch.stack([self.shape + events, self.rate + exposure], -1)

    def _kl(self, s: Tensor, count: float) -> Tensor:
        events, exposure = self._seen(s, count)
        a, b = self._numbers(events)
        return gamma_kl(a, events, b, exposure)

    def _error(self, s: Tensor, count: float) -> Tensor:
        events, exposure = self._seen(s, count)
        a, b = self._numbers(events)
        rest = rounded_parts(a, events)
        step = EPS * (events * b + exposure * a) / (a.sqrt() * (b + exposure))
        kl = self._kl(s, count)
        return EPS * (kl + rest) + (2 * kl).sqrt() * step + step.square() + TINY

    def _moments(self, s: Tensor, count: float) -> Tensor:
        a, b = self._later(s, count).unbind(-1)
        return torch.stack([a / b, a.sqrt() / b], -1)[..., None]

    def _variance(self, s: Tensor, count: float) -> Tensor:
        events, exposure = self._seen(s, count)
        a, b = self._numbers(events)
        main = a * (events / a - exposure / b).square()
        rest = events.square() * trigamma_rest(a)
        step = EPS * a.sqrt() * (events / a + exposure / b)
        error = 2 * main.sqrt() * step + step.square() + EPS * (main + rest) + TINY
        return torch.stack([main + rest, error, events + exposure], -1)

    def _rates(self, n: int, generator: torch.Generator | None) -> Tensor:
        n = number_of_draws(n, generator)
        shape = torch.full((1 if self.pooled else n, 1), self.shape, dtype=torch.float64)
        return gammas(shape, generator) / self.rate

    def _declared(self, name: str) -> tuple[Model, Any]:
        model = Model(name)
        prior = families.Gamma(families.exact(self.shape), families.exact(self.rate))
        return model, model.latent("lambda", prior)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class GammaPoisson(_Rate):
    """Counts of events whose rate λ is the latent; marginally they are negative binomial.

    ``λ ~ Gamma(shape, rate), x | λ ~ Poisson(E λ)``: the posterior is ``Gamma(shape + x, rate + E)``. Without
    exposure the likelihood ignores λ.

    Source: Gelman et al. 2013, section 2.6; `theory/T1`.

    Args:
        shape: of the prior, positive.
        rate: of the prior, positive (its mean is shape/rate).
        exposure: E ≥ 0 of each row, in units of 1/λ.
        pooled: whether the rows of a data set share λ.

    Raises:
        ValueError, TypeError: a shape or rate that is not positive, a negative exposure.

    >>> model = GammaPoisson(2.0, 1.0, exposure=3.0)
    >>> model.posterior([4]).mean, model.kl_to_prior([4])
    (tensor([[1.5000]], dtype=torch.float64), tensor([0.3096], dtype=torch.float64))
    >>> GammaPoisson(2.0, 1.0, exposure=0).kl_to_prior([0]).item()
    0.0
    """

    shape: float
    rate: float
    exposure: float
    pooled: bool
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, shape: Any, rate: Any, exposure: Any = 1.0, *, pooled: bool = False) -> None:
        exposure = shaped(exposure, "exposure").item()
        if exposure < 0:
            raise ValueError(f"exposure should be at least 0, got {exposure}")
        object.__setattr__(self, "shape", positive(shape, "shape"))
        object.__setattr__(self, "rate", positive(rate, "rate"))
        object.__setattr__(self, "exposure", exposure)
        object.__setattr__(self, "pooled", bool(pooled))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any, exposure: Any = 1.0) -> GammaPoisson:
        """Fit shape and rate by maximum likelihood of the counts (empirical Bayes).

        Counts that vary less than Poisson ones ask for a prior without spread: the shape runs away, and it warns.

        Source: Fisher 1941, Annals of Eugenics 11:182 (the negative binomial).

        Args:
            x: counts (n,) or (n, 1), each row with a rate of its own.
            exposure: of each row, positive.

        Raises:
            ValueError: no event at all, or no exposure.

        >>> model = GammaPoisson.fit([0, 0, 1, 7, 3, 0, 12, 2])
        >>> round(model.shape, 3), round(model.rate, 3), model.convergence.converged
        (0.53, 0.17, True)
        """
        exposure = positive(exposure, "exposure")
        counts = cls(1.0, 1.0)._data(x).to(torch.float64)[:, 0]
        if not bool((counts > 0).any()):
            raise ValueError("x should hold at least one event, got none")
        different, times = torch.unique(counts, return_counts=True)
        mean, variance = float(counts.mean()), float(counts.var(unbiased=False))
        shape = min(mean**2 / (variance - mean), 1e4) if variance > mean else 1e4
        time = torch.full_like(different, exposure)

        def height(parameters: Tensor) -> Tensor:
            a, mean = parameters.exp().expand(len(different), 2).unbind(-1)
            return (times * log_gamma_poisson(a, a / mean, different, time)).sum()

        start = torch.tensor([shape, mean / exposure], dtype=torch.float64).log().to(counts.device)
        best, convergence = climb(height, start, ("shape", "shape/rate"))
        a, centre = best.exp().tolist()
        return with_convergence(cls(a, a / centre, exposure), convergence)

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log Poisson(x; E λ)`` in nats (pooled: summed over the rows).

        Args:
            x: counts (n,) or (n, 1).
            z: rates, (n, 1) or (samples, n, 1); pooled: (1, 1) or (samples, 1, 1).

        Raises:
            ValueError: a rate is negative.
        """
        x = self._data(x)
        rate = self._latent(x, z, lambda z: z >= 0, "rates of at least 0")[..., 0]
        counts = x.to(torch.float64)[:, 0]
        mean = self.exposure * rate
        logs = (
            torch.xlogy(counts, mean)
            - mean
            - (torch.xlogy(counts, counts) - counts)
            - log_factorial_rest(counts)
        )
        return (logs.sum(-1, keepdim=True) if self.pooled else logs).to(x.dtype)

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate the negative binomial ``log p(x)`` in nats (pooled: of the whole data set)."""
        x = self._data(x)

        def evidence(s: Tensor, count: float) -> Tensor:
            events, exposure = self._seen(s, count)
            return log_gamma_poisson(*self._numbers(events), events, exposure)

        found = self._each(x, evidence, single=False)
        if self.pooled and len(x):
            # Given their sum, the counts are multinomial with equal shares.
            counts = x.to(torch.float64).T
            found = found + log_multinomial(counts, torch.full_like(counts, 1 / len(x)))
        return found.to(x.dtype)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(λ; x)`` of one row in nats: the KL summed over the counts, as far as they have mass.

        Beyond four million counts that matter, an average over draws takes its place.
        """
        if self.exposure == 0:
            return Estimate(value=0.0, error=TINY, method="closed form")
        mean = self.exposure * self.shape / self.rate
        ratio = self.exposure / self.rate
        # Past its bulk the law falls at least as fast as (E/(b + E))^x, or as Poisson(mean) for a sharp prior.
        sd = math.sqrt(mean * (1 + ratio))
        last = int(mean + 40 * sd + 60 * (1 + ratio)) + 1
        if last > MOST_TERMS:
            return simulated(self)
        value = mass = 0.0
        largest = 0.0
        for first in range(0, last + 1, BLOCK):
            x = torch.arange(first, min(first + BLOCK, last + 1), dtype=torch.float64)
            a, b = self._numbers(x)
            weight = log_gamma_poisson(a, b, x, torch.full_like(x, self.exposure)).exp()
            kl = self._kl(x[:, None], 1.0)
            value, mass = value + float((weight * kl).sum()), mass + float(weight.sum())
            largest = float(kl[-1])
        error = 4 * EPS * value + abs(1 - mass) * largest
        return Estimate(value=value, error=error + TINY, method="quadrature")

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "m 1"]]:
        """Draw n rows ``(x, λ)``; pooled: one λ that they share."""
        rate = self._rates(n, generator)
        return torch.poisson(self.exposure * rate.expand(n, 1).contiguous(), generator=generator), rate

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``lambda ~ Gamma(shape, rate); x ~ Poisson(E lambda)``."""
        model, rate = self._declared("gamma-Poisson")
        model.observe("x", families.Poisson(families.exact(self.exposure) * rate))
        return model

    def _refuse(self, x: Tensor) -> None:
        refuse_counts(x)
        if self.exposure == 0 and bool(x.any()):
            raise ValueError(f"x should be 0 where there is no exposure, got {x[x != 0][0].item():g}")

    def _seen(self, s: Tensor, count: float) -> tuple[Tensor, Tensor]:
        return s[:, 0], torch.full_like(s[:, 0], self.exposure * count)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class GammaExponential(_Rate):
    """Waiting times for an event whose rate λ is the latent; marginally they are Lomax (Pareto II).

    ``λ ~ Gamma(shape, rate), x | λ ~ Exponential(λ)``: the posterior is ``Gamma(shape + 1, rate + x)``. Whatever
    the time, it says something of λ: only a pooled data set without rows leaves the prior as it is.

    Source: Gelman et al. 2013, section 2.6; `theory/T1`.

    Args:
        shape: of the prior, positive.
        rate: of the prior, positive, in units of x.
        pooled: whether the rows of a data set share λ.

    Raises:
        ValueError, TypeError: a shape or rate that is not positive.

    >>> model = GammaExponential(2.0, 1.0)
    >>> model.posterior([0.5]).mean, model.kl_to_prior([0.5])
    (tensor([[2.]], dtype=torch.float64), tensor([0.0406], dtype=torch.float64))
    """

    shape: float
    rate: float
    pooled: bool
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, shape: Any, rate: Any, *, pooled: bool = False) -> None:
        object.__setattr__(self, "shape", positive(shape, "shape"))
        object.__setattr__(self, "rate", positive(rate, "rate"))
        object.__setattr__(self, "pooled", bool(pooled))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any) -> GammaExponential:
        """Fit shape and rate by maximum likelihood of the times (empirical Bayes).

        Times that vary less than exponential ones ask for a prior without spread: the shape runs away, and it warns.

        Source: Lomax 1954, Journal of the American Statistical Association 49:847.

        Args:
            x: times (n,) or (n, 1), each row with a rate of its own.

        Raises:
            ValueError: no row, or all times 0.

        >>> model = GammaExponential.fit([0.1, 0.2, 0.3, 0.5, 1.0, 9.0, 40.0])
        >>> round(model.shape, 3), round(model.rate, 3), model.convergence.converged
        (0.589, 0.328, True)
        """
        times = cls(1.0, 1.0)._data(x).to(torch.float64)[:, 0]
        if not bool((times > 0).any()):
            raise ValueError("x should hold a positive time, got none")

        def height(parameters: Tensor) -> Tensor:
            shape, rate = parameters.exp()
            return (parameters[0] - parameters[1] - (shape + 1) * torch.log1p(times / rate)).sum()

        # Of a given rate the best shape is n/Σ log1p(x/b); heavy tails put the best rate far below the mean.
        around = times[times > 0].log()
        rates = torch.linspace(float(around.min()) - 2, float(around.max()) + 2, _STARTS).to(times).exp()
        shapes = len(times) / torch.stack([torch.log1p(times / rate).sum() for rate in rates])
        tried = torch.stack([shapes, rates], 1).log()
        start = tried[torch.stack([height(each) for each in tried]).argmax()]
        best, convergence = climb(height, start, ("shape", "rate"))
        return with_convergence(cls(*best.exp().tolist()), convergence)

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log λ − λ x`` in nats (pooled: summed over the rows).

        Args:
            x: times (n,) or (n, 1).
            z: rates, (n, 1) or (samples, n, 1); pooled: (1, 1) or (samples, 1, 1).

        Raises:
            ValueError: a rate is not positive.
        """
        x = self._data(x)
        rate = self._latent(x, z, lambda z: z > 0, "positive rates")[..., 0]
        times = x.to(torch.float64)[:, 0]
        if self.pooled:
            return (len(x) * rate.log() - rate * times.sum()).to(x.dtype)
        return (rate.log() - rate * times).to(x.dtype)

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x) = log [Γ(a + n) / Γ(a) · b^a / (b + Σx)^(a + n)]`` in nats; n = 1 unless pooled."""

        def evidence(s: Tensor, count: float) -> Tensor:
            events, time = self._seen(s, count)
            a, b = self._numbers(events)
            return log_gamma_evidence(a, events, b, time)

        return self._each(x, evidence)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(λ; x) = ψ(a + 1) − log a`` of one row in nats: b/(b + x) is Beta(a, 1), whatever b."""
        shape = torch.tensor(self.shape, dtype=torch.float64)
        value = float(log_gamma_divergence(shape, torch.ones_like(shape)))
        return Estimate(value=value, error=EPS * value, method="closed form")

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "m 1"]]:
        """Draw n rows ``(x, λ)``; pooled: one λ that they share."""
        rate = self._rates(n, generator)
        return gammas(torch.ones(n, 1, dtype=torch.float64), generator) / rate, rate

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``lambda ~ Gamma(shape, rate); x ~ Exponential(lambda)``."""
        model, rate = self._declared("gamma-exponential")
        model.observe("x", families.Exponential(rate))
        return model

    def _refuse(self, x: Tensor) -> None:
        if bool((x < 0).any()):
            raise ValueError(f"x should hold times of at least 0, got {x.min().item():g}")

    def _seen(self, s: Tensor, count: float) -> tuple[Tensor, Tensor]:
        return torch.full_like(s[:, 0], count), s[:, 0]

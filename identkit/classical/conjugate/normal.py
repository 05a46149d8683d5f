"""A normal mean with known variance: the normal-normal pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent, Normal

from identkit.classical.arrays import positive, refuse_overflow, shaped
from identkit.classical.conjugate.pair import EPS, TINY, Conjugate, sums_and_squares, with_convergence
from identkit.classical.em import Convergence
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.stable import gaussian_gain


@dataclass(frozen=True, eq=False, init=False, repr=False)
class NormalNormal(Conjugate):
    """Measurements with known noise of a quantity θ, the latent, that has a normal prior.

    ``θ ~ N(m, s²), x | θ ~ N(g θ, σ²)``: with ``ρ = n g² s²/σ²`` the posterior is normal with variance
    ``s²/(1 + ρ)``. With the gain g = 0 the likelihood ignores θ.

    Source: Gelman et al. 2013, section 2.5; `theory/T1`.

    Args:
        mean: m, the prior's.
        sd: s > 0, the prior's.
        sigma: σ > 0, the noise's standard deviation.
        gain: g, how much of θ reaches the data.
        pooled: whether the rows of a data set share θ.

    Raises:
        ValueError, TypeError: a scale that is not positive, NaN.

    >>> model = NormalNormal(0.0, 1.0, 1.0)
    >>> model.posterior([1.0]).mean, model.kl_to_prior([1.0])
    (tensor([[0.5000]], dtype=torch.float64), tensor([0.2216], dtype=torch.float64))
    """

    mean: float
    sd: float
    sigma: float
    gain: float
    pooled: bool
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, mean: Any, sd: Any, sigma: Any, gain: Any = 1.0, *, pooled: bool = False) -> None:
        object.__setattr__(self, "mean", shaped(mean, "mean").item())
        object.__setattr__(self, "sd", positive(sd, "sd"))
        object.__setattr__(self, "sigma", positive(sigma, "sigma"))
        object.__setattr__(self, "gain", shaped(gain, "gain").item())
        object.__setattr__(self, "pooled", bool(pooled))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any, sigma: Any) -> NormalNormal:
        """Fit the prior's mean and sd by maximum likelihood in closed form (empirical Bayes).

        ``m = x̄, s² = Var(x) − σ²``. Where the data vary less than the noise alone, the likelihood is highest at
        s = 0, a prior without spread: it is refused.

        Source: Efron & Morris 1973; Morris 1983.

        Args:
            x: measurements (n,) or (n, 1), each row with a θ of its own, n ≥ 2.
            sigma: the noise's standard deviation.

        Raises:
            ValueError: too few rows, or a variance of x that does not exceed σ².

        >>> round(NormalNormal.fit([-3.0, 0.0, 3.0], 1.0).sd ** 2, 6)
        5.0
        """
        sigma = positive(sigma, "sigma")
        x = cls(0.0, 1.0, sigma)._data(x).to(torch.float64)[:, 0]
        if len(x) < 2:
            raise ValueError(f"x should have at least two rows, got {len(x)}")
        variance = float(x.var(unbiased=False))
        if not variance > sigma**2:
            raise ValueError(
                f"x should vary more than the noise alone, σ² = {sigma**2:g}, got the variance {variance:g}: "
                "the likelihood is highest at sd = 0"
            )
        sd = math.sqrt((math.sqrt(variance) - sigma) * (math.sqrt(variance) + sigma))
        fitted = cls(float(x.mean()), sd, sigma)
        height = float(fitted.log_evidence(x).sum())
        return with_convergence(fitted, Convergence(history=(height,), converged=True, restarts=(height,)))

    @property
    def prior(self) -> Independent:
        """``N(m, s²)``, one number a draw."""
        one = torch.ones(1, dtype=torch.float64)
        return Independent(Normal(self.mean * one, self.sd * one), 1)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The one latent, the quantity measured."""
        return ("theta",)

    def posterior(self, x: Any) -> Independent:
        """Give ``p(θ | x)``, normal, of batch n (pooled: 1), one number a draw."""
        both = self._each(x, self._moments)
        return Independent(Normal(both[:, 0], both[:, 1], validate_args=False), 1)

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log N(x; g θ, σ²)`` in nats (pooled: summed over the rows).

        Args:
            x: measurements (n,) or (n, 1).
            z: values of θ, (n, 1) or (samples, n, 1); pooled: (1, 1) or (samples, 1, 1).
        """
        x = self._data(x)
        theta = self._latent(x, z, torch.isfinite, "finite")[..., 0]
        if self.pooled:
            s = self._summary(x)[0]
            n = len(x)
            apart = self.gain * (theta - self.mean) / self.sigma
            square = s[1] + (n * (s[0] / max(n, 1) - apart).square() if n else 0.0 * apart)
        else:
            n, square = 1, ((x.to(torch.float64)[:, 0] - self.gain * theta) / self.sigma).square()
        return (-square / 2 - n * self._log_constant).to(x.dtype)

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x)`` in nats: ``−½[log(1 + ρ) + Σ(r − r̄)² + n r̄²/(1 + ρ)] − n log σ√(2π)``, r = (x − g m)/σ."""

        def evidence(s: Tensor, count: float) -> Tensor:
            rho = self._gain(count)
            square = s[:, 1] + (s[:, 0].square() / max(count, 1.0)) / (1 + rho)
            return -(math.log1p(rho) + square) / 2 - count * self._log_constant

        return self._each(x, evidence)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(θ; x) = ½ log(1 + g² s²/σ²)`` of one row in nats."""
        value = math.log1p(self._gain(1.0)) / 2
        return Estimate(value=value, error=EPS * value + TINY, method="closed form")

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(u) = −½ ρ u² + b u``, ``θ = m + s u``, ``b = (g s/σ) Σ r``, under N(0, 1).

        ``V = ½ ρ² + b²``; ω = ∞ unless g = 0 or n = 0; ``E_Q ℓ'² = b²/(1 + ρ)² + ρ²/(1 + ρ)``.

        Source: theory/T4; moments of a quadratic form.
        """
        both = self._each(x, self._flat, single=False)
        return Flatness(
            variance=both[:, 0],
            variance_error=both[:, 1],
            oscillation=torch.where(both[:, 2] > 0, math.inf, 0.0),
            log_sobolev=1.0,
            gradient_second_moment=both[:, 3],
            mean_shift=both[:, 4],
        )

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "m 1"]]:
        """Draw n rows ``(x, θ)``; pooled: one θ that they share."""
        n = number_of_draws(n, generator)
        m = 1 if self.pooled else n
        theta = self.mean + self.sd * torch.randn(m, 1, dtype=torch.float64, generator=generator)
        noise = torch.randn(n, 1, dtype=torch.float64, generator=generator)
        return self.gain * theta + self.sigma * noise, theta

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``theta ~ Normal(m, s); x ~ Normal(g theta, σ)``, in exact rationals."""
        mean, sd, sigma, gain = map(families.exact, (self.mean, self.sd, self.sigma, self.gain))
        model = Model("normal-normal")
        theta = model.latent("theta", families.Normal(mean, sd))
        model.observe("x", families.Normal(gain * theta, sigma))
        return model

    def _refuse(self, x: Tensor) -> None:
        refuse_overflow(x)

    @property
    def _log_constant(self) -> float:
        return math.log(self.sigma) + math.log(2 * math.pi) / 2

    def _gain(self, count: float) -> float:
        """ρ: what the data add to the prior's precision of 1."""
        return count * (self.gain * self.sd / self.sigma) ** 2

    def _summaries(self, x: Tensor) -> Tensor:
        """``(Σ r, Σ (r − r̄)², Σ |x|/σ + |g m|/σ)``, r = (x − g m)/σ; the last is what rounding is relative to."""
        x = x.to(torch.float64)[:, 0]
        centre = self.gain * self.mean
        r = (x - centre) / self.sigma
        return torch.stack([r, torch.zeros_like(r), (x.abs() + abs(centre)) / self.sigma], -1)

    def _summary(self, x: Tensor) -> Tensor:
        return sums_and_squares(self._summaries, x)

    def _mean(self, s: Tensor, count: float) -> Tensor:
        return self.gain * self.sd / self.sigma * s[:, 0] / (1 + self._gain(count))

    def _kl(self, s: Tensor, count: float) -> Tensor:
        mean = self._mean(s, count)
        return (gaussian_gain(torch.full_like(mean, self._gain(count))) + mean.square()) / 2

    def _error(self, s: Tensor, count: float) -> Tensor:
        moved = EPS * abs(self.gain) * self.sd / self.sigma * s[:, 2] / (1 + self._gain(count))
        return self._mean(s, count).abs() * moved + moved.square() + EPS * self._kl(s, count) + TINY

    def _moments(self, s: Tensor, count: float) -> Tensor:
        mean = self.mean + self.sd * self._mean(s, count)
        sd = torch.full_like(mean, self.sd / math.sqrt(1 + self._gain(count)))
        return torch.stack([mean, sd], -1)[..., None]

    def _flat(self, s: Tensor, count: float) -> Tensor:
        rho = count * self.gain**2 * self.sd**2 / self.sigma**2
        slope = (self.gain * self.sd / self.sigma * s[:, 0]).abs()
        step = EPS * abs(self.gain) * self.sd / self.sigma * s[:, 2]
        variance = slope.square() + rho**2 / 2
        error = 2 * slope * step + step.square() + EPS * variance + TINY
        steep = ((slope + step) / (1 + rho)).square() + rho**2 / (1 + rho)
        shift = ((slope - step).clamp(min=0.0) / (1 + rho)).square()
        seen = torch.full_like(slope, float(rho > 0))
        return torch.stack([variance, error, seen, steep * (1 + EPS), shift * (1 - EPS)], -1)

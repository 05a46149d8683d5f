"""A normal law whose mean and variance are both latent: the normal-inverse-gamma pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, InverseGamma, StudentT

from identkit.classical.arrays import positive, refuse_overflow, refuse_still, shaped
from identkit.classical.conjugate.empirical_bayes import climb
from identkit.classical.conjugate.gamma_divergence import (
    gamma_kl,
    log_gamma_divergence,
    log_gamma_evidence,
    rounded_parts,
    stirling_slope,
    trigamma_rest,
)
from identkit.classical.conjugate.pair import EPS, TINY, Conjugate, gammas, sums_and_squares, with_convergence
from identkit.classical.conjugate.student_divergence import student_kl
from identkit.classical.em import Convergence
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.compiled.saddle_point import log_excess, log_student
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.stable import gaussian_gain


@dataclass(frozen=True)
class NormalInverseGammaLaw:
    """A law of (variance, mean) pairs: ``v ~ InverseGamma(shape, rate)``, ``m | v ~ N(location, v/kappa)``."""

    location: Float[Tensor, "*n"]
    kappa: Float[Tensor, "*n"]
    shape: Float[Tensor, "*n"]
    rate: Float[Tensor, "*n"]

    def log_prob(self, z: Float[Tensor, "*m 2"]) -> Float[Tensor, "*m"]:
        """Evaluate the log density in nats at pairs (variance, mean), which broadcast with the batch."""
        variance, mean = z.unbind(-1)
        of_variance = InverseGamma(self.shape, self.rate, validate_args=False).log_prob(variance)
        square = self.kappa * (mean - self.location).square() / variance
        return of_variance - (square + (2 * math.pi * variance / self.kappa).log()) / 2

    def sample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*m 2"]:
        """Draw pairs (variance, mean)."""
        shape = self.shape.expand(*sample_shape, *self.shape.shape).contiguous()
        variance = self.rate / gammas(shape, generator)
        noise = torch.randn(shape.shape, dtype=shape.dtype, device=shape.device, generator=generator)
        return torch.stack([variance, self.location + (variance / self.kappa).sqrt() * noise], -1)

    def marginal(self, index: int) -> Distribution:
        """Give the law of the variance (0), inverse gamma, or of the mean (1), Student.

        Raises:
            IndexError: neither.
        """
        if index not in (0, 1):
            raise IndexError(f"index should be 0 or 1, got {index}")
        if index == 0:
            return InverseGamma(self.shape, self.rate)
        return StudentT(2 * self.shape, self.location, (self.rate / (self.shape * self.kappa)).sqrt())

    @property
    def mean(self) -> Float[Tensor, "*n 2"]:
        """Means of variance and mean; infinite where they are."""
        centre = torch.where(self.shape > 1, self.rate / (self.shape - 1), math.inf)
        return torch.stack([centre, self.location], -1)

    @property
    def variance(self) -> Float[Tensor, "*n 2"]:
        """Variances of variance and mean; infinite where they are."""
        a, centre = self.shape, self.rate / (self.shape - 1)
        of_variance = torch.where(a > 2, centre.square() / (a - 2), math.inf)
        return torch.stack([of_variance, torch.where(a > 1, centre / self.kappa, math.inf)], -1)

    @property
    def stddev(self) -> Float[Tensor, "*n 2"]:
        """Standard deviations of variance and mean; of data up to 1e150, whose fourth powers no double holds."""
        a, centre = self.shape, self.rate / (self.shape - 1)
        of_variance = torch.where(a > 2, centre / (a - 2).sqrt(), math.inf)
        return torch.stack([of_variance, torch.where(a > 1, (centre / self.kappa).sqrt(), math.inf)], -1)

    @property
    def covariance(self) -> Float[Tensor, "*n 2 2"]:
        """The covariance matrix: diagonal, for the mean's location does not depend on the variance."""
        return torch.diag_embed(self.variance)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class NormalInverseGamma(Conjugate):
    """Measurements of unknown noise variance v of a quantity m, both latent.

    ``v ~ InverseGamma(a, b), m | v ~ N(m_0, v/κ), x | m, v ~ N(g m, v)``. After n rows that share them,
    ``κ' = κ + g² n, m' = m_0 + g Σd/κ', a' = a + n/2, b' = b + ½[Σ(d − d̄)² + κ n d̄²/κ']``, d = x − g m_0.
    With the gain g = 0 the likelihood ignores m, given v: its conditional KL is 0, but the *marginal* of m
    still moves with v (theory/T3).

    Source: Gelman et al. 2013, section 3.3; `theory/T3`.

    Args:
        mean: m_0.
        kappa: κ > 0, the prior's weight in measurements.
        shape: a > 0.
        rate: b > 0, in units of x² (the scale of the inverse gamma law).
        gain: g, how much of m reaches the data.
        pooled: whether the rows of a data set share m and v.

    Raises:
        ValueError, TypeError: a number that is not positive where it should be, NaN.

    >>> model = NormalInverseGamma(0.0, 1.0, 3.0, 2.0, pooled=True)
    >>> model.posterior([1.0, 2.0, 4.0]).mean, model.kl_to_prior([1.0, 2.0, 4.0])
    (tensor([[1.8214, 1.7500]], dtype=torch.float64), tensor([2.1112], dtype=torch.float64))
    """

    mean: float
    kappa: float
    shape: float
    rate: float
    gain: float
    pooled: bool
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(
        self, mean: Any, kappa: Any, shape: Any, rate: Any, gain: Any = 1.0, *, pooled: bool = False
    ) -> None:
        object.__setattr__(self, "mean", shaped(mean, "mean").item())
        object.__setattr__(self, "kappa", positive(kappa, "kappa"))
        object.__setattr__(self, "shape", positive(shape, "shape"))
        object.__setattr__(self, "rate", positive(rate, "rate"))
        object.__setattr__(self, "gain", shaped(gain, "gain").item())
        object.__setattr__(self, "pooled", bool(pooled))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any, kappa: Any = 1.0) -> NormalInverseGamma:
        """Fit m_0, a and b by maximum likelihood of the rows, each with m and v of its own (empirical Bayes).

        A row is then Student: one measurement each cannot tell b from κ, so κ is given. Tails no heavier than
        normal ones ask for one variance for all: the shape runs away, and it warns.

        Source: Lange, Little & Taylor 1989, JASA 84:881 (the Student likelihood).

        Args:
            x: measurements (n,) or (n, 1), n ≥ 3 and not all the same.
            kappa: κ.

        Raises:
            ValueError: too few rows, or rows that do not differ.

        >>> model = NormalInverseGamma.fit([0.0, 1.0, -1.0, 0.5, -0.5, 0.2, -0.1, 30.0])
        >>> round(model.mean, 3), round(model.shape, 3), model.convergence.converged
        (0.032, 0.338, True)
        """
        x = cls(0.0, kappa, 1.0, 1.0)._data(x).to(torch.float64)[:, 0]
        if len(x) < 3:
            raise ValueError(f"x should have at least three rows, got {len(x)}")
        refuse_still(x[:, None])
        centre = x.median()
        unit = (x - centre).abs().median()
        unit = unit if unit > 0 else (x - centre).abs().mean()
        t = (x - centre) / unit
        shift = len(x) * math.log(unit.item())

        def height(parameters: Tensor) -> Tensor:
            degrees, scale = 2 * parameters[1].exp(), parameters[2].exp()
            return (log_student((t - parameters[0]) / scale, degrees) - parameters[2]).sum() - shift

        start = torch.tensor([0.0, math.log(2.0), 0.0], dtype=torch.float64, device=x.device)
        best, convergence = climb(height, start, ("mean", "shape", "rate"))
        shape, scale = best[1:].exp().tolist()
        rate = shape * (scale * unit.item()) ** 2 / (1 + 1 / positive(kappa, "kappa"))
        return with_convergence(cls((centre + unit * best[0]).item(), kappa, shape, rate), convergence)

    @property
    def prior(self) -> Any:
        """The `NormalInverseGammaLaw` of (v, m)."""
        numbers = (self.mean, self.kappa, self.shape, self.rate)
        return NormalInverseGammaLaw(*(torch.tensor(number, dtype=torch.float64) for number in numbers))

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The two latents, the variance first: the mean's prior depends on it."""
        return ("variance", "mean")

    def posterior(self, x: Any) -> NormalInverseGammaLaw:
        """Give the law of (v, m) given x, of batch n (pooled: 1)."""
        return NormalInverseGammaLaw(*self._each(x, self._later).unbind(-1))

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log N(x; g m, v)`` in nats (pooled: summed over the rows).

        Args:
            x: measurements (n,) or (n, 1).
            z: pairs (v, m), (n, 2) or (samples, n, 2); pooled: (1, 2) or (samples, 1, 2).

        Raises:
            ValueError: a variance is not positive.
        """
        x = self._data(x)
        z = self._latent(
            x, z, lambda z: (z > 0) | (torch.arange(2, device=z.device) == 1), "positive variances"
        )
        variance, mean = z.unbind(-1)
        if self.pooled:
            n, (total, within, _) = len(x), self._summary(x)[0]
            apart = total / max(n, 1) - self.gain * (mean - self.mean)
            square = within + n * apart.square()
        else:
            n, square = 1, (x.to(torch.float64)[:, 0] - self.gain * mean).square()
        return (-square / (2 * variance) - n * (2 * math.pi * variance).log() / 2).to(x.dtype)

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x)`` in nats: Student for one row; ``(2π)^−n/2 (κ/κ')^½ Γ(a')/Γ(a) b^a/b'^a'``."""

        def evidence(s: Tensor, count: float) -> Tensor:
            events, spread = self._gamma(s, count)
            a, b = self._numbers(events)
            rest = count * math.log(2 * math.pi) + math.log1p(self.gain**2 * count / self.kappa)
            return log_gamma_evidence(a, events, b, spread) - rest / 2

        return self._each(x, evidence)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n 2"]:
        """Evaluate the marginal KLs in nats: inverse gamma laws in closed form, Student laws by quadrature."""
        return self._each(x, lambda s, count: self._apart(s, count)[:, :2])

    def kl_conditional(self, x: Any) -> Float[Tensor, "n 2"]:
        """Evaluate ``E_Q KL(q(z_j | z_−j) ‖ p(z_j | z_−j))`` in nats, by the chain rule.

        Of m given v it is ``½[h(g² n/κ) + κ (m' − m_0)² a'/b']``, 0 iff g = 0; of v given m what is left of the
        joint KL after m's own.
        """

        def conditional(s: Tensor, count: float) -> Tensor:
            of_mean = self._mean_given_variance(s, count)
            left = self._kl(s, count) - self._apart(s, count)[:, 1]
            return torch.stack([left.clamp(min=0.0), of_mean], -1)

        return self._each(x, conditional)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(v, m; x) = ½ log(1 + g²/κ) + D(a, ½) + a[ψ(a + ½) − ψ(a)] − ½`` of one row in nats.

        The entropy of a Student law less the normal one at the mean of log v; D is log Γ's divergence.
        """
        a = torch.tensor(self.shape, dtype=torch.float64)
        half = torch.full_like(a, 0.5)
        digamma = (
            -a * log_excess(half / a)
            + half / (2 * (a + half))
            + a * (stirling_slope(a + half) - stirling_slope(a))
        )
        value = float(log_gamma_divergence(a, half) + digamma) + math.log1p(self.gain**2 / self.kappa) / 2
        return Estimate(value=value, error=EPS * (value + 1 / (1 + self.shape)) + TINY, method="closed form")

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ = (n/2) log λ − ½λ Σd² + g Σd ε(λ/κ)^½ − ½(g² n/κ) ε² + const`` under the prior.

        λ = 1/v is gamma and ``ε = (m − m_0)(κλ)^½`` standard normal, independent of it. So, with δ = n/2 and
        ``E = ½Σd²``, ``V = a(δ/a − E/b)² + δ²(ψ'(a) − 1/a) + (g Σd)² a/(κ b) + ½(g² n/κ)²``; ω = ∞ unless n = 0.

        Source: theory/T4; moments of gamma and normal laws.
        """
        return super().flatness(x)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "m 2"]]:
        """Draw n rows ``(x, (v, m))``; pooled: one pair that they share."""
        n = number_of_draws(n, generator)
        rows = 1 if self.pooled else n
        variance = self.rate / gammas(torch.full((rows,), self.shape, dtype=torch.float64), generator)
        unit = torch.randn(rows, dtype=torch.float64, generator=generator)
        mean = self.mean + (variance / self.kappa).sqrt() * unit
        noise = torch.randn(n, dtype=torch.float64, generator=generator)
        x = self.gain * mean + variance.sqrt() * noise
        return x[:, None], torch.stack([variance, mean], -1)

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``variance ~ InverseGamma(a, b)``, then mean and x, in exact rationals."""
        mean, kappa, shape, rate, gain = map(
            families.exact, (self.mean, self.kappa, self.shape, self.rate, self.gain)
        )
        model = Model("normal-inverse-gamma")
        v = model.latent("variance", families.InverseGamma(shape, rate))
        m = model.latent("mean", families.Normal(mean, sympy.sqrt(v / kappa)))
        model.observe("x", families.Normal(gain * m, sympy.sqrt(v)))
        return model

    def _refuse(self, x: Tensor) -> None:
        refuse_overflow(x)

    def _summaries(self, x: Tensor) -> Tensor:
        """``(Σ d, Σ (d − d̄)², Σ |x| + |g m_0|)``, d = x − g m_0; the last is what rounding is relative to."""
        x = x.to(torch.float64)[:, 0]
        centre = self.gain * self.mean
        return torch.stack([x - centre, torch.zeros_like(x), x.abs() + abs(centre)], -1)

    def _summary(self, x: Tensor) -> Tensor:
        return sums_and_squares(self._summaries, x)

    def _numbers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(like, self.shape), torch.full_like(like, self.rate)

    def _later_kappa(self, count: float) -> float:
        return self.kappa + self.gain**2 * count

    def _gamma(self, s: Tensor, count: float) -> tuple[Tensor, Tensor]:
        """What the data add to shape and rate of 1/v."""
        between = self.kappa * s[:, 0].square() / (max(count, 1.0) * self._later_kappa(count))
        return torch.full_like(s[:, 0], count / 2), (s[:, 1] + between) / 2

    def _shift(self, s: Tensor, count: float) -> Tensor:
        return self.gain * s[:, 0] / self._later_kappa(count)

    def _later(self, s: Tensor, count: float) -> Tensor:
        events, spread = self._gamma(s, count)
        location = self.mean + self._shift(s, count)
        kappa = torch.full_like(location, self._later_kappa(count))
        return torch.stack([location, kappa, self.shape + events, self.rate + spread], -1)

    def _mean_given_variance(self, s: Tensor, count: float) -> Tensor:
        _, _, a, b = self._later(s, count).unbind(-1)
        gain = gaussian_gain(torch.full_like(a, self.gain**2 * count / self.kappa))
        return (gain + self.kappa * self._shift(s, count).square() * a / b) / 2

    def _kl(self, s: Tensor, count: float) -> Tensor:
        events, spread = self._gamma(s, count)
        a, b = self._numbers(events)
        return gamma_kl(a, events, b, spread) + self._mean_given_variance(s, count)

    def _apart(self, s: Tensor, count: float) -> Tensor:
        """The marginal KLs of v and m, and the error of the latter."""
        events, spread = self._gamma(s, count)
        a, b = self._numbers(events)
        _, kappa, later_a, later_b = self._later(s, count).unbind(-1)
        unit = math.sqrt(self.rate / (self.shape * self.kappa))
        scale = (later_b / (later_a * kappa)).sqrt() / unit
        if count == 0:
            of_mean = error = torch.zeros_like(scale)
        else:
            of_mean, error = student_kl(2 * later_a, self._shift(s, count) / unit, scale, 2 * self.shape)
        return torch.stack([gamma_kl(a, events, b, spread), of_mean, error], -1)

    def _error(self, s: Tensor, count: float) -> Tensor:
        events, spread = self._gamma(s, count)
        a, b = self._numbers(events)
        kl = self._kl(s, count)
        rest = rounded_parts(a, events)
        # Of d = x − g m_0 the rounding is relative to |x| + |g m_0|; of the rate it is twice d's, and its own.
        by_data = EPS * s[:, 2] * (s[:, 0].abs() / max(count, 1.0) + s[:, 1].sqrt() + EPS * s[:, 2])
        step = EPS * (events * b + spread * a) / (a.sqrt() * (b + spread)) + by_data * a.sqrt() / (b + spread)
        moved = EPS * abs(self.gain) * s[:, 2] / self._later_kappa(count)
        pull = self.kappa * (a + events) / (b + spread)
        by_mean = pull * (self._shift(s, count).abs() * moved + moved.square())
        joint = EPS * (kl + rest) + (2 * kl).sqrt() * step + step.square() + by_mean
        return joint + self._apart(s, count)[:, 2] + TINY

    def _moments(self, s: Tensor, count: float) -> Tensor:
        law = NormalInverseGammaLaw(*self._later(s, count).unbind(-1))
        return torch.stack([law.mean, law.stddev], 1)

    def _variance(self, s: Tensor, count: float) -> Tensor:
        total, n = s[:, 0], count
        events = torch.full_like(total, n / 2)
        square = (s[:, 1] + total.square() / max(n, 1.0)) / 2
        a, b = self._numbers(events)
        main = a * (events / a - square / b).square()
        rest = events.square() * trigamma_rest(a)
        lever = self.gain**2 * a / (self.kappa * b)
        mixed = lever * total.square()
        curved = (self.gain**2 * n / self.kappa) ** 2 / 2
        step = EPS * a.sqrt() * (events / a + square / b)
        step = (
            step + EPS * s[:, 2] * (total.abs() / max(n, 1.0) + s[:, 1].sqrt() + EPS * s[:, 2]) * a.sqrt() / b
        )
        slope = lever.sqrt() * EPS * s[:, 2]
        variance = main + rest + mixed + curved
        error = 2 * main.sqrt() * step + step.square() + 2 * mixed.sqrt() * slope + slope.square()
        return torch.stack([variance, error + EPS * variance + TINY, torch.full_like(total, n)], -1)

"""The hierarchical normal model (eight schools): closed form given the spread of the groups, quadrature over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from identkit.classical.arrays import latents, positive, refuse_overflow, rows, shaped
from identkit.classical.conjugate.empirical_bayes import climb
from identkit.classical.em import Convergence
from identkit.classical.hierarchical_normal.posterior import (
    HierarchicalPosterior,
    TauNodes,
    further_edges,
    mixture_kl,
    tau_nodes,
)
from identkit.classical.shown import shown
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.stable import gaussian_gain, kl_of_log_ratio

EIGHT_SCHOOLS = (
    (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0),
    (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0),
)
"""Effects of coaching in eight schools and their standard errors (Rubin 1981, J. Educational Statistics 6:377)."""

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300
_DRAWS = 400
_NUMBERS = 1 << 24  # in a table over rows, groups and nodes: 128 MB


@dataclass(frozen=True, eq=False, init=False, repr=False)
class HierarchicalNormal:
    """J group effects θ_j about a common mean μ, each measured once with known noise.

    ``μ ~ N(m, s_0²), τ ~ p(τ), θ_j | μ, τ ~ N(μ, τ²), y_j | θ_j ~ N(θ_j, s_j²)``. The likelihood sees every θ_j
    and, *given them*, neither μ nor τ: their conditional KL is exactly 0, while their marginals move with the θ_j
    (theory/T3). However small τ > 0, no θ_j is ignored: its information, about ``½τ⁴/s_j⁴`` at first, only fades.

    Given τ all laws are normal and in closed form; over τ they are summed by a quadrature with a stated error.
    One row of x is one whole set of J measurements.

    Source: Rubin 1981; Gelman et al. 2013, section 5.4; `theory/T3`.

    Args:
        scales: s_j > 0, the standard errors, shape (J,).
        mean: m.
        mean_sd: s_0 ≥ 0; 0 makes μ = m a known number and no latent.
        tau: τ > 0, or a torch distribution on (0, ∞) that makes it a latent, such as ``HalfCauchy(5.0)``.

    Raises:
        ValueError, TypeError: a scale that is not positive, a τ of neither kind, a prior of τ that cannot be resolved.

    >>> y, s = EIGHT_SCHOOLS
    >>> model = HierarchicalNormal(s, mean=0.0, mean_sd=5.0, tau=10.0)
    >>> [round(value, 2) for value in model.posterior_moments([y])[0][0, :3].tolist()]
    [3.66, 11.15, 5.83]
    >>> model.kl_conditional([y])[0, 0].item()
    0.0
    """

    scales: Float[Tensor, " groups"]
    mean: float
    mean_sd: float
    tau: Any
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    __repr__ = shown

    def __init__(self, scales: Any, mean: Any = 0.0, mean_sd: Any = 0.0, tau: Any = 1.0) -> None:
        scales = shaped(scales, "scales", None)
        if not bool((scales > 0).all()):
            raise ValueError(f"scales should be positive, got {scales.min().item()}")
        mean_sd = shaped(mean_sd, "mean_sd").item()
        if mean_sd < 0:
            raise ValueError(f"mean_sd should be at least 0, got {mean_sd}")
        if isinstance(tau, Distribution):
            if tau.batch_shape + tau.event_shape != ():
                raise ValueError(f"tau should be the law of one number, got {tau!r:.80}")
        else:
            tau = positive(tau, "tau")
        object.__setattr__(self, "scales", scales)
        object.__setattr__(self, "mean", shaped(mean, "mean").item())
        object.__setattr__(self, "mean_sd", mean_sd)
        object.__setattr__(self, "tau", tau)
        object.__setattr__(self, "convergence", None)
        if isinstance(tau, Distribution):
            _ = self._nodes  # refused here if it cannot be resolved

    @classmethod
    def fit(cls, x: Any, scales: Any) -> HierarchicalNormal:
        """Fit μ and τ as numbers by maximum likelihood of ``y_j ~ N(μ, s_j² + τ²)`` (empirical Bayes).

        Where the groups differ no more than their noise, as in the eight schools, τ runs away to 0, and it warns.

        Source: Efron & Morris 1975; Morris 1983.

        Args:
            x: measurements (n, J).
            scales: s_j, shape (J,).

        Raises:
            ValueError: as at every door, or no row.

        >>> model = HierarchicalNormal.fit([[0.0, 10.0, 20.0, 30.0]], [1.0, 1.0, 2.0, 2.0])
        >>> round(model.mean, 2), round(model.tau, 2), model.convergence.converged
        (14.88, 11.07, True)
        """
        first = cls(scales)
        y = first._rows(x).to(torch.float64)
        if len(y) == 0:
            raise ValueError("x should have at least one row, got none")
        unit = first.scales.log().mean().exp()
        start = (y / first.scales.square()).sum() / (len(y) / first.scales.square()).sum()

        def height(parameters: Tensor) -> Tensor:
            spread = first.scales.square() + (unit * parameters[1].exp()).square()
            apart = y - start - unit * parameters[0]
            return -((apart.square() / spread).sum() + len(y) * (2 * math.pi * spread).log().sum()) / 2

        best, convergence = climb(height, torch.zeros(2, dtype=torch.float64, device=y.device), ("mu", "tau"))
        fitted = cls(first.scales, (start + unit * best[0]).item(), 0.0, (unit * best[1].exp()).item())
        object.__setattr__(fitted, "convergence", convergence)
        return fitted

    @property
    def prior(self) -> Any:
        """The `HierarchicalPosterior` of (μ, τ, θ) before the data: that of the posterior with nothing measured."""
        nodes = self._nodes
        nothing = torch.zeros(1, len(self.scales), dtype=torch.float64, device=self.scales.device)
        return HierarchicalPosterior(self, nothing, nodes, nodes.log_mass[None], blind=True)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``mu`` and ``tau`` where they are latent, then ``theta[1] … theta[J]``."""
        high = [name for name, latent in (("mu", self.mean_sd > 0), ("tau", self.spread_is_latent)) if latent]
        return (*high, *(f"theta[{j + 1}]" for j in range(len(self.scales))))

    @property
    def spread_is_latent(self) -> bool:
        """Whether τ is a latent, not a number."""
        return isinstance(self.tau, Distribution)

    @property
    def pooled(self) -> bool:
        """Each row has latents of its own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``Σ_j log N(y_j; θ_j, s_j²)`` in nats.

        Args:
            x: measurements (n, J).
            z: latents in the order of `latent_names`, (n, k) or (samples, n, k).
        """
        x = self._rows(x)
        z = latents(z, len(x), len(self.latent_names), x.device)
        s = self.scales.to(x.device)
        residual = (x.to(torch.float64) - z[..., -len(s) :]) / s
        return (-residual.square().sum(-1) / 2 - (s.log() + math.log(2 * math.pi) / 2).sum()).to(x.dtype)

    def posterior(self, x: Any) -> HierarchicalPosterior:
        """Give the law of the latents given each row: normal given τ, which is summed over.

        Args:
            x: measurements (n, J).
        """
        x = self._rows(x)
        y = x.to(torch.float64)
        nodes = self._nodes_for(y)
        return HierarchicalPosterior(self, y, nodes, self._weights(y, nodes)[1], dtype=x.dtype)

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(y) = log ∫ N(y; m, diag(s² + τ²) + s_0² 11ᵀ) p(τ) dτ`` in nats."""
        x = self._rows(x)
        y = x.to(torch.float64)
        return self._weights(y, self._nodes_for(y))[0].to(x.dtype)

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL = KL(τ) + E_τ[KL(μ | τ) + Σ_j E KL(θ_j | μ, τ)]`` in nats: sums of what is never negative."""
        x = self._rows(x)
        y = x.to(torch.float64)
        return self._kl(y, self._nodes_for(y))[0].to(x.dtype)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the KLs of the marginals in nats: closed form for a number τ, else between mixtures over τ."""
        x = self._rows(x)
        y = x.to(torch.float64)
        return self._marginals(y, self._nodes_for(y))[0].to(x.dtype)

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate ``E_Q KL(q(z_j | z_−j) ‖ p(z_j | z_−j))`` in nats: exactly 0 for μ and τ.

        Of θ_j: ``E ½[h(a) + (a/(1 + a))² (y_j − μ)²/τ²]`` with ``a = τ²/s_j²``.
        """
        x = self._rows(x)
        y = x.to(torch.float64)
        marginal = self._kl(y, self._nodes_for(y))[1]
        above = marginal.new_zeros(len(marginal), len(self.latent_names) - marginal.shape[1])
        return torch.cat([above, marginal], 1).to(x.dtype)

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of all KLs of a datum, in nats: quadrature and rounding; positive."""
        y = self._rows(x).to(torch.float64)
        nodes = self._nodes_for(y)
        kl, marginal = self._kl(y, nodes)
        error = 64 * len(self.scales) * _EPS * (kl + self._rounding(y)) + self._marginals(y, nodes)[1] + _TINY
        if self.spread_is_latent:
            coarse, others = self._kl(y, tau_nodes(self.tau, self.scales, 10, nodes.edges))
            error = error + (kl - coarse).abs() + (marginal - others).abs().sum(1)
            error = error + abs(nodes.missing) * (1 + kl)
        return error

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ = −½ Σ (y_j − θ_j)²/s_j² + const`` under the prior, from the moments of τ².

        With ``Σ_τ = τ²I + s_0²11ᵀ``, A = diag(1/s²) and b = A(y − m):
        ``V = E[½ tr(AΣ_τ)² + bᵀΣ_τ b] + ¼(Σ 1/s_j²)² Var τ²``, infinite where τ has no fourth moment; ω = ∞.

        Source: theory/T4; moments of Gaussian quadratic forms; the law of total variance.
        """
        y = self._rows(x).to(torch.float64)
        weight = self.scales.to(y.device) ** -2
        slope = (y - self.mean) * weight
        one, two = weight.sum(), weight.square().sum()
        second, fourth = self._spread_moments
        between = max(fourth - second**2, 0.0) if math.isfinite(fourth) else math.inf
        still = self.mean_sd**2
        trace = fourth * two + 2 * second * still * two + still**2 * one.square()
        by_slope = second * slope.square().sum(1) + still * slope.sum(1).square()
        variance = trace / 2 + by_slope + one.square() * between / 4
        missing = abs(self._nodes.missing) if self.spread_is_latent else 0.0
        error = (1e-10 + missing) * variance
        rounding = (
            64 * _EPS * (y.abs() + abs(self.mean)).square().mul(weight.square()).sum(1) * (second + still)
        )
        return Flatness(
            variance=variance,
            variance_error=torch.where(variance.isinf(), 0.0, error + rounding) + _TINY,
            oscillation=torch.full_like(variance, math.inf),
        )

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Give the posterior mean and standard deviation of each latent."""
        x = self._rows(x)
        law = self.posterior(x)
        return law.mean.to(x.dtype), law.stddev.to(x.dtype)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I = ½[Σ log1p(τ²/s_j²) + log1p(s_0² Σ 1/(s_j² + τ²))]`` of one row in nats; a latent τ is drawn."""
        if not self.spread_is_latent:
            spread = self.scales.square() + self.tau**2
            value = float(torch.log1p(self.tau**2 / self.scales.square()).sum())
            value = (value + math.log1p(self.mean_sd**2 * float((1 / spread).sum()))) / 2
            return Estimate(value=value, error=64 * _EPS * value, method="closed form")
        kl = self.kl_to_prior(self.sample(_DRAWS, torch.Generator().manual_seed(0))[0])
        return Estimate(
            value=kl.mean().item(), error=kl.std().item() / math.sqrt(_DRAWS), method="Monte Carlo"
        )

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n groups"], Float[Tensor, "n k"]]:
        """Draw n rows ``(y, z)``."""
        n = number_of_draws(n, generator)
        s = self.scales.cpu()
        nodes = self._nodes
        mu = self.mean + self.mean_sd * torch.randn(n, 1, dtype=torch.float64, generator=generator)
        share = torch.rand(n, 1, dtype=torch.float64, generator=generator)
        tau = nodes.quantile(share) if self.spread_is_latent else torch.full_like(mu, self.tau)
        theta = mu + tau * torch.randn(n, len(s), dtype=torch.float64, generator=generator)
        y = theta + s * torch.randn(n, len(s), dtype=torch.float64, generator=generator)
        above = [part for part, latent in ((mu, self.mean_sd > 0), (tau, self.spread_is_latent)) if latent]
        return y.to(self.scales.device), torch.cat([*above, theta], 1).to(self.scales.device)

    def symbolic(self) -> Model:
        """Give the model in SymPy, all numbers as exact rationals.

        Raises:
            ValueError: the notation has no family for the prior of τ (it has Uniform, Gamma, Exponential, InverseGamma
                and LogNormal).
        """
        exact = families.exact
        model = Model("hierarchical normal")
        mu: Any = exact(self.mean)
        if self.mean_sd > 0:
            mu = model.latent("mu", families.Normal(exact(self.mean), exact(self.mean_sd)))
        tau: Any = self.tau
        if self.spread_is_latent:
            kinds = {
                "Uniform": ("low", "high"),
                "Gamma": ("concentration", "rate"),
                "Exponential": ("rate",),
                "InverseGamma": ("concentration", "rate"),
                "LogNormal": ("loc", "scale"),
            }
            kind = type(tau).__name__
            if kind not in kinds:
                raise ValueError(f"tau should be one of {', '.join(kinds)} for a symbolic model, got {kind}")
            numbers = [exact(float(getattr(tau, name))) for name in kinds[kind]]
            tau = model.latent("tau", getattr(families, kind)(*numbers))
        spread = tau if self.spread_is_latent else exact(tau)
        theta = model.latent("theta", families.Normal(mu, spread), shape=len(self.scales))
        model.observe(
            "y",
            families.Normal(list(theta), [exact(s) for s in self.scales.tolist()]),
            shape=len(self.scales),
        )
        return model

    def _rows(self, x: Any) -> Tensor:
        x = rows(x, len(self.scales), self.scales.device)
        refuse_overflow(x)
        return x

    @cached_property
    def _nodes(self) -> TauNodes:
        return tau_nodes(self.tau, self.scales, order=14)

    def _nodes_for(self, y: Tensor) -> TauNodes:
        """The rule of the prior, on panels that resolve the posterior of every row, too."""
        first = self._nodes.edges
        if first is None or len(y) == 0:
            return self._nodes
        edges = first
        size = max(1, _NUMBERS // (len(self._nodes.tau) * len(self.scales)))
        for block in y.cpu().split(size):

            def height(tau: Tensor, block: Tensor = block) -> Tensor:
                return self.given_tau(block[:, None], tau)[2]

            edges = np.union1d(edges, further_edges(self.tau, edges, height, len(block)))
        if len(edges) == len(first):
            return self._nodes
        return tau_nodes(self.tau, self.scales, 14, edges)

    @cached_property
    def _spread_moments(self) -> tuple[float, float]:
        """``E τ²`` and ``E τ⁴`` under the prior."""
        if not self.spread_is_latent:
            return self.tau**2, self.tau**4
        mass, tau = self._nodes.log_mass.exp(), self._nodes.tau
        terms = mass * tau**4
        # A moment that the farthest octave of an endless tail carries does not exist.
        far = tau > self._nodes.tau[-1] / 2
        endless = math.isinf(float(getattr(self.tau.support, "upper_bound", math.inf))) and float(
            terms[far].sum()
        ) > 1e-6 * float(terms.sum())
        return (math.inf, math.inf) if endless else (float((mass * tau**2).sum()), float(terms.sum()))

    def given_tau(self, y: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior mean and variance of μ given τ, and ``log p(y | τ)``; τ is of a shape that fits y's but the last."""
        s = self.scales.to(y.device)
        spread = s.square() + tau[..., None].square()
        apart = y - self.mean
        pull, precision = (apart / spread).sum(-1), (1 / spread).sum(-1)
        shrink = 1 + self.mean_sd**2 * precision
        shift = self.mean_sd**2 * pull / shrink
        # As a sum of squares: about the mean given τ, and of what its prior says against it.
        square = ((apart - shift[..., None]).square() / spread).sum(-1)
        if self.mean_sd > 0:
            square = square + (shift / self.mean_sd).square()
        log_det = (2 * math.pi * spread).log().sum(-1) + shrink.log()
        return self.mean + shift, (self.mean_sd**2 / shrink).expand_as(shift), -(square + log_det) / 2

    def _weights(self, y: Tensor, nodes: TauNodes) -> tuple[Tensor, Tensor]:
        """``log p(y)`` and the log posterior masses of the nodes."""
        height = self.given_tau(y[:, None], nodes.tau.to(y.device))[2]
        joint = nodes.log_mass.to(y.device) + height
        # Relative to the top, so that the masses add up to one however far below 0 the heights lie.
        top = joint.amax(1, keepdim=True)
        apart = joint - top
        total = torch.logsumexp(apart, 1, keepdim=True)
        return (top + total)[:, 0], apart - total

    def _kl(self, y: Tensor, nodes: TauNodes) -> tuple[Tensor, Tensor]:
        """The joint KL and the conditional ones of θ."""
        s = self.scales.to(y.device)
        mean, variance, height = self.given_tau(y[:, None], nodes.tau.to(y.device))
        evidence, log_mass = self._weights(y, nodes)
        mass, tau = log_mass.exp(), nodes.tau.to(y.device)
        of_tau = kl_of_log_ratio(nodes.log_mass.to(y.device).expand_as(height), height - evidence[:, None])
        a = tau[:, None] ** 2 / s.square()
        square = (y[:, None] - mean[..., None]).square() + variance[..., None]
        gain = (gaussian_gain(a) + (tau[:, None] / (s.square() + tau[:, None] ** 2)).square() * square) / 2
        of_theta = (mass[..., None] * gain).sum(1)
        of_mean = torch.zeros_like(of_tau)
        if self.mean_sd > 0:
            gain = self.mean_sd**2 * (1 / (s.square() + tau[:, None] ** 2)).sum(-1)
            shift = ((mean - self.mean) / self.mean_sd).square()
            of_mean = (mass * (gaussian_gain(gain) + shift)).sum(1) / 2
        return (of_tau if self.spread_is_latent else 0.0 * of_tau) + of_mean + of_theta.sum(1), of_theta

    def _rounding(self, y: Tensor) -> Tensor:
        return ((y.abs() + abs(self.mean)) / self.scales.to(y.device)).square().sum(1)

    def _marginals(self, y: Tensor, nodes: TauNodes) -> tuple[Tensor, Tensor]:
        """The marginal KLs (n, k) and a bound on their quadrature's error (n,)."""
        law = HierarchicalPosterior(self, y, nodes, self._weights(y, nodes)[1])
        before, error = self.prior, y.new_zeros(len(y))
        kl = y.new_zeros(len(y), len(self.latent_names))
        for index, name in enumerate(self.latent_names):
            if name == "tau":
                kl[:, index] = law.kl_of_tau()
            elif len(y):
                kl[:, index], lost = mixture_kl(law.parts(index), before.parts(index))
                error = torch.maximum(error, lost)
        return kl, error

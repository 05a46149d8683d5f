"""Proportions behind counts: the beta-binomial and the Dirichlet-multinomial pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Independent

from identkit.classical.arrays import positive, shaped
from identkit.classical.conjugate.gamma_divergence import dirichlet_kl
from identkit.classical.conjugate.pair import EPS, number_of_trials, refuse_counts, with_convergence
from identkit.classical.conjugate.proportions import Proportions, beta_moments, fitted_shapes, of_others
from identkit.classical.em import Convergence
from identkit.model import families
from identkit.model.model import Model
from identkit.model.protocol import Flatness
from identkit.posterior.bounds import beta_log_sobolev


@dataclass(frozen=True, eq=False, init=False, repr=False)
class BetaBinomial(Proportions):
    """Successes in n trials whose probability p is the latent.

    ``p ~ Beta(a, b), x | p ~ Binomial(n, p)``: the posterior is ``Beta(a + x, b + n − x)``. With no trials the
    likelihood ignores p.

    Source: Gelman et al. 2013, section 2.4; `theory/T1`.

    Args:
        trials: n ≥ 0, of each row.
        a: the prior's first shape, positive.
        b: the prior's second shape, positive.
        pooled: whether the rows of a data set share p.

    Raises:
        ValueError, TypeError: a number of trials that counts nothing, a shape that is not positive.

    >>> model = BetaBinomial(10, 2.0, 3.0)
    >>> model.posterior([7]).mean, model.kl_to_prior([7])
    (tensor([[0.6000]], dtype=torch.float64), tensor([0.6736], dtype=torch.float64))
    >>> BetaBinomial(0, 2.0, 3.0).kl_to_prior([0]).item()
    0.0
    """

    trials: int
    a: float
    b: float
    pooled: bool
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, trials: Any, a: Any = 1.0, b: Any = 1.0, *, pooled: bool = False) -> None:
        object.__setattr__(self, "trials", number_of_trials(trials))
        object.__setattr__(self, "a", positive(a, "a"))
        object.__setattr__(self, "b", positive(b, "b"))
        object.__setattr__(self, "pooled", bool(pooled))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any, trials: Any) -> BetaBinomial:
        """Fit the prior's shapes by maximum likelihood of the counts (empirical Bayes).

        Data that vary less than binomial ones ask for a prior without spread: the shapes run away, and it warns.

        Source: Griffiths 1973, Biometrics 29:637.

        Args:
            x: successes (n,) or (n, 1), each row with a probability of its own.
            trials: of each row, at least 2.

        Raises:
            ValueError: fewer than two trials, no row, or no success (or failure) at all.

        >>> model = BetaBinomial.fit([0, 1, 2, 5, 9, 10, 3, 7], 10)
        >>> round(model.a, 3), round(model.b, 3), model.convergence.converged
        (0.65, 0.72, True)
        """
        first = cls(trials)
        successes = first._data(x).to(torch.float64)
        shapes, convergence = fitted_shapes(torch.cat([successes, first.trials - successes], 1), first.trials)
        return with_convergence(cls(trials, *shapes.tolist()), convergence)

    @property
    def prior(self) -> Independent:
        """``Beta(a, b)``, one number a draw."""
        a, b = self._shapes[:, None]
        return _beta(a, b)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The one latent, the probability of success."""
        return ("p",)

    def posterior(self, x: Any) -> Independent:
        """Give ``Beta(a + x, b + n − x)``, of batch n (pooled: 1), one number a draw."""
        shapes = self._each(x, lambda s, count: self._shapes.to(s.device) + self._counts(s, count))
        return _beta(shapes[:, :1], shapes[:, 1:])

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log Binomial(x; n, p)`` in nats (pooled: summed over the rows).

        Args:
            x: successes (n,) or (n, 1).
            z: probabilities, (n, 1) or (samples, n, 1); pooled: (1, 1) or (samples, 1, 1).

        Raises:
            ValueError: p is outside [0, 1].
        """
        x = self._data(x)
        p = self._latent(x, z, lambda z: (z >= 0) & (z <= 1), "probabilities in [0, 1]")
        return self._log_multinomial(x, torch.cat([p, 1 - p], -1), torch.cat([p.log(), (-p).log1p()], -1))

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(p) = x log p + (n − x) log(1 − p)`` under the Beta prior, by trigammas.

        ``V = x² ψ'(a) + (n − x)² ψ'(b) − n² ψ'(a + b)``; ω = ∞ unless n = 0. Where the prior is strongly
        log-concave (a, b ≥ 1), the two moments that theory/T4.4 takes are those of a Beta law's reciprocals.

        Source: theory/T4; moments of the logarithms of a Beta law.
        """
        found = super().flatness(x)
        constant = beta_log_sobolev(self.a, self.b)
        if constant is None:
            return found
        both = self._each(x, self._posterior_slope, single=False)
        return Flatness(
            variance=found.variance,
            variance_error=found.variance_error,
            oscillation=found.oscillation,
            log_sobolev=constant,
            gradient_second_moment=both[:, 0],
            mean_shift=both[:, 1],
        )

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "m 1"]]:
        """Draw n rows ``(x, p)``; pooled: one p that they share."""
        p, counts = self._draw(n, generator)
        return counts[:, :1], p[:, :1]

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``p ~ Beta(a, b); x ~ Binomial(n, p)``, in exact rationals.

        ``Binomial(0, p)`` is one law whatever p: it is written without it.
        """
        model = Model("beta-binomial")
        p = model.latent("p", families.Beta(families.exact(self.a), families.exact(self.b)))
        model.observe("x", families.Binomial(self.trials, p if self.trials else 0))
        return model

    @property
    def _shapes(self) -> Tensor:
        return torch.tensor([self.a, self.b], dtype=torch.float64)

    def _refuse(self, x: Tensor) -> None:
        refuse_counts(x, self.trials)

    def _counts(self, s: Tensor, count: float) -> Tensor:
        return torch.cat([s, self.trials * count - s], -1)

    def _moments(self, s: Tensor, count: float) -> Tensor:
        return beta_moments(self._shapes.to(s.device) + self._counts(s, count))[..., :1]

    def _posterior_slope(self, s: Tensor, count: float) -> Tensor:
        """``E_Q ℓ'²`` rounded up and ``(E_Q p − E_P p)²`` rounded down."""
        x, y = self._counts(s, count).unbind(-1)
        a, b = self.a + x, self.b + y
        whole_a, n = a + b, x + y
        one = torch.where(x > 0, x.square() / ((a - 1) * (a - 2)), 0.0)
        two = torch.where(y > 0, y.square() / ((b - 1) * (b - 2)), 0.0)
        both = torch.where(x * y > 0, 2 * x * y / ((a - 1) * (b - 1)), 0.0)
        endless = ((x > 0) & (a <= 2)) | ((y > 0) & (b <= 2))
        slope = (whole_a - 1) * (whole_a - 2) * ((one + two - both).clamp(min=0.0) + EPS * (one + two + both))
        total = self.a + self.b
        apart = (x * total - n * self.a).abs() - EPS * (x * total + n * self.a)
        shift = apart.clamp(min=0.0) / (total * (total + n))
        return torch.stack([torch.where(endless, math.inf, slope), shift.square()], -1)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class DirichletMultinomial(Proportions):
    """Counts of n trials over K categories whose probabilities p are the latents.

    ``p ~ Dirichlet(a), x | p ~ Multinomial(n, p)``: the posterior is ``Dirichlet(a + x)``. The latents add up to
    one, so each is a function of the others; its conditional KL is taken given the others' *proportions among
    themselves*, of which it is independent under prior and posterior: there it equals the marginal one.

    Source: Gelman et al. 2013, section 3.4; `theory/T1`.

    Args:
        trials: n ≥ 0, of each row.
        concentrations: a, shape (K,), positive, K ≥ 2.
        pooled: whether the rows of a data set share p.

    Raises:
        ValueError, TypeError: a number of trials that counts nothing, fewer than two categories, a shape that is
            not positive.

    >>> model = DirichletMultinomial(3, [1.0, 1.0, 2.0])
    >>> model.posterior([[3, 0, 0]]).mean, model.kl_to_prior([[3, 0, 0]])
    (tensor([[0.5714, 0.1429, 0.2857]], dtype=torch.float64), tensor([1.1457], dtype=torch.float64))
    """

    trials: int
    concentrations: Float[Tensor, " k"]
    pooled: bool
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    def __init__(self, trials: Any, concentrations: Any, *, pooled: bool = False) -> None:
        concentrations = shaped(concentrations, "concentrations", None)
        if len(concentrations) < 2:
            raise ValueError(f"concentrations should be at least two, got {len(concentrations)}")
        if not bool((concentrations > 0).all()):
            raise ValueError(f"concentrations should be positive, got {concentrations.min().item()}")
        object.__setattr__(self, "trials", number_of_trials(trials))
        object.__setattr__(self, "concentrations", concentrations)
        object.__setattr__(self, "pooled", bool(pooled))
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(cls, x: Any) -> DirichletMultinomial:
        """Fit the concentrations by maximum likelihood of the counts (empirical Bayes).

        Source: Minka 2000, "Estimating a Dirichlet distribution".

        Args:
            x: counts (n, K), every row of the same number of trials ≥ 2.

        Raises:
            ValueError: rows of different totals, fewer than two trials, a category that is never seen.

        >>> model = DirichletMultinomial.fit([[5, 3, 2], [1, 8, 1], [2, 2, 6], [9, 1, 0]])
        >>> [round(a, 3) for a in model.concentrations.tolist()], model.convergence.converged
        ([1.628, 1.428, 0.883], True)
        """
        x = shaped(x, "x", None, None)
        if x.shape[1] < 2:
            raise ValueError(f"x should have at least two columns, a category each, got {x.shape[1]}")
        refuse_counts(x)
        trials = float(x[0].sum())
        first = cls(trials, torch.ones(x.shape[1], dtype=torch.float64, device=x.device))
        shapes, convergence = fitted_shapes(first._data(x), first.trials)
        return with_convergence(cls(trials, shapes), convergence)

    @property
    def prior(self) -> Dirichlet:
        """``Dirichlet(a)``."""
        return Dirichlet(self.concentrations)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``p[1] … p[K]``."""
        return tuple(f"p[{k + 1}]" for k in range(len(self.concentrations)))

    def posterior(self, x: Any) -> Dirichlet:
        """Give ``Dirichlet(a + x)``, of batch n (pooled: 1)."""
        return Dirichlet(self._each(x, lambda s, count: self._shapes.to(s.device) + s), validate_args=False)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the KLs of the marginals, ``Beta(a_i + x_i, …)`` against ``Beta(a_i, s − a_i)``, in nats."""
        return self._each(x, self._marginal)

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the KL of each p_i given the proportions among the others: that of its marginal, in nats."""
        return self._each(x, self._marginal)

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``log Multinomial(x; n, p)`` in nats (pooled: summed over the rows).

        Args:
            x: counts (n, K).
            z: probabilities, (n, K) or (samples, n, K); pooled: (1, K) or (samples, 1, K).

        Raises:
            ValueError: p is negative or does not sum to one within 1e-6.
        """
        x = self._data(x)
        p = self._latent(x, z, lambda z: (z >= 0) & (z <= 1), "probabilities in [0, 1]")
        off = (p.sum(-1) - 1).abs()
        if bool((off > 1e-6).any()):
            raise ValueError(f"z should sum to one, got a sum {off.max().item():.3g} away from it")
        return self._log_multinomial(x, p, p.log())

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "m k"]]:
        """Draw n rows ``(x, p)``; pooled: one p that they share."""
        p, counts = self._draw(n, generator)
        return counts, p

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``p ~ Dirichlet(a); x ~ Multinomial(n, p)``, in exact rationals.

        ``Multinomial(0, p)`` is one law whatever p: it is written without it.
        """
        size = len(self.concentrations)
        shapes = [families.exact(a) for a in self.concentrations.tolist()]
        model = Model("Dirichlet-multinomial")
        p = model.latent("p", families.Dirichlet(*shapes), shape=size)
        chances = list(p) if self.trials else [1, *[0] * (size - 1)]
        model.observe("x", families.Multinomial(self.trials, *chances), shape=size)
        return model

    @property
    def _columns(self) -> int:
        return len(self.concentrations)

    @property
    def _shapes(self) -> Tensor:
        return self.concentrations

    def _data(self, x: Any, device: torch.device | None = None) -> Tensor:
        return super()._data(x, self.concentrations.device if device is None else device)

    def _refuse(self, x: Tensor) -> None:
        refuse_counts(x)
        totals = x.sum(-1)
        wrong = totals != self.trials
        if bool(wrong.any()):
            raise ValueError(f"x should have rows that sum to {self.trials}, got {totals[wrong][0].item():g}")

    def _moments(self, s: Tensor, count: float) -> Tensor:
        return beta_moments(self._shapes.to(s.device) + s)

    def _marginal(self, s: Tensor, count: float) -> Tensor:
        a = self._shapes.to(s.device)
        both = torch.stack([a, of_others(a)], -1).expand(*s.shape, 2)
        return dirichlet_kl(both, torch.stack([s, of_others(s)], -1))


def _beta(a: Tensor, b: Tensor) -> Independent:
    return Independent(Beta(a, b, validate_args=False), 1)

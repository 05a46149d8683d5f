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
from identkit.classical.conjugate.empirical_bayes import climb
from identkit.classical.conjugate.gamma_divergence import (
    dirichlet_kl,
    dirichlet_kl_terms,
    log_dirichlet_multinomial,
    remainder_divergence,
    rounded_parts,
    trigamma_rest,
)
from identkit.classical.conjugate.pair import (
    BLOCK,
    EPS,
    TINY,
    Conjugate,
    gammas,
    refuse_counts,
    whole,
    with_convergence,
)
from identkit.classical.em import Convergence
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.compiled.saddle_point import log_multinomial
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.bounds import beta_log_sobolev
from identkit.posterior.stable import gaussian_gain


class _Proportions(Conjugate):
    """Counts of ``trials`` over categories, whose probabilities have a Dirichlet prior."""

    trials: int

    @property
    def _shapes(self) -> Tensor:
        """The prior's shapes a, one a category."""
        raise NotImplementedError

    def _counts(self, s: Tensor, count: float) -> Tensor:
        """Counts of every category, (m, categories), from summaries."""
        return s

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x) = log [n!/Π x_i! · B(a + x)/B(a)]`` in nats (pooled: of the whole data set)."""
        x = self._data(x)
        a = self._shapes.to(x.device)
        evidence = self._each(
            x, lambda s, count: log_dirichlet_multinomial(a, self._counts(s, count)), single=False
        )
        if self.pooled and len(x):
            # The rows' multinomial coefficients over that of their sum, at shares where all factors are of a size.
            total = self._counts(self._summary(x), float(len(x)))
            share = total / total.sum(-1, keepdim=True).clamp(min=1.0)
            coefficients = sum(
                log_multinomial(self._counts(block.to(torch.float64), 1.0), share).sum()
                for block in x.split(BLOCK)
            )
            evidence = evidence + (coefficients - log_multinomial(total, share))
        return evidence.to(x.dtype)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(p; x)`` of one row in nats: the KL is a sum over categories, each averaged over its own count.

        ``I = Σ_i E[KL_i(x_i)] − const``, x_i beta-binomial with shapes (a_i, s − a_i): n + 1 terms a category.
        """
        a, n = self._shapes, float(self.trials)
        total = a.sum()
        value = -float(gaussian_gain(n / total) / 2 + remainder_divergence(total, total.new_tensor(n)))
        size = -value
        for shape in a:
            for first in range(0, self.trials + 1, BLOCK):
                x = torch.arange(
                    first, min(first + BLOCK, self.trials + 1), dtype=torch.float64, device=a.device
                )
                pair = torch.stack([shape, total - shape])
                mass = log_dirichlet_multinomial(pair, torch.stack([x, n - x], -1)).exp()
                terms = dirichlet_kl_terms(shape.expand_as(x), x, total.expand_as(x), torch.full_like(x, n))
                part = float((mass * terms).sum())
                value, size = value + part, size + part
        return Estimate(value=max(value, 0.0), error=4 * EPS * size + TINY, method="closed form")

    def _kl(self, s: Tensor, count: float) -> Tensor:
        counts = self._counts(s, count)
        return dirichlet_kl(self._shapes.to(counts.device).expand_as(counts), counts)

    def _error(self, s: Tensor, count: float) -> Tensor:
        counts = self._counts(s, count)
        a = self._shapes.to(counts.device).expand_as(counts)
        total, n = a.sum(-1), counts.sum(-1)
        terms = rounded_parts(a, counts).sum(-1) + rounded_parts(total, n)
        # The means move by (x_i s − n a_i)/…, whose two terms may cancel; the rest is of one sign.
        step = EPS * n * total.sqrt() / (total + n)
        kl = self._kl(s, count)
        return EPS * (kl + terms) + (2 * kl).sqrt() * step + step.square() + TINY

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(p) = Σ x_i log p_i + const`` under the Dirichlet prior, by trigammas.

        ``V = Σ x_i² ψ'(a_i) − n² ψ'(s) = Σ a_i (x_i/a_i − n/s)² + Σ x_i² ρ(a_i) − n² ρ(s)``, ρ(a) = ψ'(a) − 1/a,
        since ``Cov(log p_i, log p_j) = δ_ij ψ'(a_i) − ψ'(s)``; ω = ∞ unless n = 0: ℓ has no bottom at the faces.

        Source: theory/T4; moments of the logarithms of a Dirichlet law.
        """
        return super().flatness(x)

    def _variance(self, s: Tensor, count: float) -> Tensor:
        counts = self._counts(s, count)
        a = self._shapes.to(counts.device).expand_as(counts)
        total, n = a.sum(-1, keepdim=True), counts.sum(-1, keepdim=True)
        apart = counts / a - n / total
        main = (a * apart.square()).sum(-1)
        rest = (counts.square() * trigamma_rest(a)).sum(-1)
        whole_rest = (n.square() * trigamma_rest(total))[..., 0]
        step = EPS * (a * (counts / a + n / total).square()).sum(-1).sqrt()
        variance = (main + rest - whole_rest).clamp(min=0.0)
        error = 2 * main.sqrt() * step + step.square() + EPS * (main + rest + whole_rest) + TINY
        return torch.stack([variance, error, n[..., 0]], -1)

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Probabilities and counts of every category."""
        n = number_of_draws(n, generator)
        a = self._shapes
        draws = gammas(a.expand(1 if self.pooled else n, -1).contiguous(), generator)
        p = draws / draws.sum(-1, keepdim=True)
        left = torch.full((n,), float(self.trials), dtype=torch.float64, device=a.device)
        rest, counts = torch.ones_like(p[:, 0]), []
        for i in range(len(a) - 1):
            share = torch.where(rest > 0, p[:, i] / rest.clamp(min=1e-300), 0.0).clamp(0.0, 1.0)
            counts.append(torch.binomial(left, share.expand(n).contiguous(), generator=generator))
            left, rest = left - counts[-1], (rest - p[:, i]).clamp(min=0.0)
        return p, torch.stack([*counts, left], -1)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class BetaBinomial(_Proportions):
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
        object.__setattr__(self, "trials", whole(trials, "trials"))
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
        shapes, convergence = _fit_shapes(torch.cat([successes, first.trials - successes], 1), first.trials)
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
        return _log_likelihood(self, x, torch.cat([p, 1 - p], -1), torch.cat([p.log(), (-p).log1p()], -1))

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
        return _beta_moments(self._shapes.to(s.device) + self._counts(s, count))[..., :1]

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
class DirichletMultinomial(_Proportions):
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
        object.__setattr__(self, "trials", whole(trials, "trials"))
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
        trials = float(x[0].sum())
        first = cls(trials, torch.ones(x.shape[1], dtype=torch.float64, device=x.device))
        shapes, convergence = _fit_shapes(first._data(x), first.trials)
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
        return _log_likelihood(self, x, p, p.log())

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
        return _beta_moments(self._shapes.to(s.device) + s)

    def _marginal(self, s: Tensor, count: float) -> Tensor:
        a = self._shapes.to(s.device)
        rest, others = a.sum() - a, s.sum(-1, keepdim=True) - s
        return dirichlet_kl(torch.stack([a, rest], -1).expand(*s.shape, 2), torch.stack([s, others], -1))


def _beta(a: Tensor, b: Tensor) -> Independent:
    return Independent(Beta(a, b, validate_args=False), 1)


def _beta_moments(shapes: Tensor) -> Tensor:
    """Mean and standard deviation of each entry of a Dirichlet law, (m, 2, categories)."""
    total = shapes.sum(-1, keepdim=True)
    mean = shapes / total
    sd = (mean * ((total - shapes) / total) / (total + 1)).sqrt()
    return torch.stack([mean, sd], -2)


def _log_likelihood(model: _Proportions, x: Tensor, p: Tensor, log_p: Tensor) -> Tensor:
    counts = model._counts(x.to(torch.float64), 1.0)
    if not model.pooled:
        # At p itself the coefficient and the powers are of a size; 0 · log 0 = 0.
        possible = ((p > 0) | (counts == 0)).all(-1)
        safe = torch.where(p > 0, p, 1.0)
        found = log_multinomial(counts.expand_as(p), torch.where(counts > 0, safe, p))
        return torch.where(possible, found, -math.inf).to(x.dtype)
    share = counts / counts.sum(-1, keepdim=True).clamp(min=1.0)
    coefficient = (log_multinomial(counts, share) - torch.xlogy(counts, share).sum(-1)).sum()
    total = counts.sum(0)
    powers = torch.where(total > 0, total * log_p, 0.0).sum(-1)
    return (coefficient + powers).to(x.dtype)


def _fit_shapes(counts: Tensor, trials: int) -> tuple[Tensor, Convergence]:
    if trials < 2:
        raise ValueError(
            f"trials should be at least 2: single trials say nothing of the spread of p, got {trials}"
        )
    if len(counts) == 0:
        raise ValueError("x should have at least one row, got none")
    unseen = torch.nonzero(counts.sum(0) == 0)
    if len(unseen):
        raise ValueError(f"x should show every outcome, got outcome {int(unseen[0])} never")
    different, times = torch.unique(counts.to(torch.float64), dim=0, return_counts=True)
    mean = counts.mean(0) / trials
    spread = (counts / trials).var(0, unbiased=False).sum() / (mean * (1 - mean)).sum()
    # Var(x/n) = m(1 − m)(1 + (n − 1)/(s + 1))/n
    excess = (float(spread) * trials - 1) / (trials - 1)
    total = min(max(1 / excess - 1, 0.1), 1e4) if excess > 0 else 1e4

    def height(log_shapes: Tensor) -> Tensor:
        return (times * log_dirichlet_multinomial(log_shapes.exp().expand_as(different), different)).sum()

    names = [f"shape {i + 1}" for i in range(counts.shape[1])]
    best, convergence = climb(height, (mean * total).log(), names)
    return best.exp(), convergence

"""Item response theory: abilities behind right and wrong answers, with exact posteriors by quadrature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, ClassVar

import sympy
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent, Normal

from identkit.classical.arrays import latents, real, shaped
from identkit.classical.em import Convergence
from identkit.classical.item_response.fit import Items, fitted
from identkit.classical.item_response.likelihood import answers, gains, level, steepness
from identkit.classical.item_response.posterior import ItemPosterior
from identkit.classical.placed import Placed
from identkit.model import families
from identkit.model.compiled.data import number_of_draws, whole
from identkit.model.functions import sigmoid
from identkit.model.model import Model
from identkit.model.protocol import Continuous, Estimate, Flatness
from identkit.posterior.bell import bells
from identkit.posterior.moments import flatness_on_rules
from identkit.posterior.quadrature import integrate

_EPS = torch.finfo(torch.float64).eps
_ABILITIES = 3
_LOOKS = (-24.0, -9.0, -4.5, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.5, 9.0, 24.0)
_ORDERS = {1: (96, 64), 2: (40, 28), 3: (20, 14)}
_PATTERNS = {1: 4096, 2: 1024, 3: 64}
_DRAWS = {1: 4096, 2: 2048, 3: 256}
_ROWS_AT_ONCE = 256
_GAIN_ERROR = 64 * _EPS  # relative, of the differences of ℓ between abilities


@dataclass(frozen=True, eq=False, init=False, repr=False)
class ItemResponse(Placed):
    """Answers to J items by persons whose one to three abilities are latent: the 1PL, 2PL and 3PL models.

    ``θ ~ N(0, I_K)``, ``p(x_j = 1 | θ) = c_j + (1 − c_j) σ(a_jᵀθ + d_j)``; with one ability and difficulties,
    ``d_j = −a_j b_j``. An item of discrimination 0 says nothing; if all are, the posterior is the prior.
    Posteriors are integrals over equal steps on a grid placed by the posterior's own moments (a grid of
    Gauss–Hermite's accuracy whose error two halves of it state); several peaks, which only guessing can
    make, are left to nested adaptive quadrature.

    Source: Rasch 1960; Birnbaum 1968 (2PL, 3PL); Reckase 2009 (several abilities); `theory/T4`.

    Args:
        discriminations: a, shape (J,) for one ability or (J, K); one number for all items is the Rasch model.
        difficulties: b, shape (J,), for one ability only.
        guessing: c in [0, 1), shape (J,) or one number for all items.
        intercepts: d, shape (J,), instead of difficulties.

    Raises:
        ValueError, TypeError: a wrong shape, NaN, guessing outside [0, 1), more than three abilities, both or
            neither of difficulties and intercepts.

    >>> model = ItemResponse([1.0, 2.0, 0.0], [-1.0, 0.5, 0.0])
    >>> posterior = model.posterior([[1, 1, 0], [0, 0, 1]])
    >>> posterior.mean
    tensor([[ 0.8884],
            [-0.8090]], dtype=torch.float64)
    >>> model.kl_to_prior([[float("nan"), float("nan"), 1]])
    tensor([0.], dtype=torch.float64)
    """

    takes_missing: ClassVar[bool] = True

    slopes: Float[Tensor, "j k"]
    intercepts: Float[Tensor, " j"]
    guesses: Float[Tensor, " j"]
    convergence: Convergence | None

    def __init__(
        self, discriminations: Any, difficulties: Any = None, guessing: Any = 0.0, *, intercepts: Any = None
    ) -> None:
        if (difficulties is None) == (intercepts is None):
            raise ValueError("either difficulties or intercepts should be given, got both or neither")
        name = "difficulties" if intercepts is None else "intercepts"
        where = shaped(difficulties if intercepts is None else intercepts, name, None)
        slopes = real(discriminations, "discriminations")
        slopes = slopes.expand(len(where)) if slopes.ndim == 0 else slopes
        slopes = slopes[:, None] if slopes.ndim == 1 else slopes
        if slopes.ndim != 2 or len(slopes) != len(where) or slopes.shape[1] < 1:
            raise ValueError(
                f"discriminations should have a row for each of the {len(where)} {name}, got shape "
                f"{tuple(slopes.shape)}"
            )
        if slopes.shape[1] > _ABILITIES:
            raise ValueError(f"discriminations should have at most three columns, got {slopes.shape[1]}")
        if intercepts is None and slopes.shape[1] > 1:
            raise ValueError("intercepts should be given instead of difficulties where abilities are several")
        guesses = real(guessing, "guessing")
        guesses = guesses.expand(len(where)) if guesses.ndim == 0 else shaped(guesses, "guessing", len(where))
        if not bool(((guesses >= 0) & (guesses < 1)).all()):
            raise ValueError(f"guessing should be in [0, 1), got {guesses.tolist()!s:.80}")
        object.__setattr__(self, "slopes", slopes.clone())
        object.__setattr__(self, "intercepts", where if difficulties is None else -slopes[:, 0] * where)
        object.__setattr__(self, "guesses", guesses.to(slopes.device).clone())
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(
        cls,
        x: Any,
        abilities: int = 1,
        guessing: Any = 0.0,
        *,
        equal: bool = False,
        tolerance: float = 1e-6,
        iterations: int = 500,
        generator: torch.Generator | None = None,
    ) -> ItemResponse:
        """Fit discriminations and intercepts by marginal maximum likelihood: EM over a fixed rule under the prior.

        ``max_{a,d} Σ_i log Σ_q w_q p(x_i | θ_q)``. Guessing is taken as given, and not estimated. Several
        abilities are only known up to a rotation.

        It warns where items are too steep for the rule: persons who are perfectly ordered ask for slopes without end.

        Source: Bock & Aitkin 1981, Psychometrika 46:443; Varadhan & Roland 2008 (the leaps).

        Args:
            x: (n, J) of 0, 1 and NaN, every item answered both right and wrong by someone.
            abilities: K, 1 to 3.
            guessing: c, as the model takes it.
            equal: one discrimination for all items (the Rasch model); for one ability.
            tolerance: stop when an iteration gains less, in nats.
            iterations: at most so many.
            generator: of the start, where abilities are several.

        Raises:
            ValueError: an item that all answered alike, no data, `abilities` out of range.
        """
        abilities = whole(abilities, "abilities", 1, 1 if equal else _ABILITIES, ", 1 with equal slopes")
        table = real(x, "x", missing=True)
        if table.ndim != 2 or 0 in table.shape:
            raise ValueError(f"x should have shape (n, items), neither of them 0, got {tuple(table.shape)}")
        given = answers(x, table.shape[1], torch.device("cpu"))
        lower = cls(1.0, intercepts=torch.zeros(table.shape[1]), guessing=guessing).guesses
        items, convergence = fitted(
            given.to("cpu", torch.float64), abilities, lower, equal, tolerance, iterations, generator
        )
        model = cls(items.slopes, intercepts=items.intercepts, guessing=lower)
        object.__setattr__(model, "convergence", convergence)
        return model

    def given(self, ability: int, value: float) -> ItemResponse:
        """The model of the other abilities where one is known, K ≥ 2."""
        others = [i for i in range(self.slopes.shape[1]) if i != ability]
        moved = self.intercepts + value * self.slopes[:, ability]
        return ItemResponse(self.slopes[:, others], guessing=self.guesses, intercepts=moved)

    @property
    def prior(self) -> Independent:
        """``N(0, I_K)``."""
        zero = torch.zeros_like(self.slopes[0])
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``theta``, or ``theta[1]``, ``theta[2]`` … where abilities are several."""
        k = self.slopes.shape[1]
        return ("theta",) if k == 1 else tuple(f"theta[{i + 1}]" for i in range(k))

    @property
    def pooled(self) -> bool:
        """Every person has abilities of their own."""
        return False

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*samples n"]:
        """Evaluate ``Σ_j log p(x_j | θ)`` over the answers given, in nats; z (n, K) or (samples, n, K)."""
        x, here = self._data(x)
        z = latents(z, len(x), self.slopes.shape[1], x.device).to(x.dtype)
        items = (here.slopes, here.intercepts, here.guesses)
        return level(*items[1:], x) + gains(*items, x, z)

    def posterior(self, x: Any) -> ItemPosterior:
        """Give ``p(θ | x)`` of each person: density, moments, draws and marginals."""
        value, _, mean, covariance = self._answer(x)
        x, here = self._data(x)
        return ItemPosterior(here, x, value[:, 0].to(x), mean.to(x), covariance.to(x))

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x) = log E_θ p(x | θ)``, in nats."""
        return self._answer(x)[0][:, 0].to(self._data(x)[0])

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL(p(θ | x) ‖ N(0, I))`` in nats; exactly 0 where no item answered discriminates."""
        return self._answer(x)[0][:, 1].to(self._data(x)[0])

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the KL of each ability's marginal, in nats."""
        return self._answer(x)[0][:, 2 : 2 + self.slopes.shape[1]].to(self._data(x)[0])

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the mean KL of each ability given the others, in nats: 0 iff no item asks for it."""
        return self._answer(x)[0][:, 2 + self.slopes.shape[1] :].to(self._data(x)[0])

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of the informations: two grids held against each other, and rounding."""
        return self._answer(x)[1][:, 1:].amax(1)

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Give the posterior mean and standard deviation of each ability."""
        found = self.posterior(x)
        return found.mean, found.stddev

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ℓ under the prior by Gauss–Hermite rules of two lengths.

        ω is infinite, or the sum of ``log((c + (1 − c))/c)`` over right answers where guessing bounds ℓ.

        Source: theory/T4.2 to T4.4; Golub & Welsch 1969.
        """
        x, _ = self._data(x)
        here, given = self._like(x.double()), x.double()
        k = here.slopes.shape[1]
        items = (here.slopes, here.intercepts, here.guesses)
        sees = (here.slopes != 0).any(1)
        bound = torch.where(given == 1, -here.guesses.log(), torch.where(given == 0, math.inf, 0.0))
        bound = torch.where(sees, bound, 0.0).sum(1) * (1 + 8 * _EPS)
        parts = []
        for block, omega in zip(given.split(_ROWS_AT_ONCE), bound.split(_ROWS_AT_ONCE), strict=True):
            fine, coarse = (_table(items, block, order) for order in _ORDERS[k])
            parts.append(flatness_on_rules(fine, coarse, omega, 1.0, _GAIN_ERROR))
        whole = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("variance", "variance_error", "oscillation", "gradient_second_moment", "mean_shift")
        }
        return Flatness(log_sobolev=1.0, **whole)

    def mutual_information(self, seed: int = 0) -> Estimate:
        """Evaluate I(θ; x) of one person's answers: over all 2^J patterns, or by Monte Carlo where they are many.

        ``I = Σ_x p(x) KL(p(θ | x) ‖ p(θ))``.

        Args:
            seed: of the Monte Carlo draws.
        """
        items, k = self.slopes.shape
        if 2**items <= _PATTERNS[k]:
            x = torch.tensor(list(product((0.0, 1.0), repeat=items)), dtype=torch.float64).to(self.slopes)
            value, error, _, _ = self._answer(x)
            mass = value[:, 0].exp()
            bound = (mass * (error[:, 1] + value[:, 1] * error[:, 0])).sum() + 8 * _EPS
            return Estimate(value=float(mass @ value[:, 1]), error=float(bound), method="quadrature")
        x, _ = self.sample(_DRAWS[k], torch.Generator().manual_seed(seed))
        kl = self.kl_to_prior(x)
        error = float(kl.std()) / math.sqrt(len(kl))
        return Estimate(value=float(kl.mean()), error=error, method="Monte Carlo")

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n j"], Float[Tensor, "n k"]]:
        """Draw abilities from the prior and answers to all items."""
        n = number_of_draws(n, generator)
        items, k = self.slopes.shape
        theta = torch.randn(n, k, generator=generator, dtype=torch.float64).to(self.slopes)
        chance = self.guesses + (1 - self.guesses) * torch.sigmoid(theta @ self.slopes.T + self.intercepts)
        luck = torch.rand(n, items, generator=generator, dtype=torch.float64).to(self.slopes)
        return (luck < chance).to(torch.float64), theta

    def symbolic(self) -> Model:
        """Give the model in SymPy: ``x_j ~ Bernoulli(c_j + (1 − c_j) sigmoid(a_jᵀθ + d_j))``, exact rationals."""
        model = Model("item response")
        k = self.slopes.shape[1]
        theta = model.latent("theta", families.Normal(0, 1), shape=None if k == 1 else k)
        columns = [theta] if k == 1 else list(theta)
        for j, (row, where, lower) in enumerate(
            zip(self.slopes.tolist(), self.intercepts.tolist(), self.guesses.tolist(), strict=True)
        ):
            logit = sympy.Add(
                families.exact(where), *[families.exact(a) * t for a, t in zip(row, columns, strict=True)]
            )
            c = families.exact(lower)
            # Written from the wrong answer's side: 1 − p is then (1 − c) σ(−η) again, and its logarithm finite.
            chance = sigmoid(logit) if c == 0 else 1 - (1 - c) * sigmoid(-logit)
            model.observe(f"x[{j + 1}]", families.Bernoulli(chance))
        return model

    def _data(self, x: Any) -> tuple[Tensor, ItemResponse]:
        x = answers(x, len(self.intercepts), self.slopes.device)
        return x, self._like(x)

    def _answer(self, x: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Informations (n, 2 + 2k), their errors, mean and covariance, each pattern of answers worked out once."""
        x, _ = self._data(x)
        k = self.slopes.shape[1]
        if len(x) == 0:
            empty = torch.zeros(0, 2 + 2 * k, dtype=torch.float64, device=x.device)
            return empty, empty, empty[:, :k], torch.zeros(0, k, k, dtype=torch.float64, device=x.device)
        coded = x.nan_to_num(-1.0).to(torch.int8)
        patterns, which = torch.unique(coded, dim=0, return_inverse=True)
        here = self._like(torch.zeros((), dtype=torch.float64))
        x64 = patterns.cpu().to(torch.float64)
        found = _settled(here, x64.masked_fill(x64 < 0, math.nan))
        return tuple(part.to(x.device)[which] for part in found)  # type: ignore[return-value]


def _settled(model: ItemResponse, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    items = (model.slopes, model.intercepts, model.guesses)
    k = model.slopes.shape[1]

    def prior(columns: tuple[int, ...], theta: Tensor) -> Tensor:
        return (-0.5 * theta[:, list(columns)].square() - 0.5 * math.log(2 * math.pi)).sum(1)

    def densities(rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return prior(tuple(range(k)), theta), gains(*items, x[rows], theta)

    def powers(rows: Tensor, theta: Tensor) -> Tensor:
        return torch.cat([theta, (theta[:, :, None] * theta[:, None, :]).flatten(1)], 1)

    looks = torch.tensor(_LOOKS, dtype=torch.float64)
    found = bells(densities, prior, [looks] * k, len(x), powers)
    value, error = found.value.clone(), found.error.clone()
    mean, square = found.mean[:, :k].clone(), found.mean[:, k:].reshape(-1, k, k)
    covariance = square - mean[:, :, None] * mean[:, None, :]
    left = torch.nonzero(~found.good)[:, 0]
    if len(left):
        line, pairs = Continuous(-math.inf, math.inf), list(combinations(range(k), 2))

        def sums(_: Tensor, theta: Tensor) -> Tensor:
            # In the place of ∇ℓ, whose squares are averaged: E(θ_i + θ_j)² is what a covariance lacks.
            wanted = torch.zeros_like(theta)
            wanted[:, : len(pairs)] = theta[:, [i for i, _ in pairs]] + theta[:, [j for _, j in pairs]]
            return wanted

        slow = integrate(
            lambda z: prior(tuple(range(k)), z),
            lambda rows, z: gains(*items, x[left[rows]], z),
            [line] * k,
            len(left),
            gradient=sums if pairs else None,
            independent=True,
        )
        names = ("log_evidence", "kl", "kl_per_latent", "kl_conditional")
        value[left] = torch.cat([getattr(slow, n).reshape(len(left), -1) for n in names], 1)
        error[left] = torch.cat([getattr(slow, f"{n}_error").reshape(len(left), -1) for n in names], 1)
        mean[left] = slow.mean
        covariance[left] = torch.diag_embed(slow.sd.square())
        if slow.grad_second_moment is not None:
            for (i, j), square in zip(pairs, slow.grad_second_moment.T[: len(pairs)], strict=True):
                single = slow.mean[:, [i, j]].sum(1).square() + slow.sd[:, [i, j]].square().sum(1)
                covariance[left, i, j] = covariance[left, j, i] = (square - single) / 2
    value[:, 0] += level(*items[1:], x)
    # Where no item that was answered discriminates, the posterior is the prior, to the last digit.
    blind = ~(~x.isnan() & (model.slopes != 0).any(1)).any(1)
    if blind.any():
        value[blind, 1:], mean[blind], covariance[blind] = 0.0, 0.0, torch.eye(k, dtype=torch.float64)
        value[blind, 0] = level(*items[1:], x[blind])
        error[blind, 1:] = 1e-300
    return value, error, mean, covariance


def _table(
    items: tuple[Tensor, Tensor, Tensor], x: Tensor, order: int
) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """A product of Gauss–Hermite rules for N(0, I), and ℓ and its slopes on it, (m, n) and (m, n, k)."""
    nodes, weights = (part.to(x) for part in Items.rule(order, items[0].shape[1]))
    return (nodes, weights), gains(*items, x, nodes[:, None]), steepness(*items, x, nodes[:, None])

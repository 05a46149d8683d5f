"""Further families: positive and heavy-tailed ones, the uniform, waiting counts, and vectors of a fixed sum.

Rates, shapes and scales are as in the text notation: ``Exponential(rate)``, ``Gamma(shape, rate)``,
``InverseGamma(shape, scale)``. Waiting counts count the *failures* before a success, from 0 on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import sympy
from sympy import Expr, Interval, S, Set

from identkit.model.family import (
    NONNEGATIVE,
    POSITIVE,
    POSSIBLE,
    PROBABILITY,
    ExponentialForm,
    Family,
    argument,
    refuse_sum,
)
from identkit.model.functions import step, xlogy


class LogNormal(Family):
    """``exp(N(mean, sd²))``: mean and standard deviation are those of the logarithm."""

    names = ("mean", "sd")
    domains = (S.Reals, POSITIVE)
    support = POSITIVE

    def log_density(self, *x: Expr) -> Expr:
        mean, sd = self.arguments
        u = sympy.log(x[0])
        return -(((u - mean) / sd) ** 2) / 2 - sympy.log(sd) - u - sympy.log(2 * sympy.pi) / 2

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        mean, sd = self.arguments
        u = sympy.log(x[0])
        return ExponentialForm(
            natural=(mean / sd**2, -1 / (2 * sd**2)),
            statistics=(u, u**2),
            log_base=-u - sympy.log(2 * sympy.pi) / 2,
            log_partition=mean**2 / (2 * sd**2) + sympy.log(sd),
        )


class StudentT(Family):
    """``loc + scale·T`` with T of Student's distribution with df degrees of freedom."""

    names = ("df", "loc", "scale")
    domains = (POSITIVE, S.Reals, POSITIVE)
    support = S.Reals

    def log_density(self, *x: Expr) -> Expr:
        df, loc, scale = self.arguments
        constant = sympy.loggamma((df + 1) / 2) - sympy.loggamma(df / 2) - sympy.log(sympy.pi * df) / 2
        return constant - sympy.log(scale) - (df + 1) / 2 * sympy.log(1 + ((x[0] - loc) / scale) ** 2 / df)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments


class Laplace(Family):
    """``exp(−|x − loc| / scale) / (2 scale)``."""

    names = ("loc", "scale")
    domains = (S.Reals, POSITIVE)
    support = S.Reals

    def log_density(self, *x: Expr) -> Expr:
        loc, scale = self.arguments
        return -sympy.Abs(x[0] - loc) / scale - sympy.log(2 * scale)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments


class Cauchy(Family):
    """``1 / (π scale (1 + ((x − loc) / scale)²))``."""

    names = ("loc", "scale")
    domains = (S.Reals, POSITIVE)
    support = S.Reals

    def log_density(self, *x: Expr) -> Expr:
        loc, scale = self.arguments
        return -sympy.log(sympy.pi * scale) - sympy.log(1 + ((x[0] - loc) / scale) ** 2)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments


class Exponential(Family):
    """``rate·exp(−rate·x)`` on [0, ∞), with mean 1/rate."""

    names = ("rate",)
    domains = (POSITIVE,)
    support = NONNEGATIVE

    def log_density(self, *x: Expr) -> Expr:
        (rate,) = self.arguments
        return sympy.log(rate) - rate * x[0]

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        (rate,) = self.arguments
        return ExponentialForm((-rate,), (x[0],), S.Zero, -sympy.log(rate))


class Gamma(Family):
    """``Gamma(shape, rate)`` on (0, ∞), with mean shape/rate."""

    names = ("shape", "rate")
    domains = (POSITIVE, POSITIVE)
    support = POSITIVE

    def log_density(self, *x: Expr) -> Expr:
        shape, rate = self.arguments
        constant = shape * sympy.log(rate) - sympy.loggamma(shape)
        return constant + (shape - 1) * sympy.log(x[0]) - rate * x[0]

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        shape, rate = self.arguments
        return ExponentialForm(
            natural=(shape, -rate),
            statistics=(sympy.log(x[0]), x[0]),
            log_base=-sympy.log(x[0]),
            log_partition=sympy.loggamma(shape) - shape * sympy.log(rate),
        )


class InverseGamma(Family):
    """The reciprocal of Gamma(shape, rate=scale), on (0, ∞)."""

    names = ("shape", "scale")
    domains = (POSITIVE, POSITIVE)
    support = POSITIVE

    def log_density(self, *x: Expr) -> Expr:
        shape, scale = self.arguments
        constant = shape * sympy.log(scale) - sympy.loggamma(shape)
        return constant - (shape + 1) * sympy.log(x[0]) - scale / x[0]

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        shape, scale = self.arguments
        return ExponentialForm(
            natural=(-shape, -scale),
            statistics=(sympy.log(x[0]), 1 / x[0]),
            log_base=-sympy.log(x[0]),
            log_partition=sympy.loggamma(shape) - shape * sympy.log(scale),
        )


class Uniform(Family):
    """The uniform law on [low, high], low < high.

    Where a bound is no number, `support` is a set that contains every draw. A latent needs numbers.

    >>> theta = sympy.Symbol("theta", positive=True)
    >>> Uniform(0, theta).support
    Interval(0, oo)
    """

    names = ("low", "high")
    domains = (S.Reals, S.Reals)

    def _refuse_outside(self) -> None:
        super()._refuse_outside()
        low, high = self.arguments
        if isinstance(low, sympy.MatrixBase) or isinstance(high, sympy.MatrixBase):
            return  # each draw has bounds of its own, which are looked at when the draws are taken apart
        if (high - low).is_number and not (high - low).is_positive:
            raise ValueError(f"Uniform's low should be below its high, got {low} and {high}")

    @property
    def bounds(self) -> tuple[Expr, ...]:
        return self.arguments

    @property
    def support(self) -> Set:
        low, high = self.arguments
        least = low if low.is_number else S.Zero if low.is_nonnegative else S.NegativeInfinity
        most = high if high.is_number else S.Zero if high.is_nonpositive else S.Infinity
        return Interval(least, most)

    def log_density(self, *x: Expr) -> Expr:
        low, high = self.arguments
        return sympy.log(step(x[0] - low)) + sympy.log(step(high - x[0])) - sympy.log(high - low)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments


class NegativeBinomial(Family):
    """The number of *failures* before r successes of probability p, on 0, 1, 2, …; r need not be whole.

    ``p(x) = Γ(x + r) / (x! Γ(r)) p^r (1 − p)^x``, with mean r(1 − p)/p. At p = 1 it is the point mass at 0.
    """

    names = ("r", "p")
    domains = (POSITIVE, POSSIBLE)

    @property
    def support(self) -> Set:
        return sympy.FiniteSet(0) if self.arguments[1] == 1 else S.Naturals0

    def log_density(self, *x: Expr) -> Expr:
        r, p = self.arguments
        chosen = sympy.loggamma(x[0] + r) - sympy.loggamma(r) - sympy.loggamma(x[0] + 1)
        return chosen + r * sympy.log(p) + xlogy(x[0], 1 - p)

    @property
    def law(self) -> tuple[Expr, ...]:
        # A Poisson count whose rate is Gamma(r) on the scale (1 − p)/p, by its factorial cumulants: at p = 1
        # they are 0 whatever r is, as they must be, for that is one law.
        r, p = self.arguments
        odds = (1 - p) / p
        return (r * odds, r * odds**2)

    def exponential_form(self, *x: Expr) -> ExponentialForm | None:
        r, p = self.arguments
        if not r.is_number:
            return None
        base = sympy.loggamma(x[0] + r) - sympy.loggamma(r) - sympy.loggamma(x[0] + 1)
        return ExponentialForm((sympy.log(1 - p),), (x[0],), base, -r * sympy.log(p))


class Geometric(Family):
    """The number of *failures* before the first success of probability p, on 0, 1, …; at p = 1 always 0."""

    names = ("p",)
    domains = (POSSIBLE,)

    @property
    def support(self) -> Set:
        return sympy.FiniteSet(0) if self.arguments[0] == 1 else S.Naturals0

    def log_density(self, *x: Expr) -> Expr:
        (p,) = self.arguments
        return sympy.log(p) + xlogy(x[0], 1 - p)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        (p,) = self.arguments
        return ExponentialForm((sympy.log(1 - p),), (x[0],), S.Zero, -sympy.log(p))


class _Several(Family):
    """A draw of several numbers with one argument for each, given one by one or as one list."""

    def __init__(self, *arguments: Any) -> None:
        first, last = arguments[: len(self.names) - 1], arguments[len(self.names) - 1 :]
        if len(last) == 1 and isinstance(last[0], Sequence | sympy.MatrixBase):
            last = tuple(last[0])
        if len(last) < 2:
            wanted = ", ".join([*self.names[:-1], f"{self.names[-1]}1", f"{self.names[-1]}2", "…"])
            raise ValueError(
                f"{self.name} should have the arguments ({wanted}), got {len(arguments)} argument(s)"
            )
        self.arguments = tuple(argument(value, f"{self.name}'s argument") for value in (*first, *last))
        if any(isinstance(value, sympy.MatrixBase) for value in self.arguments):
            raise ValueError(f"{self.name}'s arguments should be single numbers, got {self.arguments}")
        self._refuse_outside()

    @property
    def each(self) -> tuple[Expr, ...]:
        """The arguments that there is one of for each coordinate."""
        return self.arguments[len(self.names) - 1 :]

    @property
    def dimension(self) -> int:
        return len(self.each)

    @property
    @abstractmethod
    def total(self) -> Expr:
        """What the coordinates of every draw add up to."""

    def expressions(self) -> Iterator[tuple[str, Expr, Set]]:
        names = [*self.names[:-1], *[f"{self.names[-1]}{i}" for i in range(1, len(self.each) + 1)]]
        domains = [*self.domains[:-1], *[self.domains[-1]] * len(self.each)]
        yield from zip(names, self.arguments, domains, strict=True)

    def elementwise(self, count: int) -> list[Family]:
        return [self] * count


class Dirichlet(_Several):
    """``Dirichlet(a1, …, aK)``: K positive numbers that add up to one.

    The density is that of the first K − 1 of them.
    """

    names = ("a",)
    domains = (POSITIVE,)
    support = Interval.open(0, 1)
    total = S.One

    def _log_beta(self) -> Expr:
        return sympy.Add(*map(sympy.loggamma, self.each)) - sympy.loggamma(sympy.Add(*self.each))

    def log_density(self, *x: Expr) -> Expr:
        return (
            sympy.Add(*[(a - 1) * sympy.log(u) for a, u in zip(self.each, x, strict=True)]) - self._log_beta()
        )

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        logs = tuple(map(sympy.log, x))
        return ExponentialForm(self.each, logs, -sympy.Add(*logs), self._log_beta())


class Multinomial(_Several):
    """``Multinomial(n, p1, …, pK)``: how many of n draws fall into each of K classes; the p sum to one."""

    names = ("n", "p")
    domains = (S.Naturals0, PROBABILITY)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        refuse_sum(self.each, "Multinomial's probabilities")

    @property
    def support(self) -> Set:
        n = self.arguments[0]
        return sympy.Range(0, n + 1) if n.is_Integer else S.Naturals0

    @property
    def total(self) -> Expr:
        return self.arguments[0]

    def sums(self) -> Iterator[tuple[Expr, str]]:
        yield sympy.Add(*self.each), "probabilities"

    def _log_ways(self, x: Sequence[Expr]) -> Expr:
        return sympy.loggamma(self.arguments[0] + 1) - sympy.Add(*[sympy.loggamma(count + 1) for count in x])

    def log_density(self, *x: Expr) -> Expr:
        return self._log_ways(x) + sympy.Add(
            *[xlogy(count, p) for count, p in zip(x, self.each, strict=True)]
        )

    @property
    def law(self) -> tuple[Expr, ...]:
        # The means: with p1 + … + pK = 1 they decide n and, where n ≠ 0, every p; n = 0 is one law.
        return tuple(self.arguments[0] * p for p in self.each)

    def exponential_form(self, *x: Expr) -> ExponentialForm | None:
        n, *free, last = self.arguments
        if not n.is_number:
            return None
        natural = tuple(sympy.log(p / last) for p in free)
        return ExponentialForm(natural, tuple(x[:-1]), self._log_ways(x), -n * sympy.log(last))

"""The distribution families, each once: arguments and their domains, support, log density, exponential form.

A family's arguments are SymPy expressions of parameters and latents. Scales are standard deviations. `law`
is the canonical summary of a distribution: two members are the same distribution *iff* their laws are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy
from sympy import Expr, Integer, Interval, S, Set

from identkit.model.family import (
    DOMAIN_WORDS,
    NONNEGATIVE,
    POSITIVE,
    PROBABILITY,
    ExponentialForm,
    Family,
    argument,
    exact,
    refuse_sum,
)
from identkit.model.functions import select, xlogy
from identkit.model.more_families import (
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    Geometric,
    InverseGamma,
    Laplace,
    LogNormal,
    Multinomial,
    NegativeBinomial,
    StudentT,
    Uniform,
)

__all__ = [
    "DOMAIN_WORDS",
    "FAMILIES",
    "NONNEGATIVE",
    "POSITIVE",
    "PROBABILITY",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Dirichlet",
    "Exponential",
    "ExponentialForm",
    "Family",
    "Gamma",
    "Geometric",
    "InverseGamma",
    "Laplace",
    "LogNormal",
    "Mixture",
    "Multinomial",
    "MvNormal",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "StudentT",
    "Uniform",
    "exact",
    "select",
]


class Normal(Family):
    """``N(mean, sd²)``; its scale is a standard deviation.

    >>> Normal(0, sympy.Symbol("s", positive=True)).law
    (0, s)
    """

    names = ("mean", "sd")
    domains = (S.Reals, POSITIVE)
    support = S.Reals

    def log_density(self, *x: Expr) -> Expr:
        mean, sd = self.arguments
        return -(((x[0] - mean) / sd) ** 2) / 2 - sympy.log(sd) - sympy.log(2 * sympy.pi) / 2

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        mean, sd = self.arguments
        return ExponentialForm(
            natural=(mean / sd**2, -1 / (2 * sd**2)),
            statistics=(x[0], x[0] ** 2),
            log_base=-sympy.log(2 * sympy.pi) / 2,
            log_partition=mean**2 / (2 * sd**2) + sympy.log(sd),
        )


class MvNormal(Family):
    """The multivariate normal with a mean vector and a covariance matrix, given as nested lists or matrices."""

    names = ("mean", "cov")
    domains = (S.Reals, S.Reals)
    support = S.Reals

    def __init__(self, mean: Any, cov: Any) -> None:
        super().__init__(mean, cov)
        mean, cov = self.arguments
        if not isinstance(mean, sympy.MatrixBase) or not isinstance(cov, sympy.MatrixBase):
            raise ValueError(
                f"MvNormal should have a mean vector and a covariance matrix, got {mean} and {cov}"
            )
        if cov.shape != (len(mean), len(mean)):
            raise ValueError(f"MvNormal's cov should have shape {(len(mean), len(mean))}, got {cov.shape}")
        if cov != cov.T:
            raise ValueError(f"MvNormal's cov should be symmetric, got {cov.tolist()}")
        if not cov.free_symbols and not cov.is_positive_definite:
            raise ValueError(f"MvNormal's cov should be positive definite, got {cov.tolist()}")

    @property
    def dimension(self) -> int:
        return len(self.arguments[0])

    def elementwise(self, count: int) -> list[Family]:
        return [self] * count

    def log_density(self, *x: Expr) -> Expr:
        mean, cov = self.arguments
        apart = sympy.Matrix(x) - mean
        precision = _inverse(cov)
        quadratic = (apart.T * precision * apart)[0, 0]
        return -quadratic / 2 - sympy.log(cov.det()) / 2 - self.dimension * sympy.log(2 * sympy.pi) / 2

    @property
    def law(self) -> tuple[Expr, ...]:
        mean, cov = self.arguments
        return (*mean, *[cov[i, j] for i in range(len(mean)) for j in range(i + 1)])

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        mean, cov = self.arguments
        precision, d = _inverse(cov), self.dimension
        pairs = [(i, j) for i in range(d) for j in range(i + 1)]
        return ExponentialForm(
            natural=(*(precision * mean), *[-precision[i, j] / (2 if i == j else 1) for i, j in pairs]),
            statistics=(*x, *[x[i] * x[j] for i, j in pairs]),
            log_base=-d * sympy.log(2 * sympy.pi) / 2,
            log_partition=(mean.T * precision * mean)[0, 0] / 2 + sympy.log(cov.det()) / 2,
        )


def _log_factorial(n: Expr) -> Expr:
    # Not evaluated: SymPy would write out the whole number 1000000!.
    return sympy.loggamma(n + 1, evaluate=False) if n.is_Integer else sympy.loggamma(n + 1)


def _inverse(cov: sympy.MatrixBase) -> sympy.MatrixBase:
    # Elimination looks for its pivots by setting symbols to 0, which is no state of the label that selects an entry.
    return cov.adjugate() / cov.det() if cov.has(select) else cov.inv()


class Bernoulli(Family):
    """Success (1) with probability p, else 0."""

    names = ("p",)
    domains = (PROBABILITY,)
    support = sympy.FiniteSet(0, 1)

    def log_density(self, *x: Expr) -> Expr:
        (p,) = self.arguments
        return sympy.log(select(x[0] + 1, 1 - p, p))

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        (p,) = self.arguments
        return ExponentialForm((sympy.log(p / (1 - p)),), (x[0],), S.Zero, -sympy.log(1 - p))


class Categorical(Family):
    """States 1..K with the given probabilities, which should sum to one; nothing is normalised."""

    names = ("p",)
    domains = (PROBABILITY,)

    def __init__(self, *p: Any) -> None:
        if len(p) == 1 and isinstance(p[0], Sequence | sympy.MatrixBase):
            p = tuple(p[0])
        if len(p) < 2:
            raise ValueError(f"Categorical should have at least two probabilities, got {len(p)}")
        self.arguments = tuple(argument(value, "Categorical's p") for value in p)
        self._refuse_outside()
        refuse_sum(self.arguments, "Categorical's probabilities")

    @property
    def support(self) -> Set:
        return sympy.Range(1, len(self.arguments) + 1)

    def expressions(self) -> Iterator[tuple[str, Expr, Set]]:
        for position, p in enumerate(self.arguments, 1):
            yield f"p{position}", p, PROBABILITY

    def elementwise(self, count: int) -> list[Family]:
        return [self] * count

    def sums(self) -> Iterator[tuple[Expr, str]]:
        yield sympy.Add(*self.arguments), "probabilities"

    def log_density(self, *x: Expr) -> Expr:
        return sympy.log(select(x[0], *self.arguments))

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        *free, last = self.arguments
        states = range(1, len(self.arguments))
        indicators = [
            select(x[0], *[Integer(int(s == t)) for t in range(1, len(self.arguments) + 1)]) for s in states
        ]
        return ExponentialForm(
            tuple(sympy.log(p / last) for p in free), tuple(indicators), S.Zero, -sympy.log(last)
        )


class Beta(Family):
    """``Beta(a, b)`` on (0, 1)."""

    names = ("a", "b")
    domains = (POSITIVE, POSITIVE)
    support = Interval.open(0, 1)

    def log_density(self, *x: Expr) -> Expr:
        a, b = self.arguments
        return (a - 1) * sympy.log(x[0]) + (b - 1) * sympy.log(1 - x[0]) - self._log_beta()

    def _log_beta(self) -> Expr:
        a, b = self.arguments
        return sympy.loggamma(a) + sympy.loggamma(b) - sympy.loggamma(a + b)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        a, b = self.arguments
        return ExponentialForm(
            (a, b),
            (sympy.log(x[0]), sympy.log(1 - x[0])),
            -sympy.log(x[0]) - sympy.log(1 - x[0]),
            self._log_beta(),
        )


class Binomial(Family):
    """The number of successes in n trials of probability p."""

    names = ("n", "p")
    domains = (S.Naturals0, PROBABILITY)

    @property
    def support(self) -> Set:
        n = self.arguments[0]
        return sympy.Range(0, n + 1) if n.is_Integer else S.Naturals0

    def log_density(self, *x: Expr) -> Expr:
        n, p = self.arguments
        chosen = _log_factorial(n) - sympy.loggamma(x[0] + 1) - sympy.loggamma(n - x[0] + 1)
        return chosen + xlogy(x[0], p) + xlogy(n - x[0], 1 - p)

    @property
    def law(self) -> tuple[Expr, ...]:
        # (np, np²) decides (n, p) wherever np ≠ 0; and np = 0 is one law, a point mass at 0, whatever n and p.
        n, p = self.arguments
        return (n * p, n * p**2)

    def exponential_form(self, *x: Expr) -> ExponentialForm | None:
        n, p = self.arguments
        if not n.is_number:
            return None
        chosen = _log_factorial(n) - sympy.loggamma(x[0] + 1) - sympy.loggamma(n - x[0] + 1)
        return ExponentialForm((sympy.log(p / (1 - p)),), (x[0],), chosen, -n * sympy.log(1 - p))


class Poisson(Family):
    """Counts with mean `rate`; rate 0 is the point mass at 0."""

    names = ("rate",)
    domains = (NONNEGATIVE,)

    @property
    def support(self) -> Set:
        return sympy.FiniteSet(0) if self.arguments[0] == 0 else S.Naturals0

    def log_density(self, *x: Expr) -> Expr:
        (rate,) = self.arguments
        return xlogy(x[0], rate) - rate - sympy.loggamma(x[0] + 1)

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        (rate,) = self.arguments
        return ExponentialForm((sympy.log(rate),), (x[0],), -sympy.loggamma(x[0] + 1), rate)


class Mixture(Family):
    """``Mixture([p1, …, pK], F1, …, FK)``: a finite mixture of one family whose label is summed out."""

    names = ("weights", "components")
    domains = ()

    def __init__(self, weights: Any, *components: Family) -> None:
        if isinstance(weights, Expr) or not isinstance(weights, Sequence | sympy.MatrixBase):
            raise ValueError(
                f"Mixture should have a list of weights first, as in Mixture([a, 1-a], …), got {weights!r}"
            )
        self.weights: tuple[Expr, ...] = tuple(argument(weight, "Mixture's weight") for weight in weights)
        self.components = tuple(components)
        self.arguments = (self.weights, self.components)
        if len(self.weights) != len(components) or not components:
            raise ValueError(
                f"Mixture should have one weight a component, got {len(self.weights)} and {len(components)}"
            )
        if any(
            not isinstance(component, Family) or isinstance(component, Mixture) for component in components
        ):
            raise ValueError(
                f"Mixture's components should be families such as Normal(0, 1), got {components}"
            )
        if len({(type(component), component.dimension) for component in components}) > 1:
            raise ValueError(f"Mixture's components should be of one family and dimension, got {components}")
        self._refuse_outside()
        refuse_sum(self.weights, "Mixture's weights")

    @property
    def dimension(self) -> int:
        return self.components[0].dimension

    @property
    def support(self) -> Set:
        supports = [component.support for component in self.components]
        if all(isinstance(support, sympy.Range) for support in supports):
            return sympy.Range(min(s.start for s in supports), max(s.stop for s in supports))
        return sympy.Union(*supports)

    def expressions(self) -> Iterator[tuple[str, Expr, Set]]:
        for position, weight in enumerate(self.weights, 1):
            yield f"weight {position}", weight, PROBABILITY
        for position, component in enumerate(self.components, 1):
            for name, expression, domain in component.expressions():
                yield f"component {position}'s {name}", expression, domain

    @property
    def bounds(self) -> tuple[Expr, ...]:
        return tuple(bound for component in self.components for bound in component.bounds)

    @property
    def total(self) -> Expr | None:
        return self.components[0].total

    def sums(self) -> Iterator[tuple[Expr, str]]:
        yield sympy.Add(*self.weights), "weights"
        for component in self.components:
            yield from component.sums()

    def map(self, change: Callable[[Expr], Expr]) -> Mixture:
        return Mixture(
            [change(w) for w in self.weights], *[component.map(change) for component in self.components]
        )

    def elementwise(self, count: int) -> list[Family]:
        parts = [component.elementwise(count) for component in self.components]
        return [Mixture(self.weights, *[part[index] for part in parts]) for index in range(count)]

    def log_density(self, *x: Expr) -> Expr:
        densities = [sympy.exp(component.log_density(*x)) for component in self.components]
        return sympy.log(
            sympy.Add(*[w * density for w, density in zip(self.weights, densities, strict=True)])
        )

    @property
    def law(self) -> tuple[Expr, ...]:
        raise NotImplementedError(
            "a mixture's law is read off by identkit.symbolic.summary, component by component"
        )

    def __repr__(self) -> str:
        return f"Mixture([{', '.join(map(str, self.weights))}], {', '.join(map(repr, self.components))})"


FAMILIES: dict[str, type[Family]] = {
    family.__name__: family
    for family in (
        *(
            Normal,
            MvNormal,
            LogNormal,
            StudentT,
            Laplace,
            Cauchy,
            Exponential,
            Gamma,
            InverseGamma,
            Beta,
            Uniform,
        ),
        *(
            Bernoulli,
            Binomial,
            Categorical,
            Poisson,
            NegativeBinomial,
            Geometric,
            Dirichlet,
            Multinomial,
            Mixture,
        ),
    )
}

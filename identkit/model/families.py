"""The distribution families, each once: arguments and their domains, support, log density, exponential form.

A family's arguments are SymPy expressions of parameters and latents. Scales are standard deviations. `law`
is the canonical summary of a distribution: two members are the same distribution *iff* their laws are equal.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sympy
from sympy import Expr, Integer, Interval, Rational, S, Set, Symbol

from identkit.model.functions import select, xlogy

__all__ = [
    "FAMILIES",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ExponentialForm",
    "Family",
    "Mixture",
    "MvNormal",
    "Normal",
    "Poisson",
    "exact",
    "select",
]

POSITIVE = Interval.open(0, S.Infinity)
PROBABILITY = Interval(0, 1)
NONNEGATIVE = Interval(0, S.Infinity)


def exact(value: Any, argument: str = "value") -> Expr:
    """The SymPy expression of a value: integers and fractions as they are, a float by its shortest decimal.

    >>> exact(0.1)
    1/10

    Raises:
        ValueError: for NaN and infinities. TypeError: for what is not a number or an expression.
    """
    if isinstance(value, Expr):
        if value.has(sympy.Float):
            value = value.xreplace({number: exact(float(number)) for number in value.atoms(sympy.Float)})
        if value.has(S.NaN, S.Infinity, S.NegativeInfinity, S.ComplexInfinity):
            raise ValueError(f"{argument} should be finite, got {value}")
        return value
    if isinstance(value, bool):
        return Integer(int(value))
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, int):
        return Integer(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{argument} should be finite, got {value}")
        return Rational(repr(value))
    if hasattr(value, "numerator") and hasattr(value, "denominator"):
        return Rational(value.numerator, value.denominator)
    raise TypeError(f"{argument} should be a number or a SymPy expression, got {value!r}")


@dataclass(frozen=True)
class ExponentialForm:
    """``log p(x) = η · T(x) + log h(x) − A``: a minimal exponential family, so its law is determined by η."""

    natural: tuple[Expr, ...]
    statistics: tuple[Expr, ...]
    log_base: Expr
    log_partition: Expr

    @property
    def log_density(self) -> Expr:
        """The log density that the form stands for."""
        terms = [eta * statistic for eta, statistic in zip(self.natural, self.statistics, strict=True)]
        return sympy.Add(*terms) + self.log_base - self.log_partition


class Family(ABC):
    """A distribution whose arguments are SymPy expressions; immutable, compared by its arguments."""

    arguments: tuple[Any, ...]
    names: ClassVar[tuple[str, ...]]
    domains: ClassVar[tuple[Set, ...]]

    def __init__(self, *arguments: Any) -> None:
        if len(arguments) != len(self.names):
            raise ValueError(
                f"{self.name} should have the arguments ({', '.join(self.names)}), got {len(arguments)} argument(s)"
            )
        self.arguments = tuple(
            _argument(value, f"{self.name}'s {name}") for value, name in zip(arguments, self.names, strict=True)
        )
        self._refuse_outside()

    @property
    def name(self) -> str:
        """The family's name in the text notation."""
        return type(self).__name__

    @property
    def dimension(self) -> int:
        """How many numbers one draw has."""
        return 1

    @property
    @abstractmethod
    def support(self) -> Set:
        """Where one coordinate of a draw lies, as a SymPy set."""

    @abstractmethod
    def log_density(self, *x: Expr) -> Expr:
        """``log p(x)`` in nats (density or mass), x given coordinate by coordinate."""

    @property
    @abstractmethod
    def law(self) -> tuple[Expr, ...]:
        """Expressions that are equal for two members iff these are the same distribution."""

    def exponential_form(self, *x: Expr) -> ExponentialForm | None:
        """The minimal exponential form, or None where the family is not one."""
        return None

    def expressions(self) -> Iterator[tuple[str, Expr, Set]]:
        """Each scalar argument with its name and the domain that it must lie in."""
        for name, argument, domain in zip(self.names, self.arguments, self.domains, strict=True):
            for element in _elements(argument):
                yield name, element, domain

    def map(self, change: Callable[[Expr], Expr]) -> Family:
        """The same family with `change` applied to every argument."""
        return type(self)(*[_mapped(argument, change) for argument in self.arguments])

    def elementwise(self, count: int) -> list[Family]:
        """`count` independent members; vector arguments are taken apart, scalars repeated."""
        members = []
        for index in range(count):
            members.append(type(self)(*[_entry(argument, index, count, self) for argument in self.arguments]))
        return members

    @property
    def free_symbols(self) -> set[Symbol]:
        """The parameters and latents that the arguments mention."""
        return set().union(*[expression.free_symbols for _, expression, _ in self.expressions()])  # type: ignore[return-value]

    def _refuse_outside(self) -> None:
        for name, expression, domain in self.expressions():
            if not expression.free_symbols and _outside(expression, domain):
                raise ValueError(f"{self.name}'s {name} should be {DOMAIN_WORDS[domain]}, got {expression}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.arguments == other.arguments  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self.arguments))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(_written(argument) for argument in self.arguments)})"


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
            raise ValueError(f"MvNormal should have a mean vector and a covariance matrix, got {mean} and {cov}")
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
        self.arguments = tuple(_argument(value, "Categorical's p") for value in p)
        self._refuse_outside()
        _refuse_sum(self.arguments, "Categorical's probabilities")

    @property
    def support(self) -> Set:
        return sympy.Range(1, len(self.arguments) + 1)

    def expressions(self) -> Iterator[tuple[str, Expr, Set]]:
        for position, p in enumerate(self.arguments, 1):
            yield f"p{position}", p, PROBABILITY

    def elementwise(self, count: int) -> list[Family]:
        return [self] * count

    def log_density(self, *x: Expr) -> Expr:
        return sympy.log(select(x[0], *self.arguments))

    @property
    def law(self) -> tuple[Expr, ...]:
        return self.arguments

    def exponential_form(self, *x: Expr) -> ExponentialForm:
        *free, last = self.arguments
        states = range(1, len(self.arguments))
        indicators = [select(x[0], *[Integer(int(s == t)) for t in range(1, len(self.arguments) + 1)]) for s in states]
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
            (a, b), (sympy.log(x[0]), sympy.log(1 - x[0])), -sympy.log(x[0]) - sympy.log(1 - x[0]), self._log_beta()
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
        chosen = sympy.loggamma(n + 1) - sympy.loggamma(x[0] + 1) - sympy.loggamma(n - x[0] + 1)
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
        chosen = sympy.loggamma(n + 1) - sympy.loggamma(x[0] + 1) - sympy.loggamma(n - x[0] + 1)
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
            raise ValueError(f"Mixture should have a list of weights first, as in Mixture([a, 1-a], …), got {weights!r}")
        self.weights: tuple[Expr, ...] = tuple(_argument(weight, "Mixture's weight") for weight in weights)
        self.components = tuple(components)
        self.arguments = (self.weights, self.components)
        if len(self.weights) != len(components) or not components:
            raise ValueError(f"Mixture should have one weight a component, got {len(self.weights)} and {len(components)}")
        if any(not isinstance(component, Family) or isinstance(component, Mixture) for component in components):
            raise ValueError(f"Mixture's components should be families such as Normal(0, 1), got {components}")
        if len({(type(component), component.dimension) for component in components}) > 1:
            raise ValueError(f"Mixture's components should be of one family and dimension, got {components}")
        self._refuse_outside()
        _refuse_sum(self.weights, "Mixture's weights")

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

    def map(self, change: Callable[[Expr], Expr]) -> Mixture:
        return Mixture([change(w) for w in self.weights], *[component.map(change) for component in self.components])

    def elementwise(self, count: int) -> list[Family]:
        parts = [component.elementwise(count) for component in self.components]
        return [Mixture(self.weights, *[part[index] for part in parts]) for index in range(count)]

    def log_density(self, *x: Expr) -> Expr:
        densities = [sympy.exp(component.log_density(*x)) for component in self.components]
        return sympy.log(sympy.Add(*[w * density for w, density in zip(self.weights, densities, strict=True)]))

    @property
    def law(self) -> tuple[Expr, ...]:
        raise NotImplementedError("a mixture's law is read off by identkit.symbolic.summary, component by component")

    def __repr__(self) -> str:
        return f"Mixture([{', '.join(map(str, self.weights))}], {', '.join(map(repr, self.components))})"


FAMILIES: dict[str, type[Family]] = {
    family.__name__: family for family in (Normal, MvNormal, Bernoulli, Categorical, Beta, Binomial, Poisson, Mixture)
}
DOMAIN_WORDS = {
    S.Reals: "a real number",
    POSITIVE: "positive",
    NONNEGATIVE: "at least 0",
    PROBABILITY: "a probability in [0, 1]",
    S.Naturals0: "a whole number, 0 or more",
}


def _outside(number: Expr, domain: Set) -> bool:
    if isinstance(number, Rational) and isinstance(domain, Interval):
        below = number < domain.start or (domain.left_open and number == domain.start)
        return bool(below or number > domain.end or (domain.right_open and number == domain.end))
    return domain.contains(number) == sympy.false


def _argument(value: Any, argument: str) -> Any:
    if isinstance(value, sympy.MatrixBase):
        return sympy.ImmutableMatrix(value).applyfunc(lambda entry: exact(entry, argument))
    if isinstance(value, Sequence) and not isinstance(value, str) or getattr(value, "ndim", 0) > 0:
        rows = value.tolist() if hasattr(value, "tolist") else list(value)
        matrix = sympy.ImmutableMatrix(
            [[exact(e, argument) for e in row] if isinstance(row, Sequence) else exact(row, argument) for row in rows]
        )
        return matrix
    return exact(value, argument)


def _elements(argument: Any) -> Sequence[Expr]:
    return list(argument) if isinstance(argument, sympy.MatrixBase) else [argument]


def _mapped(argument: Any, change: Callable[[Expr], Expr]) -> Any:
    return argument.applyfunc(change) if isinstance(argument, sympy.MatrixBase) else change(argument)


def _entry(argument: Any, index: int, count: int, family: Family) -> Any:
    if not isinstance(argument, sympy.MatrixBase):
        return argument
    if len(argument) != count:
        raise ValueError(f"{family.name}'s vector argument should have {count} elements, got {len(argument)}")
    return argument[index]


def _refuse_sum(probabilities: Sequence[Expr], what: str) -> None:
    total = sympy.Add(*probabilities)
    if not total.free_symbols and not sympy.simplify(total - 1).is_zero:
        raise ValueError(f"{what} should sum to one, got {', '.join(map(str, probabilities))} with the sum {total}")


def _written(argument: Any) -> str:
    return str(argument.tolist()) if isinstance(argument, sympy.MatrixBase) else str(argument)

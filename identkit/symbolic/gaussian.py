"""Linear-Gaussian models: the mean vector and the covariance matrix of the data, propagated exactly.

A normal whose mean is affine in earlier normals, with a covariance free of them, is jointly normal with
them; and a normal law, singular or not, is determined by, and determines, its mean and covariance
(theory/T6).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import sympy
from sympy import Expr, S, Symbol

from identkit.model.families import Family, MvNormal, Normal
from identkit.model.noise_free import Exactly
from identkit.model.statement import Statement


@dataclass(frozen=True)
class GaussianLaw:
    """Means and covariances of jointly normal symbols; a covariance that is not listed is 0."""

    mean: dict[Symbol, Expr] = field(default_factory=dict)
    covariance: dict[Symbol, dict[Symbol, Expr]] = field(default_factory=dict)

    def of(self, symbols: Sequence[Symbol]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
        """The means and the upper triangle of the covariance matrix, row by row."""
        upper = [
            self.covariance[one].get(other, S.Zero)
            for position, one in enumerate(symbols)
            for other in symbols[position:]
        ]
        return tuple(self.mean[symbol] for symbol in symbols), tuple(upper)


def propagate(statements: Sequence[Statement]) -> GaussianLaw | None:
    """The joint law of normal statements in the order of drawing; None where one is not linear-Gaussian.

    Nothing is expanded: an AR(1) state keeps its covariance as ``φ²(φ²(…) + q²) + q²``.

    >>> w, s = sympy.symbols("w s")
    >>> z, x = sympy.symbols("z x")
    >>> law = propagate([Statement((z,), Normal(0, 1)), Statement((x,), Normal(w * z, s))])
    >>> law.of([x])
    ((0,), (s**2 + w**2,))
    """
    law = GaussianLaw()
    for statement in statements:
        arguments = mean_and_noise(statement.family)
        if arguments is None:
            return None
        means, noise = arguments
        forms = [affine(mean, law.mean.keys()) for mean in means]
        random = law.mean and any(entry.has(*law.mean) for row in noise for entry in row)
        if random or any(form is None for form in forms):
            return None
        for position, symbol in enumerate(statement.symbols):
            constant, slopes = forms[position]  # type: ignore[misc]
            own = dict(zip(statement.symbols, noise[position][: position + 1], strict=False))
            _add(law, symbol, constant, slopes, own)
    return law


def _add(
    law: GaussianLaw, symbol: Symbol, constant: Expr, slopes: dict[Symbol, Expr], noise: dict[Symbol, Expr]
) -> None:
    law.mean[symbol] = constant + sympy.Add(*[slope * law.mean[z] for z, slope in slopes.items()])
    terms: dict[Symbol, list[Expr]] = {
        other: [entry] for other, entry in noise.items() if entry != 0 and other != symbol
    }
    for z, slope in slopes.items():
        for other, entry in law.covariance[z].items():
            terms.setdefault(other, []).append(slope * entry)
    row = {other: sympy.Add(*parts) for other, parts in terms.items()}
    law.covariance[symbol] = row
    for other, entry in list(row.items()):
        law.covariance[other][symbol] = entry
    row[symbol] = sympy.Add(noise[symbol], *[slope * row[z] for z, slope in slopes.items() if z in row])


def mean_and_noise(family: Family) -> tuple[list[Expr], list[list[Expr]]] | None:
    """Mean and covariance of a normal family (a noise-free one has covariance 0); None for others."""
    if isinstance(family, Normal):
        mean, sd = family.arguments
        return [mean], [[sd**2]]
    if isinstance(family, Exactly):
        return [family.arguments[0]], [[S.Zero]]
    if isinstance(family, MvNormal):
        mean, cov = family.arguments
        return list(mean), cov.tolist()
    return None


def affine(expression: Expr, symbols: Collection[Symbol]) -> tuple[Expr, dict[Symbol, Expr]] | None:
    """``constant, {z: slope}`` of an expression affine in the symbols; None if it is not.

    >>> z, w = sympy.symbols("z w")
    >>> affine(w * (z + 1) + 2, {z})
    (w + 2, {z: w})
    """
    return _affine(expression, set(symbols)) or _affine(sympy.expand(expression), set(symbols))


def _affine(expression: Expr, symbols: set[Symbol]) -> tuple[Expr, dict[Symbol, Expr]] | None:
    if not expression.free_symbols & symbols:
        return expression, {}
    if expression in symbols:
        return S.Zero, {expression: S.One}  # type: ignore[dict-item]
    if isinstance(expression, sympy.Mul):
        inside = [factor for factor in expression.args if factor.free_symbols & symbols]
        form = _affine(inside[0], symbols) if len(inside) == 1 else None
        if form is None:
            return None
        outside = sympy.Mul(*[factor for factor in expression.args if factor is not inside[0]])
        return outside * form[0], {z: outside * slope for z, slope in form[1].items()}
    if isinstance(expression, sympy.Add):
        constants: list[Expr] = []
        slopes: dict[Symbol, list[Expr]] = {}
        for term in expression.args:
            form = _affine(term, symbols)
            if form is None:
                return None
            constants.append(form[0])
            for z, slope in form[1].items():
                slopes.setdefault(z, []).append(slope)
        return sympy.Add(*constants), {z: sympy.Add(*parts) for z, parts in slopes.items()}
    return None

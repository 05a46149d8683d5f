"""The law of the data given the latents, as expressions: κ(z, θ) with equal κ *iff* equal law.

Minimal exponential families are read off their arguments. A finite mixture needs more: its components are
merged where their laws agree, and the weights of what remains determine the law when the component densities
are linearly independent (Teicher 1961, 1963: Poissons, exponentials, gammas; Yakowitz & Spragins 1968: normals,
Cauchys, negative binomials; Laplaces by the poles of their characteristic functions; any two distinct laws).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import sympy
from sympy import Expr, S, Set, Symbol

from identkit.model import families
from identkit.model.model import Model
from identkit.model.statement import Statement
from identkit.symbolic.compound import INDEPENDENT
from identkit.symbolic.field import vanishes
from identkit.symbolic.support import all_domains, almost_never_zero

_INDEPENDENT = (*INDEPENDENT, families.Normal, families.MvNormal, families.LogNormal)
"""Families of which any distinct members are linearly independent; Uniform, Beta, StudentT and the finite ones
are not among them: U(0, 1)/2 + U(1, 2)/2 = U(0, 2)."""


@dataclass(frozen=True)
class Summary:
    """κ as a tuple of expressions.

    Equal κ always means equal law. The converse holds when `incomplete` is empty; else that says what is missing,
    and the law need not determine the expressions in `loose`.
    """

    expressions: tuple[Expr, ...]
    assumptions: tuple[str, ...] = ()
    incomplete: str = ""
    loose: tuple[Expr, ...] = ()

    @property
    def determined(self) -> tuple[Expr, ...]:
        """The expressions that are equal wherever the laws are."""
        return tuple(expression for expression in self.expressions if expression not in self.loose)

    def __add__(self, other: Summary) -> Summary:
        firm = {*self.determined, *other.determined}
        return Summary(
            tuple(dict.fromkeys(self.expressions + other.expressions)),
            tuple(dict.fromkeys(self.assumptions + other.assumptions)),
            self.incomplete or other.incomplete,
            tuple(dict.fromkeys(e for e in self.loose + other.loose if e not in firm)),
        )


def conditional_law(model: Model) -> Summary:
    """κ of ``p(x | z; θ)``: everything that the observations' law depends on."""
    domains = all_domains(model)
    total = Summary(())
    for statement in model.observations:
        total += _law_of(statement, model.latent_symbols, domains)
    return total


def _law_of(statement: Statement, latents: Collection[Symbol], domains: Mapping[Symbol, Set]) -> Summary:
    family = statement.family
    if not isinstance(family, families.Mixture):
        return Summary(tuple(family.law))
    names = ", ".join(symbol.name for symbol in statement.symbols)
    groups, assumptions, undecided = _merged(family, domains)
    if len(groups) == 1:
        return Summary(tuple(groups[0][1].law))
    kind = family.components[0]
    table = _finite_table(groups)
    if table is not None:
        return Summary(table)
    pieces = tuple(e for weight, component in groups for e in (weight, *component.law))
    if undecided:
        return Summary(
            pieces, (), f"whether two components of {names} are the same law was not decided", pieces
        )
    if any(expression.has(*latents) for _, component in groups for expression in component.law):
        return Summary(pieces, (), f"the components of the mixture {names} change with the latents", pieces)
    if len(groups) > 2 and not isinstance(kind, _INDEPENDENT):
        return Summary(pieces, (), f"linear independence of {kind.name} components is not known", pieces)
    return Summary(tuple(weight for weight, _ in groups), tuple(assumptions))


def _merged(
    family: families.Mixture, domains: Mapping[Symbol, Set]
) -> tuple[list[tuple[Expr, families.Family]], list[str], bool]:
    groups: list[tuple[Expr, families.Family]] = []
    assumptions: list[str] = []
    undecided = False
    for weight, component in zip(family.weights, family.components, strict=True):
        for position, (total, other) in enumerate(groups):
            gaps = [one - two for one, two in zip_longest(component.law, other.law, fillvalue=S.Zero)]
            if all(vanishes(gap) for gap in gaps):
                groups[position] = (sympy.expand(total + weight), other)
                break
            apart = [gap for gap in gaps if almost_never_zero(gap, domains)]
            undecided |= not apart
            if apart and not any(not gap.free_symbols for gap in apart):
                assumptions.append(" or ".join(f"{sympy.factor(gap)} != 0" for gap in apart))
        else:
            groups.append((weight, component))
    return groups, assumptions, undecided


def _finite_table(groups: list[tuple[Expr, families.Family]]) -> tuple[Expr, ...] | None:
    kind = groups[0][1]
    if isinstance(kind, families.Bernoulli | families.Categorical):
        cells = zip_longest(*[[weight * p for p in part.law] for weight, part in groups], fillvalue=S.Zero)
        return tuple(sympy.Add(*cell) for cell in cells)
    if isinstance(kind, families.Binomial) and all(
        part.arguments[0] == kind.arguments[0] for _, part in groups
    ):
        trials = kind.arguments[0]
        if trials.is_Integer:
            counts = range(1, int(trials) + 1)
            # The factorial moments Σ w pʲ determine the cells of the table linearly, and are determined by them.
            return tuple(
                sympy.Add(*[weight * part.arguments[1] ** j for weight, part in groups]) for j in counts
            )
    return None

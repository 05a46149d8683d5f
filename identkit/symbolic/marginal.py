"""The law of the data with the latents integrated out: κ(θ), found by theorems, not by numerical integration.

The model falls apart into independent blocks (`blocks`). The law of each (`block_law`) is a table of finite
data (`tables`), one member of a family once its continuous latents are integrated out (`compound`,
`gaussian`), or a finite mixture of such members (`multiset`). Where none of these applies, what the law at
least determines and what at least determines the law (`sufficient`) are given, and the missing integral is
named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb

from sympy import Expr, Set, Symbol

from identkit.model.model import Model
from identkit.model.statement import Statement
from identkit.symbolic.block_law import MarginalLaw, block_law, named
from identkit.symbolic.blocks import Block, blocks, count_states
from identkit.symbolic.expectation import joint_moments
from identkit.symbolic.multiset import power_sums
from identkit.symbolic.sufficient import sufficient
from identkit.symbolic.support import all_domains
from identkit.symbolic.tables import table

__all__ = ["MarginalLaw", "marginal_law"]

MOST_MARGINS = 700
"""Margins of a table that are written out at most where the whole of it is out of reach."""

MOST_MOMENTS = 130
"""Moments that are written out at most where the law itself is out of reach."""

MOST_STATES = 512
"""Joint states of the labels beyond which no law of a group of observations is looked for."""


def marginal_law(model: Model) -> MarginalLaw:
    """κ(θ) of ``p(x; θ) = ∫ p(x | z; θ) p(z; θ) dz`` for one row of data (theory/T6).

    Args:
        model: with observations, or with summary statements, which are then used as given.

    Raises:
        ValueError: for a model with neither.

    >>> import identkit as ik
    >>> m = ik.parse("z ~ Normal(0, t); observe x[2] ~ Normal(w*z, s)")
    >>> marginal_law(m).expressions
    (s**2 + t**2*w**2, t**2*w**2)
    >>> marginal_law(ik.parse("observe y ~ Mixture([a, 1-a], Poisson(u), Poisson(v))")).components
    ((a, u), (1 - a, v))
    """
    if model.summaries:
        stated = named(tuple(model.summaries))
        return MarginalLaw(expressions=stated, method="the summary statements of the model, used as given")
    if not model.observations:
        raise ValueError(
            f"{model.name} has no observations; declare one, as in observe x ~ Normal(m, 1), or a summary"
        )
    domains = all_domains(model)
    found: dict[object, MarginalLaw] = {}
    for block in blocks(model):
        shape = block.shape()
        if shape not in found:
            found[shape] = block_law(block, domains) or _unfinished(block, domains)
    return _together(list(found.values()))


# Blocks together


def _together(laws: Sequence[MarginalLaw]) -> MarginalLaw:
    if len(laws) == 1:
        return laws[0]
    incomplete = "; ".join(law.incomplete for law in laws if law.incomplete)
    enough = [law.local if law.exhaustive else law.sufficient for law in laws]
    # One multiset stays; where others are needed too, their power sums take their place.
    kept = max(laws, key=lambda law: (law.needs_components, len(law.components)))
    others = [power_sums(law.components) if law.needs_components and law is not kept else () for law in laws]
    needed = [law for law in laws if law.needs_components]
    return replace(
        kept,
        expressions=named(
            tuple(e for law, sums in zip(laws, others, strict=True) for e in (*law.expressions, *sums))
        ),
        conditions=tuple(dict.fromkeys(c for law in [kept, *needed] for c in law.conditions)),
        assumptions=tuple(dict.fromkeys(a for law in laws for a in law.assumptions)),
        incomplete=incomplete,
        sufficient=named(tuple(e for part in enough for e in part)) if incomplete else (),
        method="; ".join(dict.fromkeys(law.method for law in laws if law.method)),
    )


# What is known where no theorem applies


def _unfinished(block: Block, domains: Mapping[Symbol, Set]) -> MarginalLaw:
    """Laws of groups of observations, and moments: their injectivity proves, their deficiency does not."""
    laws: list[MarginalLaw] = []
    told: list[str] = []
    for group in _groups(block):
        smaller = block.restricted(group)
        law = block_law(smaller, domains) if count_states(smaller.finite) <= MOST_STATES else None
        if law is not None:
            laws.append(law)
            told.append("the law of " + ", ".join(symbol.name for s in group for symbol in s.symbols))
    moments, order = _low_moments(block)
    told += [f"moments up to order {order}"] if moments else []
    most = max(laws, key=lambda law: len(law.components), default=MarginalLaw(expressions=()))
    return MarginalLaw(
        expressions=named((*[e for law in laws for e in law.expressions], *moments)),
        components=most.components,
        conditions=most.conditions,
        incomplete=_missing(block, told),
        sufficient=sufficient(block),
        method="; ".join(dict.fromkeys(law.method for law in laws)),
    )


def _low_moments(block: Block) -> tuple[tuple[Expr, ...], int]:
    count = sum(len(observation.symbols) for observation in block.observations)
    for order in (4, 3, 2, 1):
        size = comb(count + order, order) - 1
        found = table(block, order) if size <= MOST_MARGINS else None
        if found is None and size <= MOST_MOMENTS:
            found = joint_moments(block.observations, block.latents, order)
        if found is not None:
            return found, order
    return (), 0


def _groups(block: Block) -> list[list[Statement]]:
    """Proper subsets of the observations: those of one family, and single ones."""
    families: dict[str, list[Statement]] = {}
    for observation in block.observations:
        families.setdefault(observation.family.name, []).append(observation)
    groups = [*families.values(), *[[observation] for observation in block.observations]]
    proper = [group for group in groups if len(group) < len(block.observations)]
    return [group for i, group in enumerate(proper) if group not in proper[:i]]


def _missing(block: Block, known: Sequence[str]) -> str:
    data = ", ".join(symbol.name for s in block.observations for symbol in s.symbols)
    first = block.observations[0]
    over = "; ".join(_drawn(statement) for statement in block.latents[:3])
    more = "; …" if len(block.latents) > 3 else ""
    told = f" (used instead: {'; '.join(dict.fromkeys(known))})" if known else ""
    integral = f"the integral of {_drawn(first)} over {over}{more}"
    return f"the law of {data} needs {integral}, for which no theorem is known here{told}"


def _drawn(statement: Statement) -> str:
    return f"{', '.join(symbol.name for symbol in statement.symbols)} ~ {statement.family}"

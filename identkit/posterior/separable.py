"""Posteriors that fall apart: latents that no term of ℓ joins are integrated out one group after the other.

Where the latents are independent under P and ``ℓ(z) = Σ_B ℓ_B(z_B)``, the posterior is the product of its groups' own, and
informations add up. Of such an ℓ no ℓ_B has to be written down: up to a number it is ℓ itself with all other latents held
where they may be. The sticks of a Dirichlet under counts are the case in point: four shares are three integrals over a
line, not one over space.

Source: theory/T4 (computation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch
from sympy import Add, Expr, Mul, Set, Symbol
from torch import Tensor

from identkit.model.compiled import CompiledModel
from identkit.model.functions import xlogy
from identkit.model.model import Model
from identkit.posterior.quadrature import Quadrature, integrate

_TERMS = 2_000


def groups(model: Model) -> list[list[int]]:
    """Sort the latents' positions into groups that no term of ``log p(x | z)`` joins, if P makes them independent.

    Logarithms of products of what is never negative are read as sums; what cannot be read apart stays together.

    >>> from identkit.model.language import parse
    >>> groups(parse("z[3] ~ Normal(0, 1); observe x ~ Normal(z[1]*z[3], 1); observe y ~ Bernoulli(sigmoid(z[2]))"))
    [[0, 2], [1]]
    """
    latents = list(model.latent_symbols)
    together = [list(range(len(latents)))]
    alone = all(
        len(statement.symbols) == 1 and not statement.family.free_symbols & {*latents}
        for statement in model.latents
    )
    ranges = {symbol: s.family.support for s in model.latents for symbol in s.symbols}
    terms = _terms(model.log_likelihood(), ranges) if alone else []
    if not alone or len(terms) > _TERMS:
        return together
    found = [{latent} for latent in latents]
    for term in terms:
        mentioned = term.free_symbols & {*latents}
        joined = [group for group in found if group & mentioned]
        if len(joined) > 1:
            found = [group for group in found if group not in joined] + [set().union(*joined)]
    return sorted(sorted(latents.index(latent) for latent in group) for group in found)


def by_groups(
    model: CompiledModel,
    parts: Sequence[list[int]],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    gradient: Callable[[Tensor, Tensor], Tensor] | None,
    reference: Tensor,
    n: int,
    evaluations: int,
) -> Quadrature | None:
    """Integrate group by group, as `integrate` does of all latents at once.

    Args:
        model: whose prior it is.
        parts: as `groups` gives them.
        log_likelihood, gradient: as `integrate` takes them.
        reference: (k,) where the other latents are held.
        n: number of data.
        evaluations: how often ℓ of one datum may be evaluated for a group, at most.

    Returns:
        None where ℓ is not finite at the reference.
    """
    rows = torch.arange(n)
    level = log_likelihood(rows, reference.expand(n, -1))
    if not bool(level.isfinite().all()):
        return None
    found = []
    for part in parts:

        def filled(z: Tensor, part: list[int] = part) -> Tensor:
            whole = reference.repeat(len(z), 1)
            whole[:, part] = z
            return whole

        def height(rows: Tensor, z: Tensor, filled: Any = filled) -> Tensor:
            return log_likelihood(rows, filled(z))

        def slope(rows: Tensor, z: Tensor, filled: Any = filled, part: list[int] = part) -> Tensor:
            return torch.zeros_like(z) if gradient is None else gradient(rows, filled(z))[:, part]

        own = model.model.replaced({})
        own.latents = [model.model.latents[j] for j in part]
        chosen = None if gradient is None else slope
        axes = [model.axes[j] for j in part]
        found.append(
            integrate(
                CompiledModel(own).log_prior,
                height,
                axes,
                n,
                gradient=chosen,
                evaluations=evaluations,
                independent=True,
            )
        )
    order = torch.argsort(torch.tensor([j for part in parts for j in part]))
    sums: dict[str, Any] = {
        name: torch.stack([getattr(one, name) for one in found]).sum(0)
        for name in ("log_evidence", "log_evidence_error", "kl", "kl_error")
    }
    sums["log_evidence"] = sums["log_evidence"] - (len(parts) - 1) * level
    for name in (
        *("kl_per_latent", "kl_per_latent_error", "kl_conditional", "kl_conditional_error"),
        *("mean", "sd", "grad_second_moment"),
    ):
        columns = [getattr(one, name) for one in found]
        sums[name] = None if columns[0] is None else torch.cat(columns, 1)[:, order]
    mass = torch.stack([one.prior_mass for one in found]).prod(0)
    return Quadrature(**sums, prior_mass=mass, _outermost=(), _axes=tuple(model.axes))


def _terms(expression: Expr, ranges: dict[Symbol, Set]) -> list[Expr]:
    """The terms of a sum, logarithms of products apart where no factor is ever negative."""
    found: list[Expr] = []
    for term in Add.make_args(sympy.expand_mul(expression, deep=False)):
        inside = term.args[-1] if isinstance(term, xlogy | sympy.log) else sympy.S.One
        factors = Mul.make_args(inside)
        if len(factors) > 1 and all(_never_negative(factor, ranges) for factor in factors):
            found += [term.func(*term.args[:-1], factor) for factor in factors]
        else:
            found.append(term)
    return found


def _never_negative(factor: Expr, ranges: dict[Symbol, Set]) -> bool:
    """Whether a factor is at least 0: by what SymPy knows, or for a line by both its ends."""
    if factor.is_nonnegative:
        return True
    mentioned = list(factor.free_symbols)
    if len(mentioned) != 1 or mentioned[0] not in ranges or not factor.is_polynomial(*mentioned):
        return False
    ends = (ranges[mentioned[0]].inf, ranges[mentioned[0]].sup)
    line = sympy.degree(factor, mentioned[0]) == 1 and all(end.is_finite for end in ends)
    return line and all(bool(factor.subs(mentioned[0], end) >= 0) for end in ends)

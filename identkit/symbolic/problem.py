"""The question behind every check: which unknowns does a summary κ of the law determine?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sympy import Expr, Set, Symbol

from identkit.symbolic.support import is_discrete


@dataclass(frozen=True)
class Problem:
    """Unknowns u with their domains, and κ(u): equal κ means equal law.

    Attributes:
        unknowns: what is asked about; continuous, each with an open domain.
        domains: where unknowns and known symbols lie.
        summary: κ, expressions of unknowns and known symbols.
        known: generic but known: fixed parameters in the latent question, covariates.
        exhaustive: whether equal laws also mean equal κ; without it only invariances of κ prove anything.
        constraints: expressions of the unknowns that are 0.
        log_prior: ``log p(z; θ)`` of the latents among the unknowns, where symmetries are to be compared with it.
        latents: which of the unknowns are latents.
        inequalities: expressions of unknowns and known symbols that are positive, beside the domains.
        closed: unknowns and known symbols whose domain, given here by its interior, contains an end.
    """

    unknowns: tuple[Symbol, ...]
    domains: Mapping[Symbol, Set]
    summary: tuple[Expr, ...]
    known: tuple[Symbol, ...] = ()
    exhaustive: bool = True
    constraints: tuple[Expr, ...] = ()
    log_prior: Expr | None = None
    latents: tuple[Symbol, ...] = ()
    inequalities: tuple[Expr, ...] = ()
    closed: frozenset[Symbol] = frozenset()

    @property
    def whole(self) -> frozenset[Symbol]:
        """Unknowns and known symbols that take whole numbers only: no calculus applies to them."""
        return frozenset(
            s for s in (*self.unknowns, *self.known) if s in self.domains and is_discrete(self.domains[s])
        )

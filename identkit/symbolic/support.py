"""Where the latents lie under the prior: the joint states of positive mass, and which counts really take every value.

A claim about a latent is a claim on the support of the prior (theory/T2): states that the prior excludes can neither
be merged nor told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import sympy
from sympy import Expr, Integer, S, Set, Symbol

from identkit.model import families
from identkit.model.model import Model
from identkit.model.statement import Statement
from identkit.symbolic.field import nonzero_point, vanishes
from identkit.symbolic.regularity import analytic

State = Mapping[Symbol, Integer]


def all_domains(model: Model) -> dict[Symbol, Set]:
    """The domain of every parameter and the support of every latent."""
    return {**model.domains, **{symbol: model.support(symbol) for symbol in model.latent_symbols}}


def is_finite(support: Set) -> bool:
    """Whether a latent has finitely many values."""
    return support.is_FiniteSet or (isinstance(support, sympy.Range) and bool(support.size.is_finite))


def is_discrete(domain: Set) -> bool:
    """Whether a domain has isolated points, each of which may matter."""
    return domain.is_FiniteSet is True or bool(domain.is_subset(S.Integers))


def almost_never_zero(expression: Expr, domains: Mapping[Symbol, Set]) -> bool:
    """Whether the expression is proved to differ from 0 at almost every point of the domains.

    One point proves it for an analytic expression; not where a symbol takes whole values only, for each of these
    has positive mass.
    """
    if expression.is_nonzero is True:
        return True
    if any(is_discrete(domains[symbol]) for symbol in expression.free_symbols):  # type: ignore[index]
        return False
    return analytic(expression, domains) and nonzero_point(expression, domains) is not None


def supported_states(model: Model, finite: Sequence[Symbol]) -> list[State] | None:
    """The joint states of the finite latents that have positive prior mass; None where that was not decided."""
    domains = all_domains(model)
    statements = [s for s in model.latents if set(s.symbols) <= set(finite)]
    states: list[State] = []
    known: dict[Expr, bool | None] = {}
    seen: dict[tuple[int, tuple[Expr, ...]], Expr] = {}
    enters = [
        [s for s in finite if s in statement.symbols or s in statement.family.free_symbols]
        for statement in statements
    ]
    for values in product(*[list(model.support(symbol)) for symbol in finite]):
        state = dict(zip(finite, values, strict=True))
        masses = []
        for place, statement in enumerate(statements):
            key = (place, tuple(state[symbol] for symbol in enters[place]))
            if key not in seen:
                seen[key] = _mass(statement, state)
            masses.append(seen[key])
        for mass in masses:
            if mass not in known:
                known[mass] = False if vanishes(mass) else True if almost_never_zero(mass, domains) else None
        verdicts = [known[mass] for mass in masses]
        if False in verdicts:
            continue
        if None in verdicts and nonzero_point(sympy.Mul(*masses), domains) is None:
            return None
        states.append(state)
    return states


def takes_every_value(model: Model, latent: Symbol) -> bool:
    """Whether a latent that is not finite has its whole support, whatever the values of the others.

    A count with a rate that may be 0, or at most another latent, is pinned down in some states; the coordinates of
    a Dirichlet draw are pinned down by one another.
    """
    family = next(s.family for s in model.latents if latent in s.symbols)
    if not is_discrete(model.support(latent)):
        # A mixture of Uniform(0, 1) and Uniform(2, 3) leaves a gap in the interval that the two span.
        whole = [weight for weight, part in _parts(family) if part.support == model.support(latent)]
        return not on_simplex(family) and any(almost_never_zero(w, all_domains(model)) for w in whole)
    domains = all_domains(model)
    return any(
        isinstance(part, families.Poisson | families.Geometric | families.NegativeBinomial)
        and almost_never_zero(weight, domains)
        and almost_never_zero(_spread(part), domains)
        for weight, part in _parts(family)
    )


def on_simplex(family: families.Family) -> bool:
    """Whether a draw's coordinates add up to something, so that they fill no box."""
    return family.total is not None


def simplexes(model: Model) -> list[tuple[Symbol, ...]]:
    """The latents that a continuous prior makes add up to something, draw by draw; counts that do are states."""
    return [
        st.symbols for st in model.latents if on_simplex(st.family) and not is_discrete(st.family.support)
    ]


def dimension_inside(
    model: Model, directions: Sequence[Mapping[Symbol, Expr]], latents: Sequence[Symbol]
) -> int:
    """The dimension of what some directions span, as far as it leads out of no simplex of the prior.

    >>> import identkit as ik
    >>> model = ik.parse("p[3] ~ Dirichlet(1, 1, 1); z ~ Normal(0, 1); observe x ~ Normal(z, 1)")
    >>> dimension_inside(model, [{s: S.One} for s in model.latent_symbols], model.latent_symbols)
    3
    """
    if not directions:
        return 0
    rows = sympy.Matrix([[direction.get(s, S.Zero) for s in latents] for direction in directions])
    groups = [group for group in simplexes(model) if set(group) <= set(latents)]
    sums = sympy.Matrix([[Integer(s in group) for group in groups] for s in latents])
    return rows.rank() - (rows * sums).rank() if groups else rows.rank()


def _spread(part: families.Family) -> Expr:
    """0 iff a count has one value only (for families not named here: always, so that nothing is concluded)."""
    if isinstance(part, families.Poisson):
        return part.arguments[0]
    if isinstance(part, families.Binomial):
        return sympy.Mul(part.arguments[0], part.arguments[1], 1 - part.arguments[1])
    return (
        1 - part.arguments[-1] if isinstance(part, families.Geometric | families.NegativeBinomial) else S.Zero
    )


def varies(model: Model, latent: Symbol) -> bool:
    """Whether a latent that is not finite is proved to take more than one value with positive probability."""
    family = next(s.family for s in model.latents if latent in s.symbols)
    if not is_discrete(model.support(latent)):
        return True
    domains = all_domains(model)
    return any(nonzero_point(weight * _spread(part), domains) is not None for weight, part in _parts(family))


def _parts(family: families.Family) -> list[tuple[Expr, families.Family]]:
    if isinstance(family, families.Mixture):
        return list(zip(family.weights, family.components, strict=True))
    return [(S.One, family)]


def _mass(statement: Statement, state: State) -> Expr:
    family = statement.family.map(lambda expression: expression.xreplace(dict(state)))
    return probability(family, *[state[symbol] for symbol in statement.symbols])


def probability(family: families.Family, *value: Expr) -> Expr:
    """``p(value)`` of a discrete family, with 0⁰ = 1 (a log density would say −∞ − ∞ of impossible outcomes)."""
    if isinstance(family, families.Mixture):
        parts = zip(family.weights, family.components, strict=True)
        return sympy.Add(*[weight * probability(part, *value) for weight, part in parts if weight != 0])
    if isinstance(family, families.Multinomial):
        n, *p = family.arguments
        if not n.is_Integer:
            raise TypeError(f"a Multinomial with n = {n} has no table of probabilities")
        if sum(value) != n:
            return S.Zero
        powers = sympy.Mul(*[q**count for q, count in zip(p, value, strict=True)])
        return sympy.factorial(n) / sympy.Mul(*map(sympy.factorial, value)) * powers
    if isinstance(family, families.Dirichlet):
        raise TypeError("Dirichlet has a density, not probabilities of single values")
    (x,) = value
    if isinstance(family, families.Bernoulli):
        (p,) = family.arguments
        return {S.Zero: 1 - p, S.One: p}.get(x, S.Zero)
    if isinstance(family, families.Categorical):
        return family.arguments[int(x) - 1] if 1 <= x <= len(family.arguments) else S.Zero
    if isinstance(family, families.Binomial):
        n, p = family.arguments
        if n.is_Integer and x > n:
            return S.Zero
        return sympy.binomial(n, x) * p**x * (1 - p) ** (n - x)
    if isinstance(family, families.Poisson):
        (rate,) = family.arguments
        return rate**x * sympy.exp(-rate) / sympy.factorial(x)
    if isinstance(family, families.Geometric):
        (p,) = family.arguments
        return p * (1 - p) ** x
    if isinstance(family, families.NegativeBinomial):
        r, p = family.arguments
        return sympy.binomial(x + r - 1, x) * p**r * (1 - p) ** x
    raise TypeError(f"{family.name} has a density, not probabilities of single values")

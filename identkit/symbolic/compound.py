"""Laws with continuous latents integrated out where a theorem says what remains: one `Member` for one block.

Besides the linear-Gaussian case these are mixed laws. If x_j given V_j is Poisson(V_j), Exponential(V_j) or
N(m_j, V_j), independent given V, then the law of x is a Laplace transform of the law of V,
``E exp(−Σ t_j V_j)`` at t_j = 1 − s_j (generating function), t_j (survival function) or s_j²/2
(characteristic function of x_j − m_j; m_j is the centre of symmetry). A Laplace transform on an open set
determines the law, so x determines the law of V = (V_1, …, V_n), and conversely (Feller 1943 for the
Poisson case). Normal observations that share latents with V join in: x and V are then determined together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import sympy
from sympy import Expr, S, Symbol

from identkit.model import families
from identkit.model.noise_free import Exactly
from identkit.model.statement import Statement
from identkit.symbolic.blocks import Block
from identkit.symbolic.gaussian import mean_and_noise, propagate

INDEPENDENT: dict[type[families.Family], str] = {
    families.Poisson: "Teicher 1961",
    families.Exponential: "Teicher 1961",
    families.Gamma: "Teicher 1963",
    families.InverseGamma: "Teicher 1963, for the reciprocals",
    families.Geometric: "Yakowitz & Spragins 1968",
    families.NegativeBinomial: "Yakowitz & Spragins 1968",
    families.Cauchy: "Yakowitz & Spragins 1968",
    # e^{imt}/(1 + b²t²): exponentials are independent over rational functions; these have distinct poles.
    families.Laplace: "by characteristic functions",
}
"""Families of which any distinct members are linearly independent.

Beta and Uniform are not: Beta(1, 2)/2 + Beta(2, 1)/2 = Beta(1, 1), U(0, 1)/2 + U(1, 2)/2 = U(0, 2).
"""

_MIXING = "the mixing law"


@dataclass(frozen=True)
class Member:
    """The law of a block as one member of a family.

    Attributes:
        kind: the family; coordinates of one kind can be compared.
        coordinates: equal iff the laws are equal, whatever the parameters.
        method: the theorem.
        independent: whether distinct members are linearly independent: then finite mixtures are
            identifiable.
        simple: shorter coordinates that serve as well for this member; empty if there are none.
    """

    kind: tuple[Any, ...]
    coordinates: tuple[Expr, ...]
    method: str
    independent: bool = True
    simple: tuple[Expr, ...] = ()


def member(block: Block) -> Member | None:
    """The law of observations with continuous latents (or none) integrated out; None without a theorem.

    >>> import identkit as ik
    >>> from identkit.symbolic.blocks import blocks
    >>> member(blocks(ik.parse("h ~ Normal(0, q); observe x ~ Poisson(exp(m + h))"))[0]).simple
    (m, q**2)
    """
    if not block.latents and len(block.observations) == 1:
        plain = _plain(block.observations[0].family)
        if plain is not None:
            return plain
    return _gaussian(block) or _thinned(block) or _scaled(block)


def _plain(family: families.Family) -> Member | None:
    if type(family) in INDEPENDENT:
        method = f"one member of the {family.name} family (finite mixtures: {INDEPENDENT[type(family)]})"
        return Member((family.name,), tuple(family.law), method)
    if mean_and_noise(family) is not None:
        return None
    method = f"one member of the {family.name} family"
    return Member((family.name,), tuple(family.law), method, independent=False)


# Normal latents: x and log V are jointly normal


def _gaussian(block: Block) -> Member | None:
    written: list[Statement] = []
    factors: list[Expr | None] = []
    centres: list[Expr] = []
    for observation in block.observations:
        if mean_and_noise(observation.family) is not None and not _random_scale(observation, block):
            written.append(observation)
            factors += [None] * len(observation.symbols)
            continue
        split = _log_rate(observation, block)
        if split is None:
            return None
        factor, exponent, centre = split
        written.append(Statement(observation.symbols, Exactly(exponent)))
        factors.append(factor)
        centres += centre
    law = propagate([*block.latents, *written])
    if law is None:
        return None
    means, covariances = law.of([symbol for statement in written for symbol in statement.symbols])
    method = "a normal law is its mean and covariance (theory/T6; finite mixtures: Yakowitz & Spragins 1968)"
    rates = [factor for factor in factors if factor is not None]
    if rates:
        method = (
            f"{_MIXING} is determined (Laplace transform; Feller 1943); its logarithm is normal; {method}"
        )
    # log V = log k + η: k·exp(E η) tells its mean apart and stays algebraic in k.
    scaled = [m if k is None else k * sympy.exp(m) for m, k in zip(means, factors, strict=True)]
    plain = (*means, *centres, *covariances) if rates and all(k == 1 for k in rates) else ()
    kind = ("normal", *[factor is None for factor in factors])
    return Member(kind, (*scaled, *centres, *covariances), method, not centres, plain)


def _random_scale(observation: Statement, block: Block) -> bool:
    family = observation.family
    return isinstance(family, families.Normal) and bool(family.arguments[1].free_symbols & set(block.symbols))


def _log_rate(observation: Statement, block: Block) -> tuple[Expr, Expr, list[Expr]] | None:
    """``k, η`` with V = k·exp(η), k > 0 without latents; and the centre of a normal observation."""
    rate = _rate(observation, block)
    if rate is None:
        return None
    value, centre, never_zero = rate
    factors = sympy.Mul.make_args(value)
    outside = [f for f in factors if not f.free_symbols & set(block.symbols)]
    inside = [f for f in factors if f.free_symbols & set(block.symbols)]
    factor = sympy.Mul(*outside)
    if not (never_zero or factor.is_positive) or any(not isinstance(f, sympy.exp) for f in inside):
        return None
    return factor, sympy.Add(*[f.args[0] for f in inside]), centre


def _rate(observation: Statement, block: Block) -> tuple[Expr, list[Expr], bool] | None:
    """V as an expression of the latents; the centre of a normal observation; whether V > 0 in every model.

    A scale and an exponential rate must be positive for the model to make sense, a Poisson rate may be 0.
    """
    family = observation.family
    if isinstance(family, families.Poisson | families.Exponential):
        return family.arguments[0], [], isinstance(family, families.Exponential)
    if isinstance(family, families.Normal):
        mean, sd = family.arguments
        return None if mean.free_symbols & set(block.symbols) else (sd**2, [mean], True)
    return None


# One scale-family latent: V_j = k_j Z^p


def _scaled(block: Block) -> Member | None:
    if len(block.latents) != 1:
        return None
    (latent,) = block.latents
    standard = _scale_family(latent.family)
    if standard is None:
        return None
    shape, scale = standard
    (z,) = latent.symbols
    ratios: list[Expr] = []
    powers: set[Expr] = set()
    centres: list[Expr] = []
    positive = True
    for observation in block.observations:
        rate = _rate(observation, block)
        if rate is None:
            return None
        value, centre, never_zero = rate
        factor, power = _monomial(value, z)
        if power is None:
            return None
        positive &= never_zero or factor.is_positive is True
        ratios.append(factor * scale**power)
        powers.add(power)
        centres += centre
    if len(powers) != 1:
        return None
    (power,) = powers
    kind = (latent.family.name, power)
    method = f"{_MIXING}, of a scaled {latent.family.name}, is determined (Laplace transform; Feller 1943)"
    # Where all k_j > 0, V lies on the ray through the ratios k_j/bᵖ; members on different rays are singular
    # to one another, and those on one ray are powers of gammas, hence independent (Teicher 1963).
    simple = (*shape, *ratios, *centres) if positive else ()
    if power == 1 and not isinstance(latent.family, families.InverseGamma):
        # −log E exp(−Σ t_j V_j) = a log(1 + Σ t_j r_j): the cumulants a r_j, a r_j² serve at r_j = 0 too,
        # where the law no longer knows a.
        a = shape[0] if shape else S.One
        cumulants = [*[a * r for r in ratios], *([a * r**2 for r in ratios] if shape else [])]
        return Member(kind, (*cumulants, *centres), method, not centres, simple)
    return Member(kind, simple, method, not centres) if positive else None


def _scale_family(family: families.Family) -> tuple[tuple[Expr, ...], Expr] | None:
    if isinstance(family, families.Gamma):
        shape, rate = family.arguments
        return (shape,), 1 / rate
    if isinstance(family, families.Exponential):
        return (), 1 / family.arguments[0]
    if isinstance(family, families.InverseGamma):
        shape, scale = family.arguments
        return (shape,), scale
    return None


def _monomial(value: Expr, z: Symbol) -> tuple[Expr, Expr | None]:
    """``k, p`` with value = k z^p for a positive z; p None if it is no such monomial."""
    if value == 0:
        return S.Zero, S.One
    factor, rest = sympy.expand_power_base(value).as_independent(z, as_Add=False)
    power = S.One if rest == z else rest.exp if isinstance(rest, sympy.Pow) and rest.base == z else None
    return factor, power if power is not None and power.is_Rational else None


# A Poisson number of individuals, each seen or not


def _thinned(block: Block) -> Member | None:
    if len(block.latents) != 1 or not isinstance(block.latents[0].family, families.Poisson):
        return None
    (count,) = block.latents[0].symbols
    (rate,) = block.latents[0].family.arguments
    chances = []
    for observation in block.observations:
        if not isinstance(observation.family, families.Binomial) or observation.family.arguments[0] != count:
            return None
        chances.append(observation.family.arguments[1])
    if any(chance.has(count) for chance in chances) or len(chances) > 10:
        return None
    # log E Π (1 + u_t)^{x_t} = rate (Π (1 + p_t u_t) − 1): one coefficient for every set of visits.
    # Exponentials of distinct polynomials without constant term are linearly independent.
    sizes = range(1, len(chances) + 1)
    coefficients = [rate * sympy.Mul(*chosen) for size in sizes for chosen in combinations(chances, size)]
    method = "the factorial cumulants of a thinned Poisson count"
    return Member(("thinned", len(chances)), tuple(coefficients), method)

"""T3, coordinates: the likelihood ignores z_S iff z_S is conditionally unmoved; its marginal may stay for other reasons.

Setting. As in T1, with ``z = (z_S, z_R)``. The likelihood *ignores z_S* when it is P-a.e. a function of z_R.

Theorem. (i) p(x | z) ignores z_S  ⇔  ``p(z_S | z_R, x) = p(z_S | z_R)`` for a.e. z_R under the posterior.
(ii) If moreover z_S and z_R are independent a priori, the marginal collapses: ``p(z_S | x) = p(z_S)``.

Proof. (i) is T2 with π(z) = z_R: z given z_R is z_S given z_R. (ii) ``p(z_S | x) = ∫ p(z_S | z_R, x) p(z_R | x) dz_R
= ∫ p(z_S) p(z_R | x) dz_R = p(z_S)``.  ∎

The trap: the converse of (ii) is false. Fair independent signs z₁, z₂ and x ~ N(z₁z₂, σ²). Given z₁ = ±1, z₁z₂ is a
fair sign, so ``p(x | z₁)`` is the same mixture for both values, likewise for z₂: both marginals equal the prior at
every x. Yet the likelihood u = φ(x − 1) on z₁ = z₂ differs from v = φ(x + 1) on z₁ ≠ z₂ unless x = 0, so neither
coordinate is ignored and the joint posterior ``(u, v, v, u)/2(u + v)`` is not the prior.
Without independence (ii) fails: z₁ = z₂ fair, a likelihood of z₂ alone moves the marginal of z₁ although it ignores z₁.

Directions. In ``x ~ N(w(z₁ + z₂), σ²)``, z ~ N(0, I) (duplicate PPCA columns), (z₁ − z₂)/√2 is N(0, 1) before and
after, while no coordinate is ignored: ignored directions need not be coordinates. So joint, directions and statistics
are reported apart.

Source: identkit's own; the signs are the textbook example of pairwise without joint independence (Bernstein).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import sympy

from theory.finite import a_function_of, posterior, random_heights, random_law
from theory.frame import Checked, draws, tried
from theory.reals import a_law, every, implied, proved, reals
from theory.t2_fibres import repeats_prior


def cells(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The states (z_S, z_R) of a table."""
    return list(itertools.product(range(size[0]), range(size[1])))


def ignored_iff_conditionally_unmoved(share: float = 1.0, claim: int = 1) -> Checked:
    """Random tables, half of the likelihoods planted; `claim`: which coordinate the likelihood may depend on."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(1500, share, "T3"):
            table = cells((rng.randint(2, 3), rng.randint(2, 3)))
            prior = random_law(rng, len(table))
            heights = random_heights(rng, len(table))
            if rng.random() < 0.5:
                heights = tuple(heights[z_r] for _, z_r in table)
            after = posterior(prior, heights)
            if after is None:
                continue
            labels = [z_r for _, z_r in table]
            function = a_function_of(heights, [cell[claim] for cell in table], prior)
            yield repeats_prior(prior, after, labels) is function, f"P = {prior}, L = {heights}"

    return tried("T3", "the likelihood ignores z_S iff p(z_S | z_R, x) = p(z_S | z_R)", "exact", outcomes())


def _table(states: tuple[int, int]) -> tuple[list[tuple[int, int]], list[Any], list[Any], list[Any]]:
    """Cells, prior, posterior and the constraints of a general model on a table, by Bayes' rule without division."""
    table = cells(states)
    p, q, l = (reals(name, len(table)) for name in "pql")
    (total,) = reals("total", 1)
    model = [*a_law(p), *a_law(q), *[height >= 0 for height in l], total > 0]
    model += [q[i] * total == p[i] * l[i] for i in range(len(table))]
    # z_S is ignored: states with one z_R and positive mass have one likelihood.
    model += [
        (p[i] == 0) | (p[j] == 0) | (l[i] == l[j])
        for i, j in itertools.combinations(range(len(table)), 2)
        if table[i][1] == table[j][1]
    ]
    return table, p, q, model


def marginal_collapses(share: float = 1.0, claim: bool = True) -> Checked:
    """Every 2×2 and 3×2 table in which z_S is ignored; `claim`: that z_S and z_R are independent a priori."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for states in ((2, 2), (3, 2)) if share >= 1 else ((2, 2),):
            table, p, q, model = _table(states)

            def mass(law: list[Any], axis: int, value: int, table: Any = table) -> Any:
                return sum(law[i] for i, cell in enumerate(table) if cell[axis] == value)

            product = [p[i] == mass(p, 0, s) * mass(p, 1, r) for i, (s, r) in enumerate(table)]
            same = every([mass(q, 0, s) == mass(p, 0, s) for s in range(states[0])])
            yield proved([*model, *(product if claim else [])], same), f"{states[0]}×{states[1]}"

    return tried("T3", "ignored and independent a priori: the marginal collapses", "z3", outcomes())


def signs_are_a_trap(share: float = 1.0, claim: Fraction = Fraction(1, 4)) -> Checked:
    """Both marginals stay for every u, v; joint and conditionals move iff u ≠ v; `claim`: the mass of (1, 1)."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        rest = (1 - claim) / 3
        prior = (claim, rest, rest, rest)
        signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
        for rng in draws(200, share, "T3 signs"):
            u, v = (Fraction(rng.randint(1, 6), rng.randint(1, 3)) for _ in range(2))
            heights = [u if a == b else v for a, b in signs]
            after = posterior(prior, heights)
            assert after is not None
            marginals = [sum(m for m, z in zip(after, signs, strict=True) if z[axis] == 1) for axis in (0, 1)]
            met = marginals == [Fraction(1, 2)] * 2 and (after == prior) is (u == v)
            for axis in (0, 1):
                given = [z[1 - axis] for z in signs]
                met = met and repeats_prior(prior, after, given) is (u == v)
            yield met, f"u = {u}, v = {v}"

    return tried("T3", "the signs: marginals never move, the joint does", "exact", outcomes())


def marginals_prove_nothing(share: float = 1.0, claim: bool = False) -> Checked:
    """z3 finds no proof that unmoved marginals of a uniform prior mean collapse; `claim`: that it does."""
    p, l, q = (reals(name, 4) for name in "plq")
    (total,) = reals("total", 1)
    model = [*[mass == Fraction(1, 4) for mass in p], *[height > 0 for height in l]]
    model += [q[i] * total == p[i] * l[i] for i in range(4)] + [total == sum(p[i] * l[i] for i in range(4))]
    unmoved = [q[0] + q[1] == Fraction(1, 2), q[0] + q[2] == Fraction(1, 2)]
    all_same = every([q[i] == p[i] for i in range(4)])
    # What does follow: the posterior is symmetric, (a, ½ − a, ½ − a, a).
    symmetric = every([q[0] == q[3], q[1] == q[2]])
    outcomes = [
        (proved([*model, *unmoved], all_same) is claim, "unmoved marginals"),
        (proved([*model, *unmoved], symmetric), "they leave one parameter free"),
        (proved([*model, *unmoved], implied(l[0] == l[1], all_same)), "which is 0 iff l₁ = l₂"),
    ]
    return tried("T3", "unmoved marginals leave exactly one way to be informed (2×2)", "z3", outcomes)


def dependence_moves_the_ignored(share: float = 1.0, claim: Fraction = Fraction(0)) -> Checked:
    """z₁ = z₂ with probability 1 − 2·claim: a likelihood of z₂ alone moves z₁'s marginal."""
    prior = (Fraction(1, 2) - claim, claim, claim, Fraction(1, 2) - claim)
    after = posterior(prior, (Fraction(1), Fraction(3), Fraction(1), Fraction(3)))
    assert after is not None
    met = repeats_prior(prior, after, (0, 1, 0, 1)) and after[0] + after[1] != prior[0] + prior[1]
    return tried(
        "T3", "dependent priors: an ignored coordinate's marginal moves", "exact", [(met, str(after))]
    )


def directions_are_not_coordinates(share: float = 1.0, claim: int = -1) -> Checked:
    """Duplicate columns: precision ``I + (w²/σ²) 11ᵀ``; `claim`: the direction (1, claim) stays N(0, I)."""
    w, sigma, x = sympy.symbols("w sigma x", positive=True)
    loading = sympy.Matrix([[w, w]])
    covariance = (sympy.eye(2) + loading.T * loading / sigma**2).inv()
    mean = covariance * loading.T * x / sigma**2
    direction = sympy.Matrix([1, claim]) / sympy.sqrt(2)
    outcomes = [
        (sympy.simplify((direction.T * covariance * direction)[0] - 1) == 0, "variance along the direction"),
        (sympy.simplify((direction.T * mean)[0]) == 0, "mean along the direction"),
        *[
            (sympy.simplify(1 - covariance[j, j]).is_positive is True, f"variance of z{j + 1} shrinks")
            for j in (0, 1)
        ],
        *[
            (sympy.simplify(1 - 1 / covariance.inv()[j, j]).is_positive is True, f"z{j + 1} given the other")
            for j in (0, 1)
        ],
    ]
    return tried("T3", "duplicate columns: a direction collapses, no coordinate does", "symbolic", outcomes)


CHECKS = (
    ignored_iff_conditionally_unmoved,
    marginal_collapses,
    signs_are_a_trap,
    marginals_prove_nothing,
    dependence_moves_the_ignored,
    directions_are_not_coordinates,
)

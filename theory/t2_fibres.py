"""T2, the fibre theorem: the posterior repeats the prior along the fibres of π iff the likelihood is a function of π.

Setting. As in T1, ``L = p(x | ·)``, ``dQ/dP = L/p(x)``, ``0 < p(x) < ∞``. ``π : Z → W`` is measurable between standard
Borel spaces, so that conditional laws ``P(· | w)``, ``Q(· | w)`` given π = w exist, unique for almost every w under the
image laws ``π#P`` and ``π#Q``.

Theorem. ``L`` is P-a.e. a function of π(z)  ⇔  ``Q(· | w) = P(· | w)`` for π#Q-almost every w.

Proof. Put ``L̄(w) = E_P[L | π = w]``. For measurable A ⊂ Z and B ⊂ W, conditioning on π gives
    ``p(x) Q(A, π ∈ B) = E_P[L 1_A 1_B(π)] = ∫_B E_P[L 1_A | w] π#P(dw)``.
With A = Z: ``dπ#Q/dπ#P = L̄/p(x)``, so that L̄ > 0 holds π#Q-a.e. Dividing, for π#Q-a.e. w,
    (*)  ``dQ(· | w)/dP(· | w) = L/L̄(w)``,  P(· | w)-a.e.
(⇒) If L = g(π) P-a.e., then L̄ = g, and the density in (*) is 1.
(⇐) If the density in (*) is 1 for π#Q-a.e. w, then L = L̄(w) P(· | w)-a.e. for π#P-a.e. w with L̄(w) > 0. Where
L̄(w) = 0, the non-negative L has mean 0 under P(· | w), so L = 0 = L̄(w) there too. Hence L = L̄(π) P-a.e.  ∎
So ``log L = −∞`` on a set of positive mass is allowed. T1 is π = constant.

Chain rule. ``KL(Q‖P) = KL(π#Q‖π#P) + E_Q KL(Q(· | π)‖P(· | π))``: the density factors,
``dQ/dP = (dπ#Q/dπ#P)(π) · dQ(· | π)/dP(· | π)``; take logarithms and E_Q (both parts have integrable negative parts, so
this holds in [0, ∞]). The second term is 0 exactly where the theorem applies: all information arrives through π.

All x at once. Let ν dominate the laws, p(x | z) jointly measurable. π serves ν-a.e. x  ⇔  the law ``p(· | z)`` is P-a.e. a
function of π(z); so ``z ↦ p(· | z)`` is the coarsest π that serves (the minimal sufficient one, P-a.e.).
(⇐) If law(z) = Λ(π(z)), one jointly measurable density g(x, w) of Λ(w) serves: p(x | z) = g(x, π(z)) for ν-a.e. x, for
P-a.e. z; exchange by Fubini. (⇒) With g(x, w) = E_P[p(x | z) | π = w], p(x | z) = g(x, π(z)) for ν×P-a.e. (x, z); so
for P-a.e. z the two are the same function of x ν-a.e., that is the same law.
*Every* x would be too much: a density may be altered on a ν-null set of x, differently for each z, without changing any
law. It is right when all p(· | z) are continuous in x on the support of ν, and for discrete x with every mass positive.

Source: the factorisation theorem (Halmos & Savage 1949); the chain rule is in Cover & Thomas 2006, Theorem 2.5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import mpmath

from theory.finite import (
    DIGITS,
    a_function_of,
    divergence,
    partitions,
    posterior,
    pushed,
    random_heights,
    random_labels,
    random_law,
    within,
)
from theory.frame import Checked, draws, tried
from theory.reals import a_law, every, iff, proved, reals

FunctionOf = Callable[[Sequence[Fraction], Sequence[int], Sequence[Fraction]], bool]


def repeats_prior(prior: Sequence[Fraction], after: Sequence[Fraction], labels: Sequence[int]) -> bool:
    """Whether the posterior's law within each fibre of positive posterior mass is the prior's."""
    pairs = zip(within(prior, labels), within(after, labels), strict=True)
    return all(q is None or q == p for p, q in pairs)


def repeats_iff_function_of_the_map(share: float = 1.0, claim: FunctionOf = a_function_of) -> Checked:
    """Random models and maps, half of the likelihoods planted as functions of π; some are 0 on whole fibres."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(2000, share, "T2"):
            prior = random_law(rng, rng.randint(1, 7))
            labels = random_labels(rng, len(prior))
            heights = random_heights(rng, len(prior))
            if rng.random() < 0.5:
                heights = tuple(heights[label] for label in labels)
            after = posterior(prior, heights)
            if after is not None:
                met = repeats_prior(prior, after, labels) is claim(heights, labels, prior)
                yield met, f"P = {prior}, L = {heights}, π = {labels}"

    return tried(
        "T2", "the posterior is the prior in each fibre iff L is a function of π", "exact", outcomes()
    )


def fibres_proved(share: float = 1.0, claim: bool = True) -> Checked:
    """Every map of 2, 3 and 4 states, every model; `claim`: that fibres without posterior mass are left out."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for states in (2, 3, 4) if share >= 1 else (2, 3):
            p, q, l = (reals(name, states) for name in "pql")
            (total,) = reals("total", 1)
            model = [*a_law(p), *a_law(q), *[height >= 0 for height in l], total > 0]
            bayes = [q[i] * total == p[i] * l[i] for i in range(states)]
            for labels in partitions(states):
                blocks = [[i for i in range(states) if labels[i] == b] for b in range(max(labels) + 1)]
                same = every([_same_within(p, q, block, claim) for block in blocks])
                pairs = [(i, j) for block in blocks for i in block for j in block if i < j]
                function = every([(p[i] == 0) | (p[j] == 0) | (l[i] == l[j]) for i, j in pairs])
                yield proved([*model, *bayes], iff(same, function)), f"π = {labels}"

    return tried("T2", "the same for every model and map with up to four states", "z3", outcomes())


def _same_within(p: list[Any], q: list[Any], block: list[int], skip: bool) -> Any:
    """``q_i/Q(block) = p_i/P(block)``, multiplied out, where Q(block) > 0; `skip` False also asks q = p where it is 0."""
    before, after = sum(p[i] for i in block), sum(q[i] for i in block)
    same = every([q[i] * before == p[i] * after for i in block])
    return (after == 0) | same if skip else every([same, (after > 0) | (before == 0)])


def densities_factor(share: float = 1.0, claim: bool = True) -> Checked:
    """``dQ/dP = (dπ#Q/dπ#P)·(dQ(·|π)/dP(·|π))`` state by state, and (*); `claim`: that both factors enter."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(600, share, "T2 chain"):
            prior = random_law(rng, rng.randint(1, 7))
            labels = random_labels(rng, len(prior))
            heights = random_heights(rng, len(prior))
            after = posterior(prior, heights)
            if after is None:
                continue
            outer, inner = (pushed(law, labels) for law in (after, prior))
            mean = pushed([p * l for p, l in zip(prior, heights, strict=True)], labels)
            for z, (q, p) in enumerate(zip(after, prior, strict=True)):
                if not q:
                    continue
                fibre = labels[z]
                conditional = (q / outer[fibre]) / (p / inner[fibre])
                met = q / p == (outer[fibre] / inner[fibre] if claim else 1) * conditional
                met = met and conditional == heights[z] / (mean[fibre] / inner[fibre])
                yield met, f"P = {prior}, L = {heights}, π = {labels}, z = {z}"

    return tried("T2", "the density factors along π, and within a fibre it is L/L̄", "exact", outcomes())


def chain_rule(share: float = 1.0, claim: int = 1) -> Checked:
    """The divergence splits in two, and the second part is 0 iff L is a function of π; `claim`: its weight."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        with mpmath.workdps(DIGITS):
            for rng in draws(300, share, "T2 chain rule"):
                prior = random_law(rng, rng.randint(2, 6))
                labels = random_labels(rng, len(prior))
                heights = random_heights(rng, len(prior))
                after = posterior(prior, heights)
                if after is None:
                    continue
                outer, inner = pushed(after, labels), pushed(prior, labels)
                first = divergence(tuple(outer.values()), tuple(inner.values()))
                second = mpmath.mpf(0)
                for fibre, mass in outer.items():
                    if mass:
                        q = [a / mass for a, label in zip(after, labels, strict=True) if label == fibre]
                        p = [
                            a / inner[fibre] for a, label in zip(prior, labels, strict=True) if label == fibre
                        ]
                        second += mpmath.mpf(mass.numerator) / mass.denominator * divergence(q, p)
                gap = abs(divergence(after, prior) - first - claim * second)
                zero = a_function_of(heights, labels, prior)
                met = gap < mpmath.mpf(10) ** -40 and (abs(second) < mpmath.mpf(10) ** -40) is zero
                yield met, f"P = {prior}, L = {heights}, π = {labels}"

    return tried("T2", "KL(Q‖P) is KL of the images plus the mean KL within fibres", "numeric", outcomes())


def law_is_the_coarsest_map(share: float = 1.0, claim: int = 0) -> Checked:
    """Every map of up to five states serves all x iff the law is a function of it; `claim`: how many x to leave out.

    One may be left out, as masses sum to 1.
    """

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(60, share, "T2 coarsest"):
            states, values = rng.randint(2, 5), rng.randint(2, 3)
            prior = random_law(rng, states)
            pool = [random_law(rng, values) for _ in range(rng.randint(1, 3))]
            laws = [rng.choice(pool) for _ in range(states)]
            number = {law: index for index, law in enumerate(dict.fromkeys(laws))}
            of_law = tuple(Fraction(number[law]) for law in laws)
            for labels in partitions(states):
                serves = True
                for x in range(values - claim):
                    heights = tuple(law[x] for law in laws)
                    after = posterior(prior, heights)
                    serves = serves and (after is None or repeats_prior(prior, after, labels))
                met = serves is a_function_of(of_law, labels, prior)
                yield met, f"P = {prior}, laws {laws}, π = {labels}"

    return tried(
        "T2", "π serves every x of positive mass iff the law is a function of it", "exact", outcomes()
    )


def every_x_is_too_much(share: float = 1.0, claim: Fraction = Fraction(0)) -> Checked:
    """x ∈ {0, 1}, ν = δ₀ + claim·δ₁: density 1 at 0 and z at 1. With claim = 0 all laws are δ₀, yet at 1 Q ≠ P."""
    prior = (Fraction(1, 2), Fraction(1, 2))
    states = (Fraction(1), Fraction(2))
    laws = {tuple(m / (1 + claim * z) for m in (Fraction(1), claim * z)) for z in states}
    met = len(laws) == 1 and posterior(prior, states) != prior
    return tried("T2", "only almost every x: densities may differ on a null set", "exact", [(met, "ν = δ₀")])


CHECKS = (
    repeats_iff_function_of_the_map,
    fibres_proved,
    densities_factor,
    chain_rule,
    law_is_the_coarsest_map,
    every_x_is_too_much,
)

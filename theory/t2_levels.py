"""T2, the ladder: what the fibres of ``z ↦ p(· | z; θ̂)`` look like decides what the user sees.

By the fibre theorem the posterior repeats the prior along the fibres of the law, for almost every x, and along nothing
coarser. Up to P-null sets:

    one fibre                                          CONSTANT   full collapse, for ν-a.e. x
    fibres of positive dimension, with probability > 0 PARTIAL    collapse along them; the rest is informed
    else countable, not single with probability > 0    LOCAL      mirror modes
    single                                             GLOBAL     identifiable

*Up to null sets* means: there is a P-null set N such that the fibres of the law *restricted to the complement of N* are as
named. It is not enough to ask of almost every z how many points of supp P share its law: a null set can be mapped onto
everything. Let f(z) = z off the Cantor set C and f = the Cantor function on C, P uniform on (0, 1). Almost every z shares
f(z) with a point of C, so that its fibre in supp P has two points; yet P(C) = 0, f is injective off C, and z is recovered
from f(z) almost surely. No mirror mode is there. The two readings agree where z ↦ law (in a finite-dimensional
parameter) is locally Lipschitz with a derivative of full rank K at P-a.e. z, and P is equivalent to Lebesgue measure on
supp P: such an f maps a null set N to a set of K-dimensional Hausdorff measure 0, whose preimage has measure 0 where
the rank is K (area formula). Piecewise analytic laws of rank K almost everywhere are of this kind. (Uncountable fibres
of dimension 0 are no level of the ladder; piecewise analytic laws have none.)

*Generic θ.* LOCAL and GLOBAL can each hold on an open set of θ: for ``f(z) = z³ + wz``,
    ``f(z′) − f(z) = (z′ − z)(z′² + z z′ + z² + w)``, whose second factor has discriminant ``−3z² − 4w`` in z′.
w > 0: never a real root, f is injective. w < 0: two roots for ``|z| < 2√(−w/3)``, an interval of positive prior mass.
Rank is different: it is the same off a proper analytic subset of a *connected* parameter domain, for an *analytic* model.

Source: the definitions are identkit's own; the area formula is in Federer 1969, 3.2.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random

import sympy

from identkit import check
from theory.finite import random_law
from theory.frame import Checked, draws, tried
from theory.reals import proved, reals

LADDER = {
    "z ~ Normal(0, 1); observe x ~ Normal(0, 1)": "CONSTANT",
    "a ~ Normal(0, 1); b ~ Normal(0, 1); observe x ~ Normal(a + b, 1)": "PARTIAL",
    "z ~ Normal(0, 1); observe x ~ Normal(z**2, 1)": "LOCAL",
    "z ~ Normal(0, 1); observe x ~ Normal(sin(z), 1)": "LOCAL",
    "z ~ Beta(2, 2); observe x ~ Normal(z**2, 1)": "GLOBAL",
    "z ~ Normal(0, 1); observe x ~ Normal(z**3, 1)": "GLOBAL",
    "z ~ Normal(0, 1); observe x ~ Normal(max(z, 0), 1)": "PARTIAL",
    "z ~ Normal(0, 1); observe x ~ Normal(exp(z), 1)": "GLOBAL",
}
"""One model for each way to a level; the fibres are plain to see."""


def ladder_is_what_the_checker_says(share: float = 1.0, claim: str = "GLOBAL") -> Checked:
    """identkit's verdict on fibres that are plain to see; `claim`: the level of z³."""
    wanted = LADDER | {"z ~ Normal(0, 1); observe x ~ Normal(z**3, 1)": claim}
    outcomes = ((check(text).level.value == level, text) for text, level in wanted.items())
    return tried("T2", "identkit's level is that of the fibres", "symbolic", outcomes)


def merged_states(share: float = 1.0, claim: str = "PARTIAL") -> Checked:
    """Random discrete latents: the level by counting laws against identkit's; `claim`: the level of merged states."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(12, share, "T2 merged"):
            states = rng.randint(2, 4)
            pool = [random_law(rng, 2, zeros=False)[0] for _ in range(3)]
            means = [rng.choice(pool) for _ in range(states)]
            text = _categorical(states, means)
            distinct = len(set(means))
            level = "CONSTANT" if distinct == 1 else "GLOBAL" if distinct == states else claim
            yield check(text).level.value == level, text

    return tried("T2", "discrete latents: merged states are PARTIAL", "symbolic", outcomes())


def _categorical(states: int, means: list[Fraction]) -> str:
    """A latent with as many states and a coin whose bias is given for each."""
    weights = ", ".join([f"1/{states}"] * states)
    cases = ", ".join(str(mean) for mean in means)
    return f"k ~ Categorical({weights}); observe x ~ Bernoulli(select(k, {cases}))"


def cantor_point(digits: list[int]) -> Fraction:
    """The point of the Cantor set whose ternary digits are twice the given binary ones."""
    return sum((Fraction(2 * digit, 3**place) for place, digit in enumerate(digits, 1)), Fraction(0))


def cantor_function(point: Fraction, places: int) -> Fraction:
    """The Cantor function at a point of the set with so many ternary digits: half of each digit, in base two."""
    value = Fraction(0)
    for place in range(1, places + 1):
        digit, point = divmod(point * 3, 1)
        value += Fraction(int(digit), 2 * 2**place)
    return value


def null_sets_have_images(share: float = 1.0, claim: int = 2) -> Checked:
    """Each z off C shares its law with a point of C, of measure lim (2/3)ⁿ = 0; `claim`: the points of such a fibre."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(300, share, "T2 Cantor"):
            digits = _digits(rng)
            z = sum((Fraction(digit, 2**place) for place, digit in enumerate(digits, 1)), Fraction(0))
            image = cantor_point(digits)
            met = cantor_function(image, len(digits)) == z and Fraction(1, 3) < z < Fraction(2, 3)
            yield met and len({z, image}) == claim, f"z = {z}"

    return tried(
        "T2", "almost every fibre may have two points though f is a.s. injective", "exact", outcomes()
    )


def _digits(rng: Random) -> list[int]:
    """Binary digits of a random point; 0.01… with a ternary digit 1, so that it lies off the Cantor set."""
    return [1, 0, 0, *[rng.randint(0, 1) for _ in range(20)], 1]


def cubic_by_its_parameter(share: float = 1.0, claim: int = 4) -> Checked:
    """``z³ + wz``: the factorisation, and over all reals where collisions are; `claim`: the 4 in 3z² + 4w."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        z, other, w = sympy.symbols("z other w", real=True)
        quotient = other**2 + z * other + z**2 + w
        gap = other**3 + w * other - z**3 - w * z
        yield sympy.expand(gap - (other - z) * quotient) == 0, "factorisation"
        yield sympy.expand(sympy.discriminant(quotient, other) + 3 * z**2 + claim * w) == 0, "discriminant"
        a, b, c = reals("u", 3)
        same = a**3 + c * a == b**3 + c * b
        yield proved([c > 0, same], a == b), "w > 0: injective (z3)"
        # Where 3a² + 4w < 0 the root (−a + b)/2 with b² = −3a² − 4w collides with a.
        other_root = (b - a) / 2
        collides = other_root**3 + c * other_root == a**3 + c * a
        yield proved([c < 0, b > 0, b**2 == -3 * a**2 - claim * c], collides), "w < 0: a collision (z3)"

    return tried("T2", "z³ + wz is injective for w > 0, and not on an interval for w < 0", "z3", outcomes())


CHECKS = (
    ladder_is_what_the_checker_says,
    merged_states,
    null_sets_have_images,
    cubic_by_its_parameter,
)

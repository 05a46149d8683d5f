"""Finite models in exact arithmetic: laws, posteriors, images under a map, and laws within its fibres.

A law on states 0 … n − 1 is a tuple of fractions; a map ``π`` of the states is the tuple of its values. What has no
mass has no conditional law: None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from random import Random

import mpmath

Law = tuple[Fraction, ...]

DIGITS = 50
"""Of the logarithms, where a divergence needs them."""


def random_law(rng: Random, states: int, zeros: bool = True) -> Law:
    """Draw a law with small rational masses, some of them 0 if `zeros`."""
    while True:
        counts = [rng.randint(0 if zeros else 1, 6) for _ in range(states)]
        if sum(counts):
            return tuple(Fraction(count, sum(counts)) for count in counts)


def random_heights(rng: Random, states: int) -> tuple[Fraction, ...]:
    """Draw likelihoods ``p(x | z)`` from three values and 0, so that some coincide."""
    pool = [Fraction(0)] + [Fraction(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(3)]
    return tuple(rng.choice(pool) for _ in range(states))


def evidence(prior: Sequence[Fraction], likelihood: Sequence[Fraction]) -> Fraction:
    """``p(x) = Σ p(z) p(x | z)``."""
    return sum((p * l for p, l in zip(prior, likelihood, strict=True)), Fraction(0))


def posterior(prior: Sequence[Fraction], likelihood: Sequence[Fraction]) -> Law | None:
    """``p(z | x) = p(z) p(x | z)/p(x)`` by Bayes' rule; None where p(x) = 0.

    >>> posterior((Fraction(1, 2), Fraction(1, 2)), (Fraction(1), Fraction(3)))
    (Fraction(1, 4), Fraction(3, 4))
    """
    total = evidence(prior, likelihood)
    if total == 0:
        return None
    return tuple(p * l / total for p, l in zip(prior, likelihood, strict=True))


def pushed(law: Sequence[Fraction], labels: Sequence[int]) -> dict[int, Fraction]:
    """The image of a law under the map z ↦ labels[z]."""
    image = dict.fromkeys(labels, Fraction(0))
    for mass, label in zip(law, labels, strict=True):
        image[label] += mass
    return image


def within(law: Sequence[Fraction], labels: Sequence[int]) -> tuple[Fraction | None, ...]:
    """``p(z | π(z))`` for each z; None where the fibre has no mass."""
    image = pushed(law, labels)
    return tuple(
        mass / image[label] if image[label] else None for mass, label in zip(law, labels, strict=True)
    )


def a_function_of(heights: Sequence[Fraction], labels: Sequence[int], prior: Sequence[Fraction]) -> bool:
    """Whether states of positive prior mass with one label have one height."""
    seen: dict[int, Fraction] = {}
    return all(
        seen.setdefault(label, height) == height
        for height, label, mass in zip(heights, labels, prior, strict=True)
        if mass
    )


def random_labels(rng: Random, states: int) -> tuple[int, ...]:
    """Draw a map of the states onto at most as many labels."""
    return tuple(rng.randrange(states) for _ in range(states))


def partitions(states: int) -> Iterator[tuple[int, ...]]:
    """Yield every partition of the states once, each block by its number.

    >>> len(list(partitions(4)))
    15
    """
    if states == 0:
        yield ()
        return
    for shorter in partitions(states - 1):
        for label in range(max(shorter, default=-1) + 2):
            yield (*shorter, label)


def log(fraction: Fraction) -> mpmath.mpf:
    """The logarithm of a fraction, to the working precision."""
    return mpmath.log(mpmath.mpf(fraction.numerator) / fraction.denominator)


def divergence(one: Sequence[Fraction], other: Sequence[Fraction]) -> mpmath.mpf:
    """``KL(one ‖ other)`` in nats, to the working precision; ∞ where mass of `one` lies off `other`.

    >>> float(divergence((Fraction(1), Fraction(0)), (Fraction(1, 2), Fraction(1, 2)))) == float(mpmath.log(2))
    True
    """
    if any(q and not p for q, p in zip(one, other, strict=True)):
        return mpmath.inf
    terms = [
        mpmath.mpf(q.numerator) / q.denominator * log(q / p) for q, p in zip(one, other, strict=True) if q
    ]
    return mpmath.fsum(terms)

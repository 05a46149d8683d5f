"""T1, the collapse theorem: the posterior equals the prior iff the likelihood is constant in the latent.

Setting. z ~ P on a standard Borel space; for one fixed x the likelihood ``L(z) = p(x | z; θ̂) ≥ 0`` is measurable, and
``p(x) = E_P L`` satisfies ``0 < p(x) < ∞``. The posterior Q is the law with ``dQ/dP = L/p(x)``.
z is *non-identifiable at (θ̂, x)* when L is the same number for P-almost every z; the posterior *collapses* when Q = P.

Theorem. The posterior collapses iff z is non-identifiable.

Proof. Densities with respect to P are unique up to P-null sets, and P has density 1 with respect to itself. Hence
Q = P iff ``L/p(x) = 1`` P-a.e., that is iff ``L = p(x)`` P-a.e. If L equals some constant c P-a.e., then
``p(x) = E_P L = c``, so the constant can only be p(x).  ∎

Nothing about networks, optimisation or variational inference enters, nor any structure of the space.

What the assumptions are for. *P-almost every*: a state without prior mass may have any likelihood. ``p(x) > 0``: else
there is no posterior that could equal the prior, though L = 0 is constant. ``p(x) < ∞``: else L/p(x) is no density.
*One x*: collapse at one x says nothing about another (fair signs, x ~ N(z₁z₂, 1) at x = 0).

Source: Wang, Blei & Cunningham 2021, Theorem 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from theory.finite import Law, evidence, posterior, random_heights, random_law
from theory.frame import Checked, draws, tried
from theory.reals import a_law, every, iff, proved, reals

Constant = Callable[[Sequence[Fraction], Sequence[Fraction]], bool]


def constant(prior: Sequence[Fraction], likelihood: Sequence[Fraction]) -> bool:
    """Whether the likelihood is one number on all states of positive prior mass.

    >>> constant((Fraction(1), Fraction(0)), (Fraction(2), Fraction(3)))
    True
    """
    return len({l for p, l in zip(prior, likelihood, strict=True) if p}) == 1


def collapses_iff_constant(share: float = 1.0, claim: Constant = constant) -> Checked:
    """Random finite models, half of them with a likelihood that is constant where the prior has mass."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(2000, share, "T1"):
            prior = random_law(rng, rng.randint(1, 7))
            heights = random_heights(rng, len(prior))
            if rng.random() < 0.5:
                heights = tuple(Fraction(3, 7) if p else l for p, l in zip(prior, heights, strict=True))
            after = posterior(prior, heights)
            if after is not None:
                yield (after == prior) is claim(prior, heights), f"P = {prior}, L = {heights}"

    return tried(
        "T1", "the posterior is the prior iff the likelihood is constant P-a.e.", "exact", outcomes()
    )


def collapse_proved(share: float = 1.0, claim: bool = True) -> Checked:
    """All models with 1 to 5 states at once; `claim`: that p(x) > 0 is assumed."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for states in range(1, 6 if share >= 1 else 5):
            p, q, l = (reals(name, states) for name in "pql")
            c, total = reals("c", 2)
            model = [*a_law(p), *a_law(q), *[height >= 0 for height in l]]
            # Bayes' rule without division: q p(x) = p L.
            bayes = [q[i] * total == p[i] * l[i] for i in range(states)]
            mean = total == sum(p[i] * l[i] for i in range(states))
            same = every([q[i] == p[i] for i in range(states)])
            flat = every([(p[i] == 0) | (l[i] == total) for i in range(states)])
            positive = [total > 0] if claim else []
            yield proved([*model, *bayes, mean, *positive], iff(same, flat)), f"{states} states"
            # That the constant can only be p(x).
            constant = every([(p[i] == 0) | (l[i] == c) for i in range(states)])
            yield proved([*a_law(p), mean, constant], c == total), f"{states} states: the constant is p(x)"

    return tried("T1", "the same for every model with up to five states", "z3", outcomes())


def every_assumption_is_needed(share: float = 1.0, claim: Fraction = Fraction(3)) -> Checked:
    """Counterexamples; `claim` is the likelihood 3 of a state without mass, where 1 would be a constant."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        half: Law = (Fraction(1, 2), Fraction(1, 2), Fraction(0))
        heights = (Fraction(1), Fraction(1), claim)
        yield posterior(half, heights) == half and len(set(heights)) > 1, "a.e. is weaker than everywhere"
        yield posterior(half[:2], (Fraction(0), Fraction(0))) is None, "p(x) = 0: no posterior"
        for states in (10, 100, 1000):
            # p(z) = 2⁻ᶻ, L(z) = 4ᶻ: the partial sums of p(x) exceed every bound, so no posterior has density L/p(x).
            masses = [Fraction(1, 2**z) for z in range(1, states)]
            yield evidence(masses, [Fraction(4**z) for z in range(1, states)]) > 2 ** (states - 1), "p(x) = ∞"
        signs = [(a, b) for a in (-1, 1) for b in (-1, 1)]
        fair = (Fraction(1, 4),) * 4
        for x in (0, 1):
            # exp(−(x − z₁z₂)²/2) orders as −(x − z₁z₂)²; any decreasing rational function of the square will do.
            likelihood = [Fraction(1, 1 + (x - a * b) ** 2) for a, b in signs]
            yield (posterior(fair, likelihood) == fair) is (x == 0), f"collapse at x = 0 only, here x = {x}"

    return tried("T1", "counterexample for each dropped assumption", "exact", outcomes())


CHECKS = (collapses_iff_constant, collapse_proved, every_assumption_is_needed)

"""T3, statistics: the law of a = T(z) is unmoved iff the *integrated* likelihood is constant in a.

Setting. As in T1; T : Z → A measurable, A standard Borel; ``p(x | a) = E_P[p(x | z) | T(z) = a]``.

Theorem. ``p(a | x) = p(a)``  ⇔  p(x | a) is the same for T#P-almost every a.

Proof. By the first step in T2's proof, dT#Q/dT#P = p(x | a)/p(x). This is T1 with prior T#P and likelihood p(x | a).  ∎

So a marginal or a sign may stay where no coordinate is ignored. *Even decoders*: if p(x | z) = p(x | −z) and P is
symmetric, P(−dz) = P(dz), with no mass at 0, then given sign(z) = ±1 the law of |z| is the same for both signs, hence
so is p(x | sign): sign(z) collapses, |z| need not. Symmetry of P is needed: without it |z| tells the sign.

*Active units* measure less still: ``Var_x E[z | x]``. For z ~ N(0, 1), x ~ N(z², ¼) the posterior is even, so its mean
is 0 at every x and the unit counts as dead, while KL(Q‖P) is .41, .37 and 2.11 nats at x = 0, 1, 3. Neither zero
activity nor a zero marginal KL shows that a coordinate is ignored.

Source: identkit's own; active units are due to Burda, Grosse & Salakhutdinov 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import mpmath

from identkit import collapse
from theory.finite import posterior, pushed, random_heights, random_labels, random_law
from theory.frame import Checked, draws, tried
from theory.reals import a_law, every, iff, proved, reals


def unmoved_iff_integrated_likelihood_is_constant(share: float = 1.0, claim: bool = True) -> Checked:
    """Random models and statistics, half planted; `claim`: that the likelihood is integrated over the fibre's prior."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(1500, share, "T3 statistics"):
            prior = random_law(rng, rng.randint(2, 6))
            labels = random_labels(rng, len(prior))
            heights = random_heights(rng, len(prior))
            masses = pushed(prior, labels)
            weighted = pushed([p * l for p, l in zip(prior, heights, strict=True)], labels)
            if rng.random() < 0.5:  # bring each fibre's integrated likelihood to 1 where it can be
                heights = tuple(
                    l * masses[a] / weighted[a] if weighted[a] else Fraction(1)
                    for l, a in zip(heights, labels, strict=True)
                )
                weighted = pushed([p * l for p, l in zip(prior, heights, strict=True)], labels)
            after = posterior(prior, heights)
            if after is None:
                continue
            integrated = {weighted[a] / masses[a] for a in masses if masses[a]}
            plain = {l for l, p in zip(heights, prior, strict=True) if p}
            constant = len(integrated if claim else plain) == 1
            yield (pushed(after, labels) == masses) is constant, f"P = {prior}, L = {heights}, T = {labels}"

    return tried("T3", "p(T(z) | x) = p(T(z)) iff ∫p(x|z)p(z|a)dz is constant in a", "exact", outcomes())


def statistics_proved(share: float = 1.0, claim: bool = True) -> Checked:
    """Four states in two fibres, every model; `claim`: that fibres without prior mass are left out."""
    p, q, l = (reals(name, 4) for name in "pql")
    (total,) = reals("total", 1)
    model = [*a_law(p), *a_law(q), *[height >= 0 for height in l], total > 0]
    model += [q[i] * total == p[i] * l[i] for i in range(4)]

    def outcomes() -> Iterator[tuple[bool, str]]:
        for first in ([0], [0, 1], [0, 1, 2]) if share >= 1 else ([0, 1],):
            fibres = [first, [i for i in range(4) if i not in first]]
            mass = [sum(p[i] for i in fibre) for fibre in fibres]
            height = [sum(p[i] * l[i] for i in fibre) for fibre in fibres]
            same = every([sum(q[i] for i in fibre) == m for fibre, m in zip(fibres, mass, strict=True)])
            # p(x | a) constant, multiplied out.
            constant = height[0] * mass[1] == height[1] * mass[0]
            if not claim:
                constant = every([h == total for h in height])
            yield proved(model, iff(same, constant)), f"T⁻¹(a) = {first}"

    return tried("T3", "the same for every model with four states in two fibres", "z3", outcomes())


def even_decoders_hide_the_sign(share: float = 1.0, claim: bool = True) -> Checked:
    """Random symmetric priors on ±1, …, ±4 and even likelihoods; `claim`: that the prior is symmetric."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(300, share, "T3 even"):
            half = random_law(rng, 4, zeros=False)
            other = half if claim else random_law(rng, 4, zeros=False)
            prior = tuple(mass / 2 for mass in (*half, *other))
            heights = random_heights(rng, 4) * 2
            after = posterior(prior, heights)
            if after is not None:
                yield sum(after[:4]) == Fraction(1, 2), f"P = {prior}, L = {heights}"
        # Without symmetry: more mass far out on the positive side, and data from far out.
        eighth, one, three = Fraction(1, 8), Fraction(1), Fraction(3)
        after = posterior((eighth, 3 * eighth, 3 * eighth, eighth), (one, three, one, three))
        assert after is not None
        yield after[0] + after[1] != Fraction(1, 2), "an asymmetric prior tells the sign"

    return tried("T3", "even decoder and symmetric prior: the sign collapses", "exact", outcomes())


def dead_units_inform(share: float = 1.0, claim: tuple[float, ...] = (0.41, 0.37, 2.11)) -> Checked:
    """z ~ N(0, 1), x ~ N(z², ¼): posterior mean 0, KL by 20-digit quadrature, and identkit's `collapse` to 1e-6."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        measured = collapse("z ~ Normal(0, 1); observe x ~ Normal(z**2, 1/2)", [[0.0], [1.0], [3.0]])
        with mpmath.workdps(20):
            for row, (x, wanted) in enumerate(zip((0, 1, 3), claim, strict=True)):

                def height(z: mpmath.mpf, x: int = x) -> mpmath.mpf:
                    return -2 * (x - z**2) ** 2

                def mean(g: object, height: object = height) -> mpmath.mpf:
                    return mpmath.quad(lambda z: mpmath.npdf(z) * g(z), [-8, -2, -1, 0, 1, 2, 8])  # type: ignore[operator]

                total = mean(lambda z, h=height: mpmath.exp(h(z)))
                centre = mean(lambda z, h=height: z * mpmath.exp(h(z))) / total
                kl = mean(lambda z, h=height: h(z) * mpmath.exp(h(z))) / total - mpmath.log(total)
                met = abs(centre) < 1e-15 and abs(kl - wanted) < 0.005
                met = met and abs(float(kl) - measured.kl[row].item()) < 1e-6
                met = met and abs(measured.posterior_mean[row, 0].item()) < 1e-9
                yield met, f"x = {x}: KL = {float(kl):.4f}, wanted {wanted}"

    return tried("T3", "x ~ N(z², ¼): a dead unit with KL .41, .37, 2.11 nats", "numeric", outcomes())


CHECKS = (
    unmoved_iff_integrated_likelihood_is_constant,
    statistics_proved,
    even_decoders_hide_the_sign,
    dead_units_inform,
)

"""T6, parameters: θ is identifiable iff an exhaustive summary of the law of the data is injective in θ.

Setting. ``p(x; θ) = ∫ p(x | z; θ) p(z; θ) dz``. θ is *identifiable* on Θ when θ ↦ p(·; θ) is injective there. κ is an
*exhaustive summary* when ``κ(θ) = κ(θ′) ⇔ p(·; θ) = p(·; θ′)``.

Theorem. (i) θ is identifiable iff one (every) exhaustive summary is injective. (ii) Exhaustive are: the natural
parameter of a minimal exponential family; mean and covariance of Gaussian data (linear Gaussian models); the
probability table of finite data; mean and autocovariances of a Gaussian process (linear state space). (iii) Moments
that are injective in θ prove identifiability; moments that are not prove nothing.

Proof. (i) By definition both maps have the same fibres. (ii) Each of these determines the law and is determined by it:
minimal families by T5 (∇A is injective); a Gaussian law by its first two moments, a Gaussian process by those of all
its finite parts; a law on a finite set by its masses. (iii) Moments are functions of the law: κ = m(law). If m(law(θ))
is injective so is law(θ). The converse fails, as m may forget.  ∎

Examples. Equal-weight ½N(m, 1) + ½N(−m, 1) has mean 0 for all m (deficient), and second moment 1 + m²: m is
identifiable up to sign. In non-minimal form (a softmax over D logits) the natural parameter is *not* exhaustive: η and
η + c1 give one law. Autocovariances determine a process only among Gaussian ones: they cannot tell independent signs
from signs that are tied by their product.

Source: exhaustive summaries: Walter & Lecourtier 1982; Cole, Morgan & Titterington 2010.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import sympy

from theory.frame import Checked, draws, tried
from theory.reals import every, proved, reals


def tables_are_exhaustive(share: float = 1.0, claim: int = 2) -> Checked:
    """Two latent classes, binary items: the table forgets swapped classes; `claim`: how many θ have one table."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(100, share, "T6 tables"):
            weight = Fraction(rng.randint(1, 4), 10)
            one, two = ([Fraction(rng.randint(1, 9), 10) for _ in range(3)] for _ in range(2))
            if one == two:
                continue
            swaps = {(weight, *one, *two), (1 - weight, *two, *one)}
            tables = {_table(*each) for each in swaps}
            moved = _table(weight + Fraction(1, 20), *one, *two)
            # Distinct θ, one table; and a θ off that orbit has another one (three items, distinct classes).
            distinct = len(swaps) == claim and len(tables) == 1
            yield distinct and (moved not in tables), f"{weight}, {one}, {two}"

    return tried(
        "T6", "finite data: the table is the law, and a swap of classes keeps it", "exact", outcomes()
    )


def _table(weight: Fraction, *chances: Fraction) -> tuple[Fraction, ...]:
    """The probabilities of the eight answers to three items."""
    answers = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    table = []
    for answer in answers:
        total = Fraction(0)
        for share, means in ((weight, chances[:3]), (1 - weight, chances[3:])):
            product = share
            for x, mean in zip(answer, means, strict=True):
                product *= mean if x else 1 - mean
            total += product
        table.append(total)
    return tuple(table)


def gaussian_moments_are_exhaustive(share: float = 1.0, claim: int = 2) -> Checked:
    """log N(x; m, v) determines m and v: from its coefficients in x; `claim`: the 2 in 1/2v."""
    x, m = sympy.symbols("x m", real=True)
    v = sympy.symbols("v", positive=True)
    log_density = sympy.Poly(-((x - m) ** 2) / (2 * v) - sympy.log(2 * sympy.pi * v) / 2, x)
    square, linear, _ = log_density.all_coeffs()
    outcomes = [
        (sympy.simplify(-1 / (claim * square) - v) == 0, "v from the square"),
        (sympy.simplify(-linear / (claim * square) - m) == 0, "m from the linear term"),
    ]
    return tried("T6", "Gaussian data: mean and covariance are the law", "symbolic", outcomes)


def one_factor_three_indicators(share: float = 1.0, claim: bool = True) -> Checked:
    """z3: with three indicators the covariance determines positive loadings; `claim`: that there are three, not two."""
    a, b = reals("a", 3), reals("b", 3)
    used = [(0, 1), (0, 2), (1, 2)] if claim else [(0, 1)]
    same = [a[i] * a[j] == b[i] * b[j] for i, j in used]
    positive = [each > 0 for each in (*a, *b)]
    size = 3 if claim else 2
    conclusion = every([a[i] == b[i] for i in range(size)])
    return tried(
        "T6",
        "one factor, three indicators: positive loadings are identified",
        "z3",
        [(proved([*same, *positive], conclusion), "loadings")],
    )


def deficient_moments_prove_nothing(share: float = 1.0, claim: int = 2) -> Checked:
    """½N(m, 1) + ½N(−m, 1): mean 0 for all m, second moment 1 + m², injective for m > 0; `claim`: which moment decides."""
    m = sympy.symbols("m", positive=True)
    t = sympy.symbols("t")
    generating = sympy.exp(t**2 / 2) * sympy.cosh(m * t)
    moments = {order: sympy.simplify(generating.diff(t, order).subs(t, 0)) for order in (1, 2)}
    outcomes = [
        (moments[1] == 0, "the first moment forgets m"),
        (moments[claim].diff(m).is_positive is True, "the second is strictly monotone"),
    ]
    return tried("T6", "deficient moments prove nothing", "symbolic", outcomes)


def autocovariances_need_gaussians(share: float = 1.0, claim: int = 3) -> Checked:
    """Three fair signs, independent or tied by s₁s₂s₃ = 1: same covariances; `claim`: the order of moment that differs."""
    signs = [(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
    free = dict.fromkeys(signs, Fraction(1, 8))
    tied = {s: Fraction(1, 4) if s[0] * s[1] * s[2] == 1 else Fraction(0) for s in signs}

    def moment(law: dict[tuple[int, int, int], Fraction], places: tuple[int, ...]) -> Fraction:
        total = Fraction(0)
        for s, mass in law.items():
            product = mass
            for place in places:
                product *= s[place]
            total += product
        return total

    second = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    outcomes = [
        (all(moment(free, places) == moment(tied, places) for places in second), "means and covariances"),
        (moment(free, (0, 1, 2)[:claim]) != moment(tied, (0, 1, 2)[:claim]), "a third moment differs"),
    ]
    return tried("T6", "covariances are the law for Gaussian data only", "exact", outcomes)


CHECKS = (
    tables_are_exhaustive,
    gaussian_moments_are_exhaustive,
    one_factor_three_indicators,
    deficient_moments_prove_nothing,
    autocovariances_need_gaussians,
)

"""T5, laws: when an injective decoder makes an injective law, and at which x its posterior can still be the prior.

Setting. ``p(x | z) = h(x) exp(η(z)ᵀt(x) − A(η(z)))`` with respect to ν, an exponential family in *minimal* form:
the components of t(x) satisfy no affine relation ν-a.e. η is an injective function of f(z), and P is no point mass.

Theorem. (i) If f is injective, so is z ↦ p(· | z): the latent is GLOBAL, and I(z; x) > 0; so the posterior differs from
the prior for x of positive probability.
(ii) It differs for *almost every* x if ``ν(t(x) ∈ H) = 0`` for every hyperplane H; in particular for x ~ N(f(z), σ²I).
(iii) x ~ N(f(z), σ²I), ``‖f(z) − f(z′)‖ ≥ m‖z − z′‖``, m > 0, supp P unbounded: it differs for *every* x.
(iv) If η is continuous, with K components, K = dim z, and supp P has an interior point: it differs for every x.
Not more: a categorical or Poisson x may have a value of positive probability at which the posterior *is* the prior.

Proof. (i) In minimal form Var_η(t) is positive definite, so A is strictly convex and η ↦ ∇A(η) = E t injective: laws
with different η differ. If Q = P for a.e. x then z and x are independent, p(· | z) is P-a.e. one law, and P a point mass.
(ii) Let E hold the x at which ℓ is P-a.e. constant. For x ∈ E, ℓ(x, z) = ℓ(x, z′) for P⊗P-a.e. (z, z′); by Fubini, for
P⊗P-a.e. (z, z′) this is so for ν-a.e. x ∈ E. As P is no point mass, z ≠ z′ has positive P⊗P-probability: fix such a
pair, η ≠ η′. For ν-a.e. x ∈ E, ``(η − η′)ᵀt(x) = A(η) − A(η′)``: a hyperplane, of measure 0. So ν(E) = 0. For the
Gaussian t(x) = x/σ² has a density.
(iii) ℓ constant means ‖x − f(z)‖ constant for P-a.e. z; but f is unbounded on every set of full measure.
(iv) η is open on the interior (invariance of domain). Were ℓ constant a.e. there, it were so everywhere there by
continuity, and A affine on an open set; but A is strictly convex.  ∎

Counterexamples to "for almost every x" without (ii). *Two states*, classes with probabilities (1/5, 3/10, 1/2) and
(1/5, 1/2, 3/10): the laws differ, and at the first class, of probability 1/5, the posterior is the prior. *A Brenier
decoder*, K = 1, z ~ N(0, 1), three classes, two logits: ``g₂ = ∇φ``, ``φ(u, v) = S₁(v + 2u) + S₂(v − 2u)`` with
``S₁′(v) = v/2 + s(v)/4``, ``S₂′(v) = v/2 − s(v)/4``, ``s(v) = log(1/4) + log(1 + e^v)``. S₁″ and S₂″ lie in [1/4, 3/4],
so φ is ½-strongly convex; and ``g₂(0, z) = (s(z), z)``. With B = (0, 1)ᵀ and g₁ = identity the first class has
probability ``e^{s(z)}/(1 + e^{s(z)} + e^z) = 1/5`` for *every* z. The certificate m = ½ stands, the latent is GLOBAL,
and one datum in five leaves the posterior at the prior. (So a data set all of whose rows are CONSTANT contradicts no
GLOBAL verdict.)

*Minimal* form: a softmax over D logits is invariant under η + c1, so that an onto map to R^D leaves fibres of dimension 1.
*Mixtures* (z = k discrete): identifiable iff the component laws are pairwise distinct (T2); their least distance
certifies it.
*Sequences*: if p(x_t | z, x_{<t}) is injective in z at each history, each step moves what is believed of z, given its
history, unless z is already known (T1 at that history). Its marginal law need not: x₁ fair, x₂ = z xor x₁.

Source: minimal families: Barndorff-Nielsen 1978; Brown 1986. The counterexamples are identkit's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import sympy

from theory.finite import Law, posterior, random_law
from theory.frame import Checked, draws, tried
from theory.reals import implied, proved, reals


def minimal_logits(share: float = 1.0, claim: int = 0) -> Checked:
    """D − 1 logits are recovered from the law; D are known up to a common constant; `claim`: the last logit."""
    eta = sympy.symbols("eta1:4", real=True)
    shift = sympy.symbols("c", real=True)

    def softmax(logits: tuple[sympy.Expr, ...]) -> list[sympy.Expr]:
        total = sum(sympy.exp(l) for l in logits)
        return [sympy.exp(l) / total for l in logits]

    fixed = softmax((eta[0], eta[1], sympy.Integer(claim)))
    moved = softmax(tuple(l + shift for l in eta))
    outcomes = [
        *[(sympy.simplify(fixed[j] / fixed[2] - sympy.exp(eta[j])) == 0, f"logit {j + 1}") for j in (0, 1)],
        *[(sympy.simplify(a - b) == 0, "η + c1") for a, b in zip(softmax(eta), moved, strict=True)],
    ]
    return tried("T5", "softmax: D − 1 logits are determined, D leave a fibre", "symbolic", outcomes)


def gaussians_collapse_on_a_null_set(share: float = 1.0, claim: int = 2) -> Checked:
    """Collapse at x forces a linear equation on x, proved over the reals in two dimensions; `claim`: its factor."""
    x, f, g = (reals(name, 2) for name in "xfg")
    (r,) = reals("r", 1)

    def outcomes() -> Iterator[tuple[bool, str]]:
        def apart(one: list, other: list) -> object:  # type: ignore[type-arg]
            return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))

        same = apart(x, f) == apart(x, g)
        inner = claim * sum((a - b) * c for a, b, c in zip(f, g, x, strict=True))
        yield proved([same], inner == sum(a**2 - b**2 for a, b in zip(f, g, strict=True))), "hyperplane"
        # ‖f‖ ≤ ‖x‖ + ‖x − f‖, squared and without roots: f on a circle around x is bounded.
        bounded = sum(a**2 for a in f) <= 2 * sum(a**2 for a in x) + 2 * r
        yield proved([apart(x, f) == r], bounded), "a sphere is bounded"

    return tried("T5", "Gaussian noise: collapse only on a hyperplane, never if unbounded", "z3", outcomes())


def injective_means_informed_somewhere(share: float = 1.0, claim: bool = True) -> Checked:
    """Random discrete models: some x of positive probability moves the prior iff the laws differ; `claim`: some, not all."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(500, share, "T5 somewhere"):
            states, values = rng.randint(2, 4), rng.randint(2, 4)
            pool = [random_law(rng, values) for _ in range(rng.randint(1, 3))]
            laws = [rng.choice(pool) for _ in range(states)]
            prior = random_law(rng, states, zeros=False)
            after = [posterior(prior, [law[x] for law in laws]) for x in range(values)]
            moved = [each != prior for each in after if each is not None]
            informed = any(moved) if claim else all(moved)
            yield informed is (len(set(laws)) > 1), f"P = {prior}, laws {laws}"

    return tried(
        "T5", "distinct laws: the posterior differs at some x of positive probability", "exact", outcomes()
    )


def a_datum_may_say_nothing(share: float = 1.0, claim: Fraction = Fraction(1, 5)) -> Checked:
    """Distinct laws whose first class always has probability `claim`: there Q = P exactly, with that probability."""
    laws: list[Law] = [
        (Fraction(1, 5), Fraction(3, 10), Fraction(1, 2)),
        (claim, Fraction(1, 2), Fraction(1, 2) - claim),
    ]
    prior = (Fraction(1, 3), Fraction(2, 3))
    at = [posterior(prior, [law[x] for law in laws]) for x in range(3)]
    outcomes = [
        (laws[0] != laws[1] and sum(laws[1]) == 1, "distinct laws"),
        (at[0] == prior, "Q = P at the first class"),
        (at[1] != prior and at[2] != prior, "and at no other"),
    ]
    return tried("T5", "GLOBAL, and yet Q = P at a class of probability 1/5", "exact", outcomes)


def a_brenier_decoder_may_be_silent(share: float = 1.0, claim: int = 2) -> Checked:
    """The explicit decoder above: its gradient on the line, its curvature, its silent class; `claim`: the 2 in v ± 2u."""
    u, v = sympy.symbols("u v", real=True)
    s = sympy.log(sympy.Rational(1, 4)) + sympy.log(1 + sympy.exp(v))
    first, second = (v + s / claim) / 2, (v - s / claim) / 2  # S₁′, S₂′
    one, two = first.subs(v, v + claim * u), second.subs(v, v - claim * u)
    gradient = sympy.Matrix([claim * (one - two), one + two])
    logits = gradient.subs(u, 0)
    chance = sympy.exp(s) / (1 + sympy.exp(s) + sympy.exp(v))
    slope = sympy.exp(v) / (1 + sympy.exp(v))  # s′, between 0 and 1
    # The Hessian is Σ S_i″ a_i a_iᵀ with a = (±2, 1), and Σ a_i a_iᵀ = diag(8, 2) ⪰ 2I: φ is (2 min S″)-strongly convex.
    along = sympy.Matrix([[claim, 1], [-claim, 1]])
    ridges = along.T * along
    half, quarter = sympy.Rational(1, 2), sympy.Rational(1, 4)
    outcomes = [
        (
            sympy.simplify(gradient.jacobian([u, v]) - gradient.jacobian([u, v]).T) == sympy.zeros(2, 2),
            "a gradient",
        ),
        (sympy.simplify(logits - sympy.Matrix([s, v])) == sympy.zeros(2, 1), "g₂(0, z) = (s(z), z)"),
        (sympy.simplify(chance - sympy.Rational(1, 5)) == 0, "the first class has probability 1/5"),
        (sympy.simplify(first.diff(v) - half - slope / 4) == 0, "S₁″ = ½ + s′/4 ≥ ½"),
        (sympy.simplify(second.diff(v) - half + slope / 4) == 0, "S₂″ = ½ − s′/4 ≥ ¼"),
        (min(ridges[0, 0], ridges[1, 1]) * quarter == half and ridges[0, 1] == 0, "φ is ½-strongly convex"),
    ]
    return tried("T5", "a certified decoder with a class that leaves Q = P", "symbolic", outcomes)


def components_differ(share: float = 1.0, claim: bool = True) -> Checked:
    """Random mixtures: the law is injective in k iff the least distance is positive; `claim`: over all pairs."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(500, share, "T5 mixture"):
            pool = [random_law(rng, 3) for _ in range(4)]
            laws = [rng.choice(pool) for _ in range(rng.randint(2, 4))]
            couples = list(itertools.combinations(laws, 2)) if claim else list(itertools.pairwise(laws))
            least = min(sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2 for p, q in couples)
            yield (least > 0) is (len(set(laws)) == len(laws)), f"laws {laws}"

    return tried(
        "T5", "mixtures: injective iff the least distance of components is positive", "exact", outcomes()
    )


def each_step_sees(share: float = 1.0, claim: bool = True) -> Checked:
    """Two steps, each injective at each history: every history not yet certain is moved; `claim`: that laws differ."""

    def outcomes() -> Iterator[tuple[bool, str]]:
        for rng in draws(300, share, "T5 sequence"):
            prior = random_law(rng, 2)
            first = [random_law(rng, 2) for _ in range(2)]
            for x in range(2):
                known = posterior(prior, [law[x] for law in first])
                if known is None:
                    continue
                step = [random_law(rng, 2) for _ in range(2)]
                if not claim:
                    step[1] = step[0]
                if claim and step[0] == step[1]:
                    continue
                moved = any(posterior(known, [law[y] for law in step]) not in (None, known) for y in range(2))
                yield moved is (min(known) > 0), f"known {known}, step {step}"
        # x₁ fair, x₂ = z xor x₁: the step's law is injective at each history, its marginal ignores z.
        half = Fraction(1, 2)
        for z in (0, 1):
            marginal = [sum(half for x1 in (0, 1) if z ^ x1 == x2) for x2 in (0, 1)]
            yield marginal == [half, half], "xor"

    return tried("T5", "sequences: each step moves what is believed, given its history", "exact", outcomes())


def strictly_convex_normalisers(share: float = 1.0, claim: int = 1) -> Checked:
    """A″ = Var t > 0 for three families, and one step of (ii); `claim`: the order of the moment's subtraction."""
    eta = sympy.symbols("eta", real=True)
    families = {
        "Bernoulli": (sympy.log(1 + sympy.exp(eta)), sympy.exp(eta) / (1 + sympy.exp(eta)) ** 2),
        "Poisson": (sympy.exp(eta), sympy.exp(eta)),
        "Gaussian": (eta**2 / 2, sympy.Integer(1)),
    }
    outcomes = [
        (
            sympy.simplify(normaliser.diff(eta, 2) - claim * variance) == 0 and variance.is_positive is True,
            name,
        )
        for name, (normaliser, variance) in families.items()
    ]
    a, b, t, c, d = reals("e", 5)
    equal = a * t - c == b * t - d
    outcomes.append((proved([equal, a != b], implied(a > b, t * (a - b) == c - d)), "one hyperplane for t"))
    return tried("T5", "A″ = Var t > 0: minimal families have injective laws", "symbolic", outcomes)


CHECKS = (
    minimal_logits,
    strictly_convex_normalisers,
    gaussians_collapse_on_a_null_set,
    injective_means_informed_somewhere,
    a_datum_may_say_nothing,
    a_brenier_decoder_may_be_silent,
    components_differ,
    each_step_sees,
)

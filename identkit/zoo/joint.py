"""What do the data say about latents and parameters together? The likelihood alone, and what the prior adds.

The levels are those of the likelihood; `prior_identified` names the unknowns that only symmetries which break the
prior set free. The identifiers in `source` are rows of the project's table of known answers.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case, levels, names


def _ability(persons: int, items: int, chance: str, declared: str) -> str:
    return f"""
        {declared}
        theta[{persons}] ~ Normal(0, 1)
        for i in 1..{persons}:
            for j in 1..{items}:
                observe y[i, j] ~ Bernoulli({chance})
    """


def latent_positions(size: int) -> Any:
    """Points of the plane behind a Gaussian process with a squared exponential kernel."""
    import sympy

    from identkit.model.families import MvNormal, Normal
    from identkit.model.model import Model

    model = Model("latent-positions")
    scale, length, noise = [model.parameter(name, positive=True) for name in ("s", "l", "tau")]
    z = model.latent("z", Normal(0, 1), shape=(size, 2))

    def kernel(i: Any, j: Any) -> sympy.Expr:
        square = sum((z[min(i, j), k] - z[max(i, j), k]) ** 2 for k in range(2))
        return scale**2 * sympy.exp(-square / (2 * length**2)) + (noise if i == j else 0)

    model.observe("y", MvNormal([0] * size, sympy.Matrix(size, size, kernel)))
    return model


CASES = (
    Case(
        name="rasch",
        model=_ability(5, 4, "sigmoid(theta[i] - b[j])", "parameter b[4]"),
        about="joint",
        source="E1 (9/8/1); Rasch 1960; San Martín, González & Tuerlinckx 2015",
        levels=levels(PARTIAL="theta[1..5] b[1..4]"),
        level="PARTIAL",
        prior_identified=names("theta[1..5] b[1..4]"),
        deficiency=1,
        symmetry="translation",
        note="Abilities and difficulties shift together; the prior pins them.",
    ),
    Case(
        name="two-parameter-logistic",
        model=_ability(8, 5, "sigmoid(a[j]*(theta[i] - b[j]))", "parameter a[5]; parameter b[5]"),
        about="joint",
        source="E2 (18/16/2); van der Linden & Barrett 2016",
        levels=levels(PARTIAL="theta[1..8] a[1..5] b[1..5]"),
        level="PARTIAL",
        prior_identified=names("theta[1..8] a[1..5] b[1..5]"),
        deficiency=2,
        note="Location and scale of the ability.",
    ),
    Case(
        name="guessing",
        model="""
            parameter delta[5] > 0; parameter c[5] in (0, 1)
            xi[6] ~ Exponential(1)
            for i in 1..6:
                for j in 1..5:
                    observe y[i, j] ~ Bernoulli((xi[i] + c[j]*delta[j])/(xi[i] + delta[j]))
        """,
        about="joint",
        source="E4 (16/14/2), I.10 and I.11; Maris & Bechger 2009; San Martín, Rolin & Castro 2013",
        levels=levels(PARTIAL="xi[1..6] delta[1..5] c[1..5]"),
        level="PARTIAL",
        prior_identified=names("xi[1..6] delta[1..5] c[1..5]"),
        deficiency=2,
        note="Equal discriminations with guessing: beside the scale, a symmetry that is affine in (ξ, δ, cδ) alone.",
    ),
    Case(
        name="guessing-logistic",
        model=_ability(
            6, 5, "c[j] + (1 - c[j])*sigmoid(theta[i] - b[j])", "parameter b[5]; parameter c[5] in (0, 1)"
        ),
        about="joint",
        source="E4 (16/14/2); San Martín, Rolin & Castro 2013",
        levels=levels(PARTIAL="theta[1..6] b[1..5] c[1..5]"),
        level="PARTIAL",
        prior_identified=names("theta[1..6] b[1..5] c[1..5]"),
        deficiency=2,
        note="The same on the scale of logits, where exponentials hide one dimension from a naive rank.",
    ),
    Case(
        name="hierarchical-shift",
        model="alpha[3] ~ Normal(0, 2); observe y[3] ~ Normal(mu + alpha, 1)",
        about="joint",
        source="E17 and I.14; Gelfand & Sahu 1999",
        levels=levels(PARTIAL="alpha[1..3] mu"),
        level="PARTIAL",
        prior_identified=names("alpha[1..3] mu"),
        deficiency=1,
        symmetry="translation",
        note="A shift of mean and effects that the prior alone stops.",
    ),
    Case(
        name="expanded-effects",
        model="parameter xi; eta[2] ~ Normal(0, 1); observe y[2] ~ Normal(xi*eta, 1)",
        about="joint",
        source="E18; Liu & Wu 1999; Gelman 2006: ξ ∂ξ − Σ η ∂η",
        levels=levels(PARTIAL="eta[1..2] xi"),
        level="PARTIAL",
        prior_identified=names("eta[1..2] xi"),
        deficiency=1,
        symmetry="scaling",
        note="Effects and their scale.",
    ),
    Case(
        name="probabilistic-matrix-factorisation",
        model="U[3, 2] ~ Normal(0, 1); V[4, 2] ~ Normal(0, 1); observe X[3, 4] ~ Normal(U @ transpose(V), 1)",
        about="joint",
        source="G2 and I.14; by hand: of GL(2), which acts by (U A, V A⁻ᵀ), the rotations keep both priors",
        levels=levels(PARTIAL="U[1..3,1..2] V[1..4,1..2]"),
        level="PARTIAL",
        deficiency=4,
        note="Four symmetries of the likelihood, one of the joint density.",
    ),
    Case(
        name="latent-positions",
        model=lambda: latent_positions(5),
        about="joint",
        source=(
            "G16 (19/15/4 with eight points, here 13/9/4 with five) and I.14; Lawrence 2005; by hand: -2 log K/s² is a matrix of squared distances in the plane "
            "for one s only, by the eigenvalue of its centred form that is repeated"
        ),
        levels=levels(PARTIAL="z[1..5,1..2] l", GLOBAL="s tau"),
        level="PARTIAL",
        prior_identified=names("l"),
        deficiency=4,
        undecided=names("s tau"),
        reason="that one spectrum alone fits takes an argument about a repeated eigenvalue of log K",
        note="Motions of the plane and a change of scale; under the prior, rotations alone.",
    ),
    Case(
        name="factor-scores",
        model="parameter w[2]; z ~ Normal(0, 1); observe x[2] ~ Normal(w*z, 1)",
        about="joint",
        source="by hand: w ∂w − z ∂z, and the ratio w₁/w₂",
        levels=levels(PARTIAL="z w[1..2]"),
        level="PARTIAL",
        prior_identified=names("z w[1..2]"),
        deficiency=1,
        symmetry="scaling",
        note="One datum: score and loadings trade a factor.",
    ),
)

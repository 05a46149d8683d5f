"""Regression, choice, random effects, and the unit tests of the taxonomy."""

from __future__ import annotations

from itertools import combinations

from identkit.zoo.case import Case, levels


def _softmax(classes: int, points: tuple[tuple[int, ...], ...]) -> str:
    """Regression of a class on features, one observation at each point."""
    lines = [f"parameter W[{classes}, {len(points[0])}]"]
    for i, point in enumerate(points, 1):
        scores = [
            "exp(" + " + ".join(f"W[{k},{j}]" for j, value in enumerate(point, 1) if value) + ")"
            for k in range(1, classes + 1)
        ]
        lines.append(f"t{i} = {' + '.join(scores)}")
        lines.append(f"observe y{i} ~ Categorical({', '.join(f'{score}/t{i}' for score in scores)})")
    return "\n".join(lines)


def _comparisons(size: int, pairs: list[tuple[int, int]]) -> str:
    lines = [f"parameter w[{size}] > 0"]
    lines += [f"observe y{i}{j} ~ Bernoulli(w[{i}]/(w[{i}] + w[{j}]))" for i, j in pairs]
    return "\n".join(lines)


CASES = (
    Case(
        name="bradley-terry",
        model=_comparisons(6, list(combinations(range(1, 7), 2))),
        about="parameters",
        source="E8 (6/5/1); Ford 1957",
        levels=levels(PARTIAL="w[1..6]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="Six players, one scale.",
    ),
    Case(
        name="bradley-terry-two-leagues",
        model=_comparisons(6, [*combinations((1, 2, 3), 2), *combinations((4, 5, 6), 2)]),
        about="parameters",
        source="E8 (6/4/2); Ford 1957: one scale for each connected component",
        levels=levels(PARTIAL="w[1..6]"),
        level="PARTIAL",
        deficiency=2,
        symmetry="scaling",
        note="Two leagues that never meet.",
    ),
    Case(
        name="softmax-regression",
        model=_softmax(3, ((1, 0, 0), (1, 1, 0), (1, 0, 1))),
        about="parameters",
        source="E9 (9/6/3); by hand: one vector may be added to all classes",
        levels=levels(PARTIAL="W[1..3,1..3]"),
        level="PARTIAL",
        deficiency=3,
        symmetry="translation",
        note="Only differences between classes are seen.",
    ),
    Case(
        name="ordered-probit",
        model="parameter mu; parameter sigma > 0; parameter c[3]; "
        + "; ".join(f"summary (c[{k}] - mu)/sigma" for k in (1, 2, 3)),
        about="parameters",
        source="E12 (5/3/2); Greene & Hensher 2010; Φ is strictly increasing",
        levels=levels(PARTIAL="mu sigma c[1..3]"),
        level="PARTIAL",
        deficiency=2,
        note="Location and scale of the latent response are a matter of convention.",
    ),
    Case(
        name="analysis-of-variance",
        model="""
            parameter mu; parameter alpha[3]; parameter beta[4]
            for i in 1..3:
                for j in 1..4:
                    observe y[i, j] ~ Normal(mu + alpha[i] + beta[j], 1)
        """,
        about="parameters",
        source="E13 (8/6/2); Searle 1971",
        levels=levels(PARTIAL="mu alpha[1..3] beta[1..4]"),
        level="PARTIAL",
        deficiency=2,
        symmetry="translation",
        note="Contrasts are seen, levels are not.",
    ),
    Case(
        name="analysis-of-variance-interaction",
        model="""
            parameter mu; parameter alpha[3]; parameter beta[4]; parameter gamma[3, 4]
            for i in 1..3:
                for j in 1..4:
                    observe y[i, j] ~ Normal(mu + alpha[i] + beta[j] + gamma[i, j], 1)
        """,
        about="parameters",
        source="E13 (20/12/8); Searle 1971",
        levels=levels(PARTIAL="mu alpha[1..3] beta[1..4] gamma[1..3,1..4]"),
        level="PARTIAL",
        deficiency=8,
        symmetry="translation",
        note="Interactions swallow every main effect.",
    ),
    Case(
        name="random-effect-single",
        model="parameter tau > 0; parameter sigma > 0; alpha ~ Normal(0, tau); observe y ~ Normal(alpha, sigma)",
        about="parameters",
        source="E16 (2/1/1); Searle 1971",
        levels=levels(PARTIAL="tau sigma"),
        level="PARTIAL",
        deficiency=1,
        note="One measurement for each group: only τ² + σ².",
    ),
    Case(
        name="random-effect-repeated",
        model="parameter tau > 0; parameter sigma > 0; alpha ~ Normal(0, tau); observe y[2] ~ Normal(alpha, sigma)",
        about="parameters",
        source="E16 (2/2/0); Searle 1971",
        levels=levels(GLOBAL="tau sigma"),
        level="GLOBAL",
        deficiency=0,
        note="A second measurement separates them.",
    ),
    Case(
        name="hierarchical-mean",
        model="parameter tau > 0; alpha[3] ~ Normal(0, tau); observe y[3] ~ Normal(mu + alpha, 1)",
        about="parameters",
        source="E17; Gelfand & Sahu 1999; by hand: y ~ N(μ, τ² + 1)",
        levels=levels(GLOBAL="tau mu"),
        level="GLOBAL",
        deficiency=0,
        note="With the effects integrated out the mean is known.",
    ),
    Case(
        name="parameter-expansion",
        model="parameter xi; parameter s > 0; eta[2] ~ Normal(0, s); observe y[2] ~ Normal(xi*eta, 1)",
        about="parameters",
        source="E18; Liu & Wu 1999; Gelman 2006: only |ξ| s",
        levels=levels(PARTIAL="xi s"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="A redundant scale that speeds up samplers.",
    ),
    Case(
        name="cubic-mean",
        model="observe x ~ Normal(theta^3, 1)",
        about="parameters",
        source="E20; Rothenberg 1971",
        levels=levels(GLOBAL="theta"),
        level="GLOBAL",
        deficiency=0,
        note="A strictly increasing mean.",
    ),
    Case(
        name="cubic-mean-flat-point",
        model="observe x ~ Normal(theta^3, 1)",
        about="parameters",
        at={"theta": 0},
        source="E20 and I.1; Rothenberg 1971: no information at 0, and one solution",
        levels=levels(GLOBAL="theta"),
        level="GLOBAL",
        note="The Fisher information is a local matter of first order.",
    ),
    Case(
        name="square-mean",
        model="observe x ~ Normal(theta^2, 1)",
        about="parameters",
        source="E20; Rothenberg 1971",
        levels=levels(LOCAL="theta"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="Known up to its sign.",
    ),
    Case(
        name="cosine-mean",
        model="observe x ~ Normal(cos(theta), 1)",
        about="parameters",
        source="E20; by hand: periods and reflections",
        levels=levels(LOCAL="theta"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="Countably many values.",
    ),
    Case(
        name="product-mean",
        model="observe x ~ Normal(a*b, 1)",
        about="parameters",
        source="E20; by hand: a ∂a − b ∂b",
        levels=levels(PARTIAL="a b"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="A scaling.",
    ),
    Case(
        name="sum-mean",
        model="observe x ~ Normal(a + b, 1)",
        about="parameters",
        source="E20; by hand: ∂a − ∂b",
        levels=levels(PARTIAL="a b"),
        level="PARTIAL",
        deficiency=1,
        symmetry="translation",
        note="A translation.",
    ),
)

"""Mixtures and latent classes: what is known but for the labels, and what not even the labels excuse."""

from __future__ import annotations

from identkit.zoo.case import Case, levels

_MIXTURE = "parameter pi in (0, 1); parameter m[2]; parameter s[2] > 0; observe x ~ Mixture([pi, 1 - pi], Normal(m[1], s[1]), Normal(m[2], s[2]))"
_MOMENTS = (
    "m",
    "m^2 + v",
    "m^3 + 3*m*v",
    "m^4 + 6*m^2*v + 3*v^2",
    "m^5 + 10*m^3*v + 15*m*v^2",
    "m^6 + 15*m^4*v + 45*m^2*v^2 + 15*v^3",
)


def _pearson(count: int) -> str:
    """The first moments of a mixture of two normals."""
    stated = []
    for moment in _MOMENTS[:count]:
        first, second = [moment.replace("m", f"m[{k}]").replace("v", f"v[{k}]") for k in (1, 2)]
        stated.append(f"summary pi*({first}) + (1 - pi)*({second})")
    return "parameter pi in (0, 1); parameter m[2]; parameter v[2] > 0; " + "; ".join(stated)


def _binomials(trials: int, size: int) -> str:
    parts = ", ".join(f"Binomial({trials}, p[{k}])" for k in range(1, size + 1))
    weights = ["w", "1 - w"] if size == 2 else [f"w[{k}]" for k in range(1, size + 1)]
    free = "w" if size == 2 else f"w[{size}]"
    declared = f"parameter {free} in (0, 1); parameter p[{size}] in (0, 1); "
    return f"{declared}observe x ~ Mixture([{', '.join(weights)}], {parts})"


def _classes(items: int) -> str:
    return f"""
        parameter w in (0, 1); parameter p[{items}, 2] in (0, 1)
        k ~ Categorical(w, 1 - w)
        for j in 1..{items}:
            observe y[j] ~ Bernoulli(p[j, k])
    """


_HUI_WALTER = """
    parameter w[2] in (0, 1); parameter se[2] in (0, 1); parameter sp[2] in (0, 1)
    for g in 1..2:
        ill[g] ~ Bernoulli(w[g])
        for t in 1..2:
            observe y[g, t] ~ Bernoulli(select(ill[g] + 1, 1 - sp[t], se[t]))
"""


def _dina(single: int, both: int, other: int) -> str:
    """Items that need attribute 1, both attributes, or attribute 2; the states are (0,0), (0,1), (1,0), (1,1)."""
    patterns = ["gghh"] * single + ["ghgh"] * other + ["gggh"] * both
    size = len(patterns)
    lines = [
        f"observe y[{j}] ~ Bernoulli(select(k, {', '.join(f'g[{j}]' if c == 'g' else f'1 - s[{j}]' for c in pattern)}))"
        for j, pattern in enumerate(patterns, 1)
    ]
    declared = f"parameter w[3] in (0, 1); parameter s[{size}] in (0, 1); parameter g[{size}] in (0, 1)"
    drawn = "k ~ Categorical(w[1], w[2], w[3], 1 - w[1] - w[2] - w[3])"
    return "\n".join([declared, drawn, *lines])


CASES = (
    Case(
        name="normal-mixture",
        model=_MIXTURE,
        about="parameters",
        source="B1; Pearson 1894; Teicher 1963",
        levels=levels(LOCAL="pi m[1..2] s[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Two normals, known but for their labels.",
    ),
    Case(
        name="normal-mixture-equal",
        model=_MIXTURE,
        about="parameters",
        at={"m": [0, 0], "s": [1, 1]},
        source="B2; Rotnitzky et al. 2000; by hand: N(0, 1) is no proper mixture of two normals, so the fibre is the line of weights",
        levels=levels(PARTIAL="pi", GLOBAL="m[1..2] s[1..2]"),
        level="PARTIAL",
        note="The Jacobian loses three dimensions, the fibre has one.",
    ),
    Case(
        name="normal-mixture-five-moments",
        model=_pearson(5),
        about="parameters",
        source="B1 (5/5/0, #=18); Pearson 1894; Améndola, Faugère & Sturmfels 2016",
        levels=levels(LOCAL="pi m[1..2] v[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Pearson's nonic: nine pairs of solutions.",
    ),
    Case(
        name="normal-mixture-six-moments",
        model=_pearson(6),
        about="parameters",
        source="B1 (#=2); Pearson 1894; Améndola, Faugère & Sturmfels 2016",
        levels=levels(LOCAL="pi m[1..2] v[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="The sixth moment leaves the labels alone.",
    ),
    Case(
        name="mirrored-mixture",
        model="observe x ~ Mixture([1/2, 1/2], Normal(m, 1), Normal(-m, 1))",
        about="parameters",
        source="B5; Rotnitzky et al. 2000",
        levels=levels(LOCAL="m"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="The two components are each other's mirror image.",
    ),
    Case(
        name="mirrored-mixture-centre",
        model="observe x ~ Mixture([1/2, 1/2], Normal(m, 1), Normal(-m, 1))",
        about="parameters",
        at={"m": 0},
        source="B5 and I.1; Rotnitzky et al. 2000: the fibre of m = 0 is {0}",
        levels=levels(GLOBAL="m"),
        level="GLOBAL",
        note="No Fisher information, and yet one value only.",
    ),
    Case(
        name="binomial-mixture-two-trials",
        model=_binomials(2, 2),
        about="parameters",
        source="B6 (3/2/1); Teicher 1961; Blischke 1964: N < 2K − 1",
        levels=levels(PARTIAL="w p[1..2]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="Two trials are one too few for two components.",
    ),
    Case(
        name="binomial-mixture-three-trials",
        model=_binomials(3, 2),
        about="parameters",
        source="B6 (3/3/0, #=2); Teicher 1961; Blischke 1964: N ≥ 2K − 1",
        levels=levels(LOCAL="w p[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Three trials are enough.",
    ),
    Case(
        name="binomial-mixture-four-trials",
        model=_binomials(4, 3),
        about="parameters",
        source="B6 (5/4/1, here with the third weight and the sum of weights 6/5/1); Blischke 1964",
        levels=levels(PARTIAL="w[1..3] p[1..3]"),
        level="PARTIAL",
        deficiency=1,
        note="Four trials are one too few for three components.",
    ),
    Case(
        name="binomial-mixture-five-trials",
        model=_binomials(5, 3),
        about="parameters",
        source="B6 (5/5/0, #=6); Blischke 1964",
        levels=levels(LOCAL="w[1..3] p[1..3]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Three components, their weights stated to sum to one.",
    ),
    Case(
        name="latent-class-three-items",
        model=_classes(3),
        about="parameters",
        source="B8 (7/7/0, #=2); Lazarsfeld & Henry 1968; Allman, Matias & Rhodes 2009",
        levels=levels(LOCAL="w p[1..3,1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Three binary items carry two classes.",
    ),
    Case(
        name="latent-class-four-items",
        model=_classes(4),
        about="parameters",
        source="B8 (9/9/0, #=2); Allman, Matias & Rhodes 2009",
        levels=levels(LOCAL="w p[1..4,1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="A fourth item settles nothing about the labels.",
    ),
    Case(
        name="goodman",
        model="""
            parameter w[2] in (0, 1); parameter p[4, 3] in (0, 1)
            k ~ Categorical(w[1], w[2], 1 - w[1] - w[2])
            for j in 1..4:
                observe y[j] ~ Bernoulli(p[j, k])
        """,
        about="parameters",
        source="B10 (14/13/1) and I.5; Goodman 1974; by hand: the null vector has no zero entry",
        levels=levels(PARTIAL="w[1..2] p[1..4,1..3]"),
        level="PARTIAL",
        deficiency=1,
        note="Fifteen free cells for fourteen parameters, and one dimension is lost all the same.",
    ),
    Case(
        name="four-classes-three-ternary-items",
        model="""
            parameter w[3] in (0, 1); parameter a[4, 2] in (0, 1); parameter b[4, 2] in (0, 1); parameter c[4, 2] in (0, 1)
            k ~ Categorical(w[1], w[2], w[3], 1 - w[1] - w[2] - w[3])
            observe x ~ Categorical(a[k, 1], a[k, 2], 1 - a[k, 1] - a[k, 2])
            observe y ~ Categorical(b[k, 1], b[k, 2], 1 - b[k, 1] - b[k, 2])
            observe z ~ Categorical(c[k, 1], c[k, 2], 1 - c[k, 1] - c[k, 2])
        """,
        about="parameters",
        source="I.5 (27/25/2); Allman, Matias & Rhodes 2009; by hand: no entry of the null space vanishes",
        levels=levels(PARTIAL="w[1..3] a[1..4,1..2] b[1..4,1..2] c[1..4,1..2]"),
        level="PARTIAL",
        deficiency=2,
        note="27 unknowns, 26 free cells, rank 25: the other case in which counting misleads.",
    ),
    Case(
        name="diagnostic-tests-one-population",
        model="""
            parameter w in (0, 1); parameter se[2] in (0, 1); parameter sp[2] in (0, 1)
            ill ~ Bernoulli(w)
            for t in 1..2:
                observe y[t] ~ Bernoulli(select(ill + 1, 1 - sp[t], se[t]))
        """,
        about="parameters",
        source="B13 (5/3/2); Hui & Walter 1980",
        levels=levels(PARTIAL="w se[1..2] sp[1..2]"),
        level="PARTIAL",
        deficiency=2,
        note="Three free cells for five unknowns.",
    ),
    Case(
        name="diagnostic-tests",
        model=_HUI_WALTER,
        about="parameters",
        source="B13 (6/6/0, #=2); Hui & Walter 1980: Se → 1 − Sp, π → 1 − π",
        levels=levels(LOCAL="w[1..2] se[1..2] sp[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="other",
        note="Two tests without a gold standard, in two populations.",
    ),
    Case(
        name="diagnostic-tests-informative",
        model=_HUI_WALTER + "    constraint se[1] + sp[1] - 1 > 0\n",
        about="parameters",
        source="B13; Hui & Walter 1980: unique if Se + Sp > 1",
        levels=levels(GLOBAL="w[1..2] se[1..2] sp[1..2]"),
        level="GLOBAL",
        deficiency=0,
        note="That one test is better than a coin settles which class is which.",
    ),
    Case(
        name="diagnostic-tests-equal-prevalence",
        model=_HUI_WALTER,
        about="parameters",
        at={"w": ["1/3", "1/3"]},
        source="B13 (6/4/2); Hui & Walter 1980: equal prevalences are one population",
        levels=levels(PARTIAL="w[1..2] se[1..2] sp[1..2]"),
        level="PARTIAL",
        note="Two populations of one prevalence are one.",
    ),
    Case(
        name="cognitive-diagnosis",
        model=_dina(1, 1, 1),
        about="parameters",
        source=(
            "B18 (9/7/2); Xu & Zhang 2016; by hand: det(P(y₃ = 1) − t P) has the two roots t = g₃ and "
            "g₃ + (1 − s₃ − g₃) π₀₀π₁₁/det π, and the second gives admissible s₁, s₂ on an open set"
        ),
        levels=levels(PARTIAL="w[1..3] s[3] g[1] g[2]", LOCAL="s[1] s[2] g[3]"),
        level="PARTIAL",
        deficiency=2,
        undecided=("s[1]", "s[2]", "g[3]"),
        reason="the second solution moves along a two-dimensional fibre, so that no single map shows it",
        note="One item for each attribute and one for both are not enough.",
    ),
    Case(
        name="cognitive-diagnosis-attribute-never-alone",
        model=_dina(3, 3, 0),
        about="parameters",
        source=(
            "B18 (15/14/1); Gu & Xu 2019; by hand: the first three items are a two-class model whose labels the "
            "others settle, for given attribute 1 they mix a known class with an unknown one"
        ),
        levels=levels(PARTIAL="w[1] w[2]", GLOBAL="w[3] s[1..6] g[1..6]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="translation",
        note="Whoever lacks attribute 1 shows nothing of attribute 2.",
    ),
)

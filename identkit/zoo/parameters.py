"""Which parameters does the law of the data determine, the latents integrated out? Models with settled answers.

The identifiers in `source` (A1, B10, …) are rows of the project's table of known answers, (n/r/d) the unknowns, the
rank and the deficiency that it states. Where a table is silent about one of the unknowns, the source says how its
level was derived.
"""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement, product

from identkit.zoo.case import Case, levels, names

# Factor models: the law is a covariance matrix

_FACTORS = (
    Case(
        name="factor-analysis",
        model="parameter W[5, 2]; parameter psi[5] > 0; z[2] ~ Normal(0, 1); observe x[5] ~ Normal(W @ z, psi)",
        about="parameters",
        source="A1 (15/14/1); Anderson & Rubin 1956; Bekker & ten Berge 1997",
        levels=levels(PARTIAL="W[1..5,1..2]", GLOBAL="psi[1..5]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="rotation",
        note="Two factors, five items: loadings up to a rotation, noise for good.",
    ),
    Case(
        name="factor-analysis-ledermann",
        model="parameter W[6, 3]; parameter psi[6] > 0; z[3] ~ Normal(0, 1); observe x[6] ~ Normal(W @ z, psi)",
        about="parameters",
        source="I.3; Wilson & Worcester 1939: at the Ledermann bound the noise has two solutions",
        levels=levels(PARTIAL="W[1..6,1..3]", LOCAL="psi[1..6]"),
        level="PARTIAL",
        deficiency=3,
        symmetry="rotation",
        undecided=names("psi[1..6]"),
        reason="the second solution is a root of a polynomial of high degree in the covariances, so none is shown",
        note="Full rank is not uniqueness.",
    ),
    Case(
        name="one-factor-two-indicators",
        model="parameter lambda[2]; parameter psi[2] > 0; z ~ Normal(0, 1); observe x[2] ~ Normal(lambda*z, psi)",
        about="parameters",
        source="A5 (4/3/1); Bollen 1989",
        levels=levels(PARTIAL="lambda[1..2] psi[1..2]"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="Only the product of the loadings is seen; no affine vector field says so.",
    ),
    Case(
        name="one-factor",
        model="parameter lambda[3]; parameter psi[3] > 0; z ~ Normal(0, 1); observe x[3] ~ Normal(lambda*z, psi)",
        about="parameters",
        source="A6 (6/6/0, #=2); Anderson & Rubin 1956",
        levels=levels(LOCAL="lambda[1..3]", GLOBAL="psi[1..3]"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="Three indicators give the loadings up to one sign.",
    ),
    Case(
        name="one-factor-positive",
        model="parameter lambda[3] > 0; parameter psi[3] > 0; z ~ Normal(0, 1); observe x[3] ~ Normal(lambda*z, psi)",
        about="parameters",
        source="A6 and I.4: the domain settles the sign",
        levels=levels(GLOBAL="lambda[1..3] psi[1..3]"),
        level="GLOBAL",
        deficiency=0,
        note="Two algebraic solutions, one inside the domain.",
    ),
    Case(
        name="ppca",
        model="parameter W[4, 2]; parameter sigma > 0; z[2] ~ Normal(0, 1); observe x[4] ~ Normal(W @ z, sigma)",
        about="parameters",
        source="A10 (9/8/1); Tipping & Bishop 1999",
        levels=levels(PARTIAL="W[1..4,1..2]", GLOBAL="sigma"),
        level="PARTIAL",
        deficiency=1,
        symmetry="rotation",
        note="The noise is the repeated eigenvalue, the loadings turn.",
    ),
    Case(
        name="ppca-three-factors",
        model="parameter W[4, 3]; parameter sigma > 0; z[3] ~ Normal(0, 1); observe x[4] ~ Normal(W @ z, sigma)",
        about="parameters",
        source="A10 (13/10/3); Tipping & Bishop 1999; by hand: the noise is the least eigenvalue",
        levels=levels(PARTIAL="W[1..4,1..3]", GLOBAL="sigma"),
        level="PARTIAL",
        deficiency=3,
        symmetry="rotation",
        undecided=("sigma",),
        reason="of four real eigenvalues of the covariance one is admissible, the least; that takes an argument about order",
        note="Four algebraic solutions for the noise, of which one leaves a covariance to the factors.",
    ),
)


def _independent_components(kurtoses: int) -> str:
    """Covariances and fourth cumulants of x = B s with unit variances, of which some sources are not Gaussian."""
    places = range(1, 4)
    second = [
        " + ".join(f"B[{i},{k}]*B[{j},{k}]" for k in places)
        for i, j in combinations_with_replacement(places, 2)
    ]
    fourth = [
        " + ".join("*".join([f"c[{k}]", *[f"B[{i},{k}]" for i in chosen]]) for k in range(1, kurtoses + 1))
        for chosen in combinations_with_replacement(places, 4)
    ]
    stated = "; ".join(f"summary {expression}" for expression in [*second, *fourth])
    return f"parameter B[3, 3]; parameter c[{kurtoses}]; {stated}"


_CUMULANTS = (
    Case(
        name="independent-components",
        model=_independent_components(3),
        about="parameters",
        source="A15 (12/12/0); Comon 1994; Eriksson & Koivunen 2004",
        levels=levels(LOCAL="B[1..3,1..3] c[1..3]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Known up to signed permutations of the sources.",
    ),
    Case(
        name="independent-components-one-gaussian",
        model=_independent_components(2),
        about="parameters",
        source="A15 (11/11/0); Comon 1994: one source may be Gaussian",
        levels=levels(LOCAL="B[1..3,1..3] c[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="sign flip",
        note="The Gaussian source is told apart by being the one; its sign is not.",
    ),
    Case(
        name="twins-ace",
        model="""
            parameter A > 0; parameter C > 0; parameter E > 0
            observe mz[2] ~ MvNormal([0, 0], [[A + C + E, A + C], [A + C, A + C + E]])
            observe dz[2] ~ MvNormal([0, 0], [[A + C + E, A/2 + C], [A/2 + C, A + C + E]])
        """,
        about="parameters",
        source="A18 (3/3/0); Neale & Cardon 1992",
        levels=levels(GLOBAL="A C E"),
        level="GLOBAL",
        deficiency=0,
        note="Identical and fraternal twins tell genes from home.",
    ),
    Case(
        name="twins-acde",
        model="""
            parameter A > 0; parameter C > 0; parameter D > 0; parameter E > 0
            observe mz[2] ~ MvNormal([0, 0], [[A + C + D + E, A + C + D], [A + C + D, A + C + D + E]])
            observe dz[2] ~ MvNormal([0, 0], [[A + C + D + E, A/2 + C + D/4], [A/2 + C + D/4, A + C + D + E]])
        """,
        about="parameters",
        source="A18 (4/3/1); Neale & Cardon 1992",
        levels=levels(PARTIAL="A C D", GLOBAL="E"),
        level="PARTIAL",
        deficiency=1,
        symmetry="translation",
        note="Dominance is one variance too many.",
    ),
)

# Mixtures and latent classes

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


_MIXTURES = (
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
        undecided=names("w[3] s[1..6] g[1..6]"),
        reason="the formulas that tell the classes apart have a degree in the 63 cell probabilities beyond what is tried",
        note="Whoever lacks attribute 1 shows nothing of attribute 2.",
    ),
)

# Dynamics


def _hidden_chain(length: int, start: str) -> str:
    return f"""
        parameter b[2] in (0, 1); parameter a in (0, 1); parameter c in (0, 1)
        z[1] ~ Bernoulli({start})
        for t in 2..{length}:
            z[t] ~ Bernoulli(select(z[t-1] + 1, a, 1 - c))
        for t in 1..{length}:
            observe x[t] ~ Bernoulli(select(z[t] + 1, b[1], b[2]))
    """


def _markov_parameters(order: int, count: int) -> str:
    """``C Aʲ B`` of a system with scalar input and output, as text."""
    steps = [f"v0 = B; summary C @ v0"]
    steps += [f"v{j} = A @ v{j - 1}; summary C @ v{j}" for j in range(1, count)]
    return f"parameter A[{order}, {order}]; parameter B[{order}]; parameter C[{order}]; " + "; ".join(steps)


_AR = "parameter phi in (-1, 1); parameter q > 0; parameter r > 0"
_AUTOCOVARIANCES = f"{_AR}; summary q/(1 - phi^2) + r; summary q*phi/(1 - phi^2); summary q*phi^2/(1 - phi^2)"
_COMPARTMENTS = "parameter k01 > 0; parameter k21 > 0; parameter k12 > 0; parameter k02 > 0; "

_DYNAMICS = (
    Case(
        name="hidden-markov-chain",
        model=_hidden_chain(3, "a/(a + c)"),
        about="parameters",
        source="C2 (4/4/0, #=2); Petrie 1969; Allman, Matias & Rhodes 2009, Theorem 6",
        levels=levels(LOCAL="a c b[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Three steps of a stationary chain, known but for the names of its states.",
    ),
    Case(
        name="hidden-markov-chain-free-start",
        model=_hidden_chain(3, "p"),
        about="parameters",
        source="C2 (5/5/0); Allman, Matias & Rhodes 2009",
        levels=levels(LOCAL="p a c b[1..2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="The law of the first state may be anything.",
    ),
    Case(
        name="hidden-markov-chain-equal-emissions",
        model=_hidden_chain(4, "a/(a + c)"),
        about="parameters",
        at={"b": ["1/3", "1/3"]},
        source=(
            "C4 (4/1/3) and I.2; by hand: fair draws of one coin also come from independent states (a + c = 1) "
            "whose emissions differ, so that the emissions too take a continuum of values along the fibre"
        ),
        levels=levels(PARTIAL="a c b[1..2]"),
        level="PARTIAL",
        undecided=("b[1]", "b[2]"),
        reason="the part of the fibre on which the emissions vary does not pass through the point",
        note="The Jacobian loses three dimensions, the fibre has two.",
    ),
    Case(
        name="autoregression-with-noise",
        model=_AUTOCOVARIANCES,
        about="parameters",
        source="C6 (3/3/0); Harvey 1989: φ = γ₂/γ₁",
        levels=levels(GLOBAL="phi q r"),
        level="GLOBAL",
        deficiency=0,
        note="Three autocovariances of a noisy autoregression.",
    ),
    Case(
        name="autoregression-with-noise-states",
        model=f"""
            {_AR}
            z[1] ~ Normal(0, sqrt(q/(1 - phi^2)))
            for t in 2..3:
                z[t] ~ Normal(phi*z[t-1], sqrt(q))
            for t in 1..3:
                observe x[t] ~ Normal(z[t], sqrt(r))
        """,
        about="parameters",
        source="C6; Harvey 1989",
        levels=levels(GLOBAL="phi q r"),
        level="GLOBAL",
        deficiency=0,
        note="The same from its states.",
    ),
    Case(
        name="autoregression-with-noise-white",
        model=_AUTOCOVARIANCES,
        about="parameters",
        at={"phi": 0},
        source="C6 (3/2/1); Harvey 1989: at φ = 0 only q + r",
        levels=levels(PARTIAL="q r", GLOBAL="phi"),
        level="PARTIAL",
        note="White noise plus white noise is white noise.",
    ),
    Case(
        name="linear-system-two-states",
        model=_markov_parameters(2, 4),
        about="parameters",
        source="C8 (8/4/4); Kalman 1963; Glover & Willems 1974",
        levels=levels(PARTIAL="A[1..2,1..2] B[1..2] C[1..2]"),
        level="PARTIAL",
        deficiency=4,
        note="The transfer function is seen, the coordinates of the state are not.",
    ),
    Case(
        name="linear-system-three-states",
        model=_markov_parameters(3, 6),
        about="parameters",
        source="C8 (15/6/9); Kalman 1963; Glover & Willems 1974",
        levels=levels(PARTIAL="A[1..3,1..3] B[1..3] C[1..3]"),
        level="PARTIAL",
        deficiency=9,
        note="All nine dimensions of GL(3).",
    ),
    Case(
        name="moving-average",
        model="parameter theta; parameter v > 0; summary v*(1 + theta^2); summary v*theta",
        about="parameters",
        source="C11 (2/2/0, #=2); Brockwell & Davis 1991: θ → 1/θ, σ² → θ²σ²",
        levels=levels(LOCAL="theta v"),
        level="LOCAL",
        deficiency=0,
        symmetry="other",
        note="Invertible or not, the autocovariances are the same.",
    ),
    Case(
        name="moving-average-unit-root",
        model="parameter theta; parameter v > 0; summary v*(1 + theta^2); summary v*theta",
        about="parameters",
        at={"theta": 1},
        source="C11 (2/1/1) and I.1; by hand: θ/(1 + θ²) = 1/2 has the double root 1",
        levels=levels(GLOBAL="theta v"),
        level="GLOBAL",
        note="The fixed point of the involution: singular, not unidentified.",
    ),
    Case(
        name="two-compartments",
        model=_COMPARTMENTS
        + "summary k01 + k21 + k12 + k02; summary (k01 + k21)*(k12 + k02) - k12*k21; summary k12 + k02",
        about="parameters",
        source="C18 (4/3/1); Godfrey 1983",
        levels=levels(PARTIAL="k01 k21 k12 k02"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="Two leaks are one too many.",
    ),
    Case(
        name="flip-flop",
        model="parameter ka > 0; parameter ke > 0; parameter V > 0; summary ka/V; summary ka + ke; summary ka*ke",
        about="parameters",
        source="C20 (3/3/0, #=2) and I.3; Godfrey 1983: (k_a, k_e, V) → (k_e, k_a, V k_e/k_a)",
        levels=levels(LOCAL="ka ke V"),
        level="LOCAL",
        deficiency=0,
        symmetry="other",
        note="Absorption and elimination trade places.",
    ),
    Case(
        name="flip-flop-bioavailability",
        model="parameter ka > 0; parameter ke > 0; parameter V > 0; parameter F in (0, 1); summary F*ka/V; summary ka + ke; summary ka*ke",
        about="parameters",
        source="C20 (4/3/1); Godfrey 1983: V ∂V + F ∂F",
        levels=levels(PARTIAL="V F", LOCAL="ka ke"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="Only F/V is seen, and the rates still trade places.",
    ),
    Case(
        name="michaelis-menten",
        model="""
            parameter s > 0; parameter V > 0; parameter K > 0
            for i in 1..3:
                observe v[i] ~ Normal(s*V*i/(K + i), 1)
        """,
        about="parameters",
        source="C24 (3/2/1); by hand: V ∂V − s ∂s",
        levels=levels(PARTIAL="s V", GLOBAL="K"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="Three doses give the shape, not the two factors of the height.",
    ),
    Case(
        name="enzyme-kinetics",
        model="""
            parameter k > 0; parameter E0 > 0; parameter K > 0
            known x[3] > 0
            for i in 1..3:
                observe v[i] ~ Normal(k*E0*x[i]/(K + x[i]), 1)
        """,
        about="parameters",
        source="C24 (3/2/1); by hand: only the product of k and E0 enters",
        levels=levels(PARTIAL="k E0", GLOBAL="K"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="The same at any three concentrations.",
    ),
    Case(
        name="two-exponentials",
        model="parameter A > 0; parameter B > 0; parameter a > 0; parameter b > 0; "
        + "; ".join(f"summary A*a^{j} + B*b^{j}" for j in range(4)),
        about="parameters",
        source="by hand: Prony's four moments; the terms of a sum have no order",
        levels=levels(LOCAL="A B a b"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="A sum of two decaying exponentials, by its derivatives at 0.",
    ),
    Case(
        name="two-exponentials-equal-rates",
        model="parameter A > 0; parameter B > 0; parameter a > 0; parameter b > 0; "
        + "; ".join(f"summary A*a^{j} + B*b^{j}" for j in range(4)),
        about="parameters",
        at={"a": 1, "b": 1},
        source="I.2 (deficiency 2, fibre dimension 1); by hand: a positive measure of variance 0 has one atom",
        levels=levels(PARTIAL="A B", GLOBAL="a b"),
        level="PARTIAL",
        note="At equal rates the two heights merge.",
    ),
)

# Structural equations and errors in variables


def _linear_equations(coefficients: dict[tuple[int, int], str], errors: dict[tuple[int, int], str]) -> str:
    """The covariances of ``x = Λᵀx + e``, ``Σ = (I − Λ)⁻ᵀ Ω (I − Λ)⁻¹``, as summary statements."""
    import sympy

    size = 1 + max(max(pair) for pair in errors)
    path = sympy.Matrix(size, size, lambda i, j: sympy.Symbol(coefficients.get((i, j), "zero")))
    noise = sympy.Matrix(size, size, lambda i, j: sympy.Symbol(errors.get((min(i, j), max(i, j)), "zero")))
    path, noise = path.subs("zero", 0), noise.subs("zero", 0)
    spread = (sympy.eye(size) - path).inv()
    covariance = (spread.T * noise * spread).applyfunc(sympy.factor)
    return "; ".join(f"summary {covariance[i, j]}" for i, j in combinations_with_replacement(range(size), 2))


_BOW = "parameter l; parameter w11 > 0; parameter w22 > 0; parameter w12; "
_INSTRUMENT = """
    parameter g; parameter beta; parameter wz > 0; parameter wx > 0; parameter wy > 0; parameter wxy
    summary wz; summary g*wz; summary beta*g*wz
    summary g^2*wz + wx; summary beta*(g^2*wz + wx) + wxy; summary beta^2*(g^2*wz + wx) + 2*beta*wxy + wy
"""
_CYCLE = "parameter a; parameter b; parameter c; parameter w[3] > 0; "
_ERRORS = """
    parameter mu; parameter alpha; parameter beta; parameter tau > 0; {noise}
    xi ~ Normal(mu, tau)
    observe x ~ Normal(xi, {first})
    observe y ~ Normal(alpha + beta*xi, {second})
"""
_IN_VARIABLES = _ERRORS.format(noise="parameter d > 0; parameter e > 0", first="d", second="e")

_STRUCTURAL = (
    Case(
        name="bow",
        model=_BOW + "summary w11; summary l*w11 + w12; summary l^2*w11 + 2*l*w12 + w22",
        about="parameters",
        source="D1 (4/3/1); Brito & Pearl 2002",
        levels=levels(PARTIAL="l w12 w22", GLOBAL="w11"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="A cause that shares a hidden cause with its effect.",
    ),
    Case(
        name="instrument",
        model=_INSTRUMENT,
        about="parameters",
        source="D2 (6/6/0); Wright 1928; Bowden & Turkington 1984: β = σ_ZY/σ_ZX",
        levels=levels(GLOBAL="g beta wz wx wy wxy"),
        level="GLOBAL",
        deficiency=0,
        note="An instrument untangles the bow.",
    ),
    Case(
        name="instrument-irrelevant",
        model=_INSTRUMENT,
        about="parameters",
        at={"g": 0},
        source="D2 (6/5/1); Bowden & Turkington 1984",
        levels=levels(PARTIAL="beta wy wxy", GLOBAL="g wz wx"),
        level="PARTIAL",
        note="An instrument that moves nothing is none.",
    ),
    Case(
        name="three-cycle",
        model=_CYCLE
        + _linear_equations(
            {(0, 1): "a", (1, 2): "b", (2, 0): "c"}, {(0, 0): "w[1]", (1, 1): "w[2]", (2, 2): "w[3]"}
        ),
        about="parameters",
        source="D6 (6/6/0, #=2) and I.3; Foygel, Draisma & Drton 2012; by hand: Ω′ = (I − Λ′)ᵀΣ(I − Λ′) is positive again",
        levels=levels(LOCAL="a b c w[1..3]"),
        level="LOCAL",
        deficiency=0,
        note="Two cycles with one covariance matrix.",
    ),
    Case(
        name="errors-in-variables",
        model=_IN_VARIABLES,
        about="parameters",
        source="D11 (6/5/1); Reiersøl 1950",
        levels=levels(PARTIAL="alpha beta tau d e", GLOBAL="mu"),
        level="PARTIAL",
        deficiency=1,
        symmetry="other",
        note="With normal errors on both axes the slope is lost.",
    ),
    Case(
        name="errors-in-variables-no-slope",
        model=_IN_VARIABLES,
        about="parameters",
        at={"beta": 0},
        source="D11; Reiersøl 1950; by hand: β τ² = 0 gives β = 0",
        levels=levels(PARTIAL="tau d", GLOBAL="mu alpha beta e"),
        level="PARTIAL",
        note="At slope 0 the slope is known; the two variances of x are not.",
    ),
    Case(
        name="deming",
        model=_ERRORS.format(noise="parameter e > 0", first="e", second="e"),
        about="parameters",
        source="D13 (5/5/0, two roots, one admissible) and I.4; Fuller 1987",
        levels=levels(GLOBAL="mu alpha beta tau e"),
        level="GLOBAL",
        deficiency=0,
        note="Of the two algebraic slopes, β and −1/β, the second needs a negative variance.",
    ),
)

# Regression and choice


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


_REGRESSION = (
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

# Counts, ecology, survival


def _capture_recapture(occasions: int) -> str:
    """Cell probabilities of Cormack, Jolly & Seber: released at i, next seen at j; p[j] belongs to occasion j + 1."""
    cells = []
    for i, j in combinations(range(1, occasions + 1), 2):
        alive = [f"phi[{k}]" for k in range(i, j)]
        missed = [f"(1 - p[{k}])" for k in range(i, j - 1)]
        cells.append("summary " + "*".join([*alive, *missed, f"p[{j - 1}]"]))
    return f"parameter phi[{occasions - 1}] in (0, 1); parameter p[{occasions - 1}] in (0, 1); " + "; ".join(
        cells
    )


def _seen_again(occasions: int) -> dict[str, str]:
    last = occasions - 1
    others = " ".join(f"phi[{k}] p[{k}]" for k in range(1, last))
    return levels(PARTIAL=f"phi[{last}] p[{last}]", GLOBAL=others)


_ZERO_INFLATED = (
    "parameter c in {weight}; parameter rate {rate}; summary (1 - c)*rate; summary (1 - c)*rate^2"
)

_COUNTS = (
    Case(
        name="beta-binomial-one-trial",
        model="p ~ Beta(alpha, beta); observe x ~ Binomial(1, p)",
        about="parameters",
        source="F1 (2/1/1); Skellam 1948: only α/(α + β)",
        levels=levels(PARTIAL="alpha beta"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="One trial shows the mean of the mixing law.",
    ),
    Case(
        name="beta-binomial",
        model="p ~ Beta(alpha, beta); observe x ~ Binomial(2, p)",
        about="parameters",
        source="F1 (2/2/0); Skellam 1948",
        levels=levels(GLOBAL="alpha beta"),
        level="GLOBAL",
        deficiency=0,
        note="Two trials show its spread as well.",
    ),
    Case(
        name="poisson-gamma",
        model="parameter rate > 0; z ~ Gamma(a, b); observe x ~ Poisson(rate*z)",
        about="parameters",
        source="F3 (3/2/1); by hand: λ ∂λ + b ∂b",
        levels=levels(PARTIAL="rate b", GLOBAL="a"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="Two scales of one quantity.",
    ),
    *[
        Case(
            name=f"capture-recapture-{word}-occasions",
            model=_capture_recapture(occasions),
            about="parameters",
            source=f"F6 ({2 * occasions - 2}/{2 * occasions - 3}/1); Lebreton et al. 1992; Catchpole & Morgan 1997",
            levels=_seen_again(occasions),
            level="PARTIAL",
            deficiency=1,
            symmetry="scaling",
            note="The last survival and the last capture come as a product.",
        )
        for occasions, word in ((3, "three"), (4, "four"), (6, "six"))
    ],
    Case(
        name="occupancy-one-visit",
        model="parameter p in (0, 1); z ~ Bernoulli(psi); observe y ~ Bernoulli(p*z)",
        about="parameters",
        source="F8 (2/1/1); MacKenzie et al. 2002: only ψp",
        levels=levels(PARTIAL="psi p"),
        level="PARTIAL",
        deficiency=1,
        symmetry="scaling",
        note="Absent, or overlooked?",
    ),
    Case(
        name="occupancy-two-visits",
        model="parameter p in (0, 1); parameter psi in (0, 1); z ~ Bernoulli(psi); observe y[2] ~ Bernoulli(p*z)",
        about="parameters",
        source="F8 (2/2/0, #=1); MacKenzie et al. 2002",
        levels=levels(GLOBAL="psi p"),
        level="GLOBAL",
        deficiency=0,
        note="A second visit tells.",
    ),
    Case(
        name="zero-inflated-poisson",
        model=_ZERO_INFLATED.format(weight="(0, 1)", rate="> 0"),
        about="parameters",
        source="F10 (2/2/0); Lambert 1992; by hand: the factorial moments (1 − π)λ, (1 − π)λ²",
        levels=levels(GLOBAL="c rate"),
        level="GLOBAL",
        deficiency=0,
        note="Zeros of two kinds.",
    ),
    Case(
        name="zero-inflated-poisson-all-zero",
        model=_ZERO_INFLATED.format(weight="(0, 1]", rate="> 0"),
        about="parameters",
        at={"c": 1},
        source="F10 (2/1/1); Lambert 1992: at π = 1 the rate is lost; by hand: (1 − π)λ = 0 and λ > 0 give π = 1",
        levels=levels(PARTIAL="rate", GLOBAL="c"),
        level="PARTIAL",
        note="Nothing is counted.",
    ),
    Case(
        name="zero-inflated-poisson-no-rate",
        model=_ZERO_INFLATED.format(weight="(0, 1)", rate=">= 0"),
        about="parameters",
        at={"rate": 0},
        source="F10 (2/1/1); Lambert 1992: at λ = 0 the inflation is lost; by hand: (1 − π)λ = 0 and π < 1 give λ = 0",
        levels=levels(PARTIAL="c", GLOBAL="rate"),
        level="PARTIAL",
        note="A count that is always 0 needs no inflation.",
    ),
)

# Factorisation, topics, networks


def _canonical_polyadic(rank: int) -> str:
    cells = [
        "summary " + " + ".join(f"A[{i},{r}]*B[{j},{r}]*C[{k},{r}]" for r in range(1, rank + 1))
        for i, j, k in product((1, 2, 3), repeat=3)
    ]
    return f"parameter A[3, {rank}]; parameter B[3, {rank}]; parameter C[3, {rank}]; " + "; ".join(cells)


def _topics(length: int) -> str:
    first, second = [f"t*b[1,{v}] + (1 - t)*b[2,{v}]" for v in (1, 2)]
    return f"""
        parameter b[2, 2] in (0, 1)
        t ~ Beta(alpha[1], alpha[2])
        for n in 1..{length}:
            observe w[n] ~ Categorical({first}, {second}, 1 - ({first}) - ({second}))
    """


def _blocks(nodes: int) -> str:
    lines = ["parameter q in (0, 1); parameter r[3] in (0, 1)", f"z[{nodes}] ~ Bernoulli(q)"]
    lines += [
        f"observe e{i}{j} ~ Bernoulli(select(z[{i}] + z[{j}] + 1, r[1], r[2], r[3]))"
        for i, j in combinations(range(1, nodes + 1), 2)
    ]
    return "\n".join(lines)


def _machine(visible: int, hidden: int) -> str:
    """Ratios ``p(v)/p(0)`` of a restricted Boltzmann machine, its hidden units summed out."""
    weights = [[f"W[{i},{h}]" for i in range(1, visible + 1)] for h in range(1, hidden + 1)]
    lines = [f"parameter W[{visible}, {hidden}]; parameter c[{visible}]; parameter b[{hidden}]"]
    for state in list(product((0, 1), repeat=visible))[1:]:
        on = [i for i, value in enumerate(state) if value]
        factors = ["exp(" + " + ".join(f"c[{i + 1}]" for i in on) + ")"]
        for h, row in enumerate(weights, 1):
            factors.append(f"(1 + exp({' + '.join([f'b[{h}]', *[row[i] for i in on]])}))/(1 + exp(b[{h}]))")
        lines.append("summary " + "*".join(factors))
    return "\n".join(lines)


_NETWORKS = (
    Case(
        name="matrix-factorisation",
        model="parameter U[5, 2]; parameter V[6, 2]; observe X[5, 6] ~ Normal(U @ transpose(V), 1)",
        about="parameters",
        source="G1 (22/18/4); by hand: (U A, V A⁻ᵀ)",
        levels=levels(PARTIAL="U[1..5,1..2] V[1..6,1..2]"),
        level="PARTIAL",
        deficiency=4,
        note="All of GL(2), in four affine fields.",
    ),
    *[
        Case(
            name=f"tensor-rank-{word}",
            model=_canonical_polyadic(rank),
            about="parameters",
            source=f"G5 ({9 * rank}/{7 * rank}/{2 * rank}); Kruskal 1977",
            levels=levels(PARTIAL=f"A[1..3,1..{rank}] B[1..3,1..{rank}] C[1..3,1..{rank}]"),
            level="PARTIAL",
            deficiency=2 * rank,
            symmetry="scaling",
            note="Unique up to scaling and order, which matrices are not.",
        )
        for rank, word in ((2, "two"), (3, "three"))
    ],
    *[
        Case(
            name=f"topics-{word}-words" if length > 1 else "topics-one-word",
            model=_topics(length),
            about="parameters",
            source=f"G6 (6/{6 - lost}/{lost}); cf. Anandkumar et al. 2012; by hand: every unknown varies in the null space",
            levels=levels(**{"LOCAL" if lost == 0 else "PARTIAL": "alpha[1..2] b[1..2,1..2]"}),
            level="LOCAL" if lost == 0 else "PARTIAL",
            deficiency=lost,
            symmetry="permutation" if lost == 0 else "",
            note="Documents of three words do not determine two topics; four do."
            if length > 2
            else "Short documents say little.",
        )
        for length, lost, word in ((1, 4, "one"), (2, 2, "two"), (3, 1, "three"), (4, 0, "four"))
    ],
    *[
        Case(
            name=f"block-model-{word}-nodes",
            model=_blocks(nodes),
            about="parameters",
            source=f"G11 (4/{4 - lost}/{lost}); Allman, Matias & Rhodes 2011; by hand: every unknown varies in the null space",
            levels=levels(PARTIAL="q r[1..3]"),
            level="PARTIAL",
            deficiency=lost,
            note="Too few nodes for two blocks.",
        )
        for nodes, lost, word in ((2, 3, "two"), (3, 1, "three"))
    ],
    Case(
        name="block-model-four-nodes",
        model=_blocks(4),
        about="parameters",
        source="G11 (4/4/0, #=2); Allman, Matias & Rhodes 2011: the swap of the blocks fixes the rate between them",
        levels=levels(LOCAL="q r[1] r[3]", GLOBAL="r[2]"),
        level="LOCAL",
        deficiency=0,
        symmetry="permutation",
        note="Four nodes are enough, but for the names of the blocks.",
    ),
    Case(
        name="block-model-symmetric",
        model=_blocks(4),
        about="parameters",
        at={"q": "1/2", "r": ["1/3", "1/5", "1/3"]},
        source="G12 (4/2/2) and I.1; by hand: the fixed point of the swap of blocks",
        levels=levels(GLOBAL="q r[1..3]"),
        level="GLOBAL",
        undecided=("q", "r[1]", "r[2]", "r[3]"),
        reason="singular point: the rank drops, and that the fibre is one point was not proved",
        note="Flat to first order, and not unidentified.",
    ),
    Case(
        name="boltzmann-two-visible",
        model=_machine(2, 1),
        about="parameters",
        source="G19 (5/3/2); Cueto, Morton & Sturmfels 2010",
        levels=levels(PARTIAL="W[1..2,1] c[1..2] b[1]"),
        level="PARTIAL",
        deficiency=2,
        note="Three ratios for five weights.",
    ),
    *[
        Case(
            name=f"boltzmann-{word}-visible",
            model=_machine(visible, hidden),
            about="parameters",
            source=f"G19 ({count}/{count}/0); Cueto, Morton & Sturmfels 2010: (W, b, c) → (−W, −b, c + W) for a hidden unit",
            levels=levels(LOCAL=f"W[1..{visible},1..{hidden}] c[1..{visible}] b[1..{hidden}]"),
            level="LOCAL",
            deficiency=0,
            symmetry="other",
            note="Turning a hidden unit over changes nothing.",
        )
        for visible, hidden, count, word in ((3, 1, 7, "three"), (4, 2, 14, "four"), (5, 2, 17, "five"))
    ],
)

CASES = (*_FACTORS, *_CUMULANTS, *_MIXTURES, *_DYNAMICS, *_STRUCTURAL, *_REGRESSION, *_COUNTS, *_NETWORKS)

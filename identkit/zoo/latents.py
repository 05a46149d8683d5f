"""Which latents does the law see? Models in the text notation, with answers that were known beforehand.

The identifiers in `source` (A12, H18, …) are rows of the project's table of known answers.
"""

from __future__ import annotations

from identkit.zoo.case import Case

_PAPER = "Wang, Blei & Cunningham 2021"
_FACTORS = "z[2] ~ Normal(0, 1); observe x ~ Normal(w[1]*z[1] + w[2]*z[2], s)"
_MIXTURE = """
parameter s[2] > 0
k ~ Categorical(1/3, 2/3)
observe x ~ Normal(select(k, m[1], m[2]), select(k, s[1], s[2]))
"""
_WEIGHT = "alpha ~ Beta(5, 5); observe x ~ Mixture([alpha, 1 - alpha], Normal(m[1], 1), Normal(m[2], 1))"
_UNEQUAL = "k ~ Categorical(1/2, 1/2); observe x ~ Normal(0, select(k, 1, 2))"
_XOR = "z[2] ~ Bernoulli(1/2); observe x ~ Bernoulli(1/10 + 4/5*(z[1] + z[2] - 2*z[1]*z[2]))"
_XOR_NORMAL = "z[2] ~ Bernoulli(1/2); observe x ~ Normal((2*z[1] - 1)*(2*z[2] - 1), s)"
_CHAIN = """
parameter b[2] in (0, 1)
z[1] ~ Bernoulli(1/2)
z[2] ~ Bernoulli(select(z[1] + 1, 1/5, 7/10))
observe x[1] ~ Bernoulli(select(z[1] + 1, b[1], b[2]))
observe x[2] ~ Bernoulli(select(z[2] + 1, b[1], b[2]))
"""
_ITEMS = """
theta ~ Normal(0, 1)
observe y[1] ~ Bernoulli(sigmoid(a[1]*theta - b[1]))
observe y[2] ~ Bernoulli(sigmoid(a[2]*theta - b[2]))
"""


def _seen(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "GLOBAL")


def _constant(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "CONSTANT")


def _partial(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "PARTIAL")


_LINEAR = (
    Case(
        name="linear",
        model="z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)",
        source="H1; by hand: z = E[x | z]/w",
        levels=_seen("z"),
        level="GLOBAL",
        values={"w": 1},
        note="The smallest latent variable model. Its KL grows with w; its verdict does not.",
    ),
    Case(
        name="linear-weak",
        model="z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)",
        source="H1; I.15: weak is not structural",
        levels=_seen("z"),
        level="GLOBAL",
        at={"w": "1/1000"},
        note="A millionth of a nat is not nothing.",
    ),
    Case(
        name="linear-collapsed",
        model="z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)",
        source=f"H1 and H2; {_PAPER}, Theorem 1",
        levels=_constant("z"),
        level="CONSTANT",
        at={"w": 0},
        note="At w = 0 the likelihood does not contain z.",
    ),
    Case(
        name="linear-two-views",
        model="z[2] ~ Normal(0, 1); observe x ~ Normal(z[1] + z[2], 1); observe y ~ Normal(z[1] - z[2], 2)",
        source="H1; by hand: the matrix (1 1; 1 −1) has rank 2",
        levels=_seen("z[1]", "z[2]"),
        level="GLOBAL",
        note="Two sums of two latents determine both.",
    ),
    Case(
        name="linear-one-view",
        model=_FACTORS,
        source="H1 and A14; by hand: the kernel of (w₁, w₂) is spanned by (w₂, −w₁)",
        levels=_partial("z[1]", "z[2]"),
        level="PARTIAL",
        values={"w": [1, 2], "s": 1},
        note="One number cannot determine two: the direction w₂ ∂₁ − w₁ ∂₂ is invisible.",
    ),
    Case(
        name="linear-one-view-zero",
        model=_FACTORS,
        source=f"A12; {_PAPER}",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        at={"w[2]": 0},
        values={"w[1]": 1, "s": 1},
        note="At w₂ = 0 the invisible direction is a coordinate.",
    ),
    Case(
        name="linear-one-view-datum",
        model=_FACTORS,
        source="A14; by hand: ℓ is a function of w₁z₁ + w₂z₂ on each datum",
        levels=_partial("z[1]", "z[2]"),
        level="PARTIAL",
        at={"w": [1, 1], "s": 1},
        data={"x": "1.2"},
        note="The same on one datum.",
    ),
    Case(
        name="factor-analysis-rank-two",
        model="""
            z[3] ~ Normal(0, 1)
            observe x[1] ~ Normal(z[1] + z[3], 1)
            observe x[2] ~ Normal(z[2] + z[3], 2)
            observe x[3] ~ Normal(z[1] + z[2] + 2*z[3], 3)
        """,
        source="A14; by hand: the kernel of the loadings is spanned by (1, 1, −1)",
        levels=_partial("z[1]", "z[2]", "z[3]"),
        level="PARTIAL",
        note="Three observations of rank two: one direction is lost, and it moves every coordinate.",
    ),
    Case(
        name="factor-analysis-pair",
        model="""
            z[3] ~ Normal(0, 1)
            observe x[1] ~ Normal(z[1] + z[2], 1)
            observe x[2] ~ Normal(2*z[1] + 2*z[2], 2)
            observe x[3] ~ Normal(z[3], 3)
        """,
        source="A14; by hand: the kernel of the loadings is spanned by (1, −1, 0)",
        levels={**_partial("z[1]", "z[2]"), **_seen("z[3]")},
        level="PARTIAL",
        note="The kernel leaves z[3] alone.",
    ),
    Case(
        name="twins-shared-environment",
        model="a ~ Normal(0,1); c ~ Normal(0,1); observe x ~ Normal(a + c, 1); observe y ~ Normal(a + c, 1)",
        source="A18 for the latents of one identical pair; by hand: only a + c enters",
        levels=_partial("a", "c"),
        level="PARTIAL",
        note="Identical twins cannot tell genes from a shared home.",
    ),
    Case(
        name="state-space",
        model="""
            parameter r > 0
            z[1] ~ Normal(0, 1)
            z[2] ~ Normal(phi*z[1], q)
            observe x[1] ~ Normal(z[1], r)
            observe x[2] ~ Normal(z[2], r)
        """,
        source="C6 for the states; by hand: z_t = E[x_t | z]",
        levels=_seen("z[1]", "z[2]"),
        level="GLOBAL",
        values={"phi": "1/2", "q": 1, "r": 1},
        note="An autoregression seen through noise, two steps of it.",
    ),
    Case(
        name="random-effects",
        model="""
            parameter t > 0
            alpha[2] ~ Normal(0, t)
            observe y[1] ~ Normal(mu + alpha[1], 1)
            observe y[2] ~ Normal(mu + alpha[2], 1)
        """,
        source="E16 and E17 for the latents; by hand: alpha_i = E[y_i | alpha] − mu",
        levels=_seen("alpha[1]", "alpha[2]"),
        level="GLOBAL",
        values={"mu": 1, "t": 2},
        note="At a fixed mean the effects are seen; that mean and effects trade places is another question.",
    ),
    Case(
        name="correlated-observations",
        model="z[2] ~ Normal(0, 1); observe x[2] ~ MvNormal([z[1], z[1] + z[2]], [[1, 1/2], [1/2, 1]])",
        source="H1; by hand: the mean determines z[1], then z[2]",
        levels=_seen("z[1]", "z[2]"),
        level="GLOBAL",
        note="Correlated noise hides nothing.",
    ),
    Case(
        name="correlated-prior",
        model="z[2] ~ MvNormal([0, 0], [[1, 4/5], [4/5, 1]]); observe x ~ Normal(z[1], sqrt(1/2))",
        source="H19; by hand: z[2] is not in the likelihood",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        note="The trap of dependent priors: ℓ ignores z[2], and yet E[z[2] | x = 1] = .5333.",
    ),
    Case(
        name="hierarchy",
        model="root ~ Normal(0, 1); z ~ Normal(4/5*root, 3/5); observe x ~ Normal(z, sqrt(1/2))",
        source="H19, written as a hierarchy; by hand: given z, root is not in the likelihood",
        levels={"root": "CONSTANT", "z": "GLOBAL"},
        level="PARTIAL",
        note="The root learns from x only through z: its conditional KL is 0, its marginal KL is not.",
    ),
)

_FINITE = (
    Case(
        name="mixture",
        model=_MIXTURE,
        source="B1 for the label; Teicher 1963",
        levels=_seen("k"),
        level="GLOBAL",
        values={"m": [-1, 1], "s": [1, 1]},
        note="Two components, generic parameters.",
    ),
    Case(
        name="mixture-equal",
        model=_MIXTURE,
        source=f"B2; {_PAPER}; Rotnitzky et al. 2000",
        levels=_constant("k"),
        level="CONSTANT",
        at={"m": [1, 1], "s": [2, 2]},
        note="Equal components: the label is invisible.",
    ),
    Case(
        name="mixture-mirror-datum",
        model=_MIXTURE,
        source="by hand: N(−1, 1) and N(1, 1) have the same density at 0",
        levels=_constant("k"),
        level="CONSTANT",
        at={"m": [-1, 1], "s": [1, 1]},
        data={"x": 0},
        note="Half way between two components the datum says nothing.",
    ),
    Case(
        name="mixture-unequal-variances",
        model=_UNEQUAL,
        source="B3'; by hand: the variances differ",
        levels=_seen("k"),
        level="GLOBAL",
        note="One mean, two variances; the two densities cross at |x| = 1.35956.",
    ),
    Case(
        name="mixture-unequal-variances-crossing",
        model=_UNEQUAL,
        source="B3'; by hand: x²(1 − 1/4) = ln 4 equates the two densities",
        levels=_constant("k"),
        level="CONSTANT",
        data={"x": "sqrt(4/3*log(4))"},
        note="At the crossing the posterior is the prior, though the model is GLOBAL.",
    ),
    Case(
        name="mixture-unequal-variances-crossings-pooled",
        model=_UNEQUAL,
        source="B3'; by hand: the densities are even, so both crossings have the same ratio, 1",
        levels=_constant("k"),
        level="CONSTANT",
        data={"x": ["sqrt(4/3*log(4))", "-sqrt(4/3*log(4))"]},
        pooled=True,
        note="Two such data that share a label say no more than one.",
    ),
    Case(
        name="mixture-unequal-variances-datum",
        model=_UNEQUAL,
        source="B3'; by hand: at the mean the narrow density is twice the wide one",
        levels={"k": "INFORMED"},
        level="INFORMED",
        data={"x": 0},
        note="Any other datum informs.",
    ),
    Case(
        name="mixture-weight",
        model=_WEIGHT,
        source=f"{_PAPER}, figure 1; Teicher 1963",
        levels=_seen("alpha"),
        level="GLOBAL",
        values={"m": [-1, 1]},
        note="The weight of two known components, one datum at a time.",
    ),
    Case(
        name="mixture-weight-equal",
        model=_WEIGHT,
        source=f"{_PAPER}, figure 1; by hand: α f + (1 − α) f = f",
        levels=_constant("alpha"),
        level="CONSTANT",
        at={"m": [0, 0]},
        note="Equal components: the weight is invisible.",
    ),
    Case(
        name="identical-embeddings",
        model="k ~ Categorical(1/4, 1/4, 1/2); observe x ~ Normal(select(k, 0, 0, 1), 1)",
        source="H17; by hand: states 1 and 2 have one law",
        levels=_partial("k"),
        level="PARTIAL",
        note="Two of three states are merged.",
    ),
    Case(
        name="xor",
        model=_XOR,
        source="H18; theory/T3; by hand: flipping both coins changes nothing, flipping one does",
        levels=_partial("z[1]", "z[2]"),
        level="PARTIAL",
        note="The trap: both marginal posteriors are the prior for every x, and yet neither coin is ignored.",
    ),
    Case(
        name="xor-normal",
        model=_XOR_NORMAL,
        source="theory/T3; by hand: the law depends on the product of the signs alone",
        levels=_partial("z[1]", "z[2]"),
        level="PARTIAL",
        values={"s": 1},
        note="The trap with normal noise.",
    ),
    Case(
        name="xor-normal-datum",
        model=_XOR_NORMAL,
        source="theory/T3; by hand: N(0; 1, s²) = N(0; −1, s²)",
        levels=_constant("z[1]", "z[2]"),
        level="CONSTANT",
        at={"s": 1},
        data={"x": 0},
        note="At x = 0 even the joint posterior is the prior.",
    ),
    Case(
        name="three-coins",
        model="z[3] ~ Bernoulli(1/2); observe x ~ Normal(z[1] + 2*z[2], 1)",
        source="by hand: z[1] + 2 z[2] takes four different values, and z[3] does not enter",
        levels={**_seen("z[1]", "z[2]"), **_constant("z[3]")},
        level="PARTIAL",
        note="Two coins are read, the third is not there.",
    ),
    Case(
        name="sum-of-two-coins",
        model="z[2] ~ Bernoulli(1/2); observe x ~ Normal(z[1] + z[2], 1)",
        source="by hand: (0, 1) and (1, 0) have one law",
        levels=_partial("z[1]", "z[2]"),
        level="PARTIAL",
        note="A sum merges the two mixed states.",
    ),
    Case(
        name="hidden-markov",
        model=_CHAIN,
        source="C2 for the states; by hand: b₁ ≠ b₂, so each x_t has another law in each state",
        levels=_seen("z[1]", "z[2]"),
        level="GLOBAL",
        values={"b": ["1/10", "4/5"]},
        note="Two steps of a hidden chain.",
    ),
    Case(
        name="hidden-markov-equal-emissions",
        model=_CHAIN,
        source="C4; by hand: with equal emission rows no x_t depends on a state",
        levels=_constant("z[1]", "z[2]"),
        level="CONSTANT",
        at={"b": ["3/10", "3/10"]},
        note="The posterior of the path is the prior chain.",
    ),
    Case(
        name="occupancy",
        model="parameter p in (0, 1); occupied ~ Bernoulli(1/3); observe y ~ Binomial(3, occupied*p)",
        source="F8 for the latent; by hand: success probabilities 0 and p differ",
        levels=_seen("occupied"),
        level="GLOBAL",
        values={"p": "1/2"},
        note="An empty site shows nothing, an occupied one sometimes.",
    ),
    Case(
        name="zero-inflation",
        model="parameter c > 0; z ~ Bernoulli(1/3); observe x ~ Poisson(select(z + 1, 1, 1 + c))",
        source="F10 for the latent, with a low rate in place of 0; by hand: rates 1 and 1 + c differ",
        levels=_seen("z"),
        level="GLOBAL",
        values={"c": 2},
        note="A Poisson count with two rates.",
    ),
)

_DECODERS = (
    Case(
        name="constant-decoder",
        model="z ~ Normal(0, 1); observe x ~ Normal(c, 1)",
        source=f"H2; {_PAPER}",
        levels=_constant("z"),
        level="CONSTANT",
        values={"c": 1},
        note="A decoder that ignores its input, and the posterior it deserves.",
    ),
    Case(
        name="ignored-latent",
        model="z[2] ~ Normal(0, 1); observe x ~ Normal(exp(z[1]), 1)",
        source=f"H4; {_PAPER}",
        levels={"z[1]": "GLOBAL", "z[2]": "CONSTANT"},
        level="PARTIAL",
        note="One of two latents is not used.",
    ),
    Case(
        name="exponential",
        model="z ~ Normal(0, 1); observe x ~ Normal(exp(z), 1)",
        source="by hand: exp is strictly increasing",
        levels=_seen("z"),
        level="GLOBAL",
        note="A monotone decoder.",
    ),
    Case(
        name="cube",
        model="z ~ Normal(0, 1); observe x ~ Normal(z^3, 1)",
        source="E20 and I.1; by hand: z³ is strictly increasing",
        levels=_seen("z"),
        level="GLOBAL",
        note="The Fisher information vanishes at 0, and the fibre of 0 is still one point.",
    ),
    Case(
        name="saturating",
        model="z ~ Normal(0, 1); observe x ~ Normal(tanh(3*z), 1/10)",
        source="by hand: tanh is strictly increasing",
        levels=_seen("z"),
        level="GLOBAL",
        note="Nearly flat in both tails, flat in neither.",
    ),
    Case(
        name="square",
        model="z ~ Normal(0, 1); observe x ~ Normal(z^2, 1/2)",
        source="E20 and theory/T3; by hand: z² = y has the roots ±√y",
        levels={"z": "LOCAL"},
        level="LOCAL",
        note="Mirror modes: E[z | x] = 0 at every x, while KL is .41, .37, 2.11 at x = 0, 1, 3.",
    ),
    Case(
        name="square-datum",
        model="z ~ Normal(0, 1); observe x ~ Normal(z^2, 1/2)",
        source="theory/T3; by hand: (x − z²)² is not constant in z",
        levels={"z": "INFORMED"},
        level="INFORMED",
        data={"x": 1},
        note="Zero posterior mean is not collapse.",
    ),
    Case(
        name="square-of-a-proportion",
        model="p ~ Beta(2, 3); observe x ~ Normal(p^2, 1/2)",
        source="by hand: p² is strictly increasing on (0, 1)",
        levels=_seen("p"),
        level="GLOBAL",
        note="The support decides: on (0, 1) the square has no mirror.",
    ),
    Case(
        name="square-and-line",
        model="z[2] ~ Normal(0, 1); observe x ~ Normal(z[1]^2, 1/2); observe y ~ Normal(z[2], 1/2)",
        source="H5; by hand: (z₁, z₂) and (−z₁, z₂) have one law, no other pair",
        levels={"z[1]": "LOCAL", "z[2]": "GLOBAL"},
        level="LOCAL",
        note="A fold in one coordinate only.",
    ),
    Case(
        name="square-and-line-datum",
        model="z[2] ~ Normal(0, 1); observe x ~ Normal(z[1]^2, 1/2); observe y ~ Normal(z[2], 1/2)",
        source="H5; by hand: ℓ varies along both axes and along every combination of them",
        levels={"z[1]": "INFORMED", "z[2]": "INFORMED"},
        level="INFORMED",
        data={"x": 1, "y": 2},
        note="On a datum LOCAL and GLOBAL are one rung.",
    ),
    Case(
        name="cosine",
        model="z ~ Normal(0, 1); observe x ~ Normal(cos(z), 1/2)",
        source="H6 and E20; by hand: cos z = y has countably many roots",
        levels={"z": "LOCAL"},
        level="LOCAL",
        note="A reflection and a period.",
    ),
    Case(
        name="circle",
        model="z ~ Normal(0, 1); observe x ~ Normal(cos(z), 1/2); observe y ~ Normal(sin(z), 1/2)",
        source="H6 and I.3; by hand: z and z + 2π have one law, and the fibre is 2πℤ",
        levels={"z": "LOCAL"},
        level="LOCAL",
        note="Full rank everywhere, and still not injective.",
    ),
    Case(
        name="helix",
        model="""
            z ~ Normal(0, 1)
            observe x[1] ~ Normal(cos(z), 1/2)
            observe x[2] ~ Normal(sin(z), 1/2)
            observe x[3] ~ Normal(z/100, 1/2)
        """,
        source="I.15; by hand: the third coordinate is strictly increasing",
        levels=_seen("z"),
        level="GLOBAL",
        note="A small pitch separates the turns of the circle.",
    ),
    Case(
        name="variance-decoder",
        model="z ~ Normal(0, 1); observe x ~ Normal(0, exp(z))",
        source="H15 and I.7; by hand: the scale exp(z) determines z",
        levels=_seen("z"),
        level="GLOBAL",
        note="The mean says nothing, the variance says all.",
    ),
    Case(
        name="folded-variance-decoder",
        model="z ~ Normal(0, 1); observe x ~ Normal(0, exp(z^2/4))",
        source="H15 and E20; by hand: the scale determines z², not its sign",
        levels={"z": "LOCAL"},
        level="LOCAL",
        note="A mirror in the variance.",
    ),
    Case(
        name="logistic",
        model="z ~ Normal(0, 1); observe x ~ Bernoulli(sigmoid(w*z + b))",
        source="H25; by hand: sigmoid is strictly increasing",
        levels=_seen("z"),
        level="GLOBAL",
        at={"w": "1/5", "b": -1},
        note="Identifiable and nearly collapsed: at x = 1 the KL is .01049.",
    ),
    Case(
        name="logistic-collapsed",
        model="z ~ Normal(0, 1); observe x ~ Bernoulli(sigmoid(w*z + b))",
        source="H2; by hand: at w = 0 the probability is sigmoid(b)",
        levels=_constant("z"),
        level="CONSTANT",
        at={"w": 0},
        values={"b": -1},
        note="Weight zero: structural collapse.",
    ),
    Case(
        name="item-response",
        model=_ITEMS,
        source="E2 for the ability; by hand: each a_j ≠ 0 makes a strictly monotone item",
        levels=_seen("theta"),
        level="GLOBAL",
        values={"a": [1, 2], "b": [0, 1]},
        note="Two items, one ability.",
    ),
    Case(
        name="item-response-without-discrimination",
        model=_ITEMS,
        source="E2; by hand: at a = 0 no item depends on theta",
        levels=_constant("theta"),
        level="CONSTANT",
        at={"a": [0, 0]},
        values={"b": [0, 1]},
        note="Items that do not discriminate measure nothing.",
    ),
    Case(
        name="poisson",
        model="z ~ Normal(0, 1); observe x ~ Poisson(exp(z))",
        source="by hand: the rate exp(z) determines z",
        levels=_seen("z"),
        level="GLOBAL",
        note="Counts with a log-normal rate.",
    ),
    Case(
        name="binomial",
        model="p ~ Beta(2, 3); observe x ~ Binomial(5, p)",
        source="by hand: the mean 5p determines p",
        levels=_seen("p"),
        level="GLOBAL",
        note="The conjugate pair: the posterior is Beta(2 + x, 8 − x).",
    ),
    Case(
        name="binomial-logistic",
        model="z ~ Normal(0, 1); observe x ~ Binomial(5, sigmoid(z))",
        source="by hand: the mean 5 sigmoid(z) is strictly increasing",
        levels=_seen("z"),
        level="GLOBAL",
        note="A logistic decoder with five trials.",
    ),
    Case(
        name="count",
        model="n ~ Poisson(3); observe x ~ Normal(n, 1)",
        source="by hand: the mean is n",
        levels=_seen("n"),
        level="GLOBAL",
        note="A latent count, infinitely many states.",
    ),
    Case(
        name="label-and-level",
        model="""
            k ~ Bernoulli(1/2)
            z ~ Normal(0, 1)
            observe x ~ Normal(z, 1)
            observe y ~ Normal(select(k + 1, -1, 1), 1)
        """,
        source="by hand: the mean of x is z, that of y tells k",
        levels=_seen("k", "z"),
        level="GLOBAL",
        note="A discrete and a continuous latent, each with an observation of its own.",
    ),
    Case(
        name="label-switches-level-off",
        model="""
            k ~ Bernoulli(1/2)
            z ~ Normal(0, 1)
            observe x ~ Normal(select(k + 1, -1, 1), 1)
            observe y ~ Normal(select(k + 1, 0, z), 1)
        """,
        source="by hand: x tells k, and at k = 0, half of the prior mass, z does not enter",
        levels={"k": "GLOBAL", "z": "PARTIAL"},
        level="PARTIAL",
        note="A latent that matters in one class only.",
    ),
    Case(
        name="merged-labels-and-level",
        model="""
            k ~ Categorical(1/3, 1/3, 1/3)
            z ~ Normal(0, 1)
            observe x ~ Normal(z, 1)
            observe y ~ Normal(select(k, 0, 0, 1), 1)
        """,
        source="by hand: x determines z; states 1 and 2 have one law at every z",
        levels={"k": "PARTIAL", "z": "GLOBAL"},
        level="PARTIAL",
        note="Merged states beside a continuous latent that is seen.",
    ),
)

CASES = (*_LINEAR, *_FINITE, *_DECODERS)

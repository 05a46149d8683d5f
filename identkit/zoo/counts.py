"""Counts, ecology, survival."""

from __future__ import annotations

from itertools import combinations

from identkit.zoo.case import Case, levels


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

CASES = (
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

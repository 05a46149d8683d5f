"""Hidden chains, state spaces, compartments: parameters behind a law that unfolds in time."""

from __future__ import annotations

from identkit.zoo.case import Case, levels


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
    steps = ["v0 = B; summary C @ v0"]
    steps += [f"v{j} = A @ v{j - 1}; summary C @ v{j}" for j in range(1, count)]
    return f"parameter A[{order}, {order}]; parameter B[{order}]; parameter C[{order}]; " + "; ".join(steps)


_AR = "parameter phi in (-1, 1); parameter q > 0; parameter r > 0"
_AUTOCOVARIANCES = f"{_AR}; summary q/(1 - phi^2) + r; summary q*phi/(1 - phi^2); summary q*phi^2/(1 - phi^2)"
_COMPARTMENTS = "parameter k01 > 0; parameter k21 > 0; parameter k12 > 0; parameter k02 > 0; "

CASES = (
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

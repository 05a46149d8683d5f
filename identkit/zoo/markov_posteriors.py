"""Hidden Markov models as objects with exact posteriors of the whole path, on both sides of the line.

Builders import when called, so that reading the table needs no torch.
"""

from __future__ import annotations

from typing import Any

from identkit.zoo.case import Case, levels

_START = (0.4, 0.6)
_CHAIN = ((0.9, 0.1), (0.2, 0.8))
_STATES_APART = (
    "by hand: the start and all transitions are positive, so every path has mass, and two paths that differ "
    "anywhere differ in the law of x there"
)


def _hmm(emission: str, *parameters: Any, start: Any = _START, chain: Any = _CHAIN, length: int = 3) -> Any:
    from identkit.classical import hidden_markov

    return hidden_markov.HiddenMarkov(start, chain, getattr(hidden_markov, emission)(*parameters), length)


CASES = (
    Case(
        name="hmm-coins",
        model=lambda: _hmm("CategoricalEmission", [[0.7, 0.3], [0.2, 0.8]]),
        source=_STATES_APART,
        levels=levels(GLOBAL="z[1..3]"),
        level="GLOBAL",
        note="Two coins that differ: each step sees its own state, the chain carries it to the others.",
    ),
    Case(
        name="hmm-coins-equal",
        model=lambda: _hmm("CategoricalEmission", [[0.3, 0.7], [0.3, 0.7]]),
        source="Wang, Blei & Cunningham 2021, Theorem 1; by hand: p(x | z) is one product for all paths",
        levels=levels(CONSTANT="z[1..3]"),
        level="CONSTANT",
        note="Equal emission rows: the posterior of the path is the prior chain, on every sequence.",
    ),
    Case(
        name="hmm-gaussian",
        model=lambda: _hmm("GaussianEmission", [0.0, 2.0], [1.0, 0.5]),
        source=_STATES_APART,
        levels=levels(GLOBAL="z[1..3]"),
        level="GLOBAL",
        note="The textbook chain with normal emissions.",
    ),
    Case(
        name="hmm-gaussian-equal",
        model=lambda: _hmm("GaussianEmission", [0.5, 0.5], [2.0, 2.0]),
        source="Wang, Blei & Cunningham 2021, Theorem 1; by hand: p(x | z) is one product for all paths",
        levels=levels(CONSTANT="z[1..3]"),
        level="CONSTANT",
        note="However sticky the chain, data that do not see the state do not move its path.",
    ),
    Case(
        name="hmm-poisson",
        model=lambda: _hmm("PoissonEmission", [1.0, 4.0], length=2),
        source=_STATES_APART,
        levels=levels(GLOBAL="z[1..2]"),
        level="GLOBAL",
        note="Counts at two rates.",
    ),
    Case(
        name="hmm-poisson-equal",
        model=lambda: _hmm("PoissonEmission", [2.5, 2.5], length=2),
        source="Wang, Blei & Cunningham 2021, Theorem 1; by hand: one rate for both states",
        levels=levels(CONSTANT="z[1..2]"),
        level="CONSTANT",
        note="One rate: the counts say nothing of the path.",
    ),
    Case(
        name="hmm-merged-states",
        model=lambda: _hmm(
            "GaussianEmission",
            [0.0, 0.0, 3.0],
            [1.0, 1.0, 1.0],
            start=(0.3, 0.3, 0.4),
            chain=((0.6, 0.2, 0.2), (0.1, 0.7, 0.2), (0.3, 0.3, 0.4)),
            length=2,
        ),
        source="by hand: states 1 and 2 have one law, state 3 another, and every path has mass",
        levels=levels(PARTIAL="z[1..2]"),
        level="PARTIAL",
        note="Merged states: the data tell {1, 2} from 3; within them only the chain speaks.",
    ),
)

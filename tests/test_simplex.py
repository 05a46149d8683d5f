"""Latents that add up to one: what the law on the whole box proves of them, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sympy import Integer, Rational

import identkit as ik
from identkit.symbolic.certificates import GapOnData, Ignored, InvisibleOnData, SpanOnData
from identkit.symbolic.checker import analyse
from identkit.symbolic.on_data import LikelihoodOnData, exact_rows
from identkit.symbolic.proof import Proof
from identkit.verdict import Level

THREE = "p[3] ~ Dirichlet(1, 1, 2); observe "


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        (THREE + "x[3] ~ Multinomial(3, p[1], p[2], p[3])", ["GLOBAL"] * 3),
        (THREE + "x ~ Normal(1 + 0*p[1], 1)", ["CONSTANT"] * 3),
        # p1 is seen; the others move against each other unseen, which a claim about the box does not say.
        (THREE + "x ~ Binomial(4, p[1])", ["GLOBAL", "UNKNOWN", "UNKNOWN"]),
        # On the simplex the sum is 1 and the factor 0: nothing is seen, though on the box everything seems to be.
        (THREE + "x ~ Normal(p[1] + p[2] + p[3], 1)", ["UNKNOWN"] * 3),
        (THREE + "x[2] ~ Normal([(p[1] + p[2] + p[3] - 1)*p[1], p[2] + p[3]], 1)", ["UNKNOWN"] * 3),
    ],
)
def test_levels_on_a_simplex(text: str, levels: list[str]):
    verdict = ik.check(ik.parse(text))
    assert [str(level) for level in verdict.latents.values()] == levels
    assert not verdict.invariances  # a direction that the law ignores on the box leads out of the simplex
    assert verdict.certificate is None or verdict.certificate.verify()


@pytest.mark.parametrize(
    ("counts", "levels"),
    [
        ((1, 1, 1), ["INFORMED"] * 3),
        ((2, 0, 1), ["INFORMED"] * 3),
        ((3, 0, 0), ["INFORMED", "PARTIAL", "PARTIAL"]),
        ((0, 0, 3), ["PARTIAL", "PARTIAL", "INFORMED"]),
    ],
)
def test_levels_on_counts(counts: tuple[int, int, int], levels: list[str]):
    """Counts all in one category speak of its share alone: the others move against each other unseen."""
    text = THREE + "x[3] ~ Multinomial(3, p[1], p[2], p[3])"
    verdict = ik.check(text, data={f"x[{i}]": count for i, count in enumerate(counts, 1)})
    assert [str(found) for found in verdict.latents.values()] == levels
    assert verdict.certificate is not None and verdict.certificate.verify()


RATES = "a ~ Gamma(2, 1); b ~ Gamma(2, 1); observe x ~ Poisson(a); observe y ~ Poisson(b); "


@pytest.mark.parametrize(
    ("text", "data", "levels"),
    [
        # Shares that the law ignores are two free numbers, not three: ℓ = −a − b still ignores a direction.
        ("p[3] ~ Dirichlet(1, 1, 2); " + RATES, {"x": 0, "y": 0}, "CONSTANT " * 3 + "PARTIAL " * 2),
        ("p[3] ~ Dirichlet(1, 1, 2); " + RATES, {"x": 0, "y": 1}, "CONSTANT " * 3 + "INFORMED " * 2),
        (
            THREE + "w ~ Binomial(2, p[3]); " + RATES,
            {"w": 1, "x": 0, "y": 0},
            "PARTIAL PARTIAL INFORMED " + "PARTIAL " * 2,
        ),
        (
            THREE + "w ~ Normal(p[1]*p[2], 1); " + RATES,
            {"w": 1, "x": 0, "y": 0},
            "INFORMED " * 3 + "PARTIAL " * 2,
        ),
        # Counts that add up are states; no room is left over for what they leave open.
        (
            "n[3] ~ Multinomial(2, 1/2, 1/4, 1/4); observe w ~ Normal(n[1], 1); " + RATES,
            {"w": 1, "x": 0, "y": 0},
            "UNKNOWN " * 3 + "PARTIAL " * 2,
        ),
    ],
)
def test_other_latents_beside_a_simplex(text: str, data: dict[str, int], levels: str):
    verdict = ik.check(text, data=data)
    assert [str(found) for found in verdict.latents.values()] == levels.split()
    assert verdict.certificate is not None and verdict.certificate.verify()


def test_what_the_law_ignores_on_the_box_is_no_direction_of_the_simplex():
    """p₂ against p₃ moves unseen, but p₂ alone cannot move: "the law does not contain p₂" proves neither level."""
    model = ik.parse(THREE + "x ~ Binomial(3, p[1])")
    one, two, three = model.latent_symbols
    row = exact_rows(model, {"x": 1})[0]
    data = (tuple(row.items()),)
    found = LikelihoodOnData(model).on([row])
    assert [str(level) for level in found.levels.values()] == ["INFORMED", "PARTIAL", "PARTIAL"]
    span = next(claim for claim in found.claims if isinstance(claim, SpanOnData))
    doctored = [*found.claims, Ignored((two,)), Ignored((three,))]
    for claims in (doctored, [claim for claim in doctored if not isinstance(claim, InvisibleOnData)]):
        for level in (Level.CONSTANT, Level.INFORMED):
            levels = {one.name: Level.INFORMED, two.name: level, three.name: level}
            for width in range(span.rank + 1):
                proof = Proof(model, (*claims, replace(span, rank=width)), levels, (data,))
                assert all(claim.holds(model) for claim in proof.claims) and not proof.verify()
    levels = {one.name: Level.GLOBAL, two.name: Level.CONSTANT, three.name: Level.CONSTANT}
    law = [*analyse(model).claims, Ignored((two,)), Ignored((three,))]
    assert not Proof(model, tuple(law), levels).verify()


def test_a_gap_off_the_simplex_proves_nothing():
    model = ik.parse(THREE + "x ~ Normal(p[1] + p[2] + p[3], 1)")
    p, x = model.latent_symbols, model.observation_symbols[0]
    one, other = (
        dict(zip(p, map(Rational, point), strict=True))
        for point in (("1/10", "1/5", "3/10"), ("1/5", "1/5", "3/10"))
    )
    assert not GapOnData((((x, Integer(1)),),), p[0], one, other).holds(model)


@pytest.mark.parametrize(("trials", "data"), [(0, [[0, 0, 0]]), (9, [[2, 3, 4], [1, 7, 1], [0, 4, 5]])])
def test_the_theorem_on_a_dirichlet_multinomial(trials: int, data: list[list[int]]):
    model = ik.DirichletMultinomial(trials, [0.5, 1.0, 2.0])
    checked = ik.verify(model, data)
    assert checked.agrees and not checked.counterexamples
    assert checked.verdict.level is (Level.GLOBAL if trials else Level.CONSTANT)
    assert None not in {row.agrees for row in checked.rows}

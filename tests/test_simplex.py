"""Latents that add up to one: what the law on the whole box proves of them, and what it does not."""

from __future__ import annotations

import pytest
from sympy import Integer, Rational

import identkit as ik
from identkit.symbolic.certificates import GapOnData
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

"""Latent classes against exact fractions, enumeration in 50 digits, the declared model and a mixture by another door."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from identkit.classical.mixtures import LatentClass
from identkit.posterior.bounds import band
from identkit.posterior.information import collapse

NAN = math.nan


def truth(weights: Any, items: Any, x: Any) -> dict[str, Any]:
    """Posterior and evidence in fractions, KL and V in 50 digits."""
    prior = [Fraction(float(w)) for w in weights]
    prior = [w / sum(prior) for w in prior]
    chances = [
        math.prod(
            (Fraction(float(item[k][int(a)])) for item, a in zip(items, x, strict=True) if not math.isnan(a)),
            start=Fraction(1),
        )
        for k in range(len(prior))
    ]
    total = sum(w * c for w, c in zip(prior, chances, strict=True))
    mass = [w * c / total for w, c in zip(prior, chances, strict=True)]
    with mp.workdps(50):
        to_mp = lambda f: mp.mpf(f.numerator) / f.denominator
        kl = sum(to_mp(r) * mp.log(to_mp(r / p)) for r, p in zip(mass, prior, strict=True) if r)
        logs = [mp.log(to_mp(c)) if c else -mp.inf for c in chances]
        mean = sum(to_mp(p) * l for p, l in zip(prior, logs, strict=True))
        variance = sum(to_mp(p) * (l - mean) ** 2 for p, l in zip(prior, logs, strict=True))
        return {"mass": mass, "kl": kl, "variance": variance, "evidence": mp.log(to_mp(total))}


def random_case(seed: int) -> tuple[Any, Any, Any]:
    """Classes from 1e-12 (relative) apart to far, some answers missing."""
    rng = np.random.default_rng(seed)
    count, sizes = rng.integers(2, 5), rng.integers(2, 5, size=rng.integers(1, 6))
    apart = 10.0 ** rng.uniform(-12, 0)
    items = []
    for size in sizes:
        base = rng.dirichlet(np.ones(size))
        table = base * (1 + apart * rng.uniform(-0.9, 0.9, size=(count, size)))
        items.append(table / table.sum(1, keepdims=True))
    x = np.array([rng.integers(size) for size in sizes], dtype=float)
    x[rng.random(len(x)) < 0.2] = NAN
    return rng.dirichlet(np.ones(count)), items, x


@pytest.mark.parametrize("seed", range(40))
def test_right_at_every_distance_in_fractions(seed: int) -> None:
    weights, items, x = random_case(seed)
    model, exact = LatentClass(weights, items), truth(weights, items, x)
    kl, error = mp.mpf(model.kl_to_prior(x[None]).item()), model.kl_error(x[None]).item()
    assert abs(kl - exact["kl"]) <= error
    assert abs(kl - exact["kl"]) <= max(1e-9 * exact["kl"], mp.mpf(1e-28))
    assert_allclose(model.posterior(x[None]).probs[0], [float(r) for r in exact["mass"]], rtol=1e-12)
    assert_allclose(model.log_evidence(x[None]).item(), float(exact["evidence"]), rtol=1e-12, atol=1e-14)
    flatness = model.flatness(x[None])
    assert abs(mp.mpf(flatness.variance.item()) - exact["variance"]) <= flatness.variance_error.item()
    low, high, _ = band(flatness)
    assert low.item() - error <= kl <= high.item() + error


def test_no_answers_or_equal_classes_give_the_prior_back_exactly() -> None:
    weights, items, _ = random_case(2)
    model = LatentClass(weights, items)
    silence = np.full((3, len(items)), NAN)
    assert torch.equal(model.posterior(silence).probs[2], model.prior.probs)
    assert model.kl_to_prior(silence).tolist() == [0.0] * 3
    assert (model.kl_error(silence) < 1e-200).all()
    assert model.log_evidence(silence).tolist() == pytest.approx([0.0] * 3, abs=1e-15)
    assert model.flatness(silence).oscillation.tolist() == [0.0] * 3
    same = LatentClass(weights, [np.repeat(table[:1], len(weights), axis=0) for table in items])
    x, _ = same.sample(10, torch.Generator().manual_seed(0))
    assert same.kl_to_prior(x).tolist() == same.flatness(x).variance.tolist() == [0.0] * 10
    assert same.mutual_information().value == 0.0


def test_a_missing_answer_is_summed_out() -> None:
    weights, items, _ = random_case(9)
    model = LatentClass(weights, items)
    x = np.zeros((1, len(items)))
    x[0, 0] = NAN
    filled = np.repeat(np.zeros((1, len(items))), items[0].shape[1], axis=0)
    filled[:, 0] = np.arange(items[0].shape[1])
    assert_allclose(model.log_evidence(x)[0], model.log_evidence(filled).logsumexp(0), rtol=1e-13)
    mixed = (model.posterior(filled).probs * model.log_evidence(filled).exp()[:, None]).sum(0)
    assert_allclose(model.posterior(x).probs[0], mixed / mixed.sum(), rtol=1e-13)


def test_answers_that_rule_classes_out() -> None:
    model = LatentClass(
        [0.25, 0.25, 0.5], [[[1, 0], [0.5, 0.5], [0, 1]], [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]]]
    )
    x = [[0, 0], [1, 2], [1, 1]]
    assert_allclose(model.posterior(x).probs, [[2 / 3, 1 / 3, 0], [0, 0, 1], [0, 0.2, 0.8]])
    assert_allclose(
        model.kl_to_prior(x),
        [
            math.log(8 / 3) * 2 / 3 + math.log(4 / 3) / 3,
            math.log(2),
            0.2 * math.log(0.8) + 0.8 * math.log(1.6),
        ],
    )
    assert model.flatness(x).oscillation.tolist() == [math.inf] * 3
    low, high, _ = band(model.flatness(x))
    assert (low == 0).all() and (high == math.inf).all()
    with pytest.raises(ValueError, match=r"x should be possible in some class, got \[0.0, 2.0\]"):
        model.posterior([[0, 2]])
    possible = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    terms = [truth_probability(model, cell) * model.kl_to_prior([cell]).item() for cell in possible]
    assert_allclose(model.mutual_information().value, sum(terms), rtol=1e-12)


def truth_probability(model: LatentClass, cell: Any) -> float:
    return sum(
        w * math.prod(table[k, a].item() for table, a in zip(model.items, cell, strict=True))
        for k, w in enumerate(model.weights.tolist())
    )


@pytest.mark.parametrize("seed", [1, 5, 7])
def test_the_declared_model_gives_the_same(seed: int) -> None:
    weights, items, _ = random_case(seed)
    model = LatentClass(weights.round(2) / weights.round(2).sum(), items, first=1)
    x, _ = model.sample(4, torch.Generator().manual_seed(seed))
    x[1, 0] = NAN
    found = collapse(model.symbolic(), x.nan_to_num(1.0), mask=~x.isnan())
    assert_allclose(model.kl_to_prior(x), found.kl, rtol=1e-7, atol=1e-25)
    assert_allclose(model.log_evidence(x), found.log_evidence, rtol=1e-10)


def test_mutual_information_is_entropy_lost() -> None:
    weights, items = [0.3, 0.7], [[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.2, 0.3], [0.1, 0.3, 0.6]]]
    model = LatentClass(weights, items)
    expected = mp.mpf(0)
    for cell in itertools.product(range(2), range(3)):
        each = [
            w * math.prod(t[k][a] for t, a in zip(items, cell, strict=True)) for k, w in enumerate(weights)
        ]
        expected += sum(e * mp.log(e / w / sum(each)) for e, w in zip(each, weights, strict=True))
    found = model.mutual_information()
    assert found.method == "closed form" and abs(found.value - expected) <= found.error < 1e-12
    many = LatentClass.bernoulli([0.5, 0.5], np.array([[0.4] * 20, [0.6] * 20]))
    simulated = many.mutual_information()
    assert simulated.method == "Monte Carlo"
    # The number of ones is sufficient: a binomial sum.
    ones = np.arange(21)
    chances = np.array([[math.comb(20, i) * p**i * (1 - p) ** (20 - i) for i in ones] for p in (0.4, 0.6)])
    exact = (0.5 * chances * np.log(chances / chances.mean(0))).sum()
    assert abs(simulated.value - exact) < 5 * simulated.error


def test_a_fit_recovers_the_table_of_expected_counts() -> None:
    # Every cell as often as the model says: maximum likelihood gives the model back.
    true = LatentClass(
        [0.25, 0.75], [[[0.9, 0.1], [0.2, 0.8]]] * 3 + [[[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]]
    )
    cells = np.array(list(itertools.product(range(2), range(2), range(2), range(3))), dtype=float)
    counts = np.round(true.log_evidence(cells).exp().numpy() * 320_000 / 8).astype(int) * 8 // 320
    x = np.repeat(cells, counts, axis=0)
    fitted = LatentClass.fit(x, 2, tolerance=1e-9, restarts=2)
    convergence = fitted.convergence
    assert convergence is not None and convergence.converged
    order = fitted.weights.argsort()
    assert_allclose(fitted.weights[order], true.weights, atol=0.02)
    assert_allclose(fitted.table[:, order], true.table, atol=0.02)
    assert convergence.log_likelihood >= true.log_evidence(x).sum().item()
    assert_allclose(convergence.log_likelihood, fitted.log_evidence(x).sum().item(), rtol=1e-13)
    assert (np.diff(convergence.history) >= 0).all()


def test_a_fit_with_missing_answers_climbs_the_likelihood_of_what_was_seen() -> None:
    true = LatentClass.bernoulli([0.4, 0.6], [[0.9] * 6, [0.2] * 6])
    x, z = true.sample(2000, torch.Generator().manual_seed(3))
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(4)) < 0.3
    x[gone] = NAN
    fitted = LatentClass.fit(x, 2, restarts=2)
    assert fitted.convergence is not None
    assert fitted.convergence.log_likelihood >= true.log_evidence(x).sum().item()
    order = fitted.weights.argsort()
    assert_allclose(fitted.items[0][order][:, 1], [0.9, 0.2], atol=0.06)
    agreement = (fitted.posterior(x).probs.argmax(1) == order[z[:, 0].long()]).double().mean()
    assert agreement > 0.93


def test_chunks_single_precision_integers_and_no_rows() -> None:
    weights, items, _ = random_case(9)
    model = LatentClass(weights, items)
    x, z = model.sample(60_000, torch.Generator().manual_seed(0))
    assert_allclose(model.kl_to_prior(x)[50_000:50_010], model.kl_to_prior(x[50_000:50_010]), rtol=1e-14)
    assert torch.equal(model.posterior(x[:9].int()).probs, model.posterior(x[:9].tolist()).probs)
    single = model.posterior(x[:9].float()).probs
    assert single.dtype == torch.float32
    assert_allclose(single, model.posterior(x[:9]).probs, rtol=1e-6)
    assert model.kl_to_prior(x[:0]).shape == model.kl_error(x[:0]).shape == (0,)
    assert model.posterior(x[:0]).probs.shape == (0, len(weights))
    for k in range(len(weights)):
        own = x[z[:, 0] == k][:, 0]
        for answer, chance in enumerate(items[0][k]):
            assert abs((own == answer).double().mean().item() - chance) < 5 / math.sqrt(len(own))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: LatentClass([0.5, 0.5], [[[0.5, 0.4], [0.5, 0.5]]]),
            r"items\[0\] should have rows that sum to one",
        ),
        (
            lambda: LatentClass([0.5, 0.5], [[[1.5, -0.5], [0.5, 0.5]]]),
            r"items\[0\] should be at least 0, got -0.5",
        ),
        (lambda: LatentClass([0.5, 0.5], [[[1.0], [1.0]]]), "at least two answers"),
        (
            lambda: LatentClass([0.5, 0.5], [[[0.5, 0.5]] * 2, [[0.5, 0.5]] * 3]),
            r"items\[1\] should have shape",
        ),
        (lambda: LatentClass([1.0], [[[0.5, 0.5]]]), "at least two components"),
        (
            lambda: LatentClass.bernoulli([0.5, 0.5], [[0.5], [1.5]]),
            r"success should be in \[0, 1\], got 1.5",
        ),
        (
            lambda: LatentClass.bernoulli([0.5, 0.5], [[0.5], [0.1]]).posterior([[2]]),
            r"answers numbered 0..1 in column 0",
        ),
        (
            lambda: LatentClass.bernoulli([0.5, 0.5], [[0.5], [0.1]]).posterior([[0.5]]),
            r"got 0.5 at index \(0, 0\)",
        ),
        (lambda: LatentClass.bernoulli([0.5, 0.5], [[0.5], [0.1]]).posterior([[math.inf]]), "finite"),
        (lambda: LatentClass.bernoulli([0.5, 0.5], [[0.5], [0.1]]).posterior([[0, 1]]), "shape"),
        (lambda: LatentClass.fit([[0], [1]], 3), r"components should be in 2..2"),
        (lambda: LatentClass.fit([[0, NAN], [1, NAN]], 2), "got none to item 1"),
    ],
)
def test_bad_input_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_answers_counted_from_one() -> None:
    weights, items, _ = random_case(9)
    zero, one = LatentClass(weights, items), LatentClass(weights, items, first=1)
    x, _ = one.sample(500, torch.Generator().manual_seed(0))
    assert x.min() == 1
    assert torch.equal(one.kl_to_prior(x), zero.kl_to_prior(x - 1))
    assert one.mutual_information() == zero.mutual_information()
    assert_allclose(one.kl_to_prior(x[:3]), collapse(one.symbolic(), x[:3]).kl, rtol=1e-6)
    start = LatentClass([0.5, 0.5], [table[:2] for table in items], first=1)
    ours = LatentClass.fit(x, 2, first=1, start=start, tolerance=1e-2)
    other = LatentClass([0.5, 0.5], [table[:2] for table in items])
    assert torch.equal(ours.table, LatentClass.fit(x - 1, 2, start=other, tolerance=1e-2).table)
    with pytest.raises(ValueError, match=r"answers numbered 1\.\.\d in column \d, or NaN, got 0"):
        one.posterior(x - 1)
    with pytest.raises(ValueError, match="build it with first=1 and add 1 to the data"):
        zero.symbolic()
    with pytest.raises(ValueError, match="first should be 0 or 1, got 2"):
        LatentClass(weights, items, first=2)


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(TypeError, match="items should be a list of tables"):
        LatentClass([0.5, 0.5], torch.ones(2, 2, 2) / 2)
    with pytest.raises(TypeError, match="x should be an array of real numbers"):
        LatentClass.bernoulli([0.5, 0.5], [[0.5], [0.1]]).posterior([["yes"]])


@pytest.mark.parametrize("answer", [math.inf, -math.inf])
def test_missing_answers_hide_no_infinite_one(answer: float) -> None:
    model = LatentClass.bernoulli([0.5, 0.5], [[0.9, 0.2], [0.3, 0.4]])
    with pytest.raises(ValueError, match=r"x should be finite, got -?inf at index \(1, 0\)"):
        model.kl_to_prior([[math.nan, 1.0], [answer, 0.0]])

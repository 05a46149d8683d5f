"""Hidden Markov models against enumeration and recursions in 50 digits, hmmlearn, and their own symmetries."""

from __future__ import annotations

import itertools
import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from hmmlearn import hmm as peer
from numpy.testing import assert_allclose

import identkit as ik
from identkit.classical.em import ConvergenceWarning
from identkit.classical.hidden_markov import (
    CategoricalEmission,
    GaussianEmission,
    HiddenMarkov,
    PoissonEmission,
    band as markov_band,
    fit,
    information as markov_information,
    lanes as markov_lanes,
    learning as markov_learning,
    sweep as markov_sweep,
)
from identkit.classical.hidden_markov.data import sequences
from identkit.classical.hidden_markov.learning import learner
from identkit.posterior.bounds import band

PI = [0.2, 0.5, 0.3]
A = [[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.05, 0.15, 0.8]]
FULL = [[[1.0, 0.3], [0.3, 2.0]], [[0.5, 0.0], [0.0, 0.5]], [[2.0, -0.7], [-0.7, 1.0]]]
NAN = float("nan")


def log_b(emission: Any, x: Any) -> list[list[Any]]:
    """``log b_k(x_t)`` in 50 digits, from the parameters alone; 0 where x_t is NaN."""
    table = []
    for step in np.asarray(x, dtype=float).reshape(len(x), -1):
        if np.isnan(step).any():
            table.append([mp.mpf(0)] * emission.states)
            continue
        row = []
        for k in range(emission.states):
            if isinstance(emission, CategoricalEmission):
                p = emission.table[k, int(step[0]) - emission.first].item()
                row.append(mp.log(p) if p else mp.ninf)
            elif isinstance(emission, PoissonEmission):
                pairs = zip(step, emission.rates[k].tolist(), strict=True)
                row.append(sum(int(c) * mp.log(r) - r - mp.loggamma(int(c) + 1) for c, r in pairs))
            else:
                c = mp.matrix(emission.covariances[k].tolist())
                y = mp.matrix(
                    [
                        mp.mpf(float(v)) - mp.mpf(m)
                        for v, m in zip(step, emission.means[k].tolist(), strict=True)
                    ]
                )
                square = (y.T * mp.lu_solve(c, y))[0]
                row.append(-(square + mp.log(mp.det(c)) + len(step) * mp.log(2 * mp.pi)) / 2)
        table.append(row)
    return table


def kl(q: Any, p: Any) -> Any:
    return sum(a * mp.log(a / b) for a, b in zip(q, p, strict=True) if a > 0)


def enumerated(model: HiddenMarkov, x: Any) -> dict[str, Any]:
    """Everything about one sequence by summing over all paths, in 50 digits."""
    logs = log_b(model.emission, x)
    length, k = len(logs), len(model.initial)
    pi = [mp.mpf(p) for p in model.initial.tolist()]
    a = [[mp.mpf(p) for p in row] for row in model.transition.tolist()]
    pi = [p / sum(pi) for p in pi]
    a = [[p / sum(row) for p in row] for row in a]
    prior, height = {}, {}
    for z in itertools.product(range(k), repeat=length):
        prior[z] = pi[z[0]] * math.prod((a[i][j] for i, j in itertools.pairwise(z)), start=mp.mpf(1))
        height[z] = sum(logs[t][z[t]] for t in range(length))
    prior = {z: p for z, p in prior.items() if p > 0}
    total = sum(p * mp.exp(height[z]) for z, p in prior.items())
    post = {z: p * mp.exp(height[z]) / total for z, p in prior.items()}

    def summed(law: Any, key: Any) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        for z, mass in law.items():
            table[key(z)] = table.get(key(z), mp.mpf(0)) + mass
        return table

    marginal, conditional, smoothed = [], [], np.zeros((length, k))
    for t in range(length):
        q, p = summed(post, lambda z, t=t: z[t]), summed(prior, lambda z, t=t: z[t])
        marginal.append(kl([q[i] for i in p], [p[i] for i in p]))
        for i, mass in q.items():
            smoothed[t, i] = float(mass)
        rest_q = summed(post, lambda z, t=t: z[:t] + z[t + 1 :])
        rest_p = summed(prior, lambda z, t=t: z[:t] + z[t + 1 :])
        conditional.append(
            sum(
                mass * mp.log((mass / rest_q[z[:t] + z[t + 1 :]]) / (prior[z] / rest_p[z[:t] + z[t + 1 :]]))
                for z, mass in post.items()
                if mass > 0
            )
        )
    mean = sum(p * height[z] for z, p in prior.items())
    pairs = [summed(post, lambda z, t=t: z[t : t + 2]) for t in range(length - 1)]
    return {
        "evidence": mp.log(total),
        "smoothed": smoothed,
        "pairs": [[[float(pair.get((i, j), 0)) for j in range(k)] for i in range(k)] for pair in pairs],
        "kl": kl(post.values(), prior.values()),
        "marginal": marginal,
        "conditional": conditional,
        "variance": sum(p * (height[z] - mean) ** 2 for z, p in prior.items()),
        "omega": max(height[z] for z in prior) - min(height[z] for z in prior),
        "mode": max(post, key=lambda z: post[z]),
        "post": post,
    }


def smoothed(model: HiddenMarkov, x: Any) -> tuple[Any, float]:
    """Posterior marginals and log evidence by forward and backward recursions in 50 digits."""
    logs = log_b(model.emission, x)
    a = [[mp.mpf(p) for p in row] for row in model.transition.tolist()]
    k, alpha, beta = len(a), [], [[mp.mpf(1)] * len(a)]
    now = [mp.mpf(p) * mp.exp(l) for p, l in zip(model.initial.tolist(), logs[0], strict=True)]
    for row in logs[1:]:
        alpha.append(now)
        now = [sum(now[i] * a[i][j] for i in range(k)) * mp.exp(row[j]) for j in range(k)]
    alpha.append(now)
    for row in logs[:0:-1]:
        last = [mp.exp(row[j]) * beta[0][j] for j in range(k)]
        beta.insert(0, [sum(a[i][j] * last[j] for j in range(k)) for i in range(k)])
    joint = [[f * b for f, b in zip(*pair, strict=True)] for pair in zip(alpha, beta, strict=True)]
    return np.array([[float(v / sum(row)) for v in row] for row in joint]), float(mp.log(sum(now)))


EMISSIONS = {
    "categorical": (
        CategoricalEmission([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.0, 0.6, 0.4]]),
        [2, 0, NAN, 1],
    ),
    "full": (
        GaussianEmission([[0.0, 1.0], [1.0, 1.0], [-1.0, 0.5]], FULL),
        [[0.3, -1.0], [2.0, 4.0], [NAN, NAN], [0.0, 0.0]],
    ),
    "diagonal": (GaussianEmission([[0.0, 1.0], [1.0, 1.0], [-1.0, 0.5]], [[1.0, 2.0]] * 3), [[3, 1], [2, 0]]),
    "spherical": (GaussianEmission([0.0, 1.0, -4.0], [1.0, 2.0, 1e-4]), [0.3, 1e4, NAN, -4.001]),
    "poisson": (PoissonEmission([[0.5, 3.0], [2.0, 2.0], [9.0, 1.0]]), [[0, 4], [7, 1], [100, 0]]),
}


@pytest.mark.parametrize("name", EMISSIONS)
def test_everything_by_enumeration_in_50_digits(name: str) -> None:
    emission, x = EMISSIONS[name]
    hmm = HiddenMarkov(PI, A, emission)
    x = np.array(x, dtype=float)
    with mp.workdps(50):
        exact = enumerated(hmm, x)
        path = hmm.posterior(x)
        assert_allclose(path.log_evidence.item(), float(exact["evidence"]), rtol=1e-13)
        assert_allclose(path.probs[0], exact["smoothed"], rtol=1e-10, atol=1e-13)
        assert_allclose(path.pairwise[0], exact["pairs"], rtol=1e-10, atol=1e-13)
        assert tuple(path.mode[0].tolist()) == exact["mode"]
        z = torch.tensor([[list(z)] for z in exact["post"]])
        assert_allclose(path.log_prob(z)[:, 0].exp(), [float(p) for p in exact["post"].values()], atol=1e-13)
        error = hmm.kl_error(x).item()
        for got, wanted in (
            (hmm.kl_to_prior(x), [exact["kl"]]),
            (hmm.kl_per_latent(x)[0], exact["marginal"]),
            (hmm.kl_conditional(x)[0], exact["conditional"]),
        ):
            assert_allclose(got, [float(w) for w in wanted], rtol=1e-10, atol=1e-13)
            assert all(abs(mp.mpf(g) - w) <= error for g, w in zip(got.tolist(), wanted, strict=True))
        flatness = hmm.flatness(x)
        if name == "categorical":  # the third state cannot show the first symbol
            assert flatness.variance.item() == flatness.oscillation.item() == math.inf
        else:
            assert_allclose(flatness.variance.item(), float(exact["variance"]), rtol=1e-12)
            assert_allclose(flatness.oscillation.item(), float(exact["omega"]), rtol=1e-12)
        low, high, _ = band(flatness)
        assert low.item() - error <= exact["kl"] <= high.item() + error
    numbers = torch.arange(3.0, dtype=torch.float64)
    assert_allclose(path.covariance[0].diagonal(), path.variance[0], atol=1e-13)
    both = (path.pairwise[0, 0] * numbers[:, None] * numbers).sum() - path.mean[0, 0] * path.mean[0, 1]
    assert_allclose(path.covariance[0, 0, 1], both, atol=1e-13)


@pytest.mark.parametrize("gap", [1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize("kind", ["gaussian", "categorical", "poisson"])
def test_nearly_equal_rows_down_to_1e_25(kind: str, gap: float) -> None:
    emission, x = {
        "gaussian": (
            GaussianEmission([0.1, 0.1 + gap, 0.1 - 3 * gap], [1.0, 1.0, 1.0]),
            [1.3, -0.2, NAN, 2.0],
        ),
        "categorical": (CategoricalEmission([[0.3, 0.7], [0.3 + gap, 0.7 - gap], [0.3, 0.7]]), [0, 1, 1, 0]),
        "poisson": (PoissonEmission([2.0, 2.0 + gap, 2.0 - gap]), [3, 0, 1, 2]),
    }[kind]
    hmm = HiddenMarkov(PI, A, emission)
    x = np.array(x)
    with mp.workdps(80):
        exact = enumerated(hmm, x)
    assert_allclose(hmm.kl_to_prior(x).item(), float(exact["kl"]), rtol=1e-10)
    assert_allclose(hmm.kl_per_latent(x)[0], [float(v) for v in exact["marginal"]], rtol=1e-10, atol=1e-30)
    assert_allclose(
        hmm.kl_conditional(x)[0], [float(v) for v in exact["conditional"]], rtol=1e-10, atol=1e-30
    )
    assert_allclose(hmm.flatness(x).variance.item(), float(exact["variance"]), rtol=1e-10)
    assert abs(hmm.kl_to_prior(x).item() - exact["kl"]) <= hmm.kl_error(x).item() < exact["kl"] / 10


@pytest.mark.parametrize("apart", [1e-9, 0.1, 3.0, 100.0])
def test_sums_by_matrix_products_stay_within_their_stated_error(
    monkeypatch: pytest.MonkeyPatch, apart: float
) -> None:
    x = np.random.default_rng(11).normal(size=60) * (1 + apart / 2)
    for transition in (A, LONG["left to right"][1]):
        hmm = HiddenMarkov(PI, transition, GaussianEmission([0.0, apart, -2 * apart], [1.0, 1.0, 1.0]))
        joint, each = hmm.kl_to_prior(x), hmm.kl_conditional(x)
        with monkeypatch.context() as patch:
            patch.setattr(markov_information, "_SMALL", 0)
            error = hmm.kl_error(x)
            assert (hmm.kl_to_prior(x) - joint).abs() <= error
            assert ((hmm.kl_conditional(x) - each).abs() <= error[:, None]).all()
            assert_allclose(hmm.kl_to_prior(x), joint, rtol=1e-9)


def test_two_close_states_far_from_a_third_and_from_the_datum() -> None:
    hmm = HiddenMarkov(PI, A, GaussianEmission([[0.0, 0.0], [9e3, 1.0], [9e3, 1.0001]], FULL[:1] * 3))
    x = np.array([[1e4, 3.0], [9e3, 0.0]])
    with mp.workdps(50):
        exact = enumerated(hmm, x)
    assert_allclose(hmm.posterior(x).probs[0, :, 1:], exact["smoothed"][:, 1:], rtol=1e-12)
    assert_allclose(hmm.kl_to_prior(x).item(), float(exact["kl"]), rtol=1e-12)


def chain(k: int, stay: float) -> tuple[Any, Any]:
    a = np.full((k, k), (1 - stay) / (k - 1))
    np.fill_diagonal(a, stay)
    return np.full(k, 1 / k), a


LONG = {
    "mixing": chain(3, 0.4),
    "sticky": chain(3, 0.9999),
    "rare": chain(3, 1 - 2e-30),  # dynamax would raise these transitions to 1e-15
    "left to right": ([1.0, 0.0, 0.0], [[0.99, 0.01, 0.0], [0.0, 0.99, 0.01], [0.0, 0.0, 1.0]]),
    "ring": ([1.0, 0.0, 0.0], [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]),
    "no transitions": ([0.5, 0.3, 0.2], np.eye(3)),
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("apart", [0.05, 2.0])
@pytest.mark.parametrize("road", ["band", "lanes"])
def test_long_chains_are_exact_however_they_mix(
    name: str, apart: float, road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if road == "lanes":
        monkeypatch.setattr(markov_sweep, "LITTLE", 0)
    rng = np.random.default_rng(0)
    emission = GaussianEmission([0.0, apart, -apart], [1.0, 1.0, 1.3])
    initial, transition = LONG[name]
    hmm = HiddenMarkov(initial, transition, emission)
    x = rng.normal(size=400) + apart * np.repeat([0.0, 1.0, -1.0, 0.0], 100)
    x[150:160], x[200] = NAN, 1e4
    with mp.workdps(50):
        probs, evidence = smoothed(hmm, x)
    assert_allclose(hmm.posterior(x).probs[0], probs, rtol=0, atol=1e-12)
    assert_allclose(hmm.log_evidence(x).item(), evidence, rtol=1e-13)
    if apart == 0.05:
        gamma, logs = torch.from_numpy(probs), emission.log_density(np.nan_to_num(x))
        logs[np.isnan(x)] = 0
        seen = torch.where(gamma > 0, gamma * logs, 0.0).sum().item() - evidence
        assert_allclose(hmm.kl_to_prior(x).item(), seen, rtol=0, atol=1e-14 * abs(evidence) * 10)


def test_every_road_to_a_long_posterior_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes, products of lanes, pieces of time and pieces of a batch; the doors they share are tried one by one."""
    rng = np.random.default_rng(1)
    emission = GaussianEmission([0.0, 0.2, -0.2], [1.0, 1.0, 1.0])
    hmm = HiddenMarkov(*chain(3, 0.98), emission)
    x = rng.normal(size=(3, 700, 1))
    ends = [700, 1, 431]
    short = hmm.posterior(x, ends)
    monkeypatch.setattr(markov_band, "_FIRST_STRETCH", 8)
    monkeypatch.setattr(markov_band, "_LONGEST", 200)
    stretches = hmm.posterior(x, ends)
    monkeypatch.setattr(markov_sweep, "LITTLE", 0)
    whole = hmm.posterior(x, ends)
    alone = [hmm.posterior(row[:end]) for row, end in zip(x, ends, strict=True)]
    monkeypatch.setattr(markov_lanes, "_LANES", 1)
    plain = hmm.posterior(x, ends)
    monkeypatch.setattr(markov_lanes, "_LANES", 30)
    monkeypatch.setattr(markov_lanes, "_HOPELESS", -1.0)
    products = hmm.posterior(x, ends)
    monkeypatch.setattr(markov_sweep, "_ELEMENTS", 600)
    pieces = hmm.posterior(x, ends)
    monkeypatch.setattr(markov_lanes, "SAFE", 2.0)  # so that all is done again as a band
    monkeypatch.setattr(markov_band, "SAFE", 2.0)
    again = hmm.posterior(x, ends)
    monkeypatch.setattr(markov_band, "_MOST", 0.0)  # and then in logarithms
    logs = hmm.posterior(x, ends)
    for other in (short, stretches, plain, products, pieces, again, logs):
        assert_allclose(other.probs, whole.probs, rtol=0, atol=1e-12)
        assert_allclose(other.log_evidence, whole.log_evidence, rtol=1e-13)
        assert_allclose(other.pairwise, whole.pairwise, rtol=0, atol=1e-12)
    for row, end, one in zip(range(3), ends, alone, strict=True):
        assert_allclose(one.probs[0], whole.probs[row, :end], rtol=0, atol=1e-12)
        assert not whole.probs[row, end:].any()
    assert_allclose(whole.pairwise[0].sum(2), whole.probs[0, :-1], atol=1e-12)
    assert_allclose(whole.pairwise[0].sum(1), whole.probs[0, 1:], atol=1e-12)


def test_transitions_are_counted_alike_on_every_road(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=(4, 150, 1))
    x[1, 70] = 300.0  # in the left-to-right chain, a state at e^−20000 that is needed again
    for name in ("mixing", "left to right", "no transitions"):
        initial, transition = LONG[name]
        emission = GaussianEmission([0.0, 0.3, -0.3], [1.0, 1.2, 1.0])
        hmm = HiddenMarkov(initial, transition, emission)
        data = sequences(x, hmm.emission, None, [150, 150, 80, 1])
        steps = markov_lanes.Steps(data.x, data.observed, data.lengths, hmm.emission.stepwise)
        chain = hmm.initial.numpy(), hmm.transition.numpy()
        counts: Any = markov_sweep.sweep(*chain, steps, counts=True).counts
        path = hmm.posterior(x, [150, 150, 80, 1])
        assert_allclose(counts, path.pairwise.sum((0, 1)), rtol=1e-10, atol=1e-12)
        with monkeypatch.context() as patch:
            for module, door, value in (
                (markov_band, "_LONGEST", 200),
                (markov_sweep, "LITTLE", 0),
                (markov_lanes, "SAFE", 2.0),
                (markov_band, "SAFE", 2.0),
                (markov_band, "_MOST", 0.0),
            ):
                patch.setattr(module, door, value)
                again: Any = markov_sweep.sweep(*chain, steps, counts=True).counts
                assert_allclose(again, counts, rtol=1e-10, atol=1e-12)
        assert_allclose(counts.sum(), 149 + 149 + 79)


VANISHING = {
    "left to right, and one way back": [[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [1e-300, 0.0, 1.0]],
    "nearly never": [[1.0, 1e-200, 1e-120], [1e-200, 1.0, 1e-150], [0.3, 0.3, 0.4]],
    "left and never entered again": [[0.0, 0.5, 0.5], [0.0, 0.9, 0.1], [0.0, 0.2, 0.8]],
}


@pytest.mark.parametrize("name", VANISHING)
def test_transitions_that_vanish_need_no_logarithms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=300) + np.repeat([0.0, 2.0, -2.0], 100)
    hmm = HiddenMarkov([0.5, 0.5, 0.0], VANISHING[name], GaussianEmission([0.0, 2.0, -2.0], [1.0, 1.0, 1.5]))
    with mp.workdps(50):
        probs, evidence = smoothed(hmm, x)
    monkeypatch.setattr(markov_sweep, "logs_forward", None)
    for little in (markov_sweep.LITTLE, 0):
        monkeypatch.setattr(markov_sweep, "LITTLE", little)
        path = hmm.posterior(x)
        assert_allclose(path.probs[0], probs, rtol=1e-10, atol=1e-200)
        assert_allclose(path.log_evidence.item(), evidence, rtol=1e-13)


def test_a_first_datum_that_another_state_explains_is_no_reason_to_begin_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of state 3, which cannot begin, it is e^1400 times as likely as of those that can."""
    x = np.concatenate([[-90.0], np.random.default_rng(5).normal(size=299)])
    emission = GaussianEmission([0.0, 2.0, -2.0], [1.0, 1.0, 1.5])
    hmm = HiddenMarkov([0.5, 0.5, 0.0], chain(3, 0.9)[1], emission)
    with mp.workdps(50):
        probs, evidence = smoothed(hmm, x)
    monkeypatch.setattr(markov_sweep, "_banded", None)
    monkeypatch.setattr(markov_sweep, "LITTLE", 0)
    path = hmm.posterior(x)
    assert_allclose(path.probs[0], probs, rtol=1e-10, atol=1e-200)
    assert_allclose(path.log_evidence.item(), evidence, rtol=1e-13)


def test_a_state_that_underflows_both_ways_is_not_lost() -> None:
    """State 1 is e^−2300 behind, then e^4600 ahead, then behind again: α and β alone would each forget it."""
    x = np.repeat([-1.0, 1.0, -1.0], [50, 100, 50]) * 23.0
    hmm = HiddenMarkov([0.5, 0.5], np.eye(2), GaussianEmission([-1.0, 1.0], [1.0, 1.0]))
    with mp.workdps(50):
        probs, evidence = smoothed(hmm, x)
    assert_allclose(probs, 0.5)
    assert_allclose(hmm.posterior(x).probs[0], probs, rtol=1e-10)
    assert_allclose(hmm.log_evidence(x).item(), evidence, rtol=1e-13)


def test_a_small_fit_with_vanishing_transitions_takes_no_slow_road(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    x = (rng.random(200) < np.array([0.2, 0.8])[np.cumsum(rng.random(200) < 0.05) % 2]).astype(int)
    table = [[0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.1, 0.9]]
    start = HiddenMarkov(*chain(4, 0.7), CategoricalEmission(table))
    monkeypatch.setattr(markov_sweep, "logs_forward", None)
    fitted = HiddenMarkov.fit(x, start, starts=1, tolerance=1e-9, iterations=5000)
    assert min(fitted.transition.min(), fitted.initial.min()) < 1e-100
    monkeypatch.undo()
    monkeypatch.setattr(markov_band, "_MOST", 0.0)
    assert fitted.convergence is not None
    assert_allclose(fitted.log_evidence(x).item(), fitted.convergence.log_likelihood, rtol=1e-12)


def test_unequal_sequences_are_each_on_their_own() -> None:
    hmm = HiddenMarkov(PI, A, EMISSIONS["poisson"][0])
    rng = np.random.default_rng(2)
    batch = [rng.poisson(2.0, size=(t, 2)) for t in (5, 1, 3)]
    for name in ("log_evidence", "kl_to_prior", "kl_per_latent", "kl_conditional", "kl_error"):
        table = getattr(hmm, name)(batch)
        for i, x in enumerate(batch):
            one = getattr(hmm, name)(x)
            if table.ndim == 1:
                assert_allclose(table[i], one[0], rtol=1e-12)
            else:
                assert_allclose(table[i, : len(x)], one[0], rtol=1e-12)
                assert not table[i, len(x) :].any()
    variance = torch.cat([hmm.flatness(x).variance for x in batch])
    assert_allclose(hmm.flatness(batch).variance, variance, rtol=1e-12)
    means, sds = hmm.posterior_moments(batch)
    assert_allclose(means[1, 0], hmm.posterior_moments(batch[1])[0][0, 0])
    assert not sds[1, 1:].any()


@pytest.mark.parametrize("x", [1e4, -1e4])
def test_states_a_hair_apart_are_told_by_an_outlier_at_1e4_sds(x: float) -> None:
    hmm = HiddenMarkov([0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], GaussianEmission([0.0, 1e-4], [1.0, 1.0]))
    with mp.workdps(50):
        exact = enumerated(hmm, [x])
    assert_allclose(hmm.posterior([x]).probs[0], exact["smoothed"], rtol=1e-12)
    assert_allclose(hmm.kl_to_prior([x]).item(), float(exact["kl"]), rtol=1e-12)


def test_huge_offsets_and_integers() -> None:
    far = HiddenMarkov(
        [0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], GaussianEmission([1e6, 1e6 + 2**-10], [1e-6, 1e-6])
    )
    near = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], GaussianEmission([0.0, 2**-10], [1e-6, 1e-6]))
    x = np.array([0.0, 2.0, 1.0, -3.0]) * 2**-10
    assert_allclose(far.posterior(x + 1e6).probs, near.posterior(x).probs, atol=1e-13)
    whole = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], GaussianEmission([0.3, 1.7], [0.5, 0.5]))
    assert torch.equal(whole.posterior([1, 0, 3]).probs, whole.posterior([1.0, 0.0, 3.0]).probs)


@pytest.mark.parametrize(
    ("gap", "correlation", "product"),
    [(5.0, 0.0, True), (5.0, 0.6, True), (500.0, 0.0, False), (1.0, 1 - 1e-6, False)],
    ids=["near", "full", "far apart", "nearly singular"],
)
def test_gaussian_densities_by_either_road_in_fifty_digits(
    gap: float, correlation: float, product: bool
) -> None:
    means = np.array([[0.0, 0.0], [gap, -gap], [-gap, 0.5]]) + 100.0
    base = np.array([[1.0, 2 * correlation], [2 * correlation, 4.0]])
    emission = GaussianEmission(means, np.stack([base, base * 1.5, base / 3]))
    assert (emission._quadratics.weights is not None) is product
    draws = torch.Generator().manual_seed(0)
    x = torch.cat(
        [emission.draw(torch.arange(3).repeat(4), draws), torch.tensor([[9e3, -2e4], [100.0, 130.0]])]
    )
    found = emission.log_density(x).numpy()
    with mp.workdps(50):
        exact = np.array([[float(value) for value in row] for row in log_b(emission, x.numpy())])
    lost = np.abs(exact) / (1 - correlation**2)  # by coordinates that are nearly dependent
    assert (np.abs(found - exact) <= 1e-11 + 1e-15 * lost).all()


def test_all_missing_gives_the_prior_exactly() -> None:
    for emission, x in EMISSIONS.values():
        hmm = HiddenMarkov(PI, A, emission, 4)
        nothing = np.full((2, 4 * emission.columns), NAN)
        path, prior = hmm.posterior(nothing), hmm.prior
        assert torch.equal(path.probs, prior.probs.expand(2, -1, -1))
        z = prior.sample((5,), torch.Generator().manual_seed(0))
        assert_allclose(
            prior.log_prob(z), path.log_prob(z[:, None].expand(-1, 2, -1))[:, 1], rtol=1e-12, atol=1e-12
        )
        marginals = torch.stack([torch.tensor(PI) @ torch.tensor(A).matrix_power(t) for t in range(4)])
        assert_allclose(path.probs[0], marginals, rtol=1e-6)
        assert (hmm.log_evidence(nothing).abs() < 1e-15).all()
        for name in ("kl_to_prior", "kl_per_latent", "kl_conditional"):
            assert not getattr(hmm, name)(nothing).any()
        assert (hmm.kl_error(nothing) < 1e-200).all()
        assert len(x)


def test_equal_rows_collapse_the_path_on_every_datum() -> None:
    hmm = HiddenMarkov(PI, A, GaussianEmission([[0.1, -3.7]] * 3, [FULL[0]] * 3))
    x = np.random.default_rng(3).normal(size=(200, 2)) * 10
    assert_allclose(hmm.posterior(x).probs, hmm.of_length(200).prior.probs[None], rtol=1e-14)
    assert (
        hmm.kl_to_prior(x).item() == 0 and not hmm.kl_per_latent(x).any() and not hmm.kl_conditional(x).any()
    )
    assert hmm.flatness(x).variance.item() == hmm.flatness(x).oscillation.item() == 0
    moved = HiddenMarkov(
        PI, A, GaussianEmission([[0.1, -3.7]] * 2 + [[0.1, math.nextafter(-3.7, 0)]], [FULL[0]] * 3)
    )
    assert moved.kl_to_prior(x).item() > 0


def test_a_million_steps() -> None:
    hmm = HiddenMarkov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], CategoricalEmission([[0.8, 0.2], [0.3, 0.7]]))
    x = np.random.default_rng(4).integers(0, 2, size=10**6)
    path = hmm.posterior(x)
    assert torch.isfinite(path.probs).all() and abs(path.probs.sum(2) - 1).max() < 1e-12
    start, end = hmm.posterior(x[:500]), hmm.posterior(x[-500:])
    assert_allclose(path.probs[0, :300], start.probs[0, :300], atol=1e-12)
    assert_allclose(path.probs[0, -300:], end.probs[0, -300:], atol=1e-12)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical", "tied"])
def test_hmmlearn_gaussian_models_come_over(kind: str) -> None:
    x = np.random.default_rng(5).normal(size=(300, 2)) + np.repeat([[0.0, 0], [3, 1], [-2, 2]], 100, axis=0)
    other = peer.GaussianHMM(3, covariance_type=kind, random_state=0, n_iter=5, tol=-np.inf)
    other.fit(x, lengths=[120, 180])
    ours = HiddenMarkov.from_hmmlearn(other)
    score, probs = other.score_samples(x, lengths=[120, 180])
    path = ours.posterior([x[:120], x[120:]])
    assert_allclose(path.log_evidence.sum().item(), score, rtol=1e-10)
    assert_allclose(torch.cat([path.probs[0, :120], path.probs[1]]), probs, atol=1e-9)
    assert torch.equal(
        torch.cat([path.mode[0, :120], path.mode[1]]), torch.from_numpy(other.predict(x, [120, 180]))
    )


def test_hmmlearn_counts_and_symbols_come_over() -> None:
    rng = np.random.default_rng(6)
    counts, symbols = rng.poisson(3.0, size=(100, 2)), rng.integers(0, 4, size=(100, 1))
    for other, x in (
        (peer.PoissonHMM(2, random_state=0, n_iter=5, tol=-np.inf), counts),
        (peer.CategoricalHMM(2, random_state=0, n_iter=5, tol=-np.inf), symbols),
    ):
        other.fit(x)
        score, probs = other.score_samples(x)
        ours = HiddenMarkov.from_hmmlearn(other)
        assert_allclose(ours.log_evidence(x).item(), score, rtol=1e-10)
        assert_allclose(ours.posterior(x).probs[0], probs, atol=1e-9)
    with pytest.raises(ValueError, match="fitted"):
        HiddenMarkov.from_hmmlearn(peer.PoissonHMM(2))
    with pytest.raises(TypeError, match="CategoricalHMM"):
        HiddenMarkov.from_hmmlearn(3)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_baum_welch_reaches_hmmlearns_maximum_from_its_start(kind: str) -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(600, 2)) + 2.0 * np.repeat([[0.0, 0], [2, 1], [-1, 2]], 200, axis=0)
    start = HiddenMarkov(
        [1 / 3] * 3,
        chain(3, 0.8)[1],
        GaussianEmission(x[[10, 250, 500]], np.array([np.eye(2)] * 3) if kind == "full" else np.ones((3, 2))),
    )
    other = peer.GaussianHMM(
        3, covariance_type=kind, init_params="", covars_prior=0, covars_weight=-3 if kind == "full" else 1,
        means_weight=0, n_iter=300, tol=1e-10, implementation="scaling",
    )  # fmt: skip
    other.startprob_, other.transmat_ = start.initial.numpy(), start.transition.numpy()
    other.means_ = start.emission.means.numpy()
    full = start.emission.covariances.numpy()
    other.covars_ = full if kind == "full" else full.diagonal(axis1=1, axis2=2)
    other.fit(x, lengths=[250, 350])
    ours = HiddenMarkov.fit([x[:250], x[250:]], start, starts=1, tolerance=1e-10)
    assert ours.convergence is not None and ours.convergence.converged
    assert ours.convergence.log_likelihood >= other.score(x, lengths=[250, 350]) - 1e-6
    assert_allclose(
        ours.log_evidence([x[:250], x[250:]]).sum().item(), ours.convergence.log_likelihood, rtol=1e-9
    )
    assert all(a <= b for a, b in itertools.pairwise(ours.convergence.history))


def test_fits_of_symbols_and_counts_climb_and_keep_states_without_data() -> None:
    rng = np.random.default_rng(8)
    z = np.cumsum(rng.random(400) < 0.05) % 2
    symbols, counts = (
        (rng.random(400) < np.array([0.1, 0.9])[z]).astype(int),
        rng.poisson(np.array([1.0, 8.0])[z]),
    )
    for emission, x in (
        (CategoricalEmission([[0.6, 0.4], [0.4, 0.6]]), symbols),
        (PoissonEmission([1.0, 2.0]), counts),
    ):
        start = HiddenMarkov([0.5, 0.5], chain(2, 0.7)[1], emission)
        fitted = HiddenMarkov.fit(x, start, starts=3)
        assert fitted.convergence is not None and len(fitted.convergence.restarts) == 3
        assert fitted.convergence.log_likelihood > start.log_evidence(x).item() + 10
        state = fitted.posterior(x).mode[0].numpy()
        assert max((state == z).mean(), (state != z).mean()) > 0.85
    empty = HiddenMarkov([1.0, 0.0], np.eye(2), PoissonEmission([1.0, 2.0]))
    kept = HiddenMarkov.fit(counts, empty, starts=1)
    assert kept.emission.rates[1].item() == 2.0
    assert_allclose(kept.emission.rates[0].item(), counts.mean())
    with pytest.warns(ConvergenceWarning):
        HiddenMarkov.fit(counts, start, starts=1, iterations=2)


def test_a_fit_that_shrinks_onto_one_datum_stays_finite() -> None:
    x = np.array([0.0, 0.1, -0.1, 7.0, 0.05, -0.05])
    start = HiddenMarkov([0.5, 0.5], chain(2, 0.5)[1], GaussianEmission([0.0, 7.0], [1.0, 0.01]))
    fitted = HiddenMarkov.fit(x, start, starts=1)
    assert torch.isfinite(fitted.emission.covariances).all() and (fitted.emission.covariances > 0).all()


def test_information_by_sum_by_draws_and_by_independence() -> None:
    table = [[0.8, 0.2], [0.3, 0.7]]
    hmm = HiddenMarkov([0.6, 0.4], chain(2, 0.8)[1], CategoricalEmission(table), 5)
    exact = hmm.mutual_information()
    assert exact.method == "closed form"
    x = hmm.sample(4000, torch.Generator().manual_seed(0))[0]
    kl = hmm.kl_to_prior(x)
    assert abs(kl.mean().item() - exact.value) < 5 * kl.std().item() / math.sqrt(4000)
    drawn = hmm.of_length(14).mutual_information(samples=500)
    assert drawn.method == "Monte Carlo" and drawn.value > exact.value
    free = HiddenMarkov([0.6, 0.4], [[0.6, 0.4]] * 2, CategoricalEmission(table), 5)
    joint = np.array([[0.6], [0.4]]) * np.array(table)
    one = (joint * np.log(joint / joint.sum(0) / joint.sum(1, keepdims=True))).sum()
    assert_allclose(free.mutual_information().value, 5 * one, rtol=1e-12)


def test_draws_follow_the_posterior_and_the_model() -> None:
    hmm = HiddenMarkov(PI, A, EMISSIONS["categorical"][0])
    batch = [np.array([2, 1, 2, 2]), np.array([1, 1])]
    path = hmm.posterior(batch)
    z = path.sample((20_000,), torch.Generator().manual_seed(0))
    assert z.shape == (20_000, 2, 4) and not z[:, 1, 2:].any()
    share = torch.nn.functional.one_hot(z, 3).double().mean(0)
    assert (share[0] - path.probs[0]).abs().max() < 0.02
    pair = torch.nn.functional.one_hot(z[:, 0, 1] * 3 + z[:, 0, 2], 9).double().mean(0)
    assert (pair - path.pairwise[0, 1].flatten()).abs().max() < 0.02
    x, z = hmm.of_length(3).sample(20_000, torch.Generator().manual_seed(1))
    prior = hmm.of_length(3).prior
    assert (torch.nn.functional.one_hot(z.long(), 3).double().mean(0) - prior.probs).abs().max() < 0.02
    assert x.shape == (20_000, 3) and set(x.unique().tolist()) == {0.0, 1.0, 2.0}
    assert hmm.of_length(3).log_likelihood(x[:5], z[:5].expand(2, -1, -1)).shape == (2, 5)


def test_rows_and_sequences_are_one_model() -> None:
    emission, _ = EMISSIONS["full"]
    hmm = HiddenMarkov(PI, A, emission)
    x = np.random.default_rng(9).normal(size=(4, 3, 2))
    table: Any = hmm.of_length(3)
    assert table.latent_names == ("z[1]", "z[2]", "z[3]")
    assert_allclose(table.kl_to_prior(x.reshape(4, 6)), hmm.kl_to_prior(x), rtol=0)
    assert_allclose(table.kl_to_prior(x.reshape(4, 6))[2], hmm.kl_to_prior(x[2])[0], rtol=1e-12)
    single = hmm.posterior(torch.tensor(x[0], dtype=torch.float32))
    assert single.probs.dtype == single.log_evidence.dtype == torch.float32
    assert_allclose(single.probs[0], hmm.posterior(x[0]).probs[0], atol=1e-5)
    assert table.posterior(np.zeros((0, 6))).probs.shape == (0, 3, 3)
    assert table.kl_conditional(np.zeros((0, 6))).shape == (0, 3)
    assert ik.collapse(table, x.reshape(4, 6)).kl_conditional.shape == (4, 3)
    shapeless: Any = hmm
    with pytest.raises(ValueError, match="of_length"):
        ik.collapse(shapeless, x[0])
    assert hmm.posterior([]).probs.shape == (0, 0, 3)


SILENT = [
    CategoricalEmission([[0.3, 0.7], [0.3, 0.7]]),
    GaussianEmission([0.5, 0.5], [2.0, 2.0]),
    PoissonEmission([3.0, 3.0]),
]
LOUD = [
    CategoricalEmission([[0.3, 0.7], [0.6, 0.4]]),
    GaussianEmission([0.5, 1.0], [2.0, 2.0]),
    PoissonEmission([3.0, 2.0]),
]


@pytest.mark.parametrize("i", range(3))
def test_verify_confirms_both_sides_of_the_theorem(i: int) -> None:
    x = [[1, 0, 1], [0, 0, 1]]
    for emission, level in ((SILENT[i], "CONSTANT"), (LOUD[i], "GLOBAL")):
        hmm: Any = HiddenMarkov([0.4, 0.6], [[0.9, 0.1], [0.2, 0.8]], emission, 3)
        check = ik.verify(hmm, x)
        assert check.agrees is True
        assert check.verdict.level.value == level


def test_relabelled_states_are_the_same_model() -> None:
    emission, x = EMISSIONS["spherical"]
    order = [2, 0, 1]
    hmm = HiddenMarkov(PI, A, emission)
    other = HiddenMarkov(
        hmm.initial[order],
        hmm.transition[order][:, order],
        GaussianEmission(emission.means[order], emission.covariances[order]),
    )
    x = np.array(x)
    assert_allclose(other.posterior(x).probs, hmm.posterior(x).probs[..., order], atol=1e-13)
    assert_allclose(other.kl_to_prior(x), hmm.kl_to_prior(x), rtol=1e-12)


def test_impossible_data_and_partly_missing_steps_are_named() -> None:
    hmm = HiddenMarkov([1.0, 0.0], np.eye(2), CategoricalEmission([[1.0, 0.0], [0.5, 0.5]]))
    with pytest.raises(ValueError, match="no path can show sequence 2"):
        hmm.posterior([np.array([0, 0]), np.array([0, 1])])
    never = HiddenMarkov([0.5, 0.5], np.eye(2), CategoricalEmission([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]))
    assert never.log_likelihood([0, 2], [[0, 0]]).item() == -math.inf
    with pytest.raises(ValueError, match="whole step"):
        HiddenMarkov(PI, A, EMISSIONS["full"][0]).posterior([[0.0, NAN]])
    with pytest.raises(ValueError, match="t should be a step"):
        hmm.posterior([0, 0]).marginal(2)
    with pytest.raises(ValueError, match="z should be states"):
        hmm.posterior([0, 0]).log_prob([[0, 2]])
    with pytest.raises(ValueError, match="count its symbols from 1"):
        HiddenMarkov(PI, A, EMISSIONS["categorical"][0], 2).symbolic()
    with pytest.raises(ValueError, match="length should be declared"):
        hmm.sample(3)


def test_a_fit_starts_from_a_number_of_states():
    truth = HiddenMarkov(
        [0.5, 0.5], [[0.95, 0.05], [0.1, 0.9]], GaussianEmission([0.0, 4.0], [1.0, 0.25]), 400
    )
    x, _ = truth.sample(1, torch.Generator().manual_seed(3))
    found = HiddenMarkov.fit(x[0], 2)
    assert found.convergence is not None
    assert found.convergence.converged
    assert sorted(found.emission.means[:, 0].tolist()) == pytest.approx([0.0, 4.0], abs=0.3)
    assert float(found.log_evidence(x[0])) >= float(truth.log_evidence(x)) - 1e-6
    counts = HiddenMarkov.fit([np.array([0, 1, 0, 7, 9, 8]), np.array([1, 0, 8, 9])], 2, emission="poisson")
    assert max(counts.emission.rates[:, 0].tolist()) > 5
    coins = HiddenMarkov.fit(
        [0, 1, 1, 0, 0, 1, 0, 0, 1, 1], 2, emission="categorical", iterations=3000, tolerance=1e-3
    )
    assert coins.emission.table.shape == (2, 2)
    for start, emission, phrase in ((1, "gaussian", "at least 2"), (2, "normal", "should be 'gaussian'")):
        with pytest.raises(ValueError, match=phrase):
            HiddenMarkov.fit([0.0, 1.0], start, emission=emission)


def left_to_right(kind: str) -> tuple[HiddenMarkov, Any]:
    """A start with transitions that cannot be, and 200 steps of a chain whose states overlap."""
    rng = np.random.default_rng(5)
    states = np.arange(200) // 6 % 3
    noise = rng.normal(size=(200, 2)) @ np.array([[1.0, 0.4], [0.0, 0.8]])
    means, covariances = np.array([[0.0, 0.0], [1.0, 1.0], [3.0, 2.0]]), np.ones((3, 2))
    emissions = {
        "full": GaussianEmission(means, np.tile(np.eye(2), (3, 1, 1))),
        "diagonal": GaussianEmission(means, covariances),
        "spherical": GaussianEmission(means, covariances[:, 0]),
        "poisson": PoissonEmission([[1.0], [2.0], [4.0]]),
        "categorical": CategoricalEmission([[0.6, 0.2, 0.2], [0.3, 0.5, 0.2], [0.2, 0.3, 0.5]]),
    }
    data = {
        "poisson": rng.poisson(1.0 + states)[:, None],
        "categorical": np.where(rng.random(200) < 0.5, states, rng.integers(0, 3, 200))[:, None],
    }
    transition = [[0.8, 0.2, 0.0], [0.0, 0.7, 0.3], [0.3, 0.0, 0.7]]
    x = data.get(kind, 0.9 * states[:, None] + noise)
    return HiddenMarkov([0.5, 0.5, 0.0], transition, emissions[kind]), x


@pytest.mark.parametrize("kind", ["full", "diagonal", "spherical", "poisson", "categorical"])
def test_leaps_climb_as_high_as_baum_welch_in_fewer_iterations(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, x = left_to_right(kind)
    leapt = HiddenMarkov.fit(x, start, starts=1)
    monkeypatch.setattr(fit, "_NEAR", 0.0)
    plain = HiddenMarkov.fit(x, start, starts=1, iterations=5000)
    assert leapt.convergence is not None and plain.convergence is not None
    assert leapt.convergence.converged and leapt.convergence.iterations < 0.8 * plain.convergence.iterations
    assert leapt.convergence.log_likelihood >= plain.convergence.log_likelihood - 1e-6
    assert leapt.log_evidence(x).item() == pytest.approx(leapt.convergence.log_likelihood, abs=1e-9)
    assert all(a <= b for a, b in itertools.pairwise(leapt.convergence.history))
    assert not leapt.transition[start.transition == 0].any() and leapt.initial[2] == 0
    for law in (leapt.initial, leapt.transition):
        assert_allclose(law.sum(-1), 1, rtol=1e-14)


@pytest.mark.parametrize("kind", ["full", "diagonal", "spherical", "poisson", "categorical"])
def test_coordinates_lead_back_and_nowhere_outside(kind: str) -> None:
    start, x = left_to_right(kind)
    emission, x = start.emission, x.astype(np.float64)
    learning = learner(emission, x, np.ones(len(x), dtype=bool))
    there = learning.coordinates(learning.parameters(emission))
    same = learning.emission(learning.placed(there))
    assert_allclose(same.log_density(x), emission.log_density(x), rtol=1e-12)
    lowest = learning.placed(np.where(there == 0, 0.0, there) - 800.0)
    again = learning.emission(learning.placed(learning.coordinates(lowest)))
    lowest = learning.emission(lowest)
    assert_allclose(again.log_density(x), lowest.log_density(x), rtol=1e-9)
    assert torch.isfinite(lowest.log_density(x)).all()
    if kind != "categorical":  # whose rows sum to one wherever they are put
        with np.errstate(all="ignore"), pytest.raises(ValueError, match="finite"):
            learning.placed(there + 800.0)


@pytest.mark.parametrize("kind", ["full", "diagonal", "spherical", "poisson", "categorical"])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("reach", [None, 0.0])
def test_a_fit_knows_the_densities_and_the_counts_that_a_posterior_knows(
    kind: str, missing: bool, reach: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One iteration from the table of powers, against the path's own marginals; also where that table will not do."""
    start, x = left_to_right(kind)
    x = x.astype(np.float64)
    if kind in ("full", "diagonal", "spherical"):
        place, scale = 1e6, np.array([1e-3, 10.0])
        whole, emission = place + x * scale, start.emission
        covariances = emission.covariances * torch.from_numpy(np.outer(scale, scale))
        covariances = {
            "full": covariances,
            "diagonal": covariances.diagonal(dim1=1, dim2=2),
            "spherical": covariances[:, 1, 1],
        }[kind]
        emission = GaussianEmission(place + emission.means * torch.from_numpy(scale), covariances)
        x, start = whole, HiddenMarkov(start.initial, start.transition, emission)
    if reach is not None:
        monkeypatch.setattr(markov_learning, "_REACH", reach)
    parts = [x[:90].copy(), x[90:]]
    if missing:
        parts[0][20:40] = np.nan
        parts[1][-1] = np.nan
    path = start.posterior(parts)
    gamma = torch.cat([path.probs[0, :90], path.probs[1, : len(x) - 90]])
    seen = torch.from_numpy(np.isfinite(np.concatenate(parts)).all(1))
    with pytest.warns(ConvergenceWarning):
        moved = HiddenMarkov.fit(parts, start, starts=1, iterations=1)
    assert moved.convergence is not None
    assert_allclose(moved.convergence.log_likelihood, path.log_evidence.sum().item(), rtol=1e-12)
    assert_allclose(moved.initial, path.probs[:, 0].mean(0), atol=1e-12)
    pairs = path.pairwise.sum((0, 1))
    assert_allclose(moved.transition, pairs / pairs.sum(1, keepdim=True), atol=1e-11)
    weights, rows = gamma[seen], torch.from_numpy(np.concatenate(parts))[seen]
    means = weights.T @ rows / weights.sum(0)[:, None]
    if kind == "poisson":
        assert_allclose(moved.emission.rates, means, rtol=1e-11)
    elif kind == "categorical":
        shown = torch.nn.functional.one_hot(rows[:, 0].long(), 3).double()
        assert_allclose(moved.emission.table, weights.T @ shown / weights.sum(0)[:, None], rtol=1e-11)
    else:
        assert_allclose(moved.emission.means, means, rtol=1e-11, atol=1e-11)


def test_products_of_densities_stay_in_range_whatever_their_scale() -> None:
    """Expectations do not depend on the scale of the densities, nor on where stretches are cut."""
    rng = np.random.default_rng(2)
    b, transition = rng.random((600, 3)), rng.dirichlet(np.ones(3), 3)
    initial = np.array([0.2, 0.5, 0.3])
    within = (np.arange(1, 601) % 150 > 0).astype(np.float64)[:, None]
    wanted = markov_band.expected(initial, transition, b, 150, within)
    assert wanted is not None
    for scale in (1e-3, 5.0, 100.0):
        found = markov_band.expected(initial, transition, scale * b, 150, within)
        assert found is not None
        assert_allclose(found.log_evidence, wanted.log_evidence + 600 * np.log(scale), rtol=1e-12)
        assert_allclose(found.counts, wanted.counts, rtol=1e-11)
        assert_allclose(found.weights, wanted.weights, rtol=1e-10)
        assert_allclose(found.initial, wanted.initial, rtol=1e-11)


@pytest.mark.parametrize("kind", ["diagonal", "spherical", "full"])
def test_the_m_step_keeps_the_digits_of_states_far_apart(kind: str) -> None:
    """States 2¹³ sds apart, and one among the rest: variances as from their own means, in longer numbers."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(size=(50, 2)), 2.0**13 + rng.normal(size=(50, 2)), rng.normal(size=(9, 2)) * 2.0**12]
    )
    weights = rng.dirichlet(np.ones(3), size=len(x)) * 1e-3
    weights[:50, 0] += 1
    weights[50:100, 1] += 1
    weights[100:, 2] += 1
    weights[:50, 1:], weights[50:, 0], weights[100:, 1] = 0, 0, 0
    shape = {"diagonal": (3, 2), "spherical": (3,), "full": (3, 2, 2)}[kind]
    start = np.broadcast_to(np.eye(2), shape) if kind == "full" else np.ones(shape)
    learning = learner(GaussianEmission(np.zeros((3, 2)), start), x, np.ones(len(x), dtype=bool))
    found = learning.emission(learning.maximised(learning.parameters(learning.like), weights))
    share = (weights / weights.sum(0)).astype(np.longdouble)
    means = share.T @ x.astype(np.longdouble)
    for k in range(3):
        apart = x - means[k]
        wanted = np.asarray((share[:, k, None] * apart).T @ apart, dtype=np.float64)
        if kind == "diagonal":
            wanted = np.diag(np.diag(wanted))
        elif kind == "spherical":
            wanted = np.eye(2) * np.diag(wanted).mean()
        assert_allclose(found.means[k], np.asarray(means[k], dtype=np.float64), atol=1e-11)
        assert_allclose(found.covariances[k], wanted, rtol=1e-10, atol=1e-10)


def test_information_of_a_rare_beginning_is_not_missed_by_simulation() -> None:
    weights = torch.tensor([1 - 1e-9, 1e-9], dtype=torch.float64)
    hmm = HiddenMarkov(weights, torch.eye(2), GaussianEmission([[0.0], [1e3]], [[1.0], [1.0]]), length=2)
    found = hmm.mutual_information(samples=50)
    # The data give the path away: the information is the entropy of its beginning.
    entropy = -(weights * weights.log()).sum().item()
    assert found.method == "Monte Carlo"
    assert abs(found.value - entropy) < 1e-7 * entropy  # 1 − 1e-9 is itself rounded

"""What other libraries fitted or declared gets the verdict of the model it is; what cannot be taken says why."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from hmmlearn.hmm import GMMHMM, CategoricalHMM, GaussianHMM, PoissonHMM
from sklearn.decomposition import PCA, FactorAnalysis, LatentDirichletAllocation, TruncatedSVD
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

import identkit as ik
from identkit.adapters.topics import SharesTold, TopicModel
from identkit.numeric.double import double_precision
from identkit.numeric.product import ProductLaw
from identkit.verdict import Level

CONSTANT, PARTIAL, GLOBAL = Level.CONSTANT, Level.PARTIAL, Level.GLOBAL


def table(n=60, d=3):
    return np.random.default_rng(0).normal(size=(n, d)) * np.arange(1, d + 1)


def levels(verdict):
    assert verdict.certificate is None or verdict.certificate.verify()
    return tuple(verdict.latents.values())


# --- scikit-learn ------------------------------------------------------------------------------------------


def silent_last(fitted):
    """The same estimator with its last factor switched off."""
    other = copy.deepcopy(fitted)
    other.components_[-1] = 0
    return other


@pytest.mark.parametrize("estimator", [FactorAnalysis(2, random_state=0), PCA(2)])
def test_linear_estimators_tell_live_factors_from_dead_ones(estimator):
    x = table(d=4)
    for fitted, expected in (
        (estimator.fit(x), (GLOBAL, GLOBAL)),
        (silent_last(estimator.fit(x)), (GLOBAL, CONSTANT)),
    ):
        assert levels(ik.check(fitted)) == expected
        collapsed = ik.collapse(ik.from_sklearn(fitted), x)
        dead = (collapsed.kl_conditional <= collapsed.kl_conditional_error).all(0)
        assert dead.tolist() == [level is CONSTANT for level in expected]


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixtures_of_every_covariance(kind):
    x = np.concatenate([table(), table() + 8])
    fitted = GaussianMixture(2, covariance_type=kind, random_state=0).fit(x)
    assert levels(ik.check(fitted)) == (GLOBAL,)
    assert (ik.collapse(ik.from_sklearn(fitted), x).kl > 0.1).all()
    fitted.means_[1] = fitted.means_[0]
    if kind != "tied":
        fitted.covariances_[1] = fitted.covariances_[0]
    assert levels(ik.check(fitted)) == (CONSTANT,)
    collapsed = ik.collapse(ik.from_sklearn(fitted), x)
    assert (collapsed.kl <= collapsed.kl_error).all()


def topics(components=3, words=40):
    counts = np.random.default_rng(1).poisson(1.0, size=(50, words))
    return LatentDirichletAllocation(components, random_state=0, max_iter=3).fit(counts)


def test_independent_topics_are_told_apart():
    assert levels(ik.check(topics())) == (GLOBAL, GLOBAL, GLOBAL)


def test_a_topic_given_twice_is_not():
    fitted = topics(4)
    fitted.components_[2] = 4 * fitted.components_[0]  # the same law over words
    verdict = ik.check(fitted)
    assert levels(verdict) == (PARTIAL, GLOBAL, PARTIAL, GLOBAL)
    assert verdict.invariances[0].about == ("theta[1]", "theta[3]")


def test_a_topic_that_mixes_others_moves_with_them():
    weights = [[4, 0, 0, 0], [0, 4, 0, 0], [2, 2, 0, 0], [0, 0, 1, 3]]
    verdict = ik.check(TopicModel(weights, 1.0))
    assert levels(verdict) == (PARTIAL, PARTIAL, PARTIAL, GLOBAL)
    assert verdict.invariances[0].generator == "-0.5*d/dtheta[1] - 0.5*d/dtheta[2] + d/dtheta[3]"


def test_topics_that_are_all_alike_say_nothing():
    assert levels(TopicModel([[1, 2], [2, 4], [3, 6]], 0.3).verdict()) == (CONSTANT,) * 3


def test_a_false_certificate_of_topics_fails():
    proof = ik.check(TopicModel([[1, 2, 3], [1, 2, 3], [1, 0, 0]], 1.0)).certificate
    assert isinstance(proof, SharesTold)
    assert proof.verify()
    other = TopicModel([[1, 2, 3], [1, 2, 4], [1, 0, 0]], 1.0)
    assert not SharesTold(model=other, directions=proof.directions).verify()  # moves that are seen
    assert not SharesTold(model=proof.model, directions=()).verify()  # a rank that is not there


@pytest.mark.parametrize(
    ("weights", "concentration", "message"),
    [
        ([[1.0, 2.0]], 1.0, "two topics"),
        ([[1.0, -2.0], [1.0, 1.0]], 1.0, "not negative"),
        ([[0.0, 0.0], [1.0, 1.0]], 1.0, "positive number in every row"),
        ([[1.0, 2.0], [1.0, 1.0]], 0.0, "concentration should be positive"),
    ],
)
def test_topics_that_are_none(weights, concentration, message):
    with pytest.raises(ValueError, match=message):
        TopicModel(weights, concentration)


def test_topics_answer_about_their_law_only():
    with pytest.raises(ValueError, match="data goes with a model that has symbols"):
        ik.check(topics(), data={"x": [1]})
    with pytest.raises(ValueError, match="prior goes with a decoder"):
        ik.check(topics(), prior=torch.distributions.Normal(0.0, 1.0))


@pytest.mark.parametrize(
    "estimator", [FactorAnalysis(2), PCA(2), GaussianMixture(2), LatentDirichletAllocation(2)]
)
def test_estimators_that_are_not_fitted(estimator):
    with pytest.raises(ValueError, match="fitted should be fitted"):
        ik.check(estimator)


@pytest.mark.parametrize("estimator", [TruncatedSVD(1), BayesianGaussianMixture(n_components=2)])
def test_estimators_that_are_no_such_model(estimator):
    with pytest.raises(TypeError, match=f"got {type(estimator).__name__}"):
        ik.check(estimator.fit(table()))


def test_wrong_objects():
    for wrong in (3, None, object()):
        with pytest.raises(TypeError, match="fitted should be"):
            ik.from_sklearn(wrong)
        with pytest.raises(TypeError, match="model should be"):
            ik.from_hmmlearn(wrong)


# --- hmmlearn ----------------------------------------------------------------------------------------------


def chains():
    rng = np.random.default_rng(0)
    states = np.repeat(rng.integers(0, 2, size=30), 6)
    yield CategoricalHMM(2, random_state=0), (states + rng.integers(0, 2, size=180))[:, None]
    yield PoissonHMM(2, random_state=0), rng.poisson(1 + 8 * states)[:, None]
    for kind in ("diag", "full", "tied", "spherical"):
        yield (
            GaussianHMM(2, covariance_type=kind, random_state=0),
            states[:, None] * 5 + rng.normal(size=(180, 2)),
        )


@pytest.mark.parametrize(("estimator", "x"), list(chains()))
def test_chains_tell_their_states_apart(estimator, x):
    fitted = estimator.fit(x)
    fitted.startprob_ = np.array([0.5, 0.5])
    assert levels(ik.check(fitted)) == (GLOBAL, GLOBAL)
    collapsed = ik.collapse(ik.from_hmmlearn(fitted, length=3), x.reshape(-1, 3 * x.shape[1]))
    assert (collapsed.kl > collapsed.kl_error).all()


def test_states_that_emit_alike_are_merged():
    estimator, x = next(chains())
    fitted = estimator.fit(x)
    fitted.startprob_ = np.array([0.5, 0.5])
    fitted.emissionprob_ = np.array([[0.2, 0.3, 0.5]] * 2)
    assert levels(ik.check(fitted)) == (CONSTANT, CONSTANT)
    collapsed = ik.collapse(ik.from_hmmlearn(fitted, length=2), x.reshape(-1, 2))
    assert (collapsed.kl <= collapsed.kl_error).all()
    assert ik.check(ik.from_hmmlearn(fitted, length=3, first=1)).level is CONSTANT


def test_chains_that_cannot_be_taken():
    with pytest.raises(ValueError, match="fitted"):
        ik.check(GaussianHMM(2))
    with pytest.raises(TypeError, match="GMMHMM"):
        ik.check(GMMHMM(2))


# --- what the adapters share -------------------------------------------------------------------------------


def test_pieces_of_a_datum_are_one_law():
    normal = torch.distributions.Normal(torch.zeros(4, 2), torch.ones(4, 2))
    counts = torch.distributions.Poisson(torch.arange(1.0, 5.0))
    law = ProductLaw([normal, counts])
    x = law.sample((7,))
    assert x.shape == (7, 4, 3)
    wanted = normal.log_prob(x[..., :2]).sum(-1) + counts.log_prob(x[..., 2])
    torch.testing.assert_close(law.log_prob(x), wanted)
    other = ProductLaw([torch.distributions.Normal(torch.ones(4, 2), 1.0), counts])
    torch.testing.assert_close(torch.distributions.kl_divergence(law, other), torch.ones(4))
    with pytest.raises(ValueError, match="one first axis"):
        ProductLaw([normal, torch.distributions.Normal(0.0, 1.0)])


def test_double_precision_reaches_what_was_written_single():
    z = torch.tensor([1.0, 1 / 3], dtype=torch.float64)
    layer, held = torch.nn.Linear(2, 1), torch.zeros(2)
    with double_precision():
        assert torch.equal(layer(z.float()), layer.weight.double() @ z + layer.bias.double())
        assert torch.zeros(1).dtype == torch.float64
        held[0] = z[1]
    assert held.dtype == torch.float32
    assert held[0] == torch.tensor(1 / 3)
    assert torch.zeros(1).dtype == torch.float32


@pytest.mark.parametrize(("library", "take"), [("pyro", "from_pyro"), ("pymc", "from_pymc")])
def test_a_library_that_is_missing_is_named(monkeypatch, library, take):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"identkit\\[{library}\\]"):
        getattr(ik, take)(lambda: None)

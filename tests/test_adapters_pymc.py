"""PyMC models against the verdicts that they are known to have, on both sides of the line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import identkit as ik
from identkit.adapters.joint import Scored
from identkit.verdict import Level

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # arviz announces its next version at every import
    pm = pytest.importorskip("pymc")

pytestmark = pytest.mark.filterwarnings("ignore")
CONSTANT, PARTIAL, GLOBAL = Level.CONSTANT, Level.PARTIAL, Level.GLOBAL
DESIGN = np.array([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])


def checked(model):
    verdict = ik.check(ik.from_pymc(model))
    assert verdict.certificate is None or verdict.certificate.verify()
    return verdict


@pytest.mark.parametrize(
    ("design", "expected"),
    [
        (DESIGN, [GLOBAL, GLOBAL]),
        (DESIGN[:, [0, 0]], [PARTIAL, PARTIAL]),
        (DESIGN * [1, 0], [GLOBAL, CONSTANT]),
    ],
)
def test_regression(design, expected):
    with pm.Model() as model:
        w = pm.Normal("w", 0, 1, shape=2)
        pm.Normal("y", pm.math.dot(design, w), 0.5, observed=np.ones(3))
    verdict = checked(model)
    assert verdict.latents == dict(zip(["w[1]", "w[2]"], expected, strict=True))
    assert verdict.scope == "at"


def test_a_hierarchy_is_seen_through_its_lowest_latents():
    with pm.Model() as model:
        mean, spread = pm.Normal("mean", 0, 5), pm.HalfNormal("spread", 5)
        effect = pm.Normal("effect", mean, spread, shape=2)
        pm.Normal("y", effect, [15.0, 10.0], observed=[28.0, 8.0])
    found = checked(model).latents
    assert found == {"mean": CONSTANT, "spread": CONSTANT, "effect[1]": GLOBAL, "effect[2]": GLOBAL}
    z = torch.tensor([[1.0, 2.0, 0.5, -1.0]], dtype=torch.float64)
    wanted = sum(
        float(pm.logp(law, value).eval())
        for law, value in [
            (pm.Normal.dist(0, 5), 1.0),
            (pm.HalfNormal.dist(5), 2.0),
            (pm.Normal.dist(1, 2), 0.5),
            (pm.Normal.dist(1, 2), -1.0),
        ]
    )
    assert float(ik.from_pymc(model).prior.log_prob(z)) == pytest.approx(wanted, rel=1e-6)


def test_several_families_at_once():
    with pm.Model() as model:
        rate, chance = pm.Gamma("rate", 2, 3), pm.Beta("chance", 2, 3)
        pm.Poisson("counts", rate, observed=[1, 2])
        pm.Bernoulli("flag", chance, observed=1)
    assert checked(model).latents == {"rate": GLOBAL, "chance": GLOBAL}


@pytest.mark.parametrize(
    "family",
    [
        lambda name: pm.HalfCauchy(name, 2),
        lambda name: pm.Uniform(name, 1, 2),
        lambda name: pm.StudentT(name, nu=4, mu=0, sigma=1),
        lambda name: pm.Laplace(name, 0, 1),
        lambda name: pm.LogNormal(name, 0, 1),
        lambda name: pm.Gumbel(name, 0, 1),
        lambda name: pm.Exponential(name, 3),
    ],
)
def test_the_density_of_a_prior_is_that_of_the_model(family):
    with pm.Model() as model:
        z = family("z")
        pm.Normal("y", z, 1, observed=0.3)
    value = torch.tensor([[1.25]], dtype=torch.float64)
    found = float(ik.from_pymc(model).prior.log_prob(value).sum())
    assert found == pytest.approx(float(pm.logp(z, 1.25).eval()), rel=1e-6)


def test_finite_latents():
    with pm.Model() as model:
        k, b = pm.Categorical("k", [0.2, 0.3, 0.5]), pm.Bernoulli("b", 0.4)
        pm.Normal("y", pm.math.stack([0.0, 1.0, 1.0])[k] + 0 * b, 1, observed=0.3)
    assert checked(model).latents == {"k": PARTIAL, "b": CONSTANT}


def test_a_variable_that_nothing_depends_on():
    with pm.Model() as model:
        pm.Normal("z")
        pm.Normal("y", observed=1.0)
    assert checked(model).latents == {"z": CONSTANT}


def censored(slope):
    with pm.Model() as model:
        z = pm.Normal("z", 0, 1, shape=2)
        law = pm.Normal.dist(slope * z[0] + z[1], 1.0)
        pm.Censored("y", law, lower=-1, upper=1, observed=[1.0, 0.2])
    return model


@pytest.mark.slow
def test_a_law_that_torch_does_not_have_is_judged_on_its_data():
    found = ik.from_pymc(censored(2.0))
    assert isinstance(found, Scored)
    verdict = ik.check(found)
    assert verdict.scope == "data"
    assert set(verdict.latents) == {"z[1]", "z[2]"}
    assert verdict.level is not CONSTANT
    z = torch.tensor([[0.3, -0.2], [1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    values = found.log_likelihood(z)
    mean = 2 * z[:, 0] + z[:, 1]
    normal = torch.distributions.Normal(mean, 1.0)
    wanted = torch.log(1 - normal.cdf(torch.tensor(1.0))) + normal.log_prob(torch.tensor(0.2))
    torch.testing.assert_close(values, wanted)
    both = [torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in (values, wanted)]
    torch.testing.assert_close(*both)
    pushed = torch.func.jvp(found.log_likelihood, (z.detach(),), (torch.ones_like(z),))[1]
    torch.testing.assert_close(pushed, both[1].sum(1))
    each = torch.func.vmap(lambda row: found.log_likelihood(row.unsqueeze(0))[0])(z.detach())
    torch.testing.assert_close(each, values.detach())


@pytest.mark.slow
def test_data_that_depend_on_data_are_judged_as_they_are():
    with pm.Model() as model:
        a = pm.Normal("a")
        first = pm.Normal("first", a, 1.0, observed=1.0)
        pm.Normal("second", first * a, 1.0, observed=0.3)
    verdict = checked(model)
    assert (verdict.scope, verdict.level) == ("data", Level.INFORMED)


def unobserved():
    pm.Normal("z")


def empty():
    pm.Normal("y", observed=1.0)


def potential():
    z = pm.Normal("z")
    pm.Potential("p", -(z**2))
    pm.Normal("y", z, observed=1.0)


def mixed():
    pm.Normal("y", pm.Normal("z") + pm.Bernoulli("k", 0.5), observed=1.0)


def skewed():
    pm.Normal("y", pm.SkewNormal("z", mu=0, sigma=1, alpha=3), observed=1.0)


def countable():
    pm.Normal("y", pm.Poisson("z", 2.0), observed=1.0)


def simplex():
    pm.Categorical("y", pm.Dirichlet("z", np.ones(3)), observed=1)


def crowded():
    pm.Normal("y", pm.Normal("z", shape=300), observed=np.zeros(300))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (unobserved, "observe something"),
        (empty, "a latent that is not observed"),
        (potential, "potentials p"),
        (mixed, "k beside z"),
        (skewed, "got skewnormal"),
        (countable, "infinitely many states"),
        (simplex, "simplex"),
        (crowded, "at most 256 latent numbers, got z"),
    ],
)
def test_models_that_cannot_be_taken(declare, message):
    with pm.Model() as model:
        declare()
    with pytest.raises(ValueError, match=message):
        ik.from_pymc(model)


def test_what_is_no_model():
    with pytest.raises(TypeError, match=r"pymc\.Model, got str"):
        ik.from_pymc("z ~ Normal(0, 1)")

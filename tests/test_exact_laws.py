"""The laws that every exact model obeys, run over every family's examples: Bayes' rule, evidence, information, refusal."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import identkit as ik
from identkit.model.protocol import Estimate, ExactModel
from identkit.verdict import Level
from tests.exact_example import Example, log_prob

EXAMPLES: dict[str, Example] = {
    name: example
    for file in sorted(Path(__file__).parent.glob("examples_*.py"))
    for name, example in importlib.import_module(f"tests.{file.stem}").EXAMPLES.items()
}
EVERY = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
SPEAKING = pytest.mark.parametrize(
    "example", [e for e in EXAMPLES.values() if e.silent], ids=[n for n, e in EXAMPLES.items() if e.silent]
)
ABUSES = [(f"{name}-{i}", *abuse) for name, e in EXAMPLES.items() for i, abuse in enumerate(e.abuses)]
DRAWS = 40_000


def data(example: Example) -> torch.Tensor:
    return torch.as_tensor(example.x, dtype=torch.float64)


def drawn(model, n: int) -> torch.Tensor:
    torch.manual_seed(7)
    return model.prior.sample((n,)).to(torch.float64).reshape(n, -1)


def quiet(example: Example) -> torch.Tensor:
    """Data for the silent twin, which may allow less."""
    return (
        data(example) if example.silent_x is None else torch.as_tensor(example.silent_x, dtype=torch.float64)
    )


def checkable(model) -> bool:
    """Whether the notation has words for the family; `symbolic` says why where it has none."""
    try:
        model.symbolic()
    except ValueError as reason:
        return len(str(reason)) < 40  # an excuse has to be a reason
    return True


def rows_of(model, x: torch.Tensor) -> int:
    return 1 if model.pooled else len(x)


@EVERY
def test_it_is_an_exact_model(example):
    assert isinstance(example.model, ExactModel)
    assert len(example.model.latent_names) == drawn(example.model, 1).shape[1]


@EVERY
def test_bayes_rule(example):
    model, x = example.model, data(example)
    n, k = rows_of(model, x), len(model.latent_names)
    z = drawn(model, 5 * n).reshape(5, n, k)
    before = log_prob(model.prior, z)
    after = log_prob(model.posterior(x), z)
    expected = before + model.log_likelihood(x, z) - model.log_evidence(x)
    torch.testing.assert_close(after, expected, rtol=1e-9, atol=1e-9)


@EVERY
def test_moments_are_those_of_the_draws(example):
    law, count = example.model.posterior(data(example)), 2000
    if isinstance(law, torch.distributions.Categorical):  # torch gives the number of a state no mean
        assert law.sample((count,)).shape == (count, *law.batch_shape)
        return
    if isinstance(law, torch.distributions.Distribution):
        torch.manual_seed(0)
        draws = law.sample((count,))
    else:
        one, again = (
            law.sample(sample_shape=(3,), generator=torch.Generator().manual_seed(0)) for _ in range(2)
        )
        assert torch.equal(one, again)
        draws = law.sample((count,), torch.Generator().manual_seed(0))
        torch.testing.assert_close(law.covariance.diagonal(dim1=-2, dim2=-1), law.variance)
        torch.testing.assert_close(law.covariance, law.covariance.mT)
        unit = law.stddev.amax(-1, keepdim=True).clamp(min=0.2)  # of what hardly varies draws say little
        apart = (draws - law.mean) / unit
        seen = torch.einsum("s...i,s...j->...ij", apart, apart) / count
        torch.testing.assert_close(seen, law.covariance / unit[..., None].square(), rtol=0, atol=0.25)
        one = law.marginal(0)
        assert one.sample((3,)).shape == (3, *law.mean.shape[:1], *law.mean.shape[2:])
        assert bool(one.log_prob(law.mean[:, 0]).isfinite().all())
    error = law.stddev / math.sqrt(count)
    assert bool(((draws.double().mean(0) - law.mean).abs() <= 5 * error).all())


@EVERY
def test_evidence_is_the_mean_of_the_likelihood_under_the_prior(example):
    model, x = example.model, data(example)
    n, k = rows_of(model, x), len(model.latent_names)
    z = drawn(model, DRAWS)[:, None].expand(DRAWS, n, k)
    heights = model.log_likelihood(x, z)
    weights = (heights - heights.amax(0)).exp()
    mean, error = weights.mean(0), weights.std(0) / math.sqrt(DRAWS)
    truth = (model.log_evidence(x) - heights.amax(0)).exp()
    seen = error < 0.2 * mean  # where a few draws carry the sum, its own spread says nothing
    assert bool(seen.any())
    assert bool(((mean - truth).abs() <= 5 * error + 1e-9 * mean)[seen].all())


@EVERY
def test_informations_are_what_they_are_called(example):
    model, x = example.model, data(example)
    joint, each, given = model.kl_to_prior(x), model.kl_per_latent(x), model.kl_conditional(x)
    error = model.kl_error(x)
    assert joint.shape == error.shape == (rows_of(model, x),)
    assert each.shape == given.shape == (rows_of(model, x), len(model.latent_names))
    assert bool((error > 0).all())
    assert bool((joint >= 0).all() and (each >= 0).all() and (given >= 0).all())
    slack = error[:, None] + 1e-9 * (1 + joint[:, None])
    assert bool((each <= joint[:, None] + slack).all())
    if len(model.latent_names) == 1:
        torch.testing.assert_close(each[:, 0], joint, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(given[:, 0], joint, rtol=1e-9, atol=1e-12)


@EVERY
def test_kl_is_the_mean_gain_in_likelihood(example):
    # KL(q ‖ p) = E_q ℓ − log p(x), with the expectation over posterior draws.
    model, x = example.model, data(example)
    n, k = rows_of(model, x), len(model.latent_names)
    torch.manual_seed(3)
    z = model.posterior(x).sample((4000,)).to(torch.float64).reshape(4000, n, k)
    gain = model.log_likelihood(x, z) - model.log_evidence(x)
    error = gain.std(0) / math.sqrt(4000)
    kl = model.kl_to_prior(x)
    rare = 0.005 * (1 + kl)  # states that no draw met leave no trace in the spread
    assert bool(((gain.mean(0) - kl).abs() <= 5.5 * error + rare).all())


@EVERY
def test_mutual_information_is_the_mean_kl_of_the_models_own_data(example):
    model = example.model
    if not hasattr(model, "mutual_information") or model.pooled:
        pytest.skip("pooled: no row has latents of its own")
    stated = model.mutual_information()
    assert isinstance(stated, Estimate) and stated.value >= 0 and stated.error >= 0
    x, _ = model.sample(3000, torch.Generator().manual_seed(11))
    kl = model.kl_to_prior(x)
    error = float(kl.std()) / math.sqrt(len(kl))
    own = 5 * stated.error if stated.method == "Monte Carlo" else stated.error
    assert abs(float(kl.mean()) - stated.value) <= 5.5 * error + own + 1e-9


@SPEAKING
def test_collapse_is_constancy(example):
    silent, speaking, x = example.silent, example.model, data(example)
    still = quiet(example)
    assert bool((silent.kl_to_prior(still) <= silent.kl_error(still)).all())
    assert bool((silent.kl_conditional(still) <= silent.kl_error(still)[:, None]).all())
    assert not checkable(silent) or ik.check(silent).level is Level.CONSTANT
    assert bool((speaking.kl_to_prior(x) > speaking.kl_error(x)).any())
    assert not checkable(speaking) or ik.check(speaking).level is not Level.CONSTANT


@EVERY
def test_the_theorem_holds_on_it(example):
    for model, x in ((example.model, data(example)), (example.silent, quiet(example))):
        if model is None or not checkable(model):
            continue
        found = ik.verify(model, x)
        assert [row for row in found.rows if row.agrees is False] == []
        assert any(row.agrees for row in found.rows if row.latent is None)


@EVERY
def test_rows_are_answered_one_by_one(example):
    model, x = example.model, data(example)
    if model.pooled:
        pytest.skip("pooled: the rows are one data set")
    whole = model.kl_to_prior(x)
    apart = torch.cat([model.kl_to_prior(row) for row in x.split(1)])
    torch.testing.assert_close(whole, apart, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(
        model.log_evidence(x.flip(0)).flip(0), model.log_evidence(x), rtol=1e-12, atol=1e-12
    )


@EVERY
def test_no_rows(example):
    model, none = example.model, data(example)[:0]
    count = rows_of(model, none)
    assert model.log_evidence(none).shape == model.kl_to_prior(none).shape == (count,)
    assert bool((model.kl_to_prior(none) == 0).all())
    assert model.kl_per_latent(none).shape == (count, len(model.latent_names))
    latents = torch.as_tensor(model.sample(1, torch.Generator().manual_seed(0))[1], dtype=torch.float64)
    assert model.log_likelihood(none, latents.expand(3, 1, -1)[:, :count]).shape == (3, count)


def test_a_verdict_is_not_held_against_no_rows():
    model = next(iter(EXAMPLES.values())).model
    with pytest.raises(ValueError, match="at least one row"):
        ik.verify(model, torch.zeros(0, 1))


@EVERY
def test_single_precision_by_what_comes_in(example):
    if example.single is None:
        pytest.skip("the family counts")
    model, x = example.model, data(example)
    for answer in (model.log_evidence, model.kl_to_prior, model.kl_per_latent, model.kl_conditional):
        single = answer(x.to(torch.float32))
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), answer(x), rtol=example.single, atol=example.single)
    assert model.kl_error(x.to(torch.float32)).dtype == torch.float64


@EVERY
def test_numpy_in_torch_out(example):
    model, x = example.model, data(example)
    torch.testing.assert_close(model.log_evidence(x.numpy()), model.log_evidence(x))


@EVERY
def test_data_are_read_and_never_written(example):
    """Whatever array they lie in: a caller's own memory, one that is read-only, backwards in memory, or in big bytes."""
    model, x = example.model, data(example).numpy()
    kept, frozen = x.copy(), x.copy()
    frozen.flags.writeable = False
    wanted = model.kl_to_prior(x)
    model.posterior(x)
    model.log_evidence(x)
    np.testing.assert_array_equal(x, kept)
    for other in (frozen, np.flip(np.flip(x).copy()), np.asfortranarray(x), x.astype(">f8")):
        torch.testing.assert_close(model.kl_to_prior(other), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("call", "phrase"), [a[1:] for a in ABUSES], ids=[a[0] for a in ABUSES])
def test_abuse_is_refused_and_explained(call, phrase):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    told = str(caught.value).lower()
    wanted = phrase.lower().replace("\\", "")
    assert wanted in told or "type-check error" in told  # the latter only where tests check annotations


@EVERY
def test_what_is_no_number_is_refused(example):
    model, x = example.model, data(example)
    bad = x.clone()
    bad.view(-1)[0] = math.inf
    with pytest.raises(ValueError, match="should"):
        model.log_evidence(bad)
    with pytest.raises((ValueError, TypeError), match="should"):
        model.log_evidence(torch.zeros(2, 97))


@EVERY
def test_what_a_mask_hides_is_missing_or_refused_never_data(example):
    model, x = example.model, data(example).numpy()
    hidden = np.zeros(x.shape, dtype=bool)
    hidden[0] = True
    masked, gaps = np.ma.array(x, mask=hidden), np.where(hidden, np.nan, x)
    if not getattr(model, "takes_missing", False):
        for answer in (model.log_evidence, model.posterior, model.kl_error):
            with pytest.raises(ValueError, match="should be finite, got nan"):
                answer(masked)
        return
    assert torch.equal(model.log_evidence(masked), model.log_evidence(gaps))
    assert model.kl_to_prior(masked)[0] == 0
    assert torch.equal(model.log_evidence(np.ma.array(x)), model.log_evidence(x))


@EVERY
def test_arrays_of_any_layout_are_the_same_data(example):
    model, x = example.model, data(example).numpy()
    want = model.log_evidence(x)
    still = x.copy()
    still.setflags(write=False)
    for same in (x[::-1].copy()[::-1], still, np.asfortranarray(x), x.astype(">f8"), x.tolist()):
        assert torch.equal(model.log_evidence(same), want)
    for strange in (data(example).to_sparse(), x + 1j, torch.tensor(x + 1j), x.astype(str)):
        with pytest.raises(TypeError, match="x should be an array of real numbers") as caught:
            model.log_evidence(strange)
        assert "\n" not in str(caught.value)


@EVERY
def test_what_a_sample_is_asked_for(example):
    model, generator = example.model, torch.Generator()
    x, z = model.sample(0, generator)
    more, latents = model.sample(2, generator)
    assert len(x) == 0 and x.shape[1:] == more.shape[1:] and z.shape[1:] == latents.shape[1:]
    for n in (-1, 2.5, "3", None, True):
        with pytest.raises((ValueError, TypeError), match=r"n should be a whole number|Type-check"):
            model.sample(n)
    with pytest.raises(TypeError, match=r"generator should be a torch.Generator|Type-check"):
        model.sample(2, 7)


@EVERY
def test_numbers_too_large_to_square_are_answered_or_refused(example):
    model, x = example.model, data(example)
    for answer in (model.log_evidence, model.kl_to_prior, model.kl_error):
        try:
            told = answer(torch.full_like(x, 1e300))
        except ValueError as reason:
            assert "x" in str(reason) and "should" in str(reason)  # noqa: PT017 (both are allowed)
        else:
            assert not bool(told.isnan().any())


@EVERY
def test_it_prints_as_one_short_line(example):
    told = repr(example.model)
    assert told.startswith(type(example.model).__name__ + "(") and len(told) < 400
    assert "tensor" not in told and "\n" not in told and "convergence" not in told

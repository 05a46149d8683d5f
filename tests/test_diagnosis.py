"""Whose fault a collapse is, on small variational autoencoders whose truth is known."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.distributions as td
from torch import Tensor, nn

from identkit.diagnosis import Diagnosis, Fault, diagnose
from identkit.model.protocol import Amortised
from identkit.plot import diagnosis as drawn

NOISE = 0.5
QUICK: dict[str, Any] = {"most": 12, "particles": 48}


class LinearVAE:
    """``x | z ~ N(Wz, s²I)``, ``z ~ N(0, I)``: the posterior is known, and so is the encoder that returns it."""

    def __init__(self, loadings: Tensor, noise: float = NOISE) -> None:
        self.loadings, self.noise = loadings.to(torch.float64), noise
        k = loadings.shape[1]
        self.prior = td.Normal(torch.zeros(k, dtype=torch.float64), 1.0)
        precision = torch.eye(k, dtype=torch.float64) + self.loadings.T @ self.loadings / noise**2
        self.covariance = torch.linalg.inv(precision)

    def decoder(self, z):
        return z @ self.loadings.T

    def likelihood(self, mean):
        return td.Independent(td.Normal(mean, self.noise), 1)

    def means(self, x):
        return x.to(torch.float64) @ self.loadings @ self.covariance / self.noise**2

    def encode(self, x):
        return td.MultivariateNormal(self.means(x), self.covariance.expand(len(x), -1, -1))

    def draw(self, n, seed=0):
        generator = torch.Generator().manual_seed(seed)
        d, k = self.loadings.shape
        z = torch.randn(n, k, generator=generator, dtype=torch.float64)
        return self.decoder(z) + self.noise * torch.randn(n, d, generator=generator, dtype=torch.float64)


class AtThePrior(LinearVAE):
    def encode(self, x):
        return td.Normal(torch.zeros_like(self.means(x)), 1.0)


class Inventing(LinearVAE):
    """q claims to know latents that the decoder ignores."""

    def encode(self, x):
        return td.Normal(x[:, :1] * torch.ones_like(self.means(x)), 0.1)


class Indifferent(LinearVAE):
    """q has left the prior, for the same law whatever the datum: what free bits can be met with."""

    def encode(self, x):
        return td.Normal(torch.full_like(self.means(x), 0.5), 0.5)


LOADINGS = torch.tensor([[1.0, 0.3, 0.0], [-0.5, 1.0, 0.0], [0.2, -0.8, 0.0], [0.7, 0.1, 0.0]])
NEARLY = LOADINGS + torch.tensor([0.0, 0.0, 1e-3])


def faults(found: Diagnosis) -> list[str]:
    return [finding.fault.value for finding in found.latents]


def test_the_exact_encoder_is_healthy_and_an_ignored_latent_the_model_s_fault():
    model = LinearVAE(LOADINGS)
    assert isinstance(model, Amortised)
    x = model.draw(40)
    found = diagnose(model, x, **QUICK)
    assert faults(found) == ["healthy", "healthy", "model-collapsed"]
    assert found.overall.fault is Fault.HEALTHY
    # q is the posterior: nothing is missed, and both sides measure the same.
    assert found.missed.low <= 1e-9
    assert found.missed.high < 0.2
    assert found.latents[2].flatness.value == 0
    assert found.latents[2].truth.high <= 1e-9
    assert found.active_units == ("z[1]", "z[2]")
    for finding in found.latents[:2]:
        assert finding.truth.low <= finding.inference.high
        assert finding.inference.low <= finding.truth.high


def test_closed_form_lies_in_the_intervals():
    model = LinearVAE(LOADINGS)
    x = model.draw(5)
    found = diagnose(model, x, particles=128, method="annealing")
    truth = td.kl_divergence(
        model.encode(x), td.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    )
    assert found.used == found.n == 5
    for measure in (found.overall.truth, found.overall.inference):
        assert measure.low <= float(truth.mean()) <= measure.high
    # E_q KL of the conditionals of N(m, C): each has variance v = 1/(C⁻¹)_jj and a mean of variance C_jj − v around m.
    v = 1 / torch.linalg.inv(model.covariance).diagonal()
    spread = model.covariance.diagonal() - v
    each = 0.5 * (v + spread + model.means(x).square() - 1 - v.log()).mean(0)
    for finding, value in zip(found.latents, each.tolist(), strict=True):
        assert finding.truth.low - 1e-9 <= value <= finding.truth.high + 1e-9
        assert finding.inference.low - 1e-9 <= value <= finding.inference.high + 1e-9


def test_an_encoder_at_the_prior_is_its_own_fault():
    model = AtThePrior(LOADINGS)
    found = diagnose(model, model.draw(40), **QUICK)
    assert faults(found) == ["inference-collapsed", "inference-collapsed", "model-collapsed"]
    assert found.overall.fault is Fault.INFERENCE
    assert found.overall.inference.high <= 1e-9
    assert found.missed.low > 1
    assert found.active_units == ()
    assert found.latents[0].gap < 0


def test_an_encoder_that_says_the_same_of_all_data_is_no_healthy_one():
    model = Indifferent(LOADINGS)
    x = model.draw(40)
    found = diagnose(model, x, **QUICK)
    assert faults(found) == ["inference-collapsed", "inference-collapsed", "model-collapsed"]
    assert found.overall.fault is Fault.INFERENCE
    assert found.overall.inference.low > 0.1
    assert found.overall.told == pytest.approx(0, abs=1e-12)
    assert "is the same whatever the datum" in str(found)
    # On data that are all alike the truth says the same of all, too.
    alike = diagnose(LinearVAE(LOADINGS), x[:1].expand(40, -1), **QUICK)
    assert faults(alike) == ["healthy", "healthy", "model-collapsed"]


def test_what_an_encoder_tells_about_the_datum_is_bounded():
    model = LinearVAE(torch.tensor([[1.0]]))
    x = model.draw(4000)
    found = diagnose(model, x, **{**QUICK, "most": 4})
    # Of data from the model, z and which datum are the information of x about z: ½ log(1 + w²/s²).
    assert found.overall.told == pytest.approx(0.5 * math.log(1 + 1 / NOISE**2), rel=0.05)


class Scaling(LinearVAE):
    """q's mean stays at 0, and its spread alone tells which of two kinds of data it saw."""

    def encode(self, x):
        spread = torch.where(x[:, :1] > x[:, :1].median(), 0.8, 0.2).to(torch.float64)
        return td.Normal(torch.zeros_like(self.means(x)), spread.expand(-1, self.loadings.shape[1]))


def test_a_spread_that_moves_with_the_datum_tells_about_it():
    model = Scaling(LOADINGS)
    found = diagnose(model, model.draw(40), **QUICK)
    # ½ log of the mean of the variances 0.04 and 0.64, less ½ the mean of their logarithms.
    each = 0.5 * (math.log(0.34) - (math.log(0.04) + math.log(0.64)) / 2)
    assert [finding.told for finding in found.latents] == pytest.approx([each] * 3)
    assert found.overall.told == pytest.approx(3 * each)
    assert faults(found) == ["healthy", "healthy", "model-collapsed"]
    assert [finding.spread for finding in found.latents] == [0.0] * 3


def test_what_q_invents_is_told():
    model = Inventing(LOADINGS)
    found = diagnose(model, model.draw(30), **QUICK)
    assert faults(found)[2] == "model-collapsed"
    assert "z[3]" in found.active_units
    assert "it invents them" in str(found)


def test_a_nearly_flat_latent_is_collapsed_to_the_threshold_only():
    model = LinearVAE(NEARLY)
    x = model.draw(20)
    found = diagnose(model, x, **QUICK).latents[2]
    assert found.fault is Fault.MODEL
    assert 0 < found.truth.value < 1e-4
    assert found.flatness.value > 0
    strict = diagnose(model, x, threshold=1e-9, **QUICK).latents[2]
    assert strict.fault is Fault.HEALTHY


class Square:
    """``x | z ~ N(z², s²)`` with a q that is symmetric about 0: no active unit, and yet nothing has collapsed."""

    prior = td.Normal(torch.zeros(1, dtype=torch.float64), 1.0)

    def decoder(self, z):
        return z.square()

    def likelihood(self, mean):
        return td.Independent(td.Normal(mean, 0.5), 1)

    def encode(self, x):
        size = x.clamp(min=0.1).sqrt().to(torch.float64)
        centres = torch.stack([-size, size], 1)
        parts = td.Independent(td.Normal(centres, torch.full_like(centres, 0.25)), 1)
        return td.MixtureSameFamily(td.Categorical(torch.ones(len(x), 2, dtype=torch.float64)), parts)


def test_an_even_decoder_has_no_active_unit_and_has_not_collapsed():
    generator = torch.Generator().manual_seed(2)
    z = torch.randn(30, 1, generator=generator, dtype=torch.float64)
    x = z.square() + 0.5 * torch.randn(30, 1, generator=generator, dtype=torch.float64)
    found = diagnose(Square(), x)
    assert found.method == "quadrature"
    assert found.active_units == ()
    assert found.overall.fault is found.latents[0].fault is Fault.HEALTHY
    assert found.latents[0].true_spread < 1e-9
    assert "whose mean stays put" in str(found)
    # One latent: given no others, the conditional is the joint.
    assert math.isclose(found.latents[0].truth.value, found.overall.truth.value, rel_tol=1e-6)


class SmallVAE(nn.Module):
    """A network with Bernoulli data, as users have it, in float32."""

    def __init__(self, latents: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(latents, 16), nn.Tanh(), nn.Linear(16, 6))
        self.encoder = nn.Sequential(
            nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 2 * latents)
        )
        self.prior = td.Normal(torch.zeros(latents), torch.ones(latents))

    def likelihood(self, logits):
        return td.Independent(td.Bernoulli(logits=logits), 1)

    def encode(self, x):
        mean, log_sd = self.encoder(x).chunk(2, -1)
        return td.Independent(td.Normal(mean, log_sd.exp()), 1)


def trained(latents: int = 2, steps: int = 400) -> tuple[SmallVAE, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        factor = torch.randn(400, 1)
        x = torch.bernoulli(torch.sigmoid(factor @ torch.tensor([[3.0, -3.0, 3.0, 2.0, -2.0, 3.0]])))
        model = SmallVAE(latents)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(steps):
            q = model.encode(x)
            z = q.rsample()
            prior = td.Independent(model.prior, 1)
            elbo = model.likelihood(model.decoder(z)).log_prob(x) + prior.log_prob(z) - q.log_prob(z)
            optimiser.zero_grad()
            (-elbo.mean()).backward()
            optimiser.step()
    return model.eval(), x


def test_a_trained_network():
    model, x = trained()
    before = torch.get_rng_state()
    found = diagnose(model, x, **QUICK)
    assert torch.equal(before, torch.get_rng_state())
    assert found.overall.fault is Fault.HEALTHY
    assert found.used == 12
    assert found.n == 400
    # The evidence bound: log p(x) ≥ ELBO.
    assert found.missed.high >= 0
    assert diagnose(model, x, **QUICK).to_dict() == found.to_dict()


@pytest.mark.slow
def test_quadrature_and_annealing_agree():
    model, x = trained()
    some: dict[str, Any] = {"most": 4, "seed": 1}
    one, two = (diagnose(model, x, method=method, **some) for method in ("quadrature", "annealing"))
    for first, second in zip((one.overall, *one.latents), (two.overall, *two.latents), strict=True):
        assert second.truth.low <= first.truth.value <= second.truth.high
        assert first.fault is second.fault


def test_what_has_not_converged_is_undecided():
    model = LinearVAE(LOADINGS, noise=1e-3)
    found = diagnose(model, model.draw(10), most=4, particles=32, rungs=2, method="annealing")
    assert found.overall.fault is Fault.UNDECIDED
    assert set(faults(found)) == {"undecided"}
    assert len(found.reasons) == 4
    assert "has not converged on 4 of 4" in str(found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_words_json_and_figure():
    model = LinearVAE(LOADINGS)
    found = diagnose(model, model.draw(40), **QUICK)
    text = str(found)
    assert text.count("\n") >= 5
    assert "z[3] model-collapsed" in text
    assert "12 of 40 data" in text
    entry = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [latent["fault"] for latent in entry["latents"]] == faults(found)
    figure = drawn(found)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["all together", "z[1]", "z[2]", "z[3]"]
    words = [note.get_text() for note in left.texts]
    assert words == ["healthy", "healthy", "healthy", "model-collapsed"]
    assert right.get_title() == "active units"


# Abuses


class Broken(LinearVAE):
    def __init__(self, answer) -> None:
        super().__init__(LOADINGS)
        self.answer = answer

    def encode(self, x):
        return self.answer(self.means(x))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda mean: td.Normal(mean[:, :2], 1.0), ValueError, "one law of 3 latents for each of 10 rows"),
        (lambda mean: td.Normal(mean[:4], 1.0), ValueError, "one law of 3 latents for each of 10 rows"),
        (lambda mean: td.Normal(mean[0], 1.0), ValueError, "one law of 3 latents"),
        (lambda mean: mean, TypeError, "should return a torch distribution, got Tensor"),
        (lambda mean: td.Normal(mean + torch.rand(()), 1.0), ValueError, "two calls with the same x differ"),
    ],
)
def test_encoders_that_are_none(answer, error, message):
    model = Broken(answer)
    with pytest.raises(error, match=message):
        diagnose(model, model.draw(10), **QUICK)


def test_models_and_data_that_are_none():
    model = LinearVAE(LOADINGS)
    x = model.draw(10)
    with pytest.raises(ValueError, match="x should be finite"):
        diagnose(model, torch.where(x > 1, math.nan, x))
    with pytest.raises(ValueError, match="eval"):
        diagnose(SmallVAE(dropout=0.5), torch.ones(4, 6))
    with pytest.raises(ValueError, match="threshold should be positive"):
        diagnose(model, x, threshold=0.0)
    with pytest.raises(ValueError, match="method should be"):
        diagnose(model, x, method="guess")

    class Blind:
        prior, decoder, likelihood = model.prior, staticmethod(model.decoder), staticmethod(model.likelihood)

    with pytest.raises(TypeError, match="Blind has none"):
        diagnose(Blind(), x)


def test_an_encoder_outside_the_prior_is_refused():
    model = LinearVAE(LOADINGS)
    model.prior = td.Uniform(torch.full((3,), -1.0, dtype=torch.float64), 1.0)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="outside the prior's support"):
        diagnose(model, model.draw(10), **QUICK)

"""Sequence models: laws that sum to one, an ELBO below the evidence, a bound that no search breaks, large vocabularies."""

from __future__ import annotations

import itertools
import math
import weakref
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import identkit as ik
from identkit.lidvae.datasets import markov_sequences
from identkit.lidvae.members import member, stack
from identkit.lidvae.models import LIDSVAE, SequenceVAE
from identkit.lidvae.objectives import SemiAmortised
from identkit.lidvae.recurrent import LSTM, Embedding
from identkit.lidvae.vocabulary import AT_ONCE, ContrastVocabulary, FreeVocabulary, helmert
from identkit.verdict import Level
from tests.map_examples import generator, normal

SMALL: dict[str, Any] = {"embedding": 6, "hidden": 8, "encoder_hidden": 8}
KINDS = {"lidsvae": LIDSVAE, "sequence": SequenceVAE}


def _rows(n: int, length: int, categories: int, seed: int = 0) -> Tensor:
    return torch.randint(categories, (n, length), generator=generator(seed))


def _model(kind: str, length: int = 5, latents: int = 2, categories: int = 4, **more: Any) -> Any:
    model: Any = KINDS[kind](length, latents, categories=categories, **SMALL, **more).double()
    model.start_(_rows(200, length, categories), generator=generator())
    return model


def _train(model: Any, x: Tensor, steps: int = 40) -> Any:
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    draws = generator(5)
    rows = model.rows(x)
    for _ in range(steps):
        optimiser.zero_grad()
        (-model.terms(rows, model.infer(rows), 1, draws).elbo().mean(1).sum()).backward()
        optimiser.step()
    return model.eval()


@cache
def _trained(kind: str) -> Any:
    """Two members, trained on sequences in which each symbol repeats the one before."""
    x = _rows(200, 1, 4).expand(-1, 5).clone()
    x[:, 3:] = _rows(200, 2, 4, seed=1)
    return _train(_model(kind, members=2), x[:100], steps=30)


def _lower(model: Any) -> float:
    """m."""
    return model.certificate().lower


def _all(length: int, categories: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(categories), repeat=length)))


# --- what reads -------------------------------------------------------------------------------------------


def test_the_lstm_is_that_of_torch_in_values_and_gradients() -> None:
    ours = LSTM(2, 3, 5, generator=generator()).double()
    x = normal(2, 7, 6, 3).requires_grad_()
    begun = (normal(2, 7, 5, seed=1), normal(2, 7, 5, seed=2))
    states, last = ours(x, begun)
    weight = normal(*states.shape, seed=3)
    found = torch.autograd.grad((states * weight).sum(), [x, ours.state_weight])
    for number in range(2):
        torchs: Any = nn.LSTM(3, 5, batch_first=True).double()
        i, f, o, g = torch.arange(20).split(5)
        order = torch.cat((i, f, g, o))  # torch has the candidate before the output gate
        with torch.no_grad():
            torchs.weight_ih_l0.copy_(ours.input_weight[number][order])
            torchs.weight_hh_l0.copy_(ours.state_weight[number][order])
            torchs.bias_ih_l0.copy_(ours.bias[number][order])
            torchs.bias_hh_l0.zero_()
        rows = x[number].detach().requires_grad_()
        memory = (begun[0][number : number + 1], begun[1][number : number + 1])
        expected, (state, cell) = torchs(rows, memory)
        gradients = torch.autograd.grad(
            (expected * weight[number]).sum(), [rows, torchs.weight_hh_l0], retain_graph=True
        )
        assert (states[number] - expected).abs().max() < 1e-12
        assert (last[0][number] - state[0]).abs().max() < 1e-12
        assert (last[1][number] - cell[0]).abs().max() < 1e-12
        assert (found[0][number] - gradients[0]).abs().max() < 1e-12
        assert (found[1][number][order] - gradients[1]).abs().max() < 1e-12


def test_an_lstm_stepped_is_the_lstm_and_differentiable_twice() -> None:
    lstm = LSTM(2, 3, 4, generator=generator()).double()
    x = normal(2, 5, 6, 3)
    states, _ = lstm(x)
    memory = lstm.begin(5)
    for step in range(6):
        memory = lstm.step(x[:, :, step], memory)
        assert (memory[0] - states[:, :, step]).abs().max() < 1e-14
    few = normal(2, 1, 3, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda rows: lstm(rows)[0], few)


def test_each_member_looks_up_its_own_symbols() -> None:
    table = Embedding(3, 5, 2, generator=generator())
    x = _rows(3 * 4, 6, 5).view(3, 4, 6)
    for number in range(3):
        assert torch.equal(table(x)[number], table.weight[number][x[number]])


# --- the law ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 3])
def test_all_sequences_together_have_probability_one(kind: str, length: int) -> None:
    model = _model(kind, length, 2, 3)
    every = _all(length, 3)
    z = normal(6, 1, 2).expand(-1, len(every), 2)
    total = model.log_likelihood(every, z).logsumexp(1)
    assert total.abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_the_product_of_its_steps(kind: str) -> None:
    model = _trained(kind)
    x, z = model.rows(_rows(7, 5, 4, seed=2)), normal(2, 7, 2)
    found = model.decoded(x, z.unsqueeze(0))[0]
    memory, symbol, total = model.decoder.begin(z), torch.full((2, 7), 4), torch.zeros(2, 7).double()
    for step in range(5):
        logits, memory = model.decoder.step(symbol, memory, z)
        symbol = x[..., step]
        total = total + logits.log_softmax(2).gather(2, symbol.unsqueeze(2)).squeeze(2)
    assert (found - total).abs().max() < 1e-12
    # As decoder and likelihood, which is how `check` takes it.
    alone = member(model, 1)
    law = alone.likelihood(alone.decoder(z[1], x[1]))
    assert (law.log_prob(x[1]).sum(1) - found[1]).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_several_samples_are_each_their_own(kind: str) -> None:
    model = _trained(kind)
    x, z = model.rows(_rows(4, 5, 4)), normal(3, 2, 4, 2)
    found = model.decoded(x, z)
    for sample in range(3):
        assert (found[sample] - model.decoded(x, z[sample : sample + 1])[0]).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_knows_what_follows(kind: str) -> None:
    model = member(_trained(kind), 0)
    x, z = _rows(5, 5, 4), normal(5, 2)
    other = x.clone()
    other[:, 3] = (x[:, 3] + 1) % 4
    one, two = (model.decoder(z, rows).view(5, 5, 3) for rows in (x, other))
    assert torch.equal(one[:, :4], two[:, :4])
    assert (one[:, 4] - two[:, 4]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_law(kind: str) -> None:
    model = _model(kind, 2, 1, 3)
    _train(model, torch.stack((_rows(300, 1, 3)[:, 0], _rows(300, 1, 3)[:, 0]), 1))
    every, z = _all(2, 3), torch.tensor([[0.7]]).double()
    with torch.no_grad():
        chances = model.log_likelihood(every, z.expand(9, 1)).exp()
        drawn = model.generate(z.expand(20_000, 1), generator=generator(3))
    share = torch.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9) / 20_000
    assert ((share - chances) / (chances * (1 - chances) / 20_000).sqrt()).abs().max() < 4.5
    x, latents = model.sample(30, generator(1))
    assert torch.equal(x, model.sample(30, generator(1))[0])
    assert x.shape == (30, 2) and x.dtype == torch.int64 and latents.shape == (30, 1)
    assert model.generate(z, length=7).shape == (1, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_elbo_stays_below_the_evidence_that_importance_weights_estimate(kind: str) -> None:
    model = _model(kind, 3, 1, 3)
    _train(model, _rows(100, 1, 3).expand(-1, 3))
    knots = torch.linspace(-9, 9, 721, dtype=torch.float64)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(knots) + math.log(18 / 720)
    rows = _all(3, 3)
    with torch.no_grad():
        each = model.log_likelihood(rows, knots.view(-1, 1, 1).expand(-1, len(rows), 1))
        evidence = (each + log_prior.unsqueeze(1)).logsumexp(0)
        assert evidence.logsumexp(0).abs() < 1e-9  # p(x) sums to one too
        taken = model.rows(rows)
        q = model.infer(taken)
        elbo = model.terms(taken, q, 1000, generator()).elbo()[0]
        weights = model.log_weights(taken, q, 1000, generator(1))[:, 0]
        spoken = model.decoded(taken, q.draw(1000, generator()))[:, 0]
    error = (spoken.std(0) + weights.std(0)) / math.sqrt(1000)
    assert ((elbo - weights.mean(0)).abs() < 5 * error).all()
    assert (elbo < evidence + 5 * error).all() and (evidence - elbo).mean() < 1
    estimate = weights.logsumexp(0) - math.log(1000)
    spread = (weights - estimate).exp().std(0) / math.sqrt(1000)
    assert ((estimate - evidence).abs() < 5 * spread + 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_members_neither_mix_nor_differ_from_a_model_of_their_own(kind: str) -> None:
    model = _trained(kind)
    x = _rows(6, 5, 4, seed=4)
    rows = model.rows(x)
    q = model.infer(rows)
    z = q.draw(2, generator())
    found = model.decoded(rows, z)
    for number in range(2):
        alone = member(model, number)
        assert (alone.encode(x).mean - q.mean[number]).abs().max() < 1e-12
        assert (alone.log_likelihood(x, z[:, number]) - found[:, number]).abs().max() < 1e-12
    both = stack([member(model, 0), member(model, 1)])
    assert torch.equal(both.decoded(rows, z), found)
    model.zero_grad()
    model.terms(rows, q, 1, generator()).elbo()[0].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad[1].abs().max() == 0, name
        assert parameter.grad[0].abs().max() > 0, name
    model.zero_grad()


def test_settings_make_it_anew() -> None:
    model = LIDSVAE(5, 2, categories=6, alphas=(0.3, 0.4), scale=2.0, state=1, **SMALL)
    again = model.fresh(0)
    other = model.fresh(1, members=3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert other.members == 3 and other.decoder.split == (1, 5)
    assert _lower(other) == pytest.approx(_lower(model), rel=1e-6)


# --- the start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_at_the_symbols_frequencies(kind: str) -> None:
    x = (torch.rand(2000, 6, generator=generator()) ** 3 * 5).long()
    model: Any = KINDS[kind](6, 2, categories=5, **SMALL)
    model.start_(x, generator=generator())
    share = (torch.bincount(x.flatten(), minlength=5) + 0.5) / (x.numel() + 2.5)
    assert (model.decoder.vocabulary.bias.softmax(1) - share).abs().max() < 1e-6
    assert bool(model.started.all())


def test_what_meets_the_latent_starts_with_unit_spread_and_logits_of_order_one() -> None:
    x = markov_sequences(500, vocabulary=30, length=12).train
    model = LIDSVAE(12, 2, categories=30, members=2)
    model.start_(x, generator=generator())
    decoder = model.decoder
    rows = decoder._before(model.rows(x), None)
    told = decoder.read(decoder.lstm(decoder.embedding(rows))[0].flatten(1, 2))
    assert (told[..., : decoder.split[0]].std(1) - 1).abs().max() < 0.1
    assert told.mean(1).abs().max() < 0.1
    logits = decoder.vocabulary(decoder._features(torch.randn(1, 2, 400, 2, generator=generator()), rows))
    assert 0.5 < float((logits - decoder.vocabulary.bias.unsqueeze(1)).detach().std()) < 2


# --- large vocabularies -----------------------------------------------------------------------------------


def test_contrasts_are_orthonormal_and_sum_to_zero() -> None:
    for categories in (2, 3, 20):
        q = helmert(categories).double()
        assert (q.T @ q - torch.eye(categories - 1)).abs().max() < 1e-6
        assert q.sum(0).abs().max() < 1e-6


@pytest.mark.parametrize("features", [5, 11])
def test_features_are_as_far_apart_as_the_laws(features: int) -> None:
    head = ContrastVocabulary(2, features, 12, generator=generator()).double()
    with torch.no_grad():
        head.weight.add_(normal(2, 12, features, seed=4)) if features < 11 else None
        head.bias.copy_(normal(2, 12))
    one, two = normal(2, 500, features, seed=1), normal(2, 500, features, seed=2)
    gap = head(one).log_softmax(2) - head(two).log_softmax(2)
    quotient = (gap - gap.mean(2, keepdim=True)).norm(dim=2) / (one - two).norm(dim=2)
    assert (quotient - math.sqrt(12 / features)).abs().max() < 1e-6
    lower, upper = head.lower_lipschitz(), head.upper_lipschitz()
    assert lower is not None and quotient.min() * (1 + 1e-13) >= lower > 0.9999 * math.sqrt(12 / features)
    assert quotient.max() * (1 - 1e-13) <= upper < 1.0001 * math.sqrt(12 / features)


def test_a_common_shift_in_the_columns_is_not_counted_as_seen() -> None:
    head = ContrastVocabulary(1, 2, 3, generator=generator())
    before = head.lower_lipschitz()
    head.weight[..., 0] = 3**-0.5  # still orthonormal columns, one of them a shift, which a softmax forgets
    one = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    law = head(one).softmax(2)
    assert (law[:, 0] - law[:, 1]).abs().max() < 1e-6
    after = head.lower_lipschitz()
    assert before is not None and before > 1 and (after is None or after < 1e-6)


@pytest.mark.parametrize("make", [ContrastVocabulary, FreeVocabulary])
def test_turns_change_neither_values_nor_gradients(make: Any) -> None:
    head = make(2, 4, 50, generator=generator()).double()
    features, x = normal(2, 33, 4).requires_grad_(), _rows(2, 33, 50)
    whole = head.log_prob(x, features)
    parts = head.log_prob(x, features, at_once=700)  # 7 rows a turn
    assert (whole - parts).abs().max() < 1e-13
    expected = head(features).log_softmax(2).gather(2, x.unsqueeze(2)).squeeze(2)
    assert (whole - expected).abs().max() < 1e-13
    weights = [features, *head.parameters()]
    weighted = normal(2, 33, seed=3)
    for a, b in zip(
        torch.autograd.grad((whole * weighted).sum(), weights),
        torch.autograd.grad((parts * weighted).sum(), weights),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-12


class _Live(TorchDispatchMode):
    """Bytes of all tensors made inside that are alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                key, size = storage.data_ptr(), storage.nbytes()
                if size and key not in self._seen:
                    self._seen.add(key)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._freed, key, size)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_at_a_vocabulary_of_20_000_fits_memory(kind: str) -> None:
    """64 rows of 20 symbols: one copy of all logits is 102 MB, of which a plain step holds several."""
    categories = 20_000
    model: Any = KINDS[kind](20, 4, categories=categories)
    x = model.rows(_rows(64, 20, categories))
    model.start_(x[0], generator=generator())
    with _Live() as live:
        (-model.terms(x, model.infer(x), 1, generator()).elbo().sum()).backward()
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    # Gradients and the factors of W, some eight times the weights; and four copies of the logits of a turn.
    assert live.peak < 8 * weights + 4 * 4 * AT_ONCE < 200e6
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- what is proved ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, None), (30, 10)])
def test_no_search_over_latents_and_histories_breaks_the_bound(sizes: tuple[int, int | None]) -> None:
    categories, features = sizes
    model = _model("lidsvae", 5, 2, categories, features=features)
    _train(model, _rows(50, 5, categories), steps=25)
    found: Any = model.certificate()
    assert found.floor is None and found.predicted == ()
    exact = model.decoder

    def quotients(one: Tensor, other: Tensor, x: Tensor) -> Tensor:
        gap = (exact(one, x) - exact(other, x)).unflatten(1, (5, categories - 1))
        gap = functional.pad(gap, (0, 1))
        gap = (gap - gap.mean(2, keepdim=True)).norm(dim=2)
        return gap / (one - other).norm(dim=1, keepdim=True)

    x = _rows(1500, 5, categories, seed=8)
    with torch.no_grad():
        for apart in (1e-3, 1.0, 30.0):
            one = normal(1500, 2, seed=1)
            each = quotients(one, one + apart * normal(1500, 2, seed=2), x)
            assert each.min() >= found.lower * (1 - 1e-6) and each.max() <= found.upper * (1 + 1e-6)
    pair = torch.stack((normal(100, 2, seed=3), normal(100, 2, seed=4))).requires_grad_()
    optimiser = torch.optim.Adam([pair], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        quotients(pair[0], pair[1], x[:100]).sum().backward()
        optimiser.step()
    assert quotients(pair[0], pair[1], x[:100]).min() >= found.lower * (1 - 1e-6)


def test_the_bound_is_as_the_dials_say() -> None:
    model = LIDSVAE(5, 2, categories=101, alphas=(0.3, 0.4), scale=2.0, features=25)
    assert _lower(model) == pytest.approx(0.3 * 0.4 * 2 * math.sqrt(101 / 25), rel=1e-5)
    for hidden in ((8, 8), (8, 8, 8)):
        chain = LIDSVAE(5, 2, categories=9, map="logsumexp", map_hidden=hidden)
        assert _lower(chain) == pytest.approx(0.4 * 3, rel=1e-5) and chain.verdict().level is Level.GLOBAL
    for categories in (5, 300):
        plain = LIDSVAE(5, 2, categories=categories)
        assert _lower(plain) == pytest.approx(0.4 * math.sqrt(categories), rel=1e-5)


@pytest.mark.parametrize("members", [1, 2])
def test_check_proves_it_global_and_the_proof_re_checks_itself(members: int) -> None:
    model = member(_trained("lidsvae"), 0) if members == 1 else _trained("lidsvae")
    verdict = ik.check(model)
    assert verdict.level is Level.GLOBAL and set(verdict.latents) == {"z[1]", "z[2]"}
    proof: Any = verdict.certificate
    assert proof.verify() and proof.lower == _lower(model)
    assert "every history" in proof.statement
    assert verdict.to_dict()["certificate"]["verified"]


@pytest.mark.parametrize(
    "break_",
    [
        lambda d: d.f.g1.alpha.mul_(0.9),
        lambda d: d.f.beta.scale.mul_(0.9),
        lambda d: d.vocabulary.weight.mul_(0.9),
        lambda d: d.vocabulary.weight[..., 0].copy_(d.vocabulary.weight[..., 1]),
        lambda d: d.embedding.weight.mul_(math.nan),
        lambda d: d.read.register_forward_hook(lambda *_: None) and d.register_forward_hook(lambda *_: None),
        lambda d: setattr(d.f, "forward", lambda z: d.f.g2(d.f.g1(z) @ d.f.beta.basis().mT)),
        lambda d: setattr(d.f.maps, "0", nn.Identity()),
    ],
)
def test_a_proof_fails_where_the_weights_or_the_code_are_others(break_: Any) -> None:
    model = _model("lidsvae")
    proof = model.verdict().certificate
    assert proof.verify()
    with torch.no_grad():
        break_(model.decoder)
    assert not proof.verify()


def test_a_claim_that_is_too_bold_is_not_verified() -> None:
    model = _model("lidsvae")
    proof = model.verdict().certificate
    assert not type(proof)(model=model, lower=proof.lower * 1.001, upper=proof.upper).verify()
    assert not type(proof)(model=model, lower=proof.lower, upper=proof.upper * 0.5).verify()
    assert not type(proof)(model=model, lower=0.0, upper=None).verify()
    assert type(proof)(model=model, lower=proof.lower, upper=None).verify()


class _Deaf(nn.Module):
    """Says that it is bounded from below, and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z) * torch.tensor([1.0, 0.0, 0.0])

    def lower_lipschitz(self) -> float:
        return 1.0

    def upper_lipschitz(self) -> float:
        return 2.0


class _Double(_Deaf):
    def forward(self, z: Tensor) -> Tensor:
        return 1.5 * z + 0 * self.layer(z)


def test_a_map_of_your_own_vouches_for_itself_and_is_tried() -> None:
    model = LIDSVAE(5, 2, categories=4, map=_Double(), **SMALL)
    verdict = ik.check(model)
    assert verdict.level is Level.GLOBAL
    assert verdict.assumptions[0] == "map vouches for its own constants"
    assert ik.check(LIDSVAE(5, 2, categories=4, map=_Deaf(), **SMALL)).level is Level.UNKNOWN
    with pytest.raises(ValueError, match=r"map should bound itself .* Linear does not"):
        LIDSVAE(5, 2, categories=4, map=nn.Linear(3, 3), **SMALL)


def test_a_lost_rank_proves_nothing() -> None:
    model = _model("lidsvae", categories=12, state=1)
    with torch.no_grad():
        model.decoder.f.beta.weight.zero_()
    assert ik.check(model).level is Level.UNKNOWN
    assert model.certificate() is None


def test_the_ordinary_model_is_not_called_global() -> None:
    model = _model("sequence", 2, 2, 3).eval()
    x = _rows(2, 2, 3)
    assert ik.check(model).level is Level.UNKNOWN
    probed = {"prior": model.prior, "likelihood": model.likelihood, "x": x}
    assert ik.check(model.decoder, **probed).level in (Level.UNKNOWN, Level.LOCAL)
    with torch.no_grad():  # nothing reads z any longer
        model.decoder.lstm.input_weight[..., -2:] = 0
        model.decoder.first.weight.zero_()
    dead = ik.check(model.decoder, **probed)
    assert dead.level in (Level.UNKNOWN, Level.CONSTANT)
    assert "average KL from prior to posterior is at most 0 nats" in " ".join(dead.assumptions)
    assert model.certificate() is None


# --- words dropped, and bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_words_are_not_read_and_still_have_to_be_said(kind: str) -> None:
    model = _model(kind, word_dropout=0.5)
    x, z = model.rows(_rows(50, 5, 4)), normal(1, 1, 50, 2)
    none = torch.zeros_like(x, dtype=torch.bool)
    assert torch.equal(model.decoder.log_prob(x, z, none), model.decoded(x, z))
    other = x.clone()
    other[..., :4] = (x[..., :4] + 1) % 4
    blind = [model.decoder._features(z, model.decoder._before(rows, ~none)) for rows in (x, other)]
    assert torch.equal(*blind)
    q = model.infer(x)
    again = [model.terms(x, q, 1, generator(seed)).log_likelihood for seed in (1, 1)]
    assert torch.equal(*again)
    spoken = model.terms(x, q, 1, generator(1)).log_likelihood
    model.word_dropout = 0.0
    assert not torch.allclose(spoken, model.terms(x, q, 1, generator(1)).log_likelihood)
    model.word_dropout = 0.5
    model.eval()  # only training drops words
    model_z = q.draw(1, generator(1))
    assert torch.equal(model.terms(x, q, 1, generator(1)).log_likelihood, model.decoded(x, model_z).mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_any_length_go_but_must_be_states(kind: str) -> None:
    model = _model(kind)
    for length in (1, 9):
        assert model.encode(_rows(3, length, 4)).mean.shape == (3, 2)
        assert model.log_likelihood(_rows(3, length, 4).to(torch.int32), normal(3, 2)).shape == (3,)
    with pytest.raises(TypeError, match=r"x should hold states as whole numbers.*float32"):
        model.encode(torch.zeros(3, 5))
    for bad in (-1, 4):
        x = _rows(3, 5, 4)
        x[1, 2] = bad
        with pytest.raises(ValueError, match=rf"x should hold states 0, …, 3, got {bad} in row 1, step 2"):
            model.log_likelihood(x, normal(3, 2))
    with pytest.raises(ValueError, match="at least one symbol"):
        model.encode(torch.zeros(3, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="x should have shape"):
        model.encode(torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 4}, r"features should be at least latent_dim = 4 and at most categories − 1 = 3"),
        ({"features": 5}, r"at most categories − 1 = 3.*got 5"),
        ({"state": 2}, r"state should be at most features − latent_dim = 1, got 2"),
        ({"likelihood": "gaussian"}, r"likelihood should be 'categorical'.*got 'gaussian'"),
        ({"encoder": "mlp"}, r"encoder should be 'lstm' or a module, got 'mlp'"),
        ({"word_dropout": 1.0}, r"word_dropout should be in \[0, 1\), got 1.0"),
        ({"categories": 1}, r"categories should be a whole number of at least 2"),
        ({"hidden": 0}, r"hidden should be a whole number of at least 1, got 0"),
        ({"data_dim": 0}, r"data_dim should be a whole number of at least 1, got 0"),
        ({"map": "mlp"}, r"map should be one of monotone, logsumexp, icnn, got 'mlp'"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"data_dim": 5, "latent_dim": 2, "categories": 4, **SMALL, **arguments}
    with pytest.raises(ValueError, match=message):
        LIDSVAE(**given)


def test_no_state_meets_the_latent_where_there_is_no_room() -> None:
    model = _model("lidsvae", 4, 3, 4)
    assert model.decoder.split == (0, 3)
    one, two = _rows(6, 4, 4), _rows(6, 4, 4, seed=1)
    z = normal(6, 3)
    assert not torch.equal(
        model.decoder(z, one)[:, -3:], model.decoder(z, two)[:, -3:]
    )  # history still speaks
    assert ik.check(model).level is Level.GLOBAL


class _Counts(nn.Module):
    """A bag of words."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(functional.one_hot(x, 4).to(self.layer.weight.dtype).sum(1))


def test_an_encoder_of_your_own() -> None:
    model = _model("lidsvae", encoder=_Counts(), members=2)
    x = model.rows(_rows(6, 5, 4))
    q = model.infer(x)
    assert q.mean.shape == (2, 6, 2)
    assert torch.allclose(q.mean, model.infer(x.flip(2)).mean)
    assert model.fresh(3).own_modules == {"encoder": "_Counts"}


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_by_climbing_objectives_too_and_is_measured(kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("identkit.lidvae.vocabulary.AT_ONCE", 700)  # in turns, differentiated twice
    data = markov_sequences(120, length=4, vocabulary=6)
    model = KINDS[kind](4, 2, categories=6, word_dropout=0.2, **SMALL)
    run = ik.fit(model, data, steps=6, seeds=2, batch_size=32, objective=SemiAmortised(steps=2))
    assert run.stopped == (None, None)
    for measured in run.metrics:
        assert math.isfinite(measured.log_likelihood) and (measured.lower is not None) == (kind == "lidsvae")
    before = model.state_dict()
    assert all(
        not torch.equal(run.model.state_dict()[name][:1], before[name])
        for name, parameter in model.named_parameters()
        if parameter.numel()
    )

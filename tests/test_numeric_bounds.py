"""What `numeric.bounds` proves of the decoders of known_answers, section H, and what it must never prove."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.distributions as td
from torch import Tensor, nn

from identkit.numeric import bounds, enclosure, lowering
from identkit.numeric.intervals import Interval
from identkit.numeric.probed import Probed, probed
from identkit.numeric.program import Kind


def gaussian(f: Tensor) -> td.Distribution:
    return td.Normal(f, 0.1)


def normal(k: int) -> td.Distribution:
    return td.Normal(torch.zeros(k), torch.ones(k))


def uniform(k: int) -> td.Distribution:
    return td.Uniform(-torch.ones(k), torch.ones(k))


def first(decoder: nn.Sequential) -> nn.Linear:
    layer = decoder[0]
    assert isinstance(layer, nn.Linear)
    return layer


def model(decoder, k: int, likelihood=gaussian, prior=normal, **kwargs) -> Probed:
    return probed(decoder, prior(k), likelihood, **kwargs)


def net(*widths: int, activation: Callable[[], nn.Module] = nn.Tanh, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


class Coupling(nn.Module):
    """One half of the coordinates scaled and shifted by the other (Dinh et al. 2017)."""

    def __init__(self, size: int, flip: bool) -> None:
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(size // 2, 8), nn.ReLU(), nn.Linear(8, size))

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)[:: -1 if self.flip else 1]
        log_scale, shift = self.net(one).chunk(2, 1)
        moved = two * torch.exp(torch.tanh(log_scale)) + shift
        return torch.cat([moved, one] if self.flip else [one, moved], 1)


def flow(*after: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(Coupling(4, False), Coupling(4, True), Coupling(4, False), *after)


class Residual(nn.Module):
    """``x + g(x)`` with Lip(g) of a given size."""

    def __init__(self, size: int, constant: float) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(size, size), nn.Linear(size, size)
        for part, scale in ((self.one, constant), (self.two, 1.0)):
            part.weight.data *= scale / torch.linalg.matrix_norm(part.weight.data, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(torch.relu(self.one(x)))


def minimal(f: Tensor) -> td.Distribution:
    return td.Categorical(logits=torch.cat([f, torch.zeros_like(f[:, :1])], 1))


def rank_deficient() -> nn.Linear:
    torch.manual_seed(3)
    layer = nn.Linear(3, 5)
    layer.weight.data[:, 2] = layer.weight.data[:, 0] * 2
    return layer


INJECTIVE = {
    "H1 linear of full column rank": model(net(3, 5), 3),
    "H8 RealNVP": model(flow(), 4),
    "H8 RealNVP and a tall linear map": model(flow(nn.Linear(4, 6)), 4),
    "H12": model(
        lambda z: torch.stack([z[:, 0] + z[:, 0] ** 3 + z[:, 1], z[:, 1] + z[:, 1] ** 3 - z[:, 0]], 1), 2
    ),
    "H15 variance alone": model(lambda z: z, 1, lambda f: td.Normal(torch.zeros_like(f), torch.exp(f))),
    "(z, z²)": model(lambda z: torch.cat([z, z**2], 1), 1),
    "tanh network": model(net(3, 5, 7), 3),
    "leaky network": model(net(3, 5, 7, activation=nn.LeakyReLU), 3),
    "softplus network": model(net(3, 5, 7, activation=nn.Softplus), 3),
    "residual": model(nn.Sequential(nn.Linear(3, 4), Residual(4, 0.9), Residual(4, 0.8)), 3),
    "evaluated batch norm": model(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), 3),
    "minimal categorical of an onto map": model(net(3, 3), 3, minimal),
    "categorical of a tall map": model(net(3, 5), 3, lambda f: td.Categorical(logits=f)),
    "Bernoulli probabilities": model(net(3, 4), 3, lambda f: td.Bernoulli(probs=torch.sigmoid(f))),
    "Poisson rates": model(net(3, 4), 3, lambda f: td.Poisson(torch.exp(f))),
    "z³ on the line": model(lambda z: z**3, 1),
    "z² on a half line": model(lambda z: z**2, 1, prior=lambda k: td.Exponential(torch.ones(k))),
}

NOT_INJECTIVE = {
    "H1 rank-deficient in exact arithmetic": model(rank_deficient(), 3),
    "H2 constant": model(lambda z: torch.zeros(len(z), 2, dtype=z.dtype), 2),
    "H3′ dead cell": model(net(2, 5, 7, activation=nn.ReLU), 2),
    "H5 fold": model(lambda z: z[:, :1] ** 2, 1),
    "H6 sine": model(lambda z: torch.sin(z), 1),
    "H6 circle": model(lambda z: torch.cat([torch.cos(z), torch.sin(z)], 1), 1),
    "H7 norm": model(lambda z: torch.linalg.vector_norm(z, dim=1, keepdim=True), 2),
    "H8 into fewer dimensions": model(flow(nn.Linear(4, 3)), 4),
    "H14 product": model(lambda z: z[:, :1] * z[:, 1:], 2),
    "softmax of an onto map": model(net(3, 3), 3, lambda f: td.Categorical(logits=f)),
    "absolute value": model(lambda z: z.abs(), 2),
    "z³ − z": model(lambda z: z**3 - z, 1),
    "residual of constant 1.1": model(nn.Sequential(nn.Linear(3, 3), Residual(3, 1.1)), 3),
    "wide linear": model(net(3, 2), 3),
    "bottleneck": model(net(3, 2, 6, activation=nn.LeakyReLU), 3),
    "a sum beside another unknown": model(
        lambda z: torch.stack([z[:, 0] + z[:, 1], z[:, 0] + z[:, 1] + 0.1 * z[:, 0].abs()], 1), 2
    ),
    "falling elu": model(nn.Sequential(nn.Linear(1, 1), nn.ELU(alpha=-1.0)), 1),
    "scale by |z|": model(lambda z: z, 1, lambda f: td.Normal(torch.zeros_like(f), f.abs() + 0.1)),
}


@pytest.mark.parametrize("name", INJECTIVE)
def test_injective_decoders_are_proved_so(name: str) -> None:
    found = bounds.injective(INJECTIVE[name])
    assert found is not None
    assert found.complete
    assert found.verify()
    assert bounds.null_directions(INJECTIVE[name]) is None
    assert bounds.ignored(INJECTIVE[name]) is None


@pytest.mark.parametrize("name", NOT_INJECTIVE)
def test_other_decoders_never_are(name: str) -> None:
    found = bounds.injective(NOT_INJECTIVE[name])
    assert found is None or not found.complete


def test_null_directions_are_exact() -> None:
    p = model(rank_deficient(), 3)
    found = bounds.null_directions(p)
    assert found is not None
    assert found.directions == ((Fraction(-2), Fraction(0), Fraction(1)),)
    assert found.moves == ("z[1]", "z[3]")
    assert found.verify()
    bent = dataclasses.replace(found, directions=((Fraction(-2), Fraction(1, 2**60), Fraction(1)),))
    assert not bent.verify()


def test_a_dead_layer_is_constant_on_a_box_and_not_on_the_line() -> None:
    layer = first(net(3, 5))
    layer.bias.data = -layer.weight.data.abs().sum(1) - 0.01
    decoder = nn.Sequential(layer, nn.ReLU(), nn.Linear(5, 4))
    found = bounds.constant(model(decoder, 3, prior=uniform))
    assert found is not None and found.verify()
    assert bounds.constant(model(decoder, 3)) is None


def test_an_ignored_latent_is_proved_so_and_the_others_are_determined() -> None:
    decoder = net(3, 5, 7)
    first(decoder).weight.data[:, 1] = 0
    p = model(decoder, 3)
    found = bounds.ignored(p)
    assert found is not None and found.names == ("z[2]",) and found.verify()
    rest = bounds.injective(p)
    assert rest is not None and rest.names == ("z[1]", "z[3]") and not rest.complete and rest.verify()
    assert bounds.constant(p) is None
    assert not dataclasses.replace(found, names=("z[1]",)).verify()


def test_certificates_read_the_weights_again() -> None:
    decoder = net(3, 5).double()
    p = model(decoder, 3)
    found = bounds.injective(p)
    assert found is not None and found.verify()
    first(decoder).weight.data[:, 1] = 0
    assert not found.verify()


def test_lipschitz_constants_are_those_of_the_matrix() -> None:
    decoder = net(4, 9).double()
    found = bounds.injective(model(decoder, 4))
    assert found is not None and found.lower is not None and found.upper is not None
    values = torch.linalg.svdvals(first(decoder).weight.data)
    assert float(values[-1]) * (1 - 1e-9) < found.lower < float(values[-1]) * (1 + 1e-13)
    assert float(values[0]) * (1 - 1e-13) < found.upper < float(values[0]) * (1 + 1e-9)
    assert not dataclasses.replace(found, lower=found.lower * 1.01).verify()


def test_code_that_looks_at_values_has_no_proof() -> None:
    def branches(z: Tensor) -> Tensor:
        return torch.stack([row if float(row[0]) > -9 else -row for row in z])

    p = model(branches, 2)
    assert bounds.injective(p) is None
    assert bounds.ignored(p) is None


def test_what_reaches_what_takes_no_memory_for_weights() -> None:
    """1,000 latents times the weights of a layer are half a billion entries; none of them is written out."""
    program = lowering.law_program(model(net(64, 32), 64))
    assert program is not None
    ends = torch.ones(64, dtype=torch.float64)
    found = enclosure.ranges(program, Interval(-ends, ends))
    reached = enclosure.dependence(program, found)
    for step, each in zip(program.steps, reached, strict=True):
        assert each.shape == (64, step.size)
        if step.kind is Kind.CONSTANT:
            assert each.untyped_storage().nbytes() == 1
    assert bool(reached[-1].any(1).all())


def test_analytic() -> None:
    assert bounds.analytic(INJECTIVE["tanh network"]) is not None
    assert bounds.analytic(INJECTIVE["leaky network"]) is None


def test_density_alone() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    p = probed(lambda x, z: -((x - z[:, :1]) ** 2).sum(1), normal(2), None, x)
    found = bounds.ignored(p)
    assert found is not None and found.names == ("z[2]",) and found.verify()
    assert "given data" in found.statement


def relu_net(*widths: int, seed: int = 0) -> nn.Sequential:
    return net(*widths, activation=nn.ReLU, seed=seed)


def dead(size: int = 3) -> nn.Sequential:
    """A ReLU layer that is dead wherever ‖z‖_∞ ≤ 1 (H3)."""
    decoder = relu_net(size, 5, 4)
    layer = first(decoder)
    layer.bias.data = -layer.weight.data.abs().sum(1) - 0.01
    return decoder


def piecewise_constant(z: Tensor) -> Tensor:
    """The gradient of a ReLU ICNN without a quadratic term (H10)."""
    weights = torch.tensor([[1.0, 0.5], [-0.3, 1.0], [0.2, -0.7]], dtype=z.dtype)
    return (z @ weights.T > 0).to(z.dtype) @ weights


REGIONS = {
    "H3′": (model(dead(), 3), 3),
    "H10": (model(piecewise_constant, 2), 2),
    "one unit active": (model(relu_net(2, 3, 4), 2), 1),
    "relu of each latent": (model(lambda z: torch.relu(z), 2), 1),
}


@pytest.mark.parametrize("name", REGIONS)
def test_dead_regions_have_mass_and_no_say(name: str) -> None:
    p, least = REGIONS[name]
    assert bounds.constant(p) is None
    found = bounds.dead_region(p, p.prior.sample(16, seed=2))
    assert found is not None and found.verify()
    assert len(found.directions) >= least
    z = p.prior.sample(20000, seed=9)
    inside = ((z >= found.box.low) & (z <= found.box.high)).all(1)
    share = float(inside.double().mean())
    assert 0 < found.mass <= share + 4 * (share * (1 - share) / 20000) ** 0.5 + 1e-12
    assert found.mass > 0.5 * share - 0.01
    direction = torch.tensor([float(v) for v in found.directions[0]], dtype=torch.float64)
    here = z[inside][0]
    step = torch.where(direction > 0, found.box.high - here, here - found.box.low).clamp(max=1.0)
    size = (step / direction.abs())[direction != 0].min() * 0.9
    torch.testing.assert_close(p.parameters(here[None]), p.parameters((here + size * direction)[None]))
    for doctored in (
        dataclasses.replace(found, mass=min(1.0, found.mass * 2)),
        dataclasses.replace(
            found, low=tuple(v - 40 for v in found.low), high=tuple(v + 40 for v in found.high)
        ),
        dataclasses.replace(found, directions=()),
    ):
        assert not doctored.verify()


def test_smooth_decoders_have_no_dead_region() -> None:
    p = model(net(3, 5, 7), 3)
    assert bounds.dead_region(p, p.prior.sample(4)) is None


def test_the_mass_of_dependent_priors_is_bounded_from_below() -> None:
    prior = td.MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.3)
    p = probed(dead(), prior, gaussian)
    found = bounds.dead_region(p, torch.zeros(1, 3, dtype=torch.float64))
    assert found is not None and found.verify()
    z = p.prior.sample(20000)
    assert found.mass <= float(((z >= found.box.low) & (z <= found.box.high)).all(1).double().mean()) + 0.01


@pytest.mark.parametrize(
    "name", ["H7 norm", "H8 into fewer dimensions", "H14 product", "wide linear", "bottleneck"]
)
def test_fewer_numbers_than_latents(name: str) -> None:
    found = bounds.bottleneck(NOT_INJECTIVE[name])
    assert found is not None and found.verify()
    assert not dataclasses.replace(found, width=found.width - 1).verify()


def test_no_bottleneck_where_there_is_none() -> None:
    for name, p in INJECTIVE.items():
        assert bounds.bottleneck(p) is None, name


def test_states() -> None:
    table = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 2.0]])
    labels = probed(lambda z: nn.functional.embedding(z, table), td.Categorical(torch.ones(3) / 3), gaussian)
    found = bounds.states(labels)  # H17
    assert found is not None and found.classes == ((0, 2), (1,)) and found.distinct and found.verify()
    assert not dataclasses.replace(found, classes=((0, 1, 2),)).verify()
    assert not dataclasses.replace(found, classes=((0,), (1,), (2,))).verify()

    coins = td.Bernoulli(torch.full((2,), 0.5))
    xor = probed(lambda z: torch.where(z[:, :1] != z[:, 1:], 0.9, 0.1), coins, lambda f: td.Bernoulli(f))
    found = bounds.states(xor)  # H18
    assert found is not None and found.classes == ((0, 3), (1, 2)) and found.distinct
    apart = bounds.states(probed(net(2, 4, 3), coins, gaussian))
    assert apart is not None and len(apart.classes) == 4 and apart.distinct
    assert bounds.states(model(net(3, 5), 3)) is None


def test_a_sequence_with_zero_weights_from_the_latent_is_constant() -> None:
    class Step(nn.Module):
        """p(x_t | x_<t, z) by a recurrent cell that hears z through given weights (H16)."""

        def __init__(self, heard: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.cell, self.into, self.out = nn.GRUCell(1, 4), nn.Linear(2, 4), nn.Linear(4, 1)
            self.into.weight.data *= heard

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            state, means = self.into(z), []
            for t in range(x.shape[1]):
                means.append(self.out(state))
                state = self.cell(x[:, t : t + 1], state)
            return torch.cat(means, 1)

    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    deaf = probed(Step(0.0), normal(2), gaussian, x)
    found = bounds.constant(deaf)
    assert found is not None and found.verify()
    assert bounds.ignored(probed(Step(1.0), normal(2), gaussian, x)) is None


def test_a_convex_potential_of_one_layer_is_injective_and_without_its_quadratic_term_not() -> None:
    def gradient(strength: float):
        torch.manual_seed(0)
        weights = 3 * torch.randn(20, 2, dtype=torch.float64)

        def decoder(z: Tensor) -> Tensor:
            with torch.enable_grad():
                z = z.detach().requires_grad_(True)
                value = nn.functional.softplus(z @ weights.T).sum() + strength * (z**2).sum() / 2
                return torch.autograd.grad(value, z, create_graph=True)[0]

        return model(decoder, 2)

    found = bounds.injective(gradient(0.1))  # H9
    assert found is not None and found.complete and found.lower is not None
    assert 0.0999 < found.lower <= 0.1
    for strength in (0.0, -0.1):
        assert bounds.injective(gradient(strength)) is None


class Isometry(nn.Module):
    """A map that vouches for itself, by a rule that nobody else knows."""

    def __init__(self, lower: float | None) -> None:
        super().__init__()
        self.stated = lower

    def forward(self, z: Tensor) -> Tensor:
        return torch.flip(torch.sort(z, 1).values, [1])  # no rule, and not what it says

    def lower_lipschitz(self) -> float | None:
        return self.stated

    def upper_lipschitz(self) -> float | None:
        return 2.0


def test_a_map_may_vouch_for_itself() -> None:
    torch.manual_seed(0)
    tall = nn.Linear(2, 4)
    found = bounds.injective(model(nn.Sequential(Isometry(0.5), tall, Isometry(0.5)), 2))
    assert found is not None and found.complete and found.verify()
    assert found.vouched == ("Isometry", "Isometry") and "state of themselves" in found.statement
    least = float(torch.linalg.svdvals(tall.weight.data.double())[-1])
    assert found.lower == pytest.approx(0.25 * least) and found.upper is not None
    for lower in (None, 0.0, -1.0, float("nan"), float("inf")):
        assert bounds.injective(model(nn.Sequential(Isometry(lower), tall), 2)) is None
    assert bounds.injective(model(nn.Sequential(Isometry(0.5), nn.Linear(2, 1)), 2)) is None
    softmax = model(nn.Sequential(Isometry(0.5)), 2, lambda f: td.Categorical(logits=f))
    assert bounds.injective(softmax) is None


def test_oscillation_is_never_less_than_what_is_seen() -> None:
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    families = ((gaussian, x), (lambda f: td.Bernoulli(logits=f), (x > 0).float()))
    for likelihood, data in families:
        p = model(net(3, 5, 7), 3, likelihood, x=data)
        low, high = torch.full((3,), -0.3).double(), torch.full((3,), 0.5).double()
        bound = bounds.oscillation(p, low, high)
        assert bound is not None and bound.shape == (6,)
        seen = p.log_likelihood(low + (high - low) * torch.rand(10000, 3, dtype=torch.float64))
        spread = seen.amax(0) - seen.amin(0)
        assert bool((bound >= spread).all())
        assert bool((bound <= 30 * spread).all())
    still = model(dead(), 3, gaussian, uniform, x=torch.randn(6, 4))
    omega = bounds.oscillation(still, still.prior.low, still.prior.high)
    assert omega is not None and bool((omega < 1e-9).all())


@pytest.mark.parametrize("seed", range(12))
def test_planted_defects_are_never_certified_away(seed: int) -> None:
    torch.manual_seed(seed)
    after = net(4, 6, 8, activation=nn.LeakyReLU, seed=seed)
    mixing = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    defects = (
        lambda z: torch.stack([z[:, 0].abs(), z[:, 1], z[:, 2], z[:, 1] * z[:, 2]], 1),
        lambda z: torch.stack([z[:, 0] ** 2, z[:, 1], z[:, 2], z[:, 0] ** 4], 1),
        lambda z: torch.stack([torch.sin(3 * z[:, 0]), torch.cos(3 * z[:, 0]), z[:, 1], z[:, 2]], 1),
        lambda z: torch.stack([z[:, 0] * z[:, 1], z[:, 0] + z[:, 1], z[:, 2], z[:, 2] ** 3], 1),
        lambda z: torch.stack([z[:, 0], z[:, 1], torch.tanh(z[:, 0]), z[:, 1] - z[:, 0]], 1),
        lambda z: torch.stack([z[:, 0] ** 3 - z[:, 0], z[:, 1], z[:, 2], torch.relu(z[:, 1])], 1),
    )
    defect = defects[seed % len(defects)]
    p = model(lambda z: after.to(z.dtype)(defect(z @ mixing.to(z.dtype))), 3)
    found = bounds.injective(p)
    assert found is None or not found.complete


@pytest.mark.slow
def test_a_decoder_of_784_dimensions_takes_seconds() -> None:
    p = model(net(64, 512, 512, 784), 64, lambda f: td.Bernoulli(logits=f))
    start = time.process_time()
    found = bounds.injective(p)
    assert found is not None and found.complete
    assert bounds.constant(p) is None and bounds.null_directions(p) is None and bounds.analytic(p) is not None
    assert bounds.dead_region(p, p.prior.sample(8)) is None
    assert time.process_time() - start < 60  # about 10, on an idle machine

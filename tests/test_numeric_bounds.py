"""What `numeric.bounds` proves of the decoders of known_answers, section H, and what it must never prove."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.distributions as td
from torch import Tensor, nn

from identkit.numeric import bounds
from identkit.numeric.probed import Probed, probed


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


def test_analytic() -> None:
    assert bounds.analytic(INJECTIVE["tanh network"]) is not None
    assert bounds.analytic(INJECTIVE["leaky network"]) is None


def test_density_alone() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    p = probed(lambda x, z: -((x - z[:, :1]) ** 2).sum(1), normal(2), None, x)
    found = bounds.ignored(p)
    assert found is not None and found.names == ("z[2]",) and found.verify()
    assert "given data" in found.statement

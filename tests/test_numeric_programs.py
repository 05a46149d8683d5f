"""Recorded programs say what the model says, and what is read off them holds at every sampled latent."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.distributions as td
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from identkit.numeric import affine, enclosure
from identkit.numeric.intervals import Interval
from identkit.numeric.lowering import decoder_program, density_program, law_program, program_of
from identkit.numeric.probed import Probed, probed
from identkit.numeric.program import Program


def seeded(make):
    torch.manual_seed(0)
    return make()


def gaussian(f: Tensor) -> td.Distribution:
    return td.Normal(f, 0.1)


def gradient(z: Tensor) -> Tensor:
    """∇φ of a convex φ, by autograd inside the decoder."""
    weights = torch.linspace(-1, 2, 6, dtype=z.dtype).reshape(3, 2)
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        value = nn.functional.softplus(z @ weights.T).sum() + 0.05 * (z**2).sum()
        return torch.autograd.grad(value, z, create_graph=True)[0]


def in_place(z: Tensor) -> Tensor:
    out = torch.zeros(len(z), 3, dtype=z.dtype)
    out[:, 0] = z[:, 0]
    out[:, 1:] = z * 2
    return out.relu_()


def recurrent(cell: nn.GRUCell):
    """Two steps of a network whose cells write into memory of their own."""

    def states(z: Tensor) -> Tensor:
        first = cell(z)
        return torch.cat([first, cell(z, first)], 1)

    return states


def attention(z: Tensor) -> Tensor:
    tokens = z.reshape(-1, 2, 1) * torch.tensor([1.0, -0.5], dtype=z.dtype)
    weights = torch.softmax(tokens @ tokens.transpose(1, 2), -1)
    return (weights @ tokens).flatten(1)


def mixed(z: Tensor) -> Tensor:
    one, two = z[:, :1], z[:, 1:]
    pieces = [
        torch.where(one > 0, one, two**2),
        (one > two) * two,
        one.clamp(-1, 0.5),
        torch.maximum(one, two),
    ]
    pieces += [
        one / (1 + two**2),
        torch.sqrt(1 + one**2),
        torch.erf(one) * torch.atan(two),
        z.mean(1, keepdim=True),
    ]
    pieces += [torch.logsumexp(z, 1, keepdim=True), torch.sin(one) + torch.cos(two), one**3 - two.abs()]
    return torch.cat(
        [*pieces, nn.functional.layer_norm(z * torch.tensor([1.0, 2.0], dtype=z.dtype) + 1, (2,))], 1
    )


ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.Softplus, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh)
ACTIVATIONS += (nn.Sigmoid, nn.Hardtanh, nn.ReLU6, nn.LogSigmoid, nn.CELU)
DECODERS = {
    "activations": lambda: nn.Sequential(*(f for a in ACTIVATIONS for f in (nn.Linear(2, 2), a()))),
    "scaled softplus": lambda: nn.Sequential(nn.Linear(2, 3), nn.Softplus(2.5), nn.GELU("tanh")),
    "normalised": lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.LayerNorm(4)).eval(),
    "convolutions": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 1, 1)),
        nn.ConvTranspose2d(2, 2, 2),
        nn.ReLU(),
        nn.Conv2d(2, 4, 3, padding=1, groups=2),
        nn.ConvTranspose2d(4, 2, 4, 2, 1, groups=2),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(2, 1, 3, 2, 1, 1, dilation=2),
        nn.Upsample(scale_factor=2),
        nn.Flatten(),
        nn.Unflatten(1, (2, -1)),
        nn.Conv1d(2, 3, 5, 3, 1),
        nn.ConvTranspose1d(3, 1, 4, 2),
        nn.Flatten(),
    ),
    "normalised weights": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(2, 4)),
        nn.GroupNorm(2, 4),
        nn.PReLU(4),
        nn.Hardswish(),
        parametrizations.spectral_norm(nn.Linear(4, 3)).eval(),
    ),
    "recurrent": lambda: recurrent(nn.GRUCell(2, 3).double()),
    "gradient": lambda: gradient,
    "in place": lambda: in_place,
    "attention": lambda: attention,
    "mixed": lambda: mixed,
}
PRIOR = td.Normal(torch.zeros(2), torch.ones(2))


@functools.cache
def program_named(name: str) -> Program:
    program = law_program(MODELS[name])
    assert program is not None, name
    return program


MODELS: dict[str, Probed] = {name: probed(seeded(make), PRIOR, gaussian) for name, make in DECODERS.items()}


def points(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_a_program_is_its_model(name: str) -> None:
    p = MODELS[name]
    program = program_named(name)
    z = 3 * points(200, seed=5)
    with torch.no_grad():
        wanted = p.parameters(z)
    torch.testing.assert_close(program.evaluate(z), wanted, rtol=1e-7, atol=1e-7)
    assert decoder_program(p) is not None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [0.01, 0.5, 3.0])
def test_ranges_and_slopes_hold_at_ten_thousand_points(name: str, size: float) -> None:
    program = program_named(name)
    for seed in range(2):
        centre = points(1, seed)[0]
        box = Interval(centre - size, centre + size)
        found = enclosure.ranges(program, box)
        z = centre + size * (2 * torch.rand(5000, 2, dtype=torch.float64) - 1)
        values = program.evaluate(z)
        room = 1e-9 * (1 + values.abs())
        assert bool((values >= found[-1].low - room).all() and (values <= found[-1].high + room).all())
        slope = enclosure.slopes(program, found, 0, torch.arange(2))[-1]
        assert slope is not None
        moves = z[1:] - z[:-1]
        moved = torch.stack([moves.clamp(min=0), moves.clamp(max=0)])  # split by sign, for each end its own
        low = _product(moved[0], slope.low) + _product(moved[1], slope.high)
        high = _product(moved[0], slope.high) + _product(moved[1], slope.low)
        change, slack = values[1:] - values[:-1], 2 * room[1:] + 2 * room[:-1]
        assert bool((change >= low - slack).all() and (change <= high + slack).all())


def _product(move: Tensor, end: Tensor) -> Tensor:
    return (move.unsqueeze(-1) * end).nan_to_num(nan=0.0).sum(1)


@pytest.mark.parametrize("name", MODELS)
def test_null_directions_of_boxes_leave_the_law_alone(name: str) -> None:
    program = program_named(name)
    for seed in range(6):
        centre = points(1, seed)[0]
        found = enclosure.ranges(program, Interval(centre - 0.05, centre + 0.05))
        for direction in affine.null_space(program, found):
            along = torch.tensor([float(int(v.p) / int(v.q)) for v in direction], dtype=torch.float64)
            ends = torch.stack([centre, centre + 0.04 * along / along.abs().amax()])
            torch.testing.assert_close(*program.evaluate(ends).unbind(), rtol=1e-12, atol=1e-12)


def test_dependence_is_never_missed() -> None:
    for name in MODELS:
        program = program_named(name)
        box = Interval(torch.full((2,), -3.0).double(), torch.full((2,), 3.0).double())
        reached = enclosure.dependence(program, enclosure.ranges(program, box))[-1]
        z = points(500).clamp(-3, 3)
        for j in range(2):
            other = z.clone()
            other[:, j] = other[:, j].flip(0)
            moved = (program.evaluate(z) != program.evaluate(other)).any(0)
            assert bool((reached[j] | ~moved).all()), name


LOOKS = {
    "branch": lambda z: z if z.sum() > 0 else -z,
    "item": lambda z: z * z.sum().item(),
    "list": lambda z: torch.tensor(z.tolist()) * 2,
    "numpy": lambda z: torch.from_numpy(z.detach().numpy() ** 2),
    "loop": lambda z: torch.stack([row * int(row[0] > 0) for row in z]),
    "numpy in place": lambda z: _numpy_in_place(z),
    "nonzero": lambda z: z[z[:, 0] > 0],
}


def _numpy_in_place(z: Tensor) -> Tensor:
    out = torch.zeros(1, 2)
    out += float(z.detach().numpy()[0, 0])
    return out


@pytest.mark.parametrize("name", LOOKS)
def test_code_that_looks_at_values_is_not_recorded(name: str) -> None:
    assert program_of(LOOKS[name], points(1), 1e-16) is None


UNKNOWN = {
    "rounding": lambda z: torch.round(z),
    "integers": lambda z: z.long().double(),
    "sorting": lambda z: torch.sort(z, 1).values,
    "noise": lambda z: z + torch.rand(2, generator=torch.Generator().manual_seed(0)),
    "accumulation": lambda z: z.index_put((torch.tensor([0]),), z[:1], accumulate=True),
    "other filling": lambda z: z.masked_fill(torch.tensor([True, False]), 3.0),
    "an operation without a rule": lambda z: torch.special.bessel_j0(z),
    "numbers of an integer buffer": lambda z: torch.zeros(1, 2, dtype=torch.int64).copy_(z).double(),
    "a softplus that jumps": lambda z: torch.nn.functional.softplus(z, threshold=6),
    "truth values added": lambda z: ((z > 0) + (z > 1)).double(),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_has_no_rule_has_no_program(name: str) -> None:
    assert program_of(UNKNOWN[name], points(1), 1e-16) is None


def test_a_record_that_disagrees_is_refused() -> None:
    calls = []

    def changing(z: Tensor) -> Tensor:
        calls.append(len(z))
        return z * len(calls)

    assert program_of(changing, points(4), 1e-16) is None


def test_densities_are_recorded_on_their_data() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    families = {
        "normal": (gaussian, x),
        "Bernoulli": (lambda f: td.Bernoulli(logits=f), (x > 0).float()),
        "Poisson": (lambda f: td.Poisson(torch.exp(f)), (x.abs() * 3).round()),
        "Laplace": (lambda f: td.Laplace(f, 0.5), x),
        "Student": (lambda f: td.StudentT(4.0, f, 0.5), x),
        "binomial": (lambda f: td.Binomial(10, logits=f), (x.abs() * 3).round()),
        "categorical": (lambda f: td.Categorical(logits=f), torch.tensor([0, 2, 1, 1])),
        "exponential": (lambda f: td.Exponential(torch.exp(f)), x.abs()),
    }
    decoder = seeded(lambda: nn.Linear(2, 3))
    for name, (likelihood, data) in families.items():
        assert density_program(probed(decoder, PRIOR, likelihood, data)) is not None, name

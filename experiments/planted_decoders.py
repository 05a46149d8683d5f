"""Random decoders with a planted fold, dead direction or symmetry, and random decoders that are injective by construction.

Half of them are written in float64, a quarter hold float32 weights, and a quarter compute in float32 only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributions as td
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad, softplus

SEED = 20261123

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A decoder, its prior and likelihood, and what was planted."""

    kind: str
    decoder: nn.Module
    prior: td.Distribution
    likelihood: Callable[[Tensor], td.Distribution]
    precision: str
    moved: frozenset[str]
    """The latents that the planted defect moves; empty for an injective decoder."""


class Chain(nn.Module):
    """Maps one after the other."""

    def __init__(self, *maps: Map) -> None:
        super().__init__()
        self.maps = maps
        self.modules_among = nn.ModuleList(part for part in maps if isinstance(part, nn.Module))

    def forward(self, z: Tensor) -> Tensor:
        """The last map's value."""
        for part in self.maps:
            z = part(z)
        return z


class Fixed(nn.Module):
    """``z @ matrix.T + shift``."""

    matrix: Tensor
    shift: Tensor

    def __init__(self, matrix: Tensor, shift: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.register_buffer(
            "shift", torch.zeros(len(matrix), dtype=matrix.dtype) if shift is None else shift
        )

    def forward(self, z: Tensor) -> Tensor:
        """The affine map's value."""
        return z @ self.matrix.T + self.shift


class Coupling(nn.Module):
    """RealNVP's layer: half of the latents scaled and shifted by functions of the other half (Dinh et al. 2017)."""

    def __init__(self, size: int, flip: bool) -> None:
        super().__init__()
        self.kept = size // 2 if flip else size - size // 2
        self.flip = flip
        self.inner = nn.Sequential(nn.Linear(self.kept, 8), nn.Tanh(), nn.Linear(8, 2 * (size - self.kept)))

    def forward(self, z: Tensor) -> Tensor:
        """The coupled latents, halves exchanged."""
        kept, moved = z[:, : self.kept], z[:, self.kept :]
        scale, shift = self.inner(kept).chunk(2, dim=1)
        return torch.cat([moved * torch.exp(torch.tanh(scale)) + shift, kept], dim=1)


class Residual(nn.Module):
    """``z + g(z)`` with ``Lip(g) < 1``: injective by Banach (Behrmann et al. 2019)."""

    def __init__(self, size: int, lipschitz: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(size, 2 * size), nn.Tanh(), nn.Linear(2 * size, size))
        for part in (self.inner[0], self.inner[2]):
            assert isinstance(part, nn.Linear)
            with torch.no_grad():
                part.weight.mul_(math.sqrt(lipschitz) / torch.linalg.matrix_norm(part.weight.double(), 2))

    def forward(self, z: Tensor) -> Tensor:
        """The residual map's value."""
        return z + self.inner(z)


class Gradient(nn.Module):
    """``∇φ`` of ``φ = Σ c·softplus(Wz + b) + μ‖z‖²/2``, strongly convex for c, μ > 0."""

    def __init__(self, size: int, strength: float) -> None:
        super().__init__()
        self.first = nn.Linear(size, 3 * size)
        self.strength = strength

    def forward(self, z: Tensor) -> Tensor:
        """The gradient in closed form."""
        return torch.sigmoid(self.first(z)) @ self.first.weight + self.strength * z


class Single(nn.Module):
    """A decoder whose code casts to float32, as much of the world's does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        """The inner decoder's value."""
        return self.inner(z.float())


def orthogonal(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal columns (or rows, if it is wide)."""
    tall = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns)))[0]
    return tall if rows >= columns else tall.T


def column_full(rows: int, columns: int, least: float) -> Tensor:
    """A random matrix of full column rank with singular values between `least` and 2, the least attained."""
    values = torch.empty(columns).uniform_(0.7, 2)
    values[-1] = least
    return (orthogonal(rows, columns) * values) @ orthogonal(columns, columns)


def head(chance: random.Random, size: int) -> tuple[str, Map, Callable[[Tensor], td.Distribution]]:
    """A likelihood whose law determines its input, which has `size` numbers, and how these reach it."""
    name = chance.choice(["normal", "normal", "bernoulli", "categorical", "poisson", "scale", "laplace"])
    noise = chance.choice([0.05, 0.3, 1.0])
    likelihoods: dict[str, tuple[Map, Callable[[Tensor], td.Distribution]]] = {
        "normal": (lambda f: f, lambda f: td.Normal(f, noise)),
        "laplace": (lambda f: f, lambda f: td.Laplace(f, noise)),
        "bernoulli": (lambda f: f, lambda f: td.Bernoulli(logits=f)),
        "categorical": (lambda f: pad(f, (0, 1)), lambda f: td.Categorical(logits=f)),
        "poisson": (lambda f: f, lambda f: td.Poisson(softplus(f) + 1e-3)),
        "scale": (lambda f: f, lambda f: td.Normal(torch.zeros_like(f), 0.1 + softplus(f))),
    }
    return name, *likelihoods[name]


def network(chance: random.Random, size: int, outputs: int) -> nn.Module:
    """A random decoder, not known to be injective."""
    width = chance.choice([8, 16, 32])
    name = chance.choice(["tanh", "softplus", "leaky", "convex", "coupling"])
    if name == "convex":
        return nn.Sequential(Gradient(size, chance.uniform(0, 0.5)), nn.Linear(size, outputs))
    if name == "coupling" and size > 1:
        return nn.Sequential(Coupling(size, False), Coupling(size, True), nn.Linear(size, outputs))
    part = {"tanh": nn.Tanh, "softplus": nn.Softplus}.get(name, nn.LeakyReLU)
    return nn.Sequential(
        nn.Linear(size, width), part(), nn.Linear(width, width), part(), nn.Linear(width, outputs)
    )


def plant(chance: random.Random, size: int) -> tuple[str, Map, int, frozenset[int]]:
    """A map of the latents that is not injective, how many numbers it leaves, and the latents that it confuses."""
    i, j = chance.sample(range(size), 2) if size > 1 else (0, 0)
    rest = [n for n in range(size) if n not in (i, j)]
    shift = chance.choice([0.0, 0.0, 0.4])
    turn = chance.uniform(1.5, 4)

    def with_rest(*parts: Tensor, z: Tensor, left: list[int]) -> Tensor:
        return torch.cat([torch.stack(parts, 1), z[:, left]], 1)

    others = [n for n in range(size) if n != i]
    one: list[tuple[str, Map, int]] = [
        ("fold |z|", lambda z: with_rest((z[:, i] - shift).abs(), z=z, left=others), size),
        ("fold z²", lambda z: with_rest((z[:, i] - shift) ** 2, z=z, left=others), size),
        ("fold z³ − z", lambda z: with_rest(z[:, i] ** 3 - z[:, i], z=z, left=others), size),
        ("dead cell", lambda z: with_rest(torch.relu(z[:, i] - shift), z=z, left=others), size),
        (
            "period",
            lambda z: with_rest(torch.cos(turn * z[:, i]), torch.sin(turn * z[:, i]), z=z, left=others),
            size + 1,
        ),
    ]
    two: list[tuple[str, Map, int]] = [
        ("product", lambda z: with_rest(z[:, i] * z[:, j], z=z, left=rest), size - 1),
        ("norm", lambda z: with_rest(z[:, i] ** 2 + z[:, j] ** 2, z=z, left=rest), size - 1),
        ("sum", lambda z: with_rest(z[:, i] + 2 * z[:, j], z=z, left=rest), size - 1),
        ("exchange", lambda z: with_rest(z[:, i] + z[:, j], z[:, i] * z[:, j], z=z, left=rest), size),
        (
            "joint sign",
            lambda z: with_rest(z[:, i] ** 2, z[:, i] * z[:, j], z[:, j] ** 2, z=z, left=rest),
            size + 1,
        ),
    ]
    dead: list[tuple[str, Map, int]] = [("dead direction", lambda z: z[:, others], size - 1)]
    name, change, numbers = chance.choice(one * 2 + (two * 2 + dead * 4 if size > 1 else []))
    return name, change, numbers, frozenset([i, j] if any(name == known for known, _, _ in two) else [i])


def prior(chance: random.Random, size: int) -> td.Distribution:
    """A prior whose support is symmetric about 0."""
    kinds: list[Callable[[], td.Distribution]] = [
        lambda: td.Normal(torch.zeros(size), torch.ones(size)),
        lambda: td.Uniform(-2 * torch.ones(size), 2 * torch.ones(size)),
        lambda: td.Laplace(torch.zeros(size), torch.ones(size)),
        lambda: td.MultivariateNormal(torch.zeros(size), torch.eye(size) + 0.3 * torch.ones(size, size)),
    ]
    return chance.choice([kinds[0], kinds[0], *kinds])()


def planted(index: int, seed: int = SEED) -> Case:
    """The index-th decoder with a defect."""
    chance = random.Random(f"planted {seed} {index}")
    with torch.random.fork_rng():
        torch.manual_seed(chance.randrange(1 << 30))
        size = chance.choice([1, 2, 2, 3, 4, 6])
        kind, change, numbers, moved = plant(chance, size)
        turned = size > 1 and chance.random() < 0.25
        outputs = chance.choice([numbers + 1, 10, 30])
        _, reach, likelihood = head(chance, outputs)
        parts: list[Map] = [Fixed(orthogonal(size, size))] if turned else []
        parts += [change, network(chance, numbers, outputs), reach]
        names = [f"z[{n + 1}]" for n in range(size)]
        return Case(
            f"{kind}{', turned' if turned else ''}",
            Chain(*parts),
            prior(chance, size),
            likelihood,
            chance.choice(["float64", "float64", "float32 weights", "float32"]),
            frozenset(names if turned else (names[n] for n in moved)),
        )


def injective(index: int, seed: int = SEED) -> Case:
    """The index-th decoder that is injective by construction."""
    chance = random.Random(f"injective {seed} {index}")
    with torch.random.fork_rng():
        torch.manual_seed(chance.randrange(1 << 30))
        size = chance.choice([1, 2, 2, 3, 4, 6])
        outputs = chance.choice([size, size + 1, 10, 30])
        kind = chance.choice(["leaky relu", "coupling", "residual", "monotone"])
        least = chance.choice([0.5, 0.1, 1e-3, 1e-4, 1e-5, 1e-6])
        last = Fixed(column_full(outputs, size, least), torch.randn(outputs) / 2)
        if kind == "leaky relu":
            width = size + chance.choice([0, 2, 6])
            slope = chance.choice([0.5, 0.1])
            last = Fixed(column_full(outputs := max(outputs, width), width, least))
            parts: list[Map] = [
                Fixed(column_full(width, size, 0.5), torch.randn(width)),
                lambda z: leaky_relu(z, slope),
            ]
        elif kind == "coupling" and size > 1:
            parts = [Coupling(size, False), Coupling(size, True)]
        elif kind == "residual":
            parts = [Residual(size, chance.uniform(0.3, 0.95)), Residual(size, 0.8)]
        else:
            parts = [Gradient(size, chance.choice([1.0, 0.1, 0.01]))]
        family, reach, likelihood = head(chance, outputs)
        return Case(
            f"{kind}, {family}, least {least}",
            Chain(*parts, last, reach),
            prior(chance, size),
            likelihood,
            chance.choice(["float64", "float64", "float32 weights", "float32"]),
            frozenset(),
        )


def placed(case: Case) -> nn.Module:
    """The decoder of a case in its precision."""
    decoder: nn.Module = case.decoder.requires_grad_(False).eval()
    if case.precision == "float64":
        return decoder.double()
    return Single(decoder) if case.precision == "float32" else decoder

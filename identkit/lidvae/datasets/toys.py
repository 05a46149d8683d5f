"""Clouds in the plane whose shape is known: what a latent map bends into, and where it tears.

Each returns n points, split 80/10/10, with the arm or component as label, each as likely as the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.lidvae.datasets.dataset import Dataset, from_rows
from identkit.lidvae.datasets.support import randomness
from identkit.model.compiled.data import whole

Seed = int | torch.Generator
_POINTS = 10_000


def pinwheel(
    n: int = _POINTS,
    seed: Seed = 0,
    *,
    arms: int = 5,
    radial: float = 0.3,
    tangential: float = 0.05,
    rate: float = 0.25,
    scale: float = 1.0,
) -> Dataset:
    """Arms of a windmill: a long, thin Gaussian at distance 1, turned further the further out it reaches.

    ``x = scale · R(−θ) (r, t)``, ``r ~ N(1, radial²)``, ``t ~ N(0, tangential²)``, ``θ = 2π arm / arms + rate · eʳ``.
    Johnson et al., NIPS 2016. Wang, Blei & Cunningham 2021 use these values at scale 10 (and 100,000 points).

    Args:
        n: points.
        seed: a whole number or a generator.
        arms: how many; the labels.
        radial, tangential: standard deviations along and across an arm.
        rate: how much an arm bends.
        scale: the arms' distance from the centre.
    """
    generator = randomness(seed)
    arm = _component(n, whole(arms, "arms"), generator)
    along = 1 + _positive(radial, "radial") * _normal(n, generator)
    across = _positive(tangential, "tangential") * _normal(n, generator)
    turn = 2 * math.pi * arm / arms + rate * along.exp()
    x = along * turn.cos() + across * turn.sin()
    y = across * turn.cos() - along * turn.sin()
    return _plane("pinwheel", _positive(scale, "scale") * torch.stack([x, y], 1), arm)


def two_moons(n: int = _POINTS, seed: Seed = 0, *, noise: float = 0.1) -> Dataset:
    """Two half circles of radius 1 that reach into each other; the second is (1 − cos, ½ − sin).

    Args:
        n: points.
        seed: a whole number or a generator.
        noise: standard deviation around the arcs.
    """
    generator = randomness(seed)
    moon = _component(n, 2, generator)
    angle = math.pi * _uniform(n, generator)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    x = torch.where(moon[:, None] == 0, upper, lower)
    return _plane("two moons", x + _noise(n, noise, generator), moon)


def circles(n: int = _POINTS, seed: Seed = 0, *, rings: int = 2, noise: float = 0.05) -> Dataset:
    """Rings about the origin with radii 1, ½, … : the i-th of k has radius ``1 − i/k``.

    Args:
        n: points.
        seed: a whole number or a generator.
        rings: how many; the labels, from the outermost.
        noise: standard deviation around the rings.
    """
    generator = randomness(seed)
    ring = _component(n, whole(rings, "rings"), generator)
    angle = 2 * math.pi * _uniform(n, generator)
    x = (1 - ring / rings)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return _plane("circles", x + _noise(n, noise, generator), ring)


def checkerboard(n: int = _POINTS, seed: Seed = 0, *, squares: int = 4) -> Dataset:
    """Uniform on the black unit squares of a board with `squares` rows, centred at the origin.

    Args:
        n: points.
        seed: a whole number or a generator.
        squares: rows of the board, an even number; the labels are the squares²/2 black ones, row by row.
    """
    generator = randomness(seed)
    if whole(squares, "squares", 2) % 2:
        raise ValueError(f"squares should be an even number, got {squares}")
    square = _component(n, squares**2 // 2, generator)
    row = square // (squares // 2)
    column = 2 * (square % (squares // 2)) + row % 2  # black where row + column is even
    corner = torch.stack([column, row], 1) - squares / 2
    inside = torch.rand(n, 2, generator=generator, dtype=torch.float64, device=generator.device)
    return _plane("checkerboard", corner + inside, square)


def spirals(
    n: int = _POINTS, seed: Seed = 0, *, arms: int = 2, turns: float = 1.5, noise: float = 0.05
) -> Dataset:
    """Spirals of Archimedes from the origin to the unit circle, evenly turned against each other.

    ``x = r (cos θ, sin θ)``, ``θ = 2π (turns · r + arm / arms)`` with r² uniform, so that the points are about evenly
    spaced along an arm.

    Args:
        n: points.
        seed: a whole number or a generator.
        arms: how many; the labels.
        turns: how often an arm goes round.
        noise: standard deviation around the arms.
    """
    generator = randomness(seed)
    arm = _component(n, whole(arms, "arms"), generator)
    radius = _uniform(n, generator).sqrt()
    angle = 2 * math.pi * (_positive(turns, "turns") * radius + arm / arms)
    x = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return _plane("spirals", x + _noise(n, noise, generator), arm)


def eight_gaussians(
    n: int = _POINTS, seed: Seed = 0, *, components: int = 8, radius: float = 2.0, noise: float = 0.2
) -> Dataset:
    """Round Gaussians, evenly spaced on a circle.

    Args:
        n: points.
        seed: a whole number or a generator.
        components: how many; the labels.
        radius: of the circle of their means.
        noise: their standard deviation.
    """
    generator = randomness(seed)
    component = _component(n, whole(components, "components"), generator)
    angle = 2 * math.pi * component / components
    x = _positive(radius, "radius") * torch.stack([angle.cos(), angle.sin()], 1)
    return _plane("eight Gaussians", x + _noise(n, noise, generator), component)


TOYS: dict[str, Callable[..., Dataset]] = {
    toy.__name__: toy for toy in (pinwheel, two_moons, circles, checkerboard, spirals, eight_gaussians)
}
"""All of them by name; each takes ``(n, seed)``."""


def _plane(name: str, x: Float[Tensor, "n 2"], label: Int[Tensor, " n"]) -> Dataset:
    return from_rows(x, "gaussian", name=name, labels=label)


def _component(n: int, components: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    return torch.randint(components, (whole(n, "n", 10),), generator=generator, device=generator.device)


def _uniform(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    return torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)


def _normal(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    return torch.randn(n, generator=generator, dtype=torch.float64, device=generator.device)


def _noise(n: int, spread: float, generator: torch.Generator) -> Float[Tensor, "n 2"]:
    shape = (n, 2)
    return _positive(spread, "noise") * torch.randn(
        shape, generator=generator, dtype=torch.float64, device=generator.device
    )


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value

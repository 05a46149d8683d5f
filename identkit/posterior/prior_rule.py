"""Gauss quadrature *under the prior*: nodes and weights for ``E_P f(z)``, fixed before any datum is seen.

It knows families of latents and nothing of likelihoods or posteriors. That makes it the other road to
whatever the adaptive quadrature finds: it cannot miss a mode, because it never looks for one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.stats import binom
from sympy import Expr, Symbol
from torch import Tensor

from identkit.model import families
from identkit.model.balls import ball
from identkit.model.compiled import CompiledModel
from identkit.model.protocol import Continuous

Array = NDArray[np.float64]

CONTINUOUS_LIMIT = 3
#: Nodes of one rule: a table of ℓ on them is 16 MB for each datum.
NODE_LIMIT = 2_000_000
# A node that holds less than this cannot matter to the mean of anything the prior can integrate in float64,
# while ℓ so far out may overflow.
_NEGLIGIBLE = 1e-32


def prior_rule(compiled: CompiledModel, order: int) -> tuple[Float[Tensor, "m k"], Float[Tensor, " m"]]:
    """Lay a product of Gauss rules over the latents of a model, in the order in which they are declared.

    ``E_P f(z) ≈ Σ_i w_i f(z_i)``, exact for polynomials of degree 2·order − 1 under Normal and Beta priors; a
    finite latent is summed exactly; a latent whose prior depends on earlier ones gets a rule at each of their
    nodes, and a mixture one in each component.

    Source: Golub & Welsch 1969, Math. Comp. 23:221.

    Args:
        compiled: the model; at most three continuous latents, any number of finite ones.
        order: nodes per continuous latent, ≥ 1.

    Returns:
        Nodes (m, k), states 0-based as everywhere in torch, and their weights (m,), which sum to 1.

    Raises:
        ValueError: more than three continuous latents (the message names them), a latent with infinitely many
            discrete values, or more than two million nodes.

    >>> import identkit as ik
    >>> from identkit.model.compiled import compiled
    >>> nodes, weights = prior_rule(compiled(ik.parse("z ~ Normal(1, 2); observe x ~ Normal(z, 1)")), 3)
    >>> (weights @ nodes[:, 0]**2).item()  # mean² + sd²
    5.0
    """
    refuse_too_wide(compiled)
    symbols = compiled.model.latent_symbols
    nodes, weights = np.zeros((1, 0)), np.ones(1)
    for statement in compiled.model.latents:
        family = statement.family
        mentioned = [index for index, symbol in enumerate(symbols) if symbol in family.free_symbols]
        rules: dict[tuple[float, ...], tuple[Array, Array]] = {}
        grown, masses, size = [], [], 0
        # The state's number in the notation is one more than in torch.
        shift = [_is_state(compiled, index) for index in mentioned]
        for node, weight in zip(nodes, weights, strict=True):
            given = tuple(float(node[index]) + one for index, one in zip(mentioned, shift, strict=True))
            if given not in rules:
                values = dict(zip([symbols[index] for index in mentioned], given, strict=True))
                rules[given] = _family_rule(family, values, order)
            points, mass = rules[given]
            size += len(mass)
            if size > NODE_LIMIT:
                raise ValueError(
                    f"a model for quadrature should need at most {NODE_LIMIT:,} nodes under its prior, the budget, "
                    f"and needs more at {', '.join(map(str, statement.symbols))}: fewer states or fewer latents help"
                )
            grown.append(np.hstack([np.repeat(node[None], len(points), axis=0), points]))
            masses.append(weight * mass)
        nodes, weights = np.concatenate(grown), np.concatenate(masses)
    possible = weights > 0
    return torch.from_numpy(nodes[possible]), torch.from_numpy(weights[possible] / weights.sum())


def continuous_latents(compiled: CompiledModel) -> tuple[int, ...]:
    """The positions of the continuous latents."""
    return tuple(index for index, axis in enumerate(compiled.axes) if isinstance(axis, Continuous))


def refuse_too_wide(compiled: CompiledModel) -> None:
    """Refuse a model with more continuous latents than quadrature reaches, naming them."""
    names = [compiled.latent_names[index] for index in continuous_latents(compiled)]
    if len(names) > CONTINUOUS_LIMIT:
        raise ValueError(
            f"a model for quadrature should have at most three continuous latents, got {len(names)}: "
            f"{', '.join(names)}"
        )


def _is_state(compiled: CompiledModel, latent: int) -> bool:
    symbol = compiled.model.latent_symbols[latent]
    return any(
        symbol in s.symbols and isinstance(s.family, families.Categorical) for s in compiled.model.latents
    )


def _family_rule(family: families.Family, values: Mapping[Symbol, float], order: int) -> tuple[Array, Array]:
    """Nodes (m, dimension) and weights (m,) of one family at given values of the latents it mentions."""
    if isinstance(family, families.Mixture):
        weights = _numbers(family.weights, values)
        parts = [_family_rule(component, values, order) for component in family.components]
        return (
            np.concatenate([points for points, _ in parts]),
            np.concatenate([weight * mass for weight, (_, mass) in zip(weights, parts, strict=True)]),
        )
    if isinstance(family, families.Categorical):
        p = _numbers(family.arguments, values)
        return np.arange(len(p), dtype=np.float64)[:, None], p
    if isinstance(family, families.MvNormal):
        mean, cov = family.arguments
        factor = np.linalg.cholesky(_numbers(list(cov), values).reshape(cov.shape))
        points, mass = _hermite(order)
        grid = np.stack([axis.ravel() for axis in np.meshgrid(*[points] * len(mean), indexing="ij")], axis=-1)
        masses = np.prod(np.meshgrid(*[mass] * len(mean), indexing="ij"), axis=0).ravel()
        keep = masses > _NEGLIGIBLE
        return _numbers(list(mean), values) + grid[keep] @ factor.T, masses[keep]
    arguments = _numbers(family.arguments, values)
    if isinstance(family, families.Normal):
        points, mass = _hermite(order)
        return (arguments[0] + arguments[1] * points)[:, None], mass
    if isinstance(family, families.Beta):
        points, mass = _jacobi(order, *arguments)
        return points[:, None], mass
    if isinstance(family, families.Bernoulli):
        return np.array([[0.0], [1.0]]), np.array([1 - arguments[0], arguments[0]])
    if isinstance(family, families.Binomial):
        counts = np.arange(int(arguments[0]) + 1, dtype=np.float64)
        return counts[:, None], binom.pmf(counts, *arguments)
    if isinstance(family, families.LogNormal):
        points, mass = _hermite(order)
        return np.exp(arguments[0] + arguments[1] * points)[:, None], mass
    return _transformed(family, arguments, order)


def _transformed(family: families.Family, arguments: Array, order: int) -> tuple[Array, Array]:
    """Rules that are those of a Gamma or Beta variable, carried over."""
    if isinstance(family, families.Uniform):
        points, mass = _jacobi(order, 1.0, 1.0)
        return (arguments[0] + (arguments[1] - arguments[0]) * points)[:, None], mass
    if isinstance(family, families.Exponential | families.Gamma | families.InverseGamma):
        shape, rate = (1.0, *arguments) if isinstance(family, families.Exponential) else arguments
        points, mass = _laguerre(order, float(shape))
        return (rate / points if isinstance(family, families.InverseGamma) else points / rate)[:, None], mass
    if isinstance(family, families.Laplace):
        points, mass = _laguerre(order, 1.0)
        sides = np.concatenate([-points[::-1], points])
        return (arguments[0] + arguments[1] * sides)[:, None], np.concatenate([mass[::-1], mass]) / 2
    if isinstance(family, families.StudentT | families.Cauchy):
        # With u ~ Beta(df/2, df/2), √df (2u − 1) / (2√(u(1 − u))) has Student's distribution.
        df, loc, scale = (1.0, *arguments) if isinstance(family, families.Cauchy) else arguments
        points, mass = _jacobi(order, float(df) / 2, float(df) / 2)
        spread = (2 * points - 1) / (2 * np.sqrt(points * (1 - points)))
        return (loc + scale * math.sqrt(df) * spread)[:, None], mass
    raise ValueError(
        f"a latent for quadrature should be drawn from a family with a Gauss rule, got {family.name}"
    )


def _numbers(expressions: Sequence[Expr], values: Mapping[Symbol, float]) -> Array:
    return np.array([float(ball(expression, values).mid()) for expression in expressions])


def _hermite(order: int) -> tuple[Array, Array]:
    return _golub_welsch(np.zeros(order), np.sqrt(np.arange(1.0, order)))


def _laguerre(order: int, shape: float) -> tuple[Array, Array]:
    n = np.arange(1.0, order)
    return _golub_welsch(2 * np.arange(float(order)) + shape, np.sqrt(n * (n + shape - 1)))


def _jacobi(order: int, a: float, b: float) -> tuple[Array, Array]:
    # The recurrence of the polynomials orthogonal under t^(a−1) (1 − t)^(b−1) on (0, 1); no gamma function in
    # it, so that a = 10⁶ is as good as a = 2. The first coefficients are limits of 0/0 where a + b is 1 or 2.
    n = np.arange(1.0, order)
    s = 2 * n + a + b - 2
    diagonal = np.concatenate([[a / (a + b)], 0.5 + 0.5 * (a - b) * (a + b - 2) / (s * (s + 2))])
    first = a * b / ((a + b) ** 2 * (a + b + 1))
    m, s = n[1:], s[1:]
    rest = m * (m + a - 1) * (m + b - 1) * (m + a + b - 2) / (s**2 * (s**2 - 1))
    return _golub_welsch(diagonal, np.sqrt(np.concatenate([[first], rest]))[: order - 1])


def _golub_welsch(diagonal: Array, off: Array) -> tuple[Array, Array]:
    if len(diagonal) == 1:
        return diagonal, np.ones(1)
    points, vectors = eigh_tridiagonal(diagonal, off)
    mass = vectors[0] ** 2
    keep = mass > _NEGLIGIBLE
    return points[keep], mass[keep] / math.fsum(mass[keep])

"""Where mixtures and bounded supports point: needles that a sum's logarithm hides, and islands in a sea of −∞.

``log Σ_k w_k f_k(x; z)`` is flat wherever one component is small against the others, however narrow the peak that it makes
elsewhere: an outlier model with exact measurements shows quadrature a constant and hides most of the posterior. The
component's own ``log f_k(x; z)`` slopes towards that peak from everywhere. So each component that depends on latents is a
guide: a log-likelihood of which only the peaks are wanted, never the mass.

So does the end of a support: a measurement that was rounded, Uniform(z − h, z + h), is −∞ wherever z is not near, which
points nowhere. A normal law of the same middle and half width stands in for it.

Source: theory/T4 (computation).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.model.compiled import CompiledModel
from identkit.model.families import Mixture, Normal
from identkit.model.family import Family
from identkit.model.model import Statement
from identkit.posterior.heights import heights

Guide = Callable[[Tensor, Tensor], Tensor]
"""``guide(rows, z)``: rows (m,) of data and z (m, k) → (m,)."""

_MOST = 24
# Of the number of nodes on which the prior's mass lies, as 1/Σ w² counts them, that number for a guide's posterior.
_SHARE = 0.4


def guides(
    model: CompiledModel,
    x: Float[Tensor, "n d"],
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> list[Guide]:
    """Give ``ℓ_plain(z) + log f_k(x_i; z)`` for every mixture observed and every component that depends on latents.

    Where the support ends as latents say, a normal law stands in.

    Of pooled data some rows at equal distances have to do for all: where many agree, each points near their peak.

    Args:
        model: the model.
        x: (n, d) checked data.
        pooled: whether the rows share their latents.
        mask: (n, d), True where x is observed.

    Returns:
        The guides; none for a model whose components' own arguments know no latents.

    >>> from identkit.model.compiled import compiled
    >>> from identkit.model.language import parse
    >>> m = compiled(parse("z ~ Normal(0,1); observe x ~ Mixture([1/2, 1/2], Normal(z, 1/100), Normal(0, 10))"))
    >>> (guide,) = guides(m, torch.tensor([[2.0]]))
    >>> guide(torch.tensor([0, 0]), torch.tensor([[2.0], [1.99]]))
    tensor([3.6862, 3.1862], dtype=torch.float64)
    """
    plain, pointing = _parts(model)
    if not pointing:
        return []
    chosen = range(len(x))
    if pooled:
        most = max(1, _MOST // len(pointing))
        chosen = range(0, len(x), math.ceil(len(x) / most))
    rest = _only(model, plain)
    found = []
    for statement in pointing:
        component = _only(model, [statement])
        if pooled:
            found += [_shared(rest, component, x, mask, row) for row in chosen]
        else:
            found.append(_alone(rest, component, x, mask))
    return found[:_MOST]


def hiding(
    found: list[Guide], nodes: Float[Tensor, "m k"], weights: Float[Tensor, " m"], n: int
) -> Bool[Tensor, " n"]:
    """Tell on which of n data some guide's own posterior is too narrow for a rule under the prior.

    There a needle may hide between the nodes; elsewhere a component is seen by whatever sees the prior.

    Args:
        found: the guides.
        nodes: (m, k) of the rule.
        weights: (m,).
        n: number of data.
    """
    narrow = torch.zeros(n, dtype=torch.bool)
    rows, z = torch.arange(n).repeat_interleave(len(nodes)), nodes.repeat(n, 1)
    for guide in found:
        joint = guide(rows, z).reshape(n, -1) + weights.log()
        many = 1 / torch.softmax(joint, 1).square().sum(1)
        narrow |= ~(many >= _SHARE / weights.square().sum())
    return narrow


def _parts(model: CompiledModel) -> tuple[list[Statement], list[Statement]]:
    """What is observed of no such mixture, and every component of the others as if it alone were observed."""
    latents = {*model.model.latent_symbols}

    def ends(family: Family) -> bool:
        return any(bound.free_symbols & latents for bound in family.bounds)

    def soft(family: Family) -> Family:
        if not ends(family):
            return family
        low, high = family.bounds
        return Normal((low + high) / 2, (high - low) / 2)

    plain, pointing, softened = [], [], []
    for statement in model.model.observations:
        family = statement.family
        mixed = family.components if isinstance(family, Mixture) else ()
        parts = [soft(part) for part in dict.fromkeys(mixed) if part.free_symbols & latents]
        pointing += [Statement(statement.symbols, part) for part in parts]
        if not parts:
            (softened if ends(family) else plain).append(Statement(statement.symbols, soft(family)))
    # Where no mixture is seen, one bounded law points for all: the others stay with the rest.
    return (plain + softened, pointing) if pointing else (plain + softened[1:], softened[:1])


def _only(model: CompiledModel, observed: list[Statement]) -> tuple[CompiledModel, list[int]]:
    """The model of these observations, and their columns in the data."""
    part = model.model.replaced({})
    part.observations = observed
    names = model.model.observation_symbols
    return CompiledModel(part), [
        names.index(symbol) for statement in observed for symbol in statement.symbols
    ]


def _alone(
    rest: tuple[CompiledModel, list[int]],
    component: tuple[CompiledModel, list[int]],
    x: Tensor,
    mask: Tensor | None,
) -> Guide:
    def guide(rows: Tensor, z: Tensor) -> Tensor:
        total = torch.zeros(len(z), dtype=torch.float64)
        for part, columns in (rest, component):
            seen = None if mask is None else mask[rows][:, columns]
            total = total + part.log_likelihood(x[rows][:, columns], z, seen)
        return total.nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)

    return guide


def _shared(
    rest: tuple[CompiledModel, list[int]],
    component: tuple[CompiledModel, list[int]],
    x: Tensor,
    mask: Tensor | None,
    row: int,
) -> Guide:
    own = _alone((rest[0], []) if not rest[1] else rest, component, x, mask)
    common, columns = rest

    def guide(rows: Tensor, z: Tensor) -> Tensor:
        here = torch.full_like(rows, row)
        total = own(here, z)
        if columns:
            seen = None if mask is None else mask[:, columns]
            total = total + heights(common, x[:, columns], z, True, seen)[:, 0]
            total = (
                total
                - heights(
                    common, x[row : row + 1, columns], z, True, None if seen is None else seen[row : row + 1]
                )[:, 0]
            )
        return total.nan_to_num(-math.inf, posinf=-math.inf, neginf=-math.inf)

    return guide

"""``ℓ(z) = log p(x | z)`` as a function of the latents, tabulated: a row per node, a column per datum."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.model.compiled import CompiledModel

NEARLY_FLAT = 1e-5
"""Below this range of ℓ, in nats, its float64 values have lost half of their digits to the constant in ℓ."""

_VANISHING = 1e-60  # what 256 bits leave of a gap that is exactly 0
_BALL_LIMIT = 50_000
_BLOCK = 1 << 20  # values of ℓ held at a time


def heights(
    compiled: CompiledModel,
    x: Float[Tensor, "n d"],
    nodes: Float[Tensor, "m k"],
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> Float[Tensor, "m r"]:
    """Tabulate ℓ in float64: a row per node, a column per datum (r = n), or one for pooled data (r = 1)."""
    parts: list[Tensor] = []
    for here, seen in _blocks(x, mask, len(nodes)):
        part = compiled.log_likelihood(here, nodes[:, None, :], seen).expand(len(nodes), len(here))
        parts = _gathered(parts, part, pooled)
    return torch.cat(parts, dim=1)


def slopes(
    compiled: CompiledModel,
    x: Float[Tensor, "n d"],
    nodes: Float[Tensor, "m k"],
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> Float[Tensor, "m r k"]:
    """Tabulate ``∇ℓ`` as `heights` does ℓ; zero in discrete latents."""
    parts: list[Tensor] = []
    with torch.enable_grad():
        for here, seen in _blocks(x, mask, nodes.numel()):
            part = compiled.gradient(here, nodes[:, None, :].expand(-1, len(here), -1), seen)
            parts = _gathered(parts, part, pooled)
    return torch.cat(parts, dim=1)


def _gathered(parts: list[Tensor], part: Tensor, pooled: bool) -> list[Tensor]:
    if not pooled:
        return [*parts, part]
    # Sums of blocks are added as they come: a list of them would be as large as the table of all data.
    total = part.sum(dim=1, keepdim=True)
    return [parts[0] + total] if parts else [total]


def refuse_unusable(table: Float[Tensor, "m r"], pooled: bool, whole: bool) -> None:
    """Refuse a table of ℓ in which a datum has a height that is no number or, if all of ℓ is there, none that is finite."""
    wrongs = [(table.isnan().any(dim=0), "not a number"), (table.amax(dim=0) == -torch.inf, "−∞ throughout")]
    for wrong, words in wrongs if whole else wrongs[:1]:
        if bool(wrong.any()):
            where = "" if pooled else f" for row {int(wrong.nonzero()[0]) + 1} of x"
            raise ValueError(
                f"log p(x | z) should be finite for some z and a number for all, got {words}{where}"
            )


def exact_gaps(
    compiled: CompiledModel,
    x: Float[Tensor, "n d"],
    nodes: Float[Tensor, "m k"],
    row: int,
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> Float[Tensor, " m"]:
    """Give ``ℓ(z_i) − ℓ(z_1)`` for one row, or all pooled rows, relatively accurate however small they are.

    NaN where ball arithmetic has no value, as at log 0, and where pooled data would take minutes of it.
    """
    symbols = compiled.model.latent_symbols
    seen = compiled.model.log_likelihood().free_symbols
    columns = [index for index, symbol in enumerate(symbols) if symbol in seen]
    if not columns:
        return torch.zeros(len(nodes), dtype=torch.float64)
    # One evaluation per distinct value of the latents that ℓ mentions: what it ignores it ignores exactly.
    _, places = torch.unique(nodes[:, columns], dim=0, return_inverse=True)
    first = torch.zeros(int(places.max()) + 1, dtype=torch.long).scatter_(0, places, torch.arange(len(nodes)))
    points = nodes[first]
    if pooled and len(points) * len(x) > _BALL_LIMIT:
        return torch.full((len(nodes),), torch.nan, dtype=torch.float64)
    total = torch.zeros(len(points), dtype=torch.float64)
    for datum in range(len(x)) if pooled else [row]:
        total += compiled.exact_gaps(x[datum], nodes[0], points, None if mask is None else mask[datum])
    return torch.where(total.abs() < _VANISHING, 0.0, total)[places]


def _blocks(x: Tensor, mask: Tensor | None, per_row: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    size = max(1, _BLOCK // max(1, per_row * max(1, x.shape[1])))
    for start in range(0, len(x), size):
        stop = start + size
        yield x[start:stop], None if mask is None else mask[start:stop]

"""Decoders in parts, some of which vouch for their own Lipschitz constants (the `Bounded` protocol, theory/T5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from identkit.model.protocol import Bounded
from identkit.numeric.enclosure import ranges
from identkit.numeric.intervals import Interval
from identkit.numeric.laws import parameters
from identkit.numeric.lipschitz import Constants, compose, lipschitz
from identkit.numeric.lowering import program_of
from identkit.numeric.probed import Probed
from identkit.numeric.recovery import recovered


@dataclass(frozen=True)
class Link:
    """One part of a decoder: its constants, and whether it is one-to-one."""

    name: str
    constants: Constants
    injective: bool
    vouched: bool
    """Whether the constants are its own word, by the `Bounded` protocol."""


def links(p: Probed, box: Interval) -> list[Link] | None:
    """The decoder as a chain of parts; None if none of them is `Bounded` or one cannot be followed."""
    if p.decode is None or p.histories != 1:
        return None
    parts = _parts(p.decoder)
    if not any(isinstance(part, Bounded) for part in parts):
        return None
    with torch.no_grad():
        rows = p.prior.placed(p.prior.sample(32, seed=7))
        found: list[Link] = []
        for group in _grouped(parts):
            link = _vouched(group[0]) if isinstance(group[0], Bounded) else _followed(group, rows, box, p.eps)
            if link is None:
                return None
            found.append(link)
            for part in group:
                rows = part(rows)
            box = _unbounded(rows[0].numel())
    return found


def reads_off(p: Probed) -> bool:
    """Whether the law determines the decoder's output, whatever that is: the likelihood's link is one-to-one."""
    with torch.no_grad():
        output = p.decoder(p.prior.placed(p.prior.sample(32, seed=7)))
        if not isinstance(output, Tensor):
            return False
        shape = output.shape[1:]
        tail = lambda rows: parameters(p.likelihood(rows.reshape(len(rows), *shape)))
        return _one_to_one(tail, output.reshape(len(output), -1), _unbounded(output[0].numel()), p.eps)[0]


def total(found: list[Link]) -> Constants:
    """The constants of the whole decoder."""
    return compose([link.constants for link in found])


def _parts(decoder: Any) -> list[Any]:
    """The members of nested nn.Sequential, where its forward is that of torch."""
    if isinstance(decoder, Bounded) or type(decoder) is not nn.Sequential or _hooked(decoder):
        return [decoder]
    return [part for child in decoder for part in _parts(child)]


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _grouped(parts: list[Any]) -> list[list[Any]]:
    """Neighbours that do not vouch for themselves are followed together."""
    groups: list[list[Any]] = []
    for part in parts:
        alone = isinstance(part, Bounded)
        if alone or not groups or isinstance(groups[-1][0], Bounded):
            groups.append([part])
        else:
            groups[-1].append(part)
    return groups


def _vouched(part: Bounded) -> Link | None:
    lower, upper = part.lower_lipschitz(), part.upper_lipschitz()
    if lower is None or not float(lower) > 0 or not math.isfinite(float(lower)):
        return None
    high = math.inf if upper is None or not float(upper) >= float(lower) else float(upper)
    return Link(type(part).__name__, (float(lower), high), True, True)


def _followed(group: list[Any], rows: Tensor, box: Interval, eps: float) -> Link | None:
    shape = rows.shape[1:]

    def run(flat: Tensor) -> Tensor:
        out = flat.reshape(len(flat), *shape)
        for part in group:
            out = part(out)
        return out

    injective, constants = _one_to_one(run, rows.reshape(len(rows), -1), box, eps)
    name = ", ".join(type(part).__name__ for part in group)
    return Link(name, constants, injective, False) if injective else None


def _one_to_one(
    function: Callable[[Tensor], Tensor], rows: Tensor, box: Interval, eps: float
) -> tuple[bool, Constants]:
    program = program_of(function, rows, eps)
    if program is None:
        return False, (0.0, math.inf)
    found = ranges(program, box)
    return bool(recovered(program, found).all()), lipschitz(program, found)[-1]


def _unbounded(size: int) -> Interval:
    infinite = torch.full((size,), math.inf, dtype=torch.float64)
    return Interval(-infinite, infinite)

"""Many networks of one shape in one module: every parameter and buffer has a leading axis over the members.

Seeds and settings train together at nearly the price of one, since a batched matrix product costs far less than as many
small ones. Members never mix: a sum of their losses gives each member its own gradient.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class Linear(nn.Module):
    """An affine layer of each member, ``x Wᵀ + b``.

    Args:
        members: E.
        inputs, outputs: numbers of columns.
        generator: of the initial weights, uniform on ``±1/√inputs`` as torch's own layer has them.
    """

    def __init__(self, members: int, inputs: int, outputs: int, *, generator: torch.Generator) -> None:
        super().__init__()
        width = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(uniform((members, outputs, inputs), width, generator))
        self.bias = nn.Parameter(uniform((members, outputs), width, generator))

    def forward(self, x: Float[Tensor, "*e n i"]) -> Float[Tensor, "*e n o"]:
        """Apply each member's layer to its own rows; x (E, n, inputs), or (n, inputs) where E = 1."""
        rows = in_members(x, len(self.weight), self.weight.shape[2])
        return like_rows(torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight.mT), x)


def member(module: Module, number: int) -> Module:
    """Give a copy of a module that holds one of its members alone.

    Args:
        module: one whose parameters and buffers all have the members as their first axis.
        number: which member, from 0; negative numbers count from the end.

    Raises:
        IndexError: there is no such member.

    >>> pair = Linear(2, 3, 1, generator=torch.Generator())
    >>> member(pair, 1).weight.shape
    torch.Size([1, 1, 3])
    """
    count = members_of(module)
    if not -count <= number < count:
        raise IndexError(f"number should be below the number of members, {count}, got {number}")
    first = number % count
    return _rebuilt(module, {id(tensor): tensor[first : first + 1] for _, tensor in _tensors(module)})


def stack(modules: Sequence[Module]) -> Module:
    """Put the members of several modules of one shape into one; the inverse of `member`.

    Raises:
        ValueError: there are none, or their shapes differ.
    """
    if not modules:
        raise ValueError("modules should hold at least one module, got none")
    named = [dict(_tensors(module)) for module in modules]
    for number, tensors in enumerate(named):
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
        wanted = {name: tuple(tensor.shape[1:]) for name, tensor in named[0].items()}
        if shapes != wanted:
            raise ValueError(
                f"modules should all have the shapes of the first, {wanted}, got {shapes} in modules[{number}]"
            )
    joined = {id(named[0][name]): torch.cat([tensors[name] for tensors in named]) for name in named[0]}
    return _rebuilt(modules[0], joined)


def members_of(module: nn.Module) -> int:
    """Count the members of a module.

    Raises:
        ValueError: it has no parameters, or their first axes differ.
    """
    sizes = {name: tensor.shape[0] if tensor.ndim else 0 for name, tensor in _tensors(module)}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(
            f"module should have the members as first axis of every parameter and buffer, got sizes {sizes}"
        )
    return next(iter(sizes.values()))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _rebuilt(module: Module, tensors: dict[int, Tensor]) -> Module:
    """A deep copy in which other tensors stand in the place of the old ones, by identity: what is shared stays so."""
    parameters = {id(parameter): parameter for parameter in module.parameters()}
    memo: dict[int, Tensor] = {}
    for key, tensor in tensors.items():
        fresh = tensor.detach().clone()
        old = parameters.get(key)
        memo[key] = fresh if old is None else nn.Parameter(fresh, requires_grad=old.requires_grad)
    return copy.deepcopy(module, memo)


def in_members(x: Float[Tensor, "*e n d"], members: int, columns: int) -> Float[Tensor, "e n d"]:
    """Give rows their axis of members.

    Raises:
        ValueError: the axes or columns do not fit.
    """
    if x.ndim == 2 and members == 1:
        x = x.unsqueeze(0)
    if x.ndim != 3 or x.shape[0] != members or x.shape[2] != columns:
        alone = f" or (n, {columns})" if members == 1 else ""
        raise ValueError(f"x should have shape ({members}, n, {columns}){alone}, got {tuple(x.shape)}")
    return x


def like_rows(values: Float[Tensor, "e n *d"], x: Shaped[Tensor, "*f n k"]) -> Float[Tensor, "*g n *d"]:
    """Drop the axis of members again where x, which the values were computed from, has none."""
    return values.squeeze(0) if x.ndim == 2 else values


def along(values: Shaped[Tensor, " e"], tensor: Tensor) -> Shaped[Tensor, "e ..."]:
    """One number a member, in the shape that broadcasts against a tensor of all members."""
    return values.reshape(-1, *[1] * (tensor.ndim - 1))


def per_member(value: float | Sequence[float] | Tensor, members: int, name: str) -> Float[Tensor, " e"]:
    """Give one positive number to each member, in torch's default precision.

    Args:
        value: one number for all, or one for each.
        name: of the argument, for the message.

    Raises:
        ValueError: their number differs from that of the members, or one is not positive and finite.
    """
    values = torch.as_tensor(value, dtype=torch.get_default_dtype())
    if values.ndim > 1 or (values.ndim == 1 and len(values) != members):
        raise ValueError(
            f"{name} should be one number, or one for each of {members} members, got {tuple(values.shape)}"
        )
    if not bool((values > 0).all() & torch.isfinite(values).all()):
        raise ValueError(f"{name} should be positive and finite, got {values.tolist()}")
    return values.expand(members).clone()


def uniform(shape: tuple[int, ...], width: float, generator: torch.Generator) -> Tensor:
    """Draw numbers uniformly from ``[−width, width]``."""
    return (2 * torch.rand(shape, generator=generator) - 1) * width


def normal(shape: tuple[int, ...], deviation: float, generator: torch.Generator) -> Tensor:
    """Draw numbers from a normal law about 0."""
    return torch.randn(shape, generator=generator) * deviation

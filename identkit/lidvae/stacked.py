"""A user's own module among members: its parameters and buffers get the leading axis, its code stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.func import functional_call

from identkit.lidvae.members import like_rows
from identkit.model.protocol import Bounded


class Stacked(nn.Module):
    """E copies of any module, each with weights of its own, applied one after the other.

    Slower than layers written for members (`identkit.lidvae.members.Linear`), and as general as torch itself.

    Args:
        module: takes rows (n, d), gives a tensor whose first axis is n, or a `Normal` of that shape.
        members: E; the first copy has the module's own weights, the others begin anew by `reset_parameters`.
        generator: of the others' weights.

    Raises:
        ValueError: E > 1, and a submodule has weights but no `reset_parameters`.

    >>> twice = Stacked(nn.Linear(3, 1), 2, generator=torch.Generator())
    >>> twice(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 1])
    """

    def __init__(self, module: nn.Module, members: int, *, generator: torch.Generator) -> None:
        super().__init__()
        copies = [module, *(reset(module, generator) for _ in range(members - 1))]
        self._names: dict[str, str] = {}
        for name, parameter in module.named_parameters():
            self._names[name] = name.replace(".", "__")
            own = torch.stack([one.get_parameter(name).detach() for one in copies])
            self.register_parameter(self._names[name], nn.Parameter(own, parameter.requires_grad))
        for name, _ in module.named_buffers():
            self._names[name] = name.replace(".", "__")
            self.register_buffer(self._names[name], torch.stack([one.get_buffer(name) for one in copies]))
        self._code = [copy.deepcopy(module).to("meta")]  # in a list: its weights are not this module's

    @property
    def members(self) -> int:
        """E."""
        return len(getattr(self, next(iter(self._names.values()))))

    def forward(self, x: Tensor) -> Tensor | Normal:
        """Each member's result on its own rows x (E, n, …); or on x (n, d) where E = 1."""
        alone = x.ndim == 2
        rows = x.unsqueeze(0) if alone else x
        found: list[Any] = [self._of(number, rows[number]) for number in range(self.members)]
        if isinstance(found[0], Normal):
            mean, scale = (torch.stack([getattr(law, name) for law in found]) for name in ("loc", "scale"))
            return Normal(like_rows(mean, x), like_rows(scale, x), validate_args=False)
        return like_rows(torch.stack(found), x)

    def _of(self, number: int, rows: Tensor) -> Tensor | Normal:
        tensors = {name: getattr(self, kept)[number] for name, kept in self._names.items()}
        code = self._code[0].train(self.training)
        return functional_call(code, tensors, (rows,))

    def module(self, number: int = 0) -> nn.Module:
        """One member's module, as the user wrote it."""
        own = copy.deepcopy(self._code[0]).to_empty(device=next(self.parameters()).device)
        tensors = {name: getattr(self, kept)[number].detach() for name, kept in self._names.items()}
        own.load_state_dict(tensors, strict=False)
        return own.train(self.training)


class BoundedStack(Stacked):
    """A `Stacked` whose module vouches for its Lipschitz constants (`identkit.model.protocol.Bounded`)."""

    def lower_lipschitz(self) -> float | None:
        """Of the least member; None where one cannot bound itself."""
        return _of_all(min, [self._bounded(number).lower_lipschitz() for number in range(self.members)])

    def upper_lipschitz(self) -> float | None:
        """Of the largest member; None where one cannot bound itself."""
        return _of_all(max, [self._bounded(number).upper_lipschitz() for number in range(self.members)])

    def _bounded(self, number: int) -> Any:
        return self.module(number)


def stacked(module: nn.Module, members: int, *, generator: torch.Generator) -> Stacked:
    """Put a user's module among members; what it vouches for stays vouched for.

    Raises:
        TypeError: no module. ValueError: see `Stacked`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module should be a torch.nn.Module, got {type(module).__name__}")
    kind = BoundedStack if isinstance(module, Bounded) else Stacked
    return kind(module, members, generator=generator)


def reset(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy with new weights, by the `reset_parameters` of whatever holds some.

    Torch's initialisers draw from its global state of chance: that is put back afterwards.

    Raises:
        ValueError: a submodule has weights of its own, and no `reset_parameters`.
    """
    made = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for name, part in made.named_modules():
            again = getattr(part, "reset_parameters", None)
            if callable(again):
                again()
            elif next(part.parameters(recurse=False), None) is not None:
                raise ValueError(
                    f"{type(module).__name__} should start anew for every seed, but {name or 'it'} has weights and no "
                    "reset_parameters(): give it one, or train with seeds=1"
                )
    return made


def _of_all(choose: Callable[[Iterable[float]], float], bounds: list[float | None]) -> float | None:
    known = [bound for bound in bounds if bound is not None]
    return choose(known) if len(known) == len(bounds) else None

"""Adam over many members at once: each has its own clipped gradient, and one that diverges stops alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from identkit.lidvae.members import along

_MEMORY = 0.98  # of the running average of gradient norms
_WARM = 0.25  # share of a one-cycle schedule in which the rate rises
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what torch's Adam keeps for a parameter
_LOWEST = 25.0  # how far below its peak the rate starts


def one_cycle(progress: float) -> float:
    """Rise over the first quarter, then fall to 0, both along a cosine (Smith & Topin 2018)."""
    if progress < _WARM:
        return 1 / _LOWEST + (1 - 1 / _LOWEST) * _cosine(1 - progress / _WARM)
    return _cosine((progress - _WARM) / (1 - _WARM))


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along a cosine (Loshchilov & Hutter 2017)."""
    return _cosine(progress)


def constant(progress: float) -> float:
    """Stay."""
    return 1.0


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "one-cycle": one_cycle,
    "cosine": cosine,
    "constant": constant,
}
"""The share of the peak learning rate at a share of training."""


def _cosine(share: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


class MemberAdam:
    """Adam (Kingma & Ba 2015), fused, with gradients clipped member by member.

    A member's gradient is clipped to `clip` times the running average of its own norm, which needs no tuning to the
    size of the data (compare Seetharaman et al. 2020, AutoClip). A member whose loss or gradient is not finite gets
    none, then and from then on: its weights stay where they were.

    Args:
        groups: parameters and what their learning rate is multiplied by.
        members: E.
        clip: the largest multiple, or None for no clipping.
    """

    def __init__(
        self, groups: Iterable[tuple[Iterable[nn.Parameter], float]], members: int, clip: float | None
    ) -> None:
        listed = [(list(parameters), factor) for parameters, factor in groups]
        self.parameters = [parameter for parameters, _ in listed for parameter in parameters]
        self.adam = torch.optim.Adam(
            [{"params": parameters, "lr": 0.0, "factor": factor} for parameters, factor in listed],
            fused=self.parameters[0].device.type in ("cpu", "cuda"),
        )
        device, dtype = self.parameters[0].device, self.parameters[0].dtype
        self.clip = clip
        self.usual: Float[Tensor, " e"] = torch.full((members,), math.nan, device=device, dtype=dtype)
        self.alive: Bool[Tensor, " e"] = torch.ones(members, dtype=torch.bool, device=device)

    def step(
        self, loss: Float[Tensor, " e"], rate: float, only: Bool[Tensor, " e"] | None = None
    ) -> Bool[Tensor, " e"] | None:
        """Take gradients of the losses and make one step.

        Args:
            loss: of each member.
            rate: the learning rate.
            only: the members that may move; None for all.

        Returns:
            the members that this step stopped; None where it stopped none.
        """
        # Not `autograd.grad`, whose results may be laid out across the weights: the fused kernel reads them as they lie.
        loss.sum().backward(inputs=self.parameters)
        found = [(p, p.grad) for p in self.parameters if p.grad is not None]
        with torch.no_grad():
            parts = [torch.linalg.vector_norm(g.reshape(len(g), -1), dim=1) for _, g in found]
            norm = torch.stack(parts).norm(dim=0)
            stopped = self._stop(~(torch.isfinite(loss.detach()) & torch.isfinite(norm)))
            factor = self._factor(norm)
            for parameter, gradient in found:
                # A NaN times 0 is a NaN: what must not move is put to 0 by choice.
                clipped = gradient * along(factor, gradient)
                parameter.grad = torch.where(along(self.alive, gradient), clipped, 0.0)
            for group in self.adam.param_groups:
                group["lr"] = rate * group["factor"]
            kept = None if only is None else (only, self._held())
            self.adam.step()
            if kept is not None:
                may, held = kept
                for tensor, before in held:
                    tensor.copy_(torch.where(along(may, tensor), tensor, before))
            self.adam.zero_grad(set_to_none=True)
        return stopped

    def _stop(self, bad: Bool[Tensor, " e"]) -> Bool[Tensor, " e"] | None:
        """Without momentum and gradient Adam leaves the weights of these members as they are; those newly among them."""
        newly = bad & self.alive
        if not bool(newly.any()):
            return None
        self.alive &= ~bad
        for state in self.adam.state.values():
            state["exp_avg"][bad] = 0.0
        return newly

    def _factor(self, norm: Float[Tensor, " e"]) -> Float[Tensor, " e"]:
        """What each member's gradient is multiplied by; the average takes in the clipped norm."""
        if self.clip is None:
            return torch.ones_like(norm)
        first = self.usual.isnan()
        largest = torch.where(first, norm, self.clip * self.usual)
        factor = (largest / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1.0)
        seen = torch.where(first, norm, _MEMORY * self.usual + (1 - _MEMORY) * factor * norm)
        self.usual = torch.where(self.alive, seen, self.usual)
        return factor

    def _held(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and moments with what they are now."""
        moments = [state[name] for state in self.adam.state.values() for name in ("exp_avg", "exp_avg_sq")]
        return [(tensor, tensor.detach().clone()) for tensor in (*self.parameters, *moments)]

    def state(self) -> dict[str, Tensor]:
        """All tensors that a later run needs to go on from here."""
        found = {"usual": self.usual, "alive": self.alive}
        for number, parameter in enumerate(self.parameters):
            for name, tensor in self.adam.state[parameter].items():
                found[f"{number}.{name}"] = tensor
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.usual, self.alive = state["usual"].clone(), state["alive"].clone()
        for number, parameter in enumerate(self.parameters):
            names = [name for name in _MOMENTS if f"{number}.{name}" in state]
            if names:
                self.adam.state[parameter] = {name: state[f"{number}.{name}"].clone() for name in names}

"""When two computed laws are the same but for rounding, and when a direction is invisible but for rounding.

One unit serves both questions: the change that rounding alone can make in a parameter of the law. It is measured, not
derived: z is moved by one or two units in its last place (of its own size or of the prior's, whichever is larger), which
stirs the rounding of all that follows, as in a backward error analysis (Higham, *Accuracy and Stability of
Numerical Algorithms*, section 1.5).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.numeric.jacobian import jacobians
from identkit.numeric.probed import Probed

_STIRS = 3  # random moves of z in its last place
_MARGIN = 32  # equal means: within so many times what the stirring did
_COMPARED = 32  # draws at which derivatives are compared with difference quotients
_SEEN = 100  # a direction counts as seen when a move by the separation changes the law by so many units


def spread(p: Probed, seed: int = 0) -> Float[Tensor, " k"]:
    """Half of the central 68 % of each latent's prior: its standard deviation, for a Gaussian."""
    drawn = p.prior.sample(2048, seed)
    ends = torch.quantile(drawn.double(), drawn.new_tensor([0.16, 0.84]).double(), dim=0)
    half = (ends[1] - ends[0]).to(drawn) / 2
    return torch.where(half > 0, half, torch.ones_like(half))


def unit(
    p: Probed, z: Float[Tensor, "n k"], scale: Float[Tensor, " k"], seed: int = 0
) -> tuple[Float[Tensor, "n q"], Float[Tensor, "n q"]]:
    """Give the law's parameters at z and the change that rounding alone can make in each.

    The states of a finite prior cannot be stirred; there a parameter may be off by 32 roundings of its largest value.

    Args:
        scale: the prior's spread of each latent.
    """
    generator = torch.Generator(z.device).manual_seed(seed)
    with torch.no_grad():
        values = p.parameters(z)
        if p.prior.states is not None:
            return values, of_states(values).expand_as(values)
        step = p.eps * torch.maximum(z.abs(), scale)
        noise = torch.zeros_like(values)
        for _ in range(_STIRS):
            # By one to two units: equal moves of two latents could cancel.
            stir = torch.rand(z.shape, generator=generator, device=z.device, dtype=z.dtype) * 2 - 1
            stir = stir + stir.sign()
            noise = torch.maximum(noise, (p.parameters(z + stir * step) - values).abs())
    return values, _MARGIN * noise + 4 * p.eps * values.abs()


def of_states(values: Float[Tensor, "s q"]) -> Float[Tensor, " q"]:
    """How far a number may be off, by the largest value that it takes at any state."""
    return _MARGIN * torch.finfo(values.dtype).eps * values.abs().amax(0)


def in_units(change: Float[Tensor, "*n q"], rounding: Float[Tensor, "*n q"]) -> Float[Tensor, "*n q"]:
    """A change of the parameters in units of rounding; a parameter that nothing moves changes by 0 or by ∞."""
    huge = torch.full_like(change, 1e30)
    exact = torch.where(change == 0, torch.zeros_like(change), huge.copysign(change))
    return torch.where(rounding > 0, change / rounding.clamp(min=torch.finfo(change.dtype).tiny), exact)


def change_of_law(
    p: Probed, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"], scale: Float[Tensor, " k"]
) -> Float[Tensor, " n"]:
    """The largest change of a parameter between each pair of latents, in units of rounding: at most 1 is none."""
    first, about_first = unit(p, one, scale)
    second, about_second = unit(p, two, scale)
    return in_units(second - first, about_first + about_second).abs().amax(1)


def slopes(
    p: Probed, z: Float[Tensor, "n k"], scale: Float[Tensor, " k"], rounding: Float[Tensor, "n q"]
) -> Float[Tensor, "n q k"]:
    """The law's Jacobian in units of rounding, per spread of the prior.

    Rounding is at least what z's own last place does, so the entries stay below 1/eps.
    """
    # A derivative may be undefined where the law is not, as that of sqrt(relu(z)) is: 0 · ∞.
    change = jacobians(p.parameters, z).nan_to_num(0, 0, 0) * scale
    safe = rounding.clamp(min=torch.finfo(change.dtype).tiny).unsqueeze(2)
    return torch.where(rounding.unsqueeze(2) > 0, change / safe, torch.zeros_like(change))


def derivatives_hold(p: Probed, scale: Float[Tensor, " k"]) -> bool:
    """Whether torch differentiates the law itself: not so with detached parts, straight-through estimators, and the like.

    Derivatives along one direction are compared with difference quotients; kinks and steep places may spoil some.
    """
    generator = torch.Generator(scale.device).manual_seed(0)
    drawn = torch.randn(scale.shape, generator=generator, device=scale.device, dtype=scale.dtype)
    step = p.eps ** (1 / 3)
    heading = drawn * scale
    z = p.prior.sample(_COMPARED)
    before, after = z - step * heading, z + step * heading
    inside = ((before > p.prior.low) & (after > p.prior.low)).all(1)
    inside &= ((before < p.prior.high) & (after < p.prior.high)).all(1)
    z, before, after = z[inside], before[inside], after[inside]
    if not len(z):
        return True
    slope = jacobians(p.parameters, z, heading.unsqueeze(1)).squeeze(2)
    with torch.no_grad():
        quotient = (p.parameters(after) - p.parameters(before)) / (2 * step)
    slack = unit(p, z, scale)[1] / step + 0.05 * torch.maximum(slope.abs(), quotient.abs())
    agree = ((slope - quotient).abs() <= slack).all(1)
    return bool(agree.double().mean() >= 0.5)


def flat_below(parameters: int) -> float:
    """The singular value of `slopes` below which a direction is flat: no parameter moves by its rounding."""
    return parameters**0.5


def seen_above(parameters: int, separation: float) -> float:
    """The singular value of `slopes` above which a move by `separation` cannot be taken for rounding."""
    return _SEEN * parameters**0.5 / separation

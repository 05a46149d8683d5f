"""Levenberg–Marquardt for partners: from many starts at once, latents z′ whose law comes close to the law at z.

The first stage minimises the divergence itself, so that what it stops at is *indistinguishable* in nats, however the
law is parametrised. The second solves the law's parameters, in units of their rounding, and tells a true root from a
merely small divergence: at ``(cos z, sin z, 1e-6 z)`` the first stage finds a turn by 2π, the second no root.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.numeric.jacobian import PIECE, jacobians
from identkit.numeric.laws import has_fisher
from identkit.numeric.probed import Probed
from identkit.numeric.rounding import flat_below, in_units, slopes, spread, unit

_STEPS = 40  # of the first stage; most starts need ten
_GAIN = 0.5  # the part of the divergence that a step may leave for its Jacobian to be used again
_STALE = 3  # steps in a row that gain less than a thousandth: a local minimum
_POLISH = 12  # Newton steps of the second stage
_REACH = 1.0  # the search goes beyond the range of 2048 prior draws by this multiple of that range


@dataclass(frozen=True)
class Yardstick:
    """How far apart two laws are, and the box of latents in which partners are looked for."""

    p: Probed
    scale: Float[Tensor, " k"]
    """The prior's spread of each latent."""
    low: Float[Tensor, " k"]
    high: Float[Tensor, " k"]
    nats: bool
    """Whether `apart` is the symmetrised KL; else (no closed form, no Fisher coordinates) squared parameters."""
    parameter_scale: Float[Tensor, " q"]

    @property
    def size(self) -> int:
        """The number of latents."""
        return len(self.scale)

    def distance(self, one: Float[Tensor, "*n k"], two: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
        """How far apart two latents are, in spreads of the prior."""
        return ((two - one) / self.scale).norm(dim=-1)

    def apart(self, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """How far apart two laws are; ∞ where the decoder has no law."""
        try:
            if self.nats:
                value = self.p.divergence(one, two)
            else:
                change = self.p.parameters(two) - self.p.parameters(one)
                value = (change / self.parameter_scale).square().sum(1)
        except ValueError:  # a law refuses its parameters (an overflow); find the row to blame
            if len(one) == 1:
                return two.sum(1) * 0 + torch.inf
            half = len(one) // 2
            return torch.cat([self.apart(one[:half], two[:half]), self.apart(one[half:], two[half:])])
        return torch.where(torch.isfinite(value), value, torch.inf)

    def coordinates(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n q"]:
        """Functions whose Jacobian J gives `apart` its Hessian 2JᵀJ where it vanishes."""
        return self.p.fisher_coordinates(z) if self.nats else self.p.parameters(z) / self.parameter_scale

    def inside(self, z: Float[Tensor, "n k"]) -> Bool[Tensor, " n"]:
        """Whether a latent lies in the prior's support."""
        prior = self.p.prior
        shaped = z.reshape(len(z), *prior.distribution.batch_shape, *prior.distribution.event_shape)
        support = prior.distribution.support
        assert support is not None
        held = support.check(shaped).reshape(len(z), -1).all(1)
        return held & torch.isfinite(z).all(1) & (z >= prior.low).all(1) & (z <= prior.high).all(1)


def yardstick(p: Probed, seed: int = 0) -> Yardstick:
    """Measure the prior's spread, and choose how laws are compared."""
    drawn = p.prior.sample(2048, seed)
    scale = spread(p, seed)
    bottom, top = drawn.amin(0), drawn.amax(0)
    reach = _REACH * (top - bottom)
    few = drawn[:256]
    with torch.no_grad():
        values = p.parameters(few)
        nats = has_fisher(p.law(few[:1]))
        if nats:
            try:
                p.divergence(few[:1], few[1:2])
            except NotImplementedError:
                nats = False
    parameter_scale = values.std(0)
    parameter_scale = torch.where(parameter_scale > 0, parameter_scale, torch.ones_like(parameter_scale))
    # An open end of the support, such as 0 of a Gamma prior, is no latent: stay a hair away from the ends.
    hair = 1e-6 * scale
    low = torch.maximum(bottom - reach, p.prior.low + hair)
    high = torch.minimum(top + reach, p.prior.high - hair)
    return Yardstick(p, scale, low, high, nats, parameter_scale)


def approach(
    yard: Yardstick, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"], enough: float
) -> tuple[Float[Tensor, "n k"], Float[Tensor, " n"]]:
    """Move each `two` until its law is within `enough` of the law at its `one`, or no step helps.

    Levenberg–Marquardt with the Fisher information for a Hessian (natural gradient steps), each row with its own
    damping: ``(2JᵀJ + λ) s = −∇ apart``, latents in units of the prior's spread.

    Returns:
        the moved latents and how far apart the laws are left.
    """
    two, best = two.clone(), _in_pieces(yard, one, two)
    rows, size = two.shape
    damping = torch.full((rows,), 1e-2, dtype=two.dtype, device=two.device)
    stale = torch.zeros(rows, dtype=torch.long, device=two.device)
    slope = torch.zeros_like(two)
    hessian = torch.zeros(rows, size, size, dtype=two.dtype, device=two.device)
    moved = torch.isfinite(best)  # since the slope was taken
    aged = moved.clone()  # the Hessian no longer serves
    eye = torch.eye(size, dtype=two.dtype, device=two.device)
    for _ in range(_STEPS):
        active = torch.isfinite(best) & (best > enough) & (stale < _STALE) & (damping < 1e8)
        at = torch.nonzero(active).squeeze(1)
        if not len(at):
            break
        fresh = at[aged[at]]
        hessian[fresh], aged[fresh] = _hessian(yard, two[fresh]), False
        turned = at[moved[at]]
        if len(turned):
            slope[turned] = _slope(yard, one[turned], two[turned])
        mean = hessian[at].diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(two.dtype).tiny
        shifted = hessian[at] + (damping[at] * mean).reshape(-1, 1, 1) * eye
        step = torch.linalg.solve_ex(shifted, -slope[at])[0].nan_to_num()
        # No further than a few spreads at once: beyond, neither slope nor Hessian says anything.
        step = step * (3 / step.norm(dim=1, keepdim=True).clamp(min=3))
        trial = torch.clamp(two[at] + step * yard.scale, yard.low, yard.high)
        value = _in_pieces(yard, one[at], trial)
        better = value < best[at]
        damping[at] = torch.where(better, damping[at] / 5, damping[at] * 8)
        stale[at] = torch.where(
            value < (1 - 1e-3) * best[at], 0, torch.where(better, stale[at] + 1, stale[at])
        )
        # A Jacobian costs as much as k laws: it serves for as long as its steps gain well.
        aged[at] |= better & ~(value < _GAIN * best[at])
        moved[at] = better
        two[at] = torch.where(better.unsqueeze(1), trial, two[at])
        best[at] = torch.where(better, value, best[at])
    return two, best


def _in_pieces(yard: Yardstick, one: Tensor, two: Tensor) -> Tensor:
    rows = max(1, PIECE // max(2048, len(yard.parameter_scale)))
    with torch.no_grad():
        parts = zip(one.split(rows), two.split(rows), strict=True)
        return torch.cat([yard.apart(*part) for part in parts])


def _slope(yard: Yardstick, one: Tensor, two: Tensor) -> Tensor:
    """The gradient of `apart` in its second latent, per spread of the prior."""
    slopes = []
    rows = max(1, PIECE // max(2048, len(yard.parameter_scale)))
    for first, second in zip(one.split(rows), two.split(rows), strict=True):
        leaf = second.detach().requires_grad_()
        with torch.enable_grad():
            value = yard.apart(first, leaf).sum()
            # A law of comparisons alone, such as a piecewise constant decoder, has no graph and no slope.
            gradient = torch.autograd.grad(value, leaf)[0] if value.requires_grad else torch.zeros_like(leaf)
        slopes.append(gradient.nan_to_num() * yard.scale)
    return torch.cat(slopes)


def _hessian(yard: Yardstick, two: Tensor) -> Tensor:
    """The Gauss–Newton Hessian of `apart` in its second latent, per spread of the prior."""
    hessians = [two.new_zeros(0, yard.size, yard.size)]
    rows = max(1, PIECE // (yard.size * max(512, len(yard.parameter_scale))))
    for part in two.split(rows) if len(two) else ():
        columns = jacobians(yard.coordinates, part) * yard.scale
        hessians.append(2 * (columns.mT @ columns).nan_to_num())
    return torch.cat(hessians)


@dataclass(frozen=True)
class Root:
    """Where the second stage stopped, for n pairs, everything in units of the law's rounding."""

    two: Float[Tensor, "n k"]
    residual: Float[Tensor, " n"]
    """The largest difference of a parameter; at most 1 means the same law but for rounding."""


def polish(yard: Yardstick, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"]) -> Root:
    """Solve ``parameters(z′) = parameters(z)`` for z′ by Newton's method, the shortest step where directions are flat.

    Each parameter counts in units of its own rounding, so a latent of weight 1e-9 counts as much as any other.
    """
    p = yard.p
    target, about = unit(p, one, yard.scale)
    two = two.clone()
    values, rounding = unit(p, two, yard.scale)
    residual = in_units(values - target, rounding + about)
    for _ in range(_POLISH):
        at = torch.nonzero(residual.abs().amax(1) > 0.25).squeeze(1)
        if not len(at):
            break
        units = (rounding + about)[at]
        step = shortest(slopes(p, two[at], yard.scale, units), residual[at])
        better = torch.zeros(len(at), dtype=torch.bool, device=two.device)
        for part in (1.0, 0.25):
            trial = torch.clamp(two[at] - part * step * yard.scale, yard.low, yard.high)
            new, new_rounding = unit(p, trial, yard.scale)
            change = in_units(new - target[at], new_rounding + about[at])
            accept = ~better & (change.norm(dim=1) < residual[at].norm(dim=1))
            where = at[accept]
            two[where], residual[where], rounding[where] = trial[accept], change[accept], new_rounding[accept]
            better |= accept
        if not bool(better.any()):
            break
    return Root(two, residual.abs().amax(1))


def shortest(columns: Float[Tensor, "n q k"], residual: Float[Tensor, "n q"]) -> Float[Tensor, "n k"]:
    """The shortest least-squares solution of ``columns · step = residual``, flat directions left alone."""
    left, values, right = torch.linalg.svd(columns, full_matrices=False)
    floor = torch.maximum(
        torch.full_like(values[:, :1], flat_below(columns.shape[1])),
        values[:, :1] * torch.finfo(values.dtype).eps * max(columns.shape[1:]),
    )
    inverse = torch.where(values > floor, 1 / values.clamp(min=torch.finfo(values.dtype).tiny), 0)
    return ((residual.unsqueeze(1) @ left).squeeze(1) * inverse).unsqueeze(1).matmul(right).squeeze(1)

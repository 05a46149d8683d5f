"""Populations of particles led from the prior to the posterior along ``p(u) e^{βℓ(u)}``, β from 0 to 1.

Sequential Monte Carlo (Del Moral, Doucet & Jasra 2006) with Hamiltonian moves: weigh, resample, move. Every lane (one
population for one datum) has its own temperatures, step and metric, all taken from its own particles, so that the
populations of a datum stay independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from identkit.posterior.hamiltonian import _LONGEST, Kernel, Particles, Target, metric_root, moved

_ACCEPTANCE = 0.85  # aimed at
_BISECTIONS = 40
_SMALLEST = 1e-15  # step of temperature


@dataclass(frozen=True)
class Plan:
    """How much work to do; every field a count but `ladder`."""

    moves: int
    """Hamiltonian moves on each rung."""
    final: int
    """Moves at β = 1, over which the posterior's means are taken."""
    leaps: int
    """Leapfrog steps to a move."""
    ladder: float
    """The conditional effective sample size to keep from rung to rung, as a fraction."""
    rungs: int
    """At most so many."""


@dataclass(frozen=True)
class Climb:
    """Where the lanes stand on their ladders."""

    particles: Particles
    log_weights: Float[Tensor, "s lanes"]
    """Normalised over particles."""
    log_evidence: Float[Tensor, " lanes"]
    """``log ∫ p e^{βℓ}`` so far."""
    power: Float[Tensor, " lanes"]
    """β."""
    step: Float[Tensor, " lanes"]
    rungs: Int[Tensor, " lanes"]
    mean: Float[Tensor, " lanes"]
    """The mean of ℓ on the newest rung by the weighted particles of the one before."""
    acceptance: Float[Tensor, " lanes"]
    """Of the newest moves."""


def start(particles: Particles, leaps: int) -> Climb:
    """Particles drawn from the prior, those of likelihood zero put away: the rung β → 0."""
    s, lanes = particles.prior.shape
    zero = particles.prior.new_zeros(lanes)
    alive = torch.where(particles.likelihood > -math.inf, zero, -math.inf)
    mass = alive.logsumexp(0)
    return Climb(
        particles,
        (alive - mass).nan_to_num(nan=-math.log(s), neginf=-math.inf),
        mass - math.log(s),
        zero,
        zero + _LONGEST / leaps,
        torch.zeros_like(zero, dtype=torch.int64),
        zero,
        zero + 1,
    )


def climbed(
    target: Target,
    climb: Climb,
    rows: Int[Tensor, " lanes"],
    plan: Plan,
    generator: torch.Generator,
    progress: Callable[[str], None] | None = None,
) -> tuple[Climb, Kernel]:
    """Lead every lane to β = 1, or as far as the plan's rungs reach; and the kernel of its last moves."""
    k = climb.particles.u.shape[-1]
    roots = torch.eye(k, dtype=torch.float64, device=rows.device).repeat(len(rows), 1, 1)
    active = torch.nonzero(climb.log_evidence > -math.inf)[:, 0]
    while len(active):
        part, kernel = rung(target, _lanes(climb, active), rows[active], plan, generator)
        climb = _merged(climb, active, part)
        roots = roots.index_copy(0, active, kernel.root)
        going = (climb.power < 1) & (climb.rungs < plan.rungs) & (climb.log_evidence > -math.inf)
        active = torch.nonzero(going)[:, 0]
        if progress is not None:
            there = 1 - len(active) / len(rows)
            progress(f"annealing at temperature {int(climb.rungs.max())}, {there:.0%} have arrived")
    return climb, Kernel(climb.power, roots, climb.step, plan.leaps)


def rung(
    target: Target, climb: Climb, rows: Int[Tensor, " lanes"], plan: Plan, generator: torch.Generator
) -> tuple[Climb, Kernel]:
    """One rung up: choose β by the conditional effective sample size, weigh, resample, move."""
    particles = climb.particles
    power = next_power(climb, plan.ladder)
    weighed = weigh(climb, power)
    weights = weighed.log_weights.exp()
    slope = torch.where(weights[:, :, None] > 0, particles.slope(power), 0.0)
    kernel = Kernel(power, metric_root(particles.u, slope, weights), climb.step, plan.leaps)
    ess = 1 / weights.square().sum(0)
    poor = (ess < len(weights) / 2) | (power >= 1)
    ancestors = torch.where(
        poor, systematic(weights, generator), torch.arange(len(weights), device=rows.device)[:, None]
    )
    level = torch.where(poor, -math.log(len(weights)), weighed.log_weights)
    particles = particles.resampled(ancestors)
    for _ in range(plan.moves):
        particles, chance = moved(target, particles, rows, kernel, generator)
        acceptance = (level.exp() * chance).sum(0)
        kernel = replace(kernel, step=adapted(kernel, acceptance))
    return replace(
        weighed, particles=particles, log_weights=level, step=kernel.step, acceptance=acceptance
    ), kernel


def adapted(kernel: Kernel, acceptance: Float[Tensor, " lanes"]) -> Float[Tensor, " lanes"]:
    """A longer step where more moves were accepted than need be, a shorter one where fewer."""
    return (kernel.step * torch.exp(acceptance - _ACCEPTANCE)).clamp(max=_LONGEST / kernel.leaps)


def next_power(climb: Climb, ladder: float) -> Float[Tensor, " lanes"]:
    """The largest β at which the conditional effective sample size keeps its fraction.

    ``CESS/s = (Σ W w)² / Σ W w²``, ``w = e^{δℓ}`` (Zhou, Johansen & Aston 2016): unlike the plain one it does not count
    what earlier rungs did to the weights.
    """
    likelihood, level = climb.particles.likelihood, climb.log_weights
    shown = torch.where(level > -math.inf, likelihood, 0.0)

    def keeps(delta: Tensor) -> Tensor:
        once, twice = ((level + factor * delta * shown).logsumexp(0) for factor in (1, 2))
        return 2 * once - twice >= math.log(ladder)

    rest = 1 - climb.power
    high = torch.log(rest)
    low = torch.full_like(high, math.log(_SMALLEST))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        good = keeps(middle.exp())
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return torch.where(keeps(rest), 1.0, (climb.power + low.exp()).clamp(max=1.0))


def weigh(climb: Climb, power: Float[Tensor, " lanes"]) -> Climb:
    """The same particles with the weights that β asks for."""
    likelihood, level = climb.particles.likelihood, climb.log_weights
    shown = torch.where(level > -math.inf, likelihood, 0.0)
    gain = (power - climb.power) * shown
    ratio = (level + gain).logsumexp(0)
    level = level + gain - ratio
    mean = (level.exp() * shown).sum(0)
    return replace(
        climb,
        log_weights=level,
        log_evidence=climb.log_evidence + ratio,
        power=power,
        rungs=climb.rungs + 1,
        mean=mean,
    )


def systematic(weights: Float[Tensor, "s lanes"], generator: torch.Generator) -> Int[Tensor, "s lanes"]:
    """Ancestors of s children: one draw for each lane, the others at equal distances from it."""
    s, lanes = weights.shape
    first = torch.rand(lanes, 1, generator=generator, dtype=torch.float64, device=weights.device)
    places = (torch.arange(s, device=weights.device) + first) / s
    sums = weights.T.cumsum(1)
    return torch.searchsorted(sums / sums[:, -1:], places).clamp(max=s - 1).T


def reached(climb: Climb) -> Bool[Tensor, " lanes"]:
    """Which lanes stand at β = 1."""
    return (climb.power >= 1) & (climb.log_evidence > -math.inf)


def _lanes(climb: Climb, chosen: Tensor) -> Climb:
    tables = {name: value[..., chosen] for name, value in vars(climb).items() if name != "particles"}
    return Climb(particles=climb.particles.lanes(chosen), **tables)


def _merged(climb: Climb, chosen: Tensor, part: Climb) -> Climb:
    tables = {
        name: value.index_copy(value.ndim - 1, chosen, getattr(part, name))
        for name, value in vars(climb).items()
        if name != "particles"
    }
    return Climb(particles=climb.particles.merged(chosen, part.particles), **tables)

"""The true posterior's divergence from the prior with many continuous latents, by annealing, with an honest error.

Where quadrature ends (three latents), populations of particles are led from the prior to the posterior
(`tempering`). Nothing certifies a single run of such an algorithm; so several independent populations are led, the
error is read off their spread, and what they cannot agree on is said not to have converged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributions as td
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.posterior.conditional import conditional_information
from identkit.posterior.hamiltonian import Kernel, LogLikelihood, Particles, Target, box, moved
from identkit.posterior.tempering import Climb, Plan, adapted, climbed, reached, start
from identkit.posterior.unbounded import unbounded

_LEAST_ERROR = 1e-12
_DISAGREE = 1.0  # standard deviation of log p(x) between populations, nats
_ACCEPTED = 0.4
_DRAWS = 100.0  # effective, of the posterior
_MIXED = 1.1  # R̂


@dataclass(frozen=True, kw_only=True)
class Annealed:
    """What annealing found about each datum's posterior, in nats; every ``…_error`` is a *standard* error."""

    log_evidence: Float[Tensor, " n"]
    """log p(x)."""
    log_evidence_error: Float[Tensor, " n"]
    kl: Float[Tensor, " n"]
    """KL(p(z | x) ‖ p(z)) of all latents together."""
    kl_error: Float[Tensor, " n"]
    kl_conditional: Float[Tensor, "n k"]
    """E_Q KL(p(z_j | z_−j, x) ‖ p(z_j | z_−j)): zero iff ℓ ignores z_j (theory/T3). NaN where it was not asked for, or
    the prior's latents are dependent and not Gaussian."""
    kl_conditional_error: Float[Tensor, "n k"]
    effective_draws: Float[Tensor, " n"]
    """How many independent posterior draws would disagree as much as the populations do."""
    acceptance: Float[Tensor, " n"]
    """Of the Hamiltonian moves at the posterior, in the worst population."""
    mixing: Float[Tensor, " n"]
    """The largest split R̂ of ℓ and of each latent's first two moments between populations; 1 is perfect."""
    reasons: tuple[tuple[str, ...], ...]
    """For each datum, why its numbers should not be believed; empty where they may be."""
    samples: Float[Tensor, "draws n k"]
    """Posterior draws of z, the populations one after the other."""
    weights: Float[Tensor, "draws n"]
    """Their weights, which sum to one for each datum."""
    populations: int
    """Independent populations R; the errors have R − 1 degrees of freedom."""
    evaluations: int
    """How often ℓ and its slope were evaluated, over all data."""

    @property
    def converged(self) -> Bool[Tensor, " n"]:
        """Which data's numbers may be believed."""
        return torch.tensor([not reasons for reasons in self.reasons], device=self.kl.device)

    @property
    def mean(self) -> Float[Tensor, "n k"]:
        """The posterior means."""
        return (self.weights[:, :, None] * self.samples).sum(0)

    @property
    def sd(self) -> Float[Tensor, "n k"]:
        """The posterior standard deviations."""
        return (self.weights[:, :, None] * (self.samples - self.mean).square()).sum(0).sqrt()

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the standard errors, for Student's t."""
        return self.populations - 1


def annealed(
    prior: td.Distribution,
    log_likelihood: LogLikelihood,
    n: int,
    *,
    seed: int = 0,
    particles: int | None = None,
    populations: int = 8,
    ladder: float = 0.7,
    moves: int = 2,
    final: int = 8,
    leaps: int = 5,
    rungs: int = 1000,
    lines: int = 32,
    rows_at_once: int = 1 << 15,
    progress: Callable[[str], None] | None = None,
) -> Annealed:
    """Estimate log p(x) and ``KL(p(z | x) ‖ p(z)) = E_Q ℓ − log p(x)`` of each datum, for up to some 64 latents.

    Sequential Monte Carlo from the prior to the posterior along ``p(z) e^{βℓ(z)}`` with adaptive temperatures and
    Hamiltonian moves, R independent populations of it for each datum. The evidence is that of the populations
    together; the standard errors are the jackknife over them. A datum has *not converged* when its populations disagree
    about log p(x), about the posterior's moments (split R̂), when moves are refused, or too few effective draws are
    left; an isolated needle that no population has met goes unnoticed, as with every sampler.

    Sources: Neal 2001, Annealed importance sampling; Del Moral, Doucet & Jasra 2006, Sequential Monte Carlo samplers;
    theory.md, "Algorithms of the numeric checker".

    Args:
        prior: a continuous distribution of one datum's latents; batch axes are independent latents.
        log_likelihood: rows (m,) and z (m, k) → (m,): ``log p(x[row] | z)`` in nats, −∞ allowed, differentiable in z.
            It is the interface of `quadrature.integrate`.
        n: number of data.
        seed: of all randomness; torch's own state of chance is left as it was.
        particles: in each population; by default the larger of 128 and 4k.
        populations: independent repeats R, at least 4.
        ladder: conditional effective sample size kept from one temperature to the next, as a fraction.
        moves: Hamiltonian moves at each temperature. final: at the posterior. leaps: leapfrog steps to a move.
        rungs: temperatures at most.
        lines: posterior draws of each datum through which `kl_conditional` is integrated, a multiple of `populations`;
            0 leaves it out. Informations at single draws are as skewed as χ²₁, so that errors from fewer than four draws
            to a population are rough for a single datum and latent.
        rows_at_once: rows with which `log_likelihood` is called, at most.
        progress: called with words on how far the populations are, at every temperature.

    Raises:
        ValueError: a discrete prior, NaN or +∞ as ℓ, a wrong shape, no gradient, a count out of range.

    >>> x = torch.tensor([0.5, 2.0], dtype=torch.float64)
    >>> found = annealed(td.Normal(torch.zeros(1), 1.0),
    ...                  lambda rows, z: td.Normal(0, 1).log_prob(x[rows] - z[:, 0]), 2)
    >>> bool(found.converged.all()), bool(((found.kl - torch.tensor([0.1278, 0.5966])).abs() < 0.05).all())
    (True, True)
    """
    place = unbounded(prior)
    particles = max(128, 4 * place.size) if particles is None else particles
    _counts(
        n=n, particles=particles, populations=populations, moves=moves, final=final, leaps=leaps, rungs=rungs
    )
    if lines % populations or not 0 <= lines <= populations * particles:
        raise ValueError(f"lines should be a multiple of the {populations} populations, got {lines}")
    if not 0 < ladder < 1:
        raise ValueError(f"ladder should lie between 0 and 1, got {ladder}")
    counted = [0]

    def centred(rows: Tensor, z: Tensor) -> Tensor:
        counted[0] += len(rows)
        values = log_likelihood(rows, z)
        if values.shape != rows.shape:
            raise ValueError(
                f"log_likelihood should return one number for each of its {len(rows)} rows, "
                f"got shape {tuple(values.shape)}"
            )
        return values - centre[rows]

    centre = torch.zeros(n, dtype=torch.float64, device=place.device)
    generator = torch.Generator(place.device).manual_seed(seed)
    rows = torch.arange(n, device=place.device).repeat(populations)
    u = place.coordinates(place.sample(particles * len(rows), seed)).reshape(particles, len(rows), place.size)
    target = Target(place, centred, *box(u), rows_at_once)
    first = target.particles(u, rows)
    # ℓ counts from its prior mean: where it is flat, what is left is flat as well, without rounding.
    centre, first = _centred(first, n)
    plan = Plan(moves, final, leaps, ladder, rungs)
    climb, kernel = climbed(target, start(first, leaps), rows, plan, generator, progress)
    last, pieces, acceptance = _dwell(target, climb, rows, kernel, plan, generator)
    # Each datum's populations count by their evidence; one that failed does not count.
    height, share = _pooled(climb, pieces, populations, n)
    z = place.latents(last.u.reshape(-1, place.size)).reshape(particles, populations, n, place.size).detach()
    conditional, conditional_error = torch.full((2, n, place.size), math.nan, device=z.device, dtype=z.dtype)
    if lines and (place.independent or place.gaussian is not None):
        chosen = torch.randperm(particles, generator=generator, device=place.device)[: lines // populations]
        along = conditional_information(place, centred, z[chosen].reshape(-1, n, place.size), seed + 1)
        by_latent, slack = (table.reshape(len(chosen), populations, n, -1).mean(0) for table in along)
        conditional, sampling = _jackknifed(lambda keep: _mean(share[keep], by_latent[keep]), populations)
        conditional_error = torch.hypot(sampling, _mean(share, slack))
    kl, kl_error = _jackknifed(
        lambda keep: _mean(share[keep], height[keep]) - _evidence(share[keep]), populations
    )
    found, found_error = _jackknifed(lambda keep: _evidence(share[keep]), populations)
    health = _health(share, pieces, acceptance, particles)
    return Annealed(
        log_evidence=centre + found,
        log_evidence_error=found_error,
        kl=kl,
        kl_error=kl_error,
        kl_conditional=conditional,
        kl_conditional_error=conditional_error,
        effective_draws=health.effective,
        acceptance=health.acceptance,
        mixing=health.mixing,
        reasons=tuple(_reasons(health, kl, i) for i in range(n)),
        samples=z.transpose(0, 1).reshape(-1, n, place.size),
        weights=(share.softmax(0) / particles).repeat_interleave(particles, dim=0),
        populations=populations,
        evaluations=counted[0],
    )


def _counts(**counts: int) -> None:
    least = {"n": 1, "particles": 16, "populations": 4, "moves": 1, "final": 2, "leaps": 1, "rungs": 1}
    for name, value in counts.items():
        if value < least[name]:
            raise ValueError(f"{name} should be at least {least[name]}, got {value}")


def _centred(first: Particles, n: int) -> tuple[Tensor, Particles]:
    """The mean of the finite ℓ over all particles of a datum, and ℓ without it."""
    values = first.likelihood.reshape(len(first.likelihood), -1, n)
    finite = values > -math.inf
    centre = torch.where(finite, values, 0.0).sum((0, 1)) / finite.sum((0, 1)).clamp(min=1)
    # A flat ℓ should give exactly its own value, which a mean may miss in the last digit.
    one = torch.where(finite, values, -math.inf).amax((0, 1))
    flat = torch.where(finite, values, one).amin((0, 1)) == one
    centre = torch.where(flat, one, centre).nan_to_num(0.0, 0.0, 0.0)
    shifted = first.likelihood - centre.repeat(values.shape[1])
    return centre, Particles(**{**vars(first), "likelihood": shifted})


def _dwell(
    target: Target, climb: Climb, rows: Tensor, kernel: Kernel, plan: Plan, generator: torch.Generator
) -> tuple[Particles, Tensor, Tensor]:
    """Move on at the posterior: the last particles; of each half the means (2, lanes, 1 + 2k) and variances; acceptance.

    The statistics are ℓ, each coordinate and its square.
    """
    now, halves, chances = climb.particles, [], []
    for block in (plan.final // 2, plan.final - plan.final // 2):
        tables = []
        for _ in range(block):
            now, chance = moved(target, now, rows, kernel, generator)
            acceptance = chance.mean(0)
            kernel = Kernel(kernel.power, kernel.root, adapted(kernel, acceptance), kernel.leaps)
            chances.append(acceptance)
            tables.append(_statistics(now))
        stacked = torch.cat(tables)
        halves.append(torch.stack([stacked.mean(0), stacked.var(0)]))
    return now, torch.stack(halves), torch.stack(chances).mean(0)


def _statistics(now: Particles) -> Tensor:
    return torch.cat([now.likelihood[:, :, None], now.u, now.u.square()], dim=2)


def _pooled(climb: Climb, pieces: Tensor, populations: int, n: int) -> tuple[Tensor, Tensor]:
    """E_Q ℓ and log p(x), −∞ for a population that failed, (R, n) each.

    Where a single rung led from prior to posterior, both are taken from the same draws: their errors cancel in the
    difference, and a posterior close to the prior has a KL with a small *relative* error.
    """
    height = torch.where(climb.rungs == 1, climb.mean, pieces[:, 0, :, 0].mean(0))
    share = torch.where(reached(climb) & torch.isfinite(height), climb.log_evidence, -math.inf)
    return height.nan_to_num().reshape(populations, n), share.reshape(populations, n)


def _mean(share: Float[Tensor, "r n"], values: Float[Tensor, "r n *rest"]) -> Tensor:
    """``Σ_r Z_r v_r / Σ_r Z_r``."""
    weights = share.softmax(0)
    return (weights.reshape(*weights.shape, *[1] * (values.ndim - 2)) * values).sum(0)


def _evidence(share: Float[Tensor, "r n"]) -> Float[Tensor, " n"]:
    """``log mean_r Z_r``."""
    return share.logsumexp(0) - math.log(len(share))


def _jackknifed(estimate: Callable[[Tensor], Tensor], populations: int) -> tuple[Tensor, Tensor]:
    """A function of all populations, and its standard error from leaving each of them out once."""
    everyone = torch.arange(populations)
    without = torch.stack([estimate(everyone[everyone != r]) for r in range(populations)])
    spread = (without - without.mean(0)).square().sum(0) * (populations - 1) / populations
    return estimate(everyone), spread.sqrt().clamp(min=_LEAST_ERROR)


@dataclass(frozen=True)
class _Health:
    """What tells whether the populations of each datum may be believed."""

    arrived: Bool[Tensor, " n"]
    disagreement: Float[Tensor, " n"]
    acceptance: Float[Tensor, " n"]
    effective: Float[Tensor, " n"]
    mixing: Float[Tensor, " n"]


def _health(share: Tensor, pieces: Tensor, acceptance: Tensor, draws: int) -> _Health:
    """Compare the populations.

    With B the variance of means between populations and W that within, a mean over R populations has variance B/R, as
    R·W/B independent draws would have; R̂ = √(1 + B/W), here between halves of populations (Vehtari et al. 2021,
    Rank-normalization, folding, and localization).
    """
    populations, n = share.shape
    means, variances = pieces.reshape(2, 2, populations, n, -1).unbind(1)
    within = variances.mean((0, 1))
    still = within <= 1e-24 * (1 + means.square().mean((0, 1)))
    scale = torch.where(still, 1.0, within)
    between = torch.where(still, 0.0, means.mean(0).var(0) / scale).mean(1)
    halves = torch.where(still, 0.0, means.reshape(2 * populations, n, -1).var(0) / scale)
    return _Health(
        (share > -math.inf).all(0),
        share.std(0),
        acceptance.reshape(populations, n).amin(0),
        populations / between.clamp(min=1 / draws),  # no more than there are
        (1 + halves.amax(1)).sqrt(),
    )


def _reasons(health: _Health, kl: Tensor, i: int) -> tuple[str, ...]:
    """In words, why datum i's numbers should not be believed."""
    if not bool(health.arrived[i]) or not math.isfinite(float(kl[i])):
        return ("a population did not reach the posterior within its rungs",)
    apart, accepted, effective, mixing = (
        float(table[i]) for table in (health.disagreement, health.acceptance, health.effective, health.mixing)
    )
    tests = (
        (apart > _DISAGREE, f"populations disagree about log p(x) by {apart:.2g} nats"),
        (accepted < _ACCEPTED, f"only {accepted:.0%} of the moves at the posterior were accepted"),
        (effective < _DRAWS, f"only {effective:.0f} effective posterior draws"),
        (mixing > _MIXED, f"populations disagree about the posterior's moments (R̂ = {mixing:.2f})"),
    )
    return tuple(words for failed, words in tests if failed)

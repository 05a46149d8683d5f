"""Two-sided bounds of the average information I(z; x), on data simulated from the model: from below and from above."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributions as td
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor

from identkit.posterior.hamiltonian import Kernel, Particles, Target, box, moved
from identkit.posterior.tempering import Plan, rung, start
from identkit.posterior.unbounded import unbounded


@dataclass(frozen=True, kw_only=True)
class AverageInformation:
    """An interval for ``I(z; x) = E_x KL(p(z | x) ‖ p(z))`` under the model, nats."""

    low: float
    high: float
    level: float
    """Probability with which the interval holds I, as far as means of `n` data are normal."""
    below: Float[Tensor, " n"]
    """``log p(x | z*)`` less an upper bound of log p(x), datum by datum: at most I on average."""
    above: Float[Tensor, " n"]
    """``log p(x | z*)`` less a lower bound of log p(x): at least I on average."""

    @property
    def slack(self) -> float:
        """How far apart the two means are, nats: what annealing did not resolve, on either side."""
        return float((self.above - self.below).mean())


def average_information(
    prior: td.Distribution,
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    simulate: Callable[[Tensor], Tensor],
    *,
    n: int = 128,
    seed: int = 0,
    particles: int = 64,
    ladder: float = 0.7,
    moves: int = 1,
    leaps: int = 5,
    rungs: int = 1000,
    level: float = 0.99,
    rows_at_once: int = 1 << 15,
) -> AverageInformation:
    """Bound the average information from both sides by bidirectional Monte Carlo.

    A latent z* from the prior and data x simulated from it are a draw of the model, so z* is an *exact* posterior draw.
    Sequential Monte Carlo estimates p(x) without bias, so on average its logarithm is too small. Conditional sequential
    Monte Carlo, one of whose particles is led back from z* to the prior by the reversed kernels, has ``E 1/p̂ = 1/p(x)``,
    so its logarithm is too large on average. With ``I = E[log p(x | z*) − log p(x)]`` that is a bound on either side,
    whatever the kernels do; bad ones only drive the two apart. Temperatures, metrics and steps come from a pilot run
    that is thrown away, since adapting to the same particles would cost the exactness.

    Source: Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo;
    Andrieu, Doucet & Holenstein 2010 (conditional sequential Monte Carlo).

    Args:
        prior: as in `annealed`.
        log_likelihood: x (m, …) and z (m, k) → ``log p(x | z)`` row by row, (m,), nats, finite, differentiable in z.
        simulate: z (n, k) → one datum x for each, (n, …); it may use torch's state of chance, which is put back.
        n: data to simulate. particles: of each run. level: of the interval, by Student's t over the data.
        seed, ladder, moves, leaps, rungs, rows_at_once: as in `annealed`.

    Raises:
        ValueError: as `annealed`, and where the pilot run does not reach the posterior.
    """
    if not 0 < level < 1:
        raise ValueError(f"level should lie between 0 and 1, got {level}")
    for name, value, least in (
        ("n", n, 2),
        ("particles", particles, 16),
        ("moves", moves, 1),
        ("leaps", leaps, 1),
    ):
        if value < least:
            raise ValueError(f"{name} should be at least {least}, got {value}")
    place = unbounded(prior)
    with torch.random.fork_rng():
        z = place.sample(n, seed)
        torch.manual_seed(seed + 1)
        x = simulate(z).detach()
    if len(x) != n:
        raise ValueError(f"simulate should return one datum for each of {n} latents, got {len(x)}")
    generator = torch.Generator(place.device).manual_seed(seed)
    rows = torch.arange(n, device=place.device)
    drawn = place.coordinates(place.sample(3 * particles * n, seed + 2)).reshape(3, particles, n, place.size)
    target = Target(
        place, lambda each, at: log_likelihood(x[each], at), *box(drawn.flatten(0, 1)), rows_at_once
    )
    pilot, forward, backward = (target.particles(u, rows) for u in drawn)
    exact = target.particles(place.coordinates(z)[None], rows)
    kernels = _ladder(target, pilot, rows, Plan(moves, 2, leaps, ladder, rungs), generator)
    truth = exact.likelihood[0]
    above = truth - _evidence(target, forward, rows, kernels, moves, generator)
    path = _led_back(target, exact, rows, kernels, moves, generator)
    below = truth - _evidence(target, backward, rows, kernels, moves, generator, path)
    half = float(student.ppf((1 + level) / 2, n - 1)) / math.sqrt(n)
    return AverageInformation(
        low=max(0.0, float(below.mean() - half * below.std())),
        high=float(above.mean() + half * above.std()),
        level=level,
        below=below,
        above=above,
    )


def _ladder(
    target: Target, pilot: Particles, rows: Tensor, plan: Plan, generator: torch.Generator
) -> list[Kernel]:
    """A kernel for each rung, all lanes side by side; a lane that has arrived stays at β = 1."""
    climb, kernels = start(pilot, plan.leaps), []
    while bool((climb.power < 1).any()):
        if len(kernels) >= plan.rungs or not bool((climb.log_evidence > -math.inf).all()):
            raise ValueError("the pilot run did not reach the posterior: give more rungs or particles")
        climb, kernel = rung(target, climb, rows, plan, generator)
        kernels.append(kernel)
    return kernels


def _led_back(
    target: Target,
    exact: Particles,
    rows: Tensor,
    kernels: list[Kernel],
    moves: int,
    generator: torch.Generator,
) -> list[Particles]:
    """Where the exact draw stood before each rung, the prior first: a reversible kernel is its own reverse."""
    now, path = exact, []
    for kernel in reversed(kernels):
        for _ in range(moves):
            now, _ = moved(target, now, rows, kernel, generator)
        path.append(now)
    return [*path[::-1], exact]


def _evidence(
    target: Target,
    now: Particles,
    rows: Tensor,
    kernels: list[Kernel],
    moves: int,
    generator: torch.Generator,
    path: list[Particles] | None = None,
) -> Float[Tensor, " n"]:
    """``log p̂(x)`` by sequential Monte Carlo, multinomial resampling on every rung; the first particle on `path`."""
    power, total = torch.zeros_like(kernels[0].power), torch.zeros_like(kernels[0].power)
    if path is not None:
        now = _pinned(now, path[0])
    for step, kernel in enumerate(kernels):
        gain = (kernel.power - power) * now.likelihood
        total, power = total + gain.logsumexp(0) - math.log(len(gain)), kernel.power
        ancestors = torch.multinomial(gain.softmax(0).T, len(gain), True, generator=generator).T
        now = now.resampled(ancestors)
        for _ in range(moves):
            now, _ = moved(target, now, rows, kernel, generator)
        if path is not None:
            now = _pinned(now, path[step + 1])
    return total


def _pinned(now: Particles, exact: Particles) -> Particles:
    return Particles(
        **{name: torch.cat([getattr(exact, name), value[1:]]) for name, value in vars(now).items()}
    )

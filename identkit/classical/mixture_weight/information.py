"""What n rows say of a mixing weight on average, ``I(α; x) = E KL(p(α | x) ‖ p(α))``: by quadrature, or by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.special import betaincinv
from torch import Tensor
from torch.distributions import Normal

from identkit.classical.gaussian_mixture.ratio import Gaussians, ratio_by_difference
from identkit.classical.mixture_weight.posterior import RelativeLikelihood, prior_grid
from identkit.classical.mixtures.information import integrated
from identkit.model.protocol import Estimate
from identkit.posterior.stable import kl_integrand

_SDS = 12.0
"""Beyond so many standard deviations a normal law has less mass than a double resolves."""
_CHUNK = 2_000_000


def gaussians(*normals: Normal) -> Gaussians:
    """Give normal laws as the components of a Gaussian mixture."""
    means, scales = (torch.stack([getattr(n, field) for n in normals])[:, None] for field in ("loc", "scale"))
    # sd² − sd_0² as a product: squares of nearly equal scales would lose their difference.
    excess = (scales - scales[0]) * (scales + scales[0])
    return Gaussians(means, scales.square()[..., None], scales[..., None], excess[..., None])


def draw(
    components: tuple[Any, Any], first: Bool[Tensor, " n"], generator: torch.Generator | None
) -> Float[Tensor, "n 1"]:
    """Draw rows, from the first component where it says so, else from the second."""
    # Distributions draw from torch's global generator: lend it a seed of ours and give it back untouched.
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draws = [component.sample((len(first),)).to(torch.float64) for component in components]
    return torch.where(first, *draws)[:, None]


def simulated(
    components: tuple[Any, Any],
    shapes: tuple[float, float],
    kl_to_prior: Callable[[Tensor], Tensor],
    n: int,
    samples: int,
    generator: torch.Generator,
) -> Estimate:
    """Average the KL over drawn data sets, half of which begin with a row of the first component.

    ``I = m E[KL | x_1 ~ f_1] + (1 − m) E[KL | x_1 ~ f_2]``, α then being ``Beta(a + 1, b)`` or ``Beta(a, b + 1)``: so
    that a component whose weight is 1e-9 on average is not missed, and the standard error with it.
    """
    a, b = shapes
    value = error = 0.0
    for is_first, share in ((True, a / (a + b)), (False, b / (a + b))):
        kls = []
        for uniform in torch.rand(samples // 2, dtype=torch.float64, generator=generator).tolist():
            alpha = float(betaincinv(a + is_first, b + (not is_first), uniform))
            first = torch.rand(n, dtype=torch.float64, generator=generator) < alpha
            first[0] = is_first
            kls.append(kl_to_prior(draw(components, first, generator)))
        kl = torch.cat(kls)
        value += share * float(kl.mean())
        error += share**2 * float(kl.var()) / len(kl)
    return Estimate(value=value, error=math.sqrt(error) + 1e-12 * value, method="Monte Carlo")


def of_one_row(one: Normal, two: Normal, a: float, b: float) -> Estimate:
    """Integrate ``p(x) KL(x)`` of one row and normal components, over x and over α.

    The posterior's density ratio is linear in α, ``1 + c(x)(α − m)`` with the prior's mean m: one grid of logit α
    serves every x.
    """
    # Seen from one of them, components far from 0 keep their digits.
    one, two = Normal(one.loc - two.loc, one.scale), Normal(torch.zeros_like(two.loc), two.scale)
    steps = torch.linspace(-_SDS, _SDS, 13, dtype=torch.float64)
    edges = torch.cat([law.loc + law.scale * steps for law in (one, two)]).unique()
    offset, mass = prior_grid(a, b)
    fine, coarse = (
        integrated(
            _OneRow(one, two, a, b, offset[::every], mass[::every] / mass[::every].sum()),
            edges,
            lambda t: (t, torch.zeros_like(t)),
        )
        for every in (1, 2)
    )
    return Estimate(
        value=fine.value, error=fine.error + abs(fine.value - coarse.value) + 1e-300, method="quadrature"
    )


@dataclass(frozen=True, eq=False)
class _OneRow:
    """Evidence and KL of single rows, (n, 1) → (n,), with a discrete prior on a grid in logit α."""

    one: Normal
    two: Normal
    a: float
    b: float
    offset: Tensor
    mass: Tensor

    def log_evidence(self, x: Tensor) -> Tensor:
        whole = math.log(self.a + self.b)
        logs = (
            self.one.log_prob(x) + (math.log(self.a) - whole),
            self.two.log_prob(x) + (math.log(self.b) - whole),
        )
        return torch.logaddexp(*logs)[:, 0]

    def kl_to_prior(self, x: Tensor) -> Tensor:
        ratio = ratio_by_difference(gaussians(self.two, self.one), x)[0][:, 1]
        likelihood = RelativeLikelihood(ratio, math.log(self.a / self.b))
        distance = likelihood.distance(self.offset)
        size = max(1, _CHUNK // len(distance))
        parts = [
            kl_integrand(torch.log1p((slopes[:, None] * distance).clamp(min=-1.0))) @ self.mass
            for slopes in likelihood.slopes.split(size)
        ]
        return torch.cat(parts)

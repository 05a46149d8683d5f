"""Expectation–maximisation of two normal components whose mixing weight is integrated out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from identkit.classical.arrays import positive, refuse_still
from identkit.classical.em import Convergence, maximise
from identkit.classical.mixture_weight.posterior import MixtureWeightPosterior
from identkit.classical.mixtures.fit import seeded_masses

Normals = list[tuple[float, float]]
"""Mean and standard deviation of each component."""

_CHUNK = 2_000_000


def climb(
    x: Float[Tensor, "n 1"],
    made: Callable[[Normals], Any],
    start: Sequence[Any] | None,
    restarts: int,
    generator: torch.Generator | None,
    tolerance: float,
    iterations: int,
    floor: float,
) -> tuple[Normals, Convergence]:
    """Climb the evidence of the whole data set; the labels and the weight are what is missing.

    E-step: ``r_i = E[α f_1(x_i)/(α f_1(x_i) + (1 − α) f_2(x_i)) | x]`` under the exact posterior of α. M-step: means
    and variances weighted by r and 1 − r, the latter kept above their floor.

    Args:
        x: the data set.
        made: gives the model of two components.
        start: normal laws, or None for random starts.
        restarts: number of random starts.
        generator: for them; None for seed 0.
        tolerance: as `identkit.classical.em.maximise`, in nats of all data.
        iterations: as `identkit.classical.em.maximise`.
        floor: of the variances, a share of the variance of x.

    Raises:
        ValueError: too few rows, rows that are all the same, a start of other laws.
    """
    if len(x) < 2:
        raise ValueError(f"x should have at least two rows, got {len(x)}")
    refuse_still(x)
    least = positive(floor, "floor") * float(x.var(correction=0))

    def maximised(mass: Tensor) -> Normals:
        found = []
        for share in mass.T:
            mean = (share @ x[:, 0] / share.sum()).item()
            variance = (share @ (x[:, 0] - mean).square() / share.sum()).item()
            found.append((mean, max(variance, least) ** 0.5))
        return found

    def step(normals: Normals) -> tuple[Normals, float]:
        model = made(normals)
        posterior = model.posterior(x)
        first = _labels(posterior)
        return maximised(torch.stack([first, 1 - first], 1)), model.log_evidence(x).item()

    if start is None:
        starts = [maximised(mass) for mass in seeded_masses(x, 2, restarts, generator)]
    else:
        others = [law for law in start if type(law) is not Normal]
        if others:
            raise ValueError(f"start should have normal components, got {others[0]!r:.80}")
        starts = [[(law.loc.item(), max(law.scale.item(), least**0.5)) for law in start]]
    return maximise(starts, step, tolerance, iterations)


def _labels(posterior: MixtureWeightPosterior) -> Float[Tensor, " n"]:
    """The probability that each row comes from the first component."""
    size = max(1, _CHUNK // len(posterior.theta))
    parts = posterior.likelihood.ratios.split(size)
    return torch.cat([torch.sigmoid(part[:, None] + posterior.theta) @ posterior.mass for part in parts])

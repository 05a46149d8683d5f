"""The Gaussian mixture: which component a datum came from, with its responsibilities in log space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import refuse_overflow, refuse_still, rows, shaped
from identkit.classical.em import Convergence, maximise
from identkit.classical.gaussian_mixture.covariances import (
    Parameters,
    as_full,
    check_covariance_type,
    refuse_covariances,
    shape_of,
)
from identkit.classical.gaussian_mixture.em import Climb
from identkit.classical.gaussian_mixture.ratio import Gaussians, ratio_by_difference, ratio_by_segment
from identkit.classical.gaussian_mixture.whitening import Heights, Whitening, close_enough
from identkit.classical.mixtures.finite import FiniteMixture, probabilities
from identkit.classical.mixtures.fit import seeded_masses
from identkit.classical.mixtures.information import integrated
from identkit.model import families
from identkit.model.compiled.data import whole
from identkit.model.model import Model
from identkit.model.protocol import Estimate

_INFORMATIVE = 2.0**-6
"""From this KL on, in nats, Σ r log(r/π) loses no digits that matter."""
_SDS = 12.0
"""Beyond so many standard deviations a normal law has less mass than a double resolves."""


@dataclass(frozen=True, eq=False, init=False, repr=False)
class GaussianMixture(FiniteMixture):
    """A mixture of K normal laws whose latent is the component of each datum.

    ``k ~ Categorical(π), x | k ~ N(μ_k, C_k)``; the responsibilities ``r_k ∝ π_k N(x; μ_k, C_k)`` are the
    posterior, and ``KL(x) = Σ_k r_k log(r_k/π_k)``.

    Log densities come from one matrix product a block of rows, with a bound on their error; rows for which that bound
    is too large, or whose KL is small, are computed again from the differences of the components.

    Source: Wang, Blei & Cunningham 2021, section 2 (mixtures); `theory/T1`, `theory/T4`.

    Args:
        weights: π, shape (K,), K ≥ 2, non-negative and summing to one; nothing is normalised. A component of
            weight 0 is outside the prior's support.
        means: μ, shape (K, d).
        covariances: C, positive definite and symmetric but for rounding (the mean of the two triangles is taken);
            its shape follows `covariance_type`, as in scikit-learn.
        covariance_type: "full": (K, d, d); "tied": one matrix (d, d); "diag": variances (K, d); "spherical": one
            variance each (K,).

    Raises:
        ValueError, TypeError: a wrong shape, NaN, weights that are no probabilities, a covariance that is
            asymmetric or singular.

    >>> gmm = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    >>> gmm.posterior([[0.0], [3.0]]).probs
    tensor([[0.5000, 0.5000],
            [0.0025, 0.9975]], dtype=torch.float64)
    >>> gmm.kl_to_prior([[0.0], [3.0]])
    tensor([0.0000, 0.6758], dtype=torch.float64)
    """

    weights: Float[Tensor, " components"]
    means: Float[Tensor, "components d"]
    covariances: Float[Tensor, "*shape"]
    covariance_type: str
    convergence: Convergence | None

    def __init__(self, weights: Any, means: Any, covariances: Any, covariance_type: str = "full") -> None:
        check_covariance_type(covariance_type)
        means = shaped(means, "means", None, None)
        count, d = means.shape
        if count < 2:
            raise ValueError(f"means should have at least two components, got {count}")
        weights = probabilities(weights, count).to(means.device)
        covariances = shaped(covariances, "covariances", *shape_of(covariance_type, count, d))
        covariances = covariances.to(means.device)
        refuse_covariances(covariances, covariance_type)
        if covariance_type in ("full", "tied"):
            covariances = (covariances + covariances.mT) / 2
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", covariances)
        object.__setattr__(self, "covariance_type", covariance_type)
        object.__setattr__(self, "convergence", None)

    @classmethod
    def from_sklearn(cls, fitted: Any) -> GaussianMixture:
        """Take over a fitted ``sklearn.mixture.GaussianMixture``.

        Raises:
            ValueError: it is not fitted.
        """
        names = ("weights_", "means_", "covariances_", "covariance_type")
        missing = [name for name in names if not hasattr(fitted, name)]
        if missing:
            raise ValueError(
                f"fitted should be a fitted scikit-learn GaussianMixture, got {type(fitted).__name__} without {missing[0]}"
            )
        return cls(fitted.weights_, fitted.means_, fitted.covariances_, fitted.covariance_type)

    @classmethod
    def fit(
        cls,
        x: Any,
        components: int,
        covariance_type: str = "full",
        *,
        start: GaussianMixture | None = None,
        restarts: int = 4,
        generator: torch.Generator | None = None,
        tolerance: float = 1e-6,
        iterations: int = 1000,
        floor: float = 1e-6,
    ) -> GaussianMixture:
        """Fit by expectation–maximisation, the best of several starts; its `convergence` says how it went.

        Without a floor the likelihood is unbounded (a component can shrink onto one datum). The M-step maximises
        under ``C_k ⪰ floor·diag(variances of x)``, so the log-likelihood still never falls. A component that loses all
        its data gets weight 0 and keeps its last mean and covariance.

        Source: Dempster, Laird & Rubin 1977; starts as Arthur & Vassilvitskii 2007 (k-means++).

        Args:
            x: data (n, d).
            components: K ≥ 2, at most n.
            covariance_type: as for the class.
            start: a mixture to begin from, the only start then; its type of covariance should be `covariance_type`.
            restarts: number of random starts.
            generator: for the starts; None for seed 0.
            tolerance: stop when an iteration gains less, in nats of all data.
            iterations: at most so many from each start.
            floor: least variance in any direction, relative to the variances of x; 0 for none.

        Raises:
            ValueError: x is constant in a column, has fewer rows than components; a covariance became singular.

        >>> x = torch.tensor([[-2.1], [-1.9], [-2.0], [3.0], [3.2], [2.8]])
        >>> GaussianMixture.fit(x, 2).means.sort(0).values
        tensor([[-2.0000],
                [ 3.0000]], dtype=torch.float64)
        """
        check_covariance_type(covariance_type)
        x = shaped(x, "x", None, None)
        refuse_overflow(x)
        count, d = whole(components, "components", 2, len(x), ", the rows of x"), x.shape[1]
        if not floor >= 0:
            raise ValueError(f"floor should be at least 0, got {floor}")
        refuse_still(x)
        variances = x.var(0, correction=0)
        if start is not None and (start.covariance_type, *start.means.shape) != (covariance_type, count, d):
            raise ValueError(
                f"start should have {count} components in {d} dimensions of type {covariance_type!r}, "
                f"got {len(start.means)} in {start.means.shape[1]} of type {start.covariance_type!r}"
            )

        climb = Climb(x, covariance_type, floor * variances)
        if start is None:
            starts = [climb.begun(mass) for mass in seeded_masses(x, count, restarts, generator)]
        else:
            here = start._at(x)
            starts = [Parameters(here.weights, here.means - climb.centre, here.covariances)]
        best, convergence = maximise(starts, climb.step, tolerance, iterations)
        model = cls._of(best.weights, best.means + climb.centre, best.covariances, covariance_type)
        return model._with(convergence)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(k; x) = E KL(r ‖ π)`` in nats: by quadrature in one dimension, else by simulation.

        Returns:
            The estimate; a simulated one (65,536 draws, fixed seed) states its standard error.
        """
        if self.means.shape[1] > 1:
            return super().mutual_information()
        # Where all components are far from 0, nodes there would be rounded away from where they belong.
        means = self.means - self.means[self._support[0]]
        here = self._of(self.weights, means, self.covariances, self.covariance_type)
        sds = self._all.factors[:, 0, 0]
        steps = torch.linspace(-_SDS, _SDS, 13, dtype=torch.float64, device=sds.device)
        edges = (means + sds[:, None] * steps)[self.weights > 0].flatten().unique()
        return integrated(here, edges, lambda t: (t, torch.zeros_like(t)))

    @classmethod
    def _of(
        cls, weights: Tensor, means: Tensor, covariances: Tensor, covariance_type: str
    ) -> GaussianMixture:
        """A mixture of parameters known to be right: those of a fit."""
        model = object.__new__(cls)
        for name, value in (
            ("weights", weights),
            ("means", means),
            ("covariances", covariances),
            ("covariance_type", covariance_type),
            ("convergence", None),
        ):
            object.__setattr__(model, name, value)
        return model

    @property
    def _title(self) -> str:
        return "Gaussian mixture"

    def _rows(self, x: Any) -> Tensor:
        x = rows(x, self.means.shape[1], self.means.device)
        refuse_overflow(x)
        return x

    def _log_densities(self, x: Tensor) -> Tensor:
        return self._all.log_density(x)

    def _ratio(self, x: Tensor, lead: int = 0) -> tuple[Tensor, Tensor]:
        if lead == 0:
            return ratio_by_difference(self._supported, x)
        places = torch.arange(len(self._support), device=x.device)
        order = torch.cat([places[lead : lead + 1], places[:lead], places[lead + 1 :]])
        ratio, error = ratio_by_difference(self._gaussians(self._support[order]), x)
        back = order.argsort()
        return ratio[:, back], error[:, back]

    def _ratio_under_prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return ratio_by_segment(self._supported, x)

    def _draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        place = self.means.device if generator is None else generator.device
        n, d = len(states), self.means.shape[1]
        noise = torch.randn(n, d, dtype=torch.float64, device=place, generator=generator)
        x = self.means[states]
        for k, factor in enumerate(self._all.factors):
            own = states == k
            x[own] += noise.to(states.device)[own] @ factor.T
        return x

    def _observe(self, model: Model, k: Any) -> None:
        covariances = as_full(self.covariances, self.covariance_type, *self.means.shape)

        def choose(numbers: Tensor) -> Any:
            return families.select(k, *[families.exact(number) for number in numbers.tolist()])

        d = self.means.shape[1]
        mean = [choose(self.means[:, i]) for i in range(d)]
        if d == 1:
            sd = [sympy.sqrt(families.exact(variance)) for variance in covariances[:, 0, 0].tolist()]
            model.observe("x", families.Normal(mean[0], families.select(k, *sd)))
        else:
            covariance = [[choose(covariances[:, i, j]) for j in range(d)] for i in range(d)]
            model.observe("x", families.MvNormal(mean, covariance))

    @cached_property
    def _all(self) -> Gaussians:
        return self._gaussians(torch.arange(len(self.weights), device=self.means.device))

    @cached_property
    def _supported(self) -> Gaussians:
        return self._gaussians(self._support)

    def _gaussians(self, states: Tensor) -> Gaussians:
        covariances = as_full(self.covariances, self.covariance_type, *self.means.shape)[states]
        return Gaussians(
            means=self.means[states],
            covariances=covariances,
            factors=torch.linalg.cholesky(covariances),
            excess=covariances - covariances[0],
        )

    @cached_property
    def _silent(self) -> bool:
        """Whether the components of positive weight are all the same: then the prior comes back exactly."""
        laws = self._supported
        same = (laws.means == laws.means[0]).all() & (laws.covariances == laws.covariances[0]).all()
        return bool(same)

    @property
    def _width(self) -> int | None:
        """Where covariances are diagonal, a row and a few numbers of each component: no product is as wide as K·d."""
        count, d = self.means.shape
        return None if self.covariance_type in ("full", "tied") else min(count * d, d + 4 * count)

    def _heights(self, block: Tensor) -> tuple[Heights, Tensor]:
        """The quick road, and for which rows it will not do."""
        kept: dict[torch.dtype, Whitening] = vars(self).setdefault("_whitenings", {})
        if block.dtype not in kept:
            kept[block.dtype] = Whitening.of(self._spread_out(self._log_prior), self._all, block.dtype)
        whitening, single = kept[block.dtype], block.dtype == torch.float32
        if single and whitening.hopeless:
            heights, doubtful = self._heights(block.double())
            return Heights(*(part.to(block.dtype) for part in heights)), doubtful
        heights = whitening.heights(block)
        # Negated, so that overflow (NaN) counts as doubtful.
        doubtful = ~(heights.rounding <= close_enough(block.shape[1], block.dtype))
        if single and bool(doubtful.any()):
            # What is more than single precision can sum takes the same road in double precision.
            again, further = self._heights(block[doubtful].double())
            for whole, part in zip(heights, again, strict=True):
                whole[doubtful] = part.to(whole.dtype)
            doubtful[doubtful.clone()] = further
        return heights, doubtful

    def _log_posterior(self, block: Tensor) -> Tensor:
        if self._silent:
            return self._spread_out(self._log_prior).expand(len(block), -1)
        heights, doubtful = self._heights(block)
        logs = heights.values.sub_(heights.best)
        logs -= logs.exp().sum(1, keepdim=True).log_()
        if bool(doubtful.any()):
            slow = super()._log_posterior
            (again,) = self._by_blocks(block[doubtful], lambda rows: (slow(rows),))
            logs[doubtful] = again.to(logs.dtype)
        return logs

    def _mass_and_evidence(self, block: Tensor) -> tuple[Tensor, Tensor]:
        heights, doubtful = self._heights(block)
        mass = heights.values.sub_(heights.best).exp_()
        total = mass.sum(1, keepdim=True)
        mass /= total
        evidence = (heights.best + total.log_())[:, 0]
        if bool(doubtful.any()):
            again = self._by_blocks(block[doubtful], super()._mass_and_evidence)
            mass[doubtful], evidence[doubtful] = (part.to(mass.dtype) for part in again)
        if self._silent:
            mass[:] = self._spread_out(self._log_prior).exp()
        return mass, evidence

    def _quick_kl(self, block: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """KLs by ``Σ r log(r/π)``, a bound on the error of ℓ, and for which rows that will not do."""
        heights, doubtful = self._heights(block)
        logs = heights.values.sub_(heights.best)
        logs -= logs.exp().sum(1, keepdim=True).log_()
        supported = logs[:, self._support]
        kl = (supported.exp() * (supported - self._log_prior)).sum(1)
        return kl, heights.rounding + heights.inherited, doubtful | ~(kl >= _INFORMATIVE)

    def _kl(self, block: Tensor) -> Tensor:
        kl, _, doubtful = self._quick_kl(block)
        if bool(doubtful.any()):
            kl[doubtful] = super()._kl(block[doubtful])
        return kl

    def _kl_error(self, block: Tensor, further: Tensor | float = 0.0) -> Tensor:
        _, bound, doubtful = self._quick_kl(block)
        return super()._kl_error(block, torch.where(doubtful, 0.0, bound) + further)

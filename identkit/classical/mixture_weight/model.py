"""The mixing weight of two known densities, all data pooled: the demonstration of Wang, Blei & Cunningham."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from scipy.special import betaincinv
from torch import Tensor
from torch.distributions import Beta, Distribution, Normal, Transform

from identkit.classical.arrays import positive, real, rows, shaped
from identkit.classical.em import Convergence
from identkit.classical.gaussian_mixture.ratio import ratio_by_difference, ratio_by_segment
from identkit.classical.mixture_weight.fit import climb
from identkit.classical.mixture_weight.flatness import weight_flatness
from identkit.classical.mixture_weight.information import draw, gaussians, of_one_row, simulated
from identkit.classical.mixture_weight.posterior import MixtureWeightPosterior, mixture_weight_posterior
from identkit.classical.shown import shown
from identkit.model import families
from identkit.model.compiled.data import number_of_draws, whole
from identkit.model.model import Model
from identkit.model.protocol import Estimate, Flatness

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300
_LEAST_SHAPE = 1e-3
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False, init=False, repr=False)
class MixtureWeight:
    """A data set from ``α f_1 + (1 − α) f_2`` with f_1, f_2 known, whose one latent is the weight α.

    ``α ~ Beta(a, b)``, ``p(x | α) = ∏_i (α f_1(x_i) + (1 − α) f_2(x_i))``. If f_1 = f_2 the data say nothing
    and the posterior is the prior; if they never overlap it is Beta(a + n_1, b + n_2).

    Source: Wang, Blei & Cunningham 2021, section 2 and figure 1; `theory/T1`, `theory/T4`.

    Args:
        components: the pair (f_1, f_2): each ``(mean, sd)`` of a normal law, or an object with ``log_prob``
            (and ``sample``) such as a torch distribution of real numbers.
        prior: the shapes (a, b) of the Beta prior, at least 1e-3.

    Raises:
        ValueError, TypeError: not two components, a scale that is not positive or a shape below 1e-3.

    >>> model = MixtureWeight([(-1, 1), (-1, 1)])
    >>> posterior = model.posterior([0.3, -2.0])
    >>> round(posterior.mean.item(), 4), round(posterior.stddev.item(), 4), posterior.kl
    (0.5, 0.1508, 0.0)
    """

    components: tuple[Any, Any]
    shapes: tuple[float, float]
    convergence: Convergence | None
    """How the fit went; None for a model built by hand."""

    __repr__ = shown

    def __init__(self, components: Any, prior: Any = (5, 5)) -> None:
        if not isinstance(components, Sequence) or len(components) != 2:
            raise ValueError(f"components should be a pair such as [(-1, 1), (1, 1)], got {components!r:.80}")
        a, b = shaped(prior, "prior", 2).tolist()
        shapes = (positive(a, "prior's a"), positive(b, "prior's b"))
        if min(shapes) < _LEAST_SHAPE:
            raise ValueError(
                f"prior's shapes should be at least {_LEAST_SHAPE:g}, got {min(shapes):g}: most of its mass would lie "
                "nearer to 0 or 1 than the least number there is"
            )
        object.__setattr__(self, "components", tuple(_component(c, i) for i, c in enumerate(components)))
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "convergence", None)

    @classmethod
    def fit(
        cls,
        x: Any,
        prior: Any = (5, 5),
        *,
        start: MixtureWeight | None = None,
        restarts: int = 4,
        generator: torch.Generator | None = None,
        tolerance: float = 1e-6,
        iterations: int = 1000,
        floor: float = 1e-6,
    ) -> MixtureWeight:
        """Fit two normal components to one data set by expectation–maximisation, the weight integrated out.

        ``max_{μ, σ} log ∫ ∏_i (α N(x_i; μ_1, σ_1²) + (1 − α) N(x_i; μ_2, σ_2²)) Beta(α; a, b) dα``. The prior stays as
        it is given: a data set has one weight, which says nothing of how weights vary. A variance never falls below
        `floor` times that of x, where the likelihood would be unbounded.

        Source: Dempster, Laird & Rubin 1977; starts as Arthur & Vassilvitskii 2007 (k-means++).

        Args:
            x: the data set, (n,) or (n, 1), n ≥ 2.
            prior: the shapes (a, b) of the Beta prior.
            start: a model with normal components to begin from, the only start then; its prior does not matter.
            restarts: number of random starts.
            generator: for the starts; None for seed 0.
            tolerance: stop when an iteration gains less, in nats of all data.
            iterations: at most so many from each start.
            floor: of the variances, a share of the variance of x.

        Raises:
            ValueError: too few rows, rows that are all the same, a start of other laws.

        >>> model = MixtureWeight.fit([-1.1, -1.0, -0.9, 3.8, 4.0, 4.2, 4.0])
        >>> sorted(round(law.loc.item(), 3) for law in model.components), model.convergence.converged
        ([-1.0, 4.0], True)
        """
        x = rows(x, 1).cpu().to(torch.float64)
        parameters, convergence = climb(
            x,
            lambda normals: cls(normals, prior),
            None if start is None else start.components,
            restarts,
            generator,
            tolerance,
            iterations,
            floor,
        )
        model = cls(parameters, prior)
        object.__setattr__(model, "convergence", convergence)
        return model

    @property
    def prior(self) -> Beta:
        """``Beta(a, b)``."""
        a, b = torch.tensor(self.shapes, dtype=torch.float64)
        return Beta(a, b)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The one latent, the weight of the first component."""
        return ("alpha",)

    @property
    def pooled(self) -> bool:
        """All rows share α."""
        return True

    def log_likelihood(self, x: Any, z: Any) -> Float[Tensor, "*values"]:
        """Evaluate ``Σ_i log(α f_1(x_i) + (1 − α) f_2(x_i))`` in nats, one number per value of α.

        Args:
            x: the data set, (n,) or (n, 1).
            z: values of α in [0, 1], shape (1, 1) or (samples, 1, 1).

        Raises:
            ValueError: α is outside [0, 1].
        """
        x = rows(x, 1)
        z = real(z, "z")
        if z.ndim not in (2, 3) or z.shape[-2:] != (1, 1):
            raise ValueError(f"z should have shape (1, 1) or (samples, 1, 1), got {tuple(z.shape)}")
        alpha = z[..., 0]
        if not bool(((alpha >= 0) & (alpha <= 1)).all()):
            raise ValueError(f"z should be weights in [0, 1], got {z.flatten().tolist()!s:.80}")
        logs = [_log_density(component, x[:, 0].cpu()) for component in self.components]
        values = alpha.cpu().flatten()
        total = torch.empty_like(values)
        block = max(1, _CHUNK // max(1, len(x)))
        for start in range(0, len(values), block):
            weights = values[start : start + block, None]
            total[start : start + block] = torch.logaddexp(
                weights.log() + logs[0], (-weights).log1p() + logs[1]
            ).sum(1)
        return total.reshape(alpha.shape)

    def posterior(self, x: Any) -> MixtureWeightPosterior:
        """Integrate ``p(α | x)`` exactly, to about 1e-13.

        Args:
            x: the data set, (n,) or (n, 1).
        """
        return mixture_weight_posterior(*self._ratios(x, ratio_by_difference), *self.shapes)

    def log_evidence(self, x: Any) -> Float[Tensor, " 1"]:
        """Evaluate ``log p(x) = log ∫ p(x | α) Beta(α; a, b) dα`` of the whole data set, in nats."""
        posterior = self.posterior(x)
        alpha = torch.sigmoid(torch.tensor([[posterior.likelihood.centre]], dtype=torch.float64))
        return self.log_likelihood(x, alpha) + posterior.log_scale

    def kl_to_prior(self, x: Any) -> Float[Tensor, " 1"]:
        """Evaluate ``KL(p(α | x) ‖ Beta(a, b))`` in nats; exactly 0 where the components are the same."""
        return torch.tensor([self.posterior(x).kl], dtype=torch.float64)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "1 1"]:
        """Evaluate the marginal KL: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_conditional(self, x: Any) -> Float[Tensor, "1 1"]:
        """Evaluate the conditional KL: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_error(self, x: Any) -> Float[Tensor, " 1"]:
        """Bound the absolute error of the KL: rounding, quadrature, reading floats as decimals; positive."""
        return torch.tensor([self.posterior(x).kl_error], dtype=torch.float64)

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(α) = log p(x | α)`` under the Beta prior, by Gauss–Jacobi quadrature.

        ℓ is concave, so its least value is at an end and its largest at its one mode: ω is exact. The two
        moments under the posterior that theory/T4.4 takes are adaptive integrals on the safe side.

        Source: theory/T4.3 and T4.4; Golub & Welsch 1969 (the rule).
        """
        return weight_flatness(*self._ratios(x, ratio_by_segment), *self.shapes)

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "1 1"], Float[Tensor, "1 1"]]:
        """Give the posterior mean and standard deviation of α."""
        posterior = self.posterior(x)
        return posterior.mean[:, None], posterior.stddev[:, None]

    def mutual_information(
        self, n: int = 1, samples: int = 1000, generator: torch.Generator | None = None
    ) -> Estimate:
        """Evaluate ``I(α; x_1 … x_n) = E KL(p(α | x) ‖ Beta(a, b))`` in nats, of a data set of n rows.

        Of one row and normal components by quadrature over x, else by simulation; exactly 0 of no row.

        Args:
            n: rows of a data set.
            samples: simulated data sets, about.
            generator: for them; None for one with seed 0.

        >>> apart = MixtureWeight([(-100, 1), (100, 1)]).mutual_information()
        >>> round(apart.value, 6), apart.method
        (0.047512, 'quadrature')
        """
        n, samples = whole(n, "n", 0), whole(samples, "samples", 4)
        if n == 0:
            return Estimate(value=0.0, error=_TINY, method="closed form")
        one, two = self.components
        if n == 1 and type(one) is Normal and type(two) is Normal:
            return of_one_row(one, two, *self.shapes)
        generator = generator or torch.Generator().manual_seed(0)
        return simulated(self.components, self.shapes, self.kl_to_prior, n, samples, generator)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "1 1"]]:
        """Draw one α from the prior and a data set of n rows that share it."""
        n = number_of_draws(n, generator)
        uniform = torch.rand(1, dtype=torch.float64, generator=generator).item()
        alpha = float(betaincinv(*self.shapes, uniform))
        first = torch.rand(n, dtype=torch.float64, generator=generator) < alpha
        return draw(self.components, first, generator), torch.tensor([[alpha]], dtype=torch.float64)

    def symbolic(self) -> Model:
        """Give the model of one row in SymPy: ``x ~ Mixture([alpha, 1 − alpha], Normal, Normal)``.

        Raises:
            ValueError: a component is not normal.
        """
        normals = []
        for component in self.components:
            if type(component) is not Normal:
                raise ValueError(
                    f"components should be normal laws for a symbolic model, got {component!r:.80}"
                )
            normals.append(
                families.Normal(*[families.exact(v.item()) for v in (component.loc, component.scale)])
            )
        model = Model("mixture weight")
        alpha = model.latent("alpha", families.Beta(*[families.exact(shape) for shape in self.shapes]))
        model.observe("x", families.Mixture([alpha, 1 - alpha], *normals))
        return model

    def _ratios(self, x: Any, formula: Any) -> tuple[Tensor, Tensor]:
        """``t_i = log f_1(x_i) − log f_2(x_i)`` and bounds on their errors."""
        x = rows(x, 1).cpu()
        first, second = self.components
        if type(first) is Normal and type(second) is Normal:
            ratio, error = formula(gaussians(second, first), x)
            return ratio[:, 1], error[:, 1]
        logs = [_log_density(component, x[:, 0]) for component in self.components]
        impossible = torch.nonzero(torch.isneginf(logs[0]) & torch.isneginf(logs[1]))
        if len(impossible):
            row = int(impossible[0])
            raise ValueError(f"x should be possible under a component, got {x[row, 0].item()} in row {row}")
        error = 8 * _EPS * (logs[0].abs() + logs[1].abs() + 1)
        return logs[0] - logs[1], torch.where(torch.isfinite(error), error, 0.0)


def _component(value: Any, position: int) -> Any:
    name = f"components[{position}]"
    if isinstance(value, Distribution) and value.batch_shape + value.event_shape != ():
        raise ValueError(f"{name} should be the law of one number, got {value!r:.80}")
    if hasattr(value, "log_prob"):
        return _float64(value)
    if not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name} should be (mean, sd) or have a log_prob, got {value!r:.80}")
    mean, sd = shaped(value[0], f"{name}'s mean"), positive(value[1], f"{name}'s sd")
    return Normal(mean, torch.tensor(sd, dtype=torch.float64))


def _float64(value: Any) -> Any:
    # A distribution made from Python numbers holds float32 parameters, and its log density is no better.
    if isinstance(value, Tensor):
        return value.detach().to(torch.float64) if value.is_floating_point() else value
    if isinstance(value, list):
        return [_float64(entry) for entry in value]
    if isinstance(value, Distribution | Transform):
        twin = copy(value)
        vars(twin).update({name: _float64(entry) for name, entry in vars(value).items()})
        return twin
    return value


def _log_density(component: Any, x: Tensor) -> Tensor:
    # torch distributions refuse data outside their support, where the density is 0.
    possible = torch.ones_like(x, dtype=torch.bool)
    if isinstance(component, Distribution) and component.support is not None:
        possible = component.support.check(x)
    logs = torch.full_like(x, -math.inf)
    logs[possible] = component.log_prob(x[possible]).to(torch.float64)
    return logs

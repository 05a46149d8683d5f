"""The mixing weight of two known densities, all data pooled: the demonstration of Wang, Blei & Cunningham."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import quad_vec
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
from scipy.special import betaincinv
from torch import Tensor
from torch.distributions import Beta, Distribution, Normal, Transform

from identkit.classical.arrays import positive, real, rows, shaped
from identkit.classical.gaussian_mixture.ratio import Gaussians, ratio_by_difference, ratio_by_segment
from identkit.classical.mixture_weight.posterior import MixtureWeightPosterior, mixture_weight_posterior
from identkit.classical.shown import shown
from identkit.model import families
from identkit.model.compiled.data import number_of_draws
from identkit.model.model import Model
from identkit.model.protocol import Flatness
from identkit.posterior.bounds import beta_log_sobolev

_EPS = torch.finfo(torch.float64).eps
_TINY = 1e-300
_ORDERS = (96, 144)
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
        prior: the shapes (a, b) of the Beta prior.

    Raises:
        ValueError, TypeError: not two components, a scale or a shape that is not positive.

    >>> model = MixtureWeight([(-1, 1), (-1, 1)])
    >>> posterior = model.posterior([0.3, -2.0])
    >>> round(posterior.mean.item(), 4), round(posterior.stddev.item(), 4), posterior.kl
    (0.5, 0.1508, 0.0)
    """

    components: tuple[Any, Any]
    shapes: tuple[float, float]

    __repr__ = shown

    def __init__(self, components: Any, prior: Any = (5, 5)) -> None:
        if not isinstance(components, Sequence) or len(components) != 2:
            raise ValueError(f"components should be a pair such as [(-1, 1), (1, 1)], got {components!r:.80}")
        a, b = shaped(prior, "prior", 2).tolist()
        shapes = (positive(a, "prior's a"), positive(b, "prior's b"))
        object.__setattr__(self, "components", tuple(_component(c, i) for i, c in enumerate(components)))
        object.__setattr__(self, "shapes", shapes)

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
        return _flatness(*self._ratios(x, ratio_by_segment), *self.shapes)

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "1 1"], Float[Tensor, "1 1"]]:
        """Give the posterior mean and standard deviation of α."""
        posterior = self.posterior(x)
        return posterior.mean[:, None], posterior.stddev[:, None]

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "1 1"]]:
        """Draw one α from the prior and a data set of n rows that share it."""
        n = number_of_draws(n, generator)
        uniform = torch.rand(1, dtype=torch.float64, generator=generator).item()
        alpha = float(betaincinv(*self.shapes, uniform))
        first = torch.rand(n, dtype=torch.float64, generator=generator) < alpha
        # Distributions draw from torch's global generator: lend it a seed of ours and give it back untouched.
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            draws = [component.sample((n,)).to(torch.float64) for component in self.components]
        return torch.where(first, *draws)[:, None], torch.tensor([[alpha]], dtype=torch.float64)

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
            ratio, error = formula(_gaussians(second, first), x)
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


def _gaussians(*normals: Normal) -> Gaussians:
    means, scales = (torch.stack([getattr(n, field) for n in normals])[:, None] for field in ("loc", "scale"))
    # sd² − sd_0² as a product: squares of nearly equal scales would lose their difference.
    excess = (scales - scales[0]) * (scales + scales[0])
    return Gaussians(means, scales.square()[..., None], scales[..., None], excess[..., None])


def _flatness(ratios: Tensor, errors: Tensor, a: float, b: float) -> Flatness:
    likelihood, total_error = _Concave(ratios), errors.sum().item()
    variances, spread = [], 0.0
    for order in _ORDERS:
        nodes, weights = _gauss_jacobi(order, a, b)
        value, slope = likelihood(nodes)
        variances.append((weights * (value - (weights * value).sum()).square()).sum().item())
        wobble = (
            4 * _EPS * (value.abs() + slope.abs())
            + (torch.logit(nodes).abs() / 4).clamp(max=1.0) * total_error
        )
        spread = (weights * wobble.square()).sum().sqrt().item()
    variance = variances[-1]
    change = abs(variance - variances[0])

    peak = _decreasing_root(lambda alpha: likelihood.scalar(alpha)[1])
    top, low = max(likelihood.scalar(peak)[0], *likelihood.ends), min(likelihood.ends)
    log_sobolev = beta_log_sobolev(a, b)
    gradient, shift = (None, None) if log_sobolev is None else _posterior_moments(likelihood, a, b, spread)

    def one(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    return Flatness(
        variance=one(variance),
        variance_error=one(change + 2 * spread * (math.sqrt(variance) + spread) + 1e-13 * variance + _TINY),
        oscillation=one(top - low + 8 * _EPS * (abs(top) + abs(low)) + total_error),
        log_sobolev=log_sobolev,
        gradient_second_moment=None if gradient is None else one(gradient),
        mean_shift=None if shift is None else one(shift),
    )


class _Concave:
    """ℓ(α) and ℓ'(α), each datum relative to its likelier component: a constant that moments do not see.

    ``Σ_{t ≤ 0} log1p(α expm1(t)) + Σ_{t > 0} log1p((1 − α) expm1(−t))``: all terms of one sign.
    """

    def __init__(self, ratios: Tensor) -> None:
        self._down, self._up = torch.expm1(ratios[ratios <= 0]), torch.expm1(-ratios[ratios > 0])
        self._block = max(1, _CHUNK // len(ratios))
        # At the ends themselves log1p(expm1(t)) = t, which −1 + e^t would lose below t = −37.
        self.ends = (-ratios[ratios > 0].sum().item(), ratios[ratios <= 0].sum().item())

    def __call__(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = [], []
        for weights in alpha[:, None].split(self._block):
            down, up = weights * self._down, (1 - weights) * self._up
            values.append(torch.log1p(down).sum(1) + torch.log1p(up).sum(1))
            slopes.append((self._down / (1 + down)).sum(1) - (self._up / (1 + up)).sum(1))
        return torch.cat(values), torch.cat(slopes)

    def scalar(self, alpha: float) -> tuple[float, float]:
        value, slope = self(torch.tensor([alpha], dtype=torch.float64))
        return value.item(), slope.item()


def _posterior_moments(likelihood: _Concave, a: float, b: float, spread: float) -> tuple[float, float]:
    """``E_Q ℓ'²`` rounded up and ``(E_Q α − E_P α)²`` rounded down, by adaptive Gauss–Kronrod; a, b ≥ 1."""

    def log_density(alpha: float) -> tuple[float, float, float]:
        value, slope = likelihood.scalar(alpha)
        prior = (a - 1) * math.log(alpha) + (b - 1) * math.log1p(-alpha)
        return prior + value, (a - 1) / alpha - (b - 1) / (1 - alpha) + slope, slope

    centre = _decreasing_root(lambda alpha: log_density(alpha)[1])
    top = log_density(centre)[0]
    nearby = min(max(1e-4 * centre * (1 - centre), 2 * _EPS), 0.1)
    sides = [min(max(centre + sign * nearby, _EPS), 1 - _EPS) for sign in (-1, 1)]
    fall = log_density(sides[0])[1] - log_density(sides[1])[1]
    width = math.sqrt((sides[1] - sides[0]) / max(fall, _TINY))
    scale = 1 / width**2

    def integrand(alpha: float) -> np.ndarray:
        log, _, slope = log_density(min(max(alpha, _EPS), 1 - _EPS))
        weight = math.exp(min(log - top, 0.0))
        return np.array([weight, weight * (alpha - centre), weight * slope**2 / scale])

    points = [p for k in (-9, -3, 0, 3, 9) if 0 < (p := centre + k * width) < 1]
    found, error = quad_vec(integrand, 0.0, 1.0, epsabs=0.0, epsrel=1e-12, norm="max", points=points)[:2]
    error = 2 * error / found[0]
    shift = abs(centre + found[1] / found[0] - a / (a + b)) - (error + spread + 1e-12)
    return found[2] / found[0] * scale * (1 + 1e-9) + error * scale, max(shift, 0.0) ** 2


def _decreasing_root(slope: Any) -> float:
    """Where a decreasing function of α changes sign, or the end of (0, 1) that it points to."""
    if slope(_EPS) <= 0:
        return _EPS
    return 1 - _EPS if slope(1 - _EPS) >= 0 else brentq(slope, _EPS, 1 - _EPS, xtol=1e-15)


def _gauss_jacobi(order: int, a: float, b: float) -> tuple[Tensor, Tensor]:
    """Nodes and masses of the Gauss rule for Beta(a, b), from its Jacobi matrix; sound for any shapes.

    (scipy.special.roots_jacobi overflows for shapes beyond a few hundred.)
    """
    k, s = np.arange(1.0, order), a + b - 2
    diagonal = np.full(order, a / (a + b))
    diagonal[1:] = 0.5 + ((a - 1) ** 2 - (b - 1) ** 2) / (2 * (2 * k + s) * (2 * k + s + 2))
    squares = np.full(order - 1, a * b / ((a + b) ** 2 * (a + b + 1)))
    k = k[1:]
    squares[1:] = k * (k + a - 1) * (k + b - 1) * (k + s) / ((2 * k + s) ** 2 * ((2 * k + s) ** 2 - 1))
    nodes, vectors = eigh_tridiagonal(diagonal, np.sqrt(squares))
    masses = vectors[0] ** 2
    nodes = nodes.clip(_EPS, 1 - _EPS)
    return torch.from_numpy(nodes), torch.from_numpy(masses / masses.sum())

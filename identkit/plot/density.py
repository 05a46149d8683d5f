"""Posteriors beside their priors: densities of continuous latents, bars for discrete ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.integrate import trapezoid
from torch import Tensor
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal

from identkit.model.compiled import CompiledModel, compiled
from identkit.model.language import parse
from identkit.model.model import Model
from identkit.model.protocol import Continuous, ExactModel, Finite
from identkit.plot.single import alone, density, masses, support
from identkit.plot.style import POSTERIOR, PRIOR, at_most, canvas, number, styled
from identkit.posterior.guides import guides
from identkit.posterior.heights import heights
from identkit.posterior.information import with_gaps
from identkit.posterior.quadrature import Quadrature, integrate

_MOST_ROWS, _MOST_LATENTS = 8, 8
_REACH = 4.5  # standard deviations on each side of a density
_MASS = 0.02  # a density as drawn integrates to one as nearly as this, and no step is more of its peak
_HALVINGS = 4
_INSTEAD = "identkit.plot.intervals(identkit.collapse(model, x)) draws means and standard deviations"

Density = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Marginal:
    """One latent of one datum, as it is drawn."""

    name: str
    kl: float
    kl_error: float
    prior: Density
    posterior: Density
    states: tuple[float, ...] | None = None
    """The values of a discrete latent; None if it is continuous."""
    first: int = 0
    """The number that the text notation gives to state 0."""
    support: tuple[float, float] = (-math.inf, math.inf)
    moments: tuple[tuple[float, float], ...] = ()
    """Mean and standard deviation of the prior and of the posterior."""

    @property
    def information(self) -> str:
        """The KL in words; one that does not exceed its error says so."""
        if self.kl > self.kl_error or self.kl == 0:
            return f"KL {number(self.kl)} nats"
        return f"KL 0 nats up to {number(self.kl_error)}"

    @property
    def grid(self) -> np.ndarray:
        """Points on which both densities are smooth: refined until each of them integrates to one."""
        margin = 2e-3 * (self.support[1] - self.support[0]) if math.isfinite(sum(self.support)) else 1e-9
        lowest, highest = self.support[0] + margin, self.support[1] - margin
        ends = [
            (max(mean - _REACH * sd, lowest), min(mean + _REACH * sd, highest)) for mean, sd in self.moments
        ]
        laws = (self.prior, self.posterior)
        for count in (200, 400, 800, 1600):
            points = np.unique(np.concatenate([np.linspace(low, high, count) for low, high in ends]))
            if all(abs(trapezoid(law(points), points) - 1) < _MASS for law in laws):
                break
        for _ in range(_HALVINGS):
            steep = np.zeros(len(points) - 1, dtype=bool)
            for law in laws:
                heights_there = law(points)
                steep |= np.abs(np.diff(heights_there)) > _MASS * heights_there.max()
            points = np.sort(np.concatenate([points, (points[1:] + points[:-1])[steep] / 2]))
        return points


@styled
def posterior(
    model: Model | ExactModel | str,
    x: Any,
    ax: Axes | np.ndarray | Sequence[Axes] | None = None,
    *,
    at: Mapping[Any, Any] | None = None,
    pooled: bool = False,
) -> Axes | np.ndarray:
    """Draw the marginal posterior of each latent over its prior, one row of axes a datum.

    ``p(z_j | x)`` filled and ``p(z_j)`` dashed: densities of continuous latents, bars for discrete ones,
    whose states bear the numbers of the text notation. The KL in the title is the marginal's, which can be
    zero for a latent that the likelihood does see (theory/T3).

    Args:
        model: a declared model or its text, with at most three continuous latents, or an exact classical model with
            at most eight latents a datum.
        x: data (n, d), at most 8 rows unless they are pooled.
        ax: axes to draw on, one for each latent of each datum; a new figure if None.
        at: values of the parameters of a declared model, all of them.
        pooled: take the rows as one data set that shares its latents.

    Returns:
        One Axes, or an array of them, (n, k).

    Raises:
        ValueError: bad data, a parameter without a value, too many rows or latents, a latent without a density or
            moments (the message names what draws it all the same), or the wrong number of axes.
        TypeError: not a model.

    >>> ax = posterior("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", [[1.0]], at={"w": 1})
    >>> ax.get_title(), ax.get_xlabel()
    ('KL 0.2216 nats', 'z')
    """
    if isinstance(model, str):
        model = parse(model)
    if isinstance(model, Model):
        table = _by_quadrature(compiled(model, at), x, pooled)
    elif not isinstance(model, ExactModel):
        raise TypeError(f"model should be a Model, its text, or an exact model, got {type(model).__name__}")
    elif at is not None:
        raise ValueError(f"at should be None for a {type(model).__name__}, got {at!r}")
    elif pooled and not model.pooled:
        words = f"each row of a {type(model).__name__} has latents of its own"
        raise ValueError(f"pooled should be False: {words}")
    else:
        table = _in_closed_form(model, x)
    n, k = len(table), len(table[0])
    axes: Any = canvas(n, k, 0.6 + 1.7 * n)[1] if ax is None else np.array(ax, dtype=object)
    if ax is not None:
        if axes.size != n * k:
            raise ValueError(f"ax should be {n * k} axes, one for each latent of each datum, got {axes.size}")
        axes = axes.reshape(n, k)
    for i, j in np.ndindex(n, k):
        _draw(axes[i, j], table[i][j])
        if n > 1 and j == 0:
            axes[i, j].set_ylabel(f"datum {i + 1}\n{axes[i, j].get_ylabel()}")
    if ax is None and k > 2:  # in so narrow an axes a legend would lie on the curves
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    else:
        axes[0, 0].legend(loc="best")
    return axes[0, 0] if n * k == 1 else axes


def _in_closed_form(model: ExactModel, x: Any) -> list[list[_Marginal]]:
    if isinstance(x, Mapping):
        x = with_gaps(model, x)
    if hasattr(model, "of_length") and getattr(model, "length", 1) is None:
        raise ValueError(f"length should be declared to draw a {type(model).__name__}, got None; {_INSTEAD}")
    names = model.latent_names
    if len(names) > _MOST_LATENTS:
        raise ValueError(
            f"model should have at most {_MOST_LATENTS} latents a datum to draw, got {len(names)}; {_INSTEAD}"
        )
    kl = model.kl_per_latent(x)
    at_most(len(kl), _MOST_ROWS, "x")
    error = model.kl_error(x)
    mean, sd = (table.cpu() for table in model.posterior_moments(x))
    try:
        laws = [(alone(model.prior, j), alone(_after(model, x), j)) for j in range(len(names))]
    except ValueError as refusal:
        raise ValueError(f"a latent should have a density to draw: {refusal}; {_INSTEAD}") from refusal

    def marginal(i: int, j: int) -> _Marginal:
        here = {"name": names[j], "kl": float(kl[i, j]), "kl_error": float(error[i])}
        before, after = laws[j]
        if isinstance(after, Categorical):
            states = tuple(range(after.probs.shape[-1]))
            return _Marginal(
                **here, states=states, first=1, prior=masses(before, i), posterior=masses(after, i)
            )
        own = (float(before.mean), float(torch.as_tensor(before.variance).sqrt()))
        moments = tuple(
            pair for pair in (own, (float(mean[i, j]), float(sd[i, j]))) if all(map(math.isfinite, pair))
        )
        if not moments:
            raise ValueError(
                f"{names[j]} should have a finite variance to be drawn, before or after the data; {_INSTEAD}"
            )
        return _Marginal(
            **here,
            support=support(before),
            prior=density(before, 0),
            posterior=density(after, i),
            moments=moments,
        )

    return [[marginal(i, j) for j in range(len(names))] for i in range(len(kl))]


def _after(model: ExactModel, x: Any) -> Any:
    after = model.posterior(x)
    if isinstance(model.prior, MultivariateNormal) and not isinstance(after, MultivariateNormal):
        mean, sd = model.posterior_moments(x)  # of a path, whose coordinates are normal too
        return Independent(Normal(mean, sd), 1)
    return after


def _by_quadrature(model: CompiledModel, x: Any, pooled: bool) -> list[list[_Marginal]]:
    x, _ = model.rows(x)
    data = [x] if pooled else list(x.split(1))
    at_most(len(data), _MOST_ROWS, "x")
    before = integrate(model.log_prior, lambda rows, z: z.new_zeros(len(z)), model.axes, 1)
    states = [s.family.name == "Categorical" for s in model.model.latents for _ in s.symbols]

    def marginals(datum: Tensor) -> list[_Marginal]:
        # One data set: its rows, or its one row, share z.
        def log_likelihood(rows: Tensor, z: Tensor) -> Tensor:
            return heights(model, datum, z, True)[:, 0]

        pointing = guides(model, datum, True)
        after = integrate(model.log_prior, log_likelihood, model.axes, 1, guides=pointing)
        return [
            _Marginal(
                name=model.latent_names[j],
                kl=float(after.kl_per_latent[0, j]),
                kl_error=float(after.kl_per_latent_error[0, j]),
                states=axis.values if isinstance(axis, Finite) else None,
                first=int(states[j]),
                support=(axis.low, axis.high) if isinstance(axis, Continuous) else (-math.inf, math.inf),
                prior=_quadrature_density(before, j),
                posterior=_quadrature_density(after, j),
                moments=tuple((float(law.mean[0, j]), float(law.sd[0, j])) for law in (before, after)),
            )
            for j, axis in enumerate(model.axes)
        ]

    return [marginals(datum) for datum in data]


def _quadrature_density(law: Quadrature, j: int) -> Density:
    return lambda points: law.marginal(j, torch.from_numpy(points)).posterior[0].numpy()


def _draw(ax: Axes, marginal: _Marginal) -> None:
    if marginal.states is None:
        points = marginal.grid
        after = marginal.posterior(points)
        ax.fill_between(points, after, color=POSTERIOR, alpha=0.35, lw=0, label="posterior")
        ax.plot(points, after, color=POSTERIOR)
        ax.plot(points, marginal.prior(points), color=PRIOR, ls=(0, (4, 2)), label="prior")
        ax.set_xlim(points[0], points[-1])
        ax.set_ylabel("density")
    else:
        states = np.array(marginal.states, dtype=float)
        ax.bar(states, marginal.posterior(states), 0.7, color=POSTERIOR, alpha=0.45, lw=0, label="posterior")
        outline = {"fill": False, "ec": PRIOR, "ls": (0, (3, 2)), "lw": 1.2}
        ax.bar(states, marginal.prior(states), 0.7, **outline, label="prior")
        if len(states) <= 12:
            ax.set_xticks(states, [f"{state + marginal.first:g}" for state in states])
        ax.set_ylabel("probability")
    ax.margins(y=0.12)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(marginal.name)
    ax.set_title(marginal.information)

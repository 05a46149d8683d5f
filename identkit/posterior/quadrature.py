"""The exact posterior of a model with few latents, by nested adaptive quadrature with a stated error.

Three continuous latents are the working range, beside any number of finite ones. The engine knows densities
on axes and nothing of models: `locate` and `layout` find the mass, `bayes` and `adaptive` integrate along one
axis, `line` and `nested` put axes inside each other, and `orders` reads the informations off. In three
dimensions that takes 10⁷ evaluations a datum, so that smooth posteriors with one peak go another way
(`smooth`, `bell`, `peaks`), in 10⁵ to 10⁶; what does not prove to be one is left to the engine, and so are
three continuous latents beside finite ones, which takes minutes a datum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.protocol import Axis, Continuous, Finite
from identkit.posterior.bell import Bells
from identkit.posterior.line import Line
from identkit.posterior.mixed import settle
from identkit.posterior.nested import Base, Budget, OverBudget, States
from identkit.posterior.orders import Tally, agreed, chain, orders, run
from identkit.posterior.outset import starting_points

# The largest error worth stating, relative to a KL or log Z above one and absolute below: beyond it we
# refuse.
_WORTH_STATING = 1e-4
_MASS_SLACK = 1e-6
#: Evaluations of ℓ that a datum may take; some seconds to a minute of them.
EVALUATIONS = 100_000_000
_SPATIAL = 3
_PILOTS = 5
# Relative to each KL: three levels of 1e-11 inside each other would cost five times as much.
_TOLERANCES = {_SPATIAL: 1e-7}


class QuadratureError(ArithmeticError):
    """No answer has an error worth stating; the message says for which datum and why."""


@dataclass(frozen=True)
class MarginalDensity:
    """The marginal density (or probability) of one latent on given points, before and after each datum."""

    points: Float[Tensor, " m"]
    prior: Float[Tensor, "n m"]
    posterior: Float[Tensor, "n m"]


@dataclass(frozen=True)
class Quadrature:
    """The posterior of each datum, in nats; every ``…_error`` bounds the absolute error of its namesake."""

    log_evidence: Float[Tensor, " n"]
    """log p(x)."""
    log_evidence_error: Float[Tensor, " n"]
    kl: Float[Tensor, " n"]
    """KL(q(z | x) ‖ p(z)) of all latents together."""
    kl_error: Float[Tensor, " n"]
    kl_per_latent: Float[Tensor, "n k"]
    """KL(q(z_j | x) ‖ p(z_j)), the marginals."""
    kl_per_latent_error: Float[Tensor, "n k"]
    kl_conditional: Float[Tensor, "n k"]
    """E_Q KL(q(z_j | z_−j, x) ‖ p(z_j | z_−j)): zero iff ℓ ignores z_j (theory/T3)."""
    kl_conditional_error: Float[Tensor, "n k"]
    mean: Float[Tensor, "n k"]
    sd: Float[Tensor, "n k"]
    grad_second_moment: Float[Tensor, "n k"] | None
    """E_Q (∂ℓ/∂z_j)², zero for finite latents; None without a gradient."""
    prior_mass: Float[Tensor, " n"]
    """∫ p(z) dz as the quadrature sees it, 1 up to rounding."""
    _outermost: tuple[Line | States, ...] = field(repr=False)
    """For each latent the order of integration in which it comes last."""
    _axes: tuple[Axis, ...] = field(repr=False)

    def marginal(self, index: int, points: Float[Tensor, " m"]) -> MarginalDensity:
        """Evaluate the marginal densities p(z_j) and p(z_j | x), or probabilities where z_j is finite.

        ``p(z_j | x) = p(z_j) · ∫ p(x | z) p(z_−j | z_j) dz_−j / p(x)``.

        Args:
            index: j, 0-based.
            points: (m,) values of the latent, inside its support.

        Raises:
            IndexError: no such latent.
            ValueError: a point outside the support.
        """
        if not 0 <= index < len(self._axes):
            raise IndexError(f"index should be in 0..{len(self._axes) - 1}, got {index}")
        axis, level = self._axes[index], self._outermost[index]
        points = points.to(torch.float64)
        if isinstance(axis, Continuous):
            outside = ~((points > axis.low) & (points < axis.high))
            wanted = f"points should lie inside ({axis.low:g}, {axis.high:g})"
        else:
            outside = ~torch.isin(points, torch.tensor(axis.values, dtype=torch.float64))
            wanted = f"points should be among {axis.values}"
        if outside.any():
            raise ValueError(f"{wanted}, got {float(points[outside][0]):g}")
        n = len(self.log_evidence)
        rows, z = torch.arange(n), torch.full((n, len(self._axes)), math.nan, dtype=torch.float64)
        with torch.no_grad():
            if isinstance(level, States):
                values = level.inner.fold(*level.expand(rows, z)).values
            else:
                z = z.repeat_interleave(len(points), 0)
                z[:, index] = points.repeat(n)
                values = level.inner.fold(rows.repeat_interleave(len(points)), z).values
        prior, likelihood = values.log_prior.reshape(n, -1), values.log_likelihood.reshape(n, -1)
        joint = torch.where(prior > -math.inf, prior + likelihood - self.log_evidence[:, None], -math.inf)
        prior, posterior = prior.exp(), joint.exp()
        if isinstance(level, States):
            states = level.states[:, level.columns.index(index), None]
            member = (states == points).to(torch.float64)
            prior, posterior = prior @ member, posterior @ member
        return MarginalDensity(points, prior, posterior)


def integrate(
    log_prior: Callable[[Tensor], Tensor],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    axes: Sequence[Axis],
    n: int,
    *,
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
    tolerance: float | None = None,
    evaluations: int = EVALUATIONS,
    independent: bool = False,
    guides: Sequence[Callable[[Tensor, Tensor], Tensor]] = (),
) -> Quadrature:
    """Compute the exact posterior of n data under a model with few latents, and how far it is from the prior.

    ``p(z | x) = p(z) p(x | z) / ∫ p(x | z) p(z) dz``, and its divergences from the prior in the
    cancellation-free form ``KL = E_P[u·eᵘ − expm1(u)]``, ``u = log dQ/dP``: right down to 1e-25 as far as
    the given ℓ is, and never negative. ``Q`` and ``P`` may be far apart: noise of 1e-6 prior standard
    deviations, or data 1e4 of them away.

    What it cannot see is a needle that nothing points to: a peak far narrower than the prior, on a
    log-likelihood that is flat around it. To an outlier model's narrow component its `guides` point.

    Source: theory/T4 (computation).

    Args:
        log_prior: z (m, k) → (m,), the normalised joint prior density (a probability in the finite latents);
            −∞ is zero. Later latents may depend on earlier ones.
        log_likelihood: rows (m,) and z (m, k) → (m,): ℓ of datum ``rows[i]`` at ``z[i]`` in nats; −∞ is zero.
            Called with at most 16,384 points at a time.
        axes: the support of each latent.
        n: number of data.
        gradient: rows and z → (m, k), ∂ℓ/∂z (zero for finite latents), for `grad_second_moment`.
        tolerance: the error aimed at, relative for each KL and absolute for log p(x); 1e-11 if None, with three
            continuous latents 1e-7.
        evaluations: how often ℓ of one datum may be evaluated, at most.
        independent: the latents are known to be independent under a prior known to be normalised; it spares work
            in three dimensions.
        guides: further log-likelihoods, as `log_likelihood`, whose peaks are looked at as well.

    Raises:
        ValueError: NaN or +∞ in a density (the message names the point), a wrong shape, a datum of
            probability zero wherever it was looked, no latent, no datum, a datum that takes more than its `evaluations`.
        QuadratureError: the prior does not integrate to one, or no error worth stating was reached.

    >>> normal = torch.distributions.Normal(0, 1)
    >>> x = torch.tensor([0.5, 2.0], dtype=torch.float64)
    >>> q = integrate(
    ...     lambda z: normal.log_prob(z[:, 0]),
    ...     lambda rows, z: normal.log_prob(x[rows] - z[:, 0]),
    ...     [Continuous(-math.inf, math.inf)], 2)
    >>> q.mean[:, 0], q.kl
    (tensor([0.2500, 1.0000], dtype=torch.float64), tensor([0.1278, 0.5966], dtype=torch.float64))
    """
    axes = tuple(axes)
    if not axes:
        raise ValueError("axes should name at least one latent, got none")
    if n < 1:
        raise ValueError(f"n should be at least 1, got {n}")
    continuous = [axis for axis in axes if isinstance(axis, Continuous)]
    if tolerance is None:
        tolerance = _TOLERANCES.get(len(continuous), 1e-11)
    if not 1e-15 <= tolerance <= 1e-3:
        raise ValueError(f"tolerance should be between 1e-15 and 1e-3, got {tolerance:g}")
    with torch.no_grad():
        grids, top = starting_points(Base(log_prior, log_likelihood, None), axes)
        free = Base(log_prior, log_likelihood, None, top)
        outermost: dict[int, Line | States] = {}
        for order in orders(axes):
            outer = order[0] if isinstance(order[0], tuple) else (order[0],)
            outermost |= dict.fromkeys(outer, chain(order, free, axes, grids, tolerance, guides))
        quick, left = None, torch.arange(n)
        if len(continuous) == _SPATIAL and not guides:
            counted = replace(free, budget=Budget(left, evaluations))
            quick = settle(counted, axes, grids, n, gradient, independent)
        if quick is not None:
            left = torch.nonzero(~quick.good)[:, 0]
        tables: dict[str, Any] = {} if quick is None else _quick(quick, len(axes))
        if len(left):
            slow = _nested(
                log_prior, log_likelihood, gradient, axes, grids, top, left, tolerance, evaluations, guides
            )
            tables = {name: _replaced(tables.get(name, slow[name]), left, slow[name]) for name in slow}
    return Quadrature(**tables, _outermost=tuple(outermost[j] for j in range(len(axes))), _axes=axes)


def _nested(
    log_prior: Callable[[Tensor], Tensor],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    gradient: Callable[[Tensor, Tensor], Tensor] | None,
    axes: tuple[Axis, ...],
    grids: dict[int, Tensor],
    top: float,
    data: Tensor,
    tolerance: float,
    evaluations: int,
    guides: Sequence[Callable[[Tensor, Tensor], Tensor]],
) -> dict[str, Any]:
    """The fields of `Quadrature` for some of the data, by the nested levels."""
    n, budget = len(data), Budget(data, evaluations)
    tally, seeds = Tally(n, len(axes)), {}

    def of_those(answer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda rows, z: answer(data[rows], z)

    if len(grids) == _SPATIAL:
        free = Base(log_prior, of_those(log_likelihood), None, top)
        _foresee(free, axes, grids, tolerance, budget, [of_those(guide) for guide in guides])
    for i, order in enumerate(orders(axes)):
        slopes = of_those(gradient) if i == 0 and gradient is not None else None
        base = Base(log_prior, of_those(log_likelihood), slopes, top, budget)
        level = chain(order, base, axes, grids, tolerance, [of_those(guide) for guide in guides])
        folded = run(level, n, len(axes), seeds)
        impossible = torch.nonzero(folded.values.log_likelihood == -math.inf)
        if len(impossible):
            row = int(data[impossible[0, 0]])
            raise ValueError(f"log_likelihood gives datum {row} probability zero wherever it was looked")
        tally.add(order, folded, slopes is not None)
    return _checked(tally, data)


def _quick(found: Bells, k: int) -> dict[str, Any]:
    """The fields of `Quadrature` from what grids found."""
    value, error = found.value, found.error
    return {
        "log_evidence": value[:, 0],
        "log_evidence_error": error[:, 0],
        "kl": value[:, 1],
        "kl_error": error[:, 1],
        "kl_per_latent": value[:, 2 : 2 + k],
        "kl_per_latent_error": error[:, 2 : 2 + k],
        "kl_conditional": value[:, 2 + k :],
        "kl_conditional_error": error[:, 2 + k :],
        "mean": found.mean[:, :k],
        "sd": found.sd[:, :k],
        "grad_second_moment": found.mean[:, k:] if found.mean.shape[1] > k else None,
        "prior_mass": torch.ones_like(value[:, 0]),
    }


def _foresee(
    free: Base,
    axes: tuple[Axis, ...],
    grids: dict[int, Tensor],
    tolerance: float,
    budget: Budget,
    guides: Sequence[Callable[[Tensor, Tensor], Tensor]],
) -> None:
    """Refuse in seconds what would use up its budget in a minute, foreseen by folds at a few points.

    The median of some points of the outermost line is taken for typical, and that line for one like the two inside it:
    what takes c evaluations in the plane takes c^(3/2) in space.
    """
    finite = {j: axis.values for j, axis in enumerate(axes) if isinstance(axis, Finite)}
    for row, datum in enumerate(budget.data):
        needed = 0.0
        for order in orders(axes):
            pilot = Budget(datum[None], round(budget.limit ** (2 / 3)))
            height = lambda rows, z, row=row: free.log_likelihood(torch.full_like(rows, row), z)
            pointing = [lambda rows, z, g=g, row=row: g(torch.full_like(rows, row), z) for g in guides]
            base = replace(free, log_likelihood=height, budget=pilot)
            level = chain(order, base, axes, grids, tolerance, pointing)
            states, line = (len(level.states), level.inner) if isinstance(level, States) else (1, level)
            if not isinstance(line, Line):
                continue
            costs: list[float] = []
            for t in line.grid[(line.grid - line.grid.median()).abs().argsort()[:_PILOTS]]:
                z = torch.full((1, len(axes)), math.nan, dtype=torch.float64)
                for j, values in finite.items():
                    z[:, j] = values[0]
                z[:, line.column] = line.chart.point(t)
                pilot.spent.zero_()
                try:
                    line.inner.fold(torch.zeros(1, dtype=torch.int64), z)
                except OverBudget:
                    costs.append(math.inf)
                else:
                    costs.append(float(pilot.spent))
                if sum(cost == math.inf for cost in costs) > _PILOTS // 2:
                    break
            needed += states * sorted(costs)[_PILOTS // 2] ** 1.5
            if needed > budget.limit:
                raise pilot.refusal(budget.limit)


def _replaced(table: Tensor | None, rows: Tensor, by: Tensor | None) -> Tensor | None:
    return None if table is None or by is None else table.index_copy(0, rows, by)


def _checked(tally: Tally, data: Tensor) -> dict[str, Any]:
    log_mass, mass_error, _ = agreed(tally.log_mass)
    wanted = (
        "the prior's mass should be 1 (is it normalised, and visible from afar?), the quadrature found {}"
    )
    _refuse(~(log_mass.abs() <= mass_error + _MASS_SLACK), log_mass.exp(), wanted, data)
    evidence, evidence_error, apart = agreed(tally.evidence)
    kl, kl_error, kl_apart = agreed(tally.joint)
    poor = torch.maximum(evidence_error / (1 + evidence.abs()), kl_error / (1 + kl))
    wanted = f"the error should come below {_WORTH_STATING:g} of the answer, the quadrature reached {{}}"
    _refuse(~(poor <= _WORTH_STATING), poor, wanted, data)
    # Orders that disagree have missed something, which may sit in any of their informations.
    widened = torch.maximum(apart, kl_apart)[:, None]
    return {
        "log_evidence": evidence,
        "log_evidence_error": evidence_error,
        "kl": kl,
        "kl_error": kl_error,
        "kl_per_latent": tally.marginal,
        "kl_per_latent_error": tally.marginal_error + widened,
        "kl_conditional": tally.conditional,
        "kl_conditional_error": tally.conditional_error + widened,
        "mean": tally.mean,
        "sd": tally.sd,
        "grad_second_moment": tally.gradient,
        "prior_mass": log_mass.exp(),
    }


def _refuse(wrong: Tensor, value: Tensor, message: str, data: Tensor) -> None:
    if wrong.any():
        first = int(torch.nonzero(wrong)[0, 0])
        found = f"{float(value[first]):.3g}"
        raise QuadratureError(f"for datum {int(data[first])} {message.format(found)}")

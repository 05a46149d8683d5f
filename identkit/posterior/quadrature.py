"""The exact posterior of a model with few latents, by nested adaptive quadrature with a stated error.

Latents are integrated out one axis at a time, finite ones all together by summation. By the chain rule of the
relative entropy each order of the axes yields two informations exactly: the KL of the *marginal* of the axis
integrated last, and the mean KL of the *conditional* of the axis integrated first (theory/T2, T3). Every latent is
therefore once the last and once the first, and what two orders both yield must agree, or the errors are widened.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.protocol import Axis, Continuous, Finite
from identkit.posterior.adaptive import Values
from identkit.posterior.nested import Base, Chart, Folded, Level, Line, States, hints

LogPrior = Callable[[Tensor], Tensor]
LogLikelihood = Callable[[Tensor, Tensor], Tensor]

# The largest error worth stating, relative to a KL and absolute for log Z: beyond it the answer is refused.
_WORTH_STATING = 1e-4
_SEED_STATES = 16
_SCOUT = 160


class QuadratureError(ArithmeticError):
    """The quadrature found no answer with an error worth stating; the message says for which datum and why."""


@dataclass(frozen=True)
class Density:
    """A marginal density (or probability) on given points, before and after the data."""

    points: Float[Tensor, " m"]
    prior: Float[Tensor, "n m"]
    posterior: Float[Tensor, "n m"]


@dataclass(frozen=True)
class Quadrature:
    """The posterior of each datum, in nats; every error is a bound on the absolute error of its neighbour."""

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
    _outermost: tuple[Level, ...] = field(repr=False)
    _axes: tuple[Axis, ...] = field(repr=False)

    def marginal(self, index: int, points: Float[Tensor, " m"]) -> Density:
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
        points = torch.as_tensor(points, dtype=torch.float64)
        n = len(self.log_evidence)
        if isinstance(axis, Finite):
            return self._probabilities(index, points, level)
        inside = (points > axis.low) & (points < axis.high)
        if not inside.all():
            wrong = float(points[~inside][0])
            raise ValueError(f"points should lie inside ({axis.low:g}, {axis.high:g}), got {wrong:g}")
        with torch.no_grad():
            z = torch.full((n * len(points), len(self._axes)), math.nan, dtype=torch.float64)
            z[:, index] = points.repeat(n)
            values = level.inner.fold(torch.arange(n).repeat_interleave(len(points)), z).values
        prior = values.log_prior.reshape(n, -1)
        posterior = prior + values.log_likelihood.reshape(n, -1) - self.log_evidence[:, None]
        return Density(points, prior.exp(), posterior.exp())

    def _probabilities(self, index: int, points: Tensor, level: Level) -> Density:
        n = len(self.log_evidence)
        column = level.columns.index(index)
        with torch.no_grad():
            z = torch.full((n, len(self._axes)), math.nan, dtype=torch.float64)
            values = level.inner.fold(*level.expand(torch.arange(n), z)).values
        prior = values.log_prior.reshape(n, -1)
        joint = torch.where(prior > -math.inf, prior + values.log_likelihood.reshape(n, -1), -math.inf)
        member = (level.states[:, column, None] == points).to(torch.float64)
        if not member.any(0).all():
            wrong = float(points[~member.any(0)][0])
            raise ValueError(f"points should be among {self._axes[index].values}, got {wrong:g}")
        return Density(points, prior.exp() @ member, (joint - self.log_evidence[:, None]).exp() @ member)


def integrate(
    log_prior: LogPrior,
    log_likelihood: LogLikelihood,
    axes: Sequence[Axis],
    n: int,
    *,
    gradient: LogLikelihood | None = None,
    tolerance: float = 1e-11,
) -> Quadrature:
    """Compute the exact posterior of n data under a model with at most two or three continuous latents.

    ``p(z | x) = p(z) p(x | z) / ∫ p(x | z) p(z) dz`` and its divergences from the prior, in the cancellation-free
    form ``KL = E_P[u·eᵘ − expm1(u)]``, ``u = log dQ/dP`` (theory/T4): right down to 1e-25 as far as the given ℓ is,
    and never negative.

    Args:
        log_prior: (m, k) → (m,), the normalised joint prior density (a probability in the finite latents);
            −inf is zero. The prior need not be a product.
        log_likelihood: rows (m,) and z (m, k) → (m,): ℓ of datum ``rows[i]`` at ``z[i]``; −inf is zero.
            Called with at most 65,536 points at a time.
        axes: the support of each latent.
        n: number of data.
        gradient: rows and z → (m, k), ∂ℓ/∂z (zero for finite latents).
        tolerance: the error aimed at, relative for each KL and absolute for log p(x).

    Raises:
        ValueError: NaN or +inf in a density (the message names the point), a datum of probability zero, no latent.
        QuadratureError: the prior does not integrate to one, or no error worth stating was reached.

    >>> import torch
    >>> normal = torch.distributions.Normal(0, 1)
    >>> x = torch.tensor([0.0, 2.0], dtype=torch.float64)
    >>> q = integrate(
    ...     lambda z: normal.log_prob(z[:, 0]),
    ...     lambda rows, z: normal.log_prob(x[rows] - z[:, 0]),
    ...     [Continuous(-math.inf, math.inf)], 2)
    >>> q.mean[:, 0], q.kl
    (tensor([...0.0000e+00, 1.0000e+00], dtype=torch.float64), tensor([0.0966, 0.5966], dtype=torch.float64))
    """
    axes = tuple(axes)
    if not axes:
        raise ValueError("axes should name at least one latent, got none")
    if not 1e-15 <= tolerance <= 1e-3:
        raise ValueError(f"tolerance should be between 1e-15 and 1e-3, got {tolerance:g}")
    with torch.no_grad():
        return _integrate(log_prior, log_likelihood, axes, n, gradient, tolerance)


def _integrate(log_prior, log_likelihood, axes: tuple[Axis, ...], n: int, gradient, tolerance: float) -> Quadrature:
    base = Base(log_prior, log_likelihood, None)
    grids, top = hints(base, axes)
    base = Base(log_prior, log_likelihood, None, top)
    continuous = [j for j, axis in enumerate(axes) if isinstance(axis, Continuous)]
    finite = tuple(j for j, axis in enumerate(axes) if isinstance(axis, Finite))

    def chain(order: Sequence[int | tuple[int, ...]], level: Level) -> Level:
        for block in reversed(order):
            if isinstance(block, tuple):
                combinations = list(itertools.product(*(axes[j].values for j in block)))
                level = States(block, torch.tensor(combinations, dtype=torch.float64), level)
            else:
                chart = Chart(axes[block].low, axes[block].high)
                level = Line(block, chart, grids[block], level, tolerance, _SCOUT if len(continuous) == 1 else 0)
        return level

    rows, z = torch.arange(n), torch.full((n, len(axes)), math.nan, dtype=torch.float64)
    seeds: dict[int, Tensor] = {}
    tally = _Tally(n, len(axes))
    for order in _orders(continuous, finite):
        level = chain(order, Base(log_prior, log_likelihood, gradient, top) if not tally.orders else base)
        if isinstance(level, Line):
            folded = level.fold_from(rows, z, seeds.get(level.column))
        elif isinstance(level.inner, Line):
            inner = level.inner.fold(*level.expand(rows, z))
            folded = level.sum(inner.values, n)
            seeds[level.inner.column] = _seeds(inner, level.inner.chart, n)
        else:
            folded = level.fold(rows, z)
        tally.add(order, level, folded, gradient is not None)
    return tally.result(axes)


def _orders(continuous: list[int], finite: tuple[int, ...]) -> list[list[int | tuple[int, ...]]]:
    """Orders from the outermost axis in, in which each latent is once outermost and once innermost.

    Those with the finite latents outermost come first: they look at each state by itself, and what they find tells
    the others where to look.
    """
    if not continuous:
        return [[finite]]
    turns = [continuous[i:] + continuous[:i] for i in range(len(continuous))]
    if not finite:
        return [list(turn) for turn in turns]
    return [[finite, *turn] for turn in turns] + [[*turn, finite] for turn in turns]


def _seeds(inner: Folded, chart: Chart, n: int) -> Tensor:
    """Where the posterior of a latent lies in each state that has any, as points t for the sum over states."""
    weight = (inner.values.log_prior + inner.values.log_likelihood).reshape(n, -1).nan_to_num(-math.inf)
    best, state = weight.topk(min(_SEED_STATES, weight.shape[1]), dim=1)
    mean, sd = (v.reshape(n, -1).gather(1, state) for v in (inner.mean, inner.sd))
    mean = torch.where(best > best[:, :1] - 45, mean, math.nan)
    return chart.inverse(torch.cat([mean - sd, mean, mean + sd], 1))


class _Tally:
    """Gathers what the orders yield, and holds them against each other."""

    def __init__(self, n: int, k: int) -> None:
        def table() -> Tensor:
            return torch.zeros(n, k, dtype=torch.float64)

        self.orders = 0
        self.marginal, self.conditional, self.mean, self.sd = (table() for _ in range(4))
        self.marginal_error, self.conditional_error = table(), table()
        self.gradient: Tensor | None = None
        self.evidence: list[tuple[Tensor, Tensor]] = []
        self.joint: list[tuple[Tensor, Tensor]] = []
        self.log_mass: list[tuple[Tensor, Tensor]] = []
        self.outermost: dict[int, Level] = {}

    def add(self, order: Sequence[int | tuple[int, ...]], level: Level, folded: Folded, with_gradient: bool) -> None:
        values = folded.values
        impossible = torch.nonzero(values.log_likelihood == -math.inf)
        if len(impossible):
            raise ValueError(f"log_likelihood gives datum {int(impossible[0, 0])} probability zero wherever the prior has mass")
        position = 0
        if with_gradient and not self.orders:
            position = self.mean.shape[1]
            self.gradient = values.terms[:, :position]
        joint, joint_error = torch.zeros(2, len(values.error), dtype=torch.float64)
        for depth, block in enumerate(reversed(order)):
            columns = block if isinstance(block, tuple) else (block,)
            several = len(columns) > 1
            width = 1 + 2 * len(columns) if several else 1
            kl = values.terms[:, position : position + width]
            error = values.term_errors[:, position : position + width]
            joint, joint_error = joint + kl[:, 0], joint_error + error[:, 0]
            at = list(columns)
            if depth == len(order) - 1:
                here = slice(1, 1 + len(at)) if several else slice(0, 1)
                self.marginal[:, at], self.marginal_error[:, at] = kl[:, here], error[:, here]
                self.mean[:, at], self.sd[:, at] = folded.mean, folded.sd
                self.outermost |= dict.fromkeys(columns, level)
            if depth == 0:
                here = slice(1 + len(at), width) if several else slice(0, 1)
                self.conditional[:, at], self.conditional_error[:, at] = kl[:, here], error[:, here]
            position += width
        self.joint.append((joint, joint_error))
        self.evidence.append((values.log_likelihood, values.error))
        self.log_mass.append((values.log_prior, values.prior_error))
        self.orders += 1

    def result(self, axes: tuple[Axis, ...]) -> Quadrature:
        log_mass, mass_error, _ = _agreed(self.log_mass)
        self._check(log_mass.abs() > mass_error + 1e-6, log_mass.exp(), "the prior's mass should be 1, the quadrature found {}")
        evidence, evidence_error, apart = _agreed(self.evidence)
        kl, kl_error, kl_apart = _agreed(self.joint)
        poor = torch.maximum(evidence_error / (1 + evidence.abs()), kl_error / (1 + kl))
        message = "the error should come below {:g} of the answer, the quadrature reached {{}}".format(_WORTH_STATING)
        self._check(~(poor <= _WORTH_STATING), poor, message)
        widened = torch.maximum(apart, kl_apart)[:, None]
        return Quadrature(
            log_evidence=evidence,
            log_evidence_error=evidence_error,
            kl=kl,
            kl_error=kl_error,
            kl_per_latent=self.marginal,
            kl_per_latent_error=self.marginal_error + widened,
            kl_conditional=self.conditional,
            kl_conditional_error=self.conditional_error + widened,
            mean=self.mean,
            sd=self.sd,
            grad_second_moment=self.gradient,
            prior_mass=log_mass.exp(),
            _outermost=tuple(self.outermost[j] for j in range(len(axes))),
            _axes=axes,
        )

    @staticmethod
    def _check(wrong: Tensor, value: Tensor, message: str) -> None:
        if wrong.any():
            datum = int(torch.nonzero(wrong)[0, 0])
            raise QuadratureError(f"for datum {datum} {message.format(f'{float(value[datum]):.3g}')}")


def _agreed(answers: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """The answer of smallest stated error, its error, and by how much the answers differ beyond their errors."""
    values, errors = (torch.stack(part) for part in zip(*answers, strict=True))
    best = errors.argmin(0, keepdim=True)
    value, error = values.gather(0, best)[0], errors.gather(0, best)[0]
    apart = ((values - value).abs() - errors - error).amax(0).clamp(min=0)
    return value, error + apart, apart

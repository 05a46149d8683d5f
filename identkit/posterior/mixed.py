"""Smooth posteriors of continuous latents beside finite ones: the grids of `bell` in each joint state, combined.

In a state s the continuous latents have a posterior of their own, on grids of its own, however far from
the others'. Bayes' rule over the states and the chain rule put them together. Two kinds of information ask
for more: the marginal of a continuous latent is a mixture over states, each known on its own nodes, and
the conditional of a finite latent compares the states at one place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from identkit.model.protocol import Axis, Continuous, Finite
from identkit.posterior.bayes import EPSILON, Values
from identkit.posterior.bell import Bells, PriorOf
from identkit.posterior.chart import Chart
from identkit.posterior.nested import Base, States
from identkit.posterior.smooth import prior_marginals, smooth

#: Joint states at most: every one is compared with every other at each node.
MOST_STATES = 16
_MASS_SLACK = 1e-6
_WEIGHTY = 1e-25

Slopes = Callable[[Tensor, Tensor], Tensor]


def settle(
    base: Base,
    axes: Sequence[Axis],
    grids: dict[int, Tensor],
    n: int,
    gradient: Slopes | None,
    independent: bool,
) -> Bells | None:
    """Settle by equispaced grids the data whose posterior is smooth in every joint state of the finite latents.

    Args:
        base: the model; it counts and checks the evaluations.
        axes: continuous and finite ones, in any order; there may be no finite one.
        grids: for each continuous latent where to begin looking.
        n: number of data.
        gradient: as `integrate` takes it; the means reported are then those of z and of its squares, (n, 2k).
        independent: the latents are known to be independent under a normalised prior.

    Returns:
        None where the prior is no bell in some state, does not add up to one, or there are too many states.
    """
    finite = [(j, axis.values) for j, axis in enumerate(axes) if isinstance(axis, Finite)]
    states = torch.tensor(list(itertools.product(*(values for _, values in finite))), dtype=torch.float64)
    if len(states) > MOST_STATES:
        return None
    continuous = {
        j: Chart(axis.low, axis.high) for j, axis in enumerate(axes) if isinstance(axis, Continuous)
    }
    model = _Mixed(base, tuple(continuous), tuple(j for j, _ in finite), states)
    charts, looks = list(continuous.values()), {i: grids[j] for i, j in enumerate(continuous)}
    priors = [prior_marginals(model.slice(s, 0.0), charts, looks, independent) for s in range(len(states))]
    known = [prior for prior in priors if prior is not None]
    if len(known) < len(states):
        return None
    log_mass = torch.tensor([mass for _, mass in known], dtype=torch.float64)
    if abs(float(torch.logsumexp(log_mass, 0))) > _MASS_SLACK:
        return None

    def reports(s: int) -> Callable[[Tensor, Tensor], Tensor]:
        def report(rows: Tensor, z: Tensor) -> Tensor:
            parts = [z]
            if gradient is not None:
                parts.append(gradient(rows, model.filled(s, z)).square()[:, list(model.continuous)])
            return torch.cat(parts if len(states) == 1 else [*parts, model.comparisons(s, rows, z)], 1)

        return report

    parts = [
        smooth(model.slice(s, mass), charts, prior, looks, n, reports(s), curves=len(states) > 1)
        for s, ((prior, _), mass) in enumerate(zip(known, log_mass.tolist(), strict=True))
    ]
    if not finite:
        return parts[0]
    return _combined(model, parts, [prior for prior, _ in known], log_mass, gradient is not None)


@dataclass(frozen=True)
class _Mixed:
    """A model of latents in two kinds of columns, seen from single joint states of the finite ones."""

    base: Base
    continuous: tuple[int, ...]
    finite: tuple[int, ...]
    states: Tensor
    """(s, f) every combination of values."""

    def filled(self, state: int, z: Tensor) -> Tensor:
        """All latents in their columns: continuous ones z (m, c) and one state of the finite ones."""
        if not self.finite:
            return z
        every = z.new_empty(len(z), len(self.continuous) + len(self.finite))
        every[:, list(self.continuous)] = z
        every[:, list(self.finite)] = self.states[state]
        return every

    def slice(self, state: int, log_mass: float) -> Base:
        """The model of the continuous latents within a state of the given probability."""
        base = self.base
        return Base(
            lambda z: base.log_prior(self.filled(state, z)) - log_mass,
            lambda rows, z: base.log_likelihood(rows, self.filled(state, z)),
            None,
            base.top - log_mass,
            base.budget,
        )

    def comparisons(self, state: int, rows: Tensor, z: Tensor) -> Tensor:
        """``log p(s_j | s_−j, z, x) − log p(s_j | s_−j, z)`` of each finite latent in a state, (m, f).

        It is ``ℓ(s) − log E[e^ℓ | s_−j, z]``: how much better than its alternatives a state explains the datum.
        """
        values = [self.base.fold(rows, self.filled(s, z)).values for s in range(len(self.states))]
        prior = torch.stack([value.log_prior for value in values], 1)
        height = torch.stack([value.log_likelihood for value in values], 1)
        own = height[:, state]
        answers = []
        for column in range(len(self.finite)):
            rest = [c for c in range(len(self.finite)) if c != column]
            group = (self.states[:, rest] == self.states[state, rest]).all(1)
            among = torch.log_softmax(prior[:, group], 1)
            answers.append(-torch.logsumexp(among + (height[:, group] - own[:, None]), 1))
        # Where the state is impossible its posterior has no mass.
        return torch.stack(answers, 1).nan_to_num(0.0, 0.0, 0.0)


def _combined(
    model: _Mixed, parts: list[Bells], priors: list[PriorOf], log_mass: Tensor, sloping: bool
) -> Bells:
    """One posterior from those within the states, by Bayes' rule over the states and the chain rule."""
    n, c, f = len(parts[0].good), len(model.continuous), len(model.finite)
    values = [_as_values(part, mass, f, sloping) for part, mass in zip(parts, log_mass, strict=True)]
    tables = [torch.stack([getattr(v, field.name) for v in values], 1) for field in fields(Values)]
    flat = Values(*(table.flatten(0, 1) for table in tables))
    level = States(model.finite, model.states, model.base)
    folded = level.sum(flat, n)
    terms, errors = folded.values.terms, folded.values.term_errors
    log_evidence = folded.values.log_likelihood
    height = torch.stack([part.value[:, 0] for part in parts], 1)
    weight = torch.softmax(log_mass + height, 1)
    marginal, marginal_error = _marginals(parts, priors, log_mass, weight)

    k, start = c + f, 1 + c + f
    value, error = torch.zeros(2, n, 2 + 2 * k, dtype=torch.float64)
    value[:, 0], error[:, 0] = log_evidence, folded.values.error
    # What the states add: their joint KL, and with several finite latents the marginal KL of each.
    added = terms.shape[1] - (1 if f == 1 else 1 + 2 * f)
    value[:, 1] = terms[:, 0] + terms[:, added]
    error[:, 1] = errors[:, 0] + errors[:, added]
    columns = [*model.continuous, *model.finite]
    own = slice(added, added + 1) if f == 1 else slice(added + 1, added + 1 + f)
    value[:, [2 + j for j in columns]] = torch.cat([marginal, terms[:, own]], 1)
    error[:, [2 + j for j in columns]] = torch.cat([marginal_error, errors[:, own]], 1)
    value[:, [2 + k + j for j in columns]] = terms[:, 1:start].clamp(min=0)
    error[:, [2 + k + j for j in columns]] = errors[:, 1:start]

    centres, spreads = (
        torch.stack([getattr(part, name)[:, :c] for part in parts], 1) for name in ("mean", "sd")
    )
    middle = (weight[..., None] * centres).sum(1)
    second = (weight[..., None] * (spreads.square() + (centres - middle[:, None]).square())).sum(1)
    mean, sd = torch.zeros(2, n, 2 * k if sloping else k, dtype=torch.float64)
    mean[:, list(model.continuous)], sd[:, list(model.continuous)] = middle, second.sqrt()
    mean[:, list(model.finite)], sd[:, list(model.finite)] = folded.mean, folded.sd
    if sloping:
        mean[:, [k + j for j in model.continuous]] = terms[:, start:added]
    # An answer of which a state is missing is none.
    good = torch.stack([part.good for part in parts]).all(0)
    nothing = torch.zeros(n, 0, dtype=torch.float64)
    return Bells(good, value, error, mean, torch.zeros_like(mean), sd, nothing, nothing, nothing[..., None])


def _as_values(part: Bells, log_mass: Tensor, finite: int, sloping: bool) -> Values:
    """What the grids say of one state, as what `States` sums: terms are expectations given the state.

    KL, the conditional KLs of the continuous latents and of the finite ones, and the mean squared slopes.
    """
    c = (part.value.shape[1] - 2) // 2
    evidence, kl, given = part.value[:, 0], part.value[:, 1:2], part.value[:, 2 + c :]
    errors = part.error
    compared = slice(part.mean.shape[1] - finite, None)
    # The comparison of states is off by what rounding does to ℓ, as log p(x) is, and by mass beyond the grid.
    off = part.mean_error[:, compared] + errors[:, :1] * (2 + part.mean[:, compared].abs()) + errors[:, 1:2]
    slopes = slice(c, 2 * c if sloping else c)
    terms = torch.cat([kl, given, part.mean[:, compared], part.mean[:, slopes]], 1)
    term_errors = torch.cat([errors[:, 1:2], errors[:, 2 + c :], off, part.mean_error[:, slopes]], 1)
    prior = log_mass.expand(len(evidence))
    rounding = 4 * EPSILON * (1 + log_mass.abs()).expand(len(evidence))
    return Values(prior, rounding, evidence, errors[:, 0], terms, term_errors)


def _marginals(
    parts: list[Bells], priors: list[PriorOf], log_mass: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """``KL(q(t_j) ‖ p(t_j))`` where both are mixtures over the states, and its error, each (n, c).

    A state's density between its nodes is a sum of sinc functions: as accurate as equal steps are.

    Source: Stenger 1993, Numerical Methods Based on Sinc and Analytic Functions, section 3.1.
    """
    n, c, size = parts[0].marginal.shape
    origin, spacing, density = (
        torch.stack([getattr(part, name) for part in parts]) for name in ("origin", "spacing", "marginal")
    )
    value, error = torch.zeros(2, n, c, dtype=torch.float64)
    number = torch.arange(size, dtype=torch.float64)
    good = torch.stack([part.good for part in parts]).all(0)
    for i, j in itertools.product(torch.nonzero(good)[:, 0].tolist(), range(c)):
        tables = density[:, i, j]
        used = int(torch.nonzero(tables.amax(0)).max()) + 2
        t = origin[:, i, j, None] + spacing[:, i, j, None] * number[:used]
        tables = tables[:, :used]
        q = weight[i]
        mixture, apart = _mixture(t, spacing[:, i, j], tables, q)
        # Each of the two interlaced grids makes a law by itself; the nodes of one state are steps apart.
        mass = q[:, None] * tables * spacing[:, i, j, None] * 2
        seen = mass > _WEIGHTY
        point = torch.zeros(int(seen.sum()), c, dtype=torch.float64)
        point[:, j] = t[seen]
        prior = torch.logsumexp(
            torch.stack([own + prior((j,), point) for own, prior in zip(log_mass, priors, strict=True)]), 0
        )
        ratio = torch.zeros_like(mass)
        ratio[seen] = mixture[seen].log() - prior
        halves = [(mass * ratio)[:, half::2].sum() for half in (0, 1)]
        kl = ((halves[0] + halves[1]) / 2).clamp(min=0)
        # The states' own errors, those of their weights, and of the interpolation: an error δ of a density
        # adds at most ∫ δ to a KL.
        own = torch.stack([part.error[i, 2 + j] + part.error[i, 0] * (1 + kl) for part in parts])
        between = (mass / 2 * apart / mixture.clamp(min=1e-300))[seen].sum()
        error[i, j] = 2 * (halves[0] - halves[1]).abs() + (q * own).sum() + between
        value[i, j] = kl
    return value, error


def _mixture(t: Tensor, spacing: Tensor, tables: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """``Σ_s w_s q_s(t)`` at the nodes t (S, m) of every state, and a bound on the interpolation's error there.

    Halving the steps squares the error of a sinc interpolation, or does better. What one of the interlaced grids
    misses of the other, squared, is therefore what both together miss.
    """
    mixture, apart = torch.zeros_like(t), torch.zeros_like(t)
    for s in range(len(t)):
        step, table, first = spacing[s], tables[s], t[s, 0]
        place = (t - first) / step
        table = table[: int(torch.nonzero(table).max()) + 1]
        waves = torch.sinc(place[..., None] - torch.arange(len(table), dtype=torch.float64))
        between = (waves * table).sum(-1).clamp(min=0)
        between[s] = tables[s]
        highest = table.max()
        half = (place[s, 1 : len(table) : 2, None] - torch.arange(0, len(table), 2, dtype=torch.float64)) / 2
        missed = ((torch.sinc(half) * table[::2]).sum(-1) - table[1::2]).abs().max() / highest
        off = torch.full_like(t, float(weight[s] * highest * (missed.square() + 1e-15)))
        off[s] = 0.0
        mixture += weight[s] * between
        apart += off
    return mixture, apart

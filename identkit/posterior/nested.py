"""Integrating latents out level by level: the model itself, a sum over finite latents, a line for each other.

Every level folds a batch of partly fixed latents into `Values`: the prior density of what is fixed, the
integrated likelihood ``log p(x | what is fixed)``, and posterior expectations under what has been
integrated out, each level adding its own KL to those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from identkit.posterior.bayes import EPSILON, Law, Values, bayes, kl_density

_POINTS_AT_ONCE = 16384
# A NaN counts as zero likelihood where the prior density is e^-800 of its top: it is overflow far outside.
_FAR_OUTSIDE = 800.0
# A million standard deviations out the prior's logarithm no longer tells neighbouring points apart: zero mass.
_NOWHERE = 1e12


@dataclass(frozen=True)
class Folded:
    """Values with this level's own latents integrated out, and the posterior mean and sd of those, (m, a)."""

    values: Values
    mean: Tensor
    sd: Tensor

    @staticmethod
    def cat(parts: list[Folded]) -> Folded:
        values = Values.cat([part.values for part in parts])
        return Folded(
            values, torch.cat([part.mean for part in parts]), torch.cat([part.sd for part in parts])
        )


@runtime_checkable
class Level(Protocol):
    """What can be integrated out further."""

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        """rows (m,) of data, z (m, k) latents of which those further out are fixed."""
        ...


class OverBudget(ValueError):
    """A datum that takes more evaluations of ℓ than it may."""


class Budget:
    """How many evaluations of ℓ each datum has had, and may have: a ridge too sharp is refused, not endured."""

    def __init__(self, data: Tensor, limit: int) -> None:
        self.data = data
        self.spent = torch.zeros(len(data), dtype=torch.int64)
        self.limit = limit

    def spend(self, rows: Tensor) -> None:
        self.spent += torch.bincount(rows, minlength=len(self.spent))
        worst = int(self.spent.argmax())
        if int(self.spent[worst]) > self.limit:
            raise self.refusal(self.limit, worst)

    def refusal(self, limit: int, row: int = 0) -> OverBudget:
        """What to raise where a datum would take more than `limit` evaluations."""
        return OverBudget(
            f"the quadrature of datum {int(self.data[row])} should need at most {limit:,} evaluations of "
            "log p(x | z), its budget, and needs more: the posterior is too sharp, too crooked or has too "
            "many peaks for this number of latents"
        )


@dataclass(frozen=True)
class Base:
    """The model with all latents fixed; it also checks what the model returns and counts the calls."""

    log_prior: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor] | None
    top: float = -math.inf
    budget: Budget | None = field(default=None, repr=False)

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        if self.budget is not None:
            self.budget.spend(rows)
        blocks = zip(rows.split(_POINTS_AT_ONCE), z.split(_POINTS_AT_ONCE), strict=True)
        return Folded(Values.cat([self._block(*block) for block in blocks]), z[:, :0], z[:, :0])

    def prior(self, z: Tensor) -> Tensor:
        density = _shaped(self.log_prior(z), (len(z),), "log_prior")
        _refuse(density.isnan() | (density == math.inf), density, "log_prior", None, z)
        return density

    def _block(self, rows: Tensor, z: Tensor) -> Values:
        prior = self.prior(z)
        possible = prior > self.top - _NOWHERE
        prior = torch.where(possible, prior, -math.inf)
        likelihood = torch.full_like(prior, -math.inf)
        if possible.all():
            likelihood = _shaped(self.log_likelihood(rows, z), (len(z),), "log_likelihood")
        elif possible.any():
            values = self.log_likelihood(rows[possible], z[possible])
            likelihood[possible] = _shaped(values, (int(possible.sum()),), "log_likelihood")
        wrong = likelihood.isnan() | (likelihood == math.inf)
        if wrong.any():
            outside = wrong & (prior < self.top - _FAR_OUTSIDE)
            _refuse(wrong & ~outside, likelihood, "log_likelihood", rows, z)
            likelihood = likelihood.masked_fill(outside, -math.inf)
        terms = z[:, :0]
        if self.gradient is not None:
            with torch.enable_grad():
                terms = _shaped(self.gradient(rows, z), tuple(z.shape), "gradient").square()
            terms = torch.where((likelihood > -math.inf)[:, None], terms, 0.0)
        rounding = [4 * EPSILON * (1 + torch.where(v.isfinite(), v, 0.0).abs()) for v in (prior, likelihood)]
        return Values(prior, rounding[0], likelihood, rounding[1], terms, 16 * EPSILON * terms)


@dataclass(frozen=True)
class States:
    """All finite latents together, summed over exactly.

    It adds the KL of their joint law; with several of them also, for each, that of its marginal and the
    mean KL of its conditional given the others, all within what is fixed further out.
    """

    columns: tuple[int, ...]
    states: Tensor
    """(s, a) every combination of their values."""
    inner: Level

    def expand(self, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        count = len(self.states)
        z = z.repeat_interleave(count, 0)
        z[:, list(self.columns)] = self.states.repeat(len(rows), 1)
        return rows.repeat_interleave(count), z

    def fold(self, rows: Tensor, z: Tensor) -> Folded:
        size = max(1, _POINTS_AT_ONCE // len(self.states))
        parts = []
        for some_rows, some_z in zip(rows.split(size), z.split(size), strict=True):
            inner = self.inner.fold(*self.expand(some_rows, some_z))
            parts.append(self.sum(inner.values, len(some_rows)))
        return Folded.cat(parts)

    def sum(self, flat: Values, count: int) -> Folded:
        """Apply Bayes' rule to the inner values of all states, flat (m·s,), the states running fastest."""
        values = flat.map(lambda v: v.reshape(count, len(self.states), *v.shape[1:]))
        law = bayes(torch.arange(count), count, torch.zeros(()), values)
        mean = law.posterior @ self.states
        away = self.states - mean[:, None]
        sd = (law.posterior[..., None] * away.square()).sum(1).clamp(min=0).sqrt()
        informations = [(law.kl, law.kl_error)]
        if len(self.columns) > 1:
            error = torch.where(law.posterior > 0, values.error, 0.0)
            square = (law.posterior * error.square()).sum(1)
            for others in (False, True):
                for column in range(len(self.columns)):
                    informations.append(self._split(law, column, others, square))
        added = [torch.stack(pair, 1) for pair in zip(*informations, strict=True)]
        summed = Values(
            law.log_mass,
            law.mass_error,
            law.log_evidence,
            law.evidence_error,
            torch.cat([law.terms, added[0]], 1),
            torch.cat([law.term_errors, added[1]], 1),
        )
        return Folded(summed, mean, sd)

    def _split(self, law: Law, column: int, given_others: bool, square: Tensor) -> tuple[Tensor, Tensor]:
        """KL of one latent's marginal, or mean KL of its conditional given the others, and its error."""
        kept = [c for c in range(len(self.columns)) if (c == column) != given_others]
        _, group = torch.unique(self.states[:, kept], dim=0, return_inverse=True)
        # Added up by index: a matrix of states by groups would be too large where there are many of each.
        empty = law.prior.new_zeros(len(law.prior), int(group.max()) + 1)
        parts = (law.prior, law.gap, law.posterior)
        prior, gap, mass = (empty.index_add(1, group, part) for part in parts)
        share = gap / torch.where(prior > 0, prior, 1.0)
        # q − p serves where q is close to p; where little of p is left, 1 + share would have lost the digits of q.
        near = torch.log1p(share.clamp(min=-0.5))
        group_ratio = torch.where(share > -0.5, near, torch.log(mass) - torch.log(prior))
        group_ratio = torch.where(prior > 0, group_ratio, 0.0)
        if given_others:
            ratio = law.ratio - group_ratio[:, group]
            ratio = torch.where(law.ratio > -math.inf, ratio, -math.inf)
            tilted = law.prior * torch.exp(group_ratio)[:, group]
            density, posterior = kl_density(tilted, law.posterior, ratio), law.posterior
        else:
            ratio, posterior = group_ratio, prior + gap
            density = kl_density(prior, posterior, ratio)
        kl = density.sum(1)
        spread = (posterior * torch.where(posterior > 0, ratio, 0.0).square()).sum(1)
        return kl, (spread * square).sqrt() + square + 8 * EPSILON * kl


def _refuse(wrong: Tensor, density: Tensor, name: str, rows: Tensor | None, z: Tensor) -> None:
    if wrong.any():
        i = int(torch.nonzero(wrong)[0, 0])
        point = ", ".join(f"{v:.6g}" for v in z[i].tolist())
        row = "" if rows is None else f" for datum {int(rows[i])}"
        raise ValueError(
            f"{name} should be a number below infinity, got {float(density[i])}{row} at z = ({point})"
        )


def _shaped(answer: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    if tuple(answer.shape) != shape:
        raise ValueError(
            f"{name} should return shape {shape} for {shape[0]} points, got {tuple(answer.shape)}"
        )
    return answer.detach().to(torch.float64)

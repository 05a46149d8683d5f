"""Marginal maximum likelihood of item parameters by expectation–maximisation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from identkit.classical.em import Convergence, ConvergenceWarning, extrapolated, maximise

_ORDERS = {1: 141, 2: 17, 3: 11}
_REACH = 7.0
_RESOLVED = 1e-2
"""How far, in nats, the log-likelihood may move on a grid twice as fine before the fit says so."""
_STEEPEST = 15.0
"""The slope that equal steps of 0.1 resolve."""
_STARTS = {1: 1, 2: 3, 3: 3}
_STEPS = 3
_HALVINGS = 12
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Items:
    """What is estimated: slopes (J, K) and intercepts (J,)."""

    slopes: Float[Tensor, "j k"]
    intercepts: Float[Tensor, " j"]

    @staticmethod
    def rule(order: int, k: int) -> tuple[Tensor, Tensor]:
        """Nodes (m, k) and weights (m,) of a product of Gauss–Hermite rules for N(0, I_k)."""
        points, masses = np.polynomial.hermite_e.hermegauss(order)
        masses = masses / masses.sum()
        nodes = np.stack([axis.ravel() for axis in np.meshgrid(*[points] * k, indexing="ij")], -1)
        weights = np.prod(np.meshgrid(*[masses] * k, indexing="ij"), axis=0).ravel()
        keep = weights > 1e-32
        return torch.from_numpy(nodes[keep]), torch.from_numpy(weights[keep] / weights[keep].sum())


def fitted(
    x: Float[Tensor, "n j"],
    abilities: int,
    guesses: Float[Tensor, " j"],
    equal: bool,
    tolerance: float,
    iterations: int,
    generator: torch.Generator | None,
) -> tuple[Items, Convergence]:
    """Climb ``Σ_i log Σ_q w_q p(x_i | θ_q)``: expected counts of right answers at each node, then Fisher scoring.

    Source: Bock & Aitkin 1981, Psychometrika 46:443.

    Raises:
        ValueError: an item that all answered alike: its maximum is at infinity.
    """
    right, wrong = (x == 1).to(torch.float64), (x == 0).to(torch.float64)
    alike = torch.nonzero((right.sum(0) == 0) | (wrong.sum(0) == 0))
    if len(alike):
        raise ValueError(
            f"x should have right and wrong answers to every item, got only one kind in column {int(alike[0, 0])}"
        )
    nodes, weights = _rule(_ORDERS[abilities], abilities)
    share = (right.sum(0) / (right.sum(0) + wrong.sum(0)) - guesses) / (1 - guesses)
    intercepts = torch.logit(share.clamp(0.02, 0.98))
    starts = []
    for _ in range(_STARTS[abilities]):
        slopes = torch.ones(x.shape[1], abilities, dtype=torch.float64)
        if abilities > 1:
            slopes = slopes * torch.randn(slopes.shape, generator=generator, dtype=torch.float64)
        starts.append(Items(slopes, intercepts))

    def step(items: Items) -> tuple[Items, float]:
        hits, misses, height = _counted(items, guesses, right, wrong, nodes, weights)
        for _ in range(_STEPS):
            items = _scored(items, guesses, nodes, hits, misses, equal)
        return items, height

    best, convergence = maximise(starts, step, tolerance, iterations, _leap)
    rules = (_ORDERS[abilities], 2 * _ORDERS[abilities] - 1)
    coarse, fine = (_counted(best, guesses, right, wrong, *_rule(order, abilities))[2] for order in rules)
    steepest = float(best.slopes.abs().max())
    if abs(fine - coarse) > _RESOLVED or steepest > _STEEPEST:
        warnings.warn(
            f"{convergence}, and {fine - coarse:+.2g} on a grid twice as fine; a slope of {steepest:.3g} is more than "
            "the grid of the fit resolves: the data may ask for one without end",
            ConvergenceWarning,
            stacklevel=3,
        )
    return best, convergence


def _leap(one: Items, two: Items, three: Items, stride: float) -> Items:
    """Where three iterations lead, as `identkit.classical.em.maximise` takes it."""
    return Items(
        extrapolated(one.slopes, two.slopes, three.slopes, stride),
        extrapolated(one.intercepts, two.intercepts, three.intercepts, stride),
    )


def _rule(order: int, k: int) -> tuple[Tensor, Tensor]:
    """Equal steps for one ability: of steep items Gauss–Hermite's few nodes see cliffs."""
    if k > 1:
        return Items.rule(order, k)
    points = torch.linspace(-_REACH, _REACH, order, dtype=torch.float64)
    return points[:, None], torch.softmax(-points.square() / 2, 0)


def _counted(
    items: Items, guesses: Tensor, right: Tensor, wrong: Tensor, nodes: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Expected numbers of right and wrong answers at each node, (q, j) each, and the log-likelihood in nats."""
    log_right, log_wrong = _logs(items, guesses, nodes)
    hits = torch.zeros(len(nodes), right.shape[1], dtype=torch.float64)
    misses, height = torch.zeros_like(hits), 0.0
    for good, bad in zip(right.split(_ROWS_AT_ONCE), wrong.split(_ROWS_AT_ONCE), strict=True):
        joint = good @ log_right.T + bad @ log_wrong.T + weights.log()
        evidence = torch.logsumexp(joint, 1)
        height += float(evidence.sum())
        posterior = torch.exp(joint - evidence[:, None])
        hits += posterior.T @ good
        misses += posterior.T @ bad
    return hits, misses, height


def _logs(items: Items, guesses: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """``log p(x_j = 1 | θ_q)`` and ``log p(x_j = 0 | θ_q)``, (q, j)."""
    logit = nodes @ items.slopes.T + items.intercepts
    guessed = torch.log(guesses + (1 - guesses) * torch.sigmoid(logit))
    return torch.where(guesses > 0, guessed, logsigmoid(logit)), torch.log1p(-guesses) + logsigmoid(-logit)


def _expected(items: Items, guesses: Tensor, nodes: Tensor, hits: Tensor, misses: Tensor) -> Tensor:
    log_right, log_wrong = _logs(items, guesses, nodes)
    return (hits * log_right + misses * log_wrong).sum(0)


def _scored(items: Items, guesses: Tensor, nodes: Tensor, hits: Tensor, misses: Tensor, equal: bool) -> Items:
    """One step of Fisher scoring for all items at once, halved until no expected log-likelihood falls."""
    logit = nodes @ items.slopes.T + items.intercepts
    rise = torch.sigmoid(logit)
    chance = guesses + (1 - guesses) * rise
    # dP/dη / (P(1 − P)) is σ/P: 1 without guessing.
    pull = torch.where(guesses > 0, rise / chance, torch.ones_like(rise))
    slope = (hits - (hits + misses) * chance) * pull
    curvature = (hits + misses) * pull * (1 - guesses) * rise * (1 - rise)
    design = torch.cat([nodes, torch.ones_like(nodes[:, :1])], 1)
    score = slope.T @ design
    information = torch.einsum("qj,qa,qb->jab", curvature, design, design)
    width = design.shape[1]
    information = information + 1e-10 * torch.eye(width, dtype=torch.float64)
    if equal:
        # One slope a for all: eliminate the intercepts, each of which touches its own item alone.
        cross, own = information[:, 0, 1], information[:, 1, 1]
        top = information[:, 0, 0].sum() - (cross.square() / own).sum()
        change = (score[:, 0].sum() - (cross * score[:, 1] / own).sum()) / top
        move = torch.stack([change.expand(len(own)), (score[:, 1] - cross * change) / own], 1)
    else:
        move = torch.linalg.solve(information, score)
    before = _expected(items, guesses, nodes, hits, misses)
    share = torch.ones(len(move), 1, dtype=torch.float64)
    for _ in range(_HALVINGS):
        tried = Items(items.slopes + share * move[:, :-1], items.intercepts + (share * move[:, -1:])[:, 0])
        after = _expected(tried, guesses, nodes, hits, misses)
        falls = (after.sum() < before.sum()).expand(len(move)) if equal else after < before
        if not bool(falls.any()):
            return tried
        share = torch.where(falls[:, None], share / 2, share)
    stay = torch.where(falls[:, None], 0.0, share)
    return Items(items.slopes + stay * move[:, :-1], items.intercepts + (stay * move[:, -1:])[:, 0])

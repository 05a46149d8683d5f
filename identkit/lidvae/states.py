"""What discrete latents say: how much about the data, and how well they agree with labels that nobody trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Agreement(NamedTuple):
    """Of two partitions of the same rows, from the table that counts how often each pair of classes meets."""

    accuracy: float
    """The share of rows whose state is the one that stands for their label, under the best assignment one to one."""
    ari: float
    """Rand's index adjusted for chance: 1 for equal partitions, 0 on average for random ones (Hubert & Arabie 1985)."""
    nmi: float
    """Mutual information over the mean of both entropies; 1 for equal partitions."""


def agreement(labels: Int[Tensor, " n"], states: Int[Tensor, " n"]) -> Agreement:
    """How well states agree with labels, whatever either are called.

    Args:
        labels, states: a whole number for each row.

    Raises:
        ValueError: different numbers of rows, or none.

    >>> agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 3, 3]))
    Agreement(accuracy=1.0, ari=1.0, nmi=1.0)
    """
    if len(labels) != len(states) or len(labels) == 0:
        raise ValueError(
            f"labels and states should be of the same rows, at least one, got {len(labels)} and {len(states)}"
        )
    table = _table(labels, states)
    n = len(labels)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return Agreement(float(table[rows, columns].sum()) / n, _adjusted_rand(table), _normalised(table / n))


def _table(labels: Tensor, states: Tensor) -> Float[Tensor, "l c"]:
    """How often each label meets each state; both renumbered, so that classes without rows leave none."""
    _, row = labels.cpu().unique(return_inverse=True)
    _, column = states.cpu().unique(return_inverse=True)
    width = int(column.max()) + 1
    counts = torch.bincount(row * width + column, minlength=(int(row.max()) + 1) * width)
    return counts.reshape(-1, width).double()


def _adjusted_rand(table: Float[Tensor, "l c"]) -> float:
    """``(index − expected)/(largest − expected)`` of pairs of rows that are together in both partitions."""

    def pairs(counts: Tensor) -> float:
        return float((counts * (counts - 1) / 2).sum())

    index, of_labels, of_states = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = of_labels * of_states / max(pairs(table.sum()), 1.0)
    largest = (of_labels + of_states) / 2
    # Both partitions hold one class, or only single rows: they are the same.
    return 1.0 if largest == expected else (index - expected) / (largest - expected)


def _normalised(joint: Float[Tensor, "l c"]) -> float:
    """``I(l; c) / ½(H(l) + H(c))``; 1 where neither varies."""
    label, state = joint.sum(1), joint.sum(0)
    entropies = float(_entropy(label) + _entropy(state))
    if entropies == 0.0:
        return 1.0
    shared = float(_entropy(label) + _entropy(state) - _entropy(joint.flatten()))
    return min(1.0, max(0.0, 2 * shared / entropies))


def _entropy(chances: Float[Tensor, "*n c"]) -> Float[Tensor, "*n"]:
    return -torch.special.xlogy(chances, chances).sum(-1)


@dataclass(frozen=True, kw_only=True)
class States:
    """What the discrete latent of one member says on n rows, in nats a row."""

    states: int
    """C."""
    used: int
    """States that are the likeliest of some row."""
    information: float
    """``I_q(y; x) = H(q(y)) − E_x H(q(y | x))`` on all rows, summed exactly."""
    information_error: float
    cap: float
    """log C: no more can be said by one of C states."""
    accuracy: float | None
    """As in `Agreement`, of the likeliest state; None where the data have no labels."""
    ari: float | None
    nmi: float | None


def state_information(log_weight: Float[Tensor, "*e n c"]) -> tuple[Tensor, Tensor]:
    """``I_q(y; x)`` of each member with its standard error over rows: exact for these rows, without a draw.

    ``(1/n) Σ_i KL(q(y | x_i) ‖ q(y))``, q(y) being the average over all rows; at most log C.

    Args:
        log_weight: ``log q(y | x)`` of n rows.

    >>> certain = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    >>> round(float(state_information(certain)[0]), 4)  # log 2
    0.6931
    """
    q = log_weight.double().exp()
    marginal = q.mean(-2, keepdim=True)
    information = (torch.special.xlogy(q, q) - torch.special.xlogy(q, marginal)).sum(-1)
    return information.mean(-1), information.std(-1) / math.sqrt(information.shape[-1])


def measure_states(
    log_weight: Float[Tensor, "e n c"], labels: Int[Tensor, " n"] | None
) -> tuple[States, ...]:
    """Measure the discrete latent of every member.

    Args:
        log_weight: ``log q(y | x)``.
        labels: what each row is.
    """
    information, error = state_information(log_weight)
    likeliest = log_weight.argmax(-1)
    count = log_weight.shape[-1]
    found = []
    for number, chosen in enumerate(likeliest):
        agreed = None if labels is None else agreement(labels, chosen)
        found.append(
            States(
                states=count,
                used=len(chosen.unique()),
                information=float(information[number]),
                information_error=float(error[number]),
                cap=math.log(count),
                accuracy=None if agreed is None else agreed.accuracy,
                ari=None if agreed is None else agreed.ari,
                nmi=None if agreed is None else agreed.nmi,
            )
        )
    return tuple(found)

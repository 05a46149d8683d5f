"""Finite priors: every state's law, or log density on the data, is compared with every other's, so nothing is sampled.

Two states with one law are merged (theory/T2): the latents in which they differ are PARTIAL, and CONSTANT where no
change of them alone is ever seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from identkit.numeric.found import Found
from identkit.numeric.merged import merged, state_name
from identkit.numeric.probed import Probed
from identkit.numeric.rounding import of_states
from identkit.numeric.state_proof import states as prove_states
from identkit.verdict import Certificate, Invariance, Level

_SHOWN = 16  # merged groups that are shown
_LISTED = 4  # states of a group, and near pairs, that are named
_DISTINCT = 1e4  # roundings by which two laws have to differ to be called different


@dataclass(frozen=True, eq=False, repr=False)
class StatesCompared(Certificate):
    """Which states of a finite prior have one log density of a datum, to the last bit, and how far apart others are."""

    numbers: Callable[[Float[Tensor, "s k"]], Float[Tensor, "s q"]]
    """State → the numbers that are equal exactly where two states are indistinguishable."""
    states: Float[Tensor, "s k"]
    groups: tuple[tuple[int, ...], ...]
    """Indices into `states`, every one in one group."""

    @property
    def kind(self) -> str:
        """How it is proved."""
        return "all states compared"

    @property
    def statement(self) -> str:
        """What is proved."""
        merged = sum(len(group) > 1 for group in self.groups)
        same = f"{merged} group{'s' * (merged != 1)} of states with equal densities, " if merged else ""
        return (
            f"All {len(self.states)} states compared: {same}and {len(self.groups)} different densities, the closest two "
            f"{self.distance():.3g} times their rounding apart."
        )

    def distance(self) -> float:
        """The smallest distance between two groups, in units of rounding; ∞ for one group."""
        with torch.no_grad():
            values = self.numbers(self.states[[group[0] for group in self.groups]])
        # A number that is 0 at all states may be divided by anything.
        return _closest(values / of_states(values).clamp(min=torch.finfo(values.dtype).tiny))

    def verify(self) -> bool:
        """Whether states of one group agree to the last bit, and those of two groups differ far beyond rounding."""
        listed = sorted(index for group in self.groups for index in group)
        if listed != list(range(len(self.states))):
            return False
        with torch.no_grad():
            values = self.numbers(self.states)
        same = all(bool((values[list(group)] == values[group[0]]).all()) for group in self.groups)
        return same and self.distance() > _DISTINCT


def _closest(units: Float[Tensor, "s q"]) -> float:
    """The smallest distance between two rows, by their largest difference.

    Rows are sorted by their widest column; two that are further apart there than the best pair so far, are further
    apart altogether.
    """
    if len(units) < 2:
        return math.inf
    spread = units.amax(0) - units.amin(0)
    order = units[:, spread.argmax()].argsort()
    rows, key = units[order], units[order, spread.argmax()]
    best = math.inf
    for step in range(1, len(rows)):
        if float((key[step:] - key[:-step]).amin()) >= best:
            break
        best = min(best, float((rows[step:] - rows[:-step]).abs().amax(1).amin()))
    return best


def check_states(p: Probed, seed: int = 0) -> Found:
    """Levels of finite latents by their laws; states of prior probability zero do not count.

    The recorded computation proves which states have one law and which do not (`state_proof`). Where it cannot be
    recorded, laws that agree but for rounding are merged and say so, and nothing is certified.
    """
    states = _possible(p)
    found = Found(p.prior.names)
    proof, partition = prove_states(p), merged(p, seed)
    label = _labels(partition.groups if proof is None else proof.classes)[states.kept]
    if not bool(states.kept.all()):
        found.assumptions.append(f"{int((~states.kept).sum())} states of prior probability 0 are left out")
    apart = proof is not None and proof.distinct
    levels = _levels(p.prior.names, states.values, label, equal=proof is not None, apart=apart)
    for name, level in levels.items():
        found.settle([name], level, proof)
    if not apart:
        found.assumptions.append("laws that differ, or do not, were compared in float arithmetic only")
    for group in [group for group in _groups(label) if len(group) > 1][:_SHOWN]:
        found.invariances.append(_merging(p, states.values[list(group)]))
    for one, two, nats in partition.near[:_LISTED]:
        pair = " and ".join(state_name(p.prior, states.all[index]) for index in (one, two))
        found.assumptions.append(f"{pair} differ by {nats:.3g} nats only")
    return found


def check_states_on_data(p: Probed) -> list[Found]:
    """Levels of finite latents on each datum, by its log density in every state; GLOBAL is INFORMED there."""
    states = _possible(p)
    assert p.x is not None
    rows = []
    for row in range(len(p.x)):

        def numbers(z: Tensor, row: int = row) -> Tensor:
            return p.log_likelihood(z)[:, row : row + 1]

        with torch.no_grad():
            label = numbers(states.values)[:, 0].unique(return_inverse=True)[1].cpu()
        compared = StatesCompared(numbers, states.values, _groups(label))
        found = Found(p.prior.names)
        proof = compared if compared.verify() else None
        sure = proof is not None
        for name, level in _levels(p.prior.names, states.values, label, equal=sure, apart=sure).items():
            found.settle([name], Level.INFORMED if level is Level.GLOBAL else level, proof)
        if proof is None:
            found.assumptions.append(
                "some states are told apart on the data, or not, by rounding alone (the closest two that are by "
                f"{compared.distance():.3g} times that)"
            )
        rows.append(found)
    return rows


@dataclass(frozen=True)
class _States:
    """The states of positive prior probability among all."""

    all: Float[Tensor, "s k"]
    kept: Bool[Tensor, " s"]

    @property
    def values(self) -> Float[Tensor, "r k"]:
        return self.all[self.kept.to(self.all.device)]


def _possible(p: Probed) -> _States:
    assert p.prior.states is not None
    return _States(p.prior.states, torch.isfinite(p.prior.log_prob(p.prior.states)).cpu())


def _merging(p: Probed, group: Float[Tensor, "r k"]) -> Invariance:
    shown = " ~ ".join(state_name(p.prior, state) for state in group[:_LISTED])
    moved = (group != group[0]).any(0).tolist()
    return Invariance(
        kind="merged states",
        about=tuple(name for name, differs in zip(p.prior.names, moved, strict=True) if differs),
        map=shown + (" ~ …" if len(group) > _LISTED else ""),
    )


def _groups(label: Int[Tensor, " s"]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(torch.nonzero(label == number).squeeze(1).tolist()) for number in label.unique().tolist()
    )


def _labels(groups: tuple[tuple[int, ...], ...]) -> Int[Tensor, " s"]:
    label = torch.empty(sum(map(len, groups)), dtype=torch.long)
    for number, group in enumerate(groups):
        label[list(group)] = number
    return label


def _levels(
    names: tuple[str, ...],
    states: Float[Tensor, "s k"],
    label: Int[Tensor, " s"],
    *,
    equal: bool,
    apart: bool,
) -> dict[str, Level]:
    """CONSTANT where a change of the latent alone is never seen; PARTIAL where merged states differ in it.

    Args:
        label: equal for states of one law.
        equal: whether equal labels are proved to be equal laws; else no latent is called CONSTANT.
        apart: whether different labels are proved to be different laws; else none is called GLOBAL.
    """
    labels = label.unique().tolist()
    levels = {}
    for j, name in enumerate(names):
        rest = torch.cat([states[:, :j], states[:, j + 1 :]], 1)
        context = (
            rest.unique(dim=0, return_inverse=True)[1].cpu() if rest.shape[1] else torch.zeros_like(label)
        )
        contexts = [context == number for number in context.unique().tolist()]
        ignored = all(len(label[here].unique()) == 1 for here in contexts)
        alone = any(int(here.sum()) > 1 for here in contexts)
        if len(labels) == 1 or (ignored and alone):
            levels[name] = Level.CONSTANT if equal else Level.UNKNOWN
        elif any(len(states[label == number, j].unique()) > 1 for number in labels):
            levels[name] = Level.PARTIAL
        else:
            levels[name] = Level.GLOBAL if apart else Level.UNKNOWN
    return levels

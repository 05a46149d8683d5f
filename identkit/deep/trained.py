"""Train the grid, and put beside each other what the law, the true posterior and the encoder say of every latent."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from identkit.deep.grid import Group, Preset
from identkit.diagnosis import Fault
from identkit.dispatch import check
from identkit.lidvae.training import fit
from identkit.lidvae.truth import true_posteriors
from identkit.theorem import TheoremCheck
from identkit.theorem.trained import checked

THRESHOLD = 0.01
"""Nats below which a latent counts as collapsed, and the likelihood as flat."""
_NEAR = 10.0  # times the threshold, within which two measures may fall on its two sides


class Explanation(enum.Enum):
    """Why a latent's collapse and the flatness of its likelihood do not coincide."""

    COINCIDE = ("", "coincide")
    """They do."""
    ENCODER = ("the encoder's fault: the true posterior is informed, q is the prior", "encoder's fault")
    NEAR = (
        "near the threshold: ½ Var ℓ and the true KL, both small, lie on its two sides",
        "near the threshold",
    )
    CLAIM = (
        "the encoder claims more than the true posterior knows",
        "encoder claims more than the truth",
    )
    NONE = (None, "unexplained")
    """Nothing explains it."""

    def __init__(self, text: str | None, short: str) -> None:
        self.text = text
        self.short = short


@dataclass(frozen=True, kw_only=True)
class Said:
    """One latent of one trained model, means over the data in nats."""

    name: str
    flatness: float
    """``½ E Var_P(ℓ | z_−j)``: what the likelihood does."""
    truth: float
    """E KL of the true posterior given the others."""
    truth_error: float
    encoder: float
    """The same of q."""

    @property
    def flat(self) -> bool:
        """Whether the likelihood hardly changes with the latent."""
        return self.flatness <= THRESHOLD

    @property
    def collapsed(self) -> bool:
        """What a user sees: q is the prior."""
        return self.encoder <= THRESHOLD

    @property
    def dead(self) -> bool:
        """Whether the true posterior is the prior."""
        return self.truth <= THRESHOLD

    @property
    def fault(self) -> Fault:
        """As `identkit.diagnose` says."""
        if abs(self.truth - THRESHOLD) <= self.truth_error:
            return Fault.UNDECIDED
        if self.dead:
            return Fault.MODEL
        return Fault.INFERENCE if self.collapsed else Fault.HEALTHY

    @property
    def explanation(self) -> Explanation:
        """Why collapse and flatness do not coincide."""
        if self.collapsed == self.flat:
            return Explanation.COINCIDE
        if self.fault is Fault.INFERENCE:
            return Explanation.ENCODER
        if self.true_explanation is Explanation.NEAR:
            return Explanation.NEAR
        if self.fault is Fault.MODEL and not self.collapsed:
            return Explanation.CLAIM
        return Explanation.NONE

    @property
    def true_explanation(self) -> Explanation:
        """The same with the true posterior in the encoder's place."""
        if self.dead == self.flat:
            return Explanation.COINCIDE
        near = max(self.flatness, self.truth) <= _NEAR * THRESHOLD
        return Explanation.NEAR if near else Explanation.NONE


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """One model of the grid."""

    kind: str
    data: str
    setting: str
    check: TheoremCheck
    latents: tuple[Said, ...]


def trained(group: Group, preset: Preset, seed: int = 0, device: str = "auto") -> Iterator[Trained]:
    """Train all members of a group at once, then judge them one by one."""
    data = group.data
    run = fit(
        group.model,
        data,
        steps=preset.steps,
        seeds=preset.seeds,
        learning_rate=5e-3,
        batch_size=128,
        device=device,
        generator=torch.Generator().manual_seed(seed),
    )
    model = run.model.cpu()
    x = data.test[: preset.judged]
    truth = true_posteriors(model, x, tolerance=1e-3, gradients=True)
    with torch.no_grad():
        encoder = model.infer(model.rows(x)).kl().mean(1)
    for number, (one, why) in enumerate(zip(run.members, run.stopped, strict=True)):
        if why is not None:
            continue
        setting = group.settings[number % len(group.settings)]
        title = ", ".join(filter(None, (data.name, setting, f"seed {number // len(group.settings) + 1}")))
        verdict = check(one)
        names = tuple(verdict.latents)

        def of(values: Tensor, number: int = number) -> list[float]:
            return values[number].mean(0).tolist()

        columns = (
            of(truth.half_variance_conditional),
            of(truth.kl_conditional),
            of(truth.kl_conditional_error),
        )
        yield Trained(
            kind=group.kind,
            data=data.name,
            setting=setting,
            check=checked(group.kind, title, verdict, one, x, truth, number),
            latents=tuple(
                Said(name=name, flatness=flat, truth=kl, truth_error=error, encoder=q)
                for name, flat, kl, error, q in zip(names, *columns, encoder[number].tolist(), strict=True)
            ),
        )

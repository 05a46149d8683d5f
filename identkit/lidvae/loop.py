"""The loop of `fit`: one step after the other for all members, evaluations between, and what a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from identkit.lidvae import checkpoints, interrupts
from identkit.lidvae.datasets import Dataset
from identkit.lidvae.members import along
from identkit.lidvae.metrics import aggregate_information
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import Objective
from identkit.lidvae.optimiser import SCHEDULES, MemberAdam

_JUDGED = 2000  # validation rows that an evaluation takes
_DRAWS = 4  # of z in an evaluation
_LOOK = 5  # steps of an aggressive encoder between two looks at its loss
_KEPT = ("eager", "informed", "best_elbo", "running")  # tensors of the loop's own that a checkpoint holds


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where training is."""

    step: int
    steps: int
    elbo: float
    """On the validation rows, the mean of the members that are still training; nats a row."""
    left: float
    """Seconds to go, as things went so far."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast."""

    steps: int
    per_epoch: int
    every: int
    """Steps between two evaluations."""
    batch_size: int
    schedule: str
    learning_rate: float
    decoder_rate: float
    clip: float | None
    patience: int | None


class Training:
    """The state of a run: what a checkpoint holds."""

    def __init__(
        self,
        model: Autoencoder,
        data: Dataset,
        plan: Plan,
        objective: Objective,
        seed: int,
        compiled: bool,
    ) -> None:
        self.model, self.data, self.plan, self.objective = model, data, plan, objective
        self.generator = torch.Generator(data.train.device).manual_seed(seed)
        inner = list(model.inference_parameters())
        groups = [(inner, 1.0), (list(model.generative_parameters()), plan.decoder_rate)]
        groups = [(parameters, factor) for parameters, factor in groups if parameters]
        self.optimiser = MemberAdam(groups, model.members, plan.clip)
        self.encoder = MemberAdam([(inner, 1.0)], model.members, plan.clip) if objective.aggressive else None
        loss = objective.loss
        self.loss = torch.compile(loss) if compiled else loss
        self.order: Tensor | None = None
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.stopped: list[str | None] = [None] * model.members
        self.eager: Bool[Tensor, " e"] = torch.full_like(model.started, objective.aggressive > 0)
        self.informed: Float[Tensor, " e"] = torch.full((model.members,), -math.inf, device=model.device)
        self.best: dict[str, Tensor] = (
            {} if plan.patience is None else {name: each.clone() for name, each in model.state_dict().items()}
        )
        self.best_elbo: Float[Tensor, " e"] = self.informed.clone()
        self.waited = 0
        self.running: Float[Tensor, " e"] = torch.zeros_like(self.informed)

    # --- the loop --------------------------------------------------------------------------------------

    def run(self, folder: Path | None, about: dict[str, Any], progress: Callable[[Progress], None]) -> None:
        """Train to the end, or until nobody is left who could."""
        self.model.train()
        plan, began, before = self.plan, time.monotonic(), self.seconds
        first = self.step
        try:
            with interrupts.held() as breathe:
                while self.step < plan.steps and not self._done():
                    self._one_step()
                    self.seconds = before + time.monotonic() - began
                    if self.step % plan.every == 0 or self.step == plan.steps or self._done():
                        elbo = self._evaluate()
                        pace = (self.seconds - before) / (self.step - first)
                        left = pace * (plan.steps - self.step)
                        progress(Progress(step=self.step, steps=plan.steps, elbo=elbo, left=left))
                        self._save(folder, about)
                    breathe()
        except KeyboardInterrupt:
            self._save(folder, about)
            raise
        finally:
            self.model.eval()

    def _done(self) -> bool:
        late = self.plan.patience is not None and self.waited >= self.plan.patience
        return late or None not in self.stopped

    def _one_step(self) -> None:
        progress = self.step / self.plan.steps
        rate = self.plan.learning_rate * SCHEDULES[self.plan.schedule](progress)
        if self.encoder is not None and bool(self.eager.any()):
            self._lead_encoder(progress, rate)
        loss = self.loss(self.model, self._batch(self.step), progress, self.generator)
        newly = self.optimiser.step(loss, rate)
        if newly is not None:
            self._note_stopped(newly, loss.detach())
        self.running += torch.where(self.optimiser.alive, loss.detach(), 0.0)
        self.step += 1

    def _lead_encoder(self, progress: float, rate: float) -> None:
        """Steps of the encoder alone, for the members that still lag, until their loss stops falling."""
        assert self.encoder is not None
        moving = self.eager & self.optimiser.alive
        total, last = torch.zeros_like(self.running), torch.full_like(self.running, math.inf)
        for number in range(1, self.objective.aggressive + 1):
            x = self._random_batch()
            loss = self.loss(self.model, x, progress, self.generator)
            self.encoder.step(loss, rate, only=moving)
            total += loss.detach()
            if number % _LOOK == 0:
                moving = moving & (total < last)
                total, last = torch.zeros_like(total), total
                if not bool(moving.any()):
                    break

    def _batch(self, step: int) -> Shaped[Tensor, "e b d"]:
        """Rows in an order of each member's own, new in every epoch."""
        within = step % self.plan.per_epoch
        if within == 0 or self.order is None:
            keys = torch.rand(
                self.model.members,
                len(self.data.train),
                generator=self.generator,
                device=self.data.train.device,
            )
            self.order = keys.argsort(1)
        size = self.plan.batch_size
        return self._rows(self.order[:, within * size : (within + 1) * size])

    def _random_batch(self) -> Shaped[Tensor, "e b d"]:
        shape = (self.model.members, self.plan.batch_size)
        device = self.data.train.device
        return self._rows(torch.randint(len(self.data.train), shape, generator=self.generator, device=device))

    def _rows(self, index: Tensor) -> Shaped[Tensor, "e b d"]:
        return self.model.rows(self.data.draw(self.data.train[index], self.generator))

    def _note_stopped(self, newly: Bool[Tensor, " e"], loss: Float[Tensor, " e"]) -> None:
        for number in newly.nonzero()[:, 0].tolist():
            what = "gradient" if math.isfinite(float(loss[number])) else "loss"
            self.stopped[number] = (
                f"its {what} was not finite at step {self.step + 1}; its weights are those before. A lower learning_rate "
                "often helps"
            )

    # --- looking up ------------------------------------------------------------------------------------

    @torch.no_grad()
    def _evaluate(self) -> float:
        """ELBO and KL of the validation rows, with the same draws each time; who leads and who has lagged long enough."""
        self.model.eval()
        rows = self.data.validation[:_JUDGED]
        rows = torch.bernoulli(rows, generator=self._fixed()) if self.data.fresh else rows
        x = self.model.rows(rows)
        q = self.objective.posterior(self.model, x, self._fixed(2))
        terms = self.model.terms(x, q, _DRAWS, self._fixed())  # not the draws that q was fitted to
        elbo = terms.elbo().mean(1).to(self.best_elbo)
        alive = self.optimiser.alive
        if self.encoder is not None and bool(self.eager.any()):
            information = aggregate_information(q, self._fixed()).value.to(self.informed)
            self.eager &= information > self.informed
            self.informed = torch.maximum(self.informed, information)
        since = self.step - (self.history[-1]["step"] if self.history else 0)
        self.history.append(
            {
                "step": self.step,
                "train": (-self.running / since).tolist(),
                "validation": elbo.tolist(),
                "kl": terms.kl.mean(1).tolist(),
            }
        )
        self.running.zero_()
        if self.plan.patience is not None:
            self._remember(elbo, alive)
        self.model.train()
        return float(elbo[alive].mean()) if bool(alive.any()) else math.nan

    def _remember(self, elbo: Float[Tensor, " e"], alive: Bool[Tensor, " e"]) -> None:
        """Keep the weights of members that are better than ever."""
        better = alive & (elbo > self.best_elbo)
        self.waited = 0 if bool(better.any()) else self.waited + 1
        self.best_elbo = torch.where(better, elbo, self.best_elbo)
        for name, tensor in self.model.state_dict().items():
            self.best[name] = torch.where(along(better, tensor), tensor, self.best[name])

    def _fixed(self, seed: int = 1) -> torch.Generator:
        return torch.Generator(self.data.train.device).manual_seed(seed)

    def chosen(self) -> Autoencoder:
        """The model with each member's best weights, where training looked for these."""
        if self.best:
            self.model.load_state_dict(self.best)
        return self.model

    def curves(self) -> dict[str, Tensor]:
        """One row an evaluation: step (t,), train and validation ELBO (t, E), KL by group (t, E, J)."""
        names = ("step", "train", "validation", "kl")
        return {name: torch.tensor([row[name] for row in self.history]) for name in names}

    # --- checkpoints -----------------------------------------------------------------------------------

    def _save(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        if folder is None:
            return
        parts = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "encoder": {} if self.encoder is None else self.encoder.state(),
            "best": self.best,
            "state": {name: getattr(self, name) for name in _KEPT}
            | {"generator": self.generator.get_state()},
        }
        if self.order is not None:
            parts["state"]["order"] = self.order
        tensors = {f"{part}/{name}": tensor for part, held in parts.items() for name, tensor in held.items()}
        facts = {
            "about": about,
            "step": self.step,
            "seconds": self.seconds,
            "waited": self.waited,
            "stopped": self.stopped,
            "history": self.history,
            "torch": torch.__version__,
        }
        checkpoints.write(folder, "training", tensors, facts)

    def load(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of the same model, data and plan.

        Raises:
            ValueError: it is of others; the message names the first difference.
        """
        tensors, facts = checkpoints.read(folder, "training")
        for name, wanted in about.items():
            found = facts["about"].get(name)
            if found != wanted:
                raise ValueError(
                    f"{folder} should be a checkpoint of the same run to be resumed, got {name} = {found}, not {wanted}"
                )
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = tensor.to(self.model.device)
        self.model.load_state_dict(parts["model"])
        self.optimiser.load(parts["optimiser"])
        if self.encoder is not None:
            self.encoder.load(parts["encoder"])
        self.best = parts.get("best", {})
        state = parts["state"]
        self.generator.set_state(state.pop("generator").cpu())
        self.order = state.pop("order", None)
        for name, tensor in state.items():
            setattr(self, name, tensor)
        for name in ("step", "seconds", "waited", "stopped", "history"):
            setattr(self, name, facts[name])

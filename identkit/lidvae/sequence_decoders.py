"""Decoders of sequences: ``p(x_t | z, x_<t)`` by an LSTM that reads x_<t, with z seen at every step or merely offered."""

from __future__ import annotations

import abc
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from identkit.lidvae.decoders import BrenierDecoder
from identkit.lidvae.members import Linear
from identkit.lidvae.recurrent import LSTM, Embedding, Memory
from identkit.lidvae.vocabulary import ContrastVocabulary, FreeVocabulary, Vocabulary
from identkit.numeric.singular import rounded_down, rounded_up

_STARTED = 512  # rows that a start looks at
_ABOVE = 1.25  # times α: the least slope to start with, so that something is left to learn
_LEAST = 1e-6  # spread of a state's projection, below which it is not divided by


class SequenceDecoder(nn.Module, abc.ABC):
    """``log p(x | z) = Σ_t log p(x_t | z, x_<t)``.

    An LSTM reads the symbols before; symbol C stands for the start, and for a word that was dropped.

    Args:
        members: E.
        categories: C.
        inputs: entries of a symbol's vector.
        extra: entries that the LSTM reads beside it.
        hidden: H, of the LSTM.
        generator: of the initial weights.
    """

    vocabulary: Vocabulary

    def __init__(
        self,
        members: int,
        categories: int,
        inputs: int,
        extra: int,
        hidden: int,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.categories = categories
        self.embedding = Embedding(members, categories + 1, inputs, generator=generator)
        self.lstm = LSTM(members, inputs + extra, hidden, generator=generator)

    def log_prob(
        self,
        x: Int[Tensor, "e n t"],
        z: Float[Tensor, "s e n k"],
        dropped: Tensor | None = None,
    ) -> Float[Tensor, "s e n"]:
        """``log p(x | z)`` of S latents for each row, in nats.

        Args:
            x: symbols.
            z: latents.
            dropped: (E, n, T), which symbols the LSTM shall not see; none by default.
        """
        samples, members, n, _ = z.shape
        features = self._features(z, self._before(x, dropped))
        said = x.unsqueeze(1).expand(members, samples, *x.shape[1:]).flatten(1)
        found = self.vocabulary.log_prob(said, features)
        return found.view(members, samples, n, -1).sum(3).transpose(0, 1)

    def forward(self, z: Float[Tensor, "*e n k"], x: Int[Tensor, "*e n t"]) -> Float[Tensor, "*e n p"]:
        """The T·(C − 1) logits of x's steps less the last symbol's, as `Categorical` takes them; (n, …) where E = 1."""
        alone = z.ndim == 2
        latents, rows = (z.unsqueeze(0), x.unsqueeze(0)) if alone else (z, x)
        logits = self.vocabulary(self._features(latents.unsqueeze(0), self._before(rows, None)))
        found = (logits[..., :-1] - logits[..., -1:]).reshape(*rows.shape[:2], -1)
        return found.squeeze(0) if alone else found

    def _before(self, x: Int[Tensor, "e n t"], dropped: Tensor | None) -> Int[Tensor, "e n t"]:
        """What the LSTM reads before each step: the start, x_1, …, x_{T−1}."""
        seen = x if dropped is None else x.masked_fill(dropped, self.categories)
        start = torch.full_like(x[..., :1], self.categories)
        return torch.cat((start, seen[..., :-1]), dim=2)

    @abc.abstractmethod
    def _features(
        self, z: Float[Tensor, "s e n k"], before: Int[Tensor, "e n t"]
    ) -> Float[Tensor, "e snt m"]:
        """What the vocabulary takes, for every sample, row and step."""

    @abc.abstractmethod
    def begin(self, z: Float[Tensor, "e n k"]) -> Memory:
        """The memory of sequences that have not begun."""

    @abc.abstractmethod
    def step(
        self, symbol: Int[Tensor, "e n"], memory: Memory, z: Float[Tensor, "e n k"]
    ) -> tuple[Float[Tensor, "e n c"], Memory]:
        """The next symbol's C logits after one more symbol (the start is C), and the memory."""

    @abc.abstractmethod
    def start_(self, x: Int[Tensor, "n t"], *, generator: torch.Generator) -> None:
        """Begin from the training rows: symbols at their frequencies."""


class OfferedLatent(SequenceDecoder):
    """The usual decoder: z begins the LSTM's memory and is fed to it with every symbol; what it makes of z is its own.

    Source: Bowman et al. 2016; Kim et al. 2018.

    Args:
        members, categories, inputs, hidden, generator: as for `SequenceDecoder`.
        latents: K.
    """

    def __init__(
        self,
        members: int,
        latents: int,
        categories: int,
        inputs: int,
        hidden: int,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, categories, inputs, latents, hidden, generator=generator)
        self.first = Linear(members, latents, 2 * hidden, generator=generator)
        self.vocabulary = FreeVocabulary(members, hidden, categories, generator=generator)

    def _features(
        self, z: Float[Tensor, "s e n k"], before: Int[Tensor, "e n t"]
    ) -> Float[Tensor, "e snt m"]:
        samples, members, n, latents = z.shape
        steps = before.shape[2]
        rows = z.transpose(0, 1).flatten(1, 2)
        symbols = self.embedding(before).unsqueeze(1).expand(-1, samples, -1, -1, -1).flatten(1, 2)
        fed = rows.unsqueeze(2).expand(members, samples * n, steps, latents)
        states, _ = self.lstm(torch.cat((symbols, fed), dim=3), self.begin(rows))
        return states.flatten(1, 2)

    def begin(self, z: Float[Tensor, "e n k"]) -> Memory:
        """State and cell as z has them begin."""
        state, cell = self.first(z).chunk(2, dim=2)
        return torch.tanh(state), cell

    def step(
        self, symbol: Int[Tensor, "e n"], memory: Memory, z: Float[Tensor, "e n k"]
    ) -> tuple[Float[Tensor, "e n c"], Memory]:
        """The LSTM reads the symbol and z."""
        vector = self.embedding(symbol.unsqueeze(2)).squeeze(2)
        memory = self.lstm.step(torch.cat((vector, z), dim=2), memory)
        return self.vocabulary(memory[0]), memory

    def start_(self, x: Int[Tensor, "n t"], *, generator: torch.Generator) -> None:
        """Symbols at their frequencies."""
        self.vocabulary.start_(x)


class SeenLatent(SequenceDecoder):
    """``x_t | z, x_<t ~ softmax(W(f([z, P h_t]) + A h_t) + b)``, f injective: every step tells z, whatever came before.

    h_t is the state of an LSTM that reads x_<t and not z. At any history ``f([z, u]) − f([z′, u])`` is at least
    ``m_f‖z − z′‖`` long, the shift ``A h_t`` is the same for z and z′, and W (`ContrastVocabulary`) keeps distances up to
    its scale. So centred log probabilities obey ``‖clr p_t(z) − clr p_t(z′)‖ ≥ m‖z − z′‖``, ``m = m_f √(C/M)``, at every
    step of every history: the law of x_t is injective in z, and that of x_1 alone already is.

    Source: Wang, Blei & Cunningham 2021, section 3 (the sequential model); theory/T5. The shift ``A h_t`` is ours: what the
    symbols before say directly need not pass through f.

    Args:
        members, categories, inputs, hidden, generator: as for `SequenceDecoder`.
        f: rows (E, n, K + R) → (E, n, M), a map that bounds itself from below.
        latents: K.
        state: R, entries of ``P h_t``.
        features: M.
    """

    vocabulary: ContrastVocabulary

    def __init__(
        self,
        members: int,
        latents: int,
        categories: int,
        inputs: int,
        hidden: int,
        *,
        f: Any,
        state: int,
        features: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, categories, inputs, 0, hidden, generator=generator)
        self.f = f
        self.latents = latents
        # P and A in one layer: first the R entries that meet z in f, then the M that do not.
        self.split = (state, features)
        self.read = Linear(members, hidden, state + features, generator=generator)
        self.vocabulary = ContrastVocabulary(members, features, categories, generator=generator)

    def _features(
        self, z: Float[Tensor, "s e n k"], before: Int[Tensor, "e n t"]
    ) -> Float[Tensor, "e snt m"]:
        states, _ = self.lstm(self.embedding(before))
        return self._met(z, states)

    def _met(self, z: Float[Tensor, "s e n k"], states: Float[Tensor, "e n t h"]) -> Float[Tensor, "e snt m"]:
        samples, members, n, _ = z.shape
        steps = states.shape[2]
        shape = (members, samples, n, steps)
        told = self.read(states.flatten(1, 2)).view(members, 1, n, steps, -1)
        inner, shift = (part.expand(*shape, -1).flatten(1, 3) for part in told.split(self.split, dim=4))
        rows = z.transpose(0, 1).unsqueeze(3).expand(*shape, -1).flatten(1, 3)
        return self.f(torch.cat((rows, inner), dim=2)) + shift

    def begin(self, z: Float[Tensor, "e n k"]) -> Memory:
        """Nothing read."""
        return self.lstm.begin(z.shape[1])

    def step(
        self, symbol: Int[Tensor, "e n"], memory: Memory, z: Float[Tensor, "e n k"]
    ) -> tuple[Float[Tensor, "e n c"], Memory]:
        """The LSTM reads the symbol; z is seen beside its state."""
        memory = self.lstm.step(self.embedding(symbol.unsqueeze(2)).squeeze(2), memory)
        features = self._met(z.unsqueeze(0), memory[0].unsqueeze(2))
        return self.vocabulary(features), memory

    def lower_lipschitz(self) -> float | None:
        """m of the least member, rounded down: it holds at every step and history; None where none is proved."""
        inner, outer = self.f.lower_lipschitz(), self.vocabulary.lower_lipschitz()
        return None if inner is None or outer is None else rounded_down(inner * outer, 2)

    def upper_lipschitz(self) -> float | None:
        """``L = L_f σ_max(W)`` of the largest member, rounded up: it too holds at every step and history."""
        inner = self.f.upper_lipschitz()
        return None if inner is None else rounded_up(inner * self.vocabulary.upper_lipschitz(), 2)

    @torch.no_grad()
    def start_(self, x: Int[Tensor, "n t"], *, generator: torch.Generator) -> None:
        """Begin with symbols at their frequencies, with ``P h_t`` of mean 0 and unit spread, and f of unit slopes."""
        self.vocabulary.start_(x)
        members, state = len(self.vocabulary.bias), self.split[0]
        rows = x[torch.randperm(len(x), generator=generator)[:_STARTED].to(x.device)]
        before = self._before(rows.expand(members, *rows.shape), None)
        told = self.read(self.lstm(self.embedding(before))[0].flatten(1, 2))
        self.read.bias.sub_(told.mean(1))
        inner = told[..., :state]
        spread = (inner - inner.mean(1, keepdim=True)).square().mean(1).sqrt()
        spread = torch.where(spread > _LEAST, spread, 1.0)  # rows of one symbol have but one history
        self.read.weight[:, :state].div_(spread.unsqueeze(2))
        self.read.bias[:, :state].div_(spread)
        if isinstance(self.f, BrenierDecoder):
            # K + R slopes of f, each s times a slope of every map, have to make up M features of unit variance.
            total = math.sqrt(self.split[1] / self.f.g1.dimension)
            steepest = torch.stack([g.alpha for g in self.f.chain]).amax(0)
            slope = ((total / self.f.beta.scale) ** (1 / len(self.f.chain))).maximum(_ABOVE * steepest)
            self.f.start_(slope=slope, generator=generator)

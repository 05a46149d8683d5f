"""Sequences of symbols drawn from languages whose latent and law are known, so that recovery can be scored.

``p(x_t | x_{<t}, z) = softmax(h(x_{<t}) + A z)``, ``z ~ N(0, I)``: what came before gives scores, and the latent tilts
them all along. The softmax forgets a constant, so the law determines z at every history exactly when A, with the mean
of each column taken away, has full column rank: a model that loses z has collapsed by its own fault.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.lidvae.datasets.dataset import Dataset, from_rows
from identkit.lidvae.datasets.support import randomness
from identkit.model.compiled.data import whole


@dataclass(frozen=True, eq=False, kw_only=True)
class Language(ABC):
    """What gives scores to the next symbol; symbols are 0, …, v − 1, and v is the start. Double precision, CPU."""

    steering: Float[Tensor, "v k"]
    """A."""

    @abstractmethod
    def begin(self, n: int) -> Any:
        """The memory of n sequences that have not begun."""

    @abstractmethod
    def read(self, memory: Any, symbol: Int[Tensor, " n"]) -> tuple[Any, Float[Tensor, "n v"]]:
        """The memory after one more symbol, and the scores h of the next."""

    def sample(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "n t"], Float[Tensor, "n k"]]:
        """Sequences and the latents they were drawn with."""
        symbols, latents = self.steering.shape
        z = torch.randn(n, latents, generator=generator, dtype=torch.float64)
        tilt = z @ self.steering.T
        memory, symbol = self.begin(n), torch.full((n,), symbols)
        drawn = []
        for _ in range(length):
            memory, scores = self.read(memory, symbol)
            symbol = _draw(scores + tilt, generator)
            drawn.append(symbol)
        return torch.stack(drawn, 1), z

    def log_likelihood(self, x: Int[Tensor, "n t"], z: Float[Tensor, "n m k"]) -> Float[Tensor, "n m"]:
        """log p(x | z) in nats, each sequence at m latents of its own."""
        tilt = z @ self.steering.T
        memory, symbol = self.begin(len(x)), x.new_full((len(x),), len(self.steering))
        total = z.new_zeros(z.shape[:2])
        for following in x.T:
            memory, scores = self.read(memory, symbol)
            logits = scores[:, None] + tilt
            said = logits.gather(2, following[:, None, None].expand(*total.shape, 1))[..., 0]
            total = total + said - logits.logsumexp(2)
            symbol = following
        return total


@dataclass(frozen=True, eq=False, kw_only=True)
class MarkovLanguage(Language):
    """The next symbol follows from the last one: ``h = B[x_{t−1}]``."""

    transition: Float[Tensor, "v1 v"]
    """B; its last row is the start."""

    @staticmethod
    def random(vocabulary: int, latent_dim: int, *, strength: float = 1.0, seed: int = 0) -> MarkovLanguage:
        """A has orthogonal columns of mean 0 and root mean square `strength`; B standard normal entries.

        Raises:
            ValueError: as many latents as symbols, or more, where no A could determine them.
        """
        whole(latent_dim, "latent_dim")
        if whole(vocabulary, "vocabulary", 2) <= latent_dim:
            raise ValueError(f"vocabulary should be larger than latent_dim = {latent_dim}, got {vocabulary}")
        if not 0 < strength < math.inf:
            raise ValueError(f"strength should be a positive number, got {strength}")
        generator = randomness(seed)
        raw = torch.randn(vocabulary, latent_dim, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(raw - raw.mean(0)).Q
        transition = torch.randn(vocabulary + 1, vocabulary, generator=generator, dtype=torch.float64)
        return MarkovLanguage(steering=strength * math.sqrt(vocabulary) * basis, transition=transition)

    def begin(self, n: int) -> None:
        """Nothing to remember."""

    def read(self, memory: None, symbol: Int[Tensor, " n"]) -> tuple[None, Float[Tensor, "n v"]]:
        """The last symbol's row."""
        return None, self.transition[symbol]


@dataclass(frozen=True, eq=False, kw_only=True)
class LSTMLanguage(Language):
    """The next symbol follows from all before: ``h = W s_t`` with s_t the state of an LSTM."""

    embedding: Float[Tensor, "v1 h"]
    """What the LSTM reads for each symbol; the last row is the start."""
    input_weight: Float[Tensor, "g h"]
    state_weight: Float[Tensor, "g h"]
    bias: Float[Tensor, " g"]
    """g = 4h gates in the order of `torch.nn.LSTMCell`: input, forget, candidate, output."""
    output: Float[Tensor, "v h"]
    """W."""

    @staticmethod
    def random(vocabulary: int, latent_dim: int, *, hidden: int = 100, seed: int = 0) -> LSTMLanguage:
        """Entries of A uniform on (−5, 5), all other weights on (−1, 1)."""
        whole(vocabulary, "vocabulary", 2)
        whole(latent_dim, "latent_dim", 0)
        whole(hidden, "hidden")
        generator = randomness(seed)

        def uniform(*shape: int, reach: float = 1.0) -> Tensor:
            return reach * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)

        return LSTMLanguage(
            steering=uniform(vocabulary, latent_dim, reach=5.0),
            embedding=uniform(vocabulary + 1, hidden),
            input_weight=uniform(4 * hidden, hidden),
            state_weight=uniform(4 * hidden, hidden),
            bias=uniform(4 * hidden),
            output=uniform(vocabulary, hidden),
        )

    def begin(self, n: int) -> tuple[Tensor, Tensor]:
        """State and cell at zero."""
        zero = torch.zeros(n, self.output.shape[1], dtype=torch.float64)
        return zero, zero

    def read(
        self, memory: tuple[Tensor, Tensor], symbol: Int[Tensor, " n"]
    ) -> tuple[tuple[Tensor, Tensor], Float[Tensor, "n v"]]:
        """One step of the LSTM."""
        state, cell = memory
        gates = self.embedding[symbol] @ self.input_weight.T + state @ self.state_weight.T + self.bias
        enter, keep, candidate, leave = gates.chunk(4, 1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        state = leave.sigmoid() * cell.tanh()
        return (state, cell), state @ self.output.T


def markov_sequences(
    n: int = 10_000,
    seed: int | torch.Generator = 0,
    *,
    length: int = 20,
    vocabulary: int = 20,
    latent_dim: int = 2,
    strength: float = 1.0,
    language: int = 0,
) -> Dataset:
    """Sequences of a `MarkovLanguage` with their true latents.

    Args:
        n: sequences.
        seed: of the draws, a whole number or a generator on the CPU.
        length: symbols of each.
        vocabulary, latent_dim, strength: as in `MarkovLanguage.random`.
        language: the seed of the language, so that other draws of the same can be had.
    """
    spoken = MarkovLanguage.random(vocabulary, latent_dim, strength=strength, seed=language)
    return _drawn("Markov sequences", spoken, n, length, seed)


def lstm_sequences(
    n: int = 10_000,
    seed: int | torch.Generator = 0,
    *,
    length: int = 10,
    vocabulary: int = 1_000,
    hidden: int = 100,
    latent_dim: int = 2,
    language: int = 0,
) -> Dataset:
    """Sequences that a fixed random LSTM speaks, with their true latents; after Kim et al., ICML 2018 (SA-VAE).

    A strong decoder can predict much of x_t from x_{<t} alone, which is what makes a plain model forget z.

    Args:
        n: sequences.
        seed: of the draws, a whole number or a generator on the CPU.
        length: symbols of each.
        vocabulary: how many symbols there are.
        hidden: the width of the LSTM and of its embeddings.
        latent_dim: of z; 0 for a language without one, where nothing is there to be recovered.
        language: the seed of the weights.
    """
    spoken = LSTMLanguage.random(vocabulary, latent_dim, hidden=hidden, seed=language)
    return _drawn("LSTM sequences", spoken, n, length, seed)


def _draw(logits: Float[Tensor, "n v"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """A symbol for each row, by one uniform number: `multinomial` draws v of them and takes four times as long."""
    cumulative = logits.softmax(1).cumsum(1)
    uniform = torch.rand(len(logits), 1, generator=generator, dtype=logits.dtype) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, uniform, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def _drawn(name: str, language: Language, n: int, length: int, seed: int | torch.Generator) -> Dataset:
    x, z = language.sample(whole(n, "n", 10), whole(length, "length"), randomness(seed))
    words = [str(symbol) for symbol in range(len(language.steering))]
    latents = z.float() if z.shape[1] else None
    return from_rows(x, "categorical", name=name, latents=latents, vocabulary=words)

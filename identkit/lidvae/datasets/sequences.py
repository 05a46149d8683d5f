"""Sequences of symbols drawn from models whose latents and laws are known, so that recovery can be scored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.lidvae.datasets.dataset import Dataset, from_rows
from identkit.lidvae.datasets.support import randomness, whole


@dataclass(frozen=True, eq=False)
class LatentChain:
    """A Markov chain of symbols, tilted as a whole by a latent that its law determines.

    ``p(x_t | x_{t−1}, z) ∝ exp(B[x_{t−1}, x_t] + A[x_t] · z)``, ``z ~ N(0, I)``. A has full column rank and columns
    that sum to zero, so the logits are unique (the softmax forgets a constant) and linear and injective in z at every
    history: z is identified, and a model that loses it has collapsed by its own fault.
    """

    emission: Float[Tensor, "v k"]
    """A."""
    transition: Float[Tensor, "v1 v"]
    """B; its last row is the start."""

    @staticmethod
    def random(vocabulary: int, latent_dim: int, *, strength: float = 1.0, seed: int = 0) -> LatentChain:
        """One language: A has orthogonal columns of root mean square `strength`, B standard normal entries.

        Raises:
            ValueError: as many latents as symbols, or more: A could not have full column rank and sum to zero.
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
        return LatentChain(strength * math.sqrt(vocabulary) * basis, transition)

    def sample(
        self, n: int, length: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "n t"], Float[Tensor, "n k"]]:
        """Sequences and the latents they were drawn with."""
        z = torch.randn(n, self.emission.shape[1], generator=generator, dtype=torch.float64)
        tilt = z @ self.emission.T
        symbol = torch.full((n,), len(self.emission))  # the start
        symbols = []
        for _ in range(length):
            symbol = _draw(self.transition[symbol] + tilt, generator)
            symbols.append(symbol)
        return torch.stack(symbols, 1), z

    def log_likelihood(self, x: Int[Tensor, "n t"], z: Float[Tensor, "n m k"]) -> Float[Tensor, "n m"]:
        """log p(x | z) in nats, each sequence at m latents of its own."""
        tilt = z @ self.emission.T
        previous = torch.cat([x.new_full((len(x), 1), len(self.emission)), x[:, :-1]], 1)
        total = z.new_zeros(z.shape[:2])
        for before, now in zip(previous.T, x.T, strict=True):
            log_law = (self.transition[before][:, None] + tilt).log_softmax(-1)
            total = total + log_law.gather(-1, now[:, None, None].expand(*total.shape, 1))[..., 0]
        return total


def latent_sequences(
    n: int = 10_000,
    seed: int | torch.Generator = 0,
    *,
    length: int = 20,
    vocabulary: int = 20,
    latent_dim: int = 2,
    strength: float = 1.0,
    language: int = 0,
) -> Dataset:
    """Sequences of a `LatentChain`, with the true latents: recovery can be scored, and its posterior computed.

    Args:
        n: sequences.
        seed: of the draws, a whole number or a generator on the CPU.
        length: symbols of each.
        vocabulary, latent_dim, strength: as in `LatentChain.random`.
        language: the seed of the chain's parameters, so that other draws of one language can be had.
    """
    chain = LatentChain.random(vocabulary, latent_dim, strength=strength, seed=language)
    x, z = chain.sample(whole(n, "n", 10), whole(length, "length"), randomness(seed))
    return _spoken("latent sequences", x, z, vocabulary)


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
    """Sequences that a fixed random LSTM speaks, in the manner of Kim et al., ICML 2018 (SA-VAE).

    ``p(x_t | x_{<t}, z) = softmax(W h_t + V z)`` with h_t the state of an LSTM that has read x_{<t}, ``z ~ N(0, I)``,
    entries of V uniform on (−5, 5) and all other weights on (−1, 1). A strong decoder can predict x_t from x_{<t}
    alone, which is what makes a plain model forget z.

    Args:
        n: sequences.
        seed: of the draws, a whole number or a generator on the CPU.
        length: symbols of each.
        vocabulary: how many symbols there are.
        hidden: of the LSTM and of its embeddings.
        latent_dim: of z; 0 for an LSTM that has none, where nothing is there to be recovered.
        language: the seed of the weights.
    """
    whole(n, "n", 10)
    whole(length, "length")
    whole(hidden, "hidden")
    whole(vocabulary, "vocabulary", 2)
    whole(latent_dim, "latent_dim", 0)
    weights = randomness(whole(language, "language", 0))

    def uniform(rows: int, columns: int, reach: float = 1.0) -> Tensor:
        return reach * (2 * torch.rand(rows, columns, generator=weights, dtype=torch.float64) - 1)

    embedding = uniform(vocabulary + 1, hidden)  # the last one is the start
    reading, remembering = uniform(4 * hidden, hidden), uniform(4 * hidden, hidden)
    speaking, steering = uniform(vocabulary, hidden), uniform(vocabulary, latent_dim, 5.0)
    bias = uniform(1, 4 * hidden)
    generator = randomness(seed)
    z = torch.randn(n, latent_dim, generator=generator, dtype=torch.float64)
    state = cell = torch.zeros(n, hidden, dtype=torch.float64)
    symbol = torch.full((n,), vocabulary)
    symbols = []
    for _ in range(length):
        gates = embedding[symbol] @ reading.T + state @ remembering.T + bias
        enter, keep, candidate, leave = gates.chunk(4, 1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        state = leave.sigmoid() * cell.tanh()
        symbol = _draw(state @ speaking.T + z @ steering.T, generator)
        symbols.append(symbol)
    return _spoken("LSTM sequences", torch.stack(symbols, 1), z if latent_dim else None, vocabulary)


def _draw(logits: Float[Tensor, "n v"], generator: torch.Generator) -> Int[Tensor, " n"]:
    return torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def _spoken(name: str, x: Int[Tensor, "n t"], z: Float[Tensor, "n k"] | None, vocabulary: int) -> Dataset:
    words = [str(symbol) for symbol in range(vocabulary)]
    latents = None if z is None else z.float()
    return from_rows(x, "categorical", name=name, latents=latents, vocabulary=words)

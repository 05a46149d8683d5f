"""What reads sequences: an embedding and an LSTM of each member, and the encoder that is made of them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional

from identkit.lidvae.encoders import normal_of
from identkit.lidvae.members import Linear, normal, uniform

Memory = tuple[Float[Tensor, "e n h"], Float[Tensor, "e n h"]]
"""An LSTM's state and cell."""

_KEEP = 1.0  # bias of the forget gate: at first the cell remembers (Jozefowicz, Zaremba & Sutskever 2015)


class Embedding(nn.Module):
    """A vector for each symbol, of each member.

    Args:
        members: E.
        symbols: how many there are.
        outputs: entries of a vector, standard normal at first.
        generator: of the initial weights.
    """

    def __init__(self, members: int, symbols: int, outputs: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal((members, symbols, outputs), 1.0, generator))

    def forward(self, x: Int[Tensor, "e n t"]) -> Float[Tensor, "e n t i"]:
        """The vectors of x."""
        members, symbols, _ = self.weight.shape
        first = symbols * torch.arange(members, device=x.device)
        return functional.embedding(x + first[:, None, None], self.weight.flatten(0, 1))


class LSTM(nn.Module):
    """One layer of long short-term memory of each member, differentiable as often as one likes.

    ``c′ = σ(a_f) c + σ(a_i) tanh(a_g)``, ``h′ = σ(a_o) tanh(c′)``, ``a = W x + V h + b``: a loop over time in which all
    members and rows take a step at once.

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000.

    Args:
        members: E.
        inputs, hidden: I and H.
        generator: of the initial weights, uniform on ``±1/√H`` as torch's own layer has them.
    """

    def __init__(self, members: int, inputs: int, hidden: int, *, generator: torch.Generator) -> None:
        super().__init__()
        width = 1 / math.sqrt(hidden)
        # Gates in the order i, f, o, g: those with a sigmoid stand side by side.
        self.input_weight = nn.Parameter(uniform((members, 4 * hidden, inputs), width, generator))
        self.state_weight = nn.Parameter(uniform((members, 4 * hidden, hidden), width, generator))
        bias = uniform((members, 4 * hidden), width, generator)
        bias[:, hidden : 2 * hidden] += _KEEP
        self.bias = nn.Parameter(bias)

    @property
    def hidden(self) -> int:
        """H."""
        return self.state_weight.shape[2]

    def begin(self, n: int) -> Memory:
        """State and cell of n rows that have read nothing."""
        zero = self.bias.new_zeros(len(self.bias), n, self.hidden)
        return zero, zero

    def forward(
        self, x: Float[Tensor, "e n t i"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "e n t h"], Memory]:
        """The states after each step, and the memory after the last."""
        members, n, steps, _ = x.shape
        gates = torch.baddbmm(self.bias.unsqueeze(1), x.transpose(1, 2).flatten(1, 2), self.input_weight.mT)
        memory = self.begin(n) if memory is None else memory
        states = []
        for step in gates.view(members, steps, n, -1).unbind(1):
            memory = self._stepped(step, memory)
            states.append(memory[0])
        return torch.stack(states, dim=2), memory

    def step(self, x: Float[Tensor, "e n i"], memory: Memory) -> Memory:
        """Read one more input."""
        return self._stepped(torch.baddbmm(self.bias.unsqueeze(1), x, self.input_weight.mT), memory)

    def _stepped(self, gates: Float[Tensor, "e n g"], memory: Memory) -> Memory:
        state, cell = memory
        gates = torch.baddbmm(gates, state, self.state_weight.mT)
        inner = 3 * self.hidden
        enter, keep, leave = torch.sigmoid(gates[..., :inner]).chunk(3, dim=2)
        cell = torch.addcmul(keep * cell, enter, torch.tanh(gates[..., inner:]))
        return leave * torch.tanh(cell), cell


class LSTMEncoder(nn.Module):
    """``q(z | x)`` of sequences: an LSTM reads them, its last state and its mean state say mean and log scale.

    What each symbol tells of z adds up along a sequence, which a mean keeps and a last state has to remember.

    Args:
        members: E.
        symbols: C, of the vocabulary.
        latents: K.
        embedding: entries of a symbol's vector.
        hidden: of the LSTM.
        generator: of the initial weights.
    """

    def __init__(
        self,
        members: int,
        symbols: int,
        latents: int,
        embedding: int = 32,
        hidden: int = 64,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.embedding = Embedding(members, symbols, embedding, generator=generator)
        self.lstm = LSTM(members, embedding, hidden, generator=generator)
        self.head = Linear(members, 2 * hidden, 2 * latents, generator=generator)

    def forward(self, x: Int[Tensor, "e n t"]) -> Normal:
        """``q(z | x)`` of every row, batch shape (E, n, K)."""
        states, (last, _) = self.lstm(self.embedding(x))
        return normal_of(self.head(torch.cat((last, states.mean(2)), dim=2)))

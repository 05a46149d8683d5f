"""Several independent pieces of one datum, each of a family of its own: counts beside measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor
from torch.distributions import constraints


class ProductLaw(td.Distribution):
    """The law of independent pieces, laid out flat one after the other.

    Args:
        pieces: laws with the same first batch axis, over latents; their other axes are flattened into the datum.

    Raises:
        ValueError: no piece, or first axes that differ.

    >>> law = ProductLaw([td.Normal(torch.zeros(3, 2), 1.0), td.Poisson(torch.ones(3))])
    >>> law.log_prob(torch.zeros(3, 3)).shape
    torch.Size([3])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - as torch declares it

    def __init__(self, pieces: Sequence[td.Distribution]) -> None:
        """Hold the pieces."""
        rows = {tuple(piece.batch_shape[:1]) for piece in pieces}
        if len(rows) != 1 or () in rows:
            raise ValueError(f"pieces should have one first axis, got {sorted(rows)}")
        self.pieces = tuple(pieces)
        size = sum(math.prod(self._shape(piece)) for piece in pieces)
        super().__init__(pieces[0].batch_shape[:1], torch.Size([size]), validate_args=False)

    @staticmethod
    def _shape(piece: td.Distribution) -> tuple[int, ...]:
        return tuple(piece.batch_shape[1:] + piece.event_shape)

    @property
    def support(self) -> Any:
        """Left to the pieces."""
        return constraints.real_vector

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw every piece."""
        shape = torch.Size(sample_shape)
        return torch.cat(
            [
                piece.sample(shape).reshape(*shape, *self.batch_shape, -1).to(torch.float64)
                for piece in self.pieces
            ],
            -1,
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the pieces' densities, nats; value (…, n, size)."""
        parts, start = [], 0
        for piece in self.pieces:
            shape = self._shape(piece)
            end = start + math.prod(shape)
            logs = piece.log_prob(value[..., start:end].reshape(*value.shape[:-1], *shape))
            parts.append(
                logs.reshape(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), -1).sum(-1)
            )
            start = end
        return torch.stack(parts).sum(0)


@td.register_kl(ProductLaw, ProductLaw)
def _kl(one: ProductLaw, two: ProductLaw) -> Tensor:
    both = [td.kl_divergence(a, b) for a, b in zip(one.pieces, two.pieces, strict=True)]
    return torch.stack([values.reshape(len(values), -1).sum(1) for values in both]).sum(0)

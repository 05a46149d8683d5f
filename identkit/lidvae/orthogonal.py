"""The linear step β between two Brenier maps: learnable orthonormal columns times a fixed scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae.members import in_members, like_rows, normal, per_member
from identkit.numeric.intervals import point
from identkit.numeric.singular import rounded_down, rounded_up, singular_bounds


class Orthogonal(nn.Module):
    """``z ↦ s Q z`` with ``QᵀQ = I``: Q is the factor of a learned matrix ``W = QR`` with positive diagonal of R.

    The scale is fixed, so that β neither loses its rank nor drifts, and a rotation is learned even where the dimensions
    agree.

    Args:
        members: E.
        inputs, outputs: K ≤ D.
        scale: s > 0, one for all members or one for each.
        generator: of the initial W, whose Q is uniform (Haar).

    Raises:
        ValueError: there are fewer outputs than inputs.
    """

    scale: Float[Tensor, " e"]

    def __init__(
        self,
        members: int,
        inputs: int,
        outputs: int,
        *,
        scale: float | Sequence[float] | Tensor = 1.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if outputs < inputs:
            raise ValueError(
                f"outputs should be at least inputs, {inputs}, or the map loses dimensions, got {outputs}"
            )
        self.register_buffer("scale", per_member(scale, members, "scale"))
        drawn = torch.linalg.qr(normal((members, outputs, inputs), 1.0, generator)).Q
        self.weight = nn.Parameter(
            math.sqrt(outputs) * drawn
        )  # entries of order 1, and the best of conditions

    def basis(self) -> Float[Tensor, "e d k"]:
        """``s Q``, (E, D, K)."""
        return self.scale[:, None, None] * orthonormal(self.weight)

    def forward(self, z: Float[Tensor, "*e n k"]) -> Float[Tensor, "*e n d"]:
        """``s Q z`` for z (E, n, K), or (n, K) where E = 1."""
        rows = in_members(z, len(self.weight), self.weight.shape[2])
        return like_rows(rows @ self.basis().mT, z)

    def lower_lipschitz(self) -> float | None:
        """Below ``s σ_min(Q)`` of every member, for the Q that floats give; None if W has lost its rank."""
        least = min(low for low, _ in self._bounds())
        return least if least > 0 else None

    def upper_lipschitz(self) -> float:
        """Above ``s σ_max(Q)`` of every member."""
        return max(high for _, high in self._bounds())

    def _bounds(self) -> list[tuple[float, float]]:
        with torch.no_grad():
            factors = orthonormal(self.weight).cpu()
        found = [singular_bounds(point(factor)) for factor in factors]
        return [
            (rounded_down(float(s) * low, 2), rounded_up(float(s) * high, 2))
            for s, (low, high) in zip(self.scale, found, strict=True)
        ]


def orthonormal(matrix: Float[Tensor, "e d k"]) -> Float[Tensor, "e d k"]:
    """Give the factor Q of ``W = QR`` with positive diagonal of R, which is unique where W has full rank.

    Tall matrices by two Cholesky factorisations of the Gram matrix, products instead of reflections:
    faster, and as exact where W is well conditioned, as tall ones are.

    Source: Fukaya, Nakatsukasa, Yanagisawa & Yamamoto 2014 (CholeskyQR2).
    """
    if matrix.shape[1] < 2 * matrix.shape[2]:
        q, r = torch.linalg.qr(matrix)
        return q * torch.where(r.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0).unsqueeze(1)
    for _ in range(2):
        factor = torch.linalg.cholesky_ex(matrix.mT @ matrix).L
        matrix = torch.linalg.solve_triangular(factor.mT, matrix, upper=True, left=False)
    return matrix

"""Fisher information pulled back to the latents, draw by draw: ranks, null directions, and whether these stand still.

Ranks are taken pointwise. A decoder of ‖z‖ has rank 1 at every z while the *averaged* information matrix has full
rank, because its null directions turn with z (known_answers, trap 6).

A singular value is compared with rounding after every column of the Jacobian has been brought to norm 1: a latent with
a weight of 1e-12 is weak, not absent. Between "rounding" and "clear" lies a zone where nothing is claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from identkit.numeric.jacobian import jacobians
from identkit.numeric.laws import has_fisher
from identkit.numeric.probed import Probed

DRAWS = 256
_NUMBERS = 1 << 24  # numbers in one batch of Jacobians and of the tangents behind them: 128 MB
_DENSE = 256  # latents up to which every singular value is computed; beyond, a random sketch of this size
_OVERSAMPLED = 16
_COLUMNS = 1 << 13  # of all Jacobians together, so that time does not grow with the square of k
_FEW = 4  # draws beyond _DENSE
# Rounding of a Jacobian's column is a small multiple of eps; what stands this much higher is no rounding.
_ROUNDING = 64
_CLEAR = 1e4


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Singular values of a root of the Fisher information at n prior draws, and what they say about rank."""

    z: Float[Tensor, "n k"]
    """The draws."""
    singular_values: Float[Tensor, "n r"]
    """Descending; their squares are the eigenvalues of the Fisher information where `fisher`, in nats per unit of z²."""
    rank: Int[Tensor, " n"]
    """How many directions are told apart from rounding at each draw."""
    clear: Bool[Tensor, " n"]
    """Whether no direction lay between rounding and what is clearly more; elsewhere the rank is no claim."""
    moves: Bool[Tensor, "n k"]
    """Which latents the null directions at a draw move."""
    silent: Bool[Tensor, "n k"]
    """Which latents have a derivative of exactly zero: ignored there, or saturated beyond what the precision holds."""
    seen: Float[Tensor, "n k k"]
    """Rows that span the directions the law sees at each draw, without rounding; the others are null."""
    shared_null: Float[Tensor, "k s"]
    """Orthonormal directions that are null at every draw: translations that the law ignores."""
    fisher: bool
    """Whether the family's Fisher metric is known here; else the singular values are those of the law's parameters."""

    @property
    def size(self) -> int:
        """The number of latents k."""
        return self.z.shape[1]

    @property
    def full_rank(self) -> Bool[Tensor, " n"]:
        """Where the law moves with every direction of z, clearly."""
        return self.clear & (self.rank == self.size)

    @property
    def deficient(self) -> Bool[Tensor, " n"]:
        """Where some direction does not move the law, clearly."""
        return self.clear & (self.rank < self.size)

    @property
    def histogram(self) -> dict[int, float]:
        """Each rank and the share of draws that have it."""
        counts = Counter(self.rank.tolist())
        return {rank: counts[rank] / len(self.rank) for rank in sorted(counts)}


def spectrum(p: Probed, *, draws: int = DRAWS, seed: int = 0) -> Spectrum:
    """Compute the pulled-back Fisher spectrum at prior draws.

    Args:
        p: a model with a law; for one that is known by its density alone the gradients of ℓ, one row for each datum,
            take the place of the law's Jacobian.
        draws: from the prior; fewer beyond 32 latents, where time would grow with the square of their number.
        seed: of the draws and of the sketch.

    Raises:
        ValueError: a finite prior, where nothing has derivatives.
    """
    if p.prior.states is not None:
        raise ValueError("prior should be continuous for a spectrum, got one on finitely many states")
    k = p.prior.size
    z = p.prior.sample(min(draws, _COLUMNS // k if k <= _DENSE else _FEW), seed)
    function = _coordinates(p)
    with torch.no_grad():
        width = function(z[:1]).shape[1]
    fisher = p.decode is not None and has_fisher(p.law(z[:1]))
    size = max(1, _NUMBERS // (k * max(width, 8 * k))) if k <= _DENSE else 1
    omega = _omega(z, seed)
    dense = k <= _DENSE or width <= omega.shape[1]
    read = [
        _read(jacobians(function, rows) if dense else _sketch(function, rows, omega).unsqueeze(0), p.eps)
        for rows in z.split(size)
    ]
    values, rank, clear, moves, silent, seen = (torch.cat(parts) for parts in zip(*read, strict=True))
    return Spectrum(
        z=z,
        singular_values=values,
        rank=rank,
        clear=clear,
        moves=moves,
        silent=silent,
        seen=seen,
        shared_null=_shared(seen, p.eps),
        fisher=fisher,
    )


def _coordinates(p: Probed) -> Callable[[Tensor], Tensor]:
    return p.log_likelihood if p.decode is None else p.fisher_coordinates


def _read(
    jacobian: Float[Tensor, "n p k"], eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The fields of `Spectrum` from `singular_values` to `seen` at some of the draws."""
    k = jacobian.shape[2]
    defined = jacobian.isfinite().flatten(1).all(1)
    jacobian = jacobian.where(defined.reshape(-1, 1, 1), 0.0)
    _, triangle = torch.linalg.qr(jacobian, mode="r")
    norms = triangle.norm(dim=1, keepdim=True)
    largest = norms.amax(2, keepdim=True)
    _, scaled, right = torch.linalg.svd(triangle / torch.where(norms > 0, norms, 1), full_matrices=True)
    scaled = pad(scaled, (0, k - scaled.shape[1]))
    rounding = _ROUNDING * eps * k**0.5
    rank = (scaled > rounding).sum(1)
    # A column far below the others may be what cancellation left of nothing: no claim.
    faint = ((norms > 0) & (norms < _CLEAR * eps * largest)).any(2).squeeze(1)
    clear = ~((scaled > rounding) & (scaled < _CLEAR * rounding)).any(1) & ~faint & defined
    inside = (torch.arange(k, device=rank.device) < rank.unsqueeze(1)).unsqueeze(2)
    # Right singular vectors are those of the scaled matrix; a null vector v of it is a null vector v/norm of J.
    moves = ((right.abs() > 1e-8) & ~inside).any(1)
    values = torch.linalg.svdvals(triangle)
    seen = right * inside * norms / largest.clamp(min=torch.finfo(norms.dtype).tiny)
    return pad(values, (0, k - values.shape[1])), rank, clear, moves, (norms == 0).squeeze(1), seen


def _shared(seen: Float[Tensor, "n k k"], eps: float) -> Float[Tensor, "k s"]:
    """Directions that every Jacobian sends to zero."""
    n, k, _ = seen.shape
    _, stacked = torch.linalg.qr(seen.reshape(n * k, k), mode="r")
    _, values, right = torch.linalg.svd(stacked)
    return right[values <= _ROUNDING * eps * k**0.5 * values.max()].mT


def _sketch(
    function: Callable[[Tensor], Tensor], row: Float[Tensor, "1 k"], omega: Float[Tensor, "k l"]
) -> Float[Tensor, "r k"]:
    """``QᵀJ`` with Q a basis of the range of JΩ (Halko, Martinsson & Tropp 2011); or J itself where that is no smaller.

    ``JΩ`` has J's rank with probability one unless that exceeds the sketch's size; then nothing was gained, and the
    whole Jacobian is taken.
    """
    basis, triangle = torch.linalg.qr(_columns(function, row, omega))
    heights = torch.linalg.svdvals(triangle)
    if heights[-1] > _CLEAR * _ROUNDING * torch.finfo(row.dtype).eps * heights[0]:
        return _columns(function, row, torch.eye(row.shape[1], dtype=row.dtype, device=row.device))
    return _pulled(function, row, basis)


def _omega(z: Float[Tensor, "n k"], seed: int) -> Float[Tensor, "k l"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(z.shape[1], _DENSE + _OVERSAMPLED, generator=generator, dtype=z.dtype)
    return drawn.to(z.device)


def _columns(function: Callable[[Tensor], Tensor], row: Tensor, omega: Tensor) -> Tensor:
    size = max(1, _NUMBERS // (16 * row.shape[1]))
    return torch.cat([jacobians(function, row, part)[0] for part in omega.split(size, dim=1)], 1)


def _pulled(function: Callable[[Tensor], Tensor], row: Tensor, basis: Tensor) -> Tensor:
    """``QᵀJ`` by one reverse pass over copies of the row, one for each column of Q."""
    copies = row.expand(basis.shape[1], -1).clone().requires_grad_()
    (pulled,) = torch.autograd.grad((function(copies) * basis.mT).sum(), copies)
    return pulled

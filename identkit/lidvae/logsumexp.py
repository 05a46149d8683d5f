"""The gradient of sums of log-sum-exps: a Brenier map of nearly flat pieces, universal, and one softmax to compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae.brenier import BrenierMap, folded
from identkit.lidvae.members import in_members, normal
from identkit.lidvae.positive import enclosed, raw_of, softplus
from identkit.numeric import intervals
from identkit.numeric.intervals import Interval, negative, point
from identkit.numeric.singular import norm_bound, rounded_up

_GAP = 3.0  # nats between the two largest logits of a head, on average over the inputs, to start with
_LEAST_GAP = 1e-6


class LogSumExp(BrenierMap):
    """``g(x) = αx + a + Σ_i w_i A_iᵀ softmax(A_i x + b_i)``: heads i = 1, …, H with P pieces each and weights w > 0.

    The gradient of ``φ(x) = (α/2)‖x‖² + aᵀx + Σ_i w_i log Σ_k exp(A_i x + b_i)_k``. A head is a soft maximum of P affine
    functions, so its gradient passes between P flat pieces whose borders are parts of lines, as a map must that tears
    one cloud into several; a ridge bends along whole lines only. A head of two pieces is a ridge. One head alone, with
    pieces enough, comes as near to any convex function on a compact set as one likes.

    ``∇g = αI + Σ_i w_i Cov(A_i)``, the covariance of the rows of A_i under the softmax.

    Source: Calafiore, Gaubert & Possieri 2020, arXiv 1806.07850 (density); Chaudhari, Pranav & Moura 2024,
    arXiv 2404.07361 (softmax as the gradient of a convex potential); plus the strongly convex term.

    Args:
        members: E.
        dimension: d.
        rows: HP, pieces of all heads together.
        alpha: α > 0.
        heads: H, a divisor of `rows`.
        generator: of the initial weights.

    Raises:
        ValueError: the heads do not share the rows evenly, or have fewer than two pieces.

    >>> g = LogSumExp(1, 2, 16, alpha=0.2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([[0.3, -1.0]], requires_grad=True)
    >>> gradient = torch.autograd.grad(g.potential(x).sum(), x)[0]
    >>> bool((g(x) - gradient).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        members: int,
        dimension: int,
        rows: int,
        *,
        alpha: float | Sequence[float] | Tensor,
        heads: int = 4,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, dimension, alpha)
        if heads < 1 or rows % heads or rows < 2 * heads:
            raise ValueError(
                f"rows should be a multiple of heads, {heads}, and at least twice as many, got {rows}"
            )
        self.matrix = nn.Parameter(normal((members, rows, dimension), 1 / math.sqrt(dimension), generator))
        self.shifts = nn.Parameter(normal((members, 1, rows), 1.0, generator))
        self.weights_raw = nn.Parameter(raw_of(torch.full((members, heads), 1 / heads)))

    @property
    def scale_raw(self) -> Tensor:
        """The parameter of w, (E, H)."""
        return self.weights_raw

    @property
    def heads(self) -> int:
        """H."""
        return self.weights_raw.shape[1]

    def _by_head(self, values: Float[Tensor, "e n r"]) -> Float[Tensor, "e n h p"]:
        return values.unflatten(2, (self.heads, -1))

    def _logits(self, x: Tensor, basis: Tensor | None = None) -> Float[Tensor, "e n h p"]:
        return self._by_head(torch.baddbmm(self.shifts, x, folded(self.matrix, basis).mT))

    def _weights(self) -> Float[Tensor, "e 1 h 1"]:
        return softplus(self.weights_raw)[:, None, :, None]

    def _gradient(self, x: Tensor, basis: Tensor | None) -> Tensor:
        # The weights go to the few rows of A, not to the many shares.
        shares = torch.softmax(self._logits(x, basis), 3).flatten(2)
        rows = softplus(self.weights_raw)[:, :, None, None] * self.matrix.unflatten(1, (self.heads, -1))
        return torch.baddbmm(self._quadratic(x, basis), shares, rows.flatten(1, 2))

    def _potential(self, x: Tensor) -> Tensor:
        return (self._weights().squeeze(3) * torch.logsumexp(self._logits(x), 3)).sum(2)

    def _hessian(self, x: Tensor) -> Tensor:
        # Σ_k w p_k (a_k − ā)(a_k − ā)ᵀ, centred before it is squared. Not by the roots of p: those that underflow to 0
        # have no derivative there.
        p = torch.softmax(self._logits(x), 3)
        rows = self.matrix.unflatten(1, (self.heads, -1)).unsqueeze(1)
        centred = (rows - (p.unsqueeze(4) * rows).sum(3, keepdim=True)).flatten(2, 3)
        shares = (self._weights() * p).flatten(2).unsqueeze(3)
        return (shares * centred).mT @ centred

    def _curvature(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        p = torch.softmax(self._logits(x), 3)
        shares = self._weights() * p

        def product(v: Tensor) -> Tensor:
            moved = self._by_head(v @ self.matrix.mT)
            return (shares * (moved - (p * moved).sum(3, keepdim=True))).flatten(2) @ self.matrix

        return product

    def upper_lipschitz(self) -> float:
        """``α + min(Σ_i w_i R_i², ½‖diag(√w)(A − c)‖²)``, R_i the radius of the rows of A_i about a centre c_i.

        Numbers within 2R of each other have a variance of at most R² (Popoviciu), and ``diag(p) − ppᵀ ⪯ ½I``.
        """
        return max(rounded_up(float(self.alpha[e]) + self._largest(e), 2) for e in range(self.members))

    def _largest(self, e: int) -> float:
        """Bound ``sup ‖∇²ψ‖`` of member e; any centre will do, and of two rows the midpoint is best."""
        rows = self.matrix[e].detach().cpu().double().unflatten(0, (self.heads, -1))
        centre = (rows.amin(1, keepdim=True) + rows.amax(1, keepdim=True)) / 2
        apart = intervals.add(point(rows), negative(point(centre.expand_as(rows))))
        weights = enclosed(self.weights_raw[e]).high
        radii = intervals.total(intervals.square(apart)).high.amax(1)
        by_radius = float(intervals.total(intervals.multiply(point(weights), point(radii))).high)
        # The square root is correctly rounded: one float up is above it. Division by 2 is exact.
        roots = torch.nextafter((weights / 2).sqrt(), torch.full_like(weights, math.inf))
        scaled = intervals.multiply(point(roots[:, None, None].expand_as(rows)), apart)
        norm = norm_bound(Interval(scaled.low.flatten(0, 1), scaled.high.flatten(0, 1)))
        return min(by_radius, rounded_up(norm * norm, 2))

    # Inputs that the map before has gathered lie on flat pieces, where a mean of local slopes says 0 and would make the
    # weights huge. Along chords to the mean no border is missed, and for normal inputs both are one (Stein's identity).

    def _slope_to_start(self, x: Float[Tensor, "e n d"], generator: torch.Generator) -> Float[Tensor, " e"]:
        """``E⟨x − x̄, g(x)⟩ / E‖x − x̄‖²``."""
        apart = x - x.mean(1, keepdim=True)
        return (apart * self(x)).sum((1, 2)) / apart.square().sum((1, 2))

    @torch.no_grad()
    def spread_(self, x: Float[Tensor, "*e n d"], *, generator: torch.Generator) -> None:
        """Let every piece win where a point y_k drawn from x is the nearest of its head: ``a_k ∝ y_k``, ``b_k ∝ −½‖y_k‖²``.

        g then starts as a blurred nearest neighbour, as sharp as the gap between a head's two largest logits says.
        """
        rows = in_members(x, self.members, self.dimension)
        middle = rows.mean(1, keepdim=True)
        members, n = rows.shape[:2]
        chosen = torch.randint(n, (members, self.matrix.shape[1], 1), generator=generator).to(rows.device)
        y = (rows - middle).gather(1, chosen.expand(-1, -1, self.dimension))
        shifts = -y.square().sum(2, keepdim=True).mT / 2
        largest = self._by_head(torch.baddbmm(shifts, rows - middle, y.mT)).topk(2, dim=3).values
        gap = (largest[..., 0] - largest[..., 1]).mean((1, 2))[:, None, None].clamp(min=_LEAST_GAP)
        self.matrix.copy_(_GAP / gap * y)
        self.shifts.copy_(_GAP / gap * (shifts - middle @ y.mT))

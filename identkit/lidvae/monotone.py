"""The monotone gradient network: a Brenier map that is a sum of convex ridges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae.brenier import BrenierMap, any_row, folded, mean_spread
from identkit.lidvae.members import in_members, normal
from identkit.lidvae.positive import enclosed, raw_of, softplus
from identkit.numeric import intervals
from identkit.numeric.intervals import Interval, point
from identkit.numeric.singular import norm_bound, rounded_up

_NODES = 20  # of a Gauss-Legendre panel
_LINEAR = 0.03  # of what they were: linear parts of rows within a small span, to start with
_ALL = slice(None)


# The published profile has free slopes in its first step and weights w after its last. Neither adds anything: those
# slopes move into A (A_r → κA_r, c → c/κ, w → w/κ), and w into the last step's c and e. What is left starts from the
# affine product u itself and costs two element-wise operations fewer each way.


class MonotoneGradient(BrenierMap):
    """``g(x) = αx + a + Aᵀ s(Ax + b)``: one shared matrix A and an increasing scalar profile for each of its rows.

    ``s = s_L``, ``s_1(u) = u``, ``s_{l+1}(u) = c_l u + e_l tanh(s_l(u)) + b_l`` (the last one without b), with c, e > 0.
    Strictly row by row: any mixing between rows would break the symmetry of ``∇g = αI + Aᵀ diag(s′(Ax + b)) A``.

    Ridge sums are not dense in the gradients of convex functions for d ≥ 2 (``max(0, x, y)`` is out of reach): where
    that universality matters, take `ICNN`, at more parameters.

    Source: Chaudhari, Pranav & Moura 2024, arXiv 2404.07361 (mGradNet-C), plus the strongly convex term.

    Args:
        members: E.
        dimension: d.
        rows: h, of A.
        alpha: α > 0.
        steps: L ≥ 2, of the profile.
        generator: of the initial weights.

    >>> g = MonotoneGradient(1, 2, 8, alpha=0.2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([[0.3, -1.0]])
    >>> bool((g.inverse(g(x).detach())[0] - x).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        members: int,
        dimension: int,
        rows: int,
        *,
        alpha: float | Sequence[float] | Tensor,
        steps: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, dimension, alpha)
        if steps < 2:
            raise ValueError(f"steps should be at least 2, or the map is affine, got {steps}")
        self.matrix = nn.Parameter(normal((members, rows, dimension), 1 / math.sqrt(dimension), generator))
        self.shifts = nn.Parameter(normal((members, steps - 1, rows), 1.0, generator))
        self.profile_raw = nn.Parameter(raw_of(torch.ones(members, steps - 2, 2, rows)))
        self.last_raw = nn.Parameter(raw_of(torch.full((members, 2, rows), 1 / rows)))

    @property
    def scale_raw(self) -> Tensor:
        """The parameter of the last step's c and e, (E, 2, h)."""
        return self.last_raw

    def _gradient(self, x: Tensor, basis: Tensor | None) -> Tensor:
        return torch.baddbmm(self._quadratic(x, basis), self._profile(self._units(x, basis)), self.matrix)

    def _units(self, x: Tensor, basis: Tensor | None = None) -> Float[Tensor, "e n h"]:
        """``u = Ax + b``."""
        return torch.baddbmm(self.shifts[:, :1], x, folded(self.matrix, basis).mT)

    def _steps(self) -> list[tuple[Tensor, Tensor]]:
        """c and e, each (E, 1, h), of every step but the first, which is the identity."""
        pairs = torch.cat((softplus(self.profile_raw), softplus(self.last_raw).unsqueeze(1)), dim=1)
        return [(pair[:, :1], pair[:, 1:]) for pair in pairs.unbind(1)]

    def _profile(self, u: Float[Tensor, "e n r"], rows: Tensor | slice = _ALL) -> Float[Tensor, "e n r"]:
        """``s_L(u)`` of every row, or of some."""
        *inner, (slope, bend) = self._steps()
        s = u
        for number, (c, e) in enumerate(inner, start=1):
            shift = self.shifts[:, number : number + 1, rows]
            s = torch.addcmul(torch.addcmul(shift, c[..., rows], u), e[..., rows], torch.tanh(s))
        return torch.addcmul(slope[..., rows] * u, bend[..., rows], torch.tanh(s))

    def _derivative(self, u: Float[Tensor, "e n h"]) -> Float[Tensor, "e n h"]:
        """``s_L′(u) > 0`` of every row, by the chain rule."""
        *inner, (slope, bend) = self._steps()
        s, derivative = u, torch.ones_like(u)
        for number, (c, e) in enumerate(inner, start=1):
            bent = torch.tanh(s)
            derivative = c + e * (1 - bent.square()) * derivative
            s = self.shifts[:, number : number + 1] + c * u + e * bent
        return slope + bend * (1 - torch.tanh(s).square()) * derivative

    def _hessian(self, x: Tensor) -> Tensor:
        # ∇²ψ = Σ_r s_r′ A_r A_rᵀ: one product with the rows' outer squares, for all points at once.
        outer = (self.matrix.unsqueeze(3) * self.matrix.unsqueeze(2)).flatten(2)
        return (self._derivative(self._units(x)) @ outer).unflatten(2, (self.dimension, self.dimension))

    def _curvature(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        slopes = self._derivative(self._units(x))
        return lambda v: (slopes * (v @ self.matrix.mT)) @ self.matrix

    # The potential of a row is S(u) = ∫₀ᵘ s_L, without closed form for L > 2. In the strip |Im u| ≤ δ, as long as
    # |Im s_l| ≤ π/4 there, |tanh′| ≤ 2: so |Im s_l| ≤ V_l δ with V_1 = 1, V_{l+1} = c_l + 2 e_l V_l, and
    # δ = π/(4 max_{l<L} V_l) keeps them all below π/4: s_L is analytic in that strip. A panel of half-length δ has the
    # Bernstein ellipse ρ = 1 + √2 in it, and n Gauss-Legendre nodes leave an error of order ρ^(−2n): 5e-16 for n = 20
    # (Trefethen 2008, theorem 4.5).

    def _potential(self, x: Tensor) -> Tensor:
        u = self._units(x)
        knots, masses = np.polynomial.legendre.leggauss(_NODES)
        panels = (u.detach().abs().amax((0, 1)) * self._steepest() * 2 / math.pi).ceil().clamp(min=1)
        total = torch.zeros_like(u[..., 0])
        for panel in range(int(panels.max())):
            rows = torch.nonzero(panels > panel).squeeze(1)  # steep rows alone need many
            length = u[..., rows] / panels[rows]
            for knot, mass in zip(knots.tolist(), masses.tolist(), strict=True):
                height = self._profile((panel + (knot + 1) / 2) * length, rows)
                total = total + mass / 2 * (height * length).sum(2)
        return total

    def _steepest(self) -> Float[Tensor, " h"]:
        """``max_{l<L} V_l`` of every row, over all members."""
        steep = [torch.ones_like(self.last_raw[:, :1])]
        for c, e in self._steps()[:-1]:
            steep.append(c + 2 * e * steep[-1])
        return torch.cat(steep, dim=1).detach().amax((0, 1))

    def upper_lipschitz(self) -> float:
        """``α + ‖Aᵀ diag(U) A‖``, ``U = sup s_L′``: ``U_1 = 1``, ``U_{l+1} = c_l + e_l U_l``."""
        raws = torch.cat((self.profile_raw, self.last_raw.unsqueeze(1)), dim=1)
        steepest = point(torch.ones(raws.shape[0], raws.shape[3]))
        for raw in raws.unbind(1):
            c, e = enclosed(raw[:, 0]), enclosed(raw[:, 1])
            steepest = intervals.add(c, intervals.multiply(e, steepest))
        matrices = self.matrix.detach().cpu()
        bounds = [weighted_square(high, point(a)) for high, a in zip(steepest.high, matrices, strict=True)]
        return max(rounded_up(float(a) + b, 2) for a, b in zip(self.alpha, bounds, strict=True))

    @torch.no_grad()
    def within_(self, basis: Float[Tensor, "e d k"]) -> None:
        """Turn the rows into the span, and nearly take their linear parts away.

        The linear parts of h rows are one linear map among the span's few coordinates, h times over: with them all rows
        learn the same. Bends differ.
        """
        super().within_(basis)
        slope, bend = softplus(self.last_raw).unbind(1)
        self.last_raw.copy_(raw_of(torch.stack((_LINEAR * slope, bend), dim=1)))

    def _rows_of_inputs(self) -> Sequence[Tensor]:
        return (self.matrix,)

    @torch.no_grad()
    def spread_(self, x: Float[Tensor, "*e n d"], *, generator: torch.Generator) -> None:
        """Scale A so that ``Ax`` has unit spread over x, on average, and put each bend at one of these inputs."""
        t = in_members(x, self.members, self.dimension) @ self.matrix.mT
        spread = mean_spread(t)
        self.matrix.div_(spread)
        t = t / spread
        self.shifts[:, :1] = -any_row(t, generator)
        s = u = t + self.shifts[:, :1]
        for number, (c, e) in enumerate(self._steps()[:-1], start=1):
            s = c * u + e * torch.tanh(s)
            self.shifts[:, number : number + 1] = -any_row(s, generator)
            s = s + self.shifts[:, number : number + 1]


def weighted_square(weights: Float[Tensor, " h"], matrix: Interval) -> float:
    """Bound ``‖Mᵀ diag(weights) M‖`` for non-negative weights in float64."""
    # √weights is correctly rounded: one float up is above it, and larger weights only add to a sum of squares.
    roots = torch.nextafter(weights.sqrt(), torch.full_like(weights, math.inf)).unsqueeze(1)
    bound = norm_bound(intervals.multiply(point(roots), matrix))
    return rounded_up(bound * bound, 2)

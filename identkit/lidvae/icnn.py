"""The gradient of an input-convex neural network: the Brenier map of the paper, universal among convex gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from identkit.lidvae.brenier import BrenierMap, any_row, folded, mean_spread
from identkit.lidvae.members import in_members, normal
from identkit.lidvae.positive import enclosed, raw_of, softplus
from identkit.numeric import intervals
from identkit.numeric.intervals import Interval, point
from identkit.numeric.singular import norm_bound, rounded_up

# One forward pass ends in the potential, and its gradient is one pass back through the transposed weights. With ς the
# logistic function, the derivative of softplus:
#
#     u_1 = A_1 x + b_1,   u_l = W_l softplus(u_{l−1}) + A_l x + b_l,   ψ = wᵀ softplus(u_L)
#     λ_L = w,             λ_{l−1} = W_lᵀ (λ_l ⊙ ς(u_l)),               ∇ψ = Σ_l A_lᵀ (λ_l ⊙ ς(u_l))
#     J_1 = A_1,           J_l = W_l diag(ς(u_{l−1})) J_{l−1} + A_l,    ∇²ψ = Σ_l J_lᵀ diag(λ_l ⊙ ς′(u_l)) J_l ⪰ 0
#
# λ_l = ∂ψ/∂softplus(u_l) ≥ 0 since W, w > 0, which is where convexity comes from. `autograd.grad(create_graph=True)` gives
# the same to the last digits, slower, and cannot be compiled.


class ICNN(BrenierMap):
    """``g = ∇φ``, ``φ(x) = (α/2)‖x‖² + aᵀx + wᵀ softplus(u_L(x))`` with non-negative inner weights.

    Every convex function on a compact set is approximated uniformly, and with it its gradient almost everywhere.

    Source: Wang, Blei & Cunningham 2021, section 3; Amos, Xu & Kolter 2017; Chen, Shi & Zhang 2019 (density);
    Huang et al. 2021, arXiv 2012.05942 (gradients).

    Args:
        members: E.
        dimension: d.
        widths: hidden units of each layer, as many as there are layers.
        alpha: α > 0.
        generator: of the initial weights.

    >>> g = ICNN(1, 2, (8, 8), alpha=0.2, generator=torch.Generator().manual_seed(0))
    >>> x = torch.tensor([[0.3, -1.0]], requires_grad=True)
    >>> gradient = torch.autograd.grad(g.potential(x).sum(), x)[0]
    >>> bool((g(x) - gradient).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        members: int,
        dimension: int,
        widths: Sequence[int] = (64, 64),
        *,
        alpha: float | Sequence[float] | Tensor,
        generator: torch.Generator,
    ) -> None:
        super().__init__(members, dimension, alpha)
        if not widths or min(widths) < 1:
            raise ValueError(f"widths should be the hidden units of each layer, got {tuple(widths)}")
        scale = 1 / math.sqrt(dimension)
        self.inputs = nn.ParameterList(normal((members, h, dimension), scale, generator) for h in widths)
        self.shifts = nn.ParameterList(normal((members, h), 1.0, generator) for h in widths)
        self.inner_raw = nn.ParameterList(
            # Log-normal weights with mean about 1/h: a few units dominate, so that layers do not average out.
            raw_of(normal((members, wide, before), 1.0, generator).exp() / (2 * before))
            for before, wide in itertools.pairwise(widths)
        )
        self.weights_raw = nn.Parameter(raw_of(torch.full((members, widths[-1]), 1 / widths[-1])))

    @property
    def scale_raw(self) -> Tensor:
        """The parameter of w."""
        return self.weights_raw

    def _layers(self, x: Tensor, basis: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """``u_l`` of every layer and the positive matrices ``W_2, …, W_L``."""
        inner = [softplus(raw) for raw in self.inner_raw]
        units: list[Tensor] = []
        for matrix, shift in zip(self.inputs, self.shifts, strict=True):
            u = torch.baddbmm(shift.unsqueeze(1), x, folded(matrix, basis).mT)
            if units:
                u = torch.baddbmm(u, softplus(units[-1]), inner[len(units) - 1].mT)
            units.append(u)
        return units, inner

    def _adjoints(self, units: list[Tensor], inner: list[Tensor]) -> list[Tensor]:
        """``λ_l``, each (E, n, h); the last one (E, 1, h)."""
        adjoints = [softplus(self.weights_raw).unsqueeze(1)]
        for u, matrix in zip(reversed(units[1:]), reversed(inner), strict=True):
            adjoints.append((adjoints[-1] * torch.sigmoid(u)) @ matrix)
        return adjoints[::-1]

    def _gradient(self, x: Tensor, basis: Tensor | None) -> Tensor:
        units, inner = self._layers(x, basis)
        gradient = self._quadratic(x, basis)
        adjoint = softplus(self.weights_raw).unsqueeze(1)
        for number in reversed(range(len(units))):
            back = adjoint * torch.sigmoid(units[number])
            gradient = torch.baddbmm(gradient, back, self.inputs[number])
            if number > 0:
                adjoint = back @ inner[number - 1]
        return gradient

    def _potential(self, x: Tensor) -> Tensor:
        last = softplus(self._layers(x)[0][-1])
        return (last @ softplus(self.weights_raw).unsqueeze(2)).squeeze(2)

    def _hessian(self, x: Tensor) -> Tensor:
        units, inner = self._layers(x)
        total = x.new_zeros(*x.shape, self.dimension)
        jacobian = self.inputs[0].unsqueeze(1).expand(-1, x.shape[1], -1, -1)
        for number, bent in enumerate(self._bends(units, inner)):
            if number > 0:
                passed = torch.sigmoid(units[number - 1]).unsqueeze(3) * jacobian
                jacobian = inner[number - 1].unsqueeze(1) @ passed + self.inputs[number].unsqueeze(1)
            rooted = bent.sqrt().unsqueeze(3) * jacobian  # so that the product is symmetric to the last bit
            total = total + rooted.mT @ rooted
        return total

    def _curvature(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        units, inner = self._layers(x)
        bends, open_ = self._bends(units, inner), [torch.sigmoid(u) for u in units]

        def product(v: Tensor) -> Tensor:
            moved = [v @ self.inputs[0].mT]
            for number in range(1, len(units)):
                passed = (open_[number - 1] * moved[-1]) @ inner[number - 1].mT
                moved.append(torch.baddbmm(passed, v, self.inputs[number].mT))
            back = bends[-1] * moved[-1]
            result = back @ self.inputs[-1]
            for number in reversed(range(len(units) - 1)):
                back = bends[number] * moved[number] + open_[number] * (back @ inner[number])
                result = torch.baddbmm(result, back, self.inputs[number])
            return result

        return product

    def _bends(self, units: list[Tensor], inner: list[Tensor]) -> list[Tensor]:
        """``λ_l ⊙ ς′(u_l) ≥ 0``; ``ς(u) ς(−u)``, since ``1 − ς(u)`` would cancel."""
        adjoints = self._adjoints(units, inner)
        return [
            adjoint * torch.sigmoid(u) * torch.sigmoid(-u) for adjoint, u in zip(adjoints, units, strict=True)
        ]

    def upper_lipschitz(self) -> float:
        """``α + Σ_l ‖J_lᵀ diag(λ_l ς′(u_l)) J_l‖``, each with ``ς ∈ [0, 1]``, ``ς′ ≤ ¼`` and ``λ_l`` at its largest."""
        return max(rounded_up(float(self.alpha[e]) + self._largest(e), 2) for e in range(self.members))

    # ς(u) = ½ + Δ with |Δ| ≤ ½ splits J_l = C_l + R_l into a centre C_l = ½ W_l C_{l−1} + A_l and a rest with
    # ‖R_l‖ ≤ ‖W_l‖(‖R_{l−1}‖ + ½‖C_{l−1}‖): the half saves a factor of two against ‖diag(ς)‖ ≤ 1.

    def _largest(self, e: int) -> float:
        """Bound ``sup ‖∇²ψ‖`` of member e."""
        inner = [enclosed(raw[e]) for raw in self.inner_raw]
        roots = self._largest_roots(e, inner)
        centre, rest = point(self.inputs[0][e].detach().cpu()), 0.0
        total = rounded_up(norm_bound(intervals.multiply(roots[0], centre)) ** 2, 2)
        half = point(torch.tensor(0.5))
        for number, matrix in enumerate(inner, start=1):
            before = rounded_up(rest + norm_bound(centre) / 2, 2)
            halved = intervals.multiply(half, intervals.matmul(matrix, centre))
            centre = intervals.add(halved, point(self.inputs[number][e].detach().cpu()))
            rest = rounded_up(norm_bound(matrix) * before, 2)
            weighted = norm_bound(intervals.multiply(roots[number], centre))
            by_rest = norm_bound(intervals.multiply(roots[number], matrix)) * before
            total = rounded_up(total + rounded_up(weighted + by_rest, 4) ** 2, 4)
        return total

    def _largest_roots(self, e: int, inner: list[Interval]) -> list[Interval]:
        """Above ``√(λ_l/4)``, (h, 1), with ς = 1 in ``λ_l``."""
        adjoint = enclosed(self.weights_raw[e]).high.unsqueeze(1)
        adjoints = [adjoint]
        for matrix in reversed(inner):
            adjoint = intervals.matmul(Interval(matrix.low.mT, matrix.high.mT), point(adjoint)).high
            adjoints.append(adjoint)
        # The square root is correctly rounded: one float up is above it. Division by 4 is exact.
        return [point(torch.nextafter((each / 4).sqrt(), torch.tensor(math.inf))) for each in adjoints[::-1]]

    def _rows_of_inputs(self) -> Sequence[Tensor]:
        return tuple(self.inputs)

    @torch.no_grad()
    def spread_(self, x: Tensor, *, generator: torch.Generator) -> None:
        """Scale each layer to unit spread over x, on average, and put each bend at one of these inputs."""
        rows = in_members(x, self.members, self.dimension)
        before: Tensor | None = None
        for number, (matrix, shift) in enumerate(zip(self.inputs, self.shifts, strict=True)):
            u = rows @ matrix.mT
            if before is not None:
                u = torch.baddbmm(u, before, softplus(self.inner_raw[number - 1]).mT)
            spread = mean_spread(u)
            matrix.div_(spread)
            if before is not None:
                raw = self.inner_raw[number - 1]
                raw.copy_(raw_of(softplus(raw) / spread))
            u = u / spread
            shift.copy_(-any_row(u, generator).squeeze(1))
            before = softplus(u + shift.unsqueeze(1))

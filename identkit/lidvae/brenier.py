"""Brenier maps: gradients of strongly convex potentials, which are injective and onto by construction (theory/T5).

``‖g(x) − g(x′)‖ ≥ α‖x − x′‖``, with a constant α > 0 that is fixed and stated, not learned: it is a dial (a learned one
hardly leaves its initial value, and a certificate should not drift).
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae import newton
from identkit.lidvae.members import along, in_members, like_rows, normal, per_member
from identkit.lidvae.positive import raw_of, softplus

_PROBES = 4  # random signs per input where Hessians are too large to form
_CHUNK = 256  # inputs whose Hessians are formed at once


class BrenierMap(nn.Module, abc.ABC):
    """The gradient of an α-strongly convex potential, for each of E members (Wang, Blei & Cunningham 2021, section 3).

    ``g(x) = ∇φ(x)``, ``φ(x) = (α/2)‖x‖² + aᵀx + ψ(x)`` with ψ convex, so that ``∇g ⪰ αI``. A subclass states ψ by the
    methods below that raise NotImplementedError, all in closed form on rows (E, n, d), and ends in weights `scale_raw`
    that ψ is linear in.

    Args:
        members: E.
        dimension: d, of inputs and outputs.
        alpha: α > 0, one for all members or one for each.
    """

    alpha: Float[Tensor, " e"]
    """α of each member, a buffer."""

    def __init__(self, members: int, dimension: int, alpha: float | Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("alpha", per_member(alpha, members, "alpha"))
        self.offset = nn.Parameter(torch.zeros(members, dimension))

    @property
    def members(self) -> int:
        """E."""
        return self.offset.shape[0]

    @property
    def dimension(self) -> int:
        """d."""
        return self.offset.shape[1]

    def forward(
        self, x: Float[Tensor, "*e n k"], basis: Float[Tensor, "f d k"] | None = None
    ) -> Float[Tensor, "*e n d"]:
        """``g(x)``, or ``g(Bx)`` for a basis B of a subspace that the inputs lie in.

        Args:
            x: (E, n, d), or (n, d) where E = 1; with a basis it has k columns.
            basis: (E, d, k). Folding it into the weights saves most of a product where k is far below d and n.
        """
        rows = in_members(x, self.members, self.dimension if basis is None else basis.shape[2])
        if basis is not None and not _worth_folding(rows, basis):
            rows, basis = rows @ basis.mT, None
        return like_rows(self._gradient(rows, basis), x)

    def potential(self, x: Float[Tensor, "*e n d"]) -> Float[Tensor, "*e n"]:
        """``φ(x)``, whose gradient this map is."""
        rows = in_members(x, self.members, self.dimension)
        quadratic = self.alpha[:, None] / 2 * rows.square().sum(2)
        linear = (rows @ self.offset.unsqueeze(2)).squeeze(2)
        return like_rows(quadratic + linear + self._potential(rows), x)

    def hessian(self, x: Float[Tensor, "*e n d"]) -> Float[Tensor, "*e n d d"]:
        """``∇g(x) = αI + ∇²ψ(x)``, symmetric positive definite."""
        rows = in_members(x, self.members, self.dimension)
        identity = torch.eye(self.dimension, dtype=rows.dtype, device=rows.device)
        return like_rows(self.alpha[:, None, None, None] * identity + self._hessian(rows), x)

    def curvature(self, x: Float[Tensor, "e n d"]) -> Callable[[Tensor], Tensor]:
        """The product with the Hessian at x as a function ``v (E, n, d) → ∇g(x) v``, for many v at one x."""
        product = self._curvature(in_members(x, self.members, self.dimension))
        return lambda v: self.alpha[:, None, None] * v + product(v)

    def lower_lipschitz(self) -> float:
        """α, of the least convex member: ``‖g(x) − g(x′)‖ ≥ α‖x − x′‖``."""
        return float(self.alpha.min())

    @abc.abstractmethod
    def upper_lipschitz(self) -> float:
        """Bound ``sup ‖∇g‖`` over all x and members from the weights, in float64 with roundings outward."""

    def inverse(self, y: Float[Tensor, "*e n d"]) -> tuple[Float[Tensor, "*e n d"], Float[Tensor, "*e n"]]:
        """Solve ``g(x) = y`` in float64 (in float32 it stalls at 3e-4).

        Returns:
            x (…, n, d) and the residuals ``‖g(x) − y‖`` (…, n); x is off by at most residual/α.
        """
        with torch.no_grad():
            rows = in_members(y, self.members, self.dimension).double()
            x, residual = newton.solve(copy.deepcopy(self).double(), rows)
        return like_rows(x, y), like_rows(residual, y)

    @torch.no_grad()
    def mean_slope(self, x: Float[Tensor, "*e n d"], *, generator: torch.Generator) -> Float[Tensor, " e"]:
        """Average ``tr ∇g(x)/d`` over inputs; by random signs (Hutchinson 1990) where Hessians are large."""
        rows = in_members(x, self.members, self.dimension)
        if self.dimension <= newton.EXACT:
            traces = [
                self.hessian(part).diagonal(dim1=2, dim2=3).sum(2) for part in rows.split(_CHUNK, dim=1)
            ]
            return torch.cat(traces, dim=1).mean(1) / self.dimension
        curvature = self.curvature(rows)
        total = torch.zeros_like(self.alpha)
        for _ in range(_PROBES):
            signs = normal(tuple(rows.shape), 1.0, generator).sign().to(rows)
            total = total + (signs * curvature(signs)).sum(2).mean(1)
        return total / (_PROBES * self.dimension)

    def _slope_to_start(self, x: Float[Tensor, "e n d"], generator: torch.Generator) -> Float[Tensor, " e"]:
        """What `unit_slope_` sets: a slope over these inputs, affine in the last positive weights."""
        return self.mean_slope(x, generator=generator)

    @torch.no_grad()
    def unit_slope_(
        self,
        x: Float[Tensor, "*e n d"],
        slope: float | Sequence[float] | Tensor = 1.0,
        *,
        generator: torch.Generator,
    ) -> None:
        """Scale the last positive weights so that the average of ``tr ∇g/d`` over x is `slope`.

        ``∇g = αI + ∇²ψ`` with ψ linear in these weights, so one estimate does it. Naively initialised, the gradient of
        an ICNN learns little more than a Gaussian; compare Hoedt & Klambauer 2023.

        Raises:
            ValueError: a slope is not above α, the least that the map can have.
        """
        wanted = per_member(slope, self.members, "slope").to(self.alpha)
        if not bool((wanted > self.alpha).all()):
            raise ValueError(
                f"slope should be above alpha, {self.alpha.tolist()}, the least slope, got {wanted.tolist()}"
            )
        of_psi = self._slope_to_start(in_members(x, self.members, self.dimension), generator) - self.alpha
        weights = softplus(self.scale_raw)
        factor = along((wanted - self.alpha) / of_psi, weights)
        self.scale_raw.copy_(raw_of(factor * weights))

    @property
    @abc.abstractmethod
    def scale_raw(self) -> Tensor:
        """The parameter (E, …) whose `softplus` are the last positive weights: ψ is linear in these."""

    @abc.abstractmethod
    def spread_(self, x: Float[Tensor, "*e n d"], *, generator: torch.Generator) -> None:
        """Give the units inputs of unit spread over x, on average, and each its bend at one of these inputs.

        On average only: x may lie in a subspace, and to lift each unit to unit spread would make those large that hardly
        see it.
        """

    @torch.no_grad()
    def within_(self, basis: Float[Tensor, "e d k"]) -> None:
        """Turn what the units read and write into the span of orthonormal columns, where all inputs lie.

        What sticks out of it reads nothing, and writes at random into d outputs before anything is learned.
        """
        for matrix in self._rows_of_inputs():
            matrix.copy_(matrix @ basis @ basis.mT)

    @property
    def ridged(self) -> bool:
        """Whether units have directions drawn at random, which `within_` can turn."""
        return bool(self._rows_of_inputs())

    def _rows_of_inputs(self) -> Sequence[Tensor]:
        """Weights whose rows are directions of the inputs, (E, h, d); none where `spread_` takes these from the inputs."""
        return ()

    @abc.abstractmethod
    def _gradient(self, x: Tensor, basis: Tensor | None) -> Tensor:
        """``αy + a + ∇ψ(y)`` at ``y = Bx``, (E, n, d)."""

    @abc.abstractmethod
    def _potential(self, x: Tensor) -> Tensor:
        """``ψ(x)``, (E, n)."""

    @abc.abstractmethod
    def _hessian(self, x: Tensor) -> Tensor:
        """``∇²ψ(x)``, (E, n, d, d)."""

    @abc.abstractmethod
    def _curvature(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """``v ↦ ∇²ψ(x) v``."""

    def _quadratic(self, x: Tensor, basis: Tensor | None) -> Tensor:
        """``αy + a``, what all Brenier maps have in common."""
        rows = x if basis is None else x @ basis.mT
        return torch.addcmul(self.offset.unsqueeze(1), self.alpha[:, None, None], rows)


def _worth_folding(rows: Tensor, basis: Tensor) -> bool:
    """Whether ``(A B) x`` takes fewer operations than ``A (B x)``, per row of A: dk + nk against nd."""
    n, (d, k) = rows.shape[1], basis.shape[1:]
    return d * k + n * k < n * d


def folded(matrix: Tensor, basis: Tensor | None) -> Tensor:
    """``A B``, or A where the inputs fill the space."""
    return matrix if basis is None else matrix @ basis


def mean_spread(values: Float[Tensor, "e n h"]) -> Float[Tensor, "e 1 1"]:
    """The root mean square over units of their standard deviations over rows."""
    return values.var(1, keepdim=True).mean(2, keepdim=True).sqrt().clamp(min=1e-6)


def any_row(values: Float[Tensor, "e n h"], generator: torch.Generator) -> Float[Tensor, "e 1 h"]:
    """Choose for every unit its value in one row, at random."""
    members, n, units = values.shape
    chosen = torch.randint(n, (members, 1, units), generator=generator).to(values.device)
    return values.gather(1, chosen)

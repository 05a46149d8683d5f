"""All components' Gaussian log densities from one matrix product a block of rows, with a bound on their error.

The quick road to responsibilities; where its bound is too large, `gaussian_ratio` is the accurate one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import thin_product
from identkit.classical.gaussian_mixture.ratio import Gaussians

_COUNTED = {torch.float64: 40.0, torch.float32: 20.0}
"""Components further than this many nats behind the best have an r below the last digit of the others'."""

_AT_ONCE = 2**19
"""How many differences (rows × components × columns) are held at once."""
_AS_NEAR = 1.5
"""By how much farther, squared, the components may be from 0 than from their centre, for 0 to serve as that."""
_CLOSE_ENOUGH = {torch.float64: 2.0**-33, torch.float32: 2.0**-9}


@dataclass(frozen=True, eq=False)
class Whitening:
    """``h_k(x) = log π_k + log N(x; μ_k, C_k)`` as ``c_k − |A_k (x − m) − b_k|²`` with the ½ in ``A_k = L_k⁻¹/√2``.

    The columns of the product are ordered (row of A, component), so that the squares of one component are summed
    along the slow axis. The datum is centred, and each axis scaled by a power of two, before it is multiplied: means
    of 1e6 with deviations of 1e-3 cost no digits.
    """

    centre: Float[Tensor, " d"]
    centred: bool
    """Whether the centre is another point than 0."""
    scale: Float[Tensor, " d"]
    columns: Float[Tensor, "d rest"]
    """A of all components, (d, d·K); only its diagonals, (d, K), where every A is diagonal."""
    offsets: Float[Tensor, " dk"]
    constants: Float[Tensor, " k"]
    stretch: float
    """Largest ``‖ |A_k| ‖`` from the largest norm to the Euclidean one: |A_k r|₂ ≤ stretch·max|r|."""
    far: float
    """Largest |b_k|."""
    lines: Float[Tensor, "d more"] | None
    """Where every A is diagonal and no b far: what ``x − m`` is multiplied by, and …"""
    squares: Float[Tensor, "d_or_one more"] | None
    """… what its square, or the sum of that, is; the last column gives the largest ``|A (x − m)|²``."""
    slack: float
    """Rounding of A, b and c, relative: the condition of the correlation matrices times ε."""

    @classmethod
    def of(cls, log_weights: Tensor, gaussians: Gaussians, dtype: torch.dtype) -> Whitening:
        """Prepare the product in float64 and hand it over in the precision of the data."""
        count, d = gaussians.means.shape
        spread = gaussians.covariances.diagonal(dim1=1, dim2=2).mean(0).sqrt()
        scale = torch.exp2(spread.log2().round())
        centre = gaussians.means.mean(0).to(dtype).double()
        eye = torch.eye(d, dtype=torch.float64, device=centre.device).expand(count, -1, -1)
        inverse = torch.linalg.solve_triangular(gaussians.factors, eye, upper=False) / math.sqrt(2)
        tall = torch.stack([gaussians.means - centre, gaussians.means], 2)
        tall = torch.linalg.solve_triangular(gaussians.factors, tall, upper=False) / math.sqrt(2)
        offsets, plain = tall.unbind(2)
        inverse = inverse * scale
        half_log_det = gaussians.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        diagonals = inverse.diagonal(dim1=1, dim2=2).T
        full = inverse.permute(2, 1, 0).reshape(d, d * count)
        diagonal = not bool(inverse.tril(-1).any())
        if diagonal and plain.square().sum(1).max() <= _AS_NEAR * offsets.square().sum(1).max():
            centre, offsets = torch.zeros_like(centre), plain  # a pass through the data less
        far = offsets.square().sum(1).sqrt().max().item()
        squares = lines = None
        if diagonal and unit_of(d, dtype) * far**2 <= close_enough(d, dtype):
            # −|A r − b|² = −(A²)·r² + 2(A b)·r − |b|²
            unscaled = diagonals / scale[:, None]
            own = unscaled.square()
            own = own[:1] if bool((own == own[0]).all()) else own
            squares = torch.cat([-own, own.amax(1, keepdim=True)], 1).to(dtype)
            lines = torch.cat([2 * unscaled * offsets.T, torch.zeros_like(unscaled[:, :1])], 1).to(dtype)
        return cls(
            centre=centre.to(dtype),
            centred=bool(centre.any()),
            scale=(1 / scale).to(dtype),
            columns=(diagonals if diagonal else full).to(dtype),
            offsets=offsets.T.reshape(-1).to(dtype),
            constants=(log_weights - half_log_det - d / 2 * math.log(2 * math.pi)).to(dtype),
            stretch=inverse.abs().sum(2).square().sum(1).sqrt().max().item(),
            far=far,
            lines=lines,
            squares=squares,
            slack=gaussians.slack,
        )

    def heights(self, x: Float[Tensor, "n d"]) -> Heights:
        """Give ``h_k(x)`` with a bound on the absolute error of those that matter to the responsibilities.

        ``|∆h| ≤ 2|y|·|∆y| + |∆y|²`` with ``|∆y| ≤ γ(|A||x − m| + |b|)``, and ``|y|² ≤ max c − max h + 40`` for every
        component within 40 nats of the best.

        Source: Higham 2002, section 3.5 (matrix products).

        Args:
            x: a block of data, in the precision that was asked for.
        """
        if self.squares is None:
            return self._by_differences(x)
        found = self._by_squares(x)
        if x.dtype == torch.float64:
            rough = ~(found.rounding <= close_enough(x.shape[1], x.dtype))
            if bool(rough.any()):
                for whole, part in zip(found, self._by_differences(x[rough]), strict=True):
                    whole[rough] = part
        return found

    def _by_squares(self, x: Tensor) -> Heights:
        """The square multiplied out: one product, and ``|∆h| ≤ γ(|A r| + |b|)²``."""
        assert self.lines is not None and self.squares is not None
        d = x.shape[1]
        apart = x - self.centre if self.centred else x
        y = thin_product(apart, self.lines, apart.new_empty(len(x), self.lines.shape[1]))
        if len(self.squares) == d:
            apart = apart.square_() if self.centred else apart.square()
            y += thin_product(apart, self.squares, torch.empty_like(y))
        else:
            y.addmm_(torch.linalg.vector_norm(apart, dim=1, keepdim=True).square_(), self.squares)
        reach = y[:, -1].double().sqrt_().add_(self.far)
        values = y[:, :-1] + (self.constants - self.offsets.view(d, -1).square().sum(0))
        return self._bounded(values, reach.square_() * unit_of(d, x.dtype), d)

    @property
    def hopeless(self) -> bool:
        """Whether even typical data, half a nat a column, are further than this precision can multiply out."""
        if self.squares is None:
            return False
        d, dtype = len(self.centre), self.centre.dtype
        reach = math.sqrt(d / 2 + self.far**2) + self.far
        return unit_of(d, dtype) * reach**2 > close_enough(d, dtype)

    def _by_differences(self, x: Tensor) -> Heights:
        d, count = x.shape[1], len(self.constants)
        least = max(256, _AT_ONCE // (d * count))
        if len(x) > least:
            parts = zip(*[self._by_differences(rows) for rows in x.split(least)], strict=True)
            return Heights(*(torch.cat(part) for part in parts))
        r = (x - self.centre).mul_(self.scale)
        if self.columns.shape[1] == d * count:
            y = (r @ self.columns).sub_(self.offsets).square_().view(len(r), d, count)
        else:
            y = (r[:, :, None] * self.columns).sub_(self.offsets.view(d, count)).square_()
        values = torch.sub(self.constants, y.sum(1))
        step = r.abs().amax(1).double().mul_(self.stretch).add_(self.far).mul_(unit_of(d, r.dtype))
        bounded = self._bounded(values, step.square(), d)
        square = self._square(bounded.best)
        return bounded._replace(rounding=bounded.rounding + 2 * square.sqrt() * step)

    def _bounded(self, values: Tensor, rounding: Tensor, d: int) -> Heights:
        best = values.amax(1, keepdim=True)
        square = self._square(best)
        most = abs(float(self.constants.max()) + _COUNTED[values.dtype])
        rounding = rounding + unit_of(d, values.dtype) * (square + most)
        return Heights(values, best, rounding, 2 * self.slack * (square + 1))

    def _square(self, best: Tensor) -> Tensor:
        """The largest ``|y|²`` of a component that counts."""
        most = float(self.constants.max()) + _COUNTED[best.dtype]
        return (most - best[:, 0].double()).clamp(min=0.0)


def unit_of(d: int, dtype: torch.dtype) -> float:
    """What a product over d columns may be wrong by, relative to the sizes of its terms."""
    return 2 * (d + 2) * torch.finfo(dtype).eps


def close_enough(d: int, dtype: torch.dtype) -> float:
    """Up to this bound on the error of ℓ the quick road is kept, by the precision of the data."""
    return _CLOSE_ENOUGH[dtype] * max(1.0, d / 16)


class Heights(NamedTuple):
    """What `Whitening.heights` says about a block of n rows."""

    values: Float[Tensor, "n k"]
    """``h_k(x)`` in nats."""
    best: Float[Tensor, "n 1"]
    """The largest of each row."""
    rounding: Float[Tensor, " n"]
    """A bound on the error that comes from the product."""
    inherited: Float[Tensor, " n"]
    """A bound on the error that comes from factorising the covariances, by whatever road."""

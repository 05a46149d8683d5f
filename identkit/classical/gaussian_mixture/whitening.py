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

from identkit.classical.gaussian_mixture.ratio import Gaussians

_COUNTED = {torch.float64: 40.0, torch.float32: 20.0}
"""Components further than this many nats behind the best have an r below the last digit of the others'."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """``h_k(x) = log π_k + log N(x; μ_k, C_k)`` as ``c_k − |A_k (x − m) − b_k|²`` with the ½ in ``A_k = L_k⁻¹/√2``.

    The columns of the product are ordered (row of A, component), so that the squares of one component are summed
    along the slow axis. The datum is centred, and each axis scaled by a power of two, before it is multiplied: means
    of 1e6 with deviations of 1e-3 cost no digits.
    """

    centre: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    columns: Float[Tensor, "d rest"]
    """A of all components, (d, d·K); only its diagonals, (d, K), where every A is diagonal."""
    offsets: Float[Tensor, " dk"]
    constants: Float[Tensor, " k"]
    stretch: float
    """Largest ``‖ |A_k| ‖`` from the largest norm to the Euclidean one: |A_k r|₂ ≤ stretch·max|r|."""
    far: float
    """Largest |b_k|."""
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
        apart = (gaussians.means - centre)[:, :, None]
        offsets = torch.linalg.solve_triangular(gaussians.factors, apart, upper=False)[..., 0] / math.sqrt(2)
        inverse = inverse * scale
        half_log_det = gaussians.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        diagonals = inverse.diagonal(dim1=1, dim2=2).T
        full = inverse.permute(2, 1, 0).reshape(d, d * count)
        return cls(
            centre=centre.to(dtype),
            scale=(1 / scale).to(dtype),
            columns=(full if bool(inverse.tril(-1).any()) else diagonals).to(dtype),
            offsets=offsets.T.reshape(-1).to(dtype),
            constants=(log_weights - half_log_det - d / 2 * math.log(2 * math.pi)).to(dtype),
            stretch=inverse.abs().sum(2).square().sum(1).sqrt().max().item(),
            far=offsets.square().sum(1).sqrt().max().item(),
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
        d, count = x.shape[1], len(self.constants)
        r = (x - self.centre).mul_(self.scale)
        if self.columns.shape[1] == d * count:
            y = (r @ self.columns).sub_(self.offsets).square_().view(len(x), d, count)
        else:
            y = (r[:, :, None] * self.columns).sub_(self.offsets.view(d, count)).square_()
        values = torch.sub(self.constants, y.sum(1))
        best = values.amax(1, keepdim=True)
        unit = 2 * (d + 2) * torch.finfo(x.dtype).eps
        most = float(self.constants.max()) + _COUNTED[x.dtype]
        square = (most - best[:, 0].double()).clamp(min=0.0)
        step = r.abs().amax(1).double().mul_(self.stretch).add_(self.far).mul_(unit)
        rounding = 2 * square.sqrt() * step + step.square() + unit * (square + abs(most))
        return Heights(values, best, rounding, 2 * self.slack * (square + 1))


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

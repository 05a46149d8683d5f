"""The small matrices of a linear-Gaussian model, its rows block by block, and what rounding may do to both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from identkit.classical.arrays import rows, unfilled
from identkit.classical.placed import Placed

_EPS = torch.finfo(torch.float64).eps
BLOCK = 1 << 19
"""Numbers of a block of rows: what fits into a second-level cache."""

_Model = TypeVar("_Model", bound="Whitened")


class Whitened(Placed):
    """What the answers of a linear-Gaussian model are made of: the whitened loadings ``B = diag(1/ψ) W L``; a base class."""

    # What a family gives: how loud the noise is, where the data lie, and how z follows from u.

    @property
    def _loadings(self) -> Tensor:
        """W, shape (D, K)."""
        raise NotImplementedError

    @property
    def _noise(self) -> Tensor:
        """ψ, shape (D,)."""
        raise NotImplementedError

    @property
    def _centre(self) -> Tensor:
        """The mean of x under the model, shape (D,)."""
        raise NotImplementedError

    @property
    def _prior_mean(self) -> Tensor | None:
        """z_0, shape (K,), or None where it is 0."""
        return None

    @property
    def _prior_root(self) -> Tensor | None:
        """L, lower triangular (K, K), or None where it is the identity."""
        return None

    # Blocks of rows

    def _rows(self, x: Any) -> Tensor:
        return rows(x, len(self._loadings), self._loadings.device)

    def _unchecked_rows(self, x: Any) -> Tensor:
        """The same as `_rows`, but big arrays are not read only to see whether they are finite."""
        plain = isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)
        if (
            plain
            and x.dtype in (np.float32, np.float64)
            and x.flags.writeable
            and min(x.strides, default=0) >= 0
        ):
            x = torch.from_numpy(x).to(self._loadings.device)
        if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
            return self._rows(x)
        return x.detach() if x.ndim == 2 and x.shape[1] == len(self._loadings) else self._rows(x)

    def _at(self: _Model, x: Tensor) -> _Model:
        """The same model where x lies, in float64."""
        return self._like(x.new_empty(0, dtype=torch.float64))

    def _residual(self, x: Tensor) -> Tensor:
        centre = self._centre.to(x.dtype)
        r = x - centre
        if x.dtype != torch.float64:
            # A centre of 1e6 is coarse in float32; what its rounding lost is small and added back.
            r += (centre.to(torch.float64) - self._centre).to(x.dtype)
        return r.mul_((1 / self._noise).to(x.dtype))

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, BLOCK // max(1, x.shape[1])))

    def _residuals(self, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """``(x − μ)`` over the noise, block by block in one buffer."""
        centre, precision = self._centre.to(x.dtype), (1 / self._noise).to(x.dtype)
        lost = None if x.dtype == torch.float64 else (centre.to(torch.float64) - self._centre).to(x.dtype)
        size = max(1, BLOCK // max(1, x.shape[1]))
        buffer = x.new_empty(min(size, len(x)), x.shape[1])
        for start in range(0, len(x), size):
            place = slice(start, min(start + size, len(x)))
            r = buffer[: place.stop - start]
            torch.sub(x[place], centre, out=r)
            if lost is not None:
                r.add_(lost)
            yield place, r.mul_(precision)

    def _by_block(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The rows' results, in the precision of x; `function` takes residuals."""
        first = function(x.new_zeros(0, x.shape[1]))
        result = unfilled(x, len(x), *first.shape[1:])
        for place, r in self._residuals(x):
            result[place] = function(r)
        return result

    # Small matrices, once a model and in float64

    @property
    def _log_constant(self) -> float:
        return self._noise.log().sum().item() + len(self._noise) * math.log(2 * math.pi) / 2

    @cached_property
    def _whitened(self) -> Tensor:
        weights = self._loadings / self._noise[:, None]
        return weights if self._prior_root is None else weights @ self._prior_root

    @cached_property
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Singular vectors and values of B, with K of each also where D < K: rows of zeros change nothing."""
        d, k = self._whitened.shape
        padded = torch.nn.functional.pad(self._whitened, (0, 0, 0, max(0, k - d)))
        left, values, right = torch.linalg.svd(padded, full_matrices=False)
        return left[:d], values, right

    @cached_property
    def _pull(self) -> Tensor:
        """``BS`` with z's own scale, (D, K): what a residual is multiplied with."""
        left, values, right = self._svd
        pull = (left * (values / (1 + values.square()))) @ right
        return pull if self._prior_root is None else pull @ self._prior_root.T

    @cached_property
    def _factor(self) -> Tensor:
        """The Cholesky factor of the posterior covariance of z."""
        _, values, right = self._svd
        root = right / (1 + values.square()).sqrt()[:, None]  # rootᵀ root = S
        root = root if self._prior_root is None else root @ self._prior_root.T
        upper = torch.linalg.qr(root).R
        return (upper * torch.where(upper.diagonal() < 0, -1.0, 1.0)[:, None]).T

    @cached_property
    def _own_columns(self) -> Tensor:
        """For each latent the column of B along which it moves when the others stand still, unit prior scale."""
        root = self._prior_root
        if root is None:
            return self._whitened
        still = torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
        return self._loadings / self._noise[:, None] / still.square().sum(0).sqrt()

    @cached_property
    def _leave_one_out(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Per latent, seen from its marginal prior: g_j = (I + B_−j B_−jᵀ)⁻¹B_j, the explained b_j, the left-over c_j.

        And ``|B_−jᵀ g_j|``, by which an error of the other columns enters c_j.
        """
        root = self._prior_root
        if root is None or not bool(root.tril(-1).any()):
            return self._left_over(self._own_columns, None)
        axes = root / root.square().sum(1, keepdim=True).sqrt()
        return self._left_over(self._whitened @ axes.T, axes)

    @cached_property
    def _given_others(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, each latent seen from its prior given the other latents."""
        root = self._prior_root
        if root is None or not bool(root.tril(-1).any()):
            return self._leave_one_out
        still = torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
        return self._left_over(self._own_columns, (still / still.square().sum(0).sqrt()).T)

    def _left_over(self, columns: Tensor, axes: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pulls, explained, left_over, leaks = [], [], [], []
        for j in range(columns.shape[1]):
            column = columns[:, j]
            if axes is None:
                others = torch.cat([columns[:, :j], columns[:, j + 1 :]], 1)
            else:
                complement = torch.linalg.qr(axes[j][:, None], mode="complete").Q[:, 1:]
                others = self._whitened @ complement
            left, values, _ = torch.linalg.svd(others, full_matrices=False)
            along = left.T @ column
            # Twice, or what rounding leaves of a column that the others span would meet all of the residual.
            outside = column - left @ along
            outside = outside - left @ (left.T @ outside)
            shrink = 1 + values.square()
            pulls.append(outside + left @ (along / shrink))
            explained.append((along.square() * (values.square() / shrink)).sum())
            left_over.append(outside.square().sum() + (along.square() / shrink).sum())
            leaks.append((along * (values / shrink)).square().sum().sqrt())
        return torch.stack(pulls, 1), torch.stack(explained), torch.stack(left_over), torch.stack(leaks)

    @staticmethod
    def _means(r: Tensor, left_out: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        # m_j by regression of r on what the other columns leave of B_j: a column of zeros has exactly 0.
        pulls, _, left_over, _ = left_out
        return r @ (pulls / (1 + left_over)).to(r.dtype)

    def _whitened_mean(self, x: Tensor) -> Tensor:
        left, values, right = self._svd
        return (self._residual(x) @ left * (values / (1 + values.square()))) @ right

    # Errors

    @property
    def _backward(self) -> float:
        return 16 * (sum(self._loadings.shape) + 2) * self._spread * _EPS

    @cached_property
    def _spread(self) -> float:
        """By what the rounding of ``W L`` and of z's own axes may grow: the condition of L with unit rows."""
        root = self._prior_root
        if root is None:
            return 1.0
        return float(torch.linalg.cond(root / root.square().sum(1, keepdim=True).sqrt()))

    def _size(self, x: Tensor) -> Tensor:
        # What the rounding of x − μ is relative to.
        return ((x.abs() + self._centre.abs()) / self._noise).square().sum(1).sqrt()

    def _mean_error(self, x: Tensor, mean: Tensor) -> Tensor:
        """Bound |∆m| ≤ |S||∆B||r − Bm| + |SBᵀ|(|∆B||m| + |∆r|)."""
        values = torch.linalg.svdvals(self._whitened)
        complete = self._whitened.shape[0] >= self._whitened.shape[1]
        least = values.min() if complete else values.new_zeros(())
        pull = (values / (1 + values.square())).max()
        residual = (self._residual(x) - mean @ self._whitened.T).square().sum(1).sqrt()
        delta = self._backward * values.max()
        by_data = mean.square().sum(1).sqrt() * delta + self._backward * self._size(x)
        return delta * residual / (1 + least.square()) + pull * by_data

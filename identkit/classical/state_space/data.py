"""The doors of a state-space model: its matrices, each checked and factored, and sequences with values missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.classical.arrays import floats, real, refuse_overflow
from identkit.classical.state_space.kalman_scan import Array, lower_inverse, np_of, zeros
from identkit.model.compiled.data import unmasked

_EPS = 2.0**-52
_SYMMETRY_TOLERANCE = 1e-12


def matrix(value: Any, name: str, *shape: int | None) -> Tensor:
    """Convert an array of a shape, or one such array for each time; None leaves an axis free, but not empty.

    Raises:
        TypeError, ValueError: as `real`, and for another shape.
    """
    tensor = real(value, name)
    fits = tensor.ndim - len(shape) in (0, 1) and all(
        length > 0 and expected in (None, length)
        for length, expected in zip(tensor.shape[::-1], shape[::-1], strict=False)
    )
    if not fits or 0 in tensor.shape:
        words = ", ".join("any" if length is None else str(length) for length in shape)
        comma = "," if len(shape) == 1 else ""
        raise ValueError(
            f"{name} should have shape ({words}{comma}) or (T, {words}), got {tuple(tensor.shape)}"
        )
    return tensor


def covariance(value: Any, name: str, size: int, singular: bool) -> Tensor:
    """Convert covariances as `matrix` does; symmetric but for rounding, the mean of the two triangles is taken.

    Args:
        value: (size, size), or one for each time.
        name: what the caller calls it.
        size: number of coordinates.
        singular: whether a positive semidefinite one will do.

    Raises:
        TypeError, ValueError: as `matrix`; asymmetric, or not positive (semi)definite.
    """
    tensor = matrix(value, name, size, size)
    variance = tensor.diagonal(dim1=-2, dim2=-1)
    least = variance.min().item()
    if least < 0 or (least == 0 and not singular):
        wanted = "no negative variance" if singular else "a positive diagonal"
        raise ValueError(f"{name} should have {wanted}, got {least} on its diagonal")
    scale = torch.where(variance > 0, variance, 1.0).sqrt()
    correlation = tensor / scale[..., :, None] / scale[..., None, :]
    if bool(((correlation - correlation.mT).abs() > _SYMMETRY_TOLERANCE).any()):
        raise ValueError(f"{name} should be symmetric, got {tensor.tolist()!s:.200}")
    correlation = (correlation + correlation.mT) / 2
    lowest = torch.linalg.eigvalsh(correlation).min().item()
    if lowest < -64 * size * _EPS or (not singular and lowest <= size * _EPS):
        wanted = "positive semidefinite" if singular else "positive definite"
        raise ValueError(
            f"{name} should be {wanted}, got {tensor.tolist()!s:.200}, "
            f"whose correlation matrix has the eigenvalue {lowest:.3g}"
        )
    return (tensor + tensor.mT) / 2


def factor(covariances: Tensor) -> tuple[Tensor, bool]:
    """Give G with ``GGᵀ`` the positive semidefinite covariances (…, k, k), and whether all have full rank.

    Cholesky's factor where it exists, which keeps zeros where they are; else the eigenvectors of the correlations,
    in whose scale a rank is judged.
    """
    scale = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)
    correlation = covariances / safe[..., :, None] / safe[..., None, :]
    lower, failed = torch.linalg.cholesky_ex(correlation)
    pivots = lower.diagonal(dim1=-2, dim2=-1)
    small = len(pivots) == 0 or bool((pivots.amin(-1).square() <= 8 * pivots.shape[-1] * _EPS).any())
    if not bool(failed.any()) and not small:
        return safe[..., :, None] * lower, True
    values, vectors = torch.linalg.eigh(correlation)
    kept = torch.where(values > 8 * values.shape[-1] * _EPS, values, 0.0)
    halves = safe[..., :, None] * vectors * kept.sqrt()[..., None, :]
    regular = (failed == 0) & (pivots.amin(-1).square() > 8 * pivots.shape[-1] * _EPS)
    # A coordinate without variance stays out of all factors exactly: its own row and column are zero.
    halves = torch.where((scale > 0)[..., :, None], halves, 0.0)
    return torch.where(regular[..., None, None], safe[..., :, None] * lower, halves), False


def conditioning(covariances: Tensor) -> float:
    """The least eigenvalue of the correlations of what varies at all, 1 at best."""
    scale = covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)
    correlation = covariances / safe[..., :, None] / safe[..., None, :]
    correlation = correlation + torch.diag_embed((scale <= 0).to(correlation.dtype))
    return torch.linalg.eigvalsh(correlation).min().item()


def sequences(
    x: Any, length: int | None, columns: int, device: torch.device, filled: bool = True
) -> tuple[Tensor, Tensor]:
    """Convert sequences to (n, T, p), zeros where a value is missing, and a table of what is observed.

    Args:
        x: (n, T, p); without a declared length also one sequence (T, p), with one also rows (n, T·p). NaN is missing.
        length: the declared T, or None.
        columns: p.
        device: where data that are no tensor go.
        filled: whether zeros have to be where a value is missing; else anything may.

    Returns:
        Values of float32 or float64, and what is observed.

    Raises:
        TypeError, ValueError: as `real` (but for NaN), and for another shape.
    """
    values: Any = x
    if isinstance(x, Tensor):
        values = x.detach()
        # NumPy's passes over an array never wait for a thread.
        plain = values.device.type == "cpu" and values.layout == torch.strided and not values.is_complex()
        values = values.numpy() if plain else values
    elif _rectangular(x):
        values = floats(np.asarray(unmasked(x)), data=True)
    if isinstance(values, np.ndarray) and values.dtype in (np.float32, np.float64):
        known = ~np.isnan(values)
        if not np.array_equal(np.isfinite(values), known):
            real(np.nan_to_num(values, posinf=np.inf, neginf=-np.inf), "x", single=True)  # which refuses it
        if filled and not known.all():
            values = np.nan_to_num(values)
        observed, tensor = torch.from_numpy(known), torch.from_numpy(values)
    elif isinstance(values, Tensor) and values.is_floating_point() and values.layout == torch.strided:
        observed = ~values.isnan()
        tensor = real(torch.where(observed, values, 0.0), "x", single=True)
    else:
        tensor = real(values, "x", single=True)
        observed = torch.ones_like(tensor, dtype=torch.bool)
    refuse_overflow(tensor)
    if not isinstance(x, Tensor):
        tensor, observed = tensor.to(device), observed.to(device)
    shape = tuple(tensor.shape)
    if tensor.ndim == 1 and len(tensor) == 0 and length is not None:
        shape = (0, length, columns)
    elif length is None and columns == 1 and tensor.ndim == 1:
        shape = (1, len(tensor), 1)
    elif length is None and tensor.ndim == 2:
        shape = (1, *shape)
    elif length is not None and tensor.ndim == 2 and shape[1] == length * columns:
        shape = (len(tensor), length, columns)
    if len(shape) != 3 or shape[2] != columns or shape[1] != (length or shape[1]) or shape[1] == 0:
        wanted = (
            f"(T, {columns}) or (n, T, {columns})"
            if length is None
            else f"(n, {length * columns}) or (n, {length}, {columns})"
        )
        raise ValueError(f"x should have shape {wanted}, got {tuple(tensor.shape)}")
    return tensor.reshape(shape), observed.reshape(shape)


def _rectangular(x: Any) -> bool:
    try:
        return np.asarray(x).dtype.kind in "biuf"
    except ValueError:
        return False


@dataclass(frozen=True, eq=False)
class Seen:
    """Observations with unit noise, ``r = W z + ε``; what is missing has a row of zeros in W and 0 in r.

    The tables have the axes (g, T) in front, g = 1 where all sequences miss the same, or neither where nothing
    depends on time.
    """

    design: Array
    """W."""
    residuals: Array
    """r, (n, T, p), relative to the prior's mean path."""
    sizes: Array
    """What the rounding of r is relative to, (n,)."""
    log_scale: Array
    """``Σ log sd`` of the noise of what is observed, (n,)."""
    counts: Array
    """How many numbers are observed, (n,)."""

    @property
    def constant(self) -> bool:
        """Whether W is one matrix."""
        return self.design.ndim == 2


def whiten(
    observation: Array, noise: Array, offset: Array, values: Array, observed: Array, means: Array
) -> Seen:
    """Divide the noise out: ``r = L⁻¹(x − d − H m)``, ``W = L⁻¹H`` with ``LLᵀ = R``, of what is observed.

    Args:
        observation: H, (p, k) or (T, p, k).
        noise: R, (p, p) or (T, p, p).
        offset: d, (p,) or (T, p).
        values: (n, T, p), 0 where missing.
        observed: (n, T, p).
        means: the prior's mean path, (T, k).
    """
    xp = np_of(values)
    expected = offset + (observation @ means[..., None])[..., 0]
    centred = xp.where(observed, values - expected, 0.0)
    magnitude = xp.where(observed, abs(values) + abs(expected), 0.0)
    whole = bool(observed.all())
    counts = observed.sum((1, 2)).astype(np.float64) if xp is np else observed.sum((1, 2)).double()
    if whole and noise.ndim == 2 and observation.ndim == 2:
        inverse = lower_inverse(noise)
        scale = -xp.log(xp.diagonal(inverse)).sum() * values.shape[1]
        residuals, magnitude = centred @ inverse.T, magnitude @ abs(inverse).T
        design, scales = inverse @ observation, xp.zeros_like(counts) + scale
        return Seen(design, residuals, _norms(magnitude), scales, counts)
    shared = len(observed) > 0 and bool((observed == observed[:1]).all())
    if len(observed):
        mask = observed[:1] if shared else observed
    else:
        mask = zeros(values, (1, *values.shape[1:])) == 0
    if noise.ndim == 2:
        patterns, index = _patterns(mask)
        inverse = lower_inverse(_embedded(noise, patterns))
        if observation.ndim == 2:
            design = (inverse @ xp.where(patterns[..., None], observation, 0.0))[index]
            inverse = inverse[index]
        else:
            inverse = inverse[index]
            design = inverse @ xp.where(mask[..., None], observation, 0.0)
    else:
        inverse = lower_inverse(_embedded(noise, mask))
        design = inverse @ xp.where(mask[..., None], observation, 0.0)
    k = range(inverse.shape[-1])
    scale = -xp.log(inverse[..., k, k]).sum(-1).sum(-1)
    residuals = (inverse @ centred[..., None])[..., 0]
    magnitude = (abs(inverse) @ magnitude[..., None])[..., 0]
    return Seen(design, residuals, _norms(magnitude), xp.zeros_like(counts) + scale, counts)


def _norms(values: Array) -> Array:
    return (values**2).sum((1, 2)) ** 0.5


def _embedded(noise: Array, mask: Array) -> Array:
    """R of what is observed, and unit noise of its own for what is not."""
    xp = np_of(noise)
    k = range(noise.shape[-1])
    both = mask[..., :, None] & mask[..., None, :]
    kept = xp.where(both, noise, 0.0)
    kept[..., k, k] = xp.where(mask, kept[..., k, k], 1.0)
    return kept


def _patterns(mask: Array) -> tuple[Array, Array]:
    """The different rows of (g, T, p) and which of them stands where, (g, T)."""
    p = mask.shape[-1]
    if isinstance(mask, np.ndarray):
        rows = mask.reshape(-1, p)
        packed = np.packbits(rows, axis=1)
        padded = np.zeros((len(rows), -(-packed.shape[1] // 8) * 8), dtype=np.uint8)
        padded[:, : packed.shape[1]] = packed
        codes = padded.view(np.uint64)
        if codes.shape[1] == 1:
            _, first, index = np.unique(codes[:, 0], return_index=True, return_inverse=True)
            return rows[first], index.reshape(mask.shape[:2])
        patterns, index = np.unique(rows, axis=0, return_inverse=True)
        return patterns, index.reshape(mask.shape[:2])
    patterns, index = torch.unique(mask.reshape(-1, p), dim=0, return_inverse=True)
    return patterns, index.reshape(mask.shape[:2])

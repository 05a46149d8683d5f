"""The door of every classical model: arrays become finite float64 tensors of the right shape, or an error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.compiled.data import unmasked

_LARGEST = 1e150
_LEAST = 1e-150
MOST_COUNTED = 2.0**53
_FOR_THREADS = 2**20
"""Fewer numbers than this are looked at faster by one thread than others are woken."""


def real(value: Any, name: str, single: bool = False, missing: bool = False) -> Float[Tensor, " ..."]:
    """Convert an array of finite real numbers to float64, on the device it came on and without its gradient.

    Integers are converted here, before any arithmetic could truncate a density; a float32 keeps its value. What a
    masked array hides is NaN: missing, or refused.

    Args:
        value: a number, nested lists, a numpy array or a tensor.
        name: what the caller calls it, for the message.
        single: leave float32 as it is.
        missing: let NaN pass.

    Raises:
        TypeError: it is no array of real numbers.
        ValueError: it holds NaN or an infinity, or its rows differ in length.

    >>> real([[1, 2]], "x")
    tensor([[1., 2.]], dtype=torch.float64)
    """
    if isinstance(value, Tensor):
        tensor = value.detach()
        numeric = tensor.layout == torch.strided and not tensor.is_complex()
    else:
        try:
            array = np.asarray(unmasked(value))
        except ValueError as error:
            raise ValueError(
                f"{name} should be a rectangular array of numbers, got rows that differ"
            ) from error
        numeric = array.dtype.kind in "biuf"
        tensor = torch.from_numpy(floats(array, single)) if numeric else torch.empty(0)
    if not numeric:
        raise TypeError(f"{name} should be an array of real numbers, got {' '.join(repr(value).split()):.80}")
    if not (single and tensor.dtype == torch.float32):
        tensor = tensor.to(torch.float64)
    # A sum is finite only if every term is, and takes no second array; one that overflows is looked at more closely.
    if not bool(torch.isfinite(tensor.sum())) and not _allowed(tensor, missing):
        refused = torch.nonzero(tensor.isinf() if missing else ~tensor.isfinite())
        place = tuple(refused[0].tolist())
        where = f" at index {place}" if place else ""
        raise ValueError(f"{name} should be finite, got {tensor[place].item()}{where}")
    return tensor


def refuse_overflow(x: Float[Tensor, ...]) -> None:
    """Refuse numbers whose squares a double cannot hold, for families whose densities square them.

    Raises:
        ValueError: there is one, and it is named.

    >>> refuse_overflow(torch.tensor([1e150], dtype=torch.float64))
    """
    # Torch would wake its threads for a small array, which can cost milliseconds.
    looked = x.numpy() if x.device.type == "cpu" and x.numel() < _FOR_THREADS else x
    if x.numel() and max(-float(looked.min()), float(looked.max())) > _LARGEST:
        place = tuple(torch.nonzero(x.abs() > _LARGEST)[0].tolist())
        raise ValueError(
            f"x should be at most {_LARGEST:g} in size, got {x[place].item():g} at index {place}"
        )


def refuse_still(x: Float[Tensor, "n d"]) -> None:
    """Refuse a column that does not vary, or by so little that its variance is no double; n ≥ 1.

    Raises:
        ValueError: there is one, and it is named.

    >>> refuse_still(torch.tensor([[1e6], [1e6 + 1e-3]], dtype=torch.float64))
    """
    spread = x.amax(0) - x.amin(0)
    still = torch.nonzero(spread < _LEAST)
    if len(still):
        column = int(still[0])
        wanted = (
            "vary in every column" if spread[column] == 0 else f"vary by more than {_LEAST:g} in every column"
        )
        raise ValueError(f"x should {wanted}, got {x[0, column].item():g} throughout column {column}")


def no_counts(x: Any) -> Any:
    """Where an array or a tensor holds no count: negative, a fraction, or beyond 2⁵³, where doubles skip whole numbers.

    >>> no_counts(np.array([3.0, 0.5, -1.0, 1e30]))
    array([False,  True,  True,  True])
    """
    return (x < 0) | (x != x.round()) | (x > MOST_COUNTED)


COUNTS = "counts 0, 1, 2, … up to 2⁵³"


def _allowed(tensor: Tensor, missing: bool) -> bool:
    if missing:  # `isinf` would take a second array
        return not bool((tensor == math.inf).any()) and not bool((tensor == -math.inf).any())
    return bool(torch.isfinite(tensor).all())


def floats(array: np.ndarray, data: bool) -> np.ndarray:
    """Give an array in float64, that torch can read; data, which are never written, as they are if it can read them.

    Args:
        array: of real numbers.
        data: whether nothing of it is kept; then float32 stays, too.

    >>> x = np.ones(3)
    >>> floats(x, data=True) is x, floats(x, data=False) is x
    (True, False)
    """
    single = data and array.dtype == np.float32
    known = single or (data and array.dtype == np.float64)
    if known and array.flags.writeable and all(stride >= 0 for stride in array.strides):
        return array
    return array.astype(np.float32 if single else np.float64, order="C")


def shaped(value: Any, name: str, *shape: int | None) -> Float[Tensor, " ..."]:
    """Convert as `real` does and hold the result to a shape; None leaves an axis free, but not empty.

    Raises:
        TypeError, ValueError: as `real`, and for another shape.

    >>> shaped([[1.0], [2.0]], "z", None, 1).shape
    torch.Size([2, 1])
    """
    tensor = real(value, name)
    fits = tensor.ndim == len(shape) and all(
        length > 0 and expected in (None, length)
        for length, expected in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        words = ", ".join("any" if length is None else str(length) for length in shape)
        comma = "," if len(shape) == 1 else ""
        raise ValueError(f"{name} should have shape ({words}{comma}), got {tuple(tensor.shape)}")
    return tensor


def rows(
    x: Any, columns: int, device: torch.device | None = None, missing: bool = False
) -> Float[Tensor, "n d"]:
    """Convert data to shape (n, columns), n ≥ 0; a vector is n rows where a row is one number.

    Float32 stays as it is, all else becomes float64. A tensor stays on its device.

    Args:
        x: numpy, torch or nested lists.
        columns: numbers in a row.
        device: where data that are no tensor go.
        missing: let NaN pass.

    Raises:
        TypeError, ValueError: as `shaped`.

    >>> rows([1, 2, 3], 1).shape
    torch.Size([3, 1])
    """
    tensor = real(x, "x", single=True, missing=missing)
    if not isinstance(x, Tensor):
        tensor = tensor.to(device)
    if tensor.ndim == 1 and (columns == 1 or len(tensor) == 0):
        tensor = tensor.reshape(-1, columns)
    if tensor.ndim != 2 or tensor.shape[1] != columns:
        raise ValueError(f"x should have shape (any, {columns}), got {tuple(tensor.shape)}")
    return tensor


def latents(
    z: Any, n: int, columns: int, device: torch.device | None = None
) -> Float[Tensor, "*samples n k"]:
    """Convert latents to shape (n, columns) or (samples, n, columns).

    Raises:
        TypeError, ValueError: as `real`, and for another shape.
    """
    tensor = real(z, "z")
    if tensor.ndim not in (2, 3) or tensor.shape[-2:] != (n, columns):
        expected = f"({n}, {columns}) or (samples, {n}, {columns})"
        raise ValueError(f"z should have shape {expected}, got {tuple(tensor.shape)}")
    return tensor.to(device)


def positive(value: Any, name: str) -> float:
    """Convert one positive finite number.

    Raises:
        TypeError, ValueError: as `real`, and where it is not positive.

    >>> positive(2, "sigma")
    2.0
    """
    number = shaped(value, name).item()
    if not 0 < number < math.inf:
        raise ValueError(f"{name} should be positive, got {number}")
    return number


def unfilled(like: Float[Tensor, ...], *shape: int) -> Tensor:
    """Give a tensor of any content, with the dtype and the device of another, for a large result.

    A result of 128 MB takes as long to be given its pages by the kernel as to be computed. On a processor it lies in
    numpy's memory, which asks for large pages where torch does not.

    >>> unfilled(torch.ones(1, dtype=torch.float64), 2, 3).shape
    torch.Size([2, 3])
    """
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, like.new_empty(0).numpy().dtype))


_NARROW = 64  # columns of factor analysis, up to which numpy's products pay


def thin_product(
    left: Float[Tensor, "n d"], right: Float[Tensor, "d k"], out: Float[Tensor, "n k"]
) -> Float[Tensor, "n k"]:
    """Write ``left @ right`` into `out`, for many rows and few columns.

    On a processor by numpy, whose OpenBLAS takes a third of the time of torch's MKL where k is small (8 or 16). Not where d
    is large and blocks are short: OpenBLAS's threads spin on after each product, in the way of torch's.

    >>> thin_product(torch.ones(3, 2), torch.ones(2, 1), torch.empty(3, 1)).T
    tensor([[2., 2., 2.]])
    """
    if left.device.type == "cpu" and out.is_contiguous() and left.shape[1] <= _NARROW:
        np.dot(left.numpy(), right.numpy(), out=out.numpy())
        return out
    return torch.mm(left, right, out=out)

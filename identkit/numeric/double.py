"""Runs a program written for single precision in double: the same function of its latents, with less rounding.

Programs of other libraries hold float32 parameters and data wherever their authors did not think of it, and probes tell
flat from nearly flat far better at 1e-16 than at 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class _Double(TorchFunctionMode):
    """Every call takes its float32 arguments, tensors and dtypes, as float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "float":
            func = Tensor.double
        if name == "__get__":  # an attribute, such as .grad or .device, is read off the tensor itself
            return func(*args, **(kwargs or {}))
        written = (
            args[:1] if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) else ()
        )
        rest = tree_map(_widened, args[len(written) :])
        return func(*written, *rest, **tree_map(_widened, kwargs or {}))


def _widened(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.dtype == torch.float32:
        return leaf.to(torch.float64)
    return torch.float64 if leaf is torch.float32 else leaf


@contextmanager
def double_precision() -> Iterator[None]:
    """Inside, torch computes in float64 what its callers wrote in float32; tensors written in place keep their type.

    >>> weight = torch.ones(1, 2)
    >>> with double_precision():
    ...     (torch.ones(2, dtype=torch.float64) @ weight.T).dtype
    torch.float64
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def promoted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, computed in double precision.

    >>> weight = torch.tensor([1.0, 2.0])
    >>> promoted(lambda z: z * weight)(torch.ones(2, dtype=torch.float64))
    tensor([1., 2.], dtype=torch.float64)
    """

    def wide(*arguments: Any) -> Any:
        with double_precision():
            return function(*arguments)

    return wide

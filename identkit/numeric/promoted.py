"""Functions that hold float32 tensors, computed in float64: their weights are exact there, and rounding is far smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def promoted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, with every float32 tensor that an operation meets taken to float64.

    >>> weight = torch.tensor([1.0, 2.0])
    >>> promoted(lambda z: z * weight)(torch.ones(2, dtype=torch.float64))
    tensor([1., 2.], dtype=torch.float64)
    """

    def wide(*arguments: Any) -> Any:
        with _Double():
            return function(*arguments)

    return wide


class _Double(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        func = torch.Tensor.double if func is torch.Tensor.float else func  # or it would round on the way
        found = func(*_wide(args), **_wide(kwargs or {}))
        return _wide(found) if isinstance(found, Tensor) else found


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        with torch._C.DisableTorchFunction():
            return value.double() if value.dtype == torch.float32 else value
    if value is torch.float32:
        return torch.float64
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_wide(each) for each in value)
    if isinstance(value, dict):
        return {name: _wide(each) for name, each in value.items()}
    return value

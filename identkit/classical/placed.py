"""Models that follow their data: on the device they lie on, in the precision they come in."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from identkit.classical.shown import shown

_Model = TypeVar("_Model", bound="Placed")


class Placed:
    """A frozen dataclass whose tensors can be had on another device and in another precision.

    Parameters are kept in float64. Float32 data are answered in float32, all other data in float64; data that
    are a tensor are answered where they lie, numpy arrays and lists where the parameters lie.
    """

    __repr__ = shown

    def _like(self: _Model, x: Tensor) -> _Model:
        """Give the same model where x lies and in its precision: itself, or a copy that is kept for the next call."""
        here = next(t for t in self._tensors().values())
        if here.dtype == x.dtype and here.device == x.device:
            return self
        copies: dict[Any, Any] = self.__dict__.setdefault("_copies", {})
        place = (x.device, x.dtype)
        if place not in copies:
            copies[place] = self._moved(x.device, x.dtype)
        return copies[place]

    def _tensors(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def _moved(self: _Model, device: torch.device, dtype: torch.dtype) -> _Model:
        other = object.__new__(type(self))
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = value.to(device, dtype if value.is_floating_point() else None)
            object.__setattr__(other, field.name, value)
        return other

"""How a model prints: one line that names its family and its parameters, large tables by their shapes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor

_WRITTEN_OUT = 9
"""A table of at most so many numbers is written out."""


def shown(self: Any) -> str:
    """Be the `__repr__` of a frozen dataclass, written as its constructor would be called, to four digits.

    What is None, False or private is left out; a fit is told by its log-likelihood.

    >>> from identkit.classical.conjugate import GammaPoisson
    >>> shown(GammaPoisson(2.0, 1 / 3))
    'GammaPoisson(shape=2, rate=0.3333, exposure=1)'
    """
    parts = []
    for field in fields(self):
        value = getattr(self, field.name)
        if field.name.startswith("_") or value is None or value is False:
            continue
        if field.name == "convergence":
            how = "" if value.converged else "not "
            parts.append(f"fit {how}converged at {value.log_likelihood:.6g} nats")
        else:
            parts.append(f"{field.name}={_written(value)}")
    return f"{type(self).__name__}({', '.join(parts)})"


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() > _WRITTEN_OUT:
            return f"<{' × '.join(map(str, value.shape))}>"
        return _written(value.tolist())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_written(entry) for entry in value)}]"
    return f"{value + 0.0:.4g}" if isinstance(value, float) else repr(value)  # + 0.0 turns −0 into 0

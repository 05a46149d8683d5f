"""The door for sequences: one long one, a batch of unequal ones, or a table with one sequence a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from identkit.classical.arrays import floats, real
from identkit.classical.hidden_markov.emissions import Emission
from identkit.model.compiled.data import unmasked

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Sequences:
    """n sequences, padded to the longest; what is missing or beyond an end is 0 and not observed."""

    x: Array
    """(n, T, d), float64."""
    observed: Array
    """(n, T)."""
    lengths: Array
    """(n,)."""
    device: torch.device
    dtype: torch.dtype
    """Where and in which precision answers are given."""

    @property
    def beyond(self) -> Array:
        """(n, T): the steps after each end."""
        return np.arange(self.observed.shape[1]) >= self.lengths[:, None]

    def some(self, rows: slice) -> Sequences:
        """Some of the sequences, as long a table."""
        return replace(self, x=self.x[rows], observed=self.observed[rows], lengths=self.lengths[rows])

    def answer(self, value: Array) -> Tensor:
        """A result as a tensor, where the data were and in their precision."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device, self.dtype)

    def exact(self, value: Array) -> Tensor:
        """A result as a float64 tensor, where the data were."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.device)


def sequences(x: Any, emission: Emission, length: int | None, lengths: Any = None) -> Sequences:
    """Convert what a caller calls data.

    Args:
        x: with a declared `length` T a table, (n, T·d) or (n, T, d), one sequence a row. Without: one sequence,
            (T, d) or, where d = 1, (T,); or a list of such arrays, of any lengths; or (n, T, d), padded. A step of
            NaN is missing.
        emission: what a step holds.
        length: T, if the model declares it.
        lengths: how many steps of each row of a padded (n, T, d) are there; (n,) integers.

    Raises:
        TypeError, ValueError: another shape, an infinity, a step that is missing in part, or what the emission refuses.
    """
    d = emission.columns
    if length is None and isinstance(x, (list, tuple)) and all(_is_array(part) for part in x):
        if lengths is not None:
            raise ValueError("lengths should be None for a list of sequences, which know their own")
        parts = [_one(part, d, f"x[{i}]") for i, part in enumerate(x)]
        ends = np.array([len(part) for part in parts], dtype=np.int64)
        table = np.full((len(parts), int(ends.max(initial=0)), d), np.nan)
        for row, part in zip(table, parts, strict=True):
            row[: len(part)] = part
        first = next((part for part in x if isinstance(part, Tensor)), x[0] if x else None)
    else:
        table, first = _numbers(x, "x"), x
        if length is not None:
            if table.ndim == 2 and table.shape[1] == length * d:
                table = table.reshape(len(table), length, d)
            elif table.ndim == 1 and length * d == 1:
                table = table.reshape(-1, 1, 1)
            if table.ndim != 3 or table.shape[1:] != (length, d):
                raise ValueError(
                    f"x should have shape (any, {length * d}), one sequence of {length} steps a row, "
                    f"got {table.shape}; of_length(None) takes sequences of any length"
                )
        elif table.ndim != 3:
            table = _one(table, d, "x")[None]
        elif table.shape[2] != d:
            raise ValueError(f"x should have shape (any, any, {d}), got {table.shape}")
        ends = np.full(len(table), table.shape[1])
        if lengths is not None:
            ends = _ends(lengths, table)
            table = np.where(np.arange(table.shape[1])[:, None] < ends[:, None, None], table, np.nan)
    observed = np.ones(table.shape[:2], dtype=bool)
    filled = table
    if np.isnan(table.sum()):
        missing = np.isnan(table)
        observed = np.asarray(~missing.any(2))
        partly = np.argwhere(missing.any(2) != missing.all(2))
        if len(partly):
            row, step = partly[0]
            raise ValueError(
                f"x should be missing for a whole step or not at all, got {table[row, step].tolist()} "
                f"at step {step + 1} of sequence {row + 1}"
            )
        # What is not there is written as a datum that every emission takes.
        filled = np.where(missing, table[observed][0] if observed.any() else 1.0, table)
    emission.refuse(filled if filled is table else table[observed])
    single = (isinstance(first, Tensor) and first.dtype == torch.float32) or (
        isinstance(first, np.ndarray) and first.dtype == np.float32
    )
    device = first.device if isinstance(first, Tensor) else emission.device
    return Sequences(filled, observed, ends, device, torch.float32 if single else torch.float64)


def _is_array(part: Any) -> bool:
    return isinstance(part, (Tensor, np.ndarray)) and part.ndim >= 1


def _numbers(x: Any, name: str) -> Array:
    """Finite numbers and NaNs as float64."""
    if isinstance(x, Tensor):
        x = real(x, name, single=True, missing=True).cpu().numpy()
    try:
        raw = np.asarray(unmasked(x))
    except ValueError as error:
        raise ValueError(
            f"{name} should be a rectangular array of numbers, got rows that differ; "
            "sequences of unequal length come as a list of arrays"
        ) from error
    if raw.dtype.kind not in "biuf":
        return real(raw, name).numpy()  # which refuses it
    values = floats(raw, data=True).astype(np.float64, copy=False)
    if not np.isfinite(values.sum()):  # a sum sees NaN and infinity in one pass
        real(np.where(np.isnan(values), 0.0, values), name)
    return values


def _one(part: Any, d: int, name: str) -> Array:
    part = _numbers(part, name)
    if part.ndim == 1 and d == 1:
        part = part[:, None]
    if part.ndim != 2 or part.shape[1] != d or not len(part):
        words = "(any,) or (any, 1)" if d == 1 else f"(any, {d})"
        raise ValueError(f"{name} should have shape {words}, with at least one step, got {part.shape}")
    return part


def _ends(lengths: Any, table: Array) -> Array:
    ends = real(lengths, "lengths").cpu().numpy()
    whole = ends.shape == (len(table),) and bool(((ends == np.round(ends)) & (ends >= 1)).all())
    if not whole or bool((ends > table.shape[1]).any()):
        raise ValueError(
            f"lengths should be {len(table)} whole numbers in 1..{table.shape[1]}, got {ends.tolist()!s:.80}"
        )
    return ends.astype(np.int64)

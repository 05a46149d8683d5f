"""What a likelihood can explain: finite numbers in its support, and columns that vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from identkit.model.compiled.data import whole

LIKELIHOODS = ("gaussian", "bernoulli", "poisson", "categorical")
"""The families of x given its latents; each decides which values are possible."""

_SHOWN = 8  # names in a message


def refuse_outside(
    x: Shaped[Tensor, "n d"],
    likelihood: str,
    *,
    source: str,
    columns: Sequence[str],
    categories: int | None = None,
) -> None:
    """Refuse rows that no parameter of the likelihood could have made.

    Gaussian: any finite number. Bernoulli: within [0, 1], so that a grey value may stand for a probability. Poisson:
    0, 1, 2, … Categorical: 0, …, `categories` − 1. All of them as numbers in single precision, in which they are kept.

    Args:
        x: the rows, in the precision they were read in.
        likelihood: one of `LIKELIHOODS`.
        source: what the message calls them, a file or an argument.
        columns: d names.
        categories: how many a categorical likelihood has.

    Raises:
        ValueError: names the source, row (from 1), column and value, and what it should be.
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood should be one of {', '.join(LIKELIHOODS)}, got {likelihood!r}")
    if likelihood == "categorical" and categories is None:
        raise ValueError("categories should be a whole number for a categorical likelihood, got None")

    def refuse(wrong: Bool[Tensor, "n d"], expected: str) -> None:
        if wrong.any():
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{source}, row {row + 1}, column {columns[column]} should be {expected}, got {x[row, column]:.6g}"
            )

    refuse(~x.float().isfinite(), "a finite number (single precision, none missing)")
    if likelihood == "bernoulli":
        advice = "; images of 0 to 255 need divide=255" if x.max() > 1 else ""
        refuse((x < 0) | (x > 1), f"within [0, 1] for a Bernoulli likelihood{advice}")
    elif likelihood == "poisson":
        refuse((x < 0) | (x != x.round()), "0, 1, 2, … for a Poisson likelihood")
    elif likelihood == "categorical" and categories is not None:
        wrong = (x < 0) | (x >= categories) | (x != x.round())
        refuse(wrong, f"0, …, {categories - 1} for a categorical likelihood of {categories} categories")


def refuse_constant(
    x: Shaped[Tensor, "n d"], likelihood: str, *, source: str, columns: Sequence[str]
) -> None:
    """Refuse training rows that leave nothing to learn.

    Under a Gaussian likelihood one constant column is enough: its noise shrinks to 0 and the density grows without
    bound. The other densities are bounded by 1 (an image may have a border that is always black), so there only data
    that are constant altogether are refused.

    Raises:
        ValueError: names the source and the columns.
    """
    constant = (x == x[0]).all(0)
    if constant.all() or (likelihood == "gaussian" and constant.any()):
        names = [name for name, same in zip(columns, constant.tolist(), strict=True) if same]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ValueError(
            f"{source} should vary in every column of its {len(x)} training rows (a Gaussian likelihood has no bound "
            f"where one does not), got constant columns: {', '.join(names[:_SHOWN])}{more}; leave them out"
            if likelihood == "gaussian"
            else f"{source} should vary, but its {len(x)} training rows are all equal"
        )


def refuse_few(rows: int, needed: int, *, source: str, purpose: str) -> None:
    """Refuse fewer rows than a purpose needs.

    Raises:
        ValueError: names the source, the rows and how many there should be.
    """
    if rows < needed:
        raise ValueError(f"{source} should have at least {needed} rows {purpose}, got {rows}")


def widths(values: Any, name: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, such as the units of hidden layers.

    Raises:
        ValueError: names the argument and what it was.
    """
    several = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [None]
    good = [isinstance(each, int) and not isinstance(each, bool) and each >= 1 for each in several]
    if not all(good):
        raise ValueError(f"{name} should be whole numbers of at least 1 in brackets, got {values!r}")
    return tuple(values)


def randomness(seed: int | torch.Generator) -> torch.Generator:
    """The generator itself, or a new one on the CPU started from a whole number.

    Raises:
        ValueError: neither of the two.
    """
    if isinstance(seed, torch.Generator):
        return seed
    return torch.Generator().manual_seed(whole(seed, "seed", 0))

"""What a column of data may hold, what axis a latent has, and tables from whatever comes in."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy
import torch
from sympy import Symbol
from torch import Tensor

from identkit.model import families
from identkit.model.protocol import Axis, Continuous, Finite


def kind_of(family: families.Family) -> families.Family:
    """The family, or the components' one of a mixture."""
    return family.components[0] if isinstance(family, families.Mixture) else family


SUPPORT_WORDS: dict[type[families.Family], str] = {
    families.Normal: "real numbers",
    families.MvNormal: "real numbers",
    families.Bernoulli: "0 or 1",
    families.Categorical: "a state, counted from 1",
    families.Beta: "strictly between 0 and 1",
    families.Binomial: "whole numbers from 0 to n",
    families.Poisson: "whole numbers, 0 or more",
    families.LogNormal: "positive numbers",
    families.StudentT: "real numbers",
    families.Laplace: "real numbers",
    families.Cauchy: "real numbers",
    families.Exponential: "numbers from 0 on",
    families.Gamma: "positive numbers",
    families.InverseGamma: "positive numbers",
    families.Uniform: "between its bounds",
    families.NegativeBinomial: "whole numbers, 0 or more",
    families.Geometric: "whole numbers, 0 or more",
    families.Dirichlet: "strictly between 0 and 1",
    families.Multinomial: "whole numbers from 0 to n",
}


def possible(values: Tensor, family: families.Family) -> Tensor:
    """Which values the family can take."""
    if isinstance(family, families.Mixture):
        return torch.stack([possible(values, component) for component in family.components]).any(0)
    support = family.support
    if isinstance(support, sympy.Interval):
        above = values > float(support.start) if support.left_open else values >= float(support.start)
        below = values < float(support.end) if support.right_open else values <= float(support.end)
        return above & below
    low, high = 0.0, math.inf
    if isinstance(family, families.Bernoulli):
        high = 1.0
    elif isinstance(family, families.Categorical):
        low, high = 1.0, float(len(family.arguments))
    elif isinstance(family, families.Binomial | families.Multinomial) and family.arguments[0].is_number:
        high = float(family.arguments[0])
    return (values >= low) & (values <= high) & (values == values.round())


def stand_in(family: families.Family) -> float:
    """A possible value for what is missing."""
    low, high = float(family.support.inf), float(family.support.sup)
    for trial in (0.0, 0.5, 1.0, (low + high) / 2, low + 1, high - 1):
        if possible(torch.tensor([trial], dtype=torch.float64), family):
            return trial
    return 0.0


def axis_of(symbol: Symbol, family: families.Family) -> Axis:
    """The axis of a latent."""
    support = family.support
    if family.total is not None:
        raise ValueError(
            f"{symbol.name} ~ {family.name} has coordinates with a fixed sum, over which quadrature does not run; "
            "draw all but one from families of their own"
        )
    if isinstance(kind_of(family), families.Categorical):
        return Finite(tuple(float(state - 1) for state in support))
    if support.is_FiniteSet or (isinstance(support, sympy.Range) and support.size.is_finite):
        return Finite(tuple(float(value) for value in support))
    if support.is_subset(sympy.S.Integers):
        raise ValueError(
            f"{symbol.name} ~ {family.name} has infinitely many values, which quadrature does not sum"
        )
    return Continuous(float(support.inf), float(support.sup))


def number_of_draws(n: Any, generator: Any = None) -> int:
    """Check what a `sample` is asked for: how many rows, 0 or more, and from which generator.

    Raises:
        TypeError: the generator is none.
        ValueError: n is no whole number, or negative.

    >>> number_of_draws(3)
    3
    """
    n = whole(n, "n", 0)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator should be a torch.Generator or None, got {generator!r:.80}")
    return n


def whole(value: Any, name: str, least: int = 1, most: int | None = None, why: str = "") -> int:
    """Convert one whole number between two bounds.

    Raises:
        ValueError: it is no whole number, or outside.

    >>> whole(np.int64(2), "components", 2)
    2
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= (math.inf if most is None else most):
        if most is None:
            wanted = f"a whole number of at least {least}"
        else:
            wanted = f"{'a whole number ' if number is None else ''}in {least}..{most}"
        raise ValueError(f"{name} should be {wanted}{why}, got {value!r:.80}")
    return number


def unmasked(x: Any) -> Any:
    """A masked array as numbers with NaN where a value is hidden; whatever else it is, as it came.

    What a mask hides is missing: `np.asarray` would hand it back as data.

    >>> unmasked(np.ma.array([1, 2], mask=[False, True]))
    array([ 1., nan])
    """
    if not isinstance(x, np.ma.MaskedArray):
        return x
    if x.dtype.kind not in "biuf":
        return x.data
    return np.ma.filled(x.astype(np.float32 if x.dtype == np.float32 else np.float64), np.nan)


def table_of(x: Any, names: Sequence[str]) -> Tensor:
    """Data (n, d) in float64, from an array or from columns by name."""
    if isinstance(x, Mapping):
        missing = [name for name in names if name not in x]
        strange = [name for name in x if name not in names]
        if missing or strange:
            raise ValueError(
                f"x should have the columns {', '.join(names)}, got {', '.join(map(str, x)) or 'none'}"
            )
        return torch.stack([table_of(x[name], [name])[:, 0] for name in names], dim=-1)
    try:
        given = x if isinstance(x, Tensor) else np.asarray(unmasked(x))
        if given.is_complex() if isinstance(given, Tensor) else given.dtype.kind not in "biufO":
            raise TypeError
        table = torch.as_tensor(
            given.to_dense() if isinstance(given, Tensor) else np.array(given, dtype=np.float64)
        ).to(torch.float64)
    except (TypeError, ValueError):
        raise ValueError(f"x should be an array of numbers, got {type(x).__name__}") from None
    if len(names) == 1 and table.ndim < 2:
        table = table.reshape(-1, 1)
    if table.ndim != 2 or table.shape[1] != len(names):
        raise ValueError(
            f"x should have shape (n, {len(names)}) for {', '.join(names)}, got {tuple(table.shape)}"
        )
    return table

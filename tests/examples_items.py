"""Item response models for the laws of exact models: each one, its silent twin and its abuses."""

from __future__ import annotations

import math

from identkit.classical.item_response import ItemResponse
from tests.exact_example import Example

_SLOPES = [[1.0, 0.3], [0.5, -1.2], [2.0, 0.8], [0.0, 1.5]]
_WHERE = [0.4, -1.0, 0.2, 1.1]

EXAMPLES: dict[str, Example] = {
    "2PL": Example(
        model=ItemResponse([1.0, 2.0, 0.5, -1.3], [-1.0, 0.5, 2.0, 0.1]),
        x=[[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]],
        silent=ItemResponse(0.0, [-1.0, 0.5, 2.0, 0.1]),
        abuses=(
            (lambda: ItemResponse([1.0, math.nan], [0.0, 0.0]), "finite"),
            (lambda: ItemResponse([1.0, 2.0], [0.0, 0.0, 0.0]), "a row for each of the 3 difficulties"),
            (lambda: ItemResponse([1.0], [0.0], 1.0), "guessing should be in [0, 1)"),
            (lambda: ItemResponse([1.0]), "either difficulties or intercepts"),
            (lambda: ItemResponse([1.0], [0.0]).posterior([[2.0]]), "answers 0 and 1"),
            (lambda: ItemResponse([1.0], [0.0]).posterior([[math.inf]]), "finite"),
        ),
    ),
    "3PL": Example(
        model=ItemResponse([1.0, 2.0, 0.5], intercepts=[-1.0, 0.5, 2.0], guessing=[0.2, 0.25, 0.0]),
        x=[[1, 0, 1], [0, 0, 0], [1, 1, 1]],
        silent=ItemResponse(0.0, intercepts=[-1.0, 0.5, 2.0], guessing=0.2),
        abuses=((lambda: ItemResponse([1.0], [0.0], -0.1), "guessing should be in"),),
    ),
    "two abilities": Example(
        model=ItemResponse(_SLOPES, intercepts=_WHERE),
        x=[[1, 0, 1, 0], [0, 0, 1, 1]],
        silent=ItemResponse([[0.0, 0.0]] * 4, intercepts=_WHERE),
        abuses=(
            (lambda: ItemResponse(_SLOPES, _WHERE), "intercepts should be given instead of difficulties"),
            (lambda: ItemResponse([[1.0] * 4], intercepts=[0.0]), "at most three columns"),
        ),
    ),
}

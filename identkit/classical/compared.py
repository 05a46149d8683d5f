"""Log densities of several components relative to one of them: which one, row by row, so that no digits are lost."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 64.0
"""A component that is so many nats behind has no part in what the others say."""
_CLOSE = 2.0**-37
"""Up to this error, in nats, it does not matter which component the others are compared with."""

Ratio = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Takes rows and the number of a component: log densities relative to it, (n, S), and bounds on their errors."""


def near_ratio(
    x: Float[Tensor, "n d"], ratio: Ratio, lead: int, prior: Float[Tensor, " s"] | float = 0.0
) -> tuple[Float[Tensor, "n s"], Float[Tensor, "n s"]]:
    """Compare components with `lead`, but where it explains a row far worse than others do with the best of these.

    Two components that are both 1e20 nats better than the lead differ by what is left of them in 1e20 ± 1e4. A row's
    answer is off by a number of its own then, and the lead's share of its posterior is nothing: no KL is small there.

    Args:
        x: data.
        ratio: the family's own.
        lead: the component to begin with, and to stay with where that costs nothing.
        prior: what to add to find the best component.

    >>> means = torch.tensor([1e12, 0.0, 1.0], dtype=torch.float64)
    >>> def ratio(x, lead):
    ...     values = -((x - means) ** 2) / 2
    ...     return values - values[:, lead : lead + 1], values[:, lead : lead + 1].abs() * 1e-15 + 0 * values
    >>> near_ratio(torch.zeros(1, 1, dtype=torch.float64), ratio, 0)[0][:, 1:]
    tensor([[ 0.0000, -0.5000]], dtype=torch.float64)
    """
    values, error = ratio(x, lead)
    leads = torch.full((len(x),), lead, device=x.device)
    for _ in range(values.shape[1]):
        best = (values + prior).argmax(1)
        ahead, lost = (table.gather(1, best[:, None])[:, 0] for table in (values, error))
        far = (best != leads) & (ahead > FAR) & (lost > _CLOSE)
        if not bool(far.any()):
            break
        leads[far] = best[far]
        for leader in best[far].unique().tolist():
            led = far & (best == leader)
            values[led], error[led] = ratio(x[led], leader)
    return values, error

"""A law taken to pieces: which family of torch it is, and the numbers that make it, so that it can be made n at a time.

Programs of other libraries are run for one value of their latents, or for many under `torch.vmap`; numbers pass through
that, distributions do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor

from identkit.numeric.laws import bare

_ONE_OF = (("probs", "logits"), ("covariance_matrix", "precision_matrix", "scale_tril"))
"""Arguments of which a distribution was given one; the others are computed from it."""


@dataclass(frozen=True)
class Recipe:
    """A family with its parameters' names and shapes, for one value of the latents."""

    family: type[td.Distribution]
    parameters: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """How many numbers make one law."""
        return sum(math.prod(shape) for _, shape in self.parameters)

    def law(self, numbers: Float[Tensor, "*n p"]) -> td.Distribution:
        """Make the laws: their batch shape begins with that of `numbers`."""
        made, start = {}, 0
        for name, shape in self.parameters:
            end = start + math.prod(shape)
            made[name] = numbers[..., start:end].reshape((*numbers.shape[:-1], *shape))
            start = end
        return self.family(**made, validate_args=False)


def read(law: td.Distribution) -> tuple[type[td.Distribution], dict[str, Tensor]]:
    """The family of torch that a distribution is, or inherits from, and its parameters as they were given.

    Raises:
        TypeError: it is none of torch's families with parameters of its own, such as a mixture or a masked law.

    >>> family, parameters = read(td.Independent(td.Bernoulli(logits=torch.zeros(2)), 1))
    >>> family.__name__, list(parameters)
    ('Bernoulli', ['logits'])
    """
    base = bare(law)
    family = next(kind for kind in type(base).__mro__ if kind.__module__.startswith("torch.distributions."))
    names = list(getattr(family, "arg_constraints", ())) if isinstance(family.arg_constraints, dict) else []
    for group in _ONE_OF:
        given = [name for name in group if name in vars(base)]
        names = [name for name in names if name not in group or name == (given or [None])[0]]
    if not names:
        raise TypeError(f"{type(base).__name__} is no family whose parameters can be read")
    return family, {name: torch.as_tensor(getattr(base, name)) for name in names}

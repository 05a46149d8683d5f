"""The computation from latents to the law, recorded: a graph of torch operations that bounds can follow.

What could make a record say something else than the model, and what is done about it:

* *Code that looks at values* (``if z.sum() > 0``, ``.item()``, ``.tolist()``, ``.numpy()``) would be recorded on one
  branch only. Recording runs on fake tensors, which have shapes and no values: any look at a value that depends on z
  raises, and there is no record. The only values that code can branch on are its own constants.
* *Code that changes tensors in place* is recorded once more in functional form; what still writes has a rule only
  where it writes into fresh memory that nothing else reads (`translator`).
* *Code that changes itself* (caches, counters) or depends on the number of rows is no function of z; `probed` refuses
  what it sees of it, and every record is compared with the model at prior draws (`program_of`).
* *The checks of torch.distributions* look at values, and are off while recording: a law with a negative scale at some
  latent counts as a law. `probed` has run them on prior draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributions as td
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx


def traced(function: Callable[[Tensor], Tensor], z: Tensor) -> fx.GraphModule | None:
    """Record ``function`` at one latent z (1, k); None where it cannot be recorded soundly.

    >>> graph = traced(lambda z: torch.tanh(z) + 1, torch.zeros(1, 2))
    >>> [node.op for node in graph.graph.nodes]
    ['placeholder', 'call_function', 'call_function', 'output']
    >>> traced(lambda z: z if z.sum() > 0 else -z, torch.zeros(1, 2)) is None
    True
    """
    graph = _recorded(function, z)
    if graph is None or not _writes(graph):
        return graph
    # Only after the plain record, which is what refuses looks at values: the wrapper that makes code functional hides
    # some of them.
    functional = _recorded(torch.func.functionalize(function, remove="mutations_and_views"), z)
    return graph if functional is None else functional


def _recorded(function: Callable[[Tensor], Tensor], z: Tensor) -> fx.GraphModule | None:
    def called(latent: Tensor) -> Tensor:  # make_fx counts the arguments of what it is given, self included
        return function(latent)

    try:
        with _unchecked():
            return make_fx(called, tracing_mode="fake", _allow_non_fake_inputs=True)(z.detach().clone())
    except (
        Exception
    ):  # whatever a user's code raises when it meets a tensor without values: no record, no claim
        return None


def _writes(graph: fx.GraphModule) -> bool:
    schemas = (getattr(node.target, "_schema", None) for node in graph.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


@contextmanager
def _unchecked() -> Iterator[None]:
    """Distributions made inside do not look at the values of their arguments."""
    distribution: Any = td.Distribution
    before = distribution._validate_args
    distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        distribution.set_default_validate_args(before)

"""From a model to the program of its law. An operation without a rule, or any doubt, means no program and no claim.

What the rules state is each operation on real numbers: rounding, thresholds that only guard against overflow (softplus,
logsumexp) and changes between floating dtypes are left out, as everywhere in identkit's statements about a network
"with these weights".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, fx

from identkit.numeric.probed import Probed
from identkit.numeric.program import Program
from identkit.numeric.rules import RULES
from identkit.numeric.trace import traced
from identkit.numeric.translator import Translator, Unknown, Value

_COMPARED = 32  # prior draws on which the program has to agree with the model
_AGREES = 1e4  # in units of the model's rounding; recorded at the model's own precision, run in float64


def law_program(p: Probed) -> Program | None:
    """The program of the law's parameters, or of ``log p(x | z)`` on the data where only a density is known."""
    return _of_latents(p, p.parameters if p.decode is not None else p.log_likelihood)


def density_program(p: Probed) -> Program | None:
    """The program of ``log p(x_i | z)`` for every datum, (m,); None without data or rules."""
    return None if p.density is None or p.x is None else _of_latents(p, p.log_likelihood)


def decoder_program(p: Probed) -> Program | None:
    """The program of the decoder alone, before the likelihood; None for models of sequences and densities."""
    if p.decode is None or p.histories != 1:
        return None
    return _of_latents(p, lambda z: p.decoder(p.prior.placed(z)))


def _of_latents(p: Probed, function: Callable[[Tensor], Tensor]) -> Program | None:
    return program_of(function, p.prior.sample(_COMPARED, seed=7), p.eps)


def program_of(function: Callable[[Tensor], Tensor], z: Float[Tensor, "n k"], eps: float) -> Program | None:
    """Record a function of rows z (n, k) → (n, …), translate it and hold it against the function itself at these rows.

    The comparison is no part of the proof: it catches what the arguments of `trace` leave to chance, such as code that
    changes itself or a rule that does not fit this version of torch.
    """
    flat = lambda rows: function(rows).reshape(len(rows), -1)
    with torch.no_grad():
        graph = traced(flat, z[:1])
        program = None if graph is None else lowered(graph, z.shape[1])
        if program is None:
            return None
        try:
            wanted = flat(z).to("cpu", torch.float64)
        except Exception:  # a user's code, on other rows than those it was tried on
            return None
        found = program.evaluate(z.to("cpu", torch.float64))
    if found.shape != wanted.shape or not bool(torch.isfinite(wanted).all()):
        return None
    room = _AGREES * eps * (1 + wanted.abs().amax(1, keepdim=True))
    return program if bool(((found - wanted).abs() <= room).all()) else None


def lowered(graph: fx.GraphModule, size: int, state: Float[Tensor, " k"] | None = None) -> Program | None:
    """Translate a graph with one input z (1, k); None if an operation has no rule.

    Args:
        graph: as `trace.traced` records it.
        size: the number of latents k.
        state: z to write in as a constant, for latents that select (an embedding's rows).
    """
    translator = Translator(graph, RULES)
    latent = translator.builder.latent(size)
    given = Value(latent, (1, size)) if state is None else state.reshape(1, size)
    try:
        return translator.builder.program(translator.step(translator.run(given)))
    except (Unknown, NotImplementedError, TypeError, ValueError, RuntimeError, LookupError, AttributeError):
        return None  # no rule, or a rule that met arguments it was not written for

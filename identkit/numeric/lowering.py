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
from identkit.numeric.program import Builder, Program
from identkit.numeric.rules import RULES
from identkit.numeric.trace import traced
from identkit.numeric.translator import Translator, Unknown, Value

_COMPARED = 32  # prior draws on which the program has to agree with the model
_AGREES = 1e4  # in units of the model's rounding
_GUARDED = (
    1e-6  # what thresholds that guard against overflow may change: softplus by 2e-9 before it is amplified
)


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
    return program if _close(found, wanted, eps) else None


def lowered(graph: fx.GraphModule, size: int) -> Program | None:
    """Translate a graph with one input z (1, k); None if an operation has no rule."""
    builder = Builder()
    latent = Value(builder.latent(size), (1, size))
    output = _written(graph, builder, latent)
    return None if output is None else builder.program(output)


def on_states(p: Probed) -> list[tuple[int, Program]] | None:
    """The law of each state of a finite prior, as a program without latents.

    Returns:
        For each state a number that two of them share exactly if the same steps on the same constants lead to both
        laws, and the program.
    """
    assert p.prior.states is not None
    graph = traced(lambda z: p.parameters(z), p.prior.states[:1])
    if graph is None:
        return None
    builder = Builder()
    builder.latent(p.prior.size)
    outputs = [_written(graph, builder, state[None].cpu()) for state in p.prior.states]
    return None if None in outputs else [(o, builder.program(o)) for o in outputs if o is not None]


def agrees(p: Probed, programs: list[tuple[int, Program]]) -> bool:
    """Whether the programs of all states give what the model gives."""
    assert p.prior.states is not None
    with torch.no_grad():
        wanted = p.parameters(p.prior.states).to("cpu", torch.float64)
    none = torch.zeros(1, p.prior.size, dtype=torch.float64)
    found = torch.cat([program.evaluate(none) for _, program in programs])
    return _close(found, wanted, p.eps)


def _written(graph: fx.GraphModule, builder: Builder, z: Value | Tensor) -> int | None:
    """The step of a graph's output."""
    translator = Translator(graph, RULES, builder)
    try:
        return translator.step(translator.run(z))
    except (Unknown, NotImplementedError, TypeError, ValueError, RuntimeError, LookupError, AttributeError):
        return None  # no rule, or a rule that met arguments it was not written for


def _close(found: Tensor, wanted: Tensor, eps: float) -> bool:
    if found.shape != wanted.shape or not bool(torch.isfinite(wanted).all()):
        return False
    room = max(_AGREES * eps, _GUARDED) * (1 + wanted.abs().amax(1, keepdim=True))
    return bool(((found - wanted).abs() <= room).all())

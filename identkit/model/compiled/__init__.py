"""A `Model` with numbers for its parameters, as torch; the only package of `identkit.model` that imports it.

The torch face of every family lives here; what a statement or a family means does not.
"""

from __future__ import annotations

from identkit.model.compiled.arithmetic import log_of, log_of_complement
from identkit.model.compiled.compiled_model import CompiledModel, compiled, observed_log_likelihood

__all__ = ["CompiledModel", "compiled", "log_of", "log_of_complement", "observed_log_likelihood"]

"""The keys of the design's JSON, in its order: what `identkit check --json` prints."""

from __future__ import annotations

VERDICT = (
    "model",
    "about",
    "scope",
    "level",
    "latents",
    "parameters",
    "at_least",
    "prior_identified",
    "invariances",
    "identifiable",
    "assumptions",
    "remedies",
    "certificate",
    "method",
    "seconds",
)

"""Bayes' rule over finitely many states in mpmath, at its working precision: an oracle for mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpmath import mp


def bayes(weights: Any, logs: Sequence[Any]) -> dict[str, Any]:
    """The masses of the states, KL, V, log evidence and oscillation, from their log densities."""
    prior = [mp.mpf(float(w)) for w in weights]
    prior = [w / sum(prior) for w in prior]
    top = max(logs)
    total = sum(w * mp.exp(l - top) for w, l in zip(prior, logs, strict=True))
    mass = [w * mp.exp(l - top) / total for w, l in zip(prior, logs, strict=True)]
    kl = sum(r * (l - top - mp.log(total)) for r, l in zip(mass, logs, strict=True))
    mean = sum(w * l for w, l in zip(prior, logs, strict=True))
    variance = sum(w * (l - mean) ** 2 for w, l in zip(prior, logs, strict=True))
    evidence = mp.log(total) + top
    return {"mass": mass, "kl": kl, "variance": variance, "evidence": evidence, "omega": top - min(logs)}

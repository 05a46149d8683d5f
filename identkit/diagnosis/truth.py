"""What the true posterior of each datum says: by quadrature where latents and data are few, else by annealing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.model.protocol import Continuous
from identkit.numeric.probed import Probed
from identkit.posterior.annealed import Annealed, annealed
from identkit.posterior.quadrature import EVALUATIONS, Quadrature, QuadratureError, integrate
from identkit.posterior.unbounded import Unbounded

_QUADRATURE_LATENTS = 3
_QUADRATURE_DATA = 8  # with more than one latent, where a datum takes seconds
# What quadrature and annealing both have to say.
_SHARED = (
    *("kl", "kl_error", "kl_conditional", "kl_conditional_error"),
    *("log_evidence", "log_evidence_error", "mean"),
)
_PATIENCE = 3_000_000  # evaluations of ℓ for a datum, after which annealing is quicker


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The true posterior of n data, in nats; an error is a bound for quadrature, a standard error for annealing."""

    kl: Float[Tensor, " n"]
    kl_error: Float[Tensor, " n"]
    kl_conditional: Float[Tensor, "n k"]
    kl_conditional_error: Float[Tensor, "n k"]
    log_evidence: Float[Tensor, " n"]
    log_evidence_error: Float[Tensor, " n"]
    mean: Float[Tensor, "n k"]
    degrees: float
    """Of freedom of the errors; infinite for quadrature."""
    reasons: tuple[tuple[str, ...], ...]
    """Why a datum's numbers should not be believed; empty where they may be."""
    method: str
    """"quadrature" or "annealing"."""

    @property
    def believed(self) -> Bool[Tensor, " n"]:
        """The data whose numbers nothing speaks against."""
        return torch.tensor([not reasons for reasons in self.reasons], device=self.kl.device)


def true_posterior(model: Probed, prior: Unbounded, method: str, seed: int, options: dict[str, Any]) -> Truth:
    """Measure the posteriors of all data of a probed model.

    Args:
        method: "quadrature", "annealing", or "auto": quadrature of one latent, or of up to three for at most eight
            data, with annealing where it gives up.
        options: of `annealed`.

    Raises:
        QuadratureError, ValueError: quadrature was asked for and gave up.
    """
    if method not in ("auto", "quadrature", "annealing"):
        raise ValueError(f"method should be 'auto', 'quadrature' or 'annealing', got {method!r}")
    x, density = model.x, model.density
    assert x is not None and density is not None
    few = prior.size == 1 or (prior.size <= _QUADRATURE_LATENTS and len(x) <= _QUADRATURE_DATA)

    def log_likelihood(rows: Tensor, z: Tensor) -> Tensor:
        return density(x[rows], z.to(model.dtype)).to(torch.float64)

    if method == "quadrature" or (method == "auto" and few and model.prior.fills_box):
        try:
            patience = EVALUATIONS if method == "quadrature" else _PATIENCE
            return _by_quadrature(model, prior, log_likelihood, len(x), patience)
        except (QuadratureError, ValueError):
            if method == "quadrature":
                raise
    found = annealed(prior.prior, log_likelihood, len(x), seed=seed, **options)
    return _measured(found, found.degrees, found.reasons, "annealing")


def _by_quadrature(model: Probed, prior: Unbounded, log_likelihood: Any, n: int, evaluations: int) -> Truth:
    axes = [
        Continuous(low, high)
        for low, high in zip(model.prior.low.tolist(), model.prior.high.tolist(), strict=True)
    ]
    found = integrate(
        prior.log_prob, log_likelihood, axes, n, evaluations=evaluations, independent=prior.independent
    )
    return _measured(found, math.inf, ((),) * n, "quadrature")


def _measured(found: Annealed | Quadrature, degrees: float, reasons: Any, method: str) -> Truth:
    shared = {name: getattr(found, name) for name in _SHARED}
    return Truth(**shared, degrees=degrees, reasons=reasons, method=method)

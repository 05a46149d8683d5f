"""How much of the latent a decoder's constants let through: floor, ceiling and what to expect (theory/T5).

All for ``z ~ N(0, I_K)`` and ``x | z ~ N(f(z), σ²I)`` with ``m‖z − z′‖ ≤ ‖f(z) − f(z′)‖ ≤ L‖z − z′‖``, in nats. Under the
model's own marginal ``I(z; x)`` is the average KL from posterior to prior, so a floor on it is a proof that the posterior
does not collapse.
"""

from __future__ import annotations

import math

from identkit.numeric.singular import rounded_down, rounded_up


def information_floor(lower: float, sigma: float, latents: int) -> float:
    """``(K/2) log(1 + m²/σ²) ≤ I(z; x)``, rounded down; sharp for m times an isometry.

    Source: theory/T5 (entropic Kneser-Poulsen theorem; Aishwarya & Li 2024, arXiv 2409.03664).

    Args:
        lower: m ≥ 0, a certified lower Lipschitz constant.
        sigma: σ > 0, of the noise.
        latents: K.

    >>> round(information_floor(1.0, 1.0, 2), 4)  # log 2
    0.6931
    """
    _refuse(lower=lower, sigma=sigma)
    return rounded_down(latents / 2 * math.log1p((lower / sigma) ** 2), 16)


def information_ceiling(upper: float, sigma: float, latents: int) -> float:
    """``I(z; x) ≤ (K/2) log(1 + L²/σ²)``, rounded up: what no encoder can exceed, whatever its minibatch estimate says.

    Source: theory/T5.

    >>> information_ceiling(0.0, 1.0, 2) < 1e-299
    True
    """
    _refuse(lower=upper, sigma=sigma)
    return rounded_up(latents / 2 * math.log1p((upper / sigma) ** 2), 16)


def lower_lipschitz_for(nats: float, sigma: float, latents: int) -> float:
    """The m whose floor is that many nats, ``σ √(e^{2·nats/K} − 1)``: the inverse of `information_floor`.

    >>> round(lower_lipschitz_for(math.log(2), 1.0, 2), 4)
    1.0
    """
    if not (nats > 0 and math.isfinite(nats)):
        raise ValueError(f"nats should be positive and finite, got {nats}")
    _refuse(lower=0.0, sigma=sigma)
    return sigma * math.sqrt(math.expm1(2 * nats / latents))


def predicted_kl(lower: float, sigma: float, variance: float) -> float:
    """What a near-linear decoder that has sunk to its floor gives per latent on data, the average KL of its posterior.

    ``½ [σ²/(m² + σ²) + m²v/(m² + σ²)² − 1 + log(1 + m²/σ²)]``: with ``x = m z + σ ε`` the posterior is
    ``N(m x/(m² + σ²), σ²/(m² + σ²))``, and its KL to N(0, 1) is averaged over data of second moment v, ``E x² = v`` about
    the decoder's f(0); a mean off it, by μ, is in v with μ². At ``v = m² + σ²``, the model's own marginal, it is the floor.

    Source: theory/T5, the conjugate normal model.

    Args:
        lower: m, the slope along the latent's direction.
        sigma: σ > 0.
        variance: v ≥ 0, the second moment about f(0) of the data in that direction, noise included: their variance where
            f(0) is their mean.

    >>> abs(predicted_kl(2.0, 1.0, 5.0) - information_floor(2.0, 1.0, 1)) < 1e-12
    True
    """
    _refuse(lower=lower, sigma=sigma)
    if not (variance >= 0 and math.isfinite(variance)):
        raise ValueError(f"variance should be finite and not negative, got {variance}")
    total = lower**2 + sigma**2
    return (sigma**2 / total + lower**2 * variance / total**2 - 1 + math.log1p((lower / sigma) ** 2)) / 2


def _refuse(*, lower: float, sigma: float) -> None:
    if not lower >= 0:
        raise ValueError(f"a Lipschitz constant should not be negative, got {lower}")
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma should be positive and finite, got {sigma}")

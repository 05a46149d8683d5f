"""What a decoder's Lipschitz constants prove about a trained model, and what they let one expect (theory/T5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from identkit.lidvae.information import information_ceiling, information_floor, predicted_kl
from identkit.numeric.singular import rounded_up


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """``m‖z − z′‖ ≤ ‖f(z) − f(z′)‖ ≤ L‖z − z′‖``, and under Gaussian noise the nats that follow; true of every member."""

    latents: int
    """K."""
    lower: float
    """m > 0, rounded down."""
    upper: float | None
    """L, rounded up; None where the decoder knows none."""
    sigma: float | None
    """σ of Gaussian noise, the largest; None for another likelihood, where m proves injectivity and no nats."""
    floor: float | None
    """``(K/2) log(1 + m²/σ²) ≤ I(z; x)`` under the model's own marginal, in nats."""
    ceiling: float | None
    """``I(z; x) ≤ (K/2) log(1 + L²/σ²)``."""
    predicted: tuple[float, ...]
    """KL of each latent to expect on the data if the decoder is near-linear at its least slope, largest variance first.

    Without data each at its floor: their variance is then the model's own, m² + σ².
    """

    @staticmethod
    def of(
        lower: float, upper: float | None, latents: int, sigma: float | None, x: Shaped[Tensor, "n d"] | None
    ) -> Guarantee:
        """Work out the nats.

        Args:
            lower, upper, latents, sigma: m, L, K, σ.
            x: rows whose variances along their first K principal directions the prediction is for: those are where a
                decoder of slope m on every latent loses least likelihood.
        """
        if sigma is None:
            return Guarantee(
                latents=latents,
                lower=lower,
                upper=upper,
                sigma=None,
                floor=None,
                ceiling=None,
                predicted=(),
            )
        variances = [lower**2 + sigma**2] * latents
        if x is not None:
            rows = torch.as_tensor(x).double()
            spread = torch.linalg.svdvals(rows - rows.mean(0)).square() / len(rows)
            variances = [float(v) for v in spread[:latents]]
        return Guarantee(
            latents=latents,
            lower=lower,
            upper=upper,
            sigma=sigma,
            floor=information_floor(lower, sigma, latents),
            ceiling=None if upper is None else information_ceiling(upper, sigma, latents),
            predicted=tuple(predicted_kl(lower, sigma, variance) for variance in variances),
        )

    def __str__(self) -> str:
        upper = "no known L" if self.upper is None else f"L = {self.upper:.3g}"
        said = f"m = {self.lower:.3g}, {upper}: every latent shows in the law of the data"
        if self.floor is None:
            return f"{said}; nats of floor and ceiling are known for Gaussian noise only"
        ceiling = "" if self.ceiling is None else f" ≤ {self.ceiling:.3g}"
        return f"{said}; {self.floor:.3g} ≤ I(z; x){ceiling} nats under the model, at σ = {self.sigma:.3g}"


@dataclass(frozen=True, kw_only=True)
class MixtureGuarantee(Guarantee):
    """The same of a mixture with components of scale 1, and what keeps these apart: ``‖μ_y − μ_y′‖ ≥ δ``.

    From ``z | y ~ N(μ_y, I)`` and ``I(z; x) = I(y; x) + I(z; x | y)``, under Gaussian noise:
    ``(K/2) log(1 + m²/σ²) ≤ I(z; x | y) ≤ I(z; x) ≤ log C + (K/2) log(1 + L²/σ²)``. It is no floor on ``I(y; x)``: how well
    noisy data tell components apart is to be measured.
    """

    components: int
    """C."""
    separation: float
    """δ: the smallest distance of two locations as they are, in standard deviations of a component, rounded down."""
    distinct: bool | None
    """True: the laws ``p(x | y)`` are pairwise different. None: these data show finitely many moments, no proof."""

    @staticmethod
    def of_mixture(
        lower: float,
        upper: float,
        latents: int,
        sigma: float | None,
        *,
        components: int,
        separation: float,
        distinct: bool | None,
    ) -> MixtureGuarantee:
        """Work out the nats from m, L, K, σ, C."""
        known = sigma is not None
        states = rounded_up(math.log(components), 4)
        return MixtureGuarantee(
            latents=latents,
            lower=lower,
            upper=upper,
            sigma=sigma,
            floor=information_floor(lower, sigma, latents) if known else None,
            ceiling=rounded_up(states + information_ceiling(upper, sigma, latents), 1) if known else None,
            predicted=(),
            components=components,
            separation=separation,
            distinct=distinct,
        )

    def __str__(self) -> str:
        laws = "with pairwise different laws" if self.distinct else "not proved to have different laws"
        apart = f"{self.components} components at least {self.separation:.3g} standard deviations apart, {laws} of the data"
        said = f"{apart}; m = {self.lower:.3g}, L = {self.upper:.3g}: every coordinate of z shows in the law of the data"
        if self.floor is None:
            return f"{said}; nats of floor and ceiling are known for Gaussian noise only"
        nats = f"I(z; x | y) ≥ {self.floor:.3g}, I(z; x) ≤ {self.ceiling:.3g} nats"
        return f"{said}; {nats} under the model, at σ = {self.sigma:.3g}"

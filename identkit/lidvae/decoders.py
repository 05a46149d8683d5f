"""Decoders that see every latent by construction (theory/T5)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae import newton
from identkit.lidvae.brenier import BrenierMap
from identkit.lidvae.icnn import ICNN
from identkit.lidvae.information import lower_lipschitz_for
from identkit.lidvae.members import in_members, like_rows, normal, per_member
from identkit.lidvae.monotone import MonotoneGradient
from identkit.lidvae.orthogonal import Orthogonal
from identkit.numeric.singular import rounded_down, rounded_up

Value = float | Sequence[float] | Tensor
"""One number for all members, or one for each."""

_ALPHA = 0.2  # of the slope that a map starts with
_STEEP = 0.7  # the largest α that the dial gives a map of unit slope
_ROOM = 1 + 1e-5  # float32 moves a constant by less, so that the floor asked for is kept
_DRAWS = 1024  # prior draws that the initial slopes are averaged over


class BrenierDecoder(nn.Module):
    """``f(z) = g₂(β g₁(z))``, with Brenier maps g₁, g₂ and ``β = s·orthonormal``: injective, with a constant to prove it.

    ``‖f(z) − f(z′)‖ ≥ m‖z − z′‖``, ``m = α₂ s α₁`` whatever the weights. With a likelihood in minimal form the latent is
    globally identifiable, and ``I(z; x) ≥ (K/2) log(1 + m²/σ²)`` nats for noise N(0, σ²I). m is a dial: where the data do
    not pay for the information it demands, the likelihood does.

    Categorical data take D − 1 logits, the last one fixed at 0: a softmax over the D outputs of an injective map forgets
    a dimension.

    Source: Wang, Blei & Cunningham 2021, section 3; theory/T5.

    Args:
        members: E.
        latents, outputs: K ≤ D.
        map: "monotone" (`MonotoneGradient`, faster) or "icnn" (`ICNN`, the paper's, universal).
        hidden: width of g₁ and of g₂: rows, or units of each of two layers.
        alphas: (α₁, α₂), fixed; 0.2 each unless `min_information` sets them.
        scale: s, fixed; 1 unless `min_information` sets it.
        min_information: nats of floor, in place of `alphas`, `scale` or both; then `sigma` is needed.
        sigma: of the Gaussian noise.
        generator: of the initial weights.

    Raises:
        ValueError: outputs are fewer than latents, a constant is not positive, or the dial is over- or underdetermined.

    >>> f = BrenierDecoder(1, 2, 5, min_information=1.0, sigma=0.5, generator=torch.Generator().manual_seed(0))
    >>> round(f.lower_lipschitz(), 3), f(torch.zeros(3, 2)).shape
    (0.655, torch.Size([3, 5]))
    """

    def __init__(
        self,
        members: int,
        latents: int,
        outputs: int,
        *,
        map: str = "monotone",
        hidden: tuple[int, int] = (64, 64),
        alphas: tuple[Value, Value] | None = None,
        scale: Value | None = None,
        min_information: Value | None = None,
        sigma: Value | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if map not in ("monotone", "icnn"):
            raise ValueError(f"map should be 'monotone' or 'icnn', got {map!r}")
        lower = _dialled(min_information, sigma, latents, members)
        (first, second), factor = _constants(alphas, scale, lower, members)
        widths = {"monotone": lambda h: h, "icnn": lambda h: (h, h)}[map]
        build = MonotoneGradient if map == "monotone" else ICNN
        self.g1: BrenierMap = build(members, latents, widths(hidden[0]), alpha=first, generator=generator)
        self.beta = Orthogonal(members, latents, outputs, scale=factor, generator=generator)
        self.g2: BrenierMap = build(members, outputs, widths(hidden[1]), alpha=second, generator=generator)

    def forward(self, z: Float[Tensor, "*e n k"]) -> Float[Tensor, "*e n d"]:
        """f(z) for z (E, n, K), or (n, K) where E = 1."""
        return self.g2(self.g1(z), self.beta.basis())

    def lower_lipschitz(self) -> float | None:
        """``m = α₂ s σ_min(Q) α₁`` of the least member, rounded down; `member(decoder, i)` has its own."""
        middle = self.beta.lower_lipschitz()
        if middle is None:
            return None
        return rounded_down(self.g2.lower_lipschitz() * middle * self.g1.lower_lipschitz(), 4)

    def upper_lipschitz(self) -> float:
        """``L = L₂ s σ_max(Q) L₁`` of the largest member, rounded up."""
        outer, inner = self.g2.upper_lipschitz(), self.g1.upper_lipschitz()
        return rounded_up(outer * self.beta.upper_lipschitz() * inner, 4)

    @torch.no_grad()
    def inverse(self, x: Float[Tensor, "*e n d"]) -> tuple[Float[Tensor, "*e n k"], Float[Tensor, "*e n"]]:
        """Recover z from ``x = f(z)`` in float64: ``g₁⁻¹(Qᵀ g₂⁻¹(x)/s)``.

        Returns:
            z (…, n, K) and ``‖f(z) − x‖`` (…, n). Where x lies on the image, z is off by at most that over m; else the
            residual says how far outside it is.
        """
        exact = copy.deepcopy(self).double()
        rows = in_members(x, exact.g2.members, exact.g2.dimension).double()
        basis = exact.beta.basis()
        middle = newton.solve(exact.g2, rows)[0] @ basis / exact.beta.scale[:, None, None].square()
        z = newton.solve(exact.g1, middle)[0]
        return like_rows(z, x), like_rows((exact(z) - rows).norm(dim=2), x)

    @torch.no_grad()
    def start_(
        self,
        centre: Float[Tensor, "*e d"] | None = None,
        *,
        slope: Value = 1.0,
        z: Float[Tensor, "e n k"] | None = None,
        generator: torch.Generator,
    ) -> None:
        """Start from unit slopes all along the chain, from bends among its inputs, and from the data's mean.

        Prior draws are pushed through: each map gets its bends spread over its own inputs and the given mean slope, so
        that f has about slope·s·slope; g₁ is centred, and the mean of f over the prior becomes `centre`. This decides
        more than the architecture does.

        Args:
            centre: what the mean output should be, (D,) or (E, D): the data's mean, or its logits; 0 by default.
            slope: of each map, above its α.
            z: prior draws, from N(0, I) by default.
            generator: of these, and of the bends.
        """
        if z is None:
            z = normal((self.g1.members, _DRAWS, self.g1.dimension), 1.0, generator).to(self.g1.offset)
        inner = _started(self.g1, z, slope, generator)
        self.g1.offset.sub_(inner.mean(1))
        outer = _started(self.g2, self.beta(inner - inner.mean(1, keepdim=True)), slope, generator)
        self.g2.offset.sub_(outer.mean(1))
        if centre is not None:
            self.g2.offset.add_(centre.to(self.g2.offset))


def _started(g: BrenierMap, x: Tensor, slope: Value, generator: torch.Generator) -> Tensor:
    g.spread_(x, generator=generator)
    g.unit_slope_(x, slope, generator=generator)
    return g(x)


def _dialled(
    nats: Value | None, sigma: Value | None, latents: int, members: int
) -> Float[Tensor, " e"] | None:
    """The constant m of each member whose floor is so many nats; None where none was asked for."""
    if nats is None:
        return None
    if sigma is None:
        raise ValueError("sigma should be given with min_information: the floor is relative to the noise")
    asked = zip(
        per_member(nats, members, "min_information").tolist(),
        per_member(sigma, members, "sigma").tolist(),
        strict=True,
    )
    return _ROOM * torch.tensor([lower_lipschitz_for(nat, noise, latents) for nat, noise in asked])


# A map of unit slope starts as a fraction α of the identity and 1 − α of what it can learn. With neither constant given
# the scale stays 1 and both α become √m; from α = 0.7 on, where little would be left to learn, the scale grows instead.


def _constants(
    alphas: tuple[Value, Value] | None, scale: Value | None, lower: Tensor | None, members: int
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """(α₁, α₂) and s of each member, such that ``α₂ s α₁ = lower`` where that is asked for."""
    given = None if alphas is None else tuple(per_member(alpha, members, "alphas") for alpha in alphas)
    factor = None if scale is None else per_member(scale, members, "scale")
    if lower is None:
        default = per_member(_ALPHA, members, "alphas")
        first, second = given or (default, default)
        return (first, second), per_member(1.0, members, "scale") if factor is None else factor
    if given is not None and factor is not None:
        raise ValueError("min_information sets alphas or scale: leave out one of them, got both")
    if given is None:
        alpha = (lower if factor is None else lower / factor).sqrt()
        if factor is not None and bool((alpha >= 1).any()):
            raise ValueError(
                f"scale should be above {float(lower.max()):.3g}, the slope that min_information asks for, got "
                f"{factor.tolist()}: leave it out to have it set"
            )
        alpha = alpha if factor is not None else alpha.clamp(max=_STEEP)
        given = (alpha, alpha)
    first, second = given
    return (first, second), lower / (first * second) if factor is None else factor

"""Decoders that see every latent by construction (theory/T5)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from identkit.lidvae import newton
from identkit.lidvae.brenier import BrenierMap
from identkit.lidvae.datasets.support import widths
from identkit.lidvae.icnn import ICNN
from identkit.lidvae.information import lower_lipschitz_for
from identkit.lidvae.logsumexp import LogSumExp
from identkit.lidvae.members import in_members, like_rows, normal, per_member
from identkit.lidvae.monotone import MonotoneGradient
from identkit.lidvae.orthogonal import Orthogonal, orthonormal
from identkit.numeric.singular import rounded_down, rounded_up

Value = float | Sequence[float] | Tensor
"""One number for all members, or one for each."""

ABOVE = 1.25
"""Times α: the least slope of a map to start with, so that something is left to learn."""
_LOWER = 0.04  # of a decoder that starts with unit slopes: α = 0.2 in each of two maps
_STEEP = 0.7  # the largest α that the dial gives a map of unit slope
_ROOM = 1 + 1e-5  # float32 moves a constant by less, so that the floor asked for is kept
_DRAWS = 1024  # prior draws that the initial slopes are averaged over


class BrenierDecoder(nn.Module):
    """``f(z) = g₂(β g₁(z))``, with Brenier maps g₁, g₂ and ``β = s·orthonormal``: injective, with a constant to prove it.

    ``‖f(z) − f(z′)‖ ≥ m‖z − z′‖``, ``m = α₂ s α₁`` whatever the weights. A longer chain ``g_L(β g_{L−1}(Q ⋯ g₁(z)))``
    has all maps but the last among the K latents, with rotations Q between them, and ``m = s Π α_l``: a composition of
    what cannot lose a latent cannot lose one, and three maps fit what tears better than two do.

    With a likelihood in minimal form the latent is globally identifiable, and ``I(z; x) ≥ (K/2) log(1 + m²/σ²)`` nats
    for noise N(0, σ²I). m is a dial: where the data do not pay for the information it demands, the likelihood does.

    Categorical data take D − 1 logits, the last one fixed at 0: a softmax over the D outputs of an injective map forgets
    a dimension.

    Source: Wang, Blei & Cunningham 2021, section 3; theory/T5.

    Args:
        members: E.
        latents, outputs: K ≤ D.
        map: "monotone" (`MonotoneGradient`), "logsumexp" (`LogSumExp`, universal; the best for clouds in few dimensions)
            or "icnn" (`ICNN`, the paper's, universal and slower).
        hidden: width of each map, two or more: rows, pieces, or units of each of two layers.
        alphas: α of each map, fixed; the same for all, with product 0.04, unless `min_information` sets them.
        scale: s, fixed; 1 unless `min_information` sets it.
        min_information: nats of floor, in place of `alphas`, `scale` or both; then `sigma` is needed.
        sigma: of the Gaussian noise.
        generator: of the initial weights.

    Raises:
        ValueError: outputs are fewer than latents, there are fewer than two maps, a constant is not positive, or the dial
            is over- or underdetermined.

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
        hidden: Sequence[int] = (64, 64),
        alphas: Sequence[Value] | None = None,
        scale: Value | None = None,
        min_information: Value | None = None,
        sigma: Value | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if map not in _MAPS:
            raise ValueError(f"map should be one of {', '.join(_MAPS)}, got {map!r}")
        hidden = widths(hidden, "hidden")
        if len(hidden) < 2:
            raise ValueError(f"hidden should be the widths of two maps or more, got {hidden}")
        if latents > outputs:
            raise ValueError(
                f"latents should be at most {outputs}, the decoder's outputs, or no decoder is injective, got {latents}"
            )
        lower = _dialled(min_information, sigma, latents, members)
        steepness, factor = _constants(alphas, scale, lower, members, len(hidden))
        sizes = [latents] * (len(hidden) - 1) + [outputs]
        scales = [torch.ones(members)] * (len(hidden) - 2) + [factor]
        self.maps = nn.ModuleList()
        self.betas = nn.ModuleList()
        for number, (size, width, alpha) in enumerate(zip(sizes, hidden, steepness, strict=True)):
            if number > 0:
                turn = Orthogonal(members, latents, size, scale=scales[number - 1], generator=generator)
                self.betas.append(turn)
            self.maps.append(_MAPS[map](members, size, width, alpha, generator))

    @property
    def chain(self) -> tuple[BrenierMap, ...]:
        """All maps, from the latents' side."""
        return tuple(cast("BrenierMap", g) for g in self.maps)

    @property
    def turns(self) -> tuple[Orthogonal, ...]:
        """The linear steps between them; the last one is β, which has the scale."""
        return tuple(cast("Orthogonal", beta) for beta in self.betas)

    @property
    def g1(self) -> BrenierMap:
        """The first map, of the latents."""
        return self.chain[0]

    @property
    def beta(self) -> Orthogonal:
        """The last linear step, into the space of the outputs."""
        return self.turns[-1]

    @property
    def g2(self) -> BrenierMap:
        """The last map, of the outputs."""
        return self.chain[-1]

    def forward(self, z: Float[Tensor, "*e n k"]) -> Float[Tensor, "*e n d"]:
        """f(z) for z (E, n, K), or (n, K) where E = 1."""
        first, *others = self.chain
        x = first(z)
        for beta, g in zip(self.turns, others, strict=True):
            x = g(x, beta.basis())
        return x

    def lower_lipschitz(self) -> float | None:
        """``m = α₂ s σ_min(Q) α₁`` of the least member, rounded down; `member(decoder, i)` has its own."""
        total = 1.0
        for beta in self.turns:
            middle = beta.lower_lipschitz()
            if middle is None:
                return None
            total *= middle
        for g in self.chain:
            total *= g.lower_lipschitz()
        return rounded_down(total, 2 * len(self.maps))

    def upper_lipschitz(self) -> float:
        """``L = L₂ s σ_max(Q) L₁`` of the largest member, rounded up."""
        total = 1.0
        for each in (*self.chain, *self.turns):
            total *= each.upper_lipschitz()
        return rounded_up(total, 2 * len(self.maps))

    @torch.no_grad()
    def inverse(self, x: Float[Tensor, "*e n d"]) -> tuple[Float[Tensor, "*e n k"], Float[Tensor, "*e n"]]:
        """Recover z from ``x = f(z)`` in float64: ``g₁⁻¹(Qᵀ g₂⁻¹(x)/s)``.

        Returns:
            z (…, n, K) and ``‖f(z) − x‖`` (…, n). Where x lies on the image, z is off by at most that over m; else the
            residual says how far outside it is.
        """
        exact = copy.deepcopy(self).double()
        rows = in_members(x, exact.g2.members, exact.g2.dimension).double()
        z = newton.solve(exact.g2, rows)[0]
        for beta, g in zip(reversed(exact.turns), reversed(exact.chain[:-1]), strict=True):
            z = newton.solve(g, z @ beta.basis() / beta.scale[:, None, None].square())[0]
        return like_rows(z, x), like_rows((exact(z) - rows).norm(dim=2), x)

    @torch.no_grad()
    def start_(
        self,
        centre: Float[Tensor, "*e d"] | None = None,
        *,
        slope: Value = 1.0,
        total: Value | None = None,
        z: Float[Tensor, "e n k"] | None = None,
        generator: torch.Generator,
    ) -> None:
        """Start from unit slopes all along the chain, from bends among its inputs, and from the data's mean.

        Prior draws are pushed through: each map gets its bends spread over its own inputs and the given mean slope, so
        that f has about s times their product; what goes from map to map is centred, and the mean of f over the prior
        becomes `centre`. This decides more than the architecture does.

        Args:
            centre: what the mean output should be, (D,) or (E, D): the data's mean, or its logits; 0 by default.
            slope: of each map, above its α.
            total: of f as a whole, in place of `slope`: the last map, from a few inputs to many outputs, begins within the
                span of β, where its mean slope is 2α, half of it to be learned; the maps before it make up the rest.
            z: prior draws, from N(0, I) by default.
            generator: of these, and of the bends.
        """
        if z is None:
            z = normal((self.g1.members, _DRAWS, self.g1.dimension), 1.0, generator).to(self.g1.offset)
        slopes: Sequence[Value] = [slope] * len(self.chain) if total is None else self._slopes(total)
        if total is not None:
            self.g2.within_(orthonormal(self.beta.weight))
        for number, (g, own) in enumerate(zip(self.chain, slopes, strict=True)):
            x = z if number == 0 else self.turns[number - 1](z)
            z = _started(g, x, own, generator)
            g.offset.sub_(z.mean(1))
            z = z - z.mean(1, keepdim=True)
        if centre is not None:
            self.g2.offset.add_(centre.to(self.g2.offset))

    def _slopes(self, total: Value) -> Sequence[Value]:
        """What `start_` asks of each map: ``t^{L−1} s 2α_L = total``, t above each α, and for the last the mean over D."""
        *others, last = self.chain
        wanted = per_member(total, last.members, "total").to(last.alpha)
        least = ABOVE * torch.stack([g.alpha for g in others]).amax(0)
        before = (wanted / (2 * self.beta.scale * last.alpha)) ** (1 / len(others))
        # Of D directions K have the slope 2α_L and the others α_L.
        return [before.maximum(least)] * len(others) + [last.alpha * (1 + self.g1.dimension / last.dimension)]


def _monotone(
    members: int, dimension: int, width: int, alpha: Tensor, generator: torch.Generator
) -> BrenierMap:
    return MonotoneGradient(members, dimension, width, alpha=alpha, generator=generator)


def _log_sum_exp(
    members: int, dimension: int, width: int, alpha: Tensor, generator: torch.Generator
) -> BrenierMap:
    return LogSumExp(members, dimension, width, alpha=alpha, generator=generator)


def _icnn(members: int, dimension: int, width: int, alpha: Tensor, generator: torch.Generator) -> BrenierMap:
    return ICNN(members, dimension, (width, width), alpha=alpha, generator=generator)


_MAPS = {"monotone": _monotone, "logsumexp": _log_sum_exp, "icnn": _icnn}


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
# the scale stays 1 and each of L maps has α = m^(1/L); from α = 0.7 on, where little would be left to learn, the scale
# grows instead.


def _constants(
    alphas: Sequence[Value] | None, scale: Value | None, lower: Tensor | None, members: int, maps: int
) -> tuple[list[Tensor], Tensor]:
    """α of each map and s, of each member, such that ``s Π α_l = lower`` where that is asked for."""
    if alphas is not None and len(alphas) != maps:
        raise ValueError(f"alphas should hold one α for each of {maps} maps, got {len(alphas)}")
    given = None if alphas is None else [per_member(alpha, members, "alphas") for alpha in alphas]
    factor = None if scale is None else per_member(scale, members, "scale")
    if lower is None:
        default = per_member(_LOWER ** (1 / maps), members, "alphas")
        return given or [default] * maps, per_member(1.0, members, "scale") if factor is None else factor
    if given is not None and factor is not None:
        raise ValueError("min_information sets alphas or scale: leave out one of them, got both")
    if given is None:
        alpha = (lower if factor is None else lower / factor) ** (1 / maps)
        if factor is not None and bool((alpha >= 1).any()):
            raise ValueError(
                f"scale should be above {float(lower.max()):.3g}, the slope that min_information asks for, got "
                f"{factor.tolist()}: leave it out to have it set"
            )
        alpha = alpha if factor is not None else alpha.clamp(max=_STEEP)
        given = [alpha] * maps
    return given, lower / torch.stack(given).prod(0) if factor is None else factor

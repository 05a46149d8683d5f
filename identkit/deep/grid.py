"""The models of the deep suite: what each decoder can and cannot see is known from how it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from identkit.lidvae.datasets import Dataset, from_rows, pinwheel
from identkit.lidvae.information import information_floor
from identkit.lidvae.models import LIDVAE, VAE, Autoencoder
from identkit.lidvae.reading import Reading

LATENTS = 2


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How large the grid is."""

    seeds: int
    steps: int
    rows: int
    """Of each data set."""
    sigmas: tuple[float, ...]
    lower: tuple[float, ...]
    """Constants m of the identifiable decoders."""
    width: int
    judged: int
    """Data on which each model's posteriors are found."""


_CPU = Preset(
    seeds=2, steps=400, rows=2000, sigmas=(0.3, 0.6, 1.0, 1.5), lower=(0.1, 0.5), width=32, judged=5
)

PRESETS: Mapping[str, Preset] = {
    "cpu": _CPU,
    "many": replace(_CPU, seeds=6),  # 600 networks
    "gpu": Preset(
        seeds=8,
        steps=4000,
        rows=20_000,
        sigmas=(0.2, 0.4, 0.7, 1.0, 1.5),
        lower=(0.05, 0.2, 0.5, 1.0),
        width=128,
        judged=20,
    ),
}


class Featured(nn.Module):
    """A decoder that sees features of z alone."""

    def __init__(self, inner: nn.Module, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.features = inner, features

    def forward(self, z: Tensor) -> Tensor:
        """``inner(features(z))``."""
        return self.inner(self.features(z))


class _FeaturedVAE(VAE):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.decoder = Featured(self.decoder, self.features)

    @staticmethod
    def features(z: Tensor) -> Tensor:
        raise NotImplementedError

    def _start_decoder_(self, centre: Tensor, spread: float, generator: torch.Generator) -> None:
        whole: Any = self.decoder
        self.decoder = whole.inner
        super()._start_decoder_(centre, spread, generator)
        self.decoder = whole


class OneCoordinate(_FeaturedVAE):
    """Its decoder sees z₁ alone."""

    name = "one coordinate"

    @staticmethod
    def features(z: Tensor) -> Tensor:
        """z₁, twice."""
        return torch.cat([z[..., :1], z[..., :1]], dim=-1)


class Radius(_FeaturedVAE):
    """Its decoder sees ‖z‖² alone: rotations go unseen."""

    name = "radius"

    @staticmethod
    def features(z: Tensor) -> Tensor:
        """``‖z‖²``, twice."""
        square = z.square().sum(-1, keepdim=True)
        return torch.cat([square, square], dim=-1)


class Folded(_FeaturedVAE):
    """Its decoder sees z₁² and z₂²: signs go unseen."""

    name = "folded"

    @staticmethod
    def features(z: Tensor) -> Tensor:
        """z ⊙ z."""
        return z.square()


class _Blind(Reading):
    """Rows that the encoder cannot tell apart."""

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(super().forward(x))


class BlindVAE(VAE):
    """An ordinary model whose encoder sees nothing: q is one law for all rows."""

    name = "VAE, blind encoder"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.reading = _Blind(self.members, self.likelihood)


class BlindLIDVAE(LIDVAE):
    """An identifiable model whose encoder sees nothing: what is lost there is lost by inference."""

    name = "LIDVAE, blind encoder"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.reading = _Blind(self.members, self.likelihood)


@dataclass(frozen=True, eq=False)
class Group:
    """Models that train together: settings of one kind on one data set."""

    kind: str
    data: Dataset
    model: Autoencoder
    settings: tuple[str, ...]
    """Of the members of one seed."""


def groups(preset: Preset, seed: int = 0) -> Iterator[Group]:
    """Every kind of decoder on every data set."""
    for data in datasets(preset, seed):
        sigmas = preset.sigmas if data.likelihood == "gaussian" else (None,)
        columns = data.train.shape[1]
        widths: dict[str, Any] = {"hidden": (preset.width,) * 2, "encoder_hidden": (preset.width,) * 2}
        noise = [f"σ = {sigma:g}" if sigma else "" for sigma in sigmas]
        common = {"data_dim": columns, "latent_dim": LATENTS, "likelihood": data.likelihood, "seed": seed}
        plain = {**common, **widths, "members": len(sigmas), "sigma": list(sigmas) if sigmas[0] else None}
        kinds: dict[str, Callable[..., Autoencoder]] = {
            "MLP": VAE,
            "linear": lambda **options: VAE(**{**options, "hidden": ()}),
            **{kind.name: kind for kind in (OneCoordinate, Radius, Folded, BlindVAE)},
        }
        for kind, build in kinds.items():
            yield Group(kind, data, build(**plain), tuple(noise))
        pairs = [(sigma, m) for m in preset.lower for sigma in sigmas]
        settings = tuple(", ".join(filter(None, (f"σ = {s:g}" if s else "", f"m = {m:g}"))) for s, m in pairs)
        dial: dict[str, Any] = {"members": len(pairs), **common, **widths}
        if sigmas[0]:
            dial["sigma"] = [sigma for sigma, _ in pairs]
            dial["min_information"] = [information_floor(m, sigma or 1.0, LATENTS) for sigma, m in pairs]
        else:
            dial["alphas"] = ([min(m, 0.9) ** 0.5 for _, m in pairs],) * 2
            dial["scale"] = [max(1.0, m / 0.9) for _, m in pairs]
        for build in (LIDVAE, BlindLIDVAE):
            yield Group("LIDVAE" if build is LIDVAE else BlindLIDVAE.name, data, build(**dial), settings)


def datasets(preset: Preset, seed: int) -> tuple[Dataset, ...]:
    """A bent plane, a flat one in four columns, binary items, and counts; two latents behind each of the last three."""
    generator = torch.Generator().manual_seed(seed)
    n = preset.rows

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    z = drawn(n, LATENTS)
    flat = z @ torch.tensor([[1.2, 0.4, -0.8, 0.2], [0.0, 0.6, 0.5, -0.9]]) + 0.3 * drawn(n, 4)
    items = torch.bernoulli(torch.sigmoid(z @ (2 * drawn(LATENTS, 6))), generator=generator)
    counts = torch.poisson((0.6 * z @ drawn(LATENTS, 4) + 0.5).clamp(max=4).exp(), generator=generator)
    return (
        pinwheel(n, seed),
        from_rows(flat, "gaussian", name="flat plane"),
        from_rows(items, "bernoulli", name="binary items"),
        from_rows(counts, "poisson", name="counts"),
    )

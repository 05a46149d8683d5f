"""Which components of a trained mixture have different laws of the data, ``p(x | y) = ∫ p(x | z) p(z | y) dz``, proved.

Three steps. The law ``p(x | z)`` ignores some coordinates of z and determines others (`identkit.numeric.bounds`). Where it
ignores a coordinate, components that differ only there have one law. Where it determines all the others, and the law
of x determines the law of the decoder's output, components that differ in them have different laws:

* Gaussian noise: the characteristic function of ``f(z) + σε`` is that of ``f(z)`` times one without zeros;
* Poisson counts: ``E Π s_d^{x_d} = E exp(−Σ (1 − s_d) λ_d)`` on ``s ∈ (0, 1)^D`` is the Laplace transform of the rates λ on
  ``(0, 1)^D``; it is analytic on ``(0, ∞)^D`` and therefore known there, and so is the law of the rates.

Bernoulli and categorical columns show finitely many moments of ``f(z)`` only, and nothing follows.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.numeric.certificates import Ignored, Injective
from identkit.numeric.checker import check_numeric
from identkit.numeric.found import Together
from identkit.numeric.singular import rounded_down
from identkit.verdict import Certificate, Invariance, Level, Verdict, overall

if TYPE_CHECKING:
    from identkit.lidvae.models.mixture import MixtureAutoencoder

_TELLING = ("gaussian", "poisson")
_SAYS = "y: asked about with z integrated out, through p(x | y); given z the data say nothing about y"


def tells_mixtures(likelihood: str) -> bool:
    """Whether the law of x determines the law of the decoder's output, whatever mixture that is."""
    return likelihood in _TELLING


def least_distance(mean: Float[Tensor, "*e c k"]) -> float:
    """The smallest distance between two locations of one member, rounded down."""
    exact = mean.detach().cpu().double()
    pairs = torch.combinations(torch.arange(exact.shape[-2]))
    # A float64 difference and its square are off by half an ulp each, a sum of K by at most K.
    distances = (exact[..., pairs[:, 0], :] - exact[..., pairs[:, 1], :]).norm(dim=-1)
    return rounded_down(float(distances.min()), mean.shape[-1] + 8)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ComponentLaws(Certificate):
    """The components in classes of one law each; those of different classes have different laws unless UNKNOWN."""

    mean: Float[Tensor, "c k"]
    log_scale: Float[Tensor, "c k"]
    """Of the components, as trained."""
    likelihood: str
    of_z: Certificate | None
    """What is proved about z."""
    names: tuple[str, ...]
    """Of the coordinates of z."""
    classes: tuple[tuple[int, ...], ...]
    """Components, from 0, that agree in every coordinate but those that the law ignores."""

    @property
    def level(self) -> Level:
        """CONSTANT for one class, PARTIAL where some are merged; GLOBAL where all differ, provably; else UNKNOWN."""
        if len(self.classes) == 1:
            return Level.CONSTANT
        if len(self.classes) < len(self.mean):
            return Level.PARTIAL
        return Level.GLOBAL if self._determined and tells_mixtures(self.likelihood) else Level.UNKNOWN

    @property
    def _ignored(self) -> set[str]:
        return {name for part in _parts(self.of_z) if isinstance(part, Ignored) for name in part.names}

    @property
    def _determined(self) -> bool:
        known = {name for part in _parts(self.of_z) if isinstance(part, Injective) for name in part.names}
        return known | self._ignored == set(self.names)

    @property
    def kind(self) -> str:
        """How it is proved."""
        return "laws of the components"

    @property
    def statement(self) -> str:
        """What is proved."""
        if self.level is Level.CONSTANT:
            return f"all {len(self.mean)} components give one law of the data"
        if self.level is Level.PARTIAL:
            return f"the {len(self.mean)} components give {len(self.classes)} laws of the data or fewer"
        return (
            f"the {len(self.mean)} components, at least {least_distance(self.mean):.4g} apart, give pairwise different "
            "laws of the data"
        )

    def verify(self) -> bool:
        """Whether what is proved about z holds, and the classes are those of the numbers, compared as rationals."""
        if self.level is Level.UNKNOWN or (self.of_z is not None and not self.of_z.verify()):
            return False
        return self.classes == classes_of(self.mean, self.log_scale, self.names, self._ignored)


def classes_of(
    mean: Float[Tensor, "c k"], log_scale: Float[Tensor, "c k"], names: tuple[str, ...], ignored: set[str]
) -> tuple[tuple[int, ...], ...]:
    """Components that have the same numbers in every coordinate that is not ignored."""
    found: dict[tuple[Fraction, ...], list[int]] = {}
    for number, rows in enumerate(zip(mean.tolist(), log_scale.tolist(), strict=True)):
        key = tuple(
            Fraction(value)
            for row in rows
            for name, value in zip(names, row, strict=True)
            if name not in ignored
        )
        found.setdefault(key, []).append(number)
    return tuple(tuple(states) for states in found.values())


def mixture_verdict(model: MixtureAutoencoder) -> Verdict:
    """What the law of the data sees of y and of z, for a model of one member."""
    started = time.perf_counter()
    of_z = check_numeric(model.decoder, prior=model.prior, likelihood=model.likelihood)
    mean, log_scale = (tensor.detach().squeeze(0).cpu() for tensor in model.placement())
    names = tuple(of_z.latents)
    proof = ComponentLaws(
        mean=mean,
        log_scale=log_scale,
        likelihood=model.likelihood.name,
        of_z=of_z.certificate,
        names=names,
        classes=(),
    )
    proof = dataclasses.replace(proof, classes=classes_of(mean, log_scale, names, proof._ignored))
    levels = {"y": proof.level, **of_z.latents}
    settled = [] if proof.level is Level.UNKNOWN else [proof]
    proofs = [*_parts(of_z.certificate), *settled]
    return dataclasses.replace(
        of_z,
        model=model.name,
        latents=levels,
        level=overall(levels.values()),
        invariances=(*of_z.invariances, *_merged(proof)),
        assumptions=(*of_z.assumptions, _SAYS, *_unsettled(proof)),
        certificate=None if not proofs else proofs[0] if len(proofs) == 1 else Together(tuple(proofs)),
        seconds=time.perf_counter() - started,
    )


def _parts(certificate: Certificate | None) -> Iterator[Certificate]:
    if isinstance(certificate, Together):
        yield from itertools.chain.from_iterable(map(_parts, certificate.parts))
    elif certificate is not None:
        yield certificate


def _merged(proof: ComponentLaws) -> Iterator[Invariance]:
    for each in proof.classes:
        if len(each) > 1:
            same = " ~ ".join(f"y = {number + 1}" for number in each)
            yield Invariance(kind="merged states", about=("y",), map=same, preserves_prior=True)


def _unsettled(proof: ComponentLaws) -> Iterator[str]:
    if proof.level is not Level.UNKNOWN:
        return
    if not tells_mixtures(proof.likelihood):
        yield (
            f"y: the components of z differ, but {proof.likelihood} data show finitely many moments of a mixture, which "
            "need not tell two laws of z apart"
        )
    else:
        yield "y: the components of z differ, but no bound proves that the decoder keeps their images apart"

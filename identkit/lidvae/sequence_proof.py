"""The proof that every step of a sequence tells the latent, re-checked from the weights (theory/T5)."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from identkit.lidvae.decoders import BrenierDecoder
from identkit.lidvae.icnn import ICNN
from identkit.lidvae.logsumexp import LogSumExp
from identkit.lidvae.monotone import MonotoneGradient
from identkit.lidvae.orthogonal import Orthogonal
from identkit.lidvae.sequence_decoders import SeenLatent
from identkit.lidvae.vocabulary import ContrastVocabulary
from identkit.model.protocol import Bounded
from identkit.verdict import Certificate, Level, Verdict

_PAIRS = 64  # of latents, each at a history of its own, that a re-check looks at
_STEPS = 4  # of those histories
_ROOM = 1e-6  # of a difference quotient: in float64 W has other roundings than in the model's own precision


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SeenAtEveryStep(Certificate):
    """``‖clr p(x_t | z, x_<t) − clr p(x_t | z′, x_<t)‖ ≥ m‖z − z′‖`` at every step of every history, clr p = centred log p.

    The left side is 0 only where the two laws of x_t are the same, so that different z have different laws.
    """

    model: Any
    """A `LIDSVAE`."""
    lower: float
    """m > 0."""
    upper: float | None
    """L, if known."""

    @property
    def kind(self) -> str:
        """How it is proved."""
        return "Lipschitz bounds"

    @property
    def vouched(self) -> tuple[str, ...]:
        """The parts whose constants are their own word: a map of the user's."""
        f = self.model.decoder.f
        return () if type(f) is BrenierDecoder else ("map",)

    @property
    def statement(self) -> str:
        """What is proved."""
        above = "" if self.upper is None else f" ≤ {self.upper:.6g}·|z − z'|"
        return (
            f"{self.lower:.6g}·|z − z'| ≤ |clr p(x_t | z, x_<t) − clr p(x_t | z', x_<t)|{above} for every x_t and every "
            f"history x_<t, with clr p = log p − mean log p over the {self.model.decoder.categories} symbols"
        )

    def verify(self) -> bool:
        """Whether the constants follow from the present weights, and the law obeys them where it is tried.

        What is bounded must be what is computed: parts of the house whose code nobody replaced, with finite weights. The
        law itself is then tried at random histories, in float64.
        """
        decoder = self.model.decoder
        if not _as_written(decoder) or decoder.latents != self.model.latents:
            return False
        lower, upper = decoder.lower_lipschitz(), decoder.upper_lipschitz()
        if lower is None or not 0 < self.lower <= lower or not math.isfinite(self.lower):
            return False
        if self.upper is not None and not (upper is not None and upper <= self.upper):
            return False
        quotients = _quotients(decoder)
        most = math.inf if self.upper is None else self.upper
        return bool(((quotients >= self.lower * (1 - _ROOM)) & (quotients <= most * (1 + _ROOM))).all())


def seen_at_every_step(model: Any) -> Verdict:
    """GLOBAL for every latent of a `LIDSVAE`, with its bound; UNKNOWN where a matrix lost its rank in floats."""
    started = time.perf_counter()
    lower = model.decoder.lower_lipschitz()
    found = None
    if lower is not None:
        found = SeenAtEveryStep(model=model, lower=lower, upper=model.decoder.upper_lipschitz())
    if found is None or not found.verify():
        why = "the bound does not follow from the weights: a matrix lost its rank, or a part has other code"
        return _verdict(model, Level.UNKNOWN, None, (why,), started)
    vouched = tuple(f"{part} vouches for its own constants" for part in found.vouched)
    told = "the law of each x_t given any x_<t tells z: so does that of x_1, hence that of the whole sequence"
    return _verdict(model, Level.GLOBAL, found, (*vouched, told), started)


def not_known(model: Any) -> Verdict:
    """UNKNOWN for every latent: nothing bounds what an LSTM makes of a latent that it is merely offered."""
    tried = (
        "no bound: the decoder may tell x_t from x_<t alone; check(model.decoder, prior=model.prior, "
        "likelihood=model.likelihood, x=rows) probes it at the histories in rows"
    )
    return _verdict(model, Level.UNKNOWN, None, (tried,), time.perf_counter())


def _verdict(
    model: Any, level: Level, proof: Certificate | None, assumptions: tuple[str, ...], started: float
) -> Verdict:
    return Verdict(
        model=type(model).__name__,
        about="latents",
        scope="at",
        level=level,
        latents=dict.fromkeys(model.groups, level),
        assumptions=assumptions,
        certificate=proof,
        method="numeric",
        seconds=time.perf_counter() - started,
    )


def _as_written(decoder: Any) -> bool:
    """Whether all that the bound rests on runs the code that the bound was proved of, on finite weights."""
    if type(decoder) is not SeenLatent:
        return False
    f = decoder.f
    kinds: list[tuple[Any, tuple[type, ...]]] = [(decoder.vocabulary, (ContrastVocabulary,))]
    if type(f) is BrenierDecoder:
        kinds += [(g, (MonotoneGradient, ICNN, LogSumExp)) for g in f.maps]
        kinds += [(beta, (Orthogonal,)) for beta in f.betas]
    elif not isinstance(f, Bounded):
        return False
    parts = [decoder, f, *(part for part, _ in kinds)]
    hooked = any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in parts)
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in decoder.state_dict().values())
    return finite and not hooked and all(type(part) in wanted for part, wanted in kinds)


@torch.no_grad()
def _quotients(decoder: SeenLatent) -> Float[Tensor, " q"]:
    """``‖clr p_t(z) − clr p_t(z′)‖/‖z − z′‖`` at random pairs and histories, near and far, of every member."""
    exact = copy.deepcopy(decoder).double()
    members, categories = len(exact.vocabulary.bias), exact.categories
    generator = torch.Generator().manual_seed(0)
    shape = (members, _PAIRS, decoder.latents)
    one = torch.randn(shape, generator=generator, dtype=torch.float64)
    apart = torch.logspace(-3, 1, _PAIRS, dtype=torch.float64).unsqueeze(1)
    other = one + apart * torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.randint(categories, (members, _PAIRS, _STEPS), generator=generator)
    device = exact.vocabulary.bias.device
    one, other, x = (each.to(device) for each in (one, other, x))
    logits = functional.pad((exact(one, x) - exact(other, x)).unflatten(2, (_STEPS, categories - 1)), (0, 1))
    gap = (logits - logits.mean(3, keepdim=True)).norm(dim=3)
    return (gap / (one - other).norm(dim=2).unsqueeze(2)).flatten().cpu()

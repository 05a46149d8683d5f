"""The numeric verdict: what bounds prove first, then what ranks and collisions show, and UNKNOWN for the rest.

Three kinds of evidence, never one for the other:

* *proofs* (`bounds`): the law ignores a latent, z enters through a matrix with a null space, the law stands still on a
  box of positive mass, the law is injective. CONSTANT and GLOBAL come from nowhere else;
* *ranks* (`spectrum`): null directions at random prior draws. Where all operations are analytic the rank is the same
  almost everywhere, so deficiency at random draws makes PARTIAL but for rounding, and full rank at one draw excludes it;
* *collisions*: random latents with a confirmed partner make LOCAL, once the rank is full.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from identkit.numeric import bounds
from identkit.numeric.bottleneck import bottleneck
from identkit.numeric.collision import Collisions, collisions
from identkit.numeric.flatness import along
from identkit.numeric.found import Found, translations
from identkit.numeric.generators import generators
from identkit.numeric.krawczyk import partners
from identkit.numeric.merged import NEAR
from identkit.numeric.on_data import check_density
from identkit.numeric.probed import Probed, probed
from identkit.numeric.record import Record
from identkit.numeric.regions import dead_region, outskirts
from identkit.numeric.rounding import derivatives_hold, spread
from identkit.numeric.spectrum import Spectrum, spectrum
from identkit.numeric.states import check_states
from identkit.verdict import Invariance, Level, Verdict

_LEVEL = 0.99
_PAIRS = 512  # pairs of laws whose divergence bounds the information
_WEAK = 0.05  # nats: an average KL below this is worth a word, whatever the level


def check_numeric(
    model: Any, *, prior: Any = None, likelihood: Any = None, x: Any = None, seed: int = 0
) -> Verdict:
    """Which latents does the likelihood of a decoder, or a log density on given data, see?

    Args:
        model, prior, likelihood, x: as `probed` takes them. With a likelihood the verdict is about the law, hence about
            every datum, and x is needed for sequences only; without, it is about the data x.
        seed: of all sampling.

    Returns:
        a `Verdict` with ``method="numeric"``. GLOBAL and CONSTANT carry a certificate; PARTIAL and LOCAL say in
        `assumptions` what they rest on where that is no proof.

    Raises:
        ValueError, TypeError: as `probed`.

    Source: theory/T2, T5 and the algorithms of the numeric checker.
    """
    started = time.perf_counter()
    p = probed(model, prior, likelihood, x)
    if p.decode is None:
        found = check_density(p, seed)
    elif p.prior.states is not None:
        found = check_states(p, seed)
    else:
        found = _check_law(p, seed)
    return found.verdict(p, time.perf_counter() - started)


def _check_law(p: Probed, seed: int) -> Found:
    found, record = Found(p.prior.names), Record(p)
    _prove(found, record)
    if found.open:
        _probe(found, p, record, seed)
    if p.histories > 1:
        found.assumptions.append(f"judged on the {p.histories} histories given, as pieces of one law")
    _say_how_weak(found, p, seed)
    return found


def _prove(found: Found, record: Record) -> None:
    """What follows from the weights, cheapest first."""
    ignored = bounds.ignored(record)
    if ignored is not None:
        found.settle(ignored.names, Level.CONSTANT, ignored)
        if not found.open:
            return
        found.invariances += [
            Invariance(kind="translation", about=(name,), generator=f"d/d{name}", preserves_prior=False)
            for name in ignored.names
        ]
    null = bounds.null_directions(record)
    if null is not None:
        found.settle(null.moves, Level.PARTIAL, null)
        found.invariances += translations(null, record.model)
    else:
        wide = bounds.unread(record)
        if wide is not None:
            found.settle(wide.names, Level.PARTIAL, wide)
    found.narrow = bottleneck(record) if found.open else None
    if found.open:
        injective = bounds.injective(record)
        if injective is not None:
            found.settle(injective.names, Level.GLOBAL, injective)


def _probe(found: Found, p: Probed, record: Record, seed: int) -> None:
    """What ranks and collisions say of the latents that nothing was proved about."""
    ranks = spectrum(p, seed=seed)
    analytic = bounds.analytic(record) is not None
    if not (analytic and bool(ranks.full_rank.any())):
        # Where no draw was deficient, a region of small mass may lie far out.
        centres = ranks.z[ranks.deficient] if bool(ranks.deficient.any()) else outskirts(p.prior)
        dead = dead_region(record, centres)
        if dead is not None:
            found.settle(dead.moves, Level.PARTIAL, dead)
    if not derivatives_hold(p, spread(p)):
        found.assumptions.append(
            f"{', '.join(found.open)}: the derivatives that torch gives are not those of the law (detached parts, a "
            "straight-through estimator?), so ranks and collisions say nothing"
        )
        return
    met = collisions(p, seed=seed)
    _by_rank(found, p, ranks, met, analytic)
    _by_collision(found, record, ranks, met, analytic)
    _say_what_was_tried(found, ranks, met)


def _by_rank(found: Found, p: Probed, ranks: Spectrum, met: Collisions, analytic: bool) -> None:
    """PARTIAL where the law does not move along a direction, at random draws and along a curve that was walked.

    A derivative of exactly zero may be one that underflows, as that of a saturated tanh does: it takes a proof.
    """
    deficient = ranks.deficient
    genuine = ranks.moves & ~ranks.silent & deficient.unsqueeze(1)
    if p.dtype != torch.float64 or not bool(met.flat.any()):
        return
    everywhere = bool(deficient.all())
    if analytic and not everywhere:
        return  # the rank is the same almost everywhere, so what fell short is rounding
    moved = genuine.all(0) if everywhere else genuine.any(0)
    names = [name for name, moves in zip(found.names, moved.tolist(), strict=True) if moves]
    settled = [name for name in names if name in found.open]
    if not settled:
        return
    found.settle(settled, Level.PARTIAL)
    share = float(deficient.double().mean())
    found.assumptions.append(
        f"{', '.join(settled)}: at {share:.0%} of {len(ranks.z)} prior draws the law has rank "
        f"{int(ranks.rank[deficient].max())} of {ranks.size} but for rounding, and curves of equal law were walked there"
    )
    found.invariances += [
        Invariance(
            kind=field.kind, about=field.about, generator=field.text, preserves_prior=field.preserves_prior
        )
        for field in generators(ranks, p.prior, p.eps)
        if any(name in settled for name in field.about)
    ]


def _by_collision(found: Found, record: Record, ranks: Spectrum, met: Collisions, analytic: bool) -> None:
    """LOCAL for what a confirmed partner moves, and at least LOCAL for the rest, where the rank is full."""
    found.invariances += [
        Invariance(
            kind=symmetry.kind,
            about=symmetry.about,
            map=symmetry.map,
            preserves_prior=symmetry.preserves_prior,
        )
        for symmetry in met.symmetries
    ]
    if not bool(met.isolated.any()):
        return
    full = ranks.full_rank
    if not bool(full.any()) or not (analytic or bool(full.all())):
        return
    confirmed = [pair for pair in met.pairs if pair.confirmed is not None and pair.kind == "isolated"]
    moved = {name for pair in confirmed for name in pair.latents}
    moved |= {name for symmetry in met.symmetries for name in symmetry.about}
    settled = [name for name in found.open if name in moved]
    if not settled:
        return
    boxes = partners(record, met.pairs)
    told = boxes is not None and bool(set(boxes.moves) & set(settled))
    found.settle(settled, Level.LOCAL, boxes if told else None)
    rest = found.open
    found.settle(rest, Level.LOCAL)
    found.at_least += rest
    found.assumptions.append(
        f"{', '.join(settled)}: {met.share(met.isolated):.0%} of {len(met.draws)} random latents have a partner of equal "
        f"law, confirmed by {'a map that holds at fresh draws' if met.symmetries else 'roots of all parameters'} in "
        "float arithmetic"
    )
    if confirmed and not met.symmetries:
        example = confirmed[0]
        found.invariances.append(
            Invariance(
                kind="collision", about=example.latents, map=f"{_point(example.one)} ~ {_point(example.two)}"
            )
        )
    if not analytic:
        found.assumptions.append(
            f"the rank was full at all {len(full)} draws: regions where it is not have prior mass below "
            f"{-math.log(1 - _LEVEL) / len(full):.2g} at level {_LEVEL:g}"
        )


def _say_what_was_tried(found: Found, ranks: Spectrum, met: Collisions) -> None:
    if found.open:
        shares = ", ".join(f"{rank} at {share:.0%}" for rank, share in ranks.histogram.items())
        doubtful = float((~ranks.clear).double().mean())
        unclear = f" ({doubtful:.0%} of them too close to rounding to tell)" if doubtful else ""
        found.assumptions.append(
            f"{', '.join(found.open)}: no bound proves injectivity; the law has rank {shares} of {len(ranks.z)} draws, "
            f"of {ranks.size} directions{unclear}"
        )
        if not bool(met.isolated.any()) and not bool(met.flat.any()):
            found.assumptions.append(
                f"no partner of equal law was found for {len(met.draws)} random latents; sampling never proves that there "
                "is none"
            )
    if bool(met.near.any()):
        found.assumptions.append(
            f"{met.share(met.near):.0%} of random latents have a partner within {NEAR:g} nats that is not "
            "known to have the same law: indistinguishable in practice"
        )


def _say_how_weak(found: Found, p: Probed, seed: int) -> None:
    """``I(z; x) ≤ ½ E[KL + KL]`` between the laws of two prior draws: how collapsed, beside how identifiable."""
    if set(found.levels.values()) == {Level.CONSTANT}:
        return
    everything = torch.eye(p.prior.size, dtype=p.dtype, device=p.prior.device)
    try:
        gap = along(p, everything, draws=_PAIRS, seed=seed, level=_LEVEL, of_law=True)
    except (ValueError, NotImplementedError):
        return  # a prior or a family for which this bound is not known
    most = float(gap.interval[0, 1])
    if most <= _WEAK:
        found.assumptions.append(
            f"nearly collapsed all the same: under the model the average KL from prior to posterior is at most "
            f"{most:.2g} nats (half the mean divergence of two laws, level {_LEVEL:g}, {_PAIRS} pairs)"
        )


def _point(z: Tensor) -> str:
    return f"({', '.join(f'{value:.6g}' for value in z.tolist())})"

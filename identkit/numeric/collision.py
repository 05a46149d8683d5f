"""Collisions: different latents with one law of the data.

A latent z is fixed at random draws from the prior and only its partner z′ is searched: what is found for a share of
them holds on a set of positive prior mass, which is what lowers GLOBAL to LOCAL or PARTIAL (theory/T2). A pair in which
both were free could be a curve crossing itself, a set of measure zero.

Finding none proves nothing. A found one is *confirmed* when the laws agree but for rounding, where rounding has been
measured and a disagreement would be a hundred times as large; all else is "indistinguishable to ε nats".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from identkit.numeric.fibres import Ranks, abrupt, ranks, walk
from identkit.numeric.merged import NEAR
from identkit.numeric.probed import Probed
from identkit.numeric.rounding import seen_above
from identkit.numeric.search import Yardstick, approach, polish, yardstick
from identkit.numeric.symmetry import Symmetry, symmetries

_WORK = 1 << 23  # entries of all Jacobians of one step of the search
_SHOWN = 16  # pairs that are kept as examples
_FEW = 3  # partners of one latent that are looked at closely
_SEPARATION = 0.1  # of two latents that count as different, in spreads of the prior (half its central 68 %)
_TANGENT = 1e-5  # relative part of one end's Jacobian that may stick out of the other's range
_WIDE = 3.0  # spreads of the prior over which some starts are scattered: periods are longer than the prior is wide


@dataclass(frozen=True)
class Collision:
    """Two latents inside the prior's support whose laws agree."""

    one: Float[Tensor, " k"]
    """A random draw from the prior."""
    two: Float[Tensor, " k"]
    distance: float
    """How far apart they are, in spreads of the prior."""
    divergence: float
    """Symmetrised KL of the two laws, nats; nan where torch has no closed form."""
    kind: str
    """isolated (full rank at both ends), continuum (flat directions at both ends), singular (flat at one end only, or
    images that cross) or near (the laws differ by more than rounding)."""
    confirmed: str | None
    """How the laws were found equal: symmetry (a map that holds at fresh draws), root (all parameters agree but for
    rounding and the images are tangent), walk (a curve of equal laws leads there); None: indistinguishable to `divergence`
    nats, and no more is claimed."""
    latents: tuple[str, ...]
    """The latents in which the two differ."""


@dataclass(frozen=True)
class Collisions:
    """What the search found, over random draws z from the prior."""

    draws: Float[Tensor, "n k"]
    """The latents whose partners were searched."""
    flatness: Int[Tensor, " n"]
    """At each draw, the dimensions along which no parameter of the law moves by more than its rounding."""
    flat: Bool[Tensor, " n"]
    """Where a curve of equal laws was walked, a tenth of the prior's spread away."""
    isolated: Bool[Tensor, " n"]
    """Where there is a confirmed partner and no flat direction, here or there."""
    near: Bool[Tensor, " n"]
    """Where there is a partner within a millionth of a nat that was not confirmed."""
    pairs: tuple[Collision, ...]
    """Examples, the confirmed ones first."""
    symmetries: tuple[Symmetry, ...]

    def share(self, where: Bool[Tensor, " n"]) -> float:
        """The share of the draws at which something holds: an estimate of its prior mass."""
        return float(where.double().mean())


def collisions(p: Probed, *, seed: int = 0, draws: int | None = None) -> Collisions:
    """Search partners ``z′`` with the law of z, at random prior draws z, from many starts at once.

    Args:
        seed: of the draws and starts.
        draws: how many z are tried; by default 4 to 64, as the size of the law and the number of latents allow.

    Raises:
        ValueError: only a log density on given data is known, no law; or the prior is finite, whose states are all
            compared (`identkit.numeric.merged`).

    >>> import torch.distributions as td
    >>> from identkit.numeric.probed import probed
    >>> folded = probed(lambda z: z**2, td.Normal(torch.zeros(1), 1), lambda f: td.Normal(f, 0.1))
    >>> [symmetry.map for symmetry in collisions(folded).symmetries]
    ['z[1] -> -z[1]']
    """
    if p.decode is None:
        raise ValueError(
            f"model should have a law for its collisions to be searched, and {p.name} is a log density on given data: "
            "give a decoder and a likelihood"
        )
    if p.prior.states is not None:
        raise ValueError(
            "prior should be continuous for a search of collisions, got one on finitely many states"
        )
    yard = yardstick(p, seed)
    pairs = _WORK // (len(yard.parameter_scale) * yard.size)
    starts = 16 if pairs >= 1024 else 4 if pairs >= 64 else 2
    z = p.prior.sample(draws or max(4, min(64 if pairs >= 1024 else 16, pairs // starts)), seed + 1)
    here = ranks(yard, z)
    found = _partners(yard, z, here, starts, seed)
    sure = found.root & found.trusted
    maps = symmetries(yard, z[found.of[sure]][:_SHOWN], found.two[sure][:_SHOWN], seed)
    if p.dtype != torch.float64:
        maps = tuple(symmetry for symmetry in maps if symmetry.bitwise)
    confirmed, near, examples = _confirmed(yard, z, found, maps)
    ends, arrived, flatness = _walked(yard, z, here, seed)
    examples += _walks(yard, z, ends, arrived)
    full = here.weakest >= seen_above(here.columns.shape[1], _SEPARATION)
    for symmetry in maps:
        image = symmetry(z)
        confirmed |= full & yard.inside(image) & (yard.distance(z, image) >= _SEPARATION)
    examples.sort(key=lambda pair: (pair.confirmed is None, pair.kind != "isolated", pair.distance))
    return Collisions(z, flatness, arrived, confirmed, near, tuple(examples[:_SHOWN]), maps)


@dataclass(frozen=True)
class _Partners:
    """Partners of the draws, m in all."""

    of: Int[Tensor, " m"]
    """The draw that each is a partner of."""
    two: Float[Tensor, "m k"]
    exact: Bool[Tensor, " m"]
    """The laws agree but for rounding."""
    root: Bool[Tensor, " m"]
    """They do, with full rank at both ends and tangent images."""
    flat: Bool[Tensor, " m"]
    """Both ends have flat directions."""
    trusted: Bool[Tensor, " m"]
    """Computed in float64; or, since in float32 a slope of 1e-6 passes for rounding, the laws agree to the last bit, and
    so do most other such pairs."""


def _partners(yard: Yardstick, z: Tensor, here: Ranks, starts: int, seed: int) -> _Partners:
    of = torch.arange(len(z), device=z.device).repeat_interleave(starts)
    begun = _starts(yard, z, starts, seed).reshape(-1, yard.size)
    two, apart = approach(yard, z[of], begun, NEAR)
    good = (apart <= NEAR) & (yard.distance(z[of], two) >= _SEPARATION) & yard.inside(two)
    of, two = of[good], two[good]
    chosen = _nearest(of, yard.distance(z[of], two), here.rank < yard.size)
    of, two = of[chosen], two[chosen]
    if not len(of):
        no = torch.zeros(0, dtype=torch.bool, device=z.device)
        return _Partners(of, two, no, no, no, no)
    root = polish(yard, z[of], two)
    exact = root.residual <= 1
    exact &= yard.inside(root.two) & (yard.distance(z[of], root.two) >= _SEPARATION)
    two = torch.where(exact.unsqueeze(1), root.two, two)
    there = ranks(yard, two)
    threshold = seen_above(there.columns.shape[1], _SEPARATION)
    full = (here.weakest[of] >= threshold) & (there.weakest >= threshold)
    flat = (here.rank[of] < yard.size) & (there.rank < yard.size)
    trusted = _trusted(yard, z[of], two, exact)
    common = here.rounding[of] + there.rounding
    tangent = _tangent(
        _per(here.columns[of], here.rounding[of], common), _per(there.columns, there.rounding, common)
    )
    return _Partners(of, two, exact, exact & full & tangent, flat, trusted)


def _trusted(yard: Yardstick, one: Tensor, two: Tensor, judged: Tensor) -> Tensor:
    """Which pairs of equal law are believed: all in float64; else, if most of those judged, those of equal bits."""
    if yard.p.dtype == torch.float64:
        return torch.ones_like(judged)
    with torch.no_grad():
        same = (yard.p.parameters(one) == yard.p.parameters(two)).all(1) & judged
    return same & (2 * same.sum() > judged.sum())


def _starts(yard: Yardstick, z: Tensor, starts: int, seed: int) -> Tensor:
    """Where the search for each z starts, (n, starts, k): the prior, wider than the prior, near z, and across from z."""
    prior, count = yard.p.prior, len(z) * starts
    drawn = prior.sample(count, seed + 2).reshape(len(z), starts, -1)
    middle = prior.sample(2048, seed).median(0).values
    begun = drawn.clone()
    kind = torch.arange(starts) % 4
    begun[:, kind == 1] = middle + _WIDE * (drawn[:, kind == 1] - middle)
    # One latent drawn again: a fold in one of many latents is next door.
    generator = torch.Generator().manual_seed(seed + 3)
    single = torch.randint(0, yard.size, (len(z), starts), generator=generator).to(z.device)
    only = torch.nn.functional.one_hot(single, yard.size).bool()
    begun[:, kind == 2] = torch.where(only, drawn, z.unsqueeze(1))[:, kind == 2]
    begun[:, kind == 3] = (2 * middle - z).unsqueeze(1) + 0.3 * (drawn[:, kind == 3] - middle)
    return torch.clamp(begun, yard.low, yard.high)


def _nearest(of: Tensor, distance: Tensor, flat: Tensor) -> Tensor:
    """The nearest few partners of each draw, one where it lies on a continuum of them."""
    chosen = []
    for i in of.unique().tolist():
        mine = torch.nonzero(of == i).squeeze(1)
        chosen.append(mine[distance[mine].argsort()][: 1 if bool(flat[i]) else _FEW])
    return torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.long, device=of.device)


def _tangent(one: Tensor, two: Tensor) -> Tensor:
    # If f∘s = f for a map s near z with s(z) = z′, then J(z) = J(z′)·Ds: the range of J(z) lies in that of J(z′).
    # Where two sheets of the image only cross, it does not. With as many parameters as latents it always does, and
    # needs not be asked: by the inverse function theorem such a root persists in a neighbourhood of z.
    basis = torch.linalg.qr(two)[0]
    outside = one - basis @ (basis.mT @ one)
    return outside.flatten(1).norm(dim=1) <= _TANGENT * one.flatten(1).norm(dim=1)


def _per(columns: Tensor, rounding: Tensor, common: Tensor) -> Tensor:
    """A Jacobian in other units of rounding."""
    change = torch.where(common > 0, rounding / common.clamp(min=torch.finfo(common.dtype).tiny), 0)
    return columns * change.unsqueeze(2)


def _confirmed(
    yard: Yardstick, z: Tensor, found: _Partners, maps: tuple[Symmetry, ...]
) -> tuple[Tensor, Tensor, list[Collision]]:
    """Which draws have a confirmed partner apart from any continuum, which only a near one, and the pairs."""
    confirmed = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    near = torch.zeros_like(confirmed)
    if not len(found.of):
        return confirmed, near, []
    one = z[found.of]
    mapped = torch.zeros(len(one), dtype=torch.bool, device=z.device)
    for symmetry in maps:
        mapped |= yard.distance(symmetry(one), found.two) <= 1e-6
    nats = divergence(yard, one, found.two).tolist()
    distance = yard.distance(one, found.two).tolist()
    pairs = []
    for m, i in enumerate(found.of.tolist()):
        sure = found.exact[m] and found.trusted[m]
        kind = "continuum" if found.flat[m] else "isolated" if found.root[m] else "singular"
        kind = kind if found.exact[m] else "near"
        how = "symmetry" if sure and mapped[m] else "root" if found.root[m] and found.trusted[m] else None
        confirmed[i] |= how is not None and kind == "isolated"
        near[i] |= not sure
        latents = differing(yard, z[i], found.two[m])
        pairs.append(Collision(z[i], found.two[m], distance[m], nats[m], kind, how, latents))
    return confirmed, near, pairs


def _walked(yard: Yardstick, z: Tensor, here: Ranks, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where walks from the draws with flat directions end, whether they arrived, and the flat dimensions.

    More flat directions than elsewhere have to end abruptly: an analytic decoder has the same rank almost everywhere,
    so there they are saturation.
    """
    ends, arrived = z.clone(), torch.zeros(len(z), dtype=torch.bool, device=z.device)
    flatness = yard.size - here.rank
    least = int(flatness.min())
    at = torch.nonzero(flatness > 0).squeeze(1)
    if len(at):
        ends[at], arrived[at] = walk(yard, z[at], here.flat[at], _SEPARATION, seed)
        arrived &= _trusted(yard, z, ends, flatness > 0)
    more = torch.nonzero(arrived & (flatness > least)).squeeze(1)
    if len(more):
        out = z[flatness == least]
        nearest = torch.cdist(z[more] / yard.scale, out / yard.scale).argmin(1)
        faded = more[~abrupt(yard, z[more], ends[more], out[nearest])]
        flatness[faded] = least
        arrived[faded] &= least > 0
    return ends, arrived, flatness


def _walks(yard: Yardstick, z: Tensor, ends: Tensor, arrived: Tensor) -> list[Collision]:
    at = torch.nonzero(arrived).squeeze(1)[:_SHOWN]
    if not len(at):
        return []
    nats = divergence(yard, z[at], ends[at]).tolist()
    distance = yard.distance(z[at], ends[at]).tolist()
    return [
        Collision(z[i], ends[i], d, n, "continuum", "walk", differing(yard, z[i], ends[i]))
        for i, d, n in zip(at.tolist(), distance, nats, strict=True)
    ]


def divergence(yard: Yardstick, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """Symmetrised KL of the laws at each pair, nats; nan where torch has no closed form."""
    try:
        with torch.no_grad():
            return yard.p.divergence(one, two)
    except NotImplementedError:
        return torch.full_like(one[:, 0], torch.nan)


def differing(yard: Yardstick, one: Float[Tensor, " k"], two: Float[Tensor, " k"]) -> tuple[str, ...]:
    """The names of the latents in which two differ by more than a millionth of the prior's spread."""
    moved = ((two - one).abs() > 1e-6 * yard.scale).tolist()
    return tuple(name for name, differs in zip(yard.p.prior.names, moved, strict=True) if differs)

"""Affine maps of the latents that leave the law as it is: enumerated ones, and ones fitted to found partners.

A map is accepted when the laws at fresh prior draws and at their images are the same but for rounding. That is
evidence of an identity, not its proof; an entry of 1e-14 beside one of 1 is beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, islice

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.numeric.jacobian import PIECE
from identkit.numeric.rounding import in_units, slopes, unit
from identkit.numeric.search import Yardstick, shortest
from identkit.numeric.wording import signed_sum

_SCREEN = 4  # draws on which each candidate is tried first
_DRAWS = 256  # fresh draws on which a map that passed has to hold
_PAIRED = 32  # latents up to which signs are flipped in pairs too
_SWAPS = 512  # exchanges tried at most
_FITTED = 8  # fitted maps that are listed: periods have many multiples
_SNAP = 1e-6  # entries this close to −1, 0 or 1 are meant to be that
_SAME_PRIOR = 1e-9  # relative agreement of prior densities


@dataclass(frozen=True)
class Symmetry:
    """A map ``z ↦ matrix·z + offset`` under which the law did not change at fresh prior draws."""

    kind: str
    """translation, sign flip, permutation, rotation or other, as in `identkit.verdict.Invariance`"""
    map: str
    """The map in one-based names, such as ``z[1] -> -z[1]``."""
    about: tuple[str, ...]
    """The latents that it moves."""
    matrix: Float[Tensor, "k k"]
    offset: Float[Tensor, " k"]
    share: float
    """Of prior draws, those whose image is inside the prior's support."""
    draws: int
    """The fresh draws, with their images inside, at which the laws were compared."""
    bitwise: bool
    """Whether the laws were equal to the last bit."""
    preserves_prior: bool

    def __call__(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The image of each latent."""
        return z @ self.matrix.T + self.offset


Candidate = tuple[Tensor, Tensor]  # matrix (k, k) and offset (k,)


def symmetries(
    yard: Yardstick, one: Float[Tensor, "n k"], two: Float[Tensor, "n k"], seed: int = 0
) -> tuple[Symmetry, ...]:
    """Find affine maps that preserve the law: signs, exchanges, and maps fitted to pairs of equal law.

    Args:
        one, two: found pairs with full rank at both ends; may be empty.
    """
    living = torch.nonzero(~_ignored(yard, seed)).squeeze(1).tolist()
    single = _holding(yard, _flips(yard, [[i] for i in living]), seed)
    # A product of maps that hold holds too, and need not be listed.
    left = [i for i in living if yard.p.prior.names[i] not in {s.about[0] for s in single}]
    pairs = [list(pair) for pair in combinations(left, 2)] if len(left) <= _PAIRED else []
    paired = _holding(yard, _flips(yard, pairs), seed)
    together = [] if paired or len(left) < 3 else _holding(yard, _flips(yard, [left]), seed)
    swaps = _spanning(_holding(yard, _swaps(yard, living), seed))
    found = single + paired + together + swaps
    known = yard.distance(_canonical(yard, one, single, swaps), _canonical(yard, two, single, swaps)) <= _SNAP
    for symmetry in found:
        known |= yard.distance(symmetry(one), two) <= _SNAP
    return tuple(found + _holding(yard, _fitted(yard, one[~known], two[~known]), seed)[:_FITTED])


def _canonical(yard: Yardstick, z: Tensor, flips: list[Symmetry], swaps: list[Symmetry]) -> Tensor:
    """One latent of those that flips of single latents and exchanges lead to: no map between these needs fitting."""
    z = z.clone()
    names = yard.p.prior.names
    for flip in flips:
        i = names.index(flip.about[0])
        z[:, i] = (z[:, i] - flip.offset[i] / 2).abs()
    for group in _connected(swaps).values():
        members = [names.index(name) for name in group]
        z[:, members] = z[:, members].sort(dim=1).values
    return z


def _connected(swaps: list[Symmetry]) -> dict[str, list[str]]:
    """The latents that exchanges connect, by the first of each group."""
    groups: dict[str, list[str]] = {}
    home: dict[str, str] = {}
    for swap in swaps:
        first, second = (home.setdefault(name, name) for name in swap.about)
        for name in (first, second):
            groups.setdefault(name, [name])
        if first != second:
            for name in groups[second]:
                home[name] = first
            groups[first] += groups.pop(second)
    return groups


def _holding(yard: Yardstick, candidates: Iterable[Candidate], seed: int) -> list[Symmetry]:
    found: list[Symmetry] = []
    for matrix, offset in _screened(yard, candidates, seed):
        symmetry = checked(yard, matrix, offset, seed)
        if symmetry is not None and not any(other.map == symmetry.map for other in found):
            found.append(symmetry)
    return found


def _spanning(swaps: list[Symmetry]) -> list[Symmetry]:
    """Exchanges that generate all the found ones: those that connect latents not connected before."""
    kept: list[Symmetry] = []
    for swap in swaps:
        if not any(set(swap.about) <= set(group) for group in _connected(kept).values()):
            kept.append(swap)
    return kept


def checked(
    yard: Yardstick, matrix: Float[Tensor, "k k"], offset: Float[Tensor, " k"], seed: int = 0
) -> Symmetry | None:
    """The map as a `Symmetry`, or None if it changes the law at one of 256 fresh draws (or none has an image)."""
    p = yard.p
    z = p.prior.sample(_DRAWS, seed + 11)
    image = z @ matrix.T + offset
    inside = yard.inside(image)
    if not bool(inside.any()):
        return None
    one, two = z[inside], image[inside]
    bitwise = True
    rows = max(1, PIECE // max(1, 2 * len(yard.parameter_scale)))
    for first, second in zip(one.split(rows), two.split(rows), strict=True):
        values, about = unit(p, first, yard.scale)
        others, about_others = unit(p, second, yard.scale)
        if not bool((in_units(others - values, about + about_others).abs() <= 1).all()):
            return None
        bitwise &= torch.equal(values, others)
    before, after = p.prior.log_prob(one), p.prior.log_prob(two)
    same = ((before - after).abs() <= _SAME_PRIOR * (1 + before.abs())).all() & inside.all()
    volume = abs(abs(float(torch.linalg.det(matrix.double()))) - 1) < _SAME_PRIOR
    moved = tuple(
        name
        for i, name in enumerate(p.prior.names)
        if float(offset[i]) != 0 or not torch.equal(matrix[i], _eye(yard)[i])
    )
    return Symmetry(
        _kind(matrix, offset),
        _text(p.prior.names, matrix, offset),
        moved,
        matrix,
        offset,
        float(inside.double().mean()),
        len(one),
        bitwise,
        bool(same) and volume,
    )


def _eye(yard: Yardstick) -> Tensor:
    return torch.eye(yard.size, dtype=yard.scale.dtype, device=yard.scale.device)


def _ignored(yard: Yardstick, seed: int) -> Tensor:
    """Latents that can be replaced by fresh draws: every map of them is a symmetry, and says nothing more."""
    p = yard.p
    z, fresh = p.prior.sample(_SCREEN, seed + 12), p.prior.sample(_SCREEN, seed + 13)
    values, rounding = unit(p, z, yard.scale)
    ignored = torch.zeros(yard.size, dtype=torch.bool, device=z.device)
    for i in range(yard.size):
        changed = z.clone()
        changed[:, i] = fresh[:, i]
        with torch.no_grad():
            ignored[i] = bool((in_units(p.parameters(changed) - values, 2 * rounding).abs() <= 1).all())
    return ignored


def _flips(yard: Yardstick, sets: list[list[int]]) -> Iterator[Candidate]:
    """Sign flips of sets of latents, and their reflections where the support is a box."""
    ends = yard.p.prior.low + yard.p.prior.high
    nothing = torch.zeros_like(yard.scale)
    for flipped in sets:
        sign = torch.ones_like(yard.scale)
        sign[flipped] = -1
        yield torch.diag(sign), nothing
        if bool(torch.isfinite(ends[flipped]).all()) and bool((ends[flipped] != 0).any()):
            yield torch.diag(sign), torch.where(sign < 0, ends, nothing)


def _swaps(yard: Yardstick, living: list[int]) -> Iterator[Candidate]:
    """Exchanges of two latents."""
    eye = _eye(yard)
    for i, j in _exchangeable(yard, living):
        swapped = eye.clone()
        swapped[[i, j]] = eye[[j, i]]
        yield swapped, torch.zeros_like(yard.scale)


def _exchangeable(yard: Yardstick, living: list[int]) -> list[tuple[int, int]]:
    # An exchange σ of two latents fixes the points where all are equal, and f∘σ = f gives J·σ = J there: the two
    # columns agree. So one Jacobian leaves few of the k(k − 1)/2 exchanges to try.
    middle = yard.p.prior.sample(2048, 0).median(0).values.mean() + 0.37 * yard.scale.mean()
    point = torch.full_like(yard.scale, float(middle)).unsqueeze(0)
    if not bool(yard.inside(point)):
        return list(combinations(living, 2))[:_SWAPS]
    try:
        _, rounding = unit(yard.p, point, yard.scale)
        columns = slopes(yard.p, point, yard.scale, rounding)[0] / yard.scale
    except (
        RuntimeError,
        ValueError,
    ):  # so special a point need have no law: the inverse of a matrix of equal entries
        return list(combinations(living, 2))[:_SWAPS]
    apart = torch.cdist(columns.mT[living], columns.mT[living])
    alike = apart <= _SNAP * columns.mT[living].norm(dim=1, keepdim=True)
    pairs = [(living[i], living[j]) for i, j in torch.nonzero(alike.triu(1)).tolist()]
    return pairs[:_SWAPS]


def _fitted(yard: Yardstick, one: Tensor, two: Tensor) -> Iterator[Candidate]:
    """The affine map of slope ``J(z′)⁺J(z)`` through each pair, its entries snapped to whole numbers if near.

    Where ``f∘s = f`` near z and f has full rank at z′ = s(z), the partner map s has this slope; an affine s is known
    from one pair.
    """
    if not len(one):
        return
    seen: set[tuple[int, ...]] = set()
    rounding = unit(yard.p, one, yard.scale)[1] + unit(yard.p, two, yard.scale)[1]
    here = slopes(yard.p, one, yard.scale, rounding)
    there = slopes(yard.p, two, yard.scale, rounding)
    for i in range(len(one)):
        columns = here[i].mT  # (k, q): the columns of J(z) as k right-hand sides
        slope = shortest(there[i].expand(len(columns), -1, -1), columns).mT
        matrix = yard.scale.unsqueeze(1) * slope / yard.scale
        whole = matrix.round()
        if not bool(((matrix - whole).abs() < _SNAP).all() & (whole.abs() <= 1).all()):
            whole = torch.where((matrix - whole).abs() < 1e-9, whole, matrix)
        offset = two[i] - whole @ one[i]
        offset = torch.where(offset.abs() < _SNAP * yard.scale, torch.zeros_like(offset), offset)
        key = tuple((torch.cat([whole.flatten(), offset / yard.scale]) * 1e5).round().long().tolist())
        if key not in seen:
            seen.add(key)
            yield whole, offset


def _screened(yard: Yardstick, candidates: Iterable[Candidate], seed: int) -> Iterator[Candidate]:
    """The candidates that hold at a few draws, many tried in one call of the decoder."""
    p = yard.p
    z = p.prior.sample(_SCREEN, seed + 14)
    values, rounding = unit(p, z, yard.scale)
    group = max(1, PIECE // max(_SCREEN * max(512, values.shape[1]), yard.size**2))
    waiting = iter(candidates)
    while some := list(islice(waiting, group)):
        images = torch.cat([z @ matrix.T + offset for matrix, offset in some])
        good = yard.inside(images)
        # An image outside the support is judged by the others; what it gives is not looked at.
        safe = torch.where(good.unsqueeze(1), images, z.repeat(len(some), 1))
        with torch.no_grad():
            change = p.parameters(safe).reshape(len(some), *values.shape) - values
        held = in_units(change, (4 * rounding).expand_as(change)).abs().amax(2) <= 1
        for candidate, fits, inside in zip(some, held.all(1), good.reshape(len(some), -1), strict=True):
            if bool(fits) and bool(inside.any()):
                yield candidate


def _kind(matrix: Tensor, offset: Tensor) -> str:
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    if torch.equal(matrix, eye):
        return "translation"
    if bool((offset == 0).all()):
        if torch.equal(matrix.abs(), eye):
            return "sign flip"
        if bool(((matrix == 0) | (matrix == 1)).all()) and torch.equal(matrix @ matrix.T, eye):
            return "permutation"
        if torch.allclose(matrix @ matrix.T, eye, atol=1e-6) and float(torch.linalg.det(matrix)) > 0:
            return "rotation"
    return "other"


def _text(names: tuple[str, ...], matrix: Tensor, offset: Tensor) -> str:
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    moved = [i for i in range(len(matrix)) if not torch.equal(matrix[i], eye[i]) or float(offset[i]) != 0]
    if len(moved) == 2 and _kind(matrix, offset) == "permutation":
        return f"{names[moved[0]]} <-> {names[moved[1]]}"
    return ", ".join(f"{names[i]} -> {_expression(names, matrix[i], float(offset[i]))}" for i in moved)


def _expression(names: tuple[str, ...], row: Tensor, constant: float) -> str:
    terms = [(weight, name) for weight, name in zip(row.tolist(), names, strict=True) if weight != 0]
    if constant != 0 or not terms:
        terms.append((constant, ""))
    return signed_sum((weight, _term(abs(weight), name)) for weight, name in terms)


def _term(size: float, name: str) -> str:
    if not name:
        return _number(size)
    return name if size == 1 else f"{_number(size)}*{name}"


def _number(value: float) -> str:
    """A number as a reader writes it: a small multiple of pi if it is one, else six digits."""
    turns = Fraction(value / math.pi).limit_denominator(12)
    if turns and abs(value / math.pi - turns) < 1e-10 * max(1.0, value) and turns.numerator <= 64:
        top = "pi" if turns.numerator == 1 else f"{turns.numerator}*pi"
        return top if turns.denominator == 1 else f"{top}/{turns.denominator}"
    return f"{value:.6g}"

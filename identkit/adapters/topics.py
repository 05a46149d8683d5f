"""Topics as fitted: which of a document's shares of them can its words tell?

A document has shares ``θ ~ Dirichlet(α)``, and each of its words is drawn from ``p = Bᵀθ``, where row k of B is topic
k's law over the vocabulary. Any number of words, one or many, has a law that determines p and is determined by it; so
two documents are alike in law exactly where ``Bᵀ(θ − θ′) = 0``. Rows of B sum to one, hence so do the entries of such
a difference to zero, and the fibre through an interior θ is ``θ + null(Bᵀ)`` within the simplex: θ_k is GLOBAL where no
null vector moves it and PARTIAL where one does, on all of the simplex's interior. All of this is linear algebra over
the rationals that the fitted floats are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import fmpq, fmpq_mat, nmod_mat
from jaxtyping import Float

from identkit.numeric.affine import null_space_of
from identkit.numeric.wording import signed_sum
from identkit.verdict import Certificate, Invariance, Level, Verdict, overall

_PRIMES = ((1 << 61) - 1, (1 << 31) - 1)
"""The search reduces modulo the first; the certificate is checked modulo the second too."""

Vector = tuple[fmpq, ...]


@dataclass(frozen=True, eq=False, init=False)
class TopicModel:
    """Latent Dirichlet allocation with its topics given: the latents are one document's shares of them.

    Source: Blei, Ng & Jordan 2003.

    Args:
        weights: (K, V), K ≥ 2 topics over V words, not negative; row k is proportional to topic k, as scikit-learn's
            ``components_``. What the fit leaves unsure about the topics is not asked about.
        concentration: α > 0, one number for all topics or (K,).

    Raises:
        TypeError, ValueError: a wrong shape, numbers that are negative or not finite, a topic without words.

    >>> {name: str(level) for name, level in TopicModel([[8, 1, 1], [1, 8, 1], [1, 8, 1]], 0.5).verdict().latents.items()}
    {'theta[1]': 'GLOBAL', 'theta[2]': 'PARTIAL', 'theta[3]': 'PARTIAL'}
    """

    weights: Float[np.ndarray, "k v"]
    concentration: Float[np.ndarray, " k"]

    def __init__(self, weights: Any, concentration: Any) -> None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim != 2 or len(weights) < 2:
            raise ValueError(
                f"weights should have shape (topics, words) with two topics or more, got {weights.shape}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any(1).all()):
            raise ValueError("weights should be finite and not negative, with a positive number in every row")
        concentration = np.broadcast_to(np.asarray(concentration, dtype=np.float64), len(weights))
        if not (np.isfinite(concentration).all() and (concentration > 0).all()):
            raise ValueError(f"concentration should be positive, got {concentration.min()}")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "concentration", concentration)

    @property
    def latent_names(self) -> tuple[str, ...]:
        """``theta[1], …, theta[K]``, which sum to one."""
        return tuple(f"theta[{k}]" for k in range(1, len(self.weights) + 1))

    def verdict(self) -> Verdict:
        """Which shares the law of a document's words determines, however many words it has."""
        started = time.perf_counter()
        directions = _left_null_space(self.weights)
        proof = SharesTold(model=self, directions=tuple(directions))
        return Verdict(
            model="latent Dirichlet allocation",
            about="latents",
            scope="at",
            level=overall(proof.levels.values()),
            latents=proof.levels,
            invariances=tuple(_exchanges(self.latent_names, direction) for direction in directions),
            certificate=proof,
            seconds=time.perf_counter() - started,
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SharesTold(Certificate):
    """The whole space of changes of θ that no word notices, and thereby every share's level."""

    model: TopicModel
    directions: tuple[Vector, ...]
    """A basis of ``{v: Bᵀv = 0}``, exact."""

    @property
    def levels(self) -> Mapping[str, Level]:
        """PARTIAL for the shares that a direction moves, CONSTANT where every change goes unnoticed, GLOBAL else."""
        names = self.model.latent_names
        if len(self.directions) == len(names) - 1:
            return dict.fromkeys(names, Level.CONSTANT)
        moved = [any(direction[k] != 0 for direction in self.directions) for k in range(len(names))]
        return {n: Level.PARTIAL if m else Level.GLOBAL for n, m in zip(names, moved, strict=True)}

    @property
    def kind(self) -> str:
        """How it is proved."""
        return "rank of the topics"

    @property
    def statement(self) -> str:
        """What is proved."""
        topics, words = self.model.weights.shape
        return f"the {topics} topics over {words} words have rank {topics - len(self.directions)}, exactly."

    def verify(self) -> bool:
        """Whether every direction annihilates the topics, and these have at least the rank that is left."""
        topics = self.model.weights
        rank = len(topics) - len(self.directions)
        sums = [sum(map(_rational, row), fmpq(0)) for row in topics.tolist()]
        unscaled = [[value / total for value, total in zip(d, sums, strict=True)] for d in self.directions]
        null = all(
            any(vector) and _combined(vector, column) == 0
            for vector in unscaled
            for column in topics.T.tolist()
        )
        flat = [value for vector in unscaled for value in vector]
        spanned = not flat or fmpq_mat(len(unscaled), len(topics), flat).rank() == len(unscaled)
        return null and spanned and any(_modular(topics, prime).rank() >= rank for prime in _PRIMES)


def _left_null_space(weights: Float[np.ndarray, "k v"]) -> list[Vector]:
    """A basis of the v with ``Σ_k v_k B_k = 0``, B the weights with their rows divided by their sums.

    Modulo a prime the rank is at most the true one, so a full rank there ends it. Else the words that are pivots there
    give candidates over the rationals, and every other word is asked whether it agrees; what disagrees joins them.
    """
    topics = len(weights)
    reduced, rank = _modular(weights, _PRIMES[0]).rref()
    if rank == topics:
        return []
    words = [next(v for v in range(weights.shape[1]) if int(reduced[i, v])) for i in range(rank)]
    while True:
        seen = {tuple(map(_rational, column)) for column in weights[:, words].T.tolist()}
        basis = null_space_of(seen, topics)
        sharper = next(
            (v for v, column in enumerate(weights.T.tolist()) for b in basis if _combined(b, column) != 0),
            None,
        )
        if sharper is None:
            break
        words.append(sharper)
    sums = [sum(map(_rational, row), fmpq(0)) for row in weights.tolist()]
    return [tuple(value * total for value, total in zip(vector, sums, strict=True)) for vector in basis]


def _combined(vector: Vector | list[fmpq], column: list[float]) -> fmpq:
    return sum((a * _rational(b) for a, b in zip(vector, column, strict=True)), fmpq(0))


def _modular(weights: Float[np.ndarray, "k v"], prime: int) -> nmod_mat:
    """The weights with every word's column scaled to whole numbers, which leaves the null space on the left."""
    columns = []
    for column in weights.T.tolist():
        ratios = [value.as_integer_ratio() for value in column]
        common = max(denominator for _, denominator in ratios)  # all are powers of two
        columns.append([numerator * (common // denominator) % prime for numerator, denominator in ratios])
    return nmod_mat(
        weights.shape[0], weights.shape[1], [n for row in zip(*columns, strict=True) for n in row], prime
    )


def _rational(value: float) -> fmpq:
    return fmpq(*value.as_integer_ratio())


def _exchanges(names: tuple[str, ...], direction: Vector) -> Invariance:
    """What may be taken from some topics and given to others; scaled to a largest share of one."""
    largest = max(abs(value) for value in direction)
    terms = []
    for name, value in zip(names, direction, strict=True):
        if value != 0:
            size = abs(float(value / largest))
            terms.append((float(value), f"{'' if size == 1 else f'{size:.6g}*'}d/d{name}"))
    return Invariance(
        kind="translation",
        about=tuple(name for name, value in zip(names, direction, strict=True) if value != 0),
        generator=signed_sum(terms),
    )

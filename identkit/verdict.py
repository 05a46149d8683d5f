"""What every check returns: a level per unknown, the invariances to blame, and a certificate that re-checks itself.

This module needs the standard library only. The definition it reports (theory/T1, Wang, Blei & Cunningham
2021, Definition 1): a latent z is *non-identifiable* at (θ̂, x) when ``p(x | z; θ̂)`` is the same for almost
every z under the prior; and then, only then, its posterior is its prior.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Level(enum.Enum):
    """How much of an unknown the likelihood sees: the fibre of the law through it (theory/T2).

    ``CONSTANT < PARTIAL < LOCAL < GLOBAL`` for a law, ``CONSTANT < PARTIAL < INFORMED`` on given data.
    ``UNKNOWN`` is no rung: comparing it with anything raises, and so does comparing INFORMED with LOCAL or GLOBAL.

    >>> Level.CONSTANT < Level.PARTIAL < Level.GLOBAL
    True
    >>> Level.UNKNOWN < Level.GLOBAL
    Traceback (most recent call last):
    ...
    TypeError: UNKNOWN is not on the ladder, so it cannot be compared with GLOBAL; test `level is Level.UNKNOWN`
    """

    CONSTANT = "CONSTANT"
    PARTIAL = "PARTIAL"
    LOCAL = "LOCAL"
    GLOBAL = "GLOBAL"
    INFORMED = "INFORMED"
    UNKNOWN = "UNKNOWN"

    def __str__(self) -> str:
        return self.value

    def _rung(self, other: object) -> tuple[int, int]:
        if not isinstance(other, Level):
            raise TypeError(f"a Level compares with another Level, got {other!r}")
        for one, two in ((self, other), (other, self)):
            if one is Level.UNKNOWN:
                raise TypeError(
                    f"UNKNOWN is not on the ladder, so it cannot be compared with {two}; test `level is Level.UNKNOWN`"
                )
            if one is Level.INFORMED and two in (Level.LOCAL, Level.GLOBAL):
                raise TypeError(
                    f"INFORMED speaks of one data set and {two} of the law; they cannot be compared"
                )
        return _RUNGS[self], _RUNGS[other]

    def __lt__(self, other: object) -> bool:
        mine, theirs = self._rung(other)
        return mine < theirs

    def __le__(self, other: object) -> bool:
        mine, theirs = self._rung(other)
        return mine <= theirs

    def __gt__(self, other: object) -> bool:
        mine, theirs = self._rung(other)
        return mine > theirs

    def __ge__(self, other: object) -> bool:
        mine, theirs = self._rung(other)
        return mine >= theirs


_RUNGS = {Level.CONSTANT: 0, Level.PARTIAL: 1, Level.LOCAL: 2, Level.GLOBAL: 3, Level.INFORMED: 2}


def overall(levels: Iterable[Level]) -> Level:
    """The level of several unknowns together, by the rule of the house (architecture.md).

    CONSTANT if all are; else PARTIAL if any is, or if a CONSTANT stands beside something informed; else
    UNKNOWN if any is; else the lowest.

    >>> overall([Level.CONSTANT, Level.GLOBAL])
    <Level.PARTIAL: 'PARTIAL'>
    """
    found = set(levels)
    if not found:
        raise ValueError("levels should name at least one unknown, got none")
    if found == {Level.CONSTANT}:
        return Level.CONSTANT
    informed = found & {Level.LOCAL, Level.GLOBAL, Level.INFORMED}
    if Level.PARTIAL in found or (Level.CONSTANT in found and informed):
        return Level.PARTIAL
    return Level.UNKNOWN if Level.UNKNOWN in found else min(found)


@dataclass(frozen=True, kw_only=True)
class Invariance:
    """A transformation of the unknowns that leaves the likelihood as it is.

    A continuous one is given by its `generator`, a vector field such as ``w[2]*d/dz[1] - w[1]*d/dz[2]``; a
    discrete one by its `map`, such as ``z -> -z``. `about` names the unknowns that it moves.
    """

    kind: str
    """translation, scaling, rotation, shear, permutation, sign flip, merged states, collision or other"""
    about: tuple[str, ...]
    generator: str | None = None
    map: str | None = None
    preserves_prior: bool | None = None
    """whether the prior is invariant too; None where that was not settled"""

    def __post_init__(self) -> None:
        if (self.generator is None) == (self.map is None):
            raise ValueError("an Invariance has either a generator or a map")

    def to_dict(self) -> dict[str, Any]:
        """The invariance as the JSON of architecture.md."""
        how = {"generator": self.generator} if self.generator is not None else {"map": self.map}
        return {"kind": self.kind, **how, "preserves_prior": self.preserves_prior}


class Certificate(ABC):
    """Evidence for a verdict. `verify` re-checks it from scratch, without the code that found it."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What sort of proof this is, in a word or two."""

    @property
    @abstractmethod
    def statement(self) -> str:
        """What is proved, in one sentence."""

    @abstractmethod
    def verify(self) -> bool:
        """Whether the proof holds when each of its steps is checked again."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict:
    """What a check found. Its fields are the keys of the JSON (architecture.md); a ladder is not a boolean.

    Attributes:
        model: the model's name.
        about: what was asked about: "latents", "parameters" or "joint".
        scope: "generic" (almost every value of the free parameters), "at" (at given values) or "data".
        level: the overall `Level`.
        latents, parameters: each name (one-based, as in the text) and its own level.
        at_least: names whose level is proved only as a lower bound.
        prior_identified: unknowns freed only by symmetries that the prior breaks.
        invariances: what leaves the likelihood unchanged.
        identifiable: functions of the unknowns that the data do determine.
        assumptions: conditions under which all this holds; and for UNKNOWN, what was tried.
        certificate: the proof, or None where nothing was proved.
        method: "symbolic" or "numeric".
        seconds: time taken.
    """

    model: str
    about: str
    scope: str
    level: Level
    latents: Mapping[str, Level] = field(default_factory=dict)
    parameters: Mapping[str, Level] = field(default_factory=dict)
    at_least: tuple[str, ...] = ()
    prior_identified: tuple[str, ...] = ()
    invariances: tuple[Invariance, ...] = ()
    identifiable: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    remedies: tuple[Mapping[str, str], ...] = ()
    certificate: Certificate | None = None
    method: str = "symbolic"
    seconds: float = 0.0

    def __bool__(self) -> bool:
        raise TypeError(
            "a Verdict is a ladder, not a boolean: compare verdict.level, e.g. `verdict.level is Level.GLOBAL`"
        )

    def __repr__(self) -> str:
        levels = ", ".join(f"{name}: {level}" for name, level in {**self.latents, **self.parameters}.items())
        return f"Verdict({self.level}; {levels})"

    def to_dict(self) -> dict[str, Any]:
        """The one JSON object of `identkit check --json`; the certificate is verified here, not quoted."""
        return {
            "model": self.model,
            "about": self.about,
            "scope": self.scope,
            "level": self.level.value,
            "latents": {name: level.value for name, level in self.latents.items()},
            "parameters": {name: level.value for name, level in self.parameters.items()},
            "at_least": list(self.at_least),
            "prior_identified": list(self.prior_identified),
            "invariances": [invariance.to_dict() for invariance in self.invariances],
            "identifiable": list(self.identifiable),
            "assumptions": list(self.assumptions),
            "remedies": [dict(remedy) for remedy in self.remedies],
            "certificate": None
            if self.certificate is None
            else {"kind": self.certificate.kind, "verified": self.certificate.verify()},
            "method": self.method,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        return "\n".join([self._headline(), *self._per_unknown(), *self._reasons()])

    def _headline(self) -> str:
        where = {
            "generic": "for almost every value of the free parameters",
            "at": "at the given values",
            "data": "on the given data",
        }[self.scope]
        meaning = (
            _MEANING[self.level, self.scope == "data"]
            if self.about == "latents"
            else _OF_PARAMETERS[self.level]
        )
        return f"{self.level} ({self.about}, {where}): {meaning}"

    def _per_unknown(self) -> list[str]:
        unknowns = {**self.latents, **self.parameters}
        width = max((len(name) for name in unknowns), default=0)
        floor = {name: " at least" if name in self.at_least else "" for name in unknowns}
        return [
            f"  {name:<{width}}  {level.value}{floor[name]} - {_ONE[level, self.scope == 'data']}"
            for name, level in unknowns.items()
        ]

    def _reasons(self) -> list[str]:
        lines = [f"Why: {invariance_in_words(invariance)}" for invariance in self.invariances]
        if self.identifiable:
            lines.append(f"The data do determine: {', '.join(self.identifiable)}.")
        lines += [f"Remedy: with {r['constraint']} it becomes {r['level']}." for r in self.remedies]
        lines += [f"Assuming: {assumption}" for assumption in self.assumptions]
        if self.certificate is not None:
            lines.append(f"Proof ({self.certificate.kind}): {self.certificate.statement}")
        return lines


def invariance_in_words(invariance: Invariance) -> str:
    """One sentence that says what may be changed without the likelihood noticing."""
    moved = ", ".join(invariance.about)
    prior = {
        True: " The prior does not notice it either.",
        False: " The prior does, but the data do not.",
        None: "",
    }[invariance.preserves_prior]
    if invariance.generator is not None:
        verb = _VERBS.get(invariance.kind, "moving")
        together = " together" if len(invariance.about) > 1 else ""
        return f"{verb} ({moved}){together}, along {invariance.generator}, changes nothing in the likelihood.{prior}"
    change = {
        "permutation": f"exchanging {invariance.map}",
        "sign flip": f"changing the sign of {moved}{' together' * (len(invariance.about) > 1)}",
    }.get(invariance.kind, f"{invariance.map} ({invariance.kind})")
    return f"{change} changes nothing in the likelihood.{prior}"


_VERBS = {"translation": "shifting", "scaling": "rescaling", "rotation": "rotating", "shear": "shearing"}
_MEANING = {
    (
        Level.CONSTANT,
        False,
    ): "the likelihood does not change with them at all, so the posterior is the prior, whatever the data.",
    (
        Level.PARTIAL,
        False,
    ): "some of what is asked about is invisible to the data: there the posterior repeats the prior.",
    (
        Level.LOCAL,
        False,
    ): "the data leave finitely or countably many equivalent values (mirror modes), no continuum.",
    (
        Level.GLOBAL,
        False,
    ): "different values give different laws of the data: there are data that tell any two of them apart.",
    (Level.UNKNOWN, False): "not settled; what was tried is listed below. This is no claim either way.",
    (
        Level.CONSTANT,
        True,
    ): "on these data the likelihood is the same for every value, so the posterior is exactly the prior.",
    (
        Level.PARTIAL,
        True,
    ): "on these data the likelihood ignores a coordinate or a direction: there the posterior repeats the prior.",
    (Level.INFORMED, True): "these data change the beliefs about every coordinate and direction.",
    (
        Level.UNKNOWN,
        True,
    ): "not settled on these data; what was tried is listed below. This is no claim either way.",
}
_OF_PARAMETERS = {
    Level.CONSTANT: "the law of the data does not contain them at all.",
    Level.PARTIAL: "a continuum of values gives the same law of the data, however many of these there are.",
    Level.LOCAL: "finitely or countably many values give the same law of the data, no continuum.",
    Level.GLOBAL: "different values give different laws of the data.",
    Level.UNKNOWN: "not settled; what was tried is listed below. This is no claim either way.",
}
_ONE = {
    (Level.CONSTANT, False): "the likelihood ignores it",
    (Level.PARTIAL, False): "a continuum, or merged states, fits equally well",
    (Level.LOCAL, False): "known up to finitely or countably many values",
    (Level.GLOBAL, False): "one value only",
    (Level.UNKNOWN, False): "not settled",
    (Level.CONSTANT, True): "these data ignore it",
    (Level.PARTIAL, True): "these data ignore a direction (or a merging of states) that moves it",
    (Level.INFORMED, True): "these data speak about it",
    (Level.UNKNOWN, True): "not settled",
}

"""What one entry of the zoo holds: a model, a question, the known answer and where it is known from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """A named model with its known answer.

    Attributes:
        name: as `identkit check NAME` takes it; letters, digits and hyphens.
        model: its text, or a builder without arguments of the text, or of what the notation does not express.
        source: paper and theorem, or "by hand: …" with the derivation in a phrase.
        levels: the expected level of every unknown that is asked about.
        level: the expected overall level.
        about: the question; at, data, pooled: as `identkit.check` takes them.
        values: numbers for the parameters that `at` leaves generic, so that posterior and theorem can be run.
        note: what the case teaches, in a sentence.
        deficiency: the dimension of the generic fibre, where the source states it.
        symmetry: the kind of one invariance that has to be shown, as in `Invariance.kind`.
        prior_identified: for about="joint", the unknowns that only the prior holds.
        undecided: unknowns of whose level the checker leaves open what its `reason` says: it answers UNKNOWN, or gives
            a lower bound.
    """

    name: str
    model: str | Callable[[], Any]
    source: str
    levels: Mapping[str, str]
    level: str
    about: str = "latents"
    at: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    pooled: bool = False
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    deficiency: int | None = None
    symmetry: str = ""
    prior_identified: Collection[str] = ()
    undecided: tuple[str, ...] = ()
    reason: str = ""

    def build(self) -> Any:
        """The model itself: parsed text, or what the builder makes; a declared one bears the case's name."""
        from identkit.model.language import parse

        model = self.model() if callable(self.model) else self.model
        return parse(model, name=self.name) if isinstance(model, str) else model

    @property
    def numbers(self) -> dict[str, Any]:
        """A value for every parameter."""
        return {**self.values, **self.at}


def levels(**listed: str) -> dict[str, str]:
    """Each name's level, from names by level.

    >>> levels(PARTIAL="w[1..2]", GLOBAL="s")
    {'w[1]': 'PARTIAL', 'w[2]': 'PARTIAL', 's': 'GLOBAL'}
    """
    return {name: level for level, text in listed.items() for name in names(text)}


def names(text: str) -> tuple[str, ...]:
    """The names in a text; ``W[1..3,2]`` stands for W[1,2], W[2,2], W[3,2].

    >>> names("s W[1..3,2]")
    ('s', 'W[1,2]', 'W[2,2]', 'W[3,2]')
    """
    return tuple(name for part in text.split() for name in _spelled(part))


def _spelled(text: str) -> list[str]:
    stem, _, inside = text.removesuffix("]").partition("[")
    if not inside:
        return [stem]
    spans = []
    for part in inside.split(","):
        first, _, last = part.partition("..")
        spans.append(range(int(first), int(last or first) + 1))
    return [f"{stem}[{','.join(map(str, index))}]" for index in product(*spans)]

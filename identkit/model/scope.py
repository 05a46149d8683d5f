"""What names stand for while a text is read: declared vectors that may still grow, and free parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import sympy
from sympy import Expr, Integer, S, Set, Symbol

from identkit.model.arrays import Array, Value
from identkit.model.expressions import (
    FUNCTIONS,
    Evaluation,
    Node,
    element_name,
    instead,
    shown,
    text_of,
)
from identkit.model.families import FAMILIES
from identkit.model.family import DOMAIN_WORDS, NONNEGATIVE, POSITIVE, POSSIBLE, PROBABILITY
from identkit.model.model import Model
from identkit.model.syntax import suggestion

MAX_ELEMENTS = 2000
MAX_STATES = 1000
MAX_INDEX = 1_000_000
KINDS = ("a single number", "a vector", "a matrix")
_TAKEN = {
    S.Reals: "a real parameter",
    POSITIVE: "a positive parameter",
    NONNEGATIVE: "a parameter of at least 0",
    PROBABILITY: "a parameter in [0, 1]",
    POSSIBLE: "a parameter in (0, 1]",
    S.Naturals0: "a whole-number parameter",
}


@dataclass
class Entry:
    """What a name stands for so far: one number (index ()) or elements by their one-based index.

    `shape` holds the highest index along each axis.
    """

    role: str
    place: Node
    shape: tuple[int, ...] = ()
    elements: dict[tuple[int, ...], Expr] = field(default_factory=dict)

    @property
    def axes(self) -> int:
        """How many indices an element has."""
        return len(self.shape)

    def add(self, elements: Mapping[tuple[int, ...], Expr]) -> None:
        """Let the name stand for these elements too."""
        self.elements.update(elements)
        for index in elements:
            self.shape = tuple(map(max, self.shape, index)) if self.shape else index

    @property
    def complete(self) -> bool:
        """Whether no element is missing."""
        return len(self.elements) == math.prod(self.shape)

    def whole(self) -> Value:
        """The number, vector or matrix."""
        if self.axes == 0:
            return self.elements[()]
        return Array(self.shape, tuple(self.elements[index] for index in indices_of(self.shape)))


class Scope(Evaluation):
    """Evaluates expressions whose names are declared above them, or are parameters for want of a declaration.

    Args:
        text: the text, for errors.
        model: where free parameters are declared.
        lines: where each name is first declared, so that a use before it is told from a free parameter.
        domains: of the free parameters, as far as known; narrowed by each place in which one stands alone.
    """

    def __init__(self, text: str, model: Model, lines: dict[str, int], domains: dict[str, Set]) -> None:
        super().__init__(text)
        self.model, self.lines, self.domains = model, lines, domains
        self.entries: dict[str, Entry] = {}
        self.loops: dict[str, Integer] = {}
        self.supports: dict[Symbol, Set] = {}
        self._elements = 0

    def count(self, added: int, node: Node) -> None:
        """Count unknowns and observations that are about to be declared."""
        self._elements += added
        if self._elements > MAX_ELEMENTS:
            raise self.error(f"a model may have {MAX_ELEMENTS:,} unknowns and observations at most", node)

    def _name(self, node: Node, expected: Set) -> Value:
        name = text_of(node)
        if name in self.loops:
            return self.loops[name]
        entry = self.entries.get(name)
        if entry is None:
            return self._free(name, (), expected, node)
        self._refuse_observation(name, entry, node)
        if entry.role == "free":
            if entry.axes:
                problem = (
                    f"{name} is used as a whole, but not declared; declare it, as in parameter {name}[2]"
                )
                raise self.error(problem, node)
            self._learn(name, expected, node)
        if not entry.complete:
            raise self.error(f"{name} is used as a whole before all its elements are declared", node)
        return entry.whole()

    def _element(self, node: Node, expected: Set) -> Value:
        whole, *places = node.children
        if whole.data != "name":
            return super()._element(node, expected)
        name = text_of(whole)
        entry = self.entries.get(name)
        if entry is not None:
            self._refuse_observation(name, entry, node)
            if entry.axes == 0 and entry.role != "free":
                raise self.error(f"{name} is a single number and has no elements", node)
        if name in self.loops:
            raise self.error(f"{name} is the index of a loop and has no elements", node)
        indices = [self.scalar(place) for place in places]
        index = tuple(int(i) for i in indices if isinstance(i, Integer))
        if (
            entry is not None
            and entry.role != "free"
            and len(index) == len(indices)
            and index in entry.elements
        ):
            return entry.elements[index]
        if entry is not None and entry.role != "free" and (len(indices) != entry.axes or entry.complete):
            return self._picked(self.value(whole), indices, places)  # type: ignore[arg-type]
        return self._one_of(name, indices, places, node, expected)

    def _one_of(self, name: str, indices: list[Expr], places: list[Node], node: Node, expected: Set) -> Value:
        # An element of what is not there as a whole: free parameters, or a matrix still being filled.
        for axis, index in enumerate(indices):
            highest = int(index) if isinstance(index, Integer) else self._states(index, places[axis])
            if not 1 <= highest <= MAX_INDEX:
                problem = f"index {shown(index)} is out of range: indices run from 1 to {MAX_INDEX:,}"
                raise self.error(problem, places[axis])
            if not isinstance(index, Integer):
                picks = [instead(indices, axis, i) for i in range(1, highest + 1)]
                return self._chosen(
                    index, [self._one_of(name, pick, places, node, expected) for pick in picks]
                )
        index = tuple(int(i) for i in indices)
        entry = self.entries.get(name)
        if entry is None or (entry.role == "free" and index not in entry.elements):
            return self._free(name, index, expected, node)
        if index not in entry.elements:
            raise self.error(f"{element_name(name, index)} is used before it is declared", node)
        if entry.role == "free":
            self._learn(element_name(name, index), expected, node)
        return entry.elements[index]

    def _free(self, name: str, index: tuple[int, ...], expected: Set, node: Node) -> Expr:
        if name in self.lines:
            raise self.error(
                f"{name} is used before line {self.lines[name]} declares it; move that statement up", node
            )
        if name in FAMILIES or name in FUNCTIONS:
            kind = "function" if name in FUNCTIONS else "family"
            raise self.error(f"{name} is a {kind} and takes arguments, as in {name}(…)", node)
        if len(index) > 2:
            raise self.error(f"{name} may have two indices at most, got {len(index)}", node)
        entry = self.entries.get(name)
        if entry is not None and entry.axes != len(index):
            problem = f"{name} is used as {KINDS[len(index)]} here and as {KINDS[entry.axes]} above"
            raise self.error(problem, node)
        self.count(1, node)
        full = element_name(name, index)
        domain = self._learn(full, expected, node)
        symbol = self.model.parameter(full, domain=domain)
        self.entries.setdefault(name, Entry("free", node)).add({index: symbol})
        meant = suggestion(name, [known for known, other in self.entries.items() if other.role != "free"])
        hint = f" (did you mean {meant}?)" if meant else ""
        self.model.notes.append(f"{full} is taken to be {_taken(domain)}{hint}")
        return symbol

    def _learn(self, name: str, expected: Set, node: Node) -> Set:
        known = self.domains.get(name, S.Reals)
        domain = known if expected is S.Reals or known.is_subset(expected) else known.intersect(expected)
        if domain is S.EmptySet:
            problem = f"{name} should be {DOMAIN_WORDS[expected]} here, but elsewhere it is {_taken(known)}"
            raise self.error(problem, node)
        if isinstance(domain, sympy.FiniteSet):
            domain = sympy.Range(domain.inf, domain.sup + 1)
        if domain is not S.Reals:
            self.domains[name] = domain
        return domain

    def _refuse_observation(self, name: str, entry: Entry, node: Node) -> None:
        if entry.role == "observation":
            problem = f"{name} is an observation; expressions may use latents and parameters only"
            raise self.error(problem, node)

    def _states(self, index: Expr, node: Node) -> int:
        symbols = sorted(index.free_symbols, key=str)
        if not symbols:
            raise self.error(f"an index should be a whole number, got {shown(index)}", node)
        supports = [self.supports.get(s, self.model.domains.get(s, S.Reals)) for s in symbols]  # type: ignore[arg-type]
        for symbol, support in zip(symbols, supports, strict=True):
            if not isinstance(support, sympy.FiniteSet | sympy.Range) or not support.is_finite_set:
                problem = (
                    f"an index should be a whole number or a discrete latent in 1..K; {symbol} is neither"
                )
                raise self.error(problem, node)
        if math.prod([_length(support) for support in supports]) > MAX_STATES:
            raise self.error(
                f"an index may take {MAX_STATES:,} values at most, {shown(index)} takes more", node
            )
        highest = 0
        for values in itertools.product(*supports):  # type: ignore[arg-type]
            self.spend(node, 20)
            value = index.xreplace(dict(zip(symbols, values, strict=True)))
            if not isinstance(value, Integer) or not 1 <= value <= MAX_STATES:
                problem = f"an index should be in 1..{MAX_STATES:,}, but {shown(index)} can be {shown(value)}"
                raise self.error(problem, node)
            highest = max(highest, int(value))
        return highest


def indices_of(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The one-based indices of an array, last index fastest."""
    return list(itertools.product(*[range(1, length + 1) for length in shape]))


def _length(support: Set) -> int:
    # len() of a SymPy Range fails beyond the machine's word.
    return len(support) if isinstance(support, sympy.FiniteSet) else int(support.sup - support.inf) + 1


def _taken(domain: Set) -> str:
    return _TAKEN.get(domain, f"a parameter in {domain}")

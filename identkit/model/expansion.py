"""From a syntax tree to a `Model`: loops unrolled, definitions substituted, each element a symbol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import sympy
from lark import Tree
from sympy import Expr, Integer, Interval, S, Set

from identkit.model.arrays import Array, Value
from identkit.model.expressions import FUNCTIONS, Node, element_name, shown, text_of
from identkit.model.families import (
    DOMAIN_WORDS,
    FAMILIES,
    PROBABILITY,
    Categorical,
    Dirichlet,
    Family,
    Mixture,
    Multinomial,
    MvNormal,
)
from identkit.model.model import Model
from identkit.model.noise_free import Exactly
from identkit.model.scope import KINDS, Entry, Scope, indices_of
from identkit.model.syntax import LanguageError, suggestion, tree

Index = tuple[int, ...]

_HIGHEST = 10**9
_SUM_ERROR = 1e-9
_NAMED = {S.NegativeInfinity: S.Integers, S.Zero: S.Naturals0, S.One: S.Naturals}


def expanded(text: str, name: str) -> Model:
    """The model of a text.

    A name without a declaration takes the narrowest domain of the places in which it stands alone, and such a
    place may come after its first use; so the text is read again, knowing more, until nothing new is learned.

    Raises:
        LanguageError: for anything the notation does not allow.
    """
    parsed = tree(text)
    if not parsed.children:
        raise LanguageError(
            "expected a statement, such as z ~ Normal(0, 1), but the text has none", text, 1, 1
        )
    domains: dict[str, Set] = {}
    while True:
        known = dict(domains)
        model = _Expansion(text, Model(name), _declarations(parsed), domains).run(parsed)
        if domains == known:
            return model


class _Expansion(Scope):
    """Executes statement by statement; `_do_loop` and the others are named after the rules of the grammar."""

    def run(self, parsed: Node) -> Model:
        for statement in parsed.children:
            self._execute(statement)
        for name, entry in self.entries.items():
            if entry.role == "free":
                continue
            if not entry.complete:
                missing = next(index for index in indices_of(entry.shape) if index not in entry.elements)
                raise self.error(f"{name} is left without {element_name(name, missing)}", entry.place)
            if entry.role == "definition":
                value = entry.whole()
                self.model.define(name, value.matrix() if isinstance(value, Array) else value)
        return self.model

    def _execute(self, statement: Node) -> None:
        getattr(self, f"_do_{statement.data}")(statement)

    def _do_loop(self, node: Node) -> None:
        variable, low, high, *body = node.children
        name = str(variable)
        if not body:
            raise self.error("this loop has no body; write it after the : or on indented lines below", node)
        if name in self.loops or name in self.lines or name in self.entries:
            problem = (
                f"{name} stands for something else already; choose another name for the index of the loop"
            )
            raise self.error(problem, variable)
        first, last = [self._whole_number(bound, "a bound of a loop") for bound in (low, high)]
        self.spend(node, 10 * max(0, last - first + 1) * len(body))
        for index in range(first, last + 1):
            self.loops[name] = Integer(index)
            for statement in body:
                self._execute(statement)
        self.loops.pop(name, None)

    def _do_sample(self, node: Node) -> None:
        target, call = node.children[-2:]
        observed = len(node.children) == 3
        name, index, grows = self._target(target)
        family = self._family(call, () if grows else index)
        self._draw(target, name, index, grows, "observation" if observed else "latent", family)

    def _draw(self, target: Node, name: str, index: Index, grows: bool, role: str, family: Family) -> None:
        size = sum(self.arithmetic.measure(expression).size for _, expression, _ in family.expressions())
        added = math.prod(index) if index and not grows else family.dimension
        self.count(added, target)
        self.spend(target, added * (2 + size / 20))
        declare = self.model.observe if role == "observation" else self.model.latent
        symbols = self._declared(target, name, index, grows, role, declare, family.dimension, family=family)
        self.supports.update(dict.fromkeys(symbols, family.support))  # type: ignore[arg-type]

    def _do_parameter(self, node: Node) -> None:
        self._declaration(node, "parameter", self.model.parameter)

    def _do_known(self, node: Node) -> None:
        self._declaration(node, "known number", self.model.known)

    def _declaration(self, node: Node, role: str, declare: Callable[..., Any]) -> None:
        target, *rest = node.children
        name, index, grows = self._target(target)
        domain = self._domain(rest[0]) if rest else S.Reals
        self.count(1 if grows else math.prod(index), target)
        self._declared(target, name, index, grows, role, declare, 1, domain=domain)

    def _do_equation(self, node: Node) -> None:
        left, right = node.children
        self._promise(node, left, right, "= 0")

    def _do_inequality(self, node: Node) -> None:
        left, sign, right = node.children
        if len(sign) > 1:
            raise self.error(f"a constraint is written with =, > or <, got {sign}", sign)
        self._promise(node, *((left, right) if sign == ">" else (right, left)), "> 0")

    def _promise(self, node: Node, larger: Node, smaller: Node, relation: str) -> None:
        place = node.children[0]
        one, other = self.value(larger), self.value(smaller)
        try:
            gap = one if other == 0 else self._each(lambda a, b: self.arithmetic.add([a, -b]), one, other)
        except ValueError as error:
            raise self.error(str(error), place) from None
        self._state(place, gap, lambda entry: self.model.constraint(entry, relation))

    def _do_summary(self, node: Node) -> None:
        (expression,) = node.children
        self._state(expression, self.value(expression), self.model.summary)

    def _state(self, node: Node, value: Value, state: Callable[[Expr], None]) -> None:
        # One statement for each element; what it costs is asking SymPy for signs.
        entries = value.entries if isinstance(value, Array) else [value]
        self.spend(node, sum(10 + 5 * self.arithmetic.measure(entry).size for entry in entries))
        for entry in entries:
            try:
                state(entry)
            except ValueError as error:
                raise self.error(str(error), node) from None

    def _do_definition(self, node: Node) -> None:
        *observed, target, expression = node.children
        name, index, grows = self._target(target)
        value = self.value(expression)
        if observed:
            self._observe_exactly(target, name, index, grows, value, expression)
            return
        entry = self._entry(target, name, index, "definition", 1)
        if not isinstance(value, Array):
            entry.add({index: value})
        elif index:
            raise self.error(f"an element should be a single number, but this has {value.words}", expression)
        else:
            entry.add(dict(zip(indices_of(value.shape), value.entries, strict=True)))

    def _observe_exactly(
        self, target: Node, name: str, index: Index, grows: bool, value: Value, expression: Node
    ) -> None:
        if isinstance(value, Array) and grows:
            raise self.error(f"an element should be a single number, but this has {value.words}", expression)
        if isinstance(value, Array) and index not in ((), value.shape):
            wanted = " × ".join(map(str, index))
            raise self.error(f"this has {value.words}, but there are {wanted}", expression)
        shape = value.shape if isinstance(value, Array) else index
        family = Exactly(value.matrix() if isinstance(value, Array) else value)
        self._draw(target, name, shape, grows, "observation", family)

    # Targets

    def _target(self, node: Node) -> tuple[str, Index, bool]:
        # The name, its indices, and whether these are one element of something that grows.
        token, *places = node.children
        name = str(token)
        if name in self.loops:
            raise self.error(f"{name} is the index of a loop here", token)
        if len(places) > 2:
            raise self.error(f"{name} may have two indices at most, got {len(places)}", node)
        index = tuple(self._whole_number(place, f"an index of {name}") for place in places)
        for position, place in zip(index, places, strict=True):
            if position < 1:
                raise self.error(f"indices start at 1, got {position}", place)
        return name, index, bool(index) and (name in self.entries or bool(self.loops))

    def _declared(
        self,
        node: Node,
        name: str,
        index: Index,
        grows: bool,
        role: str,
        declare: Callable[..., Any],
        dimension: int,
        **what: Any,
    ) -> list[Expr]:
        entry = self._entry(node, name, index if grows else (), role, dimension)
        try:
            value = (
                declare(element_name(name, index), **what)
                if grows
                else declare(name, shape=index or None, **what)
            )
        except ValueError as error:
            raise self.error(str(error), node) from None
        if not isinstance(value, sympy.MatrixBase):
            entry.add({index: value})
            return [value]
        if grows:
            places = [(*index, column) for column in range(1, dimension + 1)]
        else:
            places = indices_of(index or (dimension,))
        entry.add(dict(zip(places, value, strict=True)))
        return list(value)

    def _entry(self, node: Node, name: str, index: Index, role: str, dimension: int) -> Entry:
        # The entry that a statement is about: a new one, or one to which `index` is the next element.
        last = () if dimension == 1 else (1,)
        entry = self.entries.get(name)
        if entry is None:
            entry = self.entries[name] = Entry(role, node)
        elif not index or entry.role != role:
            what = (
                f"{'an' if entry.role == 'observation' else 'a'} {entry.role} on line {entry.place.meta.line}"
            )
            raise self.error(f"{name} is declared already, as {what}", node)
        elif entry.axes != len(index + last):
            what = f"{KINDS[entry.axes]} on line {entry.place.meta.line}"
            raise self.error(f"{name} is declared already, as {what}", node)
        if index and index + last in entry.elements:
            raise self.error(f"{element_name(name, index)} is declared already", node)
        for axis, position in enumerate(index):
            before = (*index[:axis], position - 1, *index[axis + 1 :])
            if position > 1 and before + last not in entry.elements:
                problem = f"elements are added in order, but {name} has no {element_name(name, before)} yet"
                raise self.error(problem, node)
        return entry

    def _whole_number(self, node: Node, what: str) -> int:
        value = self.scalar(node)
        if not isinstance(value, Integer) or abs(value) > _HIGHEST:
            raise self.error(
                f"{what} should be a whole number of at most {_HIGHEST:,}, got {shown(value)}", node
            )
        return int(value)

    # Domains

    def _domain(self, node: Node) -> Set:
        values = [self._bound(child) for child in node.children if isinstance(child, Tree)]
        if node.data == "comparison":
            sign, (value,) = str(node.children[0]), values
            if value.is_infinite:
                raise self.error("a bound after > or < should be finite", node)
            if sign[0] == ">":
                return Interval(value, S.Infinity, left_open=sign == ">")
            return Interval(S.NegativeInfinity, value, right_open=sign == "<")
        low, high = values
        if low > high or (low == high and node.data == "interval"):
            problem = f"the lower bound should be below the upper one, got {shown(low)} and {shown(high)}"
            raise self.error(problem, node)
        if node.data == "interval":
            return Interval(low, high, left_open=node.children[1] == "(", right_open=node.children[-1] == ")")
        if low in _NAMED and high is S.Infinity:
            return _NAMED[low]
        if not low.is_Integer or not (high.is_Integer or high is S.Infinity):
            raise self.error(
                f"the bounds of .. should be whole numbers, got {shown(low)} and {shown(high)}", node
            )
        return sympy.Range(low, high + 1)

    def _bound(self, node: Node) -> Expr:
        # Only here does inf mean infinity; elsewhere it is a name like any other.
        if node.data == "sign" and node.children[0] == "-" and _is_infinity(node.children[1]):
            return S.NegativeInfinity
        if _is_infinity(node) and "inf" not in self.entries:
            return S.Infinity
        value = self.scalar(node)
        if not value.is_number:
            raise self.error(f"a bound should be a constant, got {shown(value)}", node)
        return value

    # Families

    def _family(self, node: Node, shape: Index) -> Family:
        token, *arguments = node.children
        if token not in FAMILIES:
            raise self.error(_unknown_family(str(token)), token)
        family = FAMILIES[str(token)]
        if family is Mixture:
            values = self._mixture(node, arguments, shape)
        elif family is Categorical:
            values = [
                self._argument(argument, PROBABILITY, "Categorical's p", None) for argument in arguments
            ]
            self._refuse_sum(values, node)
        elif family is Dirichlet or family is Multinomial:
            values = self._several(node, family, arguments)
        else:
            if len(arguments) != len(family.names):
                wanted = (
                    f"{len(family.names)} argument{'s' * (len(family.names) > 1)} ({', '.join(family.names)})"
                )
                raise self.error(f"{token} takes {wanted}, got {len(arguments)}", node)
            fits = None if family is MvNormal else shape
            roles = zip(arguments, family.domains, family.names, strict=True)
            values = [self._argument(a, domain, f"{token}'s {role}", fits) for a, domain, role in roles]
            if family is MvNormal:
                self._refuse_shapes(values, arguments)
        try:
            return family(*[value.matrix() if isinstance(value, Array) else value for value in values])
        except ValueError as error:
            raise self.error(str(error), node) from None

    def _several(self, node: Node, family: type[Family], arguments: list[Node]) -> list[Value]:
        # One argument for each coordinate, or one list of them; a Multinomial's n stands before them.
        *alone, last = zip(family.names, family.domains, strict=True)
        roles = [*alone, *[last] * max(0, len(arguments) - len(alone))]
        pairs = zip(arguments, roles, strict=False)
        values = [
            self._argument(a, domain, f"{family.__name__}'s {role}", None) for a, (role, domain) in pairs
        ]
        if any(isinstance(value, Array) for value in values[: len(alone)]):
            raise self.error(f"{family.__name__}'s {alone[0][0]} should be a single number", arguments[0])
        each = values[len(alone) :]
        if family is Multinomial:
            self._refuse_sum(each, node)
        elif len(each) > 1 and any(isinstance(value, Array) for value in each):
            raise self.error("expected numbers one by one, or one list of them", node)
        return values

    def _refuse_shapes(self, values: list[Value], arguments: list[Node]) -> None:
        mean, cov = values
        if not isinstance(mean, Array) or len(mean.shape) != 1:
            raise self.error("MvNormal's mean should be a vector, as in [0, 0]", arguments[0])
        size = mean.shape[0]
        if not isinstance(cov, Array) or cov.shape != (size, size):
            problem = f"MvNormal's cov should be a matrix with {size} × {size} elements, as in eye({size})"
            raise self.error(problem, arguments[1])
        # What asking a constant matrix whether it is positive definite costs.
        self.spend(arguments[1], size**3)

    def _mixture(self, node: Node, arguments: list[Node], shape: Index) -> list[Any]:
        example = "as in Mixture([a, 1-a], Normal(0, 1), Normal(m, 1))"
        if len(arguments) < 2:
            raise self.error(f"Mixture takes a list of weights and then the families, {example}", node)
        weights = self._argument(arguments[0], PROBABILITY, "Mixture's weight", None)
        if not isinstance(weights, Array) or len(weights.shape) > 1:
            raise self.error(f"Mixture's first argument should be a list of weights, {example}", arguments[0])
        self._refuse_sum([weights], arguments[0])
        for argument in arguments[1:]:
            if argument.data != "call":
                raise self.error(f"Mixture's components should be families, {example}", argument)
        return [list(weights.entries), *[self._family(argument, shape) for argument in arguments[1:]]]

    def _argument(self, node: Node, domain: Set, what: str, shape: Index | None) -> Value:
        value = self.value(node, domain)
        if isinstance(value, Array) and shape is not None and value.shape != shape:
            sizes = ", ".join(map(str, value.shape))
            wanted = (
                f"there are {' × '.join(map(str, shape))}"
                if shape
                else f"write name[{sizes}] before ~ for as many draws"
            )
            raise self.error(
                f"{what} has {value.words}, but {wanted if shape else f'one draw is meant; {wanted}'}", node
            )
        for expression in value.entries if isinstance(value, Array) else [value]:
            if expression.is_number and domain.contains(expression) == sympy.false:
                raise self.error(f"{what} should be {DOMAIN_WORDS[domain]}, got {shown(expression)}", node)
        return value

    def _refuse_sum(self, values: list[Value], node: Node) -> None:
        if len(values) > 1 and any(isinstance(value, Array) for value in values):
            raise self.error("expected probabilities one by one, or one list of them", node)
        entries = values[0].entries if values and isinstance(values[0], Array) else values
        try:
            total = self.arithmetic.add(entries)  # type: ignore[arg-type]
        except ValueError as error:
            raise self.error(str(error), node) from None
        if entries and total.is_number and abs(float(total) - 1) > _SUM_ERROR:
            raise self.error(f"these probabilities should sum to one, but their sum is {shown(total)}", node)


def _declarations(parsed: Node) -> dict[str, int]:
    # The line of each name's first declaration, in the order of the text.
    lines: dict[str, int] = {}
    for statement in _statements(parsed):
        target = next(child for child in statement.children if isinstance(child, Tree))
        lines.setdefault(text_of(target), target.meta.line)
    return lines


def _statements(node: Node) -> Iterator[Node]:
    for child in node.children:
        if isinstance(child, Tree) and child.data == "loop":
            yield from _statements(child)
        elif isinstance(child, Tree) and child.data in ("sample", "definition", "parameter", "known"):
            yield child


def _is_infinity(node: Node) -> bool:
    return node.data == "name" and text_of(node) == "inf"


def _unknown_family(name: str) -> str:
    if name in FUNCTIONS:
        return f"{name} is a function, not a family; a definition is written name = {name}(…)"
    hint = suggestion(name, FAMILIES)
    return f"unknown family {name}; " + (
        f"did you mean {hint}?" if hint else f"the families are {', '.join(FAMILIES)}"
    )

"""A `Model` as text in the notation, such that parsing the text gives an equal model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
from sympy import Expr, Interval, S, Set, Symbol
from sympy.printing.str import StrPrinter

from identkit.model.elements import element_names
from identkit.model.families import Family, Mixture
from identkit.model.model import Model
from identkit.model.noise_free import Exactly
from identkit.model.statement import Statement

_FUNCTIONS = {"exp", "log", "sin", "cos", "tanh", "sigmoid", "select"}


def written(model: Model) -> str:
    """The model's text, one statement a line.

    Raises:
        ValueError: for what the notation cannot express (a function it lacks, an unusual domain).
    """
    lines = [*_declared(model, "parameter", model.parameters), *_declared(model, "known", model.knowns)]
    lines += _draws(model.latents, "")
    lines += [f"{name} = {_value(expression)}" for name, expression in model.definitions.items()]
    lines += _draws(model.observations, "observe ")
    lines += [
        f"constraint {_expression(stated.expression)} {stated.relation}" for stated in model.constraints
    ]
    lines += [f"summary {_expression(quantity)}" for quantity in model.summaries]
    return "\n".join(lines)


def _declared(model: Model, keyword: str, domains: Mapping[Symbol, Set]) -> list[str]:
    vectors: dict[str, dict[str, Set]] = {}
    for symbol, domain in domains.items():
        vectors.setdefault(_base(symbol.name), {})[symbol.name] = domain
    lines = []
    for name, own in vectors.items():
        scalar = [f"{name}{_domain(own[name], name)}"] if name in own else []
        targets = scalar or _vector(name, own, model, free=keyword == "parameter")
        lines += [f"{keyword} {target}" for target in targets]
    return lines


def _vector(name: str, own: dict[str, Set], model: Model, free: bool) -> list[str]:
    shape = _shape(list(own))
    domains = set(own.values())
    complete = list(own) == element_names(name, shape)
    if len(domains) > 1 and complete:
        return [f"{element}{_domain(domain, element)}" for element, domain in own.items()]
    if not complete and free and _taken_alike(own, model):
        return []
    if len(domains) > 1:
        raise ValueError(f"{name} has no text form: its elements have different domains and some are fixed")
    sizes = ", ".join(map(str, shape))
    return [f"{name}[{sizes}]{_domain(domains.pop(), name)}"]


def _taken_alike(own: dict[str, Set], model: Model) -> bool:
    # A declaration covers a whole vector. Elements that stand alone (the others fixed or never mentioned) are
    # left undeclared where their places in the model give them the very domain that they have.
    plain = [*model.definitions.values(), *model.summaries, *[c.expression for c in model.constraints]]
    defined = [value.free_symbols for value in plain]
    places: dict[str, Set] = {symbol.name: S.Reals for symbols in defined for symbol in symbols}
    for statement in [*model.latents, *model.observations]:
        for _, expression, domain in statement.family.expressions():
            for symbol in expression.free_symbols:
                known = places.get(symbol.name, S.Reals)
                places[symbol.name] = known.intersect(domain) if expression == symbol else known
    return all(places.get(element) == domain for element, domain in own.items())


def _draws(statements: Sequence[Statement], prefix: str) -> list[str]:
    members: dict[str, list[Statement]] = {}
    for statement in statements:
        members.setdefault(_base(statement.symbols[0].name), []).append(statement)
    together = {name for name, every in members.items() if _alike(every)}
    lines: list[str] = []
    position = 0
    while position < len(statements):
        first = statements[position]
        name = _base(first.symbols[0].name)
        every = members[name]
        target, count = _one(first, first is every[0]), 1
        # One line may stand for all elements only if no other statement comes between them.
        if name in together and list(statements[position : position + len(every)]) == every:
            target, count = f"{name}[{', '.join(map(str, _shape(_names(every))))}]", len(every)
        lines.append(f"{prefix}{target} {_drawn(first.family)}")
        position += count
    return lines


def _base(name: str) -> str:
    return name.partition("[")[0]


def _names(statements: Sequence[Statement]) -> list[str]:
    return [symbol.name for statement in statements for symbol in statement.symbols]


def _alike(statements: Sequence[Statement]) -> bool:
    # Whether one statement can declare all elements of this vector or matrix.
    names = _names(statements)
    same = "[" in names[0] and all(statement.family == statements[0].family for statement in statements)
    return same and names == element_names(_base(names[0]), _shape(names))


def _one(statement: Statement, first: bool) -> str:
    # The target of one draw: an element, or the row of a matrix, which at its first mention shows its length.
    whole = statement.symbols[0].name
    if len(statement.symbols) == 1:
        return whole
    name, _, inside = whole.removesuffix("]").partition("[")
    row = inside.split(",")[0]
    return f"{name}[{row}, {len(statement.symbols)}]" if first else f"{name}[{row}]"


def _drawn(family: Family) -> str:
    return f"= {_value(family.arguments[0])}" if isinstance(family, Exactly) else f"~ {_family(family)}"


def _family(family: Family) -> str:
    if isinstance(family, Mixture):
        return (
            f"Mixture({_value(sympy.Matrix(family.weights))}, {', '.join(map(_family, family.components))})"
        )
    roles = family.names if len(family.names) == len(family.arguments) else [""] * len(family.arguments)
    pairs = zip(roles, family.arguments, strict=True)
    return f"{family.name}({', '.join(_value(argument, nested=role == 'cov') for role, argument in pairs)})"


def _value(value: Any, nested: bool = False) -> str:
    if not isinstance(value, sympy.MatrixBase):
        return _expression(sympy.sympify(value))
    if value.shape[1] == 1 and not nested:
        return f"[{', '.join(map(_expression, value))}]"
    rows = [f"[{', '.join(map(_expression, row))}]" for row in value.tolist()]
    return f"[{', '.join(rows)}]"


class _Printer(StrPrinter):
    """SymPy's own printer with the notation's names."""

    def _print_Exp1(self, expr: Expr) -> str:
        return "exp(1)"

    def _print_Mul(self, expr: Any) -> str:
        # x/(2*(a + b)) would be read as x/(2*a + 2*b), another expression to SymPy: x/(a + b)/2 is not.
        below = [
            factor.base for factor in expr.args if isinstance(factor, sympy.Pow) and factor.exp.is_negative
        ]
        share = expr.as_coeff_Mul()[0].q
        if share > 1 and len(below) == 1 and isinstance(below[0], sympy.Add):
            return f"{self._print(share * expr)}/{share}"
        return super()._print_Mul(expr)

    def _print_Abs(self, expr: Any) -> str:
        return f"abs({self._print(expr.args[0])})"

    def _print_LatticeOp(self, expr: Any) -> str:
        return f"{type(expr).__name__.lower()}({', '.join(map(self._print, sorted(expr.args, key=str)))})"

    _print_Max = _print_Min = _print_LatticeOp


def _expression(expression: Expr) -> str:
    for part in sympy.preorder_traversal(expression):
        known = isinstance(
            part,
            Symbol | sympy.Rational | sympy.Add | sympy.Mul | sympy.Pow | sympy.Max | sympy.Min | sympy.Abs,
        )
        if not known and part is not S.Exp1 and type(part).__name__ not in _FUNCTIONS:
            raise ValueError(f"{part} has no text form: the notation has no {type(part).__name__}")
    return _Printer().doprint(expression).replace("**", "^")


def _domain(domain: Set, name: str) -> str:
    if domain == S.Reals:
        return ""
    if isinstance(domain, Interval):
        low, high = (
            _expression(domain.start) if domain.start.is_finite else "",
            _expression(domain.end) if domain.end.is_finite else "",
        )
        if not high:
            return f" {'>' if domain.left_open else '>='} {low}"
        if not low:
            return f" {'<' if domain.right_open else '<='} {high}"
        return f" in {'(' if domain.left_open else '['}{low}, {high}{')' if domain.right_open else ']'}"
    if domain is S.Integers:
        return " in -inf..inf"
    steps = (
        domain.is_subset(S.Integers)
        and domain.inf.is_finite
        and domain == sympy.Range(domain.inf, domain.sup + 1)
    )
    if domain in (S.Naturals0, S.Naturals) or steps:
        return f" in {domain.inf}..{'inf' if domain.sup is S.Infinity else domain.sup}"
    raise ValueError(f"{name} has no text form: the notation has no domain {domain}")


def _shape(names: Sequence[str]) -> tuple[int, ...]:
    indices = [tuple(map(int, name.removesuffix("]").partition("[")[2].split(","))) for name in names]
    return tuple(map(max, zip(*indices, strict=True)))

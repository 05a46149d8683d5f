"""Coordinates in which κ is as simple as can be, and vector fields carried back from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd, lcm

import sympy
from sympy import Expr, Interval, Rational, S, Symbol

from identkit.symbolic.polynomials import NotRational, Ring
from identkit.symbolic.problem import Problem

Field = dict[Symbol, Expr]
"""The non-zero components of a vector field, by unknown."""
_LONGEST = 200


def primitive(field: Field) -> Field:
    """The field without a common factor of its components: f·X says no more than X."""
    apart = _without_content(field)
    if apart is not None:
        return apart
    together = {u: sympy.fraction(sympy.together(e)) for u, e in field.items()}
    common = sympy.lcm_list([bottom for _, bottom in together.values()])
    cleared = {u: sympy.cancel(top * common / bottom) for u, (top, bottom) in together.items()}
    content = sympy.gcd_list(list(cleared.values()))
    return {u: sympy.expand(sympy.cancel(e / content)) for u, e in cleared.items()}


def _without_content(field: Field) -> Field | None:
    """The same where all components are polynomials and no symbol is in all: a common factor can only be a number."""
    inside = [component.free_symbols for component in field.values()]
    if len(inside) < 2 or set.intersection(*inside):
        return None
    if not all(e.is_polynomial(*symbols) for e, symbols in zip(field.values(), inside, strict=True)):
        return None
    terms = {u: [t.as_coeff_Mul() for t in sympy.Add.make_args(sympy.expand(e))] for u, e in field.items()}
    numbers = [number for parts in terms.values() for number, _ in parts]
    scale = Rational(lcm(*[int(n.q) for n in numbers]), gcd(*[int(n.p) for n in numbers]))
    return {u: sympy.Add(*[scale * number * rest for number, rest in parts]) for u, parts in terms.items()}


@dataclass(frozen=True)
class Coordinates:
    """Coordinates in which κ is as simple as can be: an ansatz of low degree may exist in these alone.

    ``t = exp(u)`` for an unknown that occurs only inside exponentials, ``q = u²`` for one in which κ is even; then
    ``g = u v`` for an unknown u that occurs only together with a factor v.
    """

    problem: Problem
    exponents: dict[Symbol, Symbol]
    squares: dict[Symbol, Symbol]
    products: dict[Symbol, tuple[Symbol, Symbol]]

    @classmethod
    def of(cls, problem: Problem) -> Coordinates:
        moved, exponents = in_exponentials(problem)
        squares = {u: Symbol(f"{u.name}^2", positive=True) for u in moved.unknowns if _even(u, moved)}
        if squares:
            roots = {u: sympy.sqrt(q) for u, q in squares.items()}
            moved = _renamed(moved, squares, lambda e: e.xreplace(roots))
        products = _products(moved)
        if products:
            quotients = {u: g / v for u, (g, v) in products.items()}
            names = {u: g for u, (g, _) in products.items()}
            moved = _renamed(moved, names, lambda e: sympy.cancel(e.subs(quotients)))
        return cls(moved, exponents, squares, products)

    def new(self, unknown: Symbol) -> Symbol:
        moved = self.exponents.get(unknown, unknown)
        moved = self.squares.get(moved, moved)
        return self.products[moved][0] if moved in self.products else moved

    def back(self, field: Field) -> Field:
        # ξ_u = (ξ_g − u ξ_v) / v for g = u v, ξ_u = ξ_q / 2u for q = u², and ξ_u = ξ_t / t for t = exp(u).
        named = {g: u * v for u, (g, v) in self.products.items()}
        first: Field = {}
        for u, (g, v) in self.products.items():
            if g in field or v in field:
                first[u] = ((field.get(g, S.Zero) - u * field.get(v, S.Zero)) / v).subs(named)
        first |= {s: e.subs(named) for s, e in field.items() if s not in named}
        roots = {q: u for u, q in self.squares.items()}
        powers = {q: u**2 for u, q in self.squares.items()}
        second = {
            roots.get(s, s): (e / (2 * roots[s]) if s in roots else e).xreplace(powers)
            for s, e in first.items()
        }
        second = primitive({s: e for s, e in second.items() if e != 0}) if self.products or roots else second
        logs = {t: u for u, t in self.exponents.items()}
        exps = {t: sympy.exp(u) for u, t in self.exponents.items()}
        third = {
            logs.get(s, s): sympy.expand(e / s if s in logs else e).subs(exps) for s, e in second.items()
        }
        return {s: e for s, e in third.items() if e != 0}


def in_exponentials(problem: Problem) -> tuple[Problem, dict[Symbol, Symbol]]:
    """The problem with ``t = exp(u)`` for the unknowns that occur only inside exponentials; and t by u.

    >>> u, v = sympy.symbols("u v", real=True)
    >>> problem = Problem((u, v), {u: sympy.Reals, v: sympy.Reals}, (sympy.exp(2 * u) * v,))
    >>> moved, names = in_exponentials(problem)
    >>> moved.summary[0] == v * names[u]**2
    True
    """
    names = {u: Symbol(f"exp({u.name})", positive=True) for u in problem.unknowns if _only_exp(u, problem)}
    if not names:
        return problem, names
    logs = {u: sympy.log(t) for u, t in names.items()}
    moved = _renamed(problem, names, lambda e: _lowest(_algebraic(e.rewrite(sympy.exp), logs)))
    images = {
        names[u]: Interval.open(*[sympy.exp(end) for end in (problem.domains[u].inf, problem.domains[u].sup)])
        for u in names
    }
    return replace(moved, domains={**problem.domains, **images}), names


def _renamed(problem: Problem, names: dict[Symbol, Symbol], change: Callable[[Expr], Expr]) -> Problem:
    return replace(
        problem,
        unknowns=tuple(names.get(u, u) for u in problem.unknowns),
        summary=tuple(change(e) for e in problem.summary),
        constraints=tuple(change(e) for e in problem.constraints),
    )


def _lowest(expression: Expr) -> Expr:
    return sympy.cancel(expression) if sympy.count_ops(expression) <= _LONGEST else expression


def _even(unknown: Symbol, problem: Problem) -> bool:
    """Whether κ is a rational function in which an unknown of one sign occurs squared only."""
    if unknown.is_nonnegative is not True:
        return False
    inside = [e for e in (*problem.summary, *problem.constraints) if e.has(unknown)]
    try:
        return bool(inside) and all(
            Ring(e.free_symbols).is_zero(e.xreplace({unknown: -unknown}) - e) for e in inside
        )  # type: ignore[arg-type]
    except NotRational:
        return False


def _algebraic(expression: Expr, logs: dict[Symbol, Expr]) -> Expr:
    """Put ``u = log t`` into the exponentials, each of which becomes a product of powers of t."""
    found = {
        e: _exp_of(e.args[0].subs(logs)) for e in expression.atoms(sympy.exp) if e.free_symbols & set(logs)
    }
    return expression.xreplace(found)


def _exp_of(argument: Expr) -> Expr:
    factors = []
    for term in sympy.Add.make_args(sympy.expand(argument)):
        coefficient, rest = term.as_coeff_Mul()
        factors.append(rest.args[0] ** coefficient if isinstance(rest, sympy.log) else sympy.exp(term))
    return sympy.Mul(*factors)


def _only_exp(unknown: Symbol, problem: Problem) -> bool:
    if not isinstance(problem.domains.get(unknown, S.Reals), Interval):
        return False
    seen = False
    for expression in (*problem.summary, *problem.constraints):
        if not expression.has(unknown):
            continue
        written = expression.rewrite(sympy.exp)
        exps = [e for e in written.atoms(sympy.exp) if e.has(unknown)]
        hidden = written.xreplace({e: sympy.Dummy() for e in exps})
        if hidden.has(unknown) or not all(e.args[0].diff(unknown).is_Integer for e in exps):
            return False
        seen = True
    return seen


def _products(problem: Problem) -> dict[Symbol, tuple[Symbol, Symbol]]:
    """For an unknown u that occurs in products ``u v`` with one and the same v only: a symbol for u v, and v."""
    if len(problem.unknowns) > 40:
        return {}
    partners: dict[Symbol, set[Symbol]] = {}
    for expression in problem.summary:
        for product in expression.atoms(sympy.Mul):
            for u in product.free_symbols & set(problem.unknowns):  # type: ignore[operator]
                others = {
                    f for f in product.args if isinstance(f, Symbol) and f != u and f in problem.unknowns
                }
                if u in product.args:
                    partners[u] = partners.get(u, others) & others
    found: dict[Symbol, tuple[Symbol, Symbol]] = {}
    for u, choices in partners.items():
        bare = (
            any(u in e.args for x in problem.summary for e in x.atoms(sympy.Add, sympy.Pow))
            or u in problem.summary
        )
        for v in sorted(choices, key=str):
            if not bare and v not in found and not any(v == w for _, w in found.values() if w == u):
                found[u] = (Symbol(f"{u.name}*{v.name}", real=True), v)
                break
    return {u: pair for u, pair in found.items() if pair[1] not in found and _also_alone(pair[1], u, problem)}


def _also_alone(v: Symbol, u: Symbol, problem: Problem) -> bool:
    # If v never occurs without u either, the product alone matters and new coordinates gain nothing.
    return any(
        not e.has(u) and e.has(v) for x in problem.summary for e in x.atoms(sympy.Add, sympy.Pow) | {x}
    )

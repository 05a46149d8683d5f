"""Exact arithmetic with expressions: proving that something is zero, and proving that it is not.

`vanishes` writes an expression as a rational function of independent kernels and expands it: exponentials over
a ℚ-basis of their arguments, logarithms and roots over irreducible factors, ``|f|`` with ``|f|² = f²``, and
``sin``, ``tanh``, ``sigmoid`` through exp (theory, "Transcendental functions"). Every rewriting is an identity on
the reals, so a result of True is a proof; False only means that no proof was found. The opposite, that an
expression is *not* zero, is proved by a point at which ball arithmetic excludes 0.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from math import lcm

import sympy
from sympy import Basic, Dummy, Expr, Integer, Rational, S, Set, Symbol

from identkit.model import balls
from identkit.model.functions import select, sigmoid, xlogy
from identkit.model.tape import Tape

_TRIES = 12  # points at which an expression may turn out not to be 0

MOST_DEGREE = 240
"""exp(1000 z) and exp(z) are left unrelated, since a polynomial of degree 1000 in exp(z) says no more and takes long."""
UNIT = Dummy("i")
"""The imaginary unit, by its relation ``i² = −1``."""


def vanishes(expression: Expr) -> bool:
    """Whether the expression is proved to be identically 0 wherever it is defined on the reals.

    >>> z = Symbol("z", real=True)
    >>> vanishes(sympy.sin(z)**2 + sympy.cos(z)**2 - 1), vanishes(sympy.log(4) - 2*sympy.log(2))
    (True, True)
    >>> vanishes(sympy.sqrt(z**2) - z)
    False
    """
    if expression.has(S.NaN, S.ComplexInfinity, S.Infinity, S.NegativeInfinity):
        return False
    if expression.is_zero is not None:
        return expression.is_zero
    # Most expressions do not vanish, and one point says so long before the algebra does.
    return not _refuted(expression) and Kernels().numerator(expression) == 0


def _refuted(expression: Expr) -> bool:
    return any(balls.nonzero(expression, some_point(expression.free_symbols, attempt)) for attempt in (1, 2))


def some_point(symbols: Iterable[Symbol], attempt: int) -> dict[Symbol, Rational]:
    """A rational point that suits the symbols' assumptions; numbers in (0, 1) where there is a sign."""
    point = {}
    for place, symbol in enumerate(sorted(symbols, key=str), 1):
        size = (
            Integer(place + attempt)
            if symbol.is_integer
            else Rational(37 * attempt + 11 * place, 97 + 13 * place)
        )
        signed = (
            -size if symbol.is_negative or (symbol.is_nonnegative is None and (place + attempt) % 2) else size
        )
        point[symbol] = signed if symbol.is_integer else signed % 1 if symbol.is_nonnegative else signed
    return point


class Kernels:
    """One table of kernels; expressions written over the same table can be compared term by term."""

    def __init__(self) -> None:
        self._table: dict[tuple[str, Basic], Dummy] = {}
        self._turning: set[Symbol] = {UNIT}
        self._relations: list[tuple[Dummy, int, Expr]] = []

    def numerator(self, expression: Expr) -> Expr:
        """The expanded numerator over kernels: 0 only if the expression is identically 0.

        Its generators are the expression's symbols and the kernels' dummies.
        """
        return self.numerators([expression])[0]

    def numerators(self, expressions: Iterable[Expr]) -> list[Expr]:
        """Numerators of several expressions over one common denominator, so that linear relations survive."""
        written = [self.rational(expression) for expression in expressions]
        written, relations = self._without_roots(written)
        fractions = [sympy.fraction(sympy.together(entry)) for entry in written]
        common = sympy.lcm_list([bottom for _, bottom in fractions]) if fractions else S.One
        return [
            self._reduced(sympy.expand(top * sympy.cancel(common / bottom)), relations)
            for top, bottom in fractions
        ]

    def depends_on(self, expression: Expr) -> set[Symbol]:
        """The ordinary symbols inside a kernel's dummy or an expression over kernels."""
        inside = {dummy: key[1] for key, dummy in self._table.items()}
        found: set[Symbol] = set()
        waiting = list(expression.free_symbols)
        while waiting:
            symbol = waiting.pop()
            if symbol in inside:
                waiting += inside[symbol].free_symbols
            elif symbol is not UNIT:
                found.add(symbol)  # type: ignore[arg-type]
        return found

    def contents(self) -> list[tuple[Dummy, str, Basic]]:
        """Each kernel with its kind and what it is a kernel of, inner ones first."""
        return [(dummy, kind, content) for (kind, content), dummy in self._table.items()]

    def rational(self, expression: Expr) -> Expr:
        """The expression as a rational function of symbols and kernels (with rational powers of positive kernels)."""
        if isinstance(expression, Symbol | Rational):
            return expression
        if isinstance(expression, sympy.Add | sympy.Mul):
            return expression.func(*[self.rational(argument) for argument in expression.args])
        if isinstance(expression, sympy.exp):
            return self._exponential(self.rational(expression.args[0]))
        if isinstance(expression, sympy.log):
            return self._log(expression.args[0])
        if isinstance(expression, sympy.Pow):
            base, exponent = expression.args
            if isinstance(exponent, Integer):
                inside = self.rational(base)
                if abs(exponent) > MOST_DEGREE and inside.is_Add:
                    return self._kernel("pow", sympy.Tuple(self._canonical(inside), exponent))
                return inside**exponent
            if isinstance(exponent, Rational):
                return self._magnitude(base, exponent)
            if base.is_nonnegative is not True and exponent.is_integer is not False:
                # (-1)^k is no exponential: a whole number in the exponent lets the base be negative.
                pair = sympy.Tuple(*[self._canonical(self.rational(part)) for part in (base, exponent)])
                return self._kernel("pow", pair)
            return self._exponential(sympy.expand(self.rational(exponent) * self._log(base)))
        if expression is S.Exp1:
            return self._exponential(S.One)
        if expression is S.ImaginaryUnit:
            return UNIT
        return self._function(expression)

    def _function(self, expression: Expr) -> Expr:
        arguments = expression.args
        if isinstance(expression, sympy.Abs):
            return self._magnitude(arguments[0], S.One)
        if isinstance(expression, sympy.Max | sympy.Min):
            sign = 1 if isinstance(expression, sympy.Max) else -1
            result = arguments[0]
            for other in arguments[1:]:
                result = (result + other + sign * sympy.Abs(result - other)) / 2
            return self.rational(result)
        if isinstance(expression, sigmoid):
            return 1 / (1 + self._exponential(-self.rational(arguments[0])))
        if isinstance(expression, sympy.tanh):
            double = self._exponential(2 * self.rational(arguments[0]))
            return (double - 1) / (double + 1)
        if isinstance(expression, sympy.sinh | sympy.cosh):
            one = self._exponential(self.rational(arguments[0]))
            return (one + 1 / one) / 2 if isinstance(expression, sympy.cosh) else (one - 1 / one) / 2
        if isinstance(expression, sympy.sin | sympy.cos | sympy.tan):
            turn = self._exponential(UNIT * self.rational(arguments[0]))
            cosine, sine = (turn + 1 / turn) / 2, (turn - 1 / turn) / (2 * UNIT)
            return {sympy.sin: sine, sympy.cos: cosine, sympy.tan: sine / cosine}[type(expression)]
        if isinstance(expression, xlogy):
            return self.rational(arguments[0]) * self._log(arguments[1])
        canonical = [self._canonical(self.rational(argument)) for argument in arguments]
        return self._kernel(type(expression).__name__, sympy.Tuple(*canonical) if canonical else expression)

    def _kernel(self, kind: str, content: Basic) -> Dummy:
        if (kind, content) not in self._table:
            turns = kind in ("exp", "large exp") and bool(content.free_symbols & self._turning)
            positive = True if kind in ("exp", "large exp", "abs", "positive") and not turns else None
            self._table[kind, content] = Dummy(kind, positive=positive)
            if turns:
                self._turning.add(self._table[kind, content])
        return self._table[kind, content]

    def _exponential(self, exponent: Expr) -> Expr:
        # exp(Σ cᵢ mᵢ) = Π exp(mᵢ)^cᵢ with rational cᵢ and fixed monomials mᵢ: a ℚ-basis of the arguments.
        top, bottom = sympy.fraction(sympy.cancel(sympy.together(exponent)))
        result = S.One
        for term in sympy.Add.make_args(sympy.expand(top)):
            coefficient, monomial = term.as_coeff_Mul(rational=True)
            under = S.One if bottom.is_Rational else bottom
            if bottom.is_Rational:
                coefficient /= bottom
            elif bottom.free_symbols:
                content, scale = sympy.Poly(bottom).primitive()
                coefficient, under = coefficient / Rational(str(content)), scale.as_expr()
            if max(abs(coefficient.p), coefficient.q) > MOST_DEGREE:
                sign = 1 if coefficient > 0 else -1
                result *= self._kernel("large exp", abs(coefficient) * monomial / under) ** sign
            else:
                result *= self._kernel("exp", monomial / under) ** coefficient
        return result

    def _log(self, argument: Expr) -> Expr:
        # log|argument|: over the reals the two agree wherever log is defined.
        if isinstance(argument, sympy.Mul):
            return sympy.Add(*[self._log(factor) for factor in argument.args])
        if isinstance(argument, sympy.Pow) and argument.exp.is_real:
            return self.rational(argument.exp) * self._log(argument.base)
        if isinstance(argument, sympy.exp):
            return self.rational(argument.args[0])
        if isinstance(argument, sympy.Abs):
            return self._log(argument.args[0])
        if isinstance(argument, xlogy | select):
            return self._kernel("log", argument)
        return sympy.Add(
            *[power * self._log_factor(factor) for factor, power in self._factors(self.rational(argument))]
        )

    def _log_factor(self, factor: Expr) -> Expr:
        for (kind, content), dummy in self._table.items():
            if dummy == factor and kind == "exp":
                return content
            if dummy == factor and kind in ("abs", "positive"):
                return self._kernel("log", content)
        return self._kernel("log", factor)

    def _magnitude(self, base: Expr, exponent: Rational) -> Expr:
        # |base|^exponent over irreducible factors; a factor known to be positive stands for itself.
        if isinstance(base, sympy.Mul):
            return sympy.Mul(*[self._magnitude(factor, exponent) for factor in base.args])
        result = S.One
        for factor, power in self._factors(self.rational(base)):
            if factor == 0 and exponent > 0:
                return S.Zero
            if factor.is_positive is True and ((power * exponent).is_Integer or factor.is_Symbol):  # pyright: ignore[reportAttributeAccessIssue]
                result *= factor ** (power * exponent)
            else:
                result *= self._size(factor) ** (power * exponent)
        return result

    def _size(self, factor: Expr) -> Dummy:
        """|factor| as a kernel, with the relation that brings it back: its square, or itself where it is positive."""
        kind, power = ("positive", 1) if factor.is_positive is True else ("abs", 2)
        new = (kind, factor) not in self._table
        dummy = self._kernel(kind, factor)
        if new:
            self._relations.append((dummy, power, factor**power))
        return dummy

    def _factors(self, rational: Expr) -> list[tuple[Expr, Rational]]:
        """``|rational| = Π |factor|^power`` with primes and primitive irreducible polynomials as factors."""
        powers: dict[Expr, Rational] = {}
        if rational.free_symbols & self._turning:
            # sin and cos are real, but their factors over exp(iz) are not, so that |·| may not be shared out.
            whole = self._canonical(rational)
            return [(self._canonical(-whole) if whole.could_extract_minus_sign() else whole, S.One)]
        # Fractional powers of kernels would hide factors from factor_list: give them a root of their own first.
        roots = root_orders([rational])
        opened = powers_opened(rational, roots)
        top, bottom = sympy.fraction(sympy.cancel(sympy.together(opened)))
        for side, sign in ((top, 1), (bottom, -1)):
            constant, factors = sympy.factor_list(side)
            if constant == 0:
                return [(S.Zero, S.One)]
            # Up to a limit: products of two large primes stay whole, rather than take for ever.
            for prime, count in sympy.factorrat(abs(Rational(constant)), limit=10**5).items():
                powers[Integer(prime)] = powers.get(Integer(prime), S.Zero) + sign * count
            for factor, count in factors:
                plain = _powers_closed(factor, roots)
                power = S.One
                if isinstance(plain, sympy.Pow) and plain.base.is_Symbol:
                    plain, power = plain.args
                if plain.could_extract_minus_sign():
                    plain = sympy.expand(-plain)
                powers[plain] = powers.get(plain, S.Zero) + sign * count * power
        return [(factor, power) for factor, power in powers.items() if power != 0]

    def _canonical(self, rational: Expr) -> Expr:
        return sympy.cancel(sympy.together(rational))

    def _without_roots(self, written: list[Expr]) -> tuple[list[Expr], list[tuple[Symbol, int, Expr]]]:
        roots = root_orders([*written, *[value for _, _, value in self._relations]])
        opened = [powers_opened(entry, roots) for entry in written]
        relations = []
        for dummy, power, value in self._relations:
            order, symbol = roots.get(dummy, (1, dummy))
            relations.append((symbol, power * order, powers_opened(value, roots)))
        return opened, relations

    def _reduced(self, numerator: Expr, relations: list[tuple[Symbol, int, Expr]]) -> Expr:
        # Outermost kernels were made last and may contain earlier ones, so they are reduced first.
        for symbol, order, value in reversed(relations):
            if numerator.has(symbol):
                numerator = sympy.expand(_lower(numerator, symbol, order, value))
        if numerator.has(UNIT):
            numerator = sympy.expand(_lower(numerator, UNIT, 2, S.NegativeOne))
        return numerator


def _lower(polynomial: Expr, symbol: Symbol, order: int, value: Expr) -> Expr:
    """Replace ``symbol**order`` by `value` throughout an expanded polynomial."""
    result = S.Zero
    for (power,), coefficient in sympy.Poly(polynomial, symbol).terms():
        result += coefficient * symbol ** (power % order) * value ** (power // order)
    return result


def root_orders(expressions: Iterable[Expr]) -> dict[Symbol, tuple[int, Symbol]]:
    """The symbols that occur under roots: for each the common order D and a symbol for its D-th root."""
    orders: dict[Symbol, int] = {}
    for expression in expressions:
        for power in expression.atoms(sympy.Pow):
            if power.base.is_Symbol and isinstance(power.exp, Rational) and power.exp.q > 1:
                orders[power.base] = lcm(orders.get(power.base, 1), int(power.exp.q))
    return {symbol: (order, Dummy(f"{symbol.name}_root", positive=True)) for symbol, order in orders.items()}


def powers_opened(expression: Expr, roots: Mapping[Symbol, tuple[int, Symbol]]) -> Expr:
    """The expression in the roots' symbols, so that only whole powers are left."""
    return (
        expression.xreplace({symbol: root**order for symbol, (order, root) in roots.items()})
        if roots
        else expression
    )


def _powers_closed(expression: Expr, roots: Mapping[Symbol, tuple[int, Symbol]]) -> Expr:
    return expression.xreplace(
        {root: symbol ** Rational(1, order) for symbol, (order, root) in roots.items()}
    )


# Points


def random_point(
    domains: Mapping[Symbol, Set], chance: random.Random, parts: int = 97
) -> dict[Symbol, Rational]:
    """A random rational point inside the domains; small numerators, so that exact arithmetic stays cheap."""
    return {symbol: _random_element(domain, chance, parts) for symbol, domain in domains.items()}


def _random_element(domain: Set, chance: random.Random, parts: int) -> Rational:
    if domain.is_FiniteSet or (isinstance(domain, sympy.Range) and domain.size.is_finite):
        return chance.choice(list(domain))
    step = Rational(chance.randint(1, parts - 1), parts)
    low, high = domain.inf, domain.sup
    if domain.is_subset(S.Integers):
        return Integer(low + chance.randint(0, 7))
    if low.is_finite and high.is_finite:
        return low + (high - low) * step
    if low.is_finite:
        return low + Rational(chance.randint(1, 3 * parts + 9), parts)
    if high.is_finite:
        return high - Rational(chance.randint(1, 3 * parts + 9), parts)
    return Rational(chance.randint(-3 * parts - 9, 3 * parts + 9), parts)


def points(
    domains: Mapping[Symbol, Set], count: int, seed: int = 0, parts: int = 97
) -> Iterator[dict[Symbol, Rational]]:
    """`count` random rational points of the domains; `parts` is the common denominator of their steps."""
    chance = random.Random(seed)
    for _ in range(count):
        yield random_point(domains, chance, parts)


def nonzero_point(expression: Expr, domains: Mapping[Symbol, Set]) -> dict[Symbol, Rational] | None:
    """A point of the domains at which the expression is proved not to be 0, or None."""
    relevant = {symbol: domains[symbol] for symbol in expression.free_symbols}  # type: ignore[index]
    try:
        tape = Tape([expression])
    except NotImplementedError:
        return None
    for point in points(relevant, _TRIES if relevant else 1):
        for precision in balls.PRECISIONS:
            if balls.excludes_zero(balls.run_or_nan(tape, point, precision)[0]):
                return point
    return None

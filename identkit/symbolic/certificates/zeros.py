"""Zero, not zero and never negative: by SymPy's simplifier, in ball arithmetic, and by isolated real roots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import flint
import sympy
from flint import arb
from sympy import Expr, Integer, Rational, S, Symbol

from identkit.model import balls
from identkit.model.functions import sigmoid
from identkit.model.tape import Tape
from identkit.symbolic.certificates.claim import Point

MOST_OPERATIONS = 40
"""Size of an expression from which on SymPy's `simplify`, which may take minutes, is not asked."""


def zero(expression: Expr) -> bool:
    """Whether the expression is proved to be identically 0, by SymPy's simplifier after a try at refuting it."""
    if expression == 0:
        return True
    if expression.has(S.NaN, S.ComplexInfinity, S.Infinity):
        return False
    try:
        tape = Tape([expression])
    except NotImplementedError:
        return False
    for attempt in (1, 2, 3, -2):
        value = balls.run_or_nan(tape, _trial(expression, attempt), 256)[0]
        if balls.excludes_zero(value):
            return False
    plain = sympy.expand(expression)
    tidy = expression.replace(sympy.log, log_of_tidy)
    if plain == 0 or sympy.expand(tidy) == 0 or sympy.expand(sympy.cancel(sympy.together(tidy))) == 0:
        return True
    if sympy.cancel(sympy.together(plain)) == 0:
        return True
    if sympy.expand(sympy.cancel(sympy.together(_through_exp(expression)))) == 0:
        return True
    through_exp = sympy.powsimp(sympy.expand(sympy.expand_log(expression.rewrite(sympy.exp), force=False)))
    if through_exp == 0:
        return True
    small = expression.count_ops() <= MOST_OPERATIONS
    return small and (sympy.simplify(through_exp) == 0 or sympy.simplify(expression) == 0)


def log_of_tidy(argument: Expr) -> Expr:
    """The logarithm of the argument once simplified: of an exponential its exponent."""
    tidy = sympy.cancel(sympy.together(_through_exp(argument)))
    # Arguments are real, whether or not SymPy sees it.
    return tidy.args[0] if isinstance(tidy, sympy.exp) else sympy.expand_log(sympy.log(tidy))


def _through_exp(expression: Expr) -> Expr:
    # Not rewrite(exp), which would turn a cos inside into complex exponentials as well.
    opened = expression.replace(sigmoid, lambda u: 1 / (1 + sympy.exp(-u)))
    return opened.replace(
        sympy.tanh, lambda u: (sympy.exp(u) - sympy.exp(-u)) / (sympy.exp(u) + sympy.exp(-u))
    )


def _trial(expression: Expr, attempt: int) -> dict[Symbol, Rational]:
    point = {}
    for place, symbol in enumerate(sorted(expression.free_symbols, key=str), 1):
        size = (
            Integer(abs(attempt) + place - 1)
            if symbol.is_integer
            else Rational(7 * abs(attempt) + 3 * place + 1, 31 + 2 * place)
        )
        point[symbol] = -size if attempt < 0 and not symbol.is_nonnegative else size
    return point


def told_apart(summary: Iterable[Expr], one: Point, other: Point) -> bool:
    """Whether some expression of the summary is proved to differ between two points."""
    tape = Tape(list(summary))
    for precision in balls.PRECISIONS:
        here, there = (balls.run_or_nan(tape, point, precision) for point in (one, other))
        if any(balls.excludes_zero(a - b) for a, b in zip(here, there, strict=True)):
            return True
    return False


def all_apart(table: Sequence[Sequence[arb]]) -> bool:
    """Whether every two rows of balls are proved different; sorted first, so that n rows need few comparisons."""
    if any(not entry.is_finite() for row in table for entry in row):
        return False
    return _split([list(row) for row in table], 0)


def _split(rows: list[list[arb]], column: int) -> bool:
    # Rows are sorted by a column and cut wherever two neighbours' balls are disjoint; groups go to the next column.
    if len(rows) <= 1:
        return True
    if column == len(rows[0]):
        return False
    rows = sorted(rows, key=lambda row: float(row[column].mid()))
    groups, current = [], [rows[0]]
    top = rows[0][column]
    for _, row in pairwise(rows):
        if row[column] > top:
            groups.append(current)
            current, top = [row], row[column]
        else:
            current.append(row)
            top = top.union(row[column])
    return all(_split(group, column + 1) for group in [*groups, current])


def never_negative(slope: Expr, variable: Symbol) -> bool:
    """A derivative is ≥ 0 on the line: each monomial is, in positive variables and even powers; or by real roots."""
    top, bottom = sympy.fraction(sympy.cancel(sympy.together(slope.rewrite(sympy.exp))))
    if all(_plainly_positive(side) for side in (top, bottom)):
        return True
    if all(_plainly_positive(-side) for side in (top, bottom)):
        return True
    return _no_sign_change(sympy.expand(top * bottom), variable)


def _plainly_positive(polynomial: Expr) -> bool:
    def positive(factor: Expr) -> bool:
        base, exponent = factor.as_base_exp()
        if isinstance(factor, sympy.exp) or (base.is_Symbol and base.is_positive):
            return True
        return factor.is_positive is True or (
            exponent.is_Integer and exponent % 2 == 0 and base.is_real is True
        )

    return all(
        all(positive(f) for f in sympy.Mul.make_args(term))
        for term in sympy.Add.make_args(sympy.expand(polynomial))
    )


def _no_sign_change(polynomial: Expr, variable: Symbol) -> bool:
    # Isolated real roots, by Arb: between neighbours the sign is constant, so one value in each gap decides.
    if polynomial.free_symbols != {variable}:
        return False
    try:
        coefficients = sympy.Poly(polynomial, variable, domain="QQ").all_coeffs()
    except (sympy.PolynomialError, sympy.CoercionFailed):
        return False
    scale = sympy.ilcm(*[c.q for c in coefficients]) if coefficients else 1
    exact = flint.fmpz_poly([int(c * scale) for c in reversed(coefficients)])
    if exact == 0:
        return False
    roots = [root.real for root, _ in exact.complex_roots() if 0 in root.imag]  # pyright: ignore[reportGeneralTypeIssues]
    start = 0 if variable.is_positive else None
    cuts = sorted(float(root.mid()) for root in roots if start is None or not root < 0)
    low = (cuts[0] if cuts else 0.0) - 1.0 if start is None else 0.0
    marks = [low, *cuts, (cuts[-1] if cuts else 1.0) + 1.0]
    if any(b - a < 1e-6 * (1 + abs(a) + abs(b)) and (a, b) != (0.0, 0.0) for a, b in pairwise(marks)):
        return False
    gaps = [Rational((a + b) / 2) for a, b in pairwise(marks) if b > a]
    values = [sum(Rational(int(c)) * gap**i for i, c in enumerate(exact.coeffs())) for gap in gaps]
    return all(value > 0 for value in values)


def certified_rank(rows: Sequence[Sequence[arb]]) -> int:
    """A lower bound of the rank of a matrix of balls: elimination by pivots that are proved not to be 0."""
    matrix = [list(row) for row in rows if all(entry.is_finite() for entry in row)]
    rank = 0
    for column in range(len(matrix[0]) if matrix else 0):
        usable = [i for i in range(rank, len(matrix)) if balls.excludes_zero(matrix[i][column])]
        if not usable:
            continue
        best = max(usable, key=lambda i: float(abs(matrix[i][column]).mid()))
        matrix[rank], matrix[best] = matrix[best], matrix[rank]
        pivot = matrix[rank]
        for i in range(rank + 1, len(matrix)):
            ratio = matrix[i][column] / pivot[column]
            matrix[i] = [a - ratio * b for a, b in zip(matrix[i], pivot, strict=True)]
        rank += 1
    return rank

"""Where an expression is smooth, read off its form: what the identity theorem and monotonicity need to be true of it.

Both predicates are sufficient conditions; False means only that the form does not show it. They know the functions
named here and nothing else, so that ``floor`` or a user's own function is never taken to be smooth.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sympy
from sympy import Expr, Integer, Interval, S, Set, Symbol

from identkit.model.functions import select, sigmoid, xlogy

_ENTIRE = (sympy.exp, sympy.sin, sympy.cos, sympy.sinh, sympy.cosh, sympy.erf)
_SMOOTH = (*_ENTIRE, sympy.tanh, sigmoid)
_MEROMORPHIC = (*_SMOOTH, sympy.tan, sympy.gamma)


def analytic(
    expression: Expr, domains: Mapping[Symbol, Set] | None = None, of: Collection[Symbol] | None = None
) -> bool:
    """Whether "not 0 at one point" shows "not 0 at almost every point" of the domains, as a function of `of` (or of all).

    So it is for single-valued complex functions, poles included. A logarithm or a root has branches: it counts only
    where its argument is positive throughout, or affine (then the domain stays convex). ``sqrt(z^2 - 2z + 1)`` is
    |z − 1| in disguise, and ``tanh(log(z^2 - 2z + 1)/4)`` hides the same kink.

    >>> z = Symbol("z", real=True)
    >>> analytic(sympy.tan(z) + 1/z), analytic(abs(z)), analytic(sympy.sqrt(z**2 - 2*z + 1))
    (True, False, False)
    """
    if (
        expression.is_Symbol
        or expression.is_number
        or (of is not None and not expression.free_symbols & set(of))
    ):
        return True
    inside = expression.args
    if isinstance(expression, sympy.Pow):
        base, exponent = inside
        if not (exponent.is_integer or _one_branch(base, domains or {})):
            return False
    elif isinstance(expression, sympy.log | sympy.loggamma | xlogy):
        if not _one_branch(inside[-1], domains or {}):
            return False
    elif isinstance(expression, select):
        inside = inside[1:]
    elif not isinstance(expression, (sympy.Add, sympy.Mul, *_MEROMORPHIC)):
        return False
    return all(analytic(part, domains, of) for part in inside)


def regular(expression: Expr, unknown: Symbol | None = None) -> bool:
    """Whether the expression is analytic at *every* point, poles excluded, as a function of `unknown` (or of all).

    A monotone function must be continuous: ``z - 1/z`` rises everywhere and takes every value twice.

    >>> z, t = Symbol("z", real=True), Symbol("t", positive=True)
    >>> regular(1/(1 + z**2)), regular(z - 1/z), regular(t - 1/t)
    (True, False, True)
    """
    if expression.is_Symbol or expression.is_number or (unknown is not None and not expression.has(unknown)):
        return True
    inside = expression.args
    if isinstance(expression, sympy.Pow):
        base, exponent = inside
        if isinstance(exponent, Integer):
            if exponent < 0 and not (positive(base) or positive(-base)):
                return False
        elif not positive(base):
            return False
    elif isinstance(expression, sympy.log | sympy.loggamma | sympy.gamma | xlogy):
        if not positive(inside[-1]):
            return False
    elif isinstance(expression, select):
        inside = inside[1:]
    elif not isinstance(expression, (sympy.Add, sympy.Mul, *_SMOOTH)):
        return False
    return all(regular(part, unknown) for part in inside)


def positive(expression: Expr) -> bool:
    """Whether the expression is seen to be positive at every real value of its symbols.

    >>> z = Symbol("z", real=True)
    >>> positive(1 - sympy.tanh(z)), positive(z**2 - z)
    (True, False)
    """
    if expression.is_positive is True:
        return True
    if not expression.free_symbols or isinstance(expression, select):
        return isinstance(expression, select) and all(positive(choice) for choice in expression.args[1:])
    return _with_ranges(expression).is_positive is True


def nonnegative(expression: Expr) -> bool:
    """Whether the expression is seen to be at least 0 at every real value of its symbols.

    >>> z = Symbol("z", real=True)
    >>> nonnegative(1 - sympy.exp(-((z - 1) ** 2))), nonnegative(1 - sympy.exp(z))
    (True, False)
    """
    return _with_ranges(expression).is_nonnegative is True


def _with_ranges(expression: Expr) -> Expr:
    """In factors, with exponentials as symbols that know their range: SymPy would multiply out ``exp(-(z^3 - 1/3)^2)``."""
    opened: dict[Expr, Expr] = {}

    def exponential(argument: Expr) -> Expr:
        coefficient, unit = argument.as_coeff_Mul(rational=True)
        power, order = coefficient.as_numer_denom()
        kernel = unit / order
        if kernel not in opened:
            opened[kernel] = sympy.Dummy("e", positive=True)
            # Of sums SymPy would ask at length.
            if not unit.is_Add and (unit.is_nonnegative or unit.is_nonpositive):
                above = 1 + sympy.Dummy("d", nonnegative=True)
                opened[kernel] = above if unit.is_nonnegative else 1 / above
        return opened[kernel] ** power

    rational = expression.replace(sigmoid, lambda u: exponential(u) / (1 + exponential(u)))
    rational = rational.replace(
        sympy.tanh, lambda u: (exponential(u) - 1 / exponential(u)) / (exponential(u) + 1 / exponential(u))
    )
    return sympy.factor(sympy.together(rational.replace(sympy.exp, exponential)))


def on_open_box(expression: Expr, domains: Mapping[Symbol, Set]) -> Expr:
    """The expression in variables whose assumptions say what the domains say: half-lines and intervals become t > 0."""
    moved = {}
    for symbol in expression.free_symbols:
        domain = domains.get(symbol)  # type: ignore[arg-type]
        if isinstance(domain, Interval) and (domain.inf.is_finite or domain.sup.is_finite):  # pyright: ignore[reportOptionalMemberAccess]
            t = sympy.Dummy("t", positive=True)
            moved[symbol] = from_half_line(domain, t)
    return expression.xreplace(moved) if moved else expression


def from_half_line(domain: Interval, t: Expr) -> Expr:
    """A one-to-one map of t in (0, ∞) onto the interior of a half-line or a bounded interval."""
    low, high = domain.inf, domain.sup
    if low.is_finite and high.is_finite:
        return (low + high * t) / (1 + t)
    return low + t if low.is_finite else high - t


def _one_branch(argument: Expr, domains: Mapping[Symbol, Set]) -> bool:
    return _affine(argument) or (positive(moved := on_open_box(argument, domains)) and regular(moved))


def _affine(expression: Expr) -> bool:
    if not expression.free_symbols:
        return True
    polynomial = expression.as_poly(*expression.free_symbols)
    return (
        polynomial is not None
        and polynomial.total_degree() <= 1
        and S.ImaginaryUnit not in expression.atoms()
    )

"""The few functions that SymPy lacks and models need; each evaluates exactly where its arguments allow."""

from __future__ import annotations

from typing import Any

import sympy
from sympy import Expr, Integer, Rational, S


class sigmoid(sympy.Function):
    """The logistic function ``1 / (1 + exp(-u))``: one symbol, so that log(sigmoid(u)) stays accurate.

    >>> sigmoid(0), sigmoid(sympy.Symbol("u")).diff()
    (1/2, (1 - sigmoid(u))*sigmoid(u))
    """

    is_real = True
    is_positive = True

    @classmethod
    def eval(cls, argument: Expr) -> Expr | None:
        # Not `is_zero`, whose search through SymPy's assumptions takes longer than all the rest.
        return Rational(1, 2) if argument == 0 else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return self * (1 - self)

    def _eval_rewrite(self, rule: Any, args: Any, **hints: Any) -> Expr | None:
        return 1 / (1 + sympy.exp(-args[0])) if rule is sympy.exp else None

    def _eval_evalf(self, prec: int) -> Expr:
        # Not rewrite(exp), which would also turn a sin(1) inside into complex exponentials.
        return (1 / (1 + sympy.exp(-self.args[0])))._eval_evalf(prec)


class select(sympy.Function):
    """``select(k, a1, …, aK)`` is ``a_k``, for a discrete k in 1..K.

    >>> select(2, 10, 20, 30), select(sympy.Symbol("k"), 7, 7)
    (20, 7)
    """

    @classmethod
    def eval(cls, state: Expr, *choices: Expr) -> Expr | None:
        if not choices:
            raise ValueError("select should have at least one choice, as in select(k, a1, a2), got none")
        if isinstance(state, Integer):
            if not 1 <= int(state) <= len(choices):
                raise ValueError(f"select's first argument should be in 1..{len(choices)}, got {state}")
            return choices[int(state) - 1]
        if state.is_number and state.is_integer is False:
            raise ValueError(f"select's first argument should be an integer, got {state}")
        return choices[0] if all(choice == choices[0] for choice in choices) else None

    def _all(self, question: str) -> bool | None:
        return True if all(getattr(choice, question) for choice in self.args[1:]) else None

    def _eval_is_real(self) -> bool | None:
        return self._all("is_real")

    def _eval_is_positive(self) -> bool | None:
        return self._all("is_positive")

    def _eval_is_nonnegative(self) -> bool | None:
        return self._all("is_nonnegative")

    def _eval_derivative(self, symbol: Any) -> Expr:
        state, *choices = self.args
        if state.has(symbol):
            raise ValueError(f"select cannot be differentiated by its discrete argument {symbol}")
        return select(state, *[choice.diff(symbol) for choice in choices])


class xlogy(sympy.Function):
    """``x log y`` with ``0 log 0 = 0``, so that impossible outcomes of probability zero stay harmless.

    >>> xlogy(0, 0), xlogy(3, sympy.Symbol("p"))
    (0, 3*log(p))
    """

    @classmethod
    def eval(cls, factor: Expr, argument: Expr) -> Expr | None:
        if factor.is_zero:
            return S.Zero
        return factor * sympy.log(argument) if factor.is_number else None

    def fdiff(self, argindex: int = 1) -> Expr:
        factor, argument = self.args
        return sympy.log(argument) if argindex == 1 else factor / argument


class step(sympy.Function):
    """1 where the argument is at least 0, else 0.

    >>> step(0), step(-1), step(sympy.Symbol("t", nonnegative=True))
    (1, 0, 1)
    """

    is_nonnegative = True

    @classmethod
    def eval(cls, argument: Expr) -> Expr | None:
        if argument.is_number or argument.is_Symbol:
            if argument.is_nonnegative:
                return S.One
            if argument.is_negative:
                return S.Zero
        return None

    def _eval_derivative(self, symbol: Any) -> Expr:
        # Almost everywhere, which is all that is asked of a density.
        return S.Zero

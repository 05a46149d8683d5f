"""Torch as an algebra for tapes, and logarithms that stay finite where their arguments underflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import sympy
import torch
from sympy import Expr, Rational
from torch import Tensor

from identkit.model.families import (
    select,
)
from identkit.model.functions import sigmoid

_TINY = torch.finfo(torch.float64).tiny


class log1m(sympy.Function):
    """``log(1 − p)``, kept in one piece so that torch can use log1p."""


class logsigmoid(sympy.Function):
    """``log sigmoid(u)``, kept in one piece so that torch never takes log 0."""


def log_of(expression: Expr) -> Expr:
    """``log(expression)`` for a positive expression, with exponentials and logistic functions taken apart."""
    if isinstance(expression, sympy.exp):
        return expression.args[0]
    if isinstance(expression, sigmoid):
        return logsigmoid(expression.args[0])
    if isinstance(expression, select):
        state, *choices = expression.args
        return select(state, *[log_of(choice) for choice in choices])
    if isinstance(expression, sympy.Pow) and expression.base.is_positive and expression.exp.is_real:
        return expression.exp * log_of(expression.base)
    if isinstance(expression, sympy.Mul) and all(factor.is_positive for factor in expression.args):
        return sympy.Add(*[log_of(factor) for factor in expression.args])
    return sympy.log(expression, evaluate=not expression.is_zero)


def log_of_complement(p: Expr) -> Expr:
    """``log(1 − p)`` for a probability p."""
    if isinstance(p, sigmoid):
        return logsigmoid(-p.args[0])
    if isinstance(p, select):
        state, *choices = p.args
        return select(state, *[log_of_complement(choice) for choice in choices])
    return log1m(p)


class _Torch:
    """The algebra of float64 tensors, for `Tape.run`."""

    def constant(self, value: Rational) -> Tensor:
        return torch.tensor(int(value.p) / int(value.q), dtype=torch.float64)

    def pi(self) -> Tensor:
        return torch.tensor(math.pi, dtype=torch.float64)

    def add(self, terms: Sequence[Tensor]) -> Tensor:
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def multiply(self, factors: Sequence[Tensor]) -> Tensor:
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product

    def power(self, base: Tensor, exponent: Rational) -> Tensor:
        if exponent == Rational(1, 2):
            return base.sqrt()
        return base ** (int(exponent) if exponent.is_Integer else int(exponent.p) / int(exponent.q))

    def call(self, function: str, arguments: Sequence[Tensor]) -> Tensor:
        if function in ("max", "min"):
            extreme = torch.maximum if function == "max" else torch.minimum
            result = arguments[0]
            for argument in arguments[1:]:
                result = extreme(result, argument)
            return result
        if function == "select":
            state, *choices = torch.broadcast_tensors(*arguments)
            result = choices[0]
            for position, choice in enumerate(choices[1:], 2):
                result = torch.where(state == position, choice, result)
            return result
        if function not in _CALLS:
            raise NotImplementedError(f"{function} has no torch face here")
        return _CALLS[function](*arguments)


_CALLS: dict[str, Callable[..., Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "abs": torch.abs,
    "sign": torch.sign,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "logsigmoid": torch.nn.functional.logsigmoid,
    "log1m": lambda p: torch.log1p(-p),
    "loggamma": torch.lgamma,
    "xlogy": torch.xlogy,
}
TORCH = _Torch()


def times_log(count: Tensor, log: Tensor) -> Tensor:
    """``count · log``, 0 where the count is."""
    # 0 · log 0 = 0: an outcome that needs no success has probability one under p = 0.
    return torch.where(count == 0, 0.0, count * log)


def log1p_square(v: Tensor) -> Tensor:
    """``log(1 + v²)``, where v² may overflow."""
    far = v.abs() > 1
    near = torch.log1p(torch.where(far, 0.0, v).square())
    return torch.where(far, 2 * torch.log(torch.hypot(torch.ones_like(v), torch.where(far, v, 1.0))), near)


def standard_gamma(shape: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Draws of Gamma(shape, 1)."""
    # Of a tiny shape, a draw may be smaller than any float64.
    return torch._standard_gamma(shape.expand(n).contiguous(), generator).clamp(min=_TINY)  # pyright: ignore[reportPrivateImportUsage]


def polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """``c_0 + c_1 x + c_2 x² + …`` by Horner's rule.

    >>> polynomial((1.0, 2.0), torch.tensor(3.0))
    tensor(7.)
    """
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total

"""What each torch operation is on real numbers, in the steps of a `Program` (`lowering`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from identkit.numeric.convolutions import along, average, convolution
from identkit.numeric.translator import Translator as T, Unknown, Value


def _function(name: str, *numbers: float) -> Callable[..., Value]:
    return lambda t, x: t.function(name, x, *numbers)


def _add(t: T, one: Any, two: Any, alpha: float = 1) -> Value:
    return t.add(one, t.multiply(two, alpha) if alpha != 1 else two)


def _subtract(t: T, one: Any, two: Any, alpha: float = 1) -> Value:
    return t.add(one, t.multiply(two, -alpha))


def _divide(t: T, one: Any, two: Any, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise Unknown("division with rounding")
    return t.multiply(one, t.reciprocal(two))


def _power(t: T, base: Any, exponent: Any) -> Value:
    if isinstance(exponent, Tensor) and exponent.numel() == 1:
        exponent = exponent.item()
    if isinstance(exponent, int | float):
        return t.function("power", base, exponent)
    if isinstance(base, int | float):
        base = torch.tensor(base, dtype=torch.float64)
    if isinstance(base, Tensor) and bool((base > 0).all()):
        return t.function("exp", t.multiply(exponent, t.function("log", base)))
    raise Unknown("a power of which both sides vary, or of a base that is not positive")


def _xlogy(t: T, one: Any, two: Any) -> Value:
    """``x log y``, and 0 where x is 0, whatever y."""
    if isinstance(two, Tensor) and bool((two > 0).all()):
        return t.multiply(one, t.function("log", two))
    if not isinstance(one, Tensor):
        raise Unknown("x log y where both vary")
    if bool((one == 0).all()):
        return t.together(torch.zeros_like(one, dtype=torch.float64), two)[0][0]
    if bool((one == 0).any()):
        # Put 1 under the logarithm where x is 0.
        (factor, argument), _ = t.together(one, two)
        blank = (one == 0).expand(factor.shape)
        two = t.move(
            torch.where, (blank, t.together(torch.ones(factor.shape), argument)[0][0], argument), {}, True
        )
        one = factor
    return t.multiply(one, t.function("log", two))


def _cross_entropy(
    t: T, logits: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: int = 1
) -> Value:
    """``softplus(f) − x f``, element by element."""
    if weight is not None or pos_weight is not None or reduction != 0:
        raise Unknown("a weighted or summed cross entropy")
    return _subtract(t, t.function("softplus", logits), t.multiply(target, logits))


def _affine(t: T, bias: Any, one: Any, two: Any, beta: float = 1, alpha: float = 1) -> Value:
    product = t.matmul(one, two)
    return _add(t, product if alpha == 1 else t.multiply(product, alpha), bias, beta)


def _vector(t: T, matrix: Any, vector: Any) -> Value:
    column = t.reshaped(vector, *t.value(vector).shape, 1)
    product = t.matmul(matrix, column)
    return t.reshaped(product, *product.shape[:-1])


def _dot(t: T, one: Any, two: Any) -> Value:
    return t.total(t.multiply(one, two), None)


def _sum(t: T, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return t.total(x, dim, keepdim)


def _mean(t: T, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    total = t.total(x, dim, keepdim)
    count = math.prod(t.value(x).shape) // max(1, math.prod(total.shape))
    return t.multiply(total, t.reciprocal(float(count)))


def _variance(t: T, x: Any, dim: Any = None, correction: float = 1, keepdim: bool = False) -> Value:
    centred = _subtract(t, x, _mean(t, x, dim, True))
    total = t.total(t.function("power", centred, 2), dim, keepdim)
    count = math.prod(t.value(x).shape) // max(1, math.prod(total.shape))
    return t.multiply(total, t.reciprocal(float(count - correction)))


def _norm(t: T, x: Any, p: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    if p == 2:
        return t.function("power", t.total(t.function("power", x, 2), dim, keepdim), 0.5)
    if p == 1:
        return t.total(t.function("leaky", x, -1), dim, keepdim)
    raise Unknown("norm")


# --- activations ---------------------------------------------------------------------------------------------


def _softplus(t: T, x: Any, beta: float = 1, threshold: float = 20) -> Value:
    """``log(1 + exp(βx))/β``; above a threshold torch gives x, which from 20 on differs by 2e-9 at most."""
    if threshold < 20:
        raise Unknown("a softplus that jumps down at its threshold")
    if beta == 1:
        return t.function("softplus", x)
    return t.multiply(t.function("softplus", t.multiply(x, beta)), t.reciprocal(beta))


def _gelu(t: T, x: Any, approximate: str = "none") -> Value:
    if approximate == "none":
        return t.multiply(x, t.function("normal_cdf", x))
    cubed = t.multiply(t.function("power", x, 3), 0.044715)
    inner = t.multiply(t.add(x, cubed), math.sqrt(2 / math.pi))
    return t.multiply(t.multiply(x, 0.5), t.add(t.function("tanh", inner), 1.0))


def _elu(t: T, x: Any, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    if min(alpha, scale, input_scale) <= 0:
        raise Unknown("an elu that does not rise")
    return t.function("elu", x, alpha, scale, input_scale)


def _celu(t: T, x: Any, alpha: float = 1) -> Value:
    if alpha != 1:
        raise Unknown("celu with a rounded 1/α")
    return t.function("elu", x, 1, 1, 1)


def _hard_sigmoid(t: T, x: Any) -> Value:
    """``min(max(x + 3, 0), 6)/6``."""
    return t.multiply(_clamp(t, t.add(x, 3.0), 0, 6), t.reciprocal(6.0))


def _prelu(t: T, x: Any, weight: Any) -> Value:
    """``relu(x) − w relu(−x)``; with one w, or w all equal, a leaky relu."""
    if isinstance(weight, Tensor) and bool((weight == weight.flatten()[0]).all()):
        return t.function("leaky", x, weight.flatten()[0].item())
    below = t.multiply(weight, t.function("leaky", t.negative(x), 0))
    return _subtract(t, t.function("leaky", x, 0), below)


def _weight_norm(t: T, direction: Any, size: Any, dim: int = 0) -> tuple[Value, Value]:
    """``v·g/‖v‖``, norms over all axes but one."""
    axes = [axis for axis in range(len(t.value(direction).shape)) if axis != dim]
    norm = _norm(t, direction, 2, axes, True)
    return t.multiply(direction, t.multiply(size, t.reciprocal(norm))), norm


def _hardtanh(t: T, x: Any, min_val: float = -1, max_val: float = 1) -> Value:
    return _clamp(t, x, min_val, max_val)


def _clamp(t: T, x: Any, min: Any = None, max: Any = None) -> Value:
    if min is not None:
        x = _maximum(t, x, min)
    return t.value(x) if max is None else _minimum(t, x, max)


def _maximum(t: T, one: Any, two: Any) -> Value:
    """``b + relu(a − b)``."""
    return t.add(two, t.function("leaky", _subtract(t, one, two), 0))


def _minimum(t: T, one: Any, two: Any) -> Value:
    return _subtract(t, two, t.function("leaky", _subtract(t, two, one), 0))


def _step(at_zero: float, swapped: bool = False) -> Callable[..., Value]:
    """Comparisons as 0 or 1."""

    def rule(t: T, one: Any, two: Any) -> Value:
        difference = _subtract(t, two, one) if swapped else _subtract(t, one, two)
        return t.function("step", difference, at_zero)

    return rule


def _complement(t: T, x: Any) -> Value:
    return t.add(1.0, t.negative(x))


def _where(t: T, condition: Any, one: Any, two: Any) -> Value:
    if isinstance(condition, Tensor):
        # A side that is nowhere taken, such as log 0, has no say.
        if bool(condition.all()) or not bool(condition.any()):
            taken = one if bool(condition.all()) else two
            return t.together(taken, torch.zeros(condition.shape))[0][0]
        return t.move(torch.where, (condition, *t.together(one, two)[0]), {}, indexed=True)
    return t.select(condition, one, two)


# --- normalisation and softmax ---------------------------------------------------------------------------------


def _logsumexp(t: T, x: Any, dim: Any, keepdim: bool = False) -> Value:
    return t.function("log", t.total(t.function("exp", x), dim, keepdim))


def _log_softmax(t: T, x: Any, dim: int, half_to_float: bool = False) -> Value:
    return _subtract(t, x, _logsumexp(t, x, [dim], True))


def _softmax(t: T, x: Any, dim: int, half_to_float: bool = False) -> Value:
    exponentials = t.function("exp", x)
    return t.multiply(exponentials, t.reciprocal(t.total(exponentials, [dim], True)))


def _batch_norm(
    t: T, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any
) -> tuple[Value, None, None]:
    """With fixed statistics an affine map of each channel."""
    training, eps = (rest[0], rest[2]) if len(rest) == 3 else (False, rest[1])
    if training:
        raise Unknown("batch statistics")
    scale = t.function("power", t.add(variance, eps), -0.5)
    if weight is not None:
        scale = t.multiply(scale, weight)
    result = t.multiply(_subtract(t, x, along(t, x, mean)), along(t, x, scale))
    return (result if bias is None else t.add(result, along(t, x, bias))), None, None


def _layer_norm(t: T, x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> tuple[Value, None, None]:
    axes = list(range(-len(shape), 0))
    scale = t.function("power", t.add(_variance(t, x, axes, 0, True), eps), -0.5)
    result = t.multiply(_subtract(t, x, _mean(t, x, axes, True)), scale)
    result = result if weight is None else t.multiply(result, weight)
    return (result if bias is None else t.add(result, bias)), None, None


def _group_norm(
    t: T, x: Any, weight: Any, bias: Any, n: int, channels: int, rest: int, groups: int, eps: float
) -> tuple[Value, None, None]:
    shape = t.value(x).shape
    rows = t.reshaped(x, n, groups, channels // groups * rest)
    centred = _subtract(t, rows, _mean(t, rows, [2], True))
    scale = t.function("power", t.add(_variance(t, rows, [2], 0, True), eps), -0.5)
    result = t.reshaped(t.multiply(centred, scale), *shape)
    result = result if weight is None else t.multiply(result, along(t, x, weight))
    return (result if bias is None else t.add(result, along(t, x, bias))), None, None


# --- what autograd leaves in the graph of a gradient, ∇φ -----------------------------------------------------------


def _tanh_backward(t: T, gradient: Any, result: Any) -> Value:
    return t.multiply(gradient, _complement(t, t.function("power", result, 2)))


def _sigmoid_backward(t: T, gradient: Any, result: Any) -> Value:
    return t.multiply(gradient, t.multiply(result, _complement(t, result)))


def _softplus_backward(t: T, gradient: Any, x: Any, beta: float, threshold: float) -> Value:
    if threshold < 20:
        raise Unknown("the slope of a softplus that jumps down at its threshold")
    return t.multiply(gradient, t.function("sigmoid", t.multiply(x, beta)))


def _threshold_backward(t: T, gradient: Any, x: Any, threshold: float) -> Value:
    return t.multiply(gradient, t.function("step", _subtract(t, x, threshold), 0))


def _leaky_relu_backward(t: T, gradient: Any, x: Any, slope: float, _: bool) -> Value:
    steps = t.function("step", x, 0)
    return t.multiply(gradient, t.add(t.multiply(steps, 1 - slope), slope))


def _elu_backward(
    t: T, gradient: Any, alpha: float, scale: float, inner: float, is_result: bool, x: Any
) -> Value:
    if is_result or (alpha, scale, inner) != (1, 1, 1):
        raise Unknown("elu_backward")
    # min(1, eˣ) = exp(−relu(−x))
    return t.multiply(gradient, t.function("exp", t.negative(t.function("leaky", t.negative(x), 0))))


def _same(t: T, x: Any, dtype: Any = None, **_: Any) -> Any:
    """Another floating dtype of the same real numbers."""
    if isinstance(x, Tensor):
        return x if dtype is None else x.to(dtype)
    if dtype is not None and not dtype.is_floating_point:
        raise Unknown("values rounded to integers")
    return x


RULES: dict[str, Callable[..., Any]] = {
    **{
        name: _function(name)
        for name in ("exp", "expm1", "log", "tanh", "sigmoid", "sin", "cos", "erf", "atan", "sinh")
    },
    "add": _add,
    "sub": _subtract,
    "rsub": lambda t, one, two, alpha=1: _subtract(t, two, one, alpha),
    "mul": lambda t, one, two: t.multiply(one, two),
    "div": _divide,
    "neg": lambda t, x: t.negative(x),
    "reciprocal": lambda t, x: t.reciprocal(x),
    "addcmul": lambda t, x, one, two, value=1: _add(t, x, t.multiply(one, two), value),
    "addcdiv": lambda t, x, one, two, value=1: _add(t, x, _divide(t, one, two), value),
    "pow": _power,
    "square": lambda t, x: t.function("power", x, 2),
    "sqrt": lambda t, x: t.function("power", x, 0.5),
    "rsqrt": lambda t, x: t.function("power", x, -0.5),
    "abs": lambda t, x: t.function("leaky", x, -1),
    "log1p": lambda t, x: t.function("log", t.add(x, 1.0)),
    "xlogy": _xlogy,
    "lgamma": _function("lgamma"),
    "binary_cross_entropy_with_logits": _cross_entropy,
    "mm": lambda t, one, two: t.matmul(one, two),
    "bmm": lambda t, one, two: t.matmul(one, two),
    "addmm": _affine,
    "baddbmm": _affine,
    "mv": _vector,
    "dot": _dot,
    "sum": _sum,
    "mean": _mean,
    "var": _variance,
    "linalg_vector_norm": lambda t, x, p=2, dim=None, keepdim=False, dtype=None: _norm(t, x, p, dim, keepdim),
    "norm": _norm,
    "relu": _function("leaky", 0),
    "leaky_relu": lambda t, x, slope=0.01: t.function("leaky", x, slope),
    "elu": _elu,
    "softplus": _softplus,
    "gelu": _gelu,
    "celu": _celu,
    "hardsigmoid": _hard_sigmoid,
    "hardswish": lambda t, x: t.multiply(x, _hard_sigmoid(t, x)),
    "_prelu_kernel": _prelu,
    "_weight_norm_interface": _weight_norm,
    "vdot": _dot,
    "silu": lambda t, x: t.multiply(x, t.function("sigmoid", x)),
    "mish": lambda t, x: t.multiply(x, t.function("tanh", t.function("softplus", x))),
    "log_sigmoid_forward": lambda t, x: (t.negative(t.function("softplus", t.negative(x))), None),
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": lambda t, x, low: _clamp(t, x, low),
    "clamp_max": lambda t, x, high: _clamp(t, x, None, high),
    "maximum": _maximum,
    "minimum": _minimum,
    "gt": _step(0),
    "ge": _step(1),
    "lt": _step(0, swapped=True),
    "le": _step(1, swapped=True),
    "logical_not": _complement,
    "bitwise_not": _complement,
    "where": _where,
    "logsumexp": _logsumexp,
    "_log_softmax": _log_softmax,
    "_softmax": _softmax,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "convolution": convolution,
    "avg_pool2d": average,
    "tanh_backward": _tanh_backward,
    "sigmoid_backward": _sigmoid_backward,
    "softplus_backward": _softplus_backward,
    "threshold_backward": _threshold_backward,
    "leaky_relu_backward": _leaky_relu_backward,
    "elu_backward": _elu_backward,
    "_to_copy": _same,
}

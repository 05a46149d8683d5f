"""Log densities of counts and waiting times whose large terms have been taken out of each other by hand.

``x log λ − λ − log Γ(x + 1)`` loses what its three terms share: at a rate of 10¹² all digits but five. With

    log Γ(a) = a log a − a + ρ(a)   and   D(a, m) = a log(a/m) + m − a ≥ 0,

ρ small and D the distance of a from a mean, nothing large is left to cancel. Two laws are enough, the others being
made of them: counts that add up to n are Poisson counts given their sum, shares are gamma variates over theirs.

    Poisson(x; m) = exp(−D(x, m) − ρ(x) − log x)             Gamma(x; a, b) = exp(−D(a, b x) − ρ(a) − log x)

Up to a hundred nothing is large: the definitions lose no more than 10⁻¹³ there, and are ten times as fast. Beyond,
roundings leave some 10⁻¹⁵ (1 + |log p| + |log x|) and what the last digit of the mean is worth, 10⁻¹⁶ |m − a|.

Source: Loader 2000, Fast and accurate computation of binomial probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.model.compiled.arithmetic import log1p_square, polynomial, times_log

# φ(a) = Σ_k c_k a^(1 − 2k), c_k = B_2k/(2k (2k − 1)): 1e-17 of it beyond a = 12
STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
    43867 / 244188,
)
SHIFT = 12
# (2 atanh r − 2 r)/(2 r³) = Σ_k r^2k/(2k + 3)
_EXCESS_SERIES = tuple(1 / (2 * k + 3) for k in range(7))
_EXCESS_SWITCH = 0.1
_FEW = 100
# Degrees of freedom so many that the law is normal to the last digit, and few enough for their products not to overflow.
_ENDLESS = 1e290
_HALF_LOG_2PI = math.log(2 * math.pi) / 2


def log_excess(e: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate ``f(e) = e − log(1 + e) ≥ 0``, about e²/2 near 0.

    There it is ``e r − 2 r³ (1/3 + r²/5 + …)`` with r = e/(2 + e), for log(1 + e) = 2 atanh r.

    Args:
        e: above −1, any shape.

    >>> log_excess(torch.tensor([0.0, 1e-12, 1.0], dtype=torch.float64))
    tensor([0.0000e+00, 5.0000e-25, 3.0685e-01], dtype=torch.float64)
    """
    near = e.clamp(-_EXCESS_SWITCH, _EXCESS_SWITCH)
    r = near / (2 + near)
    square = r.square()
    total = polynomial(_EXCESS_SERIES, square)
    far = e.clamp(min=-1 + 1e-17)
    return torch.where(e.abs() <= _EXCESS_SWITCH, r * (near - 2 * square * total), far - torch.log1p(far))


def stirling_remainder(a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate ``φ(a) = log Γ(a) − [(a − ½) log a − a + ½ log 2π]``, positive and falling to 0.

    Args:
        a: positive, any shape.

    >>> round(stirling_remainder(torch.tensor(0.5, dtype=torch.float64)).item(), 12)
    0.15342640972
    """
    tail = _series(torch.where(a < SHIFT, a + SHIFT, a))
    if not bool((a < SHIFT).any()):
        return tail
    # φ(a) − φ(a + 1) = (a + ½) log(1 + 1/a) − 1 > 0
    low = a.clamp(max=SHIFT)
    steps = sum((low + j + 0.5) * torch.log1p(1 / (low + j)) - 1 for j in range(SHIFT))
    return tail + torch.where(a < SHIFT, steps, 0.0)


def log_gamma_rest(a: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate the small part of log Γ: ``ρ(a) = log Γ(a) − (a log a − a) = φ(a) − ½ log(a/2π)``, to 10⁻¹⁵.

    Args:
        a: positive, any shape.

    >>> round(log_gamma_rest(torch.tensor(1.0, dtype=torch.float64)).item(), 12)
    1.0
    """
    few = a < SHIFT
    large = torch.where(few, float(SHIFT), a)
    found = _series(large) - large.log() / 2 + _HALF_LOG_2PI
    if not bool(few.any()):
        return found
    low = torch.where(few, a, 1.0)
    return torch.where(few, torch.lgamma(low) - low * low.log() + low, found)


def log_factorial_rest(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Evaluate the small part of ``log x!``: ``log x! − (x log x − x) = ρ(x) + log x``, and 0 at x = 0.

    Args:
        x: non-negative, any shape.

    >>> log_factorial_rest(torch.tensor([0.0, 1.0], dtype=torch.float64))
    tensor([0., 1.], dtype=torch.float64)
    """
    safe = torch.where(x > 0, x, 1.0)
    return torch.where(x > 0, log_gamma_rest(safe) + safe.log(), 0.0)


def deviance(
    x: Float[Tensor, "*#n"],
    mean: Float[Tensor, "*#n"],
    difference: Float[Tensor, "*#n"] | None = None,
    log_mean: Float[Tensor, "*#n"] | None = None,
) -> Float[Tensor, "*n"]:
    """Evaluate ``D(x, m) = x log(x/m) + m − x = x f((m − x)/x) ≥ 0``, and m where x = 0.

    Source: Loader 2000 (bd0).

    Args:
        x: non-negative.
        mean: m ≥ 0.
        difference: ``m − x``, where it is known better than by subtraction.
        log_mean: ``log m``, where it is known though m may underflow.

    >>> two, three = torch.tensor(2.0).double(), torch.tensor(3.0).double()
    >>> round(deviance(two, three, three - two).item(), 6)
    0.18907
    """
    some = x > 0
    safe = torch.where(some, x, 1.0)
    moved = (mean - x if difference is None else difference) / safe
    moved = torch.where(some, moved, 0.0).clamp(max=torch.finfo(safe.dtype).max)
    # A mean far below x is lost beside it, but not in its logarithm.
    far = moved < -0.5
    if log_mean is None:
        log_ratio = torch.where(far, mean / safe, 1.0).log()
    else:
        log_ratio = torch.where(far, log_mean - safe.log(), 0.0)
    each = torch.where(far, moved - log_ratio, log_excess(moved.clamp(min=-0.5)))
    return torch.where(some, safe * each, mean)


def log_poisson(
    x: Float[Tensor, "*#n"], rate: Float[Tensor, "*#n"], log_rate: Float[Tensor, "*#n"] | None = None
) -> Float[Tensor, "*n"]:
    """``log Poisson(x; λ) = −D(x, λ) − ρ(x) − log x`` in nats, −λ at 0.

    Args:
        x: counts.
        rate: λ ≥ 0.
        log_rate: log λ, where it is known though λ may underflow.

    >>> log_poisson(torch.tensor(0.0).double(), torch.tensor(2.0).double())
    tensor(-2., dtype=torch.float64)
    """
    log = rate.log() if log_rate is None else log_rate
    return _either(
        x < _FEW,
        lambda: times_log(x, log) - rate - torch.lgamma(x + 1),
        lambda: -deviance(x, rate, log_mean=log_rate) - log_factorial_rest(x),
    )


def log_multinomial(
    x: Float[Tensor, "*#n #k"], p: Float[Tensor, "*#n #k"], log_p: Float[Tensor, "*#n #k"] | None = None
) -> Float[Tensor, " *n"]:
    """``log [n!/Π x_i! Π p_i^x_i] = Σ_i log Poisson(x_i; n p_i) − log Poisson(n; n)`` in nats, n = Σ x_i.

    Args:
        x: counts, the categories on the last axis.
        p: probabilities that sum to one.
        log_p: their logarithms, where these are known though p may underflow.

    >>> round(log_multinomial(torch.tensor([2.0, 1.0]).double(), torch.tensor([0.5, 0.5]).double()).exp().item(), 9)
    0.375
    """
    count = x.sum(-1, keepdim=True)
    log = p.log() if log_p is None else log_p
    return _either(
        count[..., 0] < _FEW,
        lambda: torch.lgamma(count[..., 0] + 1) + (times_log(x, log) - torch.lgamma(x + 1)).sum(-1),
        lambda: (
            log_poisson(x, count * p, count.clamp(min=1).log() + log).sum(-1)
            + log_factorial_rest(count)[..., 0]
        ),
    )


def log_binomial(
    x: Float[Tensor, "*#n"],
    count: Float[Tensor, "*#n"] | int,
    chance: Float[Tensor, "*#n"],
    logs: Sequence[Float[Tensor, "*#n"]] | None = None,
) -> Float[Tensor, " *n"]:
    """``log Binomial(x; N, p)`` in nats: what is won and what is lost, of N.

    Args:
        x: successes, 0 to N.
        count: N.
        chance: p in [0, 1].
        logs: log p and log(1 − p), where these are known though p is rounded to 0 or 1.

    >>> log_binomial(torch.tensor([0.0, 1.0]).double(), 1, torch.tensor(0.25).double()).exp()
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    # 1 − p from log p: p may be so close to one that its last digit is all that is left of 1 − p.
    rest = 1 - chance if logs is None else -torch.expm1(logs[0])
    return log_multinomial(
        _side_by_side(x, count - x),
        _side_by_side(chance, rest),
        None if logs is None else _side_by_side(*logs),
    )


def log_negative_binomial(
    x: Float[Tensor, "*#n"],
    size: Float[Tensor, "*#n"],
    chance: Float[Tensor, "*#n"],
    logs: Sequence[Float[Tensor, "*#n"]],
) -> Float[Tensor, "*n"]:
    """``log [Γ(x + r)/(Γ(r) x!) p^r (1 − p)^x] = log Poisson(x; n − n p) + log Gamma(1; r, n p) + ρ(n)``, n = x + r.

    Args:
        x: failures before the r-th success.
        size: r > 0; ∞, as of a size that overflows, puts all mass beyond every x.
        chance: p in (0, 1].
        logs: log p and log(1 − p).

    >>> p = torch.tensor(0.25).double()
    >>> log_negative_binomial(torch.tensor([0.0, 1.0]).double(), 1 + 0 * p, p, (p.log(), (-p).log1p())).exp()
    tensor([0.2500, 0.1875], dtype=torch.float64)
    """
    endless, size = _overflown(size)
    total = x + size

    def careful() -> Tensor:
        won, lost = (total.log() + log for log in logs)
        failures = log_poisson(x, total * -torch.expm1(logs[0]), lost)
        return failures + log_gamma(torch.ones_like(x), size, total * chance, won) + log_gamma_rest(total)

    found = _either(
        total < _FEW,
        lambda: (
            (torch.lgamma(total) - torch.lgamma(size) - torch.lgamma(x + 1))
            + size * logs[0]
            + times_log(x, logs[1])
        ),
        careful,
    )
    return torch.where(endless, -math.inf, found)


def log_gamma(
    x: Float[Tensor, "*#n"],
    shape: Float[Tensor, "*#n"],
    rate: Float[Tensor, "*#n"],
    log_rate: Float[Tensor, "*#n"] | None = None,
) -> Float[Tensor, "*n"]:
    """``log Gamma(x; a, b) = −D(a, b x) − ρ(a) − log x`` in nats; its limit at 0.

    Args:
        x: non-negative.
        shape, rate: a, b > 0; of a = ∞, as of a shape that overflows, no mass is left at any x.
        log_rate: log b, where it is known though b may underflow.

    >>> log_gamma(torch.tensor(1.0).double(), torch.tensor(1.0).double(), torch.tensor(1.0).double())
    tensor(-1., dtype=torch.float64)
    """
    endless, shape = _overflown(shape)
    log = rate.log() if log_rate is None else log_rate

    def careful() -> Tensor:
        log_x = torch.where(x > 0, x, 1.0).log()
        inside = -deviance(shape, rate * x, log_mean=log + log_x) - log_gamma_rest(shape) - log_x
        return torch.where(x > 0, inside, -math.inf)

    found = _either(
        shape < _FEW,
        lambda: shape * log - rate * x + torch.xlogy(shape - 1, x) - torch.lgamma(shape),
        careful,
    )
    return torch.where(endless, -math.inf, found)


def log_dirichlet(x: Float[Tensor, "*#n k"], shapes: Float[Tensor, "*#n k"]) -> Float[Tensor, " *n"]:
    """``log Dirichlet(x; a) = Σ_i log Gamma(x_i; a_i, s) − log Gamma(1; s, s)`` in nats, s = Σ a_i.

    Args:
        x: shares, which sum to one.
        shapes: a > 0; where one is ∞ or all are 0, as of shapes that overflow or underflow, none is left inside.

    >>> log_dirichlet(torch.tensor([0.25, 0.75]).double(), torch.tensor([2.0, 1.0]).double()).exp()
    tensor(0.5000, dtype=torch.float64)
    """
    total = shapes.sum(-1, keepdim=True)
    gone = ~((total > 0) & (total < math.inf))
    shapes = torch.where(gone, 1.0, shapes)
    total = torch.where(gone, float(shapes.shape[-1]), total)
    found = _either(
        total[..., 0] < _FEW,
        lambda: torch.lgamma(total[..., 0]) + (torch.xlogy(shapes - 1, x) - torch.lgamma(shapes)).sum(-1),
        lambda: log_gamma(x, shapes, total).sum(-1) + log_gamma_rest(total)[..., 0],
    )
    return torch.where(gone[..., 0], -math.inf, found)


def log_student(t: Float[Tensor, "*#n"], df: Float[Tensor, "*#n"]) -> Float[Tensor, "*n"]:
    """``log [Γ(a + ½)/(Γ(a) √(2πa)) (1 + t²/2a)^(−a − ½)]`` in nats, a = ν/2: right for 1 as for 10¹² degrees of freedom.

    Its constant is ``ρ(a + ½) − ρ(a) + D(a + ½, a) − ½ log 2π``.

    Args:
        t: where, in units of the scale.
        df: ν > 0; ∞ is the normal law.

    >>> log_student(torch.tensor(0.0).double(), torch.tensor(1.0).double()).exp() * math.pi
    tensor(1., dtype=torch.float64)
    """
    df = df.clamp(max=_ENDLESS)
    a = df / 2
    constant = _either(
        a < _FEW,
        lambda: torch.lgamma(a + 0.5) - torch.lgamma(a) - a.log() / 2,
        lambda: log_gamma_rest(a + 0.5) - log_gamma_rest(a) + deviance(a + 0.5, a),
    )
    return constant - _HALF_LOG_2PI - (a + 0.5) * log1p_square(t / df.sqrt())


def _overflown(shape: Tensor) -> tuple[Tensor, Tensor]:
    """Where a shape is ∞, and the shapes with something harmless there."""
    endless = shape == math.inf
    return endless, torch.where(endless, 1.0, shape)


def _either(few: Tensor, plain: Callable[[], Tensor], careful: Callable[[], Tensor]) -> Tensor:
    """The plain form where terms are few, the careful one elsewhere; neither is computed for nothing."""
    if bool(few.all()):
        return plain()
    if not bool(few.any()):
        return careful()
    return torch.where(few, plain(), careful())


def _side_by_side(one: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(one, other), -1)


def _series(a: Tensor) -> Tensor:
    inverse = 1 / a
    return polynomial(STIRLING, inverse.square()) * inverse

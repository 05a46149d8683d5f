"""Maximum likelihood of hyperparameters, a handful of smooth unknowns: damped Newton steps uphill."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.em import Convergence, ConvergenceWarning

_FAR = 20.0
"""How far from its start the logarithm of a hyperparameter counts as lost to infinity."""
_LONGEST = 3.0
_ADRIFT = 0.1
"""A step this long that gains nothing goes along a plateau: the likelihood rises for ever, ever slower."""


def climb(
    height: Callable[[Tensor], Tensor],
    start: Float[Tensor, " k"],
    names: Sequence[str],
    tolerance: float = 1e-10,
    iterations: int = 200,
) -> tuple[Float[Tensor, " k"], Convergence]:
    """Maximise a smooth function of few unknowns, each the logarithm of a positive hyperparameter or a real number.

    Newton's step on the Hessian made negative definite (its eigenvalues' absolute values), shortened until the
    height rises: monotone, quadratic at the end.

    Source: Nocedal & Wright 2006, sections 3.3 and 3.4.

    Args:
        height: the log-likelihood in nats, differentiable twice by torch.
        start: where to begin.
        names: what the unknowns are called, for the warning.
        tolerance: stop when a step gains less than this, relative to 1 + the height's size.
        iterations: how many steps at most.

    Raises:
        ValueError: the height is not finite at the start.

    Returns:
        The highest point and how it was reached. It warns with `ConvergenceWarning` where the climb did not end, as
        when the likelihood rises for ever towards a degenerate prior.

    >>> best, convergence = climb(lambda t: -((t - 3) ** 4).sum() - t.square().sum(), torch.zeros(1), ["t"])
    >>> round(best.item(), 4), convergence.converged
    (2.0, True)
    """
    point = start.to(torch.float64)
    value = float(height(point))
    if not math.isfinite(value):
        raise ValueError(
            f"x should have a log-likelihood where a fit starts, got {value}: squares of so large or small numbers "
            "are no doubles, and another unit may help"
        )
    history, converged, lost = [value], False, ""
    for _ in range(iterations):
        step, gain = _newton(height, point)
        scale = 1 + abs(value)
        if gain <= tolerance * scale:
            longest = step.abs()
            if float(longest.max()) > _ADRIFT:
                lost = names[int(longest.argmax())]
                break
            # The last step is taken where it does not lower the height: it halves the digits still missing.
            better = float(height(point + step))
            if better >= value:
                point, value = point + step, better
            history.append(value)
            converged = True
            break
        length = 1.0
        while (better := float(height(point + length * step))) < value + 1e-4 * length * gain or math.isnan(
            better
        ):
            length /= 2
            if length < 1e-12:
                break
        if length < 1e-12:
            converged = gain <= 1e-7 * scale
            break
        point, value = point + length * step, better
        history.append(value)
        far = (point - start).abs() > _FAR
        if bool(far.any()):
            lost = names[int(far.nonzero()[0])]
            break
    found = Convergence(history=tuple(history), converged=converged, restarts=(history[-1],))
    if not converged:
        reason = (
            f"{lost} runs away: the data ask for a degenerate prior" if lost else "more iterations may help"
        )
        warnings.warn(f"{found}; {reason}", ConvergenceWarning, stacklevel=3)
    return point, found


def _newton(height: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, float]:
    """The uphill step and the gain that it promises to second order."""
    here = point.clone().requires_grad_()
    (slope,) = torch.autograd.grad(height(here), here, create_graph=True)
    bend = torch.stack([torch.autograd.grad(entry, here, retain_graph=True)[0] for entry in slope])
    slope = slope.detach()
    values, vectors = torch.linalg.eigh((bend + bend.T) / 2)
    size = values.abs().clamp(min=1e-12 * float(values.abs().max()) + 1e-300)
    step = vectors @ ((vectors.T @ slope) / size)
    longest = float(step.abs().max())
    if longest > _LONGEST:
        step = step * (_LONGEST / longest)
    return step, float((slope * step).sum()) / 2

"""The moments of ℓ under the prior of a state path, from the prior's own factor: no smoother is involved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from identkit.classical.state_space.data import Seen
from identkit.classical.state_space.kalman import spreads
from identkit.classical.state_space.kalman_scan import Array, np_of, scan, zeros
from identkit.model.protocol import Flatness

_EPS = 2.0**-52
_TINY = 1e-300
_DENSE = 400
"""Up to this length times dimension, the prior's factor is written out: its cost is the cube of that."""
_DENSE_WORK = 4e9


def path_flatness(
    transition: Array, root: Array, design: Array, seen: Seen, tensor: Callable[[Array], Tensor]
) -> Flatness:
    """Give the moments of ``ℓ = −½|r − W z|²`` + const under ``z = L w``, w standard normal.

    With M = WL, ``V = ½‖MᵀM‖² + |Mᵀr|²``; ω = ∞ unless M = 0. The KL of the path is that of w, whose law has the
    log-Sobolev constant 1 (that of z itself has 1/λ_max(LLᵀ)), so gradient and shift are those in w: with M = U s Vᵀ,
    ``|E_Q w|² = Σ (s/(1 + s²))²(uᵀr)²`` and ``E_Q|∇ℓ|² = |E_Q w|² + Σ s⁴/(1 + s²)``, on their safe sides (T4.4).

    For long sequences V follows from recursions in O(T), and the other two give way to bounds under the prior:
    ``|E_Q w|² ≤ min(|Mᵀr|², |r|²/4)`` and ``Σ s⁴/(1 + s²) ≤ min(‖M‖², ‖MᵀM‖²)``.

    Source: theory/T4; moments of a Gaussian quadratic form.

    Args:
        transition: F, (T, k, k) with F_1 = 0.
        root: G, (T, k, k).
        design: W, (g, T, p, k).
        seen: r and its size.
        tensor: makes a torch tensor of an array.
    """
    g, length, p, k = design.shape
    size = length * max(p, k)
    parts = _dense if size <= _DENSE and g * size**3 <= _DENSE_WORK else _recursive
    residuals = seen.residuals
    largest, square, slope, shift, rest, exact = (
        tensor(part) for part in parts(transition, root, design, residuals)
    )
    backward = 16 * (min(length, 1000) * (p + k) + 2) * _EPS
    sizes, norm = tensor(seen.sizes), tensor((residuals**2).sum((1, 2)) ** 0.5)
    variance = square / 2 + slope
    scale, steep = largest.sqrt(), slope.sqrt()
    slope_error = backward * scale * (sizes + norm)
    pushed = shift.sqrt()
    moved = backward * scale * norm + scale.clamp(max=0.5) * backward * (scale * pushed + sizes)
    lowest = torch.where(exact > 0, (pushed - moved).clamp(min=0.0).square(), 0.0)
    return Flatness(
        variance=variance,
        variance_error=2 * steep * slope_error + slope_error.square() + backward * variance + _TINY,
        oscillation=torch.zeros_like(variance).masked_fill(variance > 0, math.inf),
        log_sobolev=1.0,
        gradient_second_moment=(pushed + moved).square() + rest * (1 + backward),
        mean_shift=lowest,
    )


def _dense(transition: Array, root: Array, design: Array, residuals: Array) -> Sequence[Array]:
    xp = np_of(residuals)
    g, length, p, k = design.shape
    n = len(residuals)
    lower, rows = zeros(root, (k, length * k)), []
    for t in range(length):
        lower = transition[t] @ lower
        lower[:, t * k : (t + 1) * k] = root[t]
        rows.append(design[:, t] @ lower)
    whole = xp.stack(rows, 1).reshape(g, length * p, length * k)
    left, values, _ = xp.linalg.svd(whole, full_matrices=False)
    data = residuals.reshape(n, 1, length * p)
    squares = values**2
    along = (data @ left)[:, 0]
    slope = ((data @ whole)[:, 0] ** 2).sum(-1)
    shift = ((values / (1 + squares) * along) ** 2).sum(-1)
    rest = (squares**2 / (1 + squares)).sum(-1)
    nothing = xp.zeros_like(slope)
    return (
        squares[:, 0] + nothing,
        (squares**2).sum(-1) + nothing,
        slope,
        shift,
        rest + nothing,
        nothing + 1,
    )


def _recursive(transition: Array, root: Array, design: Array, residuals: Array) -> Sequence[Array]:
    xp = np_of(residuals)
    spread = spreads(transition, root)
    turned = design.swapaxes(-1, -2)
    information = turned @ design
    inside = spread @ information
    seen_twice = inside @ spread  # P A P

    def forward(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        before = at[0] @ state[0] @ at[0].swapaxes(-1, -2)
        return (before + at[1], state[1]), (before, state[1])

    def adjoint(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
        pull = state[1] + at[1]
        return (state[0], at[0].swapaxes(-1, -2) @ pull), (state[0], pull)

    earlier = scan(forward, (transition[None], seen_twice), False)[0]
    diagonal = range(spread.shape[-1])
    trace = inside[..., diagonal, diagonal].sum((-1, -2))
    square = (inside * inside.swapaxes(-1, -2)).sum((1, 2, 3)) + 2 * (information * earlier).sum((1, 2, 3))
    pulls = turned @ residuals[..., None]
    score = scan(adjoint, (transition[None], pulls), True)[1]
    slope = ((root.swapaxes(-1, -2) @ score) ** 2).sum((1, 2, 3))
    nothing = xp.zeros_like(slope)
    norm = (residuals**2).sum((1, 2))
    return (
        trace + nothing,
        square + nothing,
        slope,
        xp.minimum(slope, norm / 4),
        xp.minimum(trace, square) + nothing,
        nothing,
    )

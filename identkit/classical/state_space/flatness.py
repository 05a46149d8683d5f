"""The moments of ℓ under the prior of a state path, from the prior's own factor: no smoother is involved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from identkit.classical.state_space.chain import Block, Chain, timed
from identkit.classical.state_space.kalman import spreads
from identkit.classical.state_space.kalman_scan import Array, carried, diagonal, np_of, transposed, zeros
from identkit.model.protocol import Flatness

_EPS = 2.0**-52
_TINY = 1e-300
_DENSE = 400
"""Up to this length times dimension, the prior's factor is written out: its cost is the cube of that."""
_DENSE_WORK = 4e9


def path_flatness(chain: Chain, values: Tensor, observed: Tensor) -> Flatness:
    """Give the moments of ``ℓ = −½|r − W z|²`` + const under ``z = L w``, w standard normal.

    With M = WL, ``V = ½‖MᵀM‖² + |Mᵀr|²``; ω = ∞ unless M = 0. The KL of the path is that of w, whose law has the
    log-Sobolev constant 1 (that of z itself has 1/λ_max(LLᵀ)), so gradient and shift are those in w: with M = U s Vᵀ,
    ``|E_Q w|² = Σ (s/(1 + s²))²(uᵀr)²`` and ``E_Q|∇ℓ|² = |E_Q w|² + Σ s⁴/(1 + s²)``, on their safe sides (T4.4).

    For long sequences V follows from recursions in O(T), and the other two give way to bounds under the prior:
    ``|E_Q w|² ≤ min(|Mᵀr|², |r|²/4)`` and ``Σ s⁴/(1 + s²) ≤ min(‖M‖², ‖MᵀM‖²)``.

    Source: theory/T4; moments of a Gaussian quadratic form.

    Args:
        chain: the model, where the sequences lie.
        values: the sequences, (n, T, p).
        observed: what of them is not missing.
    """
    n, length, p = values.shape
    k = len(chain.initial_mean)
    g = 1 if chain._shared(observed) else n
    size = length * max(p, k)
    dense = size <= _DENSE and g * size**3 <= _DENSE_WORK
    columns = (_dense if dense else _recursive)(chain, values, observed)
    largest, square, slope, shift, rest, sizes, norms = (torch.cat(column) for column in columns)
    backward = 16 * (min(length, 1000) * (p + k) + 2) * _EPS
    sizes, norm = sizes.sqrt(), norms.sqrt()
    variance = square / 2 + slope
    scale, steep = largest.sqrt(), slope.sqrt()
    slope_error = backward * scale * (sizes + norm)
    pushed = shift.sqrt()
    moved = backward * scale * norm + scale.clamp(max=0.5) * backward * (scale * pushed + sizes)
    lowest = (pushed - moved).clamp(min=0.0).square() if dense else torch.zeros_like(variance)
    return Flatness(
        variance=variance,
        variance_error=2 * steep * slope_error + slope_error.square() + backward * variance + _TINY,
        oscillation=torch.zeros_like(variance).masked_fill(variance > 0, math.inf),
        log_sobolev=1.0,
        gradient_second_moment=(pushed + moved).square() + rest * (1 + backward),
        mean_shift=lowest,
    )


def _dense(chain: Chain, values: Tensor, observed: Tensor) -> list[list[Tensor]]:
    """λ_max(MᵀM), ‖MᵀM‖², |Mᵀr|², |E_Q w|², Σ s⁴/(1 + s²), the squared rounding of r and |r|², each in blocks."""
    length, p = values.shape[1:]
    forward, root, _ = chain._steps(length)
    k = root.shape[-1]
    lower, steps = zeros(root, (k, length * k)), []
    for t in range(length):
        lower = forward[t] @ lower
        lower[:, t * k : (t + 1) * k] = root[t]
        steps.append(lower + 0.0)
    factor, shared = np_of(root).stack(steps), chain._shared(observed)
    found, svd = [], None
    for rows in chain._rows(values, observed, None if shared else 4 * (length * max(p, k)) ** 2):
        seen = chain._seen(values[rows], observed[rows])
        if svd is None or not shared:
            svd = _decomposed(timed(seen.design, length) @ factor)
        whole, left, singular = svd
        squares, data = singular**2, seen.residuals.reshape(-1, 1, length * p)
        along, pulled = (data @ left)[:, 0], (data @ whole)[:, 0]
        fourth = squares**2
        parts = (
            squares[:, 0],
            fourth.sum(-1),
            (pulled**2).sum(-1),
            ((singular / (1 + squares) * along) ** 2).sum(-1),
            (fourth / (1 + squares)).sum(-1),
            seen.sizes**2,
            (data**2).sum((1, 2)),
        )
        found.append([chain._tensor(part + 0 * parts[2]) for part in parts])
    return list(map(list, zip(*found, strict=True)))


def _decomposed(design: Array) -> tuple[Array, Array, Array]:
    """M, (g, T p, T k), its left singular vectors and its singular values."""
    whole = design.reshape(len(design), -1, design.shape[-1])
    left, singular, _ = np_of(whole).linalg.svd(whole, full_matrices=False)
    return whole, left, singular


def _recursive(chain: Chain, values: Tensor, observed: Tensor) -> list[list[Tensor]]:
    """What `_dense` gives, or bounds of it, from recursions over pieces of time."""
    found = []
    for block in chain._blocks(values, observed, tables=True, matrices=10):
        trace, square, sizes, norms = _forward(chain, block)
        slope = _backward(chain, block)
        least = np_of(slope).minimum
        parts = (trace, square, slope, least(slope, norms / 4), least(trace, square), sizes, norms)
        found.append([chain._tensor(part + 0 * slope) for part in parts])
    return list(map(list, zip(*found, strict=True)))


def _forward(chain: Chain, block: Block) -> list[Array]:
    """‖M‖² and ‖MᵀM‖² = Σ_t tr (PA)² + 2 Σ_{s<t} …, P the prior's covariances; the squared rounding of r, and |r|²."""
    prior = earlier = None
    sums: list[Array] = []
    for times, make in block.pieces:
        seen = make()
        transition, root = chain._forward(times)
        spread = spreads(transition, root, prior)
        design = timed(seen.design, len(times), block.apart)
        information = transposed(design) @ design
        inside = spread @ information
        twice = inside @ spread  # P A P
        start = None if earlier is None else (earlier, zeros(earlier, earlier.shape))
        before = carried(_gathered, (transition[None], twice), False, start)[0][0]
        prior, earlier = spread[-1] + 0.0, before[:, -1] + twice[:, -1]
        found = [
            diagonal(inside).sum((-1, -2)),
            (inside * transposed(inside)).sum((1, 2, 3)) + 2 * (information * before).sum((1, 2, 3)),
            seen.sizes**2,
            (seen.residuals**2).sum((1, 2)),
        ]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    return sums


def _gathered(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
    before = at[0] @ state[0] @ transposed(at[0])
    return (before + at[1], state[1]), (before, state[1])


def _backward(chain: Chain, block: Block) -> Array:
    """|Mᵀr|²."""
    score, total = None, 0.0
    for times, make in reversed(block.pieces):
        seen = make()
        transition, root = chain._forward(times)
        pulls = transposed(timed(seen.design, len(times), block.apart)) @ seen.residuals[..., None]
        outputs, score = carried(_pulled, (transition[None], pulls), True, score)
        total = total + ((transposed(root) @ outputs[1]) ** 2).sum((1, 2, 3))
    return total


def _pulled(state: Sequence[Array], at: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]]:
    pull = state[1] + at[1]
    return (state[0], transposed(at[0]) @ pull), (state[0], pull)

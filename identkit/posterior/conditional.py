"""What the data say about one latent given all the others: one-dimensional quadrature through posterior draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.posterior.hamiltonian import LogLikelihood
from identkit.posterior.unbounded import Unbounded

_NODES = 10
_SKIPPED = (2, 7)  # without these nodes the rule is of degree 7: a second opinion at no cost
_TOLERANCE = 1e-3  # of a panel's part in the integral
_FALL = 4.0  # nats from the highest node to its neighbours that two rules can be trusted with
_DOUBT = 0.25  # of that fall: how far off the height of a peak between nodes may be
_ROUNDS = 60
_QUANTILES = (1e-3, 0.02, 0.15, 0.5, 0.85, 0.98, 1 - 1e-3)
_PRIOR_DRAWS = 8192
_REACH = 1.0  # beyond the draws from the prior, in units of their range


def conditional_information(
    prior: Unbounded, log_likelihood: LogLikelihood, z: Float[Tensor, "m n k"], seed: int = 0
) -> tuple[Float[Tensor, "m n k"], Float[Tensor, "m n k"]]:
    """Compute ``KL(p(z_j | z_−j, x) ‖ p(z_j | z_−j))`` at each of m posterior draws of each of n data, nats.

    Its mean over draws is `kl_conditional`: 0 iff ℓ ignores z_j (theory/T3). Along the line through the draw, panels of
    Gauss-Legendre nodes are halved where they matter and two rules disagree, or where a parabola through the highest
    nodes sees a peak between them. On the nodes' discrete law ``KL = E_P[r eʳ − expm1 r]``, ``r = log dQ/dP``, which is
    never negative, and exactly zero where ℓ is constant. Beside it stands by how much the lesser rule differs.

    Args:
        prior: with independent or Gaussian latents, whose conditionals are known.
        log_likelihood: rows (m,) and z (m, k) → (m,), as in `annealed`.
        z: (m, n, k) draws from the posteriors.
        seed: of the draws from the prior that show where it lives.

    Raises:
        ValueError: a prior whose conditionals are not known.
    """
    m, n, k = z.shape
    u = prior.coordinates(z.reshape(-1, k))
    rows = torch.arange(n, device=z.device).repeat(m)
    spread = prior.coordinates(prior.sample(_PRIOR_DRAWS, seed))
    columns = [
        _along(_Lines(prior, log_likelihood, u, rows, j), _edges(prior, spread, u, j)) for j in range(k)
    ]
    value, error = (torch.stack(column, dim=1).reshape(m, n, k) for column in zip(*columns, strict=True))
    return value, error


@dataclass(frozen=True)
class _Lines:
    """Lines through u along coordinate j."""

    prior: Unbounded
    log_likelihood: LogLikelihood
    u: Float[Tensor, "lines k"]
    rows: Int[Tensor, " lines"]
    j: int

    def heights(self, lines: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """log prior and ℓ at t (panels, nodes) on the panels' lines."""
        line = lines.repeat_interleave(t.shape[1])
        u = self.u[line]
        u[:, self.j] = t.reshape(-1)
        prior = self.prior.log_conditional(u, self.j)
        likelihood = self.log_likelihood(self.rows[line], self.prior.latents(u)).to(torch.float64)
        return prior.reshape(t.shape), likelihood.reshape(t.shape)


@dataclass(frozen=True)
class _Panels:
    line: Int[Tensor, " p"]
    low: Float[Tensor, " p"]
    high: Float[Tensor, " p"]
    prior: Float[Tensor, "p nodes"]
    """log p at the nodes, with the weight of the rule."""
    likelihood: Float[Tensor, "p nodes"]

    def only(self, chosen: Tensor) -> _Panels:
        return _Panels(**{name: value[chosen] for name, value in vars(self).items()})

    def beside(self, other: _Panels) -> _Panels:
        return _Panels(
            **{name: torch.cat([value, getattr(other, name)]) for name, value in vars(self).items()}
        )


def _edges(prior: Unbounded, spread: Tensor, u: Tensor, j: int) -> Tensor:
    """Where each line is first cut: (lines, edges), at quantiles of the prior, far beyond it, and at the draw."""
    if prior.gaussian is not None:
        # Along the line the prior is N(m − Σ_{i≠j} Λ_ji (u_i − m_i)/Λ_jj, 1/Λ_jj).
        mean, precision = prior.gaussian
        centre = u[:, j] - (u - mean) @ precision[j] / precision[j, j]
        standard = torch.tensor([-9.0, -3.0, -1.0, 0.0, 1.0, 3.0, 9.0], dtype=torch.float64, device=u.device)
        cuts = centre[:, None] + standard / precision[j, j].sqrt()
    else:
        drawn = spread[:, j]
        levels = torch.tensor(_QUANTILES, dtype=torch.float64, device=u.device)
        width = _REACH * (drawn.amax() - drawn.amin())
        ends = torch.stack([drawn.amin() - width, drawn.amax() + width])
        cuts = torch.cat([drawn.quantile(levels), ends]).expand(len(u), -1)
    return torch.cat([cuts, u[:, j : j + 1]], dim=1).sort(dim=1).values


def _along(lines: _Lines, edges: Tensor) -> tuple[Float[Tensor, " lines"], Float[Tensor, " lines"]]:
    count = len(edges)
    owner = torch.arange(count, device=edges.device).repeat_interleave(edges.shape[1] - 1)
    settled = _panels(lines, owner, edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1))
    for _ in range(_ROUNDS):
        coarse = _coarse(settled, count)
        if not bool(coarse.any()):
            break
        old = settled.only(coarse)
        middle = (old.low + old.high) / 2
        halves = _panels(
            lines, old.line.repeat(2), torch.cat([old.low, middle]), torch.cat([middle, old.high])
        )
        settled = settled.only(~coarse).beside(halves)
    _, weights, second = _rule(edges.device)
    value = _information(settled, count)
    other = _information(replace(settled, prior=settled.prior + torch.log(second / weights)), count)
    return value, (value - other).abs()


def _panels(lines: _Lines, line: Tensor, low: Tensor, high: Tensor) -> _Panels:
    nodes, weights, _ = _rule(low.device)
    half = (high - low)[:, None] / 2
    with torch.no_grad():
        prior, likelihood = lines.heights(line, (low + high)[:, None] / 2 + half * nodes)
    return _Panels(line, low, high, prior + torch.log(half * weights), likelihood)


def _coarse(panels: _Panels, count: int) -> Tensor:
    """Which panels should be halved."""
    _, weights, second = _rule(panels.low.device)
    total = _per_line(panels, panels.prior + panels.likelihood, count)[panels.line]
    mass = torch.exp(panels.prior + panels.likelihood - total[:, None])
    apart = (mass * (1 - second / weights)).sum(1).abs() > _TOLERANCE
    # A peak between nodes, seen by the parabola through the highest node and its neighbours.
    height = panels.prior + panels.likelihood - torch.log(weights)
    top = height.argmax(1, keepdim=True).clamp(1, _NODES - 2)
    nodes = _rule(panels.low.device)[0].expand_as(height)
    (ta, tb, tc), (a, b, c) = (
        tuple(table.gather(1, top + shift)[:, 0] for shift in (-1, 0, 1)) for table in (nodes, height)
    )
    rise, fall = (b - a) / (tb - ta), (c - b) / (tc - tb)
    bend = (fall - rise) / (tc - ta)
    slope = rise + bend * (tb - ta)  # at tb
    away = torch.where(bend < 0, -slope / (2 * bend), torch.sign(slope) * 2).clamp(-1 - tb, 1 - tb)
    steep = height.amax(1) - torch.minimum(torch.minimum(a, b), c)
    peak = (b + slope * away + bend * away.square()).nan_to_num(-math.inf) + _DOUBT * steep
    hidden = (steep > _FALL) & (torch.maximum(peak, height.amax(1)) - total > math.log(_TOLERANCE))
    # Halving ends at what a float can tell apart.
    room = panels.high - panels.low > 1e-12 * (panels.high.abs() + panels.low.abs())
    return (apart | hidden) & room


def _information(panels: _Panels, count: int) -> Tensor:
    prior = _per_line(panels, panels.prior, count)[panels.line][:, None]
    total = _per_line(panels, panels.prior + panels.likelihood, count)
    r = panels.likelihood - (total - _per_line(panels, panels.prior, count))[panels.line][:, None]
    small = r.abs() < 1e-3
    series = r.square() * (1 / 2 + r / 3 + r.square() / 8 + r**3 / 30)
    finite = torch.where(r > -math.inf, r, 0.0)
    exact = torch.where(r > -math.inf, finite * torch.exp(finite) - torch.expm1(finite), 1.0)
    parts = torch.exp(panels.prior - prior) * torch.where(small, series, exact)
    return parts.new_zeros(count).index_add(0, panels.line, parts.sum(1))


def _per_line(panels: _Panels, values: Tensor, count: int) -> Tensor:
    """log Σ exp over all nodes of a line."""
    top = values.amax(1)
    highest = top.new_full((count,), -math.inf).scatter_reduce(0, panels.line, top, "amax")
    parts = torch.exp(values - highest[panels.line][:, None]).sum(1)
    return highest + torch.log(highest.new_zeros(count).index_add(0, panels.line, parts))


def _rule(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes on [−1, 1], Gauss-Legendre weights, and the weights of the rule that skips two nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    kept = [i for i in range(_NODES) if i not in _SKIPPED]
    moments = [(1 - (-1) ** (p + 1)) / (p + 1) for p in range(len(kept))]
    second = np.zeros(_NODES)
    second[kept] = np.linalg.solve(np.vander(nodes[kept], increasing=True).T, moments)
    return tuple(torch.from_numpy(table).to(device) for table in (nodes, weights, second))  # type: ignore[return-value]

"""Exact posteriors of many models and data at once: standard normal latents, one to three, on one common lattice.

`quadrature` adapts to every datum and takes seconds for it; a table of a thousand trained models needs the opposite. On a
function that is smooth and dies out at both ends the trapezoid rule converges faster than any power of the step (for a
Gaussian of deviation s the error is about ``2 e^{−2π²s²/h²}``; Trefethen & Weideman 2014): a step of s is enough, and
the lattice of twice the step tells whether it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 8.0
"""The lattice covers ``[−8, 8]``, outside of which the prior has 1e-15 of its mass."""
_EDGE = 1e-9  # posterior mass on the outermost points, above which something may lie beyond them


@dataclass(frozen=True)
class Lattice:
    """All points of ``h·Z^k`` within reach, and the prior's mass at each."""

    latents: int
    step: float

    @property
    def side(self) -> int:
        """Points along an axis: odd, so that every second one makes a lattice about 0 too."""
        return 4 * math.ceil(REACH / (2 * self.step)) + 1

    @property
    def axis(self) -> Float[Tensor, " s"]:
        """The points of one axis, float64."""
        half = self.side // 2
        return torch.arange(-half, half + 1, dtype=torch.float64) * (REACH / half)

    @property
    def points(self) -> Float[Tensor, "m k"]:
        """All points, the last latent fastest."""
        return torch.cartesian_prod(*[self.axis] * self.latents).reshape(-1, self.latents)


@dataclass(frozen=True, kw_only=True)
class LatticePosterior:
    """The posteriors of a batch, in nats; an error is what the lattice of twice the step would change, infinite where the
    posterior reaches the edge."""

    log_evidence: Float[Tensor, "*b"]
    log_evidence_error: Float[Tensor, "*b"]
    kl: Float[Tensor, "*b"]
    """``KL(p(z | x) ‖ p(z))``."""
    kl_error: Float[Tensor, "*b"]
    kl_per_latent: Float[Tensor, "*b k"]
    """``KL(p(z_j | x) ‖ p(z_j))`` of each marginal."""
    kl_per_latent_error: Float[Tensor, "*b k"]
    kl_conditional: Float[Tensor, "*b k"]
    """``E KL(p(z_j | z_−j, x) ‖ p(z_j))``, zero iff ℓ ignores z_j (theory/T3)."""
    kl_conditional_error: Float[Tensor, "*b k"]
    half_variance: Float[Tensor, "*b"]
    """``½ Var_P(ℓ)``, how far ℓ is from flat under the prior (theory/T4)."""
    half_variance_conditional: Float[Tensor, "*b k"]
    """``½ E Var_P(ℓ | z_−j)``."""
    mean: Float[Tensor, "*b k"]
    sd: Float[Tensor, "*b k"]
    gradient_second_moment: Float[Tensor, "*b"]
    """``E_Q ‖∇ℓ‖²``, which theory/T4.4 takes; NaN where no gradients were given."""


def posteriors(
    lattice: Lattice,
    log_likelihood: Float[Tensor, "*b m"],
    squared_gradient: Float[Tensor, "*b m"] | None = None,
) -> LatticePosterior:
    """Integrate over the lattice.

    ``KL = Σ Q ℓ − log Σ P e^ℓ``, and ``E KL(z_j | z_−j) = KL(Q ‖ P) − KL(Q_−j ‖ P_−j)`` since P has independent
    coordinates.

    Args:
        lattice: of the latents.
        log_likelihood: ℓ at each of its points, for a batch of models and data.
        squared_gradient: ``‖∇ℓ‖²`` there.

    >>> line = Lattice(1, 0.25)
    >>> flat = posteriors(line, torch.zeros(3, line.side))
    >>> bool((flat.kl.abs() < 1e-12).all())
    True
    """
    k, side = lattice.latents, lattice.side
    table = log_likelihood.double().reshape(*log_likelihood.shape[:-1], *[side] * k)
    prior = -0.5 * lattice.axis.to(table.device).square()
    steep = (
        torch.full_like(table, math.nan)
        if squared_gradient is None
        else squared_gradient.reshape(table.shape)
    )
    fine = _integrated(table, prior, k)
    every = (..., *[slice(None, None, 2)] * k)
    coarse = _integrated(table[every], prior[::2], k)
    edge = torch.where(fine["edge"] > _EDGE, math.inf, 0.0)
    # Rounding, where both lattices agree to the last digit.
    least = 1e-13 * (1 + table.abs().flatten(-k).amax(-1))
    error = {
        name: (fine[name] - coarse[name]).abs()
        + (least + edge if fine[name].ndim == edge.ndim else (least + edge).unsqueeze(-1))
        for name in ("log_evidence", "kl", "kl_per_latent", "kl_conditional")
    }
    q = fine.pop("q")
    seen = torch.where(q > 0, steep.double(), 0.0)
    return LatticePosterior(
        gradient_second_moment=(q * seen).flatten(-k).sum(-1),
        **{name: value for name, value in fine.items() if name != "edge"},
        **{f"{name}_error": value for name, value in error.items()},
    )


def _integrated(table: Float[Tensor, ...], prior: Float[Tensor, " s"], k: int) -> dict[str, Tensor]:
    """All sums over one lattice; the k last axes of the table are its own."""
    line = prior - prior.logsumexp(0)
    log_p = sum_of_axes([line] * k)
    joint = table + log_p
    flat = joint.flatten(-k)
    evidence = flat.logsumexp(-1)
    q = (flat - evidence.unsqueeze(-1)).exp().reshape(joint.shape)
    # ℓ is only asked for where there is mass: an infinite one elsewhere says nothing.
    seen = torch.where(q > 0, table, 0.0)
    axes = tuple(range(-k, 0))
    kl = (q * seen).sum(axes) - evidence
    p = log_p.exp()
    mean_l = (p * table).sum(axes)
    centred = table - mean_l.reshape(*mean_l.shape, *[1] * k)
    conditional, marginal, variance, mean, square = [], [], [], [], []
    for axis in axes:
        of_rest = sum_of_axes([line] * (k - 1))
        conditional.append(kl - (_divergence(q.sum(axis), of_rest, k - 1) if k > 1 else 0.0))
        shape = [1] * k
        shape[axis] = -1
        own, weight = line.exp().reshape(shape), of_rest.exp()
        about = (own * centred).sum(axis, keepdim=True)
        within = (own * (centred - about).square()).sum(axis)
        variance.append((weight * within).sum(axes[1:]) / 2 if k > 1 else within / 2)
        side = torch.linspace(-REACH, REACH, len(line), dtype=q.dtype, device=q.device).reshape(shape)
        mean.append((q * side).sum(axes))
        square.append((q * (side - mean[-1].reshape(*mean[-1].shape, *[1] * k)).square()).sum(axes))
        others = tuple(each for each in axes if each != axis)
        alone = q.sum(others) if others else q
        marginal.append(_divergence(alone, line, 1))
    inside = q[(..., *[slice(1, -1)] * k)].sum(axes)
    return {
        "log_evidence": evidence,
        "kl": kl,
        "kl_per_latent": torch.stack(marginal, -1),
        "kl_conditional": torch.stack(conditional, -1),
        "half_variance": (p * centred.square()).sum(axes) / 2,
        "half_variance_conditional": torch.stack(variance, -1),
        "mean": torch.stack(mean, -1),
        "sd": torch.stack(square, -1).sqrt(),
        "q": q,
        "edge": 1 - inside,
    }


def _divergence(q: Tensor, log_p: Tensor, k: int) -> Tensor:
    """``Σ q (log q − log p)`` over the k last axes."""
    return torch.where(q > 0, q * (q.clamp(min=1e-300).log() - log_p), 0.0).sum(tuple(range(-k, 0)))


def sum_of_axes(lines: list[Float[Tensor, " s"]]) -> Tensor:
    """``a_i + b_j + …``, one axis each; 0 of no lines."""
    total = torch.zeros((), dtype=torch.float64)
    for number, line in enumerate(lines):
        total = total.to(line.device) + line.reshape(-1, *[1] * (len(lines) - 1 - number))
    return total

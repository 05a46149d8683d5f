"""How much a trained model's latents say, on a whole evaluation set; every number in nats a row, with what it cannot show.

None of it is estimated within a minibatch: an information so estimated cannot exceed the log of the batch size, and here
its cap, the log of the number of rows, is given beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from identkit.lidvae.members import member
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import ELBO, Objective

ACTIVE = 0.01
"""``Var_x E_q[z_k]`` above which a unit counts as active (Burda, Grosse & Salakhutdinov 2016)."""
_PAIRS = 1 << 24  # densities at once
_CELLS = 1 << 24  # numbers of data, draws and members at once
_DRAWS = 16  # of z for the terms of the ELBO


class Information(NamedTuple):
    """``I_q(z; x) = E_x KL(q(z | x) ‖ q(z))`` on n rows, of each member."""

    value: Float[Tensor, " e"]
    error: Float[Tensor, " e"]
    """The standard error over rows, each with one draw."""
    cap: float
    """log n: with n rows no more can be seen."""


@torch.no_grad()
def aggregate_information(q: Any, generator: torch.Generator | None = None) -> Information:
    """How much the encoder's latents tell about which row they come from, ``q(z)`` being the average over all rows.

    ``(1/n) Σ_i log q(z_i | x_i) − log (1/n) Σ_j q(z_i | x_j)``, ``z_i ~ q(z | x_i)`` (Hoffman & Johnson 2016).

    Args:
        q: posteriors of n rows, with `draw` and `pairwise`.
        generator: of the draws.
    """
    exact = type(q)(*(tensor.double() for tensor in q))
    z = exact.draw(1, generator).squeeze(0)
    n = z.shape[1]
    pieces = []
    for start in range(0, n, size := max(1, _PAIRS // (n * len(z)))):
        table = exact.pairwise(z[:, start : start + size])
        own = table.diagonal(offset=start, dim1=1, dim2=2)
        pieces.append(own - table.logsumexp(2) + math.log(n))
    found = torch.cat(pieces, dim=1)
    return Information(found.mean(1), found.std(1) / math.sqrt(n), math.log(n))


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One member on n rows, in nats a row; errors are standard errors over the rows."""

    n: int
    active_units: tuple[str, ...]
    """Latents with ``Var_x E_q[z_k]`` above `threshold`: weak evidence, which is why the information stands beside it."""
    threshold: float
    elbo: float
    kl: dict[str, float]
    """``E_x KL(q ‖ p)`` by latent; they add up."""
    information: float
    """``I_q(z; x)``, on all rows."""
    information_error: float
    cap: float
    """log n, the most that `information` can show."""
    log_likelihood: float
    """``log p(x)`` from below, by importance sampling (IWAE)."""
    log_likelihood_error: float
    samples: int
    """Of that bound."""
    reconstruction: float
    """``E_q log p(x | z)``."""
    lower: float | None
    """m, certified; None for a decoder that proves nothing."""
    floor: float | None
    """Nats that are certified under the model's own marginal; Gaussian noise only."""

    @property
    def total_kl(self) -> float:
        """``E_x KL(q(z | x) ‖ p(z))``."""
        return sum(self.kl.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"total_kl": self.total_kl}


def measure(
    model: Autoencoder,
    x: Shaped[Tensor, "n d"],
    *,
    objective: Objective | None = None,
    labels: Int[Tensor, " n"] | None = None,
    samples: int = 500,
    threshold: float = ACTIVE,
    seed: int = 0,
) -> tuple[Metrics, ...]:
    """Measure every member on the same rows, with the posterior that its objective is used with.

    Args:
        model: of E members.
        x: n ≥ 2 rows; binary ones are drawn once, before (`identkit.lidvae.datasets.binarised`).
        objective: what it was trained by; the `ELBO` by default.
        labels: what each row is, for models with discrete latents.
        samples: S of the importance-weighted bound.
        threshold: from which a unit counts as active.
        seed: of the draws.
    """
    if len(x) < 2:
        raise ValueError(f"x should have at least two rows, got {len(x)}")
    objective = objective or ELBO()
    training = model.training
    model.eval()
    generator = torch.Generator(model.device).manual_seed(seed)
    pieces: dict[str, list[Tensor]] = {name: [] for name in ("mean", "elbo", "kl", "bound", "reconstruction")}
    posteriors = []
    for rows in _chunks(model, x, samples):
        q = objective.posterior(model, rows, generator)
        with torch.no_grad():
            terms = model.terms(rows, q, _DRAWS, generator)
            weights = model.log_weights(rows, q, samples, generator)
        pieces["mean"].append(q.latent_mean())
        pieces["elbo"].append(terms.elbo())
        pieces["kl"].append(terms.kl)
        pieces["bound"].append(weights.logsumexp(0) - math.log(samples))
        pieces["reconstruction"].append(terms.log_likelihood)
        posteriors.append(q)
    model.train(training)
    held = {name: torch.cat(parts, dim=1).double() for name, parts in pieces.items()}
    q = type(posteriors[0])(*(torch.cat(parts, dim=1) for parts in zip(*posteriors, strict=True)))
    information = aggregate_information(q, generator)
    active = held["mean"].var(1) > threshold
    lower, floor = _certified(model)
    return tuple(
        Metrics(
            n=len(x),
            active_units=tuple(f"z[{k + 1}]" for k in range(model.latents) if active[e, k]),
            threshold=threshold,
            elbo=float(held["elbo"][e].mean()),
            kl=dict(zip(model.groups, held["kl"][e].mean(0).tolist(), strict=True)),
            information=float(information.value[e]),
            information_error=float(information.error[e]),
            cap=information.cap,
            log_likelihood=float(held["bound"][e].mean()),
            log_likelihood_error=float(held["bound"][e].std()) / math.sqrt(len(x)),
            samples=samples,
            reconstruction=float(held["reconstruction"][e].mean()),
            lower=lower[e],
            floor=floor[e],
        )
        for e in range(model.members)
    )


def _chunks(model: Autoencoder, x: Tensor, samples: int) -> Iterator[Tensor]:
    """Rows, as many at once as their draws fit into memory."""
    each = samples * model.members * max(x.shape[1], model.likelihood.outputs)
    for part in x.split(max(1, _CELLS // each)):
        yield model.rows(part)


def _certified(model: Autoencoder) -> tuple[list[float | None], list[float | None]]:
    """m and floor of each member."""
    found = [member(model, number).certificate() for number in range(model.members)]
    return [each and each.lower for each in found], [each and each.floor for each in found]

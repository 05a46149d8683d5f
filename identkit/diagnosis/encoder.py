"""What the encoder's q(z | x) says, measured as the true posterior is: jointly, and of each latent given the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributions as td
from jaxtyping import Float
from torch import Tensor, nn

from identkit.numeric.probed import Probed
from identkit.posterior.conditional import conditional_information
from identkit.posterior.unbounded import Unbounded, in_double


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The approximate posterior of n data, in nats; errors are standard errors of the draws."""

    kl: Float[Tensor, " n"]
    """KL(q(z | x) ‖ p(z))."""
    kl_error: Float[Tensor, " n"]
    kl_conditional: Float[Tensor, "n k"]
    """E_q KL(q(z_j | z_−j, x) ‖ p(z_j | z_−j))."""
    kl_conditional_error: Float[Tensor, "n k"]
    elbo: Float[Tensor, " n"]
    """E_q[ℓ + log p − log q]."""
    elbo_error: Float[Tensor, " n"]
    degrees: float
    """Of freedom of `kl_conditional_error`; the others come from many draws."""


def encoded(vae: Any, x: Any, size: int) -> td.Distribution:
    """``q(z | x)`` in float64, held to its shape and to being a function of x.

    Raises:
        TypeError: no `encode`, or one that returns no distribution.
        ValueError: a wrong shape, NaN, or an answer that changes from call to call.
    """
    if not callable(getattr(vae, "encode", None)):
        raise TypeError(f"the model should have encode(x) → Distribution, {type(vae).__name__} has none")
    data = _for(vae, x)
    with torch.no_grad():
        laws = [vae.encode(data) for _ in range(2)]
    if not isinstance(laws[0], td.Distribution):
        raise TypeError(f"encode(x) should return a torch distribution, got {type(laws[0]).__name__}")
    shape = tuple(laws[0].batch_shape + laws[0].event_shape)
    if not laws[0].batch_shape or shape[0] != len(data) or math.prod(shape[1:]) != size:
        raise ValueError(
            f"encode(x) should give one law of {size} latents for each of {len(data)} rows, got batch shape "
            f"{tuple(laws[0].batch_shape)} and event shape {tuple(laws[0].event_shape)}"
        )
    first, second = (in_double(law) for law in laws)
    z = _drawn(first, 1, seed=0)
    one, two = (_log_prob(law, z) for law in (first, second))
    if not bool(torch.isfinite(one).all()):
        row = int(torch.nonzero(~torch.isfinite(one[0]))[0, 0])
        raise ValueError(f"encode(x) should give finite densities, got {one[0, row].item()} for row {row}")
    if not torch.equal(one, two):
        raise ValueError(
            "encode(x) should be a function of x, but two calls with the same x differ: switch off dropout and other "
            "noise (module.eval())"
        )
    return first


def measured(
    model: Probed, prior: Unbounded, law: td.Distribution, draws: int, lines: int, seed: int
) -> Encoded:
    """Measure q on the data of a probed model, one law for each.

    With ``ℓ_q = log q − log p`` in the place of a log-likelihood, q is the posterior of the prior p: so the same
    integral that gives the truth's conditional information gives q's.

    Raises:
        ValueError: q puts mass where the prior has none, so that its KL is infinite.
    """
    x, density = model.x, model.density
    assert x is not None and density is not None
    n, k = len(x), prior.size
    z = _drawn(law, draws, seed).reshape(draws, n, k)
    over, under = _log_prob(law, z), prior.log_prob(z.reshape(-1, k)).reshape(draws, n)
    if not bool(torch.isfinite(under).all()):
        raise ValueError("q(z | x) puts mass outside the prior's support, where KL(q ‖ p) is infinite")
    rows = torch.arange(n, device=x.device)
    with torch.no_grad():
        likelihood = torch.stack([density(x[rows], each.to(model.dtype)).to(torch.float64) for each in z])
    kl, kl_error = _averaged(over - under)
    elbo, elbo_error = _averaged(likelihood + under - over)
    conditional, conditional_error = torch.full((2, n, k), math.nan, dtype=torch.float64, device=z.device)
    if prior.independent or prior.gaussian is not None:
        own = _row_by_row(lambda table: _log_prob(law, table), z[0])
        ratio = lambda rows, at: own(rows, at) - prior.log_prob(at)
        value, slack = conditional_information(prior, ratio, z[:lines], seed)
        conditional, sampling = _averaged(value)
        conditional_error = torch.hypot(sampling, slack.mean(0))
    return Encoded(
        kl=kl,
        kl_error=kl_error,
        kl_conditional=conditional,
        kl_conditional_error=conditional_error,
        elbo=elbo,
        elbo_error=elbo_error,
        degrees=lines - 1,
    )


def moments(law: td.Distribution, seed: int) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """E_q z and Var_q z; of draws where the distribution does not know them."""
    try:
        found = law.mean, law.variance
    except NotImplementedError:
        z = _drawn(law, 1000, seed)
        found = z.mean(0), z.var(0)
    mean, variance = (part.reshape(_shape(law)[0], -1).to(torch.float64) for part in found)
    return mean, variance


def _for(vae: Any, x: Any) -> Tensor:
    """The data as the encoder takes them."""
    data = torch.as_tensor(x)
    weights = next(vae.parameters(), None) if isinstance(vae, nn.Module) else None
    if weights is None:
        return data
    return data.to(weights.device, weights.dtype if data.is_floating_point() else None)


def _shape(law: td.Distribution) -> tuple[int, ...]:
    return tuple(law.batch_shape + law.event_shape)


def _drawn(law: td.Distribution, draws: int, seed: int) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return law.sample((draws,)).to(torch.float64)


def _log_prob(law: td.Distribution, z: Tensor) -> Float[Tensor, "s n"]:
    """``log q(z | x)`` of z (s, n, …)."""
    with torch.no_grad():
        value = law.log_prob(z.reshape(len(z), *_shape(law)))
    return value.reshape(*z.shape[:2], -1).sum(2)


def _averaged(values: Float[Tensor, "s ..."]) -> tuple[Tensor, Tensor]:
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def _row_by_row(
    table: Callable[[Tensor], Tensor], filler: Float[Tensor, "n k"]
) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of (s, n, k), one column for each datum, asked at any rows: each goes to its datum's column."""
    n = len(filler)

    def at(rows: Tensor, z: Tensor) -> Tensor:
        counts = torch.bincount(rows, minlength=n)
        order = torch.argsort(rows, stable=True)
        before = (counts.cumsum(0) - counts)[rows[order]]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(rows), device=rows.device) - before
        columns = filler.expand(int(counts.max()), *filler.shape).clone()
        columns[place, rows] = z
        return table(columns)[place, rows]

    return at

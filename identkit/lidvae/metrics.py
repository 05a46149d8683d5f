"""How much a trained model's latents say, on a whole evaluation set; every number in nats a row, with what it cannot show.

None of it is estimated within a minibatch: an information so estimated cannot exceed the log of the batch size, and here
its cap, the log of the number of rows, is given beside it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from identkit.lidvae.members import member
from identkit.lidvae.models.autoencoder import Autoencoder
from identkit.lidvae.objectives import ELBO, Objective
from identkit.lidvae.states import States, measure_states
from identkit.model.compiled.data import whole
from identkit.numeric.checker import check_numeric

ACTIVE = 0.01
"""``Var_x E_q[z_k]`` above which a unit counts as active (Burda, Grosse & Salakhutdinov 2016)."""
_PAIRS = 1 << 24  # densities at once
_CELLS = 1 << 17  # numbers of data, draws and members at once
_APART = 0x6D656173  # "meas"
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
    """``I_q(z; x)``, on all rows; the average KL less ``KL(q(z) ‖ p(z))``."""
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
    states: States | None
    """What the discrete latent says; None where there is none."""
    lower: float | None
    """m, certified; None for a decoder that proves nothing."""
    floor: float | None
    """Nats that are certified under the model's own marginal; Gaussian noise only."""
    verdict: str | None = None
    """The level that a check of the decoder came to, GLOBAL by a certificate alone; None where none was made."""

    @property
    def total_kl(self) -> float:
        """``E_x KL(q(z | x) ‖ p(z))``."""
        return sum(self.kl.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"total_kl": self.total_kl}

    @staticmethod
    def from_dict(facts: Mapping[str, Any]) -> Metrics:
        """What `to_dict` gave, and a file kept; numbers that were not finite are NaN."""
        given = {name: math.nan if facts[name] is None else facts[name] for name in _NUMBERS}
        kl = {name: math.nan if value is None else value for name, value in facts["kl"].items()}
        states = None if facts["states"] is None else States(**facts["states"])
        others = {name: facts[name] for name in ("n", "threshold", "samples", "lower", "floor", "verdict")}
        return Metrics(kl=kl, active_units=tuple(facts["active_units"]), states=states, **given, **others)


_NUMBERS = (
    *("elbo", "information", "information_error", "cap", "log_likelihood", "log_likelihood_error"),
    "reconstruction",
)


def measure(
    model: Autoencoder,
    x: Shaped[Tensor, "n d"],
    *,
    objective: Objective | None = None,
    labels: Int[Tensor, " n"] | None = None,
    samples: int = 500,
    threshold: float = ACTIVE,
    certify: Collection[int] = (),
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
        certify: members whose decoder is checked too, as `identkit.check` does; it takes seconds for large ones.
        seed: of the draws.

    Raises:
        ValueError: fewer than two rows, no samples, labels of other rows, or a member that there is none of.
    """
    if len(x) < 2:
        raise ValueError(f"x should have at least two rows, got {len(x)}")
    if labels is not None and len(labels) != len(x):
        raise ValueError(f"labels should be of the {len(x)} rows of x, got {len(labels)}")
    whole(samples, "samples")
    wrong = [number for number in certify if not 0 <= number < model.members]
    if wrong:
        raise ValueError(f"certify should hold members 0, …, {model.members - 1}, got {wrong[0]}")
    objective = objective or ELBO()
    generator = _generator(model, seed)
    pieces: dict[str, list[Tensor]] = {name: [] for name in ("mean", "elbo", "kl", "bound", "reconstruction")}
    posteriors = []
    with _judging(model):
        for rows in _chunks(model, x, samples):
            q = objective.posterior(model, rows, generator)
            with torch.no_grad():
                terms = model.terms(rows, q, _DRAWS, generator)
                pieces["bound"].append(_bound(model, rows, q, samples, generator))
            pieces["mean"].append(q.latent_mean())
            pieces["elbo"].append(terms.elbo())
            pieces["kl"].append(terms.kl)
            pieces["reconstruction"].append(terms.log_likelihood)
            posteriors.append(type(q)(*(tensor.detach() for tensor in q)))
    held = {name: torch.cat(parts, dim=1).detach().double() for name, parts in pieces.items()}
    q = type(posteriors[0])(*(torch.cat(parts, dim=1) for parts in zip(*posteriors, strict=True)))
    information = aggregate_information(q, generator)
    log_weight = getattr(q, "log_weight", None)
    states = None if log_weight is None else measure_states(log_weight, labels)
    active = held["mean"].var(1) > threshold
    latents = [f"z[{k + 1}]" for k in range(model.latents)]
    # Where a member that diverged has an infinite sigma, there is nothing to certify.
    sound = held["elbo"].mean(1).isfinite().tolist()
    certified = [_certificate(model, number) if fine else (None, None) for number, fine in enumerate(sound)]
    return tuple(
        Metrics(
            n=len(x),
            active_units=tuple(name for name, is_active in zip(latents, active[e], strict=True) if is_active),
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
            states=None if states is None else states[e],
            lower=certified[e][0],
            floor=certified[e][1],
            verdict=_verdict(model, e) if e in certify and sound[e] else None,
        )
        for e in range(model.members)
    )


@torch.no_grad()
def log_density(
    model: Autoencoder,
    x: Shaped[Tensor, "n d"],
    *,
    samples: int = 500,
    seed: int = 0,
) -> Float[Tensor, "e n"]:
    """``log p(x)`` of each row under every member, from below: the importance-weighted bound of the encoder's q.

    The bound rises with S to ``log p(x)``; where q knows x badly, as far from the data, it stays lower for longer.

    Args:
        model: of E members.
        x: n rows.
        samples: S.
        seed: of the draws.

    Source: Burda, Grosse & Salakhutdinov 2016.
    """
    generator = _generator(model, seed)
    with _judging(model):
        parts = [
            _bound(model, rows, model.infer(rows), whole(samples, "samples"), generator)
            for rows in _chunks(model, x, samples)
        ]
    return torch.cat(parts, dim=1)


def _generator(model: Autoencoder, seed: int) -> torch.Generator:
    """Draws apart from those of data of the same seed, whose noise would be the latents' otherwise."""
    return torch.Generator(model.device).manual_seed(_APART + seed)


def _bound(
    model: Autoencoder, rows: Tensor, q: Any, samples: int, generator: torch.Generator
) -> Float[Tensor, "e n"]:
    """``log (1/S) Σ_s p(x, z_s)/q(z_s | x)``."""
    return model.log_weights(rows, q, samples, generator).logsumexp(0) - math.log(samples)


@contextmanager
def _judging(model: Autoencoder) -> Iterator[None]:
    """As the model is used, and afterwards as it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _chunks(model: Autoencoder, x: Tensor, samples: int) -> Iterator[Tensor]:
    """Rows, as many at once as their draws fit into the cache: more would be slower."""
    cells = samples * model.members * max(x.shape[1], model.likelihood.outputs)
    for part in x.split(max(1, _CELLS // cells)):
        yield model.rows(part)


def _certificate(model: Autoencoder, number: int) -> tuple[float | None, float | None]:
    """m and floor of a member."""
    found = member(model, number).certificate()
    return (None, None) if found is None else (found.lower, found.floor)


def _verdict(model: Autoencoder, number: int) -> str:
    """The level of a member's check: by the model's own proof where it brings one, else by the numeric checker."""
    one: Any = member(model, number)
    found = one.verdict() if callable(getattr(one, "verdict", None)) else check_numeric(one)
    return found.level.value

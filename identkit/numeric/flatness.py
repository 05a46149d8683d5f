"""How much the likelihood varies over the prior: overall, along each latent, and along a subspace (theory/T4).

``½ Var_P(ℓ)`` is zero exactly where the posterior is the prior (theory/T1). Along a latent it is the Sobol *total*
effect ``½ E Var(ℓ | z_−j)``, zero exactly where ℓ ignores z_j; first-order effects vanish for XOR. Where the law is
known but no data are given, the symmetrised KL between laws takes the place of differences of ℓ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from identkit.numeric.probed import Probed

DRAWS = 4096
LEVEL = 0.99
_NUMBERS = 1 << 24  # numbers of one table of laws or densities: 128 MB


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Two latents between which the likelihood differs most of all pairs that were tried."""

    one: Float[Tensor, " k"]
    two: Float[Tensor, " k"]
    gap: float
    """``|ℓ(one) − ℓ(two)|``, or the symmetrised KL between their laws, nats."""
    datum: int | None
    """The row of x; None for a gap between laws."""


@dataclass(frozen=True, kw_only=True)
class Flat:
    """How much ℓ varied over the draws; m data, k latents, nats. Intervals are at `level`, one at a time."""

    names: tuple[str, ...]
    half_variance: Float[Tensor, " m"]
    """``½ Var_P(ℓ)``, the natural measure of flatness (theory/T4)."""
    half_variance_interval: Float[Tensor, "m 2"]
    oscillation: Float[Tensor, " m"]
    """The largest difference of ℓ seen: a lower bound of ω."""
    per_latent: Float[Tensor, "m k"]
    """``½ E Var(ℓ | z_−j)``."""
    per_latent_interval: Float[Tensor, "m k 2"]
    witness: Witness
    """The largest gap seen."""
    per_latent_witness: tuple[Witness, ...]
    """The largest gap seen along each latent alone."""
    draws: int
    level: float

    @property
    def unseen(self) -> float:
        """The prior mass of pairs with a larger gap than was seen is at most this, at `level`: ``ln(1/δ)/n``."""
        return math.log(1 / (1 - self.level)) / self.draws

    def __str__(self) -> str:
        names = (*self.names, "together")
        gaps = (*(w.gap for w in self.per_latent_witness), self.witness.gap)
        lines = [
            f"{name}: ℓ moves by {gap:.3g} nats between two prior draws"
            if gap
            else f"{name}: no variation seen"
            for name, gap in zip(names, gaps, strict=True)
        ]
        doubt = (
            f"More than that happens on at most {self.unseen:.2g} of prior pairs, at level {self.level:g}."
        )
        return "\n".join([*lines, doubt])


def flatness(p: Probed, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Flat:
    """Measure how flat the log likelihood of the given data is under the prior.

    Args:
        p: a model with data.
        draws: pairs of prior draws for each latent.
        seed: of the draws.
        level: of the confidence intervals; they are asymptotic in the number of draws.

    Raises:
        ValueError: no data; latents that depend on each other under a prior that is not Gaussian.

    Source: theory/T4; Jansen (1999) for total effects, ``E Var(ℓ | z_−j) = ½ E (ℓ(z) − ℓ(z′))²`` where z′ has a new z_j.
    """
    _positive(draws, level)
    z = p.prior.sample(draws, seed)
    base = _table(p, z)
    quantile = _quantile(level)
    half, spread = _half_variance(base)
    top, bottom = base.max(0), base.min(0)
    oscillation = top.values - bottom.values
    widest = int(oscillation.argmax())
    witness = _witness(z[top.indices[widest]], z[bottom.indices[widest]], oscillation[widest], widest)
    effects, errors, witnesses = [], [], []
    for j, axis in enumerate(torch.eye(p.prior.size, dtype=p.dtype, device=p.prior.device)):
        moved = p.prior.redrawn(z, axis.unsqueeze(1), seed + 1 + j)
        gaps = (_table(p, moved) - base).abs()
        effect, error = _mean(gaps.square() / 4)
        effects.append(effect)
        errors.append(error)
        draw, datum = divmod(int(gaps.argmax()), gaps.shape[1])
        witnesses.append(_witness(z[draw], moved[draw], gaps[draw, datum], datum))
    per_latent, error = torch.stack(effects, 1), torch.stack(errors, 1)
    return Flat(
        names=p.prior.names,
        half_variance=half,
        half_variance_interval=_interval(half, quantile * spread),
        oscillation=oscillation,
        per_latent=per_latent,
        per_latent_interval=_interval(per_latent, quantile * error),
        witness=max([witness, *witnesses], key=lambda w: w.gap),
        per_latent_witness=tuple(witnesses),
        draws=draws,
        level=level,
    )


@dataclass(frozen=True, kw_only=True)
class Along:
    """How much ℓ, or the law, varies when only the part of z in a subspace is drawn again."""

    effect: Float[Tensor, " m"]
    """``½ E Var(ℓ | rest of z)`` for each datum; for laws half the mean symmetrised KL, m = 1; nats."""
    interval: Float[Tensor, "m 2"]
    witness: Witness


def along(
    p: Probed,
    directions: Float[Tensor, "k r"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    of_law: bool = False,
) -> Along:
    """Measure the variation along a subspace, for what no single latent shows (theory/T3).

    For laws the effect bounds an information: with z′ the redrawn latent, convexity of KL gives
    ``I(z_S; x | rest) ≤ E KL(p(·|z) ‖ p(·|z′))``, half the mean of the symmetrised KL.

    Args:
        p: the model.
        directions: a basis of the subspace.
        draws, seed, level: as in `flatness`.
        of_law: compare laws instead of densities on the data.

    Raises:
        ValueError: a prior that cannot be drawn along the directions given the rest (`Prior.redrawn`).
    """
    _positive(draws, level)
    z = p.prior.sample(draws, seed)
    moved = p.prior.redrawn(z, directions, seed + 1)
    if of_law:
        gaps = _in_chunks(p, 1, lambda rows: p.divergence(z[rows], moved[rows]).unsqueeze(1), draws)
        effect, error = _mean(gaps / 2)
    else:
        gaps = (_table(p, moved) - _table(p, z)).abs()
        effect, error = _mean(gaps.square() / 4)
    draw, datum = divmod(int(gaps.argmax()), gaps.shape[1])
    return Along(
        effect=effect,
        interval=_interval(effect, _quantile(level) * error),
        witness=_witness(z[draw], moved[draw], gaps[draw, datum], None if of_law else datum),
    )


def _positive(draws: int, level: float) -> None:
    if draws < 2:
        raise ValueError(f"draws should be at least 2, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level should be between 0 and 1, got {level}")


def _table(p: Probed, z: Float[Tensor, "n k"]) -> Float[Tensor, "n m"]:
    """ℓ of every datum at every draw, in chunks that fit memory."""
    if p.x is None:
        raise ValueError(f"x should be given: {p.name} was declared without data")
    table = _in_chunks(p, max(1, p.x.numel()), lambda rows: p.log_likelihood(z[rows]), len(z))
    if not bool(torch.isfinite(table).all()):
        draw, datum = torch.nonzero(~torch.isfinite(table))[0].tolist()
        raise ValueError(
            f"log p(x | z) should be finite at draws from the prior, got {table[draw, datum].item()} for row {datum} of x"
        )
    return table


def _in_chunks(p: Probed, numbers: int, function: Callable[[Int[Tensor, " r"]], Tensor], n: int) -> Tensor:
    size = max(1, _NUMBERS // max(numbers, 64 * p.prior.size * p.histories))
    with torch.no_grad():
        return torch.cat([function(rows) for rows in torch.arange(n, device=p.prior.device).split(size)])


def _half_variance(table: Float[Tensor, "n m"]) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """½ of the sample variance and its standard error, ``½ √((m₄ − s⁴)/n)``."""
    shifted = table - table[0]  # so that a constant leaves no rounding of its mean
    centred = shifted - shifted.mean(0)
    variance = centred.square().sum(0) / (len(table) - 1)
    fourth = centred.square().square().mean(0)
    return variance / 2, ((fourth - variance.square()).clamp(min=0) / len(table)).sqrt() / 2


def _mean(values: Float[Tensor, "n m"]) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def _quantile(level: float) -> float:
    return torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()


def _interval(value: Float[Tensor, "*m"], margin: Float[Tensor, "*m"]) -> Float[Tensor, "*m 2"]:
    return torch.stack([(value - margin).clamp(min=0), value + margin], -1)


def _witness(one: Tensor, two: Tensor, gap: Tensor, datum: int | None) -> Witness:
    return Witness(one=one, two=two, gap=float(gap), datum=datum)

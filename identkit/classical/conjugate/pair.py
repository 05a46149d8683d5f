"""What the conjugate pairs share: rows that draw their own latent or pool it, blocks, and the one-latent answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.arrays import COUNTS, MOST_COUNTED, latents, no_counts, rows, shaped, unfilled
from identkit.classical.em import Convergence
from identkit.classical.shown import shown
from identkit.model.compiled.data import whole
from identkit.model.protocol import Estimate, Flatness

EPS = 32 * torch.finfo(torch.float64).eps
"""What a dozen float64 operations may lose, relative to the size of their terms."""
TINY = 1e-300
"""Errors are stated as positive numbers, also where nothing was rounded."""
BLOCK = 1 << 15
"""Rows, or terms of a sum, that are worked on at once."""

MOST_TERMS = 4_000_000
"""Counts over which an average is summed; beyond, it is simulated."""
_DRAWS = 200_000

Rule = Callable[[Tensor, float], Tensor]
"""Takes summaries (m, q) and the number of rows behind each, gives one answer a summary."""


def sums_and_squares(summaries: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Add up the summaries ``(r, 0, size)`` of all rows, the middle one becoming ``Σ (r − r̄)²``, in two passes; (1, 3)."""
    total = torch.zeros(3, dtype=torch.float64, device=x.device)
    for block in x.split(BLOCK):
        total += summaries(block).sum(0)
    mean = total[0] / max(len(x), 1)
    for block in x.split(BLOCK):
        total[1] += (summaries(block)[:, 0] - mean).square().sum()
    return total[None]


class Conjugate:
    """A conjugate pair: the prior's law is also the posterior's, with other numbers in it; a base class.

    Each row of data is a draw of its own latent; a *pooled* model takes all rows as one data set that shares its
    latent, and every result has n = 1. All arithmetic is float64; float32 data are answered in float32.
    """

    __repr__ = shown

    pooled: bool

    # What a family gives

    @property
    def latent_names(self) -> tuple[str, ...]:
        """The latents."""
        raise NotImplementedError

    @property
    def _columns(self) -> int:
        return 1

    def _refuse(self, x: Tensor) -> None:
        """Refuse data that the family cannot produce."""

    def _summaries(self, x: Tensor) -> Tensor:
        """What is enough to know of each row, (n, q)."""
        return x.to(torch.float64)

    def _summary(self, x: Tensor) -> Tensor:
        """What is enough to know of all rows together, (1, q)."""
        return x.sum(0, keepdim=True, dtype=torch.float64)

    def _kl(self, s: Tensor, count: float) -> Tensor:
        """``KL(p(z | x) ‖ p(z))`` of summaries."""
        raise NotImplementedError

    def _error(self, s: Tensor, count: float) -> Tensor:
        """A bound on the absolute error of `_kl`."""
        raise NotImplementedError

    def _moments(self, s: Tensor, count: float) -> Tensor:
        """Posterior means and standard deviations, (m, 2, k)."""
        raise NotImplementedError

    def _variance(self, s: Tensor, count: float) -> Tensor:
        """``Var_P(ℓ)``, a bound on its error, and whether ℓ moves at all (positive; else 0), (m, 3)."""
        raise NotImplementedError

    # What follows

    def kl_to_prior(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``KL(p(z | x) ‖ p(z))`` in nats, free of cancellation; exactly 0 where the data say nothing."""
        return self._each(x, self._kl)

    def kl_per_latent(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the marginal KLs in nats: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_conditional(self, x: Any) -> Float[Tensor, "n k"]:
        """Evaluate the conditional KLs in nats: with a single latent, the joint one."""
        return self.kl_to_prior(x)[:, None]

    def kl_error(self, x: Any) -> Float[Tensor, " n"]:
        """Bound the absolute error of all KLs of a datum, in nats: rounding, and reading inputs as decimals; positive."""
        return self._each(x, self._error, single=False)

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ℓ under the prior; ω = ∞ wherever ℓ moves."""
        both = self._each(x, self._variance, single=False)
        return Flatness(
            variance=both[:, 0],
            variance_error=both[:, 1],
            oscillation=torch.where(both[:, 2] > 0, math.inf, 0.0),
        )

    def posterior_moments(self, x: Any) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Give the posterior mean and standard deviation of each latent; infinite where they are."""
        both = self._each(x, self._moments)
        return both[:, 0], both[:, 1]

    def _data(self, x: Any, device: torch.device | None = None) -> Tensor:
        x = rows(x, self._columns, device)
        for block in x.split(BLOCK):
            self._refuse(block)
        return x

    def _each(self, x: Any, rule: Rule, single: bool = True) -> Tensor:
        """The rule's answers, a block of rows at a time, in the precision of the data if `single`."""
        x = self._data(x)
        dtype = x.dtype if single else torch.float64
        if self.pooled:
            return rule(self._summary(x), float(len(x))).to(dtype)
        first = rule(self._summaries(x[:0]), 1.0)
        result = unfilled(first.to(dtype), len(x), *first.shape[1:])
        for start in range(0, len(x), BLOCK):
            result[start : start + BLOCK] = rule(self._summaries(x[start : start + BLOCK]), 1.0)
        return result

    def _latent(self, x: Tensor, z: Any, inside: Callable[[Tensor], Tensor], support: str) -> Tensor:
        """The latents as (…, n, k) of float64, inside their support; n = 1 for a pooled model."""
        n = 1 if self.pooled else len(x)
        z = latents(z, n, len(self.latent_names), x.device)
        valid = inside(z)
        if not bool(valid.all()):
            raise ValueError(f"z should be {support}, got {z[~valid][0].item():g}")
        return z


def refuse_counts(x: Tensor, most: float | None = None) -> None:
    """Refuse what is no count.

    Raises:
        ValueError: a negative number, a fraction, or one beyond `most`.
    """
    wrong = no_counts(x)
    if most is not None:
        wrong |= x > most
    if bool(wrong.any()):
        where = COUNTS if most is None else f"counts 0 … {most:g}"
        raise ValueError(f"x should hold {where}, got {x[wrong][0].item():g}")


def number_of_trials(value: Any) -> int:
    """Convert a number of trials, which may come as a float.

    Raises:
        ValueError: it is negative or a fraction.

    >>> number_of_trials(3.0)
    3
    """
    number = float(shaped(value, "trials").item())
    if number > MOST_COUNTED:
        raise ValueError(f"trials should be at most 2⁵³, got {number:g}")
    return whole(int(number) if number.is_integer() else number, "trials", 0)


def gammas(shape: Float[Tensor, "*n"], generator: torch.Generator | None) -> Float[Tensor, "*n"]:
    """Draw from gamma laws of rate 1."""
    return torch._standard_gamma(shape, generator=generator)  # type: ignore[reportPrivateImportUsage]


def simulated(model: Any) -> Estimate:
    """Average the KL of one row over draws with a fixed seed, with its standard error in nats; pooled or not."""
    alone = copy(model)
    object.__setattr__(alone, "pooled", False)
    device = alone.prior.mean.device
    kl = alone.kl_to_prior(alone.sample(_DRAWS, torch.Generator(device).manual_seed(0))[0])
    return Estimate(value=kl.mean().item(), error=kl.std().item() / math.sqrt(_DRAWS), method="Monte Carlo")


def with_convergence(model: Any, convergence: Convergence | None) -> Any:
    """Note in a fitted model how the fit went."""
    object.__setattr__(model, "convergence", convergence)
    return model

"""What the pairs of counts and proportions share: everything but the names of their numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from identkit.classical.conjugate.empirical_bayes import climb
from identkit.classical.conjugate.gamma_divergence import (
    dirichlet_kl,
    dirichlet_kl_terms,
    log_dirichlet_multinomial,
    remainder_divergence,
    rounded_parts,
    trigamma_rest,
)
from identkit.classical.conjugate.pair import BLOCK, EPS, MOST_TERMS, TINY, Conjugate, gammas, simulated
from identkit.classical.em import Convergence
from identkit.model.compiled.data import number_of_draws
from identkit.model.compiled.saddle_point import log_multinomial
from identkit.model.protocol import Estimate, Flatness
from identkit.posterior.stable import gaussian_gain


class Proportions(Conjugate):
    """Counts of ``trials`` over categories, whose probabilities have a Dirichlet prior."""

    trials: int

    @property
    def _shapes(self) -> Tensor:
        """The prior's shapes a, one a category."""
        raise NotImplementedError

    def _counts(self, s: Tensor, count: float) -> Tensor:
        """Counts of every category, (m, categories), from summaries."""
        return s

    def log_evidence(self, x: Any) -> Float[Tensor, " n"]:
        """Evaluate ``log p(x) = log [n!/Π x_i! · B(a + x)/B(a)]`` in nats (pooled: of the whole data set)."""
        x = self._data(x)
        a = self._shapes.to(x.device)
        evidence = self._each(
            x, lambda s, count: log_dirichlet_multinomial(a, self._counts(s, count)), single=False
        )
        if self.pooled and len(x):
            # The rows' multinomial coefficients over that of their sum, at shares where all factors are of a size.
            total = self._counts(self._summary(x), float(len(x)))
            share = total / total.sum(-1, keepdim=True).clamp(min=1.0)
            coefficients = sum(
                log_multinomial(self._counts(block.to(torch.float64), 1.0), share).sum()
                for block in x.split(BLOCK)
            )
            evidence = evidence + (coefficients - log_multinomial(total, share))
        return evidence.to(x.dtype)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(p; x)`` of one row in nats: the KL is a sum over categories, each averaged over its own count.

        ``I = Σ_i E[KL_i(x_i)] − const``, x_i beta-binomial with shapes (a_i, s − a_i): n + 1 terms a category.
        Beyond four million trials an average over draws takes its place.
        """
        a, n = self._shapes, float(self.trials)
        if self.trials > MOST_TERMS:
            return simulated(self)
        if len(a) == 2:
            return self._summed()
        total = a.sum()
        value = -float(gaussian_gain(n / total) / 2 + remainder_divergence(total, total.new_tensor(n)))
        size = -value
        for shape in a:
            for first in range(0, self.trials + 1, BLOCK):
                x = torch.arange(
                    first, min(first + BLOCK, self.trials + 1), dtype=torch.float64, device=a.device
                )
                pair = torch.stack([shape, total - shape])
                mass = log_dirichlet_multinomial(pair, torch.stack([x, n - x], -1)).exp()
                terms = dirichlet_kl_terms(shape.expand_as(x), x, total.expand_as(x), torch.full_like(x, n))
                part = float((mass * terms).sum())
                value, size = value + part, size + part
        return Estimate(value=max(value, 0.0), error=4 * EPS * size + TINY, method="closed form")

    def _summed(self) -> Estimate:
        """The information of one row of two categories: ``Σ_x p(x) KL(x)``, of which nothing cancels."""
        a, n = self._shapes, self.trials
        value = error = 0.0
        for first in range(0, n + 1, BLOCK):
            x = torch.arange(first, min(first + BLOCK, n + 1), dtype=torch.float64, device=a.device)
            counts = torch.stack([x, n - x], -1)
            mass = log_dirichlet_multinomial(a, counts).exp()
            s = counts[:, : self._columns]
            value += float(mass @ self._kl(s, 1.0))
            error += float(mass @ self._error(s, 1.0))
        return Estimate(value=value, error=error + 4 * EPS * value + TINY, method="closed form")

    def _kl(self, s: Tensor, count: float) -> Tensor:
        counts = self._counts(s, count)
        return dirichlet_kl(self._shapes.to(counts.device).expand_as(counts), counts)

    def _error(self, s: Tensor, count: float) -> Tensor:
        counts = self._counts(s, count)
        a = self._shapes.to(counts.device).expand_as(counts)
        total, n = a.sum(-1), counts.sum(-1)
        terms = rounded_parts(a, counts).sum(-1) + rounded_parts(total, n)
        # The means move by (x_i s − n a_i)/…, whose two terms may cancel; the rest is of one sign.
        step = EPS * n * total.sqrt() / (total + n)
        kl = self._kl(s, count)
        return EPS * (kl + terms) + (2 * kl).sqrt() * step + step.square() + TINY

    def flatness(self, x: Any) -> Flatness:
        """Give the moments of ``ℓ(p) = Σ x_i log p_i + const`` under the Dirichlet prior, by trigammas.

        ``V = Σ x_i² ψ'(a_i) − n² ψ'(s) = Σ a_i (x_i/a_i − n/s)² + Σ x_i² ρ(a_i) − n² ρ(s)``, ρ(a) = ψ'(a) − 1/a,
        since ``Cov(log p_i, log p_j) = δ_ij ψ'(a_i) − ψ'(s)``; ω = ∞ unless n = 0: ℓ has no bottom at the faces.

        Source: theory/T4; moments of the logarithms of a Dirichlet law.
        """
        return super().flatness(x)

    def _variance(self, s: Tensor, count: float) -> Tensor:
        counts = self._counts(s, count)
        a = self._shapes.to(counts.device).expand_as(counts)
        total, n = a.sum(-1, keepdim=True), counts.sum(-1, keepdim=True)
        apart = counts / a - n / total
        main = (a * apart.square()).sum(-1)
        rest = (counts.square() * trigamma_rest(a)).sum(-1)
        whole_rest = (n.square() * trigamma_rest(total))[..., 0]
        step = EPS * (a * (counts / a + n / total).square()).sum(-1).sqrt()
        variance = (main + rest - whole_rest).clamp(min=0.0)
        error = 2 * main.sqrt() * step + step.square() + EPS * (main + rest + whole_rest) + TINY
        return torch.stack([variance, error, n[..., 0]], -1)

    def _draw(self, n: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Probabilities and counts of every category."""
        n = number_of_draws(n, generator)
        a = self._shapes
        draws = gammas(a.expand(1 if self.pooled else n, -1).contiguous(), generator)
        p = draws / draws.sum(-1, keepdim=True)
        left = torch.full((n,), float(self.trials), dtype=torch.float64, device=a.device)
        rest, counts = torch.ones_like(p[:, 0]), []
        for i in range(len(a) - 1):
            share = torch.where(rest > 0, p[:, i] / rest.clamp(min=1e-300), 0.0).clamp(0.0, 1.0)
            counts.append(torch.binomial(left, share.expand(n).contiguous(), generator=generator))
            left, rest = left - counts[-1], (rest - p[:, i]).clamp(min=0.0)
        return p, torch.stack([*counts, left], -1)

    def _log_multinomial(self, x: Tensor, p: Tensor, log_p: Tensor) -> Tensor:
        """``log Multinomial(x; n, p)`` of probabilities of every category."""
        counts = self._counts(x.to(torch.float64), 1.0)
        if not self.pooled:
            # At p itself the coefficient and the powers are of a size; 0 · log 0 = 0.
            possible = ((p > 0) | (counts == 0)).all(-1)
            safe = torch.where(p > 0, p, 1.0)
            found = log_multinomial(counts.expand_as(p), torch.where(counts > 0, safe, p))
            return torch.where(possible, found, -math.inf).to(x.dtype)
        share = counts / counts.sum(-1, keepdim=True).clamp(min=1.0)
        coefficient = (log_multinomial(counts, share) - torch.xlogy(counts, share).sum(-1)).sum()
        total = counts.sum(0)
        powers = torch.where(total > 0, total * log_p, 0.0).sum(-1)
        return (coefficient + powers).to(x.dtype)


def of_others(parts: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k"]:
    """Sum the other entries for each along the last axis, none of which a large one of its own may round away.

    >>> of_others(torch.tensor([1e20, 1.0, 2.0], dtype=torch.float64))
    tensor([3.0000e+00, 1.0000e+20, 1.0000e+20], dtype=torch.float64)
    """
    none = torch.zeros_like(parts[..., :1])
    before = torch.cat([none, parts[..., :-1].cumsum(-1)], -1)
    after = torch.cat([parts[..., 1:].flip(-1).cumsum(-1).flip(-1), none], -1)
    return before + after


def beta_moments(shapes: Float[Tensor, "m k"]) -> Float[Tensor, "m 2 k"]:
    """Mean and standard deviation of each entry of a Dirichlet law."""
    total = shapes.sum(-1, keepdim=True)
    mean = shapes / total
    sd = (mean * (of_others(shapes) / total) / (total + 1)).sqrt()
    return torch.stack([mean, sd], -2)


def fitted_shapes(counts: Float[Tensor, "n k"], trials: int) -> tuple[Float[Tensor, " k"], Convergence]:
    """The shapes of the Dirichlet prior under which counts are most likely, and how the climb to them went.

    Raises:
        ValueError: fewer than two trials, no row, an outcome that is never seen.
    """
    if trials < 2:
        raise ValueError(
            f"trials should be at least 2: single trials say nothing of the spread of p, got {trials}"
        )
    if len(counts) == 0:
        raise ValueError("x should have at least one row, got none")
    unseen = torch.nonzero(counts.sum(0) == 0)
    if len(unseen):
        raise ValueError(f"x should show every outcome, got outcome {int(unseen[0])} never")
    different, times = torch.unique(counts.to(torch.float64), dim=0, return_counts=True)
    mean = counts.mean(0) / trials
    spread = (counts / trials).var(0, unbiased=False).sum() / (mean * (1 - mean)).sum()
    # Var(x/n) = m(1 − m)(1 + (n − 1)/(s + 1))/n
    excess = (float(spread) * trials - 1) / (trials - 1)
    total = min(max(1 / excess - 1, 0.1), 1e4) if excess > 0 else 1e4

    def height(log_shapes: Tensor) -> Tensor:
        return (times * log_dirichlet_multinomial(log_shapes.exp().expand_as(different), different)).sum()

    names = [f"shape {i + 1}" for i in range(counts.shape[1])]
    best, convergence = climb(height, (mean * total).log(), names)
    return best.exp(), convergence

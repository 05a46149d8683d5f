"""Mixtures of exponential families: Poisson, exponential, Bernoulli, binomial, geometric and gamma components."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent

from identkit.classical.arrays import rows
from identkit.classical.em import Convergence
from identkit.classical.mixtures.finite import FiniteMixture, probabilities
from identkit.classical.mixtures.fit import climb, seeded_masses, shares
from identkit.classical.mixtures.information import enumerated, integrated
from identkit.classical.mixtures.members import Binomial, Gamma, Member
from identkit.classical.mixtures.reading import member_named, member_of
from identkit.model import families
from identkit.model.compiled.data import whole
from identkit.model.model import Model
from identkit.model.protocol import Estimate

_EPS = torch.finfo(torch.float64).eps
_MOST_CELLS = 2**16
_LEAST = math.log(torch.finfo(torch.float64).tiny)
_GAUSS = np.polynomial.legendre.leggauss(12)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class FamilyMixture(FiniteMixture):
    """A mixture of K members of one exponential family, with independent columns where a row has several.

    ``k ~ Categorical(π), x_i | k ~ F(θ_ki)``; ``r_k ∝ π_k Π_i f(x_i; θ_ki)``, from the differences of the natural
    parameters, so that equal components give the prior back exactly.

    Source: Wang, Blei & Cunningham 2021, section 2 (mixtures); `theory/T1`, `theory/T4`.

    Args:
        weights: π, shape (K,), K ≥ 2, non-negative and summing to one; nothing is normalised.
        components: torch's Poisson, Exponential, Bernoulli, Binomial, Geometric (failures before a success) or Gamma,
            of batch shape (K,), or an Independent of one, with batch shape (K,) and event shape (d,).

    Raises:
        ValueError, TypeError: a wrong shape, another family, weights that are no probabilities, parameters at the
            edge of their domain (a rate or a probability of 0).

    >>> model = FamilyMixture([0.5, 0.5], torch.distributions.Poisson(torch.tensor([1.0, 3.0])))
    >>> model.posterior([0, 5]).probs
    tensor([[0.8808, 0.1192],
            [0.0295, 0.9705]], dtype=torch.float64)
    """

    weights: Float[Tensor, " components"]
    parameters: Float[Tensor, "p components d"]
    """The family's parameters in torch's order."""
    member: Member
    convergence: Convergence | None

    def __init__(self, weights: Any, components: Any) -> None:
        base, inner = components, 0
        if isinstance(components, Independent):
            base, inner = components.base_dist, components.reinterpreted_batch_ndims
        if not isinstance(base, Distribution):
            raise TypeError(
                f"components should be a torch distribution of batch shape (K,), got {type(base).__name__}"
            )
        member, parameters = member_of(base)
        if parameters.ndim != 2 + inner or inner > 1 or 0 in parameters.shape:
            raise ValueError(
                "components should have batch shape (K,), or be an Independent of batch shape (K,) and event shape "
                f"(d,), got batch shape {tuple(components.batch_shape)} and event shape {tuple(components.event_shape)}"
            )
        parameters = parameters.reshape(len(parameters), parameters.shape[1], -1)
        weights = probabilities(weights, parameters.shape[1]).to(parameters.device)
        self._set(weights, parameters, member)

    @classmethod
    def fit(
        cls,
        x: Any,
        family: type[Distribution] | str,
        components: int,
        *,
        total_count: int | None = None,
        shape: float | int | None = None,
        start: FamilyMixture | None = None,
        restarts: int = 4,
        generator: torch.Generator | None = None,
        tolerance: float = 1e-6,
        iterations: int = 5000,
    ) -> FamilyMixture:
        """Fit by expectation–maximisation, the best of several starts; its `convergence` says how it went.

        M-steps are in closed form but for a free gamma shape, which takes Newton's method. Parameters stay 1e-12
        inside their domain; a component that loses all its data gets weight 0 and keeps its parameters.

        Source: Dempster, Laird & Rubin 1977; Minka 2002, "Estimating a Gamma distribution".

        Args:
            x: data (n, d).
            family: the class of torch.distributions, or its name.
            components: K ≥ 2, at most n.
            total_count: the number of trials of a Binomial.
            shape: fixes the shape of a Gamma (its concentration); None to estimate it.
            start: a mixture to begin from, the only start then.
            restarts: number of random starts.
            generator: for the starts; None for seed 0.
            tolerance: stop when an iteration gains less, in nats of all data.
            iterations: at most so many from each start.

        Raises:
            ValueError, TypeError: too few rows, data that the family cannot produce, another family.

        >>> x = [0.0] * 40 + [1.0] * 30 + [9.0] * 20 + [11.0] * 10
        >>> FamilyMixture.fit(x, torch.distributions.Poisson, 2).parameters[0].sort(0).values
        tensor([[0.4283],
                [9.6579]], dtype=torch.float64)
        """
        member = member_named(family, total_count, shape)
        columns = x.shape[1] if isinstance(x, Tensor | np.ndarray) and x.ndim == 2 else None
        if columns is None:
            columns = np.shape(x)[1] if np.ndim(x) == 2 else 1
        x = _checked(rows(x, columns), member).double()
        components = whole(components, "components", 2, len(x), ", the rows of x")
        if start is not None and (start.member.words, *start.parameters.shape[1:]) != (
            member.words,
            components,
            columns,
        ):
            raise ValueError(
                f"start should have {components} {type(member).__name__} components of {columns} columns, got "
                f"{type(start.member).__name__} of shape {tuple(start.parameters.shape[1:])}"
            )

        def maximised(model: FamilyMixture | None, mass: Tensor) -> FamilyMixture:
            weights, held = shares(mass)
            total = mass.sum(0)[:, None].clamp(min=1e-300)
            parameters = member.maximised(x, mass, total)
            if model is not None:
                parameters = torch.where(held[:, None], parameters, model.parameters)
            following = object.__new__(cls)
            following._set(weights, parameters, member)
            return following

        starts = (
            [maximised(None, mass) for mass in seeded_masses(x, components, restarts, generator)]
            if start is None
            else [start._at(x)]
        )
        return climb(x, starts, maximised, tolerance, iterations)

    @property
    def components(self) -> Distribution:
        """The components as torch's distribution, of batch shape (K,)."""
        if self.parameters.shape[2] == 1:
            return self.member.law(self.parameters[..., 0])
        return Independent(self.member.law(self.parameters), 1)

    def mutual_information(self) -> Estimate:
        """Evaluate ``I(k; x) = E KL(r ‖ π)`` in nats: summed or integrated in one dimension, else by simulation.

        Bernoulli and binomial rows with at most 65,536 values are summed in any dimension. Counts are summed up to
        where their probability beyond is lost in rounding, if that is at most 65,536.
        """
        d = self.parameters.shape[2]
        if isinstance(self.member, Binomial) and (self.member.count + 1) ** d <= _MOST_CELLS:
            values = torch.arange(self.member.count + 1, dtype=torch.float64, device=self.weights.device)
            return enumerated(self, torch.cartesian_prod(*[values] * d).reshape(-1, d))
        if d > 1:
            return super().mutual_information()
        if self.member.whole:
            law = self.member.law(self.parameters[:, self.weights > 0, 0])
            most = float((law.mean + 12 * law.stddev).max())
            while most <= _MOST_CELLS:
                cells = torch.arange(math.ceil(most), dtype=torch.float64, device=self.weights.device)[
                    :, None
                ]
                left_out = max(1 - float(torch.exp(self.log_evidence(cells)).sum()), 0.0)
                if left_out < 1e-14:
                    return enumerated(self, cells, max(left_out, _EPS))
                most *= 2
            return super().mutual_information()
        # Over log x, from where the density has no mass below to where it has none above.
        shape, rate = (
            self.parameters[:, self.weights > 0, 0]
            if isinstance(self.member, Gamma)
            else (
                torch.ones_like(self.parameters[0, self.weights > 0, 0]),
                self.parameters[0, self.weights > 0, 0],
            )
        )
        low = -rate.log() - 45 / shape.clamp(max=1.0)
        # Shapes near 0 have mass below the least number there is: what it could say is part of the error.
        below = torch.exp(shape * (rate.log() + _LEAST) - torch.lgamma(shape + 1))
        below = torch.where(low < _LEAST, below.clamp(max=1.0), 0.0)
        low = low.clamp(min=_LEAST)
        high = ((shape + 12 * shape.sqrt() + 50) / rate).log()
        steps = torch.linspace(0, 1, 33, dtype=torch.float64, device=low.device)[:, None]
        edges = (low + steps * (high - low)).flatten().unique()
        found = integrated(self, edges, lambda t: (t.exp(), t))
        weights = self.weights[self.weights > 0]
        left_out = -float((weights @ below) * weights.min().log())
        return Estimate(value=found.value, error=found.error + left_out, method=found.method)

    def _set(self, weights: Tensor, parameters: Tensor, member: Member) -> None:
        for name, value in (
            ("weights", weights),
            ("parameters", parameters),
            ("member", member),
            ("convergence", None),
        ):
            object.__setattr__(self, name, value)

    @property
    def _title(self) -> str:
        return f"{type(self.member).__name__} mixture"

    def _rows(self, x: Any) -> Tensor:
        return _checked(rows(x, self.parameters.shape[2], self.weights.device), self.member)

    def _log_densities(self, x: Tensor) -> Tensor:
        return self.member.log_density(x, self.parameters).sum(2)

    def _ratio(self, x: Tensor, lead: int = 0) -> tuple[Tensor, Tensor]:
        own = self.parameters[:, self._support]
        gains = self.member.gains(own, own[:, lead : lead + 1])
        statistics = self.member.statistics(x)
        terms = gains.shape[0] * gains.shape[2]
        error = (terms + 6) * _EPS * _product(statistics.abs(), gains.abs())
        return _product(statistics, gains), error + self._reading_error(statistics, lead)

    def _reading_error(self, statistics: Tensor, lead: int = 0) -> Tensor:
        """What half a unit in the last place of every parameter can change: a verdict reads shortest decimals."""
        own = self.parameters[:, self._support]
        sway, first = self.member.sway(own), slice(lead, lead + 1)
        differs = (own != own[:, first]).any(0)
        return _EPS * _product(statistics.abs(), torch.where(differs, sway + sway[:, first], 0.0))

    def _ratio_under_prior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Torch's own log densities: integrated derivatives along the way from the reference, or differences where far."""
        own = self.parameters[:, self._support]
        first = own[:, :1]
        total = x.new_zeros(len(x), own.shape[1], own.shape[2])
        for node, weight in zip(*_GAUSS, strict=True):
            with torch.enable_grad():
                s = torch.full_like(total, (node + 1) / 2).requires_grad_()
                height = self.member.law(first[:, None] + s * (own - first)[:, None]).log_prob(x[:, None, :])
                (slope,) = torch.autograd.grad(height.sum(), s)
            total = total + weight / 2 * slope
        logs = self.member.law(own).log_prob(x[:, None, :])
        near = self.member.close(own, first)
        ratio = torch.where(near, total, logs - logs[:, :1])
        statistics, sway = self.member.statistics(x), self.member.sway(own)
        moved = self.member.gains(own, first).abs()
        along = _product(
            statistics.abs(), 4 * moved + torch.where(near & (own == first).all(0), 0.0, _EPS * sway)
        )
        size = logs.abs() + self.member.bulk(x)[:, None, :]
        apart = torch.where(near, 0.0, size + size[:, :1]).sum(2) + _product(
            statistics.abs(), torch.where(near, 0.0, sway + sway[:, :1] + moved)
        )
        terms = own.shape[2] * len(moved) + 40
        return ratio.sum(2), terms * _EPS * (along + apart) + self._reading_error(statistics)

    def _draw(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        # torch.distributions takes no generator: its draws are made under a seed that the generator gives.
        place = states.device if generator is None else generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=place))
        devices = [states.device] if states.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            return self.member.law(self.parameters[:, states]).sample().double()

    def _observe(self, model: Model, k: Any) -> None:
        d = self.parameters.shape[2]
        for i in range(d):
            chosen = [
                families.select(k, *[families.exact(value) for value in parameter[:, i].tolist()])
                for parameter in self.parameters
            ]
            model.observe("x" if d == 1 else f"x[{i + 1}]", self.member.declared(*chosen))


def _checked(x: Tensor, member: Member) -> Tensor:
    refused = torch.nonzero(member.refused(x))
    if len(refused):
        place = tuple(refused[0].tolist())
        raise ValueError(f"x should hold {member.words}, got {x[place].item():g} at index {place}")
    return x


def _product(statistics: Tensor, coefficients: Tensor) -> Tensor:
    """``Σ_mi Φ_mi(x) η_mki``: (n, m, d) and (m, K, d) → (n, K)."""
    return statistics.flatten(1) @ coefficients.transpose(1, 2).flatten(0, 1)

"""`diagnose`: per latent and overall, how much the likelihood varies, what the truth knows, and what the encoder says."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.stats import t as student
from torch import Tensor

from identkit.diagnosis.encoder import Encoded, encoded, measured, moments
from identkit.diagnosis.truth import Truth, true_posterior
from identkit.numeric.flatness import Flat, flatness
from identkit.numeric.probed import probed
from identkit.posterior.unbounded import unbounded


class Fault(enum.Enum):
    """Whose fault it is that a latent carries nothing."""

    MODEL = "model-collapsed"
    """The true posterior is the prior: no inference could do better (theory/T1)."""
    INFERENCE = "inference-collapsed"
    """The true posterior is informed, and q is still the prior, or one and the same law for all data."""
    HEALTHY = "healthy"
    """Both are informed."""
    UNDECIDED = "undecided"
    """An interval holds the threshold, or annealing has not converged."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Measure:
    """A mean over the data, in nats, and the interval that holds it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if not math.isfinite(self.high):
            return f"at least {self.low:.3g}"
        if self.high - self.low <= 5e-3 * abs(self.value) or self.high <= 1e-9:
            return f"{self.value if self.high > 1e-9 else 0:.3g}"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def to_dict(self) -> dict[str, float | None]:
        """As strict JSON: what is not finite is null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one latent given the others, or about all of them together; means over the data, nats."""

    name: str
    """The latent, or "all"."""
    fault: Fault
    flatness: Measure
    """``½ E Var(ℓ | z_−j)`` under the prior, ``½ Var ℓ`` for all: the model's side (theory/T4)."""
    truth: Measure
    """E KL(p(z_j | z_−j, x) ‖ p(z_j | z_−j)) under the true posterior, its joint KL for all."""
    inference: Measure
    """The same of the encoder's q."""
    spread: float
    """``Var_x E_q[z_j]``, which calls a unit active; of all: the largest."""
    true_spread: float
    """The same of the true posterior's means."""
    told: float
    """What q's draw of z_j tells about which datum it is for, nats: ``½ log Var z_j − ½ E_x log Var_q z_j``, from
    above for normal q; of all: the sum, from above where q takes the latents as independent."""

    @property
    def gap(self) -> float:
        """What q says beyond the truth, ``inference − truth``; negative where it says less."""
        return self.inference.value - self.truth.value

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON."""
        measures = {name: getattr(self, name).to_dict() for name in ("flatness", "truth", "inference")}
        numbers = {
            "gap": self.gap,
            "active_units_variance": self.spread,
            "true_active_units_variance": self.true_spread,
            "inference_about_the_datum": self.told,
        }
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        return {"name": self.name, "fault": self.fault.value, **measures, **finite}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Per latent and overall: model-collapsed, inference-collapsed, healthy or undecided."""

    model: str
    latents: tuple[Finding, ...]
    overall: Finding
    missed: Measure
    """KL(q ‖ p(z | x)) = log p(x) − ELBO: how far q is from the true posterior."""
    threshold: float
    """Nats below which a posterior counts as the prior."""
    active: float
    """``Var_x E_q[z_j]`` above which a unit counts as active."""
    level: float
    """Of each interval."""
    method: str
    """How the true posterior was found: "quadrature" or "annealing"."""
    used: int
    """Data on which the posteriors were compared."""
    n: int
    """Data given, on which the active units were counted."""
    reasons: tuple[str, ...]
    """Why some data's true posteriors should not be believed."""

    @property
    def active_units(self) -> tuple[str, ...]:
        """The latents that the usual statistic calls active (Burda, Grosse & Salakhutdinov 2016)."""
        return tuple(finding.name for finding in self.latents if finding.spread > self.active)

    def __str__(self) -> str:
        from identkit.diagnosis.words import explained

        return explained(self)

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON."""
        plain = ("model", "threshold", "active", "level", "method", "used", "n")
        return {
            **{name: getattr(self, name) for name in plain},
            "overall": self.overall.to_dict(),
            "latents": [finding.to_dict() for finding in self.latents],
            "missed": self.missed.to_dict(),
            "active_units": list(self.active_units),
            "reasons": list(self.reasons),
        }


def diagnose(
    vae: Any,
    x: Any,
    *,
    seed: int = 0,
    threshold: float = 0.01,
    active: float = 0.01,
    level: float = 0.99,
    most: int = 32,
    method: str = "auto",
    draws: int = 512,
    lines: int = 16,
    progress: Callable[[str], None] | None = None,
    **annealing: Any,
) -> Diagnosis:
    """Say for each latent of a variational autoencoder whether a collapse is the model's fault, the encoder's, or none.

    Three numbers are compared, each of a latent *given the others* (a marginal may repeat the prior although the
    likelihood sees the latent, theory/T3), and jointly for all: the variation of the log-likelihood under the prior,
    the KL of the true posterior from the prior, and that of q. With ε the threshold and all intervals at `level`,

    * *model-collapsed*: the truth's KL is at most ε;
    * *inference-collapsed*: it is more than ε, and q's is at most ε; or q is the same for all data (`Finding.told` is
      at most ε), as free bits may leave it, while the true posterior's mean is active;
    * *healthy*: both are more than ε;
    * *undecided*: an interval holds ε, or annealing has not converged.

    All are means over the data. A datum whose annealing has not converged counts as 0 where a lower end is asked for,
    and as infinite where an upper one is: it can help to no verdict that it might contradict. A direction across
    latents that the likelihood ignores while each latent matters, as a rotated model has, shows in no coordinate:
    `identkit.check` finds those.

    Sources: theory/T1, T3 and T4; Lucas et al. 2019, Don't blame the ELBO (ε-collapse); Burda et al. 2016 (active units).

    Args:
        vae: a model with `prior`, `decoder` and `likelihood`, or `prior` and ``log_likelihood(x, z)``, as `check` takes
            it, and ``encode(x)``, a torch distribution with one law for each row.
        x: data, first axis over rows.
        seed: of all randomness; torch's own state of chance is left as it was.
        threshold: ε, in nats. active: ``Var_x E_q[z_j]`` from which a unit counts as active. level: of the intervals.
        most: rows, drawn at random, on which posteriors are compared; the active units are counted on all.
        method: of the true posterior: "quadrature" (up to three latents), "annealing", or "auto".
        draws: from q for each datum. lines: of these and of posterior draws, for the conditional informations.
        progress: called with what is going on, in words, as it takes seconds to minutes.
        annealing: options of `identkit.posterior.annealed.annealed`, such as ``particles``.

    Raises:
        TypeError: a model without `encode`, or one that `check` would refuse.
        ValueError: NaN in x, wrong shapes, dropout in training mode, a discrete prior, an option out of range.
    """
    _positive(threshold=threshold, active=active, most=most, draws=draws, lines=lines)
    if not 0 < level < 1:
        raise ValueError(f"level should lie between 0 and 1, got {level}")
    everything = probed(vae, x=x)
    assert everything.x is not None
    prior = unbounded(everything.prior.distribution)
    n = len(everything.x)
    means_of_q, variances_of_q = moments(encoded(vae, x, prior.size), seed)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(n, generator=generator)[:most].sort().values
    part = probed(vae, x=everything.x[chosen.to(everything.x.device)])
    law = encoded(vae, part.x, prior.size)
    tell = progress or (lambda what: None)
    tell("how much the likelihood varies")
    flat = flatness(part, seed=seed, level=level)
    options = {"lines": lines, "progress": tell, **annealing}
    tell("what q says")
    q = measured(part, prior, law, draws, lines, seed)
    tell("the true posteriors")
    truth = true_posterior(part, prior, method, seed, options)
    latents, overall = _findings(
        part.prior.names, flat, truth, q, (means_of_q, variances_of_q), (threshold, active), level
    )
    missed_error = torch.hypot(truth.log_evidence_error, q.elbo_error)
    return Diagnosis(
        model=type(vae).__name__,
        latents=latents,
        overall=overall,
        missed=_interval(truth.log_evidence - q.elbo, missed_error, truth.degrees, level, truth.believed),
        threshold=threshold,
        active=active,
        level=level,
        method=truth.method,
        used=len(chosen),
        n=n,
        reasons=tuple(
            f"datum {int(row)}: {'; '.join(words)}"
            for row, words in zip(chosen, truth.reasons, strict=True)
            if words
        ),
    )


def _findings(
    names: Sequence[str],
    flat: Flat,
    truth: Truth,
    q: Encoded,
    of_q: tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]],
    thresholds: tuple[float, float],
    level: float,
) -> tuple[tuple[Finding, ...], Finding]:
    """What was found of each latent, and of all; `of_q` are q's means and variances of all data."""
    good = truth.believed
    whole = torch.ones_like(good)
    means, variances = of_q
    spreads, true_spreads = (_variance(table) for table in (means, truth.mean[good]))
    told = ((variances.mean(0) + spreads).log() - variances.log().mean(0)) / 2
    latents = tuple(
        _finding(
            name,
            _over_data(flat.per_latent[:, j], flat.per_latent_interval[:, j]),
            _interval(
                truth.kl_conditional[:, j], truth.kl_conditional_error[:, j], truth.degrees, level, good
            ),
            _interval(q.kl_conditional[:, j], q.kl_conditional_error[:, j], q.degrees, level, whole),
            (float(spreads[j]), float(true_spreads[j]), float(told[j])),
            thresholds,
        )
        for j, name in enumerate(names)
    )
    overall = _finding(
        "all",
        _over_data(flat.half_variance, flat.half_variance_interval),
        _interval(truth.kl, truth.kl_error, truth.degrees, level, good),
        _interval(q.kl, q.kl_error, math.inf, level, whole),
        (float(spreads.max()), float(true_spreads.max()), float(told.sum())),
        thresholds,
    )
    return latents, overall


def _finding(
    name: str,
    flatness: Measure,
    truth: Measure,
    inference: Measure,
    numbers: tuple[float, float, float],
    thresholds: tuple[float, float],
) -> Finding:
    (spread, true_spread, told), (threshold, active) = numbers, thresholds
    if truth.high <= threshold:
        fault = Fault.MODEL
    elif truth.low > threshold and inference.high <= threshold:
        fault = Fault.INFERENCE
    elif truth.low > threshold and inference.low > threshold:
        same_for_all = told <= threshold and true_spread > active
        fault = Fault.INFERENCE if same_for_all else Fault.HEALTHY
    else:
        fault = Fault.UNDECIDED
    return Finding(
        name=name,
        fault=fault,
        flatness=flatness,
        truth=truth,
        inference=inference,
        spread=spread,
        true_spread=true_spread,
        told=told,
    )


def _interval(
    values: Float[Tensor, " n"],
    errors: Float[Tensor, " n"],
    degrees: float,
    level: float,
    good: Bool[Tensor, " n"],
) -> Measure:
    """The mean over the data with a Student interval, the data's errors being independent; KLs are not negative."""
    good = good & torch.isfinite(values) & torch.isfinite(errors)
    if not bool(good.any()):
        return Measure(math.nan, 0.0, math.inf)
    # With the fewest degrees that a single datum has: cautious for many data.
    half = (
        float(student.ppf((1 + level) / 2, degrees)) * float(errors[good].square().sum().sqrt()) / len(values)
    )
    counted = float(values[good].sum()) / len(values)
    high = counted + half if bool(good.all()) else math.inf
    return Measure(float(values[good].mean()), max(0.0, counted - half), high)


def _over_data(values: Float[Tensor, " n"], interval: Float[Tensor, "n 2"]) -> Measure:
    """The mean over data that share their prior draws, whose errors may all go the same way."""
    low, high = interval.mean(0).tolist()
    return Measure(float(values.mean()), max(0.0, low), high)


def _variance(means: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    return means.var(0, correction=0) if len(means) else means.new_full((means.shape[1],), math.nan)


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        least = 2 if name in ("draws", "lines") else 0
        if not value > 0 or value < least:
            raise ValueError(f"{name} should be {f'at least {least}' if least else 'positive'}, got {value}")

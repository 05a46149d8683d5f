"""How far a posterior has moved from its prior, latent by latent, and the certified band it must lie in.

The informations come from the posterior (closed form, adaptive quadrature, or exact gaps where ℓ is
nearly flat); flatness, oscillation and band come from the moments of ℓ under the prior. The two roads
share the model only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.model.compiled import CompiledModel, compiled
from identkit.model.compiled.data import table_of
from identkit.model.language import parse
from identkit.model.model import Model
from identkit.model.protocol import ExactModel, Flatness
from identkit.posterior.bounds import band
from identkit.posterior.guides import Guide, guides, hiding
from identkit.posterior.heights import heights, slopes
from identkit.posterior.moments import prior_moments, rule_size
from identkit.posterior.nearly_flat import nearly_flat
from identkit.posterior.prior_rule import continuous_latents, prior_rule, refuse_too_wide
from identkit.posterior.quadrature import EVALUATIONS, Quadrature, integrate
from identkit.posterior.separable import by_groups, groups
from identkit.posterior.sticks import by_latent, has_shares

_LEAST_ERROR = 1e-30
_QUADRATURE_SLACK = 1e-9
_MEAN_ROUNDING = 1e-14  # relative
# Orders of a rule under the prior by the number of continuous latents, and how far from the evidence it may be where it
# has seen all of ℓ.
_RULES, _SEEN = (1, 64, 24, 12), 1e-4
_TABLE = 1 << 23  # numbers in a table of ℓ: 64 MB
# What quadrature and the nearly flat sums both have to say.
_SHARED = (
    *("kl", "kl_error", "kl_per_latent", "kl_per_latent_error", "kl_conditional", "kl_conditional_error"),
    *("mean", "sd", "log_evidence"),
)


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """What the data told about the latents: informations in nats, one entry per datum (n) and latent (k).

    A row is collapsed when ``kl`` does not exceed ``kl_error``; then the posterior is the prior (theory/T1).
    """

    names: tuple[str, ...]
    """The latents, as the text notation names them."""
    kl: Float[Tensor, " n"]
    """KL(p(z | x) ‖ p(z)) of all latents together."""
    kl_error: Float[Tensor, " n"]
    """A bound on the error of `kl`; positive."""
    kl_per_latent: Float[Tensor, "n k"]
    """KL of each marginal. Zero does not mean that ℓ ignores the latent (theory/T3)."""
    kl_per_latent_error: Float[Tensor, "n k"]
    kl_conditional: Float[Tensor, "n k"]
    """E_Q KL(p(z_j | z_−j, x) ‖ p(z_j | z_−j)): zero iff ℓ ignores z_j (theory/T3)."""
    kl_conditional_error: Float[Tensor, "n k"]
    flatness: Float[Tensor, " n"]
    """½ Var_P(ℓ); ∞ where it is infinite, and where a mixture's narrow component is all but invisible to a rule
    under P."""
    omega: Float[Tensor, " n"]
    """The oscillation of ℓ under the prior, or an upper bound of it; ∞ where none is certified."""
    band: Float[Tensor, "n 2"]
    """Between which numbers theory/T4 certifies `kl` to lie."""
    bound: tuple[str, ...]
    """The theorems behind the two ends of each band: "T4.3/T4.2", "T4.4", "none"."""
    posterior_mean: Float[Tensor, "n k"]
    """A state counts by its number, from 0."""
    posterior_sd: Float[Tensor, "n k"]
    log_evidence: Float[Tensor, " n"]
    """log p(x)."""

    @property
    def mean_kl(self) -> float:
        """The average of `kl` over the data."""
        return float(self.kl.mean())


def collapse(
    model: Any,
    x: Any,
    at: Mapping[Any, Any] | None = None,
    pooled: bool = False,
    mask: Any = None,
) -> Collapse:
    """Measure how far the exact posterior of each datum is from the prior.

    ``KL(p(z | x) ‖ p(z)) = E[log p(x | z) | x] − log p(x)``, jointly and for each latent, marginally
    and given the others, beside flatness ½Var_P(ℓ) and the band of theory/T4.

    The shares of a Dirichlet count as one latent fewer; of a share, the others are held in their proportions.

    Source: theory/T1, T3 and T4.

    Args:
        model: a declared model or its text, with at most three continuous latents, or an exact classical model.
        x: (n, d) numpy or torch, or a mapping from names to columns; each row a draw of the whole model.
        at: values of the parameters of a declared model, all of them.
        pooled: take the rows as one data set that shares its latents.
        mask: (n, d), True where x is observed; None if nothing is missing, or for an exact model whose family takes
            NaN for a missing value.

    Raises:
        ValueError: bad data (the message names row and column), a parameter without a value, more than three
            continuous latents, `at` for an exact model, a missing value where the family takes none.
        TypeError: not a model.

    >>> c = collapse("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)", [[1.0]], at={"w": 1})
    >>> round(c.kl.item(), 6), c.bound
    (0.221574, ('T4.4',))
    """
    if isinstance(model, str):
        model = parse(model)
    if isinstance(model, Model):
        if has_shares(model):
            return _of_shares(model, x, at, pooled, mask)
        return _declared(compiled(model, at), x, pooled, mask)
    if not isinstance(model, ExactModel):
        raise TypeError(f"model should be a Model, its text, or an exact model, got {type(model).__name__}")
    if at is not None:
        raise ValueError(f"at should be None for a {type(model).__name__}, got {at!r}")
    if pooled and not model.pooled:
        raise ValueError(
            f"pooled should be False: each row of a {type(model).__name__} has latents of its own"
        )
    return _exact(model, x if mask is None else with_gaps(model, x, mask))


def observed(model: ExactModel, x: Any) -> Bool[Tensor, "n d"] | None:
    """The mask of data (n, d) in which NaN stands for a missing value; None where nothing is missing.

    Only families that say so (`takes_missing`) take NaN; the others refuse it at their own door.

    >>> from identkit.classical.item_response import ItemResponse
    >>> observed(ItemResponse([1.0, 2.0], [0.0, 0.0]), [[1.0, float("nan")]])
    tensor([[ True, False]])
    """
    if not getattr(model, "takes_missing", False):
        return None
    seen = ~table_of(x, model.symbolic().observation_names).isnan()
    return None if bool(seen.all()) else seen


def with_gaps(model: ExactModel, x: Any, mask: Any = None) -> Float[Tensor, "n d"]:
    """Data as a table with NaN, as the families take it, where the mask says that a value is missing.

    Raises:
        ValueError: a mask of another shape, or a missing value where the family takes none.

    >>> from identkit.classical.item_response import ItemResponse
    >>> with_gaps(ItemResponse([1.0, 2.0], [0.0, 0.0]), {"x[1]": [1], "x[2]": [0]}, [[True, False]])
    tensor([[1., nan]], dtype=torch.float64)
    """
    table = table_of(x, model.symbolic().observation_names)
    seen = ~table.isnan() if mask is None else torch.as_tensor(mask, dtype=torch.bool, device=table.device)
    if seen.shape != table.shape:
        raise ValueError(f"mask should have the shape of x, {tuple(table.shape)}, got {tuple(seen.shape)}")
    if not bool(seen.all()) and not getattr(model, "takes_missing", False):
        row, column = (int(place) for place in (~seen).nonzero()[0])
        raise ValueError(
            f"mask should be True everywhere: a {type(model).__name__} takes no missing values, "
            f"got one in row {row + 1}, column {model.symbolic().observation_names[column]}"
        )
    return table.masked_fill(~seen, math.nan)


def _exact(model: ExactModel, x: Any) -> Collapse:
    if isinstance(x, Mapping):
        x = with_gaps(model, x)
    kl = model.kl_to_prior(x)
    error = model.kl_error(x)
    errors = error[:, None].expand(-1, len(model.latent_names))
    mean, sd = model.posterior_moments(x)
    return _with_band(
        model.flatness(x),
        names=tuple(model.latent_names),
        kl=kl,
        kl_error=error,
        kl_per_latent=model.kl_per_latent(x),
        kl_per_latent_error=errors,
        kl_conditional=model.kl_conditional(x),
        kl_conditional_error=errors,
        posterior_mean=mean,
        posterior_sd=sd,
        log_evidence=model.log_evidence(x),
    )


_OF_LATENTS = (
    *("kl_per_latent", "kl_per_latent_error", "kl_conditional", "kl_conditional_error"),
    *("posterior_mean", "posterior_sd"),
)


def _of_shares(model: Model, x: Any, at: Mapping[Any, Any] | None, pooled: bool, mask: Any) -> Collapse:
    """Measure a model with a Dirichlet in free coordinates; a share's conditional KL is given the others' proportions."""
    found: list[Collapse] = []

    def measured(free: Model) -> list[Tensor]:
        found.append(_declared(compiled(free, at), x, pooled, mask))
        return [getattr(found[-1], name) for name in _OF_LATENTS]

    tables = dict(zip(_OF_LATENTS, by_latent(model, measured), strict=True))
    return replace(found[0], names=model.latent_names, **tables)


def _declared(model: CompiledModel, x: Any, pooled: bool, mask: Any) -> Collapse:
    if not model.latent_names:
        raise ValueError("model should have at least one latent, got none")
    refuse_too_wide(model)
    x, mask = model.rows(x, mask)
    if len(x) == 0:
        raise ValueError("x should have at least one row, got none")
    device, x, mask = x.device, x.cpu(), None if mask is None else mask.cpu()
    nodes, weights = prior_rule(model, 8)
    mean = weights @ nodes
    place = mean, (weights @ (nodes - mean).square()).sqrt()
    size = len(x) if pooled else _rows_at_once(model)
    parts = []
    for start in range(0, len(x), size):
        block = slice(start, start + size)
        try:
            parts.append(_block(model, x[block], pooled, None if mask is None else mask[block], *place))
        except (ValueError, ArithmeticError) as error:
            if start:
                error.add_note(f"(rows are counted from row {start + 1} of x on)")
            raise
    result = _joined(parts)
    # Quadrature is a matter of many small steps, which the processor does best; the answer goes where x was.
    moved = {field.name: getattr(result, field.name) for field in fields(result)}
    return replace(
        result, **{name: value.to(device) for name, value in moved.items() if isinstance(value, Tensor)}
    )


def _rows_at_once(model: CompiledModel) -> int:
    """So many that the table of ℓ, and of its slopes, on the nodes under the prior stays small."""
    return max(1, _TABLE // (rule_size(model) * (1 + len(model.latent_names))))


def _joined(parts: list[Collapse]) -> Collapse:
    if len(parts) == 1:
        return parts[0]
    tables = {}
    for field in fields(Collapse):
        column = [getattr(part, field.name) for part in parts]
        if isinstance(column[0], Tensor):
            tables[field.name] = torch.cat(column)
    return Collapse(
        names=parts[0].names, bound=tuple(name for part in parts for name in part.bound), **tables
    )


def _block(
    model: CompiledModel, x: Tensor, pooled: bool, mask: Tensor | None, mean: Tensor, sd: Tensor
) -> Collapse:
    """The collapse of some rows, on the processor; `mean` and `sd` are the prior's."""
    flatness = prior_moments(model, x, pooled, mask)
    settled = torch.zeros(1 if pooled else len(x), dtype=torch.bool)
    pointing = guides(model, x, pooled, mask)
    hidden = hiding(pointing, *prior_rule(model, _RULES[len(continuous_latents(model))]), len(settled))
    pointing = pointing if bool(hidden.any()) else []
    # No sum over nodes under the prior knows what lies between them.
    flat = None if pointing else nearly_flat(model, x, mean, sd, pooled, mask)
    if flat is not None:
        settled[flat.rows] = True
    if flat is not None and bool(settled.all()):
        tables = {name: getattr(flat, name) for name in _SHARED}
    else:
        # The slope of ℓ under the posterior is only needed where no rule under the prior resolves it.
        slope = flatness.gradient_second_moment
        narrow = ~settled if slope is None else (slope.isinf() | hidden) & ~settled
        sloping = slope is not None and bool(narrow.any())
        posterior = _posterior(model, x, pooled, mask, settled, sloping, pointing, mean)
        flatness = _beyond_the_rule(flatness, posterior, narrow, mean)
        if pointing:
            flatness = _beside_needles(flatness, _missed(model, x, pooled, mask, posterior) & hidden)
        tables = {name: getattr(posterior, name).clone() for name in _SHARED}
        for name, table in tables.items():
            if name.endswith("_error"):
                table.clamp_(min=_LEAST_ERROR)
            if flat is not None:
                table[flat.rows] = getattr(flat, name)
    tables["posterior_mean"], tables["posterior_sd"] = tables.pop("mean"), tables.pop("sd")
    return _with_band(flatness, names=model.latent_names, **tables)


def _with_band(flatness: Flatness, **informations: Any) -> Collapse:
    low, high, names = band(flatness)
    return Collapse(
        flatness=flatness.variance / 2,
        omega=flatness.oscillation,
        band=torch.stack([low, high], dim=1),
        bound=tuple(names),
        **informations,
    )


def _posterior(
    model: CompiledModel,
    x: Tensor,
    pooled: bool,
    mask: Tensor | None,
    settled: Tensor,
    sloping: bool,
    pointing: list[Guide],
    mean: Tensor,
) -> Quadrature:
    """Adaptive quadrature, to which settled rows are shown as constant: so they cost next to nothing."""

    def log_likelihood(rows: Tensor, z: Tensor) -> Tensor:
        if pooled:
            return heights(model, x, z, True, mask)[:, 0]
        height = model.log_likelihood(x[rows], z, None if mask is None else mask[rows])
        return torch.where(settled[rows], 0.0, height)

    def gradient(rows: Tensor, z: Tensor) -> Tensor:
        if pooled:
            return slopes(model, x, z, True, mask)[:, 0]
        with torch.enable_grad():
            slope = model.gradient(x[rows], z, None if mask is None else mask[rows])
        return torch.where(settled[rows, None], 0.0, slope)

    count = 1 if pooled else len(x)
    chosen = gradient if sloping else None
    alone = all(
        len(statement.symbols) == 1 and not statement.family.free_symbols & {*model.model.latent_symbols}
        for statement in model.model.latents
    )
    # A pooled evaluation of ℓ costs as much as that of all its data.
    evaluations = max(EVALUATIONS // max(1, len(x) // 10), 1_000_000) if pooled else EVALUATIONS
    # What no term of ℓ joins is integrated out by itself.
    parts = groups(model.model) if len(continuous_latents(model)) > 1 and not pointing else []
    if len(parts) > 1:
        apart = by_groups(model, parts, log_likelihood, chosen, mean, count, evaluations)
        if apart is not None:
            return apart
    return integrate(
        model.log_prior,
        log_likelihood,
        model.axes,
        count,
        gradient=chosen,
        evaluations=evaluations,
        independent=alone,
        guides=pointing,
    )


def _missed(
    model: CompiledModel, x: Tensor, pooled: bool, mask: Tensor | None, posterior: Quadrature
) -> Bool[Tensor, " n"]:
    """On which data the rule under the prior, by which ℓ's moments are taken, sees another evidence."""
    nodes, weights = prior_rule(model, _RULES[len(continuous_latents(model))])
    seen = torch.logsumexp(weights.log()[:, None] + heights(model, x, nodes, pooled, mask), 0)
    return ~((seen - posterior.log_evidence).abs() <= _SEEN)


def _beside_needles(flatness: Flatness, missed: Tensor) -> Flatness:
    """Where the prior's rule misses a needle, ℓ's variance under the prior is not known, nor its oscillation."""
    return replace(
        flatness,
        variance=torch.where(missed, torch.inf, flatness.variance),
        variance_error=torch.where(missed, 0.0, flatness.variance_error),
        oscillation=torch.where(missed, torch.inf, flatness.oscillation),
    )


def _beyond_the_rule(flatness: Flatness, posterior: Quadrature, narrow: Tensor, mean: Tensor) -> Flatness:
    """The two posterior moments of theory/T4.4 on rows where the posterior is too narrow for a rule under P.

    Nothing is confirmed by itself here: T4.4 is an inequality between different moments of the posterior.
    """
    slope, shift, steep = flatness.gradient_second_moment, flatness.mean_shift, posterior.grad_second_moment
    if shift is not None:
        rounding = _MEAN_ROUNDING * (posterior.mean.abs() + mean.abs())
        apart = ((posterior.mean - mean).abs() - rounding).clamp(min=0).square().sum(dim=1)
        apart = apart * (1 - _QUADRATURE_SLACK)
        shift = torch.where(narrow, apart, shift)
    if slope is not None and steep is not None:
        steep = steep.sum(dim=1) * (1 + _QUADRATURE_SLACK)
        # Where ∇ℓ is infinite at nodes of no mass, as of log(1 − z) where z rounds to 1, nothing is known of it.
        slope = torch.where(narrow, torch.where(steep.isnan(), torch.inf, steep), slope)
    return replace(flatness, gradient_second_moment=slope, mean_shift=shift)

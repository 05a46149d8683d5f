"""The moments of ``ℓ(z) = log p(x | z)`` under the *prior*: flatness, oscillation, and what T4.4 needs.

Gauss rules under P throughout, by a road that shares nothing with the adaptive quadrature but the model: a KL
that lies in the band made from these moments has been confirmed, not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from identkit.model.compiled import CompiledModel
from identkit.model.families import Beta
from identkit.model.functions import step
from identkit.model.protocol import Flatness
from identkit.posterior.bounds import beta_log_sobolev
from identkit.posterior.heights import NEARLY_FLAT, exact_gaps, heights, refuse_unusable, slopes
from identkit.posterior.prior_rule import continuous_latents, prior_rule

# Two orders per number of continuous latents: moments come from the first, their error from the difference.
_ORDERS = {0: (1, 1), 1: (96, 64), 2: (40, 28), 3: (20, 14)}
# On nearly flat rows every value is a ball evaluation, and short rules suffice for what is nearly linear.
_FLAT_ORDERS = {0: (1, 1), 1: (20, 14), 2: (10, 7), 3: (8, 6)}
_SAFETY = 4.0  # stated error over the difference of two orders
_ROUNDING = 8 * torch.finfo(torch.float64).eps
_GAP_ROUNDING = 1e-13  # relative, of moments made from exact gaps
_RESOLVED = 1e-6
_JUMPS = (step, sympy.sign, sympy.Heaviside, sympy.floor, sympy.ceiling, sympy.Piecewise)
_TILTS = 40

Rule = tuple[Tensor, Tensor]


def prior_moments(
    compiled: CompiledModel,
    x: Float[Tensor, "n d"],
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> Flatness:
    """Integrate ℓ under the prior: ``V = Var_P(ℓ)``, its oscillation ω, and the two moments of theory/T4.4.

    Finite latents are summed exactly. ω is their exact range, widened by its rounding; with a
    continuous latent it is 0 where ℓ takes one value on all nodes and ∞ otherwise, since no rule bounds
    what lies between nodes. Rows on which ℓ is nearly flat are recomputed from its gaps in ball
    arithmetic, so V is relatively accurate however small. `gradient_second_moment` and `mean_shift` err
    outward (at least and at most the truth), to ∞ and 0 on rows whose posterior is too narrow for a
    rule under the prior. Where ℓ may jump they are None and 0.

    Source: theory/T4.

    Args:
        compiled: the model; at most three continuous latents.
        x: (n, d) checked data, as `compiled.rows` gives them.
        pooled: whether the rows share their latents; ℓ is then their sum, and results have one entry.
        mask: (n, d), True where x is observed.

    Raises:
        ValueError: more than three continuous latents; ℓ is not a number, or −∞ for every state of finite latents.

    >>> import identkit as ik
    >>> from identkit.model.compiled import compiled
    >>> m = compiled(ik.parse("z ~ Normal(0, 1); observe x ~ Normal(z, 1)"))
    >>> round(prior_moments(m, torch.zeros(1, 1, dtype=torch.float64)).variance.item(), 12)  # Var(z²/2)
    0.5
    """
    count = len(continuous_latents(compiled))
    rho = log_sobolev(compiled)
    sloping = rho is not None and not may_jump(compiled)
    tables = []
    for order in _ORDERS.get(count, (1, 1)):
        rule = prior_rule(compiled, order)
        table = heights(compiled, x, rule[0], pooled, mask)
        refuse_unusable(table, pooled, whole=not count)
        tables.append(_reduced(table, slopes(compiled, x, rule[0], pooled, mask) if sloping else None, rule))
    fine, coarse = tables
    noise = _ROUNDING * (1 + fine.size)  # ℓ is rounded to about this much, and √V moves by no more
    rounding = 2 * noise * fine.variance.sqrt() + noise**2
    stated = _stated(fine, coarse, rounding, fine.range + 2 * _ROUNDING * (1 + fine.largest))
    flat = (fine.range < NEARLY_FLAT).nonzero()[:, 0]
    if len(flat):
        nearly = _flat_moments(compiled, x, flat, pooled, mask, sloping)
        known = nearly[0].isfinite()  # balls know no log 0; such rows keep their float64 moments
        stated[:, flat[known]] = nearly[:, known]
    variance, error, oscillation, slope, shift = stated
    if count:
        oscillation = torch.where(oscillation == 0, oscillation, torch.inf)
    return Flatness(
        variance=variance,
        variance_error=error,
        oscillation=oscillation,
        log_sobolev=rho,
        gradient_second_moment=slope if sloping else None,
        mean_shift=None if rho is None else shift if sloping else torch.zeros_like(shift),
    )


def may_jump(compiled: CompiledModel) -> bool:
    """Whether ℓ, by its form, may jump where a latent passes a point: at the end of a support, or at a pole.

    theory/T4.4 bounds KL by the slope of a locally Lipschitz ℓ, and no slope sees a jump: that of ``tanh(1/z)`` is almost
    0 on either side of it. False is a proof, True may be a want of one.

    >>> import identkit as ik
    >>> from identkit.model.compiled import compiled
    >>> texts = [f"z ~ Normal(0, 1); observe x ~ {law}" for law in ("Uniform(z, z + 1)", "Normal(1/z, 1)", "Normal(z, 1)")]
    >>> [may_jump(compiled(ik.parse(text))) for text in texts]
    [True, True, False]
    """
    height, latents = compiled.model.log_likelihood(), {*compiled.model.latent_symbols}
    divisors = [power.base for power in height.atoms(sympy.Pow) if not power.exp.is_nonnegative]
    return height.has(*_JUMPS) or any(b.free_symbols & latents and not b.is_nonzero for b in divisors)


def prior_kl(
    compiled: CompiledModel,
    x: Float[Tensor, "n d"],
    pooled: bool = False,
    mask: Bool[Tensor, "n d"] | None = None,
) -> Float[Tensor, " r"]:
    """Evaluate KL(posterior ‖ prior) of nearly flat data from variances alone, right down to 1e-100.

    ``KL(Q‖P) = ∫₀¹ t Var_{P_t}(ℓ) dt``, ``dP_t ∝ e^{tℓ} dP``, on a Gauss rule under P with ℓ's gaps
    from ball arithmetic: neither a normalised posterior nor a logarithm occurs. It is the second
    opinion on a KL below the precision of the posterior's code; where ℓ is far from flat the rule is
    too coarse, and so is the answer.

    Source: theory/T4.1.

    Args:
        compiled: the model; at most three continuous latents.
        x: (n, d) checked data, as `compiled.rows` gives them.
        pooled: whether the rows share their latents.
        mask: (n, d), True where x is observed.

    Returns:
        KL in nats, (n,), or (1,) for pooled rows; NaN where ball arithmetic knows no gap.

    Raises:
        ValueError: more than three continuous latents.

    >>> import identkit as ik
    >>> from identkit.model.compiled import compiled
    >>> m = compiled(ik.parse("z ~ Normal(0, 1); observe x ~ Normal(w*z, 1)"), at={"w": 1e-18})
    >>> prior_kl(m, torch.ones(1, 1, dtype=torch.float64))  # w²x²/2
    tensor([5.0000e-37], dtype=torch.float64)
    """
    count = len(continuous_latents(compiled))
    nodes, weights = prior_rule(compiled, _FLAT_ORDERS[count][0])
    rows = range(1 if pooled else len(x))
    gaps = torch.stack([exact_gaps(compiled, x, nodes, row, pooled, mask) for row in rows], dim=1)
    total = torch.zeros(gaps.shape[1], dtype=torch.float64)
    for point, mass in zip(*np.polynomial.legendre.leggauss(_TILTS), strict=True):
        t = (point + 1) / 2
        tilted = weights[:, None] * torch.exp(t * (gaps - gaps.amax(dim=0)))
        tilted = tilted / tilted.sum(dim=0)
        total += mass / 2 * t * (tilted * (gaps - (tilted * gaps).sum(dim=0)).square()).sum(dim=0)
    return total


def log_sobolev(compiled: CompiledModel) -> float | None:
    """Find a log-Sobolev constant ρ of the prior, or None where none is known.

    The least eigenvalue of the Hessian of −log p(z) where that is constant (Gaussian priors,
    hierarchical ones with linear means included: Bakry–Émery), the Beta constant for independent Betas;
    a product has the least of its factors' constants.

    Source: theory/T4.4.

    >>> import identkit as ik
    >>> from identkit.model.compiled import compiled
    >>> log_sobolev(compiled(ik.parse("z ~ Normal(0, 1/2); a ~ Beta(5, 5); observe x ~ Normal(a*z, 1)")))
    4.0
    """
    statements = compiled.model.latents
    if not statements or len(continuous_latents(compiled)) < len(compiled.latent_names):
        return None
    mentioned = set().union(*[statement.family.free_symbols for statement in statements])
    alone = [
        s
        for s in statements
        if isinstance(s.family, Beta) and not s.family.free_symbols | mentioned & {*s.symbols}
    ]
    constants = [beta_log_sobolev(*[float(shape) for shape in s.family.arguments]) for s in alone]
    joint = [statement for statement in statements if statement not in alone]
    if joint:
        symbols = [symbol for statement in joint for symbol in statement.symbols]
        density = sympy.Add(*[statement.log_density() for statement in joint])
        curvature = -sympy.hessian(density, symbols).applyfunc(sympy.expand)
        if curvature.free_symbols or any(isinstance(s.family, Beta) for s in joint):
            return None
        constants.append(float(np.linalg.eigvalsh(np.array(curvature.tolist(), dtype=np.float64)).min()))
    known = [rho for rho in constants if rho is not None and rho > 0]
    return min(known) if len(known) == len(constants) else None


def flatness_on_rules(
    fine: tuple[Rule, Tensor, Tensor],
    coarse: tuple[Rule, Tensor, Tensor],
    oscillation: Tensor,
    log_sobolev: float | None,
    rounding: float,
) -> Flatness:
    """Make a `Flatness` from ℓ tabulated on two rules under the prior.

    Args:
        fine: nodes (m, k) and weights (m,), ℓ (m, n) and its slopes (m, n, k).
        coarse: the same on a shorter rule.
        oscillation: (n,) what is known of it.
        log_sobolev: of the prior.
        rounding: the relative error of ℓ's differences.
    """
    one, two = (_reduced(table, steep, rule) for rule, table, steep in (fine, coarse))
    stated = _stated(one, two, 2 * rounding * one.variance, one.range * (1 + rounding))
    return Flatness(
        variance=stated[0],
        variance_error=stated[1],
        oscillation=torch.where(stated[2] == 0, 0.0, oscillation),
        log_sobolev=log_sobolev,
        gradient_second_moment=stated[3],
        mean_shift=stated[4],
    )


def rule_size(compiled: CompiledModel) -> int:
    """How many nodes the rule under the prior has on which `prior_moments` tabulates ℓ."""
    count = len(continuous_latents(compiled))
    return len(prior_rule(compiled, _ORDERS.get(count, (1, 1))[0])[1])


@dataclass(frozen=True)
class _Moments:
    """One rule's answers, an entry per datum (r,)."""

    variance: Tensor
    size: Tensor  # root mean square of ℓ
    largest: Tensor  # of |ℓ|
    range: Tensor
    slope: Tensor  # E_Q ‖∇ℓ‖²
    shift: Tensor  # ‖E_Q z − E_P z‖²
    resolved: Tensor  # whether no node holds the better part of Q


def _reduced(table: Tensor, steep: Tensor | None, rule: Rule) -> _Moments:
    """The moments of ℓ (m, r) under a rule, and of the posterior that it makes by tilting the weights."""
    nodes, weights = rule
    mean, top = weights @ table, table.amax(dim=0)
    top = torch.where(top == -torch.inf, 0.0, top)  # seen by no node
    spread = top - table.amin(dim=0)
    tilted = weights[:, None] * torch.exp(table - top)
    tilted = tilted / tilted.sum(dim=0)
    # Where ℓ is nearly flat the difference of the two means is a mean of expm1, not a difference.
    rise = torch.where(spread < 1, torch.expm1((table - mean).clamp(max=1.0)), 0.0)
    change = weights[:, None] * rise / (1 + weights @ rise)
    apart = nodes - weights @ nodes
    shift = torch.where(spread < 1, (apart.T @ change).square().sum(0), (apart.T @ tilted).square().sum(0))
    slope = (
        torch.zeros_like(top)
        if steep is None
        else torch.where(tilted > 0, tilted * steep.square().sum(dim=-1), 0.0).sum(dim=0)
    )
    return _Moments(
        variance=torch.where(spread.isinf(), torch.inf, weights @ (table - mean).square()),
        size=torch.where(spread.isinf(), 0.0, weights @ table.square()).sqrt(),
        largest=table.abs().amax(dim=0),
        range=spread,
        slope=slope,
        shift=shift,
        resolved=tilted.amax(dim=0) < 0.5,
    )


def _stated(fine: _Moments, coarse: _Moments, rounding: Tensor, spread: Tensor) -> Tensor:
    """Variance, its error, oscillation, slope and shift (5, r), the last two on their safe sides."""
    error = torch.where(
        fine.variance.isinf(), 0.0, _SAFETY * (fine.variance - coarse.variance).abs() + rounding
    )
    slope_error = (fine.slope - coarse.slope).abs()
    resolved = fine.resolved & (slope_error <= _RESOLVED * fine.slope)
    # Rounding of ∇ℓ, which may be a difference of large terms, shows in no difference of two orders.
    slope = fine.slope * (1 + _RESOLVED) + _SAFETY * slope_error
    loss = torch.where((fine.variance > 0) & fine.variance.isfinite(), rounding / fine.variance, 1.0)
    shift = fine.shift * (1 - loss) - _SAFETY * (fine.shift - coarse.shift).abs()
    slope = torch.where(resolved, slope, torch.inf)
    shift = torch.where(resolved, shift.clamp(min=0.0), 0.0)
    still = spread == 0
    slope, shift = torch.where(still, 0.0, slope), torch.where(still, 0.0, shift)
    return torch.stack([fine.variance, error, spread, slope, shift])


def _flat_moments(
    compiled: CompiledModel, x: Tensor, rows: Tensor, pooled: bool, mask: Tensor | None, sloping: bool
) -> Tensor:
    """As `_stated`, of nearly flat rows from their exact gaps."""
    count = len(continuous_latents(compiled))
    tables = []
    for order in _FLAT_ORDERS[count]:
        rule = prior_rule(compiled, order)
        gaps = [exact_gaps(compiled, x, rule[0], row, pooled, mask) for row in rows.tolist()]
        steep = None
        if sloping:
            chosen, seen = (x, mask) if pooled else (x[rows], None if mask is None else mask[rows])
            steep = slopes(compiled, chosen, rule[0], pooled, seen)
        tables.append(_reduced(torch.stack(gaps, dim=1), steep, rule))
    fine, coarse = tables
    return _stated(fine, coarse, _GAP_ROUNDING * fine.variance, fine.range * (1 + _GAP_ROUNDING))

"""Latents on intervals and counts, at one state of the finite ones: ignored, translated, recovered or discrete.

What the law ignores is found as exact null vectors (`symmetry`), what determines its latents by peeling and
monotonicity (`injectivity`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
from sympy import Expr, Set, Symbol

from identkit.model.model import Model
from identkit.symbolic.certificates import DiscreteFibre, Folded, Ignored, Invisible, Monotone, Recovered
from identkit.symbolic.field import nonzero_point, vanishes
from identkit.symbolic.findings import Findings
from identkit.symbolic.full_rank import FullRank, affine_slopes, full_rank
from identkit.symbolic.injectivity import Peeled, peel, slope_sign
from identkit.symbolic.polynomials import factored
from identkit.symbolic.regularity import analytic, positive
from identkit.symbolic.summary import Summary
from identkit.symbolic.support import State, all_domains, almost_never_zero, is_discrete, takes_every_value
from identkit.symbolic.symmetry import Vector, left_inverse, null_directions
from identkit.symbolic.wording import field_in_words
from identkit.verdict import Invariance, Level

MOST_ENTRIES_OF_SYMBOLS, MOST_ENTRIES = 12, 120
"""Sizes of a matrix of coefficients beyond which its inverse is not written out."""


def analyse_continuous(model: Model, law: Summary, latents: Sequence[Symbol], state: State) -> Findings:
    """Latents on intervals (or counts), at one state of the finite ones."""
    found = Findings(
        assumptions=list(law.assumptions), levels=dict.fromkeys((s.name for s in latents), Level.UNKNOWN)
    )
    domains = {symbol: domain for symbol, domain in all_domains(model).items() if symbol not in state}
    counts = {s for s in latents if is_discrete(model.support(s))}
    found.pinned = {s for s in counts if not takes_every_value(model, s)}
    kappa = [expression for expression in law.expressions if expression.has(*latents)]
    directions = null_directions(kappa, latents)
    ignored = [s for s in latents if {s: sympy.S.One} in [_unit(direction) for direction in directions]]
    if ignored:
        found.claims.append(Ignored(tuple(ignored), state))
        for latent in ignored:
            found.levels[latent.name] = Level.CONSTANT
            found.invariances.append(translation(model, {latent: sympy.S.One}))
    _translations(model, found, [d for d in directions if not set(d) & set(ignored)], counts, state)
    seen = [s for s in latents if s not in ignored]
    if law.incomplete:
        found.tried.append(f"no proof that a latent is determined: {law.incomplete}")
    elif seen:
        left = _recover(model, found, kappa, seen, domains, state)
        _discrete_fibre(model, found, kappa, left, counts, domains)
    return found


def _unit(direction: Vector) -> Vector:
    return dict.fromkeys(direction, sympy.S.One) if len(direction) == 1 else direction


def _translations(
    model: Model, found: Findings, directions: Sequence[Vector], counts: set[Symbol], state: State
) -> None:
    for direction in directions:
        touched = set(direction) & counts
        if touched & found.pinned:
            found.tried.append(f"{field_in_words(direction)} may lead out of the prior's support")
            continue
        if touched and touched != set(direction):
            found.tried.append(f"{field_in_words(direction)} mixes counts with continuous latents")
            continue
        if touched and not all(entry.is_Rational for entry in direction.values()):
            found.tried.append(
                f"{field_in_words(direction)} need not meet another point of the lattice of counts"
            )
            continue
        found.claims.append(Invisible(direction, state))
        found.invariances.append(translation(model, direction))
        for latent in direction:
            found.levels[latent.name] = Level.PARTIAL


def translation(model: Model, direction: Vector) -> Invariance:
    """The invariance under translations along a direction, and whether they keep the prior."""
    prior = model.log_prior()
    drift = sympy.Add(*[entry * prior.diff(latent) for latent, entry in direction.items()])
    keeps = True if vanishes(drift) else False if nonzero_point(drift, all_domains(model)) else None
    if keeps and any(model.support(latent) != sympy.S.Reals for latent in direction):
        keeps = False  # the density may be flat, as Uniform's is, but the ends of the support move
    about = tuple(latent.name for latent in direction)
    return Invariance(
        kind="translation", about=about, generator=field_in_words(direction), preserves_prior=keeps
    )


def _recover(
    model: Model,
    found: Findings,
    kappa: Sequence[Expr],
    latents: Sequence[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> list[Symbol]:
    """Find latents that the law determines, one after another; what is found counts as known in the next round."""
    # With round brackets, which no name of a model has.
    outer = {Symbol(f"kappa({i})", real=True): expression for i, expression in enumerate(kappa, 1)}
    known: list[Symbol] = []
    left = list(latents)

    def safe(factor: Expr) -> bool:
        return almost_never_zero(factor, domains)

    progress = True
    while progress and left:
        peeled = [peel(expression, symbol, left, safe) for symbol, expression in outer.items()]
        peeled = [p for p in peeled if p.inner.has(*left)]
        claims, used = _affine(peeled, outer, left, known, domains, state)
        if not claims:
            claims, used = _monotone(model, peeled, outer, left, known, domains, state)
        found.claims += claims
        gone = [latent for claim in claims for latent in claim.gives]
        found.levels.update({latent.name: Level.GLOBAL for latent in gone})
        found.assumptions += [a for p in used for a in _assumed(p.nonzero, model)]
        if any(isinstance(claim, FullRank) and set(claim.point) & set(model.domains) for claim in claims):
            found.assumptions.append(
                f"the coefficients of {', '.join(s.name for s in gone)} in the law have full rank"
            )
        known += gone
        left = [latent for latent in left if latent not in gone]
        progress = bool(gone)
    unseen = [latent for latent in left if found.levels[latent.name] is Level.UNKNOWN]
    found.identifiable += [str(p.inner) for p in _still_open(outer, left, safe)]
    if unseen:
        found.tried.append(
            f"the law is neither affine nor monotone in what is left of it: {', '.join(s.name for s in unseen)}"
        )
    return unseen


def _still_open(outer: Mapping[Symbol, Expr], left: Sequence[Symbol], safe: Any) -> list[Peeled]:
    peeled = [peel(expression, symbol, left, safe) for symbol, expression in outer.items()] if left else []
    return [p for p in peeled if p.inner.has(*left)]


def _assumed(factors: Sequence[Expr], model: Model) -> list[str]:
    # A factor that contains a latent is non-zero for almost every latent value: nothing to assume about θ.
    parameters = set(model.domains)
    wanted = [sympy.together(f) for f in factors if f.free_symbols <= parameters and f.is_nonzero is not True]
    sides = [side for factor in wanted for side in sympy.fraction(factor) if side.free_symbols]
    named = [piece for side in sides for piece, _ in factored(side) if piece.is_nonzero is not True]
    return [f"{piece if not piece.could_extract_minus_sign() else -piece} != 0" for piece in named]


def _affine(
    peeled: Sequence[Peeled],
    outer: Mapping[Symbol, Expr],
    left: Sequence[Symbol],
    known: Sequence[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> tuple[Sequence[Recovered | FullRank], list[Peeled]]:
    straight = [p for p in peeled if affine_slopes(left, [p.inner]) is not None]
    rows = affine_slopes(left, [p.inner for p in straight])
    if not rows:
        return [], []
    symbols = any(entry.free_symbols for row in rows for entry in row)
    if len(rows) * len(left) > (MOST_ENTRIES_OF_SYMBOLS if symbols else MOST_ENTRIES):
        whole = full_rank(straight, rows, outer, left, known, domains, state)
        return ([whole], straight) if whole is not None else ([], [])
    claims, divided = [], []
    for column, coefficients in left_inverse(rows).items():
        constant = [p.inner.subs(dict.fromkeys(left, 0)) for p in straight]
        terms = [
            c * (p.inverse - b) for c, p, b in zip(coefficients, straight, constant, strict=True) if c != 0
        ]
        denominators = [sympy.fraction(sympy.together(c))[1] for c in coefficients]
        if all(almost_never_zero(d, domains) for d in denominators):
            summary = {p.outer: outer[p.outer] for p, c in zip(straight, coefficients, strict=True) if c != 0}
            claims.append(Recovered(left[column], sympy.Add(*terms), summary, tuple(known), state))
            divided += [d for d in denominators if d.free_symbols]
    used = [*straight, Peeled(sympy.S.Zero, Symbol("kappa"), sympy.S.Zero, tuple(divided))] if claims else []
    return claims, used


def _monotone(
    model: Model,
    peeled: Sequence[Peeled],
    outer: Mapping[Symbol, Expr],
    left: Sequence[Symbol],
    known: Sequence[Symbol],
    domains: Mapping[Symbol, Set],
    state: State,
) -> tuple[list[Monotone], list[Peeled]]:
    for p in peeled:
        unknown = [latent for latent in left if p.inner.has(latent)]
        if len(unknown) == 1:
            support = model.support(unknown[0])
            line = sympy.Interval.open(-1, sympy.oo) if is_discrete(support) else support
            sign = slope_sign(p.inner, unknown[0], line)
            # A slope of 0 is harmless at isolated points, not at one value of a count, which has positive mass.
            strict = any(is_discrete(domains[s]) for s in p.inner.free_symbols - {unknown[0]})  # type: ignore[index]
            if sign and (not strict or positive(sign * p.inner.diff(unknown[0]))):
                claim = Monotone(
                    unknown[0], p.inner, sign, p.inverse, {p.outer: outer[p.outer]}, tuple(known), state
                )
                return [claim], [p]
    return [], []


def _discrete_fibre(
    model: Model,
    found: Findings,
    kappa: Sequence[Expr],
    left: Sequence[Symbol],
    counts: set[Symbol],
    domains: Mapping[Symbol, Set],
) -> None:
    """One latent left, seen by an analytic law: finitely or countably many values fit; a reflection makes it exact."""
    if len(left) != 1 or left[0] in counts:
        return
    latent = left[0]
    seen = [e for e in kappa if e.has(latent)]
    if any(other in e.free_symbols for e in seen for other in model.latent_symbols if other != latent):
        return
    if not seen or not all(analytic(expression, domains) for expression in seen):
        return
    if any(is_discrete(domains[s]) for expression in seen for s in expression.free_symbols):  # type: ignore[index]
        return
    second = Symbol(f"{latent.name}'", **latent.assumptions0)
    for expression in seen:
        gap = expression - expression.subs(latent, second)
        point = nonzero_point(gap, {**domains, second: domains[latent]})
        if point is not None:
            here = {s: v for s, v in point.items() if s != second}
            there = {**here, latent: point[second]}
            found.claims.append(DiscreteFibre(latent, expression, here, there))
            found.levels[latent.name] = Level.LOCAL
            break
    else:
        return
    support = domains[latent]
    symmetric = support.inf == -support.sup
    fold = Folded({latent: -latent})
    if symmetric and all(vanishes(e.subs(latent, -latent) - e) for e in kappa) and fold.holds(model):
        found.claims.append(fold)
        prior = model.log_prior()
        keeps = True if vanishes(prior.subs(latent, -latent) - prior) else None
        found.invariances.append(
            Invariance(
                kind="sign flip",
                about=(latent.name,),
                map=f"{latent.name} -> -{latent.name}",
                preserves_prior=keeps,
            )
        )
        found.tried.clear()
    else:
        found.at_least.append(latent.name)

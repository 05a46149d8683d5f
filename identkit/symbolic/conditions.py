"""Conditions that a model's arguments must meet: proved, refused where they certainly fail, or assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sympy
from sympy import Expr, Set, Symbol

from identkit.model import balls
from identkit.model.families import NONNEGATIVE, POSITIVE, MvNormal, select
from identkit.model.model import Model
from identkit.model.statement import Condition
from identkit.model.tape import Tape
from identkit.symbolic.field import points
from identkit.symbolic.regularity import nonnegative, on_open_box, positive
from identkit.symbolic.support import all_domains, is_finite, supported_states, takes_every_value

MOST_MINORS = 4
"""Leading minors of a covariance matrix of symbols that are written out as conditions."""


def refuse_or_assume(model: Model) -> list[str]:
    """Conditions that the model's arguments must meet, as assumptions; refused where they certainly fail.

    Raises:
        ValueError: if there is no latent or observation, or some point of the support breaks a condition.
    """
    if not model.latents:
        raise ValueError(f"{model.name} has no latents to ask about; declare one, as in z ~ Normal(0, 1)")
    if not model.observations:
        raise ValueError(f"{model.name} has no observations; declare one, as in observe x ~ Normal(z, 1)")
    domains = all_domains(model)
    assumed = []
    for condition in [*model.conditions(), *_real(model)]:
        if _holds(condition.expression, condition.domain, domains):
            continue
        broken = _broken(condition, domains, model)
        if broken is not None:
            where = ", ".join(f"{symbol} = {value}" for symbol, value in broken.items())
            raise ValueError(f"{condition} should hold for every latent value, but fails at {where}")
        assumed.append(str(condition))
    return assumed


def _real(model: Model) -> Iterator[Condition]:
    # The arguments' own domains say nothing of a mean such as log(z), nor of a covariance such as [[1, z], [z, 1]].
    for statement in [*model.latents, *model.observations]:
        subject = ", ".join(symbol.name for symbol in statement.symbols)
        for name, expression, _ in statement.family.expressions():
            for log in expression.atoms(sympy.log):
                yield Condition(log.args[0], POSITIVE, f"inside the {name} of {subject}")
            for power in expression.atoms(sympy.Pow):
                if not power.exp.is_integer:
                    yield Condition(power.base, NONNEGATIVE, f"inside the {name} of {subject}")
        if isinstance(statement.family, MvNormal) and statement.family.arguments[1].free_symbols:
            cov = statement.family.arguments[1]
            for size in range(1, min(len(statement.symbols), MOST_MINORS) + 1):
                yield Condition(cov[:size, :size].det(), POSITIVE, f"a leading minor of the cov of {subject}")


def _holds(expression: Expr, domain: Set, domains: Mapping[Symbol, Set]) -> bool:
    if isinstance(expression, select):
        return all(_holds(choice, domain, domains) for choice in expression.args[1:])
    moved = on_open_box(expression, domains)
    gaps = [moved - domain.inf] * domain.inf.is_finite + [domain.sup - moved] * domain.sup.is_finite
    closed = not domain.is_open
    return bool(gaps) and all(positive(gap) or (closed and nonnegative(gap)) for gap in gaps)


def _broken(condition: Condition, domains: Mapping[Symbol, Set], model: Model) -> dict[Symbol, Any] | None:
    # Free parameters may be chosen so that the condition holds; a latent cannot be told to keep away.
    if not condition.expression.free_symbols <= set(model.latent_symbols):
        return None
    finite = [s for s in model.latent_symbols if is_finite(domains[s])]
    rest = {s: domains[s] for s in model.latent_symbols if s not in finite}
    states = supported_states(model, finite)
    if states is None or not all(takes_every_value(model, s) for s in rest):
        return None
    tape = Tape([condition.expression])
    low, high = condition.domain.inf, condition.domain.sup
    for place, point in enumerate(points(rest, max(40, len(states)))):
        scale = (1, 1, 30, 10**6)[place % 4]
        far = {s: value * scale if domains[s] == sympy.S.Reals else value for s, value in point.items()}
        here = {
            s: v
            for s, v in {**far, **states[place % len(states)]}.items()
            if s in condition.expression.free_symbols
        }
        value = balls.run_or_nan(tape, here, 128)[0]
        below = low.is_finite and value < balls.to_ball(low)
        above = high.is_finite and value > balls.to_ball(high)
        if below or above or (condition.domain.is_open and low.is_finite and value == balls.to_ball(low)):
            return here
    return None

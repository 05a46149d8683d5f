"""Every entry of the zoo: the checker finds the answer that was known beforehand, and proves it.

The answer must not depend on how the model is written down either: names and order of the latents, an
observation made twice, and a change of units change no level.
"""

from __future__ import annotations

import re

import pytest

from identkit.dispatch import as_symbolic, check
from identkit.model.families import Mixture, MvNormal, Normal
from identkit.model.model import Model
from identkit.model.statement import Statement
from identkit.verdict import Level, overall
from identkit.zoo import CASES

LATENTS = {name: case for name, case in CASES.items() if case.about == "latents"}
EVERY_CASE = pytest.mark.parametrize("case", LATENTS.values(), ids=LATENTS.keys())


@EVERY_CASE
def test_verdict_is_the_known_answer_with_a_proof(case):
    verdict = check(case.build(), at=case.at, data=case.data, pooled=case.pooled)
    assert {name: level.value for name, level in verdict.latents.items()} == case.levels
    assert verdict.level.value == case.level
    assert verdict.certificate is not None
    assert verdict.certificate.verify()


@EVERY_CASE
def test_entry_is_complete(case):
    assert re.fullmatch(r"[a-z][a-z0-9-]*", case.name)
    assert case.source
    assert case.note
    assert overall(Level[level] for level in case.levels.values()).value == case.level
    assert set(case.levels) == set(as_symbolic(case.build()).latent_names)


@EVERY_CASE
def test_renamed_and_reordered(case):
    model = as_symbolic(case.build()).at(case.at)
    other, names = rewritten(model)
    assert other.latent_names != model.latent_names
    data = None if case.data is None else {names[name]: value for name, value in case.data.items()}
    verdict = check(other, data=data, pooled=case.pooled)
    assert {name: verdict.latents[names[name]].value for name in case.levels} == case.levels


@EVERY_CASE
def test_observed_twice_in_other_units(case):
    model = as_symbolic(case.build()).at(case.at)
    model.observations = [Statement(s.symbols, scaled(s.family, 3)) for s in model.observations]
    data = None if case.data is None else {name: times(value, 3) for name, value in case.data.items()}
    for position, statement in enumerate(list(model.observations)):
        value = model.observe(f"copy{position}", statement.family)
        copies = [value] if len(statement.symbols) == 1 else list(value)
        if data is not None:
            data |= {
                copy.name: data[symbol.name] for copy, symbol in zip(copies, statement.symbols, strict=True)
            }
    verdict = check(model, data=data, pooled=case.pooled)
    assert {name: level.value for name, level in verdict.latents.items()} == case.levels


def rewritten(model: Model) -> tuple[Model, dict[str, str]]:
    """The same model with other names, its latents in the reverse order as far as they allow."""
    other = Model("rewritten")
    new = {
        symbol: other.parameter(f"q{i}", domain=domain)
        for i, (symbol, domain) in enumerate(model.parameters.items())
    }

    def declare(statement, name, into):
        value = into(name, statement.family.map(lambda e: e.subs(new, simultaneous=True)))
        symbols = [value] if len(statement.symbols) == 1 else list(value)
        new.update(zip(statement.symbols, symbols, strict=True))

    waiting = list(reversed(model.latents))
    while waiting:
        latents = {symbol for statement in waiting for symbol in statement.symbols}
        ready = next(s for s in waiting if not s.family.free_symbols & (latents - set(s.symbols)))
        waiting.remove(ready)
        declare(ready, f"u{len(waiting)}", other.latent)
    for position, statement in enumerate(model.observations):
        declare(statement, f"v{position}", other.observe)
    return other, {symbol.name: renamed.name for symbol, renamed in new.items()}


def scaled(family, factor):
    """The law of `factor` times a draw, for families of real numbers; others stay as they are."""
    if isinstance(family, Mixture):
        return Mixture(family.weights, *[scaled(part, factor) for part in family.components])
    if isinstance(family, Normal):
        mean, sd = family.arguments
        return Normal(factor * mean, factor * sd)
    if isinstance(family, MvNormal):
        mean, cov = family.arguments
        return MvNormal(factor * mean, factor**2 * cov)
    return family


def times(value, factor):
    return [times(each, factor) for each in value] if isinstance(value, list) else f"{factor}*({value})"

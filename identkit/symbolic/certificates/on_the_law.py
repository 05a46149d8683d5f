"""Claims about the law of the data: what it ignores, what can be read off it, and which of its fibres are discrete."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from sympy import Dummy, Expr, Interval, S, Set, Symbol

from identkit.model import balls
from identkit.model.model import Model
from identkit.model.tape import Tape
from identkit.symbolic.certificates.claim import Claim, Point, spelled
from identkit.symbolic.certificates.laws import read_off, same_law, values_of
from identkit.symbolic.certificates.points import differ_in, somewhere_not_zero, within
from identkit.symbolic.certificates.zeros import all_apart, never_negative, told_apart
from identkit.symbolic.regularity import analytic, from_half_line, positive, regular
from identkit.symbolic.summary import conditional_law
from identkit.symbolic.support import (
    State,
    all_domains,
    is_discrete,
    is_finite,
    supported_states,
    takes_every_value,
)
from identkit.symbolic.wording import translation_in_words
from identkit.verdict import Level


@dataclass(frozen=True)
class Ignored(Claim):
    """The law does not change when these latents do (theory/T1, T3)."""

    latents: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.CONSTANT, Level.PARTIAL) for latent in self.latents}

    @property
    def sentence(self) -> str:
        where = f" in the state {spelled(self.state)}" if self.state else ""
        return f"the law of the data does not contain {', '.join(s.name for s in self.latents)}{where}"

    def holds(self, model: Model) -> bool:
        values = {latent: values_of(model, latent) for latent in self.latents}
        moved: list[dict[Symbol, Expr]] = [{}]
        for latent, states in values.items():
            options = states if states is not None else [Symbol(f"{latent.name}'", **latent.assumptions0)]
            moved = [{**change, latent: option} for change in moved for option in options]
        return all(same_law(model, {**self.state}, {**self.state, **change}) for change in moved)


@dataclass(frozen=True)
class OneValue(Claim):
    """The prior leaves a latent one value only, so that there is nothing to learn about it."""

    latent: Symbol

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.CONSTANT,)}

    @property
    def sentence(self) -> str:
        return f"the prior leaves {self.latent.name} one value only"

    def holds(self, model: Model) -> bool:
        finite = [s for s in model.latent_symbols if is_finite(model.support(s))]
        states = supported_states(model, finite) if self.latent in finite else None
        return states is not None and len({state[self.latent] for state in states}) == 1


class Translated(Claim):
    """Translating the latents along a vector does not change the law."""

    direction: Mapping[Symbol, Expr]

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.PARTIAL,) for latent in self.direction}

    @property
    def moved(self) -> dict[Symbol, Expr]:
        """The latents after a step of any length along the vector."""
        t = Dummy("t", real=True)
        return {latent: latent + t * entry for latent, entry in self.direction.items()}


@dataclass(frozen=True)
class Invisible(Translated):
    """Translating the latents along a vector, by any amount, does not change the law."""

    direction: Mapping[Symbol, Expr]
    state: State = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        return f"the law of the data is the same at ({translation_in_words(self.direction)}) for every t"

    def holds(self, model: Model) -> bool:
        return any(entry != 0 for entry in self.direction.values()) and same_law(
            model, dict(self.state), {**self.state, **self.moved}
        )


@dataclass(frozen=True)
class Merged(Claim):
    """Two states have one law."""

    one: State
    other: State

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        moved = [latent for latent in self.one if self.one[latent] != self.other[latent]]
        return {latent.name: (Level.CONSTANT, Level.PARTIAL) for latent in moved}

    @property
    def sentence(self) -> str:
        return f"the states ({spelled(self.one)}) and ({spelled(self.other)}) have one law"

    def holds(self, model: Model) -> bool:
        return dict(self.one) != dict(self.other) and same_law(model, dict(self.one), dict(self.other))


class ReadsOff(Claim):
    """The law determines some latents for good."""

    @property
    @abstractmethod
    def gives(self) -> tuple[Symbol, ...]:
        """The latents that are read off."""

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.GLOBAL,) for latent in self.gives}


@dataclass(frozen=True)
class Recovered(ReadsOff):
    """A formula that gives a latent back from the law, given what was recovered before."""

    latent: Symbol
    formula: Expr
    summary: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def gives(self) -> tuple[Symbol, ...]:
        return (self.latent,)

    @property
    def sentence(self) -> str:
        used = {
            symbol: value for symbol, value in self.summary.items() if symbol in self.formula.free_symbols
        }
        where = ", ".join(f"{symbol} = {value}" for symbol, value in used.items())
        return f"{self.latent.name} = {self.formula}" + (f", where the law has {where}" if where else "")

    def holds(self, model: Model) -> bool:
        return self.latent not in self.known and read_off(
            self.formula, self.summary, self.known, self.state, model, self.latent
        )


@dataclass(frozen=True)
class Monotone(ReadsOff):
    """A formula of the law is strictly monotone in a latent, everything else in it being known."""

    latent: Symbol
    inner: Expr
    sign: int
    formula: Expr
    summary: Mapping[Symbol, Expr]
    known: tuple[Symbol, ...]
    state: State = field(default_factory=dict)

    @property
    def gives(self) -> tuple[Symbol, ...]:
        return (self.latent,)

    @property
    def sentence(self) -> str:
        way = "increases" if self.sign > 0 else "decreases"
        return f"the law determines {self.inner}, which strictly {way} in {self.latent.name}"

    def holds(self, model: Model) -> bool:
        if not self.inner.free_symbols <= {*self.known, *model.domains, self.latent}:
            return False
        if not read_off(self.formula, self.summary, self.known, self.state, model, self.inner):
            return False
        support = _line(model.support(self.latent))
        t = Dummy("t", positive=True)
        bounded = support.inf.is_finite or support.sup.is_finite
        variable, place = (t, from_half_line(support, t)) if bounded else (self.latent, self.latent)
        domains = all_domains(model)
        if not analytic(self.inner, domains) or not regular(self.inner.subs(self.latent, place), variable):
            return False
        slope = (self.sign * self.inner.diff(self.latent)).subs(self.latent, place)
        if any(is_discrete(domains[s]) for s in slope.free_symbols - {variable, self.latent}):
            return positive(slope)
        return never_negative(slope, variable) and somewhere_not_zero(slope, model)


@dataclass(frozen=True)
class AllDiffer(Claim):
    """All states of positive prior mass have different laws, told apart in ball arithmetic at one parameter point."""

    states: tuple[State, ...]
    summary: tuple[Expr, ...]
    parameters: Point

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.GLOBAL,) for latent in self.states[0]}

    @property
    def sentence(self) -> str:
        return f"the laws of all {len(self.states)} states differ"

    def holds(self, model: Model) -> bool:
        law, domains = conditional_law(model), all_domains(model)
        moving = {s for e in self.summary for s in e.free_symbols} - set(self.states[0])
        if (
            law.incomplete
            or not set(self.summary) <= set(law.expressions)
            or not moving <= set(model.domains)
        ):
            return False
        if not all(analytic(e, domains, of=moving) for e in self.summary):
            return False
        if any(is_discrete(domains[symbol]) for symbol in moving):
            return False
        tape = Tape(self.summary)
        table = [balls.run_or_nan(tape, {**self.parameters, **state}, 192) for state in self.states]
        return all_apart(table)


@dataclass(frozen=True)
class Folded(Claim):
    """A map of the latents other than the identity that keeps the law and the support."""

    change: Mapping[Symbol, Expr]

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {latent.name: (Level.LOCAL,) for latent in self.change}

    @property
    def sentence(self) -> str:
        return f"the law is the same at ({', '.join(f'{s.name} -> {e}' for s, e in self.change.items())})"

    def holds(self, model: Model) -> bool:
        moves = any(entry - latent != 0 for latent, entry in self.change.items())
        # The ends of a support say nothing of gaps in it, or of parts of weight 0.
        inside = all(
            takes_every_value(model, latent)
            and (
                model.support(latent) == S.Reals
                or (entry == -latent and model.support(latent).inf == -model.support(latent).sup)
            )
            for latent, entry in self.change.items()
        )
        return moves and inside and same_law(model, {}, dict(self.change))


@dataclass(frozen=True)
class DiscreteFibre(Claim):
    """A summary that is analytic and not constant in its one unknown, whose level sets are therefore discrete."""

    latent: Symbol
    summary: Expr
    one: Point
    other: Point

    @property
    def supports(self) -> dict[str, tuple[Level, ...]]:
        return {self.latent.name: (Level.LOCAL,)}

    @property
    def sentence(self) -> str:
        return f"{self.summary} is analytic and not constant in {self.latent.name}: at most countably many values fit"

    def holds(self, model: Model) -> bool:
        law, domains = conditional_law(model), all_domains(model)
        others = self.summary.free_symbols - {self.latent}
        if law.incomplete or self.summary not in law.expressions or not others <= set(model.domains):
            return False
        if any(is_discrete(domains[symbol]) for symbol in self.summary.free_symbols):
            return False
        if not differ_in(self.latent, self.one, self.other) or not within(domains, self.one, self.other):
            return False
        return analytic(self.summary, domains) and told_apart((self.summary,), self.one, self.other)


def _line(support: Set) -> Interval:
    # What is monotone on the line is so on the counts.
    return Interval.open(-1, S.Infinity) if is_discrete(support) else support
